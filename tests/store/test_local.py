import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from hbm_core.errors import InputError, StoreError
from hbm_core.inference.sampler import Sampler
from hbm_core.scenarios import scenario
from hbm_core.store.jobs import Ask
from hbm_core.store.local import LocalEngine
from hbm_core.store.request import FitRequest
from hbm_core.store.results import META, Result
from hbm_core.store.retention import evict
from hbm_core.store.settings import Settings
from hbm_core.store.tasks import exact_draws
from hbm_core.store.worker import compute_here

TASK = "tests.store.fake_tasks.steps"


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "store", workers=0, warm=0, max_draws=100_000)


@pytest.fixture
def engine(settings):
    with LocalEngine(settings) as engine:
        yield engine


def done(engine, id, session="s1", public=False, data=None):
    """Enter a finished job of about 10 kB."""
    ask = Ask(id, TASK, f'{{"id":"{id}"}}', data, public, f"Title {id}")
    engine.ask(ask, session)
    engine.table.claim("w", 60)
    draws = xr.Dataset({"mu": (("chain", "draw"), np.random.default_rng(0).normal(size=(1, 500)))})
    size = engine.results.publish(ask, Result(xr.DataTree.from_dict({"posterior": draws})))
    assert engine.table.finish(id, "w", size, False)
    return size


def schools_request(**more):
    found = scenario("schools")
    dataset = found.dataset(found.default_dataset)
    model = found.model(found.default_model)
    given = {
        "scenario": "schools",
        "data": dataset.digest,
        "model": found.default_model,
        "priors": model.priors(dataset, ()),
        "constants": model.constants(dataset),
    } | more
    return FitRequest(**given), dataset


def test_a_request_becomes_one_public_job_with_its_data(engine):
    request, dataset = schools_request()
    id = engine.submit(request, dataset, "s1")
    assert id == request.digest == engine.submit(request, dataset, "s2")
    assert engine.request(id) == request
    assert engine.dataset(id).digest == dataset.digest
    assert engine.dataset(id).words == dataset.words
    [job] = engine.jobs("s2")
    assert job.public and dataset.label in job.label
    assert engine.status(id).position == 1


def test_other_data_are_private_to_those_who_asked(engine):
    request, dataset = schools_request()
    table = dataset.table.assign(effect=dataset.table["effect"] + 1)
    own = scenario("schools").read(table)
    id = engine.submit(FitRequest(**(vars(request) | {"data": own.digest})), own, "s1")
    assert engine.may_read(id, "s1")
    assert not engine.may_read(id, "s2")
    assert engine.jobs("s2") == []


@pytest.mark.parametrize("word", ["data", "size"])
def test_what_cannot_be_fitted_is_refused_before_it_waits(engine, word):
    request, dataset = schools_request()
    if word == "data":
        request = FitRequest(**(vars(request) | {"data": "0" * 64}))
    else:
        request = FitRequest(**(vars(request) | {"sampler": Sampler(draws=2600)}))
    with pytest.raises(InputError, match=word):
        engine.submit(request, dataset, "s1")
    assert engine.jobs("s1") == []


def test_the_exact_engine_answers_through_the_same_path(engine, settings):
    """Independent draws: moments within five standard errors of the exact ones, no autocorrelation."""
    from hbm_core.inference.exact import solve

    request, dataset = schools_request(engine="exact", sampler=Sampler(draws=2000, chains=2, seed=3))
    id = engine.submit(request, dataset, "s1")
    compute_here(settings, id)
    assert engine.status(id).state == "done"
    exact = solve(request.spec(dataset))
    rows = engine.summary(id)["parameters"]
    assert list(rows) == list(exact.names)
    for name, mean, sd in zip(exact.names, exact.mean, exact.sd, strict=True):
        assert abs(rows[name]["mean"] - mean) < 5 * sd / np.sqrt(4000)
        assert rows[name]["ess_bulk"] > 2500
        assert rows[name]["r_hat"] < 1.02
    tree = engine.result(id)
    assert tree.posterior["theta"].dims == ("chain", "draw", "unit")
    assert tree.log_likelihood["y"].dtype == np.float64
    again = exact_draws(request.spec(dataset), 2, 2000, 3)
    np.testing.assert_allclose(again.posterior["mu"], tree.posterior["mu"], atol=1e-4)


