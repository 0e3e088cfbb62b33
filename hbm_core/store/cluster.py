"""The engine of a Dask cluster: the same job table and store, fits and studies computed on its workers.

The store stays where the web process is. A dispatcher takes the workers' place: it claims jobs, sends each to
the cluster, keeps its lease, writes its progress into the table, and publishes what comes back. So queue,
shared runs, attempts and pages are those of `LocalEngine`. Distributed is imported where it is used: a server
without a cluster does not pay for it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future as Later
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from hbm_core.analysis.spread import Spread, in_turn
from hbm_core.errors import FitError, InputError, StoreError
from hbm_core.inference.sampler import Progress
from hbm_core.store import remote
from hbm_core.store.engine import Status
from hbm_core.store.jobs import Job, JobTable, WorkerRow
from hbm_core.store.local import LocalEngine
from hbm_core.store.results import ResultStore, from_bytes
from hbm_core.store.retention import evict, open_table
from hbm_core.store.settings import Settings
from hbm_core.store.supervisor import OVERTIME, Supervisor
from hbm_core.store.worker import reason

#: Seconds to wait for a scheduler, until it is looked for again, between signs of life, looks at who works.
PATIENCE, AGAIN, PULSE, LOOK = 2.0, 2.0, 0.2, 1.0
#: Seconds within which a row of the table of workers was renewed if it counts.
FRESH = 60.0
#: Tasks per worker into which a study is cut at least: enough to tell of progress, few enough to be cheap.
TASKS = 16
#: And into which what is left is cut: the last tasks are small, so that the workers end together.
LEFT = 3
#: What rows of dispatchers begin with; the cluster's own workers follow after a slash.
_PREFIX = "cluster-"
#: States of a dispatcher in which nothing runs, in words for who waits; addresses are the log's.
_TROUBLE = {
    "away": "The cluster's scheduler does not answer. The fit waits, and starts when it is back.",
    "empty": "The cluster has no workers. The fit waits, and starts when one joins.",
}
_log = logging.getLogger("hbm.cluster")


def open_engine(settings: Settings | None = None) -> LocalEngine:
    """The engine that the settings ask for."""
    settings = settings or Settings.from_environment()
    return ClusterEngine(settings) if settings.scheduler else LocalEngine(settings)


def open_crew(settings: Settings) -> Supervisor:
    """What runs the jobs of a store while a server lives: its own workers, or a cluster's."""
    return Dispatcher(settings) if settings.scheduler else Supervisor(settings)


def spread_of(engine: LocalEngine) -> Spread:
    """Where an engine's studies are computed."""
    return engine.spread() if isinstance(engine, ClusterEngine) else in_turn


class ClusterEngine(LocalEngine):
    """`LocalEngine` whose jobs a `Dispatcher` sends to the cluster at `settings.scheduler`."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._spread = ClusterSpread(self.settings.scheduler)

    def close(self) -> None:
        """Release the job table and the cluster."""
        self._spread.close()
        super().close()

    def spread(self) -> Spread:
        """Computes the parts of studies on the cluster."""
        return self._spread

    def status(self, id: str) -> Status:
        """Where the fit stands; a fit that waits for the cluster says so in `error`."""
        found = super().status(id)
        if found.state == "queued" and (trouble := self.trouble()):
            return replace(found, error=trouble, warming=False)
        return found

    def trouble(self) -> str:
        """Why nothing runs at present, in words; empty where all is well."""
        return _TROUBLE.get(self._state(), "")

    def load(self) -> dict[str, Any]:
        """As `LocalEngine.load`, workers being the cluster's."""
        workers = Counter(row.state for row in self._rows() if "/" in row.name)
        return super().load() | {"workers": workers}

    def health(self) -> dict[str, Any]:
        """As `LocalEngine.health`, and the cluster's state: "ready", "empty" or "away"."""
        return super().health() | {"cluster": self._state()}

    def _state(self) -> str:
        states = {row.state for row in self._rows() if "/" not in row.name}
        return next((state for state in _TROUBLE if state in states), "ready")

    def _rows(self) -> list[WorkerRow]:
        now = time.time()
        return [
            row
            for row in self.table.workers()
            if row.name.startswith(_PREFIX) and now - row.seen < FRESH
        ]  # fmt: skip


# Connection -----------------------------------------------------------------------------------------------


