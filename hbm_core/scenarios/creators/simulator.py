"""Simulated A/B tests with their truth: user rows, or their sufficient statistics alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios.base import Knob
from hbm_core.scenarios.creators import slots
from hbm_core.scenarios.creators.data import ARMS, LEVELS, Labels, simulated_words

KNOBS = (
    Knob("level", "What is simulated", "users", 0, 0, choices=("users", "summaries")),
    Knob("genres", "Number of genres", 5, 1, 10_000, 1, integer=True),
    Knob("creators_per_genre", "Creators per genre", 100, 1, 1_000_000, 1, integer=True),
    Knob("mu", "Mean of the genres' effects μ", 0.5, -1000, 1000, 0.1),
    Knob("sigma_genre", "Spread of the genres' effects", 0.3, 0, 1000, 0.1),
    Knob("sigma_creator", "Spread of creators within a genre", 0.4, 0, 1000, 0.1),
    Knob("baseline", "Mean outcome of a user under control", 5.0, -1e6, 1e6, 0.5),
    Knob("outcome_sd", "Spread of the users' outcomes", 2.0, 1e-3, 1e6, 0.5),
    Knob("treatment_share", "Share of users in treatment", 0.5, 0.05, 0.95, 0.05),
    Knob("small_share", "Share of small creators", 0.40, 0, 1, 0.05),
    Knob("medium_share", "Share of medium creators", 0.35, 0, 1, 0.05),
    Knob("smallest", "Fewest users", 30, 4, 1e6, 10, integer=True),
    Knob("small_below", "Small creators have fewer users than", 100, 5, 1e6, 10, integer=True),
    Knob("medium_below", "Medium creators have fewer users than", 500, 6, 1e7, 50, integer=True),
    Knob("largest", "Large creators have fewer users than", 5000, 7, 1e8, 500, integer=True),
    Knob("zero_share", "Share of users who pay nothing", 0, 0, 0.99, 0.05),
    Knob("log_sd", "Heavy tail: sd of the log of what others pay (0: normal)", 0, 0, 3, 0.1),
    *slots.KNOBS,
)

GENRES = ("comedy", "education", "gaming", "music", "sports")
#: Users drawn at a time, about: what bounds the memory.
_USERS = 2_000_000


class Truth(Mapping[str, float]):
    """True values by the names that fits use; units' effects stay an array until they are asked for.

    Attributes
    ----------
    mu, sigma_genre, sigma_creator : float
        In the outcome's units.
    mu_genre : ndarray (G,)
        Mean effect of each genre.
    theta : ndarray (N,)
        Effect of each creator, in the order of the table.
    """

    def __init__(
        self, hyper: Mapping[str, float], genres: tuple[str, ...], mu_genre: np.ndarray, theta: np.ndarray,
        creators: Labels,
    ) -> None:  # fmt: skip
        self.mu, self.sigma_genre, self.sigma_creator = (hyper[name] for name in _HYPER)
        self.genres, self.mu_genre, self.theta, self.creators = genres, mu_genre, theta, creators

    def of(self, kept: np.ndarray, group: np.ndarray) -> Truth:
        """The truth of some creators (places, ascending) and of the genres that they are in."""
        hyper = {name: getattr(self, name) for name in _HYPER}
        genres = np.unique(group[kept])
        names = tuple(self.genres[g] for g in genres)
        return Truth(hyper, names, self.mu_genre[genres], self.theta[kept], self.creators.take(kept))

    def __getitem__(self, name: str) -> float:
        if name in _HYPER:
            return float(getattr(self, name))
        kind, _, label = name.removesuffix("]").partition("[")
        try:
            if kind == "mu_genre":
                return float(self.mu_genre[self.genres.index(label)])
            if kind == "theta":
                return float(self.theta[self.creators.index(label)])
        except ValueError:
            pass
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield from _HYPER
        yield from (f"mu_genre[{genre}]" for genre in self.genres)
        yield from (f"theta[{creator}]" for creator in self.creators)

    def __len__(self) -> int:
        return len(_HYPER) + len(self.genres) + len(self.creators)

    def items(self) -> Any:
        """Names and values, in order and without a search for each."""
        values = (self.mu, self.sigma_genre, self.sigma_creator, *self.mu_genre, *self.theta)
        return dict(zip(self, map(float, values), strict=True)).items()


_HYPER = ("mu", "sigma_genre", "sigma_creator")


@dataclass(frozen=True, eq=False)
class World:
    """Rows before any user is drawn: creators, or creators in segments or periods.

    Parameters
    ----------
    truth : Truth or SlotTruth
        Its values.
    group : ndarray (N,) of int
        Genre of each row.
    n_treatment, n_control : ndarray (N,) of int
        Users per arm.
    theta : ndarray (N,)
        True effect of each row.
    creator : ndarray (N,) of int
        Of each row.
    slots : Slots, optional
        The segments or periods; each creator's rows are one after the other, in their order.
    """

    truth: Any
    group: np.ndarray
    n_treatment: np.ndarray
    n_control: np.ndarray
    theta: np.ndarray
    creator: np.ndarray
    slots: slots.Slots | None = None

    @property
    def creators(self) -> Labels:
        """Creator of each row by name."""
        return self.truth.creators.take(self.creator)

    @property
    def slot(self) -> np.ndarray:
        """Segment or period of each row by name."""
        assert self.slots is not None
        return np.tile(np.array(self.slots.labels, dtype=object), self.group.size // len(self.slots.labels))


def make_world(rng: np.random.Generator, knobs: Mapping[str, Any]) -> World:
    """Genres, creators, their effects and numbers of users, for checked knobs.

    Raises
    ------
    InputError
        Sizes that do not rise, or shares above 1.
    """
    edges = [knobs[name] for name in ("smallest", "small_below", "medium_below", "largest")]
    if not all(low < high for low, high in pairwise(edges)):
        raise InputError("simulator knobs smallest, small_below, medium_below, largest", "rising", edges)
    shares = np.array([knobs["small_share"], knobs["medium_share"]])
    if shares.sum() > 1:
        raise InputError("simulator knobs small_share and medium_share", "at most 1 together", shares.sum())
    genres, size = knobs["genres"], knobs["creators_per_genre"]
    if genres * size < 2 or genres * size > 5_000_000:
        raise InputError("number of simulated creators", "2 to 5,000,000", genres * size)
    means, effects, sizes = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=3))
    mu_genre = knobs["mu"] + knobs["sigma_genre"] * means.standard_normal(genres)
    group = np.repeat(np.arange(genres), size)
    theta = mu_genre[group] + knobs["sigma_creator"] * effects.standard_normal(group.size)
    which = np.searchsorted(np.cumsum(shares), sizes.random(group.size), side="right")
    low, high = np.array(edges[:-1])[which], np.array(edges[1:])[which]
    n = sizes.integers(low, high)
    treated = np.clip(np.rint(n * knobs["treatment_share"]).astype(int), 2, n - 2)
    width = len(str(group.size - 1))
    names = GENRES if genres == len(GENRES) else [f"g{g:0{len(str(genres - 1))}d}" for g in range(genres)]
    creators = Labels(pa.array([f"c{place:0{width}d}" for place in range(group.size)], pa.large_string()))
    hyper = {name: float(knobs[name]) for name in _HYPER}
    truth, every = Truth(hyper, tuple(names), mu_genre, theta, creators), np.arange(group.size)
    found = slots.make_slots(np.random.default_rng(int(rng.integers(2**63))), knobs, mu_genre)
    if found is None:
        return World(truth, group, treated, n - treated, theta, every)
    # Each segment or period is a test with as many users of its own.
    over = found.mean.mean(axis=1) - mu_genre
    truth = Truth(hyper, tuple(names), mu_genre + over, theta + over[group], creators)
    split, count = slots.SlotTruth(truth, found, group), len(found.labels)
    genre, most, rest, creator = (np.repeat(one, count) for one in (group, treated, n - treated, every))
    return World(split, genre, most, rest, split.rows.ravel(), creator, found)


def _start(seed: int, knobs: Mapping[str, Any]) -> tuple[World, np.random.Generator]:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError("seed", "a whole number from 0", seed)
    plan, users = (np.random.default_rng(stream) for stream in np.random.SeedSequence(int(seed)).spawn(2))
    world = make_world(plan, knobs)
    if knobs["log_sd"] > 0 and min(0.0, world.theta.min()) + knobs["baseline"] <= 0:
        raise InputError(
            "simulator knob baseline", "above 0 with every effect added, for a heavy tail", knobs["baseline"]
        )
    return world, users


def user_chunks(seed: int, knobs: Mapping[str, Any]) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Outcomes of about two million users at a time, control then treatment of each creator in turn.

    Yields
    ------
    creators : slice
        Of the world's creators.
    arms : ndarray (2 K,) of int
        Users in control and treatment of each of the K creators, alternating.
    outcome : ndarray (arms.sum(),)
        In the outcome's units.
    """
    world, rng = _start(seed, knobs)
    total = np.cumsum(world.n_treatment + world.n_control)
    start = 0
    while start < total.size:
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _USERS)))
        here = slice(start, stop)
        arms = np.column_stack([world.n_control[here], world.n_treatment[here]]).ravel()
        mean = np.column_stack([np.zeros(stop - start), world.theta[here]]).ravel() + knobs["baseline"]
        yield here, arms, _outcomes(rng, np.repeat(mean, arms), knobs)
        start = stop


