"""PyMC models of Gaussian mixed structures in every geometry, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.pymc_model import random_variable
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[GaussianMixed]


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code; counts only where the sampler moves what they count."""
    structure = spec.structure
    return (
        type(structure).__name__,
        structure.walk,
        structure.levels,
        structure.slot_level,
        spec.parameterization,
        tuple((name, prior.family) for name, prior in spec.priors.items()),
        (len(structure.groups), len(structure.slots)),
        None if spec.parameterization == "collapsed" else (structure.effect.size, len(structure.members)),
    )


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    values: dict[str, np.ndarray] = {
        "effect": structure.effect,
        "se": structure.se,
        "cell_of": structure.cell.astype(np.int32),
        "member_of": structure.member,
    }
    if spec.parameterization == "collapsed":
        values["member_zeros"] = np.zeros(len(structure.members))
    for name, prior in spec.priors.items():
        if prior.numbers:
            values[f"prior_{name}"] = np.array(prior.numbers)
    return values


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu`` and the spreads, the means of cells and, unless they are integrated out, the members'
    ``deviation`` and ``theta``; and what the sampler moves instead of the means: ``z_group``, ``z_slot`` and
    ``z_own`` (non-centered and collapsed), ``level`` and ``shared`` (centered).

    Given the members' sums everything else is a Gaussian of a few dozen dimensions, which the sampler moves
    as standard normals: no linear algebra in the graph, so that it compiles in seconds.

    Parameters
    ----------
    spec : ModelSpec of GaussianMixed
        The model.

    Returns
    -------
    pymc.Model
        With coordinates ``cell``, and ``unit`` and ``member`` where these are sampled.
    """
    import pymc as pm

    structure, geometry = spec.structure, spec.parameterization
    collapsed = geometry == "collapsed"
    groups, slots = len(structure.groups), len(structure.slots)
    coords: dict[str, Any] = {"cell": list(structure.cells)}
    if not collapsed:
        coords |= {"unit": list(structure.units), "member": list(structure.members)}
    dims = {"effect": "unit", "se": "unit", "cell_of": "unit", "member_of": "unit"}
    with pm.Model(coords=coords) as model:
        data = {
            name: pm.Data(name, value, dims=None if collapsed else dims.get(name))
            for name, value in data_values(spec).items()
        }
        priors = {
            name: random_variable(name, prior, data.get(f"prior_{name}"), name in structure.positive)
            for name, prior in spec.priors.items()
        }
        mu, of_group, own = (priors[name] for name in ("mu", structure.group_spread, structure.own_spread))
        of_slot = None if structure.slot_spread is None else priors[structure.slot_spread]
        if geometry == "centered":
            mean = _centered(pm, structure, mu, of_group, of_slot, own)
        else:
            level = mu + of_group * pm.Normal("z_group", 0.0, 1.0, shape=groups)
            pattern = structure.pattern
            effects = own * pm.Normal("z_own", 0.0, 1.0, shape=(groups, pattern.shape[1])) @ pattern.T
            means = level[:, None] + effects
            if of_slot is not None:
                means = means + (of_slot * pm.Normal("z_slot", 0.0, 1.0, shape=slots))[None, :]
            mean = pm.Deterministic(structure.group_mean, means.flatten(), dims="cell")
        spread = priors[structure.spread]
        if collapsed:
            pm.Potential("marginal", _marginal(data, mean, spread))
            return model
        if geometry == "centered":
            deviation = pm.Normal("deviation", 0.0, spread, dims="member")
        else:
            deviation = spread * pm.Normal("eta", 0.0, 1.0, dims="member")
        theta = pm.Deterministic("theta", mean[data["cell_of"]] + deviation[data["member_of"]], dims="unit")
        pm.Normal("y", theta, data["se"], observed=data["effect"], dims="unit")
    return model


def _centered(pm: Any, structure: GaussianMixed, mu: Any, of_group: Any, of_slot: Any, own: Any) -> Any:
    """Means of cells that the sampler moves themselves."""
    groups, slots = len(structure.groups), len(structure.slots)
    name = structure.group_mean
    if of_slot is None:
        mean = pm.Flat(name, dims="cell")
        path = mean.reshape((groups, slots))
        pm.Potential("start", pm.logp(pm.Normal.dist(mu, of_group), path[:, 0]).sum())
        pm.Potential("steps", pm.logp(pm.Normal.dist(path[:, :-1], own), path[:, 1:]).sum())
        return mean
    level = pm.Normal("level", 0.0, of_group, shape=groups)
    shared = pm.Normal("shared", 0.0, of_slot, shape=slots)
    return pm.Normal(name, (mu + level[:, None] + shared[None, :]).flatten(), own, dims="cell")


def _marginal(data: dict[str, Any], mean: Any, spread: Any) -> Any:
    """Log p(y | means of cells, σ_member), the members' deviations integrated out.

    With w = 1/s² and r = y − m, a member's rows have −½ [Σ w r² − κ (Σ w r)² + log(1 + σ² Σ w)] and
    κ = σ²/(1 + σ² Σ w).
    """
    import pytensor.tensor as pt

    weight, member = data["se"] ** -2.0, data["member_of"]
    residual = data["effect"] - mean[data["cell_of"]]

    def summed(values: Any) -> Any:
        return pt.inc_subtensor(data["member_zeros"][member], values)

    grown = 1 + spread**2 * summed(weight)
    quadratic = pt.sum(weight * residual**2) - pt.sum(spread**2 / grown * summed(weight * residual) ** 2)
    constant = pt.sum(pt.log(2 * np.pi * data["se"] ** 2))
    return -0.5 * (quadratic + pt.sum(pt.log(grown)) + constant)
