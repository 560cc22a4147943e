"""A mixture of normal laws as a generator of a loop, fitted by expectation maximisation."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int

from poolproof.errors import InputError
from poolproof.simulate.checks import check_count, check_range
from poolproof.simulate.generator import AbstractGenerator, GeneratorDiverged, Samples, State
from poolproof.simulate.rows import check_bias, read_points, read_weights, refuse_labels, resample
from poolproof.simulate.scatter import factorise


@final
@dataclass(frozen=True)
class GmmSpec:
    """Options of a mixture of normal laws.

    Attributes:
        n_components: normal laws in the mixture.
        covariance: `full` matrices, `diag`onal ones, or `spherical` ones with one variance.
        n_init: starts from different clusterings, of which the most likely end is kept; one where the fit is told
            where to start.
        max_iterations: of expectation maximisation, per start.
        tolerance: gain of the mean log-likelihood per point below which it stops, 0 or more.
        floor: added to every variance in each iteration, in squared units of the data, 0 or more. It keeps components
            of few points from shrinking to nothing, and is the least variance that a loop can collapse to.
    """

    n_components: int = 25
    covariance: str = "full"
    n_init: int = 5
    max_iterations: int = 200
    tolerance: float | int = 1e-3
    floor: float | int = 1e-6

    def __post_init__(self) -> None:
        for name in ("n_components", "n_init", "max_iterations"):
            check_count(name, getattr(self, name), 1)
        if self.covariance not in ("full", "diag", "spherical"):
            raise InputError(
                f"covariance: got {self.covariance!r}, allowed full, diag or spherical; name one"
            )
        check_range("tolerance", self.tolerance, 0.0, math.inf)
        check_range("floor", self.floor, 0.0, math.inf)


@final
@dataclass(frozen=True, eq=False)
class Mixture:
    """A fitted mixture.

    Attributes:
        weights: of the components, with sum 1.
        means: of the components.
        covariances: k d d (full), k d (diag) or k (spherical).
        converged: whether the last iterations gained less than the tolerance.
    """

    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k d"]
    covariances: Float[np.ndarray, " k *shape"]
    converged: bool


@final
@dataclass(frozen=True, eq=False)
class GmmGenerator(AbstractGenerator):
    """A mixture of normal laws of points.

    Attributes:
        spec: its options.
        mixture: what was fitted; None before.
    """

    spec: GmmSpec = GmmSpec()
    mixture: Mixture | None = None

    def fit(
        self,
        images: Samples,
        labels: Int[np.ndarray, " n"] | None,
        *,
        weights: Float[np.ndarray, " n"] | None = None,
        start: AbstractGenerator | None = None,
        rng: np.random.Generator,
    ) -> GmmGenerator:
        """A mixture of locally greatest likelihood.

        Args:
            images: points, n x d, at least as many as components.
            labels: None; for classes, fit a mixture to each.
            weights: of each point. The fit is to as many points drawn in proportion to them (see `rows.resample`), as
                the library's has no weights: this adds noise, of less than one count per point.
            start: a fitted mixture whose components it starts from, once, without a clustering.
            rng: clusterings, and points drawn by weight.

        Raises:
            InputError: labels, too few points, values that are not finite, or a start of another shape.
            GeneratorDiverged: a component shrank to nothing.

        Source: Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977.
        """
        refuse_labels(labels)
        counts, shares = read_weights(weights, len(images))
        points = read_points(images, counts, least=self.spec.n_components)
        points = points[resample(shares, len(points), rng=rng)]
        seed = int(rng.integers(2**31))
        options = {} if start is None else _start_options(start, self.spec, points.shape[1])
        return GmmGenerator(self.spec, _fit_mixture(points, self.spec, options, seed))

    def sample(
        self,
        n: int,
        *,
        sampling_bias: float = 1.0,
        labels: Int[np.ndarray, " n"] | None = None,
        rng: np.random.Generator,
    ) -> tuple[Samples, None]:
        """`n` points, and None for their labels; every component's covariance is multiplied by the bias.

        Raises:
            InputError: the generator was not fitted, there are labels, or an argument is out of range.
        """
        mixture = self._fitted()
        refuse_labels(labels)
        check_count("n", n, 1)
        check_bias(sampling_bias)
        chosen = rng.choice(len(mixture.weights), size=n, p=mixture.weights)
        noise = rng.standard_normal((n, mixture.means.shape[1])) * math.sqrt(sampling_bias)
        if self.spec.covariance == "full":
            # einsum adds up by itself, not in the linear algebra library, whose threads would change bytes
            apart = np.einsum("nij,nj->ni", factorise(mixture.covariances)[chosen], noise)
        else:
            apart = noise * np.sqrt(mixture.covariances[chosen]).reshape(n, -1)
        return mixture.means[chosen] + apart, None

    def state(self) -> State:
        """Weights, means and covariances of the components, and whether the fit converged."""
        mixture = self._fitted()
        return {
            "weights": mixture.weights,
            "means": mixture.means,
            "covariances": mixture.covariances,
            "converged": np.array([mixture.converged]),
        }

    def restore(self, state: State) -> GmmGenerator:
        """A generator of these options with the mixture that `state` was taken of."""
        missing = {"weights", "means", "covariances", "converged"} - state.keys()
        if missing:
            raise InputError(
                f"state: got no {', '.join(sorted(missing))}, allowed all four arrays; give them"
            )
        k, d = self.spec.n_components, state["means"].shape[-1]
        found = [state[name].shape for name in ("weights", "means", "covariances")]
        asked = [(k,), (k, d), (k, *_covariance_shape(self.spec, d))]
        if found != asked:
            raise InputError(f"state: got shapes {found}, allowed {asked}; restore with the options it had")
        converged = bool(state["converged"].all())
        return GmmGenerator(
            self.spec, Mixture(state["weights"], state["means"], state["covariances"], converged)
        )

    def _fitted(self) -> Mixture:
        if self.mixture is None:
            raise InputError(
                "generator: got one not fitted, allowed a fitted one; call fit and use its result"
            )
        return self.mixture


def _covariance_shape(spec: GmmSpec, d: int) -> tuple[int, ...]:
    return {"full": (d, d), "diag": (d,), "spherical": ()}[spec.covariance]


def _start_options(start: AbstractGenerator, spec: GmmSpec, d: int) -> dict[str, Any]:
    """What the library needs to start from a mixture."""
    if not isinstance(start, GmmGenerator) or start.mixture is None:
        raise InputError("start: got no fitted mixture, allowed a fitted GmmGenerator or None; fit one first")
    mixture = start.mixture
    asked = (spec.n_components, *_covariance_shape(spec, d))
    if mixture.covariances.shape != asked or mixture.means.shape[1] != d:
        raise InputError(
            f"start: got covariances of shape {mixture.covariances.shape}, allowed {asked}; start without"
        )
    try:
        if spec.covariance == "full":
            precisions = np.linalg.inv(mixture.covariances)
            precisions = (precisions + precisions.transpose(0, 2, 1)) / 2
        else:
            precisions = 1 / mixture.covariances if mixture.covariances.min() > 0 else None
    except np.linalg.LinAlgError:
        precisions = None
    if precisions is None:
        raise InputError(
            "start: got a component without spread, allowed some in every direction; raise the floor"
        )
    return {"weights_init": mixture.weights, "means_init": mixture.means, "precisions_init": precisions}


def _fit_mixture(
    points: Float[np.ndarray, "n d"], spec: GmmSpec, start: dict[str, Any], seed: int
) -> Mixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    model: Any = GaussianMixture(
        spec.n_components,
        covariance_type=spec.covariance,
        tol=spec.tolerance,
        reg_covar=spec.floor,
        max_iter=spec.max_iterations,
        n_init=1 if start else spec.n_init,
        random_state=seed,
        **start,
    )
    # one thread: sums depend on how work is split
    with threadpool_limits(1), warnings.catch_warnings(), np.errstate(all="ignore"):
        # that it did not converge is kept as a value; fewer places than clusters is what collapse looks like
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            model.fit(points)
        except ValueError as error:  # the library's word for a covariance without inverse
            raise GeneratorDiverged(f"covariance: a component shrank to nothing ({error})"[:200]) from error
    if not (np.isfinite(model.covariances_).all() and np.isfinite(model.means_).all()):
        raise GeneratorDiverged("covariance: beyond the largest float; rescale the points")
    return Mixture(model.weights_, model.means_, model.covariances_, bool(model.converged_))
