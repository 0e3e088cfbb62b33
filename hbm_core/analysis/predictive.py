"""Draws from a model before it has seen data: what its priors say about the outcome."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from hbm_core.analysis import counts_predictive
from hbm_core.analysis.batched import effect_scale, predictor
from hbm_core.errors import InputError
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.hurdle import PARTS, HurdleRevenue, readout
from hbm_core.models.raw_rates import RawRates
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal


def prior_predictive(spec: ModelSpec, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Joint draws of parameters and data sets from the priors and the likelihood.

    Parameters
    ----------
    spec : ModelSpec
        Its standard errors and design are kept; its effects are not used.
    count : int
        Number of data sets.
    seed : int
        Of NumPy's default generator.

    Returns
    -------
    dict of str to ndarray
        Those of ``mu`` (count,), ``tau`` (count,), ``nu`` (count,), ``beta`` (count, p) that the model
        has, and ``theta`` and ``effect`` (count, J), all but ν and β in the outcome's units. Of three levels:
        ``mu``, both spreads, the groups' means (count, G), ``theta`` and ``effect``. Of rates: the priors'
        names, ``theta``, and ``effect``: counts by window (count, N), or successes (count, J).

    Raises
    ------
    InputError
        A prior is improper: it has nothing to draw from.
    """
    rng = np.random.default_rng(seed)
    structure: Any = spec.structure
    for name, prior in spec.priors.items():
        if not prior.proper:
            raise InputError(f"prior on {name}", "a proper prior", prior.text, "Flat priors predict nothing.")
    if isinstance(structure, RawRates):
        drawn_rates = counts_predictive.prior_draws(spec, count, rng)
        return drawn_rates | {"effect": counts_predictive.replicate(structure, drawn_rates, rng)}
    if isinstance(structure, ThreeLevelNormal):
        return _three_level(cast(Any, spec), structure, count, rng)
    if isinstance(structure, GaussianMixed):
        return _mixed(cast(Any, spec), structure, count, rng)
    if isinstance(structure, HurdleRevenue):
        return _hurdle(cast(Any, spec), structure, count, rng)
    shape = (count, len(structure.units))

    def drawn(name: str, size: int | tuple[int, int]) -> np.ndarray:
        return np.asarray(spec.priors[name].distribution.rvs(size=size, random_state=rng), dtype=float)

    found: dict[str, np.ndarray] = {}
    if structure.pooling == "none":
        found["theta"] = drawn("theta", shape)
    else:
        found["mu"] = drawn("mu", count)
        center = np.broadcast_to(found["mu"][:, None], shape)
        if structure.columns:
            found["beta"] = drawn("beta", (count, len(structure.columns)))
            center = center + found["beta"] @ predictor(spec)[:, 1:].T
        if "nu" in spec.priors:
            found["nu"] = drawn("nu", count)
        if structure.pooling == "complete":
            found["theta"] = center.copy()
        else:
            found["tau"] = drawn("tau", count)
            noise = rng.standard_normal(shape)
            if structure.effects == "student_t":
                noise *= _student_stretch(found["nu"], shape, rng)
            found["theta"] = center + effect_scale(spec, found["tau"])[:, None] * noise
    noise = rng.standard_normal(shape)
    if structure.likelihood == "student_t":
        noise *= _student_stretch(found["nu"], shape, rng)
    found["effect"] = found["theta"] + structure.se * noise
    return found


