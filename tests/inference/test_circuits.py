"""A population of subjects sampled: geometries and engines agree, and a pilot moves coordinates alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hbm_core.analysis.circuit_worlds import draw_population, read, true_curves
from hbm_core.analysis.draws import summary
from hbm_core.errors import FitError
from hbm_core.inference.blocked import engine, kernel
from hbm_core.inference.blocked.engine import BlockedCache
from hbm_core.inference.nuts import sample
from hbm_core.inference.recipes.circuits import PILOT
from hbm_core.inference.sampler import Progress, Sampler
from hbm_core.inference.trajectory import log_density
from hbm_core.models.pymc_circuits import coordinates
from tests.models.test_circuits import TIMES, spec_of

SETTINGS = Sampler(draws=700, tune=2 * PILOT, chains=2, target_accept=0.95, seed=5)


@pytest.fixture(scope="module")
def spec():
    """Readings of a population near the priors' middle, two of a course: they leave ridges."""
    made, rng = spec_of(), np.random.default_rng(3)
    truth = draw_population(made, rng)
    middle = [made.priors[f"alpha[{name}]"].numbers[0] for name in made.structure.fitted]
    truth |= {"theta": np.array(middle) + 0.15 * rng.standard_normal((3, 3)), "noise": np.array([0.1])}
    structure = read(made, truth, true_curves(made, truth), rng)
    kept = np.isin(structure.point % TIMES.size, (1, 4))
    fewer = {name: getattr(structure, name)[kept] for name in ("value", "point", "course")}
    return replace(made, structure=replace(structure, **fewer))


@pytest.fixture(scope="module")
def plain(spec, compile_cache) -> pd.DataFrame:
    """Of the plain geometry by NUTS, which the others are held to."""
    settings = Sampler(draws=1500, tune=500, chains=2, target_accept=0.97, seed=6)
    found = summary(sample(spec, settings, cache=compile_cache))
    assert found["r_hat"].max() < 1.02
    return found


def agree(found: pd.DataFrame, plain: pd.DataFrame) -> None:
    """Means and sds of everything, on readings that leave ridges."""
    assert list(found.index) == list(plain.index)
    assert found["r_hat"].max() < 1.02
    for name in ("mean", "sd"):
        error = np.hypot(found[f"mcse_{name}"], plain[f"mcse_{name}"])
        assert ((found[name] - plain[name]).abs() < 5 * error).all()


def test_transport_with_its_pilot_agrees_with_noncentered(spec, plain, compile_cache) -> None:
    seen: list[Progress] = []
    moved = sample(
        replace(spec, parameterization="transport"), SETTINGS, cache=compile_cache, on_progress=seen.append
    )
    agree(summary(moved), plain)
    # The pilot counts as warm-up: nothing goes back, and all that is kept was asked for.
    assert moved["posterior"].sizes["draw"] == SETTINGS.draws
    done = [p.fraction for p in seen if p.stage == "sampling" and p.chains]
    assert done == sorted(done)
    whole = 2 * PILOT + SETTINGS.tune + SETTINGS.draws
    assert {chain.total for p in seen if p.stage != "compiling" for chain in p.chains} == {whole}


def test_draws_shape_the_coordinates_and_nothing_else(spec) -> None:
    spec = replace(spec, parameterization="transport")
    before = coordinates(spec)
    after = coordinates(spec, before["mode"] + 0.1 * np.random.default_rng(0).standard_normal((50, 3, 3)))
    assert set(before) == set(after)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"bend_curvature", "bend_inner", "bend_offset", "bend_outer"}


@pytest.fixture(scope="module")
def blocked_cache(compile_cache) -> BlockedCache:
    return BlockedCache(compile_cache)


def test_circuits_given_the_covariance_have_the_density_of_the_whole(spec, blocked_cache) -> None:
    """Up to a number that Σ alone decides; and curves of long steps are near the exact ones."""
    blocked = replace(spec, parameterization="transport")
    blocks = engine._Blocks(
        blocked, Sampler(draws=10, tune=10, chains=1, seed=1), *blocked_cache.get(blocked)
    )
    (chain,), rng = blocks.chains, np.random.default_rng(9)
    states = np.tile(chain.x, (6, 1))
    states[:, blocks.inner] += 0.05 * rng.standard_normal((6, blocks.inner.size))
    value, slope, part = np.zeros(1), np.empty(blocks.dimensions), np.empty(blocks.inner.size)
    owed = kernel.owed_at(
        *engine._address(chain.near), *engine._address(chain.exact), states, blocks.at, blocks.inner,
        blocks.order, blocks.reference, blocks.bends, chain.parts,
    )  # fmt: skip
    gaps = []
    for x in states:
        assert log_density(*engine._address(blocks.whole), x, slope, value)
        whole = value[0]
        point = np.ascontiguousarray(x[blocks.inner])
        assert log_density(*engine._address(chain.exact), point, part, value)
        gaps.append(whole - value[0])
        assert part == pytest.approx(slope[blocks.inner], rel=1e-6, abs=1e-6)
    assert gaps == pytest.approx([gaps[0]] * len(gaps), abs=1e-7)
    assert (owed != 0).any() and np.std(owed) < engine._OFF


def test_blocks_agree_with_nuts(spec, plain, blocked_cache) -> None:
    """And what a fit says of itself."""
    seen: list[Progress] = []
    settings = Sampler(draws=1000, tune=300, chains=2, target_accept=0.85, seed=5)
    blocked = replace(spec, parameterization="transport")
    tree = engine.sample(blocked, settings, cache=blocked_cache, on_progress=seen.append)
    agree(summary(tree), plain)
    assert tree.attrs["engine"] == "blocked" and not tree.attrs["partial"]
    assert tree["posterior"].sizes["draw"] == settings.draws
    assert set(tree.children) >= {"posterior", "sample_stats", "curves", "log_likelihood", "log_density"}
    done = [p.fraction for p in seen if p.chains]
    assert done == sorted(done) and done[-1] == 1.0
    again = engine.sample(blocked, settings, cache=blocked_cache)
    assert np.array_equal(again["posterior"]["theta"], tree["posterior"]["theta"])


def test_a_stopped_fit_keeps_its_draws_and_one_in_warm_up_has_none(spec, blocked_cache) -> None:
    blocked = replace(spec, parameterization="transport")
    drawn: list[Progress] = []

    def sampling() -> bool:
        return bool(drawn) and not drawn[-1].chains[0].tuning and drawn[-1].chains[0].finished > 60

    settings = Sampler(draws=100_000, tune=50, chains=2, target_accept=0.85, seed=5)
    tree = engine.sample(
        blocked, settings, cache=blocked_cache, on_progress=drawn.append, should_stop=sampling
    )
    assert tree.attrs["partial"] and tree.attrs["stopped"] == "on request"
    assert 0 < tree["posterior"].sizes["draw"] < settings.draws
    with pytest.raises(FitError, match="warming up"):
        engine.sample(blocked, settings, cache=blocked_cache, should_stop=lambda: True)
