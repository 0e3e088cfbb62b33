"""The exact posterior of the three-level normal model.

Given both sds everything is Gaussian (Gelman et al., 2013, BDA3, sections 5.4 and 15.1), and the data enter
through sums over the units of each group. A table makes these sums once; a change of a prior weights known
nodes anew, at no cost in the number of units, and puts nodes anew where the posterior has moved away.
"""

from __future__ import annotations

import math
from threading import Lock

import numpy as np

from hbm_core.errors import ImproperPosteriorError, NotExactError
from hbm_core.inference.exact.location import smoothed
from hbm_core.inference.exact.posterior import moment_notes
from hbm_core.inference.exact.three_level_lattice import (
    MeanPrior,
    Placement,
    Question,
    Weighted,
    finer,
    holds,
    place,
)
from hbm_core.inference.exact.three_level_posterior import Tails, ThreeLevelPosterior
from hbm_core.inference.exact.three_level_table import ThreeLevelTable
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

#: Error estimate in sds up to which no more nodes are taken.
_ACCURATE = 1e-6
_PLACEMENTS = 4
_LOCK = Lock()


def solve_three_level(
    spec: ModelSpec[ThreeLevelNormal], table: ThreeLevelTable | None = None
) -> ThreeLevelPosterior:
    """The exact posterior of a three-level normal model.

    Parameters
    ----------
    spec : ModelSpec
        Structure and priors.
    table : ThreeLevelTable, optional
        Of the same structure; without one the structure's own is taken or made.

    Raises
    ------
    ImproperPosteriorError
        The posterior has no finite mass.
    NotExactError
        A prior on μ whose product with a normal has no closed integral.
    """
    structure, of_mu = spec.structure, spec.priors["mu"]
    if of_mu.family not in ("Normal", "Flat", "StudentT") and not smoothed(of_mu).closed:
        raise NotExactError(
            "prior on mu",
            "Normal, StudentT, Flat, Uniform, HalfNormal or Exponential",
            of_mu.text,
            "Use --engine nuts, which samples this model.",
        )
    tails = _tails(spec)
    table = ThreeLevelTable.of(structure) if table is None else table
    reach = float(np.abs(table.middle).max())
    question = Question(
        spec.priors[structure.spread],
        spec.priors[structure.group_spread],
        MeanPrior(spec.priors["mu"], table.location, reach),
        tails.unit,
        tails.group,
    )
    names = {structure.group_spread: tails.group, structure.spread: tails.unit, "mu": tails.mu}
    notes = moment_notes(**names, **{structure.group_mean: tails.means})
    for placement in list(table.placements):
        weighted = holds(placement, question)
        if weighted is not None:
            posterior = ThreeLevelPosterior(spec, table, question, placement, weighted, tails, notes, False)
            if posterior.hyper_error <= _ACCURATE:
                _remember(table, placement)
                return posterior
    again = bool(table.placements)
    placement, weighted = place(table, question)
    posterior = ThreeLevelPosterior(spec, table, question, placement, weighted, tails, notes, again)
    for _ in range(2):
        if posterior.hyper_error <= _ACCURATE:
            break
        placement = finer(table, placement)
        weighted = Weighted.of(placement.full, question)
        posterior = ThreeLevelPosterior(spec, table, question, placement, weighted, tails, notes, again)
    if posterior.hyper_error > 10 * _ACCURATE:
        notes += ("Not all of the posterior is resolved: its figures are good to the error stated only.",)
        posterior.notes = notes
    _remember(table, placement)
    return posterior


def _remember(table: ThreeLevelTable, placement: Placement) -> None:
    """Put a placement first among those of the table, which keeps a few."""
    with _LOCK:
        if not (table.placements and table.placements[0] is placement):
            others = [one for one in table.placements if one is not placement]
            table.placements = [placement, *others[: _PLACEMENTS - 1]]


def _tails(spec: ModelSpec[ThreeLevelNormal]) -> Tails:
    """How fast the posterior densities fall.

    With G groups, N units and f = 1 under a flat prior on μ, else 0, the likelihood falls as σ_group^(f - G)
    where only that sd grows, as σ_unit^(f - N) where that does, and in the same way as the latter where
    both do; where σ_group outgrows σ_unit as σ_group^(f - G) σ_unit^(G - N).

    Raises
    ------
    ImproperPosteriorError
        The posterior has infinite mass in one of these directions.
    """
    structure = spec.structure
    groups, units = len(structure.groups), structure.effect.size
    of_mu = spec.priors["mu"]
    unit, group = spec.priors[structure.spread].tail, spec.priors[structure.group_spread].tail
    flat = 1 if of_mu.family == "Flat" else 0
    for name, what, count, room in (
        (structure.group_spread, "groups", groups, group),
        (structure.spread, "units", units, unit),
        (f"{structure.group_spread} and {structure.spread}", "units", units, unit + group),
    ):
        if count - flat + room <= 0:
            text = " and ".join(spec.priors[one].text for one in name.split(" and "))
            beside = " and a flat prior on mu" if flat else ""
            raise ImproperPosteriorError(
                f"prior on {name}",
                f"at least {math.floor(flat - room) + 1} {what} under {text}{beside}",
                f"{count}, for which the posterior has infinite mass at large {name}",
                f"Give {name.split(' and ')[0]} a proper prior such as HalfNormal"
                + (", or mu a Normal one." if flat else "."),
            )
    of_group = group + min(groups - flat, unit + units - flat)
    of_unit = unit + units - flat + min(0.0, group)
    both = unit + group + units - flat
    if of_mu.family == "Normal":
        return Tails(of_unit, of_group, math.inf, both)
    if flat:
        return Tails(of_unit, of_group, min(of_unit, of_group), of_unit)
    mean = min(of_unit, of_group) + of_mu.tail
    return Tails(of_unit, of_group, mean, min(both, units + unit + of_mu.tail))
