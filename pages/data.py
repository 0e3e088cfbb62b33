"""Data: look at them, change them, bring one's own, or simulate."""

from __future__ import annotations

import streamlit as st

from hbm_core.ui import session
from hbm_core.ui.data_page import SECTIONS, open_page, section, story

page = open_page(session.study())
story(page)
chosen = st.segmented_control(
    "View", list(SECTIONS), default="Change", key="data_section", label_visibility="collapsed"
)
section(page, chosen or "Change")
