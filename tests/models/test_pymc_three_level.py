"""The three-level model: every geometry the same posterior, the moments by an independent route."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.inference.recipes.three_level import draw_inner
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_three_level import build, group_sums, moment_spreads
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import THREE_LEVEL_PARAMETERIZATIONS, ThreeLevelNormal
from hbm_core.report.code import script

GROUP = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
EFFECT = np.array([0.3, 1.2, -0.4, 2.0, 1.1, 0.2, 0.5, 0.9, -1.3])
SE = np.array([0.4, 0.9, 0.6, 0.3, 1.1, 0.8, 0.5, 0.7, 1.0])
PRIORS = {"mu": "Normal(0.25, 1.5)", "sigma_genre": "HalfCauchy(0.75)", "sigma_creator": "Gamma(2, 3)"}


def three_level(parameterization="collapsed", **priors):
    structure = ThreeLevelNormal(EFFECT, SE, GROUP, tuple("abcdefghi"), ("x", "y", "z"), ("creator", "genre"))
    chosen = {name: Prior.parse(text) for name, text in (PRIORS | priors).items()}
    return ModelSpec(structure, chosen, {}, parameterization)


def evidence(mu, among, within, scale=0.0):
    """Log p(y | hyperparameters) by the covariance matrix of y, written out; μ itself of sd `scale`."""
    same = GROUP[:, None] == GROUP
    covariance = np.diag(SE**2 + within**2) + among**2 * same + scale**2
    return stats.multivariate_normal(np.full(EFFECT.size, mu), covariance).logpdf(EFFECT)


def test_the_collapsed_density_is_the_multivariate_normal_of_the_data():
    """With μ where its prior is not normal; with μ integrated out, one covariance more, where it is."""
    for mean in ("Normal(0.25, 1.5)", "StudentT(4, 0.25, 1.5)"):
        model = build(three_level(mu=mean))
        density = model.compile_logp(mode="FAST_COMPILE")
        got, want = [], []
        for mu, among, within in [(0.1, 0.5, 0.8), (-2.0, 3.0, 0.05), (1.0, 0.01, 2.0)]:
            point = {"sigma_genre_log__": np.log(among), "sigma_creator_log__": np.log(within)}
            prior = stats.halfcauchy(0, 0.75).logpdf(among)
            prior += stats.gamma(2, scale=1 / 3).logpdf(within) + np.log(among * within)
            if mean.startswith("Normal"):
                likelihood = evidence(0.25, among, within, 1.5)
            else:
                point["mu"] = mu
                likelihood = evidence(mu, among, within) + stats.t(4, 0.25, 1.5).logpdf(mu)
            got.append(float(density(point)))
            want.append(likelihood + prior)
        # PyMC folds constants in single precision: one offset for all points.
        assert np.ptp(np.subtract(got, want)) < 1e-9 * np.abs(want).max()
        assert np.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("variance", [0.0, 2.25])
def test_the_compiled_gradient_is_that_of_the_multivariate_normal(variance):
    """Five-point differences of the density by the covariance matrix."""
    from hbm_core.models.three_level_op import log_marginal

    order = np.argsort(GROUP, kind="stable")
    starts = np.array([0, 3, 5, 9])
    for mu, among, within in [(0.1, 0.5, 0.8), (-2.0, 3.0, 0.05), (1.0, 0.02, 2.0)]:
        slopes = np.empty(3)
        value = log_marginal(mu, variance, among, within, EFFECT[order], SE[order] ** 2, starts, slopes)
        assert value == pytest.approx(evidence(mu, among, within, np.sqrt(variance)), rel=1e-12)
        for place, point in enumerate(np.eye(3)):
            h = 1e-3 * (mu, among, within)[place]
            at = [
                evidence(*(np.array([mu, among, within]) + k * h * point), np.sqrt(variance))
                for k in (-2, -1, 1, 2)
            ]
            slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
            assert slopes[place] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_logarithms_of_many_extreme_weights_do_not_overflow():
    from hbm_core.models.three_level_op import log_marginal

    se = np.geomspace(1e-120, 1e120, 400)
    got = log_marginal(0.0, 0.0, 0.3, 0.0, np.zeros(400), se**2, np.array([0, 400]), np.empty(3))
    # Effects that are all 0: the determinant of diag(s²) + 0.3² 11ᵀ is all there is.
    want = -0.5 * (400 * np.log(2 * np.pi) + 2 * np.log(se).sum() + np.log1p(0.3**2 * (se**-2).sum()))
    assert got == pytest.approx(want, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in THREE_LEVEL_PARAMETERIZATIONS if name != "collapsed"])
def test_other_geometries_are_the_joint_density_in_other_coordinates(name):
    """Log density minus the log Jacobian of the map to (μ_g, θ) is the joint density written out."""
    spec = three_level(name)
    model = build(spec)
    density = model.compile_logp(mode="FAST_COMPILE")
    values = model.replace_rvs_by_values([model["mu_genre"], model["theta"]])
    inner = model.compile_fn(values, inputs=model.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")
    rng = np.random.default_rng(3)
    differences = []
    for _ in range(4):
        point = {key: rng.normal(0.3, 0.6, np.shape(value)) for key, value in model.initial_point().items()}
        mu, among, within = (
            point["mu"],
            np.exp(point["sigma_genre_log__"]),
            np.exp(point["sigma_creator_log__"]),
        )
        means, theta = inner(point)
        joint = stats.norm(0.25, 1.5).logpdf(mu) + stats.halfcauchy(0, 0.75).logpdf(among)
        joint += stats.gamma(2, scale=1 / 3).logpdf(within) + np.log(among * within)
        joint += (
            stats.norm(mu, among).logpdf(means).sum() + stats.norm(means[GROUP], within).logpdf(theta).sum()
        )
        joint += stats.norm(theta, SE).logpdf(EFFECT).sum()
        step, base = 1e-6, np.concatenate([means, theta])
        moved = [key for key in point if key not in ("mu", "sigma_genre_log__", "sigma_creator_log__")]
        columns = []
        for key in moved:
            for place in range(point[key].size):
                other = {k: np.array(v, dtype=float) for k, v in point.items()}
                other[key][place] += step
                columns.append((np.concatenate(inner(other)) - base) / step)
        jacobian = np.linalg.slogdet(np.array(columns))[1]
        differences.append(float(density(point)) - joint - jacobian)
    assert np.ptp(differences) < 1e-5
    assert abs(differences[0]) < 1e-4


@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_conditional_draws_have_the_moments_of_the_joint_normal(scale):
    """Of (μ, μ_g, θ) given y and the spreads, μ given or with its own normal prior."""
    count, mu, among, within = 200_000, 0.25, 0.7, 0.5
    draws = {"sigma_genre": np.full(count, among), "sigma_creator": np.full(count, within)}
    if not scale:
        draws["mu"] = np.full(count, mu)
    found = draw_inner(three_level(), draws, np.random.default_rng(5))
    assert list(found) == ["mu", "sigma_genre", "sigma_creator", "mu_genre", "theta"]
    # Joint normal of (μ, μ_g, θ) and y given the spreads, conditioned on y.
    member = np.eye(3)[GROUP]
    prior = np.full((13, 13), scale**2)
    prior[1:4, 1:4] += among**2 * np.eye(3)
    prior[4:, 1:4] += among**2 * member
    prior[1:4, 4:] = prior[4:, 1:4].T
    prior[4:, 4:] += among**2 * member @ member.T + within**2 * np.eye(9)
    gain = prior[:, 4:] @ np.linalg.inv(prior[4:, 4:] + np.diag(SE**2))
    mean = mu + gain @ (EFFECT - mu)
    covariance = prior - gain @ prior[4:, :]
    got = np.concatenate([found["mu"][:, None], found["mu_genre"], found["theta"]], axis=1)
    error = np.sqrt(np.diag(covariance) / count)
    assert np.all(np.abs(got.mean(axis=0) - mean) <= 5 * error + 1e-12)
    scale_of = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs(np.cov(got.T) - covariance).max() < 5 * np.sqrt(2 / count) * scale_of.max()


def test_moment_estimates_by_loops():
    structure = three_level().structure
    weight = 1 / SE**2
    excess = spare = scale = 0.0
    for g in range(3):
        w, y = weight[g == GROUP], EFFECT[g == GROUP]
        excess += (w * (y - np.average(y, weights=w)) ** 2).sum()
        spare += w.size - 1
        scale += w.sum() - (w**2).sum() / w.sum()
    within = np.sqrt(max(0, (excess - spare) / scale))
    assert moment_spreads(structure)[0] == pytest.approx(within, rel=1e-12)
    sums = group_sums(structure, within)
    for g in range(3):
        w = 1 / (SE[g == GROUP] ** 2 + within**2)
        assert sums.precision[g] == pytest.approx(w.sum())
        assert sums.mean[g] == pytest.approx(np.average(EFFECT[g == GROUP], weights=w))


@pytest.mark.parametrize("parameterization", THREE_LEVEL_PARAMETERIZATIONS)
def test_the_script_is_the_same_model(parameterization):
    spec = three_level(parameterization)
    namespace = {}
    exec(script(spec, Sampler(), "Creators").split("fit = nutpie.sample")[0], namespace)
    ours, theirs = build(spec), namespace["model"]
    start = ours.initial_point()
    assert list(start) == list(theirs.initial_point())
    densities = [model.compile_logp(mode="FAST_COMPILE") for model in (ours, theirs)]
    rng = np.random.default_rng(1)
    gaps = []
    for _ in range(3):
        point = {name: rng.normal(0.5, 0.5, np.shape(value)) for name, value in start.items()}
        ours_here, theirs_here = (float(density(point)) for density in densities)
        gaps.append(theirs_here - ours_here)
    # Constants of the script are folded in single precision in places.
    assert np.ptp(gaps) < 1e-8 * abs(ours_here) and abs(gaps[0]) < 1e-5


def test_what_is_no_three_level_structure_is_refused():
    with pytest.raises(InputError, match="at least one unit"):
        ThreeLevelNormal(EFFECT, SE, GROUP, tuple("abcdefghi"), ("x", "y", "z", "empty"))
    with pytest.raises(InputError, match="equally long"):
        ThreeLevelNormal(EFFECT, SE[:-1], GROUP, tuple("abcdefghi"), ("x", "y", "z"))
    with pytest.raises(InputError, match="positive finite"):
        ThreeLevelNormal(EFFECT, -SE, GROUP, tuple("abcdefghi"), ("x", "y", "z"))
    with pytest.raises(InputError, match="one per effect"):
        ThreeLevelNormal(EFFECT, SE, GROUP, tuple("abc"), ("x", "y", "z"))
