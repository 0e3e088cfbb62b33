from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from hbm_core.analysis import checks
from hbm_core.analysis.checks import (
    Evidence,
    check_result,
    computation_failures,
    contraction,
    divergence_from_prior,
    falsification_report,
    mode_count,
)
from hbm_core.analysis.predictive import cochran_q, pooled_mean, prior_predictive
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from tests.analysis.worlds import EFFECT, SE, dense, pooled, schools, tree_of

GROUPS = (
    "computation",
    "prior against data",
    "boundary",
    "learning",
    "shrinkage",
    "prediction",
    "adaptive only",
)


@pytest.fixture(scope="module")
def weak():
    spec = schools()
    return Evidence(spec, solve(spec), tree_of(spec), plausible=(-50, 50))


def verdict(code, evidence):
    return check_result(code, evidence).verdict


def test_report_of_a_sound_fit(weak):
    table = checks.report(weak)
    assert list(table.columns[:6]) == ["group", "criterion", "threshold", "measured", "verdict", "advice"]
    assert tuple(dict.fromkeys(table["group"])) == GROUPS
    assert table["code"].is_unique
    assert not (table["verdict"] == "fail").any()
    for _, row in table.iterrows():
        assert (row["advice"] != "") or row["verdict"] not in ("warn", "fail"), row["code"]
        allowed = {"fail": 3, "warn": 2, "information": 0}[row["severity"]]
        rank = {"fail": 3, "warn": 2}.get(row["verdict"], 0)
        assert rank <= allowed
    assert computation_failures(table).empty


def test_nothing_is_passed_without_evidence():
    table = falsification_report(schools("Flat()", "HalfCauchy(10)"))
    lone = table.set_index("code")["verdict"]
    for code in (
        "r_hat",
        "ess_bulk",
        "divergences",
        "bfmi",
        "quadrature",
        "prior_mean",
        "pareto_k",
        "boundary",
    ):
        assert lone[code] == "not applicable"


def test_a_new_check_joins_the_report(weak, monkeypatch):
    monkeypatch.setattr(checks, "_DECLARED", list(checks._DECLARED))

    @checks.check("Always", "prediction", "warn", "never")
    def always(evidence):
        return checks.Finding("warn", "1", 1.0, "Do nothing.")

    assert checks.report(weak).iloc[-1]["code"] == "always"


# --- computation


def test_divergences(weak):
    tree = weak.tree.copy(deep=True)
    flags = tree["sample_stats"]["diverging"].to_numpy()
    for count, expected in ((1, "warn"), (10, "warn"), (11, "fail")):
        flags[:] = False
        flags.ravel()[:count] = True
        assert verdict("divergences", Evidence(weak.spec, tree=tree)) == expected
    short = tree_of(schools(), draws=100)
    short["sample_stats"]["diverging"].to_numpy().ravel()[:5] = True
    assert verdict("divergences", Evidence(weak.spec, tree=short)) == "fail"  # 5 of 400: more than 1 %


def test_chains_that_disagree(weak):
    tree = weak.tree.copy(deep=True)
    tree["posterior"]["mu"][0] += 2.0
    assert verdict("r_hat", Evidence(weak.spec, tree=tree)) == "warn"
    tree["posterior"]["mu"][0] += 20.0
    found = check_result("r_hat", Evidence(weak.spec, tree=tree))
    assert found.verdict == "fail"
    assert "mu" in found.measured
    assert verdict("ess_bulk", Evidence(weak.spec, tree=tree)) == "fail"


def test_few_draws_and_slow_energy(weak):
    short = tree_of(schools(), draws=80)
    assert verdict("ess_bulk", Evidence(weak.spec, tree=short)) == "warn"
    tree = weak.tree.copy(deep=True)
    tree["sample_stats"]["energy"][:] = np.cumsum(tree["sample_stats"]["energy"].to_numpy(), axis=1)
    assert verdict("bfmi", Evidence(weak.spec, tree=tree)) == "warn"


# --- prior against data


def test_p_value_of_the_mean_is_its_integral():
    weight = 1 / SE**2 / (1 / SE**2).sum()
    observed = weight @ EFFECT

    def integrand(tau):
        sd = np.sqrt(400 + (weight**2 * (SE**2 + tau**2)).sum())
        return stats.norm.cdf(observed / sd) * stats.halfcauchy.pdf(tau, scale=10)

    below = integrate.quad(integrand, 0, 50)[0] + integrate.quad(integrand, 50, np.inf)[0]
    found = check_result("prior_mean", Evidence(schools()))
    assert found.value == pytest.approx(2 * (1 - below), abs=1e-5)


