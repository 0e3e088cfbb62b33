"""The exact posterior of the two-level normal model.

Given the sd of the effects everything is Gaussian (Gelman et al., 2013, BDA3, section 5.4); one integral
over τ is left, taken on panels refined to rounding. A prior on μ that is neither normal nor flat adds a
second integral, over μ given τ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact.base import PROBABILITIES, Conditional, ExactPosterior, Weights
from hbm_core.inference.exact.mixture import Marginals, NormalMixtures
from hbm_core.inference.exact.quadrature import PanelDensity, panel_density
from hbm_core.inference.exact.regression import Given, Regression
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

_SAMPLER = "Use --engine nuts, which samples this model."


@dataclass(frozen=True)
class AdaptiveScale:
    """τ* = w τ + (1 - w) σ_p τ/t with w = sigmoid(k (τ - t)).

    Parameters
    ----------
    threshold, spread, slope : float
        t, σ_p and k; t and σ_p in the outcome's units, all positive.
    """

    threshold: float
    spread: float
    slope: float

    def __call__(self, tau: np.ndarray) -> np.ndarray:
        """τ* at τ."""
        ratio = self.spread / self.threshold
        return tau * (ratio + (1 - ratio) * self._share(tau))

    def slope_at(self, tau: np.ndarray) -> np.ndarray:
        """dτ*/dτ."""
        ratio, share = self.spread / self.threshold, self._share(tau)
        return ratio + (1 - ratio) * share * (1 + tau * self.slope * (1 - share))

    def _share(self, tau: np.ndarray) -> np.ndarray:
        return 0.5 * (1 + np.tanh(0.5 * self.slope * (tau - self.threshold)))

    def density(self, density: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
        """Density of τ* at `x` from that of τ, summed over the branches of the map.

        Where the map folds the density is infinite, and integrable.
        """
        x = np.asarray(x, dtype=float)
        ratio = self.spread / self.threshold
        # Beyond 40/k past t the map is linear, τ* = τ.
        far = self.threshold + 40 / self.slope
        grid = np.concatenate([[0.0], np.linspace(1e-6, 1.0, 4001) * far])
        turns = np.flatnonzero(np.diff(np.sign(self.slope_at(grid))))
        bends = [_bisect(self.slope_at, grid[at], grid[at + 1]) for at in turns]
        top = max(far, float(np.max(x[np.isfinite(x)], initial=0.0)) * (2 + 1 / ratio))
        ends = np.array([0.0, *bends, top])
        out = np.zeros(x.shape)
        for start, stop in zip(ends[:-1], ends[1:], strict=True):
            values = np.sort(self(np.array([start, stop])))
            inside = (x >= values[0]) & (x <= values[1]) & (x > 0)
            rising = self(np.array(stop)) > self(np.array(start))
            low, high = np.full(int(inside.sum()), start), np.full(int(inside.sum()), stop)
            for _ in range(70):
                middle = 0.5 * (low + high)
                above = (self(middle) > x[inside]) == rising
                low, high = np.where(above, low, middle), np.where(above, middle, high)
            tau = 0.5 * (low + high)
            with np.errstate(divide="ignore"):
                out[inside] += density(tau) / np.abs(self.slope_at(tau))
        return out


def _bisect(function: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    sign = float(np.sign(function(np.array(low))))
    for _ in range(70):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.sign(function(np.array(middle))) == sign else (low, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True, eq=False)
class PanelMarginals:
    """One parameter per density on panels."""

    panels: Sequence[PanelDensity]
    location: float = 0.0

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, Q)."""
        return np.stack([panel.quantiles(probabilities) for panel in self.panels]) + self.location

    def hdi(self, level: float) -> np.ndarray:
        """Shortest intervals, ndarray (R, 2)."""
        return np.stack([panel.hdi(level) for panel in self.panels]) + self.location

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density of one parameter at `x`."""
        return self.panels[row].density(np.asarray(x) - self.location)

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one parameter at `x`."""
        return self.panels[row].cdf(np.asarray(x) - self.location)


