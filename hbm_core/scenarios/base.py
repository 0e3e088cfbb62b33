"""The contract of a scenario: story, data, simulator, models and references in one place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior, read_number
from hbm_core.models.structure import ModelSpec


@dataclass(frozen=True)
class Column:
    """A column of the scenario's canonical table."""

    name: str
    kind: str
    rule: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Knob:
    """One number of a simulator, with its default and its inclusive bounds."""

    name: str
    label: str
    default: float | str
    lower: float
    upper: float
    step: float = 1.0
    integer: bool = False
    choices: tuple[str, ...] = ()

    def check(self, value: Any) -> float | str:
        """`value` as the knob's type, or an InputError that names the knob."""
        subject = f"simulator knob {self.name}"
        if self.choices:
            if value not in self.choices:
                raise InputError(subject, "one of " + ", ".join(self.choices), repr(value))
            return str(value)
        try:
            number = read_number(value) if isinstance(value, str) else float(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(subject, "a number", value) from None
        if not (np.isfinite(number) and self.lower <= number <= self.upper):
            raise InputError(subject, f"a number from {self.lower:g} to {self.upper:g}", value)
        if self.integer and number != int(number):
            raise InputError(subject, "a whole number", value)
        return int(number) if self.integer else number


@dataclass(frozen=True)
class Model:
    """A model of a scenario.

    Parameters
    ----------
    id, label : str
        Key, and a title for a person.
    summary : str
        One sentence: what this hierarchy assumes.
    formula : tuple of str
        LaTeX lines of the model.
    spec : callable
        ``(dataset, priors, constants, covariates, parameterization) -> ModelSpec``; the first four may be
        partial: what is absent takes the model's default for these data.
    priors : callable
        ``(dataset, covariates) -> {parameter: Prior}``, the defaults for these data.
    constants : callable
        ``(dataset) -> {name: value}``, the defaults for these data.
    parameterizations : tuple of str
        Those that apply; the first is the default.
    families : mapping of str to tuple of str
        Prior families offered per parameter.
    exact : bool
        Whether an exact engine covers it.
    covariates : bool
        Whether it takes columns of the data as moderators.
    needs : str
        What data must have for it, in a few words; empty where all will do.
    constant_words : mapping of str to (str, str)
        Label of a constant's field, and what the constant does.
    blocked : str
        The parameterization in which the blocked engine covers it; empty where it does not.
    """

    id: str
    label: str
    summary: str
    formula: tuple[str, ...]
    spec: Callable[..., ModelSpec[Any]]
    priors: Callable[..., Mapping[str, Prior]]
    constants: Callable[[Dataset], Mapping[str, float]]
    parameterizations: tuple[str, ...]
    families: Mapping[str, tuple[str, ...]]
    exact: bool = True
    covariates: bool = False
    needs: str = ""
    constant_words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    blocked: str = ""

    def usual_engine(self, parameterization: str) -> str:
        """The engine of fits that ask for none."""
        return "blocked" if self.blocked and parameterization == self.blocked else "nuts"


def no_constants(dataset: Dataset) -> dict[str, float]:
    """Constants of a model that has none."""
    return {}


def refuse_options(
    constants: Mapping[str, float] | None = None, covariates: Sequence[str] | None = None
) -> None:
    """Raise InputError where constants or covariates are given to a model that has none."""
    for what, given in (("model constant", constants), ("covariates", covariates)):
        if given:
            raise InputError(what, "none for this model", ", ".join(given))


def chosen_priors(
    defaults: Mapping[str, Prior], given: Mapping[str, Prior] | None, offered: Mapping[str, Sequence[str]]
) -> dict[str, Prior]:
    """Priors as given, the defaults elsewhere.

    Raises
    ------
    InputError
        A family that is not `offered` for its parameter; parameters that are not in there are left to who
        builds the model.
    """
    chosen = {**defaults, **(given or {})}
    for name, prior in chosen.items():
        if offered.get(name) and prior.family not in offered[name]:
            raise InputError(f"prior on {name}", "one of " + ", ".join(offered[name]), prior.text)
    return chosen


def scaled(prior: Prior, factor: float) -> Prior:
    """`prior` for a parameter `factor` times as large, in round numbers."""
    if factor == 1:
        return prior
    return Prior(prior.family, tuple(float(f"{value:.3g}") for value in prior.scaled(factor).numbers))


def read_priors(**texts: str) -> dict[str, Prior]:
    """Priors by parameter name, from their text."""
    return {name: Prior.parse(text) for name, text in texts.items()}


@dataclass(frozen=True)
class Preset:
    """A named choice of priors, e.g. "Skeptical"; `model` is the id it belongs to, if any."""

    id: str
    label: str
    priors: Callable[[Dataset], Mapping[str, Prior]]
    model: str | None = None


@dataclass(frozen=True)
class Offer:
    """A model that data ask for: its id, and why, in a sentence or two."""

    model: str
    text: str


@dataclass(frozen=True)
class SamplerDefaults:
    """The scenario's sampler settings, before anyone touches them."""

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    target_accept: float = 0.95
    seed: int = 42


class Scenario(ABC):
    """One scenario. Subclasses set the attributes and implement the abstract methods.

    A module in ``hbm_core/scenarios`` that defines ``SCENARIO`` is found by `hbm_core.scenarios.scenarios`.
    """

    id: str
    title: str
    #: Raised whenever a model's meaning, or a bug in it, changes: part of every fit's identity.
    model_version: int = 1
    #: The story in five lines.
    story: tuple[str, ...]
    references: tuple[str, ...]
    columns: tuple[Column, ...]
    knobs: tuple[Knob, ...]
    models: Mapping[str, Model]
    default_model: str
    default_dataset: str
    presets: tuple[Preset, ...] = ()
    sampler: SamplerDefaults = SamplerDefaults()
    #: Whether workers compile the default model when they start; not where other fits would wait for it long.
    warm: bool = True
    #: Ids of the models whose coverage is studied on the scenario's own simulator, by `recovery`.
    own_lab: tuple[str, ...] = ()
    #: What a second table may hold that belongs to the data; empty where there is none.
    companion: str = ""
    #: Why coverage cannot be studied while somebody waits; empty where it can.
    no_lab: str = ""
    #: Parameter name to (symbol in LaTeX, words), in the order of the prior panel.
    parameter_words: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    @abstractmethod
    def datasets(self) -> Mapping[str, str]:
        """Built-in data sets: name to label."""

    @abstractmethod
    def dataset(self, name: str) -> Dataset:
        """One built-in data set; InputError for an unknown name."""

    @abstractmethod
    def simulate(self, seed: int = 1, **knobs: Any) -> Dataset:
        """Simulated data with truth; InputError for a knob that is unknown or out of bounds."""

    @abstractmethod
    def read(self, table: pd.DataFrame, name: str = "upload", label: str = "Your data") -> Dataset:
        """Bring a table into canonical form; `DataProblems` lists everything wrong, with row and column."""

    def joined(self, table: pd.DataFrame, companion: pd.DataFrame) -> pd.DataFrame:
        """A raw table with what a second one says of its rows.

        Raises
        ------
        InputError
            The scenario's data are one table.
        DataProblems
            Rows that the second table says nothing of, or that it says twice.
        """
        raise InputError("data", "one table", "two")

    def rows(self, seed: int = 1, **knobs: Any) -> Iterator[pd.DataFrame]:
        """Raw rows behind simulated data, in chunks of one table; nothing where `simulate` has no such."""
        return iter(())

    def recovery(
        self, replications: int, seed: int, model: str = "", priors: Mapping[str, Prior] | None = None
    ) -> pd.DataFrame:
        """Estimators scored on the scenario's own simulator, over seeds, for the models of `own_lab`.

        Raises
        ------
        InputError
            Another model.

        Returns
        -------
        pandas.DataFrame
            As of `hbm_core.analysis.recovery.over_data_sets`.
        """
        raise InputError("simulation lab", "a scenario with a lab of its own", repr(self.id))

    def lab_model(self, model: str) -> str:
        """`model`, or the default for none; InputError where `recovery` has no lab for it."""
        if model and model not in self.own_lab:
            raise InputError(
                "model for coverage",
                " or ".join(self.own_lab),
                repr(model),
                "Choose one of them as the model.",
            )
        return model or self.default_model

    def open(self, path: str | Path, name: str = "upload", label: str = "") -> Dataset:
        """Read a CSV or Parquet file into canonical form; scenarios that reduce large files do it here."""
        from hbm_core.scenarios.tables import MOST_BYTES, file_title, read_file

        # Nobody uploads here: the machine's owner chose the file.
        return self.read(read_file(path, most_bytes=20 * MOST_BYTES), name, label or file_title(str(path)))

    def model_for(self, dataset: Dataset) -> str:
        """Id of the model that these data call for, where the default cannot be built."""
        return self.default_model

    @abstractmethod
    def covariates(self, dataset: Dataset) -> tuple[str, ...]:
        """Columns of `dataset` that can be moderators."""

    @abstractmethod
    def first_look(self, dataset: Dataset) -> pd.DataFrame:
        """Moments and tests before any model: columns quantity, value, note."""

    @abstractmethod
    def estimate(self, dataset: Dataset) -> pd.DataFrame:
        """Classical estimators side by side, one row per unit and estimator."""

    @abstractmethod
    def plausible(self, dataset: Dataset) -> tuple[float, float]:
        """Range in which nobody would be surprised to see an effect, in the outcome's units."""

    @abstractmethod
    def scale_note(self, dataset: Dataset) -> str:
        """Where the default priors' numbers come from; empty where they are as the models declare them."""

    def alone(self, dataset: Dataset, structure: Any) -> tuple[np.ndarray, np.ndarray]:
        """What units that are vectors say by themselves: estimates and standard errors, (units, parameters).

        Raises
        ------
        InputError
            Units that are no vectors.
        """
        raise InputError("estimates unit by unit", "units that are vectors", repr(self.id))

    def offer(self, dataset: Dataset, model: str) -> Offer | None:
        """Another model that the data ask for, where `model` is wrong for them."""
        return None

    def checked_knobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults overlaid with `given`, each checked."""
        known = {knob.name: knob for knob in self.knobs}
        for name in given:
            if name not in known:
                raise InputError("simulator knob", "one of " + ", ".join(known), repr(name))
        return {name: knob.check(given.get(name, knob.default)) for name, knob in known.items()}

    def model(self, id: str) -> Model:
        """The model `id`; InputError for an unknown one."""
        if id not in self.models:
            raise InputError(f"model of scenario {self.id}", "one of " + ", ".join(self.models), repr(id))
        return self.models[id]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a table: row (1 = first data row, None = whole table), column, message."""

    row: int | None
    column: str | None
    message: str


class DataProblems(InputError):
    """A table cannot be used; `problems` lists every reason with its place."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        first = problems[0]
        place = ", ".join(
            part
            for part in (
                f"row {first.row}" if first.row else "",
                f"column {first.column}" if first.column else "",
            )
            if part
        )
        more = f" ({len(problems) - 1} more problems follow.)" if len(problems) > 1 else ""
        ValueError.__init__(self, f"{place + ': ' if place else ''}{first.message}{more}")
        self.subject, self.expected, self.got, self.hint = place or "table", "", "", first.message
