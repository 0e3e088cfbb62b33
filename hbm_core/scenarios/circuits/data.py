"""Time courses in the long form: one row per circuit, condition, replicate and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hbm_core.models.circuits import CircuitPopulation, Noise, Pooling, Role
from hbm_core.models.dataset import Dataset, Words
from hbm_core.models.kinetics.program import Experiment
from hbm_core.models.kinetics.rna import CIRCUITS
from hbm_core.scenarios import tables
from hbm_core.scenarios.base import Column, DataProblems, Problem

WORDS = Words("circuit", "circuits", "GFP", "nM")
#: Columns of plasmid concentrations start with this.
PLASMID = "plasmid:"
COLUMNS = (
    Column("circuit", "text", "not empty; a mechanism's name, or with a column mechanism any name"),
    Column("mechanism", "text", "optional: " + ", ".join(CIRCUITS)),
    Column("condition", "text", "not empty"),
    Column("replicate", "text", "optional", ("rep",)),
    Column("time_min", "number", "minutes, at least 0", ("time", "minutes")),
    Column("gfp_nM", "number", "GFP in nM", ("gfp", "value")),
    Column("baseline_min", "number", "optional: readings are differences to the one at this minute"),
)
_OPTIONAL = frozenset({"mechanism", "replicate", "baseline_min"})
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

    Rows at time 0 of readings that are differences to a baseline are 0 by construction: they are left out,
    and a note says how many.

    Raises
    ------
    DataProblems
        Everything wrong, with row and column.
    """
    plasmids = [column for column in map(str, table.columns) if column.strip().lower().startswith(PLASMID)]
    known = [
        Column(PLASMID + column.strip()[len(PLASMID) :], "number", "nM", (column,)) for column in plasmids
    ]
    reader = tables.Reader(table, [*COLUMNS, *known], optional=_OPTIONAL, most_rows=MOST_ROWS)
    circuit, condition = reader.labels("circuit", unique=False), reader.labels("condition", unique=False)
    mechanism = reader.labels("mechanism", unique=False) if "mechanism" in reader else circuit
    replicate = (
        reader.labels("replicate", unique=False) if "replicate" in reader else np.full(len(reader), "1")
    )
    time = reader.numbers("time_min", at_least=0)
    value = reader.numbers("gfp_nM")
    baseline = np.zeros(len(reader))
    if "baseline_min" in reader:
        baseline = reader.numbers("baseline_min", at_least=0)
    doses = {column.name: reader.numbers(column.name, at_least=0) for column in known}
    place = "mechanism" if "mechanism" in reader else "circuit"
    listed = ", ".join(CIRCUITS)
    unknown = np.flatnonzero([kind not in CIRCUITS for kind in mechanism])
    reader.report(place, unknown, lambda p: f"{tables.shown(mechanism[p])} is no mechanism. Known: {listed}.")
    reader.finish()

    columns = {"circuit": circuit, "mechanism": mechanism, "condition": condition, "replicate": replicate}
    found = pd.DataFrame(columns | {"time_min": time, "gfp_nM": value, "baseline_min": baseline} | doses)
    _check(found, reader.rows)
    zero = found["time_min"] == 0
    if zero.all():
        raise DataProblems([Problem(None, "time_min", "has no reading after minute 0.")])
    notes = (
        (f"{int(zero.sum()):,} readings at minute 0 tell nothing and are left out.",) if zero.any() else ()
    )
    kept = found[~zero].sort_values(["circuit", "condition", "replicate", "time_min"], kind="stable")
    return Dataset(name, label, kept.reset_index(drop=True), WORDS, notes=notes)


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
        needed = CIRCUITS[own["mechanism"].iloc[0]].inputs
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
) -> CircuitPopulation:
    """The population of circuits of a canonical table.

    Parameters
    ----------
    table : pandas.DataFrame
        As `read` makes it.
    pooling, noise, roles
        As of `CircuitPopulation`; roles of parameters that no circuit uses are left out.
    order : sequence of str
        Circuits in this order; by name otherwise.
    """
    units = tuple(order) or tuple(sorted(table["circuit"].unique()))
    experiments, labels = [], []
    point, course = np.empty(len(table), dtype=np.int64), np.empty(len(table), dtype=np.int64)
    curves = courses = 0
    for unit in units:
        own = table[table["circuit"] == unit]
        mechanism = CIRCUITS[own["mechanism"].iloc[0]]
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
    value = table["gfp_nM"].to_numpy(dtype=float)
    return CircuitPopulation(
        tuple(experiments), units, tuple(labels), value, point, course, kept, pooling, noise
    )
