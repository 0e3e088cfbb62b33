"""PyMC models of a population of circuits in every geometry, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from scipy.optimize import least_squares

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.kinetics.program import program
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
_CURVATURES: WeakKeyDictionary[CircuitPopulation, tuple[np.ndarray, np.ndarray]] = WeakKeyDictionary()


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
        values["mode"], values["curvature"] = curvatures(structure)
    return values


def curvatures(structure: CircuitPopulation) -> tuple[np.ndarray, np.ndarray]:
    """Each circuit's own fit and the curvature of its log likelihood there.

    A fit by least squares under the declared priors; the curvature is that of the readings alone, so what
    they do not tell has none. They shape the sampler's coordinates and change no posterior.

    Returns
    -------
    ndarray (C, P), ndarray (C, P, P)
        θ̂ and H of the fitted parameters, log10.
    """
    if structure in _CURVATURES:
        return _CURVATURES[structure]
    from hbm_core.models.kinetics.solver import curves_and_slopes

    declared = [structure.declared[name] for name in structure.columns]
    center = np.array([parameter.center for parameter in declared])
    sd = np.array([parameter.sd for parameter in declared])
    size = len(structure.fitted)
    modes, found = np.tile(center[:size], (len(structure.units), 1)), []
    for c, experiment in enumerate(structure.experiments):
        tables = program([experiment], structure.columns)
        first = structure.tables.starts[c, 2]
        own = (structure.point >= first) & (structure.point < structure.tables.starts[c + 1, 2])
        point, value = structure.point[own] - first, structure.value[own]
        weight = 1 / (_NOISE * smooth_positive(value, FLOOR) ** _EXPONENT)

        def solved(x: np.ndarray, tables: Any = tables) -> tuple[np.ndarray, np.ndarray]:
            theta = center.copy()
            theta[:size] = x
            return curves_and_slopes(tables, theta[None])

        def residual(
            x: np.ndarray, point: Any = point, value: Any = value, weight: Any = weight
        ) -> np.ndarray:
            gap = np.nan_to_num((solved(x)[0][point] - value) * weight, nan=1e6)
            return np.concatenate([gap, (x - center[:size]) / sd[:size]])

        def slope(x: np.ndarray, point: Any = point, weight: Any = weight) -> np.ndarray:
            rows = np.nan_to_num(solved(x)[1][point, :size]) * weight[:, None]
            return np.concatenate([rows, np.diag(1 / sd[:size])])

        fit = least_squares(residual, center[:size], slope, max_nfev=60)
        rows = slope(fit.x)[: value.size]
        modes[c] = fit.x
        found.append(rows.T @ rows)
    _CURVATURES[structure] = modes, np.array(found)
    return _CURVATURES[structure]


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
    root: Any = factor(spread, partial)
    return root


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

    power: Any = {"constant": 0.0, "heteroscedastic": 0.5, "proportional": 1.0}.get(structure.noise)
    if power is None:
        power = variable("exponent")
    gain = variable("gain") if structure.has_gain else 0.0
    scalars = [pt.log(variable("noise")), power, gain, data["floor"]]
    found: Any = weigh(f, pt.stack(scalars), value, data["point"], data["course"])
    return found[0]
