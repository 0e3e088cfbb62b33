"""Curves of circuits on the home page: readings, what each circuit says alone, and bands of a fit."""

from __future__ import annotations

from html import escape
from typing import Any, cast

import pandas as pd
import streamlit as st

from hbm_core.analysis import time_courses as tables
from hbm_core.errors import InputError
from hbm_core.inference.reweighted import ReweightedPosterior
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.plots import time_courses as plots
from hbm_core.plots.shrinkage import View
from hbm_core.plots.theme import digits_of, legend, number
from hbm_core.plots.tokens import Mode, colours
from hbm_core.scenarios.circuits import apart, look
from hbm_core.ui import session, theme, vectors
from hbm_core.ui.live import Live

_TURN = "circuit_turn"
#: Units of time as axes name them.
_HOURS = {"min": "Minutes", "h": "Hours"}


def story(seen: Live) -> None:
    """The study in one sentence."""
    structure: Any = seen.spec.structure
    size, conditions = len(structure.units), sum(map(len, structure.conditions))
    theme.story(
        f"{size} circuits share {len(structure.inferred)} kinds of rate constants, but not their values: "
        f"what do curves under {conditions} conditions say of each, and what do circuits learn from others?"
    )


def choose(seen: Live) -> None:
    """Circuit and rate constant, for the whole page."""
    structure: Any = seen.spec.structure
    st.session_state["circuit_unit"], named = vectors.unit_of(seen), _named(structure)
    left, middle, right = st.columns([1, 1.6, 0.8], vertical_alignment="bottom")
    with left:
        st.selectbox(
            "Circuit",
            list(structure.units),
            key="circuit_unit",
            format_func=lambda unit: named[unit],
            on_change=_chosen,
            help="Selected on every page.",
        )
    with middle:
        vectors.choose(seen, "circuit")
    if isinstance(seen.posterior, ReweightedPosterior):
        right.button("Another draw", key="circuit_draw", on_click=_next, width="stretch")


def _named(structure: CircuitPopulation) -> dict[str, str]:
    """Each circuit with its mechanism's title."""
    titles = (experiment.mechanism.label for experiment in structure.experiments)
    return {
        unit: f"{unit}: {title}" if title else unit
        for unit, title in zip(structure.units, titles, strict=True)
    }


def _chosen() -> None:
    session.change(unit=st.session_state["circuit_unit"])


def _next() -> None:
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1


def draw(seen: Live, mode: Mode) -> None:
    """Draw the selected circuit's conditions: readings under bands, or under curves before any fit."""
    structure = cast(CircuitPopulation, seen.spec.structure)
    circuit, words = vectors.unit_of(seen), seen.dataset.words
    own = apart.own(seen.dataset, structure)
    points = _of(tables.readings(structure), circuit)
    posterior = seen.posterior if isinstance(seen.posterior, ReweightedPosterior) else None
    bands, drawn = None, None
    if posterior is not None:
        try:
            bands = tables.bands(posterior)
            drawn = tables.draw_table(posterior, st.session_state.get(_TURN, 0))
        except InputError:
            posterior = None
    c = colours(mode)
    entries: list[Any] = [("raw point", "readings")]
    if bands is None:
        entries += [("line", "by itself: least squares", c["raw"]), ("mean across", "prior medians")]
    else:
        entries += [
            ("line", "median of new readings, 50 and 95 %", c["accent"]),
            ("line", "one draw", c["ink"]),
        ]
    theme.title(f"Readings of {circuit} and its curves")
    st.html(legend(entries, mode))
    lines: list[tuple[str, pd.DataFrame]]
    if drawn is not None:
        lines = [("draw", _of(drawn, circuit))]
    else:
        lines = [
            ("prior", _of(tables.curve_table(structure, _read(structure, own.prior_curve)), circuit)),
            ("alone", _of(tables.curve_table(structure, _read(structure, own.curve)), circuit)),
        ]
    domain = plots.y_domain(points)
    conditions = tables.by_dose(structure, circuit)
    across = 3 if len(conditions) in (3, 5, 6) or len(conditions) > 8 else 2
    for first in range(0, len(conditions), across):
        for column, condition in zip(st.columns(across), conditions[first : first + across], strict=False):
            with column:
                st.html(f'<div style="font-size:13px;line-height:18px">{escape(condition)}</div>')
                figure = plots.courses(
                    _at(points, condition),
                    [(kind, _at(table, condition)) for kind, table in lines],
                    None if bands is None else _at(_of(bands, circuit), condition),
                    domain,
                    words.axis,
                    mode,
                    _HOURS.get(structure.experiments[0].mechanism.time, "Minutes"),
                )
                place = conditions.index(condition)
                theme.chart(figure, key=f"circuit_curve_{place}")
    _say(seen, posterior, bands, circuit)


