"""Fits of single circuits, in a process of their own where numba is not loaded: the web process stays small.

Those of built-in data are shipped beside the data; any others are computed once per data set and kept. As a
program (``python -m hbm_core.scenarios.circuits.apart``) it reads a request from stdin and answers on stdout.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields, replace
from threading import Lock
from typing import Any

import numpy as np

from hbm_core.analysis.own_fits import OwnFits, own_fits
from hbm_core.errors import FitError
from hbm_core.models.circuits import CircuitPopulation, Role
from hbm_core.models.dataset import Dataset, table_from_arrow
from hbm_core.scenarios.circuits import built_in
from hbm_core.scenarios.circuits.data import structure

#: Longest wait; the solver is compiled once per installation, which takes most of it.
_SECONDS = 600
_MOST_KEPT = 32
_KEPT: OrderedDict[tuple[str, tuple[tuple[str, Role], ...]], OwnFits] = OrderedDict()
_LOCK = Lock()


def own(dataset: Dataset, made: CircuitPopulation) -> OwnFits:
    """What each circuit of `dataset` says by itself, computed once; `made` has the roles.

    Whatever noise and pooling `made` has: noise goes with a power of the mean, and courses have gains.

    Raises
    ------
    FitError
        The process that computes it failed.
    """
    key = dataset.digest, tuple(sorted(made.roles.items()))
    with _LOCK:
        if key not in _KEPT:
            _KEPT[key] = _shipped(*key) or _computed(dataset, made)
            while len(_KEPT) > _MOST_KEPT:
                _KEPT.popitem(last=False)
        _KEPT.move_to_end(key)
        return _KEPT[key]


def known(dataset: Dataset, made: CircuitPopulation) -> bool:
    """Whether `own` answers at once."""
    key = dataset.digest, tuple(sorted(made.roles.items()))
    return key in _KEPT or _shipped(*key) is not None


def _shipped(digest: str, roles: tuple[tuple[str, Role], ...]) -> OwnFits | None:
    found = built_in.own(digest)
    if found is None or tuple(sorted(found["roles"].items())) != roles:
        return None
    return from_plain(found["fits"])


def plain(fits: OwnFits) -> dict[str, Any]:
    """Numbers and lists, ready for JSON."""
    return {one.name: np.asarray(getattr(fits, one.name)).tolist() for one in fields(fits)}


def from_plain(found: Mapping[str, Any]) -> OwnFits:
    """Inverse of `plain`."""
    values: dict[str, Any] = {
        name: np.array(value) if isinstance(value, list) else value for name, value in found.items()
    }
    return OwnFits(**values)


def _computed(dataset: Dataset, made: CircuitPopulation) -> OwnFits:
    if "numba" in sys.modules:
        return own_fits(replace(made, noise="power"))
    request = {"table": base64.b64encode(dataset.arrow).decode(), "roles": dict(made.roles)}
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __name__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS,
        )
        return from_plain(json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError) as problem:
        raise FitError("The circuits could not be fitted one by one: the process that does it failed.") from (
            problem
        )


def _main() -> None:
    request = json.load(sys.stdin)
    table = table_from_arrow(base64.b64decode(request["table"]))
    json.dump(plain(own_fits(structure(table, roles=request["roles"]))), sys.stdout)


if __name__ == "__main__":
    _main()
