import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbm_core.errors import InputError
from hbm_core.scenarios import scenario
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.tables import csv_text, file_title, parse_numbers, read_file

SCHOOLS = scenario("schools")
PLAIN = "unit,effect,se\na,1.5,1\nb,-2,2\n"


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("-", "−"),
        "\n\n" + PLAIN,
        PLAIN.rstrip("\n"),
        PLAIN.replace("\n", ",,\n"),
        'unit,effect,se\n"a","1.5",1\n"b","-2",2\n',
        PLAIN + ",,\n,,\n",
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_of_every_habit_reads_the_same(text, mark):
    expected = pd.DataFrame({"unit": ["a", "b"], "effect": [1.5, -2.0], "se": [1.0, 2.0]})
    assert SCHOOLS.read(read_file(mark + text.encode(), "data.csv")).digest == SCHOOLS.read(expected).digest


def test_quoted_separators_and_lines_stay_in_their_cell():
    frame = read_file(b'unit,effect,se\n"Hart, Sutherland",1,1\n"two\nlines",2,1\n', "data.csv")
    assert SCHOOLS.read(frame).table["unit"].tolist() == ["Hart, Sutherland", "two lines"]


def test_a_path_reads_like_its_content(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(PLAIN)
    pd.testing.assert_frame_equal(read_file(path), read_file(PLAIN.encode(), "data.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b" \n\n", "empty file"),
        (b"unit,effect,se\n", "header only"),
        (b"unit,effect,se", "header only"),
        ("unit,effect,se\nZürich,1,1\n".encode("latin-1"), "line 2.*UTF-8"),
        (PLAIN.encode("utf-16")[:-1], "UTF-16"),
        (b"unit,effect\n\x00\x01,2\n", "binary"),
        (b"PK\x03\x04rest", "spreadsheet"),
        (b"\x1f\x8brest", "gzip"),
        (b"%PDF-1.7", "PDF"),
        (b"PAR1 broken", "Parquet"),
        ((",".join(f"c{i}" for i in range(10_000)) + "\n1\n").encode(), "10,000 columns"),
    ],
)
def test_what_is_no_table_is_refused_in_words(content, message):
    with pytest.raises(InputError, match=message):
        read_file(content, "data.csv")


def test_rows_of_the_wrong_length_are_listed_by_row():
    with pytest.raises(DataProblems) as caught:
        read_file(b"unit,effect,se\na,1,1\nb,1,5,1\nc,2,1\nd,2\n", "data.csv")
    assert [problem.row for problem in caught.value.problems] == [2, 4]
    assert "4 cells" in caught.value.problems[0].message


@pytest.mark.parametrize(("header", "column"), [("unit,effect,effect", "'effect'"), ("unit,,se", "number 2")])
def test_columns_need_names_of_their_own(header, column):
    with pytest.raises(DataProblems) as caught:
        read_file(f"{header}\na,1,1\n".encode(), "data.csv")
    assert [problem.column for problem in caught.value.problems] == [column]


def test_limits_are_said_before_anything_is_read(tmp_path):
    path = tmp_path / "large.csv"
    path.write_text(PLAIN * 100)
    with pytest.raises(InputError, match="at most"):
        read_file(path, most_bytes=100)
    with pytest.raises(InputError, match="at most 1 rows"):
        read_file(PLAIN.encode(), "data.csv", most_rows=1)
    with pytest.raises(InputError, match="no such file"):
        read_file(tmp_path / "absent.csv")


def test_parquet_reads_like_csv():
    content = parquet(
        pa.table({"unit": ["a", "b"], "effect": [1.5, -2.0], "se": pa.array([1, 2], pa.int8())})
    )
    csv = read_file(PLAIN.encode(), "data.csv")
    assert SCHOOLS.read(read_file(content, "data.parquet")).digest == SCHOOLS.read(csv).digest


def test_parquet_with_nested_or_binary_columns_is_refused_by_column():
    content = parquet(pa.table({"unit": ["a"], "list": [[1, 2]], "map": [{"k": 1}], "raw": [b"\x00"]}))
    with pytest.raises(DataProblems) as caught:
        read_file(content, "data.parquet")
    assert [problem.column for problem in caught.value.problems] == ["list", "map", "raw"]


def test_parquet_that_unpacks_to_too_much_is_refused():
    content = parquet(pa.table({"unit": pa.array(np.zeros(2_000_000, dtype="int8"))}))
    assert len(content) < 100_000
    with pytest.raises(InputError, match="2,000,000 rows"):
        read_file(content, "data.parquet", most_rows=1_000_000)


def test_dates_in_parquet_are_named_as_dates():
    moments = pa.array([0, 10**12], pa.timestamp("ms"))
    frame = read_file(
        parquet(pa.table({"unit": ["a", "b"], "effect": moments, "se": [1.0, 1.0]})), "x.parquet"
    )
    with pytest.raises(DataProblems, match="date"):
        SCHOOLS.read(frame)


@pytest.mark.parametrize(
    ("name", "title"),
    [("../../etc/passwd", "passwd"), ("C:\\data\\x.csv", "x.csv"), ("a\x00b\n.csv", "ab.csv")],
)
def test_folders_in_a_file_name_do_not_show(name, title):
    assert file_title(name) == title


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "2.5", "-3e2", "+.5"], [1, 2.5, -300, 0.5]),
        (["12,5", "1.234,5", "3"], [12.5, 1234.5, 3]),
        (["12.5", "1,234.5", "1,234"], [12.5, 1234.5, 1234]),
        (["1,234", "0,512"], [1.234, 0.512]),
        (["1.234", "12,5"], [1234, 12.5]),
        (["1.234", "5"], [1.234, 5]),
        (["1,234,567", "1,234"], [1234567, 1234]),
        (["1 234,5", "1\u00a0234", "2'000"], [1234.5, 1234, 2000]),
        (["−1,5", "- 2"], [-1.5, None]),
        (["1,234", "5"], [None, 5]),
        (["12,5", "12.5"], [None, 12.5]),
        (["1e999", "0x10", "1_000", "True", "½"], [None] * 5),
    ],
)
def test_numbers_as_people_write_them(cells, values):
    found, places, messages = parse_numbers(pd.Series(cells))
    assert [None if np.isnan(value) else value for value in found] == values
    assert places.tolist() == [place for place, value in enumerate(values) if value is None]
    assert len(messages) == len(places)


