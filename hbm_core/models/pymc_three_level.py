"""PyMC models of the three-level normal structure in every geometry, with all numbers as data."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hbm_core.models.pymc_model import SHARE_MARGIN, random_variable
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

if TYPE_CHECKING:
    import pymc as pm

Spec = ModelSpec[ThreeLevelNormal]
#: Constant by which an engine asks that μ stays among what it moves.
KEEP_MEAN = "keep_mean"


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Precision-weighted sums of each group at given values of σ_unit.

    Parameters
    ----------
    precision : ndarray (..., G)
        A_g = Σ 1/v_i with v_i = s_i² + σ_unit².
    mean : ndarray (..., G)
        Σ (y_i/v_i) / A_g, in the outcome's units.
    """

    precision: np.ndarray
    mean: np.ndarray


def group_sums(structure: ThreeLevelNormal, spread: np.ndarray | float) -> GroupSums:
    """Each group's precision and weighted mean at one value of σ_unit, arrays (G,)."""
    weight = 1 / (structure.se**2 + float(spread) ** 2)
    count = len(structure.groups)
    precision = np.bincount(structure.group, weight, count)
    # Weighted about the overall mean: under large shifts the digits of the sums would be lost.
    centre = float(weight @ structure.effect / weight.sum())
    total = np.bincount(structure.group, weight * (structure.effect - centre), count)
    return GroupSums(precision, centre + total / precision)


def moment_spreads(structure: ThreeLevelNormal) -> tuple[float, float]:
    """Moment estimates of σ_unit, within groups, and of σ_group, between their means; 0 on the boundary.

    References
    ----------
    DerSimonian and Laird (1986), Controlled Clinical Trials 7, equation 8, at either level.
    """
    weight = 1 / structure.se**2
    sums, count = group_sums(structure, 0.0), len(structure.groups)
    squares = np.bincount(structure.group, weight**2, count)
    residual = structure.effect - sums.mean[structure.group]
    excess = float(weight @ residual**2) - (residual.size - count)
    scale = float((sums.precision - squares / sums.precision).sum())
    unit = np.sqrt(max(0.0, excess / scale)) if residual.size > count else 0.0
    between = group_sums(structure, unit)
    a, m = between.precision, between.mean
    if count < 2:
        return float(unit), 0.0
    excess = float(a @ (m - a @ m / a.sum()) ** 2) - (count - 1)
    return float(unit), float(np.sqrt(max(0.0, excess / float(a.sum() - (a**2).sum() / a.sum()))))


def data_shares(structure: ThreeLevelNormal) -> tuple[np.ndarray, np.ndarray]:
    """λ of the units (N,) and of the groups (G,): the data's share of the posterior precision.

    At the moment estimates of the two spreads, kept off 0 and 1 by ``SHARE_MARGIN``.

    References
    ----------
    Papaspiliopoulos, Roberts and Sköld (2007), Statistical Science 22, section 3.3.
    """
    unit, group = moment_spreads(structure)
    own = unit**2 / (unit**2 + structure.se**2)
    precision = group_sums(structure, unit).precision
    among = group**2 / (group**2 + 1 / precision)
    return (
        np.clip(own, SHARE_MARGIN, 1 - SHARE_MARGIN),
        np.clip(among, SHARE_MARGIN, 1 - SHARE_MARGIN),
    )


def integrates_mean(spec: Spec) -> bool:
    """Whether μ is integrated out with units and group means: collapsed, normal, not asked to stay."""
    normal = spec.parameterization == "collapsed" and spec.priors["mu"].family == "Normal"
    return normal and not spec.constants.get(KEEP_MEAN)


def in_order(structure: ThreeLevelNormal) -> tuple[np.ndarray, np.ndarray]:
    """Places of the units group by group (N,), and where each group begins in them (G + 1,)."""
    sizes = np.bincount(structure.group)
    return np.argsort(structure.group, kind="stable"), np.concatenate([[0], np.cumsum(sizes)])


