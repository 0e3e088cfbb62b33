"""A fit as a notebook: the stand-alone script in cells, ready to run. Plain JSON, format 4.5."""

from __future__ import annotations

import ast
import hashlib
import json
from typing import Any

#: How a part of the script begins → heading of its cell, and a sentence for the reader.
_HEADINGS = (
    ("units =", "Data", "What was measured, with its standard errors."),
    ("with pm.Model", "Model", "The hierarchy and its priors."),
    ("fit =", "Fit", "The same settings and seed as the fit this was made from."),
    (
        "# The effects given",
        "Effects",
        "The effects were integrated out; each is drawn from its exact conditional.",
    ),
    ("print(", "Summary", "Posterior means, intervals and convergence."),
)


def notebook(script: str, title: str, about: str = "") -> str:
    """Write a notebook from a script of `hbm_core.report.code.script`.

    Parameters
    ----------
    script : str
        Python source whose parts are set apart by blank lines.
    title : str
        Heading of the notebook; any text.
    about : str
        A paragraph under it; any text.

    Returns
    -------
    str
        JSON of an ``.ipynb`` file, without outputs; the same for the same input.
    """
    cells = [_words(f"# {_plain(title)}\n\n{_plain(about)}".rstrip())]
    for part in _parts(script):
        for opening, heading, sentence in _HEADINGS:
            if part.startswith(opening):
                cells.append(_words(f"## {heading}\n\n{sentence}"))
        if part.startswith("print(") and part.endswith(".to_string())"):
            # A notebook shows a table better than its text.
            part = part.removeprefix("print(").removesuffix(".to_string())")
        cells.append(_code(part))
    for place, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{place}{cell['source']}".encode()).hexdigest()[:12]
    value = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _parts(script: str) -> list[str]:
    """The script's blocks between blank lines, its docstring left out."""
    body = ast.parse(script).body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
        script = "\n".join(script.splitlines()[first.end_lineno :])
    return [part.strip("\n") for part in script.split("\n\n") if part.strip()]


def _plain(text: str) -> str:
    """Text that Markdown and a notebook's HTML show as it is: titles come from people."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+!|$&~" else letter for letter in text)


def _words(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }
