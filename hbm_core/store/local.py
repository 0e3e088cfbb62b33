"""The engine of one machine: the job table, its workers and the results beside it. Imports no sampler."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import xarray as xr

from hbm_core.errors import DamagedResult, InputError, StoreError
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios import scenario
from hbm_core.store.access import LinkKeys
from hbm_core.store.engine import Status
from hbm_core.store.erasure import Erased, Eraser
from hbm_core.store.jobs import FIT, Ask, DamagedRow, Job, JobTable
from hbm_core.store.notes import PINNED_SHARE, NoteTable
from hbm_core.store.request import FitRequest
from hbm_core.store.results import ResultStore
from hbm_core.store.retention import mend, open_table, reindex
from hbm_core.store.settings import Settings
from hbm_core.store.uploads import Upload, UploadTable

#: Seconds within which a worker must have shown itself to count; using a result is noted once in a while.
_FRESH, _USED = 60.0, 60.0


class LocalEngine:
    """Runs fits through the job table of `settings.store`; one object serves all threads of a process.

    Parameters
    ----------
    settings : Settings, optional
        Store and limits; read from the environment otherwise.

    Raises
    ------
    StoreError
        The store cannot be used.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        self.results = ResultStore(self.settings.store)
        self.table: JobTable = open_table(self.settings.table, self.results)
        self._epoch = self.table.epoch
        self._uploads = UploadTable(self.table, LinkKeys(self.settings.store))
        self._notes = NoteTable(self.table)
        self._eraser = Eraser(self.table, self.results, self._uploads)

    def close(self) -> None:
        """Release the job table."""
        self.table.close()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Asking -----------------------------------------------------------------------------------------------

    def submit(self, request: FitRequest, dataset: Dataset, session: str, label: str = "") -> str:
        """Ask for a fit; its id, at once. A result that is kept already is served.

        Raises
        ------
        InputError
            The request and the data do not fit, or ask for more than `HBM_MAX_DRAWS`.
        StoreError
            The queue is full, for all (HBM_QUEUE) or for this session (HBM_QUEUE_EACH), or the store cannot
            be written.
        """
        structure = request.spec(dataset).structure
        parameters = len(structure.parameters) + len(structure.units)
        wanted = request.sampler.draws * request.sampler.chains * parameters
        if wanted > self.settings.max_draws:
            raise InputError(
                "size of the fit",
                f"at most {self.settings.max_draws:,} numbers (draws × chains × parameters)",
                f"{wanted:,}",
                "Ask for fewer draws, or raise HBM_MAX_DRAWS.",
            )
        self.results.save_data(dataset)
        title = label or f"{dataset.label}, {request.model.replace('_', ' ')}"
        built_in = _built_in(request.scenario).get(request.data)
        shared = title
        if built_in is not None and built_in != dataset.name:
            # Somebody's file that is a built-in table: all see the fit, and nobody the file's name.
            shared = f"{scenario(request.scenario).datasets[built_in]}, {request.model}"
        ask = Ask(request.digest, FIT, request.json, request.data, built_in is not None, shared)
        self.ask(ask, session)
        kept = self._job(ask.id)
        if kept is not None and kept.label != title:
            # Shared with somebody who gave it another title.
            self.rename(ask.id, title, session)
        return ask.id

    def ask(self, ask: Ask, session: str) -> str:
        """Ask for any task; its id. A result that is kept already is served."""
        job = self._job(ask.id)
        if job is not None and job.state == "done" and not self.results.complete(ask.id):
            self._lose(ask.id, "The kept result was damaged or missing.")
        waits = self._notes.waiting(session)
        if waits >= self.settings.queue_each and (job is None or job.state in ("failed", "cancelled")):
            raise StoreError(
                f"{waits} of your fits wait already, which is the limit for one person (HBM_QUEUE_EACH). "
                "Cancel some, or try again when some are done."
            )
        self.table.submit(ask, session, self.settings.queue)
        return ask.id

    def refit(self, request: FitRequest, dataset: Dataset, session: str, label: str = "") -> str:
        """Forget the kept result and fit anew; a run under way is joined."""
        self.table.lost(request.digest, "Asked for anew.")
        if (job := self._job(request.digest)) is None or job.state == "failed":
            self.results.delete(request.digest)
        return self.submit(request, dataset, session, label)

    def cancel(self, id: str, session: str) -> None:
        """Take back the session's wish; the run stops when nobody waits for it."""
        self.table.withdraw(id, session)

    # Watching ---------------------------------------------------------------------------------------------

    def status(self, id: str) -> Status:
        """Where the fit stands; state "none" for an id that nobody asked for."""
        job = self._job(id)
        if job is None:
            return Status("none")
        return Status(
            job.state,
            job.progress,
            self.table.position(id) if job.state == "queued" else None,
            job.error,
            job.cancel,
            job.partial if job.state == "done" else self.results.has_partial(id),
            job.state == "queued" and self.warming(),
        )

    def wait(self, id: str, seconds: float = math.inf) -> Status:
        """Where the fit stands once it no longer changes by itself, or after `seconds`."""
        until = time.monotonic() + seconds
        while (status := self.status(id)).active and time.monotonic() < until:
            time.sleep(0.02)
        return status

    def warming(self) -> bool:
        """Whether no worker is ready, but one is getting warm."""
        now = time.time()
        states = {row.state for row in self.table.workers() if now - row.seen < _FRESH}
        return "warming" in states and not states & {"idle", "busy"}

    def health(self) -> dict[str, Any]:
        """How many workers are ready, how many get warm, how many fits wait and run."""
        load = self.load()
        workers, jobs = load["workers"], load["fits"]
        return {
            "workers": sum(count for state, count in workers.items() if state != "warming"),
            "warming": workers.get("warming", 0),
            "queued": jobs.get("queued", 0),
            "running": jobs.get("running", 0),
        }

    def load(self) -> dict[str, Any]:
        """Fits and workers by state, bytes of kept results, seconds of the longest wait (`oldest`)."""
        now = time.time()
        counts = self.table.counts()
        waiting = counts.get("queued")
        return {
            "fits": {state: count for state, (count, _, _) in counts.items()},
            "workers": Counter(row.state for row in self.table.workers() if now - row.seen < _FRESH),
            "bytes": sum(size for _, _, size in counts.values()),
            "oldest": max(0.0, now - waiting[1]) if waiting else 0.0,
        }

    # Reading ----------------------------------------------------------------------------------------------

    def result(self, id: str) -> xr.DataTree:
        """The result, verified, in memory and read-only.

        Raises
        ------
        DamagedResult
            It is not what was written; it was set aside, and asking again fits anew.
        StoreError
            There is none yet.
        """
        self._used(self._done(id))
        return self._verified(id, self.results.load)

    def summary(self, id: str) -> dict[str, Any]:
        """The result's small summary. Raises as `result`."""
        self._done(id)
        return self._verified(id, self.results.summary)

    def meta(self, id: str) -> dict[str, Any]:
        """Request, timings and environment of the result. Raises as `result`."""
        self._done(id)
        return self._verified(id, self.results.meta)

    def file(self, id: str) -> Any:
        """Path of the result's netCDF, verified. Raises as `result`."""
        self._done(id)
        return self._verified(id, self.results.file)

    def partial(self, id: str) -> xr.DataTree | None:
        """A running fit's draws so far; None where there are none yet."""
        return self.results.partial(id)

    def request(self, id: str) -> FitRequest:
        """What a fit was asked to be. Raises StoreError for an unknown id."""
        job = self._job(id)
        if job is None:
            raise StoreError(f"There is no fit {id[:12]}.")
        return FitRequest.from_dict(json.loads(job.request))

    def dataset(self, id: str) -> Dataset:
        """The data of a fit, verified. Raises StoreError where they are not kept."""
        return self.results.dataset(self.request(id).data)

    def uploaded(self, digest: str) -> bytes | None:
        """Arrow bytes of a kept data set by its digest; None where it is not kept, or damaged."""
        try:
            return self.results.arrow(digest)
        except DamagedResult:
            return None

    def jobs(self, session: str) -> list[Job]:
        """The session's jobs with its own titles and pins, newest first."""
        return self._notes.applied(self.table.jobs(session), session)

    def gallery(self) -> list[Job]:
        """Finished fits of built-in data: anyone may see them."""
        return [job for job in self.table.jobs() if job.public and job.state == "done"]

    def may_read(self, id: str, session: str) -> bool:
        """Whether the fit is public, was asked for by this session, or is of data that it may use."""
        job = self._job(id)
        if job is None:
            return False
        if job.public or session in self.table.sessions(id, active=False):
            return True
        return job.data is not None and self.may_use(job.data, session)

    # Uploads ----------------------------------------------------------------------------------------------

    def upload(self, dataset: Dataset, owner: str, label: str = "") -> str:
        """Keep a person's own data; their digest. Nobody else may use them without a link's key.

        Parameters
        ----------
        dataset : Dataset
            As a scenario's `read` made it.
        owner : str
            Whose it is.
        label : str
            Title for the owner alone, e.g. the file's name.

        Raises
        ------
        InputError
            The owner has as many uploads as one may have (HBM_UPLOADS).
        StoreError
            The store is full (HBM_UPLOADS_BYTES, or the disk) or cannot be written.
        """
        # Kept under a neutral title: whoever uploads the same table does not learn another's file name.
        limits = self.settings
        self._uploads.keep(
            dataset.digest,
            owner,
            label or dataset.label,
            len(dataset.arrow),
            limits.uploads,
            limits.uploads_bytes,
        )
        try:
            self.results.save_data(replace(dataset, name="upload", label="Your data"))
        except StoreError:
            if self.results.arrow(dataset.digest) is None:
                self._uploads.drop(dataset.digest, owner)
            raise
        return dataset.digest

    def uploads(self, owner: str) -> list[Upload]:
        """Data that the owner uploaded or was given the link of, the latest used first."""
        return self._uploads.of(owner)

    def may_use(self, digest: str, owner: str) -> bool:
        """Whether the owner may use kept data: uploaded them, opened a link to them, or fitted them."""
        return self._uploads.may_use(digest, owner)

    def link_key(self, digest: str, owner: str) -> str | None:
        """The key that the owner's links to these data carry; None for data that need none."""
        return self._uploads.key(digest, owner)

    def open_link(self, digest: str, key: str, owner: str) -> bool:
        """Let the owner use data whose link was opened; False for a wrong key and for no such data."""
        return self._uploads.open(digest, key, owner)

    def delete_upload(self, digest: str, owner: str) -> bool:
        """Delete a person's data and the fits of them; links to them end. True where nobody else has them."""
        return self._eraser.upload(digest, owner)

    def erase(self, owner: str) -> Erased:
        """Delete all that a person left here; what runs for nobody else stops."""
        return self._eraser.person(owner)

    # Keeping ----------------------------------------------------------------------------------------------

    def pin(self, id: str, pinned: bool = True, session: str | None = None) -> None:
        """Keep a result whatever the byte budget, or no longer.

        Parameters
        ----------
        id : str
            A fit.
        pinned : bool
            Keep it, or no longer.
        session : str, optional
            Whose pin it is; without one it is the server's own, which has no limit.

        Raises
        ------
        InputError
            The session has as many pins as one may have, or all pins together take too much room.
        StoreError
            The session has never asked for this fit.
        """
        if session is None:
            self.table.pin(id, pinned)
        elif pinned:
            room = PINNED_SHARE * self.settings.store_bytes
            self._notes.pin(id, session, self.settings.pins, room)
        else:
            self._notes.unpin(id, session)

    def rename(self, id: str, label: str, session: str | None = None) -> None:
        """Give a fit another title: for one session alone, or without one for all."""
        if session is None:
            self.table.rename(id, label[:200])
        else:
            self._notes.rename(id, session, label[:200])

    def delete(self, id: str, session: str) -> bool:
        """Delete the session's trace of a fit, and the fit where nobody else asked for it.

        A fit of built-in data that others made stays in the gallery.

        Returns
        -------
        bool
            Whether the fit itself went.
        """
        return self._eraser.fit(id, session)

    # ------------------------------------------------------------------------------------------------------

    def _job(self, id: str) -> Job | None:
        if self.table.epoch != self._epoch:
            # Another file took the table's place while it was open.
            self._epoch = self.table.epoch
            with suppress(StoreError):
                reindex(self.table, self.results)
        try:
            return self.table.get(id)
        except DamagedRow:
            mend(self.table, self.results, id)
            return self.table.get(id)

    def _done(self, id: str) -> Job:
        job = self._job(id)
        if job is None:
            raise StoreError(f"There is no fit {id[:12]}. It may have been deleted; fit again.")
        if job.state == "failed":
            raise StoreError(job.error or f"The fit {id[:12]} failed.")
        if job.state != "done":
            raise StoreError(f"The fit {id[:12]} has no result yet: it is {job.state}.")
        return job

    def _verified(self, id: str, read: Any) -> Any:
        try:
            return read(id)
        except DamagedResult as error:
            # Where the store cannot be written it cannot be set aside, and is not shown all the same.
            with suppress(StoreError):
                self._lose(id, str(error))
            raise

    def _lose(self, id: str, why: str) -> None:
        self.results.quarantine(id)
        self.table.lost(id, why)

    def _used(self, job: Job) -> None:
        if time.time() - job.used > _USED:
            # A result can be read even where this cannot be noted.
            with suppress(StoreError):
                self.table.touch(job.id)


@cache
def _built_in(id: str) -> Mapping[str, str]:
    """Digests and names of a scenario's built-in data sets: data are known by what they are."""
    found = scenario(id)
    return {found.dataset(name).digest: name for name in found.datasets}
