"""A result as a tree of labelled groups, whatever made the draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.recipes import recipe
from hbm_core.inference.sampler import Sampler
from hbm_core.models.structure import ModelSpec


def attributes(spec: ModelSpec, sampler: Sampler, stopped: str, **timings: float) -> dict[str, Any]:
    """How a result was made: whole or partial and why, geometry, settings, versions, `timings` in seconds."""
    return {
        "partial": int(bool(stopped)),
        "stopped": stopped,
        "parameterization": spec.parameterization,
        "sampler": json.dumps(sampler.as_dict()),
        "versions": json.dumps({name: version(name) for name in ("pymc", "pytensor", "nutpie", "numpy")}),
        **{f"timing_{name}": seconds for name, seconds in timings.items()},
    }


def result_tree(
    spec: ModelSpec,
    posterior: Mapping[str, np.ndarray],
    statistics: Mapping[str, np.ndarray] | None = None,
    likelihood: bool = True,
) -> xr.DataTree:
    """A result's groups from draws of all of the model's parameters.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    posterior : mapping of str to ndarray (chain, draw, …)
        By the structure's names.
    statistics : mapping of str to ndarray (chain, draw), optional
        Of a sampler; the group is absent without.
    likelihood : bool
        Whether the group ``log_likelihood`` is made, and what a recipe derives from finished draws.
    """
    how = recipe(spec)
    coords = {dim: list(labels) for dim, labels in how.coords(spec).items()}
    observed, constant = how.observed(spec)
    groups = {"posterior": _dataset(posterior, how.dims_of(spec), coords)}
    if statistics:
        groups["sample_stats"] = _dataset(statistics, {}, coords)
    groups |= {"observed_data": observed, "constant_data": constant}
    if likelihood:
        flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in posterior.items()}
        values = how.log_likelihood(spec, flat)
        groups |= how.derived(spec, posterior, values)
        if values is not None:
            shape = next(iter(posterior.values())).shape[:2]
            shaped = {"y": values.reshape(*shape, -1)}
            groups["log_likelihood"] = _dataset(shaped, {"y": ("unit",)}, coords)
    return xr.DataTree.from_dict(groups)


def _dataset(
    arrays: Mapping[str, np.ndarray], dims: Mapping[str, tuple[str, ...]], coords: Mapping[str, Any]
) -> xr.Dataset:
    found = {name: (("chain", "draw", *dims.get(name, ())), values) for name, values in arrays.items()}
    shape = next(iter(arrays.values())).shape
    used = {dim for name in arrays for dim in dims.get(name, ())}
    index = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    return xr.Dataset(found, coords=index | {dim: coords[dim] for dim in sorted(used)})
