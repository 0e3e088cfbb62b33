"""Exact posteriors as the explorer's browser side needs them: plain numbers, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec

#: Points of the density over the spread's axis, and of a hyperparameter's density.
GRID, DENSITY_GRID = 320, 121
#: What a drawn density leaves out at either end.
ENDS = (0.0005, 0.9995)


def engine_of(spec: ModelSpec) -> Literal["browser", "server"]:
    """Where live numbers come from: the browser solves the plain two-level normal model."""
    structure = spec.structure
    plain = (structure.pooling, structure.effects, structure.likelihood, structure.scale) == (
        "partial",
        "normal",
        "normal",
        "identity",
    )
    return (
        "browser"
        if plain and not structure.columns and spec.priors["mu"].family in ("Normal", "Flat")
        else "server"
    )


def why_no_tau(spec: ModelSpec, curves: Mapping[str, Any] | None) -> str:
    """Why the τ panel has nothing to move; empty where it has.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    curves : mapping or None
        The posterior given τ, for models that the browser does not solve.
    """
    match spec.structure.pooling:
        case "complete":
            return "This model holds that all true effects are equal: there is no spread τ to move."
        case "none":
            return "This model pools nothing: there is no spread τ to move."
    if engine_of(spec) == "server" and curves is None:
        return "Given τ, these estimates have no closed form under this model and these priors."
    return ""


def why_no_pooling(spec: ModelSpec) -> str:
    """Why units have no pooling factor though they are pooled; empty where they have."""
    heavy = "student_t" in (spec.structure.effects, spec.structure.likelihood)
    return "heavy tails: no single B" if heavy and spec.structure.pooling == "partial" else ""


def complete_value(spec: ModelSpec) -> float | None:
    """Precision-weighted mean of the effects: complete pooling under a flat prior.

    None with covariates, and where the model itself is that answer.
    """
    structure = spec.structure
    if structure.columns or structure.pooling == "complete":
        return None
    weight = 1 / structure.se**2
    return float(weight @ structure.effect / weight.sum())


#: Quantiles of many units take longer than a rerun should: told once per posterior.
_TOLD: WeakKeyDictionary[ExactPosterior, dict[str, Any]] = WeakKeyDictionary()


def posterior_value(posterior: ExactPosterior) -> dict[str, Any]:
    """An exact posterior as the browser needs it: moments, intervals, weights, and the density of τ.

    The mapping is shared between calls: read-only.
    """
    if posterior not in _TOLD:
        _TOLD[posterior] = _posterior_value(posterior)
    return _TOLD[posterior]


def _posterior_value(posterior: ExactPosterior) -> dict[str, Any]:
    spec, units = posterior.spec, posterior.theta
    server = engine_of(spec) == "server"
    quantiles = posterior.quantiles((0.025, 0.25, 0.75, 0.975, *(ENDS if server else ())))
    lo95, lo50, hi50, hi95 = quantiles[units, :4].T

    def moments(name: str) -> dict[str, float | None] | None:
        if name not in posterior.names:
            return None
        place = posterior.index(name)
        return {"mean": finite_or_none(posterior.mean[place]), "sd": finite_or_none(posterior.sd[place])}

    weights = posterior.weights
    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        "mean": finite_list(posterior.mean[units]),
        "sd": finite_list(posterior.sd[units]),
        "lo95": finite_list(lo95),
        "lo50": finite_list(lo50),
        "hi50": finite_list(hi50),
        "hi95": finite_list(hi95),
        "pooling": None if posterior.pooling is None else finite_list(posterior.pooling),
        "own": None if weights is None else finite_list(weights.own),
        "others": None if weights is None else finite_list(weights.others),
        "prior": None if weights is None else finite_list(weights.prior),
        "mu": moments("mu") if not spec.structure.columns else None,
        "tau": moments("tau"),
        "tau_density": _tau_density(posterior) if "tau" in posterior.names else None,
        "curves": _curves(posterior) if server and "tau" in posterior.names else None,
        "densities": _densities(posterior, quantiles[:, 4:]) if server else None,
        "error": finite_or_none(posterior.error_absolute),
    }


def _tau_density(posterior: ExactPosterior) -> dict[str, Any]:
    """Densities per unit of u = τ/(τ + c), at midpoints, so that areas are probabilities."""
    c = posterior.spec.structure.typical_se
    u = (np.arange(GRID) + 0.5) / GRID
    tau, slope = c * u / (1 - u), c / (1 - u) ** 2
    prior = posterior.spec.priors["tau"]
    return {
        "u": u.tolist(),
        "prior": finite_list(np.exp(prior.log_density(tau)) * slope) if prior.proper else None,
        "post": finite_list(posterior.density("tau", tau) * slope),
    }


def _densities(posterior: ExactPosterior, ends: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Posterior densities of the hyperparameters but τ, for the prior panel: one curve per coefficient."""
    out: dict[str, list[dict[str, Any]]] = {}
    for param in posterior.spec.priors:
        curves = []
        if param in ("tau", "theta"):
            continue
        for place, name in enumerate(posterior.names):
            if name == param or name.startswith(f"{param}["):
                x = np.linspace(ends[place, 0], ends[place, 1], DENSITY_GRID)
                label = name.removeprefix(param)[1:-1]
                density = finite_list(posterior.density(name, x))
                curves.append({"label": label, "x": x.tolist(), "y": density})
        if curves:
            out[param] = curves
    return out


def _curves(posterior: ExactPosterior) -> dict[str, Any] | None:
    structure = posterior.spec.structure
    u = np.linspace(0, 1, 81 if len(structure.units) <= 100 else 41)
    with np.errstate(divide="ignore"):
        tau = structure.typical_se * u / (1 - u)
    try:
        given = posterior.given_tau(tau)
    except NotImplementedError:
        return None
    return {
        "u": u.tolist(),
        "theta_mean": given.theta_mean.tolist(),
        "theta_sd": given.theta_sd.tolist(),
        "mu_mean": None if structure.columns else finite_list(given.mu_mean),
    }


def prior_value(prior: Prior) -> dict[str, Any]:
    """Family and numbers."""
    return {"family": prior.family, "numbers": list(prior.numbers)}


def finite_or_none(value: float) -> float | None:
    """The number, None where JSON has no word for it."""
    return float(value) if np.isfinite(value) else None


def finite_list(values: np.ndarray) -> list[float | None]:
    """The numbers, None where JSON has no word for them."""
    return [finite_or_none(value) for value in np.asarray(values, dtype=float)]
