"""What is kept and what goes: deletion, eviction over the byte budget, rebuilding the table from disk."""

from __future__ import annotations

import time
from pathlib import Path

from hbm_core.errors import DamagedResult, StoreError
from hbm_core.store.jobs import JobTable
from hbm_core.store.results import ResultStore


def delete(table: JobTable, results: ResultStore, id: str) -> bool:
    """Delete a job, its result, and its data where no other job reads them; False where it runs."""
    job = table.get(id)
    if job is None or not table.delete(id):
        return False
    results.delete(id)
    if job.data is not None and not any(other.data == job.data for other in table.jobs()):
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
    total, gone = sum(job.bytes for job in done), []
    # The newest stays even where it alone is over the budget: somebody has just waited for it.
    for job in done[:-1]:
        if total <= budget:
            break
        if not job.pinned and delete(table, results, job.id):
            total -= job.bytes
            gone.append(job.id)
    return gone


def open_table(path: Path, results: ResultStore) -> JobTable:
    """The job table; one that is damaged is set aside and made again from the results on disk.

    Raises
    ------
    StoreError
        It cannot be read or made.
    """
    try:
        table = JobTable(path)
        if not (found := table.problems()):
            reindex(table, results)
            return table
        if all(problem.startswith("row ") for problem in found):
            for problem in found:
                table.drop(problem.split()[1])
            reindex(table, results)
            return table
        table.close()
    except StoreError as error:
        if "damaged" not in str(error):
            raise
    stamp = time.time_ns()
    for ending in ("", "-wal", "-shm"):
        if (part := path.with_name(path.name + ending)).exists():
            part.rename(path.with_name(f"{path.name}.damaged-{stamp}{ending}"))
    table = JobTable(path)
    reindex(table, results)
    return table


def reindex(table: JobTable, results: ResultStore) -> int:
    """Enter every sound result on disk that the table does not know; how many there were."""
    found = 0
    for id in results.ids():
        if table.get(id) is None and results.complete(id):
            try:
                meta = results.meta(id)
                table.adopt(results.ask(id), meta["created"], results.size(id), meta["partial"])
                found += 1
            except DamagedResult:
                results.quarantine(id)
    return found
