"""The models of the scenario `circuits`, declared: pooling, noise, prior of Σ, default priors, roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.circuits import CIRCUIT_PARAMETERIZATIONS, FLOOR, CircuitPopulation, Noise, Pooling, Role
from hbm_core.models.dataset import Dataset
from hbm_core.models.kinetics.catalogue import PARAMETERS
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios.base import Model, Preset, chosen_priors, read_priors, refuse_options
from hbm_core.scenarios.circuits.data import ROLES, structure

#: Roles by their number in a study.
ROLE_NUMBERS: tuple[Role, ...] = ("fitted", "shared", "fixed")
#: What is not a mean of a parameter.
PRIORS: Mapping[str, Prior] = read_priors(
    sigma="LogNormal(-1.3863, 0.5)",
    corr="LKJ(2)",
    noise="LogNormal(-1.2, 1)",
    exponent="Normal(0.75, 0.25)",
    gain="HalfNormal(0.1)",
    slope="LogNormal(0, 2)",
    offset="Normal(0, 100)",
    reading_sd="HalfNormal(100)",
)
#: Medians that measured data want instead of the published ones.
TXTL: Mapping[str, float] = {"k_tl_unbound_toehold": 7e-5, "k_tl_bound_toehold": 5e-4}
_POSITIVE = ("LogNormal", "HalfNormal", "HalfStudentT", "HalfCauchy", "Exponential", "Gamma", "InverseGamma")
_LINE = ("Normal", "StudentT", "Uniform")
_FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{f"alpha[{name}]": ("Normal",) for name in PARAMETERS},
        **dict.fromkeys(("sigma", "noise", "gain", "slope", "reading_sd"), _POSITIVE),
        "corr": ("LKJ",),
        "exponent": _LINE,
        "offset": _LINE,
    }
)
#: Structures per data set: fits of single circuits and compiled tables hang on them.
_STRUCTURES: WeakKeyDictionary[Dataset, dict[object, CircuitPopulation]] = WeakKeyDictionary()


def alpha_prior(name: str, median: float | None = None) -> Prior:
    """Prior of a parameter's mean, log10: its declared median, or another one, and its declared sd."""
    declared = PARAMETERS[name]
    return Prior("Normal", (float(f"{np.log10(median or declared.median):.6g}"), declared.sd))


@dataclass(frozen=True)
class Declaration:
    """A model of circuits.

    Parameters
    ----------
    pooling, noise, covariance
        As of `CircuitPopulation`.
    """

    pooling: Pooling = "full"
    noise: Noise = "power"
    covariance: Literal["lkj", "inverse_wishart"] = "lkj"

    def structure(self, dataset: Dataset, roles: Mapping[str, Role] = ROLES) -> CircuitPopulation:
        """The data as circuits of one population; the same object for the same data, model and roles."""
        known, key = _STRUCTURES.setdefault(dataset, {}), (self, tuple(sorted(roles.items())))
        if key not in known:
            made = structure(dataset.table, self.pooling, self.noise, roles, covariance=self.covariance)
            known[key] = made
        return known[key]

    def constants(self, dataset: Dataset) -> dict[str, float]:
        """Default roles, the smooth maximum's width, and what an inverse Wishart needs."""
        return self._constants(self.structure(dataset))

    def _constants(self, made: CircuitPopulation) -> dict[str, float]:
        found = {
            f"role[{name}]": float(ROLE_NUMBERS.index(made.roles.get(name, "fitted")))
            for name in made.declared
        }
        if self.noise != "constant":
            found["floor"] = FLOOR
        if self.covariance == "inverse_wishart":
            found |= {"nu": float(len(made.fitted) + 1), "psi": 1.0}
        return found

    def default_priors(self, dataset: Dataset, covariates: Sequence[str] = ()) -> dict[str, Prior]:
        """Published medians and sds (log10) for the means, and ``PRIORS``; a calibration's on its scale."""
        return self._priors(self.structure(dataset))

    def _priors(self, made: CircuitPopulation) -> dict[str, Prior]:
        found = {f"alpha[{name}]": alpha_prior(name) for name in made.inferred}
        found |= {name: prior for name, prior in PRIORS.items() if name in made.parameters}
        if made.standards.size:
            amount, reading = made.standards.T
            slope, offset = made.standards_line
            off = float(np.std(reading - slope * amount - offset)) or abs(slope)
            middle = float(f"{np.log(max(abs(slope), 1e-300)):.3g}")
            wide = float(f"{10 * off + abs(offset):.1g}")
            found["slope"] = Prior("LogNormal", (middle, 1.0))
            found |= {
                "offset": Prior("Normal", (0.0, wide)),
                "reading_sd": Prior("HalfNormal", (float(f"{5 * off:.1g}"),)),
            }
        return found

    def spec(
        self,
        dataset: Dataset,
        priors: Mapping[str, Prior] | None = None,
        constants: Mapping[str, float] | None = None,
        covariates: Sequence[str] | None = None,
        parameterization: str | None = None,
    ) -> ModelSpec[CircuitPopulation]:
        """The model of these data; what is absent takes the default.

        Raises
        ------
        InputError
            Covariates; a constant that is unknown or out of its bounds; an unknown prior, or a family that is
            not offered; nothing that is fitted.
        """
        refuse_options(covariates=covariates)
        given = dict(constants or {})
        made = self.structure(dataset, self._roles(dataset, given))
        known = self._constants(made)
        for name, value in given.items():
            if name not in known:
                raise InputError("model constant", "one of " + ", ".join(known), repr(name))
            known[name] = float(value)
        self._check(made, known)
        chosen = chosen_priors(self._priors(made), priors, _FAMILIES)
        for name in chosen:
            if name.startswith("alpha[") and name not in made.parameters and name in _FAMILIES:
                raise InputError(
                    f"prior on {name}", "none: it is fixed or no circuit uses it", chosen[name].text
                )
        return ModelSpec(made, chosen, known, parameterization or made.parameterizations[0])

    def _roles(self, dataset: Dataset, given: Mapping[str, float]) -> dict[str, Role]:
        made = self.structure(dataset)
        roles = dict(made.roles)
        for name in made.declared:
            value = given.get(f"role[{name}]")
            if value is None:
                continue
            if value not in (0, 1, 2):
                raise InputError(f"constant role[{name}]", "0 (fitted), 1 (shared) or 2 (fixed)", value)
            roles[name] = ROLE_NUMBERS[int(value)]
        return {name: role for name, role in roles.items() if role != "fitted"}

    def _check(self, made: CircuitPopulation, constants: Mapping[str, float]) -> None:
        size = len(made.fitted)
        for name, least in (("floor", 0.0), ("nu", size - 1.0), ("psi", 0.0)):
            value = constants.get(name, least + 1)
            if not (np.isfinite(value) and value > least):
                raise InputError(f"constant {name}", f"a number above {least:g}", value)


