"""Nodes over both sds of the three-level model: what is known at them, and where they are put.

Given both sds the weighted means of the groups are Normal(μ, √V_g), V_g = 1/A_g + σ_group²: a two-level
problem (Gelman et al., 2013, BDA3, section 5.4). The nodes are a product of panels on either axis,
located by a scan of the posterior and bisected until the last Legendre coefficients are negligible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from hbm_core.inference.exact.location import StudentScales, log_normal, smoothed
from hbm_core.inference.exact.quadrature import DEPTH, ORDER, SCAN, Coordinate, PanelDensity, gauss_legendre
from hbm_core.inference.exact.three_level_table import Sums, ThreeLevelTable
from hbm_core.models.prior import Prior

_LOG_2_PI = float(np.log(2 * np.pi))
#: Largest last coefficients of a panel, as a share of the whole integral.
_TOLERANCE = 1e-7
#: Share of the mass in the outermost nodes, per node of even weight, from which on the range is too short.
_EDGE = 1e-10
_ROUNDS = 40
_PANELS = 24
_INNER_ORDER = 14
#: Where the search along σ_group starts, as SCAN but finer: many groups make a narrow ridge.
_FINE_SCAN = np.linspace(SCAN[0], SCAN[-1], 2 * SCAN.size - 1)
#: Numbers in one array over nodes and groups.
_BLOCK = 200_000


@dataclass(frozen=True, eq=False)
class MeanPrior:
    """The prior on μ against normal likelihoods of it, Normal(center, √variance).

    Parameters
    ----------
    prior : Prior
        On μ.
    location : float
        Taken off all centers.
    reach : float
        Largest distance of a group's mean from `location`.
    """

    prior: Prior
    location: float
    reach: float

    @property
    def gaussian(self) -> bool:
        """Whether μ is normal given both sds."""
        return self.prior.family in ("Normal", "Flat")

    @property
    def precision(self) -> float:
        """1/sd² of a normal prior; 0 for others."""
        return self.prior.numbers[1] ** -2.0 if self.prior.family == "Normal" else 0.0

    @property
    def mean(self) -> float:
        """Mean of a normal prior less `location`; 0 for others."""
        return self.prior.numbers[0] - self.location if self.prior.family == "Normal" else 0.0

    @cached_property
    def scales(self) -> StudentScales:
        """A Student t prior as a mixture of normals."""
        center, sigma = self.prior.numbers[1:]
        return StudentScales(self.prior, (abs(center - self.location) + self.reach) / sigma)

    def log_integral(self, center: np.ndarray, variance: np.ndarray) -> np.ndarray | float:
        """Log ∫ p(μ) Normal(μ; center, √variance) dμ."""
        match self.prior.family:
            case "Flat":
                return 0.0
            case "Normal":
                return log_normal(center, self.mean, variance + 1 / self.precision)
            case "StudentT":
                return logsumexp(self.scales.log_terms(center + self.location, variance), axis=-1)
        return smoothed(self.prior).log_integral(center + self.location, variance)

    def moments(
        self, center: np.ndarray, variance: np.ndarray, weights: np.ndarray, order: int = _INNER_ORDER
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of μ at nodes, of the arrays' shape; those without weight are not looked at."""
        match self.prior.family:
            case "Flat":
                return center, variance
            case "Normal":
                total = 1 / (1 / variance + self.precision)
                return center + total * self.precision * (self.mean - center), total
        out_mean, out_variance = center.copy(), variance.copy()
        kept = weights > 1e-16
        at, spread = center[kept], variance[kept]
        if self.prior.family == "StudentT":
            terms = self.scales.log_terms(at + self.location, spread)
            shares = np.exp(terms - logsumexp(terms, axis=1, keepdims=True))
            inside = 1 / (1 / spread[:, None] + 1 / self.scales.nodes[0])
            pull = inside / self.scales.nodes[0] * (self.prior.numbers[1] - self.location - at[:, None])
            mean = np.vecdot(shares, pull)
            out_variance[kept] = np.vecdot(shares, inside + (pull - mean[:, None]) ** 2)
            out_mean[kept] = at + mean
            return out_mean, out_variance
        pieces = [
            smoothed(self.prior).moments(at[part] + self.location, spread[part], order)[1:]
            for part in (slice(start, start + 2048) for start in range(0, at.size, 2048))
        ]
        mean, spread = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
        out_mean[kept], out_variance[kept] = mean - self.location, spread
        return out_mean, out_variance


