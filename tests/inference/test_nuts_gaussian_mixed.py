"""NUTS of Gaussian mixed models against the exact posterior; the others' geometries: `make validate`."""

import numpy as np
import pytest

from hbm_core.analysis.draws import agreement, summary
from hbm_core.inference.exact import solve
from hbm_core.inference.nuts import sample
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from tests.inference.exact.mixed_brute_force import world

pytestmark = pytest.mark.sampling


def test_collapsed_walk_is_the_exact_posterior(compile_cache):
    structure = world(3, walk=True, groups=2, members=4, slots=3)
    # Zero-avoiding priors: the funnels are short.
    priors = {name: Prior.parse("Gamma(4, 10)") for name in structure.spreads}
    spec = ModelSpec(structure, {"mu": Prior.parse("Normal(0, 1)"), **priors}, {}, "collapsed")
    tree = sample(spec, Sampler(draws=1500, tune=800, target_accept=0.9, seed=7), cache=compile_cache)
    found = agreement(summary(tree), solve(spec).summary(hdi=False))
    assert len(found) == len(solve(spec).names)
    assert found[["z_mean", "z_sd", "z_median"]].abs().max(axis=None) < 5
    posterior = tree["posterior"]
    assert posterior["mu_genre"].dims == ("chain", "draw", "cell")
    assert list(posterior["cell"].values) == list(structure.cells)
    first = posterior["mu_genre"].values[..., 0]
    assert np.allclose(posterior["change"].values[..., 0], posterior["mu_genre"].values[..., 1] - first)
    # What leave-one-out asks of a row: its density given the other rows of its member.
    draw = {name: posterior[name].values[0, 0] for name in ("mu_genre", "sigma_creator")}
    member = np.flatnonzero(structure.member == structure.member[0])
    cov = np.full((member.size, member.size), draw["sigma_creator"] ** 2)
    cov += np.diag(structure.se[member] ** 2)
    precision = np.linalg.inv(cov)
    gap = structure.effect[member] - draw["mu_genre"][structure.cell[member]]
    variance = 1 / np.diag(precision)
    rest = variance * (precision @ gap)
    want = -0.5 * (np.log(2 * np.pi * variance) + rest**2 / variance)
    assert np.allclose(tree["log_likelihood"]["y"].values[0, 0, member], want)
