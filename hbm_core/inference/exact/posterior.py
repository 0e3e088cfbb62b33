"""The posterior object of the two-level engine: marginals by parts, joint draws, what is said of moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hbm_core.errors import InputError
from hbm_core.inference.exact.adaptive import AdaptiveScale
from hbm_core.inference.exact.base import (
    PROBABILITIES,
    Conditional,
    ExactPosterior,
    Weights,
    check_level,
    checked_probabilities,
)
from hbm_core.inference.exact.mixture import Marginals, NormalMixtures
from hbm_core.inference.exact.quadrature import PanelDensity
from hbm_core.models.structure import ModelSpec

#: From draws of τ (zeros without one) to draws of the coefficients (N, q) and of θ (N, J).
Sample = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
#: Makes E[B_i | y] (J,) and the weights averaged over τ.
Ledger = Callable[[], tuple[np.ndarray | None, Weights | None]]


@dataclass(frozen=True, eq=False)
class PanelMarginals:
    """One parameter per density on panels."""

    panels: Sequence[PanelDensity]

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, Q)."""
        return np.array([panel.quantiles(probabilities) for panel in self.panels])

    def hdi(self, level: float) -> np.ndarray:
        """Shortest intervals, ndarray (R, 2)."""
        return np.stack([panel.hdi(level) for panel in self.panels])

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density of one parameter at `x`."""
        return self.panels[row].density(x)

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one parameter at `x`."""
        return self.panels[row].cdf(x)


