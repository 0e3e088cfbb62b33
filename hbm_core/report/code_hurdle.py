"""The parts of a stand-alone script that belong to the hurdle structure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hbm_core.models.hurdle import PARTS
from hbm_core.models.pymc_hurdle import Spec, approximations
from hbm_core.models.pymc_three_level import data_shares
from hbm_core.report.pieces import listing, number, prior_line, text


def _table(name: str, rows: Iterable[np.ndarray]) -> str:
    return listing(name, ("[" + ", ".join(map(number, row)) + "]" for row in rows), "np.array([", "])")


def data(spec: Spec) -> str:
    """Labels, groups and the statistics of each arm as Python source."""
    structure = spec.structure
    lines = [
        listing("units", map(text, structure.units)),
        listing("groups", map(text, structure.groups)),
        listing("group", map(str, structure.group.tolist()), "np.array([", "])"),
        f"parts = {list(PARTS)!r}",
        "# Of control and treatment: users, and those who paid.",
        _table("users", structure.users),
        _table("payers", structure.payers),
    ]
    if structure.amounts == "lognormal":
        lines += [
            "# Mean of the payers' log amounts, and the sum of squared deviations from it.",
            _table("log_mean", structure.log_mean),
            _table("log_deviation", structure.log_deviation),
        ]
    else:
        lines += [
            "# Sums of the payers' amounts and of their logs.",
            _table("total", structure.total),
            _table("log_sum", structure.log_sum),
        ]
    if spec.parameterization == "partial":
        own, among = zip(*(data_shares(rough) for rough in approximations(structure).values()), strict=True)
        lines += [
            "# From 0, non-centered, to 1, centered: the data's share of each precision, part by part.",
            _table("share", own),
            _table("group_share", among),
        ]
    return "\n".join(lines)


def coords(spec: Spec) -> str:
    """Coordinates of the model as Python source."""
    return '{"part": parts, "unit": units, "group": groups}'


def body(spec: Spec) -> Iterator[str]:
    """Lines inside the model's context."""
    structure = spec.structure
    for name, prior in spec.priors.items():
        yield prior_line(name, prior, name in structure.positive)
    columns = zip(*(structure.names_of(part) for part in PARTS), strict=True)
    for name, names in zip(("mu", "among", "within"), columns, strict=True):
        yield f"{name} = pt.stack([{', '.join(names)}])[:, None]"
    group, unit = 'dims=("part", "group")', 'dims=("part", "unit")'
    match spec.parameterization:
        case "centered":
            yield f'group_value = pm.Normal("group_value", mu, among, {group})'
            yield f'unit_value = pm.Normal("unit_value", group_value[:, group], within, {unit})'
        case "partial":
            yield "# Partially centered: between the two, group by group and unit by unit."
            yield f'tilde = pm.Normal("group_tilde", group_share * mu, among**group_share, {group})'
            yield "shift = among ** (1 - group_share) * (tilde - group_share * mu)"
            yield f'group_value = pm.Deterministic("group_value", mu + shift, {group})'
            yield "mean = group_value[:, group]"
            yield f'tilde = pm.Normal("tilde", share * mean, within**share, {unit})'
            yield "shift = within ** (1 - share) * (tilde - share * mean)"
            yield f'unit_value = pm.Deterministic("unit_value", mean + shift, {unit})'
        case _:
            yield "# Non-centered: standardised, then location and scale."
            yield f'z = pm.Normal("z_group", 0.0, 1.0, {group})'
            yield f'group_value = pm.Deterministic("group_value", mu + among * z, {group})'
            yield f'eta = pm.Normal("eta", 0.0, 1.0, {unit})'
            yield "moved = group_value[:, group] + within * eta"
            yield f'unit_value = pm.Deterministic("unit_value", moved, {unit})'
    yield "odds = pt.stack([unit_value[0], unit_value[0] + unit_value[1]], axis=1)"
    yield "amount = pt.stack([unit_value[2], unit_value[2] + unit_value[3]], axis=1)"
    yield "pays = payers * odds - users * pt.softplus(odds)"
    if structure.amounts == "lognormal":
        yield "inside = log_deviation + payers * (log_mean - amount) ** 2"
        yield "paid = -0.5 * inside / sigma_log**2 - payers * pt.log(sigma_log)"
        yield "revenue = pm.math.sigmoid(odds) * pt.exp(amount + sigma_log**2 / 2)"
    else:
        yield "paid = payers * (shape * (pt.log(shape) - amount) - pt.gammaln(shape))"
        yield "paid += (shape - 1) * log_sum - shape * total * pt.exp(-amount)"
        yield "revenue = pm.math.sigmoid(odds) * pt.exp(amount)"
    yield 'pm.Potential("likelihood", pt.sum(pays) + pt.sum(paid))'
    yield 'theta = pm.Deterministic("theta", revenue[:, 1] - revenue[:, 0], dims="unit")'


def reported(spec: Spec) -> list[str]:
    """Names of what the script prints."""
    return [*spec.structure.parameters, "group_value", "theta"]
