"""Models of counts beyond the gamma population: every geometry is one density, written out row by row."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.inference.recipes import recipe
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts

COUNT = np.array([0, 2, 5, 0, 0, 1, 7, 0, 12, 0, 1])
ENTITY = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3])
EXPOSURE = np.array([1.0, 1, 2, 0.5, 0.5, 3, 1, 1, 1, 2, 1])
UNITS = tuple("abcd")
X = np.array([[0.3, -1.0, 0.3, 1.2, 1.2, 0.0, -0.7, -0.7, 0.1, 2.0, -1.4], np.linspace(-1, 1, 11) ** 2]).T
VOLUME = np.array([3.0, 8, 20, 0.4, np.nan, 5, 30, 11, 60, np.nan, np.nan])
PRIORS = {
    "mu": ("Exponential(0.25)", stats.expon(scale=4)),
    "alpha": ("HalfNormal(1.5)", stats.halfnorm(scale=1.5)),
    "phi": ("Gamma(2, 0.75)", stats.gamma(2, scale=1 / 0.75)),
    "psi": ("Beta(2, 5)", stats.beta(2, 5)),
    "beta": ("Normal(0, 0.7)", stats.norm(0, 0.7)),
    "rho": ("Uniform(-1, 1)", stats.uniform(-1, 2)),
    "sigma_drift": ("HalfNormal(0.8)", stats.halfnorm(scale=0.8)),
    "mu_count": ("Normal(1, 2)", stats.norm(1, 2)),
    "mu_bytes": ("Normal(2, 3)", stats.norm(2, 3)),
    "sigma_count": ("HalfNormal(1.2)", stats.halfnorm(scale=1.2)),
    "sigma_bytes": ("HalfNormal(0.9)", stats.halfnorm(scale=0.9)),
    "corr": ("LKJ(2)", stats.beta(2, 2, loc=-1, scale=2)),
    "sigma_window": ("HalfNormal(1)", stats.halfnorm(scale=1)),
    "kappa": ("LogNormal(2, 1)", stats.lognorm(1, scale=np.exp(2))),
}


def negative_binomial(mean, phi):
    return stats.nbinom(phi, phi / (phi + mean)).logpmf(COUNT)


def rates(v):
    return stats.gamma(v["mu"] * v["alpha"], scale=1 / v["alpha"]).logpdf(v["theta"]).sum()


def entity_likelihood(v, at):
    """Log p(y_i | parameters) of the windows `at`, the rate integrated out by a plain sum over log θ."""
    y, e = COUNT[at], EXPOSURE[at]
    x = np.arange(-60, 6, 0.01)
    theta = np.exp(x)
    mean = theta[:, None] * e
    if "beta" in v:
        mean = mean * np.exp(X[at] @ v["beta"])
    like = stats.nbinom(v["phi"], v["phi"] / (v["phi"] + mean)).pmf(y)
    if "psi" in v:
        like = np.where(y == 0, v["psi"], 0.0) + (1 - v["psi"]) * like
    prior = stats.gamma(v["mu"] * v["alpha"], scale=1 / v["alpha"]).pdf(theta) * theta
    return np.log((like.prod(axis=1) * prior).sum() * 0.01)


def integrated(v):
    return sum(entity_likelihood(v, i == ENTITY) for i in range(4))


def zero_inflated(v):
    if "theta" not in v:
        return integrated(v)
    one = negative_binomial(v["theta"][ENTITY] * EXPOSURE, v["phi"])
    shut = np.where(COUNT == 0, v["psi"], 0.0)
    return rates(v) + np.log(shut + (1 - v["psi"]) * np.exp(one)).sum()


def covariates(v):
    if "theta" not in v:
        return integrated(v)
    mean = v["theta"][ENTITY] * EXPOSURE * np.exp(X @ v["beta"])
    return rates(v) + negative_binomial(mean, v["phi"]).sum()


def drift(v):
    total = rates(v)
    for i in range(4):
        path = v["drift"][i == ENTITY]
        steps = np.arange(len(path))
        covariance = v["sigma_drift"] ** 2 * v["rho"] ** np.abs(steps[:, None] - steps)
        total += stats.multivariate_normal(np.zeros(len(path)), covariance).logpdf(path)
    mean = v["theta"][ENTITY] * EXPOSURE * np.exp(v["drift"])
    if "phi" in v:
        return total + negative_binomial(mean, v["phi"]).sum()
    return total + stats.poisson(mean).logpmf(COUNT).sum()


def joint(v):
    between = v["corr"] * v["sigma_count"] * v["sigma_bytes"]
    covariance = [[v["sigma_count"] ** 2, between], [between, v["sigma_bytes"] ** 2]]
    law = stats.multivariate_normal([v["mu_count"], v["mu_bytes"]], covariance)
    total = law.logpdf(np.column_stack([v["log_rate"], v["log_bytes"]])).sum()
    total += negative_binomial(np.exp(v["log_rate"])[ENTITY] * EXPOSURE, v["phi"]).sum()
    seen = np.isfinite(VOLUME)
    median = (np.exp(v["log_bytes"])[ENTITY] * EXPOSURE)[seen]
    return total + stats.lognorm(v["sigma_window"], scale=median).logpdf(VOLUME[seen]).sum()


def binomial(v):
    a, b = v["mu"] * v["kappa"], (1 - v["mu"]) * v["kappa"]
    if "theta" in v:
        theta = v["theta"]
        total = stats.beta(a, b).logpdf(theta).sum()
    else:
        return stats.betabinom([5, 9, 9, 40], a, b).logpmf([1, 0, 4, 31]).sum()
    return total + stats.binom([5, 9, 9, 40], theta).logpmf([1, 0, 4, 31]).sum()


#: Structure, the density of data and effects given the parameters, names of effects by geometry.
CASES = {
    "zero_inflated": (ZeroInflatedCounts(COUNT, ENTITY, UNITS, EXPOSURE), zero_inflated, ("theta",)),
    "covariates": (
        CovariateCounts(COUNT, ENTITY, UNITS, EXPOSURE, X, ("x", "w")),
        covariates,
        ("theta",),
    ),
    "drift": (DriftingCounts(COUNT, ENTITY, UNITS, EXPOSURE), drift, ("theta", "drift")),
    "joint": (JointCounts(COUNT, ENTITY, UNITS, EXPOSURE, VOLUME), joint, ("log_rate", "log_bytes")),
    "binomial": (BetaBinomial([1, 0, 4, 31], [5, 9, 9, 40], UNITS), binomial, ("theta",)),
}
EVERY = [(case, name) for case, (structure, *_) in CASES.items() for name in structure.parameterizations]


def spec_of(structure, parameterization=None):
    priors = {name: Prior.parse(PRIORS[name][0]) for name in structure.parameters}
    if isinstance(structure, BetaBinomial):
        priors["mu"] = Prior.parse("Beta(2, 3)")
    return ModelSpec(structure, priors, {}, parameterization or structure.parameterizations[0])


def log_prior(structure, v):
    laws = {name: PRIORS[name][1] for name in structure.parameters}
    if isinstance(structure, BetaBinomial):
        laws["mu"] = stats.beta(2, 3)
    return sum(float(np.sum(law.logpdf(v[name]))) for name, law in laws.items())


@pytest.mark.parametrize(("case", "name"), EVERY)
def test_every_geometry_is_one_density_in_other_coordinates(case, name):
    structure, likelihood, effects = CASES[case]
    if name == "collapsed":
        effects = ()
    spec = spec_of(structure, name)
    model = recipe(spec).build(spec)
    assert {one.name for one in model.data_vars} == set(recipe(spec).data(spec))
    names = (*structure.parameters, *effects)
    density = model.compile_logp(mode="FAST_COMPILE")
    natural = model.compile_fn(
        model.replace_rvs_by_values([model[one] for one in names]),
        inputs=model.value_vars,
        mode="FAST_COMPILE",
        on_unused_input="ignore",
    )
    shapes = {key: np.shape(value) for key, value in model.initial_point().items()}
    sizes = [int(np.prod(shape)) for shape in shapes.values()]

    def at(x):
        parts = np.split(x, np.cumsum(sizes)[:-1])
        point = {key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), parts, strict=True)}
        return point, natural(point)

    rng = np.random.default_rng(3)
    for _ in range(2):
        x = rng.normal(0.2, 0.5, sum(sizes))
        point, values = at(x)
        step = 1e-5
        columns = []
        for place in range(x.size):
            up, down = x.copy(), x.copy()
            up[place] += step
            down[place] -= step
            high, low = (np.concatenate([np.ravel(v) for v in at(one)[1]]) for one in (up, down))
            columns.append((high - low) / (2 * step))
        v = dict(zip(names, values, strict=True))
        if case == "drift":
            # The sampler's windows go entity by entity, as these do.
            assert (structure.order == np.arange(COUNT.size)).all()
        want = log_prior(structure, v) + likelihood(v) + np.linalg.slogdet(np.array(columns))[1]
        assert float(density(point)) == pytest.approx(want, abs=2e-5)


def test_drift_with_over_dispersion_takes_many_windows_and_says_so():
    with pytest.raises(InputError, match="at least 30 windows"):
        DriftingCounts(COUNT, ENTITY, UNITS, EXPOSURE, "negative_binomial")
    with pytest.raises(InputError, match="one window per entity"):
        DriftingCounts([1, 2, 0, 4], [0, 1, 2, 3], UNITS)
    count = np.tile(COUNT[:8], 10)
    structure = DriftingCounts(count, np.repeat([0, 1], 40), UNITS[:2], np.empty(0), "negative_binomial")
    assert structure.parameters[-1] == "phi" and structure.doublings == 6
    spec = spec_of(structure, "centered")
    density = recipe(spec).build(spec).compile_logp(mode="FAST_COMPILE")
    point = {f"{name}_log__": 0.1 for name in ("mu", "alpha", "sigma_drift", "phi")}
    point |= {"rho_interval__": 0.4, "theta_log__": np.array([0.2, 0.9]), "level": np.linspace(0, 2, 80)}
    rho, one = 2 / (1 + np.exp(-0.4)) - 1, np.exp(0.1)
    v = {"mu": one, "alpha": one, "rho": rho, "sigma_drift": one, "phi": one, "theta": np.exp([0.2, 0.9])}
    path = point["level"].reshape(2, 40) - np.array([[0.2], [0.9]])
    covariance = one**2 * rho ** np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    want = log_prior(structure, v) + rates(v) + np.log([one] * 4).sum() + 0.2 + 0.9
    want += np.log((1 + rho) * (1 - rho) / 2)
    want += stats.multivariate_normal(np.zeros(40), covariance).logpdf(path).sum()
    want += stats.nbinom(one, one / (one + np.exp(point["level"]))).logpmf(count).sum()
    assert float(density(point)) == pytest.approx(want, abs=1e-4)


def test_equal_windows_are_added_up():
    shut = CASES["zero_inflated"][0]
    assert list(shut.zeros.windows) == [1, 2, 1, 1] and list(shut.zeros.exposure) == [1, 0.5, 1, 2]
    assert shut.open_totals.total.sum() == COUNT.sum() and shut.open_totals.windows.sum() == 6
    assert list(shut.zero_share) == pytest.approx([1 / 3, 2 / 3, 1 / 3, 1 / 2])
    place = np.array([0.5, 0.5, -1.0, 0.5, 0.5, 0.5])
    few = CovariateCounts([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1], ("a", "b"), np.ones(6), place, ("x",))
    assert list(few.alike.windows) == [1, 2, 3] and list(few.alike.total) == [3, 3, 15]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CovariateCounts(COUNT, ENTITY, UNITS), "at least one numeric column"),
        (lambda: CovariateCounts(COUNT, ENTITY, UNITS, EXPOSURE, X * np.nan, ("x", "w")), "finite numbers"),
        (lambda: JointCounts(COUNT, ENTITY, UNITS, EXPOSURE), "one number per window"),
        (lambda: JointCounts(COUNT, ENTITY, UNITS, EXPOSURE, -VOLUME), "positive finite"),
        (lambda: JointCounts(COUNT, ENTITY, UNITS, EXPOSURE, VOLUME * np.nan), "at least two windows"),
    ],
)
def test_data_that_a_model_cannot_use_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("case", "prior", "message"),
    [
        ("zero_inflated", {"psi": "Uniform(0, 2)"}, "because psi is a share"),
        ("zero_inflated", {"psi": "Normal(0, 1)"}, "psi cannot be negative"),
        ("drift", {"rho": "Normal(0, 1)"}, "because rho is a correlation"),
        ("joint", {"corr": "Flat()"}, r"LKJ\(2\)"),
    ],
)
def test_priors_beyond_a_parameters_ends_are_refused(case, prior, message):
    structure = CASES[case][0]
    priors = dict(spec_of(structure).priors) | {n: Prior.parse(text) for n, text in prior.items()}
    with pytest.raises(InputError, match=message):
        ModelSpec(structure, priors, {}, structure.parameterizations[0])


@pytest.mark.parametrize("case", ["zero_inflated", "covariates", "joint"])
def test_unit_likelihoods_integrate_the_effects_out(case):
    """Against a fine sum over the effect of each entity; of two effects the bytes' one is a sum too."""
    structure, *_ = CASES[case]
    spec = spec_of(structure)
    rng = np.random.default_rng(5)
    draws = {name: rng.gamma(2, 0.4, 3) for name in structure.parameters}
    if case == "zero_inflated":
        draws["psi"] = np.array([0.02, 0.4, 0.9])
    if case == "covariates":
        draws["beta"] = rng.normal(0, 0.6, (3, 2))
    if case == "joint":
        draws |= {"corr": np.array([[-0.8], [0.1], [0.95]]), "mu_bytes": np.array([0.5, 2, 3])}
    found = recipe(spec).log_likelihood(spec, draws)
    for row in range(3):
        v = {name: values[row] for name, values in draws.items()}
        for i in range(4):
            at = i == ENTITY
            if case == "joint":
                y, e = COUNT[at], EXPOSURE[at]
                a = np.linspace(-14, 12, 1601)[:, None]
                c = np.linspace(-12, 16, 1401)
                mean = np.exp(a) * e
                given = v["mu_bytes"] + v["corr"] * v["sigma_bytes"] / v["sigma_count"] * (a - v["mu_count"])
                law = stats.norm(given, v["sigma_bytes"] * np.sqrt(1 - v["corr"] ** 2))
                seen = np.isfinite(VOLUME[at])
                like = np.ones(c.size)
                for volume, exposure in zip(VOLUME[at][seen], e[seen], strict=True):
                    like = like * stats.lognorm(v["sigma_window"], scale=np.exp(c) * exposure).pdf(volume)
                inner = (law.pdf(c[None]) * like).sum(axis=1) * (c[1] - c[0])
                outer = stats.nbinom(v["phi"], v["phi"] / (v["phi"] + mean)).pmf(y).prod(axis=1)
                outer = outer * stats.norm(v["mu_count"], v["sigma_count"]).pdf(a[:, 0])
                want = np.log((inner * outer).sum() * (a[1, 0] - a[0, 0]))
            else:
                want = entity_likelihood(v, at)
            assert found[row, i] == pytest.approx(want, abs=2e-4)


def test_collapsed_success_rates_are_completed_from_their_conditionals():
    structure = CASES["binomial"][0]
    spec = spec_of(structure, "collapsed")
    draws = {"mu": np.full((2, 20_000), 0.4), "kappa": np.full((2, 20_000), 6.0)}
    theta = recipe(spec).complete(spec, draws, 5)["theta"]
    law = stats.beta(2.4 + structure.successes, 3.6 + structure.trials - structure.successes)
    z = (theta.mean((0, 1)) - law.mean()) / (law.std() / np.sqrt(40_000))
    assert np.abs(z).max() < 4.5
    assert theta.std((0, 1)) == pytest.approx(law.std(), rel=0.03)


@pytest.mark.parametrize("case", ["zero_inflated", "covariates"])
def test_collapsed_rates_are_completed_from_their_conditionals(case):
    """Against the distribution function of each rate by a plain sum over log θ."""
    spec = spec_of(CASES[case][0], "collapsed")
    v = {"mu": 2.2, "alpha": 0.3, "phi": 1.4} | {"zero_inflated": {"psi": 0.35}, "covariates": {}}[case]
    draws = {name: np.full((2, 5_000), value) for name, value in v.items()}
    if case == "covariates":
        v["beta"] = np.array([0.4, -0.7])
        draws["beta"] = np.tile(v["beta"], (2, 5_000, 1))
    theta = recipe(spec).complete(spec, draws, 5)["theta"]
    x = np.arange(-60, 6, 0.005)
    for i in range(4):
        at = i == ENTITY
        mean = np.exp(x)[:, None] * EXPOSURE[at]
        if case == "covariates":
            mean = mean * np.exp(X[at] @ v["beta"])
        like = stats.nbinom(1.4, 1.4 / (1.4 + mean)).pmf(COUNT[at])
        if case == "zero_inflated":
            like = np.where(COUNT[at] == 0, 0.35, 0.0) + 0.65 * like
        mass = like.prod(axis=1) * stats.gamma(0.66, scale=1 / 0.3).pdf(np.exp(x)) * np.exp(x)
        below = np.cumsum(mass) / mass.sum()
        found = stats.kstest(theta[..., i].ravel(), lambda t, below=below: np.interp(np.log(t), x, below))
        assert found.pvalue > 1e-3


