"""Pictures of what intervals promise, each of a table of `analysis.coverage` or `analysis.promise`.

Error bars are 95 % Monte-Carlo intervals: 1.96 standard errors over the simulated data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hbm_core.analysis.coverage import CLASSICAL
from hbm_core.models.prior import Prior
from hbm_core.plots.theme import number, plotly_template, signed
from hbm_core.plots.tokens import TYPE, Mode, colours

_Z95 = 1.959963984540054
#: Names of estimators that need no prior.
NAMES: Mapping[str, str] = {
    "none": "no pooling",
    "complete": "complete pooling",
    "eb": "empirical Bayes",
}
#: Measures of error: column → (title, whether in squared units).
MEASURES: Mapping[str, tuple[str, bool]] = {
    "mse": ("Mean squared error", True),
    "bias": ("Bias", False),
    "interval_score": ("Interval score of 95 %: width plus 40 × the miss", False),
}


@dataclass(frozen=True)
class Look:
    """How one estimator is drawn, the same in every picture.

    Parameters
    ----------
    label : str
        Words for a legend.
    key : str
        Mark of the legend.
    colour, line : str
        Of the mark and of its line.
    symbol, dash : str
        Plotly's names.
    hollow : bool
        Filled with paper.
    """

    label: str
    key: str
    colour: str
    line: str
    symbol: str = "circle"
    dash: str = "solid"
    hollow: bool = False


def looks(names: Sequence[str], mode: Mode) -> dict[str, Look]:
    """Look of every estimator: the first with a prior is the study's own and wears the accent."""
    c = colours(mode)
    found = {
        "none": Look(NAMES["none"], "raw point", c["raw"], c["raw-line"], hollow=True),
        "complete": Look(NAMES["complete"], "square", c["ink"], c["ink"], "square", "dash"),
        "eb": Look(NAMES["eb"], "triangle", c["g2"], c["g2"], "triangle-up"),
    }
    spare = iter((c["g1"], c["g3"], c["g4"], c["g5"], c["g6"]))
    bayes = [name for name in names if name not in CLASSICAL]
    for place, name in enumerate(bayes):
        label = f"partial pooling, {name}"
        if place == 0:
            found[name] = Look(label, "point", c["accent"], c["accent"])
        else:
            colour = next(spare, c["ink"])
            found[name] = Look(label, "triangle down", colour, colour, "triangle-down")
    return {name: found[name] for name in names}


def legend_entries(looked: Mapping[str, Look]) -> list[tuple[str, str, str]]:
    """Entries for `plots.theme.legend`."""
    return [(look.key, look.label, look.colour) for look in looked.values()]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, each by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict(orient="records")]


def percent(value: float, error: float) -> str:
    """Return a share with its Monte-Carlo standard error, digits by the error.

    >>> percent(0.9494, 0.00198), percent(0.5, 0.031)
    ('94.9 ± 0.2 %', '50 ± 3 %')
    """
    if error > 0.0095:
        return f"{number(100 * value, 0)} ± {number(100 * error, 0)} %"
    return f"{number(100 * value, 1)} ± {number(max(100 * error, 0.1) if error else 0, 1)} %"


def with_error(value: float, error: float, plus: bool = False) -> str:
    """Return a number with its Monte-Carlo standard error at one significant digit.

    >>> with_error(35.127, 0.21), with_error(-0.034, 0.12), with_error(float("inf"), float("nan"))
    ('35.1 ± 0.2', '0.0 ± 0.1', '∞')
    """
    if not np.isfinite(value):
        return number(value, 0)
    if not np.isfinite(error) or error <= 1e-9 * abs(value):  # the same in every data set: exact
        return (signed if plus else number)(value, 1)
    decimals = int(np.clip(-np.floor(np.log10(error)), 0, 9))
    if round(error, decimals) >= 10 ** (1 - decimals) and decimals > 0:
        decimals -= 1
    write = signed if plus else number
    return f"{write(value, decimals)} ± {number(error, decimals)}"


# ------------------------------------------------------------------------------------------- the frame


def _figure(mode: Mode, height: int, rows: Sequence[float] = (1.0,), gap: float = 0.08) -> go.Figure:
    figure = make_subplots(
        rows=len(rows), cols=1, shared_xaxes=True, row_heights=list(rows), vertical_spacing=gap
    )
    figure.update_layout(
        template=plotly_template(mode),
        height=height,
        margin={"l": 4, "r": 8, "t": 8, "b": 8},
        showlegend=False,
        dragmode=False,
        hovermode="closest",
    )
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return figure


