"""Gamma counts in PyMC: every geometry the same posterior, by sums and by windows."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.inference.exact import solve
from hbm_core.inference.recipes import recipe
from hbm_core.models.gamma_counts import GammaCounts, moment_start
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_gamma_counts import build
from hbm_core.models.structure import ModelSpec

COUNT = np.array([0, 2, 5, 0, 0, 1, 7, 7, 12, 0, 1])
ENTITY = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3])
EXPOSURE = np.array([1.0, 1, 2, 0.5, 0.5, 3, 1, 1, 1, 2, 1])
PRIORS = {"mu": "Exponential(0.25)", "alpha": "HalfNormal(1.5)", "phi": "Gamma(2, 0.75)"}
GEOMETRIES = [
    (likelihood, effects, name)
    for likelihood, names in (
        ("negative_binomial", ("scaled", "centered")),
        ("poisson", ("scaled", "centered")),
    )
    for effects in ("rate", "mean_scaled")
    for name in names
]


def counts(likelihood="negative_binomial", effects="rate", parameterization="scaled", **priors):
    structure = GammaCounts(COUNT, ENTITY, tuple("abcd"), EXPOSURE, likelihood, effects)
    chosen = {name: Prior.parse((PRIORS | priors)[name]) for name in structure.parameters}
    return ModelSpec(structure, chosen, {}, parameterization)


def joint(spec, hyper, theta):
    """Log joint density of data, parameters' logs and rates, written out window by window."""
    mu, alpha = hyper["mu"], hyper["alpha"]
    law = (
        stats.gamma(alpha, scale=mu / alpha)
        if spec.structure.effects == "mean_scaled"
        else stats.gamma(mu * alpha, scale=1 / alpha)
    )
    total = stats.expon(scale=4).logpdf(mu) + stats.halfnorm(scale=1.5).logpdf(alpha)
    mean = theta[ENTITY] * EXPOSURE
    if "phi" in hyper:
        phi = hyper["phi"]
        total += stats.gamma(2, scale=1 / 0.75).logpdf(phi)
        total += stats.nbinom(phi, phi / (phi + mean)).logpmf(COUNT).sum()
    else:
        total += stats.poisson(mean).logpmf(COUNT).sum()
    return total + law.logpdf(theta).sum() + np.log(list(hyper.values())).sum()


@pytest.mark.parametrize("by_window", [False, True])
@pytest.mark.parametrize(("likelihood", "effects", "name"), GEOMETRIES)
def test_every_geometry_is_the_joint_density_in_other_coordinates(likelihood, effects, name, by_window):
    spec = counts(likelihood, effects, name)
    model = build(spec, by_window)
    density = model.compile_logp(mode="FAST_COMPILE")
    theta_of = model.compile_fn(
        model.replace_rvs_by_values([model["theta"]])[0],
        inputs=model.value_vars,
        mode="FAST_COMPILE",
        on_unused_input="ignore",
    )
    moved = "z_log__" if name == "scaled" else "theta_log__"
    rng = np.random.default_rng(3)
    gaps = []
    for _ in range(3):
        point = {key: rng.normal(0.3, 0.6, np.shape(value)) for key, value in model.initial_point().items()}
        hyper = {key: float(np.exp(point[f"{key}_log__"])) for key in spec.structure.parameters}
        theta = theta_of(point)
        # Either way a rate is proportional to the exponential of what is moved.
        assert np.log(theta) - point[moved] == pytest.approx((np.log(theta) - point[moved])[0])
        gaps.append(float(density(point)) - joint(spec, hyper, theta) - np.log(theta).sum())
    # PyMC folds constants in single precision in places: one offset for all points.
    assert np.ptp(gaps) < 1e-8 * abs(float(density(point)))
    assert abs(gaps[0]) < 1e-5


