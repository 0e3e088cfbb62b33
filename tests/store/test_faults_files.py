"""Files of the store damaged in every way: shown is the untouched truth, or what is wrong."""

import json
import random
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from hbm_core.errors import DamagedResult, InputError, StoreError
from hbm_core.inference.sampler import Sampler
from hbm_core.scenarios import scenario
from hbm_core.store.jobs import Ask
from hbm_core.store.local import LocalEngine
from hbm_core.store.request import FitRequest
from hbm_core.store.results import META, POSTERIOR, SUMMARY, Result
from hbm_core.store.settings import Settings

FITS, CORRUPTIONS, TABLES = 4, 240, 60


def tree(seed):
    draws = np.random.default_rng(seed).normal(size=(2, 400))
    return xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": (("chain", "draw"), draws)})})


def answered(engine, request, dataset, session):
    """Ask for a request and publish an answer whose content follows from its seed."""
    id = engine.submit(request, dataset, session)
    assert engine.table.claim("w", 60, only=id).id == id
    seed = request.sampler.seed
    size = engine.results.publish(
        engine.table.get(id).ask, Result(tree(seed), {"seed": seed, "mean": 1 / (1 + seed)})
    )
    assert engine.table.finish(id, "w", size, False)
    return id


class Kept:
    """A store with a few fits of known content, and what every way to read them must say."""

    def __init__(self, folder):
        self.settings = Settings(folder, workers=0, warm=0)
        self.engine = LocalEngine(self.settings)
        found = scenario("schools")
        built_in = found.dataset(found.default_dataset)
        own = found.read(built_in.table.assign(effect=built_in.table["effect"] + 1))
        model = found.model(found.default_model)
        self.requests, self.data = {}, {}
        for seed in range(FITS):
            dataset = own if seed % 2 else built_in
            request = FitRequest(
                scenario="schools",
                data=dataset.digest,
                model=found.default_model,
                priors=model.priors(dataset, ()),
                constants=model.constants(dataset),
                sampler=Sampler(seed=seed),
            )
            self.requests[answered(self.engine, request, dataset, f"s{seed}")] = request
            self.data[dataset.digest] = dataset
        self.ids = list(self.requests)
        self.truth = {id: self.read(id) for id in self.ids}

    def ways(self, id):
        """Every way by which numbers of a fit leave the store."""
        engine = self.engine
        return {
            "result": lambda: engine.result(id).posterior["mu"].values.tobytes(),
            "file": lambda: engine.file(id).read_bytes(),
            "summary": lambda: engine.summary(id),
            "meta": lambda: {k: v for k, v in engine.meta(id).items() if k in ("ask", "timings", "files")},
            "request": lambda: engine.request(id).json,
            "dataset": lambda: self._dataset(engine.dataset(id)),
            "upload": lambda: engine.uploaded(self.requests[id].data),
            "gallery": lambda: [(job.id, job.label, job.public) for job in engine.gallery() if job.id == id],
        }

    def read(self, id):
        return {name: way() for name, way in self.ways(id).items()}

    @staticmethod
    def _dataset(dataset):
        return dataset.digest, dataset.table.to_csv(), dataset.truth

    def heal(self, id):
        """Ask again, and answer as before."""
        request = self.requests[id]
        if self.engine.ask(self.engine.table.get(id).ask, "s") and self.engine.status(id).state == "queued":
            answered(self.engine, request, self.data[request.data], "s")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    kept = Kept(tmp_path_factory.mktemp("kept"))
    with kept.engine:
        yield kept


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def overwrite(path, rng):
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    patch = rng.randbytes(rng.randint(8, 64))
    content[place : place + len(patch)] = patch
    path.write_bytes(content)


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def extend(path, rng):
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 99)))


def empty(path, rng):
    path.write_bytes(b"")


def remove(path, rng):
    path.unlink()


def become_a_folder(path, rng):
    path.unlink()
    path.mkdir()


def edit(path, rng):
    """Change one digit, as a well-meaning hand would."""
    content = bytearray(path.read_bytes())
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()] or [0]
    place = rng.choice(digits)
    content[place] = ord("7") if content[place] != ord("7") else ord("3")
    path.write_bytes(content)


FAULTS = (flip, overwrite, truncate, extend, empty, remove, become_a_folder, edit)


def swap_files(kept, id, other, rng):
    names = rng.sample([POSTERIOR, SUMMARY, META], rng.randint(1, 2))
    for name in names:
        shutil.copyfile(kept.engine.results.path(other) / name, kept.engine.results.path(id) / name)


def swap_folders(kept, id, other, rng):
    target = kept.engine.results.path(id)
    shutil.rmtree(target)
    shutil.copytree(kept.engine.results.path(other), target)


