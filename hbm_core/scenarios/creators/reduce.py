"""User rows to creator summaries, out of core.

DuckDB streams a file of any size through one aggregation per creator and arm. Means are compensated sums and
variances Welford's; where a creator's outcomes sit so far from 0 that these lose digits, a second pass takes
them from the creator's own mean. With one thread (the default) the same file gives the same bits, and so the
same digest, every time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from hbm_core.errors import InputError
from hbm_core.scenarios import tables
from hbm_core.scenarios.base import DataProblems, Problem
from hbm_core.scenarios.creators.data import ARMS, PLAIN_NAME, STATISTICS, sorted_table
from hbm_core.scenarios.creators.user_rows import UserRows, connection, open_rows
from hbm_core.scenarios.creators.variance import VariancePrior, moderated

if TYPE_CHECKING:
    import duckdb

#: Labels of the two arms, in any case.
TREATMENT = ("treatment", "treated", "t", "1", "1.0", "true")
CONTROL = ("control", "c", "0", "0.0", "false")
#: DuckDB's memory; the process needs a few hundred megabytes more.
MEMORY = "1GB"
#: Examples listed for each kind of problem.
_EXAMPLES = 20
#: Relative loss of digits from which a cell is computed again around its own mean.
_LOSS = 1e-12
_KEYS = ("creator", "genre", "segment", "period")


@dataclass(frozen=True, eq=False)
class Reduction:
    """What user rows come to.

    Parameters
    ----------
    table : pandas.DataFrame
        Canonical creator summaries with their statistics per arm.
    left_out : pandas.DataFrame
        creator, genre, (segment, period,) n_treatment, n_control, reason: rows that no effect can be had
        from.
    rows : int
        User rows read.
    priors : mapping of (genre, arm) to VariancePrior
        Where variances are moderated.
    """

    table: pd.DataFrame
    left_out: pd.DataFrame
    rows: int
    priors: Mapping[tuple[str, str], VariancePrior] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or changed, in sentences."""
        found = [
            f"{count:,} {'creator is' if count == 1 else 'creators are'} left out: {reason}."
            for reason, count in self.left_out["reason"].value_counts().items()
        ]
        if self.priors:
            df = np.median([prior.df for prior in self.priors.values()])
            found.append(
                "Standard errors use moderated variances: each arm's variance is averaged with its genre's, "
                + ("which replaces it" if np.isinf(df) else f"which counts as {df:.3g} degrees of freedom")
                + " (median over genres and arms)."
            )
        return tuple(found)


def reduce(
    source: str | Path | pd.DataFrame | pa.Table,
    *,
    filename: str = "",
    variance: Literal["own", "moderated"] = "own",
    memory: str = MEMORY,
    threads: int = 1,
    scratch: str | Path | None = None,
) -> Reduction:
    """Reduce user rows to creator summaries.

    effect = m_t − m_c and se = √(v_t/n_t + v_c/n_c), per creator, or per creator, segment and period where
    the rows have them. A creator with an arm of fewer than two users, or whose users all have one outcome in
    an arm, is left out and listed.

    Parameters
    ----------
    source : path, DataFrame or Arrow table
        Columns creator, genre, group, outcome; optional segment, period; aliases as in `ROW_COLUMNS`. A CSV
        or Parquet file of any size.
    filename : str
        The file's name for messages.
    variance : {"own", "moderated"}
        "moderated": `variance.moderated` standard errors, steadier for small arms.
    memory : str
        Most memory of DuckDB, e.g. "1GB"; what does not fit goes to `scratch`.
    threads : int
        More than one is faster, but the last digits may differ from run to run.
    scratch : path, optional
        Folder for temporary files; the system's by default.

    Raises
    ------
    DataProblems
        Missing columns, unknown group labels, outcomes that are no finite numbers, creators in two genres.
    InputError
        Not a CSV or Parquet file, lines of the wrong length, wrong encoding.
    """
    if variance not in ("own", "moderated"):
        raise InputError("variance", "own or moderated", repr(variance))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hbm-", dir=scratch)))
        rows = open_rows(source, filename, folder)
        found = _reduced(stack.enter_context(connection(rows, folder, memory, threads)), rows)
    if variance == "moderated":
        table, priors = moderated(found.table)
        return Reduction(table, found.left_out, found.rows, priors)
    return found


