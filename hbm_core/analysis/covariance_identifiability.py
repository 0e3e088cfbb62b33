"""What data identify: contraction from prior to posterior, and stiff and sloppy directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.covariance_population import heads_of
from hbm_core.analysis.covariance_prior import prior_of
from hbm_core.analysis.draws import jackknife, summary
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.models.structure import ModelSpec

#: Directions at either end.
ENDS = 3
#: Distance of a normal's quartiles, in sds.
_QUARTILES = 1.349


def prior_width(prior: Any) -> float:
    """Sd of a prior; where it has none, the sd of the normal with its quartiles' distance."""
    sd = float(prior.std())
    return sd if np.isfinite(sd) else float(np.diff(prior.ppf(np.array([0.25, 0.75])))[0] / _QUARTILES)


def contraction_table(spec: ModelSpec[Any], names: Sequence[str], source: Any) -> pd.DataFrame:
    """Contraction of each parameter: 1 − posterior variance over prior variance.

    Where the prior has no variance (heavy tails), distances of quartiles take the sds' places; parameters
    without a prior of their own in closed form, or with a flat one, are left out.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    names : sequence of str
        Flat names.
    source : xarray.DataTree or ExactPosterior
        A fit, or the exact posterior.

    Returns
    -------
    DataFrame
        parameter, prior_sd, posterior_sd (the quartiles' distance over 1.349 where ``by`` says so),
        contraction, error (Monte Carlo; 0 where exact), by ("variance", "quartiles"); the least identified
        first.

    References
    ----------
    Schad, Betancourt and Vasishth (2021), Psychological Methods 26, section on model sensitivity.
    """
    kept = [name for name in names if prior_of(spec, name) is not None]
    if isinstance(source, ExactPosterior):
        kept = [name for name in kept if name in source.names]
        places = [source.index(name) for name in kept]
        sd, error = source.sd[places], np.zeros(len(kept))
        low, high = source.quantiles((0.25, 0.75))[places].T
    else:
        table = summary(source, (0.25, 0.75), heads_of(kept), "all").loc[kept]
        sd, error = table["sd"].to_numpy(), table["mcse_sd"].to_numpy()
        low, high = table["q0.25"].to_numpy(), table["q0.75"].to_numpy()
    rows = []
    for place, name in enumerate(kept):
        prior = prior_of(spec, name)
        wide, own, by = prior_width(prior), float(sd[place]), "variance"
        if not (np.isfinite(prior.std()) and np.isfinite(own)):
            own, by = (high[place] - low[place]) / _QUARTILES, "quartiles"
        share = (own / wide) ** 2
        rows.append((name, wide, own, 1 - share, 2 * share * error[place] / sd[place], by))
    names_of = ["parameter", "prior_sd", "posterior_sd", "contraction", "error", "by"]
    found = pd.DataFrame(rows, columns=names_of)
    return found.sort_values("contraction", kind="stable").reset_index(drop=True)


def directions(covariance: np.ndarray, names: Sequence[str], ends: int = ENDS) -> pd.DataFrame:
    """Eigenvectors of a posterior covariance in prior units: the sloppiest and the stiffest.

    Parameters
    ----------
    covariance : ndarray (P, P)
        Of parameters each divided by its prior sd.
    names : sequence of str
        Of the parameters.
    ends : int
        Directions at either end; all where there are no more than twice as many.

    Returns
    -------
    DataFrame
        rank (1 is the sloppiest), side ("sloppy", "stiff"), eigenvalue (posterior variance along it over the
        prior variance), parameter, loading (the largest of a direction is positive).

    References
    ----------
    Gutenkunst et al. (2007), PLoS Computational Biology 3(10), e189, for stiff and sloppy directions.
    """
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(-values, kind="stable")
    count = len(order)
    chosen = list(range(count)) if count <= 2 * ends else [*range(ends), *range(count - ends, count)]
    parts = []
    for rank in chosen:
        vector = vectors[:, order[rank]]
        vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
        sloppy = rank < ends and rank < (count + 1) // 2
        parts.append(
            pd.DataFrame(
                {
                    "rank": rank + 1,
                    "side": "sloppy" if sloppy else "stiff",
                    "eigenvalue": max(float(values[order[rank]]), 0.0),
                    "parameter": list(names),
                    "loading": vector,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def directions_table(
    draws: np.ndarray, prior_sd: np.ndarray, names: Sequence[str], ends: int = ENDS
) -> pd.DataFrame:
    """`directions` of draws (S, P), with the column error: Monte Carlo, of the eigenvalue."""
    scaled = draws / prior_sd
    found = directions(np.cov(scaled.T).reshape(len(names), -1), names, ends)
    first = found.drop_duplicates("rank")
    vectors = np.array([rows["loading"].to_numpy() for _, rows in found.groupby("rank", sort=True)])
    along = scaled @ vectors.T
    error = jackknife(lambda at: along[at].var(axis=0, ddof=1), len(draws))
    by_rank = dict(zip(sorted(first["rank"]), error, strict=True))
    return found.assign(error=found["rank"].map(by_rank))
