"""The population of vector-valued units from draws: Σ as a matrix, against its prior, and as ellipses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.draws import flat_draws, summary
from hbm_core.models.vector_population import CovarianceLaw, VectorPopulation

#: Points of an ellipse; draws of one that are shown beside it.
_POINTS, _THIN = 73, 24
#: Bins of a prior and a posterior beside one another.
_BINS = 44
#: Gap between two distribution functions from which a posterior has left its prior.
MOVED = 0.1
#: sup |F − F₀| of n independent draws of F₀ exceeds this over √n in one case of 20 (Kolmogorov, 1933).
_KOLMOGOROV = 1.358


@dataclass(frozen=True, eq=False)
class PopulationDraws:
    """Draws of a population of vectors.

    Parameters
    ----------
    vector : VectorPopulation
        Names, units, components.
    mean, sd : ndarray (S, P)
        α and σ, chain after chain.
    correlation : ndarray (S, P, P)
        Ω.
    theta : ndarray (S, C, P)
        The units' vectors, on the components' scale.
    """

    vector: VectorPopulation
    mean: np.ndarray
    sd: np.ndarray
    correlation: np.ndarray
    theta: np.ndarray

    @cached_property
    def covariance(self) -> np.ndarray:
        """Σ, ndarray (S, P, P)."""
        found: np.ndarray = self.correlation * self.sd[:, :, None] * self.sd[:, None, :]
        return found

    def __len__(self) -> int:
        return len(self.mean)

    def taken(self, at: np.ndarray) -> PopulationDraws:
        """Only some of the draws."""
        return PopulationDraws(self.vector, self.mean[at], self.sd[at], self.correlation[at], self.theta[at])


def read_population(tree: Any, vector: VectorPopulation) -> PopulationDraws:
    """The draws of a fit's population.

    Parameters
    ----------
    tree : xarray.DataTree
        A fit with a group ``posterior``.
    vector : VectorPopulation
        What its parts are called.
    """
    members = [vector.member(unit, p) for unit in vector.units for p in range(len(vector.components))]
    wanted = [*vector.means, *vector.spreads, *vector.correlations, *members]
    found = columns(tree, wanted)
    size, count = len(vector.components), found.shape[0]
    mean, sd, corr, theta = np.split(found, np.cumsum([size, size, len(vector.correlations)]), axis=1)
    omega = np.tile(np.eye(size), (count, 1, 1))
    if vector.correlations:
        rows, across = np.array(vector.pairs).T
        omega[:, rows, across] = omega[:, across, rows] = corr
    theta = theta.reshape(count, len(vector.units), size)
    return PopulationDraws(vector, mean, sd, omega, np.log(theta) if vector.log else theta)


def columns(tree: Any, names: Sequence[str]) -> np.ndarray:
    """Draws of some parameters by their flat names, ndarray (chains × draws, names)."""
    heads = dict.fromkeys(name.partition("[")[0] for name in names)
    labels, draws = flat_draws(tree["posterior"].to_dataset(), heads, "all")
    place = {label: row for row, label in enumerate(labels)}
    return draws.reshape(len(labels), -1)[[place[name] for name in names]].T


# --------------------------------------------------------------------------------------------- matrix


def matrix_table(tree: Any, vector: VectorPopulation) -> pd.DataFrame:
    """Sds and correlations of the population.

    Returns
    -------
    DataFrame
        parameter (flat name), kind ("sd", "correlation"), row, column (components), mean, low90, high90, sign
        (probability of the likelier sign; NaN for sds), mcse (of the mean), ess.
    """
    names = [*vector.spreads, *vector.correlations]
    table = summary(tree, (0.05, 0.95), heads_of(names), "all").loc[names]
    places = [(p, p) for p in range(len(vector.spreads))] + list(vector.pairs[: len(vector.correlations)])
    above = (columns(tree, names) > 0).mean(axis=0)
    is_sd = np.array([row == column for row, column in places])
    return pd.DataFrame(
        {
            "parameter": names,
            "kind": np.where(is_sd, "sd", "correlation"),
            "row": [vector.components[row] for row, _ in places],
            "column": [vector.components[column] for _, column in places],
            "mean": table["mean"].to_numpy(),
            "low90": table["q0.05"].to_numpy(),
            "high90": table["q0.95"].to_numpy(),
            "sign": np.where(is_sd, np.nan, np.maximum(above, 1 - above)),
            "mcse": table["mcse_mean"].to_numpy(),
            "ess": table["ess_bulk"].to_numpy(),
        }
    )


def heads_of(names: Sequence[str]) -> list[str]:
    """Variables that hold parameters of these flat names."""
    return list(dict.fromkeys(name.partition("[")[0] for name in names))


# ---------------------------------------------------------------------------------- prior to posterior


def departure_table(tree: Any, vector: VectorPopulation, law: CovarianceLaw) -> pd.DataFrame:
    """How far each sd and correlation left its prior.

    Returns
    -------
    DataFrame
        As `matrix_table`, the farthest first, and: prior_sd, posterior_sd, kept (posterior over prior width:
        of sds, or of the quartiles' distances where the prior has no sd), kept_error; distance (largest gap
        between the two distribution functions), noise (what it exceeds in one case of 20 where there is no
        gap at all), left (distance above noise and above ``MOVED``). A flat prior has NaN.
    """
    table = matrix_table(tree, vector)
    draws = columns(tree, table["parameter"].tolist())
    rows: list[tuple[float, ...]] = []
    for place, (kind, component) in enumerate(zip(table["kind"], table["row"], strict=True)):
        prior = law.spread(vector.components.index(component)) if kind == "sd" else law.correlation()
        values = np.sort(draws[:, place])
        if prior is None:
            rows.append((np.nan, values.std(ddof=1), np.nan, np.nan))
            continue
        count = len(values)
        u = prior.cdf(values)
        gap = max(
            float((np.arange(1, count + 1) / count - u).max()), float((u - np.arange(count) / count).max())
        )
        sd, width = float(prior.std()), float(values.std(ddof=1))
        if np.isfinite(sd):
            kept = width / sd
        else:
            kept = (
                np.diff(np.quantile(values, (0.25, 0.75)))[0] / np.diff(prior.ppf(np.array([0.25, 0.75])))[0]
            )
        rows.append((sd, width, kept, gap))
    found = pd.DataFrame(rows, columns=["prior_sd", "posterior_sd", "kept", "distance"])
    table = pd.concat([table, found], axis=1)
    # A standard deviation of n draws of a normal has the relative error 1/√(2n).
    table["kept_error"] = table["kept"] / np.sqrt(2 * table["ess"])
    table["noise"] = _KOLMOGOROV / np.sqrt(table["ess"])
    table["left"] = table["distance"] > np.maximum(table["noise"], MOVED)
    return table.sort_values("distance", ascending=False, kind="stable").reset_index(drop=True)


@dataclass(frozen=True)
class PriorShare:
    """How much of Ω is prior.

    Parameters
    ----------
    pairs, left : int
        Correlations, and those whose posterior left the prior.
    one_sided : int
        Correlations whose sign has a posterior probability of 95 % or more.
    prior_sd, posterior_sd, kept : float
        Prior sd of one, mean posterior sd, and their ratio.
    """

    pairs: int
    left: int
    one_sided: int
    prior_sd: float
    posterior_sd: float

    @property
    def kept(self) -> float:
        """Share of the prior's width that is left."""
        return self.posterior_sd / self.prior_sd


