"""A lattice over two or three positive parameters, in coordinates in which the posterior is nearly round.

Each parameter lives on the whole line: log x, or the log odds where its prior has both edges. Nodes stand at
centre + L · (steps · whole numbers), L a lower triangle, where the posterior is less than some nats below its
peak. The sum over such a lattice converges exponentially (Trefethen and Weideman, 2014, SIAM Review 56,
section 2). Its error is seen by shifting it half a step along each axis, the log likelihood interpolated, and
by taking every second node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, log_expit

from hbm_core.inference.exact.grid import interpolate_logs, refine_logs
from hbm_core.models.prior import Prior

#: From parameters, ndarray (P, D), to the log likelihood, ndarray (P,).
LogLikelihood = Callable[[np.ndarray], np.ndarray]
#: Mass beside unknown nodes above which a lattice does not hold a posterior.
_EDGE = 6e-5
#: Error estimate in sds above which a lattice is too coarse; new ones aim lower.
_COARSE, _AIM = 1e-3, 3e-4
#: A lattice is never made of more nodes.
_MOST = 150_000
_FARTHEST = 600.0
#: Draws made at a time.
_DRAWS = 2_000


@dataclass(frozen=True)
class Scale:
    """A positive parameter on the whole line, between the edges of its prior."""

    lower: float = 0.0
    upper: float = float("inf")

    @classmethod
    def of(cls, prior: Prior) -> Scale:
        """Of a prior on a positive parameter."""
        return cls(max(prior.support[0], 0.0), prior.support[1])

    def x(self, v: np.ndarray) -> np.ndarray:
        """Parameter at a coordinate."""
        v = np.clip(v, -_FARTHEST, _FARTHEST)
        if np.isfinite(self.upper):
            return self.lower + (self.upper - self.lower) * expit(v)
        return self.lower + np.exp(v)

    def v(self, x: np.ndarray) -> np.ndarray:
        """Coordinate of a parameter."""
        x = np.asarray(x, dtype=float)
        with np.errstate(divide="ignore"):
            if np.isfinite(self.upper):
                return np.log(np.maximum(x - self.lower, 0)) - np.log(np.maximum(self.upper - x, 0))
            return np.log(np.maximum(x - self.lower, 0))

    def log_jacobian(self, v: np.ndarray) -> np.ndarray:
        """Log dx/dv."""
        if np.isfinite(self.upper):
            return np.log(self.upper - self.lower) + log_expit(v) + log_expit(-v)
        return v


@dataclass(frozen=True, eq=False)
class Lattice:
    """Nodes and what the data say there, whatever the prior.

    Attributes
    ----------
    scales : tuple of Scale
        Coordinates of the D parameters.
    centre : ndarray (D,)
        Coordinates of the node 0.
    root : ndarray (D, D)
        Step · L.
    index : ndarray (P, D) of int
        Whole numbers of each node.
    v, x : ndarray (P, D)
        Coordinates and parameters.
    log_likelihood : ndarray (P,)
        At the nodes.
    edge : ndarray (P,) of bool
        Whether a neighbour is unknown.
    complete : bool
        False where there would have been too many nodes.
    """

    scales: tuple[Scale, ...]
    centre: np.ndarray
    root: np.ndarray
    index: np.ndarray
    v: np.ndarray
    x: np.ndarray
    log_likelihood: np.ndarray
    edge: np.ndarray
    complete: bool

    @cached_property
    def log_cell(self) -> np.ndarray:
        """Log of the volume of a cell in the parameters, ndarray (P,)."""
        jacobian = np.sum([scale.log_jacobian(self.v[:, d]) for d, scale in enumerate(self.scales)], axis=0)
        return jacobian + float(np.log(np.diag(self.root)).sum())

    @cached_property
    def shifted(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates; log likelihood plus log of the cell: at the nodes, then half a step along each axis.

        Arrays ((1 + D) · P, 2 D), the parameters after their coordinates, and ((1 + D) · P,).
        """
        low = self.index.min(axis=0)
        shape = tuple(np.maximum(np.ptp(self.index, axis=0) + 1, 6))
        logs = np.full(shape, np.nan)
        at = self.index - low
        logs[tuple(at.T)] = self.log_likelihood
        x, values = [np.hstack([self.v, self.x])], [self.log_likelihood + self.log_cell]
        volume = float(np.log(np.diag(self.root)).sum())
        for d in range(len(shape)):
            rows = np.moveaxis(_extend(logs, d), d, -1)
            others = np.delete(at, d, axis=1)
            between = interpolate_logs(rows[tuple(others.T)], at[:, d] + 0.5)
            v = self.v + 0.5 * self.root[:, d]
            there = [scale.x(v[:, j])[:, None] for j, scale in enumerate(self.scales)]
            x.append(np.hstack([v, *there]))
            jacobian = sum(scale.log_jacobian(v[:, j]) for j, scale in enumerate(self.scales))
            values.append(between + jacobian + volume)
        return np.concatenate(x), np.concatenate(values)

    @cached_property
    def even(self) -> np.ndarray:
        """Every second node, like the white squares of a chess board, ndarray (P,) of bool."""
        return self.index.sum(axis=1) % 2 == 0

    @cached_property
    def quarter(self) -> np.ndarray:
        """Every fourth node of three dimensions, every second of two, ndarray (P,) of bool."""
        if self.index.shape[1] < 3:
            return self.even
        return ((self.index - self.index[:, :1]) % 2 == 0).all(axis=1)


