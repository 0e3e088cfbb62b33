"""The one owner of session state: the study, its URL and what was said to the visitor."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from hbm_core.errors import InputError, StoreError
from hbm_core.models.dataset import Dataset
from hbm_core.store.access import is_visitor_token, owner_name, visitor_token
from hbm_core.store.study import Study

#: The cookie that tells one visitor's browser from another's, and a link's parameter that opens private data.
COOKIE, KEY = "hbm_visitor", "key"

_FOLLOWED = ("fbclid", "gclid", "msclkid", "mc_cid", "mc_eid", "igshid", "ref", "source")
_STUDY, _WRITTEN, _NOTICE, _TOKEN = "study", "study_written_queries", "study_notice", "session_token"
_SOUND, _RESETS, _GOOD = "study_last_sound", "study_resets", "study_notice_is_good"
#: Addresses that may still be under way to the browser while it sends what the hand does next.
_UNDER_WAY = 32


def study() -> Study:
    """The session's study; a link that was opened since the last run replaces it."""
    query = {name: value for name, value in st.query_params.to_dict().items() if not _followed(name)}
    if _STUDY not in st.session_state or (query and _is_opened(query)):
        try:
            for name in query:
                if (times := len(st.query_params.get_all(name))) > 1:
                    raise InputError(f"parameter {name[:40]!r}", "every parameter once", f"{times} times")
            opened = Study.from_query(query) if query else Study.default()
            _admit(opened, query.get(KEY, ""))
            dataset = opened.data(uploads)
            if "model" not in query:
                opened = opened.suited(dataset)
            opened.spec(dataset)
        except (InputError, StoreError) as problem:
            opened = Study.default()
            notify(f"This link could not be opened as it is, so you see the default study. {problem}")
        st.session_state[_STUDY] = opened
        _note(query)
    current: Study = st.session_state[_STUDY]
    if current.uploaded and not _usable(current):
        st.session_state[_STUDY] = Study.default(current.scenario)
        notify("The data of this study are no longer kept, so you see the default study.")
    return st.session_state[_STUDY]


def _is_opened(query: dict[str, str]) -> bool:
    """Whether a link was opened: the address is not the one written last, nor one of before.

    An act that the browser sends before it hears of the address written last brings an older one along; only
    its Back and Forward mean an older one.
    """
    written: list[dict[str, str]] = st.session_state.get(_WRITTEN, [])
    if query in written[-1:]:
        return False
    context = get_script_run_ctx()
    return query not in written or (context is not None and context.is_history_navigation)


def _followed(name: str) -> bool:
    """Whether mail and social sites hang this on every link: it is not the link's own."""
    return name.startswith("utm_") or name in _FOLLOWED


def _admit(opened: Study, key: str) -> None:
    """Let the visitor use what a link's key opens. Whether there are such data is not told without it."""
    from hbm_core.ui.fits import engine

    if opened.uploaded and key and not engine().may_use(opened.dataset, owner()):
        engine().open_link(opened.dataset, key, owner())


def _usable(current: Study) -> bool:
    try:
        return uploads(current.dataset) is not None
    except StoreError:
        return False


def address(current: Study) -> dict[str, str]:
    """URL parameters that reopen the study, for whoever opens them: with the key to uploaded data."""
    from hbm_core.ui.fits import engine

    if not current.uploaded:
        return current.query
    key = engine().link_key(current.dataset, owner())
    return current.query | ({KEY: key} if key else {})


def mirror(current: Study) -> None:
    """Write the study into the address, so that copying it reopens exactly this."""
    written = address(current)
    if dict(st.query_params) != written:
        st.query_params.from_dict(written)
    _note(written)


def _note(address: dict[str, str]) -> None:
    before = st.session_state.get(_WRITTEN, [])
    if before[-1:] != [address]:
        st.session_state[_WRITTEN] = [*before[1 - _UNDER_WAY :], address]


