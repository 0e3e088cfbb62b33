"""The population of mechanisms: its density against one written with SciPy, and its geometries."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import betaln

from hbm_core.errors import InputError
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.circuits import log_prior
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.circuits_bend import Ridge, bend
from hbm_core.models.circuits_rough import rough_fit
from hbm_core.models.kinetics.absorption import ABSORPTION, PARAMETERS
from hbm_core.models.kinetics.program import Experiment
from hbm_core.models.kinetics.solver import curves
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_circuits import bends, build
from hbm_core.models.structure import ModelSpec

TIMES = np.array([0.5, 1.0, 2.0, 5.0, 9.0, 24.0])
PRIORS = {
    "sigma": "LogNormal(-1.4, 0.5)",
    "corr": "LKJ(2)",
    "noise": "LogNormal(-1, 1)",
    "exponent": "Normal(0.75, 0.25)",
    "gain": "HalfNormal(0.1)",
    "slope": "LogNormal(0, 1)",
    "offset": "Normal(0, 5)",
    "reading_sd": "HalfNormal(1)",
}


def spec_of(parameterization: str = "noncentered", **structure) -> ModelSpec[CircuitPopulation]:
    """Three subjects, two doses for the first; every course is read twice for the last."""
    doses = (({"dose": 4.0}, {"dose": 8.0}), ({"dose": 5.0},), ({"dose": 4.5},))
    experiments = tuple(Experiment(ABSORPTION, conditions, TIMES) for conditions in doses)
    point = np.concatenate([np.arange(24), np.arange(18, 24)])
    course = np.concatenate([np.arange(24) // 6, np.full(6, 4)])
    value = 6 * np.exp(-0.1 * np.tile(TIMES, 5)) + np.random.default_rng(2).normal(size=30)
    labels = (("low", "high"), ("one",), ("one",))
    made = CircuitPopulation(experiments, ("A", "B", "C"), labels, value, point, course, **structure)
    priors = {
        f"alpha[{name}]": Prior("Normal", (PARAMETERS[name].center, PARAMETERS[name].sd))
        for name in made.inferred
    }
    priors |= {name: Prior.parse(text) for name, text in PRIORS.items() if name in made.parameters}
    return ModelSpec(made, priors, {"floor": 0.1}, parameterization)


def log_density_of(model, point: dict[str, np.ndarray]) -> float:
    return float(model.compile_logp(jacobian=False, mode="FAST_COMPILE")(point))


def course_log_density(value, mean, sd, exponent: float, gain: float) -> float:
    """Of readings of one course, over its gain's logarithm by Simpson's rule."""
    if gain == 0:
        return float(stats.norm.logpdf(value, mean, sd).sum())
    log_gain = np.linspace(-8 * gain, 8 * gain, 4001)
    g = np.exp(log_gain)[:, None]
    terms = stats.norm.logpdf(value, g * mean, g**exponent * sd).sum(axis=1)
    terms += stats.norm.logpdf(log_gain, 0, gain)
    return float(terms.max() + np.log(integrate.simpson(np.exp(terms - terms.max()), x=log_gain)))


def readings_log_density(
    spec, theta, noise: float, exponent: float, gain: float, slope=1.0, offset=0.0
) -> float:
    structure = spec.structure
    f = curves(structure.tables, theta)[structure.point]
    sd = noise * ((f + np.sqrt(f**2 + 0.1**2)) / 2) ** exponent
    value = (structure.value - offset) / slope
    total = -np.log(slope) * value.size
    for course in np.unique(structure.course):
        own = structure.course == course
        total += course_log_density(value[own], f[own], sd[own], exponent, gain)
    return float(total)


def correlations(partial: np.ndarray) -> np.ndarray:
    """r₂₁, r₃₁, r₃₂ from two correlations with the first and the partial one of the others."""
    a, b, c = partial
    return np.array([a, b, c * np.sqrt((1 - a**2) * (1 - b**2)) + a * b])


def matrix_of(r: np.ndarray) -> np.ndarray:
    full = np.eye(3)
    full[np.tril_indices(3, -1)] = r
    return full + full.T - np.eye(3)


def lkj_log_density(r: np.ndarray, eta: float) -> float:
    """Lewandowski, Kurowicka and Joe (2009), equation 16."""
    d = 3
    power = sum((2 * eta - 2 + d - k) * (d - k) for k in range(1, d)) * np.log(2)
    betas = sum((d - k) * betaln(eta + (d - k - 1) / 2, eta + (d - k - 1) / 2) for k in range(1, d))
    return float((eta - 1) * np.linalg.slogdet(matrix_of(r))[1] - power - betas)


def jacobian(function, x: np.ndarray) -> np.ndarray:
    step = 1e-6 * np.eye(x.size)
    return np.array([(function(x + h) - function(x - h)) / 2e-6 for h in step]).T


def prior_log_density(alpha: np.ndarray, spec) -> float:
    center, sd = np.array([spec.priors[f"alpha[{name}]"].numbers for name in spec.structure.inferred]).T
    return float(stats.norm.logpdf(alpha, center, sd).sum())


@pytest.fixture(scope="module")
def point() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    alpha = np.array([PARAMETERS[name].center for name in ("ka", "ke", "Cl")]) + 0.1 * rng.normal(size=3)
    return {
        "alpha": alpha,
        "sigma": np.array([0.2, 0.3, 0.15]),
        "partial": np.array([0.4, -0.3, 0.5]),
        "z": rng.normal(size=(3, 3)),
    }


def unconstrained(point: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    share = (point["partial"] + 1) / 2
    return {
        "alpha": point["alpha"],
        "sigma_log__": np.log(point["sigma"]),
        "partial_logodds__": np.log(share / (1 - share)),
        "noise_log__": np.log(0.4),
        "exponent": np.array(0.7),
        "gain_log__": np.log(0.06),
    }


def root_of(point: dict[str, np.ndarray]) -> np.ndarray:
    return np.diag(point["sigma"]) @ np.linalg.cholesky(matrix_of(correlations(point["partial"])))


def population_log_density(spec, point) -> float:
    """Log density of α, σ, Ω by their own coordinates, of Ω by the partial correlations' Beta variables."""
    r = correlations(point["partial"])
    change = np.linalg.slogdet(jacobian(correlations, point["partial"]))[1] + 3 * np.log(2)
    sigma = stats.lognorm(0.5, scale=np.exp(-1.4)).logpdf(point["sigma"]).sum()
    return prior_log_density(point["alpha"], spec) + float(sigma) + lkj_log_density(r, 2.0) + change


