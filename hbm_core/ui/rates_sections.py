"""Sections of the page Shrinkage for models of rates: weights, ranks, surprises, forecasts, fit to data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import counts_predictive as predictive
from hbm_core.analysis import rates as tables
from hbm_core.errors import InputError
from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.count_windows import CountWindows
from hbm_core.plots import rates as plots
from hbm_core.plots.shrinkage import View
from hbm_core.plots.theme import number
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.ui import shrinkage_page as page_of
from hbm_core.ui import theme
from hbm_core.ui.shrinkage_page import Page

#: Rows of a ranking, of a list, of forecasts.
_SHOWN = 25
#: A latest window this improbable is called surprising.
_SURPRISING = 0.05
#: Least share of prior predictive counts that lie in the plausible range.
_PLAUSIBLE = 0.9


@dataclass(eq=False)
class _Kept:
    """Tables of one posterior, made when first asked for."""

    made: dict[str, Any]

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]


_KEPT: WeakKeyDictionary[ExactPosterior, _Kept] = WeakKeyDictionary()


def _kept(page: Page) -> _Kept:
    return _KEPT.setdefault(page.posterior, _Kept({}))


def _exact(page: Page, left: DeltaGenerator) -> bool:
    """Whether the section can be drawn; otherwise say why not."""
    if hasattr(page.posterior, "unit_pooling"):
        return True
    left.info("This model has no exact engine, so this view is not drawn. The model base has it.")
    return False


def _plain(page: Page) -> View:
    """A view for legends of pictures that draw no truth."""
    return View(page.view.words, page.view.digits, page.view.mode)


def weights(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Weight of each entity's own data against how much was seen of it."""
    if not _exact(page, left):
        return
    posterior: Any = page.posterior
    table = _kept(page).get("weights", lambda: tables.weight_table(posterior))
    if len(table) > 2000:
        order = np.argsort(table["seen"].to_numpy(), kind="stable")
        table = table.iloc[order[np.linspace(0, len(order) - 1, 2000).astype(int)]]
    with right:
        page_of.unit_words(page)
    with left:
        theme.title("The more was seen, the more the own data count")
        word = posterior.structure.seen[0]
        page_of.picture(plots.own_weights(table, word, page.view), "rates_weights")
        theme.caption(
            f"Each circle is {page.view.words.a_one}: across, how much was seen of it; up, what share of "
            "its estimate is its own rate, the rest being the population's. "
            + (
                "Over-dispersed windows say less than Poisson ones, however many events they hold."
                if "phi" in page.live.spec.priors
                else ""
            )
        )


def _windows(
    page: Page, left: DeltaGenerator, name: str, make: Callable[[Any], pd.DataFrame]
) -> pd.DataFrame | None:
    """A kept table of single windows; None where there is none, with the reason said."""
    if not isinstance(page.live.spec.structure, CountWindows):
        left.info("This view needs counts by window: these data are successes of trials, one row per entity.")
        return None
    try:
        return _kept(page).get(name, lambda: make(page.posterior))
    except InputError as problem:
        left.info(str(problem))
        return None


def _listed(page: Page, table: pd.DataFrame) -> pd.DataFrame:
    """The first rows of a table; the selected entity is always among them."""
    rows = table.head(_SHOWN)
    if page.view.selected in set(rows["unit"]):
        return rows
    return pd.concat([rows.head(_SHOWN - 1), table[table["unit"] == page.view.selected]])


def _told(page: Page, rows: pd.DataFrame, total: int, order: str) -> str:
    """Which entities a picture shows, where it does not show all."""
    if len(rows) == total:
        return ""
    last = str(rows["unit"].iloc[-1]) == page.view.selected
    many = page.view.words.many
    return f" Of {total:,} {many} the {len(rows) - last} {order} are shown" + (
        f", and {escape(str(page.view.selected))}, which is selected." if last else "."
    )


