"""What the page Trace needs from Streamlit: a fit while it runs, what its draws say when done, the lab."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from hbm_core.analysis import marginals
from hbm_core.analysis.draws import graded
from hbm_core.analysis.remedies import Remedy, remedies
from hbm_core.errors import InputError, StoreError
from hbm_core.inference.sampler import GRADIENT_ENGINES, Progress
from hbm_core.models.greek import GREEK
from hbm_core.models.prior import Prior
from hbm_core.models.raw_rates import RawRates
from hbm_core.plots import diagnostics as plots
from hbm_core.plots.theme import digits_of, legend, number, signed
from hbm_core.plots.tokens import Mode, colours
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.store.study import Study
from hbm_core.ui import fits, session, theme, vectors
from hbm_core.ui.explore import focus_of
from hbm_core.ui.live import Live, live

#: Units whose diagnostics are all computed; of more, these many, evenly.
_MOST_UNITS = 1_000
#: Rows of the table of parameters, and panels of a figure.
_MOST_ROWS, _MOST_PANELS = 40, 6
#: An MCSE is small beside the posterior's own width below this share of a sd.
_MCSE_SHARE = 0.05

_LETTERS = {**GREEK, "tau_star": "τ*"}
#: Geometry → name for a person, and what the sampler moves in.
GEOMETRIES: Mapping[str, tuple[str, str]] = {
    "centered": ("Centered", "samples θ itself"),
    "noncentered": ("Non-centered", "samples effects about their population’s mean, in its sds"),
    "partial": ("Partial", "between the two, unit by unit"),
    "collapsed": (
        "Collapsed",
        "samples the spreads and what cannot be integrated out; the rest afterwards, exactly",
    ),
    "noncentered_group": ("Mixed", "means of groups non-centered, θ itself"),
    "scaled": ("Scaled", "samples z = αθ, whose scale is 1"),
    "transport": ("Transport", "moves along the ridges that readings leave, made straight"),
}


@dataclass(frozen=True)
class Row:
    """One check in words: pass, warn or fail; what was measured, what is asked, what to do."""

    title: str
    verdict: str
    measured: str
    threshold: str
    advice: str = ""
    code: str = ""


@dataclass(frozen=True, eq=False)
class Read:
    """A finished fit with what is said of it, shared by all sessions: never changed.

    Parameters
    ----------
    tree : xarray.DataTree
        The draws; of more than 1,000 units an even choice.
    summary : DataFrame
        From `hbm_core.analysis.draws.summary`.
    findings : tuple of Row
        The computation checks in words.
    agreement : DataFrame or None
        Against the exact posterior.
    """

    tree: Any
    summary: pd.DataFrame
    findings: tuple[Row, ...]
    agreement: pd.DataFrame | None


@dataclass(frozen=True, eq=False)
class Page:
    """All that the sections read.

    Parameters
    ----------
    live : Live
        Study, data and exact posterior.
    names : tuple of str
        Parameters shown.
    unit : str
        The selected unit.
    mode : {"light", "dark"}
        Theme.
    id : str
        The fit's.
    read : Read or None
        None before it is done.
    figures : mapping
        Words over panels by parameter.
    view : Live or None
        Along one parameter, where units are vectors.
    """

    live: Live
    unit: str
    mode: Mode
    id: str = ""
    read: Read | None = None
    names: tuple[str, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    view: Live | None = None

    @property
    def own(self) -> str:
        """Flat name of the selected unit's own parameter: of vectors, of the selected one."""
        return vectors.flat(self.view or self.live, self.unit)

    @property
    def funnel(self) -> tuple[str, str] | None:
        """Flat names of what that is pulled to and of its spread."""
        structure: Any = (self.view or self.live).spec.structure
        names: tuple[str, str] | None = structure.funnel(self.unit)
        known = getattr(structure, "names", {})
        return names and (known.get(names[0], names[0]), known.get(names[1], names[1]))

    @property
    def words(self) -> Any:
        """Names and units of the data set."""
        return self.live.dataset.words


# ------------------------------------------------------------------------------------------- reading


@st.cache_resource(max_entries=16, show_spinner=False)
def _read(id: str, finished: float, _live: Live) -> Read:
    from hbm_core.analysis.checks import Evidence, checks
    from hbm_core.analysis.draws import agreement, approximation, summary

    tree = _trimmed(fits.engine().result(id))
    table = summary(tree)
    exact = _live.exact
    evidence = Evidence(_live.spec, None, tree)
    rows = []
    for check in checks():
        if check.group == "computation":
            found = check.run(evidence)
            if found.verdict != "not applicable":
                said = (found.verdict, found.measured, check.threshold, found.advice, check.code)
                rows.append(Row(check.title, *said))
    share = (table["mcse_mean"] / table["sd"].where(table["sd"] > 0)).dropna()
    if len(share):
        worst, where = float(share.max()), str(share.idxmax())
        good = worst <= _MCSE_SHARE
        rows.append(
            Row(
                "Monte Carlo error of the means",
                "pass" if good else "warn",
                f"{number(100 * worst, 1)} % sd ({where})",
                f"≤ {100 * _MCSE_SHARE:g} % of a posterior sd",
                "" if good else "Take more draws: the means are not settled to the digits shown.",
            )
        )
    compared = None
    if exact is not None:
        reference = exact.summary(hdi=False)
        compared = agreement(table, reference)
        if tree.attrs.get("engine") == "variational":
            rows.append(_bias_row(approximation(table, reference)))
            # No Monte Carlo error explains a bias: the comparison below would be in the wrong unit.
            compared = None
        else:
            rows.append(_agreement_row(compared))
    return Read(tree, table, tuple(rows), compared)


