"""Units and groups of the three-level model given nodes of the sds: moments, weights, predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hbm_core.inference.exact.base import Weights
from hbm_core.inference.exact.three_level_lattice import Lattice
from hbm_core.inference.exact.three_level_table import ThreeLevelTable

#: Numbers in one array over nodes and units, and over nodes and groups.
_BLOCK = 100_000
_GROUP_BLOCK = 200_000


@dataclass(frozen=True, eq=False)
class UnitWeights(Weights):
    """`Weights` of the units with `others` in two: the rest of the own group, and all other groups.

    Attributes
    ----------
    group, beyond : ndarray (N,)
        They sum to `others`; `own`, `group`, `beyond` and `prior` sum to 1.
    """

    group: np.ndarray
    beyond: np.ndarray


@dataclass(frozen=True, eq=False)
class Lending:
    """What each group's mean takes from whom, averaged over the posterior of both sds.

    Attributes
    ----------
    between : ndarray (G, G)
        Weight of the data of the group in the column in the mean of the group in the row.
    prior : ndarray (G,)
        Weight of the prior mean of μ. A row of `between` and its `prior` sum to 1.
    """

    between: np.ndarray
    prior: np.ndarray


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some units in some order: what they are to the table.

    Attributes
    ----------
    deviation, variance : ndarray (M,)
        y less the middle of its group, and s².
    group : ndarray (M,) of int
    """

    deviation: np.ndarray
    variance: np.ndarray
    group: np.ndarray


