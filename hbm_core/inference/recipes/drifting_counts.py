"""Sampling counts whose rates drift."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from hbm_core.errors import InputError
from hbm_core.inference.exact.base import PROBABILITIES
from hbm_core.inference.recipes.base import Arrays
from hbm_core.inference.recipes.count_windows import CountWindowsRecipe, WindowLaw, window_law
from hbm_core.models import pymc_drifting_counts
from hbm_core.models.pymc_drifting_counts import Spec

#: Points of what one window adds to the drift, in its sds.
_STEPS = np.linspace(-4.5, 4.5, 41)


class DriftingCountsRecipe(CountWindowsRecipe):
    """Parameters, ``sigma_innovation``, ``before``, ``latest`` and ``theta`` (unit).

    ``latest`` is the rate of an entity's latest window, θ exp(d), and ``before`` that of the one before it, θ
    where there is none. Of the rates of all windows a result keeps mean, sd and quantiles, in the group
    ``trajectory``: their draws would be many times the rest.
    """

    model = pymc_drifting_counts

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of the rates."""
        return {"before": ("unit",), "latest": ("unit",), "theta": ("unit",)}

    forward = True

    def centres(self, spec: Spec) -> tuple[Arrays, Arrays]:
        """As of all counts, with a middling drift."""
        centre, width = super().centres(spec)
        return {**centre, "rho": np.asarray(0.4), "sigma_drift": np.asarray(0.4)}, width

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Log rates of windows start between their entity's and their own."""
        if name != "level":
            return super().inner_start(spec, name, plain, jitter)
        structure = spec.structure
        order = structure.order
        mu = float(plain["mu"])
        alike = (mu + structure.total) / (1 + structure.total_exposure)
        own = (alike[structure.entity] + structure.count) / (1 + structure.exposure)
        return np.log(own[order]) + 0.3 * jitter

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Parameters, the sd that one window adds, rates of the latest windows and those before, θ."""
        structure = spec.structure
        found: Arrays = {name: draws[name] for name in structure.parameters}
        found["sigma_innovation"] = found["sigma_drift"] * np.sqrt(1 - found["rho"] ** 2)
        last = np.cumsum(structure.windows.astype(int)) - 1
        drift = draws["drift"][..., np.maximum(last - 1, 0)] * (structure.windows > 1)
        found["before"] = draws["theta"] * np.exp(drift)
        found["latest"] = draws["theta"] * np.exp(draws["drift"][..., last])
        found["theta"] = draws["theta"]
        return found

    def groups(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> Mapping[str, xr.Dataset]:
        """Group ``trajectory``: mean, sd and quantiles of the rate of each window, in the data's order."""
        structure = spec.structure
        windows = structure.count.size
        mean, sd, quantiles = np.empty(windows), np.empty(windows), np.empty((len(PROBABILITIES), windows))
        for sorted_at, place in enumerate(structure.order):
            theta = draws["theta"][..., structure.entity[place]]
            rate = (theta * np.exp(draws["drift"][..., sorted_at])).ravel()
            mean[place], sd[place] = rate.mean(), rate.std()
            quantiles[:, place] = np.quantile(rate, PROBABILITIES)
        coords = {"window": np.arange(windows), "probability": list(PROBABILITIES)}
        variables = {
            "mean": ("window", mean),
            "sd": ("window", sd),
            "quantile": (("probability", "window"), quantiles),
        }
        return {"trajectory": xr.Dataset(variables, coords)}

    def latest_window(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> WindowLaw:
        """Law of each entity's latest window, as its earlier ones tell it: its own step is integrated out."""
        if "before" not in draws:
            raise InputError(
                "latest windows of a fit", "rates of the windows before", "a fit without", "Fit anew."
            )
        return _stepped(spec, draws, draws["before"], spec.structure.windows == 1)

    def next_window(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> WindowLaw:
        """Law of the window after the latest."""
        return _stepped(spec, draws, draws["latest"], np.zeros(len(spec.structure.units), dtype=bool))

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """None: an entity's path has as many dimensions as windows, and no closed integral."""
        return None


def _stepped(spec: Spec, draws: Mapping[str, np.ndarray], rate: np.ndarray, fresh: np.ndarray) -> WindowLaw:
    """Law of a window one step after rates (n, J), or of a first one where `fresh` (J,)."""
    structure = spec.structure
    log_theta, rho = np.log(draws["theta"]), np.where(fresh, 0.0, draws["rho"][:, None])
    middle = log_theta + rho * (np.log(rate) - log_theta)
    step = draws["sigma_drift"][:, None] * np.sqrt(1 - rho**2)
    mean = np.exp(middle[..., None] + step[..., None] * _STEPS)
    chance = np.exp(-0.5 * _STEPS**2)
    exposure = structure.exposure[structure.latest][:, None]
    return window_law(draws, mean * exposure, chance / chance.sum())
