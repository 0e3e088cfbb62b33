"""Figures of replicas at several temperatures: barrier, ladder, round trips, log evidence.

References
----------
Syed, Bouchard-Côté, Deligiannidis & Doucet (2022), Non-reversible parallel tempering: a scalable highly
parallel MCMC scheme, JRSS-B 84(2), sections 3 to 5. Xie, Lewis, Fan, Kuo & Chen (2011), Improving marginal
likelihood estimation for Bayesian phylogenetic model selection, Systematic Biology 60(2), for the stepping
stones.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import expit, logsumexp

#: Rejection that every pair is given beside what was seen: a pair that never rejects still has a place.
_FLOOR = 0.01
#: Blocks per replica, whose scatter gives the error of the evidence.
_BLOCKS = 10
#: Half the range in which a log ratio is sought around the one-sided estimate, nats, and how finely.
_REACH, _HALVINGS = 40.0, 50


def first_ladder(count: int) -> np.ndarray:
    """Inverse temperatures to begin with, ndarray (count,): dense near the prior, from 0 to 1."""
    return np.linspace(0, 1, count) ** 4


def barrier(rejection: np.ndarray) -> np.ndarray:
    """Cumulative communication barrier Λ(β_k) = Σ_{i<k} r_i, ndarray (T,), from rejections r (T − 1,).

    Syed et al. (2022), section 5.2.
    """
    return np.concatenate([[0.0], np.cumsum(rejection)])


def adapted(beta: np.ndarray, rejection: np.ndarray) -> np.ndarray:
    """The ladder whose pairs all reject alike: Λ cut into equal parts, ndarray (T,).

    Parameters
    ----------
    beta : ndarray (T,)
        The ladder that was tried.
    rejection : ndarray (T − 1,)
        Mean rejection of each of its pairs.

    References
    ----------
    Syed et al. (2022), section 5.4.
    """
    total = barrier(np.maximum(rejection, 0) + _FLOOR)
    # Between neighbours β may span magnitudes near the prior, which its fourth root does not.
    root = PchipInterpolator(total, beta**0.25)(np.linspace(0, total[-1], beta.size))
    found = np.clip(root, 0, 1) ** 4
    found[0], found[-1] = 0.0, 1.0
    # Strictly increasing, whatever rounding did.
    gap = 1e-12 * np.arange(beta.size)
    return np.minimum(np.maximum.accumulate(found) + gap * (found < 1), 1.0)


def local_barrier(beta: np.ndarray, rejection: np.ndarray, at: np.ndarray) -> np.ndarray:
    """λ(β) = dΛ/dβ at `at`, by the monotone curve through Λ (Syed et al., 2022, section 5.2)."""
    total = PchipInterpolator(beta**0.25, barrier(rejection))
    inner = np.maximum(at, 1e-12)
    return np.maximum(total.derivative()(inner**0.25) * 0.25 * inner**-0.75, 0.0)


def round_trips(walker: np.ndarray) -> np.ndarray:
    """How often a walker went from the prior to the posterior and back, ndarray (R,).

    Parameters
    ----------
    walker : ndarray (R, n, T)
        Who held each temperature, by iteration.
    """
    chains, length, count = walker.shape
    found = np.zeros(chains, dtype=int)
    for chain in range(chains):
        # 0: not been at the prior yet; 1: on the way from the prior; 2: has since been at the posterior.
        state = np.zeros(count, dtype=int)
        for at in range(length):
            hot, cold = walker[chain, at, 0], walker[chain, at, -1]
            if state[hot] == 2:
                found[chain] += 1
            state[hot] = 1
            if state[cold] == 1:
                state[cold] = 2
    return found


def log_evidence(beta: np.ndarray, log_likelihood: np.ndarray) -> tuple[float, float]:
    """Log p(y) by stepping stones, and its Monte Carlo error.

    Each log ratio c = log Z(β')/Z(β) solves E_β[σ(Δβ L − c)] = E_β'[σ(c − Δβ L)], σ the logistic function:
    the optimal bridge between neighbours. One side alone, E_β[exp(Δβ L)] or its inverse from the colder, has
    weights without bound where the prior's tails are heavy.

    Parameters
    ----------
    beta : ndarray (T,)
        The ladder.
    log_likelihood : ndarray (R, n, T)
        L at the points of each replica, iteration and temperature.

    Returns
    -------
    tuple of float
        In nats: the estimate and its error, from the scatter of 10 stretches of each replica.

    References
    ----------
    Bennett (1976), Journal of Computational Physics 22; Meng & Wong (1996), Statistica Sinica 6, section 3.
    """
    step = np.diff(beta)
    chains, length, _ = log_likelihood.shape
    blocks = min(_BLOCKS, length)
    size = length // blocks
    used = log_likelihood[:, length - blocks * size :].reshape(chains * blocks, size, beta.size)
    hot, cold = step * used[..., :-1], step * used[..., 1:]
    middle = logsumexp(hot, axis=(0, 1)) - np.log(chains * blocks * size)
    low, high = middle - _REACH, middle + _REACH
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        above = expit(middle - cold).sum(axis=(0, 1)) > expit(hot - middle).sum(axis=(0, 1))
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    if len(used) < 2:
        return float(middle.sum()), float("nan")
    up, down = expit(hot - middle), expit(middle - cold)
    slope = (up * (1 - up)).sum(axis=(0, 1)) + (down * (1 - down)).sum(axis=(0, 1))
    # What each stretch moves the sum of the roots by, to first order.
    pull = ((up.sum(axis=1) - down.sum(axis=1)) / slope).sum(axis=1)
    count = len(pull)
    return float(middle.sum()), float(np.sqrt(count / (count - 1) * np.sum((pull - pull.mean()) ** 2)))
