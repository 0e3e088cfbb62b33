"""Two people in two browsers on one server: each sees their own, and another's only by its link."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

import pandas as pd
import pytest
import xarray as xr
from playwright.sync_api import Browser, Page, expect

from hbm_core.inference.sampler import Sampler
from hbm_core.scenarios import scenario
from hbm_core.store.access import owner_name
from hbm_core.store.local import LocalEngine
from hbm_core.store.results import Result
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from tests.browser.server import PATIENCE, Server, settled

pytestmark = pytest.mark.browser
REFUSED = "could not be opened"


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    settled(page)
    return page


def left_by(server: Server, owner: str) -> tuple[str, str]:
    """An upload and a finished fit of it, as the pages leave them; digest of the data and id of the fit."""
    table = pd.DataFrame({"unit": list("abcd"), "effect": [1.0, 2.0, 5.0, 3.0], "se": [1.0, 1.5, 2.0, 1.0]})
    with LocalEngine(Settings(store=server.store)) as engine:
        data = scenario("schools").read(table)
        digest = engine.upload(data, owner, "<b>salaries</b>.csv")
        study = Study.default("schools").change(dataset=digest, sampler=Sampler(draws=11, tune=10))
        request = study.request(data)
        id = engine.submit(request, data, owner, "Our salaries")
        if (job := engine.table.claim("this-test", 60, only=id)) is not None:
            tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"mu": ("draw", [1.0, 2.0])})})
            size = engine.results.publish(job.ask, Result(tree, {"diagnostics": {"draws": 11, "chains": 4}}))
            engine.table.finish(id, "this-test", size, False)
        engine.wait(id, PATIENCE)
    return digest, id


def test_each_browser_sees_its_own_and_anothers_only_by_its_link(server: Server, browser: Browser) -> None:
    contexts = [browser.new_context(viewport={"width": 1280, "height": 900}) for _ in range(2)]
    try:
        for context in contexts:
            context.set_default_timeout(1000 * PATIENCE)
        ann, bob = (context.new_page() for context in contexts)
        opened(ann, f"{server.url}/fits")
        (cookie,) = [one for one in contexts[0].cookies() if one["name"] == "hbm_visitor"]
        assert cookie["httpOnly"] and cookie["sameSite"] == "Lax" and cookie["path"] == "/"
        assert "hbm_visitor" not in ann.evaluate("document.cookie")
        digest, _ = left_by(server, owner_name("visitor", cookie["value"]))

        for _ in range(2):
            opened(ann, f"{server.url}/fits")
            expect(ann.get_by_text("Our salaries")).to_be_visible()
            expect(ann.get_by_text("<b>salaries</b>.csv")).to_be_visible()
        (again,) = [one for one in contexts[0].cookies() if one["name"] == "hbm_visitor"]
        assert again["value"] == cookie["value"]

        opened(bob, f"{server.url}/fits")
        expect(bob.get_by_text("salaries")).to_have_count(0)
        said = []
        for query in ({"dataset": digest}, {"dataset": digest, "key": "A" * 24}, {"dataset": "0" * 64}):
            opened(bob, f"{server.url}/fits?{urlencode(query)}")
            notice = bob.get_by_text(REFUSED)
            expect(notice).to_be_visible()
            said.append(notice.inner_text().replace(query["dataset"][:12], "…"))
            assert digest not in bob.url
        assert len(set(said)) == 1, "whether there are such data is told to nobody"

        opened(ann, f"{server.url}/fits?dataset={digest}")
        ann.wait_for_url("**key=**")
        link = ann.url
        assert len(parse_qs(urlsplit(link).query)["key"][0]) >= 22
        for _ in range(2):
            opened(bob, link)
            expect(bob.get_by_text(REFUSED)).to_have_count(0)
            assert digest in bob.url
        opened(bob, f"{server.url}/fits")
        expect(bob.get_by_text("Our salaries")).to_have_count(0)
        expect(bob.get_by_text("Data from a link")).to_be_visible()

        opened(ann, f"{server.url}/fits")
        ann.get_by_role("button", name="Delete my data").click()
        ann.get_by_role("button", name="Delete everything of mine").click()
        expect(ann.get_by_text("Deleted: 1 fit and 1 upload.")).to_be_visible()
        settled(ann)
        expect(ann.get_by_text("Our salaries")).to_have_count(0)
        opened(bob, link)
        expect(bob.get_by_text(REFUSED)).to_be_visible()
        with LocalEngine(Settings(store=server.store)) as engine:
            assert engine.uploaded(digest) is None
    finally:
        for context in contexts:
            context.close()
