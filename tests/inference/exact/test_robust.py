"""The exact engine of the Student-t models against quadrature over θ, laws, limits and its own draws."""

import itertools

import numpy as np
import pytest
from scipy import stats

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


def panels(breaks, lower, upper, order=6):
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
        u = np.arange(-farthest, farthest, 0.04)
        z = np.sinh(u)
        weight = student(z) * (np.cosh(u) * 0.04)[:, None]
        theta = mu[:, None] + tau * z
        for i in range(len(y)):
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
            u = np.arange(-farthest, farthest, 0.025)
            z = np.sinh(u)
            weight = student(z) * (np.cosh(u) * 0.025)[:, None]
            density = stats_normal(mu[:, None], y[i] + se[i] * z, tau)
            for k in range(3):
                out[k, i] = (density * (se[i] * z) ** k) @ weight
    return out


def stats_normal(x, mean, sd):
    return np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))


def brute_force(name, kind, priors):
    """Means, sds and log evidence from a dense grid of (μ, log τ, log ν)."""
    y, se = DATA[name]
    prior = {parameter: Prior.parse(text) for parameter, text in priors.items()}
    of_mu, length = PANELS[name]
    mu, mu_weight = panels(of_mu, *prior["mu"].support)
    far = -30 if priors["tau"].startswith("Gamma") else -15
    of_tau = ((far, 3.5), (-2.5, length), (4.5, 1.5), (12, 0))
    log_tau, tau_weight = panels(of_tau, far, np.log(prior["tau"].support[1]))
    nu_low, nu_high = np.log(np.maximum(prior["nu"].support, 1e-9))
    log_nu, nu_weight = panels(((-6, 1.6), (7.5, 0)), nu_low, nu_high)
    nu = np.exp(log_nu)
    j = len(y)
    total, sums, squares, peak = 0.0, np.zeros(3 + j), np.zeros(3 + j), None
    for x, weight in zip(log_tau, tau_weight, strict=True):
        tau = np.exp(x)
        zero, first, second = unit_integrals(y, se, kind, mu, tau, nu)
        log_mass = (
            np.log(np.maximum(zero, 1e-300)).sum(axis=0)
            + (prior["mu"].log_density(mu) + np.log(mu_weight))[:, None]
            + prior["nu"].log_density(nu)
            + log_nu
            + np.log(nu_weight)
            + prior["tau"].log_density(np.array(tau))
            + x
            + np.log(weight)
        )
        peak = log_mass.max() if peak is None else peak
        mass = np.exp(log_mass - peak)
        total += mass.sum()
        of_mu, of_nu = mass.sum(axis=1), mass.sum(axis=0)
        sums[:3] += of_mu @ mu, mass.sum() * tau, of_nu @ nu
        squares[:3] += of_mu @ mu**2, mass.sum() * tau**2, of_nu @ nu**2
        sums[3:] += np.einsum("imn,mn->i", first / np.maximum(zero, 1e-300), mass)
        squares[3:] += np.einsum("imn,mn->i", second / np.maximum(zero, 1e-300), mass)
    mean = sums / total
    sd = np.sqrt(squares / total - mean**2)
    mean[3:] += y
    return mean, sd, peak + np.log(total)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, priors",
    [
        ("eight schools", DEFAULT),
        ("eight schools", CUT),
        ("eight schools", SINGULAR),
        ("outlier", DEFAULT),
        ("outlier", INFORMED),
        ("outlier", CUT),
        ("three", DEFAULT),
        ("three", INFORMED),
        ("three", CUT),
        ("twenty", DEFAULT),
        ("twenty", INFORMED),
        ("twenty", SINGULAR),
    ],
    ids=lambda value: value if isinstance(value, str) else value["tau"],
)
def test_moments_equal_quadrature_over_theta_on_a_dense_grid(kind, name, priors):
    y, se = DATA[name]
    exact = solve_robust(spec_of(y, se, kind, priors))
    mean, sd, log_evidence = brute_force(name, kind, priors)
    np.testing.assert_array_less(np.abs(exact.mean - mean) / sd, 1e-3)
    np.testing.assert_array_less(np.abs(exact.sd - sd) / sd, 1e-3)
    assert exact.error < TOLERANCE
    if exact.log_evidence is not None:
        assert exact.log_evidence == pytest.approx(log_evidence, abs=1e-4)
