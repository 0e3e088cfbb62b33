"""Time courses in the long form: one row per circuit, condition, replicate and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hbm_core.models.circuits import CircuitPopulation, Noise, Pooling, Role
from hbm_core.models.dataset import Dataset, Words
from hbm_core.models.kinetics.catalogue import MECHANISMS
from hbm_core.models.kinetics.mechanism import Mechanism
from hbm_core.models.kinetics.program import Experiment
from hbm_core.scenarios import tables
from hbm_core.scenarios.base import Column, DataProblems, Problem

WORDS = Words("circuit", "circuits", "GFP", "nM")
#: Columns of plasmid concentrations start with this.
PLASMID = "plasmid:"
#: Rows of this name are standards of a calibration: known amounts and their readings.
STANDARD = "standard"
#: Every plasmid that a mechanism asks for, in the order of the mechanisms.
PLASMIDS = tuple(dict.fromkeys(name for one in MECHANISMS.values() for name in one.inputs))
COLUMNS = (
    Column("circuit", "text", "not empty; a mechanism's name, or with a column mechanism any name"),
    Column("mechanism", "text", "optional: " + ", ".join(MECHANISMS)),
    Column("condition", "text", "not empty"),
    Column("replicate", "text", "optional", ("rep",)),
    Column("time_min", "number", "minutes, at least 0", ("time", "minutes")),
    Column("gfp_nM", "number", "GFP in nM; or fluorescence with a calibration", ("gfp", "value")),
    Column("fluorescence", "number", "as read; needs a calibration", ("rfu", "au")),
    Column("standard_nM", "number", f"amount in rows whose circuit is {STANDARD}", ("amount_nM",)),
    Column("calibration_slope", "number", "fluorescence per nM, where known; the same in all rows"),
    Column("calibration_offset", "number", "fluorescence at 0 nM, where known; the same in all rows"),
    Column("baseline_min", "number", "optional: readings are differences to the one at this minute"),
    *(
        Column(PLASMID + name, "number", "nM; needed by circuits that have it", (f"input:{name}",))
        for name in PLASMIDS
    ),
)
_NEEDED = frozenset({"circuit", "condition", "time_min"})
MOST_ROWS = 100_000
#: Parameters that readings of GFP cannot tell from others: kept at their medians.
ROLES: Mapping[str, Role] = {
    "k_csy4": "fixed",
    "k_star_unbind": "fixed",
    "k_trigger_unbinding": "fixed",
    "k_sequestration_unbind": "fixed",
}


def read(table: pd.DataFrame, name: str = "upload", label: str = "Your data") -> Dataset:
    """A table in the long form, brought into canonical form.

    Readings are ``gfp_nM``, or ``fluorescence`` with a calibration: ``calibration_slope`` and
    ``calibration_offset`` turn them into nM at once; with at least three rows of circuit "standard", each
    with its ``standard_nM``, they stay as read, and slope and offset are fitted with everything else. Rows at
    time 0 tell nothing (differences to a baseline are 0 there by construction): they are left out, and a note
    says how many.

    Raises
    ------
    DataProblems
        Everything wrong, with row and column.
    """
    table = _filled(table)
    optional = frozenset(column.name for column in COLUMNS) - _NEEDED
    reader = tables.Reader(table, COLUMNS, optional=optional, most_rows=MOST_ROWS, partly=True)
    circuit, condition = reader.labels("circuit", unique=False), reader.labels("condition", unique=False)
    mechanism = reader.labels("mechanism", unique=False) if "mechanism" in reader else circuit
    replicate = (
        reader.labels("replicate", unique=False) if "replicate" in reader else np.full(len(reader), "1")
    )
    standard = np.array([text.lower() == STANDARD for text in circuit], dtype=bool)
    readings = _readings(reader, standard)
    time = reader.numbers("time_min", at_least=0)
    baseline = np.zeros(len(reader))
    if "baseline_min" in reader:
        baseline = reader.numbers("baseline_min", at_least=0)
    given = [PLASMID + plasmid for plasmid in PLASMIDS if PLASMID + plasmid in reader]
    doses = {column: reader.numbers(column, at_least=0) for column in given}
    place = "mechanism" if "mechanism" in reader else "circuit"
    listed = ", ".join(MECHANISMS)
    unknown = np.flatnonzero([kind not in MECHANISMS for kind in mechanism] & ~standard)
    reader.report(place, unknown, lambda p: f"{tables.shown(mechanism[p])} is no mechanism. Known: {listed}.")
    if not standard.all() and readings.fitted and (baseline[~standard] > 0).any():
        text = "standards cannot be used for differences to a baseline: give calibration_slope alone."
        reader.problems.append(Problem(None, "fluorescence", text))
    reader.finish()

    columns = {"circuit": np.where(standard, STANDARD, circuit), "mechanism": mechanism}
    columns |= {"condition": condition, "replicate": replicate, "time_min": time}
    columns |= dict(readings.columns) | {"baseline_min": baseline} | doses
    found = pd.DataFrame(columns)
    _check(found[~standard], reader.rows[~standard])
    zero = (found["time_min"] == 0) & ~standard
    if (zero | standard).all():
        raise DataProblems([Problem(None, "time_min", "has no reading after minute 0.")])
    notes = readings.notes
    if zero.any():
        notes += (f"{int(zero.sum()):,} readings at minute 0 tell nothing and are left out.",)
    order = ["circuit", "condition", "replicate", "time_min"]
    order += ["standard_nM"] if readings.fitted else []
    kept = found[~zero].sort_values(order, kind="stable")
    words = Words(WORDS.one, WORDS.many, "Fluorescence", "as read") if readings.fitted else _words(kept)
    return Dataset(name, label, kept.reset_index(drop=True), words, notes=notes)


def with_conditions(table: pd.DataFrame, conditions: pd.DataFrame) -> pd.DataFrame:
    """Time courses with columns of plasmids from a second table, condition → concentrations.

    Parameters
    ----------
    table : pandas.DataFrame
        Raw, with the columns ``circuit`` and ``condition``.
    conditions : pandas.DataFrame
        Raw: ``condition``, ``circuit`` too where a label means different things in different circuits, and a
        column per plasmid, named with or without ``plasmid:``; a blank is 0. Other columns, such as
        ``mechanism`` and ``baseline_min``, are taken over as they are.

    Raises
    ------
    DataProblems
        No column condition; a condition that is there twice; rows whose condition is not there.
    """
    names = {tables.canonical_name(name): name for name in conditions.columns}
    keys = [key for key in ("circuit", "condition") if key in names]
    if "condition" not in keys or not {"circuit", "condition"} <= set(table.columns):
        text = "is missing: both tables need it, to tell which row of one belongs to which of the other."
        raise DataProblems([Problem(None, "condition", text)])
    second = conditions.rename(columns={names[key]: key for key in keys})
    known = {tables.canonical_name(name): PLASMID + name for name in PLASMIDS}
    second = second.rename(
        columns={name: known[key] for name in second if (key := tables.canonical_name(name)) in known}
    )
    for key in keys:
        second[key] = second[key].astype(str).str.strip()
    problems = [
        Problem(int(at) + 1, "condition", "of the second table is there already in an earlier row.")
        for at in np.flatnonzero(second.duplicated(keys))
    ]
    doses = [column for column in map(str, second) if column.startswith(PLASMID)]
    blank = second[doses].isna() | (second[doses].astype(str).apply(lambda column: column.str.strip()) == "")
    second[doses] = second[doses].astype(object).mask(blank, "0")
    first = table.drop(columns=[column for column in second if column in table and column not in keys])
    for key in keys:
        first[key] = first[key].astype(str).str.strip()
    found = first.merge(second.drop_duplicates(keys), on=keys, how="left", indicator="_in")
    standard = found["circuit"].str.lower() == STANDARD
    absent = np.flatnonzero((found["_in"] == "left_only") & ~standard)
    problems += [
        Problem(
            int(at) + 1,
            "condition",
            f"{tables.shown(found['condition'].iloc[at])} is not in the second table.",
        )
        for at in absent[: tables.MOST_PROBLEMS]
    ]
    if problems:
        raise DataProblems(problems)
    return found.drop(columns="_in")


def _words(table: pd.DataFrame) -> Words:
    """Words of readings: of GFP, or of what mechanisms from elsewhere are read by."""
    kinds = [MECHANISMS[name] for name in table["mechanism"].unique()]
    read = {(one.observed, one.unit) for one in kinds}
    if read == {("gfp", WORDS.unit)} or len(read) > 1:
        return WORDS
    observed, unit = read.pop()
    return Words("unit", "units", observed.capitalize(), unit)


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of standards have neither condition nor time nor plasmids, and other rows no amount: filled in."""
    names = {tables.canonical_name(name): name for name in table.columns}
    circuit, amount = names.get("circuit"), names.get("standard_nm", names.get("amount_nm"))
    if circuit is None or amount is None:
        return table
    here = table[circuit].astype(str).str.strip().str.lower() == STANDARD
    filled = table.copy()
    for column in table.columns:
        if column == circuit:
            continue
        key = tables.canonical_name(column)
        blank = table[column].isna() | (table[column].astype(str).str.strip() == "")
        text = STANDARD if key in ("condition", "mechanism") else "1" if key in ("replicate", "rep") else "0"
        rows = blank & (~here if column == amount else here & (key not in ("fluorescence", "rfu", "au")))
        if rows.any():
            filled[column] = table[column].astype(object).where(~rows, text)
    return filled


