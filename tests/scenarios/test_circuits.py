"""Data of circuits: the long form in and out, the simulator's sizes, and the structure made of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hbm_core.errors import InputError
from hbm_core.models.kinetics import lsoda
from hbm_core.models.kinetics.catalogue import MECHANISMS
from hbm_core.models.kinetics.program import Experiment, program
from hbm_core.models.kinetics.solver import curves
from hbm_core.models.prior import Prior
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.circuits import CIRCUITS, built_in
from hbm_core.scenarios.circuits.data import read, structure
from hbm_core.scenarios.circuits.simulator import KNOBS, simulate

ACTIVE = CIRCUITS.model("full").spec(CIRCUITS.dataset("activators")).structure.fitted
DEFAULTS = {knob.name: knob.default for knob in KNOBS}


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
    sd = np.hypot(0.1 * np.maximum(f, 0.1) ** 0.77, simulated.truth["gain"] * f)
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


def test_differences_to_a_baseline_are_read_like_measured_ones() -> None:
    """Labels of circuits and conditions as published; readings are differences to the one at minute 30."""
    courses = [
        ("constitutive", "sfGFP 3 nM", "constitutive", {"gfp": 3}),
        ("sense_star_6", "Se6 5 nM + St6 0 nM", "sense_star", {"sense_gfp": 5}),
        ("sense_star_6", "Se6 5 nM + St6 10 nM", "sense_star", {"sense_gfp": 5, "star": 10}),
        ("toehold_trigger", "To3 5 + Tr3 1", "toehold_trigger", {"toehold_gfp": 5, "trigger": 1}),
    ]
    rows = [
        {"circuit": circuit, "condition": condition, "mechanism": kind, "time_min": str(t), "replicate": r}
        | {"gfp_nM": f"{0.1 * t:.2f}", "baseline_min": "30"}
        | {f"plasmid:{name}": str(amount) for name, amount in given.items()}
        for circuit, condition, kind, given in courses
        for t in range(0, 151, 10)
        for r in ("1", "2", "3")
    ]
    made = structure(read(pd.DataFrame(rows).fillna("0")).table)
    assert made.units == ("constitutive", "sense_star_6", "toehold_trigger")
    assert made.value.size == 4 * 3 * 15
    assert all(experiment.baseline == 30 for experiment in made.experiments)
    assert made.conditions[1] == ("Se6 5 nM + St6 0 nM", "Se6 5 nM + St6 10 nM")
    assert dict(made.experiments[1].conditions[1]) == {"star": 10.0, "sense_gfp": 5.0}


def test_two_solvers_agree_on_every_mechanism() -> None:
    for one in MECHANISMS.values():
        given = tuple({name: dose for name in one.inputs} for dose in (1.0, 8.0))
        for baseline in (0.0, 30.0):
            experiment = Experiment(one, given, np.array([5.0, 20.0, 60.0, 140.0]), baseline)
            constants = {name: one.parameters[name].median for name in one.names}
            slow = lsoda.curves(experiment, constants)
            theta = np.log10([list(constants.values())])
            fast = curves(program([experiment], list(constants)), theta).reshape(slow.shape)
            # Steps of the fast one are chosen for 1e-4 of a curve's maximum.
            assert np.abs(slow - fast).max() < 1e-4 * np.abs(slow).max(), (one.id, baseline)


def test_a_known_calibration_turns_fluorescence_into_amounts() -> None:
    table = _rows(calibration_slope=[2.0] * 3, calibration_offset=[1.0] * 3).rename(
        columns={"gfp_nM": "fluorescence"}
    )
    made = read(table)
    assert made.table["gfp_nM"].tolist() == [2.0, 4.0]
    assert "(reading − 1)/2" in made.notes[0] and made.words.unit == "nM"
    differences = read(table.assign(baseline_min=30.0))
    assert differences.table["gfp_nM"].tolist() == [2.5, 4.5]


def _standards(**changes) -> pd.DataFrame:
    """As a person writes it: standards have no condition, time or plasmids, other rows no amount."""
    table = _rows().astype(str).rename(columns={"gfp_nM": "fluorescence"}).assign(standard_nM="")
    more = {"circuit": ["Standard"] * 3, "standard_nM": ["0", "10", "100"]}
    more |= {"fluorescence": ["1", "21.5", "200"]} | changes
    return pd.concat([table, pd.DataFrame(more)], ignore_index=True).fillna("")


def test_standards_are_fitted_with_everything_else() -> None:
    made = read(_standards())
    assert made.words.outcome == "Fluorescence"
    assert read(made.table.astype(str)).digest == made.digest
    spec = CIRCUITS.model("full").spec(made)
    np.testing.assert_array_equal(spec.structure.standards, [[0, 1], [10, 21.5], [100, 200]])
    assert spec.structure.value.tolist() == [5, 9]
    # The line's slope is 1.98: the prior sits there, a factor of e either way being one sd.
    middle, width = spec.priors["slope"].numbers
    assert np.exp(middle) == pytest.approx(1.98, rel=0.02) and width == 1
    assert {"slope", "offset", "reading_sd"} <= set(spec.structure.hyperparameters)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (_rows().rename(columns={"gfp_nM": "fluorescence"}), "needs a calibration"),
        (_rows(fluorescence=1.0), "beside gfp_nM"),
        (_standards(standard_nM=["5", "5", "5"]), "two amounts"),
        (_standards(standard_nM=["0", "x", "100"]), "not a number"),
        (_standards().assign(baseline_min="30"), "cannot be used for differences"),
        (_standards().assign(calibration_slope="2"), "cannot both hold"),
        (
            _rows(calibration_slope=[1.0, 2.0, 1.0]).rename(columns={"gfp_nM": "fluorescence"}),
            "not the same in all rows",
        ),
        (_rows().drop(columns="gfp_nM"), "so is fluorescence"),
    ],
)
def test_calibrations_that_cannot_be_are_refused(table: pd.DataFrame, words: str) -> None:
    with pytest.raises(DataProblems) as found:
        read(table)
    assert any(words in problem.message for problem in found.value.problems), found.value.problems


def test_roles_are_constants_of_a_study() -> None:
    model, data = CIRCUITS.model("inverse_wishart"), CIRCUITS.dataset("activators")
    usual = model.spec(data)
    assert usual.constants["role[k_star_unbind]"] == 2 and usual.constants["role[k_mat]"] == 0
    size = len(usual.structure.fitted)
    assert usual.constants["nu"] == size + 1
    moved = model.spec(data, constants={"role[k_mat]": 1, "role[k_tl]": 2})
    assert moved.structure.common == ("k_mat",) and "k_tl" in moved.structure.fixed
    assert moved.constants["nu"] == size - 1
    assert "alpha[k_tl]" not in moved.priors and "alpha[k_mat]" in moved.priors
    assert model.spec(data, constants={"role[k_mat]": 1, "role[k_tl]": 2}).structure is moved.structure


@pytest.mark.parametrize(
    ("constants", "priors", "words"),
    [
        ({"role[k_mat]": 3}, {}, "0 .fitted., 1 .shared. or 2"),
        ({"role[nothing]": 1}, {}, "one of role"),
        ({"floor": 0}, {}, "above 0"),
        ({"nu": 2}, {}, "above 14"),
        ({"role[k_mat]": 2}, {"alpha[k_mat]": Prior("Normal", (0, 1))}, "fixed"),
        ({}, {"alpha[k_mat]": Prior("HalfNormal", (1,))}, "Normal"),
        ({f"role[{name}]": 1 for name in ACTIVE}, {}, "at least one fitted"),
    ],
)
def test_what_a_study_cannot_mean_is_refused(constants: dict, priors: dict, words: str) -> None:
    model = CIRCUITS.model("inverse_wishart")
    with pytest.raises(InputError, match=words):
        model.spec(CIRCUITS.dataset("activators"), priors, constants)


def test_first_look_finds_the_noise_of_the_simulator() -> None:
    """Gains of 0.1 alone: sd proportional to the mean, and the same distance at every time."""
    made = simulate(2, DEFAULTS | {"noise": 0.001, "gain": 0.1, "spread": 0.0})
    look = CIRCUITS.first_look(made).set_index("quantity")["value"]
    assert look["noise_power"] == pytest.approx(1, abs=0.05)
    assert look["autocorrelation"] > 0.95
    last = made.table[made.table["time_min"] == 180]
    own = last[last["circuit"] == "toehold_trigger"].groupby("condition")["gfp_nM"].mean()
    assert look["range[toehold_trigger]"] == pytest.approx(own["trigger 5 nM"] / own["trigger 0 nM"])
    assert look["final[toehold_trigger]"] == pytest.approx(own["trigger 5 nM"])


def test_plasmids_may_stand_in_a_second_table() -> None:
    whole = CIRCUITS.dataset("activators").table.astype(str)
    plasmids = [name for name in whole if name.startswith("plasmid:")]
    second = whole.drop_duplicates(["circuit", "condition"])[["circuit", "condition", *plasmids]]
    # As people write it: without the prefix, nothing where there is none.
    second = second.rename(columns=lambda name: name.removeprefix("plasmid:")).replace("0.0", "")
    made = read(CIRCUITS.joined(whole.drop(columns=plasmids), second))
    assert made.digest == CIRCUITS.dataset("activators").digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda second: second.iloc[1:], "is not in the second table"),
        (lambda second: pd.concat([second, second.iloc[:1]]), "already in an earlier row"),
        (lambda second: second.rename(columns={"condition": "what"}), "both tables need it"),
    ],
)
def test_second_tables_that_do_not_fit_are_refused(change, words: str) -> None:
    whole = CIRCUITS.dataset("activators").table
    second = whole.drop_duplicates(["circuit", "condition"])[["circuit", "condition", "plasmid:gfp"]]
    with pytest.raises(DataProblems, match=words):
        CIRCUITS.joined(whole, change(second))


def test_measured_courses_are_read_with_their_table_of_plasmids() -> None:
    """Differences to minute 30: the rows at time 0 are left out, and said to be."""
    folder = Path(__file__).parents[1] / "data" / "rna"
    courses, plasmids = (
        pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        for name in ("txtl_time_courses", "plasmids")
    )
    made = structure(CIRCUITS.read(CIRCUITS.joined(courses, plasmids)).table)
    assert made.units == ("constitutive", "sense_star_6", "toehold_trigger")
    assert [one.mechanism.id for one in made.experiments] == ["constitutive", "sense_star", "toehold_trigger"]
    assert [one.baseline for one in made.experiments] == [30.0] * 3
    assert sum(len(labels) for labels in made.conditions) == 12
    assert made.value.size == len(courses) - 12 * 3
    assert made.value.max() == 3021.59
    doses = sorted(given.get("star", 0.0) for given in made.experiments[1].conditions)
    assert doses == [0.0, 3.0, 5.0, 10.0, 15.0]
