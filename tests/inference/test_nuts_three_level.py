"""NUTS of three levels against the exact posterior, in every geometry."""

import numpy as np
import pytest

from hbm_core.analysis.draws import agreement, summary
from hbm_core.inference.exact import solve
from hbm_core.inference.nuts import sample
from hbm_core.inference.sampler import Sampler
from tests.models.test_pymc_three_level import three_level

pytestmark = pytest.mark.sampling


@pytest.mark.parametrize("parameterization", ["collapsed", "centered", "partial", "noncentered"])
def test_every_geometry_finds_the_exact_posterior(parameterization, compile_cache):
    # Zero-avoiding priors: the funnels are short, and every geometry gets through them.
    spec = three_level(parameterization, sigma_genre="Gamma(4, 5)", sigma_creator="Gamma(5, 6)")
    tree = sample(spec, Sampler(draws=2000, tune=1000, target_accept=0.95, seed=7), cache=compile_cache)
    assert float(tree["sample_stats"]["diverging"].mean()) < 1e-3
    found = agreement(summary(tree), solve(spec).summary(hdi=False))
    assert len(found) == 3 + 3 + 9
    assert found[["z_mean", "z_sd", "z_median"]].abs().max(axis=None) < 5


def test_result_has_the_names_and_labels_of_its_levels(compile_cache):
    spec = three_level("collapsed", sigma_genre="Gamma(4, 5)", sigma_creator="Gamma(5, 6)")
    tree = sample(spec, Sampler(draws=100, tune=100, chains=2), cache=compile_cache)
    posterior = tree["posterior"]
    assert posterior["mu_genre"].dims == ("chain", "draw", "group")
    assert list(posterior["group"].values) == ["x", "y", "z"]
    assert list(posterior["unit"].values) == list("abcdefghi")
    assert tree["log_likelihood"]["y"].shape == (2, 100, 9)
    # θ integrated out: the density of y_i around its group's mean.
    means = posterior["mu_genre"].values[..., spec.structure.group]
    variance = spec.structure.se**2 + posterior["sigma_creator"].values[..., None] ** 2
    want = -0.5 * ((spec.structure.effect - means) ** 2 / variance + np.log(2 * np.pi * variance))
    assert np.allclose(tree["log_likelihood"]["y"].values, want)


def test_other_numbers_and_other_data_compile_nothing(compile_cache):
    one = three_level("collapsed", sigma_genre="Gamma(4, 5)", sigma_creator="Gamma(5, 6)")
    sample(one, Sampler(draws=20, tune=20, chains=1), cache=compile_cache)
    before = compile_cache.compilations
    other = three_level(
        "collapsed", sigma_genre="Gamma(2, 1)", sigma_creator="Gamma(3, 2)", mu="Normal(5, 2)"
    )
    sample(other, Sampler(draws=20, tune=20, chains=1), cache=compile_cache)
    assert compile_cache.compilations == before
