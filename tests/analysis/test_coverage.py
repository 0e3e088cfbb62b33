import numpy as np
import pytest
from scipy import optimize, stats

from hbm_core.analysis.coverage import (
    Truth,
    coverage_by_tau,
    coverage_study,
    ecdf_band,
    estimate,
    rank_histogram,
    reml_tau,
    sbc,
    sbc_pit,
    uniform_threshold,
    uniformity,
)
from hbm_core.errors import InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from tests.analysis.worlds import EFFECT, SE, SKEPTICAL, WEAK, schools

PRIORS = {"weak": WEAK, "skeptical": SKEPTICAL}
#: Percent covered at fixed τ = 0, 10, 20, eight-schools design.
PUBLISHED = {"weak": (99.1, 92.7, 91.8), "skeptical": (99.9, 84.7, 78.5)}


@pytest.fixture(scope="module")
def by_tau():
    return coverage_by_tau(SE, PRIORS, (0.0, 10.0, 20.0), replications=2000)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_coverage_at_fixed_tau(by_tau, name):
    found = by_tau[(by_tau["estimator"] == name) & by_tau["tau"].notna()]
    np.testing.assert_allclose(100 * found["coverage"], PUBLISHED[name], atol=0.8)


@pytest.mark.parametrize("name", PUBLISHED)
def test_promise_holds_averaged_over_the_prior(by_tau, name):
    row = by_tau[(by_tau["estimator"] == name) & by_tau["tau"].isna()].iloc[0]
    assert abs(row["coverage"] - 0.95) < 4 * row["coverage_se"]


def test_batched_estimates_are_the_engines():
    rng = np.random.default_rng(2)
    effects = rng.normal(5, [[12.0], [40.0]], (2, 8))
    found = estimate("weak", effects, SE, WEAK, (0.5, 0.95))
    for row, effect in enumerate(effects):
        engine = solve(schools(effect=effect))
        sd = engine.sd[engine.theta].max()
        np.testing.assert_allclose(found.point[row], engine.mean[engine.theta], atol=1e-7 * sd)
        ends = engine.quantiles((0.25, 0.025, 0.75, 0.975))[engine.theta]
        np.testing.assert_allclose(found.low[row], ends[:, :2], atol=1e-6 * sd)
        np.testing.assert_allclose(found.high[row], ends[:, 2:], atol=1e-6 * sd)


def test_classical_estimators_in_closed_form():
    z = stats.norm.ppf(0.975)
    none = estimate("none", EFFECT[None], SE, levels=(0.95,))
    np.testing.assert_allclose(none.high[0, :, 0], EFFECT + z * SE)
    complete = estimate("complete", EFFECT[None], SE, levels=(0.95,))
    weight = 1 / SE**2
    np.testing.assert_allclose(complete.point[0], weight @ EFFECT / weight.sum())
    # REML is 0 for the eight schools: plug-in intervals collapse on the mean
    eb = estimate("eb", EFFECT[None], SE, levels=(0.95,))
    np.testing.assert_allclose(eb.point, complete.point)
    np.testing.assert_allclose(eb.high - eb.low, 0, atol=1e-9)


def test_reml_maximises_the_restricted_likelihood():
    rng = np.random.default_rng(8)
    effects = rng.normal(0, 25, (5, 8))

    def negative(tau, y):
        v = tau**2 + SE**2
        m = (y / v).sum() / (1 / v).sum()
        return 0.5 * (np.log(v).sum() + np.log((1 / v).sum()) + ((y - m) ** 2 / v).sum())

    for y, found in zip(effects, reml_tau(effects, SE), strict=True):
        best = min(
            (
                optimize.minimize_scalar(negative, bounds=b, args=(y,), method="bounded")
                for b in ((0, 20), (10, 200))
            ),
            key=lambda result: result.fun,
        )
        assert negative(found, y) <= best.fun + 1e-9
    assert reml_tau(EFFECT[None], SE)[0] == 0


def test_wrong_standard_errors_cost_their_known_coverage():
    truth = Truth(tuple(SE), mu=3.0, tau=5.0, se_factor=2.0)
    row = coverage_study(truth, {}, ("none",), 4000, levels=(0.95,), groupings=("all",)).iloc[0]
    expected = 2 * stats.norm.cdf(1.959964 / 2) - 1
    assert abs(row["coverage"] - expected) < 4 * row["coverage_se"]
    assert abs(row["mse"] - 4 * np.mean(SE**2)) < 4 * row["mse_se"]
    assert abs(row["bias"]) < 4 * row["bias_se"]
    assert row["width"] == pytest.approx(2 * 1.959964 * SE.mean(), rel=1e-6)


def test_interval_score_of_a_normal_interval():
    # E[score] of y ± z s is 2 s (z + (2/α)(φ(z) − z Φ(−z)))
    z, alpha = stats.norm.ppf(0.95), 0.1
    truth = Truth((7.0, 7.0), mu=0.0, tau=1.0)
    row = coverage_study(truth, {}, ("none",), 20_000, levels=(0.9,), groupings=("all",)).iloc[0]
    expected = 2 * 7 * (z + 2 / alpha * (stats.norm.pdf(z) - z * stats.norm.cdf(-z)))
    assert abs(row["interval_score"] - expected) < 4 * row["interval_score_se"]


