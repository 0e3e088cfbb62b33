"""Creator summaries: the one table that every model of the scenario reads, and how tables become it.

A row is a creator, or a creator in a segment or a period. Rows are sorted by genre, creator, segment and
period (by code point), so that equal data have equal digests however they came, and a genre is one stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset, Words, once
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.scenarios import tables
from hbm_core.scenarios.base import Column, DataProblems, Problem

LEVELS = ("creator", "genre")
WORDS = Words("creator", "creators", "Effect on revenue per user", "")


def simulated_words(creators: int) -> Words:
    """How simulated data of so many creators speak of themselves."""
    return replace(
        WORDS,
        unit="dollars",
        headline=f"Of {creators:,} creators with an A/B test each, {{unit}} gained {{raw}} dollars per user "
        "taken on its own, and {pooled} in the company of its genre.",
    )


CREATOR = Column("creator", "text", "not empty, in one genre", ("creator_id",))
GENRE = Column("genre", "text", "not empty", ("genre_id",))
SEGMENT = Column("segment", "text", "optional: models with segments", ("segment_id",))
PERIOD = Column("period", "text", "optional: models with periods", ("week",))
#: The table of summaries; `n` and the statistics per arm are optional.
SUMMARY_COLUMNS = (
    CREATOR,
    GENRE,
    SEGMENT,
    PERIOD,
    Column("effect", "number", "finite; summaries", ("effect_hat",)),
    Column(
        "se", "number", "finite, above 0; summaries", ("se_hat", "std_err", "std_error", "standard_error")
    ),
    Column("n", "whole number", "optional, at least 1; summaries", ("n_total",)),
)
#: The table of single users.
ROW_COLUMNS = (
    CREATOR,
    GENRE,
    SEGMENT,
    PERIOD,
    Column("group", "treatment or control", "one of the two; user rows", ("arm",)),
    Column("outcome", "number", "finite; user rows", ("revenue",)),
)
ARMS = ("treatment", "control")
#: Sufficient statistics of an arm, in the table as ``<name>_treatment`` and ``<name>_control``: users, mean
#: and variance of the outcome; users above 0 and at 0, Σ log and Σ log² of the outcomes above 0; skewness
#: (0 below 3 users).
STATISTICS = ("n", "mean", "var", "positive", "zeros", "log_sum", "log_squares", "skew")
STATISTIC_COLUMNS = tuple(f"{name}_{arm}" for name in STATISTICS for arm in ARMS)
_WHOLE = frozenset({"n", "positive", "zeros"})
_KEYS = ("genre", "creator", "segment", "period")
#: Names that are tidy for sure: visible ASCII with single spaces.
PLAIN_NAME = r"[!-~]+(?: [!-~]+)*"
#: Look-ups of a name that scan; the next one makes a dictionary of all names.
_SCANS = 16
#: Above this, a table of summaries is refused.
MOST_CREATORS = 5_000_000


class Labels(Sequence[str]):
    """Names of many units, kept in Arrow: a million need no Python strings until they are looked at.

    Examples
    --------
    >>> names = Labels(pa.array(["a", "b", "c"]))
    >>> names[1], names[-2:] == ("b", "c"), names.index("c"), "x" in names
    ('b', True, 2, False)
    """

    def __init__(self, values: pa.Array) -> None:
        self._values = values
        self._asked = 0
        self._places: dict[str, int] | None = None

    def _place(self, value: str) -> int:
        """First place of a name, or −1: found by a scan, but by a dictionary for who asks again and again."""
        self._asked += 1
        if self._places is None and self._asked > _SCANS:
            found: dict[str, int] = {}
            for place, name in enumerate(self):
                found.setdefault(name, place)
            self._places = found
        if self._places is not None:
            return self._places.get(value, -1)
        return pc.index(self._values, value).as_py()

    @classmethod
    def of(cls, column: pd.Series) -> Labels:
        """The names in a column of text."""
        return cls(_arrow(column))

    @property
    def arrow(self) -> pa.Array:
        """The names as an Arrow array of large strings."""
        return self._values

    def take(self, places: np.ndarray) -> Labels:
        """The names at some places."""
        return Labels(self._values.take(pa.array(places)))

    def __len__(self) -> int:
        """Count of names."""
        return len(self._values)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Labels: ...
    def __getitem__(self, place: int | slice) -> str | Labels:
        """One name, or those of a slice."""
        if isinstance(place, slice):
            return Labels(self._values[place])
        return self._values[int(place)].as_py()

    def __iter__(self) -> Iterator[str]:
        """Each name in turn."""
        for start in range(0, len(self), 65_536):
            yield from self._values.slice(start, 65_536).to_pylist()

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Place of a name; ValueError where there is none."""
        if start == 0 and stop is None:
            place = self._place(value)
        else:
            place = pc.index(self._values[start:stop], value).as_py()
        if place < 0:
            raise ValueError(f"{value!r} is not among the names")
        return place + range(len(self))[start:stop].start

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and self._place(value) >= 0

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Labels):
            return self._values.equals(other._values)
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(str.__eq__, self, other))

    def __hash__(self) -> int:
        return hash((len(self), *(self[place] for place in (0, -1) if len(self))))

    def __repr__(self) -> str:
        shown = ", ".join(repr(name) for name in self[:3])
        return f"Labels({shown}{', …' if len(self) > 3 else ''}; {len(self)})"


