"""CSS of the frame: only what Streamlit's theme options cannot say."""

FRAME_CSS = """
[data-testid="stMainBlockContainer"] { padding: 1.75rem 2.5rem 2rem; max-width: 1180px; }
[data-testid="stHeader"] { background: transparent; height: 2.5rem; }
[data-testid="stSidebar"] [data-testid="stVerticalBlock"] { gap: .6rem; }
[data-testid="stSidebarUserContent"] { padding-top: .5rem; padding-bottom: 1rem; }
[data-testid="stMain"] { font-variant-numeric: tabular-nums; }
@media (max-width: 640px) {
  [data-testid="stMainBlockContainer"] { padding: 3rem 1rem 2rem; }
}
"""
