"""What is kept and what goes: deletion, eviction over the byte budget, rebuilding the table from disk."""

from __future__ import annotations

import time
from pathlib import Path

from hbm_core.errors import DamagedResult
from hbm_core.store.access import LinkKeys
from hbm_core.store.jobs import DamagedTable, JobTable, held
from hbm_core.store.notes import NoteTable
from hbm_core.store.results import ResultStore
from hbm_core.store.uploads import UploadTable


def delete(table: JobTable, results: ResultStore, id: str) -> bool:
    """Delete a job, its result, and its data where no other job reads them; False where it runs."""
    job = table.get(id)
    if job is None or not table.delete(id):
        return False
    results.delete(id)
    uploads = UploadTable(table, LinkKeys(results.root))
    if job.data is not None and not uploads.needed(job.data):
        uploads.drop_guests(job.data)
        results.delete_data(job.data)
    return True


def evict(table: JobTable, results: ResultStore, budget: int) -> list[str]:
    """Delete finished fits, the longest unused first, until the rest take at most `budget` bytes.

    Pinned fits stay, whatever they take.

    Returns
    -------
    list of str
        Ids of what went.
    """
    done = sorted((job for job in table.jobs() if job.state == "done"), key=lambda job: job.used)
    total, gone, pinned = sum(job.bytes for job in done), [], NoteTable(table).pinned()
    # The newest stays even where it alone is over the budget: somebody has just waited for it.
    for job in done[:-1]:
        if total <= budget:
            break
        if not job.pinned and job.id not in pinned and delete(table, results, job.id):
            total -= job.bytes
            gone.append(job.id)
    return gone


def open_table(path: Path, results: ResultStore) -> JobTable:
    """The job table, mended: rows that are damaged are replaced from their results on disk, or dropped.

    A damaged file is set aside; the new one holds what could still be read of it, and the results on disk.

    Raises
    ------
    StoreError
        It cannot be read or made.
    """
    while True:
        identity = _identity(path)
        try:
            table = JobTable(path)
            try:
                if not table.faults():
                    _mend(table, results)
                    return table
            except BaseException:
                table.close()
                raise
            table.close()
        except DamagedTable:
            pass
        with held(path, exclusive=True):
            # Somebody else may have set it aside meanwhile.
            aside = _set_aside(path) if _identity(path) == identity else None
        if aside is not None:
            with JobTable(path) as table:
                table.salvage(aside)


def mend(table: JobTable, results: ResultStore, id: str) -> None:
    """Replace a damaged row from its result on disk; drop it where there is none."""
    if not (id in results.ids() and results.complete(id) and _adopt(table, results, id)):
        table.drop(id)


def _mend(table: JobTable, results: ResultStore) -> None:
    if table.read_only:
        return
    if broken := table.damaged():
        for id in broken:
            mend(table, results, id)
        table.drop_damaged()
    reindex(table, results)


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for ending in ("-shm", "-wal", ""):
        if (part := path.with_name(path.name + ending)).exists():
            part.rename(aside.with_name(aside.name + ending))
    return aside


def _identity(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_dev, path.stat().st_ino) if path.exists() else None


def _adopt(table: JobTable, results: ResultStore, id: str) -> bool:
    try:
        meta = results.meta(id)
        table.adopt(results.ask(id), meta["created"], results.size(id), meta["partial"])
    except (DamagedResult, KeyError, TypeError):
        results.quarantine(id)
        return False
    return True


def reindex(table: JobTable, results: ResultStore) -> int:
    """Enter every sound result on disk that the table does not know; how many there were."""
    missing = set(results.ids()) - table.ids()
    return sum(_adopt(table, results, id) for id in sorted(missing) if results.complete(id))
