"""The exact posterior of gamma counts, Poisson or negative binomial.

Given (μ, α, φ) the entities are independent: one integral over log θ per distinct statistic (a closed form
for Poisson counts), and a lattice over the parameters that take a prior. A table keeps both; a change of a
prior weighs known nodes anew, and makes new ones where the posterior has moved away.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from hbm_core.errors import ImproperPosteriorError, NotExactError
from hbm_core.inference.exact.gamma_counts_posterior import GammaCountsPosterior
from hbm_core.inference.exact.gamma_counts_table import CountsTable, Quality, population
from hbm_core.inference.exact.posterior import moment_notes
from hbm_core.inference.exact.whitened import Problem, Scale, Weighted, place
from hbm_core.models.gamma_counts import GammaCounts, moment_start
from hbm_core.models.structure import ModelSpec

#: Entities up to which nodes are cheap enough to reach further and stand closer.
_FEW = 1_000
#: Rules over each rate, tried in this order.
_NODES = (15, 21, 33, 49)
#: Error of a mean or sd, in sds, that the rule over the rates may make.
_ACCURATE = 5e-5


def solve_gamma_counts(
    spec: ModelSpec[GammaCounts], table: CountsTable | None = None
) -> GammaCountsPosterior:
    """The exact posterior of gamma counts.

    Parameters
    ----------
    spec : ModelSpec
        Structure and priors.
    table : CountsTable, optional
        Of the same structure; without one the structure's own is taken or made.

    Raises
    ------
    ImproperPosteriorError
        The posterior has no finite mass.
    NotExactError
        A flat prior on μ, or a posterior too long-tailed for a lattice.
    """
    structure = spec.structure
    tails = _tails(spec)
    table = CountsTable.of(structure) if table is None else table
    priors = [spec.priors[name] for name in structure.parameters]
    scales = tuple(Scale.of(prior) for prior in priors)
    # The highest moments that are finite without the help of logarithms.
    orders = [int(np.ceil(min(prior.tail, 3.0))) - 1 for prior in priors]
    notes = moment_notes(**dict(zip((*structure.parameters, "theta"), tails, strict=True)))
    for lattice in list(table.lattices):
        if lattice.scales == scales:
            weighted = Weighted.of(lattice, priors)
            if weighted.holds and _reaches(weighted, orders):
                table.remember(lattice)
                return GammaCountsPosterior(spec, table, weighted, table.quality[lattice], tails, notes)
    again = bool(table.lattices)
    held = partial(_log_square, structure) if _wide(structure) else None
    drop = 16.0 if table.entities <= _FEW else 14.5
    first = 0
    if not table.poisson and table.entities <= _FEW:
        first = 1
    for nodes in _NODES[first:]:
        problem = Problem(
            priors, partial(table.log_likelihood, nodes=nodes), moment_start(structure), orders, drop, held
        )
        weighted = place(problem)
        quality = Quality(nodes, _rule_error(table, weighted, nodes))
        if quality.error <= _ACCURATE or table.poisson:
            break
    if not weighted.lattice.complete:
        raise NotExactError(
            "posterior of counts",
            "priors under which a few thousand nodes hold it",
            "tails that are too long",
            "Give alpha and phi proper priors such as HalfNormal, or sample.",
        )
    table.quality[weighted.lattice] = quality
    table.remember(weighted.lattice)
    return GammaCountsPosterior(spec, table, weighted, quality, tails, notes, again)


def _wide(structure: GammaCounts) -> bool:
    """Whether rates far above the counts hang on small α: only over-dispersed windows leave them room.

    Without any positive count their second moment grows without end, if only like log log 1/α.
    """
    return structure.likelihood == "negative_binomial" and bool(structure.count.any())


def _log_square(structure: GammaCounts, x: np.ndarray) -> np.ndarray:
    """Log E[θ²] of the population at parameters (P, D)."""
    state = population(structure, x)
    return np.log(state.shape) + np.log1p(state.shape) - 2 * np.log(state.rate)


def _reaches(weighted: Weighted, orders: list[int]) -> bool:
    """Whether moments are held, too: under heavy tails their integrands end later than the density."""
    mass = weighted.weights[:, None] * weighted.lattice.x ** np.array(orders)
    return bool((mass[weighted.lattice.edge].sum(axis=0) <= 1e-4 * mass.sum(axis=0)).all())


def _rule_error(table: CountsTable, weighted: Weighted, nodes: int) -> float:
    """What the rule over the rates does to means and sds, in sds: its error's slope and curvature."""
    if table.poisson:
        return 0.0
    lattice = weighted.lattice
    gap = lattice.v - weighted.weights @ lattice.v
    sds = np.sqrt(weighted.weights @ np.square(gap))
    order = np.argsort(-weighted.weights)
    likely = order[weighted.weights[order] > 0.02 * weighted.weights.max()]
    chosen = [likely[0]]
    for d in range(lattice.v.shape[1]):
        chosen += [likely[gap[likely, d].argmin()], likely[gap[likely, d].argmax()]]
    at = np.array(chosen)
    off = table.log_likelihood(lattice.x[at], 2 * nodes - 1) - lattice.log_likelihood[at]
    place = gap[at] / sds
    worst = 0.0
    for d in range(lattice.v.shape[1]):
        low, high = 1 + 2 * d, 2 + 2 * d
        reach = max(place[high, d] - place[low, d], 1e-3)
        slope = abs(off[high] - off[low]) / reach
        bend = abs(off[high] + off[low] - 2 * off[0]) / (0.25 * reach**2)
        worst = max(worst, slope, bend)
    return float(worst)


