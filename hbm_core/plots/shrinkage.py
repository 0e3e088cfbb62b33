"""Pictures of shrinkage, each of a table of `hbm_core.analysis.shrinkage`.

Every picture of units carries the point selection `SELECTION` on its field ``unit``; ``turn`` lets a host
tell a new click on the same unit from an old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from hbm_core.models.dataset import Words
from hbm_core.plots import vega
from hbm_core.plots.theme import Digits, nice_domain, number, signed, themed
from hbm_core.plots.tokens import MARKS, MATH, Mode, colours, group_colours

SELECTION = "unit"
Figure = vega.Figure
Order = Literal["raw", "displacement", "se"]
#: Plots narrower than this, in pixels, drop what they can do without.
_NARROW = 520
#: Height of a row, and how far raw and pooled stand off its middle.
_ROW, _OFF = 26, 5
#: What lies under the rows: axis, numbers, title; and the line of headings over them, one row high.
_AXIS, _HEAD = 48, _ROW
_RAW_AREA, _POOLED_AREA = np.pi * MARKS["raw-radius"] ** 2, np.pi * MARKS["pooled-radius"] ** 2
_LONGEST_LABEL = 150


@dataclass(frozen=True)
class View:
    """How pictures of one data set look: words, digits, theme and who is selected.

    Parameters
    ----------
    words : Words
        Names and units of the data set.
    digits : Digits
        Decimals.
    mode : {"light", "dark"}
        Theme.
    selected : str, optional
        The unit that stands out.
    turn : int
        Raised by the host with every selection.
    truth : mapping of str to float
        True effect per unit, where simulated; outcome's units.
    """

    words: Words
    digits: Digits
    mode: Mode = "light"
    selected: str | None = None
    turn: int = 0
    truth: Mapping[str, float] = field(default_factory=dict)

    @property
    def colours(self) -> dict[str, str]:
        """Design tokens in this mode."""
        return colours(self.mode)


def choose(
    table: pd.DataFrame,
    order: Order = "raw",
    most: int | None = None,
    search: str = "",
    keep: str | None = None,
) -> pd.DataFrame:
    """Rows for a picture: the `most` that moved farthest, those that a search finds, one to keep; in order.

    Parameters
    ----------
    table : DataFrame
        A `shrinkage_table`, or another with a column ``unit`` and what `order` needs.
    order : {"raw", "displacement", "se"}
        Largest raw estimate, largest distance moved, or smallest standard error first.
    most : int, optional
        All where absent.
    search : str
        Part of a name, case ignored; at most `most` finds are added.
    keep : str, optional
        A unit that is always in.
    """
    distance = table["displacement"].abs()
    chosen = pd.Series(True, index=table.index)
    if most is not None and len(table) > most:
        chosen = pd.Series(False, index=table.index)
        chosen.loc[distance.sort_values(ascending=False, kind="stable").index[:most]] = True
        if search.strip():
            hits = table["unit"].str.contains(search.strip(), case=False, regex=False)
            chosen.loc[table.index[hits][:most]] = True
        chosen |= table["unit"] == keep
    by = {"raw": -table["raw"], "displacement": -distance, "se": table["se"]}[order]
    return table.loc[by[chosen].sort_values(kind="stable").index].reset_index(drop=True)


def effect_domain(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the effect axis, fixed by the data: the raw 95 % intervals, however many are shown.

    A few very imprecise units do not stretch it: it ends four typical standard errors beyond the estimates.
    """
    reach = 4 * float(table["se"].median())
    low = max(table["raw_low95"].min(), table["raw"].min() - reach)
    high = min(table["raw_high95"].max(), table["raw"].max() + reach)
    return nice_domain([low, high])


# ------------------------------------------------------------------------------------------ rows of units


@dataclass(frozen=True)
class _Figures:
    """A column of numbers to the right of the rows."""

    field: str
    heading: str
    colour: str
    bold: bool = False
    narrow: bool = False
    maths: bool = False


def _expr(text: str) -> vega.Options:
    return vega.expr(text)


def _wide(wide: float | str, narrow: float | str) -> vega.Options:
    return _expr(f"width < {_NARROW} ? {narrow} : {wide}")


def _down(count: int, head: float = 1.0) -> vega.Options:
    """Return the scale of rows that run down, `head` rows left for headings."""
    return dict(domain=[count - 0.5, -0.5 - head], nice=False, zero=False)


def _one(**values: Any) -> vega.Chart:
    """Return a chart of one row: for marks that belong to the picture, not to a unit."""
    return vega.Chart([values])