NOISE = (
    stats.lognorm(1, scale=np.exp(-1)).logpdf(0.4)
    + stats.norm(0.75, 0.25).logpdf(0.7)
    + stats.halfnorm(scale=0.1).logpdf(0.06)
)


def test_the_full_model_has_the_density_that_it_says(point) -> None:
    spec = spec_of()
    theta = point["alpha"] + point["z"] @ root_of(point).T
    expected = population_log_density(spec, point) + NOISE + stats.norm.logpdf(point["z"]).sum()
    expected += readings_log_density(spec, theta, 0.4, 0.7, 0.06)
    found = log_density_of(build(spec), unconstrained(point) | {"z": point["z"]})
    assert found == pytest.approx(expected, abs=1e-6)


def test_geometries_are_one_posterior(point) -> None:
    """Centered is the density by θ; the others differ from it by the Jacobian of their map alone."""
    spec, base = spec_of(), unconstrained(point)
    theta = point["alpha"] + point["z"] @ root_of(point).T
    centered = log_density_of(build(replace(spec, parameterization="centered")), base | {"own": theta})
    noncentered = log_density_of(build(spec), base | {"z": point["z"]})
    determinant = 3 * np.linalg.slogdet(root_of(point))[1]
    assert noncentered - determinant == pytest.approx(centered, abs=1e-6)

    model = build(replace(spec, parameterization="transport"))
    # Any order and any bend: data of the coordinates are none of the posterior's.
    model.set_data("order", np.array([2, 0, 1]))
    inputs = [model.rvs_to_values[rv] for rv in model.free_RVs]
    wanted = model.replace_rvs_by_values([model[name] for name in ("theta", "sigma", "corr")])
    made = model.compile_fn(
        wanted, inputs=inputs, point_fn=False, mode="FAST_COMPILE", on_unused_input="ignore"
    )
    names = [value.name for value in inputs]
    ours = {name: value for name, value in base.items() if name in names}
    rng = np.random.default_rng(9)
    ours["below"] = 0.5 * rng.normal(size=3)

    def of(flat: np.ndarray) -> np.ndarray:
        """θ, log σ and Ω, as far as the sampler moves them."""
        values = ours | {"sigma_log__": flat[:3], "below": flat[3:6], "u": flat[6:].reshape(3, 3)}
        theta, sigma, corr = made(*(values[name] for name in names))
        return np.concatenate([np.ravel(theta), np.log(sigma), corr])

    flat = 0.5 * rng.normal(size=15)
    moved, sigma, r = np.split(of(flat), [9, 12])
    change = np.linalg.slogdet(jacobian(of, flat))[1]
    values = ours | {"sigma_log__": flat[:3], "below": flat[3:6], "u": flat[6:].reshape(3, 3)}
    # `log_density_of` is by σ itself.
    transport = log_density_of(model, values) + sigma.sum()
    # The centered model by θ, log σ and Ω too.
    where = {"sigma": np.exp(sigma), "partial": partials(r)}
    other = base | {
        "sigma_log__": sigma,
        "partial_logodds__": unconstrained(point | where)["partial_logodds__"],
    }
    centered = log_density_of(
        build(replace(spec, parameterization="centered")), other | {"own": moved.reshape(3, 3)}
    )

    def correlations_of(share: np.ndarray) -> np.ndarray:
        return correlations(2 * share - 1)

    # By σ and the Beta variables of partial correlations, as `log_density_of` has it.
    centered += sigma.sum() - np.linalg.slogdet(jacobian(correlations_of, (partials(r) + 1) / 2))[1]
    assert transport - change == pytest.approx(centered, abs=1e-4)


