"""A small design of circuits for calibration: three circuits, three rate constants, one dose to predict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.dataset import Dataset
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios import scenario
from hbm_core.scenarios.circuits.models import ROLE_NUMBERS

Spec = ModelSpec[CircuitPopulation]
#: Constants that every one of the three circuits uses; maturation beside them would make two modes, as the
#: rates of two first-order steps in a row can be exchanged.
FITTED = ("k_tx", "K_tx", "k_rna_deg")
#: Conditions of each circuit.
CONDITIONS = {
    "constitutive": ("gfp 1 nM", "gfp 5 nM"),
    "sense_star": ("star 0 nM", "star 5 nM", "star 15 nM"),
    "toehold_trigger": ("trigger 1 nM", "trigger 5 nM"),
}
#: Where few readings shall tell a dose that nobody measured: of the smallest circuit the other dose is
#: measured, at the first times alone.
SMALLEST, PREDICTED, _FEW = "constitutive", "gfp 1 nM", (30.0, 60.0)
_TIMES, _REPLICATES = (30.0, 60.0, 90.0, 120.0, 150.0, 180.0), 2


def design(model: str = "full") -> Spec:
    """A model of the scenario with all conditions, and readings of the data set `activators`."""
    circuits = scenario("circuits")
    table = circuits.dataset("activators").table
    asked = [(unit, label) for unit, labels in CONDITIONS.items() for label in labels]
    timely = table["time_min"].isin(_TIMES).to_numpy()
    kept = timely & pd.MultiIndex.from_frame(table[["circuit", "condition"]]).isin(asked)
    rank = table.groupby(["circuit", "condition"])["replicate"].rank(method="dense").to_numpy()
    table = table[kept & (rank <= _REPLICATES)].reset_index(drop=True)
    dataset = Dataset("design", "Three small circuits", table)
    declared = circuits.model(model)
    roles = {
        f"role[{name}]": float(ROLE_NUMBERS.index("fitted" if name in FITTED else "fixed"))
        for name in declared.spec(dataset).structure.declared
    }
    return declared.spec(dataset, constants=roles)


def few_readings(spec: Spec) -> np.ndarray:
    """Mask over the readings: none of the dose to predict, and few times of the smallest circuit."""
    point = spec.structure.point
    at = {name: np.asarray(label)[point] for name, label in spec.structure.point_labels.items()}
    own = (at["condition"] != PREDICTED) & np.isin(at["time_min"], _FEW)
    return np.where(at["circuit"] == SMALLEST, own, True)


def curve_to_predict(spec: Spec) -> np.ndarray:
    """Places of the curve to predict among all points, ndarray (times,)."""
    labels = spec.structure.point_labels
    return np.flatnonzero((labels["circuit"] == SMALLEST) & (labels["condition"] == PREDICTED))