def _arrow(column: pd.Series) -> pa.Array:
    found = pa.array(column)
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    return found.cast(pa.large_string())


# --- canonical form ---


def is_rows(table: pd.DataFrame) -> bool:
    """Whether a table has single users: a group and an outcome."""
    return names_rows([str(name) for name in table.columns])


def names_rows(columns: Sequence[str]) -> bool:
    """Whether column names are those of user rows."""
    here = {tables.canonical_name(name) for name in columns}
    return all(
        any(tables.canonical_name(name) in here for name in (column.name, *column.aliases))
        for column in ROW_COLUMNS
        if column.name in ("group", "outcome")
    )


def columns_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The canonical columns that a table has, in canonical order."""
    known = (*(column.name for column in SUMMARY_COLUMNS), *STATISTIC_COLUMNS)
    return tuple(name for name in known if name in table.columns)


def is_canonical(table: pd.DataFrame) -> bool:
    """Whether a table is in canonical form already, in one pass over each column."""
    if len(table) == 0 or list(table.columns) != list(columns_of(table)):
        return False
    if not {"creator", "genre", "effect", "se"} <= set(table.columns):
        return False
    for name in table.columns:
        if name in _KEYS:
            if not isinstance(table[name].dtype, pd.StringDtype) or not _clean(_arrow(table[name])):
                return False
            continue
        whole = name == "n" or name.removesuffix("_treatment").removesuffix("_control") in _WHOLE
        if table[name].dtype != (np.int64 if whole else np.float64):
            return False
        if not (np.isfinite(table[name]).all() and _bounds(name, table[name].to_numpy())):
            return False
    if table["se"].abs().min() < 1e-8 * table["se"].max() or table["effect"].abs().max() > 1e50:
        return False
    keys = [_arrow(table[name]) for name in _KEYS if name in table]
    return _sorted(keys) and _one_genre(table)


def _bounds(name: str, values: np.ndarray) -> bool:
    stem = name.removesuffix("_treatment").removesuffix("_control")
    if name == "se":
        return bool((values > 1e-50).all() and (values < 1e50).all())
    lowest = {"n": 1 if name == "n" else 2, "var": 0, "positive": 0, "zeros": 0, "log_squares": 0}.get(stem)
    return lowest is None or bool((values >= lowest).all())


def _clean(values: pa.Array) -> bool:
    """Whether names are as `Reader.labels` leaves them: filled, on one line, composed, not too long."""
    if values.null_count or not len(values):
        return False
    lengths = pc.min_max(pc.utf8_length(values)).as_py()
    if not 0 < lengths["min"] <= lengths["max"] <= tables.LONGEST_NAME:
        return False
    others = values.filter(pc.invert(pc.match_substring_regex(values, f"^{PLAIN_NAME}$")))
    return not tables.tidy_names(others.unique().to_pylist())


def _sorted(keys: Sequence[pa.Array]) -> bool:
    """Whether rows are strictly ascending by the keys, the first first."""
    rising = pa.scalar(False)
    for key in reversed(keys):
        before, after = key[:-1], key[1:]
        rising = pc.or_(pc.less(before, after), pc.and_(pc.equal(before, after), rising))
    return bool(pc.all(rising).as_py() is not False) if len(keys[0]) > 1 else True


def _one_genre(table: pd.DataFrame) -> bool:
    """Whether no creator of a sorted table is in two genres."""
    creator = _arrow(table["creator"])
    same = pc.and_(
        pc.equal(creator[:-1], creator[1:]), pc.equal(*(_arrow(table["genre"])[s] for s in _SHIFTED))
    )
    runs = len(creator) - (pc.sum(same).as_py() or 0)
    return pc.count_distinct(creator).as_py() == runs


_SHIFTED = (slice(None, -1), slice(1, None))


def sorted_table(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by genre, creator, segment, period; columns in canonical order, names as plain text."""
    names = [name for name in _KEYS if name in table]
    known = columns_of(table)
    ordered = table[[*known, *(name for name in table.columns if name not in known)]]
    keys = {name: _arrow(ordered[name]) for name in names}
    for name, values in keys.items():
        ordered = ordered.assign(**{name: pd.Series(values, dtype="str", index=ordered.index)})
    if not _sorted(list(keys.values())):
        order = pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in names])
        ordered = ordered.take(order.to_numpy())
    return ordered.reset_index(drop=True)