def _errors(values: np.ndarray, colour: str, width: int = 0) -> dict[str, Any]:
    return {
        "type": "data",
        "array": _Z95 * np.nan_to_num(values),
        "color": colour,
        "thickness": 1.25,
        "width": width,
    }


def _marker(look: Look, mode: Mode, size: float = 10) -> dict[str, Any]:
    return {
        "symbol": look.symbol,
        "size": size,
        "color": colours(mode)["paper"] if look.hollow else look.colour,
        "line": {
            "color": look.colour if look.hollow else colours(mode)["paper"],
            "width": 1.5 if look.hollow else 1,
        },
    }


def _label(figure: go.Figure, text: str, mode: Mode, **where: Any) -> None:
    figure.add_annotation(
        text=text,
        showarrow=False,
        font={"size": TYPE["tick"][0], "color": colours(mode)["ink-3"]},
        **where,
    )


# ------------------------------------------------------------------------------------ coverage and width


def against_width(table: pd.DataFrame, looked: Mapping[str, Look], unit: str, mode: Mode) -> go.Figure:
    """Coverage against mean width, one line per estimator through its levels.

    Parameters
    ----------
    table : DataFrame
        Rows of `coverage_study` of one group.
    looked : mapping of str to Look
        From `looks`.
    unit : str
        The outcome's.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    figure = _figure(mode, 400)
    widest = float(table["width"].max()) * 1.06
    for level in sorted(table["level"].unique()):
        figure.add_scatter(
            x=[0, widest],
            y=[100 * level] * 2,
            mode="lines",
            line={"color": c["ink-3"], "width": 1, "dash": "dot"},
            hoverinfo="skip",
            name="promised",
        )
    for name, look in looked.items():
        rows = table[table["estimator"] == name].sort_values("level")
        if rows.empty:
            continue
        figure.add_scatter(
            x=rows["width"],
            y=100 * rows["coverage"],
            mode="lines+markers",
            line={"color": look.line, "width": 1.5, "dash": look.dash},
            marker=_marker(look, mode),
            error_x=_errors(rows["width_se"].to_numpy(), look.colour),
            error_y=_errors(100 * rows["coverage_se"].to_numpy(), look.colour),
            customdata=[
                [
                    f"{100 * row['level']:g} %",
                    percent(row["coverage"], row["coverage_se"]),
                    with_error(row["width"], row["width_se"]),
                ]
                for row in records(rows)
            ],
            hovertemplate=f"<b>{look.label}</b>, interval of %{{customdata[0]}}<br>covers %{{customdata[1]}}"
            f"<br>width %{{customdata[2]}}<extra></extra>",
            name=name,
        )
    figure.update_xaxes(
        range=[0, widest], title_text=_axis("Mean width of the intervals", unit), showgrid=False
    )
    levels = sorted(100 * table["level"].unique())
    figure.update_yaxes(
        range=[0, 103],
        title_text="Covered, %",
        tickvals=[0, 20, 40, *[level for level in levels if level >= 50]],
        ticktext=["0", "20", "40", *[f"{level:g}" for level in levels if level >= 50]],
        showgrid=False,
    )
    return figure


def _axis(text: str, unit: str) -> str:
    return f"{text}, {unit}" if unit else text


# -------------------------------------------------------------------------------------------- over τ


def on_axis(tau: np.ndarray | float, typical: float) -> np.ndarray:
    """Place of a τ on the axis that holds all of them: u = τ/(τ + c)."""
    tau = np.asarray(tau, dtype=float)
    return 1 - typical / (tau + typical)


def tau_ticks(typical: float) -> tuple[list[float], list[str]]:
    """Places and words of the axis' ticks: 0, 1–2–5 steps, ∞.

    >>> tau_ticks(11.0)[1]
    ['0', '2', '5', '10', '20', '50', '100', '∞']
    """
    values = [m * 10.0**p for p in range(-12, 13) for m in (1, 2, 5)]
    kept = [t for t in values if 0.1 < t / (t + typical) < 0.92]
    return [0.0, *[t / (t + typical) for t in kept], 1.0], ["0", *[f"{t:,.6g}" for t in kept], "∞"]


def prior_on_axis(priors: Mapping[str, Prior], typical: float, points: int = 241) -> pd.DataFrame:
    """Prior densities of τ per unit of u, so that area is probability.

    Returns
    -------
    DataFrame
        estimator, u, density; improper priors are left out.
    """
    u = np.linspace(0, 1, points + 2)[1:-1]
    tau = typical * u / (1 - u)
    parts = [
        pd.DataFrame(
            {"estimator": name, "u": u, "density": np.exp(prior.log_density(tau)) * typical / (1 - u) ** 2}
        )
        for name, prior in priors.items()
        if prior.proper
    ]
    return (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["estimator", "u", "density"])
    )


def by_tau(
    curve: pd.DataFrame,
    density: pd.DataFrame,
    looked: Mapping[str, Look],
    typical: float,
    unit: str,
    mode: Mode,
) -> go.Figure:
    """Coverage of one level at each τ, the prior densities of τ beneath on the same axis.

    Parameters
    ----------
    curve : DataFrame
        From `coverage_curve`, one level.
    density : DataFrame
        From `prior_on_axis`.
    looked : mapping of str to Look
        From `looks`.
    typical : float
        c of the axis.
    unit : str
        The outcome's.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    level = 100 * float(curve["level"].iloc[0])
    figure = _figure(mode, 470, (0.74, 0.26), 0.05)
    places, words = tau_ticks(typical)
    figure.add_scatter(
        x=[0, 1],
        y=[level] * 2,
        mode="lines",
        line={"color": c["ink-3"], "width": 1, "dash": "dot"},
        hoverinfo="skip",
        name="promised",
        row=1,
        col=1,
    )
    for name, look in looked.items():
        rows = curve[(curve["estimator"] == name) & curve["tau"].notna()].sort_values("tau")
        figure.add_scatter(
            x=on_axis(rows["tau"].to_numpy(), typical),
            y=100 * rows["coverage"],
            mode="lines+markers",
            line={"color": look.line, "width": 2 if look.key == "point" else 1.5, "dash": look.dash},
            marker=_marker(look, mode, 8.5),
            error_y=_errors(100 * rows["coverage_se"].to_numpy(), look.colour),
            customdata=[
                [f"{row['tau']:,.6g}", percent(row["coverage"], row["coverage_se"])] for row in records(rows)
            ],
            hovertemplate=f"<b>{look.label}</b><br>τ = %{{customdata[0]}} {unit}: covers %{{customdata[1]}}"
            "<extra></extra>",
            name=name,
            row=1,
            col=1,
        )
        line = density[density["estimator"] == name]
        if len(line):
            figure.add_scatter(
                x=line["u"],
                y=line["density"],
                mode="lines",
                line={"color": look.colour, "width": 1.5},
                hoverinfo="skip",
                name=f"prior {name}",
                row=2,
                col=1,
            )
    lowest = float((100 * (curve["coverage"] - _Z95 * curve["coverage_se"])).min())
    bottom = max(0.0, 10 * np.floor(lowest / 10))
    figure.update_yaxes(range=[bottom, 102.5], title_text="Covered, %", row=1, col=1)
    top = float(density["density"].max()) * 1.06 if len(density) else 1.0
    figure.update_yaxes(range=[0, top], showticklabels=False, ticks="", title_text="Prior", row=2, col=1)
    figure.update_yaxes(showgrid=False, row=2, col=1)
    figure.update_xaxes(range=[-0.015, 1.005], tickvals=places, ticktext=words)
    figure.update_xaxes(title_text=_axis("True τ, spread between units", unit), row=2, col=1)
    figure.update_xaxes(showline=False, ticks="", row=1, col=1)
    return figure


