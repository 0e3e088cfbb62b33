"""How a study's parts are computed: in turn here, or wherever a `Spread` sends them.

A study decides its parts itself, whoever computes them, and each part is computed with linear algebra in one
thread: so the numbers of a study are the same bit for bit on one core and on a cluster of equal machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol

from threadpoolctl import ThreadpoolController


class Spread(Protocol):
    """Computes ``function(*job)`` for every job, and yields the answers in the jobs' order.

    `function` is a module's own, jobs are plain values and arrays: both may travel to another process.
    """

    def __call__(self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """The answers, in order."""
        ...


def in_turn(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """The jobs one after the other, in this process.

    Examples
    --------
    >>> list(in_turn(pow, [(2, 3), (3, 2)]))
    [8, 9]
    """
    for job in jobs:
        yield part(function, job)


def part(function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    """One job, its linear algebra in one thread: how many there are decides the last bits of a sum."""
    with _pools().limit(limits=1, user_api="blas"):
        return function(*job)


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()