def _outcomes(rng: np.random.Generator, mean: np.ndarray, knobs: Mapping[str, Any]) -> np.ndarray:
    """Outcomes with these means: normal or, with a tail, log-normal; a share of them zero."""
    noise = rng.standard_normal(mean.size)
    share = knobs["zero_share"]
    paid = mean / (1 - share)
    if knobs["log_sd"]:
        sd = knobs["log_sd"]
        value = paid * np.exp(sd * noise - sd**2 / 2)
    else:
        value = paid + knobs["outcome_sd"] * noise
    return np.where(rng.random(mean.size) < share, 0.0, value) if share else value


def rows(seed: int, knobs: Mapping[str, Any]) -> Iterator[pd.DataFrame]:
    """User rows in chunks: creator, genre, group, outcome; nothing where summaries are simulated."""
    if knobs["level"] != "users":
        return
    world, _ = _start(seed, knobs)
    creators = np.array(list(world.creators), dtype=object)
    genres = np.array(world.truth.genres, dtype=object)
    for here, arms, outcome in user_chunks(seed, knobs):
        both = arms.reshape(-1, 2).sum(axis=1)
        group = np.repeat(np.tile(np.array(["control", "treatment"], dtype=object), len(both)), arms)
        columns = {
            "creator": np.repeat(creators[here], both),
            "genre": np.repeat(genres[world.group[here]], both),
        }
        if world.slots is not None:
            columns[world.slots.column] = np.repeat(world.slot[here], both)
        yield pd.DataFrame(columns | {"group": group, "outcome": outcome})


