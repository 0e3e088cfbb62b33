"""Densities on a half-line or an interval as piecewise Legendre series: locate, refine, integrate, invert.

A density is located by a logarithmic scan, put on a rational coordinate that removes algebraic
singularities at both ends, and refined by bisection until the last Legendre coefficients of every panel
are negligible. Integrals, the distribution function and quantiles are then spectrally accurate.
"""

from __future__ import annotations

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
_SCAN = np.linspace(-18.0, 14.0, 33)


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
    """

    nodes: np.ndarray
    weights: np.ndarray
    tail: np.ndarray
    integral: np.ndarray
    knots: np.ndarray
    barycentric: np.ndarray
    inner: np.ndarray


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
    return Rule(
        nodes, weights, coefficients[:, -3:].copy(), coefficients @ antiderivative, knots, barycentric, inner
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

    def jacobian(self, v: np.ndarray) -> np.ndarray:
        """dx/dv."""
        return np.ones_like(v)

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
    target = share * total
    t = np.clip(2 * share - 1 if guess is None else guess, -1.0, 1.0)
    low, high = np.full(t.shape, -1.0), np.full(t.shape, 1.0)
    for _ in range(60):
        gap = t[:, None] - rule.knots
        gap[gap == 0] = 1e-300
        factors = rule.barycentric / gap
        excess = np.einsum("nk,nk->n", factors, inside) / factors.sum(1) - target
        factors = rule.inner / gap[:, 1:-1]
        slope = np.einsum("nk,nk->n", factors, values) / factors.sum(1)
        above = excess > 0
        high, low = np.where(above, t, high), np.where(above, low, t)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            proposal = t - excess / slope
        proposal = np.where((proposal >= low) & (proposal <= high), proposal, 0.5 * (low + high))
        moved = np.abs(proposal - t).max(initial=0.0)
        t = proposal
        if moved < 1e-5:
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
    values : ndarray (P, ORDER)
        Density of v at the nodes of every panel, over its peak.
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
    values: np.ndarray
    offset: float
    log_density: LogDensity
    support: tuple[float, float]
    finite: int = 2

    def nodes(self, rule: Rule) -> np.ndarray:
        """Places v of a rule in every panel, ndarray (P, n)."""
        return self.left[:, None] + self.width[:, None] * (0.5 + 0.5 * rule.nodes)

    @cached_property
    def x(self) -> np.ndarray:
        """The variable at all nodes, ndarray (P * ORDER,)."""
        return self.coordinate.x(self.nodes(gauss_legendre(ORDER)).ravel())

    @cached_property
    def masses(self) -> np.ndarray:
        """Integral over every panel, over the density's peak."""
        return 0.5 * self.width * (self.values @ gauss_legendre(ORDER).weights)

    @cached_property
    def weights(self) -> np.ndarray:
        """Probabilities of all nodes, ndarray (P * ORDER,)."""
        weights = (self.values * (0.5 * self.width[:, None] * gauss_legendre(ORDER).weights)).ravel()
        return weights / weights.sum()

    @property
    def log_total(self) -> float:
        """Log of the integral of the unnormalised density."""
        return float(self.offset + np.log(self.masses.sum()))

    @cached_property
    def half_nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """The variable and dx of the rule with half the nodes in the same panels."""
        rule = gauss_legendre(ORDER // 2)
        v = self.nodes(rule)
        measure = self.coordinate.jacobian(v) * (self.width[:, None] * rule.weights)
        return self.coordinate.x(v.ravel()), measure.ravel()

    def half_weights(self, log_values: np.ndarray) -> np.ndarray:
        """Probabilities of the half rule's nodes from the unnormalised log density there."""
        weights = np.exp(log_values - self.offset) * self.half_nodes[1]
        return weights / weights.sum()

    @cached_property
    def half_rule(self) -> tuple[np.ndarray, np.ndarray]:
        """The variable and probabilities of the half rule."""
        x = self.half_nodes[0]
        return x, self.half_weights(self.log_density(x))

    def moments(self) -> tuple[float, float]:
        """Mean and sd; infinite where they do not exist."""
        return self.moments_by(self.x, self.weights)

    def half_moments(self) -> tuple[float, float]:
        """The same by the rule with half the nodes."""
        return self.moments_by(*self.half_rule)

    def moments_by(self, x: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        """Mean and sd by nodes with probabilities; infinite where they do not exist."""
        mean = float(weights @ x) if self.finite >= 1 else np.inf
        return mean, float(np.sqrt(weights @ (x - mean) ** 2)) if self.finite >= 2 else np.inf

    @cached_property
    def _antiderivative(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cumulated probability at the panels' edges, inside panels at the knots, and the total mass."""
        rule, total = gauss_legendre(ORDER), self.masses.sum()
        inside = np.zeros((self.left.size, ORDER + 2))
        inside[:, 1:-1] = (self.values @ rule.integral) * (0.5 * self.width[:, None] / total)
        inside[:, -1] = self.masses / total
        start = np.concatenate([[0.0], np.cumsum(self.masses) / total])
        return start / start[-1], inside, total

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
        """Quantiles, by Newton on the integrated series from linear interpolation between its knots."""
        p = np.asarray(probabilities, dtype=float)
        flat = p.ravel()
        rule = gauss_legendre(ORDER)
        start, inside, _ = self._antiderivative
        knots = self.left[:, None] + self.width[:, None] * (0.5 + 0.5 * rule.knots)
        cumulated = np.maximum.accumulate((start[:-1, None] + inside).ravel())
        v = np.interp(flat, cumulated, knots.ravel())
        panel = np.clip(np.searchsorted(start, flat, side="right") - 1, 0, self.left.size - 1)
        left, width = self.left[panel], self.width[panel]
        share = (flat - start[panel]) / (start[panel + 1] - start[panel])
        guess = 2 * (v - left) / width - 1
        t = invert_panel(self.values[panel], np.clip(share, 0.0, 1.0), guess)
        x = self.coordinate.x(left + width * (0.5 + 0.5 * t))
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
    log_density: LogDensity, support: tuple[float, float], scale: float, growth: int
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
    """
    lower, upper = support
    ceiling = np.log((upper - lower) / scale) if np.isfinite(upper) else np.inf
    log_x = _SCAN if ceiling > _SCAN[-1] else _SCAN - (_SCAN[-1] - ceiling)
    open_low = open_high = True
    for _ in range(60):
        mass = log_density(lower + scale * np.exp(log_x)) + log_x
        peak = int(mass.argmax())
        if peak == log_x.size - 1 and open_high and log_x[-1] < min(ceiling, 600.0) - 1e-9:
            further = log_x[-1] + np.arange(1.0, 33.0)
            log_x = np.concatenate([log_x, further[further < ceiling], [ceiling] * (further[-1] >= ceiling)])
            continue
        weighted = mass + growth * np.maximum(log_x - log_x[peak], 0.0)
        kept = np.flatnonzero(weighted > mass[peak] - DEPTH)
        first, last = int(kept[0]), int(kept[-1])
        open_low, open_high = open_low and first == 0, open_high and last == log_x.size - 1
        before, after = log_x[max(first - 1, 0)], log_x[min(last + 1, log_x.size - 1)]
        if last - first >= 7 or after - before < 1e-10:
            break
        log_x = np.linspace(before, after, 25)
    at = lower + scale * np.exp(np.array([before, after, log_x[peak]]))
    return (lower if open_low else float(at[0]), upper if open_high else float(at[1]), float(at[2]))


def panel_density(
    log_density: LogDensity,
    support: tuple[float, float],
    scale: float,
    origin: float = 1.0,
    tail: float = np.inf,
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
    """
    finite = int(min(2, np.ceil(tail) - 1)) if np.isfinite(tail) else 2
    low, high, peak = locate(log_density, support, scale, finite)
    lower = support[0]
    p = 1.0
    if low == lower and origin != round(origin):
        p = 2.0 if 2 * origin == round(2 * origin) else max(1.0, 1.0 / origin)
    spare = tail - finite
    q = 1.0 / spare if np.isinf(high) and spare < 1 else 1.0
    # Three times the peak: then most densities need no more than the two panels they start with.
    coordinate = Coordinate(lower, 3 * (peak - lower), p, q)
    ends = coordinate.v(np.array([low, high]))
    return refine(log_density, coordinate, np.linspace(ends[0], ends[1], 3), support, finite)


def refine(
    log_density: LogDensity,
    coordinate: Coordinate | Line,
    edges: np.ndarray,
    support: tuple[float, float],
    finite: int = 2,
) -> PanelDensity:
    """Bisect panels until the last Legendre coefficients of density and second moment are negligible."""
    rule = gauss_legendre(ORDER)
    moment = finite if isinstance(coordinate, Coordinate) else 0

    def evaluate(left: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v = (left[:, None] + width[:, None] * (0.5 + 0.5 * rule.nodes)).ravel()
        x = coordinate.x(v)
        with np.errstate(divide="ignore"):
            values = log_density(x) + np.log(coordinate.jacobian(v))
        growth = np.zeros(x.shape)
        if moment:
            growth = moment * np.log1p((x - coordinate.lower) / coordinate.scale)  # type: ignore[union-attr]
        shape = (left.size, rule.nodes.size)
        return np.where(np.isfinite(values), values, -np.inf).reshape(shape), growth.reshape(shape)

    left, width = edges[:-1], np.diff(edges)
    values, growth = evaluate(left, width)
    for _ in range(_ROUNDS):
        offset = values.max()
        plain = np.exp(values - offset)
        bad = _rough(plain, width, rule)
        if moment:
            bad |= _rough(plain * np.exp(growth), width, rule)
        bad &= width > 1e-15 * np.maximum(np.abs(left), 1e-280)
        if not bad.any() or left.size > 600:
            break
        half = 0.5 * width[bad]
        new_left = np.concatenate([left[bad], left[bad] + half])
        new_width = np.concatenate([half, half])
        new_values, new_growth = evaluate(new_left, new_width)
        left, width = np.concatenate([left[~bad], new_left]), np.concatenate([width[~bad], new_width])
        values, growth = (
            np.concatenate([values[~bad], new_values]),
            np.concatenate([growth[~bad], new_growth]),
        )
    order, offset = np.argsort(left), values.max()
    plain = np.exp(values[order] - offset)
    return PanelDensity(
        coordinate, left[order], width[order], plain, float(offset), log_density, support, finite
    )


def _rough(values: np.ndarray, width: np.ndarray, rule: Rule) -> np.ndarray:
    """Panels whose last Legendre coefficients are not negligible beside the whole integral."""
    return np.abs(values @ rule.tail).max(1) * width > TOLERANCE * ((values @ rule.weights) @ width)
