"""What the pictures of populations of vectors say: marks, axes, words, values."""

import numpy as np
import pandas as pd
import pytest

from hbm_core.analysis import covariance_population as tables
from hbm_core.analysis.covariance_prior import joint_table
from hbm_core.models.prior import Prior
from hbm_core.models.vector_population import InverseWishartLaw, SeparationLaw
from hbm_core.plots import covariance_population as plots
from hbm_core.plots import covariance_shrinkage as other
from hbm_core.plots.covariance import correlation_colour
from hbm_core.plots.theme import log_ticks
from hbm_core.plots.tokens import colours
from tests.analysis.populations import onion, tree_of, vector_of

LAW = SeparationLaw((Prior("LogNormal", (-1.4, 0.5)),) * 3, 2.0)


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


@pytest.fixture(scope="module")
def tree():
    rng = np.random.default_rng(2)
    omega = onion(2.0, 3, 400, rng)
    omega[:, 1, 0] = omega[:, 0, 1] = 0.7 + 0.1 * rng.uniform(-1, 1, 400)
    sigma = np.exp(-1.4 + 0.5 * rng.normal(size=(400, 3)))
    return tree_of(vector_of(), rng.normal(size=(400, 3)), sigma, omega, rng.normal(size=(400, 5, 3)))


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_matrix_has_a_cell_for_each_correlation(tree, mode):
    table = tables.matrix_table(tree, vector_of())
    figure = plots.matrix(table, mode)
    cells = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert len(cells) == 3
    rows = table[table["kind"] == "correlation"]
    assert [cell.fillcolor for cell in cells] == [correlation_colour(r, mode) for r in rows["mean"]]
    framed = [cell.line.color == colours(mode)["ink"] for cell in cells]
    assert framed == (rows["sign"] >= 0.95).tolist()
    assert framed == [True, False, False]
    first = rows.iloc[0]
    lines = [shape for shape in figure.layout.shapes if shape.type == "line" and shape.y0 == shape.y1]
    # a is column 0; the cell's own axis goes from −1 to 1 over 0.88 of its width
    assert (lines[0].x0, lines[0].x1) == pytest.approx((0.44 * first["low90"], 0.44 * first["high90"]))
    assert list(figure.layout.xaxis.ticktext) == ["a", "b", "c"]
    assert f"{table['mean'].iloc[0]:.2f}" in figure.layout.annotations[3].text
    assert "sign known with 100 %" in named(figure, "cells").text[3]


def test_priors_and_posteriors_share_an_axis(tree):
    table = tables.departure_table(tree, vector_of(), LAW)
    rows = table[table["kind"] == "correlation"]
    names = rows["parameter"].tolist()
    density = tables.density_table(tree, vector_of(), LAW, names)
    figure = plots.departures(density, rows, dict(zip(names, "xyz", strict=True)), "correlation", "light")
    assert names[0] == "corr[a,b]" or names[0] == "corr[b,a]"
    words = [note.text for note in figure.layout.annotations]
    assert words[0] == f"<b>x</b>  {100 * rows['kept'].iloc[0]:.0f} % as wide, gap " + (
        f"{rows['distance'].iloc[0]:.2f}"
    )
    assert tuple(figure.layout.xaxis3.range) == (-1.02, 1.02)
    assert figure.layout.xaxis3.title.text == "correlation"
    filled = named(figure, f"posterior {names[0]}")
    assert filled.fill == "tozeroy"
    assert max(np.nanmax(filled.y), np.nanmax(named(figure, f"prior {names[0]}").y)) == pytest.approx(1)


def test_ellipses_lie_under_units_and_arrows(tree):
    draws = tables.read_population(tree, vector_of())
    outlines = tables.ellipse_table(draws, (0, 1))
    points = pd.DataFrame(
        {
            "unit": ["R", "<S>"],
            "independent_x": [0.0, 1.0],
            "independent_y": [0.5, 1.5],
            "pooled_x": [0.2, 0.8],
            "pooled_y": [0.6, 1.2],
        }
    )
    figure = plots.ellipses(outlines, points, ("a, log10", "b, log10"), "R", "light")
    arrows = [(note.ax, note.ay, note.x, note.y) for note in figure.layout.annotations]
    assert arrows == [(0.0, 0.5, 0.2, 0.6), (1.0, 1.5, 0.8, 1.2)]
    middle = outlines[(outlines["draw"] < 0) & (outlines["share"] == 0.9)]
    np.testing.assert_allclose(named(figure, "90 %").x, middle["x"])
    assert named(figure, "pooled").text[1] == "&lt;S&gt;"
    assert named(figure, "pooled").marker.line.width[0] > 0
    assert figure.layout.xaxis.title.text == "a, log10"
    assert figure.layout.xaxis.range[0] < middle["x"].min()


