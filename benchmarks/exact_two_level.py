"""The exact two-level engine, beside a plain evaluation on 40,001 nodes."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.special import ndtr

from benchmarks.row import Row, median_ms, show
from hbm_core.inference.exact.two_level import solve_two_level
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

PROBABILITIES = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)
EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SE = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def spec(effect: np.ndarray, se: np.ndarray, mu: str, tau: str) -> ModelSpec:
    labels = tuple(f"u{i}" for i in range(effect.size))
    return ModelSpec(TwoLevelNormal(effect, se, labels), {"mu": Prior.parse(mu), "tau": Prior.parse(tau)})


def plain(effect: np.ndarray, se: np.ndarray, tau_prior: str, nodes: int = 40_001) -> np.ndarray:
    """Moments and quantiles of μ and θ on a log grid of τ, quantiles by bisection."""
    tau = np.exp(np.linspace(np.log(1e-8), np.log(1e6), nodes))
    v = tau[:, None] ** 2 + se**2
    total = 1 / 400 + (1 / v).sum(1)
    center = (effect / v).sum(1) / total
    log_f = (
        Prior.parse(tau_prior).log_density(tau)
        + np.log(tau)
        - 0.5
        * (np.log(v).sum(1) + ((effect - center[:, None]) ** 2 / v).sum(1) + center**2 / 400 + np.log(total))
    )
    w = np.exp(log_f - log_f.max())
    w /= w.sum()
    b = se**2 / v
    means = np.column_stack([center, b * center[:, None] + (1 - b) * effect]).T
    variances = np.column_stack([1 / total, b * tau[:, None] ** 2 + b**2 / total[:, None]]).T
    mean = means @ w
    sd = np.sqrt((variances + (means - mean[:, None]) ** 2) @ w)
    quantiles = np.empty((mean.size, len(PROBABILITIES)))
    for row in range(mean.size):
        for column, p in enumerate(PROBABILITIES):
            low, high = mean[row] - 12 * sd[row], mean[row] + 12 * sd[row]
            for _ in range(36):
                x = 0.5 * (low + high)
                above = ndtr((x - means[row]) / np.sqrt(variances[row])) @ w > p
                low, high = (low, x) if above else (x, high)
            quantiles[row, column] = x
    return np.column_stack([mean, sd, quantiles])


def table(one: ModelSpec) -> np.ndarray:
    """Mean, sd and seven quantiles of every parameter."""
    posterior = solve_two_level(one)
    return np.column_stack([posterior.mean, posterior.sd, posterior.quantiles(PROBABILITIES)])


#: Priors on μ and τ, repetitions, target in ms for moments and 7 quantiles of every parameter.
CASES = (
    ("Normal(0, 20)", "HalfCauchy(10)", 300, 0.5),
    ("Normal(0, 20)", "HalfNormal(5)", 300, 0.5),
    ("Normal(0, 20)", "Uniform(0, 10)", 100, None),
    ("Normal(0, 20)", "Gamma(0.5, 0.1)", 100, None),
    ("Normal(0, 20)", "InverseGamma(1, 1)", 100, None),
    ("StudentT(3, 0, 10)", "HalfCauchy(10)", 20, None),
    ("Uniform(-50, 50)", "HalfCauchy(10)", 20, None),
)


def rows() -> list[Row]:
    """Solving and seven quantiles under smooth, sharp and singular priors, then the plain evaluation."""
    found = []
    for mu, tau, repeat, target in CASES:
        one = spec(EFFECT, SE, mu, tau)
        solving = median_ms(partial(solve_two_level, one), repeat)
        both = median_ms(partial(table, one), repeat)
        note = f"{solving:.2f} ms without quantiles; own error estimate {solve_two_level(one).error:.0e} sd"
        found.append(Row(f"8 schools, μ ~ {mu}, τ ~ {tau}", both, "ms", target, note=note))
    rng = np.random.default_rng(0)
    se = rng.uniform(5, 20, 500)
    effect = 5 + 8 * rng.standard_normal(500) + se * rng.standard_normal(500)
    many = spec(effect, se, "Normal(0, 20)", "HalfCauchy(10)")
    both = median_ms(partial(table, many), 30)
    found.append(Row("500 units, μ ~ Normal(0, 20), τ ~ HalfCauchy(10)", both, "ms"))

    one = spec(EFFECT, SE, "Normal(0, 20)", "HalfCauchy(10)")
    start = time.perf_counter()
    naive = plain(EFFECT, SE, "HalfCauchy(10)")
    milliseconds = 1e3 * (time.perf_counter() - start)
    posterior = solve_two_level(one)
    parameters = [0, *range(2, 10)]
    gap = float((np.abs(table(one)[parameters] - naive) / posterior.sd[parameters, None]).max())
    beside = "as long for 40,001 nodes and bisection"
    found[0] = replace(found[0], against=beside, ratio=milliseconds / found[0].figure)
    found.append(
        Row("largest difference from 40,001 nodes, μ and θ, mean, sd and quantiles", gap, "sd", 1e-6)
    )
    return found


if __name__ == "__main__":
    show(rows())
