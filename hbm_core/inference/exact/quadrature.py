"""Densities on a half-line or an interval as piecewise Legendre series: locate, refine, integrate, invert.

A density is located by a logarithmic scan, put on a rational coordinate that removes algebraic
singularities at both ends, and refined by bisection until the last Legendre coefficients of every panel
are negligible. Integrals, the distribution function and quantiles are then spectrally accurate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.polynomial import legendre

#: Nodes per panel: even, because the half rule of the error estimate has half of them.
ORDER = 32
#: Depth in nats below the peak at which mass is negligible.
DEPTH = 30
#: Largest last coefficient of a panel, as a share of the whole integral.
TOLERANCE = 1e-9
_ROUNDS = 90
#: Newton step, in half panels, after which the next one is below 1e-9.
_LAST_STEP = 2e-5
#: Log of x - lower, over the scale, where the search for the mass starts.
SCAN = np.linspace(-18.0, 14.0, 33)


@dataclass(frozen=True, eq=False)
class Rule:
    """Gauss-Legendre rule on [-1, 1] with what interpolation and integration of its nodal values need.

    Attributes
    ----------
    nodes, weights : ndarray (n,)
        The rule.
    tail : ndarray (n, 3)
        Nodal values @ tail: the last three Legendre coefficients.
    integral : ndarray (n, n)
        Nodal values @ integral: the integrals from -1 to each node.
    knots, barycentric : ndarray (n + 2,)
        Nodes with both ends, and their barycentric weights (Berrut and Trefethen, 2004, section 3).
    inner : ndarray (n,)
        Barycentric weights of the nodes alone.
    ends : ndarray (n, 2)
        Nodal values @ ends: the values at -1 and 1.
    """

    nodes: np.ndarray
    weights: np.ndarray
    tail: np.ndarray
    integral: np.ndarray
    knots: np.ndarray
    barycentric: np.ndarray
    inner: np.ndarray
    ends: np.ndarray


@cache
def gauss_legendre(n: int) -> Rule:
    """The rule with `n` nodes."""
    nodes, weights = legendre.leggauss(n)
    values = legendre.legvander(nodes, n)
    degrees = np.arange(n)
    coefficients = (values[:, :n] * weights[:, None]) * (2 * degrees + 1) / 2
    antiderivative = np.empty((n, n))
    antiderivative[0] = nodes + 1
    for degree in range(1, n):
        antiderivative[degree] = (values[:, degree + 1] - values[:, degree - 1]) / (2 * degree + 1)
    inner = (-1.0) ** (n - 1 - degrees) * np.sqrt(weights * (1 - nodes**2) / 2)
    ends = np.array([-0.5 * (-1.0) ** n, 0.5])
    barycentric = np.concatenate([ends[:1], inner / (nodes**2 - 1), ends[1:]])
    knots = np.concatenate([[-1.0], nodes, [1.0]])
    signs = np.stack([(-1.0) ** degrees, np.ones(n)], axis=1)
    return Rule(
        nodes,
        weights,
        coefficients[:, -3:].copy(),
        coefficients @ antiderivative,
        knots,
        barycentric,
        inner,
        coefficients @ signs,
    )


@dataclass(frozen=True, eq=False)
class Pair:
    """The rule of a panel and the one with half its nodes, on [0, 1], as refinement uses them.

    Attributes
    ----------
    places : ndarray (n + n/2,)
        Nodes of the rule, then those of the half rule.
    weights : ndarray (2, n + n/2)
        Of both rules, zero at the nodes of the other.
    checks : ndarray (n, 4)
        Nodal values of the rule @ checks: the last three Legendre coefficients, and twice the integral.
    table : ndarray (n, 2 n + 4)
        Nodal values @ table: twice the integrals from 0 to the knots, and the values at the knots.
    """

    places: np.ndarray
    weights: np.ndarray
    checks: np.ndarray
    table: np.ndarray


@cache
def rule_pair() -> Pair:
    """The pair of rules with ORDER and ORDER/2 nodes."""
    fine, half = gauss_legendre(ORDER), gauss_legendre(ORDER // 2)
    weights = np.zeros((2, fine.nodes.size + half.nodes.size))
    weights[0, :ORDER], weights[1, ORDER:] = fine.weights / 2, half.weights / 2
    column = fine.weights[:, None]
    heights = np.hstack([fine.ends[:, :1], np.eye(ORDER), fine.ends[:, 1:]])
    return Pair(
        0.5 + 0.5 * np.concatenate([fine.nodes, half.nodes]),
        weights,
        np.hstack([fine.tail, column]),
        np.hstack([np.zeros_like(column), fine.integral, column, heights]),
    )


@dataclass(frozen=True)
class Coordinate:
    """x = lower + scale v^p / (1 - v)^q for v in [0, 1].

    An algebraic end (x - lower)^(a - 1) is regular in v for p = 1/a, a tail x^(-b - 1) for q = 1/b.

    Parameters
    ----------
    lower, scale : float
        Start and unit of x.
    p, q : float
        Powers at the lower end and in the tail.
    """

    lower: float
    scale: float
    p: float = 1.0
    q: float = 1.0

    def x(self, v: np.ndarray) -> np.ndarray:
        """The variable at `v`."""
        if self.p == self.q == 1:
            with np.errstate(divide="ignore"):
                return self.lower + self.scale * (v / (1 - v))
        with np.errstate(divide="ignore", over="ignore"):
            return self.lower + self.scale * (v**self.p / (1 - v) ** self.q)

    def jacobian(self, v: np.ndarray) -> np.ndarray:
        """dx/dv."""
        if self.p == self.q == 1:
            return self.scale / (1 - v) ** 2
        slope = self.p + (self.q - self.p) * v
        with np.errstate(over="ignore"):
            return self.scale * slope * v ** (self.p - 1) / (1 - v) ** (self.q + 1)

    def logs(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, log dx/dv and log(1 + (x - lower)/scale) at `v` below 1."""
        if self.p == self.q == 1:
            far = 1 - v
            growth = -np.log(far)
            return self.lower + self.scale * (v / far), math.log(self.scale) + 2 * growth, growth
        x = self.x(v)
        return x, np.log(self.jacobian(v)), np.log1p((x - self.lower) / self.scale)

    def place(self, x: float) -> float:
        """Inverse of `x` at one place."""
        if self.p == self.q == 1 and math.isfinite(x):
            r = (x - self.lower) / self.scale
            return r / (1 + r)
        return float(self.v(np.array(x)))

    def v(self, x: np.ndarray) -> np.ndarray:
        """Inverse of `x`."""
        r = np.maximum(np.asarray(x, dtype=float) - self.lower, 0.0) / self.scale
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.p == self.q:
                root = r ** (1 / self.p)
                return np.where(np.isinf(r), 1.0, root / (1 + root))
            target = np.log(r)
            logit = np.clip(target, -600.0, 600.0)
            for _ in range(60):
                value = -self.p * np.logaddexp(0, -logit) + self.q * np.logaddexp(0, logit)
                share = 1 / (1 + np.exp(-logit))
                step = (target - value) / (self.p * (1 - share) + self.q * share)
                step = np.where(np.isfinite(step), step, 0.0)
                logit = logit + step
                if np.abs(step).max(initial=0.0) < 1e-14:
                    break
            v = 1 / (1 + np.exp(-logit))
        return np.where(r == 0, 0.0, np.where(np.isinf(r), 1.0, v))