def read_summaries(table: pd.DataFrame, most_rows: int = MOST_CREATORS) -> pd.DataFrame:
    """Bring creator summaries into canonical form; other columns stay, at the end.

    Raises
    ------
    DataProblems
        Everything wrong, with row and column.
    """
    if is_canonical(table):
        return table
    known = (*SUMMARY_COLUMNS, *(Column(name, "number", "optional") for name in STATISTIC_COLUMNS))
    optional = frozenset({"segment", "period", "n", *STATISTIC_COLUMNS})
    try:
        reader = tables.Reader(table, known, optional=optional, most_rows=most_rows)
    except DataProblems as wrong:
        raise DataProblems([*wrong.problems, *_level_hint(wrong)]) from None
    found: dict[str, Any] = {name: _labels(reader, name) for name in _KEYS if name in reader}
    found["effect"] = reader.numbers("effect")
    found["se"] = se = reader.numbers("se", above=0)
    if (good := np.isfinite(se) & (se > 0)).any():
        tiny = np.flatnonzero(good & (se < 1e-8 * se[good].max()))
        reader.report("se", tiny, "is more than 10^8 times smaller than the largest. Is it in the same unit?")
    for name in ("n", *STATISTIC_COLUMNS):
        if name in reader:
            stem = name.removesuffix("_treatment").removesuffix("_control")
            lowest = {"n": 1 if name == "n" else 2, "var": 0, "positive": 0, "zeros": 0, "log_squares": 0}
            whole = stem in _WHOLE
            values = reader.numbers(name, at_least=lowest.get(stem), whole=whole)
            found[name] = values.astype(np.int64) if whole and np.isfinite(values).all() else values
    others = reader.others()
    frame = pd.DataFrame(found)
    _check_keys(reader, frame)
    reader.finish()
    if "n" not in frame and {"n_treatment", "n_control"} <= set(frame):
        frame["n"] = frame["n_treatment"] + frame["n_control"]
    return sorted_table(frame.assign(**others))


def _level_hint(wrong: DataProblems) -> list[Problem]:
    if not any(problem.column in ("effect", "se") for problem in wrong.problems):
        return []
    text = (
        "Give creator summaries (creator, genre, effect, se) or user rows "
        "(creator, genre, group, outcome, where group is treatment or control)."
    )
    return [Problem(None, None, text)]


def _labels(reader: tables.Reader, name: str) -> pa.Array:
    """Names of a column; clean ones in one pass, any others one by one with their problems."""
    cells = reader.cells(name)
    if pd.api.types.is_integer_dtype(cells) and not cells.hasnans:
        return pa.array(cells.to_numpy()).cast(pa.large_string())
    if isinstance(cells.dtype, pd.StringDtype) and not cells.hasnans and _clean(values := _arrow(cells)):
        return values
    return pa.array(reader.labels(name, unique=False), type=pa.large_string())


