"""Tables that people bring: files into raw tables, raw cells into numbers and names, every problem named.

`read_file` turns a CSV or Parquet file into a table and refuses what cannot be one; `read_table` tells how
it was read as well. `Reader` then brings the columns of a scenario into canonical form and collects every
problem with its row and column. Cells are inert text: nothing here evaluates a formula or trusts a name.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from hbm_core.errors import InputError
from hbm_core.scenarios.base import Column, DataProblems, Problem

#: Limits of an uploaded file; the command line may raise them.
MOST_BYTES = 200 * 2**20
MOST_COLUMNS = 1_000
MOST_ROWS = 5_000_000
#: Rows times columns, which bounds memory whatever a file promises.
MOST_CELLS = 20_000_000
LONGEST_NAME = 200
#: Problems listed per column; the rest is counted.
MOST_PROBLEMS = 200

_UNNAMED = "\0"
_SPREADSHEET = "Save the sheet as 'CSV UTF-8' and try again."
_MAGIC = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x1f\x8b": "a gzip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"%PDF": "a PDF",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"BZh": "a bzip2 archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x89HDF": "an HDF5 or netCDF file",
    b"CDF\x01": "a netCDF file",
    b"CDF\x02": "a netCDF file",
    b"CDF\x05": "a netCDF file",
    b"SQLite format 3": "a database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"ARROW1": "an Arrow or Feather file",
    b"{\\rtf": "a word processor's document",
    b"<!DOCTYPE": "a web page",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML file",
    b'[{"': "a JSON file",
    b'{"': "a JSON file",
}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
#: A first line by which spreadsheets name the separator.
_SEPARATOR_LINE = re.compile(r"sep=([,;\t|])\r?\n", re.IGNORECASE)
#: Bytes of the longest row that is read.
_LONGEST_ROW = 2**24
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
#: Letters that are not seen or that turn the text around them: zero widths, soft hyphens, bidi embeddings.
_UNSEEN = re.compile("[\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
_SPACE = re.compile("[ \u00a0\u202f'’]")
_SPACED = re.compile(rf"[+-]?[1-9]\d{{0,2}}({_SPACE.pattern}\d{{3}})+([.,]\d*)?")
_SWAP = str.maketrans(",.", ".,")
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?|\d{1,2}[- ][A-Za-z]{3}([- ]\d{2,4})?|[A-Za-z]{3}[- ]\d{2}"
)
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "–", "—", ".", "?", "#n/a", "missing"})
_INFINITE = frozenset({"inf", "infinity", "+inf", "-inf", "∞", "+∞", "-∞", "+infinity", "-infinity"})


def shown(value: object) -> str:
    """A cell as a message quotes it: one line, cut."""
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 40 else text[:37] + "…")


def file_title(name: str) -> str:
    """The last part of a file name: folders, of any system, are nobody's business."""
    last = PureWindowsPath(PurePosixPath(name).name).name
    printable = "".join(letter for letter in last if letter.isprintable())
    return printable if len(printable) <= 100 else printable[:97] + "…"


@dataclass(frozen=True, eq=False)
class Reading:
    """A table as it was read, and how.

    Parameters
    ----------
    table : pandas.DataFrame
        Raw: CSV cells as text, Parquet cells with their types.
    format : str
        "CSV" or "Parquet".
    encoding : str
        "UTF-8", "UTF-16" or "Windows-1252"; empty for Parquet.
    separator : str
        Empty for Parquet.
    marked : bool
        Whether a byte-order mark was there.
    """

    table: pd.DataFrame
    format: str
    encoding: str = ""
    separator: str = ""
    marked: bool = False

    @property
    def words(self) -> str:
        """How it was read, one sentence.

        >>> Reading(pd.DataFrame({"u": ["A"], "y": ["1,5"]}), "CSV", "UTF-8", ";").words
        'Read as CSV in UTF-8, separated by semicolons, with decimal commas: 1 row, 2 columns.'
        """
        parts = [self.format]
        if self.encoding:
            parts[0] += f" in {self.encoding}" + (" with a byte-order mark" if self.marked else "")
        if self.separator and self.table.shape[1] > 1:
            parts.append(f"separated by {_SEPARATORS[self.separator]}")
        if habit := number_habit(self.table):
            parts.append(f"with {habit}")
        rows, columns = self.table.shape
        size = f"{rows:,} row{'s' * (rows != 1)}, {columns:,} column{'s' * (columns != 1)}"
        sure = (
            ""
            if self.encoding != "Windows-1252"
            else " It is not UTF-8, so look whether accented letters are right."
        )
        return f"Read as {', '.join(parts)}: {size}.{sure}"


