"""The PyMC model of zero-inflated counts, by sufficient statistics, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from hbm_core.models.count_windows import added_up
from hbm_core.models.pymc_counts import (
    class_values,
    collapsed,
    declared,
    falling,
    gamma_rates,
    histogram_values,
    prior_values,
    rates_integrated,
    rising,
    spec_key,
    unit_coords,
)
from hbm_core.models.structure import ModelSpec
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[ZeroInflatedCounts]
#: Nodes over each rate where it is integrated out: one rule spans zeros of both kinds.
NODES = 33


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: no numbers, and no count of windows."""
    return spec_key(spec)


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
    positive = structure.count > 0
    values = prior_values(spec) | histogram_values(structure.count[positive])
    values |= {"constant": np.array(own.sum()), "positive": np.array(float(positive.sum()))}
    if collapsed(spec):
        every = structure.totals
        shut = added_up(structure.entity, structure.exposure, ~positive).total
        columns = {"exposure": every.exposure, "windows": every.windows - shut, "total": every.total}
        return values | class_values(every.entity, columns | {"shut": shut})
    opened, zeros = structure.open_totals, structure.zeros
    return values | {
        "total": structure.total,
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

    Variables: ``mu``, ``alpha``, ``phi``, ``psi``; ``theta`` (unit) unless it is integrated out; ``z`` (unit)
    where the sampler moves it instead (scaled).
    """
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model(coords=unit_coords(spec)) as model:
        data, drawn = declared(spec, data_values(spec))
        alpha, phi, psi = drawn["alpha"], drawn["phi"], drawn["psi"]
        shape = drawn["mu"] * alpha
        opened = data["constant"] + rising(data, phi) + data["positive"] * pt.log1p(-psi)
        if collapsed(spec):
            rates = rates_integrated(data, shape, alpha, phi, psi=psi, nodes=NODES)
            pm.Potential("marginal", opened + rates)
            return model
        theta = gamma_rates(shape, alpha, spec.parameterization == "scaled")
        mean = theta[data["group_of"]] * data["group_exposure"]
        opened += pt.sum(data["total"] * pt.log(theta)) + falling(data, mean, phi)
        empty = -phi * pt.log1p(theta[data["zero_of"]] * data["zero_exposure"] / phi)
        zero = pt.logaddexp(pt.log(psi), pt.log1p(-psi) + empty)
        pm.Potential("likelihood", opened + pt.sum(data["zero_windows"] * zero))
    return model