def _bias_row(table: pd.DataFrame) -> Row:
    worst = table[["mean", "sd", "median"]].abs().max(axis=1).dropna()
    limit = float(table["limit"].iloc[0])
    good = bool(table["agrees"].all())
    return Row(
        "Distance of the approximation from exact",
        "pass" if good else "fail",
        f"{number(float(worst.max()), 2)} sd ({worst.idxmax()})" if len(worst) else "nothing to compare",
        f"≤ {limit:g} posterior sds, means, sds and medians",
        "" if good else "The posterior is not normal enough: use NUTS or the exact engine.",
    )


def _agreement_row(table: pd.DataFrame) -> Row:
    worst = table[["z_mean", "z_sd", "z_median"]].abs().max(axis=1).dropna()
    limit = float(table["limit"].iloc[0])
    good = bool(table["agrees"].all())
    advice = "The draws are not from this posterior. Look at the other checks; then fit in another geometry."
    return Row(
        "Agreement with the exact posterior",
        "pass" if good else "fail",
        f"{number(float(worst.max()), 1)} MCSE ({worst.idxmax()})" if len(worst) else "nothing to compare",
        f"≤ {limit:g} MCSE, means, sds and medians",
        "" if good else advice,
    )


def _trimmed(tree: Any) -> Any:
    """The draws with at most so many units, evenly, that every diagnostic can be computed for all."""
    count = tree["posterior"].sizes.get("unit", 0)
    if count <= _MOST_UNITS:
        return tree
    import xarray as xr

    kept = np.unique(np.linspace(0, count - 1, _MOST_UNITS).astype(int))
    groups = {
        name: tree[name].to_dataset()
        for name in ("posterior", "sample_stats", "tempering")
        if name in tree.children
    }
    groups["posterior"] = groups["posterior"].isel(unit=kept)
    trimmed = xr.DataTree.from_dict(groups)
    trimmed.attrs.update(tree.attrs)
    return trimmed


def open_page(study: Study, found: fits.FitView) -> Page:
    """Open the study's fit, if it is done.

    Raises
    ------
    StoreError
        The result is damaged or gone; the message says so.
    """
    shown = live(study)
    view = vectors.along(shown)
    unit = focus_of(view)
    read = None
    if found.status.state == "done":
        job = fits.engine().table.get(found.id)
        read = _read(found.id, job.finished or 0.0 if job else 0.0, shown)
    return Page(shown, unit, theme.mode(), found.id, read, view=view)


def symbol(name: str) -> str:
    """A parameter as people write it: μ, τ, θ A.

    >>> symbol("tau"), symbol("theta[A]"), symbol("sigma_genre_pay")
    ('τ', 'θ A', 'σ genre pay')
    """
    head, _, inner = name.partition("[")
    inner = inner.removesuffix("]")
    # Of vectors the end tells which part it is.
    most = 48 if "," in inner else 24
    short = inner if len(inner) <= most else inner[: most - 1] + "…"
    base, _, level = head.partition("_")
    level = level.replace("_", " ")
    greek = _LETTERS.get(head) or " ".join(part for part in (_LETTERS.get(base, base), level) if part)
    return f"{greek} {short}".strip()


def titled(page: Live, names: Sequence[str]) -> dict[str, str]:
    """Words over a parameter's panel: symbol, meaning, unit."""
    words = page.dataset.words
    known = find_scenario(page.study.scenario).parameter_words
    unit = f", {words.unit}" if words.unit else ""
    found = {}
    for name in names:
        head = name.partition("[")[0]
        if vectors.has(page) and (said := known.get(name, known.get(head))):
            text = said[1]
        elif head == "theta":
            what = "rate" if isinstance(page.spec.structure, RawRates) else "effect"
            text = f"true {what} of this {words.one}{unit}"
        elif head == "tau_star":
            text = f"effective spread of the true effects{unit}"
        else:
            text = known[head][1] if head in known else head
            text += unit if head not in page.spec.structure.unitless else ""
        found[name] = f"<b>{escape(symbol(name))}</b>   {escape(text)}"
    return found


# ------------------------------------------------------------------------------------------- controls


def controls(page: Page) -> Page:
    """Choose parameters and the selected unit; the page with its choice."""
    spec, one = page.live.spec, page.words.one
    own = page.own
    hyper = list(spec.structure.hyperparameters)
    names = list(page.read.summary.index) if page.read is not None else hyper
    if page.read is not None and own not in names:
        names_of_units = [name for name in names if name.startswith("theta[")]
        own = names_of_units[0] if names_of_units else own
    options = [name for name in names if name != own]
    kept = [name for name in st.session_state.get("trace_parameters", hyper[:4]) if name in options]
    st.session_state["trace_parameters"] = kept
    chosen: list[str] = st.multiselect(
        "Parameters shown",
        options,
        format_func=symbol,
        key="trace_parameters",
        max_selections=_MOST_PANELS - 1,
        help=f"The selected {one} is always shown, last.",
    )
    vectors.choose(page.live, "trace")
    units = list((page.view or page.live).spec.structure.units)
    if 1 < len(units) <= 500 and (page.read is None or own in page.read.summary.index):
        st.session_state["trace_unit"] = page.unit
        st.selectbox(
            f"Selected {one}",
            units,
            key="trace_unit",
            on_change=_choose_unit,
            help=f"The {one} is selected on every page.",
        )
    shown = tuple([*chosen, own])
    titles = titled(page.live, shown)
    return replace(page, names=shown, titles=titles)


def _choose_unit() -> None:
    session.change(unit=st.session_state["trace_unit"])


