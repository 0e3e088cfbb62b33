"""A fit as a notebook: valid, runnable in order, and safe whatever its title says."""

import ast
import json

import pytest

from hbm_core.report.code import script
from hbm_core.report.notebook import notebook
from hbm_core.store.study import Study


def made(title="Eight schools", **changes):
    study = Study.default().change(**changes)
    return json.loads(
        notebook(script(study.spec(study.data()), study.sampler, title), title, "μ ~ Normal(0, 20)")
    )


def sources(value, kind):
    return ["".join(cell["source"]) for cell in value["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("parameterization", ["centered", "collapsed", "partial"])
def test_its_cells_are_the_script(parameterization):
    study = Study.default().change(parameterization=parameterization)
    text = script(study.spec(study.data()), study.sampler, "t")
    cells = sources(made("t", parameterization=parameterization), "code")
    expected = ast.parse(text).body[1:]
    found = ast.parse("\n\n".join(cells)).body
    assert [ast.dump(node) for node in found[:-1]] == [ast.dump(node) for node in expected[:-1]]
    # the last prints a table in the script, and shows it in the notebook
    assert cells[-1].startswith("az.summary(") and "print" not in cells[-1]


def test_it_has_the_sections_in_order():
    words = sources(made(), "markdown")
    assert words[0].startswith("# Eight schools")
    assert [text.splitlines()[0] for text in words[1:]] == ["## Data", "## Model", "## Fit", "## Summary"]


def test_it_follows_the_format():
    value = made()
    assert (value["nbformat"], value["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in value["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in value["cells"]:
        assert set(cell) >= {"cell_type", "metadata", "source", "id"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_a_title_is_text_and_no_markup():
    words = sources(made("<img src=x onerror=alert(1)> [a](http://b)"), "markdown")[0]
    assert "<img" not in words.replace("\\<", "") and "](http" not in words.replace("\\]", "")
