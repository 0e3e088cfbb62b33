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
#: Conditions of each circuit; of the smallest circuit the last one is predicted.
CONDITIONS = {
    "constitutive": ("gfp 1 nM", "gfp 5 nM"),
    "sense_star": ("star 0 nM", "star 5 nM", "star 15 nM"),
    "toehold_trigger": ("trigger 1 nM", "trigger 5 nM"),
}
SMALLEST = "constitutive"
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


def to_predict(spec: Spec) -> int:
    """The condition that is predicted, counted over all circuits in order."""
    each = zip(spec.structure.units, spec.structure.conditions, strict=True)
    labels = [(unit, label) for unit, own in each for label in own]
    return labels.index((SMALLEST, CONDITIONS[SMALLEST][-1]))


def curve_to_predict(spec: Spec) -> np.ndarray:
    """Places of that condition's curve among all points, ndarray (times,)."""
    labels = spec.structure.point_labels
    return np.flatnonzero((labels["circuit"] == SMALLEST) & (labels["condition"] == CONDITIONS[SMALLEST][-1]))
