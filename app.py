"""The app's launcher: ``hbm serve`` or ``streamlit run app.py``."""

from hbm_core.ui.server import build

app = build()
