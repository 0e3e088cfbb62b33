"""The nine models of the scenario `schools`, declared: hierarchy, default priors, families, formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset, once
from hbm_core.models.families import FAMILIES
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.scenarios.base import Model, Preset, chosen_priors
from hbm_core.scenarios.schools.data import EIGHT_EFFECTS, EIGHT_SES

LINE = ("Normal", "StudentT", "Uniform", "Flat")
POSITIVE = (
    "HalfCauchy",
    "HalfNormal",
    "HalfStudentT",
    "Exponential",
    "Gamma",
    "InverseGamma",
    "LogNormal",
    "Uniform",
    "Flat",
)
DEGREES = ("Gamma", "Exponential", "LogNormal", "InverseGamma", "HalfNormal", "HalfCauchy", "Uniform")
FAMILIES_OFFERED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mu": LINE,
        "tau": POSITIVE,
        "beta": ("Normal", "StudentT", "Uniform"),
        "nu": DEGREES,
        "theta": ("Flat", "Normal", "StudentT"),
    }
)

#: How many moderators enter when nobody names them.
DEFAULT_COVARIATES = 5
#: Degrees of freedom have no unit: their prior never scales.
_UNITLESS = frozenset({"nu"})


def robust_spread(effect: np.ndarray, se: np.ndarray) -> float:
    """√(MAD² + median(s)²), the spread that default priors follow.

    Parameters
    ----------
    effect, se : ndarray (J,)
        In the outcome's units.

    Returns
    -------
    float
        In the outcome's units; MAD is 1.4826 times the median distance of the effects from their median.
    """
    deviation = 1.4826 * np.median(np.abs(effect - np.median(effect)))
    return float(np.hypot(deviation, np.median(se)))


_EIGHT_SPREAD = robust_spread(np.array(EIGHT_EFFECTS), np.array(EIGHT_SES))


@once
def prior_scale(dataset: Dataset) -> float:
    """Spread of the data relative to the eight schools, to two digits; exactly 1 for the eight schools."""
    table = dataset.table
    ratio = robust_spread(table["effect"].to_numpy(), table["se"].to_numpy()) / _EIGHT_SPREAD
    return _rounded(ratio, 2)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")


def scaled(prior: Prior, factor: float) -> Prior:
    """`prior` for an outcome whose spread is `factor` times that of the eight schools, in round numbers."""
    if factor == 1:
        return prior
    numbers = zip(FAMILIES[prior.family].numbers, prior.scaled(factor).numbers, strict=True)
    return Prior(
        prior.family,
        tuple(_rounded(v, 4 if n.scaling == "log" else 2) if n.scaling != "none" else v for n, v in numbers),
    )


def covariate_names(dataset: Dataset) -> tuple[str, ...]:
    """Numeric columns beside unit, effect and se that are complete and not constant."""
    others = dataset.table.drop(columns=["unit", "effect", "se"]).select_dtypes("number")
    return tuple(
        str(name) for name, column in others.items() if np.isfinite(column).all() and column.nunique() > 1
    )


def standardised(values: np.ndarray, name: str) -> np.ndarray:
    """Mean 0 and sd 1 (divisor J).

    Raises
    ------
    InputError
        A value is missing, or the column is constant.
    """
    values = np.asarray(values, dtype=float)
    if missing := int((~np.isfinite(values)).sum()):
        raise InputError(
            f"covariate {name}",
            "a number in every row",
            f"{missing} rows without one",
            "Fill them in, or leave the covariate out.",
        )
    # Dividing first keeps the sum of squares of very large or very small columns finite.
    values = values / max(float(np.abs(values).max()), np.finfo(float).tiny)
    deviation = values - values.mean()
    sd = float(np.sqrt(np.mean(deviation**2)))
    if sd <= 1e-12:
        raise InputError(
            f"covariate {name}", "a column that varies", "the same value in every row", "Leave it out."
        )
    return deviation / sd


@dataclass(frozen=True)
class Declaration:
    """What distinguishes one model: its shape, default priors in SAT points, and constants.

    Parameters
    ----------
    shape : mapping
        Keywords of `TwoLevelNormal` beside the data.
    priors : mapping of str to Prior
        For the eight schools.
    moderators : {"", "precision", "covariates"}
        What enters the mean beside μ.
    constants : mapping of str to (value, scaling)
        For the eight schools; scaling +1 follows the outcome's units, −1 their inverse.
    """

    shape: Mapping[str, Any]
    priors: Mapping[str, Prior]
    moderators: str = ""
    constants: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def default_priors(self, dataset: Dataset, covariates: Sequence[str] = ()) -> dict[str, Prior]:
        """Default priors for these data."""
        factor = prior_scale(dataset)
        return {
            name: prior if name in _UNITLESS else scaled(prior, factor) for name, prior in self.priors.items()
        }

    def default_constants(self, dataset: Dataset) -> dict[str, float]:
        """Default constants for these data."""
        factor = prior_scale(dataset)
        return {
            name: value if factor == 1 else _rounded(value * factor**power, 2)
            for name, (value, power) in self.constants.items()
        }

    def structure(self, dataset: Dataset, covariates: Sequence[str] = ()) -> TwoLevelNormal:
        """The data in the model's shape."""
        table = dataset.table
        se = table["se"].to_numpy()
        columns: tuple[str, ...] = ()
        design = np.empty((len(table), 0))
        if covariates and self.moderators != "covariates":
            raise InputError(
                "covariates", "none for this model", ", ".join(covariates), "Use model covariates."
            )
        if self.moderators == "precision":
            columns = ("precision",)
            # Relative to the smallest se, so that 1/s² cannot overflow.
            design = standardised((se.min() / se) ** 2, "precision")[:, None]
        elif self.moderators == "covariates":
            columns = tuple(covariates) or covariate_names(dataset)[:DEFAULT_COVARIATES]
            design = _design(dataset, columns)
        return TwoLevelNormal(
            table["effect"].to_numpy(), se, tuple(table["unit"]), design=design, columns=columns, **self.shape
        )

    def spec(
        self,
        dataset: Dataset,
        priors: Mapping[str, Prior] | None = None,
        constants: Mapping[str, float] | None = None,
        covariates: Sequence[str] | None = None,
        parameterization: str | None = None,
    ) -> ModelSpec:
        """The model of these data; what is absent takes the default.

        Raises
        ------
        InputError
            An unknown prior, constant or covariate; a family that is not offered for its parameter.
        """
        structure = self.structure(dataset, covariates or ())
        offered = {name: FAMILIES_OFFERED[name] for name in structure.parameters}
        chosen = chosen_priors(self.default_priors(dataset), priors, offered)
        numbers = {**self.default_constants(dataset), **(constants or {})}
        for name, value in numbers.items():
            if name not in self.constants:
                known = ", ".join(self.constants) or "none for this model"
                raise InputError("model constant", known, repr(name))
            if not (np.isfinite(value) and 0 < value < 1e100):
                raise InputError(f"model constant {name}", "a positive finite number", value)
        default = default_parameterizations(structure)[0]
        return ModelSpec(structure, chosen, numbers, parameterization or default)


