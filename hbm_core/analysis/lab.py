"""The parameterization lab: the same posterior sampled in several geometries, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.draws import agreement, diagnostics, summary

COLUMNS = (
    "parameterization", "draws", "min_ess", "slowest", "ess_per_second", "divergences", "r_hat", "seconds",
    "largest", "farthest", "limit", "agrees",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run of the lab.

    Parameters
    ----------
    parameterization : str
        Its geometry.
    summary : pandas.DataFrame
        From `hbm_core.analysis.draws.summary`: hyperparameters and θ alike.
    seconds : float
        Spent sampling, warm-up included, compilation not.
    draws, divergences : int
        Kept draws of all chains, and how many of them diverged.
    """

    parameterization: str
    summary: pd.DataFrame = field(repr=False)
    seconds: float
    draws: int
    divergences: int


def run_of(tree: Any) -> Run:
    """A run from its result, as the engines write it."""
    table = summary(tree)
    found = diagnostics(tree, table)
    return Run(
        str(tree.attrs["parameterization"]),
        table,
        float(tree.attrs["timing_sample"]),
        found["chains"] * found["draws"],
        found.get("divergences", 0),
    )


def lab_table(runs: Iterable[Run], exact: pd.DataFrame | None = None) -> pd.DataFrame:
    """Compare geometries over the same quantities.

    Parameters
    ----------
    runs : iterable of Run
        Same data, priors and seed.
    exact : pandas.DataFrame, optional
        Exact summary: columns mean, sd, ``q0.5``.

    Returns
    -------
    pandas.DataFrame
        One row per run, in order: parameterization; draws; min_ess (smallest bulk ESS over the
        hyperparameters and θ that all runs share) and slowest, its parameter; ess_per_second; divergences;
        r_hat (largest); seconds; largest (distance of a mean, sd or median from exact, in MCSE) and
        farthest, its parameter; limit; agrees (None without exact).
    """
    found = list(runs)
    if not found:
        return pd.DataFrame(columns=list(COLUMNS))
    shared = [name for name in found[0].summary.index if all(name in run.summary.index for run in found)]
    rows = []
    for run in found:
        table = run.summary.loc[shared]
        ess = float(table["ess_bulk"].min())
        row: dict[str, Any] = {
            "parameterization": run.parameterization,
            "draws": run.draws,
            "min_ess": ess,
            "slowest": str(table["ess_bulk"].idxmin()),
            "ess_per_second": ess / run.seconds if run.seconds > 0 else np.nan,
            "divergences": run.divergences,
            "r_hat": float(table["r_hat"].max()),
            "seconds": run.seconds,
            "largest": np.nan,
            "farthest": "",
            "limit": np.nan,
            "agrees": None,
        }
        if exact is not None:
            compared = agreement(table, exact)
            worst = compared[["z_mean", "z_sd", "z_median"]].abs().max(axis=1).dropna()
            if len(worst):
                row |= {
                    "largest": float(worst.max()),
                    "farthest": str(worst.idxmax()),
                    "limit": float(compared["limit"].iloc[0]),
                    "agrees": bool(compared["agrees"].all()),
                }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def differences(runs: Iterable[Run], exact: pd.DataFrame) -> pd.DataFrame:
    """Distances of the means from exact.

    Returns
    -------
    pandas.DataFrame
        parameterization, parameter, z (mean minus exact, in MCSE), limit.
    """
    parts = [
        agreement(run.summary, exact)
        .reset_index()[["parameter", "z_mean", "limit"]]
        .rename(columns={"z_mean": "z"})
        .assign(parameterization=run.parameterization)
        for run in runs
    ]
    columns = ["parameterization", "parameter", "z", "limit"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
