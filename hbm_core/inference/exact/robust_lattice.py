"""Unit likelihoods of the Student-t two-level models on a lattice of (μ, τ, ν): knows data, no prior.

Both models are normal scale mixtures: with w ~ InverseGamma(ν/2, ν/2),

- ``"likelihood"``: y_i | w ~ Normal(μ, τ² + s_i² w),
- ``"effects"``:    y_i | w ~ Normal(μ, s_i² + τ² w),

and θ_i | w, y_i ~ Normal(B μ + (1 − B) y_i, (1 − B) noise) with B = noise/V the share of the noise in the
variance V above. One integral per unit over x = log w remains; its integrand is analytic in a strip and
falls exponentially at both ends, so the trapezoid rule converges exponentially (Trefethen & Weideman
2014, SIAM Review 56, section 5). The normal factor does not depend on ν: one exponential per
(unit, μ, τ, x) serves all ν through a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import special

Kind = Literal["likelihood", "effects"]
#: Nats below the peak where an integrand over log w is cut: 2e-9.
_CUT = 20.0
#: Nats below its peak where a unit's likelihood need not be right.
_HOPELESS = 5000.0
#: Smaller exponents are raised to this: denormal numbers are slow. Integrals near it are summed in logs.
_FLOOR = -300.0
#: Largest |log w|; beyond it exp(2 log w) would overflow.
_FARTHEST = 300.0
_LOG_2_PI = float(np.log(2 * np.pi))


@lru_cache(maxsize=32)
def clenshaw_curtis(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Clenshaw–Curtis quadrature on (−1, 1), an odd `count`; nested under halving."""
    last = count - 1
    angle = np.pi * np.arange(count) / last
    j = np.arange(1, last // 2 + 1)
    factor = np.where(j == last // 2, 1.0, 2.0) / (4.0 * j * j - 1)
    weights = 2.0 / last * (1 - np.cos(2 * np.outer(angle, j)) @ factor)
    weights[[0, -1]] /= 2
    return -np.cos(angle), weights


def chebyshev_matrix(count: int, x: np.ndarray) -> np.ndarray:
    """Interpolation from the nodes of `clenshaw_curtis` to `x` in (−1, 1), ndarray (len(x), count)."""
    nodes, _ = clenshaw_curtis(count)
    sign = (-1.0) ** np.arange(count)
    sign[[0, -1]] /= 2
    gap = x[:, None] - nodes
    exact = np.abs(gap) < 1e-14
    terms = sign / np.where(exact, 1.0, gap)
    matrix = terms / terms.sum(axis=1, keepdims=True)
    hit = exact.any(axis=1)
    matrix[hit] = exact[hit]
    return matrix


def rule(count: int, edged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nodes on (0, 1) and weights that sum to 1, nested under halving of an odd `count`.

    Evenly spaced (trapezoid rule) for an integrand that vanishes at both ends, where it converges faster
    than any Gauss rule; Clenshaw–Curtis where a prior's edge cuts it.
    """
    if edged:
        nodes, weights = clenshaw_curtis(count)
        return (nodes + 1) / 2, weights / 2
    return np.linspace(0, 1, count), np.full(count, 1 / (count - 1))


def stretch(t: np.ndarray, tightness: float) -> tuple[np.ndarray, np.ndarray]:
    """A map of (0, 1) to itself that crowds even nodes `tightness` times towards the middle; its slope.

    sinh, so that algebraic tails of μ that reach a thousand sds cost a few nodes more.
    """
    if tightness <= 1:
        return t, np.ones_like(t)
    kappa = stretch_rate(tightness)
    arm = kappa * (2 * t - 1)
    return 0.5 + 0.5 * np.sinh(arm) / np.sinh(kappa), kappa * np.cosh(arm) / np.sinh(kappa)


@lru_cache(maxsize=64)
def stretch_rate(tightness: float) -> float:
    """κ with sinh κ/κ = `tightness`; 0 without crowding."""
    if tightness <= 1:
        return 0.0
    kappa = np.log(2 * tightness) + 1
    for _ in range(60):
        kappa = np.arcsinh(tightness * kappa)
    return float(kappa)


def interpolation(count: int, edged: bool, x: np.ndarray) -> np.ndarray:
    """Interpolation from the nodes of `rule` to `x` in (0, 1), ndarray (len(x), count)."""
    if edged:
        return chebyshev_matrix(count, 2 * x - 1)
    return np.sinc(x[:, None] * (count - 1) - np.arange(count))


def excess(x: np.ndarray) -> np.ndarray:
    """X + exp(−x) − 1 without cancellation: −2/ν times the log density of x = log w, up to a constant."""
    near = np.abs(x) < 1e-3
    small = np.where(near, x, 0.0)
    return np.where(near, small**2 * (0.5 - small / 6 + small**2 / 24), x + np.expm1(-np.where(near, 1.0, x)))


def reach(level: np.ndarray, side: int) -> np.ndarray:
    """Solution x of ``excess(x) = level`` on the positive (`side` 1) or negative (`side` −1) side."""
    level = np.asarray(level, dtype=float)
    u = -special.lambertw(-np.exp(-1 - np.minimum(level, 600.0)), 0 if side > 0 else -1).real
    with np.errstate(divide="ignore"):
        far = np.where(
            level > 600, (level + 1) if side > 0 else -np.log(1 + level + np.log1p(level)), -np.log(u)
        )
    return np.where(level < 1e-8, side * np.sqrt(2 * level), far)


def log_constant(nu: np.ndarray) -> np.ndarray:
    """Log normaliser of x = log w: its density is exp(log_constant(ν) − ν/2 · excess(x))."""
    half = np.asarray(nu, dtype=float) / 2
    big = np.maximum(half, 500.0)
    stirling = 0.5 * (np.log(big) - _LOG_2_PI) - 1 / (12 * big)
    small = np.minimum(half, 500.0)
    return np.where(half > 500, stirling, small * np.log(small) - special.gammaln(small) - small)


def mixing_range(
    nu: np.ndarray, tilt: np.ndarray, ratio: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Range of log w that holds a unit's integral.

    Parameters
    ----------
    nu : ndarray
        Degrees of freedom.
    tilt, ratio, gain : ndarray
        r²/b, a/b and r²/(2 (a + b)) for V = a + b w and r = y − μ.
    """
    lower = reach(2 * _CUT / nu, -1)
    pulled = np.minimum(np.log1p(np.maximum((tilt - 1) / (nu + 1), ratio)), 2 * _HOPELESS / (nu + 1))
    upper = np.minimum(pulled + reach(2 * _CUT / (nu + 1), 1), reach(2 * (_CUT + gain) / nu, 1))
    return np.maximum(lower, -_FARTHEST), np.minimum(np.maximum(upper, -lower), _FARTHEST)


def _banks(nu: np.ndarray) -> list[slice]:
    """Neighbouring ν that can share nodes of log w without wasting them."""
    banks, start = [], 0
    for place in range(1, len(nu) + 1):
        if place == len(nu) or nu[place] > max(12.0, 6 * nu[start]):
            banks.append(slice(start, place))
            start = place
    return banks


def slice_moments(
    y: np.ndarray,
    se: np.ndarray,
    kind: Kind,
    tau: float,
    mu: np.ndarray,
    nu: np.ndarray,
    step: float = 1.0,
    shares: bool = True,
    tails: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit likelihoods and shares at one τ.

    Parameters
    ----------
    y, se : ndarray (J,)
        Effects and standard errors.
    kind : {"likelihood", "effects"}
        Which level is Student-t.
    tau : float
        Scale of the effects; 0 allowed.
    mu : ndarray (Z,)
        Nodes of μ.
    nu : ndarray (N,)
        Nodes of ν, ascending.
    step : float
        Multiple of the default spacing of log w.
    shares : bool
        Whether the shares are wanted.
    tails : bool
        Whether values hundreds of nats below the peak are wanted, too.

    Returns
    -------
    log_likelihood, share, share_squared : ndarray (J, Z, N)
        log p(y_i | μ, τ, ν), E[B | y_i, μ, τ, ν] and E[B² | …]; the latter undefined without `shares`.
    """
    noise, spread = se**2, np.full(len(y), tau**2)
    a, b = (spread, noise) if kind == "likelihood" else (noise, spread)
    square = (y[:, None] - mu) ** 2
    top = square.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        tilt = np.nan_to_num(top / b, posinf=1e300).max()
        ratio = np.nan_to_num(a / b, posinf=1e300).max()
    gain = np.where(b > 0, top / (2 * (a + b)), 0.0).max()
    out = np.empty((3, len(y), len(mu), len(nu)))
    for bank in _banks(nu):
        some = nu[bank]
        lower, upper = mixing_range(some, tilt, ratio, gain)
        spacing = step * min(0.45, 1.1 * float(np.sqrt(2 / (some[-1] + 1))))
        count = int(np.ceil((upper.max() - lower.min()) / spacing)) + 1
        x = np.linspace(lower.min(), upper.max(), count)
        log_weight = (
            log_constant(some) - 0.5 * excess(x)[:, None] * some + np.log((x[-1] - x[0]) / (count - 1))
        )
        weight = np.exp(np.maximum(log_weight, _FLOOR))
        w = np.exp(x)
        variance = a[:, None] + b[:, None] * w
        log_root = 0.5 * np.log(variance)
        best = np.clip(square, variance[:, :1], variance[:, -1:])
        shift = -0.5 * (square / best + np.log(best))
        kernel = square[:, :, None] * (-0.5 / variance)[:, None, :]
        kernel -= log_root[:, None, :]
        kernel -= shift[:, :, None]
        np.maximum(kernel, _FLOOR, out=kernel)
        np.exp(kernel, out=kernel)
        mass = np.matmul(kernel, weight)
        lost = mass < np.exp(0.9 * _FLOOR)
        out[0][:, :, bank] = np.log(mass) + shift[:, :, None]
        share = (noise[:, None] * w if kind == "likelihood" else noise[:, None]) / variance
        if shares:
            weighted = weight * share[:, :, None]
            right = np.concatenate([weighted, weighted * share[:, :, None]], axis=2)
            product = np.matmul(kernel, right)
            out[1][:, :, bank] = product[..., : len(some)] / mass
            out[2][:, :, bank] = product[..., len(some) :] / mass
        for n in np.flatnonzero(lost.any(axis=(0, 1))) if tails else ():
            unit, z = np.nonzero(lost[:, :, n])
            exponent = -0.5 * square[unit, z, None] / variance[unit] - log_root[unit] + log_weight[:, n]
            peak = exponent.max(axis=1)
            terms = np.exp(exponent - peak[:, None])
            total = terms.sum(axis=1)
            out[0][unit, z, bank.start + n] = peak + np.log(total)
            if shares:
                out[1][unit, z, bank.start + n] = (terms * share[unit]).sum(axis=1) / total
                out[2][unit, z, bank.start + n] = (terms * share[unit] ** 2).sum(axis=1) / total
    out[0] -= 0.5 * _LOG_2_PI
    return out[0], out[1], out[2]


def tau_of(v: np.ndarray, scale: float) -> np.ndarray:
    """τ = scale · exp(v − exp(−v)): logarithmic, with the empty way to τ = 0 shortened."""
    return scale * np.exp(v - np.exp(-v))


def v_of(tau: np.ndarray, scale: float) -> np.ndarray:
    """Inverse of `tau_of`."""
    x = np.log(np.asarray(tau, dtype=float) / scale)
    return x + special.wrightomega(-x)


def log_jacobian(v: np.ndarray, scale: float) -> np.ndarray:
    """Log dτ/dv."""
    return np.log(scale) + v - np.exp(-v) + np.log1p(np.exp(-v))


def _touches(ends: tuple[float, float], edges: tuple[float, float]) -> bool:
    return ends[0] <= edges[0] or ends[1] >= edges[1]


@dataclass(frozen=True, eq=False)
class Box:
    """Where a lattice stands.

    Parameters
    ----------
    scale : float
        Of the coordinate v of τ.
    v, log_nu : tuple of float
        Ends in v and in log ν.
    at, lower, upper : ndarray (S,)
        Ends of μ, known at the places `at` of v.
    mu_edges, v_edges, nu_edges : tuple of float
        Edges of the priors' supports in μ, v and log ν that the ends never pass; infinite without.
    tightness : float
        How much closer nodes of μ stand in the middle than evenly spaced ones; 1 for even.
    """

    scale: float
    v: tuple[float, float]
    log_nu: tuple[float, float]
    at: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    mu_edges: tuple[float, float]
    v_edges: tuple[float, float]
    nu_edges: tuple[float, float]
    tightness: float = 1.0

    @property
    def edged(self) -> tuple[bool, bool, bool]:
        """Whether a prior's edge cuts the box in τ, μ, ν."""
        low, high = self.mu_edges
        slack = 0.04 * (self.upper - self.lower)
        cut = (self.lower - slack <= low) | (self.upper + slack >= high)
        return _touches(self.v, self.v_edges), bool(cut.any()), _touches(self.log_nu, self.nu_edges)

    def mu_rule(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes of μ relative to its range, and their weights, which sum to 1."""
        nodes, weights = rule(count, self.edged[1])
        places, slope = stretch(nodes, self.tightness)
        return places, weights * slope

    def mu_range(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of μ at other places of v, with a little slack."""
        lower, upper = np.interp(v, self.at, self.lower), np.interp(v, self.at, self.upper)
        slack = 0.03 * (upper - lower)
        return np.maximum(lower - slack, self.mu_edges[0]), np.minimum(upper + slack, self.mu_edges[1])


@dataclass(frozen=True, eq=False)
class Lattice:
    """Nodes, their weights, and what the data say at each.

    Attributes
    ----------
    box : Box
        Where it stands.
    v, tau : ndarray (T,)
        Nodes of τ and their coordinate.
    mu : ndarray (T, Z)
        Nodes of μ at each τ.
    nu : ndarray (N,)
        Nodes of ν.
    unit_log_likelihood, shift, square : ndarray (J, T, Z, N)
        log p(y_i | node), E[θ_i − y_i | node], E[(θ_i − y_i)² | node].
    log_likelihood : ndarray (T, Z, N)
        Sum over the units.
    """

    box: Box
    v: np.ndarray
    tau: np.ndarray
    mu: np.ndarray
    nu: np.ndarray
    unit_log_likelihood: np.ndarray
    shift: np.ndarray
    square: np.ndarray
    log_likelihood: np.ndarray

    @property
    def counts(self) -> tuple[int, int, int]:
        """Nodes of τ, μ, ν."""
        return self.log_likelihood.shape

    @property
    def bytes(self) -> int:
        """Memory held."""
        return self.unit_log_likelihood.nbytes + self.shift.nbytes + self.square.nbytes

    def log_weights(self, stride: tuple[int, int, int] = (1, 1, 1)) -> np.ndarray:
        """Log quadrature weights dτ dμ dν of every `stride`-th node, ndarray (T, Z, N)."""
        edged, box = self.box.edged, self.box
        halved = [(count - 1) // every + 1 for count, every in zip(self.counts, stride, strict=True)]
        of_v, of_nu = rule(halved[0], edged[0])[1], rule(halved[2], edged[2])[1]
        of_mu = box.mu_rule(halved[1])[1]
        wide = (self.mu[:, -1] - self.mu[:, 0])[:: stride[0]] * (box.v[1] - box.v[0])
        nu_weight = of_nu * (box.log_nu[1] - box.log_nu[0]) * self.nu[:: stride[2]]
        log_v = np.log(of_v * wide) + log_jacobian(self.v[:: stride[0]], box.scale)
        return log_v[:, None, None] + np.log(of_mu)[:, None] + np.log(nu_weight)


def build_lattice(
    y: np.ndarray, se: np.ndarray, kind: Kind, box: Box, counts: tuple[int, int, int]
) -> Lattice:
    """Evaluate the data on a lattice, one slice of τ at a time.

    Parameters
    ----------
    y, se : ndarray (J,)
        Effects and standard errors.
    kind : {"likelihood", "effects"}
        Which level is Student-t.
    box : Box
        Where.
    counts : tuple of int
        Nodes of τ, μ, ν: odd, and odd again when halved.
    """
    at_v, at_nu = rule(counts[0], box.edged[0])[0], rule(counts[2], box.edged[2])[0]
    at_mu, _ = box.mu_rule(counts[1])
    v = box.v[0] + at_v * (box.v[1] - box.v[0])
    nu = np.exp(box.log_nu[0] + at_nu * (box.log_nu[1] - box.log_nu[0]))
    tau = tau_of(v, box.scale)
    lower, upper = box.mu_range(v)
    mu = lower[:, None] + at_mu * (upper - lower)[:, None]
    log_likelihood, shift, square = evaluate(y, se, kind, tau, mu, nu)
    return Lattice(box, v, tau, mu, nu, log_likelihood, shift, square, log_likelihood.sum(axis=0))


def evaluate(
    y: np.ndarray, se: np.ndarray, kind: Kind, tau: np.ndarray, mu: np.ndarray, nu: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log p(y_i | node), E[θ_i − y_i | node] and E[(θ_i − y_i)² | node], ndarrays (J, T, Z, N)."""
    shape = (len(y), len(tau), mu.shape[1], len(nu))
    log_likelihood, shift, square = np.empty(shape), np.empty(shape), np.empty(shape)
    for t, scale in enumerate(tau):
        gap = (mu[t] - y[:, None])[:, :, None]
        log_likelihood[:, t], share, share_squared = slice_moments(y, se, kind, scale, mu[t], nu)
        variance = scale**2 * share if kind == "likelihood" else (se**2)[:, None, None] * (1 - share)
        shift[:, t] = gap * share
        square[:, t] = gap**2 * share_squared + variance
    return log_likelihood, shift, square
