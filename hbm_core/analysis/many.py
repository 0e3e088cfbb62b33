"""Tables of very many units: counted in cells where they overlap, one by one where they are few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.pymc_three_level import group_sums
from hbm_core.models.structure import ModelSpec

_WIDE = float(ndtri(0.975))
#: Points of a density.
_CURVE = 161


def density_scatter(
    table: pd.DataFrame,
    x: str,
    y: str,
    bins: tuple[int, int] = (60, 36),
    crowd: int = 4,
    log_x: bool = False,
    fewest: int = 2000,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Units as counted cells where many overlap, and as points where few do.

    Parameters
    ----------
    table : pandas.DataFrame
        A row per unit with the columns `x` and `y`, finite; others are carried along with the points.
    x, y : str
        Columns.
    bins : tuple of int
        Cells along x and y, of equal width between the extremes.
    crowd : int
        A cell with more units than this is counted; the others' units stay points.
    log_x : bool
        Cells of equal width on a log axis; x must be positive.
    fewest : int
        Up to so many units all stay points.

    Returns
    -------
    cells : DataFrame
        x_low, x_high, y_low, y_high and count, one row per crowded cell. Counts of the cells and rows of the
        points add up to the rows of `table`.
    points : DataFrame
        Rows of `table`.
    """
    columns = ["x_low", "x_high", "y_low", "y_high", "count"]
    if len(table) <= fewest:
        return pd.DataFrame(columns=columns, dtype=float), table.reset_index(drop=True)
    across, up = (table[name].to_numpy(dtype=float) for name in (x, y))
    along = np.log(across) if log_x else across
    edges = [_edges(values, count) for values, count in zip((along, up), bins, strict=True)]
    place = [
        np.clip(np.searchsorted(edge, values, side="right") - 1, 0, edge.size - 2)
        for edge, values in zip(edges, (along, up), strict=True)
    ]
    flat = place[0] * bins[1] + place[1]
    count = np.bincount(flat, minlength=bins[0] * bins[1])
    full = np.flatnonzero(count > crowd)
    column, row = np.divmod(full, bins[1])
    ends = np.exp(edges[0]) if log_x else edges[0]
    cells = pd.DataFrame(
        {
            "x_low": ends[column],
            "x_high": ends[column + 1],
            "y_low": edges[1][row],
            "y_high": edges[1][row + 1],
            "count": count[full].astype(float),
        },
        columns=columns,
    )
    return cells, table[count[flat] <= crowd].reset_index(drop=True)


def _edges(values: np.ndarray, count: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    margin = 1e-9 * max(high - low, abs(high), 1e-300)
    return np.linspace(low - margin, high + margin, count + 1)


def evenly(structure: GroupedUnits, most: int) -> np.ndarray:
    """Places of all units, or of `most` of them, evenly along the order of the data."""
    size = structure.effect.size
    return np.arange(size) if size <= most else np.linspace(0, size - 1, most).astype(int)


def units_table(posterior: ExactPosterior, most: int = 50_000) -> pd.DataFrame:
    """Raw and pooled effect of all units, or of so many, evenly along the order of the data.

    Returns
    -------
    DataFrame
        unit; group; raw, se and pooled, in the outcome's units.
    """
    structure: Any = posterior.spec.structure
    at = evenly(structure, most)
    if isinstance(posterior, ThreeLevelPosterior):
        pooled = posterior.unit_moments(at)[0]
    else:
        pooled = posterior.mean[posterior.theta][at]
    found = raw_table(structure, at)
    found["pooled"] = pooled
    return found


def raw_table(structure: GroupedUnits, at: np.ndarray | None = None) -> pd.DataFrame:
    """Raw effect of units at some places, all by default: unit, group, raw, se."""
    places = np.arange(structure.effect.size) if at is None else at
    units: Any = structure.units
    # Names of millions are kept in Arrow, where one by one they take a hundred times as long.
    names = units.take(places) if hasattr(units, "take") else (units[int(place)] for place in places)
    return pd.DataFrame(
        {
            "unit": list(names),
            "group": np.asarray(structure.groups, dtype=object)[structure.group[places]],
            "raw": structure.effect[places],
            "se": structure.se[places],
        }
    )


def group_table(posterior: ExactPosterior) -> pd.DataFrame:
    """Each group's mean as the model knows it, beside complete pooling of its units.

    Returns
    -------
    DataFrame
        group; units (count); mean, low95, low50, high50, high95 (posterior); complete, complete_low95,
        complete_high95 (precision-weighted mean of the group's raw effects, as if they were all alike).
        All but the count in the outcome's units.
    """
    structure: Any = posterior.spec.structure
    ends = (0.025, 0.25, 0.75, 0.975)
    if isinstance(posterior, ThreeLevelPosterior):
        mean, quantiles = posterior.group_moments()[0], posterior.group_quantiles(ends)
    else:
        rows = [posterior.index(f"{structure.group_mean}[{label}]") for label in structure.groups]
        mean, quantiles = posterior.mean[rows], posterior.quantiles(ends)[rows]
    sums = group_sums(structure, 0.0)
    half = _WIDE / np.sqrt(sums.precision)
    found = pd.DataFrame({"group": list(structure.groups)})
    found["units"] = np.bincount(structure.group, minlength=len(structure.groups))
    found["mean"] = mean
    for name, column in zip(("low95", "low50", "high50", "high95"), quantiles.T, strict=True):
        found[name] = column
    found["complete"] = sums.mean
    found["complete_low95"], found["complete_high95"] = sums.mean - half, sums.mean + half
    return found


def spread_curves(posterior: ExactPosterior, spec: ModelSpec[Any]) -> pd.DataFrame:
    """Prior and posterior density of every spread of the model.

    Parameters
    ----------
    posterior : ExactPosterior
        Of `spec`.
    spec : ModelSpec
        For the priors.

    Returns
    -------
    DataFrame
        parameter; x; prior and posterior (densities per unit of x; the prior NaN where it is flat).
    """
    names = [name for name in spec.structure.parameters if name.startswith("sigma_")]
    parts = []
    for name in names:
        if isinstance(posterior, ThreeLevelPosterior):
            place = list(posterior.hyper_names).index(name)
            high = float(posterior.hyper_quantiles((0.9995,))[place, 0])
        else:
            high = float(posterior.quantiles((0.9995,))[posterior.index(name), 0])
        x = np.linspace(0, high, _CURVE)[1:]
        prior = spec.priors[name]
        density = np.exp(prior.log_density(x)) if prior.proper else np.full(x.size, np.nan)
        parts.append(
            pd.DataFrame(
                {"parameter": name, "x": x, "prior": density, "posterior": posterior.density(name, x)}
            )
        )
    return pd.concat(parts, ignore_index=True)
