"""What all figures share: type, axes and grid from the design tokens, numbers as people write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np

from hbm_core.models.dataset import once
from hbm_core.plots import vega
from hbm_core.plots.tokens import MARKS, MATH, SANS, TYPE, Mode, colours

MINUS = "\u2212"
#: Words on a log axis, at most.
_MOST_TICKS = 7
#: Axis numbers as a Vega expression: no trailing zeros, thousands apart, a true minus.
TICK_NUMBER = "replace(format(datum.value, ',.6~f'), '-', '\u2212')"


def config(mode: Mode) -> dict[str, Any]:
    """Vega-Lite configuration in one mode."""
    c = colours(mode)
    tick, plot = TYPE["tick"][0], TYPE["plot"][0]
    return {
        "background": c["paper"],
        "font": SANS,
        "view": {"stroke": None},
        "axis": {
            "labelFontSize": tick,
            "labelColor": c["ink-3"],
            "labelExpr": TICK_NUMBER,
            "titleFontSize": plot,
            "titleFontWeight": "normal",
            "titleColor": c["ink-2"],
            "titlePadding": 8,
            "gridColor": c["grid"],
            "domainColor": c["ink-3"],
            "tickColor": c["ink-3"],
            "tickSize": 4,
            "labelOverlap": True,
            "labelSeparation": 5,
        },
        "axisDiscrete": {"labelExpr": "datum.label"},
        "legend": {
            "labelFontSize": plot,
            "labelColor": c["ink-2"],
            "titleFontSize": plot,
            "titleColor": c["ink-2"],
            "titleFontWeight": "normal",
            "symbolStrokeWidth": 0,
        },
        "title": {
            "fontSize": TYPE["control"][0],
            "fontWeight": 600,
            "color": c["ink"],
            "anchor": "start",
            "offset": 8,
        },
        "text": {"color": c["ink-2"], "fontSize": plot, "font": SANS},
        # A reader hears the figure's title and axes; marks one by one, unnamed, would only be noise.
        "aria": True,
        "mark": {"aria": False},
    }


def themed(chart: vega.Figure, mode: Mode) -> vega.Figure:
    """`chart` in the design tokens of `mode`, padding for a container included."""
    return chart.configure(**config(mode)).properties(padding={"left": 1, "right": 1, "top": 2, "bottom": 4})


def plotly_template(mode: Mode) -> dict[str, Any]:
    """Plotly template in one mode: ``figure.update_layout(template=plotly_template(mode))``."""
    c = colours(mode)
    axis = {
        "gridcolor": c["grid"],
        "linecolor": c["ink-3"],
        "tickcolor": c["ink-3"],
        "tickfont": {"size": TYPE["tick"][0], "color": c["ink-3"]},
        "title": {"font": {"size": TYPE["plot"][0], "color": c["ink-2"]}, "standoff": 8},
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
    }
    return {
        "layout": {
            "font": {"family": SANS, "size": TYPE["plot"][0], "color": c["ink-2"]},
            "title": {"font": {"size": TYPE["title"][0], "color": c["ink"]}, "x": 0, "xanchor": "left"},
            "paper_bgcolor": c["paper"],
            "plot_bgcolor": c["paper"],
            "colorway": [c["accent"], *(c[f"g{place}"] for place in range(1, 8))],
            "colorscale": {"sequential": [[0, c["paper"]], [1, c["accent"]]]},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"font": {"size": TYPE["plot"][0], "color": c["ink-2"]}, "bgcolor": "rgba(0,0,0,0)"},
            "hoverlabel": {
                "bgcolor": c["panel"],
                "bordercolor": c["rule"],
                "font": {"family": SANS, "size": TYPE["plot"][0], "color": c["ink"]},
            },
            # Plotly reads "." and "," for decimals and thousands; its minus is U+2212 already.
            "separators": ".,",
            "margin": {"l": 8, "r": 8, "t": 32, "b": 8},
        }
    }


def number(value: float, decimals: int) -> str:
    """A number as people write it: U+2212 minus, thousands apart, – where there is none.

    >>> number(-3.04, 1), number(-0.01, 1), number(12345.6, 0), number(float("nan"), 1)
    ('−3.0', '0.0', '12,346', '–')
    """
    if not np.isfinite(value):
        return {np.inf: "∞", -np.inf: f"{MINUS}∞"}.get(float(value), "–")
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def signed(value: float, decimals: int) -> str:
    """`number` with a plus where it is above zero.

    >>> signed(2.5, 1), signed(-2.5, 1), signed(0.0, 1)
    ('+2.5', '−2.5', '0.0')
    """
    text = number(value, decimals)
    return f"+{text}" if value > 0 and any(digit in text for digit in "123456789∞") else text


def whole_percents(shares: np.ndarray) -> np.ndarray:
    """Shares as whole percentages whose sum is the rounded sum: the largest remainders are rounded up.

    Parameters
    ----------
    shares : ndarray (..., K)
        Parts of one whole along the last axis; rows with gaps stay gaps.

    Examples
    --------
    >>> whole_percents(np.array([0.335, 0.336, 0.329]))
    array([33., 34., 33.])
    >>> whole_percents(np.array([[0.125, 0.435, 0.44], [1.006, -0.009, 0.003]]))
    array([[ 13.,  43.,  44.],
           [101.,  -1.,   0.]])
    """
    scaled = 100 * np.asarray(shares, dtype=float)
    down = np.floor(scaled)
    missing = np.round(scaled.sum(axis=-1, keepdims=True)) - down.sum(axis=-1, keepdims=True)
    # Noise far below a percent must not decide which of two equal remainders comes first.
    order = np.argsort(np.round(down - scaled, 9), axis=-1, kind="stable")
    place = np.argsort(order, axis=-1, kind="stable")
    return down + (place < missing)


@dataclass(frozen=True)
class Digits:
    """How many decimals numbers of one data set take.

    Parameters
    ----------
    raw, estimate : int
        For what was measured, and for what is estimated.
    """

    raw: int
    estimate: int


def digits(effect: np.ndarray, se: np.ndarray) -> Digits:
    """Decimals of a data set: raw values keep the data's, estimates take one more, at least one.

    No more than give the typical standard error two significant digits after rounding: simulated data
    carry sixteen, and none of those would mean anything.

    >>> digits(np.array([28.0, -3.0]), np.array([15.0, 16.0]))
    Digits(raw=0, estimate=1)
    """
    typical = float(np.median(se))
    most = int(np.clip(1 - np.floor(np.log10(typical)), 1 if typical < 100 else 0, 9))
    raw = next((d for d in range(most) if np.allclose(effect, np.round(effect, d), rtol=0, atol=1e-9)), most)
    return Digits(raw, max(1 if typical < 100 else 0, min(raw + 1, most)))


@once
def digits_of(structure: Any) -> Digits:
    """Decimals of a structure's raw effects and of its estimates, as of `digits`; of vectors, of decades."""
    if not hasattr(structure, "effect"):
        return Digits(2, 3)
    return digits(structure.effect, structure.se)


