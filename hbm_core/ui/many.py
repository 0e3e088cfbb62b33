"""Very many units at a glance: pictures that count where circles would overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from hbm_core.analysis import many as tables
from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.dataset import once
from hbm_core.models.grouped import GroupedUnits
from hbm_core.plots import many as plots
from hbm_core.plots.shrinkage import View
from hbm_core.plots.theme import legend
from hbm_core.plots.tokens import group_colours
from hbm_core.ui import theme
from hbm_core.ui.live import Live

#: Units that are counted; of more, so many are taken evenly.
MOST = 50_000


@once
def units_of(posterior: ExactPosterior) -> pd.DataFrame:
    """All units' raw and pooled effects, once per posterior."""
    return tables.units_table(posterior, MOST)


@once
def raw_of(structure: GroupedUnits) -> pd.DataFrame:
    """All units' raw effects, once per data set: no prior changes them."""
    return tables.raw_table(structure, tables.evenly(structure, MOST))


def group_key(groups: Any, view: View) -> None:
    """The colours of the groups, where they are few."""
    names = sorted(set(groups), key=str)
    if 1 < len(names) <= plots.MOST_GROUPS:
        colours = group_colours(len(names), view.mode)
        st.html(legend([("point", str(n), c) for n, c in zip(names, colours, strict=True)], view.mode))


def glance(seen: Live, view: View) -> None:
    """Raw effects against numbers of users, and against pooled effects, of all units side by side.

    Nothing is drawn for units without groups: few enough for pictures of each.
    """
    structure: Any = seen.spec.structure
    if not isinstance(structure, GroupedUnits):
        return
    words, data = view.words, seen.dataset.table
    title = f"Raw {words.axis[0].lower()}{words.axis[1:]}"
    left, right = st.columns([1, 1], gap="large")
    sized = "n" in data and len(data) == structure.effect.size
    with left:
        theme.title(f"All {words.many}: raw effects against {'users' if sized else 'standard errors'}")
        group_key(structure.groups, view)
        rows = raw_of(structure)
        along = "users" if sized else "se"
        if sized:
            at = tables.evenly(structure, MOST)
            rows = rows.assign(users=data["n"].to_numpy()[at].astype(float))
        cells, points = tables.density_scatter(rows, along, "raw", log_x=True)
        named = f"Users of {words.a_one}" if sized else "Standard error"
        figure = plots.density(cells, points, (along, "raw"), (named, title), view, log_x=True)
        theme.chart(figure, key="glance_size")
        theme.caption(
            f"Each circle is a {structure.row_of(words.one)}; darker cells count those that overlap. "
            + (
                f"Few users scatter far: the spread on the left is noise, that on the right the {words.many}."
                if sized
                else "The larger the standard error, the farther noise alone scatters."
            )
        )
    if seen.posterior is None or seen.stale:
        return
    with right:
        theme.title(f"All {words.many}: raw against pooled")
        group_key(structure.groups, view)
        users = data["n"].to_numpy(dtype=float)[tables.evenly(structure, MOST)] if sized else None
        _against_pooled(seen.posterior, view, title, "glance_pooled", 300, users)
        theme.caption(
            "On the slanted line nothing would move. Flat stretches are units that their group's mean has "
            "pulled in; those with much data stay near the line."
            + (" Circles grow with users." if sized else "")
        )


def _against_pooled(
    posterior: ExactPosterior, view: View, title: str, key: str, height: int, users: np.ndarray | None
) -> None:
    rows = units_of(posterior)
    cells, points = tables.density_scatter(
        rows if users is None else rows.assign(size=users), "raw", "pooled"
    )
    unit = f", {view.words.unit}" if view.words.unit else ""
    figure = plots.density(
        cells, points, ("raw", "pooled"), (title, f"Pooled{unit}"), view, identity=True, height=height
    )
    theme.chart(figure, key=key)
