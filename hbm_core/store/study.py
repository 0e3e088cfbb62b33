"""A study: the one state that the sidebar edits, the URL mirrors and every page reads."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any

from hbm_core.errors import InputError
from hbm_core.inference.sampler import Sampler, check_settings, usual_settings
from hbm_core.models.dataset import Dataset, Words, table_from_arrow
from hbm_core.models.prior import Prior, read_number
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.scenarios import scenarios
from hbm_core.scenarios.base import Model, Scenario
from hbm_core.store.request import ENGINES, FitRequest

SIMULATED = "simulated"
_UPLOAD = re.compile(r"[0-9a-f]{64}")
_SAMPLER_KEYS = ("draws", "tune", "chains", "target_accept", "seed", "temperatures")
#: What a link may say. ``key`` opens data that are not everybody's; who reads the link deals with it.
PARAMETERS = (
    "scenario", "dataset", "data_seed", "model", "covariates", "parameterization", "engine",
    *_SAMPLER_KEYS, "unit", "parameter", "key",
)  # fmt: skip
_GROUPS = ("knob", "prior", "constant")
#: Longest text of a single URL value; longer ones are nonsense or an attack.
_LONGEST = 400

#: Rows of a table that may be a built-in one, edited by hand.
_LONGEST_EDITED = 10_000

#: Finds an uploaded data set's Arrow bytes by digest; None where it is not kept.
Uploads = Callable[[str], bytes | None]


@dataclass(frozen=True, eq=False)
class Study:
    """Scenario, data, model, priors, geometry, sampler and selection.

    Parameters
    ----------
    scenario : str
        Id.
    dataset : str
        A built-in name, ``"simulated"``, or the digest of an upload.
    knobs : mapping
        Simulator settings that differ from the defaults; only for simulated data.
    data_seed : int
        Simulator seed.
    model : str
        Id.
    priors, constants : mapping
        Those that differ from the model's defaults for these data.
    covariates : tuple of str
        Moderators.
    parameterization, engine : str
        Geometry and engine.
    sampler : Sampler
        Settings.
    unit : str or None
        Selected unit's label.
    parameter : str or None
        Which part of units that are vectors is looked at.
    """

    scenario: str
    dataset: str
    model: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    data_seed: int = 1
    priors: Mapping[str, Prior] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    covariates: tuple[str, ...] = ()
    parameterization: str = ""
    engine: str = ""
    sampler: Sampler = field(default_factory=Sampler)
    unit: str | None = None
    parameter: str | None = None

    def __post_init__(self) -> None:
        model = self._scenario.model(self.model)
        if not self.parameterization:
            object.__setattr__(self, "parameterization", model.parameterizations[0])
        if self.parameterization not in model.parameterizations:
            raise InputError(
                f"parameterization of model {self.model}",
                "one of " + ", ".join(model.parameterizations),
                repr(self.parameterization),
            )
        usual = model.usual_engine(self.parameterization)
        if not self.engine:
            object.__setattr__(self, "engine", usual)
        if self.engine not in ENGINES:
            raise InputError("engine", "one of " + ", ".join(ENGINES), repr(self.engine))
        if self.engine == "blocked" and usual != "blocked":
            raise InputError(
                f"engine blocked of model {self.model}",
                f"model and parameterization that have blocks: {_blocked(self._scenario)}",
                f"{self.model} in the {self.parameterization} parameterization",
                "Choose --engine nuts.",
            )
        check_settings(self.engine, self.sampler)
        if self.dataset == SIMULATED:
            full = self._scenario.checked_knobs(self.knobs)
            defaults = {knob.name: knob.default for knob in self._scenario.knobs}
            kept = {name: value for name, value in full.items() if value != defaults[name]}
            object.__setattr__(self, "knobs", MappingProxyType(kept))
        elif self.dataset not in self._scenario.datasets and not _UPLOAD.fullmatch(self.dataset):
            names = ", ".join((*self._scenario.datasets, SIMULATED))
            raise InputError("data set", f"one of {names}, or the digest of an upload", repr(self.dataset))
        if not 0 <= self.data_seed < 2**32:
            raise InputError("simulator seed", "a whole number from 0 to 4294967295", self.data_seed)
        for name in ("priors", "constants"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @classmethod
    def default(cls, scenario: str | None = None) -> Study:
        """The scenario's default study; without a name, the first scenario's."""
        chosen = find_scenario(scenario) if scenario else next(iter(scenarios().values()))
        bare = cls(chosen.id, chosen.default_dataset, chosen.default_model)
        return replace(bare, sampler=usual_settings(bare.engine, Sampler(**vars(chosen.sampler))))

    @property
    def _usual_settings(self) -> Sampler:
        """The scenario's own settings, of NUTS."""
        return Sampler(**vars(self._scenario.sampler))

    @property
    def _scenario(self) -> Scenario:
        return find_scenario(self.scenario)

    @property
    def declared(self) -> Model:
        """The model's declaration."""
        return self._scenario.model(self.model)

    @property
    def uploaded(self) -> bool:
        """Whether the data are somebody's own, named by their digest."""
        return _UPLOAD.fullmatch(self.dataset) is not None

    def data(self, uploads: Uploads | None = None) -> Dataset:
        """The data set; InputError where an upload is not kept, or not for whom asks."""
        if self.uploaded:
            arrow = uploads(self.dataset) if uploads else None
            if arrow is None:
                raise InputError(
                    "data set",
                    "data that are kept here and that you may use",
                    f"upload {self.dataset[:12]}",
                    "Upload the file, or ask its owner for a complete link. The owner may have deleted "
                    "the data.",
                )
            # Asked for anew each time, as the right to the data may have ended; read once.
            return _read(self.scenario, arrow)
        return _load(self.scenario, self.dataset, self.data_seed, tuple(sorted(self.knobs.items())))

    def spec(self, dataset: Dataset) -> ModelSpec:
        """The model of this study for `dataset`."""
        return self.declared.spec(
            dataset, self.priors, self.constants, self.covariates, self.parameterization
        )

    def suited(self, dataset: Dataset) -> Study:
        """The same study, with the model that the data call for where its own cannot be built of them.

        Raises
        ------
        InputError
            Neither can be.
        """
        try:
            self.spec(dataset)
        except InputError:
            other = self._scenario.model_for(dataset)
            if other == self.model:
                raise
            return self.change(model=other, priors=self.priors)
        return self

    def request(self, dataset: Dataset) -> FitRequest:
        """The complete request: defaults filled in, so that its digest says everything."""
        # Several pages' parts ask for it in one run, and its digest is worked out only once.
        known, request = self.__dict__.get("_requested", (None, None))
        if known is not dataset:
            request = self._request(dataset)
            self.__dict__["_requested"] = dataset, request
        return request

    def _request(self, dataset: Dataset) -> FitRequest:
        spec = self.spec(dataset)
        return FitRequest(
            scenario=self.scenario,
            data=dataset.digest,
            model=self.model,
            priors=spec.priors,
            constants=spec.constants,
            covariates=self.covariates,
            parameterization=self.parameterization,
            engine=self.engine,
            sampler=self.sampler,
            model_version=self._scenario.model_version,
        )

    def change(self, **changes: Any) -> Study:
        """A changed copy. A new scenario, data set or model drops what was said about the old one.

        Numbers that were chosen for one data set mean nothing for another, so priors, constants and
        covariates return to the new defaults; so does a parameterization that nobody chose, or that the new
        model lacks.
        """
        if changes.get("scenario", self.scenario) != self.scenario:
            return replace(
                Study.default(changes["scenario"]), **{k: v for k, v in changes.items() if k != "scenario"}
            )
        moved_data = changes.get("dataset", self.dataset) != self.dataset
        moved_model = changes.get("model", self.model) != self.model
        if moved_data:
            changes.setdefault("unit", None)
            changes.setdefault("parameter", None)
            changes.setdefault("knobs", {})
            changes.setdefault("covariates", ())
        if moved_data or moved_model:
            changes.setdefault("priors", {})
            changes.setdefault("constants", {})
        if moved_model:
            geometries = self._scenario.model(changes["model"]).parameterizations
            default = self.declared.parameterizations[0]
            if self.parameterization == default or self.parameterization not in geometries:
                changes.setdefault("parameterization", "")
        if self.engine == self.declared.usual_engine(self.parameterization):
            # Nobody chose it, or it makes no difference.
            changes.setdefault("engine", "")
        if "sampler" in changes:
            return replace(self, **changes)
        # Settings may make no sense for the other engine: they come along afterwards.
        moved = replace(
            self, **changes, sampler=usual_settings(changes.get("engine", self.engine), Sampler())
        )
        return replace(moved, sampler=self._settings_for(moved.engine))

    def _settings_for(self, engine: str) -> Sampler:
        """The settings as far as they mean the same under an engine."""
        if engine == self.engine:
            return self.sampler
        before, usual = (usual_settings(one, self._usual_settings) for one in (self.engine, engine))
        if "tempering" in (engine, self.engine):
            # Chains, draws and target mean other things there; the seed does not.
            return replace(usual, seed=self.sampler.seed)
        if self.sampler.target_accept == before.target_accept:
            return replace(self.sampler, target_accept=usual.target_accept)
        return self.sampler

    @cached_property
    def query(self) -> dict[str, str]:
        """URL parameters that reopen exactly this study: what differs from the scenario's default."""
        base = Study.default(self.scenario)
        found: dict[str, str] = {"scenario": self.scenario}
        for name in ("dataset", "model"):
            if getattr(self, name) != getattr(base, name):
                found[name] = getattr(self, name)
        if self.dataset == SIMULATED:
            found["data_seed"] = str(self.data_seed)
            found |= {f"knob.{name}": _plain(value) for name, value in self.knobs.items()}
        found |= {f"prior.{name}": prior.text for name, prior in self.priors.items()}
        found |= {f"constant.{name}": _plain(value) for name, value in self.constants.items()}
        if self.covariates:
            found["covariates"] = "|".join(self.covariates)
        if self.parameterization != self.declared.parameterizations[0]:
            found["parameterization"] = self.parameterization
        if self.engine != self.declared.usual_engine(self.parameterization):
            found["engine"] = self.engine
        usual = usual_settings(self.engine, self._usual_settings)
        for name in _SAMPLER_KEYS:
            if getattr(self.sampler, name) != getattr(usual, name):
                found[name] = _plain(getattr(self.sampler, name))
        found |= {name: value for name in ("unit", "parameter") if (value := getattr(self, name)) is not None}
        return found

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Study:
        """Inverse of `query`; InputError names the parameter that makes no sense.

        The command line and the browser's address both come through here.
        """
        for name, value in query.items():
            _check_parameter(name, value)
        base = cls.default(find_scenario(query["scenario"]).id if "scenario" in query else None)
        values: dict[str, Any] = {
            name: query[name]
            for name in ("dataset", "model", "parameterization", "engine", "unit", "parameter")
            if name in query
        }
        if "data_seed" in query:
            values["data_seed"] = int(_number("data_seed", query["data_seed"], whole=True))
        groups: dict[str, dict[str, Any]] = {"knob": {}, "prior": {}, "constant": {}}
        for key, value in query.items():
            group, _, name = key.partition(".")
            if group in groups:
                groups[group][name] = value
        values["knobs"] = groups["knob"]
        values["priors"] = {name: Prior.parse(text) for name, text in groups["prior"].items()}
        values["constants"] = {name: _number(name, text) for name, text in groups["constant"].items()}
        if query.get("covariates"):
            values["covariates"] = tuple(query["covariates"].split("|"))
        settings: dict[str, Any] = {
            name: _number(name, query[name], whole=name != "target_accept")
            for name in _SAMPLER_KEYS
            if name in query
        }
        bare = replace(base, **{"parameterization": "", "engine": "", "sampler": Sampler(), **values})
        usual = usual_settings(bare.engine, base._usual_settings)
        study = replace(bare, sampler=replace(usual, **settings))
        if study.priors or study.constants or study.covariates:
            study._check_names()
        return study

    def _check_names(self) -> None:
        """Refuse priors on parameters that the model lacks before any data are at hand."""
        known = self.declared.families
        for name in self.priors:
            if name not in known:
                raise InputError("prior", "one of the parameters " + ", ".join(known), repr(name))


