"""The parts of a stand-alone script that belong to Gaussian mixed structures."""

from __future__ import annotations

from collections.abc import Iterator

from hbm_core.inference.sampler import Sampler
from hbm_core.models.pymc_gaussian_mixed import Spec
from hbm_core.report.pieces import listing, number, prior_line, text


def data(spec: Spec) -> str:
    """Labels, effects, standard errors, cells and members as Python source."""
    structure = spec.structure
    return "\n".join(
        [
            listing("units", map(text, structure.units)),
            listing("groups", map(text, structure.groups)),
            listing("slots", map(text, structure.slots)),
            'cells = [f"{group} × {slot}" for group in groups for slot in slots]',
            f"members = {len(structure.members)}",
            "# Estimated effects, their standard errors, which count as known, member and cell of each row.",
            listing("effect", map(number, structure.effect), "np.array([", "], dtype=float)"),
            listing("se", map(number, structure.se), "np.array([", "], dtype=float)"),
            listing("member", map(str, structure.member.tolist()), "np.array([", "])"),
            listing("cell", map(str, structure.cell.tolist()), "np.array([", "])"),
        ]
    )


def coords(spec: Spec) -> str:
    """Coordinates of the model as Python source."""
    return '{"cell": cells}' if spec.parameterization == "collapsed" else '{"cell": cells, "unit": units}'


def body(spec: Spec) -> Iterator[str]:
    """Lines inside the model's context."""
    structure = spec.structure
    mean, among, own = structure.group_mean, structure.group_spread, structure.own_spread
    for name, prior in spec.priors.items():
        yield prior_line(name, prior, name in structure.positive)
    if spec.parameterization == "centered":
        yield from _centered(spec)
    else:
        yield "# Non-centered: standardised, then location and scale."
        yield f'means = mu + {among} * pm.Normal("z_group", 0.0, 1.0, shape=(len(groups), 1))'
        if structure.walk:
            yield 'steps = pm.Normal("z_own", 0.0, 1.0, shape=(len(groups), len(slots) - 1))'
            yield f"means = means + {own} * steps @ np.tri(len(slots), len(slots) - 1, -1).T"
        else:
            yield 'own = pm.Normal("z_own", 0.0, 1.0, shape=(len(groups), len(slots)))'
            yield f'shared = {structure.slot_spread} * pm.Normal("z_slot", 0.0, 1.0, shape=len(slots))'
            yield f"means = means + {own} * own + shared"
        yield f'{mean} = pm.Deterministic("{mean}", means.flatten(), dims="cell")'
    spread = structure.spread
    match spec.parameterization:
        case "collapsed":
            yield "# The members' deviations are integrated out."
            yield "weight = se**-2.0"
            yield f"residual = effect - {mean}[cell]"
            yield "zeros = pt.zeros(members)"
            yield f"grown = 1 + {spread}**2 * pt.inc_subtensor(zeros[member], pt.as_tensor(weight))"
            yield "pull = pt.inc_subtensor(zeros[member], weight * residual)"
            yield f"quadratic = pt.sum(weight * residual**2) - pt.sum({spread}**2 / grown * pull**2)"
            yield "constant = float(np.log(2 * np.pi * se**2).sum())"
            yield 'pm.Potential("marginal", -0.5 * (quadratic + pt.sum(pt.log(grown)) + constant))'
            return
        case "centered":
            yield f'deviation = pm.Normal("deviation", 0.0, {spread}, shape=members)'
        case _:
            yield f'deviation = {spread} * pm.Normal("eta", 0.0, 1.0, shape=members)'
    yield f'theta = pm.Deterministic("theta", {mean}[cell] + deviation[member], dims="unit")'
    yield 'pm.Normal("y", theta, se, observed=effect, dims="unit")'


def _centered(spec: Spec) -> Iterator[str]:
    structure = spec.structure
    mean, among, own = structure.group_mean, structure.group_spread, structure.own_spread
    if structure.walk:
        yield f'{mean} = pm.Flat("{mean}", dims="cell")'
        yield f"path = {mean}.reshape((len(groups), len(slots)))"
        yield f'pm.Potential("start", pm.logp(pm.Normal.dist(mu, {among}), path[:, 0]).sum())'
        yield f'pm.Potential("steps", pm.logp(pm.Normal.dist(path[:, :-1], {own}), path[:, 1:]).sum())'
        return
    yield f'level = pm.Normal("level", 0.0, {among}, shape=(len(groups), 1))'
    yield f'shared = pm.Normal("shared", 0.0, {structure.slot_spread}, shape=len(slots))'
    yield f'{mean} = pm.Normal("{mean}", (mu + level + shared).flatten(), {own}, dims="cell")'


def conditional(spec: Spec, sampler: Sampler) -> str:
    """What draws the effects after a collapsed fit."""
    structure = spec.structure
    mean, spread = structure.group_mean, structure.spread
    return "\n".join(
        [
            "# Members' deviations given the rest are normal: one draw of each per draw.",
            f"rng = np.random.default_rng({sampler.seed})",
            "weight = se**-2.0",
            "belongs = np.eye(members)[member]",
            f'means = fit.posterior["{mean}"].values[..., cell]',
            f'square = fit.posterior["{spread}"].values[..., None] ** 2',
            "variance = square / (1 + square * (weight @ belongs))",
            "deviation = variance * ((weight * (effect - means)) @ belongs)",
            "deviation = deviation + np.sqrt(variance) * rng.standard_normal(deviation.shape)",
            "theta = means + deviation[..., member]",
            "posterior = fit.posterior.to_dataset().assign(",
            '    theta=xr.DataArray(theta, dims=("chain", "draw", "unit"), coords={"unit": units}),',
            ")",
        ]
    )


def reported(spec: Spec) -> list[str]:
    """Names of what the script prints."""
    return [*spec.structure.parameters, spec.structure.group_mean, "theta"]
