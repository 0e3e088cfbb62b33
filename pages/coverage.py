"""Coverage: what intervals promise, and whether they keep it, in worlds whose truth is known."""

from __future__ import annotations

import streamlit as st

from hbm_core.scenarios import scenario
from hbm_core.ui import recovery_page, session
from hbm_core.ui.coverage_page import SECTIONS, open_page, section, story
from hbm_core.ui.live import live

study = session.study()
if why := scenario(study.scenario).no_lab:
    st.info(why)
elif scenario(study.scenario).own_lab:
    recovery_page.draw(live(study))
else:
    page = open_page(live(study))
    story(page)
    chosen = st.segmented_control(
        "View", list(SECTIONS), default="Coverage", key="coverage_section", label_visibility="collapsed"
    )
    section(page, chosen or "Coverage")
