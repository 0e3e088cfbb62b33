"""NUTS by parameterization on 500 units in groups, beside PyMC's own sampler on the non-centered model.

ESS counts hyperparameters, group means and all θ, after their conditional draws where they were integrated
out. The clock is a whole fit's: conditional draws, the units' likelihood and the result tree are part of it.
PyMC's is that of its sampling alone, compiled before. Processor seconds are those of all threads and
processes; a busy machine lengthens them less than the clock.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.nuts import pymc_rate
from benchmarks.row import Row, show
from hbm_core.analysis.draws import agreement, diagnostics, summary
from hbm_core.inference.exact import solve
from hbm_core.inference.nuts import CompileCache, sample, warm
from hbm_core.inference.sampler import Sampler
from hbm_core.scenarios import scenario

SETTINGS = Sampler(draws=2000, tune=1000, target_accept=0.9)
#: Where warm-up and what a fit costs however short it is no longer count.
LONG = replace(SETTINGS, draws=15_000)
GEOMETRIES = ("collapsed", "centered", "partial", "noncentered")


def spec_of(parameterization: str) -> Any:
    creators = scenario("creators")
    dataset = creators.dataset(creators.default_dataset)
    return creators.model("base").spec(dataset, {}, {}, (), parameterization)


def measure(
    spec: Any, cache: CompileCache, exact: Any, seeds: range, settings: Sampler = SETTINGS
) -> dict[str, float]:
    """Medians over the seeds, and the worst agreement with exact of any of them."""
    warm(cache, [spec])
    runs = []
    for seed in seeds:
        began, busy = time.perf_counter(), time.process_time()
        tree = sample(spec, replace(settings, seed=seed), cache=cache)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        table = summary(tree)
        found = diagnostics(tree, table)
        z = np.nanmax(np.abs(agreement(table, exact)[["z_mean", "z_sd", "z_median"]].to_numpy()))
        sampling = tree.attrs["timing_sample"]
        ess = found["ess_bulk_min"]
        runs.append((ess / seconds, ess, found["divergences"], z, seconds, sampling, ess / busy))
        del tree
    middle = np.median(np.array(runs), axis=0)
    return {
        "rate": middle[0],
        "min_ess": middle[1],
        "divergences": middle[2],
        "z": max(run[3] for run in runs),
        "seconds": middle[4],
        "sampling": middle[5],
        "per_processor": middle[6],
    }


def _peer(spec: Any, seed: int, names: list[str]) -> dict[str, float]:
    """PyMC's rate; its chains are processes of their own."""
    before = os.times()
    found = pymc_rate(spec, replace(SETTINGS, seed=seed), names)
    after = os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return found | {"per_processor": found["min_ess"] / busy}


def rows() -> list[Row]:
    """One row per parameterization, the collapsed one's on a long run, and PyMC's sampler."""
    cache = CompileCache()
    exact = solve(spec_of("collapsed")).summary(hdi=False)
    found = []
    for name in GEOMETRIES:
        for settings in (SETTINGS, LONG) if name == "collapsed" else (SETTINGS,):
            seeds = range(3) if name == "collapsed" else range(1)
            got = measure(spec_of(name), cache, exact, seeds, settings)
            note = (
                f"least ESS {got['min_ess']:,.0f}, {got['divergences']:.0f} divergences, at most "
                f"{got['z']:.1f} MCSE from exact; {got['seconds']:.3f} s ({got['sampling']:.3f} sampling); "
                f"{got['per_processor']:,.0f} ESS per processor second"
            )
            what = f"{name}, 500 units, 4 × (1,000 + {settings.draws:,})"
            found.append(Row(what, got["rate"], "ESS/s", better="more", note=note))
    plain = spec_of("noncentered")
    names = [*plain.structure.parameters, plain.structure.group_mean, "theta"]
    # Its least ESS is a matter of luck: the median of three.
    peers = [_peer(plain, seed, names) for seed in range(3)]
    peer = sorted(peers, key=lambda one: one["rate"])[1]
    note = (
        f"median of seeds at {', '.join(f'{one["rate"]:.3g}' for one in peers)} ESS/s; least ESS "
        f"{peer['min_ess']:,.0f}, {peer['divergences']:.0f} divergences, {peer['seconds']:.1f} s; "
        f"{peer['per_processor']:.3g} ESS per processor second"
    )
    found.append(
        Row("PyMC's own sampler, noncentered, 4 × (1,000 + 2,000)", peer["rate"], "ESS/s", note=note)
    )
    return [
        replace(row, ratio=row.figure / peer["rate"], against="PyMC's sampler on noncentered")
        for row in found[:-1]
    ] + found[-1:]


if __name__ == "__main__":
    show(rows())
