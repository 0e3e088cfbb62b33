"""Hamiltonian trajectories over a compiled log density: what engines with loops of their own share.

Log densities are called by address, so that one compiled loop serves every model and is kept on disk.
Imported only where something is sampled: it needs numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

#: Largest loss of energy that a trajectory survives.
LOST = 1000.0


def _pointed(typing: Any, address: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Call the C function at an address, of five whole numbers or pointers, which returns a whole number."""
    signature = types.int64(*[types.uint64] * 6)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word] * 5).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])

    return signature, generate


call: Any = intrinsic(_pointed)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that leaves other threads running, and keep it on disk."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # Nowhere to keep it: an installation that may not be written to.
        return njit(nogil=True)(function)


@compiled
def log_density(address, data, x, gradient, value):
    """Whether f(x) is finite; then it is in value[0], and its gradient in `gradient`."""
    code = call(
        address, np.uint64(x.size), np.uint64(x.ctypes.data), np.uint64(gradient.ctypes.data),
        np.uint64(value.ctypes.data), data,
    )  # fmt: skip
    return code == 0 and np.isfinite(value[0])


@compiled
def spread(factor, z, out):
    """Out = C z; a factor of one row is diagonal."""
    if factor.shape[0] == 1:
        for i in range(z.size):
            out[i] = factor[0, i] * z[i]
        return
    for i in range(z.size):
        total = 0.0
        for j in range(i + 1):
            total += factor[i, j] * z[j]
        out[i] = total


@compiled
def gather(factor, g, out):
    """Out = Cᵀ g."""
    if factor.shape[0] == 1:
        for i in range(g.size):
            out[i] = factor[0, i] * g[i]
        return
    out[:] = 0.0
    for i in range(g.size):
        for j in range(i + 1):
            out[j] += factor[i, j] * g[i]


@compiled
def run(address, data, places, factor, step, count, energy, point, z, ahead, value, push, move):
    """Leapfrog from a point with momentum `z`, both moved in place; whether it stayed sound, and its steps.

    Parameters
    ----------
    address, data : int
        Of the compiled log density and its data.
    places : ndarray (K,) of int
        The coordinates that move.
    factor : ndarray (K, K) or (1, K)
        C with C Cᵀ ≈ their covariance, or its diagonal: momenta are standard normal.
    step, count : float, int
        Length of a step in standard units, and how many.
    energy : float
        Where it begins: ½ zᵀ z − log density.
    point, z : ndarray (D,), (K,)
        All coordinates, and the momentum.
    ahead, value : ndarray (D,), (1,)
        Gradient at the point, and the log density; in and out.
    push, move : ndarray (K,)
        Room.
    """
    size = places.size
    for k in range(size):
        move[k] = ahead[places[k]]
    gather(factor, move, push)
    for taken in range(1, count + 1):
        for k in range(size):
            z[k] += 0.5 * step * push[k]
        spread(factor, z, move)
        for k in range(size):
            point[places[k]] += step * move[k]
        if not log_density(address, data, point, ahead, value):
            return False, taken
        for k in range(size):
            move[k] = ahead[places[k]]
        gather(factor, move, push)
        after = -value[0]
        for k in range(size):
            z[k] += 0.5 * step * push[k]
            after += 0.5 * z[k] * z[k]
        if not after - energy < LOST:
            return False, taken
    return True, count
