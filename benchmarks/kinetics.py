"""Solver of circuits: six circuits, three conditions each, twenty times, with the gradient.

``HBM_PEERS`` names a Python that has diffrax and JAX, which are no dependencies of the project; without one,
LSODA is the only peer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.row import Row, show
from hbm_core.models.kinetics.program import Experiment, program
from hbm_core.models.kinetics.rna import CIRCUITS, PARAMETERS
from tests.models.kinetics.by_hand import CONDITIONS, WRITTEN, curve

NAMES = tuple(PARAMETERS)
CENTER = np.array([parameter.center for parameter in PARAMETERS.values()])
TIMES = np.linspace(9.0, 180.0, 20)
#: diffrax's tolerances: errors come out like this solver's, below 1e-4 of a curve's maximum.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-5


def least(function: Callable, *arguments: Any, rounds: int = 50, repeat: int = 5) -> float:
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
    from hbm_core.models.kinetics.radau import pull, solve

    tables = program([Experiment(CIRCUITS[id], CONDITIONS[id], TIMES) for id in CIRCUITS], NAMES)
    given = np.tile(CENTER, (len(CIRCUITS), 1)), tables.ints, tables.floats, tables.starts
    weight = np.ones(tables.size)

    def both() -> None:
        _, record = solve(*given)
        pull(*given, record, weight)

    truth: list[np.ndarray] = []

    def lsoda() -> None:
        truth[:] = _each(lambda id, condition: curve(id, _constants(CENTER), condition, TIMES))

    peer = least(lsoda, rounds=1, repeat=1)
    gradient, alone = least(both), least(solve, *given)
    error = _error(solve(*given)[0], truth)
    note = f"processor time; largest error {error:.0e} of a curve's maximum"
    against = "SciPy's LSODA, values alone"
    found = [
        Row("curves and gradient", gradient, "µs", target=300, note=note),
        Row("curves alone", alone, "µs", against=against, ratio=peer / alone, note="rtol 1e-10, in Python"),
    ]
    other = diffrax()
    if other is None:
        print("diffrax is not measured: set HBM_PEERS to a Python with diffrax and JAX")
        return found
    error = _error(np.array(other["curves"]), truth)
    note = f"its largest error {error:.0e}; compiled in {other['compiled']:.0f} s; equations by every state"
    row = Row(
        "curves and gradient",
        gradient,
        "µs",
        against="diffrax, Kvaerno5",
        ratio=other["time"] / gradient,
        note=note,
    )
    return [*found, row]


def diffrax() -> dict[str, Any] | None:
    """What `measured` finds in a process that has diffrax; None where there is none."""
    peers = os.environ.get("HBM_PEERS", sys.executable)
    if subprocess.run([peers, "-c", "import diffrax"], capture_output=True).returncode:
        return None
    run = subprocess.run(
        [peers, "-m", "benchmarks.kinetics", "diffrax"], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def measured() -> dict[str, Any]:
    """Time of curves and gradient by diffrax, microseconds; its curves, and seconds of compiling."""
    import diffrax as dx
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def solved(id: str) -> Callable:
        written, place = WRITTEN[id]
        doses = {name: jnp.array([one[name] for one in CONDITIONS[id]]) for name in CONDITIONS[id][0]}

        def one(theta: Any, condition: Any) -> Any:
            f, size = written(_constants(theta), condition)
            made = dx.diffeqsolve(
                dx.ODETerm(lambda t, y, _: jnp.stack(f(t, y))),
                dx.Kvaerno5(),
                0.0,
                TIMES[-1],
                None,
                jnp.zeros(size),
                saveat=dx.SaveAt(ts=jnp.array(TIMES)),
                stepsize_controller=dx.PIDController(rtol=_RELATIVE, atol=_ABSOLUTE),
            )
            return made.ys[:, place]

        def total(theta: Any) -> Any:
            found = jax.vmap(one, (None, 0))(theta, doses)
            return found.sum(), found

        return jax.jit(jax.value_and_grad(total, has_aux=True))

    began = time.perf_counter()
    functions = [solved(id) for id in CIRCUITS]
    theta = jnp.array(CENTER)

    def all_of_them() -> list[Any]:
        return jax.block_until_ready([function(theta) for function in functions])

    found = [np.asarray(values).ravel() for (_, values), _ in all_of_them()]
    compiled = time.perf_counter() - began
    taken = least(all_of_them, rounds=10, repeat=1)
    return {"time": taken, "compiled": compiled, "curves": np.concatenate(found).tolist()}


def _constants(theta: Any) -> dict[str, Any]:
    return {name: 10.0 ** theta[place] for place, name in enumerate(NAMES)}


def _each(function: Callable) -> list[Any]:
    return [function(id, condition) for id in CIRCUITS for condition in CONDITIONS[id]]


def _error(found: np.ndarray, truth: list[np.ndarray]) -> float:
    parts = zip(found.reshape(len(truth), -1), truth, strict=True)
    return max(float(np.abs(mine - right).max() / right.max()) for mine, right in parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["diffrax"]:
        print(json.dumps(measured()))
    else:
        show(rows())