@dataclass(frozen=True)
class _Rows:
    """Units down: their places, labels, figures, the row that is lit and the row that is clicked."""

    rows: pd.DataFrame
    view: View
    figures: Sequence[_Figures]
    domain: tuple[float, float]
    title: str
    axis: Mapping[str, Any] = field(default_factory=dict)
    pitch: float = 50

    @property
    def left(self) -> float:
        longest = max(self.rows["unit"].str.len().max(), len(self.view.words.one))
        return float(min(_LONGEST_LABEL, 20 + 6.8 * longest))

    @property
    def left_narrow(self) -> float:
        return min(self.left, 78)

    @property
    def height(self) -> float:
        return _HEAD + _ROW * len(self.rows) + _AXIS

    @property
    def x_scale(self) -> vega.Options:
        wide, narrow = len(self.figures), sum(figure.narrow for figure in self.figures)
        return dict(
            domain=list(self.domain),
            nice=False,
            zero=False,
            range=[
                _wide(self.left, self.left_narrow),
                _wide(f"width - {self.pitch * wide + 12}", f"width - {44 * narrow + 12}"),
            ],
        )

    @property
    def y(self) -> vega.Options:
        return vega.channel("place:Q", scale=_down(len(self.rows)), axis=None)

    def x(self, name: str) -> vega.Options:
        axis = dict(title=self.title, tickCount=_wide(7, 4), grid=True, labelFlush=False, **self.axis)
        return vega.channel(f"{name}:Q", scale=self.x_scale, axis=axis)

    @property
    def base(self) -> vega.Chart:
        return vega.Chart()

    def under(self) -> list[vega.Chart]:
        """Light in the chosen row; it lies under everything."""
        c = self.view.colours
        return [
            self.base.mark_rect(x=0, x2="width", color=c["wash"], height=_ROW, yOffset=0, cornerRadius=3)
            .encode(y=self.y, opacity=vega.condition("datum.chosen", 1, 0))
            .properties(name="lit")
        ]

    def over(self, tooltip: Sequence[vega.Options]) -> list[vega.Chart]:
        """Labels, figures and the surface that is clicked."""
        c = self.view.colours
        bold = _expr("datum.chosen ? 700 : 400")
        layers = [
            self.base.mark_text(
                x=8,
                align="left",
                limit=_wide(self.left - 14, self.left_narrow - 10),
                color=c["ink"],
                fontWeight=bold,
            ).encode(y=self.y, text="unit:N")
        ]
        heads: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            (self.view.words.one.capitalize(), {"x": 8, "align": "left"}, {})
        ]
        place_narrow = sum(figure.narrow for figure in self.figures)
        for place, figure in enumerate(self.figures):
            right = self.pitch * (len(self.figures) - 1 - place) + 6
            if figure.narrow:
                place_narrow -= 1
            at = _wide(f"width - {right}", f"width - {44 * place_narrow + 4}")
            seen = _wide(1, int(figure.narrow))
            layers.append(
                self.base.mark_text(
                    x=at,
                    align="right",
                    color=c[figure.colour],
                    opacity=seen,
                    fontWeight=700 if figure.bold else bold,
                ).encode(y=self.y, text=f"{figure.field}:N")
            )
            style = {"font": MATH, "fontStyle": "italic", "fontSize": 14} if figure.maths else {}
            heads.append((figure.heading, {"x": at, "align": "right", "opacity": seen}, style))
        for text, where, style in heads:
            look: dict[str, Any] = {"fontSize": 11.5, **where, **style}
            layers.append(_one().mark_text(text=text, y=9, color=c["ink-3"], **look))
        picked = vega.selection_point(
            name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
        )
        surface = (
            self.base.mark_rect(x=0, x2="width", height=_ROW, opacity=0, cursor="pointer")
            .encode(y=self.y, tooltip=list(tooltip))
            .add_params(picked)
        )
        return [*layers, surface]

    def header_cover(self) -> vega.Chart:
        """Paper over the grid above the first row."""
        return _one().mark_rect(x=0, x2="width", y=0, y2=_HEAD - 4, color=self.view.colours["paper"])


def _placed(rows: pd.DataFrame, view: View, group: str | None = None) -> pd.DataFrame:
    """Places, marks of the selection and colours, beside what the table holds."""
    c = view.colours
    out = rows.assign(
        place=np.arange(len(rows), dtype=float),
        chosen=rows["unit"] == view.selected,
        turn=view.turn,
        colour=c["accent"],
    )
    if group is not None:
        out["colour"] = rows[group].map(group_palette(rows[group], view.mode))
    if view.truth:
        out["truth"] = rows["unit"].map(view.truth)
    return out


def group_palette(groups: pd.Series, mode: Mode) -> dict[Any, str]:
    """Colour per group, in the groups' alphabetical order."""
    names = sorted(groups.unique(), key=str)
    return dict(zip(names, group_colours(len(names), mode), strict=True))


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _interval(low: float, high: float, decimals: int) -> str:
    return f"{number(low, decimals)} to {number(high, decimals)}"


def _texts(rows: pd.DataFrame, view: View) -> pd.DataFrame:
    """Numbers of a `shrinkage_table` as they are read, for figures and tooltips."""
    raw, estimate = view.digits.raw, view.digits.estimate
    rank = rows["rank_change"].to_numpy()
    return rows.assign(
        raw_text=[number(v, raw) for v in rows["raw"]],
        pooled_text=[number(v, estimate) for v in rows["pooled"]],
        moved_text=[signed(v, estimate) for v in rows["displacement"]],
        se_text=[number(v, raw) for v in rows["se"]],
        raw_95=[
            _interval(a, b, estimate) for a, b in zip(rows["raw_low95"], rows["raw_high95"], strict=True)
        ],
        pooled_95=[_interval(a, b, estimate) for a, b in zip(rows["low95"], rows["high95"], strict=True)],
        rank_text=[f"↑{v:g}" if v > 0 else f"↓{-v:g}" if v < 0 else "" for v in rank],
    )


def _tips(view: View, *more: tuple[str, str]) -> list[vega.Options]:
    fields = [
        ("unit", view.words.one.capitalize()),
        ("raw_text", "On its own"),
        ("raw_95", "its 95 % interval"),
        ("pooled_text", "Partially pooled"),
        ("pooled_95", "its 95 % interval, pooled"),
        ("moved_text", "Moved by"),
        ("se_text", "Standard error"),
        *more,
    ]
    return [vega.channel(f"{name}:N", title=title) for name, title in fields]


