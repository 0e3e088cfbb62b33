"""NUTS by parameterization on 500 units in groups, beside PyMC's own sampler on the non-centered model.

ESS counts hyperparameters, group means and all θ, after their conditional draws where they were integrated
out; those draws are part of the time.
"""

from __future__ import annotations

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
GEOMETRIES = ("collapsed", "centered", "partial", "noncentered")


def spec_of(parameterization: str) -> Any:
    creators = scenario("creators")
    dataset = creators.dataset(creators.default_dataset)
    return creators.model("base").spec(dataset, {}, {}, (), parameterization)


def measure(spec: Any, cache: CompileCache, exact: Any, seeds: range) -> dict[str, float]:
    """Medians over the seeds, and the worst agreement with exact of any of them."""
    warm(cache, [spec])
    runs = []
    for seed in seeds:
        began = time.perf_counter()
        tree = sample(spec, replace(SETTINGS, seed=seed), cache=cache)
        seconds = time.perf_counter() - began
        table = summary(tree)
        found = diagnostics(tree, table)
        z = np.nanmax(np.abs(agreement(table, exact)[["z_mean", "z_sd", "z_median"]].to_numpy()))
        runs.append(
            (found["ess_bulk_min"] / seconds, found["ess_bulk_min"], found["divergences"], z, seconds)
        )
    middle = np.median(np.array(runs), axis=0)
    return {
        "rate": middle[0],
        "min_ess": middle[1],
        "divergences": middle[2],
        "z": max(run[3] for run in runs),
        "seconds": middle[4],
    }


def rows() -> list[Row]:
    """One row per parameterization, and PyMC's sampler."""
    cache = CompileCache()
    exact = solve(spec_of("collapsed")).summary(hdi=False)
    found, rates = [], []
    for name in GEOMETRIES:
        got = measure(spec_of(name), cache, exact, range(3) if name == "collapsed" else range(1))
        rates.append(got["rate"])
        note = (
            f"least ESS {got['min_ess']:,.0f}, {got['divergences']:.0f} divergences, at most {got['z']:.1f} "
            f"MCSE from exact; {got['seconds']:.2f} s"
        )
        found.append(
            Row(f"{name}, 500 units, 4 × (1,000 + 2,000)", got["rate"], "ESS/s", better="more", note=note)
        )
    plain = spec_of("noncentered")
    peer = pymc_rate(plain, SETTINGS, [*plain.structure.parameters, plain.structure.group_mean, "theta"])
    note = f"least ESS {peer['min_ess']:,.0f}, {peer['divergences']:.0f} divergences, {peer['seconds']:.1f} s"
    found.append(Row("PyMC's own sampler, noncentered, same settings", peer["rate"], "ESS/s", note=note))
    for place, rate in enumerate(rates):
        ratio = rate / peer["rate"]
        found[place] = replace(found[place], ratio=ratio, against="PyMC's sampler on noncentered")
    return found


if __name__ == "__main__":
    show(rows())
