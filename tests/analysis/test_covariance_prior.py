"""Laws of sds and correlations against simulation by other means."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis.covariance_prior import joint_table
from hbm_core.models.prior import Prior
from hbm_core.models.vector_population import InverseWishartLaw, SeparationLaw
from tests.analysis.populations import onion


@pytest.mark.parametrize("eta, size", [(1.0, 2), (2.0, 4), (0.7, 6)])
def test_a_correlation_under_lkj_is_a_beta(eta, size):
    found = onion(eta, size, 3000, np.random.default_rng(3))
    law = SeparationLaw((Prior("HalfNormal", (1.0,)),) * size, eta).correlation()
    # By symmetry every entry has the same law; the first and the last are made in different ways.
    for entry in (found[:, 1, 0], found[:, -1, -2]):
        assert stats.kstest(entry, law.cdf).pvalue > 0.001


def test_sixteen_parameters_leave_a_correlation_the_published_width():
    law = SeparationLaw((Prior("LogNormal", (-1.4, 0.5)),) * 16, 2.0).correlation()
    assert law.std() == pytest.approx(0.23, abs=0.005)


def wishart(nu: float, psi: float, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    draws = stats.invwishart(nu, psi * np.eye(size)).rvs(count, random_state=np.random.default_rng(8))
    sd = np.sqrt(np.diagonal(draws, axis1=1, axis2=2))
    return sd, draws / sd[:, :, None] / sd[:, None, :]


@pytest.mark.parametrize("nu, psi, size", [(4.0, 1.0, 3), (9.0, 0.5, 4)])
def test_marginals_of_an_inverse_wishart(nu, psi, size):
    sd, omega = wishart(nu, psi, size, 20_000)
    law = InverseWishartLaw(nu, psi, size)
    assert stats.kstest(sd[:, 1], law.spread(1).cdf).pvalue > 0.001
    assert stats.kstest(omega[:, 2, 0], law.correlation().cdf).pvalue > 0.001


def test_an_inverse_wishart_ties_sds_to_correlations():
    """Given a correlation, an sd is larger the farther it is from 0; under LKJ it does not care."""
    sd, omega = wishart(4.0, 1.0, 3, 60_000)
    law = InverseWishartLaw(4.0, 1.0, 3)
    for low, high in ((0.0, 0.1), (0.8, 0.84)):
        near = sd[(np.abs(omega[:, 1, 0]) > low) & (np.abs(omega[:, 1, 0]) < high), 0]
        given = law.spread_given(0, 0.5 * (low + high))
        assert stats.kstest(near, given.cdf).pvalue > 0.001
    assert law.spread_given(0, 0.95).median() > 2 * law.spread_given(0, 0.0).median()
    apart = SeparationLaw((Prior("HalfNormal", (1.0,)),) * 3, 2.0)
    assert apart.spread_given(0, 0.95).median() == apart.spread_given(0, 0.0).median()


@pytest.mark.parametrize("kind", ["lkj", "wishart"])
def test_regions_hold_the_mass_that_they_name(kind):
    if kind == "wishart":
        law = InverseWishartLaw(4.0, 1.0, 3)
        sd, omega = wishart(4.0, 1.0, 3, 20_000)
    else:
        law = SeparationLaw((Prior("LogNormal", (-1.4, 0.5)),) * 3, 2.0)
        rng = np.random.default_rng(5)
        sd, omega = np.exp(-1.4 + 0.5 * rng.normal(size=(4000, 3))), onion(2.0, 3, 4000, rng)
    log_sd, r = np.log(sd[:, 0]), np.abs(omega[:, 1, 0])
    density, given = joint_table(law, cells=60)
    grid = density.pivot(index="correlation", columns="log_sd", values="outside")
    at = grid.columns.to_numpy()
    across = np.abs(at - log_sd[:, None]).argmin(axis=1)
    inside = grid.to_numpy()[np.minimum((60 * r).astype(int), 59), across]
    shown = (log_sd > at[0] - 0.5 * (at[1] - at[0])) & (log_sd < at[-1] + 0.5 * (at[1] - at[0]))
    for mass in (0.1, 0.5):
        assert ((inside > mass) & shown).mean() == pytest.approx(1 - mass, abs=0.03)
    np.testing.assert_allclose(given["median"].iloc[0], law.spread_given(0, 0.5 / 60).median())
