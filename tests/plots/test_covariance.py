"""What the pictures of covariance say: traces, axes, units, values and contrast."""

import numpy as np
import pandas as pd
import pytest

from hbm_core.plots import covariance as plots
from hbm_core.plots.tokens import colours


@pytest.fixture
def table():
    rng = np.random.default_rng(5)
    return pd.DataFrame({"mu": rng.normal(size=300), "tau": rng.random(300), "divergent": np.arange(300) < 4})


def frame(names, values):
    return pd.DataFrame(values, index=names, columns=names)


def pairs(table, densities=None):
    return plots.pairs(
        table,
        pd.DataFrame(columns=["parameter"]) if densities is None else densities,
        {"mu": (-3.0, 3.0), "tau": (0.0, 1.0)},
        frame(["mu", "tau"], [[1, -0.25], [-0.25, 1]]),
        {"mu": "μ", "tau": "τ"},
        {"tau": "points"},
        "light",
    )


def test_pairs_show_draws_divergences_and_the_correlation(table):
    figure = pairs(table)
    found = {trace.name: trace for trace in figure.data}
    assert len(found["mu tau"].x) == 296
    crosses = found["divergent mu tau"]
    np.testing.assert_allclose(crosses.x, table["mu"][:4])
    assert crosses.marker.symbol == "x-thin"
    assert crosses.marker.line.color == colours("light")["warn"]
    assert [(note.text, note.xanchor) for note in figure.layout.annotations] == [("−0.25", "center")]
    assert figure.layout.xaxis3.title.text == "μ"
    assert "points" in figure.layout.xaxis4.title.text
    assert tuple(figure.layout.yaxis3.range) == (0, 1)


def test_the_diagonal_is_exact_where_a_density_is_given(table):
    density = pd.DataFrame({"parameter": "mu", "value": [-1.0, 0, 1], "density": [0.2, 0.4, 0.2]})
    found = {trace.name: trace for trace in pairs(table, density).data}
    assert found["density mu"].type == "scatter"
    assert found["density tau"].type == "histogram"


def test_many_draws_are_thinned_but_no_divergence_is_lost():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"mu": rng.normal(size=30_000), "tau": rng.random(30_000)})
    table["divergent"] = np.arange(30_000) % 100 == 0
    found = {trace.name: trace for trace in pairs(table).data}
    assert len(found["mu tau"].x) <= 6_000
    assert len(found["divergent mu tau"].x) == 300


def test_a_matrix_prints_its_values_where_there_are_few():
    few = frame(["mu", "theta[A]"], [[1, 0.5], [0.5, 1]])
    labels = {"mu": "μ", "theta[A]": "A"}
    figure = plots.heat_map(few, labels, ["theta[A]"], "dark")
    assert sorted(note.text for note in figure.layout.annotations) == [".50", ".50", "1", "1"]
    assert figure.layout.xaxis.ticktext == ("μ", "<b>A</b>")
    names = [f"theta[{k}]" for k in range(50)]
    many = plots.heat_map(frame(names, np.eye(50)), {n: n for n in names}, ["theta[7]"], "light")
    assert not many.layout.annotations
    assert "<b>theta[7]</b>" in many.layout.xaxis.ticktext
    assert (many.data[0].zmin, many.data[0].zmax) == (-1, 1)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_numbers_can_be_read_on_every_cell(mode):
    def luminance(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for value in np.linspace(-1, 1, 41):
        ground = plots.correlation_colour(value, mode)
        a, b = sorted((luminance(ground), luminance(plots.ink_on(ground))))
        assert (b + 0.05) / (a + 0.05) >= 4.5, value
    assert plots.correlation_colour(0, mode) == colours(mode)["paper"]
    assert plots.correlation_colour(1, mode) == colours(mode)["accent"]
    assert plots.correlation_colour(float("nan"), mode) == colours(mode)["paper"]


def test_over_tau_the_axis_has_units_and_ends_at_infinity():
    curve = pd.DataFrame({"tau": [0.0, 11.0], "mean": [1.0, 0.2], "low": [1.0, 0.1], "high": [1.0, 0.3]})
    density = pd.DataFrame({"u": [0.1, 0.5], "density": [1.0, 2.0]})
    figure = plots.against_tau(curve, density, 11.0, "points", "light")
    mean = next(trace for trace in figure.data if trace.name == "mean")
    np.testing.assert_allclose(mean.x, [0, 0.5])
    np.testing.assert_allclose(mean.y, [1, 0.2])
    assert figure.layout.xaxis.title.text == "τ, spread between units, points"
    assert figure.layout.xaxis.ticktext[-1] == "∞"
