import numpy as np
import pytest

from hbm_core.analysis.shrinkage import (
    borrowing_matrix,
    pooling_factor,
    pooling_ledger,
    rank_crossings,
    shrinkage_table,
    three_poolings,
)
from hbm_core.inference.exact import solve
from tests.analysis.worlds import EFFECT, SCHOOLS, SE, pooled, schools


@pytest.fixture(scope="module")
def weak():
    return solve(schools())


def test_school_a_under_weak(weak):
    row = shrinkage_table(schools(), weak).set_index("unit").loc["A"]
    assert round(row["pooled"], 1) == 9.7
    assert row["displacement"] == pytest.approx(row["pooled"] - 28)
    assert row["realised"] == pytest.approx(row["displacement"] / (row["toward"] - 28))
    assert row["raw_high95"] - row["raw_low95"] == pytest.approx(2 * 1.959964 * 15, rel=1e-6)
    assert row["low95"] < row["low50"] < row["pooled"] < row["high50"] < row["high95"]


def test_displacement_does_not_follow_precision(weak):
    moved = shrinkage_table(schools(), weak).set_index("unit")["displacement"].abs()
    assert round(moved["A"]) == 18
    assert round(moved["H"]) == 4


def test_ranks_and_crossings(weak):
    table = shrinkage_table(schools(), weak)
    by_raw = table.sort_values("raw", ascending=False)["unit"].tolist()
    assert table.set_index("unit").loc[by_raw, "rank_raw"].tolist() == list(range(1, 9))
    assert (table["rank_change"] == table["rank_raw"] - table["rank_pooled"]).all()
    crossings = rank_crossings(table)
    pairs = {
        (a, b)
        for a, ra, pa in zip(table["unit"], table["raw"], table["pooled"], strict=True)
        for b, rb, pb in zip(table["unit"], table["raw"], table["pooled"], strict=True)
        if ra > rb and pa < pb
    }
    assert set(zip(crossings["unit_a"], crossings["unit_b"], strict=True)) == pairs
    assert ("E", "C") in pairs


def test_complete_pooling_ties_every_rank():
    spec = pooled("complete", mu="Normal(0, 20)")
    table = shrinkage_table(spec, solve(spec))
    assert (table["rank_pooled"] == 4.5).all()
    np.testing.assert_allclose(table["realised"].dropna(), 1)


def test_extra_columns_are_carried(weak):
    table = shrinkage_table(schools(), weak, groups=list("xxyyxxyy"), sizes=range(8))
    assert table["group"].tolist() == list("xxyyxxyy")
    assert table["size"].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("mu", "tau", "percent"),
    [("Normal(0, 20)", "HalfCauchy(10)", (18, 78, 4)), ("Normal(8, 5)", "HalfNormal(5)", (10, 50, 40))],
)
def test_ledger_of_school_a(mu, tau, percent):
    spec = schools(mu, tau)
    row = pooling_ledger(spec, solve(spec)).set_index("unit").loc["A"]
    shares = row[["weight_own", "weight_others", "weight_prior"]].to_numpy(dtype=float)
    assert tuple(np.round(100 * shares)) == percent
    assert shares.sum() == pytest.approx(1)


def test_own_weight_is_more_than_one_minus_b(weak):
    row = pooling_ledger(schools(), weak).set_index("unit").loc["A"]
    assert round(1 - row["pooling"], 3) == 0.112
    assert round(row["weight_own"], 3) == 0.179


def test_interval_of_b_is_that_of_tau(weak):
    ledger = pooling_ledger(schools(), weak)
    low, high = weak.quantiles((0.025, 0.975))[1]
    np.testing.assert_allclose(ledger["pooling_high95"], SE**2 / (SE**2 + low**2), rtol=1e-4)
    np.testing.assert_allclose(ledger["pooling_low95"], SE**2 / (SE**2 + high**2), rtol=1e-4)


def test_ledger_from_draws_is_the_quadratures(weak):
    tau = weak.draws(40_000, seed=3)["tau"]
    drawn, exact = pooling_ledger(schools(), weak, tau), pooling_ledger(schools(), weak)
    for name in ("pooling", "pooling_low95", "weight_own", "weight_others", "weight_prior"):
        np.testing.assert_allclose(drawn[name], exact[name], atol=0.01)


@pytest.mark.parametrize("tau", [0.0, 3.0, 50.0])
def test_borrowing_matrix_is_gaussian_conditioning(tau):
    prior = 400 + tau**2 * np.eye(8)
    gain = prior @ np.linalg.inv(prior + np.diag(SE**2))
    matrix = borrowing_matrix(schools(), tau)
    np.testing.assert_allclose(matrix[list(SCHOOLS)], gain, atol=1e-10)
    np.testing.assert_allclose(matrix["prior"], 1 - gain.sum(axis=1), atol=1e-10)


def test_borrowing_matrix_averages_over_tau(weak):
    matrix = borrowing_matrix(schools())
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    grid = np.linspace(0.005, 120, 12_000)
    mass = weak.density("tau", grid)
    mass = mass / mass.sum()
    prior = 400 + grid[:, None, None] ** 2 * np.eye(8)
    gain = prior @ np.linalg.inv(prior + np.diag(SE**2))
    np.testing.assert_allclose(matrix[list(SCHOOLS)], np.einsum("k,kij->ij", mass, gain), atol=1e-4)


def test_borrowing_rows_sum_to_one_with_covariates():
    rng = np.random.default_rng(1)
    spec = schools(design=rng.normal(size=(8, 1)), columns=("x",))
    np.testing.assert_allclose(borrowing_matrix(spec).sum(axis=1), 1)


def test_three_poolings_are_the_limits(weak):
    table = three_poolings(schools(), weak, "A").set_index("pooling")
    assert table.loc["none", "estimate"] == 28
    precision = (1 / SE**2).sum() + 1 / 400
    assert table.loc["complete", "estimate"] == pytest.approx((EFFECT / SE**2).sum() / precision)
    width = table.loc["complete", "high95"] - table.loc["complete", "low95"]
    assert width == pytest.approx(2 * 1.959964 / np.sqrt(precision), rel=1e-6)
    assert len(three_poolings(schools(), weak)) == 24


def test_tables_of_unpooled_models():
    spec = pooled("none", theta="Flat()")
    ledger = pooling_ledger(spec, solve(spec))
    assert (ledger["weight_own"] == 1).all()
    assert (ledger["pooling"] == 0).all()
    assert ledger["realised"].isna().all()


def test_pooling_factor():
    np.testing.assert_allclose(pooling_factor(schools(), np.array([0.0, 15.0]))[:, 0], [1.0, 0.5])
