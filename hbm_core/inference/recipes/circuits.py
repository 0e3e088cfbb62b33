"""Sampling a population of circuits: nothing is integrated out but the courses' gains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import betaln, multigammaln

from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.inference.sampler import CORES, Sampler
from hbm_core.models import pymc_circuits
from hbm_core.models.circuits import FLOOR, POWERS, CircuitPopulation, smooth_positive
from hbm_core.models.circuits_rough import SPREAD, rough_fit
from hbm_core.models.pymc_circuits import (
    Spec,
    coordinates,
    inverse_wishart,
    is_bent,
    population,
)

#: Draws whose curves are kept with a result, at most.
CURVES = 1000
#: Draws of each half of a pilot's chain.
PILOT = 200


class CircuitsRecipe(Recipe):
    """What a result of circuits holds; flat names in brackets.

    posterior (chain, draw)
        ``alpha`` (inferred: fitted parameters, then those shared by all circuits; only the latter without
        pooling) [``alpha[k_tx]``], ``sigma`` (parameter; with pooling "diagonal" and "full")
        [``sigma[k_tx]``], ``corr`` (pair; "full"; packed below the diagonal, `correlation_matrices` unpacks)
        [``corr[k_tx,K_tx]``], ``noise``, with noise "power" ``exponent`` and ``gain``, with standards
        ``slope``, ``offset`` and ``reading_sd``; ``theta`` (circuit, parameter: all fitted ones, also those
        that a circuit does not use) [``theta[cascade,k_tx]``]. log10 of the constants throughout.
    curves (sample, point)
        ``curve``, float32: the observed species' mean f, before gain and calibration, at every distinct time
        of every condition of every circuit, for at most ``CURVES`` draws spread evenly over all. Along
        ``sample``: ``chain`` and ``draw`` (places in the posterior); along ``point``: ``circuit``,
        ``condition`` and ``time_min``. ``reading_sd`` and ``gain`` make bands of readings of it.
    log_density (chain, draw)
        ``log_prior`` of the posterior's own variables (θ, α, σ, Ω, the noise's; no sampler's coordinates),
        ``log_likelihood``, and ``log_posterior``, their sum.
    log_likelihood (chain, draw, unit)
        ``y`` of each condition, labelled "circuit: condition".
    constant_data (reading)
        ``point`` (place in ``curves``) and ``course`` of each reading; observed_data ``y`` itself.
    """

    model = pymc_circuits

    #: Curves take the solver.
    light = False

    def mass_matrix(self, spec: Spec) -> str:
        """Ridges are strong correlations."""
        return "low_rank"

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of the vectors."""
        return {
            "alpha": ("inferred",),
            "sigma": ("parameter",),
            "corr": ("pair",),
            "theta": ("circuit", "parameter"),
        }

    def centres(self, spec: Spec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Means and noise of the rough fit, middling spreads."""
        median, sd = population(spec)
        rough = rough_fit(spec.structure)
        names = [f"alpha[{name}]" for name in spec.structure.inferred]
        means = np.concatenate([rough.alpha, median[rough.alpha.size :]])
        centre: dict[str, Any] = dict(zip(names, means, strict=True)) | {"sigma": SPREAD, "corr": 0.0}
        centre |= {"noise": np.exp(rough.noise[0]), "exponent": rough.noise[1], "gain": rough.noise[2]}
        if spec.structure.standards.size:
            amount, reading = spec.structure.standards.T
            slope, offset = spec.structure.standards_line
            off = float(np.std(reading - slope * amount - offset)) or 1.0
            centre |= {"slope": slope, "offset": offset, "reading_sd": off}
        width: dict[str, Any] = dict(zip(names, 0.1 * sd, strict=True)) | {"exponent": 0.1, "corr": 0.1}
        return centre, width | {"offset": centre.get("reading_sd", 1.0)}

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Means and circuits near those of the rough fit, correlations near 0."""
        median, sd = population(spec)
        rough = rough_fit(spec.structure)
        size = len(spec.structure.fitted)
        if name == "alpha":
            means = np.concatenate([rough.alpha, median[size:]]) + 0.1 * sd * _padded(jitter, median.size)
            return means[median.size - jitter.size :]
        if name == "own":
            return rough.theta + 0.1 * jitter
        if name == "z" and spec.structure.pooling != "independent":
            return (rough.theta - rough.alpha) / SPREAD + 0.2 * jitter
        if name == "z":
            return (rough.theta - median[:size]) / sd[:size] + 0.2 * jitter
        if name == "bartlett_diagonal_log__":
            return np.log(np.maximum(inverse_wishart(spec)[0] - np.arange(size), 1.0)) + 0.2 * jitter
        return 0.2 * jitter

    def pilot(self, spec: Spec, sampler: Sampler) -> Sampler | None:
        """Of the transport, where there are ridges and a warm-up that is long beside it."""
        short = sampler.tune < 2 * PILOT
        if short or spec.parameterization != "transport" or not is_bent(spec.structure):
            return None
        return replace(sampler, tune=PILOT, draws=PILOT, target_accept=0.8)

    def shaped(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> Arrays:
        """Bends that follow the ridges where the posterior is."""
        theta = np.asarray(draws["theta"])
        return coordinates(spec, theta.reshape(-1, *theta.shape[2:]), CORES)

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
            "pair": list(structure.pair_labels),
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

    def derived(
        self, spec: Spec, draws: Mapping[str, np.ndarray], log_likelihood: np.ndarray | None
    ) -> Mapping[str, xr.Dataset]:
        """Groups ``curves`` and ``log_density``."""
        chains, length = draws["theta"].shape[:2]
        flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in draws.items()}
        kept = np.unique(np.linspace(0, chains * length - 1, min(CURVES, chains * length)).astype(int))
        found = np.array(list(predicted(spec, {name: values[kept] for name, values in flat.items()})))
        chain, draw = np.divmod(kept, length)
        labels: dict[str, Any] = {"chain": ("sample", chain), "draw": ("sample", draw)}
        labels |= {name: ("point", values) for name, values in spec.structure.point_labels.items()}
        groups = {"curves": xr.Dataset({"curve": (("sample", "point"), found.astype(np.float32))}, labels)}
        if log_likelihood is not None:
            likelihood = log_likelihood.sum(axis=1) + standards_log_density(spec, flat)
            prior = log_prior(spec, flat)
            densities = {
                "log_prior": prior,
                "log_likelihood": likelihood,
                "log_posterior": prior + likelihood,
            }
            groups["log_density"] = xr.Dataset(
                {
                    name: (("chain", "draw"), values.reshape(chains, length))
                    for name, values in densities.items()
                },
                {"chain": np.arange(chains), "draw": np.arange(length)},
            )
        return groups

    def log_ratio(self, new: Spec, old: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Means share one variable, correlations one density, and without pooling θ has its own prior."""
        if dict(new.priors) == dict(old.priors):
            return np.zeros(len(draws["theta"]))
        return log_prior(new, draws) - log_prior(old, draws)

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Readings; their places on the curves and their courses."""
        structure = spec.structure
        coords = {"reading": np.arange(structure.value.size)}
        constant = {"point": ("reading", structure.point), "course": ("reading", structure.course)}
        return xr.Dataset({"y": ("reading", structure.value)}, coords), xr.Dataset(constant, coords)

    def extreme(self, spec: Spec) -> list[str]:
        """No reading is so far off that its density is not finite."""
        return []


def correlation_matrices(corr: np.ndarray, size: int) -> np.ndarray:
    """Correlation matrices (…, P, P) from correlations packed below the diagonal (…, P (P − 1)/2)."""
    found = np.zeros((*corr.shape[:-1], size, size))
    rows, columns = np.tril_indices(size, -1)
    found[..., rows, columns] = found[..., columns, rows] = corr
    return found + np.eye(size)


def log_prior(spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log density of the prior of all that a result holds, ndarray (n,).

    By θ, α, σ, the correlations and the noise's parameters themselves: the same for every geometry.
    """
    structure, size = spec.structure, len(spec.structure.fitted)
    theta, (median, sd) = draws["theta"], population(spec)
    total = np.zeros(len(theta))
    for name, prior in spec.priors.items():
        if "[" not in name and name != "corr":
            total += prior.log_density(draws[name]).reshape(len(theta), -1).sum(axis=1)
    if structure.pooling == "independent":
        total += _normal(theta, median[:size], sd[:size])
        return total + (_normal(draws["alpha"], median[size:], sd[size:]) if structure.common else 0.0)
    total += _normal(draws["alpha"], median, sd)
    if structure.pooling == "shared":
        return total
    gap, sigma = theta - draws["alpha"][:, None, :size], draws["sigma"]
    if structure.pooling == "diagonal":
        return total + _normal(gap, 0.0, sigma[:, None])
    omega = correlation_matrices(draws.get("corr", np.empty((len(theta), 0))), size)
    log_sigma, (sign, log_omega) = np.log(sigma).sum(axis=1), np.linalg.slogdet(omega)
    # A chain that strays may leave correlations of 1 to rounding: the density ends there.
    singular = sign <= 0
    omega[singular], log_omega[singular], total[singular] = np.eye(size), 0.0, -np.inf
    z = gap / sigma[:, None]
    square = np.einsum("ncp,ncp->n", z, np.linalg.solve(omega, z.swapaxes(1, 2)).swapaxes(1, 2))
    count = len(structure.units)
    total -= 0.5 * square + count * (log_sigma + 0.5 * log_omega + 0.5 * size * np.log(2 * np.pi))
    if structure.covariance == "lkj":
        return total + _lkj(log_omega, size, spec.priors["corr"].numbers[0])
    # Σ ~ InverseWishart(ν, ψ I), brought to σ and Ω: |∂Σ/∂(σ, Ω)| = 2^P Π σ^P.
    freedom, scatter = inverse_wishart(spec)
    trace = (np.diagonal(np.linalg.inv(omega), axis1=1, axis2=2) / sigma**2).sum(axis=1)
    total += 0.5 * freedom * size * np.log(scatter / 2) - multigammaln(0.5 * freedom, size)
    total -= 0.5 * (freedom + size + 1) * (2 * log_sigma + log_omega) + 0.5 * scatter * trace
    return total + size * np.log(2) + size * log_sigma


def _normal(x: np.ndarray, mean: Any, sd: Any) -> np.ndarray:
    """Log density of independent normals, by the first axis."""
    terms = -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
    return np.sum(terms, axis=tuple(range(1, terms.ndim)))


def _lkj(log_determinant: np.ndarray, size: int, eta: float) -> np.ndarray:
    """Lewandowski, Kurowicka and Joe (2009), equation 16."""
    k = np.arange(1, size)
    shape = eta + (size - k - 1) / 2
    constant = ((2 * eta - 2 + size - k) * (size - k)).sum() * np.log(2)
    return (eta - 1) * log_determinant - constant - ((size - k) * betaln(shape, shape)).sum()


def standards_log_density(spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log density of the calibration's standards, ndarray (n,); 0 without."""
    if not spec.structure.standards.size:
        return np.zeros(len(draws["theta"]))
    amount, reading = spec.structure.standards.T
    line = draws["slope"][:, None] * amount + draws["offset"][:, None]
    return _normal(line, reading, draws["reading_sd"][:, None])


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
    log_sd, power, _ = noise_of(spec, draw)
    return np.exp(log_sd) * smooth_positive(f, float(spec.constants.get("floor", FLOOR))) ** power


def new_readings(
    spec: Spec, draw: Mapping[str, Any], f: np.ndarray, course: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Amounts as they are read around the curve `f` (n,), in courses (n,) of int: gains, then noise."""
    _, power, spread = noise_of(spec, draw)
    gain = np.exp(spread * rng.standard_normal(int(course.max()) + 1))[course]
    return gain * f + gain**power * reading_sd(spec, draw, f) * rng.standard_normal(f.size)


def noise_of(spec: Spec, draw: Mapping[str, Any]) -> np.ndarray:
    """Log σ₀, γ and the sd of the gains' logs, as `hbm_core.models.circuits_rule.weigh` takes them."""
    power: Any = POWERS.get(spec.structure.noise)
    power = draw["exponent"] if power is None else power
    spread = draw["gain"] if spec.structure.has_gain else 0.0
    return np.array([np.log(float(draw["noise"])), float(power), float(spread)])


def _course_log_density(spec: Spec, draw: Mapping[str, Any], curve: np.ndarray) -> np.ndarray:
    """Log density of each course's readings, ndarray (courses,)."""
    from hbm_core.models import circuits_rule

    rule: Any = circuits_rule
    structure = spec.structure
    value, scale = structure.value, 0.0
    if structure.standards.size:
        value, scale = (value - draw["offset"]) / draw["slope"], float(np.log(draw["slope"]))
    floor = float(spec.constants.get("floor", FLOOR))
    found = rule.weigh_courses(curve, noise_of(spec, draw), floor, value, structure.point, structure.course)
    return found - scale * np.bincount(structure.course)


def _padded(jitter: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([np.zeros(size - jitter.size), jitter])