def _check_keys(reader: tables.Reader, frame: pd.DataFrame) -> None:
    """Note rows that come twice, and creators in two genres; one row is nothing to pool."""
    keys = [name for name in ("creator", "segment", "period") if name in frame]
    if len(frame) and frame["creator"].iloc[0] is not None:
        twice = np.flatnonzero(frame.duplicated(keys).to_numpy())
        what = " and ".join(keys)
        reader.report(
            "creator",
            twice,
            lambda place: (
                f"{tables.shown(frame['creator'].iloc[place])} is there before, with the same {what}. "
                "Each row needs its own creator" + (", segment or period." if len(keys) > 1 else ".")
            ),
        )
        first = frame.drop_duplicates("creator").set_index("creator")["genre"]
        home = frame["creator"].map(first)
        moved = np.flatnonzero((home != frame["genre"]).to_numpy())
        reader.report(
            "genre",
            moved,
            lambda place: (
                f"{tables.shown(frame['creator'].iloc[place])} is in the genres "
                f"{tables.shown(home.iloc[place])} and {tables.shown(frame['genre'].iloc[place])}. "
                "A creator belongs to one."
            ),
        )
    if len(frame) == 1:
        reader.problems.append(
            Problem(None, None, "The table has one row. Pooling needs at least two creators.")
        )


# --- what models read ---


def creator_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per creator: its segments and periods combined by precision.

    Without segments and periods the table itself. Otherwise d = Σ d_k/s_k² ÷ Σ 1/s_k² and
    s = (Σ 1/s_k²)^−½, which assumes one effect per creator; counts of users add up, other columns go.
    """
    if "segment" not in table and "period" not in table:
        return table
    creator = _arrow(table["creator"])
    starts = np.flatnonzero(np.r_[True, pc.not_equal(creator[1:], creator[:-1]).to_numpy(False)])
    if len(starts) == len(table):
        return table.drop(columns=[name for name in ("segment", "period") if name in table])
    weight = table["se"].to_numpy() ** -2.0
    total = np.add.reduceat(weight, starts)
    found = table[["creator", "genre"]].iloc[starts].reset_index(drop=True)
    found["effect"] = np.add.reduceat(weight * table["effect"].to_numpy(), starts) / total
    found["se"] = total**-0.5
    for name in ("n", "n_treatment", "n_control"):
        if name in table:
            found[name] = np.add.reduceat(table[name].to_numpy(), starts)
    return found


@once
def structure(dataset: Dataset) -> ThreeLevelNormal:
    """The data as creators in genres, one unit per creator; the same object for the same data set.

    What engines take from the data once hangs on it.
    """
    table = creator_table(dataset.table)
    group, groups = genres(table)
    effect, se = table["effect"].to_numpy(), table["se"].to_numpy()
    return ThreeLevelNormal(effect, se, group, Labels.of(table["creator"]), groups, LEVELS)


def genres(table: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
    """Index of each row's genre, ndarray (N,) of int32, and the genres in the order of the table."""
    coded = _arrow(table["genre"]).dictionary_encode()
    return coded.indices.to_numpy(zero_copy_only=False).astype(np.int32), tuple(coded.dictionary.to_pylist())


def periods(table: pd.DataFrame) -> tuple[str, ...]:
    """The periods in their order in time: as numbers where all are, otherwise as text (ISO dates sort)."""
    found = [str(name) for name in table["period"].unique()]
    try:
        return tuple(sorted(found, key=float))
    except ValueError:
        return tuple(sorted(found))


def at_least(dataset: Dataset, users: int) -> Dataset:
    """The data without the rows of fewer than `users` users; the label says so.

    Raises
    ------
    InputError
        The number of users is not known, or fewer than two creators are left.
    """
    if users <= 0:
        return dataset
    if "n" not in dataset.table:
        raise InputError("filter on n", "data with the column n, users per creator", "no such column")
    kept = dataset.table["n"].to_numpy() >= users
    if dataset.table["creator"][kept].nunique() < 2:
        raise InputError("filter on n", "a number that leaves at least two creators", users)
    if kept.all():
        return dataset
    label = f"{dataset.label}, only n ≥ {users:,} ({(~kept).sum():,} rows of fewer users left out)"
    return replace(dataset, label=label, table=dataset.table[kept].reset_index(drop=True))
