"""Many sessions at once on the running server: each sees its own numbers, and they share a fit's one run."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.store.jobs import JobTable
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from tests.asynchronous import run
from tests.browser.server import Server
from tests.browser.visitor import Heard, Visitor

pytestmark = pytest.mark.browser
SESSIONS, MOVES, ASKERS = 50, 3, 20


def exact_means(priors: dict[str, Prior]) -> np.ndarray:
    study = Study.default("schools").change(priors=priors)
    posterior = solve(study.spec(study.data()))
    return posterior.mean[posterior.theta]


async def opened(server: Server, number: int) -> list[Visitor]:
    visitors = [Visitor(server.url) for _ in range(number)]
    await asyncio.gather(*(visitor.open() for visitor in visitors))
    return visitors


async def left(visitors: list[Visitor]) -> None:
    await asyncio.gather(*(visitor.close() for visitor in visitors))


def test_fifty_sessions_see_their_own_numbers(server: Server) -> None:
    async def move(visitor: Visitor, number: int) -> None:
        for step in range(MOVES):
            scale = 1.125 + number + step / 4
            priors = {"tau": Prior("HalfCauchy", (scale,)), "mu": Prior("Normal", (0, 30))}
            heard = await visitor.move(**priors)
            assert heard.picture is not None
            shown = visitor.explorer["posterior"]
            assert shown["priors"]["tau"]["numbers"] == [scale]
            np.testing.assert_allclose(shown["mean"], exact_means(priors), rtol=1e-9)
            assert visitor.query.count("prior.tau") == 1

    async def all_at_once() -> list[Visitor]:
        visitors = await opened(server, SESSIONS)
        try:
            await asyncio.gather(*(move(visitor, number) for number, visitor in enumerate(visitors)))
        finally:
            await left(visitors)
        return visitors

    visitors = run(all_at_once())
    assert [error for visitor in visitors for error in visitor.errors] == []
    means = {tuple(visitor.explorer["posterior"]["mean"]) for visitor in visitors}
    assert len(means) == SESSIONS


def test_a_link_that_is_opened_replaces_what_the_session_moved(server: Server) -> None:
    there = {"tau": Prior("HalfNormal", (3.25,))}

    async def visit() -> tuple[Heard, Visitor]:
        (visitor,) = await opened(server, 1)
        try:
            await visitor.move(tau=Prior("HalfCauchy", (123,)))
            heard = await visitor.link(Study.default("schools").change(priors=there).query, there)
            await visitor.visit("trace")
            await visitor.visit("")
        finally:
            await left([visitor])
        return heard, visitor

    _, visitor = run(visit())
    assert visitor.errors == []
    np.testing.assert_allclose(visitor.explorer["posterior"]["mean"], exact_means(there), rtol=1e-9)


def test_twenty_sessions_that_ask_for_one_fit_share_one_run(server: Server) -> None:
    query = {"scenario": "schools", "seed": "20260731"}

    async def ask(visitor: Visitor) -> None:
        await visitor.link(query, {})
        await visitor.trigger("fit")
        await visitor.until(lambda: visitor.explorer["fit"]["state"] in ("done", "failed"), 240)

    async def all_at_once() -> list[Visitor]:
        visitors = await opened(server, ASKERS)
        try:
            await asyncio.gather(*(ask(visitor) for visitor in visitors))
        finally:
            await left(visitors)
        return visitors

    visitors = run(all_at_once())
    assert [error for visitor in visitors for error in visitor.errors] == []
    assert {visitor.explorer["fit"]["state"] for visitor in visitors} == {"done"}
    study = Study.from_query(query)
    id = study.request(study.data()).digest
    with JobTable(Settings(server.store).table) as table:
        job = table.get(id)
        assert job is not None
        assert job.attempts == 1
        assert len(table.sessions(id, active=False)) == ASKERS