def forest(
    rows: pd.DataFrame,
    view: View,
    domain: tuple[float, float],
    group: str | None = None,
    size: str | None = None,
) -> Figure:
    """Raw → pooled, units down: intervals, arrows, pooled mean, truth, rank changes.

    Parameters
    ----------
    rows : DataFrame
        A `shrinkage_table` in the order to draw (see `choose`); with a column ``pooling`` its figures show B.
    view : View
        Words, theme, selection.
    domain : (float, float)
        Ends of the effect axis, outcome's units (see `effect_domain`).
    group, size : str, optional
        Columns that colour the pooled marks, and scale their area.
    """
    c = view.colours
    rows = _texts(_placed(rows, view, group), view)
    # Nothing runs over the names beside the axis.
    for ends in ("raw_low95", "raw_high95", "low95", "high95", "low50", "high50"):
        rows[f"shown_{ends}"] = rows[ends].clip(*domain)
    rows["area"] = _POOLED_AREA
    if size is not None:
        share = rows[size] / rows[size].max()
        rows["area"] = _POOLED_AREA * np.clip(2.2 * share, 0.35, None)
    figures = [
        _Figures("raw_text", "own", "ink-2", narrow=True),
        _Figures("pooled_text", "pooled", "accent" if group is None else "ink", bold=True, narrow=True),
    ]
    # where all are tied, as under complete pooling, there is no order to change
    if np.ptp(rows["pooled"]) > 1e-9 * float(rows["se"].median()) and rows["rank_text"].any():
        figures.append(_Figures("rank_text", "rank", "ink-2"))
    if "pooling" in rows and rows["pooling"].notna().any():
        rows["pooling_text"] = [number(v, 2) for v in rows["pooling"]]
        figures.insert(2, _Figures("pooling_text", "B", "ink-2", maths=True))
    kit = _Rows(rows, view, figures, domain, view.words.axis)
    hue = vega.channel("colour:N", scale=None)
    base, y = kit.base, kit.y
    dx = "(scale('x', datum.pooled) - scale('x', datum.raw))"
    away = f"sqrt({dx} * {dx} + {4 * _OFF * _OFF})"
    start, end = MARKS["raw-radius"] + 1.2, MARKS["pooled-radius"] + 1.5
    seen = _expr(
        f"abs({dx}) < {MARKS['least-arrow']} || datum.raw < {domain[0]} || datum.raw > {domain[1]} ? 0 : 1"
    )
    ink = _expr(f"datum.chosen ? '{c['ink']}' : '{c['raw']}'")
    layers: list[vega.Chart] = [*kit.under(), kit.header_cover()]
    if domain[0] < 0 < domain[1]:
        layers.append(
            _one(zero=0)
            .mark_rule(y=_HEAD - 4, y2="height", color=c["rule"], strokeWidth=1)
            .encode(x=kit.x("zero"))
        )
    layers += _mean(kit, rows, view)
    layers += [
        base.mark_rule(color=c["raw-line"], strokeWidth=1, yOffset=-_OFF, clip=False).encode(
            x=kit.x("shown_raw_low95"), x2="shown_raw_high95:Q", y=y
        ),
        base.mark_rule(strokeWidth=MARKS["interval-95"], yOffset=_OFF).encode(
            x=kit.x("shown_low95"), x2="shown_high95:Q", y=y, color=hue
        ),
        base.mark_rule(strokeWidth=MARKS["interval-50"], yOffset=_OFF).encode(
            x=kit.x("shown_low50"), x2="shown_high50:Q", y=y, color=hue
        ),
        base.mark_rule(
            color=ink,
            opacity=seen,
            strokeWidth=_expr("datum.chosen ? 1.75 : 1"),
            xOffset=_expr(f"{start} * {dx} / {away}"),
            x2Offset=_expr(f"-{end + 3} * {dx} / {away}"),
            yOffset=_expr(f"-{_OFF} + {start} * {2 * _OFF} / {away}"),
            y2Offset=_expr(f"{_OFF} - {end + 3} * {2 * _OFF} / {away}"),
        ).encode(x=kit.x("raw"), x2="pooled:Q", y=y, y2="place:Q"),
        base.mark_point(
            shape="M0,0L-2.2,-1L-2.2,1Z",
            size=40,
            filled=True,
            color=ink,
            opacity=seen,
            angle=_expr(f"atan2({2 * _OFF}, {dx}) * 180 / PI"),
            xOffset=_expr(f"-{end - 1} * {dx} / {away}"),
            yOffset=_expr(f"{_OFF} - {end - 1} * {2 * _OFF} / {away}"),
        ).encode(x=kit.x("pooled"), y=y),
        base.mark_point(
            shape="circle",
            filled=True,
            fill=c["paper"],
            stroke=c["raw"],
            strokeWidth=MARKS["raw-stroke"],
            size=_RAW_AREA,
            opacity=1,
            yOffset=-_OFF,
        ).encode(x=kit.x("raw"), y=y),
        base.mark_circle(stroke=c["paper"], strokeWidth=1.5, opacity=1, yOffset=_OFF).encode(
            x=kit.x("pooled"), y=y, color=hue, size=vega.channel("area:Q", scale=None)
        ),
    ]
    tips = _tips(view)
    if "truth" in rows:
        layers.append(
            _diamonds(base.transform_filter("isValid(datum.truth)"), view).encode(x=kit.x("truth"), y=y)
        )
        rows["truth_text"] = [number(v, view.digits.estimate) for v in rows["truth"]]
        tips.append(vega.channel("truth_text:N", title="Truth"))
    layers += kit.over(tips)
    chart = vega.layer(*layers, data=rows, height=kit.height, width="container")
    return themed(chart, view.mode)


def _diamonds(base: vega.Chart, view: View, size: float = 62) -> vega.Chart:
    return base.mark_point(
        shape="diamond",
        filled=True,
        size=size,
        fill=view.colours["truth"],
        stroke=view.colours["paper"],
        strokeWidth=1 if size > 30 else 0.25,
        opacity=1,
    )


def _mean(kit: _Rows, rows: pd.DataFrame, view: View) -> list[vega.Chart]:
    """Where the units are pulled to: one dashed line, or a dashed piece in every row that has its own."""
    c = view.colours
    toward = rows["toward"].to_numpy()
    if not np.isfinite(toward).all():
        return []
    look: dict[str, Any] = {"color": c["ink"], "strokeWidth": 1.5, "strokeDash": [4, 3]}
    if np.ptp(toward) > 1e-9 * float(rows["se"].median()):
        half = _ROW / 2 - 1
        return [
            kit.base.mark_rule(**look, yOffset=-half, y2Offset=half).encode(
                x=kit.x("toward"), y=kit.y, y2="place:Q"
            )
        ]
    mean = _one(toward=float(toward[0]))
    words = f"pooled mean {number(float(toward[0]), view.digits.estimate)}"
    return [
        mean.mark_rule(y=_HEAD - 8, y2="height", **look).encode(x=kit.x("toward")),
        mean.mark_text(text=words, y=9, color=c["ink-2"], fontSize=11.5).encode(x=kit.x("toward")),
    ]


