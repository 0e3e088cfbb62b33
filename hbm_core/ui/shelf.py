"""Values that are dear to compute, shared by all sessions: bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from itertools import islice
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np

#: Entries of a container that are weighed one by one.
_LOOKED = 10_000


def weight(value: Any) -> int:
    """Bytes of the arrays that a value holds, directly or in containers and the project's own objects."""
    seen: set[int] = set()

    def several(parts: Collection[Any]) -> int:
        # Of a million names the first ones tell: to walk through all takes longer than what is weighed.
        looked = sum(of(inner) for inner in islice(parts, _LOOKED))
        return looked * max(1, len(parts) // _LOOKED)

    def of(part: Any) -> int:
        if id(part) in seen:
            return 0
        seen.add(id(part))
        if isinstance(part, np.ndarray):
            return part.nbytes
        if isinstance(part, (dict, MappingProxyType)):
            return several(part.values())
        if isinstance(part, (tuple, list)):
            return several(part)
        # Anything else may lead anywhere: a function to its module, a module to the whole program.
        if type(part).__module__.startswith("hbm_core"):
            return sum(of(inner) for inner in getattr(part, "__dict__", {}).values())
        return 0

    return of(value)


class Shelf[Value]:
    """Keeps what was computed under a key; the longest unused goes first. Threads that ask at once share one.

    Parameters
    ----------
    entries : int
        Most values.
    size : int
        Most bytes of arrays in them, as `weight` counts; the newest stays even where it alone has more.

    Examples
    --------
    >>> shelf = Shelf[str](entries=2, size=1000)
    >>> shelf.get("a", lambda: "computed"), shelf.get("a", lambda: "not again")
    ('computed', 'computed')
    """

    def __init__(self, entries: int, size: int) -> None:
        self.entries, self.size = entries, size
        self._lock = Lock()
        self._kept: OrderedDict[str, Future[Value]] = OrderedDict()
        self._weights: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._weights

    @property
    def weight(self) -> int:
        """Bytes of what is kept."""
        with self._lock:
            return sum(self._weights.values())

    def get(self, key: str, compute: Callable[[], Value]) -> Value:
        """The value under a key, computed where it is not kept; what `compute` raises is not kept."""
        with self._lock:
            future = self._kept.get(key)
            if mine := future is None:
                future = self._kept[key] = Future()
            self._kept.move_to_end(key)
        assert future is not None
        if mine:
            try:
                value = compute()
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                future.set_exception(error)
                raise
            future.set_result(value)
            with self._lock:
                if key in self._kept:
                    self._weights[key] = weight(value)
                self._trim()
        return future.result()

    def _trim(self) -> None:
        total = sum(self._weights.values())
        for key in [key for key in self._kept if key in self._weights][:-1]:
            if len(self._weights) <= self.entries and total <= self.size:
                return
            total -= self._weights.pop(key)
            del self._kept[key]
