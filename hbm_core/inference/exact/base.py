"""What every exact engine returns, whatever it integrates and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.models.structure import ModelSpec

#: Probabilities that tables and JSON list.
PROBABILITIES = (0.025, 0.25, 0.5, 0.75, 0.975)


@dataclass(frozen=True, eq=False)
class Weights:
    """Shares of each estimate that come from its own data, the other units and the prior.

    Each is an ndarray (..., J); the three sum to 1. They are the linear weights of E[θ_i | τ, y] on
    y_i, on the other y_j, and on the prior means of the coefficients.
    """

    own: np.ndarray
    others: np.ndarray
    prior: np.ndarray


@dataclass(frozen=True, eq=False)
class Conditional:
    """The posterior given τ, on a grid of τ.

    Parameters
    ----------
    tau : ndarray (G,)
        In the outcome's units; 0 and infinity allowed.
    mu_mean, mu_sd : ndarray (G,)
        E and sd of μ given τ.
    theta_mean, theta_sd : ndarray (G, J)
        E and sd of θ_i given τ.
    pooling : ndarray (G, J)
        B_i = s_i²/(s_i² + τ²).
    weights : Weights
        Arrays (G, J).
    """

    tau: np.ndarray
    mu_mean: np.ndarray
    mu_sd: np.ndarray
    theta_mean: np.ndarray
    theta_sd: np.ndarray
    pooling: np.ndarray
    weights: Weights


class ExactPosterior(ABC):
    """A posterior known to quadrature accuracy.

    Attributes
    ----------
    spec : ModelSpec
        What was solved.
    names : tuple of str
        Flat parameter names: hyperparameters first (``mu``, ``tau``, ``beta[x]``, ``nu``), then
        ``theta[label]``.
    mean, sd : ndarray (len(names),)
        Posterior moments; ``inf`` where the moment is infinite (then `notes` says so).
    error : float
        Estimated largest error of any finite mean or sd, in posterior sds of that parameter.
    error_absolute : float
        The same in the outcome's units (largest over the parameters).
    notes : tuple of str
        What a reader must know: infinite moments, mass at the boundary, limits of accuracy.
    log_evidence : float or None
        log p(y); None under an improper prior.
    pooling : ndarray (J,) or None
        E[B_i | y]; None where the model has no such factor.
    weights : Weights or None
        Averaged over the posterior of τ, arrays (J,); None where the estimate is not linear in y given τ.
    """

    spec: ModelSpec
    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    error: float
    error_absolute: float
    notes: tuple[str, ...] = ()
    log_evidence: float | None = None
    pooling: np.ndarray | None = None
    weights: Weights | None = None

    def settle(self) -> None:
        """Compute what a first picture needs: some engines find only here that a marginal has no meaning.

        Raises
        ------
        FitError
            A marginal cannot be trusted.
        """
        self.quantiles()

    @abstractmethod
    def quantiles(self, probabilities: Sequence[float] = PROBABILITIES) -> np.ndarray:
        """Quantiles of every parameter, ndarray (len(names), len(probabilities))."""

    @abstractmethod
    def density(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior density of one parameter at `x`."""

    @abstractmethod
    def cdf(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior distribution function of one parameter at `x`."""

    @abstractmethod
    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest interval of every parameter, ndarray (len(names), 2)."""

    @abstractmethod
    def draws(self, count: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Independent joint draws: ``mu`` (count,), ``tau`` (count,), ``theta`` (count, J) and so on."""

    def given_tau(self, tau: np.ndarray) -> Conditional:
        """The posterior given τ, on a grid; NotImplementedError where it has no closed form."""
        raise NotImplementedError

    def index(self, name: str) -> int:
        """Place of a flat parameter name."""
        return self.names.index(name)

    @property
    def theta(self) -> slice:
        """Places of the units' effects."""
        return slice(len(self.names) - len(self.spec.structure.units), len(self.names))

    def summary(
        self, probabilities: Sequence[float] = PROBABILITIES, hdi: bool = True, units: int | None = None
    ) -> pd.DataFrame:
        """One row per parameter: mean, sd, one column per quantile (named ``q0.025`` …), hdi95_low/high.

        Of the units at most the first `units` are listed; all by default.
        """
        ends = self.hdi() if hdi else None
        table = summary_table(
            self.names, self.mean, self.sd, self.quantiles(probabilities), ends, probabilities
        )
        return table if units is None else table.iloc[: self.theta.start + units]


def checked_probabilities(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Probabilities as an ndarray (Q,); InputError where they are none."""
    p = np.asarray(values, dtype=float)
    if p.ndim != 1 or not (p.min(initial=0.5) >= 0 and p.max(initial=0.5) <= 1):
        raise InputError("probabilities", "numbers from 0 to 1", p)
    return p


def check_level(level: float) -> None:
    """InputError where `level` is no interval's."""
    if not 0 < level < 1:
        raise InputError("level of an interval", "a number between 0 and 1", level)


def summary_table(
    names: Sequence[str],
    mean: np.ndarray,
    sd: np.ndarray,
    quantiles: np.ndarray,
    hdi: np.ndarray | None,
    probabilities: Sequence[float],
) -> pd.DataFrame:
    """Put marginals side by side as `ExactPosterior.summary` promises it."""
    table = pd.DataFrame({"mean": mean, "sd": sd}, index=pd.Index(names, name="parameter"))
    for probability, column in zip(probabilities, quantiles.T, strict=True):
        table[f"q{probability:g}"] = column
    if hdi is not None:
        table[["hdi95_low", "hdi95_high"]] = hdi
    return table
