"""Sections of the page Covariance for units that are vectors: Σ, its ellipses, its prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from hbm_core.analysis import covariance_population as tables
from hbm_core.analysis import covariance_shrinkage as shrinkage
from hbm_core.analysis.covariance_prior import joint_table, law_of, prior_of
from hbm_core.errors import FitError, InputError
from hbm_core.models.vector_population import InverseWishartLaw, VectorPopulation
from hbm_core.plots import covariance_population as plots
from hbm_core.plots.theme import MINUS, legend, number
from hbm_core.plots.tokens import colours
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.ui import theme
from hbm_core.ui.covariance_pairs import shown_units
from hbm_core.ui.covariance_source import Page, controls, download, said
from hbm_core.ui.coverage_page import picture

#: Components that the matrix draws unless asked otherwise; rows of priors and posteriors; units with arrows.
_MOST_COMPONENTS, _ROWS, _MOST_UNITS = 16, (8, 16, 40), 60
_PAIR, _MATRIX = "covariance_pair_kept", "covariance_components_kept"


@dataclass(frozen=True, eq=False)
class Population:
    """Tables of one fit's population, made once.

    Parameters
    ----------
    draws : PopulationDraws
        Of the fit.
    departures : DataFrame
        How far each sd and correlation left its prior.
    """

    draws: tables.PopulationDraws
    departures: pd.DataFrame


@st.cache_resource(max_entries=8, show_spinner=False)
def _population(key: tuple[int, str], _page: Page) -> tuple[Any, Population]:
    # the tree is kept with its tables, so that its address stays its name
    vector = _vector(_page)
    draws = tables.read_population(_page.tree, vector)
    return _page.tree, Population(draws, tables.departure_table(_page.tree, vector, law_of(_page.live.spec)))


def population(page: Page) -> Population:
    """The tables of the page's fit."""
    return _population((id(page.tree), law_of(page.live.spec).text), page)[1]


@st.cache_resource(max_entries=32, show_spinner=False)
def _kept(name: str, key: tuple[Any, ...], _page: Page, _make: Callable[[], Any]) -> tuple[Any, Any]:
    return _page.tree, _make()


def kept(page: Page, name: str, make: Callable[[], Any], *key: Any) -> Any:
    """A table of the page's fit, made once."""
    return _kept(name, (id(page.tree), *key), page, make)[1]


def _vector(page: Page) -> VectorPopulation:
    vector = page.vector
    assert vector is not None
    return vector


def prior_words(page: Page) -> str:
    """How much of Ω is prior, in a sentence; empty without correlations."""
    share = tables.prior_share(population(page).departures)
    if share is None or not np.isfinite(share.prior_sd):
        return ""
    size = len(_vector(page).components)
    if share.kept > 0.8:
        verdict = "Ω is mostly prior"
    elif share.kept > 0.4:
        verdict = "Ω is made of data and prior"
    else:
        verdict = "Ω comes from the data"
    prior = f"With {size} parameters the prior gives each correlation an sd of {number(share.prior_sd, 2)}"
    width = f"{number(share.posterior_sd, 2)}"
    part = f"{100 * share.kept:.0f} % of it"
    if share.pairs == 1:
        moved = "It moved" if share.left else "It did not move"
        sign = "its sign is 95 % sure" if share.one_sided else "its sign is not sure"
        return (
            f"<b>{verdict}.</b> {prior}; the posterior's is {width}, {part}. {moved} by more than a tenth of "
            f"its probability, and {sign}."
        )
    moved = "none" if share.left == 0 else f"{share.left} of {share.pairs}"
    sure = "has a sign that is" if share.one_sided == 1 else "have a sign that is"
    return (
        f"<b>{verdict}.</b> {prior}; the {share.pairs} posteriors have {width} on average, {part}. Of them "
        f"{moved} moved by more than a tenth of their probability, and {share.one_sided} {sure} 95 % sure."
    )


# ------------------------------------------------------------------------------------------ population


def _components(page: Page) -> list[str]:
    """Choose what the matrix draws, where that is many."""
    every = list(_vector(page).components)
    if len(every) <= 2:
        return every
    start = every[:_MOST_COMPONENTS]
    chosen = theme.kept_choice(
        "Parameters in the matrix",
        every,
        start,
        _MATRIX,
        "covariance_components",
        help=f"{len(every)} in all. Fewer are easier to read.",
    )
    return [name for name in every if name in (chosen or start)]


