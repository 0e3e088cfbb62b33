"""Units in groups, each with an estimate of its own: what structures of several levels share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from hbm_core.errors import InputError


@dataclass(frozen=True, eq=False)
class GroupedUnits:
    """Units in groups with a raw estimate and its standard error each.

    Parameters
    ----------
    effect : ndarray (N,)
        y, the raw estimate, in the outcome's units.
    se : ndarray (N,)
        s, its standard error in the outcome's units, positive.
    group : ndarray (N,) of int
        g, an index into `groups`; every group has at least one unit.
    units : sequence of str
        Labels, unique.
    groups : tuple of str
        Labels, unique.
    levels : tuple of str
        One unit and one group in a word each.
    """

    #: Name of the field that holds what is measured.
    measured: ClassVar[str] = "effect"

    effect: np.ndarray
    se: np.ndarray
    group: np.ndarray
    units: Sequence[str]
    groups: tuple[str, ...]
    levels: tuple[str, str] = ("unit", "group")

    def __post_init__(self) -> None:
        # Copies: they are frozen below, and the caller's arrays are not ours to freeze.
        effect, se = np.array(self.effect, dtype=float), np.array(self.se, dtype=float)
        group = np.array(self.group, dtype=np.int32)
        if effect.ndim != 1 or effect.size == 0 or se.shape != effect.shape or group.shape != effect.shape:
            raise InputError(
                "effects, standard errors and groups",
                "three equally long columns",
                (effect.shape, se.shape, group.shape),
            )
        if len(self.units) != effect.size:
            raise InputError("unit labels", f"{effect.size}, one per effect", len(self.units))
        if not (np.isfinite(effect).all() and np.isfinite(se).all() and (se > 0).all()):
            raise InputError("effects and standard errors", "finite effects and positive finite se", "others")
        known = group.min() >= 0 and group.max() < len(self.groups)
        if not known or (np.bincount(group, minlength=len(self.groups)) == 0).any():
            raise InputError("groups", "at least one unit in each of the groups", "others")
        for name, value in (("effect", effect), ("se", se), ("group", group)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit: none."""
        return ()

    @cached_property
    def typical_se(self) -> float:
        """Median standard error: where a typical unit has B = ½ at σ_unit = this."""
        return float(np.median(self.se))

    def row_of(self, word: str) -> str:
        """What one unit is, said with the word for who is measured."""
        return word

    def rows_of(self, words: str) -> str:
        """What all units are, said with the word for those who are measured."""
        return words

    def place(self, unit: str) -> int:
        """Place of a unit by its label; ValueError for a label that no unit has."""
        return self.units.index(unit)

    def places(self, units: Iterable[str]) -> np.ndarray:
        """Places of some units by their labels, ndarray (M,); ValueError as of `place`."""
        return np.array([self.place(unit) for unit in units], dtype=int)
