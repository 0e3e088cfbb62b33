"""Models of counts beyond the gamma population: declared here, listed by `EXTENSIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.count_windows import RATE_PARAMETERIZATIONS, CountWindows
from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.dataset import Dataset
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.prior import Prior
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts
from hbm_core.scenarios.base import Model, read_priors
from hbm_core.scenarios.counts.data import count_structure
from hbm_core.scenarios.counts.declaration import LINE, Declaration, declared_model, prior_scale

SHARE = ("Beta", "Uniform")
#: Covariates that a model takes when none were chosen: the first so many.
_MOST_COVARIATES = 3
#: Mean log bytes that the default prior was written for, and how far off it stays as it is.
_LOG_BYTES, _NEAR = 6.0, 4.0

#: Structures per data set, so that what is taken from the data once hangs on them.
_MADE: WeakKeyDictionary[Dataset, dict[tuple[str, ...], Any]] = WeakKeyDictionary()


def _made(key: tuple[str, ...], dataset: Dataset, make: Callable[[CountWindows], Any]) -> Any:
    """The structure that `make` builds of the counts, the same object for the same data set and key."""
    known = _MADE.setdefault(dataset, {})
    if key not in known:
        known[key] = make(count_structure(dataset))
    return known[key]


def _none(covariates: Sequence[str]) -> None:
    if covariates:
        raise InputError(
            "covariates", "none for this model", ", ".join(covariates), "Use the model covariates."
        )


def _zero_inflated(dataset: Dataset, covariates: Sequence[str]) -> ZeroInflatedCounts:
    _none(covariates)
    return _made(
        ("zero_inflated",), dataset, lambda c: ZeroInflatedCounts(c.count, c.entity, c.units, c.exposure)
    )


def covariate_names(dataset: Dataset) -> tuple[str, ...]:
    """Numeric columns beside the counts that are complete and vary."""
    known = {"entity", "window", "count", "exposure", "bytes", "successes", "trials"}
    others = dataset.table.drop(columns=list(known), errors="ignore").select_dtypes("number")
    return tuple(
        str(name) for name, column in others.items() if np.isfinite(column).all() and column.nunique() > 1
    )


def _covariates(dataset: Dataset, covariates: Sequence[str]) -> CovariateCounts:
    offered = covariate_names(dataset)
    columns = tuple(covariates) or offered[:_MOST_COVARIATES]
    for place, name in enumerate(columns):
        if name not in offered or name in columns[:place]:
            known = ", ".join(offered) or "none in these data"
            raise InputError("covariate", f"different numeric columns that vary ({known})", repr(name))

    def make(counts: CountWindows) -> CovariateCounts:
        values = dataset.table[list(columns)].to_numpy(float)
        deviation = values - values.mean(axis=0)
        design = deviation / np.maximum(deviation.std(axis=0), 1e-300)
        return CovariateCounts(counts.count, counts.entity, counts.units, counts.exposure, design, columns)

    return _made(("covariates", *columns), dataset, make)


def _drift(
    likelihood: Literal["poisson", "negative_binomial"], dataset: Dataset, covariates: Sequence[str]
) -> DriftingCounts:
    _none(covariates)
    return _made(
        ("drift", likelihood),
        dataset,
        lambda c: DriftingCounts(c.count, c.entity, c.units, c.exposure, likelihood),
    )


def _joint(dataset: Dataset, covariates: Sequence[str]) -> JointCounts:
    _none(covariates)
    if "bytes" not in dataset.table:
        raise InputError(
            "data of the model joint",
            "the column bytes beside the counts",
            "no such column",
            "Choose another model, or add the column.",
        )
    volume = dataset.table["bytes"].to_numpy(float)
    return _made(("joint",), dataset, lambda c: JointCounts(c.count, c.entity, c.units, c.exposure, volume))


@dataclass(frozen=True)
class LogDeclaration(Declaration):
    """A model whose means are on log scales, so that other units shift its priors."""

    def rescaled(self, priors: Mapping[str, Prior], dataset: Dataset) -> dict[str, Prior]:
        """`priors` on the scale of `dataset`: means of logs shifted, everything else as it is."""
        shifts = {"mu_count": float(np.log(prior_scale(dataset))), "mu_bytes": _byte_shift(dataset)}
        found = dict(priors)
        for name, shift in shifts.items():
            if shift and name in found and found[name].family == "Normal":
                mean, sd = found[name].numbers
                found[name] = Prior("Normal", (float(f"{mean + shift:.2g}"), sd))
        return found


def _byte_shift(dataset: Dataset) -> float:
    """How far the log bytes of the data lie from what the default prior was written for, whole numbers."""
    if "bytes" not in dataset.table:
        return 0.0
    exposure = dataset.table["exposure"].to_numpy(float) if "exposure" in dataset.table else 1.0
    level = np.log(dataset.table["bytes"].to_numpy(float) / exposure)
    shift = float(np.nanmedian(level)) - _LOG_BYTES
    return 0.0 if abs(shift) <= _NEAR else float(round(shift))


_POWERS = {"mu": 1, "alpha": -1}
_GAMMA = {"mu": "Exponential(0.1)", "alpha": "HalfNormal(2)"}
_ZERO_INFLATED = Declaration(
    _zero_inflated,
    read_priors(**_GAMMA, phi="HalfNormal(2)", psi="Beta(1, 3)"),
    _POWERS,
    {"psi": SHARE},
)
_COVARIATES = Declaration(
    _covariates,
    read_priors(**_GAMMA, beta="Normal(0, 1)", phi="HalfNormal(2)"),
    _POWERS,
    {"beta": LINE},
)
_DRIFT_PRIORS = {**_GAMMA, "rho": "Uniform(-1, 1)", "sigma_drift": "HalfNormal(1)"}
_DRIFT = Declaration(partial(_drift, "poisson"), read_priors(**_DRIFT_PRIORS), _POWERS, {"rho": ("Uniform",)})
_DRIFT_DISPERSED = Declaration(
    partial(_drift, "negative_binomial"),
    read_priors(**_DRIFT_PRIORS, phi="HalfNormal(2)"),
    _POWERS,
    {"rho": ("Uniform",)},
)
_JOINT = LogDeclaration(
    _joint,
    read_priors(
        mu_count="Normal(1.5, 1.5)",
        mu_bytes="Normal(6, 3)",
        sigma_count="HalfNormal(1)",
        sigma_bytes="HalfNormal(1)",
        corr="LKJ(2)",
        phi="HalfNormal(2)",
        sigma_window="HalfNormal(1)",
    ),
    families={"mu_count": LINE, "mu_bytes": LINE, "corr": ("LKJ",)},
)

_RATES = r"\theta_i \sim \mathrm{Gamma}(\mu\alpha,\ \alpha), \quad \mathrm{Var}(\theta_i) = \mu/\alpha"


ZERO_INFLATED = declared_model(
    "zero_inflated",
    "Windows that are shut",
    "As the model base, but a share of the windows is shut and shows zero whatever the rate: zeros that the "
    "rates do not explain.",
    (
        r"y_{ij} = 0 \text{ with probability } \psi, \text{ otherwise}",
        r"y_{ij} \sim \mathrm{NegBinomial}(\theta_i e_{ij},\ \varphi)",
        _RATES,
    ),
    _ZERO_INFLATED,
    RATE_PARAMETERIZATIONS,
    exact=False,
)
COVARIATES = declared_model(
    "covariates",
    "Rates that follow covariates",
    "As the model base, but columns of the data move the log rate of each window; the rates are those at "
    "the columns' means.",
    (
        r"y_{ij} \sim \mathrm{NegBinomial}(\theta_i\, e^{x_{ij}\beta} e_{ij},\ \varphi), \quad x \text{ "
        r"standardised}",
        _RATES,
    ),
    _COVARIATES,
    RATE_PARAMETERIZATIONS,
    covariates=True,
    exact=False,
)
_WALK = (
    r"d_{it} = \rho\, d_{i,t-1} + \sigma_{\mathrm{drift}} \sqrt{1 - \rho^2}\ \varepsilon_{it}, \quad d_{i1} "
    r"\sim \mathrm{Normal}(0, \sigma_{\mathrm{drift}})"
)
DRIFT = declared_model(
    "drift",
    "Rates that drift",
    "Each entity's log rate wanders around its own level from window to window; given the rate, counts are "
    "Poisson, because drift and over-dispersion are hard to tell apart.",
    (r"y_{it} \sim \mathrm{Poisson}(\theta_i\, e^{d_{it}} e_{it})", _WALK, _RATES),
    _DRIFT,
    ("noncentered", "centered"),
    exact=False,
)
DRIFT_DISPERSED = declared_model(
    "drift_dispersed",
    "Rates that drift, over-dispersed counts",
    "As the model drift, with over-dispersed windows: only for entities with 30 windows and more, which can "
    "tell the two apart.",
    (r"y_{it} \sim \mathrm{NegBinomial}(\theta_i\, e^{d_{it}} e_{it},\ \varphi)", _WALK, _RATES),
    _DRIFT_DISPERSED,
    ("noncentered", "centered"),
    exact=False,
)
JOINT = declared_model(
    "joint",
    "Counts and bytes together",
    "Each entity has a rate and a level of bytes, and the two go with each other: what is seen of one tells "
    "of the other.",
    (
        r"y_{ij} \sim \mathrm{NegBinomial}(e^{a_i} e_{ij},\ \varphi)",
        r"b_{ij} \sim \mathrm{LogNormal}(c_i + \log e_{ij},\ \sigma)",
        r"(a_i, c_i) \sim \mathrm{Normal}\left((\mu_a, \mu_c),\ \Sigma\right)",
        r"\Sigma_{ac} = \rho_{ac}\, \sigma_a \sigma_c, \quad \rho_{ac} \sim \mathrm{LKJ}(\eta)",
    ),
    _JOINT,
    ("centered", "noncentered"),
    exact=False,
)

#: In the order in which they are offered.
EXTENSIONS: tuple[Model, ...] = (ZERO_INFLATED, COVARIATES, DRIFT, DRIFT_DISPERSED, JOINT)
