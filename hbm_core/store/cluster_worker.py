"""A cluster's worker that fits: ``hbm worker --scheduler tcp://host:port``.

One task at a time, linear algebra in one thread, started again when it dies, waiting while the scheduler is
away. This process only watches; what computes is its child, so that little is imported here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import hbm_core

#: Seconds until a worker without a scheduler looks for it again.
AGAIN = 2.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
#: Dask looks at its workers a hundred times a second: a tenth of the core that should compute.
_QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
}
_log = logging.getLogger("hbm.cluster")


async def serve(scheduler: str, ending: asyncio.Event) -> None:
    """Be a worker of the cluster, one task at a time, until told to end; wait while the scheduler is away."""
    from distributed import Nanny

    for name in ("nanny", "preloading", "process"):
        logging.getLogger(f"distributed.{name}").setLevel(logging.WARNING)
    said = False
    while not ending.is_set():
        try:
            async with Nanny(
                scheduler, nthreads=1, preload=["hbm_core.store.remote"], death_timeout="60s"
            ) as nanny:
                said = False
                print(f"Working for {scheduler}. Ctrl-C stops.", flush=True)
                waits = [asyncio.ensure_future(nanny.finished()), asyncio.ensure_future(ending.wait())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
        except (OSError, RuntimeError, TimeoutError) as error:
            _log.info("%s", error)
        if not ending.is_set() and not said:
            said = True
            print(f"The scheduler {scheduler} does not answer; waiting for it.", flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), AGAIN)


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scheduler", help="tcp://host:port")
    given = parser.parse_args()

    async def until_told() -> None:
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        await serve(given.scheduler, ending)

    asyncio.run(until_told())


def command(scheduler: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a worker of the cluster."""
    root = str(Path(hbm_core.__file__).parents[1])
    path = os.pathsep.join(entry for entry in (root, os.environ.get("PYTHONPATH", "")) if entry)
    # Said before NumPy is imported anywhere: the sampler's chains run in threads of their own.
    environment = _QUIET | dict.fromkeys(_THREADS, "1") | os.environ | {"PYTHONPATH": path}
    return [sys.executable, "-m", "hbm_core.store.cluster_worker", scheduler], environment


if __name__ == "__main__":
    main()
