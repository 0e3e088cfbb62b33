"""Figures as plain mappings are what Altair would have written, and what Vega-Lite's schema allows."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest
from altair.utils import schemapi
from jsonschema.exceptions import ValidationError

from hbm_core.analysis import shrinkage as tables
from hbm_core.inference.exact import solve
from hbm_core.plots import first_look, shrinkage, vega
from hbm_core.plots.theme import digits, themed
from hbm_core.store.study import Study

ROWS = pd.DataFrame({"unit": ["a", "b"], "low": [1.0, np.nan], "high": [np.float64(2.5), 4.0]})


def named(found: dict[str, Any]) -> dict[str, Any]:
    """Tables by their length instead of their digests, views by one name."""
    tables = sorted(found["datasets"], key=lambda name: len(found["datasets"][name]))

    def of(node: Any) -> Any:
        if isinstance(node, dict):
            return {tables.index(key) if key in tables else key: of(value) for key, value in node.items()}
        if isinstance(node, list):
            return [of(value) for value in node]
        if isinstance(node, str) and node.startswith("view_"):
            return "view"
        return tables.index(node) if node in tables else node

    return of(found)


def test_a_figure_is_what_altair_writes():
    theirs = alt.Chart()
    scale, at = alt.Scale(domain=[0, 5], nice=False), alt.ExprRef(expr="width - 2")
    with alt.theme.enable("none"):
        wanted = alt.layer(
            theirs.mark_rule(color="#123456", x2Offset=at).encode(
                x=alt.X("low:Q", scale=scale, axis=None), x2="high:Q", order="low:Q"
            ),
            theirs.transform_filter("isValid(datum.low)")
            .mark_point(filled=True, size=float(np.pi), tooltip=None)
            .encode(
                x=alt.X("low:Q", title=None, axis=alt.Axis(grid=False, tickCount=at)),
                tooltip=[alt.Tooltip("unit:N", title="Name")],
                opacity=alt.condition("datum.low > 1", alt.value(1), alt.value(0)),
            )
            .add_params(alt.selection_point(name="unit", fields=["unit"], on="click", toggle=False)),
            alt.Chart(alt.Data(values=[{"zero": 0}])).mark_text(text="x").encode(y="zero:Q"),
            alt.Chart(ROWS[:1]).mark_bar().encode(color=alt.Color("unit:N", scale=None)),
            data=ROWS,
            height=40,
        ).to_dict()
    ours = vega.Chart()
    scale_, at_ = dict(domain=np.array([0, 5]), nice=False), vega.expr("width - 2")
    found = vega.layer(
        ours.mark_rule(color="#123456", x2Offset=at_).encode(
            x=vega.channel("low:Q", scale=scale_, axis=None), x2="high:Q", order="low:Q"
        ),
        ours.transform_filter("isValid(datum.low)")
        .mark_point(filled=True, size=np.pi, tooltip=None)
        .encode(
            x=vega.channel("low:Q", title=None, axis=dict(grid=False, tickCount=at_)),
            tooltip=[vega.channel("unit:N", title="Name")],
            opacity=vega.condition("datum.low > 1", 1, 0),
        )
        .add_params(vega.selection_point("unit", fields=["unit"], on="click", toggle=False)),
        vega.Chart([{"zero": 0}]).mark_text(text="x").encode(y="zero:Q"),
        vega.Chart(ROWS[:1]).mark_bar().encode(color=vega.channel("unit:N", scale=None)),
        data=ROWS,
        height=40,
    )
    assert named(found.to_dict()) == named(wanted)


def test_a_table_that_all_layers_share_is_written_once_and_named_by_its_content():
    base = vega.Chart(ROWS)
    two = vega.layer(base.mark_rule().encode(x="low:Q"), base.mark_tick().encode(x="high:Q"))
    found = two.to_dict()
    assert found["data"]["name"] in found["datasets"]
    assert not any("data" in layer for layer in found["layer"])
    again = vega.layer(vega.Chart(ROWS.copy()).mark_rule()).to_dict()
    other = vega.layer(vega.Chart(ROWS.assign(low=7.0)).mark_rule()).to_dict()
    assert list(again["datasets"]) == list(found["datasets"]) != list(other["datasets"])


def figures() -> dict[str, vega.Figure]:
    study = Study.default("schools")
    dataset = study.data()
    spec = study.spec(dataset)
    posterior = solve(spec)
    table, ledger = tables.shrinkage_table(spec, posterior), tables.pooling_ledger(spec, posterior)
    table["pooling"], table["n"], table["group"] = ledger["pooling"], 5, ["u", "v"] * 4
    ledger["se"] = table["se"]
    view = shrinkage.View(
        dataset.words, digits(spec.structure.effect, spec.structure.se), "dark", "B", 1, {"A": 3.0}
    )
    matrix, ends = tables.borrowing_matrix(spec), shrinkage.effect_domain(table)
    long = tables.three_poolings(spec, posterior)
    return {
        "forest": shrinkage.forest(table, view, ends, "group", "n"),
        "scatter": shrinkage.scatter(table, view),
        "ranks": shrinkage.ranks(table, tables.rank_crossings(table), view),
        "weights": shrinkage.weights(ledger, view),
        "law": shrinkage.against_se(ledger, view, "pooling"),
        "borrowing": shrinkage.borrowing(shrinkage.lenders(matrix, ["A", "B", "C"]), view),
        "closeup": shrinkage.closeup(long[long["unit"] == "A"].reset_index(drop=True), view, ends, 8.0),
        "funnel": first_look.funnel(*first_look.funnel_table(spec.structure), "Effect", "light"),
    }


def check(figure: vega.Figure) -> None:
    chart = alt.LayerChart
    schemapi.validate_jsonschema(figure.to_dict(), chart._schema, rootschema=chart._rootschema)


def test_every_picture_keeps_to_the_schema():
    for figure in figures().values():
        check(figure)


def test_the_schema_would_notice():
    wrong = themed(vega.layer(vega.Chart([{"a": 1}]).mark_rule(strokeWidth="thick").encode(x="a:Q")), "light")
    with pytest.raises(ValidationError):
        check(wrong)
