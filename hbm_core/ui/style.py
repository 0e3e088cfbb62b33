"""CSS of the frame: only what Streamlit's theme options cannot say."""

from __future__ import annotations

from hbm_core.plots.tokens import TYPE, Mode, colours


def frame_css(mode: Mode) -> str:
    """Return the frame's rules in one mode."""
    c = colours(mode)
    (size, line), title = TYPE["caption"], TYPE["title"]
    return f"""
[data-testid="stMainBlockContainer"] {{ padding: 1.75rem 2.5rem 2rem; max-width: 1180px; }}
[data-testid="stHeader"] {{ background: transparent; height: 2.5rem; }}
[data-testid="stMain"] {{ font-variant-numeric: tabular-nums; }}
[data-testid="stSidebar"] [data-testid="stVerticalBlock"] {{ gap: .55rem; }}
[data-testid="stSidebarUserContent"] {{ padding-top: .5rem; padding-bottom: 1rem; }}
[data-testid="stSidebar"] [data-testid="stWidgetLabel"] p {{ font-size: 11.5px; color: {c["ink-3"]}; }}
[data-testid="stSidebar"] [data-baseweb="select"] {{ font-size: 13px; }}
[data-testid="stCaptionContainer"] p {{ color: {c["ink-2"]}; }}
[data-testid="stCaptionContainer"] {{ color: {c["ink-2"]}; opacity: 1; }}
[data-testid="stBaseButton-primary"], [data-testid="stBaseButton-primary"] p {{ color: {c["on-accent"]}; }}
[data-testid="stBaseButton-primary"]:disabled p {{ color: {c["ink-3"]}; }}
[data-tag] {{ background: {c["accent"]}; }}
[data-tag], [data-tag] span, [data-tag] button {{ color: {c["on-accent"]}; }}
/* The counter of letters would lie over a long title. */
[data-testid="stPopoverBody"] [data-testid="InputInstructions"] {{ display: none; }}
p.caption {{ font-size: {size}px; line-height: {line}px; color: {c["ink-2"]}; margin-top: -.4rem; }}
p.caption b {{ color: {c["ink"]}; }}
[data-testid="stMain"] h2 {{ font-size: {title[0]}px; line-height: {title[1]}px; padding: .3rem 0; }}
[data-testid="stTable"] {{ font-size: 13px; }}
/* A grid's own export writes cells that a spreadsheet would run; the app's downloads do not. */
[data-testid="stElementToolbar"] button[aria-label^="Download as CSV"] {{ display: none; }}
@media (max-width: 640px) {{
  [data-testid="stMainBlockContainer"] {{ padding: 3.75rem 1rem 2rem; }}
  [data-testid="stHeader"] {{ background: {c["paper"]}; border-bottom: 1px solid {c["grid"]}; height: 3rem; }}
}}
"""
