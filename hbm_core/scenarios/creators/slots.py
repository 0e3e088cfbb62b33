"""Simulated creators in several segments, or over several periods, with their truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbm_core.errors import InputError
from hbm_core.scenarios.base import Knob

KNOBS = (
    Knob("segments", "Segments of every creator (1: none)", 1, 1, 100, 1, integer=True),
    Knob("sigma_segment", "Spread of what segments add in all genres", 0.2, 0, 1000, 0.1),
    Knob("sigma_interaction", "Spread of what a genre adds in a segment", 0.15, 0, 1000, 0.1),
    Knob("periods", "Periods of every creator (1: none)", 1, 1, 500, 1, integer=True),
    Knob("sigma_drift", "Spread of a genre's steps from period to period", 0.1, 0, 1000, 0.05),
)
_SEGMENTS = ("desktop", "phone", "tablet", "tv")
#: Rows beyond which nothing is simulated.
_MOST = 2_000_000


@dataclass(frozen=True, eq=False)
class Slots:
    """What every creator is measured in, and what that does to it.

    Parameters
    ----------
    column : str
        ``segment`` or ``period``.
    labels : tuple of str
        In order.
    spreads : dict of str to float
        True spreads by their names.
    mean : ndarray (G, T)
        True mean effect of each genre in each.
    contrast : ndarray (G, T)
        What is added to μ; in time what was added since the first period.
    """

    column: str
    labels: tuple[str, ...]
    spreads: Mapping[str, float]
    mean: np.ndarray
    contrast: np.ndarray

    @property
    def walk(self) -> bool:
        """Whether they follow one another in time."""
        return self.column == "period"


def make_slots(rng: np.random.Generator, knobs: Mapping[str, Any], mu_genre: np.ndarray) -> Slots | None:
    """What the knobs ask for; None where there is one segment and one period.

    Raises
    ------
    InputError
        Segments and periods at once.
    """
    segments, periods = knobs["segments"], knobs["periods"]
    if segments > 1 and periods > 1:
        raise InputError(
            "simulator knobs segments and periods", "one of them above 1", f"{segments} and {periods}"
        )
    count = max(segments, periods)
    if count == 1:
        return None
    if count * knobs["genres"] * knobs["creators_per_genre"] > _MOST:
        rows = count * knobs["genres"] * knobs["creators_per_genre"]
        raise InputError("number of simulated rows", f"at most {_MOST:,} with segments or periods", rows)
    width = len(str(count))
    if periods > 1:
        labels = tuple(f"w{k + 1:0{width}d}" for k in range(count))
        steps = knobs["sigma_drift"] * rng.standard_normal((mu_genre.size, count - 1))
        change = np.hstack([np.zeros((mu_genre.size, 1)), np.cumsum(steps, axis=1)])
        spreads = {"sigma_drift": float(knobs["sigma_drift"])}
        return Slots("period", labels, spreads, mu_genre[:, None] + change, change)
    labels = _SEGMENTS if count == len(_SEGMENTS) else tuple(f"s{k + 1:0{width}d}" for k in range(count))
    shared = knobs["sigma_segment"] * rng.standard_normal(count)
    own = knobs["sigma_interaction"] * rng.standard_normal((mu_genre.size, count))
    mean = mu_genre[:, None] + shared + own
    spreads = {name: float(knobs[name]) for name in ("sigma_segment", "sigma_interaction")}
    return Slots("segment", labels, spreads, mean, mean - knobs["mu"])


class SlotTruth(Mapping[str, float]):
    """True values of rows of creators in slots, and of creators over all of them.

    Listed are the names that `crossed` or `drift` use. The models of whole creators find theirs, too:
    ``theta[c1]`` and ``mu_genre[music]`` are means over the slots.

    Parameters
    ----------
    plain : Truth
        Of the creators at the mean of their slots.
    slots : Slots
        What they were measured in.
    """

    def __init__(self, plain: Any, slots: Slots, group: np.ndarray) -> None:
        self.plain, self.slots = plain, slots
        deviation = plain.theta - slots.mean.mean(axis=1)[group]
        self.rows = slots.mean[group] + deviation[:, None]

    @property
    def theta(self) -> np.ndarray:
        """Effect of each creator, ndarray (N,)."""
        return self.plain.theta

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "plain":
            raise AttributeError(name)
        return getattr(self.plain, name)

    def __getitem__(self, name: str) -> float:
        if name in self.slots.spreads:
            return float(self.slots.spreads[name])
        kind, _, label = name.removesuffix("]").partition("[")
        owner, found, slot = label.rpartition(" × ")
        if not found:
            return self.plain[name]
        try:
            place = self.slots.labels.index(slot)
            if kind == "theta":
                return float(self.rows[self.plain.creators.index(owner), place])
            genre = self.plain.genres.index(owner)
        except ValueError:
            raise KeyError(name) from None
        if kind == "mu_genre":
            return float(self.slots.mean[genre, place])
        if kind == ("change" if self.slots.walk else "contrast") and not (self.slots.walk and place == 0):
            return float(self.slots.contrast[genre, place])
        raise KeyError(name)

    def _values(self) -> Iterator[tuple[str, float]]:
        slots, plain = self.slots, self.plain
        yield from ((name, float(getattr(plain, name))) for name in ("mu", "sigma_genre"))
        yield from slots.spreads.items()
        yield "sigma_creator", float(plain.sigma_creator)
        first = 1 if slots.walk else 0
        parts = (
            ("mu_genre", plain.genres, slots.mean, 0),
            ("change" if slots.walk else "contrast", plain.genres, slots.contrast, first),
            ("theta", plain.creators, self.rows, 0),
        )
        for word, owners, values, start in parts:
            for owner, row in zip(owners, values, strict=True):
                for place in range(start, len(slots.labels)):
                    yield f"{word}[{owner} × {slots.labels[place]}]", float(row[place])

    def __iter__(self) -> Iterator[str]:
        yield from (name for name, _ in self._values())

    def __len__(self) -> int:
        slots = self.slots
        contrasts = slots.contrast[:, 1:] if slots.walk else slots.contrast
        return 3 + len(slots.spreads) + slots.mean.size + contrasts.size + self.rows.size

    def items(self) -> Any:
        """Names and values, in order and without a search for each."""
        return dict(self._values()).items()
