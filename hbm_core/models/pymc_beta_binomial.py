"""PyMC models of successes of trials in every geometry, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln

from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.pymc_counts import collapsed, declared, prior_values, spec_key, unit_coords
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[BetaBinomial]


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code; the count of entities only where the sampler moves their rates."""
    return spec_key(spec)


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name; equal entities are counted when collapsed."""
    structure = spec.structure
    successes, failures = structure.successes, structure.trials - structure.successes
    choose = gammaln(structure.trials + 1) - gammaln(successes + 1) - gammaln(failures + 1)
    values = prior_values(spec) | {"constant": np.array(choose.sum())}
    if collapsed(spec):
        rows = np.stack([successes, failures], axis=1)
        distinct, times = np.unique(rows, axis=0, return_counts=True)
        successes, failures = distinct.T
        values["times"] = times.astype(float)
    return values | {"successes": successes, "failures": failures}


def odds_spread(a: Any, b: Any, sqrt: Any = np.sqrt) -> Any:
    """About the sd of the log odds of a Beta(a, b) share: √(ψ′(a) + ψ′(b)) by two terms of their series."""
    return sqrt(1 / a + 1 / b + 0.5 * (a**-2.0 + b**-2.0))


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu``, ``kappa``; ``theta`` (unit) unless it is integrated out; and, non-centered, ``z``
    (unit), log odds from those of μ in units of `odds_spread`: nearly standard normal whatever κ is.
    """
    import pymc as pm
    import pytensor.tensor as pt

    def log_beta(a: Any, b: Any) -> Any:
        return pt.gammaln(a) + pt.gammaln(b) - pt.gammaln(a + b)

    with pm.Model(coords=unit_coords(spec)) as model:
        data, drawn = declared(spec, data_values(spec))
        a, b = drawn["mu"] * drawn["kappa"], (1 - drawn["mu"]) * drawn["kappa"]
        successes, failures = data["successes"], data["failures"]
        if collapsed(spec):
            each = log_beta(a + successes, b + failures) - log_beta(a, b)
            pm.Potential("marginal", data["constant"] + pt.sum(data["times"] * each))
            return model
        if spec.parameterization == "noncentered":
            spread = odds_spread(a, b, pt.sqrt)
            z = pm.Flat("z", dims="unit")
            odds = pt.log(a / b) + spread * z
            log_p, log_q = -pt.softplus(-odds), -pt.softplus(odds)
            pm.Deterministic("theta", pt.sigmoid(odds), dims="unit")
            # The beta density of θ with dθ/dz = θ (1 − θ) spread.
            density = a * log_p + b * log_q - log_beta(a, b) + pt.log(spread)
            pm.Potential("effects_density", pt.sum(density))
        else:
            theta = pm.Beta("theta", a, b, dims="unit")
            log_p, log_q = pt.log(theta), pt.log1p(-theta)
        log_likelihood = pt.sum(successes * log_p + failures * log_q)
        pm.Potential("likelihood", data["constant"] + log_likelihood)
    return model
