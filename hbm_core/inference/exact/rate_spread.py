"""Rates given the spread of their population, from none (one rate for all) to any (each on its own).

The spread σ is 1/√α, or 1/√κ of successes: the parameter that alone rules B = 1/(1 + E σ²) of an entity
with E windows or trials, and on which the prior of μ does not hang. For rates with Var(θ) = μ/α it is
√(Var(θ)/E(θ)), for multiples of the mean the coefficient of variation. Given σ the other parameters are
integrated by a product rule around their conditional mean, found by three coarser ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from scipy.interpolate import PchipInterpolator

from hbm_core.inference.exact.beta_binomial import BetaBinomialPosterior
from hbm_core.inference.exact.gamma_counts_posterior import GammaCountsPosterior

RatePosterior = GammaCountsPosterior | BetaBinomialPosterior

#: Shares u = σ/(σ + c) of the nodes over the whole axis, and sds of log σ of those where the posterior is.
_SHARES = (0.02, 0.06, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98)
_NEAR = np.linspace(-4.2, 4.2, 11)
#: Points of the rule per dimension: to find the conditional mean, then around it.
_FIRST, _RULE = 3, 5
#: Nodes of the rule over each rate: a picture's curves need fewer than the posterior does.
_OVER_RATES, _COARSE = 15, 11
#: Effective share of a rule's points below which it stands in the wrong place.
_LEAST = 0.12


@dataclass(frozen=True, eq=False)
class Along:
    """The posterior given σ at G values, for M entities.

    Attributes
    ----------
    spread : ndarray (G,)
        σ, ascending.
    theta_mean, theta_sd, pooling : ndarray (G, M)
        E and sd of θ_i, and the population's weight in it.
    mu_mean : ndarray (G,)
        E[μ].
    log_density : ndarray (G,)
        Log posterior density of log σ, up to a constant.
    """

    spread: np.ndarray
    theta_mean: np.ndarray
    theta_sd: np.ndarray
    pooling: np.ndarray
    mu_mean: np.ndarray
    log_density: np.ndarray


@dataclass(frozen=True, eq=False)
class _Form:
    """How one structure's parameters hang on log σ and on the free ones.

    Attributes
    ----------
    free : tuple of int
        Places of the parameters that stay free.
    spread : callable
        ``(x (P, D)) -> σ (P,)``.
    complete : callable
        ``(free (P, F), σ (P,)) -> x (P, D)``.
    """

    free: tuple[int, ...]
    spread: Callable[[np.ndarray], np.ndarray]
    complete: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _form(posterior: RatePosterior) -> _Form:
    tied = 1
    free = tuple(place for place in range(posterior.lattice.x.shape[1]) if place != tied)
    return _Form(
        free,
        lambda x: x[:, tied] ** -0.5,
        lambda some, spread: np.insert(some, tied, spread**-2, axis=1),
    )


@dataclass(eq=False)
class _Nodes:
    """Where the rules stand, and what the data say there, whatever the prior."""

    lattice: Any
    spread: np.ndarray
    v: np.ndarray
    x: np.ndarray
    log_likelihood: np.ndarray
    log_weight: np.ndarray
    rates: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)


#: The last rules of each table: a change of a prior weighs them anew.
_KNOWN: WeakKeyDictionary[Any, _Nodes] = WeakKeyDictionary()


def along_spread(posterior: RatePosterior, places: np.ndarray) -> Along:
    """The posterior given σ at values over the whole axis, denser where the posterior is.

    Parameters
    ----------
    posterior : GammaCountsPosterior or BetaBinomialPosterior
        Exact.
    places : ndarray (M,) of int
        Entities.
    """
    form, table = _form(posterior), posterior.table
    found = _KNOWN.get(table)
    log_joint = None
    if found is not None and found.lattice is posterior.lattice:
        log_joint = _log_joint(posterior, found)
        if _poor(log_joint):
            log_joint = None
    if found is None or log_joint is None:
        found = _KNOWN[table] = _place(posterior, form)
        log_joint = _log_joint(posterior, found)
    rows = len(found.spread)
    log_joint = log_joint.reshape(rows, -1)
    top = log_joint.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    weight = np.exp(log_joint - top)
    total = weight.sum(axis=1)
    share = weight / np.where(total > 0, total, 1.0)[:, None]
    first, second, pooled = _rates(posterior, found, places)

    def average(values: np.ndarray) -> np.ndarray:
        return np.einsum("gk,gkm->gm", share, values.reshape(rows, -1, values.shape[-1]))

    mean = average(first)
    sd = np.sqrt(np.maximum(average(second) - mean**2, 0))
    mu = average(found.x[:, :1])[:, 0]
    with np.errstate(divide="ignore"):
        density = np.log(total) + top[:, 0]
    return Along(found.spread, mean, sd, average(pooled), mu, density)


def _log_joint(posterior: RatePosterior, nodes: _Nodes) -> np.ndarray:
    """Log of the rule's weights: likelihood and priors over what the rule was made for."""
    out = nodes.log_likelihood + nodes.log_weight
    for place, prior in enumerate(posterior.spec.priors.values()):
        with np.errstate(divide="ignore"):
            out = out + prior.log_density(nodes.x[:, place])
    return np.asarray(out)


