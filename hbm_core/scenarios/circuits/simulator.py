"""Simulated time courses of the six circuits, with their truth.

Finals have the measured sizes where these are known: constitutive GFP some 2,600 nM, a toehold switch from 16
to some 120, sense and STAR from 30 to some 75.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.models.kinetics.lsoda import curves
from hbm_core.models.kinetics.program import Experiment
from hbm_core.models.kinetics.rna import CIRCUITS, PARAMETERS
from hbm_core.scenarios.base import Knob
from hbm_core.scenarios.circuits.data import PLASMID, PLASMIDS, ROLES, WORDS

TIMES = np.arange(10.0, 181.0, 10.0)
KNOBS = (
    Knob("noise", "Noise: sd of a reading of 1 nM, nM", 0.1, 0.001, 10, 0.01),
    Knob("exponent", "Noise grows as this power of the mean", 0.77, 0, 1.5, 0.01),
    Knob("gain", "Spread of the replicates' gains, log", 0.08, 0, 0.5, 0.01),
    Knob("spread", "Spread of a parameter between circuits, decades", 0.1, 0.001, 1, 0.01),
    Knob("correlation", "Correlation of any two parameters between circuits", 0.3, 0, 0.95, 0.05),
    Knob("circuits", "Which circuits", "all", 0, 0, choices=("all", "activators")),
)
#: The circuits in which something only ever turns expression on, one step each.
ACTIVATORS = ("constitutive", "sense_star", "toehold_trigger")
#: Significant digits of a reading.
_DIGITS = 6
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


def population(
    seed: int, knobs: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, float], np.random.Generator]:
    """What is drawn before any reading.

    Returns
    -------
    dict, dict, Generator
        θ of each circuit (log10, a number per entry of ``PARAMETERS``), the truth by the names of fits, and
        the stream as it goes on.

    Raises
    ------
    InputError
        The seed is not a whole number from 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError("seed", "a whole number from 0", seed)
    rng = np.random.default_rng(seed)
    names, shared = tuple(PARAMETERS), np.sqrt(knobs["correlation"])
    center = np.array([np.log10(CENTERS.get(name, PARAMETERS[name].median)) for name in names])
    moves = np.array([name not in ROLES for name in names]) * knobs["spread"]
    chosen = DESIGN if knobs["circuits"] == "all" else ACTIVATORS
    own = np.sqrt(1 - knobs["correlation"])
    theta = {
        circuit: center + moves * (shared * rng.standard_normal() + own * rng.standard_normal(len(names)))
        for circuit in chosen
    }
    used = {name for circuit in chosen for name in CIRCUITS[circuit].names if name not in ROLES}
    fitted = [(place, name) for place, name in enumerate(names) if name in used]
    truth = {f"alpha[{name}]": float(center[place]) for place, name in fitted}
    truth |= {f"sigma[{name}]": float(knobs["spread"]) for _, name in fitted}
    pairs = [(a, b) for k, (_, b) in enumerate(fitted) for _, a in fitted[:k]]
    truth |= {f"corr[{a},{b}]": float(knobs["correlation"]) for a, b in pairs}
    truth |= {name: float(knobs[name]) for name in ("noise", "exponent", "gain")}
    for circuit in sorted(theta):
        truth |= {f"theta[{circuit},{name}]": float(theta[circuit][place]) for place, name in fitted}
    return theta, truth, rng


def simulate(seed: int, knobs: Mapping[str, Any]) -> Dataset:
    """Courses of the circuits, with the truth of every parameter of a fit.

    θ_c = α + σ (√ρ u_c + √(1 − ρ) z_c): all parameters have the sd σ and any two the correlation ρ.

    Parameters
    ----------
    seed : int
        The one seed.
    knobs : mapping of str to float
        A value for each of ``KNOBS``.

    Raises
    ------
    InputError
        As of `population`.
    """
    theta, truth, rng = population(seed, knobs)
    rows = [
        frame
        for circuit, constants in theta.items()
        for frame in _courses(circuit, 10**constants, knobs, rng)
    ]
    table = pd.concat(rows, ignore_index=True)
    plasmids = [PLASMID + name for name in PLASMIDS if PLASMID + name in table]
    table[plasmids] = table[plasmids].fillna(0.0)
    first = ["circuit", "mechanism", "condition", "replicate", "time_min", "gfp_nM", "baseline_min"]
    table = table[first + plasmids].sort_values(first[:1] + first[2:5], kind="stable").reset_index(drop=True)
    label = f"{'Six circuits' if knobs['circuits'] == 'all' else 'Three activators'}, simulated, seed {seed}"
    return Dataset("simulated", label, table, WORDS, truth=truth)


def _courses(
    circuit: str, constants: np.ndarray, knobs: Mapping[str, Any], rng: np.random.Generator
) -> list[pd.DataFrame]:
    """Readings of all conditions and replicates of one circuit."""
    replicates, base, varied, doses = DESIGN[circuit]
    conditions = tuple({**base, varied: dose} for dose in doses)
    experiment = Experiment(CIRCUITS[circuit], conditions, TIMES)
    found = curves(experiment, dict(zip(PARAMETERS, constants, strict=True)))
    made = []
    for dose, condition, curve in zip(doses, conditions, found, strict=True):
        for replicate in range(1, replicates + 1):
            gain = np.exp(knobs["gain"] * rng.standard_normal())
            sd = knobs["noise"] * (gain * np.maximum(curve, 0.1)) ** knobs["exponent"]
            value = gain * curve + sd * rng.standard_normal(TIMES.size)
            rounded = [float(f"{number:.{_DIGITS}g}") for number in value]
            frame = pd.DataFrame({"time_min": TIMES, "gfp_nM": rounded, "baseline_min": 0.0})
            frame["circuit"] = frame["mechanism"] = circuit
            frame["condition"], frame["replicate"] = f"{varied} {dose:g} nM", str(replicate)
            for plasmid, amount in condition.items():
                frame[PLASMID + plasmid] = float(amount)
            made.append(frame)
    return made