def chains_legend(chains: Sequence[int], mode: Mode, *others: tuple[str, ...]) -> None:
    """One key per chain, then `others`."""
    palette = plots.chain_colours(list(chains), mode)
    entries: list[Any] = [("line", f"chain {chain + 1}", colour) for chain, colour in palette.items()]
    st.html(legend([*entries[:8], *others], mode))  # type: ignore[list-item]


def picture(figure: go.Figure, key: str, alt: str) -> None:
    """Draw a Plotly figure in the design tokens."""
    st.plotly_chart(figure, theme=None, width="stretch", key=key, config=dict(plots.CONFIG), alt=alt)


# ------------------------------------------------------------------------------ before and while it runs


def frame_figure(page: Page, draws: pd.DataFrame | None = None) -> go.Figure:
    """Traces so far, empty before the first; the exact outlines stand from the beginning."""
    exact = page.live.exact
    names = [name for name in page.names if exact is None or name in exact.names]
    if draws is None or not len(draws):
        near = {name: [0.0, 1.0] for name in names}
        if exact is not None:
            near = {name: [float(exact.mean[exact.index(name)])] * 2 for name in names}
            near = {name: values if np.isfinite(values[0]) else [0.0, 1.0] for name, values in near.items()}
        draws = pd.DataFrame({"chain": [0, 0], "draw": [0, 0], "divergent": False, **near})
        ranges = {name: marginals.value_range(draws, name, exact) for name in names}
        densities = marginals.marginals(draws, names, exact)
        draws = draws.iloc[:0]
    else:
        ranges = {name: marginals.value_range(draws, name, exact) for name in names}
        densities = marginals.marginals(draws, names, exact)
    total = page.live.study.sampler.draws
    return plots.traces(draws, densities, ranges, page.titles, page.mode, total)


def waiting(page: Page, found: fits.FitView) -> None:
    """Before a fit: what will be seen, and the button that starts it."""
    left, right = st.columns([2.75, 1], gap="large")
    with right:
        label = "Fit" if found.status.state == "none" else "Fit again"
        st.button(
            label,
            key="trace_fit",
            on_click=fits.start,
            args=(page.live.study,),
            type="primary",
            width="stretch",
        )
        sampler = page.live.study.sampler
        what = "chains"
        if page.live.study.engine == "tempering":
            what = f"replicas at {sampler.temperatures} temperatures,"
        st.caption(
            f"{sampler.chains} {what} of {sampler.draws:,} draws after {sampler.tune:,} of warm-up, "
            f"{_geometry(page.live.study.parameterization).lower()}, seed {sampler.seed}."
        )
        page = controls(page)
    with left:
        theme.title("The frame that draws will have to fill")
        if page.live.exact is None:
            st.info(theme.plain(page.live.problem) or "There is no exact posterior to compare with.")
            return
        st.html(legend([("line", "exact posterior", colours(page.mode)["ink"])], page.mode))
        picture(frame_figure(page), "trace_frame", "Exact marginal densities; no draws yet")
        theme.caption(
            "The outlines are the exact posterior, which needs no draws. A fit adds them: on the left "
            "each chain's draws "
            "in order, on the right their density, which should settle on the outline."
        )


def running(study: Study, page: Page) -> None:
    """While it runs: traces grow, chains report, Cancel."""

    def draw(study: Study, found: fits.FitView) -> None:
        left, right = st.columns([2.75, 1], gap="large")
        with right:
            _chain_progress(found, page.mode, study.engine)
            fits.cancel_button(study, found, "trace_cancel")
            now = controls(page)
        with left:
            theme.title("Draws as they come")
            tree = fits.engine().partial(found.id) if found.status.partial else None
            draws = _draws(tree, now.names) if tree is not None else None
            chains = range(len(found.status.progress.chains) if found.status.progress else 0)
            exact = [("line", "exact posterior", _ink(page))] if page.live.exact is not None else []
            chains_legend(chains, page.mode, *exact, ("cross", "divergence"))
            picture(frame_figure(now, draws), "trace_frame", "Draws so far, by chain")
            close = "close in on the exact outline" if page.live.exact is not None else "grow alike"
            theme.caption(
                f"Each chain walks the posterior on its own; the coloured densities {close} as draws arrive. "
                "A short fit may be done before its first draws are shown."
            )

    fits.watch(study, draw)


def _draws(tree: Any, names: Sequence[str]) -> pd.DataFrame | None:
    from hbm_core.analysis.covariance import draws_table

    try:
        return draws_table(tree, list(names))
    except InputError:
        return None


def _chain_progress(found: fits.FitView, mode: Mode, engine: str = "nuts") -> None:
    c = colours(mode)
    progress: Progress | None = found.status.progress
    st.html(
        f'<p style="font-size:14px;line-height:20px;margin:0"><b>{escape(found.headline)}</b><br>'
        f'<span style="color:{c["ink-2"]}">{escape(found.detail)}</span></p>'
    )
    if progress is None or not progress.chains:
        return
    palette = plots.chain_colours(range(len(progress.chains)), mode)
    rows = []
    for place, chain in enumerate(progress.chains):
        done = chain.finished / chain.total if chain.total else 0.0
        phase = "waits" if not chain.finished else "warm-up" if chain.tuning else "sampling"
        told = "&nbsp;"
        if chain.finished:
            told = f"no divergence, step {number(chain.step_size, 3)}"
            if engine == "tempering":
                told = f"step {number(chain.step_size, 3)} at the posterior"
        if chain.divergences:
            told = (
                f'<b style="color:{c["warn"]}">✕ {chain.divergences:,} diverged</b>, '
                f"step {number(chain.step_size, 3)}"
            )
        rows.append(
            f'<div style="margin:6px 0 8px"><div style="display:flex;justify-content:space-between;gap:8px">'
            f"<span>chain {place + 1}, {phase}</span><span>{100 * done:.0f} %</span></div>"
            f'<div style="height:5px;background:{c["grid"]};border-radius:3px">'
            f'<div style="height:5px;width:{100 * done:.1f}%;background:{palette[place]};border-radius:3px">'
            f'</div></div><div style="color:{c["ink-2"]};font-size:12.5px">{told}</div></div>'
        )
    st.html(f'<div style="font-size:13px;line-height:18px">{"".join(rows[:8])}</div>')


