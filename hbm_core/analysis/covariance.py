"""How parameters move together: exact covariances, pairs of draws, and the funnel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.batched import TauMixture, tau_mixture
from hbm_core.analysis.draws import flat_draws, jackknife
from hbm_core.errors import InputError
from hbm_core.models.structure import ModelSpec


def exact_correlation(
    spec: ModelSpec, hyper: bool = True, units: Sequence[str] | None = None
) -> pd.DataFrame:
    """Posterior correlation matrix of μ, τ and the θ_i, by the law of total covariance over τ.

    Given τ the covariance is closed: Cov[θ_i, θ_j | τ] = δ_ij s_i² (1 − B_i) + B_i B_j z_i Cov[γ | τ] z_j.

    Parameters
    ----------
    spec : ModelSpec
        Normal structure with normal or flat priors on the coefficients.
    hyper : bool
        Whether μ and (where it has a finite variance) τ come first.
    units : sequence of str, optional
        Labels of the units to list; the posterior is always that of all data. All by default.

    Returns
    -------
    DataFrame
        Square, labelled by parameter name.

    Raises
    ------
    NotExactError
        The posterior is not Gaussian given τ.
    """
    covariance = exact_covariance(spec, hyper, units)
    sd = np.sqrt(np.diag(covariance))
    moving = np.where(sd > 0, sd, np.nan)
    return covariance.div(moving, axis=0).div(moving, axis=1)


def only(mixture: TauMixture, units: Sequence[str]) -> TauMixture:
    """A posterior of all units with only some of them listed: nothing is computed anew."""
    structure = mixture.spec.structure
    place = {label: index for index, label in enumerate(structure.units)}
    at = np.array([place[label] for label in units])
    listed = replace(
        structure,
        effect=structure.effect[at],
        se=structure.se[at],
        units=tuple(units),
        design=structure.design[at],
    )
    spec = replace(
        mixture.spec,
        structure=listed,
        priors=dict(mixture.spec.priors),
        constants=dict(mixture.spec.constants),
    )
    return replace(mixture, spec=spec, effect=mixture.effect[:, at], pooling=mixture.pooling[:, at])


def exact_covariance(spec: ModelSpec, hyper: bool = True, units: Sequence[str] | None = None) -> pd.DataFrame:
    """Posterior covariance matrix behind `exact_correlation`, in squared units of the outcome."""
    mixture, count = tau_mixture(spec), len(spec.structure.units)
    if units is not None:
        mixture = only(mixture, units)
    structure = mixture.spec.structure
    names = [f"theta[{label}]" for label in structure.units]
    theta = mixture.theta_covariance()[0]
    if not hyper or structure.pooling == "none":
        return pd.DataFrame(theta, index=names, columns=names)
    weight, means = mixture.weight[0], mixture.node_mean()[0]
    lean = mixture.pooling[:, :, None] * mixture.predictor
    mu = mixture.coefficient[0, :, 0]
    rows = [mu - weight @ mu]
    within = [np.einsum("k,kjp,kp->j", weight, lean, mixture.covariance[:, :, 0])]
    own = [float(weight @ mixture.covariance[:, 0, 0])]
    front = ["mu"]
    tail = spec.priors["tau"].tail if structure.pooling == "partial" else 0.0
    flat = int((mixture.prior_precision == 0).sum())
    if structure.pooling == "partial" and count - flat + min(tail, 8.0) > 2:
        rows.append(mixture.tau - weight @ mixture.tau)
        within.append(np.zeros(len(names)))
        own.append(0.0)
        front.append("tau")
    deviation = np.array(rows)
    head = (deviation * weight) @ deviation.T + np.diag(own)
    cross = (deviation * weight) @ (means - weight @ means) + np.array(within)
    full = np.block([[head, cross], [cross.T, theta]])
    return pd.DataFrame(full, index=[*front, *names], columns=[*front, *names])


def draws_table(tree: Any, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Draws as a wide table: chain, draw, one column per flat parameter name, and divergent.

    Parameters
    ----------
    tree : xarray.DataTree
        With group ``posterior``; ``sample_stats/diverging`` if the sampler knows divergences.
    names : sequence of str, optional
        Flat names such as ``mu`` or ``theta[A]``; all by default.

    Raises
    ------
    InputError
        A name that the fit does not have.
    """
    posterior = tree["posterior"].to_dataset()
    heads = [name for name in posterior.data_vars if names is None or _any_of(str(name), names)]
    labels, draws = flat_draws(posterior, heads, "all")
    place = {label: row for row, label in enumerate(labels)}
    wanted = labels if names is None else list(names)
    for name in wanted:
        if name not in place:
            raise InputError("parameter", "one of " + ", ".join(flat_names(tree)[:12]), repr(name))
    chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
    values = draws.reshape(len(labels), chains * length)[[place[name] for name in wanted]]
    table = pd.DataFrame(values.T, columns=wanted)
    table.insert(0, "draw", np.tile(posterior["draw"].to_numpy(), chains))
    table.insert(0, "chain", np.repeat(posterior["chain"].to_numpy(), length))
    table["divergent"] = divergent(tree)
    return table


