"""A pool's images as the real data of a simulated loop."""

from __future__ import annotations

import sys

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from poolproof.audit.decode import decode_image
from poolproof.audit.pool import Unread, open_pool
from poolproof.errors import InputError
from poolproof.simulate.real_data import DataSpec, fit_picture

BATCH = 256
"""Items whose bytes are read in one go."""


def read_loop_images(spec: DataSpec) -> tuple[UInt8[np.ndarray, "n h w c"], None]:
    """The readable images of a pool, cut square and brought to the spec's size, and None for their classes.

    How many could not be read is told on standard error.

    Args:
        spec: of kind `pool`.

    Raises:
        InputError: no size, no pool, or no image in it that can be read.
    """
    if spec.size is None:
        raise InputError("data.size: got none, allowed pixels a side that all images are brought to; add it")
    pool = open_pool(spec.path)
    images, n_unread = [], 0
    for start in range(0, len(pool), BATCH):
        for data in pool.reader.read(pool.refs(start, min(start + BATCH, len(pool)))):
            decoded = None if isinstance(data, Unread) else decode_image(data)
            if decoded is None or decoded.pixels is None:
                n_unread += 1
                continue
            images.append(fit_picture(Image.fromarray(decoded.pixels), spec))
    if not images:
        raise InputError(f"data.path: got {spec.path!r} without a readable image, allowed a pool of images")
    if n_unread:
        print(f"note: {n_unread} of {len(pool)} items could not be read and are left out", file=sys.stderr)
    return np.stack(images), None
