"""Nonsense in a link, on the command line and in a request: one message, which names the place."""

import json

import pytest
from typer.testing import CliRunner

from hbm_core import cli
from hbm_core.errors import InputError
from hbm_core.inference.sampler import Sampler
from hbm_core.store.local import LocalEngine
from hbm_core.store.request import FitRequest
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study

#: Link parameters → what the message must name.
LINKS = [
    ({"scenario": "nonsense"}, "scenario.*'nonsense'"),
    ({"scenario": ""}, "scenario"),
    ({"scenario": "schools'; DROP TABLE jobs;--"}, "scenario.*DROP"),
    ({"scenario": "../../etc/passwd"}, "scenario.*passwd"),
    ({"model": "weakest"}, "model.*'weakest'"),
    ({"model": "<script>alert(1)</script>"}, "model"),
    ({"model": "weak\x00"}, "'model'.*control"),
    ({"model": "\ud800"}, "'model'.*control"),
    ({"model": "ＷＥＡＫ"}, "model"),
    ({"dataset": "x"}, "data set.*'x'"),
    ({"dataset": "../../etc/passwd"}, "data set"),
    ({"dataset": "0" * 64}, "data set.*000000000000"),
    ({"dataset": "A" * 64}, "data set"),
    ({"dataset": "0" * 63}, "data set"),
    ({"prior.tau": "HalfCauchy(-1)"}, "HalfCauchy, beta.*-1"),
    ({"prior.tau": "HalfCauchy(0)"}, "HalfCauchy, beta"),
    ({"prior.tau": "HalfCauchy(nan)"}, "HalfCauchy, beta.*nan"),
    ({"prior.tau": "HalfCauchy(inf)"}, "HalfCauchy, beta.*inf"),
    ({"prior.tau": "HalfCauchy(1e400)"}, "HalfCauchy, beta"),
    ({"prior.tau": f"HalfCauchy({10**399})"}, "'prior.tau'.*400 characters"),
    ({"prior.tau": "HalfCauchy(1, 2, 3)"}, "HalfCauchy"),
    ({"prior.tau": "HalfCauchy()"}, "HalfCauchy.*1 numbers"),
    ({"prior.tau": "HalfCauchy(HalfCauchy(1))"}, "prior"),
    ({"prior.tau": "HalfCauchy(1_0)"}, "HalfCauchy, beta.*'1_0'"),
    ({"prior.tau": "HalfCauchy(١)"}, "HalfCauchy, beta"),
    ({"prior.tau": ""}, "prior"),
    ({"prior.tau": "__import__('os').abort()"}, "prior"),
    ({"prior.tau": "Evil(1)"}, "prior family.*'Evil'"),
    ({"prior.tau": "Uniform(2, 1)"}, "Uniform"),
    ({"prior.tau": "Normal(0, 1)"}, "prior on tau"),
    ({"prior.omega": "Normal(0, 1)"}, "prior.*'omega'"),
    ({"draws": "1000000000"}, "draws.*200,000.*1000000000"),
    ({"draws": "1e9"}, "draws"),
    ({"draws": "0"}, "draws"),
    ({"draws": "-5"}, "draws"),
    ({"draws": "10.5"}, "draws.*whole"),
    ({"draws": "nan"}, "draws"),
    ({"draws": "inf"}, "draws"),
    ({"draws": "1_000"}, "draws"),
    ({"draws": "0x10"}, "draws"),
    ({"draws": "１００"}, "draws"),
    ({"draws": ""}, "draws"),
    ({"draws": "9" * 300}, "draws"),
    ({"tune": "9"}, "tune"),
    ({"chains": "0"}, "chains"),
    ({"chains": "33"}, "chains"),
    ({"seed": "-1"}, "seed"),
    ({"seed": "1.5"}, "seed"),
    ({"seed": "4294967296"}, "seed"),
    ({"target_accept": "1"}, "target_accept"),
    ({"target_accept": "nan"}, "target_accept"),
    ({"engine": "magic"}, "engine.*'magic'"),
    ({"parameterization": "sideways"}, "parameterization.*'sideways'"),
    ({"constant.threshold": "nan"}, "threshold"),
    ({"constant.threshold": "1e400"}, "threshold"),
    ({"constant.zzz": "3"}, "constant.*'zzz'"),
    ({"covariates": "latitude"}, "covariates"),
    ({"model": "covariates", "dataset": "bcg", "covariates": "latitude|latitude"}, "covariate"),
]
#: What only a link can say.
ONLY_LINKS = [
    ({"foo": "bar"}, "'foo'"),
    ({"Scenario": "schools"}, "'Scenario'"),
    ({"prior": "Normal(0, 1)"}, "'prior'"),
    ({"prior.": "Normal(0, 1)"}, "'prior.'"),
    ({"x" * 100_000: "1"}, "100,000"),
    ({"unit": "x" * 100_000}, "'unit'.*100,000"),
    ({"unit": "a\x00b"}, "'unit'"),
    ({"dataset": "simulated", "knob.J": "1e9"}, "knob J"),
    ({"dataset": "simulated", "knob.J": "2.5"}, "knob J.*whole"),
    ({"dataset": "simulated", "knob.J": "nan"}, "knob J"),
    ({"dataset": "simulated", "knob.se": "<b>"}, "knob se"),
    ({"dataset": "simulated", "knob.zzz": "1"}, "'zzz'"),
    ({"dataset": "simulated", "knob.se_low": "9", "knob.se_high": "3"}, "knob se_high"),
    ({"dataset": "simulated", "data_seed": "-1"}, "seed"),
    ({"chains": "-1"}, "chains"),
    ({"seed": "nan"}, "seed"),
    ({"model": "adaptive", "constant.threshold": "inf"}, "threshold"),
    ({"prior.tau": "<script>alert(1)</script>"}, "prior"),
    ({"prior.tau": "9" * 5000}, "'prior.tau'.*400 characters"),
    ({"dataset": "simulated", "data_seed": "1.5"}, "data_seed"),
]


