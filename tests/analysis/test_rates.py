"""Tables of rates against closed forms, joint draws and simulation."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis import counts_predictive as predictive
from hbm_core.analysis import rates
from hbm_core.analysis.coverage import sbc_pit
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.rate_spread import along_spread, spread_densities, spread_moments
from hbm_core.models.prior import Prior
from hbm_core.scenarios import scenario

COUNTS = scenario("counts")
MODELS = {"base": "hosts", "mean_scaled": "hosts", "poisson": "pumps", "binomial": "batting"}


@pytest.fixture(scope="module")
def solved():
    found = {}
    for model, name in MODELS.items():
        spec = COUNTS.model(model).spec(COUNTS.dataset(name))
        found[model] = (spec, solve(spec))
    return found


@pytest.mark.parametrize("model", MODELS)
def test_some_entities_have_the_numbers_of_all(solved, model):
    spec, _ = solved[model]
    places = np.array([3, 1, 7])
    fresh, whole = solve(spec), solved[model][1]
    some = fresh.unit_quantiles((0.1, 0.9), places)
    assert some == pytest.approx(whole.quantiles((0.1, 0.9))[whole.theta][places], rel=1e-9)
    assert np.stack(fresh.unit_moments(places)) == pytest.approx(
        np.stack([whole.mean[whole.theta][places], whole.sd[whole.theta][places]]), rel=1e-9
    )
    assert fresh.unit_pooling(places) == pytest.approx(1 - whole.own_weight[places], rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_the_posterior_along_the_spread_averages_to_the_posterior(solved, model):
    _, posterior = solved[model]
    places = np.arange(4)
    found = along_spread(posterior, places)
    draws = posterior.draws(6_000, 1)
    values = draws["kappa" if model == "binomial" else "alpha"] ** -0.5
    mean, sd = spread_moments(found)
    assert mean == pytest.approx(values.mean(), abs=0.05 * values.std())
    assert sd == pytest.approx(values.std(), rel=0.05)
    u = (np.arange(320) + 0.5) / 320
    prior, density = spread_densities(posterior, found, u)
    assert density.mean() == pytest.approx(1, abs=2e-3)
    assert prior.mean() == pytest.approx(1, abs=1e-2)
    fine = np.linspace(np.log(found.spread[0]), np.log(found.spread[-1]), 4001)
    weight = np.exp(np.interp(fine, np.log(found.spread), found.log_density) - found.log_density.max())
    weight /= weight.sum()
    average = [weight @ np.interp(fine, np.log(found.spread), column) for column in found.theta_mean.T]
    means, sds = posterior.unit_moments(places)
    assert average == pytest.approx(means, abs=0.02 * float(sds.min()) + 2e-3 * float(means.max()))


def test_given_the_spread_poisson_rates_are_sums_over_one_mean(solved):
    """Given α counts are negative binomial, and only μ is left to be summed over."""
    spec, posterior = solved["poisson"]
    count, exposure = spec.structure.count[:, None], spec.structure.exposure[:, None]
    found = along_spread(posterior, np.arange(3))
    log_mu = np.linspace(-9, 9, 20_001)
    mu = np.exp(log_mu)
    for place in range(0, len(found.spread), 3):
        alpha = found.spread[place] ** -2
        each = stats.nbinom.logpmf(count, mu * alpha, alpha / (alpha + exposure))
        log_weight = each.sum(axis=0) + spec.priors["mu"].log_density(mu) + log_mu
        weight = np.exp(log_weight - log_weight[np.isfinite(log_weight)].max())
        weight /= weight.sum()
        rates_given = ((count + mu * alpha) / (exposure + alpha)) @ weight
        assert found.mu_mean[place] == pytest.approx(weight @ mu, rel=2e-3)
        assert found.theta_mean[place] == pytest.approx(rates_given[:3], rel=2e-3)


def test_a_changed_prior_weighs_the_same_nodes(solved):
    _, posterior = solved["base"]
    along_spread(posterior, np.arange(2))
    other = COUNTS.model("base").spec(COUNTS.dataset("hosts"), {"mu": Prior.parse("Exponential(0.12)")})
    moved = solve(other)
    assert moved.lattice is posterior.lattice
    fresh = along_spread(moved, np.arange(2))
    assert spread_moments(fresh)[0] == pytest.approx(
        spread_moments(along_spread(posterior, np.arange(2)))[0], rel=0.02
    )


def test_ranks_surprises_and_forecasts(solved):
    _, posterior = solved["base"]
    table = rates.ranking_table(posterior, top=5)
    assert table["p_top"].sum() == pytest.approx(5)
    assert table["rank"].sum() == pytest.approx(60 * 61 / 2)
    assert (table["low90"] <= table["rank"]).all() and (table["rank"] <= table["high90"]).all()
    found = rates.surprise_table(posterior).set_index("unit")
    draws = posterior.draws(6_000, 3)
    unit = str(found.index[0])
    at = list(posterior.structure.units).index(unit)
    y = found.loc[unit, "count"]
    law = stats.nbinom(draws["phi"], draws["phi"] / (draws["phi"] + draws["theta"][:, at]))
    assert found.loc[unit, "above"] == pytest.approx(law.sf(y - 1).mean(), rel=0.05)
    ahead = rates.forecast_table(posterior).set_index("unit")
    assert law.cdf(ahead.loc[unit, "high90"]).mean() >= 0.945
    assert law.cdf(ahead.loc[unit, "high90"] - 1).mean() < 0.955


def test_replicates_have_the_exact_share_of_zeros(solved):
    spec, posterior = solved["base"]
    simulated = predictive.replicates(posterior)
    assert (simulated == 0).mean() == pytest.approx(posterior.zero_share(), abs=0.006)
    bars = predictive.rootogram_table(spec.structure, simulated)
    assert bars["observed"].sum() == bars["expected"].sum() == spec.structure.count.size
    checks = predictive.statistics_table(spec.structure, simulated).set_index("statistic")
    assert checks.loc["largest", "observed"] == spec.structure.count.max()
    assert (checks["p"] > 0.01).all()


def test_wrong_models_are_found_by_their_replicates():
    data = COUNTS.simulate(2, zero_inflation=0.5, mu=12, alpha=2)
    spec = COUNTS.model("poisson").spec(data)
    table = predictive.statistics_table(spec.structure, predictive.replicates(solve(spec))).set_index(
        "statistic"
    )
    assert table.loc["zero_share", "p"] < 0.01 and table.loc["variance_to_mean", "p"] < 0.01


def test_prior_predictive_counts_against_their_moments():
    spec = COUNTS.model("base").spec(
        COUNTS.dataset("hosts"),
        {
            "mu": Prior.parse("Gamma(400, 100)"),
            "alpha": Prior.parse("Gamma(400, 400)"),
            "phi": Prior.parse("Gamma(400, 200)"),
        },
    )
    simulated = predictive.prior_predictive(spec, 400, 1)
    # μ = 4, α = 1, φ = 2: Var(y) = μ + E[θ²]/φ + Var(θ), Var(θ) = μ/α.
    assert simulated.mean() == pytest.approx(4, rel=0.03)
    assert simulated.var() == pytest.approx(4 + (16 + 4) / 2 + 4, rel=0.1)
    assert predictive.plausible_share(spec, 0, 50) > 0.99
    wide = COUNTS.model("base").spec(COUNTS.dataset("hosts"), {"mu": Prior.parse("HalfCauchy(1000)")})
    assert predictive.plausible_share(wide, 0, 50) < 0.3


def test_the_engine_is_calibrated_in_a_few_worlds():
    data = COUNTS.simulate(1, entities=6, windows_high=6)
    ranks = sbc_pit(COUNTS.model("poisson").spec(data), 25, seed=5, units=2)
    assert list(ranks.columns[:2]) == ["mu", "alpha"]
    for name in ranks:
        assert stats.kstest(ranks[name], "uniform").pvalue > 1e-3


def test_shrinkage_of_rates(solved):
    spec, posterior = solved["base"]
    table = rates.shrinkage_table(spec, posterior)
    assert (table["raw_low95"] >= 0).all()
    assert (table["raw_low95"] <= table["raw"]).all() and (table["raw"] <= table["raw_high95"]).all()
    assert table["pooled"].to_numpy() == pytest.approx(posterior.unit_moments()[0])
    ledger = rates.pooling_ledger(spec, posterior, table.head(5))
    assert ledger["pooling"].to_numpy() == pytest.approx(1 - posterior.own_weight[:5])
    long = rates.three_poolings(spec, posterior, ["h01", "h02"])
    complete = long[long["pooling"] == "complete"]["estimate"]
    assert np.ptp(complete) < 0.05 * complete.mean()
