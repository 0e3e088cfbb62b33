"""What a change of the data does to the answers: two exact posteriors side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.inference.exact.base import ExactPosterior

_COLUMNS = {"mean": "", "q0.025": "_low95", "q0.975": "_high95"}


def parameter_change(before: ExactPosterior, after: ExactPosterior) -> pd.DataFrame:
    """Parameters of the population before and after, one row each.

    Returns
    -------
    DataFrame
        parameter; before, before_low95, before_high95, after, after_low95, after_high95: posterior mean and
        central 95 % interval, in the parameter's units. NaN where a model lacks the parameter.
    """
    parts = []
    for name, posterior in (("before", before), ("after", after)):
        summary = posterior.summary(hdi=False)
        own = summary.loc[[not str(label).startswith("theta[") for label in summary.index]]
        parts.append(own[list(_COLUMNS)].rename(columns={k: f"{name}{end}" for k, end in _COLUMNS.items()}))
    return parts[0].join(parts[1], how="outer", sort=False).rename_axis("parameter").reset_index()


def unit_change(before: ExactPosterior, after: ExactPosterior) -> pd.DataFrame:
    """Units before and after, the farthest moved first; then new and dropped ones.

    Returns
    -------
    DataFrame
        unit; state ("kept", "new", "dropped"); raw_before, raw_after: what was measured; pooled_before,
        pooled_after: posterior means; moved = pooled_after - pooled_before; all in the outcome's units, NaN
        where the unit is not in the data.
    """
    table = _units(before, "before").merge(_units(after, "after"), on="unit", how="outer", sort=False)
    table["moved"] = table["pooled_after"] - table["pooled_before"]
    table["state"] = np.select(
        [table["pooled_after"].isna(), table["pooled_before"].isna()], ["dropped", "new"], "kept"
    )
    order = (-table["moved"].abs()).argsort(kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _units(posterior: ExactPosterior, end: str) -> pd.DataFrame:
    structure = posterior.spec.structure
    names = list(structure.units)
    places = {name: place for place, name in enumerate(posterior.names)}
    mean = posterior.mean[[places[f"theta[{name}]"] for name in names]]
    return pd.DataFrame({"unit": names, f"raw_{end}": structure.effect, f"pooled_{end}": mean})
