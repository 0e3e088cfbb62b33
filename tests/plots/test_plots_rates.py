"""Pictures of rates say what their tables hold, in valid Vega-Lite."""

import altair
import numpy as np
import pytest

from hbm_core.analysis import counts_predictive as predictive
from hbm_core.analysis import rates as tables
from hbm_core.inference.exact import solve
from hbm_core.plots import rates as plots
from hbm_core.plots.plate import plate_svg, plate_table
from hbm_core.plots.shrinkage import View
from hbm_core.plots.theme import digits
from hbm_core.scenarios import scenario

COUNTS = scenario("counts")


@pytest.fixture(scope="module")
def pumps():
    dataset = COUNTS.dataset("pumps")
    spec = COUNTS.model("poisson").spec(dataset)
    view = View(dataset.words, digits(spec.structure.effect, spec.structure.se), "dark", "Pump 3")
    return dataset, spec, solve(spec), view


def drawn(figure):
    found = figure.to_dict()
    altair.Chart.from_dict(found)
    return found


def test_the_cone_of_chance_holds_what_chance_alone_makes(pumps):
    dataset, spec, _, _ = pumps
    points, lines, word = plots.chance_table(spec.structure)
    assert word == "exposure" and len(points) == 10
    assert (lines["low"] < lines["mid"]).all() and (lines["mid"] < lines["high"]).all()
    assert (np.diff(lines["high"]) < 0).all()
    found = drawn(plots.chance(points, lines, word, dataset.words, "light"))
    assert found["layer"][2]["encoding"]["x"]["title"] == "Exposure of a pump"
    alike = COUNTS.simulate(4, entities=500, alpha=500, phi=1e6)
    shape = COUNTS.model("base").spec(alike).structure
    points, lines, _ = plots.chance_table(shape)
    low, high = (np.interp(points["seen"], lines["seen"], lines[end]) for end in ("low", "high"))
    inside = ((points["rate"] >= low) & (points["rate"] <= high)).mean()
    assert 0.9 < inside < 0.99


def test_each_picture_is_its_table(pumps):
    _, spec, posterior, view = pumps
    weights = tables.weight_table(posterior)
    found = drawn(plots.own_weights(weights, "exposure", view))
    (rows,) = [rows for rows in found["datasets"].values() if len(rows) == 10]
    assert [row["own"] for row in rows] == pytest.approx(weights["own"].tolist())
    assert [row["unit"] for row in rows if row["chosen"]] == ["Pump 3"]
    ranking = tables.ranking_table(posterior, top=3)
    assert "among 10 pumps" in str(drawn(plots.ranking(ranking, 10, view)))
    assert "Next, median" in str(drawn(plots.forecast(tables.forecast_table(posterior), view)))
    simulated = predictive.replicates(posterior)
    bars = predictive.rootogram_table(spec.structure, simulated)
    hanging = drawn(plots.rootogram(bars, "pumps", "dark"))
    rows = next(iter(rows for rows in hanging["datasets"].values() if len(rows) == len(bars)))
    for row, bar in zip(rows, bars.to_dict("records"), strict=True):
        assert row["top"] - row["bottom"] == pytest.approx(bar["observed"] ** 0.5)


@pytest.mark.parametrize("model, name", [("base", "hosts"), ("poisson", "pumps"), ("binomial", "batting")])
def test_the_plate_names_every_parameter(model, name):
    spec = COUNTS.model(model).spec(COUNTS.dataset(name))
    plate = plate_table(spec.structure, "host")
    names = {node.name for row in plate.rows for node in row}
    assert set(spec.priors) | {"theta", "y"} <= names
    assert {source for source, _ in plate.edges} >= set(spec.priors)
    assert plate_svg(plate, "light").startswith("<svg")
