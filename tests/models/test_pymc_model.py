"""The PyMC models against densities written with SciPy, and against each other."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_model import build, data_share, data_values, moment_tau, structure_key
from hbm_core.models.structure import PARAMETERIZATIONS, ModelSpec, TwoLevelNormal

EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SE = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
PRECISION = (1 / SE**2 - np.mean(1 / SE**2)) / np.std(1 / SE**2)
PRIORS = {
    "mu": "Normal(0, 20)",
    "tau": "HalfCauchy(10)",
    "nu": "Gamma(2, 0.1)",
    "beta": "Normal(0, 10)",
    "theta": "Normal(0, 100)",
}
MODELS = {
    "weak": {},
    "adaptive": {"scale": "adaptive"},
    "covariates": {"design": np.column_stack([PRECISION, PRECISION**2]), "columns": ("x", "x²")},
    "robust": {"likelihood": "student_t"},
    "robust_effects": {"effects": "student_t"},
}


def eight_schools(parameterization="noncentered", priors=(), copies=1, **variation):
    """Rubin's eight schools under any variation; `priors` replaces the defaults above."""
    units = tuple(f"{letter}{copy or ''}" for copy in range(copies) for letter in "ABCDEFGH")
    structure = TwoLevelNormal(np.tile(EFFECT, copies), np.tile(SE, copies), units, **variation)
    chosen = PRIORS | dict(priors)
    return ModelSpec(
        structure,
        {name: Prior.parse(chosen[name]) for name in structure.parameters},
        {"threshold": 3.0, "spread": 4.0, "slope": 2.0},
        parameterization,
    )


def log_density(model):
    """Joint log density of a model as a function of its variables' unconstrained values, by name."""
    function = model.compile_logp(mode="FAST_COMPILE")
    return lambda **values: float(function(values))


def random_point(spec, seed=0):
    """Hyperparameters and effects somewhere in the bulk."""
    rng = np.random.default_rng(seed)
    point = {"mu": rng.normal(8, 5), "tau": rng.gamma(3, 2), "nu": rng.gamma(4, 2)}
    point["beta"] = rng.normal(0, 3, len(spec.structure.columns))
    return point, rng.normal(8, 6, spec.structure.effect.size)


def mean_and_scale(spec, point):
    """Location and scale of the effects, from the formulas of the models' definitions."""
    tau = point["tau"]
    if spec.structure.scale == "adaptive":
        w = 1 / (1 + np.exp(-2 * (tau - 3)))
        tau = w * tau + (1 - w) * 4 * tau / 3
    return point["mu"] + spec.structure.design @ point["beta"], tau


def true_log_density(spec, point, theta):
    """log p(y, θ, μ, log τ, β, log ν) with SciPy; logs carry their Jacobians."""
    structure = spec.structure
    total = stats.norm(0, 20).logpdf(point["mu"])
    total += stats.halfcauchy(scale=10).logpdf(point["tau"]) + np.log(point["tau"])
    total += stats.norm(0, 10).logpdf(point["beta"]).sum()
    if "nu" in structure.parameters:
        total += stats.gamma(2, scale=10).logpdf(point["nu"]) + np.log(point["nu"])
    mean, scale = mean_and_scale(spec, point)
    effects, noise = stats.norm(mean, scale), stats.norm(theta, SE)
    if structure.effects == "student_t":
        effects = stats.t(point["nu"], mean, scale)
    if structure.likelihood == "student_t":
        noise = stats.t(point["nu"], theta, SE)
    return total + effects.logpdf(theta).sum() + noise.logpdf(EFFECT).sum()


def unconstrained(spec, point):
    values = {"mu": point["mu"], "tau_log__": np.log(point["tau"])}
    if spec.structure.columns:
        values["beta"] = point["beta"]
    if "nu" in spec.structure.parameters:
        values["nu_log__"] = np.log(point["nu"])
    return values


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_every_geometry_is_the_same_density_after_the_change_of_variables(name, parameterization):
    if parameterization == "collapsed" and name.startswith("robust"):
        with pytest.raises(InputError):
            eight_schools(parameterization, **MODELS[name])
        return
    spec = eight_schools(parameterization, **MODELS[name])
    density = log_density(build(spec))
    share = data_share(spec.structure)
    differences = []
    for seed in range(4):
        point, theta = random_point(spec, seed)
        mean, scale = mean_and_scale(spec, point)
        values = unconstrained(spec, point)
        match parameterization:
            case "centered":
                got = density(theta=theta, **values)
            case "noncentered":
                got = density(eta=(theta - mean) / scale, **values) - 8 * np.log(scale)
            case "partial":
                tilde = share * mean + (theta - mean) / scale ** (1 - share)
                got = density(theta_tilde=tilde, **values) - np.sum(1 - share) * np.log(scale)
            case _:
                # p(y, θ) = p(y) p(θ | y) with the normal conditional in its textbook form.
                precision = 1 / SE**2 + 1 / scale**2
                centre = (EFFECT / SE**2 + mean / scale**2) / precision
                got = density(**values) + stats.norm(centre, precision**-0.5).logpdf(theta).sum()
        differences.append(got - true_log_density(spec, point, theta))
    # PyMC holds log 2π and its like in single precision: the same offset everywhere, of no consequence.
    assert np.abs(differences).max() < 1e-6
    assert np.ptp(differences) < 1e-10


