"""Figures that say whether draws can be believed: traces, ranks, effective sizes, energy, funnel, lab.

Each draws one table of `hbm_core.analysis`. Draws wear their chain's colour, the exact posterior is an
outline in ink, a divergence is a cross in the warning colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hbm_core.plots.panels import Panels
from hbm_core.plots.theme import number, plotly_template
from hbm_core.plots.tokens import TYPE, Mode, colours, group_colours

#: Draws per chain that a trace shows, the rest thinned evenly; undivergent draws in a cloud.
_MOST_STEPS, _MOST_POINTS, _MOST_CROSSES = 1_000, 2_000, 250
#: Heights in pixels: of a row of panels, and of what surrounds them.
_ROW, _TOP, _BOTTOM = 118, 26, 46
#: Options of every figure: it stays where it is and has no buttons.
CONFIG: Mapping[str, Any] = {"displayModeBar": False, "responsive": True, "showTips": False}
#: Shares of the posterior that the regions behind a funnel hold.
REGIONS = (0.5, 0.8, 0.95, 0.99)


def chain_colours(chains: Sequence[int], mode: Mode) -> dict[int, str]:
    """Chain number to its colour."""
    return dict(zip(chains, group_colours(len(chains), mode), strict=True))


def faded(colour: str, alpha: float) -> str:
    """A hex colour with an opacity, as CSS."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def _panels(
    titles: Sequence[str],
    mode: Mode,
    columns: int = 1,
    widths: Sequence[float] | None = None,
    row: int = _ROW,
) -> Panels:
    """Stacked rows of panels, each row with its title on the left above it."""
    count = len(titles)
    top = _TOP if titles[0] else 6
    height = count * row + (count - 1) * _TOP + top + _BOTTOM
    gap = _TOP / (height - top - _BOTTOM) if count > 1 else 0.0
    figure = Panels(count, columns, widths, gap)
    figure.update_layout(
        template=plotly_template(mode),
        height=height,
        margin={"l": 4, "r": 4, "t": top, "b": _BOTTOM},
        showlegend=False,
        hovermode=False,
        dragmode=False,
    )
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True, nticks=4)
    for place in range(1, count):
        figure.update_xaxes(showticklabels=False, row=place)
    for place, text in enumerate(titles, start=1):
        figure.add_annotation(
            text=text,
            x=0,
            y=figure.top(place),
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": TYPE["plot"][0], "color": colours(mode)["ink"]},
            yshift=4,
        )
    return figure


def _title(titles: Mapping[str, str], name: str) -> str:
    """A parameter's title; names come from people and may hold what Plotly reads as markup."""
    return titles.get(name, escape(name))


# ---------------------------------------------------------------------------------------------- traces


