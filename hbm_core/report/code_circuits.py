"""The parts of a script that belong to circuits: all but mechanisms and solver, which it imports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hbm_core.models.circuits import FLOOR
from hbm_core.models.pymc_circuits import Spec, inverse_wishart, population
from hbm_core.report.pieces import listing, number, prior_line, text

#: What the script needs of this package: a stiff solver with derivatives is no matter of a few lines.
IMPORTS = (
    "\n\n"
    "from hbm_core.models.circuits_op import weigh\n"
    "from hbm_core.models.kinetics.catalogue import MECHANISMS\n"
    "from hbm_core.models.kinetics.op import curves\n"
    "from hbm_core.models.kinetics.program import Experiment, program"
)


def note(spec: Spec) -> str:
    """What the script imports, and what it does not reproduce."""
    said = (
        "It imports the mechanisms, the solver of their equations and the density of readings with gains\n"
        "from hbm_core: run it where that is installed. All else, data and priors among it, is written out."
    )
    if spec.parameterization == "transport":
        said += (
            "\nThe fit moved circuits in coordinates centered on their data; here they are non-centered:\n"
            "the same posterior, other draws."
        )
    return said


def _array(name: str, values: np.ndarray) -> str:
    numbers = values.tolist()
    items = map(str, numbers) if values.dtype.kind == "i" else map(number, numbers)
    return listing(name, items, "np.array([", "])")


def _mapping(given: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{text(name)}: {number(value)}" for name, value in given.items()) + "}"


def data(spec: Spec) -> str:
    """Circuits, their conditions and readings as Python source."""
    structure = spec.structure
    median, sd = population(spec)
    fixed = np.array([structure.declared[name].center for name in structure.fixed])
    lines = [
        listing("units", map(text, structure.units)),
        "# Of each circuit: its mechanism, when it was read (minutes), and after which baseline.",
        listing("mechanisms", (text(one.mechanism.id) for one in structure.experiments)),
        listing("times", ("[" + ", ".join(map(number, one.times)) + "]" for one in structure.experiments)),
        listing("baselines", (number(one.baseline) for one in structure.experiments)),
        "# Plasmids of each condition, nM.",
    ]
    for place, one in enumerate(structure.experiments):
        lines.append(listing(f"conditions_{place}", map(_mapping, one.conditions)))
    all_conditions = ", ".join(f"conditions_{place}" for place in range(len(structure.units)))
    lines += [
        f"conditions = [{all_conditions}]",
        "# Fitted, shared and fixed parameters.",
        listing("columns", map(text, structure.columns)),
        f"size = {len(structure.fitted)}",
        "# log10: medians and sds of the means' priors, and what is fixed.",
        _array("median", median),
        _array("sd", sd),
        _array("fixed", fixed),
        "# Readings, their places on all curves, and the course that each belongs to.",
        _array("value", structure.value),
        _array("point", structure.point),
        _array("course", structure.course),
    ]
    if structure.standards.size:
        lines += [_array("amount", structure.standards[:, 0]), _array("reading", structure.standards[:, 1])]
    lines += [
        "experiments = [",
        "    Experiment(MECHANISMS[kind], tuple(given), np.array(at), base)",
        "    for kind, given, at, base in zip(mechanisms, conditions, times, baselines, strict=True)",
        "]",
        "tables = program(experiments, columns)",
        "rows, below = np.tril_indices(size, -1)",
    ]
    return "\n".join(lines)


def coords(spec: Spec) -> str:
    """None: vectors are told apart by their place in `columns`."""
    return ""


def _priors(spec: Spec, *names: str) -> Iterator[str]:
    for name in names:
        if name in spec.priors:
            dims = ", shape=size" if name == "sigma" else ""
            yield prior_line(name, spec.priors[name], name in spec.structure.positive, dims)


def _root(spec: Spec) -> Iterator[str]:
    """Lines that make ``root``, a square root of Σ."""
    structure = spec.structure
    if structure.pooling == "diagonal":
        yield from _priors(spec, "sigma")
        yield "root = pt.diag(sigma)"
    elif structure.covariance == "inverse_wishart":
        freedom, scatter = inverse_wishart(spec)
        yield "# Bartlett: the inverse of the covariance is A A'/psi, A lower triangular."
        yield (
            f'squares = pm.ChiSquared("bartlett_diagonal", {number(freedom)} - np.arange(size), shape=size)'
        )
        yield 'below_diagonal = pm.Normal("bartlett", 0.0, 1.0, shape=rows.size)'
        yield "A = pt.set_subtensor(pt.diag(pt.sqrt(squares))[rows, below], below_diagonal)"
        yield f"root = pt.linalg.solve_triangular(A, pt.eye(size), lower=True).T * {scatter!r} ** 0.5"
        yield "covariance = root @ root.T"
        yield 'sigma = pm.Deterministic("sigma", pt.sqrt(pt.diag(covariance)))'
        yield 'pm.Deterministic("corr", (covariance / (sigma[:, None] * sigma))[rows, below])'
    else:
        yield from _priors(spec, "sigma")
        if len(structure.fitted) == 1:
            yield "root = pt.diag(sigma)"
            return
        eta = spec.priors["corr"].numbers[0]
        yield "# LKJ: partial correlations given the columns before are stretched beta variables."
        yield f"b = {number(eta)} + 0.5 * (size - 2 - below)"
        yield 'partial = 2 * pm.Beta("partial", b, b, shape=rows.size) - 1'
        yield "square = pt.set_subtensor(pt.zeros((size, size))[rows, below], partial)"
        yield "left = pt.cumsum(pt.log1p(-pt.sqr(square)), axis=1)"
        yield "before = pt.concatenate([pt.zeros((size, 1)), left[:, :-1]], axis=1)"
        yield "factor = (square + pt.eye(size)) * pt.exp(0.5 * before)"
        yield 'pm.Deterministic("corr", (factor @ factor.T)[rows, below])'
        yield "root = sigma[:, None] * factor"


def body(spec: Spec) -> Iterator[str]:
    """Lines inside the model's context."""
    structure = spec.structure
    count = len(structure.units)
    if structure.pooling == "independent":
        yield "mean, root = median[:size], pt.diag(sd[:size])"
        yield 'common = pm.Normal("alpha", median[size:], sd[size:], shape=len(median) - size)'
    else:
        yield 'alpha = pm.Normal("alpha", median, sd, shape=len(median))'
        yield "mean, common = alpha[:size], alpha[size:]"
    if structure.pooling == "shared":
        yield f'theta = pm.Deterministic("theta", pt.zeros(({count}, size)) + mean)'
    else:
        if structure.pooling != "independent":
            yield from _root(spec)
        if spec.parameterization == "centered":
            yield f'theta = pm.Flat("own", shape=({count}, size))'
            yield "z = pt.linalg.solve(root, (theta - mean).T)"
            yield f"determinant = {count} * pt.log(pt.abs(pt.linalg.det(root)))"
            yield 'pm.Potential("population", -0.5 * pt.sum(z * z) - determinant)'
            yield 'pm.Deterministic("theta", theta)'
        else:
            yield f'z = pm.Normal("z", 0.0, 1.0, shape=({count}, size))'
            yield 'theta = pm.Deterministic("theta", mean + z @ root.T)'
    yield "rest = pt.concatenate([common, fixed])"
    yield f"whole = pt.concatenate([theta, pt.zeros(({count}, rest.shape[0])) + rest], axis=1)"
    yield "f = curves(whole, tables.ints, tables.floats, tables.starts)[0]"
    yield from _readings(spec)


