"""PyMC models of a population of circuits in every geometry, with all numbers as data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.models.circuits import FLOOR, POWERS, CircuitPopulation
from hbm_core.models.circuits_bend import Bend, Residuals, Ridge, bend
from hbm_core.models.circuits_rough import FAR, SPREAD, Readings, rough_fit
from hbm_core.models.kinetics.program import (
    LONG,
    Experiment,
    Program,
    Thinned,
    program,
    thinned,
    unthinned,
)
from hbm_core.models.pymc_model import random_variable
from hbm_core.models.structure import ModelSpec
from hbm_core.models.vector_population import InverseWishartLaw

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[CircuitPopulation]
#: Data of the transport, in the order in which it takes them.
BENDS = ("mode", "bend_curvature", "bend_basis", "bend_firm", "bend_inner", "bend_offset", "bend_outer")
_RIDGES: WeakKeyDictionary[CircuitPopulation, list[Ridge]] = WeakKeyDictionary()
_BENT: WeakKeyDictionary[CircuitPopulation, dict[str, np.ndarray]] = WeakKeyDictionary()


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
        values |= coordinates(spec)
    return values


def coordinates(spec: Spec, draws: np.ndarray | None = None, threads: int = 1) -> dict[str, np.ndarray]:
    """Data of the transport alone: what `bends` finds; ``order`` and ``reference`` where Σ is relative.

    `draws` and `threads` as of `bends`.
    """
    bent = bends(spec.structure, draws, threads)
    if not is_relative(spec):
        return bent
    order, root = reference(spec)
    turned = {name: bent[name][:, order] for name in ("mode", "bend_basis")}
    turned["bend_curvature"] = bent["bend_curvature"][:, order][:, :, order]
    return bent | turned | {"bend_inner": bent["bend_inner"][..., order], "order": order, "reference": root}


def bends(
    structure: CircuitPopulation, draws: np.ndarray | None = None, threads: int = 1
) -> dict[str, np.ndarray]:
    """What ``BENDS`` names: each circuit's fit, its stiff directions there, and how its ridges bend.

    Parameters
    ----------
    structure : CircuitPopulation
        The circuits.
    draws : ndarray (n, C, P), optional
        Of θ, from a pilot: where the ridges are to be followed best.
    threads : int
        That work on circuits side by side.
    """
    if draws is None and structure in _BENT:
        return _BENT[structure]
    ridges = _ridges(structure)
    known = None if draws is None else bends(structure)

    def follow(c: int) -> Bend:
        before = None if known is None else [known[name][c] for name in BENDS[-3:]]
        return bend(ridges[c] if draws is None else ridges[c].refined(draws[:, c]), before)

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(follow, range(len(ridges))))
    stiff = max(1, *(ridge.firm.size for ridge in ridges))
    made = {
        "mode": rough_fit(structure).theta,
        "bend_curvature": np.array([one.curvature for one in found]),
        "bend_basis": np.array([one.basis[:, :stiff] for one in found]),
        "bend_firm": np.array([one.firm[:stiff] for one in found]),
        "bend_inner": np.array([one.inner for one in found]),
        "bend_offset": np.array([one.offset for one in found]),
        "bend_outer": np.array([one.outer[:stiff] for one in found]),
    }
    if draws is None:
        _BENT[structure] = made
    return made


def is_bent(structure: CircuitPopulation) -> bool:
    """Whether any circuit's readings leave a ridge."""
    return any(ridge.bends for ridge in _ridges(structure))


