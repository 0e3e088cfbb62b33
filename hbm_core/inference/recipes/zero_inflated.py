"""Sampling zero-inflated counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.special import gammaln

from hbm_core.inference.gamma_marginal import Integrand, spaced
from hbm_core.inference.recipes.count_windows import CountWindowsRecipe, blocks, own_terms, padded
from hbm_core.models import pymc_zero_inflated
from hbm_core.models.pymc_zero_inflated import Spec

#: Nodes over each rate: the integrand has no single bell where zeros are of both kinds; more where draws are
#: taken between them.
_NODES, _DRAWN = 49, 97


class ZeroInflatedRecipe(CountWindowsRecipe):
    """``mu``, ``alpha``, ``phi``, ``psi`` and ``theta`` (unit)."""

    model = pymc_zero_inflated

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(y_i | μ, α, φ, ψ) of all windows of an entity, its rate integrated out, ndarray (n, J)."""
        structure = spec.structure
        counted = structure.count > 0
        positive = np.bincount(structure.entity, counted, len(structure.units))
        out = np.empty((draws["mu"].size, len(structure.units)))
        for at, _, value in self._blocks(spec, draws, _NODES):
            top = value.max(axis=0)
            mass = np.log(np.exp(value - top).sum(axis=0)) + top
            mu, alpha, phi, psi = (draws[name][at, None] for name in ("mu", "alpha", "phi", "psi"))
            shape = mu * alpha
            given = shape * np.log(alpha) - gammaln(shape) + positive * np.log1p(-psi)
            out[at] = mass + given + own_terms(structure, phi[:, 0], counted)
        return out

    def rates(self, spec: Spec, draws: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One θ of each entity by the rule's own distribution function, ndarray (n, J)."""
        out = np.empty((draws["mu"].size, len(spec.structure.units)))
        for at, x, value in self._blocks(spec, draws, _DRAWN):
            out[at] = np.exp(drawn_between(x, np.exp(value - value.max(axis=0)), rng))
        return out

    def _blocks(
        self, spec: Spec, draws: Mapping[str, np.ndarray], count: int
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Blocks of draws, and of each the nodes x and log (integrand · weight) there, ndarrays (Q, n, J).

        The integrand lies between that of all windows open and that of every zero shut; the rule spans both.
        """
        structure = spec.structure
        units = len(structure.units)
        opened, zeros = structure.open_totals, structure.zeros
        open_at, is_open = padded(opened.entity, units)
        zero_at, is_zero = padded(zeros.entity, units)

        def column(values: np.ndarray, at: np.ndarray, present: np.ndarray, empty: float) -> np.ndarray:
            return np.where(present, values[at] if values.size else empty, empty)

        exposures = column(opened.exposure, open_at, is_open, 1.0)
        windows = column(opened.windows, open_at, is_open, 0.0)
        totals = column(opened.total, open_at, is_open, 0.0)
        shut_exposures = column(zeros.exposure, zero_at, is_zero, 1.0)
        shut = column(zeros.windows, zero_at, is_zero, 0.0)
        for at in blocks(draws["mu"].size, units):
            mu, alpha, phi, psi = (draws[name][at, None] for name in ("mu", "alpha", "phi", "psi"))
            power, rate = mu * alpha + structure.total, np.broadcast_to(alpha, (mu.size, units))
            scales = [e / phi for e in exposures]
            # Never exactly 0: an entity may have no open window at all.
            weights = [np.maximum(t + n * phi, 1e-200) for t, n in zip(totals, windows, strict=True)]
            both = Integrand(
                power,
                rate,
                [*scales, *(e / phi for e in shut_exposures)],
                [*weights, *(np.maximum(n * phi, 1e-200) for n in shut)],
            )
            some = Integrand(power, rate, scales, weights)
            (low, _), (_, high) = both.ends(), some.ends()
            start = 0.5 * (np.log(both.mode) + np.log(some.mode))
            log_psi, log_open = np.log(psi), np.log1p(-psi)

            places, values = np.empty((2, count, *start.shape))
            for node, (x, weight) in enumerate(spaced(start, start - low, high - start, count)):
                theta = np.exp(x)
                f = some.value(x, theta) + np.log(weight)
                for e, n in zip(shut_exposures, shut, strict=True):
                    f += n * np.logaddexp(log_psi, log_open - phi * np.log1p(theta * e / phi))
                places[node], values[node] = x, f
            yield at, places, values


def drawn_between(x: np.ndarray, mass: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw per column of densities known at evenly spaced nodes of a rule.

    Parameters
    ----------
    x, mass : ndarray (Q, …)
        Nodes, and the density there in the coordinate in which they are even, up to a factor.
    rng : numpy.random.Generator
        Source of randomness.

    Notes
    -----
    Cells hold what a cubic through four nodes says; within one, the density is a line.
    """
    left, right = mass[:-1], mass[1:]
    beyond = np.concatenate([mass[1:2], mass, mass[-2:-1]])
    cells = np.maximum(13 * (left + right) - beyond[:-3] - beyond[3:], 0.0)
    below = np.cumsum(cells, axis=0)
    target = rng.random(mass.shape[1:]) * below[-1]
    cell = (below < target).sum(axis=0)[None]
    low, high = np.take_along_axis(left, cell, 0)[0], np.take_along_axis(right, cell, 0)[0]
    over = np.take_along_axis(below, cell, 0)[0] - target
    share = 1 - over / np.maximum(np.take_along_axis(cells, cell, 0)[0], 1e-300)
    # (1 − s²/2 …): the root of low s + (high − low) s²/2 = share (low + high)/2, without a difference.
    mean = share * (low + high)
    within = mean / np.maximum(low + np.sqrt(low**2 + (high - low) * mean), 1e-300)
    first, second = np.take_along_axis(x, cell, 0)[0], np.take_along_axis(x, cell + 1, 0)[0]
    return first + within * (second - first)
