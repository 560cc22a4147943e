"""Public heads and others from files: what loads, what is refused, and what the score is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_files import Planted
from safetensors.torch import save_file

from poolproof.detectors.kinds import fit_detector
from poolproof.detectors.linear_head import load_linear_head
from poolproof.detectors.reader_spec import PRESETS
from poolproof.errors import InputError


def layer(width: int, n_outputs: int = 1) -> torch.nn.Linear:
    """A linear layer at random."""
    torch.manual_seed(width)
    return torch.nn.Linear(width, n_outputs)


@pytest.mark.reference
def test_univfd_is_the_layer_of_its_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """A file as UnivFD's, a state dict of a linear layer of 768, gives the layer's logits and threshold 0."""
    path, head = tmp_path / "fc_weights.pth", layer(768)
    torch.save(head.state_dict(), path)
    detector = fit_detector("univfd", path=path, rng=rng)
    features = rng.normal(size=(9, 768)).astype(np.float32)
    with torch.no_grad():
        expected = head(torch.from_numpy(features)).numpy()[:, 0]
    np.testing.assert_allclose(detector.score(features).values, expected, atol=1e-5)
    assert (detector.reader, detector.threshold, detector.kind) == (PRESETS["univfd"], 0, "univfd")


@pytest.mark.reference
def test_clipdet_is_the_layer_of_its_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """A file as ClipDet's, with fc.weight of 1024 inside `model`, gives the layer's output."""
    path, head = tmp_path / "weights.pth", layer(1024)
    torch.save({"model": {f"fc.{name}": value for name, value in head.state_dict().items()}}, path)
    detector = fit_detector("clipdet", path=path, rng=rng)
    features = rng.normal(size=(9, 1024)).astype(np.float32)
    with torch.no_grad():
        expected = head(torch.from_numpy(features)).numpy()[:, 0]
    np.testing.assert_allclose(detector.score(features).values, expected, atol=1e-5)
    assert (detector.reader, detector.threshold) == (PRESETS["clipdet"], 0)


def test_every_format_and_name_gives_the_same_head(tmp_path: Path) -> None:
    """Files of torch, safetensors and numpy, flat or nested, wrapped by DataParallel or in half precision."""
    weight, bias = torch.linspace(-1, 1, 4)[None], torch.tensor([0.25])
    torch.save({"weight": weight, "bias": bias}, tmp_path / "a.pt")
    torch.save({"state_dict": {"module.fc.weight": weight, "module.fc.bias": bias}}, tmp_path / "b.bin")
    torch.save({"W": weight[0].bfloat16(), "b": bias[0], "epoch": 3}, tmp_path / "c.pth")
    save_file({"head.weight": weight, "head.bias": bias}, tmp_path / "d.safetensors")
    np.savez(tmp_path / "e.npz", W=weight.numpy(), b=bias.numpy())
    for path in sorted(tmp_path.iterdir()):
        head = load_linear_head(path, reader="r", threshold=0.5)
        np.testing.assert_allclose(head.weight, np.linspace(-1, 1, 4), atol=0.01)
        assert (head.bias, head.threshold, head.reader, head.kind) == (0.25, 0.5, "r", "linear")


def test_two_outputs_become_their_difference(tmp_path: Path, rng: np.random.Generator) -> None:
    """A head of a real and a synthetic output scores the second less the first."""
    head = layer(5, 2)
    torch.save(head.state_dict(), tmp_path / "two.pt")
    features = rng.normal(size=(6, 5)).astype(np.float32)
    with torch.no_grad():
        out = head(torch.from_numpy(features)).numpy()
    found = load_linear_head(tmp_path / "two.pt").score(features).values
    np.testing.assert_allclose(found, out[:, 1] - out[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"weight": torch.zeros(1, 1024), "bias": torch.zeros(1)},
            "got 1024 features, allowed 768 for univfd",
        ),
        ({"weight": torch.full((1, 768), torch.nan), "bias": torch.zeros(1)}, "NaN"),
        ({"weight": torch.zeros(1, 768), "bias": torch.full((1,), torch.inf)}, "infinity"),
        ({"conv1.weight": torch.zeros(3), "fc.weight": torch.zeros(1, 768)}, "got conv1.weight, fc.weight"),
        ({"weight": torch.zeros(3, 768), "bias": torch.zeros(3)}, "outputs"),
        ({"weight": torch.zeros(1, 768), "bias": torch.zeros(2)}, "2 biases"),
        ({}, "got nothing"),
        ([torch.zeros(3)], "got one list"),
        (torch.zeros(3), "got one Tensor"),
        ({"weight": 3, "bias": "x"}, "got nothing"),
    ],
)
def test_other_files_are_refused_by_what_they_hold(tmp_path: Path, content: Any, message: str) -> None:
    """Another width, NaN, other names and no tensors give one line that says what was found."""
    torch.save(content, tmp_path / "head.pth")
    with pytest.raises(InputError, match=message) as caught:
        load_linear_head(tmp_path / "head.pth", kind="univfd")
    assert "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)


def test_files_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    """A pickle in place of weights is refused, in each format, and nothing of it is run."""
    trace = tmp_path / "trace"
    torch.save({"weight": Planted(trace)}, tmp_path / "a.pth")
    np.save(tmp_path / "b", np.array([Planted(trace)], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", W=np.array([Planted(trace)], dtype=object), b=np.zeros(1), allow_pickle=True)
    (tmp_path / "d.safetensors").write_bytes((tmp_path / "a.pth").read_bytes())
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match="does not load") as caught:
            load_linear_head(path)
        assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04" + bytes(99)]
)
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    """Empty files, pointers of git-lfs in place of weights, and cut archives give one line."""
    path = tmp_path / f"head{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="does not load"):
        load_linear_head(path)


def test_paths_are_checked(tmp_path: Path) -> None:
    """A missing file, a folder and a suffix of another format are told apart."""
    (tmp_path / "folder.pt").mkdir()
    for name, message in (("none.pt", "no file"), ("folder.pt", "no file"), ("x.onnx", "suffix '.onnx'")):
        with pytest.raises(InputError, match=message):
            load_linear_head(tmp_path / name)