def structure_key(spec: Spec) -> Hashable:
    """What decides the compiled code; counts only where the sampler moves what they count."""
    structure = spec.structure
    collapsed = spec.parameterization == "collapsed"
    return (
        type(structure).__name__,
        structure.levels,
        spec.parameterization,
        tuple((name, prior.family) for name, prior in spec.priors.items()),
        integrates_mean(spec),
        None if collapsed else (structure.effect.size, len(structure.groups)),
    )


def data_values(spec: Spec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    values: dict[str, np.ndarray]
    if spec.parameterization == "collapsed":
        order, starts = in_order(structure)
        values = {"effect": structure.effect[order], "squares": structure.se[order] ** 2, "starts": starts}
    else:
        values = {"effect": structure.effect, "se": structure.se, "group_of": structure.group}
    for name, prior in spec.priors.items():
        if prior.numbers:
            values[f"prior_{name}"] = np.array(prior.numbers)
    if spec.parameterization == "partial":
        values["share"], values["group_share"] = data_shares(structure)
    return values


def build(spec: Spec) -> pm.Model:
    """The model in PyMC.

    Variables: the two spreads; ``mu``, the group means and ``theta`` unless they are integrated out; and what
    the sampler moves instead of them: ``z_group`` and ``eta`` (non-centered), ``group_tilde`` and
    ``theta_tilde`` (partial).

    Parameters
    ----------
    spec : ModelSpec of ThreeLevelNormal
        The model.

    Returns
    -------
    pymc.Model
        With coordinates ``unit`` and ``group`` where these are sampled.
    """
    import pymc as pm

    structure, geometry = spec.structure, spec.parameterization
    collapsed = geometry == "collapsed"
    coords = {} if collapsed else {"unit": list(structure.units), "group": list(structure.groups)}
    dims = {"effect": "unit", "se": "unit", "group_of": "unit", "share": "unit"}
    dims["group_share"] = "group"
    with pm.Model(coords=coords) as model:
        data = {
            name: pm.Data(name, value, dims=None if collapsed else dims.get(name))
            for name, value in data_values(spec).items()
        }
        mu, spread_group, spread_unit = (
            None
            if name == "mu" and integrates_mean(spec)
            else random_variable(name, prior, data.get(f"prior_{name}"), name in structure.positive)
            for name, prior in spec.priors.items()
        )
        if collapsed:
            from hbm_core.models.three_level_op import log_marginal_op

            location, variance = (
                (mu, 0.0) if mu is not None else (data["prior_mu"][0], data["prior_mu"][1] ** 2)
            )
            tables = (data[name] for name in ("effect", "squares", "starts"))
            node = log_marginal_op.make_node(location, spread_group, spread_unit, variance, *tables)
            pm.Potential("marginal", node.outputs[0])
            return model

        def offset(name: str, dim: str) -> Any:
            return pm.Normal(name, 0.0, 1.0, dims=dim)

        name = structure.group_mean
        match geometry:
            case "centered":
                centre = pm.Normal(name, mu, spread_group, dims="group")
            case "partial":
                share = data["group_share"]
                tilde = pm.Normal("group_tilde", share * mu, spread_group**share, dims="group")
                centre = pm.Deterministic(
                    name, mu + spread_group ** (1 - share) * (tilde - share * mu), dims="group"
                )
            case _:
                centre = pm.Deterministic(name, mu + spread_group * offset("z_group", "group"), dims="group")
        mean = centre[data["group_of"]]
        match geometry:
            case "noncentered":
                theta = pm.Deterministic("theta", mean + spread_unit * offset("eta", "unit"), dims="unit")
            case "partial":
                share = data["share"]
                tilde = pm.Normal("theta_tilde", share * mean, spread_unit**share, dims="unit")
                theta = pm.Deterministic(
                    "theta", mean + spread_unit ** (1 - share) * (tilde - share * mean), dims="unit"
                )
            case _:
                theta = pm.Normal("theta", mean, spread_unit, dims="unit")
        pm.Normal("y", theta, data["se"], observed=data["effect"], dims="unit")
    return model
