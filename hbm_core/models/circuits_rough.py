"""Circuits by least squares: readings and their weights, a rough fit of the population, the noise.

It changes no posterior: samplers take their coordinates and starts from it. It needs no PyMC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    """Readings as amounts, and priors' centres and sds of all columns."""

    structure: CircuitPopulation
    value: np.ndarray
    center: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, structure: CircuitPopulation) -> Readings:
        """Those of `structure`; what an instrument read is turned into amounts by the standards' line."""
        slope, offset = structure.standards_line
        declared = [structure.declared[name] for name in structure.columns]
        center = np.array([parameter.center for parameter in declared])
        sd = np.array([parameter.sd for parameter in declared])
        return cls(structure, (structure.value - offset) / slope, center, sd)

    def theta(self, x: np.ndarray) -> np.ndarray:
        """θ of each circuit, (C, P), which stand last in `x`."""
        count, size = len(self.structure.units), len(self.structure.fitted)
        return x[x.size - count * size :].reshape(count, size)

    def columns(self, theta: np.ndarray) -> np.ndarray:
        """The solver's matrix: θ, and the centres of what is not fitted."""
        rest = self.center[theta.shape[1] :]
        return np.concatenate([theta, np.broadcast_to(rest, (len(theta), rest.size))], axis=1)

    def curve(self, theta: np.ndarray) -> np.ndarray:
        """Curve at every reading, ndarray (N,)."""
        from hbm_core.models.kinetics.solver import curves

        made = self.structure
        return np.nan_to_num(curves(made.tables, self.columns(theta))[made.point], nan=FAR)

    def slopes(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of `curve` by the fitted parameters of each reading's circuit, ndarray (N, P)."""
        from hbm_core.models.kinetics.solver import curves_and_slopes

        made = self.structure
        found = curves_and_slopes(made.tables, self.columns(theta))[1]
        return np.nan_to_num(found[made.point, : theta.shape[1]])

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
        Each circuit's fit under a population of sd ``SPREAD`` around them; under its own priors where
        circuits are independent.
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
    readings, size, count = Readings.of(structure), len(structure.fitted), len(structure.units)
    center, sd = readings.center[:size], readings.sd[:size]
    noise = _first_noise(readings)
    if structure.pooling == "independent":
        (prior, known), alpha = apart(readings), center
        loosened = _loosened(readings, noise, prior, known, np.tile(center, count))[0]
        # Readings of one circuit have many minima; where the others lie is one more place to look.
        together = rough_fit(replace(structure, pooling="full"))
        starts, noise = (loosened, np.tile(center, count), together.theta.ravel()), together.noise
        x = _deepest(readings, readings.whitening(noise), prior, known, starts)
    else:
        # x = (α, θ)
        tied = np.kron(np.full((count, 1), -1.0), np.eye(size) / SPREAD)
        prior = np.block(
            [
                [np.diag(1 / sd), np.zeros((size, count * size))],
                [tied, np.eye(count * size) / SPREAD],
            ]
        )
        known = np.concatenate([center / sd, np.zeros(count * size)])
        x, noise = _loosened(readings, noise, prior, known, np.tile(center, count + 1))
        alpha = x[:size]
    rows = sloped(readings, readings.whitening(noise), prior, x)
    joint, theta = np.linalg.inv(rows.T @ rows), readings.theta(x)
    first = x.size - theta.size
    own = [slice(first + size * c, first + size * (c + 1)) for c in range(count)]
    _ROUGH[structure] = RoughFit(alpha, theta, np.array([joint[c, c] for c in own]), noise)
    return _ROUGH[structure]


def apart(readings: Readings) -> tuple[np.ndarray, np.ndarray]:
    """`nearest`'s rows of the declared priors, and what they know, where each circuit has them for itself."""
    size, count = len(readings.structure.fitted), len(readings.structure.units)
    narrow = np.tile(1 / readings.sd[:size], count)
    return np.diag(narrow), narrow * np.tile(readings.center[:size], count)


def _first_noise(readings: Readings) -> np.ndarray:
    """Log σ₀, γ and s by readings of one point, where there are such; about what was measured otherwise."""
    structure, power = readings.structure, POWERS.get(readings.structure.noise)
    noise = np.array([np.log(_NOISE), _EXPONENT if power is None else power, _GAIN * structure.has_gain])
    repeated = readings.repeated()
    if not repeated.any():
        return noise
    noise = fitted_noise(structure, readings.value[repeated], readings.mean()[repeated], repeated, noise)
    # A mean of n replicates is nearer to them than their curve.
    share = float(readings.replicates()[repeated].mean())
    inflate = np.sqrt(share / (share - 1))
    return np.array([noise[0] + np.log(inflate), noise[1], noise[2] * inflate])


def _loosened(
    readings: Readings, noise: np.ndarray, prior: np.ndarray, known: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` to loose readings first: what they ask for exactly has minima far from the priors.

    Returns it, and the noise that the curves leave where no readings of one point have told it.
    """
    for factor in _LOOSE:
        looser = np.array([np.log(factor), 0.0, (factor - 1) * noise[2]])
        x = nearest(readings, readings.whitening(noise + looser), prior, known, x)
        if not readings.repeated().any():
            f = readings.curve(readings.theta(x))
            every = np.ones(f.size, dtype=bool)
            noise = fitted_noise(readings.structure, readings.value, f, every, noise)
    return x, noise


def _deepest(
    readings: Readings, whiten: Whiten, prior: np.ndarray, known: np.ndarray, starts: Sequence[np.ndarray]
) -> np.ndarray:
    """Of `nearest` from several starts, each circuit's that costs least; of circuits that nothing ties."""
    count = len(readings.structure.units)
    fits, costs = [], []
    for start in starts:
        fits.append(x := nearest(readings, whiten, prior, known, start))
        gap = whiten((readings.curve(readings.theta(x)) - readings.value)[:, None])[:, 0]
        own = ((prior @ x - known) ** 2).reshape(count, -1).sum(axis=1)
        costs.append(own + np.bincount(readings.structure.circuit, gap**2, count))
    every = np.array(fits).reshape(len(starts), count, -1)
    return every[np.argmin(costs, axis=0), np.arange(count)].ravel()


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

    def residual(x: np.ndarray) -> np.ndarray:
        gap = readings.curve(readings.theta(x)) - readings.value
        return np.concatenate([whiten(gap[:, None])[:, 0], prior @ x - known])

    return least_squares(residual, x, lambda x: sloped(readings, whiten, prior, x), max_nfev=_STEPS).x


def sloped(readings: Readings, whiten: Whiten, prior: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Derivatives of the residuals that `nearest` squares, ndarray (N + R, X)."""
    theta = readings.theta(x)
    rows, size = whiten(readings.slopes(theta)), theta.shape[1]
    wide = np.zeros((rows.shape[0], x.size))
    columns = x.size - theta.size + size * readings.structure.circuit[:, None] + np.arange(size)
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
