"""The table of detectors: what each needs, how it is fitted or loaded, and how it comes back from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, final

import numpy as np
from jaxtyping import Float

from poolproof.detectors.detector import AbstractDetector, DetectorState
from poolproof.detectors.knn import fit_knn, fit_real_distance, restore_knn, restore_real_distance
from poolproof.detectors.linear_head import load_linear_head, restore_linear
from poolproof.detectors.probe import fit_probe_detector, restore_probe_detector
from poolproof.detectors.reader_spec import FORENSIC, PRESETS
from poolproof.detectors.rigid import fit_rigid, restore_rigid
from poolproof.detectors.traces import fit_forensic, restore_forensic
from poolproof.errors import InputError

BANK: Final = 20_000
"""Most references of a class that a detector made of the references themselves keeps; others are drawn out."""


@final
@dataclass(frozen=True)
class Kind:
    """A kind of detector.

    Attributes:
        help: one line of what it is.
        needs: `both` references, `real` ones alone, or a `file` of weights.
        reader: that it is tied to: a spec, a beginning such as `rigid:`, or empty for any.
        fit: from the references and settings, or from the path of a file, to a detector.
        restore: from a saved state to the detector.
        settings: that its fit takes, each with one line of help.
        thinned: whether at most `BANK` references of a class are kept.
    """

    help: str
    needs: Literal["both", "real", "file"]
    reader: str
    fit: Callable[..., AbstractDetector]
    restore: Callable[[DetectorState], AbstractDetector]
    settings: Mapping[str, str] = field(default_factory=dict)
    thinned: bool = False


_PENALTY: Final = {"regularisation": "inverse strength of the penalty, above 0"}
_QUANTILE: Final = {"quantile": "share of the real references below the threshold, in (0, 1)"}

KINDS: Final[dict[str, Kind]] = {
    "probe": Kind(
        "one logistic layer on standardised features, fitted on your references",
        "both", "", fit_probe_detector, restore_probe_detector, _PENALTY,
    ),
    "knn": Kind(
        "nearer to synthetic or to real references",
        "both", "", fit_knn, restore_knn,
        {"k": "neighbours in each class", "metric": "standardised or cosine"}, thinned=True,
    ),
    "forensic": Kind(
        "one logistic layer on generator traces alone, without colour and content",
        "both", FORENSIC, fit_forensic, restore_forensic, _PENALTY,
    ),
    "real-distance": Kind(
        "distance from real references; knows no generator",
        "real", "", fit_real_distance, restore_real_distance,
        {"k": "the neighbour whose distance counts", **_QUANTILE}, thinned=True,
    ),
    "rigid": Kind(
        "how far noise moves the image's vector; nothing is trained",
        "real", "rigid:", fit_rigid, restore_rigid, _QUANTILE,
    ),
    "univfd": Kind(
        "public head of Ojha, Li and Lee (fc_weights.pth) on CLIP ViT-L/14",
        "file", PRESETS["univfd"], load_linear_head, restore_linear,
    ),
    "clipdet": Kind(
        "public head of Cozzolino et al. (clipdet_latent10k) on CLIP ViT-L/14 of CommonPool",
        "file", PRESETS["clipdet"], load_linear_head, restore_linear,
    ),
    "linear": Kind(
        "any linear head from a file of tensors",
        "file", "", load_linear_head, restore_linear,
    ),
}  # fmt: skip


def fit_detector(
    kind: str,
    real: Float[np.ndarray, "r d"] | None = None,
    synthetic: Float[np.ndarray, "s e"] | None = None,
    *,
    reader: str = "",
    rng: np.random.Generator,
    threshold: float | None = None,
    **settings: Any,
) -> AbstractDetector:
    """Return a detector of a kind, fitted on references or loaded from the file in `path`.

    Args:
        kind: of `KINDS`.
        real: features of real references, finite.
        synthetic: features of synthetic references, finite.
        reader: spec of what made the features; for kinds that are tied to one it may be left out.
        rng: draws the references that a detector keeps, where there are more than `BANK`.
        threshold: instead of the one that the fit chooses.
        settings: of the kind; `path` for kinds that come from a file.

    Raises:
        InputError: an unknown kind or setting, references that are missing or unusable, or another reader.
    """
    if kind not in KINDS:
        raise InputError(f"detector: got {kind!r}, allowed {', '.join(KINDS)}: choose one")
    row = KINDS[kind]
    reader = _check_reader(kind, row.reader, reader)
    allowed = ["path"] if row.needs == "file" else list(row.settings)
    unknown = sorted(set(settings) - set(allowed))
    if unknown:
        raise InputError(
            f"detector {kind}: got the setting {', '.join(unknown)}, allowed {', '.join(allowed)}: leave it out"
        )
    if row.needs == "file":
        if "path" not in settings:
            raise InputError(f"detector {kind}: got no path, allowed a file of its weights: give path=FILE")
        detector: AbstractDetector = row.fit(settings["path"], kind=kind, reader=reader)
    else:
        named = {"real": real, "synthetic": synthetic} if row.needs == "both" else {"real": real}
        given = {name: features for name, features in named.items() if features is not None}
        absent = [name for name in named if name not in given or len(given[name]) == 0]
        if absent:
            got = f"no {' and no '.join(absent)} references"
            raise InputError(f"detector {kind}: got {got}, allowed {' and '.join(named)}: give them")
        if row.thinned:
            given = {name: _thin(features, rng) for name, features in given.items()}
        detector = row.fit(*given.values(), reader=reader, **settings)
    if threshold is None:
        return detector
    if not np.isfinite(threshold):
        raise InputError(f"threshold: got {threshold}, allowed a finite number: leave it out for the default")
    return replace(detector, threshold=float(threshold))  # type: ignore[type-var]


def _check_reader(kind: str, tied: str, reader: str) -> str:
    reader, begins = PRESETS.get(reader, reader), tied.endswith(":")
    if not tied or (begins and (not reader or reader.startswith(tied))):
        return reader
    if begins or (reader and reader != tied):
        allowed = f"a spec that begins with {tied}" if begins else tied
        raise InputError(
            f"detector {kind}: got the reader {reader!r}, allowed {allowed}: read the images anew"
        )
    return tied


def _thin(features: Float[np.ndarray, "n d"], rng: np.random.Generator) -> Float[np.ndarray, "m d"]:
    if len(features) <= BANK:
        return features
    return features[np.sort(rng.choice(len(features), BANK, replace=False))]
