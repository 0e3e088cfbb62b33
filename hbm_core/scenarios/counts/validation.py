"""Every estimator against simulated truth, over seeds: error, coverage and width by how much was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hbm_core.analysis.coverage import LEVELS
from hbm_core.analysis.recovery import Intervals, groups, over_data_sets, scores
from hbm_core.errors import InputError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.dataset import Dataset
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.prior import Prior
from hbm_core.scenarios.counts.estimators import Estimated, classical_estimators
from hbm_core.scenarios.counts.models import MODELS
from hbm_core.scenarios.counts.simulator import KNOBS, simulate

#: Knobs of the simulator in whose worlds a model is true, beside the defaults.
WORLDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"base": {}, "poisson": {"phi": 1e6}, "binomial": {"kind": "successes of trials"}}
)
#: How much was seen of an entity: where bins begin, and their labels.
_WINDOWS = (3, 10), ("1–2 windows", "3–9 windows", "≥ 10 windows")
_TRIALS = (50, 150), ("< 50 trials", "50–149 trials", "≥ 150 trials")


def size_bins(structure: GammaCounts | BetaBinomial) -> np.ndarray:
    """Label of how much was seen of each entity, ndarray (J,) of str."""
    if isinstance(structure, BetaBinomial):
        (starts, labels), seen = _TRIALS, structure.trials
    else:
        (starts, labels), seen = _WINDOWS, structure.windows
    return np.array(labels)[np.digitize(seen, starts)]


def _plug_in(structure: GammaCounts | BetaBinomial, one: Estimated, tails: Sequence[float]) -> np.ndarray:
    """Quantiles of the gamma or beta distributions with these means and standard errors, ndarray (J, P)."""
    p, mean, se = np.asarray(tails), one.point[:, None], one.se[:, None]
    if isinstance(structure, BetaBinomial):
        count = np.maximum(mean * (1 - mean) / se**2 - 1, 1e-6)
        return np.asarray(
            stats.beta.ppf(p, np.maximum(mean * count, 1e-9), np.maximum((1 - mean) * count, 1e-9))
        )
    shape = np.maximum((mean / se) ** 2, 1e-6)
    return np.asarray(stats.gamma.ppf(p, shape, scale=np.maximum(mean, 1e-12) / shape))


def _intervals(
    structure: GammaCounts | BetaBinomial, posterior: ExactPosterior, levels: Sequence[float]
) -> dict[str, Intervals]:
    """Intervals of every estimator at every level; of plug-in estimators those of their moments."""
    tails = [*((1 - np.asarray(levels)) / 2), *((1 + np.asarray(levels)) / 2)]
    count = len(levels)
    found = {}
    ends = structure.raw_ends(tails)
    found["no_pooling"] = Intervals(structure.effect, ends[:, :count], ends[:, count:])
    classical = classical_estimators(structure)
    for name in ("complete_pooling", "empirical_bayes"):
        one = classical[name]
        ends = _plug_in(structure, one, tails)
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
    """Score the estimators on one simulated data set: overall, by size, by distance, after selection.

    Returns
    -------
    pandas.DataFrame
        As of `recovery.scores`; groupings "all", "size" (`size_bins`), "distance" and "selection".

    Raises
    ------
    InputError
        The data have no truth.
    """
    if dataset.truth is None:
        raise InputError("data set", "simulated data, whose truth is known", dataset.label)
    structure: Any = posterior.spec.structure
    theta = np.array([dataset.truth[f"theta[{unit}]"] for unit in structure.units])
    center = np.full(theta.size, dataset.truth["mu"])
    masks = groups(theta, center, structure.effect, size_bins(structure))
    return scores(theta, _intervals(structure, posterior, levels), masks, levels)


def recovery(
    replications: int = 50,
    seed: int = 1,
    model: str = "base",
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
    model : str
        One of `WORLDS`: what partial pooling assumes, and what is true.
    priors : mapping, optional
        Of partial pooling; the model's defaults for the rest.
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
    told = {**WORLDS[model], **knobs}
    full = {name: knob.check(told.get(name, knob.default)) for name, knob in known.items()}
    parts = []
    for place in range(int(replications)):
        dataset = simulate(seed + place, full)
        parts.append(score_dataset(dataset, solve(MODELS[model].spec(dataset, priors)), levels))
        if progress is not None:
            progress((place + 1) / replications)
    return over_data_sets(parts)
