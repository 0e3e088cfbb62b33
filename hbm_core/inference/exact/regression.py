"""Gaussian algebra of the two-level normal model given its scale: coefficients, unit effects, weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hbm_core.inference.exact.base import Conditional, Weights

_LOG_2_PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class Table:
    """What the posterior of units without covariates takes from the data alone, whatever the priors.

    Attributes
    ----------
    location : float
        Median of the effects, taken off them.
    effect, se, variance : ndarray (J,)
        y less `location`, s and s².
    design : ndarray (J, 1)
        Ones.
    scale : float
        Mean of s.
    t : ndarray (K,)
        Scales, `scale` times exp(grid).
    total, center, quadratic, log_variance : ndarray (K,)
        At them: Σ 1/V, the weighted mean m of y, Σ (y - m)²/V and Σ log V.
    """

    location: float
    effect: np.ndarray
    se: np.ndarray
    variance: np.ndarray
    design: np.ndarray
    scale: float
    t: np.ndarray
    total: np.ndarray
    center: np.ndarray
    quadratic: np.ndarray
    log_variance: np.ndarray

    @classmethod
    def of(cls, effect: np.ndarray, se: np.ndarray, grid: np.ndarray) -> Table:
        """The table of a data set with the grid `grid` of log t; made once, then taken from a cache."""
        return _table(effect.tobytes(), se.tobytes(), grid.tobytes())


@lru_cache(maxsize=32)
def _table(effect: bytes, se: bytes, grid: bytes) -> Table:
    y, s = np.frombuffer(effect), np.frombuffer(se)
    location = float(np.partition(y, y.size // 2)[y.size // 2])
    y, variance, scale = y - location, s**2, float(s.sum()) / s.size
    t = scale * np.exp(np.frombuffer(grid))
    inverse = 1.0 / (variance[:, None] + t * t)
    total = inverse.sum(0)
    center = (y @ inverse) / total
    quadratic = ((y[:, None] - center) ** 2 * inverse).sum(0)
    return Table(
        location,
        y,
        s,
        variance,
        np.ones((y.size, 1)),
        scale,
        t,
        total,
        center,
        quadratic,
        -np.log(inverse).sum(0),
    )


@dataclass(frozen=True, eq=False)
class Given:
    """The posterior at K values of the scale t.

    Attributes
    ----------
    log_likelihood : ndarray (K,)
        log p(y | t), coefficients integrated out.
    mean, covariance : ndarray (K, q) and (K, q, q)
        Of the coefficients.
    pooling : ndarray (K, J)
        B_i = s_i²/V_i.
    inverse : ndarray (K, J)
        1/V_i.
    """

    log_likelihood: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    pooling: np.ndarray
    inverse: np.ndarray


@dataclass(frozen=True, eq=False)
class Regression:
    """y_i ~ Normal(x_i γ, s_i² + t²) with a normal or flat prior on every coefficient.

    Parameters
    ----------
    effect, se : ndarray (J,)
        y (location taken off) and s.
    design : ndarray (J, q)
        X with a first column of ones.
    prior_mean, precision : ndarray (q,)
        Of the coefficients; precision 0 is flat.
    """

    effect: np.ndarray
    se: np.ndarray
    design: np.ndarray
    prior_mean: np.ndarray
    precision: np.ndarray

    @cached_property
    def variance(self) -> np.ndarray:
        """s², ndarray (J,)."""
        return self.se**2

    def tabulated(self, table: Table) -> np.ndarray:
        """Log p(y | t) at the scales of the data's table, ndarray (K,), at no cost in J; one coefficient."""
        gap, precision = table.center - self.prior_mean[0], self.precision[0]
        total = table.total + precision
        quadratic = table.quadratic + (precision * table.total / total) * (gap * gap)
        return self._constant - 0.5 * (quadratic + np.log(total) + table.log_variance)

    @cached_property
    def _products(self) -> tuple[np.ndarray, np.ndarray]:
        cross = self.design[:, :, None] * self.design[:, None, :]
        return cross.reshape(self.se.size, -1), self.design * self.effect[:, None]

    @cached_property
    def _constant(self) -> float:
        logs = [math.log(one) for one in self.precision.tolist() if one > 0]
        flat = self.precision.size - len(logs)
        return 0.5 * sum(logs) - 0.5 * (self.se.size - flat) * _LOG_2_PI

    def solve(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Log p(y | t), mean (K, q) and covariance (K, q, q) of the coefficients, and 1/V (K, J)."""
        if self.precision.size == 1:
            return self._solve_one(t)
        inverse = 1.0 / (self.variance + (t * t)[:, None])
        cross, right = self._products
        q = self.precision.size
        matrix = (inverse @ cross).reshape(-1, q, q) + np.diag(self.precision)
        factor = np.linalg.inv(np.linalg.cholesky(matrix))
        covariance = np.swapaxes(factor, 1, 2) @ factor
        side = inverse @ right + self.precision * self.prior_mean
        mean = (covariance @ side[:, :, None])[:, :, 0]
        log_determinant = -2 * np.log(np.einsum("kii->ki", factor)).sum(1)
        residual = self.effect - mean @ self.design.T
        quadratic = np.einsum("kj,kj->k", inverse, residual * residual)
        if self.precision.any():
            quadratic = quadratic + (mean - self.prior_mean) ** 2 @ self.precision
        log_likelihood = self._constant - 0.5 * (quadratic + log_determinant - np.log(inverse).sum(1))
        return log_likelihood, mean, covariance, inverse

    def _solve_one(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same for one coefficient, μ; arrays (J, K) inside, whose sums over units run along rows."""
        precision, prior_mean = self.precision[0], self.prior_mean[0]
        inverse = 1.0 / (self.variance[:, None] + t * t)
        total = inverse.sum(0) + precision
        mean = (self.effect @ inverse + precision * prior_mean) / total
        residual = self.effect[:, None] - mean
        residual *= residual
        residual *= inverse
        quadratic = residual.sum(0) + precision * (mean - prior_mean) ** 2
        log_variance = np.log(inverse).sum(0)
        log_likelihood = self._constant - 0.5 * (quadratic + np.log(total) - log_variance)
        return log_likelihood, mean[:, None], (1.0 / total)[:, None, None], inverse.T

    def log_likelihood(self, t: np.ndarray) -> np.ndarray:
        """Log p(y | t), ndarray (K,), up to the constant of flat coefficients."""
        return self.solve(t)[0]

    def given(self, t: np.ndarray) -> Given:
        """The posterior at the scales `t`, ndarray (K,)."""
        log_likelihood, mean, covariance, inverse = self.solve(t)
        return Given(log_likelihood, mean, covariance, self.variance * inverse, inverse)

    def fitted(self, given: Given) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of x_i γ, each (K, J) or broadcastable to it."""
        if self.precision.size == 1:
            return given.mean, given.covariance[:, 0]
        spread = np.einsum("jp,kpq,jq->kj", self.design, given.covariance, self.design, optimize=True)
        return given.mean @ self.design.T, spread

    def effects(self, t: np.ndarray, given: Given) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of θ_i given t, each ndarray (K, J)."""
        center, spread = self.fitted(given)
        own = (t * t)[:, None] * given.inverse
        mean = given.pooling * center + own * self.effect
        return mean, self.variance * own + given.pooling**2 * spread

    def components(self, t: np.ndarray, given: Given) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of coefficients and θ given t, each ndarray (q + J, K)."""
        q, units = self.precision.size, self.se.size
        means, sds = np.empty((q + units, t.size)), np.empty((q + units, t.size))
        if q == 1:
            # As in `effects`, straight into rows: B m + (t²/V) y and B (t² + B var(μ)).
            square, share = t * t, given.pooling.T
            means[0], sds[0] = given.mean[:, 0], given.covariance[:, 0, 0]
            np.multiply(share, means[0], out=means[1:])
            means[1:] += square * given.inverse.T * self.effect[:, None]
            np.multiply(share, square + share * sds[0], out=sds[1:])
            return means, np.sqrt(sds, out=sds)
        mean, variance = self.effects(t, given)
        means[:q], means[q:] = given.mean.T, mean.T
        sds[:q], sds[q:] = given.covariance.diagonal(axis1=1, axis2=2).T, variance.T
        return means, np.sqrt(sds, out=sds)

    def draw(self, t: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One draw of the coefficients (K, q) and of θ (K, J) at each scale."""
        _, mean, covariance, inverse = self.solve(t)
        noise = generator.standard_normal(mean.shape)
        coefficients = mean + (np.linalg.cholesky(covariance) @ noise[:, :, None])[:, :, 0]
        return coefficients, self._draw_effects(t, inverse, coefficients, generator)

    def draw_given_location(
        self, t: np.ndarray, mu: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """One draw of the coefficients (K, q) and of θ (K, J) at each scale and μ."""
        _, mean, covariance, inverse = self.solve(t)
        coefficients = mu[:, None]
        if self.precision.size > 1:
            variance = covariance[:, :1, 0]
            slope = covariance[:, 1:, 0] / variance
            rest = covariance[:, 1:, 1:] - slope[:, :, None] * slope[:, None, :] * variance[:, :, None]
            noise = generator.standard_normal(slope.shape)
            beta = mean[:, 1:] + slope * (mu[:, None] - mean[:, :1])
            beta = beta + (np.linalg.cholesky(rest) @ noise[:, :, None])[:, :, 0]
            coefficients = np.concatenate([coefficients, beta], axis=1)
        return coefficients, self._draw_effects(t, inverse, coefficients, generator)

    def _draw_effects(
        self, t: np.ndarray, inverse: np.ndarray, coefficients: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        own = (t * t)[:, None] * inverse
        center = (self.variance * inverse) * (coefficients @ self.design.T) + own * self.effect
        return center + np.sqrt(self.variance * own) * generator.standard_normal(center.shape)

    def weights(self, given: Given) -> Weights:
        """Linear weights of E[θ_i | t, y], arrays (K, J).

        A unit added to all y and to the prior mean of μ adds a unit to θ_i, so the three sum to 1; prior
        means of slopes add to θ_i beside them.
        """
        if self.precision.size == 1:
            leverage = given.covariance[:, 0] * given.inverse
            prior = given.covariance[:, 0] * self.precision[0]
        else:
            spread = np.einsum("jp,kpq,jq->kj", self.design, given.covariance, self.design, optimize=True)
            leverage = spread * given.inverse
            prior = (given.covariance[:, :, 0] @ self.design.T) * self.precision[0]
        own = (1 - given.pooling) + given.pooling * leverage
        prior = given.pooling * prior
        return Weights(own=own, others=1 - own - prior, prior=prior)

    def at_infinity(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of the coefficients as t → ∞: flat ones by least squares, with infinite sd."""
        flat = self.precision == 0
        mean, sd = self.prior_mean.copy(), np.full(flat.size, np.inf)
        sd[~flat] = 1 / np.sqrt(self.precision[~flat])
        if flat.any():
            rest = self.effect - self.design[:, ~flat] @ mean[~flat]
            mean[flat] = np.linalg.lstsq(self.design[:, flat], rest, rcond=None)[0]
        return mean, sd

    def conditional(self, tau: np.ndarray, t: np.ndarray, location: float) -> Conditional:
        """The posterior given τ with effective scale t = t(τ); zero and infinity allowed."""
        finite = np.isfinite(t)
        given = self.given(np.where(finite, t, 1.0))
        theta_mean, theta_variance = self.effects(np.where(finite, t, 1.0), given)
        weights = self.weights(given)
        limit_mean, limit_sd = self.at_infinity()
        far = ~finite
        mu_mean, mu_sd = given.mean[:, 0].copy(), np.sqrt(given.covariance[:, 0, 0])
        mu_mean[far], mu_sd[far] = limit_mean[0], limit_sd[0]
        rows = far[:, None]
        return Conditional(
            tau=tau,
            mu_mean=mu_mean + location,
            mu_sd=mu_sd,
            theta_mean=np.where(rows, self.effect, theta_mean) + location,
            theta_sd=np.where(rows, self.se, np.sqrt(theta_variance)),
            pooling=np.where(rows, 0.0, given.pooling),
            weights=Weights(
                own=np.where(rows, 1.0, weights.own),
                others=np.where(rows, 0.0, weights.others),
                prior=np.where(rows, 0.0, weights.prior),
            ),
        )
