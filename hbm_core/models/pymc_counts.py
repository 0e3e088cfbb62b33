"""What the PyMC models of counts share: priors as data, a gamma population of rates, moved or integrated."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from hbm_core.models.pymc_model import random_variable
from hbm_core.models.structure import ModelSpec


def spec_key(spec: ModelSpec[Any], *more: Hashable) -> Hashable:
    """What decides the compiled code: structure, geometry, families, and what is given.

    The count of entities, too, where the sampler moves their rates.
    """
    families = tuple((name, prior.family) for name, prior in spec.priors.items())
    structure = spec.structure
    size = None if collapsed(spec) else len(structure.units)
    return (type(structure).__name__, spec.parameterization, families, size, *more)


def collapsed(spec: ModelSpec[Any]) -> bool:
    """Whether the rates are integrated out."""
    return spec.parameterization == "collapsed"


def unit_coords(spec: ModelSpec[Any]) -> dict[str, list[str]]:
    """Coordinates of a model: entities where the sampler moves their rates."""
    return {} if collapsed(spec) else {"unit": list(spec.structure.units)}


def prior_values(spec: ModelSpec[Any]) -> dict[str, np.ndarray]:
    """Numbers of the priors by the name of their ``pm.Data``."""
    return {f"prior_{name}": np.array(prior.numbers) for name, prior in spec.priors.items()}


def histogram_values(count: np.ndarray) -> dict[str, np.ndarray]:
    """Distinct counts and how often each occurs, as `rising` takes them."""
    value, times = np.unique(count, return_counts=True)
    return {"value": value, "times": times.astype(float)}


def class_values(
    entity: np.ndarray, columns: Mapping[str, np.ndarray], design: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Groups of windows as `rates_integrated` takes them; entities with the same groups are counted.

    Parameters
    ----------
    entity : ndarray (G,) of int
        Whose windows; ascending.
    columns : mapping of str to ndarray (G,)
        exposure, windows, total and shut of each group.
    design : ndarray (G, p), optional
        Covariates of each group.
    """
    rows = np.column_stack([*columns.values(), *(() if design is None else (design,))])
    found: dict[bytes, list[Any]] = {}
    for part in np.split(np.arange(entity.size), np.flatnonzero(np.diff(entity)) + 1):
        found.setdefault(rows[part].tobytes(), [part, 0.0])[1] += 1
    places = [part for part, _ in found.values()]
    chosen = np.concatenate(places)
    values = {f"class_{name}": np.asarray(column, float)[chosen] for name, column in columns.items()}
    values["class_starts"] = np.cumsum([0, *map(len, places)])
    values["class_times"] = np.array([times for _, times in found.values()])
    return values if design is None else values | {"class_design": design[chosen]}


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


def gamma_rates(shape: Any, rate: Any, scaled: bool) -> Any:
    """``theta`` (unit) ~ Gamma(shape, rate), moved itself or, scaled, as ``z`` = rate · θ; within a model."""
    import pymc as pm

    if scaled:
        return pm.Deterministic("theta", pm.Gamma("z", shape, 1.0, dims="unit") / rate, dims="unit")
    return pm.Gamma("theta", shape, rate, dims="unit")


def rates_integrated(
    data: Mapping[str, Any], shape: Any, rate: Any, phi: Any, *, psi: Any = 0.0, moved: Any = 0.0, nodes: int
) -> Any:
    """Log of the entities' likelihoods with their Gamma(shape, rate) rates integrated out, summed.

    Without terms that hang on the data and φ alone. `moved` (G,) is what covariates add to log exposure.
    """
    import pytensor.tensor as pt

    from hbm_core.models.rate_op import RateIntegral

    population = pt.stack([shape, rate, phi, psi])
    place = pt.log(data["class_exposure"]) + moved
    tables = (data[f"class_{name}"] for name in ("windows", "total", "shut", "starts", "times"))
    masses = RateIntegral(nodes).make_node(population, place, *tables).outputs[0]
    return masses + pt.sum(data["class_times"]) * (shape * pt.log(rate) - pt.gammaln(shape))


def rising(data: Mapping[str, Any], phi: Any) -> Any:
    """Σ over windows of log Γ(y + φ)/(Γ(φ) φ^y), from the histogram of counts."""
    import pytensor.tensor as pt

    value = data["value"]
    return pt.sum(data["times"] * (pt.gammaln(value + phi) - pt.gammaln(phi) - value * pt.log(phi)))


def falling(data: Mapping[str, Any], mean: Any, phi: Any) -> Any:
    """Σ over groups of windows of log (1 + mean/φ)^−(y + φ)."""
    import pytensor.tensor as pt

    return -pt.sum((data["group_total"] + data["group_windows"] * phi) * pt.log1p(mean / phi))