def entity_mass(mu, alpha, phi, i, effects="rate"):
    """Grid of log θ, and the density of an entity's counts and its rate there, window by window."""
    x = np.arange(-40, 6, 0.01)
    theta = np.exp(x)
    a, b = (alpha, alpha / mu) if effects == "mean_scaled" else (mu * alpha, alpha)
    mean = theta[:, None] * EXPOSURE[i == ENTITY]
    like = stats.nbinom(phi, phi / (phi + mean)).pmf(COUNT[i == ENTITY]).prod(axis=1)
    return x, like * stats.gamma(a, scale=1 / b).pdf(theta) * theta * 0.01


@pytest.mark.parametrize("effects", ["rate", "mean_scaled"])
def test_the_collapsed_density_of_dispersed_counts_is_a_sum_over_rates(effects):
    spec = counts("negative_binomial", effects, "collapsed")
    model = build(spec)
    density, slope = model.compile_logp(mode="FAST_COMPILE"), model.compile_dlogp(mode="FAST_COMPILE")
    laws = (stats.expon(scale=4), stats.halfnorm(scale=1.5), stats.gamma(2, scale=1 / 0.75))
    names = [f"{name}_log__" for name in spec.structure.parameters]

    def at(x):
        return float(density(dict(zip(names, x, strict=True))))

    for values in ((0.7, 0.4, 0.3), (3.0, 2.5, 1.5), (4.0, 0.05, 40.0)):
        want = sum(law.logpdf(value) for law, value in zip(laws, values, strict=True)) + np.log(values).sum()
        want += sum(np.log(entity_mass(*values, i, effects)[1].sum()) for i in range(4))
        place = np.log(values)
        assert at(place) == pytest.approx(want, abs=2e-5)
        steps = 1e-4 * np.eye(3)
        found = [(at(place + step) - at(place - step)) / 2e-4 for step in steps]
        assert slope(dict(zip(names, place, strict=True))) == pytest.approx(found, rel=1e-5, abs=1e-5)


def test_collapsed_dispersed_rates_are_completed_from_their_conditionals():
    spec = counts("negative_binomial", "rate", "collapsed")
    values = {"mu": 1.3, "alpha": 0.4, "phi": 0.8}
    draws = {name: np.full((2, 5_000), value) for name, value in values.items()}
    theta = recipe(spec).complete(spec, draws, 5)["theta"]
    for i in range(4):
        x, mass = entity_mass(*values.values(), i)
        below = np.cumsum(mass) / mass.sum()
        found = stats.kstest(theta[..., i].ravel(), lambda t, x=x, f=below: np.interp(np.log(t), x, f))
        assert found.pvalue > 1e-3


@pytest.mark.parametrize("effects", ["rate", "mean_scaled"])
def test_the_collapsed_density_is_a_negative_multinomial(effects):
    spec = counts("poisson", effects, "collapsed")
    density = build(spec).compile_logp(mode="FAST_COMPILE")
    for mu, alpha in ((0.7, 0.4), (3.0, 2.5)):
        a, b = (alpha, alpha / mu) if effects == "mean_scaled" else (mu * alpha, alpha)
        want = stats.expon(scale=4).logpdf(mu) + stats.halfnorm(scale=1.5).logpdf(alpha) + np.log(mu * alpha)
        for i in range(4):
            y, e = COUNT[i == ENTITY], EXPOSURE[i == ENTITY]
            want += stats.nbinom(a, b / (b + e.sum())).logpmf(y.sum())
            want += stats.multinomial(y.sum(), e / e.sum()).logpmf(y)
        assert float(density({"mu_log__": np.log(mu), "alpha_log__": np.log(alpha)})) == pytest.approx(
            want, rel=1e-7
        )


def test_unit_likelihoods_add_up_and_are_those_of_entities_alone():
    spec = counts()
    rng = np.random.default_rng(2)
    draws = {name: rng.gamma(2, 1, 3) for name in spec.structure.parameters}
    found = recipe(spec).log_likelihood(spec, draws)
    x = np.stack(list(draws.values()), 1)
    for row, (mu, alpha, phi) in zip(found, x, strict=True):
        for i in range(4):
            assert row[i] == pytest.approx(np.log(entity_mass(mu, alpha, phi, i)[1].sum()), abs=1e-5)


