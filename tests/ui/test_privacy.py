"""Two people's sessions on one server, without a browser: what the frame and the page Fits show to whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from hbm_core.errors import InputError
from hbm_core.scenarios import scenario
from hbm_core.scenarios.tables import read_table
from hbm_core.store.access import owner_name, visitor_token
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from hbm_core.ui import session
from tests.pages.fitted import engine
from tests.pages.test_trace import said

__all__ = ["engine"]
ROOT = Path(__file__).parents[2]
ANN, BOB = "the-session-of-ann", "the-session-of-bob"


def table(shift=0.0):
    return pd.DataFrame({"unit": list("abc"), "effect": [1.0 + shift, 2.0, 4.0], "se": [1.0, 1.5, 2.0]})


@pytest.fixture
def digest(engine):
    return engine.upload(scenario("schools").read(table()), ANN, "<i>salaries</i>.csv")


def opened(who, query=None):
    """The page Fits as `who` sees it, opened with a link's parameters."""
    app = AppTest.from_file(str(ROOT / "pages" / "fits.py"), default_timeout=240)
    app.session_state["session_token"] = who
    for name, value in (query or {}).items():
        app.query_params[name] = value
    run(app)
    # What the frame around the page does: the address is read once.
    app.session_state["study_written_queries"] = [dict(query or {})]
    return app


def run(app):
    app.run()
    assert not app.exception, [problem.value for problem in app.exception]
    return app


def study_of(app):
    return app.session_state["study"]


def notice_of(app):
    return app.session_state["study_notice"] if "study_notice" in app.session_state else ""  # noqa: SIM401


def test_a_link_without_its_key_shows_the_default_study_and_tells_nothing(engine, digest):
    key = engine.link_key(digest, ANN)
    tampered = [{}, {"key": "A" * 24}, {"key": key[:-1]}, {"key": key + "A"}]
    told = {"0" * 64: None, digest: None}
    for data in told:
        notices = set()
        for more in tampered:
            app = opened(BOB, {"dataset": data, **more})
            assert study_of(app).query == Study.default().query
            notices.add(notice_of(app).replace(data[:12], "…"))
        (told[data],) = notices
    assert told[digest] == told["0" * 64] != ""
    assert engine.uploads(BOB) == []


def test_a_link_with_its_key_lets_in_and_reload_goes_on(engine, digest):
    key = engine.link_key(digest, ANN)
    app = opened(BOB, {"dataset": digest, "key": key})
    assert study_of(app).dataset == digest and not notice_of(app)
    assert study_of(opened(BOB, {"dataset": digest})).dataset == digest
    assert "Data from a link" in said(app) and "salaries" not in said(app)
    assert study_of(opened("eve", {"dataset": digest})).dataset != digest


def test_ones_own_address_carries_the_key_and_public_ones_none(engine, digest, monkeypatch):
    monkeypatch.setattr(session, "owner", lambda: ANN)
    study = Study.default().change(dataset=digest)
    assert session.address(study) == study.query | {"key": engine.link_key(digest, ANN)}
    assert session.address(Study.default()) == Study.default().query
    monkeypatch.setattr(session, "owner", lambda: BOB)
    assert session.address(study) == study.query


def test_the_list_of_uploads_is_ones_own_and_inert(engine, digest):
    app = opened(ANN)
    assert "&lt;i&gt;salaries&lt;/i&gt;.csv" in said(app) and "<i>salaries" not in said(app)
    assert "salaries" not in said(opened(BOB))
    app.button(key=f"fits_drop_{digest}").click().run()
    assert engine.may_use(digest, ANN), "asked first"
    app.button(key="fits_drop_yes").click().run()
    assert not app.exception and not engine.may_use(digest, ANN)
    assert engine.uploaded(digest) is None


def test_delete_my_data_says_what_went_and_returns_to_the_default_study(engine, digest):
    engine.upload(scenario("schools").read(table()), BOB)
    own = engine.upload(scenario("schools").read(table(1)), ANN)
    app = opened(ANN, {"dataset": own})
    assert study_of(app).dataset == own
    app.button(key="fits_erase").click().run()
    app.button(key="fits_erase_yes").click().run()
    assert not app.exception and engine.uploads(ANN) == []
    assert notice_of(app) == "Deleted: 1 upload. 1 upload stays for others, without any trace of you."
    assert study_of(app).query == Study.default().query
    assert engine.may_use(digest, BOB)
    assert "fits_erase" not in [button.key for button in app.button]