# -------------------------------------------------------------------------------------------- scatter


def scatter(rows: pd.DataFrame, view: View, group: str | None = None, labelled: int = 30) -> Figure:
    """Raw against pooled: hollow circles on y = x, where nobody moves, and arrows down to the pooled.

    Parameters
    ----------
    rows : DataFrame
        A `shrinkage_table`.
    view : View
        Words, theme, selection.
    group : str, optional
        Column that colours the pooled marks.
    labelled : int
        Units are named where there are at most this many; the selected one always is.
    """
    c = view.colours
    rows = _texts(_placed(rows, view, group), view)
    few = len(rows) <= labelled and rows["unit"].str.len().max() <= 6
    named = rows["chosen"] | few
    rows["label"] = rows["unit"].map(lambda name: _short(name, 22)).where(named, "")
    crowd = len(rows) > 60
    small = 0.3 if crowd else 1.0
    x_ends = nice_domain(rows["raw"].to_numpy())
    y_ends = nice_domain([*rows["raw"], *rows["pooled"]])
    x = vega.channel(
        "raw:Q",
        scale=dict(domain=list(x_ends), nice=False, zero=False, padding=12),
        title=f"On its own: {view.words.axis[0].lower()}{view.words.axis[1:]}",
        axis=dict(grid=False, tickCount=_wide(8, 4)),
    )
    y_scale = dict(domain=list(y_ends), nice=False, zero=False)
    y = vega.channel(
        "pooled:Q",
        scale=y_scale,
        title=f"Partially pooled{', ' + view.words.unit if view.words.unit else ''}",
        axis=dict(grid=True, tickCount=6, domain=False, ticks=False),
    )
    hue = vega.channel("colour:N", scale=None)
    base = vega.Chart()
    dy = "(scale('y', datum.pooled) - scale('y', datum.raw))"
    side = f"({dy} > 0 ? 1 : -1)"
    seen = _expr(f"abs({dy}) < {MARKS['least-arrow']} ? 0 : datum.chosen ? 1 : {0.35 if crowd else 1}")
    ink = _expr(f"datum.chosen ? '{c['ink']}' : '{c['raw-line']}'")
    start, end = MARKS["raw-radius"] + 1, MARKS["pooled-radius"] + 1.5
    low, high = max(x_ends[0], y_ends[0]), min(x_ends[1], y_ends[1])
    diagonal = vega.Chart([{"a": low, "b": high}])
    layers: list[vega.Chart] = [
        diagonal.mark_rule(color=c["raw-line"], strokeWidth=1.25).encode(
            x=vega.channel("a:Q"), x2="b:Q", y=vega.channel("a:Q", scale=y_scale), y2="b:Q"
        ),
    ]
    toward = rows["toward"].to_numpy()
    if np.isfinite(toward).all() and np.ptp(toward) <= 1e-9 * float(rows["se"].median()):
        mean = _one(toward=float(toward[0]))
        words = f"pooled mean {number(float(toward[0]), view.digits.estimate)}"
        layers += [
            mean.mark_rule(color=c["ink"], strokeWidth=1.5, strokeDash=[4, 3]).encode(y="toward:Q"),
            mean.mark_text(text=words, x=4, dy=-9, align="left", color=c["ink-2"], fontSize=11.5).encode(
                y="toward:Q"
            ),
        ]
    layers += [
        base.mark_rule(
            color=ink,
            opacity=seen,
            strokeWidth=_expr("datum.chosen ? 1.75 : 1"),
            yOffset=_expr(f"{start} * {side}"),
            y2Offset=_expr(f"-{end + 4} * {side}"),
        ).encode(x=x, y=vega.channel("raw:Q", scale=y_scale), y2="pooled:Q"),
        base.mark_point(
            shape="M0,0L-2.2,-1L-2.2,1Z",
            size=40,
            filled=True,
            color=ink,
            opacity=_expr("datum.chosen ? 1 : 0") if crowd else seen,
            angle=_expr(f"90 * {side}"),
            yOffset=_expr(f"-{end - 1} * {side}"),
        ).encode(x=x, y=y),
        base.mark_point(
            shape="circle",
            filled=True,
            fill=c["paper"],
            stroke=c["raw"],
            strokeWidth=MARKS["raw-stroke"],
            size=_expr(f"datum.chosen ? {_RAW_AREA} : {small * _RAW_AREA}"),
            opacity=1,
        ).encode(x=x, y=vega.channel("raw:Q", scale=y_scale)),
        *_truths(x, y_scale, rows, view, 18 if crowd else 62),
        base.mark_circle(
            stroke=_expr(f"datum.chosen ? '{c['ink']}' : '{c['paper']}'"),
            strokeWidth=_expr(f"datum.chosen ? 2 : {0.5 if crowd else 1.5}"),
            size=_expr(f"datum.chosen ? {1.3 * _POOLED_AREA} : {small * _POOLED_AREA}"),
            opacity=1,
        ).encode(x=x, y=y, color=hue),
    ]
    # names stand beside the hollow circles, which the data keep apart; the pooled ones lie close together
    upper = f"datum.raw > {float(rows['raw'].median())}"
    layers += [
        base.transform_filter(upper if up else f"!({upper})")
        .mark_text(
            align="right" if up else "left",
            dx=-8 if up else 8,
            dy=-7 if up else 8,
            color=c["ink"],
            fontWeight=_expr("datum.chosen ? 700 : 400"),
        )
        .encode(x=x, y=vega.channel("raw:Q", scale=y_scale), text="label:N")
        for up in (True, False)
    ]
    picked = vega.selection_point(
        name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
    )
    surface = (
        base.mark_circle(opacity=0, size=500, cursor="pointer")
        .encode(x=x, y=y, tooltip=_tips(view))
        .add_params(picked)
    )
    return themed(vega.layer(*layers, surface, data=rows, height=440, width="container"), view.mode)


