"""What every scenario promises, checked for each one found."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hbm_core.errors import InputError
from hbm_core.inference.sampler import Sampler
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios import scenario, scenarios
from hbm_core.scenarios.base import Scenario

FOUND = tuple(scenarios().values())
each = pytest.mark.parametrize("one", FOUND, ids=[one.id for one in FOUND])

_ELSEWHERE = """
import json, sys
from hbm_core.scenarios import scenarios
digests = {}
for one in scenarios().values():
    for name in one.datasets:
        data = one.dataset(name)
        digests[f"{one.id}/{name}"] = one.read(data.table).digest
        one.first_look(data), one.estimate(data), one.covariates(data)
    simulated = one.simulate(seed=7)
    digests[f"{one.id}/simulated"] = simulated.digest
    one.model(one.default_model).spec(simulated)
    for preset in one.presets:
        preset.priors(simulated)
heavy = sorted({"pymc", "pytensor", "nutpie", "arviz", "numba", "streamlit", "preliz"} & set(sys.modules))
print(json.dumps({"digests": digests, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def elsewhere():
    """What another process, with another hash seed, says about all scenarios."""
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "12345", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    return json.loads(done.stdout)


def usable(one: Scenario, model_id: str):
    """Built-in data sets that a model takes."""
    for name in one.datasets:
        dataset = one.dataset(name)
        try:
            one.model(model_id).spec(dataset)
        except InputError:
            continue
        yield dataset


def flat_names(spec: ModelSpec) -> set[str]:
    structure = spec.structure
    alone = [f"theta[{unit}]" for unit in structure.units]
    return {*structure.hyperparameters, *getattr(structure, "unit_parameters", alone)}


def test_scenarios_are_found_and_unknown_ones_refused():
    assert "schools" in scenarios()
    with pytest.raises(InputError, match="schools"):
        scenario("nonsense")


@each
def test_tells_its_story_in_five_lines_with_references(one):
    assert len(one.story) == 5
    assert all(20 < len(line) <= 160 and line.strip() == line for line in one.story)
    assert one.references and one.title


@each
def test_defaults_exist(one):
    assert one.default_model in one.models
    assert one.default_dataset in one.datasets
    assert [id for id, model in one.models.items() if id != model.id] == []
    settings = one.sampler
    Sampler(settings.draws, settings.tune, settings.chains, settings.target_accept, settings.seed)
    one.model(one.default_model).spec(one.dataset(one.default_dataset))


@each
def test_unknown_names_are_refused_with_the_known_ones(one):
    with pytest.raises(InputError, match=one.default_dataset):
        one.dataset("nonsense")
    with pytest.raises(InputError, match=one.default_model):
        one.model("nonsense")


@each
def test_every_data_set_reads_back_to_itself(one):
    for name in one.datasets:
        dataset = one.dataset(name)
        assert dataset.name == name
        assert dataset.label == one.datasets[name]
        assert dataset.reference
        assert one.read(dataset.table).digest == dataset.digest
        # A round trip through text, as a download and an upload make it.
        assert one.read(dataset.table.astype(str)).digest == dataset.digest


@each
def test_digests_are_the_same_in_another_process(one, elsewhere):
    for name in one.datasets:
        assert elsewhere["digests"][f"{one.id}/{name}"] == one.dataset(name).digest
    assert elsewhere["digests"][f"{one.id}/simulated"] == one.simulate(seed=7).digest


def test_using_scenarios_imports_nothing_heavy(elsewhere):
    assert elsewhere["heavy"] == []


@each
def test_every_model_builds_in_every_parameterization(one):
    for model in one.models.values():
        takers = list(usable(one, model.id))
        assert takers, f"no built-in data set suits {model.id}"
        for dataset in takers:
            for parameterization in model.parameterizations:
                spec = model.spec(dataset, parameterization=parameterization)
                assert spec.parameterization == parameterization
                assert set(model.parameterizations) == set(spec.structure.parameterizations)
                # Which means there are may depend on what the data hold.
                assert set(model.families) >= set(spec.structure.parameters)
                assert dict(spec.priors) == dict(model.priors(dataset))
                assert dict(spec.constants) == dict(model.constants(dataset))
            assert model.spec(dataset).parameterization == model.parameterizations[0]


@each
def test_default_priors_are_among_the_families_offered(one):
    for model in one.models.values():
        for dataset in usable(one, model.id):
            for name, prior in model.priors(dataset).items():
                assert prior.family in model.families[name]
                assert name in one.parameter_words


@each
def test_models_explain_themselves(one):
    for model in one.models.values():
        assert model.formula and all(line.count("{") == line.count("}") for line in model.formula)
        assert model.summary.endswith(".")
        assert model.label


@each
def test_presets_fit_some_model(one):
    for preset in one.presets:
        id = preset.model or one.default_model
        dataset = next(usable(one, id))
        one.model(id).spec(dataset, preset.priors(dataset))


@each
def test_simulation_is_reproducible_by_seed(one):
    first, again, other = (one.simulate(seed=seed) for seed in (3, 3, 4))
    assert first.digest == again.digest
    assert dict(first.truth) == dict(again.truth)
    assert first.digest != other.digest
    assert one.read(first.table).digest == first.digest


@each
def test_truth_carries_the_names_of_fits(one):
    simulated = one.simulate(seed=1)
    names = flat_names(one.model(one.default_model).spec(simulated))
    assert set(simulated.truth) == names
    assert all(np.isfinite(value) for value in simulated.truth.values())


@each
def test_knobs_out_of_bounds_are_refused_by_name(one):
    with pytest.raises(InputError, match="knob"):
        one.simulate(seed=1, nonsense=1)
    for knob in one.knobs:
        assert knob.check(knob.default) == knob.default
        wrong = ["nonsense", None] if knob.choices else [knob.lower - 1, knob.upper + 1, np.nan, "x", None]
        wrong += [knob.lower + 0.5] if knob.integer else []
        for value in wrong:
            with pytest.raises(InputError, match=knob.name):
                one.simulate(seed=1, **{knob.name: value})


@each
@pytest.mark.parametrize("seed", [-1, 1.5, "x", True])
def test_a_seed_is_a_whole_number(one, seed):
    with pytest.raises(InputError, match="seed"):
        one.simulate(seed=seed)


@each
def test_first_look_and_estimates_are_tidy(one):
    for name in one.datasets:
        dataset = one.dataset(name)
        look = one.first_look(dataset)
        assert {"quantity", "value", "note"} <= set(look.columns)
        assert look["quantity"].is_unique
        rows = one.estimate(dataset)
        assert {"unit", "estimator", "estimate", "se", "low95", "high95"} <= set(rows.columns)
        assert not rows.duplicated(["unit", "estimator"]).any()
        assert (rows["low95"] <= rows["estimate"]).all() and (rows["estimate"] <= rows["high95"]).all()


@each
def test_a_constant_says_what_it_does(one):
    data = one.dataset(one.default_dataset)
    for model in one.models.values():
        if model.covariates:
            continue
        asked = {name for name in model.constants(data) if not name.startswith("role[")}
        told = {name for name, (label, words) in model.constant_words.items() if label and words}
        assert asked <= told, model.id
