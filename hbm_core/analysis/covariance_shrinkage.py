"""How much vector-valued units lean on their population: what each one's data say, η- and matrix shrinkage.

The gradient of a unit's log likelihood is h − H θ where its data are normal. Stein's identity gives H and h
from draws of the posterior alone, whatever the structure behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hbm_core.analysis.covariance_population import PopulationDraws, jackknife

Measured = Callable[[np.ndarray], np.ndarray]
#: Draws of Σ that a matrix shrinkage is averaged over.
_THIN = 200


@dataclass(frozen=True, eq=False)
class OwnData:
    """A unit's likelihood as the normal one that its draws imply: log p(y | θ) = hᵀθ − θᵀHθ/2 + constant.

    Parameters
    ----------
    used : ndarray (K,) of int
        Places of the components that the unit's data speak of.
    information : ndarray (K, K)
        H, positive semidefinite.
    score : ndarray (K,)
        h.
    """

    used: np.ndarray
    information: np.ndarray
    score: np.ndarray

    def estimate(self, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """The unit's estimate from its own data and an independent prior on each component, ndarray (K,).

        Parameters
        ----------
        mean, variance : ndarray (P,)
            Of the prior; an infinite variance is flat.
        """
        precision = np.diag(1 / variance[self.used])
        found: np.ndarray = np.linalg.pinv(self.information + precision) @ (
            self.score + precision @ mean[self.used]
        )
        return found


def own_data(draws: PopulationDraws, unit: int) -> OwnData:
    """What one unit's data say of it alone, from draws of the posterior.

    The conditional posterior of θ_c has the score s = h − Hθ − g, g = Λ(θ − α), Λ the inverse of the used
    block of Σ. E[s] = 0 gives h, and E[s (θ − E θ)ᵀ] = −I gives H = (I − E[g (θ − E θ)ᵀ]) Cov[θ]⁻¹: exactly
    where the likelihood is normal, and its average slope over the posterior elsewhere.

    References
    ----------
    Stein (1981), Annals of Statistics 9, lemma 2.
    """
    used = np.flatnonzero(draws.vector.used[unit])
    theta, gap = draws.theta[:, unit, used], (draws.theta[:, unit] - draws.mean)[:, used]
    pull = np.linalg.solve(draws.covariance[:, used[:, None], used], gap[:, :, None])[:, :, 0]
    center = theta.mean(axis=0)
    moved = theta - center
    covariance = moved.T @ moved / len(theta)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 1e-12 * values.max()))
    whitened = np.linalg.solve(root, (np.eye(used.size) - moved.T @ pull / len(theta)) @ root)
    # C^½ H C^½ is symmetric and has no negative eigenvalue but by Monte Carlo noise.
    lengths, directions = np.linalg.eigh(0.5 * (whitened + whitened.T))
    inner = (directions * np.maximum(lengths, 0.0)) @ directions.T
    back = np.linalg.inv(root)
    information = back.T @ inner @ back
    return OwnData(used, information, information @ center + pull.mean(axis=0))


def estimate_table(
    draws: PopulationDraws, prior_mean: np.ndarray, prior_variance: np.ndarray
) -> pd.DataFrame:
    """Independent and pooled estimates of every component that a unit's data speak of.

    Parameters
    ----------
    draws : PopulationDraws
        Of a fit.
    prior_mean, prior_variance : ndarray (P,)
        Of the prior on α, which an independent fit puts on each unit's own components.

    Returns
    -------
    DataFrame
        unit, component, independent, error (its Monte Carlo error), pooled (posterior mean), sd (posterior).
    """
    vector, rows = draws.vector, []
    for place, unit in enumerate(vector.units):

        def alone(at: np.ndarray, place: int = place) -> np.ndarray:
            return own_data(draws.taken(at), place).estimate(prior_mean, prior_variance)

        used = np.flatnonzero(vector.used[place])
        found, error = alone(np.arange(len(draws))), jackknife(alone, len(draws))
        theta = draws.theta[:, place, used]
        columns = (found, error, theta.mean(axis=0), theta.std(axis=0, ddof=1))
        rows += [(unit, vector.components[p], *row) for p, *row in zip(used, *columns, strict=True)]
    return pd.DataFrame(rows, columns=["unit", "component", "independent", "error", "pooled", "sd"])


def eta_shrinkage_table(draws: PopulationDraws) -> pd.DataFrame:
    """η-shrinkage of each component: 1 − sd of the units' estimates over the population's sd.

    Of the units whose data speak of the component; θ̂ is the posterior mean.

    Returns
    -------
    DataFrame
        component, units (how many), sd_units, sigma (posterior mean), shrinkage, low90, high90 (over the
        draws of σ), error (Monte Carlo). NaN with fewer than two units.

    References
    ----------
    Savic and Karlsson (2009), The AAPS Journal 11, 558.
    """
    used = draws.vector.used

    def shrinkage(at: np.ndarray) -> np.ndarray:
        estimate = draws.theta[at].mean(axis=0)
        sigma = draws.sd[at].mean(axis=0)
        return np.array(
            [
                1 - estimate[used[:, p], p].std(ddof=1) / sigma[p] if used[:, p].sum() > 1 else np.nan
                for p in range(used.shape[1])
            ]
        )

    every = np.arange(len(draws))
    found, error = shrinkage(every), jackknife(shrinkage, len(draws))
    estimate, sigma = draws.theta.mean(axis=0), draws.sd.mean(axis=0)
    rows = []
    for p, component in enumerate(draws.vector.components):
        count = int(used[:, p].sum())
        spread = float(estimate[used[:, p], p].std(ddof=1)) if count > 1 else np.nan
        low, high = 1 - spread / np.quantile(draws.sd[:, p], (0.05, 0.95))
        rows.append((component, count, spread, sigma[p], found[p], low, high, error[p]))
    names = ["component", "units", "sd_units", "sigma", "shrinkage", "low90", "high90", "error"]
    return pd.DataFrame(rows, columns=names)


def matrix_shrinkage(covariance: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Eigenvalues of W = (Σ⁻¹ + V⁻¹)⁻¹ Σ⁻¹, ascending, ndarray (…, K): 1 is all population, 0 all data.

    With Σ = L Lᵀ they are those of (I + Lᵀ V⁻¹ L)⁻¹, so that V⁻¹ may be singular.
    """
    root = np.linalg.cholesky(covariance)
    told = np.swapaxes(root, -1, -2) @ information @ root
    values: np.ndarray = 1 / (1 + np.maximum(np.linalg.eigvalsh(told), 0.0))
    return values[..., ::-1]


