"""Tables from draws against ArviZ's own summary, closed forms, and draws whose errors are known."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import signal, stats

from hbm_core.analysis.draws import agreement, concerns, diagnostics, doubts, grade, graded, summary, verdict

UNITS = ["A", "B", "C"]


def tree_of(statistics=None, attrs=None, **variables):
    """A fit with the given draws (chain, draw[, unit])."""
    data = {
        name: (("chain", "draw", "unit")[: np.ndim(values)], np.asarray(values, dtype=float))
        for name, values in variables.items()
    }
    groups = {"posterior": xr.Dataset(data, coords={"unit": UNITS})}
    if statistics:
        groups["sample_stats"] = xr.Dataset({k: (("chain", "draw"), v) for k, v in statistics.items()})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(attrs or {})
    return tree


@pytest.fixture
def draws():
    """Autocorrelated μ and three units' θ, four chains of 1,000."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(4, 1000))
    mu = signal.lfilter([1], [1, -0.7], noise, axis=1)
    return {"mu": mu, "theta": mu[..., None] + rng.normal(size=(4, 1000, 3)) * [1, 2, 3]}


def test_every_column_is_arvizs_own(draws):
    import arviz as az

    tree = tree_of(**draws)
    got = summary(tree)
    expected = az.summary(tree, ci_kind="hdi", ci_prob=0.95, round_to="none")
    assert list(got.index) == ["mu", "theta[A]", "theta[B]", "theta[C]"] == list(expected.index)
    for ours, theirs in (
        *((name, name) for name in ("mean", "ess_bulk", "r_hat", "mcse_mean", "mcse_sd")),
        ("hdi95_low", "hdi95_lb"),
        ("hdi95_high", "hdi95_ub"),
    ):
        assert got[ours].to_numpy() == pytest.approx(expected[theirs].to_numpy(dtype=float), rel=1e-9), ours
    # ArviZ's summary takes the tails at the interval's ends; Vehtari et al. (2021) at 5 and 95 %.
    tail = az.ess(tree, method="tail", prob=(0.05, 0.95))
    assert got["ess_tail"].to_numpy() == pytest.approx([float(tail["mu"]), *tail["theta"].values])
    assert got["sd"].to_numpy() == pytest.approx(expected["sd"].to_numpy(dtype=float), rel=1e-3)
    flat = np.column_stack([draws["mu"].ravel(), draws["theta"].reshape(-1, 3)])
    assert got["sd"].to_numpy() == pytest.approx(flat.std(0, ddof=1))
    assert got["q0.25"].to_numpy() == pytest.approx(np.quantile(flat, 0.25, axis=0))


def test_asked_for_probabilities_variables_and_units(draws):
    tree = tree_of(**draws)
    assert "q0.1" in summary(tree, probabilities=(0.1,)) and "q0.5" not in summary(tree, probabilities=(0.1,))
    assert list(summary(tree, variables=["theta"]).index) == ["theta[A]", "theta[B]", "theta[C]"]
    assert list(summary(tree, units="none").index) == ["mu"]
    assert list(summary(tree, units=2).index) == ["mu"]
    assert len(summary(tree, units=3)) == len(summary(tree, units="all")) == 4


def test_a_parameter_that_never_moves(draws):
    table = summary(tree_of(mu=draws["mu"], fixed=np.full((4, 1000), 0.1)))
    row = table.loc["fixed"]
    assert (row[["mean", "q0.025", "q0.5", "hdi95_low", "hdi95_high"]] == 0.1).all()
    assert (row[["sd", "mcse_mean", "mcse_sd", "mcse_median"]] == 0).all()
    assert row["r_hat"] == 1 and row["ess_bulk"] == row["ess_tail"] == 4000
    assert np.isfinite(table.to_numpy()).all()
    alone = summary(tree_of(fixed=np.full((4, 1000), 0.1)))
    assert alone.loc["fixed"].equals(row)


def test_chains_stuck_at_different_values_are_not_called_converged():
    stuck = np.repeat([[1.0], [2.0], [3.0], [4.0]], 100, axis=1)
    assert summary(tree_of(mu=stuck)).loc["mu", "r_hat"] == np.inf