def _blocked(scenario: Scenario) -> str:
    found = [f"{id} in {model.blocked}" for id, model in scenario.models.items() if model.blocked]
    return ", ".join(found) or f"none of scenario {scenario.id}"


def _check_parameter(name: str, value: str) -> None:
    """Refuse a parameter that nobody knows, or whose text is too long or not text."""
    subject = f"parameter {name[:40]!r}"
    if len(name) > _LONGEST or len(value) > _LONGEST:
        raise InputError(subject, f"at most {_LONGEST} characters", f"{max(len(name), len(value)):,}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name + value):
        raise InputError(subject, "text without control characters", repr(value))
    group, dot, rest = name.partition(".")
    if name not in PARAMETERS and not (group in _GROUPS and dot and rest):
        known = ", ".join((*PARAMETERS, *(f"{one}.NAME" for one in _GROUPS)))
        raise InputError("link", f"the parameters {known}", repr(name))


def _plain(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return text[:-2] if text.endswith(".0") else text


def _number(name: str, text: str, whole: bool = False) -> float:
    try:
        value = read_number(text)
    except ValueError:
        raise InputError(f"parameter {name}", "a number", repr(text)) from None
    if value != value or abs(value) > 1e300 or (whole and value != int(value)):
        raise InputError(f"parameter {name}", "a whole number" if whole else "a finite number", repr(text))
    return int(value) if whole else value


@lru_cache(maxsize=64)
def _load(scenario: str, dataset: str, seed: int, knobs: tuple[tuple[str, Any], ...]) -> Dataset:
    found = find_scenario(scenario)
    return found.simulate(seed, **dict(knobs)) if dataset == SIMULATED else found.dataset(dataset)


@lru_cache(maxsize=16)
def _read(scenario: str, arrow: bytes) -> Dataset:
    found = find_scenario(scenario).read(table_from_arrow(arrow))
    return replace(found, words=_words(scenario, found))


def _words(scenario: str, found: Dataset) -> Words:
    """Words of a table: a built-in one's, where most of its rows are still its own; it was edited."""
    if len(found.table) > _LONGEST_EDITED:
        return found.words
    for name in find_scenario(scenario).datasets:
        built_in = _load(scenario, name, 1, ())
        shared = [column for column in built_in.table if column in found.table]
        own = set(built_in.table[shared].itertuples(index=False, name=None))
        kept = sum(row in own for row in found.table[shared].itertuples(index=False, name=None))
        if 2 * kept > max(len(own), len(found.table)):
            return built_in.words
    return found.words
