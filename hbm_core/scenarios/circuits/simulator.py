"""Simulated time courses of the six circuits, with their truth.

Finals have the measured sizes where these are known: constitutive GFP some 2,600 nM, a toehold switch from 16
to some 120, sense and STAR from 30 to some 75.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hbm_core.models.dataset import Dataset
from hbm_core.models.kinetics.program import Experiment, program
from hbm_core.models.kinetics.rna import CIRCUITS, PARAMETERS
from hbm_core.models.kinetics.solver import curves
from hbm_core.scenarios.base import Knob
from hbm_core.scenarios.circuits.data import PLASMID, ROLES, WORDS

TIMES = np.arange(10.0, 181.0, 10.0)
KNOBS = (
    Knob("noise", "Noise: sd of a reading of 1 nM, nM", 0.1, 0.001, 10, 0.01),
    Knob("exponent", "Noise grows as this power of the mean", 0.77, 0, 1.5, 0.01),
    Knob("gain", "Spread of the replicates' gains", 0.04, 0, 0.5, 0.01),
    Knob("spread", "Spread of a circuit's parameters, decades", 0.1, 0, 1, 0.01),
)
#: Population centres that differ from the published prior medians. They give the measured finals and
#: doses, and courses that are nearly straight, as measured ones are: RNA decays within minutes.
CENTERS: Mapping[str, float] = {
    "k_tx": 58,
    "K_tx": 36,
    "k_rna_deg": 0.25,
    "k_tl": 92,
    "K_tl": 90,
    "k_tx_init": 0.58,
    "k_star_bind": 0.004,
    "k_star_act": 0.055,
    "k_star_act_reg": 4.0,
    "k_star_stop": 0.1,
    "k_star_stop_reg": 0.075,
    "k_trigger_binding": 0.1,
    "k_tl_unbound_toehold": 0.0032,
    "k_tl_bound_toehold": 0.052,
}
#: Circuits, their replicates, and the plasmids of their conditions.
DESIGN: Mapping[str, tuple[int, Mapping[str, float], str, tuple[float, ...]]] = {
    "constitutive": (3, {}, "gfp", (1, 3, 5)),
    "sense_star": (3, {"sense_gfp": 0.5}, "star", (0, 3, 5, 10, 15)),
    "toehold_trigger": (3, {"toehold_gfp": 5}, "trigger", (0, 1, 2, 3, 4, 5)),
    "cascade": (3, {"toehold_gfp": 5, "sense_trigger": 20}, "star", (0, 3, 10, 15)),
    "coherent_ffl": (2, {"sense_toehold_gfp": 12, "sense_trigger": 12}, "star", (0, 5, 15)),
    "incoherent_ffl": (2, {"toehold_gfp": 3, "sense_antitrigger": 5}, "star_trigger", (1, 5)),
}


def simulate(seed: int, knobs: Mapping[str, float]) -> Dataset:
    """Courses of the six circuits with the truth of every parameter that a circuit uses.

    Parameters
    ----------
    seed : int
        The one seed.
    knobs : mapping of str to float
        A value for each of ``KNOBS``.
    """
    rng = np.random.default_rng(seed)
    names = tuple(PARAMETERS)
    center = np.array([np.log10(CENTERS.get(name, PARAMETERS[name].median)) for name in names])
    moves = np.array([name not in ROLES for name in names]) * knobs["spread"]
    rows, truth = (
        [],
        {f"alpha[{name}]": float(c) for name, c in zip(names, center, strict=True) if name not in ROLES},
    )
    for circuit, (replicates, base, varied, doses) in DESIGN.items():
        theta = center + moves * rng.standard_normal(len(names))
        conditions = tuple({**base, varied: dose} for dose in doses)
        experiment = Experiment(CIRCUITS[circuit], conditions, TIMES)
        found = curves(program([experiment], names), theta[None]).reshape(len(doses), -1)
        for name in CIRCUITS[circuit].names:
            if name not in ROLES:
                truth[f"theta[{circuit},{name}]"] = float(theta[names.index(name)])
        for dose, condition, curve in zip(doses, conditions, found, strict=True):
            for replicate in range(1, replicates + 1):
                sd = knobs["noise"] * np.maximum(curve, 0.1) ** knobs["exponent"]
                gain = 1 + knobs["gain"] * rng.standard_normal()
                frame = pd.DataFrame(
                    {"time_min": TIMES, "gfp_nM": gain * curve + sd * rng.standard_normal(TIMES.size)}
                )
                frame["circuit"] = frame["mechanism"] = circuit
                frame["condition"], frame["replicate"] = f"{varied} {dose:g} nM", str(replicate)
                for plasmid, amount in condition.items():
                    frame[PLASMID + plasmid] = float(amount)
                rows.append(frame)
    table = pd.concat(rows, ignore_index=True)
    table["baseline_min"] = 0.0
    plasmids = sorted(column for column in map(str, table.columns) if column.startswith(PLASMID))
    table[plasmids] = table[plasmids].fillna(0.0)
    first = ["circuit", "mechanism", "condition", "replicate", "time_min", "gfp_nM", "baseline_min"]
    table = table[first + plasmids].sort_values(first[:1] + first[2:5], kind="stable").reset_index(drop=True)
    truth |= {name: float(knobs[name]) for name in ("noise", "exponent", "gain")}
    return Dataset("simulated", f"Six circuits, simulated (seed {seed})", table, WORDS, truth=truth)
