"""What the page Data needs from Streamlit: tables that are brought, corrected, changed and simulated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis.change import parameter_change, unit_change
from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.models.structure import TwoLevelNormal
from hbm_core.plots.change import change_figure, chosen_changes
from hbm_core.plots.first_look import funnel, funnel_table
from hbm_core.plots.theme import Digits, digits_of, legend, number, signed
from hbm_core.plots.tokens import colours
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.scenarios.base import DataProblems, Problem, Scenario
from hbm_core.scenarios.tables import (
    csv_text,
    decimal_mark,
    file_title,
    guessed,
    guessed_by_words,
    mapped,
    missing_words,
    mostly_numbers,
    number_habit,
    parse_numbers,
    read_table,
    typed_number,
)
from hbm_core.store.study import SIMULATED, Study
from hbm_core.ui import fits, session, simulator, theme, vectors
from hbm_core.ui.background import first_look_rows
from hbm_core.ui.live import Live, live
from hbm_core.ui.trace_page import symbol

_PRESENT, _BROUGHT, _PASTED, _FILE = "data_present", "data_brought", "data_pasted", "data_file"
_SECOND = "data_second"
#: Rows that the browser edits at once; of longer tables, only those with problems, up to the second number.
_MOST_EDITED, _MOST_FOCUS = 2_000, 200
#: Rows that a session keeps while they are corrected, and problems that are listed as text.
_MOST_KEPT, _MOST_LISTED = 200_000, 12
#: Further columns that are kept as covariates unless somebody asks for more.
_MOST_OTHERS = 8
#: Parameters shown before and after.
_MOST_PARAMETERS = 8
_NOTHING = "(none)"


@dataclass(frozen=True, eq=False)
class Page:
    """All that the sections read."""

    study: Study
    scenario: Scenario
    live: Live

    @property
    def dataset(self) -> Dataset:
        """The study's data."""
        return self.live.dataset


