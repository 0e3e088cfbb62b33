"""Data sets that a model of counts would make: given its parameters, and from its priors.

The models beyond the gamma population; their data keep the design of a structure, with other counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hbm_core.models.count_windows import CountWindows
from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.structure import ModelSpec
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts

#: Rates and means of counts beyond this are cut: nothing counts so far.
_FARTHEST = 1e12


def window_means(
    structure: CountWindows, draws: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Expected counts of open windows, ndarray (R, N); of drifting rates with a path of their own."""
    mean = draws["theta"][:, structure.entity] * structure.exposure
    if isinstance(structure, CovariateCounts):
        with np.errstate(over="ignore"):
            mean = mean * np.exp(draws["beta"] @ structure.design.T)
    if isinstance(structure, DriftingCounts):
        mean = mean * np.exp(drift_paths(structure, draws, rng))
    return np.minimum(mean, _FARTHEST)


def drift_paths(
    structure: DriftingCounts, draws: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """d_it ~ AR(1) along each entity's windows, in the order of the data, ndarray (R, N)."""
    rho, sigma = draws["rho"], draws["sigma_drift"]
    fresh = np.sqrt(1 - rho**2)
    found = np.empty((rho.size, structure.count.size))
    sorted_path = rng.standard_normal(found.shape)
    step = structure.step
    for at in range(1, int(step.max()) + 1):
        here = np.flatnonzero(step == at)
        sorted_path[:, here] = rho[:, None] * sorted_path[:, here - 1] + fresh[:, None] * sorted_path[:, here]
    found[:, structure.order] = sigma[:, None] * sorted_path
    return found


def replicate_counts(
    structure: CountWindows, draws: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Counts of the same design, one data set per draw of the parameters, ndarray (R, N).

    Parameters
    ----------
    structure : CountWindows
        The design: zero-inflated, with covariates, drifting, or with bytes.
    draws : mapping of str to ndarray (R, …)
        ``theta`` (R, J) and the other parameters of the structure.
    rng : numpy.random.Generator
        Source of randomness.
    """
    mean = window_means(structure, draws, rng)
    if "phi" in structure.parameters:
        phi = np.maximum(draws["phi"], 1e-6)[:, None]
        mean = np.minimum(mean * rng.standard_gamma(np.broadcast_to(phi, mean.shape)) / phi, _FARTHEST)
    counts = rng.poisson(mean).astype(float)
    if isinstance(structure, ZeroInflatedCounts):
        counts[rng.random(counts.shape) < draws["psi"][:, None]] = 0.0
    return counts


def draw_parameters(spec: ModelSpec[Any], count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Parameters and effects from the priors: (count,), ``beta`` (count, p), ``theta`` (count, J).

    Of counts with bytes ``theta_bytes`` (count, J) too.
    """
    structure = spec.structure
    units = (count, len(structure.units))
    found = {}
    for name, prior in spec.priors.items():
        size = (count, len(structure.columns)) if name == "beta" else count
        found[name] = np.asarray(prior.distribution.rvs(size=size, random_state=rng), dtype=float)
    if isinstance(structure, JointCounts):
        z, other = rng.standard_normal((2, *units))
        corr = found["corr"][:, None]
        bytes_z = corr * z + np.sqrt(1 - corr**2) * other
        for name, kind, noise in (("theta", "count", z), ("theta_bytes", "bytes", bytes_z)):
            level = found[f"mu_{kind}"][:, None] + found[f"sigma_{kind}"][:, None] * noise
            found[name] = np.exp(np.minimum(level, np.log(_FARTHEST)))
        return found
    alpha = np.maximum(found["alpha"][:, None], 1e-9)
    shape = np.broadcast_to(found["mu"][:, None] * alpha, units)
    # Of tiny shapes a gamma variate is 0 to the last digit; a rate is not.
    return found | {"theta": np.maximum(rng.standard_gamma(shape) / alpha, 1e-300)}


def simulated_structure(
    structure: CountWindows, draws: Mapping[str, np.ndarray], rng: np.random.Generator
) -> CountWindows:
    """The same design with data made from one draw of the parameters (arrays with a first axis of 1)."""
    count = replicate_counts(structure, draws, rng)[0]
    changed: dict[str, np.ndarray] = {"count": count}
    if isinstance(structure, JointCounts):
        noise = draws["sigma_window"][0] * rng.standard_normal(count.size)
        level = np.log(draws["theta_bytes"][0])[structure.entity] + np.log(structure.exposure)
        changed["volume"] = np.where(np.isfinite(structure.volume), np.exp(level + noise), np.nan)
    return replace(structure, **changed)  # type: ignore[arg-type]
