"""Which theme the visitor sees, and drawing in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256

import pandas as pd
import streamlit as st
from streamlit.dataframe_util import convert_pandas_df_to_arrow_bytes
from streamlit.delta_generator import DeltaGenerator

from hbm_core.plots import vega
from hbm_core.plots.tokens import Mode

#: What Markdown, its mathematics and Streamlit's directives make something of.
_MARKDOWN = frozenset("\\`*_[]<$&~")


def mode() -> Mode:
    """Light or dark, as the browser reported it."""
    return "dark" if st.context.theme.type == "dark" else "light"


def chart(figure: vega.Figure, key: str | None = None, **options: object) -> object:
    """Draw a figure as it is: its colours come from the design tokens, not from Streamlit's theme."""
    drawn = figure.spec(_arrow)
    return st.vega_lite_chart(spec=drawn, theme=None, width="stretch", key=key, **options)  # type: ignore[call-overload]


def _arrow(table: pd.DataFrame) -> tuple[str, bytes]:
    """A table as it travels, under a name that tells the browser when it is another."""
    written = convert_pandas_df_to_arrow_bytes(table)
    return f"data-{sha256(written).hexdigest()[:32]}", written


def caption(text: str) -> None:
    """The line under a figure that says how to read it."""
    st.markdown(f'<p class="caption"><b>How to read this.</b> {text}</p>', unsafe_allow_html=True)


def title(text: str) -> None:
    """A figure's title: says what is seen. Plain text."""
    st.markdown(f"## {plain(text)}")


def story(text: str) -> None:
    """The page's first sentence, as HTML: what people typed must have been escaped."""
    st.html(f'<p style="font-size:20px;line-height:28px;margin:0 0 .25rem;text-wrap:pretty">{text}</p>')


def section[Page](
    sections: Mapping[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]], page: Page, name: str
) -> None:
    """Draw one of a page's sections: the picture left, its controls beside it."""
    left, right = st.columns([2.75, 1], gap="large")
    sections[name](page, left, right)


def plain(text: object) -> str:
    r"""Text that Markdown shows as it is: for messages that quote what people typed.

    >>> plain("[here](javascript:x) $y$") == r"\[here\](javascript:x) \$y\$"
    True
    """
    letters = " ".join(str(text).split())
    # An unseen joiner keeps addresses from becoming links.
    letters = letters.replace("://", ":\u2060//").replace("www.", "www\u2060.")
    return "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in letters)
