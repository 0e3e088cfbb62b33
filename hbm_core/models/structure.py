"""Model structures: what engines dispatch on, free of any scenario's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Generic, Literal

import numpy as np
from typing_extensions import TypeVar

from hbm_core.errors import InputError
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.count_windows import CountWindows
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.hurdle import HurdleRevenue
from hbm_core.models.prior import Prior
from hbm_core.models.three_level import ThreeLevelNormal

Parameterization = Literal["centered", "noncentered", "partial", "collapsed"]
PARAMETERIZATIONS: tuple[Parameterization, ...] = ("centered", "noncentered", "partial", "collapsed")


@dataclass(frozen=True, eq=False)
class TwoLevelNormal:
    """Units with known standard errors around a common mean.

    y_i ~ Normal(θ_i, s_i) and θ_i ~ Normal(μ + X_i β, τ), with these variations:

    Parameters
    ----------
    effect : ndarray (J,)
        y, in the outcome's units.
    se : ndarray (J,)
        s, in the outcome's units, positive.
    units : tuple of str
        Labels, unique.
    pooling : {"partial", "complete", "none"}
        "complete": θ_i = μ (no τ). "none": θ_i independent with their own prior ``theta`` (no μ, no τ).
    effects : {"normal", "student_t"}
        "student_t": θ_i ~ StudentT(ν, μ, τ).
    likelihood : {"normal", "student_t"}
        "student_t": y_i ~ StudentT(ν, θ_i, s_i).
    scale : {"identity", "adaptive"}
        "adaptive": the sd of the effects is τ* = w τ + (1 − w) σ_p τ/t with w = sigmoid(k (τ − t)); the
        constants are named ``threshold`` (t), ``spread`` (σ_p) and ``slope`` (k).
    design : ndarray (J, p)
        X, standardised columns; p = 0 without covariates.
    columns : tuple of str
        Names of the columns of X.
    """

    #: Name of the field that holds what is measured.
    measured: ClassVar[str] = "effect"

    effect: np.ndarray
    se: np.ndarray
    units: tuple[str, ...]
    pooling: Literal["partial", "complete", "none"] = "partial"
    effects: Literal["normal", "student_t"] = "normal"
    likelihood: Literal["normal", "student_t"] = "normal"
    scale: Literal["identity", "adaptive"] = "identity"
    design: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Copies: they are frozen below, and the caller's arrays are not ours to freeze.
        effect = np.array(self.effect, dtype=float)
        se = np.array(self.se, dtype=float)
        design = np.array(self.design, dtype=float).reshape(effect.size, len(self.columns))
        if effect.ndim != 1 or effect.size == 0 or se.shape != effect.shape:
            raise InputError(
                "effects and standard errors", "two equally long columns", (effect.shape, se.shape)
            )
        if not (np.isfinite(effect).all() and np.isfinite(se).all() and (se > 0).all()):
            raise InputError("effects and standard errors", "finite effects and positive finite se", "others")
        for name, value in (("effect", effect), ("se", se), ("design", design)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def typical_se(self) -> float:
        """Median standard error: where a typical unit has B = ½ at τ = this."""
        return float(np.median(self.se))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        match self.pooling:
            case "none":
                return ("theta",)
            case "complete":
                names: tuple[str, ...] = ("mu",)
            case _:
                names = ("mu", "tau")
        if self.columns:
            names += ("beta",)
        if "student_t" in (self.effects, self.likelihood):
            names += ("nu",)
        return names

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit."""
        return ("nu",)

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset({"tau", "nu"})

    @property
    def spread(self) -> str:
        """Name of the sd of the units around what they are pulled to."""
        return "tau"

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not a unit's effect, in order."""
        found: list[str] = []
        for name in self.parameters:
            found += [f"beta[{column}]" for column in self.columns] if name == "beta" else [name]
        if self.scale == "adaptive" and self.pooling == "partial":
            found.insert(found.index("tau") + 1, "tau_star")
        return tuple(name for name in found if name != "theta")

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what a unit's effect is pulled to and of the spread around it; None without one."""
        return ("mu", "tau") if self.pooling == "partial" else None

    @property
    def leans(self) -> bool:
        """Whether E[θ_i] is B_i m_i + (1 − B_i) y_i given the hyperparameters."""
        return self.pooling == "partial" and "student_t" not in (self.effects, self.likelihood)

    def pulled_to(self, draws: Callable[[str], np.ndarray | None]) -> np.ndarray | None:
        """m_i for every draw, ndarray (n, J), from a parameter's draws by its name; None without them."""
        mu = draws("mu")
        if mu is None:
            return None
        center: np.ndarray = np.broadcast_to(mu[:, None], (mu.size, len(self.units)))
        if self.columns:
            beta = draws("beta")
            assert beta is not None
            center = center + beta.reshape(len(mu), -1) @ self.design.T
        return center

    @property
    def parameterizations(self) -> tuple[Parameterization, ...]:
        """What applies: one geometry where nothing is pooled or everything is."""
        if self.pooling != "partial":
            return ("centered",)
        if self.effects == "student_t" or self.likelihood == "student_t":
            return ("centered", "noncentered", "partial")
        return PARAMETERIZATIONS


