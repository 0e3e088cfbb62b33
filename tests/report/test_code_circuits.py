"""Scripts of circuits: the same density as the fit's own model."""

from dataclasses import replace

import pandas as pd
import pytest

from hbm_core.inference.sampler import Sampler
from hbm_core.models.dataset import Dataset
from hbm_core.report.code import script
from hbm_core.scenarios.circuits import CIRCUITS, data
from tests.report.test_code_counts import same_density


@pytest.fixture(scope="module")
def few() -> Dataset:
    """Two circuits at three times."""
    table = CIRCUITS.dataset("activators").table
    kept = table["circuit"].isin(["constitutive", "sense_star"]) & table["time_min"].isin([30, 90, 180])
    return data.read(table[kept].reset_index(drop=True))


@pytest.fixture(scope="module")
def standards(few) -> Dataset:
    """The same as fluorescence, with standards."""
    table = few.table.rename(columns={"gfp_nM": "fluorescence"})
    table["fluorescence"] = 5 + 2 * table["fluorescence"]
    table["standard_nM"] = 0.0
    rows = table.iloc[:4].assign(circuit="standard", standard_nM=[0, 10, 100, 1000])
    rows["fluorescence"] = 5 + 2 * rows["standard_nM"] + [0.1, -0.2, 1, -1]
    return data.read(pd.concat([table, rows], ignore_index=True))


@pytest.mark.parametrize(
    ("model", "geometry"),
    [
        ("full", "noncentered"),
        ("full", "centered"),
        ("diagonal", "noncentered"),
        ("shared", "noncentered"),
        ("independent", "centered"),
        ("constant", "noncentered"),
        ("inverse_wishart", "noncentered"),
    ],
)
def test_the_script_states_the_same_model(few, model, geometry) -> None:
    constants = {"role[k_mat]": 1.0} if model in ("full", "independent") else None
    same_density(CIRCUITS.model(model).spec(few, constants=constants, parameterization=geometry))


def test_the_script_states_the_calibration_too(standards) -> None:
    spec = CIRCUITS.model("heteroscedastic").spec(standards, parameterization="noncentered")
    assert "slope" in spec.priors
    same_density(spec)


def test_a_script_says_what_it_imports_and_where_it_differs(few) -> None:
    spec = CIRCUITS.model("full").spec(few)
    text = script(spec, Sampler(), "Circuits")
    assert "from hbm_core.models.kinetics" in text and "installed" in text
    assert spec.parameterization == "transport" and "other draws" in text
    assert "other draws" not in script(replace(spec, parameterization="centered"), Sampler(), "Circuits")
