"""The beta structure of successes: entities whose success rates are drawn from one beta population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.raw_rates import RawTrials

#: Geometries of a beta population of success rates; "noncentered" moves log odds in sds from μ.
BINOMIAL_PARAMETERIZATIONS = ("collapsed", "centered", "noncentered")


@dataclass(frozen=True, eq=False)
class BetaBinomial(RawTrials):
    """Successes of trials, with rates from a beta population.

    y_i ~ Binomial(n_i, θ_i); θ_i ~ Beta(μκ, (1 − μ)κ), so that E[θ] = μ and κ counts as trials of the
    population.

    Parameters
    ----------
    successes, trials : ndarray (J,)
        y and n, whole numbers with 0 ≤ y ≤ n and n ≥ 1.
    units : sequence of str
        Labels of the entities, unique.
    """

    #: Name of the field that holds what is measured.
    measured: ClassVar[str] = "successes"

    successes: np.ndarray
    trials: np.ndarray
    units: Sequence[str]

    def __post_init__(self) -> None:
        # Copies: they are frozen below, and the caller's arrays are not ours to freeze.
        successes, trials = np.array(self.successes, dtype=float), np.array(self.trials, dtype=float)
        if successes.ndim != 1 or successes.size == 0 or trials.shape != successes.shape:
            raise InputError(
                "successes and trials", "two equally long columns", (successes.shape, trials.shape)
            )
        if len(self.units) != successes.size:
            raise InputError("entity labels", f"{successes.size}, one per entity", len(self.units))
        for name, values, least in (("successes", successes, 0), ("trials", trials, 1)):
            bad = ~(np.isfinite(values) & (values >= least) & (values == np.floor(values)))
            if bad.any():
                raise InputError(name, f"whole numbers from {least}", values[bad][0])
        if (successes > trials).any():
            place = int(np.flatnonzero(successes > trials)[0])
            raise InputError(
                f"successes of {self.units[place]}",
                f"at most its {trials[place]:g} trials",
                f"{successes[place]:g}",
            )
        for name, values in (("successes", successes), ("trials", trials)):
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    @property
    def raw_rate(self) -> np.ndarray:
        """Y/n, ndarray (J,): the estimate without pooling."""
        return self.successes / self.trials

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return ("mu", "kappa")

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit."""
        return ("kappa",)

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset(self.parameters)

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Ends of the parameters that have two."""
        return {"mu": (0.0, 1.0)}

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not an entity's rate, in order."""
        return self.parameters

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what an entity's rate is pulled to and of what rules the spread around it."""
        return ("mu", "kappa")

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return BINOMIAL_PARAMETERIZATIONS
