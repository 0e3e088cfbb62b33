"""Marginal densities per chain beside the exact ones, and regions that hold a share of the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq

from hbm_core.analysis.joint import exact_draws_table
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior

#: Share of the mass that a picture's axis holds where an exact posterior fixes it.
_SHOWN = (0.0005, 0.9995)
#: Points of a density.
_POINTS = 201
#: Numbers drawn for the exact background of the funnel, at most.
_MOST_NUMBERS = 8_000_000
#: Draws behind a funnel where they are dear.
_FEW_DRAWS = 6_000


def value_range(table: pd.DataFrame, name: str, exact: ExactPosterior | None = None) -> tuple[float, float]:
    """Ends of a parameter's axis: fixed by the exact posterior where there is one, else by the draws."""
    if exact is not None and name in exact.names:
        low, high = (_exact_quantile(exact, name, table[name].to_numpy(), share) for share in _SHOWN)
    else:
        low, high = np.quantile(table[name].to_numpy(), (0.002, 0.998))
    if name in ("tau", "nu", "tau_star") or name.startswith("sigma_"):
        low = 0.0
    pad = 0.04 * (high - low) or 0.5
    return float(low if low == 0 else low - pad), float(high + pad)


def _exact_quantile(exact: ExactPosterior, name: str, near: np.ndarray, probability: float) -> float:
    """One parameter's quantile; asking the posterior for them would invert every unit's."""
    middle, reach = float(np.median(near)), float(np.ptp(near)) or 1.0

    def excess(x: float) -> float:
        return float(exact.cdf(name, np.array([x]))[0]) - probability

    low = high = middle
    while excess(low) > 0 and reach < 1e12:
        low, reach = low - reach, 2 * reach
    while excess(high) < 0 and reach < 1e12:
        high, reach = high + reach, 2 * reach
    return float(brentq(excess, low, high, rtol=1e-6)) if low < high else middle


def marginals(table: pd.DataFrame, names: Sequence[str], exact: ExactPosterior | None = None) -> pd.DataFrame:
    """Densities of each chain's draws, and the exact one.

    Parameters
    ----------
    table : pandas.DataFrame
        From `draws_table`.
    names : sequence of str
        Parameters, columns of `table`.
    exact : ExactPosterior, optional
        Adds rows of chain ``"exact"``.

    Returns
    -------
    pandas.DataFrame
        parameter, chain (text), value (the parameter's units), density.
    """
    from arviz_stats.base import array_stats

    parts = []
    for name in names:
        low, high = value_range(table, name, exact)
        for chain, group in table.groupby("chain", sort=True):
            values = group[name].to_numpy(dtype=float)
            if len(values) < 8 or np.ptp(values) == 0:
                continue
            at, density, _ = array_stats.kde(values, grid_len=256)
            parts.append(
                pd.DataFrame({"parameter": name, "chain": str(chain), "value": at, "density": density})
            )
        if exact is not None and name in exact.names:
            at = np.linspace(low, high, _POINTS)
            density = exact.density(name, at)
            parts.append(pd.DataFrame({"parameter": name, "chain": "exact", "value": at, "density": density}))
    columns = ["parameter", "chain", "value", "density"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def funnel_background(
    exact: ExactPosterior, unit: str, standardised: bool = False, cells: int = 90
) -> Mapping[str, np.ndarray] | None:
    """The exact joint density of log τ and one θ (or (θ − μ)/τ), as the mass outside each level.

    Returns
    -------
    mapping or None
        ``x`` (cells,) θ or its standardised value, ``log_tau`` (cells,), ``outside`` (cells, cells): at a
        point, the share of the posterior that is less dense; 0.1 outlines the region that holds 90 %.
        None where the model has no spread between units, or so many units that joint draws are too large.
    """
    structure = exact.spec.structure
    if unit not in structure.units or (names := structure.funnel(unit)) is None:
        return None
    drawn = 0 if isinstance(exact, ThreeLevelPosterior | GaussianMixedPosterior) else len(structure.units)
    count = min(60_000, _MOST_NUMBERS // (drawn + 3))
    if count < 4_000:
        return None
    if isinstance(exact, GaussianMixedPosterior):
        # Each of its draws solves the model once.
        count = _FEW_DRAWS
    own = f"theta[{unit}]"
    found = exact_draws_table(exact, [*names, own], count, seed=1)
    count, tau = len(found), np.maximum(found[names[1]].to_numpy(), 1e-12)
    x = found[own].to_numpy()
    if standardised:
        x = (x - found[names[0]].to_numpy()) / tau
    log_tau = np.log(tau)
    ends = [tuple(np.quantile(values, (0.001, 0.999))) for values in (x, log_tau)]
    density, x_edges, t_edges = np.histogram2d(x, log_tau, bins=cells, range=ends)
    smooth = gaussian_filter(density.T, sigma=cells / 24, mode="nearest")
    # Regions hold the share of the draws that they name, however much smoothing widened the density.
    held = np.repeat(smooth.ravel(), density.T.ravel().astype(int))
    outside = np.searchsorted(np.sort(held), smooth, side="left") / count
    middle = [(edges[1:] + edges[:-1]) / 2 for edges in (x_edges, t_edges)]
    return {"x": middle[0], "log_tau": middle[1], "outside": outside}


def standardised(
    table: pd.DataFrame, names: Sequence[str], exact: ExactPosterior | None = None
) -> pd.DataFrame:
    """Draws in posterior sds from the posterior mean, for parameters of unlike scale on one axis.

    The exact moments are used where they are finite, the draws' own elsewhere.
    """
    found = table.copy()
    for name in names:
        mean, sd = table[name].mean(), table[name].std()
        if exact is not None and name in exact.names and np.isfinite(exact.sd[exact.index(name)]):
            mean, sd = exact.mean[exact.index(name)], exact.sd[exact.index(name)]
        found[name] = (table[name] - mean) / sd if sd > 0 else 0.0
    return found
