"""Keeps workers alive: starts them, sees at once when one dies, ends those that do not obey."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import hbm_core
from hbm_core.errors import StoreError
from hbm_core.store.access import LinkKeys
from hbm_core.store.erasure import Eraser
from hbm_core.store.jobs import JobTable, WorkerRow
from hbm_core.store.results import ResultStore
from hbm_core.store.retention import open_table
from hbm_core.store.settings import Settings
from hbm_core.store.uploads import UploadTable

#: Seconds between two looks; seconds workers have to end by themselves.
LOOK, GRACE = 0.05, 4.0
#: Seconds between two looks for what is old.
TIDY = 3600.0
#: A worker that dies younger than YOUNG seconds before it was ready is replaced after a pause that doubles
#: up to LONGEST.
YOUNG, FIRST_PAUSE, LONGEST = 10.0, 0.5, 30.0
#: Seconds beyond the time limit after which a run that does not end is ended.
OVERTIME = 60.0
_LOG_BYTES = 1_000_000
_log = logging.getLogger("hbm.supervisor")


@dataclass
class Place:
    """One worker's place: who holds it, and when it may be filled again."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    name: str = ""
    started: float = 0.0
    pause: float = 0.0
    ready_at: float = 0.0
    #: Why its process was ended, where it was; the fit then fails with these words.
    verdict: str = field(default="")
    #: Why it was ended, for the log; of those that nobody ended the exit code tells.
    why: str = field(default="")


