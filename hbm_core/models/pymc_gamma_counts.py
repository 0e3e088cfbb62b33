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
from hbm_core.models.pymc_model import random_variable
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[GammaCounts]


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code; the count of entities only where the sampler moves their rates."""
    structure = spec.structure
    return (
        type(structure).__name__,
        structure.likelihood,
        structure.effects,
        spec.parameterization,
        tuple((name, prior.family) for name, prior in spec.priors.items()),
        None if spec.parameterization == "collapsed" else len(structure.units),
    )


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
    values: dict[str, np.ndarray] = {"total": structure.total, "constant": np.array(own.sum())}
    if structure.likelihood == "poisson":
        values["exposure"] = structure.total_exposure
    else:
        totals = structure.totals
        values["group_of"] = totals.entity
        values["group_exposure"] = totals.exposure
        values["group_windows"] = totals.windows
        values["group_total"] = totals.total
        values["value"], values["times"] = structure.histogram
    for name, prior in spec.priors.items():
        if prior.numbers:
            values[f"prior_{name}"] = np.array(prior.numbers)
    return values


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
    collapsed = spec.parameterization == "collapsed"
    with pm.Model(coords={} if collapsed else {"unit": list(structure.units)}) as model:
        values = data_values(spec)
        if by_window:
            values = {name: value for name, value in values.items() if name.startswith("prior_")}
            values |= {"entity": structure.entity, "window_exposure": structure.exposure}
        data = {name: pm.Data(name, value) for name, value in values.items()}
        drawn = {
            name: random_variable(name, prior, data.get(f"prior_{name}"), True)
            for name, prior in spec.priors.items()
        }
        mu, alpha = drawn["mu"], drawn["alpha"]
        if structure.effects == "mean_scaled":
            shape, rate = alpha, alpha / mu
        else:
            shape, rate = mu * alpha, alpha
        if collapsed:
            pm.Potential("marginal", _marginal(data, shape, rate))
            return model
        if spec.parameterization == "scaled":
            theta = pm.Deterministic("theta", pm.Gamma("z", shape, 1.0, dims="unit") / rate, dims="unit")
        else:
            theta = pm.Gamma("theta", shape, rate, dims="unit")
        if by_window:
            mean = theta[data["entity"]] * data["window_exposure"]
            if structure.likelihood == "poisson":
                pm.Poisson("y", mean, observed=structure.count)
            else:
                pm.NegativeBinomial("y", mu=mean, alpha=drawn["phi"], observed=structure.count)
            return model
        log_likelihood = data["constant"] + pt.sum(data["total"] * pt.log(theta))
        if structure.likelihood == "poisson":
            log_likelihood -= pt.sum(data["exposure"] * theta)
        else:
            mean = theta[data["group_of"]] * data["group_exposure"]
            log_likelihood += dispersed(data, mean, drawn["phi"])
        pm.Potential("likelihood", log_likelihood)
    return model


def dispersed(data: dict[str, Any], mean: Any, phi: Any) -> Any:
    """Terms of negative binomial counts beside mean^Σy: Γ(y + φ)/(Γ(φ) φ^y) and (1 + mean/φ)^−(y + φ)."""
    import pytensor.tensor as pt

    value, times = data["value"], data["times"]
    rising = pt.gammaln(value + phi) - pt.gammaln(phi) - value * pt.log(phi)
    falling = (data["group_total"] + data["group_windows"] * phi) * pt.log1p(mean / phi)
    return pt.sum(times * rising) - pt.sum(falling)


def _marginal(data: dict[str, Any], shape: Any, rate: Any) -> Any:
    """Log p(y | μ, α) of Poisson counts: Gamma(a, b) rates integrated out are Gamma(a + Σy, b + Σe) ones."""
    import pytensor.tensor as pt

    after = shape + data["total"]
    each = (
        shape * pt.log(rate) - pt.gammaln(shape) + pt.gammaln(after) - after * pt.log(rate + data["exposure"])
    )
    return data["constant"] + pt.sum(each)
