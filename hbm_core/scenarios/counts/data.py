"""Counts of entities, and successes of trials: canonical tables, built-in data, structures of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.dataset import Dataset, Words
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.scenarios import tables
from hbm_core.scenarios.base import Column, Problem

_ENTITY = Column(
    "entity", "text", "not empty", ("host", "user", "shop", "machine", "unit", "name", "label", "id")
)
COUNT_COLUMNS = (
    _ENTITY,
    Column("count", "number", "whole, from 0", ("y", "events", "counts", "n_events", "failures")),
)
WINDOW = Column("window", "text", "the order of an entity's windows", ("period", "visit", "day", "week"))
EXPOSURE = Column("exposure", "number", "above 0", ("e", "hours", "time", "duration"))
BYTES = Column("bytes", "number", "above 0", ("size", "volume"))
TRIAL_COLUMNS = (
    _ENTITY,
    Column("successes", "number", "whole, from 0 to the trials", ("hits", "conversions", "wins")),
    Column("trials", "number", "whole, from 1", ("attempts", "at_bats", "visitors")),
)
COLUMNS = (*COUNT_COLUMNS, WINDOW, EXPOSURE, BYTES, *TRIAL_COLUMNS[1:])
#: Above this, a page no longer answers in reasonable time.
MOST_ROWS = 2_000_000

COUNT_WORDS = Words("entity", "entities", "Rate", "events per window")
EXPOSED_WORDS = Words("entity", "entities", "Rate", "events per unit of exposure")
TRIAL_WORDS = Words("entity", "entities", "Success rate", "")
PUMP_WORDS = Words(
    "pump",
    "pumps",
    "Failure rate",
    "failures per 1,000 hours",
    "Of ten pumps of a power plant, {unit} failed {raw} times in 1,000 hours taken on its own, and {pooled} "
    "times in the company of the other nine.",
)
BATTING_WORDS = Words(
    "player",
    "players",
    "Batting average",
    "",
    "Of 18 players after their first 45 at bats, {unit} hits at {raw} taken on his own, and at {pooled} in "
    "the company of the other 17.",
)

#: Failures and thousands of hours of pumps 1 to 10.
_PUMPS = (
    (5, 94.32),
    (1, 15.72),
    (5, 62.88),
    (14, 125.76),
    (3, 5.24),
    (19, 31.44),
    (1, 1.048),
    (1, 1.048),
    (4, 2.096),
    (22, 10.48),
)
#: Player, hits in the first 45 at bats, batting average over the rest of the season.
_BATTING = (
    ("Clemente", 18, 0.346),
    ("F. Robinson", 17, 0.298),
    ("F. Howard", 16, 0.276),
    ("Johnstone", 15, 0.222),
    ("Berry", 14, 0.273),
    ("Spencer", 14, 0.270),
    ("Kessinger", 13, 0.263),
    ("L. Alvarado", 12, 0.210),
    ("Santo", 11, 0.269),
    ("Swoboda", 11, 0.230),
    ("Unser", 10, 0.264),
    ("Williams", 10, 0.256),
    ("Scott", 10, 0.303),
    ("Petrocelli", 10, 0.264),
    ("E. Rodriguez", 10, 0.226),
    ("Campaneris", 9, 0.286),
    ("Munson", 8, 0.316),
    ("Alvis", 7, 0.200),
)


def pumps() -> Dataset:
    """Failures of ten pumps of a nuclear power plant, observed for 1,000 to 126,000 hours.

    References
    ----------
    Gaver & O'Muircheartaigh (1987), Robust empirical Bayes analyses of event rates, Technometrics 29(1),
    1–15, table 3; George, Makov & Smith (1993), Conjugate likelihood distributions, Scand. J. Stat. 20(2),
    147–156.
    """
    count, hours = np.array(_PUMPS).T
    units = [f"Pump {place}" for place in range(1, len(_PUMPS) + 1)]
    table = pd.DataFrame({"entity": units, "count": count.astype(np.int64), "exposure": hours})
    return Dataset("pumps", "Ten pumps (Gaver 1987)", table, PUMP_WORDS, "Gaver & O'Muircheartaigh (1987)")


def batting() -> Dataset:
    """Hits of 18 players in their first 45 at bats of 1970, with the average over the rest of the season.

    References
    ----------
    Efron & Morris (1975), Data analysis using Stein's estimator and its generalizations, JASA 70(350),
    311–319, table 1.
    """
    names, hits, rest = zip(*_BATTING, strict=True)
    table = pd.DataFrame(
        {
            "entity": names,
            "successes": np.array(hits, dtype=np.int64),
            "trials": np.full(len(names), 45, dtype=np.int64),
            "rest_of_season": rest,
        }
    )
    return Dataset(
        "batting",
        "Batting averages (Efron & Morris 1975)",
        table,
        BATTING_WORDS,
        "Efron & Morris (1975), table 1",
    )


BUILT_IN: Mapping[str, Callable[[], Dataset]] = MappingProxyType({"pumps": pumps, "batting": batting})


def has_trials(table: pd.DataFrame) -> bool:
    """Whether a canonical table holds successes of trials rather than counts."""
    return "count" not in table.columns


def read(table: pd.DataFrame) -> pd.DataFrame:
    """Bring a table into canonical form.

    Counts: ``entity``, ``window`` where known, ``count``, ``exposure`` and ``bytes`` where known, then every
    other column; entities in the order of their first row, each one's windows in their order. Successes:
    ``entity``, ``successes``, ``trials``, then every other column.

    Raises
    ------
    DataProblems
        Everything wrong, with row and column.
    """
    names = {tables.canonical_name(name) for name in table.columns}

    def known(column: Column) -> bool:
        return not names.isdisjoint(tables.canonical_name(name) for name in (column.name, *column.aliases))

    if not known(COUNT_COLUMNS[1]) and any(known(column) for column in TRIAL_COLUMNS[1:]):
        return _read_trials(table)
    return _read_counts(table)


def _read_counts(table: pd.DataFrame) -> pd.DataFrame:
    optional = (WINDOW, EXPOSURE, BYTES)
    reader = tables.Reader(
        table,
        (*COUNT_COLUMNS, *optional),
        optional=frozenset(column.name for column in optional),
        most_rows=MOST_ROWS,
        partly=True,
    )
    entity = reader.labels("entity", unique=False)
    parts: dict[str, np.ndarray] = {"entity": entity}
    if "window" in reader:
        parts["window"] = _windows(reader, entity)
    count = reader.numbers("count", at_least=0, whole=True)
    _too_large(reader, "count", count)
    parts["count"] = count
    if "exposure" in reader:
        parts["exposure"] = reader.numbers("exposure", above=0)
    if "bytes" in reader:
        parts["bytes"] = reader.numbers("bytes", above=0)
    _at_least_two(reader, entity)
    parts |= reader.others()
    reader.finish()
    parts["count"] = count.astype(np.int64)
    first, code = np.unique(entity.astype(str), return_inverse=True)
    seen = np.full(first.size, len(entity))
    np.minimum.at(seen, code, np.arange(len(entity)))
    keys = (parts["window"],) if "window" in parts else ()
    # Stable: without windows the rows of an entity keep their order.
    order = np.lexsort((np.arange(len(entity)), *keys, seen[code]))
    return pd.DataFrame(parts).iloc[order].reset_index(drop=True)


def _windows(reader: tables.Reader, entity: np.ndarray) -> np.ndarray:
    """Order of the windows: numbers where all are numbers, otherwise text, in which ISO dates sort."""
    text = reader.labels("window", unique=False)
    values, places, _ = tables.parse_numbers(pd.Series(text, dtype="str"))
    found: np.ndarray = text.astype(str)
    if not places.size:
        found = values.astype(np.int64) if (values == np.round(values)).all() else values
    first: dict[tuple[str, str], int] = {}
    again = [
        place
        for place, key in enumerate(zip(entity, text, strict=True))
        if first.setdefault(key, place) != place and key[1]
    ]

    def words(place: int) -> str:
        earlier = reader.rows[first[entity[place], text[place]]]
        return (
            f"{tables.shown(text[place])} of {tables.shown(entity[place])} is already in row {earlier}. "
            "An entity's windows must differ."
        )

    reader.report("window", np.array(again, dtype=int), words)
    return found


def _too_large(reader: tables.Reader, name: str, values: np.ndarray) -> None:
    large = np.flatnonzero(values > 1e12)
    reader.report(name, large, lambda place: f"{values[place]:g} is more than 10^12. Count in a larger unit.")


def _at_least_two(reader: tables.Reader, entity: np.ndarray) -> None:
    if len(set(entity) - {""}) == 1:
        text = f"All rows are of one entity, {tables.shown(entity[0])}. Pooling needs at least two."
        reader.problems.append(Problem(None, "entity", text))


def _read_trials(table: pd.DataFrame) -> pd.DataFrame:
    reader = tables.Reader(table, TRIAL_COLUMNS, most_rows=MOST_ROWS, partly=True)
    entity = reader.labels("entity")
    successes = reader.numbers("successes", at_least=0, whole=True)
    trials = reader.numbers("trials", at_least=1, whole=True)
    for name, values in (("successes", successes), ("trials", trials)):
        _too_large(reader, name, values)
    reader.report(
        "successes",
        np.flatnonzero(successes > trials),
        lambda place: f"{successes[place]:g} is more than the {trials[place]:g} trials.",
    )
    _at_least_two(reader, entity)
    others = reader.others()
    reader.finish()
    whole = {"successes": successes.astype(np.int64), "trials": trials.astype(np.int64)}
    return pd.DataFrame({"entity": entity, **whole, **others})


def words_of(table: pd.DataFrame) -> Words:
    """Words of data that do not bring their own."""
    if has_trials(table):
        return TRIAL_WORDS
    return EXPOSED_WORDS if "exposure" in table.columns else COUNT_WORDS


def entity_codes(dataset: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Index of each row's entity, ndarray (N,) of int32, and the entities in the order of the table."""
    code, names = pd.factorize(dataset.table["entity"].astype(str))
    return code.astype(np.int32), tuple(str(name) for name in names)


