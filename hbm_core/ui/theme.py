"""Which theme the visitor sees, and drawing in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.dataframe_util import convert_pandas_df_to_arrow_bytes
from streamlit.delta_generator import DeltaGenerator

from hbm_core.plots import vega
from hbm_core.plots.tokens import Mode
from hbm_core.scenarios.tables import csv_text

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


def numbers(table: pd.DataFrame, name: str, key: str) -> None:
    """A button that hands out a picture's table as CSV, full precision; `name` becomes the file's."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower())
    st.download_button(
        "Download the numbers",
        lambda: csv_text(table),
        file_name=f"{stem}.csv",
        mime="text/csv",
        on_click="ignore",
        key=key,
    )


def kept_choice[Option](
    label: str, options: Sequence[Option], start: Sequence[Option], kept: str, key: str, **words: Any
) -> list[Option]:
    """A choice of several that outlives visits to other pages, under the session's key `kept`."""
    found = [option for option in st.session_state.get(kept, start) if option in options] or list(start)
    st.session_state[key] = found

    def changed() -> None:
        st.session_state[kept] = st.session_state[key]

    return list(st.multiselect(label, options, key=key, on_change=changed, **words))


def plain(text: object) -> str:
    r"""Text that Markdown shows as it is: for messages that quote what people typed.

    >>> plain("[here](javascript:x) $y$") == r"\[here\](javascript:x) \$y\$"
    True
    """
    letters = " ".join(str(text).split())
    # An unseen joiner keeps addresses from becoming links.
    letters = letters.replace("://", ":\u2060//").replace("www.", "www\u2060.")
    return "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in letters)