#: What a model can be made of; a plain `ModelSpec` is one of two levels.
Structure = TypeVar(
    "Structure",
    bound=TwoLevelNormal
    | ThreeLevelNormal
    | GaussianMixed
    | CountWindows
    | BetaBinomial
    | HurdleRevenue
    | CircuitPopulation,
    default=TwoLevelNormal,
)


@dataclass(frozen=True, eq=False)
class ModelSpec(Generic[Structure]):
    """A structure with its priors, constants and parameterization: all that an engine needs.

    Parameters
    ----------
    structure : TwoLevelNormal, ThreeLevelNormal or GammaCounts
        Data and shape of the model.
    priors : mapping of str to Prior
        One per name in ``structure.parameters``.
    constants : mapping of str to float
        Numbers of the model that are not priors (``threshold``, ``spread``, ``slope`` of `adaptive`).
    parameterization : str
        Geometry for samplers; never changes the posterior.

    Raises
    ------
    InputError
        Missing or unknown prior; a prior on a positive parameter that reaches below zero; an unknown
        parameterization.
    """

    structure: Structure
    priors: Mapping[str, Prior]
    constants: Mapping[str, float] = field(default_factory=dict)
    parameterization: str = "noncentered"

    def __post_init__(self) -> None:
        names = self.structure.parameters
        for name in self.priors:
            if name not in names:
                raise InputError("prior", "one of the parameters " + ", ".join(names), repr(name))
        for name in names:
            if name not in self.priors:
                raise InputError(f"prior on {name}", "one prior", "none")
            check_role(name, self.priors[name], name in self.structure.positive)
            check_bounds(name, self.priors[name], getattr(self.structure, "bounds", {}).get(name))
        if self.parameterization not in self.structure.parameterizations:
            raise InputError(
                "parameterization",
                "one of " + ", ".join(self.structure.parameterizations),
                repr(self.parameterization),
            )
        object.__setattr__(self, "priors", MappingProxyType({name: self.priors[name] for name in names}))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))


def check_role(name: str, prior: Prior, positive: bool) -> None:
    """Refuse a prior whose support does not fit the parameter.

    The flat family means flat on (0, ∞) for a positive parameter.
    """
    if positive and prior.proper and prior.support[0] < 0:
        raise InputError(
            f"prior on {name}",
            f"a family on the positive numbers, because {name} cannot be negative",
            prior.text,
            "Use for instance HalfNormal, HalfCauchy or Exponential.",
        )


def check_bounds(name: str, prior: Prior, bounds: tuple[float, float] | None) -> None:
    """Refuse a prior that reaches beyond where the parameter ends, such as a share beyond 1."""
    if bounds and not (prior.proper and bounds[0] <= prior.support[0] and prior.support[1] <= bounds[1]):
        low, high = bounds
        raise InputError(
            f"prior on {name}",
            f"a family on ({low:g}, {high:g}), because {name} is a {'share' if low == 0 else 'correlation'}",
            prior.text,
            f"Use Uniform({low:g}, {high:g})." if name != "corr" else "Use LKJ(2).",
        )
