"""What the posterior of gamma counts takes from the data alone, whatever the priors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
from scipy.special import gammaln

from hbm_core.inference.exact.whitened import Lattice
from hbm_core.inference.gamma_marginal import Counts, Population, log_rising, moments
from hbm_core.models.gamma_counts import GammaCounts

#: Error of the log likelihood that replacing exposures by few nodes may make.
_COMPRESSED = 1e-7
#: Groups of an entity's windows are padded to one of these counts.
_SIZES = (1, 2, 4, 8, 12, 16, 24, 32)
_PLACEMENTS = 4


def population(structure: GammaCounts, x: np.ndarray) -> Population:
    """The gamma population at parameters μ, α and, where there is one, φ.

    Parameters
    ----------
    structure : GammaCounts
        For the form of the prior.
    x : ndarray (P, 2 or 3)
        Parameters.
    """
    mu, alpha = x[:, 0], x[:, 1]
    dispersion = x[:, 2] if x.shape[1] > 2 else np.full(len(x), np.inf)
    if structure.effects == "mean_scaled":
        return Population(alpha, alpha / mu, dispersion)
    return Population(mu * alpha, alpha, dispersion)


@dataclass(frozen=True)
class Quality:
    """The rule over the rates behind a lattice.

    Attributes
    ----------
    nodes : int
        Its nodes.
    error : float
        What it does to means and sds of the parameters, in sds.
    """

    nodes: int
    error: float


@dataclass(frozen=True, eq=False)
class Batch:
    """Entities with the same count of exposure groups.

    Attributes
    ----------
    counts : Counts
        Distinct statistics.
    times : ndarray (C,)
        How many entities have each.
    place : slice
        Of these among all classes of a table.
    """

    counts: Counts
    times: np.ndarray
    place: slice


class CountsTable:
    """Distinct sufficient statistics of the entities, and where lattices were put before.

    Attributes
    ----------
    structure : GammaCounts
        The data.
    batches : list of Batch
        Classes of entities with equal statistics.
    size : int
        C, count of classes.
    of_entity : ndarray (J,) of int
        Class of each entity.
    times : ndarray (C,)
        Entities of each class.
    lattices : list of Lattice
        The last used first.
    """

    def __init__(self, structure: GammaCounts) -> None:
        self.structure = structure
        self.poisson = structure.likelihood == "poisson"
        self.entities = len(structure.units)
        self.lattices: list[Lattice] = []
        self.quality: WeakKeyDictionary[Lattice, Quality] = WeakKeyDictionary()
        self.batches: list[Batch] = []
        self.of_entity = np.empty(self.entities, dtype=np.intp)
        first = 0
        for members, columns in self._groups():
            size = columns.shape[1]
            rows = columns.transpose(2, 0, 1).reshape(len(members), -1)
            distinct, inverse, times = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
            parts = np.ascontiguousarray(distinct.reshape(-1, 3, size).transpose(1, 2, 0))
            self.of_entity[members] = first + inverse.ravel()
            place = slice(first, first + len(distinct))
            self.batches.append(Batch(Counts(*parts), times.astype(float), place))
            first = place.stop
        self.size = first
        self.times = np.concatenate([batch.times for batch in self.batches])

    @classmethod
    def of(cls, structure: GammaCounts) -> CountsTable:
        """The structure's own table."""
        table = _TABLES.get(structure)
        if table is None:
            table = _TABLES[structure] = cls(structure)
        return table

    def remember(self, lattice: Lattice) -> None:
        """Put a lattice first among those kept."""
        others = [one for one in self.lattices if one is not lattice]
        self.lattices = [lattice, *others[: _PLACEMENTS - 1]]

    def _groups(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Entities with equally many groups, and (exposure, windows, total) of these, (3, K, members)."""
        structure = self.structure
        if self.poisson:
            columns = np.stack([structure.total_exposure, np.ones(self.entities), structure.total])
            yield np.arange(self.entities), columns[:, None]
            return
        totals = structure.totals
        first = np.searchsorted(totals.entity, np.arange(self.entities + 1))
        length = np.diff(first)
        if length.max() == 1:
            yield np.arange(self.entities), np.stack([totals.exposure, totals.windows, totals.total])[:, None]
            return
        kept = [
            _compress(*(column[start:stop] for column in (totals.exposure, totals.windows, totals.total)))
            for start, stop in pairwise(first)
        ]
        sizes = np.array([group.shape[1] for group in kept])
        limits = np.array([*_SIZES, max(int(sizes.max()), _SIZES[-1] + 1)])
        padded = limits[np.searchsorted(limits, sizes)]
        for size in np.unique(padded):
            members = np.flatnonzero(padded == size)
            columns = np.zeros((3, size, members.size))
            columns[0] = 1.0
            for place, member in enumerate(members):
                columns[:, : sizes[member], place] = kept[member]
            yield members, columns

    @cached_property
    def constant(self) -> float:
        """Terms of the log likelihood that hang on the data alone."""
        structure = self.structure
        values, times = structure.histogram
        return float(structure.count @ np.log(structure.exposure) - times @ gammaln(values + 1))

    def log_likelihood(self, x: np.ndarray, nodes: int = 21) -> np.ndarray:
        """Log p(y | μ, α, φ), ndarray (P,), the entities' rates integrated out.

        Parameters
        ----------
        x : ndarray (P, D)
            Parameters.
        nodes : int
            Of the rule over each rate.
        """
        state = population(self.structure, x)
        out = self.constant + self.entities * (state.shape * np.log(state.rate) - gammaln(state.shape))
        for batch in self.batches:
            out = out + self._log_mass(state, batch.counts, nodes) @ batch.times
        if not self.poisson:
            values, times = self.structure.histogram
            out = out + log_rising(values, state.dispersion[:, None]) @ times
        return out

    def unit_log_likelihood(self, x: np.ndarray, nodes: int = 15) -> np.ndarray:
        """Log p(y_i | μ, α, φ) of each entity's windows, its rate integrated out, ndarray (P, J)."""
        structure = self.structure
        state = population(structure, x)
        mass = np.hstack([self._log_mass(state, batch.counts, nodes) for batch in self.batches])
        given = state.shape * np.log(state.rate) - gammaln(state.shape)
        own = structure.count * np.log(structure.exposure) - gammaln(structure.count + 1)
        out = mass[:, self.of_entity] + given[:, None] + np.bincount(structure.entity, own, self.entities)
        if not self.poisson:
            values, place = np.unique(structure.count, return_inverse=True)
            times = np.zeros((values.size, self.entities))
            np.add.at(times, (place, structure.entity), 1.0)
            out += log_rising(values, state.dispersion[:, None]) @ times
        return out

    def _log_mass(self, state: Population, counts: Counts, nodes: int) -> np.ndarray:
        if not self.poisson:
            return moments(state, counts, nodes).log_mass
        shape, rate = self._gamma(state, counts)
        return gammaln(shape) - shape * np.log(rate)

    @staticmethod
    def _gamma(state: Population, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        """Shape and rate of θ given Poisson counts, ndarray (P, C)."""
        return state.shape[:, None] + counts.total[0], state.rate[:, None] + counts.exposure[0]

    def parts(self, only: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Counts]]:
        """Classes and their counts, batch by batch, in order; `only` some classes, ascending, if given."""
        for batch in self.batches:
            place = batch.place
            if only is None:
                yield np.arange(place.start, place.stop), batch.counts
            elif (some := only[(only >= place.start) & (only < place.stop)]).size:
                yield some, batch.counts[some - place.start]

    def rates(
        self, x: np.ndarray, nodes: int = 21, only: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """E[θ] and E[θ²] given the parameters of each class, or of `only` some, ndarrays (P, C)."""
        state = population(self.structure, x)
        first, second = [], []
        for _, counts in self.parts(only):
            if self.poisson:
                shape, rate = self._gamma(state, counts)
                first.append(shape / rate)
                second.append(shape * (shape + 1) / rate**2)
            else:
                found = moments(state, counts, nodes, 2)
                first.append(found.mean)
                second.append(found.square)
        return np.hstack(first), np.hstack(second)


def _compress(exposure: np.ndarray, windows: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The same sums Σ (y + φ) log(1 + θe/φ) from fewer exposures, ndarray (3, K).

    log(1 + θ e^u/φ) is analytic in u = log e up to ±iπ: interpolation at K Chebyshev points of the range of
    u errs like ρ^−K, ρ = r + √(r² + 1) with r = π over half the range (Trefethen, 2013, Approximation Theory
    and Approximation Practice, chapter 8).
    """
    place = np.log(exposure)
    low, high = place.min(), place.max()
    if exposure.size <= 4:
        return np.stack([exposure, windows, total])
    ratio = 2 * np.pi / (high - low)
    size = np.log(_COMPRESSED / windows.sum()) / -np.log(ratio + np.sqrt(ratio**2 + 1))
    count = next((size_ for size_ in _SIZES if size_ >= max(size, 4)), exposure.size)
    if count >= exposure.size:
        return np.stack([exposure, windows, total])
    nodes = -np.cos(np.pi * (np.arange(count) + 0.5) / count)
    at = (2 * place - low - high) / (high - low)
    degree = np.arange(count)[:, None]
    basis = np.cos(degree * np.arccos(np.clip(at, -1, 1)))
    there = np.cos(degree * np.arccos(nodes))
    cardinal = (there * np.where(degree == 0, 1, 2) / count).T @ basis
    return np.stack([np.exp(0.5 * (low + high + nodes * (high - low))), cardinal @ windows, cardinal @ total])


_TABLES: WeakKeyDictionary[GammaCounts, CountsTable] = WeakKeyDictionary()
