"""A detector of generator traces alone: the weight-free features that look at residuals, not at the picture.

Colour, histogram and thumbnails tell what is shown and how it was lit. A probe on them may tell the references'
subjects apart; without them it has only the fine structure that sensors, resamplers and generators leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from jaxtyping import Float

from poolproof.detectors.detector import (
    AbstractDetector,
    DetectorState,
    Scores,
    check_varied,
    score_rows,
    take_setting,
)
from poolproof.detectors.forensic import FORENSIC_BLOCKS, FORENSIC_DIM, FORENSIC_NAME
from poolproof.detectors.neighbours import check_pair
from poolproof.detectors.probe import (
    REGULARISATION,
    LinearProbe,
    fit_probe,
    head_settings,
    probe_tensors,
    restore_probe,
)
from poolproof.errors import InputError

TRACE_BLOCKS: Final = ("luma_bands", "chroma_bands", "cooccurrence", "spectrum")
"""Blocks of the weight-free features that are statistics of residuals."""

_ENDS = np.cumsum([length for _, length in FORENSIC_BLOCKS])
_COLUMNS: Final = np.concatenate(
    [
        np.arange(end - length, end)
        for (name, length), end in zip(FORENSIC_BLOCKS, _ENDS, strict=True)
        if name in TRACE_BLOCKS
    ]
)


@final
@dataclass(frozen=True, eq=False)
class ForensicDetector(AbstractDetector):
    """A linear probe on the traces among the weight-free features.

    Attributes:
        reader: `forensic`.
        probe: on the columns of `TRACE_BLOCKS`.
        threshold: a logit above it is flagged.
    """

    reader: str
    probe: LinearProbe
    threshold: float = 0.0
    kind: str = field(default="forensic", init=False)

    def score(self, features: Float[np.ndarray, "n d"]) -> Scores:
        """Return the logit of each item; larger = more synthetic."""
        return score_rows(features, FORENSIC_DIM, lambda rows: self.probe.score(rows[:, _COLUMNS]))

    def state(self) -> DetectorState:
        """Return what rebuilds the detector."""
        settings = head_settings(self) | {"features": FORENSIC_NAME}
        return DetectorState(self.kind, probe_tensors(self.probe), settings)


def fit_forensic(
    real: Float[np.ndarray, "r d"],
    synthetic: Float[np.ndarray, "s e"],
    *,
    reader: str = "forensic",
    regularisation: float = REGULARISATION,
) -> ForensicDetector:
    """Return a probe of threshold 0 on the traces among weight-free features.

    Args:
        real: all weight-free features of real references.
        synthetic: all weight-free features of synthetic references.
        reader: `forensic`.
        regularisation: as in `fit_probe`.

    Raises:
        InputError: as `fit_probe`, another width, or all references are alike.

    Source: of the blocks, see `forensic_features`.
    """
    check_pair("real", real, "synthetic", synthetic)
    if real.shape[1] != FORENSIC_DIM:
        raise InputError(
            f"real, synthetic: got width {real.shape[1]}, allowed {FORENSIC_DIM}: use the reader forensic"
        )
    real, synthetic = real[:, _COLUMNS], synthetic[:, _COLUMNS]
    check_varied("real, synthetic", np.concatenate([real, synthetic]))
    return ForensicDetector(reader, fit_probe(real, synthetic, regularisation=regularisation))


def restore_forensic(state: DetectorState) -> ForensicDetector:
    """Return the detector that was saved.

    Raises:
        InputError: it was fitted on another version of the features.
    """
    version = take_setting(state, "features", str)
    if version != FORENSIC_NAME:
        raise InputError(
            f"detector forensic: got features {version!r}, allowed {FORENSIC_NAME!r}: fit it anew"
        )
    probe = restore_probe(state)
    if len(probe.weight) != len(_COLUMNS):
        got = f"{len(probe.weight)} weights"
        raise InputError(f"detector forensic: got {got}, allowed {len(_COLUMNS)}: save it anew")
    reader, threshold = take_setting(state, "reader", str), take_setting(state, "threshold", float)
    return ForensicDetector(reader, probe, threshold)
