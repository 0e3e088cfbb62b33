"""What the pictures of coverage say: traces, axes, units and values, read from the figures."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hbm_core.analysis.coverage import (
    CLASSICAL,
    Truth,
    coverage_study,
    ecdf_band,
    rank_histogram,
)
from hbm_core.models.prior import Prior
from hbm_core.plots import coverage as plots
from tests.analysis.worlds import SE, WEAK

NAMES = (*CLASSICAL, "weak")


@pytest.fixture(scope="module")
def table():
    truth = Truth(tuple(SE), mu=0.0, tau=10.0)
    return coverage_study(truth, {"weak": WEAK}, replications=40)


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_width_and_coverage_are_the_tables_in_percent(table):
    rows = table[table["grouping"] == "all"]
    figure = plots.against_width(rows, plots.looks(NAMES, "light"), "SAT points", "light")
    assert figure.layout.xaxis.title.text == "Mean width of the intervals, SAT points"
    assert figure.layout.yaxis.title.text == "Covered, %"
    for name in NAMES:
        part = rows[rows["estimator"] == name].sort_values("level")
        trace = traces(figure)[name]
        np.testing.assert_allclose(trace.x, part["width"])
        np.testing.assert_allclose(trace.y, 100 * part["coverage"])
        np.testing.assert_allclose(trace.error_y.array, 196 * part["coverage_se"], rtol=1e-4)


def test_the_study_wears_the_accent_and_raw_is_hollow():
    looked = plots.looks((*NAMES, "skeptical"), "light")
    assert looked["weak"].colour == "#3d36c4"
    assert looked["none"].hollow
    assert looked["complete"].dash == "dash"
    assert len({look.colour for look in looked.values()}) == 5
    assert not {look.colour for look in looked.values()} & {"#c0163c", "#5c7800"}  # warning, truth
    assert not any(look.symbol == "diamond" for look in looked.values())


def test_the_axis_of_tau_holds_all_of_them():
    np.testing.assert_allclose(plots.on_axis(np.array([0.0, 11.0, np.inf]), 11.0), [0, 0.5, 1])
    places, words = plots.tau_ticks(0.4)
    assert (words[0], words[-1]) == ("0", "∞")
    for place, word in zip(places[1:-1], words[1:-1], strict=True):
        assert 0.4 * place / (1 - place) == pytest.approx(float(word))


@pytest.mark.parametrize("text", ["HalfCauchy(10)", "HalfNormal(5)", "Exponential(0.2)"])
def test_areas_under_the_prior_are_probabilities(text):
    prior = Prior.parse(text)
    density = plots.prior_on_axis({"a": prior, "flat": Prior.parse("Flat()")}, 11.0, points=4000)
    assert set(density["estimator"]) == {"a"}
    below = density[density["u"] <= 0.5]
    assert np.trapezoid(below["density"], below["u"]) == pytest.approx(prior.distribution.cdf(11.0), abs=2e-3)


def test_over_tau_the_lines_stand_where_tau_is():
    curve = pd.DataFrame(
        {
            "estimator": "weak",
            "tau": [0.0, 11.0, np.nan],
            "level": 0.95,
            "coverage": [0.99, 0.93, 0.95],
            "coverage_se": 0.01,
        }
    )
    density = plots.prior_on_axis({"weak": WEAK["tau"]}, 11.0)
    figure = plots.by_tau(curve, density, plots.looks(["weak"], "dark"), 11.0, "points", "dark")
    trace = traces(figure)["weak"]
    np.testing.assert_allclose(trace.x, [0, 0.5])
    np.testing.assert_allclose(trace.y, [99, 93])
    assert figure.layout.xaxis2.title.text == "True τ, spread between units, points"


def test_bars_by_size_in_order_with_squared_units(table):
    rows = table[(table["grouping"] == "precision") & (table["level"] == 0.95)]
    words = {"most precise third": "precise", "least precise third": "noisy"}
    figure = plots.by_size(rows, plots.looks(NAMES, "light"), "points", words, "light")
    assert tuple(figure.data[0].x) == ("precise", "noisy")
    none = rows[rows["estimator"] == "none"].set_index("bin")
    np.testing.assert_allclose(figure.data[0].y, none.loc[list(words), "mse"])
    assert any("points²" in note.text for note in figure.layout.annotations)


def test_winners_beside_all(table):
    rows = table[table["bin"].isin(["all", "largest raw effect"]) & (table["level"] == 0.95)]
    figure = plots.winners(rows, plots.looks(NAMES, "light"), "largest raw effect", "points", "light")
    found = traces(figure)  # the later trace of a name is the panel of bias
    row = rows[(rows["estimator"] == "none") & (rows["bin"] == "largest raw effect")].iloc[0]
    assert found["none winners"].x[0] == pytest.approx(row["bias"])
    assert figure.layout.xaxis2.title.text == "Mean of estimate − truth, points"


def test_a_biased_rank_leaves_the_band_in_the_warning_colour():
    rng = np.random.default_rng(1)
    pit = pd.DataFrame({"good": rng.random(400), "bad": stats.beta(2, 1).rvs(400, random_state=rng)})
    figure = plots.calibration(
        rank_histogram(pit, 10), ecdf_band(pit), "bad", {"bad": "B", "good": "G"}, "light"
    )
    found = traces(figure)
    assert found["bad"].line.color == "#c0163c"
    assert found["bad"].line.dash == "dash"
    assert found["good"].line.color != "#c0163c"
    assert sum(found["ranks"].y) == 400
    assert len(found["outside"].x) >= 2


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.345, 0.0, "12.3"),
        (48.9991, 1e-14, "49.0"),
        (12.345, 0.04, "12.35 ± 0.04"),
        (12.345, 0.96, "12 ± 1"),
        (120.0, 7.2, "120 ± 7"),
        (float("inf"), float("nan"), "∞"),
        (float("nan"), float("nan"), "–"),
    ],
)
def test_a_number_has_the_digits_of_its_error(value, error, text):
    assert plots.with_error(value, error) == text
