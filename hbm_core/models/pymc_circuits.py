"""PyMC models of a population of circuits in every geometry, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from scipy.optimize import least_squares, minimize

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.kinetics.program import Program, program
from hbm_core.models.pymc_model import random_variable
from hbm_core.models.structure import ModelSpec
from hbm_core.models.vector_population import InverseWishartLaw

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[CircuitPopulation]
#: ε of the smooth maximum, in the observed species' unit, where no constant says otherwise.
FLOOR = 1.0
#: Noise that circuits are first fitted with: sd = 0.3 m^0.77, about what was measured.
_NOISE, _EXPONENT = 0.3, 0.77
#: Sd of the circuits around their population in a rough fit, decades, and how often its parts take turns.
SPREAD, _TURNS = 0.25, 4
#: Power of the mean that a reading's sd goes with, where it is not a parameter.
POWERS: Mapping[str, float] = {"constant": 0.0, "heteroscedastic": 0.5, "proportional": 1.0}
_ROUGH: WeakKeyDictionary[CircuitPopulation, RoughFit] = WeakKeyDictionary()


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: kinds, families, geometry and sizes of what is sampled; no numbers."""
    structure = spec.structure
    return (
        type(structure).__name__,
        structure.pooling,
        structure.noise,
        structure.covariance,
        bool(structure.standards.size),
        spec.parameterization,
        tuple((name, prior.family) for name, prior in spec.priors.items()),
        len(structure.units),
        structure.columns,
    )


def smooth_positive(f: Any, floor: Any) -> Any:
    """(f + √(f² + ε²))/2: f where it is large, ε/2 at 0, always above 0."""
    return 0.5 * (f + (f * f + floor * floor) ** 0.5)


