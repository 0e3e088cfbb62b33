"""Whether the chains can be believed: tables behind the diagnostic plots, through ArviZ, with advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom, rankdata

from hbm_core.analysis.covariance import divergent, draws_table
from hbm_core.analysis.draws import LIMITS

#: Code to (what it means, what to do).
ADVICE: dict[str, tuple[str, str]] = {
    "r_hat": (
        "Chains disagree about this parameter.",
        "Run longer warm-up, or change the parameterization; do not read the numbers yet.",
    ),
    "ess_bulk": (
        "Few effectively independent draws behind the mean.",
        "Take more draws, or a parameterization that mixes better.",
    ),
    "ess_tail": (
        "Few effectively independent draws behind the interval ends.",
        "Take more draws before quoting 95 % intervals.",
    ),
    "divergences": (
        "The sampler could not follow the posterior somewhere, often the neck of the funnel.",
        "Change the parameterization, or raise target_accept.",
    ),
    "bfmi": (
        "Energy moves too slowly between draws: heavy tails or a funnel are explored badly.",
        "Change the parameterization, or use a prior with thinner tails on the scale.",
    ),
}


def chain_diagnostics(tree: Any) -> pd.DataFrame:
    """R-hat and effective sample sizes of every parameter.

    Parameters
    ----------
    tree : xarray.DataTree
        With group ``posterior`` (chain, draw, …).

    Returns
    -------
    DataFrame
        Indexed by parameter: r_hat, ess_bulk, ess_tail (effective draws); NaN where a parameter is
        constant or a single chain forbids it.
    """
    from arviz_stats import ess, rhat

    dataset = tree["posterior"].to_dataset()
    # ArviZ warns about single chains and constant parameters; both are NaN in the table
    with np.errstate(all="ignore"):
        found = {
            "r_hat": rhat(dataset)
            if dataset.sizes["chain"] > 1
            else dataset.mean(("chain", "draw")) * np.nan,
            "ess_bulk": ess(dataset, method="bulk"),
            "ess_tail": ess(dataset, method="tail", prob=(0.05, 0.95)),
        }
    return pd.DataFrame({name: _flat(values) for name, values in found.items()}).rename_axis("parameter")


def energy_bfmi(tree: Any) -> np.ndarray:
    """Estimated Bayesian fraction of missing information, ndarray (chains,); empty without energy."""
    if "sample_stats" not in tree.children or "energy" not in tree["sample_stats"]:
        return np.empty(0)
    from arviz_stats import bfmi

    return np.ravel(bfmi(tree)["energy"].to_numpy())


def rank_table(tree: Any, names: Sequence[str] | None = None, bins: int = 20) -> pd.DataFrame:
    """Rank histograms per chain: ranks of each chain's draws among all chains' draws.

    Returns
    -------
    DataFrame
        parameter, chain, bin, count; expected, low, high: mean and pointwise 99 % range of counts under
        independent, converged draws.
    """
    table = draws_table(tree, names)
    chains = np.unique(table["chain"])
    length = int((table["chain"] == chains[0]).sum())
    low, high = binom.ppf([0.005, 0.995], length, 1 / bins)
    rows = []
    for name in _parameters(table):
        rank = rankdata(table[name].to_numpy()) - 0.5
        cell = np.minimum((rank / len(table) * bins).astype(int), bins - 1)
        for chain in chains:
            counts = np.bincount(cell[table["chain"].to_numpy() == chain], minlength=bins)
            rows.append(
                pd.DataFrame({"parameter": name, "chain": chain, "bin": range(bins), "count": counts})
            )
    found = pd.concat(rows, ignore_index=True)
    return found.assign(expected=length / bins, low=low, high=high)


def ess_evolution(tree: Any, names: Sequence[str] | None = None, points: int = 12) -> pd.DataFrame:
    """Effective sample size as draws accumulate: it should grow in proportion.

    Returns
    -------
    DataFrame
        parameter, draws (per chain), kind ("bulk", "tail"), ess (effective draws), goal (400).
    """
    from arviz_stats import ess

    table = draws_table(tree, names)
    parameters = _parameters(table)
    chains, draws = table["chain"].nunique(), int((table["chain"] == table["chain"].iloc[0]).sum())
    values = {name: table[name].to_numpy().reshape(chains, draws) for name in parameters}
    rows = [
        {
            "parameter": name,
            "draws": int(upto),
            "kind": kind,
            "ess": float(ess(array[:, :upto], method=kind, prob=(0.05, 0.95) if kind == "tail" else None)),
            "goal": int(LIMITS["ess"]),
        }
        for name, array in values.items()
        for upto in np.unique(np.linspace(draws / points, draws, points).astype(int).clip(8))
        if upto <= draws
        for kind in ("bulk", "tail")
    ]
    return pd.DataFrame(rows, columns=["parameter", "draws", "kind", "ess", "goal"])


def autocorrelation(tree: Any, names: Sequence[str] | None = None, lags: int = 50) -> pd.DataFrame:
    """Autocorrelation per chain.

    Returns
    -------
    DataFrame
        parameter, chain, lag (draws), autocorrelation; low, high: 95 % range of independent draws.
    """
    from arviz_stats.base import array_stats

    table = draws_table(tree, names)
    rows = []
    for name in _parameters(table):
        for chain, part in table.groupby("chain"):
            values = part[name].to_numpy()
            found = np.asarray(array_stats.autocorr(values))[: lags + 1]
            half = 1.96 / np.sqrt(len(values))
            rows.append(
                pd.DataFrame(
                    {
                        "parameter": name,
                        "chain": chain,
                        "lag": np.arange(len(found)),
                        "autocorrelation": found,
                        "low": -half,
                        "high": half,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def log_density_table(tree: Any) -> pd.DataFrame:
    """Log densities that a fit kept of its draws: chain, draw, log_prior, log_likelihood, log_posterior.

    Nats; ``divergent`` as of the draws themselves.
    """
    found = tree["log_density"].to_dataset().transpose("chain", "draw")
    chains, draws = found.sizes["chain"], found.sizes["draw"]
    table = pd.DataFrame(
        {"chain": np.repeat(found["chain"].values, draws), "draw": np.tile(found["draw"].values, chains)}
    )
    for name in ("log_prior", "log_likelihood", "log_posterior"):
        table[name] = found[name].values.ravel()
    return table.assign(divergent=divergent(tree))


def energy_table(tree: Any) -> pd.DataFrame:
    """Marginal energy and its steps: their spreads should match.

    Returns
    -------
    DataFrame
        chain, draw, energy (centred), transition (step from the draw before, NaN at a chain's first).
        Empty where the sampler has no energy.
    """
    columns = ["chain", "draw", "energy", "transition"]
    if "sample_stats" not in tree.children or "energy" not in tree["sample_stats"]:
        return pd.DataFrame(columns=columns)
    energy = tree["sample_stats"]["energy"].transpose("chain", "draw")
    values = energy.to_numpy()
    steps = np.diff(values, axis=1, prepend=np.nan)
    return pd.DataFrame(
        {
            "chain": np.repeat(energy["chain"].to_numpy(), values.shape[1]),
            "draw": np.tile(energy["draw"].to_numpy(), values.shape[0]),
            "energy": (values - values.mean()).ravel(),
            "transition": steps.ravel(),
        }
    )


def divergence_table(tree: Any, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Where the divergent draws are: the rows of `draws_table` that are divergent."""
    return draws_table(tree, names)[divergent(tree)].reset_index(drop=True)


def advice_table(tree: Any) -> pd.DataFrame:
    """One row per diagnostic: the worst value, where, and what to do about it.

    Returns
    -------
    DataFrame
        diagnostic, worst, parameter, bound, ok (bool), meaning, advice (empty where ok).
    """
    chains = chain_diagnostics(tree)
    rows: list[tuple[str, float, str, str, bool]] = []
    for name, bound, better in (
        ("r_hat", LIMITS["r_hat"], "low"),
        ("ess_bulk", LIMITS["ess"], "high"),
        ("ess_tail", LIMITS["ess"], "high"),
    ):
        values = chains[name].dropna()
        if values.empty:
            continue
        place = str(values.idxmax() if better == "low" else values.idxmin())
        worst = float(values[place])
        ok = worst <= bound if better == "low" else worst >= bound
        rows.append((name, worst, place, f"{'≤' if better == 'low' else '≥'} {bound:g}", ok))
    count = int(divergent(tree).sum())
    rows.append(("divergences", count, "", "0", count == 0))
    if (fraction := energy_bfmi(tree)).size:
        worst, least = float(fraction.min()), LIMITS["e_bfmi"]
        rows.append(("bfmi", worst, "", f"≥ {least:g}", worst >= least))
    table = pd.DataFrame(rows, columns=["diagnostic", "worst", "parameter", "bound", "ok"])
    table["meaning"] = [
        "" if ok else ADVICE[d][0] for d, ok in zip(table["diagnostic"], table["ok"], strict=True)
    ]
    table["advice"] = [
        "" if ok else ADVICE[d][1] for d, ok in zip(table["diagnostic"], table["ok"], strict=True)
    ]
    return table


def _parameters(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in ("chain", "draw", "divergent")]


def _flat(dataset: Any) -> pd.Series:
    """One value per flat parameter name."""
    found: dict[str, float] = {}
    for name, variable in dataset.data_vars.items():
        if not variable.dims:
            found[str(name)] = float(variable)
            continue
        stacked = variable.stack(label=list(variable.dims))
        for key, value in zip(stacked["label"].to_numpy(), stacked.to_numpy(), strict=True):
            parts = key if isinstance(key, tuple) else (key,)
            found[f"{name}[{','.join(map(str, parts))}]"] = float(value)
    return pd.Series(found)
