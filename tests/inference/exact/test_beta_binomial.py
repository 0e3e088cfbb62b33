"""Success rates against a fine grid of (μ, κ), with beta conditionals from SciPy."""

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import ImproperPosteriorError, InputError
from hbm_core.inference.exact import solve
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec

#: Hits in 45 times at bat of 18 players (Efron and Morris, 1975, JASA 70, table 1).
HITS = np.array([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])
RNG = np.random.default_rng(4)
TRIALS = RNG.integers(1, 60, 40)
CASES = {
    "batting": (HITS, np.full(18, 45), "Uniform(0, 1)", "HalfNormal(200)"),
    "uneven": (RNG.binomial(TRIALS, RNG.beta(1, 3, 40)), TRIALS, "Uniform(0, 1)", "Gamma(2, 0.1)"),
    "rare": (
        np.array([0, 0, 1, 0, 2, 0]),
        np.array([30, 5, 80, 12, 200, 9]),
        "Uniform(0, 0.4)",
        "LogNormal(3, 1)",
    ),
    "none": (np.zeros(3), np.array([4, 5, 6]), "Uniform(0, 1)", "HalfNormal(20)"),
}


def model(successes, trials, mu, kappa):
    structure = BetaBinomial(successes, trials, tuple(f"e{i}" for i in range(len(trials))))
    return ModelSpec(structure, {"mu": Prior.parse(mu), "kappa": Prior.parse(kappa)}, {}, "collapsed")


@pytest.mark.parametrize("name", CASES)
def test_moments_and_distribution_are_those_of_a_fine_grid(name):
    successes, trials, *texts = CASES[name]
    spec = model(successes, trials, *texts)
    found = solve(spec)
    of_mu, of_kappa = (prior.distribution for prior in spec.priors.values())
    low, high = spec.priors["mu"].support
    odds, log_kappa = np.linspace(-18, 18, 500), np.linspace(-14, 11, 480)
    mu = low + (high - low) / (1 + np.exp(-odds))
    kappa = np.exp(log_kappa)
    m, k = np.meshgrid(mu, kappa, indexing="ij")
    log_weight = of_mu.logpdf(m) + np.log(m - low) + np.log1p(-(m - low) / (high - low))
    log_weight = log_weight + of_kappa.logpdf(k) + np.log(k)
    a, b = m * k, np.maximum((1 - m) * k, 1e-300)
    for y, n in zip(successes, trials, strict=True):
        log_weight = log_weight + stats.betabinom.logpmf(y, n, a, b)
    weight = np.exp(log_weight - log_weight.max())
    evidence = log_weight.max() + np.log(weight.sum() * (odds[1] - odds[0]) * (log_kappa[1] - log_kappa[0]))
    weight /= weight.sum()
    for place, values in enumerate((m, k)):
        mean = (weight * values).sum()
        sd = np.sqrt((weight * (values - mean) ** 2).sum())
        assert abs(found.hyper_mean[place] - mean) < 1e-3 * sd
        assert abs(found.hyper_sd[place] - sd) < 1e-3 * sd
    assert found.log_evidence == pytest.approx(evidence, abs=1e-3)
    kept = weight > 1e-9 * weight.max()
    w, a, b, k = weight[kept] / weight[kept].sum(), a[kept], b[kept], k[kept]
    for i in (0, len(trials) - 1):
        law = stats.beta(a + successes[i], b + trials[i] - successes[i])
        mean = w @ law.mean()
        sd = np.sqrt(w @ (law.var() + (law.mean() - mean) ** 2))
        assert abs(found.mean[2 + i] - mean) < 1e-3 * sd
        assert abs(found.sd[2 + i] - sd) < 1e-3 * sd
        at = mean + sd * np.array([-0.8, 0.0, 1.5])
        at = at[at > 0]
        parameter = f"theta[e{i}]"
        assert found.cdf(parameter, at) == pytest.approx([w @ law.cdf(x) for x in at], abs=1e-3)
        assert found.density(parameter, at) == pytest.approx([w @ law.pdf(x) for x in at], rel=5e-3)
        assert found.own_weight[i] == pytest.approx(w @ (trials[i] / (k + trials[i])), abs=1e-4)
    p = [0.1, 0.5, 0.9]
    for row, parameter in enumerate(found.names):
        assert found.cdf(parameter, found.quantiles(p)[row]) == pytest.approx(p, abs=1e-5)


def test_draws_have_the_posterior_s_moments():
    found = solve(model(*CASES["uneven"]))
    draws = found.draws(8000, seed=1)
    flat = np.column_stack([draws["mu"], draws["kappa"], draws["theta"]])
    assert np.abs((flat.mean(0) - found.mean) / found.sd * np.sqrt(8000)).max() < 4.5


def test_failures_mirror_successes():
    successes, trials, mu, kappa = CASES["uneven"]
    first, second = (
        solve(model(successes, trials, mu, kappa)),
        solve(model(trials - successes, trials, mu, kappa)),
    )
    assert second.hyper_mean == pytest.approx([1 - first.hyper_mean[0], first.hyper_mean[1]], rel=1e-5)
    assert second.mean[2:] == pytest.approx(1 - first.mean[2:], rel=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="at most its 3 trials"):
        BetaBinomial([4], [3], ("a",))
    with pytest.raises(InputError, match="whole numbers from 1"):
        BetaBinomial([0], [0], ("a",))
    with pytest.raises(InputError, match="because mu is a share"):
        solve(model([1, 2], [3, 3], "HalfNormal(1)", "HalfNormal(1)"))
    with pytest.raises(ImproperPosteriorError, match="infinite mass at large kappa"):
        solve(model([1, 2], [3, 3], "Uniform(0, 1)", "Flat()"))