def traces(
    draws: pd.DataFrame,
    densities: pd.DataFrame,
    ranges: Mapping[str, tuple[float, float]],
    titles: Mapping[str, str],
    mode: Mode,
    total: int | None = None,
) -> Panels:
    """Draws in order beside their marginal densities, one row per parameter, one value axis for both.

    Parameters
    ----------
    draws : pandas.DataFrame
        chain, draw, divergent and one column per parameter.
    densities : pandas.DataFrame
        From `hbm_core.analysis.marginals.marginals`; chain ``"exact"`` is drawn as an outline.
    ranges : mapping of str to (float, float)
        Ends of each parameter's axis; its keys are the rows, in order.
    titles : mapping of str to str
        Words over each row.
    mode : {"light", "dark"}
        Which tokens.
    total : int, optional
        Draws per chain that the axis has room for, while the fit still runs.
    """
    c = colours(mode)
    names = list(ranges)
    chains = [int(chain) for chain in sorted(draws["chain"].unique())]
    palette = chain_colours(chains, mode)
    figure = _panels([_title(titles, name) for name in names], mode, 2, (0.7, 0.3))
    last = total if total is not None else int(draws["draw"].max()) + 1 if len(draws) else 1
    for row, name in enumerate(names, start=1):
        # An axis without anything on it is not drawn; before the first draw it already stands.
        figure.add_scatter(x=[None], y=[None], hoverinfo="skip", row=row, col=1)
        for chain in chains:
            part = draws[draws["chain"] == chain]
            step = -(-len(part) // _MOST_STEPS)
            line = {"color": palette[chain], "width": 0.7}
            figure.add_scatter(
                x=part["draw"].to_numpy()[::step],
                y=part[name].to_numpy(dtype=np.float32)[::step],
                mode="lines",
                line=line,
                opacity=0.75,
                name=f"chain {chain + 1}",
                row=row,
                col=1,
            )
        loud = draws[draws["divergent"]]
        _crosses(figure, loud.iloc[:: max(1, -(-len(loud) // _MOST_CROSSES))], "draw", name, mode, row, 1)
        own = densities[densities["parameter"] == name]
        for chain in chains:
            part = own[own["chain"] == str(chain)]
            figure.add_scatter(
                x=part["density"].to_numpy(dtype=np.float32),
                y=part["value"].to_numpy(dtype=np.float32),
                mode="lines",
                line={"color": palette[chain], "width": 1.1},
                name=f"chain {chain + 1}",
                row=row,
                col=2,
            )
        outline = own[own["chain"] == "exact"]
        if len(outline):
            figure.add_scatter(
                x=outline["density"],
                y=outline["value"],
                mode="lines",
                line={"color": c["ink"], "width": 1.8},
                name="exact",
                row=row,
                col=2,
            )
        # One wild chain early on must not squeeze the others: the exact density sets the scale.
        tallest = outline["density"].max() if len(outline) else own["density"].max() if len(own) else 1.0
        figure.update_yaxes(range=list(ranges[name]), row=row)
        figure.update_xaxes(range=[0, 1.6 * float(tallest)], showticklabels=False, ticks="", row=row, col=2)
    figure.update_xaxes(range=[0, last], showgrid=False, nticks=6, row=len(names), col=1)
    figure.update_xaxes(range=[0, last], showgrid=False, col=1)
    figure.update_xaxes(showgrid=False, col=2)
    figure.update_yaxes(showline=False, ticks="", col=2)
    figure.update_xaxes(title_text="Draw", row=len(names), col=1)
    # As far below its axis as the other title is, which has numbers above it.
    figure.update_xaxes(title={"text": "Density", "standoff": 26}, row=len(names), col=2)
    return figure


def _crosses(
    figure: Panels,
    rows: pd.DataFrame,
    x: str,
    y: str,
    mode: Mode,
    row: int,
    col: int,
) -> None:
    """Divergent draws: crosses in the warning colour."""
    if not len(rows):
        return
    colour = colours(mode)["warn"]
    figure.add_scatter(
        x=rows[x],
        y=rows[y],
        mode="markers",
        marker={"symbol": "x-thin", "size": 7, "line": {"width": 1.8, "color": colour}, "color": colour},
        name="divergence",
        row=row,
        col=col,
    )


# ------------------------------------------------------------------------------ ranks, sizes, memory


def ranks(table: pd.DataFrame, titles: Mapping[str, str], mode: Mode) -> Panels:
    """Rank histograms: one step line per chain over the band of independent draws.

    Parameters
    ----------
    table : pandas.DataFrame
        parameter, chain, bin, count, expected, low, high.
    titles, mode
        As in `traces`.
    """
    c = colours(mode)
    names = list(dict.fromkeys(table["parameter"]))
    bins = int(table["bin"].max()) + 1
    edges = np.arange(bins + 1) / bins
    palette = chain_colours(sorted(table["chain"].unique()), mode)
    figure = _panels([_title(titles, name) for name in names], mode)
    for row, name in enumerate(names, start=1):
        own = table[table["parameter"] == name]
        first = own.iloc[0]
        _band(figure, [0, 1], [first["low"]] * 2, [first["high"]] * 2, mode, row)
        figure.add_scatter(
            x=[0, 1], y=[first["expected"]] * 2, mode="lines", line={"color": c["ink-3"], "width": 1},
            name="expected", row=row, col=1,
        )  # fmt: skip
        for chain, colour in palette.items():
            part = own[own["chain"] == chain]
            counts = part.sort_values("bin")["count"].to_numpy()
            figure.add_scatter(
                x=edges,
                y=np.append(counts, counts[-1]),
                mode="lines",
                line={"color": colour, "width": 1.4, "shape": "hv"},
                name=f"chain {chain + 1}",
                row=row,
                col=1,
            )
        top = max(2.2 * float(first["expected"]), float(own["count"].max()) * 1.05)
        figure.update_yaxes(range=[0, top], row=row)
    figure.update_xaxes(range=[0, 1], showgrid=False, tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_xaxes(
        ticktext=["0", "¼", "½", "¾", "1"],
        title_text="Rank among all draws, lowest to highest",
        row=len(names),
    )
    return figure


def _band(figure: Panels, x: Any, low: Any, high: Any, mode: Mode, row: int) -> None:
    grey = faded(colours(mode)["raw"], 0.18)
    figure.add_scatter(
        x=[*x, *list(x)[::-1]], y=[*high, *list(low)[::-1]], mode="lines", line={"width": 0},
        fill="toself", fillcolor=grey, name="band", row=row, col=1,
    )  # fmt: skip


def ess(table: pd.DataFrame, titles: Mapping[str, str], mode: Mode) -> Panels:
    """Effective draws as draws accumulate, bulk and tail, with the goal.

    Parameters
    ----------
    table : pandas.DataFrame
        parameter, draws (per chain), kind, ess, goal.
    titles, mode
        As in `traces`.
    """
    c = colours(mode)
    names = list(dict.fromkeys(table["parameter"]))
    figure = _panels([_title(titles, name) for name in names], mode)
    last = int(table["draws"].max())
    top = 1.08 * max(float(table["ess"].max()), float(table["goal"].max()))
    for row, name in enumerate(names, start=1):
        own = table[table["parameter"] == name]
        goal = float(own["goal"].iloc[0])
        figure.add_scatter(
            x=[0, last], y=[goal, goal], mode="lines", line={"color": c["ink-3"], "width": 1},
            name="goal", row=row, col=1,
        )  # fmt: skip
        for kind, dash in (("bulk", "solid"), ("tail", "dot")):
            part = own[own["kind"] == kind].sort_values("draws")
            figure.add_scatter(
                x=[0, *part["draws"]],
                y=[0, *part["ess"]],
                mode="lines",
                line={"color": c["accent"], "width": 2, "dash": dash},
                name=kind,
                row=row,
                col=1,
            )
    figure.update_yaxes(range=[0, top])
    figure.update_xaxes(range=[0, last], showgrid=False)
    figure.update_xaxes(title_text="Draws per chain", row=len(names))
    return figure


def autocorrelations(table: pd.DataFrame, titles: Mapping[str, str], mode: Mode) -> Panels:
    """Autocorrelation per chain with the range of independent draws.

    Parameters
    ----------
    table : pandas.DataFrame
        parameter, chain, lag, autocorrelation, low, high.
    titles, mode
        As in `traces`.
    """
    c = colours(mode)
    names = list(dict.fromkeys(table["parameter"]))
    palette = chain_colours(sorted(table["chain"].unique()), mode)
    last = int(table["lag"].max())
    figure = _panels([_title(titles, name) for name in names], mode)
    for row, name in enumerate(names, start=1):
        own = table[table["parameter"] == name]
        first = own.iloc[0]
        _band(figure, [0, last], [first["low"]] * 2, [first["high"]] * 2, mode, row)
        figure.add_scatter(
            x=[0, last], y=[0, 0], mode="lines", line={"color": c["ink-3"], "width": 1}, name="none",
            row=row, col=1,
        )  # fmt: skip
        for chain, colour in palette.items():
            part = own[own["chain"] == chain]
            figure.add_scatter(
                x=part["lag"],
                y=part["autocorrelation"],
                mode="lines",
                line={"color": colour, "width": 1.4},
                name=f"chain {chain + 1}",
                row=row,
                col=1,
            )
    low = min(-0.25, float(table["autocorrelation"].min()) - 0.05)
    figure.update_yaxes(range=[low, 1.05], tickvals=[0, 0.5, 1])
    figure.update_xaxes(range=[0, last], showgrid=False)
    figure.update_xaxes(title_text="Lag, draws", row=len(names))
    return figure


def energy(table: pd.DataFrame, mode: Mode) -> Panels:
    """Density of the energy, filled, and of its steps, outlined.

    Parameters
    ----------
    table : pandas.DataFrame
        chain, draw, energy (centred), transition (NaN at a chain's first draw).
    mode : {"light", "dark"}
        Which tokens.
    """
    from arviz_stats.base import array_stats

    c = colours(mode)
    figure = _panels([""], mode, row=300)
    both = {"energy": table["energy"], "steps": table["transition"].dropna()}
    reach = max(float(np.quantile(np.abs(values), 0.998)) for values in both.values())
    for name, values in both.items():
        x, density, _ = array_stats.kde(values.to_numpy(dtype=float), grid_len=256)
        filled = name == "energy"
        figure.add_scatter(
            x=x,
            y=density,
            mode="lines",
            line={"color": c["accent" if filled else "ink"], "width": 1.6},
            fill="tozeroy" if filled else None,
            fillcolor=faded(c["accent"], 0.25) if filled else None,
            name=name,
            row=1,
            col=1,
        )
    figure.update_xaxes(
        range=[-reach, reach], title_text="Energy minus its mean, and its step from draw to draw, nats"
    )
    figure.update_yaxes(
        rangemode="tozero", showticklabels=False, ticks="", showgrid=False, title_text="Density"
    )
    return figure


# ---------------------------------------------------------------------------- divergences in space


def funnel(
    table: pd.DataFrame,
    backgrounds: Mapping[str, Mapping[str, np.ndarray] | None],
    axes: Mapping[str, str],
    tau_axis: str,
    mode: Mode,
) -> Panels:
    """Log τ against one unit's effect, and against what the non-centered sampler sees, side by side.

    Parameters
    ----------
    table : pandas.DataFrame
        chain, draw, log_tau, theta, standardised, divergent.
    backgrounds : mapping
        For ``theta`` and ``standardised``: `funnel_background` or None.
    axes : mapping
        For ``theta`` and ``standardised``: the axis title.
    tau_axis : str
        Title of the axis of τ.
    mode : {"light", "dark"}
        Which tokens.
    """
    c = colours(mode)
    figure = _panels([""], mode, 2, row=400)
    quiet = table[~table["divergent"]]
    step = max(1, -(-len(quiet) // _MOST_POINTS))
    low, high = (float(value) for value in table["log_tau"].quantile([0.001, 0.999]))
    for col, name in enumerate(("theta", "standardised"), start=1):
        ground = backgrounds.get(name)
        ends = [float(value) for value in table[name].quantile([0.002, 0.998])]
        if ground is not None:
            low, high = float(ground["log_tau"][0]), float(ground["log_tau"][-1])
            ends = [float(ground["x"][0]), float(ground["x"][-1])]
            figure.add_contour(
                x=ground["x"],
                y=ground["log_tau"],
                z=_region(ground["outside"]),
                autocontour=False,
                contours={
                    "start": 0.5,
                    "end": len(REGIONS) - 0.5,
                    "size": 1,
                    "coloring": "fill",
                    "showlines": True,
                },
                line={"width": 0.8, "color": faded(c["raw"], 0.55), "smoothing": 1},
                colorscale=[
                    [place / len(REGIONS), faded(c["raw"], shade)]
                    for place, shade in enumerate(np.linspace(0.0, 0.26, len(REGIONS) + 1))
                ],
                showscale=False,
                hoverinfo="skip",
                name="exact",
                row=1,
                col=col,
            )
        figure.add_scatter(
            x=quiet[name].iloc[::step],
            y=quiet["log_tau"].iloc[::step],
            mode="markers",
            marker={"size": 3.2, "color": c["accent"], "opacity": 0.4},
            name="draws",
            row=1,
            col=col,
        )
        _crosses(figure, table[table["divergent"]], name, "log_tau", mode, 1, col)
        pad = 0.0 if ground is not None else 0.03 * (ends[1] - ends[0])
        figure.update_xaxes(range=[ends[0] - pad, ends[1] + pad], title_text=axes[name], nticks=6, col=col)
    low = max(low, high - 12)
    values = [
        v for p in range(-9, 10) for v in (10.0**p, 2 * 10.0**p, 5 * 10.0**p) if low <= np.log(v) <= high
    ]
    while len(values) > 8:
        values = [v for v in values if np.isclose(np.log10(v) % 1, 0)] if len(values) <= 24 else values[::3]
        if len(values) <= 24:
            break
    figure.update_yaxes(range=[low, high], tickvals=np.log(values), ticktext=[f"{v:g}" for v in values])
    figure.update_yaxes(title_text=tau_axis, col=1)
    figure.update_yaxes(ticks="", col=2)
    return figure


def _region(outside: np.ndarray) -> np.ndarray:
    """Mass outside as a height whose half-integers bound the regions: 0 outside all, 4 in the densest."""
    bounds = [0.0, *sorted(1 - share for share in REGIONS), 1.0]
    heights = [0.0, *(place + 0.5 for place in range(len(REGIONS))), float(len(REGIONS))]
    return np.interp(outside, bounds, heights)


def parallel(table: pd.DataFrame, names: Sequence[str], labels: Mapping[str, str], mode: Mode) -> Panels:
    """Parallel coordinates of draws in posterior sds; every divergent draw marked.

    Parameters
    ----------
    table : pandas.DataFrame
        From `standardised`: divergent and one column per parameter.
    names : sequence of str
        Parameters, from left to right.
    labels : mapping of str to str
        Short names under the axis.
    mode : {"light", "dark"}
        Which tokens.
    """
    c = colours(mode)
    quiet = table[~table["divergent"]]
    quiet = quiet.iloc[:: max(1, -(-len(quiet) // 300))]
    loud = table[table["divergent"]].iloc[:300]
    figure = _panels([""], mode, row=340)
    for rows, colour, width, name in (
        (quiet, faded(c["accent"], 0.16), 0.8, "draws"),
        (loud, faded(c["warn"], 0.55), 1.2, "divergence"),
    ):
        if len(rows):
            values = rows[list(names)].to_numpy(dtype=float)
            gap = np.full((len(values), 1), np.nan)
            figure.add_scatter(
                x=np.tile(np.append(np.arange(len(names), dtype=float), np.nan), len(values)),
                y=np.hstack([values, gap]).ravel(),
                mode="lines+markers" if name == "divergence" else "lines",
                line={"color": colour, "width": width},
                marker={"symbol": "x-thin", "size": 6, "line": {"width": 1.4, "color": c["warn"]}},
                name=name,
                row=1,
                col=1,
            )
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[labels.get(name, escape(name)) for name in names],
        range=[-0.3, len(names) - 0.7],
        showline=False,
        ticks="",
    )
    figure.update_yaxes(range=[-4.2, 4.2], title_text="Posterior sds from the posterior mean", nticks=9)
    return figure


# -------------------------------------------------------------------------------------------- lab


def lab(table: pd.DataFrame, differences: pd.DataFrame, words: Mapping[str, str], mode: Mode) -> go.Figure:
    """Speed of each geometry, and how far its means lie from exact.

    Parameters
    ----------
    table : pandas.DataFrame
        From `lab_table`.
    differences : pandas.DataFrame
        parameterization, parameter, z, limit; may be empty.
    words : mapping of str to str
        Parameterization to its name on the axis.
    mode : {"light", "dark"}
        Which tokens.
    """
    c = colours(mode)
    names = list(table["parameterization"])
    place = {name: -row for row, name in enumerate(names)}
    rows = [place[name] for name in names]
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.5, 0.5], horizontal_spacing=0.05
    )
    height = 40 * len(names) + 62
    figure.update_layout(
        template=plotly_template(mode),
        height=height,
        margin={"l": 4, "r": 8, "t": 6, "b": 50},
        showlegend=False,
        hovermode="closest",
        dragmode=False,
    )
    speed = table["ess_per_second"].to_numpy(dtype=float)
    troubled = (table["divergences"].to_numpy() > 0) | (table["agrees"].to_numpy() == False)  # noqa: E712
    for value, row, bad in zip(speed, rows, troubled, strict=True):
        colour = c["warn" if bad else "accent"]
        figure.add_scatter(
            x=[max(value, 1e-3)],
            y=[row],
            mode="markers+text",
            marker={"size": 11, "color": colour, "symbol": "x" if bad else "circle"},
            text=[f"  {rounded(value)}"],
            textposition="middle right",
            textfont={"color": c["ink"], "size": TYPE["plot"][0]},
            hoverinfo="skip",
            cliponaxis=False,
            name="ESS per second",
            row=1,
            col=1,
        )
    finite = speed[np.isfinite(speed) & (speed > 0)]
    ends = (finite.min() / 3, finite.max() * 6) if finite.size else (1.0, 1000.0)
    figure.update_xaxes(
        type="log",
        range=[np.log10(end) for end in ends],
        title_text="Effective draws per second",
        dtick=1,
        col=1,
    )
    if len(differences):
        limit = float(differences["limit"].iloc[0])
        z = differences["z"].clip(-2.4 * limit, 2.4 * limit)
        off = differences["z"].abs() > limit
        for chosen, symbol, colour in ((~off, "circle-open", c["accent"]), (off, "x-thin", c["warn"])):
            figure.add_scatter(
                x=z[chosen],
                y=differences.loc[chosen, "parameterization"].map(place),
                mode="markers",
                marker={
                    "size": 7,
                    "symbol": symbol,
                    "color": colour,
                    "line": {"width": 1.4, "color": colour},
                },
                text=[
                    f"{escape(str(name))}: {number(value, 1)} MCSE"
                    for name, value in zip(
                        differences.loc[chosen, "parameter"], differences.loc[chosen, "z"], strict=True
                    )
                ],
                hoverinfo="text",
                name="difference",
                row=1,
                col=2,
            )
        figure.add_vrect(
            x0=-limit, x1=limit, fillcolor=faded(c["raw"], 0.14), line_width=0, layer="below", row=1, col=2
        )
        figure.add_vline(x=0, line={"color": c["ink-3"], "width": 1}, row=1, col=2)
        reach = 1.25 * max(limit, float(z.abs().max()))
        figure.update_xaxes(range=[-reach, reach], title_text="Mean minus exact, MCSE", nticks=7, col=2)
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(
        tickvals=rows,
        ticktext=[words.get(name, escape(name)) for name in names],
        range=[-len(names) + 0.4, 0.6],
        showgrid=False,
        showline=False,
        ticks="",
        fixedrange=True,
    )
    return figure


def rounded(value: float) -> str:
    """Three significant digits, thousands apart; – where there is nothing to write.

    >>> rounded(8527.3), rounded(65.81), rounded(1.004)
    ('8,530', '65.8', '1.00')
    """
    if not np.isfinite(value) or value <= 0:
        return "–"
    place = int(np.floor(np.log10(value))) - 2
    return number(round(value / 10.0**place) * 10.0**place, max(0, -place))
