"""What intervals promise at each τ: coverage curves on common random numbers, and worlds for a study.

A central interval covers θ where the posterior distribution function at θ lies between its two tails, so
coverage needs no quantiles: one evaluation per effect serves every level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from hbm_core.analysis.batched import linear, tau_mixture
from hbm_core.analysis.coverage import CLASSICAL, Truth, estimate
from hbm_core.analysis.spread import Spread, in_turn
from hbm_core.errors import NotExactError
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

#: Effects that are solved at once: more share less.
_AT_ONCE = 1_000


def lab_priors(spec: ModelSpec) -> dict[str, Prior]:
    """Return the priors on mu and tau under which the lab can pool like `spec`.

    Raises
    ------
    NotExactError
        The model is not the two-level normal one with a normal prior on μ, or has more to it.
    """
    structure = spec.structure
    plain = structure.pooling == "partial" and structure.scale == "identity" and not structure.columns
    if not (plain and linear(spec)):
        raise NotExactError(
            "simulation lab",
            "normal effects around one mean, with a normal or flat prior on mu",
            ", ".join(f"{name} ~ {prior.text}" for name, prior in spec.priors.items())
            + ("" if plain else f" in a model with {_more(structure)}"),
            "Choose the model weak or skeptical.",
        )
    return {"mu": spec.priors["mu"], "tau": spec.priors["tau"]}


def _more(structure: TwoLevelNormal) -> str:
    if structure.pooling != "partial":
        return f"{structure.pooling} pooling"
    return "covariates" if structure.columns else "another scale or other tails"


def like_sizes(se: np.ndarray, count: int) -> np.ndarray:
    """`count` standard errors like those of a study: evenly along their quantiles.

    >>> like_sizes(np.array([9.0, 10.0, 18.0]), 3)
    array([ 9., 10., 18.])
    """
    se = np.asarray(se, dtype=float)
    if count == se.size:
        return np.sort(se)
    return np.quantile(se, (np.arange(count) + 0.5) / count, method="hazen")


def tau_grid(typical: float) -> np.ndarray:
    """Values of τ for a curve: 0, and 1, 2, 3, 5, 7 times powers of ten around `typical`, ascending.

    Parameters
    ----------
    typical : float
        Typical standard error c: the grid is dense where τ/(τ + c) moves.
    """
    found = [m * 10.0**p for p in range(-12, 13) for m in (1, 2, 3, 5, 7)]
    share = np.array(found) / (np.array(found) + typical)
    kept = [t for t, u in zip(found, share, strict=True) if 0.12 < u < 0.92]
    return np.array([0.0, *kept])


def infinite(table: pd.DataFrame, tail: float) -> pd.DataFrame:
    """Put infinity where a measure has no mean: complete pooling where τ is drawn with a heavy tail.

    Parameters
    ----------
    table : DataFrame
        From `coverage_study`.
    tail : float
        k of a density of τ that falls as τ^(−k − 1); infinity where τ is fixed.

    Notes
    -----
    Complete pooling misses θ_i by about τ. Its mean absolute miss needs E[τ] to exist, k > 1, and its mean
    squared miss E[τ²], k > 2; Monte-Carlo averages would follow the largest draw.
    """
    found = table.copy()
    rows = found["estimator"] == "complete"
    measures = ["mse", "rmse"] if tail <= 2 else []
    if tail <= 1:
        measures += ["mae", "interval_score"]
        found.loc[rows, ["bias", "bias_se"]] = np.nan
    for name in measures:
        found.loc[rows, name] = np.inf
        found.loc[rows, f"{name}_se"] = np.nan
    return found


def coverage_curve(
    truth: Truth,
    priors: Mapping[str, Mapping[str, Prior]],
    taus: Sequence[float],
    classical: Sequence[str] = CLASSICAL,
    replications: int = 400,
    seed: int = 42,
    levels: Sequence[float] = (0.95,),
    progress: Callable[[float], None] | None = None,
    spread: Spread = in_turn,
) -> pd.DataFrame:
    """Coverage at each fixed τ, and averaged over each prior; the same standardised draws at every τ.

    Where τ is fixed, μ is fixed too, at each prior's own mean (0 where it has none).

    Parameters
    ----------
    truth : Truth
        The world; its mu and tau are replaced.
    priors : mapping of str to mapping
        Partial-pooling estimators by name, each with its priors on mu and tau.
    taus : sequence of float
        In the outcome's units.
    classical : sequence of str
        Of "none", "complete", "eb".
    replications, seed : int
        Data sets at each τ, and the seed that makes them.
    levels : sequence of float
        Probabilities of the central intervals.
    progress : callable, optional
        Called with the share done.
    spread : Spread
        Computes the parts; the numbers do not depend on it.

    Returns
    -------
    DataFrame
        estimator, tau (the outcome's units; NaN where μ and τ are drawn from the estimator's prior),
        level, replications, coverage and coverage_se (fractions).
    """
    rows: list[dict[str, object]] = []
    steps = len(classical) + len(priors)
    se = np.array(truth.se)
    for done, name in enumerate((*classical, *priors), start=1):
        prior = priors.get(name)
        center = float(prior["mu"].distribution.mean()) if prior and prior["mu"].proper else 0.0
        worlds = [replace(truth, mu=center, tau=float(t)) for t in taus]
        if prior and prior["mu"].proper and prior["tau"].proper:
            worlds.append(replace(truth, mu=prior["mu"], tau=prior["tau"]))
        made = [world.simulate(replications, seed) for world in worlds]
        theta = np.concatenate([world["theta"] for world in made])
        effect = np.concatenate([world["effect"] for world in made])
        if prior is None:
            found = estimate(name, effect, se, levels=levels)
            inside = (theta[:, :, None] >= found.low) & (theta[:, :, None] <= found.high)
        else:
            below = _below(effect, theta, se, prior, spread)[:, :, None]
            tail = (1 - np.asarray(levels)) / 2
            inside = (below >= tail) & (below <= 1 - tail)
        each = inside.mean(axis=1).reshape(len(worlds), replications, len(levels))
        mean, error = each.mean(axis=1), each.std(axis=1, ddof=1) / np.sqrt(replications)
        for place, world in enumerate(worlds):
            rows += [
                {
                    "estimator": name,
                    "tau": np.nan if isinstance(world.tau, Prior) else world.tau,
                    "level": level,
                    "replications": replications,
                    "coverage": mean[place, k],
                    "coverage_se": error[place, k],
                }
                for k, level in enumerate(levels)
            ]
        if progress is not None:
            progress(done / steps)
    return pd.DataFrame(rows)


def _below(
    effect: np.ndarray, theta: np.ndarray, se: np.ndarray, prior: Mapping[str, Prior], spread: Spread
) -> np.ndarray:
    """Posterior probability below each true effect, ndarray (R, J)."""
    # data sets of similar spread share their nodes: far fewer of them per chunk
    order = np.argsort(effect.std(axis=1), kind="stable")
    size = max(1, _AT_ONCE // len(se))
    chunks = [order[start : start + size] for start in range(0, len(effect), size)]
    jobs = [(effect[chunk], theta[chunk], se, dict(prior)) for chunk in chunks]
    out = np.empty(effect.shape)
    for chunk, found in zip(chunks, spread(_below_part, jobs), strict=True):
        out[chunk] = found
    return out


def _below_part(
    effect: np.ndarray, theta: np.ndarray, se: np.ndarray, prior: Mapping[str, Prior]
) -> np.ndarray:
    units = tuple(str(place) for place in range(len(se)))
    spec = ModelSpec(TwoLevelNormal(effect[0], se, units), prior)
    return tau_mixture(spec, effect).theta().cdf(theta)