# ------------------------------------------------------------------------------------------- findings


def _geometry(name: str) -> str:
    return GEOMETRIES.get(name, (name.capitalize(), ""))[0]


def story_before(page: Page, active: bool) -> str:
    """The first sentence while there are no draws to judge."""
    exact = page.live.exact is not None
    if active:
        beside = "; the exact answer waits beside them" if exact else ""
        return f"Chains are walking the posterior{beside}."
    found = "finds the exact posterior" if exact else "can walk this posterior"
    return f"No draws yet: <b>fit</b> to see whether a sampler {found}, and how we would know."


def story(page: Page) -> str:
    """The first sentence of a finished fit: can it be believed, and how do we know."""
    assert page.read is not None
    rows = {row.title: row for row in page.read.findings}
    posterior = page.read.tree["posterior"]
    count = posterior.sizes["chain"] * posterior.sizes["draw"]
    stopped = " It stopped early: these are the draws so far." if page.read.tree.attrs.get("partial") else ""
    bad = [row for row in rows.values() if row.verdict in ("warn", "fail")]
    failed = [row for row in bad if row.verdict == "fail"]
    first = next(iter(failed or bad), None)
    diverged = divergence_words(page)
    if diverged and (not failed or any(row.title == "Divergences" for row in failed)):
        return diverged + stopped
    if first is not None:
        trust = "not to be read yet" if failed else "look before you trust them"
        title = first.title.removesuffix(" of every parameter").removesuffix(" of every chain")
        if not title.startswith(_NAMES):
            title = title[0].lower() + title[1:]
        value, where = _where(first.measured)
        return (
            f"<b>{count:,} draws, but {trust}</b>: {escape(title)} is {escape(value)}"
            f"{escape(f' ({symbol(where)})') if where else ''}, and should be {escape(first.threshold)}."
            f"{stopped}"
        )
    if page.read.agreement is None:
        return f"<b>{count:,} draws pass every check</b> of the computation.{stopped}"
    compared = page.read.agreement
    worst = float(np.nanmax(np.abs(compared[["z_mean", "z_sd", "z_median"]].to_numpy(dtype=float))))
    return (
        f"<b>{count:,} draws pass every check</b>, and none of their {len(compared):,} parameters is more "
        f"than "
        f'<b style="color:{colours(page.mode)["accent"]}">{number(worst, 1)}</b> Monte Carlo errors from '
        f"exact.{stopped}"
    )


def divergence_words(page: Page) -> str:
    """Where draws diverged: how many, where, and why; empty where none did."""
    assert page.read is not None
    tree = page.read.tree
    if "sample_stats" not in tree.children or "diverging" not in tree["sample_stats"]:
        return ""
    flags = tree["sample_stats"]["diverging"].values
    count = int(flags.sum())
    if not count:
        return ""
    text = f'<b style="color:{colours(page.mode)["warn"]}">{count:,} of {flags.size:,} draws diverged</b>'
    spread = page.live.spec.structure.spread
    # Of units that are vectors there are many spreads, and none of them is the funnel's.
    if spread in tree["posterior"] and set(tree["posterior"][spread].dims) == {"chain", "draw"}:
        tau, sign = tree["posterior"][spread].transpose("chain", "draw").values, symbol(spread)
        decimals = digits_of(page.live.spec.structure).estimate
        here, all_ = (number(float(np.median(values)), decimals) for values in (tau[flags], tau))
        text += f", at a median {sign} of {here} against {all_} for all"
        neck = not why_no_funnel(page.live, page.funnel)
        if neck and float(np.median(tau[flags])) < float(np.median(tau)):
            text += f": small {sign} is the neck of the funnel"
    if graded("divergences", count, flags.size) == "warn":
        text += ". So few are a warning: look where they are before you trust the draws."
    elif page.live.study.parameterization == "centered":
        text += (
            ", narrower than the step that the centered sampler takes. "
            "The posterior is fine; this way through it is not."
        )
    else:
        text += ". Raise the target acceptance, or choose another geometry."
    return text


#: Titles of the report, short enough to stand beside a picture; the whole one is the row's tooltip.
_SHORT = {
    "R-hat of every parameter": "R-hat",
    "Bulk effective sample size": "Bulk ESS",
    "Tail effective sample size": "Tail ESS",
    "E-BFMI of every chain": "E-BFMI",
    "Monte Carlo error of the means": "MCSE of means",
    "Agreement with the exact posterior": "From exact",
    "Distance of the approximation from exact": "From exact",
    "Pareto's k of the approximation": "Pareto k",
    "Round trips of every replica": "Round trips",
}
#: Beginnings of titles that keep their capital in a sentence.
_NAMES = ("R-hat", "E-BFMI", "Monte Carlo", "Pareto's")
_MARKS = {"pass": ("✓", "ink-2"), "warn": ("!", "warn"), "fail": ("✕", "warn"), "information": ("i", "ink-2")}


