"""What the page Fits needs from Streamlit: one row per fit, and what can be done with it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from hbm_core.analysis.draws import grade, graded
from hbm_core.errors import DamagedResult, InputError, StoreError
from hbm_core.inference.sampler import GRADIENT_ENGINES
from hbm_core.models.dataset import Dataset
from hbm_core.plots.theme import number
from hbm_core.plots.tokens import colours
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.store.erasure import Erased
from hbm_core.store.gallery import ships
from hbm_core.store.jobs import FIT, Job
from hbm_core.store.request import FitRequest, engine_versions
from hbm_core.store.study import SIMULATED, Study
from hbm_core.ui import fits, session, theme
from hbm_core.ui.trace_page import GEOMETRIES, symbol

#: Rows shown at first and by each further click; seconds between two looks at fits under way.
_PAGE, PERIOD = 10, 1.0
_CHOSEN, _SHOWN, _RENAMED = "fits_chosen", "fits_shown", "fits_rename"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Entry:
    """A fit as a row of the library.

    Parameters
    ----------
    job : Job
        From the job table.
    request : FitRequest or None
        None where this version cannot read it.
    summary : mapping
        The result's small summary; empty before it is done.
    problem : str
        Why the result cannot be read.
    """

    job: Job
    request: FitRequest | None
    summary: Mapping[str, Any]
    problem: str = ""

    @property
    def done(self) -> bool:
        """Whether there is a result that can be read."""
        return self.job.state == "done" and not self.problem

    @property
    def older(self) -> bool:
        """Whether it was made by an earlier version of its model."""
        if self.request is None:
            return True
        return self.request.model_version < find_scenario(self.request.scenario).model_version

    @property
    def sound(self) -> bool:
        """Whether it passes every check that a summary can tell."""
        return self.done and grade(self.summary.get("diagnostics", {}), self.summary.get("exact")) == "pass"


def library() -> tuple[list[Entry], list[Entry]]:
    """The session's fits, and the others of built-in data, newest first."""
    engine = fits.engine()
    own = [job for job in engine.jobs(session.owner()) if job.task == FIT]
    mine = {job.id for job in own}
    others = [job for job in engine.gallery() if job.task == FIT and job.id not in mine]
    return [_entry(job) for job in own], [_entry(job) for job in others]


def _entry(job: Job) -> Entry:
    try:
        request = FitRequest.from_dict(json.loads(job.request))
        find_scenario(request.scenario).model(request.model)
    except (ValueError, TypeError, KeyError):
        request = None
    if job.state != "done":
        return Entry(job, request, {})
    try:
        return Entry(job, request, _summary(job.id, job.finished or 0.0))
    except StoreError as problem:
        return Entry(job, request, {}, str(problem))


@st.cache_data(max_entries=512, show_spinner=False)
def _summary(id: str, finished: float) -> dict[str, Any]:
    return fits.engine().summary(id)


# --------------------------------------------------------------------------------------------- words


#: Engines other than NUTS, in words.
_ENGINES = {
    "blocked": "blocked sampling",
    "exact": "exact draws",
    "variational": "normal approximation",
    "tempering": "parallel tempering",
}
#: Priors that a fit's line names, at most: its script and its manifest have all.
_MOST_PRIORS = 5
#: Those whose fits a script can repeat, as far as it goes.
_SCRIPTED = ("nuts", "blocked", "tempering")


def age(seconds: float) -> str:
    """How long ago, in words.

    >>> age(20), age(300), age(7200), age(90000), age(5e6)
    ('just now', '5 min ago', '2 h ago', 'yesterday', '58 days ago')
    """
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min ago"
    if seconds < 86400:
        return f"{seconds / 3600:.0f} h ago"
    return "yesterday" if seconds < 172800 else f"{seconds / 86400:.0f} days ago"


def size(count: int) -> str:
    """Bytes in words.

    >>> size(812), size(388_000), size(2_400_000)
    ('812 B', '388 kB', '2.4 MB')
    """
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:,.1f} MB"


