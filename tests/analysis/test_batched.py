import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis.batched import (
    Normals,
    at_tau,
    effect_scale,
    fine_tau,
    linear,
    tau_mixture,
    with_priors,
    without,
)
from hbm_core.errors import ImproperPosteriorError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from tests.analysis.worlds import EFFECT, SE, dense, pooled, schools

SMOOTH = ["HalfCauchy(10)", "HalfNormal(0.1)", "InverseGamma(1, 1)", "Gamma(100, 10)", "HalfStudentT(3, 8)"]
EVERY = [
    *SMOOTH,
    "Uniform(0, 10)",
    "Uniform(2, 6)",
    "Gamma(0.5, 0.1)",
    "Gamma(0.7, 0.1)",
    "LogNormal(1, 0.2)",
]


@pytest.mark.parametrize("tau", SMOOTH)
def test_agrees_with_dense_conditioning(tau):
    spec = schools(tau=tau)
    _, mass, mean, covariance, evidence = dense(spec)
    center = mass @ mean
    sd = np.sqrt(np.einsum("k,kjj->j", mass, covariance) + mass @ (mean - center) ** 2)
    mixture = tau_mixture(spec)
    np.testing.assert_allclose(mixture.theta().mean()[0], center, atol=2e-6 * sd.min())
    np.testing.assert_allclose(mixture.theta().sd()[0], sd, rtol=2e-6)
    assert mixture.log_evidence[0] == pytest.approx(evidence, abs=1e-5)


def test_covariates_agree_with_dense_conditioning():
    rng = np.random.default_rng(3)
    spec = schools(design=rng.normal(size=(8, 2)), columns=("a", "b"))
    _, mass, mean, _, evidence = dense(spec)
    mixture = tau_mixture(spec)
    np.testing.assert_allclose(mixture.theta().mean()[0], mass @ mean, atol=1e-5)
    assert mixture.log_evidence[0] == pytest.approx(evidence, abs=1e-5)


@pytest.mark.parametrize("tau", EVERY)
@pytest.mark.parametrize("mu", ["Normal(0, 20)", "Normal(500, 1)", "Flat()"])
def test_agrees_with_the_engine(mu, tau):
    spec = schools(mu, tau)
    engine, mixture = solve(spec), tau_mixture(spec)
    sd = engine.sd[engine.theta]
    np.testing.assert_allclose(mixture.theta().mean()[0], engine.mean[engine.theta], atol=1e-7 * sd.min())
    np.testing.assert_allclose(mixture.theta().sd()[0], sd, rtol=1e-7)
    np.testing.assert_allclose(mixture.mean_pooling()[0], engine.pooling, rtol=1e-7)
    weights, prior = mixture.linear_weights()
    np.testing.assert_allclose(np.diag(weights[0]), engine.weights.own, atol=1e-7)
    np.testing.assert_allclose(prior[0], engine.weights.prior, atol=1e-7)


def test_many_data_sets_are_each_their_own_posterior():
    rng = np.random.default_rng(0)
    effects = rng.normal(0, [[1.0], [20.0], [400.0]], (3, 8))
    together = tau_mixture(schools(), effects).theta()
    quantiles = together.quantiles(np.array([0.025, 0.9]))
    for row, effect in enumerate(effects):
        engine = solve(schools(effect=effect))
        sd = engine.sd[engine.theta]
        np.testing.assert_allclose(together.mean()[row], engine.mean[engine.theta], atol=1e-7 * sd.min())
        np.testing.assert_allclose(
            quantiles[row], engine.quantiles((0.025, 0.9))[engine.theta], atol=1e-6 * sd.max()
        )


def test_large_shifts_cost_no_digits():
    near = tau_mixture(schools("Normal(5, 20)"))
    far = tau_mixture(schools("Normal(1000000005, 20)", effect=EFFECT + 1e9))
    np.testing.assert_allclose(far.theta().mean() - 1e9, near.theta().mean(), atol=1e-5)
    assert far.log_evidence[0] == pytest.approx(near.log_evidence[0], abs=1e-7)


