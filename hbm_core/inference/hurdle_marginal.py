"""What a unit's users say of the hyperparameters of a hurdle model, its four effects integrated out.

Whether users pay and what payers pay are apart, each an integral over two effects: x under control and
z = x + change under treatment, x ~ Normal(a, s), change ~ Normal(b, t),

    log ∫∫ exp(f_c(x) + f_t(z)),

f_c and f_t concave, one for each arm. Log-normal amounts have it in closed form; else nodes of Gauss and
Hermite are put around the mode by its curvature, good to 2e-4 nats where effects spread by up to 1 on their
log scales and to 2e-3 where they spread by 3. This module imports numba: import it where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

#: Nodes a dimension; steps of Newton, and halvings of one, at most.
_NODES, _STEPS, _HALVINGS = 9, 50, 30
_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(_NODES)
_LOG_WEIGHTS = np.log(_WEIGHTS) + 0.5 * _POINTS**2
_LOG_2_PI = float(np.log(2 * np.pi))
_compiled: Any = numba.njit(error_model="numpy", cache=True)


@_compiled
def _arm(gamma, x, count, sure, rate):
    """Value, slope and minus the curvature of an arm's log likelihood at x.

    Of paying: sure · x − count · log(1 + eˣ) of `count` users of whom `sure` paid. Of amounts that are Gamma:
    −count · x − rate · e^−x, with the shape times payers and the shape times their total.
    """
    if gamma:
        part = rate * math.exp(-x)
        return -count * x - part, part - count, part
    tail = math.exp(-abs(x))
    chance = 1 / (1 + tail) if x > 0 else tail / (1 + tail)
    return (
        sure * x - count * (max(x, 0.0) + math.log1p(tail)),
        sure - count * chance,
        count * tail / (1 + tail) ** 2,
    )


@_compiled
def _height(gamma, u, v, a, b, s, t, count, sure, rate):
    x = a + s * u
    control, _, _ = _arm(gamma, x, count[0], sure[0], rate[0])
    treatment, _, _ = _arm(gamma, x + b + t * v, count[1], sure[1], rate[1])
    return control + treatment - 0.5 * (u * u + v * v)


@_compiled
def _integral(gamma, a, b, s, t, count, sure, rate):
    """Log of the integral; u and v are the effects in sds from their means."""
    u, v = 0.0, 0.0
    here = _height(gamma, u, v, a, b, s, t, count, sure, rate)
    huu, huv, hvv = 1.0, 0.0, 1.0
    for _ in range(_STEPS):
        x = a + s * u
        _, gx, hx = _arm(gamma, x, count[0], sure[0], rate[0])
        _, gz, hz = _arm(gamma, x + b + t * v, count[1], sure[1], rate[1])
        huu, huv, hvv = 1 + s * s * (hx + hz), s * t * hz, 1 + t * t * hz
        gu, gv = s * (gx + gz) - u, t * gz - v
        gap = huu * hvv - huv * huv
        du, dv = (hvv * gu - huv * gv) / gap, (huu * gv - huv * gu) / gap
        if abs(du) + abs(dv) < 1e-7 * (1 + abs(u) + abs(v)):
            break
        for _ in range(_HALVINGS):
            there = _height(gamma, u + du, v + dv, a, b, s, t, count, sure, rate)
            # A step that went too far may not even be finite.
            if there >= here - 1e-12 * abs(here):
                break
            du, dv = 0.5 * du, 0.5 * dv
        u, v, here = u + du, v + dv, there
    # A root of the inverse curvature by which u follows the first node alone.
    root_u, root_v = math.sqrt(hvv / (huu * hvv - huv * huv)), 1 / math.sqrt(hvv)
    across = -huv / hvv * root_u
    total = 0.0
    for i in range(_NODES):
        up = u + root_u * _POINTS[i]
        control, _, _ = _arm(gamma, a + s * up, count[0], sure[0], rate[0])
        for j in range(_NODES):
            vp = v + across * _POINTS[i] + root_v * _POINTS[j]
            z = a + s * up + b + t * vp
            treatment, _, _ = _arm(gamma, z, count[1], sure[1], rate[1])
            log = control + treatment - 0.5 * (up * up + vp * vp) - here
            total += math.exp(log + _LOG_WEIGHTS[i] + _LOG_WEIGHTS[j])
    return here + math.log(total * root_u * root_v) - _LOG_2_PI


@_compiled
def _integrals(gamma, group, a, b, s, t, count, sure, total, shape, out):
    """Added to `out` (n, N): a (n, G), b (n, G), s, t, shape (n,), the arms' statistics (N, 2)."""
    weight, rate = np.empty(2), np.empty(2)
    for draw in range(out.shape[0]):
        scale = shape[draw]
        for unit in range(out.shape[1]):
            g = group[unit]
            for arm in range(2):
                weight[arm], rate[arm] = scale * count[unit, arm], scale * total[unit, arm]
            out[draw, unit] += _integral(
                gamma, a[draw, g], b[draw, g], s[draw], t[draw], weight, sure[unit], rate
            )


