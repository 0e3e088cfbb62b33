"""Readouts from a precomputed batch: microseconds per new experiment, and what a refit would take.

``python -m benchmarks.precomputed [COUNT]``: a table for batches of several sizes.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd

from hbm_core.inference.exact import solve
from hbm_core.inference.precomputed import Hyperposterior, score
from hbm_core.scenarios import scenario

#: Genres and creators per genre of the batches.
BATCHES = ((5, 3), (5, 100), (50, 100), (5, 20_000))


def measure(genres: int, creators: int, count: int, seed: int = 1) -> dict[str, float | str]:
    """Times of one batch and of `count` experiments scored from it, the best of three."""
    found = scenario("creators")
    data = found.simulate(seed, level="summaries", genres=genres, creators_per_genre=creators)
    spec = found.model("base").spec(data)
    began = time.perf_counter()
    posterior = solve(spec)
    posterior.unit_moments()  # type: ignore[attr-defined]
    refit = time.perf_counter() - began
    began = time.perf_counter()
    hyper = Hyperposterior.of(posterior)
    precompute = time.perf_counter() - began
    rng = np.random.default_rng(seed)
    place = rng.integers(0, genres + 1, count)
    se = np.exp(rng.uniform(-3, 0, count))
    effect = rng.normal(posterior.mean[0], 0.5, count) + se * rng.standard_normal(count)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        score(hyper, effect, se, place)
        times.append(time.perf_counter() - began)
    ones = []
    for one in range(50):
        began = time.perf_counter()
        score(hyper, effect[one], se[one], place[one : one + 1])
        ones.append(time.perf_counter() - began)
    return {
        "batch": f"{genres} × {creators:,}",
        "nodes": hyper.weights.size,
        "precompute, ms": 1e3 * precompute,
        "refit, ms": 1e3 * refit,
        "many at once, µs each": 1e6 * min(times) / count,
        "one alone, µs": 1e6 * float(np.median(ones)),
    }


def main(arguments: list[str]) -> None:
    """Print the table."""
    count = int(arguments[0]) if arguments else 100_000
    table = pd.DataFrame([measure(*batch, count) for batch in BATCHES])
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main(sys.argv[1:])
