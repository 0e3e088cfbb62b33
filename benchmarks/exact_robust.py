"""Times of the exact engine of the Student-t models: the table, a prior change, quantiles, draws."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

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
    start = time.perf_counter()
    function(*arguments)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    rng = np.random.default_rng(1)
    data = {
        "8 schools": (np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18]))
    }
    for units in (50, 200):
        se = rng.uniform(2, 5, units)
        data[f"J = {units}"] = (rng.normal(3, 5, units) + rng.normal(0, se), se)
    print(
        "| data | Student-t | table | first quantiles | prior change | its quantiles | 4,000 draws | nodes |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (y, se) in data.items():
        for kind in ("likelihood", "effects"):
            rows = []
            for _ in range(3):
                robust._CACHE.clear()
                spec, changed = spec_of(y, se, kind, 10), spec_of(y, se, kind, 11)
                table = clocked(robust.solve_robust, spec)
                first = robust.solve_robust(spec)
                start = clocked(first.quantiles)
                change = clocked(robust.solve_robust, changed)
                other = robust.solve_robust(changed)
                rows.append((table, start, change, clocked(other.quantiles), clocked(other.draws, 4000)))
            best = " | ".join(f"{value:.1f} ms" for value in np.min(rows, axis=0))
            counts = first._table.lattice.counts
            print(f"| {name} | {kind} | {best} | {counts[0]} × {counts[1]} × {counts[2]} |")


if __name__ == "__main__":
    main()
