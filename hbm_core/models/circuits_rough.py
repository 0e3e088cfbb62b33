"""Circuits by least squares: readings and their weights, a rough fit of the population, the noise.

It changes no posterior: samplers take their coordinates and starts from it. It needs no PyMC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from scipy.optimize import least_squares, minimize

from hbm_core.models.circuits import FLOOR, POWERS, CircuitPopulation, smooth_positive

Whiten = Callable[[np.ndarray], np.ndarray]
#: Sd of circuits around their population, decades, while nothing is known of it.
SPREAD = 0.25
#: A curve that could not be solved: far from every reading.
FAR = 1e9
#: Noise that circuits are first fitted with: sd = 0.3 m^0.77, about what was measured.
_NOISE, _EXPONENT, _GAIN = 0.3, 0.77, 0.05
#: Factors of the noise, one fit after the other; the solver's steps with each.
_LOOSE, _STEPS = (30.0, 10.0, 3.0, 1.0), 60
_ROUGH: WeakKeyDictionary[CircuitPopulation, RoughFit] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Readings:
    """Readings as amounts, the circuit of each, and priors' centres and sds of all columns."""

    structure: CircuitPopulation
    value: np.ndarray
    circuit: np.ndarray
    center: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, structure: CircuitPopulation) -> Readings:
        """Those of `structure`; what an instrument read is turned into amounts by the standards' line."""
        value = structure.value
        if structure.standards.size:
            amount, reading = structure.standards.T
            slope, offset = np.polyfit(amount, reading, 1)
            value = (value - offset) / slope
        circuit = np.searchsorted(structure.tables.starts[1:, 2], structure.point, side="right")
        declared = [structure.declared[name] for name in structure.columns]
        center = np.array([parameter.center for parameter in declared])
        return cls(structure, value, circuit, center, np.array([parameter.sd for parameter in declared]))

    def solved(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Curve at every reading, and its derivatives by the fitted parameters of its circuit."""
        from hbm_core.models.kinetics.solver import curves_and_slopes

        size, made = theta.shape[1], self.structure
        rest = np.broadcast_to(self.center[size:], (len(theta), self.center.size - size))
        f, slopes = curves_and_slopes(made.tables, np.concatenate([theta, rest], axis=1))
        return np.nan_to_num(f[made.point], nan=FAR), np.nan_to_num(slopes[made.point, :size])

    def replicates(self) -> np.ndarray:
        """How many readings share each reading's point, ndarray (N,)."""
        return np.bincount(self.structure.point)[self.structure.point]

    def repeated(self) -> np.ndarray:
        """Which readings have another one beside them, ndarray (N,) of bool."""
        return self.replicates() > 1

    def mean(self) -> np.ndarray:
        """Mean of the readings at each reading's point, ndarray (N,)."""
        point = self.structure.point
        return np.bincount(point, self.value)[point] / self.replicates()

    def whitening(self, noise: np.ndarray, level: np.ndarray | None = None) -> Whiten:
        """Multiplies rows by a root of the readings' inverse covariance, D + s² m mᵀ for each course.

        Parameters
        ----------
        noise : ndarray (3,)
            log σ₀, γ and s.
        level : ndarray (N,), optional
            Means m of the readings, by which they are weighed; by the readings themselves otherwise.
        """
        course, level = self.structure.course, self.value if level is None else level
        root = np.exp(-noise[0]) * smooth_positive(level, FLOOR) ** -noise[1]
        lean = level * root
        total = np.bincount(course, lean**2)
        # (I + s² a aᵀ)^−½ = I − κ a aᵀ/|a|², course by course.
        share = (1 - 1 / np.sqrt(1 + noise[2] ** 2 * total)) / np.maximum(total, 1e-300)

        def whiten(rows: np.ndarray) -> np.ndarray:
            rows = rows * root[:, None]
            along = np.zeros((total.size, rows.shape[1]))
            np.add.at(along, course, lean[:, None] * rows)
            return rows - lean[:, None] * (share[:, None] * along)[course]

        return whiten


@dataclass(frozen=True, eq=False)
class RoughFit:
    """Where circuits lie and how well their readings tell it: what shapes the sampler's coordinates.

    Parameters
    ----------
    alpha : ndarray (P,)
        The population's means, log10.
    theta : ndarray (C, P)
        Each circuit's fit under a population of sd ``SPREAD`` around them.
    covariance : ndarray (C, P, P)
        Of each circuit's θ around its fit, by curvature and priors.
    noise : ndarray (3,)
        log σ₀, γ and the sd of the gains' logs.
    """

    alpha: np.ndarray
    theta: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray


def rough_fit(structure: CircuitPopulation) -> RoughFit:
    """Circuits and population together, and the noise, in turn: generalised least squares, declared priors.

    Gauss–Newton's curvature, gains to first order: a course's readings have the covariance D + s² f fᵀ. It
    changes no posterior, only the coordinates in which it is sampled and where chains start.
    """
    if structure in _ROUGH:
        return _ROUGH[structure]
    readings, power = Readings.of(structure), POWERS.get(structure.noise)
    size, count = len(structure.fitted), len(structure.units)
    center, sd = readings.center[:size], readings.sd[:size]
    noise = np.array([np.log(_NOISE), _EXPONENT if power is None else power, _GAIN * structure.has_gain])
    repeated = readings.repeated()
    if repeated.any():
        noise = fitted_noise(structure, readings.value[repeated], readings.mean()[repeated], repeated, noise)
        # A mean of n replicates is nearer to them than their curve.
        share = float(readings.replicates()[repeated].mean())
        inflate = np.sqrt(share / (share - 1))
        noise = np.array([noise[0] + np.log(inflate), noise[1], noise[2] * inflate])
    pooled = structure.pooling != "independent"
    # x = (α, θ): without pooling α is not heard of, and each circuit has the prior for itself.
    wide = np.full(size, SPREAD) if pooled else sd
    tied = np.kron(np.full((count, 1), -1.0 if pooled else 0.0), np.diag(1 / wide))
    prior = np.block(
        [
            [np.diag(1 / sd), np.zeros((size, count * size))],
            [tied, np.kron(np.eye(count), np.diag(1 / wide))],
        ]
    )
    known = np.concatenate([center / sd, np.zeros(count * size) if pooled else np.tile(center / sd, count)])
    x = np.tile(center, count + 1)
    # Loose readings first: what they ask for exactly has minima far from the priors.
    for factor in _LOOSE:
        looser = np.array([np.log(factor), 0.0, (factor - 1) * noise[2]])
        x = nearest(readings, readings.whitening(noise + looser), prior, known, x)
        theta = x[size:].reshape(count, size)
        if not repeated.any():
            f = readings.solved(theta)[0]
            noise = fitted_noise(structure, readings.value, f, np.ones(f.size, dtype=bool), noise)
    rows = sloped(readings, readings.whitening(noise), prior, x)
    joint = np.linalg.inv(rows.T @ rows)
    own = [slice(size * c, size * (c + 1)) for c in range(1, count + 1)]
    _ROUGH[structure] = RoughFit(x[:size], theta, np.array([joint[c, c] for c in own]), noise)
    return _ROUGH[structure]


def nearest(
    readings: Readings, whiten: Whiten, prior: np.ndarray, known: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Generalised least squares under a normal prior, from x = (what else there is, θ of each circuit) on.

    Parameters
    ----------
    readings : Readings
        What is fitted.
    whiten : callable
        As `Readings.whitening` gives it.
    prior : ndarray (R, X)
        Rows of the prior's own residuals, prior x − known.
    known : ndarray (R,)
    x : ndarray (X,)
        Where to begin.

    Returns
    -------
    ndarray (X,)
    """
    size = len(readings.structure.fitted)
    first = x.size - len(readings.structure.units) * size

    def residual(x: np.ndarray) -> np.ndarray:
        gap = readings.solved(x[first:].reshape(-1, size))[0] - readings.value
        return np.concatenate([whiten(gap[:, None])[:, 0], prior @ x - known])

    return least_squares(residual, x, lambda x: sloped(readings, whiten, prior, x), max_nfev=_STEPS).x


def sloped(readings: Readings, whiten: Whiten, prior: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Derivatives of the residuals that `nearest` squares, ndarray (N + R, X)."""
    size = len(readings.structure.fitted)
    first = x.size - len(readings.structure.units) * size
    rows = whiten(readings.solved(x[first:].reshape(-1, size))[1])
    wide = np.zeros((rows.shape[0], x.size))
    columns = first + size * readings.circuit[:, None] + np.arange(size)
    np.put_along_axis(wide, columns, rows, axis=1)
    return np.concatenate([wide, prior])


def fitted_noise(
    structure: CircuitPopulation, value: np.ndarray, mean: np.ndarray, used: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Log σ₀, γ and s that the `used` readings ask for, given their means."""
    from hbm_core.models.circuits_rule import weigh

    point = np.arange(value.size)
    course = np.unique(structure.course[used], return_inverse=True)[1]
    free = np.array([True, structure.noise == "power", structure.has_gain])

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        noise, slopes = start.copy(), (np.empty(value.size), np.empty(3), np.empty(value.size))
        noise[free] = x
        total = weigh(mean, noise, FLOOR, value, point, course, *slopes)
        return -total, -slopes[1][free]

    bounds = np.array([(-15.0, 10.0), (0.0, 1.5), (1e-3, 1.0)])[free]
    found = start.copy()
    found[free] = minimize(cost, start[free], jac=True, method="L-BFGS-B", bounds=bounds).x
    return found
