"""NUTS against the same posteriors by brute-force quadrature, and its manners: compile once, stop, report."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, stats

from hbm_core.analysis.draws import agreement, summary
from hbm_core.errors import FitError
from hbm_core.inference import nuts
from hbm_core.inference.exact import solve
from hbm_core.inference.marginal import draw_effects, unit_log_likelihood
from hbm_core.inference.nuts import CompileCache, sample
from hbm_core.inference.sampler import Sampler
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from tests.models.test_pymc_model import EFFECT, PRECISION, SE, eight_schools

pytestmark = pytest.mark.sampling
LONG = Sampler(draws=2000, tune=1000)
SHORT = Sampler(draws=200, tune=300)


def with_data(spec, effect, se):
    """The same model for other units."""
    units = tuple(f"u{place}" for place in range(len(effect)))
    structure = TwoLevelNormal(effect, se, units, scale=spec.structure.scale)
    return ModelSpec(structure, spec.priors, spec.constants, spec.parameterization)


def brute_force(spec, grid=6001):
    """Means, sds and medians by a dense trapezoid in log τ, μ integrated out in closed form."""
    y, s = spec.structure.effect, spec.structure.se
    log_tau = np.linspace(np.log(1e-4), np.log(1e5), grid)
    tau = np.exp(log_tau)
    scale = tau
    if spec.structure.scale == "adaptive":
        w = 1 / (1 + np.exp(-2 * (tau - 3)))
        scale = w * tau + (1 - w) * 4 * tau / 3
    m0, v0 = spec.priors["mu"].numbers[0], spec.priors["mu"].numbers[1] ** 2
    v = s**2 + scale[:, None] ** 2
    p = 1 / v0 + (1 / v).sum(1)
    m = (m0 / v0 + (y / v).sum(1)) / p
    log_post = -0.5 * (np.log(v).sum(1) + ((y - m[:, None]) ** 2 / v).sum(1) + (m - m0) ** 2 / v0 + np.log(p))
    log_post += spec.priors["tau"].distribution.logpdf(tau) + log_tau
    weight = np.exp(log_post - log_post.max())
    weight /= weight.sum()
    pooling = s**2 / v
    theta = pooling * m[:, None] + (1 - pooling) * y
    theta_variance = pooling * scale[:, None] ** 2 + pooling**2 / p[:, None]
    first = np.column_stack([m, tau, theta])
    second = np.column_stack([1 / p, np.zeros_like(tau), theta_variance]) + first**2
    mean, sd = weight @ first, np.sqrt(weight @ second - (weight @ first) ** 2)
    median = np.full(mean.shape, np.nan)
    median[1] = np.exp(np.interp(0.5, np.cumsum(weight) - weight / 2, log_tau))
    names = ["mu", "tau", *(f"theta[{unit}]" for unit in spec.structure.units)]
    return pd.DataFrame({"mean": mean, "sd": sd, "q0.5": median}, index=pd.Index(names, name="parameter"))


def assert_agrees(tree, spec):
    """Every mean and sd, and τ's median, within 4 Monte Carlo errors."""
    table = agreement(summary(tree), brute_force(spec))
    assert len(table) == 2 + spec.structure.effect.size
    assert table[["z_mean", "z_sd"]].abs().max(axis=None) < 4, table
    assert abs(table.loc["tau", "z_median"]) < 4


@pytest.fixture(scope="module")
def fits(compile_cache):
    """Long fits of the eight schools, by parameterization."""
    return {
        name: sample(eight_schools(name), LONG, cache=compile_cache)
        for name in ("noncentered", "partial", "collapsed")
    }


@pytest.mark.parametrize("parameterization", ["noncentered", "partial", "collapsed"])
def test_same_posterior_whatever_the_geometry(fits, parameterization):
    tree, spec = fits[parameterization], eight_schools(parameterization)
    assert_agrees(tree, spec)
    assert agreement(summary(tree), solve(spec).summary(hdi=False))["agrees"].all()
    assert int(tree["sample_stats"]["diverging"].sum()) <= 2


