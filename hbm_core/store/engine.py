"""What runs fits, whatever it runs them on: the protocol that pages, command line and notebooks speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import xarray as xr

from hbm_core.inference.sampler import Progress
from hbm_core.models.dataset import Dataset
from hbm_core.store.jobs import Job, State
from hbm_core.store.request import FitRequest


@dataclass(frozen=True)
class Status:
    """Where a fit stands.

    Parameters
    ----------
    state : str
        "queued", "running", "done", "failed", "cancelled", or "none" for one that nobody asked for.
    progress : Progress or None
        Of a running fit, from its first report on.
    position : int or None
        Place in the queue, 1 for the next.
    error : str or None
        Why it failed, in plain words.
    stopping : bool
        Running, but nobody waits for it any more.
    partial : bool
        Draws so far can be read; of a fit that is done: it stopped early.
    warming : bool
        No worker is ready yet; the first is still getting warm.
    """

    state: State | str
    progress: Progress | None = None
    position: int | None = None
    error: str | None = None
    stopping: bool = False
    partial: bool = False
    warming: bool = False

    @property
    def active(self) -> bool:
        """Whether it will change by itself."""
        return self.state in ("queued", "running")


class Engine(Protocol):
    """Runs fits. A session is a token that stands for a person's visit; "" is nobody's."""

    def submit(self, request: FitRequest, dataset: Dataset, session: str, label: str = "") -> str:
        """Ask for a fit; its id. Same request, same id, one run."""
        ...

    def status(self, id: str) -> Status:
        """Where the fit stands."""
        ...

    def cancel(self, id: str, session: str) -> None:
        """Take back the session's wish; the run stops when nobody waits for it."""
        ...

    def result(self, id: str) -> xr.DataTree:
        """The result, verified and read-only."""
        ...

    def partial(self, id: str) -> xr.DataTree | None:
        """A running fit's draws so far; None where there are none yet."""
        ...

    def summary(self, id: str) -> dict[str, Any]:
        """The result's small summary."""
        ...

    def jobs(self, session: str) -> list[Job]:
        """The session's jobs, newest first."""
        ...
