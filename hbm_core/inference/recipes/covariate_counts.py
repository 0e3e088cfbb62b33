"""Sampling counts with covariates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import gammaln

from hbm_core.inference.gamma_marginal import Integrand
from hbm_core.inference.recipes.count_windows import CountWindowsRecipe, blocks, own_terms, padded
from hbm_core.models import pymc_covariate_counts
from hbm_core.models.pymc_covariate_counts import Spec

#: Nodes over each rate.
_NODES = 15


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
        units, alike = len(structure.units), structure.alike
        place, present = padded(alike.entity, units)
        windows, totals = (np.where(present, column[place], 0.0) for column in (alike.windows, alike.total))
        tilt = np.zeros((len(structure.columns), units))
        for row, values in zip(tilt, structure.design.T, strict=True):
            row += np.bincount(structure.entity, structure.count * values, units)
        out = np.empty((draws["mu"].size, units))
        for at in blocks(len(out), units):
            mu, alpha, phi = (draws[name][at, None] for name in ("mu", "alpha", "phi"))
            beta, shape = draws["beta"][at], mu * alpha
            moved = alike.exposure * np.exp(beta @ alike.design.T)
            power, rate = shape + structure.total, np.broadcast_to(alpha, (mu.size, units))
            scales = [moved[:, row] / phi for row in place]
            weights = [t + n * phi for t, n in zip(totals, windows, strict=True)]
            integrand = Integrand(power, rate, scales, weights)
            mass = np.log(sum(weight for *_, weight in integrand.nodes(_NODES))) + integrand.peak
            given = shape * np.log(alpha) - gammaln(shape) + beta @ tilt
            every = np.ones(structure.count.size, dtype=bool)
            out[at] = mass + given + own_terms(structure, phi[:, 0], every)
        return out

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Counts by window; their entities, exposures and covariates."""
        observed, constant = super().observed(spec)
        design = (("window", "column"), spec.structure.design)
        return observed, constant.assign(design=design).assign_coords(column=list(spec.structure.columns))