def partials(r: np.ndarray) -> np.ndarray:
    """Partial correlations of three, given the columns before, of packed correlations."""
    left = np.sqrt((1 - r[0] ** 2) * (1 - r[1] ** 2))
    return np.array([r[0], r[1], (r[2] - r[0] * r[1]) / left])


@pytest.mark.parametrize("geometry, noise", [("transport", "power"), ("noncentered", "proportional")])
def test_gradients_are_those_of_the_density(geometry: str, noise: str) -> None:
    """Also through the calibration, whose readings move with its line."""
    standards = np.array([[0.0, 1.0], [5.0, 11.5], [10.0, 20.5]])
    model = build(spec_of(geometry, noise=noise, standards=standards))
    log_density = model.compile_logp(mode="FAST_COMPILE")
    rng = np.random.default_rng(0)
    at = {
        name: value + 0.1 * rng.normal(size=np.shape(value)) for name, value in model.initial_point().items()
    }
    ends = np.cumsum([0, *(np.size(at[value.name]) for value in model.value_vars)])
    flat = np.concatenate([np.ravel(at[value.name]) for value in model.value_vars])

    def density(x: np.ndarray) -> np.ndarray:
        parts = zip(model.value_vars, ends[:-1], ends[1:], strict=True)
        return np.ravel(log_density({v.name: x[a:b].reshape(np.shape(at[v.name])) for v, a, b in parts}))

    found = model.compile_dlogp(mode="FAST_COMPILE")(at)
    np.testing.assert_allclose(found, jacobian(density, flat)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "noise, exponent", [("heteroscedastic", 0.5), ("proportional", 1.0), ("constant", 0.0)]
)
def test_noise_models_and_roles(noise: str, exponent: float) -> None:
    """One common parameter, one fixed, no gain; complete pooling of what is left."""
    spec = spec_of(noise=noise, pooling="shared", roles={"ke": "shared", "Cl": "fixed"})
    alpha = np.array([0.3, -1.0])
    theta = np.tile([0.3, -1.0, PARAMETERS["Cl"].center], (3, 1))
    expected = prior_log_density(alpha, spec) + stats.lognorm(1, scale=np.exp(-1)).logpdf(0.4)
    expected += readings_log_density(spec, theta, 0.4, exponent, 0.0)
    found = log_density_of(build(spec), {"alpha": alpha, "noise_log__": np.log(0.4)})
    assert found == pytest.approx(expected, abs=1e-6)