def connect(scheduler: str, patience: float = PATIENCE) -> Any:
    """A client of the cluster.

    Raises
    ------
    StoreError
        No scheduler answers there.
    """
    from distributed import Client

    # It reports at length what is said here in one sentence.
    for name in ("client", "core", "comm"):
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
    try:
        return Client(scheduler, timeout=patience, set_as_default=False, name="hbm")
    except (OSError, TimeoutError, ValueError) as error:
        raise StoreError(
            f"No Dask scheduler answers at {scheduler}. Start it, or correct HBM_SCHEDULER."
        ) from error


def disconnect(client: Any) -> None:
    """Let go of a client; one that lost its scheduler is no reason to wait."""
    with suppress(Exception):
        client.close(timeout=1.0)


def task_edges(jobs: int, workers: int) -> list[int]:
    """Where the tasks of a study begin and end among its parts: the last ones have fewer parts each.

    Polychronopoulos and Kuck (1987), IEEE Transactions on Computers C-36, guided self-scheduling.

    >>> task_edges(100, 1)
    [0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84, 89, 92, 94, 96, 97, 98, 99, 100]
    """
    most, edges = -(-jobs // (TASKS * workers)), [0]
    while (left := jobs - edges[-1]) > 0:
        edges.append(edges[-1] + max(1, min(most, left // (LEFT * workers))))
    return edges


class ClusterSpread:
    """Sends the parts of a study to a cluster, and yields their answers in order; a `Spread`.

    Parameters
    ----------
    scheduler : str
        Address. The connection is made when it is first needed, and again after it was lost.
    """

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        self._client: Any = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the cluster."""
        with self._lock:
            if self._client is not None:
                disconnect(self._client)
                self._client = None

    def __call__(self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """The answers, in order.

        Raises
        ------
        StoreError
            The cluster is away, or went away.
        FitError
            A worker has other versions, or workers died again and again.
        """
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        client = self._connected()
        workers = sum(client.nthreads().values())
        if not workers:
            raise StoreError(f"The cluster at {self.scheduler} has no workers.")
        edges = task_edges(len(jobs), workers)
        asked = remote.versions()
        # Priority falls, so that the first answers come first; the name groups them on Dask's own pages.
        futures = [
            client.submit(
                remote.parts,
                function,
                jobs[start:end],
                asked,
                key=f"study-{uuid.uuid4().hex}",
                pure=False,
                priority=-place,
            )
            for place, (start, end) in enumerate(pairwise(edges))
        ]
        try:
            for future in futures:
                yield from future.result()
                future.release()
        except KilledWorker as error:
            raise FitError(
                "Workers of the cluster died again and again over this study, often for want of memory."
            ) from error
        except (FutureCancelledError, OSError) as error:
            raise StoreError(f"The cluster at {self.scheduler} went away. Try again.") from error
        finally:
            with suppress(Exception):
                client.cancel(futures)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None or self._client.status != "running":
                if self._client is not None:
                    disconnect(self._client)
                    self._client = None
                self._client = connect(self.scheduler)
            return self._client


# Fits -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Sent:
    """One job at the cluster, under the name by which the table knows who has it."""

    job: Job
    claim: str
    future: Any
    event: str
    began: float
    progress: Progress | None = None
    #: Worker that has it, starts so far, starts that are counted in the table.
    where: str = ""
    starts: int = 0
    counted: int = 1
    #: Draws so far: whether there are newer ones, and their transfer.
    fresh: bool = False
    fetching: Later[Any] | None = None
    #: Since when it is asked to stop.
    cancelled: float | None = None
    collecting: Later[tuple[int, bool]] | None = None
    beaten: float = 0.0


class Cluster:
    """Jobs of a store at a cluster: sent, watched, collected. Not for several threads at once.

    Parameters
    ----------
    settings : Settings
        Scheduler and limits.
    table, results : JobTable, ResultStore
        The store.

    Raises
    ------
    StoreError
        No scheduler answers.
    """

    def __init__(self, settings: Settings, table: JobTable, results: ResultStore) -> None:
        self.settings, self.table, self.results = settings, table, results
        self.name = f"{_PREFIX}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.sent: dict[str, Sent] = {}
        self._topic = f"hbm-{self.name}"
        self._client = connect(settings.scheduler)
        self._client.subscribe_topic(self._topic, self._heard)
        self._pool = ThreadPoolExecutor(2, "cluster")
        self._claims = 0

    @property
    def alive(self) -> bool:
        """Whether the connection stands."""
        return self._client.status == "running"

    def close(self, reason: str = "the app was stopped") -> None:
        """Let go of the cluster; what runs there stops, and waits in the table for another start."""
        for claim in list(self.sent):
            with suppress(StoreError):
                for id in self.table.release(claim, reason, counted=False):
                    self.results.drop_partial(id)
        self.sent.clear()
        disconnect(self._client)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def workers(self) -> dict[str, int]:
        """Tasks that each of the cluster's workers runs at once, by address. Raises StoreError."""
        try:
            return dict(self._client.nthreads())
        except (OSError, TimeoutError) as error:
            raise StoreError(f"The scheduler {self.settings.scheduler} does not answer.") from error

    def take(self, only: str | None = None) -> Sent | None:
        """Claim a job that waits and send it; None where there is none."""
        # A name per claim: what is said about an earlier start of the same job cannot touch this one.
        self._claims += 1
        claim = f"{self.name}-{self._claims}"
        job = self.table.claim(claim, self.settings.lease_seconds, self.settings.attempts, only)
        if job is None:
            return None
        _log.info("job %s, attempt %d", job.id[:12], job.attempts)
        if self.results.complete(job.id):
            # Published before a crash that kept the table from hearing of it.
            self._finish(job, claim, self.results.size(job.id), bool(self.results.meta(job.id)["partial"]))
            return None
        try:
            order = self._order(job, claim)
        except (StoreError, ValueError) as error:
            self.table.fail(job.id, claim, reason(error))
            return None
        future = self._client.submit(
            remote.run, order, key=f"fit-{job.id}-{claim[-12:]}", pure=False, retries=0
        )  # fmt: skip
        found = Sent(job, claim, future, order["event"], time.monotonic())
        self.sent[claim] = found
        return found

    def step(self) -> None:
        """Look after everything that was sent, once."""
        if not self.alive:
            raise StoreError(f"The scheduler {self.settings.scheduler} does not answer.")
        for one in list(self.sent.values()):
            if time.monotonic() - one.beaten >= PULSE or one.future.done():
                one.beaten = time.monotonic()
                self._look_after(one)

    # ------------------------------------------------------------------------------------------------------

    def _order(self, job: Job, claim: str) -> dict[str, Any]:
        columns = asdict(job)
        del columns["progress"]
        request = json.loads(job.request)
        versions = request.get("versions") if isinstance(request, dict) else None
        ours = remote.versions()
        data = {}
        if job.data is not None:
            self.results.dataset(job.data)
            for ending in (".arrow", ".json"):
                path = (self.results.root / "data" / job.data).with_suffix(ending)
                if path.exists():
                    data[path.name] = path.read_bytes()
        return {
            "versions": ours | dict(versions or {}),
            "job": columns,
            "data": data,
            "time_limit": self.settings.fit_seconds,
            "claim": claim,
            "topic": self._topic,
            "event": f"stop-{claim}",
        }

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take note of what a task says about itself; runs in the client's own thread."""
        _, said = event
        one = self.sent.get(said.get("claim", ""))
        if one is None:
            return
        match said["kind"]:
            case "started":
                one.where, one.starts, one.progress = said["worker"], one.starts + 1, None
            case "progress":
                one.progress = Progress.from_dict(said["progress"])
            case "partial":
                one.fresh = True

    def _look_after(self, one: Sent) -> None:
        table, id, claim = self.table, one.job.id, one.claim
        beat = table.beat(id, claim, self.settings.lease_seconds, one.progress)
        if not beat.owned:
            self._let_go(one)
            return
        if beat.cancel and one.cancelled is None:
            one.cancelled = time.monotonic()
            self._signal(one)
        if one.collecting is not None:
            self._collected(one)
        elif one.future.done():
            self._ended(one)
        elif one.starts > one.counted and one.cancelled is None:
            self._count_start(one)
        elif one.cancelled is not None and time.monotonic() - one.cancelled > self._patience(one):
            # It cannot be ended without ending its worker, which is not ours; nobody waits for it any more.
            table.stopped(id, claim)
            self._let_go(one)
        elif time.monotonic() - one.began > self.settings.fit_seconds + OVERTIME and one.starts:
            table.fail(
                id,
                claim,
                f"The fit did not end at its time limit of {self.settings.fit_seconds:g} s "
                "(HBM_FIT_SECONDS).",
            )
            self._let_go(one)
        else:
            self._fetch(one)

    def _patience(self, one: Sent) -> float:
        compiling = one.progress is None or one.progress.stage == "compiling"
        return self.settings.cancel_seconds * (10 if compiling and one.starts else 1)

    def _count_start(self, one: Sent) -> None:
        """Dask has started the job anew, because its worker died: that is an attempt of ours."""
        one.counted, one.began = one.starts, time.monotonic()
        self.results.drop_partial(one.job.id)
        now = time.time()
        changed = self.table._write(
            "UPDATE jobs SET attempts = attempts + 1, started = ?, updated = ?, progress = NULL"
            " WHERE id = ? AND state = 'running' AND worker = ? AND attempts < ?",
            (now, now, one.job.id, one.claim, self.settings.attempts),
        )
        if not changed:
            self._give_up(one, "its worker on the cluster died each time")

    def _give_up(self, one: Sent, why: str) -> None:
        """End the claim as a counted attempt: the job waits again, or fails after the last."""
        for id in self.table.release(one.claim, why, self.settings.attempts):
            self.results.drop_partial(id)
        self._let_go(one)

    def _ended(self, one: Sent) -> None:
        from distributed import KilledWorker

        match one.future.status:
            case "finished":
                one.collecting = self._pool.submit(self._collect, one)
            case "error":
                error = one.future.exception()
                if not isinstance(error, KilledWorker):
                    self._fail(one, _foreign(error))
                    return
                # Dask counts deaths too, and may stop before we do, or before a start could be told.
                self.table._write(
                    "UPDATE jobs SET attempts = max(attempts, ?)"
                    " WHERE id = ? AND state = 'running' AND worker = ?",
                    (one.job.attempts + error.allowed_failures, one.job.id, one.claim),
                )
                self._give_up(one, "its worker on the cluster was killed each time, often for want of memory")
            case _ if one.cancelled is not None:
                self.table.stopped(one.job.id, one.claim)
                self._let_go(one)
            case _:
                self.table.release(one.claim, "the cluster let it go", self.settings.attempts)
                self._let_go(one)

    def _collect(self, one: Sent) -> tuple[int, bool]:
        """Fetch, verify and publish a result; in a thread of its own, as it may be large."""
        result = remote.result_of_answer(one.future.result())
        if one.cancelled is not None:
            return 0, True
        return self.results.publish(one.job.ask, result), result.partial

    def _collected(self, one: Sent) -> None:
        assert one.collecting is not None
        if not one.collecting.done():
            return
        error = one.collecting.exception()
        if one.cancelled is not None:
            # What a stopped run leaves is nobody's: an answer to the request is a complete one.
            self.results.delete(one.job.id)
            self.table.stopped(one.job.id, one.claim)
        elif error is None:
            self._finish(one.job, one.claim, *one.collecting.result())
        elif isinstance(error, FitError | InputError | StoreError | MemoryError):
            self._fail(one, reason(error))
            return
        else:
            # The worker died with the result still on it: Dask computes it again.
            _log.warning("job %s: %s", one.job.id[:12], error)
            one.collecting = None
            if one.future.status in ("cancelled", "lost", "error"):
                self._give_up(one, "its worker on the cluster died with the result")
            return
        self._let_go(one)

    def _finish(self, job: Job, claim: str, size: int, partial: bool) -> None:
        if self.table.finish(job.id, claim, size, partial):
            evict(self.table, self.results, self.settings.store_bytes)
        elif job.id not in self.table.ids():
            # Its owner deleted it while it was published.
            self.results.delete(job.id)

    def _fail(self, one: Sent, why: str) -> None:
        if one.cancelled is not None:
            self.table.stopped(one.job.id, one.claim)
        else:
            self.table.fail(one.job.id, one.claim, why)
        self._let_go(one)

    def _fetch(self, one: Sent) -> None:
        """Bring a running fit's draws so far into the store."""
        if one.fetching is not None and one.fetching.done():
            with suppress(Exception):
                if (content := one.fetching.result().get(one.where)) is not None:
                    self.results.write_partial(one.job.id, from_bytes(content))
            one.fetching = None
        if one.fresh and one.fetching is None and one.where:
            one.fresh = False
            one.fetching = self._pool.submit(
                self._client.run, remote.partial_draws, one.claim, workers=[one.where], on_error="ignore"
            )

    def _signal(self, one: Sent) -> None:
        from distributed import Event

        with suppress(OSError, TimeoutError):
            Event(one.event, client=self._client).set()

    def _let_go(self, one: Sent) -> None:
        """Forget a job that was sent; what may still run of it stops."""
        from distributed import Event

        del self.sent[one.claim]
        if not one.future.done():
            self._signal(one)
        self.results.drop_partial(one.job.id)
        with suppress(Exception):
            one.future.cancel()
            one.future.release()
            if one.future.done():
                Event(one.event, client=self._client).clear()


def _foreign(error: BaseException | None) -> str:
    """Words for what Dask raises about a task that never came to run ours."""
    if isinstance(error, ImportError):
        return (
            f"The cluster's workers cannot import what a fit needs ({error}). Install this project with its "
            "pinned requirements on each of them; `hbm worker --scheduler` starts one that fits."
        )
    kind = type(error).__name__
    return f"The cluster ended the fit with {kind}. The request is kept; the log of the server says more."


class Dispatcher(Supervisor):
    """Sends a store's jobs to a cluster while a server runs, as `Supervisor` gives them to its workers.

    Of several dispatchers and supervisors of one store, one owns the jobs; the others stand by.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(replace(settings, workers=0))
        self._cluster: Cluster | None = None
        self._name = f"{_PREFIX}{socket.gethostname()}-{os.getpid()}"
        self._next, self._seen, self._shown = 0.0, 0.0, ""
        self._slots = 0
        self._rows: set[str] = set()
        self._began = time.time()

    def _recover(self, table: JobTable) -> None:
        """Take jobs from those that died while nobody looked: nobody else owns jobs of this store now."""
        super()._recover(table)
        here = f"{_PREFIX}{socket.gethostname()}-"
        for job in table.jobs():
            if job.state == "running" and (job.worker or "").startswith(here):
                # Its name goes on with the process id of who claimed it.
                if _lives(int(job.worker.removeprefix(here).split("-")[0])):  # type: ignore[union-attr]
                    continue
                table.release(job.worker or "", "the app was stopped", self.settings.attempts)
        for row in table.workers():
            if row.name.startswith(here) and not _lives(row.pid):
                table.gone(row.name)

    def _look(self, table: JobTable) -> None:
        now = time.monotonic()
        if self._cluster is None:
            if now < self._next:
                return
            try:
                self._cluster = Cluster(self.settings, table, self._results)
            except StoreError as error:
                if self._shown != "away":
                    _log.warning("%s", error)
                self._next = time.monotonic() + AGAIN
                self._show(table, "away", {})
                return
            self._seen = 0.0
        try:
            if now - self._seen > LOOK:
                self._seen = now
                workers = self._cluster.workers()
                self._slots = sum(workers.values())
                self._show(table, "idle" if workers else "empty", workers)
            while len(self._cluster.sent) < self._slots and self._cluster.take() is not None:
                pass
            self._cluster.step()
        except Exception as error:
            if self._cluster.alive:
                if isinstance(error, StoreError):
                    raise
                _log.exception("the dispatcher met something that was not foreseen")
                raise StoreError(f"The cluster answered with {type(error).__name__}.") from error
            _log.warning("the scheduler %s went away", self.settings.scheduler)
            self._cluster.close("the scheduler went away")
            self._cluster, self._slots = None, 0
            self._show(table, "away", {})

    def _show(self, table: JobTable, state: str, workers: Mapping[str, int]) -> None:
        """Enter the dispatcher and the cluster's workers into the table of who works."""
        self._shown, now = state, time.time()
        busy = {one.where for one in self._cluster.sent.values()} if self._cluster else set()
        rows = {f"{self._name}/{address}": "busy" if address in busy else "idle" for address in workers}
        rows[self._name] = state
        for name, what in rows.items():
            table.show(WorkerRow(name, socket.gethostname(), os.getpid(), what, self._began, now))
        for name in self._rows - set(rows):
            table.gone(name)
        self._rows = set(rows)

    def _end_all(self, table: JobTable) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        for name in self._rows:
            with suppress(StoreError):
                table.gone(name)
        super()._end_all(table)


def compute_there(settings: Settings, id: str) -> None:
    """Run a submitted job on the cluster and wait for it, without a server; for the command line.

    Raises
    ------
    StoreError
        No scheduler answers.
    """
    results = ResultStore(settings.store)
    with open_table(settings.table, results) as table:
        cluster = Cluster(settings, table, results)
        try:
            if not cluster.workers():
                raise StoreError(f"The cluster at {settings.scheduler} has no workers.")
            while (job := table.get(id)) is not None and job.state == "queued":
                # Again where an attempt ended and the job waits anew.
                if cluster.take(only=id) is None:
                    time.sleep(PULSE)
                while cluster.sent:
                    cluster.step()
                    time.sleep(0.02)
        finally:
            cluster.close("the command was stopped")


def _lives(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
