"""The frozen request that describes a fit; its digest is the fit's identity."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from hbm_core.errors import InputError
from hbm_core.inference.sampler import Sampler, check_settings
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios import scenario

SCHEMA_VERSION = 1
ENGINES = ("nuts", "blocked", "exact", "variational", "tempering")
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Characters of a text and entries of a mapping or list in a request: far above what any model has.
_LONGEST, _MOST = 400, 1000


@cache
def engine_versions() -> Mapping[str, str]:
    """Versions of what computes a fit, without importing any of it."""
    found = {}
    for name in ("pymc", "pytensor", "nutpie", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return MappingProxyType(found)


@dataclass(frozen=True)
class FitRequest:
    """Everything that decides a fit's draws, and nothing else.

    Parameters
    ----------
    scenario, model : str
        Ids.
    data : str
        sha256 of the data set's canonical Arrow bytes.
    priors : mapping of str to Prior
        Complete: one per parameter.
    constants : mapping of str to float
        Complete.
    covariates : tuple of str
        Columns of the data that enter as moderators.
    parameterization, engine : str
        Geometry and engine id.
    sampler : Sampler
        Its settings; ignored by engines that do not sample.
    model_version, schema : int
        Raised when meaning changes.
    versions : mapping of str to str
        What computes the fit.

    Examples
    --------
    The digest depends on content alone, in no process on the order in which mappings were filled:

    >>> common = dict(scenario="schools", data="0" * 64, model="weak", versions={"pymc": "6"})
    >>> mu, tau = Prior.parse("Normal(0, 20)"), Prior.parse("HalfCauchy(10)")
    >>> a = FitRequest(priors={"mu": mu, "tau": tau}, **common)
    >>> b = FitRequest(priors={"tau": tau, "mu": mu}, **common)
    >>> a.digest == b.digest, len(a.digest)
    (True, 64)
    """

    scenario: str
    data: str
    model: str
    priors: Mapping[str, Prior]
    constants: Mapping[str, float] = field(default_factory=dict)
    covariates: tuple[str, ...] = ()
    parameterization: str = "noncentered"
    engine: str = "nuts"
    sampler: Sampler = field(default_factory=Sampler)
    model_version: int = 1
    schema: int = SCHEMA_VERSION
    versions: Mapping[str, str] = field(default_factory=engine_versions)

    def __post_init__(self) -> None:
        if not (isinstance(self.data, str) and _DIGEST.fullmatch(self.data)):
            raise InputError("data digest", "64 hexadecimal digits", self.data)
        if self.engine not in ENGINES:
            raise InputError("engine", "one of " + ", ".join(ENGINES), repr(self.engine))
        check_settings(self.engine, self.sampler)
        for name in ("scenario", "model", "parameterization"):
            _text(name, getattr(self, name))
        for name in ("model_version", "schema"):
            _count(name, getattr(self, name))
        for name, value in self.constants.items():
            _finite(f"constants, {name}", value)
        for name in ("priors", "constants", "versions"):
            ordered = dict(sorted(getattr(self, name).items()))
            object.__setattr__(self, name, MappingProxyType(ordered))
        object.__setattr__(self, "covariates", tuple(self.covariates))

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping: the canonical form before JSON."""
        return {
            "scenario": self.scenario,
            "data": self.data,
            "model": self.model,
            "priors": {name: prior.text for name, prior in self.priors.items()},
            "constants": dict(self.constants),
            "covariates": list(self.covariates),
            "parameterization": self.parameterization,
            "engine": self.engine,
            "sampler": self.sampler.as_dict(),
            "model_version": self.model_version,
            "schema": self.schema,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FitRequest:
        """Inverse of `as_dict`, for what anybody sends.

        Raises
        ------
        InputError
            A field is missing, unknown, or not of its kind; the message names it.
        """
        known = [declared.name for declared in fields(cls)]
        given = _mapping("", value, known)
        for name in ("scenario", "data", "model", "priors"):
            if name not in given:
                raise InputError(f"request, {name}", "a value", "none")
        priors = _mapping("priors", given["priors"])
        given["priors"] = {name: Prior.parse(_text(f"priors, {name}", text)) for name, text in priors.items()}
        if "constants" in given:
            given["constants"] = _mapping("constants", given["constants"])
        if "covariates" in given:
            listed = given["covariates"]
            if not isinstance(listed, list | tuple) or len(listed) > _MOST:
                raise InputError("request, covariates", f"a list of at most {_MOST} names", _kind(listed))
            given["covariates"] = tuple(_text("covariates", name) for name in listed)
        if "sampler" in given:
            settings = _mapping("sampler", given["sampler"], [item.name for item in fields(Sampler)])
            given["sampler"] = Sampler(**settings)
        if "versions" in given:
            versions = _mapping("versions", given["versions"])
            given["versions"] = {name: _text(f"versions, {name}", text) for name, text in versions.items()}
        return cls(**given)

    @cached_property
    def json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest digits."""
        return json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON: the fit's id."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    def spec(self, dataset: Dataset) -> ModelSpec:
        """The model to be fitted to `dataset`, whose digest must be the request's."""
        if dataset.digest != self.data:
            raise InputError("data", f"the data set {self.data[:12]}", dataset.digest[:12])
        return (
            scenario(self.scenario)
            .model(self.model)
            .spec(dataset, self.priors, self.constants, self.covariates, self.parameterization)
        )


def _kind(value: object) -> str:
    try:
        return f"{type(value).__name__} {value!r:.60}"
    except ValueError:
        return f"{type(value).__name__} of too many digits"


def _mapping(name: str, value: object, known: Sequence[str] = ()) -> dict[str, Any]:
    """`value` as a mapping of short names; only `known` ones where given."""
    subject = f"request, {name}" if name else "request"
    if not isinstance(value, Mapping) or len(value) > _MOST:
        raise InputError(subject, f"names and values, at most {_MOST}", _kind(value))
    for key in value:
        _text(name or "a field's name", key)
        if known and key not in known:
            raise InputError(subject, "the fields " + ", ".join(known), repr(key))
    return dict(value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise InputError(f"request, {name}", f"a text of 1 to {_LONGEST} characters", _kind(value))
    return value


def _count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise InputError(f"request, {name}", "a whole number from 0", _kind(value))


def _finite(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise InputError(f"request, {name}", "a finite number", _kind(value))
