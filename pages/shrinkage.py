"""Shrinkage: who moved, how far, and whose data moved them."""

from __future__ import annotations

import streamlit as st

from hbm_core.inference.reweighted import ReweightedPosterior
from hbm_core.ui import circuit_section, reweighted, session, theme, vectors
from hbm_core.ui.live import live
from hbm_core.ui.shrinkage_page import open_page, section, sections, story

whole = live(session.study())
vectors.choose(whole, "shrinkage")
seen = vectors.along(whole)
page = open_page(seen)
if page is None and seen.whole is not None:
    circuit_section.alone(seen, theme.mode())
if page is not None:
    if seen.stale:
        reweighted.ask(seen.study, seen.problem, "shrinkage")
    story(page)
    chosen = st.segmented_control(
        "View", list(sections(page)), default="Arrows", key="shrinkage_section", label_visibility="collapsed"
    )
    with reweighted.greyed(seen.stale, "shrinkage"):
        section(page, chosen if chosen in sections(page) else "Arrows")
    if isinstance(seen.posterior, ReweightedPosterior) and not seen.stale:
        reweighted.say(seen.posterior)