def _three_level(
    spec: ModelSpec[ThreeLevelNormal], structure: ThreeLevelNormal, count: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    found = {
        name: np.asarray(prior.distribution.rvs(size=count, random_state=rng), dtype=float)
        for name, prior in spec.priors.items()
    }
    noise = rng.standard_normal((count, len(structure.groups)))
    means = found["mu"][:, None] + found[structure.group_spread][:, None] * noise
    noise = rng.standard_normal((count, structure.effect.size))
    theta = means[:, structure.group] + found[structure.spread][:, None] * noise
    effect = theta + structure.se * rng.standard_normal(theta.shape)
    return found | {structure.group_mean: means, "theta": theta, "effect": effect}


def _mixed(
    spec: ModelSpec[GaussianMixed], structure: GaussianMixed, count: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    found = {
        name: np.asarray(prior.distribution.rvs(size=count, random_state=rng), dtype=float)
        for name, prior in spec.priors.items()
    }
    groups, slots, pattern = len(structure.groups), len(structure.slots), structure.pattern

    def times(name: str, *shape: int) -> np.ndarray:
        return found[name].reshape(-1, *(1 for _ in shape)) * rng.standard_normal((count, *shape))

    means = found["mu"][:, None, None] + times(structure.group_spread, groups, 1)
    means = means + times(structure.own_spread, groups, pattern.shape[1]) @ pattern.T
    if structure.slot_spread is not None:
        means = means + times(structure.slot_spread, 1, slots)
    cells = means.reshape(count, -1)
    theta = cells[:, structure.cell] + times(structure.spread, len(structure.members))[:, structure.member]
    effect = theta + structure.se * rng.standard_normal(theta.shape)
    contrasts = structure.contrast_of(cells, found["mu"])
    drawn = {structure.group_mean: cells, structure.contrast: contrasts, "theta": theta, "effect": effect}
    return found | drawn


def _hurdle(
    spec: ModelSpec[HurdleRevenue], structure: HurdleRevenue, count: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Raw differences by the central limit theorem: from mean and variance of a user's revenue."""
    found = {
        name: np.asarray(prior.distribution.rvs(size=count, random_state=rng), dtype=float)
        for name, prior in spec.priors.items()
    }
    units = []
    for part in PARTS:
        mu, among, within = (found[name][:, None] for name in structure.names_of(part))
        means = mu + among * rng.standard_normal((count, len(structure.groups)))
        units.append(means[:, structure.group] + within * rng.standard_normal((count, structure.effect.size)))
        found[structure.group_vector(part)] = means
    pay, pay_effect, amount, amount_effect = units
    residual = found[structure.residual][:, None]
    lognormal = structure.amounts == "lognormal"
    half = residual**2 / 2 if lognormal else 0.0
    stretch = np.exp(residual**2) if lognormal else 1 + 1 / residual
    variance = np.zeros_like(pay)
    for arm, (odds, level) in enumerate(((pay, amount), (pay + pay_effect, amount + amount_effect))):
        chance, mean = 1 / (1 + np.exp(-odds)), np.exp(level + half)
        variance += chance * mean**2 * (stretch - chance) / structure.users[:, arm]
    theta = readout(pay, pay_effect, amount, amount_effect, half)
    effect = theta + np.sqrt(variance) * rng.standard_normal(theta.shape)
    return found | {"theta": theta, "effect": effect}


def cochran_q(effect: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Cochran's Q = Σ w_i (y_i − ȳ_w)², w_i = 1/s_i², along the last axis.

    Parameters
    ----------
    effect : ndarray (..., J)
        In the outcome's units.
    se : ndarray (J,)
        In the outcome's units.
    """
    return (((effect - pooled_mean(effect, se)[..., None]) / se) ** 2).sum(axis=-1)


def pooled_mean(effect: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Precision-weighted mean ȳ_w along the last axis, in the outcome's units."""
    weight = 1 / np.asarray(se) ** 2
    return np.asarray(effect) @ (weight / weight.sum())


def _student_stretch(nu: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Factors that turn standard normals into Student-t variates, ν per data set."""
    degrees = np.broadcast_to(np.maximum(nu, 1e-3)[:, None], shape)
    # chi-squares of tiny ν underflow to 0; the factor is then a huge but finite number
    return np.sqrt(degrees / np.maximum(rng.chisquare(degrees), 1e-300))
