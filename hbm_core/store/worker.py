"""A worker: takes jobs from the table, one after the other, for as long as its parent lives.

``python -m hbm_core.store.worker --store DIR``
"""

from __future__ import annotations

import os

# Chains run in threads of their own; a linear algebra library's would only get in their way. It must be
# said before NumPy is imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import argparse  # noqa: E402
import ctypes  # noqa: E402
import logging  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import suppress  # noqa: E402
from pathlib import Path  # noqa: E402

import xarray as xr  # noqa: E402

from hbm_core.errors import FitError, InputError, StoreError  # noqa: E402
from hbm_core.inference.sampler import Progress  # noqa: E402
from hbm_core.store.jobs import Job, JobTable, WorkerRow  # noqa: E402
from hbm_core.store.results import ResultStore  # noqa: E402
from hbm_core.store.retention import evict  # noqa: E402
from hbm_core.store.settings import Settings  # noqa: E402

#: Seconds between two looks at the queue, two looks at a cancel, two shown partial traces, two signs of life.
POLL, PULSE, PARTIAL, SEEN = 0.05, 0.2, 0.5, 2.0
#: Seconds an orphaned or stopped worker waits for its job to end before it leaves all the same.
LINGER = 5.0
#: Seconds for which a worker tries to enter what came of a job while the table cannot be written.
ENTER = 60.0
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger("hbm.worker")


class Pulse:
    """Signs of life of one job, from a thread of its own: a compilation may hold the main one for long.

    Parameters
    ----------
    table : JobTable
        Where they are written.
    job : Job
        What runs.
    worker : str
        Who runs it.
    lease : float
        Seconds that each sign is good for.
    """

    def __init__(self, table: JobTable, job: Job, worker: str, lease: float) -> None:
        self.table, self.job, self.worker, self.lease = table, job, worker, lease
        self.owned, self.cancelled = True, False
        self.progress: Progress | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(PULSE):
            try:
                beat = self.table.beat(self.job.id, self.worker, self.lease, self.progress)
            except StoreError as error:
                _log.warning("no sign of life: %s", error)
                continue
            self.owned, self.cancelled = beat.owned, self.cancelled or beat.cancel


