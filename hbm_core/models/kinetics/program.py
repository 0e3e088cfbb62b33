"""A mechanism under conditions and times, as the tables of numbers that the solver runs on.

Species are sorted into blocks that depend on earlier blocks alone (strongly connected parts of who depends
on whom), so that a step solves many small systems instead of one large one. Two kinds need no solving: a pool
(constant production, first-order decay) is known in closed form, and what no rate depends on is an integral.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from hbm_core.errors import InputError
from hbm_core.models.kinetics.mechanism import Form, Mechanism, Rate

NONLINEAR, LINEAR, POOL, INTEGRAL = range(4)
#: Lengths in the tables: the head, the row of a block, the row of an equation, the head of a record's rows.
HEADER, BLOCK, EQUATION, ROW = 15, 6, 11, 4
#: Conditions that are solved side by side.
WIDTH = 4
#: Steps that a record has room for, as a multiple of those planned: one that cannot be solved is cut.
_SPARE = 3
#: Of thinned experiments: a reading is kept that is at most so many times as late as the one kept before, and
#: each of the others is told by so many of those kept.
_APART, _AROUND = 5 / 3, 4


@dataclass(frozen=True)
class Steps:
    """How long the solver's steps are.

    Parameters
    ----------
    longest : float
        No step is longer than this share of the whole time.
    growth : float
        Nor longer than this multiple of the time at which it starts.
    first : tuple of float
        Ends of the steps within the first step, as shares of it: everything may move at once at the start.
    refine : int
        Each step that results is cut into so many.
    """

    longest: float = 1 / 16
    growth: float = 0.5
    first: tuple[float, ...] = (0.004, 0.02, 0.06, 0.13, 0.24, 0.39, 0.6)
    refine: int = 1


#: Steps of the checked error.
EXACT = Steps()
#: Steps as long as the readings are apart, but for the first: for curves that need not be exact.
LONG = Steps(longest=1.0, growth=np.inf, first=(0.2,))


@dataclass(frozen=True, eq=False)
class Experiment:
    """A mechanism observed at some times under some conditions.

    Parameters
    ----------
    mechanism : Mechanism
        What happens.
    conditions : tuple of mapping of str to float
        Each condition's inputs; inputs that are absent are 0.
    times : ndarray (T,)
        When the observed species is read, ascending, above 0, in the mechanism's unit of time; counted from
        `baseline`.
    baseline : float
        Where readings are differences to the one at this time, that time; 0 without.

    Raises
    ------
    InputError
        Times that do not ascend from above 0; an input that the mechanism does not know or that is negative.
    """

    mechanism: Mechanism
    conditions: tuple[Mapping[str, float], ...]
    times: np.ndarray
    baseline: float = 0.0

    def __post_init__(self) -> None:
        times = np.array(self.times, dtype=float)
        if (
            times.ndim != 1
            or not times.size
            or not np.isfinite(times).all()
            or (np.diff(times, prepend=0) <= 0).any()
        ):
            raise InputError(f"times of {self.mechanism.id}", "times that ascend from above 0", "others")
        if not (np.isfinite(self.baseline) and self.baseline >= 0):
            raise InputError("baseline reading", "a time from 0", self.baseline)
        for condition in self.conditions:
            for name, value in condition.items():
                if name not in self.mechanism.inputs:
                    known = ", ".join(self.mechanism.inputs)
                    raise InputError(f"input of {self.mechanism.id}", f"one of {known}", repr(name))
                if not (np.isfinite(value) and value >= 0):
                    raise InputError(f"input {name} of {self.mechanism.id}", "a finite number from 0", value)
        times.setflags(write=False)
        object.__setattr__(self, "times", times)

    @property
    def size(self) -> int:
        """Points on all curves: conditions × times."""
        return len(self.conditions) * self.times.size


@dataclass(frozen=True, eq=False)
class Program:
    """Several experiments as flat tables; curves follow each other by experiment, condition and time.

    Parameters
    ----------
    ints, floats : ndarray
        The tables; their layout is `_pack`'s and the solver's alone.
    starts : ndarray (C + 1, 4)
        Where each experiment starts in `ints`, `floats`, the points and the solver's record, and where the
        last one ends.
    columns : tuple of str
        Parameters by column of θ.
    """

    ints: np.ndarray
    floats: np.ndarray
    starts: np.ndarray
    columns: tuple[str, ...]

    @property
    def size(self) -> int:
        """Points on all curves."""
        return int(self.starts[-1, 2])


def program(experiments: Sequence[Experiment], columns: Sequence[str], steps: Steps = EXACT) -> Program:
    """Tables of several experiments whose parameters are found in `columns` of a matrix θ.

    Parameters
    ----------
    experiments : sequence of Experiment
        In the order of θ's rows.
    columns : sequence of str
        Names of θ's columns.
    steps : Steps
        How long the solver's steps are.

    Raises
    ------
    InputError
        A parameter of a mechanism that is no column.
    """
    ints, floats, starts = [], [], [(0, 0, 0, 0)]
    for experiment in experiments:
        for name in experiment.mechanism.names:
            if name not in columns:
                raise InputError(f"parameters of {experiment.mechanism.id}", f"a column for {name}", "none")
        whole, real, record = _pack(experiment, list(columns), steps)
        ints.append(whole)
        floats.append(real)
        at = starts[-1]
        starts.append((at[0] + whole.size, at[1] + real.size, at[2] + experiment.size, at[3] + record))
    return Program(np.concatenate(ints), np.concatenate(floats), np.array(starts), tuple(columns))


@dataclass(frozen=True, eq=False)
class Thinned:
    """Curves solved at some of their points, and what tells all others.

    Parameters
    ----------
    experiments : tuple of Experiment
        With the readings that were kept.
    program : Program
        Of them.
    places, shares : ndarray (N, K) of int, (N, K)
        Every point of the whole curves is the sum of so many kept ones, by their shares.
    """

    experiments: tuple[Experiment, ...]
    program: Program
    places: np.ndarray
    shares: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """What takes kept points to all points, ndarray (N, T)."""
        found = np.zeros((len(self.places), self.program.size))
        np.add.at(found, (np.arange(len(found))[:, None], self.places), self.shares)
        return found


def unthinned(experiments: Sequence[Experiment], made: Program) -> Thinned:
    """All points, each of which tells itself."""
    return Thinned(tuple(experiments), made, np.arange(made.size)[:, None], np.ones((made.size, 1)))


def thinned(experiments: Sequence[Experiment], columns: Sequence[str]) -> Thinned:
    """Curves in `LONG` steps, at readings ever farther apart, cubics in between: cheap, and near the exact.

    `experiments` and `columns` as of `program`.
    """
    kept, places, shares, before = [], [], [], 0
    for experiment in experiments:
        since = experiment.baseline + experiment.times
        chosen = [0]
        while chosen[-1] < since.size - 1:
            # To the next reading at least.
            far = np.searchsorted(since, _APART * since[chosen[-1]] * (1 + 1e-9), side="right") - 1
            chosen.append(max(chosen[-1] + 1, int(far)))
        own = experiment.times[chosen]
        kept.append(replace(experiment, times=own))
        near, share = _cubics(own, experiment.times)
        for _ in experiment.conditions:
            places.append(before + near)
            shares.append(share)
            before += own.size
    return Thinned(tuple(kept), program(kept, columns, LONG), np.concatenate(places), np.concatenate(shares))


def _cubics(nodes: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes around each time and their shares in the polynomial through them, (T, K) both."""
    count = min(_AROUND, nodes.size)
    low = np.clip(np.searchsorted(nodes, times) - count // 2, 0, nodes.size - count)
    near = low[:, None] + np.arange(count)
    at, share = nodes[near], np.ones((times.size, count))
    for k in range(count):
        for other in range(count):
            if other != k:
                share[:, k] *= (times - at[:, other]) / (at[:, k] - at[:, other])
    # Room for as many everywhere.
    spare = ((0, 0), (0, _AROUND - count))
    return np.pad(near, spare), np.pad(share, spare)


def grid(times: np.ndarray, baseline: float, steps: Steps) -> np.ndarray:
    """Ends of the solver's steps: every reading, no step too long, short ones at the start."""
    stops = np.unique(np.concatenate([times + baseline, [baseline] if baseline else []]))
    longest = stops[-1] * steps.longest
    edges = np.concatenate([[0.0], stops])
    ends = np.empty(0)
    for a, b in zip(edges, stops, strict=False):
        pieces = max((b - a) / longest, (b - a) / (steps.growth * a) if a else 1)
        ends = np.append(ends, np.linspace(a, b, int(np.ceil(pieces - 1e-9)) + 1)[1:])
    ends = np.concatenate([ends[0] * np.array(steps.first), ends])
    before = np.concatenate([[0.0], ends[:-1]])
    shares = np.arange(1, steps.refine + 1) / steps.refine
    fine = before[:, None] + (ends - before)[:, None] * shares
    fine[:, -1] = ends
    return fine.ravel()


def _pack(experiment: Experiment, columns: list[str], lengths: Steps) -> tuple[np.ndarray, np.ndarray, int]:
    """Tables of whole and of other numbers, and the length of the record."""
    mechanism = experiment.mechanism
    species, order = list(mechanism.species), list(mechanism.names)
    rates: list[Rate] = [reaction.rate for reaction in mechanism.parsed]
    first = [-1] * len(species)
    for name, rate in mechanism.starts.items():
        first[species.index(name)] = len(rates)
        rates.append(rate)
    changes: list[list[tuple[int, int]]] = [[] for _ in species]
    for place, reaction in enumerate(mechanism.parsed):
        for name, change in reaction.changes:
            if change:
                changes[species.index(name)].append((place, change))

    held, touched, powers, edges = [], [], [], [0]
    for rate in rates:
        if len(rate.saturated_inputs) > 1:
            raise InputError(f"mechanism {mechanism.id}", "one saturated input in a rate", "several")
        held.append(order.index(rate.saturated_inputs[0][1]) if rate.saturated_inputs else -1)
        power = dict.fromkeys((name for _, name in rate.saturated_inputs), 0)
        for name, value in rate.powers:
            power[name] = power.get(name, 0) + value
        touched += [order.index(name) for name in power]
        powers += list(power.values())
        edges.append(len(touched))

    blocks = _blocks(mechanism)
    block_rows: list[list[int]] = []
    equations: list[list[int]] = []
    terms: list[tuple[float, str, str]] = []
    local: list[int] = []
    groups: list[list[tuple[int, int]]] = []
    for block in blocks:
        begin, saturating = len(equations), False

        def form(value: Form | None, own: list[int] = block) -> list[int]:
            """Where a form's terms start, where those of the block's own species, and where they end."""
            if value is None:
                return [-1, -1, -1]
            low = len(terms)
            inside = [species.index(term[2]) in own for term in value.terms]
            for wanted in (False, True):
                chosen = [term for term, is_own in zip(value.terms, inside, strict=True) if is_own == wanted]
                terms.extend(chosen)
                local.extend(own.index(species.index(term[2])) if wanted else -1 for term in chosen)
            return [low, low + inside.count(False), len(terms)]

        for place, i in enumerate(block):
            # What changes a species by the same amounts is one rate.
            found: dict[Any, list[tuple[int, int]]] = {}
            for event in changes[i]:
                rate = rates[event[0]]
                found.setdefault((rate.forms, rate.saturated), []).append(event)
            for (factors, saturated), group in found.items():
                one, two = [*factors, None, None][:2]
                row = [place, *form(one), *form(two), *form(saturated[0] if saturated else None)]
                equations.append([*row, order.index(saturated[1]) if saturated else -1])
                saturating = saturating or row[8] < row[9]
                groups.append(group)
        kind = _kind(mechanism, [species[i] for i in block])
        member = sum(len(before) for before in blocks[: len(block_rows)])
        block_rows.append([kind, len(block), member, begin, len(equations), int(saturating)])

    ends = grid(experiment.times, experiment.baseline, lengths)
    readings = np.concatenate(
        [[experiment.baseline] if experiment.baseline else [], experiment.baseline + experiment.times]
    )
    slot_of = {value: slot - bool(experiment.baseline) for slot, value in enumerate(readings)}
    # −1: a reading that is none; −2: the baseline's.
    outputs = [-2 if slot_of.get(end, 0) < 0 else slot_of.get(end, -1) for end in ends]
    steps = _SPARE * len(ends)
    record = ROW + steps * (ROW + 3 * WIDTH * len(species))
    whole: list[Any] = [
        [
            len(species),
            len(order),
            len(rates),
            len(touched),
            len(blocks),
            len(equations),
            len(terms),
            sum(map(len, groups)),
            len(ends),
            len(experiment.conditions),
            experiment.times.size,
            species.index(mechanism.observed),
            max(map(len, blocks)),
            steps,
            record,
        ],
        [columns.index(name) for name in order],
        held,
        edges,
        touched,
        block_rows,
        np.concatenate(blocks),
        equations,
        [3 * species.index(term[2]) for term in terms],
        local,
        _edges(groups),
        [place for group in groups for place, _ in group],
        [change for group in groups for _, change in group],
        first,
        outputs,
    ]
    real: list[Any] = [[0.0], ends, powers]
    for low in range(0, len(experiment.conditions), WIDTH):
        conditions = experiment.conditions[low : low + WIDTH]
        doses = [
            {name: float(condition.get(name, 0.0)) for name in mechanism.inputs}
            for condition in (*conditions, *conditions[-1:] * (WIDTH - len(conditions)))
        ]
        halves = np.array(
            [
                [dose[rate.saturated_inputs[0][0]] if rate.saturated_inputs else 0.0 for dose in doses]
                for rate in rates
            ]
        )
        factors = [
            [
                rate.number
                * math.prod(dose[name] for name in rate.inputs)
                * math.prod(dose[name] for name, _ in rate.saturated_inputs)
                for dose in doses
            ]
            for rate in rates
        ]
        real += [
            factors,
            halves,
            [[number * (dose[given] if given else 1.0) for dose in doses] for number, given, _ in terms],
        ]
    return (
        np.concatenate([np.asarray(part, dtype=np.int64).ravel() for part in whole]),
        np.concatenate([np.asarray(part, dtype=float).ravel() for part in real]),
        -(-len(experiment.conditions) // WIDTH) * record,
    )


def _edges(parts: Iterable[Sized]) -> np.ndarray:
    """Where each of several parts starts when they follow each other, and where the last ends."""
    return np.cumsum([0, *map(len, parts)])


def _blocks(mechanism: Mechanism) -> list[list[int]]:
    """Species in blocks, each after those it depends on."""
    species = list(mechanism.species)
    depends = np.zeros((len(species), len(species)), dtype=bool)
    for reaction in mechanism.parsed:
        for name, change in reaction.changes:
            if change:
                depends[species.index(name), [species.index(other) for other in reaction.rate.species]] = True
    count, label = connected_components(csr_matrix(depends), connection="strong")
    left, blocks, done = list(range(count)), [], np.zeros(len(species), dtype=bool)
    while left:
        for candidate in left:
            members = np.flatnonzero(label == candidate)
            needs = depends[members].any(axis=0)
            needs[members] = False
            if done[needs].all():
                blocks.append([int(i) for i in members])
                done[members] = True
                left.remove(candidate)
                break
    return blocks


def _kind(mechanism: Mechanism, block: list[str]) -> int:
    own = set(block)
    rates = [
        (change, reaction.rate)
        for reaction in mechanism.parsed
        for name, change in reaction.changes
        if name in own and change
    ]
    if len(block) == 1:
        if not any(own & reaction.rate.species for reaction in mechanism.parsed):
            return INTEGRAL
        decay = (Form(((1.0, "", block[0]),)),)
        if all(
            rate.saturated is None
            and (rate.forms == () or (rate.forms == decay and change < 0 and not rate.names_of_inputs))
            for change, rate in rates
        ):
            return POOL
    for _, rate in rates:
        touched = sum(bool(own & set(form.species)) for form in rate.forms)
        if touched > 1 or (rate.saturated and own & set(rate.saturated[0].species)):
            return NONLINEAR
    return LINEAR
