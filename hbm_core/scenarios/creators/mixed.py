"""Models of creators in segments (`crossed`) and over periods (`drift`), declared; how tables become them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.models.gaussian_mixed import GAUSSIAN_MIXED_PARAMETERIZATIONS, GaussianMixed
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios.base import Model, chosen_priors, no_constants, read_priors, refuse_options, scaled
from hbm_core.scenarios.creators.data import LEVELS, periods

#: Families of priors: everything is Gaussian given the spreads, and few segments say little about theirs.
_POSITIVE = (
    "HalfNormal",
    "HalfCauchy",
    "HalfStudentT",
    "Exponential",
    "Gamma",
    "InverseGamma",
    "LogNormal",
    "Uniform",
)
#: Fewest segments and periods; most rows.
_FEWEST = {"segment": 2, "period": 3}
_MOST = 200_000
_STRUCTURES: WeakKeyDictionary[Dataset, dict[str, GaussianMixed]] = WeakKeyDictionary()

#: Symbols and words of the parameters, for the prior panel and the tables.
PARAMETER_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "sigma_segment": (r"\sigma_{\mathrm{segment}}", "spread of what segments add in all genres"),
        "sigma_interaction": (
            r"\sigma_{\mathrm{interaction}}",
            "spread of what a genre has of its own in a segment",
        ),
        "sigma_drift": (r"\sigma_{\mathrm{drift}}", "spread of a genre's steps from period to period"),
        "contrast": (r"a_g + b_s + c_{g,s}", "mean effect of a genre in a segment less the overall mean"),
        "change": (r"\mu_{g,t} - \mu_{g,1}", "change of a genre's mean effect since the first period"),
    }
)


def structure(dataset: Dataset, column: str) -> GaussianMixed:
    """The data as creators in genres measured in slots; the same object for the same data set.

    Where a creator has several rows in a slot, as with segments and periods both, they are combined by
    precision.

    Parameters
    ----------
    dataset : Dataset
        Summaries.
    column : {"segment", "period"}
        What is a slot.

    Raises
    ------
    InputError
        No such column, too few slots, or too many rows.
    """
    kept = _STRUCTURES.setdefault(dataset, {})
    if column not in kept:
        kept[column] = _structure(dataset, column)
    return kept[column]


def _structure(dataset: Dataset, column: str) -> GaussianMixed:
    table, model = dataset.table, "crossed" if column == "segment" else "drift"
    found = table[column].nunique() if column in table else 0
    if found < _FEWEST[column]:
        raise InputError(
            f"data for the model {model}",
            f"a column {column} with at least {_FEWEST[column]} {column}s, a row per creator and {column}",
            f"{found} {column}s" if column in table else f"none ({', '.join(table.columns[:6])}, …)",
            f"The data set {column}s has it, and so have simulated data with {column}s above 1.",
        )
    if len(table) > _MOST:
        raise InputError(f"data for the model {model}", f"at most {_MOST:,} rows", f"{len(table):,}")
    slots = periods(table) if column == "period" else tuple(sorted(table[column].unique().tolist()))
    small = table[["genre", "creator", column, "effect", "se"]]
    if small.duplicated(["creator", column]).any():
        weight = small["se"] ** -2.0
        parts = small.assign(weight=weight, value=weight * small["effect"])
        keys = ["genre", "creator", column]
        small = parts.groupby(keys, sort=False, as_index=False)[["weight", "value"]].sum()
        small = small.assign(effect=small["value"] / small["weight"], se=small["weight"] ** -0.5)
    place = {name: k for k, name in enumerate(slots)}
    group, groups = pd.factorize(small["genre"])
    member, members = pd.factorize(small["creator"])
    slot = small[column].map(place).to_numpy()
    return GaussianMixed(
        small["effect"].to_numpy(),
        small["se"].to_numpy(),
        group,
        tuple(f"{creator} × {name}" for creator, name in zip(small["creator"], small[column], strict=True)),
        tuple(map(str, groups)),
        LEVELS,
        member=member,
        slot=np.asarray(slot, dtype=np.int32),
        members=tuple(map(str, members)),
        slots=slots,
        slot_level=column,
        walk=column == "period",
    )


@dataclass(frozen=True)
class MixedDeclaration:
    """A Gaussian mixed model with its default priors, in the simulator's units."""

    column: str
    priors: Mapping[str, Prior]

    @property
    def families(self) -> Mapping[str, tuple[str, ...]]:
        """Families offered per parameter."""
        return MappingProxyType({name: ("Normal",) if name == "mu" else _POSITIVE for name in self.priors})

    def default_priors(self, dataset: Dataset, covariates: Sequence[str] = ()) -> dict[str, Prior]:
        """Default priors for these data."""
        from hbm_core.scenarios.creators.models import prior_scale

        factor = prior_scale(dataset)
        return {name: scaled(prior, factor) for name, prior in self.priors.items()}

    def spec(
        self,
        dataset: Dataset,
        priors: Mapping[str, Prior] | None = None,
        constants: Mapping[str, float] | None = None,
        covariates: Sequence[str] | None = None,
        parameterization: str | None = None,
    ) -> ModelSpec[GaussianMixed]:
        """The model of these data; what is absent takes the default.

        Raises
        ------
        InputError
            Data without the column; an unknown prior; a constant or covariate; a family that is not offered.
        """
        refuse_options(constants, covariates)
        chosen = chosen_priors(self.default_priors(dataset), priors, self.families)
        geometry = parameterization or GAUSSIAN_MIXED_PARAMETERIZATIONS[0]
        return ModelSpec(structure(dataset, self.column), chosen, {}, geometry)


