"""Fits as the pages see them: ask for one, watch it, read what it says beside the exact answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st

from hbm_core.analysis.draws import Grade, concerns, grade
from hbm_core.errors import InputError, StoreError
from hbm_core.inference.tempering.target import refuse_improper
from hbm_core.store.cluster import open_engine
from hbm_core.store.engine import Engine, Status
from hbm_core.store.gallery import ships
from hbm_core.store.local import LocalEngine
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study
from hbm_core.ui import session, theme

ROOT = Path(__file__).parents[2]
#: Seconds between two looks at a fit that runs.
PERIOD = 0.4
#: Seconds that a click waits for a fit to be done already.
MOMENT = 0.35
#: Visitors who look at fits that run before each looks less often, and seconds for which a look counts.
CROWD, LOOKED = 8, 10.0
_LOOKS: dict[str, float] = {}
#: Asks for a fit that others made: nothing is computed.
ADD = "Add to my fits"


@st.cache_resource(show_spinner=False)
def engine() -> LocalEngine:
    """The engine that all sessions of this server share."""
    return open_engine(Settings.from_environment())


@dataclass(frozen=True)
class FitView:
    """Where the study's fit stands, in words.

    Parameters
    ----------
    id : str
        Digest of the study's request.
    status : Status
        From the job table.
    headline, detail : str
        A few words, and a sentence.
    grade : {"pass", "warn", "fail"} or None
        Of a finished fit; None for others.
    own : bool
        Whether the visitor asked for it: not where it is the gallery's, another's, or came by a link.
    """

    id: str
    status: Status
    headline: str
    detail: str
    grade: Grade | None = None
    own: bool = True

    @property
    def fraction(self) -> float:
        """Share of the draws, from 0 to 1."""
        if self.status.progress and self.status.progress.stage == "saving":
            return 1.0
        return self.status.progress.fraction if self.status.progress else 0.0


def view(study: Study) -> FitView:
    """Look the study's fit up in the job table."""
    try:
        id = study.request(study.data(session.uploads)).digest
        status = engine().status(id)
    except (InputError, StoreError) as problem:
        return FitView("", Status("none"), "No fit", str(problem))
    own = True
    if status.state == "none" and not study.declared.exact:
        return FitView(
            id, status, "No fit yet", "The model has no exact engine: its pictures come from a fit."
        )
    try:
        own = _own(id, status)
        return replace(FitView(id, status, *_words(id, status, own)), own=own)
    except StoreError:
        # The kept result is damaged: the engine has set it aside and noted why.
        status = engine().status(id)
        return replace(FitView(id, status, *_words(id, status, own)), own=own)


def _own(id: str, status: Status) -> bool:
    """Whether the visitor waits for a fit under way, or asked for one that is done."""
    if not status.active and status.state != "done":
        return True
    return session.owner() in engine().table.sessions(id, active=status.active)


#: What a finished fit's headline adds.
_TRUST: dict[Grade, str] = {"pass": "", "warn": ", look before you trust it", "fail": ", do not trust it"}


def _words(id: str, status: Status, own: bool) -> tuple[str, str] | tuple[str, str, Grade | None]:
    if status.stopping:
        return "Cancelling…", "What it is at just now is let end, some seconds at most. Nothing will be kept."
    match status.state:
        case "queued":
            if status.error:
                return "Fit queued", status.error
            if status.warming:
                return "Fit queued", "The first worker is getting ready."
            place = "next in line" if status.position == 1 else f"place {status.position} in the queue"
            return "Fit queued", f"{place.capitalize()}."
        case "running":
            progress = status.progress
            if progress is not None and progress.stage == "saving":
                return "Fit running", "Sampled. Checking and saving the draws."
            if progress is None or progress.stage == "compiling" or not progress.chains:
                return (
                    "Fit running",
                    "Preparing the model. A new family or geometry is compiled once: some seconds.",
                )
            left = progress.seconds_left
            time_left = f", about {max(1, round(left))} s left" if left is not None else ""
            done = f"{100 * progress.fraction:.0f}"
            return f"Fit running, {done} %", f"Sampling {len(progress.chains)} chains{time_left}."
        case "done":
            partial = (
                " It stopped early (HBM_FIT_SECONDS is the limit): these are the draws so far."
                if status.partial
                else ""
            )
            summary = engine().summary(id)
            found = grade(summary["diagnostics"], summary.get("exact"))
            whose = "Fit done"
            if not own:
                job = engine().table.get(id)
                whose = "A fit shared with you"
                if job is None or job.public:
                    # By another visitor or a command: whoever it was is not told.
                    whose = "A fit from the gallery" if ships(id) else "A fit made here before"
            return f"{whose}{_TRUST[found]}", verdict(summary) + partial, found
        case "failed":
            return "Fit failed", status.error or "The reason was not recorded."
        case "cancelled":
            return "Fit cancelled", "Nothing was kept."
    return "No fit yet", "The picture is already exact; a fit adds draws and diagnostics."


def verdict(summary: dict[str, Any]) -> str:
    """Sentence or two from a result's summary: draws, what speaks against them, agreement with exact."""
    diagnostics, exact = summary["diagnostics"], summary.get("exact")
    said = f"{diagnostics['draws'] * diagnostics['chains']:,} draws"
    if doubts := concerns(diagnostics, exact):
        return f"{said}, but {'; '.join(doubts)}. Trace says more."
    said += ", no divergences" if "divergences" in diagnostics else ""
    if exact is None:
        return f"{said}."
    if exact.get("unit") == "sd":
        return (
            f"{said} of a normal approximation; nothing is more than {exact['worst']:.2f} posterior sds from "
            "exact."
        )
    return (
        f"{said}; agrees with exact: nothing is more than {exact['worst']:.1f} Monte Carlo standard errors "
        f"(MCSE) off, and up to {exact['limit']:g} is chance."
    )