def findings(page: Page) -> None:
    """The checks in words, beside the picture; advice where something is to be done."""
    assert page.read is not None
    c = colours(page.mode)
    rows, told = [], set()
    for row in page.read.findings:
        mark, token = _MARKS.get(row.verdict, ("", "ink-2"))
        bad = row.verdict in ("warn", "fail")
        advice = row.advice if bad and row.advice not in told else ""
        told.add(row.advice)
        rows.append(
            f'<tr title="{escape(f"{row.title}: {row.threshold}", quote=True)}">'
            f'<td style="color:{c[token]};font-weight:700" aria-label="{row.verdict}">{mark}</td>'
            f"<td>{escape(_SHORT.get(row.title, row.title))}</td>"
            f'<td class="n" style="color:{c["warn" if bad else "ink"]}">{_measured(row.measured)}</td></tr>'
            + (
                f'<tr><td class="flat"></td><td class="flat" colspan="2">{escape(advice)}</td></tr>'
                if advice
                else ""
            )
        )
    st.html(
        f"<style>.checks{{width:100%;border-collapse:collapse;font-size:13px;line-height:18px}}"
        f".checks td{{padding:5px 6px 5px 0;vertical-align:top;border-top:1px solid {c['grid']}}}"
        f".checks .n{{text-align:right;white-space:nowrap;padding-right:0;font-variant-numeric:tabular-nums}}"
        f".checks .flat{{border:0;padding:0 0 6px;color:{c['ink-2']};font-size:12.5px;line-height:17px}}"
        f".checks .where{{color:{c['ink-2']};font-size:12.5px;line-height:17px;white-space:normal;"
        f"overflow-wrap:anywhere}}"
        f'</style><table class="checks">{"".join(rows)}</table>'
    )


def _where(measured: str) -> tuple[str, str]:
    """The number that was measured, and the name of what it was found at, if any."""
    value, _, where = measured.partition(" (")
    where = where.removesuffix(")")
    return value, "" if where.endswith("%") else where


def _measured(text: str) -> str:
    """The number, and below it where it was found."""
    value, where = _where(text)
    if not where:
        return escape(value)
    named = escape(symbol(where)).replace(",", ",<wbr>").replace("_", "_<wbr>")
    return f'{escape(value)} <span class="where">{named}</span>'


def remedy(page: Page) -> None:
    """Buttons that each change one thing which may mend what the checks warn of, and fit anew."""
    assert page.read is not None
    study = page.live.study
    bad = [row.code for row in page.read.findings if row.verdict in ("warn", "fail")]
    if study.engine not in GRADIENT_ENGINES:
        return
    found = remedies(
        bad, study.parameterization, study.declared.parameterizations, study.sampler, _stronger(page)
    )
    for one in found:
        label = (
            f"Fit {_geometry(one.parameterization).lower()} instead" if one.parameterization else one.label
        )
        key = "trace_remedy" if one.id == "geometry" else f"trace_remedy_{one.id}"
        st.button(label, key=key, on_click=_mend, args=(one,), width="stretch")


def _stronger(page: Page) -> tuple[str, Mapping[str, Prior]] | None:
    """The study's model with a more sceptical preset's priors; None without one, or where it has them."""
    study, spec = page.live.study, page.live.spec
    for preset in find_scenario(study.scenario).presets:
        if "skeptical" not in preset.label.lower():
            continue
        priors = preset.priors(page.live.dataset)
        if set(priors) == set(spec.priors) and any(
            spec.priors[name] != prior for name, prior in priors.items()
        ):
            return preset.label, priors
    return None


def _mend(one: Remedy) -> None:
    changes: dict[str, Any] = {}
    if one.parameterization:
        changes["parameterization"] = one.parameterization
    if one.sampler is not None:
        changes["sampler"] = one.sampler
    if one.priors:
        changes["priors"] = dict(one.priors)
    if session.change(**changes):
        fits.start(session.study())


# ------------------------------------------------------------------------------------------- sections


@st.cache_resource(max_entries=96, show_spinner=False)
def _figure(
    section: str, id: str, finished: int, names: tuple[str, ...], unit: str, mode: Mode, _page: Page
) -> tuple[go.Figure, ...]:
    # `finished` names the run: a fit made anew keeps its id. The figure is shared: never changed.
    from hbm_core.analysis import convergence, covariance

    assert _page.read is not None
    tree, exact, titles = _page.read.tree, _page.live.exact, _page.titles
    listed = list(names)
    match section:
        case "Traces":
            draws = covariance.draws_table(tree, listed)
            ranges = {name: marginals.value_range(draws, name, exact) for name in listed}
            return (plots.traces(draws, marginals.marginals(draws, listed, exact), ranges, titles, mode),)
        case "Ranks":
            return (plots.ranks(convergence.rank_table(tree, listed), titles, mode),)
        case "Effective size":
            return (plots.ess(convergence.ess_evolution(tree, listed), titles, mode),)
        case "Autocorrelation":
            return (plots.autocorrelations(convergence.autocorrelation(tree, listed), titles, mode),)
        case "Densities":
            draws = convergence.log_density_table(tree)
            kinds = {
                "log_prior": "log prior",
                "log_likelihood": "log likelihood",
                "log_posterior": "their sum",
            }
            ranges = {name: marginals.value_range(draws, name, None) for name in kinds}
            said = {name: f"<b>{text}</b>   nats" for name, text in kinds.items()}
            return (plots.traces(draws, marginals.marginals(draws, list(kinds), None), ranges, said, mode),)
        case "Energy":
            return (plots.energy(convergence.energy_table(tree), mode),)
        case "Tempering":
            from hbm_core.analysis import tempering
            from hbm_core.plots.tempering import tempering as ladder

            tables = tempering.ladder_table(tree), tempering.barrier_table(tree), tempering.path_table(tree)
            return (ladder(*tables, mode),)
        case "Funnel":
            grounds = {}
            if exact is not None:
                grounds = {
                    "theta": marginals.funnel_background(exact, unit),
                    "standardised": marginals.funnel_background(exact, unit, standardised=True),
                }
            seen, pulled = _page.view or _page.live, _page.funnel
            words, label = seen.dataset.words, _page.own.removeprefix("theta[").removesuffix("]")
            assert pulled is not None
            centre, spread = (symbol(name) for name in pulled)
            axes = {
                "theta": f"θ {escape(symbol(label))}" + (f", {escape(words.unit)}" if words.unit else ""),
                "standardised": f"(θ {escape(symbol(label))} − {escape(centre)})/{escape(spread)}",
            }
            tau_axis = escape(spread) + (f", {escape(words.unit)}" if words.unit else "") + ", log scale"
            return (
                plots.funnel(covariance.funnel_table(tree, label, pulled), grounds, axes, tau_axis, mode),
            )
        case _:
            wanted = _parallel_names(_page)
            table = marginals.standardised(covariance.draws_table(tree, wanted), wanted, exact)
            return (plots.parallel(table, wanted, {name: escape(symbol(name)) for name in wanted}, mode),)


