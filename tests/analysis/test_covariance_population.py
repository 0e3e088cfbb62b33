"""The population's tables against known normals, and departures against priors that draws come from."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis import covariance_population as tables
from hbm_core.analysis.draws import jackknife
from hbm_core.models.prior import Prior
from hbm_core.models.vector_population import SeparationLaw
from tests.analysis.populations import onion, tree_of, vector_of

PRIOR = Prior("LogNormal", (-1.4, 0.5))
LAW = SeparationLaw((PRIOR,) * 3, 2.0)


@pytest.fixture(scope="module")
def prior_tree():
    """Draws of the prior itself, but one correlation moved and one sd narrowed."""
    rng = np.random.default_rng(11)
    count = 2000
    omega = onion(2.0, 3, count, rng)
    sigma = np.exp(-1.4 + 0.5 * rng.normal(size=(count, 3)))
    sigma[:, 1] = np.exp(-1.4 + 0.1 * rng.normal(size=count))
    moved = 2 * rng.beta(30, 10, count) - 1
    omega[:, 1, 0] = omega[:, 0, 1] = moved
    theta = rng.normal(size=(count, 5, 3))
    return tree_of(vector_of(), np.zeros((count, 3)), sigma, omega, theta), moved, sigma


def test_the_matrix_says_what_the_draws_are(prior_tree):
    tree, moved, sigma = prior_tree
    table = tables.matrix_table(tree, vector_of()).set_index("parameter")
    row = table.loc["corr[b,a]"]
    assert (row["row"], row["column"], row["kind"]) == ("b", "a", "correlation")
    assert row["mean"] == pytest.approx(moved.mean())
    assert row["low90"] == pytest.approx(np.quantile(moved, 0.05))
    assert row["sign"] == pytest.approx((moved > 0).mean())
    assert table.loc["sigma[b]", "high90"] == pytest.approx(np.quantile(sigma[:, 1], 0.95))
    # Independent draws: the error of a mean is sd/√n, as far as ArviZ' estimate of it is known.
    assert row["mcse"] == pytest.approx(moved.std() / np.sqrt(2000), rel=0.25)


def test_only_what_left_its_prior_is_said_to_have_left_it(prior_tree):
    tree, moved, _ = prior_tree
    table = tables.departure_table(tree, vector_of(), LAW)
    assert table["parameter"].iloc[0] == "corr[b,a]"
    rows = table.set_index("parameter")
    assert rows["left"].to_dict() == {
        "corr[b,a]": True, "sigma[b]": True, "corr[c,a]": False, "corr[c,b]": False,
        "sigma[a]": False, "sigma[c]": False,
    }  # fmt: skip
    expected = stats.kstest(moved, lambda r: stats.beta.cdf((1 + r) / 2, 2.5, 2.5)).statistic
    assert rows.loc["corr[b,a]", "distance"] == pytest.approx(expected)
    assert rows.loc["corr[b,a]", "kept"] == pytest.approx(moved.std() / np.sqrt(1 / 6), rel=0.001)
    for name in ("corr[c,a]", "sigma[a]"):
        assert abs(rows.loc[name, "kept"] - 1) < 4 * rows.loc[name, "kept_error"] + 0.05
    share = tables.prior_share(table)
    assert (share.pairs, share.left, share.one_sided) == (3, 1, 1)
    assert share.prior_sd == pytest.approx(np.sqrt(1 / 6))


def test_bins_hold_the_masses_of_prior_and_posterior(prior_tree):
    tree, moved, _ = prior_tree
    table = tables.density_table(tree, vector_of(), LAW, ["corr[b,a]", "corr[c,b]"])
    own = table[table["parameter"] == "corr[b,a]"]
    width = (own["high"] - own["low"]).to_numpy()
    assert (own["posterior"] * width).sum() == pytest.approx(1)
    assert (own["prior"] * width).sum() == pytest.approx(1)
    middle = 0.5 * (own["low"] + own["high"])
    assert (middle * own["posterior"] * width).sum() == pytest.approx(moved.mean(), abs=0.01)
    spreads = tables.density_table(tree, vector_of(), LAW, ["sigma[a]"])
    width = np.log(spreads["high"] / spreads["low"])
    expected = stats.norm(-1.4, 0.5).pdf(np.log(np.sqrt(spreads["high"] * spreads["low"])))
    np.testing.assert_allclose(spreads["prior"], expected, atol=0.01)
    assert (spreads["posterior"] * width).sum() == pytest.approx(1, abs=0.01)


def test_an_ellipse_holds_its_share():
    mean, covariance = np.array([1.0, -2.0]), np.array([[0.5, -0.3], [-0.3, 0.4]])
    for share in (0.5, 0.9):
        gap = tables.ellipse(mean, covariance, share) - mean
        squared = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap)
        np.testing.assert_allclose(squared, stats.chi2(2).ppf(share))


def test_ellipses_are_those_of_the_pair():
    count = 400
    rng = np.random.default_rng(2)
    sigma = np.tile([0.5, 1.0, 2.0], (count, 1))
    omega = np.tile(np.array([[1, 0.2, -0.6], [0.2, 1, 0.1], [-0.6, 0.1, 1]]), (count, 1, 1))
    alpha = np.tile([1.0, 2.0, 3.0], (count, 1))
    tree = tree_of(vector_of(), alpha, sigma, omega, rng.normal(size=(count, 5, 3)))
    draws = tables.read_population(tree, vector_of())
    table = tables.ellipse_table(draws, (0, 2))
    line = table[(table["share"] == 0.9) & (table["draw"] == -1)]
    covariance = np.array([[0.25, -0.6], [-0.6, 4.0]])
    gap = line[["x", "y"]].to_numpy() - [1, 3]
    squared = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap)
    np.testing.assert_allclose(squared, stats.chi2(2).ppf(0.9))


def test_logs_are_taken_where_members_are_exponentials():
    rng = np.random.default_rng(4)
    theta = np.exp(rng.normal(size=(40, 5, 3)))
    omega = np.tile(np.eye(3), (40, 1, 1))
    vector = vector_of(log=True)
    tree = tree_of(vector, np.zeros((40, 3)), np.ones((40, 3)), omega, theta)
    np.testing.assert_allclose(tables.read_population(tree, vector).theta, np.log(theta))


def test_the_error_of_a_mean_of_correlated_draws():
    """A first-order autoregression with coefficient ρ has the standard error sd √((1 + ρ)/(1 − ρ)/n)."""
    rng, rho, count = np.random.default_rng(7), 0.7, 2000
    found = []
    for _ in range(40):
        noise = rng.normal(size=count)
        x = np.empty(count)
        x[0] = noise[0] / np.sqrt(1 - rho**2)
        for t in range(1, count):
            x[t] = rho * x[t - 1] + noise[t]
        found.append(jackknife(lambda at, x=x: x[at].mean(), count))
    expected = np.sqrt((1 + rho) / (1 - rho) / count / (1 - rho**2))
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(expected, rel=0.15)