def ranking(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Ranks with intervals."""
    posterior: Any = page.posterior
    one, many = page.view.words.one, page.view.words.many
    count = len(page.live.spec.structure.units)
    with right:
        top = int(
            st.slider("The top", 1, max(2, min(50, count - 1)), min(10, max(1, count // 4)), key="rates_top")
        )
        page_of.unit_words(page)
    table = _kept(page).get(f"ranking {top}", lambda: tables.ranking_table(posterior, top))
    rows = _listed(page, table)
    with left:
        sure = int((table["p_top"] > 0.9).sum())
        theme.title(f"Who is on top: {sure} of the {many} belong to the top {top} with more than 90 %")
        page_of.picture(plots.ranking(rows, count, page.view), "rates_ranking")
        theme.caption(
            f"Mean rank of each {one} and its 90 % interval, by joint draws of all rates. Wide intervals say "
            "that a list of the best would look different with other data."
            + _told(page, rows, count, "first by mean rank")
        )


def surprises(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Entities whose latest window is surprising, as a list."""
    table = _windows(page, left, "surprises", tables.surprise_table)
    if table is None:
        return
    one, many = page.view.words.one, page.view.words.many
    found = int((table["surprise"] < _SURPRISING).sum())
    expected = _SURPRISING * len(table)
    with right:
        page_of.unit_words(page)
        place = int(np.flatnonzero(table["unit"] == page.view.selected)[0])
        own = table.iloc[place]
        page_of.said(
            f"Its latest window had <b>{own['count']:,.0f}</b> events where {number(own['expected'], 1)} "
            f"were expected: as many or {'more' if own['side'] == 'more' else 'fewer'} have a chance of "
            f"{100 * own['surprise'] / 2:.2g} %, number {place + 1:,} of {len(table):,} in the list."
        )
    with left:
        theme.title(f"{found:,} of {len(table):,} {many} have a surprising latest window")
        shown = _listed(page, table)
        rows = pd.DataFrame(
            {
                one.capitalize(): shown["unit"],
                "Latest count": shown["count"],
                "Expected": [number(value, 1) for value in shown["expected"]],
                "Chance of it or beyond": [
                    f"{100 * p:.2g} %" + (f" ± {100 * error:.1g}" if error else "")
                    for p, error in zip(shown["surprise"] / 2, shown["mcse"] / 2, strict=True)
                ],
                "Mark": np.where(
                    shown["surprise"] < _SURPRISING,
                    np.where(shown["side"] == "more", "▲ more than expected", "▼ fewer than expected"),
                    "",
                ),
            }
        )
        st.dataframe(
            rows, hide_index=True, height=min(35 * (len(rows) + 1) + 3, 480), alt="Surprising windows"
        )
        theme.caption(
            "The posterior predictive chance of a count as far out as the latest one, on its side. Marked "
            f"where twice that is below {100 * _SURPRISING:.0f} %: of {len(table):,} {many} about "
            f"{expected:.0f} would be by chance alone, so the list is where to look first, not proof."
            + (_ERRORS if table["mcse"].any() else "")
            + _left_out(table, one)
        )


#: Said where figures come from draws.
_ERRORS = " ± is the Monte Carlo error of the draws."


def _left_out(table: pd.DataFrame, one: str) -> str:
    """What predicts the latest windows where rates move, and how well that went."""
    if not table["limit"].any():
        return ""
    high = int((table["k"] > table["limit"]).sum())
    unsure = f" For {high} of them Pareto's k is too high for the draws to tell." if high else ""
    return (
        f" Each {one}'s latest window is left out and predicted from its earlier ones (leave-future-out, by "
        f"importance weights): log predictive density {number(float(table['log_density'].sum()), 1)} in all, "
        f"not to be compared with leaving whole entities out.{unsure}"
    )


def forecasts(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """The next window of each entity."""
    table = _windows(page, left, "forecasts", tables.forecast_table)
    if table is None:
        return
    one = page.view.words.one
    with right:
        page_of.unit_words(page)
        own = table.loc[table["unit"] == page.view.selected].iloc[0]
        page_of.said(
            f"Its next window: <b>{own['low90']:,.0f} to {own['high90']:,.0f}</b> events with 90 % chance, "
            f"{number(own['expected'], 1)} expected; its latest had {own['latest']:,.0f}."
        )
    rows = _listed(page, table)
    with left:
        theme.title(f"The next window of each {one}")
        page_of.key_line(
            ("raw point", "latest window"),
            ("line", "next window: 90 %, its median the tick"),
            view=_plain(page),
        )
        theme.chart(plots.forecast(rows, page.view), key="rates_forecast")
        theme.caption(
            f"The bar holds the next window of {page.view.words.a_one} with 90 % chance, its own rate and "
            "the scatter of windows both unsure; the tick is the median. The window has the latest one's "
            "exposure."
            + _told(page, rows, len(table), "with the largest forecasts")
            + (
                f" The expected counts have Monte Carlo errors of at most {number(table['mcse'].max(), 2)}."
                if table["mcse"].any()
                else ""
            )
        )


def fit(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Rootogram, zeros, variance over mean, largest count; and the priors before the data."""
    structure: Any = page.live.spec.structure
    simulated = _kept(page).get("replicates", lambda: predictive.replicates(page.posterior))
    bars = predictive.rootogram_table(structure, simulated)
    table = predictive.statistics_table(structure, simulated)
    of = "windows" if isinstance(structure, CountWindows) else page.view.words.many
    with right:
        theme.title("Data beside replicates")
        rows = pd.DataFrame(
            {
                "": table["label"],
                "Seen": [_short(*pair) for pair in zip(table["statistic"], table["observed"], strict=True)],
                "Model, 95 %": [
                    f"{_short(name, low)} – {_short(name, high)}"
                    for name, low, high in zip(
                        table["statistic"], table["low95"], table["high95"], strict=True
                    )
                ],
                "p": [number(value, 2) for value in table["p"]],
            }
        )
        st.table(rows, border="horizontal", hide_index=True)
        st.caption("p below 0.05: data sets that the model makes rarely look like this one.")
        _before_the_data(page)
    with left:
        theme.title("How often each count was seen, and how often it should be")
        page_of.key_line(("line", "expected"), view=_plain(page))
        theme.chart(plots.rootogram(bars, of, page.view.mode), key="rates_rootogram")
        theme.caption(
            "A hanging rootogram: each bar is what was seen, hung from the curve of what the model expects, "
            "both as square roots. A count whose bar ends above the line was seen less often than expected, "
            "below it more often; the last bar holds all larger counts. The grey band holds 95 % of "
            "replicated data; bars that end outside it are outlined."
        )


def _short(statistic: str, value: float) -> str:
    return number(value, 0 if statistic == "largest" else 2)


def _before_the_data(page: Page) -> None:
    lower, upper = find_scenario(page.live.study.scenario).plausible(page.live.dataset)
    if upper <= 1:
        return
    share = _kept(page).get("prior", lambda: predictive.plausible_share(page.live.spec, lower, upper))
    word = "passes" if share >= _PLAUSIBLE else "warns"
    mark = "✓" if share >= _PLAUSIBLE else "⚠"
    st.markdown(
        f"{mark} **Before the data:** {100 * share:.0f} % of counts simulated from the priors alone lie "
        f"between {lower:g} and {upper:,.3g} (at least {100 * _PLAUSIBLE:.0f} % asked): the check {word}."
        + ("" if share >= _PLAUSIBLE else " A prior on μ with less mass on large rates helps.")
    )


SECTIONS: dict[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]] = {
    "Own weight": weights,
    "Ranking": ranking,
    "Surprises": surprises,
    "Forecast": forecasts,
    "Fit to data": fit,
}


#: What draws of a fit answer as well.
_BY_DRAWS = ("Ranking", "Surprises", "Forecast", "Fit to data")


def sections(structure: Any) -> dict[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]]:
    """Sections of a structure of rates; of one that is sampled those that its draws answer, and its own."""
    from hbm_core.ui import count_sections

    own = count_sections.OF.get(type(structure))
    if own is None:
        return SECTIONS
    return {own[0]: own[1], **{name: SECTIONS[name] for name in _BY_DRAWS}}
