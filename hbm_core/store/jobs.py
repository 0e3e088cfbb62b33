"""The job table: one SQLite file (WAL) that says what is asked for, by whom, and where it stands.

It is the single source of truth. Every change is one short transaction; a worker's every write names the
worker, so that one that lost its job cannot touch it any more.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hbm_core.errors import StoreError
from hbm_core.inference.sampler import Progress

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled")
#: The task of an ordinary fit; others (coverage studies) name their own.
FIT = "hbm_core.store.tasks.fit"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    request TEXT NOT NULL,
    data TEXT,
    public INTEGER NOT NULL,
    label TEXT NOT NULL,
    state TEXT NOT NULL,
    progress TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease REAL,
    cancel REAL,
    error TEXT,
    partial INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    pinned INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    queued REAL NOT NULL,
    started REAL,
    updated REAL NOT NULL,
    finished REAL,
    used REAL NOT NULL,
    seal TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, queued);
CREATE INDEX IF NOT EXISTS jobs_by_data ON jobs (data);
CREATE TABLE IF NOT EXISTS interest (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    session TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1,
    since REAL NOT NULL,
    PRIMARY KEY (job, session)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (
    job TEXT NOT NULL,
    session TEXT NOT NULL,
    title TEXT,
    pinned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, session),
    FOREIGN KEY (job, session) REFERENCES interest (job, session) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    digest TEXT NOT NULL,
    owner TEXT NOT NULL,
    label TEXT NOT NULL,
    guest INTEGER NOT NULL,
    link TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created REAL NOT NULL,
    used REAL NOT NULL,
    PRIMARY KEY (digest, owner)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (
    name TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    state TEXT NOT NULL,
    started REAL NOT NULL,
    seen REAL NOT NULL
) WITHOUT ROWID;
"""
# What becomes of a job whose run was stopped because nobody waited: somebody may have asked again since.
_WANTED = "EXISTS (SELECT 1 FROM interest WHERE job = jobs.id AND active)"
_UNWANTED_STATE = f"CASE WHEN {_WANTED} THEN 'queued' ELSE 'cancelled' END"
_FREE = "worker = NULL, lease = NULL, cancel = NULL, progress = NULL"


@dataclass(frozen=True)
class Ask:
    """What a submit brings: the columns of a job that never change, and its first title."""

    id: str
    task: str
    request: str
    data: str | None = None
    public: bool = False
    label: str = ""


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Parameters
    ----------
    id : str
        Digest of the request.
    task : str
        Dotted path of the function that computes it.
    request : str
        Canonical JSON.
    data : str or None
        Digest of the data set it reads.
    public : bool
        Whether anyone may see it: fits of built-in data.
    label : str
        Title for a person.
    state : str
        One of `STATES`.
    progress : Progress or None
        Where a running job stands.
    attempts : int
        Times it was started.
    worker : str or None
        Who runs it.
    cancel : bool
        Whether the worker was asked to stop.
    error : str or None
        Why it failed, in plain words.
    partial : bool
        Whether the kept result stopped early.
    bytes : int
        Size of the kept result.
    pinned : bool
        Whether it is kept whatever the budget.
    created, queued, started, updated, finished, used : float
        Seconds since the epoch; `started` and `finished` are None before.
    """

    id: str
    task: str
    request: str
    data: str | None
    public: bool
    label: str
    state: State
    progress: Progress | None
    attempts: int
    worker: str | None
    cancel: bool
    error: str | None
    partial: bool
    bytes: int
    pinned: bool
    created: float
    queued: float
    started: float | None
    updated: float
    finished: float | None
    used: float

    @property
    def ask(self) -> Ask:
        """What the submit brought."""
        return Ask(self.id, self.task, self.request, self.data, self.public, self.label)


@dataclass(frozen=True)
class WorkerRow:
    """A worker that has shown itself: `state` is "warming", "idle" or "busy"."""

    name: str
    host: str
    pid: int
    state: str
    started: float
    seen: float


@dataclass(frozen=True)
class Beat:
    """Answer to a sign of life: whether the job is still the worker's, and whether to stop."""

    owned: bool
    cancel: bool


