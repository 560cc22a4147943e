"""Images named on a command line: files, folders and other pools, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar, final

from poolproof.audit.pool import Unread, open_pool
from poolproof.errors import InputError

Result = TypeVar("Result")

_AHEAD: Final = 4
"""Images in memory per worker."""


@final
@dataclass(frozen=True)
class EncodedImage:
    """One image before decoding.

    Attributes:
        position: among all images, from 0.
        key: of the item in its pool.
        data: encoded bytes, or why they could not be had.
    """

    position: int
    key: str
    data: bytes | Unread


@final
class Images:
    """Images at paths. Listing them reads no pixels.

    Args:
        paths: image files, and pools as `open_pool` takes them; in this order.

    Raises:
        InputError: no path, no such path, or no images there.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        if not paths:
            raise InputError("images: got no path, allowed image files, folders and pools; name one")
        self._pools = [open_pool(path) for path in paths]
        self.total = sum(map(len, self._pools))
        if self.total == 0:
            raise InputError(
                f"images: got {', '.join(paths)} without images, allowed one or more; name another"
            )

    def __iter__(self) -> Iterator[EncodedImage]:
        position = 0
        for pool in self._pools:
            refs = pool.refs()
            for ref, data in zip(refs, pool.reader.read(refs), strict=True):
                yield EncodedImage(position, ref.key, data)
                position += 1

    def map(self, work: Callable[[EncodedImage], Result], n_workers: int) -> Iterator[Result]:
        """Results in the order of the images, worked on by threads, few images ahead of the reader.

        Args:
            work: spends its time in compiled code that lets other threads run.
            n_workers: threads, from 1.
        """
        if n_workers == 1:
            yield from map(work, self)
            return
        waiting: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(n_workers) as pool:
            try:
                for image in self:
                    waiting.append(pool.submit(work, image))
                    if len(waiting) >= _AHEAD * n_workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
