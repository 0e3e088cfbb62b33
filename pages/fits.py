"""Fits: everything that was sampled, how sound it is, and what can be taken away."""

from __future__ import annotations

import streamlit as st

from hbm_core.errors import StoreError
from hbm_core.ui import fits_page as library
from hbm_core.ui import session, theme

study = session.study()
try:
    own, others = library.library()
except StoreError as problem:
    theme.story("The fits cannot be listed.")
    st.warning(theme.plain(problem))
    st.stop()

library.style()
theme.story(library.story(own, others))
if not own:
    library.nothing(study)
if own and others:
    names = {"own": f"Yours ({len(own):,})", "gallery": f"Gallery ({len(others):,})"}
    chosen = st.segmented_control(
        "Whose fits", list(names), format_func=names.__getitem__, default="own", key="fits_whose",
        label_visibility="collapsed",
    )  # fmt: skip
    library.rows(others if chosen == "gallery" else own, own=chosen != "gallery")
elif own or others:
    library.rows(own or others, own=bool(own))
library.own_data(study, any_fits=bool(own))
