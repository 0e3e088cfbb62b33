"""Curves of experiments, their derivatives and how far off they may be; numba is imported at first use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hbm_core.models.kinetics.program import Experiment, Program, Steps, program


def curves(tables: Program, theta: np.ndarray) -> np.ndarray:
    """Curves of all experiments.

    Parameters
    ----------
    tables : Program
        Experiments and the columns of `theta`.
    theta : ndarray (C, K)
        log10 of the parameters, a row per experiment.

    Returns
    -------
    ndarray (N,)
        Observed amounts by experiment, condition and time; NaN where a step could not be solved.
    """
    from hbm_core.models.kinetics.radau import solve

    return solve(_rows(theta), tables.ints, tables.floats, tables.starts)[0]


def curves_and_slopes(tables: Program, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curves as of `curves`, and their derivatives by the row of θ they belong to, ndarray (N, K)."""
    from hbm_core.models.kinetics.radau import slopes, solve

    given = _rows(theta), tables.ints, tables.floats, tables.starts
    values, record = solve(*given)
    return values, slopes(*given, record)


def error_estimate(
    experiments: Sequence[Experiment], columns: Sequence[str], theta: np.ndarray
) -> np.ndarray:
    """Largest difference to a solution with half the steps' length, as a share of each curve's maximum.

    Parameters
    ----------
    experiments, columns
        As of `program`.
    theta : ndarray (C, K)
        log10 of the parameters.

    Returns
    -------
    ndarray (curves,)
        One per experiment and condition; 0 where a curve is 0 throughout.
    """
    coarse, fine = (curves(program(experiments, columns, Steps(refine=refine)), theta) for refine in (1, 2))
    lengths = [experiment.times.size for experiment in experiments for _ in experiment.conditions]
    found, at = [], 0
    for length in lengths:
        here = slice(at, at + length)
        top = float(np.abs(fine[here]).max())
        found.append(float(np.abs(coarse[here] - fine[here]).max()) / top if top else 0.0)
        at += length
    return np.array(found)


def _rows(theta: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(theta, dtype=float)
