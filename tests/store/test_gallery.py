"""The fits that come with the program: whole, of the present default studies, and nobody's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hbm_core.errors import DamagedResult
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.store import gallery
from hbm_core.store.gallery import FOLDER, default_study, enter, enter_into, shipped
from hbm_core.store.local import LocalEngine
from hbm_core.store.request import FitRequest, engine_versions
from hbm_core.store.results import POSTERIOR
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study

PINNED = Path(__file__).parents[2] / "requirements.txt"


@pytest.fixture
def engine(tmp_path):
    with LocalEngine(Settings(tmp_path / "store")) as found:
        yield found


def test_every_shipped_fit_verifies_and_is_the_default_study_under_the_pinned_versions() -> None:
    fits = {one.request.scenario: one for one in shipped() if one.request is not None}
    assert "schools" in fits
    assert len(fits) == len(list(FOLDER.iterdir())), "a shipped fit is damaged, or a scenario has two"
    pinned = PINNED.read_text().lower().split()
    for scenario, one in fits.items():
        assert all(f"{name}=={version}" in pinned for name, version in one.request.versions.items())
        same = dict(one.request.versions) == dict(engine_versions())
        assert one.current == same
        if same:
            assert one.id == default_study(scenario)[0].digest
        assert one.id == one.request.digest and one.bytes < 5e6
        meta = json.loads((FOLDER / one.id / "meta.json").read_text())
        assert "partial" in meta and not meta["partial"]


def test_a_fresh_store_has_it_at_once_pinned_public_and_nobodys(engine: LocalEngine) -> None:
    entered = enter(engine.table, engine.results)
    request, data, _ = default_study("schools")
    assert request.digest in entered
    job = engine.table.get(request.digest)
    assert (job.state, job.pinned, job.public) == ("done", True, True)
    assert engine.table.sessions(request.digest, active=False) == ()
    assert request.digest in {job.id for job in engine.gallery()} and engine.jobs("s1") == []
    assert engine.dataset(request.digest).digest == data.digest
    assert engine.result(request.digest).posterior["theta"].sizes == {"chain": 4, "draw": 1000, "unit": 8}
    summary = engine.summary(request.digest)
    assert summary["exact"]["agrees"] and summary["diagnostics"]["divergences"] == 0
    for scenario, units in (("counts", 60), ("creators", 500)):
        found = engine.result(default_study(scenario)[0].digest)
        assert found.posterior["theta"].sizes["unit"] == found["log_likelihood"]["y"].sizes["unit"] == units
        assert np.isfinite(found["log_likelihood"]["y"].values).all()
        shown = engine.summary(default_study(scenario)[0].digest)
        assert shown["exact"]["agrees"] and shown["diagnostics"]["divergences"] == 0
    # asked for, it is served, and then it is somebody's too
    assert engine.submit(request, data, "s1") == request.digest
    assert engine.status(request.digest).state == "done"
    assert [job.id for job in engine.jobs("s1")] == [request.digest]


def test_entering_again_changes_nothing_and_brings_back_what_went(engine: LocalEngine) -> None:
    id = enter(engine.table, engine.results)[0]
    assert enter(engine.table, engine.results) == []
    engine.table.pin(id, False)
    assert enter_into(engine.settings) == [] and not engine.table.get(id).pinned
    shutil.rmtree(engine.results.path(id))
    engine.table.drop(id)
    assert enter_into(engine.settings) == [id]
    assert engine.results.complete(id)


def test_a_fit_under_way_and_a_kept_result_stay_as_they_are(engine: LocalEngine) -> None:
    request, data, _ = default_study("schools")
    engine.submit(request, data, "s1")
    assert request.digest not in enter(engine.table, engine.results)
    assert engine.status(request.digest).state == "queued"


def test_a_damaged_shipped_fit_is_never_entered(engine: LocalEngine, tmp_path) -> None:
    folder = tmp_path / "shipped"
    shutil.copytree(FOLDER, folder)
    damaged = default_study("schools")[0].digest
    path = folder / damaged / POSTERIOR
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    entered = enter(engine.table, engine.results, folder)
    assert damaged not in entered and len(entered) == len(list(folder.iterdir())) - 1
    assert damaged not in {one.id for one in shipped(folder)}


def test_one_of_other_versions_is_labelled_and_not_served(engine: LocalEngine, monkeypatch) -> None:
    versions = {**engine_versions(), "pymc": "99.0"}
    monkeypatch.setattr("hbm_core.store.gallery.engine_versions", lambda: versions)
    request, data, _ = default_study("schools")
    newer = FitRequest.from_dict(request.as_dict() | {"versions": versions})
    monkeypatch.setattr(gallery, "default_study", lambda scenario: (newer, data, ""))
    found = next(one for one in shipped() if one.request.scenario == "schools")
    assert not found.current and found.state == "of other versions"
    enter(engine.table, engine.results)
    engine.submit(newer, data, "s1")
    assert engine.status(newer.digest).state == "queued"
    assert engine.status(found.id).state == "done"


def test_building_replaces_the_shipped_fit_of_the_scenario(tmp_path, monkeypatch) -> None:
    """With draws of the exact engine in place of NUTS: what is tested is the way into the folder."""
    from hbm_core.store import tasks

    folder = tmp_path / "shipped"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(
        tasks, "run_fit", lambda request, data: tasks.exact_draws(request.spec(data), 2, 50, seed=1)
    )
    made = gallery.build(["schools"], folder)
    assert [one.id for one in made] == [default_study("schools")[0].digest]
    assert len(list(folder.iterdir())) == len(list(FOLDER.iterdir()))
    meta = json.loads((folder / made[0].id / "meta.json").read_text())
    assert "-" not in meta["environment"]["platform"]
    with pytest.raises(DamagedResult):
        gallery._Folder(tmp_path).file("absent")


#: Scenario, model, data, geometry, and what a shipped fit has to hold of its draws.
PACKED = [
    ("schools", "weak", "eight_schools", "noncentered", None),
    ("schools", "weak", "eight_schools", "collapsed", {"mu", "tau"}),
    ("counts", "base", "hosts", "centered", None),
    ("counts", "base", "hosts", "collapsed", {"mu", "alpha", "phi"}),
    ("counts", "binomial", "batting", "collapsed", {"mu", "kappa"}),
    ("creators", "base", "", "collapsed", {"sigma_genre", "sigma_creator"}),
]


@pytest.mark.parametrize(("scenario", "model", "data", "geometry", "kept"), PACKED)
def test_what_is_left_out_comes_back_draw_by_draw(scenario, model, data, geometry, kept) -> None:
    study = Study.default(scenario).change(model=model, parameterization=geometry)
    study = study.change(dataset=data) if data else study
    dataset = study.data()
    request = study.request(dataset)
    spec = request.spec(dataset)
    rng = np.random.default_rng(3)
    moved = {name: 0.2 + 0.5 * rng.random((2, 60)) for name in (kept or spec.structure.parameters)}
    if kept is None:
        moved |= {"theta": 1 + rng.random((2, 60, len(spec.structure.units)))}
    made = recipe(spec).complete(spec, moved, request.sampler.seed)
    tree = result_tree(spec, made, {"diverging": np.zeros((2, 60), bool)})
    thin = gallery.packed(tree, request, dataset)
    assert set(thin["posterior"].data_vars) == (set(made) if kept is None else kept)
    assert "log_likelihood" not in thin.children
    again = gallery.unpacked(thin, request, dataset)
    assert set(again.children) == set(tree.children)
    for group in tree.children:
        for name, values in tree[group].data_vars.items():
            if kept is None and group in ("posterior", "log_likelihood"):
                np.testing.assert_allclose(again[group][name], values, rtol=2e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(again[group][name], values)


@pytest.mark.sampling
def test_the_shipped_draws_are_those_that_the_command_makes(compile_cache, monkeypatch, tmp_path) -> None:
    """On a processor of the same type they agree bit for bit; on any, the first figures do."""
    from hbm_core.store import tasks

    monkeypatch.setattr(tasks, "compiled", lambda: compile_cache)
    one = gallery.build(["schools"], tmp_path)[0]
    made, kept = (
        gallery._Folder(folder).load(one.id)["posterior"].to_dataset() for folder in (tmp_path, FOLDER)
    )
    for name, values in kept.data_vars.items():
        np.testing.assert_allclose(made[name].mean(), values.mean(), atol=0.25 * float(values.std()))
