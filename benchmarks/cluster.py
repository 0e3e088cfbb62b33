"""A coverage study on a Dask cluster of this machine: one worker, then two, each a process of its own."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.row import NotMeasured, Row, show
from hbm_core.analysis.coverage import Truth, coverage_study
from hbm_core.analysis.spread import Spread, in_turn
from hbm_core.models.prior import Prior
from hbm_core.scenarios import scenario
from hbm_core.store.cluster import ClusterSpread
from hbm_core.store.cluster_worker import command

#: Data sets of eight units: 17 to 20 s of work for one worker.
REPLICATIONS = 30_000
REPEATS = 3


def rows() -> list[Row]:
    """Clocks of the same study by one worker and by two, and whether both count as this process does."""
    if len(os.sched_getaffinity(0)) < 2:
        raise NotMeasured("two workers need two cores")
    found = scenario("schools")
    priors = {name: Prior.parse(text) for name, text in (("mu", "Normal(0, 20)"), ("tau", "HalfCauchy(10)"))}
    se = found.model("weak").spec(found.dataset(found.default_dataset)).structure.se
    truth = Truth(tuple(se), mu=priors["mu"], tau=priors["tau"])

    def study(spread: Spread, replications: int = REPLICATIONS) -> str:
        table = coverage_study(truth, {"weak": priors}, replications=replications, seed=1, spread=spread)
        return table.to_json(double_precision=15)

    clocks: list[float] = []

    def timed(function, jobs) -> Iterator[object]:
        for job in jobs:
            began = time.perf_counter()
            yield from in_turn(function, [job])
            clocks.append(time.perf_counter() - began)

    here = study(timed, 5_000)
    with scheduler() as address, started(address):
        spread = ClusterSpread(address)
        try:
            one = _median(spread, 1, study)
            with started(address):
                two = _median(spread, 2, study)
                same = study(spread, 5_000) == here
        finally:
            spread.close()
    return [
        Row("one part of the study", 1e3 * statistics.median(clocks), "ms", 50, "more"),
        Row(f"{REPLICATIONS:,} data sets of {len(se)} units, one worker", one, "s", 10, "more"),
        Row("the same, two workers", two, "s"),
        Row("two workers over one", one / two, "×", 1.7, "more"),
        Row("numbers that differ from this process's", 0 if same else 1, target=0),
    ]


def _median(spread: ClusterSpread, workers: int, study) -> float:
    client = spread._connected()
    client.wait_for_workers(workers, timeout=120)
    # Once for what is imported and connected at the first task.
    study(spread, 20_000)
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        study(spread)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


@contextmanager
def scheduler() -> Iterator[str]:
    """A Dask scheduler on a free port of the loopback interface; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", "127.0.0.1"]
    with _process([*line, "--port", str(port)], dict(os.environ)):
        until = time.monotonic() + 120
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if time.monotonic() > until:
                raise RuntimeError("the scheduler did not start")
            time.sleep(0.1)
        yield f"tcp://127.0.0.1:{port}"


@contextmanager
def started(address: str) -> Iterator[None]:
    """One worker, as `hbm worker --scheduler` starts it."""
    line, environment = command(address)
    with _process(line, environment | {"HBM_WARM": "0"}):
        yield


@contextmanager
def _process(line: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    show(rows())
