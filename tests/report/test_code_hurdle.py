"""The stand-alone script of a hurdle model: the same density as the fit's own model."""

import numpy as np
import pytest

from hbm_core.inference.sampler import Sampler
from hbm_core.models.pymc_hurdle import build
from hbm_core.report.code import script
from tests.models.test_pymc_hurdle import hurdle


@pytest.mark.parametrize(("amounts", "geometry"), [("lognormal", "partial"), ("gamma", "noncentered")])
def test_the_script_states_the_same_model(amounts: str, geometry: str) -> None:
    spec = hurdle(amounts, geometry)
    source = script(spec, Sampler(), "Hurdle")
    names: dict[str, object] = {}
    exec(source.split("fit = nutpie.sample")[0], names)
    theirs, ours = names["model"], build(spec)
    rng = np.random.default_rng(1)
    start = ours.initial_point()
    assert set(start) == set(theirs.initial_point())  # type: ignore[attr-defined]
    found = [
        model.compile_fn(model.logp(), inputs=model.value_vars, mode="FAST_COMPILE")
        for model in (theirs, ours)  # type: ignore[attr-defined]
    ]
    gaps = []
    for _ in range(3):
        point = {name: value + 0.3 * rng.standard_normal(np.shape(value)) for name, value in start.items()}
        gaps.append(float(found[0](point)) - float(found[1](point)))
    # Up to what the data alone decide.
    assert gaps == pytest.approx([gaps[0]] * 3, abs=1e-8)