def _ridges(structure: CircuitPopulation) -> list[Ridge]:
    if structure in _RIDGES:
        return _RIDGES[structure]
    rough, readings = rough_fit(structure), Readings.of(structure)
    whiten = readings.whitening(rough.noise)
    found = []
    for c, experiment in enumerate(structure.experiments):
        own, first = structure.circuit == c, structure.tables.starts[c, 2]
        chosen = np.zeros((own.size, experiment.size))
        chosen[own, structure.point[own] - first] = 1
        # Readings of one point tell together what they tell of it: as many rows as points. Ridges need no
        # exact curves.
        near = thinned([experiment], structure.columns)
        q, root = np.linalg.qr(whiten(chosen @ near.matrix))
        goal = q.T @ whiten((readings.value * own)[:, None])[:, 0]

        told = _residuals(near.experiments[0], structure.columns, readings.center, root, goal)
        found.append(Ridge.along(told, rough.theta[c], structure.uses[c], rough.covariance[c], SPREAD))
    _RIDGES[structure] = found
    return found


def _residuals(
    experiment: Experiment, columns: tuple[str, ...], center: np.ndarray, root: np.ndarray, goal: np.ndarray
) -> Residuals:
    """Those of a ridge; what is kept by its structure must not hold the structure itself."""
    from hbm_core.models.kinetics.solver import curves_and_slopes

    @cache
    def copies(count: int) -> Program:
        return program([experiment] * count, columns, LONG)

    def residuals(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, size = theta.shape
        rest = np.broadcast_to(center[size:], (count, center.size - size))
        f, slopes = curves_and_slopes(copies(count), np.concatenate([theta, rest], axis=1))
        f, slopes = np.nan_to_num(f, nan=FAR), np.nan_to_num(slopes[:, :size])
        return f.reshape(count, -1) @ root.T - goal, root @ slopes.reshape(count, -1, size)

    return residuals


def is_relative(spec: Spec) -> bool:
    """Whether Ω is sampled by a factor relative to a reference instead of partial correlations."""
    structure = spec.structure
    full = structure.pooling == "full" and structure.covariance == "lkj" and len(structure.fitted) > 1
    return full and spec.parameterization == "transport"


def reference(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """An order of the fitted parameters, the best told last, and an upper triangular root of a likely Σ.

    An inverse Wishart law of as wide correlations as LKJ(η) has 2 P + 2 η − 3 degrees of freedom; with each
    circuit's deviation from the mean added, what the rough fit says of Σ. The last parameters' part of the
    factor of Σ⁻¹ is that of their own covariance: what readings tell moves nothing else.
    """
    rough, size = rough_fit(spec.structure), len(spec.structure.fitted)
    freedom = 2 * size + 2 * spec.priors["corr"].numbers[0] - 3
    away = rough.theta - rough.alpha
    total = (freedom - size - 1) * SPREAD**2 * np.eye(size) + away.T @ away + rough.covariance.sum(axis=0)
    order = np.argsort(-np.einsum("cpp->p", rough.covariance), kind="stable")
    root = np.linalg.cholesky(total[np.ix_(order[::-1], order[::-1])])[::-1, ::-1]
    return order, root / np.sqrt(freedom + len(rough.theta) - np.arange(size))


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``alpha`` (inferred parameters), ``sigma`` and ``corr`` (packed below the diagonal) where they
    are pooled, ``theta`` (circuit, fitted parameters), the noise's parameters, and what the sampler moves
    instead of them: ``partial`` (partial correlations), ``bartlett_diagonal`` and ``bartlett`` (inverse
    Wishart), ``below`` (Ω of the transport), ``z`` (non-centered), ``u`` (transport).
    """
    import pymc as pm
    import pytensor.tensor as pt

    structure, geometry = spec.structure, spec.parameterization
    count, size = len(structure.units), len(structure.fitted)
    with pm.Model() as model:
        data = {name: pm.Data(name, value) for name, value in data_values(spec).items()}

        variable = _priors(spec, data)
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

        _heard(structure, data, variable, theta, common)
    return model


def given_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of `build_given` with its value.

    Those that `hbm_core.models.circuits_rule.given` writes (``back``, ``push``, ``tilt``, ``share`` and what
    it returns, ``constant``) wait for a Σ. Curves are solved at all points; `heard_values` are others.
    """
    structure = spec.structure
    count, size = structure.uses.shape
    values = data_values(spec)
    stiff = values["bend_firm"].shape[1]
    gone = {"prior_sigma", "prior_corr", "reference", "bend_curvature", "bend_firm"}
    values = {name: value for name, value in values.items() if name not in gone}
    values |= placed_values(values) | heard_values(unthinned(structure.experiments, structure.tables))
    return values | {
        "back": np.eye(size),
        "push": np.zeros((count, size, size)),
        "tilt": np.zeros((count, size, size)),
        "share": np.zeros((count, stiff, stiff)),
        "constant": np.zeros(1),
    }


def placed_values(bent: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of ``BENDS`` that are data of `build_given`: ``bend_inner`` turned over, (C, P, F)."""
    names = ("mode", "bend_basis", "bend_offset", "bend_outer")
    turned = np.ascontiguousarray(bent["bend_inner"].swapaxes(1, 2))
    return {name: bent[name] for name in names} | {"bend_inner": turned}


def heard_values(solved: Thinned) -> dict[str, np.ndarray]:
    """Data of `build_given` that say where curves are solved, and what tells all their points."""
    tables = solved.program
    return {
        "ints": tables.ints,
        "floats": tables.floats,
        "starts": tables.starts,
        "places": solved.places,
        "shares": solved.shares,
    }


def build_given(spec: Spec) -> pm.Model:
    """Circuits, means and noise given Σ, in PyMC, by the coordinates of the transport.

    Variables: ``alpha``, ``u``, and the noise's and the calibration's, as of `build`, whose density it is but
    for that of Σ.
    """
    import pymc as pm
    import pytensor.tensor as pt

    from hbm_core.models.circuits_op import place

    structure = spec.structure
    count, size = structure.uses.shape
    with pm.Model() as model:
        data = {name: pm.Data(name, value) for name, value in given_values(spec).items()}
        alpha = pm.Normal("alpha", data["alpha_median"], data["alpha_sd"], shape=len(structure.inferred))
        order = data["order"]
        found: Any = place(
            alpha[:size][order], pm.Flat("u", shape=(count, size)), data["back"], data["push"], data["tilt"],
            data["share"], data["constant"][0], data["mode"], data["bend_basis"], data["bend_inner"],
            data["bend_offset"], data["bend_outer"],
        )  # fmt: skip
        pm.Potential("circuits_density", found[1])
        _heard(structure, data, _priors(spec, data), found[0][:, pt.argsort(order)], alpha[size:])
    return model


def _priors(spec: Spec, data: Mapping[str, Any]) -> Callable[..., Any]:
    """What makes a variable of a prior by its name, with its numbers from `data`; for use within a model."""

    def variable(name: str, **kwargs: Any) -> Any:
        positive = name in spec.structure.positive
        return random_variable(name, spec.priors[name], data[f"prior_{name}"], positive, **kwargs)

    return variable


def _heard(
    structure: CircuitPopulation, data: dict[str, Any], variable: Any, theta: Any, common: Any
) -> None:
    """What readings and standards say of circuits and of the noise; to be called within a model."""
    import pymc as pm
    import pytensor.tensor as pt

    from hbm_core.models.circuits_op import blend
    from hbm_core.models.kinetics.op import curves

    rest = pt.concatenate([common, data["fixed"]])
    every = pt.concatenate([theta, pt.zeros((theta.shape[0], rest.shape[0])) + rest], axis=1)
    solved: Any = curves(every, data["ints"], data["floats"], data["starts"])
    f: Any = blend(solved[0], data["places"], data["shares"]) if "places" in data else solved[0]
    value, scale = data["value"], 0.0
    if structure.standards.size:
        slope, offset = variable("slope"), variable("offset")
        pm.Normal(
            "standards", slope * data["amount"] + offset, variable("reading_sd"), observed=data["reading"]
        )
        value, scale = (value - offset) / slope, pt.log(slope)
    pm.Potential("readings", _log_likelihood(structure, data, variable, f, value) - scale * value.size)


def population_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of `build_population` with its value; ``own`` and ``middle`` wait for a draw."""
    structure = spec.structure
    order, root = reference(spec)
    return {
        "order": order,
        "reference": root,
        "prior_sigma": np.array(spec.priors["sigma"].numbers),
        "prior_corr": np.array(spec.priors["corr"].numbers),
        "uses": structure.uses[:, order].astype(float),
        "own": np.zeros(structure.uses.shape),
        "middle": np.zeros(len(structure.fitted)),
    }


def build_population(spec: Spec) -> pm.Model:
    """σ and Ω alone, given circuits and their means, in PyMC: what no reading has to be heard for.

    ``sigma`` and ``below`` as of `build` with the transport; data ``own`` (θ, ndarray (C, P)) and ``middle``
    (α of the fitted, ndarray (P,)). Constants that a circuit does not use are integrated out.
    """
    import pymc as pm

    from hbm_core.models.circuits_op import deviate

    with pm.Model() as model:
        data = {name: pm.Data(name, value) for name, value in population_values(spec).items()}
        root = _relative_root(spec, data, _priors(spec, data))
        gap = (data["own"] - data["middle"])[:, data["order"]]
        found: Any = deviate(root, gap, data["uses"])
        pm.Potential("circuits_density", found[0])
    return model


def partial_shapes(eta: Any, size: int) -> Any:
    """LKJ(η): b of each partial correlation given the columns before, 2 Beta(b, b) − 1, packed by rows.

    b = η + (P − 2 − column)/2: Lewandowski, Kurowicka and Joe (2009), section 2.4.
    """
    return eta + 0.5 * (size - 2 - np.tril_indices(size, -1)[1])


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
    if is_relative(spec):
        return _relative_root(spec, data, variable)
    spread = variable("sigma", shape=size)
    if size == 1:
        return pt.diag(spread)
    shape = partial_shapes(data["prior_corr"][0], size)
    partial = 2 * pm.Beta("partial", shape, shape, shape=rows.size) - 1
    whole: Any = factor(pt.ones((size,)), partial)
    pm.Deterministic("corr", (whole @ whole.T)[rows, columns])
    scaled: Any = factor(spread, partial)
    return scaled


def _relative_root(spec: Spec, data: dict[str, Any], variable: Any) -> Any:
    """The same prior, Ω by a factor relative to the reference, in the data's order, σ for itself.

    With S = U Uᵀ, U = R (I + B)⁻ᵀ and s_i² = S_ii, Ω = S_ij/(s_i s_j), so |Ω| = Π (R_ii/s_i)² and ∂Ω/∂B has
    the determinant Π (R_ii/s_i)^(P + 1).
    """
    import pymc as pm
    import pytensor.tensor as pt

    from hbm_core.models.circuits_op import relative_root

    size = len(spec.structure.fitted)
    rows, columns = np.tril_indices(size, -1)
    spread = variable("sigma", shape=size)
    root: Any = relative_root(pm.Flat("below", shape=rows.size), data["reference"])
    scale = pt.sqrt(pt.sum(root * root, axis=1))
    root = root / scale[:, None]
    own = root[pt.argsort(data["order"])]
    pm.Deterministic("corr", (own @ own.T)[rows, columns])
    half = pt.sum(pt.log(pt.diag(data["reference"]))) - pt.sum(pt.log(scale))
    eta = data["prior_corr"][0]
    shape = partial_shapes(eta, size)
    constant = -pt.sum(2 * pt.gammaln(shape) - pt.gammaln(2 * shape) + (2 * shape - 1) * np.log(2))
    pm.Potential("spread_density", constant + (2 * (eta - 1) + size + 1) * half)
    return spread[data["order"]][:, None] * root


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
    order = data.get("order")
    mean = mean if order is None else mean[order]
    found: Any = carry(mean, root, pm.Flat("u", shape=shape), *(data[name] for name in BENDS))
    pm.Potential("circuits_density", found[1])
    return found[0] if order is None else found[0][:, pt.argsort(order)]


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
