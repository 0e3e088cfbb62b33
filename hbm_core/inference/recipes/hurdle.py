"""Sampling the hurdle structure: four hierarchies, and the readouts that they come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models import pymc_hurdle
from hbm_core.models.hurdle import PARTS, HurdleRevenue
from hbm_core.models.pymc_hurdle import Spec, approximations, spreads
from hbm_core.models.pymc_three_level import data_shares, group_sums


class HurdleRecipe(Recipe):
    """Parameters, group means of the four parts, mean readouts of groups, and ``theta`` (unit)."""

    model = pymc_hurdle

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of the group means and of θ."""
        structure = spec.structure
        vectors = (*map(structure.group_vector, PARTS), structure.group_mean)
        return {**{name: ("group",) for name in vectors}, "theta": ("unit",)}

    def centres(self, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Rough estimates of each part, as if they were normal."""
        structure = spec.structure
        rough, spread = approximations(structure), spreads(structure)
        centre: dict[str, Any] = {}
        width: dict[str, Any] = {}
        for part in PARTS:
            mu, among, within = structure.names_of(part)
            unit, group = spread[part]
            sums = group_sums(rough[part], unit)
            weight = 1 / (group**2 + 1 / sums.precision)
            centre |= {mu: float(weight @ sums.mean / weight.sum()), among: group, within: unit}
            width[mu] = 1 / np.sqrt(weight.sum())
        # Of log-normal and Gamma amounts alike the variance of the logs tells how far payers differ.
        sd = structure.log_sd
        centre[structure.residual] = sd if structure.amounts == "lognormal" else 1 / sd**2 + 0.5
        return centre, width

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Means and units start half way between what they are drawn to and their data."""
        if name not in ("group_value", "unit_value", "group_tilde", "tilde"):
            return None
        return np.stack([self._start(spec, name, part, plain, jitter[k]) for k, part in enumerate(PARTS)])

    def _start(self, spec: Spec, name: str, part: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray:
        structure = spec.structure
        rough, (unit, group) = approximations(structure)[part], spreads(structure)[part]
        mu, among, within = (plain[key] for key in structure.names_of(part))
        mean = 0.5 * (mu + group_sums(rough, unit).mean)
        if name == "group_value":
            return mean + 0.5 * group * jitter
        centre = mean[structure.group]
        if name == "unit_value":
            share = unit**2 / (unit**2 + rough.se**2)
            return centre + share * (rough.effect - centre) + 0.5 * unit * jitter
        own, between = data_shares(rough)
        if name == "group_tilde":
            return between * mu + among**between * jitter
        return own * centre + within**own * jitter

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Mean readouts of groups added; the four parts of single units are not kept."""
        structure = spec.structure
        posterior = {name: draws[name] for name in structure.parameters}
        for place, part in enumerate(PARTS):
            posterior[structure.group_vector(part)] = draws["group_value"][:, :, place]
        theta = draws["theta"]
        member = np.zeros((structure.effect.size, len(structure.groups)))
        member[np.arange(structure.effect.size), structure.group] = 1.0
        posterior[structure.group_mean] = theta @ (member / member.sum(axis=0))
        return posterior | {"theta": theta}

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of the units and of the groups."""
        return {"unit": list(spec.structure.units), "group": list(spec.structure.groups)}

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log density of the outcomes of a unit's users around its group, its four effects integrated out."""
        from hbm_core.inference import hurdle_marginal

        structure: HurdleRevenue = spec.structure
        means = [draws[structure.group_vector(part)] for part in PARTS]
        sds = [draws[structure.names_of(part)[2]] for part in PARTS]
        group, payers, residual = structure.group, structure.payers, draws[structure.residual]
        log = hurdle_marginal.paying(group, means[:2], sds[:2], structure.users, payers)
        if structure.amounts == "gamma":
            return log + hurdle_marginal.gamma_amounts(
                group, means[2:], sds[2:], payers, structure.total, structure.log_sum, residual
            )
        return log + hurdle_marginal.lognormal_amounts(
            group, means[2:], sds[2:], payers, structure.log_mean, structure.log_deviation,
            structure.log_sum, residual,
        )  # fmt: skip

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Raw effects; standard errors, groups and the statistics of the arms."""
        structure: HurdleRevenue = spec.structure
        coords: dict[str, Any] = {"unit": list(structure.units), "arm": ["control", "treatment"]}
        constant: dict[str, Any] = {"se": ("unit", structure.se), "group_of": ("unit", structure.group)}
        for name in ("users", "payers", "total", "log_sum", "log_squares"):
            constant[name] = (("unit", "arm"), getattr(structure, name))
        effect = xr.Dataset({"y": ("unit", structure.effect)}, {"unit": coords["unit"]})
        return effect, xr.Dataset(constant, coords)
