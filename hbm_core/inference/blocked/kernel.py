"""The inner loop, compiled: circuits and means given Σ, then means and Σ given circuits.

Imported only where something is sampled: it needs numba.
"""

from __future__ import annotations

import numpy as np

from hbm_core.inference.trajectory import compiled, log_density, run
from hbm_core.models import circuits_rule as rule

#: Gain of step sizes' adaptation and how it fades.
_GAIN, _FADE = 1.5, -0.6
#: Trajectories of so small a chance are tried once more, with such a share of the step.
_HOPELESS, _SMALL = 0.05, 0.2


@compiled
def _solve(root, size, x, transposed):
    """Solve L y = x or Lᵀ y = x in the place of `x`."""
    for step in range(size):
        i = size - 1 - step if transposed else step
        left = x[i]
        for j in range(i + 1, size) if transposed else range(i):
            left -= (root[j, i] if transposed else root[i, j]) * x[j]
        x[i] = left / root[i, i]


@compiled
def root_of(below, log_spread, reference, order, root):
    """The root M of Σ (P, P) in the transport's order; see `hbm_core.models.pymc_circuits`."""
    rule.relative_root(below, reference, root)
    for i in range(order.size):
        length = 0.0
        for j in range(order.size):
            length += root[i, j] * root[i, j]
        root[i] *= np.exp(log_spread[order[i]]) / np.sqrt(length)


@compiled
def population_of(below, log_spread, reference, order, root, own_root, covariance):
    """The root of Σ in the transport's order, that with rows in the data's, and Σ itself."""
    root_of(below, log_spread, reference, order, root)
    for i in range(order.size):
        own_root[order[i]] = root[i]
    covariance[:] = own_root @ own_root.T


@compiled
def means_alone(median, sd, root, mode, curvature, order, center, factor):
    """Mean and root of the covariance of α given Σ, where readings are the Gaussians N(θ̂_c, H_c⁻¹).

    Each says α ~ Normal(θ̂_c, Σ + H_c⁻¹), and (Σ + H⁻¹)⁻¹ = M⁻ᵀ (I − (I + Mᵀ H M)⁻¹) M⁻¹.
    """
    size, count = order.size, mode.shape[0]
    back = rule.inverted(root)
    eye, precision, pull = np.eye(size), np.zeros((size, size)), np.zeros(size)
    for c in range(count):
        own = back.T @ (eye - rule.inverted(eye + root.T @ curvature[c] @ root)) @ back
        precision += own
        pull += own @ mode[c]
    for i in range(size):
        center[order[i]] = pull[i]
        for j in range(size):
            factor[order[i], order[j]] = precision[i, j]
    for i in range(size):
        factor[i, i] += 1 / sd[i] ** 2
        center[i] += median[i] / sd[i] ** 2
    inverse = rule.inverted(0.5 * (factor + factor.T))
    center[:] = inverse @ center
    factor[:] = 0.5 * (inverse + inverse.T)
    if not (np.isfinite(inverse).all() and rule.cholesky(factor, size)):
        factor[:] = np.diag(sd)
        center[:] = median


@compiled
def draw_means(theta, alpha, covariance, uses, median, sd, rng):
    """Draw α (P,) given Σ and the constants that circuits use, θ (C, P): a normal."""
    count, size = theta.shape
    precision, pull = np.diag(1 / sd**2), median / sd**2
    for c in range(count):
        used = np.nonzero(uses[c] > 0.5)[0]
        part = np.empty((used.size, used.size))
        for i in range(used.size):
            part[i] = covariance[used[i], used]
        part = rule.inverted(part)
        for i in range(used.size):
            for j in range(used.size):
                precision[used[i], used[j]] += part[i, j]
                pull[used[i]] += part[i, j] * theta[c, used[j]]
    z = rng.standard_normal(size)
    precision = 0.5 * (precision + precision.T)
    if np.isfinite(precision).all() and rule.cholesky(precision, size):
        _solve(precision, size, pull, False)
        pull += z
        _solve(precision, size, pull, True)
        alpha[:] = pull


