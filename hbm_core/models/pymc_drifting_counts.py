"""The PyMC model of counts whose rates drift, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln

from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.pymc_counts import declared, gamma_rates, prior_values, spec_key
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[DriftingCounts]


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: no numbers; the windows are moved by the sampler, so they count."""
    structure = spec.structure
    return spec_key(spec, structure.likelihood, structure.count.size, structure.doublings)


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name; windows in the structure's `order`."""
    structure = spec.structure
    order, step = structure.order, structure.step
    count, exposure = structure.count[order], structure.exposure[order]
    reach = 2 ** np.arange(structure.doublings)[:, None]
    values = prior_values(spec) | {
        "count": count,
        "log_exposure": np.log(exposure),
        "constant": np.array(-gammaln(count + 1).sum()),
        "entity": structure.entity[order],
        "first": (step == 0).astype(float),
    }
    if spec.parameterization == "noncentered":
        values["reached"] = (step >= reach).astype(float)
    return values


def ar1(innovation: Any, rho: Any, reached: Any, doublings: int) -> Any:
    """d_t = ρ d_t−1 + e_t along each entity's windows, in log₂(windows) steps instead of one per window.

    After k doublings an entry holds Σ_{s < 2^k} ρ^s e_t−s; each doubling adds ρ^(2^k) times the entry 2^k
    windows earlier, where there is one.

    Parameters
    ----------
    innovation : tensor (N,)
        e, entity by entity.
    rho : tensor
        ρ.
    reached : tensor (doublings, N)
        1 where the entity has a window 2^k earlier, else 0.
    doublings : int
        How many.

    References
    ----------
    Hillis and Steele (1986), Communications of the ACM 29, "sum of an array of numbers" for a linear
    recurrence.
    """
    import pytensor.tensor as pt

    found, factor = innovation, rho
    for k in range(doublings):
        length = 2**k
        earlier = pt.concatenate([pt.zeros((length,)), found[:-length]])
        found = found + factor * reached[k] * earlier
        factor = factor * factor
    return found


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu``, ``alpha``, ``rho``, ``sigma_drift`` and, for negative binomial counts, ``phi``;
    ``theta`` (unit); ``innovation`` (window), standard, or (centered) ``level`` (window), the log rate
    itself. ``drift`` (window) is d.
    """
    import pymc as pm
    import pytensor.tensor as pt

    structure = spec.structure
    plain = spec.parameterization == "noncentered"
    coords = {"unit": list(structure.units), "window": np.arange(structure.count.size)}
    with pm.Model(coords=coords) as model:
        data, drawn = declared(spec, data_values(spec))
        theta = gamma_rates(drawn["mu"] * drawn["alpha"], drawn["alpha"], False)
        rho, sigma = drawn["rho"], drawn["sigma_drift"]
        fresh = pt.sqrt((1 - rho) * (1 + rho))
        sd = sigma * (fresh + (1 - fresh) * data["first"])
        middle = pt.log(theta)[data["entity"]]
        if plain:
            noise = pm.Normal("innovation", 0.0, 1.0, dims="window")
            drift = ar1(sd * noise, rho, data["reached"], structure.doublings)
            drift = pm.Deterministic("drift", drift, dims="window")
            level = middle + drift
        else:
            level = pm.Flat("level", dims="window")
            drift = pm.Deterministic("drift", level - middle, dims="window")
            before = pt.concatenate([pt.zeros((1,)), drift[:-1]]) * (1 - data["first"])
            away = (drift - rho * before) / sd
            pm.Potential("walk", pt.sum(-0.5 * away**2 - pt.log(sd) - 0.5 * np.log(2 * np.pi)))
        log_mean = level + data["log_exposure"]
        log_likelihood = data["constant"] + pt.sum(data["count"] * log_mean)
        if structure.likelihood == "poisson":
            log_likelihood -= pt.sum(pt.exp(log_mean))
        else:
            phi = drawn["phi"]
            rising = pt.gammaln(data["count"] + phi) - pt.gammaln(phi) - data["count"] * pt.log(phi)
            falling = (data["count"] + phi) * pt.log1p(pt.exp(log_mean) / phi)
            log_likelihood += pt.sum(rising - falling)
        pm.Potential("likelihood", log_likelihood)
    return model
