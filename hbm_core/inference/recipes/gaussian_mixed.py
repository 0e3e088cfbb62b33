"""Sampling Gaussian mixed structures: rows' effects can be drawn from their conditionals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.exact.gaussian_mixed_posterior import draw_rows
from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models import pymc_gaussian_mixed
from hbm_core.models.gaussian_mixed import member_moments, moment_starts
from hbm_core.models.pymc_gaussian_mixed import Spec

#: Numbers that unit likelihoods hold at a time.
_BLOCK = 2_000_000


class GaussianMixedRecipe(Recipe):
    """``mu``, the spreads, the means of cells (cell), contrasts (compared) and ``theta`` (unit)."""

    model = pymc_gaussian_mixed

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of the means of cells, the contrasts and θ."""
        structure = spec.structure
        return {structure.group_mean: ("cell",), structure.contrast: ("compared",), "theta": ("unit",)}

    def centres(self, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Mean of all rows and moment estimates of the spreads."""
        structure = spec.structure
        centre = moment_starts(structure)
        return centre, {"mu": centre[structure.group_spread]}

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Means of cells start half way between the mean and their data, what adds to them near 0."""
        structure = spec.structure
        if name == structure.group_mean:
            count, precision = len(structure.cells), structure.se**-2.0
            total = np.bincount(structure.cell, precision, count)
            sums = np.bincount(structure.cell, precision * structure.effect, count)
            raw = np.where(total > 0, sums / np.where(total > 0, total, 1.0), plain["mu"])
            return 0.5 * (raw + plain["mu"]) + 0.3 * plain[structure.own_spread] * jitter
        if name == "level":
            return 0.3 * plain[structure.group_spread] * jitter
        if name == "shared":
            return 0.3 * plain[str(structure.slot_spread)] * jitter
        if name == "deviation":
            return 0.5 * plain[structure.spread] * jitter
        return None

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Contrasts and θ completed; θ drawn from its exact conditional where it was integrated out."""
        structure = spec.structure
        posterior = {name: draws[name] for name in structure.parameters}
        means = draws[structure.group_mean]
        posterior[structure.group_mean] = means
        posterior[structure.contrast] = structure.contrast_of(means, posterior["mu"])
        if spec.parameterization == "collapsed":
            flat = means.reshape(-1, means.shape[-1])
            spread = posterior[structure.spread].ravel()
            theta = draw_rows(structure, flat, spread, np.random.default_rng([seed, 1]))
            return posterior | {"theta": theta.reshape(*means.shape[:-1], -1)}
        return posterior | {"theta": draws["theta"]}

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of rows, cells and contrasts."""
        structure = spec.structure
        return {
            "unit": list(structure.units),
            "cell": list(structure.cells),
            "compared": list(structure.contrasts),
        }

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(y_r | the member's other rows, means of cells, σ_member) per draw and row.

        Rows of one member hang together through its deviation, which is integrated out: what leave-one-out
        asks of a row is its density given the others (Bürkner, Gabry and Vehtari, 2021, Computational
        Statistics 36, section 2.2).
        """
        structure = spec.structure
        means, spread = draws[structure.group_mean], draws[structure.spread]
        step = max(1, _BLOCK // structure.effect.size)
        blocks = range(0, len(means), step)
        return np.concatenate([_rows(structure, means[a : a + step], spread[a : a + step]) for a in blocks])

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Effects; standard errors, members and cells."""
        structure = spec.structure
        coords = {"unit": list(structure.units)}
        constant = {
            "se": ("unit", structure.se),
            "member": ("unit", structure.member),
            "cell_of": ("unit", structure.cell),
        }
        observed = xr.Dataset({"y": ("unit", structure.effect)}, coords=coords)
        return observed, xr.Dataset(constant, coords=coords)


def _rows(structure: Any, means: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Log densities (n, N) of rows given the other rows of their members."""
    mean, variance = member_moments(structure, means, spread)
    square = structure.se**2
    mean, variance = mean[:, structure.member], variance[:, structure.member]
    # Without its own row a member's variance grows to v s²/(s² − v).
    rest = square - variance
    gap = structure.effect - means[:, structure.cell] - mean
    return -0.5 * (np.log(2 * np.pi * square**2 / rest) + np.square(gap) / rest)