@compiled
def draw_unused(theta, alpha, covariance, root, uses, rng):
    """Draw the constants of θ (C, P) that circuits do not use given those that they do, in place.

    A draw of the population is corrected by what the used ones differ from it (Matheron's rule).
    """
    count, size = theta.shape
    for c in range(count):
        used, others = np.nonzero(uses[c] > 0.5)[0], np.nonzero(uses[c] <= 0.5)[0]
        star = alpha + root @ rng.standard_normal(size)
        part, gap = np.empty((used.size, used.size)), np.empty(used.size)
        for i in range(used.size):
            part[i] = covariance[used[i], used]
            gap[i] = theta[c, used[i]] - star[used[i]]
        if not rule.cholesky(part, used.size):
            continue
        _solve(part, used.size, gap, False)
        _solve(part, used.size, gap, True)
        for i in others:
            theta[c, i] = star[i]
            for j in range(used.size):
                theta[c, i] += covariance[i, used[j]] * gap[j]


@compiled
def _owed(exact, exact_data, point, value, scrap, other):
    """What the exact density is above `value`, of the one a trajectory goes by; NaN where it has none."""
    if exact == 0:
        return 0.0
    return other[0] - value if log_density(exact, exact_data, point, scrap, other) else np.nan


@compiled
def move(
    address, data, exact, exact_data, owed, x, places, factor, log_step, trajectory, most, rng, room,
    small_room,
):  # fmt: skip
    """One trajectory of x[places], in place: its acceptance, its steps, and whether it was lost.

    It goes by the density at `address`, which may be near the exact one only; its ends are those of `exact`
    where that is not 0: leapfrog steps by any force of the place are reversible and keep volumes. `owed` (1,)
    holds what the exact one is above the other, in and out.

    One that is hopeless, because the usual step is too long there, is tried once more with a fifth of the
    step and another momentum (delayed rejection). That counts where the first momentum would be hopeless from
    its end too, with the ratio of the two chances of having been refused: so both keep the posterior.
    Lost is one whose second try loses its way too.

    References
    ----------
    Neal (2011), MCMC using Hamiltonian dynamics, section 5.5, for trajectories by approximations.
    Modi, Barnett and Carpenter (2023), Bayesian Analysis 19(3), for delayed rejection in HMC.
    """
    point, start, ahead, end, scrap = room
    z, first, push, step_by = small_room
    size, value, other = places.size, np.zeros(1), np.zeros(1)
    step = np.exp(log_step) * (0.8 + 0.4 * rng.random())
    count = min(most, max(1, int(np.ceil(trajectory * (0.5 + rng.random()) / step))))
    if not log_density(address, data, x, start, value):
        return 0.0, 1, True
    here = value[0]
    for k in range(size):
        first[k] = rng.standard_normal()
    z[:] = first
    point[:], ahead[:] = x, start
    energy = 0.5 * np.sum(z * z) - here
    sound, taken = run(
        address, data, places, factor, step, count, energy, point, z, ahead, value, push, step_by
    )
    chance, debt = 0.0, 0.0
    if sound:
        debt = _owed(exact, exact_data, point, value[0], scrap, other)
        gain = energy - owed[0] + value[0] + debt - 0.5 * np.sum(z * z)
        chance = np.exp(min(0.0, gain)) if np.isfinite(gain) else 0.0
    if rng.random() < chance:
        x[:], owed[0] = point, debt
        return chance, taken, False
    if chance > _HOPELESS:
        return chance, taken, False

    for k in range(size):
        z[k] = rng.standard_normal()
    point[:], ahead[:], value[0] = x, start, here
    energy = 0.5 * np.sum(z * z) - here
    sound, steps = run(
        address, data, places, factor, step * _SMALL, int(count / _SMALL), energy, point, z, ahead, value,
        push, step_by,
    )  # fmt: skip
    taken += steps
    if sound:
        debt = _owed(exact, exact_data, point, value[0], scrap, other)
    if not (sound and np.isfinite(debt)):
        return chance, taken, True
    gain = energy - owed[0] + value[0] + debt - 0.5 * np.sum(z * z)
    # What the first momentum would have come to from here.
    end[:], z[:] = point, first
    energy = 0.5 * np.sum(z * z) - value[0]
    sound, steps = run(
        address, data, places, factor, step, count, energy, point, z, ahead, value, push, step_by
    )
    taken += steps
    back = 0.0
    if sound:
        beyond = _owed(exact, exact_data, point, value[0], scrap, other)
        there = energy - debt + value[0] + beyond - 0.5 * np.sum(z * z)
        back = np.exp(min(0.0, there)) if np.isfinite(there) else 0.0
    if back <= _HOPELESS and rng.random() < np.exp(gain) * (1 - back) / (1 - chance):
        x[:], owed[0] = end, debt
    return chance, taken, False