def matrix_shrinkage_table(draws: PopulationDraws) -> pd.DataFrame:
    """Matrix shrinkage of each unit's vector toward the population's mean.

    Returns
    -------
    DataFrame
        unit, rank (0 for trace/K, K the components that its data speak of; then the eigenvalues from the
        smallest), value (posterior mean), low90, high90 (over the draws of Σ), error (Monte Carlo).
    """
    rows = []
    for place, unit in enumerate(draws.vector.units):

        def measured(at: np.ndarray, place: int = place) -> np.ndarray:
            part = draws.taken(at)
            own = own_data(part, place)
            thin = np.unique(np.linspace(0, len(part) - 1, _THIN).astype(int))
            block = part.covariance[thin][:, own.used[:, None], own.used]
            values = matrix_shrinkage(block, own.information)
            return np.column_stack([values.mean(axis=1), values])

        found = measured(np.arange(len(draws)))

        def average(at: np.ndarray, measured: Measured = measured) -> np.ndarray:
            found: np.ndarray = measured(at).mean(axis=0)
            return found

        error = jackknife(average, len(draws))
        low, high = np.quantile(found, (0.05, 0.95), axis=0)
        rows += [
            (unit, rank, *row)
            for rank, row in enumerate(zip(found.mean(axis=0), low, high, error, strict=True))
        ]
    return pd.DataFrame(rows, columns=["unit", "rank", "value", "low90", "high90", "error"])
