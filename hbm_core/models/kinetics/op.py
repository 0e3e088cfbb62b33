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

from hbm_core.models.kinetics import lanes, program, radau
from hbm_core.models.kinetics.radau import PULL_AT, SOLVE_AT, pull, pull_at, solve, solve_at

#: Compiled graphs on disk hold the solver's code: they are another one's when the solver is.
_VERSION = zlib.crc32(b"".join(Path(str(part.__file__)).read_bytes() for part in (lanes, program, radau)))


def _named(name: str, function: Any, signature: Any) -> Any:
    """The compiled function under a name that graphs can be linked to."""
    symbol = f"hbm_kinetics_{name}_{_VERSION}"
    llvmlite.binding.add_symbol(symbol, function.address)
    return types.ExternalFunction(symbol, signature)


_solve_at, _pull_at = _named("solve", solve_at, SOLVE_AT), _named("pull", pull_at, PULL_AT)


class Curves(Op):
    """θ (C, K) and a `Program`'s tables → curves (N,) and the record that their gradient needs (R,)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """A node of the graph: θ, ints, floats and starts."""
        return Apply(self, [pt.as_tensor_variable(value) for value in inputs], [pt.dvector(), pt.dvector()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        outputs[0][0], outputs[1][0] = solve(*_typed(inputs))

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """θ's gradient, back through the record."""
        return [Pull()(*inputs, outputs[1], output_grads[0]), *(disconnected_type() for _ in inputs[1:])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Only θ moves the curves, and nothing is differentiated through the record."""
        return [[True, False], [False, False], [False, False], [False, False]]


class Pull(Op):
    """∂/∂θ (C, K) of Σ g f from the inputs and the record of `Curves`, and g (N,)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """A node of the graph: θ, ints, floats, starts, record and g."""
        return Apply(self, [pt.as_tensor_variable(value) for value in inputs], [pt.dmatrix()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        outputs[0][0] = pull(*_typed(inputs[:4]), *(np.ascontiguousarray(value) for value in inputs[4:]))


def _typed(inputs: Any) -> tuple[np.ndarray, ...]:
    """θ, ints, floats and starts as the solver takes them: PyMC keeps whole numbers in 32 bits."""
    kinds = (np.float64, np.int64, np.float64, np.int64)
    return tuple(np.ascontiguousarray(value, kind) for value, kind in zip(inputs, kinds, strict=True))


@register_funcify_default_op_cache_key(Curves)
def _curves(op: Curves, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def curves(theta, ints, floats, starts):
        whole, ends = ints.astype(np.int64), starts.astype(np.int64)
        rates, real = np.ascontiguousarray(theta), np.ascontiguousarray(floats)
        values, record = np.empty(ends[-1, 2]), np.empty(ends[-1, 3])
        _solve_at(
            rates.ctypes,
            theta.shape[0],
            theta.shape[1],
            whole.ctypes,
            whole.size,
            real.ctypes,
            real.size,
            ends.ctypes,
            values.ctypes,
            record.ctypes,
        )
        return values, record

    return curves, _VERSION


@register_funcify_default_op_cache_key(Pull)
def _pull(op: Pull, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def pull(theta, ints, floats, starts, record, weight):
        whole, ends = ints.astype(np.int64), starts.astype(np.int64)
        rates, real = np.ascontiguousarray(theta), np.ascontiguousarray(floats)
        stages, weights = np.ascontiguousarray(record), np.ascontiguousarray(weight)
        gradient = np.empty((theta.shape[0], theta.shape[1]))
        _pull_at(
            rates.ctypes,
            theta.shape[0],
            theta.shape[1],
            whole.ctypes,
            whole.size,
            real.ctypes,
            real.size,
            ends.ctypes,
            stages.ctypes,
            weights.ctypes,
            gradient.ctypes,
        )
        return gradient

    return pull, _VERSION


curves = Curves()
