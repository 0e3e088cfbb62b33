"""Pictures of the data before any model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.structure import TwoLevelNormal
from hbm_core.plots import vega
from hbm_core.plots.theme import themed
from hbm_core.plots.tokens import Mode, colours, group_colours

_Z95 = 1.959963984540054


#: Of more units than this, so many are drawn, evenly along their standard errors.
MOST_POINTS = 1500


def funnel_table(structure: TwoLevelNormal | GroupedUnits) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Effect against standard error, and where 95 % of effects would lie if all shared one mean.

    Returns
    -------
    points : DataFrame
        unit, effect, se, both in the outcome's units; group, where units have one. At most `MOST_POINTS`.
    lines : DataFrame
        se, low, mid, high: fixed-effect mean and mean ± 1.96 se.
    """
    weight = 1 / structure.se**2
    mean = float(weight @ structure.effect / weight.sum())
    top = float(structure.se.max()) * 1.08
    se = np.array([0.0, top])
    at = np.arange(structure.effect.size)
    if at.size > MOST_POINTS:
        at = np.argsort(structure.se, kind="stable")[np.linspace(0, at.size - 1, MOST_POINTS).astype(int)]
    labels = [str(structure.units[int(place)]) for place in at]
    points = pd.DataFrame({"unit": labels, "effect": structure.effect[at], "se": structure.se[at]})
    if isinstance(structure, GroupedUnits):
        points["group"] = np.asarray(structure.groups, dtype=object)[structure.group[at]]
    return points, pd.DataFrame({"se": se, "low": mean - _Z95 * se, "mid": mean, "high": mean + _Z95 * se})


def funnel(points: pd.DataFrame, lines: pd.DataFrame, axis: str, mode: Mode) -> vega.Figure:
    """Draw `funnel_table`: the more precise a unit, the higher it stands."""
    c = colours(mode)
    y = vega.channel(
        "se:Q", title="Standard error (precise on top)", scale=dict(reverse=True, zero=True, nice=False)
    )
    base = vega.Chart(lines).encode(y=y)
    cone = base.mark_area(color=c["raw-line"], opacity=0.12, orient="horizontal", tooltip=None).encode(
        x=vega.channel("low:Q", title=axis), x2="high:Q"
    )
    middle = base.mark_line(color=c["ink"], strokeDash=[4, 3], strokeWidth=1.25).encode(x="mid:Q")
    dense = len(points) > 100
    grouped = "group" in points and points["group"].nunique() <= 8
    tips = [vega.channel("unit:N"), *([vega.channel("group:N")] if grouped else [])]
    marks = (
        vega.Chart(points)
        .mark_point(
            color=c["raw"],
            filled=False,
            size=14 if dense else 44,
            strokeWidth=1 if dense else 1.5,
            opacity=0.6 if dense else 1,
        )
        .encode(
            x=vega.channel("effect:Q", title=axis),
            y=y,
            tooltip=[
                *tips,
                vega.channel("effect:Q"),
                vega.channel("se:Q", title="standard error"),
            ],
        )
    )
    if grouped:
        names = sorted(points["group"].unique())
        palette = dict(domain=names, range=group_colours(len(names), mode))
        legend = dict(title=None, orient="top", symbolStrokeWidth=1.5)
        marks = marks.encode(color=vega.channel("group:N", scale=palette, legend=legend))
    layers = [cone, middle, marks]
    if len(points) <= 10:
        layers.append(
            vega.Chart(points)
            .mark_text(dx=8, align="left", color=c["ink-2"], fontSize=11.5, limit=90)
            .encode(x="effect:Q", y=y, text="unit:N")
        )
    return themed(vega.layer(*layers).properties(height=250), mode)