def nice_domain(values: Sequence[float] | np.ndarray, count: int = 6) -> tuple[float, float]:
    """Round ends that hold all finite values: multiples of a 1–2–5 step.

    >>> nice_domain([-34.4, 57.4])
    (-40.0, 60.0)
    """
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-300):
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    rough = (high - low) / count
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next((m for m in (1, 2, 5) if m * power >= rough), 10)
    return float(np.floor(low / step + 1e-9) * step), float(np.ceil(high / step - 1e-9) * step)


#: Marks that a legend explains, as SVG in a box of 30 by 14.
_KEYS = {
    "raw": '<line x1="1" y1="7" x2="29" y2="7" stroke="{raw-line}" stroke-width="1.25"/>'
    '<circle cx="15" cy="7" r="3.7" fill="{paper}" stroke="{raw}" stroke-width="1.5"/>',
    "raw point": '<circle cx="15" cy="7" r="3.7" fill="{paper}" stroke="{raw}" stroke-width="1.5"/>',
    "pooled": '<line x1="1" y1="7" x2="29" y2="7" stroke="{colour}" stroke-width="1.25"/>'
    '<line x1="7" y1="7" x2="23" y2="7" stroke="{colour}" stroke-width="4"/>'
    '<circle cx="15" cy="7" r="5" fill="{colour}" stroke="{paper}" stroke-width="1"/>',
    "point": '<circle cx="15" cy="7" r="4.5" fill="{colour}"/>',
    "before": '<circle cx="15" cy="7" r="4.5" fill="{paper}" stroke="{colour}" stroke-width="1.25" '
    'stroke-dasharray="2 1.5"/>',
    "square": '<path d="M2 7h26" stroke="{colour}" stroke-dasharray="4 3"/>'
    '<rect x="11" y="3" width="8" height="8" fill="{colour}"/>',
    "triangle": '<path d="M15 2l5 9h-10z" fill="{colour}"/>',
    "triangle down": '<path d="M15 12l5-9h-10z" fill="{colour}"/>',
    "mean": '<line x1="15" y1="0" x2="15" y2="14" stroke="{ink}" stroke-width="1.5" stroke-dasharray="4 3"/>',
    "mean across": '<line x1="2" y1="7" x2="28" y2="7" stroke="{ink}" stroke-width="1.5" '
    'stroke-dasharray="4 3"/>',
    "identity": '<line x1="5" y1="13" x2="25" y2="1" stroke="{raw-line}" stroke-width="1.25"/>',
    "arrow": '<line x1="4" y1="7" x2="22" y2="7" stroke="{ink-2}" stroke-width="1.25"/>'
    '<path d="M27 7l-7-3v6z" fill="{ink-2}"/>',
    "truth": '<path d="M15 2l4.5 5-4.5 5-4.5-5z" fill="{truth}"/>',
    "line": '<line x1="2" y1="7" x2="28" y2="7" stroke="{colour}" stroke-width="2"/>',
    "thin": '<line x1="2" y1="7" x2="28" y2="7" stroke="{raw-line}" stroke-width="1.25"/>',
    "crossing": '<circle cx="15" cy="7" r="3" fill="{ink}"/>',
    "own": '<rect x="4" y="2" width="22" height="10" fill="{raw}"/>',
    "others": '<rect x="4" y="2" width="22" height="10" fill="{ink}"/>',
    "prior": '<rect x="4.5" y="2.5" width="21" height="9" fill="{paper}" stroke="{ink}"/>',
    "cross": '<path d="M11 3l8 8M19 3l-8 8" stroke="{warn}" stroke-width="2"/>',
    "band": '<rect x="2" y="2" width="26" height="10" fill="{raw}" fill-opacity=".22"/>',
    "area": '<path d="M2 12Q9 12 12 5T18 5T28 12z" fill="{colour}" fill-opacity=".25" stroke="{colour}"/>',
    "dots": '<line x1="2" y1="7" x2="28" y2="7" stroke="{colour}" stroke-width="2" stroke-dasharray="2 3"/>',
    "rule": '<line x1="2" y1="7" x2="28" y2="7" stroke="{ink-3}" stroke-width="1"/>',
    "regions": '<ellipse cx="15" cy="7" rx="13" ry="6.5" fill="{raw}" fill-opacity=".14" '
    'stroke="{raw-line}"/>'
    '<ellipse cx="15" cy="7" rx="7" ry="3.5" fill="{raw}" fill-opacity=".25" stroke="{raw-line}"/>',
}


