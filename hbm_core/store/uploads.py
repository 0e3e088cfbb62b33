"""Who may use which uploaded data: its owners, and the guests who came by an owner's link."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from hbm_core.errors import InputError, StoreError
from hbm_core.store.access import LinkKeys
from hbm_core.store.jobs import JobTable

#: Using data is noted once in so many seconds.
_USED = 60.0


@dataclass(frozen=True)
class Upload:
    """One person's hold on a data set.

    Parameters
    ----------
    digest : str
        Of the data.
    owner : str
        Who may use them.
    label : str
        The owner's title for them, e.g. the file's name; nobody else sees it.
    guest : bool
        Whether the hold came by another's link: it ends when that other deletes the data.
    bytes : int
        Size of the kept table.
    created, used : float
        Seconds since the epoch.
    """

    digest: str
    owner: str
    label: str
    guest: bool
    bytes: int
    created: float
    used: float


class UploadTable:
    """The table of uploads in the file of the job table.

    Parameters
    ----------
    table : JobTable
        Whose file holds it.
    keys : LinkKeys
        Make and check the keys of links.
    """

    def __init__(self, table: JobTable, keys: LinkKeys) -> None:
        self.table, self.keys = table, keys

    def keep(
        self, digest: str, owner: str, label: str, size: int, most: int = 10**9, most_bytes: float = 1e18
    ) -> None:
        """Enter or renew an owner's hold on data.

        Raises
        ------
        InputError
            The owner holds `most` uploads already.
        StoreError
            All uploads together would take more than `most_bytes`.
        """
        now = time.time()
        with self.table._transaction() as db:
            known = db.execute(
                "SELECT guest FROM uploads WHERE digest = ? AND owner = ?", (digest, owner)
            ).fetchone()
            if known is None:
                count = db.execute(
                    "SELECT count(*) FROM uploads WHERE owner = ? AND NOT guest", (owner,)
                ).fetchone()[0]
                if count >= most:
                    hint = "Delete some on the page Fits, or raise HBM_UPLOADS."
                    raise InputError("uploads of one person", f"at most {most:,}", f"{count + 1:,}", hint)
            total = db.execute(
                "SELECT coalesce(sum(bytes), 0) FROM (SELECT DISTINCT digest, bytes FROM uploads"
                " WHERE digest <> ?)",
                (digest,),
            ).fetchone()[0]
            if total + size > most_bytes:
                raise StoreError(
                    f"The uploads kept here would take {(total + size) / 1e6:,.0f} MB; the limit is "
                    f"{most_bytes / 1e6:,.0f} MB (HBM_UPLOADS_BYTES). Delete data that are not needed."
                )
            db.execute(
                "INSERT INTO uploads (digest, owner, label, guest, link, bytes, created, used)"
                " VALUES (?, ?, ?, 0, ?, ?, ?, ?) ON CONFLICT (digest, owner) DO UPDATE SET used ="
                " excluded.used, label = coalesce(nullif(excluded.label, ''), label), guest = 0,"
                " link = CASE WHEN guest THEN excluded.link ELSE link END",
                (digest, owner, label[:200], secrets.token_hex(16), size, now, now),
            )

    def of(self, owner: str) -> list[Upload]:
        """What the owner may use, the latest used first."""
        rows = self.table._all("SELECT * FROM uploads WHERE owner = ? ORDER BY used DESC, digest", (owner,))
        return [_upload(row) for row in rows]

    def may_use(self, digest: str, owner: str) -> bool:
        """Whether the data are held by `owner`, or are those of a fit that `owner` asked for."""
        now = time.time()
        row = self.table._one(
            "SELECT link, used FROM uploads WHERE digest = ? AND owner = ?", (digest, owner)
        )
        if row is not None:
            if now - row["used"] > _USED:
                # A guest's use keeps the host's data from going by age, and nobody else's.
                self.table._write(
                    "UPDATE uploads SET used = ? WHERE digest = ? AND link = ?", (now, digest, row["link"])
                )
            return True
        asked = "SELECT 1 FROM jobs JOIN interest ON job = id WHERE data = ? AND session = ? LIMIT 1"
        return self.table._one(asked, (digest, owner)) is not None

    def held(self, digest: str) -> bool:
        """Whether the data are anybody's upload."""
        return self.table._one("SELECT 1 FROM uploads WHERE digest = ? AND NOT guest", (digest,)) is not None

    def needed(self, digest: str) -> bool:
        """Whether the data are anybody's upload, or those of a kept fit."""
        found = "SELECT 1 FROM jobs WHERE data = ? LIMIT 1"
        return self.held(digest) or self.table._one(found, (digest,)) is not None

    def key(self, digest: str, owner: str) -> str | None:
        """The key that `owner`'s links to the data carry; None for who may not use them.

        It ends with the upload it was made for. Simulated data, which are nobody's upload, have one key.
        """
        row = self.table._one("SELECT link FROM uploads WHERE digest = ? AND owner = ?", (digest, owner))
        if row is not None:
            return self.keys.key(digest, row["link"])
        shared = not self.held(digest) and self.may_use(digest, owner)
        return self.keys.key(digest, "") if shared else None

    def open(self, digest: str, key: str, owner: str) -> bool:
        """Let `owner` use the data as a guest where `key` is that of a link to them."""
        rows = self.table._all(
            "SELECT link, bytes FROM uploads WHERE digest = ? AND NOT guest"
            " UNION ALL SELECT * FROM (SELECT '', 0 FROM jobs WHERE data = ? LIMIT 1)"
            " WHERE NOT EXISTS (SELECT 1 FROM uploads WHERE digest = ? AND NOT guest)",
            (digest, digest, digest),
        )
        # One comparison at least: an answer takes as long for data that are not here.
        tried = [(row, self.keys.fits(key, digest, row["link"])) for row in rows]
        if not rows:
            self.keys.fits(key, digest, "")
        found = next((row for row, fits in tried if fits), None)
        if found is None:
            return False
        now = time.time()
        self.table._write(
            "INSERT INTO uploads (digest, owner, label, guest, link, bytes, created, used)"
            " VALUES (?, ?, '', 1, ?, ?, ?, ?)"
            " ON CONFLICT (digest, owner) DO UPDATE SET used = excluded.used",
            (digest, owner, found["link"], found["bytes"], now, now),
        )
        return True

    def drop(self, digest: str, owner: str) -> tuple[str, ...]:
        """End a person's hold, and the holds of guests who came by that person's link; whose ended."""
        with self.table._transaction() as db:
            row = db.execute(
                "DELETE FROM uploads WHERE digest = ? AND owner = ? RETURNING guest, link", (digest, owner)
            ).fetchone()
            if row is None:
                return ()
            if row["guest"]:
                return (owner,)
            guests = db.execute(
                "DELETE FROM uploads WHERE digest = ? AND guest AND link = ? RETURNING owner",
                (digest, row["link"]),
            ).fetchall()
        return (owner, *(guest["owner"] for guest in guests))

    def drop_guests(self, digest: str) -> None:
        """End all guests' holds on data that go."""
        self.table._write("DELETE FROM uploads WHERE digest = ? AND guest", (digest,))

    def old(self, before: float) -> list[Upload]:
        """Holds that were not used since `before`, in seconds since the epoch."""
        return [_upload(row) for row in self.table._all("SELECT * FROM uploads WHERE used < ?", (before,))]


def _upload(row: object) -> Upload:
    given = {name: row[name] for name in Upload.__dataclass_fields__}  # type: ignore[index]
    return Upload(**given | {"guest": bool(given["guest"])})
