"""Detectors on disk: what is saved comes back, and what was tampered with does not."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolproof.detectors.detector import AbstractDetector
from poolproof.detectors.kinds import fit_detector
from poolproof.detectors.saved import PAGE, TENSORS, load_detector, save_detector
from poolproof.errors import InputError


@pytest.fixture
def knn(rng: np.random.Generator) -> AbstractDetector:
    """A detector with tensors and settings."""
    return fit_detector(
        "knn", rng.normal(size=(9, 3)), rng.normal(size=(8, 3)), rng=rng, reader="clip:a/b@raw"
    )


def edit(folder: Path, **changes: Any) -> None:
    """Changes fields of the page; None takes one out."""
    page = json.loads((folder / PAGE).read_text()) | changes
    (folder / PAGE).write_text(json.dumps({name: value for name, value in page.items() if value is not None}))


def refused(folder: Path, match: str, **named: Any) -> None:
    """Checks that the folder is refused in one line that begins with its path."""
    with pytest.raises(InputError, match=match) as caught:
        load_detector(folder, **named)
    assert "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)


def test_a_saved_detector_scores_the_same(fitted: Any, tmp_path: Path) -> None:
    """Every kind comes back with the same type, reader, threshold and scores, bit by bit."""
    folder = save_detector(fitted.detector, tmp_path / "deep" / "detector")
    assert sorted(path.name for path in folder.iterdir()) == [PAGE, TENSORS]
    loaded = load_detector(folder)
    assert type(loaded) is type(fitted.detector)
    assert (loaded.kind, loaded.reader, loaded.threshold) == (
        fitted.detector.kind,
        fitted.detector.reader,
        fitted.detector.threshold,
    )
    features = np.concatenate([fitted.real, fitted.synthetic])
    np.testing.assert_array_equal(loaded.score(features).values, fitted.detector.score(features).values)


def test_saving_twice_gives_the_same_bytes_and_replaces(
    knn: AbstractDetector, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The same detector gives the same files, and another one takes their place."""
    save_detector(knn, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save_detector(load_detector(tmp_path), tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save_detector(fit_detector("rigid", rng.random((9, 1)), reader="rigid:univfd", rng=rng), tmp_path)
    assert load_detector(tmp_path).kind == "rigid"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 2}, "version 2, allowed 1"),
        ({"version": "1"}, "version '1'"),
        ({"version": True}, "version True"),
        ({"version": None}, "version None"),
        ({"kind": "oracle"}, "kind 'oracle', allowed probe"),
        ({"kind": ["knn"]}, "kind"),
        ({"kind": "probe"}, "with weight"),
        ({"kind": "linear"}, "with weight"),
        ({"tensors_sha256": "0" * 64}, "allowed 000000000000"),
        ({"tensors_sha256": None}, "hash"),
        ({"threshold": None}, "threshold = None"),
        ({"threshold": "0"}, "threshold = '0'"),
        ({"threshold": float("nan")}, "threshold = nan"),
        ({"reader": 3}, "reader = 3"),
        ({"settings": [1]}, "no settings"),
        ({"settings": {}}, "k = None"),
        ({"settings": {"k": 9, "metric": "standardised"}}, "k: got 9"),
        ({"settings": {"k": True, "metric": "standardised"}}, "k = True"),
    ],
)
def test_a_changed_page_is_refused(knn: AbstractDetector, tmp_path: Path, changes: Any, match: str) -> None:
    """Another version, kind, hash, threshold or setting gives one line."""
    save_detector(knn, tmp_path)
    edit(tmp_path, **changes)
    refused(tmp_path, match)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_page_that_is_no_table_is_refused(knn: AbstractDetector, tmp_path: Path, content: bytes) -> None:
    """Cut, foreign and deeply nested JSON gives one line."""
    save_detector(knn, tmp_path)
    (tmp_path / PAGE).write_bytes(content)
    refused(tmp_path, PAGE)


