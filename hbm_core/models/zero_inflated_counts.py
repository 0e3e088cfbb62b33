"""Counts of entities whose windows are shut at random: more zeros than their rates explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hbm_core.models.count_windows import RATE_PARAMETERIZATIONS, CountWindows, Totals, added_up


@dataclass(frozen=True, eq=False)
class ZeroInflatedCounts(CountWindows):
    """Counts with windows that are shut at random.

    y_ij = 0 with probability ψ, otherwise y_ij ~ NegBinomial(mean θ_i e_ij, dispersion φ);
    θ_i ~ Gamma(shape μα, rate α): rates of the windows that are open.

    A positive count was open, so that positive windows of equal exposure of one entity add up as ever; so do
    zeros, each worth log(ψ + (1 − ψ)(1 + θe/φ)^−φ).

    Parameters
    ----------
    count, entity, units, exposure
        As in `CountWindows`.
    """

    @cached_property
    def open_totals(self) -> Totals:
        """Windows with a positive count of equal exposure of one entity, added up."""
        at = self.count > 0
        return added_up(self.entity[at], self.exposure[at], self.count[at])

    @cached_property
    def zeros(self) -> Totals:
        """Windows without an event of equal exposure of one entity, counted."""
        at = self.count == 0
        return added_up(self.entity[at], self.exposure[at], self.count[at])

    @property
    def zero_share(self) -> np.ndarray:
        """Share of the windows of each entity without an event, ndarray (J,)."""
        return np.bincount(self.entity, self.count == 0, len(self.units)) / self.windows

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return ("mu", "alpha", "phi", "psi")

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit."""
        return ("alpha", "phi", "psi")

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive: all."""
        return frozenset(self.parameters)

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Ends of the parameters that have two."""
        return {"psi": (0.0, 1.0)}

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not an entity's rate, in order."""
        return self.parameters

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what an entity's rate is pulled to and of what rules the spread around it."""
        return ("mu", "alpha")

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return RATE_PARAMETERIZATIONS
