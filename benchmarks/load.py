"""Fifty sessions at once: the server's answer to each, its memory, and sliders while fits run.

``python -m benchmarks load [--minutes=3] [--pure] [--no-browser]``. The full length is that of the promise
about memory. Some of the crowd open links and walk through pages; with ``--pure`` all only move priors.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import numpy as np

from benchmarks.row import NotMeasured, Row, percentile, show
from hbm_core.models.prior import Prior
from hbm_core.store.jobs import Job, JobTable
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from tests.browser.server import ROOT, Server, browse, chromium, serve, settled
from tests.browser.visitor import Heard, Visitor

SESSIONS, EVERY, MINUTES = 50, 5.0, 12.5
#: Of the sessions: those that open links instead of moving sliders, and those that visit other pages too.
BY_LINK, WANDERERS, PAGES = 5, 5, ("shrinkage", "trace")
#: Sessions that ask for one fit, and for a fit each.
SAME, DIFFERENT = 20, 20
#: Seconds between two looks at the memory; minutes between which its growth counts, in a full run.
LOOK, FROM, TO = 10.0, 2.0, 12.0
FIT_DRAWS, LONGEST = 10_000, 300.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Crowd:
    """Who comes, and for how long.

    Parameters
    ----------
    minutes : float
        At work.
    by_link, wanderers : int
        Of the sessions: those that open links instead of moving sliders, those that visit other pages too.
    browser : bool
        Whether a real browser is among them, where there is one.
    """

    minutes: float = MINUTES
    by_link: int = BY_LINK
    wanderers: int = WANDERERS
    browser: bool = True

    @classmethod
    def asked(cls, arguments: list[str]) -> Crowd:
        """The crowd that a command line asks for."""
        given = [argument.partition("=")[2] for argument in arguments if argument.startswith("--minutes=")]
        crowd = cls(float(given[-1]) if given else MINUTES, browser="--no-browser" not in arguments)
        return replace(crowd, by_link=0, wanderers=0) if "--pure" in arguments else crowd


@dataclass
class Seen:
    """What was measured, in seconds and bytes."""

    opened: list[float] = field(default_factory=list)
    moves: list[Heard] = field(default_factory=list)
    links: list[Heard] = field(default_factory=list)
    visits: list[Heard] = field(default_factory=list)
    browser: list[float] = field(default_factory=list)
    #: Minute, bytes of the web process, bytes of the workers.
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    late: int = 0

    @property
    def growth(self) -> float:
        """Percent by which the web process grew from minute `FROM` to `TO`, or over a shorter run's rest."""
        last = min(TO, self.memory[-1][0])
        first = FROM * last / TO
        at = {end: min(self.memory, key=lambda look: abs(look[0] - end)) for end in (first, last)}
        return 100 * (at[last][1] / at[first][1] - 1)


class Process:
    """A process and those it started: their memory and their processor time, from /proc."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        if not Path(f"/proc/{pid}/statm").exists():
            raise NotMeasured("this system has no /proc to look into")

    @property
    def cpu(self) -> float:
        """Seconds of processor time of the process itself."""
        given = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(given[11]) + int(given[12])) / _TICKS

    @property
    def memory(self) -> float:
        """Resident bytes of the process itself."""
        return _resident(self.pid)

    @property
    def memory_of_children(self) -> float:
        """Resident bytes of what it started."""
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        return sum(_resident(int(child)) for path in children for child in path.read_text().split())


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


# ---- what sessions do ----


def another(random: np.random.Generator) -> dict[str, Prior]:
    """Priors that no other session and no earlier step had, so that no posterior is served from a cache."""
    spread, scale = (float(f"{value:.7g}") for value in random.uniform((2, 5), (20, 40)))
    return {"tau": Prior("HalfCauchy", (spread,)), "mu": Prior("Normal", (0.0, scale))}


async def every(seconds: float, until: float, act: Callable[[], Awaitable[object]], seen: Seen) -> None:
    """Act at a fixed rate, whatever the answers take; a turn that was missed is counted."""
    turn = time.perf_counter()
    while turn < until:
        await asyncio.sleep(max(0.0, turn - time.perf_counter()))
        await act()
        turn += seconds
        while turn < time.perf_counter():
            turn += seconds
            seen.late += 1


async def session(
    visitor: Visitor, number: int, until: float, seen: Seen, crowd: Crowd, rate: float = EVERY
) -> None:
    """One person at work."""
    random = np.random.default_rng((number, 2024))
    await asyncio.sleep(rate * float(random.uniform()))
    wanders = number >= SESSIONS - crowd.wanderers
    links = not wanders and number >= SESSIONS - crowd.wanderers - crowd.by_link

    async def act() -> None:
        priors = another(random)
        if links:
            query = Study.default("schools").change(priors=priors).query
            seen.links.append(await visitor.link(query, priors))
            return
        seen.moves.append(await visitor.move(**priors))
        if wanders:
            await asyncio.sleep(1.0)
            seen.visits.append(await visitor.visit(PAGES[len(seen.visits) % len(PAGES)]))
            await asyncio.sleep(1.0)
            await visitor.visit("")

    await every(rate, until, act, seen)


def in_browser(server: Server, ended: Event, seen: Seen) -> None:
    """A real browser among the others: a slider moved by a key, until the server's own numbers are drawn."""
    script = Path(__file__).with_name("browser.js")
    with browse() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(path=script)
        page.goto(server.url)
        page.evaluate("bench.opened")
        settled(page)
        page.evaluate("bench.focusSlider()")
        step = 0
        while not ended.wait(EVERY):
            page.evaluate("bench.watchEcho()")
            page.keyboard.press("ArrowRight" if step % 2 else "ArrowLeft")
            seen.browser.append(page.evaluate("bench.wait") / 1000)
            step += 1


