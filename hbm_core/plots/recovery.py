"""Pictures of estimators against simulated truth, of tables of `hbm_core.analysis.recovery`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hbm_core.plots import vega
from hbm_core.plots.coverage import Look, against_width
from hbm_core.plots.theme import themed
from hbm_core.plots.tokens import Mode, colours

__all__ = ["NAMES", "against_width", "by_size", "looks"]

#: Estimator → name for a person, in the order of legends.
NAMES = {
    "no_pooling": "no pooling",
    "complete_pooling": "complete pooling",
    "empirical_bayes": "empirical Bayes (REML)",
    "empirical_bayes_moments": "empirical Bayes (moments)",
    "james_stein": "James–Stein",
    "partial_pooling": "partial pooling",
}


def looks(names: Sequence[str], mode: Mode) -> dict[str, Look]:
    """Look of every estimator."""
    c = colours(mode)
    found = {
        "no_pooling": Look(NAMES["no_pooling"], "raw point", c["raw"], c["raw-line"], hollow=True),
        "complete_pooling": Look(NAMES["complete_pooling"], "square", c["ink"], c["ink"], "square", "dash"),
        "empirical_bayes": Look(NAMES["empirical_bayes"], "triangle", c["g2"], c["g2"], "triangle-up"),
        "empirical_bayes_moments": Look(
            NAMES["empirical_bayes_moments"], "triangle down", c["g5"], c["g5"], "triangle-down"
        ),
        "james_stein": Look(NAMES["james_stein"], "triangle", c["g3"], c["g3"], "triangle-up"),
        "partial_pooling": Look(NAMES["partial_pooling"], "point", c["accent"], c["accent"]),
    }
    return {name: found[name] for name in names}


def where(label: str) -> tuple[float, bool]:
    """Place of a bin by its label: those of whom least was seen come first.

    >>> sorted(["n ≥ 500", "100 ≤ n < 500", "n < 100"], key=where)
    ['n < 100', '100 ≤ n < 500', 'n ≥ 500']
    >>> sorted(["≥ 10 windows", "1–2 windows", "3–9 windows"], key=where)
    ['1–2 windows', '3–9 windows', '≥ 10 windows']
    """
    numbers = re.findall(r"\d+", label)
    return float(numbers[0]) if numbers else np.inf, len(numbers) > 1 or "<" not in label


def by_size(table: pd.DataFrame, looked: Mapping[str, Look], unit: str, mode: Mode) -> vega.Figure:
    """Root mean squared error per group of sizes, as bars with Monte-Carlo error bars.

    Parameters
    ----------
    table : DataFrame
        Rows of one grouping and one level: estimator, bin, rmse, rmse_se.
    looked : mapping of str to Look
        From `looks`.
    unit : str
        The outcome's.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    names = {name: look.label for name, look in looked.items()}
    rows = table.assign(
        label=table["estimator"].map(names),
        low=(table["rmse"] - 1.96 * table["rmse_se"]).clip(lower=0),
        high=table["rmse"] + 1.96 * table["rmse_se"],
    )[["bin", "label", "rmse", "low", "high"]]
    order = sorted(set(rows["bin"]), key=where)
    scale = dict(domain=list(names.values()), range=[look.colour for look in looked.values()])
    x = vega.channel("bin:N", sort=order, title=None, axis=dict(labelAngle=0))
    offset = vega.channel("label:N", sort=list(names.values()))
    axis = "Root mean squared error" + (f", {unit}" if unit else "")
    base = vega.Chart(rows).encode(x=x, xOffset=offset)
    bars = base.mark_bar().encode(
        y=vega.channel("rmse:Q", title=axis),
        color=vega.channel("label:N", scale=scale, legend=None),
        tooltip=[vega.channel("label:N"), vega.channel("bin:N"), vega.channel("rmse:Q", format=".3f")],
    )
    errors = base.mark_rule(color=c["ink-2"]).encode(y="low:Q", y2="high:Q")
    return themed(vega.layer(bars, errors).properties(height=330), mode)