def words(entry: Entry) -> str:
    """Scenario, model, priors, geometry and engine of a fit, one line."""
    request = entry.request
    if request is None:
        return "Made by another version of this program, which this one cannot read."
    found = find_scenario(request.scenario)
    priors = ", ".join(_prior(request, name) for name in list(request.priors)[:_MOST_PRIORS])
    if (more := len(request.priors) - _MOST_PRIORS) > 0:
        priors += f" and {more} more priors"
    geometry = GEOMETRIES.get(request.parameterization, (request.parameterization, ""))[0].lower()
    how = _ENGINES.get(request.engine, f"{geometry} geometry")
    shape = f"{request.sampler.chains} × {request.sampler.draws:,} draws, seed {request.sampler.seed}"
    if request.engine in ("blocked", "tempering"):
        how += f" in the {geometry} geometry"
    if request.engine == "tempering":
        shape += f", {request.sampler.temperatures} temperatures"
    if request.engine in GRADIENT_ENGINES:
        shape += f", target acceptance {request.sampler.target_accept:g}"
    return f"{how.capitalize()} · {found.model(request.model).label} · {priors} · {found.title} · {shape}"


def _prior(request: FitRequest, name: str) -> str:
    return f"{symbol(name)} ~ {request.priors[name].text}"


def differences(entries: list[Entry]) -> dict[str, tuple[str, ...]]:
    """What tells fits of one name apart, by id; nothing for names that occur once."""
    named: dict[str, dict[str, dict[str, str]]] = {}
    for entry in entries:
        if entry.request is not None:
            named.setdefault(entry.job.label, {})[entry.job.id] = _facets(entry.request)
    found: dict[str, tuple[str, ...]] = {}
    for facets in named.values():
        if len(facets) > 1:
            kinds = dict.fromkeys(kind for each in facets.values() for kind in each)
            telling = [kind for kind in kinds if len({each.get(kind) for each in facets.values()}) > 1]
            found |= {
                id: tuple(each[kind] for kind in telling if kind in each) for id, each in facets.items()
            }
    return found


def _facets(request: FitRequest) -> dict[str, str]:
    sampler = request.sampler
    constants = ", ".join(f"{name} {value:g}" for name, value in request.constants.items())
    return {
        "engine": _ENGINES.get(request.engine, "NUTS"),
        "geometry": GEOMETRIES.get(request.parameterization, (request.parameterization, ""))[0].lower(),
        "target": f"target acceptance {sampler.target_accept:g}",
        **{f"prior of {name}": _prior(request, name) for name in request.priors},
        "covariates": ", ".join(request.covariates) or "no covariates",
        "constants": constants or "no constants",
        "data": f"data {request.data[:6]}",
        "draws": f"{sampler.chains} × {sampler.draws:,} draws",
        "tune": f"{sampler.tune:,} of warm-up",
        "seed": f"seed {sampler.seed}",
        "version": f"model version {request.model_version}",
    }


def slug(entry: Entry) -> str:
    """File name of downloads, without ending."""
    text = re.sub(r"[^a-z0-9]+", "-", entry.job.label.lower()).strip("-")[:60] or "fit"
    return f"{text}-{entry.job.id[:8]}"


def story(own: list[Entry], others: list[Entry]) -> str:
    """The page's first sentence."""
    if not own and not others:
        return "No fits yet: <b>fit</b> a study, and it is kept here with everything needed to repeat it."
    done = [entry for entry in own if entry.done]
    active = sum(entry.job.state in ("queued", "running") for entry in own)
    if not own:
        many = f"{len(others):,} finished fit{'s' if len(others) != 1 else ''} of built-in data"
        return f"You have no fits yet; <b>{many}</b> {'are' if len(others) != 1 else 'is'} open to everyone."
    text = f"You have <b>{len(own):,} fit{'s' if len(own) != 1 else ''}</b>"
    sound = sum(entry.sound for entry in done)
    if done and sound < len(done):
        text += f"; {sound:,} of {len(done):,} finished pass{'es' if sound == 1 else ''} every check"
    elif len(done) > 1:
        text += "; all" + (" finished ones" if len(done) < len(own) else "") + " pass every check"
    elif done:
        text += ", and it passes every check" if len(own) == 1 else "; the finished one passes every check"
    return text + (f"; {active:,} under way." if active else ".")


# -------------------------------------------------------------------------------------------- studies


