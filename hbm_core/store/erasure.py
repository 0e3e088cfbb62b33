"""How fits and uploads end: by their owner's wish, or by age. What nobody else holds leaves the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hbm_core.store.jobs import JobTable
from hbm_core.store.notes import NoteTable
from hbm_core.store.results import ResultStore
from hbm_core.store.uploads import UploadTable

#: Seconds after which data that nothing refers to are left over from a crash.
LEFT_OVER = 86400.0


@dataclass(frozen=True)
class Erased:
    """What went.

    Parameters
    ----------
    fits, uploads : int
        How many left the disk.
    shared_fits, shared_uploads : int
        How many stay for others, without any trace of the owner.
    """

    fits: int = 0
    uploads: int = 0
    shared_fits: int = 0
    shared_uploads: int = 0


@dataclass(frozen=True)
class Eraser:
    """Ends what people hold.

    Parameters
    ----------
    table, results, uploads
        Of one store.
    """

    table: JobTable
    results: ResultStore
    uploads: UploadTable

    @property
    def notes(self) -> NoteTable:
        """Titles and pins."""
        return NoteTable(self.table)

    def fit(self, id: str, owner: str) -> bool:
        """Delete the owner's trace of a fit; True where the fit itself went.

        It goes where nobody else asked for it. One that the server's owner pinned stays, and so does one of
        built-in data that this owner found here: it is everybody's.
        """
        job = self.table.get(id)
        if job is None or owner not in self.table.sessions(id, active=False):
            return False
        made = self.notes.made(id, owner)
        last = self.table.forget(id, owner)
        if not last or job.pinned or (job.public and not made):
            return False
        self._remove(id, job.data)
        return True

    def upload(self, digest: str, owner: str) -> bool:
        """End a person's hold on data, with the fits made of them; True where the data themselves went.

        Guests who came by this person's link lose the data too: a deletion that a link could prevent would be
        none. Others who uploaded the same table keep it.
        """
        for name in self.uploads.drop(digest, owner):
            for job in self.table.jobs(name):
                if job.data == digest:
                    self.fit(job.id, name)
        if self.uploads.held(digest):
            return False
        for job in self.table.jobs():
            if job.data == digest and not job.public and not self.table.sessions(job.id, active=False):
                self._remove(job.id, job.data)
        return self._drop_data(digest)

    def person(self, owner: str) -> Erased:
        """Delete all that a person left here; what runs for nobody else stops."""
        fits = [job.id for job in self.table.jobs(owner)]
        uploads = [upload for upload in self.uploads.of(owner)]
        gone = sum(self.upload(upload.digest, owner) for upload in uploads)
        own = sum(not upload.guest for upload in uploads)
        for id in fits:
            self.fit(id, owner)
        self.table.settle()
        left = self.table.ids()
        kept = sum(id in left for id in fits)
        return Erased(len(fits) - kept, gone, kept, own - gone)

    def expired(self, days: float, now: float | None = None) -> Erased:
        """Delete fits and uploads that nobody used for so many days; pinned fits and their data stay."""
        before = (time.time() if now is None else now) - days * 86400
        jobs, pinned = self.table.jobs(), self.notes.pinned()
        alive = {
            job.id
            for job in jobs
            if job.pinned or job.id in pinned or job.used >= before or job.state in ("queued", "running")
        }
        uploads = 0
        for upload in self.uploads.old(before):
            own = {job.id for job in self.table.jobs(upload.owner) if job.data == upload.digest}
            if not own & alive:
                uploads += self.upload(upload.digest, upload.owner)
        present = self.table.ids()
        fits = sum(job.id not in present for job in jobs)
        for job in jobs:
            if job.id in present and job.id not in alive:
                self._remove(job.id, job.data)
                fits += 1
        self.results.purge_aside(before)
        self.table.settle()
        return Erased(fits, uploads)

    def left_over(self, age: float = LEFT_OVER) -> int:
        """Delete data and draws that nothing refers to, as a crash leaves them; how many data sets went."""
        before = time.time() - age
        for id in set(self.results.partial_ids(before)) - self.table.ids():
            self.results.drop_partial(id)
        found = self.results.data_digests(before)
        return sum(self._drop_data(digest) for digest in found)

    def _remove(self, id: str, data: str | None) -> None:
        # Whatever its state: a worker that finds its row gone stops, and removes what it has written.
        self.table.drop(id)
        self.results.purge(id)
        if data is not None:
            self._drop_data(data)

    def _drop_data(self, digest: str) -> bool:
        if self.uploads.needed(digest):
            return False
        self.uploads.drop_guests(digest)
        self.results.delete_data(digest)
        return True
