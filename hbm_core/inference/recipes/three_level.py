"""Sampling the three-level normal structure: units and group means can be drawn from their conditionals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models import pymc_three_level
from hbm_core.models.pymc_three_level import Spec, data_shares, group_sums, moment_spreads
from hbm_core.models.three_level import ThreeLevelNormal

#: Numbers that conditional draws hold at a time.
_BLOCK = 4_000_000


class ThreeLevelRecipe(Recipe):
    """``mu``, the two spreads, the group means (group) and ``theta`` (unit)."""

    model = pymc_three_level

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of the group means and of θ."""
        return {spec.structure.group_mean: ("group",), "theta": ("unit",)}

    def centres(self, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Mean of the group means and moment estimates of the spreads."""
        structure = spec.structure
        unit, group = _spreads(structure)
        sums = group_sums(structure, unit)
        weight = 1 / (group**2 + 1 / sums.precision)
        centre = {
            "mu": float(weight @ sums.mean / weight.sum()),
            structure.group_spread: group,
            structure.spread: unit,
        }
        return centre, {"mu": 1 / np.sqrt(weight.sum())}

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Means and effects start half way between what they are drawn to and their data."""
        structure = spec.structure
        unit, group = _spreads(structure)
        mean = 0.5 * (plain["mu"] + group_sums(structure, unit).mean)
        if name == structure.group_mean:
            return mean + 0.5 * group * jitter
        if name == "theta":
            centre = mean[structure.group]
            return centre + 0.5 * (structure.effect - centre) + 0.5 * unit * jitter
        if name in ("group_tilde", "theta_tilde"):
            own, among = data_shares(structure)
            if name == "group_tilde":
                return among * plain["mu"] + plain[structure.group_spread] ** among * jitter
            return own * mean[structure.group] + plain[structure.spread] ** own * jitter
        return None

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Group means and θ completed; drawn from their exact conditionals where they were integrated out."""
        structure = spec.structure
        posterior = {name: draws[name] for name in structure.parameters}
        if spec.parameterization != "collapsed":
            return posterior | {name: draws[name] for name in (structure.group_mean, "theta")}
        shape = posterior["mu"].shape
        flat = {name: values.ravel() for name, values in posterior.items()}
        means, effects = draw_inner(structure, flat, np.random.default_rng([seed, 1]))
        posterior[structure.group_mean] = means.reshape(*shape, -1)
        posterior["theta"] = effects.reshape(*shape, -1)
        return posterior

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of the units and of the groups."""
        return {"unit": list(spec.structure.units), "group": list(spec.structure.groups)}

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log Normal(y_i; μ_g, √(s_i² + σ_unit²)) per draw and unit."""
        structure = spec.structure
        variance = structure.se**2 + draws[structure.spread][:, None] ** 2
        residual = structure.effect - draws[structure.group_mean][:, structure.group]
        return -0.5 * (residual**2 / variance + np.log(2 * np.pi * variance))

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Effects; standard errors and groups."""
        structure = spec.structure
        coords = {"unit": list(structure.units)}
        constant = {"se": ("unit", structure.se), "group_of": ("unit", structure.group)}
        return xr.Dataset({"y": ("unit", structure.effect)}, coords), xr.Dataset(constant, coords)


def draw_inner(
    structure: ThreeLevelNormal, draws: Mapping[str, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the group means and θ from their exact conditionals given μ and the two spreads.

    Parameters
    ----------
    structure : ThreeLevelNormal
        Data.
    draws : mapping of str to ndarray (n,)
        ``mu`` and the spreads.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray (n, G), ndarray (n, N)
        In the outcome's units.
    """
    count, total = draws["mu"].size, structure.effect.size
    means = np.empty((count, len(structure.groups)))
    effects = np.empty((count, total))
    order = np.argsort(structure.group, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(structure.group))[:-1]])
    centre = float(np.median(structure.effect))
    y, rows = structure.effect - centre, max(1, _BLOCK // total)
    for first in range(0, count, rows):
        at = slice(first, first + rows)
        mu = draws["mu"][at, None] - centre
        among, within = draws[structure.group_spread][at, None] ** 2, draws[structure.spread][at, None] ** 2
        weight = 1 / (structure.se**2 + within)
        precision = np.add.reduceat(weight[:, order], offsets, axis=1)
        mean = np.add.reduceat((weight * y)[:, order], offsets, axis=1) / precision
        # Between its data and μ: the share of the first is B's complement at this level.
        own = among / (among + 1 / precision)
        sd = np.sqrt(own / precision)
        means[at] = mu + own * (mean - mu) + sd * rng.standard_normal(mean.shape)
        inner = means[at][:, structure.group]
        share = within * weight
        noise = structure.se * np.sqrt(share) * rng.standard_normal(inner.shape)
        effects[at] = inner + share * (y - inner) + noise + centre
        means[at] += centre
    return means, effects


def _spreads(structure: ThreeLevelNormal) -> tuple[float, float]:
    """Moment estimates of σ_unit and σ_group, kept off 0."""
    unit, group = moment_spreads(structure)
    sums = group_sums(structure, unit)
    return (
        max(unit, 0.1 * structure.typical_se),
        max(group, 0.5 * float(np.median(1 / np.sqrt(sums.precision)))),
    )
