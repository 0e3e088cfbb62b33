"""The PyMC model of counts and bytes together, by sufficient statistics, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.pymc_counts import declared, falling, histogram_values, prior_values, rising, spec_key
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[JointCounts]


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: no numbers, and no count of windows."""
    return spec_key(spec)


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    totals, sums = structure.totals, structure.byte_sums
    own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
    return (
        prior_values(spec)
        | histogram_values(structure.count)
        | {
            "constant": np.array(own.sum() + sums.constant.sum()),
            "total": structure.total,
            "group_of": totals.entity,
            "group_exposure": totals.exposure,
            "group_windows": totals.windows,
            "group_total": totals.total,
            "byte_windows": sums.windows,
            "byte_mean": sums.mean,
            "byte_within": np.array(sums.within.sum()),
        }
    )


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu_count``, ``mu_bytes``, ``sigma_count``, ``sigma_bytes``, ``phi``, ``sigma_window``;
    ``corr`` = 2 ``corr_share`` − 1; ``log_rate`` and ``log_bytes`` (unit), moved themselves (centered) or as
    standard normals ``z_count`` and ``z_bytes``; ``theta`` and ``theta_bytes`` (unit), their exponentials.
    """
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model(coords={"unit": list(spec.structure.units)}) as model:
        data, drawn = declared(spec, data_values(spec))
        # In two dimensions LKJ(η) is a correlation of 2B − 1, B ~ Beta(η, η).
        eta = data["prior_corr"][0]
        corr = pm.Deterministic("corr", 2 * pm.Beta("corr_share", eta, eta) - 1)
        rest = pt.sqrt((1 - corr) * (1 + corr))
        mean_a, mean_c = drawn["mu_count"], drawn["mu_bytes"]
        sd_a, sd_c = drawn["sigma_count"], drawn["sigma_bytes"]
        if spec.parameterization == "noncentered":
            z_a, z_c = (pm.Normal(name, 0.0, 1.0, dims="unit") for name in ("z_count", "z_bytes"))
            a = pm.Deterministic("log_rate", mean_a + sd_a * z_a, dims="unit")
            c = pm.Deterministic("log_bytes", mean_c + sd_c * (corr * z_a + rest * z_c), dims="unit")
        else:
            a = pm.Normal("log_rate", mean_a, sd_a, dims="unit")
            given = mean_c + sd_c * corr * (a - mean_a) / sd_a
            c = pm.Normal("log_bytes", given, sd_c * rest, dims="unit")
        theta = pm.Deterministic("theta", pt.exp(a), dims="unit")
        pm.Deterministic("theta_bytes", pt.exp(c), dims="unit")
        mean = theta[data["group_of"]] * data["group_exposure"]
        counts = pt.sum(data["total"] * a) + rising(data, drawn["phi"]) + falling(data, mean, drawn["phi"])
        sd, windows = drawn["sigma_window"], data["byte_windows"]
        squares = data["byte_within"] + pt.sum(windows * (data["byte_mean"] - c) ** 2)
        volumes = -pt.sum(windows) * pt.log(sd) - 0.5 * squares / sd**2
        pm.Potential("likelihood", data["constant"] + counts + volumes)
    return model
