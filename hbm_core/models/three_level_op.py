"""The marginal likelihood of three levels in a PyTensor graph: one compiled function with its gradient.

The graph calls it by the name of a symbol: linked into the graph's own code it would be compiled anew with
every model. This module imports PyTensor and numba: import it where a model is built.

Units are in the order of their groups. With u = σ_unit², w_i = 1/(s_i² + u), A = Σ w_i, ȳ = Σ w_i y_i / A and
T = σ_group² + 1/A of each group, sums over a group without a letter,

    −2 log p(y | μ, σ_group, σ_unit) = N log 2π
        + Σ_g [Σ w_i (y_i − ȳ)² − Σ log w_i + log A + log T + (ȳ − μ)²/T],

and under μ ~ Normal(m, v) the last square is that of ȳ from the weighted mean of m and the groups (the matrix
diag(T) + v 11ᵀ by Sherman and Morrison): v = 0 leaves μ = m as it is.
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

#: A product of weights is logged before it leaves this range: one logarithm for many units.
_LARGE = 1e250


@numba.njit(error_model="numpy", cache=True)
def log_marginal(location, variance, among, within, effect, squares, starts, slopes):
    """Log p(y | m, v, σ_group, σ_unit); its derivatives by m, σ_group and σ_unit are written to `slopes`.

    Parameters
    ----------
    location, variance : float
        m and v.
    among, within : float
        σ_group and σ_unit.
    effect, squares : ndarray (N,)
        y and s², group by group.
    starts : ndarray (G + 1,) of int
        Where the groups begin.
    slopes : ndarray (3,)
        Result.
    """
    count, u = starts.size - 1, within * within
    weight = np.empty(effect.size)
    for i in range(effect.size):
        weight[i] = 1 / (squares[i] + u)
    # Per group: A, ȳ, T, −A dȳ/du, A² d(1/A)/du.
    sums = np.empty((count, 5))
    value, by_u = effect.size * np.log(2 * np.pi), 0.0
    for g in range(count):
        first, last = starts[g], starts[g + 1]
        precision, total = 0.0, 0.0
        for i in range(first, last):
            precision += weight[i]
            total += weight[i] * effect[i]
        mean = total / precision
        product, squared, pulled, inside, moved, logs = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(first, last):
            w = weight[i]
            residual = effect[i] - mean
            inside += w * residual * residual
            squared += w * w
            pulled += w * w * residual
            moved += w * w * residual * residual
            after = product * w
            if not 1 / _LARGE < after < _LARGE:
                logs += np.log(product)
                after = w
            product = after
        logs += np.log(product)
        value += inside - logs + np.log(precision)
        by_u += precision - moved - squared / precision
        sums[g, 0], sums[g, 1], sums[g, 2] = precision, mean, among * among + 1 / precision
        sums[g, 3], sums[g, 4] = pulled, squared
    share, drift = 1.0, 0.0
    for g in range(count):
        share += variance / sums[g, 2]
        drift += (sums[g, 1] - location) / sums[g, 2]
    drift /= share
    centre = location + variance * drift
    value += variance * drift * drift + np.log(share)
    by_among = 0.0
    for g in range(count):
        precision, mean, spread = sums[g, 0], sums[g, 1], sums[g, 2]
        residual = mean - centre
        value += np.log(spread) + residual * residual / spread
        slope = (1 - residual * residual / spread - variance / (share * spread)) / spread
        by_among += slope
        by_u += slope * sums[g, 4] / precision**2 - 2 * residual / spread * sums[g, 3] / precision
    slopes[0], slopes[1], slopes[2] = drift, -by_among * among, -by_u * within
    return -0.5 * value


#: Compiled graphs on disk hold this code: they are another one's when it is.
_VERSION = zlib.crc32(Path(__file__).read_bytes())
_SYMBOL = f"hbm_three_level_{_VERSION}"
_REAL = types.CPointer(types.float64)
_SIGNATURE = types.void(
    _REAL, _REAL, _REAL, types.intp, types.CPointer(types.int64), types.intp, _REAL, _REAL
)  # fmt: skip


@numba.cfunc(_SIGNATURE, cache=True)
def _pointed(population, effect, squares, units, starts, groups, out, slopes):
    """`log_marginal` with addresses and lengths."""
    location, variance, among, within = numba.carray(population, (4,))
    numba.carray(out, (1,))[0] = log_marginal(
        location,
        variance,
        among,
        within,
        numba.carray(effect, (units,)),
        numba.carray(squares, (units,)),
        numba.carray(starts, (groups + 1,)),
        numba.carray(slopes, (3,)),
    )


llvmlite.binding.add_symbol(_SYMBOL, _pointed.address)
_external: Any = types.ExternalFunction(_SYMBOL, _SIGNATURE)


class LogMarginal(Op):
    """(m, σ_group, σ_unit), v and `log_marginal`'s tables → its value and its derivatives (3,)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """A node of the graph: m, σ_group, σ_unit, v, effect, squares, starts."""
        given = [pt.as_tensor_variable(value) for value in inputs]
        floats = [pt.cast(value, "float64") for value in given[:4]]
        return Apply(self, [*floats, *given[4:]], [pt.dscalar(), pt.dvector()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        location, among, within, variance, effect, squares, starts = inputs
        population = float(location), float(variance), float(among), float(within)
        slopes = np.empty(3)
        value = log_marginal(*population, effect, squares, starts.astype(np.int64), slopes)
        outputs[0][0], outputs[1][0] = np.asarray(value), slopes

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """Gradients by m and the spreads, computed with the value."""
        found = [output_grads[0] * outputs[1][place] for place in range(3)]
        return [*found, *(disconnected_type() for _ in inputs[3:])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """The location and the spreads move the value, and nothing is differentiated through derivatives."""
        return [[place < 3, False] for place in range(len(node.inputs))]


@register_funcify_default_op_cache_key(LogMarginal)
def _log_marginal(op: LogMarginal, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def marginal(location, among, within, variance, effect, squares, starts):
        # PyMC keeps whole numbers in 32 bits.
        whole = starts.astype(np.int64)
        population = np.array([location.item(), variance.item(), among.item(), within.item()])
        y, s2 = np.ascontiguousarray(effect), np.ascontiguousarray(squares)
        out, slopes = np.empty(1), np.empty(3)
        _external(
            population.ctypes, y.ctypes, s2.ctypes, y.size, whole.ctypes, whole.size - 1, out.ctypes,
            slopes.ctypes,
        )  # fmt: skip
        return np.asarray(out[0]), slopes

    return marginal, _VERSION


log_marginal_op = LogMarginal()
