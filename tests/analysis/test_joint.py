import numpy as np
import pytest

from hbm_core.analysis.covariance import exact_correlation, funnel_of
from hbm_core.analysis.joint import correlation, correlation_given_tau, exact_draws_table
from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from tests.analysis.worlds import SE, pooled, schools


@pytest.fixture(scope="module")
def posterior():
    return solve(schools())


def test_draws_have_the_exact_moments(posterior):
    names = ["mu", "tau", "theta[C]"]
    table = exact_draws_table(posterior, names, 20_000, seed=3)
    assert list(table.columns) == ["chain", "draw", *names, "divergent"]
    for name in names:
        place = posterior.index(name)
        error = posterior.sd[place] / np.sqrt(20_000)
        assert abs(table[name].mean() - posterior.mean[place]) < 4 * error
    assert not table["divergent"].any()


def test_an_unknown_name_is_refused(posterior):
    with pytest.raises(InputError, match="nonsense"):
        exact_draws_table(posterior, ["nonsense"], 10)


def test_the_funnel_is_the_draws_in_other_coordinates(posterior):
    table = exact_draws_table(posterior, ["mu", "tau", "theta[A]"], 50)
    found = funnel_of(table, "theta[A]")
    np.testing.assert_allclose(np.exp(found["log_tau"]), table["tau"])
    np.testing.assert_allclose(
        found["standardised"] * table["tau"] + table["mu"], table["theta[A]"], rtol=1e-9
    )


def test_given_tau_as_the_dense_posterior_has_it():
    # joint normal of (θ, y): prior covariance τ² I + 20² 11ᵀ
    tau = 6.0
    prior = tau**2 * np.eye(8) + 400 * np.ones((8, 8))
    posterior = prior - prior @ np.linalg.inv(prior + np.diag(SE**2)) @ prior
    sd = np.sqrt(np.diag(posterior))
    pairs = (posterior / np.outer(sd, sd))[np.triu_indices(8, 1)]
    row = correlation_given_tau(schools(), [tau]).iloc[0]
    np.testing.assert_allclose(
        [row["mean"], row["low"], row["high"]], [pairs.mean(), pairs.min(), pairs.max()], rtol=1e-9
    )


def test_it_falls_from_one_to_nothing():
    found = correlation_given_tau(schools(), [0.0, 1.0, 3.0, 10.0, 30.0, 1e5])["mean"]
    assert found.iloc[0] == pytest.approx(1)
    assert (np.diff(found) < 0).all()
    assert found.iloc[-1] == pytest.approx(0, abs=1e-6)


def test_the_matrix_is_exact_where_it_can_be(posterior):
    names = ["tau", "theta[B]", "theta[G]"]
    found, error = correlation(posterior, names)
    assert error == 0
    np.testing.assert_allclose(found, exact_correlation(posterior.spec).loc[names, names], rtol=1e-12)


def test_some_of_many_units_keep_what_all_units_say():
    names = ["mu", "tau", "theta[F]", "theta[H]"]
    found = exact_correlation(schools(), units=["F", "H"])
    np.testing.assert_allclose(found, exact_correlation(schools()).loc[names, names], rtol=1e-12)


def test_elsewhere_it_is_counted_and_says_so():
    # a Student-t prior on μ has no closed covariance given τ; a normal of the same width is near
    spec = schools(mu="StudentT(60, 0, 20)")
    posterior = solve(spec)
    names = ["mu", "theta[A]", "theta[B]"]
    found, error = correlation(posterior, names)
    assert 0 < error < 0.01
    near = exact_correlation(schools()).loc[names, names]
    np.testing.assert_allclose(found, near, atol=0.05)


def test_what_does_not_move_has_no_correlation():
    posterior = solve(pooled("complete", mu="StudentT(5, 0, 20)"))
    found, _ = correlation(posterior, ["mu", "theta[A]"])
    np.testing.assert_allclose(found, 1)
