"""The frozen request that describes a fit; its digest is the fit's identity."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from hbm_core.errors import InputError
from hbm_core.inference.sampler import Sampler
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios import scenario

SCHEMA_VERSION = 1
ENGINES = ("nuts", "exact")
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
        if not _DIGEST.fullmatch(self.data):
            raise InputError("data digest", "64 hexadecimal digits", self.data)
        if self.engine not in ENGINES:
            raise InputError("engine", "one of " + ", ".join(ENGINES), repr(self.engine))
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
        """Inverse of `as_dict`."""
        given = dict(value)
        given["priors"] = {name: Prior.parse(text) for name, text in given["priors"].items()}
        given["covariates"] = tuple(given["covariates"])
        given["sampler"] = Sampler(**given["sampler"])
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
