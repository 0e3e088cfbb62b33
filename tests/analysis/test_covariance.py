import numpy as np
import pytest

from hbm_core.analysis.covariance import (
    draws_correlation,
    draws_table,
    exact_correlation,
    exact_covariance,
    funnel_table,
    pairs_table,
)
from hbm_core.errors import InputError, NotExactError
from hbm_core.inference.exact import solve
from tests.analysis.worlds import dense, pooled, schools, tree_of


def total_covariance(spec):
    _, mass, mean, covariance, _ = dense(spec)
    deviation = mean - mass @ mean
    return np.einsum("k,kij->ij", mass, covariance) + (deviation * mass[:, None]).T @ deviation


def test_theta_covariance_is_dense():
    found = exact_covariance(schools(), hyper=False)
    np.testing.assert_allclose(found, total_covariance(schools()), rtol=1e-5)


def test_covariates_too():
    spec = schools(design=np.random.default_rng(2).normal(size=(8, 1)), columns=("x",))
    np.testing.assert_allclose(exact_covariance(spec, hyper=False), total_covariance(spec), rtol=1e-5)


def test_hyperparameters_against_joint_draws():
    posterior = solve(schools())
    drawn = posterior.draws(200_000, seed=5)
    stacked = np.column_stack([drawn["mu"], drawn["tau"], drawn["theta"]])
    found = exact_correlation(schools())
    assert found.index[:3].tolist() == ["mu", "tau", "theta[A]"]
    np.testing.assert_allclose(found, np.corrcoef(stacked.T), atol=0.015)
    sd = np.sqrt(np.diag(exact_covariance(schools())))
    np.testing.assert_allclose(sd, posterior.sd, rtol=1e-6)


def test_infinite_variance_of_tau_is_left_out():
    spec = schools("Flat()", "Flat()", np.array([1.0, 5, 9, -2]), np.ones(4))
    assert "tau" not in exact_covariance(spec).index


def test_complete_pooling_moves_as_one():
    found = exact_correlation(pooled("complete", mu="Normal(0, 20)"))
    np.testing.assert_allclose(found, 1)


def test_needs_a_gaussian_given_tau():
    with pytest.raises(NotExactError):
        exact_correlation(schools("StudentT(4, 0, 20)"))


def test_draws_are_labelled_and_flagged():
    tree = tree_of(schools(), draws=500)
    tree["sample_stats"]["diverging"][2, 7] = True
    table = draws_table(tree)
    assert list(table.columns[:5]) == ["chain", "draw", "mu", "tau", "theta[A]"]
    row = table[table["divergent"]]
    assert row[["chain", "draw"]].to_numpy().tolist() == [[2, 7]]
    assert row["theta[C]"].item() == tree["posterior"]["theta"].sel(chain=2, draw=7, unit="C").item()
    thinned = pairs_table(tree, ["mu", "tau"], limit=100)
    assert thinned["divergent"].sum() == 1
    assert len(thinned) <= 101
    with pytest.raises(InputError):
        draws_table(tree, ["theta[Z]"])


def test_funnel():
    tree = tree_of(schools(), draws=200)
    table = funnel_table(tree, "B", limit=10_000)
    posterior = tree["posterior"]
    tau, theta = posterior["tau"].to_numpy().ravel(), posterior["theta"].sel(unit="B").to_numpy().ravel()
    np.testing.assert_allclose(np.exp(table["log_tau"]), tau)
    np.testing.assert_allclose(table["standardised"], (theta - posterior["mu"].to_numpy().ravel()) / tau)


def test_correlation_of_draws_approaches_exact():
    found, error = draws_correlation(tree_of(schools(), draws=5000))
    exact = exact_correlation(schools())
    # The largest of 45 errors of independent draws is near the largest possible one, 1/√n.
    assert 0.4 / np.sqrt(20_000) < error < 2.5 / np.sqrt(20_000)
    assert np.abs(found.loc[exact.index, exact.columns] - exact).max(axis=None) < 5 * error
