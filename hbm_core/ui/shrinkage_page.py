"""What the page Shrinkage needs from Streamlit: kept tables, controls, selection, one section each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import rates
from hbm_core.analysis import shrinkage as tables
from hbm_core.analysis import shrinkage_three_level as three_level
from hbm_core.inference.exact import ExactPosterior
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.one_parameter import OneParameter
from hbm_core.models.raw_rates import RawRates
from hbm_core.plots import shrinkage as plots
from hbm_core.plots.shrinkage import SELECTION, View
from hbm_core.plots.theme import MINUS, digits_of, legend, number, whole_percents
from hbm_core.scenarios.tables import csv_text
from hbm_core.ui import reweighted, session, theme
from hbm_core.ui.live import Live

_TURN = "shrinkage_turn"
_WEIGHTS = ("weight_own", "weight_others", "weight_prior")
#: More units than this are shown by displacement and search.
MANY = 40
#: The full matrix of weights is built up to this many units, and points are drawn up to this many.
_MOST_WEIGHTS, _MOST_POINTS, _MOST_STYLED = 1000, 2000, 2000
#: Of more units than this, those that moved most and some evenly along their raw estimates are listed.
_MOST_LISTED = 8000
ORDERS = {"raw": "Raw estimate", "displacement": "Distance moved", "se": "Standard error"}


@dataclass(frozen=True, eq=False)
class Page:
    """All that the sections read.

    Parameters
    ----------
    live : Live
        Study, data and posterior.
    table : DataFrame
        `shrinkage_table` with B, weights and the data set's grouping columns beside.
    ledger : DataFrame
        `pooling_ledger` with ``raw``, ``se`` and ``pooled`` beside.
    view : View
        Words, digits, theme and selection.
    groups : tuple of str
        Columns that can colour.
    """

    live: Live
    table: pd.DataFrame
    ledger: pd.DataFrame
    view: View
    groups: tuple[str, ...]

    @property
    def posterior(self) -> ExactPosterior:
        """The exact posterior."""
        assert self.live.posterior is not None
        return self.live.posterior

    @property
    def many(self) -> bool:
        """Whether the units are too many for one picture."""
        return len(self.table) > MANY

    @property
    def one_mean(self) -> bool:
        """Whether all units are pulled to the same mean."""
        toward = self.table["toward"].to_numpy()
        return bool(np.ptp(toward) <= 1e-9 * float(self.table["se"].median()))

    @property
    def selected(self) -> pd.Series:
        """The selected unit's row."""
        return self.table.loc[self.table["unit"] == self.view.selected].iloc[0]


#: Kept for as long as their posterior is, and no longer.
_TABLES: WeakKeyDictionary[ExactPosterior, tuple[pd.DataFrame, pd.DataFrame]] = WeakKeyDictionary()
_MATRICES: WeakKeyDictionary[ExactPosterior, pd.DataFrame] = WeakKeyDictionary()