def test_centered_where_the_data_determine_the_effects(compile_cache):
    spec = with_data(eight_schools("centered"), EFFECT * 3, SE / 3)
    tree = sample(spec, LONG, cache=compile_cache)
    assert_agrees(tree, spec)


def test_adaptive_scale_and_its_effective_scale(compile_cache):
    spec = eight_schools("collapsed", scale="adaptive")
    tree = sample(spec, LONG, cache=compile_cache)
    assert_agrees(tree, spec)
    tau = tree["posterior"]["tau"].values
    w = 1 / (1 + np.exp(-2 * (tau - 3)))
    assert tree["posterior"]["tau_star"].values == pytest.approx(w * tau + (1 - w) * 4 * tau / 3)


def test_numbers_and_sizes_compile_nothing(compile_cache, fits):
    before = compile_cache.compilations
    for spec in (
        eight_schools("collapsed", {"tau": "HalfCauchy(2)", "mu": "Normal(-10, 3)"}),
        eight_schools("collapsed", copies=3),
        with_data(eight_schools("collapsed"), EFFECT[:3] * 2 - 100, SE[:3]),
        with_data(eight_schools("noncentered"), EFFECT * 2 + 30, SE / 2),
    ):
        assert_agrees(sample(spec, LONG, cache=compile_cache), spec)
    assert compile_cache.compilations == before
    sample(eight_schools("collapsed", {"tau": "HalfNormal(5)"}), SHORT, cache=compile_cache)
    assert compile_cache.compilations == before + 1


def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago():
    small = CompileCache(limit=1)
    first, second = eight_schools("centered", pooling="complete"), eight_schools("centered", pooling="none")
    nuts.warm(small, [first, second])
    assert (len(small), small.compilations) == (1, 2)
    assert second in small and first not in small


def test_result_has_the_promised_groups_names_and_labels(fits, tmp_path):
    tree = fits["collapsed"]
    posterior = tree["posterior"]
    assert list(posterior.data_vars) == ["mu", "tau", "theta"]
    assert posterior["theta"].dims == ("chain", "draw", "unit")
    assert list(posterior["theta"]["unit"].values) == list("ABCDEFGH")
    assert dict(posterior.sizes) == {"chain": 4, "draw": 2000, "unit": 8}
    assert {"diverging", "energy", "tree_depth", "n_steps", "step_size"} <= set(
        tree["sample_stats"].data_vars
    )
    assert list(tree["observed_data"]["y"].values) == list(EFFECT)
    assert tree.attrs["partial"] == False and tree.attrs["stopped"] == ""  # noqa: E712
    assert tree.attrs["timing_total"] >= tree.attrs["timing_sample"] > 0
    assert json.loads(tree.attrs["sampler"]) == LONG.as_dict()
    tree.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as again:
        assert again["posterior"]["theta"].identical(posterior["theta"])


def test_covariates_carry_their_columns(compile_cache):
    spec = eight_schools("collapsed", design=PRECISION[:, None], columns=("precision",))
    posterior = sample(spec, SHORT, cache=compile_cache)["posterior"]
    assert posterior["beta"].dims == ("chain", "draw", "column")
    assert list(posterior["column"].values) == ["precision"]
    mean = posterior["mu"].values[..., None] + posterior["beta"].values * PRECISION
    # θ_i − m_i has mean (1 − B_i)(y_i − m_i): the draws of θ follow their own line, not μ.
    own = 1 / (1 + (SE / posterior["tau"].values[..., None]) ** 2)
    z = (posterior["theta"].values - mean - own * (EFFECT - mean)) / (SE * np.sqrt(own))
    assert stats.kstest(z.ravel()[::7], "norm").pvalue > 1e-3


