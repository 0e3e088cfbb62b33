"""Where the page Covariance takes its draws from, and the controls that all of its sections share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from hbm_core.analysis import covariance as tables
from hbm_core.analysis import joint
from hbm_core.analysis.covariance_prior import vector_of
from hbm_core.errors import StoreError
from hbm_core.models.vector_population import VectorPopulation
from hbm_core.plots.theme import legend
from hbm_core.plots.tokens import Mode
from hbm_core.store.study import Study
from hbm_core.ui import fits, session, theme, vectors
from hbm_core.ui.explore import focus_of
from hbm_core.ui.live import Live, live

_DRAWS = 2000
_SOURCES = ["Fit", "Exact"]


@dataclass(frozen=True, eq=False)
class Page:
    """All that the sections read.

    Parameters
    ----------
    live : Live
        Study, data and exact posterior.
    unit : str
        The selected unit.
    mode : {"light", "dark"}
        Theme.
    tree : xarray.DataTree or None
        The study's fit, once done.
    sampled : bool
        Whether the pictures show the fit's draws rather than independent exact ones.
    problem : str
        Why a fit that is done cannot be read.
    component : int
        Of units that are vectors, the component that pictures of one parameter show.
    """

    live: Live
    unit: str
    mode: Mode
    tree: Any = None
    sampled: bool = False
    problem: str = ""
    component: int = 0

    @property
    def ready(self) -> bool:
        """Whether there are draws or an exact posterior; without them only priors can be shown."""
        return self.live.exact is not None or self.tree is not None

    @property
    def words(self) -> Any:
        """Names and units of the data set."""
        return self.live.dataset.words

    @property
    def vector(self) -> VectorPopulation | None:
        """The population of units that are vectors; None where they are numbers."""
        return vector_of(self.live.spec.structure)

    @property
    def own(self) -> str:
        """The selected unit's parameter."""
        if self.vector is not None:
            return self.vector.member(self.unit, self.component)
        names = self.of_unit(self.unit)
        return names[0] if names else f"theta[{self.unit}]"

    def of_unit(self, unit: str) -> list[str]:
        """Every parameter of one unit."""
        if self.vector is not None:
            return [self.vector.member(unit, p) for p in range(len(self.vector.components))]
        if f"theta[{unit}]" in self.flat or not self.sampled:
            return [f"theta[{unit}]"]
        return [name for name in self.flat if name.startswith(f"theta[{unit},")]

    @property
    def pulled(self) -> tuple[str, str] | None:
        """What the selected unit's parameter is pulled to, and the spread around it."""
        if self.vector is not None:
            return self.vector.means[self.component], self.vector.spreads[self.component]
        found: tuple[str, str] | None = self.live.spec.structure.funnel(self.unit)
        return found

    @property
    def flat(self) -> frozenset[str]:
        """Flat names of all that the fit has; empty without one."""
        return frozenset() if self.tree is None else _flat_names(id(self.tree), self.tree)

    @property
    def hyper(self) -> list[str]:
        """Parameters that are no unit's own and have draws."""
        found = list(self.live.spec.structure.hyperparameters)
        if not self.sampled:
            return [name for name in found if name != "tau_star"]
        return [name for name in found if name in self.flat]

    @property
    def names(self) -> list[str]:
        """Every parameter that has draws: hyperparameters, then the units' own."""
        units = self.live.spec.structure.units
        if len(units) > 500:
            return [*self.hyper, self.own]
        return [*self.hyper, *(name for unit in units for name in self.of_unit(unit))]

    def unit_of(self, name: str) -> str:
        """The unit that a parameter is measured in; empty where it has none."""
        vector, head = self.vector, name.partition("[")[0]
        if vector is not None and not vector.log:
            plain = {text.partition("[")[0] for text in (*vector.means, *vector.spreads, *vector.members)}
            return vector.scale if head in plain else ""
        return "" if head in self.live.spec.structure.unitless else str(self.words.unit)

    def draws(self, names: list[str]) -> pd.DataFrame:
        """Draws for a picture: every divergent one, and at most 2,000 others."""
        if self.sampled:
            return tables.pairs_table(self.tree, names, _DRAWS)
        assert self.live.exact is not None
        return joint.exact_draws_table(self.live.exact, names, _DRAWS, seed=1)


@st.cache_resource(max_entries=8, show_spinner=False)
def _tree(id: str, finished: float) -> Any:
    # `finished` names the run: a fit made anew keeps its id
    return fits.engine().result(id)


@st.cache_resource(max_entries=8, show_spinner=False)
def _names_of(key: int, _tree: Any) -> tuple[Any, frozenset[str]]:
    return _tree, frozenset(tables.flat_names(_tree))