def study_of(request: FitRequest, current: Study | None = None) -> Study:
    """The study that asks for a request: what Open shows.

    Parameters
    ----------
    request : FitRequest
        A fit's.
    current : Study, optional
        Knows how its data were simulated, where they are the request's.

    Raises
    ------
    InputError
        The request needs what this version does not have.
    StoreError
        Its data are no longer kept.
    """
    found = find_scenario(request.scenario)
    model = found.model(request.model)
    source: dict[str, Any] = {"dataset": request.data}
    dataset: Dataset | None = None
    for name in found.datasets:
        if (built_in := found.dataset(name)).digest == request.data:
            source, dataset = {"dataset": name}, built_in
    if dataset is None and current is not None and current.dataset == SIMULATED:
        simulated = current.data()
        if simulated.digest == request.data:
            dataset = simulated
            source = {"dataset": SIMULATED, "knobs": current.knobs, "data_seed": current.data_seed}
    if dataset is None:
        dataset = fits.engine().results.dataset(request.data)
    usual = model.priors(dataset, request.covariates)
    constants = model.constants(dataset)
    return Study(
        scenario=request.scenario,
        model=request.model,
        priors={name: prior for name, prior in request.priors.items() if usual.get(name) != prior},
        constants={name: value for name, value in request.constants.items() if constants.get(name) != value},
        covariates=request.covariates,
        parameterization=request.parameterization,
        engine=request.engine,
        sampler=request.sampler,
        **source,
    )


def open_study(entry: Entry) -> bool:
    """Make a fit's study the session's; whether it could be."""
    if entry.request is None:
        return False
    try:
        study = study_of(entry.request, session.study())
    except (InputError, StoreError) as problem:
        session.notify(f"This fit's study cannot be opened. {problem}")
        return False
    fields = ("dataset", "model", "knobs", "data_seed", "priors", "constants", "covariates",
              "parameterization", "engine", "sampler")  # fmt: skip
    return session.change(
        scenario=study.scenario, unit=None, **{name: getattr(study, name) for name in fields}
    )


# ------------------------------------------------------------------------------------------ downloads


def netcdf(entry: Entry) -> bytes:
    """The fit as one file with its request and data inside."""
    from hbm_core.store.exchange import Fit, write_fit

    engine = fits.engine()
    assert entry.request is not None
    fit = Fit(entry.request, engine.dataset(entry.job.id), engine.result(entry.job.id))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.nc"
        write_fit(path, fit)
        return path.read_bytes()


def draws_csv(entry: Entry) -> str:
    """Every draw of every parameter."""
    from hbm_core.scenarios.tables import csv_text
    from hbm_core.store.summary import draws_table

    return csv_text(draws_table(fits.engine().result(entry.job.id)))


def summary_csv(entry: Entry) -> str:
    """One row per parameter: moments, quantiles, convergence."""
    from hbm_core.scenarios.tables import csv_text

    rows = []
    for name, found in entry.summary["parameters"].items():
        flat = {"parameter": name, "mean": found["mean"], "sd": found["sd"]}
        flat |= {f"q{level}": value for level, value in found["q"].items()}
        flat |= {"hdi95_low": found["hdi95"][0], "hdi95_high": found["hdi95"][1]}
        rows.append(flat | {key: value for key, value in found.items() if key not in ("q", "hdi95", *flat)})
    return csv_text(pd.DataFrame(rows))


def code(entry: Entry) -> str:
    """The stand-alone script that reproduces the fit."""
    from hbm_core.report.code import script

    assert entry.request is not None
    spec = entry.request.spec(fits.engine().dataset(entry.job.id))
    return script(spec, entry.request.sampler, entry.job.label, entry.request.engine)


def notebook(entry: Entry) -> str:
    """The script as a notebook."""
    from hbm_core.report.notebook import notebook as write

    return write(code(entry), entry.job.label, words(entry))


# ---------------------------------------------------------------------------------------------- rows

_STATES = {"queued": "waits", "running": "running", "failed": "failed", "cancelled": "cancelled"}


