"""The PyMC model of zero-inflated counts, by sufficient statistics, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from hbm_core.models.pymc_counts import declared, gamma_rates, prior_values, spec_key
from hbm_core.models.pymc_gamma_counts import dispersed
from hbm_core.models.structure import ModelSpec
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[ZeroInflatedCounts]


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: no numbers, and no count of windows."""
    return spec_key(spec)


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    opened, zeros = structure.open_totals, structure.zeros
    own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
    value, times = np.unique(structure.count[structure.count > 0], return_counts=True)
    return prior_values(spec) | {
        "total": structure.total,
        "constant": np.array(own.sum()),
        "positive": np.array(float(times.sum())),
        "value": value,
        "times": times.astype(float),
        "group_of": opened.entity,
        "group_exposure": opened.exposure,
        "group_windows": opened.windows,
        "group_total": opened.total,
        "zero_of": zeros.entity,
        "zero_exposure": zeros.exposure,
        "zero_windows": zeros.windows,
    }


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu``, ``alpha``, ``phi``, ``psi``; ``theta`` (unit); ``z`` (unit) where the sampler moves it
    instead (scaled).
    """
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model(coords={"unit": list(spec.structure.units)}) as model:
        data, drawn = declared(spec, data_values(spec))
        theta = gamma_rates(drawn["mu"], drawn["alpha"], spec.parameterization == "scaled")
        phi, psi = drawn["phi"], drawn["psi"]
        mean = theta[data["group_of"]] * data["group_exposure"]
        opened = data["constant"] + pt.sum(data["total"] * pt.log(theta)) + dispersed(data, mean, phi)
        empty = -phi * pt.log1p(theta[data["zero_of"]] * data["zero_exposure"] / phi)
        zero = pt.logaddexp(pt.log(psi), pt.log1p(-psi) + empty)
        log_likelihood = opened + data["positive"] * pt.log1p(-psi) + pt.sum(data["zero_windows"] * zero)
        pm.Potential("likelihood", log_likelihood)
    return model
