"""Ridges that circuits' readings leave, straightened: where stiff directions have to go as the others move.

Readings of one circuit pin down a few combinations of its rate constants and leave the rest to the priors.
What they allow is curved, because rates saturate: a Gaussian at the fit is right in its neighbourhood only.
Here the stiff combinations are refitted along the others, and a smooth function takes their place:

    θ = θ⁰ + basis outer tanh(inner (θ⁰ − θ̂) + offset),  inner basis = 0,

which has a Jacobian of 1. It moves the sampler's coordinates and no posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Functions per circuit, fits they are taken from, and the seed of both.
FEATURES, _FITS, _SEED = 256, 800, 1
#: Curvature above which a direction counts as stiff, per square of a population's sd.
_STIFF = 4.0
#: Fits lie so many times farther out than the rough posterior; steps of a third of the way each.
_WIDE, _STAGES, _STEPS = 1.2, (1 / 3, 2 / 3, 1.0), (3, 3, 6)
#: Pull of stiff directions to the fit, longest step, excess of −log likelihood that halves a fit's weight.
_PULL, _LONGEST, _HALF = 1e-2, 3.0, 5.0
#: Sd of the functions' arguments, their offsets, and the regression's ridge.
_ARGUMENT, _OFFSET, _RIDGE = 0.3, 1.5, 1e-6

#: θ (n, P) → whitened residuals (n, R) and their derivatives (n, R, P) of one circuit.
Residuals = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Bend:
    """A circuit's stiff directions, and how they follow the others.

    Parameters
    ----------
    basis, firm : ndarray (P, P), (P,)
        Stiff directions, orthogonal and equally long, and the curvature of −log likelihood by their
        coordinates; more columns than stiff ones are 0 and 1.
    inner, offset, outer : ndarray (F, P), (F,), (P, F)
        As above, `outer` by stiff coordinate.
    """

    basis: np.ndarray
    firm: np.ndarray
    inner: np.ndarray
    offset: np.ndarray
    outer: np.ndarray


def bend(
    residuals: Residuals, fit: np.ndarray, used: np.ndarray, covariance: np.ndarray, scale: float
) -> Bend:
    """Straighten one circuit's ridges.

    Parameters
    ----------
    residuals : callable
        Of the circuit's readings.
    fit : ndarray (P,)
        θ̂, log10.
    used : ndarray (P,) of bool
        Which constants the circuit uses; the others bend nothing.
    covariance : ndarray (P, P)
        How far its constants may lie from there.
    scale : float
        Sd of a population, decades: the unit of stiffness.
    """
    size = fit.size
    own = np.eye(size)[:, used]
    gaps, every = residuals(fit[None])
    slopes = scale * every[0] @ own
    values, vectors = np.linalg.eigh(slopes.T @ slopes)
    vectors = own @ vectors
    stiff, loose = vectors[:, values > _STIFF], vectors[:, values <= _STIFF]
    count = stiff.shape[1]
    basis, firm = np.zeros((size, size)), np.ones(size)
    basis[:, :count], firm[:count] = scale * stiff, values[values > _STIFF]
    inner, offset, outer = np.zeros((FEATURES, size)), np.zeros(FEATURES), np.zeros((size, FEATURES))
    if not stiff.size or not loose.size:
        return Bend(basis, firm, inner, offset, outer)
    rng = np.random.default_rng(_SEED)
    root = np.linalg.cholesky(loose.T @ covariance @ loose / scale**2 + 1e-9 * np.eye(loose.shape[1]))
    places = _WIDE * rng.standard_normal((_FITS, loose.shape[1])) @ root.T
    answers, turns, excess = _refitted(residuals, fit, scale * stiff, scale * loose, places)
    excess -= 0.5 * np.sum(gaps**2)
    weight = 1 / (1 + np.maximum(excess, 0) / _HALF)
    lean = rng.standard_normal((FEATURES, loose.shape[1]))
    lean *= _ARGUMENT / (_WIDE * np.linalg.norm(lean @ root, axis=1))[:, None]
    offset = rng.uniform(-_OFFSET, _OFFSET, FEATURES)
    # Values, and derivatives along the posterior's own directions: both are to be met.
    made = np.tanh(places @ lean.T + offset)
    made_turns = (1 - made**2)[:, None, :] * (lean @ root).T
    rows = np.concatenate([made[:, None, :], made_turns], axis=1) * np.sqrt(weight)[:, None, None]
    goal = np.concatenate([answers[:, None, :], root.T @ turns], axis=1) * np.sqrt(weight)[:, None, None]
    rows, goal = rows.reshape(-1, FEATURES), goal.reshape(-1, count)
    outer[:count] = np.linalg.solve(rows.T @ rows + _RIDGE * np.eye(FEATURES), rows.T @ goal).T
    return Bend(basis, firm, lean @ loose.T / scale, offset, outer)


def _refitted(
    residuals: Residuals, fit: np.ndarray, stiff: np.ndarray, loose: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stiff coordinates that fit best where the loose ones are at `places`, how they turn, −log likelihood.

    Levenberg and Marquardt on all places at once, a stage at a time from θ̂ outwards.
    """
    count, size = len(places), stiff.shape[1]
    s, damping, one = np.zeros((count, size)), np.full(count, 1e-3), np.eye(size)
    for share, steps in zip(_STAGES, _STEPS, strict=True):

        def at(s: np.ndarray, share: float = share) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            gap, slopes = residuals(fit + s @ stiff.T + share * places @ loose.T)
            return gap, slopes @ stiff, 0.5 * np.sum(gap**2, axis=1) + 0.5 * _PULL * np.sum(s**2, axis=1)

        gap, slopes, cost = at(s)
        for _ in range(steps):
            matrix = slopes.swapaxes(1, 2) @ slopes + _PULL * one
            matrix += damping[:, None, None] * matrix * one
            down = -(np.einsum("nrk,nr->nk", slopes, gap) + _PULL * s)
            step = np.linalg.solve(matrix, down[..., None])[..., 0]
            length = np.linalg.norm(step, axis=1)
            step *= np.minimum(1, _LONGEST / np.maximum(length, 1e-300))[:, None]
            new_gap, new_slopes, new_cost = at(s + step)
            better = new_cost < cost
            s = np.where(better[:, None], s + step, s)
            gap, cost = np.where(better[:, None], new_gap, gap), np.where(better, new_cost, cost)
            slopes = np.where(better[:, None, None], new_slopes, slopes)
            damping = np.where(better, np.maximum(damping / 5, 1e-6), damping * 10)
    whole = residuals(fit + s @ stiff.T + places @ loose.T)[1]
    along, across = whole @ stiff, whole @ loose
    matrix = along.swapaxes(1, 2) @ along + _PULL * one
    turns = -np.linalg.solve(matrix, along.swapaxes(1, 2) @ across).swapaxes(1, 2)
    return s, turns, 0.5 * np.sum(gap**2, axis=1)