async def watch_memory(process: Process, began: float, until: float, seen: Seen) -> None:
    while time.perf_counter() < until:
        minute = (time.perf_counter() - began) / 60
        seen.memory.append((minute, process.memory, process.memory_of_children))
        await asyncio.sleep(LOOK)


# ---- phases ----


async def together(server: Server, visitors: list[Visitor], crowd: Crowd) -> tuple[Seen, float]:
    """All sessions at work for some minutes; what was seen, and processor seconds per answer."""
    seen, process = Seen(), Process(server.process.pid)

    async def come(place: int, visitor: Visitor) -> None:
        await asyncio.sleep(0.2 * place)
        began = time.perf_counter()
        await visitor.open()
        seen.opened.append(time.perf_counter() - began)

    await asyncio.gather(*(come(place, visitor) for place, visitor in enumerate(visitors)))
    began, spent, ended = time.perf_counter(), process.cpu, Event()
    until = began + 60 * crowd.minutes
    with ThreadPoolExecutor(1) as pool:
        wanted = crowd.browser and chromium()
        real = pool.submit(in_browser, server, ended, seen) if wanted else None
        try:
            await asyncio.gather(
                watch_memory(process, began, until, seen),
                *(session(visitor, number, until, seen, crowd) for number, visitor in enumerate(visitors)),
            )
            spent = process.cpu - spent
        finally:
            ended.set()
        if real is not None:
            await asyncio.wrap_future(real)
    answers = len(seen.moves) + len(seen.links) + 2 * len(seen.visits) + len(seen.browser)
    seen.errors += [error for visitor in visitors for error in visitor.errors]
    return seen, spent / answers


@dataclass
class Fitted:
    """What came of the fits that many sessions asked for at once."""

    seen: Seen
    seconds: float
    jobs: list[Job]
    most: int
    places: int
    spent: float
    began: float


async def fits(server: Server, visitors: list[Visitor]) -> Fitted:
    """`SAME` sessions ask for one fit and `DIFFERENT` for one each, while the rest moves sliders."""
    seen, process = Seen(), Process(server.process.pid)
    random = np.random.default_rng(77)
    one = another(random)
    askers, movers = visitors[: SAME + DIFFERENT], visitors[SAME + DIFFERENT :]
    query = Study.default("schools").query | {"draws": str(FIT_DRAWS)}
    wanted = [one] * SAME + [another(random) for _ in range(DIFFERENT)]
    for asker, priors in zip(askers, wanted, strict=True):
        texts = {f"prior.{name}": prior.text for name, prior in priors.items()}
        await asker.link(query | texts, priors)
    told: set[int] = set()
    most, done = 0, Event()
    spent = process.cpu

    async def look() -> None:
        nonlocal most
        while not done.is_set():
            try:
                most = max(most, (await asyncio.to_thread(server.health))["running"])
            except OSError as problem:
                seen.errors.append(f"health: {problem}")
            told.update(
                place for place, asker in enumerate(askers) if asker.explorer["fit"]["state"] == "queued"
            )
            await asyncio.sleep(0.1)

    async def ask(asker: Visitor) -> None:
        await asker.trigger("fit")
        await asker.until(lambda: asker.explorer["fit"]["state"] in ("done", "failed"), LONGEST)

    async def move(number: int, mover: Visitor) -> None:
        own = np.random.default_rng((number, 4202))
        while not done.is_set():
            seen.moves.append(await mover.move(**another(own)))
            await asyncio.sleep(1.0 + float(own.uniform(-0.2, 0.2)))

    began = time.perf_counter()
    others = asyncio.gather(look(), *(move(number, mover) for number, mover in enumerate(movers)))
    try:
        await asyncio.gather(*(ask(asker) for asker in askers))
    finally:
        done.set()
    seconds = time.perf_counter() - began
    await others
    seen.errors += [error for visitor in visitors for error in visitor.errors]
    with JobTable(Settings(server.store).table) as table:
        jobs = table.jobs()
    return Fitted(seen, seconds, jobs, most, len(told), process.cpu - spent, began)