def _truths(
    x: vega.Options, y_scale: vega.Options, rows: pd.DataFrame, view: View, size: float
) -> list[vega.Chart]:
    if "truth" not in rows:
        return []
    known = vega.Chart().transform_filter("isValid(datum.truth)")
    return [_diamonds(known, view, size).encode(x=x, y=vega.channel("truth:Q", scale=y_scale))]


# -------------------------------------------------------------------------------------------- ranks


def ranks(rows: pd.DataFrame, crossings: pd.DataFrame, view: View) -> Figure:
    """Order before and after pooling: lines that cross are pairs whose order shrinkage reversed.

    Parameters
    ----------
    rows : DataFrame
        A `shrinkage_table`, raw order first.
    crossings : DataFrame
        `rank_crossings` of the same rows.
    view : View
        Words, theme, selection.
    """
    c = view.colours
    rows = rows.sort_values("raw", ascending=False, kind="stable").reset_index(drop=True)
    rows = _texts(_placed(rows, view), view)
    # ties keep the raw order, so that only true reversals cross
    after = rows["pooled"].round(12).rank(ascending=False, method="first") - 1
    rows["after"] = after.to_numpy()
    crossed = set(crossings["unit_a"]) | set(crossings["unit_b"])
    rows["crosses"] = rows["unit"].isin(crossed)
    place = dict(zip(rows["unit"], rows["place"], strict=True))
    end = dict(zip(rows["unit"], rows["after"], strict=True))
    meetings = []
    for a, b in zip(crossings["unit_a"], crossings["unit_b"], strict=True):
        gap, later = place[a] - place[b], end[a] - end[b]
        share = gap / (gap - later)
        meetings.append(
            {"t": share, "at": place[a] + share * (end[a] - place[a]), "pair": f"{a} and {b} change order"}
        )
    value = 24.0 + 6.8 * max(len(text) for text in (*rows["raw_text"], *rows["pooled_text"]))
    side = value + float(min(_LONGEST_LABEL, max(40.0, 6.8 * rows["unit"].str.len().max())))
    narrow = min(side, value + 62)
    x_scale = dict(
        domain=[0, 1],
        nice=False,
        range=[_wide(side, narrow), _wide(f"width - {side}", f"width - {narrow}")],
    )
    y_scale = _down(len(rows))

    def x(name: str) -> vega.Options:
        return vega.channel(f"{name}:Q", scale=x_scale, axis=None)

    def y(name: str) -> vega.Options:
        return vega.channel(f"{name}:Q", scale=y_scale, axis=None)

    rows["zero"], rows["one"] = 0, 1
    base = vega.Chart()
    bold = _expr("datum.chosen ? 700 : 400")
    limit = _wide(side - value - 2, narrow - value - 2)
    line = base.mark_rule(
        color=_expr(f"datum.crosses ? '{c['accent']}' : datum.chosen ? '{c['ink']}' : '{c['raw-line']}'"),
        strokeWidth=_expr("datum.chosen ? 3.5 : datum.crosses ? 1.75 : 1"),
    ).encode(x=x("zero"), x2="one:Q", y=y("place"), y2="after:Q")
    layers: list[vega.Chart] = [
        line,
        vega.Chart(meetings)
        .mark_circle(color=c["ink"], size=34, opacity=1, stroke=c["paper"], strokeWidth=1)
        .encode(x=x("t"), y=y("at"), tooltip=[vega.channel("pair:N", title="Crossing")]),
        base.mark_point(
            shape="circle",
            filled=True,
            fill=c["paper"],
            stroke=c["raw"],
            strokeWidth=MARKS["raw-stroke"],
            size=_RAW_AREA,
            opacity=1,
        ).encode(x=x("zero"), y=y("place")),
        base.mark_circle(
            color=c["accent"], stroke=c["paper"], strokeWidth=1.5, size=_POOLED_AREA, opacity=1
        ).encode(x=x("one"), y=y("after")),
        base.mark_text(align="right", dx=-12, color=c["ink-2"], fontWeight=bold).encode(
            x=x("zero"), y=y("place"), text="raw_text:N"
        ),
        base.mark_text(align="right", dx=-value, color=c["ink"], fontWeight=bold, limit=limit).encode(
            x=x("zero"), y=y("place"), text="unit:N"
        ),
        base.mark_text(align="left", dx=12, color=c["accent"], fontWeight=700).encode(
            x=x("one"), y=y("after"), text="pooled_text:N"
        ),
        base.mark_text(align="left", dx=value, color=c["ink"], fontWeight=bold, limit=limit).encode(
            x=x("one"), y=y("after"), text="unit:N"
        ),
        _one(zero=0)
        .mark_text(text="on its own", align="right", dx=-12, y=9, color=c["ink-3"], fontSize=11.5)
        .encode(x=x("zero")),
        _one(one=1)
        .mark_text(text="partially pooled", align="left", dx=12, y=9, color=c["ink-3"], fontSize=11.5)
        .encode(x=x("one")),
    ]
    picked = vega.selection_point(
        name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
    )
    tips = _tips(view, ("rank_raw", "Rank on its own"), ("rank_pooled", "Rank pooled"))
    touch = base.mark_rule(opacity=0, strokeWidth=14, cursor="pointer").encode(
        x=x("zero"), x2="one:Q", y=y("place"), y2="after:Q", tooltip=tips
    )
    left = base.mark_rect(opacity=0, x=0, x2=_wide(side, narrow), height=_ROW, cursor="pointer").encode(
        y=y("place"), tooltip=tips
    )
    right = base.mark_rect(
        opacity=0, x=_wide(f"width - {side}", f"width - {narrow}"), x2="width", height=_ROW, cursor="pointer"
    ).encode(y=y("after"), tooltip=tips)
    height = _HEAD + _ROW * len(rows)
    surfaces = (touch, left, right.add_params(picked))
    chart = vega.layer(*layers, *surfaces, data=rows, height=height, width="container")
    return themed(chart, view.mode)


