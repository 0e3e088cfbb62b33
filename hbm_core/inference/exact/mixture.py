"""Marginals that are finite mixtures of normals: moments, quantiles, shortest intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy.special import ndtr, ndtri

_SQRT_2_PI = float(np.sqrt(2 * np.pi))
#: Components below this share of the mass are left out of quantiles.
_NEGLIGIBLE = 1e-11
#: Numbers in one array of the inversion: a few of them fit the processor's cache.
_CHUNK = 30_000
#: Error of a quantile, in sds, up to which the series alone is taken.
_ACCURATE = 1e-9


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
    known : tuple of two ndarray (R,), optional
        Means and sds of the mixtures, where they were computed before.
    """

    weights: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    known: tuple[np.ndarray, np.ndarray] | None = None

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds, each ndarray (R,)."""
        if self.known is not None:
            return self.known
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

        From a Cornish-Fisher start by a series in the normal score (`_series`); what the series leaves
        open, by Halley steps inside the bracket that the components' own quantiles give.
        """
        p = np.asarray(probabilities, dtype=float).ravel()
        if not (p.min(initial=0.5) > 0 and p.max(initial=0.5) < 1):
            inner = (p > 0) & (p < 1)
            out = np.where(np.isnan(p), np.nan, ndtri(p)) * np.ones((self.mean.shape[0], 1))
            out[:, inner] = self.quantiles(p[inner])
            return out
        if self.weights.ndim == 1:
            rarest = min(p.min(initial=0.5), 1 - p.max(initial=0.5))
            kept = self.weights > _NEGLIGIBLE * min(1.0, 100 * rarest)
            # A copy of nearly all components would cost more than the few that it leaves out.
            if 4 * np.count_nonzero(kept) < 3 * kept.size:
                thinned = NormalMixtures(
                    self.weights[kept], self.mean[:, kept], self.sd[:, kept], self.moments()
                )
                return thinned._by_chunks(p)
        return self._by_chunks(p)

    def _by_chunks(self, p: np.ndarray) -> np.ndarray:
        rows, count = self.mean.shape
        chunk = max(1, _CHUNK // (count * max(p.size, 1)))
        if rows <= chunk:
            return self._invert(p)
        pieces = [self._rows(slice(at, at + chunk)) for at in range(0, rows, chunk)]
        return np.concatenate([piece._invert(p) for piece in pieces])

    def _rows(self, part: slice | np.ndarray) -> NormalMixtures:
        weights = self.weights if self.weights.ndim == 1 else self.weights[part]
        known = None if self.known is None else (self.known[0][part], self.known[1][part])
        return NormalMixtures(weights, self.mean[part], self.sd[part], known)

    def _invert(self, p: np.ndarray) -> np.ndarray:
        z, terms = _scores(p.tobytes())
        if self.mean.shape[1] == 1:
            return self.mean + self.sd * z
        center, scale = self.moments()
        center, scale = center[:, None], scale[:, None]
        d, sd = (self.mean - center) / scale, self.sd / scale
        e = sd * sd
        g = d * d + 3 * e
        # E[d³ + 3 d e], and E[d⁴ + 6 d² e + 3 e²] as a difference of squares; beyond the bounds the
        # expansion is no longer monotone.
        skew = np.minimum(np.maximum(_average(d * g, self.weights), -0.8), 0.8)
        fourth = _average(g * g - 6 * (e * e), self.weights)
        excess = np.minimum(np.maximum(fourth - 3, -0.5), 1.0)
        start = np.stack([np.ones_like(skew), skew, excess, skew * skew], axis=1) @ terms
        x, accurate = _series(self.weights, d, sd, z, start)
        if not accurate.all():
            rest = np.flatnonzero(~accurate.all(1))
            weights = self.weights if self.weights.ndim == 1 else self.weights[rest]
            start = np.where(np.isfinite(x), x, start)
            x[rest] = _halley(weights, d[rest], sd[rest], p, z, start[rest])
        return center + scale * x

    def hdi(self, level: float) -> np.ndarray:
        """Shortest interval of every mixture, ndarray (R, 2)."""
        if self.mean.shape[1] == 1:
            return self._invert(np.array([0.5 - level / 2, 0.5 + level / 2]))
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


@lru_cache(maxsize=64)
def _scores(probabilities: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores of probabilities, and the Cornish-Fisher terms of 1, skewness, excess, skewness²."""
    z = ndtri(np.frombuffer(probabilities))
    z2 = z * z
    return z, np.stack([z, (z2 - 1) / 6, z * (z2 - 3) / 24, -z * (2 * z2 - 5) / 36])


def _series(
    weights: np.ndarray, mean: np.ndarray, sd: np.ndarray, z: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles at the normal scores `z` from near places `x`, and where they are accurate.

    The quantile as a function of the normal score, x(z) = F⁻¹(Φ(z)), is all but linear for marginals near
    a normal, so that four terms of its Taylor series at the score of the start reach far. Its derivatives
    follow from dx/dz = φ(z)/f(x) and those of log f. The distance that is left is measured, and taken off
    with the series' own slope.

    Parameters
    ----------
    weights : ndarray (K,) or (R, K)
        Probabilities of the components.
    mean, sd : ndarray (R, K)
        Of the components, in mixtures of mean 0 and sd 1.
    z : ndarray (Q,)
        Φ⁻¹ of the probabilities.
    x : ndarray (R, Q)
        Where to start.
    """
    inverse = 1 / sd
    power = weights * inverse
    square = power * inverse
    cube = square * inverse
    # x/s - m/s as a product, which is quicker than two broadcasts.
    rows, count = sd.shape
    lines, points = np.empty((rows, 2, count)), np.empty((rows, z.size, 2))
    lines[:, 0], points[:, :, 1] = inverse, -1.0
    np.multiply(mean, inverse, out=lines[:, 1])

    def score(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points[:, :, 0] = x
        arg = points @ lines
        return arg, ndtri(_sum(ndtr(arg), weights))

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        arg, z0 = score(x)
        bell = np.exp(-0.5 * (arg * arg))
        odd = bell * arg
        even = odd * arg
        # f and its derivatives f1, f2, f3 in turn with signs + - + -, the factor 1/√2π left out ...
        f, f1 = _sum(bell, power), _sum(odd, square)
        f2, f3 = _sum(even - bell, cube), _sum(even * arg - 3 * odd, cube * inverse)
        # ... and with x1 = φ(z)/f those of log f, times -x1, x1² and x1³.
        x1 = np.exp(-0.5 * (z0 * z0)) / f
        unit = x1 / f
        h = f1 * unit
        unit *= x1
        h2 = h * h
        k = f2 * unit - h2
        k3 = 3 * k
        m = h * (k3 + h2) - f3 * (unit * x1)
        # The derivatives of x are x1, x1 u and, as du/dz is that of h - z, x1 times these two.
        u = h - z0
        du = h * u - k - 1
        third = u * u + du
        fourth = u * (third + du + du) + h * third - m - k3 * u
        step = z - z0
        # Terms of the slope, over x1.
        first, second = step * u, step * step
        last = second * step * fourth / 6
        second *= third / 2
        slope = 1 + first + second + last
        x = x + step * x1 * (1 + first / 2 + second / 3 + last / 4)
        left = z - score(x)[1]
        # The error e of a series cut after step^4 grows as step^5, so that its slope is wrong by 5 e/step:
        # so much of the distance is not taken off. None of this holds of a series that does not converge.
        accurate = ((5 * x1) * (left * left) <= _ACCURATE * np.abs(step)) & (np.abs(last) < 0.01 * slope)
        return x + left * (slope * x1), accurate


def _sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums (R, Q) over the components of values (R, Q, K)."""
    return values @ weights if weights.ndim == 1 else np.matmul(values, weights[:, :, None])[..., 0]


def _halley(
    weights: np.ndarray, mean: np.ndarray, sd: np.ndarray, p: np.ndarray, z: np.ndarray, start: np.ndarray
) -> np.ndarray:
    own = mean[:, :, None] + sd[:, :, None] * z
    low, high = own.min(1), own.max(1)
    x = np.minimum(np.maximum(start, low), high)
    inverse = (1 / sd)[:, None, :]
    scaled = mean[:, None, :] * inverse
    rarer = np.minimum(p, 1 - p)
    for _ in range(80):
        arg = x[:, :, None] * inverse - scaled
        bell = np.exp(-0.5 * arg * arg) * inverse
        excess = _sum(ndtr(arg), weights) - p
        density = _sum(bell, weights) / _SQRT_2_PI
        slope = _sum(bell * arg * inverse, weights) / -_SQRT_2_PI
        above = excess > 0
        high, low = np.where(above, x, high), np.where(above, low, x)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = excess / density
            proposal = x - newton / np.minimum(np.maximum(1 - 0.5 * newton * slope / density, 0.5), 2.0)
        inside = (proposal >= low) & (proposal <= high)
        proposal = np.where(inside, proposal, 0.5 * (low + high))
        # In units of the local width: a mixture with very wide components has no other scale. Steps shrink
        # cubically, so that the next one would be below 1e-9. Where the density all but vanishes no step
        # counts, and the probability that is missed must, down to what rounding leaves of it.
        missed = np.maximum(np.abs(proposal - x) * density, np.abs(excess) - 1e-15)
        moved = (missed / rarer).max(initial=0.0)
        x = proposal
        if moved < 5e-4:
            break
    return x
