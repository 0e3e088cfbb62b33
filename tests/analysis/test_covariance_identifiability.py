"""Contraction and directions where both are known."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hbm_core.analysis.covariance_identifiability import contraction_table, directions, directions_table
from hbm_core.inference.exact import solve
from tests.analysis.worlds import pooled, schools


def test_contraction_of_a_normal_mean():
    """One normal mean with known errors: the posterior variance is 1/(1/s₀² + Σ 1/s²)."""
    spec = pooled("complete", mu="Normal(0, 20)")
    precision = float((1 / spec.structure.se**2).sum())
    expected = 1 - 1 / (1 + 400 * precision)
    exact = contraction_table(spec, ["mu"], solve(spec)).iloc[0]
    assert (exact["contraction"], exact["error"]) == (pytest.approx(expected), 0)
    wide = 1 / np.sqrt(1 / 400 + precision)
    draws = wide * np.random.default_rng(5).normal(size=(4, 1500))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": (("chain", "draw"), draws)})})
    sampled = contraction_table(spec, ["mu"], tree).iloc[0]
    assert 0 < sampled["error"] < 0.02
    assert abs(sampled["contraction"] - expected) < 4 * sampled["error"]


def test_heavy_tails_are_compared_by_quartiles():
    spec = schools(tau="HalfCauchy(10)")
    posterior = solve(spec)
    row = contraction_table(spec, ["mu", "tau", "theta[A]"], posterior).set_index("parameter").loc["tau"]
    quartiles = posterior.quantiles((0.25, 0.75))[posterior.index("tau")]
    prior = stats.halfcauchy(scale=10).ppf([0.25, 0.75])
    assert row["by"] == "quartiles"
    assert row["contraction"] == pytest.approx(
        1 - (np.diff(quartiles) / np.diff(prior)).item() ** 2, rel=1e-3
    )


def test_what_has_no_prior_of_its_own_is_left_out():
    spec = schools("Flat()", "HalfNormal(10)")
    table = contraction_table(spec, ["mu", "tau", "theta[A]"], solve(spec))
    assert table["parameter"].tolist() == ["tau"]


def test_directions_are_the_axes_of_a_known_covariance():
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    values = np.array([1.0, 0.5, 0.1, 0.03, 1e-2, 1e-3, 1e-4])
    table = directions((axes * values) @ axes.T, list("abcdefg"))
    assert table["rank"].unique().tolist() == [1, 2, 3, 5, 6, 7]
    assert table[table["side"] == "stiff"]["rank"].unique().tolist() == [5, 6, 7]
    for rank, rows in table.groupby("rank"):
        assert rows["eigenvalue"].iloc[0] == pytest.approx(values[rank - 1])
        assert abs(rows["loading"].to_numpy() @ axes[:, rank - 1]) == pytest.approx(1)
        assert rows["loading"].iloc[rows["loading"].abs().argmax()] > 0


def test_directions_of_draws_are_in_prior_units_and_know_their_error():
    rng = np.random.default_rng(9)
    prior = np.array([2.0, 0.1])
    scaled = rng.normal(size=(8000, 2)) * [0.9, 0.1] @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    table = directions_table(scaled * prior, prior, ["a", "b"])
    sloppy = table[table["rank"] == 1]
    assert abs(sloppy["eigenvalue"].iloc[0] - 0.81) < 4 * sloppy["error"].iloc[0]
    # The variance of n normals has the relative error √(2/n).
    assert sloppy["error"].iloc[0] == pytest.approx(0.81 * np.sqrt(2 / 8000), rel=0.5)
    np.testing.assert_allclose(sloppy["loading"], [0.6, 0.8], atol=0.02)
    assert table["side"].unique().tolist() == ["sloppy", "stiff"]


def test_one_parameter_has_one_direction():
    table = directions_table(np.random.default_rng(1).normal(size=(400, 1)), np.ones(1), ["mu"])
    assert (len(table), table["side"].iloc[0], table["loading"].iloc[0]) == (1, "sloppy", 1.0)
