"""Who moved, how far, and whose data moved them: tables of shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hbm_core.analysis import rates, shrinkage_three_level
from hbm_core.analysis.batched import at_tau, effect_scale, fine_tau, linear, tau_mixture
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.one_parameter import OneParameter
from hbm_core.models.raw_rates import RawRates
from hbm_core.models.structure import ModelSpec

_HALF, _WIDE = float(ndtri(0.75)), float(ndtri(0.975))
#: Posterior quantiles that tables need, in order.
_COLUMNS = {"low95": "q0.025", "low50": "q0.25", "high50": "q0.75", "high95": "q0.975"}


def shrinkage_table(
    spec: ModelSpec,
    posterior: ExactPosterior | pd.DataFrame,
    groups: Sequence[Any] | None = None,
    sizes: Sequence[float] | None = None,
) -> pd.DataFrame:
    """One row per unit: raw and pooled estimate, how far it moved, and its ranks.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    posterior : ExactPosterior or DataFrame
        An exact posterior, or a summary by parameter with columns mean, sd, q0.025, q0.25, q0.75, q0.975.
    groups, sizes : sequence of length J, optional
        Columns to carry along.

    Returns
    -------
    DataFrame
        unit; group, size (if given); raw, se, raw_low95, raw_low50, raw_high50, raw_high95; pooled, sd,
        low95, low50, high50, high95; toward (posterior mean of what the unit is pulled to, NaN without
        pooling); displacement = pooled − raw; all in the outcome's units. realised = displacement /
        (toward − raw), a fraction, NaN where the unit sits on what pulls it. rank_raw, rank_pooled (1 =
        largest, ties share their mean rank), rank_change (positive = moved up).
    """
    structure: Any = spec.structure
    if isinstance(structure, GroupedUnits):
        return shrinkage_three_level.shrinkage_table(cast(Any, spec), cast(Any, posterior))
    if isinstance(structure, RawRates):
        return rates.shrinkage_table(spec, posterior)
    summary = posterior.summary(hdi=False) if isinstance(posterior, ExactPosterior) else posterior
    rows = summary.loc[[f"theta[{label}]" for label in structure.units]]
    table = pd.DataFrame({"unit": list(structure.units)})
    if groups is not None:
        table["group"] = list(groups)
    if sizes is not None:
        table["size"] = list(sizes)
    raw, se = structure.effect, structure.se
    table["raw"], table["se"] = raw, se
    for name, z in (("low95", -_WIDE), ("low50", -_HALF), ("high50", _HALF), ("high95", _WIDE)):
        table[f"raw_{name}"] = raw + z * se
    table["pooled"], table["sd"] = rows["mean"].to_numpy(), rows["sd"].to_numpy()
    for name, column in _COLUMNS.items():
        table[name] = rows[column].to_numpy()
    table["toward"] = _toward(spec, summary)
    table["displacement"] = table["pooled"] - raw
    gap = table["toward"].to_numpy() - raw
    near = np.abs(gap) < 1e-6 * se
    table["realised"] = np.where(near, np.nan, table["displacement"] / np.where(near, 1.0, gap))
    table["rank_raw"] = table["raw"].rank(ascending=False)
    # means that agree to rounding are ties, as under complete pooling
    rounded = (table["pooled"] / max(float(se.min()), 1e-300)).round(9)
    table["rank_pooled"] = rounded.rank(ascending=False)
    table["rank_change"] = table["rank_raw"] - table["rank_pooled"]
    return table


def rank_crossings(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of units whose order shrinkage reversed: columns unit_a, unit_b, raw_gap, pooled_gap.

    Gaps are a − b in the outcome's units; a is the unit that was ahead. `table` is a `shrinkage_table`.
    """
    raw, pooled = table["raw"].to_numpy(), table["pooled"].to_numpy()
    raw_gap, pooled_gap = raw[:, None] - raw, pooled[:, None] - pooled
    a, b = np.nonzero((raw_gap > 0) & (pooled_gap < 0))
    unit = table["unit"].to_numpy()
    return pd.DataFrame(
        {"unit_a": unit[a], "unit_b": unit[b], "raw_gap": raw_gap[a, b], "pooled_gap": pooled_gap[a, b]}
    )


def pooling_ledger(
    spec: ModelSpec, posterior: ExactPosterior | pd.DataFrame, tau: np.ndarray | None = None
) -> pd.DataFrame:
    """One row per unit: the posterior of B_i, where the estimate comes from, and how far it moved.

    The columns are separate facts: none is inferred from another.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    posterior : ExactPosterior or DataFrame
        As in `shrinkage_table`.
    tau : ndarray (draws,), optional
        Draws of τ: the ledger is then theirs instead of the quadrature's.

    Returns
    -------
    DataFrame
        unit; pooling, pooling_low95, pooling_high95 (posterior mean and central interval of B_i);
        weight_own, weight_others, weight_prior (linear weights of E[θ_i | τ, y] averaged over τ, sum 1);
        displacement (outcome's units); realised (fraction); rank_change. NaN where the model has no such
        quantity: B under `none` and `complete` is trivial and given as its constant.
    """
    structure = spec.structure
    shrinkage = shrinkage_table(spec, posterior)
    ledger = shrinkage[["unit"]].copy()
    mean, low, high = _pooling_posterior(spec, tau)
    ledger["pooling"], ledger["pooling_low95"], ledger["pooling_high95"] = mean, low, high
    names = ["weight_own", "weight_others", "weight_prior"]
    if linear(spec):
        weights, prior = _averaged_weights(spec, tau)
        own = np.diag(weights)
        ledger[names] = np.column_stack([own, weights.sum(axis=1) - own, prior])
    else:
        ledger[names] = np.full((len(structure.units), 3), np.nan)
    for name in ("displacement", "realised", "rank_change"):
        ledger[name] = shrinkage[name]
    return ledger


