"""What one person notes on fits that several may share: an own title, an own pin."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hbm_core.errors import InputError, StoreError
from hbm_core.store.jobs import Job, JobTable

#: Share of the store's budget that visitors' pins may take: the rest stays for fits that come and go.
PINNED_SHARE = 0.5


@dataclass(frozen=True)
class NoteTable:
    """The table of notes in the file of the job table. Only who asked for a fit can note something on it."""

    table: JobTable

    def applied(self, jobs: list[Job], owner: str) -> list[Job]:
        """The jobs with the owner's titles and pins."""
        rows = self.table._all("SELECT job, title, pinned FROM notes WHERE session = ?", (owner,))
        own = {row["job"]: row for row in rows}
        return [
            replace(
                job,
                label=own[job.id]["title"] or job.label,
                pinned=job.pinned or bool(own[job.id]["pinned"]),
            )
            if job.id in own
            else job
            for job in jobs
        ]

    def rename(self, id: str, owner: str, title: str) -> None:
        """Give a fit a title that its owner alone sees."""
        self._check(id, owner)
        self.table._write(
            "INSERT INTO notes (job, session, title) VALUES (?, ?, ?)"
            " ON CONFLICT (job, session) DO UPDATE SET title = excluded.title",
            (id, owner, title),
        )

    def pin(self, id: str, owner: str, most: int, most_bytes: float) -> None:
        """Keep a fit whatever the budget.

        Raises
        ------
        InputError
            The owner has pinned `most` fits already, or all pins together would take over `most_bytes`.
        """
        self._check(id, owner)
        with self.table._transaction() as db:
            count = db.execute(
                "SELECT count(*) FROM notes WHERE session = ? AND pinned AND job <> ?", (owner, id)
            ).fetchone()[0]
            if count >= most:
                hint = "Unpin another first, or raise HBM_PINS."
                raise InputError("pinned fits of one person", f"at most {most:,}", f"{count + 1:,}", hint)
            total = db.execute(
                "SELECT coalesce(sum(bytes), 0) FROM jobs"
                " WHERE id = ? OR id IN (SELECT job FROM notes WHERE pinned)",
                (id,),
            ).fetchone()[0]
            if total > most_bytes:
                raise InputError(
                    "size of all pinned fits",
                    f"at most {most_bytes / 1e6:,.0f} MB",
                    f"{total / 1e6:,.0f} MB",
                    f"Pins may take {PINNED_SHARE:.0%} of the store: raise HBM_STORE_BYTES.",
                )
            db.execute(
                "INSERT INTO notes (job, session, pinned) VALUES (?, ?, 1)"
                " ON CONFLICT (job, session) DO UPDATE SET pinned = 1",
                (id, owner),
            )

    def unpin(self, id: str, owner: str) -> None:
        """Keep a fit no longer whatever the budget."""
        self.table._write("UPDATE notes SET pinned = 0 WHERE job = ? AND session = ?", (id, owner))

    def pinned(self) -> set[str]:
        """Ids of the fits that anybody has pinned."""
        return {row["job"] for row in self.table._all("SELECT job FROM notes WHERE pinned", ())}

    def made(self, id: str, owner: str) -> bool:
        """Whether the owner was the first to ask for the fit: others found it here."""
        row = self.table._one(
            "SELECT 1 FROM jobs JOIN interest ON job = id WHERE id = ? AND session = ? AND since <= created",
            (id, owner),
        )
        return row is not None

    def waiting(self, owner: str) -> int:
        """How many fits wait for a worker on the owner's behalf."""
        row = self.table._one(
            "SELECT count(*) AS n FROM jobs JOIN interest ON job = id"
            " WHERE session = ? AND active AND state = 'queued'",
            (owner,),
        )
        return 0 if row is None else int(row["n"])

    def _check(self, id: str, owner: str) -> None:
        if owner not in self.table.sessions(id, active=False):
            raise StoreError(f"The fit {id[:12]} is not in your list: fit its study first.")
