"""Nodes over the spreads of a Gaussian mixed model: axis by axis, in coordinates with short ends.

An sd that the data cannot tell from 0 has a density that is finite at 0, and log σ a tail as long as the
nats that are wanted. With σ = c exp(v − e^−v) that tail ends doubly exponentially, while far above c the
coordinate is log σ (Takahasi and Mori, 1974, Publ. RIMS 9, 721–741). Sums over even nodes converge
exponentially; of four axes the white squares of the chess board do as well as all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import expit, lambertw, log_expit

from hbm_core.inference.exact.whitened import Lattice, Problem, Scale, fill, peak
from hbm_core.models.prior import Prior

#: Nats below the peak where a lattice ends, of up to three axes and of more.
DROP = (14.5, 13.0)
#: What every second node along an axis may be off, in sds; full nodes are then off by its power `_POWER`.
COARSE = 8e-2
_AIM, _POWER = (8e-3, 2.5e-2), 2.3
#: First and finest step along an axis, in posterior sds of the coordinate.
_STEP, _FINEST = (0.75, 1.0), 0.08
#: Mass of nodes beside unknown ones up to which a lattice holds a posterior.
EDGE = 1e-4
_ROUNDS = 12
#: Nodes from which they are worth saving, and of which a lattice is never made of more.
_MANY, _MOST = 6_000, 200_000


@dataclass(frozen=True)
class SteepScale(Scale):
    """A positive parameter on the whole line: c exp(v − e^−v) above `lower`, or between two edges.

    Between edges the log odds are π sinh v, which ends as fast at either.
    """

    unit: float = 1.0

    def x(self, v: np.ndarray) -> np.ndarray:
        """Parameter at a coordinate."""
        if np.isfinite(self.upper):
            return self.lower + (self.upper - self.lower) * expit(np.pi * np.sinh(np.clip(v, -5, 5)))
        v = np.clip(v, -5.5, 300)
        return self.lower + self.unit * np.exp(v - np.exp(-v))

    def v(self, x: np.ndarray) -> np.ndarray:
        """Coordinate of a parameter."""
        above = np.maximum(np.asarray(x, dtype=float) - self.lower, 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if np.isfinite(self.upper):
                odds = np.log(above) - np.log(np.maximum(self.upper - np.asarray(x, dtype=float), 0))
                return np.arcsinh(odds / np.pi)
            # v − e^−v = L: with t = e^−v, t e^t = e^−L.
            logs = np.log(above / self.unit)
            small = np.real(lambertw(np.exp(-np.clip(logs, -650, 650))))
            return np.where(logs > 30, logs, -np.log(np.maximum(small, 1e-300)))

    def log_jacobian(self, v: np.ndarray) -> np.ndarray:
        """Log dx/dv."""
        if np.isfinite(self.upper):
            v = np.clip(v, -5, 5)
            odds = np.pi * np.sinh(v)
            inner = log_expit(odds) + log_expit(-odds) + np.log(np.pi * np.cosh(v))
            return np.log(self.upper - self.lower) + inner
        v = np.clip(v, -5.5, 300)
        return np.log(self.unit) + v - np.exp(-v) + np.log1p(np.exp(-v))


class SteepProblem(Problem):
    """A posterior over spreads, each on its own `SteepScale`."""

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """Coordinates: their units are the smaller of the start and the prior's median."""
        found: list[Scale] = []
        for prior, start in zip(self.priors, self.start, strict=True):
            lower, upper = max(prior.support[0], 0.0), prior.support[1]
            middle = float(prior.distribution.ppf(0.5)) - lower
            found.append(SteepScale(lower, upper, max(min(middle, float(start)), 1e-12 * float(start))))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Shares:
    """Probabilities of nodes under one prior, and how far every second node along an axis leads astray.

    Attributes
    ----------
    weights : ndarray (P,)
        Probabilities.
    log_total : float
        Log p(y).
    edge : float
        Mass beside unknown nodes.
    """

    weights: np.ndarray
    log_total: float
    edge: float

    @classmethod
    def of(cls, lattice: Lattice, priors: Sequence[Prior], log_likelihood: np.ndarray) -> Shares:
        """Weigh the nodes by priors of the spreads; the likelihood has μ integrated out."""
        density = log_likelihood + lattice.log_cell
        if not (lattice.index.sum(axis=1) % 2).any():
            # White squares stand for the black ones, too.
            density = density + np.log(2.0)
        for d, prior in enumerate(priors):
            density = density + prior.log_density(lattice.x[:, d])
        top = density.max()
        mass = np.exp(density - top)
        total = mass.sum()
        weights = mass / total
        return cls(weights, float(top + np.log(total)), float(weights[lattice.edge].sum()))