def test_seed_decides_the_draws_whatever_was_compiled_before(compile_cache, fits):
    import pytensor

    same = sample(eight_schools("noncentered"), LONG, cache=compile_cache)
    assert np.array_equal(same["posterior"]["mu"], fits["noncentered"]["posterior"]["mu"])
    with pytensor.config.change_flags(numba__cache=False):
        cold = sample(eight_schools("noncentered"), LONG, cache=CompileCache())
    assert np.array_equal(same["posterior"]["mu"], cold["posterior"]["mu"])
    other = sample(eight_schools("noncentered"), Sampler(draws=2000, seed=43), cache=compile_cache)
    assert not np.isin(same["posterior"]["mu"], other["posterior"]["mu"]).any()
    chains = same["posterior"]["mu"].values
    assert not np.isin(chains[0], chains[1]).any()


def test_the_likelihood_is_the_same_function_for_every_geometry(fits):
    for tree in fits.values():
        posterior = tree["posterior"]
        sd = np.hypot(SE, posterior["tau"].values[..., None])
        expected = stats.norm(posterior["mu"].values[..., None], sd).logpdf(EFFECT)
        assert tree["log_likelihood"]["y"].values == pytest.approx(expected, abs=1e-10)


def over_theta(function, *bumps):
    """∫ function over the line: Gauss–Legendre between points that crowd around each (centre, width)."""
    steps = np.geomspace(1e-3, 1e8, 400)
    edges = np.unique(np.concatenate([c + w * sign * steps for c, w in bumps for sign in (-1, 1)]))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    return np.sum(function(middle[:, None] + half[:, None] * nodes) * weights * half[:, None])


@pytest.mark.parametrize(
    ("effects", "likelihood"), [("student_t", "normal"), ("normal", "student_t"), ("student_t", "student_t")]
)
def test_student_effects_are_integrated_out(effects, likelihood):
    spec = eight_schools(effects=effects, likelihood=likelihood)
    hyper = {
        "mu": np.array([8.0, -20.0, 8.0, 60.0, 3.0]),
        "tau": np.array([5.0, 0.05, 40.0, 3.0, 9.0]),
        "nu": np.array([4.0, 2.0, 1.0, 30.0, 200.0]),
    }
    got = unit_log_likelihood(spec, hyper)
    for draw, (mu, tau, nu) in enumerate(zip(*hyper.values(), strict=True)):
        prior = stats.t(nu, mu, tau) if effects == "student_t" else stats.norm(mu, tau)
        for unit, (y, s) in enumerate(zip(EFFECT, SE, strict=True)):
            noise = stats.t(nu, 0, s) if likelihood == "student_t" else stats.norm(0, s)
            value = over_theta(lambda x, p=prior, q=noise, y=y: p.pdf(x) * q.pdf(y - x), (mu, tau), (y, s))
            assert got[draw, unit] == pytest.approx(np.log(value), abs=1e-8)


@pytest.mark.parametrize(
    "prior", ["Normal(3, 50)", "StudentT(4, 0, 30)", "Uniform(-5, 200)", "Normal(0, 0.01)"]
)
def test_without_pooling_the_likelihood_is_the_prior_predictive_density(prior):
    spec = eight_schools("centered", {"theta": prior}, pooling="none")
    got = unit_log_likelihood(spec, {"theta": np.zeros((2, 8))})
    distribution = spec.priors["theta"].distribution
    for unit, (y, s) in enumerate(zip(EFFECT, SE, strict=True)):
        # In the prior's probability p: p(y) = ∫ Normal(y; F⁻¹(p), s) dp.
        value = integrate.quad(
            lambda p, y=y, s=s: stats.norm(y, s).pdf(distribution.ppf(p)), 0, 1, limit=500
        )[0]
        assert got[:, unit] == pytest.approx(np.log(value), abs=1e-6)
    flat = eight_schools("centered", {"theta": "Flat()"}, pooling="none")
    assert unit_log_likelihood(flat, {"theta": np.zeros((2, 8))}) is None


