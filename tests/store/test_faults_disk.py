"""Disks that are full or cannot be written: a real file system of a few megabytes where one can be mounted,
and what is there everywhere: the limits that a process may set itself, and the permissions of files."""

import json
import os
import resource
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from hbm_core.errors import DamagedResult, StoreError
from hbm_core.store.jobs import Ask
from hbm_core.store.local import LocalEngine
from hbm_core.store.results import POSTERIOR, ResultStore
from hbm_core.store.retention import evict
from hbm_core.store.settings import Settings
from hbm_core.store.worker import compute_here
from tests.store.test_local import schools_request
from tests.store.test_service import PATIENCE, until

#: Bytes of the small file system, and of a result that still fits after the others.
SIZE, DRAWS = 4_000_000, 100_000
FULL = r"disk is full|cannot be written"


def mounted(path, options):
    """Whether a file system in memory could be mounted there."""
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    if shutil.which("mount") is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(path):
    subprocess.run(["umount", "-l", str(path)], check=True)


class SmallFileSystem:
    """A file system of `SIZE` bytes that a file fills to the last one."""

    def __init__(self, root):
        self.root, self.filler = root, root / "filler"

    def fill(self):
        with self.filler.open("ab", buffering=0) as file:
            for chunk in (65536, 4096, 1):
                try:
                    while file.write(b"x" * chunk):
                        pass
                except OSError:
                    continue

    def free(self):
        self.filler.unlink(missing_ok=True)


class NoLongerFiles:
    """This process may make no file longer than a few bytes: a quota, as the kernel enforces it."""

    def __init__(self, root):
        self.hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def fill(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, self.hard))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.hard, self.hard))


@contextmanager
def disk_of(kind, root):
    """A disk to fill. Where nothing can be mounted, the process's own limit stands in for both kinds."""
    mount = kind == "file system" and mounted(root, f"size={SIZE}")
    disk = SmallFileSystem(root) if mount else NoLongerFiles(root)
    try:
        yield disk
    finally:
        disk.free()
        if mount:
            unmount(root)


@pytest.fixture(params=["file system", "limit"])
def disk(request, tmp_path):
    root = tmp_path / "disk"
    root.mkdir()
    with disk_of(request.param, root) as disk:
        disk.store = root / "store"
        yield disk


def want(engine, name, value, draws=20, **more):
    log = str(engine.settings.store.parent.parent / "fits.log")
    request = json.dumps({"seconds": 0.02, "value": value, "draws": draws, "log": log} | more)
    return engine.ask(Ask(name, "tests.store.fake_tasks.known", request), "s")


def holds(engine, name, value):
    return set(engine.result(name).posterior["mu"].values.ravel().tolist()) == {float(value)}


def test_a_full_disk_is_told_costs_nothing_kept_and_passes(disk):
    settings = Settings(disk.store, workers=0, warm=0)
    request, dataset = schools_request()
    with LocalEngine(settings) as engine:
        want(engine, "early", 3, DRAWS)
        compute_here(settings, "early")
        disk.fill()
        with pytest.raises(StoreError, match=FULL):
            engine.submit(request, dataset, "s")
        with pytest.raises(StoreError, match=FULL):
            engine.results.write_partial("early", engine.result("early"))
        assert engine.status(request.digest).state == "none"
        assert engine.results.arrow(dataset.digest) is None
        assert holds(engine, "early", 3)
        assert list((disk.store / "tmp").iterdir()) == []
        disk.free()
        engine.submit(request, dataset, "s")
        assert engine.status(request.digest).state == "queued"
        assert engine.dataset(request.digest).digest == dataset.digest
        assert engine.table.problems() == []


def test_a_disk_that_fills_while_a_fit_runs_fails_it_with_the_reason(disk, monkeypatch):
    """Draws so far cannot be shown and the result cannot be kept; asked for again it is computed."""
    tried, publish = threading.Event(), ResultStore.publish

    def tell(*given):
        try:
            return publish(*given)
        finally:
            tried.set()

    monkeypatch.setattr("hbm_core.store.worker.PARTIAL", 0.05)
    settings = Settings(disk.store, workers=0, warm=0)
    with LocalEngine(settings) as engine:
        want(engine, "early", 3)
        compute_here(settings, "early")
        gate = disk.store.parent.parent / "late.gate"
        want(engine, "late", 5, DRAWS, gate=str(gate))
        monkeypatch.setattr(ResultStore, "publish", tell)
        worker = threading.Thread(target=compute_here, args=(settings, "late"))
        worker.start()
        until(lambda: engine.results.has_partial("late"))
        disk.fill()
        assert holds(engine, "early", 3)
        gate.touch()
        # The result cannot be written. Whether its row can depends on what room the table has left.
        assert tried.wait(PATIENCE)
        disk.free()
        worker.join()
        status = engine.status("late")
        assert (status.state, status.partial) == ("failed", False)
        assert "Earlier results are intact" in status.error
        assert engine.results.ids() == ["early"]
        assert list((disk.store / "tmp").iterdir()) == []
        want(engine, "late", 5, DRAWS)
        compute_here(settings, "late")
        assert holds(engine, "late", 5) and holds(engine, "early", 3)
        assert engine.table.problems() == []