def _say(seen: Live, posterior: ReweightedPosterior | None, bands: pd.DataFrame | None, circuit: str) -> None:
    if posterior is None or bands is None:
        theme.caption(
            "Grey is the curve that fits this circuit's readings best, dashed that of the priors' medians. A "
            "fit adds bands in which new readings would lie, learned from all circuits together."
        )
        return
    table: Any = tables.coverage(posterior, bands).set_index("circuit")
    own, every = (
        f"{number(100 * row['inside95'], 0)} % lie in the 95 % band, {number(100 * row['inside90'], 0)} % in "
        f"one of 90 % and {number(100 * row['inside50'], 0)} % in the 50 % band"
        for row in (table.loc[circuit], table.loc["all"])
    )
    theme.caption(
        "Bands hold a new course of readings with 50 and 95 % probability, noise and gain included; the dark "
        f"line is one draw of the curve. Of {table.loc[circuit, 'readings']:,.0f} readings of this circuit "
        f"{own}; of all {table.loc['all', 'readings']:,.0f}, {every}. They were fitted to, so this is a "
        "check, not a forecast."
    )


def alone(seen: Live, mode: Mode) -> None:
    """Draw the selected parameter of every circuit by itself: the picture before any fit."""
    structure: Any = seen.spec.structure
    z = 1.959963984540054
    table = pd.DataFrame({"unit": list(structure.units), "raw": structure.effect})
    table["raw_low95"], table["raw_high95"] = (structure.effect + sign * z * structure.se for sign in (-1, 1))
    truth = seen.dataset.truth or {}
    known = {unit: truth[f"theta[{unit}]"] for unit in structure.units if f"theta[{unit}]" in truth}
    view = View(seen.dataset.words, digits_of(structure), mode, truth=known)
    center = seen.spec.priors[structure.mean].numbers[0]
    theme.title(f"{structure.parameter} in each circuit by itself")
    entries: list[Any] = [("raw", "on its own, 95 %"), ("mean", "prior median")]
    st.html(legend([*entries, ("truth", "simulated truth")] if known else entries, mode))
    theme.chart(plots.alone(table, center, view), key="circuit_alone")
    theme.caption(
        "Least squares with the prior's pull, interval from the curvature. A circuit whose interval is as "
        "wide as the prior has learned nothing of this constant: pooling lets it learn from the others."
    )


def means(seen: Live, mode: Mode) -> None:
    """Draw the mean of every rate constant over circuits, before and after the data."""
    if not isinstance(seen.posterior, ReweightedPosterior):
        return
    table = tables.means(seen.spec, seen.posterior)
    if not len(table):
        return
    truth = seen.dataset.truth or {}
    known = {name: truth[f"alpha[{name}]"] for name in table["parameter"] if f"alpha[{name}]" in truth}
    theme.title("Means of all rate constants over circuits")
    accent = colours(mode)["accent"]
    entries: list[Any] = [("raw", "prior, 95 %"), ("pooled", "posterior, 50 and 95 %", accent)]
    st.html(legend([*entries, ("truth", "simulated truth")] if known else entries, mode))
    theme.chart(plots.means(table, known, mode), key="circuit_means")
    theme.caption(
        "Decades from the prior's median: 1 is ten times as fast. Where the posterior is as wide as the "
        "prior, the readings say nothing of the constant."
    )


def before(seen: Live, mode: Mode) -> None:
    """Draw the noise among replicates against their mean: what the noise models differ about."""
    table, unit = look.noise(seen.dataset), seen.dataset.words.unit
    if len(table) < 3:
        st.info("There are no replicates, so nothing can be said of the noise before a fit.")
        return
    theme.title("Noise among replicates, before any model")
    theme.chart(plots.noise(table, unit, mode), key="first_look_noise")
    theme.caption(
        "Each circle is a circuit, condition and time. Dashed: sd proportional to the mean; dotted: variance "
        "proportional to it. The model power lets the data choose between them."
    )


def _read(structure: CircuitPopulation, curve: Any) -> Any:
    """Amounts as read: by the line through the standards, where there are some."""
    slope, offset = structure.standards_line
    return slope * curve + offset


def _of(table: pd.DataFrame, circuit: str) -> pd.DataFrame:
    return table[table["circuit"] == circuit]


def _at(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    return table[table["condition"] == condition].reset_index(drop=True)
