"""What the three-level posterior takes from the data alone, whatever the priors.

Given the sd of the units the data enter through sums over the units of a group. They are taken over the units
themselves, or, where there are many, over narrow bins of the standard error with the moments of what is in
them: then any number of nodes costs nothing in the number of units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.exact.quadrature import SCAN
from hbm_core.models.three_level import ThreeLevelNormal

_LOG_2_PI = float(np.log(2 * np.pi))
#: Units from which on they are binned, where that saves work.
_MANY = 5_000
#: Width of a bin in log s²: the series in a bin is cut after the fourth power, below 2e-11 of each term.
_BIN = 0.02
_POWERS = 5
#: Numbers in one array of the sums.
_BLOCK = 50_000


@dataclass(frozen=True, eq=False)
class Sums:
    """Groups given K values of the sd of the units: their means are Normal(μ_g, √(1/precision)).

    Attributes
    ----------
    precision : ndarray (K, G)
        Σ 1/v_i, v_i = s_i² + σ_unit².
    center : ndarray (K, G)
        Weighted means of y, less the table's location.
    log_likelihood : ndarray (K,)
        log p(y | σ_unit) over the densities of these means, the same whatever σ_group and μ are.
    """

    precision: np.ndarray
    center: np.ndarray
    log_likelihood: np.ndarray

    @classmethod
    def join(cls, parts: list[Sums]) -> Sums:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.precision for part in parts]),
            np.concatenate([part.center for part in parts]),
            np.concatenate([part.log_likelihood for part in parts]),
        )


class ThreeLevelTable:
    """The data of a three-level structure, sorted by group and, where many, binned.

    Attributes
    ----------
    location : float
        Taken off all effects.
    middle : ndarray (G,)
        Plain means of the groups, less `location`.
    count : ndarray (G,) of int
        Units in each group.
    scale : float
        Mean standard error.
    order : ndarray (N,) of int or None
        Places of the sorted units in the structure; None where they are sorted there.
    deviation : ndarray (N,)
        y less `location` less the group's `middle`, sorted.
    variance : ndarray (N,)
        s², sorted.
    placements : list
        Where nodes were placed before, the last first; kept by the engine.
    """

    def __init__(self, structure: ThreeLevelNormal) -> None:
        y, group, groups = structure.effect, structure.group, len(structure.groups)
        self.group_count, self.size = groups, y.size
        self.count = np.bincount(group, minlength=groups)
        first = float(y[0])
        middle = np.bincount(group, weights=y - first, minlength=groups) / self.count
        self.location = first + float(np.median(middle))
        self.middle = middle + (first - self.location)
        self.start = np.concatenate([[0], np.cumsum(self.count)])
        self.order: np.ndarray | None = None
        y, variance = y - self.location, np.square(structure.se)
        if (group[1:] < group[:-1]).any():
            self.order = np.argsort(group, kind="stable")
            y, variance = y[self.order], variance[self.order]
        y -= np.repeat(self.middle, self.count)
        self.deviation, self.variance = y, variance
        self.scale = float(structure.se.mean())
        self._bins = self._make_bins() if y.size > _MANY else None
        self.placements: list[Any] = []

    @classmethod
    def of(cls, structure: ThreeLevelNormal) -> ThreeLevelTable:
        """The table of a structure: made once, kept as long as the structure is."""
        found = _TABLES.get(structure)
        if found is None:
            found = _TABLES[structure] = cls(structure)
        return found

    def sums(self, sigma: np.ndarray) -> Sums:
        """The groups' sums at σ_unit = `sigma`, ndarray (K,)."""
        size = self.size if self._bins is None else self._bins.variance.size
        step = max(1, _BLOCK // size)
        make = self._sums_of_units if self._bins is None else self._bins.sums
        parts = []
        for at in range(0, sigma.size, step):
            precision, mean, log_likelihood = make(np.square(sigma[at : at + step]))
            parts.append(Sums(precision, mean + self.middle, log_likelihood - self._constant))
        return Sums.join(parts)

    @cached_property
    def scan(self) -> Sums:
        """The sums at `scale` times exp(SCAN), where every search without an upper end starts."""
        return self.sums(self.scale * np.exp(SCAN))

    @cached_property
    def places(self) -> np.ndarray:
        """Where the structure's units are among the sorted ones, ndarray (N,)."""
        if self.order is None:
            return np.arange(self.size)
        out = np.empty(self.size, dtype=np.intp)
        out[self.order] = np.arange(self.size)
        return out

    @cached_property
    def _constant(self) -> float:
        return 0.5 * _LOG_2_PI * (self.size - self.group_count)

    def _sums_of_units(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = self.start[:-1]
        inverse = self.variance + t[:, None]
        logs = np.log(inverse).sum(1)
        np.reciprocal(inverse, out=inverse)
        precision = np.add.reduceat(inverse, start, axis=1)
        mean = np.add.reduceat(inverse * self.deviation, start, axis=1) / precision
        rest = self.deviation - np.repeat(mean, self.count, axis=1)
        rest *= rest
        quadratic = np.vecdot(rest, inverse)
        return precision, mean, -0.5 * (logs + quadratic + np.log(precision).sum(1))

    def _make_bins(self) -> _Bins | None:
        x = np.log(self.variance)
        low = float(x.min())
        bins = int((float(x.max()) - low) / _BIN) + 1
        if bins * self.group_count * _POWERS > self.size:
            return None
        place = x
        place -= low
        place *= 1 / _BIN
        key = place.astype(np.int64)
        centers = np.exp(low + _BIN * (np.arange(bins) + 0.5))
        z = self.variance / centers[key] - 1
        key += np.repeat(np.arange(self.group_count) * bins, self.count)
        length = bins * self.group_count
        filled = np.bincount(key, minlength=length) > 0
        moments = np.empty((3, _POWERS, int(np.count_nonzero(filled))))
        for row, weight in enumerate((np.ones_like(z), self.deviation.copy(), np.square(self.deviation))):
            for power in range(_POWERS):
                if power:
                    weight *= z
                moments[row, power] = np.bincount(key, weights=weight, minlength=length)[filled]
        group, bin_ = np.divmod(np.flatnonzero(filled), bins)
        return _Bins(centers[bin_], np.searchsorted(group, np.arange(self.group_count)), moments)


@dataclass(frozen=True, eq=False)
class _Bins:
    """Σ z^p, Σ z^p d and Σ z^p d² over bins of units with s² = c (1 + z).

    With r = c/(t + c): 1/(t + s²) = Σ_p (-z r)^p/(t + c) and log(t + s²) = log(t + c) - Σ_p (-z r)^p/p.
    """

    variance: np.ndarray
    start: np.ndarray
    moments: np.ndarray = field(repr=False)

    def sums(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inverse = self.variance + t[:, None]
        logs = np.log(inverse) @ self.moments[0, 0]
        np.reciprocal(inverse, out=inverse)
        ratio = -self.variance * inverse
        found = []
        for row in range(3):
            total = np.multiply(ratio, self.moments[row, -1])
            for power in range(_POWERS - 2, -1, -1):
                total += self.moments[row, power]
                if power:
                    total *= ratio
            total *= inverse
            found.append(np.add.reduceat(total, self.start, axis=1))
        total = np.multiply(ratio, self.moments[0, -1] / (_POWERS - 1))
        for power in range(_POWERS - 2, 0, -1):
            total += self.moments[0, power] / power
            total *= ratio
        precision, first, second = found
        mean = first / precision
        quadratic = (second - first * mean).sum(1)
        logs = logs - total.sum(1)
        return precision, mean, -0.5 * (logs + quadratic + np.log(precision).sum(1))


_TABLES: WeakKeyDictionary[ThreeLevelNormal, ThreeLevelTable] = WeakKeyDictionary()
