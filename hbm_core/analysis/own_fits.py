"""Each circuit on its own: least squares under the declared priors, with the curvature's standard errors.

The classical answer that pooling is compared with: unlike `hbm_core.models.pymc_circuits.rough_fit`, which
shapes a sampler's coordinates and weighs readings by themselves, each is the mode of its circuit's own
posterior. It imports the solver, and with it numba, when it runs.

Letters: y readings of a course with gain g, f the curve, D = diag(σ₀² m^2γ), so that a course has the
covariance V = D + s² f fᵀ; J = ∂f/∂θ; P the inverse prior variances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import least_squares

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.kinetics.program import program
from hbm_core.models.pymc_circuits import FLOOR, smooth_positive

#: γ, and σ₀ and s before the data have told them.
_EXPONENT, _NOISE, _GAIN = 0.77, 0.3, 0.04
#: Fits with noise and gain estimated anew before each.
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class OwnFits:
    """What each circuit's readings say without the others'.

    Parameters
    ----------
    theta, sd : ndarray (C, P)
        Mode and curvature sd of the fitted parameters, log10; prior median and sd of those a circuit does
        not use.
    curve, prior_curve : ndarray (points,)
        Curves there, and at the prior medians.
    noise, gain : float
        σ₀ and s, of all circuits together.
    """

    theta: np.ndarray
    sd: np.ndarray
    curve: np.ndarray
    prior_curve: np.ndarray
    noise: float
    gain: float


def own_fits(structure: CircuitPopulation, value: np.ndarray | None = None) -> OwnFits:
    """Fit every circuit by itself.

    θ̂ minimises Σ (y − f)ᵀ V⁻¹ (y − f) + (θ − a)ᵀ P (θ − a); its sds are those of (Jᵀ V⁻¹ J + P)⁻¹. σ₀ is
    what is left within courses once each has its gain, s what gains of one condition's courses differ by.

    Parameters
    ----------
    structure : CircuitPopulation
        Data and mechanisms.
    value : ndarray (N,), optional
        Readings in the curves' unit, where those of the structure are not.
    """
    from hbm_core.models.kinetics.solver import curves, curves_and_slopes

    value = structure.value if value is None else value
    declared = [structure.declared[name] for name in structure.columns]
    center, width = (np.array([getattr(one, name) for one in declared]) for name in ("center", "sd"))
    size, count = len(structure.fitted), len(structure.units)
    theta, noise, gain = np.tile(center, (count, 1)), _NOISE, _GAIN
    sd = np.tile(width[:size], (count, 1))
    circuit = np.searchsorted(structure.tables.starts[:, 2], structure.point, side="right") - 1
    prior_curve = curves(structure.tables, theta)
    # Weights follow the readings at first: a curve at prior medians may be far off.
    level = np.maximum(value, 0.0)
    for turn in range(_ROUNDS):
        for c, experiment in enumerate(structure.experiments):
            own = np.flatnonzero(circuit == c)
            tables = program([experiment], structure.columns)
            point = structure.point[own] - structure.tables.starts[c, 2]
            whiten = _whitening(structure.course[own], level[own], noise, gain)

            def residual(x: np.ndarray, c: int = c, tables: Any = tables, point: Any = point,
                         own: Any = own, whiten: Any = whiten) -> np.ndarray:  # fmt: skip
                f = curves(tables, np.concatenate([x, theta[c, size:]])[None])[point]
                gap = whiten(np.nan_to_num(value[own] - f, nan=1e6)[:, None])[:, 0]
                return np.concatenate([gap, (x - center[:size]) / width[:size]])

            def slope(x: np.ndarray, c: int = c, tables: Any = tables, point: Any = point,
                      whiten: Any = whiten) -> np.ndarray:  # fmt: skip
                moved = curves_and_slopes(tables, np.concatenate([x, theta[c, size:]])[None])[1]
                rows = whiten(-np.nan_to_num(moved[point][:, :size]))
                return np.concatenate([rows, np.diag(1 / width[:size])])

            fit = least_squares(residual, theta[c, :size], slope, max_nfev=60)
            theta[c, :size] = fit.x
            jacobian = slope(fit.x)
            sd[c] = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
        curve = curves(structure.tables, theta)
        level = curve[structure.point]
        if turn < _ROUNDS - 1:
            noise, gain = _noise(structure, value, level)
    return OwnFits(theta[:, :size], sd, curve, prior_curve, noise, gain)


def _whitening(course: np.ndarray, level: np.ndarray, noise: float, gain: float) -> Any:
    """A function that multiplies rows by V^(-1/2), course by course."""
    scale = noise * smooth_positive(level, FLOOR) ** _EXPONENT
    parts = []
    for one in np.unique(course):
        here = np.flatnonzero(course == one)
        covariance = np.diag(scale[here] ** 2) + gain**2 * np.outer(level[here], level[here])
        parts.append((here, cholesky(covariance, lower=True)))

    def whiten(rows: np.ndarray) -> np.ndarray:
        found = np.empty_like(rows)
        for here, factor in parts:
            found[here] = solve_triangular(factor, rows[here], lower=True)
        return found

    return whiten


def _noise(structure: CircuitPopulation, value: np.ndarray, level: np.ndarray) -> tuple[float, float]:
    """σ₀ and s by moments, from residuals of all circuits."""
    course = structure.course
    scale = smooth_positive(level, FLOOR) ** _EXPONENT
    weight, gap = 1 / scale**2, value - level
    count = int(course.max()) + 1
    square = np.bincount(course, weight * level**2, count)
    strength = np.maximum(square, 1e-12)
    shift = np.bincount(course, weight * level * gap, count) / strength
    left = gap - shift[course] * level
    free = max(value.size - count - structure.uses.sum(), 1)
    noise = float(np.sqrt((weight * left**2).sum() / free))
    # Replicates of one condition read the same points.
    condition = np.zeros(count, dtype=int)
    condition[course] = _conditions(structure)[structure.point]
    # Courses at 0 tell nothing of gains.
    told = square > (noise / 0.2) ** 2
    between, degrees, chance = 0.0, 0, []
    for one in np.unique(condition[told]):
        here = told & (condition == one)
        if here.sum() > 1:
            between += float(((shift[here] - shift[here].mean()) ** 2).sum())
            degrees += int(here.sum()) - 1
            chance.append(float((noise**2 / strength[here]).mean()))
    if not degrees:
        return max(noise, 1e-9), _GAIN
    return max(noise, 1e-9), float(np.sqrt(max(between / degrees - np.mean(chance), 1e-6)))


def _conditions(structure: CircuitPopulation) -> np.ndarray:
    """Place of the condition of each point on all curves."""
    lengths = [e.times.size for e in structure.experiments for _ in e.conditions]
    return np.repeat(np.arange(len(lengths)), lengths)