class DamagedRow(StoreError):
    """A row of the job table is not what was written."""


class JobTable:
    """The table in the file `path`, made where absent; one object serves all threads of a process.

    Parameters
    ----------
    path : Path
        SQLite file.
    patience : float
        Seconds to wait for another process's transaction before giving up.

    Raises
    ------
    StoreError
        The file is damaged, locked for longer than `patience`, or cannot be written.
    """

    def __init__(self, path: Path, patience: float = 5.0) -> None:
        self.path, self.patience = path, patience
        self._lock = threading.RLock()
        with _plain_words(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open(path, patience)
        self._closer = weakref.finalize(self, self._db.close)

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._closer()

    def __enter__(self) -> JobTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is asked for ------------------------------------------------------------------------------------

    def submit(self, ask: Ask, session: str, queue: int = 10**9) -> bool:
        """Ask for a job; True where this made it wait for a worker, False where it runs or is done already.

        Raises
        ------
        StoreError
            More than `queue` jobs wait already.
        """
        now = time.time()
        values = (
            ask.id,
            ask.task,
            ask.request,
            ask.data,
            ask.public,
            ask.label,
            now,
            now,
            now,
            now,
            _seal(ask, now),
        )
        with self._transaction() as db:
            waiting = db.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
            known = db.execute("SELECT state FROM jobs WHERE id = ?", (ask.id,)).fetchone()
            if waiting >= queue and (known is None or known["state"] in ("failed", "cancelled")):
                raise StoreError(
                    f"{waiting} fits wait already, which is the limit (HBM_QUEUE). Try again shortly."
                )
            changed = db.execute(
                "INSERT INTO jobs"
                " (id, task, request, data, public, label, state, created, queued, updated, used, seal)"
                " VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET state = 'queued', attempts = 0, error = NULL, partial = 0,"
                f" finished = NULL, queued = excluded.queued, updated = excluded.updated, {_FREE}"
                " WHERE state IN ('failed', 'cancelled')",
                values,
            ).rowcount
            db.execute(
                "INSERT INTO interest (job, session, since) VALUES (?, ?, ?)"
                " ON CONFLICT (job, session) DO UPDATE SET active = 1",
                (ask.id, session, now),
            )
            db.execute("UPDATE jobs SET cancel = NULL WHERE id = ? AND state = 'running'", (ask.id,))
        return changed > 0

    def withdraw(self, id: str, session: str) -> None:
        """Take back a session's wish; the run stops when nobody waits for it any more."""
        now = time.time()
        with self._transaction() as db:
            db.execute("UPDATE interest SET active = 0 WHERE job = ? AND session = ?", (id, session))
            db.execute(
                "UPDATE jobs SET state = 'cancelled', updated = ?, finished = ?"
                f" WHERE id = ? AND state = 'queued' AND NOT {_WANTED}",
                (now, now, id),
            )
            db.execute(
                "UPDATE jobs SET cancel = ?"
                f" WHERE id = ? AND state = 'running' AND cancel IS NULL AND NOT {_WANTED}",
                (now, id),
            )

    def get(self, id: str) -> Job | None:
        """The job, or None. Raises DamagedRow where the row is not what was written."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", (id,))
        return None if row is None else _job(row)

    def jobs(self, session: str | None = None) -> list[Job]:
        """Jobs, newest first: all, or those that `session` ever asked for. Damaged rows are left out."""
        if session is None:
            rows = self._all("SELECT * FROM jobs ORDER BY created DESC, id", ())
        else:
            rows = self._all(
                "SELECT jobs.* FROM jobs JOIN interest ON job = id WHERE session = ? ORDER BY since DESC, id",
                (session,),
            )
        return [_job(row) for row in rows if _sound(row)]

    def position(self, id: str) -> int | None:
        """Place in the queue, 1 for the next to run; None for a job that does not wait."""
        row = self._one(
            "SELECT (SELECT count(*) FROM jobs AS other WHERE other.state = 'queued'"
            " AND (other.queued, other.id) <= (jobs.queued, jobs.id)) AS place"
            " FROM jobs WHERE id = ? AND state = 'queued'",
            (id,),
        )
        return None if row is None else int(row["place"])

    def sessions(self, id: str, active: bool = True) -> tuple[str, ...]:
        """Sessions that wait for the job, or (`active` False) that ever asked for it."""
        rows = self._all("SELECT session FROM interest WHERE job = ? AND active >= ?", (id, int(active)))
        return tuple(row["session"] for row in rows)

    def pin(self, id: str, pinned: bool = True) -> None:
        """Keep a result whatever the budget, or no longer."""
        self._write("UPDATE jobs SET pinned = ? WHERE id = ?", (pinned, id))

    def rename(self, id: str, label: str) -> None:
        """Give a job another title."""
        self._write("UPDATE jobs SET label = ? WHERE id = ?", (label, id))

    def touch(self, id: str) -> None:
        """Note that a result was used now: the longest unused go first."""
        self._write("UPDATE jobs SET used = ? WHERE id = ?", (time.time(), id))

    def forget(self, id: str, session: str) -> bool:
        """Drop a session's trace of a job; True where nobody is left who ever asked for it."""
        self.withdraw(id, session)
        with self._transaction() as db:
            db.execute("DELETE FROM interest WHERE job = ? AND session = ?", (id, session))
            return db.execute("SELECT 1 FROM interest WHERE job = ?", (id,)).fetchone() is None

    def delete(self, id: str) -> bool:
        """Delete a row; False where there is none or it runs (cancel it first)."""
        return self._write("DELETE FROM jobs WHERE id = ? AND state <> 'running'", (id,)) > 0

    def drop(self, id: str) -> None:
        """Delete a row whatever it says: for rows that are damaged."""
        self._write("DELETE FROM jobs WHERE id = ?", (id,))

    def lost(self, id: str, reason: str) -> None:
        """Note that the result of a finished job is gone or damaged, so that asking again fits anew."""
        self._write(
            "UPDATE jobs SET state = 'failed', error = ?, bytes = 0, updated = ?"
            " WHERE id = ? AND state = 'done'",
            (reason, time.time(), id),
        )

    def adopt(self, ask: Ask, created: float, size: int, partial: bool) -> None:
        """Enter a result found on disk as done, where the table does not know it."""
        self._write(
            "INSERT INTO jobs (id, task, request, data, public, label, state, bytes, partial,"
            " created, queued, updated, finished, used, seal)"
            " VALUES (?, ?, ?, ?, ?, ?, 'done', ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (ask.id, ask.task, ask.request, ask.data, ask.public, ask.label, size, partial)
            + (created,) * 5
            + (_seal(ask, created),),
        )

    # What workers do --------------------------------------------------------------------------------------

    def claim(self, worker: str, lease: float, attempts: int = 3, only: str | None = None) -> Job | None:
        """Take the next job that waits, or one whose worker gave no sign of life within its lease.

        Parameters
        ----------
        worker : str
            The claimant's name, unique among all that ever ran.
        lease : float
            Seconds within which the next `beat` must come.
        attempts : int
            Starts after which a job fails instead of being taken up again.
        only : str, optional
            Id of the one job to take.
        """
        now = time.time()
        if self._one(
            "SELECT 1 FROM jobs WHERE state = 'queued' UNION ALL"
            " SELECT 1 FROM jobs WHERE state = 'running' AND lease < ? LIMIT 1",
            (now,),
        ) is None:  # fmt: skip
            return None
        with self._transaction() as db:
            expired = db.execute(
                "SELECT id, worker FROM jobs WHERE state = 'running' AND lease < ?", (now,)
            ).fetchall()
            for row in expired:
                _end(db, row["id"], row["worker"], "its worker gave no sign of life", attempts, counted=True)
            row = db.execute(
                "UPDATE jobs SET state = 'running', worker = ?, lease = ?, attempts = attempts + 1,"
                " started = ?, updated = ?, progress = NULL, cancel = NULL, error = NULL"
                " WHERE id = (SELECT id FROM jobs WHERE state = 'queued' AND id = coalesce(?, id)"
                " ORDER BY queued, id LIMIT 1) RETURNING *",
                (worker, now + lease, now, now, only),
            ).fetchone()
        if row is not None and not _sound(row):
            self.drop(row["id"])
            return None
        return None if row is None else _job(row)

    def beat(self, id: str, worker: str, lease: float, progress: Progress | None) -> Beat:
        """A sign of life: renew the lease, write the progress, learn whether to stop."""
        now = time.time()
        shown = None if progress is None else json.dumps(progress.as_dict())
        with self._transaction() as db:
            row = db.execute(
                "UPDATE jobs SET lease = ?, updated = ?, progress = coalesce(?, progress)"
                " WHERE id = ? AND state = 'running' AND worker = ? RETURNING cancel",
                (now + lease, now, shown, id, worker),
            ).fetchone()
        return Beat(row is not None, row is not None and row["cancel"] is not None)

    def finish(self, id: str, worker: str, size: int, partial: bool) -> bool:
        """Mark a job done, after its result is in place; False where it is no longer the worker's."""
        now = time.time()
        return self._write(
            f"UPDATE jobs SET state = 'done', bytes = ?, partial = ?, finished = ?, updated = ?, used = ?,"
            f" {_FREE} WHERE id = ? AND state = 'running' AND worker = ?",
            (size, partial, now, now, now, id, worker),
        ) > 0  # fmt: skip

    def fail(self, id: str, worker: str, reason: str) -> bool:
        """Mark a job failed with a reason in plain words; False where it is no longer the worker's."""
        now = time.time()
        return self._write(
            f"UPDATE jobs SET state = 'failed', error = ?, finished = ?, updated = ?, {_FREE}"
            " WHERE id = ? AND state = 'running' AND worker = ?",
            (reason, now, now, id, worker),
        ) > 0  # fmt: skip

    def stopped(self, id: str, worker: str) -> bool:
        """Note that a worker obeyed a cancel: cancelled, or queued where somebody asked again since."""
        now = time.time()
        return self._write(
            f"UPDATE jobs SET state = {_UNWANTED_STATE}, attempts = 0, finished = ?, updated = ?, {_FREE}"
            " WHERE id = ? AND state = 'running' AND worker = ?",
            (now, now, id, worker),
        ) > 0  # fmt: skip

    def release(self, worker: str, reason: str, attempts: int = 3, counted: bool = True) -> tuple[str, ...]:
        """Take a worker's jobs from it, because it died or is being stopped; the jobs' ids.

        Parameters
        ----------
        worker : str
            Its name.
        reason : str
            Half a sentence that follows "because", e.g. "its worker was killed (signal 9)".
        attempts : int
            Starts after which a job fails.
        counted : bool
            False where the job is not to blame (an orderly stop): the start is not counted.
        """
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id FROM jobs WHERE state = 'running' AND worker = ?", (worker,)
            ).fetchall()
            for row in rows:
                _end(db, row["id"], worker, reason, attempts, counted)
        return tuple(row["id"] for row in rows)

    def overdue(self, cancel_seconds: float, run_seconds: float) -> list[Job]:
        """Running jobs whose worker does not obey a cancel, or goes on far beyond the time limit.

        A compilation cannot be interrupted and serves later fits: it has ten times as long to obey.
        """
        now = time.time()
        found = []
        for row in self._all("SELECT * FROM jobs WHERE state = 'running'", ()):
            job = _job(row)
            compiling = job.progress is None or job.progress.stage == "compiling"
            patience = cancel_seconds * (10 if compiling else 1)
            if (job.cancel and now - row["cancel"] > patience) or now - row["started"] > run_seconds:
                found.append(job)
        return found

    # Who works --------------------------------------------------------------------------------------------

    def show(self, worker: WorkerRow) -> None:
        """Enter or renew a worker's row."""
        self._write(
            "INSERT INTO workers VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET state = excluded.state, seen = excluded.seen",
            (worker.name, worker.host, worker.pid, worker.state, worker.started, worker.seen),
        )

    def workers(self) -> list[WorkerRow]:
        """Workers that have shown themselves and were not seen dead."""
        return [
            WorkerRow(**dict(row)) for row in self._all("SELECT * FROM workers ORDER BY started, name", ())
        ]

    def gone(self, worker: str) -> None:
        """Drop a worker's row."""
        self._write("DELETE FROM workers WHERE name = ?", (worker,))

    # Health -----------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What SQLite's integrity check finds wrong, and the ids of rows whose seal does not fit."""
        with _plain_words(self.path), self._lock:
            found = [row[0] for row in self._db.execute("PRAGMA integrity_check")]
        broken = [row["id"] for row in self._all("SELECT * FROM jobs", ()) if not _sound(row)]
        return [text for text in found if text != "ok"] + [f"row {id} is damaged" for id in broken]

    # ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE: whoever begins may also commit, so that waiting happens here and nowhere else.
        with _plain_words(self.path), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        with self._transaction() as db:
            return db.execute(statement, values).rowcount

    def _one(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Row | None:
        with _plain_words(self.path), self._lock:
            return self._db.execute(statement, values).fetchone()

    def _all(self, statement: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with _plain_words(self.path), self._lock:
            return self._db.execute(statement, values).fetchall()


def _open(path: Path, patience: float) -> sqlite3.Connection:
    # The switch to WAL does not wait for others by itself, so that a crowd's first opening needs this loop.
    until = time.monotonic() + patience
    while True:
        db = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            db.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            db.close()
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        except sqlite3.Error:
            db.close()
            raise
        else:
            return db


@contextmanager
def _plain_words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            reason = "is held by another process for too long. Try again; if it stays, restart the app."
        elif "malformed" in text or "not a database" in text:
            reason = "is damaged. Restart the app: it rebuilds the table from the results on disk."
        elif "full" in text:
            reason = "cannot grow, because the disk is full. Free some space; earlier results are intact."
        elif "readonly" in text or "unable to open" in text:
            reason = "cannot be written. Check the folder's permissions, or set HBM_STORE to another one."
        else:
            reason = f"failed: {text}."
        raise StoreError(f"The job table {path.name} {reason}") from error
    except OSError as error:
        raise StoreError(f"The store {path.parent} cannot be used: {error.strerror}.") from error


def _end(db: sqlite3.Connection, id: str, worker: str, reason: str, attempts: int, counted: bool) -> None:
    now = time.time()
    times = "once" if attempts == 1 else f"{attempts} times"
    failed = f"The fit was started {times}; it ended because {reason}. The request is kept: try again later."
    db.execute(
        f"UPDATE jobs SET state = CASE WHEN cancel IS NOT NULL AND NOT {_WANTED} THEN 'cancelled'"
        " WHEN ? AND attempts >= ? THEN 'failed' ELSE 'queued' END, attempts = attempts - ?,"
        " error = CASE WHEN ? AND attempts >= ? THEN ? END, finished = ?, updated = ?,"
        f" {_FREE} WHERE id = ? AND state = 'running' AND worker = ?",
        (counted, attempts, not counted, counted, attempts, failed, now, now, id, worker),
    )


def _seal(ask: Ask, created: float) -> str:
    columns = [ask.id, ask.task, ask.request, ask.data, bool(ask.public), created]
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()


def _sound(row: sqlite3.Row) -> bool:
    try:
        ask = Ask(row["id"], row["task"], row["request"], row["data"], row["public"])
        return row["seal"] == _seal(ask, row["created"]) and row["state"] in STATES
    except TypeError:
        return False


def _job(row: sqlite3.Row) -> Job:
    if not _sound(row):
        raise DamagedRow(f"The record of fit {str(row['id'])[:12]} is damaged.")
    given = {name: row[name] for name in Job.__dataclass_fields__}
    for name in ("public", "partial", "pinned"):
        given[name] = bool(given[name])
    given["cancel"] = row["cancel"] is not None
    given["progress"] = Progress.from_dict(json.loads(row["progress"])) if row["progress"] else None
    return Job(**given)
