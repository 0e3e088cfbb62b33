"""The solver inside a PyTensor graph under numba's backend.

The graph calls the solver by the name of a symbol: linked into the graph's own code it would be compiled
anew with every model, several times over. This module imports PyTensor and numba: import it where a model is
built.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import pytensor.tensor as pt
from numba import types
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

from hbm_core.models.kinetics import program, radau
from hbm_core.models.kinetics.radau import SIGNATURE, solve, solve_pointed

#: Compiled graphs on disk hold the solver's code: they are another one's when the solver is.
_VERSION = zlib.crc32(Path(radau.__file__).read_bytes() + Path(program.__file__).read_bytes())
_SYMBOL = f"hbm_kinetics_solve_{_VERSION}"
llvmlite.binding.add_symbol(_SYMBOL, solve_pointed.address)
_external: Any = types.ExternalFunction(_SYMBOL, SIGNATURE)


class Curves(Op):
    """θ (C, K) and a `Program`'s tables → curves (N,) and their derivatives (N, K)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """A node of the graph: θ, ints, floats and starts."""
        return Apply(self, [pt.as_tensor_variable(value) for value in inputs], [pt.dvector(), pt.dmatrix()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        theta, ints, floats, starts = inputs
        tables = ints.astype(np.int64), floats, starts.astype(np.int64)
        outputs[0][0], outputs[1][0] = solve(np.ascontiguousarray(theta), *tables, True)

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """θ's gradient from the derivatives that were computed with the curves."""
        gradient = Pull()(output_grads[0], outputs[1], inputs[3])
        return [gradient, *(disconnected_type() for _ in inputs[1:])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Only θ moves the results, and nothing is differentiated through the derivatives."""
        return [[True, False], [False, False], [False, False], [False, False]]


class Pull(Op):
    """∂/∂θ (C, K) of Σ g f from g (N,) and the curves' derivatives (N, K)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """A node of the graph: g, derivatives and starts."""
        return Apply(self, [pt.as_tensor_variable(value) for value in inputs], [pt.dmatrix()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        weight, slopes, starts = inputs
        outputs[0][0] = np.add.reduceat(weight[:, None] * slopes, starts[:-1, 2], axis=0)


@register_funcify_default_op_cache_key(Curves)
def _curves(op: Curves, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def curves(theta, ints, floats, starts):
        # PyMC keeps whole numbers in 32 bits.
        whole, ends = ints.astype(np.int64), starts.astype(np.int64)
        rates, real = np.ascontiguousarray(theta), np.ascontiguousarray(floats)
        count, columns = ends[-1, 2], theta.shape[1]
        values, slopes = np.empty(count), np.empty((count, columns))
        _external(
            rates.ctypes,
            theta.shape[0],
            columns,
            whole.ctypes,
            whole.size,
            real.ctypes,
            real.size,
            ends.ctypes,
            values.ctypes,
            slopes.ctypes,
        )
        return values, slopes

    return curves, _VERSION


@register_funcify_default_op_cache_key(Pull)
def _pull(op: Pull, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def pull(weight, slopes, starts):
        out = np.zeros((starts.shape[0] - 1, slopes.shape[1]))
        for c in range(out.shape[0]):
            for n in range(starts[c, 2], starts[c + 1, 2]):
                for k in range(out.shape[1]):
                    out[c, k] += weight[n] * slopes[n, k]
        return out

    return pull, 1


curves = Curves()
