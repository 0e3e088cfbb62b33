"""Every estimator against simulated truth, over seeds: error, coverage and width by number of windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hbm_core.analysis.coverage import LEVELS
from hbm_core.analysis.recovery import Intervals, groups, over_data_sets, scores
from hbm_core.errors import InputError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.dataset import Dataset
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.prior import Prior
from hbm_core.scenarios.counts.data import count_structure
from hbm_core.scenarios.counts.estimators import count_estimators
from hbm_core.scenarios.counts.models import BASE
from hbm_core.scenarios.counts.simulator import KNOBS, simulate

WINDOW_BINS = ("1–2 windows", "3–9 windows", "≥ 10 windows")


def window_bins(windows: np.ndarray) -> np.ndarray:
    """Label of how many windows each entity has, ndarray (J,) of str: `WINDOW_BINS`."""
    return np.array(WINDOW_BINS)[np.digitize(windows, [3, 10])]


def _intervals(
    structure: GammaCounts, posterior: ExactPosterior, levels: Sequence[float]
) -> dict[str, Intervals]:
    """Intervals of every estimator at every level; of plug-in estimators gamma ones of their moments."""
    tails = [*((1 - np.asarray(levels)) / 2), *((1 + np.asarray(levels)) / 2)]
    count = len(levels)
    found = {}
    ends = structure.raw_ends(tails)
    found["no_pooling"] = Intervals(structure.effect, ends[:, :count], ends[:, count:])
    classical = count_estimators(structure)
    for name in ("complete_pooling", "empirical_bayes"):
        one = classical[name]
        shape = np.maximum((one.point / one.se) ** 2, 1e-6)
        scale = np.maximum(one.point, 1e-12) / shape
        ends = stats.gamma.ppf(np.array(tails), shape[:, None], scale=scale[:, None])
        # Its spreads are moment estimates.
        key = "empirical_bayes_moments" if name == "empirical_bayes" else name
        found[key] = Intervals(one.point, ends[:, :count], ends[:, count:])
    ends = posterior.quantiles(tails)[posterior.theta]
    mean = posterior.mean[posterior.theta]
    found["partial_pooling"] = Intervals(mean, ends[:, :count], ends[:, count:])
    return found


def score_dataset(
    dataset: Dataset, posterior: ExactPosterior, levels: Sequence[float] = LEVELS
) -> pd.DataFrame:
    """Score the estimators on one simulated data set: overall, by windows, by distance, after selection.

    Returns
    -------
    pandas.DataFrame
        As of `recovery.scores`; groupings "all", "size" (`WINDOW_BINS`), "distance" and "selection".

    Raises
    ------
    InputError
        The data have no truth.
    """
    if dataset.truth is None:
        raise InputError("data set", "simulated data, whose truth is known", dataset.label)
    structure = count_structure(dataset)
    theta = np.array([dataset.truth[f"theta[{unit}]"] for unit in structure.units])
    center = np.full(theta.size, dataset.truth["mu"])
    masks = groups(theta, center, structure.effect, window_bins(structure.windows))
    return scores(theta, _intervals(structure, posterior, levels), masks, levels)


def recovery(
    replications: int = 50,
    seed: int = 1,
    priors: Mapping[str, Prior] | None = None,
    levels: Sequence[float] = LEVELS,
    progress: Callable[[float], None] | None = None,
    **knobs: Any,
) -> pd.DataFrame:
    """Simulate, estimate and score over one seed after another.

    Parameters
    ----------
    replications, seed : int
        Data sets, and the seed of the first; the next have the following numbers.
    priors : mapping, optional
        Of partial pooling; the defaults of the model `base` for the rest.
    progress : callable, optional
        Called with the share done.
    **knobs
        Of the simulator.

    Returns
    -------
    pandas.DataFrame
        As of `recovery.over_data_sets`.
    """
    if int(replications) < 2:
        raise InputError("replications", "a whole number of at least 2", replications)
    known = {knob.name: knob for knob in KNOBS}
    for name in knobs:
        if name not in known:
            raise InputError("simulator knob", "one of " + ", ".join(known), repr(name))
    full = {name: knob.check(knobs.get(name, knob.default)) for name, knob in known.items()}
    parts = []
    for place in range(int(replications)):
        dataset = simulate(seed + place, full)
        parts.append(score_dataset(dataset, solve(BASE.spec(dataset, priors)), levels))
        if progress is not None:
            progress((place + 1) / replications)
    return over_data_sets(parts)
