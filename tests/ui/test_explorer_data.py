"""What Python tells the explorer, and what it understands of the answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from hbm_core.models.dataset import Words
from hbm_core.models.families import FAMILIES
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.ui.explore import residual_words
from hbm_core.ui.explorer_component import (
    Elicitation,
    ExplorerData,
    Live,
    joined,
    nice,
    offer,
    prior_entries,
    read_priors,
)
from hbm_core.ui.explorer_value import engine_of, why_no_pooling

EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SE = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
WEAK = {"mu": Prior.parse("Normal(0, 20)"), "tau": Prior.parse("HalfCauchy(10)")}


def _spec(priors=WEAK, **shape) -> ModelSpec:
    return ModelSpec(
        TwoLevelNormal(EFFECT, SE, tuple("ABCDEFGH"), **shape), priors, parameterization="centered"
    )


def _data(spec: ModelSpec, **rest) -> dict:
    words = {"tau": (r"\tau", "spread between schools")}
    entries = prior_entries(spec, {"tau": ("HalfCauchy", "Uniform")}, words)
    return ExplorerData(spec, solve(spec), Words("school", "schools"), entries, **rest).as_dict()


def test_eight_schools_are_told_in_full():
    told = _data(_spec(), story=("School A gained ", Live("raw", "A"), ("twice", "strong")))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["model"]["engine"] == "browser"
    assert told["model"]["why_no_tau"] == ""
    assert told["units"]["digits"] == 0
    assert told["story"][1] == {"value": "raw", "unit": "A", "style": "strong", "after": ""}
    posterior = told["posterior"]
    assert posterior["mean"][0] == pytest.approx(9.739, abs=1e-3)
    shares = np.array([posterior[name] for name in ("own", "others", "prior")])
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    density = posterior["tau_density"]
    assert np.mean(density["post"]) == pytest.approx(1, abs=1e-3)
    assert np.mean(density["prior"]) == pytest.approx(1, abs=1e-3)
    assert [entry["symbol"] for entry in told["priors"]] == ["μ", "τ"]
    assert [offered["family"] for offered in told["priors"][1]["families"]] == ["HalfCauchy", "Uniform"]


@pytest.mark.parametrize(
    ("shape", "priors", "word"),
    [
        ({"pooling": "complete"}, {"mu": WEAK["mu"]}, "equal"),
        ({"pooling": "none"}, {"theta": Prior.parse("Normal(0, 100)")}, "pools nothing"),
    ],
)
def test_models_without_tau_say_so(shape, priors, word):
    told = _data(_spec(priors, **shape))
    json.dumps(told, allow_nan=False)
    assert word in told["model"]["why_no_tau"]
    assert told["posterior"]["tau_density"] is None


def test_covariates_are_drawn_from_the_servers_curves():
    design = ((SE - SE.mean()) / SE.std())[:, None]
    spec = _spec(WEAK | {"beta": Prior.parse("Normal(0, 10)")}, design=design, columns=("se",))
    told = _data(spec)
    json.dumps(told, allow_nan=False)
    assert told["model"]["engine"] == "server"
    curves = told["posterior"]["curves"]
    assert np.shape(curves["theta_mean"]) == (len(curves["u"]), 8)
    np.testing.assert_allclose(curves["theta_mean"][-1], EFFECT)
    np.testing.assert_allclose(curves["theta_sd"][-1], SE)
    densities = told["posterior"]["densities"]
    assert [curve["label"] for curve in densities["beta"]] == ["se"]
    for param in ("mu", "beta"):
        (curve,) = densities[param]
        assert np.trapezoid(curve["y"], curve["x"]) == pytest.approx(0.999, abs=1e-3)


def test_heavy_tails_say_why_no_single_pooling_factor_is_shown():
    heavy = _spec(WEAK | {"nu": Prior.parse("Gamma(2, 0.1)")}, likelihood="student_t")
    assert why_no_pooling(heavy) == "heavy tails: no single B"
    assert why_no_pooling(_spec()) == ""


@pytest.mark.parametrize(("mu", "engine"), [("Flat()", "browser"), ("StudentT(4, 0, 20)", "server")])
def test_the_browser_solves_normal_and_flat_means_only(mu, engine):
    assert engine_of(_spec(WEAK | {"mu": Prior.parse(mu)})) == engine


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spread", [0.02, 10.0, 5e4])
def test_offered_numbers_are_valid_and_on_their_sliders(family, spread):
    offered = offer(family, spread)
    Prior(family, offered.numbers)
    for number, control in zip(offered.numbers, offered.controls, strict=True):
        assert control.min < control.max
        assert control.min <= number * (1 + 1e-9) and number <= control.max * (1 + 1e-9) + 1e-12


def test_round_numbers_are_near():
    assert nice(13) == 10
    assert nice(0.034) == pytest.approx(0.02)


def test_priors_from_the_browser_are_checked():
    given = {"tau": {"family": "HalfCauchy", "numbers": [5]}}
    assert read_priors(given) == {"tau": Prior.parse("HalfCauchy(5)")}
    for wrong in (
        None,
        {"tau": 3},
        {"tau": {"family": "Evil", "numbers": []}},
        {"tau": {"family": "HalfCauchy", "numbers": [-1]}},
    ):
        with pytest.raises(InputError):
            read_priors(wrong)


def test_unknown_parts_are_refused():
    with pytest.raises(InputError, match="parts"):
        ExplorerData(_spec(), None, Words(), parts=("forest", "oracle"))


def test_sources_join_into_one_module():
    source = joined()
    assert source.count("export default") == 1
    assert "\nimport " not in source
    assert "innerHTML" not in source


@pytest.mark.parametrize(
    ("prior", "low", "high", "words"),
    [
        ("HalfCauchy(3.162)", 1, 10, "Half-Cauchy has one number: 61\u00a0% between 1 and 10 is the nearest"),
        ("HalfCauchy(1.584)", 0, 10, ""),
        (
            "HalfStudentT(4, 4)",
            3,
            5,
            "Half-Student t keeps its degrees of freedom: 22\u00a0%",
        ),
    ],
)
def test_what_a_family_cannot_do_is_said(prior, low, high, words):
    prior = Prior.parse(prior)
    asked = Elicitation("tau", prior.family, low, high, 0.9)
    said = residual_words(prior, asked, ("HalfCauchy", "LogNormal", "Gamma"))
    assert said.startswith(words) and bool(said) == bool(words)
    assert "Log-normal or Gamma" in said or not said
    assert "meet both ends" not in residual_words(prior, asked, ("HalfCauchy",))