def read_file(
    source: str | Path | bytes,
    filename: str = "",
    *,
    most_bytes: int = MOST_BYTES,
    most_columns: int = MOST_COLUMNS,
    most_rows: int = MOST_ROWS,
) -> pd.DataFrame:
    """A CSV or Parquet file as a raw table; see `read_table`.

    Text must be in Unicode here: where nobody sees the table, a guessed encoding would go unnoticed.
    """
    found = read_table(
        source, filename, most_bytes=most_bytes, most_columns=most_columns, most_rows=most_rows, guess=False
    )
    return found.table


def read_table(
    source: str | Path | bytes,
    filename: str = "",
    *,
    most_bytes: int = MOST_BYTES,
    most_columns: int = MOST_COLUMNS,
    most_rows: int = MOST_ROWS,
    guess: bool = True,
) -> Reading:
    """A CSV or Parquet file as a raw table, with what was found out about it.

    CSV cells stay text, exactly as written, so that messages can quote them; Parquet cells keep their types.
    The separator of a CSV (comma, semicolon, tab, bar) is the most frequent one of its header, or what a
    first line ``sep=;`` says. Text is UTF-8, or UTF-16 where a byte-order mark says so.

    Parameters
    ----------
    source : str, Path or bytes
        A path, or the content itself.
    filename : str
        The uploaded file's name, for messages; a path's own name by default.
    most_bytes, most_columns, most_rows : int
        Limits. Rows times columns are limited too, to `MOST_CELLS`, and unpacked Parquet to 4 × `most_bytes`:
        no file takes more memory than that, whatever it inflates to.
    guess : bool
        Whether text that is not UTF-8 is read as Windows-1252.

    Raises
    ------
    InputError
        Not a CSV or Parquet file, wrong encoding, too large, quotes that do not close, nested Parquet types.
    DataProblems
        Rows of the wrong length, columns without a name or with the same name.
    """
    title = file_title(filename or (str(source) if isinstance(source, str | Path) else "the file"))
    content = _content(source, title, most_bytes)
    if not content.strip():
        raise InputError(f"file {title}", "a table with a header and rows", "an empty file")
    _refuse_foreign(content, title)
    if content.startswith(b"PAR1"):
        return _read_parquet(content, title, most_bytes, most_columns, most_rows)
    return _read_csv(content, title, most_columns, most_rows, guess)


def _content(source: str | Path | bytes, title: str, most_bytes: int) -> bytes:
    if isinstance(source, bytes):
        size = len(source)
    else:
        path = Path(source)
        try:
            found = path.is_file()
        except ValueError:
            found = False
        if not found:
            raise InputError(f"file {title}", "an existing file", "no such file", "Check the path.")
        size = path.stat().st_size
    if size > most_bytes:
        raise InputError(
            f"file {title}",
            f"at most {most_bytes / 2**20:.0f} MB",
            f"{size / 2**20:.0f} MB",
            "Leave out columns that are not needed, or give summaries instead of single observations.",
        )
    try:
        return source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"file {title}", "a file that can be read", error.strerror or "an error") from None


def _refuse_foreign(content: bytes, title: str) -> None:
    for magic, kind in _MAGIC.items():
        if content.startswith(magic):
            raise InputError(f"file {title}", "a CSV or Parquet file", kind, _SPREADSHEET)


def text_of(content: bytes, title: str) -> str:
    """The text of a CSV file in UTF-8, or of its beginning; InputError tells what else it is, and where.

    >>> text_of("µ;σ".encode(), "x.csv")
    'µ;σ'
    """
    _refuse_foreign(content, title)
    text, encoding, _ = _decode(content, title, False)
    if encoding != "UTF-8":
        raise InputError(f"file {title}", "text in UTF-8", f"text in {encoding}", _SPREADSHEET)
    return text