def _number_sql(expression: str, text: bool, careful: bool, comma: bool) -> str:
    if not text:
        return f"CAST({expression} AS DOUBLE)"
    # Without trim, DuckDB moves the cast into its CSV reader, where a failure is an error instead of a NULL.
    plain = f"trim({expression})"
    if not careful:
        return f"TRY_CAST({plain} AS DOUBLE)"
    plain = f"replace({plain}, '\N{MINUS SIGN}', '-')"
    return f"TRY_CAST({f"replace({plain}, ',', '.')" if comma else plain} AS DOUBLE)"


def _selection(rows: UserRows, careful: bool, comma: bool) -> str:
    """The canonical columns of single rows; an outcome that is no finite number is NULL.

    With `careful`, names are replaced by the tidy ones of `_note_untidy`, and labels by the arm they mean.
    """
    places = {**{name: rows.columns[name] for name in _keys(rows)}, "grp": rows.columns["group"]}
    inner = [
        f"{f"NULLIF({place}, '')" if _source(name) in rows.text else place} AS {name}"
        for name, place in places.items()
    ]
    number = _number_sql(rows.columns["outcome"], "outcome" in rows.text, careful, comma)
    source = f"(SELECT {', '.join(inner)}, {number} AS number FROM {rows.relation}) AS source"
    taken = {name: f"source.{name}" for name in places}
    if careful:
        for name in places:
            if _source(name) in rows.text:
                source += f" LEFT JOIN tidy_{name} ON source.{name} = tidy_{name}.raw"
                taken[name] = (
                    f"CASE WHEN tidy_{name}.raw IS NULL THEN source.{name} ELSE tidy_{name}.tidy END"
                )
        grp = f"lower(CAST({taken['grp']} AS VARCHAR))"
        taken["grp"] = (
            f"CASE WHEN {grp} IN {_sql_texts(TREATMENT)} THEN 'treatment' "
            f"WHEN {grp} IN {_sql_texts(CONTROL)} THEN 'control' ELSE {grp} END"
        )
    columns = [f"{expression} AS {name}" for name, expression in taken.items()]
    outcome = "CASE WHEN isfinite(number) AND abs(number) <= 1e50 THEN number END AS x"
    return f"SELECT {', '.join(columns)}, {outcome} FROM {source}"


def _source(name: str) -> str:
    """The canonical name of a column of the cells."""
    return "group" if name == "grp" else name


def _sql_texts(values: tuple[str, ...]) -> str:
    """A list of this module's own constants."""
    return "(" + ", ".join(f"'{value}'" for value in values) + ")"


def _keys(rows: UserRows) -> list[str]:
    return [name for name in _KEYS if name in rows.columns]


def _aggregate(con: duckdb.DuckDBPyConnection, rows: UserRows, careful: bool, comma: bool) -> None:
    """One scan: a cell per creator (segment, period) and label of the group."""
    con.execute("DROP TABLE IF EXISTS cells")
    con.execute(
        f"""
        CREATE TEMP TABLE cells AS
        SELECT {", ".join(_keys(rows))}, CAST(grp AS VARCHAR) AS grp, count(*) AS users, count(x) AS n,
               favg(x) AS mean, var_samp(x) AS var, min(x) AS low, max(x) AS high,
               count(*) FILTER (x > 0) AS positive, count(*) FILTER (x = 0) AS zeros,
               coalesce(fsum(l), 0) AS log_sum, coalesce(fsum(l * l), 0) AS log_squares,
               skewness(x) AS skew
        FROM (SELECT *, CASE WHEN x > 0 THEN ln(x) END AS l FROM ({_selection(rows, careful, comma)}))
        GROUP BY {", ".join(_keys(rows))}, grp
        """,
        rows.parameters,
    )


