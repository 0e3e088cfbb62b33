"""The PyMC model of counts with covariates, equal windows added up, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.pymc_counts import declared, gamma_rates, prior_values, spec_key
from hbm_core.models.pymc_gamma_counts import dispersed
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[CovariateCounts]


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: no numbers, and no count of windows."""
    return spec_key(spec, len(spec.structure.columns))


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    alike = structure.alike
    own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
    value, times = structure.histogram
    return prior_values(spec) | {
        "constant": np.array(own.sum()),
        "total": structure.total,
        "slope": structure.count @ structure.design,
        "value": value,
        "times": times,
        "group_of": alike.entity,
        "group_exposure": alike.exposure,
        "group_design": alike.design,
        "group_windows": alike.windows,
        "group_total": alike.total,
    }


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu``, ``alpha``, ``beta`` (column), ``phi``; ``theta`` (unit); ``z`` (unit) where the sampler
    moves it instead (scaled).
    """
    import pymc as pm
    import pytensor.tensor as pt

    structure = spec.structure
    coords = {"unit": list(structure.units), "column": list(structure.columns)}
    with pm.Model(coords=coords) as model:
        data, drawn = declared(spec, data_values(spec), {"beta": "column"})
        theta = gamma_rates(drawn["mu"], drawn["alpha"], spec.parameterization == "scaled")
        beta = drawn["beta"]
        moved = pt.exp(pt.dot(data["group_design"], beta)) * data["group_exposure"]
        powers = pt.sum(data["total"] * pt.log(theta)) + pt.sum(data["slope"] * beta)
        rest = dispersed(data, theta[data["group_of"]] * moved, drawn["phi"])
        pm.Potential("likelihood", data["constant"] + powers + rest)
    return model
