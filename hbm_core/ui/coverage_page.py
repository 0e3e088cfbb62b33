"""What the page Coverage needs from Streamlit: the lab's settings, kept tables, one section each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import coverage as tables
from hbm_core.analysis.batched import with_priors
from hbm_core.analysis.coverage import CLASSICAL, Truth
from hbm_core.analysis.promise import coverage_curve, infinite, lab_priors, like_sizes, tau_grid
from hbm_core.analysis.spread import Spread, in_turn
from hbm_core.errors import FitError, InputError, StoreError
from hbm_core.models.prior import Prior
from hbm_core.plots import coverage as plots
from hbm_core.plots.coverage import percent, with_error
from hbm_core.plots.theme import legend, number
from hbm_core.plots.tokens import Mode, colours
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.store.cluster import spread_of
from hbm_core.ui import fits, theme
from hbm_core.ui.live import Live
from hbm_core.ui.trace_page import symbol

_LAB = "coverage_lab"
#: The choice that follows the study; a select box takes no None.
_OWN = "own"
WORLDS = {
    "normal": "Normal, as the model assumes",
    "student_t": "Heavy tails (Student t)",
    "clusters": "Two clusters",
    "wrong_se": "Wrong standard errors",
}
REPLICATIONS = (100, 200, 500, 1000, 2000, 5000, 10_000)
SBC_REPLICATIONS = (100, 200, 500, 1000, 2000)
#: Simulated effects that are solved without asking, and seconds that one takes.
_AT_ONCE, _SECONDS_EACH = 12_000, 1.2e-4
#: Most units of a simulated data set.
MOST_UNITS = 60


@dataclass(frozen=True)
class Lab:
    """Settings of the lab.

    Parameters
    ----------
    world : str
        A key of `WORLDS`.
    nu, factor : float
        Degrees of freedom of "student_t"; true noise over reported standard errors of "wrong_se".
    tau : float, optional
        True τ in the outcome's units; drawn from the prior where absent.
    units : int, optional
        Units of each data set, their standard errors like the study's; the study's own where absent.
    replications : int, optional
        Data sets; as many as answer at once where absent.
    seed : int
        Makes the data sets.
    """

    world: str = "normal"
    nu: float = 4.0
    factor: float = 1.5
    tau: float | None = None
    units: int | None = None
    replications: int | None = None
    seed: int = 42


@dataclass(frozen=True, eq=False)
class Page:
    """All that the sections read.

    Parameters
    ----------
    live : Live
        Study and data.
    lab : Lab
        Settings.
    own : str
        Name of the estimator that pools like the study.
    priors : mapping of str to mapping
        Partial-pooling estimators: the study's first, then the scenario's presets.
    note : str
        Why the first estimator is not the study's model; empty where it is.
    se : ndarray (J,)
        Standard errors of the simulated data sets, in the outcome's units.
    mode : {"light", "dark"}
        Theme.
    """

    live: Live
    lab: Lab
    own: str
    priors: dict[str, dict[str, Prior]]
    note: str
    se: np.ndarray = field(repr=False)
    mode: Mode = "light"

    @property
    def words(self) -> Any:
        """Names and units of the data set."""
        return self.live.dataset.words

    @property
    def typical(self) -> float:
        """Median standard error: the middle of the axis of τ."""
        return float(np.median(self.se))

    @property
    def proper(self) -> bool:
        """Whether the study's priors can be drawn from."""
        return all(prior.proper for prior in self.priors[self.own].values())

    @property
    def tau(self) -> float | None:
        """The fixed true τ, or None where it is drawn from the prior."""
        return self.typical if self.lab.tau is None and not self.proper else self.lab.tau

    @property
    def replications(self) -> int:
        """Data sets."""
        if self.lab.replications is not None:
            return self.lab.replications
        offered = within(REPLICATIONS)
        fitting = [r for r in offered if r * len(self.se) <= 8000 and r <= 1000]
        return fitting[-1] if fitting else offered[0]

    @property
    def truth(self) -> Truth:
        """The world."""
        lab, prior = self.lab, self.priors[self.own]
        center = float(prior["mu"].distribution.mean()) if prior["mu"].proper else 0.0
        return Truth(
            se=tuple(self.se),
            mu=prior["mu"] if self.tau is None else center,
            tau=prior["tau"] if self.tau is None else self.tau,
            effects=lab.world if lab.world in ("student_t", "clusters") else "normal",  # type: ignore[arg-type]
            nu=lab.nu,
            se_factor=lab.factor if lab.world == "wrong_se" else 1.0,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Estimators of one world: the classical ones and the study's."""
        return (*CLASSICAL, self.own)

    @property
    def tail(self) -> float:
        """How fast the density of true τ falls: which averages exist."""
        return self.priors[self.own]["tau"].tail if self.tau is None else np.inf


def within(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Those numbers of data sets that HBM_MAX_REPLICATIONS allows; the limit itself where it is below all."""
    most = fits.engine().settings.max_replications
    return tuple(size for size in sizes if size <= most) or (most,)


def open_page(live: Live) -> Page:
    """The lab for a study: its standard errors, its priors, and the settings of this session."""
    lab = st.session_state.get(_LAB, Lab())
    presets = {
        preset.label.lower(): dict(preset.priors(live.dataset))
        for preset in find_scenario(live.study.scenario).presets
        if preset.model is not None
    }
    presets = {name: p for name, p in presets.items() if set(p) == {"mu", "tau"}}
    note = ""
    try:
        mine = lab_priors(live.spec)
        own = next((name for name, p in presets.items() if p == mine), "your priors")
    except InputError:
        own, mine = next(iter(presets.items()))
        note = (
            f"The lab pools with normal effects around one mean, which {live.study.model.replace('_', ' ')} "
            f"does not: you see the {own} priors."
        )
    se = live.spec.structure.se
    count = lab.units or min(len(se), MOST_UNITS)
    sizes = se if lab.units is None and count == len(se) else like_sizes(se, count)
    priors = {own: mine, **{name: p for name, p in presets.items() if name != own}}
    return Page(live, lab, own, priors, note, sizes, theme.mode())


# ---------------------------------------------------------------------------------------- kept tables


class Shelf:
    """The last tables of all sessions, by settings."""

    def __init__(self, most: int = 64) -> None:
        self._most, self._lock = most, Lock()
        self._kept: OrderedDict[tuple[Any, ...], pd.DataFrame] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> pd.DataFrame | None:
        """A table, never to be changed."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[Any, ...], table: pd.DataFrame) -> pd.DataFrame:
        """Keep a table; the one unused longest goes."""
        with self._lock:
            self._kept[key] = table
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return table


@st.cache_resource(show_spinner=False)
def shelf() -> Shelf:
    """Return the shelf that all sessions share."""
    return Shelf()


def kept(
    key: tuple[Any, ...],
    effects: int,
    seconds: float,
    what: str,
    compute: Callable[[Callable[[float], None], Spread], pd.DataFrame],
) -> pd.DataFrame | None:
    """A table from the shelf, or computed with progress; None while a long one waits for its button.

    A long one goes to the cluster where there is one.
    """
    if (found := shelf().get(key)) is not None:
        return found
    if effects > _AT_ONCE:
        st.info(f"{what} takes about {_duration(seconds)}.")
        if not st.button("Run", key=f"coverage_run_{key[0]}", type="primary"):
            return None
    spread = spread_of(fits.engine()) if effects > _AT_ONCE else in_turn
    bar, begun = st.empty(), time.monotonic()

    def show(share: float) -> None:
        left = (time.monotonic() - begun) * (1 - share) / share if share > 0.05 else seconds * (1 - share)
        bar.progress(min(share, 1.0), f"{what}: about {_duration(left)} left")

    show(0.0)
    try:
        return shelf().put(key, compute(show, spread))
    except (FitError, StoreError) as problem:
        st.error(str(problem))
        return None
    finally:
        bar.empty()


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _key(page: Page) -> tuple[Any, ...]:
    priors = tuple((n, *(f"{k}={v.text}" for k, v in p.items())) for n, p in page.priors.items())
    return (priors, page.own, page.truth, page.replications, page.lab.seed)


def study_table(page: Page) -> pd.DataFrame | None:
    """The simulation study of the lab's world, all estimators and groupings."""
    effects = page.replications * len(page.se)

    def compute(progress: Callable[[float], None], spread: Spread) -> pd.DataFrame:
        table = tables.coverage_study(
            page.truth,
            {page.own: page.priors[page.own]},
            (*CLASSICAL, "partial"),
            page.replications,
            page.lab.seed,
            progress=progress,
            spread=spread,
        )
        return infinite(table, page.tail)

    what = f"Solving {page.replications:,} simulated data sets of {len(page.se)} {page.words.many}"
    return kept(("study", *_key(page)), effects, effects * _SECONDS_EACH, what, compute)


def curve_table(page: Page) -> pd.DataFrame | None:
    """Coverage at each τ of every estimator and prior, all levels."""
    grid = [float(t) for t in tau_grid(page.typical)]
    each = page.replications * len(page.se)
    seconds = each * (len(grid) + 1) * len(page.priors) * 6e-6

    def compute(progress: Callable[[float], None], spread: Spread) -> pd.DataFrame:
        return coverage_curve(
            page.truth,
            page.priors,
            grid,
            CLASSICAL,
            page.replications,
            page.lab.seed,
            tables.LEVELS,
            progress,
            spread,
        )

    what = f"Solving {page.replications:,} data sets at each of {len(grid)} values of τ"
    return kept(("curve", *_key(page)), each, seconds, what, compute)


# --------------------------------------------------------------------------------------------- controls


def _set(**changes: Any) -> None:
    st.session_state[_LAB] = replace(st.session_state.get(_LAB, Lab()), **changes)


def _choose(
    label: str, name: str, options: list[Any], current: Any, words: Callable[[Any], str], **more: Any
) -> None:
    key = f"coverage_{name}"
    st.session_state[key] = current if current in options else options[0]
    st.selectbox(
        label,
        options,
        format_func=words,
        key=key,
        on_change=lambda: _set(**{name: None if st.session_state[key] == _OWN else st.session_state[key]}),
        **more,
    )


def controls(page: Page, fixed_tau: bool = True) -> None:
    """The simulated world beside the picture."""
    lab, words = page.lab, page.words
    unit = f" {words.unit}" if words.unit else ""
    theme.title("The simulated world")
    _choose("True effects", "world", list(WORLDS), lab.world, WORLDS.__getitem__)
    if lab.world == "student_t":
        _slide("Degrees of freedom", "nu", 2.5, 30.0, 0.5, lab.nu)
    if lab.world == "wrong_se":
        _slide("True noise ÷ reported standard error", "factor", 0.5, 3.0, 0.1, lab.factor)
    if fixed_tau:
        values = [float(t) for t in tau_grid(page.typical)]
        options: list[Any] = [*([_OWN] if page.proper else []), *values]
        if page.tau is not None and page.tau not in options:
            options = sorted([page.tau, *values]) if not page.proper else [_OWN, *sorted([page.tau, *values])]
        _choose(
            "True τ",
            "tau",
            options,
            _OWN if page.tau is None else page.tau,
            lambda t: f"drawn from the prior, {page.own}" if t == _OWN else f"{t:,.6g}{unit}",
            help="A promise made by a prior holds when the world is drawn from that prior. "
            "Fix τ to see one world.",
        )
    own = len(page.live.spec.structure.units)
    shown = (
        f"{own:,} {words.many} of this study" if own <= MOST_UNITS else f"{MOST_UNITS} of its {own:,} sizes"
    )
    _choose(
        "Standard errors",
        "units",
        [_OWN, 3, 8, 20, 40],
        lab.units or _OWN,
        lambda count: shown if count == _OWN else f"{count} {words.many} like them",
    )
    offered = within(REPLICATIONS)
    _choose("Simulated data sets", "replications", list(offered), page.replications, "{:,}".format)
    if len(offered) < len(REPLICATIONS):
        st.caption(f"This server stops at {offered[-1]:,}; its owner can raise HBM_MAX_REPLICATIONS.")
    _seed(lab)
    if page.note:
        st.caption(page.note)


def _seed(lab: Lab) -> None:
    st.session_state["coverage_seed"] = lab.seed
    st.number_input(
        "Seed",
        0,
        2**32 - 1,
        step=1,
        key="coverage_seed",
        on_change=lambda: _set(seed=st.session_state["coverage_seed"]),
    )


def _slide(label: str, name: str, low: float, high: float, step: float, current: float) -> None:
    key = f"coverage_{name}"
    st.session_state[key] = current
    st.slider(label, low, high, step=step, key=key, on_change=lambda: _set(**{name: st.session_state[key]}))


# ---------------------------------------------------------------------------------------------- words


def picture(figure: go.Figure, key: str, alt: str) -> None:
    """Draw a Plotly figure in the design tokens."""
    config = {"displayModeBar": False, "responsive": True, "showTips": False}
    st.plotly_chart(figure, theme=None, width="stretch", key=key, config=config, alt=alt)


def story(page: Page) -> None:
    """The page's first sentence: what a hierarchical interval promises."""
    accent = colours(page.mode)["accent"]
    theme.story(
        f'A <b style="color:{accent}">partially pooled</b> 95 % interval keeps its word <b>on average</b> '
        "over the units and over its prior; not for each unit, and not at each τ."
    )


def _where(page: Page) -> str:
    unit = f" {escape(page.words.unit)}" if page.words.unit else ""
    if page.tau is None:
        return f"τ drawn from its prior, {escape(page.priors[page.own]['tau'].text)}"
    return f"true τ fixed at {page.tau:,.6g}{unit}"


def _at(table: pd.DataFrame, name: str, grouping: str = "all", bin: str = "all", level: float = 0.95) -> Any:
    rows = table[(table["estimator"] == name) & (table["grouping"] == grouping) & (table["bin"] == bin)]
    return rows[rows["level"] == level].iloc[0]


def _figures(rows: Sequence[tuple[str, ...]], heads: tuple[str, ...]) -> None:
    """A small table of words beside a picture."""
    head = "".join(f'<th style="text-align:{_side(k)}">{escape(h)}</th>' for k, h in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:{_side(k)}">{cell}</td>' for k, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    st.html(
        "<style>.figures{font-size:12.5px;line-height:17px;border-collapse:collapse;width:100%;"
        "font-variant-numeric:tabular-nums}.figures th{font-weight:400;opacity:.75;padding:2px 0 4px 8px}"
        ".figures td{padding:3px 0 3px 8px;white-space:nowrap}.figures td:first-child,.figures th:first-child"
        "{padding-left:0;white-space:normal}</style>"
        '<div style="overflow-x:auto"><table class="figures">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _side(column: int) -> str:
    return "right" if column else "left"


def _sentence(text: str) -> None:
    kept_together = text.replace(" %", "&nbsp;%").replace(" ± ", "&nbsp;±&nbsp;")
    st.html(f'<p style="font-size:14px;line-height:20px;margin:0;text-wrap:pretty">{kept_together}</p>')


def _label(look: plots.Look) -> str:
    text = look.label.replace("partial pooling, ", "partial, ")
    return escape(text[0].upper() + text[1:])


def download(page: Page, table: pd.DataFrame, name: str) -> None:
    """The numbers behind a picture, full precision."""
    theme.numbers(table, f"{name} {page.live.study.dataset[:24]} {page.own}", f"coverage_download_{name}")


_MONTE_CARLO = "Error bars are 95 % Monte-Carlo intervals; ± is one Monte-Carlo standard error."


# --------------------------------------------------------------------------------------------- sections


def _coverage(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    with right:
        controls(page)
    with left:
        theme.title("Promised, delivered, and how wide")
        table = study_table(page)
        if table is None:
            return
        looked = plots.looks(page.names, page.mode)
        rows = table[table["grouping"] == "all"]
        st.html(legend(plots.legend_entries(looked), page.mode))
        picture(
            plots.against_width(rows, looked, page.words.unit, page.mode),
            "coverage_width",
            "Coverage against width of 50, 80, 90 and 95 % intervals, one line per estimator",
        )
        theme.caption(
            "Each mark is one kind of interval: how wide it is on average, and how often it holds the truth. "
            "Dashed lines are the promises, 50, 80, 90 and 95 %: a mark on its line is honest, and further "
            f"left is sharper. {page.replications:,} simulated data sets, {_where(page)}. {_MONTE_CARLO}"
        )
        _sentence(coverage_words(page, table))
        lines = []
        for name, look in looked.items():
            row = _at(table, name)
            lines.append(
                (_label(look), percent(row.coverage, row.coverage_se), with_error(row.width, row.width_se))
            )
        _figures(lines, ("95 % interval", "covers", f"mean width{_of(page)}"))
        download(page, rows, "coverage")


def _of(page: Page) -> str:
    return f", {page.words.unit}" if page.words.unit else ""


def coverage_words(page: Page, table: pd.DataFrame) -> str:
    """What the picture shows, in a sentence with its figures."""
    own, none = _at(table, page.own), _at(table, "none")
    off = own.coverage - 0.95
    said = percent(own.coverage, own.coverage_se)
    change = 1 - own.width / none.width
    width = f"{number(100 * abs(change), 0)} % {'narrower' if change > 0 else 'wider'} than no pooling's"
    if abs(off) <= 3 * own.coverage_se:
        verdict = f"keep their promise ({said})"
    elif off > 0:
        verdict = f"cover more than they promise ({said})"
    else:
        verdict = f"cover less than they promise ({said})"
    where = "Averaged over its prior" if page.tau is None else "In this world"
    return f"<b>{where}, partial pooling's 95 % intervals {verdict}</b>, and are {width}."


def _by_tau(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    with right:
        controls(page, fixed_tau=False)
        chosen = st.segmented_control(
            "Interval",
            _PERCENT,
            default=95,
            format_func="{} %".format,
            key="coverage_level",
            width="stretch",
        )
        looked = plots.looks((*CLASSICAL, *page.priors), page.mode)
        st.caption("Estimators shown")
        kinds = [
            name for name in looked if st.checkbox(_label(looked[name]), True, key=f"coverage_kind_{name}")
        ]
    level = (chosen or 95) / 100
    with left:
        theme.title(f"What a {100 * level:g} % interval covers, world by world")
        table = curve_table(page)
        if table is None:
            return
        curve = table[table["level"] == level]
        if kinds:
            looked = {name: look for name, look in looked.items() if name in kinds}
        shown_curve = curve[curve["estimator"].isin(list(looked))]
        density = plots.prior_on_axis(
            {n: p["tau"] for n, p in page.priors.items() if n in looked}, page.typical
        )
        st.html(legend(plots.legend_entries(looked), page.mode))
        picture(
            plots.by_tau(shown_curve, density, looked, page.typical, page.words.unit, page.mode),
            "coverage_tau",
            "Coverage at each true tau, one line per estimator, with the prior densities of tau beneath",
        )
        theme.caption(
            "Go right to worlds whose units differ more. Each line is how often an estimator's intervals "
            "hold the truth when τ is fixed there; beneath is how much prior each world gets, area being "
            "probability. A hierarchical interval may cover too much where its prior sits and too little "
            f"beyond: the promise is the average. {page.replications:,} data sets at each τ, the same "
            f"random numbers at all. {_MONTE_CARLO}"
        )
        _sentence(tau_words(page, curve))
        unit = f" {page.words.unit}" if page.words.unit else ""
        shown = [t for t in _shown_taus(page.typical) if t in set(curve["tau"])]
        lines = []
        for name, look in looked.items():
            rows = curve[curve["estimator"] == name]
            found = {row["tau"]: percent(row["coverage"], row["coverage_se"]) for row in plots.records(rows)}
            drawn = [said for tau, said in found.items() if np.isnan(tau)]
            cells = (*(found[t] for t in shown), drawn[0] if drawn else "–")
            lines.append((_label(look), *(cell.removesuffix(" %") for cell in cells)))
        _figures(
            lines, (f"Covered, %, at τ{unit and f',{unit}'}", *(f"{t:,.6g}" for t in shown), "its prior")
        )
        download(page, table, "coverage by tau")


def _shown_taus(typical: float) -> list[float]:
    grid = [float(t) for t in tau_grid(typical)]
    near = [min(grid, key=lambda t: abs(t / (t + typical) - u)) for u in (0.0, 0.3, 0.48, 0.65)]
    return list(dict.fromkeys(near))


def tau_words(page: Page, curve: pd.DataFrame) -> str:
    """The fact that is rarely said, with this design's figures."""
    rows = curve[curve["estimator"] == page.own]
    fixed = rows[rows["tau"].notna()]
    least = fixed.iloc[int(fixed["coverage"].argmin())]
    most = fixed.iloc[int(fixed["coverage"].argmax())]
    drawn = rows[rows["tau"].isna()]
    unit = f" {escape(page.words.unit)}" if page.words.unit else ""
    average = (
        "Averaged over its prior it covers "
        f"<b>{percent(drawn['coverage'].iloc[0], drawn['coverage_se'].iloc[0])}</b>; "
        if len(drawn)
        else ""
    )
    return (
        f"<b>{escape(page.own[0].upper() + page.own[1:])}</b>: {average}"
        f"at τ = {most['tau']:,.6g}{unit} {percent(most['coverage'], most['coverage_se'])}, "
        f"at τ = {least['tau']:,.6g}{unit} only {percent(least['coverage'], least['coverage_se'])}."
    )


def _by_size(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    with right:
        controls(page)
    with left:
        theme.title("Who gains: error, bias and score by size")
        table = study_table(page)
        if table is None:
            return
        rows = table[(table["grouping"] == "precision") & (table["level"] == 0.95)]
        if rows.empty:
            st.info("Fewer than three units make no groups by size. Choose more under Standard errors.")
            return
        looked = plots.looks(page.names, page.mode)
        finite = rows[np.isfinite(rows["interval_score"])]["estimator"]
        looked = {name: look for name, look in looked.items() if name in set(finite)}
        st.html(legend(plots.legend_entries(looked), page.mode))
        picture(
            plots.by_size(rows, looked, page.words.unit, _bins(page, rows), page.mode),
            "coverage_size",
            "Mean squared error, bias and interval score by standard error, bars per estimator",
        )
        absent = (
            f" Complete pooling has no finite mean under {escape(page.priors[page.own]['tau'].text)}, whose "
            "draws of τ know no bound: it has no bar. Fix τ to compare it."
            if page.tail <= 2
            else ""
        )
        theme.caption(
            "Lower is better, and for bias nearer to zero. From left to right the "
            f"{escape(page.words.many)} are measured less precisely: pooling gains "
            "most there. The interval score adds to the width a "
            f"fine for every miss. {page.replications:,} data sets, {_where(page)}. {_MONTE_CARLO}{absent}"
        )
        _sentence(size_words(page, rows))
        download(page, rows, "errors by size")


def _bins(page: Page, rows: pd.DataFrame) -> dict[str, str]:
    names = [name for name in _THIRDS if name in set(rows["bin"])]
    order, found = np.sort(page.se), {}
    third = np.arange(len(order)) * 3 // len(order)
    for name in names:
        place = _THIRDS.index(name)
        part = order[third == place]
        low, high = f"{part.min():,.3g}", f"{part.max():,.3g}"
        found[name] = f"{name}<br>{low}" + (f" to {high}" if low != high else "")
    return found


def size_words(page: Page, rows: pd.DataFrame) -> str:
    """How much pooling saves, from precise to noisy."""
    names = [n for n in ("most precise third", "least precise third") if n in set(rows["bin"])]
    saved = []
    for name in names:
        own, none = (
            rows[(rows["estimator"] == e) & (rows["bin"] == name)].iloc[0] for e in (page.own, "none")
        )
        saved.append(1 - own.mse / none.mse)
    if len(saved) < 2:
        return ""
    return (
        "<b>Beside no pooling, partial pooling's mean squared error is "
        f"{_change(saved[0])} for the most precise third and {_change(saved[1])} for the least precise.</b>"
    )


def _change(saved: float) -> str:
    return f"{number(100 * abs(saved), 0)} % {'lower' if saved > 0 else 'higher'}"


def _winners(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    one, many = page.words.one, page.words.many
    with right:
        controls(page)
    with left:
        theme.title(f"Only the {one} that looked best")
        table = study_table(page)
        if table is None:
            return
        labels = list(table.loc[table["grouping"] == "selection", "bin"].unique())
        label = labels[0]
        if len(labels) > 1:
            label = (
                st.segmented_control(
                    "Selected", labels, default=label, key="coverage_selected", label_visibility="collapsed"
                )
                or label
            )
        rows = table[(table["bin"].isin(["all", label])) & (table["level"] == 0.95)]
        looked = plots.looks(page.names, page.mode)
        picture(
            plots.winners(rows, looked, label, page.words.unit, page.mode),
            "coverage_winners",
            "Coverage and bias of all units beside those that were selected for their raw effect",
        )
        absent = " Complete pooling's bias has no mean here: fix τ to see it." if page.tail <= 1 else ""
        theme.caption(
            f"A tick is all {escape(many)}, the dot only the {escape(label)} of each data set: what is "
            "reported when winners are. Above, how often their 95 % intervals hold the truth; below, by how "
            f"much they exaggerate. {page.replications:,} data sets, {_where(page)}. {_MONTE_CARLO}{absent}"
        )
        _sentence(winner_words(page, table, label))
        lines = []
        for name, look in looked.items():
            row = _at(table, name, "selection", label)
            lines.append(
                (
                    _label(look),
                    percent(row.coverage, row.coverage_se),
                    with_error(row.bias, row.bias_se, True),
                )
            )
        _figures(lines, (label.capitalize(), "covers", f"exaggerates by{_of(page)}"))
        download(page, rows, "winners")


def winner_words(page: Page, table: pd.DataFrame, label: str) -> str:
    """What selection does to raw and to pooled intervals."""
    raw, own = (_at(table, name, "selection", label) for name in ("none", page.own))
    unit = f" {escape(page.words.unit)}" if page.words.unit else ""
    return (
        f"<b>The winner's own estimate exaggerates by {with_error(raw.bias, raw.bias_se)}{unit}</b> and its "
        f"95 % interval covers {percent(raw.coverage, raw.coverage_se)}; partially pooled, it is off by "
        f"{with_error(own.bias, own.bias_se, True)}{unit} and covers "
        f"{percent(own.coverage, own.coverage_se)}."
    )


# ------------------------------------------------------------------------------------------ calibration

_PERCENT = [50, 80, 90, 95]
_FITTED = {
    "right": "the model that made the data",
    "sharp": "too sure: prior on τ four times too narrow",
    "vague": "too unsure: prior on τ four times too wide",
}


def _calibration(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    spec, live = page.live.spec, page.live
    quick = not {"student_t"} & {spec.structure.effects, spec.structure.likelihood}
    with right:
        theme.title("The test")
        sizes = within(SBC_REPLICATIONS)
        usual = 500 if quick and 500 in sizes else sizes[0]
        if len(sizes) > 1:
            replications = st.select_slider("Simulated data sets", sizes, value=usual, key="coverage_sbc")
        else:
            replications = usual
            st.caption(f"{usual:,} simulated data sets: HBM_MAX_REPLICATIONS allows no more.")
        options = [
            "right",
            *(["sharp", "vague"] if "tau" in spec.priors and spec.priors["tau"].proper else []),
        ]
        fitted = st.selectbox(
            "Posterior under test", options, format_func=_FITTED.__getitem__, key="coverage_fitted"
        )
        _seed(page.lab)
    with left:
        theme.title("Do posteriors rank the truth evenly?")
        improper = [name for name, prior in spec.priors.items() if not prior.proper]
        if improper:
            st.info(
                f"The prior on {', '.join(improper)} is flat: no truths can be drawn from it. "
                "Choose a proper prior on the home page."
            )
            return
        if live.posterior is None:
            st.info(theme.plain(f"No exact engine covers this model yet. {live.problem}"))
            return
        pit = _pit(page, replications, fitted, quick)
        if pit is None:
            return
        verdict = tables.uniformity(pit)
        labels = {name: symbol(name) for name in pit.columns}
        with right:
            names = list(pit.columns)
            shown = st.selectbox(
                "Ranks of", names, index=names.index(verdict["worst"]), format_func=labels.__getitem__
            )
        st.html(
            legend(
                [
                    ("area", f"ranks of {labels[shown]}"),
                    ("band", "where chance alone puts them, 99 %"),
                    ("rule", "other parameters"),
                ],
                page.mode,
            )
        )
        bins = 20 if replications >= 500 else 10
        picture(
            plots.calibration(
                tables.rank_histogram(pit, bins), tables.ecdf_band(pit), shown, labels, page.mode
            ),
            "coverage_sbc_picture",
            "Histogram of ranks and ECDF differences with their band",
        )
        theme.caption(
            "Each data set is made from parameters drawn from the prior; its exact posterior says how much "
            "probability lies below each of them. A right posterior gives every value equally often: flat "
            "bars above, lines inside the grey band below. Bars high at both ends: too narrow; high in the "
            "middle: too wide. The band holds all quantities at once, 99 % of the time."
        )
        _sentence(verdict_words(verdict, labels, len(pit.columns)))
        download(page, pit, "ranks")


def _pit(page: Page, replications: int, fitted: str, quick: bool) -> pd.DataFrame | None:
    spec = page.live.spec
    tau = spec.priors.get("tau")
    other = None
    if fitted != "right" and tau is not None:
        other = with_priors(spec, tau=tau.scaled(0.25 if fitted == "sharp" else 4.0))
    texts = tuple(f"{name}={prior.text}" for name, prior in spec.priors.items())
    key = (
        "ranks",
        page.live.dataset.digest,
        page.live.study.model,
        texts,
        replications,
        fitted,
        page.lab.seed,
    )
    each = 0.003 if quick else 0.15
    waits = replications * each > 2.5

    def compute(progress: Callable[[float], None], spread: Spread) -> pd.DataFrame:
        last = [0.0]

        def sparse(share: float) -> None:
            if share - last[0] >= 0.02 or share == 1:
                last[0] = share
                progress(share)

        return tables.sbc_pit(spec, replications, page.lab.seed, other, progress=sparse, spread=spread)

    what = f"Solving {replications:,} data sets exactly"
    return kept(key, _AT_ONCE + 1 if waits else 0, replications * each, what, compute)


def verdict_words(verdict: dict[str, Any], labels: dict[str, str], count: int) -> str:
    """The verdict in a sentence, with the statistic and its threshold."""
    figures = (
        f"largest departure {number(verdict['statistic'], 1)} of {number(verdict['threshold'], 1)} allowed, "
        f"{escape(labels[verdict['worst']])}"
    )
    if verdict["passed"]:
        return f"<b>Calibrated: all {count} parameters rank evenly</b> ({figures})."
    return (
        f"<b>Not calibrated: {escape(labels[verdict['worst']])} leaves the band</b> ({figures}). A right "
        "posterior does so once in a hundred tests."
    )


# ------------------------------------------------------------------------------------------------ table

_THIRDS = ("most precise third", "middle third", "least precise third")
_BINS = (
    "all",
    *_THIRDS,
    "largest raw effect",
    "top tenth by raw effect",
    "nearest the mean",
    "middle",
    "farthest from the mean",
)
COLUMNS = {
    "estimator": "Estimator",
    "bin": "Among",
    "level": "Interval",
    "coverage": "Covers",
    "width": "Mean width",
    "interval_score": "Interval score",
    "bias": "Bias",
    "rmse": "RMSE",
    "mae": "MAE",
}


def shown_table(table: pd.DataFrame, looked: dict[str, plots.Look]) -> pd.DataFrame:
    """Every number with its Monte-Carlo standard error beside it, as people read it."""
    out = pd.DataFrame(
        {
            "estimator": [_label(looked[name]) for name in table["estimator"]],
            "bin": table["bin"],
            "level": [f"{100 * level:g} %" for level in table["level"]],
            "coverage": [percent(v, e) for v, e in zip(table["coverage"], table["coverage_se"], strict=True)],
        }
    )
    for name in ("width", "interval_score", "bias", "rmse", "mae"):
        out[name] = [
            with_error(v, e, name == "bias") for v, e in zip(table[name], table[f"{name}_se"], strict=True)
        ]
    return out.rename(columns=COLUMNS)


def _table(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    with right:
        controls(page)
    with left:
        theme.title("Every number, with its Monte-Carlo error")
        table = study_table(page)
        if table is None:
            return
        level = st.segmented_control(
            "Interval", _PERCENT, default=95, format_func="{} %".format, key="coverage_table_level"
        )
        order = [name for name in _BINS if name in set(table["bin"])]
        rows = table[table["level"] == (level or 95) / 100]
        rows = rows.sort_values("bin", key=lambda bins: bins.map(order.index), kind="stable")
        rows = rows.sort_values("estimator", key=lambda e: e.map(page.names.index), kind="stable")
        st.dataframe(
            shown_table(rows, plots.looks(page.names, page.mode)),
            hide_index=True,
            height=min(35 * (len(rows) + 1) + 3, 640),
            key="coverage_table",
            column_config={"Estimator": st.column_config.Column(pinned=True), "Interval": None},
        )
        unit = f"All but coverage in {escape(page.words.unit)}. " if page.words.unit else ""
        theme.caption(
            f"One row is one estimator among some of the {escape(page.words.many)}: all; thirds by standard "
            "error; the largest raw effect of each data set; thirds by true distance from the mean. "
            f"{unit}± is one Monte-Carlo standard error over {page.replications:,} data sets; ∞ is a mean "
            "that does not exist because draws of τ know no bound. The download has all levels at "
            "full precision."
        )
        download(page, table, "coverage table")


SECTIONS: dict[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]] = {
    "Coverage": _coverage,
    "By τ": _by_tau,
    "By size": _by_size,
    "Winners": _winners,
    "Calibration": _calibration,
    "Table": _table,
}


#: Draws one section of a page by its name.
section = partial(theme.section, SECTIONS)


__all__ = ["SECTIONS", "Lab", "Page", "open_page", "section", "story"]
