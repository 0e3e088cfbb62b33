"""Pictures of shrinkage of vectors, and of what data identify."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.plots.covariance_population import records
from hbm_core.plots.panels import Panels
from hbm_core.plots.theme import log_ticks, number, plotly_template
from hbm_core.plots.tokens import TYPE, Mode, colours

#: Parameters whose loadings are listed, at most: those with the largest.
MOST_LOADINGS = 12
_TICK = TYPE["tick"][0]


def _listed(figure: Panels, labels: list[str], height: int, mode: Mode) -> None:
    """Rows with words on the left, the first on top."""
    count = len(labels)
    figure.update_yaxes(
        tickvals=list(range(count)),
        ticktext=[escape(label) for label in labels],
        range=[count - 0.4, -0.6],
        showgrid=False,
        showline=False,
        ticks="",
        fixedrange=True,
    )
    figure.update_layout(
        template=plotly_template(mode),
        height=height,
        margin={"l": 4, "r": 10, "t": 6, "b": 6},
        showlegend=False,
        dragmode=False,
        hovermode="closest",
    )


def _spans(low: Any, high: Any) -> dict[str, Any]:
    """One horizontal segment per row, as one broken line."""
    x: list[Any] = []
    y: list[Any] = []
    for place, (left, right) in enumerate(zip(low, high, strict=True)):
        x += [left, right, None]
        y += [place, place, None]
    return {"x": x, "y": y}


def eta(table: pd.DataFrame, mode: Mode) -> Panels:
    """η-shrinkage of each component with its interval; 0 no shrinkage, 1 all.

    Parameters
    ----------
    table : DataFrame
        From `covariance_shrinkage.eta_shrinkage_table`.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    rows = table.dropna(subset=["shrinkage"]).sort_values("shrinkage", ascending=False, kind="stable")
    figure = Panels(1)
    at: dict[str, Any] = {"row": 1, "col": 1}
    figure.add_scatter(
        **_spans(rows["low90"], rows["high90"]),
        mode="lines",
        line={"color": c["accent"], "width": 1.25},
        hoverinfo="skip",
        name="90 %",
        **at,
    )
    tips = [
        f"{escape(row.component)}: {number(row.shrinkage, 2)} ± {number(row.error, 3)}<br>sd of "
        f"{row.units} estimates {number(row.sd_units, 3)}, σ {number(row.sigma, 3)}"
        for row in records(rows)
    ]
    figure.add_scatter(
        x=rows["shrinkage"],
        y=list(range(len(rows))),
        mode="markers",
        marker={"size": 9, "color": c["accent"]},
        text=tips,
        hovertemplate="%{text}<extra></extra>",
        name="η-shrinkage",
        **at,
    )
    low = min(0.0, float(rows["low90"].min()) - 0.05) if len(rows) else 0.0
    figure.update_xaxes(
        range=[max(low, -1.0), 1.02], title_text="1 − sd of the estimates / σ", fixedrange=True
    )
    _listed(figure, rows["component"].tolist(), 70 + 24 * max(len(rows), 1), mode)
    return figure


def matrix_shrinkage(table: pd.DataFrame, chosen: str, mode: Mode) -> Panels:
    """Eigenvalues of each unit's W as ticks, their mean as a dot.

    Parameters
    ----------
    table : DataFrame
        From `covariance_shrinkage.matrix_shrinkage_table`.
    chosen : str
        The selected unit.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    means = table[table["rank"] == 0].sort_values("value", ascending=False, kind="stable")
    units = means["unit"].tolist()
    place = {unit: at for at, unit in enumerate(units)}
    figure = Panels(1)
    at: dict[str, Any] = {"row": 1, "col": 1}
    single = table[table["rank"] > 0]
    figure.add_scatter(
        x=single["value"],
        y=[place[unit] for unit in single["unit"]],
        mode="markers",
        marker={"symbol": "line-ns", "size": 11, "line": {"color": c["ink-2"], "width": 1.25}},
        hovertemplate="eigenvalue %{x:.2f}<extra></extra>",
        name="eigenvalues",
        **at,
    )
    figure.add_scatter(
        **_spans(means["low90"], means["high90"]),
        mode="lines",
        line={"color": c["accent"], "width": 4},
        opacity=0.5,
        hoverinfo="skip",
        name="90 %",
        **at,
    )
    figure.add_scatter(
        x=means["value"],
        y=list(range(len(means))),
        mode="markers",
        marker={"size": 10, "color": c["accent"], "line": {"color": c["paper"], "width": 1}},
        text=[
            f"{escape(str(row.unit))}: {number(row.value, 2)} ± {number(row.error, 3)}"
            for row in records(means)
        ],
        hovertemplate="%{text}<extra></extra>",
        name="trace / P",
        **at,
    )
    figure.update_xaxes(
        range=[-0.02, 1.02],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
        title_text="Shrinkage: 0 all data, 1 all population",
        fixedrange=True,
    )
    labels = [str(unit) for unit in units]
    _listed(figure, labels, 70 + (28 if len(units) <= 40 else 14) * len(units), mode)
    if chosen in place:
        words = [f"<b>{escape(label)}</b>" if label == chosen else escape(label) for label in labels]
        figure.update_yaxes(ticktext=words)
    return figure


def contraction(table: pd.DataFrame, labels: Mapping[str, str], mode: Mode) -> Panels:
    """Contraction of each parameter, the least identified on top.

    Parameters
    ----------
    table : DataFrame
        From `covariance_identifiability.contraction_table`.
    labels : mapping of str to str
        Parameter → words.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    figure = Panels(1)
    at: dict[str, Any] = {"row": 1, "col": 1}
    shown = table["contraction"].clip(lower=-1.0)
    figure.add_scatter(
        **_spans(np.zeros(len(table)), shown),
        mode="lines",
        line={"color": c["raw-line"], "width": 1.25},
        hoverinfo="skip",
        name="stems",
        **at,
    )
    figure.add_scatter(
        x=shown,
        y=list(range(len(table))),
        mode="markers",
        marker={
            "size": 9,
            "color": c["accent"],
            "symbol": ["circle" if by == "variance" else "square" for by in table["by"]],
        },
        error_x={"array": table["error"].to_numpy(), "color": c["accent"], "thickness": 1.25, "width": 3},
        text=[
            f"{escape(labels[row.parameter])}: {number(row.contraction, 3)} ± {number(row.error, 3)}<br>"
            f"prior {number(row.prior_sd, 3)} → posterior {number(row.posterior_sd, 3)} (by {row.by})"
            for row in records(table)
        ],
        hovertemplate="%{text}<extra></extra>",
        name="contraction",
        **at,
    )
    low = min(0.0, float(shown.min()) - 0.05) if len(table) else 0.0
    figure.update_xaxes(
        range=[low - 0.02, 1.02],
        title_text="Contraction, 1 − posterior / prior variance",
        fixedrange=True,
    )
    _listed(figure, [labels[name] for name in table["parameter"]], 70 + 22 * max(len(table), 1), mode)
    return figure


