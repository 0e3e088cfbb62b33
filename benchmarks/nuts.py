"""NUTS by parameterization on the eight schools, beside PyMC's own sampler on the same model.

ESS counts hyperparameters and all θ, after their conditional draws where θ was integrated out. ESS/s is
per second of sampling with the model compiled; the clock of a whole fit adds the conditional draws, the
units' likelihood and the result tree.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.row import Row, show
from hbm_core.analysis.draws import agreement, diagnostics, summary
from hbm_core.inference.exact import solve
from hbm_core.inference.nuts import CompileCache, sample, warm
from hbm_core.inference.recipes import recipe
from hbm_core.inference.sampler import CORES, Sampler
from hbm_core.models.prior import Prior
from hbm_core.models.structure import PARAMETERIZATIONS, ModelSpec, Parameterization, TwoLevelNormal

SCHOOLS = TwoLevelNormal(
    effect=np.array([28.0, 8, -3, 7, -1, 1, 18, 12]),
    se=np.array([15.0, 10, 16, 11, 9, 11, 10, 18]),
    units=tuple("ABCDEFGH"),
)
PRIORS = {"mu": Prior.parse("Normal(0, 20)"), "tau": Prior.parse("HalfCauchy(10)")}
LONG = Sampler(draws=2000, tune=1000)
SEEDS = range(5)


def spec_of(parameterization: Parameterization, **priors: str) -> ModelSpec:
    given = PRIORS | {name: Prior.parse(text) for name, text in priors.items()}
    return ModelSpec(SCHOOLS, given, parameterization=parameterization)


def measure(spec: ModelSpec, cache: CompileCache) -> dict[str, float]:
    """Medians over the seeds, and the worst agreement with exact of any of them."""
    began = time.perf_counter()
    warm(cache, [spec])
    compiling = time.perf_counter() - began
    exact = solve(spec).summary(hdi=False)
    runs = []
    for seed in SEEDS:
        began = time.perf_counter()
        tree = sample(spec, replace(LONG, seed=seed), cache=cache)
        seconds = time.perf_counter() - began
        table = summary(tree)
        found = diagnostics(tree, table)
        z = np.nanmax(np.abs(agreement(table, exact)[["z_mean", "z_sd", "z_median"]].to_numpy()))
        runs.append(
            {
                "min_ess": found["ess_bulk_min"],
                "rate": found["ess_bulk_min"] / tree.attrs["timing_sample"],
                "divergences": found["divergences"],
                "z": float(z),
                "seconds": seconds,
            }
        )
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return medians | {"compile": compiling, "z": max(run["z"] for run in runs)}


def pymc_rate(spec: Any, sampler: Sampler, names: Sequence[str]) -> dict[str, float]:
    """PyMC's own sampler with the same settings: its smallest ESS and ESS per second of sampling."""
    import pymc as pm

    def run(sampler: Sampler) -> Any:
        return pm.sample(
            draws=sampler.draws,
            tune=sampler.tune,
            chains=sampler.chains,
            cores=CORES,
            target_accept=sampler.target_accept,
            random_seed=sampler.seed,
            nuts_sampler="pymc",
            progressbar=False,
            compute_convergence_checks=False,
            model=model,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = recipe(spec).build(spec)
        # Compiled once before: both clocks cover sampling alone, as far as PyMC lets them.
        run(Sampler(draws=10, tune=10))
        tree: Any = run(sampler)
    seconds = float(tree["posterior"].attrs["sampling_time"])
    ess = float(summary(tree, variables=names)["ess_bulk"].min())
    divergences = int(tree["sample_stats"]["diverging"].sum())
    return {"min_ess": ess, "rate": ess / seconds, "divergences": divergences, "seconds": seconds}


def rows() -> list[Row]:
    """One row per parameterization, PyMC's sampler, and what a changed number compiles."""
    cache = CompileCache()
    found, rates = [], {}
    for name in PARAMETERIZATIONS:
        got = measure(spec_of(name), cache)
        rates[name] = got["rate"]
        note = (
            f"least ESS {got['min_ess']:,.0f}, {got['divergences']:.0f} divergences, at most {got['z']:.1f} "
            f"MCSE from exact; whole fit {got['seconds']:.2f} s, compiled in {got['compile']:.1f} s"
        )
        found.append(Row(f"{name}, 4 × (1,000 + 2,000)", got["rate"], "ESS/s", better="more", note=note))
    peer = pymc_rate(spec_of("noncentered"), LONG, ("mu", "tau", "theta"))
    note = f"least ESS {peer['min_ess']:,.0f}, {peer['divergences']:.0f} divergences, {peer['seconds']:.2f} s"
    found.append(Row("PyMC's own sampler, noncentered, same settings", peer["rate"], "ESS/s", note=note))
    for place, name in enumerate(PARAMETERIZATIONS):
        ratio = rates[name] / peer["rate"]
        found[place] = replace(found[place], ratio=ratio, against="PyMC's sampler on noncentered")
    before = cache.compilations
    for text in ("HalfCauchy(5)", "HalfCauchy(25)", "HalfCauchy(2.5)"):
        sample(spec_of("noncentered", tau=text), Sampler(seed=1), cache=cache)
    compiled = cache.compilations - before
    found.append(Row("compilations caused by three other prior numbers", compiled, target=0))
    return found


if __name__ == "__main__":
    show(rows())
