"""A gamma rate behind counts, integrated out: evenly spaced nodes on a scale fitted to each integrand.

Given a gamma population Gamma(a, b) and counts with S = Σ y, the integrand over x = log θ is exp f,

    f(x) = A x − b eˣ − Σ_k c_k log(1 + eˣ/φ_k),   A = a + S,  c_k = s_k + n_k φ,  φ_k = φ/e_k;

`hbm_core.models.rate_rule` says where the nodes stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hbm_core.models.rate_rule import REACH, pooled_mode, reaches, stretches

#: Numbers in one array: a few of them fit the processor's cache.
BLOCK = 12_000


@dataclass(frozen=True, eq=False)
class Population:
    """P states of the population, each ndarray (P,).

    Attributes
    ----------
    shape, rate : ndarray (P,)
        Of the gamma distribution of θ.
    dispersion : ndarray (P,)
        φ of the windows.
    """

    shape: np.ndarray
    rate: np.ndarray
    dispersion: np.ndarray

    def __getitem__(self, at: slice | np.ndarray) -> Population:
        return Population(self.shape[at], self.rate[at], self.dispersion[at])


@dataclass(frozen=True, eq=False)
class Counts:
    """What C entities' windows say of their rates: K groups of windows of equal exposure each.

    Attributes
    ----------
    exposure, windows, total : ndarray (K, C)
        Of the groups; no windows and total 0 where an entity has fewer.
    """

    exposure: np.ndarray
    windows: np.ndarray
    total: np.ndarray

    def __getitem__(self, at: slice | np.ndarray) -> Counts:
        return Counts(self.exposure[:, at], self.windows[:, at], self.total[:, at])

    @property
    def size(self) -> int:
        """C."""
        return self.exposure.shape[1]


@dataclass(frozen=True, eq=False)
class Moments:
    """Integrals over θ, each of the shape of the states and entities asked for.

    Attributes
    ----------
    log_mass : ndarray
        log ∫ exp f dx.
    mean, square : ndarray
        E[θ] and E[θ²]; empty where they were not asked for.
    """

    log_mass: np.ndarray
    mean: np.ndarray
    square: np.ndarray


class Integrand:
    """f for M integrands.

    Parameters
    ----------
    power, rate : ndarray (M,)
        A and b.
    scales, weights : sequence of ndarray (M,)
        1/φ_k and c_k; none for Poisson counts, whose exposure is part of b.

    Attributes
    ----------
    mode : ndarray (M,)
        θ̂, where f has its peak over log θ.
    peak : ndarray (M,)
        f there.
    curvature : ndarray (M,)
        −f″ there.
    """

    def __init__(
        self,
        power: np.ndarray,
        rate: np.ndarray,
        scales: Sequence[np.ndarray] = (),
        weights: Sequence[np.ndarray] = (),
    ) -> None:
        self.power, self.rate, self.scales, self.weights = power, rate, scales, weights

    @classmethod
    def of(cls, population: Population, counts: Counts) -> Integrand:
        """Of M states of the population and M entities, pair by pair; no dispersion means Poisson counts."""
        power = population.shape + counts.total.sum(axis=0)
        if not np.isfinite(population.dispersion).all():
            return cls(power, population.rate + (counts.exposure * counts.windows).sum(axis=0))
        scales = [exposure / population.dispersion for exposure in counts.exposure]
        weights = [
            total + windows * population.dispersion
            for total, windows in zip(counts.total, counts.windows, strict=True)
        ]
        return cls(power, population.rate, scales, weights)

    def __getitem__(self, at: Any) -> Integrand:
        return Integrand(
            self.power[at],
            self.rate[at],
            [scale[at] for scale in self.scales],
            [weight[at] for weight in self.weights],
        )

    @cached_property
    def peak(self) -> np.ndarray:
        """F at the mode, ndarray (M,)."""
        return self.value(np.log(self.mode), self.mode)

    @cached_property
    def curvature(self) -> np.ndarray:
        """−f″ at the mode, ndarray (M,)."""
        return self._curvature(self.mode)

    def _curvature(self, theta: np.ndarray) -> np.ndarray:
        out = self.rate * theta
        for scale, weight in zip(self.scales, self.weights, strict=True):
            part = theta * scale
            out = out + weight * part / (1 + part) ** 2
        return out

    def value(self, x: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """F at x = log θ."""
        out = self.power * x - self.rate * theta
        for scale, weight in zip(self.scales, self.weights, strict=True):
            out -= weight * np.log1p(theta * scale)
        return out

    def slope(self, theta: np.ndarray) -> np.ndarray:
        """f′ over log θ."""
        out = self.power - self.rate * theta
        for scale, weight in zip(self.scales, self.weights, strict=True):
            part = theta * scale
            out = out - weight * part / (1 + part)
        return out

    @cached_property
    def mode(self) -> np.ndarray:
        """Root of A − bθ − cθ/(θ + φ), a quadratic; by Newton steps from there where exposures differ."""
        if not self.scales:
            return self.power / self.rate
        weight = np.sum(self.weights, axis=0)
        dispersion = 1 / self.scales[0]
        if len(self.scales) > 1:
            dispersion = weight / np.sum([w * s for w, s in zip(self.weights, self.scales, strict=True)], 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mode = pooled_mode(self.power, self.rate, weight, dispersion)
        if len(self.scales) > 1:
            for _ in range(4):
                curvature = np.maximum(self._curvature(mode), 1e-300)
                mode = mode * np.exp(np.clip(self.slope(mode) / curvature, -2, 2))
        return mode

    @cached_property
    def reaches(self) -> tuple[np.ndarray, np.ndarray]:
        """How far the rule goes to the left and to the right of log θ̂, arrays (M,)."""
        return reaches(self.power, self.rate, np.sum(self.weights, axis=0), self.mode, self.curvature)

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the rule begins and ends, in x, arrays (M,)."""
        left, right = self.reaches
        start = np.log(self.mode)
        return start - left, start + right

    def nodes(self, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (x, θ, weight · exp(f − peak)) at each of `count` nodes, arrays (M,)."""
        step = 2 * REACH / (count - 1)
        scale, k, p, m, q = stretches(*self.reaches)
        right, left = p * np.exp(-k * REACH), q * np.exp(m * REACH)
        grow, shrink = np.exp(k * step), np.exp(-m * step)
        start, origin = np.log(self.mode), -REACH
        for _ in range(count):
            x = start + scale * (origin + right - left)
            theta = np.exp(x)
            mass = self.value(x, theta)
            mass -= self.peak
            np.exp(mass, out=mass)
            mass *= (1 + k * right + m * left) * scale * step
            yield x, theta, mass
            origin += step
            right = right * grow
            left = left * shrink


def spaced(
    start: np.ndarray, left: np.ndarray, right: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (x, weight) of `count` nodes from `start` − `left` to `start` + `right`, arrays of any shape.

    The same stretch as an `Integrand`'s own, for integrands that are only bounded by two of them.
    """
    step = 2 * REACH / (count - 1)
    scale, k, p, m, q = stretches(left, right)
    for origin in -REACH + step * np.arange(count):
        up, down = p * np.exp(k * origin), q * np.exp(-m * origin)
        yield start + scale * (origin + up - down), scale * (1 + k * up + m * down) * step


def pairs(population: Population, counts: Counts) -> tuple[Population, Counts]:
    """All P · C pairs, states first."""
    states, size = population.shape.size, counts.size
    of = np.repeat(np.arange(states), size)
    return population[of], Counts(
        *(np.tile(a, states) for a in (counts.exposure, counts.windows, counts.total))
    )


def moments(population: Population, counts: Counts, nodes: int, order: int = 0) -> Moments:
    """Integrals of all pairs of P states and C entities.

    Parameters
    ----------
    population : Population
        P states.
    counts : Counts
        C entities.
    nodes : int
        Nodes of the rule.
    order : {0, 2}
        Highest moment of θ.

    Returns
    -------
    Moments
        Arrays (P, C).
    """
    states, size = population.shape.size, counts.size
    out = np.empty((3 if order else 1, states, size))
    wide = max(1, BLOCK // size)
    for first in range(0, states, wide):
        some = population[first : first + wide]
        for start in range(0, size, BLOCK):
            part = counts[start : start + BLOCK]
            sums = _sums(Integrand.of(*pairs(some, part)), nodes, order)
            out[:, first : first + wide, start : start + BLOCK] = sums.reshape(-1, some.shape.size, part.size)
    empty = np.empty((0, 0))
    return Moments(out[0], out[1], out[2]) if order else Moments(out[0], empty, empty)


def _sums(integrand: Integrand, nodes: int, order: int) -> np.ndarray:
    mass = np.zeros_like(integrand.peak)
    first, second = np.zeros_like(mass), np.zeros_like(mass)
    for _, theta, weight in integrand.nodes(nodes):
        mass += weight
        if order:
            weight *= theta
            first += weight
            weight *= theta
            second += weight
    log_mass = integrand.peak + np.log(mass)
    return np.stack([log_mass, first / mass, second / mass]) if order else log_mass[None]


def log_rising(count: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Log of Γ(y + φ)/(Γ(φ) φʸ), exact to rounding for any φ; arrays are broadcast."""
    from scipy.special import gammaln

    y, phi = np.broadcast_arrays(count, dispersion)
    small = np.minimum(phi, 30.0)
    direct = gammaln(y + small) - gammaln(small) - y * np.log(small)
    big = np.maximum(phi, 30.0)
    stirling = (big + y - 0.5) * np.log1p(y / big) - y + _tail(big + y) - _tail(big)
    return np.where(phi < 30, direct, stirling)


def _tail(z: np.ndarray) -> np.ndarray:
    """Stirling's series of log Γ beyond its leading terms."""
    inverse = 1 / (z * z)
    return (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / z


def draw_rates(population: Population, counts: Counts, rng: np.random.Generator) -> np.ndarray:
    """One θ for each of M pairs, exactly, by rejection under three exponential pieces of the concave f.

    References
    ----------
    Devroye (1986), Non-Uniform Random Variate Generation, section VII.2.
    """
    out = np.empty(population.shape.size)
    todo = np.arange(out.size)
    integrand = Integrand.of(population, counts)
    top, mode = integrand.peak, np.log(integrand.mode)
    # Tangents where f has fallen by about ¾: flat piece between where they meet the peak.
    reach = 1.2 / np.sqrt(integrand.curvature)
    below, above = mode - reach, mode + reach
    low, high = np.exp(below), np.exp(above)
    rise, fall = integrand.slope(low), -integrand.slope(high)
    f_low, f_high = integrand.value(below, low) - top, integrand.value(above, high) - top
    left, right = below - f_low / rise, above + f_high / fall
    share_left, share_middle, share_right = 1 / rise, right - left, 1 / fall
    total = share_left + share_middle + share_right
    while todo.size:
        u = rng.random(todo.size) * total[todo]
        tail = rng.standard_exponential(todo.size)
        in_left, in_right = u < share_left[todo], u >= (share_left + share_middle)[todo]
        x = left[todo] + (u - share_left[todo])
        x = np.where(in_left, left[todo] - tail / rise[todo], x)
        x = np.where(in_right, right[todo] + tail / fall[todo], x)
        bound = np.where(in_left | in_right, -tail, 0.0)
        theta = np.exp(x)
        accepted = integrand[todo].value(x, theta) - top[todo] - bound > -rng.standard_exponential(todo.size)
        out[todo[accepted]] = theta[accepted]
        todo = todo[~accepted]
    return out
