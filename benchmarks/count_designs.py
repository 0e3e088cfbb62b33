"""Small designs of the models of counts that are sampled, for their calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts


def _windows(units: int, windows: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Counts to be replaced, whose they are, and labels."""
    entity = np.repeat(np.arange(units), windows)
    return np.ones(entity.size), entity, tuple(f"host{place}" for place in range(1, units + 1))


def _zero_inflated() -> ZeroInflatedCounts:
    return ZeroInflatedCounts(*_windows(12, 10))


def _covariates() -> CovariateCounts:
    count, entity, units = _windows(10, 8)
    x = np.random.default_rng(0).standard_normal(count.size)
    x = (x - x.mean()) / x.std()
    return CovariateCounts(count, entity, units, np.empty(0), x, ("x",))


def _drift() -> DriftingCounts:
    return DriftingCounts(*_windows(5, 14))


def _drift_dispersed() -> DriftingCounts:
    return DriftingCounts(*_windows(4, 30), np.empty(0), "negative_binomial")


def _joint() -> JointCounts:
    count, entity, units = _windows(12, 5)
    return JointCounts(count, entity, units, np.empty(0), count)


#: Priors that are proper and do not make data at the ends of what a computer counts.
_RATES = {"mu": "Gamma(4, 0.8)", "alpha": "Gamma(3, 3)"}
_DRIFT = {**_RATES, "rho": "Uniform(-1, 1)", "sigma_drift": "HalfNormal(0.7)"}
#: Structure, priors and geometry of each.
DESIGNS: Mapping[str, tuple[Callable[[], Any], Mapping[str, str], str]] = {
    "zero_inflated": (_zero_inflated, {**_RATES, "phi": "Gamma(3, 1)", "psi": "Beta(2, 4)"}, "centered"),
    "covariates": (_covariates, {**_RATES, "beta": "Normal(0, 0.7)", "phi": "Gamma(3, 1)"}, "centered"),
    "drift": (_drift, _DRIFT, "noncentered"),
    "drift_dispersed": (_drift_dispersed, {**_DRIFT, "phi": "Gamma(3, 1)"}, "noncentered"),
    "joint": (
        _joint,
        {
            "mu_count": "Normal(1.5, 1)",
            "mu_bytes": "Normal(6, 1)",
            "sigma_count": "Gamma(4, 6)",
            "sigma_bytes": "Gamma(4, 6)",
            "corr": "LKJ(2)",
            "phi": "Gamma(3, 1)",
            "sigma_window": "Gamma(4, 6)",
        },
        "noncentered",
    ),
}


def spec_of(name: str) -> ModelSpec[Any]:
    """The model of one of the `DESIGNS`."""
    make, priors, geometry = DESIGNS[name]
    structure = make()
    return ModelSpec(structure, {n: Prior.parse(priors[n]) for n in structure.parameters}, {}, geometry)
