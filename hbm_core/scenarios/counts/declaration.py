"""How a model of counts is declared: default priors that follow the data's scale, families, its structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from hbm_core.models.dataset import Dataset, once
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios.base import Model, chosen_priors, no_constants, refuse_options, scaled
from hbm_core.scenarios.counts.data import entity_codes, has_trials

#: Families of parameters that must be positive and whose posterior is improper, or hardly proper, when flat.
POSITIVE = (
    "HalfNormal",
    "HalfCauchy",
    "HalfStudentT",
    "Exponential",
    "Gamma",
    "InverseGamma",
    "LogNormal",
    "Uniform",
)
LINE = ("Normal", "StudentT", "Uniform")
#: Mean rate that the default priors were written for, and the factor within which they stay as they are.
_RATE, _NEAR = 5.0, 10.0


@once
def prior_scale(dataset: Dataset) -> float:
    """What rates are multiplied by in the default priors: exactly 1 for data on the scale they were made for.

    Mean raw rates from 0.5 to 50 keep the priors; beyond, their numbers follow the ratio to 5, to one digit.
    """
    table = dataset.table
    if has_trials(table):
        return 1.0
    exposure = table["exposure"].to_numpy(float) if "exposure" in table else np.ones(len(table))
    code = entity_codes(dataset)[0]
    # Half an event more in all: data without any have a scale, too.
    rates = (np.bincount(code, table["count"]) + 0.5 / (code.max() + 1)) / np.bincount(code, exposure)
    ratio = float(rates.mean()) / _RATE
    return 1.0 if 1 / _NEAR <= ratio <= _NEAR else float(f"{ratio:.0e}")


@dataclass(frozen=True)
class Declaration:
    """A model of counts.

    Parameters
    ----------
    structure : callable
        ``(dataset, covariates) -> structure``.
    priors : mapping of str to Prior
        Defaults, for mean rates near 5.
    powers : mapping of str to float
        With which power of the data's scale a parameter grows: 1 for rates, -1 for their inverses.
    families : mapping of str to tuple of str
        Offered per parameter.
    """

    structure: Callable[[Dataset, Sequence[str]], Any]
    priors: Mapping[str, Prior]
    powers: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def offered(self) -> Mapping[str, tuple[str, ...]]:
        """Families per parameter: those of positive parameters unless declared otherwise."""
        return MappingProxyType({name: self.families.get(name, POSITIVE) for name in self.priors})

    def rescaled(self, priors: Mapping[str, Prior], dataset: Dataset) -> dict[str, Prior]:
        """`priors`, for rates near 5, on the scale of `dataset`."""
        factor = prior_scale(dataset)
        return {name: scaled(prior, factor ** self.powers.get(name, 0.0)) for name, prior in priors.items()}

    def default_priors(self, dataset: Dataset, covariates: Sequence[str] = ()) -> dict[str, Prior]:
        """Default priors for these data."""
        return self.rescaled(self.priors, dataset)

    def spec(
        self,
        dataset: Dataset,
        priors: Mapping[str, Prior] | None = None,
        constants: Mapping[str, float] | None = None,
        covariates: Sequence[str] | None = None,
        parameterization: str | None = None,
    ) -> ModelSpec[Any]:
        """The model of these data; what is absent takes the default.

        Raises
        ------
        InputError
            Data of the other kind; an unknown prior; a constant; a family that is not offered.
        """
        refuse_options(constants)
        structure = self.structure(dataset, covariates or ())
        chosen = chosen_priors(self.default_priors(dataset), priors, self.offered)
        return ModelSpec(structure, chosen, {}, parameterization or structure.parameterizations[0])


def declared_model(
    id: str,
    label: str,
    summary: str,
    formula: tuple[str, ...],
    declared: Declaration,
    parameterizations: tuple[str, ...],
    covariates: bool = False,
    exact: bool = True,
) -> Model:
    """A model of the scenario from its declaration."""
    return Model(
        id,
        label,
        summary,
        formula,
        spec=declared.spec,
        priors=declared.default_priors,
        constants=no_constants,
        parameterizations=parameterizations,
        families=declared.offered,
        exact=exact,
        covariates=covariates,
    )
