"""Leave one unit out: how well the others, and the model, predict each unit.

Every likelihood has the unit's θ_i integrated out, so the numbers are the same for every parameterization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logsumexp
from scipy.stats import binom
from scipy.stats import t as student

from hbm_core.analysis.batched import Normals, effect_scale, leave_one_out, linear, without
from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.models.three_level import ThreeLevelNormal

#: Draws of the hyperparameters per unit where the predictive density is averaged over draws.
_DRAWS = 4000
_TAILS = np.array([0.025, 0.5, 0.975])


def loo_table(
    spec: ModelSpec, solver: Callable[[ModelSpec], ExactPosterior] = solve, seed: int = 42
) -> pd.DataFrame:
    """Exact leave-one-out: the model refitted to J − 1 units, priors fixed, for every unit.

    Parameters
    ----------
    spec : ModelSpec
        At least two units (one where nothing is pooled).
    solver : callable
        ``ModelSpec -> ExactPosterior`` for models that are not Gaussian given τ.
    seed : int
        Of the draws behind those models' predictions.

    Returns
    -------
    DataFrame
        unit; effect; predicted, low95, high95 (median and central interval of the predictive distribution
        of y_i given the others, outcome's units); log_density (log p(y_i | y_−i), so its sum is the
        elpd); pit (P(ỹ_i ≤ y_i | y_−i)); outside (bool: beyond the interval); mcse (Monte-Carlo error of
        log_density, 0 for quadrature). NaN where the prior predicts nothing (flat, without pooling).

    Raises
    ------
    ImproperPosteriorError
        Too few units remain for these priors.
    """
    structure = spec.structure
    units = len(structure.units)
    if isinstance(structure, ThreeLevelNormal):
        return _three_level(spec, solver)
    if not isinstance(structure, TwoLevelNormal):
        raise NotExactError("leave-one-out", "units around one common mean", type(structure).__name__)
    if units < 2 and structure.pooling != "none":
        raise ImproperPosteriorError("leave-one-out", "at least two units", units, "Add units.")
    if linear(spec):
        found = _by_quadrature(spec)
    else:
        found = pd.DataFrame([_by_draws(spec, place, solver, seed) for place in range(units)])
    return _tidy(spec, found)


def _tidy(spec: ModelSpec[Any], found: pd.DataFrame) -> pd.DataFrame:
    structure: Any = spec.structure
    found.insert(0, "unit", [str(label) for label in structure.units])
    found.insert(1, "effect", structure.effect)
    found["outside"] = (found["effect"] < found["low95"]) | (found["effect"] > found["high95"])
    columns = ["unit", "effect", "predicted", "low95", "high95", "log_density", "pit", "outside", "mcse"]
    return found[columns]


def _three_level(spec: ModelSpec[Any], solver: Callable[[ModelSpec], ExactPosterior]) -> pd.DataFrame:
    """One solution for all units: what each leaves to the others follows from the weights of both sds.

    The posterior without unit i has the density of the full one over p(y_i | y_-i, both sds).
    """
    structure: ThreeLevelNormal = spec.structure
    if len(structure.units) < 2:
        raise ImproperPosteriorError("leave-one-out", "at least two units", 1, "Add units.")
    posterior: Any = solver(spec)
    rows, done = [], 0
    try:
        for weight, mean, sd in posterior.unit_predictive():
            effect = structure.effect[done : done + len(mean), None]
            done += len(mean)
            normals = Normals(weight, mean[:, None], sd[:, None])
            low, median, high = normals.quantiles(_TAILS)[:, 0].T
            values = (median, low, high, normals.log_density(effect)[:, 0], normals.cdf(effect)[:, 0])
            rows.append(np.column_stack(values))
    except NotImplementedError as reason:
        raise NotExactError(
            "leave-one-out", "a normal or flat prior on mu", spec.priors["mu"].text, str(reason)
        ) from None
    columns = ["predicted", "low95", "high95", "log_density", "pit"]
    return _tidy(spec, pd.DataFrame(np.concatenate(rows), columns=columns).assign(mcse=0.0))


def elpd(table: pd.DataFrame) -> dict[str, float]:
    """Sum of the log predictive densities and its standard error √(J Var), in nats.

    Parameters
    ----------
    table : DataFrame
        From `loo_table` or `psis_loo_table`.

    Returns
    -------
    dict
        elpd, se, units.
    """
    values = table["log_density"].to_numpy()
    se = float(np.sqrt(values.size) * values.std(ddof=1)) if values.size > 1 else float("nan")
    return {"elpd": float(values.sum()), "se": se, "units": values.size}


def elpd_difference(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
    """Paired difference elpd(a) − elpd(b) with its standard error, in nats.

    Raises
    ------
    InputError
        The tables are not about the same units.
    """
    if list(a["unit"]) != list(b["unit"]):
        raise InputError("leave-one-out comparison", "fits of the same units", "different units")
    gap = a["log_density"].to_numpy() - b["log_density"].to_numpy()
    se = float(np.sqrt(gap.size) * gap.std(ddof=1)) if gap.size > 1 else float("nan")
    return {"difference": float(gap.sum()), "se": se, "units": gap.size}


def outside_limit(units: int, probability: float = 0.05, quantile: float = 0.99) -> int:
    """How many units may lie outside: the quantile of Binomial(J, probability)."""
    return int(binom.ppf(quantile, units, probability))


def psis_loo_table(tree: Any) -> pd.DataFrame:
    """Pareto-smoothed importance-sampling LOO from draws, through ArviZ.

    Parameters
    ----------
    tree : xarray.DataTree
        With ``log_likelihood/y`` (chain, draw, unit), θ integrated out, and ``posterior``.

    Returns
    -------
    DataFrame
        unit; log_density (nats); pareto_k; reliable (k ≤ ArviZ's bound for this number of draws, at most
        0.7).

    Raises
    ------
    InputError
        The fit keeps no integrated log-likelihood.
    """
    import logging
    import warnings

    from arviz_stats import loo

    if "log_likelihood" not in tree.children:
        raise InputError("leave-one-out from draws", "a fit with its log-likelihood", "none kept")
    logging.getLogger("arviz_stats").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # large k is a column of the table, not an interruption
        warnings.filterwarnings("ignore", category=UserWarning, message="Estimated shape parameter")
        found = loo(tree, pointwise=True)
    values = found.elpd_i
    return pd.DataFrame(
        {
            "unit": [str(label) for label in values[values.dims[0]].to_numpy()],
            "log_density": values.to_numpy(),
            "pareto_k": found.pareto_k.to_numpy(),
            "reliable": found.pareto_k.to_numpy() <= min(found.good_k, 0.7),
        }
    )


def _by_quadrature(spec: ModelSpec) -> pd.DataFrame:
    """Mixtures over τ: y_i | τ, y_−i ~ Normal(z_i·E[γ], s_i² + scale² + z_i Cov[γ] z_i)."""
    structure = spec.structure
    units, effect = len(structure.units), structure.effect[:, None]
    if structure.pooling == "none":
        prior = spec.priors["theta"]
        if not prior.proper:
            names = ("predicted", "low95", "high95", "log_density", "pit", "mcse")
            return pd.DataFrame(np.nan, index=range(units), columns=list(names))
        mean, sd = prior.numbers
        spread = np.hypot(structure.se, sd)[:, None, None]
        normals = Normals(np.ones((units, 1)), np.full((units, 1, 1), mean), spread)
    else:
        normals = leave_one_out(spec)
    low, median, high = normals.quantiles(_TAILS)[:, 0].T
    return pd.DataFrame(
        {
            "predicted": median,
            "low95": low,
            "high95": high,
            "log_density": normals.log_density(effect)[:, 0],
            "pit": normals.cdf(effect)[:, 0],
            "mcse": 0.0,
        }
    )


def _by_draws(spec: ModelSpec, place: int, solver: Callable[..., Any], seed: int) -> dict[str, float]:
    """Predictions averaged over exact draws of the hyperparameters given the other units.

    What is normal given the hyperparameters is integrated; what is Student-t is drawn once per draw.
    """
    structure = spec.structure
    draws = solver(without(spec, place)).draws(_DRAWS, seed)
    rng = np.random.default_rng(seed)
    se, effect = float(structure.se[place]), float(structure.effect[place])
    center = np.array(draws["mu"], dtype=float)
    if structure.columns:
        center = center + draws["beta"] @ structure.design[place]
    scale = effect_scale(spec, draws["tau"]) if structure.pooling == "partial" else np.zeros(_DRAWS)
    if structure.effects == "student_t":
        center = center + scale * student.rvs(draws["nu"], size=_DRAWS, random_state=rng)
        scale = np.zeros(_DRAWS)
    if structure.likelihood == "student_t":
        center = center + scale * rng.standard_normal(_DRAWS)
        log_terms = student.logpdf(effect, draws["nu"], center, se)
        pit = float(student.cdf(effect, draws["nu"], center, se).mean())
        sample = center + se * student.rvs(draws["nu"], size=_DRAWS, random_state=rng)
        low, median, high = np.quantile(sample, _TAILS)
    else:
        spread = np.hypot(scale, se)
        normals = Normals(np.full((1, _DRAWS), 1 / _DRAWS), center[None, None], spread[None, None])
        log_terms = -0.5 * ((effect - center) / spread) ** 2 - np.log(spread) - 0.5 * np.log(2 * np.pi)
        pit = float(normals.cdf(np.array([[effect]]))[0, 0])
        low, median, high = normals.quantiles(_TAILS)[0, 0]
    log_density = float(logsumexp(log_terms) - np.log(_DRAWS))
    ratio = np.exp(log_terms - log_density)
    return {
        "predicted": float(median),
        "low95": float(low),
        "high95": float(high),
        "log_density": log_density,
        "pit": pit,
        "mcse": float(ratio.std(ddof=1) / np.sqrt(_DRAWS)),
    }