class Supervisor:
    """Owns the workers of a store while it runs.

    Of several supervisors of one store, one owns the workers; the others stand by and take over.

    Parameters
    ----------
    settings : Settings
        Store, number of workers, limits.

    Examples
    --------
    ``with Supervisor(settings): …``, or `start` and `stop` from a server's lifespan.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.places = [Place(number) for number in range(settings.workers)]
        self.owner = False
        self._results = ResultStore(settings.store)
        self._table: JobTable | None = None
        self._lock: IO[str] | None = None
        self._ended = threading.Event()
        self._tidy_at = 0.0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Repair the table where needed, and start the workers in the background.

        Raises
        ------
        StoreError
            The store cannot be used.
        """
        self._table = open_table(self.settings.table, self._results)
        self._results.sweep()
        self._ended.clear()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the workers; what they were at waits for the next start."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._table is not None:
            self._table.close()
            self._table = None

    # The supervising thread --------------------------------------------------------------------------------

    def _supervise(self) -> None:
        assert self._table is not None
        table, said = self._table, ""
        try:
            while not self._ended.is_set():
                try:
                    if not self.owner and self._take_ownership():
                        self._recover(table)
                    if self.owner:
                        self._look(table)
                        self._tidy(table)
                except (StoreError, OSError) as error:
                    # A full disk, say, lasts: it is said once.
                    if str(error) != said:
                        _log.warning("%s", error)
                    said = str(error)
                    self._ended.wait(0.5)
                self._ended.wait(LOOK if self.owner else 0.5)
        finally:
            self._end_all(table)

    def _take_ownership(self) -> bool:
        try:
            lock = (self.settings.store / "supervisor.lock").open("w")
        except OSError as error:
            raise StoreError(f"No worker can start: {self.settings.store} cannot be written.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock, self.owner = lock, True
        return True

    def _recover(self, table: JobTable) -> None:
        """Take jobs from workers that died while nobody looked."""
        for row in table.workers():
            if row.host == socket.gethostname() and not _alive(row):
                table.release(row.name, "the app was stopped", self.settings.attempts)
                table.gone(row.name)

    def _tidy(self, table: JobTable) -> None:
        """Now and then, let go what is old."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + TIDY
        eraser = Eraser(table, self._results, UploadTable(table, LinkKeys(self.settings.store)))
        eraser.left_over()
        if self.settings.retention_days:
            gone = eraser.expired(self.settings.retention_days)
            _log.info("%d fits and %d uploads went by age", gone.fits, gone.uploads)

    def _look(self, table: JobTable) -> None:
        now = time.monotonic()
        for place in self.places:
            if place.process is not None and place.process.poll() is not None:
                self._bury(place, table)
            if place.process is None and now >= place.ready_at:
                self._spawn(place)
        holders = {place.name: place for place in self.places if place.process is not None}
        limit = self.settings.fit_seconds + OVERTIME
        for job in table.overdue(self.settings.cancel_seconds, limit):
            holder = holders.get(job.worker or "")
            if holder is not None and holder.process is not None:
                holder.why = "it was ended, for its fit was cancelled"
                if not job.cancel:
                    holder.why = "it was ended, for its fit did not end at its time limit"
                    holder.verdict = (
                        f"The fit did not end at its time limit of {self.settings.fit_seconds:g} s "
                        "(HBM_FIT_SECONDS)."
                    )
                holder.process.kill()

    def _bury(self, place: Place, table: JobTable) -> None:
        assert place.process is not None
        cause = place.why or _cause(place.process.returncode)
        if place.verdict:
            for job in table.jobs():
                if job.worker == place.name:
                    table.fail(job.id, place.name, place.verdict)
        for id in table.release(place.name, cause, self.settings.attempts):
            self._results.drop_partial(id)
        self._results.sweep(pid=place.process.pid)
        ready = any(row.name == place.name and row.state != "warming" for row in table.workers())
        table.gone(place.name)
        _log.warning("worker %s ended: %s", place.name, cause)
        now = time.monotonic()
        # One that was ready has nothing wrong with itself: its death was the job's, or somebody's kill, and
        # a job kills three at most. The first that dies before is replaced at once too.
        young = now - place.started < YOUNG and not ready
        place.ready_at = now + (place.pause if young else 0.0)
        place.pause = min(LONGEST, 2 * place.pause or FIRST_PAUSE) if young else 0.0
        place.process, place.verdict, place.why = None, "", ""

    def _spawn(self, place: Place) -> None:
        place.name = f"{socket.gethostname()}-{place.number}-{uuid.uuid4().hex[:8]}"
        place.started = time.monotonic()
        root = str(Path(hbm_core.__file__).parents[1])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        command = [sys.executable, "-m", "hbm_core.store.worker"]
        with self._log_file(place.number) as log:
            place.process = subprocess.Popen(
                [*command, "--name", place.name, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | self.settings.environment() | {"PYTHONPATH": path},
            )

    def _log_file(self, number: int) -> IO[bytes]:
        path = self.settings.store / "logs" / f"worker-{number}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > _LOG_BYTES:
                path.replace(path.with_suffix(".1.log"))
            return path.open("ab")
        except OSError as error:
            _log.warning("worker %d has no log: %s", number, error)
            return Path(os.devnull).open("ab")

    def _end_all(self, table: JobTable) -> None:
        running = [place for place in self.places if place.process is not None]
        for place in running:
            assert place.process is not None
            place.process.terminate()
        until = time.monotonic() + GRACE
        for place in running:
            assert place.process is not None
            try:
                place.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                place.process.kill()
                place.process.wait()
            place.process = None
            try:
                table.release(place.name, "the app was stopped", counted=False)
                table.gone(place.name)
            except StoreError as error:
                _log.warning("%s", error)
        if self._lock is not None:
            self._lock.close()
            self._lock, self.owner = None, False


def _alive(row: WorkerRow) -> bool:
    """Whether a worker's process exists. Process ids are used again, so its command line is looked at."""
    command = Path(f"/proc/{row.pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            return row.name.encode() in command.read_bytes() or b"hbm" in command.read_bytes()
        except OSError:
            return False
    try:
        os.kill(row.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _cause(code: int) -> str:
    if code >= 0:
        return f"its worker ended by itself (exit code {code})"
    name = signal.Signals(-code).name
    memory = ", often for want of memory" if -code == signal.SIGKILL else ""
    return f"its worker was killed ({name}, signal {-code}{memory})"
