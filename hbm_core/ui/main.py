"""The frame around every page: navigation, sidebar, notices. Streamlit runs this file on every change."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from hbm_core.errors import StoreError
from hbm_core.ui import session, sidebar, theme
from hbm_core.ui.brand import LOGO, wordmark
from hbm_core.ui.style import frame_css

ROOT = Path(__file__).parents[2]

#: Group → pages: file name, title. A page is added here and in ``pages/``, nowhere else.
PAGES = {
    "Explore": [("explore", "Explore"), ("shrinkage", "Shrinkage")],
    "Trust": [("trace", "Trace"), ("covariance", "Covariance"), ("coverage", "Coverage")],
    "Use": [("data", "Data"), ("fits", "Fits")],
}


def _page(name: str, title: str) -> StreamlitPage:
    return st.Page(ROOT / "pages" / f"{name}.py", title=title, default=name == "explore")


def frame() -> None:
    """Draw the frame and the current page."""
    st.set_page_config(
        page_title="Partial Pooling Explorer",
        page_icon=str(LOGO),
        layout="wide",
        initial_sidebar_state="auto",
    )
    st.html(f"<style>{frame_css(theme.mode())}</style>")
    st.logo(wordmark(theme.mode()), icon_image=LOGO, size="large")
    groups = {group: [_page(*declared) for declared in pages] for group, pages in PAGES.items()}
    page = st.navigation(groups, position="sidebar")
    try:
        study = session.study()
        session.mirror(study)
        with st.sidebar:
            sidebar.draw(study)
        if said := session.notice():
            text, good = said
            (st.success if good else st.warning)(theme.plain(text))
        page.run()
    except StoreError as problem:
        # The store itself cannot be used: held, damaged, out of reach. The message says what to do.
        st.error(theme.plain(str(problem)))


frame()
