"""Picture of what a change of the data does to the units: pooled before, pooled after, raw after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hbm_core.models.dataset import Words
from hbm_core.plots import vega
from hbm_core.plots.theme import Digits, nice_domain, number, signed, themed
from hbm_core.plots.tokens import MARKS, Mode, colours

_ROW, _LONGEST_LABEL = 26, 150
_RAW_AREA, _POOLED_AREA = np.pi * MARKS["raw-radius"] ** 2, np.pi * MARKS["pooled-radius"] ** 2


def chosen_changes(table: pd.DataFrame, most: int = 8) -> pd.DataFrame:
    """Rows for the picture: whoever was edited, dropped or added first, then who moved farthest."""
    touched = (table["state"] != "kept") | ~np.isclose(table["raw_before"], table["raw_after"], rtol=1e-12)
    return pd.concat([table[touched], table[~touched]]).head(most).reset_index(drop=True)


def change_figure(rows: pd.DataFrame, words: Words, digits: Digits, mode: Mode) -> vega.Figure:
    """Draw `chosen_changes`, units down.

    Parameters
    ----------
    rows : DataFrame
        From `hbm_core.analysis.change.unit_change`.
    words : Words
        Names and units.
    digits : Digits
        Decimals.
    mode : {"light", "dark"}
        Theme.
    """
    c = colours(mode)
    marks = {"dropped": " (dropped)", "new": " (new)", "kept": ""}
    rows = rows.assign(
        place=np.arange(len(rows), dtype=float),
        label=[
            _short(name, 22) + marks[state] for name, state in zip(rows["unit"], rows["state"], strict=True)
        ],
        was=[number(value, digits.estimate) for value in rows["pooled_before"]],
        now=[number(value, digits.estimate) for value in rows["pooled_after"]],
        by=[signed(value, digits.estimate) for value in rows["moved"]],
        own=[number(value, digits.raw) for value in rows["raw_after"]],
    )
    values = rows[["raw_before", "raw_after", "pooled_before", "pooled_after"]].to_numpy()
    left = float(min(_LONGEST_LABEL, 14 + 6.8 * rows["label"].str.len().max()))
    ends: list[Any] = [left, vega.expr("width - 48")]
    scale = dict(domain=list(nice_domain(values.ravel())), nice=False, zero=False, range=ends)
    down = dict(domain=[len(rows) - 0.5, -0.5], nice=False, zero=False)
    y = vega.channel("place:Q", scale=down, axis=None)

    def x(name: str) -> vega.Options:
        return vega.channel(f"{name}:Q", scale=scale, axis=dict(title=words.axis, tickCount=5))

    base = vega.Chart(rows)
    tips = [
        vega.channel(f"{name}:N", title=title)
        for name, title in (
            ("label", words.one.capitalize()),
            ("was", "Pooled before"),
            ("now", "Pooled now"),
            ("by", "Moved by"),
            ("own", "On its own now"),
        )
    ]
    circle: dict[str, Any] = {"filled": True, "opacity": 1, "shape": "circle"}
    layers = [
        base.mark_rule(color=c["accent"], strokeWidth=1.5).encode(
            x=x("pooled_before"), x2="pooled_after:Q", y=y
        ),
        base.mark_point(
            fill=c["paper"], stroke=c["raw"], strokeWidth=MARKS["raw-stroke"], size=_RAW_AREA, **circle
        ).encode(x=x("raw_after"), y=y),
        base.mark_point(
            fill=c["paper"],
            stroke=c["accent"],
            strokeWidth=1.25,
            strokeDash=[2, 1.5],
            size=_POOLED_AREA,
            **circle,
        ).encode(x=x("pooled_before"), y=y),
        base.mark_point(
            fill=c["accent"], stroke=c["paper"], strokeWidth=1.25, size=_POOLED_AREA, **circle
        ).encode(x=x("pooled_after"), y=y),
        base.mark_text(align="left", x=0, color=c["ink"], limit=left - 8).encode(y=y, text="label:N"),
        base.mark_text(align="right", x="width", color=c["accent"]).encode(y=y, text="by:N"),
        base.mark_rect(x=0, x2="width", height=_ROW, opacity=0).encode(y=y, tooltip=tips),
    ]
    return themed(vega.layer(*layers).properties(height=_ROW * len(rows), width="container"), mode)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
