"""The job table: one SQLite file (WAL) that says what is asked for, by whom, and where it stands.

It is the single source of truth. Every change is one short transaction; a worker's every write names the
worker, so that one that lost its job cannot touch it any more. Every row of `jobs` is sealed: a digest over
all its columns is renewed by a trigger of our own connections, only where the earlier one was right, so that
whatever else changes a row is found out when it is read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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


class DamagedTable(StoreError):
    """The file of the job table is not what was written."""


class JobTable:
    """The table in the file `path`, made where absent; one object serves all threads of a process.

    Readers never wait for a writer. A file that cannot be written is read from a copy. A file that was
    replaced by another is followed.

    Parameters
    ----------
    path : Path
        SQLite file.
    patience : float
        Seconds to wait for another process's transaction before giving up, and for another thread's.

    Attributes
    ----------
    read_only : bool
        Whether the file can only be read.
    epoch : int
        How often the file was opened: grows when another took its place.

    Raises
    ------
    DamagedTable
        The file is damaged.
    StoreError
        It is locked for longer than `patience`, or cannot be made.
    """

    def __init__(self, path: Path, patience: float = 5.0) -> None:
        self.path, self.patience, self.epoch = path, patience, 0
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._held: list[Any] = []
        self._closer = weakref.finalize(self, _release, self._held)
        with _plain_words(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._attach()

    def close(self) -> None:
        """Release the file."""
        with self._writing, self._reading:
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
                " VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, '')"
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

    def counts(self) -> dict[str, tuple[int, float, int]]:
        """State to how many jobs are in it, when the first of them was queued, and bytes of their results."""
        rows = self._all(
            "SELECT state, count(*) AS jobs, min(queued) AS first, sum(bytes) AS bytes"
            " FROM jobs GROUP BY state",
            (),
        )
        return {str(row["state"]): (int(row["jobs"]), float(row["first"]), int(row["bytes"])) for row in rows}

    def ids(self) -> set[str]:
        """Ids of all jobs, damaged or not."""
        return {str(row["id"]) for row in self._all("SELECT id FROM jobs", ())}

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

    def drop_damaged(self) -> None:
        """Delete every row that is not what was written, whatever it says its id is."""
        with self._transaction() as db:
            for row in db.execute("SELECT rowid AS place, * FROM jobs").fetchall():
                if not _sound(row):
                    db.execute("DELETE FROM jobs WHERE rowid = ?", (row["place"],))

    def lost(self, id: str, reason: str) -> None:
        """Note that the result of a finished job is gone or damaged, so that asking again fits anew."""
        self._write(
            "UPDATE jobs SET state = 'failed', error = ?, bytes = 0, updated = ?"
            " WHERE id = ? AND state = 'done'",
            (reason, time.time(), id),
        )

    def adopt(self, ask: Ask, created: float, size: int, partial: bool) -> None:
        """Enter a result found on disk as done, where the table does not know it or its row is damaged.

        Whose interest it is stays as it was.
        """
        values = (
            ask.task, ask.request, ask.data, ask.public, ask.label, "done", size, partial, *(created,) * 5
        )  # fmt: skip
        with self._transaction() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (ask.id,)).fetchone()
            if row is not None and _sound(row):
                return
            if row is None:
                db.execute(
                    "INSERT INTO jobs (task, request, data, public, label, state, bytes, partial,"
                    " created, queued, updated, finished, used, id, seal)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
                    (*values, ask.id),
                )
                return
            db.execute(
                "UPDATE jobs SET task = ?, request = ?, data = ?, public = ?, label = ?, state = ?,"
                " bytes = ?, partial = ?, created = ?, queued = ?, updated = ?, finished = ?, used = ?,"
                f" attempts = 0, error = NULL, pinned = 0, started = NULL, {_FREE} WHERE id = ?",
                (*values, ask.id),
            )
            written = db.execute("SELECT * FROM jobs WHERE id = ?", (ask.id,)).fetchone()
            db.execute("UPDATE jobs SET seal = ? WHERE id = ?", (_seal(dict(written)), ask.id))

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
                " ORDER BY queued, id LIMIT 1) RETURNING id",
                (worker, now + lease, now, now, only),
            ).fetchone()
            if row is not None:
                # Read again: what an update returns is older than what its trigger wrote.
                row = db.execute("SELECT * FROM jobs WHERE id = ?", (row["id"],)).fetchone()
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
            if not _sound(row):
                continue
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

    def settle(self) -> None:
        """Empty the write-ahead log into the file: what was deleted is in neither then.

        Where somebody reads just now, the next call does it.
        """
        with _plain_words(self.path), self._turn(self._writing):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # Health -----------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What SQLite's integrity check finds wrong, and the ids of rows whose seal does not fit."""
        return self.faults() + [f"row {id} is damaged" for id in self.damaged()]

    def faults(self) -> list[str]:
        """What SQLite's integrity check finds wrong with the file."""
        found = [str(row[0]) for row in self._all("PRAGMA integrity_check", ())]
        return [text for text in found if text != "ok"]

    def damaged(self) -> list[str]:
        """Ids of rows that are not what was written."""
        return [str(row["id"]) for row in self._all("SELECT * FROM jobs", ()) if not _sound(row)]

    def salvage(self, path: Path) -> None:
        """Take over from a damaged file what can still be read and is what was written."""
        db = sqlite3.connect(path, isolation_level=None)
        db.row_factory, db.text_factory = sqlite3.Row, _text
        try:
            for table, order in _KEYS.items():
                for direction in ("", " DESC"):
                    # Both ways: a broken page in the middle hides what lies behind it.
                    found = []
                    with suppress(sqlite3.Error, UnicodeDecodeError):
                        for row in db.execute(f"SELECT * FROM {table} ORDER BY {order}{direction}"):
                            found.append(dict(row))
                    self._enter(table, [row for row in found if table != "jobs" or _sound(row)])
        finally:
            db.close()

    def _enter(self, table: str, rows: list[dict[str, Any]]) -> None:
        with self._transaction() as db:
            names = [row["name"] for row in db.execute(f"PRAGMA table_info({table})")]
            for row in rows:
                given = {name: row[name] for name in names if name in row}
                marks = ", ".join("?" * len(given))
                # Interest in a job that was lost goes with it.
                with suppress(sqlite3.IntegrityError):
                    db.execute(
                        f"INSERT OR IGNORE INTO {table} ({', '.join(given)}) VALUES ({marks})",
                        tuple(given.values()),
                    )

    # ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE: whoever begins may also commit, so that waiting happens here and nowhere else.
        with _plain_words(self.path):
            self._follow(writing=True)
            with self._turn(self._writing):
                db = self._writer
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        with self._transaction() as db:
            return db.execute(statement, values).rowcount

    def _one(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Row | None:
        with _plain_words(self.path):
            self._follow()
            with self._turn(self._reading):
                return self._reader.execute(statement, values).fetchone()

    def _all(self, statement: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with _plain_words(self.path):
            self._follow()
            with self._turn(self._reading):
                return self._reader.execute(statement, values).fetchall()

    @contextmanager
    def _turn(self, lock: threading.Lock) -> Iterator[None]:
        if not lock.acquire(timeout=self.patience):
            raise sqlite3.OperationalError("locked by another thread")
        try:
            yield
        finally:
            lock.release()

    def _follow(self, writing: bool = False) -> None:
        """Open the file anew where another took its place, or where it may be writable by now."""
        if _identity(self.path) == self._file and not (writing and self.read_only):
            return
        with self._turn(self._writing), self._turn(self._reading):
            if self._closer.alive and (_identity(self.path) != self._file or (writing and self.read_only)):
                self._attach()

    def _attach(self) -> None:
        held: list[Any] = []
        try:
            writer, reader = _open(self.path, self.patience)
            read_only = False
        except sqlite3.OperationalError as error:
            if not _refused(str(error)) or not self.path.is_file():
                raise
            folder = tempfile.TemporaryDirectory(prefix="hbm-table-", ignore_cleanup_errors=True)
            held.append(folder)
            try:
                writer, reader = _open(_copied(self.path, Path(folder.name)), self.patience)
            except BaseException:
                _release(held)
                raise
            writer.execute("PRAGMA query_only = ON")
            read_only = True
        _release(self._held)
        self._held.extend([*held, writer, reader])
        self._writer, self._reader, self.read_only = writer, reader, read_only
        self._file = _identity(self.path)
        self.epoch += 1


#: Tables worth saving from a damaged file, in the order in which they refer to each other, with their keys.
_KEYS = {"jobs": "rowid", "interest": "job, session", "notes": "job, session", "uploads": "digest, owner"}


def _release(held: list[Any]) -> None:
    for thing in reversed(held):
        thing.cleanup() if isinstance(thing, tempfile.TemporaryDirectory) else thing.close()
    held.clear()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _copied(path: Path, folder: Path) -> Path:
    for ending in ("", "-wal"):
        if (part := path.with_name(path.name + ending)).exists():
            shutil.copyfile(part, folder / part.name)
    return folder / path.name


def _connection(path: Path, patience: float) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    db.row_factory, db.text_factory = sqlite3.Row, _text
    return db


def _text(content: bytes) -> str:
    # Damaged text must reach the check of its row, not end in an error of the driver.
    return content.decode("utf-8", "replace")


@contextmanager
def held(path: Path, exclusive: bool = False) -> Iterator[None]:
    """Keep a job table's file from being replaced while it is opened, and the other way round.

    Without this, a write-ahead log of one file could be taken for that of another.
    """
    try:
        lock = path.with_name(path.name + ".lock").open("w")
    except OSError:
        # Where no lock can be made, no file can be replaced.
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def _open(path: Path, patience: float) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    # The switch to WAL does not wait for others by itself, so that a crowd's first opening needs this loop.
    until = time.monotonic() + patience
    while True:
        with held(path):
            db, reader = _connection(path, patience), _connection(path, patience)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute("PRAGMA foreign_keys = ON")
                # What is deleted is overwritten: titles and file names do not linger in free pages.
                db.execute("PRAGMA secure_delete = ON")
                db.execute("PRAGMA temp_store = MEMORY")
                db.executescript(_SCHEMA)
                _seal_rows(db)
                reader.execute("PRAGMA query_only = ON")
                reader.execute("SELECT 1 FROM jobs LIMIT 1").fetchone()
            except sqlite3.OperationalError as error:
                _release([db, reader])
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            except BaseException:
                _release([db, reader])
                raise
            else:
                return db, reader
        time.sleep(0.02)


def _seal_rows(db: sqlite3.Connection) -> None:
    """Let this connection seal what it writes; a row that was damaged before stays so."""
    names = [row["name"] for row in db.execute("PRAGMA table_info(jobs)") if row["name"] != "seal"]
    if not set(Job.__dataclass_fields__) <= set(names) or not all(name.isidentifier() for name in names):
        raise sqlite3.DatabaseError("malformed names of columns")

    def seal(*values: Any) -> str | None:
        read = [_text(value) if isinstance(value, bytes) else value for value in values]
        return _seal(dict(zip(names, read, strict=True)))

    def renewed(earlier: bytes | None, *values: Any) -> str | None:
        old, new, kept = values[: len(names)], values[len(names) :], _text(earlier or b"")
        return seal(*new) if kept == seal(*old) else kept

    db.create_function("hbm_seal", len(names), seal)
    db.create_function("hbm_renewed", 2 * len(names) + 1, renewed)
    # As bytes: the driver hands over no text that is damaged.
    old, new = (
        ", ".join(
            f"iif(typeof({row}.{name}) = 'text', CAST({row}.{name} AS BLOB), {row}.{name})" for name in names
        )
        for row in ("OLD", "NEW")
    )
    db.execute(
        f"CREATE TEMP TRIGGER jobs_changed AFTER UPDATE OF {', '.join(names)} ON main.jobs BEGIN"
        f" UPDATE jobs SET seal = hbm_renewed(CAST(OLD.seal AS BLOB), {old}, {new})"
        " WHERE rowid = NEW.rowid; END"
    )
    db.execute(
        "CREATE TEMP TRIGGER jobs_entered AFTER INSERT ON main.jobs WHEN NEW.seal = '' BEGIN"
        f" UPDATE jobs SET seal = hbm_seal({new}) WHERE rowid = NEW.rowid; END"
    )


def _damaged(path: Path) -> DamagedTable:
    return DamagedTable(
        f"The job table {path.name} is damaged. Restart the app: it rebuilds the table from what can "
        "still be read and the results on disk."
    )


def _refused(text: str) -> bool:
    return "readonly" in text or "unable to open" in text or "disk I/O" in text


@contextmanager
def _plain_words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if any(word in text for word in ("malformed", "not a database", "no such table", "no such column")):
            raise _damaged(path) from error
        if "locked" in text or "busy" in text:
            reason = "is held by another process for too long. Try again; if it stays, restart the app."
        elif "full" in text:
            reason = "cannot grow, because the disk is full. Free some space; earlier results are intact."
        elif _refused(text):
            reason = (
                "cannot be written. Check the folder's permissions and the disk, or set HBM_STORE to another "
                "folder. Earlier results can be read."
            )
        else:
            reason = f"failed: {text}."
        raise StoreError(f"The job table {path.name} {reason}") from error
    except UnicodeDecodeError as error:
        # The driver fails to read what SQLite says about damaged names.
        raise _damaged(path) from error
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


def _seal(values: Mapping[str, Any]) -> str:
    """Digest of a row. Columns without a value are left out, so that a new one breaks no old row."""
    given = {name: value for name, value in values.items() if value is not None and name != "seal"}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def _sound(row: sqlite3.Row | Mapping[str, Any]) -> bool:
    try:
        values = {name: row[name] for name in row.keys() if name != "place"}  # noqa: SIM118
        return values["seal"] == _seal(values) and values["state"] in STATES
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
