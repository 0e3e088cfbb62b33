"""Each circuit on its own: least squares under the declared priors, with the curvature's standard errors.

The classical answer that pooling is compared with: each is the mode of its circuit's own posterior, given the
noise of all. It imports the solver, and with it numba, when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.circuits_rough import Readings, apart, fitted_noise, nearest, rough_fit, sloped

#: Fits, each with weights and noise by the curves of the one before.
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
    noise, exponent, gain : float
        σ₀, γ and s, of all circuits together.
    """

    theta: np.ndarray
    sd: np.ndarray
    curve: np.ndarray
    prior_curve: np.ndarray
    noise: float
    exponent: float
    gain: float


def own_fits(structure: CircuitPopulation) -> OwnFits:
    """Fit every circuit by itself.

    θ̂ minimises Σ (y − f)ᵀ V⁻¹ (y − f) + (θ − a)ᵀ P (θ − a), with V = diag(σ₀² m^2γ) + s² f fᵀ of a course,
    f the curve, a and P⁻¹ the priors' medians and variances; its sds are those of (Jᵀ V⁻¹ J + P)⁻¹. The noise
    is that of largest likelihood at the curves, σ₀² for as many readings fewer as parameters were fitted to
    them (Hastie and Tibshirani 1990, Generalized Additive Models, section 3.5: trace of the smoother).

    Parameters
    ----------
    structure : CircuitPopulation
        Data and mechanisms; readings of an instrument are turned into amounts by the standards' line.
    """
    from hbm_core.models.kinetics.solver import curves

    alone = replace(structure, pooling="independent")
    readings, rough = Readings.of(alone), rough_fit(alone)
    (count, size), noise = rough.theta.shape, rough.noise
    prior, known = apart(readings)
    narrow = np.diag(prior)
    x, variance = rough.theta.ravel(), np.einsum("cpp->cp", rough.covariance).ravel()
    every = np.ones(readings.value.size, dtype=bool)
    for _ in range(_ROUNDS):
        level = readings.curve(readings.theta(x))
        fitted = (1 - variance * narrow**2).sum()
        noise = fitted_noise(alone, readings.value, level, every, noise)
        noise[0] -= 0.5 * np.log1p(-min(fitted / every.size, 0.5))
        whiten = readings.whitening(noise, level)
        x = nearest(readings, whiten, prior, known, x)
        rows = sloped(readings, whiten, prior, x)
        variance = np.diag(np.linalg.inv(rows.T @ rows))
    theta, medians = readings.theta(x), np.tile(readings.center[:size], (count, 1))
    curve, prior_curve = (curves(structure.tables, readings.columns(one)) for one in (theta, medians))
    sd = np.sqrt(variance).reshape(count, size)
    return OwnFits(theta, sd, curve, prior_curve, float(np.exp(noise[0])), float(noise[1]), float(noise[2]))