def group_moments(
    lattice: Lattice,
    weights: np.ndarray,
    mu: tuple[np.ndarray, np.ndarray],
    middle: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the groups' means given the sd of the units, each ndarray (K, G).

    Parameters
    ----------
    lattice : Lattice
        Nodes.
    weights : ndarray (K, J)
        Probabilities of the group nodes given the unit node.
    mu : tuple of ndarray (K, J)
        Mean and variance of μ at the nodes.
    middle : ndarray (G,)
        Taken off the means.
    """
    groups = middle.size
    mean, variance = np.empty((weights.shape[0], groups)), np.empty((weights.shape[0], groups))
    step = max(1, _GROUP_BLOCK // (weights.shape[1] * groups))
    for at in range(0, weights.shape[0], step):
        part = slice(at, at + step)
        share = lattice.shares(part)
        rest = 1 - share
        value = share * (lattice.sums.center[part] - middle)[:, None, :]
        value += rest * (mu[0][part][:, :, None] - middle)
        row = weights[part][:, None, :]
        mean[part] = (row @ value)[:, 0]
        value -= mean[part][:, None, :]
        np.square(value, out=value)
        np.square(rest, out=rest)
        rest *= mu[1][part][:, :, None]
        value += rest
        share /= lattice.sums.precision[part][:, None, :]
        value += share
        variance[part] = (row @ value)[:, 0]
    return mean, variance


def group_weights(lattice: Lattice, weights: np.ndarray, precision: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight of a group's own data and of the prior in its mean given the sd of the units, each (K, G).

    Parameters
    ----------
    lattice : Lattice
        Nodes.
    weights : ndarray (K, J)
        Probabilities of the group nodes given the unit node.
    precision : float
        Of the normal prior on μ; 0 for a flat one.
    """
    groups = lattice.sums.precision.shape[1]
    own, prior = np.empty((weights.shape[0], groups)), np.empty((weights.shape[0], groups))
    step = max(1, _GROUP_BLOCK // (weights.shape[1] * groups))
    for at in range(0, weights.shape[0], step):
        part = slice(at, at + step)
        share = lattice.shares(part)
        rest = 1 - share
        row = (weights[part] / (lattice.total[part] + precision))[:, None, :]
        prior[part] = (row @ rest)[:, 0] * precision
        # 1/V = A (1 - share).
        through = (row @ (rest * rest))[:, 0] * lattice.sums.precision[part]
        own[part] = (weights[part][:, None, :] @ share)[:, 0] + through
    return own, prior


def lending(lattice: Lattice, weights: np.ndarray, precision: float) -> Lending:
    """The weights of all groups in each other's means; `weights` are joint, ndarray (K, J)."""
    groups = lattice.sums.precision.shape[1]
    between, prior = np.zeros((groups, groups)), np.zeros(groups)
    for row in range(weights.shape[0]):
        share = lattice.shares(slice(row, row + 1))[0]
        rest = 1 - share
        through = rest * (weights[row] / (lattice.total[row] + precision))[:, None]
        between += through.T @ (rest * lattice.sums.precision[row])
        between[np.diag_indices(groups)] += weights[row] @ share
        prior += precision * through.sum(0)
    return Lending(between, prior)


def choose(table: ThreeLevelTable, units: np.ndarray) -> Chosen:
    """Units by their places in the structure."""
    places = units if table.order is None else table.places[units]
    group = np.searchsorted(table.start, places, side="right") - 1
    return Chosen(table.deviation[places], table.variance[places], group)


def somewhere(chosen: Chosen, work: Callable[..., tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Run `work` on some units and return its arrays in their order."""
    return work(chosen.deviation, chosen.variance, lambda values: values[:, chosen.group])


def everywhere(
    table: ThreeLevelTable,
    nodes: int,
    out: tuple[np.ndarray, ...],
    work: Callable[..., tuple[np.ndarray, ...]],
) -> tuple[np.ndarray, ...]:
    """Run `work` on blocks of all units and return its arrays in the structure's order.

    `work` takes deviations (B,), variances (B,) and a function that spreads an ndarray (K, G) over the units
    of the block, (K, B), or (K, 1) where they are of one group. Blocks are small enough for the processor's
    cache.
    """
    size = max(256, _BLOCK // max(nodes, 1))
    for at in range(0, table.size, size):
        stop = min(at + size, table.size)
        first = int(np.searchsorted(table.start, at, side="right")) - 1
        last = int(np.searchsorted(table.start, stop, side="left"))
        counts = np.diff(np.clip(table.start[first : last + 1], at, stop))

        def spread(
            values: np.ndarray, first: int = first, last: int = last, counts: np.ndarray = counts
        ) -> np.ndarray:
            if counts.size == 1:
                return values[:, first:last]
            return np.repeat(values[:, first:last], counts, axis=1)

        found = work(table.deviation[at:stop], table.variance[at:stop], spread)
        for target, one in zip(out, found, strict=True):
            target[at:stop] = one
    if table.order is None:
        return out
    return tuple(_unsorted(one, table.order) for one in out)


def _unsorted(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    out[order] = values
    return out


def unit_moments(
    table: ThreeLevelTable,
    sigma: np.ndarray,
    weights: np.ndarray,
    groups: tuple[np.ndarray, np.ndarray],
    chosen: Chosen | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Means, less the table's location, and sds of the units, each ndarray (N,) or (M,).

    Parameters
    ----------
    table : ThreeLevelTable
        The data.
    sigma, weights : ndarray (K,)
        Nodes of the sd of the units and their probabilities.
    groups : tuple of ndarray (K, G)
        Means, less the groups' middles, and variances of the groups' means at the nodes.
    chosen : Chosen, optional
        Some units; all by default.
    """
    t = np.square(sigma)[:, None]
    shift, spread_of = groups
    middle = table.middle[None]

    def work(
        deviation: np.ndarray,
        variance: np.ndarray,
        spread: Callable[[np.ndarray], np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        pooling = t + variance
        np.divide(variance, pooling, out=pooling)
        pull = spread(shift) - deviation
        pull *= pooling
        moved = weights @ pull
        pull -= moved
        np.square(pull, out=pull)
        inside = pooling * spread(spread_of)
        inside += t
        inside *= pooling
        inside += pull
        return deviation + moved + spread(middle)[0], np.sqrt(weights @ inside)

    if chosen is not None:
        mean, sd = somewhere(chosen, work)
        return mean, sd
    mean, sd = everywhere(table, sigma.size, (np.empty(table.size), np.empty(table.size)), work)
    return mean, sd


def unit_shares(
    table: ThreeLevelTable,
    sigma: np.ndarray,
    weights: np.ndarray,
    sums_precision: np.ndarray,
    shares: tuple[np.ndarray, np.ndarray] | None,
    chosen: Chosen | None = None,
) -> tuple[np.ndarray, ...]:
    """E[B_i | y], and the weights own, group, beyond and prior where `shares` are given; (N,) or (M,).

    Parameters
    ----------
    table : ThreeLevelTable
        The data.
    sigma, weights : ndarray (K,)
        Nodes of the sd of the units and their probabilities.
    sums_precision : ndarray (K, G)
        A_g at the nodes.
    shares : tuple of ndarray (K, G), optional
        Weight of a group's own data and of the prior in its mean.
    chosen : Chosen, optional
        Some units; all by default.
    """
    t = np.square(sigma)[:, None]

    def work(
        deviation: np.ndarray,
        variance: np.ndarray,
        spread: Callable[[np.ndarray], np.ndarray],
    ) -> tuple[np.ndarray, ...]:
        inverse = 1 / (t + variance)
        pooling = variance * inverse
        average = weights @ pooling
        if shares is None:
            return (average,)
        within = pooling * spread(shares[0])
        through = weights @ (within * inverse / spread(sums_precision))
        inside, prior = weights @ within, weights @ (pooling * spread(shares[1]))
        return average, 1 - average + through, inside - through, average - inside - prior, prior

    if chosen is not None:
        return somewhere(chosen, work)
    out = tuple(np.empty(table.size) for _ in range(1 if shares is None else 5))
    return everywhere(table, sigma.size, out, work)
