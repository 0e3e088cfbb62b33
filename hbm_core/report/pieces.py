"""Pieces of Python source: literals, lists and priors, for every script that a fit becomes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hbm_core.models.prior import Prior

_WIDTH = 100


def prior_line(name: str, prior: Prior, positive: bool, dims: str = "") -> str:
    """``name = pm.Family("name", numbers)``; a flat prior on a positive parameter is flat on that half."""
    family = "HalfFlat" if positive and not prior.proper else prior.family
    pairs = zip(prior.declared.numbers, prior.numbers, strict=True)
    # With the point: PyTensor holds 300 in 16 bits, and some of PyMC's densities square it there.
    numbers = "".join(f", {number.name}={value!r}" for number, value in pairs)
    return f'{name} = pm.{family}("{name}"{numbers}{dims})'


def listing(name: str, items: Iterable[str], opening: str = "[", closing: str = "]") -> str:
    """``name = [items]``, wrapped where it is too long for a line."""
    listed = list(items)
    line = f"{name} = {opening}{', '.join(listed)}{closing}"
    if len(line) <= _WIDTH:
        return line
    rows, row = [], ""
    for item in listed:
        if row and len(row) + len(item) + 6 > _WIDTH:
            rows.append(row)
            row = ""
        row = f"{row} {item}," if row else f"    {item},"
    return "\n".join([f"{name} = {opening}", *rows, row, closing])


def text(label: str) -> str:
    """A string literal for any label."""
    plain = label.isprintable() and not set(label) & {'"', "\\"}
    return f'"{label}"' if plain else repr(label)


def number(value: float) -> str:
    """Shortest digits that read back as the same number."""
    text = repr(float(np.float64(value)))
    return text.removesuffix(".0")
