"""Draws as rows and columns with flat names: the small summary of a result, and its table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_core.inference.exact.base import PROBABILITIES

#: Units whose effects a summary lists; beyond that, hyperparameters alone.
MOST_UNITS = 1_000
# Vehtari et al. (2021), section 4.2: the smaller effective size of the 5 % and the 95 % quantile.
_TAILS = (0.05, 0.95)


def flat(tree: xr.DataTree, units: int | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Every scalar of the posterior: its flat name (``theta[A]``) and its draws (chain, draw).

    Parameters
    ----------
    tree : xarray.DataTree
        With a group ``posterior``.
    units : int, optional
        Variables with more elements than this are left out.
    """
    for name, array in tree["posterior"].data_vars.items():
        others = [dim for dim in array.dims if dim not in ("chain", "draw")]
        moved = array.transpose("chain", "draw", *others)
        if units is not None and math.prod(moved.shape[2:]) > units:
            continue
        labels = [moved[dim].values for dim in others]
        for place in itertools.product(*(range(len(label)) for label in labels)):
            index: Any = (slice(None), slice(None), *place)
            words = ",".join(str(label[k]) for label, k in zip(labels, place, strict=True))
            yield (
                (f"{name}[{words}]" if others else str(name)),
                moved.values[index],
            )


def summarize(tree: xr.DataTree) -> dict[str, Any]:
    """Moments, quantiles, shortest intervals and convergence of every parameter, ready for JSON.

    Numbers that do not exist (an R-hat of one draw) are None.
    """
    rows = {name: _row(np.asarray(draws, dtype=float)) for name, draws in flat(tree, MOST_UNITS)}
    sizes = tree["posterior"].sizes
    diagnostics: dict[str, Any] = {"chains": sizes["chain"], "draws": sizes["draw"]}
    for column, worst in (("r_hat", max), ("ess_bulk", min), ("ess_tail", min)):
        found = [row[column] for row in rows.values() if row[column] is not None]
        diagnostics[f"{worst.__name__}_{column}"] = worst(found) if found else None
    statistics = tree["sample_stats"].dataset if "sample_stats" in tree.children else xr.Dataset()
    if "diverging" in statistics:
        diagnostics["divergences"] = int(statistics["diverging"].sum())
    if "energy" in statistics:
        energy = statistics["energy"].transpose("chain", "draw").values
        moved = np.square(np.diff(energy, axis=1)).mean(axis=1)
        spread = energy.var(axis=1)
        diagnostics["min_bfmi"] = _finite((moved / spread).min()) if (spread > 0).all() else None
    return {"parameters": rows, "diagnostics": diagnostics}


def _row(draws: np.ndarray) -> dict[str, Any]:
    from arviz_stats.base import array_stats

    levels = np.quantile(draws, PROBABILITIES)
    row = {
        "mean": _finite(draws.mean()),
        "sd": _finite(draws.std(ddof=1)) if draws.size > 1 else None,
        "q": {f"{level:g}": _finite(value) for level, value in zip(PROBABILITIES, levels, strict=True)},
        "hdi95": [_finite(value) for value in array_stats.hdi(draws.ravel(), 0.95)],
    }
    enough = draws.shape[1] >= 4 and draws.std() > 0
    for name, measure in (
        ("ess_bulk", lambda: array_stats.ess(draws, method="bulk")),
        ("ess_tail", lambda: array_stats.ess(draws, method="tail", prob=_TAILS)),
        ("r_hat", lambda: array_stats.rhat(draws)),
        ("mcse_mean", lambda: array_stats.mcse(draws, method="mean")),
    ):
        row[name] = _finite(measure()) if enough else None
    return row


def draws_table(tree: xr.DataTree, units: int | None = None) -> pd.DataFrame:
    """Draws as a table: chain, draw, then one column per flat name.

    `hbm_core.scenarios.tables.csv_text` makes it a download that a spreadsheet cannot run.
    """
    sizes = tree["posterior"].sizes
    chains, draws = np.meshgrid(np.arange(sizes["chain"]), np.arange(sizes["draw"]), indexing="ij")
    columns = {"chain": chains.ravel(), "draw": draws.ravel()}
    return pd.DataFrame(columns | {name: values.ravel() for name, values in flat(tree, units)})


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
