"""Figures of shrinkage say what their tables hold: fields, titles, values and colours, read from the spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hbm_core.models.dataset import Words
from hbm_core.plots import shrinkage as plots
from hbm_core.plots.theme import Digits, config, digits, legend, nice_domain, plotly_template
from hbm_core.plots.tokens import COLOURS, GROUPS

WORDS = Words("school", "schools", "Effect of coaching", "SAT points")
HOSTILE = '<img src=x onerror=alert(1)> {datum.unit} "quoted" & more'


def table(**columns: Any) -> pd.DataFrame:
    """Three units pulled to 5: the noisiest, c, passes b."""
    rows = pd.DataFrame({"unit": ["a", "b", "c"], "raw": [15.0, 2.0, 1.0], "se": [5.0, 1.0, 8.0]})
    rows["raw_low95"], rows["raw_high95"] = rows["raw"] - 2 * rows["se"], rows["raw"] + 2 * rows["se"]
    rows["pooled"] = [9.0, 2.4, 4.0]
    rows["low95"], rows["low50"] = rows["pooled"] - 2, rows["pooled"] - 1
    rows["high95"], rows["high50"] = rows["pooled"] + 2, rows["pooled"] + 1
    rows["toward"] = 5.0
    rows["displacement"] = rows["pooled"] - rows["raw"]
    rows["rank_raw"], rows["rank_pooled"], rows["rank_change"] = [1, 2, 3], [1, 3, 2], [0, -1, 1]
    return rows.assign(**columns)


def ledger(**columns: Any) -> pd.DataFrame:
    rows = pd.DataFrame({"unit": ["a", "b", "c"], "se": [5.0, 1.0, 8.0], "displacement": [-6.0, 0.4, 3.0]})
    rows["pooling"], rows["pooling_low95"], rows["pooling_high95"] = [0.6, 0.1, 0.9], 0.0, 1.0
    rows["weight_own"], rows["weight_others"], rows["weight_prior"] = (
        [0.3, 0.8, 0.1],
        [0.6, 0.1, 0.7],
        [0.1, 0.1, 0.2],
    )
    return rows.assign(**columns)


def view(**options: Any) -> plots.View:
    return plots.View(WORDS, Digits(0, 1), **options)


def spec(figure: Any) -> dict[str, Any]:
    return figure.to_dict()


def data(found: dict[str, Any]) -> pd.DataFrame:
    """The rows that the layers share."""
    return pd.DataFrame(found["datasets"][found["data"]["name"]])


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def texts(found: dict[str, Any]) -> list[str]:
    return [node["text"] for node in walk(found) if isinstance(node.get("text"), str)]


def fields(found: dict[str, Any], channel: str) -> set[str]:
    return {
        layer["encoding"][channel]["field"]
        for layer in found["layer"]
        if "field" in layer.get("encoding", {}).get(channel, {})
    }


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


FIGURES = {
    "forest": lambda v: plots.forest(table(), v, (-20, 30)),
    "scatter": lambda v: plots.scatter(table(), v),
    "ranks": lambda v: plots.ranks(table(), crossings(), v),
    "weights": lambda v: plots.weights(ledger(), v),
    "law": lambda v: plots.against_se(ledger(), v, "pooling"),
    "distance": lambda v: plots.against_se(ledger(), v, "distance"),
    "borrowing": lambda v: plots.borrowing(plots.lenders(matrix(), ["a", "b"]), v),
}


def crossings() -> pd.DataFrame:
    return pd.DataFrame({"unit_a": ["b"], "unit_b": ["c"], "raw_gap": [1.0], "pooled_gap": [-1.6]})


def matrix() -> pd.DataFrame:
    weights = [[0.5, 0.2, 0.1, 0.2], [0.1, 0.8, 0.05, 0.05], [0.3, 0.4, 0.1, 0.2]]
    return pd.DataFrame(
        weights, index=pd.Index(["a", "b", "c"], name="unit"), columns=["a", "b", "c", "prior"]
    )


def test_forest_draws_raw_pooled_intervals_and_mean() -> None:
    found = spec(plots.forest(table(), view(selected="b"), (-20, 30)))
    assert {"raw", "shown_raw_low95", "shown_low95", "shown_low50", "pooled", "toward"} <= fields(found, "x")
    assert {"shown_raw_high95", "shown_high95", "shown_high50"} <= fields(found, "x2")
    axes = [
        node["axis"] for node in walk(found) if isinstance(node.get("axis"), dict) and "title" in node["axis"]
    ]
    assert {axis["title"] for axis in axes} == {"Effect of coaching, SAT points"}
    rows = data(found)
    assert rows["raw"].tolist() == [15, 2, 1] and rows["pooled"].tolist() == [9, 2.4, 4]
    assert rows["place"].tolist() == [0, 1, 2]
    assert rows["chosen"].tolist() == [False, True, False]
    assert rows["raw_text"].tolist() == ["15", "2", "1"] and rows["pooled_text"].tolist() == [
        "9.0",
        "2.4",
        "4.0",
    ]
    assert rows["rank_text"].tolist() == ["", "↓1", "↑1"]
    assert "pooled mean 5.0" in texts(found)
    dashes = [node for node in walk(found) if node.get("strokeDash") == [4, 3]]
    assert dashes and all(dash["color"] == COLOURS["ink"][0] for dash in dashes)


def test_forest_clips_intervals_to_the_axis_but_keeps_the_numbers() -> None:
    rows = data(spec(plots.forest(table(), view(), (-10, 20))))
    assert rows["shown_raw_low95"].min() == -10 and rows["shown_raw_high95"].max() == 20
    assert rows["raw_95"].tolist()[0] == "5.0 to 25.0"
    narrow, wide = (data(spec(plots.forest(table(), view(), ends))) for ends in ((0, 6), (-50, 50)))
    for end in ("low95", "high95", "low50", "high50"):
        assert narrow[f"shown_{end}"].tolist() == wide[end].clip(0, 6).tolist()
        assert wide[f"shown_{end}"].tolist() == wide[end].tolist()


def test_forest_without_a_pooled_mean_has_no_dashes_and_with_several_has_pieces() -> None:
    none = spec(plots.forest(table(toward=np.nan), view(), (-20, 30)))
    assert not [node for node in walk(none) if "strokeDash" in node]
    several = spec(plots.forest(table(toward=[1.0, 2.0, 3.0]), view(), (-20, 30)))
    assert not any("pooled mean" in text for text in texts(several))
    assert [node for node in walk(several) if node.get("strokeDash") == [4, 3]]


def test_truth_is_a_diamond_in_its_reserved_colour_and_only_where_known() -> None:
    assert "truth" not in fields(spec(plots.forest(table(), view(), (-20, 30))), "x")
    found = spec(plots.forest(table(), view(truth={"a": 7.0}), (-20, 30)))
    assert "truth" in fields(found, "x")
    marks = [node for node in walk(found) if node.get("shape") == "diamond"]
    assert [mark["fill"] for mark in marks] == [COLOURS["truth"][0]]
    others = [value for node in walk(found) if node.get("shape") != "diamond" for value in node.values()]
    assert COLOURS["truth"][0] not in [value for value in others if isinstance(value, str)]


def test_groups_take_okabe_ito_in_alphabetical_order_and_one_alone_the_accent() -> None:
    two = data(spec(plots.forest(table(kind=["y", "x", "y"]), view(), (-20, 30), group="kind")))
    assert two["colour"].tolist() == [GROUPS[1][0], GROUPS[0][0], GROUPS[1][0]]
    one = data(spec(plots.forest(table(kind="x"), view(), (-20, 30), group="kind")))
    assert set(one["colour"]) == {COLOURS["accent"][0]}


def test_size_scales_the_area_of_pooled_circles() -> None:
    rows = data(spec(plots.forest(table(n=[100, 50, 100]), view(), (-20, 30), size="n")))
    assert rows["area"][1] == pytest.approx(rows["area"][0] / 2)


def test_scatter_has_the_line_of_no_pooling_and_axes_with_units() -> None:
    found = spec(plots.scatter(table(), view()))
    titles = {node["title"] for node in walk(found) if isinstance(node.get("title"), str) and "field" in node}
    assert {"On its own: effect of coaching, SAT points", "Partially pooled, SAT points"} <= titles
    line = found["layer"][0]
    assert line["encoding"]["x"]["field"] == line["encoding"]["y"]["field"] == "a"
    assert line["encoding"]["x2"]["field"] == line["encoding"]["y2"]["field"] == "b"
    assert {"raw", "pooled"} <= fields(found, "y")


def test_many_points_are_not_named_except_the_selected() -> None:
    rows = pd.concat([table(unit=[f"{letter}{n}" for letter in "abc"]) for n in range(30)], ignore_index=True)
    labels = data(spec(plots.scatter(rows, view(selected="b7"))))["label"]
    assert labels[labels != ""].tolist() == ["b7"]


def test_crossing_lines_are_marked_where_they_meet() -> None:
    found = spec(plots.ranks(table(), crossings(), view()))
    rows = data(found).set_index("unit")
    assert rows["place"].to_dict() == {"a": 0, "b": 1, "c": 2}
    assert rows["after"].to_dict() == {"a": 0, "b": 2, "c": 1}
    assert rows["crosses"].to_dict() == {"a": False, "b": True, "c": True}
    (meeting,) = [
        v for layer in found["layer"] for v in layer.get("data", {}).get("values", []) if "pair" in v
    ]
    assert (meeting["t"], meeting["at"]) == (0.5, 1.5)


def test_ties_after_pooling_cross_nobody() -> None:
    rows = data(spec(plots.ranks(table(pooled=5.0), crossings().iloc[:0], view())))
    assert rows["after"].tolist() == rows["place"].tolist()


def test_weight_bars_touch_and_sum_to_one() -> None:
    rows = data(spec(plots.weights(ledger(), view())))
    assert np.allclose(rows["own_start"], 0) and np.allclose(rows["prior_end"], 1)
    assert np.allclose(rows["own_end"], rows["others_start"])
    assert np.allclose(rows["others_end"], rows["prior_start"])
    assert rows["own_text"].tolist() == ["30 %", "80 %", "10 %"]


def test_a_negative_weight_starts_left_of_zero_and_the_bar_still_ends_at_the_rest() -> None:
    odd = ledger(weight_own=1.1, weight_others=-0.2, weight_prior=0.1)
    rows = data(spec(plots.weights(odd, view())))
    assert np.allclose(rows["own_start"], -0.2) and np.allclose(rows["prior_end"] - rows["own_start"], 1.4)
    assert rows["others_text"].tolist() == ["−20 %"] * 3


def test_law_joins_points_by_standard_error_and_distance_does_not() -> None:
    law, distance = (spec(plots.against_se(ledger(), view(), name)) for name in ("pooling", "distance"))
    marks = [[layer["mark"]["type"] for layer in found["layer"]] for found in (law, distance)]
    assert "line" in marks[0] and "line" not in marks[1]
    titles = {node["title"] for node in walk(distance) if isinstance(node.get("title"), str)}
    assert {"Standard error, SAT points", "Distance moved, SAT points"} <= titles
    assert data(distance).set_index("unit")["distance"].to_dict() == {"a": 6, "b": 0.4, "c": 3}


def test_lenders_of_some_units_still_sum_to_one() -> None:
    cells = plots.lenders(matrix(), ["b", "a"])
    assert cells["lender"].drop_duplicates().tolist() == ["b", "a", "all others", "prior"]
    assert np.allclose(cells.groupby("unit")["weight"].sum(), 1)
    rest = cells[cells["lender"] == "all others"].set_index("unit")["weight"]
    assert rest.to_dict() == {"b": 0.05, "a": 0.1}
    assert "all others" not in set(plots.lenders(matrix(), ["a", "b", "c"])["lender"])


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_numbers_in_cells_can_be_read_on_every_shade(mode: Any) -> None:
    shades = np.linspace(0, 1, 60)
    units = [f"u{place}" for place in range(60)]
    square = pd.DataFrame(np.tile(shades, (60, 1)), index=pd.Index(units, name="unit"), columns=units)
    cells = data(spec(plots.borrowing(plots.lenders(square.assign(prior=0.0), units), view(mode=mode))))
    worst = min(
        contrast(pen, fill)
        for pen, fill in {(a, b) for a, b in zip(cells["pen"], cells["fill"], strict=True)}
    )
    assert worst >= 4.5


def test_closeup_shows_three_answers_on_a_given_axis() -> None:
    rows = pd.DataFrame(
        {"unit": "a", "pooling": ["none", "partial", "complete"], "estimate": [15.0, 9.0, 5.0]}
    )
    for name, reach in (("low95", -8), ("low50", -3), ("high50", 3), ("high95", 8)):
        rows[name] = rows["estimate"] + reach
    found = spec(plots.closeup(rows, view(truth={"a": 8.0}), (-20, 20), 5.0))
    assert data(found)["shown_high"].tolist() == [20, 17, 13]
    domains = [node["domain"] for node in walk(found) if "domain" in node and "nice" in node]
    assert [-20, 20] in domains
    assert "truth" in fields(found, "x")


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_figure_can_be_clicked_and_read(name: str, mode: Any) -> None:
    found = spec(FIGURES[name](view(mode=mode, selected="a", turn=7)))
    (param,) = [node for node in walk(found) if node.get("name") == plots.SELECTION and "select" in node]
    assert param["select"]["type"] == "point" and param["select"]["fields"] == ["unit", "turn"]
    assert set(data(found)["turn"]) == {7}
    for node in walk(found):
        for key in ("fontSize", "labelFontSize", "titleFontSize"):
            assert not isinstance(node.get(key), int | float) or node[key] >= 11.5
    assert found["config"]["background"] == COLOURS["paper"][mode == "dark"]


@pytest.mark.parametrize("name", ["forest", "scatter", "ranks"])
def test_names_stay_data(name: str) -> None:
    """A name that looks like code appears in the rows and nowhere in an expression."""
    rows = table(unit=[HOSTILE, "b", "c"])
    draw = {
        "forest": lambda: plots.forest(rows, view(selected=HOSTILE), (-20, 30)),
        "scatter": lambda: plots.scatter(rows, view(selected=HOSTILE)),
        "ranks": lambda: plots.ranks(rows, crossings(), view(selected=HOSTILE)),
    }[name]
    found = spec(draw())
    assert HOSTILE in set(data(found)["unit"])
    assert not [node for node in walk(found) if "onerror" in str(node.get("expr", ""))]


def test_choose_keeps_the_farthest_the_found_and_the_selected_in_order() -> None:
    rows = pd.concat([table(unit=[f"{letter}{n}" for letter in "abc"]) for n in range(4)], ignore_index=True)
    rows["displacement"] = np.arange(12.0)
    assert plots.choose(rows, "displacement", 2)["unit"].tolist() == ["c3", "b3"]
    assert plots.choose(rows, "displacement", 2, keep="a0")["unit"].tolist() == ["c3", "b3", "a0"]
    assert plots.choose(rows, "displacement", 2, search="B0")["unit"].tolist() == ["c3", "b3", "b0"]
    assert plots.choose(rows, "displacement", 2, search="(.*")["unit"].tolist() == ["c3", "b3"]
    assert plots.choose(table(), "raw")["unit"].tolist() == ["a", "b", "c"]
    assert plots.choose(table(), "se")["unit"].tolist() == ["b", "a", "c"]


def test_effect_axis_is_fixed_by_all_raw_intervals() -> None:
    assert plots.effect_domain(table()) == (-20.0, 30.0)
    wild = table(se=[5.0, 1.0, 8000.0], raw_low95=[5.0, 0.0, -16000.0], raw_high95=[25.0, 4.0, 16000.0])
    low, high = plots.effect_domain(wild)
    assert low > -100 and high < 100


def test_digits_follow_the_data() -> None:
    assert digits(np.array([28.0, -3.0]), np.array([15.0, 16.0])) == Digits(0, 1)
    assert digits(np.array([-0.889, 0.446]), np.array([0.57, 0.73])) == Digits(2, 2)
    assert digits(np.random.default_rng(0).normal(size=9), np.full(9, 12.0)) == Digits(1, 1)
    assert digits(np.array([1200.0, 3400.0]), np.array([500.0, 700.0])) == Digits(0, 0)


def test_nice_domain_holds_everything_and_survives_one_value() -> None:
    assert nice_domain([0.11, 0.93]) == (0.0, 1.0)
    low, high = nice_domain([3.0, 3.0])
    assert low < 3 < high
    assert nice_domain([np.nan, np.inf, 1.0, 2.0])[1] == 2.0


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_words_of_the_theme_reach_aa_contrast(mode: Any) -> None:
    found, template = config(mode), plotly_template(mode)["layout"]
    for colour in (found["axis"]["labelColor"], found["axis"]["titleColor"], template["font"]["color"]):
        assert contrast(colour, found["background"]) >= 4.5
    assert template["xaxis"]["tickfont"]["size"] >= 11.5


def test_legend_escapes_what_people_typed() -> None:
    assert "<img src=x" not in legend([("point", HOSTILE)], "light").replace("<img width", "")
