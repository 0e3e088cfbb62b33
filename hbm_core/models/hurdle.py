"""The hurdle structure: users who pay or not, what payers pay, and what a treatment does to either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.grouped import GroupedUnits

#: Geometries of all four hierarchies; the first is the default.
HURDLE_PARAMETERIZATIONS = ("partial", "noncentered", "centered")
#: What has a hierarchy of its own: log odds of paying under control, what the treatment adds to them, log
#: amount of a payer under control, what the treatment adds to it.
PARTS = ("pay", "pay_effect", "amount", "amount_effect")


@dataclass(frozen=True, eq=False)
class HurdleRevenue(GroupedUnits):
    """Revenue of users with many zeros, per unit and arm, by sufficient statistics.

    Of a user of unit i in arm a (0 control, 1 treatment): P(y > 0) = logit⁻¹(κ_i + a δ_i) and, for y > 0,
    log y ~ Normal(η_i + a γ_i, σ_log) or y ~ Gamma with mean exp(η_i + a γ_i) and a common shape. κ, δ, η and
    γ have a hierarchy each: κ_i ~ Normal(κ_{g(i)}, σ_unit), κ_g ~ Normal(μ, σ_group). The readout is the
    difference of expected revenue per user, θ_i = p_t m_t − p_c m_c with m = exp(η + a γ + σ_log²/2), or
    exp(η + a γ) of a Gamma.

    Parameters carry the words of the levels and of `PARTS`: with ``levels = ("creator", "genre")`` they are
    ``mu_pay``, ``sigma_genre_pay``, ``sigma_creator_pay``, the same of the other parts, ``sigma_log`` (or
    ``shape``), ``genre_pay[label]`` and so on, ``mean_genre[label]`` (mean readout of a group's units) and
    ``theta[label]``.

    Parameters
    ----------
    effect, se, group, units, groups, levels
        As of `GroupedUnits`: the raw difference of the arms' means and its standard error.
    users, payers : ndarray (N, 2) of float
        n and n₊ of control and treatment.
    total, log_sum, log_squares : ndarray (N, 2)
        Σ y, Σ log y and Σ log² y of the payers.
    amounts : {"lognormal", "gamma"}
        Distribution of what payers pay.
    """

    users: np.ndarray = field(kw_only=True)
    payers: np.ndarray = field(kw_only=True)
    total: np.ndarray = field(kw_only=True)
    log_sum: np.ndarray = field(kw_only=True)
    log_squares: np.ndarray = field(kw_only=True)
    amounts: Literal["lognormal", "gamma"] = field(default="lognormal", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("users", "payers", "total", "log_sum", "log_squares"):
            value = np.array(getattr(self, name), dtype=float)
            if value.shape != (self.effect.size, 2) or not np.isfinite(value).all():
                raise InputError(f"{name} per arm", f"{self.effect.size} × 2 finite numbers", value.shape)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if (self.users < 1).any() or (self.payers < 0).any() or (self.payers > self.users).any():
            raise InputError("users per arm", "at least one, of whom some or none paid", "others")
        if not self.payers.sum():
            raise InputError("payers", "at least one user who paid", "none")

    @property
    def residual(self) -> str:
        """Name of the parameter that rules how far payers of one arm differ."""
        return "sigma_log" if self.amounts == "lognormal" else "shape"

    def names_of(self, part: str) -> tuple[str, str, str]:
        """Names of a part's mean, spread of groups and spread of units."""
        unit, group = self.levels
        return f"mu_{part}", f"sigma_{group}_{part}", f"sigma_{unit}_{part}"

    def group_vector(self, part: str) -> str:
        """Name of the vector of a part's group means."""
        return f"{self.levels[1]}_{part}"

    @property
    def group_mean(self) -> str:
        """Name of the vector of the groups' mean readouts."""
        return f"mean_{self.levels[1]}"

    @property
    def spread(self) -> str:
        """Empty: a readout's spread is made of four."""
        return ""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return (*(name for part in PARTS for name in self.names_of(part)), self.residual)

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset(name for name in self.parameters if not name.startswith("mu_"))

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit: all but readouts are on a log scale."""
        return (*self.parameters, *map(self.group_vector, PARTS))

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not a unit's readout, in order."""
        return (*self.parameters, *self._group_names())

    def _group_names(self) -> Iterator[str]:
        for vector in (*(self.group_vector(part) for part in PARTS), self.group_mean):
            yield from (f"{vector}[{label}]" for label in self.groups)

    @property
    def no_funnel(self) -> str:
        """Why `funnel` knows none, for a reader."""
        return (
            f"No one funnel: the effect on a {self.levels[0]} is made of four quantities, each with a "
            "spread of its own."
        )

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """None: a readout is made of four quantities, each with a spread of its own."""
        return None

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return HURDLE_PARAMETERIZATIONS

    @cached_property
    def log_deviation(self) -> np.ndarray:
        """Σ (log y − mean)² over the payers of each arm, ndarray (N, 2)."""
        payers = np.maximum(self.payers, 1.0)
        return np.where(self.payers > 1, np.maximum(self.log_squares - self.log_sum**2 / payers, 0.0), 0.0)

    @cached_property
    def log_mean(self) -> np.ndarray:
        """Mean log amount of each arm's payers, ndarray (N, 2); 0 where nobody paid."""
        return self.log_sum / np.maximum(self.payers, 1.0)

    @cached_property
    def log_sd(self) -> float:
        """Pooled sd of the log amounts within arms, at least 0.05: where σ_log starts."""
        free = float(np.maximum(self.payers - 1, 0).sum())
        return max(0.05, float(np.sqrt(self.log_deviation.sum() / max(free, 1.0))))

    def estimates(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Rough estimate and standard error of each part, unit by unit: for starts and geometries.

        Log odds with half a user more on either side (Haldane and Anscombe); an arm without payers knows
        next to nothing of its log amount.
        """
        paid, not_paid = self.payers + 0.5, self.users - self.payers + 0.5
        odds, odds_variance = np.log(paid / not_paid), 1 / paid + 1 / not_paid
        overall = float(self.log_sum.sum() / self.payers.sum())
        amount = np.where(self.payers > 0, self.log_mean, overall)
        variance = np.where(self.payers > 0, self.log_sd**2 / np.maximum(self.payers, 1.0), 1e4)
        return {
            "pay": (odds[:, 0], np.sqrt(odds_variance[:, 0])),
            "pay_effect": (odds[:, 1] - odds[:, 0], np.sqrt(odds_variance.sum(axis=1))),
            "amount": (amount[:, 0], np.sqrt(variance[:, 0])),
            "amount_effect": (amount[:, 1] - amount[:, 0], np.sqrt(variance.sum(axis=1))),
        }


def readout(
    pay: np.ndarray, pay_effect: np.ndarray, amount: np.ndarray, amount_effect: np.ndarray,
    half_variance: np.ndarray | float,
) -> np.ndarray:  # fmt: skip
    """θ = p_t exp(η + γ + v/2) − p_c exp(η + v/2); `half_variance` is v/2, 0 of a Gamma."""
    control = np.exp(amount + half_variance) / (1 + np.exp(-pay))
    treatment = np.exp(amount + amount_effect + half_variance) / (1 + np.exp(-pay - pay_effect))
    return treatment - control
