"""Gaussian mixed structures with few spreads: units of groups in several slots, crossed or in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.grouped import GroupedUnits

#: Geometries; "collapsed" integrates the members' deviations out and leaves the rest non-centered.
GAUSSIAN_MIXED_PARAMETERIZATIONS = ("collapsed", "noncentered", "centered")


@dataclass(frozen=True, eq=False)
class GaussianMixed(GroupedUnits):
    """Rows of members in slots: every effect is Gaussian given a handful of spreads.

    y_r ~ Normal(θ_r, s_r) and θ_r = m_{g,t} + u_i for the row of member i, in group g, in slot t, with
    u_i ~ Normal(0, σ_member) the same in all of a member's slots. The means m of groups in slots are

    crossed
        m_{g,t} = μ + a_g + b_t + c_{g,t}: a_g ~ Normal(0, σ_group), b_t ~ Normal(0, σ_slot) shared by all
        groups, c_{g,t} ~ Normal(0, σ_interaction).
    in time (``walk``)
        m_{g,1} = μ + a_g with a_g ~ Normal(0, σ_group), then m_{g,t} ~ Normal(m_{g,t−1}, σ_drift).

    Parameters are named by the words of the levels: with ``levels = ("creator", "genre")`` and the slots
    called ``segment`` they are ``mu``, ``sigma_genre``, ``sigma_segment``, ``sigma_interaction``,
    ``sigma_creator``, ``mu_genre[music × web]`` (m), ``contrast[music × web]`` and ``theta[c1 × web]``; in
    time ``sigma_drift`` stands for the two in the middle and ``change`` for ``contrast``.

    Zero-mean effects that overlap, as a_g, b_t and c_{g,t} do, are told apart by their priors alone. So they
    are no parameters here: their sum m − μ is (``contrast``), and in time m_{g,t} − m_{g,1} (``change``).

    Parameters
    ----------
    effect, se, group, units, groups, levels
        As of `GroupedUnits`: a unit is a row; `levels` are one member and one group in a word each.
    member : ndarray (N,) of int
        i, an index into `members`; no member has two rows in one slot, or is in two groups.
    slot : ndarray (N,) of int
        t, an index into `slots`; in time these are in order.
    members : sequence of str
        Labels of the members, unique.
    slots : tuple of str
        Labels, unique.
    slot_level : str
        One slot in a word.
    walk : bool
        Whether slots follow one another in time.
    """

    member: np.ndarray = field(kw_only=True)
    slot: np.ndarray = field(kw_only=True)
    members: Sequence[str] = field(kw_only=True)
    slots: tuple[str, ...] = field(kw_only=True)
    slot_level: str = field(default="slot", kw_only=True)
    walk: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        member, slot = np.array(self.member, dtype=np.int32), np.array(self.slot, dtype=np.int32)
        if {member.shape, slot.shape} != {self.effect.shape}:
            raise InputError("members and slots", "as long as the effects", (member.shape, slot.shape))
        for name, index, count, every in (
            ("members", member, len(self.members), True),
            ("slots", slot, len(self.slots), False),
        ):
            known = index.min() >= 0 and index.max() < count
            if not known or (every and (np.bincount(index, minlength=count) == 0).any()):
                raise InputError(name, "known ones, each member with a row", "others")
        if np.unique(member.astype(np.int64) * len(self.slots) + slot).size != member.size:
            raise InputError("rows", "one per member and slot", "a member with two rows in one slot")
        group_of = np.empty(len(self.members), dtype=np.int32)
        group_of[member] = self.group
        if (group_of[member] != self.group).any():
            raise InputError("members", "each in one group", "a member in two groups")
        if self.walk and len(self.slots) < 2:
            raise InputError("slots in time", "at least two", len(self.slots))
        for name, value in (("member", member), ("slot", slot)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    # Shape.

    @cached_property
    def group_of(self) -> np.ndarray:
        """Group of each member, ndarray (M,) of int."""
        found = np.empty(len(self.members), dtype=np.int32)
        found[self.member] = self.group
        return found

    def row_of(self, word: str) -> str:
        """A unit is a member in a slot."""
        return f"{word} in a {self.slot_level}"

    def rows_of(self, words: str) -> str:
        """Units are rows: a member has several."""
        return "rows"

    @cached_property
    def member_se(self) -> np.ndarray:
        """Standard error of each member by all its rows, 1/√(Σ 1/s²), ndarray (M,)."""
        found: np.ndarray = np.bincount(self.member, self.se**-2.0) ** -0.5
        return found

    @property
    def typical_se(self) -> float:
        """Median standard error of the members: where a typical one has B = ½ at σ_member = this."""
        return float(np.median(self.member_se))

    @cached_property
    def cell(self) -> np.ndarray:
        """Group and slot of each row as an index into `cells`, ndarray (N,) of int."""
        return self.group * len(self.slots) + self.slot

    @cached_property
    def cells(self) -> tuple[str, ...]:
        """Labels of groups in slots, group by group."""
        return tuple(f"{group} × {slot}" for group in self.groups for slot in self.slots)

    @cached_property
    def contrasts(self) -> tuple[str, ...]:
        """Labels of the contrasts: all cells, or in time those after the first slot."""
        first = 1 if self.walk else 0
        return tuple(f"{group} × {slot}" for group in self.groups for slot in self.slots[first:])

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {label: place for place, label in enumerate(self.units)}

    @cached_property
    def pattern(self) -> np.ndarray:
        """C, ndarray (T, J): what a group's own effects w ~ Normal(0, 1) do in each slot, times their sd.

        The identity where slots are crossed; in time the running sum of innovations, 0 in the first slot.
        """
        count = len(self.slots)
        return np.tri(count, count - 1, -1) if self.walk else np.eye(count)

    # Names.

    @property
    def spread(self) -> str:
        """Name of the sd of the members around their group's mean."""
        return f"sigma_{self.levels[0]}"

    @property
    def group_spread(self) -> str:
        """Name of the sd of the groups."""
        return f"sigma_{self.levels[1]}"

    @property
    def slot_spread(self) -> str | None:
        """Name of the sd of what slots share in all groups; None in time."""
        return None if self.walk else f"sigma_{self.slot_level}"

    @property
    def own_spread(self) -> str:
        """Name of the sd of what a group has of its own in a slot: interactions, or steps in time."""
        return "sigma_drift" if self.walk else "sigma_interaction"

    @property
    def spreads(self) -> tuple[str, ...]:
        """Names of the sds, the members' last."""
        slots = () if self.slot_spread is None else (self.slot_spread,)
        return (self.group_spread, *slots, self.own_spread, self.spread)

    @property
    def group_mean(self) -> str:
        """Name of the means of groups in slots."""
        return f"mu_{self.levels[1]}"

    @property
    def contrast(self) -> str:
        """Name of what is left of them without the mean, or since the first slot."""
        return "change" if self.walk else "contrast"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return ("mu", *self.spreads)

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset(self.spreads)

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not a row's effect, in order."""
        means = (f"{self.group_mean}[{label}]" for label in self.cells)
        return (*self.parameters, *means, *(f"{self.contrast}[{label}]" for label in self.contrasts))

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what a row's effect is pulled to and of the spread around it."""
        return f"{self.group_mean}[{self.cells[self.cell[self.place(unit)]]}]", self.spread

    def place(self, unit: str) -> int:
        """Place of a row by its label; ValueError for a label that no row has."""
        if unit not in self._place_of:
            raise ValueError(f"{unit!r} is not among the names")
        return self._place_of[unit]

    def contrast_of(self, means: np.ndarray, mu: np.ndarray) -> np.ndarray:
        """Contrasts of means of cells.

        Parameters
        ----------
        means : ndarray (…, cells)
            m.
        mu : ndarray (…)
            μ.
        """
        if not self.walk:
            return means - mu[..., None]
        shaped = means.reshape(*means.shape[:-1], len(self.groups), len(self.slots))
        return (shaped[..., 1:] - shaped[..., :1]).reshape(*means.shape[:-1], -1)

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return GAUSSIAN_MIXED_PARAMETERIZATIONS


