"""The posterior object of the counts engine: parameters at once, entities when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import betainc, gammainc, gammaln, xlogy

from hbm_core.inference.exact.base import checked_probabilities
from hbm_core.inference.exact.gamma_counts_table import CountsTable, Quality, population
from hbm_core.inference.exact.grid import GridMarginals
from hbm_core.inference.exact.posterior import put_infinite
from hbm_core.inference.exact.rate_lattice import RateLatticePosterior
from hbm_core.inference.exact.whitened import Weighted
from hbm_core.inference.gamma_marginal import BLOCK, Counts, Integrand, draw_rates, log_rising, pairs
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.structure import ModelSpec

#: Pairs of a node and a class that moments, densities and predictions of rates take at most: the more
#: entities, the less their rates hang on where in its narrow posterior the population is.
_MOMENTS, _DENSITIES, _PREDICTIONS = 150_000, 25_000, 25_000
#: Classes up to which the steps of the lattice would be seen in a rate's density.
_TIED = 12
#: Numbers in one array over nodes and classes.
_BLOCK = 200_000
#: Grid of a rate's density.
_GRID = 121
#: Nodes of the rule over a rate in predictions.
_RULE = 15
#: Counts up to which a forecast adds up every probability.
_SUMMED = 400


@dataclass(frozen=True, eq=False)
class RateAxes:
    """Rates on coordinates that have room for a long way to 0: log θ = centre + scale (v − reach e^−v).

    Attributes
    ----------
    centre, scale, reach : ndarray (R,)
        Of each rate.
    """

    centre: np.ndarray
    scale: np.ndarray
    reach: np.ndarray

    def log(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Log θ at coordinates (R, Q)."""
        centre, scale, reach = self._of(rows)
        return centre + scale * (v - reach * np.exp(-np.clip(v, -40, 40)))

    def x(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Θ at coordinates (R, Q)."""
        return np.exp(self.log(v, rows))

    def v(self, x: np.ndarray, rows: slice) -> np.ndarray:
        """Coordinates of θ (R, Q), by Newton steps on a concave increasing function."""
        centre, scale, reach = self._of(rows)
        with np.errstate(divide="ignore"):
            target = np.maximum((np.log(np.maximum(x, 0)) - centre) / scale, -1e12)
        # From the left of the root, where a concave function is overtaken at no step.
        v = np.where(target < -1, -np.log(np.maximum(-target, 1) / np.maximum(reach, 1e-300)) - 1.0, target)
        v = np.maximum(np.minimum(v, target + reach), -38.0)
        for _ in range(60):
            tail = reach * np.exp(-v)
            step = (target - v + tail) / (1 + tail)
            v = v + step
            if np.abs(step).max(initial=0) < 1e-12:
                break
        return v

    def slope(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Dθ/dv."""
        _, scale, reach = self._of(rows)
        return self.x(v, rows) * scale * (1 + reach * np.exp(-v))

    def log_slope(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Log of d log θ/dv."""
        _, scale, reach = self._of(rows)
        return np.log(scale) + np.log1p(reach * np.exp(-v))

    def _of(self, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.centre[rows, None], self.scale[rows, None], self.reach[rows, None]


@dataclass(frozen=True, eq=False)
class Tail:
    """How surprising each entity's latest window is.

    Attributes
    ----------
    above, below : ndarray (J,)
        P(Y ≥ y) and P(Y ≤ y) of a window like the latest.
    """

    above: np.ndarray
    below: np.ndarray

    @property
    def surprise(self) -> np.ndarray:
        """Twice the smaller of the two, at most 1, ndarray (J,)."""
        return np.minimum(2 * np.minimum(self.above, self.below), 1.0)


class GammaCountsPosterior(RateLatticePosterior):
    """Exact posterior of gamma counts; attributes as in `ExactPosterior`.

    The parameters' moments are there at once. Everything about entities is computed when it is asked for,
    once per distinct statistic.

    Attributes
    ----------
    hyper_names : tuple of str
        ``mu``, ``alpha`` and, for negative binomial counts, ``phi``.
    hyper_mean, hyper_sd : ndarray (D,)
        Their moments; infinite where they do not exist.
    replaced : bool
        Whether nodes had to be put anew although the table had some.
    """

    def __init__(
        self,
        spec: ModelSpec[GammaCounts],
        table: CountsTable,
        weighted: Weighted,
        quality: Quality,
        tails: Sequence[float],
        notes: tuple[str, ...] = (),
        replaced: bool = False,
    ) -> None:
        self.spec = spec  # type: ignore[assignment]
        self.structure, self.table, self.notes, self.replaced = spec.structure, table, notes, replaced
        self._weighted, self._quality, self._tails = weighted, quality, tails
        self.hyper_names = self.structure.parameters
        self.hyper_mean, self.hyper_sd = weighted.mean.copy(), weighted.sd.copy()
        finite = np.array([tail > 2 for tail in tails[:-1]])
        for place, tail in enumerate(tails[:-1]):
            put_infinite(self.hyper_mean, self.hyper_sd, tail, place)
        self.error = max(weighted.error, quality.error)
        self.error_absolute = float((self.error * weighted.sd[finite]).max(initial=0.0))
        proper = all(prior.proper for prior in spec.priors.values())
        self.log_evidence = weighted.log_total if proper else None

    # Nodes.

    def rates_at(self, x: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """E[θ], E[θ²] and the population's weight of some entities at parameters (P, D), each (P, M)."""
        only, of_place = self._classes(places)
        first, second = self.table.rates(x, self._quality.nodes, only)
        pooled = 1 - np.concatenate([part for _, part in self._worth(x, only)], axis=1)
        return first[:, of_place], second[:, of_place], pooled[:, of_place]

    def _nodes(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and probabilities of nodes: all, every second or every fourth, as pairs allow."""
        lattice, weights = self._weighted.lattice, self._weighted.weights
        state = population(self.structure, lattice.x)
        # What a node holds of the rates' second moments counts as much as its probability.
        square = state.shape * (1 + state.shape) / state.rate**2
        worth = weights * np.maximum(1.0, square / (weights @ square))
        top = weights.max()
        everywhere = np.ones(weights.size, bool)
        for kept, least in (
            (everywhere, 1e-8),
            (lattice.even, 1e-5),
            (lattice.quarter, 1e-5),
            (lattice.quarter, 1e-3),
        ):
            chosen = kept & (worth > least * top)
            if chosen.any() and np.count_nonzero(chosen) * self.table.size <= most:
                break
        if not chosen.any():
            chosen = weights > 1e-3 * top
        return lattice.x[chosen], weights[chosen] / weights[chosen].sum()

    def _blocks(
        self, x: np.ndarray, only: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Integrand, Counts]]:
        """Classes, the integrands of their pairs with all nodes, states first, and their counts, in blocks.

        `only` some classes, ascending, if given.
        """
        states = population(self.structure, x)
        wide = max(1, 4 * BLOCK // len(x))
        for classes, known in self.table.parts(only):
            for first in range(0, classes.size, wide):
                part = slice(first, first + wide)
                both, counts = pairs(states, known[part])
                yield classes[part], Integrand.of(both, counts), counts

    # Entities.

    def settle(self) -> None:
        """Nothing: what a picture shows of the rates is computed when it shows them."""

    def unit_moments(self, places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of all rates, each ndarray (J,), or of the entities at some places."""
        if places is None:
            return self._units
        if "_units" in self.__dict__:
            return self._units[0][places], self._units[1][places]
        only, of_place = self._classes(places)
        mean, sd = self._moments(only)
        return mean[of_place], sd[of_place]

    def _classes(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distinct classes of some entities, ascending, and which of these each entity has."""
        return np.unique(self.table.of_entity[places], return_inverse=True)

    @cached_property
    def _units(self) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = self._moments(None)
        return mean[self.table.of_entity], sd[self.table.of_entity]

    def _moments(self, only: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of the classes' rates."""
        x, weights = self._nodes(_MOMENTS)
        size = self.table.size if only is None else only.size
        first, second = np.zeros((2, size))
        rows = max(1, _BLOCK // size)
        for start in range(0, len(x), rows):
            mean, square = self.table.rates(x[start : start + rows], self._quality.nodes, only)
            first += weights[start : start + rows] @ mean
            second += weights[start : start + rows] @ square
        mean, sd = first, np.sqrt(np.maximum(second - first * first, 0))
        if self._tails[-1] <= 2:
            sd = np.full_like(sd, np.inf)
        if self._tails[-1] <= 1:
            mean = np.full_like(mean, np.inf)
        return mean, sd

    @cached_property
    def own_weight(self) -> np.ndarray:
        """Weight of each entity's own data in its rate, ndarray (J,): E[κ/(b + κ)].

        b is the rate of the gamma population and κ = E[Σ_j e_j φ/(φ + θ e_j)] the exposure that the windows
        are worth after over-dispersion. E[θ] = (a + κ ȳ)/(b + κ) up to a covariance of κ and θ; exactly for
        Poisson counts, where κ = Σ e.
        """
        return self._own_weight(None)[self.table.of_entity]

    def unit_pooling(self, places: np.ndarray) -> np.ndarray:
        """Weight of the population in the rates of some entities, ndarray (M,)."""
        if "own_weight" in self.__dict__:
            return 1 - self.own_weight[places]
        only, of_place = self._classes(places)
        return 1 - self._own_weight(only)[of_place]

    def _own_weight(self, only: np.ndarray | None) -> np.ndarray:
        x, weights = self._nodes(_PREDICTIONS)
        return np.concatenate([weights @ part for _, part in self._worth(x, only)])

    def _worth(self, x: np.ndarray, only: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Classes, and κ/(b + κ) of theirs at parameters (P, D), in blocks."""
        rate = population(self.structure, x).rate[:, None]
        for classes, integrand, counts in self._blocks(x, only):
            if integrand.scales:
                mass, worth = np.zeros((2, integrand.power.size))
                for _, theta, weight in integrand.nodes(self._quality.nodes):
                    mass += weight
                    for k, scale in enumerate(integrand.scales):
                        worth += weight * counts.windows[k] * counts.exposure[k] / (1 + theta * scale)
                worth = (worth / mass).reshape(len(x), -1)
            else:
                worth = counts.exposure[0].reshape(len(x), -1)
            yield classes, worth / (rate + worth)

    # Densities.

    @cached_property
    def _rates(self) -> GridMarginals:
        """Densities of the rates of all classes, mixtures over the nodes."""
        return self._rates_of(None)

    def _rates_of(self, only: np.ndarray | None) -> GridMarginals:
        """Densities of the rates of all classes, or of some, ascending."""
        x, weights = self._nodes(_DENSITIES)
        if self.table.size <= _TIED and len(self._weighted.weights) * self.table.size <= 4 * _DENSITIES:
            # Few entities' rates are tied to μ so closely that the steps of the lattice would be seen.
            x, weights = self._weighted.finer()
            kept = np.abs(weights) > 1e-8 * weights.max()
            x, weights = x[kept], weights[kept] / weights[kept].sum()
        size, done = self.table.size if only is None else only.size, 0
        axes = RateAxes(np.empty(size), np.empty(size), np.empty(size))
        values = np.empty((size, _GRID))
        ends = np.empty((2, size))
        for classes, integrand, _ in self._blocks(x, only):
            shape = (len(x), classes.size)
            log_mass = _log_mass(integrand, self._quality.nodes).reshape(shape)
            low, high = (end.reshape(shape) for end in integrand.ends())
            mode = np.log(integrand.mode).reshape(shape)
            # A node of little probability may end at a higher density: tails weigh by what they hold.
            likely = weights > 1e-3 * weights.max()
            low, high = low[likely].min(axis=0), high[likely].max(axis=0)
            middle = weights @ mode
            sd = weights @ (1 / np.sqrt(integrand.curvature.reshape(shape)))
            sd = np.sqrt(sd**2 + np.maximum(weights @ np.square(mode - middle), 0))
            scale = (high - middle) / 6
            scale = np.minimum(np.maximum(scale, 0.3 * sd), 1.5 * sd)
            left = (middle - low) / scale
            start = -np.maximum(np.log(np.maximum(left, 1)) + 1.0, np.minimum(left, 5.0))
            reach = np.maximum(left + start, 0) * np.exp(start)
            stop = (high - middle) / scale
            rows = slice(done, done + classes.size)
            done = rows.stop
            axes.centre[rows], axes.scale[rows], axes.reach[rows] = middle, scale, reach
            ends[:, rows] = start, stop
            grid = start[:, None] + (stop - start)[:, None] * np.linspace(0, 1, _GRID)
            log_theta = axes.log(grid, rows)
            theta = np.exp(log_theta)
            total = np.zeros_like(theta)
            for p in range(len(x)):
                at = np.arange(p * classes.size, (p + 1) * classes.size)
                some = integrand[at, None]
                total += weights[p] * np.exp(some.value(log_theta, theta) - log_mass[p][:, None])
            values[rows] = np.maximum(total, 0) * np.exp(axes.log_slope(grid, rows))
        return GridMarginals(ends[0], (ends[1] - ends[0]) / (_GRID - 1), values, axes)

    def unit_quantiles(self, probabilities: Sequence[float], places: np.ndarray | None = None) -> np.ndarray:
        """Quantiles of all rates, or of the entities at some places, ndarray (M, len(probabilities))."""
        if places is None or "_rates" in self.__dict__:
            return super().unit_quantiles(probabilities, places)
        only, of_place = self._classes(places)
        return self._rates_of(only).quantiles(checked_probabilities(probabilities))[of_place]

    def _rate_of(self, row: int) -> tuple[GridMarginals, int]:
        """Where the density of a class is found: alone, as long as nobody asked for all."""
        if "_rates" in self.__dict__:
            return self._rates, row
        return self._rates_of(np.array([row])), 0

    # Draws.

    def _entities(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return draw_entities(self.table, x, rng)

    # Predictions.

    def latest(self) -> Tail:
        """Posterior predictive tail probabilities of each entity's latest window, by quadrature."""
        place = self.structure.latest
        return self.tail(self.structure.count[place], self.structure.exposure[place])

    def tail(self, count: np.ndarray, exposure: np.ndarray) -> Tail:
        """P(Y ≥ y) and P(Y ≤ y) of one more window of each entity.

        Parameters
        ----------
        count, exposure : ndarray (J,)
            y and e.
        """
        keys = np.stack([self.table.of_entity, count, exposure], axis=1)
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        above, below = np.empty((2, len(distinct)))
        wanted = distinct[:, 0].astype(np.intp)
        for classes, weights, theta, dispersion in self._atoms():
            for place in np.flatnonzero((wanted >= classes[0]) & (wanted <= classes[-1])):
                at = wanted[place] - classes[0]
                mean = theta[:, at] * distinct[place, 2]
                y = distinct[place, 1]
                above[place] = weights[:, at] @ _at_least(y, mean, dispersion)
                below[place] = 1 - above[place] + weights[:, at] @ _exactly(y, mean, dispersion)
        inverse = inverse.ravel()
        return Tail(np.clip(above[inverse], 0, 1), np.clip(below[inverse], 0, 1))

    def forecast(
        self, probabilities: Sequence[float] = (0.05, 0.5, 0.95), exposure: np.ndarray | None = None
    ) -> np.ndarray:
        """Quantiles of each entity's next window, whole numbers, ndarray (J, len(probabilities)).

        Parameters
        ----------
        probabilities : sequence of float
            Between 0 and 1.
        exposure : ndarray (J,), optional
            Of the next window; that of the latest without.
        """
        structure = self.structure
        exposure = structure.exposure[structure.latest] if exposure is None else np.asarray(exposure, float)
        p = np.asarray(probabilities, dtype=float)
        keys = np.stack([self.table.of_entity, exposure], axis=1)
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        wanted = distinct[:, 0].astype(np.intp)
        out = np.empty((len(distinct), p.size))
        for classes, weights, theta, dispersion in self._atoms():
            for place in np.flatnonzero((wanted >= classes[0]) & (wanted <= classes[-1])):
                at = wanted[place] - classes[0]
                out[place] = _count_quantiles(
                    p, weights[:, at], theta[:, at] * distinct[place, 1], dispersion
                )
        return out[inverse.ravel()]

    def zero_share(self) -> float:
        """Expected share of zeros among windows like those seen."""
        structure = self.structure
        keys = np.stack([self.table.of_entity[structure.entity], structure.exposure], axis=1)
        distinct, times = np.unique(keys, axis=0, return_counts=True)
        wanted, total = distinct[:, 0].astype(np.intp), 0.0
        for classes, weights, theta, dispersion in self._atoms():
            for place in np.flatnonzero((wanted >= classes[0]) & (wanted <= classes[-1])):
                at = wanted[place] - classes[0]
                none = 1 - _at_least(1.0, theta[:, at] * distinct[place, 1], dispersion)
                total += times[place] * float(weights[:, at] @ none)
        return total / structure.count.size

    def _atoms(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Classes; probabilities and rates (A, classes) and φ (A,) of atoms that stand for (θ, φ)."""
        x, weights = self._nodes(_PREDICTIONS)
        nodes = _RULE
        for classes, integrand, _ in self._blocks(x):
            shape = (len(x), classes.size)
            theta, mass = np.empty((2, nodes, *shape))
            for k, (_, rate, weight) in enumerate(integrand.nodes(nodes)):
                theta[k], mass[k] = rate.reshape(shape), weight.reshape(shape)
            mass *= weights[:, None] / mass.sum(axis=0)
            dispersion = np.tile(population(self.structure, x).dispersion, nodes)
            yield classes, mass.reshape(-1, classes.size), theta.reshape(-1, classes.size), dispersion


def _log_mass(integrand: Integrand, nodes: int) -> np.ndarray:
    mass = np.zeros_like(integrand.peak)
    for _, _, weight in integrand.nodes(nodes):
        mass += weight
    return integrand.peak + np.log(mass)


def _at_least(y: float, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """P(Y ≥ y) at means and dispersions (A,); Poisson where the dispersion is infinite."""
    if y <= 0:
        return np.ones_like(mean)
    if np.isinf(dispersion[0]):
        return gammainc(y, mean)
    return betainc(y, dispersion, mean / (mean + dispersion))


def _exactly(y: float, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """P(Y = y) at means and dispersions (A,)."""
    if np.isinf(dispersion[0]):
        return np.exp(xlogy(y, mean) - mean - gammaln(y + 1))
    total = (y + dispersion) * np.log1p(mean / dispersion)
    return np.exp(log_rising(np.array(y), dispersion) + xlogy(y, mean) - total - gammaln(y + 1))


def _count_quantiles(
    p: np.ndarray, weights: np.ndarray, mean: np.ndarray, dispersion: np.ndarray
) -> np.ndarray:
    """Smallest counts with a distribution function of at least `p`, of a mixture."""
    middle = float(weights @ mean)
    spread = float(weights @ (mean + np.square(mean) / dispersion + np.square(mean - middle)))
    if middle + 6 * np.sqrt(spread) > _SUMMED:
        return np.array([_by_halving(share, weights, mean, dispersion) for share in p])
    poisson = np.isinf(dispersion[0])
    mass = weights * np.exp(-mean if poisson else -dispersion * np.log1p(mean / dispersion))
    factor = mean if poisson else mean / (mean + dispersion)
    out, below, y, top = np.zeros(p.size), float(mass.sum()), 0, p.max(initial=0)
    while below < top:
        out[p > below] = y + 1
        mass *= factor * (1.0 if poisson else y + dispersion) / (y + 1)
        step = float(mass.sum())
        below += step
        y += 1
        if y > _SUMMED and step < 1e-15:
            break
    return out


def _by_halving(share: float, weights: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> float:
    """One such quantile by bisection over whole numbers."""
    low, high = -1.0, float(np.ceil(weights @ mean)) + 1
    while 1 - weights @ _at_least(high + 1, mean, dispersion) < share and high < 1e15:
        low, high = high, 2 * high
    while high - low > 1:
        middle = float(np.floor(0.5 * (low + high)))
        if 1 - weights @ _at_least(middle + 1, mean, dispersion) < share:
            low = middle
        else:
            high = middle
    return high


def draw_entities(table: CountsTable, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rates of all entities at draws of the parameters (n, D), from their exact conditionals, (n, J)."""
    out = np.empty((len(x), table.entities))
    states = population(table.structure, x)
    for batch in table.batches:
        members = np.flatnonzero(
            (table.of_entity >= batch.place.start) & (table.of_entity < batch.place.stop)
        )
        counts = batch.counts[table.of_entity[members] - batch.place.start]
        rows = max(1, 4 * BLOCK // members.size)
        for first in range(0, len(x), rows):
            some = states[first : first + rows]
            if table.poisson:
                shape = some.shape[:, None] + counts.total[0]
                rate = some.rate[:, None] + counts.exposure[0]
                drawn = rng.standard_gamma(shape) / rate
            else:
                drawn = draw_rates(*pairs(some, counts), rng).reshape(-1, members.size)
            out[first : first + rows, members] = drawn
    return out
