"""``hbm coverage`` and ``hbm sbc``: the contract of their JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hbm_core.cli import main
from tests.test_cli import Done, answer

MEASURES = ("mse", "rmse", "mae", "bias", "coverage", "width", "interval_score")


@pytest.fixture
def hbm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in this process: what it prints, and its exit code."""
    monkeypatch.setenv("HBM_STORE", str(tmp_path / "store"))

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["hbm", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return Done(int(stop.value.code or 0), *capfd.readouterr())

    return run


def test_coverage_is_a_list_of_rows_with_standard_errors(hbm) -> None:
    found = answer(hbm("coverage", "schools", "--replications", "400", "--json"))
    rows = found["rows"]
    assert {row["estimator"] for row in rows} == {"none", "complete", "eb", "partial"}
    assert {row["level"] for row in rows} == {0.5, 0.8, 0.9, 0.95}
    for row in rows:
        assert row["replications"] == 400
        assert {"bin", *MEASURES, *(f"{name}_se" for name in MEASURES)} <= set(row)
    all_units = [row for row in rows if row["bin"] == "all" and row["level"] == 0.95]
    partial = next(row for row in all_units if row["estimator"] == "partial")
    assert abs(partial["coverage"] - 0.95) < 4 * partial["coverage_se"]
    # under a half-Cauchy the mean squared error of complete pooling does not exist
    assert next(row for row in all_units if row["estimator"] == "complete")["mse"] is None


def test_fixed_tau_gives_the_published_figure(hbm) -> None:
    arguments = ("--model", "skeptical", "--tau", "20", "--replications", "1500", "--json")
    rows = answer(hbm("coverage", "schools", *arguments))["rows"]
    chosen = {"estimator": "partial", "bin": "all", "level": 0.95, "tau": 20.0}
    row = next(row for row in rows if all(row[name] == value for name, value in chosen.items()))
    assert 100 * row["coverage"] == pytest.approx(78.5, abs=1.5)


def test_sbc_gives_a_verdict(hbm) -> None:
    found = answer(hbm("sbc", "schools", "--model", "skeptical", "--replications", "60", "--json"))
    assert found["passed"] is True
    assert found["replications"] == 60
    assert 0 < found["statistic"] <= found["threshold"]
    assert found["timings"]["total"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("coverage", "schools", "--replications", "1"),
        ("coverage", "schools", "--model", "complete"),
        ("coverage", "schools", "--tau=-3"),
        ("sbc", "schools", "--replications", "2"),
        ("sbc", "schools", "--prior", "tau=Flat()"),
        ("sbc", "schools", "--engine", "guess"),
    ],
)
def test_nonsense_is_one_line_and_exit_2(hbm, arguments: tuple[str, ...]) -> None:
    done = hbm(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