def _model(id: str, label: str, summary: str, prior: str, declared: Declaration) -> Model:
    """A model of the scenario from its declaration."""
    sd = {
        "power": r"\sigma_0 (g_k m)^{\gamma}, \quad \log g_k \sim \mathrm{Normal}(0,\ s)",
        "constant": r"\sigma_0",
        "heteroscedastic": r"\sigma_0 \sqrt{m}",
        "proportional": r"\sigma_0 m",
    }[declared.noise]
    gain = "g_k " if declared.noise == "power" else ""
    return Model(
        id,
        label,
        summary,
        (
            rf"y_{{kt}} \sim \mathrm{{Normal}}({gain}f(\theta_c, t),\ \mathrm{{sd}})",
            rf"\mathrm{{sd}} = {sd}",
            prior,
            r"\alpha_p \sim \mathrm{Normal}(\log_{10}\ \mathrm{median}_p,\ s_p)",
        ),
        spec=declared.spec,
        priors=declared.default_priors,
        constants=declared.constants,
        parameterizations=("noncentered",) if declared.pooling == "shared" else CIRCUIT_PARAMETERIZATIONS,
        families=_FAMILIES,
        exact=False,
        constant_words=_CONSTANT_WORDS,
        blocked="transport" if declared.pooling == "full" and declared.covariance == "lkj" else "",
    )


_CONSTANT_WORDS = {
    "floor": (
        "Floor of the noise's mean",
        "In the outcome's units. The noise is that of (f + √(f² + floor²))/2, which never falls below half "
        "the floor: readings near zero would weigh without end.",
    ),
    "nu": ("ν, degrees of freedom", "Of the inverse Wishart prior of Σ: more hold correlations nearer to 0."),
    "psi": ("ψ, scale", "Of the inverse Wishart prior of Σ, whose scale matrix is ψ times the identity."),
}


_FULL = (
    r"\theta_c \sim \mathrm{Normal}(\alpha,\ \mathrm{diag}(\sigma)\, \Omega\, \mathrm{diag}(\sigma)), \quad "
    r"\Omega \sim \mathrm{LKJ}(\eta)"
)
MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.id: model
        for model in (
            _model(
                "full",
                "Correlated rate constants",
                "Every circuit has rate constants of its own from one population, which also learns how they "
                "move together.",
                _FULL,
                Declaration(),
            ),
            _model(
                "diagonal",
                "Rate constants one by one",
                "As the model full, but a circuit's rate constants tell nothing of each other.",
                r"\theta_{cp} \sim \mathrm{Normal}(\alpha_p,\ \sigma_p)",
                Declaration("diagonal"),
            ),
            _model(
                "shared",
                "One set of rate constants",
                "Complete pooling: all circuits have the same rate constants.",
                r"\theta_{cp} = \alpha_p",
                Declaration("shared"),
            ),
            _model(
                "independent",
                "Each circuit by itself",
                "No pooling: every circuit's rate constants come from the prior, whatever the others show.",
                r"\theta_{cp} \sim \mathrm{Normal}(\log_{10}\ \mathrm{median}_p,\ s_p)",
                Declaration("independent"),
            ),
            _model(
                "constant",
                "The same noise everywhere",
                "As the model full, with readings equally noisy whatever they are.",
                _FULL,
                Declaration(noise="constant"),
            ),
            _model(
                "proportional",
                "Noise proportional to the mean",
                "As the model full, with readings noisy by a share of what they are.",
                _FULL,
                Declaration(noise="proportional"),
            ),
            _model(
                "heteroscedastic",
                "Variance proportional to the mean",
                "As the model full, with a variance of the readings that grows with their mean.",
                _FULL,
                Declaration(noise="heteroscedastic"),
            ),
            _model(
                "inverse_wishart",
                "Inverse Wishart instead of LKJ",
                "As the model full, under a prior that ties spreads and correlations together.",
                r"\theta_c \sim \mathrm{Normal}(\alpha,\ \Sigma), \quad \Sigma \sim "
                r"\mathrm{InverseWishart}(\nu,\ \psi I)",
                Declaration(covariance="inverse_wishart"),
            ),
        )
    }
)


def _medians(medians: Mapping[str, float], dataset: Dataset) -> dict[str, Prior]:
    """Priors of the means with other medians, as far as circuits of these data use them."""
    used = Declaration().structure(dataset).inferred
    return {f"alpha[{name}]": alpha_prior(name, medians.get(name)) for name in used if name in TXTL}


PRESETS = (
    Preset("published", "Published medians", partial(_medians, {})),
    Preset("txtl", "What measured TXTL data want", partial(_medians, TXTL)),
)
