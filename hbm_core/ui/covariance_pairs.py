"""Sections of the page Covariance for every model: pairs of parameters, funnel, correlation matrix."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import covariance as tables
from hbm_core.analysis import joint, marginals
from hbm_core.analysis.batched import linear
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.raw_rates import RawRates
from hbm_core.plots import covariance as plots
from hbm_core.plots.diagnostics import funnel as funnel_figure
from hbm_core.plots.theme import legend, number
from hbm_core.plots.tokens import colours
from hbm_core.ui import theme
from hbm_core.ui.covariance_source import Page, controls, download, keys, said, source_words, unit_words
from hbm_core.ui.coverage_page import picture
from hbm_core.ui.trace_page import symbol, why_no_funnel

_MOST_PAIRS = 5
#: Parameters in a matrix: up to the first number all, above it one chooses; units among them; at most.
_MOST_LISTED, _MOST_UNITS, MOST_CELLS = 45, 30, 60
_PARAMETERS, _BLOCKS = "covariance_parameters", "covariance_blocks_kept"


# ----------------------------------------------------------------------------------------- correlations


@st.cache_resource(max_entries=64, show_spinner=False)
def _matrix(source: str, names: tuple[str, ...], _page: Page) -> tuple[object, pd.DataFrame, float]:
    # the posterior is kept with its matrix, so that the address in `source` stays its name
    if _page.sampled:
        return _page.tree, *tables.draws_correlation(_page.tree, list(names))
    posterior = _page.live.exact
    assert posterior is not None
    return posterior, *joint.correlation(posterior, list(names))


def matrix(page: Page, names: list[str]) -> tuple[pd.DataFrame, float]:
    """The correlation matrix of some parameters, with its Monte-Carlo error (0 where exact)."""
    source = f"fit {id(page.tree)}" if page.sampled else f"exact {id(page.live.exact)}"
    return _matrix(source, tuple(names), page)[1:]


def shown_units(page: Page, most: int = MOST_CELLS) -> list[str]:
    """Units of a picture of all of them: so many, evenly, the selected one among them."""
    units = list(page.live.spec.structure.units)
    if len(units) <= most:
        return units
    places = set(np.unique(np.linspace(0, len(units) - 1, most - 1).astype(int)))
    return [unit for place, unit in enumerate(units) if place in places or unit == page.unit]


def mean_correlation(page: Page) -> float:
    """Mean correlation of two units' effects."""
    theta = [name for unit in shown_units(page) for name in page.of_unit(unit)[:1]]
    found = matrix(page, [*page.hyper, *theta])[0]
    values = found.loc[theta, theta].to_numpy()[np.triu_indices(len(theta), 1)]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def structure_note(page: Page) -> str:
    """What a model without a shared, unknown mean and spread shows instead; empty where it has both."""
    structure: Any = page.live.spec.structure
    one, many = page.words.one, page.words.many
    if isinstance(structure, RawRates) and page.vector is None:
        return (
            "Rates are not normal given the population: the correlations are counted from draws. "
            f"What all {many} share is not knowing μ and how alike they are."
        )
    if isinstance(structure, GroupedUnits) or page.vector is not None:
        return ""
    if structure.pooling in ("none", "independent"):
        return f"This model has neither mean nor spread: no two {many} share anything, so clouds are upright."
    if structure.pooling == "complete":
        return (
            f"This model has one parameter. Each {one}'s effect is μ itself: correlation 1 by construction."
        )
    if structure.pooling == "shared":
        return f"All {many} have the same parameters: correlation 1 by construction."
    if "student_t" in (structure.effects, structure.likelihood):
        return (
            "With Student-t tails the posterior is not normal given τ: the correlations are counted from "
            "draws, and a single number says less about so bent a cloud."
        )
    return ""


# ------------------------------------------------------------------------------------------------ pairs


def _parameters(page: Page) -> list[str]:
    """Choose parameters; the selected unit's is always among them, last."""
    options = [name for name in page.names if name != page.own]
    pulled = [name for name in page.pulled or () if name in options]
    start = [*pulled, *(name for name in page.hyper if name in options and name not in pulled)]
    start = start[: 2 if page.vector is not None else _MOST_PAIRS - 1]
    if len(start) < 2 and options:
        start = [*start, *[name for name in options if name not in start][: 2 - len(start)]]
    chosen = theme.kept_choice(
        "Parameters beside it",
        options,
        start,
        _PARAMETERS,
        "covariance_choice",
        format_func=symbol,
        max_selections=_MOST_PAIRS - 1,
        help=f"{len(options):,} to choose from: type a part of a name to find one.",
    )
    return [*chosen, page.own]


