"""Pictures of a population of vectors: Σ as a matrix, against its prior, as ellipses, its prior's shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.plots.covariance import correlation_colour, faded, ink_on
from hbm_core.plots.panels import Panels
from hbm_core.plots.theme import log_ticks, number, plotly_template
from hbm_core.plots.tokens import TYPE, Mode, colours

#: Components up to which cells print their numbers; units up to which arrows and names are drawn.
MOST_PRINTED, MOST_ARROWS, MOST_NAMES = 5, 80, 12
#: Posterior probability of a sign from which it counts as known.
KNOWN = 0.95
_TICK = TYPE["tick"][0]


def _blank(mode: Mode, height: int) -> dict[str, Any]:
    return {
        "template": plotly_template(mode),
        "height": height,
        "margin": {"l": 4, "r": 8, "t": 6, "b": 6},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
    }


def records(table: pd.DataFrame) -> Iterable[Any]:
    """Rows of a table by the names of its columns."""
    return table.itertuples()


def _groups(table: pd.DataFrame, column: str) -> Iterable[tuple[Any, pd.DataFrame]]:
    return table.groupby(column, sort=True)


# --------------------------------------------------------------------------------------------- matrix


def matrix(table: pd.DataFrame, mode: Mode) -> Panels:
    """Sds on the diagonal, correlations below it with their intervals.

    Each cell below the diagonal has an axis of its own from −1 to 1: a line for the 90 % interval, a dot for
    the mean where there is room, whose colour fills the cell. Cells whose sign is known are framed.

    Parameters
    ----------
    table : DataFrame
        From `covariance_population.matrix_table`.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    spreads = table[table["kind"] == "sd"]
    names = spreads["row"].tolist()
    count, place = len(names), {name: at for at, name in enumerate(names)}
    rows = table[table["kind"] == "correlation"]
    printed = count <= MOST_PRINTED
    figure = Panels(1)
    shapes, notes = [], []
    for row in records(rows):
        x, y = place[row.column], place[row.row]
        known = row.sign >= KNOWN
        shapes.append(
            {
                "type": "rect",
                "x0": x - 0.47,
                "x1": x + 0.47,
                "y0": y - 0.47,
                "y1": y + 0.47,
                "fillcolor": correlation_colour(row.mean, mode),
                "line": {"color": c["ink"] if known else c["rule"], "width": 1.5 if known else 0.5},
                "layer": "below",
            }
        )
        ink = ink_on(correlation_colour(row.mean, mode))
        lift = 0.16 if printed else 0.0
        shapes += [
            _line((x, y + lift - 0.2), (x, y + lift + 0.2), c["ink-3"], 0.75),
            _line(
                (x + 0.44 * row.low90, y + lift),
                (x + 0.44 * row.high90, y + lift),
                ink,
                3 if known else 1.5,
            ),
        ]
        if printed:
            notes.append(_note(x, y - 0.16, number(row.mean, 2), TYPE["sentence"][0], ink))
    for row in records(spreads):
        at, sd = place[row.row], number(row.mean, 2)
        text, size = (f"<b>{sd}</b>", TYPE["control"][0]) if count <= 8 else (sd.removeprefix("0"), _TICK)
        notes.append(_note(at, at - 0.12 if printed else at, text, size, c["ink"]))
        if printed:
            text = f"{number(row.low90, 2)}–{number(row.high90, 2)}"
            notes.append(_note(at, at + 0.2, text, _TICK, c["ink-2"]))
    tips = [
        f"{escape(row.row)}"
        + (f" and {escape(row.column)}" if row.kind == "correlation" else ", sd")
        + f": {number(row.mean, 3)} ± {number(row.mcse, 3)}<br>90 %: {number(row.low90, 2)} to "
        + number(row.high90, 2)
        + (f"<br>sign known with {100 * row.sign:.0f} %" if row.kind == "correlation" else "")
        for row in records(table)
    ]
    inks = [ink_on(correlation_colour(value, mode)) for value in rows["mean"]]
    if count <= 8:
        figure.add_scatter(
            x=[place[name] + 0.44 * mean for name, mean in zip(rows["column"], rows["mean"], strict=True)],
            y=[place[name] + (0.16 if printed else 0.0) for name in rows["row"]],
            mode="markers",
            marker={"size": 6, "color": inks},
            hoverinfo="skip",
            name="mean",
            row=1,
            col=1,
        )
    figure.add_scatter(
        x=[place[name] for name in table["column"]],
        y=[place[name] for name in table["row"]],
        mode="markers",
        marker={"size": 18, "opacity": 0},
        text=tips,
        hovertemplate="%{text}<extra></extra>",
        name="cells",
        row=1,
        col=1,
    )
    axis: dict[str, Any] = {
        "tickvals": list(range(count)),
        "ticktext": [escape(name) for name in names],
        "showgrid": False,
        "showline": False,
        "ticks": "",
        "fixedrange": True,
        "zeroline": False,
    }
    figure.update_xaxes(range=[-0.5, count - 0.5], tickangle=-90 if count > 3 else 0, **axis)
    figure.update_yaxes(range=[count - 0.5, -0.5], **axis)
    height = int(np.clip(110 + (80 if printed else 38) * count, 220, 900))
    figure.update_layout(shapes=shapes, annotations=notes, **_blank(mode, height))
    return figure


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, width: float) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": start[0],
        "y0": start[1],
        "x1": end[0],
        "y1": end[1],
        "line": {"color": colour, "width": width},
    }