def _parallel_names(page: Page) -> list[str]:
    assert page.read is not None
    every = list(page.read.summary.index)
    if len(every) <= 14:
        return every
    chosen = [*page.live.spec.structure.hyperparameters, *page.names, *every]
    return list(dict.fromkeys(name for name in chosen if name in every))[:12]


def _shown(section: str, page: Page, alt: str) -> None:
    assert page.read is not None
    for figure in _figure(section, page.id, id(page.read), page.names, page.unit, page.mode, page):
        picture(figure, f"trace_{section}", alt)


def _chains(page: Page) -> list[int]:
    assert page.read is not None
    return [int(chain) for chain in page.read.tree["posterior"]["chain"].values]


def _ink(page: Page) -> str:
    return colours(page.mode)["ink"]


def _traces(page: Page) -> None:
    theme.title("What each chain drew, and how its draws pile up")
    others: list[Any] = [("line", "exact posterior", _ink(page))] if page.live.exact is not None else []
    if divergence_words(page):
        others.append(("cross", "divergence"))
    chains_legend(_chains(page), page.mode, *others)
    _shown("Traces", page, "Traces and marginal densities by chain")
    theme.caption(
        "Left, the draws in order: chains that can be believed look like one another and wander nowhere. "
        "Right, "
        "their density on the same axis: every colour should lie on the dark outline, which was computed, "
        "not sampled."
        if page.live.exact is not None
        else "Left, the draws in order: chains that can be believed look like one another and wander "
        "nowhere. "
        "Right, their density on the same axis: the colours should lie on each other."
    )


def _ranks(page: Page) -> None:
    theme.title("How often each chain holds each rank")
    chains_legend(_chains(page), page.mode, ("band", "99 % of counts if all is well"))
    _shown("Ranks", page, "Rank histograms by chain")
    theme.caption(
        "All draws are ranked together. A chain that sees the same posterior as the others has as many "
        "low as high "
        "ranks: its steps stay in the band. A peak at an end is a chain that got stuck there."
    )


def _sizes(page: Page) -> None:
    theme.title("Effective draws, as draws accumulate")
    accent = colours(page.mode)["accent"]
    st.html(
        legend(
            [("line", "bulk, behind means", accent), ("dots", "tails, behind interval ends", accent),
             ("rule", "400, enough")],
            page.mode,
        )
    )  # fmt: skip
    _shown("Effective size", page, "Effective sample size against draws")
    theme.caption(
        "Correlated draws count for less than independent ones. Both lines should rise steadily and pass "
        "400; one "
        "that flattens belongs to chains that keep visiting the same places."
    )


def _memory(page: Page) -> None:
    theme.title("How long a chain remembers")
    chains_legend(_chains(page), page.mode, ("band", "95 % of independent draws"))
    _shown("Autocorrelation", page, "Autocorrelation by chain")
    theme.caption(
        "Correlation of a draw with the one so many steps later. The faster it falls into the band, the "
        "more each "
        "draw is worth; negative values make it worth more than an independent one."
    )


def _energy(page: Page) -> None:
    assert page.read is not None
    if "energy" not in page.read.tree.get("sample_stats", {}):
        st.info("This engine draws without energies: there is nothing to look at here.")
        return
    theme.title("Energy, and how far one draw moves it")
    st.html(
        legend(
            [("area", "energy of the draws"), ("line", "its step from draw to draw", _ink(page))], page.mode
        )
    )
    _shown("Energy", page, "Densities of energy and its steps")
    theme.caption(
        "The sampler changes its energy at random once per draw. If the outline is much narrower than the "
        "filled "
        "density, it takes many draws to cross it, and the tails are visited rarely: E-BFMI, the ratio of "
        "their "
        "variances, falls under 0.3."
    )


def why_no_funnel(live: Live, pulled: tuple[str, str] | None) -> str:
    """Why a model has no funnel to show, and what to do; empty where it has one."""
    found: str = getattr(live.spec.structure, "no_funnel", "")
    if found or pulled is not None:
        return found
    return "There is no funnel without a spread between units: choose a model that pools partially."


