"""Pictures of rates, of tables of `hbm_core.analysis.rates` and `hbm_core.analysis.counts_predictive`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hbm_core.models.dataset import Words
from hbm_core.models.raw_rates import RawRates, RawTrials
from hbm_core.plots import vega
from hbm_core.plots.first_look import MOST_POINTS
from hbm_core.plots.shrinkage import SELECTION, View
from hbm_core.plots.theme import number, themed
from hbm_core.plots.tokens import MARKS, Mode, colours

_RAW_AREA, _POOLED_AREA = np.pi * MARKS["raw-radius"] ** 2, np.pi * MARKS["pooled-radius"] ** 2
_ROW = 24


def chance_table(structure: RawRates) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Raw rates against how much was seen, and where 95 % would lie if all shared one rate.

    Returns
    -------
    points : DataFrame
        unit, rate, seen. At most `MOST_POINTS`.
    lines : DataFrame
        seen, low, mid, high: quantiles of chance around the pooled rate, over-dispersion of windows included.
    word : str
        What `seen` counts.
    """
    moments = structure.rate_moments
    if isinstance(structure, RawTrials):
        word, seen, inflation = "trials", structure.trials, 1.0
    else:
        word, seen = structure.seen
        exposure = np.bincount(structure.entity, structure.exposure, len(structure.units))  # type: ignore[attr-defined]
        if np.ptp(structure.exposure):  # type: ignore[attr-defined]
            word, seen = "exposure", exposure
        inflation = float(np.median(exposure / structure.information))
    grid = np.geomspace(max(float(seen.min()) / 1.3, 1e-9), 1.3 * float(seen.max()), 60)
    mean = max(moments.mean, 1e-12)
    if word == "trials":
        spread = 1 / (grid + 1) * mean * (1 - mean)
        size = mean * (1 - mean) / np.maximum(spread, 1e-300) - 1
        ends = [stats.beta.ppf(p, mean * size, (1 - mean) * size) for p in (0.025, 0.975)]
    else:
        events = mean * grid / inflation
        ends = [stats.gamma.ppf(p, events) * inflation / grid for p in (0.025, 0.975)]
    at = np.arange(len(structure.units))
    if at.size > MOST_POINTS:
        at = np.argsort(seen, kind="stable")[np.linspace(0, at.size - 1, MOST_POINTS).astype(int)]
    labels = [str(structure.units[int(place)]) for place in at]
    points = pd.DataFrame({"unit": labels, "rate": structure.effect[at], "seen": seen[at]})
    return points, pd.DataFrame({"seen": grid, "low": ends[0], "mid": mean, "high": ends[1]}), word


def chance(points: pd.DataFrame, lines: pd.DataFrame, word: str, words: Words, mode: Mode) -> vega.Figure:
    """Draw `chance_table`: the more was seen of an entity, the farther right it stands."""
    c = colours(mode)
    x = vega.channel(
        "seen:Q",
        title=f"{word.capitalize()} of {words.a_one}",
        scale=dict(type="log", nice=False, padding=8),
        axis=dict(grid=False, tickCount=5, **_whole(word)),
    )
    # A few wild rates of hardly watched entities must not flatten the rest.
    top = float(max(points["rate"].max() * 1.05, np.median(lines["high"])))
    y = vega.channel("rate:Q", title=words.axis, scale=dict(domain=[0, top], nice=False, clamp=True))
    base = vega.Chart(lines)
    cone = base.mark_area(color=c["raw-line"], opacity=0.12, clip=True).encode(
        x=x, y=vega.channel("low:Q", title=words.axis, scale=dict(domain=[0, top], clamp=True)), y2="high:Q"
    )
    middle = base.mark_line(color=c["ink"], strokeDash=[4, 3], strokeWidth=1.25).encode(x=x, y="mid:Q")
    dense = len(points) > 150
    marks = (
        vega.Chart(points)
        .mark_point(
            color=c["raw"],
            filled=False,
            size=14 if dense else _RAW_AREA,
            strokeWidth=1 if dense else 1.5,
            opacity=0.6 if dense else 1,
        )
        .encode(
            x=x,
            y=y,
            tooltip=[
                vega.channel("unit:N", title=words.one.capitalize()),
                vega.channel("rate:Q", title=words.outcome, format=".3~g"),
                vega.channel("seen:Q", title=word.capitalize(), format=",.3~g"),
            ],
        )
    )
    return themed(vega.layer(cone, middle, marks).properties(height=250), mode)


