"""The parameterization lab: one study fitted in every geometry of its model, side by side."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from hbm_core.analysis.draws import LIMITS
from hbm_core.analysis.lab import Run, differences, lab_table, run_of
from hbm_core.errors import StoreError
from hbm_core.plots import diagnostics as plots
from hbm_core.plots.theme import legend, number
from hbm_core.plots.tokens import Mode, colours
from hbm_core.store.study import Study
from hbm_core.ui import fits, session, theme
from hbm_core.ui.live import live
from hbm_core.ui.trace_page import GEOMETRIES, picture, symbol

#: Seconds between two looks while runs are under way.
PERIOD = 0.5


@st.cache_resource(max_entries=64, show_spinner=False)
def _run(id: str, finished: float) -> Run:
    return run_of(fits.engine().result(id))


def _finished(found: fits.FitView) -> Run | str:
    """The run of a fit that is done, or why it cannot be read."""
    job = fits.engine().table.get(found.id)
    try:
        return _run(found.id, job.finished or 0.0 if job else 0.0)
    except StoreError as problem:
        return str(problem)


def in_every_geometry(study: Study) -> dict[str, Study]:
    """The study in each geometry of its model, all by one engine.

    A comparison of geometries is one of NUTS: at other temperatures walkers come from elsewhere, and blocks
    have one geometry.
    """
    engine = "nuts" if study.engine in ("blocked", "tempering") else study.engine
    return {
        name: study.change(parameterization=name, engine=engine) for name in study.declared.parameterizations
    }


def lab(study: Study) -> None:
    """Draw the lab; it looks again while something runs."""
    geometries = in_every_geometry(study)
    if len(geometries) < 2:
        st.info(
            "This model has one geometry: there is nothing between μ and the units that could be written in "
            "another way. Choose a model that pools partially, such as weak."
        )
        return
    found = {name: fits.view(other) for name, other in geometries.items()}
    if not any(look.status.active for look in found.values()):
        _draw(study, geometries, found)
        return

    @st.fragment(run_every=PERIOD)
    def watched() -> None:
        now = {name: fits.view(other) for name, other in geometries.items()}
        if session.study() is not study or not any(look.status.active for look in now.values()):
            st.rerun(scope="app")
        _draw(study, geometries, now)

    watched()


def _draw(study: Study, geometries: dict[str, Study], found: dict[str, fits.FitView]) -> None:
    mode = theme.mode()
    read = {name: _finished(look) for name, look in found.items() if look.status.state == "done"}
    runs = [run for run in read.values() if isinstance(run, Run)]
    shown = live(study)
    exact = shown.exact.summary(hdi=False) if shown.exact is not None else None
    table = lab_table(runs, exact)
    left, right = st.columns([2.75, 1], gap="large")
    with right:
        _controls(study, geometries, found, table)
    with left:
        theme.title("Same posterior, other geometry")
        st.html(
            f'<p style="font-size:14px;line-height:20px;margin:0">'
            f"{sentence(table, mode, len(geometries))}</p>"
        )
        st.html(rows(found, read, table, mode, study.parameterization))
        if len(table):
            entries = [("point", "no divergence, agrees with exact"), ("cross", "divergences")]
            if exact is not None:
                entries.append(("band", "where means of draws belong"))
            st.html(legend(entries, mode))
            gaps = differences(runs, exact) if exact is not None else pd.DataFrame()
            names = {name: words[0] for name, words in GEOMETRIES.items()}
            picture(
                plots.lab(table, gaps, names, mode), "trace_lab", "Speed and distance from exact by geometry"
            )
        theme.caption(
            "Each row samples the same data, priors and seed; only the coordinates in which the sampler "
            "walks differ. Effective size is the smallest over all hyperparameters and every θ alike. Time "
            "includes warm-up, not compilation, and is longer while other fits share the machine. On the "
            "right, each mark is one parameter: all in the band is the proof that the posterior is the same. "
            "A geometry with few effective draws has wide errors, so it can lie in the band and still be a "
            "bad one."
        )


def _controls(
    study: Study, geometries: dict[str, Study], found: dict[str, fits.FitView], table: pd.DataFrame
) -> None:
    active = [geometries[name] for name, look in found.items() if look.status.active]
    missing = [geometries[name] for name, look in found.items() if look.status.state != "done"]

    def run_all() -> None:
        for other in missing:
            fits.start(other)

    def stop() -> None:
        for other in active:
            fits.cancel(other)

    if active:
        ending = all(look.status.stopping for look in found.values() if look.status.active)
        st.button(
            "Cancelling…" if ending else "Cancel",
            key="lab_cancel",
            on_click=stop,
            disabled=ending,
            width="stretch",
        )
        st.caption("Nothing waits for these runs: go on with any page.")
    elif missing:
        many = {2: "both", 3: "all three", 4: "all four"}[len(geometries)]
        label = f"Run {many}" if len(missing) == len(geometries) else f"Run the other {len(missing)}"
        if len(missing) == 1:
            label = "Run the last"
        st.button(label, key="lab_run", on_click=run_all, type="primary", width="stretch")
        st.caption("A geometry that was not used before is compiled first, which takes some seconds.")
    else:
        st.caption("All runs are kept; a change of data, priors or sampler settings makes new ones.")
    sound = table[(table["divergences"] == 0) & (table["agrees"] != False)] if len(table) else table  # noqa: E712
    if len(sound) and not active:
        best = str(sound.sort_values("ess_per_second")["parameterization"].iloc[-1])
        if best != study.parameterization:
            st.button(
                f"Use {GEOMETRIES[best][0].lower()} for this study",
                key="lab_use",
                on_click=_use,
                args=(best,),
                width="stretch",
            )


def _use(name: str) -> None:
    session.change(parameterization=name)


def sentence(table: pd.DataFrame, mode: Mode, count: int) -> str:
    """What the finished runs show, in one or two sentences."""
    if not len(table):
        return (
            "One way to write a model suits the sampler better than another, and which one depends on "
            "data and "
            "model. Run them all and see: effective draws per second, divergences, and distance from exact."
        )
    if len(table) == 1:
        name = GEOMETRIES[str(table["parameterization"].iloc[0])][0]
        return f"{name} is fitted already. Run the others to compare."
    order = table.sort_values("ess_per_second").to_dict("records")
    worst, best = order[0], order[-1]
    ratio = best["ess_per_second"] / worst["ess_per_second"]
    accent = colours(mode)["accent"]
    first = (
        f"<b>{GEOMETRIES[best['parameterization']][0]}</b> gives "
        f'<b style="color:{accent}">{number(ratio, 0 if ratio >= 10 else 1)} times</b> the effective '
        f"draws per second of "
        f"{GEOMETRIES[worst['parameterization']][0].lower()}"
    )
    if table["agrees"].isna().all():
        return first + ". There is no exact answer to hold them to."
    off = table[table["agrees"] == False]["parameterization"]  # noqa: E712
    if len(off):
        who = " and ".join(GEOMETRIES[name][0].lower() for name in off)
        return f"{first}; {who} did not reach the exact posterior, the others did."
    done = "all" if len(table) == count else f"the {len(table)} done so far"
    return f"{first}, and {done} agree with exact within {table['limit'].iloc[0]:g} Monte Carlo errors."


def rows(
    found: dict[str, fits.FitView],
    read: dict[str, Run | str],
    table: pd.DataFrame,
    mode: Mode,
    current: str,
) -> str:
    """HTML of the lab's table: one row per geometry, its state or its figures."""
    c = colours(mode)
    figures = {row["parameterization"]: row for row in table.to_dict("records")}
    body = []
    for name, look in found.items():
        title, words = GEOMETRIES[name]
        if name in figures:
            row = figures[name]
            bad = row["divergences"] > 0
            cells = [
                (
                    number(row["min_ess"], 0)
                    if row["min_ess"] >= LIMITS["ess"]
                    else f'<b style="color:{c["warn"]}">✕ {number(row["min_ess"], 0)}</b>'
                )
                + f"<small> {escape(symbol(row['slowest']))}</small>",
                plots.rounded(row["ess_per_second"]),
                f'<b style="color:{c["warn"]}">✕ {row["divergences"]:,}</b>' if bad else "0",
                number(row["r_hat"], 3)
                if row["r_hat"] <= LIMITS["r_hat"]
                else f'<b style="color:{c["warn"]}">✕ {number(row["r_hat"], 3)}</b>',
                f"{number(row['seconds'], 2)} s",
                _distance(row, c),
            ]
            text = "".join(f"<td>{cell}</td>" for cell in cells)
        else:
            told = read.get(name)
            problem = told if isinstance(told, str) else ""
            text = f'<td colspan="6" class="state">{_state(look, problem, c)}</td>'
        mark = " ·&nbsp;in use" if name == current else ""
        body.append(f'<tr><th scope="row">{title}<small>{escape(words)}{mark}</small></th>{text}</tr>')
    head = ["", "Least bulk ESS", "ESS per s", "Divergences", "R-hat", "Time", "From exact"]
    headings = "".join(f'<th scope="col">{name}</th>' for name in head)
    return (
        f"<style>.lab{{border-collapse:collapse;width:100%;font-size:13px;line-height:18px;"
        f"font-variant-numeric:tabular-nums}}.lab td,.lab th{{text-align:right;padding:6px 0 6px 12px;"
        f"vertical-align:top;white-space:nowrap}}.lab thead th{{font-weight:400;color:{c['ink-2']};"
        f"padding-bottom:2px}}"
        f".lab tbody td,.lab tbody th{{border-top:1px solid {c['grid']}}}.lab th[scope=row]{{text-align:left;"
        f"padding-left:0;font-weight:600;color:{c['ink']};white-space:normal;min-width:150px}}"
        f".lab small{{color:{c['ink-2']};"
        f"font-size:12.5px;font-weight:400}}"
        f".lab th small{{display:block;line-height:17px}}.lab "
        f".state{{text-align:left;color:{c['ink-2']};white-space:normal}}"
        f'.scroll{{overflow-x:auto}}</style><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Table of parameterizations"><table class="lab"><thead><tr>{headings}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _distance(row: Mapping[Hashable, Any], c: dict[str, str]) -> str:
    if row["agrees"] is None or pd.isna(row["largest"]):
        return "–"
    text = f"{number(row['largest'], 1)} MCSE"
    return text if row["agrees"] else f'<b style="color:{c["warn"]}">✕ {text}</b>'


def _state(look: fits.FitView, problem: str, c: dict[str, str]) -> str:
    if problem:
        return escape(problem)
    match look.status.state:
        case "running":
            percent = 100 * look.fraction
            bar = (
                f'<div style="height:5px;max-width:260px;background:{c["grid"]};border-radius:3px;'
                f'margin-top:4px">'
                f'<div style="height:5px;width:{percent:.0f}%;background:{c["accent"]};border-radius:3px">'
                f"</div></div>"
            )
            return escape(look.detail) + bar
        case "queued":
            return f"Waits: {escape(look.detail[0].lower() + look.detail[1:])}"
        case "failed":
            return f'<b style="color:{c["warn"]}">✕ failed.</b> {escape(look.detail)}'
        case "cancelled":
            return "Cancelled."
    return "Not run yet."
