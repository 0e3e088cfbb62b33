"""Four numbers side by side as one value of numba: an instruction works on all of them.

Arithmetic of `lanes` with each other and with single numbers is by element. In memory lanes are four numbers
in a row; functions here count places in lanes, and memory is named by its address, because an array would
be seven arguments of every call.

This module imports numba: import it where it is used.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from hbm_core.models.kinetics.program import WIDTH

_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
#: Products and sums may be rounded once.
_FLAGS = ("contract",)
#: What is made by it is called by other arguments than it has.
_intrinsic: Any = intrinsic


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _wide(builder: Any, value: Any) -> Any:
    """A single number on all lanes."""
    if value.type == _VECTOR:
        return value
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), places)


def _arithmetic(key: Any, name: str) -> None:
    class Template(ConcreteTemplate):
        cases = tuple(
            signature(lanes, *pair)
            for pair in ((lanes, lanes), (lanes, types.float64), (types.float64, lanes))
        )

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, name)(*(_wide(builder, value) for value in args), flags=_FLAGS)

    infer_global(key)(Template)
    for case in Template.cases:
        lower_builtin(key, *case.args)(lower)


for _name, _keys in {
    "fadd": (operator.add, operator.iadd),
    "fsub": (operator.sub, operator.isub),
    "fmul": (operator.mul, operator.imul),
    "fdiv": (operator.truediv, operator.itruediv),
}.items():
    for _key in _keys:
        _arithmetic(_key, _name)


def _function(name: str) -> Callable[[Any], Any]:
    """An LLVM function of each lane."""

    @_intrinsic
    def function(typing: Any, value: Any) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.FunctionType(_VECTOR, [_VECTOR])
            return builder.call(builder.module.declare_intrinsic(f"llvm.{name}.v{WIDTH}f64", fnty=kind), args)

        return lanes(lanes), lower

    return function


root = _function("sqrt")
size = _function("fabs")


@_intrinsic
def spread(typing: Any, value: Any) -> Any:
    """A single number on all lanes."""
    return lanes(types.float64), lambda context, builder, sig, args: _wide(builder, args[0])


@_intrinsic
def all_below(typing: Any, left: Any, right: Any) -> Any:
    """Whether left ≤ right on every lane; what is no number is not."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = ir.IntType(WIDTH)
        found = builder.bitcast(builder.fcmp_ordered("<=", *args), whole)
        return builder.icmp_unsigned("==", found, ir.Constant(whole, 2**WIDTH - 1))

    return types.boolean(lanes, lanes), lower


@_intrinsic
def where_positive(typing: Any, test: Any, yes: Any, no: Any) -> Any:
    """`yes` on lanes whose test is above 0, else `no`."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        test, yes, no = args
        return builder.select(
            builder.fcmp_ordered(">", test, _wide(builder, ir.Constant(ir.DoubleType(), 0))), yes, no
        )

    return lanes(lanes, lanes, lanes), lower


@_intrinsic
def address(typing: Any, array: Any) -> Any:
    """Where a contiguous array's numbers are; the array must outlive the use of it."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), lower


@_intrinsic
def after(typing: Any, pointer: Any, count: Any) -> Any:
    """The address `count` numbers further on."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), lower


def _place(builder: Any, pointer: Any, index: Any) -> Any:
    number = builder.gep(pointer, [builder.mul(index, ir.Constant(index.type, WIDTH))])
    return builder.bitcast(number, _VECTOR.as_pointer())


@_intrinsic
def get(typing: Any, pointer: Any, index: Any) -> Any:
    """The lanes at a place."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_place(builder, *args), align=8)

    return lanes(types.CPointer(types.float64), types.intp), lower


@_intrinsic
def put(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write lanes to a place."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _place(builder, *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(types.CPointer(types.float64), types.intp, lanes), lower
