"""The exact engine of the Student-t models against quadrature over θ, laws, limits and its own draws."""

import functools
import itertools

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import FitError, ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact import robust, solve
from hbm_core.inference.exact.robust import TOLERANCE, solve_robust
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

KINDS = ("likelihood", "effects")
DEFAULT = {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)", "nu": "Gamma(2, 0.1)"}
INFORMED = {"mu": "StudentT(5, 8, 4)", "tau": "HalfNormal(5)", "nu": "LogNormal(1.5, 0.6)"}
CUT = {"mu": "Uniform(-5, 15)", "tau": "Uniform(0, 12)", "nu": "Uniform(1, 30)"}
SINGULAR = {"mu": "Flat()", "tau": "Gamma(0.5, 0.2)", "nu": "Exponential(0.1)"}

_RNG = np.random.default_rng(20)
_SE20 = _RNG.uniform(1.5, 6, 20)
DATA = {
    "eight schools": (
        np.array([28.0, 8, -3, 7, -1, 1, 18, 12]),
        np.array([15.0, 10, 16, 11, 9, 11, 10, 18]),
    ),
    "outlier": (np.array([1.0, 0, 2, -1, 1.5, 30]), np.array([1.5, 2, 1, 2.5, 1.5, 2])),
    "three": (np.array([2.0, 9, -4]), np.array([3.0, 5, 4])),
    "twenty": (4 + _RNG.standard_t(3, 20) * 5 + _RNG.normal(0, _SE20), _SE20),
}


def spec_of(y, se, kind, priors=DEFAULT, units=None):
    labels = units or tuple(f"u{i}" for i in range(len(y)))
    structure = TwoLevelNormal(y, se, labels, **{kind: "student_t"})
    return ModelSpec(structure, {name: Prior.parse(text) for name, text in priors.items()})


#: Breakpoints and lengths of panels for μ and log τ: fine where each posterior is, coarse in its tails.
PANELS = {
    "eight schools": (((-500, 30), (-100, 12), (-30, 7), (40, 12), (110, 30), (500, 0)), 1.0),
    "outlier": (((-130, 20), (-10, 1.3), (5, 3), (35, 15), (130, 0)), 0.7),
    "three": (((-140, 20), (-20, 3), (25, 20), (140, 0)), 1.0),
    "twenty": (((-60, 12), (-4, 1), (10, 12), (60, 0)), 0.6),
}


def panels(breaks, lower, upper, order=5):
    """Composite Gauss–Legendre nodes and weights on (lower, upper)."""
    x, w = np.polynomial.legendre.leggauss(order)
    nodes, weights = [], []
    for (start, length), (stop, _) in itertools.pairwise(breaks):
        start, stop = max(start, lower), min(stop, upper)
        if start >= stop:
            continue
        ends = np.linspace(start, stop, int(np.ceil((stop - start) / length)) + 1)
        half = np.diff(ends)[:, None] / 2
        nodes.append((ends[:-1, None] + half * (x + 1)).ravel())
        weights.append((half * w).ravel())
    return np.concatenate(nodes), np.concatenate(weights)


def unit_integrals(y, se, kind, mu, tau, nu):
    """∫ p(y_i | θ) θ^k p(θ | μ, τ, ν) dθ for k = 0, 1, 2 by quadrature over θ; arrays (J, M, N)."""
    log_c = stats.t.logpdf(0, nu)

    def student(z):
        return np.exp(log_c - (nu + 1) / 2 * np.log1p((z * z)[..., None] / nu))

    out = np.empty((3, len(y), len(mu), len(nu)))
    if kind == "effects":
        farthest = np.arcsinh((np.ptp([*mu, *y]) + 9 * se.max()) / tau)
        u = np.arange(-farthest, farthest, 0.08)
        z = np.sinh(u)
        weight = student(z) * (np.cosh(u) * 0.08)[:, None]
        theta = mu[:, None] + tau * z
        for i in range(len(y)):
            if tau > 5 * se[i]:
                step = np.arange(-7, 7.01, 0.3)
                each = mu[:, None] - y[i] - se[i] * step
                density, own = student(each / tau) / tau, np.exp(-step * step / 2) / np.sqrt(2 * np.pi) * 0.3
                for k in range(3):
                    out[k, i] = np.einsum("mzn,z->mn", density, own * (se[i] * step) ** k)
                continue
            density = stats_normal(y[i], theta, se[i])
            for k in range(3):
                out[k, i] = (density * (theta - y[i]) ** k) @ weight
        return out
    for i in range(len(y)):
        if tau < se[i]:
            if tau < 0.2 * se[i]:
                z, weight = np.polynomial.hermite_e.hermegauss(8)
                weight /= np.sqrt(2 * np.pi)
            else:
                z = np.arange(-7, 7.01, 0.3)
                weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * 0.3
            theta = mu[:, None] + tau * z
            density = student((y[i] - theta) / se[i]) / se[i]
            for k in range(3):
                out[k, i] = np.einsum("mzn,mz->mn", density, weight * (theta - y[i]) ** k)
        else:
            farthest = np.arcsinh((np.ptp([*mu, *y]) + 9 * tau) / se[i])
            u = np.arange(-farthest, farthest, 0.05)
            z = np.sinh(u)
            weight = student(z) * (np.cosh(u) * 0.05)[:, None]
            density = stats_normal(mu[:, None], y[i] + se[i] * z, tau)
            for k in range(3):
                out[k, i] = (density * (se[i] * z) ** k) @ weight
    return out