def _model(id: str, label: str, summary: str, formula: tuple[str, ...], declared: MixedDeclaration) -> Model:
    return Model(
        id,
        label,
        summary,
        formula,
        spec=declared.spec,
        priors=declared.default_priors,
        constants=no_constants,
        parameterizations=GAUSSIAN_MIXED_PARAMETERIZATIONS,
        families=declared.families,
        needs=f"a column {declared.column} with at least {_FEWEST[declared.column]} {declared.column}s",
    )


_DATA = r"d_{i,s} \sim \mathrm{Normal}(\theta_{i,s}, \mathrm{SE}_{i,s}), \quad \mathrm{SE} \text{ known}"
_CREATOR = r"u_i \sim \mathrm{Normal}(0, \sigma_{\mathrm{creator}})"

CROSSED = _model(
    "crossed",
    "Genres crossed with segments",
    "A creator's effect in a segment is what its genre, the segment and both together add, and a deviation "
    "of its own. Zero-mean effects like these are told apart by their priors alone, so their sums and "
    "differences are reported. Needs a column segment.",
    (
        _DATA,
        r"\theta_{i,s} = \mu + a_{g(i)} + b_s + c_{g(i),s} + u_i, \quad " + _CREATOR,
        r"a_g \sim \mathrm{Normal}(0, \sigma_{\mathrm{genre}}), \quad "
        r"b_s \sim \mathrm{Normal}(0, \sigma_{\mathrm{segment}})",
        r"c_{g,s} \sim \mathrm{Normal}(0, \sigma_{\mathrm{interaction}})",
    ),
    MixedDeclaration(
        "segment",
        read_priors(
            mu="Normal(0, 1)",
            sigma_genre="HalfNormal(1)",
            sigma_segment="HalfNormal(0.5)",
            sigma_interaction="HalfNormal(0.5)",
            sigma_creator="HalfNormal(1)",
        ),
    ),
)

DRIFT = _model(
    "drift",
    "Genres that drift",
    "A genre's mean effect walks from period to period, and creators keep their deviation from it. "
    "Needs a column period.",
    (
        _DATA.replace(",s}", ",t}"),
        r"\theta_{i,t} = \mu_{g(i),t} + u_i, \quad " + _CREATOR,
        r"\mu_{g,1} \sim \mathrm{Normal}(\mu, \sigma_{\mathrm{genre}}), \quad "
        r"\mu_{g,t} \sim \mathrm{Normal}(\mu_{g,t-1}, \sigma_{\mathrm{drift}})",
    ),
    MixedDeclaration(
        "period",
        read_priors(
            mu="Normal(0, 1)",
            sigma_genre="HalfNormal(1)",
            sigma_drift="HalfNormal(0.3)",
            sigma_creator="HalfNormal(1)",
        ),
    ),
)

MIXED = (CROSSED, DRIFT)
#: Built-in data: label and simulator knobs.
BUILT_IN: Mapping[str, tuple[str, Mapping[str, object]]] = MappingProxyType(
    {
        "segments": (
            "500 creators in 4 segments, simulated",
            {"segments": 4, "level": "summaries"},
        ),
        "periods": ("500 creators over 8 weeks, simulated", {"periods": 8, "level": "summaries"}),
    }
)
