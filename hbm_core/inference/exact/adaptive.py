"""The adaptive scale: the sd of the effects as a nonlinear function of τ, and the density it induces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class AdaptiveScale:
    """τ* = w τ + (1 - w) σ_p τ/t with w = sigmoid(k (τ - t)).

    Parameters
    ----------
    threshold, spread, slope : float
        t, σ_p and k; t and σ_p in the outcome's units, all positive.
    """

    threshold: float
    spread: float
    slope: float

    def __call__(self, tau: np.ndarray) -> np.ndarray:
        """τ* at τ."""
        ratio = self.spread / self.threshold
        return tau * (ratio + (1 - ratio) * self._share(tau))

    def slope_at(self, tau: np.ndarray) -> np.ndarray:
        """dτ*/dτ."""
        ratio, share = self.spread / self.threshold, self._share(tau)
        return ratio + (1 - ratio) * share * (1 + tau * self.slope * (1 - share))

    def _share(self, tau: np.ndarray) -> np.ndarray:
        return 0.5 * (1 + np.tanh(0.5 * self.slope * (tau - self.threshold)))

    def density(self, density: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
        """Density of τ* at `x` from that of τ, summed over the branches of the map.

        Where the map folds the density is infinite, and integrable.
        """
        x = np.asarray(x, dtype=float)
        ratio = self.spread / self.threshold
        # Beyond 40/k past t the map is linear, τ* = τ.
        far = self.threshold + 40 / self.slope
        grid = np.concatenate([[0.0], np.linspace(1e-6, 1.0, 4001) * far])
        turns = np.flatnonzero(np.diff(np.sign(self.slope_at(grid))))
        bends = [_bisect(self.slope_at, grid[at], grid[at + 1]) for at in turns]
        top = max(far, float(np.max(x[np.isfinite(x)], initial=0.0)) * (2 + 1 / ratio))
        ends = np.array([0.0, *bends, top])
        out = np.zeros(x.shape)
        for start, stop in pairwise(ends):
            values = np.sort(self(np.array([start, stop])))
            inside = (x >= values[0]) & (x <= values[1]) & (x > 0)
            rising = self(np.array(stop)) > self(np.array(start))
            low, high = np.full(int(inside.sum()), start), np.full(int(inside.sum()), stop)
            for _ in range(70):
                middle = 0.5 * (low + high)
                above = (self(middle) > x[inside]) == rising
                low, high = np.where(above, low, middle), np.where(above, middle, high)
            tau = 0.5 * (low + high)
            with np.errstate(divide="ignore"):
                out[inside] += density(tau) / np.abs(self.slope_at(tau))
        return out


def _bisect(function: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    sign = float(np.sign(function(np.array(low))))
    for _ in range(70):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.sign(function(np.array(middle))) == sign else (low, middle)
    return 0.5 * (low + high)