def _tails(spec: ModelSpec[GammaCounts]) -> list[float]:
    """Each b of densities that fall as x^(-b - 1), of μ, α, φ and θ; infinite for thinner tails.

    Where α or φ grows, the likelihood tends to a positive constant: that of one common rate, or of Poisson
    counts. Where μ grows, φ or α near 0 keep the likelihood from falling faster than a power of log μ.

    Raises
    ------
    ImproperPosteriorError, NotExactError
        The posterior has no finite mass, or hardly.
    """
    structure = spec.structure
    for name, limit in (("alpha", "one rate common to all entities"), ("phi", "Poisson counts")):
        if name in spec.priors and not spec.priors[name].proper:
            raise ImproperPosteriorError(
                f"prior on {name}",
                "a proper prior",
                f"{spec.priors[name].text}, under which the posterior has infinite mass at large {name}, "
                f"where the model tends to {limit}",
                f"Give {name} a proper prior such as HalfNormal.",
            )
    of_mu = spec.priors["mu"]
    positive = bool(structure.count.any())
    if not of_mu.proper:
        if not positive:
            raise ImproperPosteriorError(
                "prior on mu",
                "a proper prior where all counts are 0",
                of_mu.text,
                "Give mu a proper prior such as Exponential.",
            )
        raise NotExactError(
            "prior on mu",
            "a proper prior: small alpha or phi lets the posterior of mu fall slower than any power",
            of_mu.text,
            "Give mu a proper prior such as Exponential.",
        )
    # One positive count makes a moment of just this order finite, by a power of the logarithm.
    first = float(np.nextafter(of_mu.tail, np.inf)) if positive else of_mu.tail
    if structure.likelihood == "poisson" and structure.effects == "rate":
        # Only small alpha keeps up with a growing mu: its prior's mass there is what is left.
        of_alpha = spec.priors["alpha"]
        first = of_mu.tail + (of_alpha.origin if of_alpha.support[0] <= 0 else np.inf)
    rates = first
    near_zero = [prior.support[0] <= 0 and prior.origin <= 1 for prior in spec.priors.values()]
    if structure.likelihood == "negative_binomial" and not positive and all(near_zero[1:]):
        # Nothing but zeros lets both α and φ go to 0, where E[θ²] grows like log log 1/α.
        rates = min(first, 2.0)
    return [first, *(spec.priors[name].tail for name in structure.parameters[1:]), rates]
