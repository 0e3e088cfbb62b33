import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

from hbm_core.analysis import moments
from hbm_core.scenarios import scenario


def arrays(name):
    table = scenario("schools").dataset(name).table
    return table["effect"].to_numpy(), table["se"].to_numpy()


def random_sets():
    rng = np.random.default_rng(8)
    for _ in range(40):
        count = int(rng.integers(2, 40))
        se = rng.lognormal(0, 0.8, count)
        yield rng.normal(0, rng.choice([0, 0.3, 1, 5]), count) + rng.normal(0, se), se


def dense_restricted(effect, se, tau2):
    """Log likelihood of any basis of contrasts, from its dense covariance."""
    contrasts = np.diff(np.eye(effect.size), axis=0)
    covariance = contrasts @ np.diag(se**2 + tau2) @ contrasts.T
    return stats.multivariate_normal(np.zeros(effect.size - 1), covariance).logpdf(contrasts @ effect)


def test_eight_schools_are_the_boundary_case():
    effect, se = arrays("eight_schools")
    q, df, p = moments.cochran_q(effect, se)
    assert (round(q, 2), df, round(p, 3)) == (4.71, 7, 0.696)
    assert moments.i_squared(effect, se) == 0
    assert moments.tau2_dl(effect, se) == 0
    assert moments.tau2_pm(effect, se) == 0
    assert moments.tau2_reml(effect, se) == 0
    # BDA3, section 5.5: pooled estimate 7.7, variance 16.6.
    mean, error = moments.pooled(effect, se)
    assert (round(mean, 1), round(error**2, 1)) == (7.7, 16.6)


def test_bcg_agrees_with_its_published_meta_analysis():
    """Figures of the metafor manual (Viechtbauer 2010, J. Stat. Softw. 36(3)) for log risk ratios."""
    effect, se = arrays("bcg")
    q, df, _ = moments.cochran_q(effect, se)
    assert (round(q, 3), df) == (152.233, 12)
    assert round(moments.tau2_dl(effect, se), 4) == 0.3088
    assert round(moments.tau2_pm(effect, se), 4) == 0.3181
    tau2 = moments.tau2_reml(effect, se)
    assert round(tau2, 4) == 0.3132
    mean, error = moments.pooled(effect, se, tau2)
    assert (round(mean, 4), round(error, 4)) == (-0.7145, 0.1798)


def test_reml_likelihood_is_that_of_contrasts():
    effect, se = arrays("bcg")
    grid = [0.0, 0.1, 0.5, 2.0]
    ours = np.array([moments.restricted_log_likelihood(effect, se, tau2) for tau2 in grid])
    dense = np.array([dense_restricted(effect, se, tau2) for tau2 in grid])
    np.testing.assert_allclose(ours - ours[0], dense - dense[0], rtol=1e-10, atol=1e-10)


def test_reml_is_the_maximum_of_the_contrasts_likelihood():
    interior = 0
    for effect, se in random_sets():
        top = 4 * (effect.var() + se.max() ** 2)
        grid = np.concatenate([[0], np.geomspace(1e-6, 1, 120) * top])
        values = [dense_restricted(effect, se, tau2) for tau2 in grid]
        best = int(np.argmax(values))
        found = optimize.minimize_scalar(
            lambda tau2, effect=effect, se=se: -dense_restricted(effect, se, tau2),
            bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 120)]),
            method="bounded",
            options={"xatol": 1e-10 * top},
        )
        ours = moments.tau2_reml(effect, se)
        assert dense_restricted(effect, se, ours) >= max(-found.fun, values[0]) - 1e-9
        if ours > 0:
            interior += 1
            assert ours == pytest.approx(found.x, rel=1e-4)
    assert 10 < interior < 40


def test_paule_mandel_solves_its_equation():
    for effect, se in random_sets():
        tau2 = moments.tau2_pm(effect, se)

        def generalised_q(value, effect=effect, se=se):
            return (((effect - moments.pooled(effect, se, value)[0]) ** 2) / (se**2 + value)).sum()

        if tau2 > 0:
            assert generalised_q(tau2) == pytest.approx(effect.size - 1, abs=1e-6)
        else:
            assert generalised_q(0) <= effect.size - 1


def test_statsmodels_agrees():
    compared = 0
    for effect, se in [arrays("bcg"), arrays("beta_blockers"), *random_sets()]:
        q, df, _ = moments.cochran_q(effect, se)
        if q <= df:
            continue
        dl = combine_effects(effect, se**2, method_re="dl")
        assert moments.tau2_dl(effect, se) == pytest.approx(dl.tau2, rel=1e-9)
        assert q == pytest.approx(dl.q, rel=1e-9)
        assert moments.i_squared(effect, se) == pytest.approx(dl.i2, rel=1e-9)
        assert moments.pooled(effect, se) == pytest.approx((dl.mean_effect_fe, dl.sd_eff_w_fe), rel=1e-9)
        pm = combine_effects(effect, se**2, method_re="pm").tau2
        # Where it has passed the root by a rounding error, statsmodels says 0.
        if pm > 0:
            compared += 1
            assert moments.tau2_pm(effect, se) == pytest.approx(pm, rel=1e-4)
    assert compared > 15


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_estimates_follow_units_and_ignore_shifts(factor):
    effect, se = arrays("bcg")
    moved = effect * factor + 3 * factor, se * factor
    for method in (moments.tau2_dl, moments.tau2_pm, moments.tau2_reml):
        assert method(*moved) == pytest.approx(method(effect, se) * factor**2, rel=1e-7)
    assert moments.cochran_q(*moved)[0] == pytest.approx(moments.cochran_q(effect, se)[0], rel=1e-9)


def test_empirical_bayes_lies_between_its_two_limits():
    effect, se = arrays("bcg")
    estimate, error = moments.empirical_bayes(effect, se)
    tau2 = moments.tau2_reml(effect, se)
    mean, _ = moments.pooled(effect, se, tau2)
    assert ((estimate - mean) * (effect - mean) >= 0).all()
    assert (np.abs(estimate - mean) <= np.abs(effect - mean)).all()
    # Dense: the posterior mean and sd of θ given τ² under a flat prior on μ.
    prior = np.linalg.inv(np.eye(13) * tau2 + np.full((13, 13), 1e7))
    covariance = np.linalg.inv(prior + np.diag(1 / se**2))
    np.testing.assert_allclose(estimate, covariance @ (effect / se**2), rtol=1e-5)
    np.testing.assert_allclose(error, np.sqrt(np.diag(covariance)), rtol=1e-5)


def test_empirical_bayes_pools_completely_at_the_boundary():
    effect, se = arrays("eight_schools")
    found = moments.estimators(effect, se)
    for ours, complete in zip(found["empirical_bayes"], found["complete_pooling"], strict=True):
        np.testing.assert_allclose(ours, complete, rtol=1e-12)


def test_first_look_of_two_equal_units_has_no_rank_correlation():
    look = moments.first_look(np.array([1.0, 1.0]), np.array([2.0, 2.0])).set_index("quantity")["value"]
    assert look["Q"] == 0 and look["I2"] == 0 and look["p"] == 1
    assert pd.isna(look["rank_precision"])