def _note(x: float, y: float, text: str, size: float, colour: str) -> dict[str, Any]:
    return {"x": x, "y": y, "text": text, "showarrow": False, "font": {"size": size, "color": colour}}


# ---------------------------------------------------------------------------------- prior to posterior


def departures(
    density: pd.DataFrame, table: pd.DataFrame, labels: Mapping[str, str], title: str, mode: Mode
) -> Panels:
    """Priors and posteriors on one axis, the farthest apart on top.

    Parameters
    ----------
    density : DataFrame
        From `covariance_population.density_table`, of sds or of correlations.
    table : DataFrame
        From `covariance_population.departure_table`: rows of the same parameters, in order.
    labels : mapping of str to str
        Parameter → words.
    title : str
        Of the axis.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    names = table["parameter"].tolist()
    figure = Panels(len(names), gap=0.0)
    spreads = bool((table["kind"] == "sd").all())
    notes = []
    for place, row in enumerate(records(table), start=1):
        own = density[density["parameter"] == row.parameter]
        edges = np.append(own["low"].to_numpy(), own["high"].to_numpy()[-1])
        top = float(np.nanmax(own[["prior", "posterior"]].to_numpy()))
        at: dict[str, Any] = {"row": place, "col": 1}
        for column in ("posterior", "prior"):
            values = np.append(own[column].to_numpy(), own[column].to_numpy()[-1])
            filled = column == "posterior"
            figure.add_scatter(
                x=edges,
                y=values / top,
                mode="lines",
                line={"shape": "hv", "width": 1.25, "color": c["accent"] if filled else c["ink-2"]},
                fill="tozeroy" if filled else None,
                fillcolor=faded(c["accent"], 0.25) if filled else None,
                name=f"{column} {row.parameter}",
                hoverinfo="skip",
                **at,
            )
        kept = f"{100 * row.kept:.0f} % as wide" if np.isfinite(row.kept) else "flat prior"
        gap = f", gap {number(row.distance, 2)}" if np.isfinite(row.distance) else ""
        words = f"<b>{escape(labels[row.parameter])}</b>  {kept}{gap}"
        notes.append(
            {
                "x": 0,
                "y": figure.top(place),
                "xref": "paper",
                "yref": "paper",
                "text": words,
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "top",
                "font": {"size": _TICK, "color": c["ink-2"]},
            }
        )
        last = place == len(names)
        figure.update_yaxes(range=[0, 1.75], visible=False, fixedrange=True, **at)
        figure.update_xaxes(
            showticklabels=last,
            ticks="outside" if last else "",
            showgrid=True,
            fixedrange=True,
            **at,
        )
    if spreads:
        low, high = density["low"].min(), density["high"].max()
        at_sd, ticks = log_ticks(low, high)
        figure.update_xaxes(type="log", range=list(np.log10([low, high])), tickvals=at_sd, ticktext=ticks)
    else:
        figure.update_xaxes(range=[-1.02, 1.02], tickvals=[-1, -0.5, 0, 0.5, 1])
    figure.update_xaxes(row=len(names), col=1, title_text=title)
    figure.update_layout(annotations=notes, **_blank(mode, 62 * len(names) + 56) | {"hovermode": False})
    return figure


# ------------------------------------------------------------------------------------------- ellipses


def ellipses(
    outlines: pd.DataFrame,
    points: pd.DataFrame,
    titles: tuple[str, str],
    chosen: str,
    mode: Mode,
) -> Panels:
    """The population's regions over its units, with arrows from independent to pooled estimates.

    Parameters
    ----------
    outlines : DataFrame
        From `covariance_population.ellipse_table`.
    points : DataFrame
        unit, independent_x, independent_y, pooled_x, pooled_y, of units whose data speak of both components.
    titles : (str, str)
        Of the axes.
    chosen : str
        The selected unit.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    figure = Panels(1)
    at: dict[str, Any] = {"row": 1, "col": 1}
    single = outlines[outlines["draw"] >= 0]
    thin: dict[str, Any] = {"x": [], "y": []}
    for _, line in _groups(single, "draw"):
        thin["x"] += [*line["x"], None]
        thin["y"] += [*line["y"], None]
    figure.add_scatter(
        **thin, mode="lines", line={"color": c["raw-line"], "width": 0.5}, opacity=0.45, hoverinfo="skip",
        name="draws of the 90 % region", **at,
    )  # fmt: skip
    middle = outlines[outlines["draw"] < 0]
    for share, line in _groups(middle, "share"):
        figure.add_scatter(
            x=line["x"],
            y=line["y"],
            mode="lines",
            line={"color": c["ink"], "width": 2 if share < 0.8 else 1.25},
            hoverinfo="skip",
            name=f"{100 * share:g} %",
            **at,
        )
    notes = []
    if len(points) <= MOST_ARROWS:
        for row in records(points):
            notes.append(
                {
                    "x": row.pooled_x,
                    "y": row.pooled_y,
                    "ax": row.independent_x,
                    "ay": row.independent_y,
                    "axref": "x",
                    "ayref": "y",
                    "text": "",
                    "showarrow": True,
                    "arrowhead": 2,
                    "arrowsize": 1,
                    "arrowwidth": 1.25,
                    "arrowcolor": c["ink-2"],
                    "standoff": 5,
                    "startstandoff": 3,
                }
            )
    figure.add_scatter(
        x=points["independent_x"],
        y=points["independent_y"],
        mode="markers",
        marker={"size": 7.4, "color": c["paper"], "line": {"color": c["raw"], "width": 1.5}},
        text=[escape(str(unit)) for unit in points["unit"]],
        hovertemplate="%{text}, independent: %{x:.2f}, %{y:.2f}<extra></extra>",
        name="independent",
        **at,
    )
    named = len(points) <= MOST_NAMES
    figure.add_scatter(
        x=points["pooled_x"],
        y=points["pooled_y"],
        mode="markers+text" if named else "markers",
        marker={
            "size": [11 if unit == chosen else 9 for unit in points["unit"]],
            "opacity": 1,
            "color": c["accent"],
            "line": {
                "color": c["ink"],
                "width": [1.5 if unit == chosen else 0 for unit in points["unit"]],
            },
        },
        text=[escape(str(unit)) for unit in points["unit"]],
        textposition=_turns(points["pooled_x"]),
        textfont={"size": _TICK, "color": c["ink-2"]},
        hovertemplate="%{text}, pooled: %{x:.2f}, %{y:.2f}<extra></extra>",
        name="pooled",
        **at,
    )
    ends = []
    for axis in ("x", "y"):
        own = [middle[axis], points[f"independent_{axis}"], points[f"pooled_{axis}"]]
        values = np.concatenate([np.asarray(part, dtype=float) for part in own])
        pad = 0.08 * np.ptp(values)
        ends.append([values.min() - pad, values.max() + pad])
    figure.update_xaxes(title_text=titles[0], range=ends[0], fixedrange=True)
    figure.update_yaxes(title_text=titles[1], range=ends[1], fixedrange=True)
    figure.update_layout(annotations=notes, **_blank(mode, 440))
    return figure


