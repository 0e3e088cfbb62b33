"""The page Covariance: its first sentence, and its sections, as the model's structure has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.models.grouped import GroupedUnits
from hbm_core.plots.theme import number
from hbm_core.plots.tokens import colours
from hbm_core.ui import theme
from hbm_core.ui.covariance_identified import identifiability, vector_shrinkage
from hbm_core.ui.covariance_pairs import correlation, funnel, mean_correlation, pairs
from hbm_core.ui.covariance_population import ellipses, own_words, prior_shape, sds_and_correlations
from hbm_core.ui.covariance_source import Page, open_page

__all__ = ["SECTIONS", "open_page", "section", "sections", "story"]

Section = Callable[[Page, DeltaGenerator, DeltaGenerator], None]
_EVERY: Mapping[str, Section] = {"Pairs": pairs, "Funnel": funnel, "Correlation": correlation}
#: Sections of units that are vectors.
_VECTORS: Mapping[str, Section] = {
    "Population": sds_and_correlations,
    "Ellipses": ellipses,
    "Shrinkage": vector_shrinkage,
    "Prior": prior_shape,
}
_LAST: Mapping[str, Section] = {"Identifiability": identifiability}
SECTIONS: Mapping[str, Section] = {**_VECTORS, **_EVERY, **_LAST}


def sections(page: Page) -> list[str]:
    """Names of the sections that the page's model has, the first as it opens."""
    if not page.ready:
        return ["Prior"] if page.vector is not None else []
    return [*(_VECTORS if page.vector is not None else ()), *_EVERY, *_LAST]


#: Draws one section of a page by its name.
section = partial(theme.section, SECTIONS)


def story(page: Page) -> None:
    """The page's first sentence: how strongly the units move together; nothing before there are draws."""
    if not page.ready:
        return
    theme.story(_story(page))
    if page.problem:
        st.warning(theme.plain(f"The kept fit cannot be read, so you see exact draws. {page.problem}"))


def _story(page: Page) -> str:
    accent = colours(page.mode)["accent"]
    many = escape(page.words.many)
    structure: Any = page.live.spec.structure
    if page.vector is not None:
        return own_words(page)
    match getattr(structure, "pooling", "partial"):
        case "none" | "independent":
            return (
                f"Without pooling nothing is shared: the {many} are <b>independent</b>, in the posterior too."
            )
        case "complete":
            return f"Complete pooling has one unknown: every {escape(page.words.one)}'s effect <b>is</b> μ."
        case "shared":
            return f"Complete pooling: every {escape(page.words.one)} has the <b>same</b> parameters."
        case _:
            mean = mean_correlation(page)
            grouped = isinstance(structure, GroupedUnits)
            shared = "the unknown means of their groups" if grouped else "an unknown mean"
            if abs(mean) < 0.05:
                return (
                    f"The {many} share {shared}, which the data know well: their estimates hardly move "
                    "together, "
                    f'the typical correlation of two is <b style="color:{accent}">{number(mean, 2)}</b>.'
                )
            return (
                f"The {many} share {shared}, so their estimates rise and fall together: the typical "
                f'correlation of two is <b style="color:{accent}">{number(mean, 2)}</b>.'
            )
