"""Shrinkage of vectors in a conjugate model where every matrix is known."""

import numpy as np
import pytest

from hbm_core.analysis import covariance_shrinkage as tables
from hbm_core.analysis.covariance_population import PopulationDraws
from hbm_core.analysis.draws import jackknife
from tests.analysis.populations import conjugate, vector_of


@pytest.fixture(scope="module")
def world():
    alpha, sigma, omega, theta, data, information = conjugate(20_000, np.random.default_rng(1))
    return PopulationDraws(vector_of(), alpha, sigma, omega, theta), data, information


def test_draws_tell_each_units_likelihood(world):
    draws, data, information = world
    for unit in range(5):
        own = tables.own_data(draws, unit)
        for name, expected in (("information", information[unit]), ("score", information[unit] @ data[unit])):
            error = jackknife(
                lambda at, unit=unit, name=name: getattr(tables.own_data(draws.taken(at), unit), name),
                len(draws),
            )
            assert (error < 0.1 * np.abs(expected).max()).all()
            assert (np.abs(getattr(own, name) - expected) < 4.5 * error).all()


def test_independent_estimates_are_those_of_the_unit_alone(world):
    draws, data, information = world
    mean, variance = np.array([0.5, -1.0, 0.0]), np.array([1.0, 4.0, 0.25])
    table = tables.estimate_table(draws, *tables.own_estimates(draws, mean, variance))
    found = table.pivot(index="unit", columns="component", values="independent").to_numpy()
    error = table.pivot(index="unit", columns="component", values="error").to_numpy()
    for unit in range(5):
        precision = np.diag(1 / variance)
        right = information[unit] @ data[unit] + precision @ mean
        expected = np.linalg.solve(information[unit] + precision, right)
        assert (np.abs(found[unit] - expected) < 4.5 * error[unit]).all()
    assert (error < 0.1).all()
    pooled = table.set_index(["unit", "component"])["pooled"]
    assert pooled["S", "b"] == pytest.approx(draws.theta[:, 1, 1].mean())


def test_components_that_a_unit_does_not_use_are_integrated_out():
    """Data of a unit on two of three components: the third is drawn from the population alone."""
    rng = np.random.default_rng(6)
    alpha, sigma, omega, theta, data, information = conjugate(20_000, rng, units=2)
    used = np.array([[True, False, True], [True, True, True]])
    covariance = omega * sigma[:, :, None] * sigma[:, None, :]
    precision = np.linalg.inv(covariance)
    told = np.zeros((3, 3))
    told[np.ix_([0, 2], [0, 2])] = information[0][np.ix_([0, 2], [0, 2])]
    total = precision + told
    right = np.einsum("spq,sq->sp", precision, alpha) + told @ data[0]
    noise = np.linalg.cholesky(np.linalg.inv(total)) @ rng.normal(size=(20_000, 3, 1))
    theta[:, 0] = np.linalg.solve(total, right[..., None])[..., 0] + noise[..., 0]
    own = tables.own_data(PopulationDraws(vector_of(units="RS", uses=used), alpha, sigma, omega, theta), 0)
    assert own.used.tolist() == [0, 2]
    np.testing.assert_allclose(own.information, told[np.ix_([0, 2], [0, 2])], atol=0.06 * np.abs(told).max())


def test_matrix_shrinkage_has_the_eigenvalues_of_its_definition(world):
    draws, _, information = world
    covariance = draws.covariance[7]
    for told in information:
        w = np.linalg.inv(np.linalg.inv(covariance) + told) @ np.linalg.inv(covariance)
        expected = np.sort(np.linalg.eigvals(w).real)
        np.testing.assert_allclose(tables.matrix_shrinkage(covariance, told), expected, rtol=1e-8)
        assert tables.matrix_shrinkage(covariance, told).sum() == pytest.approx(np.trace(w))


def test_data_that_say_nothing_shrink_everything():
    np.testing.assert_allclose(tables.matrix_shrinkage(np.eye(3), np.zeros((3, 3))), 1)
    np.testing.assert_allclose(tables.matrix_shrinkage(np.eye(2), np.diag([3.0, 0.0])), [0.25, 1.0])


def test_the_table_of_matrix_shrinkage_is_the_average_over_the_population(world):
    draws, _, information = world
    few = draws.taken(np.arange(0, 20_000, 5))
    table = tables.matrix_shrinkage_table(few).set_index(["unit", "rank"])
    for place, unit in enumerate("RSTUV"):
        told = information[place]
        exact = np.array([np.trace(np.linalg.inv(np.eye(3) + s @ told)) / 3 for s in draws.covariance[::50]])
        row = table.loc[(unit, 0)]
        assert 0 < row["error"] < 0.05
        assert abs(row["value"] - exact.mean()) < 4 * row["error"] + 0.005
        values = table.loc[unit]["value"].to_numpy()[1:]
        assert (np.diff(values) >= 0).all()
        assert row["value"] == pytest.approx(values.mean())


def test_eta_shrinkage_of_scalars_is_that_of_the_posterior_means():
    """With known α = 0, σ = 1 and data y_c of variance v: θ̂ = y/(1 + v), so 1 − sd(y)/(1 + v)."""
    rng = np.random.default_rng(3)
    y, variance, count = np.array([-2.0, 0.5, 1.0, 2.5]), 3.0, 40_000
    shrink = 1 / (1 + variance)
    noise = np.sqrt(variance * shrink) * rng.normal(size=(count, 4, 1))
    theta = shrink * y[:, None] + noise
    vector = vector_of("a", "RSTU")
    ones = np.ones((count, 1))
    draws = PopulationDraws(vector, 0 * ones, ones, np.ones((count, 1, 1)), theta)
    table = tables.eta_shrinkage_table(draws)
    row = table.iloc[0]
    assert row["units"] == 4
    assert abs(row["shrinkage"] - (1 - y.std(ddof=1) * shrink)) < 4 * row["error"]
    assert row["low90"] == row["high90"]


def test_a_component_of_one_unit_has_no_shrinkage():
    uses = np.array([[True, True], [True, False]])
    rng = np.random.default_rng(3)
    ones = np.ones((50, 2))
    omega = np.tile(np.eye(2), (50, 1, 1))
    theta = rng.normal(size=(50, 2, 2))
    draws = PopulationDraws(vector_of("ab", "RS", uses=uses), ones, ones, omega, theta)
    table = tables.eta_shrinkage_table(draws)
    assert table["units"].tolist() == [2, 1]
    assert np.isnan(table["shrinkage"].iloc[1])
