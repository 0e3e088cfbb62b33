"""The page Shrinkage as a person uses it: every section, every kind of model, selection, hostile names."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from hbm_core.models.dataset import Dataset
from hbm_core.scenarios import scenario
from hbm_core.store.study import Study
from hbm_core.ui import shrinkage_page

PAGE = Path(__file__).parents[2] / "pages" / "shrinkage.py"
HOSTILE = ("<script>alert(1)</script>", "=cmd|' /C calc'!A0", "long " * 60, "{datum.unit}", "שלום")


def opened(section: str = "Arrows", **query: str) -> AppTest:
    app = AppTest.from_file(str(PAGE), default_timeout=240)
    for name, value in query.items():
        app.query_params[name.replace("__", ".")] = value
    app.session_state["shrinkage_section"] = section
    return app.run()


def said(app: AppTest) -> str:
    """Everything written on the page, markup included."""
    html = [element.proto.body for element in app.get("html")]
    return "\n".join([*html, *(m.value for m in app.markdown), *(i.value for i in app.info)]).replace(
        "\xa0", " "
    )


def sound(app: AppTest) -> AppTest:
    assert not app.exception, [problem.value for problem in app.exception]
    return app


def test_opens_cold_with_the_school_that_moved_farthest() -> None:
    text = said(sound(opened()))
    assert "School A" in text and "28" in text and "9.7" in text
    # the eight schools under the model weak: 18 / 78 / 4 %
    assert "18&nbsp;% its own data, 78&nbsp;% the other schools, 4&nbsp;% prior" in text
    assert "How to read this." in text


@pytest.mark.parametrize("section", shrinkage_page.SECTIONS)
def test_every_section_draws_with_a_caption(section: str) -> None:
    app = sound(opened(section))
    assert app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart")
    assert "How to read this." in said(app)


@pytest.mark.parametrize("model", ["none", "complete", "robust_effects", "precision"])
@pytest.mark.parametrize("section", ["Arrows", "Ledger", "Lenders", "Close-ups"])
def test_models_without_weights_or_without_pooling(model: str, section: str) -> None:
    text = said(sound(opened(section, scenario="schools", model=model)))
    if model == "none":
        assert "nobody moves" in text
    if model == "complete":
        assert "the same estimate, " in text and "7.4" in text
    if model == "robust_effects" and section == "Lenders":
        assert "nobody lends a fixed share" in text


def test_a_selection_is_kept_in_the_study_and_shown_everywhere() -> None:
    app = opened("Ledger")
    app.selectbox(key="shrinkage_unit").set_value("C").run()
    assert sound(app).session_state["study"].unit == "C"
    assert "School C: −3" in said(app)
    app.session_state["shrinkage_section"] = "Ranks"
    assert "School C: −3" in said(sound(app.run()))


def test_a_link_opens_with_its_unit_and_one_that_names_nobody_with_the_farthest() -> None:
    assert "School H: 12" in said(sound(opened(scenario="schools", unit="H")))
    assert "School A: 28" in said(sound(opened(scenario="schools", unit="nobody")))


def test_many_units_are_shown_by_distance_and_found_by_name() -> None:
    query = {"scenario": "schools", "dataset": "simulated", "data_seed": "1", "knob__J": "300"}
    app = sound(opened(**query))
    assert app.slider(key="shrinkage_most").value == 20
    app.text_input(key="shrinkage_search").set_value("S01").run()
    assert "10 of 300 schools match" in "\n".join(note.value for note in sound(app).caption)
    assert "simulated truth" in said(app)


def test_an_improper_posterior_says_why_and_what_to_do() -> None:
    app = opened(
        scenario="schools",
        dataset="simulated",
        data_seed="1",
        knob__J="2",
        prior__mu="Flat()",
        prior__tau="Flat()",
    )
    assert "Choose other priors" in said(sound(app))
    assert not app.get("vega_lite_chart") and not app.get("arrow_vega_lite_chart")


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Study.data

    def data(self: Study, uploads: Any = None) -> Dataset:
        found = real(self, uploads)
        table = found.table.copy()
        table["unit"] = [*HOSTILE, *table["unit"][len(HOSTILE) :]]
        # the first name moves farthest and is spoken of on every page
        table["effect"] = [90.0, *table["effect"][1:]]
        return replace(found, table=table)

    monkeypatch.setattr(Study, "data", data)


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("section", shrinkage_page.SECTIONS)
def test_names_are_text_and_never_markup(section: str) -> None:
    text = said(sound(opened(section)))
    assert "<script>" not in text and "&lt;script&gt;" in text


@pytest.mark.usefixtures("hostile")
def test_the_download_has_every_number_and_runs_nothing() -> None:
    from hbm_core.inference.exact import solve
    from hbm_core.plots.shrinkage import View
    from hbm_core.plots.theme import Digits
    from hbm_core.ui.live import Live

    study = Study.default("schools")
    dataset = study.data()
    spec = study.spec(dataset)
    live = Live(study, dataset, spec, solve(spec))
    table, ledger = shrinkage_page._tables(live.posterior)
    page = shrinkage_page.Page(live, table, ledger, View(dataset.words, Digits(0, 1)), ())
    rows = list(csv.DictReader(io.StringIO(shrinkage_page.csv(page))))
    assert [row["unit"] for row in rows][1] == "'" + HOSTILE[1]
    assert [float(row["raw"]) for row in rows] == dataset.table["effect"].tolist()
    weights = pd.DataFrame(rows)[["weight_own", "weight_others", "weight_prior"]].astype(float)
    assert weights.sum(axis=1).to_numpy() == pytest.approx(1)


def test_a_name_has_a_capital_only_where_its_sentence_begins() -> None:
    text = said(sound(opened(scenario="counts")))
    assert "Pooling moves host h33 farthest" in text and "<b>Host h33: 22" in text


def test_whoever_is_selected_is_told_the_next_window_and_how_odd_the_latest_was() -> None:
    table = scenario("counts").dataset("hosts").table
    latest = table[table["entity"] == "h07"].sort_values("window")["count"].iloc[-1]
    ahead = said(sound(opened("Forecast", scenario="counts", unit="h07")))
    assert f"its latest had {latest}" in ahead and "Its next window: <b>" in ahead
    # Its rate is low: it is shown because it is selected.
    assert "Of 60 hosts the 24 with the largest forecasts are shown, and h07, which is selected." in ahead
    odd = said(sound(opened("Surprises", scenario="counts", unit="h07")))
    assert f"Its latest window had <b>{latest}</b> events" in odd and "of 60 in the list" in odd
    # Of h16, the oddest, nobody is above.
    assert "number 1 of 60" in said(sound(opened("Surprises", scenario="counts", unit="h16")))
