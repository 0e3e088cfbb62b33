"""Marginals that are finite mixtures of normals: moments, quantiles, shortest intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtr, ndtri

_SQRT_2_PI = float(np.sqrt(2 * np.pi))
#: Components below this share of the mass are left out of quantiles.
_NEGLIGIBLE = 1e-11
_CHUNK = 1_000_000


class Marginals(Protocol):
    """Marginal distributions of R parameters."""

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, len(probabilities))."""

    def hdi(self, level: float) -> np.ndarray:
        """Shortest intervals, ndarray (R, 2)."""

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density of one parameter at `x`."""

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one parameter at `x`."""


@dataclass(frozen=True, eq=False)
class NormalMixtures:
    """R mixtures of K normals each.

    Parameters
    ----------
    weights : ndarray (K,) or (R, K)
        Probabilities of the components, shared by all rows or each its own.
    mean, sd : ndarray (R, K)
        Of the components; sd > 0.
    """

    weights: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds, each ndarray (R,)."""
        center = _average(self.mean, self.weights)
        spread = self.mean - center[:, None]
        return center, np.sqrt(_average(spread * spread + self.sd * self.sd, self.weights))

    def density(self, row: int, x: np.ndarray) -> np.ndarray:
        """Density of one mixture at `x`."""
        x = np.asarray(x, dtype=float)
        z = (x[..., None] - self.mean[row]) / self.sd[row]
        return np.exp(-0.5 * z * z) @ (self._of(row) / self.sd[row]) / _SQRT_2_PI

    def cdf(self, row: int, x: np.ndarray) -> np.ndarray:
        """Distribution function of one mixture at `x`."""
        x = np.asarray(x, dtype=float)
        return ndtr((x[..., None] - self.mean[row]) / self.sd[row]) @ self._of(row)

    def _of(self, row: int) -> np.ndarray:
        return self.weights if self.weights.ndim == 1 else self.weights[row]

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles of every mixture, ndarray (R, Q).

        Halley steps from a Cornish-Fisher start, kept inside the bracket that the components' own
        quantiles give.
        """
        p = np.asarray(probabilities, dtype=float).ravel()
        if self.weights.ndim == 1:
            kept = self.weights > _NEGLIGIBLE
            if not kept.all():
                thinned = NormalMixtures(self.weights[kept], self.mean[:, kept], self.sd[:, kept])
                return thinned.quantiles(p)
        rows, count = self.mean.shape
        chunk = max(1, _CHUNK // (count * p.size))
        if rows > chunk:
            pieces = [self._rows(slice(at, at + chunk)) for at in range(0, rows, chunk)]
            return np.concatenate([piece.quantiles(p) for piece in pieces])
        z = ndtri(p)
        open_end = ~np.isfinite(z)
        if open_end.any():
            out = np.where(np.isnan(z), np.nan, z) * np.ones((rows, 1))
            out[:, ~open_end] = self.quantiles(p[~open_end]) if not open_end.all() else 0.0
            return out
        return self._invert(p, z)

    def _rows(self, part: slice | np.ndarray) -> NormalMixtures:
        weights = self.weights if self.weights.ndim == 1 else self.weights[part]
        return NormalMixtures(weights, self.mean[part], self.sd[part])

    def _invert(self, p: np.ndarray, z: np.ndarray) -> np.ndarray:
        if self.mean.shape[1] == 1:
            return self.mean + self.sd * z
        center, scale = self.moments()
        d = (self.mean - center[:, None]) / scale[:, None]
        e = (self.sd / scale[:, None]) ** 2
        d2 = d * d
        skew = np.clip(_average(d * (d2 + 3 * e), self.weights), -0.8, 0.8)[:, None]
        excess = np.clip(_average(d2 * (d2 + 6 * e) + 3 * e * e, self.weights) - 3, -0.5, 1.0)[:, None]
        z2 = z * z
        start = z + skew * (z2 - 1) / 6 + excess * z * (z2 - 3) / 24 - skew * skew * z * (2 * z2 - 5) / 36
        return center[:, None] + scale[:, None] * _halley(self.weights, d, np.sqrt(e), p, z, start)

    def hdi(self, level: float) -> np.ndarray:
        """Shortest interval of every mixture, ndarray (R, 2)."""
        if self.mean.shape[1] == 1:
            return self._invert(np.empty(0), ndtri(np.array([0.5 - level / 2, 0.5 + level / 2])))
        below = (1 - level) * (np.arange(8) + 0.5) / 8
        ends = self.quantiles(np.concatenate([below, below + level]))
        low, high = ends[:, :8], ends[:, 8:]
        best = (high - low).argmin(1)
        rows = np.arange(low.shape[0])
        interval, converged = self._polish(low[rows, best], high[rows, best], level)
        for row in np.flatnonzero(
            ~converged | (interval[:, 1] - interval[:, 0] > (high - low).min(1) * (1 + 1e-9))
        ):
            interval[row] = self._rows(np.array([row]))._zoom(level)
        return interval

    def _polish(self, low: np.ndarray, high: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Newton on: equal densities at both ends, and mass `level` between them."""
        x = np.stack([low, high], axis=1)
        scale, converged = high - low, np.zeros(low.size, dtype=bool)
        shares = self.weights if self.weights.ndim == 1 else self.weights[:, None, :]
        for _ in range(12):
            z = (x[:, :, None] - self.mean[:, None, :]) / self.sd[:, None, :]
            bell = np.exp(-0.5 * z * z) / (self.sd[:, None, :] * _SQRT_2_PI) * shares
            mass = (ndtr(z) * shares).sum(2)
            f, slope = bell.sum(2), (-bell * z / self.sd[:, None, :]).sum(2)
            short, tilt = level - (mass[:, 1] - mass[:, 0]), f[:, 0] - f[:, 1]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                determinant = -f[:, 0] * slope[:, 1] + f[:, 1] * slope[:, 0]
                step_low = (short * slope[:, 1] - f[:, 1] * tilt) / determinant
                step_high = (-f[:, 0] * tilt + slope[:, 0] * short) / determinant
            step = np.stack([step_low, step_high], axis=1) / scale[:, None]
            usable = np.isfinite(step).all(1) & (determinant > 0)
            step = np.where(usable[:, None], np.clip(step, -0.5, 0.5), 0.0)
            x = x + step * scale[:, None]
            converged = usable & (np.abs(step).max(1) < 1e-9)
            if (converged | ~usable).all():
                break
        return x, converged

    def _zoom(self, level: float) -> np.ndarray:
        low, high = 0.0, 1.0 - level
        for _ in range(9):
            below = np.linspace(low, high, 26)
            low_ends, high_ends = self.quantiles(np.concatenate([below, below + level])).reshape(2, -1)
            best = int((high_ends - low_ends).argmin())
            low, high = below[max(best - 1, 0)], below[min(best + 1, below.size - 1)]
        return np.array([low_ends[best], high_ends[best]])


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values @ weights if weights.ndim == 1 else np.einsum("rk,rk->r", values, weights)


def _halley(
    weights: np.ndarray, mean: np.ndarray, sd: np.ndarray, p: np.ndarray, z: np.ndarray, start: np.ndarray
) -> np.ndarray:
    own = mean[:, :, None] + sd[:, :, None] * z
    low, high = own.min(1), own.max(1)
    x = np.minimum(np.maximum(start, low), high)
    inverse = (1 / sd)[:, None, :]
    scaled = mean[:, None, :] * inverse
    column = weights if weights.ndim == 1 else weights[:, :, None]

    def average(values: np.ndarray) -> np.ndarray:
        return values @ column if weights.ndim == 1 else (values @ column)[..., 0]

    rarer = np.minimum(p, 1 - p)
    for _ in range(80):
        arg = x[:, :, None] * inverse - scaled
        bell = np.exp(-0.5 * arg * arg) * inverse
        excess = average(ndtr(arg)) - p
        density = average(bell) / _SQRT_2_PI
        slope = average(bell * arg * inverse) / -_SQRT_2_PI
        above = excess > 0
        high, low = np.where(above, x, high), np.where(above, low, x)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = excess / density
            proposal = x - newton / np.minimum(np.maximum(1 - 0.5 * newton * slope / density, 0.5), 2.0)
        inside = (proposal >= low) & (proposal <= high)
        proposal = np.where(inside, proposal, 0.5 * (low + high))
        # In units of the local width: a mixture with very wide components has no other scale. Steps shrink
        # cubically, so that the next one would be below 1e-9.
        moved = (np.abs(proposal - x) * density / rarer).max(initial=0.0)
        x = proposal
        if moved < 5e-4:
            break
    return x
