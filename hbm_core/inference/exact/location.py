"""The two-level normal model under a prior on μ (or on separate effects) that is neither normal nor flat.

Given τ the likelihood of μ is normal, so a second integral is left. A Student t prior is a scale mixture of
normals: the integral over its scale keeps every marginal a mixture of normals. Other families are integrated
over μ itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
from scipy.special import erfcx, gammaln, log_ndtr, logsumexp

from hbm_core.inference.exact.adaptive import AdaptiveScale
from hbm_core.inference.exact.mixture import NormalMixtures
from hbm_core.inference.exact.posterior import (
    PanelMarginals,
    Part,
    ShiftedMixtures,
    TwoLevelPosterior,
    largest_gap,
    moment_notes,
    put_infinite,
)
from hbm_core.inference.exact.quadrature import (
    DEPTH,
    Line,
    PanelDensity,
    gauss_legendre,
    invert_panel,
    panel_density,
    refine,
)
from hbm_core.inference.exact.regression import Regression
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec

Array = np.ndarray | float
_LOG_2_PI = float(np.log(2 * np.pi))
_INNER_ORDER = 14
_NEGLIGIBLE = 1e-15
_LOWER_TAIL = np.array([1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.15, 0.5])
# Heavy tails need every decade.
_UPPER_TAIL = np.array([0.15, 0.02, 3e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12])
_REACH = np.array([0.4, 1.0, 1.8, 2.8, 4.0, 6.0, 9.0, 14.0, 25.0])
_CHUNK = 4096


def log_normal(x: Array, mean: Array, variance: Array) -> np.ndarray:
    """Log density of Normal(mean, √variance) at `x`."""
    return -0.5 * (_LOG_2_PI + np.log(variance) + (x - mean) ** 2 / variance)


@dataclass(frozen=True, eq=False)
class StudentScales:
    """StudentT(ν, m₀, σ) as ∫ Normal(m₀, σ/√λ) Gamma(λ; ν/2, ν/2) dλ, on a trapezoid in log λ.

    The trapezoid converges geometrically here: its error is below 1e-11 at the step taken.

    Parameters
    ----------
    prior : Prior
        Of family StudentT.
    distance : float
        Largest distance from m₀ that the data can ask for, in σ.
    """

    prior: Prior
    distance: float

    @cached_property
    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Variances σ²/λ and log weights, each ndarray (L,)."""
        nu, _, sigma = self.prior.numbers
        a = 0.5 * nu
        top = np.log1p(DEPTH / a + np.sqrt(2 * DEPTH / a))
        bottom = np.log((2 * a + 1) / (2 * a + 1 + self.distance**2)) - np.minimum(
            DEPTH / (a + 0.5), 2 + np.sqrt(3 * DEPTH / a)
        )
        step = min(0.35, 0.6 / np.sqrt(a + 0.5))
        log_scale = np.arange(bottom, top + step, step)
        log_weight = a * np.log(a) - gammaln(a) + a * log_scale - a * np.exp(log_scale) + np.log(step)
        return sigma**2 * np.exp(-log_scale), log_weight

    def log_terms(self, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Log of every term of ∫ prior(μ) Normal(μ; mean, √variance) dμ, ndarray (..., L)."""
        scales, log_weight = self.nodes
        return log_weight + log_normal(mean[..., None], self.prior.numbers[1], variance[..., None] + scales)


@dataclass(frozen=True, eq=False)
class SmoothedPrior:
    """A prior with a finite lower end times a normal: integral, moments and draws.

    Panels run between quantiles of the prior and distances from the normal's center, so that whichever
    is narrower is resolved.
    """

    prior: Prior

    def log_integral(self, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Log ∫ prior(μ) Normal(μ; mean, √variance) dμ; the prior itself where the variance is zero."""
        mean, variance = np.broadcast_arrays(np.asarray(mean, float), np.asarray(variance, float))
        closed = _CLOSED.get(self.prior.family)
        if closed is not None:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                value = closed(mean, variance, *self.prior.numbers)
            point = variance <= 0
            return np.where(point, self.prior.log_density(mean), value) if point.any() else value
        flat_mean, flat_variance = mean.ravel(), variance.ravel()
        out = np.empty(flat_mean.shape)
        point = flat_variance <= 0
        if point.any():
            out[point] = self.prior.log_density(flat_mean[point])
        rest = np.flatnonzero(~point)
        for start in range(0, rest.size, _CHUNK):
            part = rest[start : start + _CHUNK]
            log_terms = self.log_terms(flat_mean[part], flat_variance[part], _INNER_ORDER)[1]
            out[part] = logsumexp(log_terms.reshape(part.size, -1), axis=1)
        return out.reshape(mean.shape)

    @property
    def closed(self) -> bool:
        """Whether the integral has a closed form."""
        return self.prior.family in _CLOSED

    @cached_property
    def _edges(self) -> np.ndarray:
        distribution = self.prior.distribution
        below, above = distribution.ppf(_LOWER_TAIL), distribution.ppf(1 - _UPPER_TAIL)
        edges = np.concatenate([below, above])
        return edges[np.isfinite(edges)]

    def log_terms(self, mean: np.ndarray, variance: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes μ and log of the terms of the integral, each ndarray (N, panels, order)."""
        lower, upper = self.prior.support
        sd = np.sqrt(variance)
        rule = gauss_legendre(order)
        up = np.sqrt(np.maximum(lower - mean, 0.0)[:, None] ** 2 + (sd[:, None] * _REACH) ** 2)
        down = np.sqrt(np.maximum(mean - upper, 0.0)[:, None] ** 2 + (sd[:, None] * _REACH) ** 2)
        middle = self._edges[_LOWER_TAIL.size - 1]
        low = np.maximum(lower, np.minimum(mean - down[:, -3], middle))
        high = np.minimum(upper, np.maximum(mean + up[:, -3], middle))
        fixed = np.broadcast_to(self._edges, (mean.size, self._edges.size))
        edges = np.concatenate(
            [low[:, None], high[:, None], mean[:, None], mean[:, None] + up, mean[:, None] - down, fixed],
            axis=1,
        )
        edges = np.sort(np.clip(edges, low[:, None], high[:, None]), axis=1)
        power = min(self.prior.origin, 1.0)
        if power < 1:
            edges = (edges - lower) ** power
        width = 0.5 * np.diff(edges, axis=1)[:, :, None]
        place = edges[:, :-1, None] + width * (1 + rule.nodes)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log_measure = np.log(width * rule.weights)
            mu = place
            if power < 1:
                mu = lower + place ** (1 / power)
                log_measure = log_measure + (1 / power - 1) * np.log(place) - np.log(power)
            terms = (
                log_measure
                + self.prior.log_density(mu)
                + log_normal(mu, mean[:, None, None], variance[:, None, None])
            )
        return mu, np.where(np.isnan(terms), -np.inf, terms)

    def moments(self, mean: np.ndarray, variance: np.ndarray, order: int) -> tuple[np.ndarray, ...]:
        """Log integral, mean and variance of μ under prior times normal, each ndarray (K,)."""
        mu, terms = (array.reshape(mean.size, -1) for array in self.log_terms(mean, variance, order))
        total = logsumexp(terms, axis=1)
        weights = np.exp(terms - total[:, None])
        center = (weights * mu).sum(1)
        return total, center, (weights * (mu - center[:, None]) ** 2).sum(1)

    def draw(self, mean: np.ndarray, variance: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One draw of μ for every normal, by inversion."""
        out = np.empty(mean.size)
        rule = gauss_legendre(_INNER_ORDER)
        for start in range(0, mean.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            mu, terms = self.log_terms(mean[part], variance[part], _INNER_ORDER)
            values = np.exp(terms - terms.max(axis=(1, 2), keepdims=True))
            masses = np.cumsum(values.sum(2), axis=1)
            target = generator.random(mu.shape[0]) * masses[:, -1]
            panel = (masses < target[:, None]).sum(1)
            rows = np.arange(panel.size)
            inside = values[rows, panel]
            share = 1 - (masses[rows, panel] - target) / inside.sum(1)
            t = invert_panel(inside / rule.weights, np.clip(share, 0.0, 1.0))
            # Nodes are affine in t, up to the power that takes the singularity away.
            power, lower = min(self.prior.origin, 1.0), self.prior.support[0]
            first = (mu[rows, panel, 0] - lower) ** power
            last = (mu[rows, panel, -1] - lower) ** power
            place = first + (last - first) * (t - rule.nodes[0]) / (rule.nodes[-1] - rule.nodes[0])
            out[part] = lower + np.maximum(place, 0.0) ** (1 / power)
        return out


def _blur_uniform(mean: np.ndarray, variance: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Log [Φ((u - m)/s) - Φ((l - m)/s)]/(u - l), both ends taken on the side where Φ is small."""
    sd = np.sqrt(variance)
    low, high = (lower - mean) / sd, (upper - mean) / sd
    flip = low + high > 0
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    top = log_ndtr(high)
    return top + np.log(-np.expm1(log_ndtr(low) - top)) - np.log(upper - lower)


def _blur_half_normal(mean: np.ndarray, variance: np.ndarray, sigma: float) -> np.ndarray:
    """Log 2 Normal(m; 0, √(s² + σ²)) Φ(m σ/(s √(s² + σ²)))."""
    total = variance + sigma**2
    z = mean * sigma / np.sqrt(variance * total)
    return np.log(2) + log_normal(mean, 0.0, total) + log_ndtr(z)


def _blur_exponential(mean: np.ndarray, variance: np.ndarray, rate: float) -> np.ndarray:
    """Log λ exp(λ² s²/2 - λ m) Φ(z), z = (m - λ s²)/s; its exponent cancels against Φ's for z < 0."""
    z = (mean - rate * variance) / np.sqrt(variance)
    near = 0.5 * rate**2 * variance - rate * mean + log_ndtr(z)
    far = np.log(0.5 * erfcx(-np.minimum(z, 0.0) / np.sqrt(2))) - 0.5 * mean**2 / variance
    return np.log(rate) + np.where(z < 0, far, near)


_CLOSED: dict[str, Callable[..., np.ndarray]] = {
    "Uniform": _blur_uniform,
    "HalfNormal": _blur_half_normal,
    "Exponential": _blur_exponential,
}


@lru_cache(maxsize=64)
def smoothed(prior: Prior) -> SmoothedPrior:
    """The smoothed prior, its quantiles computed once."""
    return SmoothedPrior(prior)


@dataclass(frozen=True, eq=False)
class Linear:
    """Coefficients and θ as linear functions of μ given the scale: center + slope (μ - at) + noise.

    Attributes
    ----------
    at, variance : ndarray (K,)
        Mean and variance of μ given the scale under a flat prior on μ.
    center, slope, noise : ndarray (q + J, K)
        Rows μ, β, θ; `noise` is a variance.
    """

    at: np.ndarray
    variance: np.ndarray
    center: np.ndarray
    slope: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, model: Regression, t: np.ndarray) -> tuple[np.ndarray, Linear]:
        """Log p(y | t) under a flat μ, ndarray (K,), and the linear functions."""
        given = model.given(t)
        variance = given.covariance[:, 0, 0]
        direction = given.covariance[:, :, 0] / variance[:, None]
        mean, total = model.effects(t, given)
        slope = given.pooling * (direction @ model.design.T)
        coefficients = np.einsum("kqq->kq", given.covariance)
        slopes = np.concatenate([direction, slope], axis=1)
        totals = np.concatenate([coefficients, total], axis=1)
        noise = np.maximum(totals - slopes**2 * variance[:, None], 0.0)
        noise[:, 0] = 0.0
        centers = np.concatenate([given.mean, mean], axis=1)
        return given.log_likelihood, cls(given.mean[:, 0], variance, centers.T, slopes.T, noise.T)

    def combine(
        self, weights: np.ndarray, mu: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of every row from those of μ given the scale, averaged with `weights`."""
        means = self.center + self.slope * (mu - self.at)
        total = means @ weights
        spread = self.noise + self.slope**2 * variance + (means - total[:, None]) ** 2
        return total, np.sqrt(spread @ weights)

    def take(self, kept: np.ndarray) -> Linear:
        """The same at some of the scales."""
        return Linear(
            self.at[kept], self.variance[kept], self.center[:, kept], self.slope[:, kept], self.noise[:, kept]
        )


@dataclass(frozen=True, eq=False)
class LocationMarginals:
    """Marginals of β and θ (rows from 1 of `Linear`) under a smoothed prior; panels are made on demand.

    Parameters
    ----------
    linear : Linear
        At K scales.
    log_weights : ndarray (K,)
        Posterior weights of the scales over the smoothed prior at them.
    prior : SmoothedPrior
        On μ less `location`.
    mean, sd : ndarray (rows,)
        Moments of all rows (0 is μ), location taken off.
    location : ndarray (rows,)
        What was taken off each row.
    offset : float
        What was taken off μ.
    """

    linear: Linear
    log_weights: np.ndarray
    prior: SmoothedPrior
    mean: np.ndarray
    sd: np.ndarray
    location: np.ndarray
    offset: float

    def panel(self, row: int) -> PanelDensity:
        """The density of one row on panels, its location taken off."""
        return self._panels(row)

    @cached_property
    def _panels(self) -> Callable[[int], PanelDensity]:
        return cache(self._build)

    def _build(self, row: int) -> PanelDensity:
        linear, place = self.linear, row + 1
        center, slope, noise = linear.center[place], linear.slope[place], linear.noise[place]
        total = noise + slope**2 * linear.variance
        gain, rest = slope * linear.variance / total, linear.variance * noise / total

        def log_density(x: np.ndarray) -> np.ndarray:
            flat = log_normal(x[:, None], center, total)
            given = linear.at + gain * (x[:, None] - center) + self.offset
            return logsumexp(self.log_weights + flat + self.prior.log_integral(given, rest), axis=1)

        mean, sd = self.mean[place], self.sd[place]
        reach = 12.0
        for _ in range(12):
            x = mean + sd * np.linspace(-reach, reach, 61)
            values = log_density(x)
            kept = np.flatnonzero(values > values.max() - DEPTH)
            if kept[0] > 0 and kept[-1] < x.size - 1:
                break
            reach *= 2
        edges = np.linspace(x[max(kept[0] - 1, 0)], x[min(kept[-1] + 1, x.size - 1)], 5)
        return refine(log_density, Line(), edges, (-np.inf, np.inf))

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, Q)."""
        rows = range(self.mean.size - 1)
        return np.stack([self.panel(row).quantiles(probabilities) for row in rows]) + self.location[1:, None]

    def hdi(self, level: float) -> np.ndarray:
        """Shortest intervals, ndarray (R, 2)."""
        rows = range(self.mean.size - 1)
        return np.stack([self.panel(row).hdi(level) for row in rows]) + self.location[1:, None]

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density of one parameter at `x`."""
        return self.panel(row).density(np.asarray(x) - self.location[row + 1])

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one parameter at `x`."""
        return self.panel(row).cdf(np.asarray(x) - self.location[row + 1])


@dataclass(frozen=True, eq=False)
class Repeated:
    """The marginals of μ for β-free complete pooling, where every θ_i is μ."""

    panel: PanelMarginals
    count: int

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, Q)."""
        return np.repeat(self.panel.quantiles(probabilities), self.count, axis=0)

    def hdi(self, level: float) -> np.ndarray:
        """Shortest intervals, ndarray (R, 2)."""
        return np.repeat(self.panel.hdi(level), self.count, axis=0)

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density at `x`."""
        return self.panel.density(0, x)

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function at `x`."""
        return self.panel.cdf(0, x)


def solve_location(
    spec: ModelSpec,
    names: tuple[str, ...],
    model: Regression,
    location: float,
    tail: float,
    adaptive: AdaptiveScale | None,
    make_tau: Callable[[Callable[[np.ndarray], np.ndarray]], PanelDensity | None],
) -> TwoLevelPosterior:
    """The posterior under a prior on μ that is neither normal nor flat.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    names : tuple of str
        Its flat parameter names.
    model : Regression
        Its Gaussian part, μ flat, effects less `location`.
    location : float
        What was taken off the effects.
    tail : float
        The posterior density of τ falls as τ^(-tail - 1).
    adaptive : AdaptiveScale, optional
        From τ to the sd of the effects, where that is not τ.
    make_tau : callable
        From log p(y | τ) to the density of τ; None under complete pooling.
    """
    prior = spec.priors["mu"]
    student = prior.family == "StudentT"
    distance = float(np.abs(model.effect + location - (prior.numbers[1] if student else 0.0)).max())
    scales = StudentScales(prior, distance / prior.numbers[2]) if student else None
    blurred = None if student else smoothed(prior)

    def scale(tau: np.ndarray) -> np.ndarray:
        return tau if adaptive is None else adaptive(tau)

    def log_smooth(at: np.ndarray, variance: np.ndarray) -> np.ndarray:
        if scales is not None:
            return logsumexp(scales.log_terms(at + location, variance), axis=-1)
        assert blurred is not None
        return blurred.log_integral(at + location, variance)

    def log_likelihood(tau: np.ndarray) -> np.ndarray:
        flat, mean, covariance, _ = model.solve(scale(tau))
        return flat + log_smooth(mean[:, 0], covariance[:, 0, 0])

    tau = make_tau(log_likelihood)
    q, units = model.precision.size, model.se.size
    places = np.r_[0, (1 if tau is None else 2) : len(names)]
    shift = np.concatenate([[location], np.zeros(q - 1), np.full(units, location)])
    tail_mu = tail + prior.tail

    if tau is None:
        nodes, weights = [np.zeros(1)] * 2, [np.ones(1)] * 2
    else:
        half, coarse = tau.half_rule
        nodes, weights = [tau.x, half], [tau.weights, coarse]
    results = []
    for node, weight, order in zip(nodes, weights, (_INNER_ORDER, _INNER_ORDER - 4), strict=True):
        flat, linear = Linear.of(model, scale(node))
        if scales is not None:
            terms = scales.log_terms(linear.at + location, linear.variance)
            shares = np.exp(terms - logsumexp(terms, axis=1, keepdims=True))
            inside = 1 / (1 / linear.variance[:, None] + 1 / scales.nodes[0])
            pull = inside / scales.nodes[0]
            mu = linear.at[:, None] + pull * (prior.numbers[1] - location - linear.at[:, None])
            joint = weight[:, None] * shares
            kept = joint > _NEGLIGIBLE
            at, _ = np.nonzero(kept)
            expanded, component = linear.take(at), joint[kept] / joint[kept].sum()
            moments = expanded.combine(component, mu[kept], inside[kept])
            pieces = (expanded, component, mu[kept], inside[kept])
        else:
            assert blurred is not None
            _, center, spread = blurred.moments(linear.at + location, linear.variance, order)
            moments = linear.combine(weight, center - location, spread)
            pieces = (linear, weight, center, spread)
        results.append((flat, pieces, moments))

    mean, sd = np.empty(len(names)), np.empty(len(names))
    other_mean, other_sd = np.empty(len(names)), np.empty(len(names))
    mean[places], sd[places] = results[0][2]
    other_mean[places], other_sd[places] = results[1][2]
    if tau is not None:
        mean[1], sd[1] = tau.moments()
        other_mean[1], other_sd[1] = tau.half_moments()
        put_infinite(mean, sd, tail_mu, 0)
        for column in np.flatnonzero(model.precision[1:] == 0) + 1:
            put_infinite(mean, sd, tail, int(places[column]))
    errors = largest_gap((mean, sd), (other_mean, other_sd), location)
    # The coarser rule carries the marginals where both agree: fewer components, same quantiles.
    _, (linear, component, mu, inside), _ = results[1 if errors[0] < 1e-9 else 0]
    parts: tuple[Part, ...]
    if scales is not None:
        spread = np.sqrt(linear.noise + linear.slope**2 * inside)
        means = linear.center + linear.slope * (mu - linear.at)
        parts = (Part(places, ShiftedMixtures(NormalMixtures(component, means, spread), shift)),)
    else:
        assert blurred is not None
        kept = component > 1e-13
        linear, component = linear.take(kept), component[kept]
        log_weights = np.log(component) - log_smooth(linear.at, linear.variance)
        panel = density_of_mean(prior, linear, log_weights, location, mean[0], sd[0], tail_mu)
        of_mu = PanelMarginals((panel,))
        parts = (Part(places[:1], of_mu),)
        if tau is None and q == 1:
            parts += (Part(places[1:], Repeated(of_mu, units)),)
        else:
            rest = LocationMarginals(
                linear, log_weights, blurred, results[0][2][0], results[0][2][1], shift, location
            )
            parts += (Part(places[1:], rest),)
    if tau is not None:
        parts += (Part(np.array([1]), PanelMarginals((tau,))),)
    mean[places] += shift
    proper = all(one.proper for one in spec.priors.values())
    evidence = tau.log_total if tau is not None else float(log_likelihood(np.zeros(1))[0])

    def sample(tau_draws: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        _, at = Linear.of(model, scale(tau_draws))
        if scales is not None:
            terms = scales.log_terms(at.at + location, at.variance)
            shares = np.cumsum(np.exp(terms - terms.max(1, keepdims=True)), axis=1)
            pick = (shares < (generator.random(tau_draws.size) * shares[:, -1])[:, None]).sum(1)
            scale_draws = scales.nodes[0][pick]
            variance = 1 / (1 / at.variance + 1 / scale_draws)
            center = at.at + variance / scale_draws * (prior.numbers[1] - location - at.at)
            mu_draws = center + np.sqrt(variance) * generator.standard_normal(center.size)
        else:
            assert blurred is not None
            mu_draws = blurred.draw(at.at + location, at.variance, generator) - location
        return model.draw_given_location(scale(tau_draws), mu_draws, generator)

    return TwoLevelPosterior(
        spec,
        names,
        (mean, sd),
        errors,
        parts,
        location=location,
        tau=tau,
        sample=sample,
        notes=moment_notes(tau=tail, mu=tail_mu, beta=tail if (model.precision[1:] == 0).any() else np.inf),
        log_evidence=evidence if proper else None,
        ledger=None if tau is None else lambda: (weights[0] @ model.given(scale(nodes[0])).pooling, None),
        scale=adaptive,
    )


def density_of_mean(
    prior: Prior,
    linear: Linear,
    log_weights: np.ndarray,
    location: float,
    mean: float,
    sd: float,
    tail: float,
) -> PanelDensity:
    """The density of μ: its prior times a mixture of normals."""
    numbers, log_prior = prior.numbers, prior.declared.log_density
    at = linear.at + location

    def log_density(x: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            terms = log_weights + log_normal(x[:, None], at, linear.variance)
            return log_prior(x, *numbers) + logsumexp(terms, axis=1)

    start = sd if np.isfinite(sd) else float(np.sqrt(linear.variance.min()))
    center = mean + location if np.isfinite(mean) else float(at[0])
    guess = max(abs(center - prior.support[0]), start)
    return panel_density(log_density, prior.support, guess, prior.origin, np.inf if np.isinf(tail) else tail)


def solve_separate(spec: ModelSpec, names: tuple[str, ...]) -> TwoLevelPosterior:
    """No pooling under a prior on theta that is neither normal nor flat."""
    prior, y, s = spec.priors["theta"], spec.structure.effect, spec.structure.se
    units = y.size
    places = np.arange(units)
    if prior.family == "StudentT":
        center = prior.numbers[1]
        scales = StudentScales(prior, float(np.abs(y - center).max() / prior.numbers[2]))
        terms = scales.log_terms(y, s**2)
        shares = np.exp(terms - logsumexp(terms, axis=1, keepdims=True))
        variance = 1 / (s[:, None] ** -2.0 + 1 / scales.nodes[0])
        pull = variance / scales.nodes[0] * (center - y[:, None])
        mixtures = NormalMixtures(shares, pull, np.sqrt(variance))
        mean, sd = mixtures.moments()
        every_second = NormalMixtures(
            shares[:, ::2] / shares[:, ::2].sum(1)[:, None], pull[:, ::2], mixtures.sd[:, ::2]
        )
        errors = largest_gap((mean, sd), every_second.moments())

        def sample_student(tau: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            edges = np.cumsum(shares, axis=1)
            pick = np.stack([np.searchsorted(row, generator.random(tau.size)) for row in edges], axis=1)
            pick = np.minimum(pick, shares.shape[1] - 1)
            noise = generator.standard_normal((tau.size, units))
            return np.empty((tau.size, 0)), y + pull[places, pick] + np.sqrt(variance)[places, pick] * noise

        return TwoLevelPosterior(
            spec,
            names,
            (mean + y, sd),
            errors,
            (Part(places, ShiftedMixtures(mixtures, y)),),
            sample=sample_student,
            log_evidence=float(logsumexp(terms, axis=1).sum()),
        )

    numbers, log_prior = prior.numbers, prior.declared.log_density
    panels = []
    for effect, variance in zip(y, s**2, strict=True):

        def log_density(x: np.ndarray, effect: float = effect, variance: float = variance) -> np.ndarray:
            with np.errstate(divide="ignore", over="ignore"):
                return log_prior(x, *numbers) + log_normal(x, effect, variance)

        guess = max(abs(effect - prior.support[0]), float(np.sqrt(variance)))
        panels.append(panel_density(log_density, prior.support, guess, prior.origin))
    moments = np.array([panel.moments() for panel in panels]).T
    coarse = np.array([panel.half_moments() for panel in panels]).T

    def sample(tau: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        draws = [panel.quantiles(generator.random(tau.size)) for panel in panels]
        return np.empty((tau.size, 0)), np.stack(draws, axis=1)

    return TwoLevelPosterior(
        spec,
        names,
        (moments[0], moments[1]),
        largest_gap((moments[0], moments[1]), (coarse[0], coarse[1])),
        (Part(places, PanelMarginals(tuple(panels))),),
        sample=sample,
        log_evidence=float(sum(panel.log_total for panel in panels)),
    )
