"""Trace: whether the draws can be believed, while they come and when they are done."""

from __future__ import annotations

import streamlit as st

from hbm_core.errors import StoreError
from hbm_core.ui import fits, session, theme
from hbm_core.ui import trace_page as trace
from hbm_core.ui.trace_lab import lab

study = session.study()
found = fits.view(study)
try:
    page = trace.open_page(study, found)
except StoreError as problem:
    theme.story("The kept fit of this study cannot be read.")
    trace.damaged(study, problem)
    st.stop()

if page.read is not None:
    theme.story(trace.story(page))
else:
    theme.story(trace.story_before(page, found.status.active))
    if found.status.state == "failed":
        st.warning(theme.plain(f"{found.headline}. {found.detail}"))

chosen = st.segmented_control(
    "View",
    [*trace.offered(page), trace.LAB],
    default="Traces",
    key="trace_section",
    label_visibility="collapsed",
)
if chosen == trace.LAB:
    lab(study)
elif page.read is not None:
    trace.section(page, chosen or "Traces")
elif found.status.active:
    trace.running(study, page)
else:
    trace.waiting(page, found)