@dataclass(eq=False)
class Sheet:
    """A table under correction, as a session keeps it.

    Parameters
    ----------
    source : str
        What it came from; another source is another sheet.
    table : DataFrame
        As it is now, rows numbered from 1.
    label : str
        Title.
    said : str
        How it was read.
    mapping : dict
        The scenario's column to the table's.
    others : list
        Further columns to keep.
    focus : list of int or None
        Rows that can be edited; None for all.
    turn : int
        Raised to start the editor afresh.
    decimal : str
        The decimal mark of the table as it was written, in which its numbers are shown.
    guesses : tuple of str
        The scenario's columns whose place in the table is a guess.
    doubts : dict
        Row and column of each typed cell that could be two numbers: its text, and what is said of it.
    """

    source: str
    table: pd.DataFrame
    label: str
    said: str = ""
    mapping: dict[str, str | None] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    focus: list[int] | None = None
    turn: int = 0
    decimal: str = "."
    guesses: tuple[str, ...] = ()
    doubts: dict[tuple[int, str], tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Checked:
    """A table as the scenario reads it, or everything wrong with it."""

    dataset: Dataset | None
    problems: tuple[Problem, ...] = ()


def open_page(study: Study) -> Page:
    """The study with its data and its exact posterior, where there is one."""
    return Page(study, find_scenario(study.scenario), live(study))


def story(page: Page) -> None:
    """The page's first sentence."""
    words, units = page.dataset.words, len(page.live.spec.structure.units)
    rows = len(page.dataset.table)
    more = f" in {rows:,} rows" if rows != units else ""
    theme.story(
        f"<b>{units:,} {escape(words.many)}{more}</b> are under study. Change one, drop one or bring your "
        "own, and see what the answer owes to it."
    )


# ---------------------------------------------------------------------------------------------- checking


def check(scenario: Scenario, sheet: Sheet) -> Checked:
    """Read a sheet as the scenario does; rows of problems are the sheet's own numbers."""
    table, doubts = sheet.table, _doubts(sheet)
    try:
        if sheet.mapping:
            table = mapped(table, scenario.columns, sheet.mapping, sheet.others)
        dataset = scenario.read(table, label=sheet.label)
        return Checked(None, tuple(doubts)) if doubts else Checked(dataset)
    except DataProblems as found:
        index = sheet.table.index
        placed = [Problem(int(index[p.row - 1]), p.column, p.message) if p.row else p for p in found.problems]
        said = {(p.row, p.column) for p in placed}
        placed += [p for p in doubts if (p.row, p.column) not in said]
        # A table that was mapped bears the scenario's names: what is missing is looked for among its own.
        known = {column.name: missing_words(column, sheet.table.columns) for column in scenario.columns}
        absent = {name for name in known if sheet.mapping and not sheet.mapping.get(name)}
        return Checked(
            None,
            tuple(
                Problem(None, p.column, known[p.column])
                if p.row is None and p.column in absent and p.message.startswith("is missing")
                else p
                for p in sorted(placed, key=lambda p: (p.row is not None, p.row or 0))
            ),
        )
    except InputError as problem:
        return Checked(None, (Problem(None, None, str(problem)),))


def _doubts(sheet: Sheet) -> list[Problem]:
    """What was typed and could be two numbers, as far as it still stands in a column that is used."""
    names = {own: name for name, own in sheet.mapping.items() if own}
    used = {*names, *sheet.others} if sheet.mapping else set(sheet.table.columns)
    return [
        Problem(row, names.get(column, column), message)
        for (row, column), (text, message) in sheet.doubts.items()
        if column in used and row in sheet.table.index and sheet.table.at[row, column] == text
    ]


def problems_table(problems: tuple[Problem, ...], mapping: Mapping[str, str | None]) -> pd.DataFrame:
    """Problems as rows: row, column (with its name in the table, where that differs), problem."""

    def column(name: str | None) -> str:
        own = mapping.get(name or "")
        return f"{name} ({own})" if own and own != name else name or ""

    return pd.DataFrame(
        {
            "row": pd.array([p.row for p in problems], dtype="Int64"),
            "column": [column(p.column) for p in problems],
            "problem": [p.message for p in problems],
        }
    )


def problems_words(checked: Checked, sheet: Sheet, where: str) -> str:
    """How many problems there are, and what to do about them: HTML on one line.

    Parameters
    ----------
    checked : Checked
        With problems.
    sheet : Sheet
        Theirs.
    where : str
        Where the table stands, "above" or "below".
    """
    count = len(checked.problems)
    rows = len({p.row for p in checked.problems if p.row})
    spread = f" in {rows:,} row{'s' * (rows != 1)}" if rows else ""
    absent = any(
        p.row is None and p.column and sheet.mapping and not sheet.mapping.get(p.column)
        for p in checked.problems
    )
    steps = ["choose under <i>Which column is which</i>"] * absent
    steps += [f"correct the cells in the table {where}"] * bool(rows)
    do = (", then ".join(steps) or f"see the list {where}") + "; nothing is lost meanwhile."
    many = f"{count:,} problem{'s' * (count != 1)}{spread}"
    return f'<b class="data-problems">✕ {many}.</b> {do[0].upper()}{do[1:]}'


def _status(said: str) -> None:
    st.html(f'<p role="status" class="data-words data-status">{said}</p>')


def _show_problems(problems: tuple[Problem, ...], sheet: Sheet) -> None:
    table = problems_table(problems, sheet.mapping)
    if len(table) > _MOST_LISTED:
        st.dataframe(
            table,
            hide_index=True,
            height=260,
            column_config={
                "row": st.column_config.NumberColumn("Row", width=60),
                "column": st.column_config.TextColumn("Column", width=130),
                "problem": st.column_config.TextColumn("Problem", width="large"),
            },
            alt="Problems of the table",
        )
        return
    body = "".join(
        f'<tr><td class="n">{"" if pd.isna(row) else row}</td><td>{escape(str(column))}</td>'
        f"<td>{escape(str(message))}</td></tr>"
        for row, column, message in table.itertuples(index=False)
    )
    st.html(
        '<table class="data-list"><thead><tr><th scope="col" class="n">Row</th><th scope="col">Column</th>'
        f'<th scope="col">Problem</th></tr></thead><tbody>{body}</tbody></table>'
    )


# ----------------------------------------------------------------------------------------------- editing


def _style() -> None:
    c = colours(theme.mode())
    st.html(
        f"""<style>
.data-problems {{ color: {c["warn"]}; font-size: 14px; line-height: 20px; margin: .3rem 0; }}
.data-list {{ border-collapse: collapse; font-size: 13px; line-height: 18px; width: 100%; }}
.data-list th {{ text-align: left; font-weight: 400; color: {c["ink-2"]}; }}
.data-list th, .data-list td {{ padding: 4px 14px 4px 0; border: 0; border-bottom: 1px solid {c["grid"]};
  vertical-align: top; overflow-wrap: anywhere; }}
.data-list th.n, .data-list td.n {{ text-align: right; white-space: nowrap; overflow-wrap: normal;
  font-variant-numeric: tabular-nums; }}
.data-list .now {{ color: {c["accent"]}; font-weight: 600; }}
.data-list small {{ display: block; color: {c["ink-2"]}; font-size: 11.5px; line-height: 15px; }}
.data-list th {{ white-space: nowrap; }}
.data-words {{ font-size: 14px; line-height: 20px; margin: 0; overflow-wrap: anywhere; }}
.data-status {{ min-height: 40px; }}
</style>"""
    )


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(pd.RangeIndex(1, len(table) + 1, name="row"), axis=0)


@dataclass(frozen=True, eq=False)
class Grid:
    """What a browser was given to edit.

    Parameters
    ----------
    base : DataFrame
        The cells as they were.
    shown : DataFrame
        The same with numbers as text: a browser's own reading of numbers drops commas.
    numeric : mapping of str to str
        Columns that hold numbers, each with its decimal mark, as `decimal_mark` tells it.
    """

    base: pd.DataFrame
    shown: pd.DataFrame
    numeric: Mapping[str, str]


#: A number with more significant digits than this was computed, not written down.
_MEASURED = 12


def grid(base: pd.DataFrame, decimal: str, known: Mapping[str, bool]) -> Grid:
    """What is given to a browser for `base`; `known` says of some columns whether they hold numbers.

    Computed numbers are shown `readable`; those of cells that nobody edits keep all their digits.
    """
    shown, numeric = base.copy(), {}
    for name in map(str, base.columns):
        cells = base[name]
        if pd.api.types.is_bool_dtype(cells) or pd.api.types.is_datetime64_any_dtype(cells):
            continue
        typed = pd.api.types.is_numeric_dtype(cells)
        if typed or (known[name] if name in known else mostly_numbers(cells)):
            mark = decimal_mark(cells)
            numeric[name] = decimal if typed or mark == "?" else mark
            shown[name] = pd.array([_cell(readable(value), decimal) for value in cells], dtype="str")
    return Grid(base, shown, numeric)


def readable(value: Any) -> Any:
    """A number with digits that nobody measured, as simulated ones have, with six of them; else the value.

    >>> readable(28.394129381293812), readable(1234567.0123456789), readable(0.1), readable("A")
    (28.3941, 1234567.0, 0.1, 'A')
    """
    if not isinstance(value, float | np.floating) or not np.isfinite(value):
        return value
    given = float(value)
    if float(f"{given:.{_MEASURED}g}") == given:
        return value
    return round(given, max(0, 5 - int(np.floor(np.log10(abs(given))))))


def _cell(value: Any, decimal: str) -> str | None:
    """A cell's text; a number's is the shortest that reads back the same."""
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return None
    text = repr(float(value)) if isinstance(value, float | np.floating) else str(value)
    return text.removesuffix(".0").replace(".", decimal)


def merge(given: Grid, edited: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[int, str], tuple[str, str]]]:
    """The table after editing, and the typed cells in doubt; a cell that nobody touched stays as it was.

    Returns
    -------
    table : DataFrame
        The rows of `edited`. A number typed into a column of numbers is one; in a column of text it is
        written with the column's decimal mark.
    doubts : dict
        As `Sheet` keeps them.
    """
    doubts: dict[tuple[int, str], tuple[str, str]] = {}
    if edited.equals(given.shown):
        return given.base, doubts
    same_rows = edited.index.isin(given.shown.index)
    rows, columns = [int(row) for row in edited.index], {}
    for name in given.shown.columns:
        old, new = given.shown[name].reindex(edited.index), edited[name]
        changed = ~same_rows | ~((old == new) | (old.isna() & new.isna())).to_numpy(dtype=bool)
        if not changed.any():
            columns[name] = given.base[name].loc[edited.index]
            continue
        values = list(given.base[name].reindex(edited.index))
        for place in np.flatnonzero(changed).tolist():
            typed = new.iloc[place]
            blank = typed is None or pd.isna(typed)
            values[place] = None if blank else typed
            if name not in given.numeric or blank:
                continue
            mark = given.numeric[name]
            value = typed_number(str(typed), mark)
            if isinstance(value, str):
                doubts[rows[place], name] = (str(typed), value)
            elif pd.api.types.is_numeric_dtype(given.base[name]):
                values[place] = value
            elif mark in ".,":
                values[place] = _cell(value, mark)
        columns[name] = pd.Series(values, index=edited.index, dtype=object).infer_objects()
        if pd.api.types.is_numeric_dtype(given.base[name]) and not any(isinstance(v, str) for v in values):
            columns[name] = pd.to_numeric(columns[name])
    return pd.DataFrame(columns, index=edited.index), doubts


