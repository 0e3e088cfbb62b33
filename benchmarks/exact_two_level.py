"""Time of the exact two-level engine beside a plain evaluation on 40,001 nodes, in one run.

Run with ``python benchmarks/exact_two_level.py``; prints medians of many repetitions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

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


def median_ms(run: Callable[[], object], repeat: int) -> float:
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    rng = np.random.default_rng(0)
    se = rng.uniform(5, 20, 500)
    effect = 5 + 8 * rng.standard_normal(500) + se * rng.standard_normal(500)
    print(f"{'case':44s} {'solve, ms':>10s} {'+ 7 quantiles, ms':>18s} {'error, sd':>10s}")
    cases = [("8 units", EFFECT, SE, "Normal(0, 20)", tau) for tau in ("HalfCauchy(10)", "HalfNormal(5)")]
    cases += [("8 units", EFFECT, SE, "Normal(0, 20)", tau) for tau in ("Uniform(0, 10)", "Gamma(0.5, 0.1)")]
    cases += [("8 units", EFFECT, SE, "Normal(0, 20)", "InverseGamma(1, 1)")]
    cases += [
        ("8 units", EFFECT, SE, mu, "HalfCauchy(10)") for mu in ("StudentT(3, 0, 10)", "Uniform(-50, 50)")
    ]
    cases += [("500 units", effect, se, "Normal(0, 20)", "HalfCauchy(10)")]
    for label, y, s, mu, tau in cases:
        one = spec(y, s, mu, tau)
        repeat = 300 if (y.size < 100 and mu.startswith("Normal")) else 20
        solve = median_ms(lambda one=one: solve_two_level(one), repeat)
        error = solve_two_level(one).error
        both = median_ms(lambda one=one: solve_two_level(one).quantiles(PROBABILITIES), repeat)
        print(f"{label + ', ' + mu + ', ' + tau:44s} {solve:10.3f} {both:18.3f} {error:10.1e}")
    one = spec(EFFECT, SE, "Normal(0, 20)", "HalfCauchy(10)")
    ours = median_ms(lambda: solve_two_level(one).quantiles(PROBABILITIES), 300)
    start = time.perf_counter()
    naive = plain(EFFECT, SE, "HalfCauchy(10)")
    seconds = time.perf_counter() - start
    posterior = solve_two_level(one)
    rows = [0, *range(2, 10)]
    table = np.column_stack([posterior.mean, posterior.sd, posterior.quantiles(PROBABILITIES)])[rows]
    gap = (np.abs(table - naive) / posterior.sd[rows, None]).max()
    print(
        f"40,001 nodes and bisection: {1e3 * seconds:.0f} ms, {1e3 * seconds / ours:.0f} times ours;", end=" "
    )
    print(f"largest difference {gap:.1e} sd")


if __name__ == "__main__":
    main()
