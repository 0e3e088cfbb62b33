"""Pictures of models of counts beyond the gamma population."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.plots import vega
from hbm_core.plots.shrinkage import View
from hbm_core.plots.theme import number, themed
from hbm_core.plots.tokens import MARKS

_POINT = np.pi * MARKS["pooled-radius"] ** 2


def shares(table: pd.DataFrame, view: View) -> vega.Figure:
    """Draw `shut_table`: share of zeros seen, and under the model with and without shut windows."""
    c = view.colours
    y = vega.channel(
        "label:N",
        title=None,
        sort=list(table["label"]),
        axis=dict(grid=False, ticks=False, domain=False, labelLimit=160),
    )
    axis = dict(title="Share of zeros", axis=dict(format="%", tickCount=4))
    x = vega.channel("low95:Q", **axis)
    base = vega.Chart(table.assign(text=[f"{100 * value:.1f} %" for value in table["share"]]))
    lines = base.mark_rule(color=c["accent"], strokeWidth=MARKS["interval-95"]).encode(
        y=y, x=x, x2="high95:Q"
    )
    marks = base.mark_circle(
        size=1.4 * _POINT,
        opacity=1,
        color=vega.expr(f"datum.kind == 'seen' ? '{c['raw']}' : '{c['accent']}'"),
    ).encode(
        y=y,
        x=vega.channel("share:Q", **axis),
        tooltip=[vega.channel("label:N", title="Of"), vega.channel("text:N", title="Share")],
    )
    return themed(vega.layer(lines, marks).properties(height=110), view.mode)


def coefficients(table: pd.DataFrame, view: View) -> vega.Figure:
    """Draw `coefficient_table`: each coefficient with its 50 and 95 % interval, 0 marked."""
    c = view.colours
    rows = table.assign(
        times=[
            f"× {number(middle, 2)} ({number(low, 2)} to {number(high, 2)})"
            for middle, low, high in zip(
                table["factor"], table["factor_low95"], table["factor_high95"], strict=True
            )
        ]
    )
    y = vega.channel(
        "column:N", title=None, sort=None, axis=dict(grid=False, ticks=False, domain=False, labelLimit=160)
    )
    x = vega.channel(
        "low95:Q",
        title="Effect on the log rate, per sd of the column",
        scale=dict(nice=False, padding=14),
        axis=dict(tickCount=6),
    )
    base = vega.Chart(rows)
    zero = vega.Chart([{"low95": 0}]).mark_rule(color=c["ink-3"], strokeDash=[3, 3]).encode(x=x)
    wide = base.mark_rule(color=c["accent"], strokeWidth=MARKS["interval-95"]).encode(y=y, x=x, x2="high95:Q")
    narrow = base.mark_rule(color=c["accent"], strokeWidth=MARKS["interval-50"]).encode(
        y=y, x=vega.channel("low50:Q"), x2="high50:Q"
    )
    marks = base.mark_circle(color=c["accent"], size=1.4 * _POINT, opacity=1).encode(
        y=y,
        x=vega.channel("median:Q"),
        tooltip=[
            vega.channel("column:N", title="Column"),
            vega.channel("times:N", title="Rate one sd higher"),
        ],
    )
    return themed(vega.layer(zero, wide, narrow, marks).properties(height=60 + 36 * len(rows)), view.mode)


def trajectory(table: pd.DataFrame, view: View) -> vega.Figure:
    """Draw `trajectory_table`: an entity's rate with its bands, and its raw rates."""
    c = view.colours
    x = vega.channel("window:Q", title="Window", scale=dict(nice=False, padding=8), axis=dict(grid=False))
    top = 1.05 * float(max(table["high95"].max(), table["raw"].max(), 1e-9))
    y = vega.channel("low95:Q", title=view.words.axis, scale=dict(domain=[0, top], nice=False))
    base = vega.Chart(table)
    wide = base.mark_area(color=c["accent"], opacity=0.15).encode(x=x, y=y, y2="high95:Q")
    narrow = base.mark_area(color=c["accent"], opacity=0.25).encode(
        x=x, y=vega.channel("low50:Q"), y2="high50:Q"
    )
    middle = base.mark_line(color=c["accent"], strokeWidth=2).encode(x=x, y=vega.channel("median:Q"))
    raw = base.mark_point(color=c["raw"], filled=False, size=_POINT, strokeWidth=1.5).encode(
        x=x,
        y=vega.channel("raw:Q"),
        tooltip=[
            vega.channel("window:Q", title="Window"),
            vega.channel("raw:Q", title="Raw", format=".3~g"),
            vega.channel("median:Q", title="Rate, median", format=".3~g"),
            vega.channel("low95:Q", title="95 % from", format=".3~g"),
            vega.channel("high95:Q", title="to", format=".3~g"),
        ],
    )
    return themed(vega.layer(wide, narrow, middle, raw).properties(height=300), view.mode)


def two_effects(table: pd.DataFrame, ellipse: pd.DataFrame, view: View) -> vega.Figure:
    """Draw `effects_table` over `ellipse_table`: rate across, bytes up, both on log scales."""
    c = view.colours
    log = dict(type="log", nice=False, padding=10)
    x = vega.channel("rate:Q", title=view.words.axis, scale=log, axis=dict(tickCount=5))
    y = vega.channel("bytes:Q", title="Median bytes of a window", scale=log, axis=dict(tickCount=5))
    layers = []
    for share, rows in ellipse.groupby("share"):
        layers.append(
            vega.Chart(rows)
            .mark_line(color=c["ink-3"], strokeWidth=1.25, strokeDash=[1, 0] if share == 0.5 else [4, 3])
            .encode(x=x, y=y, order=vega.channel("order:Q"))
        )
    base = vega.Chart(table.assign(chosen=table["unit"] == view.selected))
    fade = vega.expr("datum.chosen ? 0.9 : 0.25")
    across = base.mark_rule(color=c["accent"], opacity=fade).encode(
        x=vega.channel("rate_low95:Q"), x2="rate_high95:Q", y=y
    )
    up = base.mark_rule(color=c["accent"], opacity=fade).encode(
        x=x, y=vega.channel("bytes_low95:Q"), y2="bytes_high95:Q"
    )
    marks = base.mark_circle(
        color=c["accent"],
        size=vega.expr(f"datum.chosen ? {1.8 * _POINT} : {0.7 * _POINT}"),
        stroke=vega.expr(f"datum.chosen ? '{c['ink']}' : '{c['paper']}'"),
        opacity=1,
    ).encode(
        x=x,
        y=y,
        tooltip=[
            vega.channel("unit:N", title=view.words.one.capitalize()),
            vega.channel("rate:Q", title="Rate", format=".3~g"),
            vega.channel("bytes:Q", title="Bytes", format=",.3~g"),
        ],
    )
    return themed(vega.layer(*layers, across, up, marks).properties(height=380), view.mode)
