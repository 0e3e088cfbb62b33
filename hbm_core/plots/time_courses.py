"""Pictures of time courses: readings under bands of a fit, estimates of circuits by themselves, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hbm_core.plots import vega
from hbm_core.plots.shrinkage import View
from hbm_core.plots.theme import log_ticks, nice_domain, themed
from hbm_core.plots.tokens import MARKS, Mode, colours

_RAW = np.pi * MARKS["raw-radius"] ** 2


def y_domain(readings: pd.DataFrame) -> tuple[float, float]:
    """Axis of all pictures of a circuit: fixed by the readings, not by the draws."""
    low, high = nice_domain([min(0.0, float(readings["value"].min())), 1.02 * float(readings["value"].max())])
    return low, high


def courses(
    readings: pd.DataFrame,
    curves: Sequence[tuple[str, pd.DataFrame]],
    bands: pd.DataFrame | None,
    domain: tuple[float, float],
    axis: str,
    mode: Mode,
    time: str = "Minutes",
) -> vega.Figure:
    """Draw one condition: readings as hollow circles, bands of new readings, and curves.

    Parameters
    ----------
    readings : DataFrame
        time_min, value, course.
    curves : sequence of (kind, DataFrame)
        "alone" (least squares), "prior" (prior medians) or "draw" (one draw), with time_min and value.
    bands : DataFrame or None
        As of `hbm_core.analysis.time_courses.bands`.
    domain : tuple of float
        Ends of the vertical axis.
    axis, time : str
        Its title, and that of the other.
    """
    c = colours(mode)
    x = vega.channel("time_min:Q", title=time, scale=dict(nice=False), axis=dict(tickCount=5, grid=False))
    scale = dict(domain=list(domain), nice=False)
    layers: list[vega.Chart] = []

    def y(name: str) -> vega.Options:
        return vega.channel(f"{name}:Q", title=axis, scale=scale, axis=dict(tickCount=4))

    if bands is not None:
        base = vega.Chart(bands)
        for low, high, opacity in (("low95", "high95", 0.14), ("low50", "high50", 0.25)):
            area = base.mark_area(color=c["accent"], opacity=opacity, tooltip=None, clip=True)
            layers.append(area.encode(x=x, y=y(low), y2=f"{high}:Q"))
        layers.append(base.mark_line(color=c["accent"], strokeWidth=2, clip=True).encode(x=x, y=y("middle")))
    styles = {
        "alone": dict(color=c["raw"], strokeWidth=1.5),
        "prior": dict(color=c["ink"], strokeWidth=1.25, strokeDash=[4, 3]),
        "draw": dict(color=c["ink"], strokeWidth=1.25),
    }
    for kind, table in curves:
        layers.append(vega.Chart(table).mark_line(clip=True, **styles[kind]).encode(x=x, y=y("value")))
    points = vega.Chart(readings).mark_point(
        color=c["raw"], filled=False, size=0.4 * _RAW, strokeWidth=1, opacity=0.75
    )
    tooltip = [
        vega.channel("time_min:Q", title=time),
        vega.channel("value:Q", title=axis, format=",.4~g"),
        vega.channel("course:Q", title="Course"),
    ]
    layers.append(points.encode(x=x, y=y("value"), tooltip=tooltip))
    return themed(vega.layer(*layers).properties(height=170), mode)


def alone(table: pd.DataFrame, center: float, view: View) -> vega.Figure:
    """Draw estimates of circuits by themselves with 95 % intervals; dashed, the prior's median.

    Parameters
    ----------
    table : DataFrame
        unit, raw, raw_low95, raw_high95.
    center : float
        Median of the prior on what units would be pulled to.
    """
    c = view.colours
    rows = table.sort_values("raw", ascending=False)
    y = vega.channel(
        "unit:N", title=None, sort=list(rows["unit"]), axis=dict(grid=False, ticks=False, domain=False)
    )
    x = vega.channel("raw_low95:Q", title=view.words.axis, scale=dict(zero=False, nice=True))
    base = vega.Chart(rows)
    lines = base.mark_rule(color=c["raw-line"], strokeWidth=MARKS["interval-95"]).encode(
        y=y, x=x, x2="raw_high95:Q"
    )
    marks = base.mark_point(stroke=c["raw"], fill=c["paper"], size=_RAW, strokeWidth=1.5, opacity=1)
    tooltip = [vega.channel("unit:N", title="Circuit"), vega.channel("raw:Q", title="Alone", format=".2f")]
    middle = vega.Chart(pd.DataFrame({"center": [center]})).mark_rule(
        color=c["ink"], strokeDash=[4, 3], strokeWidth=1.25
    )
    layers = [
        middle.encode(x=vega.channel("center:Q")),
        lines,
        marks.encode(y=y, x=vega.channel("raw:Q"), tooltip=tooltip),
    ]
    if view.truth:
        known = rows.assign(truth=[view.truth.get(unit, np.nan) for unit in rows["unit"]]).dropna()
        diamonds = vega.Chart(known).mark_point(
            shape="diamond", filled=True, color=c["truth"], size=36, opacity=1
        )
        layers.append(diamonds.encode(y=y, x=vega.channel("truth:Q")))
    return themed(vega.layer(*layers).properties(height={"step": 28}), view.mode)


def means(table: pd.DataFrame, truth: Mapping[str, float], mode: Mode) -> vega.Figure:
    """Draw means over circuits, prior above posterior in each row.

    Parameters
    ----------
    table : DataFrame
        As of `hbm_core.analysis.time_courses.means`.
    truth : mapping of str to float
        True means by parameter, log10, where simulated.
    """
    c = colours(mode)
    order = list(table["parameter"])
    axis = dict(grid=False, ticks=False, domain=False, labelLimit=170)
    y = vega.channel("parameter:N", title=None, sort=order, axis=axis)
    title = "Decades from the prior's median"
    base = vega.Chart(table)

    def bar(low: str, high: str, color: str, width: float, offset: float) -> vega.Chart:
        rule = base.mark_rule(color=color, strokeWidth=width, yOffset=offset)
        return rule.encode(y=y, x=vega.channel(f"{low}:Q", title=title), x2=f"{high}:Q")

    layers = [
        bar("prior_low95", "prior_high95", c["raw-line"], MARKS["interval-95"], -4),
        bar("low95", "high95", c["accent"], MARKS["interval-95"], 3),
        bar("low50", "high50", c["accent"], 4, 3),
        base.mark_circle(color=c["accent"], size=1.4 * _RAW, opacity=1, yOffset=3).encode(
            y=y, x=vega.channel("middle:Q"), tooltip=[vega.channel("parameter:N"), vega.channel("middle:Q")]
        ),
    ]
    if truth:
        rows = table[table["parameter"].isin(list(truth))]
        known = pd.DataFrame({"parameter": rows["parameter"]})
        known["truth"] = [truth[name] for name in rows["parameter"]] - rows["center"].to_numpy()
        diamonds = vega.Chart(known).mark_point(
            shape="diamond", filled=True, color=c["truth"], size=36, opacity=1, yOffset=3
        )
        layers.append(diamonds.encode(y=y, x=vega.channel("truth:Q")))
    return themed(vega.layer(*layers).properties(height={"step": 24}), mode)


def noise(table: pd.DataFrame, unit: str, mode: Mode) -> vega.Figure:
    """Draw the sd among replicates against their mean, both on a log scale, by circuit.

    Parameters
    ----------
    table : DataFrame
        circuit, condition, time_min, mean, var; rows with a positive mean and variance are drawn.
    unit : str
        Of the readings.
    """
    c = colours(mode)
    rows = table[(table["mean"] > 0) & (table["var"] > 0)].assign(sd=lambda t: np.sqrt(t["var"]))
    log = dict(type="log", nice=False)
    titles = {"mean": f"Mean of the replicates, {unit}", "sd": f"sd among them, {unit}"}
    x, y = (
        vega.channel(f"{name}:Q", title=title, scale=log, axis=_round(rows[name]))
        for name, title in titles.items()
    )
    points = vega.Chart(rows).mark_point(
        color=c["raw"], filled=False, size=0.4 * _RAW, strokeWidth=1, opacity=0.6
    )
    tooltip = [
        vega.channel(f"{name}:{kind}", title=name)
        for name, kind in (("circuit", "N"), ("condition", "N"), ("time_min", "Q"))
    ]
    layers = [points.encode(x=x, y=y, tooltip=tooltip)]
    if len(rows) > 2:
        ends = np.array([rows["mean"].min(), rows["mean"].max()])
        middle = float(np.exp(np.median(np.log(rows["sd"]) - np.log(rows["mean"]))))
        half = float(np.exp(np.median(np.log(rows["sd"]) - 0.5 * np.log(rows["mean"]))))
        for sd, dash in ((middle * ends, [4, 3]), (half * np.sqrt(ends), [1, 3])):
            guide = vega.Chart(pd.DataFrame({"mean": ends, "sd": sd}))
            layers.append(guide.mark_line(color=c["ink"], strokeDash=dash, strokeWidth=1.25).encode(x=x, y=y))
    return themed(vega.layer(*layers).properties(height=250), mode)


def _round(values: pd.Series) -> vega.Options:
    """A logarithmic axis with round numbers that the values span."""
    return {} if values.empty else {"values": log_ticks(values.min(), values.max())[0]}