def _turns(x: pd.Series) -> list[str]:
    """Names over and under the points in turn from left to right: neighbours' do not overlap."""
    order = np.argsort(np.argsort(x.to_numpy()))
    return ["top center" if place % 2 == 0 else "bottom center" for place in order]


# ---------------------------------------------------------------------------------------------- prior


def prior_shapes(tables: Sequence[tuple[str, pd.DataFrame, pd.DataFrame]], unit: str, mode: Mode) -> Panels:
    """An sd and the size of one of its correlations together, one panel per prior.

    Parameters
    ----------
    tables : sequence of (str, DataFrame, DataFrame)
        Name of a prior, and its two tables from `covariance_prior.joint_table`.
    unit : str
        Of the sds.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    figure = Panels(1, len(tables))
    notes = []
    low = min(density["log_sd"].min() for _, density, _ in tables)
    high = max(density["log_sd"].max() for _, density, _ in tables)
    for col, (name, density, given) in enumerate(tables, start=1):
        at: dict[str, Any] = {"row": 1, "col": col}
        grid = density.pivot(index="log_sd", columns="correlation", values="outside")
        figure.add_contour(
            x=grid.columns.to_numpy(),
            y=grid.index.to_numpy(),
            z=grid.to_numpy(),
            contours={"start": 0.1, "end": 0.9, "size": 0.2, "coloring": "fill", "showlines": False},
            colorscale=[[0, c["paper"]], [1, faded(c["accent"], 0.75)]],
            zmin=0,
            zmax=1,
            showscale=False,
            hoverinfo="skip",
            name=f"regions {name}",
            **at,
        )
        for column in ("low90", "median", "high90"):
            figure.add_scatter(
                x=given["correlation"],
                y=np.log(given[column]),
                mode="lines",
                line={
                    "color": c["ink"],
                    "width": 2 if column == "median" else 1,
                    "dash": "solid" if column == "median" else "dot",
                },
                hoverinfo="skip",
                name=f"{column} {name}",
                **at,
            )
        figure.update_xaxes(
            range=[0, 1],
            tickvals=[0, 0.25, 0.5, 0.75],
            title_text="|correlation|",
            showgrid=False,
            fixedrange=True,
            **at,
        )
        notes.append(
            {
                "x": 0.02,
                "y": 1.0,
                "xref": f"x{col if col > 1 else ''} domain",
                "yref": "paper",
                "text": f"<b>{escape(name)}</b>",
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": _TICK, "color": c["ink"]},
            }
        )
    places, words = log_ticks(float(np.exp(low)), float(np.exp(high)))
    figure.update_yaxes(
        range=[low, high],
        tickvals=[float(np.log(value)) for value in places],
        ticktext=words,
        showgrid=False,
        fixedrange=True,
    )
    figure.update_yaxes(row=1, col=1, title_text="sd" + (f", {escape(unit)}" if unit else ""))
    layout = _blank(mode, 300)
    layout["margin"] = {**layout["margin"], "t": 26}
    figure.update_layout(annotations=notes, **layout | {"hovermode": False})
    return figure
