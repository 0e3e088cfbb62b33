"""Covariance: how parameters move together, and why the units' effects do."""

from __future__ import annotations

import streamlit as st

from hbm_core.ui import session
from hbm_core.ui.covariance_page import SECTIONS, open_page, section, story

page = open_page(session.study())
if page is not None:
    story(page)
    chosen = st.segmented_control(
        "View", list(SECTIONS), default="Pairs", key="covariance_section", label_visibility="collapsed"
    )
    section(page, chosen or "Pairs")
