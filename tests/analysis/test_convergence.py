import numpy as np
import pytest

from hbm_core.analysis.convergence import (
    advice_table,
    autocorrelation,
    chain_diagnostics,
    divergence_table,
    energy_bfmi,
    energy_table,
    ess_evolution,
    rank_table,
)
from tests.analysis.worlds import schools, tree_of


@pytest.fixture(scope="module")
def sound():
    return tree_of(schools())


@pytest.fixture(scope="module")
def sick():
    tree = tree_of(schools())
    rng = np.random.default_rng(0)
    shape = (4, 1000)
    # AR(1) chains around different levels
    noise, walk = rng.standard_normal(shape), np.zeros(shape)
    for t in range(1, 1000):
        walk[:, t] = 0.9 * walk[:, t - 1] + noise[:, t]
    tree["posterior"]["mu"][:] = walk + np.array([[0.0], [0], [0], [30]])
    tree["posterior"]["tau"][:] = np.exp(walk / 4)
    tree["sample_stats"]["energy"][:] = np.cumsum(noise, axis=1)
    tree["sample_stats"]["diverging"][1, 5] = True
    return tree


def test_independent_draws_are_worth_themselves(sound):
    table = chain_diagnostics(sound)
    assert table.index[:3].tolist() == ["mu", "tau", "theta[A]"]
    assert ((table["ess_bulk"] > 3000) & (table["ess_bulk"] < 5500)).all()
    assert (table["r_hat"] < 1.01).all()
    assert advice_table(sound)["ok"].all()


def test_ess_of_an_autoregression(sick):
    # AR(1) with φ = 0.9: ESS = N (1 − φ)/(1 + φ)
    found = ess_evolution(sick, ["tau"])
    last = found[(found["draws"] == 1000) & (found["kind"] == "bulk")]["ess"].item()
    assert last == pytest.approx(4000 * 0.1 / 1.9, rel=0.35)
    curve = autocorrelation(sick, ["tau"], lags=3).groupby("lag")["autocorrelation"].mean()
    assert curve[0] == pytest.approx(1)
    assert curve[1] == pytest.approx(0.88, abs=0.05)


def test_advice_names_the_culprit(sick):
    table = advice_table(sick).set_index("diagnostic")
    assert table.loc["r_hat", "parameter"] == "mu"
    for name in ("r_hat", "ess_bulk", "divergences", "bfmi"):
        assert not table.loc[name, "ok"]
        assert table.loc[name, "advice"]


def test_ranks(sound, sick):
    table = rank_table(sound, ["mu"])
    assert (table.groupby("chain")["count"].sum() == 1000).all()
    inside = ((table["count"] >= table["low"]) & (table["count"] <= table["high"])).mean()
    assert inside > 0.9
    moved = rank_table(sick, ["mu"])
    top = moved[(moved["chain"] == 3) & (moved["bin"] >= 15)]["count"].sum()
    assert top == 1000


def test_energy(sound, sick):
    energy = sound["sample_stats"]["energy"].to_numpy()
    expected = (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)
    np.testing.assert_allclose(energy_bfmi(sound), expected, rtol=0.01)
    assert energy_bfmi(sick).max() < 0.3
    table = energy_table(sound)
    assert table["transition"].isna().sum() == 4
    np.testing.assert_allclose(table["transition"][1], energy[0, 1] - energy[0, 0])
    del sick["sample_stats"]["energy"]
    assert energy_table(sick).empty
    assert energy_bfmi(sick).size == 0


def test_divergences_are_located(sick):
    assert divergence_table(sick, ["mu"])[["chain", "draw"]].to_numpy().tolist() == [[1, 5]]
