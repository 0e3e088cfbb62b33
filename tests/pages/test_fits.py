"""The page Fits as a person meets it: what is listed, what is said of it, what can be done with it."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from hbm_core.inference.sampler import Progress
from hbm_core.scenarios import scenario
from hbm_core.store.exchange import read_fit
from hbm_core.ui import fits, fits_page
from hbm_core.ui.fits_page import Entry, row_html, study_of
from tests.pages.fitted import SESSION, engine, publish, run, study
from tests.pages.test_trace import said

__all__ = ["engine"]
PAGE = Path(__file__).parents[2] / "pages" / "fits.py"


def opened(**state: object) -> AppTest:
    app = AppTest.from_file(str(PAGE), default_timeout=240)
    app.session_state["session_token"] = SESSION
    for name, value in state.items():
        app.session_state[name] = value
    app.run()
    assert not app.exception, [problem.value for problem in app.exception]
    return app


def keys(app: AppTest) -> list[str]:
    return [button.key for button in app.button if button.key]


def entry(engine, id: str) -> Entry:
    job = engine.table.get(id)
    return Entry(job, engine.request(id), engine.summary(id) if job.state == "done" else {})


def test_empty_it_says_what_to_do_next(engine):
    app = opened()
    assert "No fits yet" in said(app)
    app.button(key="fits_fit").click().run()
    assert len(engine.jobs(SESSION)) == 1


def test_a_row_says_what_it_is_and_how_sound(engine):
    publish(engine, study(parameterization="centered"), diverging=0.02)
    text = said(opened())
    assert "You have <b>1 fit</b>" in text
    assert "Centered geometry" in text and "τ ~ HalfCauchy(10)" in text and "4 × 300 draws" in text
    assert "✕ 24" in text, "divergences are marked by more than colour"
    assert "MCSE" in text and "just now" in text and "kB" in text


def test_others_fits_of_built_in_data_are_shown_without_their_levers(engine):
    id = publish(engine, study(), session="somebody-else")
    app = opened(fits_chosen=id)
    assert "<b>1 finished fit of built-in data</b> is open to everyone" in said(app)
    assert not {f"fits_delete_{id}", f"fits_pin_{id}", f"fits_save_{id}"} & set(keys(app))
    assert f"fits_open_{id}" in keys(app)


def test_private_data_of_others_are_not_listed(engine):
    publish(engine, study(dataset="simulated"), session="somebody-else")
    assert "No fits yet" in said(opened())


def test_running_and_waiting_fits_tell_how_far(engine):
    id = run(engine, study())
    waiting = study(parameterization="centered")
    data = waiting.data()
    engine.submit(waiting.request(data), data, SESSION, "Waiting")
    app = opened()
    text = said(app)
    assert "40 %, about 12 s left" in text and "Next in line." in text and "2 under way" in text
    app.button(key=f"fits_cancel_{id}").click().run()
    assert engine.status(id).stopping
    assert "Cancelling…" in said(app) and app.button(key=f"fits_cancel_{id}").disabled


def test_labels_of_partial_pinned_and_older_fits(engine):
    id = publish(engine, study(), partial=True)
    engine.pin(id)
    found = entry(engine, id)
    assert "partial" in row_html(found, time.time()) and "pinned" in row_html(found, time.time())
    assert "older" not in row_html(found, time.time())
    version = scenario("schools").model_version
    old = replace(found, request=replace(found.request, model_version=version - 1))
    assert "older model version" in row_html(old, time.time())


def test_pin_rename_and_delete(engine):
    id = publish(engine, study())
    app = opened(fits_chosen=id)
    app.button(key=f"fits_pin_{id}").click().run()
    assert engine.jobs(SESSION)[0].pinned and not engine.table.get(id).pinned, "for this person alone"
    app.text_input(key=f"fits_rename_{id}").set_value("<b>Mine</b>").run()
    app.button(key=f"fits_save_{id}").click().run()
    assert engine.jobs(SESSION)[0].label == "<b>Mine</b>"
    assert engine.table.get(id).label != "<b>Mine</b>", "the title that others see stays"
    assert "&lt;b&gt;Mine&lt;/b&gt;" in said(app) and "<b>Mine</b>" not in said(app)
    app.button(key=f"fits_delete_{id}").click().run()
    assert engine.table.get(id) is not None, "asked first"
    app.button(key="fits_delete_yes").click().run()
    assert engine.table.get(id) is None


def test_a_damaged_result_is_told_and_refit_offered(engine):
    id = publish(engine, study())
    file = engine.results.path(id) / "summary.json"
    file.write_bytes(file.read_bytes()[:-20])
    app = opened(fits_chosen=id)
    assert "summary.json" in said(app) or "damaged" in said(app)
    app.button(key=f"fits_again_{id}").click().run()
    assert engine.status(id).state == "queued"


def test_code_is_shown_with_the_data_in_it(engine):
    id = publish(engine, study())
    app = opened(fits_chosen=id)
    app.toggle(key=f"fits_code_{id}").set_value(True).run()
    (shown,) = app.code
    assert "nutpie.sample" in shown.value and "28, 8, -3" in shown.value
    compile(shown.value, "script", "exec")


def test_downloads_hold_the_fit(engine, tmp_path):
    found = entry(engine, publish(engine, study()))
    path = tmp_path / "fit.nc"
    path.write_bytes(fits_page.netcdf(found))
    back = read_fit(path)
    assert back.request.digest == found.job.id
    draws = pd.read_csv(io.StringIO(fits_page.draws_csv(found)))
    assert len(draws) == 1200 and "theta[A]" in draws
    summary = pd.read_csv(io.StringIO(fits_page.summary_csv(found))).set_index("parameter")
    assert summary.loc["mu", "mean"] == pytest.approx(draws["mu"].mean())
    assert summary.loc["tau", "q0.5"] == pytest.approx(draws["tau"].median())
    assert json.loads(fits_page.notebook(found))["nbformat"] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parameterization": "collapsed"},
        {"model": "adaptive"},
        {"dataset": "bcg", "model": "covariates", "covariates": ("latitude",)},
        {"dataset": "simulated", "data_seed": 9},
    ],
)
def test_open_is_the_inverse_of_asking(engine, changes):
    chosen = study(**changes)
    data = chosen.data()
    request = chosen.request(data)
    engine.results.save_data(data)
    back = study_of(request)
    assert back.request(back.data(engine.uploaded)).digest == request.digest
    assert study_of(request, chosen).query == chosen.query, "and its link is as short as before"


def test_changed_priors_come_back_and_defaults_stay_out_of_the_link(engine):
    from hbm_core.models.prior import Prior

    chosen = study(priors={"tau": Prior.parse("HalfNormal(5)")})
    back = study_of(chosen.request(chosen.data()))
    assert {name: prior.text for name, prior in back.priors.items()} == {"tau": "HalfNormal(5)"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """The panel is drawn outside the app here: there is no page to link to."""
    monkeypatch.setattr(fits.st, "page_link", lambda *_, **__: None)


def sidebar(chosen) -> AppTest:
    def page(chosen):
        from hbm_core.ui import fits

        fits.panel(chosen)

    app = AppTest.from_function(page, args=(chosen,), default_timeout=240)
    app.session_state["session_token"] = SESSION
    app.session_state["study"] = chosen
    return app.run()


def test_a_fit_of_others_is_called_so_and_can_be_added(engine):
    publish(engine, study(), session="somebody-else")
    app = sidebar(study())
    assert "A fit made here before" in said(app) and "Fit done" not in said(app)
    app.button(key="sidebar_add").click().run()
    assert "Fit done" in said(app) and "sidebar_add" not in keys(app)
    assert [job.state for job in engine.jobs(SESSION)] == ["done"], "nothing is computed"


def test_the_fit_of_a_shared_study_is_offered_where_one_has_none(engine):
    publish(engine, study(), session="somebody-else")
    app = opened(study=study())
    assert "exists already, made here before" in said(app) and "fits_fit" not in keys(app)
    app.button(key="fits_add").click().run()
    assert len(engine.jobs(SESSION)) == 1 and "You have <b>1 fit</b>" in said(app)


def test_cancelling_is_seen_at_once_while_the_model_is_prepared(engine):
    chosen = study()
    data = chosen.data()
    id = engine.submit(chosen.request(data), data, SESSION, "Compiling")
    assert engine.table.claim("test", 60, only=id)
    app = sidebar(chosen)
    assert "Preparing the model" in said(app)
    app.button(key="sidebar_cancel").click().run()
    assert "Cancelling…" in said(app) and app.button(key="sidebar_cancel").disabled
    assert "Preparing" not in said(app)


def test_after_sampling_it_says_what_it_is_at(engine):
    id = run(engine, study())
    engine.table.beat(id, "test", 60, Progress("saving"))
    assert "Checking and saving" in said(opened()) and "Checking and saving" in said(sidebar(study()))


@pytest.mark.parametrize(
    ("diverging", "mark", "headline"),
    [
        (0.0, "", "**Fit done**"),
        (0.0051, "! 7", "look before you trust it"),
        (0.02, "✕ 24", "do not trust it"),
    ],
)
def test_one_rule_for_the_sidebar_and_the_list(engine, diverging, mark, headline):
    publish(engine, study(), diverging=diverging)
    assert headline in said(sidebar(study()))
    assert mark in said(opened())


def test_fits_of_one_name_are_told_apart(engine):
    one = entry(engine, publish(engine, study()))
    two = entry(engine, publish(engine, study(parameterization="centered")))
    alone = replace(one, job=replace(one.job, id="x", label="Another"))
    told = fits_page.differences([one, two, alone])
    assert told == {one.job.id: ("non-centered",), two.job.id: ("centered",)}
    assert "· centered" in row_html(two, time.time(), told[two.job.id])


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([True], "<b>1 fit</b>, and it passes every check."),
        ([True, True], "<b>2 fits</b>; all pass every check."),
        ([True, None], "<b>2 fits</b>; the finished one passes every check; 1 under way."),
        ([True, False], "<b>2 fits</b>; 1 of 2 finished passes every check."),
        ([False], "<b>1 fit</b>; 0 of 1 finished pass every check."),
    ],
)
def test_the_first_sentence_counts_in_good_grammar(engine, states, expected):
    job = engine.table.get(publish(engine, study()))
    own = [
        Entry(replace(job, state="running"), None, {})
        if sound is None
        else Entry(job, None, {"diagnostics": {"divergences": 0 if sound else 1}})
        for sound in states
    ]
    assert expected in fits_page.story(own, [])
