"""Processes killed and crowds at the door: real supervisor, real workers, real signals, the real server."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest

from hbm_core.errors import StoreError
from hbm_core.inference.sampler import Sampler
from hbm_core.store.jobs import Ask
from hbm_core.store.local import LocalEngine
from hbm_core.store.results import META
from tests.browser.server import EAGER, serve
from tests.store import test_service
from tests.store.test_local import schools_request
from tests.store.test_service import Service, process_exists

#: Kills in a row; seconds after which something will not happen any more, on a machine that is busy too.
KILLS, PATIENCE = 20, 240


def until(condition):
    return test_service.until(condition, PATIENCE)


class Faulty(Service):
    """A service whose fits have known content and note their start and end in one log."""

    def want(self, name, seconds=0.3, session="s1", draws=20, gated=False):
        value = sum(name.encode())
        request = {"seconds": seconds, "value": value, "draws": draws, "log": str(self.log), "name": name}
        request |= {"gate": str(self.gate(name))} if gated else {}
        return self.engine.ask(Ask(name, "tests.store.fake_tasks.known", json.dumps(request)), session)

    @property
    def log(self):
        return self.settings.store / "all.log"

    def noted(self):
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def running(self):
        """Process ids of workers that are at a fit."""
        busy = {job.worker for job in self.engine.table.jobs() if job.state == "running"}
        return [
            place.process.pid
            for place in self.supervisor.places
            if place.process is not None and place.name in busy and place.process.poll() is None
        ]

    def verify(self):
        """Every result is whole and what its request says; nothing else lies about."""
        engine, results = self.engine, self.engine.results
        assert engine.table.problems() == []
        for id in results.ids():
            mu, expected = results.load(id).posterior["mu"], json.loads(results.ask(id).request)
            assert mu.sizes["draw"] == expected["draws"]
            assert np.unique(mu.values).tolist() == [float(expected["value"])]
            assert results.summary(id) == {"value": expected["value"]}
        done = {job.id for job in engine.table.jobs() if job.state == "done"}
        assert set(results.ids()) == done
        for folder in ("tmp", "partial", "quarantine"):
            left = list((results.root / folder).glob("*"))
            assert left == [], folder


def test_twenty_kills_at_random_moments_leave_every_fit_done_or_failed_with_the_reason(tmp_path):
    rng, service = random.Random(9), Faulty(tmp_path, workers=2)
    names, killed = (f"fit-{number}" for number in itertools.count()), 0
    with service.engine:
        with service.supervisor:
            while killed < KILLS:
                while service.engine.health()["queued"] < 3:
                    service.want(next(names), seconds=rng.uniform(0.0, 0.3), draws=rng.choice([20, 200_000]))
                until(service.running)
                time.sleep(rng.uniform(0, 0.4))
                for pid in service.running()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            ended = [service.engine.wait(job.id, PATIENCE) for job in service.engine.table.jobs()]
            service.want("after")
            assert service.engine.wait("after", PATIENCE).state == "done"
        for status in ended:
            assert status.state == "done" or (status.state == "failed" and "SIGKILL" in status.error)
        assert sum(status.state == "done" for status in ended) >= 1
        starts = [id for what, id in service.noted() if what == "start"]
        assert max(starts.count(job.id) for job in service.engine.table.jobs()) <= 3
        service.verify()


def test_a_worker_killed_while_it_writes_leaves_nothing_behind(tmp_path):
    """What lies under a temporary name goes with its worker, not at the next start an hour later."""
    service = Faulty(tmp_path, workers=1)
    with service.engine, service.supervisor:
        service.ask("big", "stuck")
        written = until(lambda: list((tmp_path / "tmp").glob(f"*/{META}")))[0].parent
        (pid,) = service.running()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not written.exists())
        service.engine.cancel("big", "s1")
        assert service.engine.wait("big", PATIENCE).state == "cancelled"


@pytest.mark.sampling
def test_a_real_fit_whose_worker_is_killed_ends_with_the_same_draws(tmp_path):
    """Killed at a random moment, a fit has bit for bit the draws of one that nobody disturbed."""
    rng, service = random.Random(4), Faulty(tmp_path, workers=1)
    with service.engine, service.supervisor:

        def answer(request, dataset):
            id = service.engine.submit(request, dataset, "s1")
            assert service.engine.wait(id, PATIENCE).state == "done"
            return id, service.engine.result(id).posterior.to_dataset()

        for seed in itertools.count(1):
            asked = schools_request(sampler=Sampler(draws=20_000, seed=seed))
            id, share = service.engine.submit(*asked, "s1"), rng.uniform(0, 0.6)

            def far_enough(id=id, share=share):
                status = service.engine.status(id)
                return not status.active or (status.progress and status.progress.fraction > share)

            until(far_enough)
            for pid in service.running():
                os.kill(pid, signal.SIGKILL)
            _, found = answer(*asked)
            if service.engine.table.get(id).attempts > 1:
                break  # else it was done before the kill
        assert service.engine.delete(id, "s1")
        _, undisturbed = answer(*asked)
        assert service.engine.table.get(id).attempts == 1
    for name, values in undisturbed.data_vars.items():
        np.testing.assert_array_equal(found[name].values, values.values)
    assert list((tmp_path / "tmp").glob("*")) == []


def test_an_orphan_that_never_looks_whether_to_stop_ends_too(tmp_path):
    service = Service(tmp_path, workers=1)
    code = (
        "import time\n"
        "from hbm_core.store.settings import Settings\n"
        "from hbm_core.store.supervisor import Supervisor\n"
        "Supervisor(Settings.from_environment()).start()\n"
        "time.sleep(3600)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], env=os.environ | service.settings.environment())
    try:
        with service.engine:
            service.ask("deaf", "stubborn")
            pid = service.started("deaf")
            server.kill()
            server.wait()
            until(lambda: not process_exists(pid))
    finally:
        server.kill()
        server.wait()


def test_the_real_server_stopped_and_killed_takes_the_fit_up_again(tmp_path):
    """`hbm serve` ended by TERM, then by KILL, both times mid-fit; the third one finishes it."""
    store, log = tmp_path / "store", tmp_path / "server.log"
    service = Faulty(store, workers=1)

    def started(starts):
        until(lambda: len(service.noted()) == starts)
        until(lambda: service.engine.status("linked").progress is not None)
        return [row.pid for row in service.engine.table.workers()]

    with service.engine:
        service.want("linked", gated=True)
        for starts, number in enumerate((signal.SIGTERM, signal.SIGKILL), start=1):
            with serve(store, log, HBM_WORKERS="1", **EAGER) as server:
                pids = started(starts)
                server.process.send_signal(number)
                server.process.wait(PATIENCE)
                until(lambda pids=pids: not any(process_exists(pid) for pid in pids))
                assert service.engine.status("linked").active
        service.open("linked")
        with serve(store, log, HBM_WORKERS="1", **EAGER) as server:
            assert service.engine.wait("linked", PATIENCE).state == "done"
            assert server.health()["workers"] == 1
            with urllib.request.urlopen(server.url, timeout=PATIENCE) as page:
                assert page.status == 200
        assert [what for what, _ in service.noted()] == ["start"] * 3 + ["end"]
        service.verify()


# Crowds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Faulty(tmp_path_factory.mktemp("crowd"), workers=2)
    with service.supervisor, service.engine:
        yield service


def at_once(calls):
    """Let every call begin at the same moment, each in a thread of its own."""
    gate, answers = threading.Barrier(len(calls)), [None] * len(calls)

    def run(place):
        gate.wait()
        answers[place] = calls[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_twenty_sessions_that_ask_for_one_fit_at_once_make_one_run(service):
    """Each with a connection of its own, as processes have."""
    engines = [LocalEngine(service.settings) for _ in range(20)]

    def ask(number):
        def call():
            own = Faulty.__new__(Faulty)
            own.settings, own.engine = service.settings, engines[number]
            own.want("one", session=f"session {number}", draws=50)
            return engines[number].wait("one", PATIENCE).state

        return call

    assert at_once([ask(number) for number in range(20)]) == ["done"] * 20
    assert [what for what, id in service.noted() if id == "one"] == ["start", "end"]
    assert len(service.engine.table.sessions("one")) == 20
    for engine in engines:
        assert engine.result("one").posterior.sizes["draw"] == 50
        engine.close()


def test_twenty_different_fits_all_finish_two_at_a_time_and_places_only_fall(service):
    """Each runs until its gate is opened, so that every place in the queue can be looked at."""
    names = [f"own-{number}" for number in range(20)]
    for number, name in enumerate(names):
        service.want(name, session=f"session {number}", gated=True)

    def places():
        found = [service.engine.status(name).position for name in names]
        return [place for place in found if place is not None]

    def running_now():
        return sum(service.engine.status(name).state == "running" for name in names)

    for ended, name in enumerate(names):
        until(lambda left=20 - ended: running_now() == min(2, left))
        # What waits is in the order in which it was asked for, and one place further than before.
        assert places() == list(range(1, max(0, 18 - ended) + 1))
        assert service.engine.status(name).state == "running"
        service.open(name)
        assert service.engine.wait(name, PATIENCE).state == "done"
    running, most = set(), 0
    for what, id in service.noted():
        if id in names:
            (running.add if what == "start" else running.remove)(id)
            most = max(most, len(running))
    assert (running, most) == (set(), 2)
    service.verify()


def test_waiting_for_a_held_table_blocks_no_reader_and_passes(service):
    """Another process holds the table: whoever writes waits, whoever reads does not."""
    service.want("before", draws=20)
    service.engine.wait("before", PATIENCE)
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(service.settings.table)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with LocalEngine(service.settings) as engine:
        try:
            assert holder.stdout.readline() == b"held\n"
            engine.table.patience = 60
            engine.table._writer.execute("PRAGMA busy_timeout = 60000")
            writer = threading.Thread(
                target=engine.ask, args=(Ask("held", "tests.store.fake_tasks.absent", "{}"), "s")
            )
            writer.start()
            until(engine.table._writing.locked)  # the writer stands at the held table, and at nothing else
            assert engine.status("before").state == "done"
            assert engine.result("before").posterior.sizes["draw"] == 20
            assert len(engine.jobs("s1")) > 0
            assert writer.is_alive()
            engine.table.patience = 0.2
            with pytest.raises(StoreError, match="held by another process"):
                engine.table.pin("before")
            assert writer.is_alive()
        finally:
            holder.communicate()
        writer.join()
        assert engine.wait("held", PATIENCE).state == "failed"
