"""Counts of entities in windows: the data that every structure of counts has, and sums over them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.raw_rates import RawCounts

#: Geometries of a gamma population of rates behind negative binomial counts: moved, as αθ if scaled, or
#: integrated out and drawn afterwards. In which order: by effective draws per second.
RATE_PARAMETERIZATIONS = ("centered", "collapsed", "scaled")


@dataclass(frozen=True, eq=False)
class Totals:
    """Windows with the same entity and the same exposure, added up.

    Attributes
    ----------
    entity : ndarray (G,) of int
        Whose windows; ascending.
    exposure : ndarray (G,)
        Of each of the windows.
    windows, total : ndarray (G,)
        How many, and the sum of their counts.
    """

    entity: np.ndarray
    exposure: np.ndarray
    windows: np.ndarray
    total: np.ndarray


@dataclass(frozen=True, eq=False)
class CountWindows(RawCounts):
    """Counts of entities in windows, without a model.

    Parameters
    ----------
    count : ndarray (N,)
        y, whole numbers from 0; one entity's windows in their order, the latest last.
    entity : ndarray (N,) of int
        i, an index into `units`; every entity has at least one window.
    units : sequence of str
        Labels of the entities, unique.
    exposure : ndarray (N,), optional
        e, positive; 1 everywhere without.
    """

    #: Name of the field that holds what is measured.
    measured: ClassVar[str] = "count"

    count: np.ndarray
    entity: np.ndarray
    units: Sequence[str]
    exposure: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        # Copies: they are frozen below, and the caller's arrays are not ours to freeze.
        count = np.array(self.count, dtype=float)
        entity = np.array(self.entity, dtype=np.int32)
        exposure = np.array(self.exposure, dtype=float)
        if exposure.size == 0:
            exposure = np.ones(count.shape)
        if count.ndim != 1 or count.size == 0 or entity.shape != count.shape or exposure.shape != count.shape:
            raise InputError(
                "counts, entities and exposures",
                "three equally long columns",
                (count.shape, entity.shape, exposure.shape),
            )
        bad = ~(np.isfinite(count) & (count >= 0) & (count == np.floor(count)))
        if bad.any():
            raise InputError("counts", "whole numbers from 0", count[bad][0])
        bad = ~(np.isfinite(exposure) & (exposure > 0))
        if bad.any():
            raise InputError("exposures", "positive finite numbers", exposure[bad][0])
        known = entity.min() >= 0 and entity.max() < len(self.units)
        if not known or (np.bincount(entity, minlength=len(self.units)) == 0).any():
            raise InputError("entities", "at least one window for each of the entities", "others")
        for name, value in (("count", count), ("entity", entity), ("exposure", exposure)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""

    @property
    @abstractmethod
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""

    @property
    @abstractmethod
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not an entity's, in order."""

    @abstractmethod
    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what an entity's rate is pulled to and of what rules the spread around it."""

    @property
    @abstractmethod
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""

    @property
    def windows(self) -> np.ndarray:
        """Windows of each entity, ndarray (J,)."""
        return np.bincount(self.entity, minlength=len(self.units)).astype(float)

    @property
    def total(self) -> np.ndarray:
        """Σ y of each entity, ndarray (J,)."""
        return np.bincount(self.entity, self.count, len(self.units))

    @property
    def total_exposure(self) -> np.ndarray:
        """Σ e of each entity, ndarray (J,)."""
        return np.bincount(self.entity, self.exposure, len(self.units))

    @property
    def raw_rate(self) -> np.ndarray:
        """Σ y / Σ e of each entity, ndarray (J,): the estimate without pooling."""
        return self.total / self.total_exposure

    @cached_property
    def latest(self) -> np.ndarray:
        """Place of each entity's latest window, ndarray (J,) of int."""
        place = np.empty(len(self.units), dtype=np.intp)
        place[self.entity] = np.arange(self.count.size)
        return place

    @cached_property
    def totals(self) -> Totals:
        """Sufficient statistics of the rates given φ: windows of equal exposure of one entity added up."""
        return added_up(self.entity, self.exposure, self.count)

    @cached_property
    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct counts and how often each occurs: all that the normalising terms need."""
        values, times = np.unique(self.count, return_counts=True)
        return values, times.astype(float)


def added_up(entity: np.ndarray, exposure: np.ndarray, count: np.ndarray) -> Totals:
    """Windows of equal exposure of one entity added up, arrays (N,) to arrays (G,)."""
    order = np.lexsort((exposure, entity))
    entity, exposure = entity[order], exposure[order]
    new = np.r_[True, (np.diff(entity) != 0) | (np.diff(exposure) != 0)][: order.size]
    first = np.flatnonzero(new)
    windows = np.diff(np.r_[first, order.size]).astype(float)
    total = np.add.reduceat(count[order], first) if order.size else np.empty(0)
    return Totals(entity[first], exposure[first], windows, total)


def rate_start(structure: CountWindows, mean_scaled: bool = False) -> tuple[float, float]:
    """Moment estimates of μ and α of a gamma population of rates, kept off 0: where samplers start.

    The variance of the rates is μ/α, or μ²/α in a population that is `mean_scaled`.
    """
    rate, exposure = structure.raw_rate, structure.total_exposure
    # Half an event more: a start must not be 0.
    mean = (structure.count.sum() + 0.5) / (structure.exposure.sum() + 0.5 * structure.exposure.mean())
    between = max(float(np.var(rate)) - float(np.mean(mean / exposure)), 0.05 * mean**2)
    ratio = mean**2 if mean_scaled else mean
    return mean, float(np.clip(ratio / between, 0.05 / exposure.mean(), 20 * exposure.mean()))
