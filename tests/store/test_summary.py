import csv
import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hbm_core.scenarios.tables import csv_text
from hbm_core.store.summary import draws_table, flat, summarize


def tree(draws=2000, units=("A", "=cmd()"), rng=None):
    rng = rng or np.random.default_rng(7)
    posterior = xr.Dataset(
        {
            "mu": (("chain", "draw"), rng.normal(3, 2, size=(4, draws))),
            "theta": (("chain", "draw", "unit"), rng.normal(size=(4, draws, len(units)))),
        },
        {"unit": list(units)},
    )
    statistics = xr.Dataset(
        {
            "diverging": (("chain", "draw"), np.arange(4 * draws).reshape(4, draws) < 3),
            "energy": (("chain", "draw"), rng.normal(size=(4, draws))),
        }
    )
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": statistics})


def test_flat_names_carry_labels_and_their_draws():
    made = tree(10)
    found = dict(flat(made))
    assert list(found) == ["mu", "theta[A]", "theta[=cmd()]"]
    np.testing.assert_array_equal(found["theta[=cmd()]"], made.posterior["theta"].sel(unit="=cmd()"))


def test_matrices_are_named_by_both_labels():
    values = np.arange(8.0).reshape(1, 2, 2, 2)
    made = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(
                {"corr": (("chain", "draw", "a", "b"), values)}, {"a": ["x", "y"], "b": ["u", "v"]}
            )
        }
    )
    assert [name for name, _ in flat(made)] == ["corr[x,u]", "corr[x,v]", "corr[y,u]", "corr[y,v]"]
    assert dict(flat(made))["corr[y,u]"].tolist() == [[2.0, 6.0]]


def test_moments_of_a_known_law():
    made = tree()
    summary = summarize(made)
    row, law = summary["parameters"]["mu"], stats.norm(3, 2)
    assert row["mean"] == pytest.approx(3, abs=5 * row["mcse_mean"])
    assert row["mcse_mean"] == pytest.approx(2 / np.sqrt(8000), rel=0.1)
    assert row["sd"] == pytest.approx(2, rel=0.05)
    for level, value in row["q"].items():
        assert value == pytest.approx(law.ppf(float(level)), abs=0.2)
    np.testing.assert_allclose(row["hdi95"], law.ppf([0.025, 0.975]), atol=0.4)
    assert row["ess_bulk"] == pytest.approx(8000, rel=0.15)
    assert abs(row["r_hat"] - 1) < 0.01
    diagnostics = summary["diagnostics"]
    assert (diagnostics["divergences"], diagnostics["chains"], diagnostics["draws"]) == (3, 4, 2000)
    # Independent energies: E(e' - e)² is twice their variance.
    assert diagnostics["e_bfmi"] == pytest.approx([2] * 4, rel=0.15)
    json.dumps(summary, allow_nan=False)


def test_chains_that_disagree_show():
    made = tree()
    made["posterior"]["mu"].values[0] += 10
    assert summarize(made)["diagnostics"]["r_hat_max"] > 1.2


def test_numbers_that_do_not_exist_are_none():
    made = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"mu": (("chain", "draw"), np.array([[0.0, 1.0]]))})}
    )
    row = summarize(made)["parameters"]["mu"]
    assert (row["mean"], row["r_hat"], row["ess_bulk"]) == (0.5, None, None)
    assert summarize(made)["diagnostics"]["r_hat_max"] is None


def test_many_units_are_left_to_the_draws():
    made = tree(5, units=[f"u{k}" for k in range(1001)])
    assert list(summarize(made)["parameters"]) == ["mu"]


def test_the_table_of_draws_goes_to_csv_and_back():
    made = tree(6)
    text = csv_text(draws_table(made))
    header, *rows = list(csv.reader(text.splitlines()))
    assert header == ["chain", "draw", "mu", "theta[A]", "theta[=cmd()]"]
    assert len(rows) == 24
    assert [float(row[2]) for row in rows] == made.posterior["mu"].values.ravel().tolist()
    assert rows[7][:2] == ["1", "1"]
