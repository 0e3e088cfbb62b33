"""Sampling counts with covariates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import gammaln

from hbm_core.inference.gamma_marginal import Counts, Integrand, Population, draw_rates
from hbm_core.inference.recipes.count_windows import (
    CountWindowsRecipe,
    WindowLaw,
    blocks,
    own_terms,
    padded,
    window_law,
)
from hbm_core.models import pymc_covariate_counts
from hbm_core.models.pymc_covariate_counts import NODES, Spec


class CovariateCountsRecipe(CountWindowsRecipe):
    """``mu``, ``alpha``, ``beta`` (column), ``phi`` and ``theta`` (unit)."""

    model = pymc_covariate_counts

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of θ and β."""
        return {"theta": ("unit",), "beta": ("column",)}

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of the entities and of the covariates."""
        return {"unit": list(spec.structure.units), "column": list(spec.structure.columns)}

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(y_i | μ, α, β, φ) of all windows of an entity, its rate integrated out, ndarray (n, J)."""
        structure = spec.structure
        tilt = np.zeros((len(structure.columns), len(structure.units)))
        for row, values in zip(tilt, structure.design.T, strict=True):
            row += np.bincount(structure.entity, structure.count * values, row.size)
        every = np.ones(structure.count.size, dtype=bool)
        out = np.empty((draws["mu"].size, len(structure.units)))
        for at, population, counts in self._pairs(spec, draws):
            integrand = Integrand.of(population, counts)
            mass = np.log(sum(weight for *_, weight in integrand.nodes(NODES))) + integrand.peak
            alpha, phi = draws["alpha"][at, None], draws["phi"][at]
            shape = draws["mu"][at, None] * alpha
            given = shape * np.log(alpha) - gammaln(shape) + draws["beta"][at] @ tilt
            out[at] = mass.reshape(given.shape) + given + own_terms(structure, phi, every)
        return out

    def rates(self, spec: Spec, draws: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One θ of each entity, exactly, ndarray (n, J)."""
        parts = [draw_rates(population, counts, rng) for _, population, counts in self._pairs(spec, draws)]
        return np.concatenate(parts).reshape(-1, len(spec.structure.units))

    def _pairs(
        self, spec: Spec, draws: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[slice, Population, Counts]]:
        """Blocks of draws, and of each all pairs of a draw and an entity, draws first."""
        structure = spec.structure
        units, alike = len(structure.units), structure.alike
        place, present = padded(alike.entity, units)
        windows, totals = (np.where(present, column[place], 0.0) for column in (alike.windows, alike.total))
        for at in blocks(draws["mu"].size, units):
            mu, alpha, phi = (np.repeat(draws[name][at], units) for name in ("mu", "alpha", "phi"))
            moved = alike.exposure * np.exp(draws["beta"][at] @ alike.design.T)
            exposure = np.stack([moved[:, row].ravel() for row in place])
            known = (np.tile(column, mu.size // units) for column in (windows, totals))
            yield at, Population(mu * alpha, alpha, phi), Counts(exposure, *known)

    def latest_window(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> WindowLaw:
        """Law of a window with the covariates of each entity's latest."""
        structure = spec.structure
        moved = np.exp(draws["beta"] @ structure.design[structure.latest].T)
        return window_law(draws, (draws["theta"] * moved * structure.exposure[structure.latest])[..., None])

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Counts by window; their entities, exposures and covariates."""
        observed, constant = super().observed(spec)
        design = (("window", "column"), spec.structure.design)
        return observed, constant.assign(design=design).assign_coords(column=list(spec.structure.columns))
