"""`poolproof watermark` on the real command line: what it writes, reads, prints and refuses."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Result, run_apart, run_here
from image_pools import draw, encode
from PIL import Image

KEY = "00112233445566778899aabbccddeeff"


def watermark(*arguments: str | Path, cwd: Path | None = None) -> Result:
    """Runs `poolproof watermark`."""
    return run_here("watermark", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four pictures, one of them in a folder below and one with transparency."""
    folder = tmp_path_factory.mktemp("plain")
    rng = np.random.default_rng(1)
    (folder / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (folder / name).write_bytes(encode(draw(rng, synthetic=True, side=320)))
    image = Image.fromarray(draw(rng, synthetic=False, side=288))
    alpha = np.tile(np.arange(288, dtype=np.uint8), (288, 1))
    image.putalpha(Image.fromarray(alpha))
    image.save(folder / "d.png")
    return folder


@pytest.fixture(scope="module")
def keyed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures with a keyed mark of 24 bits, and the answer of the command."""
    out = tmp_path_factory.mktemp("keyed") / "out"
    result = run_apart("watermark", "embed", plain, "--out", out, "--key", KEY, "--payload", "text:mad", "-q")
    assert result.returncode == 0, result.stderr
    assert "4 marked" in result.stdout
    return out


@pytest.mark.parametrize("command", [[], ["key"], ["embed"], ["detect"], ["bench"]])
def test_help_names_every_option_and_loads_nothing_heavy(command: list[str]) -> None:
    """Each command explains itself without importing a numeric package."""
    code = (
        f"import sys; sys.argv = ['poolproof', 'watermark', *{command!r}, '--help']\n"
        "from poolproof.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'numpy', 'torch', 'pyarrow', 'PIL', 'pandas', 'scipy', 'diffusers', 'rich'}\n"
        "print('HEAVY', code, sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "HEAVY 0 []" in result.stdout
    for line in result.stdout.splitlines():
        if line.strip().startswith("--"):
            assert len(line.split()) > 2, line


def test_keys_are_printed_or_written_once_and_for_their_owner(tmp_path: Path) -> None:
    """A key is 32 digits, two keys differ, a file is private and never replaced."""
    first, second = watermark("key").stdout.strip(), watermark("key").stdout.strip()
    assert len(first) == 32
    assert first != second
    file = tmp_path / "key.txt"
    assert watermark("key", "--out", file).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    refused = watermark("key", "--out", file)
    assert refused.returncode == 2
    assert file.read_text() == before


def test_keyed_marks_are_read_with_their_key_alone(keyed: Path, plain: Path, tmp_path: Path) -> None:
    """Every copy is found with its payload; another key, and the originals, give nothing."""
    file = tmp_path / "key.txt"
    file.write_text(KEY + "\n")
    result = watermark("detect", keyed, "--key", file, "--bits", "24", "--scales", "1", "--json", "-q")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["key"] for row in rows] == ["a.png", "b.png", "d.png", "sub/c.png"]
    expected = "".join(f"{byte:08b}" for byte in b"mad")
    assert all(row["detected"] and row["bits"] == expected and row["payload"] == "own" for row in rows)
    assert max(row["p_value"] for row in rows) < 1e-20
    for folder, key in ((keyed, KEY[::-1]), (plain, KEY)):
        other = watermark("detect", folder, "--key", key, "--bits", "24", "--scales", "1", "-q")
        assert other.returncode == 0
        assert "found       0 of 4" in other.stdout


def test_copies_keep_size_alpha_and_faintness_and_originals_stay(keyed: Path, plain: Path) -> None:
    """Alpha is carried over as it is, the change is faint, and a rerun keeps what is there."""
    before, after = (np.asarray(Image.open(folder / "d.png")) for folder in (plain, keyed))
    assert before.shape == after.shape
    np.testing.assert_array_equal(before[:, :, 3], after[:, :, 3])
    error = np.mean((before[:, :, :3].astype(float) - after[:, :, :3]) ** 2)
    assert 10 * np.log10(255**2 / error) > 40
    times = {path: path.stat().st_mtime_ns for path in keyed.rglob("*.png")}
    again = watermark("embed", plain, "--out", keyed, "--key", KEY, "--payload", "text:mad", "-q")
    assert "4 kept" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in keyed.rglob("*.png")} == times
    otherwise = watermark("embed", plain, "--out", keyed, "--key", KEY, "-q")
    assert otherwise.returncode == 2
    assert "marked otherwise" in otherwise.stderr
    assert KEY not in (keyed / "marked.json").read_text()


@pytest.mark.parametrize(
    ("variant", "channels"), [("float32/BGR", "BGR"), ("float32/RGB", "RGB"), ("uint8/BGR", "BGR")]
)
def test_public_marks_are_found_in_every_form(
    plain: Path, tmp_path: Path, variant: str, channels: str
) -> None:
    """What is written as a public generator writes it is read back with payload and form, and joins an audit."""
    out, table = tmp_path / "out", tmp_path / "rows.parquet"
    options = ("--scheme", "dwtDct", "--payload", "sdxl", "--variant", variant)
    assert watermark("embed", plain, "--out", out, *options, "-q").returncode == 0
    result = watermark("detect", out, "--out", table, "-q")
    assert result.returncode == 0
    assert "4 of 4 tested images marked: 4 sdxl" in result.stdout
    assert "would be found" in result.stdout
    assert "tests of invented payloads" in result.stdout
    rows = pd.read_parquet(table)
    assert list(rows["mark_payload"]) == ["sdxl"] * 4
    assert all(form.endswith(channels) for form in rows["mark_variant"])
    assert (rows["mark_qvalue"] <= rows["mark_pvalue"].max()).all()
    assert rows["marked"].all()


def test_recall_tells_when_nothing_could_have_been_found(plain: Path, tmp_path: Path) -> None:
    """In JPEGs with halved chroma no mark would be found, and the share of marked images is left open."""
    for path in plain.rglob("*.png"):
        image = Image.open(path).convert("RGB")
        image.save(tmp_path / f"{path.stem}.jpg", quality=30, subsampling=2)
    result = watermark("detect", tmp_path, "-q")
    assert "found       0 of 4" in result.stdout
    assert "recall      0 of 4" in result.stdout
    assert "share       not told" in result.stdout
    upper = result.stdout.split("0.0 to ")[1].split(" %")[0]
    assert float(upper) > 90


def test_every_kind_of_pool_is_read(keyed: Path, tmp_path: Path) -> None:
    """A single file, a tar and a Parquet file give the rows that the folder gives."""
    data = (keyed / "a.png").read_bytes()
    with tarfile.open(tmp_path / "pool.tar", "w") as tar:
        info = tarfile.TarInfo("000.png")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    pq.write_table(pa.table({"image": [{"bytes": data, "path": "x.png"}]}), tmp_path / "pool.parquet")
    pools = (keyed / "a.png", tmp_path / "pool.tar", tmp_path / "pool.parquet")
    result = watermark("detect", *pools, "--key", KEY, "--bits", "24", "--scales", "1", "--json", "-q")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 3
    assert len({row["p_value"] for row in rows}) == 1
    assert all(row["detected"] for row in rows)


def test_odd_images_cost_their_own_row(tmp_path: Path) -> None:
    """Tiny, gray, 16-bit, CMYK, animated, broken and lying files: a status and a reason each, nothing else lost."""
    rng = np.random.default_rng(2)
    pool = tmp_path / "pool"
    pool.mkdir()
    gray = draw(rng, synthetic=False, side=300)[:, :, 0]
    Image.fromarray(gray).save(pool / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(pool / "deep.png")
    Image.fromarray(draw(rng, synthetic=False, side=300)).convert("CMYK").save(pool / "cmyk.jpg")
    Image.fromarray(gray[:20, :20]).save(pool / "tiny.png")
    frames = [Image.fromarray(gray), Image.fromarray(gray[::-1])]
    frames[0].save(pool / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    (pool / "broken.png").write_bytes(encode(draw(rng, synthetic=False, side=300))[:5000])
    (pool / "page.jpg").write_text("<html>not found</html>")
    out = tmp_path / "out"
    result = watermark("embed", pool, "--out", out, "--key", KEY, "-q")
    assert result.returncode == 0
    assert sorted(path.name for path in out.iterdir()) == ["gray.png", "marked.json"]
    assert "mode: CMYK" in result.stderr
    assert "mode: I;16" in result.stderr
    assert "animation" in result.stderr
    assert "1 marked" in result.stdout
    assert "Traceback" not in result.stderr
    rows = [
        json.loads(line) for line in watermark("detect", pool, out / "gray.png", "--json").stdout.splitlines()
    ]
    assert len(rows) == 8
    by_key = {row["key"]: row for row in rows[:7]}
    assert by_key["broken.png"]["status"] == "unreadable"
    assert by_key["page.jpg"]["status"] == "unreadable"
    assert by_key["tiny.png"]["p_value"] is None
    assert "too-small" in by_key["tiny.png"]["reason"]
    assert by_key["deep.png"]["detected"] is False


def test_keys_of_a_pool_lead_nowhere_else(tmp_path: Path) -> None:
    """Names with dots and slashes inside a tar become names inside the output folder."""
    data = encode(draw(np.random.default_rng(3), synthetic=True, side=128))
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        for name in ("../../evil.png", "/abs.png", "a\\b\n.png"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out = tmp_path / "deep" / "out"
    result = watermark("embed", tmp_path / "evil.tar", "--out", out, "--key", KEY, "-q")
    assert "Traceback" not in result.stderr
    written = {path for path in tmp_path.rglob("*") if path.is_file() and path.name != "evil.tar"}
    assert all(path.is_relative_to(out) for path in written)
    assert len(written) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "nowhere", "--out", "o", "--key", KEY], "no such file"),
        (["embed", ".", "--out", "o"], "--key"),
        (["embed", ".", "--out", "o", "--key", "12"], "hexadecimal"),
        (["embed", ".", "--out", "o", "--key", "x" * 32], "hexadecimal"),
        (["embed", ".", "--out", "o", "--key", KEY, "--payload", "text:123456789"], "64"),
        (["embed", ".", "--out", "o", "--key", KEY, "--payload", "sdxl"], "text:WORDS"),
        (["embed", ".", "--out", "o", "--key", KEY, "--variant", "uint8/BGR"], "--variant"),
        (["embed", ".", "--out", "o", "--scheme", "lsb"], "spread, dwtDct"),
        (["embed", ".", "--out", "o", "--scheme", "dwtDct"], "--payload"),
        (["embed", ".", "--out", "o", "--scheme", "dwtDct", "--key", KEY], "no key"),
        (
            ["embed", ".", "--out", "o", "--scheme", "dwtDct", "--payload", "sdxl", "--variant", "x"],
            "uint8/BGR",
        ),
        (["embed", ".", "--out", "o", "--key", KEY, "--format", "gif"], "png, webp, jpeg"),
        (["embed", ".", "--out", "o", "--key", KEY, "--psnr", "99"], "30 to 60"),
        (["detect", ".", "--bits", "8"], "--key"),
        (["detect", ".", "--key", KEY, "--bits", "65"], "1 to 64"),
        (["detect", ".", "--key", KEY, "--scales", "a"], "separated by commas"),
        (["detect", ".", "--key", KEY, "--scales", "100"], "0.1 to 8"),
        (["detect", ".", "--level", "0"], "between 0 and 1"),
        (["detect", ".", "--power", "-1"], "--power"),
        (["detect", ".", "--registry", "none.toml"], "none.toml"),
        (["detect", ".", "--out", "x.csv"], ".parquet"),
        (["bench", ".", "--schemes", "lsb"], "--schemes"),
        (["bench", ".", "--attacks", "melt"], "melt"),
        (["bench", ".", "--attacks", "jpeg:500:420"], "1 to 100"),
        (["bench", ".", "--attacks", "regenerate"], "no model"),
        (["bench", ".", "--regenerate", "."], "pipeline"),
        (["bench", ".", "--crop", "8"], "from 64"),
    ],
)
def test_refusals_are_one_line_with_exit_code_2(
    plain: Path, arguments: list[str], message: str, tmp_path: Path
) -> None:
    """What cannot be used is named with what is allowed, and nothing is left behind."""
    Image.open(plain / "a.png").save(tmp_path / "a.png")
    result = watermark(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    lines = [
        line for line in result.stderr.strip().splitlines() if not line.startswith(("marking", "reading"))
    ]
    assert len(lines) == 1
    assert lines[0].startswith("poolproof: ")
    assert message in lines[0]


def test_bench_prints_and_writes_a_table_and_a_picture(plain: Path, tmp_path: Path) -> None:
    """Rates by attack and scheme, false positives among them, with quality and time; the tables hold the same."""
    options = ("--schemes", "spread,dwtDct", "--attacks", "none,jpeg:50:420,flip", "--crop", "280")
    result = watermark("bench", plain, "--out", tmp_path / "b", *options, "-q")
    assert result.returncode == 0, result.stderr
    summary = pd.read_csv(tmp_path / "b" / "marks.csv").set_index(["scheme", "attack"])
    assert list(summary.loc["spread"].index) == ["unmarked", "none", "jpeg:50:420", "flip"]
    assert (summary.loc["spread"]["detected"] == [0, 1, 1, 1]).all()
    assert summary.loc[("dwtDct (uint8)", "jpeg:50:420"), "detected"] == 0
    assert float(str(summary.loc[("spread", "none"), "psnr"])) > 40
    outcomes = pd.read_parquet(tmp_path / "b" / "outcomes.parquet")
    assert len(outcomes) == 4 * 2 * 4
    assert (tmp_path / "b" / "marks.svg").read_bytes().startswith(b"<svg")
    assert json.loads((tmp_path / "b" / "bench.json").read_text())["images"] == 4
    assert "jpeg:50:420" in result.stdout
    assert "PSNR" in result.stdout
