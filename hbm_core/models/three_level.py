"""The three-level normal structure: units in groups, groups in a population."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hbm_core.models.grouped import GroupedUnits

#: Geometries of the two levels; "noncentered_group" centers the units in groups that are not centered.
THREE_LEVEL_PARAMETERIZATIONS = ("collapsed", "centered", "noncentered", "noncentered_group", "partial")


@dataclass(frozen=True, eq=False)
class ThreeLevelNormal(GroupedUnits):
    """Units with known standard errors around their group's mean, groups around a common mean.

    y_i ~ Normal(θ_i, s_i), θ_i ~ Normal(μ_{g(i)}, σ_unit), μ_g ~ Normal(μ, σ_group). The parameters carry
    the words of the two levels: with ``levels = ("creator", "genre")`` they are ``mu``, ``sigma_genre``,
    ``sigma_creator``, ``mu_genre[label]`` and ``theta[label]``.

    Parameters
    ----------
    effect : ndarray (N,)
        y, in the outcome's units.
    se : ndarray (N,)
        s, in the outcome's units, positive.
    group : ndarray (N,) of int
        g, an index into `groups`; every group has at least one unit.
    units : sequence of str
        Labels, unique.
    groups : tuple of str
        Labels, unique.
    levels : tuple of str
        One unit and one group in a word each.
    """

    #: σ_unit is the spread of the effects itself.
    scale: ClassVar[Literal["identity"]] = "identity"
    #: E[θ_i] is B_i m_i + (1 − B_i) y_i given the hyperparameters.
    leans: ClassVar[bool] = True

    def pulled_to(self, draws: Callable[[str], np.ndarray | None]) -> np.ndarray | None:
        """m_i for every draw, ndarray (n, N), from a parameter's draws by its name; None without them."""
        means = draws(self.group_mean)
        return None if means is None else means[:, self.group]

    @property
    def spread(self) -> str:
        """Name of the sd of the units around their group's mean."""
        return f"sigma_{self.levels[0]}"

    @property
    def group_spread(self) -> str:
        """Name of the sd of the groups' means."""
        return f"sigma_{self.levels[1]}"

    @property
    def group_mean(self) -> str:
        """Name of the vector of group means."""
        return f"mu_{self.levels[1]}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return ("mu", self.group_spread, self.spread)

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset({self.group_spread, self.spread})

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not a unit's effect, in order."""
        return (*self.parameters, *(f"{self.group_mean}[{label}]" for label in self.groups))

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what a unit's effect is pulled to and of the spread around it."""
        label = self.groups[self.group[self.place(unit)]]
        return f"{self.group_mean}[{label}]", self.spread

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return THREE_LEVEL_PARAMETERIZATIONS
