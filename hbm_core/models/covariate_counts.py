"""Counts of entities with moderators of their windows on a log scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.count_windows import RATE_PARAMETERIZATIONS, CountWindows


@dataclass(frozen=True, eq=False)
class Alike:
    """Windows of one entity with the same exposure and covariates, added up.

    Attributes
    ----------
    entity : ndarray (G,) of int
        Whose windows.
    exposure, windows, total : ndarray (G,)
        Exposure of each, how many, and the sum of their counts.
    design : ndarray (G, p)
        Covariates.
    """

    entity: np.ndarray
    exposure: np.ndarray
    design: np.ndarray
    windows: np.ndarray
    total: np.ndarray


@dataclass(frozen=True, eq=False)
class CovariateCounts(CountWindows):
    """Counts whose rates follow covariates on the log scale.

    y_ij ~ NegBinomial(mean θ_i exp(x_ij β) e_ij, dispersion φ); θ_i ~ Gamma(shape μα, rate α), the rate at
    covariates of 0: with standardised columns, at their means.

    Parameters
    ----------
    count, entity, units, exposure
        As in `CountWindows`.
    design : ndarray (N, p)
        x, standardised columns.
    columns : tuple of str
        Their names, at least one.
    """

    design: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.columns:
            raise InputError(
                "covariates",
                "at least one numeric column beside the counts",
                "none",
                "Choose columns, or a model without covariates.",
            )
        design = np.array(self.design, dtype=float).reshape(self.count.size, len(self.columns))
        if not np.isfinite(design).all():
            raise InputError("covariates", "finite numbers in every window", "others")
        design.setflags(write=False)
        object.__setattr__(self, "design", design)

    @cached_property
    def alike(self) -> Alike:
        """Sufficient statistics of rates and coefficients given φ."""
        rows = np.column_stack([self.entity, self.exposure, self.design])
        found, place = np.unique(rows, axis=0, return_inverse=True)
        place, size = place.ravel(), len(found)
        return Alike(
            found[:, 0].astype(np.int32),
            found[:, 1],
            found[:, 2:],
            np.bincount(place, minlength=size).astype(float),
            np.bincount(place, self.count, size),
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return ("mu", "alpha", "beta", "phi")

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit: coefficients are on a log scale."""
        return ("alpha", "beta", "phi")

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset({"mu", "alpha", "phi"})

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Ends of the parameters that have two: none has."""
        return {}

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not an entity's rate, in order."""
        return ("mu", "alpha", *(f"beta[{column}]" for column in self.columns), "phi")

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what an entity's rate is pulled to and of what rules the spread around it."""
        return ("mu", "alpha")

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return RATE_PARAMETERIZATIONS