def test_diagnostics(draws):
    rng = np.random.default_rng(0)
    energy = rng.normal(size=(4, 1000))
    diverging = np.zeros((4, 1000), bool)
    diverging[2, :7] = True
    statistics = {
        "diverging": diverging,
        "energy": energy,
        "tree_depth": np.full((4, 1000), 3),
        "reached_max_treedepth": np.zeros((4, 1000), bool),
    }
    tree = tree_of(statistics, {"partial": 1}, **draws)
    found = diagnostics(tree)
    assert (found["divergences"], found["chains"], found["draws"], found["partial"]) == (7, 4, 1000, True)
    # E-BFMI: Σ(E_n − E_{n−1})² / Σ(E_n − Ē)², Betancourt (2016), equation 6.
    by_hand = np.sum(np.diff(energy, axis=1) ** 2, axis=1) / np.sum(
        (energy - energy.mean(axis=1, keepdims=True)) ** 2, axis=1
    )
    assert found["e_bfmi"] == pytest.approx(list(by_hand), rel=2e-3)
    table = summary(tree)
    assert found["ess_bulk_min"] == table["ess_bulk"].min() and found["r_hat_max"] == table["r_hat"].max()
    assert "divergences" not in diagnostics(tree_of(**draws))


def exact_of(draws, **changes):
    """The true moments of `draws`: μ is AR(1), θ adds noise of sd 1, 2, 3."""
    variance = 1 / (1 - 0.7**2) + np.array([0, 1, 4, 9])
    exact = pd.DataFrame({"mean": 0.0, "sd": np.sqrt(variance), "q0.5": 0.0})
    exact.index = pd.Index(["mu", "theta[A]", "theta[B]", "theta[C]"])
    for column, value in changes.items():
        exact.loc["mu", column] = value
    return exact


def test_agreement_counts_monte_carlo_errors(draws):
    table = summary(tree_of(**draws))
    result = agreement(table, exact_of(draws))
    assert result["agrees"].all() and (result["limit"] == 4).all()
    assert result.loc["mu", "z_mean"] == pytest.approx(table.loc["mu", "mean"] / table.loc["mu", "mcse_mean"])
    assert "agree with the exact posterior: 4 parameters within 4" in verdict(result)
    off = agreement(table, exact_of(draws, mean=table.loc["mu", "mean"] + 6 * table.loc["mu", "mcse_mean"]))
    assert list(off.index[~off["agrees"]]) == ["mu"]
    assert "1 of 4 parameters" in verdict(off) and "largest 6.0, mu" in verdict(off)
    narrow = agreement(table, exact_of(draws, sd=0.7))
    assert not narrow.loc["mu", "agrees"] and abs(narrow.loc["mu", "z_sd"]) > 4


def test_infinite_moments_are_judged_by_the_median_alone():
    rng = np.random.default_rng(2)
    table = summary(tree_of(mu=stats.halfcauchy.rvs(size=(4, 1000), random_state=rng)))
    exact = pd.DataFrame({"mean": [np.inf], "sd": [np.inf], "q0.5": [1.0]}, index=["mu"])
    result = agreement(table, exact)
    assert result[["z_mean", "z_sd"]].isna().all(axis=None)
    assert abs(result.loc["mu", "z_median"]) < 4 and result.loc["mu", "agrees"]
    assert not agreement(table, exact.assign(**{"q0.5": 1.3})).loc["mu", "agrees"]


def test_the_limit_is_wider_where_many_are_compared_and_constants_must_match():
    names = [f"x{i}" for i in range(101)]
    sampled = pd.DataFrame({"mean": 0.0, "sd": 1.0, "mcse_mean": 0.01, "mcse_sd": 0.01}, index=names)
    exact = pd.DataFrame({"mean": 0.045, "sd": 1.0}, index=names)
    assert (agreement(sampled, exact)["limit"] == 5).all() and agreement(sampled, exact)["agrees"].all()
    assert not agreement(sampled[:100], exact)["agrees"].any()
    still = sampled[:1].assign(sd=0.0, mcse_mean=0.0, mcse_sd=0.0)
    assert agreement(still, pd.DataFrame({"mean": [0.0], "sd": [0.0]}, index=["x0"]))["agrees"].all()
    assert not agreement(still, pd.DataFrame({"mean": [0.1], "sd": [0.0]}, index=["x0"]))["agrees"].any()
    assert verdict(agreement(sampled[:0], exact)) == "Nothing to compare with exact values."


