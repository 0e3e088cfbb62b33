"""Time courses that a population of circuits would make, from its priors: same design, other readings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hbm_core.inference.recipes.circuits import new_readings, predicted
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.circuits_rule import factor
from hbm_core.models.pymc_circuits import Spec, partial_shapes

#: Draws of a population that no curve can be solved for are made anew, so many times.
_TRIES = 100


def draw_population(spec: Spec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """α, σ, packed Ω, θ and the noise's parameters, once, from their priors.

    Of circuits that are pooled as "diagonal" or "full" under LKJ, Ω by its partial correlations.

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
    pairs = np.tril_indices(size, -1)
    shape = partial_shapes(spec.priors["corr"].numbers[0], size) if structure.pooling == "full" else None
    partial = np.zeros(pairs[0].size) if shape is None else 2 * rng.beta(shape, shape) - 1
    root = np.empty((size, size))
    factor(sigma, partial, root)
    corr = np.empty(0) if shape is None else ((root @ root.T) / np.outer(sigma, sigma))[pairs]
    theta = alpha[:size] + rng.standard_normal((count, size)) @ root.T
    noise = {name: drawn[name] for name in ("noise", "exponent", "gain") if name in drawn}
    return {"alpha": alpha, "sigma": sigma, "corr": corr, "theta": theta} | noise


def true_curves(spec: Spec, truth: dict[str, np.ndarray]) -> np.ndarray:
    """Curves at the circuits' true rate constants, ndarray (points,)."""
    (found,) = predicted(spec, {name: truth[name][None] for name in ("alpha", "theta")})
    return found


def curves_of(spec: Spec, truth: dict[str, float]) -> np.ndarray:
    """`true_curves` of truths by flat name."""
    structure = spec.structure
    theta = [[truth[f"theta[{unit},{name}]"] for name in structure.fitted] for unit in structure.units]
    alpha = [truth[f"alpha[{name}]"] for name in structure.inferred]
    return true_curves(spec, {"alpha": np.array(alpha), "theta": np.array(theta)})


def world(spec: Spec, rng: np.random.Generator) -> tuple[CircuitPopulation, dict[str, float]]:
    """A structure with new readings, and the truths by their flat names."""
    structure, made, f = spec.structure, {}, np.full(1, np.nan)
    for _ in range(_TRIES):
        made = draw_population(spec, rng)
        f = true_curves(spec, made)
        if np.isfinite(f).all():
            break
    return read(spec, made, f, rng), named(structure, made)


def read(
    spec: Spec, truth: dict[str, np.ndarray], f: np.ndarray, rng: np.random.Generator
) -> CircuitPopulation:
    """The structure with readings of the curves `f`: gains by course, noise by reading."""
    structure = spec.structure
    draw = {name: value[0] for name, value in truth.items() if name in ("noise", "exponent", "gain")}
    return replace(structure, value=new_readings(spec, draw, f[structure.point], structure.course, rng))


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
