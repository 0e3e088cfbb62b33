"""Below the explorer: what the study is about, its model, and the data before any model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import streamlit as st
from scipy.special import ndtri

from hbm_core.inference.exact import ExactPosterior
from hbm_core.inference.exact.two_level import TwoLevelPosterior
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.raw_rates import RawRates
from hbm_core.plots.first_look import funnel, funnel_table
from hbm_core.plots.induced import induced, induced_table
from hbm_core.plots.plate import plate_svg, plate_table
from hbm_core.plots.rates import chance, chance_table
from hbm_core.plots.shrinkage import View
from hbm_core.plots.theme import digits_of
from hbm_core.plots.tokens import Mode
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.store.study import Study
from hbm_core.ui import cells_section, circuit_section, many, session, theme, vectors
from hbm_core.ui.live import Live, live

#: Units whose intervals are counted against the truth.
_MOST_COUNTED = 2000
#: Counting intervals needs quantiles of every unit: once per posterior, not once per run.
_SAID: WeakKeyDictionary[ExactPosterior, str] = WeakKeyDictionary()


def background(study: Study) -> None:
    """Draw the story, the model and the first look; `follows` says what of it priors change."""
    seen, mode = vectors.along(live(study)), theme.mode()
    st.divider()
    if said := truth_sentence(seen):
        st.markdown(said)
    cells_section.draw(seen, mode)
    dataset = seen.dataset
    structure: Any = seen.spec.structure
    if isinstance(structure, GroupedUnits):
        many.glance(seen, View(dataset.words, digits_of(structure), mode, study.unit))
    left, right = st.columns([1, 1], gap="large")
    data = (dataset.name, dataset.digest, study.scenario)
    with left:
        _about((*data, study.model, *study.covariates), mode, seen)
        _adaptive(seen, mode)
    with right:
        _before(data, mode, seen)
        _offer(seen)


def _offer(seen: Live) -> None:
    """Offer the model that the data ask for, where the study has another."""
    offer = find_scenario(seen.study.scenario).offer(seen.dataset, seen.study.model)
    if offer is None:
        return

    def use() -> None:
        session.change(model=offer.model)

    st.warning(theme.plain(offer.text))
    st.button(f"Use the model {offer.model.replace('_', ' ')}", key="offered_model", on_click=use)


def follows(study: Study) -> object:
    """What `background` draws and a prior's numbers change, as a value: while it stays, nothing is redrawn.

    Whatever is added below that follows the posterior belongs here too.
    """
    seen = vectors.along(live(study))
    adaptive = isinstance(seen.posterior, TwoLevelPosterior) and seen.spec.structure.scale == "adaptive"
    drawn = adaptive or cells_section.has(seen) or isinstance(seen.spec.structure, GroupedUnits)
    return truth_sentence(seen), seen.posterior if drawn else None


# No prior changes what these two draw, and drawing anew would cost more than all the rest of a run:
# their elements are kept and sent as they were.


@st.cache_resource(max_entries=64, show_spinner=False)
def _about(key: tuple[str, ...], mode: Mode, _seen: Live) -> None:
    study, structure, words = _seen.study, _seen.spec.structure, _seen.dataset.words
    scenario = find_scenario(study.scenario)
    theme.title("What this is about")
    st.markdown("\n".join(f"- {line}" for line in scenario.story))
    theme.title(f"The model: {study.declared.label}")
    st.markdown(study.declared.summary)
    for line in study.declared.formula:
        st.latex(line)
    st.image(plate_svg(plate_table(structure, words.one), mode), width=320, alt="Plate diagram of the model")
    theme.caption(
        "Circles are unknown, the filled one is measured, squares are known beforehand. "
        "What stands in the frame repeats for every unit."
    )


@st.cache_resource(max_entries=64, show_spinner=False)
def _before(key: tuple[str, ...], mode: Mode, _seen: Live) -> None:
    structure, dataset = _seen.spec.structure, _seen.dataset
    words = dataset.words
    if _seen.whole is not None:
        circuit_section.before(_seen.whole, mode)
        _first_look(_seen.whole)
        return
    theme.title("The data before any model")
    if isinstance(structure, RawRates):
        rates, bounds, word = chance_table(structure)
        theme.chart(chance(rates, bounds, word, words, mode), key="first_look_funnel")
        said = "one true rate"
    else:
        points, lines = funnel_table(structure)
        theme.chart(funnel(points, lines, words.axis, mode), key="first_look_funnel")
        said = "one true effect"
    theme.caption(
        f"Each circle is {words.a_one}. If all shared {said} (dashed), 95 % of them would lie "
        f"in the grey cone: {words.many} far outside it speak for real differences."
    )
    _first_look(_seen)


def _first_look(seen: Live) -> None:
    dataset = seen.dataset
    look = find_scenario(seen.study.scenario).first_look(dataset)
    st.table(first_look_rows(look), border="horizontal", hide_index=True)
    if dataset.reference:
        st.caption(theme.plain(f"Data: {dataset.reference}"))


def truth_sentence(seen: Live) -> str:
    """How many 95 % intervals hold the simulated truth, raw and pooled; empty without truth."""
    if seen.dataset.truth is None or seen.posterior is None or seen.stale:
        return ""
    if seen.posterior not in _SAID:
        _SAID[seen.posterior] = _counted(seen, seen.posterior, seen.dataset.truth)
    return _SAID[seen.posterior]


def _counted(seen: Live, posterior: ExactPosterior, known: Mapping[str, float]) -> str:
    structure: Any = seen.spec.structure
    at, some, many = np.arange(structure.effect.size), "", seen.dataset.words.many
    if isinstance(structure, GroupedUnits):
        many = structure.rows_of(many)
    if hasattr(posterior, "unit_quantiles"):
        if at.size > _MOST_COUNTED:
            at = np.linspace(0, at.size - 1, _MOST_COUNTED).astype(int)
            some = f", counted on {at.size:,} of {structure.effect.size:,} {many}"
        low, high = posterior.unit_quantiles((0.025, 0.975), at).T
    else:
        low, high = posterior.quantiles((0.025, 0.975))[posterior.theta].T
    truth = np.array([known[f"theta[{structure.units[int(place)]}]"] for place in at])
    pooled = int(((low <= truth) & (truth <= high)).sum())
    if isinstance(structure, RawRates):
        own_low, own_high = structure.raw_ends((0.025, 0.975))[at].T
        raw = int(((own_low <= truth) & (truth <= own_high)).sum())
    else:
        raw = int((np.abs(structure.effect[at] - truth) <= ndtri(0.975) * structure.se[at]).sum())
    repeats = "" if find_scenario(seen.study.scenario).no_lab else ": the page Coverage repeats it"
    return (
        f"**Against the simulated truth:** {pooled:,} of {truth.size:,} pooled 95 % intervals hold it, "
        f"and {raw:,} of the {many}' own{some}. "
        f"One data set proves little{repeats}."
    )


def _adaptive(seen: Live, mode: Mode) -> None:
    """Show what the adaptive scale does to the prior: it is another model, not another geometry."""
    if not isinstance(seen.posterior, TwoLevelPosterior) or seen.spec.structure.scale != "adaptive":
        return
    theme.title("What the adaptive scale does to the prior")
    theme.chart(induced(induced_table(seen.posterior), seen.dataset.words, mode), key="induced")
    theme.caption(
        "The effects spread with <i>τ</i>*, a bent copy of <i>τ</i>: the same prior on <i>τ</i> (solid) is "
        "another prior on the spread (dashed). So this is a different model, not a reparameterization; "
        "filled is what the data make of it."
    )


def first_look_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the first look as people read it: label, value with sensible digits, note."""
    shown = [_digits(*pair) for pair in zip(table["quantity"], table["value"], strict=True)]
    return pd.DataFrame({"Quantity": table["label"], "Value": shown, "What it says": table["note"]})


def _digits(quantity: str, value: float) -> str:
    """Shares as percentages, counts with their thousands apart, anything else with three digits.

    >>> _digits("I2", 0.123), _digits("users", 388200.0), _digits("mean", -0.8164)
    ('12 %', '388,200', '−0.816')
    """
    if quantity == "normal_wrong":
        return "yes" if value else "no"
    if quantity in ("I2", "beyond") or "share" in quantity:
        return f"{100 * value:.0f} %"
    whole = abs(value) >= 1000 or value == round(value)
    return (f"{value:,.0f}" if whole else f"{value:.3g}").replace("-", "\u2212")