@dataclass(frozen=True, eq=False)
class Weighted:
    """A lattice under one prior.

    Attributes
    ----------
    lattice : Lattice
        Nodes.
    log_density : ndarray (P,)
        Log of likelihood, prior and cell.
    weights : ndarray (P,)
        Probabilities of the nodes.
    log_total : float
        Log p(y), where the prior is proper.
    mean, sd : ndarray (D,)
        Of the parameters.
    shares : ndarray (1 + D, P)
        Masses at the nodes, and half a step along each axis, over the sum of the former.
    errors : ndarray (1 + D,)
        Largest change of a mean or sd, in sds: by every second node, and by half a step along each axis. Of
        the coordinate, where the parameter's own moments are infinite.
    """

    lattice: Lattice
    log_density: np.ndarray
    weights: np.ndarray
    log_total: float
    mean: np.ndarray
    sd: np.ndarray
    shares: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, lattice: Lattice, priors: Sequence[Prior]) -> Weighted:
        """Weigh the nodes by a prior."""
        both, log_density = lattice.shifted
        size = lattice.index.shape[1]
        for d, prior in enumerate(priors):
            log_density = log_density + prior.log_density(both[:, size + d])
        log_density = log_density.reshape(1 + size, -1)
        top = log_density[0].max()
        mass = np.exp(np.minimum(log_density - top, 50.0))
        total = mass[0].sum()
        weights = mass[0] / total
        mean, sd = _moments(weights, lattice.x)
        columns = [size + d if prior.tail > 2 else d for d, prior in enumerate(priors)]
        x = both[:, columns].reshape(1 + size, -1, size)
        half = weights * lattice.even
        sets = [weights, half / half.sum(), *(some / some.sum() for some in mass[1:])]
        found = [_moments(some, there) for some, there in zip(sets, [x[0], *x], strict=True)]
        means, sds = np.array([one[0] for one in found]), np.array([one[1] for one in found])
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = np.maximum(np.abs(means[1:] - means[0]), np.abs(sds[1:] - sds[0])) / sds[0]
        errors = np.nan_to_num(gap, nan=1.0, posinf=1.0).max(axis=1)
        log_total = float(top + np.log(total))
        return cls(lattice, log_density[0], weights, log_total, mean, sd, mass / total, errors)

    def finer(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and weights that leave no wave of a single axis's step: S + ½ Σ (S_d − S).

        S is the sum over the nodes, S_d that over nodes half a step along d. Some weights are negative.
        """
        size = self.lattice.index.shape[1]
        both, _ = self.lattice.shifted
        weights = 0.5 * self.shares
        weights[0] *= 2 - size
        return both[:, size:], weights.ravel()

    @property
    def error(self) -> float:
        """The largest of `errors`."""
        return float(self.errors.max())

    @property
    def edge(self) -> float:
        """Mass of nodes beside unknown ones."""
        return float(self.weights[self.lattice.edge].sum())

    @property
    def holds(self) -> bool:
        """Whether the lattice reaches as far as the posterior and is fine enough for it."""
        return self.edge <= _EDGE and self.error <= _COARSE


def _moments(weights: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = weights @ x
    return mean, np.sqrt(weights @ np.square(x - mean))


@dataclass(frozen=True, eq=False)
class Problem:
    """A posterior to put a lattice on.

    Attributes
    ----------
    priors : sequence of Prior
        Of the D parameters.
    log_likelihood : callable
        Of the parameters.
    start : ndarray (D,)
        Parameters near the likelihood's peak.
    orders : sequence of int
        Highest finite moment (0, 1, 2) of each: the lattice holds that moment, too.
    drop : float
        Nats below the peak where it ends.
    held : callable
        Log of one more quantity whose mean the lattice holds, ndarray (P,), at parameters (P, D).
    """

    priors: Sequence[Prior]
    log_likelihood: LogLikelihood
    start: np.ndarray
    orders: Sequence[int]
    drop: float
    held: LogLikelihood | None = None

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """Coordinates."""
        return tuple(Scale.of(prior) for prior in self.priors)

    def x(self, v: np.ndarray) -> np.ndarray:
        """Parameters at coordinates (P, D)."""
        return np.stack([scale.x(v[:, d]) for d, scale in enumerate(self.scales)], axis=1)

    def log_prior(self, v: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Log prior density of the coordinates."""
        parts = [
            prior.log_density(x[:, d]) + scale.log_jacobian(v[:, d])
            for d, (prior, scale) in enumerate(zip(self.priors, self.scales, strict=True))
        ]
        return np.sum(parts, axis=0)

    def log_posterior(self, v: np.ndarray) -> np.ndarray:
        """Log density of the coordinates (P, D), up to a constant."""
        x = self.x(v)
        return self.log_likelihood(x) + self.log_prior(v, x)

    def growth(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Nats that the moments' factors add beyond the parameters `at`."""
        with np.errstate(divide="ignore"):
            factor = np.max(np.asarray(self.orders) * np.maximum(np.log(x) - np.log(at), 0), axis=1)
            if self.held is not None:
                factor = np.maximum(factor, self.held(x) - self.held(at[None]))
        return factor


def _differences(size: int, step: float) -> np.ndarray:
    """Points of a finite-difference Hessian: centre, ± each axis, ± each pair."""
    axes = step * np.eye(size)
    points = [np.zeros(size)]
    for axis in axes:
        points += [axis, -axis]
    for i in range(size):
        for j in range(i):
            points += [axes[i] + axes[j], -axes[i] - axes[j]]
    return np.array(points)


def peak(problem: Problem, steps: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the posterior's peak and a root of the inverse curvature there."""
    size, width = len(problem.priors), 2e-3
    points = _differences(size, width)
    v = np.array([float(scale.v(s)) for scale, s in zip(problem.scales, problem.start, strict=True)])
    v = np.clip(np.nan_to_num(v, posinf=3.0, neginf=-3.0), -20, 20)
    best = -np.inf
    for _ in range(steps):
        f = problem.log_posterior(v + points)
        best = f[0]
        gradient = (f[1 : 2 * size : 2] - f[2 : 2 * size + 1 : 2]) / (2 * width)
        hessian = np.diag((f[1 : 2 * size : 2] + f[2 : 2 * size + 1 : 2] - 2 * f[0]) / width**2)
        place = 1 + 2 * size
        for i in range(size):
            for j in range(i):
                both = (f[place] + f[place + 1] - 2 * f[0]) / width**2
                hessian[i, j] = hessian[j, i] = (both - hessian[i, i] - hessian[j, j]) / 2
                place += 2
        values, vectors = np.linalg.eigh(-hessian)
        values = np.maximum(np.abs(values), 1e-2)
        move = vectors @ ((vectors.T @ gradient) / values)
        if np.abs(move * np.sqrt(values).max()).max() < 0.05:
            break
        move *= min(1.0, 2.0 / np.abs(move).max())
        tries = v + np.array([1.0, 0.5, 0.2, 0.05])[:, None] * move
        found = problem.log_posterior(tries)
        if not found.max() > best:
            break
        v = tries[found.argmax()]
    return v, np.linalg.cholesky((vectors / values) @ vectors.T)


def fill(
    problem: Problem, centre: np.ndarray, shape: np.ndarray, steps: np.ndarray, most: int = _MOST
) -> Lattice:
    """All nodes less than `drop` nats below the peak, and those beside them that are close to it.

    Parameters
    ----------
    problem : Problem
        The posterior.
    centre : ndarray (D,)
        Coordinates of the first node.
    shape : ndarray (D, D)
        Root of a covariance of the coordinates, a lower triangle.
    steps : ndarray (D,)
        Along the columns of `shape`.
    most : int
        Nodes beyond which the lattice is left incomplete.
    """
    root = shape * steps
    size = len(centre)
    base, offset = 1 << 16, 1 << 15
    code = base ** np.arange(size, dtype=np.int64)
    arms = np.concatenate([np.eye(size, dtype=np.int64), -np.eye(size, dtype=np.int64)])
    front = np.zeros((1, size), dtype=np.int64)
    parts: list[tuple[np.ndarray, ...]] = []
    top, at, complete = -np.inf, np.ones(size), True
    scores: dict[int, float] = {}
    while len(front):
        v = centre + front @ root.T
        x = problem.x(v)
        log_likelihood = problem.log_likelihood(x)
        density = log_likelihood + problem.log_prior(v, x)
        if density.max() > top:
            top, at = density.max(), x[density.argmax()]
        score = density + problem.growth(x, at)
        parts.append((front, v, x, log_likelihood))
        scores.update(zip(((front + offset) @ code).tolist(), score.tolist(), strict=True))
        if len(scores) > most:
            complete = False
            break
        inner = front[score > top - problem.drop]
        value = score[score > top - problem.drop]
        candidates = (inner[:, None] + arms).reshape(-1, size)
        behind = ((inner[:, None] - arms).reshape(-1, size) + offset) @ code
        # Along a line of three, the second difference of a round posterior is minus one step squared.
        before = np.array([scores.get(key, -np.inf) for key in behind.tolist()])
        expected = np.where(
            np.isfinite(before),
            2 * np.repeat(value, len(arms)) - before - 0.5 * np.tile(steps, 2 * len(inner)) ** 2,
            np.inf,
        )
        codes = (candidates + offset) @ code
        wanted = expected > top - problem.drop - 2
        codes, first = np.unique(codes[wanted], return_index=True)
        new = np.array([key not in scores for key in codes.tolist()], dtype=bool)
        front = candidates[wanted][first][new]
    index, v, x, log_likelihood = (np.concatenate(column) for column in zip(*parts, strict=True))
    beside = ((index[:, None] + arms).reshape(-1, size) + offset) @ code
    edge = ~np.isin(beside, (index + offset) @ code).reshape(len(index), -1).all(axis=1)
    return Lattice(problem.scales, centre, root, index, v, x, log_likelihood, edge, complete)


def place(problem: Problem, step: float = 1.05, finest: float = 0.2) -> Weighted:
    """A lattice that holds the posterior: around its mean, as fine as the error estimates ask for.

    Parameters
    ----------
    problem : Problem
        The posterior.
    step, finest : float
        First and finest step, in sds.
    """
    centre, root = peak(problem)
    steps = np.full(len(centre), step)
    found = Weighted.of(fill(problem, centre, root, steps), problem.priors)
    while True:
        # Where the posterior is skewed its own mean and covariance serve better than the peak's.
        v = found.lattice.v
        mean = found.weights @ v
        covariance = (found.weights[:, None] * (v - mean)).T @ (v - mean)
        try:
            own = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            own = root
        off = np.abs(np.linalg.solve(root, own) - np.eye(len(own))).max()
        shift = np.abs(np.linalg.solve(root, mean - centre)).max()
        moved = off > 0.25 or shift > 0.4
        coarse = found.errors > _AIM
        if not found.lattice.complete or not (moved or coarse.any()) or steps.min() <= finest:
            return found
        if moved:
            centre, root = mean, own
        if coarse.any():
            # Errors fall like exp(−c/step), or faster.
            ratio = np.log(0.5 * _AIM) / np.log(np.minimum(found.errors, 0.2))
            each = np.where(coarse, np.clip(1 / np.maximum(ratio, 1e-3), 0.5, 0.9), 1.0)
            steps = np.maximum(steps * np.minimum(each[1:], 1.0), finest)
            if coarse[0] and not coarse[1:].any():
                steps = np.maximum(0.85 * steps, finest)
        found = Weighted.of(fill(problem, centre, root, steps), problem.priors)


class Dense:
    """A weighted lattice as a full array, its logs less those of a round normal: smooth, so interpolated.

    Parameters
    ----------
    weighted : Weighted
        Two or three dimensions.
    """

    def __init__(self, weighted: Weighted) -> None:
        lattice = weighted.lattice
        low = lattice.index.min(axis=0)
        shape = tuple(np.maximum(np.ptp(lattice.index, axis=0) + 1, 6))
        logs = np.full(shape, np.nan)
        density = weighted.log_density - weighted.log_density.max()
        jacobian = sum(scale.log_jacobian(lattice.v[:, d]) for d, scale in enumerate(lattice.scales))
        density = density - lattice.log_cell + jacobian + float(np.log(np.diag(lattice.root)).sum())
        logs[tuple((lattice.index - low).T)] = density
        self.lattice, self.low = lattice, low
        self.step = float(np.diag(lattice.root).min())
        self.axes = [np.arange(length) + start for length, start in zip(shape, low, strict=True)]
        self.curvature = self._curvature(weighted)
        for axis in reversed(range(len(shape))):
            logs = _extend(logs, axis, falling=True)
        self.rest = np.maximum(logs, -100.0) + self._square(len(shape))

    def _curvature(self, weighted: Weighted) -> np.ndarray:
        index = weighted.lattice.index
        mean = weighted.weights @ index
        self.middle = mean
        return 1 / np.maximum(weighted.weights @ np.square(index - mean), 0.25)

    def _square(self, dimensions: int) -> np.ndarray:
        """½ Σ κ (u − ū)² over the first axes."""
        out = np.zeros(())
        for d in range(dimensions):
            out = out[..., None] + 0.5 * self.curvature[d] * np.square(self.axes[d] - self.middle[d])
        return out

    def partial(self, dimensions: int) -> np.ndarray:
        """Log density of the first coordinates, the others summed out, less that of the round normal."""
        size = self.rest.ndim
        if dimensions == size:
            return self.rest
        logs = self.rest - self._square(size)
        top = logs.max()
        out = np.log(np.exp(logs - top).sum(axis=tuple(range(dimensions, size))) + 1e-300) + top
        return np.maximum(out, -80) + self._square(dimensions)

    def marginal(self, d: int, count: int = 241) -> tuple[float, float, np.ndarray]:
        """Start, step and density of the coordinate of parameter `d`, on an even grid."""
        root, centre = self.lattice.root, self.lattice.centre
        rest = self.partial(d + 1)
        others = np.zeros(1)
        square = np.zeros(1)
        for j in range(d):
            others = (others[:, None] + root[d, j] * self.axes[j]).ravel()
            square = (
                square[:, None] + 0.5 * self.curvature[j] * np.square(self.axes[j] - self.middle[j])
            ).ravel()
        rows = rest.reshape(-1, rest.shape[-1])
        own = self.axes[d]
        v = self.lattice.v[:, d]
        grid = np.linspace(v.min(), v.max(), count)
        u = (grid - centre[d] - others[:, None]) / root[d, d]
        inside = (u >= own[0] - 0.5) & (u <= own[-1] + 0.5)
        place = np.clip(u, own[0] - 0.5, own[-1] + 0.5) - own[0]
        value = interpolate_logs(np.broadcast_to(rows[:, None], (*u.shape, own.size)), place)
        value -= square[:, None] + 0.5 * self.curvature[d] * np.square(u - self.middle[d])
        value = np.where(inside, value, -np.inf)
        density = np.exp(value - value.max()).sum(axis=0)
        return float(grid[0]), float(grid[1] - grid[0]), density

    def draws(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Independent coordinates, stratified in the first, ndarray (count, D)."""
        first = rng.permutation((np.arange(count) + rng.random(count)) / count)
        parts = [self._draws(first[at : at + _DRAWS], rng) for at in range(0, count, _DRAWS)]
        return self.lattice.centre + np.concatenate(parts) @ self.lattice.root.T

    def _draws(self, share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Lattice places at shares of the first coordinate's mass."""
        count, size = share.size, self.rest.ndim
        u = np.empty((count, size))
        for d in range(size):
            values = np.broadcast_to(
                self.partial(d + 1)[None], (1 if d == 0 else count, *self.rest.shape[: d + 1])
            )
            for j in range(d):
                place = u[:, j] - self.axes[j][0]
                lines = np.moveaxis(values, 1, -1)
                places = np.broadcast_to(place.reshape(-1, *[1] * (lines.ndim - 2)), lines.shape[:-1])
                values = interpolate_logs(lines, places)
            own = self.axes[d]
            fine = np.linspace(own[0] - 0.5, own[-1] + 0.5, 8 * own.size + 1)
            values = refine_logs(values, fine - own[0])
            logs = values - 0.5 * self.curvature[d] * np.square(fine - self.middle[d])
            density = np.exp(logs - logs.max(axis=1, keepdims=True))
            uniform = share if d == 0 else rng.random(count)
            u[:, d] = _invert(fine, density, uniform)
        return u


def _invert(x: np.ndarray, density: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Quantiles of densities (1 or n rows) that are linear between even nodes."""
    cells = 0.5 * (density[:, 1:] + density[:, :-1])
    cumulative = np.concatenate([np.zeros((len(density), 1)), np.cumsum(cells, axis=1)], axis=1)
    target = share * cumulative[:, -1]
    if len(density) == 1:
        place = np.searchsorted(cumulative[0], target, side="right") - 1
        row = np.zeros(share.size, dtype=np.intp)
    else:
        place = (cumulative <= target[:, None]).sum(axis=1) - 1
        row = np.arange(share.size)
    place = np.clip(place, 0, x.size - 2)
    rest = target - cumulative[row, place]
    low, high = density[row, place], density[row, place + 1]
    slope = high - low
    root = np.sqrt(np.maximum(low * low + 2 * slope * rest, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(low + root > 0, 2 * rest / (low + root), 0.5)
    return x[place] + np.clip(t, 0, 1) * (x[1] - x[0])


def _extend(values: np.ndarray, axis: int, falling: bool = False) -> np.ndarray:
    """Continue, in parabolas, where values are unknown along an axis; downwards, if they fall there."""
    rows = np.moveaxis(values, axis, -1)
    shape = rows.shape
    flat = rows.reshape(-1, shape[-1]).copy()
    for row in np.flatnonzero(np.isnan(flat).any(axis=1) & ~np.isnan(flat).all(axis=1)):
        line = flat[row]
        known = np.flatnonzero(~np.isnan(line))
        inner = np.arange(known[0], known[-1] + 1)
        line[inner] = np.interp(inner, known, line[known])
        for end, away in ((known[0], -1), (known[-1], 1)):
            near = line[end::-away][:3]
            slope = near[0] - near[1] if inner.size > 1 else 0.0
            bend = slope - (near[1] - near[2]) if inner.size > 2 else 0.0
            if falling:
                slope = min(slope, -1.0)
            beyond = np.arange(end + away, shape[-1] if away > 0 else -1, away)
            far = np.arange(1, beyond.size + 1)
            line[beyond] = near[0] + far * slope + 0.5 * min(bend, 0.0) * far * (far + 1)
    return np.moveaxis(flat.reshape(shape), -1, axis)
