"""The simulate commands at the edge of what can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_here

SMALL = ["--dim", "2", "--tolerance", "0.05", "--no-cache"]
LOOP = 'kind = "loop"\ndim = 1\nn_generations = 3\nn_paths = 16\n'


def test_two_limits_have_a_page(tmp_path: Path) -> None:
    """An interval without a point is placed and written."""
    lists = ["--n-real", "10", "--n-synthetic", "10", "--sampling-bias", "1", *SMALL]
    result = run_here(
        "simulate", "admissible", *lists, "--share", "0.1,0.2", "--items", "100", "--out", "out", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "admissible.html").exists()


def test_curve_without_any_ratio_is_printed(tmp_path: Path) -> None:
    """A point whose n_e is below 2 is said to be not known."""
    (tmp_path / "c.toml").write_text(
        'kind = "curves"\nx = "n_synthetic"\ny = "ratio"\ndim = 1\ntolerance = 0.05\n'
        '[[curves]]\nlabel = "a"\nn_real = 2\nsampling_bias = 0.0\nn_synthetic = [100000]\n'
    )
    result = run_here("simulate", "admissible", "c.toml", "--no-cache", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "not known" in result.stdout


@pytest.mark.parametrize("option", ["--out", "--cache"])
def test_folders_that_are_files_are_refused(tmp_path: Path, option: str) -> None:
    """A file where a folder is needed is one line and exit code 2."""
    (tmp_path / "l.toml").write_text(f'{LOOP}[[arms]]\nlabel = "a"\nn_fresh = 5\n')
    options = [option, "l.toml"] + ([] if option == "--cache" else ["--no-cache"])
    result = run_here("simulate", "loop", "l.toml", *options, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr


def test_last_generation_of_the_truth_is_printed(tmp_path: Path) -> None:
    """An arm that starts from the truth is printed beside one that does not."""
    arms = '[[arms]]\nlabel = "a"\nn_fresh = 5\n[[arms]]\nlabel = "b"\nn_fresh = 5\ninitial = "truth"\n'
    (tmp_path / "l.toml").write_text(LOOP + arms)
    result = run_here("simulate", "loop", "l.toml", "--no-cache", cwd=tmp_path)
    assert [line.split()[0] for line in result.stdout.splitlines()[1:3]] == ["a", "b"]
