"""The inner loop, compiled: local moves at every temperature, then swaps of neighbours.

Imported only where something is sampled: it needs numba.
"""

from __future__ import annotations

import numpy as np

from hbm_core.inference.trajectory import call, compiled, log_density, run, spread

#: A log likelihood that is not finite, as a number that every swap refuses.
NOWHERE = -1e300
#: Share of trajectories with a step so much smaller: they reach into necks that the usual step does not.
_SMALL_SHARE, _SMALL = 0.1, 0.2


@compiled
def log_likelihood(address, data, x, expanded, place):
    """Log likelihood at x (D,), from the model's variables; `NOWHERE` where it is not finite."""
    code = call(
        address, np.uint64(x.size), np.uint64(expanded.size), np.uint64(x.ctypes.data),
        np.uint64(expanded.ctypes.data), data,
    )  # fmt: skip
    found = expanded[place]
    return found if code == 0 and np.isfinite(found) else NOWHERE


@compiled
def advance(
    log_address, expand_address, place, expanded, data, beta, factor, log_step, log_walk, trajectory, most,
    target, walk_target, learned, x, like, walker, rng, prior, begin,
    kept_x, kept_lp, kept_like, kept_walker, accept, walked, swap, steps,
):  # fmt: skip
    """Iterate one replica, in place.

    Parameters
    ----------
    log_address, expand_address : int
        Of the compiled log density and of the model's variables.
    place : int
        Of the log likelihood among the variables.
    expanded : ndarray (E,)
        Room for the variables.
    data : ndarray (T,) of uint64
        Addresses of the data at each temperature: they differ in β.
    beta : ndarray (T,)
        From 0, the prior, to 1, the posterior.
    factor : ndarray (T, D, D) or (T, 1, D)
        C with C Cᵀ ≈ the covariance at each temperature, or its diagonal.
    log_step, log_walk : ndarray (T,)
        Log step of trajectories and log scale of the walk; learned in place where `learned` > 0.
    trajectory, most : float, int
        Length of a trajectory in standard units, and the most steps it may take.
    target, walk_target : float
        Acceptance that the two are adapted to.
    learned : int
        Iterations of this round before the first, plus 1; 0 after warm-up.
    x, like, walker : ndarray (T, D), (T,), (T,)
        State: points, log likelihoods, who holds each temperature.
    rng : numpy.random.Generator
        The replica's own.
    prior : ndarray (n, D) or (0, D)
        Independent draws for β = 0; without any it is moved like the others.
    begin : int
        Iterations so far: even ones swap the pairs (0, 1), (2, 3) …, odd ones the others.
    kept_x : ndarray (n, K, D)
        Points of the K coldest temperatures after each iteration's moves.
    kept_lp : ndarray (n,)
        Log prior plus log likelihood at β = 1.
    kept_like, kept_walker, accept, walked : ndarray (n, T)
        Log likelihoods, holders, acceptance probabilities of trajectories and of walks.
    swap : ndarray (n, T − 1)
        Acceptance probability of a swap of each pair, whether its turn or not.
    steps : ndarray (n,)
        Steps at β = 1.
    """
    count, size = x.shape
    places = np.arange(size)
    value, other = np.zeros(1), np.zeros(1)
    gradient, ahead = np.zeros(size), np.zeros(size)
    point, z, push, move = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    for i in range(kept_x.shape[0]):
        for t in range(count):
            if t == 0 and prior.shape[0] > 0:
                x[0] = prior[i]
                like[0] = log_likelihood(expand_address, data[0], x[0], expanded, place)
                accept[i, 0] = walked[i, 0] = 1.0
                continue
            moved = False
            inside = log_density(log_address, data[t], x[t], gradient, value)
            here = value[0] if inside else -np.inf
            for k in range(size):
                z[k] = rng.standard_normal()
            scale = np.exp(log_walk[t]) * (1.0 if rng.random() < 0.5 else 0.2 + 2.0 * rng.random())
            spread(factor[t], z, move)
            point[:] = x[t] + scale * move
            chance = 0.0
            if log_density(log_address, data[t], point, ahead, other):
                chance = min(1.0, np.exp(min(0.0, other[0] - here)))
            if rng.random() < chance:
                x[t], gradient[:], here = point, ahead, other[0]
                inside = moved = True
            walked[i, t] = chance

            chance, taken = 0.0, 0
            small = rng.random() < _SMALL_SHARE
            step = np.exp(log_step[t]) * (_SMALL if small else 0.8 + 0.4 * rng.random())
            length = trajectory * (0.5 + rng.random())
            if inside:
                energy = -here
                for k in range(size):
                    z[k] = rng.standard_normal()
                    energy += 0.5 * z[k] * z[k]
                point[:], ahead[:], other[0] = x[t], gradient, here
                wanted = min(most, max(1, int(np.ceil(length / step))))
                sound, taken = run(
                    log_address, data[t], places, factor[t], step, wanted, energy, point, z, ahead, other,
                    push, move,
                )  # fmt: skip
                if sound:
                    chance = np.exp(min(0.0, energy + other[0] - 0.5 * np.sum(z * z)))
                if rng.random() < chance:
                    x[t], here = point, other[0]
                    moved = True
            accept[i, t] = chance
            if moved:
                like[t] = log_likelihood(expand_address, data[t], x[t], expanded, place)
            if t == count - 1:
                kept_lp[i], steps[i] = here, taken
            if learned > 0:
                rate = 1.5 * (learned + i) ** -0.6
                if not small:
                    log_step[t] += rate * (chance - target)
                log_walk[t] += rate * (walked[i, t] - walk_target)
        for k in range(kept_x.shape[1]):
            kept_x[i, kept_x.shape[1] - 1 - k] = x[count - 1 - k]
        kept_like[i], kept_walker[i] = like, walker
        for t in range(count - 1):
            swap[i, t] = np.exp(min(0.0, (beta[t + 1] - beta[t]) * (like[t] - like[t + 1])))
        for t in range((begin + i) % 2, count - 1, 2):
            if rng.random() < swap[i, t]:
                point[:] = x[t]
                x[t] = x[t + 1]
                x[t + 1] = point
                like[t], like[t + 1] = like[t + 1], like[t]
                walker[t], walker[t + 1] = walker[t + 1], walker[t]