def _any_of(variable: str, names: Sequence[str]) -> bool:
    return any(name == variable or name.startswith(f"{variable}[") for name in names)


def flat_names(tree: Any) -> list[str]:
    """Flat names of all parameters of a fit."""
    return flat_draws(tree["posterior"].to_dataset().isel(chain=slice(1), draw=slice(1)), None, "all")[0]


def divergent(tree: Any) -> np.ndarray:
    """Flags of divergent draws, ndarray (chains × draws,), all False where the sampler has no such thing."""
    posterior = tree["posterior"]
    count = posterior.sizes["chain"] * posterior.sizes["draw"]
    if "sample_stats" not in tree.children or "diverging" not in tree["sample_stats"]:
        return np.zeros(count, dtype=bool)
    return tree["sample_stats"]["diverging"].transpose("chain", "draw").to_numpy().ravel().astype(bool)


def pairs_table(tree: Any, names: Sequence[str], limit: int = 2000) -> pd.DataFrame:
    """Draws for a pair plot: every divergent draw, and an even thinning of the others.

    Returns
    -------
    DataFrame
        As `draws_table`, at most `limit` undivergent rows.
    """
    table = draws_table(tree, names)
    quiet = np.flatnonzero(~table["divergent"])
    step = max(1, -(-len(quiet) // limit))
    keep = np.sort(np.concatenate([quiet[::step], np.flatnonzero(table["divergent"])]))
    return table.iloc[keep].reset_index(drop=True)


def funnel_table(
    tree: Any, unit: str, names: tuple[str, str] = ("mu", "tau"), limit: int = 2000
) -> pd.DataFrame:
    """Where centered sampling fails: `funnel_of` every divergent draw of a fit and at most `limit` others.

    Parameters
    ----------
    tree : xarray.DataTree
        A fit.
    unit : str
        Label.
    names : tuple of str
        As of `funnel_of`.
    limit : int
        Undivergent draws, at most.
    """
    own = f"theta[{unit}]"
    return funnel_of(pairs_table(tree, [*names, own], limit), own, names)


def funnel_of(
    table: pd.DataFrame, own: str, names: tuple[str, str] = ("mu", "tau"), log: bool = False
) -> pd.DataFrame:
    """A `draws_table` with μ, τ and one θ as what a funnel shows.

    Parameters
    ----------
    table : DataFrame
        Draws.
    own : str
        Flat name of the θ.
    names : tuple of str
        Flat names of what it is pulled to and of the spread around it, here called μ and τ.
    log : bool
        Whether it is log θ that is pulled.

    Returns
    -------
    DataFrame
        chain, draw, log_tau (log of the outcome's units), theta (the outcome's units, or its log),
        standardised ((θ − μ)/τ, what the non-centered sampler sees), divergent.
    """
    tau = np.maximum(table[names[1]].to_numpy(dtype=float), np.finfo(float).tiny)
    theta = table[own].to_numpy(dtype=float)
    theta = np.log(theta) if log else theta
    return pd.DataFrame(
        {
            "chain": table["chain"],
            "draw": table["draw"],
            "log_tau": np.log(tau),
            "theta": theta,
            "standardised": (theta - table[names[0]].to_numpy()) / tau,
            "divergent": table["divergent"],
        }
    )


def draws_correlation(tree: Any, names: Sequence[str] | None = None) -> tuple[pd.DataFrame, float]:
    """Posterior correlation matrix from draws.

    Returns
    -------
    matrix : DataFrame
        Square, labelled by parameter name; NaN where constant.
    error : float
        Largest Monte Carlo standard error of an entry, by `jackknife`.
    """
    table = draws_table(tree, names).drop(columns=["chain", "draw", "divergent"])
    values = table.to_numpy(dtype=float)
    moving = np.ptp(values, axis=0) > 0
    error = jackknife(lambda at: np.corrcoef(values[at][:, moving].T), len(values))
    return table.corr(), float(np.nanmax(error, initial=0.0))
