"""Shrinkage, the section on groups: means as the model knows them, and the spreads between and within."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import many as tables
from hbm_core.plots import many as plots
from hbm_core.plots.theme import legend
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.ui import theme
from hbm_core.ui.shrinkage_page import Page

#: Groups that are drawn, and units whose truth is looked up.
_MOST, _MOST_UNITS = 40, 20_000


def groups(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Each group's mean beside complete pooling and the truth; the spreads with theirs."""
    structure: Any = page.live.spec.structure
    view, level = page.view, structure.levels[1]
    truth = page.live.dataset.truth or {}
    table = tables.group_table(page.posterior)
    known = _known(structure, truth)
    with left:
        shown = table
        if len(table) > _MOST:
            far = (table["mean"] - table["mean"].median()).abs()
            shown = table.loc[far.nlargest(_MOST).index]
        theme.title(f"The mean of each {level}: pooled, and its {view.words.many} all alike")
        entries: list[tuple[str, str] | tuple[str, str, str]] = [
            ("pooled", "posterior mean, 50 % and 95 %"),
            ("line", "complete pooling, 95 %", view.colours["raw-line"]),
            *([("truth", "simulated truth")] if known else []),
        ]
        st.html(legend(entries, view.mode))
        theme.chart(plots.group_means(shown, known, view), key="shrinkage_groups")
        theme.caption(
            f"Complete pooling takes the {view.words.many} of a {level} for equal, and so is too sure of the "
            "mean: its interval leaves out how much they differ."
        )
    with right:
        theme.title("Spreads")
        shown_truth = False
        words = find_scenario(page.live.study.scenario).parameter_words
        curves = tables.spread_curves(page.posterior, page.posterior.spec)
        for name, part in curves.groupby("parameter", sort=False):
            said = words.get(str(name), ("", str(name)))[1]
            unit = f", {view.words.unit}" if view.words.unit and name not in structure.unitless else ""
            found = float(truth[str(name)]) if str(name) in truth else None
            shown_truth |= found is not None
            st.caption(f"{said[0].upper()}{said[1:]}{unit}")
            theme.chart(plots.spread_density(part, found, view), key=f"shrinkage_{name}")
        theme.caption(
            "Outline: prior; filled: posterior" + ("; diamond: the simulated truth." if shown_truth else ".")
        )


def _known(structure: Any, truth: Mapping[str, float]) -> dict[str, float]:
    """True mean of each group: as the model means it, or where that is the mean of its units, theirs."""
    names = {str(label): f"{structure.group_mean}[{label}]" for label in structure.groups}
    if names and all(name in truth for name in names.values()):
        return {label: float(truth[name]) for label, name in names.items()}
    units = [f"theta[{unit}]" for unit in structure.units] if len(structure.units) <= _MOST_UNITS else []
    if not units or any(name not in truth for name in units):
        return {}
    values = np.array([truth[name] for name in units])
    sums = np.bincount(structure.group, values, len(structure.groups))
    return dict(zip(names, (sums / np.bincount(structure.group)).tolist(), strict=True))
