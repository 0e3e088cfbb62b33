"""The page Data as a person uses it: change, bring, correct, use, simulate; nothing lost and nothing run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from hbm_core.analysis.change import parameter_change, unit_change
from hbm_core.inference.exact import solve
from hbm_core.plots.change import chosen_changes
from hbm_core.scenarios import scenario
from hbm_core.scenarios.tables import csv_text, read_file
from hbm_core.store.study import Study
from hbm_core.ui import data_page
from hbm_core.ui.data_page import Sheet, check, problems_table
from tests.pages.fitted import SESSION, engine
from tests.pages.test_trace import said

__all__ = ["engine"]
PAGE = Path(__file__).parents[2] / "pages" / "data.py"
SCHOOLS = scenario("schools")
BAD = "Study;yi;Std. error\nAlpha;1,5;0,3\nBeta;-2;0\nBeta;2,25;0,5\nGamma;abc;1\n"
GOOD = "unit,effect,se\nA,28,15\nB,8,10\nC,-3,16\nZoë,70,4\n"


def opened(section: str = "Change") -> AppTest:
    app = AppTest.from_file(str(PAGE), default_timeout=240)
    app.session_state["session_token"] = SESSION
    app.session_state["data_section"] = section
    return sound(app.run())


def sound(app: AppTest) -> AppTest:
    assert not app.exception, [problem.value for problem in app.exception]
    return app


def paste(app: AppTest, text: str) -> AppTest:
    app.text_area(key="data_pasted").set_value(text)
    return sound(app.button(key="data_read").click().run())


def changed(app: AppTest, table: pd.DataFrame) -> AppTest:
    """The sheet of the present data as if its cells had been edited: AppTest has no hands for the grid."""
    sheet = app.session_state["data_present"]
    sheet.table, sheet.turn = table, sheet.turn + 1
    return sound(app.run())


def test_it_opens_with_the_present_data_and_says_what_to_do(engine):
    text = said(opened())
    assert "<b>8 schools</b> are under study" in text and "Try dropping A, the largest" in text


@pytest.mark.parametrize("section", data_page.SECTIONS)
def test_every_section_opens_cold(engine, section):
    assert len(said(opened(section))) > 500


def test_a_changed_value_shows_its_effect_before_it_is_used(engine):
    app = opened()
    table = app.session_state["data_present"].table.copy()
    table.loc[1, "effect"] = 60.0
    app = changed(app, table)
    study = Study.default()
    before = solve(study.spec(study.data()))
    dataset = SCHOOLS.read(table)
    after = solve(study.change(dataset=dataset.digest).spec(dataset))
    text = said(app)
    for posterior in (before, after):
        assert f"{posterior.mean[0]:.1f}</span>" in text and f"{posterior.mean[1]:.1f}</span>" in text
    assert app.session_state["study"].dataset == "eight_schools", "not before it is asked for"
    app.button(key="data_present_use").click().run()
    assert app.session_state["study"].dataset == dataset.digest
    assert engine.may_use(dataset.digest, SESSION)


def test_dropping_a_row_and_undoing_it_returns_to_the_built_in_data(engine):
    app = opened()
    full = app.session_state["data_present"].table
    app = changed(app, full.drop(index=1))
    app.button(key="data_present_use").click().run()
    assert len(app.session_state["data_present"].table) == 7
    app = changed(sound(app), full)
    sound(app.button(key="data_present_use").click().run())
    assert app.session_state["study"].dataset == "eight_schools", "the same data have one name"


def test_problems_are_told_by_row_while_the_table_stays(engine):
    app = paste(opened("Your table"), BAD)
    text = said(app)
    assert "separated by semicolons, with decimal commas: 4 rows" in text
    assert "3 problems in 3 rows" in text and "se (Std. error)" in text
    assert app.button(key="data_brought_use").disabled
    sheet = app.session_state["data_brought"]
    assert len(sheet.table) == 4
    sheet.table = sheet.table.copy()
    sheet.table["yi"] = sheet.table["yi"].replace("abc", "3,5")
    sheet.table.loc[2, "Std. error"] = "0,2"
    sheet.turn += 1
    app = sound(app.run())
    assert "1 problem in 1 row" in said(app)
    app.session_state["data_section"] = "First look"
    sound(app.run())
    app.session_state["data_section"] = "Your table"
    assert "1 problem in 1 row" in said(sound(app.run())), "and it stays while one looks elsewhere"


def test_a_good_table_is_used_and_the_app_follows(engine):
    app = paste(opened("Your table"), GOOD)
    assert "In order: 4 rows" in said(app)
    app.button(key="data_brought_use").click().run()
    assert "data now, on every page" in said(sound(app))
    study = app.session_state["study"]
    assert study.data(engine.uploaded).table["unit"].tolist() == ["A", "B", "C", "Zoë"]
    app.button(key="data_away").click().run()
    assert "data_brought" not in sound(app).session_state


def test_a_file_that_is_no_table_leaves_a_message_and_the_earlier_table(engine):
    app = paste(opened("Your table"), GOOD)
    app = paste(app, 'unit,effect,se\n"a,1,1\nb,2,1\n')
    assert "line 2" in said(app) and "cannot be used as it is" in said(app)
    assert len(app.session_state["data_brought"].table) == 4
    app = paste(app, "unit,effect,se\na,1,1\nb,2\n")
    assert "cannot be used" in said(app) and app.dataframe[0].value["row"].tolist() == [2]


def test_columns_can_be_chosen_otherwise(engine):
    app = paste(opened("Your table"), "name,first,second,err\na,1,5,1\nb,2,6,1\n")
    assert "is missing" in said(app)
    turn = app.session_state["data_brought"].turn
    app.selectbox(key=f"data_map_effect_{turn}").set_value("second").run()
    app.selectbox(key=f"data_map_se_{turn}").set_value("err").run()
    app.button(key="data_brought_use").click().run()
    table = sound(app).session_state["study"].data(engine.uploaded).table
    assert table["effect"].tolist() == [5, 6] and table["first"].tolist() == [1, 2]
    app.multiselect(key=f"data_others_{turn}").set_value([]).run()
    assert "first" not in check(SCHOOLS, app.session_state["data_brought"]).dataset.table


def test_a_long_table_is_edited_where_its_problems_are(engine):
    rows = "".join(f"u{i},{i % 7},{0 if i == 4321 else 1}\n" for i in range(5000))
    app = paste(opened("Your table"), "unit,effect,se\n" + rows)
    sheet = app.session_state["data_brought"]
    assert sheet.focus == [4322] and "1 problem in 1 row" in said(app)


def test_rows_of_problems_are_those_that_the_sheet_shows():
    table = pd.DataFrame({"unit": ["a", "c", "d"], "effect": ["1", "x", "3"], "se": 1.0}, index=[1, 3, 4])
    found = check(SCHOOLS, Sheet("", table, "t", mapping={"unit": "unit", "effect": "effect", "se": "se"}))
    assert problems_table(found.problems, {})["row"].tolist() == [3]


def test_simulated_data_show_their_truth(engine):
    app = opened("Simulate")
    app.button(key="data_simulate").click().run()
    assert app.session_state["study"].dataset == "simulated"
    app.number_input(key="data_knob_tau").set_value(12.0).run()
    assert app.session_state["study"].knobs == {"tau": 12.0}
    table = sound(app).dataframe[0].value
    truth = app.session_state["study"].data().truth
    assert table["truth"].tolist() == [truth[f"theta[{unit}]"] for unit in table["unit"]]
    assert "τ = 12" in said(app)


def test_template_reads_back():
    back = SCHOOLS.read(read_file(data_page._example(SCHOOLS, ",").encode())).table
    pd.testing.assert_frame_equal(back, SCHOOLS.dataset("eight_schools").table.head(4))


def test_change_tables_against_the_posteriors_themselves():
    study = Study.default()
    data = study.data()
    table = data.table.drop(index=0)
    table.loc[len(data.table)] = ["new", 5.0, 9.0]
    dataset = SCHOOLS.read(table)
    before, after = solve(study.spec(data)), solve(study.spec(dataset))
    units = unit_change(before, after).set_index("unit")
    assert units["state"].to_dict() == {"A": "dropped", "new": "new"} | dict.fromkeys("BCDEFGH", "kept")
    means = dict(zip(after.names, after.mean, strict=True))
    olds = dict(zip(before.names, before.mean, strict=True))
    assert units.loc["C", "moved"] == means["theta[C]"] - olds["theta[C]"]
    assert np.isnan(units.loc["A", "pooled_after"]) and units.loc["A", "raw_before"] == 28
    assert units["moved"].abs().dropna().is_monotonic_decreasing
    shown = chosen_changes(units.reset_index(), 4)["unit"].tolist()
    assert set(shown[:2]) == {"A", "new"} and len(shown) == 4
    both = parameter_change(before, after).set_index("parameter")
    assert both.loc["mu", "after"] == means["mu"] and both.loc["tau", "before"] == olds["tau"]


def edited(grid: data_page.Grid, cells: dict) -> pd.DataFrame:
    """What a browser gives back: texts."""
    out = grid.shown.copy()
    for (row, column), text in cells.items():
        out.loc[row, column] = text
    return out


def test_a_typed_comma_is_a_decimal_mark_and_what_nobody_touched_keeps_every_digit():
    base = SCHOOLS.dataset("bcg").table.set_axis(range(1, 14), axis=0)
    given = data_page.grid(base, ".", {"unit": False})
    table, doubts = data_page.merge(given, edited(given, {(2, "effect"): "3,3", (4, "se"): "12,9"}))
    wanted = base.copy()
    wanted.loc[2, "effect"], wanted.loc[4, "se"] = 3.3, 12.9
    pd.testing.assert_frame_equal(table, wanted, check_index_type=False)
    assert not doubts
    assert given.shown["effect"].str.strip("-0.").str.replace(".", "").str.len().max() <= 6
    np.testing.assert_allclose(given.shown["effect"].astype(float), base["effect"], rtol=1e-5)


def test_a_typed_cell_with_two_readings_is_refused_with_its_row():
    base = SCHOOLS.dataset("eight_schools").table.set_axis(range(1, 9), axis=0)
    given = data_page.grid(base, ".", {"unit": False})
    table, doubts = data_page.merge(given, edited(given, {(2, "effect"): "1,234"}).drop(index=1))
    sheet = Sheet("", table, "t", doubts=doubts)
    (problem,) = check(SCHOOLS, sheet).problems
    assert (problem.row, problem.column) == (2, "effect") and "1.234 and 1234" in problem.message
    sheet.table = table.assign(effect=range(7))
    assert check(SCHOOLS, sheet).dataset is not None, "and the doubt goes with its cell"


def test_the_marks_of_a_pasted_table_hold_for_what_is_typed_into_it():
    base = pd.DataFrame({"unit": ["1", "2"], "effect": ["1,5", "x"], "se": ["1", "2"]}, index=[1, 2])
    given = data_page.grid(base, ",", {"unit": False, "effect": True, "se": True})
    assert set(given.numeric) == {"effect", "se"} and given.shown.equals(base.astype("str"))
    table, doubts = data_page.merge(given, edited(given, {(2, "effect"): "2.5", (1, "unit"): "007"}))
    assert table["effect"].tolist() == ["1,5", "2,5"] and table["unit"].tolist() == ["007", "2"]
    assert not doubts
    _, doubts = data_page.merge(given, edited(given, {(2, "effect"): "1.234"}))
    assert set(doubts) == {(2, "effect")}


def test_likely_columns_are_guessed_in_the_open_and_all_problems_come_at_once(engine):
    app = paste(opened("Your table"), "class;mean gain;std err\n7a;1,5;0\n7b;x;-1\n7c;2;1\n")
    text = said(app)
    assert "3 problems in 2 rows" in text and "Guessed" in text and "class" in text
    assert "Correct the cells in the table below" in text
    app = paste(app, "words;second;se\na;1;0\nb;2;-1\n")
    text = said(app)
    assert "The table has: words, second, se" in text and "must be above 0, but is -1" in text
    assert "Choose under <i>Which column is which</i>, then correct the cells" in text


def test_a_wide_table_keeps_a_handful_of_covariates_and_says_so(engine):
    names = ",".join(f"c{place}" for place in range(100))
    app = paste(opened("Your table"), f"unit,effect,se,{names}\na,1,1{',1' * 100}\nb,2,1{',2' * 100}\n")
    assert len(app.multiselect[0].value) == 8 and "92 more columns" in said(app)


def test_the_last_good_picture_stays_while_a_cell_is_wrong(engine):
    app = opened()
    table = app.session_state["data_present"].table
    good = table.assign(effect=table["effect"].where(table.index != 1, 60.0))
    app = changed(app, good)
    mean = said(app).split('class="now">')[1].split("<")[0]
    app = changed(app, good.assign(se=0.0))
    text = said(app)
    assert "Paused" in text and "in the table above" in text and f'class="now">{mean}<' in text


def test_download_of_hostile_names_is_inert(engine):
    app = paste(opened("Your table"), 'unit,effect,se\n"=HYPERLINK(""http://x"")",1,1\n@b,2,1\n')
    dataset = check(SCHOOLS, app.session_state["data_brought"]).dataset
    found = pd.read_csv(io.StringIO(csv_text(dataset.table)))
    assert [name[0] for name in found["unit"]] == ["'", "'"]