def log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Round places between two positive numbers on a log axis, no more than fit, and their words."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        places = [step * 10.0**power for power in powers for step in steps]
        places = [place for place in places if low <= place <= high]
        if len(places) <= _MOST_TICKS:
            break
    places = places[:: -(-len(places) // _MOST_TICKS)]
    return places, [
        f"{place:g}" if place >= 1e-4 else f"10<sup>{np.log10(place):.0f}</sup>" for place in places
    ]


def _image(drawing: str) -> str:
    """Return a drawing in a box of 30 by 14 as a data address: sanitizers take inline SVG away."""
    return "data:image/svg+xml," + quote(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="30" height="14" viewBox="0 0 30 14">{drawing}</svg>'
    )


def legend(entries: Sequence[tuple[str, str] | tuple[str, str, str]], mode: Mode) -> str:
    """HTML of a legend over a figure.

    Parameters
    ----------
    entries : sequence of (mark, text) or (mark, text, colour)
        `mark` is a key of the visual grammar: raw, pooled, mean, truth, arrow, own, others, prior, …; the
        colour is the accent's where none is given. Texts are escaped.
    mode : {"light", "dark"}
        Which tokens.
    """
    c = colours(mode)
    items = []
    for mark, text, *colour in entries:
        drawing = _KEYS[mark]
        for name, value in (c | {"colour": colour[0] if colour else c["accent"]}).items():
            drawing = drawing.replace(f"{{{name}}}", value)
        items.append(
            '<span style="display:inline-flex;align-items:center;gap:7px;white-space:nowrap">'
            f'<img width="30" height="14" alt="" src="{_image(drawing)}">{escape(text)}</span>'
        )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:2px 18px;font-size:{TYPE["caption"][0]}px;'
        f'line-height:20px;color:{c["ink-2"]}">{"".join(items)}</div>'
    )


__all__ = [
    "MARKS",
    "MATH",
    "MINUS",
    "SANS",
    "TICK_NUMBER",
    "Digits",
    "config",
    "digits",
    "legend",
    "nice_domain",
    "number",
    "plotly_template",
    "signed",
    "themed",
]