def test_cells_in_doubt_are_told_apart_from_text():
    *_, (lonely,) = parse_numbers(pd.Series(["1,234", "5"]))
    *_, (mixed,) = parse_numbers(pd.Series(["12,5", "12.5"]))
    *_, (text,) = parse_numbers(pd.Series(["five"]))
    assert "two readings" in lonely and "decimal point" in mixed and "not a number" in text


def test_many_problems_are_counted_not_repeated():
    frame = pd.DataFrame({"unit": [f"u{i}" for i in range(1000)], "effect": "x", "se": "1"})
    with pytest.raises(DataProblems) as caught:
        SCHOOLS.read(frame)
    assert len(caught.value.problems) == 201
    assert any("800 more" in problem.message for problem in caught.value.problems)


def test_downloads_read_back_and_run_nothing():
    names = ["=cmd|' /C calc'!A0", "@SUM(1)", "\t=1", " +1", "plain"]
    effect = [-0.1 - 0.2, 1e-17, 3.0, 4.0, 5.0]
    frame = pd.DataFrame({"unit": names, "effect": effect, "se": 1.0, "-x": list("abcde")})
    text = csv_text(frame)
    back = SCHOOLS.read(read_file(text.encode(), "data.csv")).table
    assert back["effect"].tolist() == effect
    assert [name[0] for name in back["unit"]] == ["'", "'", "'", "'", "p"]
    assert "'-x" in back.columns
    assert frame["unit"].tolist() == names