# -------------------------------------------------------------------------------------------- by size


def by_size(
    table: pd.DataFrame, looked: Mapping[str, Look], unit: str, words: Mapping[str, str], mode: Mode
) -> go.Figure:
    """Mean squared error, bias and interval score per group of standard errors, as bars with error bars.

    Parameters
    ----------
    table : DataFrame
        Rows of `coverage_study`, grouping "precision", level 0.95.
    looked : mapping of str to Look
        From `looks`.
    unit : str
        The outcome's.
    words : mapping of str to str
        Bin → tick text, in order from precise to noisy.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    figure = _figure(mode, 600, (1, 1, 1), 0.085)
    shown = [name for name in looked if name in set(table["estimator"])]
    for row, (measure, (title, squared)) in enumerate(MEASURES.items(), start=1):
        for name in shown:
            look, part = looked[name], table[table["estimator"] == name].set_index("bin").loc[list(words)]
            values = part[measure].to_numpy()
            finite = np.where(np.isfinite(values), values, np.nan)
            errors = part[f"{measure}_se"].to_numpy()
            pattern = (
                {"shape": "/", "fgcolor": c["paper"], "size": 5, "solidity": 0.35}
                if look.dash == "dash"
                else {}
            )
            figure.add_bar(
                x=list(words.values()),
                y=finite,
                marker={
                    "color": c["paper"] if look.hollow else look.colour,
                    "line": {"color": look.colour, "width": 1.25 if look.hollow else 0},
                    "pattern": pattern,
                },
                error_y=_errors(errors, c["ink-2"], 3),
                customdata=[
                    [with_error(v, e, measure == "bias")] for v, e in zip(values, errors, strict=True)
                ],
                hovertemplate=f"<b>{look.label}</b>, %{{x}}<br>{title.partition(':')[0].lower()} "
                "%{customdata[0]}<extra></extra>",
                name=name,
                offsetgroup=name,
                row=row,
                col=1,
            )
        unit_words = f"{unit}²" if squared and unit else unit
        _label(
            figure,
            f"<b>{title}</b>" + (f", {unit_words}" if unit_words else ""),
            mode,
            x=0,
            xref="paper",
            xanchor="left",
            y=figure.get_subplot(row, 1).yaxis.domain[1],
            yref="paper",
            yanchor="bottom",
            yshift=3,
        )
        figure.update_yaxes(nticks=5, rangemode="tozero", row=row, col=1)
        if measure == "bias":
            figure.update_yaxes(zeroline=True, zerolinecolor=c["rule"], row=row, col=1)
    figure.update_layout(bargap=0.25, bargroupgap=0.12, margin={"l": 4, "r": 8, "t": 26, "b": 8})
    figure.update_xaxes(title_text=_axis("Standard errors", unit), row=len(MEASURES), col=1)
    return figure


# ------------------------------------------------------------------------------------------- winners


def winners(table: pd.DataFrame, looked: Mapping[str, Look], label: str, unit: str, mode: Mode) -> go.Figure:
    """All units beside those that looked best: coverage of 95 % intervals above, exaggeration below.

    Parameters
    ----------
    table : DataFrame
        Rows of `coverage_study` at one level; bins "all" and `label`.
    looked : mapping of str to Look
        From `looks`.
    label : str
        The bin of the selected.
    unit : str
        The outcome's.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    names = [name for name in looked if name in set(table["estimator"])]
    figure = make_subplots(rows=2, cols=1, shared_yaxes=True, vertical_spacing=0.2)
    figure.update_layout(
        template=plotly_template(mode),
        height=110 + 2 * 34 * len(names) + 90,
        margin={"l": 4, "r": 12, "t": 8, "b": 8},
        showlegend=False,
        dragmode=False,
        hovermode="closest",
    )
    level = 100 * float(table["level"].iloc[0])
    for row, (measure, scale, line) in enumerate((("coverage", 100.0, level), ("bias", 1.0, 0.0)), start=1):
        figure.add_scatter(
            x=[line, line],
            y=[-0.6, len(names) - 0.4],
            mode="lines",
            line={"color": c["ink-3"], "width": 1, "dash": "dot"},
            hoverinfo="skip",
            name="promised",
            row=row,
            col=1,
        )
        for place, name in enumerate(reversed(names)):
            look = looked[name]
            found = {row["bin"]: row for row in records(table[table["estimator"] == name])}
            values = [scale * found[b][measure] for b in ("all", label)]
            errors = np.array([scale * found[b][f"{measure}_se"] for b in ("all", label)])
            figure.add_scatter(
                x=values,
                y=[place, place],
                mode="lines",
                line={"color": c["rule"], "width": 2},
                hoverinfo="skip",
                name="shift",
                row=row,
                col=1,
            )
            for who, value, error in zip(("all", "winners"), values, errors, strict=True):
                said = (
                    percent(value / 100, error / 100)
                    if measure == "coverage"
                    else with_error(value, error, True)
                )
                ring = who == "all"
                figure.add_scatter(
                    x=[value],
                    y=[place],
                    mode="markers",
                    marker={
                        "symbol": "line-ns" if ring else "circle",
                        "size": 11 if ring else 10,
                        "color": look.colour if not (look.hollow and not ring) else c["paper"],
                        "line": {"color": look.colour, "width": 2 if ring or look.hollow else 0},
                    },
                    error_x=_errors(np.array([error]), look.colour),
                    hovertemplate=f"<b>{look.label}</b>, {who}<br>{measure} {said}<extra></extra>",
                    name=f"{name} {who}",
                    row=row,
                    col=1,
                )
    words = [looked[name].label.replace("partial pooling, ", "partial, ") for name in reversed(names)]
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[word[0].upper() + word[1:] for word in words],
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
        showline=False,
        ticks="",
        fixedrange=True,
    )
    figure.update_xaxes(fixedrange=True, showgrid=True, nticks=7)
    lowest = float((100 * (table["coverage"] - _Z95 * table["coverage_se"])).min())
    figure.update_xaxes(
        range=[max(0, 10 * np.floor(lowest / 10)), 101],
        title_text=f"Covered by {level:g} % intervals, %",
        row=1,
        col=1,
    )
    figure.update_xaxes(title_text=_axis("Mean of estimate − truth", unit), row=2, col=1)
    return figure