def _decode(content: bytes, title: str, guess: bool) -> tuple[str, str, bool]:
    """Text, its encoding, and whether a byte-order mark was there."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16"), "UTF-16", True
        except UnicodeDecodeError:
            raise InputError(f"file {title}", "text in UTF-8", "broken UTF-16", _SPREADSHEET) from None
    marked = content.startswith(b"\xef\xbb\xbf")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise InputError(f"file {title}, line {line}", "text", "binary data", "Give a CSV or Parquet file.")
    try:
        return content.decode("utf-8-sig"), "UTF-8", marked
    except UnicodeDecodeError as error:
        place = error.start + 3 * marked
    try:
        if guess and not marked:
            return content.decode("cp1252"), "Windows-1252", False
    except UnicodeDecodeError as error:
        place = error.start
    raise InputError(
        f"file {title}, line {content.count(b'\n', 0, place) + 1}",
        "text in UTF-8",
        f"the byte 0x{content[place]:02x}",
        _SPREADSHEET,
    )


def _read_csv(content: bytes, title: str, most_columns: int, most_rows: int, guess: bool) -> Reading:
    text, encoding, marked = _decode(content, title, guess)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.strip("\n\ufeff") + "\n"
    said = _SEPARATOR_LINE.match(text)
    text = text[said.end() :] if said else text
    bare = re.sub(r'"[^"]*"', "", text[: text.find("\n")])
    separator = said[1] if said else max(_SEPARATORS, key=bare.count)
    csv.field_size_limit(max(len(text), 131_072))
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        header = [_tidy(name) for name in next(rows)]
    except (csv.Error, StopIteration) as error:
        raise InputError(f"file {title}, line 1", "a header of column names", error) from None
    # Spreadsheets write separators for empty columns; those go once they are known to be empty.
    names = [name or f"{_UNNAMED}{place}" for place, name in enumerate(header, start=1)]
    _check_header(names, title, most_columns)
    quoted = '"' in text
    if quoted and text.count('"') % 2:
        _check_quotes(text, separator, title)
    table = _csv_table(text, names, separator, rows.line_num, quoted, title, most_rows)
    frame = table.to_pandas()
    unnamed = [name for name in names if name.startswith(_UNNAMED)]
    if filled := [name for name in unnamed if frame[name].str.strip().any()]:
        words = "has cells but no name. Give every column of the header a name."
        raise DataProblems([Problem(None, f"number {name.removeprefix(_UNNAMED)}", words) for name in filled])
    return Reading(frame.drop(columns=unnamed), "CSV", encoding, separator, marked)


def _check_quotes(text: str, separator: str, title: str) -> None:
    """Refuse a quote that opens and never closes, which would swallow the rows after it."""
    rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    line = 1
    try:
        for _ in rows:
            line = rows.line_num + 1
    except csv.Error:
        raise InputError(
            f"file {title}, line {line}",
            "quotes in pairs",
            "a quote that opens a value and does not close it",
            "Close it, or write a quote inside a value twice.",
        ) from None


def _csv_table(
    text: str, names: list[str], separator: str, skip: int, quoted: bool, title: str, most_rows: int
) -> pa.Table:
    """Cells as text, read in blocks, so that a table beyond the limits is refused before it is held."""
    skipped: list[Problem] = []
    more = 0

    def note(row: Any) -> str:
        nonlocal more
        if len(skipped) == MOST_PROBLEMS:
            more += 1
            return "skip"
        # Numbered from the file's first line, which is the header.
        skipped.append(
            Problem(
                None if row.number is None else row.number - 1,
                None,
                f"{row.actual_columns} cells, but the header has {row.expected_columns} columns. "
                f"A separator ({separator!r}) inside a value needs quotes around the value.",
            )
        )
        return "skip"

    content = text.encode()
    longest = min(_LONGEST_ROW, len(content) + 1)
    try:
        # One thread: only then do rows of the wrong length come with their number.
        reader = pyarrow.csv.open_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=skip, block_size=max(longest, 2**10)
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=separator, newlines_in_values=quoted, invalid_row_handler=note
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
        table = pa.Table.from_batches(_within(reader, title, most_rows), reader.schema)
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            raise InputError(f"file {title}", "rows under the header", "a header only") from None
        if "straddling" in str(error):
            most = f"rows of at most {_LONGEST_ROW / 2**20:.0f} MB"
            raise InputError(f"file {title}", most, "a longer one", "Does a quote not close?") from None
        raise InputError(f"file {title}", "a CSV file", str(error).splitlines()[0], _SPREADSHEET) from None
    if skipped:
        if more:
            skipped.append(Problem(None, None, f"{more:,} more rows of the wrong length."))
        raise DataProblems(skipped)
    if table.num_rows == 0:
        raise InputError(f"file {title}", "rows under the header", "a header only")
    return table


def _within(batches: Iterable[pa.RecordBatch], title: str, most_rows: int) -> Iterable[pa.RecordBatch]:
    """The same batches, up to the limits of rows and cells."""
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        _check_size(rows, batch.num_columns, title, most_rows, "more rows")
        yield batch


def _check_size(rows: int, columns: int, title: str, most_rows: int, got: str = "") -> None:
    if rows > most_rows:
        raise InputError(f"file {title}", f"at most {most_rows:,} rows", got or f"{rows:,} rows")
    if rows * columns > MOST_CELLS:
        raise InputError(
            f"file {title}",
            f"at most {MOST_CELLS:,} cells (rows times columns)",
            "more" if got else f"{rows:,} rows of {columns:,} columns",
            "Leave out the columns that are not needed.",
        )


def _read_parquet(content: bytes, title: str, most_bytes: int, most_columns: int, most_rows: int) -> Reading:
    try:
        source = pa.BufferReader(content)
        schema = pyarrow.parquet.read_schema(source)
        _check_header([_tidy(name) for name in schema.names], title, most_columns)
        nested = [
            Problem(None, field.name, f"has the type {shown(field.type)[1:-1]}; "
                    "a column needs plain numbers or text.")
            for field in schema
            if not _is_flat(field.type)
        ]  # fmt: skip
        if nested:
            raise DataProblems(nested)
        # Texts stay a dictionary until their size is known: one long text may stand in every row.
        texts = [field.name for field in schema if _is_text(field.type)]
        source.seek(0)
        file = pyarrow.parquet.ParquetFile(source, read_dictionary=texts)
        groups = (file.metadata.row_group(place) for place in range(file.num_row_groups))
        _check_unpacked(sum(group.total_byte_size for group in groups), title, most_bytes)
        _check_size(file.metadata.num_rows, len(schema), title, most_rows)
        batches = list(_plain(_within(file.iter_batches(), title, most_rows), title, most_bytes))
        frame = pa.Table.from_batches(batches).to_pandas(ignore_metadata=True) if batches else None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"file {title}", "a Parquet file", said) from None
    if frame is None or len(frame) == 0:
        raise InputError(f"file {title}", "rows under the header", "a header only")
    index = [name for name in frame.columns if re.fullmatch(r"__index_level_\d+__", name)]
    return Reading(frame.drop(columns=index).rename(columns=_tidy), "Parquet")


def _plain(batches: Iterable[pa.RecordBatch], title: str, most_bytes: int) -> Iterable[pa.RecordBatch]:
    """Batches whose dictionaries are written out, as long as all texts stay within the limit."""
    size = 0
    for batch in batches:
        columns = []
        for column in batch.columns:
            if isinstance(column, pa.DictionaryArray) and _is_text(column.type.value_type):
                lengths = pa.compute.binary_length(column.dictionary).cast(pa.int64())
                size += pa.compute.sum(lengths.take(column.indices)).as_py() or 0
                _check_unpacked(size, title, most_bytes)
                column = column.cast(pa.large_string())
            columns.append(column)
        yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _check_unpacked(size: int, title: str, most_bytes: int) -> None:
    if size > 4 * most_bytes:
        most = f"at most {4 * most_bytes / 2**20:.0f} MB once unpacked"
        raise InputError(f"file {title}", most, f"{size / 2**20:,.0f} MB or more")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_flat(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_flat(kind.value_type)
    return (
        _is_text(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )


def _check_header(header: list[str], title: str, most_columns: int) -> None:
    if len(header) > most_columns:
        raise InputError(
            f"file {title}",
            f"at most {most_columns:,} columns",
            f"{len(header):,} columns",
            "Is it transposed? Units go in rows. Otherwise leave out the columns that are not needed.",
        )
    problems = [
        Problem(None, shown(name), f"appears {count} times in the header.")
        for name, count in Counter(header).items()
        if count > 1
    ]
    if problems:
        raise DataProblems(_capped(problems))


def _capped(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= MOST_PROBLEMS:
        return problems
    rest = len(problems) - MOST_PROBLEMS
    last = problems[-1]
    return [*problems[:MOST_PROBLEMS], Problem(None, last.column, f"{rest:,} more problems like these.")]


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV for download, with names and texts that a spreadsheet would run made inert.

    Numbers stay as they are, with the shortest digits that read back the same.

    Examples
    --------
    >>> print(csv_text(pd.DataFrame({"unit": ["=1+1", "b"], "effect": [-0.1, 2.0]})))
    unit,effect
    '=1+1,-0.1
    b,2.0
    <BLANKLINE>
    """
    safe = table.rename(columns=lambda name: _inert(str(name)))
    for place, kind in enumerate(safe.dtypes):
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_datetime64_any_dtype(kind)):
            safe.isetitem(place, safe.iloc[:, place].map(_inert, na_action="ignore").to_numpy())
    return safe.to_csv(index=False)


