"""PyMC models of the hurdle structure in every geometry, by sufficient statistics, with numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from hbm_core.models.hurdle import PARTS, HurdleRevenue
from hbm_core.models.pymc_model import random_variable
from hbm_core.models.pymc_three_level import data_shares, moment_spreads
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[HurdleRevenue]


def approximations(structure: HurdleRevenue) -> dict[str, ThreeLevelNormal]:
    """Each part as a three-level normal structure of rough estimates."""
    return {
        part: ThreeLevelNormal(value, error, structure.group, structure.units, structure.groups)
        for part, (value, error) in structure.estimates().items()
    }


def spreads(structure: HurdleRevenue) -> dict[str, tuple[float, float]]:
    """Moment estimates of each part's spread of units and of groups, kept off 0."""
    return {
        part: (max(unit, 0.05), max(group, 0.05))
        for part, (unit, group) in (
            (part, moment_spreads(rough)) for part, rough in approximations(structure).items()
        )
    }


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code: no numbers but the counts of units and groups."""
    structure = spec.structure
    return (
        type(structure).__name__,
        structure.levels,
        structure.amounts,
        spec.parameterization,
        tuple((name, prior.family) for name, prior in spec.priors.items()),
        structure.effect.size,
        len(structure.groups),
    )


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    values: dict[str, np.ndarray] = {
        "group_of": structure.group,
        "users": structure.users,
        "payers": structure.payers,
    }
    if structure.amounts == "lognormal":
        values["log_mean"], values["log_deviation"] = structure.log_mean, structure.log_deviation
        # What the density of log-normal amounts has beside the parameters: Σ log y + n₊ log √(2π).
        constant = structure.log_sum.sum() + structure.payers.sum() * 0.5 * np.log(2 * np.pi)
        values["constant"] = np.array(constant)
    else:
        values["total"], values["log_sum"] = structure.total, structure.log_sum
    for name, prior in spec.priors.items():
        if prior.numbers:
            values[f"prior_{name}"] = np.array(prior.numbers)
    if spec.parameterization == "partial":
        pairs = [data_shares(rough) for rough in approximations(structure).values()]
        values["share"], values["group_share"] = (np.stack(each) for each in zip(*pairs, strict=True))
    return values


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: the parameters; ``group_value`` (part, group) and ``unit_value`` (part, unit), the means of
    groups and the values of units of each of `PARTS`; ``theta`` (unit); and what the sampler moves instead:
    ``z_group`` and ``eta`` (non-centered), ``group_tilde`` and ``tilde`` (partial).

    Parameters
    ----------
    spec : ModelSpec of HurdleRevenue
        The model.

    Returns
    -------
    pymc.Model
        With coordinates ``part``, ``unit``, ``group`` and ``arm``.
    """
    import pymc as pm
    import pytensor.tensor as pt

    structure = spec.structure
    coords = {"part": PARTS, "unit": list(structure.units), "group": list(structure.groups)}
    with pm.Model(coords=coords) as model:
        data = {name: pm.Data(name, value) for name, value in data_values(spec).items()}
        drawn = {
            name: random_variable(name, prior, data.get(f"prior_{name}"), name in structure.positive)
            for name, prior in spec.priors.items()
        }
        columns = zip(*(structure.names_of(part) for part in PARTS), strict=True)
        mu, among, within = (pt.stack([drawn[name] for name in names])[:, None] for names in columns)
        value = _hierarchies(spec.parameterization, data, mu, among, within)
        odds = pt.stack([value[0], value[0] + value[1]], axis=1)
        amount = pt.stack([value[2], value[2] + value[3]], axis=1)
        residual = drawn[structure.residual]
        # log p = −log(1 + e^−x) and log(1 − p) = −x − log(1 + e^−x): no p is rounded to 0 or 1.
        pays = data["payers"] * odds - data["users"] * pt.softplus(odds)
        if structure.amounts == "lognormal":
            inner = data["log_deviation"] + data["payers"] * (data["log_mean"] - amount) ** 2
            paid = -0.5 * inner / residual**2 - data["payers"] * pt.log(residual)
            paid = pt.sum(paid) - data["constant"]
            mean = pt.exp(amount + residual**2 / 2)
        else:
            paid = (
                data["payers"] * (residual * (pt.log(residual) - amount) - pt.gammaln(residual))
                + (residual - 1) * data["log_sum"]
                - residual * data["total"] * pt.exp(-amount)
            )
            mean = pt.exp(amount)
        pm.Potential("likelihood", pt.sum(pays) + pt.sum(paid))
        revenue = pm.math.sigmoid(odds) * mean
        pm.Deterministic("theta", revenue[:, 1] - revenue[:, 0], dims="unit")
    return model


def _hierarchies(geometry: str, data: dict[str, Any], mu: Any, among: Any, within: Any) -> Any:
    """Values (part, unit) around their groups', groups' around the parts' means (part, 1), in a geometry."""
    import pymc as pm

    groups, units, group_of = ("part", "group"), ("part", "unit"), data["group_of"]
    match geometry:
        case "centered":
            centre = pm.Normal("group_value", mu, among, dims=groups)
            return pm.Normal("unit_value", centre[:, group_of], within, dims=units)
        case "partial":
            share = data["group_share"]
            tilde = pm.Normal("group_tilde", share * mu, among**share, dims=groups)
            moved = mu + among ** (1 - share) * (tilde - share * mu)
            mean = pm.Deterministic("group_value", moved, dims=groups)[:, group_of]
            share = data["share"]
            tilde = pm.Normal("tilde", share * mean, within**share, dims=units)
            moved = mean + within ** (1 - share) * (tilde - share * mean)
            return pm.Deterministic("unit_value", moved, dims=units)
        case _:
            moved = mu + among * pm.Normal("z_group", 0.0, 1.0, dims=groups)
            centre = pm.Deterministic("group_value", moved, dims=groups)
            moved = centre[:, group_of] + within * pm.Normal("eta", 0.0, 1.0, dims=units)
            return pm.Deterministic("unit_value", moved, dims=units)
