"""Plotly figures of panels in a grid, kept as the plain mapping that Plotly draws.

Plotly's own figure validates and copies all of its parts at every update: a hundred milliseconds of the one
interpreter for a picture of three rows, where the picture itself takes five.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from _plotly_utils.utils import convert_to_base64
from plotly.basedatatypes import BaseFigure
from plotly.subplots import make_subplots


@cache
def _grid(rows: int, columns: int, widths: tuple[float, ...] | None, gap: float) -> dict[str, Any]:
    """Axes of a grid, as Plotly places them; the mapping is shared: read-only."""
    figure = make_subplots(
        rows=rows,
        cols=columns,
        column_widths=list(widths) if widths else None,
        shared_yaxes=columns > 1,
        vertical_spacing=gap,
        horizontal_spacing=0.02,
    )
    return figure.layout.to_plotly_json()


class Panels(BaseFigure):
    """Traces in a grid of panels; columns of one row share their vertical axis.

    It has the words of Plotly's figure that pictures here need, and is drawn like one. `data` and `layout`
    are Plotly's own, validated, for readers of the figure.

    Parameters
    ----------
    rows, columns : int
        Of the grid.
    widths : sequence of float, optional
        Shares of the columns.
    gap : float
        Between rows, as a share of the height.
    """

    def __init__(
        self, rows: int, columns: int = 1, widths: Sequence[float] | None = None, gap: float = 0.0
    ) -> None:
        # Not the parent's: it would build what this class is there to avoid.
        self._rows, self._columns = rows, columns
        self._traces: list[dict[str, Any]] = []
        self._plan = deepcopy(_grid(rows, columns, tuple(widths) if widths else None, gap))

    def _add(self, kind: str, row: int, col: int, options: Mapping[str, Any]) -> None:
        place = self._place(row, col)
        given = {name: _array(value) for name, value in options.items() if value is not None}
        self._traces.append({"type": kind, **given, "xaxis": f"x{place}", "yaxis": f"y{place}"})

    def _place(self, row: int, col: int) -> str:
        index = (row - 1) * self._columns + col
        return str(index) if index > 1 else ""

    def add_scatter(self, *, row: int, col: int, **options: Any) -> None:
        """Add a line or points to a panel."""
        self._add("scatter", row, col, options)

    def add_contour(self, *, row: int, col: int, **options: Any) -> None:
        """Add regions to a panel."""
        self._add("contour", row, col, options)

    def add_annotation(self, **options: Any) -> None:
        """Write on the figure."""
        self._plan.setdefault("annotations", []).append(options)

    def update_layout(self, **options: Any) -> None:
        """Set options of the whole figure."""
        _merge(self._plan, options)

    def update_xaxes(self, row: int | None = None, col: int | None = None, **options: Any) -> None:
        """Set options of the horizontal axes of some panels: of all where no row and no column is named."""
        self._axes("x", row, col, options)

    def update_yaxes(self, row: int | None = None, col: int | None = None, **options: Any) -> None:
        """Set options of the vertical axes of some panels."""
        self._axes("y", row, col, options)

    def _axes(self, letter: str, row: int | None, col: int | None, options: Mapping[str, Any]) -> None:
        for at in range(1, self._rows + 1):
            for along in range(1, self._columns + 1):
                if row in (None, at) and col in (None, along):
                    _merge(self._plan.setdefault(f"{letter}axis{self._place(at, along)}", {}), options)

    def top(self, row: int) -> float:
        """Upper end of a row's panels, as a share of the figure's height."""
        return float(self._plan[f"yaxis{self._place(row, 1)}"]["domain"][1])

    def to_dict(self) -> dict[str, Any]:
        """The figure as Plotly draws it, arrays as bytes."""
        found = {"data": deepcopy(self._traces), "layout": deepcopy(self._plan)}
        convert_to_base64(found)
        return found

    @cached_property
    def _checked(self) -> go.Figure:
        return go.Figure({"data": self._traces, "layout": self._plan})

    @property
    def data(self) -> Any:
        """The traces."""
        return self._checked.data

    @property
    def layout(self) -> Any:
        """Axes, titles, notes."""
        return self._checked.layout


def _array(value: Any) -> Any:
    return value.to_numpy() if isinstance(value, (pd.Series, pd.Index)) else value


def _merge(into: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Set options in place; of a mapping only what it names, `title_text` like Plotly's own."""
    for name, value in options.items():
        if name == "title_text":
            _merge(into, {"title": {"text": value}})
        elif isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            plain = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
            into[name] = deepcopy(dict(plain)) if isinstance(plain, Mapping) else plain
