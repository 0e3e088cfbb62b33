"""The exact engine of the Student-t models: the table once per data set, then re-weighting."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.row import Row, show
from hbm_core.inference.exact import robust
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal


def spec_of(y: np.ndarray, se: np.ndarray, kind: str, scale: float) -> ModelSpec:
    units = tuple(str(i) for i in range(len(y)))
    levels = {"likelihood": "student_t"} if kind == "likelihood" else {"effects": "student_t"}
    structure = TwoLevelNormal(y, se, units, **levels)  # type: ignore[arg-type]
    texts = {"mu": "Normal(0, 20)", "tau": f"HalfCauchy({scale})", "nu": "Gamma(2, 0.1)"}
    return ModelSpec(structure, {name: Prior.parse(text) for name, text in texts.items()})


def clocked(function: Callable[..., object], *arguments: object) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    function(*arguments)
    return 1e3 * (time.perf_counter() - start)


def rows() -> list[Row]:
    """Student-t likelihood and Student-t effects, 8 to 200 units: medians of three fresh tables each."""
    rng = np.random.default_rng(1)
    data = {
        "8 schools": (np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18]))
    }
    for units in (50, 200):
        se = rng.uniform(2, 5, units)
        data[f"{units} units"] = (rng.normal(3, 5, units) + rng.normal(0, se), se)
    found = []
    for name, (y, se) in data.items():
        for kind in ("likelihood", "effects"):
            table, first, change, quantiles, draws = [], [], [], [], []
            for _ in range(3):
                robust._CACHE.clear()
                spec, changed = spec_of(y, se, kind, 10), spec_of(y, se, kind, 11)
                table.append(clocked(robust.solve_robust, spec))
                solved = robust.solve_robust(spec)
                first.append(clocked(solved.quantiles))
                change.append(clocked(robust.solve_robust, changed))
                other = robust.solve_robust(changed)
                quantiles.append(clocked(other.quantiles))
                draws.append(clocked(other.draws, 4000))
            made = (
                f"table {statistics.median(table):.0f} ms, its quantiles {statistics.median(first):.0f} ms, "
                f"4,000 draws {statistics.median(draws):.0f} ms; own error estimate {solved.error:.0e} sd"
            )
            both = statistics.median(np.add(change, quantiles).tolist())
            found.append(Row(f"{name}, Student-t {kind}: another prior number", both, "ms", note=made))
    return found


if __name__ == "__main__":
    show(rows())
