"""Rates as each entity shows them on its own, before any model: estimates, standard errors and intervals.

Letters: Y_i events in the exposure E_i, r_i = Y_i/E_i; c_i: how many times larger than Poisson the variance
of Y_i is, because windows are over-dispersed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class RateMoments:
    """Moment estimates of a population of rates.

    Parameters
    ----------
    mean : float
        Of the rates.
    between : float
        Variance of the true rates, at least 0.
    dispersion : float
        1/φ of counts, at least 0; 0 where no entity has two windows.
    """

    mean: float
    between: float
    dispersion: float = 0.0


class RawRates(ABC):
    """What pages show of entities beside a model of their rates; structures of rates are such."""

    units: Sequence[str]

    @property
    @abstractmethod
    def effect(self) -> np.ndarray:
        """Rate of each entity on its own, ndarray (J,)."""

    @property
    @abstractmethod
    def se(self) -> np.ndarray:
        """Standard error of each, positive, ndarray (J,)."""

    @abstractmethod
    def raw_ends(self, probabilities: Sequence[float]) -> np.ndarray:
        """Ends of intervals around each rate on its own, never outside its range, ndarray (J, P)."""

    @property
    @abstractmethod
    def rate_moments(self) -> RateMoments:
        """Moment estimates of the population."""

    @property
    @abstractmethod
    def information(self) -> np.ndarray:
        """What B compares with the population: windows or trials, over-dispersion taken off, ndarray (J,)."""

    @property
    @abstractmethod
    def seen(self) -> tuple[str, np.ndarray]:
        """How much was seen of each entity: a word for it, and the number, ndarray (J,)."""

    @property
    def spread(self) -> str:
        """Name of the parameter that rules how the rates spread."""
        return str(self.funnel(self.units[0])[1])  # type: ignore[attr-defined]

    @property
    def no_funnel(self) -> str:
        """Why the picture of a spread against one effect would mislead, for a reader."""
        return (
            "No funnel of a mean and a spread is drawn for rates: what rules how far they differ acts on "
            "their ratios, or grows where they are alike. Pairs, on the page Covariance, shows it beside a "
            "rate."
        )

    @cached_property
    def typical_se(self) -> float:
        """Median standard error."""
        return float(np.median(self.se))

    @cached_property
    def moment_pooling(self) -> np.ndarray:
        """B_i by moments, v_i/(v_i + τ²) with v_i the noise of r_i at the mean rate, ndarray (J,)."""
        moments = self.rate_moments
        noise = self._noise(moments)
        return np.asarray(noise / (noise + moments.between))

    @property
    @abstractmethod
    def typical_spread(self) -> float:
        """Spread of the population at which a typical entity has B = ½; see `rate_spread`."""

    @abstractmethod
    def _noise(self, moments: RateMoments) -> np.ndarray:
        """Variance of each r_i around its true rate, at the mean rate, ndarray (J,)."""


class RawCounts(RawRates):
    """Rates of counts in windows, with the arrays ``count``, ``entity`` and ``exposure``."""

    count: np.ndarray
    entity: np.ndarray
    exposure: np.ndarray

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Windows, Σ e, Σ e² and Σ y of each entity."""
        size = len(self.units)
        parts = (None, self.exposure, self.exposure**2, self.count)
        windows, exposure, square, total = (np.bincount(self.entity, part, size) for part in parts)
        return windows, exposure, square, total

    @property
    def effect(self) -> np.ndarray:
        """R_i, ndarray (J,)."""
        _, exposure, _, total = self._sums
        return np.asarray(total / exposure)

    @cached_property
    def rate_moments(self) -> RateMoments:
        """1/φ from the squares within entities, the variance of the rates from those between.

        1/φ: Σ_i n_i/(n_i − 1) Σ_j (y − r_i e)² − Σ r_i e over Σ (r_i e)², entities of two windows and more.
        Then, with weights E_i: Σ E_i (r_i − r̄)² has the mean Σ E_i (1 − E_i/E) (τ² + c_i r̄/E_i).
        """
        windows, exposure, _, _ = self._sums
        rate = self.effect
        several = windows[self.entity] > 1
        dispersion = 0.0
        if several.any():
            expected = (rate[self.entity] * self.exposure)[several]
            n = windows[self.entity][several]
            square = (n / (n - 1) * (self.count[several] - expected) ** 2).sum()
            if (below := float((expected**2).sum())) > 0:
                dispersion = max(0.0, float(square - expected.sum()) / below)
        mean = float(self.count.sum() / self.exposure.sum())
        share = 1 - exposure / exposure.sum()
        noise = float((share * self.inflation(mean, dispersion) * mean).sum())
        scale = float((exposure * share).sum())
        between = float((exposure * (rate - mean) ** 2).sum() - noise) / scale if scale > 0 else 0.0
        return RateMoments(mean, max(0.0, between), dispersion)

    def inflation(self, rate: float | np.ndarray, dispersion: float) -> np.ndarray:
        """C_i = 1 + r Σ e²/(φ E_i), ndarray (J,)."""
        _, exposure, square, _ = self._sums
        return np.asarray(1 + rate * dispersion * square / exposure)

    @cached_property
    def _own_inflation(self) -> np.ndarray:
        """C_i at r_i; where that is 0, at the mean: no window is without noise."""
        moments = self.rate_moments
        return self.inflation(np.where(self.effect > 0, self.effect, moments.mean), moments.dispersion)

    @cached_property
    def se(self) -> np.ndarray:
        """√(c_i max(Y_i, c_i/2))/E_i, ndarray (J,)."""
        _, exposure, _, total = self._sums
        inflation = self._own_inflation
        return np.asarray(np.sqrt(np.maximum(total / inflation, 0.5)) * inflation / exposure)

    def raw_ends(self, probabilities: Sequence[float]) -> np.ndarray:
        """Garwood's exact ends for the effective counts Y_i/c_i, ndarray (J, P).

        References
        ----------
        Garwood (1936), Fiducial limits for the Poisson distribution, Biometrika 28(3–4), 437–442.
        """
        _, exposure, _, total = self._sums
        inflation = self._own_inflation
        effective, unit = total / inflation, inflation / exposure
        ends = []
        for p in probabilities:
            if p < 0.5:
                end = np.where(effective > 0, stats.gamma.ppf(p, np.maximum(effective, 1e-300)), 0.0)
                ends.append(np.minimum(end * unit, self.effect))
            else:
                ends.append(np.maximum(stats.gamma.ppf(p, effective + 1) * unit, self.effect))
        return np.stack(ends, axis=1)

    @property
    def typical_spread(self) -> float:
        """1/√ of the median information, or for multiples of the mean the median relative noise."""
        if getattr(self, "effects", "rate") != "mean_scaled":
            return float(np.median(self.information)) ** -0.5
        mean = max(self.rate_moments.mean, 0.5 / float(self.exposure.sum()))
        inflation = self.inflation(mean, self.rate_moments.dispersion)
        return float(np.median(np.sqrt(inflation / (mean * self._sums[1]))))

    def _noise(self, moments: RateMoments) -> np.ndarray:
        exposure = self._sums[1]
        return self.inflation(moments.mean, moments.dispersion) * max(moments.mean, 1e-300) / exposure

    @property
    def information(self) -> np.ndarray:
        """E_i/c_i at the mean rate, ndarray (J,)."""
        moments = self.rate_moments
        return np.asarray(self._sums[1] / self.inflation(moments.mean, moments.dispersion))

    @property
    def seen(self) -> tuple[str, np.ndarray]:
        """Windows; exposure where no entity has two of them."""
        windows, exposure, _, _ = self._sums
        return ("exposure", exposure) if windows.max() < 2 else ("windows", windows)


