"""What the explorer shows of models without an exact engine: a fit's draws, re-weighted to the priors."""

from __future__ import annotations

from typing import Any

import numpy as np

from hbm_core.inference.reweighted import ReweightedPosterior
from hbm_core.ui.explorer_value import (
    DENSITY_GRID,
    ENDS,
    INTERVALS,
    density_entry,
    finite_list,
    finite_or_none,
    prior_value,
    told_once,
    units_entries,
)

#: Why there is no spread to drag.
NO_DIAL = "This model has several spreads and no closed form between them: there is no single one to drag."


@told_once
def posterior_value(posterior: ReweightedPosterior, shown: np.ndarray) -> dict[str, Any]:
    """The posterior of the listed units and the densities of what takes a prior.

    The mapping is shared between calls: read-only.
    """
    spec, rows = posterior.spec, posterior.theta.start + shown
    structure: Any = spec.structure
    densities = {}
    for name in (name for name in spec.priors if name in posterior.names):
        low, high = posterior.some_quantiles(ENDS, np.array([posterior.index(name)]))[0]
        x = np.linspace(low, high, DENSITY_GRID)
        densities[name] = density_entry(x, posterior.density(name, x))
    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        **units_entries(posterior.mean[rows], posterior.sd[rows], posterior.some_quantiles(INTERVALS, rows)),
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
