"""How much vector-valued units lean on their population: what each one's data say, η- and matrix shrinkage.

The gradient of a unit's log likelihood is h − H θ where its data are normal. Stein's identity gives H and h
from draws of the posterior alone, whatever the structure behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis.covariance_population import PopulationDraws
from hbm_core.analysis.draws import block_error, blocks_of, jackknife

#: Draws of Σ in each block that a matrix shrinkage is averaged over.
_THIN = 5


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


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over blocks of draws (B, …) that a unit's `OwnData` are made of; θ less its mean over all."""

    used: np.ndarray
    center: np.ndarray
    count: np.ndarray
    theta: np.ndarray
    pull: np.ndarray
    cross: np.ndarray
    square: np.ndarray

    def own(self, blocks: Any = slice(None)) -> OwnData:
        """What some of the blocks say."""
        count = self.count[blocks].sum()
        mean, pull = self.theta[blocks].sum(axis=0) / count, self.pull[blocks].sum(axis=0) / count
        covariance = self.square[blocks].sum(axis=0) / count - np.outer(mean, mean)
        cross = self.cross[blocks].sum(axis=0) / count - np.outer(mean, pull)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 1e-12 * values.max()))
        back = np.linalg.inv(root)
        whitened = back @ (np.eye(len(mean)) - cross) @ root
        # It is symmetric and has no negative eigenvalue but by Monte Carlo noise.
        lengths, directions = np.linalg.eigh(0.5 * (whitened + whitened.T))
        inner = (directions * np.maximum(lengths, 0.0)) @ directions.T
        information = back.T @ inner @ back
        return OwnData(self.used, information, information @ (self.center + mean) + pull)

    def without_each(self) -> list[OwnData]:
        """What is said without one block, for each of them."""
        every = np.arange(len(self.count))
        return [self.own(every != block) for block in every]


def _sums(draws: PopulationDraws, unit: int) -> _Sums:
    used = np.flatnonzero(draws.vector.used[unit])
    theta, gap = draws.theta[:, unit, used], (draws.theta[:, unit] - draws.mean)[:, used]
    pull = np.linalg.solve(draws.covariance[:, used[:, None], used], gap[:, :, None])[:, :, 0]
    center = theta.mean(axis=0)
    theta = theta - center
    parts = blocks_of(len(theta))

    def summed(values: np.ndarray) -> np.ndarray:
        return np.array([values[part].sum(axis=0) for part in parts])

    def products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.array([one[part].T @ other[part] for part in parts])

    count = np.array([len(part) for part in parts], dtype=float)
    return _Sums(
        used, center, count, summed(theta), summed(pull), products(theta, pull), products(theta, theta)
    )


def own_data(draws: PopulationDraws, unit: int) -> OwnData:
    """What one unit's data say of it alone, from draws of the posterior.

    The conditional posterior of θ_c has the score s = h − Hθ − g, g = Λ(θ − α), Λ the inverse of the used
    block of Σ. E[s] = 0 gives h, and E[s (θ − E θ)ᵀ] = −I gives H = (I − E[g (θ − E θ)ᵀ]) Cov[θ]⁻¹: exactly
    where the likelihood is normal, and its average slope over the posterior elsewhere.

    References
    ----------
    Stein (1981), Annals of Statistics 9, lemma 2.
    """
    return _sums(draws, unit).own()


def own_estimates(
    draws: PopulationDraws, prior_mean: np.ndarray, prior_variance: np.ndarray, units: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """What an independent fit would say of units, computed from the draws of a pooled one.

    Parameters
    ----------
    draws : PopulationDraws
        Of a fit.
    prior_mean, prior_variance : ndarray (P,)
        Of the prior on α, which an independent fit puts on each unit's own components.
    units : sequence of int
        Places of units; all where there are none.

    Returns
    -------
    ndarray (units, P), ndarray (units, P)
        Estimates and their Monte Carlo errors; NaN where a unit's data do not speak of a component.
    """
    places = list(units) or list(range(len(draws.vector.units)))
    value, error = np.full((2, len(places), len(draws.vector.components)), np.nan)
    for row, place in enumerate(places):
        sums = _sums(draws, place)
        value[row, sums.used] = sums.own().estimate(prior_mean, prior_variance)
        error[row, sums.used] = block_error(
            [own.estimate(prior_mean, prior_variance) for own in sums.without_each()]
        )
    return value, error


def estimate_table(
    draws: PopulationDraws, independent: np.ndarray, error: np.ndarray, units: Sequence[int] = ()
) -> pd.DataFrame:
    """Independent and pooled estimates of every component that a unit's data speak of.

    Parameters
    ----------
    draws : PopulationDraws
        Of a fit.
    independent, error : ndarray (units, P)
        Estimates from each unit's own data, and their Monte Carlo errors.
    units : sequence of int
        Places of units; all where there are none.

    Returns
    -------
    DataFrame
        unit, component, independent, error, pooled (posterior mean), sd (posterior).
    """
    vector, rows = draws.vector, []
    for row, place in enumerate(list(units) or range(len(vector.units))):
        used = np.flatnonzero(vector.used[place])
        theta = draws.theta[:, place, used]
        columns = (independent[row, used], error[row, used], theta.mean(axis=0), theta.std(axis=0, ddof=1))
        rows += [
            (vector.units[place], vector.components[p], *values)
            for p, *values in zip(used, *columns, strict=True)
        ]
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


def matrix_shrinkage_table(draws: PopulationDraws, units: Sequence[int] = ()) -> pd.DataFrame:
    """Matrix shrinkage of each unit's vector toward the population's mean.

    Parameters
    ----------
    draws : PopulationDraws
        Of a fit.
    units : sequence of int
        Places of units; all where there are none.

    Returns
    -------
    DataFrame
        unit, rank (0 for trace/K, K the components that its data speak of; then the eigenvalues from the
        smallest), value (posterior mean), low90, high90 (over the draws of Σ), error (Monte Carlo).
    """
    rows = []
    # As many from each block, so that leaving out a block leaves out its own.
    parts = [part[:: max(1, len(part) // _THIN)][:_THIN] for part in blocks_of(len(draws))]
    thin, block = np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    for place in units or range(len(draws.vector.units)):
        sums = _sums(draws, place)
        covariance = draws.covariance[thin][:, sums.used[:, None], sums.used]

        def measured(
            own: OwnData, kept: Any = slice(None), covariance: np.ndarray = covariance
        ) -> np.ndarray:
            values = matrix_shrinkage(covariance[kept], own.information)
            return np.column_stack([values.mean(axis=1), values])

        found = measured(sums.own())
        error = block_error(
            [measured(own, block != at).mean(axis=0) for at, own in enumerate(sums.without_each())]
        )
        low, high = np.quantile(found, (0.05, 0.95), axis=0)
        rows += [
            (draws.vector.units[place], rank, *row)
            for rank, row in enumerate(zip(found.mean(axis=0), low, high, error, strict=True))
        ]
    return pd.DataFrame(rows, columns=["unit", "rank", "value", "low90", "high90", "error"])