def own_weights(table: pd.DataFrame, word: str, view: View) -> vega.Figure:
    """Draw `weight_table`: what share of each estimate is its own data, against how much was seen."""
    c = view.colours
    rows = table.assign(
        chosen=table["unit"] == view.selected,
        turn=view.turn,
        own_text=[f"{100 * value:.0f} %" for value in table["own"]],
    )
    x = vega.channel(
        "seen:Q",
        title=f"{word.capitalize()} of {view.words.a_one}",
        scale=dict(type="log", nice=False, padding=10),
        axis=dict(grid=False, tickCount=6, **_whole(word)),
    )
    y = vega.channel(
        "own:Q",
        title="Weight of its own data",
        scale=dict(domain=[0, 1]),
        axis=dict(format="%", tickCount=5, domain=False, ticks=False),
    )
    half = vega.Chart([{"own": 0.5}]).mark_rule(color=c["ink-3"], strokeDash=[2, 3]).encode(y=y)
    marks = (
        vega.Chart(rows)
        .mark_circle(
            color=c["accent"],
            size=vega.expr(f"datum.chosen ? {1.8 * _POOLED_AREA} : {_POOLED_AREA}"),
            stroke=vega.expr(f"datum.chosen ? '{c['ink']}' : '{c['paper']}'"),
            strokeWidth=vega.expr("datum.chosen ? 2 : 1"),
            opacity=0.85,
            cursor="pointer",
        )
        .encode(
            x=x,
            y=y,
            tooltip=[
                vega.channel("unit:N", title=view.words.one.capitalize()),
                vega.channel("seen:Q", title=word.capitalize(), format=",.3~g"),
                vega.channel("own_text:N", title="Own data"),
            ],
        )
        .add_params(
            vega.selection_point(
                name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
            )
        )
    )
    names = vega.Chart(rows[rows["chosen"]]).mark_text(
        color=c["ink"], fontWeight=700, dy=-12, limit=160, align="center"
    )
    return themed(
        vega.layer(half, marks, names.encode(x=x, y=y, text="unit:N")).properties(height=300), view.mode
    )


def _whole(word: str) -> dict[str, str]:
    """Labels of an axis of what was seen: nobody has 0.8 windows."""
    return {} if word == "exposure" else {"labelExpr": "datum.value % 1 === 0 ? datum.label : ''"}


def _rows_axis(labels: bool) -> Any:
    return dict(
        title=None,
        sort=None,
        # Room for a mark at 0 beside the label.
        axis=dict(grid=False, ticks=False, domain=False, labelLimit=140, labels=labels, labelPadding=8),
    )


def ranking(rows: pd.DataFrame, count: int, view: View) -> vega.Figure:
    """Draw rows of `ranking_table`: mean rank and its 90 % interval, 1 at the left, of `count` entities."""
    c = view.colours
    rows = rows.assign(
        chosen=rows["unit"] == view.selected,
        turn=view.turn,
        interval=[
            f"{low:.0f} to {high:.0f}" for low, high in zip(rows["low90"], rows["high90"], strict=True)
        ],
        top_text=[f"{100 * value:.0f} %" for value in rows["p_top"]],
        pooled_text=[number(value, view.digits.estimate) for value in rows["pooled"]],
    )
    y = vega.channel("unit:N", **_rows_axis(True))
    x = vega.channel(
        "low90:Q",
        title=f"Rank among {count:,} {view.words.many} (1: largest rate)",
        scale=dict(domain=[1, max(count, 2)], nice=False, zero=False),
        axis=dict(tickCount=6, format="d"),
    )
    base = vega.Chart(rows)
    lines = base.mark_rule(color=c["accent"], strokeWidth=MARKS["interval-95"]).encode(
        y=y, x=x, x2="high90:Q"
    )
    marks = (
        base.mark_circle(
            color=c["accent"],
            size=vega.expr(f"datum.chosen ? {1.8 * _POOLED_AREA} : {_POOLED_AREA}"),
            stroke=vega.expr(f"datum.chosen ? '{c['ink']}' : '{c['paper']}'"),
            strokeWidth=1,
            opacity=1,
            cursor="pointer",
        )
        .encode(
            y=y,
            x=vega.channel("rank:Q"),
            tooltip=[
                vega.channel("unit:N", title=view.words.one.capitalize()),
                vega.channel("rank:Q", title="Mean rank", format=".1f"),
                vega.channel("interval:N", title="90 % interval"),
                vega.channel("top_text:N", title="Chance of the top"),
                vega.channel("pooled_text:N", title="Pooled"),
            ],
        )
        .add_params(
            vega.selection_point(
                name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
            )
        )
    )
    return themed(vega.layer(lines, marks).properties(height=_ROW * len(rows)), view.mode)