def write_rows(chunks: Iterable[pd.DataFrame], path: Path) -> int:
    """Write a table that comes in chunks to CSV or Parquet, by the path's ending; returns the rows written.

    Nothing comes of no chunks: neither a file nor a row.
    """
    count = 0
    writer: pyarrow.parquet.ParquetWriter | None = None
    try:
        for chunk in chunks:
            if path.suffix == ".parquet":
                table = pa.Table.from_pandas(chunk, preserve_index=False).replace_schema_metadata(None)
                writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
                writer.write_table(table)
            else:
                chunk.to_csv(path, index=False, header=not count, mode="a" if count else "w")
            count += len(chunk)
    finally:
        if writer is not None:
            writer.close()
    return count


def _inert(value: object) -> str:
    text = str(value)
    return "'" + text if text.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|")) else text


def canonical_name(name: object) -> str:
    """Column names that differ in case, spaces, points or hyphens are the same column."""
    return re.sub(r"[\s.\-_]+", "_", _tidy(name).casefold()).strip("_")


def _tidy(value: object) -> str:
    """A name on one line, composed (NFC), without letters that are not seen or that turn others around."""
    text = unicodedata.normalize("NFC", _UNSEEN.sub("", str(value)))
    return " ".join(_CONTROL.sub(" ", text).split())


def tidy_names(names: Iterable[str]) -> dict[str, str]:
    """Those of the names that `Reader.labels` would write differently, with what it would write.

    >>> tidy_names(["plain", " two  spaces "])
    {' two  spaces ': 'two spaces'}
    """
    return {name: tidy for name in names if (tidy := _tidy(name)) != name}


