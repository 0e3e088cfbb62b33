"""The page Coverage through Streamlit's own tester: it opens cold, and every section answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from hbm_core.ui.coverage_page import SECTIONS, Lab

PAGE = Path(__file__).parents[2] / "pages" / "coverage.py"


def opened(query: Mapping[str, str] | None = None, **lab: object) -> AppTest:
    app = AppTest.from_file(str(PAGE), default_timeout=240)
    for name, value in (query or {}).items():
        app.query_params[name] = value
    app.session_state["coverage_lab"] = Lab(**{"replications": 100, **lab})
    return app.run()


def seen(app: AppTest) -> str:
    parts = [item.value for kind in (app.markdown, app.info, app.caption) for item in kind]
    return " ".join([*parts, *(item.proto.body for item in app.get("html"))])


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_answers(name: str) -> None:
    app = opened()
    app.segmented_control(key="coverage_section").set_value(name).run()
    assert not app.exception
    assert "How to read this." in seen(app)
    assert app.get("plotly_chart") or app.dataframe
    assert app.get("download_button")


def test_a_fixed_tau_is_said_and_kept() -> None:
    app = opened()
    assert "HalfCauchy(10)" in seen(app)
    app.selectbox(key="coverage_tau").set_value(10.0).run()
    assert "true τ fixed at 10 SAT points" in seen(app)
    assert "In this world" in seen(app)
    assert app.session_state["coverage_lab"].tau == 10.0


def test_wrong_standard_errors_break_the_promise() -> None:
    app = opened(world="wrong_se", factor=2.5, tau=10.0)
    assert not app.exception
    assert "cover less than they promise" in seen(app)


def test_a_long_study_waits_for_its_button() -> None:
    app = opened(replications=10_000)
    assert "takes about" in seen(app)
    assert not app.get("plotly_chart")
    assert any(button.label == "Run" for button in app.button)


@pytest.mark.parametrize("model", ["complete", "robust", "adaptive"])
def test_models_that_the_lab_cannot_pool_say_so(model: str) -> None:
    app = opened({"model": model})
    assert not app.exception
    assert f"which {model} does not" in seen(app)


def test_a_flat_prior_has_no_truths_to_draw() -> None:
    app = opened({"prior.tau": "Flat()"})
    assert not app.exception
    app.segmented_control(key="coverage_section").set_value("Calibration").run()
    assert not app.exception
    assert "is flat" in seen(app)
