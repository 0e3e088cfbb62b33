import numpy as np
import pytest

from hbm_core.analysis.checks import Evidence
from hbm_core.analysis.decision import decision_path, means_and_sds
from hbm_core.analysis.loo import loo_table
from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from tests.analysis.worlds import EFFECT, schools, tree_of


def fit(spec, tree=None):
    return Evidence(spec, solve(spec), tree)


@pytest.fixture(scope="module")
def two():
    return {"weak": fit(schools()), "skeptical": fit(schools("Normal(8, 5)", "HalfNormal(5)"))}


def test_agreeing_fits(two):
    found = decision_path(two)
    assert found.chosen == "weak"
    assert found.red_flags == ()
    assert "agree" in found.recommendation
    assert tuple(dict.fromkeys(found.steps["step"])) == ("1 computation", "2 plausibility", "3 prediction")


def test_distance_is_in_posterior_sds(two):
    steps = decision_path(two).steps
    row = steps[steps["fit"] == "weak | skeptical"].iloc[0]
    a, b = (means_and_sds(evidence).drop("tau") for evidence in two.values())
    expected = ((a["mean"] - b["mean"]).abs() / np.minimum(a["sd"], b["sd"])).max()
    assert row["value"] == pytest.approx(expected)


def test_prediction_row_is_the_elpd_difference(two):
    steps = decision_path(two).steps
    row = steps[(steps["step"] == "3 prediction") & steps["fit"].str.contains(r"\|")].iloc[0]
    elpds = [loo_table(evidence.spec)["log_density"].sum() for evidence in two.values()]
    assert row["value"] == pytest.approx(min(elpds) - max(elpds))
    assert "unreliable" in row["measured"]


def test_a_fit_that_failed_is_dropped():
    tree = tree_of(schools(), draws=200)
    tree["sample_stats"]["diverging"].to_numpy().ravel()[:30] = True
    found = decision_path({"bad": Evidence(schools(), tree=tree), "good": fit(schools())})
    assert found.chosen == "good"
    assert "only fit" in found.recommendation
    alone = decision_path({"bad": Evidence(schools(), tree=tree)})
    assert alone.chosen is None
    assert "Do not report" in alone.recommendation
    assert any("exact engine" in flag for flag in alone.red_flags)


def test_few_effective_draws_are_dropped():
    found = decision_path({"short": Evidence(schools(), tree=tree_of(schools(), draws=20))})
    assert found.chosen is None


def test_models_that_answer_differently():
    rigid = fit(schools("Normal(60, 2)", "HalfNormal(0.5)"))
    found = decision_path({"weak": fit(schools()), "rigid": rigid})
    assert any("report both" in flag for flag in found.red_flags)


def test_prediction_decides_when_it_can():
    rng = np.random.default_rng(4)
    effect, se = rng.normal(0, 30, 60), np.full(60, 5.0)
    rigid = fit(schools("Normal(0, 20)", "HalfNormal(0.5)", effect=effect, se=se))
    free = fit(schools(effect=effect, se=se))
    found = decision_path({"rigid": rigid, "free": free})
    assert found.chosen == "free"
    assert "substantially better" in found.recommendation


def test_an_outlying_unit_and_failed_prediction_are_flagged():
    effect = EFFECT.copy()
    effect[4] = 150.0
    found = decision_path({"weak": fit(schools(effect=effect))})
    assert any("robust_effects" in flag and "E" in flag for flag in found.red_flags)
    effect = effect.copy()
    effect[[1, 6]] = -150.0
    found = decision_path({"tight": fit(schools(tau="HalfNormal(2)", effect=effect))})
    assert any("model robust." in flag for flag in found.red_flags)


def test_order_broken_everywhere():
    broken = solve(schools())
    broken.pooling = broken.pooling[::-1]
    found = decision_path({"weak": Evidence(schools(), broken)})
    assert any("no pooling" in flag for flag in found.red_flags)


def test_scale_beyond_the_data_questions_exchangeability():
    steps = decision_path({"wide": fit(schools(tau="Uniform(30, 40)"))}).steps
    row = steps[steps["criterion"].str.contains("spread")].iloc[0]
    assert row["verdict"] == "warn"
    assert row["value"] == pytest.approx(solve(schools(tau="Uniform(30, 40)")).quantiles((0.5,))[1, 0])


def test_refuses_what_cannot_be_compared(two):
    with pytest.raises(InputError):
        decision_path({})
    with pytest.raises(InputError):
        decision_path({"a": two["weak"], "b": fit(schools(effect=EFFECT[:4], se=np.ones(4)))})