@dataclass(frozen=True, eq=False)
class Lattice:
    """What is known at nodes of both sds from the data alone.

    Attributes
    ----------
    sigma_unit : ndarray (K,)
        Nodes of the sd of the units.
    sigma_group : ndarray (J,) or (K, J)
        Nodes of the sd of the groups.
    sums : Sums
        At `sigma_unit`.
    total, center : ndarray (K, J)
        Precision and mean of μ under a flat prior on it.
    log_likelihood : ndarray (K, J)
        log p(y | both sds) under a flat prior on μ.
    """

    sigma_unit: np.ndarray
    sigma_group: np.ndarray
    sums: Sums
    total: np.ndarray
    center: np.ndarray
    log_likelihood: np.ndarray

    @classmethod
    def of(cls, sigma_unit: np.ndarray, sums: Sums, sigma_group: np.ndarray) -> Lattice:
        """Everything at the product of nodes, or at each unit node's own group nodes."""
        shape = (sigma_unit.size, sigma_group.shape[-1])
        groups = sums.precision.shape[1]
        total, center, log_likelihood = np.empty(shape), np.empty(shape), np.empty(shape)
        square = np.broadcast_to(np.square(sigma_group), shape)
        step = max(1, _BLOCK // max(shape[1] * groups, 1))
        for at in range(0, shape[0], step):
            part = slice(at, at + step)
            variance = square[part, :, None] + (1 / sums.precision[part])[:, None, :]
            logs = np.log(variance).sum(2)
            np.reciprocal(variance, out=variance)
            total[part] = variance.sum(2)
            y = sums.center[part][:, None, :]
            center[part] = np.vecdot(variance, y) / total[part]
            rest = y - center[part][:, :, None]
            rest *= rest
            log_likelihood[part] = -0.5 * (logs + np.vecdot(rest, variance) + np.log(total[part]))
        log_likelihood += (sums.log_likelihood - 0.5 * (groups - 1) * _LOG_2_PI)[:, None]
        return cls(sigma_unit, sigma_group, sums, total, center, log_likelihood)

    def log_density(self, mu: MeanPrior) -> np.ndarray:
        """Log p(y | both sds), ndarray (K, J)."""
        if mu.prior.family == "Flat":
            return self.log_likelihood
        return self.log_likelihood + mu.log_integral(self.center, 1 / self.total)

    def shares(self, part: slice) -> np.ndarray:
        """σ_group²/V_g, what a group's mean takes from its own units, at some unit nodes: (K', J, G)."""
        square = np.square(self.sigma_group if self.sigma_group.ndim == 1 else self.sigma_group[part])
        return square[..., None] / (square[..., None] + (1 / self.sums.precision[part])[:, None, :])


@dataclass(frozen=True, eq=False)
class Axis:
    """Panels over one sd.

    Attributes
    ----------
    coordinate : Coordinate
        From panels to the sd.
    left, width : ndarray (P,)
        Panels in the coordinate.
    support : tuple of float
        Of the prior they were made for, from 0.
    closed : tuple of bool
        Whether the range's ends are those of the support.
    finite : int
        Moments to be resolved, at most 2.
    """

    coordinate: Coordinate
    left: np.ndarray
    width: np.ndarray
    support: tuple[float, float]
    closed: tuple[bool, bool]
    finite: int

    @property
    def stop(self) -> float:
        """Right end of the last panel."""
        return float(self.left[-1] + self.width[-1])

    def fits(self, prior: Prior) -> bool:
        """Whether panels end where the support of another prior does, as far as they reach."""
        lower, upper = max(prior.support[0], 0.0), prior.support[1]
        if (lower, upper) == self.support:
            return True
        low = self.support[0] if self.closed[0] else float(self.coordinate.x(self.left[0]))
        with np.errstate(divide="ignore"):
            high = float(self.coordinate.x(np.array(self.stop)))
        below = lower == self.support[0] if self.closed[0] else lower <= low
        above = upper == self.support[1] if self.closed[1] else upper >= high
        return below and above

    def bisect(self, bad: np.ndarray) -> Axis:
        """With some of the panels in halves."""
        half = 0.5 * self.width[bad]
        left = np.concatenate([self.left[~bad], self.left[bad], self.left[bad] + half])
        width = np.concatenate([self.width[~bad], half, half])
        order = np.argsort(left)
        return replace(self, left=left[order], width=width[order])

    def extend(self, low: bool, high: bool) -> Axis:
        """With another panel, half as wide as the range, at either end."""
        start, stop = float(self.left[0]), self.stop
        step = 0.5 * (stop - start)
        left, width, closed = list(self.left), list(self.width), list(self.closed)
        if low:
            # Halfway to zero in ratio at least: the range may be short of a far smaller scale.
            new = max(0.0, start - step)
            left.insert(0, new)
            width.insert(0, start - new)
            closed[0] = new == 0.0
        if high:
            end = 1.0 if math.isinf(self.support[1]) else self.coordinate.place(self.support[1])
            new = min(end, stop + step)
            left.append(stop)
            width.append(new - stop)
            closed[1] = new == end
        return replace(self, left=np.array(left), width=np.array(width), closed=(closed[0], closed[1]))


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of one rule on one axis.

    Attributes
    ----------
    x : ndarray (K,)
        The sd.
    log_slope : ndarray (K,)
        Log dx/dv.
    weights : ndarray (K,)
        Of the rule, in v.
    growth : ndarray (K,)
        Log of 1 + x over its scale.
    v : ndarray (K,)
        Places in the coordinate.
    """

    x: np.ndarray
    log_slope: np.ndarray
    weights: np.ndarray
    growth: np.ndarray
    v: np.ndarray

    @classmethod
    def of(cls, axis: Axis, order: int) -> Nodes:
        """Nodes of the Gauss-Legendre rule on all panels of an axis."""
        rule = gauss_legendre(order)
        half = 0.5 * axis.width[:, None]
        v = (axis.left[:, None] + half * (1 + rule.nodes)).ravel()
        with np.errstate(divide="ignore", over="ignore"):
            x, log_slope, growth = axis.coordinate.logs(v)
        return cls(x, log_slope, (half * rule.weights).ravel(), growth, v)


@dataclass(frozen=True, eq=False)
class Grid:
    """One rule on both axes with its lattice."""

    unit: Nodes
    group: Nodes
    lattice: Lattice


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the nodes are: both axes, with the full and the half rule; knows no prior.

    Nodes stay where they are while the posterior under another prior is resolved by them.
    """

    unit: Axis
    group: Axis
    full: Grid
    half: Grid


@dataclass(frozen=True, eq=False)
class Question:
    """Priors, and how fast the posterior falls: all that weights of given nodes depend on.

    Attributes
    ----------
    unit, group : Prior
        On the sds.
    mu : MeanPrior
        On μ.
    tail_unit, tail_group : float
        b, where the posterior densities of the sds fall as σ^(-b - 1).
    """

    unit: Prior
    group: Prior
    mu: MeanPrior
    tail_unit: float
    tail_group: float

    def log_priors(self, unit: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Log density of both sds' priors at nodes."""
        return self.unit.log_density(unit)[:, None] + self.group.log_density(group)

    def log_posterior(self, lattice: Lattice) -> np.ndarray:
        """Unnormalised log density of both sds at a lattice."""
        values = lattice.log_density(self.mu) + self.log_priors(lattice.sigma_unit, lattice.sigma_group)
        return np.where(np.isnan(values), -np.inf, values)


@dataclass(frozen=True, eq=False)
class Weighted:
    """A grid under a question.

    Attributes
    ----------
    grid : Grid
        The nodes.
    height : ndarray (K, J)
        Density in both coordinates, over its peak.
    offset : float
        Log of that peak.
    weights : ndarray (K, J)
        Probabilities of the nodes.
    total : float
        Integral of `height`.
    """

    grid: Grid
    height: np.ndarray
    offset: float
    weights: np.ndarray
    total: float

    @classmethod
    def of(cls, grid: Grid, question: Question) -> Weighted:
        """Weights of all nodes."""
        lattice = grid.lattice
        unit = question.unit.log_density(lattice.sigma_unit) + grid.unit.log_slope
        group = question.group.log_density(lattice.sigma_group) + grid.group.log_slope
        values = lattice.log_density(question.mu) + unit[:, None] + group
        offset = float(values.max())
        if not math.isfinite(offset):
            values = np.where(np.isfinite(values), values, -np.inf)
            offset = float(values.max())
        height = np.exp(values - offset)
        weights = height * (grid.unit.weights[:, None] * grid.group.weights)
        total = float(weights.sum())
        weights /= total
        return cls(grid, height, offset, weights, total)

    @cached_property
    def unit(self) -> np.ndarray:
        """Marginal probabilities of the nodes of the sd of the units, ndarray (K,)."""
        return self.weights.sum(1)

    @cached_property
    def group(self) -> np.ndarray:
        """Marginal probabilities of the nodes of the sd of the groups, ndarray (J,)."""
        return self.weights.sum(0)

    @property
    def log_total(self) -> float:
        """Log of the integral."""
        return self.offset + math.log(self.total)


def rough(weighted: Weighted, axes: Sequence[Axis]) -> tuple[np.ndarray, np.ndarray]:
    """Panels of either axis whose last Legendre coefficients are not negligible."""
    tail, grid = gauss_legendre(ORDER).tail, weighted.grid
    found = []
    for axis, nodes, other, height in (
        (axes[0], grid.unit, grid.group, weighted.height),
        (axes[1], grid.group, grid.unit, weighted.height.T),
    ):
        bad = np.zeros(axis.left.size, dtype=bool)
        for power in {0, axis.finite}:
            values = height * other.weights
            if power:
                values = values * np.exp(power * nodes.growth)[:, None]
            panels = values.reshape(axis.left.size, ORDER, -1)
            whole = float((values * nodes.weights[:, None]).sum())
            last = np.abs(tail.T @ panels).sum(2).max(1) * axis.width
            bad |= ~(last <= _TOLERANCE * whole)
        found.append(bad & (axis.width > 1e-13))
    return found[0], found[1]


def short(weighted: Weighted, axes: Sequence[Axis]) -> list[tuple[bool, bool]]:
    """Whether mass reaches the lower and the upper end of either axis where its prior goes on."""
    found = []
    for axis, nodes, share in (
        (axes[0], weighted.grid.unit, weighted.unit),
        (axes[1], weighted.grid.group, weighted.group),
    ):
        span = axis.stop - float(axis.left[0])
        grown = share * np.exp(axis.finite * (nodes.growth - nodes.growth[int(share.argmax())]))
        low = float(share[0] / nodes.weights[0]) * span
        high = float(max(share[-1], grown[-1]) / nodes.weights[-1]) * span
        found.append((not axis.closed[0] and low > _EDGE, not axis.closed[1] and high > _EDGE))
    return found


def holds(placement: Placement, question: Question) -> Weighted | None:
    """The weights under a question, or None where these nodes do not resolve it."""
    if not (placement.unit.fits(question.unit) and placement.group.fits(question.group)):
        return None
    if _finite(question.tail_unit) > placement.unit.finite:
        return None
    if _finite(question.tail_group) > placement.group.finite:
        return None
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        weighted = Weighted.of(placement.full, question)
    axes = (placement.unit, placement.group)
    if not weighted.total > 0 or any(low or high for low, high in short(weighted, axes)):
        return None
    if any(bad.any() for bad in rough(weighted, axes)):
        return None
    return weighted


def place(table: ThreeLevelTable, question: Question) -> tuple[Placement, Weighted]:
    """Nodes for a question, and their weights; of many panels at most, whose errors tell what they miss."""
    windows = _locate(table, question)
    axes = [
        _axis(prior, window, tail)
        for prior, window, tail in zip(
            (question.unit, question.group),
            windows,
            (question.tail_unit, question.tail_group),
            strict=True,
        )
    ]
    known: dict[tuple[float, float, int], Sums] = {}
    for _ in range(_ROUNDS):
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            full = _grid(table, axes, ORDER, known)
            weighted = Weighted.of(full, question)
        ends = short(weighted, axes)
        if any(low or high for low, high in ends):
            axes = [axis.extend(*end) if any(end) else axis for axis, end in zip(axes, ends, strict=True)]
            continue
        bad = rough(weighted, axes)
        if (
            not any(one.any() for one in bad)
            or max(axis.left.size + int(one.sum()) for axis, one in zip(axes, bad, strict=True)) > _PANELS
        ):
            break
        axes = [axis.bisect(one) for axis, one in zip(axes, bad, strict=True)]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        half = _grid(table, axes, ORDER // 2, {})
    return Placement(axes[0], axes[1], full, half), weighted


def finer(table: ThreeLevelTable, placement: Placement) -> Placement:
    """The same with all panels in halves."""
    axes = [axis.bisect(np.ones(axis.left.size, dtype=bool)) for axis in (placement.unit, placement.group)]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        full, half = _grid(table, axes, ORDER, {}), _grid(table, axes, ORDER // 2, {})
    return Placement(axes[0], axes[1], full, half)


def _grid(
    table: ThreeLevelTable, axes: list[Axis], order: int, known: dict[tuple[float, float, int], Sums]
) -> Grid:
    unit, group = Nodes.of(axes[0], order), Nodes.of(axes[1], order)
    keys = [(float(a), float(b), order) for a, b in zip(axes[0].left, axes[0].width, strict=True)]
    rows = unit.x.reshape(-1, order)
    for row, key in enumerate(keys):
        if key not in known:
            known[key] = table.sums(rows[row])
    sums = Sums.join([known[key] for key in keys])
    return Grid(unit, group, Lattice.of(unit.x, sums, group.x))


def _finite(tail: float) -> int:
    return min(2, math.ceil(tail) - 1) if math.isfinite(tail) else 2


@dataclass
class _Search:
    """The state of the search along one axis, in log (σ - lower)/scale."""

    lower: float
    scale: float
    ceiling: float
    growth: int
    log_x: np.ndarray
    open: list[bool] = field(default_factory=lambda: [True, True])
    done: bool = False

    @classmethod
    def start(cls, prior: Prior, scale: float, tail: float, scan: np.ndarray) -> _Search:
        lower, upper = max(prior.support[0], 0.0), prior.support[1]
        ceiling = math.log((upper - lower) / scale) if math.isfinite(upper) else math.inf
        log_x = scan if ceiling > scan[-1] else scan - (scan[-1] - ceiling)
        return cls(lower, scale, ceiling, _finite(tail), log_x)

    @property
    def x(self) -> np.ndarray:
        return self.lower + self.scale * np.exp(self.log_x)

    def further(self, peak: int) -> bool:
        """Go on beyond the last place if the peak is there."""
        if peak < self.log_x.size - 1 or not self.open[1]:
            return False
        if self.log_x[-1] >= min(self.ceiling, 600.0) - 1e-9:
            return False
        more = self.log_x[-1] + np.arange(1.0, 33.0)
        self.log_x = np.concatenate(
            [self.log_x, more[more < self.ceiling], [self.ceiling] * bool(more[-1] >= self.ceiling)]
        )
        return True

    def zoom(self, profile: np.ndarray) -> None:
        """Narrow the places to where the profile of mass per unit of log x is not negligible."""
        log_x, peak = self.log_x, int(profile.argmax())
        weighted = profile + self.growth * np.maximum(log_x - log_x[peak], 0.0)
        kept = (weighted > profile[peak] - DEPTH).nonzero()[0]
        first, last = int(kept[0]), int(kept[-1])
        self.open = [self.open[0] and first == 0, self.open[1] and last == log_x.size - 1]
        before, after = log_x[max(first - 1, 0)], log_x[min(last + 1, log_x.size - 1)]
        self.done = last - first >= 7 or after - before < 1e-10
        self.window = (
            self.lower if self.open[0] else self.lower + self.scale * math.exp(before),
            self.lower + self.scale * math.exp(after) if not self.open[1] else math.inf,
            self.lower + self.scale * math.exp(log_x[peak]),
        )
        if not self.done:
            self.log_x = np.linspace(before, after, 25)


def _locate(
    table: ThreeLevelTable, question: Question
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Lower end, upper end and peak of the mass along either axis.

    The sd of the units first, against all of the other axis, then the sd of the groups.
    """
    unit = _Search.start(question.unit, table.scale, question.tail_unit, SCAN)
    group = _Search.start(question.group, table.scale, question.tail_group, _FINE_SCAN)
    sums: Sums | None = None
    at: np.ndarray | None = None
    for _ in range(120):
        if at is None or not np.array_equal(at, unit.log_x):
            at = unit.log_x
            plain = at is SCAN and unit.lower == 0.0
            sums = table.scan if plain else table.sums(unit.x)
        assert sums is not None
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            values = question.log_posterior(Lattice.of(unit.x, sums, group.x))
        mass = values + unit.log_x[:, None] + group.log_x
        peak_unit, peak_group = np.unravel_index(int(mass.argmax()), mass.shape)
        if unit.further(int(peak_unit)) or group.further(int(peak_group)):
            continue
        if not unit.done:
            unit.zoom(mass.max(1))
        elif not group.done:
            group.zoom(mass.max(0))
        if unit.done and group.done:
            break
    return unit.window, group.window


def _axis(prior: Prior, window: tuple[float, float, float], tail: float) -> Axis:
    """One panel over a window, on the coordinate that suits the ends of the support."""
    low, high, peak = window
    lower, upper = max(prior.support[0], 0.0), prior.support[1]
    finite, origin = _finite(tail), prior.origin
    high = min(high, upper)
    p = 1.0
    if low == lower and origin != round(origin):
        p = 2.0 if 2 * origin == round(2 * origin) else max(1.0, 1.0 / origin)
    spare = tail - finite
    q = 1.0 / spare if math.isinf(high) and spare < 1 else 1.0
    coordinate = Coordinate(lower, 3 * (peak - lower), p, q)
    start, stop = coordinate.place(low), coordinate.place(high)
    return Axis(
        coordinate,
        np.array([start]),
        np.array([stop - start]),
        (lower, upper),
        (low == lower, high == upper),
        finite,
    )


def marginal(
    weighted: Weighted,
    half: Weighted,
    axis: Axis,
    along: int,
    log_density: Callable[[np.ndarray], np.ndarray],
) -> PanelDensity:
    """The density of one sd on its panels; `along` 0 for the units', 1 for the groups'."""
    pieces, nodes = [], []
    for one, order in ((weighted, ORDER), (half, ORDER // 2)):
        own, other = (one.grid.unit, one.grid.group) if along == 0 else (one.grid.group, one.grid.unit)
        height = one.height if along == 0 else one.height.T
        density = (height @ other.weights) * math.exp(one.offset - weighted.offset)
        pieces.append(density.reshape(-1, order))
        nodes.append(own.x.reshape(-1, order))
    sampled = np.concatenate(pieces, axis=1)
    peak = float(sampled.max())
    return PanelDensity(
        axis.coordinate,
        axis.left,
        axis.width,
        np.concatenate(nodes, axis=1),
        sampled / peak,
        weighted.offset + math.log(peak),
        log_density,
        axis.support,
        axis.finite,
    )
