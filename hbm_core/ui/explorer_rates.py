"""What the explorer shows of models of rates: some entities, and the spread of the rates on the panel."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.exact import ExactPosterior
from hbm_core.inference.exact.beta_binomial import BetaBinomialPosterior
from hbm_core.inference.exact.gamma_counts_posterior import GammaCountsPosterior
from hbm_core.inference.exact.rate_spread import along_spread, spread_densities, spread_moments
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.raw_rates import RawRates
from hbm_core.ui.explorer_value import (
    DENSITY_GRID,
    ENDS,
    GRID,
    INTERVALS,
    density_entry,
    finite_list,
    finite_or_none,
    prior_value,
    told_once,
    units_entries,
)

#: Entities that are listed where there are more than can be; so many are shown all.
LISTED, ALL = 16, 24
_CURVE = 61

_ORDER: WeakKeyDictionary[RawRates, np.ndarray] = WeakKeyDictionary()


def listed(structure: RawRates, wanted: int | None = None, count: int = LISTED) -> np.ndarray:
    """Places of the entities that are listed: those that pooling moves most, judged from the data alone.

    No prior decides the list, so that it stays while priors move.

    Parameters
    ----------
    structure : RawRates
        Data.
    wanted : int, optional
        Place of an entity that is listed in any case.
    count : int
        At most so many, where not all are.
    """
    size = len(structure.units)
    if size <= ALL:
        return np.arange(size)
    if structure not in _ORDER:
        moved = structure.moment_pooling * (structure.rate_moments.mean - structure.effect)
        _ORDER[structure] = np.argsort(-np.abs(moved), kind="stable")[:LISTED]
    found = _ORDER[structure][:count]
    if wanted is not None and wanted not in found:
        found = np.append(found[: count - 1], wanted)
    return found


def units_value(
    structure: RawRates, shown: np.ndarray, truth: np.ndarray | None, raw: int, estimate: int
) -> dict[str, Any]:
    """The listed entities, ready for JSON; their own intervals are exact and so not symmetric."""
    low, high = structure.raw_ends((0.025, 0.975))[shown].T
    return {
        "label": [str(structure.units[int(place)]) for place in shown],
        "effect": structure.effect[shown].tolist(),
        "se": structure.se[shown].tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "group": None,
        "groups": [],
        "typical": structure.typical_spread,
        "truth": None if truth is None else finite_list(truth),
        "digits": raw,
        "estimateDigits": estimate,
    }


def spread_words(structure: RawRates, one: str, many: str) -> dict[str, Any]:
    """What the panel's spread means, as fields of `hbm_core.ui.explorer_component.Spread`."""
    if isinstance(structure, BetaBinomial):
        meaning = f"spread of the true rates of the {many}: 1/√κ, nearly their sd in sds of a single trial"
        words = f"spread of the {many}' true rates, 1/√κ"
    elif getattr(structure, "effects", "rate") == "mean_scaled":
        meaning = f"spread of the true rates of the {many} in shares of their mean, 1/√α"
        words = f"spread of the {many}' true rates / mean"
    else:
        meaning = f"spread of the true rates of the {many}: √(their variance / their mean), 1/√α"
        words = f"spread of the {many}' true rates, 1/√α"
    return {
        "param": "spread",
        "symbol": "σ",
        "spoken": "sigma",
        "meaning": meaning,
        "words": words,
        "center": "pooled mean",
        "together": "one rate for all",
        "groups": "groups",
        "unitless": True,
    }


@told_once
def posterior_value(posterior: ExactPosterior, shown: np.ndarray) -> dict[str, Any]:
    """The posterior of the listed entities, along the spread, and the densities of the hyperparameters.

    The mapping is shared between calls: read-only.
    """
    spec = posterior.spec
    hyper = spec.structure.parameters
    pooling: np.ndarray | None = None
    panel: dict[str, Any] = {"tau": None, "tau_density": None, "curves": None}
    if isinstance(posterior, GammaCountsPosterior | BetaBinomialPosterior):
        mean, sd = posterior.unit_moments(shown)
        quantiles = posterior.unit_quantiles(INTERVALS, shown)
        ends = dict(zip(posterior.hyper_names, posterior.hyper_quantiles(ENDS), strict=True))
        moments = dict(zip(posterior.hyper_names, posterior.hyper_mean, strict=True))
        sds = dict(zip(posterior.hyper_names, posterior.hyper_sd, strict=True))
        pooling, panel = posterior.unit_pooling(shown), _panel(posterior, shown)
        # Of the rates: a parameter of the population may have other units, and a far wider posterior.
        error = posterior.error * float(np.max(sd[np.isfinite(sd)], initial=0.0))
    else:
        error = posterior.error_absolute
        places = posterior.theta.start + shown
        mean, sd = posterior.mean[places], posterior.sd[places]
        everything = posterior.quantiles((*INTERVALS, *ENDS))
        quantiles = everything[places, : len(INTERVALS)]
        at = {name: posterior.index(name) for name in hyper if name in posterior.names}
        ends = {name: everything[place, len(INTERVALS) :] for name, place in at.items()}
        moments = {name: posterior.mean[place] for name, place in at.items()}
        sds = {name: posterior.sd[place] for name, place in at.items()}
    densities = {}
    for name, (low, high) in ends.items():
        # A long tail must not take the points from where the density is.
        far = 0 < low < high / 20
        x = (np.geomspace if far else np.linspace)(low, high, DENSITY_GRID)
        densities[name] = density_entry(x, posterior.density(name, x))
    mu = None
    if "mu" in moments:
        mu = {"mean": finite_or_none(moments["mu"]), "sd": finite_or_none(sds["mu"])}
    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        **units_entries(mean, sd, quantiles, pooling),
        "mu": mu,
        **panel,
        "densities": densities,
        "error": finite_or_none(error),
    }


def _panel(posterior: GammaCountsPosterior | BetaBinomialPosterior, shown: np.ndarray) -> dict[str, Any]:
    """The spread's moments and densities, and the listed entities along it."""
    found = along_spread(posterior, shown)
    c = posterior.structure.typical_spread
    u = (np.arange(GRID) + 0.5) / GRID
    prior, density = spread_densities(posterior, found, u)
    mean, sd = spread_moments(found)
    at = found.spread / (found.spread + c)
    even = np.linspace(0, 1, _CURVE)

    def along(values: np.ndarray) -> list[Any]:
        # Before the first and after the last node nothing moves any more.
        return np.stack([np.interp(even, at, column) for column in values.T], axis=1).tolist()

    theta = along(found.theta_mean)
    return {
        "tau": {"mean": mean, "sd": sd},
        "tau_density": {
            "u": u.tolist(),
            "prior": None if prior is None else finite_list(prior),
            "post": finite_list(density),
        },
        "curves": {
            "u": even.tolist(),
            "theta_mean": theta,
            "theta_sd": along(found.theta_sd),
            "pooling": along(found.pooling),
            "mu_mean": np.interp(even, at, found.mu_mean).tolist(),
            "complete": theta[0],
        },
    }
