"""Tables of shrinkage for units in groups: toward each group's mean, for all units or for some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.pymc_three_level import Spec

_HALF, _WIDE = float(ndtri(0.75)), float(ndtri(0.975))
_ENDS = (0.025, 0.25, 0.75, 0.975)
_NAMES = ("low95", "low50", "high50", "high95")


def shrinkage_table(
    spec: Spec, posterior: ExactPosterior | pd.DataFrame, places: np.ndarray | None = None
) -> pd.DataFrame:
    """One row per unit, with the columns of `hbm_core.analysis.shrinkage.shrinkage_table` and ``group``.

    Parameters
    ----------
    spec : ModelSpec of ThreeLevelNormal
        The model.
    posterior : ThreeLevelPosterior, another posterior or DataFrame
        The exact posterior, one with all units by name, or a summary by parameter with all units.
    places : ndarray of int, optional
        Units that are listed; all by default. Ranks are among all units, listed or not.
    """
    structure = spec.structure
    at = np.arange(structure.effect.size) if places is None else np.asarray(places)
    group = structure.group[at]
    # Of groups in slots each has a mean in each.
    pulled = structure.cell[at] if isinstance(structure, GaussianMixed) else group
    if isinstance(posterior, ThreeLevelPosterior | GaussianMixedPosterior):
        everyone, sds = posterior.unit_moments()
        sd, intervals = sds[at], posterior.unit_quantiles(_ENDS, at)
        toward = posterior.group_moments()[0][pulled]
    else:
        if isinstance(posterior, ExactPosterior):
            posterior = posterior.summary(_ENDS, hdi=False)
        rows = posterior.loc[[f"theta[{label}]" for label in structure.units]]
        everyone = rows["mean"].to_numpy()
        sd = rows["sd"].to_numpy()[at]
        intervals = rows[[f"q{end:g}" for end in _ENDS]].to_numpy()[at]
        names = [f"{structure.group_mean}[{label}]" for label in mean_labels(structure)]
        toward = posterior.loc[names, "mean"].to_numpy()[pulled]
    raw, se, pooled = structure.effect[at], structure.se[at], everyone[at]
    table = pd.DataFrame({"unit": [str(structure.units[int(place)]) for place in at]})
    table["group"] = np.asarray(structure.groups, dtype=object)[group]
    table["raw"], table["se"] = raw, se
    for name, z in zip(_NAMES, (-_WIDE, -_HALF, _HALF, _WIDE), strict=True):
        table[f"raw_{name}"] = raw + z * se
    table["pooled"], table["sd"] = pooled, sd
    for name, column in zip(_NAMES, intervals.T, strict=True):
        table[name] = column
    table["toward"], table["displacement"] = toward, pooled - raw
    gap = toward - raw
    near = np.abs(gap) < 1e-6 * se
    table["realised"] = np.where(near, np.nan, (pooled - raw) / np.where(near, 1.0, gap))
    # Means that agree to rounding are ties.
    least = max(float(structure.se.min()), 1e-300)
    table["rank_raw"] = _ranks(structure.effect)[at]
    table["rank_pooled"] = _ranks(np.round(everyone / least, 9))[at]
    table["rank_change"] = table["rank_raw"] - table["rank_pooled"]
    return table


def mean_labels(structure: GroupedUnits) -> tuple[str, ...]:
    """Labels of the means that units are pulled to."""
    return structure.cells if isinstance(structure, GaussianMixed) else structure.groups


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from the largest, ties at their mean."""
    return pd.Series(values).rank(ascending=False).to_numpy()


def pooling_ledger(spec: Spec, posterior: ThreeLevelPosterior, table: pd.DataFrame) -> pd.DataFrame:
    """One row per row of `table`: B_i and where the estimate comes from.

    Columns as in `hbm_core.analysis.shrinkage.pooling_ledger`, with ``weight_others`` also in two:
    ``weight_group`` (the rest of the own group) and ``weight_beyond`` (all other groups). B_i =
    s_i²/(s_i² + σ_unit²) falls in σ_unit alone, so its interval is σ_unit's, turned round.

    Parameters
    ----------
    spec : ModelSpec of ThreeLevelNormal
        The model.
    posterior : ThreeLevelPosterior
        Its exact posterior.
    table : DataFrame
        A `shrinkage_table` of all units or of some.
    """
    places = spec.structure.places(table["unit"])
    variance = spec.structure.se[places] ** 2
    ends = posterior.hyper_quantiles((0.025, 0.975))[posterior.hyper_names.index(spec.structure.spread)]
    ledger = table[["unit"]].copy()
    ledger["pooling"] = posterior.unit_pooling(places)
    ledger["pooling_low95"], ledger["pooling_high95"] = (
        variance / (variance + end**2) for end in reversed(ends)
    )
    found = posterior.unit_weights(places)
    for name in ("own", "others", "prior", "group", "beyond"):
        ledger[f"weight_{name}"] = np.nan if found is None else getattr(found, name)
    return ledger.join(table[["displacement", "realised", "rank_change"]])


def lending_table(spec: Spec, posterior: ThreeLevelPosterior) -> pd.DataFrame:
    """Who lends to whom among groups: rows are groups whose mean is estimated, columns whose data it takes.

    Each entry is the linear weight of all data of the column's group in the estimated mean of the row's,
    averaged over the posterior; the last column, ``prior``, is the weight on the prior mean of μ. Rows sum
    to 1.
    """
    groups, found = list(spec.structure.groups), posterior.lending
    matrix = pd.DataFrame(found.between, index=pd.Index(groups, name="group"), columns=groups)
    matrix["prior"] = found.prior
    return matrix


def three_poolings(spec: Spec, posterior: ExactPosterior, units: Sequence[str]) -> pd.DataFrame:
    """No, partial and complete pooling of some units side by side.

    Complete pooling is the same model at σ_unit = 0: all units of a group share its mean. Where that has no
    closed form it is the mean of the group's units, as the model knows it.

    Returns
    -------
    DataFrame
        unit, pooling ("none", "partial", "complete"), estimate, low95, low50, high50, high95.
    """
    places = spec.structure.places(units)
    table = shrinkage_table(spec, posterior, places)
    if isinstance(posterior, ThreeLevelPosterior | GaussianMixedPosterior):
        given = posterior.given_spread(np.array([0.0]), places)
        center, sd = given.theta_mean[0], given.theta_sd[0]
    else:
        labels = (spec.structure.groups[g] for g in spec.structure.group[places])
        at = [posterior.index(f"{spec.structure.group_mean}[{label}]") for label in labels]
        center, sd = posterior.mean[at], posterior.sd[at]
    ends = [f"raw_{name}" for name in _NAMES]
    none = table[["unit", "raw", *ends]].set_axis(["unit", "estimate", *_NAMES], axis=1)
    partial = table[["unit", "pooled", *_NAMES]].set_axis(none.columns, axis=1)
    values = np.column_stack([center, *(center + z * sd for z in (-_WIDE, -_HALF, _HALF, _WIDE))])
    complete = pd.DataFrame(values, columns=none.columns[1:])
    complete.insert(0, "unit", table["unit"])
    parts = {"none": none, "partial": partial, "complete": complete}
    long = pd.concat([part.assign(pooling=name) for name, part in parts.items()], ignore_index=True)
    return long[["unit", "pooling", "estimate", *_NAMES]]
