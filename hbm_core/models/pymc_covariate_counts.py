"""The PyMC model of counts with covariates, equal windows added up, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from hbm_core.models.covariate_counts import CovariateCounts
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

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[CovariateCounts]
#: Nodes over each rate where it is integrated out.
NODES = 21


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: no numbers, and no count of windows."""
    return spec_key(spec, len(spec.structure.columns))


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    alike = structure.alike
    own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
    values = prior_values(spec) | histogram_values(structure.count)
    values |= {"constant": np.array(own.sum()), "slope": structure.count @ structure.design}
    columns = {"exposure": alike.exposure, "windows": alike.windows, "total": alike.total}
    if collapsed(spec):
        empty = {"shut": np.zeros(alike.total.size)}
        return values | class_values(alike.entity, columns | empty, alike.design)
    groups = {f"group_{name}": column for name, column in columns.items()}
    groups |= {"group_of": alike.entity, "group_design": alike.design}
    return values | groups | {"total": structure.total}


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu``, ``alpha``, ``beta`` (column), ``phi``; ``theta`` (unit) unless it is integrated out;
    ``z`` (unit) where the sampler moves it instead (scaled).
    """
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model(coords=unit_coords(spec) | {"column": list(spec.structure.columns)}) as model:
        data, drawn = declared(spec, data_values(spec), {"beta": "column"})
        alpha, beta, phi = drawn["alpha"], drawn["beta"], drawn["phi"]
        shape = drawn["mu"] * alpha
        known = data["constant"] + pt.sum(data["slope"] * beta) + rising(data, phi)
        if collapsed(spec):
            moved = pt.dot(data["class_design"], beta)
            rates = rates_integrated(data, shape, alpha, phi, moved=moved, nodes=NODES)
            pm.Potential("marginal", known + rates)
            return model
        theta = gamma_rates(shape, alpha, spec.parameterization == "scaled")
        moved = pt.exp(pt.dot(data["group_design"], beta)) * data["group_exposure"]
        powers = pt.sum(data["total"] * pt.log(theta))
        rest = falling(data, theta[data["group_of"]] * moved, phi)
        pm.Potential("likelihood", known + powers + rest)
    return model
