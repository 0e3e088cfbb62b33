"""The lab's table against numbers made by hand, and densities against closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.stats import norm

from hbm_core.analysis.lab import COLUMNS, Run, differences, lab_table
from hbm_core.analysis.marginals import funnel_background, marginals, standardised, value_range
from hbm_core.inference.exact import solve
from hbm_core.store.study import Study

NAMES = ["mu", "tau", "theta[A]"]


def summary(mean, ess, names=NAMES, mcse=0.1):
    """A summary with sd 2 everywhere, and medians that equal the means."""
    table = pd.DataFrame({"mean": mean, "sd": 2.0, "q0.5": mean, "ess_bulk": ess, "r_hat": 1.0}, index=names)
    for kind in ("mean", "sd", "median"):
        table[f"mcse_{kind}"] = mcse
    return table.rename_axis("parameter")


@pytest.fixture
def exact():
    return summary([1.0, 2.0, 3.0], np.nan)[["mean", "sd", "q0.5"]]


def test_speed_is_the_slowest_parameter_over_sampling_time(exact):
    run = Run("centered", summary([1.0, 2.0, 3.0], [900.0, 50.0, 400.0]), 0.25, 4000, 7)
    row = lab_table([run], exact).iloc[0]
    assert (row["min_ess"], row["slowest"]) == (50.0, "tau")
    assert row["ess_per_second"] == pytest.approx(200.0)
    assert (row["divergences"], row["draws"]) == (7, 4000)


def test_all_geometries_are_measured_over_the_same_quantities(exact):
    less = summary([1.0, 2.0], [10.0, 500.0], ["mu", "tau"])
    more = summary([1.0, 2.0, 3.0], [700.0, 600.0, 5.0])
    table = lab_table([Run("collapsed", less, 1.0, 10, 0), Run("centered", more, 1.0, 10, 0)], exact)
    assert table["min_ess"].tolist() == [10.0, 600.0], "theta[A] is not in both and must not decide"


@pytest.mark.parametrize(("shift", "agrees"), [(0.39, True), (-0.39, True), (0.41, False), (-0.41, False)])
def test_four_monte_carlo_errors_part_agreement_from_not(exact, shift, agrees):
    run = Run("centered", summary([1.0, 2.0 + shift, 3.0], 500.0), 1.0, 4000, 0)
    row = lab_table([run], exact).iloc[0]
    assert bool(row["agrees"]) is agrees
    assert (row["largest"], row["farthest"]) == (pytest.approx(abs(shift) / 0.1), "tau")
    z = differences([run], exact).set_index("parameter")["z"]
    assert z["tau"] == pytest.approx(shift / 0.1) and z["mu"] == pytest.approx(0)


def test_more_than_a_hundred_quantities_are_held_to_five():
    names = [f"theta[{k}]" for k in range(101)]
    truth = np.linspace(-1, 1, 101)
    mean = truth.copy()
    mean[50] += 0.45
    exact = summary(truth, np.nan, names)[["mean", "sd", "q0.5"]]
    row = lab_table([Run("centered", summary(mean, 500.0, names), 1.0, 4000, 0)], exact).iloc[0]
    assert row["limit"] == 5 and row["agrees"]


def test_without_runs_or_without_exact():
    assert list(lab_table([]).columns) == list(COLUMNS)
    row = lab_table([Run("centered", summary([1.0, 2.0, 3.0], 500.0), 0.0, 10, 0)]).iloc[0]
    assert row["agrees"] is None and np.isnan(row["largest"]) and np.isnan(row["ess_per_second"])


# --------------------------------------------------------------------------------------- densities


@pytest.fixture(scope="module")
def eight_schools():
    study = Study.default()
    return solve(study.spec(study.data()))


def draws(count=4000, seed=3):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"chain": np.repeat([0, 1], count // 2), "draw": np.tile(np.arange(count // 2), 2)})
    table["mu"] = rng.normal(7, 4, count)
    table["tau"] = np.abs(rng.normal(0, 5, count))
    table["divergent"] = False
    return table


def test_chain_densities_are_densities_of_their_draws():
    table = draws()
    found = marginals(table, ["mu"])
    for _, part in found.groupby("chain"):
        area = np.trapezoid(part["density"], part["value"])
        assert area == pytest.approx(1, abs=0.01)
        # the sd of a kernel estimate of 2,000 normal draws is near 0.004 here
        assert np.abs(part["density"] - norm.pdf(part["value"], 7, 4)).max() < 0.02


def test_the_exact_outline_is_the_posterior_density_on_a_fixed_axis(eight_schools):
    early, late = draws(40), draws(4000)
    for name in ("mu", "tau"):
        ends = value_range(late, name, eight_schools)
        assert value_range(early, name, eight_schools) == pytest.approx(ends, rel=1e-4), (
            "the axis must not jump"
        )
        outline = marginals(late, [name], eight_schools).query("chain == 'exact'")
        assert outline["value"].iloc[[0, -1]].to_numpy() == pytest.approx(ends)
        inside = eight_schools.cdf(name, np.array(ends))
        assert np.trapezoid(outline["density"], outline["value"]) == pytest.approx(
            inside[1] - inside[0], abs=2e-3
        )


def test_the_axis_of_a_scale_starts_at_zero(eight_schools):
    assert value_range(draws(), "tau", eight_schools)[0] == 0
    assert value_range(draws(), "tau")[0] == 0


def test_the_background_of_the_funnel_holds_the_shares_it_says(eight_schools):
    ground = funnel_background(eight_schools, "A")
    drawn = eight_schools.draws(40_000, seed=99)
    field = RegularGridInterpolator(
        (ground["log_tau"], ground["x"]), ground["outside"], bounds_error=False, fill_value=0.0
    )
    outside = field(np.column_stack([np.log(drawn["tau"]), drawn["theta"][:, 0]]))
    for share in (0.5, 0.8, 0.95):
        assert (outside > 1 - share).mean() == pytest.approx(share, abs=0.02)


def test_no_background_without_a_funnel():
    study = Study.default().change(model="complete")
    assert funnel_background(solve(study.spec(study.data())), "A") is None


def test_standardised_draws_use_the_exact_moments_where_they_are_finite(eight_schools):
    place = eight_schools.index("mu")
    found = standardised(draws(), ["mu"], eight_schools)
    back = found["mu"] * eight_schools.sd[place] + eight_schools.mean[place]
    np.testing.assert_allclose(back, draws()["mu"])
