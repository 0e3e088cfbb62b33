"""Moderated variances: each arm's variance shared with the arms of its genre, as much as they agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import digamma, polygamma

from hbm_core.errors import InputError
from hbm_core.scenarios.creators.data import ARMS


@dataclass(frozen=True)
class VariancePrior:
    """What a genre's arms say of a variance before it is seen: scaled inverse χ² with `df` and `scale`.

    Parameters
    ----------
    df : float
        d₀: a variance counts as if so many further degrees of freedom had shown `scale`; infinite where the
        variances differ no more than their own noise explains.
    scale : float
        s₀², in the outcome's units squared.
    """

    df: float
    scale: float

    def moderate(self, variance: np.ndarray, df: np.ndarray) -> np.ndarray:
        """(d₀ s₀² + d s²)/(d₀ + d), ndarray like `variance`."""
        if np.isinf(self.df):
            return np.full(np.shape(variance), self.scale)
        return (self.df * self.scale + df * variance) / (self.df + df)


def fit_variance_prior(variance: np.ndarray, df: np.ndarray) -> VariancePrior | None:
    """Fit the prior by moments of the log variances; None for fewer than 3 variances.

    s²/s₀² follows F(d, d₀), so e = log s² − ψ(d/2) + log(d/2) has mean log s₀² − ψ(d₀/2) + log(d₀/2) and
    variance ψ′(d/2) + ψ′(d₀/2).

    Parameters
    ----------
    variance, df : ndarray (K,)
        s² and its degrees of freedom, both positive.

    References
    ----------
    Smyth (2004), Linear models and empirical Bayes methods for assessing differential expression in
    microarray experiments, Stat. Appl. Genet. Mol. Biol. 3(1), article 3, section 6.2.
    """
    if variance.size < 3:
        return None
    e = np.log(variance) - digamma(df / 2) + np.log(df / 2)
    center = e.mean()
    extra = e.var(ddof=1) - polygamma(1, df / 2).mean()
    if extra <= 0:
        return VariancePrior(float("inf"), float(np.exp(center)))
    half = inverse_trigamma(extra)
    return VariancePrior(2 * half, float(np.exp(center + digamma(half) - np.log(half))))


def inverse_trigamma(y: float) -> float:
    """X > 0 with ψ′(x) = y, by Newton's steps on 1/ψ′, which is nearly straight.

    References
    ----------
    Smyth (2004), appendix.
    """
    if y > 1e7:
        return y**-0.5
    if y < 1e-6:
        return 1 / y
    x = 0.5 + 1 / y
    for _ in range(50):
        value = float(polygamma(1, x))
        step = value * (1 - value / y) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-12 * x:
            break
    return x


def moderated(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[str, str], VariancePrior]]:
    """Standard errors from moderated variances, per genre and arm; the variances in the table stay.

    Parameters
    ----------
    table : pandas.DataFrame
        Canonical, with ``n_`` and ``var_`` of both arms.

    Returns
    -------
    table : pandas.DataFrame
        With another `se`.
    priors : dict of (genre, arm) to VariancePrior
        Genres with fewer than 3 creators are absent: their variances stay their own.

    Raises
    ------
    InputError
        The table has no variances per arm.
    """
    needed = [f"{name}_{arm}" for name in ("n", "var") for arm in ARMS]
    if not set(needed) <= set(table.columns):
        raise InputError(
            "moderated variances", "users and variance per arm (" + ", ".join(needed) + ")", "other columns"
        )
    square = np.zeros(len(table))
    priors = {}
    places = table.groupby("genre", sort=False).indices
    for arm in ARMS:
        count = table[f"n_{arm}"].to_numpy()
        own = table[f"var_{arm}"].to_numpy()
        shared = own.copy()
        for genre, place in places.items():
            usable = place[own[place] > 0]
            prior = fit_variance_prior(own[usable], count[usable] - 1.0)
            if prior is not None:
                priors[str(genre), arm] = prior
                shared[place] = prior.moderate(own[place], count[place] - 1.0)
        square += shared / count
    return table.assign(se=np.sqrt(square)), priors