# -------------------------------------------------------------------------------------------- weights

_SHARES = (("weight_own", "own"), ("weight_others", "others"), ("weight_prior", "prior"))


def weights(rows: pd.DataFrame, view: View) -> Figure:
    """Where each estimate comes from: own data grey, the other units ink, the prior an outline.

    Parameters
    ----------
    rows : DataFrame
        A `pooling_ledger` in the order to draw, weights that sum to 1.
    view : View
        Words, theme, selection.
    """
    c = view.colours
    rows = _placed(rows, view)
    # a moderator can give a weight a negative sign: bars then start left of zero, and still sum to 1
    low = np.minimum(rows[[name for name, _ in _SHARES]].to_numpy(), 0).sum(axis=1)
    start = low.copy()
    for name, short in _SHARES:
        share = rows[name].to_numpy()
        rows[f"{short}_start"], rows[f"{short}_end"] = start, start + np.abs(share)
        rows[f"{short}_text"] = [f"{number(100 * v, 0)} %" for v in share]
        start = start + np.abs(share)
    figures = [
        _Figures("own_text", "own", "ink-2", narrow=True),
        _Figures("others_text", "others", "ink", narrow=True),
        _Figures("prior_text", "prior", "ink-2"),
    ]
    domain = (min(0.0, float(low.min())), max(1.0, float(start.max())))
    percent = {"labelExpr": "replace(format(100 * datum.value, '.0f'), '-', '\u2212') + ' %'"}
    kit = _Rows(rows, view, figures, domain, "Weight in the estimate", percent)
    base, y = kit.base, kit.y
    half = 6
    look: dict[str, dict[str, Any]] = {
        "own": {"color": c["raw"]},
        "others": {"color": c["ink"]},
        "prior": {"fill": c["paper"], "stroke": c["ink"], "strokeWidth": 1},
    }
    layers: list[vega.Chart] = [*kit.under(), kit.header_cover()]
    for _, short in _SHARES:
        layers.append(
            base.mark_rect(yOffset=-half, y2Offset=half, xOffset=0.5, x2Offset=-0.5, **look[short]).encode(
                x=kit.x(f"{short}_start"),
                x2=f"{short}_end:Q",
                y=y,
                y2="place:Q",
            )
        )
    tips = [
        vega.channel(f"{name}:N", title=title)
        for name, title in (
            ("unit", view.words.one.capitalize()),
            ("own_text", "Own data"),
            ("others_text", f"Other {view.words.many}"),
            ("prior_text", "Prior"),
        )
    ]
    return themed(
        vega.layer(*layers, *kit.over(tips), data=rows, height=kit.height, width="container"), view.mode
    )


# -------------------------------------------------------------------------------------------- law


def against_se(rows: pd.DataFrame, view: View, name: Literal["pooling", "distance"]) -> Figure:
    """One column of the ledger against the standard error, selected unit named.

    Parameters
    ----------
    rows : DataFrame
        A `pooling_ledger` with the column ``se``.
    view : View
        Words, theme, selection.
    name : {"pooling", "distance"}
        E[B], which rises with the standard error by law, joined by a line; or the distance moved, which
        follows no such law.
    """
    c = view.colours
    rows = _placed(rows, view).sort_values("se", kind="stable")
    rows["distance"] = rows["displacement"].abs()
    unit = f", {view.words.unit}" if view.words.unit else ""
    title = "Pooling factor E[B]" if name == "pooling" else f"Distance moved{unit}"
    ends = (0.0, 1.0) if name == "pooling" else (0.0, nice_domain([0, rows["distance"].max()], 4)[1])
    x = vega.channel(
        "se:Q",
        title=f"Standard error{unit}",
        scale=dict(domain=list(nice_domain(rows["se"].to_numpy(), 4)), nice=False, zero=False, padding=8),
        axis=dict(grid=False, tickCount=5),
    )
    y = vega.channel(
        f"{name}:Q",
        title=title,
        scale=dict(domain=list(ends), nice=False),
        axis=dict(grid=True, tickCount=5, domain=False, ticks=False),
    )
    base = vega.Chart()
    layers: list[vega.Chart] = []
    if name == "pooling":
        layers.append(base.mark_line(color=c["raw-line"], strokeWidth=1.25).encode(x=x, y=y, order="se:Q"))
        if rows["pooling_low95"].notna().all():
            layers.append(
                base.mark_rule(color=c["accent"], strokeWidth=MARKS["interval-95"], opacity=0.75).encode(
                    x=x, y=vega.channel("pooling_low95:Q"), y2="pooling_high95:Q"
                )
            )
    layers.append(
        base.mark_circle(
            color=c["accent"],
            size=_expr(f"datum.chosen ? {1.6 * _POOLED_AREA} : {_POOLED_AREA}"),
            stroke=_expr(f"datum.chosen ? '{c['ink']}' : '{c['paper']}'"),
            strokeWidth=_expr("datum.chosen ? 2 : 1"),
            opacity=1,
        ).encode(x=x, y=y)
    )
    names = _named(rows, name, ends)
    below = "pooling_low95" in names
    # a name points inwards, so that a long one stays in the picture
    right = float(np.mean(nice_domain(rows["se"].to_numpy(), 4)))
    place: dict[str, Any] = {
        "dy": 12 if below else -9,
        "dx": _expr(f"datum.se > {right} ? {2 if below else -8} : {-2 if below else 8}"),
        "align": _expr(f"datum.se > {right} ? 'right' : 'left'"),
    }
    layers.append(
        vega.Chart(names)
        .mark_text(color=c["ink"], fontWeight=_expr("datum.chosen ? 700 : 400"), **place)
        .encode(x=x, y=vega.channel("pooling_low95:Q") if below else y, text="label:N")
    )
    picked = vega.selection_point(
        name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
    )
    rows["se_text"] = [number(v, view.digits.raw) for v in rows["se"]]
    decimals = 2 if name == "pooling" else view.digits.estimate
    rows["value_text"] = [number(v, decimals) for v in rows[name]]
    tips = [
        vega.channel("unit:N", title=view.words.one.capitalize()),
        vega.channel("se_text:N", title="Standard error"),
        vega.channel("value_text:N", title=title),
    ]
    layers.append(
        base.mark_circle(opacity=0, size=420, cursor="pointer")
        .encode(x=x, y=y, tooltip=tips)
        .add_params(picked)
    )
    return themed(vega.layer(*layers, data=rows, height=230, width="container"), view.mode)


