from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis.batched import tau_mixture, without
from hbm_core.analysis.loo import (
    elpd,
    elpd_difference,
    loo_table,
    outside_limit,
    psis_loo_table,
)
from hbm_core.errors import ImproperPosteriorError, InputError
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from tests.analysis.worlds import EFFECT, SE, dense, pooled, schools, tree_of


def test_log_density_is_a_ratio_of_evidences():
    table = loo_table(schools())
    full = dense(schools())[4]
    for place in (0, 5):
        keep = np.arange(8) != place
        rest = dense(schools(effect=EFFECT[keep], se=SE[keep]))[4]
        assert table["log_density"][place] == pytest.approx(full - rest, abs=1e-5)


def test_log_density_is_a_ratio_of_evidences_for_other_models():
    rng = np.random.default_rng(3)
    for spec in (
        schools("Flat()", "InverseGamma(1, 1)"),
        schools(effect=np.array([28.0, 8, -3, 700, -1, 1, 18, 12])),
        schools(design=rng.normal(size=(8, 1)), columns=("x",)),
        schools(scale="adaptive"),
    ):
        table = loo_table(spec)
        for place in (0, 3):
            rest = tau_mixture(without(spec, place)).log_evidence[0]
            expected = tau_mixture(spec).log_evidence[0] - rest
            assert table["log_density"][place] == pytest.approx(expected, abs=1e-7)


def test_predictive_distribution_by_simulation():
    spec, keep = schools(), np.arange(8) != 0
    tau, mass, *_ = dense(schools(effect=EFFECT[keep], se=SE[keep]))
    rng = np.random.default_rng(0)
    # μ given τ and the others, from the dense joint of μ and y
    count, node = 200_000, rng.choice(len(tau), 200_000, p=mass)
    precision = 1 / 400 + (1 / (tau[:, None] ** 2 + SE[keep] ** 2)).sum(axis=1)
    center = (EFFECT[keep] / (tau[:, None] ** 2 + SE[keep] ** 2)).sum(axis=1) / precision
    mu = center[node] + rng.standard_normal(count) / np.sqrt(precision[node])
    y = mu + np.hypot(tau[node], SE[0]) * rng.standard_normal(count)
    row = loo_table(spec).iloc[0]
    pit = (y <= EFFECT[0]).mean()
    assert row["pit"] == pytest.approx(pit, abs=4 * np.sqrt(pit * (1 - pit) / count))
    ends = np.quantile(y, [0.025, 0.5, 0.975])
    np.testing.assert_allclose(row[["low95", "predicted", "high95"]].to_numpy(float), ends, atol=0.35)
    assert not row["outside"]


def test_complete_and_no_pooling_in_closed_form():
    unpooled = loo_table(pooled("none", theta="Normal(3, 7)"))
    np.testing.assert_allclose(unpooled["log_density"], stats.norm.logpdf(EFFECT, 3, np.hypot(7, SE)))
    np.testing.assert_allclose(unpooled["pit"], stats.norm.cdf(EFFECT, 3, np.hypot(7, SE)))
    together = loo_table(pooled("complete", mu="Normal(0, 20)"))
    weight = 1 / SE[1:] ** 2
    precision = weight.sum() + 1 / 400
    expected = stats.norm.logpdf(28, weight @ EFFECT[1:] / precision, np.sqrt(225 + 1 / precision))
    assert together["log_density"][0] == pytest.approx(expected)


def test_flat_unpooled_units_predict_nothing():
    table = loo_table(pooled("none", theta="Flat()"))
    assert table["pit"].isna().all()
    assert not table["outside"].any()


def test_other_priors_on_mu_go_through_draws():
    # Student t with 1e8 degrees of freedom is the normal prior, by the other path
    drawn, exact = loo_table(schools("StudentT(100000000, 0, 20)")), loo_table(schools())
    assert (drawn["mcse"] > 0).all()
    gap = (drawn["log_density"] - exact["log_density"]).abs()
    assert (gap <= 4 * drawn["mcse"]).all()
    np.testing.assert_allclose(drawn["pit"], exact["pit"], atol=0.01)
    np.testing.assert_allclose(drawn["high95"], exact["high95"], atol=0.7)


@pytest.mark.parametrize("where", ["effects", "likelihood"])
def test_robust_models_through_draws(where):
    spec = schools(effect=EFFECT[:2].copy(), se=SE[:2].copy())
    structure = replace(spec.structure, **{where: "student_t"})
    spec = replace(spec, structure=structure, priors={**spec.priors, "nu": Prior.parse("Gamma(2, 0.1)")})
    row = loo_table(spec).iloc[0]
    expected = solve(spec).log_evidence - solve(without(spec, 0)).log_evidence
    assert abs(row["log_density"] - expected) < 4 * row["mcse"] + 1e-3
    assert row["low95"] < row["predicted"] < row["high95"]


def test_an_outlier_is_outside():
    effect = EFFECT.copy()
    effect[4] = 120.0
    table = loo_table(schools(effect=effect))
    assert table.loc[table["outside"], "unit"].tolist() == ["E"]
    assert table["pit"][4] > 0.999


def test_elpd_and_differences():
    a, b = loo_table(schools()), loo_table(schools("Normal(8, 5)", "HalfNormal(5)"))
    assert elpd(a)["elpd"] == pytest.approx(a["log_density"].sum())
    assert elpd(a)["se"] == pytest.approx(np.sqrt(8 * np.var(a["log_density"], ddof=1)))
    gap = a["log_density"] - b["log_density"]
    found = elpd_difference(a, b)
    assert found["difference"] == pytest.approx(gap.sum())
    assert found["se"] == pytest.approx(np.sqrt(8 * np.var(gap, ddof=1)))
    with pytest.raises(InputError):
        elpd_difference(a, b.iloc[1:])


def test_outside_limit_is_the_binomials():
    for units in (8, 40, 500):
        limit = outside_limit(units)
        assert stats.binom.cdf(limit, units, 0.05) >= 0.99 > stats.binom.cdf(limit - 1, units, 0.05)


def test_one_unit_cannot_be_left_out():
    with pytest.raises(ImproperPosteriorError):
        loo_table(schools(effect=EFFECT[:1], se=SE[:1]))


def test_importance_sampling_agrees_with_exact():
    drawn, exact = psis_loo_table(tree_of(schools())), loo_table(schools())
    assert drawn["unit"].tolist() == exact["unit"].tolist()
    np.testing.assert_allclose(drawn["log_density"], exact["log_density"], atol=0.03)
    assert drawn["reliable"].all()
    tree = tree_of(schools())
    del tree["log_likelihood"]
    with pytest.raises(InputError):
        psis_loo_table(tree)