def test_on_a_full_disk_eviction_makes_room_or_says_why_not(disk):
    settings = Settings(disk.store, workers=0, warm=0)
    with LocalEngine(settings) as engine:
        for value, name in enumerate("abc"):
            want(engine, name, value, DRAWS)
            compute_here(settings, name)
        disk.fill()
        try:
            evict(engine.table, engine.results, 0)
        except StoreError as error:
            assert "full" in str(error) or "cannot be written" in str(error)
        left = {job.id for job in engine.table.jobs()}
        assert "c" in left
        assert all(holds(engine, name, "abc".index(name)) for name in left)
        disk.free()
        assert evict(engine.table, engine.results, 0) == sorted(left - {"c"})
        assert holds(engine, "c", 2)
        want(engine, "a", 0, DRAWS)
        compute_here(settings, "a")
        assert holds(engine, "a", 0)


# A store that cannot be written -----------------------------------------------------------------------


@contextmanager
def unwritable(kind, root):
    """Remount the file system read-only; elsewhere take the permissions, and root's rights, away."""
    if kind == "file system" and os.path.ismount(root):
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        return
    paths = [root, *root.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222 | 0o444 | (0o111 if path.is_dir() else 0))
    root_user = os.geteuid() == 0
    if root_user:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root_user:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture(params=["file system", "permissions"])
def place(request, tmp_path):
    """A folder, and how to make it unwritable."""
    root = Path(str(tmp_path / "place"))
    root.mkdir()
    # Whoever runs as nobody must reach it.
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    mount = request.param == "file system" and mounted(root, f"size={SIZE},mode=755")
    try:
        yield root, lambda: unwritable(request.param, root)
    finally:
        if mount:
            unmount(root)


def test_a_store_that_cannot_be_written_shows_what_it_has_and_says_why_not_more(place):
    root, unwritable = place
    settings = Settings(root / "store", workers=0, warm=0)
    request, dataset = schools_request()
    with LocalEngine(settings) as engine:
        for name, value in (("early", 3), ("bits", 8)):
            want(engine, name, value)
            compute_here(settings, name)
        want(engine, "waits", 4)
        summary = engine.summary("early")
        (engine.results.path("bits") / POSTERIOR).write_bytes(b"x" * 999)
    with unwritable(), LocalEngine(settings) as engine:
        assert engine.table.read_only
        assert holds(engine, "early", 3)
        assert engine.summary("early") == summary
        assert {job.id for job in engine.jobs("s")} == {"waits", "early", "bits"}
        assert engine.status("waits").position == 1
        with pytest.raises(DamagedResult):
            engine.result("bits")
        for refused in (
            lambda: engine.submit(request, dataset, "s"),
            lambda: engine.ask(Ask("x", "t", "{}"), "s"),
            lambda: engine.pin("early"),
            lambda: engine.delete("early", "s"),
            lambda: compute_here(settings, "waits"),
        ):
            with pytest.raises(StoreError, match="cannot be written"):
                refused()
        assert holds(engine, "early", 3)
    with LocalEngine(settings) as engine:
        compute_here(settings, "waits")
        assert holds(engine, "waits", 4) and holds(engine, "early", 3)


def test_a_store_that_can_be_written_again_goes_on_without_a_restart(place):
    root, unwritable = place
    settings = Settings(root / "store", workers=0, warm=0)
    with LocalEngine(settings) as engine:
        want(engine, "early", 3)
    with unwritable():
        engine = LocalEngine(settings)
        with pytest.raises(StoreError, match="cannot be written"):
            engine.pin("early")
    with engine:
        engine.pin("early")
        assert not engine.table.read_only
        assert engine.table.get("early").pinned
