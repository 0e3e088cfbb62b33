"""PyMC models of gamma counts in every geometry, by sufficient statistics, with all numbers as data.

Given φ the rates enter through sums over windows of equal exposure of one entity, and φ through the histogram
of counts: the same posterior as a likelihood with one term per window, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln

from hbm_core.models.gamma_counts import GammaCounts
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

Spec = ModelSpec[GammaCounts]


#: Nodes over each rate where it is integrated out.
_NODES = 21


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code; the count of entities only where the sampler moves their rates."""
    return spec_key(spec, spec.structure.likelihood, spec.structure.effects)


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
    values = prior_values(spec) | {"constant": np.array(own.sum())}
    if structure.likelihood == "poisson":
        return values | {"total": structure.total, "exposure": structure.total_exposure}
    values |= histogram_values(structure.count)
    totals = structure.totals
    columns = {"exposure": totals.exposure, "windows": totals.windows, "total": totals.total}
    if collapsed(spec):
        return values | class_values(totals.entity, columns | {"shut": np.zeros(totals.total.size)})
    groups = {f"group_{name}": column for name, column in columns.items()}
    return values | groups | {"total": structure.total, "group_of": totals.entity}


def build(spec: Spec, by_window: bool = False) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu``, ``alpha`` and, for negative binomial counts, ``phi``; ``theta`` (unit) unless it is
    integrated out; and ``z`` (unit) where the sampler moves it instead (scaled).

    Parameters
    ----------
    spec : ModelSpec of GammaCounts
        The model.
    by_window : bool
        One likelihood term per window, as one would write the model at first; for comparison.

    Returns
    -------
    pymc.Model
        With the coordinate ``unit`` where rates are sampled.
    """
    import pymc as pm
    import pytensor.tensor as pt

    structure = spec.structure
    poisson = structure.likelihood == "poisson"
    with pm.Model(coords=unit_coords(spec)) as model:
        values = data_values(spec)
        if by_window:
            values = prior_values(spec) | {"entity": structure.entity, "window_exposure": structure.exposure}
        data, drawn = declared(spec, values)
        mu, alpha = drawn["mu"], drawn["alpha"]
        shape, rate = (alpha, alpha / mu) if structure.effects == "mean_scaled" else (mu * alpha, alpha)
        if collapsed(spec):
            if poisson:
                marginal = _marginal(data, shape, rate)
            else:
                phi = drawn["phi"]
                marginal = rising(data, phi) + rates_integrated(data, shape, rate, phi, nodes=_NODES)
            pm.Potential("marginal", data["constant"] + marginal)
            return model
        theta = gamma_rates(shape, rate, spec.parameterization == "scaled")
        if by_window:
            mean = theta[data["entity"]] * data["window_exposure"]
            if poisson:
                pm.Poisson("y", mean, observed=structure.count)
            else:
                pm.NegativeBinomial("y", mu=mean, alpha=drawn["phi"], observed=structure.count)
            return model
        log_likelihood = data["constant"] + pt.sum(data["total"] * pt.log(theta))
        if poisson:
            log_likelihood -= pt.sum(data["exposure"] * theta)
        else:
            mean = theta[data["group_of"]] * data["group_exposure"]
            log_likelihood += rising(data, drawn["phi"]) + falling(data, mean, drawn["phi"])
        pm.Potential("likelihood", log_likelihood)
    return model


def _marginal(data: dict[str, Any], shape: Any, rate: Any) -> Any:
    """Log p(y | μ, α) of Poisson counts: Gamma(a, b) rates integrated out are Gamma(a + Σy, b + Σe) ones."""
    import pytensor.tensor as pt

    after = shape + data["total"]
    each = (
        shape * pt.log(rate) - pt.gammaln(shape) + pt.gammaln(after) - after * pt.log(rate + data["exposure"])
    )
    return pt.sum(each)
