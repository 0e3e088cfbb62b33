"""Exact posteriors as the explorer's browser side needs them: plain numbers, ready for JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.exact import ExactPosterior
from hbm_core.inference.exact.base import Weights
from hbm_core.models.dataset import once
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec

#: Points of the density over the spread's axis, and of a hyperparameter's density.
GRID, DENSITY_GRID = 320, 121
#: What a drawn density leaves out at either end.
ENDS = (0.0005, 0.9995)
#: Ends of the units' intervals, 95 % and 50 %.
INTERVALS = (0.025, 0.25, 0.75, 0.975)
#: Lists of units whose numbers are kept for one posterior.
_LISTS = 8


def told_once[Found](
    tell: Callable[[Found, np.ndarray], dict[str, Any]],
) -> Callable[[Found, np.ndarray], dict[str, Any]]:
    """What is told of a posterior and of some of its units, kept for as long as the posterior lives."""
    known: WeakKeyDictionary[Found, dict[bytes, dict[str, Any]]] = WeakKeyDictionary()

    @wraps(tell)
    def ask(posterior: Found, shown: np.ndarray) -> dict[str, Any]:
        told = known.setdefault(posterior, {})
        if (key := shown.tobytes()) not in told:
            if len(told) >= _LISTS:
                told.clear()
            told[key] = tell(posterior, shown)
        return told[key]

    return ask


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


@once
def posterior_value(posterior: ExactPosterior) -> dict[str, Any]:
    """An exact posterior as the browser needs it: moments, intervals, weights, and the density of τ.

    The mapping is shared between calls: read-only.
    """
    spec, units = posterior.spec, posterior.theta
    server = engine_of(spec) == "server"
    quantiles = posterior.quantiles((*INTERVALS, *(ENDS if server else ())))

    def moments(name: str) -> dict[str, float | None] | None:
        if name not in posterior.names:
            return None
        place = posterior.index(name)
        return {"mean": finite_or_none(posterior.mean[place]), "sd": finite_or_none(posterior.sd[place])}

    return {
        "priors": {name: prior_value(prior) for name, prior in spec.priors.items()},
        **units_entries(
            posterior.mean[units],
            posterior.sd[units],
            quantiles[units, : len(INTERVALS)],
            posterior.pooling,
            posterior.weights,
        ),
        "mu": moments("mu") if not spec.structure.columns else None,
        "tau": moments("tau"),
        "tau_density": _tau_density(posterior) if "tau" in posterior.names else None,
        "curves": _curves(posterior) if server and "tau" in posterior.names else None,
        "densities": _densities(posterior, quantiles[:, len(INTERVALS) :]) if server else None,
        "error": finite_or_none(posterior.error_absolute),
    }


def units_entries(
    mean: np.ndarray,
    sd: np.ndarray,
    quantiles: np.ndarray,
    pooling: np.ndarray | None = None,
    weights: Weights | None = None,
) -> dict[str, Any]:
    """Moments and intervals of the listed units, with their pooling factors and weights where known.

    Parameters
    ----------
    mean, sd : ndarray (M,)
        In the outcome's units.
    quantiles : ndarray (M, 4)
        At `INTERVALS`.
    pooling : ndarray (M,), optional
        B.
    weights : Weights, optional
        Shares of own data, other units and prior.
    """
    ends = dict(zip(("lo95", "lo50", "hi50", "hi95"), map(finite_list, quantiles.T), strict=True))
    return {
        "mean": finite_list(mean),
        "sd": finite_list(sd),
        **ends,
        "pooling": None if pooling is None else finite_list(pooling),
        "own": None if weights is None else finite_list(weights.own),
        "others": None if weights is None else finite_list(weights.others),
        "prior": None if weights is None else finite_list(weights.prior),
    }


def density_entry(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """The density of one hyperparameter."""
    return [{"label": "", "x": x.tolist(), "y": finite_list(y)}]


def spread_mass(posterior: ExactPosterior) -> dict[str, Any]:
    """Densities of the spread per unit of u = σ/(σ + c), the posterior's as its mass by cell.

    With very many units the density is narrower than the cells are.
    """
    structure: Any = posterior.spec.structure
    c, prior = structure.typical_se, posterior.spec.priors[structure.spread]
    u, edges = (np.arange(GRID) + 0.5) / GRID, np.linspace(0, 1, GRID + 1)[:-1]
    values, slope = c * u / (1 - u), c / (1 - u) ** 2
    mass = np.diff(posterior.cdf(structure.spread, c * edges / (1 - edges)), append=1.0)
    return {
        "u": u.tolist(),
        "prior": finite_list(np.exp(prior.log_density(values)) * slope) if prior.proper else None,
        # Quadrature may leave a cell without mass a rounding below 0.
        "post": finite_list(GRID * np.maximum(mass, 0.0)),
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
