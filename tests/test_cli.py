"""The command line's contract: JSON alone on stdout, exit codes, one-line messages, names of parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from hbm_core.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def hbm(store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in this process: what it prints, and its exit code."""
    monkeypatch.setenv("HBM_STORE", str(store / "store"))

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["hbm", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Done(int(stop.value.code or 0), *capfd.readouterr())

    return run


def test_the_installed_command_answers_like_the_function() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hbm_core.cli", "scenarios", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "schools" in {item["id"] for item in json.loads(done.stdout)["scenarios"]}
    refused = subprocess.run(
        [sys.executable, "-m", "hbm_core.cli", "exact", "nowhere"], capture_output=True, text=True, cwd=ROOT
    )
    assert (refused.returncode, refused.stdout) == (2, "")


def answer(done: Done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_exact_gives_the_published_eight_schools(hbm) -> None:
    found = answer(hbm("exact", "schools", "--json"))
    assert list(found["parameters"]) == ["mu", "tau", *(f"theta[{unit}]" for unit in "ABCDEFGH")]
    assert found["parameters"]["mu"]["mean"] == pytest.approx(7.44668, abs=5e-6)
    assert found["parameters"]["mu"]["sd"] == pytest.approx(4.52833, abs=5e-6)
    assert found["parameters"]["tau"]["mean"] == pytest.approx(4.70731, abs=5e-6)
    assert found["parameters"]["theta[A]"]["mean"] == pytest.approx(9.7390, abs=5e-5)
    entry = found["parameters"]["theta[A]"]
    assert list(entry["q"]) == ["0.025", "0.25", "0.5", "0.75", "0.975"]
    low, high = entry["hdi95"]
    assert low < entry["q"]["0.5"] < high
    assert high - low <= entry["q"]["0.975"] - entry["q"]["0.025"] + 1e-9
    assert {"scenario", "model", "diagnostics", "timings", "request", "fit"} <= set(found)
    assert len(found["fit"]) == 64


def test_units_can_be_left_out(hbm) -> None:
    assert list(answer(hbm("exact", "schools", "--units", "none", "--json"))["parameters"]) == ["mu", "tau"]
    assert len(answer(hbm("exact", "schools", "--units", "3", "--json"))["parameters"]) == 5


def test_simulated_data_go_through_a_file_and_truth_has_the_names_of_fits(hbm, tmp_path: Path) -> None:
    data, truth = tmp_path / "data.csv", tmp_path / "truth.json"
    arguments = (
        "simulate",
        "schools",
        "--set",
        "J=6",
        "--seed",
        "3",
        "--out",
        str(data),
        "--truth",
        str(truth),
    )
    simulated = answer(hbm(*arguments, "--json"))
    assert simulated["rows"] == 6
    found = answer(hbm("exact", "schools", "--data", str(data), "--json"))
    assert set(found["parameters"]) == set(json.loads(truth.read_text()))


def test_estimate_lists_moments_and_estimators(hbm) -> None:
    found = answer(hbm("estimate", "schools", "--json"))
    moments = {row["quantity"]: row["value"] for row in found["moments"]}
    assert moments["Q"] == pytest.approx(4.71, abs=5e-3)
    assert moments["p"] == pytest.approx(0.696, abs=5e-4)
    assert moments["tau2_DL"] == moments["tau2_REML"] == 0
    assert {row["estimator"] for row in found["estimates"]} >= {
        "no_pooling",
        "complete_pooling",
        "empirical_bayes",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("exact", "nowhere"), "scenario"),
        (("exact", "schools", "--model", "nothing"), "model"),
        (("exact", "schools", "--dataset", "nothing"), "data set"),
        (("exact", "schools", "--prior", "tau=Normal(0, 1)"), "tau"),
        (("exact", "schools", "--prior", "tau=HalfCauchy(nan)"), "HalfCauchy"),
        (("exact", "schools", "--prior", "tau=HalfCauchy(-1)"), "HalfCauchy"),
        (("exact", "schools", "--prior", "tau=HalfCauchy(1, 2)"), "HalfCauchy"),
        (("exact", "schools", "--prior", "tau=os.system(1)"), "prior"),
        (("exact", "schools", "--prior", "sigma=HalfCauchy(1)"), "sigma"),
        (("exact", "schools", "--prior", "tau"), "--prior"),
        (("exact", "schools", "--units", "some"), "--units"),
        (("exact", "schools", "--bogus"), "--bogus"),
        (("exact", "schools", "--data", "absent.csv"), "absent.csv"),
        (("fit", "schools", "--draws", "1e9"), "draws"),
        (("fit", "schools", "--draws", "many"), "draws"),
        (("fit", "schools", "--chains", "nan"), "chains"),
        (("fit", "schools", "--parameterization", "oblique"), "parameterization"),
        (("fit", "schools", "--engine", "magic"), "engine"),
        (("simulate", "schools", "--out", "x.txt"), "--out"),
        (("simulate", "schools", "--out", "x.csv", "--set", "J=-4"), "J"),
        (("simulate", "schools", "--out", "x.csv", "--set", "Q=4"), "Q"),
        (("code", "0123456789"), "fit"),
        (("fits", "explode"), "action"),
    ],
)
def test_bad_input_is_said_in_one_line(hbm, arguments: tuple[str, ...], said: str) -> None:
    done = hbm(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.sampling
def test_a_fit_agrees_is_kept_and_travels(hbm, tmp_path: Path) -> None:
    out = tmp_path / "fit.nc"
    arguments = ("fit", "schools", "--parameterization", "collapsed", "--draws", "1000", "--tune", "500")
    found = answer(hbm(*arguments, "--out", str(out), "--json"))
    assert found["diagnostics"]["exact"]["agrees"]
    exact = answer(hbm("exact", "schools", "--json"))["parameters"]
    for name, entry in found["parameters"].items():
        assert abs(entry["mean"] - exact[name]["mean"]) < 4 * entry["mcse_mean"], name
    again = answer(hbm(*arguments, "--json"))
    assert again["fit"] == found["fit"]
    assert again["timings"] == found["timings"], "the kept fit was not served"
    listed = answer(hbm("fits", "--json"))["fits"]
    assert [row["state"] for row in listed] == ["done"]
    by_id, by_file = hbm("code", found["fit"][:10]), hbm("code", str(out))
    assert by_id.returncode == by_file.returncode == 0
    assert by_id.stdout == by_file.stdout
    report = answer(hbm("check", str(out), "--json"))["report"]
    assert {"group", "criterion", "threshold", "measured", "verdict", "advice"} <= set(report[0])
    answer(hbm("fits", "delete", found["fit"], "--json"))
    assert answer(hbm("fits", "--json"))["fits"] == []
