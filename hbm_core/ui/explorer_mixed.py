"""What the explorer shows of Gaussian mixed models: some rows, the groups' means over their slots."""

from __future__ import annotations

from typing import Any

import numpy as np

from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.ui.explorer_value import (
    DENSITY_GRID,
    ENDS,
    INTERVALS,
    density_entry,
    finite_list,
    finite_or_none,
    prior_value,
    spread_mass,
    told_once,
    units_entries,
)

#: Points of the curves over the spread; each costs a few dozen small solutions.
_CURVE = 41


@told_once
def posterior_value(posterior: GaussianMixedPosterior, shown: np.ndarray) -> dict[str, Any]:
    """The exact posterior of the listed rows, ready for JSON.

    The mapping is shared between calls: read-only.
    """
    spec, structure = posterior.spec, posterior.structure
    mean, sd = posterior.unit_moments(shown)
    quantiles, place = posterior.unit_quantiles(INTERVALS, shown), posterior.hyper_names.index
    at = place(structure.spread)
    weights, ends = posterior.unit_weights(shown), posterior.hyper_quantiles(ENDS)
    densities = {}
    for name in ("mu", *structure.spreads[:-1]):
        low, high = ends[place(name)]
        x = np.linspace(low, high, DENSITY_GRID)
        densities[name] = density_entry(x, posterior.density(name, x))
    few = len(structure.groups) <= 12
    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        **units_entries(mean, sd, quantiles, posterior.unit_pooling(shown), weights),
        "mu": None,
        "group_means": finite_list(_over_slots(posterior, posterior.group_moments()[0])) if few else None,
        "tau": {
            "mean": finite_or_none(posterior.hyper_mean[at]),
            "sd": finite_or_none(posterior.hyper_sd[at]),
        },
        "tau_density": spread_mass(posterior),
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
        "pooling": given.pooling.tolist(),
        "group_mean": _over_slots(posterior, given.group_mean).tolist() if few else None,
        # Without spread between its members a group has one value in a slot.
        "complete": given.theta_mean[0].tolist(),
    }