def test_collapsed_draws_are_completed_from_exact_conditionals():
    spec = counts("poisson", "rate", "collapsed")
    draws = {"mu": np.full((2, 20_000), 1.3), "alpha": np.full((2, 20_000), 0.8)}
    theta = recipe(spec).complete(spec, draws, 5)["theta"]
    assert theta.shape == (2, 20_000, 4)
    shape = 1.3 * 0.8 + np.bincount(ENTITY, COUNT)
    rate = 0.8 + np.bincount(ENTITY, EXPOSURE)
    z = (theta.mean((0, 1)) - shape / rate) / np.sqrt(shape / rate**2 / 40_000)
    assert np.abs(z).max() < 4.5
    assert theta.std((0, 1)) == pytest.approx(np.sqrt(shape) / rate, rel=0.03)


def test_statistics_are_sums_over_windows():
    structure = counts().structure
    assert list(structure.total) == [7, 1, 26, 1]
    assert list(structure.total_exposure) == [4, 4, 3, 3]
    assert list(structure.latest) == [2, 5, 8, 10]
    totals = structure.totals
    rows = list(zip(totals.entity, totals.exposure, totals.windows, totals.total, strict=True))
    assert rows == [
        (0, 1, 2, 2),
        (0, 2, 1, 5),
        (1, 0.5, 2, 0),
        (1, 3, 1, 1),
        (2, 1, 3, 26),
        (3, 1, 1, 1),
        (3, 2, 1, 0),
    ]
    values, times = structure.histogram
    assert dict(zip(values, times, strict=True)) == {0: 4, 1: 2, 2: 1, 5: 1, 7: 2, 12: 1}
    assert moment_start(structure)[0] == pytest.approx(35.5 / (14 + 0.5 * 14 / 11))
    assert structure.funnel("a") == ("mu", "alpha")


@pytest.mark.sampling
@pytest.mark.parametrize(
    ("likelihood", "name"),
    [
        ("negative_binomial", "collapsed"),
        ("negative_binomial", "scaled"),
        ("negative_binomial", "centered"),
        ("poisson", "collapsed"),
    ],
)
def test_nuts_agrees_with_the_exact_posterior(likelihood, name, compile_cache):
    from hbm_core.analysis.draws import agreement, summary
    from hbm_core.inference.nuts import sample
    from hbm_core.inference.sampler import Sampler

    rng = np.random.default_rng(9)
    rate = rng.gamma(3.0, 1.0, 12)
    entity = np.repeat(np.arange(12), 6)
    count = rng.negative_binomial(3, 3 / (3 + rate[entity]))
    structure = GammaCounts(count, entity, tuple("abcdefghijkl"), likelihood=likelihood)
    spec = ModelSpec(structure, {n: Prior.parse(PRIORS[n]) for n in structure.parameters}, {}, name)
    tree = sample(spec, Sampler(draws=1000, tune=500, target_accept=0.9), cache=compile_cache)
    table = agreement(summary(tree), solve(spec).summary(hdi=False))
    assert len(table) == 12 + len(structure.parameters)
    assert table["agrees"].all(), table
    before = compile_cache.compilations
    changed = ModelSpec(structure, {**spec.priors, "mu": Prior.parse("Exponential(2)")}, {}, name)
    sample(changed, Sampler(draws=50, tune=100), cache=compile_cache)
    if name == "collapsed":
        # Where rates are integrated out, other entities compile nothing either.
        fewer = GammaCounts(count[:30], entity[:30], tuple("abcde"), likelihood=likelihood)
        sample(ModelSpec(fewer, spec.priors, {}, name), Sampler(draws=50, tune=100), cache=compile_cache)
    assert compile_cache.compilations == before
