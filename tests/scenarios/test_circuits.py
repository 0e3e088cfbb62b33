"""Data of circuits: the long form in and out, the simulator's sizes, and the structure made of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hbm_core.models.kinetics.solver import curves
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.circuits import CIRCUITS, built_in
from hbm_core.scenarios.circuits.data import read, structure
from hbm_core.scenarios.circuits.simulator import KNOBS, simulate

DEFAULTS = {knob.name: knob.default for knob in KNOBS}
MEASURED = Path(__file__).parents[3] / "shared" / "data" / "rna" / "txtl_time_courses.csv"


@pytest.fixture(scope="module")
def simulated():
    return simulate(1, DEFAULTS | {"spread": 0.0})


@pytest.mark.parametrize(
    "circuit, condition, measured",
    [
        ("constitutive", "gfp 3 nM", 2650),
        ("toehold_trigger", "trigger 0 nM", 16),
        ("toehold_trigger", "trigger 5 nM", 121),
        ("sense_star", "star 0 nM", 30),
        ("sense_star", "star 5 nM", 55),
        ("sense_star", "star 15 nM", 73),
        ("cascade", "star 0 nM", 41),
        ("cascade", "star 15 nM", 104),
        ("coherent_ffl", "star 0 nM", 7),
        ("coherent_ffl", "star 15 nM", 35),
    ],
)
def test_simulated_finals_have_the_measured_sizes(simulated, circuit, condition, measured) -> None:
    last = simulated.table[simulated.table["time_min"] == 180]
    own = last[(last["circuit"] == circuit) & (last["condition"] == condition)]
    assert own["gfp_nM"].mean() == pytest.approx(measured, rel=0.2)


def test_a_table_reads_back_as_it_was_written(simulated) -> None:
    again = read(pd.read_csv(pd.io.common.StringIO(simulated.table.to_csv(index=False)), dtype=str))
    pd.testing.assert_frame_equal(again.table, simulated.table, check_dtype=False)


def test_points_and_courses_of_the_structure(simulated) -> None:
    """At the truth, readings lie around the curves at their points, course by course."""
    made = structure(simulated.table)
    theta = np.array([[made.declared[name].center for name in made.columns]] * len(made.units))
    for place, name in enumerate(made.columns):
        if f"alpha[{name}]" in simulated.truth:
            theta[:, place] = simulated.truth[f"alpha[{name}]"]
    f = curves(made.tables, theta)[made.point]
    sd = np.hypot(0.1 * np.maximum(f, 0.1) ** 0.77, 0.04 * f)
    assert np.abs((made.value - f) / sd).max() < 5
    assert np.bincount(made.course).tolist() == [18] * (made.course.max() + 1)
    assert len(made.fitted) == 16


def test_presets_change_the_medians_alone(simulated) -> None:
    model, presets = CIRCUITS.model("full"), {preset.id: preset for preset in CIRCUITS.presets}
    default = model.spec(simulated).priors
    published, txtl = (
        model.spec(simulated, presets[id].priors(simulated)).priors for id in ("published", "txtl")
    )
    assert published == default
    changed = {name for name in published if published[name] != txtl[name]}
    assert changed == {"alpha[k_tl_unbound_toehold]", "alpha[k_tl_bound_toehold]"}
    assert txtl["alpha[k_tl_bound_toehold]"].text == "Normal(-3.30103, 0.75)"


@pytest.mark.parametrize("name", built_in.SETS)
def test_shipped_tables_are_those_of_the_simulator(name: str) -> None:
    """Up to the last digit, in which solvers on other machines may differ."""
    kept, made = built_in.dataset(name), simulate(built_in.SEED, built_in.knobs(name))
    assert dict(kept.truth) == dict(made.truth)
    numbers = made.table.select_dtypes("number").columns
    pd.testing.assert_frame_equal(kept.table.drop(columns=numbers), made.table.drop(columns=numbers))
    np.testing.assert_allclose(kept.table[numbers], made.table[numbers], rtol=3e-5, atol=1e-9)


def test_simulated_parameters_have_the_spread_and_correlation_of_the_knobs() -> None:
    knobs = DEFAULTS | {"spread": 0.5, "correlation": 0.6}
    drawn = np.array([list(built_in.population(seed, knobs)[0].values()) for seed in range(400)])
    z = (drawn - drawn.mean(axis=(0, 1))) / 0.5
    moving = z[..., z.std(axis=(0, 1)) > 0].reshape(-1, 16)
    # 2,400 circuits: sds of a correlation 0.013, of an sd 0.014.
    assert np.abs(moving.std(axis=0) - 1).max() < 0.06
    assert np.abs(np.corrcoef(moving.T)[np.tril_indices(16, -1)] - 0.6).max() < 0.065


def _rows(**changes) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "circuit": ["constitutive"] * 3,
            "condition": ["a"] * 3,
            "time_min": [0, 10, 20],
            "gfp_nM": [0.0, 5.0, 9.0],
            "plasmid:gfp": [3.0] * 3,
        }
    )
    return table.assign(**changes)


def test_readings_at_minute_0_are_left_out() -> None:
    made = read(_rows())
    assert made.table["time_min"].tolist() == [10, 20]
    assert "1 readings at minute 0" in made.notes[0]


@pytest.mark.parametrize(
    "table, words",
    [
        (_rows(circuit=["constitutive", "unheard", "constitutive"]), "no mechanism"),
        (_rows(time_min=[10, 10, 20]), "earlier row"),
        (_rows(**{"plasmid:gfp": [3.0, 4.0, 3.0]}), "not the same"),
        (_rows(**{"plasmid:gfp": [3.0, -4.0, 3.0]}), "at least 0"),
        (_rows().drop(columns="plasmid:gfp"), "needs it"),
        (_rows(time_min=[0, 0, 0], condition=["a", "b", "c"]), "no reading after"),
    ],
)
def test_bad_tables_are_refused_with_their_place(table: pd.DataFrame, words: str) -> None:
    with pytest.raises(DataProblems) as found:
        read(table)
    assert any(words in problem.message for problem in found.value.problems)


def test_measured_courses_are_differences_to_minute_30() -> None:
    if not MEASURED.exists():
        pytest.skip("the measured time courses are not beside this clone")
    table = pd.read_csv(MEASURED, dtype=str)
    text = table["condition"]
    kinds = {
        "constitutive": "constitutive",
        "sense_star_6": "sense_star",
        "toehold_trigger": "toehold_trigger",
    }
    table["mechanism"], table["baseline_min"] = table["circuit"].map(kinds), "30"
    patterns = {"gfp": r"sfGFP (\d+)", "sense_gfp": r"Se6 (\d+)", "star": r"St6 (\d+)"}
    patterns |= {"toehold_gfp": r"To3 (\d+)", "trigger": r"Tr3 (\d+)"}
    for plasmid, pattern in patterns.items():
        table[f"plasmid:{plasmid}"] = text.str.extract(pattern)[0].fillna("0")
    made = structure(read(table).table)
    assert made.units == ("constitutive", "sense_star_6", "toehold_trigger")
    assert made.value.size == 684 - 36
    assert all(experiment.baseline == 30 for experiment in made.experiments)
