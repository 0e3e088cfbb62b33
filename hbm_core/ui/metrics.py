"""What the server tells those who run it: health for a probe, numbers for Prometheus. No names, no titles."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from streamlit.config import get_option

import hbm_core
from hbm_core.errors import StoreError
from hbm_core.store.jobs import STATES
from hbm_core.store.settings import Settings
from hbm_core.ui import explorer_script, fits

#: Seconds within which the job table must answer, for a probe that waits no longer itself.
PATIENCE = 2.0
#: The text format that Prometheus reads, https://prometheus.io/docs/instrumenting/exposition_formats/.
FORMAT = "text/plain; version=0.0.4; charset=utf-8"
_STARTED = time.time()
_asked: dict[str, asyncio.Task[Any]] = {}


@dataclass(frozen=True)
class Metric:
    """One metric: its name, what it says, its kind, and a value per set of labels."""

    name: str
    words: str
    values: Iterable[tuple[Mapping[str, str], float]]
    kind: Literal["gauge", "counter"] = "gauge"

    @property
    def text(self) -> str:
        """Lines of the text format."""
        lines = [f"# HELP {self.name} {self.words}", f"# TYPE {self.name} {self.kind}"]
        for labels, value in self.values:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(f"{self.name}{{{inside}}} {value:.10g}" if inside else f"{self.name} {value:.10g}")
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def of_process() -> list[Metric]:
    """What the web process knows without asking anybody."""
    found = [
        Metric("hbm_info", "Version of the app.", [({"version": hbm_core.__version__}, 1)]),
        Metric("hbm_sessions", "Browser tabs that are connected.", [({}, _sessions())]),
        Metric("process_start_time_seconds", "Start of the web process since the epoch.", [({}, _STARTED)]),
    ]
    if (resident := _resident()) is not None:
        words = "Resident memory of the web process."
        found.append(Metric("process_resident_memory_bytes", words, [({}, resident)]))
    return found


def of_table(load: dict[str, Any], settings: Settings) -> list[Metric]:
    """What the job table says, as `LocalEngine.load` gives it."""
    states = [({"state": state}, float(load["fits"].get(state, 0))) for state in STATES]
    workers = [
        ({"state": state}, float(load["workers"].get(state, 0))) for state in ("warming", "idle", "busy")
    ]
    return [
        Metric("hbm_fits", "Fits and studies by where they stand.", states),
        Metric("hbm_workers", "Workers that showed themselves within a minute.", workers),
        Metric("hbm_queue_oldest_seconds", "How long the longest waiting fit waits.", [({}, load["oldest"])]),
        Metric("hbm_queue_limit", "Fits that may wait (HBM_QUEUE).", [({}, settings.queue)]),
        Metric("hbm_store_bytes", "Bytes of kept fits.", [({}, load["bytes"])]),
        Metric(
            "hbm_store_limit_bytes", "Bytes of fits to keep (HBM_STORE_BYTES).", [({}, settings.store_bytes)]
        ),
    ]


async def health(request: Request) -> JSONResponse:
    """Say whether the job table answers and how many workers are ready."""
    try:
        counts = await _within("health", lambda: fits.engine().health())
    except StoreError as problem:
        return JSONResponse({"ok": False, "reason": str(problem)}, status_code=503)
    return JSONResponse({"ok": True, "version": hbm_core.__version__, **counts})


async def metrics(request: Request) -> Response:
    """Numbers for Prometheus; where the job table does not answer, its own are absent and `hbm_up` is 0."""
    settings = Settings.from_environment()
    if not settings.metrics:
        return PlainTextResponse("Not Found", status_code=404)
    found, up = of_process(), 1
    try:
        found += of_table(await _within("load", lambda: fits.engine().load()), settings)
    except StoreError:
        up = 0
    found.append(Metric("hbm_up", "Whether the job table answers.", [({}, up)]))
    headers = {"cache-control": "no-store"}
    return Response("".join(metric.text for metric in found), media_type=FORMAT, headers=headers)


async def _within(name: str, read: Callable[[], Any]) -> Any:
    """Read in a thread, one at a time however many ask; StoreError where it takes more than `PATIENCE`."""
    task = _asked.get(name)
    if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
        task = _asked[name] = asyncio.create_task(asyncio.to_thread(read))
        # Whoever asked may be gone when it fails.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        return await asyncio.wait_for(asyncio.shield(task), PATIENCE)
    except TimeoutError:
        raise StoreError(f"The job table did not answer within {PATIENCE:g} s.") from None


def _sessions() -> float:
    from streamlit.runtime import Runtime

    if not Runtime.exists():
        return 0.0
    # No public count: the session manager's own, as Streamlit's session metrics read it.
    return float(Runtime.instance()._session_mgr.num_active_sessions())


def _resident() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return None
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


async def _absent(request: Request) -> JSONResponse:
    """Say that there is no such answer: the app's page would pass for one."""
    return JSONResponse({"ok": False, "reason": "There is /api/health and /api/metrics."}, status_code=404)


def _routes() -> list[Route]:
    """All of them at the root and under the app's own path: Streamlit moves only its own routes there."""
    base = (get_option("server.baseUrlPath") or "").strip("/")
    prefixes = ("", f"/{base}") if base else ("",)
    answers = {
        "/api/health": health,
        "/api/metrics": metrics,
        f"/{explorer_script.path()}": explorer_script.script,
        "/api/{rest:path}": _absent,
    }
    return [Route(prefix + path, answer) for prefix in prefixes for path, answer in answers.items()]


ROUTES = _routes()