def _named(rows: pd.DataFrame, name: str, ends: tuple[float, float]) -> pd.DataFrame:
    """Names of at most twelve points and of the selected one; points on one another share a label."""
    few = len(rows) <= 12 and rows["unit"].str.len().max() <= 6
    named = rows[rows["chosen"] | few]
    cell = [named["se"].round(9), (named[name] / (0.06 * (ends[1] - ends[0]))).round()]
    grouped = named.groupby(cell, sort=False)
    held = ["se", name]
    if name == "pooling" and rows["pooling_low95"].notna().all():
        held.append("pooling_low95")
    found = grouped[held].mean()
    found["label"] = grouped["unit"].agg(lambda units: ", ".join(_short(unit, 18) for unit in units))
    found["chosen"] = grouped["chosen"].any()
    return found.reset_index(drop=True)


# -------------------------------------------------------------------------------------------- borrowing

_REST = "all others"


def lenders(matrix: pd.DataFrame, units: Sequence[str]) -> pd.DataFrame:
    """A `borrowing_matrix` in long form, for some units; what the others lend is one column.

    Returns
    -------
    DataFrame
        Columns unit (who borrows), lender, weight; per unit the weights sum to 1. Lenders are `units`, then
        ``all others`` where there are any, then ``prior``.
    """
    chosen = list(units)
    square = matrix.loc[chosen]
    wide = square[chosen].copy()
    if len(chosen) < len(matrix):
        wide[_REST] = square.drop(columns=[*chosen, "prior"]).sum(axis=1)
    wide["prior"] = square["prior"]
    wide.columns.name = "lender"
    return wide.rename_axis("unit").reset_index().melt("unit", var_name="lender", value_name="weight")


def borrowing(cells: pd.DataFrame, view: View) -> Figure:
    """Who lends to whom: a row per unit, a column per lender, the darker the larger the weight.

    Parameters
    ----------
    cells : DataFrame
        `lenders` of a `borrowing_matrix`, in the order to draw.
    view : View
        Words, theme, selection.
    """
    c = view.colours
    units = list(dict.fromkeys(cells["unit"]))
    columns = list(dict.fromkeys(cells["lender"]))
    row, column = ({name: place for place, name in enumerate(names)} for names in (units, columns))
    # weights below zero (a moderator's doing) are drawn by their size and read in the tooltip
    boxed = cells["lender"].isin([_REST, "prior"])
    size = cells["weight"].abs()
    top = max(float(size[~boxed].max()), 1e-9)
    decimals = 0 if top >= 0.05 else 1
    cells = cells.assign(
        row=cells["unit"].map(row).astype(float),
        column=[column[name] + (0.35 if name in (_REST, "prior") else 0.0) for name in cells["lender"]],
        own=cells["unit"] == cells["lender"],
        boxed=boxed,
        shade=(size / top).clip(0, 1),
        chosen=cells["unit"] == view.selected,
        turn=view.turn,
        text=[number(100 * v, 0 if box else decimals) for v, box in zip(cells["weight"], boxed, strict=True)],
        exact=[f"{number(100 * v, 1)} %" for v in cells["weight"]],
    )
    fill = [c["raw"] if own else c["ink"] for own in cells["own"]]
    cells["fill"] = [
        c["paper"] if box else _blend(colour, c["paper"], 0.05 + 0.9 * shade)
        for box, colour, shade in zip(boxed, fill, cells["shade"], strict=True)
    ]
    # on a middle grey only pure black or pure white reaches 4.5 : 1
    cells["pen"] = [
        max(("#000000", "#ffffff"), key=lambda pen: _contrast(pen, colour)) for colour in cells["fill"]
    ]
    last = max(cells["column"]) + 0.5
    left = float(min(_LONGEST_LABEL, 20 + 6.8 * max(map(len, units))))
    narrow = min(left, 66.0)
    x_scale = dict(
        domain=[-0.5, last], nice=False, zero=False, range=[_wide(left, narrow), _expr("width - 2")]
    )
    deep = 30 if len(units) <= 16 else 22
    head = 30 if len(units) <= 12 and max(map(len, units)) <= 6 else 92
    y_scale = dict(domain=[-0.5, len(units) - 0.5], range=[head, _expr("height")], nice=False, zero=False)
    x = vega.channel("column:Q", scale=x_scale, axis=None)
    y = vega.channel("row:Q", scale=y_scale, axis=None)
    cell = "((scale('x', 1) - scale('x', 0)) / 2 - 1)"
    base = vega.Chart()
    box: dict[str, Any] = {
        "xOffset": _expr(f"-{cell}"),
        "x2Offset": _expr(cell),
        "yOffset": -(deep / 2 - 1.5),
        "y2Offset": deep / 2 - 1.5,
    }
    frame = vega.Chart(
        pd.DataFrame(
            {
                "unit": units,
                "row": np.arange(len(units), dtype=float),
                "chosen": [name == view.selected for name in units],
                "turn": view.turn,
            }
        )
    )
    heads = pd.DataFrame(
        {
            "lender": columns,
            "column": [column[name] + (0.35 if name in (_REST, "prior") else 0.0) for name in columns],
        }
    )
    tilt: dict[str, Any] = (
        {"align": "center", "baseline": "bottom"}
        if head == 30
        else {"angle": 270, "align": "left", "limit": 80}
    )
    layers: list[vega.Chart] = [
        frame.mark_rect(
            x=0, x2=_wide(left - 6, narrow - 4), height=deep - 2, color=c["wash"], cornerRadius=3
        ).encode(y=y, opacity=vega.condition("datum.chosen", 1, 0)),
        base.mark_rect(
            fill=_expr("datum.fill"),
            stroke=_expr(f"datum.boxed ? '{c['ink-3']}' : null"),
            strokeWidth=1,
            **box,
        ).encode(x=x, x2="column:Q", y=y, y2="row:Q"),
        vega.Chart(heads)
        .mark_text(y=head - 8, color=c["ink-2"], fontSize=11.5, **tilt)
        .encode(x=x, text="lender:N"),
        frame.mark_text(
            x=8,
            align="left",
            limit=_wide(left - 14, narrow - 10),
            color=c["ink"],
            fontWeight=_expr("datum.chosen ? 700 : 400"),
        ).encode(y=y, text="unit:N"),
    ]
    if len(columns) <= 26:
        layers.append(
            base.mark_text(
                fontSize=11.5,
                color=_expr("datum.pen"),
                opacity=_expr(f"{cell} * 2 < {17 + 6 * decimals} ? 0 : 1"),
            ).encode(x=x, y=y, text="text:N")
        )
    picked = vega.selection_point(
        name=SELECTION, fields=["unit", "turn"], on="click", toggle=False, clear=False
    )
    tips = [
        vega.channel("unit:N", title="Estimate of"),
        vega.channel("lender:N", title="takes from"),
        vega.channel("exact:N", title="weight"),
    ]
    layers += [
        frame.mark_rect(x=0, x2=_wide(left, narrow), height=deep, opacity=0, cursor="pointer").encode(y=y),
        base.mark_rect(opacity=0, cursor="pointer", **box)
        .encode(x=x, x2="column:Q", y=y, y2="row:Q", tooltip=tips)
        .add_params(picked),
    ]
    return themed(
        vega.layer(*layers, data=cells, height=head + deep * len(units), width="container"), view.mode
    )


