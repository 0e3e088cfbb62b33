"""Below the explorer, for groups in slots: the grid of contrasts, or the groups' means in time."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import pandas as pd
import streamlit as st

from hbm_core.analysis.cells import cells_table
from hbm_core.inference.exact.gaussian_mixed_posterior import GaussianMixedPosterior
from hbm_core.plots.cells import MOST_BANDS, MOST_CELLS, bands, contrast_grid
from hbm_core.plots.theme import number
from hbm_core.plots.tokens import Mode
from hbm_core.ui import theme
from hbm_core.ui.live import Live

_TABLES: WeakKeyDictionary[GaussianMixedPosterior, pd.DataFrame] = WeakKeyDictionary()


def has(seen: Live) -> bool:
    """Whether the model has groups in slots."""
    return isinstance(seen.posterior, GaussianMixedPosterior)


def draw(seen: Live, mode: Mode) -> None:
    """Draw the section; nothing for other models."""
    posterior = seen.posterior
    if not isinstance(posterior, GaussianMixedPosterior):
        return
    structure = posterior.structure
    if posterior not in _TABLES:
        _TABLES[posterior] = cells_table(posterior, seen.dataset.truth)
    table, words = _TABLES[posterior], seen.dataset.words
    group, slot = structure.levels[1], structure.slot_level
    levels = (group, slot)
    count = len(structure.cells)
    if structure.walk:
        theme.title(f"{group.capitalize()}s from {slot} to {slot}")
        theme.chart(bands(table, words, levels, mode), key="cells")
        truth = " Dashed: the simulated truth." if table["truth"].notna().any() else ""
        some = f" The first {MOST_BANDS} are drawn." if len(structure.groups) > MOST_BANDS else ""
        theme.caption(
            f"Lines are the mean effect of each {group}, bands hold it with 95 % probability, circles are "
            f"what the {slot}'s own rows say.{truth}{some} A {slot} with little data leans on its neighbours "
            "in time."
        )
    else:
        theme.title(f"What a {group} adds in a {slot}")
        if count <= MOST_CELLS:
            theme.chart(contrast_grid(table, words, levels, mode), key="cells")
        theme.caption(
            f"Each number is a<sub>g</sub> + b<sub>s</sub> + c<sub>gs</sub>: how far the mean effect of a "
            f"{group} in a {slot} lies from the overall mean μ; bold where its sign is sure to 95 %. The "
            "three are told apart by their priors alone, since a constant can move from one to another; the "
            "data speak about their sum and, most of all, about differences of sums."
        )
    _sentence(posterior)
    theme.numbers(table, f"{group}s by {slot}", "cells_download")


def _sentence(posterior: GaussianMixedPosterior) -> None:
    """How much better a difference is known than either of its ends."""
    mean, sd = posterior.group_moments()
    cells = posterior.structure.cells
    high, low = int(mean.argmax()), int(mean.argmin())
    if high == low:
        return
    gap, spread = posterior.difference(cells[high], cells[low])
    st.markdown(
        f"Highest: {theme.plain(cells[high])}, lowest: {theme.plain(cells[low])}. They differ by "
        f"{number(gap, 2)} ± {number(spread, 2)} (posterior sd; of the two means "
        f"{number(float(sd[high]), 2)} and {number(float(sd[low]), 2)})."
    )
