"""Every mechanism that data can name, and all their parameters: a new one is one more entry here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hbm_core.models.kinetics.absorption import ABSORPTION
from hbm_core.models.kinetics.mechanism import Mechanism, Parameter
from hbm_core.models.kinetics.rna import CIRCUITS

MECHANISMS: Mapping[str, Mechanism] = MappingProxyType(
    {one.id: one for one in (*CIRCUITS.values(), ABSORPTION)}
)
#: Parameters of all mechanisms by name; mechanisms that share a name share the parameter.
PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {name: one.parameters[name] for one in MECHANISMS.values() for name in one.parameters}
)