def pairs(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Parameters two by two."""
    with right:
        page = controls(page)
        names = _parameters(page)
    exact = page.live.exact
    table = page.draws(names)
    ranges = {name: marginals.value_range(table, name, exact) for name in names}
    densities = [
        pd.DataFrame({"parameter": name, "value": at, "density": exact.density(name, at)})
        for name in names
        if exact is not None and name in exact.names
        for at in [_inside(name, ranges[name])]
    ]
    density = pd.concat(densities, ignore_index=True) if densities else pd.DataFrame(columns=["parameter"])
    found, error = matrix(page, names)
    titles = {name: escape(symbol(name)) for name in names}
    units = {name: unit for name in names if (unit := page.unit_of(name))}
    with left:
        theme.title("Parameters two by two")
        keys(page, ("area", "exact marginal") if exact is not None else ("area", "their histogram"))
        picture(
            plots.pairs(table, density, ranges, found, titles, units, page.mode),
            "covariance_pairs",
            "Pair plot: draws below the diagonal, marginal densities on it, correlations above",
        )
        above = (
            "exact"
            if error == 0
            else f"± {error:.3f}, " + ("from the fit's draws" if page.sampled else "from exact draws")
        )
        theme.caption(
            "Each panel below the diagonal shows where two parameters lie together; on the diagonal each "
            f"alone; above it their correlation ({above}), orange negative, violet positive. A slanted "
            "cloud: learning one moves the other. A wedge: their spread depends on it. "
            f"{source_words(page, len(table))}"
        )
        said(pair_words(page, found))
        if note := structure_note(page):
            st.info(note)
        download(page, table, "pairs")


def _inside(name: str, ends: tuple[float, float]) -> np.ndarray:
    """Places for a density; a positive parameter's may have no value at 0 itself."""
    low, high = ends
    return np.linspace(low or (1e-6 * high if name in ("tau", "nu") else low), high, 161)


def pair_words(page: Page, found: pd.DataFrame) -> str:
    """How the selected unit moves with its mean and spread, where the picture has them."""
    if page.pulled is None:
        return ""
    row = found.loc[page.own].to_numpy(dtype=float)
    parts = [
        f"{number(row[place], 2)} with {escape(symbol(name))}"
        for place, name in enumerate(found.columns)
        if name in page.pulled and np.isfinite(row[place])
    ]
    return f"<b>{escape(symbol(page.own))} correlates {' and '.join(parts)}.</b>" if parts else ""


# ----------------------------------------------------------------------------------------------- funnel


def funnel(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Log of a spread against one of the effects that it rules."""
    # Of vectors each component has a mean and a spread of its own.
    if page.vector is None and (why := why_no_funnel(page.live, page.pulled)):
        left.info(why)
        return
    with right:
        page = controls(page)
        names = page.pulled
        assert names is not None
        centre, sign = (escape(symbol(name)) for name in names)
        theme.title("Why centered sampling fails")
        st.html(
            f'<p style="font-size:13px;line-height:19px;margin:0">A sampler that walks in (log {sign}, θ) '
            "takes steps of one size. Steps that suit the wide mouth are too long for the neck, where θ may "
            f"hardly leave {centre}: trajectories break, which is a <b>divergence</b>, and small {sign} goes "
            "unvisited. "
            f"Walking in η = (θ − {centre})/{sign} instead takes the neck away wherever the data say little "
            "about θ.</p>"
        )
    logs = page.vector is not None and page.vector.log
    table = tables.funnel_of(page.draws([*names, page.own]), page.own, names, logs)
    words, called = page.words, escape(symbol(page.own))
    called = f"log {called}" if logs else called
    unit = f", {escape(page.unit_of(page.own))}" if page.unit_of(page.own) and not logs else ""
    grounds = _grounds(id(page.live.exact), page.unit, page)[1]
    axes = {"theta": f"{called}{unit}", "standardised": f"({called} − {centre})/{sign}"}
    with left:
        theme.title(f"The smaller {symbol(names[1])}, the less room for {symbol(page.own)}")
        regions = [("regions", "exact: 50, 80, 95 and 99 %")] if grounds.get("theta") is not None else []
        keys(page, *regions)
        picture(
            funnel_figure(table, grounds, axes, f"{sign}{unit}, log scale", page.mode),
            "covariance_funnel",
            "Funnel: log of the spread against one effect, and against the standardised effect",
        )
        theme.caption(
            f"Left: {sign} on a log scale against one {escape(words.one)}'s {called}, what a centered "
            "sampler walks in. Right: the same draws as η, what a non-centered sampler walks in; where the "
            f"data are strong, it is η that gets a neck, at large {sign}. {source_words(page, len(table))}"
        )
        said(funnel_words(page))
        download(page, table, "funnel")


def funnel_words(page: Page) -> str:
    """How much narrower the funnel is in the neck than in the mouth."""
    posterior = page.live.exact
    if posterior is None or "tau" not in posterior.names:
        return ""
    ends = posterior.quantiles((0.05, 0.95))[posterior.index("tau")]
    try:
        given = posterior.given_tau(ends)
    except NotImplementedError:
        return ""
    place = page.live.spec.structure.units.index(page.unit)
    # given τ, θ − μ = (1 − B)(y − μ) + noise of variance s²(1 − B)
    own, se = 1 - given.pooling[:, place], page.live.spec.structure.se[place]
    apart = np.sqrt(se**2 * own + own**2 * given.mu_sd**2)
    return (
        f"<b>At τ = {number(ends[1], 1)}{unit_words(page)} the distance of {escape(symbol(page.own))} from μ "
        f"has a posterior sd of {number(apart[1], 1)}; at τ = {number(ends[0], 2)}, of "
        f"{number(apart[0], 2)}</b>: the neck is {number(apart[1] / apart[0], 0)} times narrower (the 95 % "
        "and 5 % points of τ)."
    )


@st.cache_resource(max_entries=32, show_spinner=False)
def _grounds(key: int, unit: str, _page: Page) -> tuple[object, dict[str, Any]]:
    exact = _page.live.exact
    if exact is None:
        return None, {}
    return exact, {
        "theta": marginals.funnel_background(exact, unit),
        "standardised": marginals.funnel_background(exact, unit, standardised=True),
    }


# ------------------------------------------------------------------------------------------ correlation


def blocks(page: Page) -> dict[str, list[str]]:
    """Parameters in groups that can be seen together: by their variable, units' own by unit or component."""
    found: dict[str, list[str]] = {}
    for name in page.hyper:
        head, _, rest = name.partition("[")
        found.setdefault(symbol(head) if rest else "Single parameters", []).append(name)
    vector = page.vector
    if vector is None:
        units = [name for unit in shown_units(page, _MOST_UNITS) for name in page.of_unit(unit)]
        if len(units) <= MOST_CELLS:
            found[page.words.many.capitalize()] = units
            return found
        return found | {f"θ {unit}": page.of_unit(unit) for unit in shown_units(page)}
    some = shown_units(page)
    own = [page.unit, *(unit for unit in some if unit != page.unit)]
    if len(vector.components) > 2:
        place = {unit: vector.used[vector.units.index(unit)] for unit in own}
        found |= {
            f"θ {unit}": [name for name, used in zip(page.of_unit(unit), place[unit], strict=True) if used]
            for unit in own
        }
    return found | {
        f"{component}, all {page.words.many}": [vector.member(unit, p) for unit in some]
        for p, component in enumerate(vector.components)
    }


def _listed(page: Page) -> list[str]:
    """Parameters of the matrix: all where they are few, else those of the chosen blocks."""
    known = blocks(page)
    everything = list(dict.fromkeys(name for names in known.values() for name in names))
    if len(everything) <= _MOST_LISTED:
        return everything
    if page.vector is not None:
        first = [next(name for name in known if page.own in known[name])]
    else:
        total = np.cumsum([len(names) for names in known.values()])
        first = list(known)[: max(1, int((total <= _MOST_LISTED).sum()))]
    chosen = theme.kept_choice(
        "Parameters in the matrix",
        list(known),
        first,
        _BLOCKS,
        "covariance_blocks",
        format_func=lambda name: f"{name} ({len(known[name])})",
        help=f"{len(everything):,} in all; at most {MOST_CELLS} are drawn.",
    )
    names = list(dict.fromkeys(name for block in chosen or first for name in known[block]))
    if len(names) <= MOST_CELLS:
        return names
    places = np.unique(np.linspace(0, len(names) - 1, MOST_CELLS).astype(int))
    return [names[place] for place in places]


def _labels(page: Page, names: list[str]) -> dict[str, str]:
    """Words on the axes; parameters of one unit alone go without its name."""
    found = {name: symbol(name).removeprefix("θ ") for name in names}
    vector = page.vector
    if vector is not None and not vector.log:
        for unit in {name.partition("[")[2].partition(",")[0] for name in names}:
            own = (
                dict(zip(page.of_unit(unit), vector.components, strict=True)) if unit in vector.units else {}
            )
            if own and set(names) <= set(own):
                found |= {name: own[name] for name in names}
    return found


def correlation(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """The posterior correlation matrix."""
    many = page.words.many
    with right:
        page = controls(page, component=False)
        names = _listed(page)
    found, error = matrix(page, names)
    labels = _labels(page, names)
    total = len(page.live.spec.structure.units)
    shown = len({unit for unit in shown_units(page, _MOST_UNITS) if set(page.of_unit(unit)) & set(names)})
    with left:
        theme.title("Which parameters move together")
        picture(
            plots.heat_map(found, labels, [page.own], page.mode),
            "covariance_matrix",
            "Posterior correlation matrix",
        )
        how = (
            f"from the fit's draws, ± {error:.3f} at most"
            if page.sampled
            else "exact, integrated over τ"
            if error == 0
            else f"from independent exact draws, ± {error:.3f}"
        )
        some = f" {shown} of {total:,} {escape(many)}, evenly." if 1 < shown < total else ""
        theme.caption(
            "Each cell is the posterior correlation of its row and its column: violet where one rises "
            "with the other, orange where it falls, paper where they do not care. Those without a Greek "
            f"letter belong to {escape(many)}; values {how}.{some}"
        )
        if page.sampled and page.live.exact is not None:
            exact = matrix(replace(page, sampled=False), [n for n in names if n in page.live.exact.names])[0]
            both = found.loc[exact.index, exact.columns].to_numpy(dtype=float) - exact.to_numpy(dtype=float)
            gap = number(float(np.nanmax(np.abs(both), initial=0.0)), 2)
            said(f"<b>The fit's correlations differ from the exact ones by at most {gap}.</b>")
        if note := structure_note(page):
            st.info(note)
        _given_tau(page)
        download(page, found.rename_axis("parameter").reset_index(), "correlation")


def _given_tau(page: Page) -> None:
    """What τ does to the correlation, where it is closed."""
    spec, posterior = page.live.spec, page.live.exact
    if page.pulled is None or not linear(spec) or posterior is None or len(spec.structure.units) < 2:
        return
    typical = spec.structure.typical_se
    u = np.linspace(0, 0.985, 60)
    curve = joint.correlation_given_tau(spec, (typical * u / (1 - u)).tolist())
    at = np.linspace(0.001, 0.999, 240)
    tau = typical * at / (1 - at)
    density = pd.DataFrame({"u": at, "density": posterior.density("tau", tau) * typical / (1 - at) ** 2})
    theme.title("The smaller τ, the more they move together")
    st.html(
        legend(
            [
                ("line", "typical pair", colours(page.mode)["ink"]),
                ("band", "all pairs"),
                ("area", "posterior of τ"),
            ],
            page.mode,
        )
    )
    picture(
        plots.against_tau(curve, density, typical, page.words.unit, page.mode),
        "covariance_tau",
        "Correlation of two effects at each tau, with the posterior density of tau",
    )
    theme.caption(
        "If τ were known: at 0 all effects are one number, the mean, and move as one; as τ grows each holds "
        "on to its own data instead. The shaded density says which τ the data leave possible."
    )
    said(tau_words(page))


def tau_words(page: Page) -> str:
    """Why θ's correlate, with this posterior's figures."""
    spec, posterior = page.live.spec, page.live.exact
    assert posterior is not None
    low, high = posterior.quantiles((0.1, 0.9))[posterior.index("tau")]
    few = joint.correlation_given_tau(spec, [float(low), float(high)])["mean"]
    return (
        "<b>Two effects correlate because both lean on the same unknown mean μ</b>: if μ is higher than "
        f"thought, so are both, each by its <i>B</i>. At τ = {number(low, 1)}{unit_words(page)} the typical "
        f"correlation is {number(few.iloc[0], 2)}, at {number(high, 1)} it is {number(few.iloc[1], 2)}. "
        "Not knowing τ adds to pairs on the same side of the mean, which part from it together, and takes "
        "from pairs on opposite sides."
    )