@pytest.mark.parametrize("name", [PAGE, TENSORS])
def test_missing_files_are_named(knn: AbstractDetector, tmp_path: Path, name: str) -> None:
    """A folder without a file, and no folder, give one line that names the file."""
    save_detector(knn, tmp_path)
    (tmp_path / name).unlink()
    refused(tmp_path, f"{name}: No such file")
    refused(tmp_path / "nowhere", "No such file")


def test_changed_tensors_are_refused(knn: AbstractDetector, tmp_path: Path) -> None:
    """One bit of the tensors that is not as saved is noticed."""
    save_detector(knn, tmp_path)
    content = bytearray((tmp_path / TENSORS).read_bytes())
    content[-1] ^= 1
    (tmp_path / TENSORS).write_bytes(content)
    refused(tmp_path, "hash")


def test_a_pickle_is_not_run(knn: AbstractDetector, tmp_path: Path) -> None:
    """A pickle in place of tensors is refused, even where the page has its hash, and nothing of it is run."""
    import hashlib

    trace = tmp_path / "trace"

    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(trace),)

    save_detector(knn, tmp_path)
    content = pickle.dumps(Planted())
    (tmp_path / TENSORS).write_bytes(content)
    refused(tmp_path, "hash")
    edit(tmp_path, tensors_sha256=hashlib.sha256(content).hexdigest())
    refused(tmp_path, "no tensors")
    assert not trace.exists()


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_tensors_of_odd_types_and_values_are_refused_or_read(tmp_path: Path, dtype: type) -> None:
    """Finite numbers of another type are read, NaN, other shapes and truth values are refused."""
    import hashlib

    from safetensors.numpy import save

    def write(**tensors: np.ndarray) -> None:
        content = save(tensors)
        page = {"version": 1, "kind": "linear", "reader": "", "threshold": 0, "settings": {}}
        page["tensors_sha256"] = hashlib.sha256(content).hexdigest()
        (tmp_path / TENSORS).write_bytes(content)
        (tmp_path / PAGE).write_text(json.dumps(page))

    write(weight=np.ones(3, dtype), bias=np.zeros(1))
    np.testing.assert_array_equal(load_detector(tmp_path).score(np.eye(3)).values, 1)
    write(weight=np.full(3, np.nan), bias=np.zeros(1))
    refused(tmp_path, "NaN")
    write(weight=np.ones(3, bool), bias=np.zeros(1))
    refused(tmp_path, "no number")
    write(weight=np.ones((3, 1)), bias=np.zeros(1))
    refused(tmp_path, "shape")
    write(weight=np.ones(0), bias=np.zeros(1))
    refused(tmp_path, "shape")


def test_the_readers_weights_may_be_pinned(knn: AbstractDetector, tmp_path: Path) -> None:
    """A detector saved with its reader's digest loads for that digest alone; without one it loads for any."""
    save_detector(knn, tmp_path, weights_sha256="a" * 64)
    load_detector(tmp_path)
    load_detector(tmp_path, weights_sha256="a" * 64)
    refused(tmp_path, "weights bbbbbbbbbbbb", weights_sha256="b" * 64)
    save_detector(knn, tmp_path)
    load_detector(tmp_path, weights_sha256="b" * 64)


def test_an_interrupted_replacement_is_noticed(
    knn: AbstractDetector, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the two files, the folder is refused, for its page belongs to other tensors."""
    save_detector(knn, tmp_path)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("poolproof.detectors.saved.write_json", stop)
    other = fit_detector("knn", rng.normal(size=(9, 3)), rng.normal(size=(8, 3)), rng=rng)
    with pytest.raises(KeyboardInterrupt):
        save_detector(other, tmp_path)
    refused(tmp_path, "hash")


def test_a_folder_that_cannot_be_written_is_refused(knn: AbstractDetector, tmp_path: Path) -> None:
    """A file in the way gives one line."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="can be written"):
        save_detector(knn, tmp_path / "file" / "folder")