def stats_normal(x, mean, sd):
    return np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))


def brute_force(name, kind, priors):
    """Means, sds, log evidence and correlations of θ_0 with θ_1 and μ, from a grid of (μ, log τ, log ν)."""
    together = (DEFAULT, INFORMED) if priors in (DEFAULT, INFORMED) else (priors,)
    return _brute_force(name, kind, *(tuple(one.items()) for one in together))[together.index(priors)]


@functools.cache
def _brute_force(name, kind, *several):
    """The answers under several priors of the same support: their integrals over θ are the same."""
    y, se = DATA[name]
    priors = dict(several[0])
    prior = {parameter: Prior.parse(text) for parameter, text in several[0]}
    of_mu, length = PANELS[name]
    mu, mu_weight = panels(of_mu, *prior["mu"].support)
    far = -30 if priors["tau"].startswith("Gamma") else -15
    of_tau = ((far, 3.5), (-2.5, length), (4.5, 1.5), (12, 0))
    log_tau, tau_weight = panels(of_tau, far, np.log(prior["tau"].support[1]))
    nu_low, nu_high = np.log(np.maximum(prior["nu"].support, 1e-9))
    log_nu, nu_weight = panels(((-6, 2.5), (-1, 1.3), (5.5, 1.2), (6.7, 0)), nu_low, nu_high)
    nu = np.exp(log_nu)
    sums = [Sums(len(y), {parameter: Prior.parse(text) for parameter, text in items}) for items in several]
    for x, weight in zip(log_tau, tau_weight, strict=True):
        zero, first, second = unit_integrals(y, se, kind, mu, np.exp(x), nu)
        zero = np.maximum(zero, 1e-300)
        log_mass = np.log(zero).sum(axis=0) + np.log(mu_weight)[:, None] + log_nu + np.log(nu_weight)
        for one in sums:
            one.add(mu, np.exp(x), nu, log_mass + x + np.log(weight), first / zero, second / zero)
    return [one.moments(y) for one in sums]


