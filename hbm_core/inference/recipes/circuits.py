"""Sampling a population of circuits: nothing is integrated out but the courses' gains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models import pymc_circuits
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.pymc_circuits import FLOOR, Spec, population, smooth_positive

#: Where parameters of the noise start.
_START = {"noise": 0.3, "exponent": 0.75, "gain": 0.05, "sigma": 0.25, "corr": 0.0}


class CircuitsRecipe(Recipe):
    """``alpha``, ``sigma``, ``corr`` (pair), the noise's parameters and ``theta`` (circuit, parameter)."""

    model = pymc_circuits

    mass_matrix = "low_rank"

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of the vectors."""
        return {
            "alpha": ("inferred",),
            "sigma": ("parameter",),
            "corr": ("pair",),
            "theta": ("circuit", "parameter"),
        }

    def centres(self, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Prior medians of the means; middling spreads and noise."""
        median, sd = population(spec)
        names = [f"alpha[{name}]" for name in spec.structure.inferred]
        centre: dict[str, Any] = dict(zip(names, median, strict=True)) | _START
        if spec.structure.standards.size:
            amount, reading = spec.structure.standards.T
            slope, offset = np.polyfit(amount, reading, 1)
            off = float(np.std(reading - slope * amount - offset)) or 1.0
            centre |= {"slope": slope, "offset": offset, "reading_sd": off}
        width: dict[str, Any] = dict(zip(names, 0.1 * sd, strict=True)) | {"exponent": 0.1, "corr": 0.1}
        return centre, width | {"offset": centre.get("reading_sd", 1.0)}

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Means near their prior medians, circuits near their means, correlations near 0."""
        median, sd = population(spec)
        size = len(spec.structure.fitted)
        if name == "alpha":
            common = jitter.size < median.size
            return (
                (median + 0.1 * sd * _padded(jitter, median.size))[size:]
                if common
                else median + 0.1 * sd * jitter
            )
        if name == "circuits":
            return median[:size] + 0.1 * jitter
        if name == "bartlett_diagonal_log__":
            freedom = float(spec.constants.get("nu", size + 1))
            return np.log(np.maximum(freedom - np.arange(size), 1.0)) + 0.2 * jitter
        return 0.2 * jitter

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """The model's own variables, the sampler's coordinates left out."""
        structure = spec.structure
        names = ["alpha"] if structure.inferred and "alpha" in draws and draws["alpha"].shape[-1] else []
        names += [name for name in ("sigma", "corr") if name in draws]
        names += [name for name in structure.parameters if "[" not in name and name not in ("sigma", "corr")]
        return {name: draws[name] for name in (*names, "theta")}

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of circuits, parameters, pairs of parameters, and of every condition."""
        structure = spec.structure
        fitted = structure.fitted
        means = structure.common if structure.pooling == "independent" else structure.inferred
        return {
            "circuit": list(structure.units),
            "parameter": list(fitted),
            "inferred": list(means),
            "pair": [f"{fitted[i]},{fitted[j]}" for i, j in structure.pairs],
            "unit": [
                f"{unit}: {condition}"
                for unit, labels in zip(structure.units, structure.conditions, strict=True)
                for condition in labels
            ],
        }

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log density of each condition's readings given θ, gains integrated out, per draw and condition."""
        structure = spec.structure
        lengths = [e.times.size for e in structure.experiments for _ in e.conditions]
        condition_of = np.repeat(np.arange(len(lengths)), lengths)[structure.point]
        owner = np.zeros(int(structure.course.max()) + 1, dtype=int)
        owner[structure.course] = condition_of
        found = np.zeros((draws["theta"].shape[0], len(lengths)))
        for row, f in enumerate(predicted(spec, draws)):
            terms = _course_log_density(spec, {name: v[row] for name, v in draws.items()}, f)
            np.add.at(found[row], owner, terms)
        return found

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Readings; their places on the curves and their courses."""
        structure = spec.structure
        coords = {"reading": np.arange(structure.value.size)}
        constant = {"point": ("reading", structure.point), "course": ("reading", structure.course)}
        return xr.Dataset({"y": ("reading", structure.value)}, coords), xr.Dataset(constant, coords)

    def extreme(self, spec: Spec) -> list[str]:
        """No reading is so far off that its density is not finite."""
        return []


def whole_theta(spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """All parameters of all circuits in the solver's columns, ndarray (n, C, K), log10."""
    structure: CircuitPopulation = spec.structure
    theta = draws["theta"]
    common = draws["alpha"][:, -len(structure.common) :] if structure.common else np.empty((len(theta), 0))
    fixed = np.array([structure.declared[name].center for name in structure.fixed])
    rest = np.concatenate([common, np.broadcast_to(fixed, (len(theta), fixed.size))], axis=1)
    shape = (*theta.shape[:2], rest.shape[1])
    return np.concatenate([theta, np.broadcast_to(rest[:, None], shape)], axis=2)


def predicted(spec: Spec, draws: Mapping[str, np.ndarray]) -> Iterable[np.ndarray]:
    """Curves of all circuits, one array (points,) per draw."""
    from hbm_core.models.kinetics.solver import curves

    tables = spec.structure.tables
    for theta in whole_theta(spec, draws):
        yield curves(tables, theta)


def reading_sd(spec: Spec, draw: Mapping[str, Any], f: np.ndarray) -> np.ndarray:
    """Standard deviation of readings whose curve is at `f`, the gain apart, ndarray as `f`."""
    if spec.structure.noise == "constant":
        return np.full(f.shape, float(draw["noise"]))
    power = {"heteroscedastic": 0.5, "proportional": 1.0}.get(spec.structure.noise)
    power = float(draw["exponent"]) if power is None else power
    return float(draw["noise"]) * smooth_positive(f, float(spec.constants.get("floor", FLOOR))) ** power


def _course_log_density(spec: Spec, draw: Mapping[str, Any], curve: np.ndarray) -> np.ndarray:
    """Log density of each course's readings, ndarray (courses,)."""
    structure = spec.structure
    f, value, scale = curve[structure.point], structure.value, 0.0
    if structure.standards.size:
        value, scale = (value - draw["offset"]) / draw["slope"], np.log(draw["slope"])
    sd = reading_sd(spec, draw, f)
    weight, gap = 1 / sd**2, value - f
    count = int(structure.course.max()) + 1

    def summed(terms: np.ndarray) -> np.ndarray:
        return np.bincount(structure.course, terms, count)

    found = summed(-0.5 * weight * gap**2 - np.log(sd) - 0.5 * np.log(2 * np.pi) - scale)
    if structure.has_gain:
        variance = float(draw["gain"]) ** 2
        more = 1 + variance * summed(weight * f**2)
        found += 0.5 * variance * summed(weight * f * gap) ** 2 / more - 0.5 * np.log(more)
    return found


def _padded(jitter: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([np.zeros(size - jitter.size), jitter])