def forecast(rows: pd.DataFrame, view: View) -> vega.Figure:
    """Draw rows of `forecast_table`: the next window's 90 % interval and median, the latest as a circle."""
    c = view.colours
    rows = rows.assign(
        chosen=rows["unit"] == view.selected,
        interval=[
            f"{low:.0f} to {high:.0f}" for low, high in zip(rows["low90"], rows["high90"], strict=True)
        ],
    )
    y = vega.channel("unit:N", **_rows_axis(True))
    x = vega.channel(
        "low90:Q",
        title="Events in a window",
        scale=dict(zero=True, nice=True),
        axis=dict(tickCount=6),
    )
    base = vega.Chart(rows)
    lines = base.mark_rule(
        color=c["accent"], strokeWidth=4, opacity=vega.expr("datum.chosen ? 0.85 : 0.4")
    ).encode(y=y, x=x, x2="high90:Q")
    middle = base.mark_tick(color=c["accent"], thickness=2.5, size=13).encode(y=y, x=vega.channel("median:Q"))
    latest = base.mark_point(color=c["raw"], filled=False, size=_RAW_AREA, strokeWidth=1.5).encode(
        y=y,
        x=vega.channel("latest:Q"),
        tooltip=[
            vega.channel("unit:N", title=view.words.one.capitalize()),
            vega.channel("latest:Q", title="Latest window"),
            vega.channel("median:Q", title="Next, median"),
            vega.channel("interval:N", title="Next, 90 %"),
        ],
    )
    return themed(vega.layer(lines, middle, latest).properties(height=_ROW * len(rows)), view.mode)


def rootogram(table: pd.DataFrame, of: str, mode: Mode) -> vega.Figure:
    """Draw `rootogram_table` hanging: bars of √observed hang from the curve √expected, so zero is the line.

    Parameters
    ----------
    table : DataFrame
        A `rootogram_table`.
    of : str
        What is counted in the bars, several of them, e.g. "windows".
    mode : {"light", "dark"}
        Theme.

    References
    ----------
    Kleiber & Zeileis (2016), Visualizing count data regressions using rootograms, Am. Stat. 70(3), 296–303.
    """
    c = colours(mode)
    root = np.sqrt(table[["observed", "expected", "low95", "high95"]])
    rows = pd.DataFrame(
        {
            "count": table["count"],
            "label": [
                f"{low:.0f}"
                if high == low
                else f"{low:.0f} and more"
                if np.isinf(high)
                else f"{low:.0f}–{high:.0f}"
                for low, high in zip(table["count"], table["upper"], strict=True)
            ],
            "top": root["expected"],
            "bottom": root["expected"] - root["observed"],
            "low": root["expected"] - root["high95"],
            "high": root["expected"] - root["low95"],
            "observed": table["observed"],
            "expected": table["expected"].round(1),
        }
    )
    rows["off"] = (rows["bottom"] < rows["low"] - 1e-9) | (rows["bottom"] > rows["high"] + 1e-9)
    width = max(2.0, min(14.0, 420 / len(rows)))
    x = vega.channel("count:Q", title="Count", scale=dict(padding=12, nice=False), axis=dict(grid=False))
    y = vega.channel("top:Q", title=f"√ number of {of}", axis=dict(tickCount=5))
    base = vega.Chart(rows)
    tips = [
        vega.channel("label:N", title="Count"),
        vega.channel("observed:Q", title="Observed"),
        vega.channel("expected:Q", title="Expected"),
    ]
    band = base.mark_area(color=c["raw-line"], opacity=0.18, interpolate="monotone").encode(
        x=x, y=vega.channel("low:Q"), y2="high:Q"
    )
    bars = base.mark_bar(
        width=width,
        color=c["raw"],
        opacity=0.55,
        stroke=vega.expr(f"datum.off ? '{c['warn']}' : null"),
        strokeWidth=vega.expr("datum.off ? 2 : 0"),
    ).encode(x=x, y=y, y2="bottom:Q", tooltip=tips)
    zero = vega.Chart([{"top": 0}]).mark_rule(color=c["ink-3"]).encode(y=y)
    curve = base.mark_line(
        color=c["accent"], strokeWidth=2, point=dict(size=18, filled=True, color=c["accent"])
    ).encode(x=x, y=y, tooltip=tips)
    return themed(vega.layer(band, bars, zero, curve).properties(height=280), mode)
