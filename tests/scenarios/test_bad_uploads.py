"""Files that people bring, and files that mean harm: each has a message with its place, or an answer."""

import gzip
import io
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from hbm_core.errors import InputError
from hbm_core.scenarios import scenario
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.tables import csv_text, guessed, mapped, read_file, read_table

SCHOOLS = scenario("schools")
HEAD = "unit,effect,se\n"


def csv(rows: str, head: str = HEAD) -> bytes:
    return (head + rows).encode()


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../data.csv", b"0" * 10_000_000)
    return sink.getvalue()


def feather() -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pd.DataFrame({"unit": ["a"]}), sink)
    return sink.getvalue()


def read(content: bytes, name: str = "data.csv"):
    return SCHOOLS.read(read_table(content, name).table)


TWO = {"unit": ["a", "b"], "effect": [1.0, 2.0], "se": [1.0, 1.0]}

#: Content → (row, column) of a problem, and a word of its message.
PLACED = {
    "blank effect": (csv("a,,1\nb,2,1\n"), (1, "effect"), "blank"),
    "NA": (csv("a,1,1\nb,NA,1\n"), (2, "effect"), "missing"),
    "NaN": (csv("a,NaN,1\nb,2,1\n"), (1, "effect"), "missing"),
    "inf": (csv("a,inf,1\nb,2,1\n"), (1, "effect"), "finite"),
    "infinity in se": (csv("a,1,Infinity\nb,2,1\n"), (1, "se"), "finite"),
    "se zero": (csv("a,1,0\nb,2,1\n"), (1, "se"), "above 0"),
    "se below zero": (csv("a,1,1\nb,2,-1\n"), (2, "se"), "above 0"),
    "se in another unit": (csv("a,1,1e-9\nb,2,1\n"), (1, "se"), "smaller"),
    "unit twice": (csv("a,1,1\nb,2,1\na,3,1\n"), (3, "unit"), "row 1"),
    "unit twice, unseen letter": (csv("a,1,1\na\u200b,2,1\n"), (2, "unit"), "row 1"),
    "unit twice, composed": (csv("é,1,1\ne\u0301,2,1\n"), (2, "unit"), "row 1"),
    "unit twice, bidi": (csv("a,1,1\n\u202ea\u202c,2,1\n"), (2, "unit"), "row 1"),
    "unit without name": (csv("a,1,1\n ,2,1\n"), (2, "unit"), "empty"),
    "only unseen letters": (csv("a,1,1\n\u200b\ufeff,2,1\n"), (2, "unit"), "empty"),
    "name of 10,000": (csv("x" * 10_000 + ",1,1\nb,2,1\n"), (1, "unit"), "10,000"),
    "cell of 20 MB": (csv("x" * 20_000_000 + ",1,1\nb,2,1\n"), (1, "unit"), "20,000,000"),
    "text": (csv("a,1,1\nb,five,1\n"), (2, "effect"), "not a number"),
    "date": (csv("a,2024-01-02,1\nb,2,1\n"), (1, "effect"), "date"),
    "date of a spreadsheet": (csv("a,1,1\nb,2-Jan,1\n"), (2, "effect"), "date"),
    "percent": (csv("a,5%,1\nb,2,1\n"), (1, "effect"), "percent"),
    "currency": (csv("a,€5,1\nb,2,1\n"), (1, "effect"), "not a number"),
    "interval": (csv("a,1 ± 2,1\nb,2,1\n"), (1, "effect"), "not a number"),
    "stars": (csv("a,1.2***,1\nb,2,1\n"), (1, "effect"), "not a number"),
    "p-value": (csv("a,1,<0.05\nb,2,1\n"), (1, "se"), "not a number"),
    "hexadecimal": (csv("a,0x1F,1\nb,2,1\n"), (1, "effect"), "not a number"),
    "underscores": (csv("a,1_000,1\nb,2,1\n"), (1, "effect"), "not a number"),
    "too large": (csv("a,1e400,1\nb,2,1\n"), (1, "effect"), "too large"),
    "out of range": (csv("a,1,1\nb,1e60,1\n"), (2, "effect"), "out of range"),
    "comma in doubt": (b'unit;effect;se\na;1,234;1\nb;2;1\n', (1, "effect"), "two readings"),
    "marks that contradict": (b'unit;effect;se\na;1,5;1\nb;1.5;1\n', (1, "effect"), "in doubt"),
    "formula as a number": (csv("a,=1+1,1\nb,2,1\n"), (1, "effect"), "not a number"),
    "command as a number": (csv("a,\"=cmd|' /C calc'!A0\",1\nb,2,1\n"), (1, "effect"), "not a number"),
    "script as a number": (csv("a,<script>alert(1)</script>,1\nb,2,1\n"), (1, "effect"), "not a number"),
    "covariate with a word": (csv("a,1,1,5\nb,2,1,6\nc,3,1,x\n", "unit,effect,se,mg\n"), (3, "mg"), "not"),
    "short row": (csv("a,1,1\nb,2\n"), (2, None), "2 cells"),
    "long row": (csv("a,1,1\nb,2,5,1\n"), (2, None), "4 cells"),
    "logical": (parquet(**TWO | {"effect": [True, False]}), (1, "effect"), "not a number"),
    "nulls": (parquet(**TWO | {"effect": pa.nulls(2)}), (2, "effect"), "missing"),
    "NaN in Parquet": (parquet(**TWO | {"se": [1.0, np.nan]}), (2, "se"), "missing"),
    "inf in Parquet": (parquet(**TWO | {"effect": [np.inf, 1.0]}), (1, "effect"), "finite"),
    "column missing": (csv("a,1\nb,2\n", "unit,effect\n"), (None, "se"), "missing"),
    "no header": (csv("a,1,2\nb,2,3\n", ""), (None, "effect"), "missing"),
    "transposed": (csv("effect,1,2\nse,1,1\n", "unit,a,b\n"), (None, "effect"), "missing"),
    "other language": (csv("a,1,1\nb,2,1\n", "Einheit,Wirkung,Fehler\n"), (None, "unit"), "Einheit"),
    "columns by spaces": (csv("a 1 1\nb 2 1\n", "unit effect se\n"), (None, "unit"), "missing"),
    "same column twice": (csv("a,b,1,1\nc,d,2,1\n", "unit,se,se,effect\n"), (None, "'se'"), "2 times"),
    "twice but for case": (csv("a,b,1,1\nc,d,2,1\n", "unit,Unit,effect,se\n"), (None, "unit"), "than once"),
    "cells without a name": (csv("a,1,1,x\nb,2,1,\n", "unit,effect,se,\n"), (None, "number 4"), "no name"),
    "one unit": (csv("a,1,1\n"), (None, None), "two units"),
    "blank rows": (csv(",,\n,,\n"), (None, None), "blank"),
    "nested": (parquet(**TWO | {"more": [[1], [2]]}), (None, "more"), "list"),
    "struct": (parquet(**TWO | {"more": [{"a": 1}, {"a": 2}]}), (None, "more"), "struct"),
    "bytes": (parquet(**TWO | {"more": [b"\x00", b"\x01"]}), (None, "more"), "binary"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACED)
def test_a_problem_is_told_with_its_row_and_column(name):
    content, place, word = PLACED[name]
    with pytest.raises(DataProblems) as caught:
        read(content)
    said = {(problem.row, problem.column): problem.message for problem in caught.value.problems}
    assert place in said
    assert word in said[place]


#: Content → words of the refusal.
REFUSED = {
    "nothing": (b"", "empty file"),
    "blank lines": (b"\r\n\r\n \n", "empty file"),
    "only a mark": (b"\xef\xbb\xbf\n", "header"),
    "header only": (HEAD.encode(), "header only"),
    "header only, Parquet": (
        parquet(unit=pa.array([], pa.string()), effect=pa.array([], pa.float64())),
        "header only",
    ),
    "no columns": (parquet(), "header only"),
    "open quote": (csv('a,1,1\n"b,2,1\nc,3,1\n'), "line 3.*quote"),
    "open quote in the header": (b'"unit,effect,se\na,1,1\n', "line 1.*quote"),
    "NUL": (csv("a\0b,1,1\n"), "line 2.*binary"),
    "UTF-16 without mark": (HEAD.encode("utf-16-le"), "binary"),
    "UTF-16 cut": (HEAD.encode("utf-16")[:-1], "UTF-16"),
    "neither UTF-8 nor Windows": (b"unit,effect,se\na\x81,1,1\n", "line 2.*0x81"),
    "mark, then Latin-1": (b"\xef\xbb\xbfunit,effect,se\nZ\xfcrich,1,1\n", "line 2.*0xfc"),
    "spreadsheet": (zipped(), "spreadsheet"),
    "old spreadsheet": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
    "gzip bomb": (gzip.compress(b"0" * 50_000_000), "gzip"),
    "zstandard": (b"\x28\xb5\x2f\xfd\x00", "Zstandard"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    "web page": (b"<!DOCTYPE html><table>", "web page"),
    "JSON": (b'[{"unit": "a"}]', "JSON"),
    "picture": (b"\x89PNG\r\n\x1a\n", "picture"),
    "database": (b"SQLite format 3\0", "database"),
    "Feather": (feather(), "Feather"),
    "Parquet cut": (parquet(**TWO)[:-9], "Parquet"),
    "Parquet's first bytes only": (b"PAR1", "Parquet"),
    "Parquet with noise": (parquet(**TWO)[:4] + bytes(range(256)) * 4 + b"PAR1", "Parquet"),
    "10,000 columns": ((",".join(f"c{i}" for i in range(10_000)) + "\n" + ",".join("1" * 10_000)).encode(),
                       "10,000 columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused_in_words_and_by_its_own_name_alone(name):
    content, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as caught:
        read(content, "../../secret/data.csv")
    assert "data.csv" in str(caught.value) and "secret" not in str(caught.value)


#: Content → units and effects.
ODD = {
    "mark": ("\ufeff" + HEAD + "a,1,1\nb,2,1\n", ["a", "b"], [1, 2]),
    "two marks": ("\ufeff\ufeff" + HEAD + "a,1,1\nb,2,1\n", ["a", "b"], [1, 2]),
    "old Mac lines": (HEAD.replace("\n", "\r") + "a,1,1\rb,2,1\r", ["a", "b"], [1, 2]),
    "mixed lines": ("unit,effect,se\r\na,1,1\nb,2,1\rc,3,1\r\n", ["a", "b", "c"], [1, 2, 3]),
    "named separator": ("sep=;\nunit;effect;se\na;1,5;1\nb;2;1\n", ["a", "b"], [1.5, 2]),
    "bars": ("unit|effect|se\na|1|1\nb|2|1\n", ["a", "b"], [1, 2]),
    "decimal commas": ("unit;effect;se\na;1.234,5;1\nb;−2,5;1\n", ["a", "b"], [1234.5, -2.5]),
    "thousands": ('unit,effect,se\na,"1,234.5",1\nb,"2,000",1\n', ["a", "b"], [1234.5, 2000]),
    "spaced thousands": (HEAD + "a,1 234.5,1\nb,2\u202f000,1\n", ["a", "b"], [1234.5, 2000]),
    "names in other cases": ("STUDY,Yi,Std. Error\na,1,1\nb,2,1\n", ["a", "b"], [1, 2]),
    "quotes inside": (HEAD + '5" pipe,1,1\n"the ""b""",2,1\n', ['5" pipe', 'the "b"'], [1, 2]),
    "separators inside": (HEAD + '"a, or A",1,1\n"b\nB",2,1\n', ["a, or A", "b B"], [1, 2]),
    "formulas": (HEAD + "=1+1,1,1\n@SUM(A1),2,1\n+x,3,1\n-y,4,1\n",
                 ["=1+1", "@SUM(A1)", "+x", "-y"], [1, 2, 3, 4]),
    "tab before a formula": (HEAD + '"\t=1",1,1\nb,2,1\n', ["=1", "b"], [1, 2]),
    "HTML": (HEAD + "<img src=x onerror=alert(1)>,1,1\n</script>,2,1\n",
             ["<img src=x onerror=alert(1)>", "</script>"], [1, 2]),
    "right to left": (HEAD + "مدرسة,1,1\nבית ספר,2,1\n", ["مدرسة", "בית ספר"], [1, 2]),
    "turned around": (HEAD + "\u202ecba\u202c,1,1\nb,2,1\n", ["cba", "b"], [1, 2]),
    "joiners that letters need": (HEAD + "نمی\u200cخواهم,1,1\nb,2,1\n", ["نمی\u200cخواهم", "b"], [1, 2]),
    "escapes of a terminal": (HEAD + "a\x1b[31m,1,1\nb,2,1\n", ["a [31m", "b"], [1, 2]),
    "blank rows between": (HEAD + "a,1,1\n,,\n\nb,2,1\n", ["a", "b"], [1, 2]),
    "numbers as names": (HEAD + "1,1,1\n2.0,2,1\n", ["1", "2.0"], [1, 2]),
    "same effect everywhere": (HEAD + "a,1,1\nb,1,1\n", ["a", "b"], [1, 1]),
    "no last line end": (HEAD + "a,1,1\nb,2,1", ["a", "b"], [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_table_is_read_right(name):
    text, units, effects = ODD[name]
    found = read(text.encode()).table
    assert found["unit"].tolist() == units
    assert found["effect"].tolist() == effects


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((HEAD + "a,1,1\nb,2,1\n").encode("utf-16"), "UTF-16 with a byte-order mark"),
        ((HEAD + "a,1,1\nb,2,1\n").replace(",", "\t").encode("utf-16"), "separated by tabs"),
        ("unit;effect;se\nZürich;1,5;1\nb;2.000,5;1\n".encode("cp1252"), "Windows-1252"),
        ("unit;effect;se\nZürich;1,5;1\nb;2.000,5;1\n".encode(), "decimal commas and points between"),
        (b'unit,effect,se\na,"1,000.5",1\nb,2,1\n', "commas between thousands"),
        (parquet(**TWO), "Parquet: 2 rows, 3 columns"),
        (parquet(**TWO | {"unit": pa.array(["a", "b"]).dictionary_encode()}), "Parquet"),
        (parquet(**TWO | {"effect": pa.array([1, 2], pa.decimal128(10, 2))}), "Parquet"),
    ],
)
def test_how_a_table_was_read_is_said(content, said):
    found = read_table(content, "data")
    assert said in found.words
    assert len(SCHOOLS.read(found.table).table) == 2


def test_a_guessed_encoding_is_for_eyes_only():
    content = "unit,effect,se\nZürich,1,1\nb,2,1\n".encode("cp1252")
    assert read(content).table["unit"][0] == "Zürich"
    with pytest.raises(InputError, match="line 2"):
        read_file(content, "data.csv")


def test_a_frame_written_by_pandas_with_its_index_reads_back():
    sink = io.BytesIO()
    pd.DataFrame(TWO, index=[7, 9]).to_parquet(sink)
    assert list(read_table(sink.getvalue()).table.columns) == ["unit", "effect", "se"]


def test_every_problem_is_told_at_once_and_counted_when_many():
    with pytest.raises(DataProblems) as caught:
        read(csv("a,x,0\na,1,1\n,2,-1\n"))
    assert {(p.row, p.column) for p in caught.value.problems} == {
        (1, "effect"), (1, "se"), (2, "unit"), (3, "unit"), (3, "se"),
    }  # fmt: skip
    with pytest.raises(DataProblems) as caught:
        read(csv("a,1,1,1\n" * 5000))
    assert len(caught.value.problems) == 201
    assert "4,800 more" in caught.value.problems[-1].message


def test_columns_are_guessed_and_can_be_chosen_otherwise():
    table = pd.DataFrame(
        {"Trial": ["a", "b"], "yi": [1.0, 2.0], "y": [5.0, 6.0], "SEI": [1.0, 1.0], "dose": [1, 2]}
    )
    guess = guessed(table, SCHOOLS.columns)
    assert guess == {"unit": "Trial", "effect": "y", "se": "SEI"}
    chosen = mapped(table, SCHOOLS.columns, guess | {"effect": "yi"}, ["y", "dose"])
    found = SCHOOLS.read(chosen).table
    assert list(found.columns) == ["unit", "effect", "se", "other y", "dose"]
    assert found["effect"].tolist() == [1, 2]
    with pytest.raises(DataProblems, match="chosen for 2 columns"):
        mapped(table, SCHOOLS.columns, guess | {"effect": "SEI"}, [])
    with pytest.raises(DataProblems) as caught:
        SCHOOLS.read(mapped(table, SCHOOLS.columns, guess | {"se": None}, []))
    assert [p.column for p in caught.value.problems] == ["se"]


def test_reading_again_what_was_read_changes_nothing():
    names = "=1+1,1,1\n<b>,2,1\n\u202eabc,3,1\nمدرسة,4,1\n"
    once = read(csv(names))
    assert SCHOOLS.read(once.table).digest == once.digest
    assert read(csv_text(once.table).encode()).table["effect"].tolist() == [1, 2, 3, 4]


BOMBS = {
    "a million rows": "csv(''.join(f'u{i},{i},1\\n' for i in range(1_000_000)))",
    "ten million blank rows": "csv(',,\\n' * 10_000_000)",
    "one long text in every row": "parquet(unit=pa.array(range(1_000_000)).cast(pa.string()), "
    "effect=pa.array(np.zeros(1_000_000)), se=pa.DictionaryArray.from_arrays("
    "pa.array(np.zeros(1_000_000, 'int32')), "
    "pa.array(['x' * 1_000_000])))",
    "rows without end": "parquet(unit=pa.array(np.zeros(200_000_000, 'int8')))",
    "columns without end": "parquet(**{f'c{i}': pa.array(np.zeros(30_000, 'int8')) for i in range(900)})",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_inflates_is_refused_within_bounded_memory(bomb):
    code = (
        "import io, resource, numpy as np, pyarrow as pa, pyarrow.parquet as pq\n"
        "from hbm_core.errors import InputError\n"
        "from hbm_core.scenarios import scenario\n"
        "from hbm_core.scenarios.tables import read_table\n"
        "def csv(rows): return ('unit,effect,se\\n' + rows).encode()\n"
        "def parquet(**c):\n"
        "    sink = io.BytesIO(); pq.write_table(pa.table(c), sink, compression='zstd')\n"
        "    return sink.getvalue()\n"
        "schools = scenario('schools')\n"
        f"content = {BOMBS[bomb]}\n"
        "held = int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        "try:\n"
        "    schools.read(read_table(content, 'x').table)\n"
        "except InputError as problem:\n"
        "    print('refused', problem)\n"
        "import re\n"
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "print('MB', (peak - held) // 2**20)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False
    )
    assert said.returncode == 0, said.stderr[-500:]
    assert said.stdout.startswith("refused")
    assert int(said.stdout.split()[-1]) < 1200
