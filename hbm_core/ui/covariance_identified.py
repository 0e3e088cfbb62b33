"""Sections of the page Covariance on what data say: shrinkage of vectors, contraction, stiff and sloppy."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import covariance_identifiability as tables
from hbm_core.analysis import covariance_shrinkage as shrinkage
from hbm_core.analysis.covariance_population import columns
from hbm_core.analysis.covariance_prior import prior_of
from hbm_core.plots import covariance_shrinkage as plots
from hbm_core.plots.theme import legend, number
from hbm_core.plots.tokens import colours
from hbm_core.ui import theme
from hbm_core.ui.covariance_pairs import matrix, shown_units
from hbm_core.ui.covariance_population import kept, population
from hbm_core.ui.covariance_source import Page, controls, download, said
from hbm_core.ui.coverage_page import picture
from hbm_core.ui.trace_page import symbol

#: Units and parameters in one picture, at most.
_MOST_UNITS, _MOST_PARAMETERS = 40, 40
_MEANS, _POPULATION = "Population means", "the population"


# ------------------------------------------------------------------------------------------ shrinkage


def vector_shrinkage(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Matrix shrinkage unit by unit, η-shrinkage parameter by parameter."""
    vector = page.vector
    assert vector is not None
    with right:
        page = controls(page, component=False)
    draws = population(page).draws
    units = shown_units(page, _MOST_UNITS)
    places = [list(vector.units).index(unit) for unit in units]
    single = kept(
        page, "matrix shrinkage", lambda: shrinkage.matrix_shrinkage_table(draws, places), page.unit
    )
    eta = kept(page, "eta", lambda: shrinkage.eta_shrinkage_table(draws))
    many, c = escape(page.words.many), colours(page.mode)
    with left:
        theme.title(f"How far each of the {page.words.many} leans on the population")
        st.html(
            legend(
                [
                    ("point", "mean over directions (trace of W over P), 90 %"),
                    ("line", "ticks: eigenvalues of W", c["ink-2"]),
                ],
                page.mode,
            )
        )
        picture(
            plots.matrix_shrinkage(single, page.unit, page.mode),
            "covariance_matrix_shrinkage",
            "Eigenvalues of the shrinkage matrix of each unit, with their mean",
        )
        some = (
            f" {len(units)} of {len(vector.units):,} {many}, evenly."
            if len(units) < len(vector.units)
            else ""
        )
        theme.caption(
            "W = (Σ⁻¹ + V⁻¹)⁻¹ Σ⁻¹ pulls a whole vector: each tick is one direction in the space of its "
            "parameters, at 0 decided by the unit's own data, at 1 by the population. V is what the unit's "
            "own data leave open, from the draws; over the parameters that its data speak of."
            f"{some} Monte Carlo errors up to {number(float(single['error'].max()), 3)}."
        )
        means = single[single["rank"] == 0]
        most, least = means.loc[means["value"].idxmax()], means.loc[means["value"].idxmin()]
        own = single[(single["unit"] == page.unit) & (single["rank"] > 0)]["value"]
        if len(means) > 1:
            said(
                f"<b>{escape(str(most['unit']))} leans most ({number(most['value'], 2)}), "
                f"{escape(str(least['unit']))} least ({number(least['value'], 2)}).</b> Of "
                f"{escape(str(page.unit))}'s {len(own)} directions its own data decide "
                f"{int((own < 0.5).sum())}."
            )
        download(page, single, "matrix-shrinkage")
        if eta["shrinkage"].notna().any():
            _eta(page, eta)


