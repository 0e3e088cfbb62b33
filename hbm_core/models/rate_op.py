"""Rates of entities integrated out of a PyTensor graph under numba's backend, with their derivatives.

The graph calls the rule by the name of a symbol: linked into the graph's own code it would be compiled anew
with every model. This module imports PyTensor and numba: import it where a model is built.

Per class of entities, over x = log θ,

    f(x) = (a + S) x − b eˣ − Σ_k (s_k + n_k φ) log(1 + eˣ e_k/φ)
           + Σ_k z_k log(ψ + (1 − ψ)(1 + eˣ e_k/φ)^−φ),

S = Σ s_k, where the windows of a group have exposure e_k, n_k of them count as negative binomial and z_k are
empty ones that may be shut (none unless ψ is a parameter). A derivative of log ∫ exp f is the mean of f's,
by the same nodes.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import pytensor.tensor as pt
from numba import types
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

from hbm_core.models import rate_rule

_compiled = numba.njit(error_model="numpy", cache=True)
_pooled_mode = _compiled(rate_rule.pooled_mode)
_reaches = _compiled(rate_rule.reaches)
_stretches = _compiled(rate_rule.stretches)
_REACH = rate_rule.REACH
#: Nats above the first value from which sums are rescaled.
_HIGH = 100.0
#: A from which four nodes less err no more than all of them do below.
_BELL = 4.0


@_compiled
def _placed(power, rate, dispersion, exposure, weight):
    """Log of the mode, and how far the rule goes to either side, of a concave integrand."""
    total, slow = 0.0, 0.0
    for g in range(weight.size):
        total += weight[g]
        slow += weight[g] * exposure[g]
    total = max(total, 1e-200)
    mode = _pooled_mode(power, rate, total, dispersion * total / max(slow, 1e-200))
    for step in range(5):
        slope, curvature = power - rate * mode, rate * mode
        for g in range(weight.size):
            part = mode * exposure[g] / dispersion
            share = part / (1 + part)
            slope -= weight[g] * share
            curvature += weight[g] * share / (1 + part)
        # A rule needs its curvature where it is placed, not a root to the last digit.
        if step == 4 or abs(slope) < 1e-6 * np.sqrt(curvature):
            break
        mode *= np.exp(min(max(slope / curvature, -2.0), 2.0))
    left, right = _reaches(power, rate, total, mode, curvature)
    return np.log(mode), left, right


@_compiled
def _frame(power, rate, dispersion, exposure, weight, shut, empties):
    """Start, scale and stretches of a rule that holds the integrand, empty windows shut or open."""
    start, left, right = _placed(power, rate, dispersion, exposure, weight)
    if empties > 0:
        both = weight + shut[: weight.size] * dispersion
        opened, below, _ = _placed(power, rate, dispersion, exposure, both)
        middle = 0.5 * (start + opened)
        left, right = middle - opened + below, start + right - middle
        start = middle
    scale, k, p, m, q = _stretches(left, right)
    return start, scale, k, p, m, q


@_compiled
def integrate(population, log_exposure, windows, total, shut, starts, times, count, slopes, moved):
    """Σ times · log ∫ exp f over classes; its derivatives are written to `slopes` and `moved`.

    Parameters
    ----------
    population : ndarray (4,)
        a, b, φ, ψ.
    log_exposure, windows, total, shut : ndarray (G,)
        log e, n, s and z of each group.
    starts : ndarray (C + 1,) of int
        Where the groups of each class begin.
    times : ndarray (C,)
        Entities of each class.
    count : int
        Nodes of the rule at most.
    slopes, moved : ndarray (4,), ndarray (G,)
        Derivatives by a, b, φ, ψ and by log e.
    """
    a, b, phi, psi = population
    slopes[:] = 0.0
    moved[:] = 0.0
    longest = 1
    for c in range(times.size):
        longest = max(longest, starts[c + 1] - starts[c])
    pulls, sums, exposure, weight = np.empty((4, longest))
    value = 0.0
    for c in range(times.size):
        first, size = starts[c], starts[c + 1] - starts[c]
        power, empties = a, 0.0
        for g in range(size):
            exposure[g] = np.exp(log_exposure[first + g])
            weight[g] = total[first + g] + windows[first + g] * phi
            power += total[first + g]
            empties += shut[first + g]
        placed = _frame(power, b, phi, exposure[:size], weight[:size], shut[first:], empties)
        start, scale, k, p, m, q = placed
        # A few events make a bell of the integrand, for which fewer nodes do.
        nodes = count if power < _BELL or empties > 0 else count - 4
        step = 2 * _REACH / (nodes - 1)
        origin, up, down = -_REACH, p * np.exp(-k * _REACH), q * np.exp(m * _REACH)
        grow, shrink = np.exp(k * step), np.exp(-m * step)
        mass, of_a, of_b, of_phi, of_psi = 0.0, 0.0, 0.0, 0.0, 0.0
        sums[:size] = 0.0
        top = -np.inf
        for _ in range(nodes):
            x = start + scale * (origin + up - down)
            theta = np.exp(x)
            f = power * x - b * theta
            by_phi, by_psi = 0.0, 0.0
            for g in range(size):
                part = theta * exposure[g] / phi
                log_part = np.log1p(part)
                share = part / (1 + part)
                f -= weight[g] * log_part
                by_phi += weight[g] * share / phi - windows[g + first] * log_part
                pulls[g] = -weight[g] * share
                empty = shut[g + first]
                if empty > 0:
                    none = np.exp(-phi * log_part)
                    either = psi + (1 - psi) * none
                    opened = (1 - psi) * none / either
                    f += empty * np.log(either)
                    by_phi += empty * opened * (share - log_part)
                    by_psi += empty * (1 - none) / either
                    pulls[g] -= empty * opened * phi * share
            if f > top + _HIGH:
                # What was summed so far counts for nothing beside this, or for little.
                factor = np.exp(top - f) if top > -np.inf else 0.0
                mass, of_a, of_b, of_phi, of_psi = (
                    mass * factor, of_a * factor, of_b * factor, of_phi * factor, of_psi * factor,
                )  # fmt: skip
                sums[:size] *= factor
                top = f
            density = np.exp(f - top) * (1 + k * up + m * down)
            mass += density
            of_a += density * x
            of_b -= density * theta
            of_phi += density * by_phi
            of_psi += density * by_psi
            for g in range(size):
                sums[g] += density * pulls[g]
            origin, up, down = origin + step, up * grow, down * shrink
        value += times[c] * (top + np.log(mass * scale * step))
        share = times[c] / mass
        slopes[0] += share * of_a
        slopes[1] += share * of_b
        slopes[2] += share * of_phi
        slopes[3] += share * of_psi
        for g in range(size):
            moved[first + g] = share * sums[g]
    return value


#: Compiled graphs on disk hold the rule's code: they are another one's when the rule is.
_VERSION = zlib.crc32(Path(__file__).read_bytes() + Path(rate_rule.__file__).read_bytes())
_SYMBOL = f"hbm_rates_{_VERSION}"
_REAL = types.CPointer(types.float64)
_SIGNATURE = types.void(
    _REAL, _REAL, _REAL, _REAL, _REAL, types.intp, types.CPointer(types.int64), _REAL, types.intp,
    types.intp, _REAL, _REAL, _REAL,
)  # fmt: skip


@numba.cfunc(_SIGNATURE, cache=True)
def _pointed(
    population, place, windows, total, shut, groups, starts, times, classes, count, out, slopes, moved
):
    """`integrate` with addresses and lengths."""
    numba.carray(out, (1,))[0] = integrate(
        numba.carray(population, (4,)),
        numba.carray(place, (groups,)),
        numba.carray(windows, (groups,)),
        numba.carray(total, (groups,)),
        numba.carray(shut, (groups,)),
        numba.carray(starts, (classes + 1,)),
        numba.carray(times, (classes,)),
        count,
        numba.carray(slopes, (4,)),
        numba.carray(moved, (groups,)),
    )


llvmlite.binding.add_symbol(_SYMBOL, _pointed.address)
_external: Any = types.ExternalFunction(_SYMBOL, _SIGNATURE)


class RateIntegral(Op):
    """(a, b, φ, ψ), log e and `integrate`'s tables → Σ log ∫ exp f, and its derivatives.

    Parameters
    ----------
    count : int
        Nodes of the rule at most.
    """

    __props__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def make_node(self, *inputs: Any) -> Apply:
        """A node of the graph: population, log e, windows, total, shut, starts, times."""
        outputs = [pt.dscalar(), pt.dvector(), pt.dvector()]
        return Apply(self, [pt.as_tensor_variable(value) for value in inputs], outputs)

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        *reals, starts, times = inputs
        slopes, moved = np.empty(4), np.empty(inputs[1].size)
        whole = starts.astype(np.int64)
        rule: Any = integrate
        outputs[0][0] = np.asarray(rule(*reals, whole, times, self.count, slopes, moved))
        outputs[1][0], outputs[2][0] = slopes, moved

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """Gradients by the population and by log e, computed with the value."""
        gradient = output_grads[0]
        return [gradient * outputs[1], gradient * outputs[2], *(disconnected_type() for _ in inputs[2:])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """The population and log e move the value, and nothing is differentiated through derivatives."""
        return [[place < 2, False, False] for place in range(len(node.inputs))]


@register_funcify_default_op_cache_key(RateIntegral)
def _rate_integral(op: RateIntegral, node: Apply, **kwargs: Any) -> Any:
    count = op.count

    @numba_njit
    def rate_integral(population, log_exposure, windows, total, shut, starts, times):
        # PyMC keeps whole numbers in 32 bits.
        whole, place = starts.astype(np.int64), np.ascontiguousarray(log_exposure)
        state = np.ascontiguousarray(population)
        out, slopes, moved = np.empty(1), np.empty(4), np.empty(place.size)
        _external(
            state.ctypes,
            place.ctypes,
            windows.ctypes,
            total.ctypes,
            shut.ctypes,
            place.size,
            whole.ctypes,
            times.ctypes,
            times.size,
            count,
            out.ctypes,
            slopes.ctypes,
            moved.ctypes,
        )
        return np.asarray(out[0]), slopes, moved

    return rate_integral, _VERSION