def asked(query):
    """What every entrance does: read, find the data, build the model."""
    study = Study.from_query(query)
    return study.request(study.data())


def command(query):
    query = {"scenario": "schools"} | query
    words = ["fit", query.pop("scenario")]
    for name, value in query.items():
        group, _, parameter = name.partition(".")
        if parameter:
            words += [f"--{group}", f"{parameter}={value}"]
        elif name == "covariates":
            words += [word for one in value.split("|") for word in ("--covariate", one)]
        else:
            words.append(f"--{name.replace('_', '-')}={value}")
    return words


@pytest.mark.parametrize(("query", "place"), LINKS + ONLY_LINKS)
def test_a_link_with_nonsense_is_refused_by_name(query, place):
    with pytest.raises(InputError, match=place):
        asked(query)


@pytest.mark.parametrize("query", [query for query, _ in LINKS])
def test_the_command_line_says_the_same(query):
    with pytest.raises(InputError) as caught:
        asked({"scenario": "schools"} | query)
    answer = CliRunner().invoke(cli.app, command(query))
    assert answer.exit_code == 2
    assert answer.stderr.strip() == "hbm: " + " ".join(str(caught.value).split())


@pytest.mark.parametrize("option", ["--prior", "--constant"])
def test_a_name_given_twice_is_not_silently_the_last(option):
    said = CliRunner().invoke(cli.app, ["fit", "schools", option, "tau=1", option, "tau=2"])
    assert said.exit_code == 2 and option in said.stderr and "tau twice" in said.stderr


DEFAULT = Study.default()
GOOD = json.loads(DEFAULT.request(DEFAULT.data()).json)
WRONG = [None, 5, True, float("nan"), [1], {"a": {}}]
NEEDED = ("scenario", "data", "model", "priors")
TEXTS, NUMBERS = ("scenario", "model", "data", "engine"), ("model_version", "schema")


def changed(**fields):
    return GOOD | fields


BODIES = [
    *((value, "request") for value in (None, [], "x", 5)),
    ({}, "scenario"),
    (changed(extra=1), "'extra'"),
    *(({k: v for k, v in GOOD.items() if k != name}, name) for name in NEEDED),
    *((changed(**{name: value}), name) for name in TEXTS for value in WRONG),
    *((changed(**{name: value}), name) for name in ("priors", "constants", "versions") for value in WRONG),
    *((changed(sampler=value), "sampler") for value in WRONG),
    *((changed(covariates=value), "covariates") for value in (*WRONG, "x", ["x"] * 1001, ["x" * 401])),
    *((changed(**{name: value}), name) for name in NUMBERS for value in (-1, 1.5, "1", True)),
    (changed(scenario="x" * 10**6), "scenario"),
    (changed(data="../../etc/passwd"), "data"),
    (changed(priors={"tau": "HalfCauchy(nan)"}), "HalfCauchy"),
    (changed(priors={"tau": ["HalfCauchy", 1]}), "priors, tau"),
    (changed(priors={5: "HalfCauchy(1)"}), "priors"),
    (changed(constants={"threshold": float("inf")}), "constants, threshold"),
    (changed(constants={"threshold": "3"}), "constants, threshold"),
    (changed(constants={"threshold": 10**400}), "constants, threshold"),
    (changed(constants={"threshold": 10**5000}), "constants, threshold"),
    (changed(sampler=GOOD["sampler"] | {"draws": 10**9}), "draws"),
    (changed(sampler=GOOD["sampler"] | {"draws": 10**400}), "draws"),
    (changed(sampler=GOOD["sampler"] | {"draws": 10**5000}), "draws"),
    (changed(sampler=GOOD["sampler"] | {"draws": "many"}), "draws"),
    (changed(sampler=GOOD["sampler"] | {"chains": True}), "chains"),
    (changed(sampler=GOOD["sampler"] | {"chains": 0}), "chains"),
    (changed(sampler=GOOD["sampler"] | {"seed": 1.5}), "seed"),
    (changed(sampler=GOOD["sampler"] | {"callback": "os.abort"}), "'callback'"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "place"), BODIES)
def test_a_request_with_nonsense_is_refused_by_its_field(body, place):
    with pytest.raises(InputError, match=place):
        FitRequest.from_dict(body)


def test_what_is_no_nonsense_is_taken():
    assert FitRequest.from_dict(GOOD).as_dict() == GOOD
    assert asked({"prior.tau": " HalfCauchy( 5 ) ", "draws": "+500"}).sampler.draws == 500


def test_a_fit_that_would_keep_too_many_numbers_is_refused_with_the_limit(tmp_path):
    study = DEFAULT.change(sampler=Sampler(draws=1000, chains=4))
    with (
        LocalEngine(Settings(store=tmp_path, max_draws=30_000)) as engine,
        pytest.raises(InputError, match=r"30,000 numbers.*HBM_MAX_DRAWS"),
    ):
        engine.submit(study.request(study.data()), study.data(), "session")
    with LocalEngine(Settings(store=tmp_path, max_draws=100_000)) as engine:
        assert engine.submit(study.request(study.data()), study.data(), "session")
