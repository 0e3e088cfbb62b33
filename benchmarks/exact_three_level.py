"""The exact three-level engine, from five hundred to a million units."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import overload

import numpy as np

from benchmarks.row import Row, median_ms, show
from hbm_core.inference.exact.three_level import solve_three_level
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.inference.exact.three_level_table import ThreeLevelTable
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

GROUPS = 5


class Labels(Sequence[str]):
    """Labels that are made when they are asked for: a million texts would be what is measured."""

    def __init__(self, count: int) -> None:
        self.size = count

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [f"u{i}" for i in range(*place.indices(self.size))]
        return f"u{place}"


def simulated(units: int, seed: int = 0) -> ThreeLevelNormal:
    """Effects of units with 30 to 5,000 users, as the default simulation of user rows gives them."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(GROUPS), units // GROUPS)
    kind = rng.choice(3, p=[0.4, 0.35, 0.25], size=units)
    users = rng.integers(np.array([30, 100, 500])[kind], np.array([100, 500, 5000])[kind])
    se = 4 / np.sqrt(users) * np.sqrt(rng.chisquare(users - 2) / (users - 2))
    theta = rng.normal(0.5, 0.3, GROUPS)[group] + 0.4 * rng.standard_normal(units)
    effect = theta + se * rng.standard_normal(units)
    return ThreeLevelNormal(effect, se, group, Labels(units), tuple(f"g{i}" for i in range(GROUPS)))


def spec(shape: ThreeLevelNormal, width: float = 1.0) -> ModelSpec[ThreeLevelNormal]:
    texts = {"mu": "Normal(0, 1)", "sigma_group": f"HalfNormal({width})", "sigma_unit": "HalfNormal(1)"}
    return ModelSpec(shape, {name: Prior.parse(text) for name, text in texts.items()}, {}, "collapsed")


def table(shape: ThreeLevelNormal) -> ThreeLevelPosterior:
    """A table from nothing, and the first placement of nodes."""
    return solve_three_level(spec(shape), ThreeLevelTable(shape))


def change(specs: Callable[[], ModelSpec[ThreeLevelNormal]], known: ThreeLevelTable) -> None:
    """Another prior: the moments of all hyperparameters."""
    if solve_three_level(specs(), known).replaced:
        raise RuntimeError("nodes were put anew")


def units(shape: ThreeLevelNormal, known: ThreeLevelTable) -> None:
    solve_three_level(spec(shape), known).unit_moments()


#: Units, repetitions, targets in ms: table, prior change, all units' moments.
CASES = (
    (500, 30, (20.0, 1.0, None)),
    (50_000, 10, (None, 1.0, None)),
    (1_000_000, 5, (300.0, 1.0, 50.0)),
)

_MEMORY = """
import resource, sys
from benchmarks.exact_three_level import simulated, table
posterior = table(simulated(1_000_000))
posterior.unit_moments(), posterior.pooling, posterior.weights, posterior.hyper_quantiles()
posterior.unit_quantiles(units=range(1000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "numba" in sys.modules)
"""


def rows() -> list[Row]:
    """Table, prior change, units; quantiles and error; peak memory of a process."""
    found = []
    for count, repeat, (first, second, third) in CASES:
        shape = simulated(count)
        words = f"{count:,} units in {GROUPS} groups: "
        milliseconds = median_ms(partial(table, shape), repeat)
        found.append(Row(words + "table and first answer", milliseconds, "ms", first))
        known = ThreeLevelTable(shape)
        posterior = solve_three_level(spec(shape), known)
        widths = cycle([spec(shape, width) for width in np.linspace(0.6, 1.4, 20)])
        milliseconds = median_ms(partial(change, partial(next, widths), known), 60)
        note = f"own error estimate {posterior.error:.0e} sd"
        found.append(Row(words + "prior change", milliseconds, "ms", second, note=note))
        milliseconds = median_ms(partial(units, shape, known), repeat)
        found.append(Row(words + "prior change and all units' means and sds", milliseconds, "ms", third))
        start = time.perf_counter()
        posterior.hyper_quantiles(), posterior.group_quantiles()
        posterior.unit_quantiles(units=range(500))
        milliseconds = 1e3 * (time.perf_counter() - start)
        found.append(Row(words + "quantiles of hyperparameters, groups and 500 units", milliseconds, "ms"))
    answer = subprocess.run(
        [sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True
    ).stdout.split()
    note = "data, table, all units' moments, weights; " + ("no numba" if answer[1] == "False" else "numba")
    found.append(Row("1,000,000 units: peak memory of the process", float(answer[0]), "MB", 1000, note=note))
    return found


if __name__ == "__main__":
    show(rows())
