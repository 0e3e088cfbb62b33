"""What the page Covariance needs from Streamlit: where draws come from, controls, one section each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import covariance as tables
from hbm_core.analysis import joint, marginals
from hbm_core.analysis.batched import linear
from hbm_core.errors import StoreError
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.raw_rates import RawRates
from hbm_core.plots import covariance as plots
from hbm_core.plots.diagnostics import funnel
from hbm_core.plots.theme import legend, number
from hbm_core.plots.tokens import Mode, colours
from hbm_core.scenarios.tables import csv_text
from hbm_core.store.study import Study
from hbm_core.ui import fits, session, theme
from hbm_core.ui.coverage_page import picture
from hbm_core.ui.explore import focus_of
from hbm_core.ui.live import Live, live
from hbm_core.ui.trace_page import symbol

_MOST_PAIRS, _DRAWS = 5, 2000
#: Units in the matrix, at most.
_MOST_CELLS = 60
_PARAMETERS = "covariance_parameters"
_SOURCES = ["Fit", "Exact"]


@dataclass(frozen=True, eq=False)
class Page:
    """All that the sections read.

    Parameters
    ----------
    live : Live
        Study, data and exact posterior.
    unit : str
        The selected unit.
    mode : {"light", "dark"}
        Theme.
    tree : xarray.DataTree or None
        The study's fit, once done.
    sampled : bool
        Whether the pictures show the fit's draws rather than independent exact ones.
    problem : str
        Why a fit that is done cannot be read.
    """

    live: Live
    unit: str
    mode: Mode
    tree: Any = None
    sampled: bool = False
    problem: str = ""

    @property
    def words(self) -> Any:
        """Names and units of the data set."""
        return self.live.dataset.words

    @property
    def own(self) -> str:
        """The selected unit's parameter."""
        return f"theta[{self.unit}]"

    @property
    def names(self) -> list[str]:
        """Every parameter that has draws: hyperparameters, then the units' effects."""
        spec = self.live.spec
        hyper = list(spec.structure.hyperparameters)
        if not self.sampled:
            hyper = [name for name in hyper if name != "tau_star"]
        else:
            hyper = [name for name in hyper if name.partition("[")[0] in self.tree["posterior"].data_vars]
        return [*hyper, *(f"theta[{unit}]" for unit in spec.structure.units)]

    @property
    def pooled(self) -> bool:
        """Whether the model has a spread τ."""
        return self.live.spec.structure.funnel(self.unit) is not None

    def draws(self, names: list[str]) -> pd.DataFrame:
        """Draws for a picture: every divergent one, and at most 2,000 others."""
        if self.sampled:
            return tables.pairs_table(self.tree, names, _DRAWS)
        assert self.live.exact is not None
        return joint.exact_draws_table(self.live.exact, names, _DRAWS, seed=1)


@st.cache_resource(max_entries=8, show_spinner=False)
def _tree(id: str, finished: float) -> Any:
    # `finished` names the run: a fit made anew keeps its id
    return fits.engine().result(id)


def open_page(study: Study) -> Page | None:
    """Posterior and fit of the study; None, with what to do next on screen, where there is neither."""
    seen, found = live(study), fits.view(study)
    unit = focus_of(seen)
    tree, problem = None, ""
    if found.status.state == "done":
        try:
            job = fits.engine().table.get(found.id)
            tree = _tree(found.id, (job.finished or 0.0) if job else 0.0)
        except StoreError as error:
            problem = str(error)
    if seen.exact is None and tree is None:
        _empty(study, seen, found)
        return None
    return Page(seen, unit, theme.mode(), tree, tree is not None, problem)


def _empty(study: Study, seen: Live, found: fits.FitView) -> None:
    theme.story("No joint posterior to draw yet: choose other priors, or <b>fit</b> the model.")
    if seen.problem:
        st.info(theme.plain(f"There is no exact answer for this model. {seen.problem}"))
    if found.status.active:
        st.info(f"{found.headline}. The pictures appear here when it is done.")
    elif found.status.state == "failed":
        st.warning(theme.plain(f"{found.headline}. {found.detail}"))
    if not found.status.active:
        st.button("Fit", key="covariance_fit", on_click=fits.start, args=(study,), type="primary")


# ---------------------------------------------------------------------------------------------- words