def test_limits_of_tau():
    complete, none = at_tau(schools("Flat()"), 0.0), at_tau(schools("Flat()"), 1e9)
    weight = 1 / SE**2
    np.testing.assert_allclose(complete.theta().mean()[0], weight @ EFFECT / weight.sum(), rtol=1e-12)
    np.testing.assert_allclose(none.theta().mean()[0], EFFECT, atol=1e-6)
    np.testing.assert_allclose(none.theta().sd()[0], SE, rtol=1e-6)


def test_unpooled_and_fully_pooled():
    unpooled = tau_mixture(pooled("none", theta="Normal(3, 7)"))
    share = 49 / (49 + SE**2)
    np.testing.assert_allclose(unpooled.theta().mean()[0], share * EFFECT + (1 - share) * 3)
    np.testing.assert_allclose(unpooled.theta().sd()[0], SE * np.sqrt(share))
    marginal = stats.norm.logpdf(EFFECT, 3, np.hypot(7, SE)).sum()
    assert unpooled.log_evidence[0] == pytest.approx(marginal)
    together = tau_mixture(pooled("complete", mu="Normal(0, 20)"))
    precision = (1 / SE**2).sum() + 1 / 400
    np.testing.assert_allclose(together.theta().sd()[0], precision**-0.5)


def test_fine_cells_have_the_engines_quantiles():
    tau, mass = fine_tau(schools())
    found = np.interp([0.025, 0.5, 0.975], np.cumsum(mass) - mass / 2, tau)
    engine = solve(schools())
    np.testing.assert_allclose(found, engine.quantiles((0.025, 0.5, 0.975))[1], rtol=1e-4)


def test_adaptive_scale_is_the_formula():
    spec = schools(scale="adaptive")
    tau = np.array([0.5, 3.0, 8.0])
    w = 1 / (1 + np.exp(-2 * (tau - 3)))
    np.testing.assert_allclose(effect_scale(spec, tau), w * tau + (1 - w) * 4 * tau / 3)
    engine = solve(spec)
    np.testing.assert_allclose(tau_mixture(spec).theta().mean()[0], engine.mean[engine.theta], atol=1e-7)


def test_normals_are_scipys():
    normals = Normals(np.array([[0.3, 0.7]]), np.array([[[0.0, 5.0]]]), np.array([[[1.0, 2.0]]]))
    x = np.array([[1.5]])
    density = 0.3 * stats.norm.pdf(1.5) + 0.7 * stats.norm.pdf(1.5, 5, 2)
    assert normals.density(x)[0, 0] == pytest.approx(density)
    assert normals.log_density(x)[0, 0] == pytest.approx(np.log(density))
    assert normals.cdf(x)[0, 0] == pytest.approx(0.3 * stats.norm.cdf(1.5) + 0.7 * stats.norm.cdf(1.5, 5, 2))
    assert normals.cdf(normals.quantiles(np.array([0.123]))[:, :, 0])[0, 0] == pytest.approx(0.123)


def test_refuses_what_it_cannot_do():
    assert not linear(schools("StudentT(4, 0, 20)"))
    with pytest.raises(NotExactError):
        tau_mixture(schools("StudentT(4, 0, 20)"))
    with pytest.raises(ImproperPosteriorError):
        tau_mixture(schools("Flat()", "Flat()", EFFECT[:2], SE[:2]))


def test_neighbouring_models_keep_the_rest():
    spec = schools(scale="adaptive")
    rest = without(spec, 2)
    assert rest.structure.units == tuple("ABDEFGH")
    assert rest.constants == spec.constants
    changed = with_priors(spec, tau=Prior.parse("HalfNormal(5)"))
    assert changed.priors["tau"].text == "HalfNormal(5)"
    assert changed.priors["mu"] == spec.priors["mu"]
