"""Ridges that circuits' readings leave, straightened: where stiff directions have to go as the others move.

Readings of one circuit pin down a few combinations of its rate constants and leave the rest to the priors.
What they allow is curved, because rates saturate: a Gaussian at the fit is right in its neighbourhood only.
Here the stiff combinations are refitted along the others, and a smooth function takes their place:

    θ = θ⁰ + basis outer tanh(inner (θ⁰ − θ̂) + offset),  inner basis = 0,

which has a Jacobian of 1. It moves the sampler's coordinates and no posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

#: Functions per circuit, fits that they are taken from, and the seed of both.
FEATURES, _FITS, _SEED = 160, 800, 1
#: Fits around a pilot's draws, how much farther out, and the share of their spread added at random.
_DRAWN, _OUT, _JITTER = 1000, 1.2, 0.25
#: Curvature above which a direction counts as stiff, per square of a population's sd.
_STIFF = 4.0
#: Fits lie so many times farther out than the rough posterior; steps of a third of the way each.
_WIDE, _STAGES, _STEPS = 1.5, (1 / 3, 2 / 3, 1.0), (3, 3, 6)
#: Steps of a fit that starts at a draw.
_FEW = 4
#: Pull of stiff directions to the fit, longest step, excess of −log likelihood that halves a fit's weight.
_PULL, _LONGEST, _HALF = 1e-2, 3.0, 5.0
#: Of the functions: sd of arguments where training starts, offsets, decay of the weights, and steps, from
#: nothing and from what was known before.
_ARGUMENT, _OFFSET, _DECAY, _TRAINING, _MORE = 0.6, 1.5, 1e-4, 600, 250

#: θ (n, P) → whitened residuals (n, R) and their derivatives (n, R, P) of one circuit.
Residuals = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Bend:
    """A circuit's stiff directions, and how they follow the others.

    Parameters
    ----------
    curvature : ndarray (P, P)
        Of −log likelihood: of stiff directions at the fit, of the others along the ridge.
    basis, firm : ndarray (P, P), (P,)
        Stiff directions, orthogonal and equally long, and the curvature of −log likelihood by their
        coordinates; more columns than stiff ones are 0 and 1.
    inner, offset, outer : ndarray (F, P), (F,), (P, F)
        As above, `outer` by stiff coordinate.
    """

    curvature: np.ndarray
    basis: np.ndarray
    firm: np.ndarray
    inner: np.ndarray
    offset: np.ndarray
    outer: np.ndarray


@dataclass(frozen=True, eq=False)
class Ridge:
    """What one circuit's readings leave loose, and where its stiff coordinates go along it.

    Parameters
    ----------
    residuals : callable
        Of the circuit's readings.
    fit : ndarray (P,)
        θ̂, log10.
    scale : float
        Sd of a population, decades: the unit of both kinds of coordinates.
    stiff, loose, firm, soft : ndarray (P, K), (P, L), (K,), (L, L)
        Directions, orthonormal, and the curvature of −log likelihood by stiff coordinates and by loose ones,
        the stiff ones following.
    root : ndarray (L, L)
        Of the covariance of loose coordinates in the rough posterior.
    places, answers, turns, excess : ndarray (n, L), (n, K), (n, L, K), (n,)
        Loose coordinates, the stiff ones that fit best there, their derivatives, and −log likelihood beyond
        the fit's.
    """

    residuals: Residuals
    fit: np.ndarray
    scale: float
    stiff: np.ndarray
    loose: np.ndarray
    firm: np.ndarray
    soft: np.ndarray
    root: np.ndarray
    places: np.ndarray
    answers: np.ndarray
    turns: np.ndarray
    excess: np.ndarray

    @classmethod
    def along(
        cls, residuals: Residuals, fit: np.ndarray, used: np.ndarray, covariance: np.ndarray, scale: float
    ) -> Ridge:
        """Refits at places drawn around the fit.

        Parameters
        ----------
        residuals, fit, scale
            As above.
        used : ndarray (P,) of bool
            Which constants the circuit uses; the others bend nothing.
        covariance : ndarray (P, P)
            How far its constants may lie from the fit.
        """
        own = np.eye(fit.size)[:, used]
        gaps, every = residuals(fit[None])
        slopes = scale * every[0] @ own
        values, vectors = np.linalg.eigh(slopes.T @ slopes)
        vectors = own @ vectors
        stiff, loose = vectors[:, values > _STIFF], vectors[:, values <= _STIFF]
        firm, size = values[values > _STIFF], loose.shape[1]
        soft = np.diag(np.maximum(values[values <= _STIFF], 0.0))
        root = np.linalg.cholesky(loose.T @ covariance @ loose / scale**2 + 1e-9 * np.eye(size))
        if not (firm.size and size):
            none = np.empty((0, size)), np.empty((0, firm.size)), np.empty((0, size, firm.size)), np.empty(0)
            return cls(residuals, fit, scale, stiff, loose, firm, soft, root, *none)
        places = _WIDE * np.random.default_rng(_SEED).standard_normal((_FITS, size)) @ root.T
        start = np.zeros((_FITS, firm.size))
        found = _refitted(residuals, fit, scale * stiff, scale * loose, places, start, _STAGES, _STEPS)
        answers, turns, cost, _ = found
        excess = cost - 0.5 * np.sum(gaps**2)
        return cls(residuals, fit, scale, stiff, loose, firm, soft, root, places, answers, turns, excess)

    @property
    def bends(self) -> bool:
        """Whether there is something to follow and something to follow it."""
        return bool(self.firm.size and self.loose.shape[1])

    def refined(self, draws: np.ndarray) -> Ridge:
        """With refits around `draws` of θ, ndarray (n, P): the posterior may be far from θ̂."""
        if not self.bends:
            return self
        rng, size = np.random.default_rng(_SEED + 1), self.root.shape[0]
        away = draws[rng.choice(len(draws), _DRAWN, replace=len(draws) < _DRAWN)] - self.fit
        loose, start = away @ self.loose / self.scale, away @ self.stiff / self.scale
        middle, spread = loose.mean(axis=0), np.atleast_2d(np.cov(loose.T)) + 1e-9 * np.eye(size)
        stray = rng.standard_normal(loose.shape) @ np.linalg.cholesky(spread).T
        places = middle + _OUT * (loose - middle) + _JITTER * stray
        stiff, free = self.scale * self.stiff, self.scale * self.loose
        found = _refitted(self.residuals, self.fit, stiff, free, places, start, (1.0,), (_FEW,))
        excess = found[2] - 0.5 * np.sum(self.residuals(self.fit[None])[0] ** 2)
        return replace(
            self,
            soft=found[3].mean(axis=0),
            places=np.concatenate([self.places, places]),
            answers=np.concatenate([self.answers, found[0]]),
            turns=np.concatenate([self.turns, found[1]]),
            excess=np.concatenate([self.excess, excess]),
        )


def bend(ridge: Ridge, before: Sequence[np.ndarray] | None = None) -> Bend:
    """The smooth function that follows a ridge, its values and derivatives met by least squares.

    Parameters
    ----------
    ridge : Ridge
        What is followed.
    before : sequence of ndarray, optional
        ``inner``, ``offset`` and ``outer`` (F, P), (F,), (K, F) of the same ridge when less was known of it.
    """
    size, count = ridge.fit.size, ridge.firm.size
    basis, firm = np.zeros((size, size)), np.ones(size)
    basis[:, :count], firm[:count] = ridge.scale * ridge.stiff, ridge.firm
    inner, offset, outer = np.zeros((FEATURES, size)), np.zeros(FEATURES), np.zeros((size, FEATURES))
    if ridge.bends:
        lean, offset, found = _trained(ridge, before)
        inner, outer[:count] = lean @ ridge.loose.T / ridge.scale, found.T
    stiff, loose = ridge.stiff / ridge.scale, ridge.loose / ridge.scale
    curvature = (stiff * ridge.firm) @ stiff.T + loose @ ridge.soft @ loose.T
    return Bend(curvature, basis, firm, inner, offset, outer)


def _trained(ridge: Ridge, before: Sequence[np.ndarray] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments' slopes (F, L), offsets (F,) and weights (F, K) of the functions.

    In units in which loose coordinates have the rough posterior's covariance, 1, and stiff ones the readings'
    curvature, 1: derivatives there are what bends the sampler's density. From random slopes, or those known
    before, by L-BFGS.
    """
    root, firmness = ridge.root, np.sqrt(ridge.firm)
    at = np.linalg.solve(root, ridge.places.T).T
    goal = ridge.answers * firmness
    turns = np.einsum("ij,nik->njk", root, ridge.turns) * firmness
    weight = 1 / (1 + np.maximum(ridge.excess, 0) / _HALF)
    weight /= weight.sum()
    loose, stiff = turns.shape[1:]
    if before is None:
        rng, most = np.random.default_rng(_SEED), _TRAINING
        lean = rng.standard_normal((FEATURES, loose))
        lean *= _ARGUMENT / np.linalg.norm(lean, axis=1)[:, None]
        offset = rng.uniform(-_OFFSET, _OFFSET, FEATURES)
        made = np.tanh(at @ lean.T + offset)
        share = made.T * weight
        first = np.linalg.solve(share @ made + 1e-3 * np.eye(FEATURES), share @ goal)
    else:
        most = _MORE
        lean, offset = before[0] @ ridge.loose * ridge.scale @ root, before[1]
        first = before[2][:stiff].T * firmness
    ends = np.cumsum([lean.size, offset.size])

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        flat, offset, out = np.split(x, ends)
        lean, out = flat.reshape(FEATURES, loose), out.reshape(FEATURES, stiff)
        made = np.tanh(at @ lean.T + offset)
        steep = 1 - made * made
        both = (lean[:, :, None] * out[:, None, :]).reshape(FEATURES, -1)
        gap, slip = made @ out - goal, steep @ both - turns.reshape(len(at), -1)
        by_value, by_turn = weight[:, None] * gap, weight[:, None] * slip
        total = 0.5 * (np.vdot(gap, by_value) + np.vdot(slip, by_turn))
        total += 0.5 * _DECAY * (np.vdot(out, out) + np.vdot(lean, lean))
        by_both = (steep.T @ by_turn).reshape(FEATURES, loose, stiff)
        by_argument = (by_value @ out.T - 2 * made * (by_turn @ both.T)) * steep
        by_lean = (by_both * out[:, None, :]).sum(axis=2) + by_argument.T @ at + _DECAY * lean
        by_out = made.T @ by_value + (by_both * lean[:, :, None]).sum(axis=1) + _DECAY * out
        return float(total), np.concatenate([by_lean.ravel(), by_argument.sum(axis=0), by_out.ravel()])

    start = np.concatenate([lean.ravel(), offset, first.ravel()])
    options = {"maxiter": most, "maxfun": 2 * most, "maxcor": 20}
    flat, offset, out = np.split(minimize(cost, start, jac=True, method="L-BFGS-B", options=options).x, ends)
    lean = np.linalg.solve(root.T, flat.reshape(FEATURES, loose).T).T
    return lean, offset, out.reshape(FEATURES, stiff) / firmness


def _refitted(
    residuals: Residuals,
    fit: np.ndarray,
    stiff: np.ndarray,
    loose: np.ndarray,
    places: np.ndarray,
    start: np.ndarray,
    stages: tuple[float, ...],
    counts: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Stiff coordinates that fit best where the loose ones are at `places`, how they turn, −log likelihood.

    Behind them, its curvature by the loose ones where the stiff ones follow.

    Levenberg and Marquardt on all places at once, a stage at a time from θ̂ outwards, `counts` steps in each.
    """
    count, size = len(places), stiff.shape[1]
    s, damping, one = start, np.full(count, 1e-3), np.eye(size)
    for share, steps in zip(stages, counts, strict=True):

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
    left = across + along @ turns.swapaxes(1, 2)
    return s, turns, 0.5 * np.sum(gap**2, axis=1), left.swapaxes(1, 2) @ left
