"""Where user rows come from: a CSV or Parquet file of any size, a frame or an Arrow table, for SQL to read.

Nothing that a user writes becomes part of a statement: a file is read under a name of our own and through a
parameter, columns of a CSV go by place and those of Parquet are quoted, and the database may open that one
file and nothing else.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from hbm_core.errors import InputError
from hbm_core.scenarios import tables
from hbm_core.scenarios.base import DataProblems, Problem
from hbm_core.scenarios.creators.data import ROW_COLUMNS, names_rows

if TYPE_CHECKING:
    import duckdb

#: A header longer than this is none.
_HEADER_BYTES = 2**20
_LINE_BYTES = 2**24


@dataclass(frozen=True, eq=False)
class UserRows:
    """Where the rows are: a relation in SQL, its parameters, and an expression and type per column.

    Identifiers are places (c0, c1, …) or quoted; a file's name is a parameter, never part of the SQL.
    """

    title: str
    relation: str
    parameters: dict[str, Any]
    columns: dict[str, str]
    text: frozenset[str]
    table: pa.Table | None = None
    path: Path | None = None
    comma: bool = False


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def open_rows(source: str | Path | pd.DataFrame | pa.Table, filename: str, folder: Path) -> UserRows:
    """Find the columns of a source; `folder` takes the name of our own under which a file is read.

    Raises
    ------
    DataProblems
        Missing or doubled columns, columns of a type that cannot be.
    InputError
        Not a CSV or Parquet file.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        title = tables.file_title(filename or path.name)
        if not path.is_file():
            raise InputError(f"file {title}", "an existing file", "no such file", "Check the path.")
        with path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
        if not start.strip():
            raise InputError(f"file {title}", "a table with a header and rows", "an empty file")
        parquet = start.startswith(b"PAR1")
        # A name of our own: a file's name could be a pattern, a partition key or an address to DuckDB.
        link = folder / ("rows.parquet" if parquet else "rows.csv")
        link.symlink_to(path.resolve())
        return _open_parquet(link, title) if parquet else _open_csv(link, title, start)
    table = source if isinstance(source, pa.Table) else _table(source)
    names = [str(name) for name in table.column_names]
    if table.num_rows == 0:
        raise DataProblems([Problem(None, None, "The table has a header but no rows.")])
    places = _match(names)
    kept = table.select(list(places.values())).rename_columns([f"c{i}" for i in range(len(places))])
    columns = dict(zip(places, (f"c{i}" for i in range(len(places))), strict=True))
    return UserRows(filename or "the table", "rows", {}, columns, _text(kept.schema, columns), table=kept)


def _table(frame: pd.DataFrame) -> pa.Table:
    """A frame in Arrow; columns of mixed types become text."""
    arrays = []
    for place in range(frame.shape[1]):
        column = frame.iloc[:, place]
        try:
            arrays.append(pa.Array.from_pandas(column))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays.append(pa.array([None if pd.isna(value) else str(value) for value in column], pa.string()))
    return pa.Table.from_arrays(arrays, names=[str(name) for name in frame.columns])


def _text(schema: pa.Schema, columns: Mapping[str, str]) -> frozenset[str]:
    """Columns that are text; types that no column can have are problems."""
    text, problems = set(), []
    for name, place in columns.items():
        kind = schema.field(place.strip('"').replace('""', '"')).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            text.add(name)
        elif name == "outcome" and not (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_boolean(kind)
        ):
            problems.append(Problem(None, name, f"has the type {kind}; it needs numbers."))
        elif pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            problems.append(
                Problem(None, name, f"has the type {kind}; a column needs plain numbers or text.")
            )
    if problems:
        raise DataProblems(problems)
    return frozenset(text)


