"""The models `hurdle` and `hurdle_gamma`: revenue with many zeros, from the statistics of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.models.hurdle import HURDLE_PARAMETERIZATIONS, PARTS, HurdleRevenue
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios.base import Model, chosen_priors, no_constants, read_priors, refuse_options
from hbm_core.scenarios.creators.data import LEVELS, Labels, creator_table, genres

Amounts = Literal["lognormal", "gamma"]
_LINE = ("Normal", "StudentT", "Uniform")
_SPREAD = ("HalfNormal", "HalfStudentT", "Exponential", "Gamma", "LogNormal", "Uniform")
_NEEDED = ("n", "mean", "positive", "zeros", "log_sum", "log_squares")
_HINT = "Upload one row per user, or summaries with the statistics of each arm."
_STRUCTURES: WeakKeyDictionary[Dataset, dict[Amounts, HurdleRevenue]] = WeakKeyDictionary()

#: Part → its symbol in LaTeX, a word for it, and what it is.
WORDS = {
    "pay": (r"\kappa", "pay", "log odds that a user pays, untreated"),
    "pay_effect": (r"\delta", "pay effect", "effect on the log odds of paying"),
    "amount": (r"\eta", "amount", "log amount of a payer, untreated"),
    "amount_effect": (r"\gamma", "amount effect", "effect on the log amount"),
}


def fits(dataset: Dataset) -> bool:
    """Whether the data can be put into a hurdle model: zeros and positive amounts, by arm."""
    try:
        structure(dataset, "lognormal")
    except InputError:
        return False
    return True


def structure(dataset: Dataset, amounts: Amounts) -> HurdleRevenue:
    """The data as users who pay or not, one unit per creator; the same object for the same data set.

    Raises
    ------
    InputError
        Statistics per arm are missing, outcomes below 0, or nobody paid.
    """
    known = _STRUCTURES.setdefault(dataset, {})
    if amounts not in known:
        known[amounts] = _structure(dataset, amounts)
    return known[amounts]


def _structure(dataset: Dataset, amounts: Amounts) -> HurdleRevenue:
    table = dataset.table
    missing = [f"{name}_{arm}" for name in _NEEDED for arm in ("control", "treatment")]
    missing = [name for name in missing if name not in table]
    if missing:
        raise InputError("data for a hurdle model", "users, zeros and payers of each arm", "none", _HINT)
    if len(creator_table(table)) != len(table):
        raise InputError("data for a hurdle model", "one row per creator", "segments or periods", _HINT)
    values = {
        name: np.column_stack([table[f"{name}_{arm}"] for arm in ("control", "treatment")]).astype(float)
        for name in _NEEDED
    }
    below = values["n"] - values["positive"] - values["zeros"]
    if below.any():
        raise InputError("revenue", "0 or more of every user", f"{int(below.sum()):,} users below 0")
    if not values["positive"].sum():
        raise InputError("revenue", "users who paid", "none")
    group, names = genres(table)
    return HurdleRevenue(
        table["effect"].to_numpy(),
        table["se"].to_numpy(),
        group,
        Labels.of(table["creator"]),
        names,
        LEVELS,
        users=values["n"],
        payers=values["positive"],
        total=values["n"] * values["mean"],
        log_sum=values["log_sum"],
        log_squares=values["log_squares"],
        amounts=amounts,
    )


def _priors(residual: Mapping[str, str]) -> dict[str, Prior]:
    texts = {
        "pay": ("Normal(0, 2)", "HalfNormal(0.5)", "HalfNormal(0.5)"),
        "pay_effect": ("Normal(0, 0.5)", "HalfNormal(0.3)", "HalfNormal(0.3)"),
        "amount": ("Normal(0, 1)", "HalfNormal(0.5)", "HalfNormal(0.5)"),
        "amount_effect": ("Normal(0, 0.5)", "HalfNormal(0.3)", "HalfNormal(0.3)"),
    }
    unit, group = LEVELS
    found: dict[str, str] = {}
    for part, (mu, among, within) in texts.items():
        found |= {f"mu_{part}": mu, f"sigma_{group}_{part}": among, f"sigma_{unit}_{part}": within}
    return read_priors(**found, **residual)


@dataclass(frozen=True)
class Declaration:
    """A hurdle model with its default priors, on log scales."""

    amounts: Amounts
    priors: Mapping[str, Prior]
    families: Mapping[str, tuple[str, ...]]

    def default_priors(self, dataset: Dataset, covariates: Sequence[str] = ()) -> dict[str, Prior]:
        """Default priors for these data: a payer's typical amount is centred where the data's is."""
        typical = structure(dataset, self.amounts)
        log_amount = round(float(typical.log_sum.sum() / typical.payers.sum()))
        centred = Prior("Normal", (float(log_amount), self.priors["mu_amount"].numbers[1]))
        return {**self.priors, "mu_amount": centred}

    def spec(
        self,
        dataset: Dataset,
        priors: Mapping[str, Prior] | None = None,
        constants: Mapping[str, float] | None = None,
        covariates: Sequence[str] | None = None,
        parameterization: str | None = None,
    ) -> ModelSpec[HurdleRevenue]:
        """The model of these data; what is absent takes the default.

        Raises
        ------
        InputError
            Data without zeros and payers by arm; an unknown prior; a constant or covariate; a family that is
            not offered for its parameter.
        """
        refuse_options(constants, covariates)
        chosen = chosen_priors(self.default_priors(dataset), priors, self.families)
        geometry = parameterization or HURDLE_PARAMETERIZATIONS[0]
        return ModelSpec(structure(dataset, self.amounts), chosen, {}, geometry)


def _model(amounts: Amounts, residual: Mapping[str, str], label: str, summary: str, paid: str) -> Model:
    priors = _priors(residual)
    families = {name: _LINE if name.startswith("mu_") else _SPREAD for name in priors}
    declared = Declaration(amounts, MappingProxyType(priors), MappingProxyType(families))
    mean = r"\exp(\eta_i + a\gamma_i + \sigma_{\log}^2/2)"
    if amounts == "gamma":
        mean = r"\exp(\eta_i + a\gamma_i)"
    return Model(
        "hurdle" if amounts == "lognormal" else "hurdle_gamma",
        label,
        summary,
        (
            r"\mathrm{P}(y > 0) = \mathrm{logit}^{-1}(\kappa_i + a\,\delta_i), \quad a = 1"
            r" \text{ in treatment}",
            paid,
            r"x_i \sim \mathrm{Normal}(x_{g(i)}, \sigma_{\mathrm{creator}}) \text{ for each } x \text{ of }"
            r" \kappa, \delta, \eta, \gamma",
            r"x_g \sim \mathrm{Normal}(\mu, \sigma_{\mathrm{genre}}), \text{ each with its own } \mu, \sigma",
            r"\theta_i = p_t m_t - p_c m_c, \quad m = " + mean,
        ),
        spec=declared.spec,
        priors=declared.default_priors,
        constants=no_constants,
        parameterizations=HURDLE_PARAMETERIZATIONS,
        families=families,
        exact=False,
    )


HURDLE = _model(
    "lognormal",
    {"sigma_log": "HalfNormal(1)"},
    "Users who pay nothing, log-normal amounts",
    "Whether a user pays, and how much a payer pays, are pooled apart: for revenue with many zeros.",
    r"\log y \mid y > 0 \sim \mathrm{Normal}(\eta_i + a\,\gamma_i, \sigma_{\log})",
)
HURDLE_GAMMA = _model(
    "gamma",
    {"shape": "LogNormal(0, 1)"},
    "Users who pay nothing, Gamma amounts",
    "As the model hurdle, with amounts from a Gamma distribution: a lighter tail.",
    r"y \mid y > 0 \sim \mathrm{Gamma}(\text{shape } k, \text{ mean } e^{\eta_i + a\gamma_i})",
)


def parameter_words() -> dict[str, tuple[str, str]]:
    """Parameter name to symbol in LaTeX and words."""
    unit, group = LEVELS
    found = {}
    for part in PARTS:
        symbol, short, words = WORDS[part]
        found[f"mu_{part}"] = (rf"\mu_{{\mathrm{{{short}}}}}", f"mean of all {group}s, {words}")
        found[f"sigma_{group}_{part}"] = (
            rf"\sigma_{{\mathrm{{{group}, {short}}}}}", f"spread of the {group}s, {words}"
        )  # fmt: skip
        found[f"sigma_{unit}_{part}"] = (
            rf"\sigma_{{\mathrm{{{unit}, {short}}}}}", f"spread of the {unit}s, {words}"
        )  # fmt: skip
        found[f"{group}_{part}"] = (rf"{symbol}_g", f"mean of a {group}, {words}")
    found["sigma_log"] = (r"\sigma_{\mathrm{log}}", "spread of the log amounts of one arm's payers")
    found["shape"] = ("k", "shape of the Gamma: amounts vary by 1/√k of their mean")
    found[f"mean_{group}"] = (r"\bar\theta_g", f"mean effect of a {group}'s {unit}s")
    return found
