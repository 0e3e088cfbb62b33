"""Calibration of sampled models: truths from the priors, data from them, ranks among draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_core.analysis.count_worlds import draw_parameters, simulated_structure
from hbm_core.analysis.draws import summary
from hbm_core.errors import FitError
from hbm_core.inference.nuts import CompileCache, sample
from hbm_core.inference.sampler import Sampler
from hbm_core.models.structure import ModelSpec

#: Chains of one data set: short ones, and long ones where those were not enough.
SHORT = Sampler(draws=500, tune=500, chains=2, target_accept=0.9, seed=1)
#: Independent draws that a rank is among.
RANKED = 99
#: From a model and a stream to a structure with new data and the truths by their flat names.
World = Callable[[ModelSpec[Any], np.random.Generator], tuple[Any, dict[str, float]]]
#: An engine with what it has compiled: a result from a model and settings.
Draw = Callable[[ModelSpec[Any], Sampler], xr.DataTree]
#: R-hat beyond which a fit is made anew with longer chains, and then counted as failed.
R_HAT = 1.05


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true values.

    Attributes
    ----------
    pit : DataFrame (replications, quantities)
        Share of the thinned draws below the truth, ties broken at random, in (0, 1).
    again : int
        Data sets that took longer chains.
    unsettled : int
        Data sets whose chains did not agree even then; their ranks are kept.
    divergent : int
        Data sets with divergences in the fit that was kept.
    """

    pit: pd.DataFrame
    again: int
    unsettled: int
    divergent: int

    @property
    def said(self) -> str:
        """How the fits went, in words."""
        return f"{self.again} fitted anew, {self.unsettled} unsettled, {self.divergent} with divergences"


def calibrate(
    spec: ModelSpec[Any],
    replications: int,
    seed: int,
    sampler: Sampler = SHORT,
    draw: Draw | None = None,
    fitted: ModelSpec[Any] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    world: World | None = None,
) -> Calibration:
    """Ranks of truths drawn from the priors among draws of a sampler; the model is compiled once.

    Parameters
    ----------
    spec : ModelSpec
        The model; its data are not used, its design is.
    replications, seed : int
        Data sets, and the seed that makes them.
    sampler : Sampler
        Short chains; thinned to `RANKED` draws, or to the least effective size of a parameter where that
        is less, so that ranks are those among nearly independent draws.
    draw : callable, optional
        The engine, with what it keeps compiled; NUTS otherwise.
    fitted : ModelSpec, optional
        Other priors to fit with: what a wrong posterior looks like.
    progress : callable
        Told how many data sets are done.
    world : callable, optional
        What makes a data set and its truths; of counts by default.

    References
    ----------
    Talts et al. (2018), Validating Bayesian Inference Algorithms with Simulation-Based Calibration,
    arXiv:1804.06788, algorithm 2.
    """
    draw = partial(sample, cache=CompileCache()) if draw is None else draw
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    again = unsettled = divergent = 0
    for replication in range(replications):
        structure, named = (world or _counts)(spec, rng)
        told = fitted or spec
        one = replace(told, structure=structure, priors=dict(told.priors), constants=dict(told.constants))
        ties = rng.random(len(named))
        chosen = replace(sampler, seed=int(rng.integers(2**31)))
        tree, table, anew = settled(one, chosen, draw)
        again += anew
        if tree is None:
            unsettled += 1
            continue
        unsettled += int(table["r_hat"].max() > R_HAT)
        divergent += int(bool(tree["sample_stats"]["diverging"].any()))
        kept = int(np.clip(table["ess_bulk"].min(), 10, RANKED))
        draws = _flat(tree, list(named), kept)
        row = {}
        for (name, value), tie, values in zip(named.items(), ties, draws, strict=True):
            row[name] = float(((values < value).sum() + tie) / (kept + 1))
        rows.append(row)
        progress(replication + 1)
    return Calibration(pd.DataFrame(rows), again, unsettled, divergent)


def settled(spec: ModelSpec[Any], sampler: Sampler, draw: Draw) -> tuple[Any | None, pd.DataFrame, bool]:
    """A fit, made anew with longer chains and smaller steps where the first one's chains do not agree.

    Returns
    -------
    tuple of (DataTree or None, DataFrame, bool)
        The fit (None where even the second one failed), its summary, and whether it was made anew.
    """
    tree, table = _fit(spec, sampler, draw)
    if tree is not None and table["r_hat"].max() <= R_HAT and table["ess_bulk"].min() >= RANKED:
        return tree, table, False
    longer = replace(
        sampler, draws=8 * sampler.draws, tune=3 * sampler.tune, target_accept=0.97, seed=sampler.seed + 1
    )
    return *_fit(spec, longer, draw), True


def _fit(spec: ModelSpec[Any], sampler: Sampler, draw: Draw) -> tuple[Any, pd.DataFrame]:
    try:
        tree = draw(spec, sampler)
    except FitError:
        return None, pd.DataFrame()
    return tree, summary(tree)


def _counts(spec: ModelSpec[Any], rng: np.random.Generator) -> tuple[Any, dict[str, float]]:
    truth = draw_parameters(spec, 1, rng)
    structure = simulated_structure(spec.structure, truth, rng)
    return structure, _named(structure, truth)


def _named(structure: Any, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """True values by flat name: all parameters, and the effects of the first and the last entity."""
    found: dict[str, float] = {}
    for name in structure.parameters:
        value = truth[name][0]
        if name == "beta":
            found |= {f"beta[{column}]": float(v) for column, v in zip(structure.columns, value, strict=True)}
        elif name == "corr":
            found["corr[count,bytes]"] = float(value)
        else:
            found[name] = float(value)
    for name in ("theta", "theta_bytes"):
        if name in truth:
            for place in (0, len(structure.units) - 1):
                found[f"{name}[{structure.units[place]}]"] = float(truth[name][0, place])
    return found


def _flat(tree: Any, names: list[str], kept: int) -> np.ndarray:
    """`kept` draws evenly spaced over all chains of each name, ndarray (len(names), kept)."""
    posterior = tree["posterior"]
    rows = []
    for name in names:
        variable, _, label = name.removesuffix("]").partition("[")
        values = posterior[variable]
        if label:
            dims = [str(one) for one in values.dims if one not in ("chain", "draw")]
            values = values.sel(dict(zip(dims, label.split(",") if len(dims) > 1 else [label], strict=True)))
        flat = values.transpose("chain", "draw").values.ravel()
        rows.append(flat[np.linspace(0, flat.size - 1, kept).astype(int)])
    return np.array(rows)
