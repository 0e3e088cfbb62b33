"""The two-level engine against dense brute force, published figures, closed forms and laws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.special import ndtr

from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.location import smoothed
from hbm_core.inference.exact.two_level import solve_two_level
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SE = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
P = np.array([0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975])


def model(effect=EFFECT, se=SE, mu="Normal(0, 20)", tau="HalfCauchy(10)", **fields):
    labels = tuple(f"u{i}" for i in range(len(effect)))
    constants = fields.pop("constants", {})
    beta = fields.pop("beta", None)
    theta = fields.pop("theta", None)
    structure = TwoLevelNormal(np.asarray(effect, float), np.asarray(se, float), labels, **fields)
    texts = {"mu": mu, "tau": tau, "beta": beta, "theta": theta}
    priors = {name: Prior.parse(texts[name]) for name in structure.parameters}
    return ModelSpec(structure, priors, constants, structure.parameterizations[0])


def simulated(seed, units, tau, low=5.0, high=20.0):
    rng = np.random.default_rng(seed)
    se = np.exp(rng.uniform(np.log(low), np.log(high), units))
    return 4 + tau * rng.standard_normal(units) + se * rng.standard_normal(units), se


DATA = {
    "schools": (EFFECT, SE),
    "schools shifted by a million": (EFFECT + 1e6, SE),
    "three units": (np.array([1.0, 9.0, 4.0]), np.array([2.0, 5.0, 3.0])),
    "four far apart": (np.array([-50.0, 0.0, 30.0, 90.0]), np.array([1.0, 2.0, 1.5, 3.0])),
    "identical effects": (np.full(10, 3.0), np.linspace(1, 8, 10)),
    "large tau": (np.array([-900.0, 300, 1200, -40, 15, 700]), np.ones(6)),
    "orders of magnitude": (
        np.array([0.3, 1.0, -5, 20, 400, -300, 0.2, 0.35]),
        np.array([0.01, 0.1, 1, 10, 1e3, 1e3, 0.02, 0.05]),
    ),
    "imprecise": (np.array([100.0, -200, 50, 10, 400]), np.array([300.0, 200, 250, 400, 350])),
    "twenty": simulated(1, 20, 3.0),
    "two hundred alike": simulated(2, 200, 0.0),
    "two hundred apart": simulated(3, 200, 12.0),
}
TAU = (
    "HalfCauchy(10)",
    "HalfNormal(5)",
    "Exponential(0.1)",
    "Uniform(0, 10)",
    "Uniform(0, 50)",
    "InverseGamma(1, 1)",
    "Gamma(0.5, 0.1)",
    "LogNormal(1, 0.5)",
    "HalfStudentT(3, 5)",
    "Flat()",
)


@dataclass(frozen=True)
class Grid:
    """Everything given τ on a double-exponential grid: the trapezoid rule then converges exponentially."""

    x: np.ndarray
    tau: np.ndarray
    log_measure: np.ndarray
    log_likelihood: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


@cache
def grid(data: str, mu: str, upper: float, points: int = 40_001) -> Grid:
    """On (0, upper); rows μ and θ of (up to) five units."""
    effect, se = DATA[data]
    y = effect - effect[0]
    x = np.linspace(-4.3, 4.3, points)
    with np.errstate(over="ignore", under="ignore"):
        if np.isinf(upper):
            log_tau = np.log(np.median(se)) + np.pi / 2 * np.sinh(x)
            tau = np.exp(log_tau)
            log_measure = log_tau + np.log(np.pi / 2 * np.cosh(x))
        else:
            edge = np.pi * np.sinh(x)
            tau = upper / (1 + np.exp(-edge))
            log_measure = np.log(upper * np.pi * np.cosh(x)) - np.logaddexp(0, edge) - np.logaddexp(0, -edge)
    prior = Prior.parse(mu)
    m0, p0 = (prior.numbers[0] - effect[0], prior.numbers[1] ** -2) if prior.proper else (0.0, 0.0)
    if "million" in data and prior.proper:
        m0 = m0 + effect[0] - EFFECT[0]
    total, center = np.full(points, p0), np.full(points, p0 * m0)
    for one, s in zip(y, se, strict=True):
        total += 1 / (s**2 + tau**2)
        center += one / (s**2 + tau**2)
    center /= total
    log_likelihood = -0.5 * (p0 * (center - m0) ** 2 + np.log(total))
    log_likelihood += 0.5 * np.log(p0) if p0 else 0.5 * np.log(2 * np.pi)
    for one, s in zip(y, se, strict=True):
        v = s**2 + tau**2
        log_likelihood -= 0.5 * (np.log(2 * np.pi * v) + (one - center) ** 2 / v)
    mean, variance = [center], [1 / total]
    for i in chosen(data):
        b = se[i] ** 2 / (se[i] ** 2 + tau**2)
        mean.append(b * center + (1 - b) * y[i])
        variance.append(b * tau**2 + b**2 / total)
    return Grid(x, tau, log_measure, log_likelihood, np.array(mean), np.array(variance))


def chosen(data):
    return np.unique(np.linspace(0, len(DATA[data][0]) - 1, 5).astype(int))


def shifted_prior(data, mu):
    """The prior on μ that follows a shifted data set."""
    prior = Prior.parse(mu)
    if "million" in data and prior.proper:
        return f"Normal({prior.numbers[0] + 1e6}, {prior.numbers[1]})"
    return mu


@pytest.mark.parametrize("mu", ["Normal(0, 20)", "Flat()"])
@pytest.mark.parametrize("data", DATA)
def test_moments_and_quantiles_are_those_of_forty_thousand_nodes(data, mu):
    effect, se = DATA[data]
    for tau in TAU:
        prior = Prior.parse(tau)
        posterior = solve(model(effect, se, shifted_prior(data, mu), tau))
        g = grid(data, mu, prior.support[1])
        log_weight = prior.log_density(g.tau) + g.log_measure + g.log_likelihood
        log_weight = np.where(np.isnan(log_weight), -np.inf, log_weight)
        f = np.exp(log_weight - log_weight.max())
        w = f / f.sum()
        rows = [0, *(2 + chosen(data))]
        mean = g.mean @ w
        sd = np.sqrt((g.variance + (g.mean - mean[:, None]) ** 2) @ w)
        known = np.isfinite(posterior.sd[rows])
        location = effect[0]
        rounding = 4 * np.spacing(np.abs(location))
        where = f"{data}, {mu}, {tau}"
        # The engine's error estimate must not promise more than it keeps.
        assert posterior.error < 1e-7, where
        gap = np.abs(posterior.mean[rows] - location - mean)[known] - rounding
        assert (gap <= 1e-6 * sd[known]).all(), where
        np.testing.assert_allclose(posterior.sd[rows][known], sd[known], rtol=1e-6, err_msg=where)
        if np.isfinite(posterior.sd[1]):
            tau_mean = w @ g.tau
            tau_sd = np.sqrt(w @ (g.tau - tau_mean) ** 2)
            assert abs(posterior.mean[1] - tau_mean) < 1e-6 * tau_sd, where
            assert abs(posterior.sd[1] / tau_sd - 1) < 1e-6, where
        if prior.proper and mu != "Flat()":
            evidence = np.log(f.sum() * (g.x[1] - g.x[0])) + log_weight.max()
            assert posterior.log_evidence == pytest.approx(evidence, abs=1e-7), where
        quantiles = posterior.quantiles(P)
        kept = w > 1e-18
        scale = np.where(known, posterior.sd[rows], np.diff(quantiles[rows][:, [2, 4]])[:, 0])
        for row, place in enumerate(rows):
            z = quantiles[place][:, None] - location - g.mean[row, kept]
            z = z / np.sqrt(g.variance[row, kept])
            cdf = ndtr(z) @ w[kept]
            density = (np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi * g.variance[row, kept])) @ w[kept]
            allowed = 1e-5 * scale[row] + rounding
            assert (np.abs(cdf - P) / density < allowed).all(), (where, place)
        distribution = CubicSpline(g.x, w).antiderivative()
        spread = quantiles[1, 4] - quantiles[1, 2]
        low = np.interp(quantiles[1], g.tau, g.x)
        for _ in range(3):  # x of a quantile: linear interpolation, polished on the map itself
            low = low - (np.interp(low, g.x, g.tau) - quantiles[1]) / np.interp(
                low, g.x, np.gradient(g.tau, g.x)
            )
        cdf = (distribution(low) - distribution(g.x[0])) / (distribution(g.x[-1]) - distribution(g.x[0]))
        assert (np.abs(cdf - P) / posterior.density("tau", quantiles[1]) < 1e-5 * spread).all(), where
        np.testing.assert_allclose(posterior.cdf("tau", quantiles[1]), P, atol=1e-9, err_msg=where)


def test_published_figures_of_the_eight_schools():
    weak = solve(model())
    assert weak.names[:3] == ("mu", "tau", "theta[u0]")
    assert weak.mean[0] == pytest.approx(7.44668, abs=5e-6)
    assert weak.sd[0] == pytest.approx(4.52833, abs=5e-6)
    assert weak.mean[1] == pytest.approx(4.70731, abs=5e-6)
    assert weak.mean[2] == pytest.approx(9.7390, abs=5e-5)
    assert weak.weights.own[0] == pytest.approx(0.179, abs=5e-4)
    assert weak.weights.others[0] == pytest.approx(0.78, abs=5e-3)
    assert weak.weights.prior[0] == pytest.approx(0.04, abs=5e-3)
    assert 1 - weak.pooling[0] == pytest.approx(0.112, abs=5e-4)
    skeptical = solve(model(mu="Normal(8, 5)", tau="HalfNormal(5)"))
    shares = [getattr(skeptical.weights, name)[0] for name in ("own", "others", "prior")]
    np.testing.assert_allclose(shares, [0.10, 0.50, 0.40], atol=5e-3)


@pytest.mark.parametrize(
    "mu",
    [
        "StudentT(3, 0, 10)",
        "StudentT(1, 40, 2)",
        "Uniform(-5, 12)",
        "Gamma(0.5, 0.1)",
        "HalfNormal(15)",
        "HalfCauchy(5)",
        "LogNormal(2, 0.4)",
        "Exponential(0.2)",
    ],
)
@pytest.mark.parametrize("tau", ["HalfCauchy(10)"])
def test_other_priors_on_mu_by_a_plane_of_nodes(mu, tau):
    effect, se = EFFECT[:4], SE[:4]
    prior_mu, prior_tau = Prior.parse(mu), Prior.parse(tau)
    posterior = solve(model(effect, se, mu=mu, tau=tau))
    nodes, weights = np.polynomial.legendre.leggauss(24)

    # τ on (0, ∞) as 15 r / (1 - r), or on its interval; μ on panels that meet every edge of the supports.
    def panels(edges):
        half = np.diff(edges)[:, None] / 2
        return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()

    r, tau_weight = panels(np.linspace(0, 1, 9))
    upper = prior_tau.support[1]
    t = 15 * r / (1 - r) if np.isinf(upper) else upper * r
    jacobian = 15 / (1 - r) ** 2 if np.isinf(upper) else np.full(r.size, upper)
    if np.isinf(prior_mu.support[0]):
        edges = np.concatenate(
            [-np.geomspace(1e5, 80, 12), np.linspace(-79, 79, 80), np.geomspace(80, 1e5, 12)]
        )
    elif np.isinf(prior_mu.support[1]):
        edges = np.concatenate(
            [[0], np.geomspace(1e-22, 1, 40), np.linspace(1.5, 80, 60), np.geomspace(82, 1e5, 12)]
        )
    else:
        edges = np.linspace(*prior_mu.support, 40)
    m, mu_weight = panels(edges)
    log_prior = prior_mu.log_density(m) + np.log(mu_weight)
    log_tau = prior_tau.log_density(t) + np.log(tau_weight * jacobian)
    v = se**2 + t[:, None] ** 2
    # Σ (y - μ)²/V expanded in μ: the plane is then three outer products.
    c0, c1, c2 = ((effect**2 / v).sum(1), (effect / v).sum(1), (1 / v).sum(1))
    log_plane = (
        log_tau[:, None]
        + log_prior
        - 0.5
        * (np.log(2 * np.pi * v).sum(1)[:, None] + c0[:, None] - 2 * np.outer(c1, m) + np.outer(c2, m**2))
    )
    top = log_plane.max()
    plane = np.exp(log_plane - top)
    assert posterior.log_evidence == pytest.approx(np.log(plane.sum()) + top, abs=1e-7)
    plane /= plane.sum()
    quantiles = posterior.quantiles(P)
    mean = (plane @ m).sum()
    sd = np.sqrt((plane @ (m - mean) ** 2).sum())
    assert abs(posterior.mean[0] - mean) < 1e-6 * sd
    assert abs(posterior.sd[0] / sd - 1) < 1e-6
    t_mean = plane.sum(1) @ t
    t_sd = np.sqrt(plane.sum(1) @ (t - t_mean) ** 2)
    assert abs(posterior.mean[1] - t_mean) < 1e-6 * t_sd
    assert abs(posterior.sd[1] / t_sd - 1) < 1e-6
    assert posterior.error < 1e-6
    density = np.array([posterior.density("mu", q) for q in quantiles[0]])
    given_mu = posterior.cdf("mu", edges[1:-1])
    np.testing.assert_allclose(given_mu, np.cumsum(plane.sum(0).reshape(-1, 24).sum(1))[:-1], atol=1e-7)
    np.testing.assert_allclose(posterior.cdf("mu", quantiles[0]), P, atol=1e-7)
    assert (density > 0).all()
    for i in (0, 2):
        b = se[i] ** 2 / v[:, i]
        center = b[:, None] * m + ((1 - b) * effect[i])[:, None]
        noise = np.sqrt(b * t**2)
        mean = (plane * center).sum()
        sd = np.sqrt((plane * (noise[:, None] ** 2 + (center - mean) ** 2)).sum())
        assert abs(posterior.mean[2 + i] - mean) < 1e-6 * sd
        assert abs(posterior.sd[2 + i] / sd - 1) < 1e-6
        # Nodes of μ are too coarse for the narrow conditionals of small τ; there θ is μ to 1e-5.
        for q, p in zip(quantiles[2 + i][[1, 3, 5]], P[[1, 3, 5]], strict=True):
            z = (q - center) / noise[:, None]
            assert abs((plane * ndtr(z)).sum() - p) < 2e-4
    assert posterior.weights is None
    assert posterior.pooling.shape == effect.shape


@pytest.mark.parametrize(
    "mu",
    [
        "Uniform(-5, 12)",
        "HalfNormal(3)",
        "Exponential(0.5)",
        "Gamma(0.5, 0.1)",
        "LogNormal(1, 0.3)",
        "HalfCauchy(2)",
    ],
)
@pytest.mark.parametrize(("center", "sd"), [(4.0, 3.0), (-20.0, 2.0), (30.0, 2.0), (3.0, 0.01), (0.0, 1e4)])
def test_a_prior_times_a_normal_by_quadrature_in_log_space(mu, center, sd):
    prior = Prior.parse(mu)
    x = np.linspace(-4.5, 4.5, 200_001)
    lower, upper = prior.support
    if np.isinf(upper):
        m = np.exp(np.pi / 2 * np.sinh(x))
        jacobian = m * np.pi / 2 * np.cosh(x)
    else:
        m = lower + (upper - lower) / (1 + np.exp(-np.pi * np.sinh(x)))
        jacobian = (m - lower) * (upper - m) / (upper - lower) * np.pi * np.cosh(x)
    with np.errstate(divide="ignore"):
        terms = prior.log_density(m) + stats.norm(center, sd).logpdf(m) + np.log(jacobian)
    terms = np.where(np.isnan(terms), -np.inf, terms)
    total = np.log(np.exp(terms - terms.max()).sum() * (x[1] - x[0])) + terms.max()
    ours = smoothed(prior)
    assert ours.log_integral(np.array([center]), np.array([sd**2]))[0] == pytest.approx(total, abs=1e-8)
    w = np.exp(terms - terms.max())
    mean = w @ m / w.sum()
    spread = np.sqrt(w @ (m - mean) ** 2 / w.sum())
    _, found, variance = ours.moments(np.array([center]), np.array([sd**2]), 12)
    assert abs(found[0] - mean) < 1e-7 * spread
    assert np.sqrt(variance[0]) == pytest.approx(spread, rel=1e-7)


def test_theta_under_a_uniform_mu_has_its_exact_distribution():
    # Given τ the pair (μ, θ) is a normal cut at the ends of μ: an independent route to the quantiles.
    posterior = solve(model(mu="Uniform(-5, 12)", tau="Uniform(2, 12)"))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    t, m = 7 + 5 * nodes, 3.5 + 8.5 * nodes
    v = SE**2 + t[:, None, None] ** 2
    plane = np.exp(-0.5 * ((EFFECT - m[:, None]) ** 2 / v + np.log(v)).sum(2)) * np.outer(weights, weights)
    plane /= plane.sum()
    b = SE[0] ** 2 / (SE[0] ** 2 + t**2)
    z = posterior.quantiles(P)[2][:, None, None] - (b[:, None] * m + ((1 - b) * EFFECT[0])[:, None])
    cdf = (plane * ndtr(z / np.sqrt(b * t**2)[:, None])).sum((1, 2))
    np.testing.assert_allclose(cdf, P, atol=1e-7)


@pytest.mark.parametrize("beta", ["Normal(0, 10)", "Flat()"])
def test_covariates_by_a_dense_grid_of_generalised_least_squares(beta):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((8, 2))
    spec = model(mu="Normal(5, 10)", tau="HalfNormal(8)", beta=beta, design=x, columns=("a", "b"))
    posterior = solve(spec)
    assert posterior.names[:4] == ("mu", "tau", "beta[a]", "beta[b]")
    p0 = np.diag([1e-2, 0, 0] if beta == "Flat()" else [1e-2, 1e-2, 1e-2])
    full = np.column_stack([np.ones(8), x])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    tau = 40 * (1 + nodes)
    log_f, means, covariances, thetas = [], [], [], []
    for t in tau:
        w = np.diag(1 / (SE**2 + t**2))
        cov = np.linalg.inv(full.T @ w @ full + p0)
        gamma = cov @ (full.T @ w @ EFFECT + p0 @ [5, 0, 0])
        rest = EFFECT - full @ gamma
        quadratic = rest @ w @ rest + (gamma - [5, 0, 0]) @ p0 @ (gamma - [5, 0, 0])
        log_f.append(0.5 * (np.linalg.slogdet(w)[1] + np.linalg.slogdet(cov)[1] - quadratic) - t**2 / 128)
        b = SE**2 / (SE**2 + t**2)
        means.append(gamma)
        covariances.append(np.diag(cov))
        thetas.append(
            (
                b * (full @ gamma) + (1 - b) * EFFECT,
                b * t**2 + b**2 * np.einsum("ij,jk,ik->i", full, cov, full),
            )
        )
    w = weights * np.exp(np.array(log_f) - max(log_f))
    w /= w.sum()
    center = np.concatenate([np.array(means), [m for m, _ in thetas]], axis=1)
    spread = np.concatenate([np.array(covariances), [v for _, v in thetas]], axis=1)
    mean = w @ center
    sd = np.sqrt(w @ (spread + (center - mean) ** 2))
    rows = [0, *range(2, 12)]
    np.testing.assert_allclose(posterior.mean[rows], mean, atol=1e-6 * sd.min())
    np.testing.assert_allclose(posterior.sd[rows], sd, rtol=1e-6)
    total = posterior.weights.own + posterior.weights.others + posterior.weights.prior
    np.testing.assert_allclose(total, 1, atol=1e-12)
    # The weights are the derivatives of E[θ | τ, y] in y.
    at = np.array([6.0])
    moved = EFFECT.copy()
    moved[2] += 1
    other = solve(
        model(moved, mu="Normal(5, 10)", tau="HalfNormal(8)", beta=beta, design=x, columns=("a", "b"))
    )
    slope = other.given_tau(at).theta_mean - posterior.given_tau(at).theta_mean
    assert slope[0, 2] == pytest.approx(posterior.given_tau(at).weights.own[0, 2], abs=1e-10)


@pytest.mark.parametrize("mu", ["StudentT(3, 0, 10)", "Uniform(-20, 30)"])
def test_covariates_go_with_other_priors_on_mu(mu):
    # A column that is zero but for one unit with a flat slope takes that unit out of μ and τ.
    x = np.zeros((8, 1))
    x[0] = 1
    with_column = solve(model(mu=mu, beta="Flat()", design=x, columns=("first",)))
    without = solve(model(EFFECT[1:], SE[1:], mu=mu))
    np.testing.assert_allclose(with_column.mean[:2], without.mean[:2], rtol=1e-7)
    np.testing.assert_allclose(with_column.sd[:2], without.sd[:2], rtol=1e-7)
    np.testing.assert_allclose(with_column.mean[4:], without.mean[2:], rtol=1e-7)
    np.testing.assert_allclose(with_column.quantiles(P)[4:], without.quantiles(P)[2:], atol=1e-5)


def adaptive(t, tau="HalfCauchy(10)"):
    return model(tau=tau, scale="adaptive", constants={"threshold": t, "spread": 4.0, "slope": 2.0})


@pytest.mark.parametrize("t", [1.0, 2.0, 3.0, 5.0, 10.0])
def test_adaptive_scale_by_a_dense_grid(t):
    posterior = solve(adaptive(t))
    nodes, weights = np.polynomial.legendre.leggauss(10)
    edges = np.linspace(0, 1, 20_001)
    v = (edges[:-1, None] + (1 + nodes) / 40_000).ravel()
    measure = np.tile(weights / 40_000, 20_000)
    tau = 10 * v / (1 - v)
    share = 1 / (1 + np.exp(-np.clip(2 * (tau - t), -700, 700)))
    star = share * tau + (1 - share) * 4 * tau / t
    total, center = np.full(v.size, 1 / 400), np.zeros(v.size)
    for y, s in zip(EFFECT, SE, strict=True):
        total += 1 / (s**2 + star**2)
        center += y / (s**2 + star**2)
    center /= total
    log_f = -0.5 * (center**2 / 400 + np.log(total)) - np.log1p((tau / 10) ** 2) - 2 * np.log1p(-v)
    for y, s in zip(EFFECT, SE, strict=True):
        log_f -= 0.5 * (np.log(s**2 + star**2) + (y - center) ** 2 / (s**2 + star**2))
    w = np.exp(log_f - log_f.max()) * measure
    w /= w.sum()
    mean = w @ center
    sd = np.sqrt(w @ (1 / total + (center - mean) ** 2))
    tau_mean, tau_sd = w @ tau, np.sqrt(w @ (tau - w @ tau) ** 2)
    np.testing.assert_allclose(posterior.mean[:2], [mean, tau_mean], atol=1e-6 * sd)
    np.testing.assert_allclose(posterior.sd[:2], [sd, tau_sd], rtol=1e-6)
    # Induced densities: mass between two points is that of the grid, summed over the branches.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low, high = 7.0, 9.0
    x = 8 + nodes
    inside = (star > low) & (star < high)
    assert posterior.induced_posterior_density(x) @ weights == pytest.approx(w[inside].sum(), abs=2e-5)
    prior = 2 / (np.pi * 10) / (1 + (tau / 10) ** 2) * 10 / (1 - v) ** 2 * measure
    assert posterior.induced_prior_density(x) @ weights == pytest.approx(prior[inside].sum(), abs=2e-5)
    at = posterior.given_tau(np.array([0.0, 2.0, np.inf]))
    plain = solve(model()).given_tau(np.array([0.0, np.interp(2.0, tau, star), np.inf]))
    np.testing.assert_allclose(at.theta_mean, plain.theta_mean, atol=1e-5)


def test_the_map_folds_at_small_thresholds_and_the_branches_are_summed():
    posterior = solve(adaptive(1.0, "HalfNormal(3)"))
    draws = np.abs(np.random.default_rng(0).normal(0, 3, 400_000))
    share = 1 / (1 + np.exp(-2 * (draws - 1)))
    star = share * draws + (1 - share) * 4 * draws
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for low, high in ((0.2, 0.8), (1.2, 1.35), (3.0, 5.0)):
        middle, half = (low + high) / 2, (high - low) / 2
        mass = half * (posterior.induced_prior_density(middle + half * nodes) @ weights)
        share_of_draws = np.mean((star > low) & (star < high))
        assert mass == pytest.approx(share_of_draws, abs=4 * np.sqrt(mass * (1 - mass) / draws.size))


def test_adaptive_needs_its_constants():
    with pytest.raises(InputError, match="threshold"):
        solve(model(scale="adaptive"))


def test_complete_pooling_is_a_weighted_mean():
    posterior = solve(model(pooling="complete"))
    precision = (SE**-2.0).sum() + 1 / 400
    mean = (EFFECT / SE**2).sum() / precision
    assert posterior.names[:2] == ("mu", "theta[u0]")
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(posterior.sd, precision**-0.5, rtol=1e-13)
    np.testing.assert_allclose(
        posterior.quantiles(P)[3], stats.norm(mean, precision**-0.5).ppf(P), rtol=1e-10
    )
    cov = np.diag(SE**2) + 400
    assert posterior.log_evidence == pytest.approx(stats.multivariate_normal(np.zeros(8), cov).logpdf(EFFECT))
    assert posterior.pooling is None
    assert posterior.weights.own[0] == pytest.approx(SE[0] ** -2 / precision)
    flat = solve(model(pooling="complete", mu="Flat()"))
    assert flat.log_evidence is None
    assert flat.mean[0] == pytest.approx((EFFECT / SE**2).sum() / (SE**-2.0).sum())


@pytest.mark.parametrize("mu", ["StudentT(4, 0, 5)", "Uniform(0, 6)", "Gamma(0.5, 0.2)", "HalfNormal(3)"])
def test_complete_pooling_under_other_priors_is_one_integral(mu):
    posterior = solve(model(pooling="complete", mu=mu))
    prior = Prior.parse(mu)
    lower, upper = prior.support
    center, sd = (EFFECT / SE**2).sum() / (SE**-2.0).sum(), (SE**-2.0).sum() ** -0.5
    x = np.linspace(-4, 4, 20_001)
    low, high = max(lower, center - 60), min(upper, center + 60)
    m = low + (high - low) / (1 + np.exp(-np.pi * np.sinh(x)))
    inside = (m > low) & (m < high)
    m, x = m[inside], x[inside]
    w = prior.log_density(m) + stats.norm(center, sd).logpdf(m) + np.log(m - low) + np.log(high - m)
    w = np.exp(w + np.log(np.cosh(x)))
    w /= w.sum()
    mean = w @ m
    spread = np.sqrt(w @ (m - mean) ** 2)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-6 * spread)
    np.testing.assert_allclose(posterior.sd, spread, rtol=1e-6)
    below = np.cumsum(w) - w / 2
    quantiles = posterior.quantiles(P)
    np.testing.assert_allclose(np.interp(quantiles[0], m, below), P, atol=1e-5)
    np.testing.assert_allclose(quantiles[1:], quantiles[:1].repeat(8, 0), atol=1e-7)


@pytest.mark.parametrize(
    "theta", ["Flat()", "Normal(0, 100)", "StudentT(3, 0, 10)", "HalfCauchy(10)", "Uniform(-10, 20)"]
)
def test_no_pooling_is_one_integral_per_unit(theta):
    posterior = solve(model(pooling="none", theta=theta))
    prior = Prior.parse(theta)
    assert posterior.names == tuple(f"theta[u{i}]" for i in range(8))
    lower, upper = prior.support
    quantiles = posterior.quantiles(P)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    for i, (y, s) in enumerate(zip(EFFECT, SE, strict=True)):
        low, high = max(lower, y - 14 * s), min(upper, y + 14 * s)
        m = low + (high - low) * (nodes + 1) / 2
        w = weights * np.exp(prior.log_density(m) - 0.5 * ((m - y) / s) ** 2)
        w /= w.sum()
        mean = w @ m
        sd = np.sqrt(w @ (m - mean) ** 2)
        assert abs(posterior.mean[i] - mean) < 1e-6 * sd
        assert abs(posterior.sd[i] / sd - 1) < 1e-6
        x = np.linspace(low, high, 20_001)
        density = np.exp(prior.log_density(x) - 0.5 * ((x - y) / s) ** 2)
        below = CubicSpline(x, density).antiderivative()
        np.testing.assert_allclose(below(quantiles[i]) / below(high), P, atol=1e-9)
    assert posterior.pooling is None
    draws = posterior.draws(4000, 1)["theta"]
    np.testing.assert_array_less(np.abs(draws.mean(0) - posterior.mean), 5 * posterior.sd / np.sqrt(4000))


def test_existence_is_decided_by_the_tails():
    with pytest.raises(ImproperPosteriorError, match="at least 3 units"):
        solve(model(EFFECT[:2], SE[:2], "Flat()", "Flat()"))
    with pytest.raises(ImproperPosteriorError, match="at least 2 units"):
        solve(model(EFFECT[:1], SE[:1], "Normal(0, 20)", "Flat()"))
    three = solve(model(EFFECT[:3], SE[:3], "Flat()", "Flat()"))
    assert np.isinf(three.mean[:2]).all()
    assert any("tau" in note for note in three.notes)
    assert any("mu" in note for note in three.notes)
    assert np.isfinite(three.mean[2:]).all()
    assert np.isfinite(three.sd[2:]).all()
    two = solve(model(EFFECT[:2], SE[:2], "Flat()", "HalfCauchy(10)"))
    assert np.isfinite(two.mean[1])
    assert np.isinf(two.sd[1])
    assert two.log_evidence is None
    one = solve(model(EFFECT[:1], SE[:1], "Flat()", "HalfNormal(10)"))
    # One unit under a flat μ says nothing about τ.
    np.testing.assert_allclose(one.quantiles(P)[1], stats.halfnorm(scale=10).ppf(P), rtol=1e-9)
    with pytest.raises(ImproperPosteriorError):
        solve(
            model(
                EFFECT[:2],
                SE[:2],
                "Flat()",
                "HalfNormal(5)",
                beta="Flat()",
                design=[[1.0], [1.0]],
                columns=("x",),
            )
        )
    with pytest.raises(NotExactError, match="nuts"):
        solve(model(beta="StudentT(3, 0, 1)", design=np.arange(8.0)[:, None], columns=("x",)))
    with pytest.raises(NotExactError, match="nuts"):
        solve_two_level(model_with_student())


def model_with_student():
    structure = TwoLevelNormal(EFFECT, SE, tuple("abcdefgh"), effects="student_t")
    priors = {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)", "nu": "Gamma(2, 0.1)"}
    return ModelSpec(structure, {name: Prior.parse(text) for name, text in priors.items()})


def test_quantiles_stay_right_where_moments_are_infinite():
    posterior = solve(model(EFFECT[:3], SE[:3], "Flat()", "Flat()"))
    y, s = EFFECT[:3], SE[:3]
    r = np.linspace(0, 1 - 1e-7, 40_001)
    t = 12 * r / (1 - r)
    v = s**2 + t[:, None] ** 2
    total = (1 / v).sum(1)
    center = (y / v).sum(1) / total
    f = np.exp(-0.5 * ((y - center[:, None]) ** 2 / v + np.log(v)).sum(1)) / np.sqrt(total) / (1 - r) ** 2
    below = CubicSpline(r, f).antiderivative()
    q = posterior.quantiles(P)
    np.testing.assert_allclose(below(q[1] / (12 + q[1])) / below(r[-1]), P, atol=1e-6)
    of_mu = CubicSpline(r, f[:, None] * ndtr((q[0] - center[:, None]) * np.sqrt(total)[:, None]))
    np.testing.assert_allclose(of_mu.integrate(0, r[-1]) / below(r[-1]), P, atol=1e-6)


@pytest.mark.parametrize(
    "tau", [*TAU[:-1], "LogNormal(-3, 4)", "InverseGamma(0.6, 0.01)", "Gamma(0.1, 0.01)", "HalfCauchy(0.001)"]
)
def test_without_data_the_posterior_is_the_prior(tau):
    posterior = solve(model(EFFECT, SE * 1e12, "Normal(3, 2)", tau))
    prior = Prior.parse(tau).distribution
    p = np.array([1e-3, 0.025, 0.5, 0.975])
    quantiles = posterior.quantiles(p)
    np.testing.assert_allclose(quantiles[1], prior.ppf(p), rtol=1e-6)
    np.testing.assert_allclose(quantiles[0], stats.norm(3, 2).ppf(p), rtol=1e-7)
    assert posterior.weights.prior == pytest.approx(np.ones(8), abs=1e-6)


def test_shift_scale_and_order_change_nothing():
    base = solve(model(mu="Normal(5, 20)", tau="HalfNormal(7)"))
    shifted = solve(model(EFFECT + 1e6, SE, "Normal(1000005, 20)", "HalfNormal(7)"))
    offset = np.where(np.arange(10) == 1, 0, 1e6)
    np.testing.assert_allclose(shifted.mean - offset, base.mean, atol=1e-9)
    np.testing.assert_allclose(shifted.sd, base.sd, rtol=1e-12)
    np.testing.assert_allclose(shifted.hdi() - offset[:, None], base.hdi(), atol=1e-5)
    for factor in (1e-6, 1e5):
        scaled = solve(
            model(
                EFFECT * factor,
                SE * factor,
                f"Normal({5 * factor}, {20 * factor})",
                f"HalfNormal({7 * factor})",
            )
        )
        np.testing.assert_allclose(scaled.mean / factor, base.mean, rtol=1e-9)
        np.testing.assert_allclose(scaled.quantiles(P) / factor, base.quantiles(P), rtol=1e-8, atol=1e-8)
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    permuted = solve(model(EFFECT[order], SE[order], "Normal(5, 20)", "HalfNormal(7)"))
    np.testing.assert_allclose(permuted.mean[2:], base.mean[2:][order], rtol=1e-12)


def test_limits_of_tau_are_complete_and_no_pooling():
    posterior = solve(model())
    at = posterior.given_tau(np.array([0.0, 1e-9, 7.0, 1e9, np.inf]))
    complete = solve(model(pooling="complete"))
    np.testing.assert_allclose(at.theta_mean[0], complete.mean[1:], rtol=1e-12)
    np.testing.assert_allclose(at.theta_sd[0], complete.sd[1:], rtol=1e-12)
    np.testing.assert_allclose(at.theta_mean[1], at.theta_mean[0], rtol=1e-9)
    np.testing.assert_array_equal(at.theta_mean[-1], EFFECT)
    np.testing.assert_array_equal(at.theta_sd[-1], SE)
    np.testing.assert_allclose(at.theta_mean[-2], EFFECT, rtol=1e-9)
    np.testing.assert_allclose([at.mu_mean[-1], at.mu_sd[-1]], [0, 20], atol=1e-12)
    np.testing.assert_allclose([at.mu_mean[-2], at.mu_sd[-2]], [0, 20], atol=1e-6)
    np.testing.assert_array_equal(at.pooling[[0, -1]], [np.ones(8), np.zeros(8)])
    np.testing.assert_allclose(at.weights.own + at.weights.others + at.weights.prior, 1, atol=1e-12)
    flat = solve(model(mu="Flat()")).given_tau(np.array([np.inf, 1e8]))
    assert flat.mu_mean[0] == pytest.approx(EFFECT.mean())
    assert flat.mu_mean[1] == pytest.approx(EFFECT.mean(), rel=1e-9)
    assert np.isinf(flat.mu_sd[0])
    tiny = solve(model(tau="HalfNormal(1e-7)"))
    np.testing.assert_allclose(tiny.mean[2:], complete.mean[1:], rtol=1e-8)
    huge = solve(model(tau="Uniform(1000000, 2000000)"))
    np.testing.assert_allclose(huge.mean[2:], EFFECT, atol=1e-8)


@pytest.mark.parametrize("tau", TAU)
def test_weight_on_the_mean_rises_with_the_standard_error(tau):
    posterior = solve(model(tau=tau))
    order = np.argsort(SE, kind="stable")
    assert (np.diff(posterior.pooling[order]) >= 0).all()
    shares = posterior.weights
    np.testing.assert_allclose(shares.own + shares.others + shares.prior, 1, atol=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        model(),
        model(mu="Flat()", tau="Uniform(0, 50)"),
        model(mu="StudentT(2, 0, 10)"),
        model(mu="Uniform(-5, 12)", tau="Gamma(0.5, 0.1)"),
        model(mu="Gamma(0.5, 0.1)", tau="HalfNormal(5)"),
        adaptive(3.0),
        model(beta="Normal(0, 10)", design=np.linspace(-1, 1, 8)[:, None], columns=("x",)),
        model(
            mu="StudentT(3, 0, 9)", beta="Normal(0, 5)", design=np.linspace(-1, 1, 8)[:, None], columns=("x",)
        ),
    ],
    ids=lambda spec: spec.priors["mu"].text + spec.priors["tau"].text + spec.structure.scale,
)
def test_draws_are_from_the_posterior(spec):
    count = 8_000
    posterior = solve(spec)
    draws = posterior.draws(count, 7)
    again = posterior.draws(count, 7)
    table = np.concatenate(
        [draws[name].reshape(count, -1) for name in ("mu", "tau", "beta", "theta") if name in draws], axis=1
    )
    assert table.shape[1] == len(posterior.names)
    np.testing.assert_array_equal(draws["theta"], again["theta"])
    np.testing.assert_array_less(np.abs(table.mean(0) - posterior.mean), 5 * posterior.sd / np.sqrt(count))
    quantiles = posterior.quantiles(P)
    for row, name in enumerate(posterior.names):
        share = (table[:, row, None] < quantiles[row]).mean(0)
        np.testing.assert_array_less(np.abs(share - P), 5 * np.sqrt(P * (1 - P) / count) + 1e-9, err_msg=name)
    # Dependence, not margins alone: the spread of units around their mean is what τ governs.
    spread = table[:, -8:].std(1)
    assert np.corrcoef(spread, draws["tau"])[0, 1] > 0.5


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_shortest_intervals_hold_their_mass_and_none_is_shorter(level):
    for spec in (
        model(),
        model(tau="Gamma(0.5, 0.1)"),
        model(tau="LogNormal(1, 0.5)"),
        model(mu="Uniform(-5, 12)"),
    ):
        posterior = solve(spec)
        intervals = posterior.hdi(level)
        for name, (low, high) in zip(posterior.names, intervals, strict=True):
            mass = np.diff(posterior.cdf(name, np.array([low, high])))[0]
            assert mass == pytest.approx(level, abs=1e-7), name
            ends = posterior.density(name, np.array([low, high]))
            step = 1e-3 * (high - low)
            inside = posterior.density(name, np.array([low + step, high - step]))
            # Interior ends have equal density; an end at the edge of the support is higher than the other.
            free = abs(ends[0] / ends[1] - 1) < 1e-4
            assert free or (name in ("mu", "tau") and max(ends) > min(ends)), name
            below = posterior.cdf(name, np.array([low]))[0]
            assert free or min(abs(below), abs(below - (1 - level))) < 1e-7, name
            assert (inside > 0).all()


def test_densities_integrate_to_the_distribution_function():
    posterior = solve(model(mu="StudentT(3, 0, 10)"))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    for name in ("mu", "tau", "theta[u0]"):
        low, high = posterior.quantiles([0.01, 0.99])[posterior.index(name)]
        x = (low + high) / 2 + (high - low) / 2 * nodes
        mass = (high - low) / 2 * (posterior.density(name, x) @ weights)
        assert mass == pytest.approx(0.98, abs=1e-8)
    assert posterior.density("tau", np.array([-1.0]))[0] == 0
    np.testing.assert_allclose(posterior.cdf("tau", np.array([-1.0, 1e12])), [0, 1], atol=1e-14)
    with pytest.raises(InputError, match="parameter"):
        posterior.density("theta[nobody]", np.array([0.0]))
    with pytest.raises(InputError, match="probabilities"):
        posterior.quantiles([1.5])


def test_summary_lists_every_parameter():
    table = solve(model()).summary()
    assert list(table.columns) == [
        "mean",
        "sd",
        "q0.025",
        "q0.25",
        "q0.5",
        "q0.75",
        "q0.975",
        "hdi95_low",
        "hdi95_high",
    ]
    assert list(table.index[:2]) == ["mu", "tau"]
    assert table.loc["tau", "hdi95_low"] == 0
