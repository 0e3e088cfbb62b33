"""Acts that overtake each other on their way: each counts, in the order of the hand."""

from __future__ import annotations

from urllib.parse import parse_qs

import numpy as np
import pytest

from hbm_core.models.prior import Prior
from hbm_core.store.jobs import JobTable
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from tests.asynchronous import run
from tests.browser.server import Server
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.browser
TAU = Prior("HalfCauchy", (6.5,))


def test_a_fit_that_comes_with_a_moved_prior_is_of_that_prior(server: Server) -> None:
    query = {"scenario": "schools", "seed": "20260732"}

    async def visit() -> Visitor:
        visitor = Visitor(server.url)
        await visitor.open(query)
        try:
            await visitor.move_and_fit(tau=TAU)
            await visitor.until(lambda: visitor.explorer["fit"]["state"] in ("done", "failed"))
        finally:
            await visitor.close()
        return visitor

    visitor = run(visit())
    assert visitor.errors == [] and visitor.explorer["fit"]["state"] == "done"
    asked = Study.from_query(query)
    with JobTable(Settings(server.store).table) as table:
        moved = asked.change(priors={"tau": TAU})
        assert table.get(moved.request(moved.data()).digest) is not None
        assert table.get(asked.request(asked.data()).digest) is None


def test_an_act_sent_with_the_address_of_before_takes_nothing_back(server: Server) -> None:
    async def visit() -> tuple[Visitor, str]:
        visitor = Visitor(server.url)
        await visitor.open({"scenario": "schools"})
        try:
            before = visitor.query
            await visitor.move(tau=TAU)
            await visitor.select("C", query=before)
        finally:
            await visitor.close()
        return visitor, before

    visitor, before = run(visit())
    assert visitor.errors == []
    assert visitor.explorer["posterior"]["priors"]["tau"]["numbers"] == [6.5]
    assert visitor.explorer["focus"] == "C" and "prior.tau" not in before


def test_back_takes_back_and_forward_returns(server: Server) -> None:
    async def visit() -> list[float]:
        visitor, scales = Visitor(server.url), []
        await visitor.open({"scenario": "schools"})
        try:
            for scale in (6.5, 7.5):
                await visitor.move(tau=Prior("HalfCauchy", (scale,)))
            newest = {name: values[0] for name, values in parse_qs(visitor.query).items()}
            for scale in (6.5, 7.5):
                prior = Prior("HalfCauchy", (scale,))
                await visitor.link(newest | {"prior.tau": prior.text}, {"tau": prior})
                scales += visitor.explorer["posterior"]["priors"]["tau"]["numbers"]
        finally:
            await visitor.close()
        assert visitor.errors == []
        return scales

    np.testing.assert_array_equal(run(visit()), [6.5, 7.5])