def _funnel(page: Page) -> None:
    assert page.read is not None
    names = page.funnel
    why = why_no_funnel((page.view or page.live), names)
    if why or names is None:
        st.info(why)
        return
    if "theta" not in page.read.tree["posterior"]:
        st.info("This fit keeps no draws of single units, so there is no funnel to show.")
        return
    sign = symbol(names[1])
    theme.title(f"The funnel: {sign} against the effect of {page.words.one} {symbol(page.unit)}")
    entries: list[Any] = [("point", "draws"), ("cross", "divergence")]
    if page.live.exact is not None:
        entries.append(("regions", "exact: 50, 80, 95 and 99 % of the posterior"))
    st.html(legend(entries, page.mode))
    _shown("Funnel", page, "Log of the spread against one effect, centered and standardised")
    theme.caption(
        f"Left is what the centered sampler walks in: as {sign} shrinks, the effect is squeezed into a neck "
        "that no single "
        "step size fits. Right is the same posterior as the non-centered sampler sees it. Grey regions "
        "without dots "
        "are posterior that the draws missed."
    )


def _tempering(page: Page) -> None:
    from hbm_core.analysis import tempering

    assert page.read is not None
    tree = page.read.tree
    if not tempering.is_tempered(tree):
        st.info("This fit was made at one temperature: there is no ladder to look at.")
        return
    theme.title("From the prior to the posterior, temperature by temperature")
    st.html(legend([("line", "swaps with the next temperature", colours(page.mode)["accent"])], page.mode))
    _shown("Tempering", page, "Acceptance by temperature, the communication barrier, and paths of walkers")
    st.html(evidence_table(page))
    theme.caption(
        "Each replica keeps one point at every temperature and swaps neighbours, even pairs and odd pairs in "
        "turn. The temperatures were placed in warm-up so that all pairs accept alike: a flat line on top. "
        "Circles are trajectories (aimed at 0.8), squares the random walk "
        f"(aimed at {page.live.study.sampler.target_accept:g}); at β = 0 the prior is drawn from directly. "
        "The barrier is high where swaps are hard, and its area is Λ; dots are the temperatures. "
        "Each round trip of a walker brings a point that began anew at the prior, so modes get their weight. "
        "Energies and divergences belong to NUTS and are left out here."
    )


def evidence_table(page: Page) -> str:
    """HTML: log evidence with its error, beside exact where it is known; barrier; round trips by replica."""
    from hbm_core.analysis import tempering

    assert page.read is not None
    tree, c = page.read.tree, colours(page.mode)
    value, error = float(tree.attrs["log_evidence"]), float(tree.attrs["log_evidence_se"])
    said = [("Log evidence, nats", f"{number(value, 2)} ± {number(error, 2)}")]
    exact = getattr(page.live.posterior, "log_evidence", None)
    if exact is not None and np.isfinite(exact):
        away = (value - exact) / error if error > 0 else np.nan
        said.append(("Exact log evidence", f"{number(exact, 2)} ({signed(away, 1)} errors off)"))
    replicas = tempering.replica_table(tree)
    said.append(("Communication barrier Λ", number(float(tree.attrs["barrier"]), 2)))
    trips = ", ".join(f"{count:,}" for count in replicas["round_trips"])
    draws = tree["tempering"].sizes["draw"]
    best = number(float(replicas["best"].iloc[0]) * draws, 0)
    said.append(("Round trips by replica", f"{trips} (about {best} at best)"))
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:400;color:{c["ink-2"]};'
        f'padding:3px 18px 3px 0">{escape(name)}</th><td style="font-variant-numeric:tabular-nums">'
        f"{escape(text)}</td></tr>"
        for name, text in said
    )
    return f'<table style="border-collapse:collapse;font-size:13px;line-height:18px">{rows}</table>'


def _parallel(page: Page) -> None:
    theme.title("Each draw as one line across the parameters")
    st.html(legend([("line", "300 draws"), ("cross", "divergence")], page.mode))
    _shown("Parallel", page, "Parallel coordinates of draws, divergences marked")
    theme.caption(
        "Divergent draws that run together through one gap show where the sampler gets caught: with a small "
        "spread all "
        "effects lie close to their mean. Spread like the others, they are mostly false alarms."
    )


def _table(page: Page) -> None:
    assert page.read is not None
    theme.title("Every parameter: draws against exact")
    st.html(parameter_table(page))
    compared = page.read.agreement
    if compared is None:
        theme.caption("R-hat should be at most 1.01 and both effective sizes at least 400.")
        return
    limit = compared["limit"].iloc[0]
    from hbm_core.analysis.draws import verdict

    words = escape(verdict(compared))
    more = ""
    least = float(page.read.summary["ess_bulk"].min())
    if least < 400 and bool(compared["agrees"].all()):
        more = (
            f" But with only {least:,.0f} effective draws the error itself is wide and forgives much: "
            "the other checks decide."
        )
    theme.caption(
        f"The last column is the distance of the draws' mean from the exact one in Monte Carlo standard "
        f"errors, with "
        f"the limit of {limit:g} on either side. {words}{more}"
    )


_FIGURES = ("mean", "sd", "mcse_mean", "r_hat", "ess_bulk", "ess_tail")