def number_habit(table: pd.DataFrame) -> str:
    """What its cells show of how the writer of a table writes numbers; empty for plain points.

    >>> number_habit(pd.DataFrame({"y": ["1.234,5", "2"]}))
    'decimal commas and points between thousands'
    """
    found: dict[str, None] = {}
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        if pd.api.types.is_numeric_dtype(column):
            continue
        texts = [_number_text(value) for value in column[column.astype(str).str.contains(r"\d[,.\s']\d")]]
        mark = _decimal_mark(texts) if any("," in text for text in texts) else "."
        if mark == ",":
            found["decimal commas"] = None
            if any("." in text and _with_comma(text) is not None for text in texts):
                found["points between thousands"] = None
        elif mark == "." and any("," in text and _with_point(text) is not None for text in texts):
            found["commas between thousands"] = None
    return " and ".join(found)


def guessed(table: pd.DataFrame, columns: Sequence[Column]) -> dict[str, str | None]:
    """The table's column for each of the scenario's: its own name first, then its aliases; None if absent.

    >>> guessed(pd.DataFrame({"School": ["A"], "yi": [1.0]}), (Column("unit", "text", "", ("school",)),))
    {'unit': 'School'}
    """
    places = {canonical_name(name): str(name) for name in reversed(table.columns)}
    return {
        column.name: next(
            (places[key] for key in map(canonical_name, (column.name, *column.aliases)) if key in places),
            None,
        )
        for column in columns
    }


#: Words by which a column that bears none of the known names is guessed, the most telling first.
_GUESSES = {
    "se": ("standard error", "std err", "std error", "stderr", "sei", "se", "err", "error"),
    "effect": (
        "effect size", "effect", "gain", "estimate", "difference", "diff", "yi", "mean", "coef", "beta", "d",
    ),
    "unit": (
        "school", "class", "study", "trial", "site", "unit", "name", "label", "group", "author", "id",
    ),
}  # fmt: skip


def guessed_by_words(
    table: pd.DataFrame, columns: Sequence[Column], found: Mapping[str, str | None]
) -> dict[str, str]:
    """Likely columns for those of the scenario's that `guessed` did not find, for a person to confirm.

    A word of a known kind in the name counts; an effect and a standard error must hold mostly numbers, and
    names must be text unless the whole name is the word. With no such word the first column of text names
    the units. Only tables of units are guessed: those whose scenario has a column ``unit``.

    >>> table = pd.DataFrame({"class": ["7a"], "mean gain": ["1,5"], "std err gain": ["0,5"]})
    >>> guessed_by_words(table, [Column(name, "", "") for name in ("unit", "effect", "se")], {})
    {'se': 'std err gain', 'effect': 'mean gain', 'unit': 'class'}
    """
    wanted = [column.name for column in columns if not found.get(column.name)]
    if "unit" not in [column.name for column in columns] or not set(wanted) & set(_GUESSES):
        return {}
    free = {str(name): canonical_name(name) for name in table.columns if name not in found.values()}
    numeric = {name: mostly_numbers(table[name].head(1_000)) for name in free}
    out: dict[str, str] = {}
    for kind, words in _GUESSES.items():
        if kind not in wanted:
            continue
        names = kind == "unit"
        likely = [
            name
            for word in map(canonical_name, words)
            for name, plain in free.items()
            if f"_{word}_" in f"_{plain}_" and (numeric[name] != names or (names and word == plain))
        ]
        texts = [name for name in free if names and not numeric[name]]
        if both := [*likely, *texts]:
            out[kind] = both[0]
            del free[both[0]]
    return out


def mostly_numbers(column: pd.Series) -> bool:
    """Whether most of a column's filled cells are numbers."""
    values, _, _ = parse_numbers(column)
    filled = ~np.asarray(_blank(column))
    return bool(2 * np.isfinite(values[filled]).sum() > filled.sum())


def missing_words(column: Column, names: Iterable[object]) -> str:
    """What is said of a column that is not there: what it should hold, and which columns there are."""
    known = ", ".join(str(name) for name in list(names)[:8]) or "none"
    return f"is missing ({column.kind}, {column.rule}). The table has: {shown(known)[1:-1]}."