@compiled
def owed_at(near, near_data, exact, exact_data, states, at, places, order, reference, bends, parts):
    """What the exact density of circuits given Σ is above the near one, at states (n, D); NaN where none is.

    Arguments as of `sweep`.
    """
    mode, curvature, basis, firm = bends[:4]
    size = order.size
    root, own_root, covariance = np.empty((size, size)), np.empty((size, size)), np.empty((size, size))
    found, value, other = np.empty(states.shape[0]), np.zeros(1), np.zeros(1)
    point, scrap = np.empty(places.size), np.empty(places.size)
    for n in range(states.shape[0]):
        x = states[n]
        spread, below = x[at[1] : at[1] + size], x[at[2] : at[2] + size * (size - 1) // 2]
        population_of(below, spread, reference, order, root, own_root, covariance)
        back, push, tilt, share, constant = parts
        constant[0] = rule.given(root, mode, curvature, basis, firm, back, push, tilt, share)
        point[:] = x[places]
        found[n] = np.nan
        if log_density(near, near_data, point, scrap, value):
            found[n] = _owed(exact, exact_data, point, value[0], scrap, other)
    return found


@compiled
def sweep(
    whole, whole_data, near, near_data, exact, exact_data, alone, alone_data, x, owed, at, inner_places,
    outer_places, order, reference, uses, median, sd, bends, turned, parts, own, middle, learnt, outer_factor,
    log_step, lengths, most, targets, repeats, learned, thin, rng, kept_x, kept_s, lp, accept, steps, lost,
):  # fmt: skip
    """Iterate one chain, in place; a draw is kept every `thin` sweeps.

    Parameters
    ----------
    whole, whole_data : int
        Address of the log density of everything, and of its data.
    near, near_data, exact, exact_data : int
        Of circuits, means and noise given Σ: what trajectories go by, and what their ends are judged by; 0
        where that is the same.
    alone, alone_data : int
        Of σ and Ω given circuits and means.
    x, owed : ndarray (D,), (1,)
        The state, unconstrained; and what `exact` is above `near` there, NaN where that is not known yet.
        Kept from call to call, whose lengths are up to the clock: computed anew it would differ by rounding.
    at : ndarray (4,) of int
        Where α, log σ, ``below`` and u begin in it.
    inner_places, outer_places : ndarray of int
        What trajectories of circuits move, in the order of `near` (α of the fitted first), and those of Σ.
    order, reference, uses, median, sd
        Of the transport; uses (C, P) in the data's order; the prior of α.
    bends, turned : tuple, ndarray (C, P, F)
        Data of the transport, see `hbm_core.models.pymc_circuits.BENDS`; ``bend_inner`` as `place` has it.
    parts : tuple
        Data of `near` and `exact` that depend on Σ (``back``, ``push``, ``tilt``, ``share``, ``constant``);
        written here.
    own, middle : ndarray (C, P), (P,)
        The data of `alone`: θ and α; written here.
    learnt, outer_factor : ndarray (K, K), (L, L)
        Roots of the covariance of circuits' and means' coordinates, those of α as `means_alone` scales them;
        and of Σ's.
    log_step, lengths, targets : ndarray (2,)
        Of both kinds of trajectories; steps are learned in place where `learned` > 0.
    most, repeats, learned, thin : int
        Most steps of a trajectory; trajectories of Σ in a sweep; sweeps of this round before, plus 1, or 0.
    rng : numpy.random.Generator
        The chain's own.
    kept_x, kept_s : ndarray (n, D), (n, K)
        States; and, where something is learned, what the next `learnt` is taken from.
    lp, accept, steps, lost : ndarray (n,), (n, 2), (n,), (n,) of bool
        Log density, mean acceptance by kind, gradients of `near`, whether any trajectory was lost.
    """
    mode, curvature, basis, firm, inner, offset, outer = bends
    back, push, tilt, share, constant = parts
    count, size = uses.shape
    total, few = inner_places.size, outer_places.size
    room = np.empty(total), np.empty(total), np.empty(total), np.empty(total), np.empty(total)
    small = np.empty(few), np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    work = np.empty(total), np.empty(total), np.empty(total), np.empty(total)
    little = np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    all_inner, point, all_outer, y = np.arange(total), np.empty(total), np.arange(few), np.empty(few)
    value, slope, nothing = np.zeros(1), np.empty(x.size), np.zeros(1)
    root, own_root, covariance = np.empty((size, size)), np.empty((size, size)), np.empty((size, size))
    factor, scale, away = np.zeros((total, total)), np.empty((size, size)), np.empty(size)
    center, mean, theta, u = np.empty(size), np.empty(size), np.empty((count, size)), np.empty((count, size))
    bent, z = np.empty((count, offset.shape[1])), np.empty((count, size))
    alpha = x[at[0] : at[0] + size]
    spread, below = x[at[1] : at[1] + size], x[at[2] : at[2] + size * (size - 1) // 2]
    flat = x[at[3] : at[3] + count * size]
    population_of(below, spread, reference, order, root, own_root, covariance)
    constant[0] = rule.given(root, mode, curvature, basis, firm, back, push, tilt, share)
    if not np.isfinite(owed[0]):
        point[:] = x[inner_places]
        if log_density(near, near_data, point, work[0], value):
            owed[0] = _owed(exact, exact_data, point, value[0], work[0], np.zeros(1))
        if not np.isfinite(owed[0]):
            owed[0] = 0.0
    for i in range(kept_x.shape[0]):
        accept[i], steps[i], lost[i] = 0.0, 0, False
        for turn in range(thin):
            means_alone(median, sd, root, mode, curvature, order, center, scale)
            factor[:] = learnt
            for a in range(size):
                for b in range(a + 1):
                    factor[a, b] = 0.0
                    for k in range(b, a + 1):
                        factor[a, b] += scale[a, k] * learnt[k, b]
            point[:] = x[inner_places]
            chance, taken, gone = move(
                near, near_data, exact, exact_data, owed, point, all_inner, factor, log_step[0], lengths[0],
                most, rng, room, work,
            )  # fmt: skip
            x[inner_places] = point
            accept[i, 0] += chance / thin
            steps[i] += taken
            lost[i] |= gone
            if learned > 0:
                gain = _GAIN * (learned + i * thin + turn) ** _FADE
                log_step[0] += gain * (chance - targets[0])
                kept_s[i] = point
                away[:] = alpha - center
                _solve(scale, size, away, False)
                kept_s[i, :size] = away

            mean[:] = alpha[order]
            u[:] = flat.reshape(count, size)
            rule.place(
                mean, u, back, push, tilt, share, constant[0], mode, basis, turned, offset, outer, theta,
                bent, z,
            )  # fmt: skip
            for j in range(size):
                own[:, order[j]] = theta[:, j]
            draw_means(own, alpha, covariance, uses, median, sd, rng)
            middle[:] = alpha
            y[:] = x[outer_places]
            for _ in range(repeats):
                chance, taken, gone = move(
                    alone, alone_data, np.uint64(0), np.uint64(0), nothing, y, all_outer, outer_factor,
                    log_step[1], lengths[1], most, rng, small, little,
                )  # fmt: skip
                if learned > 0:
                    log_step[1] += gain * (chance - targets[1])
                accept[i, 1] += chance / (thin * repeats)
                lost[i] |= gone
            x[outer_places] = y
            population_of(below, spread, reference, order, root, own_root, covariance)
            constant[0] = rule.given(root, mode, curvature, basis, firm, back, push, tilt, share)
            draw_unused(own, alpha, covariance, own_root, uses, rng)
            mean[:] = alpha[order]
            for j in range(size):
                theta[:, j] = own[:, order[j]]
            rule.uncarry(mean, root, mode, curvature, basis, firm, inner, offset, outer, theta, u)
            flat[:] = u.ravel()
        kept_x[i] = x
        lp[i] = value[0] if log_density(whole, whole_data, x, slope, value) else -np.inf