def test_the_longest_unused_goes_first_and_pinned_ones_stay(engine):
    size = done(engine, "a")
    for id in "bcd":
        done(engine, id)
    engine.pin("b")
    engine.table.touch("a")
    assert evict(engine.table, engine.results, 4 * size + 999) == []
    assert evict(engine.table, engine.results, 2 * size + size // 2) == ["c", "d"]
    assert engine.results.ids() == ["a", "b"]
    assert engine.status("c").state == "none"
    assert evict(engine.table, engine.results, 0) == []


def test_deleting_is_withdrawal_until_the_last_one_deletes(engine):
    done(engine, "a")
    engine.ask(Ask("a", TASK, '{"id":"a"}'), "s2")
    assert not engine.delete("a", "s1")
    assert engine.jobs("s1") == []
    assert engine.status("a").state == "done"
    assert engine.delete("a", "s2")
    assert engine.results.ids() == []
    with pytest.raises(StoreError, match="no fit"):
        engine.result("a")


def test_data_go_with_the_last_fit_that_reads_them(engine):
    _, dataset = schools_request()
    engine.results.save_data(dataset)
    done(engine, "a", data=dataset.digest)
    done(engine, "b", data=dataset.digest)
    engine.delete("a", "s1")
    assert engine.results.arrow(dataset.digest) is not None
    engine.delete("b", "s1")
    assert engine.results.arrow(dataset.digest) is None


def test_a_lost_table_is_rebuilt_from_the_results(engine, settings):
    done(engine, "a", public=True)
    done(engine, "b")
    (engine.results.path("b") / META).write_text("{}")
    engine.close()
    settings.table.write_bytes(b"\0" * 8192)
    with LocalEngine(settings) as again:
        assert again.status("a").state == "done"
        assert [job.label for job in again.gallery()] == ["Title a"]
        assert again.result("a").posterior.sizes["draw"] == 500
        assert again.status("b").state == "none"
    assert list(settings.store.glob("jobs.db.damaged-*"))


def test_a_damaged_row_is_replaced_from_its_result(engine, settings):
    done(engine, "a")
    other = sqlite3.connect(settings.table)
    other.execute("UPDATE jobs SET request = 'x' WHERE id = 'a'")
    other.commit()
    other.close()
    assert engine.status("a").state == "done"
    assert json.loads(engine.table.get("a").request) == {"id": "a"}


def test_a_result_published_by_a_worker_that_died_is_not_computed_again(engine, settings):
    ask = Ask("a", "no.such.task", "{}")
    engine.ask(ask, "s1")
    draws = xr.Dataset({"mu": (("chain", "draw"), np.ones((1, 5)))})
    engine.results.publish(ask, Result(xr.DataTree.from_dict({"posterior": draws})))
    compute_here(settings, "a")
    assert engine.status("a").state == "done"


def test_a_store_that_cannot_be_written_is_said_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        LocalEngine(Settings(tmp_path / "file"))


def test_the_engine_imports_no_sampler():
    code = (
        "import sys, hbm_core.store.local, hbm_core.store.supervisor\n"
        "print({'pymc', 'pytensor', 'nutpie', 'numba', 'arviz', 'streamlit'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_crowd_that_asks_at_once_makes_one_job_per_request(engine):
    def ask(number):
        engine.ask(Ask("same", TASK, "{}"), f"session {number}")
        engine.ask(Ask(f"own-{number}", TASK, "{}"), f"session {number}")
        return engine.status("same").position

    with ThreadPoolExecutor(20) as crowd:
        assert set(crowd.map(ask, range(20))) <= {1, 2}
    assert len(engine.table.jobs()) == 21
    assert len(engine.table.sessions("same")) == 20
    waiting = {engine.status(job.id).position for job in engine.table.jobs()}
    assert waiting == set(range(1, 22))


@pytest.mark.sampling
def test_a_fit_that_passes_its_time_limit_keeps_its_draws_as_partial(tmp_path):
    # Several times what two seconds are enough for, on the quickest machine too: tiny steps, many chains.
    long = Sampler(draws=200_000, tune=50, chains=16, target_accept=0.99, seed=2)
    request, dataset = schools_request(sampler=long)
    settings = Settings(tmp_path / "limited", workers=0, fit_seconds=2)
    with LocalEngine(settings) as engine:
        id = engine.submit(request, dataset, "s1")
        compute_here(settings, id)
        status = engine.status(id)
        assert (status.state, status.partial) == ("done", True)
        assert "time limit" in engine.meta(id)["stopped"]
        assert 0 < engine.result(id).posterior.sizes["draw"] < 200_000


@pytest.mark.sampling
def test_schools_from_request_to_posterior(engine, settings):
    """The default fit by NUTS, as a worker computes it: every mean within 5 MCSE of the exact one."""
    from hbm_core.inference.exact import solve

    request, dataset = schools_request()
    id = engine.submit(request, dataset, "s1")
    compute_here(settings, id)
    assert engine.status(id).state == "done"
    exact = solve(request.spec(dataset))
    summary = engine.summary(id)
    for name, mean in zip(exact.names, exact.mean, strict=True):
        row = summary["parameters"][name]
        assert abs(row["mean"] - mean) < 5 * row["mcse_mean"]
    assert summary["diagnostics"]["r_hat_max"] < 1.02
    assert min(summary["diagnostics"]["e_bfmi"]) > 0.3
    assert summary["exact"]["agrees"]
    assert not summary["partial"]
    tree = engine.result(id)
    assert {"posterior", "sample_stats", "log_likelihood", "observed_data"} <= set(tree.children)
    assert tree.sample_stats["energy"].dtype == np.float64
    pd.testing.assert_frame_equal(engine.dataset(id).table, dataset.table)


def test_a_fit_that_was_asked_for_with_other_versions_is_refused_in_words(engine):
    request, dataset = schools_request(engine="exact", versions={"pymc": "6.0.0a1"})
    id = engine.submit(request, dataset, "s1")
    compute_here(engine.settings, id)
    status = engine.status(id)
    assert status.state == "failed"
    assert "other versions" in status.error and "instead of 6.0.0a1" in status.error
    assert id not in engine.results.ids()