def style() -> None:
    """CSS of the rows; called once per run."""
    c = colours(theme.mode())
    st.html(
        f"""<style>
.fit, .fit-head {{ display: grid; grid-template-columns: minmax(0, 1fr) 58px 62px 52px 82px 84px; gap: 0 14px;
  font-size: 13px; line-height: 18px; font-variant-numeric: tabular-nums; }}
.fit-head {{ color: {c["ink-2"]}; }}
.fit .name {{ font-size: 14px; line-height: 20px; font-weight: 600; overflow-wrap: anywhere; }}
.fit .words {{ color: {c["ink-2"]}; font-size: 12.5px; line-height: 17px; overflow-wrap: anywhere; }}
.fit .n, .fit-head .n {{ text-align: right; white-space: nowrap; }}
.fit .n small {{ display: block; color: {c["ink-2"]}; font-size: 12.5px; line-height: 17px; }}
.fit .n i {{ display: none; }}
.upload .name {{ font-size: 14px; line-height: 20px; font-weight: 600; overflow-wrap: anywhere; }}
.upload .words {{ color: {c["ink-2"]}; font-size: 12.5px; line-height: 17px; }}
.fit .bad {{ color: {c["warn"]}; font-weight: 600; }}
.fit .wide {{ grid-column: 2 / -1; color: {c["ink-2"]}; }}
.fit .tag, .upload .tag {{ display: inline-block; font-size: 11.5px; font-weight: 400; line-height: 16px;
  padding: 0 6px; margin-left: 6px; white-space: nowrap;
  border: 1px solid {c["rule"]}; border-radius: 8px; color: {c["ink-2"]}; }}
.fit .tag.warn {{ color: {c["warn"]}; border-color: {c["warn"]}; }}
.fit .what .told {{ font-weight: 400; color: {c["ink-2"]}; }}
.st-key-fits_delete_yes button, .st-key-fits_drop_yes button, .st-key-fits_erase_yes button {{
  border-color: {c["warn"]}; }}
.st-key-fits_delete_yes button p, .st-key-fits_drop_yes button p, .st-key-fits_erase_yes button p {{
  color: {c["warn"]}; font-weight: 600; }}
.fit .bar {{ height: 5px; background: {c["grid"]}; border-radius: 3px; margin-top: 5px; }}
.fit .bar div {{ height: 5px; background: {c["accent"]}; border-radius: 3px; }}
@media (max-width: 900px) {{
  .fit-head {{ display: none; }}
  .fit {{ grid-template-columns: repeat(5, auto); justify-content: start; gap: 4px 14px; }}
  .fit .what, .fit .wide {{ grid-column: 1 / -1; }}
  .fit .n {{ text-align: left; }}
  .fit .n i {{ display: block; font-style: normal; color: {c["ink-2"]}; font-size: 11.5px; }}
}}
</style>"""
    )


def head() -> None:
    """Headings over the rows."""
    left, _ = st.columns([5, 1.15], gap="medium")
    left.html(
        '<div class="fit-head"><span>Fit</span><span class="n" title="Chains agree at 1.01 or less">'
        "R-hat</span>"
        '<span class="n" title="Smallest effective number of draws; 400 is enough">Least ESS</span>'
        '<span class="n" title="Divergent draws">Div.</span>'
        '<span class="n" title="Largest distance of a mean, sd or median from the exact posterior, in '
        "Monte Carlo "
        'standard errors">From exact</span><span class="n">Age, size</span></div>'
    )


def row(entry: Entry, own: bool, told: tuple[str, ...] = ()) -> None:
    """One fit with its buttons; its details below where it is the chosen one. `told` is added to its name."""
    job = entry.job
    left, right = st.columns([5, 1.15], gap="medium")
    left.html(row_html(entry, time.time(), told))
    with right, st.container(horizontal=True, gap="small", horizontal_alignment="right"):
        if job.state in ("queued", "running"):
            if own:
                st.button(
                    "Cancelling…" if job.cancel else "Cancel", key=f"fits_cancel_{job.id}",
                    on_click=_cancel, args=(job.id,), disabled=job.cancel,
                )  # fmt: skip
        elif entry.request is not None and st.button(
            "Open", key=f"fits_open_{job.id}", help="Make this the current study and look at its draws"
        ):
            if open_study(entry):
                _go("trace")
            else:
                st.rerun()
        chosen = st.session_state.get(_CHOSEN) == job.id
        if job.state not in ("queued", "running"):
            st.button(
                "Less" if chosen else "More", key=f"fits_more_{job.id}", on_click=_choose,
                args=(None if chosen else job.id,), help="Downloads, code, pin, rename, delete",
            )  # fmt: skip
    if st.session_state.get(_CHOSEN) == job.id and job.state not in ("queued", "running"):
        details(entry, own)
    st.html(f'<hr style="margin:0;border:0;border-top:1px solid {colours(theme.mode())["grid"]}">')


