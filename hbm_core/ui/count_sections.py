"""Sections of the page Shrinkage for models of counts that are sampled: what each adds to the rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pandas as pd
import streamlit as st
import xarray as xr
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import count_extensions as tables
from hbm_core.errors import StoreError
from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts
from hbm_core.plots import count_extensions as plots
from hbm_core.plots import rates as rate_plots
from hbm_core.plots.theme import number
from hbm_core.ui import fits, reweighted, theme
from hbm_core.ui import shrinkage_page as page_of
from hbm_core.ui.shelf import Shelf
from hbm_core.ui.shrinkage_page import Page

Section = Callable[[Page, DeltaGenerator, DeltaGenerator], None]

#: Trajectories of fits: a few numbers per window.
_TRAJECTORIES = Shelf[xr.DataTree](entries=16, size=40_000_000)


def shut(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Zeros seen, and under the model with and without windows that are shut."""
    table = tables.shut_table(page.posterior)
    both = tables.rootograms(page.posterior)
    psi = page.posterior.quantiles((0.025, 0.5, 0.975))[page.posterior.index("psi")]
    with right:
        theme.title("Zeros, with and without shut windows")
        theme.chart(plots.shares(table, page.view), key="shut_shares")
        theme.caption(
            f"Shut: {100 * psi[1]:.0f} % of the windows (95 % interval {100 * psi[0]:.0f} to "
            f"{100 * psi[2]:.0f} %). The lowest line is what the rates alone would show."
        )
    with left:
        kinds = {"with": "With shut windows", "without": "Rates alone"}
        kind = st.segmented_control(
            "Model", list(kinds), format_func=lambda one: kinds[one], default="with", key="shut_kind"
        )
        theme.title("How often each count was seen, and how often it should be")
        theme.chart(
            rate_plots.rootogram(both[kind or "with"], "windows", page.view.mode), key="shut_rootogram"
        )
        theme.caption(
            "A hanging rootogram: each bar is what was seen, hung from the curve of what is expected, both "
            "as square roots. Without shut windows the bar at 0 ends below the line where zeros are too many."
        )


def coefficients(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Coefficients of the covariates."""
    table = tables.coefficient_table(page.posterior)
    with left:
        theme.title("What moves the rates")
        theme.chart(plots.coefficients(table, page.view), key="count_coefficients")
        theme.caption(
            "Effect on the log rate of one sd of each column, with 50 and 95 % intervals. The rates on this "
            "page are those at the columns' means."
        )
    with right:
        rows = pd.DataFrame(
            {
                "Column": table["column"],
                "Rate one sd higher": [f"× {number(value, 2)}" for value in table["factor"]],
                "95 %": [
                    f"{number(low, 2)} – {number(high, 2)}"
                    for low, high in zip(table["factor_low95"], table["factor_high95"], strict=True)
                ],
                "P(above 0)": [f"{100 * value:.0f} %" for value in table["p_positive"]],
            }
        )
        st.table(rows, border="horizontal", hide_index=True)


def trajectories(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """The selected entity's rate window by window."""
    with right:
        page_of.unit_words(page)
    tree = _trajectory(page)
    if tree is None:
        left.info("No finished fit of these data holds the rates of the windows. Fit to see them.")
        return
    one = page.view.words.one
    spec = cast(Any, page.live.spec)
    table = tables.trajectory_table(spec, tree, str(page.view.selected))
    with left:
        theme.title(f"The rate of {page.view.selected}, window by window")
        page_of.key_line(("raw point", "raw rate of a window"), ("point", "pooled rate"), view=page.view)
        theme.chart(plots.trajectory(table, page.view), key="count_trajectory")
        theme.caption(
            f"Line: median of the rate; bands: 50 and 95 % intervals. Each window leans on its neighbours "
            f"and on the {one}'s level. The bands are those of the fit, under the fit's own priors."
        )


def _trajectory(page: Page) -> xr.DataTree | None:
    """The group ``trajectory`` of the fit that is nearest to the study."""
    live = page.live
    for job in reweighted.nearest(live.study.request(live.dataset)):

        def read(id: str = job.id) -> xr.DataTree:
            group = fits.engine().result(id)["trajectory"].to_dataset().load()
            return xr.DataTree.from_dict({"trajectory": group})

        try:
            return _TRAJECTORIES.get(job.id, read)
        except (StoreError, KeyError):
            continue
    return None


def two_effects(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Rates and bytes of all entities, and their population."""
    posterior = page.posterior
    table, ellipse = tables.effects_table(posterior), tables.ellipse_table(posterior)
    low, middle, high = posterior.quantiles((0.025, 0.5, 0.975))[posterior.index("corr[count,bytes]")]
    many = page.view.words.many
    with right:
        page_of.unit_words(page)
        row = table.loc[table["unit"] == page.view.selected].iloc[0]
        st.caption(
            f"Bytes of a window, median: {_rounded(row['bytes'])} (95 % interval "
            f"{_rounded(row['bytes_low95'])} to {_rounded(row['bytes_high95'])})."
        )
    with left:
        theme.title(f"Rates and bytes go together: correlation {number(middle, 2)}")
        theme.chart(plots.two_effects(table, ellipse, page.view), key="count_two_effects")
        theme.caption(
            f"Each circle is one of the {many} with its 95 % intervals; both axes are logarithmic. The "
            f"ellipses hold half and 95 % of the population. Correlation of log rate and log bytes: "
            f"{number(low, 2)} to {number(high, 2)} with 95 %."
        )


def _rounded(value: float) -> str:
    """Three figures, written out.

    >>> _rounded(2013.4), _rounded(12.345)
    ('2,010', '12.3')
    """
    return f"{float(f'{value:.3g}'):,.12g}"


#: What a structure shows beyond its rates.
OF: Mapping[type, tuple[str, Section]] = {
    ZeroInflatedCounts: ("Shut windows", shut),
    CovariateCounts: ("Coefficients", coefficients),
    DriftingCounts: ("Trajectories", trajectories),
    JointCounts: ("Rates and bytes", two_effects),
}
