"""Pictures of groups in slots: a grid of contrasts, or means in time as bands."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.models.dataset import Words
from hbm_core.plots import vega
from hbm_core.plots.theme import MINUS, themed
from hbm_core.plots.tokens import Mode, colours, group_colours

#: Groups and slots up to which the grid is drawn, and groups up to which bands can be told apart.
MOST_CELLS, MOST_BANDS = 240, 8


def contrast_grid(table: pd.DataFrame, words: Words, levels: tuple[str, str], mode: Mode) -> vega.Figure:
    """Draw the contrasts of `hbm_core.analysis.cells.cells_table`, a field per group and slot.

    Colour says how far a cell lies above or below the overall mean; a number in bold, that it is on one side
    with 95 % probability.

    Parameters
    ----------
    table : DataFrame
        `cells_table`.
    words : Words
        Of the data set.
    levels : tuple of str
        One group and one slot in a word each.
    mode : Mode
        Light or dark.
    """
    c = colours(mode)
    rows = table[table["quantity"] != "mean"]
    reach = float(np.abs(rows["mean"]).max()) or 1.0
    sure = (rows["above"] > 0.975) | (rows["above"] < 0.025)
    shown = rows.assign(
        text=[f"{value:+.2f}".replace("-", MINUS) for value in rows["mean"]],
        strong=sure,
        size=np.abs(rows["mean"]) / reach,
    )
    x = vega.channel("slot:N", title=None, sort=None, axis=dict(orient="top", labelAngle=0, domain=False))
    y = vega.channel("group:N", title=None, sort=None)
    unit = f", {words.unit}" if words.unit else ""
    tips = [
        vega.channel("group:N", title=levels[0]),
        vega.channel("slot:N", title=levels[1]),
        vega.channel("mean:Q", title=f"contrast{unit}", format="+.3f"),
        vega.channel("low95:Q", title="95 % from", format="+.3f"),
        vega.channel("high95:Q", title="to", format="+.3f"),
        vega.channel("above:Q", title="P(above the mean)", format=".2f"),
    ]
    if rows["truth"].notna().any():
        tips.append(vega.channel("truth:Q", title="simulated truth", format="+.3f"))
    base = vega.Chart(shown).encode(x=x, y=y)
    fields = base.mark_rect(stroke=c["paper"], strokeWidth=2, opacity=0.6).encode(
        color=vega.channel(
            "mean:Q",
            title=None,
            legend=None,
            scale=dict(
                domain=[-reach, 0, reach],
                interpolate="rgb",
                range=[group_colours(2, mode)[1], c["panel"], c["accent"]],
            ),
        ),
        tooltip=tips,
    )
    numbers = [
        base.encode(text="text:N")
        .transform_filter(test)
        .mark_text(color=c["ink"], fontSize=12, fontWeight=weight, tooltip=None)
        for test, weight in (("datum.strong", "bold"), ("!datum.strong", "normal"))
    ]
    height = 34 * rows["group"].nunique() + 30
    return themed(vega.layer(fields, *numbers).properties(height=height), mode)


def bands(table: pd.DataFrame, words: Words, levels: tuple[str, str], mode: Mode) -> vega.Figure:
    """Draw the means of `cells_table` in time: 95 % bands, raw means as circles, the truth dashed.

    Parameters
    ----------
    table, words, levels, mode
        As of `contrast_grid`; of more than `MOST_BANDS` groups the first are drawn.
    """
    rows = table[table["quantity"] == "mean"]
    groups = list(dict.fromkeys(rows["group"]))[:MOST_BANDS]
    rows = rows[rows["group"].isin(groups)]
    palette = dict(domain=groups, range=group_colours(len(groups), mode))
    legend = dict(title=None, orient="top", columns=4)
    colour = vega.channel("group:N", scale=palette, legend=legend)
    plain = vega.channel("group:N", scale=palette, legend=None)
    x = vega.channel(
        "slot:N", title=levels[1].capitalize(), sort=None, axis=dict(labelAngle=0, labelOverlap=True)
    )
    scale = dict(zero=False, nice=True)
    base = vega.Chart(rows).encode(x=x)
    tips = [
        vega.channel("group:N", title=levels[0]),
        vega.channel("slot:N", title=levels[1]),
        vega.channel("mean:Q", title="mean", format=".3f"),
        vega.channel("low95:Q", title="95 % from", format=".3f"),
        vega.channel("high95:Q", title="to", format=".3f"),
        vega.channel("raw:Q", title="raw mean", format=".3f"),
    ]
    layers = [
        base.mark_area(opacity=0.16, tooltip=None).encode(
            y=vega.channel("low95:Q", title=words.axis, scale=scale), y2="high95:Q", color=colour
        ),
        base.mark_line(strokeWidth=2, tooltip=None).encode(y="mean:Q", color=plain),
        base.mark_point(filled=False, size=26, strokeWidth=1.25).encode(y="raw:Q", color=plain, tooltip=tips),
    ]
    if rows["truth"].notna().any():
        layers.append(
            base.mark_line(strokeWidth=1.25, strokeDash=[4, 3], tooltip=None).encode(y="truth:Q", color=plain)
        )
    return themed(vega.layer(*layers).properties(height=300), mode)