@dataclass(frozen=True, eq=False)
class ShiftedMixtures:
    """Mixtures of normals whose location, ndarray (R,), was taken off."""

    mixtures: NormalMixtures
    location: np.ndarray

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, Q)."""
        return self.mixtures.quantiles(probabilities) + self.location[:, None]

    def hdi(self, level: float) -> np.ndarray:
        """Shortest intervals, ndarray (R, 2)."""
        return self.mixtures.hdi(level) + self.location[:, None]

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density of one parameter at `x`."""
        return self.mixtures.density(row, x - self.location[row])

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one parameter at `x`."""
        return self.mixtures.cdf(row, x - self.location[row])


@dataclass(frozen=True, eq=False)
class Part:
    """Marginals of the parameters at some places of the list of names."""

    places: np.ndarray
    marginals: Marginals


class TwoLevelPosterior(ExactPosterior):
    """Exact posterior of a two-level normal model; attributes as in `ExactPosterior`.

    Quantiles, shortest intervals and draws are computed when asked for.

    Parameters
    ----------
    spec : ModelSpec
        What was solved.
    names : tuple of str
        Flat parameter names.
    moments : tuple of ndarray (len(names),)
        Means and sds.
    errors : tuple of float
        Error estimate in sds and absolute.
    parts : tuple of Part
        Marginals of all parameters.
    sample : callable
        Draws of coefficients and θ at draws of τ, `location` taken off.
    location : float
        What was taken off μ and θ in `sample`.
    tau : PanelDensity, optional
        Density of τ, where the model has one.
    notes : tuple of str
        What a reader must know.
    log_evidence : float, optional
        Log p(y).
    ledger : callable, optional
        Makes `pooling` and `weights`, either of them None, when they are asked for.
    conditional : callable, optional
        From a grid of τ to `Conditional`.
    scale : AdaptiveScale, optional
        The map from τ to the sd of the effects where it is not the identity.
    """

    def __init__(
        self,
        spec: ModelSpec,
        names: tuple[str, ...],
        moments: tuple[np.ndarray, np.ndarray],
        errors: tuple[float, float],
        parts: tuple[Part, ...],
        *,
        sample: Sample,
        location: float = 0.0,
        tau: PanelDensity | None = None,
        notes: tuple[str, ...] = (),
        log_evidence: float | None = None,
        ledger: Ledger | None = None,
        conditional: Callable[[np.ndarray], Conditional] | None = None,
        scale: AdaptiveScale | None = None,
    ) -> None:
        self.spec, self.names = spec, names
        self.mean, self.sd = moments
        self.error, self.error_absolute = errors
        self.notes, self.log_evidence = notes, log_evidence
        self._make_ledger = ledger
        self._parts, self._sample, self._location = parts, sample, location
        self._tau, self._conditional, self._scale = tau, conditional, scale

    @cached_property
    def _ledger(self) -> tuple[np.ndarray | None, Weights | None]:
        return (None, None) if self._make_ledger is None else self._make_ledger()

    @cached_property
    def pooling(self) -> np.ndarray | None:  # type: ignore[override]
        """E[B_i | y], ndarray (J,), or None."""
        return self._ledger[0]

    @cached_property
    def weights(self) -> Weights | None:  # type: ignore[override]
        """Linear weights averaged over τ, or None."""
        return self._ledger[1]

    def quantiles(self, probabilities: Sequence[float] = PROBABILITIES) -> np.ndarray:
        """Quantiles of every parameter, ndarray (len(names), len(probabilities))."""
        p = checked_probabilities(probabilities)
        out = np.empty((len(self.names), p.size))
        for part in self._parts:
            out[part.places] = part.marginals.quantiles(p)
        return out

    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest interval of every parameter, ndarray (len(names), 2)."""
        check_level(level)
        out = np.empty((len(self.names), 2))
        for part in self._parts:
            out[part.places] = part.marginals.hdi(level)
        return out

    def density(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior density of one parameter at `x`."""
        marginals, row = self._find(name)
        return marginals.density(row, np.asarray(x, dtype=float))

    def cdf(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior distribution function of one parameter at `x`."""
        marginals, row = self._find(name)
        return marginals.cdf(row, np.asarray(x, dtype=float))

    def _find(self, name: str) -> tuple[Marginals, int]:
        if name in self.names:
            place = self.index(name)
            for part in self._parts:
                row = np.flatnonzero(part.places == place)
                if row.size:
                    return part.marginals, int(row[0])
        raise InputError("parameter", "one of " + ", ".join(self.names[:12]), repr(name))

    def draws(self, count: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Joint draws: ``mu`` and ``tau`` (count,), ``beta`` (count, p), ``theta`` (count, J).

        Stratified in τ by its exact distribution function, in random order; the rest from exact
        conditionals. The same seed gives the same draws.
        """
        if int(count) < 1:
            raise InputError("count of draws", "a positive whole number", count)
        generator = np.random.default_rng(seed)
        tau = np.zeros(int(count))
        if self._tau is not None:
            strata = (np.arange(tau.size) + generator.random(tau.size)) / tau.size
            tau = self._tau.quantiles(generator.permutation(strata))
        coefficients, theta = self._sample(tau, generator)
        out: dict[str, np.ndarray] = {}
        if coefficients.shape[1]:
            out["mu"] = coefficients[:, 0] + self._location
        if self._tau is not None:
            out["tau"] = tau
        if coefficients.shape[1] > 1:
            out["beta"] = coefficients[:, 1:]
        out["theta"] = theta + self._location
        return out

    def given_tau(self, tau: np.ndarray) -> Conditional:
        """The posterior given τ, on a grid; NotImplementedError where it has no closed form."""
        if self._conditional is None:
            raise NotImplementedError("the posterior given tau has no closed form in this model")
        return self._conditional(np.asarray(tau, dtype=float))

    def induced_prior_density(self, x: np.ndarray) -> np.ndarray:
        """Prior density of the sd of the effects (τ* of `adaptive`, else τ) at `x`."""
        prior = self.spec.priors["tau"]
        return self._induced(lambda tau: np.exp(prior.log_density(tau)), x)

    def induced_posterior_density(self, x: np.ndarray) -> np.ndarray:
        """Posterior density of the sd of the effects (τ* of `adaptive`, else τ) at `x`."""
        return self._induced(lambda tau: self.density("tau", tau), x)

    def _induced(self, density: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        if self._scale is None:
            return np.where(x >= 0, density(x), 0.0)
        return self._scale.density(density, x)


def moment_notes(**tails: float) -> tuple[str, ...]:
    """Words for moments that do not exist, from b of densities that fall as x^(-b - 1)."""
    notes = []
    for name, tail in tails.items():
        if tail <= 1:
            notes.append(f"The posterior mean and sd of {name} are infinite; its quantiles are finite.")
        elif tail <= 2:
            notes.append(f"The posterior sd of {name} is infinite; its mean and quantiles are finite.")
    return tuple(notes)


def put_infinite(mean: np.ndarray, sd: np.ndarray, tail: float, place: int) -> None:
    """Put infinity, in place, where moments of a density that falls as x^(-tail - 1) do not exist."""
    if tail <= 2:
        sd[place] = np.inf
    if tail <= 1:
        mean[place] = np.inf


def largest_gap(
    moments: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray], location: float = 0.0
) -> tuple[float, float]:
    """Largest difference of two sets of means and sds, in sds and absolute; infinite moments left out.

    What rounding alone does to means far from zero (`location` is added to them later) is in it.
    """
    mean, sd = moments
    rounding = np.spacing(np.abs(mean) + abs(location))
    if math.isfinite(sd.sum()):
        gaps = np.maximum(np.abs(mean - others[0]) + rounding, np.abs(sd - others[1]))
        return float((gaps / sd).max()), float(gaps.max())
    known = np.isfinite(sd)
    spread = np.abs(sd[known] - others[1][known])
    relative = spread / sd[known]
    known = np.isfinite(mean)
    gaps = np.abs(mean[known] - others[0][known]) + rounding[known]
    return (
        float(max((gaps / sd[known]).max(initial=0.0), relative.max(initial=0.0))),
        float(max(gaps.max(initial=0.0), spread.max(initial=0.0))),
    )
