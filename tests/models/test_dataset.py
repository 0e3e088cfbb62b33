import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from hbm_core.models.dataset import Dataset, Words, table_from_arrow, table_to_arrow

TABLE = pd.DataFrame({"unit": ["a", "é", "مدرسة"], "effect": [1.5, -2.0, np.nan], "count": [1, 2, 3]})


def data(table=TABLE):
    return Dataset("x", "X", table)


def test_tables_survive_their_bytes():
    pd.testing.assert_frame_equal(table_from_arrow(table_to_arrow(TABLE)), TABLE)


def test_digest_ignores_index_chunks_and_string_storage():
    same = [
        TABLE.set_index(pd.Index([7, 8, 9])),
        pd.concat([TABLE.head(1), TABLE.tail(2)]),
        TABLE.astype({"unit": "object"}),
        TABLE.astype({"unit": "string[pyarrow]"}),
    ]
    assert {data(table).digest for table in same} == {data().digest}


@pytest.mark.parametrize(
    "changed",
    [
        TABLE.assign(effect=[1.5, -2.0 + 1e-15, np.nan]),
        TABLE.rename(columns={"count": "n"}),
        TABLE[["unit", "count", "effect"]],
        TABLE.iloc[::-1],
        TABLE.assign(count=[1.0, 2.0, 3.0]),
        TABLE.head(2),
    ],
)
def test_digest_sees_every_change(changed):
    assert data(changed).digest != data().digest


def test_digest_depends_on_the_table_alone():
    other = Dataset("y", "Y", TABLE, Words("school", "schools"), "somewhere", {"mu": 1.0})
    assert other.digest == data().digest == hashlib.sha256(data().arrow).hexdigest()


def test_digest_is_the_same_in_another_process():
    code = (
        "import pandas as pd\n"
        "from hbm_core.models.dataset import Dataset\n"
        "t = pd.DataFrame({'unit': ['a', 'b'], 'effect': [1.0, 0.1]})\n"
        "print(Dataset('x', 'X', t).digest)"
    )
    environment = {"PYTHONHASHSEED": "99", "PYTHONPATH": ":".join(filter(None, sys.path))}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert said.stdout.strip() == data(pd.DataFrame({"unit": ["a", "b"], "effect": [1.0, 0.1]})).digest


def test_words_name_the_axis():
    assert Words(outcome="Effect", unit="SAT points").axis == "Effect, SAT points"
    assert Words(outcome="Log ratio").axis == "Log ratio"