def simulate(seed: int, knobs: Mapping[str, Any]) -> Dataset:
    """The summaries of simulated tests, with truth, for checked knobs.

    With ``level = "users"`` they are the statistics of the very users that `rows` gives. With
    ``"summaries"`` the means and variances of the arms are drawn from their own distributions, Normal and
    scaled χ², so that a million creators need no users.

    Raises
    ------
    InputError
        The seed is not a whole number from 0; knobs that contradict each other.
    """
    world, rng = _start(seed, knobs)
    if knobs["level"] == "summaries":
        if knobs["zero_share"] or knobs["log_sd"]:
            raise InputError(
                "simulator knobs zero_share and log_sd", "0 for level=summaries", "others", "Use level=users."
            )
        found = _drawn_statistics(rng, world, knobs)
    else:
        parts = [arm_statistics(arms, outcome) for _, arms, outcome in user_chunks(seed, knobs)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    table = pd.DataFrame(
        {
            "creator": pd.Series(world.creators.arrow, dtype="str"),
            "genre": np.array(world.truth.genres, dtype=object)[world.group],
        }
    ).astype({"genre": "str"})
    if world.slots is not None:
        table[world.slots.column] = pd.Series(world.slot, dtype="str")
    table["effect"] = found["mean"][1::2] - found["mean"][::2]
    square = found["var"] / found["n"]
    table["se"] = np.sqrt(square[1::2] + square[::2])
    table["n"] = world.n_treatment + world.n_control
    for name, values in found.items():
        for arm, first in zip(ARMS, (1, 0), strict=True):
            table[f"{name}_{arm}"] = values[first::2]
    truth, notes = world.truth, tuple[str, ...]()
    flat = np.flatnonzero((found["var"] == 0).reshape(-1, 2).any(axis=1))
    if flat.size:
        kept = np.setdiff1d(np.arange(len(table)), flat)
        # Truth of creators in segments or periods is looked up by name, so that more of it does no harm.
        truth = truth.of(kept, world.group) if world.slots is None else truth
        what = "creators" if world.slots is None else "rows"
        notes = (f"{flat.size:,} {what} are left out: every user of an arm has the same outcome.",)
        table = table.iloc[kept].reset_index(drop=True)
    count = len(table)
    many = f"{count:,} simulated {LEVELS[0]}s"
    if world.slots is not None:
        many = (
            f"{len(truth.creators):,} simulated {LEVELS[0]}s, {len(world.slots.labels)} {world.slots.column}s"
        )
    label = f"{many} in {len(truth.genres)} {LEVELS[1]}s, seed {seed}"
    return Dataset("simulated", label, table, simulated_words(table["creator"].nunique()), "", truth, notes)


def _drawn_statistics(
    rng: np.random.Generator, world: World, knobs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    n = np.column_stack([world.n_control, world.n_treatment]).ravel()
    mean = np.column_stack([np.zeros(world.group.size), world.theta]).ravel() + knobs["baseline"]
    sd = knobs["outcome_sd"]
    return {
        "n": n,
        "mean": mean + sd / np.sqrt(n) * rng.standard_normal(n.size),
        "var": sd**2 * 2 * rng.standard_gamma((n - 1) / 2) / (n - 1),
    }


def arm_statistics(arms: np.ndarray, outcome: np.ndarray) -> dict[str, np.ndarray]:
    """Sufficient statistics of stretches of outcomes.

    Parameters
    ----------
    arms : ndarray (K,) of int
        Lengths of the stretches, each at least 1.
    outcome : ndarray (arms.sum(),)
        In the outcome's units.

    Returns
    -------
    dict of str to ndarray (K,)
        The names of `data.STATISTICS`. Deviations are taken from each stretch's mean, so that a large offset
        costs nothing.
    """
    starts = np.r_[0, np.cumsum(arms)[:-1]]
    # A first mean, then the mean of what is left: the second corrects the first one's rounding.
    center = np.add.reduceat(outcome, starts) / arms
    away = outcome - np.repeat(center, arms)
    shift = np.add.reduceat(away, starts) / arms
    away -= np.repeat(shift, arms)
    squares = away * away
    second = np.add.reduceat(squares, starts)
    third = np.add.reduceat(squares * away, starts)
    positive = outcome > 0
    logs = np.log(outcome, where=positive, out=np.zeros_like(outcome))
    n = arms.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        skew = third / n / (second / n) ** 1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    return {
        "n": arms.astype(np.int64),
        "mean": center + shift,
        "var": second / np.maximum(n - 1, 1),
        "positive": np.add.reduceat(positive.astype(np.int64), starts),
        "zeros": np.add.reduceat((outcome == 0).astype(np.int64), starts),
        "log_sum": np.add.reduceat(logs, starts),
        "log_squares": np.add.reduceat(logs * logs, starts),
        "skew": np.where((n > 2) & np.isfinite(skew), skew, 0.0),
    }
