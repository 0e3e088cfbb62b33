"""The scenario `counts`: data, good and bad; simulator, estimators, first look."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from hbm_core.scenarios import scenario
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.counts.validation import WORLDS, score_dataset, size_bins
from hbm_core.store.study import Study

COUNTS = scenario("counts")
GOOD = {"entity": ["a", "a", "b", "b"], "window": [1, 2, 1, 2], "count": [3, 0, 5, 2]}


def read(**columns) -> pd.DataFrame:
    table = {**GOOD, **{name: values for name, values in columns.items() if values is not None}}
    kept = {name: values for name, values in table.items() if columns.get(name, ...) is not None}
    return COUNTS.read(pd.DataFrame(kept)).table


def problems(**columns) -> list[tuple[int | None, str | None, str]]:
    with pytest.raises(DataProblems) as caught:
        read(**columns)
    return [(one.row, one.column, one.message) for one in caught.value.problems]


BAD = {
    "negative": (dict(count=[3, -1, 5, 2]), (2, "count"), "at least 0"),
    "fractional": (dict(count=[3, 0.5, 5, 2]), (2, "count"), "whole number"),
    "missing": (dict(count=[3, np.nan, 5, 2]), (2, "count"), "blank"),
    "no number": (dict(count=["3", "many", "5", "2"]), (2, "count"), "not a number"),
    "no column": (dict(count=None), (None, "count"), "missing"),
    "zero exposure": (dict(exposure=[1, 1, 0, 2]), (3, "exposure"), "above 0"),
    "negative exposure": (dict(exposure=[1, -1, 1, 2]), (2, "exposure"), "above 0"),
    "one entity": (dict(entity=["a"] * 4, window=[1, 2, 3, 4]), (None, "entity"), "at least two"),
    "no name": (dict(entity=["a", "", "b", "b"]), (2, "entity"), "empty"),
    "window twice": (dict(window=[1, 1, 1, 2]), (2, "window"), "already in row 1"),
    "huge": (dict(count=[3, 10**13, 5, 2]), (2, "count"), "more than 10^12"),
    "zero bytes": (dict(bytes=[1, 0, 3, 4]), (2, "bytes"), "above 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_counts_have_a_message_with_their_place(name):
    columns, place, words = BAD[name]
    assert any((row, column) == place and words in message for row, column, message in problems(**columns))


@pytest.mark.parametrize(
    "successes, trials, place, words",
    [
        ([4, 2], [3, 5], (1, "successes"), "more than the 3 trials"),
        ([1, 2], [3, 0], (2, "trials"), "at least 1"),
        ([1, -2], [3, 5], (2, "successes"), "at least 0"),
        ([1, 1.5], [3, 5], (2, "successes"), "whole number"),
    ],
)
def test_bad_successes_have_a_message_with_their_place(successes, trials, place, words):
    table = pd.DataFrame({"entity": ["a", "b"], "successes": successes, "trials": trials})
    with pytest.raises(DataProblems) as caught:
        COUNTS.read(table)
    assert any((p.row, p.column) == place and words in p.message for p in caught.value.problems)


def test_windows_come_in_their_order_whatever_the_rows():
    rows = {"entity": ["b", "a", "b", "a"], "window": ["10", "2", "9", "1"], "count": [1, 2, 3, 4]}
    found = COUNTS.read(pd.DataFrame(rows)).table
    assert found["entity"].tolist() == ["b", "b", "a", "a"]
    assert found["count"].tolist() == [3, 1, 4, 2]
    dated = COUNTS.read(
        pd.DataFrame(rows | {"window": ["2024-02-01", "2024-03-01", "2024-01-01", "2023-12-31"]})
    )
    assert dated.table["count"].tolist() == [3, 1, 4, 2]


def test_all_zeros_have_an_answer():
    dataset = COUNTS.read(pd.DataFrame(GOOD | {"count": [0, 0, 0, 0]}))
    posterior = solve(COUNTS.model("base").spec(dataset))
    assert (posterior.mean[posterior.theta] > 0).all() and np.isfinite(posterior.mean).all()
    rows = COUNTS.estimate(dataset)
    assert (rows["high95"] > 0).all() and (rows["low95"] >= 0).all()
    assert np.isfinite(COUNTS.first_look(dataset)["value"]).all()


def test_each_kind_of_data_has_its_models():
    pumps, batting = COUNTS.dataset("pumps"), COUNTS.dataset("batting")
    assert (pumps.table["count"].sum(), round(pumps.table["exposure"].sum(), 1)) == (75, 350.0)
    # The published mean of the 18 first averages is 0.265.
    assert round(float((batting.table["successes"] / batting.table["trials"]).mean()), 3) == 0.265
    with pytest.raises(InputError, match="Choose the model binomial"):
        COUNTS.model("base").spec(batting)
    with pytest.raises(InputError, match="successes and trials"):
        COUNTS.model("binomial").spec(pumps)
    study = Study("counts", "batting", "base")
    assert study.suited(batting).model == "binomial"
    assert Study("counts", "pumps", "poisson").suited(pumps).model == "poisson"


def test_raw_intervals_are_exact():
    pumps = COUNTS.model("poisson").spec(COUNTS.dataset("pumps")).structure
    low, high = pumps.raw_ends((0.025, 0.975)).T
    y, e = pumps.count, pumps.exposure
    assert low * e == pytest.approx(stats.chi2.ppf(0.025, 2 * y) / 2)
    assert high * e == pytest.approx(stats.chi2.ppf(0.975, 2 * y + 2) / 2)
    batting = COUNTS.model("binomial").spec(COUNTS.dataset("batting")).structure
    ends = batting.raw_ends((0.025, 0.975))
    for row, y in zip(ends, batting.successes, strict=True):
        exact = stats.binomtest(int(y), 45).proportion_ci(0.95, "exact")
        assert row == pytest.approx([exact.low, exact.high])


def test_moments_find_the_truth_of_much_data():
    data = COUNTS.simulate(
        3, entities=4000, windows_low=15, windows_high=30, mu=6, alpha=2, phi=2, exposure_sd=0.5
    )
    moments = COUNTS.model("base").spec(data).structure.rate_moments
    assert moments.mean == pytest.approx(6, rel=0.05)
    assert moments.between == pytest.approx(3, rel=0.12)
    assert moments.dispersion == pytest.approx(0.5, rel=0.1)
    shares = COUNTS.simulate(3, kind="successes of trials", entities=4000, share=0.3, kappa=50)
    found = COUNTS.model("binomial").spec(shares).structure.rate_moments
    assert found.mean == pytest.approx(0.3, rel=0.02)
    assert found.between == pytest.approx(0.3 * 0.7 / 51, rel=0.1)


@pytest.mark.parametrize(
    "knobs, name",
    [({"zero_inflation": 0.4}, "psi"), ({"beta": 0.5}, "beta[x]"), ({"drift_sd": 0.5}, "rho")],
)
def test_the_simulator_s_extras_show(knobs, name):
    plain, extra = COUNTS.simulate(5, entities=400), COUNTS.simulate(5, entities=400, **knobs)
    assert name in extra.truth and name not in plain.truth
    # The same rates, whatever else is switched on.
    assert extra.truth["theta[h001]"] == plain.truth["theta[h001]"]
    if name == "psi":
        zeros = [float((data.table["count"] == 0).mean()) for data in (plain, extra)]
        assert zeros[1] == pytest.approx(0.4 + 0.6 * zeros[0], abs=0.03)


def test_default_priors_follow_the_scale_of_the_data():
    table = pd.DataFrame({"entity": list("aabb"), "count": [3000, 2500, 4000, 4100]})
    dataset = COUNTS.read(table)
    plain, scaled = (COUNTS.model("base").priors(one) for one in (COUNTS.dataset("hosts"), dataset))
    assert plain["mu"].text == "Exponential(0.1)"
    assert scaled["mu"].distribution.mean() == pytest.approx(10 * 700, rel=0.1)
    assert scaled["alpha"].numbers[0] == pytest.approx(2 / 700, rel=0.1)
    assert scaled["phi"] == plain["phi"]
    assert "times 700" in COUNTS.scale_note(dataset)


@pytest.mark.parametrize("model", ["base", "poisson", "binomial"])
def test_partial_pooling_beats_the_others_on_simulated_rates(model):
    table = COUNTS.recovery(4, 11, model)
    level = table[(table["grouping"] == "all") & (table["level"] == 0.95)].set_index("estimator")
    best = level.loc["partial_pooling", "mse"]
    assert best < 0.85 * level.loc["no_pooling", "mse"]
    assert best < 0.85 * level.loc["complete_pooling", "mse"]
    assert 0.9 < level.loc["partial_pooling", "coverage"] <= 1
    sizes = set(table.loc[table["grouping"] == "size", "bin"])
    assert sizes == set(size_bins(COUNTS.model(model).spec(COUNTS.simulate(11, **WORLDS[model])).structure))
    with pytest.raises(InputError, match="model for coverage: expected base or poisson or binomial"):
        COUNTS.recovery(2, 1, "drift")


def test_only_worlds_in_which_a_model_is_true_are_calibrated():
    """Over-dispersed windows under Poisson counts: intervals far too narrow; the lab would show it."""
    simulated = [COUNTS.simulate(seed, phi=0.5) for seed in range(3)]
    parts = [score_dataset(one, solve(COUNTS.model("poisson").spec(one))) for one in simulated]
    rows = pd.concat(parts)
    level = rows[(rows["grouping"] == "all") & (rows["level"] == 0.95)]
    assert level.loc[level["estimator"] == "partial_pooling", "coverage"].mean() < 0.7


def test_another_model_takes_its_own_geometry_unless_one_was_chosen():
    study = Study.default("counts")
    assert study.parameterization == "centered"
    assert study.change(model="drift", dataset="drifting").parameterization == "noncentered"
    assert study.change(model="poisson").parameterization == "collapsed"
    chosen = study.change(parameterization="scaled")
    assert chosen.change(model="poisson").parameterization == "scaled"
    assert chosen.change(model="joint", dataset="traffic").parameterization == "centered"
