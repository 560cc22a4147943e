"""Ten thousand spoilt images, tars and tables: each costs its own row, none costs a process or writes elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_pools import decide, write_tar
from spoilt_cases import CASES, cases_of, watch
from spoilt_pools import spoil, whole_images

from poolproof.audit.filter import FilterSpec, filter_pool
from poolproof.audit.pool import Unread, open_pool
from poolproof.audit.verify_filter import find_filter_faults
from poolproof.errors import InputError


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


def test_a_member_that_states_more_than_64_bits_is_an_item_of_its_own(tmp_path: Path) -> None:
    """A size that no number of a listing holds costs that member's row, and what came before it is read."""
    (_, image), buffer = whole_images()[0], io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(image)
            tar.addfile(info, io.BytesIO(image))
    data = bytearray(buffer.getvalue())
    at = data.index(b"b.jpg")
    data[at + 124 : at + 136] = b"\x80" + b"\x7f" * 11
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    (tmp_path / "pool.tar").write_bytes(data)
    pool = open_pool(tmp_path / "pool.tar")
    first, second = pool.reader.read(pool.refs())
    assert (first, isinstance(second, Unread)) == (image, True)


def test_a_column_whose_name_is_not_text_is_refused(tmp_path: Path) -> None:
    """Beside other files it is one item that cannot be read, alone it is an error of one line."""
    (_, image), pool = whole_images()[0], tmp_path / "pool"
    pool.mkdir()
    pq.write_table(pa.table({"image": [image], "caption": ["x"]}), pool / "a.parquet")
    data = (pool / "a.parquet").read_bytes()
    (pool / "b.parquet").write_bytes(data.replace(b"caption", b"capti\xffn"))
    refs = open_pool(pool).refs()
    assert [ref.key for ref in refs][1:] == ["b.parquet"]
    (pool / "a.parquet").unlink()
    with pytest.raises(InputError, match="no Parquet file of 1 can be read"):
        open_pool(pool)


@pytest.mark.parametrize("name", ["photo.v2.png", "a\\..\\b.png", "dir.d/photo.final.v2.png"])
def test_images_whose_names_have_dots_keep_one_stem(name: str, tmp_path: Path) -> None:
    """Out of a tar into a folder, nothing of a name is written twice, and a caption stays beside its image."""
    (_, image), stem = whole_images()[4], name.removesuffix(".png")
    pool = write_tar(tmp_path / "pool" / "0.tar", [(name, image), (f"{stem}.txt", b"cat")])
    filter_pool(*decide(pool, tmp_path / "made"), FilterSpec(tmp_path / "out", format="folder"))
    assert find_filter_faults(tmp_path / "out") == []
    written = [path for path in (tmp_path / "out" / "pool").rglob("*") if path.is_file()]
    assert len({path.stem for path in written}) == 1, written
    assert sorted(path.suffix for path in written) == [".png", ".txt"]


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