@dataclass(frozen=True, eq=False)
class ByMember:
    """The rows as a table of members and slots, members in the order of their groups.

    Attributes
    ----------
    order : ndarray (M,) of int
        Members of the rows of the table.
    group : ndarray (M,) of int
        Their groups, ascending.
    weight : ndarray (M, T)
        1/s², 0 where a member was not measured.
    value : ndarray (M, T)
        y/s², y less `location`.
    location : float
        Precision-weighted mean of all y.
    square, log_se : float
        Σ y²/s² and Σ log s² of all rows.
    """

    order: np.ndarray
    group: np.ndarray
    weight: np.ndarray
    value: np.ndarray
    location: float
    square: float
    log_se: float

    @classmethod
    def of(cls, structure: GaussianMixed) -> ByMember:
        """Of a structure's rows."""
        precision = structure.se**-2.0
        location = float(precision @ structure.effect / precision.sum())
        y = structure.effect - location
        weight, value = np.zeros((2, len(structure.members), len(structure.slots)))
        weight[structure.member, structure.slot] = precision
        value[structure.member, structure.slot] = precision * y
        order = np.argsort(structure.group_of, kind="stable")
        return cls(
            order,
            structure.group_of[order],
            weight[order],
            value[order],
            location,
            float(precision @ np.square(y)),
            float(2 * np.log(structure.se).sum()),
        )


