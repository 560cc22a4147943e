"""Filtered tars: members byte for byte under their names, deterministic, and never two samples in one."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from filtered_pools import all_items, contents, decide, images, kept_items, write_kind, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from poolproof.audit.filter import FilterSpec, filter_pool
from poolproof.audit.pool import ItemRef, open_pool


def keep_all(ref: ItemRef) -> bool:
    """Keeps everything."""
    return ref.row >= 0


def members(path: Path) -> list[tuple[str, bytes]]:
    """Names and bytes of a tar's members."""
    with tarfile.open(path, encoding="utf-8") as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]  # pyright: ignore[reportOptionalMemberAccess]


def tars(out: Path) -> list[Path]:
    """The tars that were written."""
    return sorted((out / "pool").glob("*.tar"))


def test_members_keep_names_order_and_bytes(tmp_path: Path) -> None:
    """All files of a sample come along in their order; headers say nothing of when and by whom."""
    pool = write_kind(tmp_path, "webdataset")
    run, decision = decide(pool, tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    before = [m for path in sorted(pool.glob("*.tar")) for m in members(path)]
    kept = {f"{i:03d}" for i in range(0, 10, 2)}
    assert [m for path in tars(tmp_path / "out") for m in members(path)] == [
        m for m in before if m[0][:3] in kept
    ]
    with tarfile.open(tars(tmp_path / "out")[0]) as tar:
        assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in tar} == {(0, 0, 0, "", "", 0o644)}


def test_statistics_as_other_tools_want_them(tmp_path: Path) -> None:
    """Names of eight digits, `successes` for each tar, and `sizes.json` over all."""
    run, decision = decide(write_kind(tmp_path, "webdataset"), tmp_path)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", shard_items=2))
    pool = tmp_path / "out" / "pool"
    assert sorted(p.name for p in pool.iterdir()) == [
        "00000000.tar",
        "00000000_stats.json",
        "00000001.tar",
        "00000001_stats.json",
        "00000002.tar",
        "00000002_stats.json",
        "sizes.json",
    ]
    assert json.loads((pool / "00000002_stats.json").read_text()) == {"successes": 1}
    assert json.loads((pool / "sizes.json").read_text()) == {
        "00000000.tar": 2,
        "00000001.tar": 2,
        "00000002.tar": 1,
    }


def test_one_key_in_two_tars(tmp_path: Path) -> None:
    """A key that comes again begins another tar: no two samples become one."""
    data = images(4)
    for part in (0, 1):
        rows = [("a.jpg", data[2 * part]), ("a.txt", b"%d" % part), ("b.jpg", data[2 * part + 1])]
        write_tar(tmp_path / "pool" / f"{part}.tar", rows)
    run, decision = decide(tmp_path / "pool", tmp_path, keep=keep_all)
    manifest = filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert [shard["items"] for shard in manifest["shards"]] == [2, 2]
    assert all_items(open_pool(tmp_path / "out" / "pool")) == all_items(open_pool(tmp_path / "pool"))


def test_one_key_twice_in_a_tar(tmp_path: Path) -> None:
    """Each of two samples of one name in one tar keeps its own caption, in a tar of its own."""
    data = images(2)
    rows = [
        ("a.jpg", data[0]),
        ("a.txt", b"first"),
        ("b.jpg", data[1]),
        ("a.jpg", data[1]),
        ("a.txt", b"second"),
    ]
    run, decision = decide(
        write_tar(tmp_path / "pool" / "0.tar", rows), tmp_path, keep=lambda ref: ref.key == "a"
    )
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert [members(path) for path in tars(tmp_path / "out")] == [rows[:2], rows[3:]]


def test_dots_in_names(tmp_path: Path) -> None:
    """Images that WebDataset takes for one sample stay items of their own, in one tar as before."""
    data = images(3)
    rows = [("v1.a.jpg", data[0]), ("v1.a.txt", b"a"), ("v1.b.jpg", data[1]), ("v1.c.jpg", data[2])]
    pool = write_tar(tmp_path / "pool" / "0.tar", rows)
    run, decision = decide(pool, tmp_path, keep=lambda ref: ref.key != "v1.b")
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    (path,) = tars(tmp_path / "out")
    assert members(path) == [*rows[:2], rows[3]]
    assert all_items(open_pool(tmp_path / "out" / "pool")) == kept_items(
        open_pool(pool), lambda r: r.key != "v1.b"
    )


