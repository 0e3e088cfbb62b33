"""Pictures of very many units, each of a table of `hbm_core.analysis.many`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hbm_core.plots import vega
from hbm_core.plots.shrinkage import SELECTION, View, group_palette
from hbm_core.plots.theme import nice_domain, number, themed
from hbm_core.plots.tokens import group_colours

#: Groups that get colours; with more all units are grey.
MOST_GROUPS = 8


def density(
    cells: pd.DataFrame,
    points: pd.DataFrame,
    names: tuple[str, str],
    titles: tuple[str, str],
    view: View,
    *,
    log_x: bool = False,
    identity: bool = False,
    means: Mapping[str, float] | None = None,
    height: int = 300,
) -> vega.Figure:
    """Counted cells under single units.

    Parameters
    ----------
    cells, points : DataFrame
        From `hbm_core.analysis.many.density_scatter`; points with unit and group, with ``size`` where circles
        follow the number of users.
    names : tuple of str
        Columns of the points along x and y.
    titles : tuple of str
        Axes, with units.
    view : View
        Words, theme, selection.
    log_x : bool
        A logarithmic axis.
    identity : bool
        Draw y = x.
    means : mapping of group to float, optional
        Mean that each group's units are pulled to, drawn across.
    height : int
        Pixels.
    """
    c = view.colours
    x_name, y_name = names
    points = points.assign(turn=view.turn, chosen=points["unit"] == view.selected)
    every = {
        x_name: [*points[x_name], *cells["x_low"], *cells["x_high"]],
        y_name: [*points[y_name], *cells["y_low"], *cells["y_high"]],
    }
    x_scale: vega.Options = dict(type="log", nice=False) if log_x else dict(nice=False, zero=False)
    if not log_x:
        x_scale["domain"] = list(nice_domain(every[x_name]))
    y_ends = nice_domain(every[y_name])
    y_scale = dict(domain=list(y_ends), nice=False, zero=False)
    x = vega.channel(f"{x_name}:Q", scale=x_scale, title=titles[0], axis=dict(grid=False, tickCount=6))
    y = vega.channel(f"{y_name}:Q", scale=y_scale, title=titles[1], axis=dict(tickCount=6, domain=False))
    groups = sorted(points["group"].unique(), key=str) if "group" in points else []
    coloured = 0 < len(groups) <= MOST_GROUPS
    layers: list[vega.Chart] = []
    if len(cells):
        layers.append(
            vega.Chart(cells)
            .mark_rect(color=c["ink-3"])
            .encode(
                x=vega.channel("x_low:Q", scale=x_scale, title=titles[0]),
                x2="x_high:Q",
                y=vega.channel("y_low:Q", scale=y_scale, title=titles[1]),
                y2="y_high:Q",
                opacity=vega.channel(
                    "count:Q", scale=dict(type="log", range=[0.12, 0.9], domainMin=1), legend=None
                ),
                tooltip=[vega.channel("count:Q", title=f"{view.words.many} in this cell", format=",")],
            )
        )
    if identity:
        ends = nice_domain(every[x_name])
        low, high = max(ends[0], y_ends[0]), min(ends[1], y_ends[1])
        layers.append(
            vega.Chart([{"a": low, "b": high}])
            .mark_rule(color=c["raw-line"], strokeWidth=1.25)
            .encode(
                x=vega.channel("a:Q", scale=x_scale),
                x2="b:Q",
                y=vega.channel("a:Q", scale=y_scale),
                y2="b:Q",
            )
        )
    if means and len(means) <= MOST_GROUPS:
        palette = _palette(sorted(means, key=str), view)
        for group, value in means.items():
            layers.append(
                vega.Chart([{"mean": value}])
                .mark_rule(color=palette[group], strokeDash=[4, 3], strokeWidth=1.5, opacity=0.9)
                .encode(y=vega.channel("mean:Q", scale=y_scale))
            )
    circle = vega.Chart(points).mark_point(
        filled=False, strokeWidth=1.1, opacity=0.75, color=c["raw"], size=18
    )
    encoding = dict(x=x, y=y)
    if coloured:
        palette = _palette(groups, view)
        encoding["color"] = vega.channel(
            "group:N", scale=dict(domain=groups, range=[palette[g] for g in groups]), legend=None
        )
    if "size" in points:
        encoding["size"] = vega.channel("size:Q", scale=dict(type="sqrt", range=[8, 160]), legend=None)
    layers.append(circle.encode(**encoding))
    chosen = points[points["chosen"]]
    if len(chosen):
        layers.append(
            vega.Chart(chosen)
            .mark_circle(size=110, color=c["accent"], stroke=c["ink"], opacity=1)
            .encode(x=x, y=y)
        )
    picked = vega.selection_point(
        name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
    )
    tips = [vega.channel("unit:N", title=view.words.one)]
    tips += [vega.channel("group:N")] if groups else []
    tips += [
        vega.channel(f"{name}:Q", title=title, format=".3~f")
        for name, title in ((x_name, titles[0].split(",")[0]), (y_name, titles[1].split(",")[0]))
    ]
    surface = (
        vega.Chart(points)
        .mark_circle(opacity=0, size=160, cursor="pointer")
        .encode(x=x, y=y, tooltip=tips)
        .add_params(picked)
    )
    return themed(vega.layer(*layers, surface).properties(height=height, width="container"), view.mode)


def _palette(groups: list[str], view: View) -> dict[str, str]:
    return dict(zip(groups, group_colours(len(groups), view.mode), strict=True))


def group_means(table: pd.DataFrame, truth: Mapping[str, float], view: View) -> vega.Figure:
    """Each group's mean: as the model knows it, beside complete pooling of its units, and the truth.

    Parameters
    ----------
    table : DataFrame
        From `hbm_core.analysis.many.group_table`.
    truth : mapping of str to float
        True mean per group, where simulated; others are absent.
    view : View
        Words and theme.
    """
    c = view.colours
    rows = table.assign(truth=[truth.get(str(group), np.nan) for group in table["group"]])
    colours = group_palette(rows["group"], view.mode) if len(rows) <= MOST_GROUPS else {}
    rows["colour"] = [colours.get(group, c["accent"]) for group in rows["group"]]
    order = rows.sort_values("mean", ascending=False)["group"].tolist()
    for name, decimals in (("mean", view.digits.estimate), ("complete", view.digits.estimate)):
        rows[f"{name}_text"] = [number(value, decimals) for value in rows[name]]
    ends = nice_domain(
        [
            *rows["low95"],
            *rows["high95"],
            *rows["complete_low95"],
            *rows["complete_high95"],
            *rows["truth"].dropna(),
        ]
    )
    scale = dict(domain=list(ends), nice=False, zero=False)

    def across(name: str) -> vega.Options:
        return vega.channel(f"{name}:Q", scale=scale, title=view.words.axis, axis=dict(tickCount=6))

    y = vega.channel("group:N", sort=order, title=None, axis=dict(domain=False, ticks=False, labelLimit=160))
    hue = vega.channel("colour:N", scale=None)
    base = vega.Chart(rows)
    tips = [
        vega.channel("group:N"),
        vega.channel("mean_text:N", title="posterior mean"),
        vega.channel("complete_text:N", title="complete pooling"),
        vega.channel("units:Q", title=view.words.many, format=","),
    ]
    layers = [
        base.mark_rule(color=c["raw-line"], strokeWidth=1.25, yOffset=-7).encode(
            x=across("complete_low95"), x2="complete_high95:Q", y=y
        ),
        base.mark_tick(color=c["ink"], thickness=2, size=14, yOffset=-7, orient="vertical").encode(
            x=across("complete"), y=y, tooltip=tips
        ),
        base.mark_rule(strokeWidth=1.25, yOffset=5).encode(x=across("low95"), x2="high95:Q", y=y, color=hue),
        base.mark_rule(strokeWidth=4, yOffset=5).encode(x=across("low50"), x2="high50:Q", y=y, color=hue),
        base.mark_circle(size=64, opacity=1, stroke=c["paper"], strokeWidth=1.5, yOffset=5).encode(
            x=across("mean"), y=y, color=hue, tooltip=tips
        ),
    ]
    if rows["truth"].notna().any():
        layers.append(
            vega.Chart(rows[rows["truth"].notna()])
            .mark_point(shape="diamond", filled=True, size=70, color=c["truth"], opacity=1, yOffset=5)
            .encode(x=across("truth"), y=y)
        )
    return themed(
        vega.layer(*layers).properties(height=max(90, 40 * len(rows) + 40), width="container"), view.mode
    )


def spread_density(curves: pd.DataFrame, truth: float | None, view: View) -> vega.Figure:
    """One spread: prior as an outline, posterior filled, the truth as a diamond on the axis.

    Parameters
    ----------
    curves : DataFrame
        One parameter's rows of `hbm_core.analysis.many.spread_curves`.
    truth : float or None
        Where simulated.
    view : View
        Theme.
    """
    c = view.colours
    x = vega.channel("x:Q", title=None, scale=dict(nice=False), axis=dict(grid=False, tickCount=5))
    base = vega.Chart(curves)
    y = vega.channel("posterior:Q", axis=None)
    layers = [
        base.mark_area(color=c["accent"], opacity=0.25).encode(x=x, y=y),
        base.mark_line(color=c["accent"], strokeWidth=1.5).encode(x=x, y=y),
    ]
    if curves["prior"].notna().any():
        layers.append(
            base.mark_line(color=c["ink-3"], strokeWidth=1.25).encode(
                x=x, y=vega.channel("prior:Q", axis=None)
            )
        )
    if truth is not None:
        layers.append(
            vega.Chart([{"x": truth, "posterior": 0.0}])
            .mark_point(shape="diamond", filled=True, size=80, color=c["truth"], opacity=1)
            .encode(x=x, y=y)
        )
    return themed(vega.layer(*layers).properties(height=110, width="container"), view.mode)