def mapped(
    table: pd.DataFrame, columns: Sequence[Column], mapping: Mapping[str, str | None], others: Sequence[str]
) -> pd.DataFrame:
    """A table whose columns bear the scenario's names, as a person mapped them, then `others`.

    Parameters
    ----------
    table : pandas.DataFrame
        Raw.
    columns : sequence of Column
        The scenario's.
    mapping : mapping of str to str or None
        The scenario's name to the table's; what is absent or None stays out.
    others : sequence of str
        Further columns to keep. One that the scenario would take for its own is renamed.

    Raises
    ------
    DataProblems
        One column is mapped twice.
    """
    chosen = [(column.name, name) for column in columns if (name := mapping.get(column.name)) is not None]
    taken = Counter(name for _, name in chosen)
    problems = [
        Problem(None, shown(name), f"is chosen for {count} columns. One column can be only one thing.")
        for name, count in taken.items()
        if count > 1
    ]
    if problems:
        raise DataProblems(problems)
    parts = {name: table[source] for name, source in chosen}
    known = {canonical_name(name) for column in columns for name in (column.name, *column.aliases)}
    for name in others:
        if name not in taken:
            parts[f"other {name}" if canonical_name(name) in known else name] = table[name]
    return pd.DataFrame(parts, index=table.index)


class Reader:
    """Brings the columns of a table into canonical form and collects every problem.

    Rows count from 1, the first below the header. Rows that are wholly blank are left out, without
    renumbering the others.

    Parameters
    ----------
    table : pandas.DataFrame
        Raw table, from `read_file` or from anywhere.
    columns : sequence of Column
        What the scenario knows, with aliases.
    optional : collection of str
        Columns that may be absent.
    most_rows : int
        Limit of this scenario.
    partly : bool
        Whether the columns that are there are read although others are missing, so that `finish` tells the
        problems of all at once; a missing column then reads as empty names and NaN.

    Raises
    ------
    DataProblems
        At once when there are no rows or too many, and, unless `partly`, when a column is missing or twice.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        columns: Sequence[Column],
        *,
        optional: frozenset[str] = frozenset(),
        most_rows: int = MOST_ROWS,
        partly: bool = False,
    ) -> None:
        self.problems: list[Problem] = []
        self._raw = table
        self._source = self._match(columns, optional)
        readable = len(self.problems) if partly and self._source else 0
        if len(table) == 0:
            self.problems.append(Problem(None, None, "The table has a header but no rows."))
        if len(table) > most_rows:
            self.problems.append(
                Problem(None, None, f"The table has {len(table):,} rows; this scenario takes {most_rows:,}.")
            )
        if table.shape[1] > MOST_COLUMNS:
            text = f"The table has {table.shape[1]:,} columns; at most {MOST_COLUMNS:,} are taken."
            self.problems.append(Problem(None, None, text))
        if len(self.problems) > readable:
            self.finish()
        filled = ~np.logical_and.reduce([_blank(table.iloc[:, place]) for place in range(table.shape[1])])
        if not filled.any():
            raise DataProblems([*self.problems, Problem(None, None, "Every row of the table is blank.")])
        self.rows = np.flatnonzero(filled) + 1
        self._table = table if filled.all() else table[filled]

    def __len__(self) -> int:
        """Count of rows that are not blank."""
        return len(self.rows)

    def _match(self, columns: Sequence[Column], optional: frozenset[str]) -> dict[str, int]:
        """Place of each known column: its own name first, then its aliases in order."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self._raw.columns):
            places.setdefault(canonical_name(name), []).append(place)
        source = {}
        for column in columns:
            found = next((n for n in (column.name, *column.aliases) if canonical_name(n) in places), None)
            if found is None:
                if column.name not in optional:
                    text = missing_words(column, self._raw.columns)
                    self.problems.append(Problem(None, column.name, text))
                continue
            here = places[canonical_name(found)]
            if len(here) > 1:
                names = " and ".join(shown(self._raw.columns[place]) for place in here)
                self.problems.append(Problem(None, column.name, f"is there more than once: {names}."))
            source[column.name] = here[0]
        return source

    def __contains__(self, name: str) -> bool:
        """Whether the table has the column `name`, by any of its names."""
        return name in self._source

    def cells(self, name: str) -> pd.Series:
        """Raw cells of a known column, blank rows left out."""
        return self._table.iloc[:, self._source[name]]

    def report(self, name: str, places: np.ndarray, message: Callable[[int], str] | str) -> None:
        """Note a problem of column `name` at each of `places` (positions among the rows kept)."""
        found = [
            Problem(int(self.rows[place]), name, message if isinstance(message, str) else message(place))
            for place in places[:MOST_PROBLEMS]
        ]
        if len(places) > MOST_PROBLEMS:
            text = f"{len(places) - MOST_PROBLEMS:,} more problems like this one."
            found.append(Problem(None, name, text))
        self.problems.extend(found)

    def labels(self, name: str, unique: bool = True, longest: int = LONGEST_NAME) -> np.ndarray:
        """Names of a column: text, trimmed, not empty, not too long, unique if asked.

        Whole numbers become their digits. What looks like a formula, HTML or a script is text like any other;
        letters that are not seen or that turn the text around them go, so that no two names look the same.
        """
        if name not in self:
            return np.full(len(self), "", dtype=object)
        raw = self.cells(name)
        text = np.array([_label(value) for value in raw], dtype=object)
        blank = np.asarray(_blank(raw)) | (text == "")
        self.report(name, np.flatnonzero(blank), "is empty. Give it a name.")
        lengths = np.array([len(value) for value in text])
        self.report(
            name,
            np.flatnonzero(lengths > longest),
            lambda place: f"has {lengths[place]:,} characters; a name may have {longest}.",
        )
        if unique:
            first: dict[str, int] = {}
            again = []
            for place, value in enumerate(text):
                if not blank[place] and first.setdefault(value, place) != place:
                    again.append(place)
            self.report(
                name,
                np.array(again, dtype=int),
                lambda place: (
                    f"{shown(text[place])} is already in row {self.rows[first[text[place]]]}. "
                    "Names must be unique."
                ),
            )
        return text

    def numbers(
        self, name: str, *, above: float | None = None, at_least: float | None = None, whole: bool = False
    ) -> np.ndarray:
        """Finite numbers of a column, ndarray (rows,); every cell that is not one is noted.

        Decimal commas and thousands separators are understood where the column leaves no doubt.
        """
        if name not in self:
            return np.full(len(self), np.nan)
        values, places, messages = parse_numbers(self.cells(name))
        self.report(name, places, dict(zip(places.tolist(), messages, strict=True)).__getitem__)
        good = np.isfinite(values)
        if above is not None:
            low = np.flatnonzero(good & ~(values > above))
            self.report(name, low, lambda p: f"must be above {above:g}, but is {values[p]:g}.")
        if at_least is not None:
            low = np.flatnonzero(good & ~(values >= at_least))
            self.report(name, low, lambda p: f"must be at least {at_least:g}, but is {values[p]:g}.")
        if whole:
            broken = np.flatnonzero(good & (values != np.round(values)))
            self.report(name, broken, lambda p: f"must be a whole number, but is {values[p]:g}.")
        size = np.abs(values)
        extreme = np.flatnonzero(good & ((size > 1e50) | ((size < 1e-50) & (size > 0))))
        self.report(
            name, extreme, lambda p: f"{values[p]:g} is out of range (1e-50 to 1e50). Change the unit."
        )
        return values

    def others(self) -> dict[str, np.ndarray]:
        """Columns that the scenario does not know, by trimmed name.

        A column most of whose filled cells are numbers is numeric: blanks become NaN, and any other cell is
        noted as a problem. Everything else stays as text.
        """
        found: dict[str, np.ndarray] = {}
        taken = set(self._source.values())
        for place in range(self._table.shape[1]):
            if place in taken:
                continue
            raw = self._table.iloc[:, place]
            name = _tidy(self._raw.columns[place])
            if not name or len(name) > LONGEST_NAME or name in found or name in self._source:
                text = f"needs a name of 1 to {LONGEST_NAME} characters that no other column has."
                self.problems.append(Problem(None, shown(name), text))
                continue
            values, places, messages = parse_numbers(raw)
            blank = np.asarray(_blank(raw))
            wrong = [(p, m) for p, m in zip(places.tolist(), messages, strict=True) if not blank[p]]
            filled = int((~blank).sum())
            if filled and len(wrong) * 2 < filled:
                self.report(name, np.array([p for p, _ in wrong], dtype=int), dict(wrong).__getitem__)
                found[name] = values
            else:
                text_cells = [_label(value) for value in raw]
                long = np.flatnonzero([len(value) > 10_000 for value in text_cells])
                self.report(name, long, "has more than 10,000 characters.")
                found[name] = np.array(text_cells, dtype=object)
        return found

    def finish(self) -> None:
        """Raise `DataProblems` when there are any, in the order of the rows."""
        if self.problems:
            raise DataProblems(sorted(self.problems, key=lambda p: (p.row is not None, p.row or 0)))


