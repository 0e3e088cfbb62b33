"""Panels are what Plotly itself would have drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotly.subplots import make_subplots

from hbm_core.plots.panels import Panels


def fill(figure: Any) -> dict[str, Any]:
    """The same words said to either."""
    table = pd.DataFrame({"x": [1, 2, 3], "y": [0.5, np.nan, 2.5]})
    figure.update_layout(height=300, margin={"l": 4}, showlegend=False)
    figure.update_layout(margin={"r": 5})
    figure.add_scatter(x=table["x"], y=table["y"], line={"color": "#123456"}, fill=None, row=1, col=1)
    figure.add_scatter(
        x=np.array([1, 2], dtype=np.float32), y=[0, *table["y"][:1]], mode="markers", row=2, col=2
    )
    figure.add_contour(x=np.arange(2.0), y=np.arange(2.0), z=np.eye(2), showscale=False, row=2, col=1)
    figure.update_xaxes(range=[0, 4], title_text="Draw", row=2)
    figure.update_xaxes(title={"standoff": 26}, row=2, col=2)
    figure.update_yaxes(ticks="", tickvals=[0, 1], ticktext=["none", "one"], col=1)
    figure.update_yaxes(fixedrange=True)
    figure.add_annotation(text="a", x=0, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure.to_dict()


@pytest.mark.parametrize("columns", [2, 3])
def test_panels_are_plotlys_own(columns: int):
    widths = [0.7, 0.3] if columns == 2 else None
    wanted = make_subplots(
        rows=2,
        cols=columns,
        column_widths=widths,
        shared_yaxes=True,
        vertical_spacing=0.1,
        horizontal_spacing=0.02,
    )
    panels = Panels(2, columns, widths, 0.1)
    assert fill(panels) == fill(wanted)
    assert panels.top(2) == wanted.get_subplot(2, 1).yaxis.domain[1]


def test_one_figure_leaves_the_next_as_it_was():
    first = Panels(1)
    first.update_xaxes(range=[0, 1], title={"text": "x"})
    assert "range" not in Panels(1).to_dict()["layout"]["xaxis"]


def test_readers_of_the_figure_see_what_plotly_checked():
    wrong = Panels(1)
    wrong.add_scatter(x=[1], y=[2], mode="no such mode", row=1, col=1)
    with pytest.raises(ValueError, match="no such mode"):
        _ = wrong.data