def story(page: Page) -> None:
    """The page's first sentence: how strongly the units move together."""
    accent = colours(page.mode)["accent"]
    many = escape(page.words.many)
    structure: Any = page.live.spec.structure
    match getattr(structure, "pooling", "partial"):
        case "none":
            text = (
                f"Without pooling nothing is shared: the {many} are <b>independent</b>, in the posterior too."
            )
        case "complete":
            text = f"Complete pooling has one unknown: every {escape(page.words.one)}'s effect <b>is</b> μ."
        case _:
            mean = _mean_correlation(page)
            shared = "the unknown means of their groups" if _grouped(page) else "an unknown mean"
            text = (
                f"The {many} share {shared}, so their estimates rise and fall together: the typical "
                f'correlation of two is <b style="color:{accent}">{number(mean, 2)}</b>.'
            )
    theme.story(text)
    if page.problem:
        st.warning(theme.plain(f"The kept fit cannot be read, so you see exact draws. {page.problem}"))


def _grouped(page: Page) -> bool:
    return isinstance(page.live.spec.structure, GroupedUnits)


def _shown_units(page: Page) -> list[str]:
    units = list(page.live.spec.structure.units)
    if len(units) <= _MOST_CELLS:
        return units
    places = np.unique(np.linspace(0, len(units) - 1, _MOST_CELLS - 1).astype(int))
    return [unit for place, unit in enumerate(units) if place in set(places) or unit == page.unit]


@st.cache_resource(max_entries=64, show_spinner=False)
def _matrix(source: str, names: tuple[str, ...], _page: Page) -> tuple[object, pd.DataFrame, float]:
    # the posterior is kept with its matrix, so that the address in `source` stays its name
    if _page.sampled:
        return _page.tree, tables.draws_correlation(_page.tree, list(names)), 0.0
    posterior = _page.live.exact
    assert posterior is not None
    return posterior, *joint.correlation(posterior, list(names))


def matrix(page: Page, names: list[str]) -> tuple[pd.DataFrame, float]:
    """The correlation matrix of some parameters, with its Monte-Carlo error (0 where exact)."""
    source = f"fit {id(page.tree)}" if page.sampled else f"exact {id(page.live.exact)}"
    return _matrix(source, tuple(names), page)[1:]


def _all_names(page: Page) -> list[str]:
    hyper = [name for name in page.names if not name.startswith("theta[")]
    return [*hyper, *(f"theta[{unit}]" for unit in _shown_units(page))]


def _mean_correlation(page: Page) -> float:
    found = matrix(page, _all_names(page))[0]
    theta = [name for name in found.index if name.startswith("theta[")]
    values = found.loc[theta, theta].to_numpy()[np.triu_indices(len(theta), 1)]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _sentence(text: str) -> None:
    if text:
        st.html(f'<p style="font-size:14px;line-height:20px;margin:0;text-wrap:pretty">{text}</p>')


def _source(page: Page, shown: int) -> str:
    if not page.sampled:
        return f"{shown:,} independent draws from the exact posterior."
    total = page.tree["posterior"].sizes
    diverged = int(tables.divergent(page.tree).sum())
    said = f"{diverged:,} diverged" if diverged else "none diverged"
    geometry = page.live.study.parameterization
    return f"{total['chain'] * total['draw']:,} draws of the {geometry} fit, {said}."


def _keys(page: Page, *more: tuple[str, str] | tuple[str, str, str]) -> None:
    own = "the fit's draws" if page.sampled else "exact draws"
    entries: list[Any] = [("point", own)]
    if page.sampled and bool(tables.divergent(page.tree).any()):
        entries.append(("cross", "divergence"))
    st.html(legend([*entries, *more], page.mode))


# ------------------------------------------------------------------------------------------- controls


def _controls(page: Page) -> Page:
    """Choose the source of the draws and the selected unit; the page with its choice."""
    if page.tree is not None and page.live.exact is not None:
        source = st.segmented_control(
            "Draws", _SOURCES, default="Fit", key="covariance_source", width="stretch"
        )
        page = replace(page, sampled=source != "Exact")
    units = list(page.live.spec.structure.units)
    if 1 < len(units) <= 500:
        st.session_state["covariance_unit"] = page.unit
        st.selectbox(
            f"Selected {page.words.one}",
            units,
            key="covariance_unit",
            on_change=_select,
            help=f"The {page.words.one} is selected on every page.",
        )
    return page


