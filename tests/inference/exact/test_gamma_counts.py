"""The counts engine against plain sums, closed forms and laws."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.gamma_counts import solve_gamma_counts
from hbm_core.inference.exact.gamma_counts_table import CountsTable
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from tests.inference.exact.counts_brute_force import brute_force

PRIORS = {"mu": "Exponential(0.1)", "alpha": "HalfNormal(2)", "phi": "HalfNormal(2)"}


def simulated(entities, windows, mu=3.0, alpha=1.0, phi=2.0, seed=0, exposures=(1.0,), **kind):
    """Counts of a gamma population; windows is one number or a range, exposures are drawn from a few."""
    rng = np.random.default_rng(seed)
    many = np.full(entities, windows) if np.isscalar(windows) else rng.integers(*windows, entities)
    rate = rng.gamma(mu * alpha, 1 / alpha, entities)
    entity = np.repeat(np.arange(entities), many)
    exposure = rng.choice(exposures, entity.size)
    mean = rate[entity] * exposure
    count = rng.negative_binomial(phi, phi / (phi + mean))
    return GammaCounts(count, entity, tuple(f"h{i}" for i in range(entities)), exposure, **kind)


def model(structure, **priors):
    chosen = {name: Prior.parse((PRIORS | priors)[name]) for name in structure.parameters}
    return ModelSpec(structure, chosen, {}, structure.parameterizations[0])


CASES = {
    "all zeros": (GammaCounts([0] * 6, [0, 0, 1, 1, 2, 2], ("a", "b", "c")), {}),
    "one entity": (GammaCounts([3, 5, 4], [0, 0, 0], ("a",)), {}),
    "5 entities, 1 window": (simulated(5, 1, seed=3), {}),
    "5 entities, 100 windows": (simulated(5, 100, seed=1), {}),
    "8 entities, all zeros but one": (
        GammaCounts([0] * 11 + [2], [0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7], tuple("abcdefgh")),
        {},
    ),
    "40 entities, 90 % zeros": (simulated(40, (1, 5), mu=0.12, alpha=3.0, phi=1.0, seed=2), {}),
    "20 entities, no zeros": (simulated(20, (2, 9), mu=60.0, alpha=0.3, phi=8.0, seed=4), {}),
    "500 entities, 1 to 3 windows": (simulated(500, (1, 4), mu=1.5, alpha=1.5, phi=3.0, seed=5), {}),
    "12 entities, exposures": (
        simulated(12, (1, 9), seed=6, exposures=np.exp(np.linspace(-1.5, 1.5, 23))),
        {},
    ),
    "60 entities, equal exposures within": (
        GammaCounts(
            np.random.default_rng(8).poisson(2, 180),
            np.repeat(np.arange(60), 3),
            tuple(map(str, range(60))),
            np.repeat(np.random.default_rng(9).choice([0.5, 1.0, 4.0], 60), 3),
        ),
        {},
    ),
    "far priors": (
        simulated(15, (2, 7), seed=7),
        {"mu": "LogNormal(3.5, 0.1)", "alpha": "Gamma(40, 200)", "phi": "Exponential(20)"},
    ),
    "mean scaled": (simulated(15, (2, 7), seed=7, effects="mean_scaled"), {"mu": "Gamma(2, 0.2)"}),
    "poisson": (simulated(25, (1, 6), seed=11, likelihood="poisson"), {}),
    "poisson, mean scaled, exposures": (
        simulated(25, (1, 6), seed=12, exposures=(0.2, 1, 3), likelihood="poisson", effects="mean_scaled"),
        {},
    ),
}
_TRUTH = {}


def truth(name):
    if name not in _TRUTH:
        structure, priors = CASES[name]
        # Small samples have long-tailed posteriors, whose sums need closer nodes.
        points = 64 if len(structure.units) <= 8 else 40 if len(structure.units) <= 50 else 28
        _TRUTH[name] = brute_force(model(structure, **priors), points)
    return _TRUTH[name]


@pytest.mark.parametrize("name", CASES)
def test_moments_are_those_of_plain_sums(name):
    structure, priors = CASES[name]
    found, want = solve(model(structure, **priors)), truth(name)
    sd = want.hyper[:, 1]
    assert found.names[: len(sd)] == structure.parameters
    assert np.all(np.abs(found.hyper_mean - want.hyper[:, 0]) < 1e-3 * sd)
    assert np.all(np.abs(found.hyper_sd - sd) < 1e-3 * sd)
    mean, spread = found.unit_moments()
    assert np.all(np.abs(mean - want.theta[:, 0]) < 1e-3 * want.theta[:, 1])
    if name not in SPARSE:
        assert np.all(np.abs(spread - want.theta[:, 1]) < 1e-3 * want.theta[:, 1])
    assert found.log_evidence == pytest.approx(want.log_evidence, abs=1e-3)
    assert found.error < 1e-3


#: Moments of θ exist by a whisker, or not at all: all counts, or all but one, are 0.
SPARSE = ("all zeros", "8 entities, all zeros but one")


@pytest.mark.parametrize("name", [name for name in CASES if name not in SPARSE])
def test_densities_are_those_of_plain_sums(name):
    structure, priors = CASES[name]
    found, want = solve(model(structure, **priors)), truth(name)
    for parameter, (axis, share) in zip(structure.parameters, want.marginals, strict=True):
        wanted = share / (axis[1] - axis[0])
        got = found.density(parameter, np.exp(axis)) * np.exp(axis)
        assert np.abs(got - wanted).max() < 3e-3 * wanted.max()
    for place in (0, len(structure.units) - 1):
        density = want.theta_density[want.of_entity[place]]
        got = found.density(found.names[found.theta][place], np.exp(want.x)) * np.exp(want.x)
        assert np.abs(got - density).max() < 6e-3 * density.max()


@pytest.mark.parametrize("name", CASES)
def test_quantiles_and_intervals_are_those_of_plain_sums(name):
    structure, priors = CASES[name]
    found, want = solve(model(structure, **priors)), truth(name)
    p = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
    quantiles = found.quantiles(p)
    assert np.all(np.diff(quantiles, axis=1) > 0)
    low, high = found.hdi(0.9).T
    for row, parameter in enumerate(structure.parameters):
        assert found.cdf(parameter, quantiles[row]) == pytest.approx(p, abs=1e-6)
    step = want.x[1] - want.x[0]
    for place in (0, len(structure.units) - 1):
        name = found.names[found.theta][place]
        density = want.theta_density[want.of_entity[place]]
        # Trapezoids with the first term of Euler and Maclaurin's formula; what lies left of the grid is left
        # out of the sums alone.
        wanted = np.cumsum(density) * step - density * step / 2 - step**2 / 12 * np.gradient(density, step)
        assert np.abs(found.cdf(name, np.exp(want.x)) - wanted - (1 - wanted[-1])).max() < 2e-3
        row = found.index(name)
        assert found.cdf(name, quantiles[row]) == pytest.approx(p, abs=1e-5)
        assert np.diff(found.cdf(name, np.array([low[row], high[row]]))) == pytest.approx(0.9, abs=1e-5)
        shorter = [found.quantiles([q, q + 0.9])[row] for q in (0.001, 0.02, 0.05, 0.08, 0.099)]
        assert high[row] - low[row] <= min(b - a for a, b in shorter) * (1 + 1e-6)


def test_poisson_rates_given_the_population_are_gamma():
    structure = CASES["poisson, mean scaled, exposures"][0]
    table = CountsTable(structure)
    mu, alpha = 2.3, 0.7
    mean, square = table.rates(np.array([[mu, alpha]]))
    shape, rate = alpha + structure.total, alpha / mu + structure.total_exposure
    assert mean[0, table.of_entity] == pytest.approx(shape / rate)
    assert square[0, table.of_entity] - mean[0, table.of_entity] ** 2 == pytest.approx(shape / rate**2)
    # Each entity's windows are a negative multinomial: that of their sum times a multinomial.
    want = 0.0
    for i in range(len(structure.units)):
        y, e = structure.count[structure.entity == i], structure.exposure[structure.entity == i]
        p = (alpha / mu) / (alpha / mu + e.sum())
        want += stats.nbinom.logpmf(y.sum(), alpha, p) + stats.multinomial.logpmf(y, y.sum(), e / e.sum())
    assert table.log_likelihood(np.array([[mu, alpha]]))[0] == pytest.approx(want, rel=1e-12)


def test_one_window_of_each_entity_is_what_its_double_integral_says():
    from scipy import integrate

    structure = GammaCounts([3, 0], [0, 1], ("a", "b"), [2.0, 0.5])
    mu, alpha, phi = 1.7, 0.4, 0.6
    want = 0.0
    for y, e in ((3, 2.0), (0, 0.5)):
        pieces = [
            integrate.quad(
                lambda x, y=y, e=e: (
                    np.exp(stats.gamma.logpdf(np.exp(x), mu * alpha, scale=1 / alpha) + x)
                    * stats.nbinom.pmf(y, phi, phi / (phi + np.exp(x) * e))
                ),
                *ends,
            )[0]
            for ends in ((-60, -5), (-5, 1), (1, 6))
        ]
        want += np.log(sum(pieces))
    got = CountsTable(structure).log_likelihood(np.array([[mu, alpha, phi]]), 49)[0]
    assert got == pytest.approx(want, abs=1e-7)


def test_great_dispersion_is_the_poisson_model():
    structure = CASES["poisson"][0]
    limit = solve(model(structure))
    same = GammaCounts(structure.count, structure.entity, structure.units)
    found = solve(model(same, phi="LogNormal(18, 0.1)"))
    both = found.error + limit.error
    assert np.all(np.abs(found.hyper_mean[:2] - limit.hyper_mean) < both * limit.hyper_sd)
    gap = np.abs(found.unit_moments()[0] - limit.unit_moments()[0])
    assert np.all(gap < both * limit.unit_moments()[1])
    assert found.log_evidence == pytest.approx(limit.log_evidence, abs=1e-4)


def test_order_of_windows_and_entities_does_not_matter():
    structure = CASES["12 entities, exposures"][0]
    rng = np.random.default_rng(3)
    windows, entities = rng.permutation(structure.count.size), rng.permutation(12)
    place = np.argsort(entities)
    other = GammaCounts(
        structure.count[windows],
        place[structure.entity[windows]],
        tuple(structure.units[i] for i in entities),
        structure.exposure[windows],
    )
    first, second = solve(model(structure)), solve(model(other))
    assert second.hyper_mean == pytest.approx(first.hyper_mean, rel=1e-7)
    assert second.unit_moments()[0] == pytest.approx(first.unit_moments()[0][entities], rel=1e-7)


def test_rates_scale_inversely_with_the_unit_of_exposure():
    """Per minute instead of per hour: μ and θ 60 times smaller, α 60 times larger, φ as it was."""
    structure = CASES["12 entities, exposures"][0]
    other = GammaCounts(structure.count, structure.entity, structure.units, structure.exposure * 60)
    first = solve(model(structure))
    second = solve(model(other, mu="Exponential(6)", alpha="HalfNormal(120)"))
    assert second.hyper_mean * [60, 1 / 60, 1] == pytest.approx(first.hyper_mean, rel=1e-5)
    assert second.unit_moments()[0] * 60 == pytest.approx(first.unit_moments()[0], rel=1e-5)
    assert second.quantiles([0.9])[3:] * 60 == pytest.approx(first.quantiles([0.9])[3:], rel=1e-4)


@pytest.mark.parametrize(
    "priors",
    [
        {"mu": "Gamma(2, 0.2)"},
        {"phi": "HalfNormal(0.5)"},
        {"mu": "LogNormal(4, 0.05)", "alpha": "LogNormal(-4, 0.1)"},
        {"phi": "LogNormal(7, 0.02)"},
        {"alpha": "HalfCauchy(1)"},
        {"mu": "Uniform(1, 4)"},
    ],
)
def test_weighing_anew_is_a_fresh_posterior(priors):
    """Near priors re-weigh the nodes; far ones are noticed and put nodes anew."""
    structure = simulated(15, (2, 7), seed=7)
    table = CountsTable(structure)
    solve_gamma_counts(model(structure), table)
    found = solve_gamma_counts(model(structure, **priors), table)
    fresh = solve_gamma_counts(model(structure, **priors), CountsTable(structure))
    assert np.isfinite(fresh.hyper_mean).sum() >= 2
    finite = np.isfinite(fresh.hyper_sd)
    gap = np.abs(found.hyper_mean[finite] - fresh.hyper_mean[finite])
    assert np.all(gap < 1e-3 * fresh.hyper_sd[finite])
    assert found.hyper_sd[finite] == pytest.approx(fresh.hyper_sd[finite], rel=2e-3)
    assert found.unit_moments()[0] == pytest.approx(fresh.unit_moments()[0], rel=1e-3)


def test_a_nearby_prior_makes_no_nodes_and_a_far_one_does():
    structure = simulated(30, (2, 7), seed=17)
    table = CountsTable(structure)
    solve_gamma_counts(model(structure), table)
    nodes = table.lattices[0]
    assert not solve_gamma_counts(model(structure, mu="Exponential(0.2)"), table).replaced
    assert table.lattices == [nodes]
    assert solve_gamma_counts(model(structure, phi="LogNormal(5, 0.1)"), table).replaced
    assert len(table.lattices) == 2 and table.lattices[1] is nodes


def test_draws_have_the_posterior_s_moments():
    structure, priors = CASES["12 entities, exposures"]
    found = solve(model(structure, **priors))
    count = 8000
    draws = found.draws(count, seed=2)
    flat = np.column_stack([draws[name] for name in structure.parameters] + [draws["theta"]])
    z = (flat.mean(0) - found.mean) / found.sd * np.sqrt(count)
    assert np.abs(z).max() < 4.5
    share = (flat <= found.quantiles([0.1, 0.9])[:, :, None].transpose(1, 2, 0)).mean(axis=1)
    assert np.abs(share - [[0.1], [0.9]]).max() < 4.5 * np.sqrt(0.09 / count)
    assert np.array_equal(found.draws(50, 7)["theta"], found.draws(50, 7)["theta"])


@pytest.mark.parametrize("name", ["12 entities, exposures", "poisson"])
def test_predictions_are_averages_over_draws(name):
    structure, priors = CASES[name]
    found = solve(model(structure, **priors))
    draws = found.draws(20_000, seed=4)
    latest = np.array([np.flatnonzero(structure.entity == i)[-1] for i in range(len(structure.units))])
    y, e = structure.count[latest], structure.exposure[latest]
    mean = draws["theta"] * e
    phi = draws["phi"][:, None] if "phi" in draws else None
    law = stats.poisson(mean) if phi is None else stats.nbinom(phi, phi / (phi + mean))
    tail = found.latest()
    for got, each in ((tail.above, law.sf(y - 1)), (tail.below, law.cdf(y))):
        assert np.all(np.abs(got - each.mean(0)) < 5 * each.std(0) / np.sqrt(20_000) + 1e-4)
    assert np.all(tail.surprise <= 1)
    forecast = found.forecast((0.1, 0.5, 0.9))
    for column, p in zip(forecast.T, (0.1, 0.5, 0.9), strict=True):
        error = 5 * law.cdf(column).std(0) / np.sqrt(20_000) + 2e-4
        assert np.all(law.cdf(column).mean(0) > p - error)
        assert np.all(law.cdf(column - 1).mean(0) < p + error)
    every = draws["theta"][:, structure.entity] * structure.exposure
    none = np.exp(-every) if phi is None else (phi / (phi + every)) ** phi
    assert found.zero_share() == pytest.approx(none.mean(), abs=5 * none.mean(1).std() / np.sqrt(20_000))


def test_large_counts_are_forecast_too():
    structure = GammaCounts([900, 1100, 5000, 4000], [0, 0, 1, 1], ("a", "b"))
    found = solve(model(structure, mu="Exponential(0.001)"))
    law = found.tail(*[np.broadcast_to(v, (2,)) for v in (0.0, 1.0)])
    assert law.above == pytest.approx(1)
    low, high = found.forecast((0.05, 0.95)).T
    assert np.all(found.tail(low, np.ones(2)).below >= 0.05 - 1e-9)
    assert np.all(found.tail(low - 1, np.ones(2)).below < 0.05)
    assert np.all(found.tail(high - 1, np.ones(2)).below < 0.95)


def test_own_weight_grows_with_windows_and_is_a_closed_form_for_poisson_counts():
    rng = np.random.default_rng(5)
    many = np.array([1, 2, 4, 8, 16, 32])
    entity = np.repeat(np.arange(6), many)
    structure = GammaCounts(rng.poisson(3, entity.size), entity, tuple("abcdef"), likelihood="poisson")
    found = solve(model(structure))
    alpha = found.draws(40_000, 1)["alpha"][:, None]
    assert found.own_weight == pytest.approx((many / (alpha + many)).mean(0), abs=4e-3)
    assert found.own_weight + found.pooling == pytest.approx(1)
    dispersed = solve(model(GammaCounts(structure.count, entity, tuple("abcdef"))))
    assert np.all(np.diff(dispersed.own_weight) > 0)
    assert np.all(dispersed.own_weight < found.own_weight)


def test_nothing_but_zeros_leaves_the_rates_an_infinite_sd():
    structure = CASES["all zeros"][0]
    found = solve(model(structure))
    assert np.isfinite(found.mean).all() and np.isinf(found.sd[found.theta]).all()
    assert any("sd of theta is infinite" in note for note in found.notes)
    assert np.isfinite(solve(model(structure, phi="Gamma(2, 1)")).sd).all()


def test_improper_posteriors_are_refused_with_the_reason():
    structure = simulated(10, 3)
    for name in ("alpha", "phi"):
        with pytest.raises(ImproperPosteriorError, match=f"prior on {name}.*infinite mass at large {name}"):
            solve(model(structure, **{name: "Flat()"}))
    with pytest.raises(NotExactError, match="slower than any power"):
        solve(model(structure, mu="Flat()"))
    with pytest.raises(ImproperPosteriorError, match="all counts are 0"):
        solve(model(GammaCounts([0, 0], [0, 1], ("a", "b")), mu="Flat()"))


def test_infinite_moments_are_said_and_quantiles_stay_finite():
    found = solve(model(simulated(10, 3), alpha="HalfCauchy(1)", phi="HalfStudentT(1.5, 1)"))
    assert np.isinf(found.hyper_mean[1]) and np.isinf(found.hyper_sd[1:]).all()
    assert np.isfinite(found.hyper_mean[[0, 2]]).all()
    assert any("mean and sd of alpha are infinite" in note for note in found.notes)
    assert np.isfinite(found.quantiles([0.01, 0.99])).all()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("count", [1, -1], "whole numbers from 0, got -1"),
        ("count", [1, 0.5], "whole numbers from 0, got 0.5"),
        ("count", [1, np.nan], "whole numbers from 0, got nan"),
        ("exposure", [1, 0], "positive finite numbers, got 0"),
        ("entity", [0, 2], "at least one window"),
        ("entity", [0, 0], "at least one window"),
        ("exposure", [1], "equally long"),
    ],
)
def test_what_are_no_counts_is_refused(column, values, message):
    columns = {"count": [1, 2], "entity": [0, 1], "units": ("a", "b"), "exposure": [1, 1]} | {column: values}
    with pytest.raises(InputError, match=message):
        GammaCounts(**columns)


def test_log_rising_is_a_sum_of_logs():
    from hbm_core.inference.gamma_marginal import log_rising

    for phi in (1e-3, 0.7, 29.9, 30.1, 1e4, 1e9):
        y = np.array([0, 1, 2, 7, 300])
        want = [sum(np.log1p(j / phi) for j in range(int(n))) for n in y]
        assert log_rising(y, np.array(phi)) == pytest.approx(want, rel=1e-9, abs=1e-12)