@dataclass(frozen=True, eq=False)
class _Readings:
    """Columns of readings, whether a calibration is to be fitted to standards, and what is to be said."""

    columns: Mapping[str, np.ndarray]
    fitted: bool = False
    notes: tuple[str, ...] = ()


def _readings(reader: tables.Reader, standard: np.ndarray) -> _Readings:
    """Readings in nM, or as read with the amounts of the standards; problems go to the reader."""
    if "fluorescence" not in reader:
        value = reader.numbers("gfp_nM")
        if "gfp_nM" not in reader:
            text = "is missing (number, GFP in nM), and so is fluorescence."
            reader.problems.append(Problem(None, "gfp_nM", text))
        if standard.any():
            text = "standards calibrate the column fluorescence, which is missing."
            reader.report("circuit", np.flatnonzero(standard), text)
        return _Readings({"gfp_nM": value})
    value = reader.numbers("fluorescence")
    if "gfp_nM" in reader:
        reader.problems.append(Problem(None, "fluorescence", "is there beside gfp_nM: give one of them."))
    if "calibration_slope" in reader:
        slope = reader.numbers("calibration_slope", above=0)
        offset = np.zeros(len(reader))
        if "calibration_offset" in reader:
            offset = reader.numbers("calibration_offset")
        for name, column in (("calibration_slope", slope), ("calibration_offset", offset)):
            differs = np.flatnonzero(np.isfinite(column) & (column != column[:1]))
            reader.report(name, differs, "is not the same in all rows: one calibration holds for all.")
        if standard.any():
            text = "a known slope and standards cannot both hold: leave one of them out."
            reader.report("circuit", np.flatnonzero(standard), text)
        said = f"Fluorescence was turned into nM by (reading − {offset[0]:g})/{slope[0]:g}."
        # Differences to a baseline have lost their offset already.
        if "baseline_min" in reader and (reader.numbers("baseline_min") > 0).all():
            offset, said = (
                0 * offset,
                f"Differences of fluorescence were turned into nM by dividing by {slope[0]:g}.",
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return _Readings({"gfp_nM": (value - offset) / slope}, notes=(said,))
    if standard.sum() < 3 or "standard_nM" not in reader:
        text = (
            "needs a calibration: at least three rows whose circuit is standard, each with its standard_nM; "
            "or the columns calibration_slope and calibration_offset."
        )
        reader.problems.append(Problem(None, "fluorescence", text))
        return _Readings({"fluorescence": value})
    amount = reader.numbers("standard_nM", at_least=0)
    if np.ptp(amount[standard]) == 0:
        text = "is the same for all standards: a slope needs two amounts at least."
        reader.problems.append(Problem(None, "standard_nM", text))
    return _Readings({"fluorescence": value, "standard_nM": np.where(standard, amount, 0.0)}, fitted=True)


def _check(table: pd.DataFrame, rows: np.ndarray) -> None:
    """Refuse readings that are there twice, and what changes within a circuit or a condition."""
    problems = []
    again = table.duplicated(["circuit", "condition", "replicate", "time_min"])
    for at in np.flatnonzero(again)[: tables.MOST_PROBLEMS]:
        text = "this circuit, condition, replicate and time are in an earlier row."
        problems.append(Problem(int(rows[at]), "time_min", text))
    doses = [column for column in map(str, table.columns) if column.startswith(PLASMID)]
    for keys, columns in ((["circuit"], ["mechanism", "baseline_min"]), (["circuit", "condition"], doses)):
        for column in columns:
            changed = table[column] != table.groupby(keys)[column].transform("first")
            for at in np.flatnonzero(changed)[: tables.MOST_PROBLEMS]:
                problems.append(
                    Problem(int(rows[at]), column, f"is not the same in all rows of a {keys[-1]}.")
                )
    for circuit, own in table.groupby("circuit", sort=True):
        needed = MECHANISMS[own["mechanism"].iloc[0]].inputs
        for plasmid in needed:
            if PLASMID + plasmid not in table:
                text = f"is missing: circuit {tables.shown(circuit)} needs it (0 where there is none)."
                problems.append(Problem(None, PLASMID + plasmid, text))
    if problems:
        raise DataProblems(problems)


def structure(
    table: pd.DataFrame,
    pooling: Pooling = "full",
    noise: Noise = "power",
    roles: Mapping[str, Role] = ROLES,
    order: Sequence[str] = (),
    covariance: Literal["lkj", "inverse_wishart"] = "lkj",
    mechanisms: Mapping[str, Mechanism] = MECHANISMS,
) -> CircuitPopulation:
    """The population of circuits of a canonical table.

    Parameters
    ----------
    table : pandas.DataFrame
        As `read` makes it.
    pooling, noise, roles, covariance
        As of `CircuitPopulation`; roles of parameters that no circuit uses are left out.
    order : sequence of str
        Circuits in this order; by name otherwise.
    mechanisms : mapping of str to Mechanism
        By the names in the table's column ``mechanism``.
    """
    standards = np.empty((0, 2))
    if "standard_nM" in table:
        here = (table["circuit"] == STANDARD).to_numpy()
        standards = table.loc[here, ["standard_nM", "fluorescence"]].to_numpy(dtype=float)
        table = table[~here].reset_index(drop=True)
    units = tuple(order) or tuple(sorted(table["circuit"].unique()))
    experiments, labels = [], []
    point, course = np.empty(len(table), dtype=np.int64), np.empty(len(table), dtype=np.int64)
    curves = courses = 0
    for unit in units:
        own = table[table["circuit"] == unit]
        mechanism = mechanisms[own["mechanism"].iloc[0]]
        times = np.unique(own["time_min"].to_numpy(dtype=float))
        conditions = tuple(dict.fromkeys(own["condition"]))
        inputs = []
        for place, condition in enumerate(conditions):
            rows = own[own["condition"] == condition]
            first = rows.iloc[0]
            inputs.append({plasmid: float(first[PLASMID + plasmid]) for plasmid in mechanism.inputs})
            at = table.index.get_indexer(rows.index)
            point[at] = curves + place * times.size + np.searchsorted(times, rows["time_min"])
            replicates = list(dict.fromkeys(rows["replicate"]))
            course[at] = courses + rows["replicate"].map(replicates.index).to_numpy()
            courses += len(replicates)
        baseline = float(own["baseline_min"].iloc[0])
        experiments.append(Experiment(mechanism, tuple(inputs), times, baseline))
        labels.append(conditions)
        curves += experiments[-1].size
    used = {name for experiment in experiments for name in experiment.mechanism.names}
    kept = {name: role for name, role in roles.items() if name in used}
    value = table["fluorescence" if standards.size else "gfp_nM"].to_numpy(dtype=float)
    return CircuitPopulation(
        tuple(experiments),
        units,
        tuple(labels),
        value,
        point,
        course,
        kept,
        pooling,
        noise,
        covariance,
        standards,
    )
