"""The exact posterior of successes of trials: a lattice over (μ, κ), everything else in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
from scipy.special import betaln, expit, gammaln

from hbm_core.errors import ImproperPosteriorError, InputError
from hbm_core.inference.exact.grid import GridMarginals
from hbm_core.inference.exact.posterior import moment_notes, put_infinite
from hbm_core.inference.exact.rate_lattice import RateLatticePosterior
from hbm_core.inference.exact.whitened import Lattice, Problem, Scale, Weighted, place
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.structure import ModelSpec

_KEPT = 4
_GRID = 161
_UNIT = Scale(0.0, 1.0)


@dataclass(eq=False)
class TrialsTable:
    """Distinct (successes, failures) with how many entities have them, and lattices made before."""

    successes: np.ndarray
    failures: np.ndarray
    times: np.ndarray
    of_entity: np.ndarray
    lattices: list[Lattice] = field(default_factory=list)

    @classmethod
    def of(cls, structure: BetaBinomial) -> TrialsTable:
        """The structure's own table."""
        table = _TABLES.get(structure)
        if table is None:
            pairs = np.stack([structure.successes, structure.trials - structure.successes], axis=1)
            distinct, inverse, times = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
            table = cls(distinct[:, 0], distinct[:, 1], times.astype(float), inverse.ravel())
            _TABLES[structure] = table
        return table

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """Log p(y | μ, κ), ndarray (P,), at parameters (P, 2)."""
        a, b = _shapes(x)
        s, f = self.successes, self.failures
        choose = gammaln(s + f + 1) - gammaln(s + 1) - gammaln(f + 1)
        each = betaln(a[:, None] + s, b[:, None] + f) - betaln(a, b)[:, None] + choose
        return each @ self.times


_TABLES: WeakKeyDictionary[BetaBinomial, TrialsTable] = WeakKeyDictionary()


def _shapes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x[:, 0] * x[:, 1], (1 - x[:, 0]) * x[:, 1]


def solve_beta_binomial(spec: ModelSpec[BetaBinomial]) -> BetaBinomialPosterior:
    """The exact posterior of successes of trials.

    Raises
    ------
    InputError
        A prior on μ that reaches beyond 1.
    ImproperPosteriorError
        A flat prior on κ.
    """
    priors = [spec.priors["mu"], spec.priors["kappa"]]
    if not (priors[0].support[0] >= 0 and priors[0].support[1] <= 1):
        raise InputError(
            "prior on mu", "a family on (0, 1), because mu is a share", priors[0].text, "Use Uniform(0, 1)."
        )
    if not priors[1].proper:
        raise ImproperPosteriorError(
            "prior on kappa",
            "a proper prior",
            f"{priors[1].text}, under which the posterior has infinite mass at large kappa, "
            "where all entities share one rate",
            "Give kappa a proper prior such as HalfNormal.",
        )
    table = TrialsTable.of(spec.structure)
    scales = tuple(Scale.of(prior) for prior in priors)
    weighted = None
    for lattice in table.lattices:
        if lattice.scales == scales and (found := Weighted.of(lattice, priors)).holds:
            weighted = found
            break
    if weighted is None:
        successes, trials = spec.structure.successes.sum(), spec.structure.trials.sum()
        start = np.array([(successes + 0.5) / (trials + 1), 10.0])
        orders = [0, int(np.ceil(min(priors[1].tail, 3.0))) - 1]
        weighted = place(Problem(priors, table.log_likelihood, start, orders, 17.0))
    others = [one for one in table.lattices if one is not weighted.lattice]
    table.lattices = [weighted.lattice, *others[: _KEPT - 1]]
    return BetaBinomialPosterior(spec, table, weighted, moment_notes(kappa=priors[1].tail))


