"""Shrinkage: who moved, how far, and whose data moved them."""

from __future__ import annotations

import streamlit as st

from hbm_core.ui import session
from hbm_core.ui.live import live
from hbm_core.ui.shrinkage_page import SECTIONS, open_page, section, story

page = open_page(live(session.study()))
if page is not None:
    story(page)
    chosen = st.segmented_control(
        "View", list(SECTIONS), default="Arrows", key="shrinkage_section", label_visibility="collapsed"
    )
    section(page, chosen or "Arrows")