async def measure(server: Server, crowd: Crowd) -> list[Row]:
    visitors = [Visitor(server.url) for _ in range(SESSIONS)]
    try:
        seen, cost = await together(server, visitors, crowd)
        fitted = await fits(server, visitors[: SESSIONS - WANDERERS])
    finally:
        await asyncio.gather(*(visitor.close() for visitor in visitors))
    return [*crowd_rows(seen, cost, crowd), *fit_rows(fitted)]


def _ms(values: list[float | None]) -> tuple[float, float, float]:
    """Median, 95 % and longest, in milliseconds; an answer that never came is infinitely late."""
    known = [1000 * value if value is not None else np.inf for value in values]
    if not known:
        return (np.nan,) * 3
    return statistics.median(known), percentile(known, 0.95), max(known)


def crowd_rows(seen: Seen, cost: float, crowd: Crowd) -> list[Row]:
    middle, late, longest = _ms([move.finished for move in seen.moves])
    picture = _ms([move.picture for move in seen.moves])
    size = statistics.median(move.bytes for move in seen.moves) / 1000
    among = f", {crowd.wanderers} of them on other pages too" if crowd.wanderers else ""
    label = f"{SESSIONS} sessions{among}, a prior every {EVERY:g} s"
    minutes, web, workers = seen.memory[-1]
    rows = [
        Row(f"{label}: server's answer, median", middle, "ms", note=f"{len(seen.moves):,} moves"),
        Row(f"{label}: server's answer, 95 %", late, "ms", 200, note=f"longest {longest:.0f} ms"),
        Row("of it until the picture was on its way, 95 %", picture[1], "ms", note=f"{size:.0f} kB a move"),
    ]
    if seen.links:
        link = _ms([one.finished for one in seen.links])
        note = f"{len(seen.links):,} links"
        rows.append(Row("the same by opening links, 95 %", link[1], "ms", 200, note=note))
    if seen.visits:
        middle_page, late_page, _ = _ms([one.finished for one in seen.visits])
        note = f"median {middle_page:.0f} ms"
        rows.append(Row("a visit to Shrinkage or Trace among them, 95 %", late_page, "ms", note=note))
    rows += [
        Row("errors shown, connections lost", len(seen.errors), target=0, note="; ".join(seen.errors[:2])),
        Row("processor time of the web process per answer", 1000 * cost, "ms"),
        Row(
            "memory of the web process, growth from minute 2 to minute 12",
            seen.growth, "%", 10,
            note=f"{web / 1e6:.0f} MB after {minutes:.1f} minutes; workers {workers / 1e6:.0f} MB",
        ),
        Row(f"page opened by one of {SESSIONS}, without a browser, 95 %", percentile(seen.opened, 0.95), "s"),
    ]  # fmt: skip
    if seen.browser:
        echo = _ms(list(seen.browser))
        note = f"in a real browser; 150 ms of it waiting for the hand to rest; 95 % {echo[1]:.0f} ms"
        rows.insert(
            3, Row("the same until the server's own numbers are drawn, median", echo[0], "ms", note=note)
        )
    return rows


def fit_rows(fitted: Fitted) -> list[Row]:
    seen, jobs = fitted.seen, fitted.jobs
    runs = [job for job in jobs if job.attempts]
    done = sum(job.state == "done" for job in jobs)
    shared = sum(job.attempts for job in jobs) - DIFFERENT
    middle, late, longest = _ms([move.finished for move in seen.moves])
    label = f"{SAME} sessions ask for one fit, {DIFFERENT} for one each"
    return [
        Row(f"{label}: runs for the one", shared, target=1, note=f"{len(runs)} runs in all"),
        Row(
            "of these fits, finished", done, target=DIFFERENT + 1, better="more",
            note=f"{fitted.seconds:.0f} s in all, 4 × {FIT_DRAWS:,} draws each",
        ),
        Row("most of them at once", fitted.most, target=Settings().workers),
        Row("sessions that saw their place in the queue", fitted.places),
        Row("prior moved meanwhile: answer, median", middle, "ms", note=f"{len(seen.moves):,} moves"),
        Row("prior moved meanwhile: answer, 95 %", late, "ms", 200, note=f"longest {longest:.0f} ms"),
        Row("errors shown, connections lost meanwhile", len(seen.errors), target=0),
        Row("processor time of the web process meanwhile", fitted.spent / fitted.seconds, "cores"),
    ]  # fmt: skip


def rows() -> list[Row]:
    """Serve the app with a store of its own, send a crowd, measure."""
    crowd = Crowd.asked(sys.argv)
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder) / "store", Path(folder) / "log") as server,
    ):
        until = time.monotonic() + 300
        while server.health()["workers"] < Settings().workers:
            if time.monotonic() > until:
                raise RuntimeError("no worker became ready")
            time.sleep(0.2)
        return asyncio.run(measure(server, crowd))


if __name__ == "__main__":
    os.chdir(ROOT)
    show(rows())