def _tables(posterior: ExactPosterior) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of one posterior: units, and what each estimate is made of."""
    if posterior not in _TABLES:
        _TABLES[posterior] = _made(posterior)
    return _TABLES[posterior]


def _made(posterior: ExactPosterior) -> tuple[pd.DataFrame, pd.DataFrame]:
    if isinstance(posterior, ThreeLevelPosterior):
        return _three_level_tables(posterior)
    spec = posterior.spec
    structure: Any = spec.structure
    table = tables.shrinkage_table(spec, posterior)
    if isinstance(structure, RawRates):
        ledger = rates.pooling_ledger(spec, posterior, table)
    elif len(table) <= _MOST_WEIGHTS and not isinstance(structure, GroupedUnits | OneParameter):
        ledger = tables.pooling_ledger(spec, posterior)
    else:
        ledger = _long_ledger(table, posterior)
    table["pooling"] = ledger["pooling"]
    for name in ("raw", "se", "pooled"):
        ledger[name] = table[name]
    return table, ledger


def _three_level_tables(posterior: ThreeLevelPosterior) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of all units, or of those that matter where there are very many."""
    spec, size = posterior.spec, posterior.structure.effect.size
    places = None
    if size > _MOST_LISTED:
        moved = np.abs(posterior.unit_moments()[0] - posterior.structure.effect)
        farthest = np.argpartition(-moved, _MOST_LISTED // 4)[: _MOST_LISTED // 4]
        along = np.argsort(posterior.structure.effect, kind="stable")
        evenly = along[np.linspace(0, size - 1, 3 * _MOST_LISTED // 4).astype(int)]
        places = np.unique(np.concatenate([farthest, evenly]))
    table = three_level.shrinkage_table(cast(Any, spec), posterior, places)
    ledger = three_level.pooling_ledger(cast(Any, spec), posterior, table)
    table["pooling"] = ledger["pooling"]
    for name in ("raw", "se", "pooled"):
        ledger[name] = table[name]
    return table, ledger


def _long_ledger(table: pd.DataFrame, posterior: ExactPosterior) -> pd.DataFrame:
    """The ledger without intervals of B, from what the engine averaged: linear in the number of units."""
    ledger = table[["unit"]].copy()
    absent = np.full(len(table), np.nan)
    ledger["pooling"] = absent if posterior.pooling is None else posterior.pooling
    ledger["pooling_low95"], ledger["pooling_high95"] = absent, absent
    found = posterior.weights
    for name in ("own", "others", "prior"):
        ledger[f"weight_{name}"] = absent if found is None else getattr(found, name)
    return ledger.join(table[["displacement", "realised", "rank_change"]])


def open_page(live: Live) -> Page | None:
    """Tables and view of the study; None, with what to do next on screen, where there is no posterior."""
    if live.posterior is None and live.sampled:
        reweighted.ask(live.study, live.problem, "shrinkage")
        return None
    if live.posterior is None:
        st.info(
            f"There is nothing to draw for this model yet. {theme.plain(live.problem)}\n\n"
            "Choose other priors or another model in the sidebar."
        )
        return None
    table, ledger = _tables(live.posterior)
    data = live.dataset.table
    structure: Any = live.spec.structure
    if isinstance(structure, GroupedUnits):
        table = table.rename(columns={"group": structure.levels[1]})
        if "n" in data and len(data) == len(structure.units):
            table["n"] = data["n"].to_numpy()[structure.places(table["unit"])]
        return Page(live, table, ledger, _view(live, table), (structure.levels[1],))
    groups = tuple(
        str(name)
        for name in data.columns.difference(["unit", "effect", "se"])
        if len(data) == len(table)
        and not pd.api.types.is_float_dtype(data[name])
        and 2 <= data[name].nunique() <= 8
    )
    table = table.assign(**{name: data[name].to_numpy() for name in groups})
    return Page(live, table, ledger, _view(live, table), groups)


def _view(live: Live, table: pd.DataFrame) -> View:
    """Words, digits and who is selected: the study's unit, or the one that moved farthest."""
    farthest = str(table["unit"].iloc[int(table["displacement"].abs().argmax())])
    chosen = live.study.unit if live.study.unit in set(table["unit"]) else farthest
    truth = live.dataset.truth or {}
    return View(
        live.dataset.words,
        digits_of(live.spec.structure),
        theme.mode(),
        chosen,
        st.session_state.get(_TURN, 0),
        {unit: truth[f"theta[{unit}]"] for unit in table["unit"] if f"theta[{unit}]" in truth},
    )


# ------------------------------------------------------------------------------------------ selection


def select(unit: str) -> None:
    """Select a unit everywhere."""
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1
    session.change(unit=unit)


def picture(figure: plots.Figure, key: str) -> None:
    """Draw a figure whose units can be clicked."""

    def clicked() -> None:
        points = st.session_state[key]["selection"].get(SELECTION) or []
        if points and "unit" in points[-1]:
            select(str(points[-1]["unit"]))

    theme.chart(figure, key=key, on_select=clicked, selection_mode=SELECTION)


def kind_of(page: Page) -> str:
    """What the model does with the units: "partial", "complete" or "none"."""
    return getattr(page.live.spec.structure, "pooling", "partial")


def _words(page: Page) -> tuple[str, str]:
    return page.view.words.one, page.view.words.many


# -------------------------------------------------------------------------------------------- words


def story(page: Page) -> None:
    """The page's first sentence: what shrinkage did here."""
    one = page.view.words.one
    view, table = page.view, page.table
    pooling = kind_of(page)
    unit = f" {view.words.unit}" if view.words.unit else ""
    if pooling == "none":
        text = f"Without pooling nobody moves: every {one} keeps the estimate that its own data give."
    elif pooling == "complete" and np.ptp(table["pooled"]) < 1e-9 * float(table["se"].median()):
        value = number(float(table["pooled"].iloc[0]), view.digits.estimate)
        text = f"Complete pooling gives every {one} the same estimate, {_accent(value, view)}{unit}."
    else:
        row = table.iloc[int(table["displacement"].abs().argmax())]
        raw, pooled = number(row["raw"], view.digits.raw), number(row["pooled"], view.digits.estimate)
        name = escape(_called(page, str(row["unit"])))
        text = (
            f"Pooling moves {name} farthest, from <b>{raw}</b> to {_accent(pooled, view)}{unit}"
            f"{_order_words(page)}."
        )
    theme.story(text)


def _accent(text: str, view: View) -> str:
    return f'<b style="color:{view.colours["accent"]}">{text}</b>'


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _called(page: Page, unit: str, first: bool = False) -> str:
    """A unit's name with what it is before it, unless the name says that itself; `first` in its sentence."""
    one = page.view.words.one
    one = one.capitalize() if first else one
    name = _short(unit, 40)
    return name if name.lower().startswith(one.lower()) else f"{one} {name}"


def _order_words(page: Page) -> str:
    structure: Any = page.live.spec.structure
    many = page.view.words.many
    if isinstance(structure, GroupedUnits):
        many = structure.rows_of(many)
    changed = int((page.table["rank_change"] != 0).sum())
    if np.ptp(page.table["pooled"]) < 1e-9 * float(page.table["se"].median()):
        return ""
    if changed == 0:
        return f", and the {many} keep their order"
    listed = "the " if len(page.table) < page.live.spec.structure.effect.size else ""
    return f", and {changed:,} of {listed}{len(page.table):,} {many} {'listed ' if listed else ''}change rank"


def unit_words(page: Page) -> None:
    """The selected unit in two sentences, and the box that selects another."""
    one, many = _words(page)
    view, row = page.view, page.selected
    if len(page.table) <= 500:
        st.session_state["shrinkage_unit"] = view.selected
        st.selectbox(
            f"Selected {one}",
            list(page.table["unit"]),
            key="shrinkage_unit",
            on_change=lambda: select(st.session_state["shrinkage_unit"]),
            help=f"Or click {page.view.words.a_one} in any picture or table: it is selected everywhere.",
        )
    raw, pooled = number(row["raw"], view.digits.raw), number(row["pooled"], view.digits.estimate)
    text = f"<b>{escape(_called(page, str(view.selected), first=True))}: {raw} → {_accent(pooled, view)}</b>."
    ledger = page.ledger.loc[page.ledger["unit"] == view.selected].iloc[0]
    if np.isfinite(ledger["weight_own"]):
        shares = whole_percents(ledger[list(_WEIGHTS)].to_numpy(dtype=float))
        own, others, prior = (f"{number(share, 0)}&nbsp;%" for share in shares)
        text += f" {own} its own data, {others} the other {escape(many)}, {prior} prior."
    if np.isfinite(ledger["pooling"]):
        text += f" Pooling factor {number(ledger['pooling'], 2)}."
    if row["rank_change"]:
        text += f" Rank {row['rank_raw']:,g} → {row['rank_pooled']:,g}."
    said(text)


def said(text: str) -> None:
    """A sentence beside a picture; markup as it is."""
    st.html(f'<p style="font-size:14px;line-height:20px;margin:0;overflow-wrap:anywhere">{text}</p>')


def key_line(*entries: tuple[str, str] | tuple[str, str, str], view: View) -> None:
    """The legend over a picture; truth is explained where it is drawn."""
    listed = [*entries, ("truth", "simulated truth")] if view.truth else list(entries)
    st.html(legend(listed, view.mode))


# ------------------------------------------------------------------------------------------- sections


def _rows(page: Page, order: bool = True) -> pd.DataFrame:
    """Draw the controls that choose and sort units, and return the rows."""
    many = page.view.words.many
    by = "raw"
    if order:
        by = st.selectbox(
            "Sort by", list(ORDERS), format_func=lambda name: ORDERS[name], key="shrinkage_order"
        )
    most, search = None, ""
    if page.many:
        most = st.slider(
            f"{many.capitalize()} shown: those that moved most", 5, MANY, 20, 5, key="shrinkage_most"
        )
        search = st.text_input(
            f"Find {many}", key="shrinkage_search", placeholder="part of a name", max_chars=200
        )
        if search.strip():
            hits = int(page.table["unit"].str.contains(search.strip(), case=False, regex=False).sum())
            added = f", the first {most} are added" if hits > most else ""
            st.caption(f"{hits:,} of {len(page.table):,} {many} match{added}.")
    return plots.choose(page.table, by, most, search, page.view.selected)  # type: ignore[arg-type]


def _group(page: Page) -> str | None:
    if not page.groups:
        return None
    return st.selectbox(
        "Colour by",
        page.groups,
        index=None,
        placeholder="nothing",
        key="shrinkage_group",
        format_func=lambda name: name.replace("_", " "),
    )


def _group_keys(page: Page, group: str | None) -> list[tuple[str, str, str]]:
    if group is None:
        return [("pooled", "partially pooled, 50 % and 95 %", page.view.colours["accent"])]
    palette = plots.group_palette(page.table[group], page.view.mode)
    return [("pooled", str(name), colour) for name, colour in palette.items()]


def _arrows(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    one = page.view.words.one
    with right:
        rows, group = _rows(page), _group(page)
        sized = "n" in page.live.dataset.table and st.toggle("Size by n", key="shrinkage_size")
        unit_words(page)
    if sized and "n" not in rows:
        rows = rows.merge(page.live.dataset.table[["unit", "n"]], on="unit")
    with left:
        theme.title(f"Each {one} on its own and pooled")
        key_line(
            ("raw", "on its own, 95 %"), *_group_keys(page, group), ("mean", "pooled mean"), view=page.view
        )
        figure = plots.forest(rows, page.view, plots.effect_domain(page.table), group, "n" if sized else None)
        picture(figure, "shrinkage_forest")
        theme.caption(
            f"Each arrow runs from what {page.view.words.a_one} measured to where it is pooled. The dashed "
            "line is the mean that it is pulled to"
            + (
                "; <i>B</i> is how far, from 0 (not at all) to 1 (onto the mean)"
                if rows["pooling"].notna().any()
                else ""
            )
            + f". ↑ and ↓ count the ranks {page.view.words.a_one} gained or lost. The axis is fixed by the "
            "raw 95 % intervals; what is wider ends with it."
        )


def _scatter(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    one, many = _words(page)
    rows = page.table
    if len(rows) > _MOST_POINTS:
        kept = rows.sort_values("raw").iloc[np.linspace(0, len(rows) - 1, _MOST_POINTS).astype(int)]
        rows = pd.concat([kept, rows[rows["unit"] == page.view.selected]]).drop_duplicates("unit")
    with right:
        group = _group(page)
        unit_words(page)
        dense = page.live.spec.structure.effect.size > _MOST_POINTS and bool(page.groups)
        if len(rows) < len(page.table) and not dense:
            st.caption(f"{len(rows):,} of {len(page.table):,} {many}, evenly along their raw estimates.")
    with left:
        theme.title("Raw against pooled")
        keys = (
            [("point", *key[1:]) for key in _group_keys(page, group)]
            if group
            else [("point", "partially pooled")]
        )
        key_line(
            ("raw point", "on its own"),
            *keys,
            ("identity", "y = x, no pooling"),
            ("mean across", "pooled mean"),
            view=page.view,
        )
        dashed = ", with complete pooling on the dashed one" if page.one_mean else ""
        if dense:
            picture(_density(page, rows), "shrinkage_density")
        else:
            picture(plots.scatter(rows, page.view, group), "shrinkage_scatter")
        theme.caption(
            f"Without pooling every {one} would lie on the slanted line{dashed}. "
            f"Neighbours along the axis that fall by different amounts have different standard errors."
        )


def _density(page: Page, rows: pd.DataFrame) -> plots.Figure:
    """All units counted in cells, those of sparse cells and the selected one as points, groups' means."""
    from hbm_core.analysis.many import density_scatter
    from hbm_core.plots.many import density
    from hbm_core.ui.many import units_of

    everyone = units_of(page.posterior)
    cells, points = density_scatter(everyone, "raw", "pooled")
    level = page.groups[0]
    chosen = rows[rows["unit"] == page.view.selected].rename(columns={level: "group"})
    points = pd.concat([points, chosen[points.columns]]).drop_duplicates("unit", keep="last")
    toward = page.table.groupby(level)["toward"].first()
    means = {str(group): float(value) for group, value in toward.items()}
    unit = f", {page.view.words.unit}" if page.view.words.unit else ""
    titles = (f"On its own: {page.view.words.axis[0].lower()}{page.view.words.axis[1:]}", f"Pooled{unit}")
    return density(
        cells, points, ("raw", "pooled"), titles, page.view, identity=True, means=means, height=440
    )


def _ranks(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    many = page.view.words.many
    with right:
        rows = _rows(page, order=False)
        unit_words(page)
    crossings = tables.rank_crossings(rows)
    moderated = not page.one_mean
    why = (
        "noise, or the means that they are pulled to, differ"
        if moderated
        else "the noisier of the two moves past the other"
    )
    with left:
        count = len(crossings)
        said = (
            f"{count:,} pair{'s' if count != 1 else ''} of {many} change order"
            if count
            else "Nobody changes order"
        )
        theme.title(said + (" among those shown" if page.many else ""))
        key_line(
            ("line", "crosses another"),
            ("thin", "keeps its place"),
            ("crossing", "a pair changes order"),
            view=View(page.view.words, page.view.digits, page.view.mode),
        )
        picture(plots.ranks(rows, crossings, page.view), "shrinkage_ranks")
        theme.caption(
            f"Left, {many} in the order of their own estimates, largest on top; right, after pooling. "
            "Two lines "
            f"cross where {why}."
        )


#: Column of the ledger → heading, what it says.
COLUMNS = {
    "unit": ("", "Name."),
    "raw": ("Own", "What the unit measured, taken on its own."),
    "se": ("s", "Standard error of that measurement."),
    "pooled": ("Pooled", "Posterior mean of its effect."),
    "pooling": ("E[B]", "Posterior mean of B = s²/(s² + τ²), the pull on it. It rises with s: a law."),
    "pooling_interval": ("B, 95 %", "Central 95 % interval of B: how unsure the pull is, because τ is."),
    "weight_own": ("Own data", "Weight of its own measurement in the estimate, its way through μ included."),
    "weight_others": ("Others", "Weight of all other units' measurements together."),
    "weight_prior": ("Prior", "Weight of the prior mean of μ. The three weights sum to 100 %."),
    "displacement": ("Moved", "Pooled minus own. It depends on where the unit lies as well: no law in s."),
    "realised": ("Fraction", "Moved, as a share of its way to the pooled mean; – where it lies on the mean."),
    "rank_change": ("Rank", "Places gained (+) or lost (−) by pooling."),
}


def _ledger(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    one, many = _words(page)
    has_weights = page.ledger["weight_own"].notna().any()
    has_factor = page.ledger["pooling"].notna().any()
    with right:
        rows = _rows(page)
        unit_words(page)
    with left:
        if has_weights:
            theme.title("Whose data each estimate is made of")
            key_line(
                ("own", "its own data"),
                ("others", f"the other {many}"),
                ("prior", "the prior on μ"),
                view=View(page.view.words, page.view.digits, page.view.mode),
            )
            shown = page.ledger.set_index("unit").loc[rows["unit"]].reset_index()
            picture(plots.weights(shown, page.view), "shrinkage_weights")
            more = (
                f" 1 − E[<i>B</i>] is less than the first share, because {page.view.words.a_one} also "
                "moves the mean that it is pulled to."
                if kind_of(page) == "partial"
                else ""
            )
            theme.caption(
                f"A bar is one estimate: what share of it comes from the {one}'s own measurement, from "
                "the others', "
                f"and from the prior mean.{more}"
            )
        else:
            st.info("This model's estimates are not weighted sums of the data, so no weights are shown.")
    theme.title("Pooling ledger")
    order = st.session_state.get("shrinkage_order", "raw")
    _ledger_table(page, plots.choose(page.table, order)["unit"].tolist())
    law, none = st.columns(2, gap="large")
    points = page.ledger
    if len(points) > _MOST_POINTS:
        points = points.sort_values("se").iloc[np.linspace(0, len(points) - 1, _MOST_POINTS).astype(int)]
    if has_factor:
        with law:
            same = kind_of(page) != "partial"
            theme.title(
                "The pull is the same for all" if same else "The pull rises with the standard error: a law"
            )
            picture(plots.against_se(points, page.view, "pooling"), "shrinkage_law")
            theme.caption(
                "Pooling nothing or everything pulls all alike, however precise they are."
                if same
                else f"The less precise {page.view.words.a_one}, the more it is pulled, whatever it measured."
            )
    with none if has_factor else law:
        theme.title("The distance moved follows no law in the standard error")
        picture(plots.against_se(points, page.view, "distance"), "shrinkage_distance")
        theme.caption(f"A {one} that already lies on the mean stays there, however noisy it is.")


def _ledger_table(page: Page, units: list[str]) -> None:
    view, key = page.view, "shrinkage_ledger"
    ledger = page.ledger.set_index("unit").loc[units].reset_index()
    ledger["pooling_interval"] = [
        f"{number(a, 2)} – {number(b, 2)}" if np.isfinite(a) else None
        for a, b in zip(ledger["pooling_low95"], ledger["pooling_high95"], strict=True)
    ]
    ledger[list(_WEIGHTS)] = whole_percents(ledger[list(_WEIGHTS)].to_numpy(dtype=float)) / 100
    ledger = ledger[[name for name in COLUMNS if name == "unit" or ledger[name].notna().any()]]
    raw, estimate = view.digits.raw, view.digits.estimate

    def write(decimals: int, factor: float = 1, end: str = "") -> Callable[[float], str]:
        return lambda value: number(factor * value, decimals) + (end if np.isfinite(value) else "")

    formats: dict[str, Any] = {
        "raw": write(raw),
        "se": write(raw),
        "pooled": write(estimate),
        "pooling": write(2),
        **dict.fromkeys(_WEIGHTS, write(0, 100, " %")),
        "displacement": write(estimate),
        "realised": write(2),
        "rank_change": lambda value: ("+" if value > 0 else "") + f"{value:g}".replace("-", MINUS),
    }
    formats = {name: how for name, how in formats.items() if name in ledger}
    config = {
        name: st.column_config.Column(
            heading or view.words.one.capitalize(),
            help=text.replace("unit", view.words.one),
            pinned=name == "unit",
            width=_column_width(name, page),
        )
        for name, (heading, text) in COLUMNS.items()
    }
    st.session_state[key] = {
        "selection": {"rows": [units.index(str(view.selected))], "columns": [], "cells": []}
    }

    def clicked() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            select(units[rows[0]])

    shown = ledger.style.format(formats) if len(ledger) <= _MOST_STYLED else ledger
    st.dataframe(
        shown,
        key=key,
        hide_index=True,
        column_config=config,
        selection_mode="single-row",
        on_select=clicked,
        height=min(35 * (len(ledger) + 1) + 3, 430),
        row_height=35,
        alt="Pooling ledger",
    )
    explained = [COLUMNS[str(name)] for name in ledger if name not in ("unit", "raw", "se", "pooled")]
    said = " ".join(f"<b>{heading}</b> {text[0].lower()}{text[1:]}" for heading, text in explained)
    theme.caption(said.replace("unit", view.words.one))
    st.download_button(
        "Download as CSV",
        lambda: csv(page),
        file_name=f"{slug(page)}.csv",
        mime="text/csv",
        on_click="ignore",
    )


def _column_width(name: str, page: Page) -> int:
    if name == "unit":
        return int(np.clip(8 * page.table["unit"].str.len().max() + 16, 72, 190))
    return 92 if name == "pooling_interval" else 66


def _group_lenders(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Who lends to whom among groups."""
    posterior, (_, many) = cast(ThreeLevelPosterior, page.posterior), _words(page)
    level = posterior.structure.levels[1]
    if len(posterior.structure.groups) > MANY:
        left.info(f"There are too many {level}s for one picture: at most {MANY} are drawn.")
        return
    with right:
        unit_words(page)
    matrix = three_level.lending_table(cast(Any, page.live.spec), posterior)
    cells = plots.lenders(matrix.rename_axis("unit"), list(matrix.index))
    with left:
        theme.title(f"Which {level} lends to which")
        key_line(
            ("own", f"its own {many}"),
            ("others", f"another {level}'s"),
            ("prior", "the prior on μ"),
            view=View(page.view.words, page.view.digits, page.view.mode),
        )
        theme.chart(plots.borrowing(cells, replace(page.view, selected=None)), key="shrinkage_lenders")
        theme.caption(
            f"Read along a row: the percentages of one {level}'s mean that come from the {many} of each "
            "column, darker for more. A row sums to 100."
        )


def _lenders(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    one, many = _words(page)
    if isinstance(page.posterior, ThreeLevelPosterior):
        _group_lenders(page, left, right)
        return
    if page.ledger["weight_own"].isna().all():
        left.info(
            "This model's estimates are not weighted sums of the data, so nobody lends a fixed share to "
            "anybody. "
            "Choose a model with normal effects and a normal likelihood to see who lends to whom."
        )
        return
    if len(page.table) > _MOST_WEIGHTS:
        left.info(
            f"Who lends to whom is a table of {len(page.table):,} × {len(page.table):,}. "
            f"Choose a data set of at most {_MOST_WEIGHTS:,} {many} to see it."
        )
        return
    with right:
        rows = _rows(page)
        unit_words(page)
    cells = plots.lenders(_matrix(page.posterior), rows["unit"].tolist())
    with left:
        theme.title("Who lends to whom")
        key_line(
            ("own", "its own data"),
            ("others", f"another {one}"),
            ("prior", "the prior on μ"),
            view=View(page.view.words, page.view.digits, page.view.mode),
        )
        picture(plots.borrowing(cells, page.view), "shrinkage_lenders")
        theme.caption(
            f"Read along a row: the percentages of one {one}'s estimate that come from each column, "
            "darker for more. "
            f"A row sums to 100. Read down a column: a precise {one} lends to everybody."
        )


def _matrix(posterior: ExactPosterior) -> pd.DataFrame:
    if posterior not in _MATRICES:
        _MATRICES[posterior] = tables.borrowing_matrix(posterior.spec)
    return _MATRICES[posterior]


def _closeups(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    one, many = _words(page)
    names = page.table["unit"].tolist()
    farthest = page.table.loc[page.table["displacement"].abs().sort_values(ascending=False).index, "unit"]
    # Of many units twelve small pictures, of a few schools all.
    start = list(dict.fromkeys([page.view.selected, *farthest[:12]]))[: 12 if page.many else 8]
    with right:
        if len(names) <= 2000:
            chosen = st.multiselect(f"{many.capitalize()} shown", names, default=start, max_selections=16)
        else:
            chosen = start
        unit_words(page)
    chosen = list(dict.fromkeys([page.view.selected, *chosen]))
    if isinstance(page.live.spec.structure, GroupedUnits):
        long = three_level.three_poolings(cast(Any, page.live.spec), page.posterior, chosen)
    elif isinstance(page.live.spec.structure, RawRates):
        long = rates.three_poolings(page.live.spec, cast(Any, page.posterior), chosen)
    else:
        long = tables.three_poolings(page.live.spec, page.posterior)
    toward = page.table.set_index("unit")["toward"]
    domain = plots.effect_domain(page.table)
    with left:
        theme.title("Three answers, one unit at a time".replace("unit", one))
        key_line(
            ("raw", "no pooling"),
            ("pooled", "partial pooling"),
            ("mean", "complete pooling, pooled mean"),
            view=page.view,
        )
        with st.container(horizontal=True, gap="medium"):
            for place, name in enumerate(chosen):
                with st.container(width="stretch", gap=None):
                    part = long[long["unit"] == name].reset_index(drop=True)
                    bold = "700" if name == page.view.selected else "400"
                    st.html(
                        f'<div style="font-size:13px;line-height:18px;font-weight:{bold};white-space:nowrap;'
                        f'overflow:hidden;text-overflow:ellipsis" title="{escape(str(name), quote=True)}">'
                        f"{escape(str(name))}</div>"
                    )
                    figure = plots.closeup(part, page.view, domain, float(toward[name]))
                    theme.chart(figure, key=f"shrinkage_closeup_{place}")
        axis = escape(page.view.words.axis)
        theme.caption(
            f"All pictures share one axis: {axis[0].lower()}{axis[1:]}. From top to bottom: the {one} on "
            "its own, partially "
            f"pooled (50 % and 95 %), and one answer for all. Lines are 95 % intervals."
        )


SECTIONS: dict[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]] = {
    "Arrows": _arrows,
    "Scatter": _scatter,
    "Ranks": _ranks,
    "Ledger": _ledger,
    "Lenders": _lenders,
    "Close-ups": _closeups,
}


def sections(page: Page) -> dict[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]]:
    """Sections that make sense for the page's model, by name."""
    if isinstance(page.live.spec.structure, GaussianMixed):
        # Rows lend along groups, slots and members at once: there is no one table of it.
        return {name: draw for name, draw in SECTIONS.items() if name != "Lenders"}
    if isinstance(page.live.spec.structure, OneParameter):
        # What a circuit owes to whom goes through all of its parameters: no shares of one of them.
        return {name: draw for name, draw in SECTIONS.items() if name not in ("Lenders", "Close-ups")}
    if isinstance(page.live.spec.structure, GroupedUnits):
        from hbm_core.ui import group_section

        level = page.live.spec.structure.levels[1]
        return SECTIONS | {f"{level.capitalize()}s": group_section.groups}
    if not isinstance(page.live.spec.structure, RawRates):
        return SECTIONS
    from hbm_core.ui import rates_sections

    # Rates are no weighted sums of the counts: nobody lends a fixed share to anybody.
    kept = {name: draw for name, draw in SECTIONS.items() if name != "Lenders"}
    return kept | rates_sections.sections(page.live.spec.structure)


def section(page: Page, name: str) -> None:
    """Draw one section of the page by its name."""
    theme.section(sections(page), page, name)


# ------------------------------------------------------------------------------------------- download


def csv(page: Page) -> str:
    """Ledger and shrinkage table in one, full precision; no cell runs in a spreadsheet."""
    extra = page.ledger.columns.difference(page.table.columns, sort=False)
    return csv_text(page.table.join(page.ledger[extra]))


def slug(page: Page) -> str:
    """File name of the download, without ending."""
    return re.sub(
        r"[^a-z0-9]+", "-", f"shrinkage {page.live.study.dataset[:24]} {page.live.study.model}".lower()
    )
