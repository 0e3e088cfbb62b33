"""Counts of entities whose rates drift from window to window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.count_windows import CountWindows

#: Windows of a typical entity from which drift and over-dispersion can be told apart.
LEAST_WINDOWS = 30


@dataclass(frozen=True, eq=False)
class DriftingCounts(CountWindows):
    """Counts whose log rates follow an AR(1) around each entity's own level.

    y_it ~ Poisson(e_it θ_i exp(d_it)), d_it = ρ d_i,t−1 + σ √(1 − ρ²) ε_it, d_i1 ~ Normal(0, σ), ε standard
    normal: σ (``sigma_drift``) is the sd of the log rate around its level, σ √(1 − ρ²)
    (``sigma_innovation``) what one window adds. θ_i ~ Gamma(shape μα, rate α).

    Windows follow each other in their order; a gap counts as one step.

    Parameters
    ----------
    count, entity, units, exposure
        As in `CountWindows`.
    likelihood : {"poisson", "negative_binomial"}
        "negative_binomial" adds a dispersion φ. Drift at ρ near 0 is over-dispersion too, so this takes
        entities with 30 windows and more.

    Raises
    ------
    InputError
        No entity has two windows; φ beside drift with fewer than 30 windows per entity (median).
    """

    likelihood: Literal["poisson", "negative_binomial"] = "poisson"

    def __post_init__(self) -> None:
        super().__post_init__()
        windows = self.windows
        if windows.max() < 2:
            raise InputError(
                "data of a model with drift",
                "entities with several windows in their order",
                "one window per entity",
                "Choose a model without drift.",
            )
        typical = float(np.median(windows))
        if self.likelihood == "negative_binomial" and typical < LEAST_WINDOWS:
            raise InputError(
                "data of a model with drift and over-dispersion",
                f"at least {LEAST_WINDOWS} windows per entity (median), to tell the two apart",
                f"{typical:g}",
                "Choose drift with Poisson counts, or over-dispersion without drift.",
            )

    @cached_property
    def order(self) -> np.ndarray:
        """Places of the windows, entity by entity and in their order, ndarray (N,) of int."""
        return np.argsort(self.entity, kind="stable")

    @cached_property
    def step(self) -> np.ndarray:
        """0, 1, 2 … along each entity's windows, ndarray (N,) of int, in the order of `order`."""
        windows = self.windows.astype(int)
        return np.arange(self.count.size) - np.repeat(np.cumsum(windows) - windows, windows)

    @property
    def doublings(self) -> int:
        """How often 1 must be doubled to reach the most windows of an entity."""
        return int(np.ceil(np.log2(self.windows.max())))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        names = ("mu", "alpha", "rho", "sigma_drift")
        return names if self.likelihood == "poisson" else (*names, "phi")

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit: a drift is on a log scale."""
        return ("alpha", "phi", "rho", "sigma_drift", "sigma_innovation")

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset(self.parameters) - {"rho"}

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Ends of the parameters that have two."""
        return {"rho": (-1.0, 1.0)}

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not an entity's rate, in order."""
        return (*self.parameters, "sigma_innovation")

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what an entity's rate is pulled to and of what rules the spread around it."""
        return ("mu", "alpha")

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return ("noncentered", "centered")