def test_selection_breaks_the_raw_interval():
    truth = Truth(tuple(SE), mu=0.0, tau=5.0)
    table = coverage_study(truth, {"weak": WEAK}, ("none", "partial"), 500, levels=(0.95,))
    winners = table[table["bin"] == "largest raw effect"].set_index("estimator")
    assert winners.loc["none", "bias"] > 10
    assert abs(winners.loc["weak", "bias"]) < winners.loc["none", "bias"] / 3
    assert winners.loc["weak", "interval_score"] < winners.loc["none", "interval_score"]
    assert set(table["grouping"]) == {"all", "precision", "selection", "distance"}
    thirds = table[(table["grouping"] == "distance") & (table["estimator"] == "weak")].set_index("bin")
    assert thirds.loc["nearest the mean", "coverage"] > thirds.loc["farthest from the mean", "coverage"]
    sizes = table[table["grouping"] == "precision"].groupby("estimator")["units"].sum()
    assert (sizes == 8 * 500).all()


@pytest.mark.parametrize("effects", ["normal", "student_t", "clusters"])
def test_effects_have_the_stated_spread(effects):
    world = Truth((1.0,) * 50, mu=4.0, tau=3.0, effects=effects, nu=8.0).simulate(4000, 1)
    assert world["theta"].mean() == pytest.approx(4, abs=0.05)
    assert world["theta"].std() == pytest.approx(3, rel=0.02)
    kurtosis = stats.kurtosis(world["theta"].ravel())
    assert {"normal": abs(kurtosis) < 0.1, "student_t": kurtosis > 0.8, "clusters": kurtosis < -1}[effects]


def test_the_same_seed_gives_the_same_table():
    truth = Truth(tuple(SE), tau=Prior.parse("HalfNormal(5)"))
    first, second = (coverage_study(truth, {"weak": WEAK}, ("partial",), 50, seed=9) for _ in range(2))
    assert first.equals(second)


def test_labels_for_bins():
    truth = Truth(tuple(SE))
    table = coverage_study(truth, {}, ("none",), 20, bins=list("aabbbbbb"), groupings=("precision",))
    assert table.groupby("bin")["units"].first().to_dict() == {"a": 40, "b": 120}
    with pytest.raises(InputError):
        coverage_study(truth, {}, ("none",), 20, bins=["a"])


@pytest.mark.parametrize(
    "wrong",
    [{"se": (1.0, -1.0)}, {"tau": -1.0}, {"effects": "odd"}, {"nu": 2.0}, {"se_factor": 0.0}, {"mu": np.nan}],
)
def test_impossible_worlds_are_refused(wrong):
    with pytest.raises(InputError):
        Truth(**({"se": (1.0, 2.0)} | wrong))


def test_refuses_what_has_no_batch():
    with pytest.raises(NotExactError):
        estimate("x", EFFECT[None], SE, {"mu": Prior.parse("StudentT(4, 0, 20)"), "tau": WEAK["tau"]})
    with pytest.raises(InputError):
        estimate("x", EFFECT[None], SE)
    with pytest.raises(InputError):
        coverage_study(Truth((1.0,)), {}, ("none",), 1)


def test_false_alarms_of_the_uniformity_test():
    rng = np.random.default_rng(11)
    alarms = [not uniformity(rng.random((150, 4)), 0.1)["passed"] for _ in range(600)]
    # at most 10 %, and not vacuous
    assert stats.binomtest(sum(alarms), 600, 0.1, alternative="greater").pvalue > 0.001
    assert sum(alarms) > 20


@pytest.mark.parametrize("shape", [(1.6, 1.6), (0.7, 0.7), (1.0, 1.4)])
def test_uniformity_sees_what_is_not_uniform(shape):
    rng = np.random.default_rng(3)
    found = uniformity(rng.beta(*shape, (1000, 3)))
    assert not found["passed"]
    assert found["threshold"] == uniform_threshold(1000, 3)


def test_statistic_is_the_ecdfs():
    values = np.array([0.004, 0.2, 0.21, 0.6, 0.95])
    z = np.arange(1, 100) / 100
    ecdf = (values[:, None] <= z).mean(axis=0)
    expected = np.abs((ecdf - z) / np.sqrt(z * (1 - z) / 5)).max()
    assert uniformity(values)["statistic"] == pytest.approx(expected)


def test_calibration_of_the_engine():
    found = sbc(schools("Normal(8, 5)", "HalfNormal(5)"), 300, seed=5)
    assert found["passed"], found
    assert found["replications"] == 300


@pytest.mark.parametrize("tau", ["HalfNormal(1)", "HalfNormal(20)"])
def test_calibration_fails_a_wrong_posterior(tau):
    truth = schools("Normal(8, 5)", "HalfNormal(5)")
    assert not sbc(truth, 300, seed=5, fitted=schools("Normal(8, 5)", tau))["passed"]


def test_tables_of_ranks():
    pit = sbc_pit(schools("Normal(8, 5)", "HalfNormal(5)"), 40, units=2)
    assert list(pit.columns) == ["mu", "tau", "theta[A]", "theta[E]"]
    assert ((pit >= 0) & (pit <= 1)).all().all()
    histogram = rank_histogram(pit, bins=10)
    assert (histogram.groupby("parameter")["count"].sum() == 40).all()
    band = ecdf_band(pit)
    inside = ((band["difference"] >= band["low"]) & (band["difference"] <= band["high"])).all()
    assert inside == uniformity(pit)["passed"]
