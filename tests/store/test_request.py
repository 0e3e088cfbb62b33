import json
import subprocess
import sys
from dataclasses import replace

import pytest

from hbm_core.errors import InputError
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.scenarios import scenario
from hbm_core.store.request import FitRequest, engine_versions

EIGHT = scenario("schools").dataset("eight_schools")


def request(**changes):
    spec = scenario("schools").model("weak").spec(EIGHT)
    given = dict(
        scenario="schools", data=EIGHT.digest, model="weak", priors=spec.priors, versions={"pymc": "6"}
    )
    return FitRequest(**(given | changes))


def test_json_round_trip():
    one = request(constants={"threshold": 3.0}, covariates=["x"], sampler=Sampler(draws=500))
    again = FitRequest.from_dict(json.loads(one.json))
    assert again == one
    assert again.digest == one.digest


@pytest.mark.parametrize(
    "change",
    [
        {"model": "robust"},
        {"data": "0" * 64},
        {"priors": {"mu": Prior.parse("Normal(0, 20)"), "tau": Prior.parse("HalfCauchy(10.000001)")}},
        {"constants": {"threshold": 2.0}},
        {"covariates": ("x",)},
        {"parameterization": "centered"},
        {"engine": "exact"},
        {"sampler": Sampler(seed=43)},
        {"model_version": 2},
        {"schema": 2},
        {"versions": {"pymc": "7"}},
    ],
)
def test_digest_sees_everything_that_decides_the_draws(change):
    assert request(**change).digest != request().digest


def test_digest_ignores_the_order_and_kind_of_what_was_given():
    backwards = dict(reversed(request().priors.items()))
    assert request(priors=backwards).digest == request().digest
    assert request(sampler=Sampler(draws=1000.0, seed=42)).digest == request().digest


def test_digest_is_the_same_in_another_process():
    code = (
        "import sys, json\n"
        "from hbm_core.store.request import FitRequest\n"
        "print(FitRequest.from_dict(json.loads(sys.argv[1])).digest)"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(filter(None, sys.path))}
    said = subprocess.run(
        [sys.executable, "-c", code, request().json],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert said.stdout.strip() == request().digest


def test_mappings_cannot_be_written():
    with pytest.raises(TypeError):
        request().priors["mu"] = Prior("Flat")


def test_spec_is_that_of_the_model_and_only_for_its_data():
    one = request(priors={"tau": Prior.parse("HalfNormal(2)"), "mu": Prior.parse("Normal(0, 20)")})
    assert one.spec(EIGHT).priors["tau"].text == "HalfNormal(2)"
    with pytest.raises(InputError, match="data set"):
        one.spec(scenario("schools").dataset("bcg"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "../../etc/passwd"}, "64 hexadecimal"),
        ({"data": "A" * 64}, "64 hexadecimal"),
        ({"engine": "magic"}, "nuts"),
    ],
)
def test_wrong_requests_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        request(**change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("draws", 10**9),
        ("draws", 0),
        ("draws", 10.5),
        ("chains", float("nan")),
        ("target_accept", 1.0),
        ("seed", -1),
    ],
)
def test_sampler_settings_have_bounds(name, value):
    with pytest.raises(InputError, match=name):
        replace(Sampler(), **{name: value})


def test_versions_name_what_computes():
    assert set(engine_versions()) == {"pymc", "pytensor", "nutpie", "numpy"}
    assert "absent" not in engine_versions().values()
