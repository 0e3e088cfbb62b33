"""Tables of a fit by parallel tempering: the ladder, walkers' paths, the barrier, the evidence; its ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hbm_core.inference.sampler import Sampler
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    from hbm_core.inference.tempering.target import TargetCache

#: Of one simulated data set's posterior, for calibration.
STUDY = Sampler(draws=400, tune=200, chains=2, target_accept=0.3, temperatures=8)
#: Draws among which a truth is ranked, thinned so far that they hardly depend on each other.
_RANKED = 100


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


# --- calibration ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws in the place of an exact posterior, for ranks.

    Parameters
    ----------
    names : tuple of str
        Flat names.
    values : ndarray (n, P)
        Draws.
    rng : numpy.random.Generator
        Breaks ties: a rank becomes uniform on its step.
    """

    names: tuple[str, ...]
    values: np.ndarray
    rng: np.random.Generator

    def cdf(self, name: str, at: np.ndarray) -> np.ndarray:
        """Randomised ranks of `at`, as probabilities: uniform where the truth is one more draw."""
        draws = self.values[:, self.names.index(name)]
        below = (draws[:, None] < np.ravel(at)).sum(axis=0)
        return (below + self.rng.random(below.size)) / (len(draws) + 1)


def drawn(spec: ModelSpec[Any]) -> Any:
    """Thinned draws of a posterior by tempering, in the shape that `sbc_pit` ranks in.

    The seed follows from the data, so that every simulated data set has its own and a study repeats.
    """
    from hbm_core.inference.tempering.engine import temper

    effect = np.ascontiguousarray(spec.structure.effect, dtype=float)
    seed = int(np.random.SeedSequence(effect.view(np.uint32).tolist()).generate_state(1)[0])
    tree = temper(spec, replace(STUDY, seed=seed), cache=_targets())
    names, values = _flat(tree)
    step = max(1, len(values) // _RANKED)
    return Drawn(names, values[::step], np.random.default_rng([seed, 9]))


@cache
def _targets() -> TargetCache:
    from hbm_core.inference.tempering.target import TargetCache

    return TargetCache()


def _flat(tree: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Flat names and draws (n, P), replica after replica."""
    names: list[str] = []
    columns: list[np.ndarray] = []
    dataset = tree["posterior"].to_dataset()
    for name, values in dataset.data_vars.items():
        array = values.transpose("chain", "draw", ...).to_numpy()
        flat = array.reshape(array.shape[0] * array.shape[1], -1)
        inner = [dim for dim in values.dims if dim not in ("chain", "draw")]
        labels = [f"[{label}]" for label in dataset[inner[0]].to_numpy()] if inner else [""]
        names += [f"{name}{label}" for label in labels]
        columns.append(flat)
    return tuple(names), np.concatenate(columns, axis=1)
