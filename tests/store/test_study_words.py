"""A built-in data set that somebody edited keeps its words; a table of one's own has none of them."""

from __future__ import annotations

import pandas as pd
import pytest

from hbm_core.models.dataset import Dataset, table_to_arrow
from hbm_core.scenarios import scenario
from hbm_core.store.study import Study

SCHOOLS = scenario("schools").dataset("eight_schools")


def kept(table: pd.DataFrame) -> Dataset:
    arrow = table_to_arrow(table)
    own = scenario("schools").read(table)
    return Study.default("schools").change(dataset=own.digest).data(lambda digest: arrow)


def edited(changes: int) -> pd.DataFrame:
    table = SCHOOLS.table.copy()
    table.loc[: changes - 1, "effect"] += 1.0
    return table


@pytest.mark.parametrize("table", [edited(1), edited(3), SCHOOLS.table.drop(index=2)])
def test_an_edited_data_set_keeps_its_words(table: pd.DataFrame) -> None:
    found = kept(table)
    assert found.words == SCHOOLS.words
    assert found.table["effect"].tolist() == table["effect"].tolist()


def test_the_same_labels_alone_are_no_kinship() -> None:
    assert kept(edited(8)).words != SCHOOLS.words
    assert kept(SCHOOLS.table.iloc[:3]).words != SCHOOLS.words
