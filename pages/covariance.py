"""Covariance: how parameters move together, why the units' effects do, and what data leave open."""

from __future__ import annotations

import streamlit as st

from hbm_core.ui import session
from hbm_core.ui.covariance_page import open_page, section, sections, story

page = open_page(session.study())
story(page)
if names := sections(page):
    if st.session_state.get("covariance_section") not in (None, *names):
        st.session_state["covariance_section"] = names[0]
    chosen = st.segmented_control(
        "View", names, default=names[0], key="covariance_section", label_visibility="collapsed"
    )
    section(page, chosen or names[0])
