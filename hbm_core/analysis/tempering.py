"""Tables of a fit by parallel tempering: the ladder, walkers' paths, the barrier, the evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def is_tempered(tree: Any) -> bool:
    """Whether a fit was made by parallel tempering and keeps its ladder."""
    return tree.attrs.get("engine") == "tempering" and "tempering" in tree.children


def ladder_table(tree: Any) -> pd.DataFrame:
    """One row per temperature, from the prior (β = 0) to the posterior (β = 1).

    Returns
    -------
    DataFrame
        temperature, beta; step_acceptance, walk_acceptance (trajectories, random walk; NaN where draws of
        the prior are independent), step_size, walk_size (in sds of that temperature's distribution);
        barrier (Λ up to there), log_likelihood (median, nats); swap_acceptance with the next one (NaN at
        the last).
    """
    ladder = tree["tempering"]
    table = pd.DataFrame({"temperature": np.arange(ladder.sizes["temperature"])})
    for name in ("beta", "step_size", "walk_size", "barrier"):
        table[name] = ladder[name].to_numpy()
    table["log_likelihood"] = ladder["mean_log_likelihood"].to_numpy()
    for name in ("step_acceptance", "walk_acceptance"):
        table[name] = ladder[name].mean("chain").to_numpy()
    drawn = (table["step_acceptance"] == 1) & (table["walk_acceptance"] == 1) & (table["beta"] == 0)
    table.loc[drawn, ["step_acceptance", "walk_acceptance", "step_size", "walk_size"]] = np.nan
    table["swap_acceptance"] = [*ladder["swap_acceptance"].mean("chain").to_numpy(), np.nan]
    return table


def barrier_table(tree: Any, points: int = 200) -> pd.DataFrame:
    """The communication barrier along β.

    Returns
    -------
    DataFrame
        beta, total (Λ(β)), local (dΛ/dβ): Syed et al. (2022), JRSS-B 84(2), section 5.2.
    """
    from hbm_core.inference.tempering.ladder import local_barrier

    ladder = tree["tempering"]
    beta, total = ladder["beta"].to_numpy(), ladder["barrier"].to_numpy()
    at = np.linspace(beta[1] ** 0.25, 1, points) ** 4
    local = local_barrier(beta, np.diff(total), at)
    return pd.DataFrame({"beta": at, "total": np.interp(at, beta, total), "local": local})


def path_table(tree: Any, chain: int = 0, walkers: int = 3, most: int = 300) -> pd.DataFrame:
    """Where walkers of one replica were, the last `most` iterations.

    Returns
    -------
    DataFrame
        walker, draw, temperature: the walkers with the most round trips in that stretch first.
    """
    held = tree["tempering"]["walker"].transpose("chain", "draw", "temperature").to_numpy()[chain]
    first = max(0, len(held) - most)
    # From who holds a temperature to where a walker is.
    where = np.argsort(held[first:], axis=1)
    last = held.shape[1] - 1
    ends = [int(np.count_nonzero(np.diff(path[np.isin(path, (0, last))]))) for path in where.T]
    chosen = np.argsort(-np.array(ends), kind="stable")[:walkers]
    parts = [
        pd.DataFrame(
            {"walker": walker, "draw": np.arange(first, first + len(where)), "temperature": where[:, walker]}
        )
        for walker in chosen
    ]
    return pd.concat(parts, ignore_index=True)


def replica_table(tree: Any) -> pd.DataFrame:
    """One row per replica: replica, round_trips, per_draw, and the best that its barrier allows.

    Returns
    -------
    DataFrame
        replica, round_trips, per_draw, best: 1/(2 + 2Λ) per iteration for as many temperatures as one
        likes (Syed et al., 2022, section 3.5). Of few temperatures with wide gaps the count may be smaller;
        where neighbours hardly ever reject it is limited by their number instead.
    """
    trips = tree["tempering"]["round_trips"].to_numpy()
    draws = tree["tempering"].sizes["draw"]
    best = 1 / (2 + 2 * float(tree.attrs["barrier"]))
    return pd.DataFrame(
        {"replica": np.arange(len(trips)), "round_trips": trips, "per_draw": trips / draws, "best": best}
    )


def sentence(tree: Any) -> str:
    """What the ladder did, one or two sentences."""
    trips, ladder = tree["tempering"]["round_trips"].to_numpy(), ladder_table(tree)
    swap = ladder["swap_acceptance"].dropna()
    return (
        f"{len(ladder)} temperatures, swaps accepted {100 * swap.min():.0f} to {100 * swap.max():.0f} %, "
        f"barrier {tree.attrs['barrier']:.2f}, {trips.min():,} to {trips.max():,} round trips per replica. "
        f"Log evidence {tree.attrs['log_evidence']:.3f} ± {tree.attrs['log_evidence_se']:.3f}."
    )
