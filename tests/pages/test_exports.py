"""Every file that the app hands out, with names that a spreadsheet, a script or a notebook could run."""

from __future__ import annotations

import ast
import csv
import io
import json

import pandas as pd
import pytest

from hbm_core.analysis.shrinkage import borrowing_matrix, pooling_ledger
from hbm_core.inference.exact import solve
from hbm_core.scenarios import scenario
from hbm_core.scenarios.tables import csv_text
from hbm_core.ui import fits_page
from hbm_core.ui.fits_page import Entry
from tests.pages.fitted import SESSION, engine, publish, study
from tests.pages.test_fits import entry

__all__ = ["engine"]
NAMES = [
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "+1",
    '"]; import os; os.abort() #',
    "'''\\",
    '<img src=x onerror="alert(1)">',
    "$\\href{javascript:alert(1)}{y}$",
]
COLUMN = "-2+3|cmd"


@pytest.fixture
def hostile(engine) -> Entry:
    """A finished fit of data whose every name means harm."""
    table = pd.DataFrame({"unit": NAMES, "effect": range(1, 8), "se": 2.0, COLUMN: [3.0, 1, 4, 1, 5, 9, 2]})
    digest = engine.upload(scenario("schools").read(table, label=NAMES[0]), SESSION)
    chosen = study(dataset=digest).change(model="covariates", covariates=(COLUMN,))
    return entry(engine, publish(engine, chosen))


def cells(text: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(text)) for cell in row]


def runs(cell: str) -> bool:
    """Whether a spreadsheet would take the cell for a formula."""
    try:
        float(cell)
    except ValueError:
        return cell.lstrip(" ")[:1] in tuple("=+-@\t\r|")
    return False


def test_no_cell_of_a_table_runs(hostile):
    for text in (fits_page.draws_csv(hostile), fits_page.summary_csv(hostile)):
        found = cells(text)
        assert any("cmd" in cell for cell in found)
        assert not [cell for cell in found if runs(cell)]


def test_names_in_a_script_are_its_data_alone(hostile):
    tree = ast.parse(fits_page.code(hostile))
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert ast.literal_eval(values["units"]) == NAMES
    assert ast.literal_eval(values["columns"]) == [COLUMN]
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert "os" not in imported
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "abort" not in {call.attr for call in calls if isinstance(call, ast.Attribute)}


def test_names_in_a_notebook_are_in_code_cells_as_text_alone(hostile):
    notebook = json.loads(fits_page.notebook(hostile))
    source = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    ast.parse(source)
    words = "\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )
    assert "<img" not in words.replace("\\<", "") and "$\\href" not in words


def test_the_ledger_and_the_canonical_table_run_nothing(hostile, engine):
    request = hostile.request
    dataset = engine.dataset(hostile.job.id)
    spec = request.spec(dataset)
    posterior = solve(spec)
    for table in (dataset.table, pooling_ledger(spec, posterior), borrowing_matrix(spec).reset_index()):
        assert not [cell for cell in cells(csv_text(table)) if runs(cell)]
