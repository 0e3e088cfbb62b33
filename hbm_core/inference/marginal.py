"""What follows from draws of the hyperparameters alone: unit likelihoods and conditional draws of θ."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from scipy import integrate, special, stats

from hbm_core.errors import NotExactError
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

Array = np.ndarray
_HALF_LOG_2_PI = 0.5 * float(np.log(2 * np.pi))
#: Nodes of the rule over a Student t's mixing precision, and what it leaves out at either end, in nats.
_NODES, _NATS = 96, 20.0


def effective_scale(tau: Array, constants: Mapping[str, float]) -> Array:
    """τ* of the `adaptive` scale: w τ + (1 − w) σ_p τ/t with w = sigmoid(k (τ − t))."""
    threshold, spread = constants["threshold"], constants["spread"]
    weight = special.expit(constants["slope"] * (tau - threshold))
    return weight * tau + (1 - weight) * spread * tau / threshold


def prior_mean(structure: TwoLevelNormal, draws: Mapping[str, Array]) -> Array:
    """m_i = μ + X_i β for every draw, ndarray (n, J)."""
    mean = np.repeat(draws["mu"][:, None], structure.effect.size, axis=1)
    return mean + draws["beta"] @ structure.design.T if structure.columns else mean


def effect_scale(spec: ModelSpec, draws: Mapping[str, Array]) -> Array:
    """Sd of the effects for every draw: τ, or τ* of the `adaptive` scale; ndarray (n,)."""
    if spec.structure.scale == "adaptive":
        return effective_scale(draws["tau"], spec.constants)
    return draws["tau"]


def draw_effects(spec: ModelSpec, draws: Mapping[str, Array], rng: np.random.Generator) -> Array:
    """Draw θ from its exact conditional given the hyperparameters.

    θ_i | μ, β, τ, y ~ Normal(B_i m_i + (1 − B_i) y_i, s_i √(1 − B_i)), B_i = s_i²/(s_i² + τ²).

    Parameters
    ----------
    spec : ModelSpec
        Normal effects and normal likelihood, or complete pooling.
    draws : mapping of str to ndarray
        ``mu`` (n,), ``tau`` (n,), ``beta`` (n, p).
    rng : numpy.random.Generator
        Source of randomness; unused under complete pooling, where θ_i = m_i.

    Returns
    -------
    ndarray (n, J)
        In the outcome's units.

    Raises
    ------
    NotExactError
        The conditional is not normal.

    References
    ----------
    Gelman et al. (2013), BDA3, section 5.4, equation 5.17.
    """
    structure = spec.structure
    mean = prior_mean(structure, draws)
    if structure.pooling == "complete":
        return mean
    if structure.pooling == "none" or "student_t" in (structure.effects, structure.likelihood):
        raise NotExactError(
            "conditional of theta", "partial pooling and normal distributions", "another model"
        )
    scale = effect_scale(spec, draws)[:, None]
    total = np.hypot(structure.se, scale)
    own = (scale / total) ** 2
    return (
        mean
        + own * (structure.effect - mean)
        + structure.se * (scale / total) * rng.standard_normal(mean.shape)
    )


def unit_log_likelihood(spec: ModelSpec, draws: Mapping[str, Array]) -> Array | None:
    """Log density of each unit's data with θ_i integrated out: the same for every parameterization.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    draws : mapping of str to ndarray
        Hyperparameters: ``mu`` (n,), ``tau`` (n,), ``beta`` (n, p), ``nu`` (n,); for pooling "none" any
        array ``theta`` (n, J), of which only n is used.

    Returns
    -------
    ndarray (n, J) or None
        log p(y_i | hyperparameters). Without pooling that is log p(y_i), a constant; None where the flat
        prior leaves it undefined.
    """
    structure = spec.structure
    if structure.pooling == "none":
        constant = _independent(structure, spec.priors["theta"])
        return None if constant is None else np.tile(constant, (len(draws["theta"]), 1))
    residual = structure.effect - prior_mean(structure, draws)
    se = np.broadcast_to(structure.se, residual.shape)
    normal_likelihood = structure.likelihood == "normal"
    if structure.pooling == "complete":
        return (
            _log_normal(residual, se**2) if normal_likelihood else _log_t(residual, se, draws["nu"][:, None])
        )
    scale = np.broadcast_to(effect_scale(spec, draws)[:, None], residual.shape)
    if normal_likelihood and structure.effects == "normal":
        return _log_normal(residual, se**2 + scale**2)
    # One unit at a time: the rule's nodes are a third axis.
    columns = []
    for place in range(residual.shape[1]):
        r, s, t, nu = residual[:, place], se[:, place], scale[:, place], draws["nu"]
        if normal_likelihood:
            columns.append(_log_t_plus_normal(r, t, s**2, nu))
        elif structure.effects == "normal":
            columns.append(_log_t_plus_normal(r, s, t**2, nu))
        else:
            columns.append(_log_t_plus_t(r, s, t, nu))
    return np.stack(columns, axis=1)


def _log_normal(residual: Array, variance: Array | float) -> Array:
    return -0.5 * residual**2 / variance - 0.5 * np.log(variance) - _HALF_LOG_2_PI


def _log_t(residual: Array, scale: Array, nu: Array) -> Array:
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return constant - np.log(scale) - (nu + 1) / 2 * np.log1p((residual / scale) ** 2 / nu)


def _mixing_rule(residual: Array, scale: Array, variance: Array, nu: Array) -> tuple[Array, Array]:
    """Nodes x = log g and log weights (n, K) for a t as a normal with precision g ~ Gamma(ν/2, ν/2).

    In x the integrand is analytic in a strip around the line, so the trapezoidal rule converges
    geometrically (Trefethen and Weideman 2014, SIAM Review 56, section 5). It spans where
    p(x) Normal(r; 0, v + scale²/g) is within ``_NATS`` of its largest value: left of 0 the likelihood can
    gain r²/2V at most, and no more once the t alone explains the residual.
    """
    with np.errstate(over="ignore", divide="ignore"):
        gain = 0.5 * residual**2 / (variance + scale**2)
        by_gain = _drop(2 * (_NATS + gain) / nu)
        pull = np.log((nu + 1) / (nu + (residual / scale) ** 2))
        flat = np.maximum(0, np.log(variance / scale**2))
        by_pull = np.maximum(0, -pull) + flat + _drop(2 * _NATS / (nu + 1))
    left = np.fmin(by_gain, by_pull)
    rise = 2 * (_NATS + 3) / nu
    right = np.minimum(np.sqrt(2 * rise), np.log(2 * (1 + rise)))
    step = (left + right) / (_NODES - 1)
    x = -left[:, None] + step[:, None] * np.arange(_NODES)
    half = nu[:, None] / 2
    # x − eˣ + 1 and log(ν/2)·ν/2 − ν/2 − log Γ(ν/2) are kept apart: for large ν their parts cancel.
    constant = half * np.log(half) - half - special.gammaln(half)
    return x, constant + half * (x - np.expm1(x)) + np.log(step)[:, None]


def _drop(c: Array) -> Array:
    """An upper bound of d where d − 1 + e^(−d) = c."""
    return np.where(c < 0.5, 2 * np.sqrt(c), c + 1)


def _log_t_plus_normal(residual: Array, scale: Array, variance: Array, nu: Array) -> Array:
    """Log density at `residual` (n,) of scale · T_ν + Normal(0, √variance)."""
    x, log_weight = _mixing_rule(residual, scale, variance, nu)
    total = variance[:, None] + scale[:, None] ** 2 * np.exp(-x)
    return special.logsumexp(log_weight + _log_normal(residual[:, None], total), axis=1)


def _log_t_plus_t(residual: Array, scale: Array, other: Array, nu: Array) -> Array:
    """Log density at `residual` (n,) of scale · T_ν + other · T′_ν, independent."""
    x, log_weight = _mixing_rule(residual, scale, other**2, nu)
    inner = np.stack(
        [_log_t_plus_normal(residual, other, scale**2 * np.exp(-node), nu) for node in x.T], axis=1
    )
    return special.logsumexp(log_weight + inner, axis=1)


def _independent(structure: TwoLevelNormal, prior: Prior) -> Array | None:
    """Log of ∫ Normal(y_i; θ, s_i) p(θ) dθ per unit (J,); None for the flat prior."""
    if not prior.proper:
        return None
    if prior.family == "Normal":
        mean, sd = prior.numbers
        return _log_normal(structure.effect - mean, structure.se**2 + sd**2)
    # Pieces between quantiles of both factors: whichever is narrow is resolved.
    values = []
    for y, s in zip(structure.effect, structure.se, strict=True):
        lower, upper = prior.support
        likelihood = stats.norm(y, s)
        probability = np.linspace(0, 1, 33)[1:-1]
        breaks = np.unique(np.concatenate([likelihood.ppf(probability), prior.distribution.ppf(probability)]))
        low, high = max(lower, y - 40 * s), min(upper, y + 40 * s)
        edges = np.concatenate([[low], breaks[(breaks > low) & (breaks < high)], [high]])

        def density(theta: Array, y: float = y, s: float = s) -> Array:
            return np.exp(prior.log_density(theta) + _log_normal(y - theta, s**2))

        total = sum(integrate.fixed_quad(density, a, b, n=20)[0] for a, b in pairwise(edges))
        values.append(np.log(total) if total > 0 else -np.inf)
    return np.array(values)
