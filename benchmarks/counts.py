"""Counts: the exact engine, and NUTS by sufficient statistics beside one likelihood term per window."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.row import Row, show
from hbm_core.analysis.draws import summary
from hbm_core.analysis.lab import run_of
from hbm_core.inference.exact.gamma_counts import solve_gamma_counts
from hbm_core.inference.exact.gamma_counts_table import CountsTable
from hbm_core.inference.nuts import CompileCache, sample
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.inference.sampler import CORES, Sampler
from hbm_core.models.count_windows import RATE_PARAMETERIZATIONS
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_gamma_counts import build
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios.counts import COUNTS
from hbm_core.ui.explorer_rates import listed, posterior_value

PRIORS = {"mu": "Exponential(0.1)", "alpha": "HalfNormal(2)", "phi": "HalfNormal(2)"}
#: Draws of the two likelihoods: ESS per second does not hang on the length.
DRAWS, TUNE, CHAINS = 500, 500, 2


def spec_of(entities: int, mu: str = PRIORS["mu"], exposures: bool = False) -> ModelSpec[GammaCounts]:
    """Entities with 1 to 34 windows each."""
    rng = np.random.default_rng(entities)
    windows = rng.integers(1, 35, entities)
    rate = rng.gamma(3.0, 1.0, entities)
    entity = np.repeat(np.arange(entities), windows)
    exposure = rng.lognormal(0, 0.5, entity.size) if exposures else np.ones(entity.size)
    mean = rate[entity] * exposure
    count = rng.negative_binomial(2, 2 / (2 + mean))
    structure = GammaCounts(count, entity, tuple(f"h{i}" for i in range(entities)), exposure)
    chosen = {name: Prior.parse(text) for name, text in (PRIORS | {"mu": mu}).items()}
    return ModelSpec(structure, chosen, {}, "scaled")


def clocked(function: Any, *arguments: Any) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    function(*arguments)
    return 1e3 * (time.perf_counter() - start)


def exact_rows() -> list[Row]:
    """Tables, re-weighting, and what a picture of all entities needs: means, sds and quantiles."""
    found = []
    for entities, exposures, target in (
        (50, False, None),
        (500, False, None),
        (500, True, None),
        (5000, False, 1000),
    ):
        fresh, again, picture, seen = [], [], [], []
        spec = spec_of(entities, exposures=exposures)
        others = [spec_of(entities, f"Exponential({0.1 + 0.002 * step})", exposures) for step in range(1, 12)]
        for _ in range(3):
            start = time.perf_counter()
            table = CountsTable(spec.structure)
            solve_gamma_counts(spec, table)
            fresh.append(1e3 * (time.perf_counter() - start))
            for other in others:
                again.append(clocked(solve_gamma_counts, other, table))
                posterior = solve_gamma_counts(other, table)
                picture.append(again[-1] + clocked(posterior.summary, (0.05, 0.5, 0.95), False))
        table = CountsTable.of(spec.structure)
        shown = listed(spec.structure)
        for other in others:
            # One structure, as a page has it: what is known of the data stays.
            moved = ModelSpec(spec.structure, other.priors, {}, other.parameterization)
            posterior = solve_gamma_counts(moved, table)
            seen.append(
                clocked(solve_gamma_counts, moved, table) + clocked(posterior_value, posterior, shown)
            )
        windows = f"{spec.structure.count.size:,} windows" + (", exposures" if exposures else "")
        what = f"{entities:,} entities ({windows})"
        found.append(Row(f"{what}: table", statistics.median(fresh), "ms", target=target))
        note = f"own error estimate {posterior.error:.0e} sd"
        found.append(
            Row(f"{what}: another prior number", statistics.median(again), "ms", target=1, note=note)
        )
        slow = float(np.quantile(seen[1:], 0.95))
        note = f"95th percentile; median {statistics.median(seen):.0f} ms, the first {seen[0]:.0f} ms"
        promised = 150 if entities <= 500 and not exposures else None
        found.append(Row(f"{what}: what the explorer shows", slow, "ms", target=promised, note=note))
        slow = float(np.quantile(picture, 0.95))
        note = f"95th percentile; median {statistics.median(picture):.0f} ms"
        found.append(Row(f"{what}: moments and quantiles of all", slow, "ms", note=note))
    return found


def rate_of(spec: ModelSpec[GammaCounts], by_window: bool) -> tuple[float, float]:
    """Least bulk ESS per second of sampling over all parameters, and the seconds."""
    import nutpie

    compiled = nutpie.compile_pymc_model(build(spec, by_window), backend="numba")
    options = {"chains": CHAINS, "cores": min(CHAINS, CORES), "seed": 1, "target_accept": 0.9}
    began = time.perf_counter()
    tree = nutpie.sample(compiled, draws=DRAWS, tune=TUNE, progress_bar=False, **options)
    seconds = time.perf_counter() - began
    draws = {name: np.asarray(tree.posterior[name]) for name in (*spec.priors, "theta")}
    ours = result_tree(spec, recipe(spec).complete(spec, draws, 1), likelihood=False)
    return float(summary(ours)["ess_bulk"].min()) / seconds, seconds


def geometry_rows() -> list[Row]:
    """Least bulk ESS over parameters and rates per second of sampling, by geometry: many windows and few."""
    found, cache = [], CompileCache()
    shops = COUNTS.simulate(3, entities=60, windows_low=1, windows_high=2, mu=0.5, alpha=1.0)
    for what, dataset in (("60 hosts, 1 to 40 windows", COUNTS.dataset("hosts")), ("1 or 2 windows", shops)):
        specs = [COUNTS.model("base").spec(dataset, parameterization=name) for name in RATE_PARAMETERIZATIONS]
        for spec in specs:
            run = run_of(sample(spec, Sampler(draws=DRAWS, tune=TUNE, chains=CHAINS), cache=cache))
            ess = float(run.summary["ess_bulk"].min())
            note = f"least ESS {ess:,.0f} in {run.seconds:.2f} s, {run.divergences} divergences"
            name = f"{what}: NUTS {spec.parameterization}"
            found.append(Row(name, ess / run.seconds, "ESS/s", better="more", note=note))
    return found


def rows() -> list[Row]:
    """All figures."""
    spec = spec_of(500)
    (fast, short), (slow, long) = (rate_of(spec, by_window) for by_window in (False, True))
    note = f"{CHAINS} × ({TUNE} + {DRAWS}) in {short:.1f} s and {long:.1f} s"
    nuts = Row(
        "500 entities, NUTS by sufficient statistics: ESS per second over that by window",
        fast / slow,
        "",
        target=20,
        better="more",
        against=f"one term per window: {slow:.1f} ESS/s against {fast:.1f}",
        note=note,
    )
    return [*exact_rows(), nuts, *geometry_rows()]


if __name__ == "__main__":
    show(rows())
