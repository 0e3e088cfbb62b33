"""Sampling gamma counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hbm_core.inference.exact.gamma_counts_posterior import draw_entities
from hbm_core.inference.exact.gamma_counts_table import CountsTable, population
from hbm_core.inference.recipes.base import Arrays
from hbm_core.inference.recipes.count_windows import CountWindowsRecipe
from hbm_core.models import pymc_gamma_counts
from hbm_core.models.gamma_counts import GammaCounts, moment_start
from hbm_core.models.pymc_gamma_counts import Spec

#: Draws whose unit likelihoods are computed at a time.
_ROWS = 500


class GammaCountsRecipe(CountWindowsRecipe):
    """``mu``, ``alpha``, ``phi`` and ``theta`` (unit)."""

    model = pymc_gamma_counts

    def centres(self, spec: Spec) -> tuple[Arrays, Arrays]:
        """Moment estimates of μ and α; all are positive, so their starts vary on the log scale."""
        start = zip(spec.structure.parameters, moment_start(spec.structure), strict=True)
        return {name: np.asarray(value) for name, value in start}, {}

    def population(self, spec: Spec, plain: Arrays) -> tuple[float, float]:
        """Shape and rate of the population, whatever its prior."""
        state = population(spec.structure, _parameters(spec.structure, plain))
        return float(state.shape[0]), float(state.rate[0])

    def rates(self, spec: Spec, draws: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One θ of each entity, exactly, ndarray (n, J)."""
        structure = spec.structure
        return draw_entities(CountsTable.of(structure), _parameters(structure, draws), rng)

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(y_i | μ, α, φ) of all windows of an entity, its rate integrated out, per draw and entity."""
        structure = spec.structure
        table, x = CountsTable.of(structure), _parameters(structure, draws)
        blocks = range(0, len(x), _ROWS)
        return np.concatenate([table.unit_log_likelihood(x[at : at + _ROWS]) for at in blocks])


def _parameters(structure: GammaCounts, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([np.ravel(draws[name]) for name in structure.parameters], axis=1)
