"""The simulator's knobs: one control each, wherever a page or the sidebar shows them."""

from __future__ import annotations

import streamlit as st

from hbm_core.scenarios import scenario as find_scenario
from hbm_core.store.study import Study
from hbm_core.ui import session


def knobs(study: Study, prefix: str = "") -> None:
    """Draw the knobs and the seed of the study's simulator; a touched one changes the study.

    Parameters
    ----------
    study : Study
        Whose knobs are shown.
    prefix : str
        Keeps the controls of one place apart from those of another.
    """
    for knob in find_scenario(study.scenario).knobs:
        key = f"{prefix}knob_{knob.name}"
        st.session_state[key] = study.knobs.get(knob.name, knob.default)

        def changed(name: str = knob.name, key: str = key) -> None:
            session.change(knobs={**session.study().knobs, name: st.session_state[key]}, priors={}, unit=None)

        if knob.choices:
            st.selectbox(knob.label, knob.choices, key=key, on_change=changed)
        else:
            cast = int if knob.integer else float
            st.session_state[key] = cast(st.session_state[key])
            lower, upper, step = cast(knob.lower), cast(knob.upper), cast(knob.step)
            st.number_input(knob.label, lower, upper, step=step, key=key, on_change=changed)
    seed = f"{prefix}knob_seed"
    st.session_state[seed] = study.data_seed

    def reseed() -> None:
        session.change(data_seed=st.session_state[seed], unit=None)

    st.number_input("Seed", 0, 2**32 - 1, step=1, key=seed, on_change=reseed)
