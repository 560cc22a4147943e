"""Detectors with error rates measured on references that they did not see.

With real and synthetic references: `cross_fit`. With real ones alone: `real_only`. For a detector that was
fitted elsewhere: `calibrate_fixed`. This module gathers them; each has one of its own.
"""

from __future__ import annotations

from poolproof.detectors.crossfit import CrossFit, cross_fit
from poolproof.detectors.fixed import FixedFit, calibrate_fixed
from poolproof.detectors.folds import FEWEST, Fit
from poolproof.detectors.realonly import RealOnly, real_only
from poolproof.detectors.roc import area_under_curve

__all__ = [
    "FEWEST",
    "CrossFit",
    "Fit",
    "FixedFit",
    "RealOnly",
    "area_under_curve",
    "calibrate_fixed",
    "cross_fit",
    "real_only",
]