def _flat_names(key: int, tree: Any) -> frozenset[str]:
    # the tree is kept with its names, so that its address stays its name
    return _names_of(key, tree)[1]


def open_page(study: Study) -> Page:
    """Posterior and fit of the study; where there is neither, what to do next is on screen."""
    seen, found = live(study), fits.view(study)
    unit = vectors.unit_of(seen) if vectors.has(seen) else focus_of(seen)
    tree, problem = None, ""
    if found.status.state == "done":
        try:
            job = fits.engine().table.get(found.id)
            tree = _tree(found.id, (job.finished or 0.0) if job else 0.0)
        except StoreError as error:
            problem = str(error)
    page = Page(seen, unit, theme.mode(), tree, tree is not None, problem, _first(seen))
    if not page.ready:
        _empty(study, page, found)
    return page


def _first(seen: Live) -> int:
    """Place of the study's parameter among those of a vector; else of the first that most units use."""
    vector = vector_of(seen.spec.structure)
    if vector is None:
        return 0
    if seen.study.parameter in vector.components:
        return vector.components.index(seen.study.parameter)
    return int(vector.used.sum(axis=0).argmax())


def _empty(study: Study, page: Page, found: fits.FitView) -> None:
    theme.story("No joint posterior to draw yet: choose other priors, or <b>fit</b> the model.")
    if page.live.problem:
        st.info(theme.plain(f"There is no exact answer for this model. {page.live.problem}"))
    if found.status.active:
        st.info(f"{found.headline}. The pictures appear here when it is done.")
    elif found.status.state == "failed":
        st.warning(theme.plain(f"{found.headline}. {found.detail}"))
    if not found.status.active:
        st.button("Fit", key="covariance_fit", on_click=fits.start, args=(study,), type="primary")


# ---------------------------------------------------------------------------------------------- words


def said(text: str) -> None:
    """A sentence under a figure, as HTML."""
    if text:
        st.html(f'<p style="font-size:14px;line-height:20px;margin:0;text-wrap:pretty">{text}</p>')


def source_words(page: Page, shown: int) -> str:
    """Where the draws of a picture come from."""
    if not page.sampled:
        return f"{shown:,} independent draws from the exact posterior."
    total = page.tree["posterior"].sizes
    diverged = int(tables.divergent(page.tree).sum())
    text = f"{diverged:,} diverged" if diverged else "none diverged"
    geometry = page.live.study.parameterization
    return f"{total['chain'] * total['draw']:,} draws of the {geometry} fit, {text}."


def keys(page: Page, *more: tuple[str, str] | tuple[str, str, str]) -> None:
    """The legend of a picture of draws."""
    own = "the fit's draws" if page.sampled else "exact draws"
    entries: list[Any] = [("point", own)]
    if page.sampled and bool(tables.divergent(page.tree).any()):
        entries.append(("cross", "divergence"))
    st.html(legend([*entries, *more], page.mode))


def download(page: Page, table: pd.DataFrame, name: str) -> None:
    """A button that hands out a picture's table."""
    study = page.live.study
    theme.numbers(table, f"{name} {study.dataset[:24]} {study.model}", f"covariance_download_{name}")


# ------------------------------------------------------------------------------------------- controls


def controls(page: Page, component: bool = True) -> Page:
    """Choose the source of the draws, the selected unit and its component; the page with its choice."""
    if page.tree is not None and page.live.exact is not None:
        source = st.segmented_control(
            "Draws", _SOURCES, default="Fit", key="covariance_source", width="stretch"
        )
        page = replace(page, sampled=source != "Exact")
    units = list(page.live.spec.structure.units)
    if 1 < len(units) <= 500:
        st.session_state["covariance_unit"] = page.unit
        st.selectbox(
            f"Selected {page.words.one}",
            units,
            key="covariance_unit",
            on_change=_select,
            help=f"The {page.words.one} is selected on every page.",
        )
    if component and page.vector is not None and len(page.vector.components) > 1:
        _component(page, page.vector.components)
    return page


def _component(page: Page, components: Sequence[str]) -> None:
    st.session_state["covariance_component"] = components[page.component]
    st.selectbox(
        "Its parameter",
        list(components),
        key="covariance_component",
        on_change=_select_component,
        help="The parameter is selected on every page.",
    )


def _select_component() -> None:
    session.change(parameter=st.session_state["covariance_component"])


def _select() -> None:
    session.change(unit=st.session_state["covariance_unit"])


def unit_words(page: Page) -> str:
    """The outcome's unit with a space before it, as HTML; empty without one."""
    return f" {escape(page.words.unit)}" if page.words.unit else ""
