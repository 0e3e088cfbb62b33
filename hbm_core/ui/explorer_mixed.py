"""What the explorer shows of Gaussian mixed models: some rows, the groups' means over their slots."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.ui.explorer_value import DENSITY_GRID, ENDS, GRID, finite_list, finite_or_none, prior_value

#: Points of the curves over the spread; each costs a few dozen small solutions.
_CURVE = 41
_TOLD: WeakKeyDictionary[GaussianMixedPosterior, dict[bytes, dict[str, Any]]] = WeakKeyDictionary()


def posterior_value(posterior: GaussianMixedPosterior, shown: np.ndarray) -> dict[str, Any]:
    """The exact posterior of the listed rows, ready for JSON.

    The mapping is shared between calls: read-only.
    """
    told = _TOLD.setdefault(posterior, {})
    if (key := shown.tobytes()) not in told:
        if len(told) >= 8:
            told.clear()
        told[key] = _posterior_value(posterior, shown)
    return told[key]


def _posterior_value(posterior: GaussianMixedPosterior, shown: np.ndarray) -> dict[str, Any]:
    spec, structure = posterior.spec, posterior.structure
    lo95, lo50, hi50, hi95 = posterior.unit_quantiles((0.025, 0.25, 0.75, 0.975), shown).T
    mean, sd = posterior.unit_moments(shown)
    c, place = structure.typical_se, posterior.hyper_names.index
    at = place(structure.spread)
    u = (np.arange(GRID) + 0.5) / GRID
    values, slope = c * u / (1 - u), c / (1 - u) ** 2
    prior = spec.priors[structure.spread]
    edges = np.linspace(0, 1, GRID + 1)[:-1]
    mass = np.diff(posterior.cdf(structure.spread, c * edges / (1 - edges)), append=1.0)
    weights, ends = posterior.unit_weights(shown), posterior.hyper_quantiles(ENDS)
    densities = {}
    for name in ("mu", *structure.spreads[:-1]):
        low, high = ends[place(name)]
        x = np.linspace(low, high, DENSITY_GRID)
        densities[name] = [{"label": "", "x": x.tolist(), "y": finite_list(posterior.density(name, x))}]
    few = len(structure.groups) <= 12
    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        "mean": finite_list(mean),
        "sd": finite_list(sd),
        "lo95": finite_list(lo95),
        "lo50": finite_list(lo50),
        "hi50": finite_list(hi50),
        "hi95": finite_list(hi95),
        "pooling": finite_list(posterior.unit_pooling(shown)),
        "own": finite_list(weights.own),
        "others": finite_list(weights.others),
        "prior": finite_list(weights.prior),
        "mu": None,
        "group_means": finite_list(_over_slots(posterior, posterior.group_moments()[0])) if few else None,
        "tau": {
            "mean": finite_or_none(posterior.hyper_mean[at]),
            "sd": finite_or_none(posterior.hyper_sd[at]),
        },
        "tau_density": {
            "u": u.tolist(),
            "prior": finite_list(np.exp(prior.log_density(values)) * slope),
            "post": finite_list(GRID * mass),
        },
        "curves": _curves(posterior, shown, few),
        "densities": densities,
        "error": finite_or_none(posterior.error_absolute),
    }


def _over_slots(posterior: GaussianMixedPosterior, means: np.ndarray) -> np.ndarray:
    """Means of cells (…, cells) averaged over the slots, (…, groups)."""
    return means.reshape(*means.shape[:-1], len(posterior.structure.groups), -1).mean(axis=-1)


def _curves(posterior: GaussianMixedPosterior, shown: np.ndarray, few: bool) -> dict[str, Any]:
    u = np.linspace(0, 1, _CURVE)
    with np.errstate(divide="ignore"):
        given = posterior.given_spread(posterior.structure.typical_se * u / (1 - u), shown)
    return {
        "u": u.tolist(),
        "theta_mean": given.theta_mean.tolist(),
        "theta_sd": given.theta_sd.tolist(),
        "mu_mean": None,
        "group_mean": _over_slots(posterior, given.group_mean).tolist() if few else None,
        # Without spread between its members a group has one value in a slot.
        "complete": given.theta_mean[0].tolist(),
    }