def test_a_fit_of_an_upload_bears_its_name_for_its_owner_alone(engine, digest):
    opened(ANN, {"dataset": digest}).button(key="fits_fit").click().run()
    (job,) = engine.jobs(ANN)
    assert job.label == "<i>salaries</i>.csv, weak" and not job.public
    assert engine.table.get(job.id).label == "Your data, weak"


def test_a_table_over_a_limit_is_told_which_setting_raises_it():
    from hbm_core.ui.data_page import _raised

    for limits, variable in (
        ({"most_bytes": 2**20}, "HBM_UPLOAD_MB"),
        ({"most_rows": 3}, "HBM_UPLOAD_ROWS"),
        ({"most_columns": 2}, "HBM_UPLOAD_COLUMNS"),
    ):
        content = b"unit,effect,se\n" + b"a,1,1\n" * 200_000
        with pytest.raises(InputError) as refused:
            read_table(content, "a.csv", **limits)
        assert variable in _raised(refused.value.expected)
    assert _raised("at least 2 rows") == ""


def test_the_pages_offer_no_more_replications_than_the_server_allows(engine, monkeypatch):
    from hbm_core.ui.coverage_page import REPLICATIONS, within

    assert within(REPLICATIONS) == REPLICATIONS
    for most, offered in ((500, (100, 200, 500)), (99, (99,))):
        monkeypatch.setattr(engine, "settings", Settings(store=engine.settings.store, max_replications=most))
        assert within(REPLICATIONS) == offered


def test_the_command_line_keeps_to_the_limits_too(monkeypatch, capsys):
    from hbm_core import cli

    monkeypatch.setenv("HBM_MAX_REPLICATIONS", "50")
    for name in ("coverage", "sbc"):
        monkeypatch.setattr("sys.argv", ["hbm", name, "schools", "--replications", "51"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2 and "HBM_MAX_REPLICATIONS" in capsys.readouterr().err


def test_serve_gives_the_limits_to_the_browsers_side(monkeypatch, tmp_path):
    from hbm_core import cli

    given = []
    monkeypatch.setenv("HBM_UPLOAD_MB", "7")
    monkeypatch.setenv("HBM_ALLOWED_HOSTS", "app.example.com, *.example.org")
    monkeypatch.setattr("os.execv", lambda path, line: given.extend(line))
    monkeypatch.setattr("os.chdir", lambda path: None)
    monkeypatch.setattr("os.environ", dict(os.environ))
    monkeypatch.setattr(cli, "_free", lambda *place: None)
    monkeypatch.setattr("sys.argv", ["hbm", "serve", "--store", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--server.maxUploadSize=7" in given
    hosts = [text for text in given if text.startswith("--server.allowedHosts")]
    assert hosts == ["--server.allowedHosts=app.example.com", "--server.allowedHosts=*.example.org"]


def test_data_deleted_elsewhere_give_way_to_the_default_study(engine, digest):
    app = opened(ANN, {"dataset": digest})
    engine.erase(ANN)
    st.cache_resource.clear()
    run(app)
    assert study_of(app).query == Study.default().query and "no longer kept" in notice_of(app)


def test_who_one_is(monkeypatch):
    state: dict[str, str] = {}
    monkeypatch.setattr(st, "session_state", state)
    cookie = visitor_token()

    class Context:
        cookies: ClassVar = {"hbm_visitor": cookie}

    class User(dict):
        to_dict = dict.copy

    monkeypatch.setattr(st, "context", Context)
    monkeypatch.setattr(st, "user", User())
    known = session.owner()
    assert known == owner_name("visitor", cookie) and cookie not in repr(state)
    monkeypatch.setattr(Context, "cookies", {})
    assert session.owner() == known, "a broken connection changes nobody's name"
    monkeypatch.setattr(st, "user", User(is_logged_in=True, iss="https://id.test", sub="42", email="a@b.c"))
    user = session.owner()
    assert user == owner_name("user", "https://id.test", "42") != known
    monkeypatch.setattr(st, "user", User(is_logged_in=False, sub="42"))
    assert session.owner() == known
    state.clear()
    Context.cookies = {"hbm_visitor": "malformed"}
    stranger = session.owner()
    assert stranger not in (known, user) and "malformed" not in stranger
    state.clear()
    assert session.owner() != stranger