def _poor(log_joint: np.ndarray) -> bool:
    """Whether the rule of the likeliest σ has hardly any points in use."""
    if not np.isfinite(log_joint.max()):
        return True
    size = _RULE if log_joint.size % _RULE**2 else _RULE**2
    rows = log_joint.reshape(-1, size)
    best = rows[int(rows.max(axis=1).argmax())]
    weight = np.exp(best - best.max())
    return float(weight.sum() ** 2 / (weight**2).sum()) < _LEAST * size


def _rates(
    posterior: RatePosterior, nodes: _Nodes, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[θ], E[θ²] and the population's weight at the nodes, each (P, M)."""
    if (key := places.tobytes()) not in nodes.rates:
        if len(nodes.rates) >= 4:
            nodes.rates.clear()
        nodes.rates[key] = posterior.rates_at(nodes.x, places)
    return nodes.rates[key]


def _place(posterior: RatePosterior, form: _Form) -> _Nodes:
    lattice, weights = posterior.lattice, posterior.lattice_weights
    free = lattice.v[:, form.free]
    log_spread = np.log(form.spread(lattice.x))
    middle, centre = float(weights @ log_spread), weights @ free
    gap, away = log_spread - middle, free - centre
    variance = max(float(weights @ gap**2), 1e-12)
    slope = (weights * gap) @ away / variance
    rest = away - gap[:, None] * slope
    cover = (weights[:, None] * rest).T @ rest
    typical = posterior.structure.typical_spread
    shares = np.array(_SHARES)
    at = np.concatenate([np.log(typical * shares / (1 - shares)), middle + np.sqrt(variance) * _NEAR])
    at = np.sort(at)
    at = at[np.r_[True, np.diff(at) > 1e-3]]
    # Far from where the posterior is, a straight line would lead anywhere.
    reach = 4 * np.sqrt(variance)
    centres = centre + np.clip(at - middle, -reach, reach)[:, None] * slope
    covers = np.repeat(cover[None], len(at), axis=0)
    found = _rule(posterior, form, at, centres, covers, _FIRST)
    for _ in range(2):
        centres, covers = _conditional(posterior, found, covers)
        found = _rule(posterior, form, at, centres, covers, _FIRST)
    centres, covers = _conditional(posterior, found, covers)
    return _rule(posterior, form, at, centres, covers, _RULE)


def _conditional(
    posterior: RatePosterior, nodes: _Nodes, covers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the free parameters' coordinates given σ, (G, F) and (G, F, F)."""
    rows = len(nodes.spread)
    log_joint = _log_joint(posterior, nodes).reshape(rows, -1)
    top = log_joint.max(axis=1, keepdims=True)
    weight = np.exp(log_joint - np.where(np.isfinite(top), top, 0.0))
    total = weight.sum(axis=1, keepdims=True)
    share = np.where(total > 0, weight / np.where(total > 0, total, 1.0), 1 / weight.shape[1])
    values = nodes.v.reshape(rows, weight.shape[1], -1)
    mean = np.einsum("gk,gkf->gf", share, values)
    away = values - mean[:, None]
    cover = np.einsum("gk,gkf,gkh->gfh", share, away, away)
    # Three points hold a variance between none and three times their own.
    floor, ceiling = 0.4 * np.einsum("gff->gf", covers), 2.5 * np.einsum("gff->gf", covers)
    variance = np.einsum("gff->gf", cover)
    factor = np.sqrt(np.clip(variance, floor, ceiling) / np.maximum(variance, 1e-300))
    factor = np.minimum(factor, 1e6)
    cover = cover * factor[:, :, None] * factor[:, None, :]
    diagonal = np.einsum("gff->gf", cover)
    bound = 0.95 * np.sqrt(diagonal[:, :, None] * diagonal[:, None, :])
    off = ~np.eye(values.shape[-1], dtype=bool)
    cover[:, off] = np.clip(cover, -bound, bound)[:, off]
    return mean, cover


def _rule(
    posterior: RatePosterior,
    form: _Form,
    log_spread: np.ndarray,
    centres: np.ndarray,
    covers: np.ndarray,
    points: int,
) -> _Nodes:
    z, w = np.polynomial.hermite_e.hermegauss(points)
    size = len(form.free)
    grid = np.stack(np.meshgrid(*[z] * size, indexing="ij"), axis=-1).reshape(-1, size)
    mass = np.prod(np.stack(np.meshgrid(*[w] * size, indexing="ij"), axis=-1).reshape(-1, size), axis=1)
    covers = covers + 1e-10 * np.eye(size)
    roots = np.linalg.cholesky(covers)
    v = (centres[:, None] + np.einsum("gfh,kh->gkf", roots, grid)).reshape(-1, size)
    scales = [posterior.lattice.scales[place] for place in form.free]
    spread = np.exp(np.repeat(log_spread, len(grid)))
    x = form.complete(np.column_stack([scale.x(v[:, f]) for f, scale in enumerate(scales)]), spread)
    # The last parameter hangs on log σ by its own logarithm, twice.
    tied = next(place for place in range(x.shape[1]) if place not in form.free)
    jacobian = np.log(x[:, tied]) + sum(scale.log_jacobian(v[:, f]) for f, scale in enumerate(scales))
    volume = np.log(np.einsum("gff->gf", roots)).sum(axis=1)
    log_weight = (np.log(mass) + 0.5 * (grid**2).sum(axis=1))[None] + volume[:, None]
    if isinstance(posterior, BetaBinomialPosterior):
        likelihood = posterior.table.log_likelihood(x)
    else:
        likelihood = posterior.table.log_likelihood(x, _OVER_RATES if points == _RULE else _COARSE)
    return _Nodes(posterior.lattice, np.exp(log_spread), v, x, likelihood, log_weight.ravel() + jacobian)


def spread_densities(
    posterior: RatePosterior, found: Along, u: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """Prior and posterior densities of σ per unit of the share u = σ/(σ + c), ndarrays (N,).

    Parameters
    ----------
    posterior : GammaCountsPosterior or BetaBinomialPosterior
        Exact.
    found : Along
        Of the same posterior.
    u : ndarray (N,)
        Midpoints of even cells between 0 and 1.
    """
    c = posterior.structure.typical_spread
    spread, slope = c * u / (1 - u), 1 / (u * (1 - u))
    logs = np.log(found.spread)
    known = np.isfinite(found.log_density)
    curve = PchipInterpolator(logs[known], found.log_density[known], extrapolate=False)
    fine = np.linspace(logs[known][0], logs[known][-1], 4001)
    heights = np.exp(curve(fine) - np.nanmax(found.log_density[known]))
    total = float(np.sum(heights) * (fine[1] - fine[0]))
    at = np.clip(np.log(spread), logs[known][0], logs[known][-1])
    post = np.exp(curve(at) - np.nanmax(found.log_density[known])) / total * slope
    return prior_on_spread(posterior, spread, slope), post


def prior_on_spread(posterior: RatePosterior, spread: np.ndarray, slope: np.ndarray) -> np.ndarray | None:
    """Density that the priors imply for σ, per unit of u where d log σ/du = `slope`, ndarray (N,)."""
    name = posterior.hyper_names[1]
    prior = posterior.spec.priors[name]
    if not prior.proper:
        return None
    value = spread**-2
    return np.asarray(np.exp(prior.log_density(value)) * 2 * value * slope)


def spread_moments(found: Along) -> tuple[float, float]:
    """Posterior mean and sd of σ."""
    logs, known = np.log(found.spread), np.isfinite(found.log_density)
    curve = PchipInterpolator(logs[known], found.log_density[known], extrapolate=False)
    fine = np.linspace(logs[known][0], logs[known][-1], 4001)
    weight = np.exp(curve(fine) - np.nanmax(found.log_density[known]))
    weight /= weight.sum()
    value = np.exp(fine)
    mean = float(weight @ value)
    return mean, float(np.sqrt(weight @ (value - mean) ** 2))
