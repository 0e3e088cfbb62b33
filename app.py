"""The app's launcher: ``hbm serve`` or ``streamlit run app.py``."""

import streamlit as st

from hbm_core.ui.metrics import ROUTES
from hbm_core.ui.server import MIDDLEWARE, lifespan

# Streamlit recognises the launcher by this very call, so it is written out here.
app = st.App("hbm_core/ui/main.py", lifespan=lifespan, routes=ROUTES, middleware=MIDDLEWARE)
