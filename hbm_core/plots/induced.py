"""What a prior on τ says about the scale that the effects really have, where that is another number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.inference.exact.two_level import TwoLevelPosterior
from hbm_core.models.dataset import Words
from hbm_core.plots import vega
from hbm_core.plots.theme import themed
from hbm_core.plots.tokens import Mode, colours

_CURVES = ("prior on τ", "prior on τ* that it induces", "posterior of τ*")


def induced_table(posterior: TwoLevelPosterior, points: int = 400) -> pd.DataFrame:
    """Densities of τ and of the effective scale τ*.

    Returns
    -------
    DataFrame
        x (the outcome's units), density (per unit), curve.
    """
    upper = float(3 * posterior.quantiles([0.9])[posterior.index("tau"), 0])
    x = np.linspace(upper / points, upper, points)
    rows = (
        np.exp(posterior.spec.priors["tau"].log_density(x)),
        posterior.induced_prior_density(x),
        posterior.induced_posterior_density(x),
    )
    parts = [
        pd.DataFrame({"x": x, "density": row, "curve": curve})
        for curve, row in zip(_CURVES, rows, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def induced(table: pd.DataFrame, words: Words, mode: Mode) -> vega.Figure:
    """Draw `induced_table`: priors as outlines, the posterior filled."""
    c = colours(mode)
    unit = f", {words.unit}" if words.unit else ""
    x = vega.channel("x:Q", title=f"τ and τ*, spread of the true effects{unit}")
    y = vega.channel("density:Q", title=None, axis=None)
    filled = (
        vega.Chart(table[table["curve"] == _CURVES[2]])
        .mark_area(color=c["accent"], opacity=0.25, line={"color": c["accent"], "strokeWidth": 1.25})
        .encode(x=x, y=y)
    )
    outlines = (
        vega.Chart(table[table["curve"] != _CURVES[2]])
        .mark_line(color=c["ink-2"], strokeWidth=1.25)
        .encode(
            x=x,
            y=y,
            strokeDash=vega.channel(
                "curve:N",
                scale=dict(domain=list(_CURVES[:2]), range=[[1, 0], [4, 3]]),
                legend=dict(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=1.5),
            ),
        )
    )
    return themed(vega.layer(filled, outlines).properties(height=170), mode)