def borrowing_matrix(spec: ModelSpec, tau: float | None = None) -> pd.DataFrame:
    """Who lends to whom: the weights of each unit's estimate on everybody's data.

    Row i, column j: the linear weight of E[θ_i | τ, y] on y_j, averaged over the posterior of τ; the last
    column, ``prior``, is the weight on the prior mean of μ. Rows sum to 1.

    Parameters
    ----------
    spec : ModelSpec
        Normal structure with normal or flat priors on the coefficients.
    tau : float, optional
        Hold the sd of the effects at this value instead of averaging (outcome's units).

    Raises
    ------
    NotExactError
        The estimates are not linear in the data given τ.
    """
    mixture = tau_mixture(spec) if tau is None else at_tau(spec, tau)
    weights, prior = mixture.linear_weights()
    units = list(spec.structure.units)
    matrix = pd.DataFrame(weights[0], index=pd.Index(units, name="unit"), columns=units)
    matrix["prior"] = prior[0]
    return matrix


def three_poolings(
    spec: ModelSpec, posterior: ExactPosterior | pd.DataFrame, unit: str | None = None
) -> pd.DataFrame:
    """No, partial and complete pooling side by side.

    No pooling is y ± z s; complete pooling is the same model at τ = 0, prior on μ included; partial
    pooling is `posterior`: the first and the last are its limits.

    Returns
    -------
    DataFrame
        One row per unit (or for `unit` alone) and pooling: unit, pooling ("none", "partial", "complete"),
        estimate, low95, low50, high50, high95, in the outcome's units.
    """
    table = shrinkage_table(spec, posterior)
    base = ["low95", "low50", "high50", "high95"]
    none = table[["unit", "raw", *(f"raw_{name}" for name in base)]].copy()
    none.columns = pd.Index(["unit", "estimate", *base])
    partial = table[["unit", "pooled", *base]].copy()
    partial.columns = none.columns
    parts = {"none": none, "partial": partial}
    if spec.structure.pooling != "none" and linear(spec):
        limit = at_tau(spec, 0.0).center()
        center, sd = limit.mean()[0], limit.sd()[0]
        rows = np.column_stack([center, *(center + z * sd for z in (-_WIDE, -_HALF, _HALF, _WIDE))])
        parts["complete"] = pd.DataFrame(rows, columns=none.columns[1:])
        parts["complete"].insert(0, "unit", table["unit"])
    long = pd.concat([part.assign(pooling=name) for name, part in parts.items()], ignore_index=True)
    long = long[["unit", "pooling", "estimate", *base]]
    return long if unit is None else long[long["unit"] == unit].reset_index(drop=True)


def pooling_factor(spec: ModelSpec, tau: np.ndarray) -> np.ndarray:
    """B_i = s_i²/(s_i² + scale(τ)²), ndarray (..., J), for τ in the outcome's units."""
    scale = effect_scale(spec, np.asarray(tau))[..., None]
    return spec.structure.se**2 / (spec.structure.se**2 + scale**2)


def _toward(spec: ModelSpec, summary: pd.DataFrame) -> np.ndarray:
    structure: Any = spec.structure
    if isinstance(structure, OneParameter):
        name = structure.mean
        known = name in summary.index
        value = summary["mean"].to_dict()[name] if known else spec.priors[name].distribution.mean()
        return np.full(len(structure.units), float(value))
    if structure.pooling == "none":
        prior = spec.priors["theta"]
        return np.full(len(structure.units), prior.distribution.mean() if prior.proper else np.nan)
    center = np.full(len(structure.units), float(summary["mean"].to_dict()["mu"]))
    if structure.columns:
        beta = summary.loc[[f"beta[{name}]" for name in structure.columns], "mean"].to_numpy()
        center = center + structure.design @ beta
    return center


def _pooling_posterior(spec: ModelSpec, tau: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and central 95 % interval of every B_i."""
    structure = spec.structure
    absent = np.full(len(structure.units), np.nan)
    if "student_t" in (structure.effects, structure.likelihood):
        return absent, absent, absent
    if tau is not None and structure.pooling == "partial":
        factor = pooling_factor(spec, np.ravel(tau))
        low, high = np.quantile(factor, [0.025, 0.975], axis=0)
        return factor.mean(axis=0), low, high
    if not linear(spec):
        return absent, absent, absent
    mixture = tau_mixture(spec)
    mean = mixture.mean_pooling()[0]
    if structure.pooling != "partial":
        return mean, mean, mean
    # B is a function of the scale alone: its distribution is the scale's, read from a fine rule
    tau_cells, mass = fine_tau(spec)
    scale = effect_scale(spec, tau_cells)
    order = np.argsort(scale)
    cumulative = np.cumsum(mass[order]) - 0.5 * mass[order]
    largest, smallest = np.interp([0.975, 0.025], cumulative, scale[order])
    variance = structure.se**2
    return mean, variance / (variance + largest**2), variance / (variance + smallest**2)


def _averaged_weights(spec: ModelSpec, tau: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if tau is None or spec.structure.pooling != "partial":
        weights, prior = tau_mixture(spec).linear_weights()
        return weights[0], prior[0]
    # the weights are smooth in τ: 200 quantile-spaced draws' means stand for all of them
    parts = np.array_split(np.sort(np.ravel(tau)), min(200, np.size(tau)))
    share = np.array([len(part) for part in parts]) / np.size(tau)
    found = [at_tau(spec, float(part.mean())).linear_weights() for part in parts]
    weights = np.einsum("k,kji->ji", share, np.stack([w[0] for w, _ in found]))
    return weights, share @ np.stack([p[0] for _, p in found])
