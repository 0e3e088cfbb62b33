"""User rows to summaries: against long-double arithmetic, on hostile input, and file by file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.creators import CREATORS
from hbm_core.scenarios.creators.data import is_canonical
from hbm_core.scenarios.creators.reduce import reduce
from hbm_core.scenarios.creators.user_rows import has_user_rows
from hbm_core.scenarios.tables import write_rows


def users(seed=0, creators=6, offset=0.0, scale=2.0, low=5, high=60):
    rng = np.random.default_rng(seed)
    parts = []
    for place in range(creators):
        for group in ("treatment", "control"):
            count = int(rng.integers(low, high))
            outcome = offset + scale * rng.standard_normal(count)
            genre = "music" if place % 2 else "gaming"
            parts.append(
                pd.DataFrame({"creator": f"c{place}", "genre": genre, "group": group, "outcome": outcome})
            )
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=seed).reset_index(drop=True)


def oracle(rows: pd.DataFrame, keys=("genre", "creator")) -> pd.DataFrame:
    """Effects and standard errors in long double, arm by arm, from the values less the creator's first."""
    found = []
    for key, here in rows.groupby(list(keys)):
        base = np.longdouble(here["outcome"].iloc[0])
        arms = {
            group: np.asarray(arm["outcome"], dtype=np.longdouble) - base
            for group, arm in here.groupby("group")
        }
        t, c = arms["treatment"], arms["control"]
        se = np.sqrt(t.var(ddof=1) / t.size + c.var(ddof=1) / c.size)
        found.append((*key, float(t.mean() - c.mean()), float(se), t.size + c.size))
    return pd.DataFrame(found, columns=[*keys, "effect", "se", "n"])