class RawTrials(RawRates):
    """Success rates, with the arrays ``successes`` and ``trials``."""

    successes: np.ndarray
    trials: np.ndarray

    @property
    def effect(self) -> np.ndarray:
        """Y_i/n_i, ndarray (J,)."""
        return np.asarray(self.successes / self.trials)

    @cached_property
    def rate_moments(self) -> RateMoments:
        """Mean and variance of success rates.

        S = Σ n_i (r_i − r̄)² has the mean Σ (1 − n_i/N) (n_i τ² + r̄(1 − r̄) − τ²) (Kleinman 1973).
        """
        trials = self.trials
        mean = float(self.successes.sum() / trials.sum())
        share = 1 - trials / trials.sum()
        chance = mean * (1 - mean)
        square = float((trials * (self.effect - mean) ** 2).sum())
        scale = float((share * (trials - 1)).sum())
        between = (square - float(share.sum()) * chance) / scale if scale > 0 else 0.0
        return RateMoments(mean, float(np.clip(between, 0.0, 0.99 * chance)))

    @cached_property
    def se(self) -> np.ndarray:
        """√(p(1 − p)/(n + 4)) at p = (y + 2)/(n + 4), ndarray (J,): rates of 0 and 1 have noise, too."""
        smooth = (self.successes + 2) / (self.trials + 4)
        return np.asarray(np.sqrt(smooth * (1 - smooth) / (self.trials + 4)))

    def raw_ends(self, probabilities: Sequence[float]) -> np.ndarray:
        """Clopper and Pearson's exact ends, ndarray (J, P).

        References
        ----------
        Clopper & Pearson (1934), The use of confidence or fiducial limits, Biometrika 26(4), 404–413.
        """
        y, failures = self.successes, self.trials - self.successes
        ends = []
        for p in probabilities:
            if p < 0.5:
                end = np.where(y > 0, stats.beta.ppf(p, np.maximum(y, 0.5), failures + 1), 0.0)
                ends.append(np.minimum(end, self.effect))
            else:
                end = np.where(failures > 0, stats.beta.ppf(p, y + 1, np.maximum(failures, 0.5)), 1.0)
                ends.append(np.maximum(end, self.effect))
        return np.stack(ends, axis=1)

    @property
    def typical_spread(self) -> float:
        """1/√n at the median n: B = κ/(κ + n) is then ½ at a spread of 1/√κ."""
        return float(np.median(self.trials)) ** -0.5

    def _noise(self, moments: RateMoments) -> np.ndarray:
        return np.asarray(max(moments.mean * (1 - moments.mean), 1e-300) / self.trials)

    @property
    def information(self) -> np.ndarray:
        """Trials, ndarray (J,)."""
        return self.trials

    @property
    def seen(self) -> tuple[str, np.ndarray]:
        """Trials."""
        return "trials", self.trials
