"""`poolproof simulate` on the real command line: what it prints and writes, what it refuses, and how it goes on."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from command_line import Result, run_apart, run_here

from poolproof.simulate.montecarlo import with_error

COMMAND = [sys.executable, "-m", "poolproof", "simulate"]
SMALL = ["--dim", "2", "--tolerance", "0.05"]
MAP = ["admissible", "--n-real", "10,20", "--n-synthetic", "10,40", "--sampling-bias", "0.5,1", *SMALL]
LISTS = ["--n-real", "10", "--n-synthetic", "10"]
LOOP = """
kind = "loop"
title = "Mine"
dim = 2
n_generations = 3
n_paths = 16
[[arms]]
label = "fresh"
n_fresh = 5
n_synthetic = 5
[[arms]]
label = "marked"
n_fixed = 5
n_synthetic = 5
mark = 0.1
"""
CURVES = """
kind = "curves"
x = "n_synthetic"
y = "ratio"
dim = 2
tolerance = 0.05
[[curves]]
label = "ten"
n_real = 10
n_synthetic = [5, 10]
"""
REPORT = {
    "pool": {"items": 102, "audited": 102, "status": {"scored": 100, "unreadable": 2}},
    "share": {"lower": 0.1, "point": 0.2, "upper": 0.3, "level": 0.9, "why": None},
}

Run = Callable[..., Result]


def prepare(folder: Path) -> None:
    """Puts the specs and the report that commands name into a folder."""
    for name, text in (
        ("loop.toml", LOOP),
        ("curves.toml", CURVES),
        ("report/report.json", json.dumps(REPORT)),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def simulate(folder: Path, *arguments: str) -> Result:
    """Runs `poolproof simulate` in a folder and in a process of its own, with a cache below that folder."""
    return run_apart("simulate", *arguments, cwd=folder, XDG_CACHE_HOME=str(folder / "xdg"))


@pytest.fixture
def here(tmp_path: Path) -> Run:
    """Runs it in the test's folder and process."""
    prepare(tmp_path)
    return functools.partial(run_here, "simulate", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "xdg"))


def succeed(result: Result) -> list[str]:
    """The lines that a command which ended well has printed."""
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def cached(tmp_path: Path) -> dict[Path, int]:
    """The files of the cache, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "xdg" / "poolproof").rglob("*.json")}


# --- help -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options", "presets"),
    [
        ([], [], []),
        (
            ["admissible"],
            [
                *(
                    "--n-real",
                    "--n-synthetic",
                    "--sampling-bias",
                    "--dim",
                    "--tolerance",
                    "--max-paths",
                    "--max-generations",
                    "--threshold",
                    "--run",
                ),
                *("--share", "--items", "--out", "--seed", "--workers", "--cache", "--no-cache", "--quiet"),
            ],
            ["fig11", "fig12", "memory", "real-share"],
        ),
        (
            ["loop"],
            [
                *("--out", "--seeds", "--generations", "--data", "--device", "--keep-models"),
                *("--workers", "--cache", "--no-cache", "--quiet"),
            ],
            ["digits-synthetic", "fig10-left", "mark-drift"],
        ),
        (["presets"], [], []),
    ],
)
def test_help_is_complete(tmp_path: Path, command: list[str], options: list[str], presets: list[str]) -> None:
    """Every command says what it does, explains each of its options, and names its presets."""
    text = "\n".join(succeed(simulate(tmp_path, *command, "--help")))
    lines = [line.strip() for line in text.splitlines()]
    for option in options:
        [place] = [n for n, line in enumerate(lines) if re.match(rf"(-\w, )?{option}( |$)", line)]
        words = re.sub(r"^(-\w, )?--[\w-]+( [A-Z<][^ ]*)?", "", lines[place]).split()
        assert len(words) > 1 or len(lines[place + 1].split()) > 1
    assert all(preset in text for preset in presets)
    listed = [line for line in lines if line.startswith(("admissible ", "loop ", "presets "))]
    assert [len(line.split()) > 3 for line in listed] == ([True] * 3 if not command else [])


def test_help_loads_nothing_heavy() -> None:
    """The help of each command is instant because no numeric package is imported for it."""
    code = (
        "import sys\n"
        "from poolproof.cli import main\n"
        "for name in ([], ['admissible'], ['loop'], ['presets']):\n"
        "    sys.argv = ['poolproof', 'simulate', *name, '--help']\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'pyarrow', 'PIL', 'pandas', 'scipy', 'matplotlib', 'threadpoolctl', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.count("Usage:") == 4
    assert "HEAVY []" in result.stdout


# --- maps -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder and result of a small map, computed once."""
    folder = tmp_path_factory.mktemp("map")
    return folder, simulate(folder, *MAP, "--threshold", "--out", "out")


