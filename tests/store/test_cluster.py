"""A real Dask cluster on this machine: a scheduler and two workers, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hbm_core.analysis.coverage import Truth, coverage_study, sbc_pit
from hbm_core.analysis.promise import coverage_curve
from hbm_core.errors import FitError, InputError, StoreError
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.store.cluster import (
    ClusterEngine,
    ClusterSpread,
    Dispatcher,
    compute_there,
    connect,
    disconnect,
    open_crew,
    open_engine,
)
from hbm_core.store.jobs import Ask
from hbm_core.store.local import LocalEngine
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from hbm_core.store.supervisor import Supervisor
from hbm_core.store.worker import compute_here
from tests.store.test_service import until

ROOT = Path(__file__).parents[2]
#: Seconds that processes may take to start on a machine that is busy with other tests.
STARTING = 240
WEAK = {"mu": Prior.parse("Normal(0, 20)"), "tau": Prior.parse("HalfCauchy(10)")}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Cluster:
    """A scheduler and workers that can be killed one by one."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *arguments],
            cwd=ROOT,
            env=os.environ | {"HBM_WARM": "0", "HBM_NICE": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start_scheduler(self) -> None:
        self.scheduler = self._start(
            "distributed.cli.dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--no-dashboard",
        )

    def start_worker(self) -> None:
        self.workers.append(self._start("hbm_core.cli", "worker", "--scheduler", self.address))

    def kill_scheduler(self) -> None:
        assert self.scheduler is not None
        self.scheduler.kill()
        self.scheduler.wait()

    def stop(self) -> None:
        processes = [*self.workers, *([self.scheduler] if self.scheduler else [])]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    try:
        found.start_scheduler()
        for _ in range(2):
            found.start_worker()
        # Any test of this file may be the first that a process runs.
        client = connect(found.address, STARTING)
        client.wait_for_workers(2, STARTING)
        disconnect(client)
        yield found
    finally:
        found.stop()


class Service:
    """An engine on a store whose jobs go to a cluster."""

    def __init__(self, folder: Path, address: str, **more) -> None:
        self.settings = Settings(folder, scheduler=address, cancel_seconds=2, **more)
        self.engine = open_engine(self.settings)
        self.crew = open_crew(self.settings)

    def ask(self, name: str, task: str = "steps", session: str = "s1", gated=False, **options) -> None:
        """Ask for a fit; a gated one runs until its gate is opened, however long that takes."""
        log, gate = (str(self.settings.store / f"{name}.{ending}") for ending in ("log", "gate"))
        request = json.dumps({"seconds": 0.1, "log": log} | ({"gate": gate} if gated else {}) | options)
        self.engine.ask(Ask(name, f"tests.store.fake_tasks.{task}", request), session)

    def open(self, *names: str) -> None:
        for name in names:
            (self.settings.store / f"{name}.gate").touch()

    def starts(self, name: str) -> list[int]:
        path = self.settings.store / f"{name}.log"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def started(self, name: str, times: int = 1) -> int:
        until(lambda: len(self.starts(name)) >= times)
        return self.starts(name)[-1]


@contextmanager
def running(folder: Path, address: str, **more) -> Iterator[Service]:
    service = Service(folder, address, **more)
    with service.engine, service.crew:
        yield service


@pytest.fixture(scope="module")
def service(cluster: Cluster, tmp_path_factory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("store"), cluster.address) as found:
        until(lambda: found.engine.health()["workers"] == 2, STARTING)
        yield found


def test_the_setting_chooses_the_engine(tmp_path) -> None:
    alone, shared = Settings(tmp_path), Settings(tmp_path, scheduler="tcp://here:8786")
    assert type(open_crew(alone)) is Supervisor and type(open_crew(shared)) is Dispatcher
    with open_engine(alone) as one, open_engine(shared) as other:
        assert type(one) is LocalEngine and type(other) is ClusterEngine
    for wrong in ("here:8786", "tcp://here", "http://here:1", "tcp://a b:1"):
        with pytest.raises(InputError, match="HBM_SCHEDULER"):
            Settings(tmp_path, scheduler=wrong)


def test_a_job_is_computed_on_the_cluster_and_its_result_served(service: Service) -> None:
    service.ask("plain", value=7)
    assert service.engine.wait("plain", STARTING).state == "done"
    assert float(service.engine.result("plain").posterior["mu"].mean()) == 7
    assert service.engine.summary("plain") == {"attempts": 1}
    assert service.engine.meta("plain")["timings"] == {"total": 1.0}
    assert os.getpid() not in service.starts("plain")


def test_two_sessions_share_one_run_and_see_it_grow(service: Service) -> None:
    for session in ("s1", "s2"):
        service.ask("shared", gated=True, session=session)
    first = until(lambda: (p := service.engine.status("shared").progress) and p.fraction > 0 and p)
    until(lambda: (p := service.engine.status("shared").progress) and p.fraction > first.fraction)
    assert until(lambda: service.engine.partial("shared")).posterior.sizes["draw"] > 1
    service.engine.cancel("shared", "s1")
    service.open("shared")
    assert service.engine.wait("shared", STARTING).state == "done"
    assert len(service.starts("shared")) == 1
    assert service.engine.partial("shared") is None


def test_a_cancel_stops_the_run_and_frees_its_worker(service: Service) -> None:
    service.ask("long", gated=True)
    service.started("long")
    service.engine.cancel("long", "s1")
    assert service.engine.wait("long", STARTING).state == "cancelled"
    for name in ("next1", "next2"):
        service.ask(name, seconds=0.05)
    assert {service.engine.wait(name, STARTING).state for name in ("next1", "next2")} == {"done"}
    assert "long" not in service.engine.results.ids()


def test_what_waits_has_a_place_and_no_more_run_than_there_are_workers(service: Service) -> None:
    for name in ("q1", "q2", "q3", "q4"):
        service.ask(name, gated=True)
    until(lambda: service.engine.health()["running"] == 2)
    assert [service.engine.status(name).position for name in ("q3", "q4")] == [1, 2]
    service.open("q1", "q2", "q3", "q4")
    assert {service.engine.wait(name, STARTING).state for name in ("q1", "q2", "q3", "q4")} == {"done"}


def test_a_worker_killed_mid_task_loses_nothing_and_counts_as_an_attempt(service: Service) -> None:
    for name in ("killed", "other"):
        service.ask(name, gated=True, value=3)
    service.started("other")
    os.kill(service.started("killed"), signal.SIGKILL)
    until(lambda: service.engine.table.get("killed").attempts == 2, STARTING)
    service.open("killed", "other")
    assert service.engine.wait("killed", STARTING).state == "done"
    assert float(service.engine.result("killed").posterior["mu"].mean()) == 3
    assert len(service.starts("killed")) == 2
    assert service.engine.wait("other", STARTING).state == "done"
    assert len(service.starts("other")) == 1


def test_a_fit_that_kills_its_workers_fails_with_the_reason(
    service: Service, cluster: Cluster, tmp_path
) -> None:
    with running(tmp_path, cluster.address, attempts=1) as strict:
        strict.ask("deadly", seconds=0.3, deaths=99)
        status = strict.engine.wait("deadly", STARTING)
        assert status.state == "failed"
        assert "started once" in status.error and "cluster died" in status.error
        until(lambda: strict.engine.health()["workers"] == 2, STARTING)
    service.ask("after")
    assert service.engine.wait("after", STARTING).state == "done"


@pytest.mark.parametrize(
    "task, words",
    [
        ("refuses", "No chain found a starting point."),
        ("breaks", "not foreseen (ZeroDivisionError)"),
        ("hungry", "more memory"),
        ("unmarked", "is not a task"),
        ("absent", "has no task"),
    ],
)
def test_reasons_are_plain(service: Service, task: str, words: str) -> None:
    service.ask(task, task)
    status = service.engine.wait(task, STARTING)
    assert status.state == "failed"
    assert words in status.error
    assert "secret" not in status.error and "Traceback" not in status.error


def test_other_versions_on_the_workers_are_refused(service: Service) -> None:
    study = Study.default("schools")
    data = study.data()
    request = replace(study.request(data), versions={"pymc": "6.0.0a1", "numpy": "1.0"})
    id = service.engine.submit(request, data, "s1")
    status = service.engine.wait(id, STARTING)
    assert status.state == "failed"
    assert "other versions" in status.error and "instead of 6.0.0a1" in status.error
    assert id not in service.engine.results.ids()


def test_a_server_that_stops_leaves_no_run_behind_and_the_next_goes_on(cluster: Cluster, tmp_path) -> None:
    with running(tmp_path, cluster.address) as first:
        first.ask("interrupted", gated=True)
        first.started("interrupted")
    with LocalEngine(first.settings) as engine:
        job = engine.table.get("interrupted")
        assert (job.state, job.attempts) == ("queued", 0)
    first.open("interrupted")
    with running(tmp_path, cluster.address) as second:
        assert second.engine.wait("interrupted", STARTING).state == "done"
    assert len(second.starts("interrupted")) == 2


def test_without_a_scheduler_fits_wait_and_say_why_and_go_on_when_it_comes(tmp_path) -> None:
    cluster = Cluster()
    with running(tmp_path, cluster.address) as service:
        service.ask("patient", gated=True)
        status = until(lambda: (s := service.engine.status("patient")).error and s)
        assert status.state == "queued" and "does not answer" in status.error
        assert service.engine.health()["cluster"] == "away" and cluster.address not in status.error
        try:
            cluster.start_scheduler()
            until(lambda: "no workers" in (service.engine.status("patient").error or ""), STARTING)
            cluster.start_worker()
            until(lambda: service.starts("patient"), STARTING)
            until(lambda: service.engine.status("patient").error is None)
            cluster.kill_scheduler()
            until(lambda: service.engine.status("patient").state == "queued")
            until(lambda: service.engine.status("patient").error)
            service.open("patient")
            cluster.start_scheduler()
            assert service.engine.wait("patient", STARTING).state == "done"
            assert service.engine.table.get("patient").attempts == 1
        finally:
            cluster.stop()


def test_the_command_line_says_that_no_scheduler_answers(tmp_path) -> None:
    settings = Settings(tmp_path, scheduler=f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match="No Dask scheduler answers"):
        compute_there(settings, "any")


# Bit for bit ----------------------------------------------------------------------------------------------


@pytest.mark.sampling
def test_a_fit_has_the_same_draws_here_and_on_the_cluster(
    cluster: Cluster, tmp_path, compile_cache, monkeypatch
) -> None:
    monkeypatch.setattr("hbm_core.store.tasks.compiled", lambda: compile_cache)
    study = Study.default("schools")
    data = study.data()
    request = replace(study.request(data), sampler=Sampler(draws=100, tune=100, chains=2, seed=5))
    trees = []
    for place, compute in (("here", compute_here), ("there", compute_there)):
        with LocalEngine(Settings(tmp_path / place, scheduler=cluster.address)) as engine:
            id = engine.submit(request, data, "s1")
            compute(engine.settings, id)
            assert engine.wait(id, STARTING).state == "done"
            trees.append(engine.result(id))
            assert engine.meta(id)["environment"]["pymc"] == request.versions["pymc"]
    here, there = trees
    assert set(here.groups) == set(there.groups)
    for node in here.subtree:
        for name, values in node.data_vars.items():
            found = there[node.path].data_vars[name]
            assert values.dtype == found.dtype
            np.testing.assert_array_equal(values.values, found.values, err_msg=f"{node.path} {name}")


@pytest.fixture(scope="module")
def spread(cluster: Cluster) -> Iterator[ClusterSpread]:
    found = ClusterSpread(cluster.address)
    yield found
    found.close()


def test_studies_are_the_same_bit_for_bit_here_and_on_the_cluster(spread: ClusterSpread) -> None:
    se = (15.0, 10, 16, 11, 9, 11, 10, 18)
    truth = Truth(se, mu=WEAK["mu"], tau=WEAK["tau"])
    spec = (study := Study.default("schools").change(model="skeptical")).spec(study.data())
    for compute in (
        lambda **more: coverage_study(truth, {"weak": WEAK}, replications=1500, seed=3, **more),
        lambda **more: coverage_curve(truth, {"weak": WEAK}, (0.0, 10.0), replications=60, seed=3, **more),
        lambda **more: sbc_pit(spec, 23, seed=3, **more),
    ):
        pd.testing.assert_frame_equal(compute(), compute(spread=spread), check_exact=True)


def test_a_study_reports_its_progress_and_its_errors(spread: ClusterSpread) -> None:
    seen: list[float] = []
    coverage_study(Truth((1.0, 2.0)), {}, ("none",), 7500, progress=seen.append, spread=spread)
    assert seen == sorted(seen) and seen[-1] == 1 and len(seen) == 3
    # the square of a text: raised on the worker, and told here as what it is
    with pytest.raises(TypeError):
        list(spread(pow, [("a", 2)]))
    with pytest.raises(FitError, match="other versions"):
        spread._connected().submit(_refused, pure=False).result()


def _refused() -> None:
    from hbm_core.store.remote import parts

    parts(pow, [(1, 1)], {"numpy": "1.0"})