def _match(names: list[str]) -> dict[str, int]:
    """Place of each known column, its own name before its aliases."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(tables.canonical_name(name), []).append(place)
    found, problems = {}, []
    for column in ROW_COLUMNS:
        keys = [tables.canonical_name(name) for name in (column.name, *column.aliases)]
        here = next((places[key] for key in keys if key in places), [])
        if len(here) > 1:
            both = " and ".join(tables.shown(names[place]) for place in here)
            problems.append(Problem(None, column.name, f"is there more than once: {both}."))
        elif here:
            found[column.name] = here[0]
        elif column.name not in ("segment", "period"):
            known = ", ".join(names[:8]) or "none"
            text = f"is missing ({column.kind}, {column.rule}). The table has: {tables.shown(known)[1:-1]}."
            problems.append(Problem(None, column.name, text))
    if problems:
        raise DataProblems(problems)
    return found


def _open_parquet(link: Path, title: str) -> UserRows:
    try:
        file = pyarrow.parquet.ParquetFile(link)
        schema, count = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"file {title}", "a Parquet file", str(error).splitlines()[0]) from None
    if count == 0:
        raise InputError(f"file {title}", "rows under the header", "a header only")
    columns = {name: _quoted(schema.names[place]) for name, place in _match(list(schema.names)).items()}
    return UserRows(
        title, "read_parquet($path)", {"path": str(link)}, columns, _text(schema, columns), path=link
    )


def _open_csv(link: Path, title: str, start: bytes) -> UserRows:
    if len(start) == _HEADER_BYTES:
        # The last line is cut, perhaps within a letter.
        start = start[: start.rfind(b"\n") + 1] or start
    text = tables.text_of(start, title)
    skipped = len(text) - len(text.lstrip("\r\n"))
    lines = text[:skipped].count("\n")
    body = text[skipped:]
    names, used, separator = header(body, title)
    places = _match(names)
    quote = {f"c{place}": "VARCHAR" for place in range(len(names))}
    spec = ", ".join(f"'{name}': 'VARCHAR'" for name in quote)
    relation = (
        "read_csv($path, auto_detect=false, header=false, skip=$skip, delim=$delim, quote='\"', escape='\"', "
        f"max_line_size={_LINE_BYTES}, columns={{{spec}}})"
    )
    columns = {name: f"c{place}" for name, place in places.items()}
    return UserRows(
        title,
        relation,
        {"path": str(link), "skip": lines + used, "delim": separator},
        columns,
        frozenset(columns),
        path=link,
        comma=separator != ",",
    )


def header(text: str, title: str) -> tuple[list[str], int, str]:
    r"""Names of a CSV's columns, the lines that they take, and the separator.

    >>> header("creator;genre;outcome\na;b;1,5\n", "x.csv")
    (['creator', 'genre', 'outcome'], 1, ';')
    """
    first = text.splitlines()[0]
    separator = max(",;\t|", key=re.sub(r'"[^"]*"', "", first).count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        names = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise InputError(f"file {title}, line 1", "a header of column names", error) from None
    if len(names) > tables.MOST_COLUMNS:
        raise InputError(f"file {title}", f"at most {tables.MOST_COLUMNS:,} columns", f"{len(names):,}")
    return names, reader.line_num, separator


@contextmanager
def connection(
    rows: UserRows, folder: Path, memory: str, threads: int
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that can read this one file and nothing else."""
    import duckdb

    spill = folder / "spill"
    if not re.fullmatch(r"\d+(\.\d+)?\s*[KMGT]i?B", memory):
        raise InputError("memory limit", "a size like 1GB", repr(memory))
    try:
        con = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": memory,
                "threads": max(1, int(threads)),
                "temp_directory": str(spill),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
    except duckdb.Error:
        raise InputError("memory limit", "a size like 1GB", repr(memory)) from None
    try:
        if rows.table is not None:
            con.register("rows", rows.table)
        if rows.path is not None:
            con.execute("SET allowed_paths=[" + "'" + str(rows.path).replace("'", "''") + "']")
        # Its bar would go to standard output, where answers in JSON belong.
        con.execute("SET enable_progress_bar=false")
        con.execute("SET enable_external_access=false")
        con.execute("SET lock_configuration=true")
        yield con
    except duckdb.Error as error:
        raise input_error(error, rows.title) from None
    finally:
        con.close()


def input_error(error: Exception, title: str) -> InputError:
    """What DuckDB refuses, in a sentence, without its paths and options."""
    text = str(error)
    if place := re.search(r"CSV Error on Line: (\d+)", text):
        subject = f"file {title}, line {int(place[1]):,}"
        if count := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text):
            hint = "A separator inside a value needs quotes around the value."
            return InputError(subject, f"{count[1]} cells, as in the header", count[2], hint)
        if "unicode" in text or "utf-8" in text:
            hint = "Save the table as UTF-8 and try again."
            return InputError(subject, "text in UTF-8", "other bytes", hint)
        if "unterminated quote" in text:
            return InputError(subject, "a closing quote", "none")
        return InputError(subject, "a line of the table", "one that cannot be read")
    if "Out of Memory" in text or "memory" in text.lower():
        hint = "Allow more, or leave less else to do."
        return InputError(f"file {title}", "rows that fit the memory limit", "more", hint)
    return InputError(f"file {title}", "a CSV or Parquet file that can be read", text.splitlines()[0][:200])


def has_user_rows(path: str | Path) -> bool:
    """Whether a file's columns are those of user rows; False for what is no table at all."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(_HEADER_BYTES)
        if start.startswith(b"PAR1"):
            return names_rows(list(pyarrow.parquet.read_schema(path).names))
        text = start.decode("utf-8-sig", errors="replace").lstrip("\r\n")
        return bool(text) and names_rows(header(text, Path(path).name)[0])
    except (OSError, pa.ArrowException, InputError):
        return False
