"""Parameters two by two without a sampler: independent exact draws, and how effects hang together by τ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.batched import at_tau, linear
from hbm_core.analysis.covariance import exact_correlation, only
from hbm_core.analysis.shrinkage_three_level import mean_labels
from hbm_core.errors import InputError
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.structure import ModelSpec

#: Units up to which all pairs are compared; of more, so many, evenly.
_MOST_UNITS = 60
#: Draws behind a matrix that has no closed form, and numbers drawn for it, at most.
_DRAWS, _MOST_NUMBERS = 20_000, 8_000_000


def exact_draws_table(
    posterior: ExactPosterior, names: Sequence[str], count: int = 1500, seed: int = 0
) -> pd.DataFrame:
    """Independent joint draws of the exact posterior, in the shape of `covariance.draws_table`.

    Parameters
    ----------
    posterior : ExactPosterior
        What to draw from.
    names : sequence of str
        Flat names such as ``mu`` or ``theta[A]``.
    count, seed : int
        Draws (fewer where every one holds very many units), and the seed that makes them.

    Returns
    -------
    DataFrame
        chain (0), draw, one column per name in the parameter's units, divergent (False).

    Raises
    ------
    InputError
        A name that the model does not have.
    """
    structure: Any = posterior.spec.structure
    by_unit = isinstance(posterior, ThreeLevelPosterior | GaussianMixedPosterior)
    drawn = len(names) if by_unit else len(posterior.names)
    count = max(100, min(count, _MOST_NUMBERS // (drawn + 1)))
    if isinstance(posterior, ThreeLevelPosterior | GaussianMixedPosterior):
        return _three_level_draws(posterior, names, count, seed)
    found = posterior.draws(count, seed)
    columns: dict[str, np.ndarray] = {
        name: values for name, values in found.items() if values.ndim == 1 and name in posterior.names
    }
    if "beta" in found:
        columns |= {f"beta[{name}]": found["beta"][:, k] for k, name in enumerate(structure.columns)}
    table = pd.DataFrame({"chain": 0, "draw": np.arange(count)})
    places = {f"theta[{unit}]": place for place, unit in enumerate(structure.units)}
    for name in names:
        if name in places:
            table[name] = found["theta"][:, places[name]]
        elif name in columns:
            table[name] = columns[name]
        else:
            raise InputError("parameter", "one of " + ", ".join(posterior.names[:12]), repr(name))
    table["divergent"] = False
    return table


def _three_level_draws(
    posterior: ThreeLevelPosterior | GaussianMixedPosterior, names: Sequence[str], count: int, seed: int
) -> pd.DataFrame:
    """Draws of the named parameters alone: a million units have no table."""
    structure = posterior.structure
    units = {name: name[6:-1] for name in names if name.startswith("theta[")}
    means = [f"{structure.group_mean}[{label}]" for label in mean_labels(structure)]
    try:
        places = structure.places(units.values())
    except ValueError as error:
        raise InputError("parameter", "a unit of the data", str(error)) from None
    found = posterior.draws(count, seed, places)
    columns = {name: found[name] for name in structure.parameters}
    columns |= dict(zip(means, found[structure.group_mean].T, strict=True))
    if isinstance(structure, GaussianMixed):
        contrasts = [f"{structure.contrast}[{label}]" for label in structure.contrasts]
        columns |= dict(zip(contrasts, found[structure.contrast].T, strict=True))
    columns |= dict(zip(units, found["theta"].T, strict=True))
    table = pd.DataFrame({"chain": 0, "draw": np.arange(count)})
    for name in names:
        if name not in columns:
            raise InputError("parameter", "one of " + ", ".join(posterior.hyper_names), repr(name))
        table[name] = columns[name]
    table["divergent"] = False
    return table


def correlation(posterior: ExactPosterior, names: Sequence[str], seed: int = 0) -> tuple[pd.DataFrame, float]:
    """Posterior correlation matrix of some parameters, and the error of its entries.

    Integrated over τ where the posterior is Gaussian given τ; from
    independent exact draws otherwise.

    Returns
    -------
    matrix : DataFrame
        Square, labelled by name; NaN where a parameter does not move or has no variance.
    error : float
        Largest Monte-Carlo standard error; 0 where integrated.
    """
    spec = posterior.spec
    chosen = set(names)
    if linear(spec):
        wanted = [label for label in spec.structure.units if f"theta[{label}]" in chosen]
        matrix = exact_correlation(spec, units=wanted) if wanted else pd.DataFrame()
        if set(names) <= set(matrix.index):
            return matrix.loc[list(names), list(names)], 0.0
    count = _DRAWS // 5 if isinstance(posterior, GaussianMixedPosterior) else _DRAWS
    table = exact_draws_table(posterior, names, count, seed)[list(names)]
    still = table.std() <= 1e-12 * table.abs().max()
    infinite = [name for name in names if name in posterior.names and not _has_variance(posterior, name)]
    matrix = table.corr()
    matrix.loc[still, :] = matrix.loc[:, still] = np.nan
    matrix.loc[infinite, :] = matrix.loc[:, infinite] = np.nan
    return matrix, float(1 / np.sqrt(len(table)))


def _has_variance(posterior: ExactPosterior, name: str) -> bool:
    return bool(np.isfinite(posterior.sd[posterior.index(name)]))


def correlation_given_tau(spec: ModelSpec, taus: Sequence[float]) -> pd.DataFrame:
    """Mean posterior correlation of two θ's at each τ: 1 at τ = 0, 0 without pooling.

    Given τ, Cov[θ_i, θ_j | τ, y] = B_i B_j z_i Cov[γ | τ, y] z_j: what two units share is that they do not
    know their common mean, and each holds on to it by its B.

    Parameters
    ----------
    spec : ModelSpec
        Partial pooling, Gaussian given τ.
    taus : sequence of float
        In the outcome's units.

    Returns
    -------
    DataFrame
        tau, mean, low, high: mean, smallest and largest correlation of two units (of at most 60, evenly).
    """
    labels, rows = spec.structure.units, []
    if len(labels) > _MOST_UNITS:
        labels = tuple(labels[k] for k in np.linspace(0, len(labels) - 1, _MOST_UNITS).astype(int))
    for tau in taus:
        covariance = only(at_tau(spec, float(tau)), labels).theta_covariance()[0]
        sd = np.sqrt(np.diag(covariance))
        pairs = (covariance / sd / sd[:, None])[np.triu_indices(len(sd), 1)]
        rows.append({"tau": float(tau), "mean": pairs.mean(), "low": pairs.min(), "high": pairs.max()})
    return pd.DataFrame(rows)
