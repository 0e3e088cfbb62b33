"""What the diagnostic figures say: traces by name, axes with units, marks by meaning."""

import numpy as np
import pandas as pd
import pytest

from hbm_core.plots import diagnostics as plots
from hbm_core.plots.tokens import COLOURS, colours

TITLES = {"mu": "<b>μ</b> mean, SAT points", "tau": "<b>τ</b> spread, SAT points"}


def texts(figure):
    return [note.text for note in figure.layout.annotations]


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


@pytest.fixture
def draws():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"chain": np.repeat([0, 1, 2], 50), "draw": np.tile(np.arange(50), 3)})
    table["mu"], table["tau"] = rng.normal(size=150), rng.exponential(size=150)
    table["divergent"] = np.arange(150) % 50 == 7
    return table


@pytest.fixture
def densities():
    x = np.linspace(-3, 3, 11)
    rows = [
        pd.DataFrame({"parameter": name, "chain": chain, "value": x, "density": np.exp(-x * x)})
        for name in ("mu", "tau")
        for chain in ("0", "1", "2", "exact")
    ]
    return pd.concat(rows)


def test_traces_show_each_chain_and_the_exact_outline_in_ink(draws, densities):
    figure = plots.traces(draws, densities, {"mu": (-4, 4), "tau": (0, 9)}, TITLES, "light")
    assert texts(figure) == list(TITLES.values())
    assert [len(named(figure, f"chain {k}")) for k in (1, 2, 3)] == [4, 4, 4], "trace and density, twice"
    outlines = named(figure, "exact")
    assert len(outlines) == 2
    assert {trace.line.color for trace in outlines} == {colours("light")["ink"]}
    assert all(trace.fill is None for trace in outlines)
    first = named(figure, "chain 2")[0]
    np.testing.assert_allclose(first.y, draws.loc[draws["chain"] == 1, "mu"], rtol=1e-6)
    assert figure.layout.yaxis.range == (-4, 4)


def test_traces_mark_divergences_by_shape_and_the_warning_colour(draws, densities):
    figure = plots.traces(draws, densities, {"mu": (-4, 4), "tau": (0, 9)}, TITLES, "dark")
    crosses = named(figure, "divergence")
    assert len(crosses) == 2
    assert all(trace.marker.symbol == "x-thin" for trace in crosses)
    assert all(trace.marker.line.color == colours("dark")["warn"] for trace in crosses)
    assert list(crosses[0].x) == [7, 7, 7]


def test_the_frame_stands_before_the_first_draw_and_does_not_jump(draws, densities):
    ranges = {"mu": (-4.0, 4.0), "tau": (0.0, 9.0)}
    exact = densities[densities["chain"] == "exact"]
    empty = plots.traces(draws.iloc[:0], exact, ranges, TITLES, "light", total=1000)
    later = plots.traces(draws, densities, ranges, TITLES, "light", total=1000)
    assert len(named(empty, "exact")) == 2
    assert empty.layout.height == later.layout.height
    for axis in ("xaxis", "xaxis2", "xaxis3", "xaxis4", "yaxis", "yaxis3"):
        assert empty.layout[axis].range == later.layout[axis].range, axis
    assert later.layout.xaxis.range == (0, 1000)


def test_long_chains_are_thinned_evenly(densities):
    table = pd.DataFrame({"chain": 0, "draw": np.arange(4500), "mu": np.arange(4500.0), "divergent": False})
    figure = plots.traces(table, densities[densities["chain"] == "0"], {"mu": (0, 4500)}, TITLES, "light")
    steps = np.diff(named(figure, "chain 1")[0].x)
    assert len(steps) < 1000 and set(steps) == {5}


def test_names_that_people_typed_are_not_markup(draws, densities):
    bad = "theta[<a href='http://x'>]"
    table = draws.rename(columns={"mu": bad})
    figure = plots.traces(table, densities.replace("mu", bad), {bad: (-4, 4)}, {}, "light")
    assert texts(figure) == ["theta[&lt;a href=&#x27;http://x&#x27;&gt;]"]


def test_ranks_show_counts_in_their_band():
    table = pd.DataFrame(
        {"parameter": "mu", "chain": np.repeat([0, 1], 4), "bin": np.tile(range(4), 2),
         "count": [10, 5, 5, 5, 0, 8, 8, 9], "expected": 6.25, "low": 1.0, "high": 12.0}
    )  # fmt: skip
    figure = plots.ranks(table, TITLES, "light")
    assert list(named(figure, "chain 1")[0].y) == [10, 5, 5, 5, 5]
    assert list(named(figure, "chain 1")[0].x) == [0, 0.25, 0.5, 0.75, 1]
    band = named(figure, "band")[0]
    assert (min(band.y), max(band.y)) == (1.0, 12.0)
    assert figure.layout.xaxis.title.text.startswith("Rank among all draws")


def test_effective_sizes_start_at_nothing_and_show_the_goal():
    table = pd.DataFrame(
        {"parameter": "tau", "draws": [100, 200, 100, 200], "kind": ["bulk", "bulk", "tail", "tail"],
         "ess": [50.0, 120.0, 40.0, 90.0], "goal": 400}
    )  # fmt: skip
    figure = plots.ess(table, TITLES, "light")
    assert list(named(figure, "bulk")[0].y) == [0, 50, 120]
    assert named(figure, "bulk")[0].line.dash != named(figure, "tail")[0].line.dash, "not by colour alone"
    assert set(named(figure, "goal")[0].y) == {400}
    assert figure.layout.yaxis.range[1] > 400
    assert figure.layout.xaxis.title.text == "Draws per chain"