@pytest.mark.parametrize(("shift", "expected"), [(0, "pass"), (45, "warn"), (90, "fail")])
def test_a_mean_the_prior_did_not_expect(shift, expected):
    spec = schools("Normal(0, 20)", "HalfNormal(5)", effect=EFFECT + shift)
    assert verdict("prior_mean", Evidence(spec)) == expected


def test_p_value_of_q_under_complete_pooling_is_chi_squared():
    spec = pooled("complete", mu="Normal(0, 20)")
    below = stats.chi2.cdf(cochran_q(EFFECT, SE), 7)
    found = check_result("prior_q", Evidence(spec))
    assert found.value == pytest.approx(2 * min(below, 1 - below), abs=0.03)


@pytest.mark.parametrize(("stretch", "expected"), [(1, "pass"), (8, "fail"), (0.05, "fail")])
def test_spread_the_prior_did_not_expect(stretch, expected):
    spec = schools("Normal(0, 20)", "HalfNormal(5)", effect=EFFECT * stretch)
    assert verdict("prior_q", Evidence(spec)) == expected


def test_range_share_is_the_normals():
    spec = pooled("none", theta="Normal(0, 10)")
    expected = np.mean(2 * stats.norm.cdf(30 / np.hypot(10, SE)) - 1)
    found = check_result("prior_range", Evidence(spec, plausible=(-30, 30)))
    assert found.value == pytest.approx(expected, abs=0.005)
    assert verdict("prior_range", Evidence(spec, plausible=(-300, 300))) == "pass"
    assert verdict("prior_range", Evidence(spec, plausible=(-5, 5))) == "warn"


def test_prior_predictive_moments():
    spec = schools("Normal(8, 5)", "HalfNormal(5)", design=np.ones((8, 1)) * 2, columns=("x",))
    found = prior_predictive(spec, 60_000, seed=4)["effect"]
    np.testing.assert_allclose(found.mean(axis=0), 8, atol=0.5)
    np.testing.assert_allclose(found.var(axis=0), 25 + 25 + 4 * 100 + SE**2, rtol=0.04)
    robust = replace(spec.structure, design=np.empty((8, 0)), columns=(), effects="student_t")
    priors = {name: Prior.parse(p) for name, p in (("mu", "Normal(0, 1)"), ("tau", "Uniform(2, 2.0001)"))}
    heavy = replace(spec, structure=robust, priors=priors | {"nu": Prior.parse("Uniform(5, 5.0001)")})
    theta = prior_predictive(heavy, 60_000)
    residual = theta["theta"] - theta["mu"][:, None]
    assert stats.kstest(residual[:, 0] / 2, stats.t(5).cdf).pvalue > 1e-3


def test_pooled_mean_and_q():
    assert pooled_mean(EFFECT, SE) == pytest.approx(7.686, abs=1e-3)
    assert cochran_q(EFFECT, SE) == pytest.approx(4.707, abs=1e-3)


# --- boundary and learning


def test_boundary_ratio_is_the_bayes_factor(weak):
    at_zero = stats.multivariate_normal.logpdf(EFFECT, np.zeros(8), 400 + np.diag(SE**2))
    expected = np.exp(at_zero - dense(schools())[4])
    found = check_result("boundary", weak)
    assert found.verdict == "information"
    assert found.value == pytest.approx(expected, rel=1e-4)


def test_learning_about_tau_is_the_mean_log_likelihood_gain(weak):
    # KL(p(τ|y)‖p(τ)) = E[log p(y|τ) | y] − log p(y)
    tau, mass, _, _, evidence = dense(schools())
    gain = [
        stats.multivariate_normal.logpdf(EFFECT, np.zeros(8), 400 + np.diag(SE**2 + t**2)) for t in tau[::10]
    ]
    expected = mass[::10] @ np.array(gain) / mass[::10].sum() - evidence
    assert divergence_from_prior(schools(), weak.exact, "tau") == pytest.approx(expected, abs=1e-4)


