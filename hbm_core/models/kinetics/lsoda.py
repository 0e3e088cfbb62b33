"""Curves by SciPy's LSODA, for processes that must not load numba: values alone, a few curves at a time.

`hbm_core.models.kinetics.solver` is a hundred times as fast and has derivatives. This one starts at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.integrate import solve_ivp

from hbm_core.errors import FitError
from hbm_core.models.kinetics.mechanism import Form, Rate
from hbm_core.models.kinetics.program import Experiment

_RELATIVE, _ABSOLUTE = 1e-8, 1e-9


def curves(experiment: Experiment, constants: Mapping[str, float]) -> np.ndarray:
    """Curves of one experiment.

    With x the species' amounts, rates are r = b (A x + a)(B x + c) s/(K + s), s = S x + d, and dx/dt = N r.

    Parameters
    ----------
    experiment : Experiment
        What is observed.
    constants : mapping of str to float
        The mechanism's parameters in their units.

    Returns
    -------
    ndarray (conditions, T)
        The observed species' amounts, differences to the baseline where there is one.

    Raises
    ------
    FitError
        LSODA could not solve it.
    """
    return np.array([_curve(experiment, condition, constants) for condition in experiment.conditions])


def _curve(
    experiment: Experiment, condition: Mapping[str, float], constants: Mapping[str, float]
) -> np.ndarray:
    mechanism = experiment.mechanism
    species, reactions = list(mechanism.species), mechanism.parsed
    doses = {name: float(condition.get(name, 0.0)) for name in mechanism.inputs}

    def row(form: Form | None) -> tuple[np.ndarray, float]:
        """Coefficients of a form; without one, a constant 1."""
        found = np.zeros(len(species))
        for number, given, name in form.terms if form else ():
            found[species.index(name)] += number * (doses[given] if given else 1.0)
        return found, 0.0 if form else 1.0

    rates = [reaction.rate for reaction in reactions]
    base = np.array([_factor(rate, doses, constants) for rate in rates])
    forms = [
        [row(rate.forms[place] if place < len(rate.forms) else None) for rate in rates] for place in (0, 1)
    ]
    (first, a), (second, c) = (
        (np.array([r for r, _ in part]), np.array([v for _, v in part])) for part in forms
    )
    held = [row(rate.saturated[0] if rate.saturated else None) for rate in rates]
    third, d = np.array([r for r, _ in held]), np.array([v for _, v in held])
    half = np.array([constants[rate.saturated[1]] if rate.saturated else 0.0 for rate in rates])
    moves = np.zeros((len(species), len(rates)))
    for place, reaction in enumerate(reactions):
        for name, change in reaction.changes:
            moves[species.index(name), place] += change

    def slope(t: float, x: np.ndarray) -> np.ndarray:
        s = third @ x + d
        return moves @ (base * (first @ x + a) * (second @ x + c) * (s / (half + s)))

    def jacobian(t: float, x: np.ndarray) -> np.ndarray:
        u, v, s = first @ x + a, second @ x + c, third @ x + d
        q = s / (half + s)
        inner = (v * q)[:, None] * first + (u * q)[:, None] * second
        inner = inner + (u * v * half / (half + s) ** 2)[:, None] * third
        return moves @ (base[:, None] * inner)

    start = np.array(
        [
            _factor(mechanism.starts[name], doses, constants) if name in mechanism.starts else 0.0
            for name in species
        ]
    )
    times = experiment.baseline + experiment.times
    asked = np.concatenate([[experiment.baseline], times]) if experiment.baseline else times
    made = solve_ivp(
        slope, (0.0, times[-1]), start, "LSODA", asked, rtol=_RELATIVE, atol=_ABSOLUTE, jac=jacobian
    )
    if not made.success:
        raise FitError(f"The curve of mechanism {mechanism.id} could not be solved: {made.message}")
    found = made.y[species.index(mechanism.observed)]
    return found[1:] - found[0] if experiment.baseline else found


def _factor(rate: Rate, doses: Mapping[str, float], constants: Mapping[str, float]) -> float:
    """What does not depend on species."""
    value = rate.number * math.prod(constants[name] ** power for name, power in rate.powers)
    value *= math.prod(doses[name] for name in rate.inputs)
    for name, half in rate.saturated_inputs:
        value *= doses[name] / (constants[half] + doses[name])
    return value