class Worker:
    """Runs jobs of one store.

    Parameters
    ----------
    settings : Settings
        Store and limits.
    name : str, optional
        Unique among all workers that ever ran; made up otherwise.
    """

    def __init__(self, settings: Settings, name: str = "") -> None:
        self.settings = settings
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.table, self.results = JobTable(settings.table), ResultStore(settings.store)
        self.ending = threading.Event()
        self._started = time.time()
        self._shown = 0.0

    def close(self) -> None:
        """Leave the table."""
        with suppress(StoreError):
            self.table.gone(self.name)
        self.table.close()

    def serve(self) -> None:
        """Take jobs until told to end; between jobs, get warm."""
        cold = warming() if self.settings.warm else iter(())
        state = "warming" if self.settings.warm else "idle"
        while not self.ending.is_set():
            try:
                self._show(state)
                if (job := self._claim()) is not None:
                    self._show("busy", now=True)
                    self.run(job)
                    self._shown = 0.0
                elif state == "warming":
                    state = "warming" if next(cold, None) else "idle"
                    self._shown = 0.0
                else:
                    self.ending.wait(POLL)
            except StoreError as error:
                _log.warning("%s", error)
                self.ending.wait(1.0)

    def compute(self, id: str) -> None:
        """Run one waiting job here and now; nothing happens where another worker has it."""
        job = self.table.claim(self.name, self.settings.lease_seconds, self.settings.attempts, only=id)
        if job is not None:
            self.run(job)

    def run(self, job: Job) -> None:
        """Compute a claimed job and enter what came of it. Never raises because of the job.

        Raises
        ------
        StoreError
            The table could not be written for `ENTER` seconds.
        """
        _log.info("job %s, attempt %d", job.id[:12], job.attempts)
        failure = ""
        with Pulse(self.table, job, self.name, self.settings.lease_seconds) as pulse:
            try:
                size, partial = self._compute(job, pulse)
            except Exception as error:
                failure = reason(error)
                if not isinstance(error, InputError | FitError):
                    _log.exception("job %s failed", job.id[:12])
            if not pulse.owned:
                return
            if pulse.cancelled:
                # What a stopped run leaves is nobody's: an answer to the request is a complete one.
                self._discard(job)
                self._enter(lambda: self.table.stopped(job.id, self.name))
            elif self.ending.is_set() and (failure or partial):
                self._discard(job)
                self._enter(lambda: self.table.release(self.name, "the app was stopped", counted=False))
            elif failure:
                with suppress(StoreError):
                    self.results.drop_partial(job.id)
                self._enter(lambda: self.table.fail(job.id, self.name, failure))
            else:
                self._enter(lambda: self.table.finish(job.id, self.name, size, partial))
        if not failure:
            try:
                if job.id not in self.table.ids():
                    # Its owner deleted it while it was published.
                    self._discard(job)
                evict(self.table, self.results, self.settings.store_bytes)
            except StoreError as error:
                _log.warning("nothing could be evicted: %s", error)

    def _discard(self, job: Job) -> None:
        with suppress(StoreError):
            self.results.delete(job.id)

    def _enter(self, write: Callable[[], object]) -> None:
        """Write to the table; while it cannot be written (a full disk, another's lock) try again."""
        until = time.monotonic() + ENTER
        while True:
            try:
                write()
                return
            except StoreError as error:
                if self.ending.is_set() or time.monotonic() > until:
                    raise
                _log.warning("what came of a job cannot be entered yet: %s", error)
                self.ending.wait(1.0)

    def _compute(self, job: Job, pulse: Pulse) -> tuple[int, bool]:
        from hbm_core.store.tasks import Run, find

        if self.results.complete(job.id):
            # Published by a worker that died before it could say so.
            return self.results.size(job.id), bool(self.results.meta(job.id)["partial"])
        shown = [time.monotonic()]

        def partial(tree: xr.DataTree) -> None:
            if time.monotonic() - shown[0] >= PARTIAL:
                shown[0] = time.monotonic()
                # Draws so far are a courtesy: the fit goes on without them.
                try:
                    self.results.write_partial(job.id, tree)
                except StoreError as error:
                    _log.warning("partial draws of job %s: %s", job.id[:12], error)

        def progress(value: Progress) -> None:
            first, pulse.progress = pulse.progress is None, value
            if first:
                with suppress(StoreError):
                    self.table.beat(job.id, self.name, self.settings.lease_seconds, value)

        def should_stop() -> bool:
            return pulse.cancelled or not pulse.owned or self.ending.is_set()

        run = Run(self.results, self.settings.fit_seconds, progress, partial, should_stop)
        result = find(job.task)(job, run)
        if not pulse.owned:
            raise StoreError("Another worker has taken this job over.")
        if pulse.cancelled or (self.ending.is_set() and result.partial):
            return 0, True
        return self.results.publish(job.ask, result), result.partial

    def _claim(self) -> Job | None:
        return self.table.claim(self.name, self.settings.lease_seconds, self.settings.attempts)

    def _show(self, state: str, now: bool = False) -> None:
        if now or time.time() - self._shown > SEEN:
            self._shown = time.time()
            row = WorkerRow(self.name, socket.gethostname(), os.getpid(), state, self._started, self._shown)
            # A job that was claimed is run even where this cannot be told.
            try:
                self.table.show(row)
            except StoreError as error:
                _log.warning("worker %s cannot show itself: %s", self.name, error)


def warming() -> Iterator[str]:
    """Get warm one step at a time: a job that comes meanwhile waits for one step at most."""
    import pymc  # noqa: F401

    yield "pymc"
    from hbm_core.store.tasks import warm_up

    try:
        yield from warm_up()
    except Exception:
        _log.exception("could not get warm; models are compiled on demand")


def compute_here(settings: Settings, id: str) -> None:
    """Run a submitted job in this process, without waiting for a worker; for the command line."""
    worker = Worker(settings)
    try:
        worker.compute(id)
    finally:
        worker.close()


def reason(error: Exception) -> str:
    """Why a job failed, in words for the person who asked for it."""
    if isinstance(error, InputError | FitError | StoreError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The fit needs more memory than there is. Ask for fewer draws, or fit fewer units."
    return (
        f"The fit ended on an error that was not foreseen ({type(error).__name__}). The request is kept; "
        "what happened is in the log of the server. Try another parameterization or other priors."
    )


def _follow(parent: int, worker: Worker) -> None:
    """End with the parent: at once where the kernel tells, and by looking where it does not."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def watch() -> None:
        # A job may not look whether to stop, so that being told to end is not enough.
        while os.getppid() == parent:
            time.sleep(0.5)
        worker.ending.set()
        time.sleep(LINGER)
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="folder of fits, data and the job table")
    parser.add_argument("--name", default="", help="the worker's name")
    parser.add_argument("--parent", type=int, default=0, help="process id with which to end")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    _log.setLevel(logging.INFO)
    settings = Settings.from_environment(store=given.store)
    # Sliders must not wait for fits where both share a machine.
    if settings.nice and hasattr(os, "nice"):
        os.nice(settings.nice)
    worker = Worker(settings, given.name)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.ending.set())
    if given.parent:
        _follow(given.parent, worker)
    try:
        worker.serve()
    finally:
        worker.close()


if __name__ == "__main__":
    main()
