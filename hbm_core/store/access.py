"""Names of people and keys of links: what decides who may see what on a shared server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import uuid
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from hbm_core.errors import StoreError

#: Bytes of the secret, and of the key of a link.
SECRET_BYTES, KEY_BYTES = 32, 18
_VISITOR = re.compile(r"[A-Za-z0-9_-]{32}")


def visitor_token() -> str:
    """A name for a browser that nobody can guess: what its cookie holds."""
    return secrets.token_urlsafe(24)


def is_visitor_token(text: object) -> bool:
    """Whether a cookie holds what `visitor_token` makes."""
    return isinstance(text, str) and _VISITOR.fullmatch(text) is not None


def owner_name(kind: str, *identity: str) -> str:
    """What the store calls a person: a digest, so that neither cookie nor address is kept.

    Parameters
    ----------
    kind : str
        "user" or "visitor".
    *identity : str
        What stays the same from visit to visit.

    Examples
    --------
    >>> owner_name("user", "issuer", "42") == owner_name("user", "issuer", "42")
    True
    >>> owner_name("user", "a", "bc") == owner_name("user", "ab", "c")
    False
    """
    text = "\0".join((kind, *identity))
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


class LinkKeys:
    """Keys that open links to private data, made with a secret that never leaves the store's folder.

    A key is HMAC-SHA256 of what it opens, cut to `KEY_BYTES` (RFC 2104, section 5).

    Parameters
    ----------
    store : Path
        The store's folder; its file ``link.secret`` is made once, readable by its owner alone.
    """

    def __init__(self, store: Path) -> None:
        self.path = store / "link.secret"

    def key(self, *parts: str) -> str:
        """The key for what `parts` name, safe in an address."""
        text = "\0".join(parts)
        digest = hmac.new(self._secret, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:KEY_BYTES]).decode()

    def fits(self, key: str, *parts: str) -> bool:
        """Whether `key` is that of `parts`; takes as long for a wrong one as for a right one."""
        return hmac.compare_digest(key.encode("utf-8", "replace"), self.key(*parts).encode())

    @cached_property
    def _secret(self) -> bytes:
        try:
            return self._kept() or self._made()
        except OSError as error:
            raise StoreError(
                f"The store's secret {self.path.name} cannot be used: {error.strerror}."
            ) from error

    def _kept(self) -> bytes | None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if len(content) != SECRET_BYTES:
            raise StoreError(
                f"The store's secret {self.path.name} is damaged. Delete the file and restart the app: links "
                "to private data that were given away stop working, everything else stays."
            )
        return content

    def _made(self) -> bytes:
        # Whole under another name first, then linked: of several processes one wins, none reads half of it.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(written, self.path)
        finally:
            written.unlink()
        found = self._kept()
        assert found is not None
        return found
