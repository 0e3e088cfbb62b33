"""Logo and wordmark in the visitor's theme."""

from __future__ import annotations

from pathlib import Path

from hbm_core.plots.tokens import SANS, Mode, colours

LOGO = Path(__file__).parents[2] / "assets" / "logo.svg"


def wordmark(mode: Mode) -> str:
    """Return logo and name as one SVG text."""
    mark = LOGO.read_text("utf-8").split(">", 1)[1].rsplit("</svg>", 1)[0]
    ink = colours(mode)["ink"]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 204 24" width="204" height="24" role="img" '
        f'aria-label="Partial Pooling Explorer">{mark}<text x="32" y="17" font-family=\'{SANS}\' '
        f'font-size="14" font-weight="600" fill="{ink}">Partial Pooling Explorer</text></svg>'
    )
