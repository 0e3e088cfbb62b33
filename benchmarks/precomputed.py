"""Readouts from a precomputed batch: microseconds per new experiment, and what a refit would take."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.row import Row, show
from hbm_core.inference.exact import solve
from hbm_core.inference.precomputed import Hyperposterior, score
from hbm_core.scenarios import scenario

#: Genres and creators per genre of the batches.
BATCHES = ((5, 3), (5, 100), (50, 100), (5, 20_000))
#: Experiments that are scored at once.
COUNT = 100_000


def measure(genres: int, creators: int, count: int, seed: int = 1) -> Row:
    """One batch, and `count` experiments scored from it, the best of three."""
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
    each = 1e6 * min(times) / count
    note = (
        f"{hyper.weights.size} nodes, taken in {1e3 * precompute:.3g} ms; one alone "
        f"{1e6 * float(np.median(ones)):.3g} µs"
    )
    return Row(
        f"{count:,} experiments after a batch of {genres} × {creators:,}: each",
        each,
        "µs",
        against="a refit of the batch",
        ratio=1e6 * refit / each,
        note=note,
    )


def rows() -> list[Row]:
    """A row per batch."""
    return [measure(*batch, COUNT) for batch in BATCHES]


if __name__ == "__main__":
    show(rows())
