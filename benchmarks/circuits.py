"""Populations of circuits in blocks, whole posterior, beside PyMC's own sampler on the non-centered model.

The least ESS is that of all means, sds, correlations, circuits' constants and the noise. The clock of ours
is that of sampling, warm-up and what the pilot shapes among it, and of PyMC's its sampling with its warm-up;
both were compiled before.
"""

from __future__ import annotations

from typing import Any

from benchmarks.nuts import pymc_rate
from benchmarks.row import Row, show
from hbm_core.analysis.draws import diagnostics, summary
from hbm_core.inference.blocked.engine import SWEEPS, BlockedCache, sample
from hbm_core.inference.sampler import BLOCKED_TARGET, Sampler
from hbm_core.scenarios import scenario

#: Data sets, their words, and the seconds of sampling that are promised.
DESIGNS = (("activators", "three activating circuits", 60.0), ("six", "six circuits", 300.0))
SETTINGS = {
    "activators": Sampler(draws=1500, tune=400, chains=2, target_accept=BLOCKED_TARGET, seed=42),
    "six": Sampler(draws=4000, tune=400, chains=2, target_accept=BLOCKED_TARGET, seed=42),
}
#: PyMC's sampler takes a thousand steps a draw: a rate needs no more.
PEER = Sampler(draws=150, tune=150, chains=2, target_accept=0.9, seed=42)
NAMES = ("alpha", "sigma", "corr", "theta", "noise", "exponent", "gain")


def spec_of(dataset: str, parameterization: str) -> Any:
    circuits = scenario("circuits")
    return circuits.model("full").spec(circuits.dataset(dataset), parameterization=parameterization)


def rows() -> list[Row]:
    """A row of time, effective size, R-hat, divergences and rate per data set, PyMC's rate beside."""
    cache, found = BlockedCache(), []
    for name, words, most in DESIGNS:
        spec, settings = spec_of(name, "transport"), SETTINGS[name]
        # Whatever is compiled or followed once is not sampling.
        sample(spec, Sampler(draws=10, tune=10, chains=1, target_accept=BLOCKED_TARGET), cache=cache)
        tree = sample(spec, settings, cache=cache)
        table = summary(tree)
        got, seconds = diagnostics(tree, table), tree.attrs["timing_sample"]
        size = f"{settings.chains} × ({settings.tune:,} + {settings.draws:,})"
        least = min(got["ess_bulk_min"], got["ess_tail_min"])
        rate = got["ess_bulk_min"] / seconds
        steps = float(tree["sample_stats"]["n_steps"].mean()) / SWEEPS
        note = f"{settings.chains * settings.draws:,} draws of {SWEEPS} sweeps, {steps:.0f} gradients a sweep"
        peer = pymc_rate(spec_of(name, "noncentered"), PEER, NAMES)
        theirs = (
            f"{PEER.chains} × ({PEER.tune} + {PEER.draws}): least ESS {peer['min_ess']:,.1f}, "
            f"{peer['divergences']} divergences, {peer['seconds']:.0f} s"
        )
        found += [
            Row(f"{words}, {size}: sampling", seconds, "s", most, note=note),
            Row(f"{words}, {size}: least bulk or tail ESS", least, "", 400.0, "more"),
            Row(f"{words}, {size}: largest R-hat", got["r_hat_max"], "", 1.01),
            Row(
                f"{words}, {size}: divergences, % of draws",
                100 * got["divergences"] / (settings.chains * settings.draws),
                "%",
                0.1,
            ),
            Row(
                f"{words}: bulk ESS per second",
                rate,
                "ESS/s",
                10 * peer["rate"],
                "more",
                "PyMC's sampler on noncentered",
                rate / peer["rate"],
                theirs,
            ),
        ]
    return found


if __name__ == "__main__":
    show(rows())
