"""Where the lattice of the Student-t models must stand: narrowed and widened until it holds the posterior."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from hbm_core.inference.exact.robust_lattice import (
    Box,
    Kind,
    log_jacobian,
    slice_moments,
    stretch,
    tau_of,
    v_of,
)
from hbm_core.models.prior import Prior

#: Nats below the peak, moments' factors included, where a posterior is cut: 1.5e-8.
_CUT = 18.0
#: Nodes of τ, μ, ν of one look, and the most looks.
_LOOK = (17, 33, 9)
_LOOKS = 24
#: Range of a normal density down to the cut, in interquartile ranges.
_NORMAL_RATIO = 10.0
_V_LIMITS = (-6.0, 600.0)
_LOG_NU_LIMITS = (-60.0, 600.0)


def edges_of(prior: Prior) -> tuple[float, float]:
    """Edges of a positive parameter's prior on the log scale; infinite where there is none inside (0, ∞)."""
    lower, upper = prior.support
    return (float(np.log(lower)) if lower > 0 else -np.inf, float(np.log(upper)) if upper > 0 else np.inf)


def v_edges_of(prior: Prior, scale: float) -> tuple[float, float]:
    """The same in the coordinate v of τ."""
    low, high = (float(v_of(np.exp(e), scale)) if np.isfinite(e) else e for e in edges_of(prior))
    return low, high


def log_prior(prior: Prior, x: np.ndarray) -> np.ndarray:
    """Log density at `x`, where rounding puts no node beyond an edge it stands on."""
    for edge in prior.support:
        if np.isfinite(edge) and edge != 0:
            x = np.where(np.abs(x - edge) <= 1e-9 * abs(edge), edge, x)
    value = prior.log_density(x)
    return np.where(np.isnan(value), -np.inf, value)


def tau_scale(se: np.ndarray) -> float:
    """A τ below which the likelihood hardly changes."""
    return 0.3 * float(1 / np.sqrt(np.mean(1 / se**2)))


def place(
    y: np.ndarray, se: np.ndarray, kind: Kind, priors: Mapping[str, Prior], orders: Mapping[str, int]
) -> Box:
    """Find the box that holds the posterior.

    Parameters
    ----------
    y, se : ndarray (J,)
        Effects and standard errors.
    kind : {"likelihood", "effects"}
        Which level is Student-t.
    priors : mapping
        Of ``mu``, ``tau``, ``nu``.
    orders : mapping
        Highest finite moment (0, 1, 2) of each: the box holds that moment, too.
    """
    scale = tau_scale(se)
    v_edges = v_edges_of(priors["tau"], scale)
    nu_edges = edges_of(priors["nu"])
    v_range, nu_range = _first_v(y, se, priors["tau"], scale, v_edges), _first_nu(priors["nu"])
    at = np.linspace(*v_range, _LOOK[0])
    lower, upper = first_mu(y, se, tau_of(at, scale), priors["mu"])
    box = Box(scale, v_range, nu_range, at, lower, upper, priors["mu"].support, v_edges, nu_edges)
    for _ in range(_LOOKS):
        box, settled = _look(y, se, kind, priors, orders, box)
        if settled:
            break
    return box


def _first_v(
    y: np.ndarray, se: np.ndarray, prior: Prior, scale: float, edges: tuple[float, float]
) -> tuple[float, float]:
    spread = 100 * (float(np.ptp(y)) + float(se.max()))
    low, high = 1e-8 * scale, spread
    if prior.proper:
        tiny, middle, huge = prior.distribution.ppf([1e-10, 0.5, 1 - 1e-10])
        low, high = min(max(low, tiny), middle), max(min(spread, huge), middle)
    lower, upper = v_of(np.array([low, high]), scale)
    return max(float(lower), edges[0], _V_LIMITS[0]), min(float(upper), edges[1], _V_LIMITS[1])


def _first_nu(prior: Prior) -> tuple[float, float]:
    tiny, low, high = prior.distribution.ppf([1e-9, 0.01, 1 - 1e-9])
    lower, upper = np.log(max(tiny, min(0.05, low), 1e-20)), np.log(min(high, 1e200))
    return float(lower), float(max(upper, lower + 1e-6))