def test_the_false_alarm_rate_is_that_of_four_standard_errors():
    # Independent draws: |z| stays below 2 about 95 % of the time, or the errors are wrong.
    rng = np.random.default_rng(11)
    z = []
    for _ in range(40):
        draws = rng.gamma(4, size=(4, 400, 3))
        exact = pd.DataFrame({"mean": 4.0, "sd": 2.0, "q0.5": stats.gamma(4).median()}, index=UNITS)
        exact.index = [f"theta[{unit}]" for unit in UNITS]
        z.append(agreement(summary(tree_of(theta=draws)), exact)[["z_mean", "z_sd", "z_median"]])
    z = pd.concat(z).abs()
    for inside in (z < 2).mean():
        # 120 values at 0.954: three binomial sds are 0.057.
        assert inside > 0.89
    assert (z < 1).mean().between(0.55, 0.81).all()


def test_concerns_name_what_speaks_against_a_fit() -> None:
    sound = {
        "r_hat_max": 1.003,
        "ess_bulk_min": 1700.0,
        "ess_tail_min": 1300.0,
        "divergences": 0,
        "e_bfmi": [0.9, 0.8],
    }
    agrees = {"agrees": True, "worst": 2.2, "limit": 4.0}
    assert concerns(sound, agrees) == ()
    assert concerns({}) == ()
    assert concerns({"r_hat_max": None, "ess_bulk_min": None, "e_bfmi": [None]} | {"e_bfmi": []}) == ()
    for change, word in (
        ({"r_hat_max": 1.046}, "R-hat"),
        ({"ess_bulk_min": 399.0}, "bulk"),
        ({"ess_tail_min": 28.0}, "tail"),
        ({"divergences": 22}, "22 draws diverged"),
        ({"e_bfmi": [0.9, 0.2]}, "E-BFMI"),
    ):
        (said,) = concerns(sound | change, agrees)
        assert word in said
    (said,) = concerns(sound, {"agrees": False, "worst": 7.3})
    assert "7.3" in said


@pytest.mark.parametrize(
    ("name", "value", "total", "expected"),
    [
        ("divergences", 0, 240_000, "pass"),
        ("divergences", 1, 240_000, "warn"),
        ("divergences", 10, 4000, "warn"),
        ("divergences", 11, 240_000, "fail"),  # more than ten, however many draws
        ("divergences", 4, 400, "warn"),  # exactly 1 %
        ("divergences", 5, 400, "fail"),  # above 1 %
        ("divergences", 3, 0, "warn"),  # the share is not known
        ("r_hat", 1.01, 0, "pass"),
        ("r_hat", 1.011, 0, "warn"),
        ("r_hat", 1.05, 0, "warn"),
        ("r_hat", 1.051, 0, "fail"),
        ("r_hat", float("nan"), 0, "fail"),
        ("ess", 400.0, 0, "pass"),
        ("ess", 399.0, 0, "warn"),
        ("ess", 100.0, 0, "warn"),
        ("ess", 99.0, 0, "fail"),
        ("e_bfmi", 0.3, 0, "pass"),
        ("e_bfmi", 0.1, 0, "warn"),
        ("pareto_k", 0.7, 0, "pass"),
        ("pareto_k", 0.8, 0, "warn"),
        ("pareto_k", 1.2, 0, "fail"),
    ],
)
def test_the_rule_that_every_page_follows(name: str, value: float, total: int, expected: str) -> None:
    assert graded(name, value, total) == expected


@pytest.mark.parametrize(
    ("change", "exact", "expected", "text"),
    [
        ({}, True, "pass", ""),
        ({"divergences": 1}, True, "warn", "1 of 240,000 draws diverged"),
        ({"divergences": 11}, True, "fail", "11 of 240,000 draws diverged"),
        ({"divergences": 1, "r_hat_max": 1.2}, True, "fail", "R-hat is 1.200"),
        ({"divergences": 1, "ess_bulk_min": 300.0}, True, "warn", "the bulk effective size is 300"),
        ({"e_bfmi": [0.9, 0.1]}, True, "warn", "E-BFMI"),
        ({}, False, "fail", "Monte Carlo errors from exact"),
    ],
)
def test_the_gravest_doubt_is_the_fits_grade(change, exact, expected, text) -> None:
    sound = {"chains": 4, "draws": 60_000, "r_hat_max": 1.0, "ess_bulk_min": 9e4, "ess_tail_min": 9e4}
    compared = {"agrees": exact, "worst": 1.5 if exact else 9.0}
    said = doubts(sound | change, compared)
    assert grade(sound | change, compared) == expected
    assert text in "; ".join(doubt.text for doubt in said) and bool(said) == (expected != "pass")