def test_map_is_printed_and_written(mapped: tuple[Path, Result]) -> None:
    """Lists give a matrix for each bias, and with --out the same figures in tables, document, picture and page."""
    folder, result = mapped
    lines = succeed(result)
    assert lines[0] == "n_e / n_real in 2 dimensions; 1 or more is admissible"
    files = ["admissible.csv", "admissible.html", "admissible.json", "admissible.parquet", "map.svg"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == files
    table = pd.read_parquet(folder / "out" / "admissible.parquet")
    for bias in ("0.5", "1"):
        head = next(n for n, line in enumerate(lines) if line.strip().startswith(f"bias {bias} "))
        assert lines[head].split() == ["bias", bias, "10", "syn.", "40", "syn."]
        for offset, n_real in enumerate((10, 20), 1):
            rows = table[(table["sampling_bias"] == float(bias)) & (table["n_real"] == n_real)]
            cells = list(map(with_error, rows["ratio"].tolist(), rows["ratio_stderr"].tolist()))
            assert lines[head + offset].split() == f"{n_real} real {' '.join(cells)}".split()
    borders = [line for line in lines if line.startswith("threshold ")]
    assert [re.findall(r"n_real (\d+), bias ([\d.]+):", line)[0] for line in borders] == [
        ("10", "0.5"), ("20", "0.5"), ("10", "1"), ("20", "1")
    ]  # fmt: skip
    assert lines[-2:] == [
        "page        out/admissible.html",
        "tables      out/admissible.parquet, out/admissible.csv, out/admissible.json",
    ]
    assert "simulating: done, 8 loops" in result.stderr


def test_document_holds_command_and_spec(mapped: tuple[Path, Result]) -> None:
    """The document has what was typed, and what it was taken to mean."""
    document = json.loads((mapped[0] / "out" / "admissible.json").read_text())
    assert document["manifest"]["command"] == f"poolproof simulate {' '.join(MAP)} --threshold --out out"
    assert (document["spec"]["n_real"], document["spec"]["dim"]) == ([10, 20], 2)
    assert document["spec"]["effort"]["tolerance"] == 0.05
    assert len(document["thresholds"]) == 4


def test_same_command_hits_the_cache(mapped: tuple[Path, Result]) -> None:
    """The second time nothing is computed or written to the cache, and the same is printed; --quiet is quiet."""
    folder, first = mapped
    before = cached(folder)
    assert len(before) == 8 + 4
    again = simulate(folder, *MAP, "--threshold", "--workers", "1", "--quiet")
    assert succeed(again) == [*succeed(first)[:-2], "nothing is written without --out DIR"]
    assert again.stderr == ""
    assert cached(folder) == before


def test_map_by_file(mapped: tuple[Path, Result], here: Run, tmp_path: Path) -> None:
    """A map's TOML file gives what its lists give, with --tolerance and --threshold beside it."""
    spec = 'kind = "map"\nn_real = [10, 20]\nn_synthetic = [10, 40]\nsampling_bias = [0.5, 1.0]\ndim = 2\n'
    (tmp_path / "map.toml").write_text(spec)
    cache = str(mapped[0] / "xdg" / "poolproof")
    before = cached(mapped[0])
    lines = succeed(here("admissible", "map.toml", "--tolerance", "0.05", "--threshold", "--cache", cache))
    assert lines[:-1] == succeed(mapped[1])[:-2]
    assert cached(mapped[0]) == before


def test_cache_may_be_elsewhere_or_nowhere(here: Run, tmp_path: Path) -> None:
    """--cache names the folder, --no-cache uses none, and another seed gives other figures."""
    command = ["admissible", *LISTS, "--sampling-bias", "0.9", *SMALL]
    there, nowhere = succeed(here(*command, "--cache", "mine")), succeed(here(*command, "--no-cache"))
    assert there == nowhere
    assert len(list((tmp_path / "mine").rglob("*.json"))) == 1
    assert succeed(here(*command, "--cache", "mine", "--seed", "1")) != there
    assert len(list((tmp_path / "mine").rglob("*.json"))) == 2
    assert not (tmp_path / "xdg").exists()


def test_wide_map_is_printed_in_parts(here: Run) -> None:
    """A map of more columns than fit is printed in parts, and left to its files where these are written."""
    counts = [str(n) for n in range(20, 32)]
    command = [
        "admissible",
        "--n-real",
        "10",
        "--n-synthetic",
        ",".join(counts),
        "--sampling-bias",
        "0.5",
        *SMALL,
    ]
    heads = [line.split() for line in succeed(here(*command)) if line.strip().startswith("bias 0.5")]
    assert [word for head in heads for word in head if word.isdigit()] == counts
    assert not any("bias 0.5" in line for line in succeed(here(*command, "--out", "out")))


def test_missing_ratio_says_what_is_known(here: Run) -> None:
    """Where two real images do better than the loop the matrix says so."""
    command = ["admissible", "--n-real", "2", "--n-synthetic", "100000", "--sampling-bias", "0"]
    lines = succeed(here(*command, "--dim", "1", "--tolerance", "0.05"))
    assert any(line.split()[-3:] == ["n_e", "<", "2"] for line in lines)


def test_budget_reaches_the_border(here: Run) -> None:
    """--max-generations holds for the threshold too, which then is no more than a guess."""
    command = ["admissible", *LISTS, "--sampling-bias", "0.99", "--dim", "1", "--max-generations", "40"]
    [border] = [line for line in succeed(here(*command, "--threshold")) if line.startswith("threshold")]
    assert "(not measured)" in border
    assert "raise max_generations" in border


# --- pools ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_share_is_placed(here: Run, tmp_path: Path) -> None:
    """An interval and a number of images get a verdict for each bias, in words and in the document."""
    options = ["--share", "0.1,0.2,0.3", "--items", "100", "--sampling-bias", "0.3,1"]
    lines = succeed(here("admissible", *options, *LISTS, *SMALL, "--out", "out"))
    assert "pool        100 images, share 20.0 %, 10.0 % to 30.0 %" in lines
    [biased] = [line for line in lines if line.startswith("  bias 0.3")]
    [unbiased] = [line for line in lines if line.startswith("  bias 1")]
    assert " undecided " in biased
    assert " admissible " in unbiased
    assert "any number" in unbiased
    document = json.loads((tmp_path / "out" / "admissible.json").read_text())
    assert [row["verdict"] for row in document["pool"]["by_sampling_bias"]] == ["undecided", "admissible"]
    assert document["pool"]["share"] == {"lower": 0.1, "point": 0.2, "upper": 0.3, "level": None}


@pytest.mark.slow
def test_share_needs_no_point(here: Run) -> None:
    """Two limits are enough."""
    options = ["--share", "0.8,0.9", "--items", "100", "--sampling-bias", "0.3"]
    lines = succeed(here("admissible", *options, *LISTS, *SMALL))
    assert "pool        100 images, share 80.0 % to 90.0 %" in lines
    assert any(line.startswith("  bias 0.3   not admissible") for line in lines)


def test_run_is_placed(here: Run, tmp_path: Path) -> None:
    """The report of an audit gives the pool, and its counts the surroundings that are mapped."""
    options = ["--run", "report", "--sampling-bias", "1", "--n-synthetic", "20"]
    lines = succeed(here("admissible", *options, *SMALL, "--out", "out"))
    assert "pool        100 images, share 20.0 %, 10.0 % to 30.0 %" in lines
    document = json.loads((tmp_path / "out" / "admissible.json").read_text())
    assert document["pool"]["share"]["level"] == 0.9
    n_real = document["spec"]["n_real"]
    assert n_real[0] < 70 < 90 < n_real[-1]
    assert "90 % interval" in (tmp_path / "out" / "admissible.html").read_text()


# --- curves and loops -----------------------------------------------------------------------------------


def test_curves_by_file(here: Run, tmp_path: Path) -> None:
    """A TOML file of curves prints a line for each point, and --out has a picture for each panel."""
    lines = succeed(here("admissible", "curves.toml", "--out", "out"))
    table = pd.read_parquet(tmp_path / "out" / "admissible.parquet")
    told = list(map(with_error, table["ratio"].tolist(), table["ratio_stderr"].tolist()))
    assert lines[:2] == [f"ten  n_synthetic {n}: ratio {text}" for n, text in zip((5, 10), told, strict=True)]
    assert (tmp_path / "out" / "curves-1.svg").exists()


def test_loop_by_file(tmp_path: Path) -> None:
    """A loop's TOML file prints where each arm ends and writes its files; the second time it is read."""
    prepare(tmp_path)
    lines = succeed(simulate(tmp_path, "loop", "loop.toml", "--out", "out"))
    assert lines[0] == "generation 3, 16 independent loops"
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["fresh", "squared_w2", "mean"],
        ["marked", "squared_w2", "mean"],
        ["marked", "drift", "mean"],
    ]
    names = [
        "drift.svg",
        "generations.csv",
        "generations.parquet",
        "loop.html",
        "loop.json",
        "squared-w2.svg",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert lines[-2] == "page        out/loop.html"
    assert len(pd.read_parquet(tmp_path / "out" / "generations.parquet")) == 3 * (6 + 7)
    assert "<h1>Mine</h1>" in (tmp_path / "out" / "loop.html").read_text()
    before = cached(tmp_path)
    assert len(before) == 2
    again = simulate(tmp_path, "loop", "loop.toml", "--workers", "2")
    assert succeed(again) == [*lines[:4], "nothing is written without --out DIR"]
    assert cached(tmp_path) == before


# --- what is refused ------------------------------------------------------------------------------------

REFUSED: list[tuple[list[str], str]] = [
    (["admissible"], "n-real: got none, allowed a list"),
    (["admissible", "--n-real", "10"], "n-synthetic: got none, allowed a list"),
    (["admissible", "--n-real", "1", "--n-synthetic", "10"], "n_real: got 1, allowed a whole number from 2"),
    (["admissible", "--n-real", "ten", "--n-synthetic", "10"], "n-real: got 'ten', allowed whole numbers"),
    (["admissible", "--n-real", "1e3", "--n-synthetic", "10"], "n-real: got '1e3', allowed whole numbers"),
    (["admissible", "--n-real", "10,", "--n-synthetic", "10"], "n-real: got '10,', allowed whole numbers"),
    (["admissible", "--n-real", "10,20,10", "--n-synthetic", "10"], "n_real: got 10 twice"),
    (["admissible", "--n-real", "10", "--n-synthetic=-1"], "n_synthetic: got -1"),
    (["admissible", *LISTS, "--sampling-bias", "1.2"], "sampling_bias: got 1.2, allowed"),
    (["admissible", *LISTS, "--sampling-bias", "low"], "sampling-bias: got 'low', allowed numbers"),
    (["admissible", *LISTS, "--sampling-bias", "nan"], "sampling_bias: got nan, allowed"),
    (["admissible", *LISTS, "--dim", "0"], "dim: got 0, allowed a whole number from 1"),
    (["admissible", *LISTS, "--tolerance", "0"], "tolerance: got 0.0, allowed between 0 and 1"),
    (["admissible", *LISTS, "--tolerance", "nan"], "tolerance: got nan, allowed between 0 and 1"),
    (["admissible", *LISTS, "--workers", "0"], "workers: got 0, allowed a whole number from 1"),
    (["admissible", *LISTS, "--seed", "-1"], "seed: got -1, allowed a whole number from 0"),
    (["admissible", *LISTS, "--dim", "1000000"], "dim: got 1000000, allowed a whole number from 1 to 10,000"),
    (["admissible", *LISTS, "--share", "0.1,0.2"], "--share: got '0.1,0.2' without --items, allowed both"),
    (["admissible", *LISTS, "--items", "100"], "--items: got 100 without --share, allowed both"),
    (["admissible", *LISTS, "--share", "0.1,1.2", "--items", "100"], "share: got 1.2, allowed"),
    (["admissible", *LISTS, "--share", "0.3,0.2", "--items", "100"], "share: got limits 0.3 and 0.2"),
    (["admissible", *LISTS, "--share", "0.3", "--items", "100"], "share: got '0.3', allowed"),
    (["admissible", *LISTS, "--share", "low,high", "--items", "100"], "share: got 'low,high', allowed"),
    (["admissible", *LISTS, "--share", "0.1,0.2", "--items", "1"], "items: got 1, allowed"),
    (["admissible", *LISTS, "--run", "nowhere"], "not the report of an audit"),
    (["admissible", *LISTS, "--run", "report", "--items", "100"], "run: got it beside"),
    (["admissible", "fig13"], "fig10-left, fig11, fig12, grid-25, mark-drift, memory"),
    (["admissible", "fig10-left"], "poolproof simulate loop fig10-left"),
    (["admissible", "fig11", "--n-real", "10"], "n-real: got a value beside 'fig11'"),
    (["admissible", "fig11", "--dim", "10"], "dim: got a value beside 'fig11'"),
    (["admissible", "curves.toml", "--threshold"], "no map"),
    (["admissible", "curves.toml", "--share", "0.1,0.2", "--items", "100"], "no map"),
    (["loop", "fig11"], "poolproof simulate admissible fig11"),
    (["loop", "nowhere.toml"], "nowhere.toml"),
    (["loop", "loop.toml", "--workers", "0"], "workers: got 0"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED]
)
def test_bad_input_is_one_line_and_exit_2(
    here: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """What the user got wrong is said in one line, with exit code 2 and no traceback, before anything is computed."""
    result = here(*arguments)
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("poolproof: ")
    assert all(line == lines[-1] or line.startswith("simulating: ") for line in lines)
    assert result.stdout == ""
    assert not (tmp_path / "xdg").exists()


@pytest.mark.parametrize(
    "arguments",
    [["loop"], ["loop", "a", "b"], ["admissible", "--outt", "x"], ["admissible", "--dim", "two"], ["maps"]],
)
def test_usage_errors_are_exit_2(here: Run, arguments: list[str]) -> None:
    """A mistyped option or command, and a missing or unreadable argument, are usage errors with a hint."""
    result = here(*arguments)
    assert result.returncode == 2
    assert "Usage:" in result.stderr


def test_refusals_of_a_process_of_its_own(tmp_path: Path) -> None:
    """On the real command line, too, a refusal and a usage error exit with 2, without a traceback."""
    refused, misused = simulate(tmp_path, "loop", "fig11"), simulate(tmp_path, "loop", "--outt", "x")
    assert refused.returncode == misused.returncode == 2
    assert refused.stderr.startswith("poolproof: fig11 ")
    assert refused.stderr.count("\n") == 1
    assert "Traceback" not in misused.stderr
    assert refused.stdout == misused.stdout == ""


def test_memory_that_runs_out_is_one_line(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that do not fit into memory are a refusal that names the options, not a traceback."""

    def run_out(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("poolproof.simulate.study.run_study", run_out)
    result = here("admissible", *LISTS, *SMALL)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("poolproof: dim: got 2, allowed what fits into memory")


# --- interruption ---------------------------------------------------------------------------------------


def test_interrupted_is_exit_130_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a line, and the same command reads what was finished and computes the rest."""
    command = ["admissible", "--n-real", "20", "--n-synthetic", ",".join(map(str, range(100, 112))), *SMALL]
    command += ["--sampling-bias", "1", "--workers", "1"]
    process = subprocess.Popen(
        [*COMMAND, *command],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "xdg")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(cached(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "poolproof: interrupted; the same command continues"
    assert "Traceback" not in error
    assert output == ""
    finished = cached(tmp_path)
    assert 2 <= len(finished) < 12
    succeed(simulate(tmp_path, *command))
    assert len(cached(tmp_path)) == 12
    assert finished.items() <= cached(tmp_path).items()


def test_interrupted_without_cache_promises_nothing(tmp_path: Path) -> None:
    """With --no-cache an interrupted command says that it would start anew."""
    command = [*COMMAND, "admissible", "--n-real", "20", "--n-synthetic", "4000", "--sampling-bias", "1"]
    command += ["--tolerance", "0.0001", "--no-cache"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "simulating" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "poolproof: interrupted; the same command starts anew"
