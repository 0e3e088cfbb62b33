"""A study's engine and settings: what nobody chose goes with model and geometry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hbm_core.errors import InputError
from hbm_core.store.study import Study


def test_an_engine_that_nobody_chose_goes_with_model_and_geometry() -> None:
    usual = Study.default("circuits")
    assert (usual.engine, usual.sampler.target_accept) == ("blocked", 0.8)
    assert "engine" not in usual.query and "target_accept" not in usual.query
    for change in ({"model": "diagonal"}, {"parameterization": "noncentered"}, {"model": "inverse_wishart"}):
        moved = usual.change(**change)
        assert (moved.engine, moved.sampler.target_accept) == ("nuts", 0.95)
        assert Study.from_query(moved.query).query == moved.query
        back = moved.change(model="full", parameterization="transport")
        assert (back.engine, back.sampler) == ("blocked", usual.sampler)
    chosen = usual.change(engine="nuts")
    assert chosen.query["engine"] == "nuts" and Study.from_query(chosen.query).engine == "nuts"
    # Draws that somebody chose stay, a target that somebody chose too.
    more = usual.change(sampler=replace(usual.sampler, draws=77)).change(engine="nuts")
    assert (more.sampler.draws, more.sampler.target_accept) == (77, 0.95)
    own = usual.change(sampler=replace(usual.sampler, target_accept=0.9)).change(engine="nuts")
    assert own.sampler.target_accept == 0.9


def test_blocks_are_refused_where_a_model_has_none() -> None:
    with pytest.raises(InputError, match=r"full in transport.*--engine nuts"):
        Study.from_query({"scenario": "circuits", "model": "diagonal", "engine": "blocked"})
    with pytest.raises(InputError, match="none of scenario schools"):
        Study.from_query({"scenario": "schools", "engine": "blocked"})