def _design(dataset: Dataset, columns: tuple[str, ...]) -> np.ndarray:
    numeric = dataset.table.select_dtypes("number").columns.difference(["effect", "se"])
    if not columns:
        raise InputError(
            "model covariates",
            "data with a numeric column that varies, beside unit, effect and se",
            f"the columns {', '.join(dataset.table.columns)}",
            "Choose another model, or add a column.",
        )
    for place, name in enumerate(columns):
        if name not in numeric or name in columns[:place]:
            known = ", ".join(covariate_names(dataset)) or "none in these data"
            raise InputError("covariate", f"different numeric columns ({known})", repr(name))
    return np.column_stack([standardised(dataset.table[name].to_numpy(), name) for name in columns])


def default_parameterizations(structure: TwoLevelNormal) -> tuple[str, ...]:
    """What applies to a structure, the default first."""
    known = structure.parameterizations
    return tuple(sorted(known, key=lambda name: name != "noncentered"))


def _declared(
    id: str, label: str, summary: str, formula: tuple[str, ...], declaration: Declaration, exact: bool = True
) -> Model:
    columns: dict[str, Any] = (
        {"columns": ("x",), "design": np.zeros((1, 1))} if declaration.moderators else {}
    )
    shape = TwoLevelNormal(np.zeros(1), np.ones(1), ("x",), **columns, **declaration.shape)
    return Model(
        id,
        label,
        summary,
        formula,
        spec=declaration.spec,
        priors=declaration.default_priors,
        constants=declaration.default_constants,
        parameterizations=default_parameterizations(shape),
        families=MappingProxyType({name: FAMILIES_OFFERED[name] for name in shape.parameters}),
        exact=exact,
        covariates=declaration.moderators == "covariates",
        constant_words=_CONSTANT_WORDS,
    )


_CONSTANT_WORDS = {
    "threshold": ("t, threshold", "Where τ starts to bend: well above it the effects spread by τ itself."),
    "spread": ("σ_p, spread", "Well below the threshold the effects spread by σ_p τ / t."),
    "slope": ("k, slope", "How sharply τ bends at the threshold: w = sigmoid(k (τ − t))."),
}


