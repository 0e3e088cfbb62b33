"""Laws of the three-level engine: equivariance, limits, re-weighting, draws, shares, refusals."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.three_level import solve_three_level
from hbm_core.inference.exact.three_level_rule import gauss_rule
from hbm_core.inference.exact.three_level_table import ThreeLevelTable
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.models.three_level import ThreeLevelNormal
from tests.inference.exact.test_three_level import DATA as PLANES
from tests.inference.exact.test_three_level import P, axis, model, plane, simulated, structure

DATA = simulated(11, (4, 1, 6, 9, 3), 0.5, 0.4, 0.15, 0.9)


def everything(posterior):
    return np.column_stack([posterior.mean, posterior.sd, posterior.quantiles(P)])


def two_level(effect, se, mu, tau):
    units = tuple(f"u{i}" for i in range(len(effect)))
    return solve(
        ModelSpec(TwoLevelNormal(effect, se, units), {"mu": Prior.parse(mu), "tau": Prior.parse(tau)})
    )


def test_a_shift_and_a_scale_go_through():
    y, se, group = DATA
    before = everything(solve(model(DATA)))
    moved = solve(
        model((y * 40 + 1e5, se * 40, group), "Normal(1e5, 40)", "HalfNormal(40)", "HalfNormal(40)")
    )
    after = everything(moved)
    after[:, [0, *range(2, 7)]] -= (
        1e5 * (np.arange(before.shape[0]) != 1)[:, None] * (np.arange(before.shape[0]) != 2)[:, None]
    )
    np.testing.assert_allclose(after / 40, before, atol=2e-8)


def test_units_and_groups_in_another_order():
    y, se, group = DATA
    rng = np.random.default_rng(0)
    units, groups = rng.permutation(y.size), rng.permutation(5)
    plain = solve(model(DATA))
    other = solve(model((y[units], se[units], groups[group][units])))
    shuffled = np.concatenate([[0, 1, 2], 3 + groups, 8 + np.argsort(units)])
    np.testing.assert_allclose(everything(other)[shuffled], everything(plain), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other.pooling[np.argsort(units)], plain.pooling, rtol=1e-12)
    np.testing.assert_allclose(other.weights.group[np.argsort(units)], plain.weights.group, atol=1e-10)
    np.testing.assert_allclose(
        other.lending.between[np.ix_(groups, groups)], plain.lending.between, atol=1e-10
    )
    some = [7, 2, 11]
    np.testing.assert_allclose(other.unit_quantiles(P, some), other.quantiles(P)[8:][some], rtol=1e-12)


def test_without_spread_of_groups_all_units_are_one_group():
    y, se, _ = DATA
    posterior = solve(model(DATA, group="HalfNormal(1e-9)"))
    expected = two_level(y, se, "Normal(0, 1)", "HalfNormal(1)")
    np.testing.assert_allclose(
        everything(posterior)[[0, 2, *range(8, 8 + y.size)]], everything(expected), atol=1e-6
    )


def test_without_spread_of_units_every_group_is_pooled_completely():
    y, se, group = DATA
    posterior = solve(model(DATA, unit="HalfNormal(1e-9)"))
    precision = np.bincount(group, weights=se**-2)
    center = np.bincount(group, weights=y / se**2) / precision
    expected = everything(two_level(center, precision**-0.5, "Normal(0, 1)", "HalfNormal(1)"))
    found = everything(posterior)
    for rows, other in (([0, 1, *range(3, 8)], expected), (slice(8, None), expected[2:][group])):
        np.testing.assert_allclose(found[rows, :2], other[:, :2], atol=1e-7)
        assert (np.abs(found[rows, 2:] - other[:, 2:]) < 1e-4 * other[:, 1:2]).all()


def test_data_that_say_nothing_leave_the_priors():
    group = np.repeat([0, 1, 2], 4)
    priors = {"mu": "Normal(2, 3)", "sigma_group": "Gamma(2, 3)", "sigma_unit": "LogNormal(-1, 0.4)"}
    posterior = solve(
        model(
            (np.zeros(12), np.full(12, 1e7), group), priors["mu"], priors["sigma_group"], priors["sigma_unit"]
        )
    )
    for place, text in enumerate(priors.values()):
        prior = Prior.parse(text).distribution
        assert posterior.mean[place] == pytest.approx(prior.mean(), rel=1e-6)
        assert posterior.sd[place] == pytest.approx(prior.std(), rel=1e-6)
        np.testing.assert_allclose(posterior.hyper_quantiles(P)[place], prior.ppf(P), atol=1e-4)
    assert posterior.sd[3] ** 2 == pytest.approx(9 + 2 / 9 + 4 / 9, rel=1e-6)


def test_weighting_known_nodes_anew_is_solving_anew():
    shape = structure(*DATA)
    first = solve(model(shape))
    assert not first.replaced
    kept = 0
    for mu, group, unit in (
        ("Normal(0.2, 1)", "HalfNormal(0.9)", "HalfNormal(1.2)"),
        ("Normal(0, 2)", "HalfNormal(0.5)", "HalfNormal(1)"),
        ("Normal(9, 0.1)", "HalfNormal(1)", "HalfNormal(1)"),
        ("Normal(0, 1)", "Uniform(0, 0.5)", "HalfNormal(1)"),
        ("Normal(0, 1)", "InverseGamma(20, 100)", "Gamma(0.5, 2)"),
        ("StudentT(3, 0, 1)", "HalfNormal(1)", "HalfNormal(1)"),
        ("Flat()", "HalfCauchy(1)", "HalfNormal(1)"),
        ("Normal(0, 1)", "HalfNormal(1)", "HalfNormal(1)"),
    ):
        again, fresh = solve(model(shape, mu, group, unit)), solve(model(DATA, mu, group, unit))
        kept += not again.replaced
        np.testing.assert_allclose(again.mean, fresh.mean, atol=1e-7 * fresh.sd.min(), err_msg=mu)
        np.testing.assert_allclose(again.sd, fresh.sd, rtol=1e-7, err_msg=mu)
        np.testing.assert_allclose(again.quantiles(P), fresh.quantiles(P), atol=1e-4 * fresh.sd.min())
        if group in ("InverseGamma(20, 100)", "Uniform(0, 0.5)"):
            assert again.replaced
    assert kept >= 3


def test_a_table_is_made_once_and_goes_with_its_structure():
    shape = structure(*DATA)
    table = ThreeLevelTable.of(shape)
    assert ThreeLevelTable.of(shape) is table
    assert solve(model(shape)).table is table
    own = ThreeLevelTable(shape)
    assert solve_three_level(model(shape), own).table is own
    gone = weakref.ref(table)
    del shape, table, own
    gc.collect()
    assert gone() is None


def test_draws_have_the_moments_and_the_joint_distribution():
    data = "one, two and nine"
    posterior = solve(model(PLANES[data]))
    count = 40_000
    draws = posterior.draws(count, seed=5)
    assert list(draws) == ["mu", "sigma_group", "sigma_unit", "mu_group", "theta"]
    every = np.column_stack(list(draws.values()))
    z = (every.mean(0) - posterior.mean) / posterior.sd * np.sqrt(count)
    assert np.abs(z).max() < 5
    kurtosis = (((every - every.mean(0)) / every.std(0)) ** 4).mean(0)
    assert (np.abs(every.std(0) / posterior.sd - 1) < 5 * np.sqrt((kurtosis - 1) / 4 / count)).all()
    below = (every < posterior.quantiles([0.25])[:, 0]).mean(0)
    assert np.abs(below - 0.25).max() < 5 * np.sqrt(0.1875 / count)
    # Jointly: the product of both sds by the plane; θ around its group's mean; these around μ.
    half = Prior.parse("HalfNormal(1)")
    sigma, log_sigma = axis(half)
    logs = plane(data, "Normal(0, 1)", np.inf)[0] + (half.log_density(sigma) + log_sigma)[:, None]
    w = np.exp(logs + half.log_density(sigma) + log_sigma - logs.max())
    expected = sigma @ w @ sigma / w.sum()
    product = draws["sigma_group"] * draws["sigma_unit"]
    assert abs(product.mean() - expected) < 5 * product.std() / np.sqrt(count)
    group = posterior.structure.group
    y, se = posterior.structure.effect, posterior.structure.se
    t = draws["sigma_unit"][:, None] ** 2
    inside = draws["mu_group"][:, group]
    pull = se**2 / (se**2 + t)
    score = (draws["theta"] - (pull * inside + (1 - pull) * y)) / np.sqrt(pull * t)
    assert np.abs(score.mean(0)).max() < 5 / np.sqrt(count)
    assert np.abs(score.var(0) - 1).max() < 5 * np.sqrt(2 / count)
    assert np.abs((score * inside).mean(0) / inside.std(0)).max() < 6 / np.sqrt(count)
    some = posterior.draws(50, seed=5, units=[4, 1])
    assert some["theta"].shape == (50, 2)
    np.testing.assert_array_equal(posterior.draws(50, seed=5, units=[4, 1])["theta"], some["theta"])
    np.testing.assert_array_equal(posterior.draws(50, seed=5)["mu"], some["mu"])


FIXED = {"group": "LogNormal(-0.7, 1e-5)", "unit": "LogNormal(-0.9, 1e-5)"}


def test_weights_are_the_derivatives_of_the_estimates():
    y, se, group = DATA
    posterior = solve(model(DATA, "Normal(0.3, 0.4)", **FIXED))
    weights, shares = posterior.weights, posterior.lending
    parts = weights.own, weights.group, weights.beyond, weights.prior
    np.testing.assert_allclose(sum(parts), 1, atol=1e-12)
    np.testing.assert_allclose(weights.others, weights.group + weights.beyond)
    np.testing.assert_allclose(shares.between.sum(1) + shares.prior, 1, atol=1e-12)

    def slope(change, mu="Normal(0.3, 0.4)"):
        return solve(model((y + change, se, group), mu, **FIXED)).mean - posterior.mean

    for unit in (0, 4, 12):
        one = np.arange(y.size) == unit
        mates = (group == group[unit]) & ~one
        assert slope(one)[8 + unit] == pytest.approx(weights.own[unit], abs=1e-6)
        assert slope(mates)[8 + unit] == pytest.approx(weights.group[unit], abs=1e-6)
        assert slope(group != group[unit])[8 + unit] == pytest.approx(weights.beyond[unit], abs=1e-6)
    for lender in range(5):
        np.testing.assert_allclose(slope(group == lender)[3:8], shares.between[:, lender], atol=1e-6)
    to_prior = slope(0 * y, "Normal(1.3, 0.4)")
    np.testing.assert_allclose(to_prior[3:8], shares.prior, atol=1e-6)
    np.testing.assert_allclose(to_prior[8:], weights.prior, atol=1e-6)
    np.testing.assert_allclose(posterior.pooling, se**2 / (se**2 + np.exp(-1.8)), rtol=1e-6)


def test_averages_over_the_posterior_are_those_of_draws():
    posterior = solve(model(DATA))
    t = posterior.draws(40_000, 1, units=[])["sigma_unit"][:, None] ** 2
    se = posterior.structure.se
    pull = se**2 / (se**2 + t)
    assert (np.abs(pull.mean(0) - posterior.pooling) < 5 * pull.std(0) / 200).all()
    weights = posterior.weights
    np.testing.assert_allclose(weights.own + weights.others + weights.prior, 1, atol=1e-12)
    np.testing.assert_allclose(weights.prior, solve(model(DATA)).weights.prior)
    assert (solve(model(DATA, mu="Flat()")).weights.prior == 0).all()


def test_given_the_spread_by_full_covariances():
    y, se, group = DATA
    posterior = solve(model(DATA, "Normal(0.3, 0.7)"))
    grid = np.array([0.0, 0.1, 0.5, 3.0, np.inf])
    found = posterior.given_spread(grid)
    nodes, weights = np.polynomial.legendre.leggauss(120)
    s, same = 3 * (1 + nodes), (group[:, None] == group).astype(float)
    member = (np.arange(5)[:, None] == group).astype(float)
    for k, tau in enumerate(grid[:-1]):
        logs, means, variances = [], [], []
        for one in s:
            covariance = np.diag(se**2 + tau**2) + one**2 * same + 0.49
            inverse = np.linalg.inv(covariance)
            rest = y - 0.3
            logs.append(-0.5 * (np.linalg.slogdet(covariance)[1] + rest @ inverse @ rest) - one**2 / 2)
            cross = np.vstack([np.full((1, y.size), 0.49), 0.49 + one**2 * member])
            cross = np.vstack([cross, 0.49 + one**2 * same + tau**2 * np.eye(y.size)])
            total = np.concatenate(
                [[0.49], np.full(5, 0.49 + one**2), np.full(y.size, 0.49 + one**2 + tau**2)]
            )
            means.append(0.3 + cross @ inverse @ rest)
            variances.append(total - np.einsum("ij,jk,ik->i", cross, inverse, cross))
        w = weights * np.exp(np.array(logs) - max(logs))
        w /= w.sum()
        mean = w @ np.array(means)
        sd = np.sqrt(w @ (np.array(variances) + (np.array(means) - mean) ** 2))
        got = np.concatenate([[found.mu_mean[k]], found.group_mean[k], found.theta_mean[k]])
        np.testing.assert_allclose(got, mean, atol=1e-6)
        got = np.concatenate([[found.mu_sd[k]], found.group_sd[k], found.theta_sd[k]])
        np.testing.assert_allclose(got, sd, atol=1e-6)
        np.testing.assert_allclose(found.pooling[k], se**2 / (se**2 + tau**2))
    np.testing.assert_allclose(found.theta_mean[-1], y)
    np.testing.assert_allclose(found.theta_sd[-1], se)
    assert (found.pooling[-1] == 0).all()
    assert found.mu_mean[-1] == pytest.approx(0.3, abs=1e-6)
    assert found.mu_sd[-1] == pytest.approx(0.7, rel=1e-6)
    few = posterior.given_spread(grid, [3, 1])
    np.testing.assert_array_equal(few.theta_mean, found.theta_mean[:, [3, 1]])


def test_leave_one_out_is_a_ratio_of_evidences():
    y, se, group = DATA
    posterior = solve(model(DATA))
    found = posterior.unit_log_predictive()
    for unit in (0, 6, 20):
        rest = np.arange(y.size) != unit
        without = solve(model((y[rest], se[rest], group[rest])))
        assert found[unit] == pytest.approx(posterior.log_evidence - without.log_evidence, abs=1e-6)
    np.testing.assert_array_equal(posterior.unit_log_predictive([6]), found[[6]])


def test_marginals_agree_with_each_other():
    posterior = solve(model(DATA))
    quantiles = posterior.quantiles(P)
    intervals = posterior.hdi(0.9)
    above = posterior.unit_probability_above(0.4)
    names = ("mu", "sigma_group", "sigma_unit", "mu_group[g1]", "theta[u4]", "theta[u17]")
    for name in names:
        place = posterior.index(name)
        assert posterior.names[place] == name
        np.testing.assert_allclose(posterior.cdf(name, quantiles[place]), P, atol=1e-8)
        low, high = quantiles[place][[1, 3]]
        nodes, weights = np.polynomial.legendre.leggauss(40)
        x = (low + high) / 2 + nodes * (high - low) / 2
        assert weights @ posterior.density(name, x) * (high - low) / 2 == pytest.approx(0.5, abs=1e-5)
        mass = np.diff(posterior.cdf(name, intervals[place]))[0]
        assert mass == pytest.approx(0.9, abs=1e-6)
        width = np.diff(intervals[place])[0]
        assert width <= posterior.quantiles([0.05, 0.95])[place] @ [-1, 1] + 1e-9
    for unit in (4, 17):
        assert above[unit] == pytest.approx(
            1 - posterior.cdf(f"theta[u{unit}]", np.array([0.4]))[0], abs=1e-12
        )
    table = posterior.summary()
    assert list(table.index) == list(posterior.names)
    np.testing.assert_allclose(table["q0.5"], quantiles[:, 2])
    assert posterior.theta == slice(8, 8 + DATA[0].size)
    assert posterior.groups == slice(3, 8)


def test_many_units_in_bins_are_the_units_one_by_one():
    data = simulated(12, (5000, 1500, 3500), 0.4, 0.3, 0.2, 1.0)
    shape = structure(*data)
    binned, plain = ThreeLevelTable(shape), ThreeLevelTable(shape)
    assert binned._bins is not None
    plain._bins = None
    # Past the nodes that a search would look at, and at its ends.
    sigma = np.array([0.0, 1e-6, 0.01, 0.3, 0.31, 2.0, 1e4])
    one, other = binned.sums(sigma), plain.sums(sigma)
    np.testing.assert_allclose(one.precision, other.precision, rtol=1e-11)
    np.testing.assert_allclose(one.center, other.center, atol=1e-10)
    gap = one.log_likelihood - other.log_likelihood
    assert np.abs(gap - gap[3]).max() < 1e-6
    found, expected = solve_three_level(model(shape), binned), solve_three_level(model(shape), plain)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6 * expected.sd.min())
    np.testing.assert_allclose(found.sd, expected.sd, rtol=1e-6)


def test_a_hundred_thousand_units_out_of_order_and_their_draws():
    data = simulated(13, (40_000, 1, 59_999, 5_000), 0.4, 0.3, 0.2, 1.0)
    order = np.random.default_rng(1).permutation(data[0].size)
    shape = structure(*(column[order] for column in data))
    posterior = solve(model(shape))
    mean, sd = posterior.unit_moments()
    some = np.array([0, 5, 70_000, 104_999, int(np.flatnonzero(shape.group == 1)[0])])
    draws = posterior.draws(20_000, 2, units=some)["theta"]
    assert np.abs((draws.mean(0) - mean[some]) / sd[some]).max() < 5 / np.sqrt(20_000)
    quantiles = posterior.unit_quantiles([0.25, 0.5, 0.75], some)
    # Given a spread this well known the effects are all but normal, but for the one alone in its group.
    np.testing.assert_allclose(quantiles[:4, 1], mean[some[:4]], atol=2e-3)
    np.testing.assert_allclose(quantiles[:4, 2] - quantiles[:4, 0], 1.349 * sd[some[:4]], rtol=2e-3)
    pull = shape.se**2 / (shape.se**2 + posterior.hyper_mean[2] ** 2)
    np.testing.assert_allclose(posterior.pooling, pull, atol=1e-3)
    assert "names" not in vars(posterior)


@pytest.mark.parametrize(
    ("sizes", "mu", "group", "unit", "needed"),
    [
        ((3, 4), "Flat()", "Flat()", "HalfNormal(1)", "at least 3 groups"),
        ((3,), "Normal(0, 1)", "Flat()", "HalfNormal(1)", "at least 2 groups"),
        ((1,), "Normal(0, 1)", "HalfNormal(1)", "Flat()", "at least 2 units"),
        ((1, 1), "Flat()", "HalfNormal(1)", "Flat()", "at least 3 units"),
        ((1, 1, 1), "Flat()", "Flat()", "Flat()", "at least 4 units"),
    ],
)
def test_improper_posteriors_are_refused_with_the_reason(sizes, mu, group, unit, needed):
    data = simulated(3, sizes, 0.5, 0.5, 0.2, 0.5)
    with pytest.raises(ImproperPosteriorError, match=needed):
        solve(model(data, mu, group, unit))
    # One more of what is missing is enough.
    enough = (*sizes, 1) if "groups" in needed or sizes[-1] == 1 else sizes
    solve(model(simulated(3, enough, 0.5, 0.5, 0.2, 0.5), mu, group, unit))


def test_infinite_moments_are_told():
    data = simulated(3, (3, 4, 2), 0.5, 0.5, 0.2, 0.5)
    posterior = solve(model(data, "Flat()", "Flat()", "HalfNormal(1)"))
    assert np.isinf(posterior.mean[1])
    assert np.isinf(posterior.sd[[0, 1]]).all()
    assert np.isfinite(posterior.sd[2:]).all()
    assert any("sigma_group" in note and "infinite" in note for note in posterior.notes)
    assert np.isfinite(posterior.quantiles(P)).all()
    assert posterior.log_evidence is None
    four = solve(model(simulated(3, (3, 4, 2, 2), 0.5, 0.5, 0.2, 0.5), "Flat()", "Flat()", "HalfNormal(1)"))
    assert np.isfinite(four.mean[:3]).all()
    assert np.isinf(four.sd[1])


def test_what_cannot_be_asked():
    posterior = solve(model(DATA))
    for call in (
        lambda: posterior.density("tau", np.zeros(1)),
        lambda: posterior.cdf("theta[nobody]", np.zeros(1)),
        lambda: posterior.quantiles([1.5]),
        lambda: posterior.hdi(1.0),
        lambda: posterior.draws(0),
        lambda: posterior.unit_quantiles(P, [99]),
        lambda: posterior.unit_quantiles(P, [0.5]),
        lambda: posterior.given_spread(np.array([-1.0])),
        lambda: posterior.unit_probability_above(np.nan),
    ):
        with pytest.raises(InputError):
            call()
    with pytest.raises(InputError, match="sigma_unit"):
        ModelSpec(
            posterior.structure,
            {
                "mu": Prior.parse("Normal(0, 1)"),
                "sigma_group": Prior.parse("HalfNormal(1)"),
                "sigma_unit": Prior.parse("Normal(0, 1)"),
            },
            {},
            "collapsed",
        )


def test_parameters_carry_the_words_of_the_levels():
    y, se, group = DATA
    units, groups = tuple(f"c{i}" for i in range(y.size)), ("a", "b", "c", "d", "e")
    shape = ThreeLevelNormal(y, se, group, units, groups, ("creator", "genre"))
    priors = {name: Prior.parse("HalfNormal(1)") for name in ("mu", "sigma_genre", "sigma_creator")}
    posterior = solve(ModelSpec(shape, priors, {}, "centered"))
    assert posterior.names[:5] == ("mu", "sigma_genre", "sigma_creator", "mu_genre[a]", "mu_genre[b]")
    assert posterior.names[8] == "theta[c0]"
    assert list(posterior.draws(3)) == ["mu", "sigma_genre", "sigma_creator", "mu_genre", "theta"]


def test_a_few_nodes_stand_for_a_discrete_measure():
    rng = np.random.default_rng(0)
    x, w = rng.uniform(-2, 5, 40), rng.dirichlet(np.ones(40), 3)
    nodes, weights = gauss_rule(x, w, 7)
    for degree in range(14):
        np.testing.assert_allclose((weights * nodes**degree).sum(1), w @ x**degree, rtol=1e-9)
    alone, share = gauss_rule(x, np.eye(40)[:1], 4)
    assert alone[0, share[0] > 0.5] == pytest.approx(x[0])


def test_a_prior_on_mu_without_a_closed_integral_is_refused():
    with pytest.raises(NotExactError, match="nuts"):
        solve(model(DATA, mu="Gamma(2, 1)"))


def test_what_is_not_resolved_is_told():
    # Sixteen powers of ten in one sd, with moments in the last of them.
    data = simulated(3, (3,), 0.5, 0.5, 0.2, 0.5)
    posterior = solve(model(data, unit="LogNormal(-1, 9)"))
    assert posterior.error > 1e-5
    assert any("not all" in note.lower() for note in posterior.notes)