def _channels(colour: str) -> np.ndarray:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255


def _blend(over: str, under: str, share: float) -> str:
    mixed = share * _channels(over) + (1 - share) * _channels(under)
    return "#" + "".join(f"{round(255 * v):02x}" for v in mixed)


def _contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        v = _channels(colour)
        return float(
            np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


# -------------------------------------------------------------------------------------------- close-ups


def closeup(rows: pd.DataFrame, view: View, domain: tuple[float, float], mean: float | None = None) -> Figure:
    """One unit under no, partial and complete pooling, with the truth where it is known.

    Parameters
    ----------
    rows : DataFrame
        `three_poolings` of one unit.
    view : View
        Words, theme, selection.
    domain : (float, float)
        Ends of the effect axis, the same for all units; outcome's units.
    mean : float, optional
        Pooled mean, outcome's units.
    """
    c = view.colours
    unit = str(rows["unit"].iloc[0])
    rows = rows.assign(
        place=rows["pooling"].map({"none": 0.0, "partial": 1.0, "complete": 2.0}),
        shown_low=rows["low95"].clip(*domain),
        shown_high=rows["high95"].clip(*domain),
        text=[
            _interval(a, b, view.digits.estimate) for a, b in zip(rows["low95"], rows["high95"], strict=True)
        ],
        value=[number(v, view.digits.estimate) for v in rows["estimate"]],
    )
    scale = dict(domain=list(domain), nice=False, zero=False)
    y = vega.channel(
        "place:Q", scale=dict(domain=[-0.6, 2.6], reverse=True, nice=False, zero=False), axis=None
    )
    axis = dict(title=None, tickCount=3, grid=True)

    def x(name: str) -> vega.Options:
        return vega.channel(f"{name}:Q", scale=scale, axis=axis, title=None)

    base = vega.Chart()
    hue = _expr(
        f"datum.pooling == 'none' ? '{c['raw-line']}' : "
        f"datum.pooling == 'partial' ? '{c['accent']}' : '{c['ink']}'"
    )
    layers: list[vega.Chart] = []
    if mean is not None and np.isfinite(mean):
        layers.append(
            _one(mean=mean).mark_rule(color=c["ink"], strokeWidth=1.5, strokeDash=[4, 3]).encode(x=x("mean"))
        )
    partial = base.transform_filter("datum.pooling == 'partial'")
    layers += [
        base.mark_rule(color=hue, strokeWidth=MARKS["interval-95"]).encode(
            x=x("shown_low"), x2="shown_high:Q", y=y
        ),
        partial.mark_rule(color=c["accent"], strokeWidth=MARKS["interval-50"]).encode(
            x=x("low50"), x2="high50:Q", y=y
        ),
        base.transform_filter("datum.pooling == 'none'")
        .mark_point(
            shape="circle",
            filled=True,
            fill=c["paper"],
            stroke=c["raw"],
            strokeWidth=MARKS["raw-stroke"],
            size=_RAW_AREA,
            opacity=1,
        )
        .encode(x=x("estimate"), y=y),
        partial.mark_circle(
            color=c["accent"], stroke=c["paper"], strokeWidth=1.5, size=_POOLED_AREA, opacity=1
        ).encode(x=x("estimate"), y=y),
        base.transform_filter("datum.pooling == 'complete'")
        .mark_tick(color=c["ink"], thickness=1.75, size=11, orient="vertical", opacity=1)
        .encode(x=x("estimate"), y=y),
    ]
    if unit in view.truth:
        layers.append(_diamonds(_one(truth=view.truth[unit], place=0.5), view).encode(x=x("truth"), y=y))
    tips = [
        vega.channel(f"{name}:N", title=title)
        for name, title in (("pooling", "Pooling"), ("value", "Estimate"), ("text", "95 % interval"))
    ]
    layers.append(base.mark_rect(x=0, x2="width", height=22, opacity=0).encode(y=y, tooltip=tips))
    return themed(vega.layer(*layers, data=rows, height=92, width="container"), view.mode)