# -------------------------------------------------------------------------------------------- calibration


def calibration(
    histogram: pd.DataFrame, band: pd.DataFrame, shown: str, labels: Mapping[str, str], mode: Mode
) -> go.Figure:
    """Ranks of one parameter above, the departure of every parameter's ECDF from uniform below.

    Parameters
    ----------
    histogram : DataFrame
        From `rank_histogram`.
    band : DataFrame
        From `ecdf_band`.
    shown : str
        The parameter that stands out.
    labels : mapping of str to str
        Parameter → words.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    figure = _figure(mode, 520, (0.5, 0.5), 0.14)
    rows = histogram[histogram["parameter"] == shown]
    middle = (rows["bin_low"] + rows["bin_high"]) / 2
    outside = (rows["count"] < rows["low"]) | (rows["count"] > rows["high"])
    figure.add_shape(
        type="rect",
        x0=0,
        x1=1,
        y0=float(rows["low"].iloc[0]),
        y1=float(rows["high"].iloc[0]),
        fillcolor=_faded(c["raw"], 0.2),
        line={"width": 0},
        layer="below",
        row=1,
        col=1,
    )
    figure.add_bar(
        x=middle,
        y=rows["count"],
        width=(rows["bin_high"] - rows["bin_low"]) * 0.9,
        marker={"color": _faded(c["accent"], 0.25), "line": {"color": c["accent"], "width": 1}},
        hovertemplate="rank %{x:.3f}: %{y} data sets<extra></extra>",
        name="ranks",
        row=1,
        col=1,
    )
    if outside.any():
        figure.add_scatter(
            x=middle[outside],
            y=rows["count"][outside],
            mode="markers",
            marker={"symbol": "x-thin", "size": 8, "line": {"color": c["warn"], "width": 2}},
            hoverinfo="skip",
            name="outside",
            row=1,
            col=1,
        )
    one = band[band["parameter"] == shown]
    for side in ("low", "high"):
        figure.add_scatter(
            x=one["z"],
            y=100 * one[side],
            mode="lines",
            line={"width": 0},
            fill="tonexty" if side == "high" else None,
            fillcolor=_faded(c["raw"], 0.2),
            hoverinfo="skip",
            name="band",
            row=2,
            col=1,
        )
    for name in [*[n for n in band["parameter"].unique() if n != shown], shown]:
        part = band[band["parameter"] == name]
        out = bool(((part["difference"] < part["low"]) | (part["difference"] > part["high"])).any())
        colour = c["warn"] if out else c["accent"] if name == shown else _faded(c["ink-3"], 0.55)
        figure.add_scatter(
            x=part["z"],
            y=100 * part["difference"],
            mode="lines",
            line={"color": colour, "width": 2 if name == shown else 1, "dash": "dash" if out else "solid"},
            hovertemplate=f"<b>{labels.get(name, name)}</b><br>%{{x:.2f}}: %{{y:+.1f}} points<extra></extra>",
            name=name,
            row=2,
            col=1,
        )
    figure.update_yaxes(title_text="Data sets", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="ECDF − uniform, points", nticks=5, row=2, col=1)
    figure.update_xaxes(range=[0, 1], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "¼", "½", "¾", "1"])
    figure.update_xaxes(title_text="Posterior probability below the truth", row=2, col=1)
    figure.update_xaxes(showticklabels=True, row=1, col=1)
    return figure


def _faded(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"