def _readings(spec: Spec) -> Iterator[str]:
    structure = spec.structure
    given, jacobian = "value", ""
    if structure.standards.size:
        yield from _priors(spec, "slope", "offset", "reading_sd")
        yield 'pm.Normal("standards", slope * amount + offset, reading_sd, observed=reading)'
        given, jacobian = "(value - offset) / slope", " - value.size * pt.log(slope)"
    yield from _priors(spec, "noise", "exponent", "gain")
    floor = float(spec.constants.get("floor", FLOOR))
    if structure.has_gain:
        yield "# A course's gain scales what is measured, noise included; its log ~ Normal(0, gain) is"
        yield "# integrated out."
        yield f"scalars = pt.stack([pt.log(noise), exponent, gain, {floor!r}])"
        yield f"total = weigh(f, scalars, {given}, point, course)[0]{jacobian}"
    else:
        power = {"heteroscedastic": "0.5", "proportional": "1.0"}.get(structure.noise)
        yield "f = f[point]"
        if power is None:
            yield "log_sd = pt.log(noise) + pt.zeros_like(f)"
        else:
            yield f"positive = 0.5 * (f + pt.sqrt(f * f + {floor * floor!r}))"
            yield f"log_sd = pt.log(noise) + {power} * pt.log(positive)"
        yield f"gap = {given} - f"
        yield "density = -0.5 * pt.exp(-2 * log_sd) * gap**2 - log_sd - 0.5 * np.log(2 * np.pi)"
        yield f"total = pt.sum(density){jacobian}"
    yield 'pm.Potential("readings", total)'


def reported(spec: Spec) -> list[str]:
    """Names of what the script prints."""
    structure: Any = spec.structure
    found = ["alpha"] if structure.pooling != "independent" or structure.common else []
    pooled = structure.pooling in ("diagonal", "full")
    found += ["sigma"] if pooled else []
    found += ["corr"] if structure.pooling == "full" and structure.pairs else []
    found += [name for name in spec.priors if "[" not in name and name not in ("sigma", "corr")]
    return [*found, "theta"]
