"""Shrinkage toward group means: against the joint normal written out, by quadrature over both spreads."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hbm_core.analysis.shrinkage import shrinkage_table
from hbm_core.analysis.shrinkage_three_level import lending_table, pooling_ledger, three_poolings
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

GROUP = np.array([0, 0, 0, 1, 1, 2, 2, 2])
EFFECT = np.array([0.3, 1.2, -0.4, 2.0, 1.1, 0.2, 0.5, 0.9])
SE = np.array([0.4, 0.9, 0.6, 0.3, 1.1, 0.8, 0.5, 0.7])


@pytest.fixture(scope="module")
def spec():
    structure = ThreeLevelNormal(EFFECT, SE, GROUP, tuple("abcdefgh"), ("x", "y", "z"), ("creator", "genre"))
    priors = {"mu": "Normal(0, 1)", "sigma_genre": "HalfNormal(1)", "sigma_creator": "HalfNormal(1)"}
    return ModelSpec(structure, {name: Prior.parse(text) for name, text in priors.items()}, {}, "collapsed")


@pytest.fixture(scope="module")
def truth():
    """Means and linear weights by full covariance matrices, averaged over the spreads."""
    node, weight = np.polynomial.legendre.leggauss(48)
    among, within = np.meshgrid(3 * (node + 1), 3 * (node + 1), indexing="ij")
    member = np.eye(3)[GROUP]
    # (μ_g, θ) and y are jointly normal: coefficients of y in every conditional mean, and of the prior's 0.
    logs, gains, factors = [], [], []
    for a, w in zip(among.ravel(), within.ravel(), strict=True):
        means = a**2 * np.eye(3) + 1.0
        theta = member @ means @ member.T + w**2 * np.eye(8)
        total = theta + np.diag(SE**2)
        inverse = np.linalg.inv(total)
        logs.append(
            -0.5 * (EFFECT @ inverse @ EFFECT + np.linalg.slogdet(total)[1])
            + stats.halfnorm(0, 1).logpdf(a)
            + stats.halfnorm(0, 1).logpdf(w)
        )
        gains.append(np.vstack([means @ member.T @ inverse, theta @ inverse]))
        factors.append(SE**2 / (SE**2 + w**2))
    mass = np.exp(np.array(logs) - max(logs)) * np.outer(weight, weight).ravel()
    mass /= mass.sum()
    gain = np.einsum("k,kij->ij", mass, np.array(gains))
    return gain, mass @ np.array(factors)


def test_units_are_pulled_to_their_groups_means(spec, truth):
    gain, pooling = truth
    posterior = solve(spec)
    table = shrinkage_table(spec, posterior).set_index("unit")
    assert np.allclose(table["pooled"], gain[3:] @ EFFECT, atol=1e-6)
    assert np.allclose(table["toward"], (gain[:3] @ EFFECT)[GROUP], atol=1e-6)
    assert np.allclose(table["raw"], EFFECT) and list(table["group"]) == [*"xxxyyzzz"]
    assert np.allclose(table["displacement"], table["pooled"] - EFFECT)
    assert np.array_equal(table["rank_raw"], stats.rankdata(-EFFECT))
    assert np.array_equal(table["rank_pooled"], stats.rankdata(-(gain[3:] @ EFFECT)))
    ledger = pooling_ledger(spec, posterior, table.reset_index())
    assert np.allclose(ledger["pooling"], pooling, atol=1e-6)
    assert (ledger["pooling_low95"] < ledger["pooling"]).all()
    assert (ledger["pooling"] < ledger["pooling_high95"]).all()


def test_weights_are_those_of_the_joint_normal_and_sum_to_one(spec, truth):
    gain, _ = truth
    posterior = solve(spec)
    ledger = pooling_ledger(spec, posterior, shrinkage_table(spec, posterior))
    own = np.diag(gain[3:])
    same = GROUP[:, None] == GROUP
    group = (gain[3:] * same).sum(axis=1) - own
    beyond = (gain[3:] * ~same).sum(axis=1)
    for name, value in {"own": own, "group": group, "beyond": beyond, "others": group + beyond}.items():
        assert np.allclose(ledger[f"weight_{name}"], value, atol=1e-6), name
    assert np.allclose(ledger[["weight_own", "weight_others", "weight_prior"]].sum(axis=1), 1)
    lending = lending_table(spec, posterior)
    want = np.stack([(gain[:3] * (g == GROUP)).sum(axis=1) for g in range(3)], axis=1)
    assert np.allclose(lending[["x", "y", "z"]], want, atol=1e-6)
    assert np.allclose(lending.sum(axis=1), 1)


def test_some_units_are_the_same_rows_as_all(spec):
    posterior = solve(spec)
    from hbm_core.analysis.shrinkage_three_level import shrinkage_table as some

    places = np.array([6, 1, 3])
    pd.testing.assert_frame_equal(
        some(spec, posterior, places), some(spec, posterior).iloc[places].reset_index(drop=True)
    )


def test_complete_pooling_is_one_value_per_group(spec):
    posterior = solve(spec)
    long = three_poolings(spec, posterior, ["a", "b", "d"]).set_index(["pooling", "unit"])
    assert long.loc[("complete", "a"), "estimate"] == pytest.approx(long.loc[("complete", "b"), "estimate"])
    assert long.loc[("none", "b"), "estimate"] == 1.2
    # Without spread within groups a group is its precision-weighted mean, itself drawn to μ: between both.
    weight = 1 / SE[:3] ** 2
    alone = weight @ EFFECT[:3] / weight.sum()
    assert 0 < (long.loc[("complete", "a"), "estimate"] - alone) < 0.3


def test_a_summary_of_draws_gives_the_same_table(spec):
    posterior = solve(spec)
    exact, summary = shrinkage_table(spec, posterior), posterior.summary(hdi=False)
    drawn = shrinkage_table(spec, summary)
    assert np.allclose(drawn["pooled"], exact["pooled"]) and np.allclose(drawn["toward"], exact["toward"])
