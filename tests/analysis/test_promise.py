import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hbm_core.analysis.coverage import Truth, coverage_study, estimate
from hbm_core.analysis.promise import coverage_curve, infinite, lab_priors, like_sizes, tau_grid
from hbm_core.errors import NotExactError
from tests.analysis.worlds import SE, SKEPTICAL, WEAK, pooled, schools

PRIORS = {"weak": WEAK, "skeptical": SKEPTICAL}
#: Percent covered at fixed τ = 0, 10, 20, eight-schools design.
PUBLISHED = {"weak": (99.1, 92.7, 91.8), "skeptical": (99.9, 84.7, 78.5)}


@pytest.fixture(scope="module")
def curve():
    return coverage_curve(Truth(tuple(SE)), PRIORS, (0.0, 10.0, 20.0), replications=2000)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_coverage_at_fixed_tau(curve, name):
    rows = curve[(curve["estimator"] == name) & curve["tau"].notna()]
    np.testing.assert_allclose(100 * rows["coverage"], PUBLISHED[name], atol=0.8)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_promise_is_kept_averaged_over_the_prior(curve, name):
    row = curve[(curve["estimator"] == name) & curve["tau"].isna()].iloc[0]
    assert abs(row["coverage"] - 0.95) < 4 * row["coverage_se"]


def test_complete_pooling_in_closed_form(curve):
    # ȳ_w − θ_i has variance Σ w²(s² + τ²) + τ²(1 − 2 w_i), its interval the half width 1.96 (Σ 1/s²)^−½
    weight = 1 / SE**2 / (1 / SE**2).sum()
    half = stats.norm.ppf(0.975) * (1 / SE**2).sum() ** -0.5
    for tau in (0.0, 10.0, 20.0):
        sd = np.sqrt((weight**2 * (SE**2 + tau**2)).sum() + tau**2 * (1 - 2 * weight))
        expected = np.mean(2 * stats.norm.cdf(half / sd) - 1)
        row = curve[(curve["estimator"] == "complete") & (curve["tau"] == tau)].iloc[0]
        assert abs(row["coverage"] - expected) < 4 * row["coverage_se"]


def test_every_level_is_that_of_the_quantiles():
    truth, levels = Truth(tuple(SE), mu=0.0, tau=6.0, effects="clusters"), (0.5, 0.9)
    curve = coverage_curve(truth, {"weak": WEAK}, (6.0,), (), 60, seed=4, levels=levels)
    world = truth.simulate(60, 4)
    found = estimate("weak", world["effect"], SE, WEAK, levels)
    inside = (world["theta"][:, :, None] >= found.low) & (world["theta"][:, :, None] <= found.high)
    rows = curve[curve["tau"] == 6.0]
    np.testing.assert_allclose(rows["coverage"], inside.mean(axis=(0, 1)), atol=1e-12)


def test_progress_ends_at_one():
    seen = []
    coverage_curve(Truth(tuple(SE)), {"weak": WEAK}, (1.0,), replications=5, progress=seen.append)
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_sizes_keep_the_studys_range_and_middle():
    se = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    many = like_sizes(se, 201)
    assert many.size == 201
    assert (np.diff(many) >= 0).all()
    assert (many.min(), many.max()) == (1.0, 100.0)
    assert np.median(many) == pytest.approx(3.0)


@pytest.mark.parametrize("typical", [0.02, 11.0, 4e5])
def test_the_grid_follows_the_data(typical):
    grid = tau_grid(typical)
    assert grid[0] == 0
    share = grid / (grid + typical)
    assert (np.diff(share) > 0).all()
    assert np.diff(share).max() < 0.25
    assert share[-1] > 0.85


def test_the_lab_refuses_what_it_cannot_pool():
    assert lab_priors(schools()) == WEAK
    for spec in (
        pooled("complete", mu="Normal(0, 20)"),
        schools(scale="adaptive"),
        schools(mu="StudentT(4, 0, 10)"),
        schools(design=np.arange(8.0)[:, None] / 8, columns=("x",)),
    ):
        with pytest.raises(NotExactError, match="simulation lab"):
            lab_priors(spec)


def test_a_mean_that_does_not_exist_is_not_shown_as_one():
    table = coverage_study(Truth(tuple(SE), mu=0.0, tau=10.0), {"weak": WEAK}, replications=4)
    cauchy = infinite(table, WEAK["tau"].tail)
    complete = cauchy["estimator"] == "complete"
    assert np.isinf(cauchy.loc[complete, ["mse", "rmse", "mae", "interval_score"]]).all(axis=None)
    assert cauchy.loc[complete, "bias"].isna().all()
    assert np.isfinite(cauchy.loc[~complete, "mse"]).all()
    pd.testing.assert_frame_equal(infinite(table, SKEPTICAL["tau"].tail), table)