def sds_and_correlations(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """The population's sds and correlations, and how far they left their priors."""
    with right:
        chosen = _components(page)
        rows: int | None = None
        if len(_vector(page).correlations) > _ROWS[0]:
            rows = st.segmented_control("Rows below", _ROWS, default=_ROWS[0], key="covariance_rows")
    vector, found = _vector(page), population(page).departures
    table = kept(page, "matrix", lambda: tables.matrix_table(page.tree, vector))
    table = table[table["row"].isin(chosen) & table["column"].isin(chosen)]
    spreads = table[table["kind"] == "sd"]
    scale = f", {escape(vector.scale)}" if vector.scale else ""
    tail = f" {escape(vector.scale)}" if vector.scale else ""
    with left:
        theme.title(f"How {page.words.many} differ, and what differs together")
        st.html(
            legend(
                [
                    ("line", "90 % interval on an axis from −1 to 1", colours(page.mode)["ink"]),
                    ("prior", "framed: the sign is 95 % sure"),
                ],
                page.mode,
            )
        )
        picture(
            plots.matrix(table, page.mode),
            "covariance_population",
            "Matrix: sds of the population on the diagonal, correlations with intervals below it",
        )
        worst = float(table["mcse"].max())
        theme.caption(
            f"On the diagonal the sd of each parameter between {escape(page.words.many)}{scale}; below it "
            "the correlations of two: the cell's colour is the posterior mean (orange negative, violet "
            "positive), its line the 90 % interval, the tick in its middle 0. A pale cell with a line from "
            f"end to end says that nothing is known. Means are known to ± {number(worst, 3)} (Monte Carlo) "
            "or better."
        )
        widest = spreads.loc[spreads["mean"].idxmax()]
        narrowest = spreads.loc[spreads["mean"].idxmin()]
        if len(spreads) > 1:
            said(
                f"<b>{escape(widest['row'])} differs most, by {number(widest['mean'], 2)}{tail}, "
                f"{escape(narrowest['row'])} least, by {number(narrowest['mean'], 2)}.</b>"
            )
        download(page, table, "population")
        for kind, title, axis in (
            ("correlation", "Correlations: prior against posterior", "correlation"),
            ("sd", "Sds: prior against posterior", f"sd{scale}, log scale"),
        ):
            own = found[found["kind"] == kind].head(rows or _ROWS[0])
            if len(own):
                _departures(page, own, title, axis, kind)
        download(page, found, "departures")


def _departures(page: Page, own: pd.DataFrame, title: str, axis: str, kind: str) -> None:
    vector, total = _vector(page), int((population(page).departures["kind"] == kind).sum())
    names = own["parameter"].tolist()
    density = kept(
        page,
        "density",
        lambda: tables.density_table(page.tree, vector, law_of(page.live.spec), names),
        *names,
    )
    theme.title(title)
    if kind == "correlation":
        said(prior_words(page))
    c = colours(page.mode)
    st.html(legend([("line", "prior", c["ink-2"]), ("area", "posterior")], page.mode))
    labels = {
        row.parameter: row.row if kind == "sd" else f"{row.column} and {row.row}"
        for row in plots.records(own)
    }
    picture(
        plots.departures(density, own, labels, axis, page.mode),
        f"covariance_departures_{kind}",
        f"Prior and posterior of {'sds' if kind == 'sd' else 'correlations'}, the farthest apart first",
    )
    some = f" The first {len(own)} of {total}." if len(own) < total else ""
    theme.caption(
        "Outline: the prior of this one parameter, in closed form; filled: its draws, so many percent as "
        "wide as the prior. The gap is the largest difference of their distribution functions; the largest "
        "stands first. By chance alone so many draws "
        f"show up to {number(float(own['noise'].max()), 2)}.{some}"
    )


# ------------------------------------------------------------------------------------------- ellipses


def _default_pair(page: Page) -> tuple[str, str]:
    found = population(page).departures
    rows = found[found["kind"] == "correlation"]
    components = _vector(page).components
    if rows.empty:
        return components[0], components[1]
    first = rows.iloc[0]
    return str(first["column"]), str(first["row"])


def _pair(page: Page) -> tuple[int, int]:
    """Choose two components; at first those whose correlation left its prior most."""
    components = list(_vector(page).components)
    kept_pair = st.session_state.get(_PAIR)
    if not kept_pair or any(name not in components for name in kept_pair):
        kept_pair = _default_pair(page)

    def changed() -> None:
        across, up = st.session_state["covariance_across"], st.session_state["covariance_up"]
        st.session_state[_PAIR] = (across, up)

    across = kept_pair[0]
    st.session_state["covariance_across"] = across
    across = st.selectbox("Across", components, key="covariance_across", on_change=changed)
    rest = [name for name in components if name != across]
    st.session_state["covariance_up"] = kept_pair[1] if kept_pair[1] in rest else rest[0]
    up = st.selectbox("Up", rest, key="covariance_up", on_change=changed)
    return components.index(across), components.index(up)


def ellipses(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """The population in two parameters, its units, and how pooling moved them."""
    vector, draws = _vector(page), population(page).draws
    if len(vector.components) < 2:
        left.info("An ellipse needs two parameters that differ between units; here there is one.")
        return
    with right:
        page = controls(page, component=False)
        pair = _pair(page)
    outlines = tables.ellipse_table(draws, pair)
    estimates, origin = estimates_of(page)
    at = {vector.components[pair[0]]: "x", vector.components[pair[1]]: "y"}
    own = estimates[estimates["component"].isin(at)].assign(axis=estimates["component"].map(at))
    wide = own.pivot(index="unit", columns="axis", values=["independent", "pooled", "error"]).dropna()
    names = ["_".join(column) for column in wide.columns.to_flat_index()]
    points = wide.set_axis(names, axis=1).reset_index()
    scale = f", {vector.scale}" if vector.scale else ""
    titles = [vector.components[p] for p in pair]
    r = draws.correlation[:, pair[0], pair[1]]
    low, high = np.quantile(r, (0.05, 0.95))
    with left:
        theme.title(f"{titles[0]} and {titles[1]}: the population and its {page.words.many}")
        c = colours(page.mode)
        st.html(
            legend(
                [
                    ("raw point", "from its own data alone"),
                    ("point", "pooled"),
                    ("arrow", "what pooling moves"),
                    ("line", "50 and 90 % of the population", c["ink"]),
                    ("thin", "90 % in single draws"),
                ],
                page.mode,
            )
        )
        picture(
            plots.ellipses(
                outlines, points, (f"{titles[0]}{scale}", f"{titles[1]}{scale}"), page.unit, page.mode
            ),
            "covariance_ellipses",
            "Ellipses of the population in two parameters, with units and arrows to their pooled estimates",
        )
        missing = len(shown_units(page, _MOST_UNITS)) - len(points)
        absent = (
            f" {missing} of the {escape(page.words.many)} use only one of the two and are not drawn."
            if missing
            else ""
        )
        theme.caption(
            "Ellipses hold half and 90 % of the population at the posterior means of α, σ and Ω; grey ones "
            "are the 90 % of single draws: their scatter is what is not known of Σ. An arrow goes from "
            "where a unit's own data and the prior on α put it to where pooling puts it. The former are "
            f"{origin}.{absent}"
        )
        said(
            f"<b>Correlation {number(float(r.mean()), 2)}, 90 % from {number(low, 2)} to "
            f"{number(high, 2)}.</b> " + _moved_words(page, points)
        )
        download(page, points, "ellipses")


def estimates_of(page: Page) -> tuple[pd.DataFrame, str]:
    """Independent and pooled estimates of the shown units, and where the independent ones are from."""
    vector, draws = _vector(page), population(page).draws
    places = [list(vector.units).index(unit) for unit in shown_units(page, _MOST_UNITS)]
    scenario, live = find_scenario(page.live.study.scenario), page.live
    try:
        alone = scenario.alone(live.dataset, live.spec.structure)[0][places]
    except (InputError, FitError):
        table = kept(page, "estimates", lambda: _from_draws(page, places), page.unit)
        return table, (
            "computed from the draws (normal likelihood; Monte Carlo error up to "
            f"{number(float(table['error'].max()), 3)})"
        )
    table = shrinkage.estimate_table(draws, alone, np.zeros(alone.shape), places)
    return table, f"fits of each {escape(page.words.one)} by itself"


def _from_draws(page: Page, places: list[int]) -> pd.DataFrame:
    priors = [prior_of(page.live.spec, name) for name in _vector(page).means]
    # A flat prior on α leaves a unit's estimate to its data alone.
    mean = np.array([0.0 if prior is None else float(prior.ppf(0.5)) for prior in priors])
    variance = np.array([np.inf if prior is None else float(prior.std()) ** 2 for prior in priors])
    draws = population(page).draws
    return shrinkage.estimate_table(draws, *shrinkage.own_estimates(draws, mean, variance, places), places)


def _moved_words(page: Page, points: pd.DataFrame) -> str:
    row = points[points["unit"] == page.unit]
    if row.empty:
        return ""
    first = row.iloc[0]
    return (
        f"{escape(str(page.unit))} alone would be at ({number(first['independent_x'], 2)}, "
        f"{number(first['independent_y'], 2)}); pooling puts it at ({number(first['pooled_x'], 2)}, "
        f"{number(first['pooled_y'], 2)})."
    )


# ---------------------------------------------------------------------------------------------- prior


def prior_shape(page: Page, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """What the prior on Σ says of scale and correlation together, beside the other kind of prior."""
    vector, law = _vector(page), law_of(page.live.spec)
    size = len(vector.components)
    if law.correlation() is None or law.spread(0) is None:
        left.info(
            "This model's prior has no correlations, or its prior on the sds is flat: nothing to compare."
        )
        return
    with right:
        nu = st.number_input(
            "Inverse Wishart: degrees of freedom ν",
            min_value=float(size),
            max_value=float(size + 200),
            value=float(law.nu if isinstance(law, InverseWishartLaw) else size + 1),
            step=1.0,
            key="covariance_nu",
            help="P + 1 gives each correlation a uniform prior.",
        )
        middle = float(law.spread(0).ppf(0.5))
        # its own ψ, or one that gives an sd the same median
        plain = InverseWishartLaw(float(nu), 1.0, size)
        psi = (middle / float(plain.spread(0).ppf(0.5))) ** 2
        theme.title("Why not an inverse Wishart")
        st.html(
            '<p style="font-size:13px;line-height:19px;margin:0">One number ν rules all sds and '
            "all correlations. Given a large correlation the sds are larger too, small sds go with "
            "correlations near 0, and values near 0 are all but excluded for every sd. LKJ with priors of "
            "their own on the sds ties nothing.</p>"
        )
    other = InverseWishartLaw(float(nu), psi, size)
    pairs = [(law.short, law), (other.short, other)]
    if isinstance(law, InverseWishartLaw) and law.nu == float(nu):
        pairs = pairs[:1]
    given = law.text.replace("-", MINUS)
    shown = [(name, *joint_table(one)) for name, one in pairs]
    with left:
        theme.title("What the prior says of scale and correlation together")
        c = colours(page.mode)
        st.html(
            legend(
                [("regions", "10 to 90 % of the prior"), ("line", "median sd at a correlation", c["ink"]),
                 ("dots", "90 % of sds", c["ink"])],
                page.mode,
            )
        )  # fmt: skip
        picture(
            plots.prior_shapes(shown, vector.scale, page.mode),
            "covariance_prior",
            "Prior of an sd on a log scale against the size of one of its correlations, for two priors on Σ",
        )
        theme.caption(
            f"One sd of {size} and the size of one of its correlations, in closed form: {escape(given)} and "
            f"{escape(other.text)}, whose scale gives an sd the same median. Where the line is flat, knowing "
            "the correlation says nothing about the sd."
        )
        ends = [one.spread_given(0, r).ppf(0.5) for r in (0.0, 0.9) for _, one in pairs[-1:]]
        said(
            f"<b>Under the inverse Wishart the median sd is {number(float(ends[1] / ends[0]), 1)} times "
            "larger at a correlation of 0.9 than at 0</b>; an sd below a third of its median has a prior "
            f"probability of {_small(float(other.spread(0).cdf(middle / 3)))}, under {escape(law.short)} "
            f"{_small(float(law.spread(0).cdf(middle / 3)))}."
        )
        table = pd.concat([density.assign(prior=name) for name, density, _ in shown], ignore_index=True)
        download(page, table, "prior")


def _small(value: float) -> str:
    return f"{100 * value:.2g} %" if value >= 1e-4 else "less than 0.01 %"


def own_words(page: Page) -> str:
    """Words of a page about vectors: its first sentence."""
    vector, accent = _vector(page), colours(page.mode)["accent"]
    share = tables.prior_share(population(page).departures)
    count = len(vector.components)
    many, one = escape(page.words.many), escape(page.words.one)
    if share is None:
        return (
            f"Each {one} has {count} parameters, drawn from one population; they differ by an sd of its own "
            "in each, and independently."
        )
    first = f"The {many} have {count} parameters each, drawn from one population"
    kept_width = f"<b>{100 * min(share.kept, 1.0):.0f} %</b> of the prior's width is still there"
    if share.pairs == 1:
        mean = number(float(population(page).draws.correlation[:, 1, 0].mean()), 2)
        return f'{first} with a correlation of <b style="color:{accent}">{mean}</b>; {kept_width}.'
    left = "no" if share.left == 0 else f"<b>{share.left}</b>"
    return (
        f'{first}: of its {share.pairs} correlations <b style="color:{accent}">{left}</b> left their prior, '
        f"and on average {kept_width}."
    )
