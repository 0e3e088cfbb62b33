"""A store of its own with finished fits in it, made without a sampler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
import xarray as xr

from hbm_core.inference.sampler import ChainProgress, Progress, Sampler
from hbm_core.store.local import LocalEngine
from hbm_core.store.study import Study
from hbm_core.store.tasks import exact_draws, result_of
from hbm_core.ui import fits

SESSION = "the-session-of-this-test"
SHORT = Sampler(draws=300, tune=100, chains=4)


def study(**changes: object) -> Study:
    return Study.default().change(sampler=SHORT, **changes)


def statistics(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """What a sampler says of each draw; one diverged: pages speak of it differently for every structure."""
    steps, flags = rng.integers(3, 64, shape), np.zeros(shape, dtype=bool)
    flags[0, 7] = True
    return {
        "diverging": flags,
        "energy": rng.normal(size=shape),
        "n_steps": steps,
        "tree_depth": np.log2(steps).astype(int),
        "reached_max_treedepth": np.zeros(shape, dtype=bool),
        "step_size": np.full(shape, 0.1),
        "acceptance_rate": rng.uniform(0.6, 1, shape),
    }


def draws(spec, diverging: float = 0.0, shift: float = 0.0) -> xr.DataTree:
    """Exact draws with a sampler's statistics; divergent below the `diverging` quantile of τ."""
    tree = exact_draws(spec, SHORT.chains, SHORT.draws, 7)
    rng = np.random.default_rng(1)
    shape = (SHORT.chains, SHORT.draws)
    flags = np.zeros(shape, dtype=bool)
    if "tau" in tree["posterior"]:
        tau = tree["posterior"]["tau"].values
        flags = tau < np.quantile(tau, diverging)
    coords = {"chain": range(shape[0]), "draw": range(shape[1])}
    stats = {"diverging": (("chain", "draw"), flags), "energy": (("chain", "draw"), rng.normal(size=shape))}
    tree["sample_stats"] = xr.DataTree(xr.Dataset(stats, coords))
    if shift:
        tree["posterior"]["mu"] = tree["posterior"]["mu"] + shift
    return tree


def publish(
    engine: LocalEngine, chosen: Study, session: str = SESSION, partial: bool = False, **how: float
) -> str:
    """Ask for a study's fit and answer it at once; its id."""
    data = chosen.data(engine.uploaded)
    request = chosen.request(data)
    engine.submit(request, data, session, f"{data.label}, {chosen.model}")
    job = engine.table.claim("test", 60, only=request.digest)
    assert job is not None
    tree = draws(request.spec(data), **how)
    tree.attrs["partial"] = int(partial)
    result = replace(result_of(tree, request.spec(data)), partial=partial)
    size = engine.results.publish(job.ask, result)
    assert engine.table.finish(request.digest, "test", size, partial)
    return request.digest


def run(engine: LocalEngine, chosen: Study, finished: int = 60, session: str = SESSION) -> str:
    """Ask for a study's fit and leave it running, some draws kept."""
    data = chosen.data()
    request = chosen.request(data)
    engine.submit(request, data, session, "A long one")
    assert engine.table.claim("test", 60, only=request.digest)
    chains = tuple(ChainProgress(100 + finished, 400, 3 * k, False, 0.2) for k in range(4))
    engine.table.beat(request.digest, "test", 60, Progress("sampling", chains, 12.0))
    tree = draws(request.spec(data))
    engine.results.write_partial(request.digest, tree.isel(draw=slice(finished)))
    return request.digest


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HBM_STORE", str(tmp_path))
    st.cache_resource.clear()
    st.cache_data.clear()
    yield fits.engine()
    fits.engine().close()
    st.cache_resource.clear()
    st.cache_data.clear()
