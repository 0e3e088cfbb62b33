"""Scenarios, found by looking: every module here that defines ``SCENARIO``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from hbm_core.errors import InputError
from hbm_core.scenarios.base import Scenario


@cache
def scenarios() -> Mapping[str, Scenario]:
    """All scenarios by id, in the order of their ``order`` attribute, then id."""
    found = []
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if isinstance(candidate := getattr(module, "SCENARIO", None), Scenario):
            found.append(candidate)
    found.sort(key=lambda scenario: (getattr(scenario, "order", 100), scenario.id))
    return MappingProxyType({scenario.id: scenario for scenario in found})


def scenario(id: str) -> Scenario:
    """The scenario `id`; InputError for an unknown one."""
    if id not in scenarios():
        raise InputError("scenario", "one of " + ", ".join(scenarios()), repr(id))
    return scenarios()[id]
