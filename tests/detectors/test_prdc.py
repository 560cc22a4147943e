"""Tests of precision, recall, density and coverage against the full matrix and closed forms."""

from __future__ import annotations

import inspect
import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float, Float64
from scipy.spatial.distance import cdist

from poolproof.detectors import tiles
from poolproof.detectors.balls import Ties
from poolproof.detectors.prdc import PRDC, prdc
from poolproof.errors import InputError


def brute_force(
    real: Float[np.ndarray, "n d"], synthetic: Float[np.ndarray, "m d"], k: int, ties: Ties = "<="
) -> PRDC:
    """Return the four figures from full distance matrices in double precision."""
    x, y = real.astype(np.float64), synthetic.astype(np.float64)
    compare = np.less_equal if ties == "<=" else np.less

    def radii(points: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        own = cdist(points, points)
        np.fill_diagonal(own, np.inf)
        return np.sort(own, axis=1)[:, k - 1]

    across = cdist(x, y)
    in_real, in_synthetic = compare(across, radii(x)[:, None]), compare(across, radii(y)[None])
    return PRDC(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_synthetic.any(axis=1).mean()),
        density=float(in_real.sum() / (k * len(y))),
        coverage=float(in_real.any(axis=1).mean()),
        k=k,
        ties=ties,
    )


def pair(kind: str) -> tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "m d"]]:
    """Return 90 real and 70 synthetic points with 10 columns, 90 of each for `identical`."""
    rng = np.random.default_rng(1)
    if kind == "normal":
        return rng.normal(size=(90, 10)), 0.9 * rng.normal(size=(70, 10)) + 0.1
    if kind == "copies":
        real = np.repeat(rng.normal(size=(9, 10)), 10, axis=0)
        return real, real[:70]
    if kind == "one":
        return np.full((90, 10), 0.3), np.full((70, 10), 0.3)
    if kind == "clusters":
        real = rng.normal(size=(90, 10)) * 1e-5 + np.repeat([0.0, 9.0], 45)[:, None]
        return real, rng.normal(size=(70, 10)) * 1e-5
    if kind == "grid":
        # Squared distances are whole numbers here, so that ties are exact in any order of summation.
        return rng.integers(0, 2, (90, 10)).astype(float), rng.integers(0, 2, (70, 10)).astype(float)
    real = rng.normal(size=(90, 10))
    return real, real.copy()


