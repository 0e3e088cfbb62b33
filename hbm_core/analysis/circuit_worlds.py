"""Time courses that a population of circuits would make, from its priors: same design, other readings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.kinetics.solver import curves
from hbm_core.models.pymc_circuits import FLOOR, POWERS, Spec, smooth_positive

#: Draws of a population that no curve can be solved for are made anew, so many times.
_TRIES = 100


def draw_population(spec: Spec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """α, σ, packed Ω, θ and the noise's parameters, once, from their priors.

    Ω by partial correlations given the columns before: 2 Beta(b, b) − 1, b = η + (P − 2 − column)/2.

    References
    ----------
    Lewandowski, Kurowicka and Joe (2009), Journal of Multivariate Analysis 100, section 2.4.
    """
    structure = spec.structure
    size, count = len(structure.fitted), len(structure.units)
    drawn = {
        name: np.atleast_1d(prior.distribution.rvs(random_state=rng))
        for name, prior in spec.priors.items()
        if name not in ("corr", "sigma")
    }
    alpha = np.concatenate([drawn[f"alpha[{name}]"] for name in structure.inferred])
    sigma = np.asarray(spec.priors["sigma"].distribution.rvs(size, random_state=rng))
    root, corr = np.eye(size), np.empty(0)
    if structure.pooling == "full":
        eta = spec.priors["corr"].numbers[0]
        for i in range(size):
            left = 1.0
            for j in range(i):
                shape = eta + 0.5 * (size - 2 - j)
                partial = 2 * rng.beta(shape, shape) - 1
                root[i, j] = partial * np.sqrt(left)
                left *= 1 - partial**2
            root[i, i] = np.sqrt(left)
        corr = (root @ root.T)[np.tril_indices(size, -1)]
    theta = alpha[:size] + (rng.standard_normal((count, size)) @ root.T) * sigma
    noise = {name: drawn[name] for name in ("noise", "exponent", "gain") if name in drawn}
    return {"alpha": alpha, "sigma": sigma, "corr": corr, "theta": theta} | noise


def true_curves(structure: CircuitPopulation, truth: dict[str, np.ndarray]) -> np.ndarray:
    """Curves at the circuits' true rate constants, ndarray (points,)."""
    size = truth["theta"].shape[1]
    fixed = [structure.declared[name].center for name in structure.fixed]
    rest = np.concatenate([truth["alpha"][size:], fixed])
    whole = np.concatenate([truth["theta"], np.tile(rest, (len(truth["theta"]), 1))], axis=1)
    return np.asarray(curves(structure.tables, whole))


def curves_of(structure: CircuitPopulation, truth: dict[str, float]) -> np.ndarray:
    """`true_curves` of truths by flat name."""
    theta = [[truth[f"theta[{unit},{name}]"] for name in structure.fitted] for unit in structure.units]
    alpha = [truth[f"alpha[{name}]"] for name in structure.inferred]
    return true_curves(structure, {"alpha": np.array(alpha), "theta": np.array(theta)})


def world(spec: Spec, rng: np.random.Generator) -> tuple[CircuitPopulation, dict[str, float]]:
    """A structure with new readings, and the truths by their flat names."""
    structure, made, f = spec.structure, {}, np.full(1, np.nan)
    for _ in range(_TRIES):
        made = draw_population(spec, rng)
        f = true_curves(structure, made)
        if np.isfinite(f).all():
            break
    return read(spec, made, f, rng), named(structure, made)


def read(
    spec: Spec, truth: dict[str, np.ndarray], f: np.ndarray, rng: np.random.Generator
) -> CircuitPopulation:
    """The structure with readings of the curves `f`: gains by course, noise by reading."""
    structure = spec.structure
    mean = f[structure.point]
    power = truth.get("exponent", POWERS.get(structure.noise))
    size = smooth_positive(mean, float(spec.constants.get("floor", FLOOR)))
    gain = 1 + truth.get("gain", np.zeros(1)) * rng.standard_normal(int(structure.course.max()) + 1)
    noise = truth["noise"] * size**power * rng.standard_normal(mean.size)
    return replace(structure, value=gain[structure.course] * mean + noise)


def named(structure: CircuitPopulation, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """True values by flat name."""
    found: dict[str, Any] = {}
    for variable, labels in (("alpha", structure.inferred), ("sigma", structure.fitted)):
        found |= {f"{variable}[{label}]": v for label, v in zip(labels, truth[variable], strict=True)}
    found |= {
        f"corr[{label}]": v
        for label, v in zip(structure.pair_labels if truth["corr"].size else (), truth["corr"], strict=True)
    }
    for unit, row in zip(structure.units, truth["theta"], strict=True):
        found |= {f"theta[{unit},{label}]": v for label, v in zip(structure.fitted, row, strict=True)}
    found |= {name: truth[name][0] for name in ("noise", "exponent", "gain") if name in truth}
    return {name: float(value) for name, value in found.items()}
