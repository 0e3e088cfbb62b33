"""The exact posterior of Gaussian mixed models: a lattice over the spreads, the rest in closed form."""

from __future__ import annotations

import numpy as np

from hbm_core.errors import ImproperPosteriorError, NotExactError
from hbm_core.inference.exact.gaussian_mixed_lattice import (
    COARSE,
    DROP,
    EDGE,
    Shares,
    SteepProblem,
    axis_errors,
    place,
)
from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior, centred
from hbm_core.inference.exact.gaussian_mixed_table import MixedTable, Nodes
from hbm_core.inference.exact.posterior import moment_notes
from hbm_core.models.gaussian_mixed import GaussianMixed, moment_starts
from hbm_core.models.structure import ModelSpec


def solve_gaussian_mixed(
    spec: ModelSpec[GaussianMixed], table: MixedTable | None = None
) -> GaussianMixedPosterior:
    """The exact posterior of a Gaussian mixed model.

    Nodes that hold the posterior are weighed anew by the priors; where none do, new ones are made.

    Parameters
    ----------
    spec : ModelSpec
        Structure and priors.
    table : MixedTable, optional
        Of the same structure; without one the structure's own is taken or made.

    Raises
    ------
    ImproperPosteriorError
        An improper prior on a spread.
    NotExactError
        A prior on μ that is not normal, or a posterior too long-tailed for a lattice.
    """
    structure = spec.structure
    mu = spec.priors["mu"]
    if mu.family != "Normal":
        raise NotExactError(
            "prior on mu", "Normal, under which everything is Gaussian given the spreads", mu.text
        )
    for name in structure.spreads:
        if not spec.priors[name].proper:
            raise ImproperPosteriorError(
                f"prior on {name}",
                "a proper prior: few groups or slots leave the data too little to say about it",
                spec.priors[name].text,
                f"Give {name} a proper prior such as HalfNormal.",
            )
    table = MixedTable.of(structure) if table is None else table
    priors = [spec.priors[name] for name in structure.spreads]
    support = tuple((max(prior.support[0], 0.0), prior.support[1]) for prior in priors)
    tails = _tails(spec)
    notes = moment_notes(**dict(zip(structure.spreads, tails, strict=True)))
    orders = [int(np.clip(np.ceil(min(tail, 3.0)) - 1, 0, 2)) for tail in tails]
    centre, sd = mu.numbers[0] - table.location, mu.numbers[1]
    for nodes in reversed(table.lattices):
        if nodes.support != support:
            continue
        shares = Shares.of(nodes.lattice, priors, nodes.reduced.log_evidence(centre, sd))
        if shares.edge > EDGE or not _reaches(nodes, shares, orders):
            continue
        parts = centred(nodes, shares, nodes.mixtures(centre, sd), tails)
        errors = axis_errors(nodes.lattice, shares.weights, *parts)
        if (errors <= COARSE).all():
            table.remember(nodes)
            return GaussianMixedPosterior(spec, table, nodes, shares, errors, tails, notes)
    again = bool(table.lattices)
    starts = moment_starts(structure)
    problem = SteepProblem(
        priors,
        lambda x: table.reduce(x).log_evidence(centre, sd),
        np.array([starts[name] for name in structure.spreads]),
        orders,
        DROP[int(len(priors) > 3)],
    )
    lattice = place(problem)
    if not lattice.complete:
        raise NotExactError(
            "posterior of the spreads",
            "priors under which a few ten thousand nodes hold it",
            "tails that are too long",
            "Give the spreads priors with thinner tails such as HalfNormal, or sample.",
        )
    nodes = Nodes.of(table, lattice, support)
    shares = Shares.of(lattice, priors, nodes.reduced.log_evidence(centre, sd))
    parts = centred(nodes, shares, nodes.mixtures(centre, sd), tails)
    errors = axis_errors(lattice, shares.weights, *parts)
    table.remember(nodes)
    return GaussianMixedPosterior(spec, table, nodes, shares, errors, tails, notes, again)


def _tails(spec: ModelSpec[GaussianMixed]) -> list[float]:
    """Each b of densities of the spreads that fall as x^(-b - 1); infinite for thinner tails.

    Where a spread grows, the likelihood falls by one power for each of its effects that the data show.
    """
    structure = spec.structure
    seen = np.unique(structure.cell)
    groups = len(structure.groups)
    own = seen.size - (np.unique(seen // len(structure.slots)).size if structure.walk else 0)
    ranks = {
        structure.group_spread: groups,
        structure.own_spread: own,
        structure.spread: len(structure.members),
    }
    if structure.slot_spread is not None:
        ranks[structure.slot_spread] = np.unique(seen % len(structure.slots)).size
    return [spec.priors[name].tail + ranks[name] for name in structure.spreads]


def _reaches(nodes: Nodes, shares: Shares, orders: list[int]) -> bool:
    """Whether moments are held, too: under heavy tails their integrands end later than the density."""
    mass = shares.weights[:, None] * nodes.lattice.x ** np.array(orders)
    return bool((mass[nodes.lattice.edge].sum(axis=0) <= 5 * EDGE * mass.sum(axis=0)).all())
