"""Densities on even grids: distribution functions, quantiles and shortest intervals of many at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

#: Sixth-order weights of the integral over the middle one of five cells.
_CELL = np.array([11.0, -93.0, 802.0, 802.0, -93.0, 11.0]) / 1440
_STENCIL = 6
#: Nats that an interpolated log is off a straight line at most.
_ROOM = 1.5


def interpolation_weights(place: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Six-point polynomial interpolation between `count` even nodes.

    Parameters
    ----------
    place : ndarray
        In steps from the first node.
    count : int
        Nodes, at least six.

    Returns
    -------
    first : ndarray of int
        First node of the stencil.
    weights : ndarray (…, 6)
        Of its nodes.
    """
    first = np.clip(np.floor(place).astype(np.intp) - _STENCIL // 2 + 1, 0, count - _STENCIL)
    t = place - first
    weights = np.ones((*t.shape, _STENCIL))
    for k in range(_STENCIL):
        for other in range(_STENCIL):
            if other != k:
                weights[..., k] *= (t - other) / (k - other)
    return first, weights


def interpolate_logs(lines: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Smooth logs between even nodes, by six points; beside kinks hardly more than a straight line.

    Parameters
    ----------
    lines : ndarray (…, n)
        Logs along the last axis, n at least six.
    place : ndarray (…)
        In steps from the first node, one per line.
    """
    first, weights = interpolation_weights(place, lines.shape[-1])
    near = np.take_along_axis(lines, first[..., None] + np.arange(_STENCIL), axis=-1)
    return _unkinked(near, weights, place - first)


def refine_logs(lines: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The same at places (G,) that all lines (n, m) share, ndarray (n, G)."""
    size = lines.shape[1]
    first, weights = interpolation_weights(places, size)
    smooth, straight = np.zeros((2, size, places.size))
    column = np.arange(places.size)
    np.add.at(smooth, (first[:, None] + np.arange(_STENCIL), column[:, None]), weights)
    left = np.clip(np.floor(places).astype(np.intp), 0, size - 2)
    straight[left, column] = 1 - (places - left)
    straight[left + 1, column] = places - left
    bends = np.abs(np.diff(lines, 2, axis=1))
    bends = np.maximum(
        np.pad(bends, ((0, 0), (1, 0)), mode="edge"), np.pad(bends, ((0, 0), (0, 1)), mode="edge")
    )
    inside = (places >= 0) & (places <= size - 1)
    room = np.where(inside, np.minimum(0.02 + 0.2 * bends[:, left], _ROOM), 0.0)
    line = lines @ straight
    found = np.clip(lines @ smooth, line - room, line + room)
    found[:, places < 0] = np.minimum(found[:, places < 0], lines[:, :1])
    found[:, places > size - 1] = np.minimum(found[:, places > size - 1], lines[:, -1:])
    return found


def _unkinked(near: np.ndarray, weights: np.ndarray, t: np.ndarray) -> np.ndarray:
    smooth = np.vecdot(near, weights)
    left = np.clip(np.floor(t).astype(np.intp), 0, _STENCIL - 2)[..., None]
    low = np.take_along_axis(near, left, axis=-1)[..., 0]
    high = np.take_along_axis(near, left + 1, axis=-1)[..., 0]
    straight = low + (t - left[..., 0]) * (high - low)
    # Half way between two nodes a parabola is an eighth of its second difference off the line.
    bends = np.abs(np.diff(near, 2, axis=-1))
    at = np.clip(left - 1, 0, _STENCIL - 3)
    bend = np.maximum(
        np.take_along_axis(bends, at, axis=-1), np.take_along_axis(bends, np.minimum(at + 1, 3), axis=-1)
    )[..., 0]
    room = np.minimum(0.02 + 0.2 * bend, _ROOM)
    outside = (t < -0.01) | (t > _STENCIL - 0.99)
    # Beyond the ends logs do not rise.
    beyond = np.minimum(straight, np.where(t < 1, near[..., 0], near[..., -1]))
    return np.where(outside, beyond, np.clip(smooth, straight - room, straight + room))


class Axes(Protocol):
    """Coordinates of R parameters, increasing; `rows` are those meant, an array or a slice."""

    def x(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Parameters at coordinates (len(rows), Q)."""

    def v(self, x: np.ndarray, rows: slice) -> np.ndarray:
        """Coordinates of parameters (len(rows), Q)."""

    def slope(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """dx/dv."""


@dataclass(frozen=True, eq=False)
class GridMarginals:
    """Densities of R parameters, each on its own even grid of a coordinate v.

    Parameters
    ----------
    start, step : ndarray (R,)
        Of the grids.
    values : ndarray (R, G)
        Densities in v, up to a factor; negligible at both ends.
    axes : Axes
        From v to the parameter and back.
    """

    start: np.ndarray
    step: np.ndarray
    values: np.ndarray
    axes: Axes

    @cached_property
    def _integrals(self) -> tuple[np.ndarray, np.ndarray]:
        """Normalised densities (R, G) per step and their distribution functions at the nodes."""
        padded = np.pad(self.values, ((0, 0), (2, 2)))
        cells = sum(weight * padded[:, k : padded.shape[1] - 5 + k] for k, weight in enumerate(_CELL))
        cells = np.maximum(cells, 0.0)
        cumulative = np.concatenate([np.zeros((len(cells), 1)), np.cumsum(cells, axis=1)], axis=1)
        total = cumulative[:, -1:]
        return self.values / total, cumulative / total

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, Q)."""
        p = np.broadcast_to(np.asarray(probabilities, dtype=float), (len(self.values), len(probabilities)))
        return self.axes.x(self._coordinate(p), slice(None))

    def _coordinate(self, p: np.ndarray) -> np.ndarray:
        """V at probabilities (R, Q)."""
        density, cumulative = self._integrals
        last = cumulative.shape[1] - 2
        place = np.stack(
            [np.searchsorted(row, want, side="right") - 1 for row, want in zip(cumulative, p, strict=True)]
        )
        place = np.clip(place, 0, last)
        at = lambda array, k: np.take_along_axis(array, place + k, axis=1)  # noqa: E731
        low, high = at(cumulative, 0), at(cumulative, 1)
        left, right = at(density, 0), at(density, 1)
        rise = high - low
        want = p - low
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(rise > 0, want / rise, 0.5)
        below, above = np.zeros_like(t), np.ones_like(t)
        # Cubic Hermite of the distribution function between two nodes.
        b, c = 3 * rise - 2 * left - right, left + right - 2 * rise
        for _ in range(6):
            value = t * (left + t * (b + t * c)) - want
            above = np.where(value > 0, np.minimum(above, t), above)
            below = np.where(value > 0, below, np.maximum(below, t))
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = t - value / (left + t * (2 * b + 3 * c * t))
            inside = (moved >= below) & (moved <= above)
            t = np.where(inside, moved, 0.5 * (below + above))
        return self.start[:, None] + self.step[:, None] * (place + t)

    def hdi(self, level: float) -> np.ndarray:
        """Shortest intervals, ndarray (R, 2), by golden sections of the lower tail's probability."""
        low, high = np.zeros((len(self.values), 1)), np.full((len(self.values), 1), 1 - level)
        golden = (np.sqrt(5) - 1) / 2

        def width(p: np.ndarray) -> np.ndarray:
            ends = [self.axes.x(self._coordinate(at), slice(None)) for at in (p, p + level)]
            return ends[1] - ends[0]

        # A coarse look first: a density may rise to both ends.
        look = np.linspace(0, 1 - level, 21)
        widths = np.concatenate([width(low + p) for p in look], axis=1)
        best = widths.argmin(axis=1)
        low = look[np.maximum(best - 1, 0)][:, None]
        high = look[np.minimum(best + 1, 20)][:, None]
        for _ in range(18):
            a, b = high - golden * (high - low), low + golden * (high - low)
            shorter = width(a) < width(b)
            low, high = np.where(shorter, low, a), np.where(shorter, b, high)
        p = 0.5 * (low + high)
        ends = np.concatenate([self._coordinate(p), self._coordinate(p + level)], axis=1)
        return self.axes.x(ends, slice(None))

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one parameter at `x`."""
        density, cumulative = self._integrals
        u, place = self._place(row, x)
        t = np.clip(u - place, 0, 1)
        low, high = cumulative[row, place], cumulative[row, place + 1]
        left, right, rise = density[row, place], density[row, place + 1], high - low
        value = low + t * (left + t * (3 * rise - 2 * left - right + t * (left + right - 2 * rise)))
        last = cumulative.shape[1] - 1
        return np.clip(np.where(u < 0, 0.0, np.where(u > last, 1.0, value)), 0, 1)

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density of one parameter at `x`."""
        values = self._integrals[0][row]
        u, _ = self._place(row, x)
        inside = (u >= 0) & (u <= values.size - 1)
        first, weights = interpolation_weights(np.where(inside, u, 0.0), values.size)
        with np.errstate(divide="ignore"):
            logs = np.log(np.maximum(values, 1e-300))
        near = logs[first[..., None] + np.arange(_STENCIL)]
        direct = values[first[..., None] + np.arange(_STENCIL)]
        smooth = np.exp(np.vecdot(near, weights))
        value = np.where(near.min(axis=-1) > -60, smooth, np.maximum(np.vecdot(direct, weights), 0))
        v = self.start[row] + self.step[row] * np.where(inside, u, 0.0)
        slope = self.axes.slope(v.reshape(1, -1), slice(row, row + 1)).reshape(v.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(inside & (slope > 0), value / (self.step[row] * slope), 0.0)

    def _place(self, row: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = np.asarray(x, dtype=float)
        v = self.axes.v(x.reshape(1, -1), slice(row, row + 1)).reshape(x.shape)
        u = np.nan_to_num((v - self.start[row]) / self.step[row], nan=-1.0, posinf=1e9, neginf=-1e9)
        return u, np.clip(np.floor(u).astype(np.intp), 0, self.values.shape[1] - 2)
