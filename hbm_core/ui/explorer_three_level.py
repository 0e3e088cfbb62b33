"""What the explorer shows of a three-level model: some units, the groups' means, σ_unit on the panel."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.models.pymc_three_level import group_sums, moment_spreads
from hbm_core.models.three_level import ThreeLevelNormal
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

#: Units that are listed, and points of the curves over the spread.
LISTED, _CURVE = 16, 61

_LISTED: WeakKeyDictionary[ThreeLevelNormal, np.ndarray] = WeakKeyDictionary()


def listed(structure: ThreeLevelNormal, wanted: int | None = None, count: int = LISTED) -> np.ndarray:
    """Places of the units that are listed: those that pooling moves most, judged from the data alone.

    No prior decides the list, so that it stays while priors move.

    Parameters
    ----------
    structure : ThreeLevelNormal
        Data.
    wanted : int, optional
        Place of a unit that is listed in any case.
    count : int
        At most so many.
    """
    if structure not in _LISTED:
        unit, group = moment_spreads(structure)
        unit, group = max(unit, 1e-9 * structure.typical_se), max(group, 1e-9 * structure.typical_se)
        sums = group_sums(structure, unit)
        weight = 1 / (group**2 + 1 / sums.precision)
        overall = weight @ sums.mean / weight.sum()
        own = group**2 * weight
        mean = overall + own * (sums.mean - overall)
        moved = structure.se**2 / (structure.se**2 + unit**2) * (mean[structure.group] - structure.effect)
        most = min(LISTED, moved.size)
        places = np.argpartition(-np.abs(moved), most - 1)[:most]
        _LISTED[structure] = places[np.argsort(-np.abs(moved[places]), kind="stable")]
    found = _LISTED[structure][:count]
    if wanted is not None and wanted not in found:
        found = np.append(found[: count - 1], wanted)
    return found


def units_value(
    structure: ThreeLevelNormal, shown: np.ndarray, truth: np.ndarray | None, raw: int, estimate: int
) -> dict[str, Any]:
    """The listed units, ready for JSON."""
    return {
        "label": [structure.units[place] for place in shown],
        "effect": structure.effect[shown].tolist(),
        "se": structure.se[shown].tolist(),
        "group": structure.group[shown].tolist(),
        "groups": list(structure.groups),
        "typical": structure.typical_se,
        "truth": None if truth is None else finite_list(truth),
        "digits": raw,
        "estimateDigits": estimate,
    }


@told_once
def posterior_value(posterior: ThreeLevelPosterior, shown: np.ndarray) -> dict[str, Any]:
    """The exact posterior of the listed units, the groups' means and the densities of the hyperparameters.

    The mapping is shared between calls: read-only.
    """
    spec, structure = posterior.spec, posterior.structure
    mean, sd = posterior.unit_moments(shown)
    quantiles = posterior.unit_quantiles(INTERVALS, shown)
    place = posterior.hyper_names.index
    spread = {
        "mean": finite_or_none(posterior.hyper_mean[place(structure.spread)]),
        "sd": finite_or_none(posterior.hyper_sd[place(structure.spread)]),
    }
    weights = posterior.unit_weights(shown)
    ends = posterior.hyper_quantiles(ENDS)
    densities = {}
    for name in ("mu", structure.group_spread):
        low, high = ends[place(name)]
        x = np.linspace(low, high, DENSITY_GRID)
        densities[name] = density_entry(x, posterior.density(name, x))
    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        **units_entries(mean, sd, quantiles, posterior.unit_pooling(shown), weights),
        "mu": None,
        "group_means": finite_list(posterior.group_moments()[0]) if len(structure.groups) <= 12 else None,
        "tau": spread,
        "tau_density": spread_mass(posterior),
        "curves": _curves(posterior, shown),
        "densities": densities,
        "error": finite_or_none(posterior.error_absolute),
    }


def _curves(posterior: ThreeLevelPosterior, shown: np.ndarray) -> dict[str, Any]:
    u = np.linspace(0, 1, _CURVE)
    with np.errstate(divide="ignore"):
        given = posterior.given_spread(posterior.structure.typical_se * u / (1 - u), shown)
    few = given.group_mean.shape[1] <= 12
    return {
        "u": u.tolist(),
        "theta_mean": given.theta_mean.tolist(),
        "theta_sd": given.theta_sd.tolist(),
        "mu_mean": None,
        "group_mean": given.group_mean.tolist() if few else None,
        # Without spread between its units a group has one value: complete pooling, group by group.
        "complete": given.theta_mean[0].tolist(),
    }
