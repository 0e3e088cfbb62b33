"""Small designs for the proofs of creators in segments and over periods."""

from __future__ import annotations

import numpy as np

from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec

#: Groups, members of each, slots.
CROSSED, DRIFT = (3, 8, 3), (3, 8, 6)
#: Funnels are short under these, so that every geometry gets through them.
AVOIDING = "Gamma(4, 10)"
USUAL = {
    "sigma_genre": "HalfNormal(0.5)",
    "sigma_segment": "HalfNormal(0.3)",
    "sigma_interaction": "HalfNormal(0.3)",
    "sigma_drift": "HalfNormal(0.3)",
    "sigma_creator": "HalfNormal(0.5)",
}


def structure(walk: bool, seed: int = 5) -> GaussianMixed:
    """Creators with standard errors from 0.1 to 0.8, a tenth of the rows missing; all effects are 0."""
    groups, members, slots = DRIFT if walk else CROSSED
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(groups * members), slots)
    slot = np.tile(np.arange(slots), groups * members)
    kept = (rng.random(member.size) > 0.1) | (slot == 0)
    member, slot = member[kept], slot[kept]
    return GaussianMixed(
        np.zeros(member.size),
        np.exp(rng.uniform(np.log(0.1), np.log(0.8), member.size)),
        member // members,
        tuple(f"c{i} × {t}" for i, t in zip(member, slot, strict=True)),
        tuple(f"g{g}" for g in range(groups)),
        ("creator", "genre"),
        member=member,
        slot=slot,
        members=tuple(f"c{i}" for i in range(groups * members)),
        slots=tuple(str(t) for t in range(slots)),
        slot_level="period" if walk else "segment",
        walk=walk,
    )


def spec_of(walk: bool, parameterization: str = "collapsed", spread: str = "") -> ModelSpec[GaussianMixed]:
    """The model under its usual priors, or with `spread` as the prior of every spread."""
    found = structure(walk)
    priors = {name: Prior.parse(spread or USUAL[name]) for name in found.spreads}
    return ModelSpec(found, {"mu": Prior.parse("Normal(0, 1)"), **priors}, {}, parameterization)