def _select() -> None:
    session.change(unit=st.session_state["covariance_unit"])


def _parameters(page: Page) -> list[str]:
    """Choose parameters; the selected unit is always among them, last."""
    options = [name for name in page.names if name != page.own]
    start = [name for name in options if not name.startswith("theta[")][: _MOST_PAIRS - 1]
    if len(start) < 2 and options:
        start = [*start, *[name for name in options if name not in start][: 2 - len(start)]]
    kept = [name for name in st.session_state.get(_PARAMETERS, start) if name in options] or start
    st.session_state["covariance_choice"] = kept
    if len(options) > 500:
        return [*kept, page.own]

    def changed() -> None:
        st.session_state[_PARAMETERS] = st.session_state["covariance_choice"]

    chosen = st.multiselect(
        "Parameters beside it",
        options,
        format_func=symbol,
        key="covariance_choice",
        max_selections=_MOST_PAIRS - 1,
        on_change=changed,
    )
    return [*chosen, page.own]


def _download(page: Page, table: pd.DataFrame, name: str) -> None:
    study = page.live.study
    stem = re.sub(r"[^a-z0-9]+", "-", f"{name} {study.dataset[:24]} {study.model}".lower())
    st.download_button(
        "Download the numbers",
        lambda: csv_text(table),
        file_name=f"{stem}.csv",
        mime="text/csv",
        on_click="ignore",
        key=f"covariance_download_{name}",
    )


# ------------------------------------------------------------------------------------------- sections


