"""Who may see, change and delete what: the store's own rules, without a browser."""

from __future__ import annotations

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import xarray as xr

from hbm_core.errors import InputError, StoreError
from hbm_core.inference.sampler import Sampler
from hbm_core.scenarios import scenario
from hbm_core.store import erasure
from hbm_core.store.access import KEY_BYTES, LinkKeys, is_visitor_token, owner_name, visitor_token
from hbm_core.store.erasure import Erased
from hbm_core.store.local import LocalEngine
from hbm_core.store.results import Result
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from tests.store.test_service import PATIENCE

ANN, BOB, EVE = "ann", "bob", "eve"
DAY = 86400.0


@pytest.fixture
def engine(tmp_path):
    with LocalEngine(Settings(store=tmp_path)) as engine:
        yield engine


def data(shift=0.0, label="Some data"):
    table = pd.DataFrame({"unit": list("abc"), "effect": [1.0 + shift, 2.0, 4.0], "se": [1.0, 1.5, 2.0]})
    return scenario("schools").read(table, label=label)


def ask(engine, dataset, owner, label="", **changes):
    """Ask for a fit; its id."""
    name = dataset.name if dataset.name in scenario("schools").datasets else dataset.digest
    study = Study.default("schools").change(dataset=name, sampler=Sampler(draws=10, tune=10), **changes)
    return engine.submit(study.request(dataset), dataset, owner, label)


def fit(engine, dataset, owner, **how):
    """Ask for a fit and answer it at once; its id."""
    id = ask(engine, dataset, owner, **how)
    if (job := engine.table.claim("w", 60, only=id)) is not None:
        tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"mu": ("draw", [1.0, 2.0])})})
        size = engine.results.publish(job.ask, Result(tree, {"diagnostics": {}}))
        assert engine.table.finish(id, "w", size, False)
    return id


def unused(engine, days, *, fits=(), uploads=()):
    """Make it so that nobody used these for so long."""
    stamp = time.time() - days * DAY
    for id in fits:
        engine.table._write("UPDATE jobs SET used = ? WHERE id = ?", (stamp, id))
    for digest in uploads:
        engine.table._write("UPDATE uploads SET used = ? WHERE digest = ?", (stamp, digest))


# Names and keys -------------------------------------------------------------------------------------------


def test_a_visitor_is_known_by_a_digest_of_what_nobody_can_guess():
    tokens = {visitor_token() for _ in range(100)}
    assert len(tokens) == 100 and all(map(is_visitor_token, tokens))
    name = owner_name("visitor", min(tokens))
    assert min(tokens) not in name and name == owner_name("visitor", min(tokens))
    assert name != owner_name("user", min(tokens)), "a user cannot take a visitor's name"


@pytest.mark.parametrize(
    "bad", [None, "", "short", "a" * 31, "a" * 33, "a" * 31 + ";", "ä" * 32, "a" * 32 + "\n", 5]
)
def test_malformed_cookies_are_nobodys(bad):
    assert not is_visitor_token(bad)


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path):
    key = LinkKeys(tmp_path).key("data", "nonce")
    path = tmp_path / "link.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32 and [p.name for p in tmp_path.iterdir()] == ["link.secret"]
    assert LinkKeys(tmp_path).key("data", "nonce") == key
    assert LinkKeys(tmp_path / "other").key("data", "nonce") != key


