"""The figure of a ladder of temperatures: acceptance, where the barrier lies, walkers on their way.

Draws the tables of `hbm_core.analysis.tempering`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.plots.panels import Panels
from hbm_core.plots.theme import plotly_template
from hbm_core.plots.tokens import TYPE, Mode, colours, group_colours

#: Heights in pixels: of a panel, of what is above its title and below its axis, and of the first title.
_ROW, _GAP, _TOP, _BOTTOM = 150, 74, 26, 46


def tempering(ladder: pd.DataFrame, barrier: pd.DataFrame, paths: pd.DataFrame, mode: Mode) -> Panels:
    """Three panels: acceptance by temperature, the barrier along β, and where walkers were.

    Parameters
    ----------
    ladder : pandas.DataFrame
        From `hbm_core.analysis.tempering.ladder_table`.
    barrier : pandas.DataFrame
        From `barrier_table`.
    paths : pandas.DataFrame
        From `path_table`.
    mode : {"light", "dark"}
        Which tokens.
    """
    c = colours(mode)
    titles = (
        "<b>Acceptance</b>   of swaps and of steps",
        "<b>Barrier</b>   per unit of log β",
        "<b>Walkers</b>   three of replica 1",
    )
    height = len(titles) * _ROW + (len(titles) - 1) * _GAP + _TOP + _BOTTOM
    figure = Panels(len(titles), 1, None, _GAP / (height - _TOP - _BOTTOM))
    figure.update_layout(
        template=plotly_template(mode),
        height=height,
        margin={"l": 4, "r": 4, "t": _TOP, "b": _BOTTOM},
        showlegend=False,
        hovermode=False,
        dragmode=False,
    )
    figure.update_xaxes(fixedrange=True, showgrid=False)
    figure.update_yaxes(fixedrange=True, nticks=4)
    for row, text in enumerate(titles, start=1):
        figure.add_annotation(
            text=text, x=0, y=figure.top(row), xref="paper", yref="paper", xanchor="left", yanchor="bottom",
            showarrow=False, font={"size": TYPE["plot"][0], "color": c["ink"]}, yshift=4,
        )  # fmt: skip
    _acceptance(figure, ladder, mode)
    _barrier(figure, ladder, barrier, mode)
    _paths(figure, paths, len(ladder) - 1, mode)
    return figure


def _acceptance(figure: Panels, ladder: pd.DataFrame, mode: Mode) -> None:
    c, last = colours(mode), len(ladder) - 1
    pairs = ladder["swap_acceptance"].to_numpy()[:-1]
    figure.add_scatter(
        x=np.arange(last) + 0.5, y=pairs, mode="lines+markers", name="swap",
        line={"color": c["accent"], "width": 2}, marker={"size": 7, "color": c["accent"]}, row=1, col=1,
    )  # fmt: skip
    for name, column, symbol in (
        ("step", "step_acceptance", "circle-open"),
        ("walk", "walk_acceptance", "square-open"),
    ):
        figure.add_scatter(
            x=ladder["temperature"], y=ladder[column], mode="markers", name=name,
            marker={"size": 8, "symbol": symbol, "color": c["ink-2"], "line": {"width": 1.5}}, row=1, col=1,
        )  # fmt: skip
    shown = _every(last)
    figure.update_yaxes(range=[0, 1.05], tickvals=[0, 0.5, 1], row=1)
    figure.update_xaxes(
        range=[-0.4, last + 0.4],
        tickvals=shown,
        ticktext=[f"{ladder['beta'][place]:.2g}" for place in shown],
        title_text="β, from the prior (0) to the posterior (1)",
        row=1,
    )


def _every(last: int) -> list[int]:
    """Places of at most seven ticks, both ends among them."""
    step = -(-last // 6)
    return sorted({0, *(place for place in range(last, 0, -step) if place >= step)})


def _barrier(figure: Panels, ladder: pd.DataFrame, barrier: pd.DataFrame, mode: Mode) -> None:
    c = colours(mode)
    # Per unit of log β the area under the curve is the barrier itself, on an axis that shows small β.
    per_log = barrier["beta"].to_numpy() * barrier["local"].to_numpy()
    figure.add_scatter(
        x=barrier["beta"], y=per_log, mode="lines", name="barrier",
        line={"color": c["accent"], "width": 2}, row=2, col=1,
    )  # fmt: skip
    inner = ladder["beta"].to_numpy()[1:]
    figure.add_scatter(
        x=inner, y=np.interp(inner, barrier["beta"], per_log), mode="markers", name="temperature",
        marker={"size": 7, "color": c["accent"]}, row=2, col=1,
    )  # fmt: skip
    low = int(np.floor(np.log10(inner[0])))
    ticks = np.arange(low, 1, max(1, -low // 5))
    figure.update_xaxes(
        type="log",
        range=[np.log10(inner[0]) - 0.1, 0.1],
        tickvals=10.0**ticks,
        ticktext=[f"{10.0**tick:g}" for tick in ticks],
        title_text="β, log scale",
        row=2,
    )
    figure.update_yaxes(rangemode="tozero", row=2)


def _paths(figure: Panels, paths: pd.DataFrame, last: int, mode: Mode) -> None:
    walkers = list(dict.fromkeys(paths["walker"]))
    for walker, colour in zip(walkers, group_colours(len(walkers), mode), strict=True):
        own = paths[paths["walker"] == walker]
        figure.add_scatter(
            x=own["draw"], y=own["temperature"], mode="lines", name=f"walker {walker + 1}",
            line={"color": colour, "width": 1.2}, row=3, col=1,
        )  # fmt: skip
    figure.update_yaxes(range=[-0.5, last + 0.5], tickvals=[0, last], ticktext=["prior", "posterior"], row=3)
    figure.update_xaxes(title_text="Iteration after warm-up", row=3)
