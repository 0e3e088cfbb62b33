"""The small summary of a result, which pages load first, and its table of draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_core.analysis import draws as tables
from hbm_core.errors import FitError, InputError
from hbm_core.inference.exact import solve
from hbm_core.models.structure import ModelSpec


def flat(tree: xr.DataTree) -> Iterator[tuple[str, np.ndarray]]:
    """Every scalar of the posterior: its flat name (``theta[A]``) and its draws (chain, draw).

    Parameters
    ----------
    tree : xarray.DataTree
        With a group ``posterior``.
    """
    for name, array in tree["posterior"].data_vars.items():
        others = [dim for dim in array.dims if dim not in ("chain", "draw")]
        moved = array.transpose("chain", "draw", *others)
        labels = [moved[dim].values for dim in others]
        for place in itertools.product(*(range(len(label)) for label in labels)):
            index: Any = (slice(None), slice(None), *place)
            words = ",".join(str(label[k]) for label, k in zip(labels, place, strict=True))
            yield (
                (f"{name}[{words}]" if others else str(name)),
                moved.values[index],
            )


def summarize(tree: xr.DataTree, spec: ModelSpec | None = None) -> dict[str, Any]:
    """Moments, quantiles, shortest intervals, convergence and agreement with exact, ready for JSON.

    Parameters
    ----------
    tree : xarray.DataTree
        The draws.
    spec : ModelSpec, optional
        The model, for the comparison with its exact posterior where there is one.

    Returns
    -------
    dict
        parameters (name → mean, sd, q, hdi95, ess_bulk, ess_tail, r_hat, mcse_mean; units only where there
        are at most `hbm_core.analysis.draws.MANY_UNITS`), diagnostics, exact (see `compared`). Numbers that
        do not exist (an R-hat of one draw) are None.
    """
    table = tables.summary(tree)
    return {
        "parameters": {str(name): parameter_entry(row) for name, row in table.iterrows()},
        "diagnostics": finite(tables.diagnostics(tree, table)),
        "exact": compared(table, spec, str(tree.attrs.get("engine", ""))) if spec is not None else None,
    }


def parameter_entry(row: pd.Series) -> dict[str, Any]:
    """One row of a summary table as JSON promises it."""
    entry = {
        "mean": row["mean"],
        "sd": row["sd"],
        "q": {str(name)[1:]: row[name] for name in row.index if str(name).startswith("q")},
        "hdi95": [row["hdi95_low"], row["hdi95_high"]],
    }
    extra = ("ess_bulk", "ess_tail", "r_hat", "mcse_mean")
    return finite(entry | {name: row[name] for name in extra if name in row.index})


def compared(table: pd.DataFrame, spec: ModelSpec, engine: str = "") -> dict[str, Any] | None:
    """How a sampled summary compares with the exact posterior; None where there is none.

    Parameters
    ----------
    table : pandas.DataFrame
        From `hbm_core.analysis.draws.summary`.
    spec : ModelSpec
        The model.
    engine : str
        "variational" for draws from an approximation: its bias is no Monte Carlo error, and is told in
        posterior sds.

    Returns
    -------
    dict
        agrees; worst (largest difference, in Monte Carlo standard errors or posterior sds), unit ("MCSE" or
        "sd"), parameter (where), limit, count; sentence.
    """
    try:
        exact = solve(spec).summary(hdi=False)
    except (InputError, FitError):
        return None
    biased = engine == "variational"
    found = (tables.approximation if biased else tables.agreement)(table, exact)
    columns = ["mean", "sd", "median"] if biased else ["z_mean", "z_sd", "z_median"]
    worst = found[columns].abs().max(axis=1).dropna()
    if worst.empty:
        return None
    return {
        "agrees": bool(found["agrees"].all()),
        "worst": float(worst.max()),
        "unit": "sd" if biased else "MCSE",
        "parameter": str(worst.idxmax()),
        "limit": float(found["limit"].iloc[0]),
        "count": len(worst),
        "sentence": tables.approximation_verdict(found) if biased else tables.verdict(found),
    }


def finite(value: Any) -> Any:
    """Plain numbers, lists and mappings; what JSON cannot say (NaN, infinities) becomes None."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


#: Columns that draws by tempering have beside their parameters, and where they are kept.
_TEMPERED = {
    "log_prior": "log_prior",
    "log_likelihood": "log_likelihood",
    "log_posterior": "lp",
    "step_acceptance": "acceptance_rate",
    "swap_acceptance": "swap_acceptance",
}


def draws_table(tree: xr.DataTree) -> pd.DataFrame:
    """Draws as a table: chain, draw, then one column per flat name.

    Of tempering also log prior, likelihood and posterior (nats), and acceptance of steps and swaps; of other
    fits, those that were kept.

    `hbm_core.scenarios.tables.csv_text` makes it a download that a spreadsheet cannot run.
    """
    sizes = tree["posterior"].sizes
    chains, draws = np.meshgrid(np.arange(sizes["chain"]), np.arange(sizes["draw"]), indexing="ij")
    columns = {"chain": chains.ravel(), "draw": draws.ravel()}
    columns |= {name: values.ravel() for name, values in flat(tree)}
    if tree.attrs.get("engine") == "tempering" and "sample_stats" in tree.children:
        kept = tree["sample_stats"]
        for column, name in _TEMPERED.items():
            columns[column] = kept[name].transpose("chain", "draw").to_numpy().ravel()
    elif "log_density" in tree.children:
        kept = tree["log_density"]
        for column in ("log_prior", "log_likelihood", "log_posterior"):
            columns[column] = kept[column].transpose("chain", "draw").to_numpy().ravel()
        if "sample_stats" in tree.children and "acceptance_rate" in tree["sample_stats"]:
            accepted = tree["sample_stats"]["acceptance_rate"].transpose("chain", "draw")
            columns["step_acceptance"] = accepted.to_numpy().ravel()
    return pd.DataFrame(columns)
