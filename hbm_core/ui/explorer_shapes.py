"""What the explorer shows of a model, by its structure: who is listed, in which numbers and words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.dataset import Words
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.grouped import GroupedUnits
from hbm_core.models.hurdle import HurdleRevenue
from hbm_core.models.one_parameter import OneParameter
from hbm_core.models.raw_rates import RawRates
from hbm_core.models.structure import ModelSpec
from hbm_core.plots.theme import Digits
from hbm_core.ui import explorer_draws as draws
from hbm_core.ui import explorer_mixed as mixed
from hbm_core.ui import explorer_rates as rates
from hbm_core.ui import explorer_three_level as three_level
from hbm_core.ui.explorer_value import (
    complete_value,
    engine_of,
    finite_list,
    posterior_value,
    why_no_pooling,
    why_no_tau,
)


@dataclass(frozen=True)
class Spread:
    """The spread that the panel under the forest moves.

    Parameters
    ----------
    param, symbol, spoken : str
        Name of the parameter, its sign, and the sign as it is spoken.
    meaning, words : str
        What it is, and its axis title without unit.
    center, together : str
        What units are pulled to, and where they all are when it is zero.
    apart, end : str
        How they are where it is infinite, and that end of its axis in short.
    groups : str
        Several groups in a word.
    unitless : bool
        Whether it does not carry the outcome's unit.
    pooled : str
        What B means, where it is not s²/(s² + τ²) of the unit's own standard error.
    """

    param: str = "tau"
    symbol: str = "τ"
    spoken: str = "tau"
    meaning: str = "spread of the true effects (standard deviation)"
    words: str = "spread of the true effects"
    center: str = "pooled mean"
    together: str = "one value for all"
    apart: str = "each on its own"
    end: str = "no pooling"
    groups: str = "groups"
    unitless: bool = False
    pooled: str = ""


class Shape(ABC):
    """One kind of structure in the explorer."""

    @abstractmethod
    def listed(self, structure: Any, wanted: int | None = None) -> np.ndarray | None:
        """Places of the units that are listed, `wanted` in any case; None: all."""

    @abstractmethod
    def spread(self, structure: Any, words: Words) -> Spread:
        """Words of the spread that the panel moves."""

    @abstractmethod
    def units(
        self, structure: Any, places: np.ndarray | None, truth: np.ndarray | None, said: Digits
    ) -> dict[str, Any]:
        """The listed units, ready for JSON."""

    @abstractmethod
    def posterior(self, posterior: ExactPosterior, places: np.ndarray | None) -> dict[str, Any]:
        """Their posterior, ready for JSON; shared, read-only."""

    def model(self, spec: ModelSpec[Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Where live numbers come from, and why what is missing is missing."""
        return {"engine": "server", "why_no_tau": "", "why_no_pooling": "", "complete": None}