def population(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Prior medians and sds of the inferred parameters' means, log10, ndarray (P + S,) each."""
    numbers = [spec.priors[f"alpha[{name}]"].numbers for name in spec.structure.inferred]
    return np.array([pair[0] for pair in numbers]), np.array([pair[1] for pair in numbers])


def inverse_wishart(spec: Spec) -> tuple[float, float]:
    """ν and ψ of Σ ~ InverseWishart(ν, ψ I): the constants `nu` and `psi`, P + 1 and 1 where absent."""
    law = InverseWishartLaw.of(spec.constants, len(spec.structure.fitted))
    return law.nu, law.psi


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    tables = structure.tables
    median, sd = population(spec)
    values: dict[str, np.ndarray] = {
        "ints": tables.ints,
        "floats": tables.floats,
        "starts": tables.starts,
        "value": structure.value,
        "point": structure.point,
        "course": structure.course,
        "floor": np.array(float(spec.constants.get("floor", FLOOR))),
        "alpha_median": median,
        "alpha_sd": sd,
        "fixed": np.array([structure.declared[name].center for name in structure.fixed]),
    }
    if structure.standards.size:
        values["amount"], values["reading"] = structure.standards.T.copy()
    if structure.pooling == "full" and structure.covariance == "inverse_wishart":
        values["freedom"], values["scatter"] = map(np.array, inverse_wishart(spec))
    for name, prior in spec.priors.items():
        if "[" not in name and prior.numbers:
            values[f"prior_{name}"] = np.array(prior.numbers)
    if spec.parameterization == "transport":
        rough = rough_fit(structure)
        values["mode"], values["curvature"] = rough.mode, rough.curvature
    return values


@dataclass(frozen=True, eq=False)
class RoughFit:
    """Where circuits lie and how well their readings tell it: what shapes the sampler's coordinates.

    Parameters
    ----------
    alpha : ndarray (P,)
        The population's means, log10.
    theta : ndarray (C, P)
        Each circuit's fit under a population of sd ``SPREAD`` around them.
    mode, curvature : ndarray (C, P), ndarray (C, P, P)
        The readings' Gaussian there: log likelihood ≈ −½ (θ − mode)ᵀ curvature (θ − mode).
    noise : ndarray (3,)
        log σ₀, γ and the gains' sd.
    """

    alpha: np.ndarray
    theta: np.ndarray
    mode: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray


def rough_fit(structure: CircuitPopulation) -> RoughFit:
    """Circuits, population and noise in turn, by generalised least squares under the declared priors.

    Gauss–Newton's curvature, gains included: a course's readings have the covariance D + s² f fᵀ. It changes
    no posterior, only the coordinates in which it is sampled and where chains start.
    """
    if structure in _ROUGH:
        return _ROUGH[structure]
    declared = [structure.declared[name] for name in structure.columns]
    center = np.array([parameter.center for parameter in declared])
    sd = np.array([parameter.sd for parameter in declared])
    size, pooled = len(structure.fitted), structure.pooling != "independent"
    power = POWERS.get(structure.noise)
    noise = np.array([np.log(_NOISE), _EXPONENT if power is None else power, 0.05 * structure.has_gain])
    alpha, theta = center[:size].copy(), np.tile(center[:size], (len(structure.units), 1))
    circuits = [_Circuit.of(structure, c, center) for c in range(len(structure.units))]
    for turn in range(_TURNS):
        middle, wide = (alpha, np.full(size, SPREAD)) if pooled and turn else (center[:size], sd[:size])
        found = [own.fitted(row, middle, wide, noise) for own, row in zip(circuits, theta, strict=True)]
        theta = np.array([row for row, _, _ in found])
        if pooled:
            heard = structure.uses / SPREAD**2
            alpha = center[:size] / sd[:size] ** 2 + (heard * theta).sum(axis=0)
            alpha /= 1 / sd[:size] ** 2 + heard.sum(axis=0)
        noise = _noise(structure, circuits, theta, noise)
    mode, curvature = np.array([row for _, row, _ in found]), np.array([matrix for _, _, matrix in found])
    _ROUGH[structure] = RoughFit(alpha, theta, mode, curvature, noise)
    return _ROUGH[structure]


@dataclass(frozen=True, eq=False)
class _Circuit:
    """One circuit's readings: its tables, points, values and courses, and all parameters' centres."""

    tables: Program
    point: np.ndarray
    value: np.ndarray
    course: np.ndarray
    center: np.ndarray

    @classmethod
    def of(cls, structure: CircuitPopulation, c: int, center: np.ndarray) -> _Circuit:
        first, last = structure.tables.starts[c, 2], structure.tables.starts[c + 1, 2]
        own = (structure.point >= first) & (structure.point < last)
        course = np.unique(structure.course[own], return_inverse=True)[1]
        value = structure.value
        if structure.standards.size:
            amount, reading = structure.standards.T
            slope, offset = np.polyfit(amount, reading, 1)
            value = (value - offset) / slope
        tables = program([structure.experiments[c]], structure.columns)
        return cls(tables, structure.point[own] - first, value[own], course, center)

    def solved(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Curve at every reading and its derivatives by the fitted parameters."""
        from hbm_core.models.kinetics.solver import curves_and_slopes

        theta = np.concatenate([x, self.center[x.size :]])
        f, slopes = curves_and_slopes(self.tables, theta[None])
        return np.nan_to_num(f[self.point], nan=1e9), np.nan_to_num(slopes[self.point, : x.size])

    def fitted(
        self, start: np.ndarray, center: np.ndarray, sd: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fit under Normal(center, sd), and the readings' mode and curvature there."""
        size = smooth_positive(self.value, FLOOR)
        lean = self.value * np.exp(-noise[0]) * size ** -noise[1]
        total = np.bincount(self.course, lean**2)
        # (I + s² a aᵀ)^−½ = I − κ a aᵀ/|a|², course by course.
        kappa = (1 - 1 / np.sqrt(1 + noise[2] ** 2 * total)) / np.maximum(total, 1e-300)
        root = np.exp(-noise[0]) * size ** -noise[1]

        def whitened(rows: np.ndarray) -> np.ndarray:
            rows = rows * root[:, None]
            along = np.zeros((total.size, rows.shape[1]))
            np.add.at(along, self.course, lean[:, None] * rows)
            return rows - lean[:, None] * (kappa[:, None] * along)[self.course]

        def residual(x: np.ndarray) -> np.ndarray:
            gap = whitened((self.solved(x)[0] - self.value)[:, None])[:, 0]
            return np.concatenate([gap, (x - center) / sd])

        def slope(x: np.ndarray) -> np.ndarray:
            return np.concatenate([whitened(self.solved(x)[1]), np.diag(1 / sd)])

        fit = least_squares(residual, start, slope, max_nfev=40)
        rows = whitened(self.solved(fit.x)[1])
        # At the fit the readings' own slope is opposite to the prior's: where they alone would lie.
        move = np.linalg.lstsq(rows, -residual(fit.x)[: rows.shape[0]], rcond=1e-9)[0]
        return fit.x, fit.x + move, rows.T @ rows


def _noise(
    structure: CircuitPopulation, circuits: Sequence[_Circuit], theta: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Log σ₀, γ and s that the readings ask for, given the circuits' parameters."""
    from hbm_core.models.circuits_rule import weigh

    f = [own.solved(row)[0] for own, row in zip(circuits, theta, strict=True)]
    courses = np.cumsum([0, *(own.course.max() + 1 for own in circuits)])
    course = np.concatenate([own.course + at for own, at in zip(circuits, courses, strict=False)])
    mean, value = np.concatenate(f), np.concatenate([own.value for own in circuits])
    point = np.arange(value.size)
    free = np.array([True, structure.noise == "power", structure.has_gain])

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        noise, slopes = start.copy(), (np.empty(value.size), np.empty(3), np.empty(value.size))
        noise[free] = x
        total = weigh(mean, noise, FLOOR, value, point, course, *slopes)
        return -total, -slopes[1][free]

    bounds = np.array([(-15.0, 10.0), (0.0, 1.5), (1e-3, 1.0)])[free]
    fit = minimize(cost, start[free], jac=True, method="L-BFGS-B", bounds=bounds)
    found = start.copy()
    found[free] = fit.x
    return found


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``alpha`` (inferred parameters), ``sigma`` and ``corr`` (packed below the diagonal) where they
    are pooled, ``theta`` (circuit, fitted parameters), the noise's parameters, and what the sampler moves
    instead of them: ``partial`` (partial correlations), ``bartlett_diagonal`` and ``bartlett`` (inverse
    Wishart), ``z`` (non-centered), ``u`` (transport).
    """
    import pymc as pm
    import pytensor.tensor as pt

    from hbm_core.models.kinetics.op import curves

    structure, geometry = spec.structure, spec.parameterization
    count, size = len(structure.units), len(structure.fitted)
    with pm.Model() as model:
        data = {name: pm.Data(name, value) for name, value in data_values(spec).items()}

        def variable(name: str, **kwargs: Any) -> Any:
            prior = spec.priors[name]
            return random_variable(name, prior, data[f"prior_{name}"], name in structure.positive, **kwargs)

        pooled = structure.pooling in ("diagonal", "full")
        median, sd = data["alpha_median"], data["alpha_sd"]
        if structure.pooling == "independent":
            mean, root = median[:size], pt.diag(sd[:size])
            common = pm.Normal("alpha", median[size:], sd[size:], shape=len(structure.common))
        else:
            alpha = pm.Normal("alpha", median, sd, shape=len(structure.inferred))
            mean, common = alpha[:size], alpha[size:]
            root = _root(spec, data, variable) if pooled else None
        if root is None:
            theta = pt.zeros((count, size)) + mean
        else:
            theta = _circuits(geometry, data, mean, root, (count, size))
        pm.Deterministic("theta", theta)

        rest = pt.concatenate([common, data["fixed"]])
        whole = pt.concatenate([theta, pt.zeros((count, rest.shape[0])) + rest], axis=1)
        found: Any = curves(whole, data["ints"], data["floats"], data["starts"])
        value, scale = data["value"], 0.0
        if structure.standards.size:
            slope, offset = variable("slope"), variable("offset")
            pm.Normal(
                "standards", slope * data["amount"] + offset, variable("reading_sd"), observed=data["reading"]
            )
            value, scale = (value - offset) / slope, pt.log(slope)
        pm.Potential(
            "readings",
            _log_likelihood(structure, data, variable, found[0], value) - scale * value.size,
        )
    return model


def _root(spec: Spec, data: dict[str, Any], variable: Any) -> Any:
    """A square root of Σ, with σ and Ω as variables; to be called within a model."""
    import pymc as pm
    import pytensor.tensor as pt

    from hbm_core.models.circuits_op import factor

    structure = spec.structure
    size = len(structure.fitted)
    if structure.pooling == "diagonal":
        return pt.diag(variable("sigma", shape=size))
    rows, columns = np.tril_indices(size, -1)
    if structure.covariance == "inverse_wishart":
        # Bartlett: Σ⁻¹ = A Aᵀ/ψ with A lower triangular, A_ii² ~ χ²(ν − i), normal below the diagonal.
        squares = pm.ChiSquared("bartlett_diagonal", data["freedom"] - np.arange(size), shape=size)
        below = pm.Normal("bartlett", 0.0, 1.0, shape=rows.size)
        bartlett = pt.set_subtensor(pt.diag(pt.sqrt(squares))[rows, columns], below)
        root = pt.linalg.solve_triangular(bartlett, pt.eye(size), lower=True).T * pt.sqrt(data["scatter"])
        covariance = root @ root.T
        spread = pm.Deterministic("sigma", pt.sqrt(pt.diag(covariance)))
        pm.Deterministic("corr", (covariance / (spread[:, None] * spread))[rows, columns])
        return root
    spread = variable("sigma", shape=size)
    if size == 1:
        return pt.diag(spread)
    # LKJ: partial correlations given the columns before are 2 Beta(b, b) − 1, b = η + (P − 2 − column)/2.
    shape = data["prior_corr"][0] + 0.5 * (size - 2 - columns)
    partial = 2 * pm.Beta("partial", shape, shape, shape=rows.size) - 1
    whole: Any = factor(pt.ones((size,)), partial)
    pm.Deterministic("corr", (whole @ whole.T)[rows, columns])
    scaled: Any = factor(spread, partial)
    return scaled


def _circuits(geometry: str, data: dict[str, Any], mean: Any, root: Any, shape: tuple[int, int]) -> Any:
    """θ of all circuits with the law Normal(mean, root rootᵀ); to be called within a model."""
    import pymc as pm
    import pytensor.tensor as pt

    from hbm_core.models.circuits_op import carry

    if geometry == "noncentered":
        return mean + pm.Normal("z", 0.0, 1.0, shape=shape) @ root.T
    count, size = shape
    constant = 0.5 * np.log(2 * np.pi) * count * size
    if geometry == "centered":
        free = pm.Flat("own", shape=shape)
        z = pt.linalg.solve(root, (free - mean).T)
        determinant = count * pt.log(pt.abs(pt.linalg.det(root)))
        pm.Potential("circuits_density", -0.5 * pt.sum(z * z) - determinant - constant)
        return free
    found: Any = carry(mean, root, pm.Flat("u", shape=shape), data["mode"], data["curvature"])
    pm.Potential("circuits_density", found[1])
    return found[0]


def _log_likelihood(
    structure: CircuitPopulation, data: dict[str, Any], variable: Any, f: Any, value: Any
) -> Any:
    """Log density of all readings, gains integrated out."""
    import pytensor.tensor as pt

    from hbm_core.models.circuits_op import weigh

    power: Any = POWERS.get(structure.noise)
    if power is None:
        power = variable("exponent")
    gain = variable("gain") if structure.has_gain else 0.0
    scalars = [pt.log(variable("noise")), power, gain, data["floor"]]
    found: Any = weigh(f, pt.stack(scalars), value, data["point"], data["course"])
    return found[0]
