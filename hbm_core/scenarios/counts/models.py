"""The models of the scenario `counts`, declared: hierarchy, default priors, families, formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from hbm_core.models.beta_binomial import BINOMIAL_PARAMETERIZATIONS
from hbm_core.models.count_windows import RATE_PARAMETERIZATIONS
from hbm_core.models.dataset import Dataset
from hbm_core.models.gamma_counts import POISSON_PARAMETERIZATIONS
from hbm_core.models.prior import Prior
from hbm_core.scenarios.base import Model, Preset, read_priors, refuse_options
from hbm_core.scenarios.counts.data import count_structure, trials_structure
from hbm_core.scenarios.counts.declaration import Declaration, declared_model
from hbm_core.scenarios.counts.extensions import EXTENSIONS

Likelihood = Literal["negative_binomial", "poisson"]
Effects = Literal["rate", "mean_scaled"]


def _structure(likelihood: Likelihood, effects: Effects, dataset: Dataset, covariates: Sequence[str]) -> Any:
    refuse_options(covariates=covariates)
    return count_structure(dataset, likelihood, effects)


def _trials(dataset: Dataset, covariates: Sequence[str]) -> Any:
    refuse_options(covariates=covariates)
    return trials_structure(dataset)


_BASE = Declaration(
    partial(_structure, "negative_binomial", "rate"),
    read_priors(mu="Exponential(0.1)", alpha="HalfNormal(2)", phi="HalfNormal(2)"),
    {"mu": 1, "alpha": -1},
)
_MEAN_SCALED = Declaration(
    partial(_structure, "negative_binomial", "mean_scaled"),
    read_priors(mu="Exponential(0.1)", alpha="HalfNormal(5)", phi="HalfNormal(2)"),
    {"mu": 1},
)
_POISSON = Declaration(
    partial(_structure, "poisson", "rate"),
    read_priors(mu="Exponential(0.1)", alpha="HalfNormal(2)"),
    {"mu": 1, "alpha": -1},
)
_BINOMIAL = Declaration(
    _trials,
    read_priors(mu="Uniform(0, 1)", kappa="LogNormal(4, 1.5)"),
    families={"mu": ("Uniform", "Beta")},
)

BASE = declared_model(
    "base",
    "Over-dispersed counts",
    "Entities have rates of their own from one gamma population, and their windows vary more than Poisson "
    "counts would; the data decide how much of each.",
    (
        r"y_{ij} \sim \mathrm{NegBinomial}(\theta_i e_{ij},\ \varphi), \quad \mathrm{Var}(y_{ij}) = \theta_i "
        r"e_{ij} + (\theta_i e_{ij})^2/\varphi",
        r"\theta_i \sim \mathrm{Gamma}(\mu\alpha,\ \alpha), \quad \mathrm{Var}(\theta_i) = \mu/\alpha",
    ),
    _BASE,
    RATE_PARAMETERIZATIONS,
)
MEAN_SCALED = declared_model(
    "mean_scaled",
    "Another prior: rates as multiples of the mean",
    "As the model base, but rates are multiples of the mean, so that their variance grows with its square: "
    "a different prior, not another geometry of the same model.",
    (
        BASE.formula[0],
        r"\theta_i = \mu z_i, \quad z_i \sim \mathrm{Gamma}(\alpha,\ \alpha), \quad \mathrm{Var}(\theta_i) = "
        r"\mu^2/\alpha",
    ),
    _MEAN_SCALED,
    RATE_PARAMETERIZATIONS,
)
POISSON = declared_model(
    "poisson",
    "Poisson counts",
    "As the model base without over-dispersion within an entity: all that its windows differ is chance.",
    (r"y_{ij} \sim \mathrm{Poisson}(\theta_i e_{ij})", BASE.formula[1]),
    _POISSON,
    POISSON_PARAMETERIZATIONS,
)
BINOMIAL = declared_model(
    "binomial",
    "Successes of trials",
    "Entities have success rates of their own from one beta population, which counts as κ trials.",
    (
        r"y_i \sim \mathrm{Binomial}(n_i,\ \theta_i)",
        r"\theta_i \sim \mathrm{Beta}(\mu\kappa,\ (1 - \mu)\kappa)",
    ),
    _BINOMIAL,
    BINOMIAL_PARAMETERIZATIONS,
)

MODELS: Mapping[str, Model] = MappingProxyType(
    {model.id: model for model in (BASE, MEAN_SCALED, POISSON, BINOMIAL, *EXTENSIONS)}
)


def _preset(declared: Declaration, priors: Mapping[str, Prior], dataset: Dataset) -> dict[str, Prior]:
    return declared.rescaled(priors, dataset)


PRESETS = (
    Preset("default", "Default", partial(_preset, _BASE, _BASE.priors), "base"),
    Preset(
        "moderate",
        "Moderate rates: μ ~ Gamma(2, 0.2)",
        partial(_preset, _BASE, read_priors(mu="Gamma(2, 0.2)", alpha="HalfNormal(2)", phi="HalfNormal(2)")),
        "base",
    ),
    Preset(
        "alike",
        "Skeptical: entities hardly differ",
        partial(
            _preset,
            _BASE,
            read_priors(mu="Exponential(0.1)", alpha="LogNormal(2.3, 0.5)", phi="HalfNormal(2)"),
        ),
        "base",
    ),
    Preset(
        "weak",
        "Weak: almost anything",
        partial(_preset, _BASE, read_priors(mu="HalfCauchy(10)", alpha="HalfCauchy(2)", phi="HalfCauchy(5)")),
        "base",
    ),
    Preset("binomial", "Default", partial(_preset, _BINOMIAL, _BINOMIAL.priors), "binomial"),
    Preset(
        "binomial_alike",
        "Skeptical: success rates hardly differ",
        partial(_preset, _BINOMIAL, read_priors(mu="Uniform(0, 1)", kappa="LogNormal(6, 0.7)")),
        "binomial",
    ),
)
