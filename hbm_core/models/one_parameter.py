"""Units that are vectors, looked at along one of their parameters: as if that were all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.structure import ModelSpec

_POOLING: dict[str, Literal["none", "complete", "partial"]] = {"independent": "none", "shared": "complete"}


@dataclass(frozen=True, eq=False)
class OneParameter:
    """One parameter of every unit that uses it, with what each unit says of it by itself.

    Parameters
    ----------
    whole : CircuitPopulation
        The vectors.
    parameter : str
        One of its fitted parameters.
    effect, se : ndarray (J,)
        Estimates without the other units, and their standard errors; log10.
    units : tuple of str
        Units that use the parameter.
    """

    #: Name of the field that holds what is measured.
    measured: ClassVar[str] = "effect"

    whole: CircuitPopulation
    parameter: str
    effect: np.ndarray
    se: np.ndarray
    units: tuple[str, ...]

    @classmethod
    def of(cls, whole: CircuitPopulation, parameter: str, effect: np.ndarray, se: np.ndarray) -> OneParameter:
        """The column of `parameter` of estimates of all units, ndarray (C, P) each."""
        place = whole.fitted.index(parameter)
        used = whole.uses[:, place]
        units = tuple(unit for unit, uses in zip(whole.units, used, strict=True) if uses)
        return cls(whole, parameter, effect[used, place], se[used, place], units)

    @property
    def pooling(self) -> Literal["none", "complete", "partial"]:
        """What the model does with the units."""
        return _POOLING.get(self.whole.pooling, "partial")

    @property
    def components(self) -> int:
        """How many parameters the vectors have."""
        return len(self.whole.fitted)

    @property
    def mean(self) -> str:
        """Flat name of what units are pulled to, and of its prior."""
        return f"alpha[{self.parameter}]"

    @cached_property
    def typical_se(self) -> float:
        """Median standard error."""
        return float(np.median(self.se))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior: this mean, and all that belongs to no mean."""
        return tuple(name for name in self.whole.parameters if name == self.mean or "[" not in name)

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the parameter's unit."""
        return self.parameters

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return self.whole.positive

    @property
    def spread(self) -> str:
        """Name of the sd of the units around their mean; empty without."""
        return "sigma" if self.pooling == "partial" else ""

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of all that is not a unit's own, in this view."""
        return tuple(name for name in self.names if not name.startswith("theta["))

    @cached_property
    def names(self) -> dict[str, str]:
        """Flat names in this view to those of a fit."""
        whole, own = self.whole, self.parameter
        found = {} if self.pooling == "none" else {self.mean: self.mean}
        if self.pooling == "partial":
            found["sigma"] = f"sigma[{own}]"
        found |= {
            name: name for name in whole.parameters if "[" not in name and name not in ("sigma", "corr")
        }
        return found | {f"theta[{unit}]": f"theta[{unit},{own}]" for unit in self.units}

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Names of what a unit is pulled to and of the spread; None without one."""
        return (self.mean, "sigma") if self.pooling == "partial" else None

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries of the whole."""
        return self.whole.parameterizations


def one_parameter(
    spec: ModelSpec[CircuitPopulation], parameter: str, effect: np.ndarray, se: np.ndarray
) -> ModelSpec[Any]:
    """The model seen along one parameter; `effect` and `se` as of `OneParameter.of`."""
    seen: Any = OneParameter.of(spec.structure, parameter, effect, se)
    priors = {name: spec.priors[name] for name in seen.parameters}
    return ModelSpec(seen, priors, spec.constants, spec.parameterization)
