"""Prior predictive, laws and calibration of units in groups."""

import numpy as np
import pytest

from hbm_core.analysis.checks import Evidence, check_result, falsification_report
from hbm_core.analysis.coverage import sbc_pit, uniformity
from hbm_core.analysis.predictive import prior_predictive
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.store.tasks import exact_draws


def spec(factor=1.0, seed=0, count=12):
    rng = np.random.default_rng(seed)
    se = rng.uniform(0.2, 1.0, count)
    structure = ThreeLevelNormal(
        rng.normal(0, 1, count),
        factor * se,
        np.arange(count) % 3,
        tuple(f"c{k}" for k in range(count)),
        ("x", "y", "z"),
        ("creator", "genre"),
    )
    priors = {"mu": "Normal(0.5, 1)", "sigma_genre": "HalfNormal(0.8)", "sigma_creator": "HalfNormal(0.5)"}
    return ModelSpec(structure, {name: Prior.parse(text) for name, text in priors.items()}, {}, "collapsed")


def test_prior_predictive_moments_are_the_sums_of_variances():
    model, count = spec(), 200_000
    found = prior_predictive(model, count, seed=1)
    among, within = 0.8**2, 0.5**2
    variance = 1 + among + within + model.structure.se**2
    assert np.abs(found["effect"].mean(axis=0) - 0.5).max() < 5 * np.sqrt(variance.max() / count)
    # The fourth moments of scale mixtures are at most nine times the squared variance here.
    assert np.abs(found["effect"].var(axis=0) / variance - 1).max() < 5 * np.sqrt(8 / count)
    cov = np.cov(found["effect"].T)
    assert cov[0, 3] == pytest.approx(1 + among, abs=0.03)
    assert cov[0, 1] == pytest.approx(1, abs=0.03)


def test_laws_hold_for_exact_draws_and_break_when_draws_are_wrong():
    model = spec()
    exact = solve(model)
    tree = exact_draws(model, 4, 1000, 3)
    report = falsification_report(model, exact, tree).set_index("code")
    for code in ("shrinkage_order", "shrinkage_realised", "quadrature"):
        assert report.loc[code, "verdict"] == "pass", code
    assert report.loc["boundary", "verdict"] == "not applicable"
    assert "KL" in report.loc["learning_tau", "measured"]
    tree["posterior"]["theta"] = tree["posterior"]["theta"] + 0.2
    assert check_result("shrinkage_realised", Evidence(model, exact, tree)).verdict == "fail"


def test_calibration_passes_and_finds_wrong_standard_errors_out():
    right = sbc_pit(spec(), 120, seed=5, units=4)
    names = {"mu", "sigma_genre", "sigma_creator", "mu_genre[x]", "theta[c0]"}
    assert names <= set(right.columns)
    assert uniformity(right)["passed"]
    wrong = sbc_pit(spec(), 120, seed=5, units=4, fitted=spec(factor=0.3))
    assert not uniformity(wrong)["passed"]
