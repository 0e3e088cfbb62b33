"""Design tokens: every colour, font and mark size named by what it means, in light and in dark.

The one source for Altair, Plotly, the browser components and the exports.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Mode = Literal["light", "dark"]

#: Token: (light, dark).
COLOURS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "paper": ("#ffffff", "#121317"),
        "panel": ("#f6f5f2", "#191a1f"),
        "ink": ("#1b1c20", "#ececf0"),  # words, the pooled mean
        "ink-2": ("#4b4d55", "#bbbdc6"),  # captions
        "ink-3": ("#666871", "#9a9ca7"),  # ticks
        "rule": ("#d9d7d1", "#383a43"),  # borders of controls, the zero line
        "grid": ("#eeece8", "#24262c"),
        "raw": ("#6d6f78", "#a2a4ae"),  # no pooling: hollow circle
        "raw-line": ("#8e9097", "#6f717c"),  # and its interval
        "accent": ("#3d36c4", "#aaa6ff"),  # partial pooling, posterior, Fit
        "on-accent": ("#ffffff", "#14132b"),
        "wash": ("#3d36c411", "#aaa6ff1c"),  # the focused row
        "warn": ("#c0163c", "#ff8095"),  # divergences and failed checks, always with a shape as well
        "truth": ("#5c7800", "#bbdb4e"),  # simulated truth, a diamond, nothing else
    }
)

#: Okabe–Ito in a fixed order; the last is the ink. One group alone takes the accent.
GROUPS: tuple[tuple[str, str], ...] = (
    ("#0072b2", "#0072b2"),
    ("#d55e00", "#d55e00"),
    ("#009e73", "#009e73"),
    ("#cc79a7", "#cc79a7"),
    ("#e69f00", "#e69f00"),
    ("#56b4e9", "#56b4e9"),
    ("#f0e442", "#f0e442"),
    COLOURS["ink"],
)

SANS = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif'
MATH = '"STIX Two Text", Cambria, "Times New Roman", "Liberation Serif", serif'

#: Sizes of type (font size, line height), in pixels.
TYPE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "story": (20, 28),
        "title": (15, 20),
        "sentence": (14, 20),
        "control": (13, 18),
        "caption": (12.5, 17),
        "plot": (12, 15),
        "tick": (11.5, 14),
    }
)

#: Sizes of marks, in pixels.
MARKS: Mapping[str, float] = MappingProxyType(
    {
        "raw-radius": 3.7,
        "raw-stroke": 1.5,
        "pooled-radius": 4.5,
        "interval-50": 4,
        "interval-95": 1.25,
        "least-arrow": 18,
        "row": 24,
        "row-narrow": 28,
    }
)


def colours(mode: Mode) -> dict[str, str]:
    """Token to colour in one mode; groups are ``g1`` … ``g8``."""
    place = ("light", "dark").index(mode)
    groups = {f"g{number}": pair[place] for number, pair in enumerate(GROUPS, start=1)}
    return {name: pair[place] for name, pair in COLOURS.items()} | groups


def group_colours(count: int, mode: Mode) -> list[str]:
    """Colours of `count` groups, in order; repeated after eight, and the accent for one alone."""
    if count == 1:
        return [COLOURS["accent"][("light", "dark").index(mode)]]
    palette = colours(mode)
    return [palette[f"g{place % len(GROUPS) + 1}"] for place in range(count)]


def css_variables(selector: str = ":host") -> str:
    """Tokens as CSS custom properties ``--ppx-…`` of `selector`; its ``data-theme`` chooses the mode."""
    fonts = {"sans": SANS, "math": MATH}
    light = "".join(f"--ppx-{name}:{value};" for name, value in (colours("light") | fonts).items())
    dark = "".join(f"--ppx-{name}:{value};" for name, value in colours("dark").items())
    return (
        f"{selector}{{color-scheme:light;{light}}}\n{selector}[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
    )
