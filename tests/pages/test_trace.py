"""The page Trace as a person meets it: before, while and after a fit, and what the lab proves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from hbm_core.scenarios import scenarios
from hbm_core.ui import trace_page
from tests.pages.fitted import SESSION, engine, publish, run, study

__all__ = ["engine"]
PAGE = Path(__file__).parents[2] / "pages" / "trace.py"


def opened(chosen=None, section: str = "Traces") -> AppTest:
    app = AppTest.from_file(str(PAGE), default_timeout=240)
    app.session_state["study"] = chosen or study()
    app.session_state["session_token"] = SESSION
    app.session_state["trace_section"] = section
    app.run()
    assert not app.exception, [problem.value for problem in app.exception]
    return app


def said(app: AppTest) -> str:
    """Everything written on the page, markup included."""
    parts = [element.proto.body for element in app.get("html")]
    parts += [item.value for kind in (app.markdown, app.info, app.warning, app.caption) for item in kind]
    return "\n".join(parts).replace("\xa0", " ")


def figures(app: AppTest) -> list[str]:
    specs = [json.loads(element.proto.spec) for element in app.get("plotly_chart")]
    return [json.dumps(spec, ensure_ascii=False, separators=(",", ":")) for spec in specs]


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_before_any_fit_it_says_what_to_do_and_shows_the_exact_outlines(engine):
    app = opened()
    assert "No draws yet" in said(app) and "finds the exact posterior" in said(app) and "Fit" in labels(app)
    (figure,) = figures(app)
    assert '"name":"exact"' in figure and '"name":"chain 1"' not in figure
    app.button(key="trace_fit").click().run()
    assert [job.state for job in engine.jobs(SESSION)] == ["queued"]


def test_while_it_runs_traces_grow_and_it_can_be_cancelled(engine):
    id = run(engine, study())
    app = opened()
    text = said(app)
    assert "the exact answer waits beside them" in text
    assert "chain 4, sampling" in text and "40 %" in text and "about 12 s left" in text
    assert "✕ 9 diverged" in text
    (figure,) = figures(app)
    assert '"name":"chain 4"' in figure and '"name":"exact"' in figure
    app.button(key="trace_cancel").click().run()
    assert engine.status(id).stopping


def test_sound_draws_are_said_to_be_sound(engine):
    publish(engine, study())
    text = said(opened())
    assert "1,200 draws pass every check" in text
    assert "none of their 10 parameters" in text
    assert "✕" not in text


#: All sections of the default model; of others those that differ.
CASES = [(section, "weak") for section in trace_page.SECTIONS] + [
    (section, model)
    for section in ("Table", "Funnel", "Parallel")
    for model in ("complete", "none", "robust_effects", "covariates", "adaptive")
]


@pytest.mark.parametrize(("section", "model"), CASES)
def test_every_section_draws_for_every_kind_of_model(engine, section, model):
    changes = {"model": model}
    if model == "covariates":
        changes |= {"dataset": "bcg", "covariates": ("latitude",)}
    publish(engine, study(**changes), diverging=0.02)
    app = opened(study(**changes), section)
    if section == "Funnel" and model in ("complete", "none"):
        assert app.info and not figures(app), "no picture, and the reason why"
        return
    assert figures(app) or 'class="params"' in said(app)
    assert "How to read this." in said(app)


def test_divergences_are_counted_placed_and_answered(engine):
    centered = study(parameterization="centered")
    publish(engine, centered, diverging=0.02)
    app = opened(centered)
    text = said(app)
    assert "24 of 1,200 draws diverged" in text
    assert "neck of the funnel" in text and "centered sampler" in text
    assert "24 of 1,200" in text and "✕" in text
    app.button(key="trace_remedy").click().run()
    asked = {engine.request(job.id).parameterization for job in engine.jobs(SESSION)}
    assert asked == {"centered", "noncentered"}


def test_draws_from_another_posterior_are_not_called_sound(engine):
    publish(engine, study(), shift=1.5)
    text = said(opened())
    assert "not to be read yet" in text and "agreement with the exact posterior" in text
    table = said(opened(section="Table"))
    assert "do not agree with the exact posterior" in table


def test_a_fit_that_stopped_early_says_so(engine):
    publish(engine, study(), partial=True)
    assert "It stopped early" in said(opened())


def test_a_damaged_result_is_told_and_fitted_again(engine):
    id = publish(engine, study())
    file = engine.results.path(id) / "posterior.nc"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    app = opened()
    assert "cannot be read" in said(app)
    app.button(key="trace_refit").click().run()
    assert engine.status(id).state == "queued"


def test_a_failed_fit_gives_its_reason(engine):
    id = run(engine, study())
    engine.table.fail(id, "test", "No chain found a starting point.")
    text = said(opened())
    assert "No chain found a starting point." in text


def test_the_selected_unit_is_shared_and_shown(engine):
    publish(engine, study())
    app = opened()
    app.selectbox(key="trace_unit").select("C").run()
    assert app.session_state["study"].unit == "C"
    assert any("θ C" in figure for figure in figures(app))


def test_the_lab_asks_for_every_geometry_with_the_same_everything_else(engine):
    app = opened(section=trace_page.LAB)
    app.button(key="lab_run").click().run()
    requests = [engine.request(job.id) for job in engine.jobs(SESSION)]
    assert {request.parameterization for request in requests} == {
        "centered",
        "noncentered",
        "partial",
        "collapsed",
    }
    rest = {
        tuple(sorted((k, str(v)) for k, v in r.as_dict().items() if k != "parameterization"))
        for r in requests
    }
    assert len(rest) == 1
    assert not app.exception and "Waits" in said(app)


def test_the_lab_proves_the_posterior_the_same_and_counts_divergences(engine):
    for name in study().declared.parameterizations:
        publish(engine, study(parameterization=name), diverging=0.02 if name == "centered" else 0.0)
    app = opened(section=trace_page.LAB)
    text = said(app)
    assert "and all agree with exact within 4 Monte Carlo errors" in text
    assert "✕ 24" in text
    (figure,) = figures(app)
    assert "Mean minus exact, MCSE" in figure
    assert "lab_use" in [button.key for button in app.button] or "in use" in text


def test_the_lab_is_honest_where_there_is_one_geometry(engine):
    assert "one geometry" in said(opened(study(model="complete"), trace_page.LAB))


def test_names_are_text(engine):
    assert trace_page.symbol("theta[<b>x</b>]") == "θ <b>x</b>"
    bad = "<script>alert(1)</script>"
    data = study().data()
    titles = trace_page.titled(
        type("L", (), {"dataset": data, "study": study(), "spec": study().spec(data)})(), [f"theta[{bad}]"]
    )
    assert "<script" not in titles[f"theta[{bad}]"]


@pytest.mark.parametrize("name", sorted(scenarios()))
def test_every_geometry_has_a_name_and_says_what_it_samples(name):
    used = {one for model in scenarios()[name].models.values() for one in model.parameterizations}
    assert used <= set(trace_page.GEOMETRIES)
    assert all(title and words for title, words in trace_page.GEOMETRIES.values())