def test_a_plain_name_and_one_with_dots_from_two_tars(tmp_path: Path) -> None:
    """`x.jpg` of one tar does not swallow `x.1.jpg` of another."""
    data = images(2)
    write_tar(tmp_path / "pool" / "0.tar", [("x.jpg", data[0])])
    write_tar(tmp_path / "pool" / "1.tar", [("x.1.png", data[1])])
    run, decision = decide(tmp_path / "pool", tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert all_items(open_pool(tmp_path / "out" / "pool")) == [("x", data[0]), ("x.1", data[1])]
    assert len(tars(tmp_path / "out")) == 2


def test_long_and_foreign_names(tmp_path: Path) -> None:
    """Names beyond the oldest header's hundred bytes, and those that are not UTF-8, are as they were."""
    data = images(3)
    rows = [("d/" * 200 + "x" * 200 + ".jpg", data[0]), ("写真🙂.png", data[1]), ("caf\udce9.jpg", data[2])]
    path = tmp_path / "pool" / "0.tar"
    path.parent.mkdir()
    with tarfile.open(
        path, "w", encoding="utf-8", errors="surrogateescape", format=tarfile.GNU_FORMAT
    ) as tar:
        import io

        for name, content in rows:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    run, decision = decide(path, tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert members(tars(tmp_path / "out")[0]) == rows


def test_members_that_lead_out_are_renamed(tmp_path: Path) -> None:
    """Whoever unpacks the output stays inside the folder; caption and image still share a name."""
    data = images(3)
    rows = [("../up.jpg", data[0]), ("../up.txt", b"t"), ("/abs.png", data[1]), ("a/../../b.jpg", data[2])]
    run, decision = decide(write_tar(tmp_path / "pool" / "0.tar", rows), tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    names = [name for path in tars(tmp_path / "out") for name, _ in members(path)]
    assert names == ["%2E%2E/up.jpg", "%2E%2E/up.txt", "abs.png", "a/%2E%2E/%2E%2E/b.jpg"]
    assert [d for _, d in all_items(open_pool(tmp_path / "out" / "pool"))] == data


def test_a_caption_that_is_cut_off_is_counted(tmp_path: Path) -> None:
    """A tar that ends inside a caption keeps its image; the loss is in the manifest and the card."""
    data = images(2)
    path = write_tar(
        tmp_path / "pool" / "0.tar", [("a.jpg", data[0]), ("b.jpg", data[1]), ("b.txt", b"c" * 4000)]
    )
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(b"c" * 4000) + 100])
    run, decision = decide(path, tmp_path, keep=lambda ref: ref.n_bytes > 0)
    manifest = filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert manifest["counts"]["lost_sidecars"] == 1
    assert "1 files beside the images could not be read" in (tmp_path / "out" / "README.md").read_text()
    assert [d for _, d in all_items(open_pool(tmp_path / "out" / "pool"))] == data


def test_samples_that_are_not_alike_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card does not lead `datasets` to tars that it refuses; as Parquet the same pool loads by its card."""
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    jpegs = images(2)
    pngs = [_as_png(data) for data in jpegs]
    files = [
        ("a.jpg", jpegs[0]),
        ("a.txt", b"x"),
        ("b.png", pngs[0]),
        ("c.jpg", jpegs[1]),
        ("d.png", pngs[1]),
    ]
    run, decision = decide(write_tar(tmp_path / "pool" / "0.tar", files), tmp_path, keep=keep_all)
    manifest = filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert manifest["fields"] == ["jpg", "jpg txt", "png"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "configs:" not in card
    assert "The samples are not alike (jpg; jpg txt; png)" in card
    with pytest.raises(ValueError, match="don't share the same prefix or the same types"):
        datasets.load_dataset(
            "webdataset", data_files=str(tars(tmp_path / "out")[0]), cache_dir=str(tmp_path / "c")
        )
    filter_pool(run, decision, FilterSpec(tmp_path / "rows", format="parquet"))
    assert "not alike" not in (tmp_path / "rows" / "README.md").read_text()
    loaded: Any = datasets.load_dataset(str(tmp_path / "rows"), cache_dir=str(tmp_path / "c"))
    assert len(loaded["train"]) == 4
    assert all(row["image"] is not None for row in loaded["train"])


def _as_png(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "PNG")
    return buffer.getvalue()


def test_links_inside_a_tar(tmp_path: Path) -> None:
    """A member that is a second name of another is written out with its bytes."""
    data = images(1)[0]
    path = write_tar(tmp_path / "pool" / "0.tar", [("a.jpg", data)])
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("b.jpg")
        info.type, info.linkname = tarfile.LNKTYPE, "a.jpg"
        tar.addfile(info)
    run, decision = decide(path, tmp_path, keep=lambda ref: ref.key == "b")
    filter_pool(run, decision, FilterSpec(tmp_path / "out"))
    assert members(tars(tmp_path / "out")[0]) == [("b.jpg", data)]


def test_images_of_a_folder_with_one_stem(tmp_path: Path) -> None:
    """`b.jpg`, `b.png` and `b.1.jpg` of a folder become three samples."""
    data = images(3)
    pool = tmp_path / "pool"
    pool.mkdir()
    for name, content in zip(("b.1.jpg", "b.jpg", "b.png"), data, strict=True):
        (pool / name).write_bytes(content)
    run, decision = decide(pool, tmp_path, keep=keep_all)
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format="webdataset"))
    assert all_items(open_pool(tmp_path / "out" / "pool")) == list(
        zip(("b%2E1", "b", "b~2"), data, strict=True)
    )


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda name: len(name.encode()) < 100
)


@pytest.mark.property
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(NAMES, min_size=1, max_size=6), name=st.sampled_from(["webdataset", "folder", "parquet"])
)
def test_any_names_come_through(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], name: str
) -> None:
    """Whatever the members are called, the items that are listed come out, and nothing beside the output appears."""
    base = tmp_path_factory.mktemp("names")
    data = images(len(names))
    pool = write_tar(base / "pool" / "0.tar", [(f"{n}.jpg", d) for n, d in zip(names, data, strict=True)])
    listed = [ref for ref in open_pool(pool).refs() if ref.n_bytes > 0]
    if not listed:
        return
    run, decision = decide(pool, base / "in" / "deep", keep=lambda ref: ref.n_bytes > 0)
    filter_pool(run, decision, FilterSpec(base / "in" / "deep" / "out", format=name))
    expected = sorted(d for _, d in kept_items(open_pool(pool), lambda ref: ref.n_bytes > 0))
    assert sorted(d for _, d in all_items(open_pool(base / "in" / "deep" / "out" / "pool"))) == expected
    assert sorted(p.name for p in base.iterdir()) == ["in", "pool"]
    assert [p.name for p in (base / "in").iterdir()] == ["deep"]
    assert sorted(p.name for p in (base / "in" / "deep").iterdir()) == ["decision.parquet", "out", "run"]
    assert contents(base / "pool")
