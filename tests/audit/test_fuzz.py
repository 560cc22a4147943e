"""Ten thousand spoilt images, tars and tables: each costs its own row, none costs a process or writes elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from spoilt_cases import CASES, cases_of, watch
from spoilt_pools import spoil, whole_images


def test_spoilt_files_differ_from_whole_ones() -> None:
    """The cases are what they claim to be: whole images of all formats, and others made of them."""
    images = whole_images()
    assert {ending for ending, _ in images} == {
        "jpg",
        "png",
        "webp",
        "gif",
        "bmp",
        "tif",
        "avif",
        "jp2",
        "ppm",
    }
    rng = np.random.default_rng(0)
    changed = sum(spoil(data, rng) != data for _, data in images for _ in range(5))
    assert changed > 0.9 * 5 * len(images)


def test_a_hundred_spoilt_files(tmp_path: Path) -> None:
    """In one process, a sample of the cases below."""
    found, failures = watch([cases_of(100, 7)], tmp_path)
    assert not failures, "\n".join(failures[:3])
    assert found["scored"] > 10
    assert found["unreadable"] > 10


@pytest.mark.slow
def test_ten_thousand_spoilt_files(tmp_path: Path) -> None:
    """No exception, no crash, no case without end, one status an item, and nothing written elsewhere."""
    cases = cases_of(1, 20_260_725)
    found, failures = watch([cases[0::2], cases[1::2]], tmp_path)
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:5])
    assert sum(CASES.values()) == 10_000
    assert (
        min(found[name] for name in ("scored", "unreadable", "unsupported", "missing", "refused", "filtered"))
        > 0
    )
