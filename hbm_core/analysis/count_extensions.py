"""Tables of models of counts beyond the gamma population: shut windows, coefficients, drift, two effects.

Each takes a posterior that has draws: re-weighted draws of a fit, or its result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_core.analysis.count_worlds import replicate_counts
from hbm_core.analysis.counts_predictive import rootogram_table
from hbm_core.analysis.covariance_population import ellipse
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.structure import ModelSpec

_ENDS = (0.025, 0.25, 0.5, 0.75, 0.975)
_NAMES = ("low95", "low50", "median", "high50", "high95")
#: Replicated data sets.
_REPLICATES = 200


def shut_table(posterior: ExactPosterior, seed: int = 0) -> pd.DataFrame:
    """Share of windows without an event: seen, and under the model with and without windows that are shut.

    Returns
    -------
    DataFrame
        kind ("seen", "with", "without"), label, share, low95, high95.
    """
    structure: Any = posterior.spec.structure
    drawn = posterior.draws(_REPLICATES, seed)
    rows = [("seen", "Seen", float((structure.count == 0).mean()), np.nan, np.nan)]
    for kind, label, psi in (
        ("with", "Model", drawn["psi"]),
        ("without", "Its rates alone", 0 * drawn["psi"]),
    ):
        made = replicate_counts(structure, drawn | {"psi": psi}, np.random.default_rng([seed, 2]))
        share = (made == 0).mean(axis=1)
        low, high = np.quantile(share, [0.025, 0.975])
        rows.append((kind, label, float(share.mean()), low, high))
    return pd.DataFrame(rows, columns=["kind", "label", "share", "low95", "high95"])


def rootograms(posterior: ExactPosterior, seed: int = 0) -> dict[str, pd.DataFrame]:
    """`rootogram_table` of the model ("with") and of its rates were no window shut ("without")."""
    structure: Any = posterior.spec.structure
    drawn = posterior.draws(_REPLICATES, seed)
    return {
        kind: rootogram_table(
            structure,
            replicate_counts(structure, drawn | {"psi": psi}, np.random.default_rng([seed, 2])),
        )
        for kind, psi in (("with", drawn["psi"]), ("without", 0 * drawn["psi"]))
    }


def coefficient_table(posterior: ExactPosterior) -> pd.DataFrame:
    """Effects of the covariates on the log rate, per sd of a column.

    Returns
    -------
    DataFrame
        column; mean, sd, low95, low50, median, high50, high95; factor, factor_low95, factor_high95
        (exponentials: how many times larger a rate is one sd higher); p_positive.
    """
    structure: Any = posterior.spec.structure
    rows = []
    quantiles = posterior.quantiles(_ENDS)
    for column in structure.columns:
        name = f"beta[{column}]"
        at = posterior.index(name)
        ends = dict(zip(_NAMES, quantiles[at], strict=True))
        rows.append(
            {"column": column, "mean": posterior.mean[at], "sd": posterior.sd[at]}
            | ends
            | {
                "factor": np.exp(ends["median"]),
                "factor_low95": np.exp(ends["low95"]),
                "factor_high95": np.exp(ends["high95"]),
                "p_positive": 1 - float(np.ravel(posterior.cdf(name, np.array([0.0])))[0]),
            }
        )
    return pd.DataFrame(rows)


def trajectory_table(spec: ModelSpec[DriftingCounts], tree: xr.DataTree, unit: str) -> pd.DataFrame:
    """An entity's rate window by window, under the priors of the fit.

    Parameters
    ----------
    spec : ModelSpec of DriftingCounts
        The model.
    tree : xarray.DataTree
        A fit with the group ``trajectory``.
    unit : str
        Label of the entity.

    Returns
    -------
    DataFrame
        window (1, 2 …); raw (count over exposure); mean, low95, low50, median, high50, high95.
    """
    structure = spec.structure
    place = list(structure.units).index(unit)
    at = np.flatnonzero(structure.entity == place)
    group = tree["trajectory"].to_dataset()
    table = pd.DataFrame(
        {"window": np.arange(1, at.size + 1), "raw": structure.count[at] / structure.exposure[at]}
    )
    table["mean"] = group["mean"].values[at]
    for name, values in zip(_NAMES, group["quantile"].values[:, at], strict=True):
        table[name] = values
    return table


def effects_table(posterior: ExactPosterior) -> pd.DataFrame:
    """Both effects of each entity: rate and median bytes of a window.

    Returns
    -------
    DataFrame
        unit; rate, rate_low95, rate_high95; bytes, bytes_low95, bytes_high95; raw_rate, raw_bytes (NaN
        without any).
    """
    structure: Any = posterior.spec.structure
    quantiles = posterior.quantiles((0.025, 0.5, 0.975))
    where = {name: row for name, row in zip(posterior.names, quantiles, strict=True)}
    sums = structure.byte_sums
    rows = []
    for place, unit in enumerate(structure.units):
        low, middle, high = where[f"theta[{unit}]"]
        low_b, middle_b, high_b = where[f"theta_bytes[{unit}]"]
        raw = float(np.exp(sums.mean[place])) if sums.windows[place] else np.nan
        rows.append((str(unit), middle, low, high, middle_b, low_b, high_b, structure.effect[place], raw))
    columns = ["unit", "rate", "rate_low95", "rate_high95", "bytes", "bytes_low95", "bytes_high95"]
    return pd.DataFrame(rows, columns=[*columns, "raw_rate", "raw_bytes"])


def ellipse_table(posterior: ExactPosterior) -> pd.DataFrame:
    """Where the population has half and 95 % of its entities, at the posterior means.

    Returns
    -------
    DataFrame
        share (0.5 or 0.95), order, rate, bytes.
    """
    value = {
        name: float(posterior.mean[posterior.index(name)])
        for name in posterior.names[: posterior.theta.start]
        if "theta" not in name
    }
    corr = value["corr[count,bytes]"]
    mean = np.array([value["mu_count"], value["mu_bytes"]])
    sd = np.array([value["sigma_count"], value["sigma_bytes"]])
    covariance = np.outer(sd, sd) * np.array([[1.0, corr], [corr, 1.0]])
    parts = []
    for share in (0.5, 0.95):
        rate, volume = np.exp(ellipse(mean, covariance, share)).T
        parts.append(
            pd.DataFrame({"share": share, "order": np.arange(rate.size), "rate": rate, "bytes": volume})
        )
    return pd.concat(parts, ignore_index=True)
