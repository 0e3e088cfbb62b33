"""A fit as one file that can be carried elsewhere: netCDF with its request and its data inside."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset, table_from_arrow
from hbm_core.scenarios import scenario
from hbm_core.store.request import FitRequest
from hbm_core.store.results import _HDF5

_REQUEST, _DATA, _LABEL = "hbm_request", "hbm_data", "hbm_label"


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished fit with all that it was made from."""

    request: FitRequest
    dataset: Dataset
    tree: xr.DataTree


def write_fit(path: Path, fit: Fit) -> None:
    """Write a fit as netCDF; ArviZ and xarray read the file as any other."""
    tree = fit.tree.copy()
    tree.attrs |= {
        _REQUEST: fit.request.json,
        _DATA: base64.b64encode(fit.dataset.arrow).decode(),
        _LABEL: fit.dataset.label,
    }
    with _HDF5:
        tree.to_netcdf(path)


def read_fit(path: Path) -> Fit:
    """Inverse of `write_fit`.

    Raises
    ------
    InputError
        No netCDF, or one without a request inside.
    """
    expected = "a result file written by `hbm fit --out`"
    try:
        with xr.open_datatree(path) as opened:
            tree = opened.load()
        request = FitRequest.from_dict(json.loads(tree.attrs.pop(_REQUEST)))
        table = table_from_arrow(base64.b64decode(tree.attrs.pop(_DATA)))
        label = tree.attrs.pop(_LABEL)
    except (OSError, KeyError, ValueError) as problem:
        raise InputError("result file", expected, path.name) from problem
    return Fit(request, scenario(request.scenario).read(table, label=label), tree)