def moments(weights: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds (H,) of mixtures with means and variances (P, H)."""
    centre = weights @ mean
    second = weights @ np.square(mean) + weights @ variance - np.square(centre)
    return centre, np.sqrt(np.maximum(second, 0.0))


def axis_errors(lattice: Lattice, weights: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Largest error of a mean or sd, in sds, by every second node along each axis, ndarray (D,).

    Parameters
    ----------
    mean, variance : ndarray (P, H)
        Of the components, near 0 relative to their spread.
    """
    size = lattice.index.shape[1]
    # Sums by the parities of all axes: BLAS would share products this long between threads, at a loss.
    parity = (lattice.index % 2) @ (1 << np.arange(size))
    order = np.argsort(parity, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(parity[order]) > 0])
    share = weights[order, None]
    first = share * mean[order]
    second = first * mean[order] + share * variance[order]
    table = np.add.reduceat(np.concatenate([share, first, second], axis=1), starts)
    even = (parity[order][starts] >> np.arange(size)[:, None]) % 2 == 0
    totals = np.concatenate([np.ones((1, starts.size)), even]) @ table
    mass, sums = totals[1:, 0], totals[:, 1:]
    sums /= np.concatenate([[1.0], np.where(mass > 0, mass, 1.0)])[:, None]
    centre, second = np.split(sums, 2, axis=1)
    sd = np.sqrt(np.maximum(second - np.square(centre), 0.0))
    safe = np.where(sd[0] > 0, sd[0], 1.0)
    gap = np.maximum(np.abs(centre[1:] - centre[0]), np.abs(sd[1:] - sd[0])) / safe
    # Also that the two halves have unlike masses shows waves that the quantities may miss.
    out = np.maximum(gap, 0.3 * np.abs(2 * mass - 1)[:, None])
    out = np.where(((mass > 0) & (mass < 1))[:, None], np.minimum(out, 1.0), 1.0)
    return out.max(axis=1)


def estimate(errors: np.ndarray) -> float:
    """Error of the full nodes from that of every second one: it falls as exp(−c/step)."""
    return float(np.sum(np.minimum(errors, 1.0) ** _POWER))


def place(problem: SteepProblem) -> Lattice:
    """A lattice that holds the posterior, axis by axis as fine as it has to be."""
    centre, root = peak(problem)
    sds = np.sqrt(np.square(root).sum(axis=1))
    # Four axes take many nodes: they start wider, and aim a little lower.
    many = int(len(centre) > 3)
    aim, first = _AIM[many], _STEP[many]
    steps = np.full(len(centre), first)
    for rounds in range(_ROUNDS):
        lattice = fill(problem, centre, np.diag(sds), steps, _MOST)
        density = lattice.log_likelihood + problem.log_prior(lattice.v, lattice.x)
        weights = np.exp(density - density.max())
        weights /= weights.sum()
        mean = weights @ lattice.v
        spread = np.sqrt(weights @ np.square(lattice.v - mean))
        if not lattice.complete:
            return lattice
        gap = (lattice.v - mean) / spread
        x = (lattice.x - weights @ lattice.x) / np.sqrt(weights @ np.square(lattice.x - weights @ lattice.x))
        sizes = [int(order > 1) for order in problem.orders]
        looked = np.concatenate([gap, x[:, np.array(sizes, dtype=bool)]], axis=1)
        errors = axis_errors(lattice, weights, looked, np.zeros_like(looked))
        ratio = spread / sds
        moved = bool(((ratio < 0.6) | (ratio > 1.6)).any() or (np.abs(mean - centre) > 1.5 * spread).any())
        coarse = (errors > aim) & (steps > _FINEST)
        # Much finer than it has to be costs as many nodes as it saves digits.
        wasteful = bool((errors < 0.02 * aim).any()) and rounds < 2 and len(lattice.v) > _MANY
        if not moved and not coarse.any() and not wasteful:
            break
        if moved:
            # Where the posterior is skewed its own spread serves better than the peak's.
            centre = lattice.v[weights.argmax()]
            steps, sds = np.clip(steps, None, first), spread
        factor = np.log(0.7 * aim) / np.log(np.clip(errors, 1e-12, 0.3))
        steps = np.maximum(steps / np.clip(factor, 0.75, 1.8), _FINEST)
    return _white(lattice) if many else lattice


def _white(lattice: Lattice) -> Lattice:
    """Every second node, as the white squares: waves along an axis cancel among them as among all."""
    kept = lattice.index.sum(axis=1) % 2 == 0
    return replace(
        lattice,
        index=lattice.index[kept],
        v=lattice.v[kept],
        x=lattice.x[kept],
        log_likelihood=lattice.log_likelihood[kept],
        edge=lattice.edge[kept],
    )
