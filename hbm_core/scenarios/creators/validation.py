"""Every estimator against simulated truth, over seeds: error, coverage and width by size of creator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.coverage import LEVELS
from hbm_core.analysis.recovery import Intervals, groups, hyper_scores, over_data_sets, scores
from hbm_core.errors import InputError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.scenarios.creators.data import structure
from hbm_core.scenarios.creators.estimators import estimators, welch_df
from hbm_core.scenarios.creators.look import size_bins
from hbm_core.scenarios.creators.models import BASE
from hbm_core.scenarios.creators.simulator import KNOBS, Truth, simulate

#: Estimators that need no prior.
CLASSICAL = ("no_pooling", "complete_pooling", "empirical_bayes", "empirical_bayes_moments", "james_stein")
PARTIAL = "partial_pooling"


def score_dataset(
    dataset: Dataset,
    posterior: ExactPosterior | None = None,
    levels: Sequence[float] = LEVELS,
    names: Sequence[str] = (*CLASSICAL, PARTIAL),
) -> pd.DataFrame:
    """Score the estimators on one simulated data set: overall, by size, by distance and after selection.

    Returns
    -------
    pandas.DataFrame
        As of `recovery.scores`; groupings "all", "size" (`look.SIZE_BINS`), "distance" (thirds of
        |θ_i − μ_g|, true values) and "selection" (by raw effect).

    Raises
    ------
    InputError
        The data have no truth.
    """
    truth = dataset.truth
    if not isinstance(truth, Truth):
        raise InputError("data set", "simulated data, whose truth is known", dataset.label)
    shape = structure(dataset)
    found = estimators(shape, welch_df(dataset.table), posterior)
    tails = [*((1 - np.asarray(levels)) / 2), *((1 + np.asarray(levels)) / 2)]
    intervals = {}
    for name, one in found.items():
        if name in names:
            ends = one.quantiles(tails)
            intervals[name] = Intervals(one.point, ends[:, : len(levels)], ends[:, len(levels) :])
    masks = groups(
        truth.theta, truth.mu_genre[shape.group], shape.effect, size_bins(dataset.table["n"].to_numpy())
    )
    return scores(truth.theta, intervals, masks, levels)


def recovery(
    replications: int = 50,
    seed: int = 1,
    priors: Mapping[str, Prior] | None = None,
    names: Sequence[str] = (*CLASSICAL, PARTIAL),
    levels: Sequence[float] = LEVELS,
    progress: Callable[[float], None] | None = None,
    solver: Callable[[Any], ExactPosterior] = solve,
    **knobs: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate, estimate and score over one seed after another.

    Parameters
    ----------
    replications, seed : int
        Data sets, and the seed of the first; the next have the following numbers.
    priors : mapping, optional
        Of partial pooling; the defaults of the model `base` for the rest.
    names : sequence of str
        Estimators; without "partial_pooling" nothing is solved.
    progress : callable, optional
        Called with the share done.
    solver : callable
        ``ModelSpec -> ExactPosterior``.
    **knobs
        Of the simulator.

    Returns
    -------
    scores : pandas.DataFrame
        As of `recovery.over_data_sets`.
    hyper : pandas.DataFrame
        replication, parameter (mu, sigma_genre, sigma_creator), truth, estimate, low, high, covered: partial
        pooling's mean and central 95 % interval; empty without it.
    """
    if int(replications) < 2:
        raise InputError("replications", "a whole number of at least 2", replications)
    for name in names:
        if name not in (*CLASSICAL, PARTIAL):
            raise InputError("estimator", "one of " + ", ".join((*CLASSICAL, PARTIAL)), repr(name))
    full = _knobs(knobs)
    parts, hyper = [], []
    for place in range(int(replications)):
        dataset = simulate(seed + place, full)
        posterior = None
        if PARTIAL in names:
            posterior = solver(BASE.spec(dataset, priors))
            ends = posterior.quantiles((0.025, 0.975))[:3]
            series = (pd.Series(v, posterior.names[:3]) for v in (posterior.mean[:3], *ends.T))
            hyper.append(hyper_scores(dataset.truth or {}, *series).assign(replication=place))
        parts.append(score_dataset(dataset, posterior, levels, names))
        if progress is not None:
            progress((place + 1) / replications)
    columns = ["replication", "parameter", "truth", "estimate", "low", "high", "covered"]
    found = pd.concat(hyper, ignore_index=True)[columns] if hyper else pd.DataFrame(columns=columns)
    return over_data_sets(parts), found


def _knobs(given: Mapping[str, Any]) -> dict[str, Any]:
    known = {knob.name: knob for knob in KNOBS}
    for name in given:
        if name not in known:
            raise InputError("simulator knob", "one of " + ", ".join(known), repr(name))
    return {name: knob.check(given.get(name, knob.default)) for name, knob in known.items()}


def relative_width(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean interval width of each estimator over no pooling's, by bin: what pooling gains.

    The theory for partial pooling: a typical creator's width is √(1 − B) of its own, with
    B = s²/(s² + σ_creator²).

    Returns
    -------
    pandas.DataFrame
        estimator, grouping, bin, ratio.
    """
    here = table[np.isclose(table["level"], level)]
    keys = ["grouping", "bin"]
    own = here[here["estimator"] == "no_pooling"].set_index(keys)["width"]
    ratio = here.set_index(keys)["width"] / own.reindex(here.set_index(keys).index)
    return here[["estimator", *keys]].assign(ratio=ratio.to_numpy())


def theoretical_width(dataset: Dataset, sigma_creator: float) -> float:
    """Mean of √(1 − B_i) s_i over the mean of s_i: the width to be expected of partial pooling."""
    se = dataset.table["se"].to_numpy()
    return float((se * np.sqrt(sigma_creator**2 / (se**2 + sigma_creator**2))).mean() / se.mean())