def loadings(table: pd.DataFrame, labels: Mapping[str, str], side: str, mode: Mode) -> Panels:
    """Bars of the loadings of one side's directions, one column per direction.

    Parameters
    ----------
    table : DataFrame
        From `covariance_identifiability.directions_table`.
    labels : mapping of str to str
        Parameter → words.
    side : {"sloppy", "stiff"}
        Which end.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    own = table[table["side"] == side]
    # Both sides list the same parameters, so that they can be held beside one another.
    largest = table.assign(size=table["loading"].abs()).groupby("parameter", sort=False)["size"].max()
    kept = set(largest.sort_values(ascending=False, kind="stable").index[:MOST_LOADINGS])
    names = [name for name in largest.index if name in kept]
    ranks = sorted(own["rank"].unique())
    figure = Panels(1, len(ranks))
    notes = []
    for col, rank in enumerate(ranks, start=1):
        rows = own[own["rank"] == rank].set_index("parameter").loc[names]
        at: dict[str, Any] = {"row": 1, "col": col}
        for sign, colour in ((1, c["accent"]), (-1, c["g5"])):
            values = rows["loading"].where(sign * rows["loading"] > 0, 0.0)
            figure.add_scatter(
                **_spans(np.zeros(len(names)), values),
                mode="lines",
                line={"color": colour, "width": 9},
                hoverinfo="skip",
                name=f"direction {rank}",
                **at,
            )
        value, error = float(rows["eigenvalue"].iloc[0]), float(rows["error"].iloc[0])
        figure.update_xaxes(
            range=[-1.05, 1.05], tickvals=[-0.5, 0, 0.5], showgrid=True, fixedrange=True, **at
        )
        notes.append(
            {
                "x": 0.5,
                "y": 1.0,
                "xref": f"x{col if col > 1 else ''} domain",
                "yref": "paper",
                "text": f"<b>{_short(value)}</b> ± {_short(error)}",
                "showarrow": False,
                "yanchor": "bottom",
                "font": {"size": _TICK, "color": c["ink-2"]},
            }
        )
    _listed(figure, [labels[name] for name in names], 76 + 22 * len(names), mode)
    figure.update_layout(annotations=notes, margin={"t": 24}, hovermode=False)
    return figure


def _short(value: float) -> str:
    return number(value, 2) if value >= 0.095 else f"{value:.1g}"


def eigenvalues(table: pd.DataFrame, mode: Mode) -> Panels:
    """Eigenvalues of the chosen directions on a log axis; 1 is as wide as the prior.

    Parameters
    ----------
    table : DataFrame
        From `covariance_identifiability.directions_table`.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    first = table.drop_duplicates("rank")
    figure = Panels(1)
    at: dict[str, Any] = {"row": 1, "col": 1}
    figure.add_scatter(
        x=first["eigenvalue"],
        y=np.zeros(len(first)),
        mode="markers+text",
        marker={
            "size": 11,
            "color": [c["accent"] if side == "sloppy" else c["ink"] for side in first["side"]],
            "symbol": ["circle" if side == "sloppy" else "square" for side in first["side"]],
        },
        error_x={"array": first["error"].to_numpy(), "color": c["ink-2"], "thickness": 1, "width": 3},
        text=[str(rank) for rank in first["rank"]],
        textposition="top center",
        textfont={"size": _TICK, "color": c["ink-2"]},
        hovertemplate="%{x:.3g}<extra></extra>",
        name="eigenvalues",
        **at,
    )
    values, wide = first["eigenvalue"].to_numpy(), {"color": c["ink"], "width": 1.5, "dash": "4px,3px"}
    low = np.log10(max(values.min(), 1e-12))
    figure.update_layout(
        template=plotly_template(mode),
        height=112,
        margin={"l": 8, "r": 8, "t": 6, "b": 6},
        showlegend=False,
        dragmode=False,
        shapes=[{"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": wide}],
    )
    ends = [min(low - 0.25, -0.5), max(np.log10(values.max()), 0) + 0.15]
    places, words = log_ticks(10 ** ends[0], 10 ** ends[1])
    figure.update_xaxes(
        type="log",
        range=ends,
        tickvals=places,
        ticktext=words,
        title_text="Posterior over prior variance along a direction, log scale",
        fixedrange=True,
    )
    figure.update_yaxes(range=[-1, 1.4], visible=False, fixedrange=True)
    return figure
