"""Groups in slots: their means and contrasts beside what their rows say alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.models.gaussian_mixed import GaussianMixed

_ENDS = (0.025, 0.25, 0.75, 0.975)
_NAMES = ("low95", "low50", "high50", "high95")


def cells_table(posterior: GaussianMixedPosterior, truth: Mapping[str, float] | None = None) -> pd.DataFrame:
    """One row per group, slot and quantity.

    Parameters
    ----------
    posterior : GaussianMixedPosterior
        Of groups in crossed slots or in time.
    truth : mapping, optional
        True values by the names that fits use.

    Returns
    -------
    DataFrame
        quantity ("mean" or the name of the contrast), group, slot, mean, sd, low95, low50, high50, high95,
        above (probability above 0), raw and raw_se (of means: the rows combined by precision, each row's
        noise alone; NaN where a cell has no rows), rows, truth (NaN without); the outcome's units.
    """
    structure = posterior.structure
    quantiles = posterior.hyper_quantiles(_ENDS)
    raw, raw_se, rows = raw_cells(structure)
    parts = []
    for quantity, word, labels, first in (
        ("mean", structure.group_mean, structure.cells, 0),
        (structure.contrast, structure.contrast, structure.contrasts, 1 if structure.walk else 0),
    ):
        names = [f"{word}[{label}]" for label in labels]
        start = posterior.index(names[0])
        at = slice(start, start + len(names))
        slots = structure.slots[first:]
        part = pd.DataFrame({"group": np.repeat(np.array(structure.groups, dtype=object), len(slots))})
        part.insert(0, "quantity", quantity)
        part["slot"] = list(slots) * len(structure.groups)
        part["mean"], part["sd"] = posterior.hyper_mean[at], posterior.hyper_sd[at]
        for column, values in zip(_NAMES, quantiles[at].T, strict=True):
            part[column] = values
        zero = np.zeros(1)
        part["above"] = [1 - float(posterior.cdf(name, zero)[0]) for name in names]
        of_mean = quantity == "mean"
        part["raw"], part["raw_se"] = (raw, raw_se) if of_mean else (np.nan, np.nan)
        kept = np.arange(len(structure.cells)).reshape(len(structure.groups), -1)[:, first:].ravel()
        part["rows"] = rows[kept]
        part["truth"] = [np.nan if truth is None else truth.get(name, np.nan) for name in names]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def raw_cells(structure: GaussianMixed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of each cell combined by precision: means, standard errors, and how many, ndarray (cells,)."""
    count, precision = len(structure.cells), structure.se**-2.0
    total = np.bincount(structure.cell, precision, count)
    sums = np.bincount(structure.cell, precision * structure.effect, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            sums / total,
            np.where(total > 0, total**-0.5, np.nan),
            np.bincount(structure.cell, None, count),
        )