def edit(sheet: Sheet, key: str, scenario: Scenario, height: int = 420) -> None:
    """Let a sheet's cells be edited, and its rows added and dropped; the sheet changes with them."""
    focus = sheet.focus
    name = f"{key}_{sheet.turn}"
    # The editor counts its changes from the table it was first given: that one stays until it is left.
    base = f"{key}_base"
    if name not in st.session_state or base not in st.session_state:
        known = {
            sheet.mapping.get(column.name) or column.name: column.kind.endswith("number")
            for column in scenario.columns
        }
        table = sheet.table if focus is None else sheet.table.loc[focus]
        st.session_state[base] = grid(table, sheet.decimal, known)
    given: Grid = st.session_state[base]
    config: dict[str, Any] = {"_index": st.column_config.NumberColumn("row", width=50)}
    config |= {name: st.column_config.TextColumn(alignment="right") for name in given.numeric}
    edited = st.data_editor(
        given.shown,
        key=name,
        num_rows="dynamic" if focus is None else "fixed",
        hide_index=False,
        column_config=config,
        height=min(height, 32 * (len(given.shown) + 2) + 3),
        row_height=32,
        alt="The table, editable",
    )
    table, doubts = merge(given, edited)
    sheet.doubts |= doubts
    if focus is None:
        sheet.table = table
    elif table is not given.base:
        whole = sheet.table.astype({name: object for name in table if table[name].dtype == object})
        whole.loc[focus] = table
        sheet.table = whole