@dataclass(frozen=True, eq=False)
class Line:
    """x itself: the coordinate of densities with finite range on the whole line."""

    def x(self, v: np.ndarray) -> np.ndarray:
        """The variable at `v`."""
        return v

    def logs(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, log dx/dv and the log of a growth that no moment needs here."""
        zeros = np.zeros_like(v)
        return v, zeros, zeros

    def v(self, x: np.ndarray) -> np.ndarray:
        """Inverse of `x`."""
        return np.asarray(x, dtype=float)


def interpolate(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Polynomials through nodal values (N, n + 2) at nodes and both ends, each at its place t (N,)."""
    rule = gauss_legendre(values.shape[1] - 2)
    gap = t[:, None] - rule.knots
    gap[gap == 0] = 1e-300
    factors = rule.barycentric / gap
    return np.einsum("nk,nk->n", factors, values) / factors.sum(1)


def invert_panel(values: np.ndarray, share: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
    """Where the integral of a series from -1 reaches a share of its integral over [-1, 1].

    Safeguarded Newton steps.

    Parameters
    ----------
    values : ndarray (N, n)
        Non-negative function at the nodes.
    share : ndarray (N,)
        From 0 to 1.
    guess : ndarray (N,), optional
        Where to start.
    """
    rule = gauss_legendre(values.shape[1])
    total = values @ rule.weights
    inside = np.zeros((values.shape[0], rule.knots.size))
    inside[:, 1:-1] = values @ rule.integral
    inside[:, -1] = total
    t = np.clip(2 * share - 1 if guess is None else guess, -1.0, 1.0)
    return _newton(values, inside, share * total, t)


def _newton(values: np.ndarray, inside: np.ndarray, target: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Where series reach `target`, from `t`: nodal values (N, n), integrals to the knots (N, n + 2)."""
    rule = gauss_legendre(values.shape[1])
    low = high = None
    for _ in range(60):
        gap = t[:, None] - rule.knots
        if not gap.all():
            gap[gap == 0] = 1e-300
        factors = rule.barycentric / gap
        excess = np.vecdot(factors, inside) / np.add.reduce(factors, 1) - target
        factors = rule.inner / gap[:, 1:-1]
        slope = np.vecdot(factors, values) / np.add.reduce(factors, 1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            proposal = t - excess / slope
            moved = np.abs(proposal - t)
        # From a good start the first step is the last one, and needs no bracket: what is left shrinks as
        # the square of the step.
        if moved.max(initial=0.0) < _LAST_STEP:
            return np.minimum(np.maximum(proposal, -1.0), 1.0)
        if low is None or high is None:
            low, high = np.full(t.shape, -1.0), np.full(t.shape, 1.0)
        above = excess > 0
        high, low = np.where(above, t, high), np.where(above, low, t)
        proposal = np.where((proposal >= low) & (proposal <= high), proposal, 0.5 * (low + high))
        done = np.abs(proposal - t).max() < _LAST_STEP
        t = proposal
        if done:
            break
    return t


LogDensity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class PanelDensity:
    """A normalised density as a piecewise Legendre series.

    Parameters
    ----------
    coordinate : Coordinate or Line
        From panels to the variable.
    left, width : ndarray (P,)
        Panels in v.
    nodes : ndarray (P, ORDER + ORDER/2)
        The variable at the nodes of the rule and then at those of the half rule, in every panel.
    sampled : ndarray (P, ORDER + ORDER/2)
        Density of v at these nodes, over its peak.
    offset : float
        Log of that peak.
    log_density : callable
        The unnormalised log density that was integrated.
    support : tuple of float
        Where the density lives.
    finite : int
        How many moments are finite, at most 2.
    """

    coordinate: Coordinate | Line
    left: np.ndarray
    width: np.ndarray
    nodes: np.ndarray
    sampled: np.ndarray
    offset: float
    log_density: LogDensity
    support: tuple[float, float]
    finite: int = 2

    @property
    def x(self) -> np.ndarray:
        """The variable at the nodes of the rule, ndarray (P * ORDER,)."""
        return self.nodes[:, :ORDER].ravel()

    @cached_property
    def rules(self) -> np.ndarray:
        """Probabilities of all nodes by the rule and by the half rule, ndarray (2, nodes.size)."""
        weights = (self.sampled * self.width[:, None]) * rule_pair().weights[:, None, :]
        weights = weights.reshape(2, -1)
        return weights / weights.sum(1)[:, None]

    @property
    def weights(self) -> np.ndarray:
        """Probabilities of the nodes of the rule, ndarray (P * ORDER,)."""
        return self.rules[0].reshape(self.nodes.shape)[:, :ORDER].ravel()

    @cached_property
    def masses(self) -> np.ndarray:
        """Integral over every panel, over the density's peak."""
        return 0.5 * self.width * (self.sampled[:, :ORDER] @ gauss_legendre(ORDER).weights)

    @property
    def log_total(self) -> float:
        """Log of the integral of the unnormalised density."""
        return float(self.offset + np.log(self.masses.sum()))

    @property
    def half_rule(self) -> tuple[np.ndarray, np.ndarray]:
        """The variable and probabilities of the half rule."""
        shares = self.rules[1].reshape(self.nodes.shape)
        return self.nodes[:, ORDER:].ravel(), shares[:, ORDER:].ravel()

    def moments(self) -> tuple[float, float]:
        """Mean and sd; infinite where they do not exist."""
        return self._both_moments[0]

    def half_moments(self) -> tuple[float, float]:
        """The same by the rule with half the nodes."""
        return self._both_moments[1]

    @cached_property
    def _both_moments(self) -> list[tuple[float, float]]:
        if self.finite < 1:
            return [(np.inf, np.inf)] * 2
        x, rules = self.nodes.ravel(), self.rules
        means = (rules @ x).tolist()
        if self.finite < 2:
            return [(mean, np.inf) for mean in means]
        # About the mean of the better rule, which cancels nothing.
        gap = x - means[0]
        squares = (rules @ (gap * gap)).tolist()
        return [
            (mean, math.sqrt(max(square - (mean - means[0]) ** 2, 0.0)))
            for mean, square in zip(means, squares, strict=True)
        ]

    @cached_property
    def _antiderivative(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Probability left of panels (P + 1,); inside them up to the knots, density there; all in a row."""
        # Both densities are of t in [-1, 1], whose panels all have width 2.
        table = self.sampled[:, :ORDER] @ rule_pair().table
        table *= (0.5 * self.width / self.masses.sum())[:, None]
        inside, height = table[:, : ORDER + 2], table[:, ORDER + 2 :]
        start = np.zeros(self.left.size + 1)
        np.add.accumulate(inside[:, -1], out=start[1:])
        start /= start[-1]
        cumulated = np.maximum.accumulate((start[:-1, None] + inside).ravel())
        return start, inside, height, cumulated

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Distribution function at `x`."""
        x = np.asarray(x, dtype=float)
        v = np.clip(self.coordinate.v(x.ravel()), self.left[0], self.left[-1] + self.width[-1])
        panel = np.clip(np.searchsorted(self.left, v, side="right") - 1, 0, self.left.size - 1)
        t = np.clip(2 * (v - self.left[panel]) / self.width[panel] - 1, -1.0, 1.0)
        start = self._antiderivative[0]
        inside = interpolate(self._antiderivative[1][panel], t)
        values = np.clip(start[panel] + inside, 0.0, 1.0)
        values = np.where(
            x.ravel() <= self.support[0], 0.0, np.where(x.ravel() >= self.support[1], 1.0, values)
        )
        return values.reshape(x.shape)

    def density(self, x: np.ndarray) -> np.ndarray:
        """Density at `x`; zero outside the support."""
        x = np.asarray(x, dtype=float)
        inside = (x >= self.support[0]) & (x <= self.support[1]) & np.isfinite(x)
        out = np.zeros(x.shape)
        with np.errstate(divide="ignore", over="ignore"):
            out[inside] = np.exp(self.log_density(x[inside]) - self.log_total)
        return out

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, by Newton on the integrated series from Hermite interpolation between its knots."""
        p = np.asarray(probabilities, dtype=float)
        flat = p.ravel()
        start, inside, height, cumulated = self._antiderivative
        knots = gauss_legendre(ORDER).knots
        place = cumulated.searchsorted(flat, side="right") - 1
        place = np.minimum(np.maximum(place, 0), cumulated.size - 2)
        panel, knot = np.divmod(place, knots.size)
        knot = np.minimum(knot, knots.size - 2)
        # t as a cubic of the probability, which is known with its slope at both knots.
        before = knots[knot]
        step = knots[knot + 1] - before
        here = inside[panel, knot]
        rise = inside[panel, knot + 1] - here
        target = flat - start[panel]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            share = (target - here) / rise
            rest = 1 - share
            bend = rest * (rise / height[panel, knot] - step) - share * (
                rise / height[panel, knot + 1] - step
            )
            t = before + share * (step + rest * bend)
        t = np.fmin(np.fmax(t, before), before + step)
        t = _newton(height[panel, 1:-1], inside[panel], target, t)
        x = self.coordinate.x(self.left[panel] + self.width[panel] * (0.5 + 0.5 * t))
        if flat.min(initial=0.5) > 0 and flat.max(initial=0.5) < 1:
            return x.reshape(p.shape)
        x = np.where(flat <= 0, self.support[0], np.where(flat >= 1, self.support[1], x))
        return np.where((flat >= 0) & (flat <= 1), x, np.nan).reshape(p.shape)

    def hdi(self, level: float) -> np.ndarray:
        """Shortest interval, ndarray (2,): the widths are scanned over the mass left of it, and zoomed."""
        low, high = 0.0, 1.0 - level
        for _ in range(9):
            p = np.linspace(low, high, 25)
            ends = self.quantiles(np.concatenate([p, p + level])).reshape(2, -1)
            if not np.isfinite(ends[:, -1]).all():
                ends[1, ~np.isfinite(ends[1])] = np.inf
            widths = ends[1] - ends[0]
            best = int(np.argmin(widths))
            low, high = p[max(best - 1, 0)], p[min(best + 1, p.size - 1)]
        return ends[:, best]


def locate(
    log_density: LogDensity,
    support: tuple[float, float],
    scale: float,
    growth: int,
    scan: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Where the mass is: lower and upper end, and the place of the peak of mass per unit of log x.

    Ends equal the support's where mass reaches them.

    Parameters
    ----------
    log_density : callable
        Unnormalised, of x inside the support.
    support : tuple of float
        Finite lower end, upper end.
    scale : float
        First guess of the order of magnitude of x - lower.
    growth : int
        Moments that the range must hold: the tail is weighted with x^growth.
    scan : ndarray, optional
        What `log_density` gives at lower + scale exp(SCAN), the first places that are looked at where the
        support has no upper end.
    """
    lower, upper = support
    ceiling = np.log((upper - lower) / scale) if np.isfinite(upper) else np.inf
    log_x = SCAN if ceiling > SCAN[-1] else SCAN - (SCAN[-1] - ceiling)
    open_low = open_high = True
    values = scan if np.isinf(upper) else None
    for _ in range(60):
        mass = (log_density(lower + scale * np.exp(log_x)) if values is None else values) + log_x
        values = None
        peak = int(mass.argmax())
        if peak == log_x.size - 1 and open_high and log_x[-1] < min(ceiling, 600.0) - 1e-9:
            further = log_x[-1] + np.arange(1.0, 33.0)
            beyond = further[-1] >= ceiling
            log_x = np.concatenate([log_x, further[further < ceiling], [ceiling] if beyond else []])
            continue
        weighted = mass + growth * np.maximum(log_x - log_x[peak], 0.0)
        kept = (weighted > mass[peak] - DEPTH).nonzero()[0]
        first, last = int(kept[0]), int(kept[-1])
        open_low, open_high = open_low and first == 0, open_high and last == log_x.size - 1
        before, after = log_x[max(first - 1, 0)], log_x[min(last + 1, log_x.size - 1)]
        if last - first >= 7 or after - before < 1e-10:
            break
        log_x = np.linspace(before, after, 25)
    low, high, at = (lower + scale * math.exp(one) for one in (before, after, log_x[peak]))
    return lower if open_low else low, upper if open_high else high, at


def panel_density(
    log_density: LogDensity,
    support: tuple[float, float],
    scale: float,
    origin: float = 1.0,
    tail: float = np.inf,
    scan: np.ndarray | None = None,
) -> PanelDensity:
    """The density exp(log_density) on a support with a finite lower end.

    Parameters
    ----------
    log_density : callable
        Unnormalised, vectorised, called inside the support only.
    support : tuple of float
        Lower (finite) and upper end.
    scale : float
        Order of magnitude of x - lower, where the search starts.
    origin : float
        a, where the density behaves as (x - lower)^(a - 1).
    tail : float
        b > 0, where it falls as x^(-b - 1).
    scan : ndarray, optional
        As in `locate`.
    """
    finite = min(2, math.ceil(tail) - 1) if math.isfinite(tail) else 2
    low, high, peak = locate(log_density, support, scale, finite, scan)
    lower = support[0]
    p = 1.0
    if low == lower and origin != round(origin):
        p = 2.0 if 2 * origin == round(2 * origin) else max(1.0, 1.0 / origin)
    spare = tail - finite
    q = 1.0 / spare if math.isinf(high) and spare < 1 else 1.0
    # Three times the peak: then most densities need no more than the two panels they start with.
    coordinate = Coordinate(lower, 3 * (peak - lower), p, q)
    start, stop = coordinate.place(low), coordinate.place(high)
    edges = np.array([start, 0.5 * (start + stop), stop])
    return refine(log_density, coordinate, edges, support, finite)


def refine(
    log_density: LogDensity,
    coordinate: Coordinate | Line,
    edges: np.ndarray,
    support: tuple[float, float],
    finite: int = 2,
) -> PanelDensity:
    """Bisect panels until the last Legendre coefficients of density and second moment are negligible."""
    pair = rule_pair()
    moment = finite if isinstance(coordinate, Coordinate) else 0

    def evaluate(
        left: np.ndarray, width: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        v = left[:, None] + width[:, None] * places
        with np.errstate(divide="ignore"):
            x, log_slope, growth = coordinate.logs(v)
            values = log_density(x.ravel()).reshape(v.shape) + log_slope
        # A maximum that is finite has neither NaN nor infinity beside it.
        if not math.isfinite(np.maximum.reduce(values, None)):
            values = np.where(np.isfinite(values), values, -np.inf)
        return x, values, growth

    left, width = edges[:-1], edges[1:] - edges[:-1]
    # The half rule's nodes at once: most densities need no more than the panels they start with.
    nodes, at_nodes, growth = evaluate(left, width, pair.places)
    x, values, growth = nodes[:, :ORDER], at_nodes[:, :ORDER], growth[:, :ORDER]
    whole = True
    for _ in range(_ROUNDS):
        offset = values.max()
        bad = _rough(values - offset, moment * growth if moment else None, width)
        if bad.any():
            bad &= width > 1e-15 * np.maximum(np.abs(left), 1e-280)
        if not bad.any() or left.size > 600:
            break
        whole = False
        half = 0.5 * width[bad]
        new_left = np.concatenate([left[bad], left[bad] + half])
        new_width = np.concatenate([half, half])
        news = evaluate(new_left, new_width, pair.places[:ORDER])
        left, width = np.concatenate([left[~bad], new_left]), np.concatenate([width[~bad], new_width])
        x, values, growth = (
            np.concatenate([old[~bad], new]) for old, new in zip((x, values, growth), news, strict=True)
        )
    if not whole:
        order, offset = np.argsort(left), values.max()
        left, width = left[order], width[order]
        half_x, half_values, _ = evaluate(left, width, pair.places[ORDER:])
        nodes = np.concatenate([x[order], half_x], axis=1)
        at_nodes = np.concatenate([values[order], half_values], axis=1)
    sampled = np.exp(at_nodes - offset)
    return PanelDensity(coordinate, left, width, nodes, sampled, float(offset), log_density, support, finite)


def _rough(logs: np.ndarray, growth: np.ndarray | None, width: np.ndarray) -> np.ndarray:
    """Panels whose last Legendre coefficients are not negligible beside the whole integral.

    Of the function with the `logs` (P, ORDER), and of it times exp(growth).
    """
    exponents = np.empty((1 if growth is None else 2, *logs.shape))
    exponents[0] = logs
    if growth is not None:
        exponents[1] = logs + growth
    checks = np.exp(exponents, out=exponents) @ rule_pair().checks
    last = np.maximum.reduce(np.abs(checks[:, :, :3]), 2) * width
    return (last > TOLERANCE * (checks[:, :, 3] @ width)[:, None]).any(0)