def member_moments(
    structure: GaussianMixed, means: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the members' deviations given the means of cells and σ_member.

    Parameters
    ----------
    means : ndarray (n, cells)
        m.
    spread : ndarray (n,)
        σ_member.

    Returns
    -------
    mean, variance : ndarray (n, M)
        In the order of ``structure.members``.
    """
    precision = structure.se**-2.0
    order = np.argsort(structure.member, kind="stable")
    starts = np.searchsorted(structure.member[order], np.arange(len(structure.members)))
    gap = precision * (structure.effect - means[:, structure.cell])
    residual = np.add.reduceat(gap[:, order], starts, axis=1)
    total = np.bincount(structure.member, precision, len(structure.members))
    square = np.square(spread)[:, None]
    variance = square / (1 + square * total)
    return variance * residual, variance


def moment_starts(structure: GaussianMixed) -> dict[str, float]:
    """Rough positive values of μ and the spreads from the data alone: where searches and samplers start."""
    table = ByMember.of(structure)
    precision = structure.se**-2.0
    count = len(structure.cells)
    total = np.maximum(np.bincount(structure.cell, precision, count), 1e-300)
    mean = np.bincount(structure.cell, precision * structure.effect, count) / total
    seen = np.bincount(structure.cell, minlength=count) > 0
    shaped = np.where(seen, mean, np.nan).reshape(len(structure.groups), len(structure.slots))
    residual = structure.effect - mean[structure.cell]
    within = np.bincount(structure.member, precision * residual) / np.bincount(structure.member, precision)
    noise = 1 / np.bincount(structure.member, precision)
    least = 0.2 * float(np.sqrt(np.median(noise)))
    unit = max(float(np.sqrt(max(np.var(within) - np.mean(noise), 0.0))), least)
    cell_noise = float(np.sqrt(np.median(1 / total[seen])))
    among = [shaped[row][np.isfinite(shaped[row])] for row in range(len(shaped))]
    groups = np.array([row.mean() for row in among if row.size])
    spread_of = lambda values: float(np.std(values)) if values.size > 1 else 0.0  # noqa: E731
    steps = np.diff(shaped, axis=1) if structure.walk else shaped - groups[:, None]
    slots = np.array([column[np.isfinite(column)].mean() for column in shaped.T if np.isfinite(column).any()])
    start = {
        "mu": table.location,
        structure.group_spread: max(spread_of(groups), cell_noise),
        structure.own_spread: max(spread_of(steps[np.isfinite(steps)]), 0.5 * cell_noise),
        structure.spread: unit,
    }
    if structure.slot_spread is not None:
        start[structure.slot_spread] = max(spread_of(slots), 0.5 * cell_noise)
    return start