class Sums:
    """What the moments under one prior are made of."""

    def __init__(self, units, prior):
        self.prior, self.peak, self.total = prior, None, 0.0
        self.sums, self.squares, self.together = np.zeros(3 + units), np.zeros(3 + units), np.zeros(2)

    def add(self, mu, tau, nu, log_mass, first, second):
        """Add a plane of (μ, ν) for one τ; first and second moments of θ - y there, arrays (J, M, N)."""
        of = {parameter: prior.log_density for parameter, prior in self.prior.items()}
        log_mass = log_mass + of["mu"](mu)[:, None] + of["nu"](nu) + of["tau"](np.array(tau))
        self.peak = log_mass.max() if self.peak is None else self.peak
        mass = np.exp(log_mass - self.peak)
        self.total += mass.sum()
        of_mu, of_nu = mass.sum(axis=1), mass.sum(axis=0)
        self.sums[:3] += of_mu @ mu, mass.sum() * tau, of_nu @ nu
        self.squares[:3] += of_mu @ mu**2, mass.sum() * tau**2, of_nu @ nu**2
        self.sums[3:] += np.einsum("imn,mn->i", first, mass)
        self.squares[3:] += np.einsum("imn,mn->i", second, mass)
        self.together += (first[0] * first[1] * mass).sum(), (first[0] * mass).sum(axis=1) @ mu

    def moments(self, y):
        mean = self.sums / self.total
        sd = np.sqrt(self.squares / self.total - mean**2)
        covariance = self.together / self.total - self.sums[3] / self.total * mean[[4, 0]]
        mean[3:] += y
        return mean, sd, self.peak + np.log(self.total), covariance / sd[3] / sd[[4, 0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("priors", [DEFAULT, INFORMED, CUT], ids=["default", "informed", "cut"])
@pytest.mark.parametrize("name", DATA)
def test_moments_equal_quadrature_over_theta_on_a_dense_grid(kind, name, priors):
    y, se = DATA[name]
    exact = solve_robust(spec_of(y, se, kind, priors))
    mean, sd, log_evidence, _ = brute_force(name, kind, priors)
    np.testing.assert_array_less(np.abs(exact.mean - mean) / sd, 1e-3)
    np.testing.assert_array_less(np.abs(exact.sd - sd) / sd, 1e-3)
    assert exact.log_evidence == pytest.approx(log_evidence, abs=1e-3)
    assert exact.error < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_flat_mu_and_a_prior_on_tau_singular_at_zero(kind):
    y, se = DATA["eight schools"]
    exact = solve_robust(spec_of(y, se, kind, SINGULAR))
    mean, sd, _, _ = brute_force("eight schools", kind, SINGULAR)
    np.testing.assert_array_less(np.abs(exact.mean - mean) / sd, 1e-3)
    np.testing.assert_array_less(np.abs(exact.sd - sd) / sd, 1e-3)
    assert exact.log_evidence is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("priors", [DEFAULT, CUT], ids=["default", "cut"])
@pytest.mark.parametrize("name", ["eight schools", "outlier"])
def test_densities_have_the_moments_and_the_distribution_functions_they_should(kind, priors, name):
    y, se = DATA[name]
    exact = solve_robust(spec_of(y, se, kind, priors))
    p = np.array([0.001, 0.025, 0.25, 0.5, 0.75, 0.975, 0.999])
    quantiles = exact.quantiles(p)
    ends = exact.quantiles([1e-7, 1 - 1e-7])
    for place, parameter in enumerate(exact.names):
        np.testing.assert_allclose(exact.cdf(parameter, quantiles[place]), p, atol=2e-6)
        x = np.linspace(*ends[place], 400_001)
        step = x[1] - x[0]
        density = exact.density(parameter, x)
        mass = density.sum() * step
        mean = (density * x).sum() * step / mass
        sd = np.sqrt((density * (x - mean) ** 2).sum() * step / mass)
        assert mass == pytest.approx(1, abs=1e-3)
        assert abs(mean - exact.mean[place]) < 2e-3 * exact.sd[place]
        assert sd == pytest.approx(exact.sd[place], rel=4e-3)
        between = np.searchsorted(x, quantiles[place][[2, 4]])
        half = density[between[0] : between[1]].sum() * step
        assert half == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_of_tau_is_right_down_to_zero(kind):
    y, se = DATA["eight schools"]
    exact = solve_robust(spec_of(y, se, kind))
    normal = TwoLevelNormal(y, se, exact.spec.structure.units, **{kind: "student_t"})
    evidence = [
        solve(ModelSpec(normal, {**exact.spec.priors, "tau": Prior.parse(f"Uniform({low}, {low + 1e-3})")}))
        for low in (1e-9, 3.0)
    ]
    ratio = np.exp(evidence[0].log_evidence - evidence[1].log_evidence)
    prior = exact.spec.priors["tau"].log_density(np.array([0.0, 3.0005]))
    density = exact.density("tau", np.array([0.0, 1e-7, 1e-3, 3.0005]))
    assert density[0] / density[3] == pytest.approx(ratio * np.exp(prior[0] - prior[1]), rel=1e-3)
    np.testing.assert_allclose(density[:3], density[0], rtol=1e-3)


def test_the_shortest_interval_holds_its_mass_between_equal_densities():
    exact = solve_robust(spec_of(*DATA["eight schools"], "likelihood"))
    for parameter, (low, high) in zip(exact.names, exact.hdi(0.9), strict=True):
        ends = np.array([low, high])
        assert np.diff(exact.cdf(parameter, ends))[0] == pytest.approx(0.9, abs=1e-5)
        if parameter != "tau":
            at = exact.density(parameter, ends)
            assert at[0] == pytest.approx(at[1], rel=0.05)
    assert exact.hdi(0.9)[1, 0] < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, priors", [("three", INFORMED), ("outlier", DEFAULT), ("eight schools", CUT)])
def test_draws_follow_the_marginals_and_the_joint_posterior(kind, name, priors):
    y, se = DATA[name]
    exact = solve_robust(spec_of(y, se, kind, priors))
    count = 20_000
    draws = exact.draws(count, seed=3)
    columns = [draws["mu"], draws["tau"], draws["nu"], *draws["theta"].T]
    for parameter, sample in zip(exact.names, columns, strict=True):
        assert stats.kstest(sample, lambda x, n=parameter: exact.cdf(n, x)).pvalue > 1e-4, parameter
    _, _, _, correlation = brute_force(name, kind, priors)
    got = [np.corrcoef(draws["theta"][:, 0], other)[0, 1] for other in (draws["theta"][:, 1], draws["mu"])]
    np.testing.assert_allclose(got, correlation, atol=4 / np.sqrt(count))
    again = exact.draws(count, seed=3)
    np.testing.assert_array_equal(again["theta"], draws["theta"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["eight schools", "three", "twenty"])
def test_large_nu_is_the_normal_model(kind, name):
    y, se = DATA[name]
    far = {**DEFAULT, "nu": f"LogNormal({np.log(1e7)}, 0.3)"}
    robust_answer = solve_robust(spec_of(y, se, kind, far))
    structure = TwoLevelNormal(y, se, robust_answer.spec.structure.units)
    normal = solve(ModelSpec(structure, {n: Prior.parse(DEFAULT[n]) for n in ("mu", "tau")}))
    keep = np.delete(np.arange(len(robust_answer.names)), 2)
    np.testing.assert_allclose(robust_answer.mean[keep], normal.mean, atol=2e-4 * normal.sd.min())
    np.testing.assert_allclose(robust_answer.sd[keep], normal.sd, rtol=2e-4)
    p = [0.025, 0.25, 0.5, 0.75, 0.975]
    gap = (robust_answer.quantiles(p)[keep] - normal.quantiles(p)) / normal.sd[:, None]
    assert np.abs(gap).max() < 2e-3
    assert robust_answer.log_evidence == pytest.approx(normal.log_evidence, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_shift_scale_and_permutation(kind):
    y, se = DATA["outlier"]
    base = solve_robust(spec_of(y, se, kind, INFORMED))
    factor, shift = 0.01, 1234.0
    moved_priors = {
        **INFORMED,
        "mu": f"StudentT(5, {8 * factor + shift}, {4 * factor})",
        "tau": "HalfNormal(0.05)",
    }
    moved = solve_robust(spec_of(y * factor + shift, se * factor, kind, moved_priors))
    place = np.arange(len(base.names))
    location, linear = (place != 1) & (place != 2), place != 2
    expected = base.mean * np.where(linear, factor, 1) + np.where(location, shift, 0)
    sd = base.sd * np.where(linear, factor, 1)
    assert np.abs((moved.mean - expected) / sd).max() < 2e-5
    np.testing.assert_allclose(moved.sd, sd, rtol=2e-5)
    order = np.array([3, 5, 0, 1, 4, 2])
    shuffled = solve_robust(spec_of(y[order], se[order], kind, INFORMED))
    expected = np.concatenate([base.mean[:3], base.mean[3:][order]])
    assert (np.abs(shuffled.mean - expected) / shuffled.sd).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_an_outlier_is_believed_less_than_under_the_normal_model(kind):
    y, se = DATA["outlier"]
    exact = solve_robust(spec_of(y, se, kind))
    normal = solve(
        ModelSpec(
            TwoLevelNormal(y, se, exact.spec.structure.units),
            {n: Prior.parse(DEFAULT[n]) for n in ("mu", "tau")},
        )
    )
    assert exact.mean[0] < normal.mean[0]
    assert exact.mean[1] < normal.mean[1]
    assert exact.mean[2] < 20
    assert exact.pooling is None
    assert exact.weights is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_table_gives_the_answer_of_a_fresh_one_and_far_priors_place_it_anew(kind):
    y, se = DATA["eight schools"]
    robust._CACHE.clear()
    solve_robust(spec_of(y, se, kind))
    settings = [
        {"tau": "HalfCauchy(14)"},
        {"mu": "Normal(8, 5)", "tau": "HalfNormal(5)"},
        {"mu": "Normal(-60, 2)"},
        {"mu": "Normal(8, 0.01)"},
        {"tau": "Uniform(40, 50)"},
        {"nu": "Uniform(2, 2.1)"},
        {"nu": "LogNormal(9, 0.1)"},
    ]
    reused = [solve_robust(spec_of(y, se, kind, {**DEFAULT, **change})) for change in settings]
    assert reused[0]._table is solve_robust(spec_of(y, se, kind))._table
    for change, warm in zip(settings, reused, strict=True):
        robust._CACHE.clear()
        cold = solve_robust(spec_of(y, se, kind, {**DEFAULT, **change}))
        assert np.abs((warm.mean - cold.mean) / cold.sd).max() < 2e-4, change
        np.testing.assert_allclose(warm.sd, cold.sd, rtol=2e-4, err_msg=str(change))


@pytest.mark.parametrize("kind", KINDS)
def test_given_tau_averages_to_the_posterior_and_has_its_limits(kind):
    y, se = DATA["eight schools"]
    exact = solve_robust(spec_of(y, se, kind))
    v = np.linspace(np.log(0.002), np.log(300), 120)
    tau = np.exp(v)
    curves = exact.given_tau(tau)
    weight = exact.density("tau", tau) * tau
    weight /= weight.sum()
    np.testing.assert_allclose(weight @ curves.mu_mean, exact.mean[0], atol=3e-3 * exact.sd[0])
    gap = (weight @ curves.theta_mean - exact.mean[3:]) / exact.sd[3:]
    assert np.abs(gap).max() < 3e-3
    second = weight @ (curves.theta_sd**2 + curves.theta_mean**2)
    spread = np.sqrt(second - (weight @ curves.theta_mean) ** 2)
    np.testing.assert_allclose(spread, exact.sd[3:], rtol=3e-3)
    ends = exact.given_tau(np.array([0.0, np.inf]))
    np.testing.assert_allclose(ends.theta_mean[0], ends.mu_mean[0])
    np.testing.assert_allclose(ends.theta_sd[0], ends.mu_sd[0])
    if kind == "effects":
        np.testing.assert_allclose(ends.theta_mean[1], y, atol=1e-2)
        np.testing.assert_allclose(ends.theta_sd[1], se, rtol=1e-3)
    assert np.isnan(curves.pooling).all()


@pytest.mark.parametrize(
    "units, priors, subject",
    [
        (8, {"nu": "Flat()"}, "nu"),
        (2, {"mu": "Flat()", "tau": "Flat()"}, "tau"),
        (1, {"tau": "Flat()"}, "tau"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_improper_posteriors_are_refused(kind, units, priors, subject):
    y, se = DATA["eight schools"]
    with pytest.raises(ImproperPosteriorError, match=subject):
        solve_robust(spec_of(y[:units], se[:units], kind, {**DEFAULT, **priors}))


def test_infinite_moments_are_said_to_be_infinite():
    y, se = DATA["three"]
    heavy = solve_robust(spec_of(y, se, "likelihood", {**DEFAULT, "nu": "HalfCauchy(10)"}))
    assert np.isinf(heavy.mean[2])
    assert np.isinf(heavy.sd[2])
    assert any("ν" in note for note in heavy.notes)
    two = solve_robust(spec_of(y[:2], se[:2], "effects", {**DEFAULT, "mu": "Flat()", "nu": "Uniform(2, 30)"}))
    assert np.isfinite(two.mean[1])
    assert np.isinf(two.sd[1])
    assert np.isfinite(two.quantiles()).all()
    assert np.isfinite(heavy.quantiles()).all()


def test_marginals_that_the_lattice_cannot_resolve_are_refused_not_drawn():
    y, se = DATA["eight schools"]
    absurd = {"mu": "Normal(300, 1)", "tau": "HalfNormal(0.5)", "nu": "Gamma(2, 0.1)"}
    exact = solve_robust(spec_of(y + 1e6, se, "likelihood", absurd))
    with pytest.raises(FitError, match="units of the priors"):
        exact.quantiles()


def test_models_outside_are_left_to_samplers():
    y, se = DATA["three"]
    units = ("a", "b", "c")
    names = {n: Prior.parse(text) for n, text in DEFAULT.items()}
    both = TwoLevelNormal(y, se, units, effects="student_t", likelihood="student_t")
    design = TwoLevelNormal(y, se, units, likelihood="student_t", design=np.ones((3, 1)), columns=("x",))
    with pytest.raises(NotExactError, match="both levels"):
        solve(ModelSpec(both, names))
    with pytest.raises(NotExactError, match="covariates x"):
        solve(ModelSpec(design, {**names, "beta": Prior.parse("Normal(0, 1)")}))
    with pytest.raises(NotExactError, match="mu"):
        solve_robust(spec_of(y, se, "likelihood", {**DEFAULT, "mu": "Gamma(0.5, 1)"}))
    assert issubclass(NotExactError, InputError)