def parameter_table(page: Page) -> str:
    """HTML of the table: estimates with their errors, convergence, distance from exact."""
    assert page.read is not None
    c = colours(page.mode)
    table, compared = page.read.summary, page.read.agreement
    names = _listed(page)
    decimals = digits_of(page.live.spec.structure).estimate
    head = ["", "Mean", "sd", "MCSE", "R-hat", "ESS bulk", "ESS tail"]
    head += ["Exact", "Draws − exact, MCSE"] if compared is not None else []
    exact = page.live.exact
    rows = []
    for name in names:
        row: dict[str, Any] = {key: float(table.at[name, key]) for key in _FIGURES}  # type: ignore[arg-type]
        scale = decimals if name.partition("[")[0] != "nu" else 1
        cells = [
            number(row["mean"], scale),
            number(row["sd"], scale),
            number(row["mcse_mean"], scale + 1),
            _flagged(number(row["r_hat"], 3), row["r_hat"] > 1.01, c),
            _flagged(number(row["ess_bulk"], 0), row["ess_bulk"] < 400, c),
            _flagged(number(row["ess_tail"], 0), row["ess_tail"] < 400, c),
        ]
        if compared is not None:
            known = exact is not None and name in exact.names
            cells.append(number(float(exact.mean[exact.index(name)]), scale) if known and exact else "–")
            z = compared["z_mean"].get(name, np.nan)
            limit = float(compared["limit"].iloc[0])
            cells.append(_needle(z, limit, c))
        chosen = ' class="chosen"' if name == page.own else ""
        rows.append(
            f'<tr{chosen}><th scope="row" title="{escape(name, quote=True)}">{escape(symbol(name))}</th>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    headings = "".join(f'<th scope="col">{text}</th>' for text in head)
    more = len(table) - len(names)
    note = (
        f'<p style="color:{c["ink-2"]};font-size:12.5px">{more:,} more, all closer to exact.</p>'
        if more
        else ""
    )
    return (
        f"<style>.params{{border-collapse:collapse;font-size:13px;line-height:18px;width:100%;"
        f"font-variant-numeric:tabular-nums}}.params td,.params th{{text-align:right;padding:4px 0 4px 12px;"
        f"white-space:nowrap;border-top:1px solid {c['grid']}}}.params th{{font-weight:400;"
        f"color:{c['ink-2']};"
        f"border-top:0}}.params th[scope=row]{{text-align:left;padding-left:6px;color:{c['ink']};"
        f"font-weight:600;"
        f"border-top:1px solid "
        f"{c['grid']}}}.params tr.chosen td,.params tr.chosen th{{background:{c['wash']}}}"
        f".params .needle{{display:inline-block;position:relative;width:84px;height:10px;vertical-align:-1px;"
        f"background:linear-gradient({c['grid']},{c['grid']}) 7px 2px/70px 6px no-repeat}}"
        f".params .needle i{{position:absolute;left:50%;width:1px;height:10px;background:{c['ink-3']}}}"
        f".params .needle b{{position:absolute;top:1px;width:8px;height:8px;"
        f"margin-left:-4px;border-radius:4px}}"
        f".params .z{{display:inline-block;min-width:2.8em}}"
        f'.scroll{{overflow-x:auto}}</style><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Table of parameters"><table class="params"><thead><tr>{headings}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _listed(page: Page) -> list[str]:
    """Rows of the table: hyperparameters and shown ones first; of many units those farthest from exact."""
    assert page.read is not None
    table = page.read.summary
    if len(table) <= _MOST_ROWS:
        return list(table.index)
    first = [name for name in (*page.live.spec.structure.hyperparameters, *page.names) if name in table.index]
    order = table["r_hat"].sort_values(ascending=False).index
    if page.read.agreement is not None:
        order = page.read.agreement["z_mean"].abs().sort_values(ascending=False).index
    return list(dict.fromkeys([*first, *order]))[:_MOST_ROWS]


def _flagged(text: str, bad: bool, c: Mapping[str, str]) -> str:
    return f'<b style="color:{c["warn"]}">✕ {text}</b>' if bad else text


def _needle(z: float, limit: float, c: Mapping[str, str]) -> str:
    """A distance on a small scale from −limit to limit, and its number."""
    if not np.isfinite(z):
        return "–"
    bad = abs(z) > limit
    place = 50 + 42 * float(np.clip(z / limit, -1.15, 1.15))
    colour = c["warn" if bad else "accent"]
    return (
        f'<span class="needle" aria-hidden="true"><i></i>'
        f'<b style="left:{place:.1f}%;background:{colour}"></b></span>'
        f'<span class="z" style="color:{c["warn"] if bad else "inherit"}">{signed(z, 1)}</span>'
    )


def _densities(page: Page) -> None:
    assert page.read is not None
    theme.title("Log density of prior, likelihood and posterior")
    chains_legend(_chains(page), page.mode)
    _shown("Densities", page, "Log densities of prior, likelihood and posterior by chain")
    theme.caption(
        "Each draw's log density, in nats, by its parts: what the prior says of the parameters, what the "
        "readings say, and their sum. Chains that sit at another level, or still climb, have not found the "
        "same place."
    )


SECTIONS: dict[str, Callable[[Page], None]] = {
    "Traces": _traces,
    "Table": _table,
    "Ranks": _ranks,
    "Effective size": _sizes,
    "Autocorrelation": _memory,
    "Energy": _energy,
    "Funnel": _funnel,
    "Parallel": _parallel,
    "Densities": _densities,
    "Tempering": _tempering,
}
#: The section that needs no fit of the study's own.
LAB = "Parameterizations"


def offered(page: Page) -> list[str]:
    """Sections that say something of this study's fit: energies are NUTS's, temperatures are tempering's."""
    engine = page.live.study.engine
    absent = set() if engine == "tempering" else {"Tempering"}
    absent |= {"Energy"} if engine in ("blocked", "tempering") else set()
    if page.read is None or "log_density" not in page.read.tree.children:
        absent.add("Densities")
    return [name for name in SECTIONS if name not in absent]


def section(page: Page, name: str) -> None:
    """Draw one section of a finished fit: the picture left, checks and controls beside it."""
    left, right = st.columns([2.75, 1], gap="large")
    with right:
        page = controls(page)
        theme.title("Can it be believed?")
        findings(page)
        remedy(page)
    with left:
        SECTIONS[name](page)


def damaged(study: Study, problem: StoreError) -> None:
    """A kept fit that cannot be read: what happened, and the way out."""
    st.warning(theme.plain(problem))
    st.button("Fit again", key="trace_refit", on_click=fits.start, args=(study,), type="primary")