@pytest.mark.parametrize(
    ("variation", "expected"),
    [
        ({}, lambda mu, b: stats.norm(mu, SE)),
        ({"design": PRECISION[:, None], "columns": ("x",)}, lambda mu, b: stats.norm(mu + PRECISION * b, SE)),
    ],
)
def test_complete_pooling(variation, expected):
    density = log_density(build(eight_schools("centered", pooling="complete", **variation)))
    values = {"beta": np.array([3.0])} if variation else {}
    prior = stats.norm(0, 20).logpdf(5) + sum(stats.norm(0, 10).logpdf(b).sum() for b in values.values())
    assert density(mu=5.0, **values) == pytest.approx(prior + expected(5, 3.0).logpdf(EFFECT).sum())


@pytest.mark.parametrize(
    ("prior", "expected"),
    [("Normal(0, 100)", lambda x: stats.norm(0, 100).logpdf(x)), ("Flat()", np.zeros_like)],
)
def test_no_pooling(prior, expected):
    theta = random_point(spec := eight_schools("centered", {"theta": prior}, pooling="none"))[1]
    got = log_density(build(spec))(theta=theta)
    assert got == pytest.approx(np.sum(expected(theta) + stats.norm(theta, SE).logpdf(EFFECT)))


def test_no_pooling_with_a_student_likelihood_has_no_nu():
    with pytest.raises(InputError, match="pooling"):
        build(eight_schools("centered", pooling="none", likelihood="student_t"))


@pytest.mark.parametrize(
    ("text", "transform"),
    [
        ("HalfNormal(7)", "log"),
        ("HalfStudentT(4, 7)", "log"),
        ("Exponential(0.2)", "log"),
        ("Gamma(2, 0.3)", "log"),
        ("InverseGamma(2, 5)", "log"),
        ("LogNormal(1, 0.5)", "log"),
        ("Uniform(1, 50)", "interval"),
        ("Flat()", "log"),
    ],
)
def test_every_family_enters_with_its_own_density(text, transform):
    spec = eight_schools("collapsed", {"tau": text, "mu": "StudentT(5, 3, 20)"})
    prior = Prior.parse(text)
    tau, mu = 4.0, 6.0
    if transform == "log":
        value, log_jacobian = np.log(tau), np.log(tau)
    else:
        value, log_jacobian = np.log((tau - 1) / (50 - tau)), np.log((tau - 1) * (50 - tau) / 49)
    got = log_density(build(spec))(mu=mu, **{f"tau_{transform}__": value})
    if text.startswith("HalfStudentT"):
        log_prior = np.log(2) + stats.t(4, 0, 7).logpdf(tau)
    else:
        log_prior = prior.distribution.logpdf(tau) if prior.proper else 0.0
    expected = log_prior + log_jacobian + stats.t(5, 3, 20).logpdf(mu)
    assert got == pytest.approx(expected + stats.norm(mu, np.hypot(SE, tau)).logpdf(EFFECT).sum())


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_every_number_is_data_and_every_data_has_a_value(parameterization):
    for variation in ({}, {"scale": "adaptive"}, {"design": PRECISION[:, None], "columns": ("x",)}):
        spec = eight_schools(parameterization, **variation)
        model, values = build(spec), data_values(spec)
        assert {variable.name for variable in model.data_vars} == set(values)
        for name, value in values.items():
            assert np.array_equal(model[name].get_value(), value)


def test_structure_key_knows_structure_and_no_numbers():
    key = structure_key(eight_schools("collapsed"))
    assert key == structure_key(eight_schools("collapsed", {"tau": "HalfCauchy(3)"}))
    assert key == structure_key(eight_schools("collapsed", copies=4))
    other = [
        eight_schools("collapsed", {"tau": "HalfNormal(3)"}),
        eight_schools("noncentered"),
        eight_schools("noncentered", copies=4),
        eight_schools("collapsed", scale="adaptive"),
        eight_schools("collapsed", design=PRECISION[:, None], columns=("x",)),
        eight_schools("centered", pooling="complete"),
    ]
    assert len({key, *map(structure_key, other)}) == 1 + len(other)


def test_moment_estimate_against_statsmodels():
    meta = pytest.importorskip("statsmodels.stats.meta_analysis")
    effect = EFFECT * 3
    structure = TwoLevelNormal(effect, SE, tuple("ABCDEFGH"))
    expected = meta.combine_effects(effect, SE**2, method_re="dl").tau2
    assert expected > 0
    assert moment_tau(structure) ** 2 == pytest.approx(expected, rel=1e-10)
    assert moment_tau(eight_schools().structure) == 0.0


def test_share_is_the_datas_part_of_the_precision_and_stays_off_its_ends():
    structure = TwoLevelNormal(EFFECT * 3, SE, tuple("ABCDEFGH"))
    tau = moment_tau(structure)
    assert data_share(structure) == pytest.approx((1 / SE**2) / (1 / SE**2 + 1 / tau**2))
    assert np.all(data_share(eight_schools().structure) == 0.05)
    far = TwoLevelNormal(EFFECT * 1e6, SE, tuple("ABCDEFGH"))
    assert np.all(data_share(far) == 0.95)