def _eta(page: Page, table: pd.DataFrame) -> None:
    theme.title("η-shrinkage, parameter by parameter")
    picture(
        plots.eta(table, page.mode), "covariance_eta", "Eta-shrinkage of each parameter with 90 % intervals"
    )
    theme.caption(
        f"How much closer the {escape(page.words.many)}' estimates lie together than the population's σ "
        "says they do: near 0 the data place every unit, near 1 all estimates are the mean, and plots of "
        "estimates against anything else mislead (above 0.3 by a rule of thumb). Below 0: the estimates lie "
        "farther apart than σ. Line: 90 % over σ. Monte Carlo errors up to "
        f"{number(float(table['error'].max()), 3)}."
    )
    alone = table.loc[table["shrinkage"].isna(), "component"].tolist()
    if alone:
        st.caption(f"Without a figure, for one unit's data alone speak of them: {', '.join(alone)}.")
    download(page, table, "eta-shrinkage")


# ------------------------------------------------------------------------------------- identifiability


def identifiability(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Contraction of every parameter with a prior, and the directions that data fix and leave open."""
    spec = page.live.spec
    with right:
        page = controls(page, component=False)
        heads = _blocks(page)
        chosen = next(iter(heads))
        if len(heads) > 1:
            chosen = st.selectbox("Parameters", list(heads), key="covariance_contracted") or chosen
    source = page.tree if page.sampled else page.live.exact
    table = tables.contraction_table(spec, heads.get(chosen, []), source)
    if table.empty:
        left.info(
            "No parameter has a proper prior of its own: there is nothing that the posterior could have "
            "contracted from."
        )
        return
    labels = {name: symbol(name) for name in table["parameter"]}
    some = table.head(_MOST_PARAMETERS)
    with left:
        theme.title("What the data taught, parameter by parameter")
        picture(
            plots.contraction(some, labels, page.mode),
            "covariance_contraction",
            "Contraction from prior to posterior of each parameter",
        )
        squares = (
            " Squares: by quartiles, where a variance is infinite."
            if (some["by"] != "variance").any()
            else ""
        )
        listed = f" The least identified {len(some)} of {len(table)}." if len(some) < len(table) else ""
        error = (
            "" if not page.sampled else f" Monte Carlo errors up to {number(float(some['error'].max()), 3)}."
        )
        theme.caption(
            "Contraction is 1 less the posterior over the prior variance: near 1 the data decide, near 0 the "
            "posterior is the prior, below 0 it is wider (the data contradict the prior)."
            f"{squares}{listed}{error}"
        )
        first, last = table.iloc[0], table.iloc[-1]
        if len(table) > 1:
            said(
                f"<b>{escape(labels[first['parameter']])} is known least, by contraction "
                f"{number(first['contraction'], 2)}; {escape(labels[last['parameter']])} best, by "
                f"{number(last['contraction'], 2)}.</b>"
            )
        download(page, table, "contraction")
    _directions(page, left, right)


def _blocks(page: Page) -> dict[str, list[str]]:
    """Parameters with a prior of their own, in groups where they are many."""
    own = [name for name in page.hyper if prior_of(page.live.spec, name) is not None]
    if not own:
        own = [name for name in page.names if prior_of(page.live.spec, name) is not None]
    if len(own) <= _MOST_PARAMETERS:
        return {"All": own}
    found: dict[str, list[str]] = {}
    for name in own:
        head, _, rest = name.partition("[")
        found.setdefault(symbol(head) if rest else "Others", []).append(name)
    return found


def _subjects(page: Page) -> dict[str, tuple[list[str], np.ndarray]]:
    """What has directions: label → parameters and their prior sds."""
    spec, vector = page.live.spec, page.vector
    if vector is not None and not vector.log:
        sd = np.array([_sd(spec, name) for name in vector.means])
        found = {_MEANS: (list(vector.means), sd)}
        for unit in shown_units(page, _MOST_UNITS):
            used = np.flatnonzero(vector.used[list(vector.units).index(unit)])
            found[str(unit)] = ([vector.member(unit, int(p)) for p in used], sd[used])
        return {label: pair for label, pair in found.items() if np.isfinite(pair[1]).all()}
    names = [name for name in page.hyper if np.isfinite(_sd(spec, name))]
    names = names if page.sampled else [n for n in names if page.live.exact and n in page.live.exact.names]
    return {_POPULATION: (names, np.array([_sd(spec, name) for name in names]))} if len(names) > 1 else {}


def _sd(spec: Any, name: str) -> float:
    prior = prior_of(spec, name)
    return np.inf if prior is None else tables.prior_width(prior)


def _directions(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    subjects = _subjects(page)
    if not subjects:
        return
    with right:
        labels = list(subjects)
        chosen = labels[0]
        if len(labels) > 1:
            start = str(page.unit) if str(page.unit) in labels else labels[0]
            st.session_state.setdefault("covariance_subject", start)
            if st.session_state["covariance_subject"] not in labels:
                st.session_state["covariance_subject"] = start
            chosen = st.selectbox("Directions of", labels, key="covariance_subject") or chosen
    names, prior_sd = subjects[chosen]
    if page.sampled:
        table = kept(
            page,
            "directions",
            lambda: tables.directions_table(columns(page.tree, names), prior_sd, names),
            *names,
        )
    else:
        exact = page.live.exact
        assert exact is not None
        found = matrix(page, names)[0].to_numpy(dtype=float)
        scaled = exact.sd[[exact.index(name) for name in names]] / prior_sd
        if not np.isfinite(found * np.outer(scaled, scaled)).all():
            return
        table = tables.directions(found * np.outer(scaled, scaled), names).assign(error=0.0)
    vector = page.vector
    words = {
        name: symbol(name)
        if vector is None or vector.log
        else name.rpartition(",")[2].rpartition("[")[2].rstrip("]")
        for name in names
    }
    of_vector = vector is not None and not vector.log
    scale = (
        "the sd of the prior on α (a unit may differ from it, so more than 1 can be)"
        if of_vector
        else ("its prior's sd")
    )
    combined = ": bars of one colour leave a product open, of two colours a ratio" if of_vector else ""
    with left:
        theme.title("Sloppy and stiff: which combinations the data fix")
        c = colours(page.mode)
        st.html(
            legend(
                [
                    ("point", "sloppiest directions"),
                    ("others", "stiffest directions"),
                    ("mean", "1: as wide as the prior"),
                ],
                page.mode,
            )
        )
        picture(
            plots.eigenvalues(table, page.mode),
            "covariance_eigenvalues",
            "Posterior over prior variance along the sloppiest and stiffest directions, log scale",
        )
        st.html(legend([("line", "loading above 0"), ("line", "below 0", c["g5"])], page.mode))
        for side, title in (
            ("sloppy", "Sloppiest directions"),
            ("stiff", "Stiffest directions"),
        ):
            if (table["side"] == side).any():
                st.markdown(f"**{title}**")
                picture(
                    plots.loadings(table, words, side, page.mode),
                    f"covariance_loadings_{side}",
                    f"Loadings of the {side} directions",
                )
        listed = (
            f" The {plots.MOST_LOADINGS} parameters with the largest loadings."
            if len(names) > plots.MOST_LOADINGS
            else ""
        )
        theme.caption(
            f"Eigenvectors of the posterior covariance, each parameter in units of {scale}. Over each column "
            "the posterior variance along that direction over the prior's, with its Monte Carlo error; its "
            "bars say which parameters it mixes. Moving along a sloppy direction hardly changes what the "
            f"data see{combined}.{listed}"
        )
        values = table.drop_duplicates("rank")["eigenvalue"]
        ratio = float(values.max() / max(values.min(), 1e-300))
        said(
            f"<b>The widest direction of {escape(chosen)} is {_large(np.sqrt(ratio))} times as wide as the "
            "narrowest</b>, in prior units."
        )
        download(page, table, "directions")


def _large(value: float) -> str:
    return number(value, 1) if value < 10 else f"{float(f'{value:.2g}'):,.0f}"
