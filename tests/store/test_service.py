"""Workers, supervisor and engine together, in real processes that run fake tasks."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hbm_core.errors import DamagedResult, StoreError
from hbm_core.store.jobs import Ask, WorkerRow
from hbm_core.store.local import LocalEngine
from hbm_core.store.results import POSTERIOR
from hbm_core.store.settings import Settings
from hbm_core.store.supervisor import Supervisor
from tests.store.fake_tasks import GATED

#: Seconds after which something will not happen any more, on a machine that is busy too.
PATIENCE = 240


def settings_for(folder, **more):
    """Workers that step back for nobody: on a busy machine they would not get to anything."""
    given = {"store": folder, "workers": 2, "warm": 0, "cancel_seconds": 0.5, "nice": 0} | more
    return Settings(**given)


def until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)
    return value


class Service:
    """An engine on a store with running workers, and the log of who started what."""

    def __init__(self, folder, **more):
        self.settings = settings_for(folder, **more)
        self.engine = LocalEngine(self.settings)
        self.supervisor = Supervisor(self.settings)

    def ask(self, name, task="steps", session="s1", gated=False, **options):
        """Ask for a fit; a gated one runs until its gate is opened, however long that takes."""
        log = str(self.settings.store / f"{name}.log")
        given = {"gate": str(self.gate(name))} if gated else {}
        request = json.dumps({"seconds": 0.1, "log": log} | given | options)
        return self.engine.ask(Ask(name, f"tests.store.fake_tasks.{task}", request), session)

    def gate(self, name):
        return self.settings.store / f"{name}.gate"

    def open(self, *names):
        for name in names:
            self.gate(name).touch()

    def starts(self, name):
        path = self.settings.store / f"{name}.log"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def started(self, name):
        until(lambda: self.engine.status(name).progress is not None)
        return self.starts(name)[-1]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("store"))
    with service.supervisor, service.engine:
        yield service


def test_a_job_is_computed_and_its_result_served(service):
    service.ask("plain", value=7)
    assert service.engine.wait("plain", PATIENCE).state == "done"
    assert float(service.engine.result("plain").posterior["mu"].mean()) == 7
    assert service.engine.summary("plain") == {"attempts": 1}
    assert service.engine.meta("plain")["timings"] == {"total": 1.0}
    service.ask("plain", value=7, session="s2")
    assert service.engine.status("plain").state == "done"
    assert len(service.starts("plain")) == 1


def test_progress_and_partial_draws_are_seen_while_it_runs(service):
    service.ask("slow", gated=True)
    first = until(lambda: (p := service.engine.status("slow").progress) and p.fraction > 0 and p)
    later = until(lambda: (p := service.engine.status("slow").progress) and p.fraction > first.fraction and p)
    assert later.chains[0].total == GATED
    until(lambda: service.engine.status("slow").partial)
    early = service.engine.partial("slow").posterior.sizes["draw"]
    until(lambda: service.engine.partial("slow").posterior.sizes["draw"] > early)
    with pytest.raises(StoreError, match="no result yet"):
        service.engine.result("slow")
    service.engine.cancel("slow", "s1")
    assert service.engine.wait("slow", PATIENCE).state == "cancelled"
    until(lambda: service.engine.partial("slow") is None)
    assert service.engine.results.ids().count("slow") == 0


def test_a_worker_killed_mid_fit_is_replaced_and_the_fit_taken_up(service):
    service.ask("other", gated=True, value=1)
    service.ask("killed", gated=True, value=3)
    service.started("other")
    os.kill(service.started("killed"), signal.SIGKILL)
    service.open("other", "killed")
    assert service.engine.wait("killed", PATIENCE).state == "done"
    assert service.engine.summary("killed") == {"attempts": 2}
    assert float(service.engine.result("killed").posterior["mu"].mean()) == 3
    assert service.engine.wait("other", PATIENCE).state == "done"
    assert service.engine.summary("other") == {"attempts": 1}


def test_three_deaths_fail_the_fit_and_nothing_else(service):
    service.ask("deadly", seconds=0.02, deaths=3)
    status = service.engine.wait("deadly", PATIENCE)
    assert status.state == "failed"
    assert "3 times" in status.error and "SIGKILL" in status.error
    assert len(service.starts("deadly")) == 3
    service.ask("after")
    assert service.engine.wait("after", PATIENCE).state == "done"


def test_two_who_ask_the_same_share_one_run_and_one_may_leave(service):
    for session in ("s1", "s2"):
        service.ask("shared", gated=True, value=5, session=session)
    service.started("shared")
    service.engine.cancel("shared", "s1")
    assert not service.engine.status("shared").stopping
    service.open("shared")
    assert service.engine.wait("shared", PATIENCE).state == "done"
    assert len(service.starts("shared")) == 1


def test_a_cancel_that_is_not_obeyed_ends_the_worker_and_not_the_service(service, caplog):
    service.ask("stubborn", "stubborn")
    pid = service.started("stubborn")
    service.engine.cancel("stubborn", "s1")
    assert service.engine.wait("stubborn", PATIENCE).state == "cancelled"
    until(lambda: not process_exists(pid))
    until(lambda: "for its fit was cancelled" in caplog.text)
    assert "SIGKILL" not in caplog.text and "memory" not in caplog.text
    assert not service.engine.status("stubborn").partial
    service.ask("next")
    assert service.engine.wait("next", PATIENCE).state == "done"


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
def test_no_job_kills_its_worker_and_reasons_are_plain(service, task, words):
    names = lambda: {row.name for row in service.engine.table.workers()}  # noqa: E731
    until(lambda: len(names()) == 2)  # who replaces one that was ended comes later
    before = names()
    service.ask(task, task)
    status = service.engine.wait(task, PATIENCE)
    assert status.state == "failed"
    assert words in status.error
    assert "secret" not in status.error and "Traceback" not in status.error
    assert names() == before
    with pytest.raises(StoreError):
        service.engine.result(task)


def test_a_damaged_result_is_never_served_and_is_fitted_anew(service):
    service.ask("bits", value=2)
    service.engine.wait("bits", PATIENCE)
    path = service.engine.results.path("bits") / POSTERIOR
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DamagedResult):
        service.engine.result("bits")
    status = service.engine.status("bits")
    assert status.state == "failed"
    assert "damaged" in status.error
    service.ask("bits", value=2)
    assert service.engine.wait("bits", PATIENCE).state == "done"
    assert float(service.engine.result("bits").posterior["mu"].mean()) == 2


def test_a_missing_result_is_noticed_when_asked_for_again(service):
    service.ask("missing")
    service.engine.wait("missing", PATIENCE)
    service.engine.results.delete("missing")
    service.ask("missing")
    assert service.engine.wait("missing", PATIENCE).state == "done"
    assert len(service.starts("missing")) == 2


def test_a_second_supervisor_stands_by(service):
    second, tried = Supervisor(service.settings), threading.Event()
    take = second._take_ownership
    second._take_ownership = lambda: (take(), tried.set())[0]
    with second:
        assert tried.wait(PATIENCE)
        assert not second.owner
        assert all(place.process is None for place in second.places)
    assert service.supervisor.owner


def test_health_counts_workers(service):
    until(lambda: service.engine.health()["workers"] == 2)
    assert service.engine.health()["warming"] == 0
    assert not service.engine.warming()


def process_exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_stopped_and_started_again_the_fit_goes_on_and_its_start_is_not_counted(tmp_path):
    service = Service(tmp_path, workers=1)
    with service.engine:
        with service.supervisor:
            service.ask("long", gated=True)
            pid = service.started("long")
        assert not process_exists(pid)
        job = service.engine.table.get("long")
        assert (job.state, job.attempts) == ("queued", 0)
        assert service.engine.table.workers() == []
        service.open("long")
        with Supervisor(service.settings):
            assert service.engine.wait("long", PATIENCE).state == "done"
    assert len(service.starts("long")) == 2


def test_when_the_server_is_killed_its_workers_go_and_the_next_server_takes_up_the_fit(tmp_path):
    service = Service(tmp_path, workers=1)
    code = (
        "import sys, time\n"
        "from hbm_core.store.settings import Settings\n"
        "from hbm_core.store.supervisor import Supervisor\n"
        "Supervisor(Settings.from_environment()).start()\n"
        "time.sleep(3600)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], env=os.environ | service.settings.environment())
    try:
        with service.engine:
            service.ask("orphan", gated=True)
            pid = service.started("orphan")
            server.kill()
            server.wait()
            until(lambda: not process_exists(pid))
            service.open("orphan")
            with Supervisor(service.settings):
                assert service.engine.wait("orphan", PATIENCE).state == "done"
            assert len(service.starts("orphan")) == 2
    finally:
        server.kill()
        server.wait()


def test_a_run_beyond_its_time_limit_is_ended_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("hbm_core.store.supervisor.OVERTIME", 0.0)
    service = Service(tmp_path, workers=1, fit_seconds=1)
    with service.engine, service.supervisor:
        service.ask("endless", "stubborn")
        status = service.engine.wait("endless", PATIENCE)
    assert status.state == "failed"
    assert "time limit of 1 s" in status.error


def test_dead_workers_of_an_earlier_server_are_forgotten(tmp_path):
    import socket

    service = Service(tmp_path, workers=0)
    with service.engine:
        service.ask("left")
        service.engine.table.claim("ghost", 3600)
        service.engine.table.show(
            WorkerRow("ghost", socket.gethostname(), 2**22 + 1, "busy", 0.0, time.time())
        )
        with service.supervisor:
            until(lambda: service.engine.status("left").state == "queued")
        assert service.engine.table.workers() == []