def test_all_who_start_at_once_share_one_secret(tmp_path):
    start = threading.Barrier(8)

    def key(_):
        keys = LinkKeys(tmp_path)
        start.wait()
        return keys.key("data")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(key, range(8)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["link.secret"]


def test_a_damaged_secret_is_said_and_not_replaced(tmp_path):
    (tmp_path / "link.secret").write_bytes(b"short")
    with pytest.raises(StoreError, match=r"link\.secret is damaged"):
        LinkKeys(tmp_path).key("data")
    assert (tmp_path / "link.secret").read_bytes() == b"short"


def test_keys_have_128_bits_and_no_tampered_one_fits(tmp_path):
    keys = LinkKeys(tmp_path)
    key = keys.key("data", "nonce")
    assert KEY_BYTES * 8 >= 128 and keys.fits(key, "data", "nonce")
    for place in range(len(key)):
        for letter in "AZ_0":
            other = key[:place] + letter + key[place + 1 :]
            assert keys.fits(other, "data", "nonce") == (other == key)
    for wrong in ("", key[:-1], key + "=", key.lower(), key.upper(), "é" * 24, "\0", key + "\0"):
        assert not keys.fits(wrong, "data", "nonce")
    assert not keys.fits(key, "data", "other") and not keys.fits(key, "dat", "anonce")


# Uploads and links ----------------------------------------------------------------------------------------


def test_an_upload_is_its_owners_alone(engine):
    digest = engine.upload(data(), ANN, "salaries.csv")
    assert engine.may_use(digest, ANN) and not engine.may_use(digest, EVE)
    assert [upload.label for upload in engine.uploads(ANN)] == ["salaries.csv"]
    assert engine.uploads(EVE) == [] and engine.link_key(digest, EVE) is None


def test_a_link_opens_by_its_key_alone(engine):
    digest = engine.upload(data(), ANN)
    key = engine.link_key(digest, ANN)
    other = engine.link_key(engine.upload(data(1), ANN), ANN)
    for wrong in ("", "x", other, key[:-1], key[::-1], key + "A"):
        assert not engine.open_link(digest, wrong, EVE) and not engine.may_use(digest, EVE)
    assert engine.open_link(digest, key, BOB) and engine.may_use(digest, BOB)
    (kept,) = engine.uploads(BOB)
    assert kept.guest and kept.label == "", "the file's name stays with its owner"
    assert engine.link_key(digest, BOB) == key, "who was let in may pass the link on"
    assert engine.open_link(digest, key, ANN) and not engine.uploads(ANN)[-1].guest, (
        "one's own stays one's own"
    )


def test_a_right_key_for_data_that_are_gone_says_no_more_than_a_wrong_one(engine):
    digest = engine.upload(data(), ANN)
    key = engine.link_key(digest, ANN)
    engine.delete_upload(digest, ANN)
    assert not engine.open_link(digest, key, EVE) and engine.uploads(EVE) == []
    engine.upload(data(), ANN)
    assert not engine.open_link(digest, key, EVE), "a link ends for good with what it was made for"


def test_file_names_do_not_reach_others(engine):
    first = data(label="dismissals-2026.csv")
    digest = engine.upload(first, ANN, "dismissals-2026.csv")
    engine.upload(data(label="other.csv"), BOB, "other.csv")
    assert engine.results.dataset(digest).label == "Your data"
    ask(engine, first, ANN, "dismissals-2026.csv, weak")
    ask(engine, first, BOB, "other.csv, weak")
    assert [job.label for job in engine.jobs(BOB)] == ["other.csv, weak"]
    assert [job.label for job in engine.jobs(ANN)] == ["dismissals-2026.csv, weak"]


def test_two_owners_of_one_table_and_one_deletes(engine):
    digest = engine.upload(data(), ANN)
    assert engine.upload(data(), BOB) == digest
    mine, both = fit(engine, data(), ANN, parameterization="centered"), fit(engine, data(), ANN)
    fit(engine, data(), BOB)
    assert not engine.delete_upload(digest, ANN)
    assert not engine.may_use(digest, ANN) and not engine.may_read(both, ANN)
    assert engine.jobs(ANN) == [] and engine.status(mine).state == "none"
    assert engine.may_use(digest, BOB) and engine.dataset(both).digest == digest
    assert engine.delete_upload(digest, BOB)
    assert engine.uploaded(digest) is None and engine.results.ids() == []


def test_guests_lose_what_their_host_deletes_and_others_do_not(engine):
    digest = engine.upload(data(), ANN)
    engine.open_link(digest, engine.link_key(digest, ANN), BOB)
    id = fit(engine, data(), BOB)
    assert engine.may_read(id, ANN), "fits of one's data are readable to who holds them"
    assert engine.delete_upload(digest, ANN)
    assert not engine.may_use(digest, BOB) and not engine.may_read(id, BOB)
    assert engine.jobs(BOB) == [] and engine.results.ids() == [] and engine.uploaded(digest) is None


def test_a_guest_who_leaves_takes_nothing_away(engine):
    digest = engine.upload(data(), ANN)
    engine.open_link(digest, engine.link_key(digest, ANN), BOB)
    id = fit(engine, data(), ANN)
    fit(engine, data(), BOB)
    assert engine.erase(BOB) == Erased(shared_fits=1)
    assert engine.may_use(digest, ANN) and engine.status(id).state == "done"
    assert not engine.may_use(digest, BOB) and engine.jobs(BOB) == []


def test_simulated_data_go_by_link_too(engine):
    simulated = scenario("schools").simulate(3)
    fit(engine, simulated, ANN)
    key = engine.link_key(simulated.digest, ANN)
    assert engine.link_key(simulated.digest, BOB) is None
    other = key[:-1] + ("_" if key.endswith("-") else "-")
    assert not engine.open_link(simulated.digest, other, BOB)
    assert engine.open_link(simulated.digest, key, BOB) and engine.may_use(simulated.digest, BOB)


# Fits -----------------------------------------------------------------------------------------------------


def test_private_fits_are_seen_by_who_asked_and_public_ones_by_all(engine):
    built_in = scenario("schools").dataset("eight_schools")
    private, public = fit(engine, data(), ANN), fit(engine, built_in, ANN)
    assert engine.may_read(private, ANN) and not engine.may_read(private, EVE)
    assert engine.may_read(public, EVE) and not engine.may_read("no-such-fit", EVE)
    assert [job.id for job in engine.gallery()] == [public]
    assert engine.jobs(EVE) == []


def test_a_file_that_is_a_built_in_table_makes_a_public_fit_without_its_name(engine):
    built_in = scenario("schools").dataset("eight_schools")
    brought = scenario("schools").read(built_in.table, label="my-secret-name.csv")
    assert brought.digest == built_in.digest
    id = fit(engine, brought, ANN, label="my-secret-name.csv, weak")
    (job,) = engine.gallery()
    assert job.id == id and "secret" not in job.label
    assert engine.jobs(ANN)[0].label == "my-secret-name.csv, weak"


def test_nobody_cancels_deletes_renames_or_pins_for_others(engine):
    id = ask(engine, data(), ANN, "Ann's")
    engine.cancel(id, EVE)
    assert engine.status(id).state == "queued"
    assert not engine.delete(id, EVE) and engine.status(id).state == "queued"
    for attempt in (lambda: engine.rename(id, "Eve's", EVE), lambda: engine.pin(id, True, EVE)):
        with pytest.raises(StoreError, match="not in your list"):
            attempt()
    engine.pin(id, False, EVE)
    assert engine.jobs(ANN)[0].label == "Ann's"


def test_titles_and_pins_on_a_shared_fit_are_ones_own(engine):
    built_in = scenario("schools").dataset("eight_schools")
    id = fit(engine, built_in, ANN, label="Rubin")
    fit(engine, built_in, BOB, label="Rubin")
    engine.rename(id, "Ann's best", ANN)
    engine.pin(id, True, ANN)
    assert [(job.label, job.pinned) for job in engine.jobs(ANN)] == [("Ann's best", True)]
    assert [(job.label, job.pinned) for job in engine.jobs(BOB)] == [("Rubin", False)]
    assert [(job.label, job.pinned) for job in engine.gallery()] == [("Rubin", False)]
    engine.pin(id, False, BOB)
    assert engine.jobs(ANN)[0].pinned, "nobody unpins another's"


def test_nobody_deletes_a_fit_that_others_asked_for_or_made(engine):
    built_in = scenario("schools").dataset("eight_schools")
    id = fit(engine, built_in, ANN)
    assert not engine.delete(id, EVE), "one who never asked for it"
    ask(engine, built_in, BOB)
    assert not engine.delete(id, ANN) and not engine.delete(id, BOB), (
        "each leaves; it was everybody's by then"
    )
    assert [job.id for job in engine.gallery()] == [id]
    pinned = fit(engine, built_in, ANN, parameterization="centered")
    engine.pin(pinned)
    assert not engine.delete(pinned, ANN), "the server's owner keeps it"
    alone = fit(engine, built_in, ANN, parameterization="collapsed")
    assert engine.delete(alone, ANN) and engine.status(alone).state == "none"


def test_one_person_cannot_fill_the_queue(tmp_path):
    with LocalEngine(Settings(store=tmp_path, queue_each=2)) as engine:
        ask(engine, data(1), ANN)
        ask(engine, data(2), ANN)
        with pytest.raises(StoreError, match="HBM_QUEUE_EACH"):
            ask(engine, data(3), ANN)
        ask(engine, data(2), ANN)
        ask(engine, data(3), BOB)
        assert engine.health()["queued"] == 3


def test_pins_have_limits_per_person_and_in_all(tmp_path):
    with LocalEngine(Settings(store=tmp_path, pins=1, store_bytes=1_000_000)) as engine:
        ids = [fit(engine, data(shift), ANN) for shift in range(3)]
        engine.pin(ids[0], True, ANN)
        engine.pin(ids[0], True, ANN)
        with pytest.raises(InputError, match="HBM_PINS"):
            engine.pin(ids[1], True, ANN)
        large = fit(engine, data(9), BOB)
        engine.table._write("UPDATE jobs SET bytes = 600000 WHERE id = ?", (large,))
        with pytest.raises(InputError, match="HBM_STORE_BYTES"):
            engine.pin(large, True, BOB)
        engine.pin(large)
        assert engine.table.get(large).pinned, "the server's owner has no limit"


def test_pins_of_anybody_hold_against_the_budget(engine):
    from hbm_core.store.retention import evict

    first, second, third = (fit(engine, data(shift), ANN) for shift in range(3))
    unused(engine, 3, fits=[first])
    unused(engine, 2, fits=[second])
    engine.pin(first, True, ANN)
    assert evict(engine.table, engine.results, 1) == [second]
    assert engine.status(first).state == engine.status(third).state == "done"


def test_uploads_have_limits_per_person_and_in_all(tmp_path):
    with LocalEngine(Settings(store=tmp_path, uploads=1)) as engine:
        engine.upload(data(1), ANN)
        engine.upload(data(1), ANN)
        with pytest.raises(InputError, match="HBM_UPLOADS"):
            engine.upload(data(2), ANN)
        digest = engine.upload(data(3), BOB)
        engine.open_link(digest, engine.link_key(digest, BOB), ANN)
        assert len(engine.uploads(ANN)) == 2, "what one was given is not counted"
        assert engine.uploaded(data(2).digest) is None
    with LocalEngine(Settings(store=tmp_path / "full", uploads_bytes=1_000_000)) as engine:
        engine._uploads.keep("big", ANN, "", 999_999)
        with pytest.raises(StoreError, match="HBM_UPLOADS_BYTES"):
            engine.upload(data(1), BOB)
        assert engine.uploaded(data(1).digest) is None and engine.uploads(BOB) == []


# Deletion -------------------------------------------------------------------------------------------------


def test_delete_my_data_leaves_nothing_of_mine_and_all_of_others(engine):
    built_in = scenario("schools").dataset("eight_schools")
    kept = fit(engine, data(7), BOB)
    engine.upload(data(7), BOB)
    before = {path for path in engine.results.root.rglob("*") if path.is_file()}
    shared = fit(engine, built_in, BOB)
    fit(engine, built_in, ANN, label="mine")
    digest = engine.upload(data(1), ANN, "salaries.csv")
    both = engine.upload(data(7), ANN, "mine too")
    done, waiting = fit(engine, data(1), ANN), ask(engine, data(1), ANN, parameterization="centered")
    running = ask(engine, data(2), ANN)
    assert engine.table.claim("w9", 60, only=running)
    assert engine.erase(ANN) == Erased(fits=3, uploads=1, shared_fits=1, shared_uploads=1)
    assert engine.jobs(ANN) == engine.uploads(ANN) == []
    for id in (done, waiting, running):
        assert engine.status(id).state == "none" and not engine.results.path(id).exists()
    assert not engine.table.beat(running, "w9", 60, None).owned, "its worker stops"
    assert engine.uploaded(digest) is None and engine.uploaded(data(2).digest) is None
    assert engine.may_use(both, BOB) and not engine.may_use(both, ANN)
    assert engine.status(kept).state == engine.status(shared).state == "done"
    assert before <= {path for path in engine.results.root.rglob("*") if path.is_file()}
    # Neither the table nor any file still holds a name or a number of what went.
    content = b"".join(path.read_bytes() for path in engine.results.root.rglob("*") if path.is_file())
    assert b"mine too" not in content and b"salaries" not in content and digest.encode() not in content
    assert engine.erase(ANN) == Erased()


def test_what_a_worker_publishes_after_a_deletion_is_removed(engine, tmp_path, monkeypatch):
    from hbm_core.store.worker import Worker

    id = ask(engine, data(), ANN)
    worker = Worker(Settings(store=tmp_path, warm=0))

    def compute(job, pulse):
        tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"mu": ("draw", [1.0])})})
        size = engine.results.publish(job.ask, Result(tree))
        engine.erase(ANN)
        return engine.results.publish(job.ask, Result(tree)) or size, False

    monkeypatch.setattr(worker, "_compute", compute)
    worker.compute(id)
    worker.close()
    assert engine.results.ids() == [] and engine.status(id).state == "none"


