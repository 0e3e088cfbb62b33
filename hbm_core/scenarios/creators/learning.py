"""What hyperpriors learned from an earlier batch are worth in the next one, against simulated truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.inference.learned import learned_priors
from hbm_core.models.dataset import Dataset
from hbm_core.models.pymc_three_level import group_sums
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.scenarios.creators.data import structure
from hbm_core.scenarios.creators.models import BASE
from hbm_core.scenarios.creators.simulator import KNOBS, Truth, simulate

#: Added to the seed of the first batch to seed the second.
_SECOND = 1_000_000
ESTIMATORS = ("default", "learned", "known")


def known_estimate(shape: ThreeLevelNormal, mu: float, group: float, unit: float) -> np.ndarray:
    """E[θ_i | y] at known hyperparameters, ndarray (N,): the ceiling of what any hyperprior can reach.

    Parameters
    ----------
    shape : ThreeLevelNormal
        Data.
    mu, group, unit : float
        μ, σ_group and σ_unit, in the outcome's units.
    """
    sums = group_sums(shape, unit)
    share = group**2 / (group**2 + 1 / sums.precision)
    mean = (mu + share * (sums.mean - mu))[shape.group]
    pooling = shape.se**2 / (shape.se**2 + unit**2)
    return mean + (1 - pooling) * (shape.effect - mean)


def learning_gain(
    replications: int = 200,
    seed: int = 1,
    sizes: Sequence[int] = (1, 5),
    earlier: int = 100,
    progress: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """Error on a second batch under default, learned and known hyperparameters, in pairs.

    Both batches come from the simulator's default hyperparameters and have genres of their own; from the
    first, 5 genres × `earlier` creators, priors are learned for the second.

    Parameters
    ----------
    replications, seed : int
        Pairs of batches, and the seed of the first.
    sizes : sequence of int
        Creators per genre in the second batch.
    earlier : int
        Creators per genre in the first batch.
    progress : callable, optional
        Called with the share done.

    Returns
    -------
    pandas.DataFrame
        size, estimator (default, learned, known), replications, mse, gain (1 − mse/mse of default) and
        gain_se, its standard error over pairs.
    """
    if int(replications) < 2:
        raise InputError("replications", "a whole number of at least 2", replications)
    errors = np.empty((len(sizes), int(replications), len(ESTIMATORS)))
    for place in range(int(replications)):
        first = BASE.spec(_batch(seed + place, earlier))
        usual = first.priors
        learned = {name: one.prior for name, one in learned_priors(solve(first)).items()}
        for row, size in enumerate(sizes):
            dataset = _batch(seed + place + _SECOND, size)
            truth, shape = dataset.truth, structure(dataset)
            assert isinstance(truth, Truth)
            found = {"known": known_estimate(shape, truth.mu, truth.sigma_genre, truth.sigma_creator)}
            for name, priors in (("default", usual), ("learned", {**usual, **learned})):
                posterior = solve(ModelSpec(shape, priors))
                assert isinstance(posterior, ThreeLevelPosterior)
                found[name] = posterior.unit_moments()[0]
            for column, name in enumerate(ESTIMATORS):
                errors[row, place, column] = np.mean(np.square(found[name] - truth.theta))
        if progress is not None:
            progress((place + 1) / replications)
    return pd.DataFrame([line for row, size in enumerate(sizes) for line in _lines(size, errors[row])])


def _batch(seed: int, creators: int) -> Dataset:
    knobs: Mapping[str, object] = {"level": "summaries", "creators_per_genre": creators}
    return simulate(seed, {knob.name: knob.check(knobs.get(knob.name, knob.default)) for knob in KNOBS})


def _lines(size: int, errors: np.ndarray) -> list[dict[str, object]]:
    """One line per estimator from errors (replications, 3), the default's first."""
    base = errors[:, 0].mean()
    lines: list[dict[str, object]] = []
    for column, name in enumerate(ESTIMATORS):
        ratio = errors[:, column].mean() / base
        # Of a ratio of means, by linearisation.
        off = (errors[:, column] - ratio * errors[:, 0]) / base
        lines.append(
            {
                "size": size,
                "estimator": name,
                "replications": len(errors),
                "mse": errors[:, column].mean(),
                "gain": 1 - ratio,
                "gain_se": off.std(ddof=1) / np.sqrt(len(errors)),
            }
        )
    return lines