def prior_share(departures: pd.DataFrame) -> PriorShare | None:
    """Sum up the correlations of a `departure_table`; None without any."""
    rows = departures[departures["kind"] == "correlation"]
    if rows.empty:
        return None
    return PriorShare(
        len(rows),
        int(rows["left"].sum()),
        int((rows["sign"] >= 0.95).sum()),
        float(rows["prior_sd"].iloc[0]),
        float(rows["posterior_sd"].mean()),
    )


def density_table(
    tree: Any, vector: VectorPopulation, law: CovarianceLaw, names: Sequence[str]
) -> pd.DataFrame:
    """Prior and posterior of some sds or correlations, bin by bin.

    Parameters
    ----------
    tree, vector, law
        As of `departure_table`.
    names : sequence of str
        Flat names, all of sds (bins of equal ratio) or all of correlations (bins of equal width).

    Returns
    -------
    DataFrame
        parameter, low, high (ends of a bin), prior, posterior (mass in it over its width on the axis; prior
        NaN where flat).
    """
    draws = columns(tree, names)
    spreads = names[0] in vector.spreads
    if spreads:
        ends = np.quantile(draws, (0.002, 0.998))
        proper = [p for name in names if (p := law.spread(vector.spreads.index(name))) is not None]
        for prior in proper:
            low, high = prior.ppf(np.array([0.01, 0.99]))
            # A prior may reach down to 0 or up without end: it does not make posteriors invisible.
            ends = np.array([min(ends[0], max(low, ends[0] / 10)), max(ends[1], min(high, 10 * ends[1]))])
        edges = np.geomspace(ends[0], ends[1], _BINS + 1)
        width = np.diff(np.log(edges))
    else:
        edges = np.linspace(-1, 1, _BINS + 1)
        width = np.diff(edges)
    parts = []
    for place, name in enumerate(names):
        law_here = law.spread(vector.spreads.index(name)) if spreads else law.correlation()
        prior = np.full(_BINS, np.nan) if law_here is None else np.diff(law_here.cdf(edges)) / width
        mass = np.histogram(draws[:, place], edges)[0] / len(draws)
        parts.append(
            pd.DataFrame(
                {
                    "parameter": name,
                    "low": edges[:-1],
                    "high": edges[1:],
                    "prior": prior,
                    "posterior": mass / width,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


# ------------------------------------------------------------------------------------------- ellipses


def ellipse(mean: np.ndarray, covariance: np.ndarray, share: float) -> np.ndarray:
    """Outline of the region that holds a share of a normal of two dimensions, ndarray (points, 2).

    Its squared Mahalanobis distance is χ²₂'s quantile −2 log(1 − share).
    """
    angle = np.linspace(0, 2 * np.pi, _POINTS)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    root = np.linalg.cholesky(covariance)
    outline: np.ndarray = mean + np.sqrt(-2 * np.log1p(-share)) * (root @ circle).T
    return outline


def ellipse_table(
    draws: PopulationDraws, pair: tuple[int, int], shares: Sequence[float] = (0.5, 0.9)
) -> pd.DataFrame:
    """Where the population has its units in two components.

    Parameters
    ----------
    draws : PopulationDraws
        Of a fit.
    pair : (int, int)
        Components across and up.
    shares : sequence of float
        Of the population.

    Returns
    -------
    DataFrame
        share, draw (−1 at the posterior means of α, σ and Ω; else the number of a single draw, for the
        largest share alone), order, x, y.
    """
    at = np.array(pair)
    sd, r = draws.sd[:, at].mean(axis=0), float(draws.correlation[:, at[0], at[1]].mean())
    middle = np.array([[sd[0] ** 2, r * sd[0] * sd[1]], [r * sd[0] * sd[1], sd[1] ** 2]])
    parts = [(share, -1, ellipse(draws.mean[:, at].mean(axis=0), middle, share)) for share in sorted(shares)]
    for place in np.unique(np.linspace(0, len(draws) - 1, _THIN).astype(int)):
        own = draws.covariance[place][np.ix_(at, at)]
        parts.append((max(shares), int(place), ellipse(draws.mean[place, at], own, max(shares))))
    return pd.concat(
        [
            pd.DataFrame(
                {"share": share, "draw": draw, "order": np.arange(_POINTS), "x": line[:, 0], "y": line[:, 1]}
            )
            for share, draw, line in parts
        ],
        ignore_index=True,
    )
