"""The population of circuits: vector-valued units, each a mechanism with its own log10 rate constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.kinetics.mechanism import Parameter
from hbm_core.models.kinetics.program import Experiment, Program, Thinned, program, thinned
from hbm_core.models.vector_population import VectorPopulation

Role = Literal["fitted", "shared", "fixed"]
Pooling = Literal["independent", "shared", "diagonal", "full"]
Noise = Literal["power", "heteroscedastic", "proportional", "constant"]
#: Geometries of the circuits' parameters; "transport" centers each on its own data as far as these tell it.
CIRCUIT_PARAMETERIZATIONS = ("transport", "noncentered", "centered")
POOLINGS: tuple[Pooling, ...] = ("independent", "shared", "diagonal", "full")
NOISES: tuple[Noise, ...] = ("power", "heteroscedastic", "proportional", "constant")
#: Power of the mean that a reading's sd goes with, where it is not a parameter.
POWERS: Mapping[str, float] = MappingProxyType({"constant": 0.0, "heteroscedastic": 0.5, "proportional": 1.0})
#: ε of the smooth maximum, in the observed species' unit, where no constant says otherwise.
FLOOR = 1.0


def smooth_positive(f: Any, floor: Any) -> Any:
    """(f + √(f² + ε²))/2: f where it is large, ε/2 at 0, always above 0."""
    return 0.5 * (f + (f * f + floor * floor) ** 0.5)


@dataclass(frozen=True, eq=False)
class CircuitPopulation:
    """Time courses of several circuits whose log10 parameters come from one population.

    Circuit c has θ_c (one number per parameter) and curves f(θ_c) from its `Experiment`. By `pooling`:

    - "independent": θ_cp ~ the prior of p, circuit by circuit.
    - "shared": θ_cp = α_p.
    - "diagonal": θ_cp ~ Normal(α_p, σ_p).
    - "full": θ_c ~ Normal(α, diag(σ) Ω diag(σ)).

    Parameters marked "shared" have no deviation at any level, "fixed" ones their prior median; those that a
    circuit does not use are not in its likelihood.

    Reading n of course k has the mean g_k f and the standard deviation σ₀ ("constant"), σ₀ √m
    ("heteroscedastic"), σ₀ m ("proportional") or σ₀ (g_k m)^γ ("power"), with m = (f + √(f² + ε²))/2, a
    smooth maximum with 0. With "power" each course has a gain, log g_k ~ Normal(0, s), integrated out; it
    scales what is measured, noise included: otherwise curves that are far too high could hide behind gains
    near 0 for the sake of their noise. g_k = 1 elsewhere.

    Parameters
    ----------
    experiments : tuple of Experiment
        One per circuit.
    units : tuple of str
        Labels of the circuits, unique.
    conditions : tuple of tuple of str
        Labels of each circuit's conditions, as many as its experiment has.
    value : ndarray (N,)
        Readings, in the observed species' unit (or as read, with `standards`).
    point : ndarray (N,) of int
        Place of each reading on all curves one after the other (by circuit, condition and time).
    course : ndarray (N,) of int
        Which time course (one replicate of one condition) each reading belongs to.
    roles : mapping of str to {"fitted", "shared", "fixed"}
        By parameter; "fitted" where absent.
    pooling, noise : str
        As above.
    covariance : {"lkj", "inverse_wishart"}
        Prior of Σ with "full" pooling: Ω ~ LKJ(η) and σ ~ its prior, or Σ ~ InverseWishart(ν, ψ I).
    standards : ndarray (M, 2)
        Known amounts and their readings; with them readings are slope × amount + offset, both fitted.

    References
    ----------
    Lewandowski, Kurowicka and Joe (2009), Journal of Multivariate Analysis 100, for the LKJ prior.
    """

    #: Name of the field that holds what is measured.
    measured: ClassVar[str] = "value"

    experiments: tuple[Experiment, ...]
    units: tuple[str, ...]
    conditions: tuple[tuple[str, ...], ...]
    value: np.ndarray
    point: np.ndarray
    course: np.ndarray
    roles: Mapping[str, Role] = field(default_factory=dict)
    pooling: Pooling = "full"
    noise: Noise = "power"
    covariance: Literal["lkj", "inverse_wishart"] = "lkj"
    standards: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))

    def __post_init__(self) -> None:
        value = np.array(self.value, dtype=float)
        point, course = np.array(self.point, dtype=np.int64), np.array(self.course, dtype=np.int64)
        standards = np.array(self.standards, dtype=float).reshape(-1, 2)
        if value.ndim != 1 or not value.size or point.shape != value.shape or course.shape != value.shape:
            shapes = (value.shape, point.shape, course.shape)
            raise InputError("readings, points and courses", "three equally long columns", shapes)
        if not (np.isfinite(value).all() and np.isfinite(standards).all()):
            raise InputError("readings", "finite numbers", "others")
        if len(self.units) != len(self.experiments) or len(self.conditions) != len(self.experiments):
            raise InputError(
                "circuits", "one label and one set of conditions per experiment", len(self.units)
            )
        if point.min() < 0 or point.max() >= sum(experiment.size for experiment in self.experiments):
            raise InputError("points of readings", "places on the curves", "others")
        for name, role in self.roles.items():
            if name not in self.declared or role not in ("fitted", "shared", "fixed"):
                raise InputError(f"role of {name}", "fitted, shared or fixed, of a parameter in use", role)
        if not self.fitted and self.pooling in ("diagonal", "full"):
            raise InputError("roles", "at least one fitted parameter", "none")
        if standards.size and len(standards) < 3:
            raise InputError("calibration standards", "at least three", len(standards))
        for name, array in (("value", value), ("point", point), ("course", course), ("standards", standards)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "roles", MappingProxyType(dict(self.roles)))

    @cached_property
    def declared(self) -> Mapping[str, Parameter]:
        """Parameters that any circuit uses, in their declared order."""
        found: dict[str, Parameter] = {}
        for experiment in self.experiments:
            found |= experiment.mechanism.parameters
        used = {name for experiment in self.experiments for name in experiment.mechanism.names}
        return {name: parameter for name, parameter in found.items() if name in used}

    def _with(self, role: Role) -> tuple[str, ...]:
        return tuple(name for name in self.declared if self.roles.get(name, "fitted") == role)

    @cached_property
    def fitted(self) -> tuple[str, ...]:
        """Parameters that differ between circuits."""
        return self._with("fitted")

    @cached_property
    def common(self) -> tuple[str, ...]:
        """Parameters that are inferred but the same in all circuits."""
        return self._with("shared")

    @cached_property
    def fixed(self) -> tuple[str, ...]:
        """Parameters at their prior medians."""
        return self._with("fixed")

    @property
    def inferred(self) -> tuple[str, ...]:
        """Parameters with a prior: the fitted, then the common ones."""
        return self.fitted + self.common

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the matrix of all parameters by circuit."""
        return self.fitted + self.common + self.fixed

    @cached_property
    def uses(self) -> np.ndarray:
        """Whether a circuit uses a fitted parameter, ndarray (C, P) of bool."""
        names = [set(experiment.mechanism.names) for experiment in self.experiments]
        return np.array([[name in used for name in self.fitted] for used in names])

    @cached_property
    def tables(self) -> Program:
        """The experiments as the solver reads them."""
        return program(self.experiments, self.columns)

    @cached_property
    def thinned(self) -> Thinned:
        """The same in few long steps, near enough to steer by."""
        return thinned(self.experiments, self.columns)

    @cached_property
    def point_labels(self) -> Mapping[str, np.ndarray]:
        """Labels of all points on all curves: ``circuit``, ``condition`` and ``time_min``, arrays (N,)."""
        rows = [
            (unit, label, time)
            for unit, labels, experiment in zip(self.units, self.conditions, self.experiments, strict=True)
            for label in labels
            for time in experiment.times
        ]
        circuit, condition, time = zip(*rows, strict=True)
        return {
            "circuit": np.array(circuit),
            "condition": np.array(condition),
            "time_min": np.array(time),
        }

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of fitted parameters below the diagonal, row by row."""
        return tuple((i, j) for i in range(len(self.fitted)) for j in range(i))

    @property
    def pair_labels(self) -> tuple[str, ...]:
        """Labels of `pairs`, the earlier parameter first: "k_tx,K_tx"."""
        return tuple(f"{self.fitted[j]},{self.fitted[i]}" for i, j in self.pairs)

    @cached_property
    def vector(self) -> VectorPopulation | None:
        """The circuits' population; None where nothing is pooled or everything is."""
        if self.pooling not in ("diagonal", "full"):
            return None
        names = self.fitted
        return VectorPopulation(
            components=names,
            means=tuple(f"alpha[{name}]" for name in names),
            spreads=tuple(f"sigma[{name}]" for name in names),
            correlations=tuple(f"corr[{pair}]" for pair in self.pair_labels)
            if self.pooling == "full"
            else (),
            members=tuple(f"theta[{{unit}},{name}]" for name in names),
            units=self.units,
            uses=self.uses,
            spread_priors=("sigma",) * len(names) if self.has_spread else (),
            correlation_prior="corr" if self.has_correlations else "",
            scale="log10",
        )

    @cached_property
    def circuit(self) -> np.ndarray:
        """Place of each reading's circuit, ndarray (N,) of int."""
        return np.searchsorted(self.tables.starts[1:, 2], self.point, side="right")

    @cached_property
    def readings(self) -> np.ndarray:
        """Number of readings of each circuit, ndarray (C,)."""
        return np.bincount(self.circuit, minlength=len(self.units))

    @cached_property
    def standards_line(self) -> tuple[float, float]:
        """Slope and offset of what was read of standards over their amounts; 1 and 0 without standards."""
        if not self.standards.size:
            return 1.0, 0.0
        amount, reading = self.standards.T
        slope, offset = np.polyfit(amount, reading, 1)
        return float(slope), float(offset)

    @property
    def unit_parameters(self) -> tuple[str, ...]:
        """Flat names of all circuits' fitted parameters, circuit by circuit."""
        return tuple(f"theta[{unit},{name}]" for unit in self.units for name in self.fitted)

    @property
    def has_gain(self) -> bool:
        """Whether each course has a gain of its own."""
        return self.noise == "power"

    @property
    def has_spread(self) -> bool:
        """Whether σ is a parameter with a prior of its own."""
        return self.pooling == "diagonal" or (self.pooling == "full" and self.covariance == "lkj")

    @property
    def has_correlations(self) -> bool:
        """Whether Ω has a prior of its own."""
        return self.pooling == "full" and self.covariance == "lkj"

    @property
    def spread(self) -> str:
        """Name of the sds of the circuits around the population's means."""
        return "sigma"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        names = tuple(f"alpha[{name}]" for name in self.inferred)
        names += ("sigma",) if self.has_spread else ()
        names += ("corr",) if self.has_correlations else ()
        names += ("noise",)
        names += ("exponent", "gain") if self.has_gain else ()
        return names + (("slope", "offset", "reading_sd") if self.standards.size else ())

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit: rates have their own, on a log scale."""
        return self.parameters

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset({"sigma", "noise", "gain", "slope", "reading_sd"})

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not a circuit's own, in order."""
        pooled = self.pooling in ("diagonal", "full")
        means = self.common if self.pooling == "independent" else self.inferred
        names = tuple(f"alpha[{name}]" for name in means)
        names += tuple(f"sigma[{name}]" for name in self.fitted) if pooled else ()
        if self.pooling == "full":
            names += tuple(f"corr[{pair}]" for pair in self.pair_labels)
        return names + tuple(
            name for name in self.parameters if "[" not in name and name not in ("sigma", "corr")
        )

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what a circuit's first parameter is pulled to and of its spread."""
        if self.pooling not in ("diagonal", "full"):
            return None
        return f"alpha[{self.fitted[0]}]", f"sigma[{self.fitted[0]}]"

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return ("noncentered",) if self.pooling == "shared" else CIRCUIT_PARAMETERIZATIONS