#: Structures per data set: what engines take from the data once hangs on them.
_STRUCTURES: WeakKeyDictionary[Dataset, dict[tuple[str, str], GammaCounts]] = WeakKeyDictionary()
_TRIALS: WeakKeyDictionary[Dataset, BetaBinomial] = WeakKeyDictionary()


def count_structure(
    dataset: Dataset,
    likelihood: Literal["negative_binomial", "poisson"] = "negative_binomial",
    effects: Literal["rate", "mean_scaled"] = "rate",
) -> GammaCounts:
    """The data as counts in windows; the same object for the same data set and model.

    Raises
    ------
    InputError
        Successes of trials.
    """
    if has_trials(dataset.table):
        raise InputError(
            "data of this model", "counts of entities", "successes of trials", "Choose the model binomial."
        )
    known = _STRUCTURES.setdefault(dataset, {})
    if (likelihood, effects) not in known:
        entity, units = entity_codes(dataset)
        table = dataset.table
        exposure = table["exposure"].to_numpy(float) if "exposure" in table else np.empty(0)
        count = table["count"].to_numpy(float)
        known[likelihood, effects] = GammaCounts(count, entity, units, exposure, likelihood, effects)
    return known[likelihood, effects]


def trials_structure(dataset: Dataset) -> BetaBinomial:
    """The data as successes of trials; the same object for the same data set.

    Raises
    ------
    InputError
        Counts without trials.
    """
    if not has_trials(dataset.table):
        raise InputError(
            "data of the model binomial",
            "the columns successes and trials",
            "counts",
            "Choose the model base, or give data with trials.",
        )
    if dataset not in _TRIALS:
        table = dataset.table
        units = tuple(table["entity"].astype(str))
        successes, trials = (table[name].to_numpy(float) for name in ("successes", "trials"))
        _TRIALS[dataset] = BetaBinomial(successes, trials, units)
    return _TRIALS[dataset]