@dataclass(frozen=True, eq=False)
class ShareAxes:
    """Rates with room for a long way to 0 and to 1: log odds = centre + scale (v − left e^−v + right eᵛ).

    Attributes
    ----------
    centre, scale, left, right : ndarray (R,)
        Of each rate.
    """

    centre: np.ndarray
    scale: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def odds(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Log odds at coordinates (R, Q)."""
        centre, scale, left, right = self._of(rows)
        return centre + scale * (v - left * np.exp(-v) + right * np.exp(v))

    def x(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Θ at coordinates (R, Q)."""
        return expit(self.odds(v, rows))

    def v(self, x: np.ndarray, rows: slice) -> np.ndarray:
        """Coordinates of θ (R, Q), by bisection."""
        target = np.clip(_UNIT.v(x), -1e9, 1e9)
        low, high = np.full(target.shape, -40.0), np.full(target.shape, 40.0)
        for _ in range(55):
            middle = 0.5 * (low + high)
            below = self.odds(middle, rows) < target
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)

    def log_slope(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Log of d log odds/dv."""
        _, scale, left, right = self._of(rows)
        return np.log(scale * (1 + left * np.exp(-v) + right * np.exp(v)))

    def slope(self, v: np.ndarray, rows: slice) -> np.ndarray:
        """Dθ/dv."""
        odds = self.odds(v, rows)
        return expit(odds) * expit(-odds) * np.exp(self.log_slope(v, rows))

    def _of(self, rows: slice) -> tuple[np.ndarray, ...]:
        return tuple(a[rows, None] for a in (self.centre, self.scale, self.left, self.right))


def _room(reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far a coordinate runs for a tail of so many scales, and the factor of its exponential."""
    end = np.maximum(np.log(np.maximum(reach, 1)) + 1, np.minimum(reach, 5.0))
    return end, np.maximum(reach - end, 0) * np.exp(-end)


class BetaBinomialPosterior(RateLatticePosterior):
    """Exact posterior of success rates; attributes as in `ExactPosterior`.

    Attributes
    ----------
    hyper_mean, hyper_sd : ndarray (2,)
        Of μ and κ; infinite where they do not exist.
    """

    def __init__(
        self,
        spec: ModelSpec[BetaBinomial],
        table: TrialsTable,
        weighted: Weighted,
        notes: tuple[str, ...],
    ) -> None:
        self.spec = spec  # type: ignore[assignment]
        self.structure, self.table, self.notes = spec.structure, table, notes
        self._weighted = weighted
        self.hyper_mean, self.hyper_sd = weighted.mean.copy(), weighted.sd.copy()
        put_infinite(self.hyper_mean, self.hyper_sd, spec.priors["kappa"].tail, 1)
        self.error = weighted.error
        self.error_absolute = float(self.error * weighted.sd[np.isfinite(self.hyper_sd)].max())
        self.log_evidence = weighted.log_total
        x, weights = weighted.lattice.x, weighted.weights
        kept = weights > 1e-9 * weights.max()
        self._x, self._weights = x[kept], weights[kept] / weights[kept].sum()
        a, b = _shapes(self._x)
        self._a = a[:, None] + table.successes
        self._b = b[:, None] + table.failures
        total = self._a + self._b
        first = self._weights @ (self._a / total)
        second = self._weights @ (self._a * (self._a + 1) / (total * (total + 1)))
        rows = table.of_entity
        self._units = first[rows], np.sqrt(np.maximum(second - first**2, 0))[rows]

    @cached_property
    def own_weight(self) -> np.ndarray:
        """E[n/(κ + n)], the weight of each entity's own trials in its rate, ndarray (J,)."""
        trials = self.table.successes + self.table.failures
        own = self._weights @ (trials / (self._x[:, 1:] + trials))
        return own[self.table.of_entity]

    hyper_names = ("mu", "kappa")

    def rates_at(self, x: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """E[θ], E[θ²] and the population's weight of some entities at parameters (P, 2), each (P, M)."""
        (a, b), structure = _shapes(x), self.structure
        successes, trials = structure.successes[places], structure.trials[places]
        above, total = a[:, None] + successes, (a + b)[:, None] + trials
        kappa = x[:, 1:]
        return above / total, above * (above + 1) / (total * (total + 1)), kappa / (kappa + trials)

    def unit_moments(self, places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of all rates, each ndarray (J,), or of the entities at some places."""
        mean, sd = self._units
        return (mean, sd) if places is None else (mean[places], sd[places])

    def unit_pooling(self, places: np.ndarray) -> np.ndarray:
        """E[κ/(κ + n)] of some entities, ndarray (M,)."""
        return self.pooling[places]

    @cached_property
    def _rates(self) -> GridMarginals:
        """Mixtures of beta densities of the log odds."""
        x, weights = self._weighted.finer()
        kept = np.abs(weights) > 1e-8 * weights.max()
        weights, (a, b) = weights[kept] / weights[kept].sum(), _shapes(x[kept])
        middle = np.log(self._a) - np.log(self._b)
        width = 1 / self._a + 1 / self._b
        likely = self._weights > 1e-4 * self._weights.max()
        low = (middle - 7 * np.sqrt(width) - 12 / self._a)[likely].min(axis=0)
        high = (middle + 7 * np.sqrt(width) + 12 / self._b)[likely].max(axis=0)
        centre = self._weights @ middle
        # Steps as wide as the sd, but none wider than what a logistic function needs.
        scale = np.minimum(np.sqrt(self._weights @ np.square(middle - centre) + self._weights @ width), 1.5)
        start, left = _room((centre - low) / scale)
        stop, right = _room((high - centre) / scale)
        axes = ShareAxes(centre, scale, left, right)
        grid = -start[:, None] + (start + stop)[:, None] * np.linspace(0, 1, _GRID)
        odds = axes.odds(grid, slice(None))
        log_p, log_q = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
        values = np.zeros_like(odds)
        s, f = self.table.successes[:, None], self.table.failures[:, None]
        for weight, one, other in zip(weights, a, b, strict=True):
            values += weight * np.exp((one + s) * log_p + (other + f) * log_q - betaln(one + s, other + f))
        values = np.maximum(values, 0) * np.exp(axes.log_slope(grid, slice(None)))
        return GridMarginals(-start, (start + stop) / (_GRID - 1), values, axes)

    def _entities(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        (a, b), structure = _shapes(x), self.structure
        failures = structure.trials - structure.successes
        return rng.beta(a[:, None] + structure.successes, b[:, None] + failures)
