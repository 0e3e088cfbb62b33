"""Units that are vectors: one of their parameters at a time on pages that show one number per unit.

`along` turns a study's live picture into that of one parameter; whatever shows units one by one then shows
it like any other. What is special to circuits, their curves, is drawn by `hbm_core.ui.circuit_section`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from typing import Any, cast

import streamlit as st

from hbm_core.errors import FitError
from hbm_core.inference.reweighted import ReweightedPosterior
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.dataset import Dataset, Words
from hbm_core.models.one_parameter import OneParameter, one_parameter
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.ui import session, theme
from hbm_core.ui.live import Live

#: Views that are kept: what hangs on a posterior or a data set is found again.
_MOST_KEPT = 64
_KEPT: OrderedDict[tuple[object, ...], Live] = OrderedDict()
_LOCK = Lock()


def has(seen: Live) -> bool:
    """Whether units are vectors."""
    return isinstance(seen.spec.structure, CircuitPopulation)


def parameter_of(seen: Live) -> str:
    """The selected parameter, or the first that most units use."""
    structure: Any = seen.spec.structure
    if seen.study.parameter in structure.fitted:
        return str(seen.study.parameter)
    return str(structure.fitted[int(structure.uses.sum(axis=0).argmax())])


def unit_of(seen: Live, among: Any = None) -> str:
    """The selected unit, or of those in `among` the one with the fewest readings: it learns most."""
    structure: Any = seen.spec.structure
    units = (among or structure).units
    if seen.study.unit in units:
        return str(seen.study.unit)
    count = dict(zip(structure.units, structure.readings, strict=True))
    return str(min(units, key=count.__getitem__))


def along(seen: Live) -> Live:
    """The picture of the selected parameter; of units that are numbers, `seen` itself."""
    if not has(seen):
        return seen
    parameter = parameter_of(seen)
    texts = tuple(prior.text for prior in seen.spec.priors.values())
    key: tuple[object, ...] = (
        seen.dataset.digest,
        seen.study.query.get("model"),
        parameter,
        texts,
        seen.posterior,
        seen.problem,
    )
    key += (tuple(seen.spec.constants.items()), seen.stale)
    with _LOCK:
        found = _KEPT.get(key)
    if found is None:
        found = _along(seen, parameter)
    with _LOCK:
        _KEPT[key] = found
        _KEPT.move_to_end(key)
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    return replace(found, study=replace(seen.study, unit=unit_of(seen, found.spec.structure)), whole=seen)


def _along(seen: Live, parameter: str) -> Live:
    scenario, whole = find_scenario(seen.study.scenario), cast(Any, seen.spec.structure)
    try:
        with st.spinner("Fitting each unit by itself"):
            effect, se = scenario.alone(seen.dataset, whole)
    except FitError as problem:
        st.warning(theme.plain(str(problem)))
        st.stop()
    spec = one_parameter(cast(Any, seen.spec), parameter, effect, se)
    posterior = seen.posterior
    if isinstance(posterior, ReweightedPosterior):
        posterior = posterior.renamed(spec, cast(OneParameter, spec.structure).names)
    return replace(seen, spec=spec, posterior=posterior, dataset=_dataset(seen, parameter))


def _dataset(seen: Live, parameter: str) -> Dataset:
    """The data set in words and truth of one parameter."""
    own, structure = seen.dataset, cast(Any, seen.spec.structure)
    unit = structure.declared[parameter].unit
    words = Words(
        own.words.one,
        own.words.many,
        parameter,
        f"log₁₀ {unit}" if unit else "log₁₀",
        f"Taken alone, {{unit}} puts log₁₀ {parameter} at {{raw}}; in the company of the others it is "
        "{pooled}.",
    )
    truth = None
    if own.truth is not None:
        ending = f",{parameter}]"
        truth = {
            f"{name.removesuffix(ending)}]": value
            for name, value in own.truth.items()
            if name.startswith("theta[") and name.endswith(ending)
        }
    return Dataset(own.name, own.label, own.table, words, own.reference, truth, own.notes)


def flat(seen: Live, unit: str) -> str:
    """Flat name, in a fit, of a unit's selected parameter; `seen` as `along` gives it."""
    own = f"theta[{unit}]"
    structure: Any = seen.spec.structure
    return str(structure.names.get(own, own)) if isinstance(structure, OneParameter) else own


def choose(seen: Live, key: str) -> None:
    """Let the visitor choose the parameter; nothing where units are numbers."""
    if not has(seen):
        return
    structure: Any = seen.spec.structure
    name = f"{key}_parameter"
    st.session_state[name] = parameter_of(seen)

    def said(parameter: str) -> str:
        return f"{parameter}: {structure.declared[parameter].words}"

    def changed() -> None:
        session.change(parameter=st.session_state[name])

    st.selectbox(
        "Rate constant",
        list(structure.fitted),
        key=name,
        format_func=said,
        on_change=changed,
        help="What is shown of each circuit here and on the other pages; type to search.",
    )
