"""Pareto-smoothed importance sampling: weights of draws, and how far they can be trusted.

NumPy alone, because the weights hang on sliders of a process that must not import a statistics library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

#: Above this k no number of draws in use makes the weights reliable.
MOST_K = 0.7
_PRIOR_DRAWS, _PRIOR_K = 10, 0.5


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Smoothed importance weights.

    Attributes
    ----------
    weight : ndarray (n,)
        They sum to 1.
    k : float
        Shape of the fitted generalized Pareto tail; 0 where all weights are equal, infinite where no tail
        can be fitted.
    limit : float
        Largest k at which this many draws are reliable, at most `MOST_K`.
    """

    weight: np.ndarray
    k: float
    limit: float

    @property
    def reliable(self) -> bool:
        """Whether moments under these weights, and their Monte Carlo errors, can be trusted."""
        return self.k <= self.limit

    @property
    def size(self) -> float:
        """Effective number of draws, 1/Σ w²."""
        return float(1 / np.sum(self.weight**2))


def smooth(log_ratio: np.ndarray, efficiency: float = 1.0) -> Smoothed:
    """Weights from log importance ratios, the largest replaced by quantiles of a fitted Pareto tail.

    Parameters
    ----------
    log_ratio : ndarray (n,)
        log target − log proposal, up to a constant; minus infinity where the target has no mass.
    efficiency : float
        Effective over actual number of the draws, of a Markov chain less than 1.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto Smoothed Importance Sampling, JMLR 25, sections 3.1
    (tail), 3.2.4 (limit of k), appendix G (fit of the tail, after Zhang & Stephens 2009).
    """
    n = log_ratio.size
    limit = min(1 - 1 / np.log10(max(n * efficiency, 11.0)), MOST_K)
    if not np.isfinite(log_ratio).any():
        return Smoothed(np.full(n, 1 / n), np.inf, limit)
    value = log_ratio - log_ratio.max()
    tail = int(3 * np.sqrt(n / efficiency)) if n * efficiency > 225 else n // 5
    tail = min(tail, n // 5)
    if np.ptp(value) < 1e-9:
        return Smoothed(np.full(n, 1 / n), 0.0, limit)
    order = np.argsort(value)[n - tail - 1 :]
    cutoff, places = value[order[0]], order[1:]
    if tail < 5 or not np.isfinite(cutoff):
        # Fewer draws have any weight than a tail needs.
        return Smoothed(np.exp(value - logsumexp(value)), np.inf, limit)
    if value[places[-1]] - value[places[0]] < 1e-9:
        return Smoothed(np.exp(value - logsumexp(value)), 0.0, limit)
    k, sigma = pareto_tail(np.exp(value[places]) - np.exp(cutoff))
    if np.isfinite(k):
        p = (np.arange(tail) + 0.5) / tail
        above = sigma * (-np.log1p(-p) if k == 0 else np.expm1(-k * np.log1p(-p)) / k)
        value[places] = np.minimum(np.log(np.exp(cutoff) + above), 0.0)
    return Smoothed(np.exp(value - logsumexp(value)), float(k), limit)


def pareto_tail(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution, the shape pulled weakly to ½.

    Parameters
    ----------
    excess : ndarray (n,)
        Ascending, not negative.

    Returns
    -------
    tuple of float
        (k, σ); infinite k where the smallest quarter is one value, so that nothing can be fitted.

    References
    ----------
    Zhang & Stephens (2009), Technometrics 51(3), 316–325, equations 5 to 7.
    """
    n, quarter = excess.size, excess[int(excess.size / 4 + 0.5) - 1]
    if quarter <= excess[0]:
        return np.inf, np.nan
    count = 30 + int(np.sqrt(n))
    b = (1 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))) / (3 * quarter) + 1 / excess[-1]
    each = np.log1p(-b[:, None] * excess).mean(axis=1)
    profile = n * (np.log(-b / each) - each - 1)
    weight = np.exp(profile - logsumexp(profile))
    weight = np.where(weight >= 10 * np.finfo(float).eps, weight, 0.0)
    mean = float(b @ weight / weight.sum())
    k = float(np.log1p(-mean * excess).mean())
    sigma = -k / mean
    k = (n * k + _PRIOR_DRAWS * _PRIOR_K) / (n + _PRIOR_DRAWS)
    return (np.inf, np.nan) if np.isnan(k) else (k, sigma)


def efficiency(chains: np.ndarray) -> np.ndarray:
    """Effective over actual number of draws of means, at most 1.

    Parameters
    ----------
    chains : ndarray (m, chain, draw)
        Draws of m quantities.

    Returns
    -------
    ndarray (m,)
        1 for a quantity that never moves.

    References
    ----------
    Vehtari et al. (2021), Bayesian Analysis 16, equations 10 and 11, with Geyer's initial monotone sequence.
    """
    _, count, length = chains.shape
    if length < 4:
        return np.ones(len(chains))
    away = chains - chains.mean(axis=2, keepdims=True)
    size = 1 << int(np.ceil(np.log2(2 * length)))
    spectrum = np.fft.rfft(away, size, axis=2)
    covariance = np.fft.irfft((np.abs(spectrum) ** 2).mean(axis=1), size, axis=1)[:, :length] / length
    within = covariance[:, 0] * length / (length - 1)
    between = chains.mean(axis=2).var(axis=1, ddof=1) if count > 1 else np.zeros(len(chains))
    total = covariance[:, 0] + between
    moves = total > 1e-300
    safe = np.where(moves, total, 1.0)
    rho = 1 - (within[:, None] - covariance * length / (length - 1)) / safe[:, None]
    rho[:, 0] = 1.0
    even = rho[:, : length - length % 2].reshape(len(rho), -1, 2).sum(axis=2)
    positive = np.logical_and.accumulate(even > 0, axis=1)
    monotone = np.minimum.accumulate(even, axis=1)
    tau = -1 + 2 * np.where(positive, monotone, 0.0).sum(axis=1)
    return np.where(moves, np.clip(1 / np.maximum(tau, 1e-12), 1 / (count * length), 1.0), 1.0)