@pytest.mark.reference
@pytest.mark.parametrize("ties", ["<=", "<"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("kind", ["normal", "copies", "grid", "identical", "one", "clusters"])
@pytest.mark.parametrize("k", [1, 5, 69])
def test_figures_are_those_of_the_full_matrix(
    ties: Ties, offset: float, kind: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four equal brute force exactly, over many tiles, with copies, ties and a large common offset."""
    monkeypatch.setattr(tiles, "TILE", 32)
    real, synthetic = pair(kind)
    for dtype in (np.float16, np.float32, np.float64):
        x, y = (real + offset).astype(dtype), (synthetic + offset).astype(dtype)
        assert prdc(x, y, k, ties=ties) == brute_force(x, y, k, ties)


@pytest.mark.reference
@pytest.mark.parametrize(("n", "m", "d"), [(1500, 1100, 64), (1100, 1500, 2), (1300, 1300, 300)])
def test_figures_of_several_whole_tiles_are_those_of_the_full_matrix(n: int, m: int, d: int) -> None:
    """At the size of tile that is used, in few and in many dimensions, all four equal brute force exactly."""
    rng = np.random.default_rng(7)
    real, synthetic = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(m, d)).astype(np.float32)
    assert prdc(real, synthetic) == brute_force(real, synthetic, 5)


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["normal", "grid", "copies", "identical"])
@pytest.mark.parametrize("k", [1, 5])
def test_figures_with_strict_ties_are_those_of_the_package_prdc(kind: str, k: int) -> None:
    """With `<` the four figures are those that prdc prints, where it is installed."""
    theirs = pytest.importorskip("prdc")
    # Whole numbers, since prdc's own distances are rounded to other digits where ties are not exact.
    real, synthetic = (np.round(points * 64) for points in pair(kind))
    found, expected = prdc(real, synthetic, k, ties="<"), theirs.compute_prdc(real, synthetic, k)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(value), abs=1e-12)


@pytest.mark.reference
@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_those_of_torch_fidelity(k: int) -> None:
    """With `<=` they are those of torch-fidelity, where it is installed; its first set is the synthetic one."""
    import torch

    theirs = pytest.importorskip("torch_fidelity.metric_prc")
    real, synthetic = pair("normal")
    sets = torch.from_numpy(synthetic), torch.from_numpy(real)
    found = prdc(real, synthetic, k)
    assert (found.precision, found.recall) == pytest.approx(
        theirs.calculate_precision_recall_full(*sets, k), abs=1e-6
    )


@pytest.mark.reference
def test_published_case_of_a_constant_set() -> None:
    """1024 equal points of 4096 ones: 0 with `<`, as prdc gives; with `<=` coverage is the expected 1.

    Source: github.com/clovaai/generative-evaluation-prdc, issue 7.
    """
    ones = np.ones((1024, 4096), np.float32)
    assert prdc(ones, ones, ties="<") == PRDC(0.0, 0.0, 0.0, 0.0, 5, "<")
    assert prdc(ones, ones) == PRDC(1.0, 1.0, 1024 / 5, 1.0, 5)


@pytest.mark.reference
def test_published_case_of_a_tight_cluster_in_a_wide_one() -> None:
    """Generated points in a tight cluster within wide real ones: precision above 0.8, recall below 0.3.

    Source: torch-fidelity, tests/torch_pure/misc/test_prc_convention.py, with its generator and seed.
    """
    import torch

    generator = torch.Generator().manual_seed(42)
    synthetic = (torch.randn(200, 16, generator=generator) * 0.1).numpy()
    real = (torch.randn(200, 16, generator=generator) * 3.0).numpy()
    found = prdc(real, synthetic, 3)
    assert found.precision > 0.8
    assert found.recall < 0.3


@pytest.mark.slow
@pytest.mark.reference
def test_published_example_is_one_of_our_draws() -> None:
    """10,000 normal points of 1000 features: the printed figures lie within the spread of draws.

    Source: README of github.com/clovaai/generative-evaluation-prdc: precision 0.4772, recall 0.4705, density
    1.0555, coverage 0.9735 for one draw.
    """
    rng = np.random.default_rng(8)
    real, synthetic = (rng.standard_normal((10_000, 1000), dtype=np.float32) for _ in range(2))
    found = prdc(real, synthetic, ties="<")
    assert (found.precision, found.recall) == pytest.approx((0.4772, 0.4705), abs=0.08)
    assert found.density == pytest.approx(1.0555, abs=0.15)
    assert found.coverage == pytest.approx(0.9735, abs=0.02)


@pytest.mark.reference
def test_published_expectation_of_coverage() -> None:
    """For 10,000 points of one law on either side and k = 5 coverage is 0.9688 within its error.

    Source: Naeem et al., arXiv 2002.09797, section 3.4 and appendix: 1 - prod_j (N - j)/(M + N - j).
    """
    rng = np.random.default_rng(9)
    found = prdc(rng.normal(size=(10_000, 6)), rng.normal(size=(10_000, 6)))
    assert found.coverage == pytest.approx(0.96877, abs=0.01)
    assert found.density == pytest.approx(1.0, abs=0.03)


def test_an_identical_set_tells_the_rules_apart() -> None:
    """Of a set with itself, k balls hold each point with `<` (its own among them) and k + 1 with `<=`."""
    real, _ = pair("normal")
    assert prdc(real, real, ties="<") == PRDC(1.0, 1.0, 1.0, 1.0, 5, "<")
    assert prdc(real, real) == PRDC(1.0, 1.0, 1.2, 1.0, 5)


def test_copies_empty_the_balls_of_the_strict_rule() -> None:
    """Where each real point has nine copies, radii are 0 and a strict ball holds nothing."""
    real, _ = pair("copies")
    strict, loose = prdc(real, real[::10], ties="<"), prdc(real, real[::10])
    assert (strict.precision, strict.density, strict.coverage) == (0.0, 0.0, 0.0)
    assert (loose.precision, loose.recall, loose.coverage) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_scale_changes_nothing(scale: float) -> None:
    """Features far outside the range of single precision give the same figures."""
    real, synthetic = pair("normal")
    assert prdc(real * scale, synthetic * scale) == prdc(real, synthetic)


def test_half_precision_does_not_overflow() -> None:
    """Float16 features whose squares float16 cannot hold give the figures of their float64 values."""
    real, synthetic = ((points * 1e4).astype(np.float16) for points in pair("normal"))
    assert prdc(real, synthetic) == brute_force(real, synthetic, 5)


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float64, (12, 2), elements=st.integers(-3, 3).map(float)),
    hnp.arrays(np.float64, (9, 2), elements=st.integers(-3, 3).map(float)),
    st.integers(1, 8),
)
def test_any_small_sets_are_as_brute_force(
    real: Float64[np.ndarray, "n d"], synthetic: Float64[np.ndarray, "m d"], k: int
) -> None:
    """Whatever coincides in a small grid, the figures are those of the full matrix under both rules."""
    for ties in get_args(Ties):
        assert prdc(real, synthetic, k, ties=ties) == brute_force(real, synthetic, k, ties)


def test_an_offset_changes_nothing() -> None:
    """A constant added to whole-number features leaves the figures as they are."""
    real, synthetic = pair("grid")
    assert prdc(real + 4096, synthetic + 4096) == prdc(real, synthetic)


def test_copies_of_the_real_set_count_as_inside() -> None:
    """Where copies make every radius 0, a synthetic set of the same points is still inside."""
    real, _ = pair("copies")
    found = prdc(real, real)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)


def test_sets_far_apart_share_nothing() -> None:
    """Figures are 0 where no ball reaches the other set."""
    real, synthetic = pair("normal")
    assert prdc(real, synthetic + 100) == PRDC(0.0, 0.0, 0.0, 0.0, 5)


def test_roles_are_told_apart() -> None:
    """A synthetic set that misses half of the real one is precise and lacks recall; swapped, the reverse."""
    rng = np.random.default_rng(2)
    half = rng.normal(size=(200, 2))
    real = np.concatenate([half[:100], half[100:] + 50])
    synthetic = rng.normal(size=(200, 2))
    found, swapped = prdc(real, synthetic), prdc(synthetic, real)
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


@pytest.mark.theory
@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 5), (150, 300, 3)])
def test_equal_distributions_have_the_expected_density_and_coverage(n: int, m: int, k: int) -> None:
    """Over seeds, density means 1 and coverage 1 - prod_j (n - j)/(n + m - j), whatever the distribution.

    Source: Naeem et al., arXiv 2002.09797, section 3.4.
    """
    rng = np.random.default_rng(3)
    runs = [prdc(rng.normal(size=(n, 4)), rng.normal(size=(m, 4)), k) for _ in range(20)]
    expected = 1 - np.prod([(n - j) / (n + m - j) for j in range(1, k + 1)])
    coverage, density = [run.coverage for run in runs], [run.density for run in runs]
    assert np.mean(coverage) == pytest.approx(expected, abs=4 * np.std(coverage) / np.sqrt(20))
    assert np.mean(density) == pytest.approx(1.0, abs=4 * np.std(density) / np.sqrt(20))


def test_memory_does_not_grow_with_the_matrix() -> None:
    """Two sets of 6000 points take less memory than a quarter of their distance matrix in single precision."""
    rng = np.random.default_rng(4)
    real, synthetic = rng.normal(size=(6000, 4)), rng.normal(size=(6000, 4))
    prdc(real[:50], synthetic[:50])
    tracemalloc.start()
    try:
        prdc(real, synthetic)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6000 * 6000


def test_bad_input_is_named() -> None:
    """K out of range, NaN and an unknown rule for ties are refused."""
    points = np.random.default_rng(5).normal(size=(6, 3))
    for k in (0, 6):
        with pytest.raises(InputError, match=r"^k: "):
            prdc(points, points, k)
    with pytest.raises(InputError, match=r"^k: "):
        prdc(points, points[:3], 3)
    with pytest.raises(InputError, match=r"^synthetic: .*NaN"):
        prdc(points, np.full((6, 3), np.nan))
    wrong: Any = "=<"
    # Tests check types at run time; a caller's program does not.
    with pytest.raises(InputError, match=r"^ties: got .*allowed"):
        inspect.unwrap(prdc)(points, points, ties=wrong)
