"""What the explorer shows of models without an exact engine: a fit's draws, re-weighted to the priors."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.reweighted import ReweightedPosterior
from hbm_core.ui.explorer_value import DENSITY_GRID, ENDS, finite_list, finite_or_none, prior_value

#: Why there is no spread to drag.
NO_DIAL = "This model has several spreads and no closed form between them: there is no single one to drag."

_TOLD: WeakKeyDictionary[ReweightedPosterior, dict[bytes, dict[str, Any]]] = WeakKeyDictionary()


def posterior_value(posterior: ReweightedPosterior, shown: np.ndarray) -> dict[str, Any]:
    """The posterior of the listed units and the densities of what takes a prior.

    The mapping is shared between calls: read-only.
    """
    told = _TOLD.setdefault(posterior, {})
    if (key := shown.tobytes()) not in told:
        if len(told) >= 8:
            told.clear()
        told[key] = _posterior_value(posterior, shown)
    return told[key]


def _posterior_value(posterior: ReweightedPosterior, shown: np.ndarray) -> dict[str, Any]:
    spec, rows = posterior.spec, posterior.theta.start + shown
    structure: Any = spec.structure
    lo95, lo50, hi50, hi95 = posterior.some_quantiles((0.025, 0.25, 0.75, 0.975), rows).T
    densities = {}
    for name in (name for name in spec.priors if name in posterior.names):
        low, high = posterior.some_quantiles(ENDS, np.array([posterior.index(name)]))[0]
        x = np.linspace(low, high, DENSITY_GRID)
        densities[name] = [{"label": "", "x": x.tolist(), "y": finite_list(posterior.density(name, x))}]
    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        "mean": finite_list(posterior.mean[rows]),
        "sd": finite_list(posterior.sd[rows]),
        "lo95": finite_list(lo95),
        "lo50": finite_list(lo50),
        "hi50": finite_list(hi50),
        "hi95": finite_list(hi95),
        "pooling": None,
        "own": None,
        "others": None,
        "prior": None,
        "mu": None,
        "group_means": _group_means(posterior, structure),
        "tau": None,
        "tau_density": None,
        "curves": None,
        "densities": densities,
        "error": finite_or_none(posterior.error_absolute),
    }


def _group_means(posterior: ReweightedPosterior, structure: Any) -> list[float | None] | None:
    """Means that the units of each group are pulled to, where the groups are few."""
    groups = getattr(structure, "groups", ())
    names = [f"{structure.group_mean}[{label}]" for label in groups] if groups else []
    if not 0 < len(names) <= 12 or not set(names) <= set(posterior.names):
        return None
    return finite_list(posterior.mean[[posterior.index(name) for name in names]])