class TwoLevel(Shape):
    """All units; the browser solves the plain model itself."""

    def listed(self, structure: Any, wanted: int | None = None) -> np.ndarray | None:
        """All."""
        return None

    def spread(self, structure: Any, words: Words) -> Spread:
        """Words of τ."""
        return Spread(words=f"spread between {words.many}")

    def units(
        self, structure: Any, places: np.ndarray | None, truth: np.ndarray | None, said: Digits
    ) -> dict[str, Any]:
        """All units, ready for JSON."""
        return {
            "label": list(structure.units),
            "effect": structure.effect.tolist(),
            "se": structure.se.tolist(),
            "group": None,
            "groups": [],
            "truth": None if truth is None else finite_list(truth),
            "digits": said.raw,
            "estimateDigits": said.estimate,
        }

    def posterior(self, posterior: ExactPosterior, places: np.ndarray | None) -> dict[str, Any]:
        """Posterior of all units."""
        return posterior_value(posterior)

    def model(self, spec: ModelSpec[Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Where live numbers come from, and why what is missing is missing."""
        return {
            "engine": engine_of(spec),
            "why_no_tau": why_no_tau(spec, found and found["curves"]),
            "why_no_pooling": why_no_pooling(spec),
            "complete": complete_value(spec),
        }


class ThreeLevel(Shape):
    """Units in groups: those that matter are listed."""

    def listed(self, structure: Any, wanted: int | None = None) -> np.ndarray | None:
        """Those that pooling moves most."""
        return three_level.listed(structure, wanted)

    def spread(self, structure: Any, words: Words) -> Spread:
        """Words of the spread within a group."""
        group = structure.levels[1]
        return Spread(
            param=structure.spread,
            symbol="σ",
            spoken="sigma",
            meaning=f"spread of the true effects of the {words.many} of one {group} (standard deviation)",
            words=f"spread within a {group}",
            center=f"mean of its {group}",
            together=f"one value for all of a {group}",
            groups=f"{group}s",
        )

    def units(
        self, structure: Any, places: np.ndarray | None, truth: np.ndarray | None, said: Digits
    ) -> dict[str, Any]:
        """The listed units, ready for JSON."""
        shown = np.arange(len(structure.units)) if places is None else places
        return three_level.units_value(structure, shown, truth, said.raw, said.estimate)

    def posterior(self, posterior: Any, places: np.ndarray | None) -> dict[str, Any]:
        """Posterior of the listed units and of the groups' means."""
        shown = np.arange(len(posterior.spec.structure.units)) if places is None else places
        return three_level.posterior_value(posterior, shown)


class Rates(Shape):
    """Entities with rates: those that matter are listed."""

    def listed(self, structure: Any, wanted: int | None = None) -> np.ndarray | None:
        """Those that pooling moves most."""
        return rates.listed(structure, wanted)

    def spread(self, structure: Any, words: Words) -> Spread:
        """Words of the rates' relative spread."""
        return Spread(**rates.spread_words(structure, words.one, words.many))

    def units(
        self, structure: Any, places: np.ndarray | None, truth: np.ndarray | None, said: Digits
    ) -> dict[str, Any]:
        """The listed entities, ready for JSON."""
        shown = rates.listed(structure) if places is None else places
        return rates.units_value(structure, shown, truth, said.raw, said.estimate)

    def posterior(self, posterior: ExactPosterior, places: np.ndarray | None) -> dict[str, Any]:
        """Posterior of the listed entities, also along the spread."""
        structure: Any = posterior.spec.structure
        shown = rates.listed(structure) if places is None else places
        return rates.posterior_value(posterior, shown)

    def model(self, spec: ModelSpec[Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Nothing is missing where the posterior given the spread is known."""
        missing = found is not None and found["curves"] is None
        why = "Given the spread, these rates have no closed form under this model." if missing else ""
        return {**super().model(spec, found), "why_no_tau": why}


class Drawn(ThreeLevel):
    """Units in groups whose posterior comes from a fit: there is no spread to drag."""

    def spread(self, structure: Any, words: Words) -> Spread:
        """No single spread."""
        group = structure.levels[1]
        return Spread(param="", words=f"spread within a {group}", groups=f"{group}s")

    def posterior(self, posterior: Any, places: np.ndarray | None) -> dict[str, Any]:
        """Weighted draws of the listed units."""
        shown = np.arange(len(posterior.spec.structure.units)) if places is None else places
        return draws.posterior_value(posterior, shown)

    def model(self, spec: ModelSpec[Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Why nothing can be dragged, and why a unit has no pooling factor."""
        return {
            **super().model(spec, found),
            "why_no_tau": draws.NO_DIAL,
            "why_no_pooling": "no single B",
        }


class Mixed(ThreeLevel):
    """Rows of members in slots: those that matter are listed, their groups averaged over the slots."""

    def spread(self, structure: Any, words: Words) -> Spread:
        """Words of the spread of the members around their group's mean in a slot."""
        group, slot = structure.levels[1], structure.slot_level
        return Spread(
            param=structure.spread,
            symbol="σ",
            spoken="sigma",
            meaning=f"spread of the {words.many} of one {group}, kept in every {slot} (standard deviation)",
            words=f"spread within a {group}",
            center=f"mean of its {group} (over {slot}s)",
            together=f"one value for all of a {group} in a {slot}",
            apart=f"each {words.one} by all its {slot}s",
            end=f"{words.many} apart",
            groups=f"{group}s",
            pooled=f"s²/(s² + σ²), s the standard error of all rows of a {structure.levels[0]}: 0 keeps its "
            f"deviation from its {group}, 1 moves its rows onto the {group}'s means",
        )

    def posterior(self, posterior: Any, places: np.ndarray | None) -> dict[str, Any]:
        """Posterior of the listed rows."""
        shown = np.arange(len(posterior.spec.structure.units)) if places is None else places
        return mixed.posterior_value(posterior, shown)


class Parameter(TwoLevel):
    """One parameter of units that are vectors, whose posterior comes from a fit."""

    def spread(self, structure: Any, words: Words) -> Spread:
        """No spread that could be dragged."""
        return Spread(param="", words=f"spread between {words.many}", unitless=True)

    def posterior(self, posterior: Any, places: np.ndarray | None) -> dict[str, Any]:
        """Weighted draws of all units."""
        return draws.posterior_value(posterior, np.arange(len(posterior.spec.structure.units)))

    def model(self, spec: ModelSpec[Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Why nothing can be dragged."""
        return {
            "engine": "server",
            "why_no_tau": draws.NO_DIAL,
            "why_no_pooling": "",
            "complete": None,
        }


class Vectors(TwoLevel):
    """Units that are vectors, all of them: pages look along one parameter."""

    def listed(self, structure: Any, wanted: int | None = None) -> np.ndarray | None:
        """All."""
        return np.arange(len(structure.units))


_SHAPES: tuple[tuple[type, Shape], ...] = (
    (OneParameter, Parameter()),
    (CircuitPopulation, Vectors()),
    (GaussianMixed, Mixed()),
    (HurdleRevenue, Drawn()),
    (GroupedUnits, ThreeLevel()),
    (RawRates, Rates()),
    (object, TwoLevel()),
)


def shape_of(structure: Any) -> Shape:
    """How the explorer shows a structure."""
    return next(shape for kind, shape in _SHAPES if isinstance(structure, kind))
