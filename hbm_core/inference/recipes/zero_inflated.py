"""Sampling zero-inflated counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import gammaln

from hbm_core.inference.gamma_marginal import Integrand, spaced
from hbm_core.inference.recipes.count_windows import CountWindowsRecipe, blocks, own_terms, padded
from hbm_core.models import pymc_zero_inflated
from hbm_core.models.pymc_zero_inflated import Spec

#: Nodes over each rate: the integrand has no single bell where zeros are of both kinds.
_NODES = 49


class ZeroInflatedRecipe(CountWindowsRecipe):
    """``mu``, ``alpha``, ``phi``, ``psi`` and ``theta`` (unit)."""

    model = pymc_zero_inflated

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(y_i | μ, α, φ, ψ) of all windows of an entity, its rate integrated out, ndarray (n, J).

        The integrand lies between that of all windows open and that of every zero shut; the rule spans both.
        """
        structure = spec.structure
        units, counted = len(structure.units), structure.count > 0
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
        positive = windows.sum(axis=0)
        out = np.empty((draws["mu"].size, units))
        for at in blocks(len(out), units):
            mu, alpha, phi, psi = (draws[name][at, None] for name in ("mu", "alpha", "phi", "psi"))
            shape = mu * alpha
            power, rate = shape + structure.total, np.broadcast_to(alpha, (mu.size, units))
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
            value, top = [], np.full(start.shape, -np.inf)
            log_psi, log_open = np.log(psi), np.log1p(-psi)
            for x, weight in spaced(start, start - low, high - start, _NODES):
                theta = np.exp(x)
                f = some.value(x, theta) + np.log(weight)
                for e, n in zip(shut_exposures, shut, strict=True):
                    f += n * np.logaddexp(log_psi, log_open - phi * np.log1p(theta * e / phi))
                value.append(f)
                top = np.maximum(top, f)
            mass = np.log(sum(np.exp(f - top) for f in value)) + top
            given = shape * np.log(alpha) - gammaln(shape) + positive * log_open
            out[at] = mass + given + own_terms(structure, phi[:, 0], counted)
        return out