def _pairs(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    with right:
        page = _controls(page)
        names = _parameters(page)
    exact = page.live.exact
    table = page.draws(names)
    ranges = {name: marginals.value_range(table, name, exact) for name in names}
    densities = [
        pd.DataFrame({"parameter": name, "value": at, "density": exact.density(name, at)})
        for name in names
        if exact is not None and name in exact.names
        for at in [_inside(name, ranges[name])]
    ]
    density = pd.concat(densities, ignore_index=True) if densities else pd.DataFrame(columns=["parameter"])
    found, error = matrix(page, names)
    titles = {name: escape(symbol(name)) for name in names}
    bare = page.live.spec.structure.unitless
    units = {name: page.words.unit for name in names if name.partition("[")[0] not in bare}
    with left:
        theme.title("Parameters two by two")
        _keys(page, ("area", "exact marginal") if exact is not None else ("area", "their histogram"))
        picture(
            plots.pairs(table, density, ranges, found, titles, units, page.mode),
            "covariance_pairs",
            "Pair plot: draws below the diagonal, marginal densities on it, correlations above",
        )
        above = "from these draws" if page.sampled else "exact" if error == 0 else f"± {error:.3f}"
        theme.caption(
            "Each panel below the diagonal shows where two parameters lie together; on the diagonal each "
            f"alone; above it their correlation ({above}), orange negative, violet positive. A slanted "
            "cloud: learning one moves the other. A wedge: their spread depends on it. "
            f"{_source(page, len(table))}"
        )
        _sentence(pair_words(page, found))
        if note := structure_note(page):
            st.info(note)
        _download(page, table, "pairs")


def _inside(name: str, ends: tuple[float, float]) -> np.ndarray:
    """Places for a density; a positive parameter's may have no value at 0 itself."""
    low, high = ends
    return np.linspace(low or (1e-6 * high if name in ("tau", "nu") else low), high, 161)


def pair_words(page: Page, found: pd.DataFrame) -> str:
    """How the selected unit moves with μ and τ, where the picture has them."""
    pulled = page.live.spec.structure.funnel(page.unit) or ()
    said = [
        f"{number(float(found.loc[page.own].to_numpy()[place]), 2)} with {symbol(name)}"
        for place, name in enumerate(found.columns)
        if name in pulled and np.isfinite(found.loc[page.own].to_numpy(dtype=float)[place])
    ]
    if not said or not page.pooled:
        return ""
    return f"<b>{escape(symbol(page.own))} correlates {' and '.join(said)}.</b>"


def structure_note(page: Page) -> str:
    """What a model without a shared, unknown mean and spread shows instead; empty where it has both."""
    structure: Any = page.live.spec.structure
    one, many = page.words.one, page.words.many
    if isinstance(structure, RawRates):
        return (
            "Rates are not normal given the population: the correlations are counted from draws. "
            f"What all {many} share is not knowing μ and how alike they are."
        )
    if _grouped(page):
        return ""
    if structure.pooling == "none":
        return f"This model has neither μ nor τ: no two {many} share anything, so every cloud is upright."
    if structure.pooling == "complete":
        return (
            f"This model has one parameter. Each {one}'s effect is μ itself: correlation 1 by construction."
        )
    if "student_t" in (structure.effects, structure.likelihood):
        return (
            "With Student-t tails the posterior is not normal given τ: the correlations are counted from "
            "draws, and a single number says less about so bent a cloud."
        )
    return ""


def _funnel(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    names = page.live.spec.structure.funnel(page.unit)
    if names is None:
        left.info(
            "There is no funnel without a spread between units. Choose a model that pools partially, such "
            "as weak, in the sidebar."
        )
        return
    centre, sign = (escape(symbol(name)) for name in names)
    with right:
        page = _controls(page)
        theme.title("Why centered sampling fails")
        st.html(
            f'<p style="font-size:13px;line-height:19px;margin:0">A sampler that walks in (log {sign}, θ) '
            "takes steps of one size. Steps that suit the wide mouth are too long for the neck, where θ may "
            f"hardly leave {centre}: trajectories break, which is a <b>divergence</b>, and small {sign} goes "
            "unvisited. "
            f"Walking in η = (θ − {centre})/{sign} instead takes the neck away wherever the data say little "
            "about θ.</p>"
        )
    table = joint.funnel_of(page.draws([*names, page.own]), page.unit, names)
    words, called = page.words, escape(symbol(page.own))
    unit = f", {escape(words.unit)}" if words.unit else ""
    grounds = _grounds(id(page.live.exact), page.unit, page)[1]
    axes = {"theta": f"{called}{unit}", "standardised": f"({called} − {centre})/{sign}"}
    with left:
        theme.title(f"The smaller {symbol(names[1])}, the less room for {symbol(page.own)}")
        regions = [("regions", "exact: 50, 80, 95 and 99 %")] if grounds.get("theta") is not None else []
        _keys(page, *regions)
        picture(
            funnel(table, grounds, axes, f"{sign}{unit}, log scale", page.mode),
            "covariance_funnel",
            "Funnel: log of the spread against one effect, and against the standardised effect",
        )
        theme.caption(
            f"Left: {sign} on a log scale against the effect of one {escape(words.one)}, what a centered "
            "sampler walks in. Right: the same draws as η, what a non-centered sampler walks in; where the "
            f"data are strong, it is η that gets a neck, at large {sign}. {_source(page, len(table))}"
        )
        _sentence(funnel_words(page))
        _download(page, table, "funnel")


def funnel_words(page: Page) -> str:
    """How much narrower the funnel is in the neck than in the mouth."""
    posterior = page.live.exact
    if posterior is None or "tau" not in posterior.names:
        return ""
    ends = posterior.quantiles((0.05, 0.95))[posterior.index("tau")]
    try:
        given = posterior.given_tau(ends)
    except NotImplementedError:
        return ""
    place = page.live.spec.structure.units.index(page.unit)
    # given τ, θ − μ = (1 − B)(y − μ) + noise of variance s²(1 − B)
    own, se = 1 - given.pooling[:, place], page.live.spec.structure.se[place]
    apart = np.sqrt(se**2 * own + own**2 * given.mu_sd**2)
    unit = f" {escape(page.words.unit)}" if page.words.unit else ""
    return (
        f"<b>At τ = {number(ends[1], 1)}{unit} the distance of {escape(symbol(page.own))} from μ has a "
        f"posterior sd of {number(apart[1], 1)}; at τ = {number(ends[0], 2)}, of {number(apart[0], 2)}</b>: "
        f"the neck is {number(apart[1] / apart[0], 0)} times narrower (the 95 % and 5 % points of τ)."
    )


@st.cache_resource(max_entries=32, show_spinner=False)
def _grounds(key: int, unit: str, _page: Page) -> tuple[object, dict[str, Any]]:
    exact = _page.live.exact
    if exact is None:
        return None, {}
    return exact, {
        "theta": marginals.funnel_background(exact, unit),
        "standardised": marginals.funnel_background(exact, unit, standardised=True),
    }


def _correlation(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    many = page.words.many
    with right:
        page = _controls(page)
    names = _all_names(page)
    found, error = matrix(page, names)
    labels = {name: symbol(name).removeprefix("θ ") for name in names}
    shown = len(_shown_units(page))
    with left:
        theme.title("Which parameters move together")
        picture(
            plots.heat_map(found, labels, [page.own], page.mode),
            "covariance_matrix",
            "Posterior correlation matrix",
        )
        how = (
            "from the fit's draws"
            if page.sampled
            else "exact, integrated over τ"
            if error == 0
            else f"from independent exact draws, ± {error:.3f}"
        )
        total = len(page.live.spec.structure.units)
        some = f" {shown} of {total:,} {escape(many)}, evenly." if shown < total else ""
        theme.caption(
            "Each cell is the posterior correlation of its row and its column: violet where one rises "
            "with the other, orange where it falls, paper where they do not care. Those without a Greek "
            f"letter are {escape(many)}; values {how}.{some}"
        )
        if page.sampled and page.live.exact is not None:
            exact = matrix(replace(page, sampled=False), [n for n in names if n in page.live.exact.names])[0]
            both = found.loc[exact.index, exact.columns].to_numpy(dtype=float) - exact.to_numpy(dtype=float)
            gap = number(float(np.nanmax(np.abs(both), initial=0.0)), 2)
            _sentence(f"<b>The fit's correlations differ from the exact ones by at most {gap}.</b>")
        if note := structure_note(page):
            st.info(note)
        _given_tau(page)
        _download(page, found.rename_axis("parameter").reset_index(), "correlation")


def _given_tau(page: Page) -> None:
    """What τ does to the correlation, where it is closed."""
    spec, posterior = page.live.spec, page.live.exact
    if not (page.pooled and linear(spec) and posterior is not None and len(spec.structure.units) > 1):
        return
    typical = spec.structure.typical_se
    u = np.linspace(0, 0.985, 60)
    curve = joint.correlation_given_tau(spec, (typical * u / (1 - u)).tolist())
    at = np.linspace(0.001, 0.999, 240)
    tau = typical * at / (1 - at)
    density = pd.DataFrame({"u": at, "density": posterior.density("tau", tau) * typical / (1 - at) ** 2})
    theme.title("The smaller τ, the more they move together")
    st.html(
        legend(
            [
                ("line", "typical pair", colours(page.mode)["ink"]),
                ("band", "all pairs"),
                ("area", "posterior of τ"),
            ],
            page.mode,
        )
    )
    picture(
        plots.against_tau(curve, density, typical, page.words.unit, page.mode),
        "covariance_tau",
        "Correlation of two effects at each tau, with the posterior density of tau",
    )
    theme.caption(
        "If τ were known: at 0 all effects are one number, the mean, and move as one; as τ grows each holds "
        "on to its own data instead. The shaded density says which τ the data leave possible."
    )
    _sentence(tau_words(page, curve))


def tau_words(page: Page, curve: pd.DataFrame) -> str:
    """Why θ's correlate, with this posterior's figures."""
    spec, posterior = page.live.spec, page.live.exact
    assert posterior is not None
    low, high = posterior.quantiles((0.1, 0.9))[posterior.index("tau")]
    few = joint.correlation_given_tau(spec, [float(low), float(high)])["mean"]
    unit = f" {escape(page.words.unit)}" if page.words.unit else ""
    return (
        "<b>Two effects correlate because both lean on the same unknown mean μ</b>: if μ is higher than "
        f"thought, so are both, each by its <i>B</i>. At τ = {number(low, 1)}{unit} the typical "
        f"correlation is {number(few.iloc[0], 2)}, at {number(high, 1)} it is {number(few.iloc[1], 2)}. "
        "Not knowing τ adds to pairs on the same side of the mean, which part from it together, and takes "
        "from pairs on opposite sides."
    )


SECTIONS: dict[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]] = {
    "Pairs": _pairs,
    "Funnel": _funnel,
    "Correlation": _correlation,
}


#: Draws one section of a page by its name.
section = partial(theme.section, SECTIONS)