def _undo(sheet: Sheet, table: pd.DataFrame) -> None:
    sheet.table, sheet.turn, sheet.doubts = table, sheet.turn + 1, {}


def _sheet(key: str) -> Sheet | None:
    return st.session_state.get(key)


# ------------------------------------------------------------------------------------ before and after


def _preview(page: Page, dataset: Dataset) -> Live | None:
    """The study with `dataset` in place of its data; says why where there is no answer."""
    try:
        return live(_changed(page.study, dataset), dataset)
    except InputError as problem:
        st.info(theme.plain(f"These data do not fit the study's model. {problem}"))
        return None


def _changed(study: Study, dataset: Dataset) -> Study:
    return study.change(dataset=dataset.digest)


def effect(page: Page, dataset: Dataset) -> None:
    """What the new data do to the answers: parameters and units, before and after."""
    after = _preview(page, dataset)
    if after is None:
        return
    before = page.live
    if before.posterior is None or after.posterior is None:
        st.info(theme.plain(after.problem or before.problem or "There is no exact answer to compare."))
        return
    words = before.dataset.words
    scale = digits_of(before.spec.structure)
    theme.title("What changes")
    st.html(_parameters_html(page, parameter_change(before.posterior, after.posterior), scale))
    if notes := _prior_notes(before, after):
        st.caption(theme.plain(notes))
    structures = (before.spec.structure, after.spec.structure)
    if all(isinstance(one, TwoLevelNormal) for one in structures):
        table = unit_change(before.posterior, after.posterior)
        if not (table["state"] == "kept").any():
            return
        mode = theme.mode()
        st.html(legend([("raw", "on its own"), ("before", "pooled before"), ("point", "pooled now")], mode))
        theme.chart(change_figure(chosen_changes(table), words, scale, mode), key="data_change")
        farthest = table.iloc[0]
        if np.isfinite(farthest["moved"]) and abs(farthest["moved"]) > 0:
            theme.caption(
                f"Whoever was changed stands first, then the {escape(words.many)} that moved most, "
                f"{escape(_short(farthest['unit']))} by {signed(farthest['moved'], scale.estimate)}. "
                "Exact, without sampling."
            )


def _short(text: str, longest: int = 40) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _symbol(page: Page, name: str) -> tuple[str, str]:
    """A parameter's sign and words."""
    said = page.scenario.parameter_words
    return symbol(name), said.get(name, said.get(name.partition("[")[0], ("", "")))[1]


def _parameters_html(page: Page, table: pd.DataFrame, scale: Digits, alone: bool = False) -> str:
    """Parameters before and now; `alone`: there is only one of them."""

    def cell(row: pd.Series, when: str) -> str:
        if not np.isfinite(row[when]):
            return "–"
        low, high = (number(row[f"{when}_{end}95"], scale.estimate) for end in ("low", "high"))
        mean = number(row[when], scale.estimate)
        kind = "now" if when == "after" else "was"
        return f'<span class="{kind}">{mean}</span><small>{low} to {high}</small>'

    rows = []
    for _, row in table.head(_MOST_PARAMETERS).iterrows():
        sign, words = _symbol(page, str(row["parameter"]))
        rows.append(
            f"<tr><td><i>{escape(_short(sign))}</i><small>{escape(words)}</small></td>"
            + ("" if alone else f'<td class="n">{cell(row, "before")}</td>')
            + f'<td class="n">{cell(row, "after")}</td></tr>'
        )
    # Parts of vectors have units of their own, told in their words.
    unit = "" if vectors.has(page.live) else page.dataset.words.unit
    head = f"Mean, 95 %{f', {escape(unit)}' if unit else ''}"
    heads = "".join(
        f'<th scope="col" class="n">{text}</th>' for text in (("Now",) if alone else ("Before", "Now"))
    )
    return (
        f'<table class="data-list"><thead><tr><th scope="col">{head}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _prior_notes(before: Live, after: Live) -> str:
    """Which priors differ: defaults follow the data, and chosen numbers do not outlive them."""
    moved = [
        f"{symbol(name)} ~ {before.spec.priors[name].text} → {prior.text}"
        for name, prior in after.spec.priors.items()
        if name in before.spec.priors and before.spec.priors[name] != prior
    ]
    return f"The priors follow the data: {', '.join(moved)}." if moved else ""


def _use(page: Page, dataset: Dataset, label: str) -> None:
    """Make `dataset` the study's data; a built-in set is chosen by its name."""
    for name in page.scenario.datasets:
        if page.scenario.dataset(name).digest == dataset.digest:
            session.change(dataset=name)
            return
    session.keep_upload(dataset, label)


def _finish(page: Page, dataset: Dataset | None, label: str, key: str) -> None:
    """The two buttons under a table: usable once it is in order."""
    same = dataset is not None and dataset.digest == page.dataset.digest
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Use these data",
            key=f"{key}_use",
            type="primary",
            disabled=dataset is None or same,
            on_click=_use,
            args=(page, dataset, label),
            help="They become the study's data on every page. They are yours: others see them only by your "
            "link.",
        )
        if dataset is not None:
            _download(dataset, label, key)


