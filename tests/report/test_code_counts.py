"""Stand-alone scripts of models of counts: the same density as the fit's own model, up to the data's part."""

from dataclasses import replace

import numpy as np
import pytest

from hbm_core.inference.recipes import recipe
from hbm_core.inference.sampler import Sampler
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.structure import ModelSpec
from hbm_core.report.code import script
from tests.models.test_count_extensions import CASES, COUNT, ENTITY, EXPOSURE, UNITS, spec_of
from tests.models.test_pymc_gamma_counts import counts

GAMMA = [("negative_binomial", "rate", "scaled"), ("poisson", "mean_scaled", "collapsed")]
#: What differs is written once: a geometry or two of each model.
WRITTEN = [
    ("zero_inflated", "scaled"),
    ("covariates", "centered"),
    ("drift", "noncentered"),
    ("drift", "centered"),
    ("joint", "noncentered"),
    ("joint", "centered"),
    ("binomial", "noncentered"),
    ("binomial", "collapsed"),
]


def same_density(spec: ModelSpec) -> None:
    names: dict = {}
    exec(script(spec, Sampler(), "Counts").split("fit = nutpie.sample")[0], names)
    theirs, ours = names["model"], recipe(spec).build(spec)
    start = ours.initial_point()
    assert {name: np.shape(v) for name, v in theirs.initial_point().items()} == {
        name: np.shape(value) for name, value in start.items()
    }
    densities = [model.compile_logp(mode="FAST_COMPILE") for model in (theirs, ours)]
    rng = np.random.default_rng(1)
    gaps = []
    for _ in range(3):
        point = {name: rng.normal(0.2, 0.4, np.shape(value)) for name, value in start.items()}
        gaps.append(float(densities[0](point)) - float(densities[1](point)))
    assert gaps == pytest.approx([gaps[0]] * 3, abs=1e-7)


@pytest.mark.parametrize(("case", "name"), WRITTEN)
def test_the_script_states_the_same_model(case, name):
    same_density(spec_of(CASES[case][0], name))


@pytest.mark.parametrize(("likelihood", "effects", "name"), GAMMA)
def test_the_script_of_gamma_counts_too(likelihood, effects, name):
    spec = counts(likelihood, effects, name)
    assert isinstance(spec.structure, GammaCounts)
    same_density(spec)


@pytest.mark.parametrize("case", ["base", "covariates"])
def test_rates_that_were_integrated_by_quadrature_are_moved_and_the_script_says_so(case):
    spec = counts(parameterization="collapsed") if case == "base" else spec_of(CASES[case][0], "collapsed")
    moved = replace(spec, parameterization="centered")
    told, plain = (script(one, Sampler(), "Counts") for one in (spec, moved))
    assert "by quadrature" in told and "by quadrature" not in plain
    assert told.split("import arviz", 1)[1] == plain.split("import arviz", 1)[1]


def test_drifting_windows_are_written_entity_by_entity():
    """Whatever the order of the rows, each entity's windows stand side by side in their order."""
    mixed = np.array([3, 0, 5, 1, 9, 7, 2, 10, 4, 6, 8])
    structure = type(CASES["drift"][0])(COUNT[mixed], ENTITY[mixed], UNITS, EXPOSURE[mixed])
    spec = spec_of(structure)
    source = script(spec, Sampler(), "Drift")
    names: dict = {}
    exec(source.split("with pm.Model")[0], names)
    assert (np.diff(names["entity"]) >= 0).all()
    for i in range(4):
        assert list(names["count"][names["entity"] == i]) == list(COUNT[mixed][ENTITY[mixed] == i])


@pytest.mark.parametrize(("name", "said"), [("scaled", True), ("centered", False)])
def test_the_script_adapts_the_mass_matrix_as_the_fit_does(name, said):
    spec = counts("negative_binomial", "rate", name)
    assert ("adaptation='low_rank'" in script(spec, Sampler(), "Counts")) is said
    assert (recipe(spec).mass_matrix(spec) == "low_rank") is said
