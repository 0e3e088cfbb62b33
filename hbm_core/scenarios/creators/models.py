"""The models of the scenario `creators`, declared: hierarchy, default priors, families, formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from hbm_core.models.dataset import Dataset, once
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import THREE_LEVEL_PARAMETERIZATIONS, ThreeLevelNormal
from hbm_core.scenarios.base import (
    Model,
    Preset,
    chosen_priors,
    no_constants,
    read_priors,
    refuse_options,
    scaled,
)
from hbm_core.scenarios.creators.data import structure
from hbm_core.scenarios.creators.hurdle import HURDLE, HURDLE_GAMMA
from hbm_core.scenarios.creators.mixed import MIXED

LINE = ("Normal", "StudentT", "Uniform", "Flat")
POSITIVE = (
    "HalfNormal",
    "HalfCauchy",
    "HalfStudentT",
    "Exponential",
    "Gamma",
    "InverseGamma",
    "LogNormal",
    "Uniform",
    "Flat",
)
FAMILIES_OFFERED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"mu": LINE, "sigma_genre": POSITIVE, "sigma_creator": POSITIVE}
)
#: Spread of raw effects, noise included, that the default priors were written for: the simulator's defaults.
_SPREAD = 0.6
#: Within this factor of it the priors stay as they are written.
_NEAR = 3.0


@once
def prior_scale(dataset: Dataset) -> float:
    """What the default priors are multiplied by: exactly 1 for data on the scale they were written for.

    The spread of the data is √(MAD² + median(s)²), so that neither a shift, nor the order of rows, nor a wild
    creator changes it. Within a factor of 3 of the simulator's spread the priors stay; beyond, their numbers
    follow the ratio, to one digit.
    """
    table = dataset.table
    effect, se = table["effect"].to_numpy(), table["se"].to_numpy()
    deviation = 1.4826 * np.median(np.abs(effect - np.median(effect)))
    ratio = float(np.hypot(deviation, np.median(se))) / _SPREAD
    return 1.0 if 1 / _NEAR <= ratio <= _NEAR else float(f"{ratio:.0e}")


@dataclass(frozen=True)
class Declaration:
    """A three-level normal model with its default priors, in the simulator's units."""

    priors: Mapping[str, Prior]

    def default_priors(self, dataset: Dataset, covariates: Sequence[str] = ()) -> dict[str, Prior]:
        """Default priors for these data."""
        factor = prior_scale(dataset)
        return {name: scaled(prior, factor) for name, prior in self.priors.items()}

    def spec(
        self,
        dataset: Dataset,
        priors: Mapping[str, Prior] | None = None,
        constants: Mapping[str, float] | None = None,
        covariates: Sequence[str] | None = None,
        parameterization: str | None = None,
    ) -> ModelSpec[ThreeLevelNormal]:
        """The model of these data; what is absent takes the default.

        Raises
        ------
        InputError
            An unknown prior; a constant or covariate; a family that is not offered for its parameter.
        """
        refuse_options(constants, covariates)
        chosen = chosen_priors(self.default_priors(dataset), priors, FAMILIES_OFFERED)
        geometry = parameterization or THREE_LEVEL_PARAMETERIZATIONS[0]
        return ModelSpec(structure(dataset), chosen, {}, geometry)


def _read(mu: str, genre: str, creator: str) -> dict[str, Prior]:
    return read_priors(mu=mu, sigma_genre=genre, sigma_creator=creator)


_BASE = Declaration(_read("Normal(0, 1)", "HalfNormal(1)", "HalfNormal(1)"))

BASE = Model(
    "base",
    "Creators in genres",
    "Creators differ around their genre's mean, genres around a common mean; the data decide by how much.",
    (
        r"d_i \sim \mathrm{Normal}(\theta_i, \mathrm{SE}_i), \quad \mathrm{SE}_i \text{ known}",
        r"\theta_i \sim \mathrm{Normal}(\mu_{g(i)}, \sigma_{\mathrm{creator}})",
        r"\mu_g \sim \mathrm{Normal}(\mu, \sigma_{\mathrm{genre}})",
    ),
    spec=_BASE.spec,
    priors=_BASE.default_priors,
    constants=no_constants,
    parameterizations=THREE_LEVEL_PARAMETERIZATIONS,
    families=FAMILIES_OFFERED,
)

#: Learned from an earlier batch: the simulator's 500 creators in 5 genres with seed `EARLIER`.
EARLIER = 2
_LEARNED = Declaration(_read("Normal(0.514, 0.0988)", "LogNormal(-1.83, 0.512)", "LogNormal(-0.912, 0.046)"))

LEARNED = Model(
    "learned",
    "Learned from an earlier batch",
    "As the model base, with what an earlier batch has told about the spreads as priors: worth little where "
    "a batch is large, for then it tells them itself.",
    BASE.formula,
    spec=_LEARNED.spec,
    priors=_LEARNED.default_priors,
    constants=no_constants,
    parameterizations=THREE_LEVEL_PARAMETERIZATIONS,
    families=FAMILIES_OFFERED,
)

MODELS: Mapping[str, Model] = MappingProxyType(
    {model.id: model for model in (BASE, LEARNED, *MIXED, HURDLE, HURDLE_GAMMA)}
)


def _preset(priors: Mapping[str, Prior], dataset: Dataset) -> dict[str, Prior]:
    factor = prior_scale(dataset)
    return {name: scaled(prior, factor) for name, prior in priors.items()}


PRESETS = (
    Preset("default", "Default", partial(_preset, _BASE.priors), "base"),
    Preset(
        "skeptical",
        "Skeptical: little effect, little difference",
        partial(_preset, _read("Normal(0, 0.25)", "HalfNormal(0.2)", "HalfNormal(0.2)")),
        "base",
    ),
    Preset(
        "weak",
        "Weak: almost anything",
        partial(_preset, _read("Normal(0, 10)", "HalfCauchy(1)", "HalfCauchy(1)")),
        "base",
    ),
    Preset(
        "one_genre",
        "Genres alike",
        partial(_preset, _read("Normal(0, 1)", "HalfNormal(0.02)", "HalfNormal(1)")),
        "base",
    ),
)
