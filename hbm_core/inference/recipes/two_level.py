"""Sampling the two-level normal structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.marginal import draw_effects, effective_scale, unit_log_likelihood
from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models import pymc_model
from hbm_core.models.pymc_model import data_share, moment_tau, samples_effects
from hbm_core.models.structure import ModelSpec


class TwoLevelRecipe(Recipe):
    """``mu``, ``tau``, ``beta`` (column), ``nu``, ``tau_star``, ``theta`` (unit): what there is."""

    model = pymc_model

    def dims_of(self, spec: ModelSpec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of θ and β."""
        return {"theta": ("unit",), "beta": ("column",)}

    def centres(self, spec: ModelSpec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Precision-weighted mean and moment estimate of τ."""
        structure = spec.structure
        precision = 1 / structure.se**2
        tau = max(moment_tau(structure), 0.5 * structure.typical_se)
        mean = float(precision @ structure.effect / precision.sum())
        centre = {"mu": mean, "tau": tau, "beta": 0.0, "nu": 10.0, "theta": structure.effect}
        width = {"mu": 1 / np.sqrt(precision.sum()), "beta": tau, "theta": structure.se}
        return centre, width

    def inner_start(self, spec: ModelSpec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Effects start half way between the mean and their data."""
        structure = spec.structure
        if name == "theta":
            tau = max(moment_tau(structure), 0.5 * structure.typical_se)
            return plain["mu"] + 0.5 * (structure.effect - plain["mu"]) + 0.5 * tau * jitter
        if name == "theta_tilde":
            share = data_share(structure)
            return share * plain["mu"] + plain["tau"] ** share * jitter
        return None

    def complete(self, spec: ModelSpec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """θ and τ* completed."""
        structure = spec.structure
        posterior = {name: draws[name] for name in structure.parameters}
        if structure.pooling == "none":
            return posterior
        if structure.pooling == "partial" and structure.scale == "adaptive":
            posterior["tau_star"] = effective_scale(posterior["tau"], spec.constants)
        if samples_effects(spec):
            posterior["theta"] = draws["theta"]
        else:
            # A stream of its own: nutpie's chains use the seed itself.
            rng = np.random.default_rng([seed, 1])
            flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in posterior.items()}
            posterior["theta"] = draw_effects(spec, flat, rng).reshape(*posterior["mu"].shape, -1)
        return posterior

    def coords(self, spec: ModelSpec) -> Mapping[str, Iterable[Any]]:
        """Labels of the units and of the covariates."""
        return {"unit": list(spec.structure.units), "column": list(spec.structure.columns)}

    def log_likelihood(self, spec: ModelSpec, draws: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Log density of each unit's data, θ integrated out; None without pooling under a flat prior."""
        return unit_log_likelihood(spec, draws)

    def observed(self, spec: ModelSpec) -> tuple[xr.Dataset, xr.Dataset]:
        """Effects; standard errors and covariates."""
        structure = spec.structure
        coords: dict[str, Any] = {"unit": list(structure.units)}
        constant: dict[str, Any] = {"se": ("unit", structure.se)}
        observed = xr.Dataset({"y": ("unit", structure.effect)}, coords=coords)
        if structure.columns:
            constant["design"] = (("unit", "column"), structure.design)
            coords = coords | {"column": list(structure.columns)}
        return observed, xr.Dataset(constant, coords=coords)
