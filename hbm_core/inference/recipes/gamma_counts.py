"""Sampling gamma counts: rates are moved by the sampler, or drawn from their conditionals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.exact.gamma_counts_posterior import draw_entities
from hbm_core.inference.exact.gamma_counts_table import CountsTable
from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models import pymc_gamma_counts
from hbm_core.models.gamma_counts import GammaCounts, moment_start
from hbm_core.models.pymc_gamma_counts import Spec

#: Draws whose unit likelihoods are computed at a time.
_ROWS = 500


class GammaCountsRecipe(Recipe):
    """``mu``, ``alpha``, ``phi`` and ``theta`` (unit)."""

    model = pymc_gamma_counts

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of θ."""
        return {"theta": ("unit",)}

    def centres(self, spec: Spec) -> tuple[Arrays, Arrays]:
        """Moment estimates of μ and α; all are positive, so their starts vary on the log scale."""
        structure = spec.structure
        centre = dict(zip(structure.parameters, moment_start(structure), strict=True))
        return {name: np.asarray(value) for name, value in centre.items()}, {}

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Rates start between the population's mean and their raw rates."""
        structure = spec.structure
        mu, alpha = float(plain["mu"]), float(plain["alpha"])
        shape, rate = (alpha, alpha / mu) if structure.effects == "mean_scaled" else (mu * alpha, alpha)
        theta = (shape + structure.total) / (rate + structure.total_exposure)
        if name == "theta_log__":
            return np.log(theta) + 0.3 * jitter
        if name == "z_log__":
            return np.log(theta * rate) + 0.3 * jitter
        return None

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Rates completed; drawn from their exact conditionals where they were integrated out."""
        structure = spec.structure
        posterior = {name: draws[name] for name in structure.parameters}
        if spec.parameterization == "collapsed":
            rng = np.random.default_rng([seed, 1])
            x = _parameters(structure, posterior)
            theta = draw_entities(CountsTable.of(structure), x, rng)
            return posterior | {"theta": theta.reshape(*posterior["mu"].shape, -1)}
        return posterior | {"theta": draws["theta"]}

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of the entities."""
        return {"unit": list(spec.structure.units)}

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(y_i | μ, α, φ) of all windows of an entity, its rate integrated out, per draw and entity."""
        structure = spec.structure
        table, x = CountsTable.of(structure), _parameters(structure, draws)
        blocks = range(0, len(x), _ROWS)
        return np.concatenate([table.unit_log_likelihood(x[at : at + _ROWS]) for at in blocks])

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Counts by window; their entities and exposures."""
        structure = spec.structure
        coords = {"window": np.arange(structure.count.size)}
        constant = {"entity": ("window", structure.entity), "exposure": ("window", structure.exposure)}
        return xr.Dataset({"y": ("window", structure.count)}, coords), xr.Dataset(constant, coords)

    def extreme(self, spec: Spec) -> list[str]:
        """No count is so far from the others that its density is not finite."""
        return []


def _parameters(structure: GammaCounts, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([np.ravel(draws[name]) for name in structure.parameters], axis=1)
