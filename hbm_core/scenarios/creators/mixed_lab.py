"""Estimators against the truth of simulated creators in segments or over periods."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hbm_core.analysis.cells import raw_cells
from hbm_core.analysis.coverage import LEVELS
from hbm_core.analysis.recovery import Intervals, groups, over_data_sets, scores
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.models.prior import Prior
from hbm_core.scenarios.base import Model
from hbm_core.scenarios.creators.mixed import MIXED
from hbm_core.scenarios.creators.simulator import KNOBS, simulate
from hbm_core.scenarios.creators.validation import size_bins

#: The design: 5 genres of 20 creators, in 4 segments or 8 periods.
DESIGN: Mapping[str, Mapping[str, object]] = {
    "crossed": {"creators_per_genre": 20, "segments": 4, "level": "summaries"},
    "drift": {"creators_per_genre": 20, "periods": 8, "level": "summaries"},
}


def mixed_recovery(
    model: str, replications: int, seed: int, priors: Mapping[str, Prior] | None = None
) -> pd.DataFrame:
    """Rows' effects by their own estimates, by their genre's raw mean in the slot, and by the model.

    Parameters
    ----------
    model : {"crossed", "drift"}
        The model.
    replications, seed : int
        Data sets, and the seed of the first.
    priors : mapping, optional
        The model's defaults for the rest.

    Returns
    -------
    pandas.DataFrame
        As of `hbm_core.analysis.recovery.over_data_sets`.
    """
    declared = {one.id: one for one in MIXED}[model]
    given = DESIGN[model]
    knobs = {knob.name: knob.check(given.get(knob.name, knob.default)) for knob in KNOBS}
    return over_data_sets([_scored(declared, seed + k, knobs, priors) for k in range(int(replications))])


def _scored(
    declared: Model, seed: int, knobs: Mapping[str, object], priors: Mapping[str, Prior] | None
) -> pd.DataFrame:
    dataset = simulate(seed, knobs)
    posterior, truth = solve(declared.spec(dataset, priors)), dataset.truth
    assert isinstance(posterior, GaussianMixedPosterior) and truth is not None
    structure = posterior.structure
    theta = np.array([truth[f"theta[{unit}]"] for unit in structure.units])
    centre = np.array([truth[f"{structure.group_mean}[{cell}]"] for cell in structure.cells])[structure.cell]
    levels = np.asarray(LEVELS)
    tails = np.concatenate([(1 - levels) / 2, (1 + levels) / 2])
    mean, error, _ = raw_cells(structure)
    plain = {
        "no_pooling": (structure.effect, structure.se),
        "complete_pooling": (mean[structure.cell], error[structure.cell]),
    }
    found = {
        name: (point, point[:, None] + sd[:, None] * ndtri(tails)) for name, (point, sd) in plain.items()
    }
    found["partial_pooling"] = (posterior.unit_moments()[0], posterior.unit_quantiles(tails))
    split = len(levels)
    intervals = {
        name: Intervals(point, ends[:, :split], ends[:, split:]) for name, (point, ends) in found.items()
    }
    masks = groups(theta, centre, structure.effect, size_bins(dataset.table["n"].to_numpy()))
    return scores(theta, intervals, masks, LEVELS)