def test_conditional_draws_of_the_effects():
    spec, n = eight_schools("collapsed"), 40_000
    draws = draw_effects(spec, {"mu": np.full(n, 4.0), "tau": np.full(n, 6.0)}, np.random.default_rng(3))
    precision = 1 / SE**2 + 1 / 36
    z = (draws - (EFFECT / SE**2 + 4 / 36) / precision) * np.sqrt(precision)
    assert abs(z.mean(0) * np.sqrt(n)).max() < 4
    assert abs(z.std(0) - 1).max() * np.sqrt(2 * n) < 4
    off_diagonal = np.corrcoef(z.T)[~np.eye(8, dtype=bool)]
    assert abs(off_diagonal).max() * np.sqrt(n) < 4.5


def test_stopping_keeps_what_there_is(compile_cache, monkeypatch):
    monkeypatch.setattr(nuts, "_PARTIAL_EVERY", 0.1)
    seen, partial = [], []
    tree = sample(
        eight_schools("collapsed"),
        Sampler(draws=200_000, tune=300),
        cache=compile_cache,
        on_progress=seen.append,
        on_partial=partial.append,
        should_stop=lambda: len(partial) > 1 and seen[-1].fraction > 0.02,
    )
    assert tree.attrs["partial"] == True and tree.attrs["stopped"] == "on request"  # noqa: E712
    posterior = tree["posterior"]
    assert 0 < posterior.sizes["draw"] < 200_000
    assert all(np.isfinite(values).all() for values in posterior.data_vars.values())
    assert abs(float(posterior["mu"].mean()) - 7.4) < 1
    assert partial[0].attrs["partial"] == 1 and np.isfinite(partial[0]["posterior"]["theta"]).all()
    assert seen[-1].chains[0].total == 200_300 and seen[-1].seconds_left > 0


def test_time_limit_and_a_stop_during_warm_up(compile_cache):
    spec = eight_schools("collapsed")
    # A short warm-up, which is over within the limit on a busy machine too.
    tree = sample(spec, Sampler(draws=200_000, tune=50), cache=compile_cache, time_limit=1.5)
    assert tree.attrs["partial"] and "1.5 s" in tree.attrs["stopped"]
    with pytest.raises(FitError, match="warming up"):
        sample(spec, Sampler(draws=10, tune=100_000), cache=compile_cache, should_stop=lambda: True)


def test_progress_ends_complete(compile_cache):
    seen = []
    sample(eight_schools("collapsed"), SHORT, cache=compile_cache, on_progress=seen.append)
    assert seen[-1].fraction == 1 and seen[-1].seconds_left == 0 and len(seen[-1].chains) == 4
    assert "compiling" not in {progress.stage for progress in seen} and seen[-1].stage == "saving"


def test_chains_of_unequal_length_keep_the_largest_rectangle():
    chain = lambda n, value: {"diverging": np.zeros(n, bool), "mu": np.full(n, value)}  # noqa: E731
    kept = nuts._rectangle([chain(3, 1.0), chain(0, 2.0), chain(5, 3.0)])
    assert kept["mu"].tolist() == [[1.0] * 3, [3.0] * 3]
    assert nuts._rectangle([chain(2, 1.0), chain(9, 2.0)])["mu"].shape == (1, 9)
    assert nuts._rectangle([chain(0, 1.0), chain(0, 2.0)]) == {}


def test_a_posterior_without_a_finite_start_is_explained(compile_cache):
    spec = with_data(eight_schools("collapsed"), np.array([0.0, 1e200, 2.0]), np.ones(3))
    with pytest.raises(FitError, match="u1 lie too many standard errors"):
        sample(spec, SHORT, cache=compile_cache)


def test_nothing_but_divergences_is_no_fit(compile_cache):
    # Chains start where such a prior lives, 10⁸⁸ times the data's scale: no step is small enough there.
    spec = eight_schools("noncentered", {"tau": "HalfCauchy(1e90)"})
    with pytest.raises(FitError, match=r"All 800 kept draws diverged.*collapsed.*priors"):
        sample(spec, SHORT, cache=compile_cache)
