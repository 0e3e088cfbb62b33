"""Solver of circuits: six circuits, three conditions each, twenty times, with all derivatives.

diffrax is not among the peers: it and JAX are no dependencies of the project.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.row import Row, show
from hbm_core.models.kinetics.program import Experiment, program
from hbm_core.models.kinetics.rna import CIRCUITS, PARAMETERS
from hbm_core.models.kinetics.solver import curves, curves_and_slopes
from tests.models.kinetics.by_hand import CONDITIONS, curve

NAMES = tuple(PARAMETERS)
CENTER = np.array([parameter.center for parameter in PARAMETERS.values()])
TIMES = np.linspace(9.0, 180.0, 20)


def least(function, *arguments, rounds: int = 50, repeat: int = 5) -> float:
    """Least processor time of one call, microseconds."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(repeat):
            function(*arguments)
        found.append((time.process_time() - start) / repeat)
    return 1e6 * min(found)


def rows() -> list[Row]:
    """All figures."""
    tables = program([Experiment(CIRCUITS[id], CONDITIONS[id], TIMES) for id in CIRCUITS], NAMES)
    theta = np.tile(CENTER, (len(CIRCUITS), 1))
    constants = dict(zip(NAMES, 10**CENTER, strict=True))
    both, alone = least(curves_and_slopes, tables, theta), least(curves, tables, theta)

    def peer() -> None:
        for id in CIRCUITS:
            for condition in CONDITIONS[id]:
                curve(id, constants, condition, TIMES)

    lsoda = least(peer, rounds=1, repeat=1)
    note = "processor time; LSODA at rtol 1e-10 with equations in Python, values alone"
    against = "SciPy's LSODA"
    return [
        Row("curves and derivatives", both, "µs", target=300, against=against, ratio=lsoda / both, note=note),
        Row("curves alone", alone, "µs", against=against, ratio=lsoda / alone),
    ]


if __name__ == "__main__":
    show(rows())