def test_two_priors_share_the_axis_of_sds():
    laws = [("LKJ", LAW), ("IW", InverseWishartLaw(4.0, 0.1, 3))]
    shown = [(name, *joint_table(law, cells=30)) for name, law in laws]
    figure = plots.prior_shapes(shown, "log10", "light")
    assert [note.text for note in figure.layout.annotations] == ["<b>LKJ</b>", "<b>IW</b>"]
    flat, tied = (np.exp(named(figure, f"median {name}").y) for name in ("LKJ", "IW"))
    np.testing.assert_allclose(flat, np.exp(-1.4))
    assert (np.diff(tied) > 0).all()
    assert figure.layout.xaxis2.title.text == "|correlation|"
    assert "0.1" in figure.layout.yaxis.ticktext


def test_shrinkage_is_sorted_and_holds_its_eigenvalues():
    table = pd.DataFrame(
        {
            "unit": ["R"] * 3 + ["S"] * 3,
            "rank": [0, 1, 2] * 2,
            "value": [0.3, 0.1, 0.5, 0.6, 0.4, 0.8],
            "low90": 0.1,
            "high90": 0.9,
            "error": 0.01,
        }
    )
    figure = other.matrix_shrinkage(table, "R", "light")
    assert list(figure.layout.yaxis.ticktext) == ["S", "<b>R</b>"]
    np.testing.assert_allclose(named(figure, "trace / P").x, [0.6, 0.3])
    ticks = named(figure, "eigenvalues")
    assert sorted(zip(ticks.x, ticks.y, strict=True)) == [(0.1, 1), (0.4, 0), (0.5, 1), (0.8, 0)]
    eta = pd.DataFrame(
        {"component": ["a", "b", "c"], "units": [4, 4, 1], "sd_units": 0.1, "sigma": 0.2,
         "shrinkage": [0.2, 0.9, np.nan], "low90": 0.0, "high90": 0.95, "error": 0.01}
    )  # fmt: skip
    figure = other.eta(eta, "dark")
    assert list(figure.layout.yaxis.ticktext) == ["b", "a"]
    assert named(figure, "η-shrinkage").marker.color == colours("dark")["accent"]


def test_directions_show_loadings_and_eigenvalues_on_a_log_axis():
    table = pd.DataFrame(
        {
            "rank": [1, 1, 2, 2],
            "side": ["sloppy", "sloppy", "stiff", "stiff"],
            "eigenvalue": [0.9, 0.9, 1e-4, 1e-4],
            "parameter": ["a", "b", "a", "b"],
            "loading": [0.8, -0.6, 0.6, 0.8],
            "error": [0.01, 0.01, 1e-5, 1e-5],
        }
    )
    words = {"a": "α a", "b": "α b"}
    figure = other.loadings(table, words, "sloppy", "light")
    assert figure.layout.annotations[0].text == "<b>0.90</b> ± 0.01"
    ends = [x for trace in figure.data for x in trace.x if x]
    assert ends == [0.8, -0.6]
    assert list(figure.layout.yaxis.ticktext) == ["α a", "α b"]
    assert other.loadings(table, words, "stiff", "light").layout.annotations[0].text.startswith("<b>0.0001")
    axis = other.eigenvalues(table, "light").layout.xaxis
    assert axis.type == "log"
    assert axis.range[0] < -4 < 0 < axis.range[1]


def test_contraction_marks_what_is_compared_by_quartiles():
    table = pd.DataFrame(
        {"parameter": ["tau", "mu"], "prior_sd": [5.0, 20.0], "posterior_sd": [4.0, 3.0],
         "contraction": [0.36, 0.98], "error": 0.0, "by": ["quartiles", "variance"]}
    )  # fmt: skip
    figure = other.contraction(table, {"mu": "μ", "tau": "τ"}, "light")
    points = named(figure, "contraction")
    assert list(points.marker.symbol) == ["square", "circle"]
    assert list(figure.layout.yaxis.ticktext) == ["τ", "μ"]
    np.testing.assert_allclose(points.x, [0.36, 0.98])


@pytest.mark.parametrize(("low", "high"), [(0.03, 2.0), (0.3, 0.9), (1e-9, 3.0), (0.08, 700.0)])
def test_log_ticks_are_round_few_and_within(low, high):
    places, words = log_ticks(low, high)
    assert 1 <= len(places) <= 7
    assert len(places) == len(words)
    assert all(low <= place <= high for place in places)
    assert all(f"{place:e}"[0] in "1235" and f"{place:e}"[2:8] == "000000" for place in places)