def row_html(entry: Entry, now: float, told: tuple[str, ...] = ()) -> str:
    """HTML of a row: what it is, how sound it is, how old and large."""
    job = entry.job
    tags = []
    if job.pinned:
        tags.append('<span class="tag">pinned</span>')
    if job.state == "done" and job.partial:
        tags.append('<span class="tag warn">partial</span>')
    if entry.older and entry.request is not None:
        tags.append('<span class="tag warn">older model version</span>')
    elif entry.done and entry.request is not None and entry.request.versions != engine_versions():
        tags.append('<span class="tag">other sampler versions</span>')
    if job.state in _STATES:
        tone = " warn" if job.state == "failed" else ""
        tags.append(f'<span class="tag{tone}">{_STATES[job.state]}</span>')
    if entry.problem:
        tags.append('<span class="tag warn">damaged</span>')
    named = escape(job.label or "Fit")
    if told:
        named += f'<span class="told"> · {escape(", ".join(told))}</span>'
    what = (
        f'<div class="what"><div class="name">{named}{"".join(tags)}</div>'
        f'<div class="words">{escape(words(entry))}</div></div>'
    )
    ended = job.finished or job.created
    if not entry.done:
        return f'<div class="fit">{what}<div class="wide">{_state(entry)}</div></div>'
    kept = f'<div class="n"><i>age</i>{age(now - ended)}<small>{size(job.bytes)}</small></div>'
    return f'<div class="fit">{what}{_glance(entry)}{kept}</div>'


def _state(entry: Entry) -> str:
    job = entry.job
    if entry.problem:
        return f'<span class="bad">✕</span> {escape(entry.problem)}'
    if job.state == "failed":
        return f'<span class="bad">✕</span> {escape(job.error or "The reason was not recorded.")}'
    if job.state == "running" and job.cancel:
        return "Cancelling…"
    if job.state == "running" and job.progress is not None and job.progress.stage == "saving":
        return 'Sampled. Checking and saving<div class="bar"><div style="width:100%"></div></div>'
    if job.state == "running":
        share = 100 * job.progress.fraction if job.progress else 0.0
        left = job.progress.seconds_left if job.progress else None
        text = f"{share:.0f} %" + (f", about {max(1, round(left))} s left" if left is not None else "")
        if not share:
            text = "Preparing the model"
        return f'{text}<div class="bar"><div style="width:{share:.0f}%"></div></div>'
    if job.state == "queued":
        position = fits.engine().table.position(job.id)
        return "Next in line." if position == 1 else f"Place {position} in the queue."
    return "Cancelled; nothing was kept."


def _glance(entry: Entry) -> str:
    found, exact = entry.summary.get("diagnostics", {}), entry.summary.get("exact")

    def cell(name: str, text: str, verdict: str = "pass") -> str:
        mark = {"warn": "!", "fail": "✕"}.get(verdict)
        shown = f'<span class="bad">{mark} {text}</span>' if mark else text
        return f'<div class="n"><i>{name}</i>{shown}</div>'

    r_hat, ess = found.get("r_hat_max"), found.get("ess_bulk_min")
    tail, divergences = found.get("ess_tail_min"), found.get("divergences")
    least = min((value for value in (ess, tail) if value is not None), default=None)
    if found.get("engine") == "variational":
        # Independent draws: what is in doubt is what they were drawn from.
        r_hat = least = None
    return (
        cell("R-hat", "–" if r_hat is None else number(r_hat, 3), graded("r_hat", r_hat or 1.0))
        + cell(
            "least ESS",
            "–" if least is None else number(least, 0),
            "pass" if least is None else graded("ess", least),
        )
        + cell(
            "div.",
            "–" if divergences is None else f"{divergences:,}",
            graded("divergences", divergences or 0, found.get("draws", 0) * found.get("chains", 0)),
        )
        + cell(
            "from exact",
            "–"
            if exact is None
            else f"{number(exact['worst'], 2)} sd"
            if exact.get("unit") == "sd"
            else f"{number(exact['worst'], 1)} MCSE",
            "fail" if exact is not None and not exact["agrees"] else "pass",
        )
    )