def test_autocorrelation_keeps_its_values_and_its_band():
    table = pd.DataFrame(
        {"parameter": "mu", "chain": 0, "lag": range(5), "autocorrelation": [1, 0.5, 0.2, -0.1, 0],
         "low": -0.06, "high": 0.06}
    )  # fmt: skip
    figure = plots.autocorrelations(table, TITLES, "light")
    assert list(named(figure, "chain 1")[0].y) == [1, 0.5, 0.2, -0.1, 0]
    assert max(named(figure, "band")[0].y) == 0.06


def test_energy_is_filled_and_its_steps_are_outlined():
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"energy": rng.normal(0, 3, 2000), "transition": rng.normal(0, 1, 2000)})
    table.loc[0, "transition"] = np.nan
    figure = plots.energy(table, "light")
    energy, steps = named(figure, "energy")[0], named(figure, "steps")[0]
    assert energy.fill and not steps.fill
    assert np.max(steps.y) > 2 * np.max(energy.y), "narrower, so taller"


@pytest.fixture
def funnel():
    rng = np.random.default_rng(4)
    log_tau = rng.normal(1, 1, 3000)
    theta = 5 + np.exp(log_tau) * rng.normal(size=3000)
    return pd.DataFrame(
        {
            "log_tau": log_tau,
            "theta": theta,
            "standardised": (theta - 5) / np.exp(log_tau),
            "divergent": log_tau < -1.5,
        }
    )


def test_the_funnel_keeps_every_divergence_and_says_its_units(funnel):
    axes = {"theta": "θ A, SAT points", "standardised": "(θ A − μ)/τ"}
    figure = plots.funnel(funnel, {}, axes, "τ, SAT points, log scale", "light")
    crosses = named(figure, "divergence")
    assert [len(trace.x) for trace in crosses] == [funnel["divergent"].sum()] * 2
    assert sum(len(trace.x) for trace in named(figure, "draws")) <= 2 * 2000
    assert figure.layout.xaxis.title.text == "θ A, SAT points"
    assert figure.layout.yaxis.title.text == "τ, SAT points, log scale"
    # ticks are at logs of the values they name
    for place, word in zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True):
        assert np.exp(place) == pytest.approx(float(word))


def test_the_exact_regions_lie_behind_the_draws(funnel):
    grid = {
        "x": np.linspace(-5, 15, 6),
        "log_tau": np.linspace(-2, 3, 5),
        "outside": np.linspace(0, 1, 30).reshape(5, 6),
    }
    axes = {"theta": "θ", "standardised": "η"}
    figure = plots.funnel(funnel, {"theta": grid, "standardised": None}, axes, "τ", "light")
    assert figure.data[0].name == "exact" and len(named(figure, "exact")) == 1
    # a point that 20 % of the mass is less dense than lies on the border of the 80 % region
    heights = plots._region(np.array([0.0, 0.01, 0.05, 0.2, 0.5, 1.0]))
    assert heights == pytest.approx([0, 0.5, 1.5, 2.5, 3.5, 4])


def test_parallel_lines_do_not_join(draws):
    figure = plots.parallel(draws, ["mu", "tau"], {"mu": "μ", "tau": "τ"}, "light")
    lines = named(figure, "draws")[0]
    assert np.isnan(lines.x[2::3]).all() and not np.isnan(lines.x[0::3]).any()
    assert len(named(figure, "divergence")[0].x) == 3 * int(draws["divergent"].sum())
    assert list(figure.layout.xaxis.ticktext) == ["μ", "τ"]


def test_the_lab_warns_of_geometries_that_diverge():
    table = pd.DataFrame(
        {
            "parameterization": ["centered", "collapsed"],
            "ess_per_second": [100.0, 8500.0],
            "divergences": [22, 0],
            "agrees": [True, True],
        }
    )
    gaps = pd.DataFrame(
        {"parameterization": ["centered", "collapsed"], "parameter": "mu", "z": [0.5, -5.0], "limit": 4.0}
    )
    figure = plots.lab(table, gaps, {"centered": "Centered", "collapsed": "Collapsed"}, "light")
    speed = named(figure, "ESS per second")
    assert [trace.marker.symbol for trace in speed] == ["x", "circle"]
    assert speed[0].marker.color == COLOURS["warn"][0]
    assert [trace.text[0].strip() for trace in speed] == ["100", "8,500"]
    near, far = named(figure, "difference")
    assert list(near.x) == [0.5] and list(far.x) == [-5.0]
    assert far.marker.symbol == "x-thin"
    band = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (-4, 4)
    assert list(figure.layout.yaxis.ticktext) == ["Centered", "Collapsed"]


def test_the_lab_without_an_exact_posterior_shows_speed_alone():
    table = pd.DataFrame(
        {"parameterization": ["centered"], "ess_per_second": [100.0], "divergences": [0], "agrees": [None]}
    )
    figure = plots.lab(table, pd.DataFrame(), {}, "light")
    assert [trace.marker.symbol for trace in figure.data] == ["circle"]
