"""What the PyMC models of counts share: priors as data, and a gamma population of rates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from hbm_core.models.pymc_model import random_variable
from hbm_core.models.structure import ModelSpec


def spec_key(spec: ModelSpec[Any], *more: Hashable) -> Hashable:
    """What decides the compiled code: structure, geometry, families, entities, and what is given."""
    families = tuple((name, prior.family) for name, prior in spec.priors.items())
    structure = spec.structure
    return (type(structure).__name__, spec.parameterization, families, len(structure.units), *more)


def prior_values(spec: ModelSpec[Any]) -> dict[str, np.ndarray]:
    """Numbers of the priors by the name of their ``pm.Data``."""
    return {f"prior_{name}": np.array(prior.numbers) for name, prior in spec.priors.items()}


def declared(
    spec: ModelSpec[Any], values: Mapping[str, np.ndarray], dims: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All data, and a variable for each parameter with a prior; to be called within a model.

    Correlations are left to the model. `dims` names the dimension of parameters that are vectors.
    """
    import pymc as pm

    data = {name: pm.Data(name, value) for name, value in values.items()}
    positive = spec.structure.positive
    drawn = {
        name: random_variable(
            name, prior, data[f"prior_{name}"], name in positive, dims=(dims or {}).get(name)
        )
        for name, prior in spec.priors.items()
        if prior.family != "LKJ"
    }
    return data, drawn


def gamma_rates(mu: Any, alpha: Any, scaled: bool) -> Any:
    """``theta`` (unit) ~ Gamma(μα, α), moved itself or, scaled, as ``z`` = αθ; within a model."""
    import pymc as pm

    if scaled:
        return pm.Deterministic("theta", pm.Gamma("z", mu * alpha, 1.0, dims="unit") / alpha, dims="unit")
    return pm.Gamma("theta", mu * alpha, alpha, dims="unit")