def first_mu(y: np.ndarray, se: np.ndarray, tau: np.ndarray, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """A generous range of μ at each τ, from the data's hull and the prior's."""
    wide = 8 * np.sqrt(tau**2 + se.max() ** 2)
    lower, upper = y.min() - wide, y.max() + wide
    if prior.proper:
        low, high = prior.distribution.ppf([1e-12, 1 - 1e-12])
        inner = np.maximum(lower, low), np.minimum(upper, high)
        apart = inner[1] - inner[0] < 0.05 * min(high - low, upper.max() - lower.min())
        lower = np.where(apart, np.minimum(lower, low), inner[0])
        upper = np.where(apart, np.maximum(upper, high), inner[1])
    edge = prior.support
    return np.maximum(lower, edge[0]), np.minimum(upper, edge[1])


def _look(
    y: np.ndarray,
    se: np.ndarray,
    kind: Kind,
    priors: Mapping[str, Prior],
    orders: Mapping[str, int],
    box: Box,
) -> tuple[Box, bool]:
    v = np.linspace(*box.v, _LOOK[0])
    log_nu = np.linspace(*box.log_nu, _LOOK[2])
    tau, nu = tau_of(v, box.scale), np.exp(log_nu)
    lower, upper = _mu_range(box, v, y, se, priors["mu"])
    conditional, mu = mu_conditional(y, se, kind, tau, nu, lower, upper, priors, box.tightness)
    slope = stretch(np.linspace(0, 1, _LOOK[1]), box.tightness)[1][:, None]
    over_mu = special.logsumexp(conditional + np.log(slope), axis=1) + np.log(upper - lower)[:, None]
    joint = over_mu + (log_prior(priors["tau"], tau) + log_jacobian(v, box.scale))[:, None]
    of_mu = special.logsumexp(conditional, axis=2)
    new_lower, new_upper, mu_settled = narrow_mu(of_mu, mu, priors["mu"].support, orders["mu"])
    tau_density, nu_density = special.logsumexp(joint, axis=1), special.logsumexp(joint, axis=0)
    relevant = tau_density > tau_density.max() - 3 * _CUT
    log_tau = np.log(np.maximum(tau, 1e-300))
    tau_density = tau_density + orders["tau"] * np.maximum(log_tau - log_tau[tau_density.argmax()], 0)
    nu_density = nu_density + orders["nu"] * np.maximum(log_nu - log_nu[nu_density.argmax()], 0)
    v_range, v_settled = _narrow(tau_density, v, box.v_edges, _V_LIMITS)
    nu_range, nu_settled = _narrow(nu_density, log_nu, box.nu_edges, _LOG_NU_LIMITS)
    looked = Box(
        box.scale,
        v_range,
        nu_range,
        v,
        new_lower,
        new_upper,
        box.mu_edges,
        box.v_edges,
        box.nu_edges,
        _tightness(of_mu[relevant] + np.log(slope)[:, 0], mu[relevant], (new_upper - new_lower)[relevant]),
    )
    return looked, bool(v_settled and nu_settled and mu_settled[relevant].all())


def _mu_range(
    box: Box, v: np.ndarray, y: np.ndarray, se: np.ndarray, prior: Prior
) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = box.mu_range(v)
    new = (v < box.at[0] - 1e-9) | (v > box.at[-1] + 1e-9)
    if new.any():
        first = first_mu(y, se, tau_of(v, box.scale), prior)
        lower, upper = np.where(new, first[0], lower), np.where(new, first[1], upper)
    return lower, upper


def mu_conditional(
    y: np.ndarray,
    se: np.ndarray,
    kind: Kind,
    tau: np.ndarray,
    nu: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    priors: Mapping[str, Prior],
    tightness: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Log density of (data, μ, log ν) given τ on nodes of μ, ndarray (T, Z, N); and the nodes (T, Z)."""
    places, _ = stretch(np.linspace(0, 1, _LOOK[1]), tightness)
    mu = lower[:, None] + places * (upper - lower)[:, None]
    total = np.stack(
        [
            slice_moments(y, se, kind, t, m, nu, step=1.3, shares=False)[0].sum(axis=0)
            for t, m in zip(tau, mu, strict=True)
        ]
    )
    nu_prior = log_prior(priors["nu"], nu) + np.log(nu)
    return total + log_prior(priors["mu"], mu)[:, :, None] + nu_prior, mu


def narrow_mu(
    density: np.ndarray, mu: np.ndarray, edges: tuple[float, float], order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """New ends of μ at each τ from log densities (T, Z), and which have settled."""
    ends, settled = [], []
    for row, nodes in zip(density, mu, strict=True):
        weight = np.exp(row - row.max())
        mean = weight @ nodes / weight.sum()
        sd = np.sqrt(weight @ (nodes - mean) ** 2 / weight.sum()) + (nodes[1] - nodes[0])
        tail = order / 2 * np.log1p(((nodes - mean) / sd) ** 2)
        new, done = _narrow(row + tail, nodes, edges, (-np.inf, np.inf))
        ends.append(new)
        settled.append(done)
    lower, upper = np.array(ends).T
    return lower, upper, np.array(settled)


def _tightness(log_mass: np.ndarray, mu: np.ndarray, wide: np.ndarray) -> float:
    """How crowded nodes must be so that the middle half of μ at every τ has as many as a normal would."""
    mass = np.exp(log_mass - log_mass.max(axis=1, keepdims=True))
    cumulative = np.cumsum(mass, axis=1) / mass.sum(axis=1, keepdims=True)
    pairs = zip(cumulative, mu, strict=True)
    middle = np.array([np.diff(np.interp([0.25, 0.75], row, nodes))[0] for row, nodes in pairs])
    ratio = float((wide / np.maximum(middle, 1e-12 * wide)).max()) / _NORMAL_RATIO
    return ratio if ratio > 2 else 1.0


def _narrow(
    density: np.ndarray, x: np.ndarray, edges: tuple[float, float], limits: tuple[float, float]
) -> tuple[tuple[float, float], bool]:
    drop = density - density.max()
    keep = np.flatnonzero(drop > -_CUT)
    first, last = int(keep[0]), int(keep[-1])
    lower, upper = _cross(drop, x, first, -1), _cross(drop, x, last, 1)
    wide, low, high = x[-1] - x[0], max(edges[0], limits[0]), min(edges[1], limits[1])
    tiny = 1e-6 * wide
    grown = False
    if first == 0:
        grown = bool(x[0] > low + tiny)
        lower = max(float(x[0] - 0.25 * wide), low) if grown else low
    if last == len(x) - 1:
        more = bool(x[-1] < high - tiny)
        upper = min(float(x[-1] + 0.25 * wide), high) if more else high
        grown = grown or more
    return (lower, upper), not grown and last - first + 1 >= 0.45 * len(x)


def _cross(drop: np.ndarray, x: np.ndarray, at: int, side: int) -> float:
    """Where the log density, linear to the next node on that `side`, has clearly fallen below the cut."""
    if not 0 <= at + side < len(x):
        return float(x[at])
    share = (drop[at] + _CUT + 4) / (drop[at] - drop[at + side])
    return float(x[at] + np.clip(share, 0.5, 1.0) * (x[at + side] - x[at]))
