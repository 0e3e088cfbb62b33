"""Pictures of parameters two by two: pairs of draws, the correlation matrix, and what τ does to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hbm_core.plots.coverage import on_axis, tau_ticks
from hbm_core.plots.theme import number, plotly_template
from hbm_core.plots.tokens import TYPE, Mode, colours

#: Draws in all panels of pairs together, at most.
_MOST_POINTS = 6_000
#: Parameters up to which a matrix prints its values.
MOST_VALUES = 14
#: Ends of the diverging palette: −1 and, by the accent, 1. Told apart under all colour blindnesses.
_NEGATIVE = {"light": "#b35806", "dark": "#f1a340"}


def correlation_colour(value: float, mode: Mode) -> str:
    """Colour of a correlation: orange through paper to the accent."""
    c = colours(mode)
    end = c["accent"] if value >= 0 else _NEGATIVE[mode]
    share = min(abs(value), 1.0) if np.isfinite(value) else 0.0
    mixed = [round((1 - share) * a + share * b) for a, b in zip(_rgb(c["paper"]), _rgb(end), strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour: WCAG AA on any."""
    here = _luminance(colour)

    def contrast(ink: str) -> float:
        pair = sorted((here, _luminance(ink)))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    return max(("#000000", "#ffffff"), key=contrast)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def _luminance(colour: str) -> float:
    parts = [part / 255 for part in _rgb(colour)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def faded(colour: str, alpha: float) -> str:
    """A colour that lets through what is under it."""
    return "rgba({},{},{},{:g})".format(*_rgb(colour), alpha)


# ---------------------------------------------------------------------------------------------- pairs


def pairs(
    table: pd.DataFrame,
    densities: pd.DataFrame,
    ranges: Mapping[str, tuple[float, float]],
    correlation: pd.DataFrame,
    titles: Mapping[str, str],
    units: Mapping[str, str],
    mode: Mode,
) -> go.Figure:
    """Draws of every pair below the diagonal, marginal densities on it, correlations above.

    Parameters
    ----------
    table : DataFrame
        divergent, and one column per parameter.
    densities : DataFrame
        parameter, value, density: exact marginals; a parameter without one shows its draws' histogram.
    ranges : mapping of str to (float, float)
        Ends of each parameter's axis; its keys are the parameters, in order.
    correlation : DataFrame
        Square, labelled by parameter.
    titles : mapping of str to str
        Symbol of each parameter, as markup.
    units : mapping of str to str
        Unit of each parameter that has one.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    names = list(ranges)
    count, values = len(names), correlation.loc[names, names].to_numpy(dtype=float)
    panel = {1: 300, 2: 230, 3: 175, 4: 145}.get(count, 125)
    figure = make_subplots(
        rows=count, cols=count, horizontal_spacing=0.05 / count, vertical_spacing=0.05 / count
    )
    figure.update_layout(
        template=plotly_template(mode),
        height=panel * count + 62,
        margin={"l": 4, "r": 4, "t": 6, "b": 6},
        showlegend=False,
        hovermode=False,
        dragmode=False,
        bargap=0,
    )
    quiet, diverged = table[~table["divergent"]], table[table["divergent"]]
    step = max(1, -(-len(quiet) * max(count * (count - 1) // 2, 1) // _MOST_POINTS))
    quiet = quiet.iloc[::step]
    for row, down in enumerate(names, start=1):
        for col, across in enumerate(names, start=1):
            at: dict[str, Any] = {"row": row, "col": col}
            edge = {"showticklabels": row == count, "ticks": "outside" if row == count else ""}
            figure.update_xaxes(range=list(ranges[across]), nticks=5, fixedrange=True, **edge, **at)
            left = {"showticklabels": col == 1 < row, "ticks": "outside" if col == 1 < row else ""}
            figure.update_yaxes(nticks=5, fixedrange=True, **left, **at)
            if row == col:
                _marginal(figure, quiet, densities, down, mode, at)
            elif row < col:
                _cell(figure, float(values[row - 1, col - 1]), mode, at)
            else:
                figure.update_yaxes(range=list(ranges[down]), **at)
                figure.add_scatter(
                    x=quiet[across],
                    y=quiet[down],
                    mode="markers",
                    marker={"size": 3.2, "color": c["accent"], "opacity": 0.38},
                    name=f"{across} {down}",
                    **at,
                )
                if len(diverged):
                    figure.add_scatter(
                        x=diverged[across],
                        y=diverged[down],
                        mode="markers",
                        marker={"symbol": "x-thin", "size": 7, "line": {"color": c["warn"], "width": 1.5}},
                        name=f"divergent {across} {down}",
                        **at,
                    )
    for place, name in enumerate(names, start=1):
        unit = units.get(name, "")
        small = f"<br><span style='font-size:{TYPE['tick'][0]}px'>{escape(unit)}</span>" if unit else ""
        figure.update_xaxes(title_text=titles[name] + small, row=count, col=place)
        figure.update_yaxes(title_text=titles[name], row=place, col=1)
    return figure


def _marginal(
    figure: go.Figure,
    draws: pd.DataFrame,
    densities: pd.DataFrame,
    name: str,
    mode: Mode,
    at: Mapping[str, Any],
) -> None:
    c = colours(mode)
    exact = densities[densities["parameter"] == name]
    if len(exact):
        figure.add_scatter(
            x=exact["value"],
            y=exact["density"],
            mode="lines",
            fill="tozeroy",
            fillcolor=faded(c["accent"], 0.25),
            line={"color": c["accent"], "width": 1.5},
            name=f"density {name}",
            **at,
        )
        figure.update_yaxes(range=[0, 1.08 * float(exact["density"].max())], **at)
    else:
        figure.add_histogram(
            x=draws[name],
            nbinsx=40,
            histnorm="probability density",
            marker={"color": faded(c["accent"], 0.25), "line": {"color": c["accent"], "width": 0.5}},
            name=f"density {name}",
            **at,
        )
    figure.update_yaxes(showgrid=False, showline=False, **at)


def _cell(figure: go.Figure, value: float, mode: Mode, at: Mapping[str, Any]) -> None:
    """A correlation in words on its colour, in the place of a panel."""
    ground = correlation_colour(value, mode)
    axes = figure.get_subplot(at["row"], at["col"])
    figure.update_xaxes(showgrid=False, showline=False, **at)
    figure.update_yaxes(showgrid=False, showline=False, range=[0, 1], **at)
    x, y = axes.xaxis.domain, axes.yaxis.domain
    figure.add_shape(
        type="rect",
        xref="paper",
        yref="paper",
        x0=x[0],
        x1=x[1],
        y0=y[0],
        y1=y[1],
        fillcolor=ground,
        line={"width": 0},
        layer="below",
    )
    figure.add_annotation(
        text=number(value, 2),
        x=(x[0] + x[1]) / 2,
        y=(y[0] + y[1]) / 2,
        xref="paper",
        yref="paper",
        xanchor="center",
        yanchor="middle",
        showarrow=False,
        font={"size": TYPE["title"][0], "color": ink_on(ground)},
    )


# --------------------------------------------------------------------------------------- correlation


def heat_map(matrix: pd.DataFrame, labels: Mapping[str, str], chosen: Sequence[str], mode: Mode) -> go.Figure:
    """A correlation matrix; values are printed where there are few.

    Parameters
    ----------
    matrix : DataFrame
        Square, labelled by parameter.
    labels : mapping of str to str
        Parameter → words on the axes.
    chosen : sequence of str
        Parameters whose words are bold.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    names, values = list(matrix.index), matrix.to_numpy(dtype=float)
    count = len(names)
    figure = go.Figure()
    ticks = [f"<b>{labels[name]}</b>" if name in chosen else labels[name] for name in names]
    gap = 2 if count <= MOST_VALUES else 1 if count <= 30 else 0
    figure.add_heatmap(
        z=values,
        x=list(range(count)),
        y=list(range(count)),
        zmin=-1,
        zmax=1,
        colorscale=[[0, _NEGATIVE[mode]], [0.5, c["paper"]], [1, c["accent"]]],
        xgap=gap,
        ygap=gap,
        customdata=[[f"{labels[a]} and {labels[b]}" for b in names] for a in names],
        hovertemplate="%{customdata}: %{z:.3f}<extra></extra>",
        hoverongaps=False,
        colorbar={
            "thickness": 10,
            "len": 0.9,
            "outlinewidth": 0,
            "tickvals": [-1, -0.5, 0, 0.5, 1],
            "ticktext": ["−1", "−0.5", "0", "0.5", "1"],
            "tickfont": {"size": TYPE["tick"][0], "color": c["ink-3"]},
            "title": {"text": "correlation", "side": "right", "font": {"size": TYPE["tick"][0]}},
        },
    )
    if count <= MOST_VALUES:
        for (row, col), value in np.ndenumerate(values):
            text = "1" if row == col and np.isfinite(value) else number(value, 2).replace("0.", ".", 1)
            figure.add_annotation(
                x=col,
                y=row,
                text=text,
                showarrow=False,
                font={"size": TYPE["tick"][0], "color": ink_on(correlation_colour(value, mode))},
            )
    every = 1 if count <= 40 else -(-count // 30)
    kept = [place for place in range(count) if place % every == 0 or names[place] in chosen]
    axis: dict[str, Any] = {
        "tickvals": kept,
        "ticktext": [ticks[place] for place in kept],
        "showgrid": False,
        "showline": False,
        "ticks": "",
        "fixedrange": True,
    }
    longest = max(len(labels[name]) for name in names)
    figure.update_xaxes(side="bottom", tickangle=0 if longest <= 4 and count <= 20 else -90, **axis)
    figure.update_yaxes(autorange="reversed", **axis)
    figure.update_layout(
        template=plotly_template(mode),
        height=int(np.clip(90 + 34 * count, 220, max(560, 150 + 15 * count))),
        margin={"l": 4, "r": 4, "t": 6, "b": 6},
        dragmode=False,
    )
    return figure


def against_tau(
    curve: pd.DataFrame, density: pd.DataFrame, typical: float, unit: str, mode: Mode
) -> go.Figure:
    """Correlation of two θ's at each τ, with the posterior density of τ behind it.

    Parameters
    ----------
    curve : DataFrame
        From `correlation_given_tau`.
    density : DataFrame
        u, density: posterior of τ per unit of the axis.
    typical : float
        c of the axis.
    unit : str
        The outcome's.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    figure = go.Figure()
    u = on_axis(curve["tau"].to_numpy(), typical)
    figure.add_scatter(
        x=density["u"],
        y=0.9 * density["density"] / density["density"].max(),
        mode="lines",
        fill="tozeroy",
        fillcolor=faded(c["accent"], 0.14),
        line={"color": c["accent"], "width": 1},
        hoverinfo="skip",
        name="posterior",
    )
    for side in ("low", "high"):
        figure.add_scatter(
            x=u,
            y=curve[side],
            mode="lines",
            line={"width": 0},
            fill="tonexty" if side == "high" else None,
            fillcolor=faded(c["raw"], 0.22),
            hoverinfo="skip",
            name="pairs",
        )
    figure.add_scatter(
        x=u,
        y=curve["mean"],
        mode="lines",
        line={"color": c["ink"], "width": 2},
        customdata=curve["tau"],
        hovertemplate=f"τ = %{{customdata:.3~g}} {escape(unit)}: %{{y:.2f}}<extra></extra>",
        name="mean",
    )
    places, words = tau_ticks(typical)
    figure.update_xaxes(
        range=[-0.01, 1.005],
        tickvals=places,
        ticktext=words,
        title_text="τ, spread between units" + (f", {escape(unit)}" if unit else ""),
        fixedrange=True,
    )
    figure.update_yaxes(range=[0, 1.03], nticks=4, title_text="Correlation of two θ", fixedrange=True)
    figure.update_layout(
        template=plotly_template(mode),
        height=230,
        margin={"l": 4, "r": 8, "t": 6, "b": 6},
        showlegend=False,
        dragmode=False,
        hovermode="closest",
    )
    return figure
