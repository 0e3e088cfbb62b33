"""What exact posteriors of rates share: a lattice over few parameters, rates as mixtures over its nodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hbm_core.errors import InputError
from hbm_core.inference.exact.base import (
    PROBABILITIES,
    ExactPosterior,
    Weights,
    check_level,
    checked_probabilities,
)
from hbm_core.inference.exact.grid import GridMarginals
from hbm_core.inference.exact.whitened import Dense, Lattice, Scale, Weighted


@dataclass(frozen=True, eq=False)
class ScaleAxes:
    """One parameter on a lattice's coordinate."""

    scale: Scale

    def x(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Parameter at a coordinate."""
        return self.scale.x(v)

    def v(self, x: np.ndarray, rows: slice) -> np.ndarray:
        """Coordinate of a parameter."""
        return self.scale.v(x)

    def slope(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """dx/dv."""
        return np.exp(self.scale.log_jacobian(v))


class RateLatticePosterior(ExactPosterior):
    """Exact posterior of rates; attributes as in `ExactPosterior`.

    A subclass gives `structure`, `table` (with `of_entity`, the class of each entity), `_weighted`, moments
    and weights of rates, `_rates` (their densities by class) and `_entities` (draws given the parameters).

    Attributes
    ----------
    hyper_names : tuple of str
        Parameters that take a prior.
    hyper_mean, hyper_sd : ndarray (D,)
        Their moments; infinite where they do not exist.
    """

    structure: Any
    table: Any
    hyper_names: tuple[str, ...]
    hyper_mean: np.ndarray
    hyper_sd: np.ndarray
    _weighted: Weighted

    @property
    @abstractmethod
    def own_weight(self) -> np.ndarray:
        """Weight of each entity's own data in its rate, ndarray (J,)."""

    @abstractmethod
    def unit_moments(self, places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of all rates, each ndarray (J,), or of the entities at some places."""

    @property
    @abstractmethod
    def _rates(self) -> GridMarginals:
        """Densities of the rates of all classes."""

    @abstractmethod
    def _entities(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rates of all entities at draws of the parameters (n, D), from their conditionals, (n, J)."""

    # Names, and everything in one list.

    @cached_property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Flat parameter names: hyperparameters, then rates."""
        return (*self.hyper_names, *(f"theta[{label}]" for label in self.structure.units))

    @property
    def theta(self) -> slice:
        """Places of the rates."""
        return slice(len(self.hyper_names), len(self.hyper_names) + len(self.structure.units))

    @cached_property
    def mean(self) -> np.ndarray:  # type: ignore[override]
        """Posterior means of all parameters."""
        return np.concatenate([self.hyper_mean, self.unit_moments()[0]])

    @cached_property
    def sd(self) -> np.ndarray:  # type: ignore[override]
        """Posterior sds of all parameters."""
        return np.concatenate([self.hyper_sd, self.unit_moments()[1]])

    @property
    def pooling(self) -> np.ndarray:  # type: ignore[override]
        """Weight of the population in each rate, 1 − `own_weight`, ndarray (J,)."""
        return 1 - self.own_weight

    @property
    def weights(self) -> Weights | None:  # type: ignore[override]
        """None: the rates are not linear in the counts."""
        return None

    # Nodes.

    @property
    def lattice(self) -> Lattice:
        """Nodes over the parameters."""
        return self._weighted.lattice

    @property
    def lattice_weights(self) -> np.ndarray:
        """Probabilities of the nodes, ndarray (P,)."""
        return self._weighted.weights

    # Densities.

    @cached_property
    def _dense(self) -> Dense:
        return Dense(self._weighted)

    @cached_property
    def _hypers(self) -> dict[int, GridMarginals]:
        return {}

    def _hyper(self, place: int) -> GridMarginals:
        if place not in self._hypers:
            start, step, values = self._dense.marginal(place)
            axes = ScaleAxes(self.lattice.scales[place])
            self._hypers[place] = GridMarginals(np.array([start]), np.array([step]), values[None], axes)
        return self._hypers[place]

    def quantiles(self, probabilities: Sequence[float] = PROBABILITIES) -> np.ndarray:
        """Quantiles of every parameter, ndarray (len(names), len(probabilities))."""
        p = checked_probabilities(probabilities)
        return np.concatenate([self.hyper_quantiles(p), self._rates.quantiles(p)[self.table.of_entity]])

    def unit_quantiles(self, probabilities: Sequence[float], places: np.ndarray | None = None) -> np.ndarray:
        """Quantiles of all rates, or of the entities at some places, ndarray (M, len(probabilities))."""
        rows = self.table.of_entity if places is None else self.table.of_entity[places]
        return self._rates.quantiles(checked_probabilities(probabilities))[rows]

    def hyper_quantiles(self, probabilities: Sequence[float] | np.ndarray = PROBABILITIES) -> np.ndarray:
        """Quantiles of the hyperparameters alone, ndarray (D, len(probabilities))."""
        p = checked_probabilities(probabilities)
        return np.concatenate([self._hyper(place).quantiles(p) for place in range(len(self.hyper_names))])

    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest interval of every parameter, ndarray (len(names), 2)."""
        check_level(level)
        parts = [self._hyper(place).hdi(level) for place in range(len(self.hyper_names))]
        return np.concatenate([*parts, self._rates.hdi(level)[self.table.of_entity]])

    def density(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior density of one parameter at `x`."""
        marginals, row = self._find(name)
        return marginals.density(row, np.asarray(x, dtype=float))

    def cdf(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior distribution function of one parameter at `x`."""
        marginals, row = self._find(name)
        return marginals.cdf(row, np.asarray(x, dtype=float))

    def _find(self, name: str) -> tuple[GridMarginals, int]:
        if name in self.hyper_names:
            return self._hyper(self.hyper_names.index(name)), 0
        place = self._places.get(name)
        if place is None:
            raise InputError("parameter", "one of " + ", ".join(self.names[:12]), repr(name))
        return self._rate_of(int(self.table.of_entity[place]))

    def _rate_of(self, row: int) -> tuple[GridMarginals, int]:
        """Where the density of a class is found."""
        return self._rates, row

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names[self.theta])}

    # Draws.

    def draws(self, count: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Joint draws: each hyperparameter (count,), ``theta`` (count, J).

        Hyperparameters from the interpolated lattice, stratified in the first; rates from their exact
        conditionals. The same seed gives the same draws.
        """
        if int(count) < 1:
            raise InputError("count of draws", "a positive whole number", count)
        rng = np.random.default_rng(seed)
        v = self._dense.draws(int(count), rng)
        x = np.stack([scale.x(v[:, d]) for d, scale in enumerate(self.lattice.scales)], axis=1)
        return {name: x[:, d] for d, name in enumerate(self.hyper_names)} | {"theta": self._entities(x, rng)}
