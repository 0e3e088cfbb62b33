import errno
import json
import os

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from hbm_core.errors import DamagedResult, StoreError
from hbm_core.models.dataset import Dataset, Words
from hbm_core.store import results as module
from hbm_core.store.jobs import Ask
from hbm_core.store.results import META, POSTERIOR, SUMMARY, Result, ResultStore, compact

ASK = Ask("f" * 64, "some.task", '{"a":1}', "d" * 64, True, "Eight schools")


def tree(seed=0, draws=50):
    rng = np.random.default_rng(seed)
    coords = {"chain": range(2), "draw": range(draws), "unit": ["A", "שלום", "=cmd()"]}
    posterior = xr.Dataset(
        {
            "mu": (("chain", "draw"), rng.normal(size=(2, draws))),
            "theta": (("chain", "draw", "unit"), rng.normal(size=(2, draws, 3))),
            "time": (("chain", "draw"), 2_454_000 + 1e-4 * rng.normal(size=(2, draws))),
        },
        coords,
    )
    likelihood = xr.Dataset({"y": (("chain", "draw", "unit"), rng.normal(size=(2, draws, 3)))}, coords)
    made = xr.DataTree.from_dict({"posterior": posterior, "log_likelihood": likelihood})
    made.attrs["stopped"] = ""
    return made


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "store")


@pytest.fixture
def kept(store):
    store.publish(ASK, Result(tree(), {"parameters": {"mu": {"mean": 1.5}}}, {"total": 2.0}))
    return store


def test_a_result_comes_back_as_it_was(kept):
    loaded, made = kept.load(ASK.id), tree()
    for name, sd in (("mu", 1.0), ("theta", 1.0), ("time", 1e-4)):
        assert np.abs(loaded.posterior[name].values - made.posterior[name].values).max() < 1e-6 * 5 * sd
    assert list(loaded.posterior.unit.values) == ["A", "שלום", "=cmd()"]
    np.testing.assert_array_equal(loaded.log_likelihood["y"], made.log_likelihood["y"])
    assert loaded.attrs == {"stopped": ""}
    assert kept.summary(ASK.id) == {"parameters": {"mu": {"mean": 1.5}}}
    assert kept.ask(ASK.id) == ASK
    meta = kept.meta(ASK.id)
    assert (meta["timings"], meta["partial"]) == ({"total": 2.0}, False)
    assert {"python", "pymc", "nutpie"} <= set(meta["environment"])
    assert kept.ids() == [ASK.id]
    assert kept.complete(ASK.id)
    assert kept.total() == sum(path.stat().st_size for path in kept.path(ASK.id).iterdir())


def test_loaded_results_are_read_only(kept):
    with pytest.raises(ValueError, match="read-only"):
        kept.load(ASK.id).posterior["mu"].values[0, 0] = 3.0


def test_single_precision_only_where_nothing_is_lost():
    small = compact(tree())
    kinds = {name: str(array.dtype) for name, array in small.posterior.data_vars.items()}
    assert kinds == {"mu": "float32", "theta": "float32", "time": "float64"}
    assert small.log_likelihood["y"].dtype == np.float64


def test_one_element_that_would_lose_keeps_the_whole_variable():
    made = tree()
    made["posterior"]["theta"].values[:, :, 1] += 1000.0
    assert compact(made).posterior["theta"].dtype == np.float64


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def delete(path):
    path.unlink()


@pytest.mark.parametrize("name", [POSTERIOR, SUMMARY, META])
@pytest.mark.parametrize("fault", [flip, truncate, delete])
def test_every_fault_of_a_file_is_found_and_set_aside(kept, name, fault):
    fault(kept.path(ASK.id) / name)
    with pytest.raises(DamagedResult, match="damaged"):
        kept.load(ASK.id)
        kept.summary(ASK.id)
    if fault is not flip:
        assert not kept.complete(ASK.id)
    kept.quarantine(ASK.id)
    assert kept.ids() == []
    assert len(list((kept.root / "quarantine").iterdir())) == 1
    kept.publish(ASK, Result(tree()))
    kept.load(ASK.id)


@pytest.mark.parametrize("place", np.linspace(0, 0.999, 15))
def test_a_flipped_bit_is_found_wherever_it_is(kept, place):
    flip(kept.path(ASK.id) / POSTERIOR, place)
    with pytest.raises(DamagedResult):
        kept.load(ASK.id)


class Crash(BaseException):
    """A process that ends here."""


