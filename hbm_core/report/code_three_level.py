"""The parts of a stand-alone script that belong to the three-level normal structure."""

from __future__ import annotations

from collections.abc import Iterator

from hbm_core.inference.sampler import Sampler
from hbm_core.models.pymc_three_level import Spec, data_shares, integrates_mean
from hbm_core.report.pieces import listing, number, prior_line, text


def data(spec: Spec) -> str:
    """Labels, effects, standard errors and groups as Python source."""
    structure = spec.structure
    lines = [
        listing("units", map(text, structure.units)),
        listing("groups", map(text, structure.groups)),
        "# Estimated effects, their standard errors, which count as known, and the group of each unit.",
        listing("effect", map(number, structure.effect), "np.array([", "], dtype=float)"),
        listing("se", map(number, structure.se), "np.array([", "], dtype=float)"),
        listing("group", map(str, structure.group.tolist()), "np.array([", "])"),
    ]
    if spec.parameterization == "partial":
        own, among = data_shares(structure)
        lines += [
            "# From 0, non-centered, to 1, centered: the data's share of each precision.",
            listing("share", map(number, own), "np.array([", "], dtype=float)"),
            listing("group_share", map(number, among), "np.array([", "], dtype=float)"),
        ]
    return "\n".join(lines)


def coords(spec: Spec) -> str:
    """Coordinates of the model as Python source."""
    return "" if spec.parameterization == "collapsed" else '{"unit": units, "group": groups}'


def body(spec: Spec) -> Iterator[str]:
    """Lines inside the model's context."""
    structure = spec.structure
    within, among, mean = structure.spread, structure.group_spread, structure.group_mean
    inner = integrates_mean(spec)
    for name, prior in spec.priors.items():
        if name != "mu" or not inner:
            yield prior_line(name, prior, name in structure.positive)
    match spec.parameterization:
        case "collapsed":
            yield "# Units and group means are integrated out: each group's data are its weighted mean's."
            yield f"variance = se**2 + {within}**2"
            yield "precision = pt.inc_subtensor(pt.zeros(len(groups))[group], 1 / variance)"
            yield "center = pt.inc_subtensor(pt.zeros(len(groups))[group], effect / variance) / precision"
            yield "inside = pt.sum((effect - center[group]) ** 2 / variance + pt.log(variance))"
            yield f"total = {among}**2 + 1 / precision"
            if inner:
                location, scale = map(number, spec.priors["mu"].numbers)
                yield f"# So is mu, under its own prior Normal({location}, {scale})."
                yield f"weight = 1 / {scale}**2 + pt.sum(1 / total)"
                yield f"mu = ({location} / {scale}**2 + pt.sum(center / total)) / weight"
            yield "outside = pt.sum((center - mu) ** 2 / total + pt.log(total * precision))"
            if inner:
                yield f"outside += ((mu - {location}) / {scale}) ** 2 + pt.log(weight * {scale}**2)"
            yield "constant = len(units) * float(np.log(2 * np.pi))"
            yield 'pm.Potential("marginal", -0.5 * (inside + outside + constant))'
            return
        case "centered":
            yield f'{mean} = pm.Normal("{mean}", mu, {among}, dims="group")'
        case "partial":
            yield "# Partially centered: between the two, unit by unit."
            yield f"among = {among}**group_share"
            yield 'group_tilde = pm.Normal("group_tilde", group_share * mu, among, dims="group")'
            yield f"shift = {among} ** (1 - group_share) * (group_tilde - group_share * mu)"
            yield f'{mean} = pm.Deterministic("{mean}", mu + shift, dims="group")'
        case _:
            yield "# Non-centered: standardised, then location and scale."
            yield 'z_group = pm.Normal("z_group", 0.0, 1.0, dims="group")'
            yield f'{mean} = pm.Deterministic("{mean}", mu + {among} * z_group, dims="group")'
    match spec.parameterization:
        case "noncentered":
            yield 'eta = pm.Normal("eta", 0.0, 1.0, dims="unit")'
            yield f'theta = pm.Deterministic("theta", {mean}[group] + {within} * eta, dims="unit")'
        case "partial":
            yield (
                f'theta_tilde = pm.Normal("theta_tilde", share * {mean}[group], {within}**share, dims="unit")'
            )
            yield f"offset = {within} ** (1 - share) * (theta_tilde - share * {mean}[group])"
            yield f'theta = pm.Deterministic("theta", {mean}[group] + offset, dims="unit")'
        case _:
            yield f'theta = pm.Normal("theta", {mean}[group], {within}, dims="unit")'
    yield 'pm.Normal("y", theta, se, observed=effect, dims="unit")'


def conditional(spec: Spec, sampler: Sampler) -> str:
    """What draws the group means and the effects after a collapsed fit."""
    structure = spec.structure
    within, among, mean = structure.spread, structure.group_spread, structure.group_mean
    inner, mean_of_all = [], ['mu = values["mu"]']
    if integrates_mean(spec):
        location, scale = map(number, spec.priors["mu"].numbers)
        inner = ['    mu=xr.DataArray(mu[..., 0], dims=("chain", "draw")),']
        mean_of_all = [
            f'among = 1 / (values["{among}"] ** 2 + 1 / precision)',
            f"weight = 1 / {scale}**2 + among.sum(-1, keepdims=True)",
            f"mu = ({location} / {scale}**2 + (among * center).sum(-1, keepdims=True)) / weight",
            "mu = mu + rng.standard_normal(mu.shape) / np.sqrt(weight)",
        ]
    return "\n".join(
        [
            "# Group means and effects given the hyperparameters are normal: one draw of each per draw.",
            f"rng = np.random.default_rng({sampler.seed})",
            "values = {name: fit.posterior[name].values[..., None] for name in fit.posterior.data_vars}",
            f'weight = 1 / (se**2 + values["{within}"] ** 2)',
            "member = np.eye(len(groups))[group]",
            "precision = weight @ member",
            "center = (weight * effect) @ member / precision",
            *mean_of_all,
            f'own = values["{among}"] ** 2 / (values["{among}"] ** 2 + 1 / precision)',
            "means = mu + own * (center - mu)",
            "means = means + np.sqrt(own / precision) * rng.standard_normal(means.shape)",
            f'own = values["{within}"] ** 2 * weight',
            "theta = means[..., group] + own * (effect - means[..., group])",
            "theta = theta + se * np.sqrt(own) * rng.standard_normal(theta.shape)",
            "posterior = fit.posterior.to_dataset().assign(",
            *inner,
            f'    {mean}=xr.DataArray(means, dims=("chain", "draw", "group"), coords={{"group": groups}}),',
            '    theta=xr.DataArray(theta, dims=("chain", "draw", "unit"), coords={"unit": units}),',
            ")",
        ]
    )


def reported(spec: Spec) -> list[str]:
    """Names of what the script prints."""
    return [*spec.structure.parameters, spec.structure.group_mean, "theta"]
