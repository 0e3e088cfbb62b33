"""Sampling the three-level normal structure: units and group means can be drawn from their conditionals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.inference.sampler import CORES
from hbm_core.models import pymc_three_level
from hbm_core.models.pymc_three_level import (
    Spec,
    data_shares,
    group_sums,
    in_order,
    integrates_mean,
    moment_spreads,
)
from hbm_core.models.three_level import ThreeLevelNormal

#: Numbers that draws of units hold at a time, and parts that threads share out.
_BLOCK, _PARTS = 32_768, 8


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
        if spec.parameterization != "collapsed":
            return {name: draws[name] for name in (*structure.parameters, structure.group_mean, "theta")}
        shape = draws[structure.spread].shape
        flat = {name: draws[name].ravel() for name in structure.parameters if name in draws}
        found = draw_inner(spec, flat, np.random.default_rng([seed, 1]))
        return {name: values.reshape(*shape, *values.shape[1:]) for name, values in found.items()}

    def kept(self, spec: Spec) -> tuple[str, ...] | None:
        """The spreads, and μ unless it was integrated out with the rest."""
        found = super().kept(spec)
        if found is None or not integrates_mean(spec):
            return found
        return tuple(name for name in found if name != "mu")

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of the units and of the groups."""
        return {"unit": list(spec.structure.units), "group": list(spec.structure.groups)}

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log Normal(y_i; μ_g, √(s_i² + σ_unit²)) per draw and unit."""
        structure = spec.structure
        means, within = draws[structure.group_mean], draws[structure.spread] ** 2
        out = np.empty((within.size, structure.effect.size))
        for at in _blocks(out, slice(0, within.size)):
            variance = structure.se**2 + within[at, None]
            residual = np.take(means[at], structure.group, axis=1)
            np.subtract(structure.effect, residual, out=residual)
            np.multiply(residual, residual, out=residual)
            residual /= variance
            variance *= 2 * np.pi
            residual += np.log(variance, out=variance)
            np.multiply(residual, -0.5, out=out[at])
        return out

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Effects; standard errors and groups."""
        structure = spec.structure
        coords = {"unit": list(structure.units)}
        constant = {"se": ("unit", structure.se), "group_of": ("unit", structure.group)}
        return xr.Dataset({"y": ("unit", structure.effect)}, coords), xr.Dataset(constant, coords)


def draw_inner(spec: Spec, draws: Mapping[str, np.ndarray], rng: np.random.Generator) -> Arrays:
    """Draw the group means and θ, and μ where it is missing, from their exact conditionals given the spreads.

    Parameters
    ----------
    spec : ModelSpec of ThreeLevelNormal
        Data, and the prior on μ: a normal one where `draws` have no ``mu``.
    draws : mapping of str to ndarray (n,)
        The spreads, and ``mu`` if there is one.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict of str to ndarray (n,), (n, G) or (n, N)
        All of the model's parameters in order, in the outcome's units.
    """
    from hbm_core.inference.recipes.three_level_draws import draw_rows

    structure = spec.structure
    order, starts = in_order(structure)
    # About the middle of the data: under large shifts the digits of the sums would be lost.
    center = float(np.median(structure.effect))
    tables = (structure.effect[order] - center, structure.se[order] ** 2, starts, order)
    among, within = draws[structure.group_spread], draws[structure.spread]
    population = np.array([0.0, -1.0, center])
    if "mu" in draws:
        mu = draws["mu"] - center
    else:
        location, scale = spec.priors["mu"].numbers
        population[:2] = location - center, scale**-2
        mu = np.empty(within.size)
    means, effects = np.empty((within.size, starts.size - 1)), np.empty((within.size, order.size))

    def draw(rows: slice, rng: np.random.Generator) -> None:
        for block in _blocks(effects, rows):
            if "mu" not in draws:
                rng.standard_normal(out=mu[block])
            rng.standard_normal(out=means[block])
            rng.standard_normal(out=effects[block])
            draw_rows(
                population, mu[block], among[block], within[block], *tables, means[block], effects[block]
            )

    # A stream for each part: how many threads there are changes no number.
    edges = np.linspace(0, within.size, _PARTS + 1).astype(int).tolist()
    parts = [slice(first, last) for first, last in pairwise(edges)]
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(draw, parts, rng.spawn(_PARTS)))
    spreads = {name: draws[name] for name in (structure.group_spread, structure.spread)}
    return {"mu": mu + center, **spreads, structure.group_mean: means, "theta": effects}


def _blocks(rows: np.ndarray, part: slice) -> Iterator[slice]:
    """Slices of a part of the rows that stay in a processor's cache."""
    step = max(1, _BLOCK // max(rows.shape[1], 1))
    return (slice(first, min(first + step, part.stop)) for first in range(part.start, part.stop, step))


def _spreads(structure: ThreeLevelNormal) -> tuple[float, float]:
    """Moment estimates of σ_unit and σ_group, kept off 0."""
    unit, group = moment_spreads(structure)
    sums = group_sums(structure, unit)
    return (
        max(unit, 0.1 * structure.typical_se),
        max(group, 0.5 * float(np.median(1 / np.sqrt(sums.precision)))),
    )