def agrees(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert table["creator"].tolist() == expected["creator"].tolist()
    assert table["n"].tolist() == expected["n"].tolist()
    se = expected["se"].to_numpy()
    assert (np.abs(table["effect"] - expected["effect"]) <= 1e-10 * se).all()
    assert (np.abs(table["se"] - expected["se"]) <= 1e-10 * se).all()


def messages(source, **options):
    with pytest.raises(DataProblems) as caught:
        reduce(source, **options)
    return [(problem.row, problem.column, problem.message) for problem in caught.value.problems]


# --- arithmetic ---


@pytest.mark.parametrize(
    ("offset", "scale"), [(0, 2), (5, 2), (1e9, 1), (-1e9, 1e-3), (1e6, 1e-6), (0, 1e-20), (0, 1e20)]
)
def test_effects_and_standard_errors_to_1e_10_of_a_standard_error(offset, scale):
    rows = users(1, offset=offset, scale=scale)
    agrees(reduce(rows).table, oracle(rows))


def test_creators_of_very_different_sizes_and_offsets_in_one_file():
    rows = pd.concat(
        [
            users(2).assign(creator=lambda t: "small " + t["creator"]),
            users(3, offset=1e9).assign(creator=lambda t: "far " + t["creator"]),
            users(4, scale=1e-9).assign(creator=lambda t: "tiny " + t["creator"]),
        ]
    )
    agrees(reduce(rows).table, oracle(rows))


def test_statistics_of_each_arm_are_those_of_numpy_and_scipy():
    rows = users(5, offset=1.0)
    rows.loc[rows.index[:80], "outcome"] = 0.0
    found = reduce(rows).table.set_index("creator")
    for (creator, group), arm in rows.groupby(["creator", "group"]):
        x = arm["outcome"].to_numpy()
        logs = np.log(x[x > 0])
        expected = {
            "n": x.size,
            "mean": x.mean(),
            "var": x.var(ddof=1),
            "positive": (x > 0).sum(),
            "zeros": (x == 0).sum(),
            "log_sum": logs.sum(),
            "log_squares": (logs**2).sum(),
            "skew": stats.skew(x, bias=False),
        }
        for name, value in expected.items():
            assert found.loc[creator, f"{name}_{group}"] == pytest.approx(value, rel=1e-11, abs=1e-11), name


def test_simulated_users_reduce_to_the_simulated_summaries():
    knobs = {"creators_per_genre": 20, "zero_share": 0.2, "log_sd": 0.8}
    simulated = CREATORS.simulate(seed=4, **knobs)
    rows = pd.concat(CREATORS.rows(seed=4, **knobs))
    found = CREATORS.read(rows.sample(frac=1, random_state=1))
    assert list(found.table) == list(simulated.table)
    assert found.table["creator"].equals(simulated.table["creator"])
    se = simulated.table["se"]
    for name in ("effect", "se", "mean_control", "mean_treatment"):
        assert (np.abs(found.table[name] - simulated.table[name]) <= 1e-10 * se).all()
    for name in list(simulated.table)[4:]:
        np.testing.assert_allclose(found.table[name], simulated.table[name], rtol=1e-9, atol=1e-9)


def test_segments_and_periods_split_creators():
    rows = users(6, low=40).assign(segment=lambda t: np.where(t.index % 2, "new", "old"))
    found = reduce(rows)
    agrees(found.table, oracle(rows, ("genre", "creator", "segment")))
    both = reduce(rows.assign(period=lambda t: t.index % 3))
    assert list(both.table)[:4] == ["creator", "genre", "segment", "period"]
    assert set(both.table["period"]) == {"0", "1", "2"}


# --- what is left out ---


def test_arms_too_small_or_constant_are_left_out_and_listed():
    rows = users(7)
    lone = pd.DataFrame({"creator": "lone", "genre": "music", "group": "treatment", "outcome": [1.0, 2.0]})
    one = pd.DataFrame({"creator": "one", "genre": "music", "group": ["t", "t", "c"], "outcome": [1.0, 2, 3]})
    flat = pd.DataFrame(
        {"creator": "flat", "genre": "music", "group": ["t", "t", "c", "c"], "outcome": [1.0, 2, 0.1, 0.1]}
    )
    found = reduce(pd.concat([rows, lone, one, flat]))
    agrees(found.table, oracle(rows))
    left = found.left_out.set_index("creator")
    assert left.loc["lone", ["n_treatment", "n_control"]].tolist() == [2, 0]
    assert left["reason"].to_dict() == {
        "lone": "fewer than 2 users in control",
        "one": "fewer than 2 users in control",
        "flat": "the same outcome for every user in control",
    }
    assert found.notes == (
        "2 creators are left out: fewer than 2 users in control.",
        "1 creator is left out: the same outcome for every user in control.",
    )
    assert found.rows == len(rows) + 9
    dataset = CREATORS.read(pd.concat([rows, lone]))
    assert "1 creator is left out" in " ".join(dataset.notes)


def test_nothing_left_is_a_problem_that_says_why():
    rows = users(8).query("group == 'treatment'")
    ((_, _, text),) = messages(rows)
    assert "fewer than 2 users in control" in text.casefold()


# --- what is refused ---


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_outcomes_that_are_no_finite_numbers_are_named_by_row(tmp_path, kind):
    rows = users(9).astype({"outcome": object})
    rows.loc[3, "outcome"], rows.loc[10, "outcome"], rows.loc[11, "outcome"] = "12 %", "inf", None
    if kind == "frame":
        source = rows
    else:
        source = tmp_path / f"rows.{kind}"
        text = rows.assign(outcome=rows["outcome"].astype("str"))
        text.to_csv(source, index=False) if kind == "csv" else text.to_parquet(source)
    found = messages(source)
    assert [(row, column) for row, column, _ in found] == [(4, "outcome"), (11, "outcome"), (12, "outcome")]
    assert "percent" in found[0][2] and "finite" in found[1][2]


def test_many_bad_outcomes_are_counted():
    rows = users(9)
    rows["outcome"] = np.where(rows.index < 50, np.nan, rows["outcome"])
    found = messages(rows)
    assert len(found) == 21
    assert found[-1] == (None, "outcome", "30 more outcomes are no finite numbers.")


def test_unknown_labels_blank_names_and_moving_creators_are_all_told_at_once():
    rows = users(10)
    rows.loc[0, "group"] = "placebo"
    rows.loc[1, "creator"] = " "
    rows.loc[rows.query("creator == 'c2'").index[:4], "genre"] = "art"
    found = {column: text for _, column, text in messages(rows)}
    assert "'placebo' (1 rows)" in found["group"]
    assert "1 rows" in found["creator"]
    assert "'art' and 'gaming'" in found["genre"]


def test_missing_and_doubled_columns():
    found = messages(pd.DataFrame({"creator": ["a"], "Creator ": ["b"], "group": ["t"], "outcome": [1]}))
    assert [(column, "more than once" in text) for _, column, text in found] == [
        ("creator", True),
        ("genre", False),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"creator,genre,group,outcome\n", "no rows"),
        (b"creator,genre,group,outcome\na,m,t,1\nb,m\n", "line 3.*4 cells.*got 2"),
        (b"creator,genre,group,outcome\na,m,t,1,9\n", "line 2.*got 5"),
        (b"creator,genre,group,outcome\na,m,t,1\n\xff\xfe,m,t,1\n", "line 3.*UTF-8"),
        (b"creator,genre,group,outcome\na,m,t,\0\n", "binary"),
        (b"PK\x03\x04xxxx", "spreadsheet"),
        (b'creator,genre,group,outcome\na,m,t,"1\n', "quote"),
        ("creator,genre,group,outcome\n".encode("utf-16"), "UTF-16"),
        (b"PAR1 but not really", "Parquet"),
    ],
)
def test_files_that_are_no_tables_are_refused_in_words(tmp_path, content, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        reduce(path)
    assert str(tmp_path) not in str(caught.value)


def test_types_that_cannot_be_outcomes_are_refused(tmp_path):
    rows = users(11).assign(outcome=pd.Timestamp("2024-01-01"))
    rows.to_parquet(tmp_path / "rows.parquet")
    assert "timestamp" in messages(tmp_path / "rows.parquet")[0][2]


# --- hostile and odd input ---


@pytest.mark.parametrize(
    "name",
    [
        "it's; DROP TABLE cells --.csv",
        "*.csv",
        "[ab]?.csv",
        "k=v.csv",
        "$path.csv",
        "a\nb.csv",
        "rows.csv.gz",
    ],
)
def test_file_names_are_only_names(tmp_path, name):
    (tmp_path / "other.csv").write_text("x\n1\n")
    rows = users(12)
    path = tmp_path / "genre=jazz" / name
    path.parent.mkdir()
    rows.to_csv(path, index=False, compression=None)
    agrees(reduce(path).table, oracle(rows))
    assert has_user_rows(path)


ODD_NAMES = ("'; DROP TABLE cells; --", '"x"', "a,b", "=cmd|' /C calc'!A0", "مدرسة")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_of_columns_and_creators_are_only_text(tmp_path, kind):
    rows = users(13)
    odd = {
        "c0": "'; DROP TABLE cells; --",
        "c1": '"x"',
        "c2": "a,b",
        "c3": "=cmd|' /C calc'!A0",
        "c4": "مدرسة",
    }
    rows["creator"] = rows["creator"].replace(odd)
    rows = rows.rename(columns={"outcome": "Revenue", "creator": "CREATOR ID"})
    rows['x"; DROP TABLE cells; --'] = 1
    path = tmp_path / "rows"
    rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    found = reduce(path).table
    assert set(found["creator"]) == {*ODD_NAMES, "c5"}
    assert is_canonical(found)


def test_a_quoted_path_in_the_data_opens_nothing(tmp_path):
    """A statement cannot reach other files: the database may open the one file alone."""
    from hbm_core.scenarios.creators import user_rows

    secret = tmp_path / "secret.csv"
    secret.write_text("x\n1\n")
    rows = tmp_path / "rows.csv"
    users(14).to_csv(rows, index=False)
    folder = tmp_path / "work"
    folder.mkdir()
    opened = user_rows.open_rows(rows, "", folder)
    with (
        pytest.raises(InputError, match="Permission"),
        user_rows.connection(opened, folder, "200MB", 1) as con,
    ):
        con.execute("SELECT * FROM read_csv($path)", {"path": str(secret)})


def test_stray_spaces_and_cases_and_labels_of_one_arm_come_together():
    rows = users(15)
    expected = oracle(rows)
    rows["group"] = [
        {"treatment": (" Treatment", "T", "1"), "control": ("CONTROL ", "c", "0")}[group][place % 3]
        for place, group in enumerate(rows["group"])
    ]
    rows["creator"] = [name + " " if place % 5 == 0 else name for place, name in enumerate(rows["creator"])]
    agrees(reduce(rows).table, expected)


def test_names_that_look_alike_are_one_name():
    """Composed and decomposed letters, and letters that nobody sees, as in every other table."""
    rows = users(22)
    rows["creator"] = rows["creator"].replace("c1", "Zoë")
    expected = oracle(rows)
    alike = ("Zoe\u0308", "Zo\u200bë", "\u202eZoë\u202c", "Zoë\u00a0")
    odd = [place for place, name in enumerate(rows["creator"]) if name == "Zoë"]
    for place, row in enumerate(odd[:-4]):
        rows.loc[row, "creator"] = alike[place % 4]
    agrees(reduce(rows).table, expected)
    rows.loc[rows.index[0], "genre"] = "\u200b"
    assert messages(rows)[0][1:] == ("genre", "is empty in 1 rows. Fill it in, or remove them.")


def test_decimal_commas_where_points_are_absent(tmp_path):
    rows = users(16)
    path = tmp_path / "rows.csv"
    rows.to_csv(path, index=False, sep=";", decimal=",")
    agrees(reduce(path).table, oracle(rows))
    text = path.read_text().splitlines()
    path.write_text("\n".join([*text, "c0;gaming;t;1.5"]))
    assert "1.5" not in messages(path)[0][2]


def test_numbers_as_names_categories_and_empty_lines(tmp_path):
    rows = users(17)
    expected = oracle(rows)["effect"].to_numpy()
    number = rows["creator"].str[1:].astype(int) + 10
    for creator in (number, number.astype(float), number.astype(str).astype("category")):
        found = reduce(rows.assign(creator=creator, group=rows["group"].eq("treatment").astype(int)))
        assert set(found.table["creator"]) == {str(value) for value in number}
        np.testing.assert_allclose(found.table["effect"], expected, rtol=1e-12)
    path = tmp_path / "rows.csv"
    text = rows.to_csv(index=False).replace("\n", "\r\n\r\n")
    path.write_text("\ufeff" + text + ",,,\r\n", newline="")
    agrees(reduce(path).table, oracle(rows))


def test_the_same_file_gives_the_same_bits_and_leaves_nothing_behind(tmp_path):
    rows, scratch = tmp_path / "rows.parquet", tmp_path / "scratch"
    scratch.mkdir()
    users(18, creators=300).to_parquet(rows)
    first = CREATORS.open(rows)
    assert CREATORS.open(rows).digest == first.digest
    assert reduce(rows, scratch=scratch, memory="100MB").table.equals(first.table)
    assert not any(scratch.iterdir())
    assert first.label == "rows.parquet"
    assert CREATORS.read(first.table).digest == first.digest


def test_the_database_is_silent_on_standard_output(tmp_path):
    from hbm_core.scenarios.creators import user_rows

    opened = user_rows.open_rows(users(14), "", tmp_path)
    with user_rows.connection(opened, tmp_path, "200MB", 1) as con:
        assert con.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_written_in_chunks_open_as_the_simulated_summaries(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("hbm_core.scenarios.creators.simulator._USERS", 3000)
    knobs = {"creators_per_genre": 10}
    path = tmp_path / f"rows.{kind}"
    simulated = CREATORS.simulate(seed=6, **knobs)
    assert write_rows(CREATORS.rows(seed=6, **knobs), path) == simulated.table["n"].sum()
    found = CREATORS.open(path)
    np.testing.assert_allclose(found.table["effect"], simulated.table["effect"], rtol=1e-10)
    assert write_rows(CREATORS.rows(seed=6, level="summaries"), tmp_path / "none.csv") == 0
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_of_summaries_open_too(tmp_path, kind):
    simulated = CREATORS.simulate(seed=6, level="summaries", creators_per_genre=10)
    path = tmp_path / f"summaries.{kind}"
    write_rows([simulated.table], path)
    assert not has_user_rows(path)
    assert CREATORS.open(path).digest == simulated.digest


def test_arrow_tables_are_taken_too():
    rows = users(19)
    agrees(reduce(pa.Table.from_pandas(rows)).table, oracle(rows))


@pytest.mark.parametrize("memory", ["none", "1 parsec"])
def test_a_senseless_memory_limit_is_refused(memory):
    with pytest.raises(InputError, match="memory"):
        reduce(users(20), memory=memory)


def test_too_little_memory_is_said():
    with pytest.raises(InputError, match="memory"):
        reduce(users(21, creators=300), memory="0.3MB")
