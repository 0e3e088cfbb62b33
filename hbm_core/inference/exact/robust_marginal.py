"""A one-dimensional distribution known by its density on nodes."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline


class Marginal:
    """A distribution from density values; between nodes the density is a cubic spline.

    Parameters
    ----------
    x : ndarray (G,)
        Ascending nodes in a working coordinate; no mass outside them.
    density : ndarray (G,)
        Density in that coordinate, up to a factor.

    Attributes
    ----------
    mass : float
        Integral of the density as given.

    Raises
    ------
    FloatingPointError
        The density has no finite mass on these nodes.
    """

    def __init__(self, x: np.ndarray, density: np.ndarray) -> None:
        values = np.maximum(density, 0.0)
        spline = CubicSpline(x, values)
        cumulative = np.maximum.accumulate(spline.antiderivative()(x))
        self.mass = float(cumulative[-1])
        if not 0 < self.mass < np.inf:
            raise FloatingPointError("a density without finite mass")
        self.x, self._values = x, values / self.mass
        self._spline = CubicSpline(x, self._values)
        self._integral = self._spline.antiderivative()

    @cached_property
    def _dense(self) -> tuple[np.ndarray, np.ndarray]:
        fine = np.concatenate(
            [(self.x[:-1, None] + np.diff(self.x)[:, None] * np.arange(6) / 6).ravel(), self.x[-1:]]
        )
        return fine, np.maximum.accumulate(np.clip(self._integral(fine), 0.0, 1.0))

    @cached_property
    def mean(self) -> float:
        """Mean in the working coordinate."""
        fine, cumulative = self._dense
        middle = fine[len(fine) // 2]
        return float(middle + np.diff(cumulative) @ ((fine[1:] + fine[:-1]) / 2 - middle))

    def density(self, x: np.ndarray) -> np.ndarray:
        """Density at `x`, zero outside the nodes."""
        inside = (x >= self.x[0]) & (x <= self.x[-1])
        return np.where(inside, np.maximum(self._spline(np.clip(x, self.x[0], self.x[-1])), 0.0), 0.0)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Distribution function at `x`."""
        return np.clip(self._integral(np.clip(x, self.x[0], self.x[-1])), 0.0, 1.0)

    def quantile(self, probability: np.ndarray) -> np.ndarray:
        """Quantiles: inverse interpolation, then Newton steps within the bracket."""
        fine, cumulative = self._dense
        p = np.asarray(probability, dtype=float)
        x = np.interp(p, cumulative, fine)
        right = np.clip(np.searchsorted(fine, x), 1, len(fine) - 1)
        low, high = fine[right - 1], fine[right]
        for _ in range(2):
            slope = self._spline(x)
            safe = slope > 1e-12
            x = np.where(safe, x - (self._integral(x) - p) / np.where(safe, slope, 1.0), x)
            x = np.clip(x, low, high)
        return x