def _download(dataset: Dataset, label: str, key: str) -> None:
    st.download_button(
        "Download as CSV",
        partial(csv_text, dataset.table),
        f"{slug(label)}.csv",
        "text/csv",
        key=f"{key}_download",
        on_click="ignore",
        icon=":material/download:",
    )


def slug(label: str) -> str:
    """File name of a download, without ending.

    >>> slug("../../Eight schools (Rubin 1981).csv")
    'eight-schools-rubin-1981-csv'
    """
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:60] or "data"


# ----------------------------------------------------------------------------------------------- sections


def _change(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    dataset, one = page.dataset, page.dataset.words.one
    source = f"{page.study.scenario}/{dataset.digest}"
    sheet = _sheet(_PRESENT)
    if sheet is None or sheet.source != source:
        turn = 0 if sheet is None else sheet.turn + 1
        table = _numbered(dataset.table)
        label = dataset.label if dataset.name == "upload" else f"{dataset.label}, changed"
        focus = list(range(1, _MOST_FOCUS + 1)) if len(table) > _MOST_EDITED else None
        sheet = Sheet(source, table, label, focus=focus, turn=turn)
        st.session_state[_PRESENT] = sheet
    with left:
        theme.title(dataset.label)
        edit(sheet, f"{_PRESENT}_editor", page.scenario)
        if sheet.focus is not None:
            st.caption(f"The first {len(sheet.focus):,} of {len(sheet.table):,} rows can be edited here.")
        checked = check(page.scenario, sheet)
        touched = checked.dataset is None or checked.dataset.digest != dataset.digest
        if checked.problems:
            _status(problems_words(checked, sheet, "above"))
        alone = len(dataset.table) == len(page.live.spec.structure.units)
        theme.caption(
            f"{'One row is' if alone else 'Several rows are'} one {escape(one)}. Click a cell to edit it; "
            "tick a row and press Delete to drop it; "
            "the last, empty row adds one. The study keeps its data until you press Use these data"
            + ("; until then, reloading the page undoes your changes." if touched else ".")
        )
        with st.container(horizontal=True, gap="small"):
            _finish(page, checked.dataset, sheet.label, _PRESENT)
            if touched:
                undone = (sheet, _numbered(dataset.table))
                st.button("Undo all changes", key="data_undo", on_click=_undo, args=undone)
        if checked.problems:
            _show_problems(checked.problems, sheet)
    good = f"{_PRESENT}_good"
    if checked.dataset is not None:
        st.session_state[good] = (sheet.source, checked.dataset)
    with right:
        source_, last = st.session_state.get(good, ("", dataset))
        last = last if source_ == sheet.source else dataset
        if checked.dataset is None:
            st.html(
                '<p class="data-words"><b>Paused</b> until the table is in order: this is the picture '
                "before the problem.</p>"
            )
        if last.digest != dataset.digest:
            effect(page, last)
        else:
            _invite(page)


def _invite(page: Page) -> None:
    """Nothing was changed yet: what could be."""
    words = page.dataset.words
    theme.title("What changes")
    said = f"Edit a value or drop a {escape(words.one)}: what it does to the answer appears here at once."
    posterior, spec = page.live.posterior, page.live.spec
    if posterior is not None and isinstance(spec.structure, TwoLevelNormal):
        table = unit_change(posterior, posterior)
        top = escape(_short(str(table["unit"].iloc[int(table["raw_after"].argmax())])))
        said += f" Try dropping {top}, the largest."
    st.html(f'<p class="data-words">{said}</p>')
    if posterior is not None:
        summary = parameter_change(posterior, posterior)
        scale = digits_of(spec.structure)
        st.html(_parameters_html(page, summary, scale, alone=True))


def _read_upload(scenario: Scenario) -> None:
    """Callback: read what was uploaded or pasted into a sheet, or keep the message."""
    file, text = st.session_state.get(_FILE), st.session_state.get(_PASTED, "")
    if file is not None:
        take(scenario, file.getvalue(), file.name)
    elif text.strip():
        take(scenario, text.encode("utf-8", "replace"), "pasted table")


def take(scenario: Scenario, content: bytes, name: str) -> None:
    """Read a table into the session's sheet; a refusal stays as a message until the next one is read."""
    old = _sheet(_BROUGHT)
    st.session_state.pop(f"{_BROUGHT}_refused", None)
    label = file_title(name) or "Your data"
    try:
        limits = fits.engine().settings
        read = read_table(
            content,
            name,
            most_bytes=limits.upload_mb * 2**20,
            most_columns=limits.upload_columns,
            most_rows=limits.upload_rows,
        )
    except DataProblems as found:
        st.session_state[f"{_BROUGHT}_refused"] = (label, "", found.problems)
        return
    except InputError as problem:
        st.session_state[f"{_BROUGHT}_refused"] = (label, f"{problem}{_raised(problem.expected)}", ())
        return
    mapping = guessed(read.table, scenario.columns)
    guesses = guessed_by_words(read.table, scenario.columns, mapping)
    mapping |= guesses
    others = [str(name) for name in read.table.columns if name not in mapping.values()][:_MOST_OTHERS]
    # Short tables stay as they were written, to be read as a whole whenever a cell changes.
    long = len(read.table) > _MOST_EDITED
    table = _numbered(_with_numbers(read.table, scenario, mapping) if long else read.table)
    sheet = Sheet(
        f"{scenario.id}/{label}",
        table,
        label,
        read.words,
        mapping,
        others,
        turn=old.turn + 1 if old else 0,
        decimal="," if "decimal commas" in number_habit(read.table) else ".",
        guesses=tuple(guesses),
    )
    if len(table) > _MOST_EDITED:
        checked = check(scenario, sheet)
        if checked.dataset is None and len(table) > _MOST_KEPT:
            st.session_state[f"{_BROUGHT}_refused"] = (label, read.words, checked.problems)
            return
        wrong = sorted({p.row for p in checked.problems if p.row})[:_MOST_FOCUS]
        sheet.focus = wrong or list(range(1, 101))
    st.session_state[_BROUGHT] = sheet


def _raised(expected: str) -> str:
    """Who can raise a limit that refused a table, and how; empty where it was not one of the settings."""
    limits = {"MB": "HBM_UPLOAD_MB", "rows": "HBM_UPLOAD_ROWS", "columns": "HBM_UPLOAD_COLUMNS"}
    found = re.fullmatch(r"at most [\d,]+ (MB|rows|columns)", expected)
    return f" Whoever runs the server can raise {limits[found[1]]}." if found else ""


def _with_numbers(table: pd.DataFrame, scenario: Scenario, mapping: Mapping[str, str | None]) -> pd.DataFrame:
    """`table` with columns of numbers as numbers where every cell is one: they align, and sort."""
    numeric = {mapping[column.name] for column in scenario.columns if column.kind != "text"}
    out = table.copy()
    for name in sorted(filter(None, numeric)):
        values, wrong, _ = parse_numbers(table[name])
        if not len(wrong):
            out[name] = values
    return out


def _bring(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    scenario = page.scenario
    with left:
        theme.title("Upload or paste a table")
        megabytes = fits.engine().settings.upload_mb
        st.file_uploader(
            "CSV or Parquet file",
            key=_FILE,
            on_change=_read_upload,
            args=(scenario,),
            max_upload_size=megabytes,
            help=f"At most {megabytes:,} MB here; whoever runs the server can raise that (HBM_UPLOAD_MB). "
            f"`hbm fit {scenario.id} --data FILE` takes larger files by their path.",
        )
        st.text_area(
            "or paste it, header first",
            key=_PASTED,
            height=110,
            placeholder=_example(scenario, "\t"),
            max_chars=2_000_000,
        )
        st.button("Read the pasted table", on_click=_read_pasted, args=(scenario,), key="data_read")
        _companion(scenario)
        if refused := st.session_state.get(f"{_BROUGHT}_refused"):
            _refused(*refused)
        sheet = _sheet(_BROUGHT)
        if sheet is None:
            if not refused:
                theme.caption(
                    "Separator, decimal mark, thousands and encoding are found by themselves; every problem "
                    "is listed with its row and column before anything is used. Copying cells in a "
                    "spreadsheet and pasting them here works."
                )
        else:
            _correct(page, sheet)
    with right:
        _columns(scenario)


def _companion(scenario: Scenario) -> None:
    """Ask for the second table that a scenario's data may come with, once the first is there."""
    sheet = _sheet(_BROUGHT)
    if not scenario.companion or sheet is None:
        return
    with st.expander(f"A second table: {scenario.companion}"):
        st.file_uploader(
            "CSV or Parquet file with conditions",
            key=_SECOND,
            on_change=_read_second,
            args=(scenario, sheet),
            help="Its columns are added to the rows of the first table that have the same labels.",
        )


def _read_second(scenario: Scenario, sheet: Sheet) -> None:
    """Callback: join what was uploaded to the table under correction, or keep the message."""
    file = st.session_state.get(_SECOND)
    if file is None:
        return
    try:
        limits = fits.engine().settings
        second = read_table(file.getvalue(), file.name, most_bytes=limits.upload_mb * 2**20).table
        first = mapped(sheet.table, scenario.columns, sheet.mapping, sheet.others)
        joined = scenario.joined(first, second)
    except DataProblems as found:
        st.session_state[f"{_BROUGHT}_refused"] = (file_title(file.name), "", found.problems)
        return
    except InputError as problem:
        st.session_state[f"{_BROUGHT}_refused"] = (file_title(file.name), str(problem), ())
        return
    take(scenario, csv_text(joined).encode(), sheet.label)


def _read_pasted(scenario: Scenario) -> None:
    text = st.session_state.get(_PASTED, "")
    take(scenario, text.encode("utf-8", "replace"), "pasted table")


def _refused(label: str, message: str, problems: tuple[Problem, ...]) -> None:
    st.html(
        f'<p role="status" class="data-problems"><b>✕ {escape(label)} cannot be used as it is.</b> '
        f"{escape(message)}</p>"
    )
    if problems:
        table = problems_table(problems, {})
        st.dataframe(
            table, hide_index=True, height=min(35 * (len(table) + 1) + 3, 260), alt="Problems of the file"
        )


def _correct(page: Page, sheet: Sheet) -> None:
    theme.title(sheet.label)
    st.html(f'<p class="data-words">{escape(sheet.said)}</p>')
    _map_columns(page.scenario, sheet)
    place = st.container()
    edit(sheet, f"{_BROUGHT}_editor", page.scenario)
    if sheet.focus is not None:
        shown = f"{len(sheet.focus):,} of {len(sheet.table):,} rows"
        st.caption(
            f"{shown} can be edited here: those with problems first. Clear a row's cells to leave it out."
        )
    checked = check(page.scenario, sheet)
    with place:
        if checked.dataset is None:
            _status(problems_words(checked, sheet, "below"))
        elif checked.dataset.digest == page.dataset.digest:
            _status("✓ These are the study's data now, on every page.")
        else:
            _status(f"✓ In order: {len(checked.dataset.table):,} rows can be used.")
    _finish(page, checked.dataset, sheet.label, _BROUGHT)
    if checked.dataset is not None and checked.dataset.digest != page.dataset.digest:
        _alone(page, checked.dataset)
    if checked.problems:
        # Under the table, whose rows would move with every problem that goes.
        _show_problems(checked.problems, sheet)
    st.button("Put this table away", key="data_away", on_click=_away)


def _away() -> None:
    for key in (_BROUGHT, f"{_BROUGHT}_refused"):
        st.session_state.pop(key, None)
    st.session_state[_PASTED] = ""


def _alone(page: Page, dataset: Dataset) -> None:
    """What the brought data say: raw → pooled, at once."""
    found = _preview(page, dataset)
    if found is None or found.posterior is None:
        if found is not None:
            st.info(theme.plain(found.problem))
        return
    scale = digits_of(found.spec.structure)
    if set(dataset.table.iloc[:, 0]) & set(page.dataset.table.iloc[:, 0]):
        effect(page, dataset)
        return
    theme.title("What they say")
    table = parameter_change(found.posterior, found.posterior)
    st.html(_parameters_html(Page(page.study, page.scenario, found), table, scale, alone=True))


def _map_columns(scenario: Scenario, sheet: Sheet) -> None:
    """Which of the table's columns is which of the scenario's: open where somebody should look."""
    names = [str(name) for name in sheet.table.columns]
    missing = [column.name for column in scenario.columns if not sheet.mapping.get(column.name)]
    opened = f"data_which_{sheet.turn}"
    if opened not in st.session_state:
        asks = any(p.row is None and p.column in missing for p in check(scenario, sheet).problems)
        st.session_state[opened] = asks or bool(sheet.guesses)
    if sheet.guesses:
        said = ", ".join(
            f"<b>{escape(one)}</b> is {escape(_short(str(sheet.mapping[one])))}"
            for one in sheet.guesses
            if sheet.mapping.get(one)
        )
        if said:
            st.html(f'<p class="data-words">Guessed from the names: {said}. Choose otherwise if not.</p>')
    with st.expander("Which column is which", expanded=st.session_state[opened]):
        with st.container(horizontal=True, gap="small"):
            for column in scenario.columns:
                _map_column(column.name, f"{column.name}: {column.kind}, {column.rule}", names, sheet)
        if any(model.covariates for model in scenario.models.values()):
            _keep_others(names, sheet)


def _map_column(name: str, label: str, names: list[str], sheet: Sheet) -> None:
    key = f"data_map_{name}_{sheet.turn}"
    if key not in st.session_state:
        st.session_state[key] = sheet.mapping.get(name) or _NOTHING

    def chosen() -> None:
        value = st.session_state[key]
        sheet.mapping[name] = None if value == _NOTHING else value
        sheet.guesses = tuple(one for one in sheet.guesses if one != name)

    st.selectbox(label, [_NOTHING, *names], key=key, on_change=chosen, format_func=_short, width=190)


def _keep_others(names: list[str], sheet: Sheet) -> None:
    free = [name for name in names if name not in sheet.mapping.values()]
    key = f"data_others_{sheet.turn}"
    kept = st.session_state.get(key, sheet.others)
    st.session_state[key] = [name for name in kept if name in free]
    if not free:
        return

    def chosen() -> None:
        sheet.others[:] = st.session_state[key]

    st.multiselect("Keep as covariates", free, key=key, on_change=chosen, format_func=_short)
    if (more := len(free) - len(st.session_state[key])) > 0:
        st.caption(f"{more:,} more column{'s' * (more != 1)} of the table stay out unless chosen here.")


def _columns(scenario: Scenario) -> None:
    theme.title("What the table needs")
    rows = "".join(
        f"<tr><td><b>{escape(column.name)}</b>"
        f"<small>{escape(column.kind)}, {escape(column.rule)}</small></td>"
        f"<td>{escape(', '.join(column.aliases)) or '–'}</td></tr>"
        for column in scenario.columns
    )
    st.html(
        '<table class="data-list"><thead><tr><th scope="col">Column</th><th scope="col">Also known as</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )
    st.download_button(
        "Download a template",
        partial(_example, scenario, ","),
        f"{scenario.id}-template.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
    )


def _example(scenario: Scenario, separator: str) -> str:
    """The scenario's default data, its first rows and its own columns."""
    table = scenario.dataset(scenario.default_dataset).table
    names = [column.name for column in scenario.columns if column.name in table]
    rows = table[names].head(4).map(lambda cell: f"{cell:g}" if isinstance(cell, float) else cell)
    return rows.to_csv(index=False, sep=separator, lineterminator="\n")


def _simulate(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    study = page.study
    simulated = study.dataset == SIMULATED
    with right:
        if not simulated:
            st.button(
                "Simulate",
                type="primary",
                key="data_simulate",
                on_click=_to_simulated,
            )
            st.caption("The study then goes on with simulated data, on every page.")
        else:
            theme.title("Simulator")
            simulator.knobs(study, "data_")
    with left:
        if not simulated:
            theme.title("Data whose truth is known")
            st.html(
                '<p class="data-words">A simulator draws true effects and noise with the numbers that '
                "you choose. The truth is then marked in every picture, so that you see how close "
                "pooling comes.</p>"
            )
            return
        theme.title(page.dataset.label)
        truth = page.dataset.truth or {}
        table = page.dataset.table.copy()
        name = str(table.columns[0])
        true = [truth.get(f"theta[{unit}]", np.nan) for unit in table[name]]
        if np.isfinite(true).any():
            table.insert(1, "truth", true)
        config = {
            str(column): st.column_config.NumberColumn(format="%.2f")
            for column in table.select_dtypes("number").columns
        }
        st.dataframe(
            table.head(1000), hide_index=True, height=min(32 * (len(table) + 1) + 3, 420), row_height=32,
            column_config=config, alt="Simulated data with their truth",
        )  # fmt: skip
        if len(table) > 1000:
            st.caption(f"The first 1,000 of {len(table):,} rows.")
        said = ", ".join(
            f"{_symbol(page, key)[0]} = {value:g}" for key, value in truth.items() if "theta[" not in key
        )
        theme.caption(
            f"<i>truth</i> is what the simulator drew before it added noise. True values: {escape(said)}."
        )
        _download(page.dataset, page.dataset.label, "data_simulated")


def _to_simulated() -> None:
    session.change(dataset=SIMULATED)


def _look(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    dataset, structure = page.dataset, page.live.spec.structure
    with left:
        theme.title("The data before any model")
        if isinstance(structure, TwoLevelNormal):
            points, lines = funnel_table(structure)
            theme.chart(funnel(points, lines, dataset.words.axis, theme.mode()), key="data_funnel")
            theme.caption(
                f"Each circle is a {escape(dataset.words.one)}. If all shared one true effect (dashed), 95 % "
                "of them would lie in the grey cone: whoever is far outside speaks for real differences."
            )
        st.table(first_look_rows(page.scenario.first_look(dataset)), border="horizontal", hide_index=True)
    with right:
        if dataset.reference:
            st.caption(theme.plain(f"Data: {dataset.reference}"))
        _columns(page.scenario)


SECTIONS: dict[str, Callable[[Page, DeltaGenerator, DeltaGenerator], None]] = {
    "Change": _change,
    "Your table": _bring,
    "Simulate": _simulate,
    "First look": _look,
}
_WIDTHS: dict[str, list[float]] = {"Change": [1.35, 1], "Your table": [1.7, 1], "Simulate": [2, 1]}


def section(page: Page, name: str) -> None:
    """Draw one section: the table left, what it means beside it."""
    _style()
    left, right = st.columns(_WIDTHS.get(name, [2, 1]), gap="large")
    SECTIONS[name](page, left, right)


__all__: list[Any] = ["SECTIONS", "Page", "Sheet", "check", "open_page", "section", "story", "take"]
