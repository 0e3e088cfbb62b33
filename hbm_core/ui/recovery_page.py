"""The page Coverage for scenarios with a lab of their own: every estimator against simulated truth."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from hbm_core.errors import InputError
from hbm_core.plots import recovery as plots
from hbm_core.plots import vega
from hbm_core.plots.coverage import percent, with_error
from hbm_core.plots.diagnostics import CONFIG
from hbm_core.plots.theme import legend
from hbm_core.plots.tokens import Mode, colours
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.scenarios.tables import csv_text
from hbm_core.store.study import Study
from hbm_core.ui import fits, session, theme
from hbm_core.ui.live import Live

#: Numbers of data sets offered, and seconds between two looks while they are made.
SIZES, PERIOD = (10, 50, 200), 0.6
_KEPT = 32


@dataclass(frozen=True)
class Question:
    """What one table answers: everything that its numbers depend on."""

    scenario: str
    model: str
    priors: tuple[tuple[str, str], ...]
    replications: int
    seed: int


class Bench:
    """One thread that makes tables, and the last of them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="recovery")
        self._known: dict[Question, Future[pd.DataFrame]] = {}

    def ask(self, question: Question, study: Study) -> Future[pd.DataFrame]:
        """The table of a question, made once."""
        if question not in self._known:
            while len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known))).cancel()
            found = find_scenario(question.scenario)
            self._known[question] = self._pool.submit(
                found.recovery, question.replications, question.seed, study.model, dict(study.priors)
            )
        return self._known[question]


@st.cache_resource(show_spinner=False)
def bench() -> Bench:
    """Return the bench that all sessions share."""
    return Bench()


def draw(live: Live) -> None:
    """Draw the whole page."""
    study, words = live.study, live.dataset.words
    try:
        find_scenario(study.scenario).lab_model(study.model)
    except InputError as problem:
        st.info(theme.plain(str(problem)))
        return
    most = fits.engine().settings.max_replications
    offered = [size for size in SIZES if size <= most] or [max(2, most)]
    controls = st.columns([1, 1, 2])
    with controls[0]:
        count = st.segmented_control("Data sets", offered, default=offered[0], key="recovery_size")
    with controls[1]:
        seed = st.number_input("Seed", 1, 2**31, 1, key="recovery_seed")
    priors = tuple((name, prior.text) for name, prior in live.spec.priors.items())
    question = Question(study.scenario, study.model, priors, int(count or offered[0]), int(seed))
    future = bench().ask(question, study)
    if not future.done():
        theme.story("Simulating worlds whose truth is known …")

        @st.fragment(run_every=PERIOD)
        def look() -> None:
            if future.done() or session.study() is not study:
                st.rerun(scope="app")
            st.caption(
                f"{question.replications} data sets of the simulator's default design, each with all "
                "estimators. Nothing waits for it: go on with any page."
            )

        look()
        return
    try:
        table = future.result()
    except InputError as problem:
        st.info(theme.plain(str(problem)))
        return
    _tables(table, words, theme.mode(), question)


def _tables(table: pd.DataFrame, words: Any, mode: Mode, question: Question) -> None:
    level = table[np.isclose(table["level"], 0.95)]
    measures = ["coverage", "coverage_se", "width"]
    overall = level[level["grouping"] == "all"].set_index("estimator")[measures]
    own, none = (overall.loc[name].astype(float).to_dict() for name in ("partial_pooling", "no_pooling"))
    accent = colours(mode)["accent"]
    theme.story(
        f'Partial pooling\'s 95 % intervals cover <b style="color:{accent}">'
        f"{percent(own['coverage'], own['coverage_se'])}</b> of the true effects at "
        f"<b>{100 * own['width'] / none['width']:.0f} %</b> of the width of no pooling's."
    )
    looked = plots.looks([name for name in plots.NAMES if name in set(table["estimator"])], mode)
    entries = [(look.key, look.label, look.colour) for look in looked.values()]
    left, right = st.columns(2, gap="large")
    with left:
        theme.title("Coverage against width")
        st.html(legend(entries, mode))
        figure = plots.against_width(table[table["grouping"] == "all"], looked, words.unit, mode)
        st.plotly_chart(figure, theme=None, width="stretch", key="recovery_width", config=dict(CONFIG))
        theme.caption(
            "Each mark is one estimator at one level, 50, 80, 90 and 95 %. On the dotted line an interval "
            "covers what it promises; farther left it is narrower. Bars are Monte Carlo errors."
        )
    with right:
        theme.title(f"Root mean squared error by how much was seen of {words.a_one}")
        theme.chart(_bars(level[level["grouping"] == "size"], looked, words, mode), key="recovery_bars")
        theme.caption(
            f"The {words.many} of whom little was seen gain most from pooling. Empirical Bayes ties with "
            "full Bayes where a batch is large: what full Bayes adds is the uncertainty of the spreads, "
            "and that matters where it is small."
        )
    theme.title("What is rarely said")
    st.markdown(
        "A hierarchical interval covers 95 % **averaged over the population and over the prior**, not for "
        f"each {words.one}: those far from their group's mean are covered less, those near it more."
    )
    _distance(level, words)
    st.download_button(
        "Download as CSV",
        lambda: csv_text(table),
        file_name=f"recovery-{question.scenario}-{question.replications}.csv",
        mime="text/csv",
        on_click="ignore",
    )


def _bars(rows: pd.DataFrame, looked: dict[str, Any], words: Any, mode: Mode) -> vega.Figure:
    return plots.by_size(rows[rows["estimator"].isin(looked)], looked, words.unit, mode)


def _distance(level: pd.DataFrame, words: Any) -> None:
    kept = level[level["grouping"].isin(["all", "distance", "selection"])]
    bayes = "empirical_bayes" if "empirical_bayes" in set(kept["estimator"]) else "empirical_bayes_moments"
    kept = kept[kept["estimator"].isin(["no_pooling", bayes, "partial_pooling"])]
    rows = {}
    for (grouping, label), part in kept.groupby(["grouping", "bin"], sort=False):
        name = f"All {words.many}" if grouping == "all" else f"{str(label).capitalize()}"
        rows[name] = {
            plots.NAMES[str(row["estimator"])]: f"{percent(row['coverage'], row['coverage_se'])}, "
            f"RMSE {with_error(row['rmse'], row['rmse_se'])}"
            for row in part.to_dict("records")
        }
    st.table(pd.DataFrame(rows).T.rename_axis("Covered by 95 % intervals"), border="horizontal")
