"""Priors carried over to a second batch: what they gain, and the ceiling."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hbm_core.cli import app
from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from hbm_core.inference.learned import learned_priors
from hbm_core.scenarios import scenario
from hbm_core.scenarios.creators.learning import known_estimate, learning_gain
from hbm_core.scenarios.creators.models import EARLIER

CREATORS = scenario("creators")


def test_the_default_of_learned_is_what_the_earlier_batch_says() -> None:
    posterior = solve(CREATORS.model("base").spec(CREATORS.simulate(EARLIER)))
    declared = CREATORS.model("learned").spec(CREATORS.dataset("ab_tests")).priors
    for name, one in learned_priors(posterior).items():
        assert declared[name].family == one.prior.family
        assert declared[name].numbers == pytest.approx(one.prior.numbers, rel=5e-3)


def test_the_ceiling_is_the_conditional_mean_of_the_joint_normal() -> None:
    data = CREATORS.simulate(3, level="summaries", creators_per_genre=3)
    shape = CREATORS.model("base").spec(data).structure
    mu, group, unit = 0.4, 0.3, 0.5
    same = np.equal.outer(shape.group, shape.group)
    prior = same * group**2 + unit**2 * np.eye(shape.effect.size)
    noisy = prior + np.diag(shape.se**2)
    expected = mu + prior @ np.linalg.solve(noisy, shape.effect - mu)
    assert known_estimate(shape, mu, group, unit) == pytest.approx(expected, abs=1e-12)


def test_a_small_second_batch_gains_up_to_the_ceiling() -> None:
    table = learning_gain(60, seed=1, sizes=(3,)).set_index("estimator")
    gain, error = table["gain"], table["gain_se"]
    assert gain["default"] == 0
    assert gain["learned"] > 2 * error["learned"]
    assert gain["known"] > 2 * error["known"]
    assert gain["learned"] < gain["known"] + 2 * error["known"]


def test_a_large_second_batch_has_nothing_to_gain() -> None:
    table = learning_gain(20, seed=1, sizes=(100,)).set_index("estimator")
    assert abs(table["gain"]["known"]) < 0.01
    assert abs(table["gain"]["learned"]) < 0.01


def test_replications_are_at_least_two() -> None:
    with pytest.raises(InputError, match="replications"):
        learning_gain(1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("HBM_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, words)


def test_the_command_line_carries_a_batch_over(run, tmp_path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("creator,genre,effect,se\na,music,1.0,0.3\nb,folk,0.2,0.2\n")
    made = run("precompute", "creators", "--out", "hyper.json", "--json")
    assert made.exit_code == 0, made.output
    learned = json.loads(made.stdout)["learned"]
    one = run("score", "hyper.json", "--effect", "1.0", "--se", "0.3", "--genre", "music", "--json")
    many = run("score", "hyper.json", "--data", str(new), "--json")
    (alone,), (first, second) = (json.loads(done.stdout)["readouts"] for done in (one, many))
    by_unit = {row["unit"]: row for row in (first, second)}
    assert by_unit["a"]["mean"] == pytest.approx(alone["mean"])
    assert by_unit["a"]["known"] and not by_unit["b"]["known"]
    assert alone["low95"] < alone["low80"] < alone["mean"] < alone["high80"] < alone["high95"]
    carried = run("exact", "creators", "--data", str(new), "--prior-from", "hyper.json", "--json")
    priors = json.loads(carried.stdout)["request"]["priors"]
    assert priors == {name: entry["prior"] for name, entry in learned.items()}
    words = ("--data", str(new), "--prior-from", "hyper.json", "--prior", "mu=Normal(0, 9)", "--json")
    own = run("exact", "creators", *words)
    assert json.loads(own.stdout)["request"]["priors"]["mu"] == "Normal(0, 9)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("precompute", "creators", "--out", "x.txt"), ".json"),
        (("precompute", "schools", "--out", "x.json"), "three-level"),
        (("precompute", "0000", "--out", "x.json", "--model", "base"), "beside a fit"),
        (("score", "absent.json", "--effect", "1", "--se", "1"), "hbm precompute"),
        (("exact", "creators", "--prior-from", "absent.json"), "hbm precompute"),
    ],
)
def test_bad_input_is_one_line(run, words, said) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