# Age ------------------------------------------------------------------------------------------------------


def test_age_takes_what_nobody_used(engine):
    eraser = engine._eraser
    old, fresh, pinned = (fit(engine, data(shift), ANN) for shift in (1, 2, 3))
    lonely, used = engine.upload(data(4), ANN), engine.upload(data(5), ANN)
    digest = engine.upload(data(3), ANN)
    engine.pin(pinned, True, ANN)
    waiting = ask(engine, data(6), ANN)
    unused(engine, 31, fits=[old, pinned, waiting], uploads=[lonely, digest])
    assert eraser.expired(30) == Erased(fits=1, uploads=1)
    assert engine.status(old).state == "none" and engine.uploaded(data(1).digest) is None
    assert engine.uploaded(lonely) is None and not engine.may_use(lonely, ANN)
    for id, state in ((fresh, "done"), (pinned, "done"), (waiting, "queued")):
        assert engine.status(id).state == state
    assert engine.may_use(used, ANN) and engine.may_use(digest, ANN), "data of a pinned fit stay with it"
    assert eraser.expired(30, now=time.time() + 31 * DAY).uploads == 1, "by a later clock the others go"


def test_use_keeps_an_upload_for_its_owner_through_a_guest_too(engine):
    digest = engine.upload(data(), ANN)
    engine.open_link(digest, engine.link_key(digest, ANN), BOB)
    engine.upload(data(), EVE)
    unused(engine, 31, uploads=[digest])
    assert engine.may_use(digest, BOB)
    engine._eraser.expired(30)
    assert engine.may_use(digest, ANN) and not engine.may_use(digest, EVE)


