"""A button that puts the page's address on the clipboard: the address holds the whole study."""

from __future__ import annotations

from functools import cache
from typing import Any

import streamlit as st

_SCRIPT = """
export default function ({ parentElement }) {
  const button = parentElement.querySelector("button");
  button.onclick = async () => {
    const address = new URL(window.location.pathname + window.location.search, window.location.origin);
    let done = false;
    try { await navigator.clipboard.writeText(address.href); done = true; }
    catch {                                  // no clipboard without HTTPS: the old way still works
      const field = document.createElement("textarea");
      field.value = address.href;
      document.body.append(field);
      field.select();
      done = document.execCommand("copy");
      field.remove();
    }
    button.textContent = done ? "Copied" : "Copy it from the address bar";
    setTimeout(() => { button.textContent = "Copy link"; }, 1800);
  };
}
"""
_STYLE = """
button { width: 100%; min-height: 2.5rem; font: inherit; font-size: .875rem; cursor: pointer;
  color: var(--st-text-color); background: var(--st-background-color);
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius, 6px); }
button:hover { border-color: var(--st-primary-color); color: var(--st-primary-color); }
button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
"""


@cache
def _component() -> Any:
    html = '<button type="button" title="Reopens exactly this study">Copy link</button>'
    return st.components.v2.component("copy_link", html=html, css=_STYLE, js=_SCRIPT)


def copy_link() -> None:
    """Draw the button; the address is the browser's own, which mirrors the study."""
    _component()(key="copy_link")