def _blank(column: pd.Series) -> np.ndarray:
    missing = column.isna().to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return missing
    return missing | np.array([isinstance(value, str) and not value.strip() for value in column])


def _label(value: Any) -> str:
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return _tidy(value)


def parse_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Numbers of a column as people write them.

    A column is read with decimal points ("12.5", "1,234.5") or with decimal commas ("12,5", "1.234,5"),
    whichever its unmistakable cells show; a minus sign may be U+2212 and thousands may be spaced. Where
    nothing tells whether "1,234" has a decimal comma, or cells contradict each other, the cells with a comma
    are problems.

    Returns
    -------
    values : ndarray (n,)
        NaN where a cell is no number.
    places : ndarray (k,)
        Positions of the cells with a problem: not a number, blank, or infinite.
    messages : list of k str
        What is wrong with each.

    Examples
    --------
    >>> parse_numbers(pd.Series(["1.234,5", "−2", "x"]))
    (array([1234.5,   -2. ,    nan]), array([2]), ["'x' is not a number."])
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(dtype=float, na_value=np.nan)
        places = np.flatnonzero(~np.isfinite(values))
        return values, places, [_no_number(str(values[place])) for place in places]
    if isinstance(column.dtype, pd.StringDtype):
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        if np.isfinite(values).all():
            return values, np.array([], dtype=int), []
    texts = [_number_text(value) for value in column]
    values = pd.to_numeric(pd.Series(texts, dtype="str"), errors="coerce").to_numpy(dtype=float, copy=True)
    # Only a comma makes the meaning of a point doubtful: without one, the fast reading stands.
    has_comma = any("," in texts[place] for place in np.flatnonzero(~np.isfinite(values)))
    decimal = _decimal_mark(texts) if has_comma else "."
    problems: dict[int, str] = {}
    for place in range(len(texts)) if has_comma else np.flatnonzero(~np.isfinite(values)).tolist():
        values[place] = np.nan
        value = _number(texts[place], decimal)
        if isinstance(value, str):
            problems[place] = value
        elif not np.isfinite(value):
            problems[place] = f"{shown(texts[place])} is too large to compute with."
        else:
            values[place] = value
    return values, np.array(list(problems), dtype=int), list(problems.values())


