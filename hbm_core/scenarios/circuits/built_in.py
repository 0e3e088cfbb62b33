"""Data that come with the program: simulated tables, and what each of their circuits says by itself.

They are kept as files, so that they are the same on every machine and need no solver. `write` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

import hbm_core
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios.circuits.data import read
from hbm_core.scenarios.circuits.simulator import KNOBS, population, simulate

FOLDER = Path(hbm_core.__file__).parents[1] / "assets" / "circuits"
#: Name → label, and knobs other than the defaults; the seed is 3.
SETS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "six": ("Six circuits (simulated)", {}),
        "activators": ("Three activating circuits (simulated)", {"circuits": "activators"}),
    }
)
SEED = 3


def knobs(name: str) -> dict[str, Any]:
    """All knobs of a built-in data set."""
    return {knob.name: knob.default for knob in KNOBS} | dict(SETS[name][1])


@cache
def dataset(name: str) -> Dataset:
    """A built-in data set; KeyError for an unknown name."""
    label, _ = SETS[name]
    found = read(pd.read_csv(FOLDER / f"{name}.csv", dtype=str))
    truth = population(SEED, knobs(name))[1]
    reference = f"Simulated with seed {SEED}; the truth is known"
    return Dataset(name, label, found.table, found.words, reference, truth)


def own(digest: str) -> Mapping[str, Any] | None:
    """What was kept of the single circuits of the data set with this digest; None for any other."""
    return _own().get(digest)


@cache
def _own() -> Mapping[str, Any]:
    found = {}
    for name in SETS:
        path = FOLDER / f"{name}.json"
        if path.exists():
            found[dataset(name).digest] = json.loads(path.read_text("utf-8"))
    return found


def write() -> None:
    """Simulate and fit anew, and put the files in the place of the shipped ones."""
    from hbm_core.analysis.own_fits import own_fits
    from hbm_core.scenarios.circuits.apart import plain
    from hbm_core.scenarios.circuits.data import structure

    FOLDER.mkdir(exist_ok=True)
    for name in SETS:
        made = simulate(SEED, knobs(name))
        (FOLDER / f"{name}.csv").write_text(made.table.to_csv(index=False), "utf-8")
        population = structure(made.table)
        value = {"roles": dict(population.roles), "fits": _short(plain(own_fits(population)))}
        (FOLDER / f"{name}.json").write_text(json.dumps(value) + "\n", "utf-8")
    dataset.cache_clear()
    _own.cache_clear()


def _short(value: Any) -> Any:
    """Six significant digits of every number."""
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.6g}")