@pytest.mark.parametrize("step", range(6))
def test_a_crash_between_any_two_steps_leaves_no_half_result(store, monkeypatch, step):
    """Every step ends in an fsync: end the process at the first, the second, …"""
    calls, real = [], os.fsync

    def fsync(handle):
        if len(calls) == step:
            raise Crash
        calls.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(module, "_remove", lambda path: None)
    try:
        store.publish(ASK, Result(tree()))
    except Crash:
        monkeypatch.undo()
        if store.ids():
            store.load(ASK.id)
            store.summary(ASK.id)
        else:
            assert step < 5
    else:
        assert step == 5
        monkeypatch.undo()
    store.sweep(age=-1)
    assert list((store.root / "tmp").iterdir()) == []
    store.publish(ASK, Result(tree()))
    store.load(ASK.id)


def test_a_crash_while_replacing_keeps_the_earlier_result(kept, monkeypatch):
    def crash(handle):
        raise Crash

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(Crash):
        kept.publish(ASK, Result(tree(1)))
    monkeypatch.undo()
    np.testing.assert_allclose(kept.load(ASK.id).posterior["mu"], tree(0).posterior["mu"], atol=1e-5)
    kept.publish(ASK, Result(tree(1)))
    np.testing.assert_allclose(kept.load(ASK.id).posterior["mu"], tree(1).posterior["mu"], atol=1e-5)


@pytest.mark.parametrize(
    "code, words", [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written"), (errno.EIO, "intact")]
)
def test_a_disk_that_refuses_is_said_in_words(kept, monkeypatch, code, words):
    def refuse(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=words):
        kept.publish(Ask("e" * 64, "t", "{}"), Result(tree()))
    monkeypatch.undo()
    assert kept.ids() == [ASK.id]
    assert list((kept.root / "tmp").iterdir()) == []
    kept.load(ASK.id)


def test_partial_draws_are_replaced_and_removed_by_the_result(store):
    assert store.partial(ASK.id) is None
    store.write_partial(ASK.id, tree(draws=5))
    store.write_partial(ASK.id, tree(draws=9))
    assert store.has_partial(ASK.id)
    assert store.partial(ASK.id).posterior.sizes["draw"] == 9
    store.publish(ASK, Result(tree()))
    assert store.partial(ASK.id) is None


def test_deleting_removes_everything(kept):
    kept.write_partial(ASK.id, tree(draws=5))
    kept.delete(ASK.id)
    kept.delete(ASK.id)
    assert (kept.ids(), kept.total(), kept.has_partial(ASK.id)) == ([], 0, False)


@pytest.mark.parametrize("id", ["", "..", "../x", "a/b", "a\0b", "é"])
def test_an_id_is_never_a_path(store, id):
    with pytest.raises(StoreError, match="no id"):
        store.path(id)


def dataset():
    table = pd.DataFrame({"unit": ["A", "שלום"], "effect": [1.5, -2.0], "se": [1.0, 3.0]})
    words = Words("school", "schools", "Effect", "points")
    return Dataset("upload", "Mine", table, words, "Somewhere", {"theta[A]": 2.0})


def test_data_come_back_with_their_words(store):
    data = dataset()
    store.save_data(data)
    store.save_data(data)
    found = store.dataset(data.digest)
    assert found.digest == data.digest
    pd.testing.assert_frame_equal(found.table, data.table)
    assert (found.label, found.words, found.reference, found.truth) == (
        "Mine", data.words, "Somewhere", {"theta[A]": 2.0},
    )  # fmt: skip
    store.delete_data(data.digest)
    with pytest.raises(StoreError, match="not kept"):
        store.dataset(data.digest)
    assert store.arrow(data.digest) is None


def test_damaged_data_are_never_served(store):
    data = dataset()
    store.save_data(data)
    flip(store.root / "data" / f"{data.digest}.arrow")
    with pytest.raises(DamagedResult, match="Load it again"):
        store.dataset(data.digest)


def test_meta_is_plain_json(kept):
    assert json.loads((kept.path(ASK.id) / META).read_text())["layout"] == 1


def test_a_variable_named_as_a_group_is_read_with_the_rest():
    """Whatever is not read while the file is open would be read later, from a file that is gone."""
    made = tree()
    made["density"] = xr.DataTree(xr.Dataset({"log_likelihood": ("i", np.arange(3.0))}))
    found = module.from_bytes(module.to_bytes(made))
    assert found["density"]["log_likelihood"].values.tolist() == [0.0, 1.0, 2.0]
    assert not found["density"]["log_likelihood"].values.flags.writeable