def _reduced(con: duckdb.DuckDBPyConnection, rows: UserRows) -> Reduction:
    careful, comma = False, False
    _aggregate(con, rows, careful, comma)
    if _irregular(con, rows):
        careful, comma = True, rows.comma and _commas(con, rows)
        _aggregate(con, rows, careful, comma)
    # A line without anything in it is no row.
    blank = " AND ".join(f"{name} IS NULL" for name in (*_keys(rows), "grp"))
    con.execute(f"DELETE FROM cells WHERE n = 0 AND {blank}")
    _name_arms(con)
    problems = _problems(con, rows, careful, comma)
    if problems:
        raise DataProblems(problems)
    _recentre(con, rows, careful, comma)
    return _summaries(con, rows)


def _irregular(con: duckdb.DuckDBPyConnection, rows: UserRows) -> bool:
    """Whether some names are untidy, labels of one arm differ, or some outcome is no plain number."""
    untidy = [_note_untidy(con, name) for name in (*_keys(rows), "grp") if _source(name) in rows.text]
    odd = con.execute("SELECT bool_or(n < users), count(DISTINCT grp) > 2 FROM cells").fetchone() or ()
    return any((*untidy, *odd))


def _note_untidy(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Note the names of a column that are not as a table's reader would write them; whether there are any."""
    found = con.execute(
        f"SELECT DISTINCT {name} FROM cells WHERE NOT regexp_full_match({name}, $plain)",
        {"plain": PLAIN_NAME},
    ).fetchall()
    tidy = tables.tidy_names(raw for (raw,) in found)
    con.execute(f"CREATE TEMP TABLE tidy_{name} (raw VARCHAR, tidy VARCHAR)")
    if tidy:
        con.executemany(f"INSERT INTO tidy_{name} VALUES (?, NULLIF(?, ''))", list(tidy.items()))
    return bool(tidy)


def _commas(con: duckdb.DuckDBPyConnection, rows: UserRows) -> bool:
    """Whether the outcomes have decimal commas: some do without doubt, and no cell has a point."""
    cell = rows.columns["outcome"]
    sure, points = con.execute(
        f"SELECT bool_or(regexp_matches({cell}, '^\\s*[+-]?(0|\\d*),\\d+\\s*$') "
        f"AND NOT regexp_matches({cell}, ',\\d{{3}}\\s*$')), bool_or(contains({cell}, '.')) "
        f"FROM {rows.relation}",
        rows.parameters,
    ).fetchone() or (False, True)
    return bool(sure) and not points


def _name_arms(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE cells ADD COLUMN arm VARCHAR")
    con.execute(
        f"UPDATE cells SET arm = CASE WHEN lower(grp) IN {_sql_texts(TREATMENT)} THEN 'treatment' "
        f"WHEN lower(grp) IN {_sql_texts(CONTROL)} THEN 'control' END"
    )


def _problems(con: duckdb.DuckDBPyConnection, rows: UserRows, careful: bool, comma: bool) -> list[Problem]:
    found: list[Problem] = []
    if not con.execute("SELECT count(*) FROM cells").fetchall()[0][0]:
        return [Problem(None, None, "The table has a header but no rows.")]
    for name in (*_keys(rows), "group"):
        here = "grp" if name == "group" else name
        (blank,) = con.execute(f"SELECT coalesce(sum(users), 0) FROM cells WHERE {here} IS NULL").fetchall()[
            0
        ]
        if blank:
            found.append(Problem(None, name, f"is empty in {int(blank):,} rows. Fill it in, or remove them."))
        if name in rows.text and name != "group":
            long = con.execute(
                f"SELECT count(DISTINCT {here}) FROM cells WHERE length({here}) > {tables.LONGEST_NAME}"
            ).fetchall()[0][0]
            if long:
                text = f"has {long:,} names of more than {tables.LONGEST_NAME} characters."
                found.append(Problem(None, name, text))
    unknown = con.execute(
        "SELECT grp, sum(users), count(*) OVER () FROM cells WHERE arm IS NULL AND grp IS NOT NULL "
        "GROUP BY grp ORDER BY 2 DESC, 1 LIMIT 5"
    ).fetchall()
    if unknown:
        shown = ", ".join(f"{tables.shown(label)} ({int(users):,} rows)" for label, users, _ in unknown)
        more = f" and {unknown[0][2] - 5:,} more labels" if unknown[0][2] > 5 else ""
        text = f"must be treatment or control (also {', '.join((*TREATMENT[1:4], *CONTROL[1:3]))}), but has "
        found.append(Problem(None, "group", text + shown + more + "."))
    moved = con.execute(
        "SELECT creator, min(CAST(genre AS VARCHAR)), max(CAST(genre AS VARCHAR)), count(*) OVER () "
        "FROM cells WHERE creator IS NOT NULL AND genre IS NOT NULL GROUP BY creator "
        f"HAVING count(DISTINCT genre) > 1 ORDER BY creator LIMIT {_EXAMPLES}"
    ).fetchall()
    for creator, one, other, _ in moved:
        text = (
            f"{tables.shown(creator)} is in the genres {tables.shown(one)} and {tables.shown(other)}. "
            "A creator belongs to one."
        )
        found.append(Problem(None, "genre", text))
    if moved and moved[0][3] > len(moved):
        found.append(Problem(None, "genre", f"{moved[0][3] - len(moved):,} more creators in several genres."))
    bad = int(con.execute("SELECT sum(users - n) FROM cells").fetchall()[0][0])
    return found + (_bad_outcomes(con, rows, bad, careful, comma) if bad else [])


def _bad_outcomes(
    con: duckdb.DuckDBPyConnection, rows: UserRows, count: int, careful: bool, comma: bool
) -> list[Problem]:
    """The first outcomes that are no finite numbers, with their rows, and how many more there are."""
    cell = rows.columns["outcome"]
    number = _number_sql(cell, "outcome" in rows.text, careful, comma)
    filled = " OR ".join(f"{place} IS NOT NULL" for place in rows.columns.values())
    examples = con.execute(
        f"SELECT place, cell FROM (SELECT row_number() OVER () AS place, CAST({cell} AS VARCHAR) AS cell, "
        f"{number} AS raw, {filled} AS filled FROM {rows.relation}) "
        f"WHERE filled AND (raw IS NULL OR NOT isfinite(raw) OR abs(raw) > 1e50) LIMIT {_EXAMPLES}",
        rows.parameters,
    ).fetchall()
    found = []
    for place, text in examples:
        values, _, messages = tables.parse_numbers(pd.Series([text or ""], dtype="str"))
        message = messages[0] if messages else f"{values[0]:g} is out of range. Change the unit."
        found.append(Problem(int(place), "outcome", message))
    if count > len(found):
        found.append(Problem(None, "outcome", f"{count - len(found):,} more outcomes are no finite numbers."))
    return found


def _recentre(con: duckdb.DuckDBPyConnection, rows: UserRows, careful: bool, comma: bool) -> None:
    """Compute creators again around their own mean where the first pass lost digits.

    A compensated mean and Welford's variance lose about κ √n ε of a standard error, with κ the mean over the
    sd. The center is shared by both arms, so that it cancels in the effect.
    """
    keys = _keys(rows)
    con.execute("ALTER TABLE cells ADD COLUMN center DOUBLE DEFAULT 0")
    same = " AND ".join(f"cells.{name} = again.{name}" for name in keys)
    con.execute(
        f"""
        CREATE TEMP TABLE lossy AS SELECT {", ".join(keys)}, first(mean ORDER BY arm) AS center FROM cells
        GROUP BY {", ".join(keys)}
        HAVING bool_or(high > low AND abs(mean) * sqrt(n) * 2.3e-16 > {_LOSS} * sqrt(coalesce(var, 0)))
        """
    )
    if not con.execute("SELECT count(*) FROM lossy").fetchall()[0][0]:
        return
    joined = " AND ".join(f"user_rows.{name} = lossy.{name}" for name in keys)
    con.execute(
        f"""
        CREATE TEMP TABLE again AS
        SELECT {", ".join(keys)}, CAST(grp AS VARCHAR) AS grp, any_value(center) AS center,
               favg(x - center) AS mean, var_samp(x - center) AS var, skewness(x - center) AS skew
        FROM (SELECT user_rows.*, lossy.center FROM ({_selection(rows, careful, comma)}) AS user_rows
              JOIN lossy ON {joined})
        GROUP BY {", ".join(keys)}, grp
        """,
        rows.parameters,
    )
    con.execute(
        "UPDATE cells SET mean = again.mean, var = again.var, skew = again.skew, center = again.center "
        f"FROM again WHERE {same} AND cells.grp = again.grp"
    )


def _summaries(con: duckdb.DuckDBPyConnection, rows: UserRows) -> Reduction:
    """One row per creator (segment, period) from the cells of its two arms."""
    keys = _keys(rows)
    wide = [
        f"max({'center + mean' if name == 'mean' else name}) FILTER (arm = '{arm}') AS {name}_{arm}"
        for name in STATISTICS
        for arm in ARMS
    ]
    wide += [f"max(mean) FILTER (arm = '{arm}') AS away_{arm}" for arm in ARMS]
    wide += [f"bool_or(high > low) FILTER (arm = '{arm}') AS varies_{arm}" for arm in ARMS]
    labels = [f"{_name_sql(name, con)} AS {name}" for name in keys]
    found = (
        con.sql(f"SELECT {', '.join(labels + wide)} FROM cells GROUP BY {', '.join(keys)}")
        .to_arrow_table()
        .to_pandas()
    )
    (total,) = con.execute("SELECT sum(users) FROM cells").fetchall()[0]
    for arm in ARMS:
        found[f"n_{arm}"] = found[f"n_{arm}"].fillna(0).astype(np.int64)
    reason = pd.Series(pd.NA, index=found.index, dtype="str")
    for arm in ARMS:
        few = (found[f"n_{arm}"] < 2).to_numpy()
        reason[few & reason.isna()] = f"fewer than 2 users in {arm}"
    for arm in ARMS:
        flat = ~found[f"varies_{arm}"].fillna(False).astype(bool).to_numpy()
        reason[flat & reason.isna()] = f"the same outcome for every user in {arm}"
    out = reason.notna().to_numpy()
    left = found.loc[out, [*keys, "n_treatment", "n_control"]].assign(reason=reason[out])
    table = found.loc[~out].copy()
    table["effect"] = table["away_treatment"] - table["away_control"]
    table["se"] = np.sqrt(sum(table[f"var_{arm}"] / table[f"n_{arm}"] for arm in ARMS))
    table["n"] = table["n_treatment"] + table["n_control"]
    for arm in ARMS:
        table[f"skew_{arm}"] = table[f"skew_{arm}"].where(np.isfinite(table[f"skew_{arm}"]), 0.0)
        for name in ("positive", "zeros"):
            table[f"{name}_{arm}"] = table[f"{name}_{arm}"].astype(np.int64)
    table = table.drop(columns=[f"{name}_{arm}" for name in ("away", "varies") for arm in ARMS])
    if table["creator"].nunique() < 2:
        text = "Fewer than two creators have two arms that vary. " + " ".join(Reduction(table, left, 0).notes)
        raise DataProblems([Problem(None, None, text.strip())])
    left = left.sort_values(keys).reset_index(drop=True)
    return Reduction(sorted_table(table), left, int(total))


def _name_sql(name: str, con: duckdb.DuckDBPyConnection) -> str:
    """A name as text: whole numbers without a point."""
    kind = con.execute(f"SELECT typeof({name}) FROM cells LIMIT 1").fetchall()[0][0]
    if kind in ("DOUBLE", "FLOAT"):
        whole = f"{name} = trunc({name}) AND abs({name}) < 1e18"
        return (
            f"CASE WHEN {whole} THEN CAST(CAST({name} AS BIGINT) AS VARCHAR) ELSE CAST({name} AS VARCHAR) END"
        )
    return f"CAST({name} AS VARCHAR)"