def typed_number(text: str, decimal: str) -> float | str:
    """One cell as a person types it into a table, or what is wrong with it.

    Nothing is multiplied in silence: a mark that could part thousands counts as a decimal mark where the
    table's own is the same, and is refused otherwise.

    Parameters
    ----------
    text : str
        The cell.
    decimal : str
        The decimal mark of the cells around it: ".", "," or anything else where they do not tell.

    Examples
    --------
    >>> typed_number("3,3", "."), typed_number("1,234", ","), typed_number("1,234,567.5", ".")
    (3.3, 1.234, 1234567.5)
    >>> typed_number("1,234", ".")
    "'1,234' is in doubt: it has two readings, 1.234 and 1234. Write it without separators of thousands."
    """
    text = _number_text(text)
    point, comma = _with_point(text), _with_comma(text)
    if point is not None and comma is not None and point != comma:
        plain = "." if "." in text else ","
        if (plain == ",") != (decimal == ","):
            low, high = sorted((point, comma), key=abs)
            return (
                f"{shown(text)} is in doubt: it has two readings, {low:.15g} and {high:.15g}. "
                "Write it without separators of thousands."
            )
        return point if plain == "." else comma
    value = comma if point is None else point
    if value is None:
        return _no_number(text)
    return value if np.isfinite(value) else f"{shown(text)} is too large to compute with."


def decimal_mark(column: pd.Series) -> str:
    """The decimal mark of a column's cells: "." or ","; "?" where they do not tell, "!" where they differ.

    >>> decimal_mark(pd.Series(["1,5", "2"])), decimal_mark(pd.Series([1.5])), decimal_mark(pd.Series(["2"]))
    (',', '.', '?')
    """
    if pd.api.types.is_numeric_dtype(column):
        return "."
    return _decimal_mark([_number_text(value) for value in column])


def _number_text(value: Any) -> str:
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    text = str(value).strip().replace("\N{MINUS SIGN}", "-")
    return _SPACE.sub("", text) if _SPACED.fullmatch(text) else text


def _with_point(text: str) -> float | None:
    """`text` read with a decimal point, commas between thousands; None if it cannot be."""
    if _PLAIN.fullmatch(text) or _GROUPED.fullmatch(text):
        return float(text.replace(",", ""))
    return None


def _with_comma(text: str) -> float | None:
    """`text` read with a decimal comma, points between thousands; None if it cannot be."""
    return _with_point(text.translate(_SWAP))


def _decimal_mark(texts: Sequence[str]) -> str:
    """The decimal mark that the unmistakable cells of a column use: ".", ",", "?" (none) or "!" (both)."""
    marked = [text for text in texts if "," in text or "." in text]
    readings = [(_with_point(text) is not None, _with_comma(text) is not None) for text in marked]
    points, commas = (True, False) in readings, (False, True) in readings
    return "!" if points and commas else "." if points else "," if commas else "?"


def _number(text: str, decimal: str) -> float | str:
    """One cell as a number, or what is wrong with it."""
    point, comma = _with_point(text), _with_comma(text)
    if "," in text and (point, comma) != (None, None) and decimal in "?!":
        reason = "other cells of this column use a decimal point" if decimal == "!" else "it has two readings"
        return f"{shown(text)} is in doubt: {reason}. Write numbers with a decimal point, without separators."
    value = comma if decimal == "," else point
    return _no_number(text) if value is None else value


def _no_number(text: str) -> str:
    lower = text.casefold()
    if lower in _MISSING:
        return "is blank or missing. Fill in a number or remove the row."
    if lower in _INFINITE:
        return f"must be finite, but is {shown(text)}."
    if _DATE.fullmatch(text):
        return f"{shown(text)} looks like a date, not a number. Did a spreadsheet change it?"
    if text.endswith("%"):
        return f"{shown(text)} has a percent sign. Write the number alone, in one unit for the whole column."
    return f"{shown(text)} is not a number."
