"""Group means and effects of units from their conditionals given the spreads, compiled.

This module imports numba: import it where draws are completed.
"""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def draw_rows(population, mu, among, within, effect, squares, starts, back, means, effects):
    """Turn standard normal numbers into draws of μ, group means and θ, in place.

    With w_i = 1/(s_i² + σ_unit²), A = Σ w_i and ȳ = Σ w_i y_i / A of a group, and r = σ_group² / (σ_group² +
    1/A),

        group mean | μ ~ Normal(μ + r (ȳ − μ), √(r/A)),
        θ_i | group mean ~ Normal(group mean + b_i (y_i − group mean), s_i √b_i),  b_i = w_i σ_unit²,

    and μ under Normal(m, v) from the groups' ȳ with precisions 1/(σ_group² + 1/A).

    Parameters
    ----------
    population : ndarray (3,)
        m; 1/v² of the sd v, or a negative number where `mu` is given and not drawn; what the effects, μ and m
        are about, added to group means and θ in the end.
    mu : ndarray (n,)
        μ, or standard normal numbers.
    among, within : ndarray (n,)
        σ_group and σ_unit.
    effect, squares : ndarray (N,)
        y and s², group by group.
    starts : ndarray (G + 1,) of int
        Where the groups begin.
    back : ndarray (N,) of int
        Place of each of these units in the rows of `effects`.
    means : ndarray (n, G)
        Standard normal numbers; group means in the end.
    effects : ndarray (n, N)
        Standard normal numbers; θ in the end.

    References
    ----------
    Gelman et al. (2013), Bayesian Data Analysis, 3rd ed., section 5.4, at either level.
    """
    count, about = starts.size - 1, population[2]
    weight, row = np.empty(effect.size), np.empty(effect.size)
    precision, centre = np.empty(count), np.empty(count)
    for n in range(mu.size):
        a, u = among[n] ** 2, within[n] ** 2
        for i in range(effect.size):
            weight[i] = 1 / (squares[i] + u)
        for g in range(count):
            total, pulled = 0.0, 0.0
            for i in range(starts[g], starts[g + 1]):
                total += weight[i]
                pulled += weight[i] * effect[i]
            precision[g], centre[g] = total, pulled / total
        if population[1] >= 0:
            total, pulled = population[1], population[0] * population[1]
            for g in range(count):
                w = 1 / (a + 1 / precision[g])
                total += w
                pulled += w * centre[g]
            mu[n] = pulled / total + mu[n] / math.sqrt(total)
        for g in range(count):
            share = a / (a + 1 / precision[g])
            sd = math.sqrt(share / precision[g])
            centre[g] = mu[n] + share * (centre[g] - mu[n]) + sd * means[n, g]
            means[n, g] = centre[g] + about
        for i in range(effect.size):
            row[i] = effects[n, back[i]]
        for g in range(count):
            mean = centre[g]
            for i in range(starts[g], starts[g + 1]):
                share = weight[i] * u
                row[i] = mean + share * (effect[i] - mean) + math.sqrt(share * squares[i]) * row[i] + about
        for i in range(effect.size):
            effects[n, back[i]] = row[i]
