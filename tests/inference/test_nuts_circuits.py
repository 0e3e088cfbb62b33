"""NUTS on a population of subjects: geometries agree, and a pilot moves coordinates alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hbm_core.analysis.circuit_worlds import draw_population, read, true_curves
from hbm_core.analysis.draws import summary
from hbm_core.inference.nuts import sample
from hbm_core.inference.recipes.circuits import PILOT
from hbm_core.inference.sampler import Progress, Sampler
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


def test_transport_with_its_pilot_agrees_with_noncentered(spec, compile_cache) -> None:
    seen: list[Progress] = []
    moved = sample(
        replace(spec, parameterization="transport"), SETTINGS, cache=compile_cache, on_progress=seen.append
    )
    plain = sample(spec, replace(SETTINGS, target_accept=0.97), cache=compile_cache)
    found, other = summary(moved), summary(plain)
    assert found["r_hat"].max() < 1.02 and other["r_hat"].max() < 1.02
    error = np.hypot(found["mcse_mean"], other["mcse_mean"])
    assert ((found["mean"] - other["mean"]).abs() < 5 * error).all()
    spread = np.hypot(found["mcse_sd"], other["mcse_sd"])
    assert ((found["sd"] - other["sd"]).abs() < 5 * spread).all()
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