# -------------------------------------------------------------------------------------------- actions


def details(entry: Entry, own: bool) -> None:
    """What can be done with one fit."""
    id = entry.job.id
    with st.container(border=True, key=f"fits_details_{id}"):
        problem = entry.problem or (_unreadable(entry) if entry.job.state == "done" else "")
        if problem or entry.job.state in ("failed", "cancelled"):
            if problem:
                st.warning(theme.plain(problem))
            if entry.request is not None and not entry.older:
                st.button("Fit again", key=f"fits_again_{id}", on_click=again, args=(entry,), type="primary")
        else:
            _downloads(entry)
        if own:
            _manage(entry)
        if entry.request is not None and not problem:
            _code(entry)
        st.caption(f"Id {id[:12]}; `hbm code {id[:12]}` prints the script, `hbm check {id[:12]}` the checks.")


def _unreadable(entry: Entry) -> str:
    try:
        fits.engine().file(entry.job.id)
    except StoreError as problem:
        return str(problem)
    return ""


def _downloads(entry: Entry) -> None:
    kinds: list[tuple[str, str, str, Callable[[], str | bytes]]] = [
        ("NetCDF", ".nc", "application/x-netcdf", lambda: netcdf(entry)),
        ("Draws, CSV", "-draws.csv", "text/csv", lambda: draws_csv(entry)),
        ("Summary, CSV", "-summary.csv", "text/csv", lambda: summary_csv(entry)),
    ]
    if entry.request is not None and entry.request.engine in _SCRIPTED:
        kinds += [
            ("Script", ".py", "text/x-python", lambda: code(entry)),
            ("Notebook", ".ipynb", "application/x-ipynb+json", lambda: notebook(entry)),
        ]
    with st.container(horizontal=True, gap="small"):
        for label, ending, mime, make in kinds:
            st.download_button(
                label,
                make,
                slug(entry) + ending,
                mime,
                key=f"fits_{label}_{entry.job.id}",
                on_click="ignore",
                icon=":material/download:",
            )


def _manage(entry: Entry) -> None:
    job = entry.job
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Unpin" if job.pinned else "Pin", key=f"fits_pin_{job.id}", on_click=_pin,
            args=(job.id, not job.pinned),
            help="A pinned fit is kept however full the store gets and however old it is.",
        )  # fmt: skip
        with st.popover("Rename"):
            key = f"{_RENAMED}_{job.id}"
            # Enter saves as well as the button does.
            st.text_input(
                "Title", value=job.label, max_chars=200, key=key, on_change=_rename, args=(job.id, key)
            )
            st.button("Save", key=f"fits_save_{job.id}", on_click=_rename, args=(job.id, key))
        if st.button("Delete", key=f"fits_delete_{job.id}"):
            ask_delete(job.id, job.label)


def _code(entry: Entry) -> None:
    if entry.request is None or entry.request.engine not in _SCRIPTED:
        return
    if st.toggle("Show code", key=f"fits_code_{entry.job.id}"):
        try:
            text = code(entry)
        except (InputError, StoreError) as problem:
            st.warning(theme.plain(problem))
            return
        st.code(text, language="python", height=420)
        theme.caption(
            "This script runs by itself where pymc, nutpie and arviz are installed: the data are in it, "
            "the model in "
            "plain PyMC, settings and seed are the fit's. The notebook holds the same in cells."
        )


@st.dialog("Delete this fit?")
def ask_delete(id: str, label: str) -> None:
    """Ask before a fit goes."""
    st.markdown(
        "It goes from your list, and from the disk where nobody else asked for it. A fit of built-in data "
        "that somebody else made stays for everyone. Its study can be fitted anew."
    )
    st.text(label)
    left, right = st.columns(2)
    if left.button("Delete", key="fits_delete_yes", on_click=_delete, args=(id,), width="stretch"):
        st.rerun()
    if right.button("Keep", key="fits_delete_no", width="stretch"):
        st.rerun()


def _delete(id: str) -> None:
    _try(lambda: fits.engine().delete(id, session.owner()))
    st.session_state.pop(_CHOSEN, None)


