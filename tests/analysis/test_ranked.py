"""Truths ranked among draws, by every engine that makes them."""

import numpy as np
import pytest
from scipy.stats import kstest

from hbm_core.analysis.ranked import STUDIES, Drawn, solver
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

EFFECT, SE = np.array([3.0, -1.0, 4.0]), np.array([1.0, 2.0, 1.5])


def complete(effect=EFFECT):
    structure = TwoLevelNormal(effect, SE, ("a", "b", "c"), pooling="complete")
    return ModelSpec(structure, {"mu": Prior.parse("Normal(0, 5)")}, {}, structure.parameterizations[0])


def test_a_rank_is_uniform_where_the_truth_is_one_more_draw():
    rng = np.random.default_rng(0)
    ranks = [
        Drawn(("mu",), rng.normal(size=(20, 1)), rng).cdf("mu", rng.normal(size=1))[0] for _ in range(800)
    ]
    assert kstest(ranks, "uniform").pvalue > 0.01
    biased = [
        Drawn(("mu",), rng.normal(0.5, 1, (20, 1)), rng).cdf("mu", rng.normal(size=1))[0] for _ in range(800)
    ]
    assert kstest(biased, "uniform").pvalue < 1e-6


@pytest.mark.parametrize("engine", STUDIES)
def test_every_engine_draws_from_the_posterior_of_the_data_it_is_given(engine):
    for shift in (0.0, 7.0):
        found = solver(engine)(complete(EFFECT + shift))
        precision = 1 / 25 + (1 / SE**2).sum()
        mean, sd = ((EFFECT + shift) / SE**2).sum() / precision, precision**-0.5
        draws = found.values[:, found.names.index("mu")]
        assert len(draws) == 100
        assert abs(draws.mean() - mean) <= 4 * sd / 10
        assert sd / 1.5 <= draws.std() <= 1.5 * sd


def test_a_study_repeats():
    once, again = (solver("variational")(complete()).values for _ in range(2))
    np.testing.assert_array_equal(once, again)