def paying(
    group: np.ndarray, mean: Sequence[np.ndarray], sd: Sequence[np.ndarray],
    users: np.ndarray, payers: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Log probability of who paid, one by one, ndarray (n, N).

    Parameters
    ----------
    group : ndarray (N,) of int
        Group of each unit.
    mean, sd : two ndarray (n, G), two ndarray (n,)
        Of the log odds under control and of what the treatment adds, in draws.
    users, payers : ndarray (N, 2)
        Of control and treatment.
    """
    out = np.zeros((len(sd[0]), len(group)))
    one = np.ones(len(out))
    _integrals(False, group, *mean, *sd, users, payers, np.zeros_like(users), one, out)
    return out


def gamma_amounts(
    group: np.ndarray, mean: Sequence[np.ndarray], sd: Sequence[np.ndarray],
    payers: np.ndarray, total: np.ndarray, log_sum: np.ndarray, shape: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Log density of what payers paid, Gamma with means exp(x) and a common shape, ndarray (n, N).

    Parameters as of `paying`; `total` and `log_sum` (N, 2) are Σ y and Σ log y of the payers, `shape` (n,).
    """
    from scipy.special import gammaln

    of_all = payers.sum(axis=1) * (shape * np.log(shape) - gammaln(shape))[:, None]
    out = of_all + log_sum.sum(axis=1) * (shape[:, None] - 1)
    _integrals(True, group, *mean, *sd, payers, np.zeros_like(payers), total, shape, out)
    return out


def lognormal_amounts(
    group: np.ndarray, mean: Sequence[np.ndarray], sd: Sequence[np.ndarray],
    payers: np.ndarray, log_mean: np.ndarray, log_deviation: np.ndarray, log_sum: np.ndarray,
    residual: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Log density of what payers paid, log-normal around x with sd `residual` (n,), ndarray (n, N).

    Parameters as of `paying`; of the log amounts `log_mean`, `log_deviation` (about it) and `log_sum` (N, 2).
    """
    (a, b), (s, t) = (value[:, group] for value in mean), (value[:, None] for value in sd)
    variance = residual[:, None] ** 2
    count = payers.sum(axis=1)
    out = -0.5 * (log_deviation.sum(axis=1) / variance + count * (np.log(variance) + _LOG_2_PI))
    out = out - log_sum.sum(axis=1)
    # The arms' means m around a and a + b: exp(−½ n (m − x)²/v) integrated, one arm after the other.
    n, k = payers[:, 0], payers[:, 1]
    gap, other = log_mean[:, 0] - a, log_mean[:, 1] - a - b
    whole = variance + n * s**2
    out -= 0.5 * (np.log(whole / variance) + n * gap**2 / whole)
    # x after control, seen from treatment.
    left, shift = variance * s**2 / whole + t**2, n * s**2 / whole * gap
    whole = variance + k * left
    return out - 0.5 * (np.log(whole / variance) + k * (other - shift) ** 2 / whole)
