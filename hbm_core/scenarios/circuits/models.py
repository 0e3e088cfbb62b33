"""The models of the scenario `circuits`: four pooling levels with their default priors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios.circuits.data import structure

#: What is not a mean of a parameter.
PRIORS: Mapping[str, Prior] = {
    name: Prior.parse(text)
    for name, text in {
        "sigma": "LogNormal(-1.3863, 0.5)",
        "corr": "LKJ(2)",
        "noise": "LogNormal(-1.2, 1)",
        "exponent": "Normal(0.75, 0.25)",
        "gain": "HalfNormal(0.1)",
        "slope": "LogNormal(0, 2)",
        "offset": "Normal(0, 100)",
        "reading_sd": "HalfNormal(100)",
    }.items()
}
#: Medians that measured data want instead of the published ones.
TXTL: Mapping[str, float] = {"k_tl_unbound_toehold": 7e-5, "k_tl_bound_toehold": 5e-4}


def default_priors(made: CircuitPopulation, medians: Mapping[str, float] | None = None) -> dict[str, Prior]:
    """Published medians and sds (log10) for the means, `medians` where given, and ``PRIORS``."""
    chosen = medians or {}
    found = {
        f"alpha[{name}]": Prior(
            "Normal",
            (
                float(f"{np.log10(chosen.get(name, made.declared[name].median)):.6g}"),
                made.declared[name].sd,
            ),
        )
        for name in made.inferred
    }
    return found | {name: prior for name, prior in PRIORS.items() if name in made.parameters}


def spec_of(
    dataset: Dataset,
    pooling: str = "full",
    priors: Mapping[str, Prior] | None = None,
    parameterization: str | None = None,
    noise: str = "power",
    preset: str = "published",
) -> ModelSpec[CircuitPopulation]:
    """The model of these data at one pooling level; what is absent takes the default.

    Raises
    ------
    InputError
        An unknown preset, or a prior on a mean that is not Normal.
    """
    if preset not in ("published", "txtl"):
        raise InputError("preset", "published or txtl", repr(preset))
    made = structure(dataset.table, pooling, noise)  # type: ignore[arg-type]
    chosen = default_priors(made, TXTL if preset == "txtl" else None) | dict(priors or {})
    for name, prior in chosen.items():
        if name.startswith("alpha[") and prior.family != "Normal":
            raise InputError(f"prior on {name}", "Normal(median, sd) of log10", prior.text)
    return ModelSpec(made, chosen, {}, parameterization or made.parameterizations[0])