@dataclass(frozen=True, eq=False)
class ShiftedMixtures:
    """Mixtures of normals whose location was taken off."""

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
        return self.mixtures.density(row, np.asarray(x) - self.location[row])

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one parameter at `x`."""
        return self.mixtures.cdf(row, np.asarray(x) - self.location[row])


@dataclass(frozen=True, eq=False)
class Part:
    """Marginals of the parameters at some places of the list of names."""

    places: np.ndarray
    marginals: Marginals


class TwoLevelPosterior(ExactPosterior):
    """Exact posterior of a two-level normal model; see `ExactPosterior`.

    Quantiles, shortest intervals and draws are computed when asked for.
    """

    def __init__(
        self,
        spec: ModelSpec,
        names: tuple[str, ...],
        moments: tuple[np.ndarray, np.ndarray],
        errors: tuple[float, float],
        parts: tuple[Part, ...],
        sample: Callable[[int, np.random.Generator], dict[str, np.ndarray]],
        *,
        notes: tuple[str, ...] = (),
        log_evidence: float | None = None,
        pooling: np.ndarray | None = None,
        weights: Weights | None = None,
        conditional: Callable[[np.ndarray], Conditional] | None = None,
        scale: AdaptiveScale | None = None,
    ) -> None:
        self.spec, self.names = spec, names
        self.mean, self.sd = moments
        self.error, self.error_absolute = errors
        self.notes, self.log_evidence = notes, log_evidence
        self.pooling, self.weights = pooling, weights
        self._parts, self._sample, self._conditional, self._scale = parts, sample, conditional, scale

    def quantiles(self, probabilities: Sequence[float] = PROBABILITIES) -> np.ndarray:
        """Quantiles of every parameter, ndarray (len(names), len(probabilities))."""
        p = np.asarray(probabilities, dtype=float)
        if not ((p >= 0) & (p <= 1)).all():
            raise InputError("probabilities", "numbers from 0 to 1", p)
        out = np.empty((len(self.names), p.size))
        for part in self._parts:
            out[part.places] = part.marginals.quantiles(p)
        return out

    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest interval of every parameter, ndarray (len(names), 2)."""
        if not 0 < level < 1:
            raise InputError("level of an interval", "a number between 0 and 1", level)
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
        if name not in self.names:
            raise InputError("parameter", "one of the model's parameters", repr(name))
        place = self.index(name)
        for part in self._parts:
            row = np.flatnonzero(part.places == place)
            if row.size:
                return part.marginals, int(row[0])
        raise AssertionError(name)

    def draws(self, count: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Joint draws, stratified in τ: ``mu``, ``tau`` (count,), ``beta`` (count, p), ``theta`` (count, J)."""
        return self._sample(int(count), np.random.default_rng(seed))

    def given_tau(self, tau: np.ndarray) -> Conditional:
        """The posterior given τ, on a grid; NotImplementedError where it has no closed form."""
        if self._conditional is None:
            raise NotImplementedError("the posterior given tau has no closed form under these priors")
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


def solve_two_level(spec: ModelSpec) -> ExactPosterior:
    """The exact posterior of a two-level normal model with normal errors and normal effects.

    Raises
    ------
    ImproperPosteriorError
        The posterior has no finite mass.
    NotExactError
        No exact engine covers these priors.
    """
    structure = spec.structure
    if "student_t" in (structure.effects, structure.likelihood):
        raise NotExactError("model", "normal errors and normal effects", "Student t", _SAMPLER)
    if structure.pooling == "none":
        return _solve_separate(spec)
    slope = spec.priors.get("beta")
    if slope is not None and slope.family not in ("Normal", "Flat"):
        raise NotExactError("prior on beta", "Normal or Flat", slope.text, _SAMPLER)
    if spec.priors["mu"].family not in ("Normal", "Flat"):
        from hbm_core.inference.exact.location import solve_location

        return solve_location(spec)
    return _solve_gaussian(spec)


def regression(spec: ModelSpec) -> tuple[Regression, float]:
    """The Gaussian part of a model, and the location that was taken off its effects.

    A prior on μ that is neither normal nor flat is left out: flat.
    """
    structure = spec.structure
    location = float(np.median(structure.effect))
    columns = len(structure.columns)
    mean, precision = np.zeros(1 + columns), np.zeros(1 + columns)
    for name, part in (("mu", slice(0, 1)), ("beta", slice(1, None))):
        prior = spec.priors.get(name)
        if prior is not None and prior.family == "Normal":
            mean[part] = prior.numbers[0] - (location if name == "mu" else 0.0)
            precision[part] = prior.numbers[1] ** -2.0
    units = structure.effect.size
    design = np.hstack([np.ones((units, 1)), structure.design]) if columns else np.ones((units, 1))
    return Regression(structure.effect - location, structure.se, design, mean, precision), location


def tail_of_tau(spec: ModelSpec, model: Regression) -> float:
    """b, where the posterior density of τ falls as τ^(-b - 1); infinite for thinner tails.

    The likelihood of τ falls as τ^(-J), one power less for every flat coefficient.

    Raises
    ------
    ImproperPosteriorError
        Flat coefficients that the units cannot tell apart, or b ≤ 0.
    """
    flat = model.precision == 0
    if spec.priors["mu"].family not in ("Normal", "Flat"):
        flat = flat & (np.arange(flat.size) > 0)
    count, units = int(flat.sum()), model.se.size
    if count and np.linalg.matrix_rank(model.design[:, flat]) < count:
        raise ImproperPosteriorError(
            "priors on mu and beta",
            f"units that can tell {count} coefficients with flat priors apart",
            f"{units} units",
            "Give beta (or mu) a Normal prior, or leave out a covariate.",
        )
    if spec.structure.pooling != "partial":
        return np.inf
    tail = spec.priors["tau"].tail + units - count
    if tail <= 0:
        tau = spec.priors["tau"].text
        needed = int(np.floor(count - spec.priors["tau"].tail)) + 1
        names = "a flat prior on mu" if count == 1 else f"{count} flat coefficients"
        raise ImproperPosteriorError(
            "prior on tau",
            f"at least {needed} units under {tau}" + (f" and {names}" if count else ""),
            f"{units} units, whose posterior has infinite mass at large tau",
            "Give tau a proper prior such as HalfNormal, or mu a Normal one.",
        )
    return float(tail)


def scale_of(spec: ModelSpec) -> AdaptiveScale | None:
    """The map from τ to the sd of the effects; None where it is τ itself."""
    if spec.structure.scale != "adaptive":
        return None
    numbers = []
    for name in ("threshold", "spread", "slope"):
        value = spec.constants.get(name)
        if value is None or not (np.isfinite(value) and value > 0):
            raise InputError(f"constant {name} of the adaptive scale", "a positive number", value)
        numbers.append(float(value))
    return AdaptiveScale(*numbers)


def names_of(structure: TwoLevelNormal) -> tuple[str, ...]:
    """Flat parameter names in the order of `ExactPosterior`."""
    names = () if structure.pooling == "none" else ("mu",)
    if structure.pooling == "partial":
        names += ("tau",)
    if structure.pooling != "none":
        names += tuple(f"beta[{column}]" for column in structure.columns)
    return names + tuple(f"theta[{unit}]" for unit in structure.units)


def tau_panels(
    prior: Prior, log_likelihood: Callable[[np.ndarray], np.ndarray], scale: float, tail: float
) -> PanelDensity:
    """The posterior density of τ from its prior and log p(y | τ)."""
    lower, upper = prior.support
    numbers, log_prior = prior.numbers, prior.declared.log_density

    def log_density(tau: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", over="ignore"):
            return log_prior(tau, *numbers) + log_likelihood(tau)

    return panel_density(log_density, (max(lower, 0.0), upper), scale, prior.origin, tail)


def moment_notes(tail_tau: float, tail_mu: float) -> tuple[str, ...]:
    """Words for moments that do not exist, from the tails of the posteriors of τ and of μ (with β)."""
    notes = []
    for name, tail in (("tau", tail_tau), ("mu", tail_mu)):
        if tail <= 1:
            notes.append(f"The posterior mean and sd of {name} are infinite; its quantiles are finite.")
        elif tail <= 2:
            notes.append(f"The posterior sd of {name} is infinite; its mean and quantiles are finite.")
    return tuple(notes)


def infinite(mean: np.ndarray, sd: np.ndarray, tail: float, places: slice) -> None:
    """Put infinity where the moments of a density that falls as x^(-tail - 1) do not exist."""
    if tail <= 2:
        sd[places] = np.inf
    if tail <= 1:
        mean[places] = np.inf


def worst(
    mean: np.ndarray, sd: np.ndarray, other_mean: np.ndarray, other_sd: np.ndarray, location: float = 0.0
) -> tuple[float, float]:
    """Largest difference of two sets of moments, in sds and absolute; infinite moments left out."""
    with np.errstate(invalid="ignore"):
        gaps = np.stack([np.abs(mean - other_mean), np.abs(sd - other_sd)])
        # What rounding alone does to the last digit of a mean far from zero.
        gaps = gaps + np.spacing(np.abs(location) + np.abs(np.where(np.isfinite(mean), mean, 0.0)))
        relative = gaps / np.where(np.isfinite(sd), sd, 1.0)
    known = np.isfinite(gaps)
    return float(relative[known].max(initial=0.0)), float(gaps[known].max(initial=0.0))


def _components(model: Regression, t: np.ndarray, given: Given) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of coefficients and θ at K scales, each ndarray (q + J, K)."""
    mean, variance = model.effects(t, given)
    coefficients = np.einsum("kqq->kq", given.covariance)
    means = np.concatenate([given.mean, mean], axis=1).T
    return np.ascontiguousarray(means), np.ascontiguousarray(
        np.sqrt(np.concatenate([coefficients, variance], 1)).T
    )


def _solve_gaussian(spec: ModelSpec) -> ExactPosterior:
    """Normal or flat μ and β: mixtures of normals over τ."""
    structure = spec.structure
    model, location = regression(spec)
    tail = tail_of_tau(spec, model)
    scale = scale_of(spec)
    names = names_of(structure)
    q, units = model.precision.size, structure.effect.size
    partial = structure.pooling == "partial"
    effective = scale or (lambda tau: tau)

    if partial:
        tau = tau_panels(
            spec.priors["tau"],
            lambda value: model.log_likelihood(effective(value)),
            structure.typical_se,
            tail,
        )
        half, jacobian = tau.half_rule()
        log_half = tau.log_density(half) - tau.log_total
        half_weights = np.exp(log_half) * jacobian
        nodes, weights = np.concatenate([tau.x, half]), tau.weights
        full = weights.size
    else:
        tau, nodes, weights, half_weights, full = None, np.zeros(1), np.ones(1), np.ones(1), 1
    t = effective(nodes) if partial else nodes
    given = model.given(t)
    means, sds = _components(model, t, given)
    mixtures = NormalMixtures(weights, means[:, :full], sds[:, :full])
    mean, sd = mixtures.moments()
    places = np.r_[0, (2 if partial else 1) : len(names)]
    all_mean, all_sd = np.empty(len(names)), np.empty(len(names))
    all_mean[places], all_sd[places] = mean, sd
    parts: tuple[Part, ...] = ()
    errors = worst(all_mean[places], all_sd[places], mean, sd, location)
    if tau is not None:
        coarse = NormalMixtures(half_weights / half_weights.sum(), means[:, full:], sds[:, full:])
        other_mean, other_sd = np.empty(len(names)), np.empty(len(names))
        other_mean[places], other_sd[places] = coarse.moments()
        all_mean[1], all_sd[1] = tau.moments()
        other_mean[1] = coarse.weights @ half
        other_sd[1] = np.sqrt(coarse.weights @ (half - other_mean[1]) ** 2)
        flat = model.precision == 0
        for column in np.flatnonzero(flat):
            infinite(all_mean, all_sd, tail, slice(places[column], places[column] + 1))
        errors = worst(all_mean, all_sd, other_mean, other_sd, location)
        if errors[0] < 1e-9:
            mixtures = coarse
        parts = (Part(np.array([1]), PanelMarginals((tau,))),)
    shift = np.where(np.arange(q + units) % (q + units) == 0, location, 0.0)
    shift[q:] = location
    all_mean[places] += shift
    parts = (Part(places, ShiftedMixtures(mixtures, shift)), *parts)
    part_of_given = Given(*(getattr(given, name)[:full] for name in given.__dataclass_fields__))
    ledger = model.weights(part_of_given)
    proper = all(prior.proper for prior in spec.priors.values())
    if tau is None:
        evidence = float(given.log_likelihood[0])
    else:
        evidence = tau.log_total
    flat_tail = tail if (model.precision == 0).any() else np.inf

    def sample(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        values = np.zeros(count)
        if tau is not None:
            values = tau.quantiles(stratified(count, generator))
        drawn = draw_gaussian(model, effective(values) if partial else values, generator)
        out["mu"] = drawn[0][:, 0] + location
        if partial:
            out["tau"] = values
        if structure.columns:
            out["beta"] = drawn[0][:, 1:]
        out["theta"] = drawn[1] + location
        return out

    return TwoLevelPosterior(
        spec,
        names,
        (all_mean, all_sd),
        errors,
        parts,
        sample,
        notes=moment_notes(tail, flat_tail) if partial else (),
        log_evidence=evidence if proper else None,
        pooling=weights @ part_of_given.pooling if partial else None,
        weights=Weights(weights @ ledger.own, weights @ ledger.others, weights @ ledger.prior),
        conditional=(lambda grid: model.conditional(grid, _effective(scale, grid), location))
        if partial
        else None,
        scale=scale,
    )


def _effective(scale: AdaptiveScale | None, tau: np.ndarray) -> np.ndarray:
    if scale is None:
        return tau
    return np.where(np.isfinite(tau), scale(np.where(np.isfinite(tau), tau, 1.0)), np.inf)


def stratified(count: int, generator: np.random.Generator) -> np.ndarray:
    """One uniform number in each of `count` equal strata of (0, 1), in random order."""
    return generator.permutation((np.arange(count) + generator.random(count)) / count)


def draw_gaussian(
    model: Regression, t: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One draw of the coefficients (K, q) and of θ (K, J) at each scale `t`."""
    _, mean, covariance, inverse = model.solve(t)
    noise = generator.standard_normal(mean.shape)
    coefficients = mean + (np.linalg.cholesky(covariance) @ noise[:, :, None])[:, :, 0]
    return coefficients, draw_effects(model, t, inverse, coefficients, generator)


def draw_effects(
    model: Regression,
    t: np.ndarray,
    inverse: np.ndarray,
    coefficients: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """One draw of θ (K, J) given scale and coefficients."""
    own = (t * t)[:, None] * inverse
    center = (model.variance * inverse) * (coefficients @ model.design.T) + own * model.effect
    return center + np.sqrt(model.variance * own) * generator.standard_normal(center.shape)


def _solve_separate(spec: ModelSpec) -> ExactPosterior:
    """No pooling: θ_i independent, each with the prior on theta."""
    structure, prior = spec.structure, spec.priors["theta"]
    if structure.columns:
        raise NotExactError("model without pooling", "no covariates", ", ".join(structure.columns), _SAMPLER)
    y, s = structure.effect, structure.se
    names, units = names_of(structure), y.size
    if prior.family not in ("Normal", "Flat"):
        from hbm_core.inference.exact.location import solve_separate

        return solve_separate(spec)
    precision = prior.numbers[1] ** -2.0 if prior.family == "Normal" else 0.0
    center = prior.numbers[0] if prior.family == "Normal" else 0.0
    share = precision / (precision + s**-2.0)
    mean, sd = y + share * (center - y), 1 / np.sqrt(precision + s**-2.0)
    mixtures = NormalMixtures(np.ones(1), np.zeros((units, 1)), sd[:, None])
    evidence = None
    if prior.family == "Normal":
        variance = s**2 + prior.numbers[1] ** 2
        evidence = float(-0.5 * (np.log(2 * np.pi * variance) + (y - center) ** 2 / variance).sum())

    def sample(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return {"theta": mean + sd * generator.standard_normal((count, units))}

    return TwoLevelPosterior(
        spec,
        names,
        (mean, sd),
        worst(mean, sd, mean, sd),
        (Part(np.arange(units), ShiftedMixtures(mixtures, mean)),),
        sample,
        log_evidence=evidence,
        weights=Weights(1 - share, np.zeros(units), share),
    )
