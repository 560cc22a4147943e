"""Loops of trained generators from the command line: run, killed, continued, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import run_apart, run_here

SPEC = """
kind = "loop"
title = "Normal laws"
n_generations = {generations}
seeds = 2
data = {{ kind = "normal", n_reference = 200 }}
measure = {{ features = "identity", n_samples = 100 }}
{more}
[generator]
kind = "normal"

[[arms]]
label = "synthetic"
n_synthetic = 40

[[arms]]
label = "fresh"
n_fresh = 20
n_synthetic = 20
"""

DIGITS = """
kind = "loop"
title = "Digits"
n_generations = 2
seeds = 1
data = { kind = "digits", n_items = 400 }
mark = { scheme = "presence", amplitude = 8 }
measure = { trained_accuracy = true, classifier = { n_epochs = 15, width = 16 } }

[generator]
kind = "diffusion"
n_steps = 150
width = 64
n_sampling_steps = 10

[[arms]]
label = "marked"
n_synthetic = 150
sampling_bias = 0.8
mark_share = 1.0

[[arms]]
label = "filtered"
n_fresh = 50
n_synthetic = 100
policy = { kind = "drop-flagged", flags = { kind = "detector", fpr = 0.2 } }
"""


def write_spec(folder: Path, text: str) -> str:
    """The name of a file with the text."""
    (folder / "spec.toml").write_text(text)
    return "spec.toml"


def table(folder: Path) -> pd.DataFrame:
    """The table of a finished loop without its times."""
    return pd.read_parquet(folder / "generations.parquet").drop(columns=["fit_seconds", "sample_seconds"])


@pytest.mark.slow
def test_digits_loop_from_spec_to_page(tmp_path: Path) -> None:
    """A diffusion model on real digits is trained, marked, filtered and measured, and the page is written."""
    result = run_apart(
        "simulate", "loop", write_spec(tmp_path, DIGITS), "--out", "out", "--workers", "1", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "page        out/loop.html" in result.stdout
    assert "training: 4 generations" in result.stderr
    rows = table(tmp_path / "out")
    assert len(rows) == 4
    later: Any = rows[rows["generation"] == 2].set_index("arm")
    assert later.loc["marked", "n_marked"] == 150
    assert later.loc["marked", "mark_strength"] > 0.2
    assert 0 <= later.loc["filtered", "flag_tpr"] <= 1
    assert rows["trained_accuracy"].between(0, 1).all()
    assert (rows["class_accuracy"] > 0.2).all()
    assert (tmp_path / "out" / "loop.html").stat().st_size > 10_000


@pytest.mark.slow
def test_killed_run_goes_on_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """After a kill in the middle no worker lives on, and the same command ends in the table of one whole run."""
    name = write_spec(tmp_path, SPEC.format(generations=40, more=""))
    command = [sys.executable, "-m", "poolproof", "simulate", "loop", name, "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--out", "cut"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("cut/runs/*/*/generation.json"))) < 10:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "loop.json").exists()
    alive = children
    for _ in range(100):
        alive = [child for child in children if os.path.exists(f"/proc/{child}")]
        if not alive:
            break
        time.sleep(0.1)
    assert not alive
    for folder in ("cut", "whole"):
        result = subprocess.run([*command, "--out", folder], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    pd.testing.assert_frame_equal(table(tmp_path / "cut"), table(tmp_path / "whole"))


def test_seeds_and_generations_of_the_command_line_win(tmp_path: Path) -> None:
    """--seeds and --generations replace those of the spec, and a second command with more goes on."""
    name = write_spec(tmp_path, SPEC.format(generations=9, more=""))
    counts = ["--seeds", "1", "--generations", "2"]
    result = run_apart(
        "simulate", "loop", name, "--out", "out", *counts, "--workers", "1", "-q", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    rows = table(tmp_path / "out")
    assert (set(rows["seed"]), rows["generation"].max()) == ({0}, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spec.toml"], "--out: got none"),
        (["spec.toml", "--out", "o", "--seeds", "0"], "--seeds: got 0, allowed a whole number from 1"),
        (["spec.toml", "--out", "o", "--device", "tpu"], "--device: got 'tpu', allowed auto, cpu, cuda"),
        (["spec.toml", "--out", "o", "--data", "x.npz"], "--data: got 'x.npz' for normal"),
        (["spec.toml", "--out", "o", "--seeds", "1000000000"], "seeds: got 1000000000, allowed up to 1000"),
        (["spec.toml", "--out", "o", "--no-cache"], "--cache: got one for a trained loop"),
        (["spec.toml", "--out", "spec.toml"], "--out: got 'spec.toml'"),
        (["fig10-left", "--seeds", "2"], "--seeds: got 2 for a Gaussian loop"),
        (["fig11"], "fig11 is no loop: poolproof simulate admissible fig11 --out DIR"),
        (["mnist-fresh", "--out", "o", "--data", "absent.npz"], "data.path: got 'absent.npz'"),
        (["bad.toml", "--out", "o"], "bad.toml: arms: got unknown key 'n_real', allowed label, n_fresh"),
        (
            ["sizes.toml", "--out", "o"],
            "sizes.toml: effective_size.n_real: got [50], allowed two different sizes",
        ),
        (["counts.toml", "--out", "o"], "counts.toml: arms 'none': n: got 0 samples per generation"),
        (["kind.toml", "--out", "o"], "kind.toml: arms 'a': generator.kind: got 'vae', allowed diffusion,"),
        (["class.toml", "--out", "o"], "data: got 1 of 1 classes"),
        (["few.toml", "--out", "o"], "data: got 10 images"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    """What the user got wrong is said in one line, with exit code 2 and no traceback."""
    from PIL import Image

    head = 'kind = "loop"\ndata = { kind = "digits" }\ngenerator = { kind = "diffusion" }\n'
    write_spec(tmp_path, SPEC.format(generations=2, more=""))
    (tmp_path / "bad.toml").write_text(head + '[[arms]]\nlabel = "a"\nn_real = 5\n')
    (tmp_path / "sizes.toml").write_text(
        head + 'effective_size = { n_real = [50] }\n[[arms]]\nlabel = "a"\nn_synthetic = 5\n'
    )
    (tmp_path / "counts.toml").write_text(head + '[[arms]]\nlabel = "none"\n')
    (tmp_path / "kind.toml").write_text(
        head.replace('"diffusion"', '"vae"') + '[[arms]]\nlabel = "a"\nn_synthetic = 50\n'
    )
    for name, n in (("class", 30), ("few", 10)):
        folder = tmp_path / name / "only"
        folder.mkdir(parents=True)
        for i in range(n):
            Image.new("L", (8, 8), i).save(folder / f"{i}.png")
        data = f'data = {{ kind = "folder", path = "{name}", size = 8 }}'
        (tmp_path / f"{name}.toml").write_text(
            head.replace('data = { kind = "digits" }', data) + '[[arms]]\nlabel = "a"\nn_synthetic = 50\n'
        )
    result = run_here("simulate", "loop", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    assert "Traceback" not in result.stderr


def test_presets_are_listed_with_their_titles() -> None:
    """`poolproof simulate presets` names each preset, its command and its title."""
    command = [sys.executable, "-m", "poolproof", "simulate", "presets"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {line.split()[0]: line for line in lines}
    assert "simulate loop        Digits, fully synthetic" in found["digits-synthetic"]
    assert "simulate admissible" in found["fig11"]
