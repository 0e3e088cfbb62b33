"""The one owner of session state: the study, its URL and what was said to the visitor."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import streamlit as st

from hbm_core.errors import InputError
from hbm_core.store.study import Study

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


def token() -> str:
    """Return the session's secret name in the job table: whose interest a fit is."""
    if _TOKEN not in st.session_state:
        st.session_state[_TOKEN] = secrets.token_urlsafe(24)
    return st.session_state[_TOKEN]


def uploads(digest: str) -> bytes | None:
    """Arrow bytes of an uploaded data set, by digest."""
    from hbm_core.ui.fits import engine

    return engine().uploaded(digest)