def test_hundreds_of_random_corruptions_of_results_are_all_found(kept):
    rng, quarantine = random.Random(20), kept.engine.results.root / "quarantine"
    for number in range(CORRUPTIONS):
        id, other = rng.sample(kept.ids, 2)
        fault = rng.choice((*FAULTS, swap_files, swap_folders))
        if fault in (swap_files, swap_folders):
            fault(kept, id, other, rng)
        else:
            fault(kept.engine.results.path(id) / rng.choice([POSTERIOR, SUMMARY, META]), rng)
        aside = len(list(quarantine.iterdir())) if quarantine.exists() else 0
        told, ways = 0, kept.ways(id)
        for name in rng.sample(list(ways), len(ways)):
            try:
                found = ways[name]()
            except (DamagedResult, StoreError) as error:
                assert "damaged" in str(error), (number, fault.__name__, name)
                told += 1
            else:
                unlisted = name == "gallery" and found == []
                assert unlisted or found == kept.truth[id][name], (number, fault.__name__, name)
        assert told, (number, fault.__name__)
        assert len(list(quarantine.iterdir())) == aside + 1
        assert kept.engine.status(id).state == "failed"
        kept.heal(id)
        assert kept.engine.result(id).posterior["mu"].values.tobytes() == kept.truth[id]["result"]
        assert kept.engine.summary(id) == kept.truth[id]["summary"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ending", [".arrow", ".json"])
def test_damaged_data_are_told_never_shown_and_kept_anew(kept, fault, ending):
    rng = random.Random(fault.__name__ + ending)
    id = kept.ids[1]
    dataset = kept.data[kept.requests[id].data]
    path = kept.engine.results.root / "data" / f"{dataset.digest}{ending}"
    fault(path, rng)
    if ending == ".arrow":
        with pytest.raises(StoreError, match="Load it again"):
            kept.engine.dataset(id)
        assert kept.engine.uploaded(dataset.digest) is None
    else:
        # Only what was said about the data is lost: the table itself is whole.
        found = kept.engine.dataset(id)
        assert found.table.equals(dataset.table)
        assert found.truth is None
        assert found.label in ("Your data", dataset.label)
    if path.is_dir():
        path.rmdir()
    kept.engine.results.save_data(dataset)
    assert kept._dataset(kept.engine.dataset(id)) == kept.truth[id]["dataset"]


def test_damaged_draws_so_far_are_not_shown(kept):
    results, rng = kept.engine.results, random.Random(3)
    path = results.root / "partial" / "x.part"
    for _ in range(5):
        for fault in FAULTS:
            results.write_partial("x", tree(1))
            assert results.partial("x").posterior["mu"].equals(tree(1).posterior["mu"])
            fault(path, rng)
            assert results.partial("x") is None
            if path.is_dir():
                path.rmdir()
    results.write_partial("y", tree(2))
    results.drop_partial("x")
    assert results.partial("x") is None


# The job table ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store of finished, waiting, failed and private fits; what its table said."""
    settings = Settings(tmp_path_factory.mktemp("whole"), workers=0, warm=0)
    with LocalEngine(settings) as engine:
        for number in range(24):
            request = json.dumps({"number": number, "padding": "x" * 600})
            ask = Ask(f"{number:064x}", "some.task", request, None, number % 3 == 0, f"Fit {number}")
            engine.ask(ask, f"owner {number % 4}")
            if number % 2 == 0:
                engine.table.claim("w", 60, only=ask.id)
                size = engine.results.publish(ask, Result(tree(number), {"number": number}))
                engine.table.finish(ask.id, "w", size, False)
            elif number % 5 == 0:
                engine.table.claim("w", 60, only=ask.id)
                engine.table.fail(ask.id, "w", "No chain found a starting point.")
        truth = {job.id: job for job in engine.table.jobs()}
    return settings.store, truth


@pytest.fixture
def table(whole, tmp_path):
    """A copy of it: settings and what its table said."""
    store, truth = whole
    shutil.copytree(store, tmp_path, dirs_exist_ok=True)
    return Settings(tmp_path, workers=0, warm=0), truth


def damaged_bytes(content, rng):
    content = bytearray(content)
    match rng.choice(["bit", "bytes", "block", "zeros", "cut", "text"]):
        case "bit":
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        case "bytes":
            for _ in range(20):
                content[rng.randrange(len(content))] = rng.randrange(256)
        case "block":
            place = rng.randrange(len(content) - 600)
            content[place : place + 600] = rng.randbytes(600)
        case "zeros":
            place = 4096 * rng.randrange(len(content) // 4096)
            content[place : place + 4096] = bytes(4096)
        case "cut":
            del content[rng.randrange(len(content)) :]
        case "text":
            content = bytearray(b"no table at all\n" * rng.randint(1, 2000))
    return bytes(content)


def same(job, truth):
    """Equal, or entered again from its result: then all that can be told from it is."""
    if job == truth:
        return True
    keys = ("id", "task", "request", "data", "public", "label", "state", "bytes", "partial")
    return truth.state == "done" and all(getattr(job, key) == getattr(truth, key) for key in keys)


def test_a_table_damaged_anywhere_never_says_anything_else_and_every_result_is_found_again(table, tmp_path):
    settings, truth = table
    content = settings.table.read_bytes()
    for seed in range(TABLES):
        for part in tmp_path.glob("jobs.db*"):
            part.unlink()
        settings.table.write_bytes(damaged_bytes(content, random.Random(seed)))
        with LocalEngine(settings) as engine:
            jobs = engine.table.jobs()
            assert all(same(job, truth[job.id]) for job in jobs), seed
            for id, job in truth.items():
                if job.state == "done":
                    assert engine.status(id).state == "done", seed
                    assert engine.summary(id) == {"number": int(id, 16)}
                else:
                    assert engine.status(id).state in (job.state, "none")
            for owner in range(4):
                assert all(int(job.id, 16) % 4 == owner for job in engine.jobs(f"owner {owner}")), seed
                for id, job in truth.items():
                    if not job.public and int(id, 16) % 4 != owner:
                        assert not engine.may_read(id, f"owner {owner}"), seed
            assert engine.table.problems() == []
            engine.ask(Ask("new", "some.task", "{}"), "s")
            assert engine.status("new").state == "queued"


def test_a_broken_page_costs_no_owner_their_private_fits(table, tmp_path):
    """The index of waiting jobs is ruined; rows and interest can still be read."""
    settings, truth = table
    with sqlite3.connect(settings.table) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs_by_state'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    content = bytearray(settings.table.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    settings.table.write_bytes(content)
    with LocalEngine(settings) as engine:
        assert {job.id: job for job in engine.table.jobs()} == truth
        for owner in range(4):
            mine = {job.id for job in engine.jobs(f"owner {owner}")}
            assert mine == {id for id in truth if int(id, 16) % 4 == owner}
    assert len(list(tmp_path.glob("jobs.db.damaged-*"))) >= 1


EDITS = {
    "task": "'other.task'", "request": "'{}'", "data": "'d'", "public": "1 - public", "label": "'Other'",
    "state": "CASE state WHEN 'done' THEN 'failed' ELSE 'done' END", "progress": "'{\"stage\": \"saving\"}'",
    "attempts": "7", "worker": "'w9'", "lease": "5.0", "cancel": "1.0", "error": "'Other words'",
    "partial": "1 - partial", "bytes": "bytes + 1", "pinned": "1 - pinned", "created": "created - 9e5",
    "queued": "queued - 9e5", "started": "coalesce(started, 1e9) - 9e5", "updated": "updated - 9e5",
    "finished": "coalesce(finished, 1e9) - 9e5", "used": "used + 9e5", "seal": "'0'",
}  # fmt: skip


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("column", EDITS)
def test_whatever_is_changed_in_a_row_behind_the_table_is_found(table, column, running):
    settings, truth = table
    done, waiting = f"{2:064x}", f"{1:064x}"

    def change():
        with sqlite3.connect(settings.table) as other:
            other.execute(f"UPDATE jobs SET {column} = {EDITS[column]} WHERE id IN (?, ?)", (done, waiting))
        other.close()

    if not running:
        change()
    with LocalEngine(settings) as engine:
        if running:
            change()
            assert len(engine.table.problems()) == 2
            assert {job.id for job in engine.table.jobs()} == set(truth) - {done, waiting}
        assert same(engine.table.get(done) if not running else engine._job(done), truth[done])
        assert engine.summary(done) == {"number": 2}
        assert engine.status(waiting).state == "none"
        assert not engine.may_read(done, "owner 1")
        assert [job.id for job in engine.jobs("owner 2")].count(done) == 1, "its owner keeps it"
        assert engine.table.problems() == []


def test_a_row_that_was_damaged_is_not_made_sound_by_the_next_change(table):
    settings, _ = table
    waiting = f"{1:064x}"
    with LocalEngine(settings) as engine:
        with sqlite3.connect(settings.table) as other:
            other.execute("UPDATE jobs SET public = 1 WHERE id = ?", (waiting,))
        other.close()
        engine.table.pin(waiting)
        engine.table.rename(waiting, "Mine")
        assert waiting in engine.table.damaged()


def test_a_table_replaced_while_it_is_open_is_followed(table, tmp_path):
    """Another process set it aside, or somebody deleted it: no split into two tables."""
    settings, truth = table
    with LocalEngine(settings) as engine:
        for part in tmp_path.glob("jobs.db*"):
            part.unlink()
        with LocalEngine(settings) as other:
            other.ask(Ask("new", "some.task", "{}"), "s")
            assert engine.status("new").state == "queued"
            done = [id for id, job in truth.items() if job.state == "done"]
            assert all(engine.status(id).state == "done" for id in done)


def test_a_table_damaged_while_it_is_open_is_said_in_words(table):
    settings, truth = table
    with LocalEngine(settings) as engine:
        size = settings.table.stat().st_size
        with settings.table.open("r+b") as file:
            file.write(b"\xff" * size)
        with pytest.raises(StoreError, match=r"damaged\. Restart"):
            for id in truth:
                engine.status(id)
                engine.ask(replace(truth[id].ask, id="new"), "s")
    with LocalEngine(settings) as engine:
        assert all(engine.status(id).state == "done" for id, job in truth.items() if job.state == "done")


def test_a_request_that_this_version_cannot_read_is_no_traceback(kept):
    kept.engine.ask(Ask("odd", "some.task", '{"scenario": 3}'), "s")
    with pytest.raises((StoreError, InputError)):
        kept.engine.request("odd")
