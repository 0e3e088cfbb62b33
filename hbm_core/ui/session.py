"""The one owner of session state: the study, its URL and what was said to the visitor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from hbm_core.errors import InputError, StoreError
from hbm_core.models.dataset import Dataset
from hbm_core.store.access import is_visitor_token, owner_name, visitor_token
from hbm_core.store.study import Study

#: The cookie that tells one visitor's browser from another's.
COOKIE = "hbm_visitor"

_STUDY, _WRITTEN, _NOTICE, _TOKEN = "study", "study_written_query", "study_notice", "session_token"
_SOUND, _RESETS = "study_last_sound", "study_resets"


def study() -> Study:
    """The session's study; a link that was opened since the last run replaces it."""
    query = dict(st.query_params)
    if _STUDY not in st.session_state or (query and query != st.session_state.get(_WRITTEN)):
        try:
            opened = Study.from_query(query) if query else Study.default()
            opened.spec(opened.data(uploads))
        except InputError as problem:
            opened = Study.default()
            notify(f"This link could not be opened as it is, so you see the default study. {problem}")
        st.session_state[_STUDY] = opened
    return st.session_state[_STUDY]


def mirror(current: Study) -> None:
    """Write the study into the address, so that copying it reopens exactly this."""
    if dict(st.query_params) != current.query:
        st.query_params.from_dict(current.query)
    st.session_state[_WRITTEN] = current.query


def change(**changes: Any) -> bool:
    """Change the study; on nonsense keep it and say why. Returns whether it changed."""
    try:
        changed = study().change(**changes)
        changed.spec(changed.data(uploads))
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


def notify(text: str) -> None:
    """Keep a message for the next drawing of the frame."""
    st.session_state[_NOTICE] = text


def notice() -> str | None:
    """The message to show now, once."""
    return st.session_state.pop(_NOTICE, None)


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

    return engine().uploaded(digest) if engine().may_use(digest, owner()) else None


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
    return change(dataset=digest)