def test_calibration_is_a_proper_density() -> None:
    """Standards tell slope and offset; readings keep the Jacobian of their conversion."""
    standards = np.array([[0.0, 1.0], [5.0, 11.5], [10.0, 20.5]])
    spec = spec_of(noise="constant", pooling="independent", standards=standards)
    theta = np.array([[0.2, -1.1, -1.4], [0.1, -1.0, -1.3], [0.3, -1.2, -1.5]])
    center, sd = np.array([spec.priors[f"alpha[{name}]"].numbers for name in ("ka", "ke", "Cl")]).T
    z = (theta - center) / sd
    expected = stats.norm.logpdf(z).sum() + stats.lognorm(1, scale=np.exp(-1)).logpdf(0.4)
    expected += (
        stats.lognorm(1).logpdf(2.0) + stats.norm(0, 5).logpdf(0.5) + stats.halfnorm(scale=1).logpdf(0.7)
    )
    expected += stats.norm.logpdf(standards[:, 1], 2 * standards[:, 0] + 0.5, 0.7).sum()
    expected += readings_log_density(spec, theta, 0.4, 0.0, 0.0, 2.0, 0.5)
    given = {"alpha": np.empty(0), "z": z, "noise_log__": np.log(0.4), "slope_log__": np.log(2.0)}
    given |= {"offset": np.array(0.5), "reading_sd_log__": np.log(0.7)}
    model = build(spec)
    found = log_density_of(
        model, {name: value for name, value in given.items() if name in model.initial_point()}
    )
    assert found == pytest.approx(expected, abs=1e-6)


def test_likelihoods_of_conditions_add_up(point) -> None:
    spec = spec_of()
    theta = point["alpha"] + point["z"] @ root_of(point).T
    draws = {
        "theta": theta[None],
        "noise": np.array([0.4]),
        "exponent": np.array([0.7]),
        "gain": np.array([0.06]),
    }
    found = recipe(spec).log_likelihood(spec, draws)
    assert found.shape == (1, 4)
    assert found.sum() == pytest.approx(readings_log_density(spec, theta, 0.4, 0.7, 0.06), abs=1e-9)


def stacked(**draws) -> dict[str, np.ndarray]:
    """One draw as a result's arrays: chain, draw, then its own shape."""
    return {name: np.asarray(value, dtype=float)[None, None] for name, value in draws.items()}


def test_results_hold_curves_and_densities_of_their_own_parameters(point) -> None:
    spec = spec_of()
    theta = point["alpha"] + point["z"] @ root_of(point).T
    r = correlations(point["partial"])
    draws = stacked(
        theta=theta, alpha=point["alpha"], sigma=point["sigma"], corr=r, noise=0.4, exponent=0.7, gain=0.06
    )
    tree = result_tree(spec, draws)
    prior = prior_log_density(point["alpha"], spec) + lkj_log_density(r, 2.0) + NOISE
    prior += stats.lognorm(0.5, scale=np.exp(-1.4)).logpdf(point["sigma"]).sum()
    covariance = np.diag(point["sigma"]) @ matrix_of(r) @ np.diag(point["sigma"])
    prior += stats.multivariate_normal.logpdf(theta, point["alpha"], covariance).sum()
    density = tree["log_density"]
    assert float(density["log_prior"][0, 0]) == pytest.approx(prior, abs=1e-9)
    likelihood = readings_log_density(spec, theta, 0.4, 0.7, 0.06)
    assert float(density["log_likelihood"][0, 0]) == pytest.approx(likelihood, abs=1e-9)
    kept = tree["curves"]
    assert kept["condition"].values.tolist() == ["low"] * 6 + ["high"] * 6 + ["one"] * 12
    at = (kept["circuit"].values == "C") & (kept["time_min"].values == 5.0)
    amounts = 10 ** theta[2]
    ka, ke, cl = (amounts[spec.structure.fitted.index(name)] for name in ("ka", "ke", "Cl"))
    expected = 4.5 * ka * ke / cl / (ka - ke) * (np.exp(-5 * ke) - np.exp(-5 * ka))
    assert kept["curve"].values[0, at] == pytest.approx([expected], rel=1e-4)
    assert tree["posterior"]["corr"].coords["pair"].values.tolist() == ["ka,ke", "ka,Cl", "ke,Cl"]