_read = Prior.parse
_WEAK = {"mu": _read("Normal(0, 20)"), "tau": _read("HalfCauchy(10)")}
_HEAVY = {**_WEAK, "nu": _read("Gamma(2, 0.1)")}
_MODERATED = {**_WEAK, "beta": _read("Normal(0, 10)")}
_LIKELIHOOD = r"y_i \sim \mathrm{Normal}(\theta_i, s_i), \quad s_i \text{ known}"
_EFFECTS = r"\theta_i \sim \mathrm{Normal}(\mu, \tau)"
_weak = Declaration({}, _WEAK)

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.id: model
        for model in (
            _declared(
                "weak",
                "Partial pooling, weak priors",
                "Units differ around a common mean, and the data decide by how much.",
                (_LIKELIHOOD, _EFFECTS),
                _weak,
            ),
            _declared(
                "skeptical",
                "Partial pooling, skeptical priors",
                "The same hierarchy, for someone fairly sure of the common effect (near 8 SAT points), who "
                "expects small differences: both priors pull harder.",
                (_LIKELIHOOD, _EFFECTS),
                replace(_weak, priors={"mu": _read("Normal(8, 5)"), "tau": _read("HalfNormal(5)")}),
            ),
            _declared(
                "adaptive",
                "Adaptive pooling",
                "The effects spread by τ*, which bends τ at a threshold; this is NOT a reparameterization: "
                "the prior on the effective scale τ* differs from the prior on τ.",
                (
                    _LIKELIHOOD,
                    r"\theta_i = \mu + \tau^* \eta_i, \quad \eta_i \sim \mathrm{Normal}(0, 1)",
                    r"\tau^* = w \tau + (1 - w)\, \sigma_p \tau / t, \quad w = \mathrm{sigmoid}(k(\tau - t))",
                ),
                replace(
                    _weak,
                    shape={"scale": "adaptive"},
                    constants={"threshold": (3.0, 1), "spread": (4.0, 1), "slope": (2.0, -1)},
                ),
            ),
            _declared(
                "complete",
                "Complete pooling",
                "All units share one effect: their differences are noise.",
                (_LIKELIHOOD, r"\theta_i = \mu"),
                Declaration({"pooling": "complete"}, {"mu": _read("Normal(0, 20)")}),
            ),
            _declared(
                "none",
                "No pooling",
                "Each unit stands alone: nothing is learned from the others.",
                (_LIKELIHOOD, r"\theta_i \text{ independent, each with its own prior}"),
                Declaration({"pooling": "none"}, {"theta": _read("Flat()")}),
            ),
            _declared(
                "robust",
                "Robust to wrong measurements",
                "Measurements may miss by more than their standard errors say: a Student t likelihood.",
                (r"y_i \sim \mathrm{StudentT}(\nu, \theta_i, s_i), \quad s_i \text{ known}", _EFFECTS),
                Declaration({"likelihood": "student_t"}, _HEAVY),
            ),
            _declared(
                "robust_effects",
                "Robust to outlying units",
                "A few units may truly differ from the rest: Student t effects, which pull them in less.",
                (_LIKELIHOOD, r"\theta_i \sim \mathrm{StudentT}(\nu, \mu, \tau)"),
                Declaration({"effects": "student_t"}, _HEAVY),
            ),
            _declared(
                "precision",
                "Precision as moderator",
                "Precise studies may report other effects than small ones: precision shifts the mean.",
                (
                    _LIKELIHOOD,
                    r"\theta_i \sim \mathrm{Normal}(\mu + \beta\, p_i, \tau), "
                    r"\quad p_i = \text{standardised } 1/s_i^2",
                ),
                Declaration({}, _MODERATED, "precision"),
            ),
            _declared(
                "covariates",
                "Covariates as moderators",
                "What is known about the units shifts their mean, and pooling acts on what is left.",
                (
                    _LIKELIHOOD,
                    r"\theta_i \sim \mathrm{Normal}(\mu + X_i \beta, \tau), \quad X \text{ standardised}",
                ),
                Declaration({}, _MODERATED, "covariates"),
            ),
        )
    }
)


def _preset(texts: Mapping[str, str], dataset: Dataset) -> dict[str, Prior]:
    factor = prior_scale(dataset)
    return {name: scaled(Prior.parse(text), factor) for name, text in texts.items()}


PRESETS = (
    Preset("weak", "Weak", partial(_preset, {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)"}), "weak"),
    Preset(
        "skeptical",
        "Skeptical",
        partial(_preset, {"mu": "Normal(8, 5)", "tau": "HalfNormal(5)"}),
        "skeptical",
    ),
    Preset(
        "nearly_none",
        "Nearly no pooling",
        partial(_preset, {"mu": "Normal(0, 20)", "tau": "LogNormal(4.605, 0.1)"}),
    ),
)
