"""The gamma structure of counts: entities whose event rates are drawn from one gamma population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hbm_core.models.count_windows import RATE_PARAMETERIZATIONS, CountWindows, Totals, rate_start

__all__ = ["CountWindows", "GammaCounts", "Totals", "moment_start"]

#: Geometries of Poisson counts, whose rates are integrated out in closed form.
POISSON_PARAMETERIZATIONS = ("collapsed", "centered", "scaled")


@dataclass(frozen=True, eq=False)
class GammaCounts(CountWindows):
    """Counts of entities in windows, with rates from a gamma population.

    y_ij ~ NegBinomial(mean θ_i e_ij, dispersion φ) with Var(y) = θe + (θe)²/φ, or Poisson(θ_i e_ij);
    θ_i ~ Gamma(shape μα, rate α), so that E[θ] = μ and Var(θ) = μ/α.

    Parameters
    ----------
    count : ndarray (N,)
        y, whole numbers from 0; one entity's windows in their order, the latest last.
    entity : ndarray (N,) of int
        i, an index into `units`; every entity has at least one window.
    units : sequence of str
        Labels of the entities, unique.
    exposure : ndarray (N,), optional
        e, positive; 1 everywhere without.
    likelihood : {"negative_binomial", "poisson"}
        "poisson" is the limit φ → ∞ and has no φ.
    effects : {"rate", "mean_scaled"}
        "mean_scaled" is another prior: z_i ~ Gamma(α, α), θ_i = μ z_i, so that Var(θ) = μ²/α.
    """

    likelihood: Literal["negative_binomial", "poisson"] = "negative_binomial"
    effects: Literal["rate", "mean_scaled"] = "rate"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return ("mu", "alpha") if self.likelihood == "poisson" else ("mu", "alpha", "phi")

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit."""
        return ("alpha", "phi")

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive: all."""
        return frozenset(self.parameters)

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
        return POISSON_PARAMETERIZATIONS if self.likelihood == "poisson" else RATE_PARAMETERIZATIONS


def moment_start(structure: GammaCounts) -> np.ndarray:
    """Moment estimates of μ and α, and a middling φ: where samplers and searches start."""
    start = rate_start(structure, structure.effects == "mean_scaled")
    return np.array([*start, 2.0] if structure.likelihood != "poisson" else start)