def test_data_that_nothing_refers_to_are_cleared_up(engine):
    engine.results.save_data(data(1))
    tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"mu": ("draw", [1.0])})})
    running = ask(engine, data(6), ANN)
    for id in ("a-fit-that-is-gone", running):
        engine.results.write_partial(id, tree)
    kept = engine.upload(data(2), ANN)
    fit(engine, data(3), ANN)
    assert engine._eraser.left_over() == 0, "somebody may be about to use them"
    assert engine.results.has_partial("a-fit-that-is-gone")
    assert engine._eraser.left_over(age=-1) == 1
    assert engine.results.has_partial(running) and not engine.results.has_partial("a-fit-that-is-gone")
    assert engine.uploaded(data(1).digest) is None
    assert engine.uploaded(kept) is not None and engine.uploaded(data(3).digest) is not None
    assert erasure.LEFT_OVER >= 3600


def test_what_was_set_aside_as_damaged_goes_too(engine):
    first, second = fit(engine, data(1), ANN), fit(engine, data(2), BOB)
    for id in (first, second):
        engine.results.quarantine(id)
    aside = engine.results.root / "jobs.db.damaged-1"
    aside.write_text("titles")
    engine.erase(ANN)
    assert [path.name[:64] for path in (engine.results.root / "quarantine").iterdir()] == [second]
    engine._eraser.expired(30)
    assert aside.exists()
    engine._eraser.expired(30, now=time.time() + 31 * DAY)
    assert not aside.exists() and not list((engine.results.root / "quarantine").iterdir())


def test_the_supervisor_lets_go_what_is_old(tmp_path):
    from hbm_core.store.supervisor import Supervisor

    settings = Settings(store=tmp_path, workers=0, retention_days=7)
    with LocalEngine(settings) as engine:
        old, fresh = fit(engine, data(1), ANN), fit(engine, data(2), ANN)
        unused(engine, 8, fits=[old])
        with Supervisor(settings):
            end = time.monotonic() + PATIENCE
            while engine.status(old).state != "none":
                assert time.monotonic() < end, "it is still there"
                time.sleep(0.02)
        assert engine.status(fresh).state == "done" and engine.results.ids() == [fresh]