@pytest.mark.parametrize("pooling", ["independent", "shared", "diagonal", "full"])
def test_the_prior_of_a_result_at_every_level(pooling: str, point) -> None:
    """`full` under inverse Wishart, by σ and Ω: SciPy's density and a Jacobian by differences."""
    spec = spec_of(pooling=pooling, noise="constant", covariance="inverse_wishart")
    spec = replace(spec, constants={"nu": 7.0, "psi": 2.0})
    theta = point["alpha"] + point["z"] @ root_of(point).T
    sigma, r = point["sigma"], correlations(point["partial"])
    expected = stats.lognorm(1, scale=np.exp(-1)).logpdf(0.4)
    given = {"noise": 0.4, "theta": theta}
    if pooling == "independent":
        expected += sum(prior_log_density(row, spec) for row in theta)
    else:
        given["alpha"] = point["alpha"]
        expected += prior_log_density(point["alpha"], spec)
    if pooling == "diagonal":
        given["sigma"] = sigma
        expected += stats.norm.logpdf(theta, point["alpha"], sigma).sum()
        expected += stats.lognorm(0.5, scale=np.exp(-1.4)).logpdf(sigma).sum()
    if pooling == "full":
        given |= {"sigma": sigma, "corr": r}

        def packed(x: np.ndarray) -> np.ndarray:
            return (np.outer(x[:3], x[:3]) * matrix_of(x[3:]))[np.tril_indices(3)]

        x = np.concatenate([sigma, r])
        covariance = np.outer(sigma, sigma) * matrix_of(r)
        expected += stats.multivariate_normal.logpdf(theta, point["alpha"], covariance).sum()
        expected += stats.invwishart.logpdf(covariance, 7, 2 * np.eye(3))
        expected += np.linalg.slogdet(jacobian(packed, x))[1]
    if pooling == "shared":
        given["theta"] = np.tile(point["alpha"], (3, 1))
    found = log_prior(spec, {name: np.asarray(value)[None] for name, value in given.items()})
    assert found == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("covariance", ["lkj", "inverse_wishart"])
def test_correlations_of_one_have_no_density(covariance: str, point) -> None:
    """A chain that strays may leave them; the draws beside it keep theirs."""
    spec = spec_of(noise="constant", covariance=covariance)
    given = {name: np.stack([point[name]] * 2) for name in ("alpha", "sigma")}
    given |= {"theta": np.stack([point["alpha"] + point["z"] @ root_of(point).T] * 2)}
    given |= {"noise": np.array([0.4, 0.4]), "corr": np.stack([correlations(point["partial"]), np.ones(3)])}
    with np.errstate(all="raise"):
        found = log_prior(spec, given)
    alone = log_prior(spec, {name: value[:1] for name, value in given.items()})
    assert found[0] == alone[0] and np.isneginf(found[1])


def test_inverse_wishart_has_its_mean_precision() -> None:
    """Under InverseWishart(ν, ψ I) the mean of Σ⁻¹ is ν/ψ I."""
    import pymc as pm

    spec = spec_of(covariance="inverse_wishart")
    spec = replace(spec, constants={"nu": 7.0, "psi": 2.0})
    model = build(spec)
    sigma, corr = pm.draw([model["sigma"], model["corr"]], draws=1500, random_seed=1, mode="FAST_COMPILE")
    scale = sigma[:, :, None] * sigma[:, None, :]
    precision = np.linalg.inv(np.array([matrix_of(r) for r in corr]) * scale)
    error = precision.std(axis=0) / np.sqrt(1500)
    assert (np.abs(precision.mean(axis=0) - 3.5 * np.eye(3)) < 5 * error).all()