@pytest.mark.parametrize("case", ["zero_inflated", "covariates"])
def test_collapsed_densities_have_their_own_slopes(case):
    spec = spec_of(CASES[case][0], "collapsed")
    model = recipe(spec).build(spec)
    density, slope = model.compile_logp(mode="FAST_COMPILE"), model.compile_dlogp(mode="FAST_COMPILE")
    rng = np.random.default_rng(4)
    start = {name: rng.normal(0.1, 0.4, np.shape(value)) for name, value in model.initial_point().items()}
    found, step = [], 1e-5
    for name, value in start.items():
        for place in np.ndindex(np.shape(value)):
            up, down = ({key: np.array(one) for key, one in start.items()} for _ in range(2))
            up[name][place] += step
            down[name][place] -= step
            found.append(float(density(up) - density(down)) / (2 * step))
    assert slope(start) == pytest.approx(found, rel=1e-5, abs=1e-4)


def test_entities_with_the_same_windows_are_counted_once():
    structure = ZeroInflatedCounts([0, 3, 3, 0, 1, 0], [0, 0, 1, 1, 2, 2], ("a", "b", "c"))
    values = recipe(spec_of(structure, "collapsed")).data(spec_of(structure, "collapsed"))
    assert list(values["class_times"]) == [2, 1] and list(values["class_starts"]) == [0, 1, 2]
    assert list(values["class_total"]) == [3, 1] and list(values["class_shut"]) == [1, 1]