def again(entry: Entry) -> None:
    """Ask for the same fit once more."""
    assert entry.request is not None
    engine = fits.engine()
    try:
        dataset = engine.results.dataset(entry.request.data)
        engine.submit(entry.request, dataset, session.owner(), entry.job.label)
    except (InputError, StoreError, DamagedResult) as problem:
        session.notify(str(problem))


def _choose(id: str | None) -> None:
    st.session_state[_CHOSEN] = id


def _rename(id: str, key: str) -> None:
    if text := str(st.session_state.get(key, "")).strip():
        _try(lambda: fits.engine().rename(id, text, session.owner()))


def _pin(id: str, pinned: bool) -> None:
    _try(lambda: fits.engine().pin(id, pinned, session.owner()))


def _try(action: Callable[[], object]) -> None:
    """Do it; a refusal becomes a notice."""
    try:
        action()
    except (InputError, StoreError) as problem:
        session.notify(str(problem))


def _cancel(id: str) -> None:
    fits.engine().cancel(id, session.owner())


def _go(page: str) -> None:
    st.switch_page(ROOT / "pages" / f"{page}.py")


# ---------------------------------------------------------------------------------------------- privacy


def own_data(current: Study, any_fits: bool) -> None:
    """What the visitor has uploaded, and the way to delete everything of one's own."""
    uploads = fits.engine().uploads(session.owner())
    if uploads:
        st.markdown("**Your data**")
        st.html(f'<hr style="margin:0;border:0;border-top:1px solid {colours(theme.mode())["rule"]}">')
    for upload in uploads:
        left, right = st.columns([5, 1.15], gap="medium")
        title = upload.label or "Data from a link"
        tags = '<span class="tag">from a link</span>' if upload.guest else ""
        tags += '<span class="tag">current study</span>' if upload.digest == current.dataset else ""
        kept = f"{size(upload.bytes)}, used {age(time.time() - upload.used)}"
        left.html(
            f'<div class="upload"><div class="name">{escape(title)}{tags}</div>'
            f'<div class="words">{escape(kept)}</div></div>'
        )
        with right, st.container(horizontal=True, gap="small", horizontal_alignment="right"):
            if st.button("Delete", key=f"fits_drop_{upload.digest}"):
                ask_drop(upload.digest, title, upload.guest)
    days = fits.engine().settings.retention_days
    after = f" What nobody used for {days:g} days goes by itself, unless it is pinned." if days else ""
    st.caption(
        "Uploads and the fits of them are seen by you alone, and by whom you give a link that you copied. "
        f"Fits of built-in data are open to everyone.{after}"
    )
    if (uploads or any_fits) and st.button("Delete my data", key="fits_erase"):
        ask_erase()


@st.dialog("Delete these data?")
def ask_drop(digest: str, title: str, guest: bool) -> None:
    """Ask before an upload goes."""
    st.markdown(
        "They go from your list with the fits you made of them. Whoever gave you the link keeps them."
        if guest
        else "They go with the fits made of them, for everyone to whom you gave a link too: every link to "
        "them ends. Who uploaded the same table keeps it."
    )
    st.text(title)
    left, right = st.columns(2)
    if left.button("Delete", key="fits_drop_yes", on_click=_drop, args=(digest,), width="stretch"):
        st.rerun()
    if right.button("Keep", key="fits_drop_no", width="stretch"):
        st.rerun()


@st.dialog("Delete my data?")
def ask_erase() -> None:
    """Ask before everything of a visitor goes."""
    st.markdown(
        "All your uploads and all your fits go, running ones too, and every link to your data ends: fits of "
        "your uploads go for everyone, also for those to whom you gave a link. Other fits that others asked "
        "for as well, and tables that others uploaded as well, stay for them, without any trace of you. "
        "This cannot be undone."
    )
    left, right = st.columns(2)
    if left.button("Delete everything of mine", key="fits_erase_yes", on_click=erase, width="stretch"):
        st.rerun()
    if right.button("Keep", key="fits_erase_no", width="stretch"):
        st.rerun()


def _drop(digest: str) -> None:
    _try(lambda: fits.engine().delete_upload(digest, session.owner()))
    session.forget(digest)