def change(**changes: Any) -> bool:
    """Change the study; on nonsense keep it and say why. Returns whether it changed."""
    try:
        changed = study().change(**changes)
        dataset = changed.data(uploads)
        if "model" not in changes and {"dataset", "knobs"} & set(changes):
            changed = changed.suited(dataset)
        changed.spec(dataset)
    except InputError as problem:
        notify(str(problem))
        return False
    st.session_state[_STUDY] = changed
    return True


def change_sampler(**settings: Any) -> bool:
    """Change sampler settings; on nonsense keep the study and say why."""
    try:
        sampler = replace(study().sampler, **settings)
    except InputError as problem:
        notify(str(problem))
        return False
    return change(sampler=sampler)


def reset() -> None:
    """Return to the scenario's default study."""
    st.session_state[_STUDY] = Study.default(study().scenario)
    st.session_state[_RESETS] = resets() + 1


def resets() -> int:
    """How often the study was reset: what pages keep beside it starts afresh when this grows."""
    return st.session_state.get(_RESETS, 0)


def sound(current: Study) -> None:
    """Remember a study whose posterior exists: what to show while the next one's does not."""
    st.session_state[_SOUND] = current


def last_sound() -> Study | None:
    """The last study that was `sound`."""
    return st.session_state.get(_SOUND)


def notify(text: str, good: bool = False) -> None:
    """Keep a message for the next drawing of the frame; `good` where it is no warning."""
    st.session_state[_NOTICE], st.session_state[_GOOD] = text, good


def noticed() -> bool:
    """Whether a message waits to be shown."""
    return bool(st.session_state.get(_NOTICE))


def notice() -> tuple[str, bool] | None:
    """The message to show now, once, and whether it is good news."""
    text, good = st.session_state.pop(_NOTICE, None), st.session_state.pop(_GOOD, False)
    return (text, good) if text else None


def owner() -> str:
    """Whose uploads and fits these are: the signed-in user's, else the browser's, else the session's."""
    user = st.user.to_dict()
    if user.get("is_logged_in") and (name := user.get("sub") or user.get("email")):
        return owner_name("user", str(user.get("iss", "")), str(name))
    if _TOKEN not in st.session_state:
        # Asked once: a connection that breaks takes its cookies along while the script still runs.
        cookie = st.context.cookies.get(COOKIE)
        known = is_visitor_token(cookie)
        st.session_state[_TOKEN] = owner_name("visitor", str(cookie)) if known else visitor_token()
    return st.session_state[_TOKEN]


def uploads(digest: str) -> bytes | None:
    """Arrow bytes of an uploaded data set, by digest; None where this visitor may not use it."""
    from hbm_core.ui.fits import engine

    return _kept(digest) if engine().may_use(digest, owner()) else None


@st.cache_resource(max_entries=16, show_spinner=False)
def _kept(digest: str) -> bytes | None:
    # One object for all: who parses it can tell that it is the same.
    from hbm_core.ui.fits import engine

    return engine().uploaded(digest)


def forget(digest: str) -> None:
    """Drop what memory holds of data that were deleted."""
    _kept.clear(digest)
    _reads.clear()


def own_uploads(scenario: str) -> dict[str, str]:
    """Digest and title of the visitor's data that the scenario can read, the latest used first."""
    from hbm_core.ui.fits import engine

    found = {}
    for upload in engine().uploads(owner()):
        with suppress(StoreError):
            if _reads(scenario, upload.digest):
                found[upload.digest] = upload.label or "Data from a link"
    return found


@st.cache_resource(max_entries=512, show_spinner=False)
def _reads(scenario: str, digest: str) -> bool:
    try:
        Study.default(scenario).change(dataset=digest).data(_kept)
    except InputError:
        return False
    return True


def keep_upload(dataset: Dataset, label: str = "") -> bool:
    """Keep a visitor's own data and make them the study's; a refusal becomes a notice.

    Parameters
    ----------
    dataset : Dataset
        As the scenario's `read` made it.
    label : str
        Title for the visitor alone, e.g. the file's name.
    """
    from hbm_core.ui.fits import engine

    try:
        digest = engine().upload(dataset, owner(), label)
    except (InputError, StoreError) as problem:
        notify(str(problem))
        return False
    forget(digest)
    return change(dataset=digest)
