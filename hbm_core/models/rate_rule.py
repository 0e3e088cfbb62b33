"""Where the nodes stand that integrate a gamma rate behind counts, for arrays and, compiled, for numbers.

Over x = log θ the integrand is exp f with f(x) = A x − b eˣ − Σ_k c_k log(1 + eˣ/φ_k), concave, with tails
that fall like eˣᴬ on the left and like exp(−b eˣ) on the right. A rule of evenly spaced nodes converges
exponentially on it once both ends fall fast: x = x̂ + s (t + p eᵏᵗ − q e⁻ᵐᵗ) stretches the wider of the two
sides (Trefethen and Weideman, 2014, SIAM Review 56, section 5).

The functions are those of NumPy alone: numba compiles them as they stand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Nats below the peak where the rule ends, and where that is of a normal, in sds.
DROP = 16.0
REACH = float(np.sqrt(2 * DROP))
_RATE = np.linspace(0.6, 6, 400)
_EXCESS = np.log(np.exp(_RATE * REACH) / (2 * _RATE * REACH))


def pooled_mode(power: Any, rate: Any, weight: Any, dispersion: Any) -> Any:
    """θ̂, the root of A − bθ − cθ/(θ + φ), c = Σ c_k: the peak where all φ_k are one φ."""
    middle = power - rate * dispersion - weight
    larger = np.abs(middle) + np.sqrt(middle * middle + 4 * rate * power * dispersion)
    above = middle > 0
    return above * larger / (2 * rate) + (1 - above) * 2 * power * dispersion / larger


def reaches(power: Any, rate: Any, weight: Any, mode: Any, curvature: Any) -> tuple[Any, Any]:
    """How far the rule goes to the left and to the right of log θ̂; `curvature` is −f″ there."""
    sd = 1 / np.sqrt(curvature)
    spare = np.maximum(weight - power, 1e-9)
    pull = rate * mode
    left = REACH * sd + (DROP + 3 * np.log1p(1 / power)) / power
    steep = np.sqrt(np.maximum(power - weight, 0) + pull)
    right = np.minimum(
        REACH * sd + (DROP + 3 * np.log1p(1 / spare)) / spare,
        np.log1p((1.3 * DROP + 2 + REACH * steep) / pull),
    )
    return left, right


def stretches(left: Any, right: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Scale s, the stretch (k, p) to the right and (m, q) to the left, of a rule with these reaches."""
    scale = np.minimum(left, right) / REACH
    above = np.maximum(right / (scale * REACH) - 1, 1e-12)
    below = np.maximum(left / (scale * REACH) - 1, 1e-12)
    # p exp(k T) = (ratio − 1) T, the slope p k at the peak at most ½.
    k = np.interp(np.log(above), _EXCESS, _RATE)
    m = np.interp(np.log(below), _EXCESS, _RATE)
    return scale, k, above * REACH * np.exp(-k * REACH), m, below * REACH * np.exp(-m * REACH)