def test_learning_about_mu_without_tau_is_gaussian():
    spec = pooled("complete", mu="Normal(0, 20)")
    posterior = solve(spec)
    mean, sd = posterior.mean[0], posterior.sd[0]
    expected = np.log(20 / sd) + (sd**2 + mean**2) / 800 - 0.5
    assert divergence_from_prior(spec, posterior, "mu") == pytest.approx(expected, abs=1e-6)
    assert contraction(spec, posterior, "mu") == pytest.approx(1 - sd / 20, abs=1e-6)


# --- shrinkage and prediction


def test_law_of_the_order_can_fail(weak):
    assert verdict("shrinkage_order", weak) == "pass"
    broken = solve(schools())
    broken.pooling = broken.pooling[::-1]
    assert verdict("shrinkage_order", Evidence(schools(), broken)) == "fail"
    assert verdict("shrinkage_order", Evidence(pooled("complete", mu="Normal(0, 20)"))) == "not applicable"


def test_law_of_the_realised_estimate_can_fail(weak):
    assert verdict("shrinkage_realised", weak) == "pass"
    tree = weak.tree.copy(deep=True)
    tree["posterior"]["theta"][:] = tree["posterior"]["theta"].to_numpy()[:, :, [1, 0, *range(2, 8)]]
    found = check_result("shrinkage_realised", Evidence(weak.spec, tree=tree))
    assert found.verdict == "fail"


def test_units_the_others_did_not_foresee():
    effect = EFFECT.copy()
    effect[[1, 4, 6]] = (150, -150, 151)
    spec = schools(tau="HalfNormal(2)", effect=effect)
    assert verdict("loo_outside", Evidence(spec)) == "fail"
    assert verdict("loo_coverage", Evidence(spec)) == "not applicable"


@pytest.mark.parametrize(("factor", "expected"), [(1.0, "pass"), (0.72, "warn"), (0.3, "fail")])
def test_coverage_where_there_are_units_enough(factor, expected):
    rng = np.random.default_rng(6)
    effect = rng.normal(0, 10, 200)
    # errors as told, effects without spread of their own; a tight prior keeps τ from absorbing the lie
    spec = schools("Normal(0, 20)", "HalfNormal(0.01)", effect=effect, se=np.full(200, 10 * factor))
    assert verdict("loo_coverage", Evidence(spec)) == expected
    assert verdict("loo_pit", Evidence(spec)) == ("pass" if expected == "pass" else "warn")


def test_pareto_k(weak):
    assert verdict("pareto_k", weak) == "pass"
    tree = weak.tree.copy(deep=True)
    rng = np.random.default_rng(0)
    tree["log_likelihood"]["y"][:, :, 3] = -rng.exponential(1.5, (4, 1000))
    assert verdict("pareto_k", Evidence(weak.spec, tree=tree)) == "warn"


# --- adaptive only


def test_adaptive_checks():
    spec = schools(scale="adaptive")
    evidence = Evidence(spec, solve(spec))
    assert verdict("adaptive_speed", evidence) == "not applicable"
    assert verdict("adaptive_modes", evidence) == "pass"
    low, high = (
        solve(replace(spec, priors=dict(spec.priors), constants={**spec.constants, "threshold": t}))
        for t in (2.0, 4.0)
    )
    moved = np.abs(high.mean - low.mean) / np.maximum(high.sd, low.sd)
    expected = np.delete(moved, low.index("tau")).max()
    assert check_result("adaptive_threshold", evidence).value == pytest.approx(expected)
    spread = check_result("adaptive_spread", evidence)
    assert spread.value == pytest.approx(evidence.exact.sd[1] / solve(schools()).sd[1])
    assert spread.verdict == ("pass" if spread.value >= 1 else "warn")


@pytest.mark.parametrize(
    ("ess", "seconds", "expected"), [(100.0, 9.0, "pass"), (100.0, 1.0, "warn"), (1e6, 9.0, "warn")]
)
def test_adaptive_must_earn_its_keep(weak, ess, seconds, expected):
    spec = schools(scale="adaptive")
    reference = {"ess_tau": ess, "seconds": seconds}
    evidence = Evidence(spec, tree=weak.tree, seconds=2.0, reference=reference)
    assert verdict("adaptive_speed", evidence) == expected


def test_modes_are_counted():
    x = np.linspace(-6, 6, 401)
    one = stats.norm.pdf(x)
    two = stats.norm.pdf(x, -2.5) + 0.6 * stats.norm.pdf(x, 2.5)
    assert mode_count(one) == 1
    assert mode_count(two) == 2
    assert mode_count(np.exp(-x)) == 1
    assert mode_count(np.exp(x)) == 1
