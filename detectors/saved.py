"""Fitted detectors on disk: a page of JSON and a file of tensors, and nothing that could run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolproof.detectors.detector import STATE_VERSION, AbstractDetector, DetectorState
from poolproof.detectors.kinds import KINDS
from poolproof.errors import InputError
from poolproof.files import replace_file, write_json

PAGE: Final = "detector.json"
TENSORS: Final = "detector.safetensors"

_DTYPES: Final = ("float32", "float64", "int64")


def save_detector(
    detector: AbstractDetector, folder: str | Path, *, weights_sha256: str | None = None
) -> Path:
    """Return the folder, in which the detector now lies.

    The page is written last and holds the hash of the tensors, so a folder is whole or refused.

    Args:
        detector: fitted.
        folder: made where it is missing; a detector in it is replaced.
        weights_sha256: of the reader's file of weights; then it only loads for the same file.

    Raises:
        InputError: the folder cannot be written.
    """
    from safetensors.numpy import save

    folder, state = Path(folder), detector.state()
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in state.tensors.items()}
    assert all(array.dtype.name in _DTYPES for array in arrays.values())
    content = save(arrays)
    settings = dict(state.settings)
    page = {
        "version": STATE_VERSION,
        "kind": state.kind,
        "reader": settings.pop("reader"),
        "threshold": settings.pop("threshold"),
        "settings": settings,
        "weights_sha256": weights_sha256,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replace_file(folder / TENSORS) as temporary:
            temporary.write_bytes(content)
        write_json(folder / PAGE, page)
    except OSError as error:
        raise InputError(
            f"detector: got {str(folder)!r} ({error.strerror}), allowed a folder that can be written: choose another"
        ) from error
    return folder


def load_detector(folder: str | Path, *, weights_sha256: str | None = None) -> AbstractDetector:
    """Return the detector that lies in a folder.

    Args:
        folder: as given to `save_detector`.
        weights_sha256: of the reader's file of weights, compared where the detector names one.

    Raises:
        InputError: a file is missing or damaged, another version, an unknown kind, tensors that are not those
            that were saved, or weights of the reader that are not those it was fitted with.
    """
    folder = Path(folder)
    page = _read_page(folder)
    version, kind = page.get("version"), page.get("kind")
    if version != STATE_VERSION or isinstance(version, bool):
        raise _refusal(folder, f"version {version!r}", f"{STATE_VERSION}", "fit it anew with this release")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _refusal(folder, f"the kind {kind!r}", ", ".join(KINDS), "fit it anew with this release")
    fitted = page.get("weights_sha256")
    if weights_sha256 is not None and fitted is not None and fitted != weights_sha256:
        got = f"weights {weights_sha256[:12]} of the reader"
        raise _refusal(folder, got, str(fitted)[:12], "use the weights that it was fitted with")
    settings = page.get("settings")
    if not isinstance(settings, dict):
        raise _refusal(folder, "no settings", "a table of them", "save it anew")
    tensors = _read_tensors(folder, page.get("tensors_sha256"))
    settings = settings | {"reader": page.get("reader"), "threshold": page.get("threshold")}
    return KINDS[kind].restore(DetectorState(kind, tensors, settings))


def _read_page(folder: Path) -> dict[str, Any]:
    content = _read(folder, PAGE)
    try:
        page = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refusal(folder, f"{PAGE} that is no JSON", "the file as saved", "save it anew") from error
    if not isinstance(page, dict):
        raise _refusal(folder, f"{PAGE} without a table", "the file as saved", "save it anew")
    return page


def _read_tensors(folder: Path, expected: Any) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = _read(folder, TENSORS)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise _refusal(folder, f"{TENSORS} of hash {found[:12]}", str(expected)[:12], "save it anew")
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _refusal(folder, f"{TENSORS} that holds no tensors", "safetensors", "save it anew") from error


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        got = f"{name}: {error.strerror}"
        raise _refusal(folder, got, f"a folder with {PAGE} and {TENSORS}", "check the path") from error


def _refusal(folder: Path, got: str, allowed: str, remedy: str) -> InputError:
    return InputError(f"detector {folder}: got {got}, allowed {allowed}: {remedy}")
