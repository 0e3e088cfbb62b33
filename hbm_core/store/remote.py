"""What happens on a cluster's worker: a fit, or some parts of a study.

Nothing here reads or writes the store: data come with the order, and the result goes back as bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

import hbm_core
from hbm_core.analysis.spread import part
from hbm_core.errors import FitError
from hbm_core.inference.sampler import Progress
from hbm_core.store.jobs import Job
from hbm_core.store.request import engine_versions
from hbm_core.store.results import Result, ResultStore, compact, environment, from_bytes, to_bytes

#: Seconds between two reports of progress, two partial traces, and two waits for a cancel.
REPORT, PARTIAL, LISTEN = 0.25, 2.0, 5.0
#: Largest partial trace that is shown, in bytes.
MOST = 20_000_000
#: Draws so far of the fits that run in this process, by claim.
_partial: dict[str, bytes] = {}
_log = logging.getLogger("hbm.cluster")


def versions() -> dict[str, str]:
    """What must agree between those who ask and those who compute."""
    return {"partial-pooling-explorer": hbm_core.__version__, **engine_versions()}


def differing(asked: Mapping[str, str]) -> str:
    """What differs from `asked` here, in words; empty where all agrees."""
    here = versions()
    return ", ".join(
        f"{name} {here.get(name, 'absent')} instead of {version}"
        for name, version in asked.items()
        if here.get(name) != version
    )


def refuse_other_versions(asked: Mapping[str, str]) -> None:
    """Raise FitError where this process would compute with other versions than were asked for."""
    if wrong := differing(asked):
        raise FitError(
            f"A worker of the cluster has other versions ({wrong}), and its numbers would not be those that "
            "were asked for. Install the same requirements on every worker and on the server."
        )


def parts(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], asked: Mapping[str, str]
) -> list[Any]:
    """Some parts of a study, in order; see `hbm_core.analysis.spread`."""
    refuse_other_versions(asked)
    return [part(function, job) for job in jobs]


def run(order: Mapping[str, Any]) -> dict[str, Any]:
    """Compute a job as a Dask task.

    Parameters
    ----------
    order : mapping
        Of plain values: versions, job (its columns), data (file name → bytes), time_limit (seconds), claim,
        topic (where progress goes), event (set to stop the run).

    Returns
    -------
    dict
        Either failure (in words), or posterior (netCDF), sha256, summary (JSON), timings, partial, stopped,
        environment.
    """
    from distributed import Event, get_client, get_worker

    worker = get_worker()
    key, claim = worker.get_current_task(), order["claim"]

    def tell(kind: str, **more: Any) -> None:
        worker.log_event(order["topic"], {"claim": claim, "kind": kind, **more})

    tell("started", worker=worker.address)
    stop, ended = threading.Event(), threading.Event()
    event = Event(order["event"], client=get_client())

    def listen() -> None:
        while not ended.is_set() and not stop.is_set():
            try:
                if event.wait(timeout=LISTEN):
                    stop.set()
            except Exception:
                # The scheduler is gone, or this worker is closing: nobody can take the result.
                stop.set()

    def should_stop() -> bool:
        # A task that is released while it runs goes on, so that Dask's own word is looked at too: nobody is
        # left to set the event when the server that asked was killed.
        task = worker.state.tasks.get(key)
        return stop.is_set() or task is None or task.state not in ("executing", "long-running")

    threading.Thread(target=listen, name="cancel", daemon=True).start()
    try:
        return _answer(order, tell, should_stop)
    except Exception as error:
        from hbm_core.store.worker import reason

        _log.warning("job %s failed", order["job"]["id"][:12], exc_info=True)
        return {"failure": reason(error)}
    finally:
        ended.set()
        with contextlib.suppress(Exception):
            # A set event would stay with the scheduler for good.
            event.clear()
        _partial.pop(claim, None)


def _answer(
    order: Mapping[str, Any], tell: Callable[..., None], should_stop: Callable[[], bool]
) -> dict[str, Any]:
    from hbm_core.store.tasks import Run, find

    refuse_other_versions(order["versions"])
    job = Job(**order["job"], progress=None)
    said = [0.0]

    def progress(value: Progress) -> None:
        if time.monotonic() - said[0] >= REPORT:
            said[0] = time.monotonic()
            tell("progress", progress=value.as_dict())

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        for name, content in order["data"].items():
            (store / "data").mkdir(exist_ok=True)
            (store / "data" / name).write_bytes(content)
        run = Run(ResultStore(store), order["time_limit"], progress, _shower(order, tell), should_stop)
        result: Result = part(find(job.task), (job, run))
    if should_stop():
        raise FitError("The fit was stopped.")
    tell("progress", progress=Progress("saving").as_dict())
    posterior = to_bytes(compact(result.tree))
    return {
        "posterior": posterior,
        "sha256": hashlib.sha256(posterior).hexdigest(),
        "summary": json.dumps(dict(result.summary)),
        "timings": dict(result.timings),
        "partial": result.partial,
        "stopped": result.stopped,
        "environment": environment(),
    }


def _shower(order: Mapping[str, Any], tell: Callable[..., None]) -> Callable[[xr.DataTree], None]:
    """Keep the draws so far where `partial_draws` finds them: they travel only if somebody fetches them."""
    shown = [time.monotonic()]

    def show(tree: xr.DataTree) -> None:
        if time.monotonic() - shown[0] < PARTIAL or tree.nbytes > MOST:
            return
        shown[0] = time.monotonic()
        _partial[order["claim"]] = to_bytes(tree)
        tell("partial")

    return show


def partial_draws(claim: str) -> bytes | None:
    """Draws so far of a fit that runs in this process."""
    return _partial.get(claim)


def result_of_answer(answer: Mapping[str, Any]) -> Result:
    """What a worker sent, verified. Raises FitError where it arrived damaged or the run failed."""
    if "failure" in answer:
        raise FitError(answer["failure"])
    content = answer["posterior"]
    if hashlib.sha256(content).hexdigest() != answer["sha256"]:
        raise FitError("The result was damaged on its way from the cluster. Fit again.")
    return Result(
        from_bytes(content),
        json.loads(answer["summary"]),
        answer["timings"],
        answer["partial"],
        answer["stopped"],
        answer["environment"],
    )


def dask_setup(worker: Any) -> None:
    """Get warm in the background, as a preload of a Dask worker: ``--preload hbm_core.store.remote``."""
    from hbm_core.store.settings import Settings
    from hbm_core.store.worker import warming

    def warm() -> None:
        for _ in warming():
            pass

    if Settings.from_environment().warm:
        threading.Thread(target=warm, name="warm", daemon=True).start()