def title_of(study: Study) -> str:
    """Model and whether its priors are still its own."""
    return study.model.replace("_", " ") + (", edited priors" if study.priors else "")


def start(study: Study) -> None:
    """Ask for the study's fit; a refusal becomes a notice."""
    try:
        dataset = study.data(session.uploads)
        title = title_of(study)
        if study.engine == "tempering":
            # Said at once, not by a worker after a while.
            refuse_improper(study.spec(dataset))
        id = engine().submit(
            study.request(dataset), dataset, session.owner(), label=f"{dataset.label}, {title}"
        )
        if study.uploaded and (own := session.own_uploads(study.scenario).get(study.dataset)):
            # The file's name is for its owner alone, and goes with the owner's trace.
            engine().rename(id, f"{own}, {title}", session.owner())
        # Counted before anything is drawn: of a crowd that clicks at once, nobody looks too often.
        period()
        # A small fit on a warm worker is done before a first look at its progress would be drawn.
        if (engine().status(id).position or 0) <= engine().settings.workers:
            engine().wait(id, MOMENT)
    except (InputError, StoreError) as problem:
        session.notify(str(problem))


def cancel_button(study: Study, found: FitView, key: str) -> None:
    """Cancel, while the visitor waits for the fit and has not said so yet."""
    if not found.own and not found.status.stopping:
        st.caption("Others wait for this fit, so it goes on.")
        return
    stopping = found.status.stopping
    st.button(
        "Cancelling…" if stopping else "Cancel",
        key=key,
        on_click=cancel,
        args=(study,),
        disabled=stopping,
        width="stretch",
    )


def cancel(study: Study) -> None:
    """Take this session's wish back."""
    found = view(study)
    if found.status.active:
        engine().cancel(found.id, session.owner())


def panel(study: Study) -> None:
    """Fit state with Fit and Cancel, refreshed while something runs; the whole app once it ends."""
    watch(study, _panel)


def watch(study: Study, draw: Callable[[Study, FitView], None]) -> None:
    """Draw with the fit's state, again every moment while it changes, and rerun the app when it ends.

    While nothing runs, what is drawn is an ordinary part of the page: its callbacks rerun the whole app.
    """
    found = view(study)
    if not found.status.active:
        draw(study, found)
        return

    every = period()

    @st.fragment(run_every=every)
    def look() -> None:
        now, wanted = view(study), period()
        in_step = every / 3 < wanted < 3 * every
        if not now.status.active or session.study() is not study or not in_step:
            st.rerun(scope="app")
        draw(study, now)

    look()


def alone(study: Study, draw: Callable[[Study, FitView], None], beside: Callable[[Study], object]) -> None:
    """Draw a part of the page that answers the hand, and the fit's progress, by itself.

    A run of the whole page takes several times as long, and most changes of a prior change nothing else on
    it. Where they do, the page is drawn anew.

    Parameters
    ----------
    study : Study
        The session's.
    draw : callable
        Draws the part, from the session's study at that moment.
    beside : callable
        A study → all that the rest of the page says of it, but for its priors' numbers, its selected unit
        and its fit.
    """
    found = view(study)
    every = period() if found.status.active else None
    shown = (_said(study, found), beside(study))
    first = True

    @st.fragment(run_every=every)
    def part() -> None:
        nonlocal first
        now, state = study, found
        if not first:
            now = session.study()
            state = view(now)
            # Of many who look, each looks less often.
            in_step = every is None or every / 3 < period() < 3 * every
            if session.noticed() or not in_step or (_said(now, state), beside(now)) != shown:
                st.rerun(scope="app")
            session.mirror(now)
        first = False
        draw(now, state)

    part()


def _said(study: Study, found: FitView) -> object:
    """What the frame says of a study and its fit; the progress of one under way refreshes itself."""
    fit: object = found.status.active
    if not found.status.active:
        fit = (found.status.state, found.headline, found.detail, found.own)
    return replace(study, priors={}, unit=None).query, bool(study.priors), fit


def period() -> float:
    """Seconds until this visitor's next look: the more look, the longer, so that sliders stay quick."""
    now = time.monotonic()
    _LOOKS[session.owner()] = now
    for name, looked in list(_LOOKS.items()):
        if now - looked > LOOKED:
            _LOOKS.pop(name, None)
    return PERIOD * max(1.0, len(_LOOKS) / CROWD)


def _panel(study: Study, found: FitView) -> None:
    mark = {"warn": "! ", "fail": "✕ "}.get(found.grade or "", "")
    said = f"**{mark}{found.headline}**"
    st.markdown(f":red[{said}]" if mark else said)
    if found.status.state == "running":
        st.progress(found.fraction)
    st.caption(theme.plain(found.detail))
    if found.status.active:
        cancel_button(study, found, "sidebar_cancel")
    else:
        if found.status.state == "done":
            st.page_link(ROOT / "pages" / "trace.py", label="See its diagnostics on Trace")
            if not found.own:
                st.button(ADD, key="sidebar_add", on_click=start, args=(study,), width="stretch")
        label = "Fit" if found.status.state in ("none", "cancelled") else "Fit again"
        if found.status.state != "done":
            st.button(
                label, key="sidebar_fit", on_click=start, args=(study,), type="primary", width="stretch"
            )


__all__ = [
    "ADD",
    "Engine",
    "FitView",
    "alone",
    "cancel",
    "cancel_button",
    "engine",
    "panel",
    "start",
    "verdict",
    "view",
    "watch",
]