def test_a_rough_fit_finds_what_the_readings_tell() -> None:
    """Readings on the curves of known parameters: its curves are theirs, and it knows how sure it is."""
    structure = spec_of().structure
    truth = np.array([[0.25, -1.05, -1.45], [0.1, -1.2, -1.3], [0.2, -1.0, -1.35]])
    true = curves(structure.tables, truth)
    found = rough_fit(replace(structure, value=true[structure.point]))
    assert np.abs(curves(structure.tables, found.theta) - true).max() < 0.03 * true.max()
    away = found.theta - truth
    square = np.einsum("cp,cp->c", away, np.linalg.solve(found.covariance, away[..., None])[..., 0])
    assert (square < stats.chi2(3).ppf(0.999)).all()


def test_what_was_learned_of_readings_goes_with_them() -> None:
    """A worker that fits many data sets must not keep what it knows of each."""
    structure = spec_of().structure
    bends(structure)
    kept = weakref.ref(structure)
    del structure
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("drawn", [False, True])
def test_a_bend_follows_a_known_ridge(drawn: bool) -> None:
    """What is told is the sum of two powers: x = log10(c − 10^y) along the ridge, for all y."""
    fit, total, sharp = np.array([0.0, 0.0, 5.0]), 2.0, 200.0

    def residuals(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        power = 10.0 ** theta[:, :2]
        slopes = np.concatenate([power * np.log(10), np.zeros((len(theta), 1))], axis=1)
        return sharp * (power.sum(axis=1, keepdims=True) - total), sharp * slopes[:, None, :]

    ridge = Ridge.along(residuals, fit, np.array([True, True, False]), np.diag([0.01, 0.01, 9.0]), 0.25)
    draws = fit + 0.1 * np.random.default_rng(4).normal(size=(50, 1)) * np.array([1.0, -1.0, 0.0])
    found = bend(ridge.refined(draws) if drawn else ridge)
    assert np.abs(found.inner @ found.basis).max() < 1e-12
    assert (found.inner[:, 2] == 0).all() and (found.basis[2] == 0).all()
    along = np.linspace(-0.2, 0.2, 41)[:, None] * np.array([1, -1, 0]) / np.sqrt(2)
    bent = along + np.tanh(along @ found.inner.T + found.offset) @ found.outer.T @ found.basis.T
    straight, follows = residuals(along)[0], residuals(bent)[0]
    assert np.abs(straight).max() > 20
    assert np.abs(follows).max() < 1
    assert bent[:, 2] == pytest.approx(0.0)


def test_what_cannot_be_a_population_is_refused() -> None:
    with pytest.raises(InputError, match="role of"):
        spec_of(roles={"k_tx": "fixed"})
    with pytest.raises(InputError, match="at least one fitted"):
        spec_of(roles=dict.fromkeys(("ka", "ke", "Cl"), "fixed"))
    with pytest.raises(InputError, match="standards"):
        spec_of(standards=np.array([[0.0, 1.0]]))
    structure = spec_of().structure
    with pytest.raises(InputError, match="places on the curves"):
        replace(structure, point=structure.point + 1)


def test_circuits_say_what_their_population_is_called() -> None:
    structure = spec_of().structure
    vector = structure.vector
    assert vector.components == structure.fitted == ("ka", "ke", "Cl")
    assert vector.correlations == ("corr[ka,ke]", "corr[ka,Cl]", "corr[ke,Cl]")
    assert set((*vector.means, *vector.spreads, *vector.correlations)) < set(structure.hyperparameters)
    assert vector.member("B", 2) == "theta[B,Cl]"
    assert vector.law(spec_of().priors, {}).correlation().std() == pytest.approx(np.sqrt(1 / 6))
    assert spec_of(pooling="independent").structure.vector is None
    assert spec_of(pooling="diagonal").structure.vector.correlations == ()
    wishart = spec_of(covariance="inverse_wishart")
    law = wishart.structure.vector.law(wishart.priors, {"nu": 7.0})
    assert (law.nu, law.psi, law.size) == (7.0, 1.0, 3)
