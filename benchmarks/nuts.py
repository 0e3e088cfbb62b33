"""NUTS by parameterization on the eight schools: ESS, ESS/s and divergences over the same parameters.

Run with ``python -m benchmarks.nuts``. ESS counts hyperparameters and all θ, after their conditional
draws where θ was integrated out. ESS/s is per second of sampling; the other clocks cover the whole call
on a warm worker: sampling, conditional draws, the units' likelihood and the result tree.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import pandas as pd

from hbm_core.analysis.draws import agreement, diagnostics, summary
from hbm_core.inference.exact import solve
from hbm_core.inference.nuts import CompileCache, sample, warm
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.models.structure import PARAMETERIZATIONS, ModelSpec, TwoLevelNormal

SCHOOLS = TwoLevelNormal(
    effect=np.array([28.0, 8, -3, 7, -1, 1, 18, 12]),
    se=np.array([15.0, 10, 16, 11, 9, 11, 10, 18]),
    units=tuple("ABCDEFGH"),
)
PRIORS = {"mu": Prior.parse("Normal(0, 20)"), "tau": Prior.parse("HalfCauchy(10)")}
LONG = Sampler(draws=2000, tune=1000)
DEFAULT = Sampler()


def measure(parameterization: str, cache: CompileCache, repeats: int = 5) -> dict[str, float]:
    """Figures of one parameterization: medians of `repeats` seeds, and its worst agreement with exact."""
    spec = ModelSpec(SCHOOLS, PRIORS, parameterization=parameterization)
    began = time.perf_counter()
    warm(cache, [spec])
    compile_seconds = time.perf_counter() - began
    exact = solve(spec).summary(hdi=False)
    rows = []
    for seed in range(repeats):
        began = time.perf_counter()
        sample(spec, Sampler(seed=seed), cache=cache)
        warm_fit = time.perf_counter() - began
        began = time.perf_counter()
        tree = sample(
            spec, Sampler(LONG.draws, LONG.tune, LONG.chains, LONG.target_accept, seed), cache=cache
        )
        seconds = time.perf_counter() - began
        table = summary(tree)
        found = diagnostics(tree, table)
        rows.append(
            {
                "min_ess": found["ess_bulk_min"],
                "ess_per_s": found["ess_bulk_min"] / tree.attrs["timing_sample"],
                "divergences": found["divergences"],
                "r_hat_max": found["r_hat_max"],
                "worst_z": float(agreement(table, exact)[["z_mean", "z_sd"]].abs().max(axis=None)),
                "seconds_4x(1000+2000)": seconds,
                "seconds_warm_default_fit": warm_fit,
            }
        )
    return {"compile": compile_seconds} | {k: statistics.median(row[k] for row in rows) for k in rows[0]}


def main() -> None:
    """Print the table; with ``--json`` one JSON object."""
    cache = CompileCache()
    rows = {parameterization: measure(parameterization, cache) for parameterization in PARAMETERIZATIONS}
    if "--json" in sys.argv:
        print(json.dumps(rows))
    else:
        print(pd.DataFrame(rows).T.round(4).to_string())


if __name__ == "__main__":
    main()
