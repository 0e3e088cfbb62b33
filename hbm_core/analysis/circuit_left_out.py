"""Leave one condition out: how well circuits predict a dose that they were not shown.

Leaving out a whole condition rarely survives importance weights, so the model is sampled again without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from hbm_core.errors import InputError
from hbm_core.inference.recipes import recipe
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.structure import ModelSpec

Spec = ModelSpec[CircuitPopulation]


def owners(structure: CircuitPopulation) -> np.ndarray:
    """The condition of each reading, counted over all circuits in order, ndarray (N,) of int."""
    lengths = [e.times.size for e in structure.experiments for _ in e.conditions]
    return np.repeat(np.arange(len(lengths)), lengths)[structure.point]


def without(spec: Spec, condition: int) -> Spec:
    """The model without a condition's readings; its curves stay, so that draws predict it.

    Parameters
    ----------
    spec : ModelSpec
        The model with all readings.
    condition : int
        Counted over all circuits in order, as the units of a result's ``log_likelihood``.

    Raises
    ------
    InputError
        No such condition, or no reading would be left.
    """
    structure = spec.structure
    owner = owners(structure)
    kept = owner != condition
    if kept.all() or not kept.any():
        raise InputError(
            "condition left out", "one that has readings, and another one that has some", condition
        )
    return keeping(spec, kept)


def keeping(spec: Spec, kept: np.ndarray) -> Spec:
    """The model with some of its readings, by a mask over them; all curves stay."""
    structure = spec.structure
    course = np.unique(structure.course[kept], return_inverse=True)[1]
    made = replace(structure, value=structure.value[kept], point=structure.point[kept], course=course)
    return replace(spec, structure=made)


def left_out(
    spec: Spec, draws_of: Callable[[Spec], Any], conditions: Iterable[int] | None = None
) -> pd.DataFrame:
    """Log predictive density of each condition, from draws that have not seen it.

    Parameters
    ----------
    spec : ModelSpec
        The model with all readings.
    draws_of : callable
        From a model to a result with a group ``posterior``, as `hbm_core.inference.nuts.sample` gives it.
    conditions : iterable of int, optional
        Which ones; all by default.

    Returns
    -------
    pandas.DataFrame
        circuit, condition, readings, lpd (nats; log of the mean density over the draws), spread (sd over the
        draws of the log density), largest_share (of the sum of densities that is one draw's: near 1 the mean
        hangs on it and is most likely too low).
    """
    structure, how = spec.structure, recipe(spec)
    labels = [
        (unit, label)
        for unit, names in zip(structure.units, structure.conditions, strict=True)
        for label in names
    ]
    counts = np.bincount(owners(structure), minlength=len(labels))
    rows = []
    for place in range(len(labels)) if conditions is None else conditions:
        posterior = draws_of(without(spec, place))["posterior"]
        draws = {
            name: values.transpose("chain", "draw", ...).to_numpy().reshape(-1, *values.shape[2:])
            for name, values in posterior.data_vars.items()
        }
        density = how.log_likelihood(spec, draws)
        assert density is not None
        own = density[:, place]
        total = float(logsumexp(own))
        lpd, largest = total - np.log(own.size), float(np.exp(own.max() - total))
        rows.append((*labels[place], int(counts[place]), lpd, float(own.std()), largest))
    columns = ["circuit", "condition", "readings", "lpd", "spread", "largest_share"]
    return pd.DataFrame(rows, columns=columns)
