"""Kolmogorov and Smirnov's tests, as numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats


def two_sample_pvalue(one: np.ndarray, other: np.ndarray) -> float:
    """The p-value of the hypothesis that two samples have one distribution."""
    result: Any = stats.ks_2samp(one, other)
    return float(result.pvalue)


def law_pvalue(sample: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """The p-value of the hypothesis that a sample has a distribution."""
    result: Any = stats.kstest(sample, cdf)
    return float(result.pvalue)
