"""The three-level engine against the covariance of all data on a dense plane of both sds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

P = np.array([0.025, 0.25, 0.5, 0.75, 0.975])


def structure(effect, se, group):
    group = np.asarray(group)
    units = tuple(f"u{i}" for i in range(group.size))
    groups = tuple(f"g{i}" for i in range(group.max() + 1))
    return ThreeLevelNormal(np.asarray(effect, float), np.asarray(se, float), group, units, groups)


def model(data, mu="Normal(0, 1)", group="HalfNormal(1)", unit="HalfNormal(1)"):
    shape = data if isinstance(data, ThreeLevelNormal) else structure(*data)
    texts = {"mu": mu, "sigma_group": group, "sigma_unit": unit}
    return ModelSpec(shape, {name: Prior.parse(text) for name, text in texts.items()}, {}, "collapsed")


def simulated(seed, sizes, between, within, low, high):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    se = np.exp(rng.uniform(np.log(low), np.log(high), group.size))
    theta = 0.5 + between * rng.standard_normal(len(sizes))[group] + within * rng.standard_normal(group.size)
    return theta + se * rng.standard_normal(group.size), se, group


DATA = {
    "two groups of three": (
        np.array([0.2, 1.4, 0.7, -0.9, 0.1, -0.3]),
        np.array([0.3, 0.5, 0.2, 0.4, 0.6, 0.3]),
        np.repeat([0, 1], 3),
    ),
    "one, two and nine": simulated(1, (1, 2, 9), 0.8, 0.4, 0.2, 0.8),
    "five of eight, out of order": tuple(
        column[np.random.default_rng(9).permutation(40)]
        for column in simulated(2, (8,) * 5, 0.3, 0.4, 0.1, 1)
    ),
    "units alike": (
        np.repeat([0.5, -0.5, 1.5, 0.1], 4),
        np.tile([0.2, 0.3, 0.5, 0.9], 4),
        np.repeat(range(4), 4),
    ),
    "groups alike": (np.tile([0.5, -0.5, 1.5, 0.1], 6), np.full(24, 0.1), np.repeat(range(6), 4)),
    "tiny standard errors": simulated(4, (5, 6, 4), 0.7, 0.4, 1e-3, 3e-3),
    "huge standard errors": simulated(5, (4, 3, 5), 0.3, 0.4, 5.0, 20.0),
    "fifty groups": simulated(6, tuple(1 + i % 5 for i in range(50)), 0.5, 0.3, 0.1, 0.8),
    "orders of magnitude": simulated(7, (3, 1, 4, 4), 0.6, 0.5, 0.01, 10.0),
    "ten of twenty": simulated(8, (20,) * 10, 0.3, 0.4, 0.15, 1.2),
    "one group": simulated(10, (9,), 0.3, 0.4, 0.2, 0.9),
    "two groups of one": (np.array([0.1, 0.9]), np.array([0.2, 0.4]), np.array([0, 1])),
}
#: Priors on μ, on the sd of the groups and of the units; the second and third fight the data.
PRIORS = {
    "weak": ("Normal(0, 1)", "HalfNormal(1)", "HalfNormal(1)"),
    "far": ("Normal(12, 0.5)", "HalfNormal(0.05)", "InverseGamma(30, 100)"),
    "tight": ("Normal(-8, 0.2)", "InverseGamma(8, 0.4)", "HalfNormal(0.02)"),
    "flat": ("Flat()", "HalfCauchy(1)", "HalfCauchy(0.5)"),
    "sharp": ("Normal(0, 1)", "Gamma(0.5, 1)", "Uniform(0, 0.6)"),
}


def chosen(data):
    """At most four groups and four units, the latter in these groups."""
    group = DATA[data][2]
    groups = np.unique(np.linspace(0, group.max(), 4).astype(int))
    units = np.array([np.flatnonzero(group == g)[-1] for g in groups])
    return groups, units


def axis(prior, points=351):
    """A double-exponential rule: nodes and log weights of the sd."""
    x = np.linspace(-3.7, 3.7, points)
    upper = prior.support[1]
    if np.isinf(upper):
        # A center between prior and data, from which the rule reaches all scales.
        log_sigma = np.log(0.4) + np.pi / 2 * np.sinh(x)
        return np.exp(log_sigma), log_sigma + np.log(np.cosh(x))
    edge = np.pi * np.sinh(x)
    sigma = upper / (1 + np.exp(-edge))
    return sigma, np.log(np.cosh(x)) - np.logaddexp(0, edge) - np.logaddexp(0, -edge)


@cache
def plane(data, mu, upper):
    """Log likelihood (K, J); means, variances and slopes in μ (R, K, J) of μ, some groups, some units.

    y is normal with covariance S² + σ_unit² + σ_group² Z Z' + v₀ 1 1'; everything else is regression on y.
    """
    y, se, group = DATA[data]
    groups, units = chosen(data)
    prior = Prior.parse(mu)
    v0, m0 = (prior.numbers[1] ** 2, prior.numbers[0]) if prior.proper else (0.0, 0.0)
    t, _ = axis(Prior("Uniform", (0.0, upper)) if np.isfinite(upper) else Prior.parse("HalfNormal(1)"))
    s = axis(Prior.parse("HalfNormal(1)"))[0] ** 2
    z = (group[:, None] == np.arange(group.max() + 1)).astype(float)
    first = np.concatenate([np.ones((y.size, 1)), z[:, groups], np.eye(y.size)[:, units]], axis=1)
    g, count = groups.size, first.shape[1]
    # Columns 1, z_g, e_i and the residual, then all groups.
    columns = np.column_stack([first, y - m0, z])
    log_likelihood = np.empty((t.size, s.size))
    mean, variance, slopes = np.empty((3, count, t.size, s.size))
    for k, one in enumerate(t**2):
        # Through the inverse of S² + σ_unit² + v₀ 1 1', a diagonal and a rank-one matrix.
        diagonal = 1 / (se**2 + one)
        lost = v0 / (1 + v0 * diagonal.sum())
        weighted = diagonal[:, None] * columns
        products = columns.T @ weighted - lost * np.outer(weighted.sum(0), weighted.sum(0))
        values, vectors = np.linalg.eigh(products[count + 1 :, count + 1 :])
        through = products[: count + 1, count + 1 :] @ vectors
        # At every σ_group: what is left of the columns beside the groups, which is nothing of 1 and z_g, and
        # the rest.
        beside = products[: count + 1, : count + 1] - (through / values) @ through.T
        beside[: 1 + g] = beside[:, : 1 + g] = 0
        gram = beside + (through / (values * (1 + s[:, None] * values))[:, None, :]) @ through.T
        log_det = (
            -np.log(diagonal).sum() + np.log1p(v0 * diagonal.sum()) + np.log1p(s[:, None] * values).sum(1)
        )
        quadratic = gram[:, -1, -1]
        if not prior.proper:
            quadratic = quadratic - gram[:, 0, -1] ** 2 / gram[:, 0, 0]
            log_det = log_det + np.log(gram[:, 0, 0]) - np.log(2 * np.pi)
        log_likelihood[k] = -0.5 * (y.size * np.log(2 * np.pi) + log_det + quadratic)
        # Covariances with y as combinations of the columns: v₀ 1, then + s z_g, then + t e_i.
        combine = np.zeros((s.size, count, count + 1))
        combine[:, :, 0] = v0
        total = np.full((s.size, count), v0)
        for row in range(g):
            combine[:, 1 + row, 1 + row] = combine[:, 1 + g + row, 1 + row] = s
            combine[:, 1 + g + row, 1 + g + row] = one
            total[:, 1 + row] += s
            total[:, 1 + g + row] += s + one
        cross = combine @ gram
        center, spread = cross[:, :, -1], total - (cross * combine).sum(2)
        if prior.proper:
            center = center + m0
        else:
            slope = gram[:, 0, -1] / gram[:, 0, 0]
            rest = 1 - cross[:, :, 0]
            center = center + rest * slope[:, None]
            spread = spread + rest**2 / gram[:, :1, 0]
        mean[:, k], variance[:, k], slopes[:, k] = center.T, spread.T, (1 - cross[:, :, 0]).T
    return log_likelihood, mean, variance, slopes


@pytest.mark.parametrize("data", DATA)
def test_moments_and_quantiles_are_those_of_full_covariances_on_a_plane(data):
    groups, units = chosen(data)
    shape = structure(*DATA[data])
    places = np.array([0, *(3 + groups), *(3 + len(shape.groups) + units)])
    for name, (mu, group, unit) in PRIORS.items():
        where = f"{data}, {name}"
        of_group, of_unit = Prior.parse(group), Prior.parse(unit)
        posterior = solve(model(shape, mu, group, unit))
        log_likelihood, mean, variance, _ = plane(data, mu, of_unit.support[1])
        (t, log_t), (s, log_s) = axis(of_unit), axis(of_group)
        logs = log_likelihood + (of_unit.log_density(t) + log_t)[:, None] + of_group.log_density(s) + log_s
        logs = np.where(np.isnan(logs), -np.inf, logs)
        w = np.exp(logs - logs.max())
        w /= w.sum()
        assert posterior.error < 1e-6, where
        spreads = ((1, s, w.sum(0)), (2, t, w.sum(1)))
        # The plane's own differences cancel where σ_group is huge; finite moments do not reach there.
        whole, w = np.where(s < 1e12, w, 0.0), np.where(s < 1e6, w, 0.0)
        w /= w.sum()
        expected = np.einsum("rkj,kj->r", mean, w)
        sd = np.sqrt(np.einsum("rkj,kj->r", variance + (mean - expected[:, None, None]) ** 2, w))
        for place, x, share in spreads:
            center = share @ x
            spread = np.sqrt(share @ (x - center) ** 2)
            if np.isfinite(posterior.sd[place]):
                assert abs(posterior.mean[place] - center) < 1e-5 * spread, (where, place)
                assert abs(posterior.sd[place] / spread - 1) < 1e-5, (where, place)
        known = np.isfinite(posterior.sd[places])
        assert known[1 + groups.size :].all()
        gap = np.abs(posterior.mean[places] - expected) / sd
        assert (gap[known] < 1e-5).all(), (where, gap)
        ratio = np.abs(posterior.sd[places] / sd - 1)
        assert (ratio[known] < 1e-5).all(), (where, ratio)
        quantiles = posterior.quantiles(P)
        for row, place in enumerate(places):
            share = w if row else whole
            kept = share > 1e-13
            z = (quantiles[place][:, None] - mean[row][kept]) / np.sqrt(variance[row][kept])
            density = (np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi * variance[row][kept])) @ share[kept]
            missed = np.abs(ndtr(z) @ share[kept] - P) / density
            scale = sd[row] if known[row] else np.ptp(quantiles[place][[1, 3]])
            assert (missed < 1e-4 * scale).all(), (where, posterior.names[place], missed / scale)


@pytest.mark.parametrize(
    "mu", ["StudentT(3, 1, 0.3)", "Uniform(-0.2, 0.6)", "HalfNormal(1)", "Exponential(4)"]
)
def test_other_priors_on_mu_by_a_third_axis(mu):
    data, prior = "one, two and nine", Prior.parse(mu)
    groups, units = chosen(data)
    posterior = solve(model(DATA[data], mu, "HalfNormal(1)", "HalfCauchy(0.5)"))
    log_likelihood, mean, variance, slope = plane(data, "Flat()", np.inf)
    (t, log_t), (s, log_s) = axis(Prior.parse("HalfCauchy(0.5)")), axis(Prior.parse("HalfNormal(1)"))
    logs = log_likelihood + (Prior.parse("HalfCauchy(0.5)").log_density(t) + log_t)[:, None]
    logs = logs + Prior.parse("HalfNormal(1)").log_density(s) + log_s
    x = np.linspace(-4.2, 4.2, 901)
    lower, upper = prior.support
    if np.isinf(lower):
        m, log_m = np.sinh(4 * x) * 1e-4, np.log(np.cosh(4 * x))
    elif np.isinf(upper):
        m, log_m = np.exp(np.pi / 2 * np.sinh(x)), np.pi / 2 * np.sinh(x) + np.log(np.cosh(x))
    else:
        edge = np.pi * np.sinh(x)
        m = lower + (upper - lower) / (1 + np.exp(-edge))
        log_m = np.log(np.cosh(x)) - np.logaddexp(0, edge) - np.logaddexp(0, -edge)
    # Every third node of either sd is enough for these few units.
    part = (slice(None, None, 3), slice(None, None, 3))
    at, spread = mean[0][part].ravel(), variance[0][part].ravel()
    kept = np.flatnonzero(logs[part].ravel() > logs.max() - 60)
    terms = logs[part].ravel()[kept, None] - 0.5 * np.log(2 * np.pi * spread[kept, None])
    terms = terms + prior.log_density(m) + log_m - 0.5 * (m - at[kept, None]) ** 2 / spread[kept, None]
    w = np.exp(terms - terms.max())
    w /= w.sum()
    share = w.sum(0)
    center = share @ m
    sd = np.sqrt(share @ (m - center) ** 2)
    assert abs(posterior.hyper_mean[0] - center) < 1e-5 * sd
    assert abs(posterior.hyper_sd[0] / sd - 1) < 1e-5
    assert posterior.error < 1e-5
    assert posterior.weights is None
    quantiles, moments = posterior.quantiles(P), (posterior.mean, posterior.sd)
    below = np.cumsum(share) - share / 2
    np.testing.assert_allclose(np.interp(quantiles[0], m, below), P, atol=2e-4)
    np.testing.assert_allclose(posterior.cdf("mu", quantiles[0]), P, atol=1e-6)
    places = [*(3 + groups), *(6 + units)]
    draws = posterior.draws(20_000, 3)
    every = np.column_stack([draws["mu"], draws["mu_group"][:, groups], draws["theta"][:, units]])
    for row, place in enumerate(places, 1):
        tilt = slope[row][part].ravel()[kept, None]
        given = mean[row][part].ravel()[kept, None] + tilt * (m - at[kept, None])
        # Rounding alone makes it negative where it vanishes.
        noise = np.maximum(variance[row][part].ravel()[kept, None] - tilt**2 * spread[kept, None], 1e-30)
        expected = (w * given).sum()
        deviation = np.sqrt((w * (noise + (given - expected) ** 2)).sum())
        assert abs(moments[0][place] - expected) < 1e-5 * deviation
        assert abs(moments[1][place] / deviation - 1) < 1e-5
        for p, quantile in zip(P[[1, 3]], quantiles[place, [1, 3]], strict=True):
            assert (w * ndtr((quantile - given) / np.sqrt(noise))).sum() == pytest.approx(p, abs=2e-4)
        assert abs(every[:, row].mean() - expected) < 5 * deviation / np.sqrt(20_000)
        assert abs(every[:, row].std() / deviation - 1) < 0.05
    assert abs(every[:, 0].mean() - center) < 5 * sd / np.sqrt(20_000)


def test_the_density_of_all_data_by_their_full_covariance():
    # The plane's own algebra, and the evidence, against SciPy's density of a normal vector.
    data = "one, two and nine"
    y, se, group = DATA[data]
    log_likelihood, mean, *_ = plane(data, "Normal(0, 1)", np.inf)
    t, s = axis(Prior.parse("HalfNormal(1)"))[0], axis(Prior.parse("HalfNormal(1)"))[0]
    same = group[:, None] == group
    for k, j in ((170, 150), (100, 190), (200, 60)):
        covariance = np.diag(se**2 + t[k] ** 2) + s[j] ** 2 * same + 1
        exact = stats.multivariate_normal(np.zeros(y.size), covariance).logpdf(y)
        assert log_likelihood[k, j] == pytest.approx(exact, rel=1e-10)
        assert mean[0, k, j] == pytest.approx(np.ones(y.size) @ np.linalg.solve(covariance, y), rel=1e-9)
    (t, log_t), (s, log_s) = axis(Prior.parse("HalfNormal(1)")), axis(Prior.parse("HalfNormal(1)"))
    half = Prior.parse("HalfNormal(1)")
    # Both rules are in x with step h, up to the factor π/2.
    logs = log_likelihood + (half.log_density(t) + log_t)[:, None] + half.log_density(s) + log_s
    step = np.pi / 2 * 7.4 / 350
    evidence = np.log(np.exp(logs - logs.max()).sum() * step**2) + logs.max()
    assert solve(model(DATA[data])).log_evidence == pytest.approx(evidence, abs=1e-7)
    assert solve(model(DATA[data], mu="Flat()")).log_evidence is None