def erase() -> None:
    """Delete all that the visitor left here, and say what went."""
    engine, owner = fits.engine(), session.owner()
    digests = [upload.digest for upload in engine.uploads(owner)]
    try:
        said, good = erased(engine.erase(owner)), True
    except StoreError as problem:
        said, good = str(problem), False
    for digest in digests:
        session.forget(digest)
    st.session_state.pop(_CHOSEN, None)
    # A study of data that went gives way to the default one, before the last word is said.
    session.study()
    session.notify(said, good=good)


def erased(gone: Erased) -> str:
    """What went, in words.

    >>> erased(Erased(fits=2, uploads=1, shared_fits=1))
    'Deleted: 2 fits and 1 upload. 1 fit stays for others, without any trace of you.'
    """

    def many(fits: int, uploads: int) -> str:
        parts = [(fits, "fit"), (uploads, "upload")]
        said = [f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in parts if count]
        return " and ".join(said)

    text = f"Deleted: {many(gone.fits, gone.uploads) or 'nothing, as there was nothing of your own'}."
    if left := many(gone.shared_fits, gone.shared_uploads):
        one = gone.shared_fits + gone.shared_uploads == 1
        text += f" {left} {'stays' if one else 'stay'} for others, without any trace of you."
    return text


# ----------------------------------------------------------------------------------------------- lists


def under_way(entries: list[Entry]) -> None:
    """Fits that wait or run, refreshed on their own; the whole page once one ends."""
    watched = {entry.job.id for entry in entries}

    @st.fragment(run_every=PERIOD)
    def look() -> None:
        now = [entry for entry in library()[0] if entry.job.id in watched]
        if any(entry.job.state not in ("queued", "running") for entry in now) or len(now) < len(watched):
            st.rerun(scope="app")
        telling = differences(now)
        for entry in now:
            row(entry, own=True, told=telling.get(entry.job.id, ()))

    look()


def rows(entries: list[Entry], own: bool) -> None:
    """The finished fits, the first of them; more on demand."""
    active = [entry for entry in entries if entry.job.state in ("queued", "running")]
    others = [entry for entry in entries if entry.job.state not in ("queued", "running")]
    if len(others) > _PAGE:
        search = st.text_input("Search", key="fits_search", placeholder="Part of a title, model or prior")
        if search:
            others = [
                entry for entry in others if search.lower() in f"{entry.job.label} {words(entry)}".lower()
            ]
    head()
    st.html(f'<hr style="margin:0;border:0;border-top:1px solid {colours(theme.mode())["rule"]}">')
    if active:
        under_way(active)
    shown, telling = st.session_state.get(_SHOWN, _PAGE), differences(others)
    for entry in others[:shown]:
        row(entry, own, telling.get(entry.job.id, ()))
    if len(others) > shown:

        def more() -> None:
            st.session_state[_SHOWN] = shown + _PAGE

        st.button(
            f"Show {min(_PAGE, len(others) - shown)} more of {len(others) - shown:,}",
            key="fits_show",
            on_click=more,
        )
    theme.caption(
        "A fit can be believed where R-hat is at most 1.01, the least effective size at least 400, no "
        "draw diverged, "
        "and no mean, sd or median lies more than 4 Monte Carlo errors (MCSE) from exact; ! marks what asks "
        "for a look, ✕ what fails. "
        "Equal requests are fitted once and shared."
    )


def nothing(study: Study) -> None:
    """No fits at all: what to do next."""
    found = fits.view(study)
    if found.status.state == "done":
        job = fits.engine().table.get(found.id)
        whose = "made by who shared it with you"
        if job is None or job.public:
            whose = "in the gallery" if ships(found.id) else "made here before"
        st.markdown(
            f"The current study's fit exists already, {whose}: nothing need be sampled. Its draws are on "
            "Trace; add it to your fits to find it here again, with downloads and code."
        )
        with st.container(horizontal=True, gap="small"):
            st.button(fits.ADD, key="fits_add", on_click=fits.start, args=(study,), type="primary")
            if st.button("Open", key="fits_open_current", help="Look at its draws"):
                _go("trace")
        return
    st.markdown(
        "A fit samples the current study in the background and keeps its draws, its diagnostics and a "
        "script that "
        "repeats it. You can go on with any page meanwhile."
    )
    if not found.status.active:
        st.button("Fit the current study", key="fits_fit", on_click=fits.start, args=(study,), type="primary")
