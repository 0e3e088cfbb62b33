"""`circuits_rule` inside a PyTensor graph under numba's backend.

The graph calls each function by the name of a symbol: linked into the graph's own code it would be compiled
anew with every model. This module imports PyTensor and numba: import it where a model is built.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import pytensor.tensor as pt
from numba import types
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

from hbm_core.models import circuits_rule

rule: Any = circuits_rule
#: Compiled graphs on disk hold this code: they are another one's when it is.
_VERSION = zlib.crc32(b"".join(Path(str(path)).read_bytes() for path in (__file__, rule.__file__)))


def _named(name: str, function: Any, signature: Any) -> Any:
    """The compiled function under a name that graphs can be linked to."""
    symbol = f"hbm_circuits_{name}_{_VERSION}"
    llvmlite.binding.add_symbol(symbol, function.address)
    return types.ExternalFunction(symbol, signature)


_factor_at = _named("factor", rule.factor_at, rule.FACTOR_AT)
_factor_back_at = _named("factor_back", rule.factor_back_at, rule.FACTOR_BACK_AT)
_relative_root_at = _named("relative_root", rule.relative_root_at, rule.RELATIVE_ROOT_AT)
_relative_root_back_at = _named("relative_root_back", rule.relative_root_back_at, rule.RELATIVE_ROOT_BACK_AT)
_carry_at = _named("carry", rule.carry_at, rule.CARRY_AT)
_carry_back_at = _named("carry_back", rule.carry_back_at, rule.CARRY_BACK_AT)
_place_at = _named("place", rule.place_at, rule.PLACE_AT)
_place_back_at = _named("place_back", rule.place_back_at, rule.PLACE_BACK_AT)
_blend_at = _named("blend", rule.blend_at, rule.BLEND_AT)
_blend_back_at = _named("blend_back", rule.blend_back_at, rule.BLEND_AT)
_deviate_at = _named("deviate", rule.deviate_at, rule.DEVIATE_AT)
_weigh_at = _named("weigh", rule.weigh_at, rule.WEIGH_AT)


class _Compiled(Op):
    """An Op of floats whose first `moving` inputs have a gradient, by its first output or all."""

    __props__ = ()
    kinds: tuple[Any, ...] = ()
    moving = 0
    #: Outputs that a gradient may come through.
    through = 1

    def make_node(self, *inputs: Any) -> Apply:
        """A node of the graph."""
        return Apply(
            self, [pt.as_tensor_variable(value) for value in inputs], [kind() for kind in self.kinds]
        )

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Data move nothing, and nothing is differentiated through derivatives."""
        ways = [out < self.through for out in range(len(self.kinds))]
        return [[place < self.moving and way for way in ways] for place in range(len(node.inputs))]


class _RootBack(_Compiled):
    """Gradient of a root by the inputs that move it, from `_Root`'s inputs and the weight of the root."""

    compute: Any = None

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        found = [np.empty(value.size) for value in inputs[: len(self.kinds)]]
        self.compute(*map(np.ascontiguousarray, inputs), *found)
        for output, value in zip(outputs, found, strict=True):
            output[0] = value


class _Root(_Compiled):
    """Vectors that move it, then data → a root (P, P)."""

    kinds = (pt.dmatrix,)
    compute: Any = None
    back: type[_RootBack]
    #: Place of the input that is as long as the root.
    long = 0

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        root = np.empty((len(inputs[self.long]),) * 2)
        self.compute(*map(np.ascontiguousarray, inputs), root)
        outputs[0][0] = root

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """By the vectors that move it."""
        found = self.back().make_node(*inputs, output_grads[0]).outputs
        return [*found, *(disconnected_type() for _ in inputs[self.moving :])]


class FactorBack(_RootBack):
    """Gradient of `Factor`."""

    kinds, compute = (pt.dvector, pt.dvector), staticmethod(rule.factor_back)


class Factor(_Root):
    """σ (P,), partial correlations → the root of Σ (P, P)."""

    moving, compute, back = 2, staticmethod(rule.factor), FactorBack


class RelativeRootBack(_RootBack):
    """Gradient of `RelativeRoot` by B."""

    kinds, compute = (pt.dvector,), staticmethod(rule.relative_root_back)


class RelativeRoot(_Root):
    """B below its diagonal and R → R (I + B)⁻ᵀ (P, P)."""

    moving, compute, back, long = 1, staticmethod(rule.relative_root), RelativeRootBack, 1


class Carry(_Compiled):
    """m, M, u and each circuit's θ̂ and bend → θ (C, P), its log density with the Jacobian of u → θ."""

    kinds, moving, through = (pt.dmatrix, pt.dscalar), 3, 2

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        mean, root, u, *shape = map(np.ascontiguousarray, inputs)
        theta = np.empty(u.shape)
        outputs[1][0] = np.asarray(rule.carry(mean, root, *shape, u, theta))
        outputs[0][0] = theta

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """By m, M and u; a result that nothing comes back through counts 0."""
        weight, share = (
            zero if isinstance(grad.type, DisconnectedType) else grad
            for grad, zero in zip(output_grads, (pt.zeros_like(inputs[2]), pt.constant(0.0)), strict=True)
        )
        found: Any = CarryBack()(*inputs, weight, share)
        return [*found, *(disconnected_type() for _ in inputs[3:])]


class CarryBack(_Compiled):
    """Gradient of `Carry`."""

    kinds = (pt.dvector, pt.dmatrix, pt.dmatrix)

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        mean, root, u, *shape, weight, share = map(np.ascontiguousarray, inputs)
        found = np.empty(mean.shape), np.empty(root.shape), np.empty(u.shape)
        rule.carry_back(mean, root, *shape, u, weight, float(share.item()), *found)
        for output, value in zip(outputs, found, strict=True):
            output[0] = value


class Place(_Compiled):
    """m, u, then what `given` made and each circuit's bend → θ (C, P), its log density; tanh and M⁻¹ (θ − m).

    See `circuits_rule.place`.
    """

    kinds, moving, through = (pt.dmatrix, pt.dscalar, pt.dmatrix, pt.dmatrix), 2, 2

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        mean, u, *parts = map(np.ascontiguousarray, inputs)
        theta, bend, z = np.empty(u.shape), np.empty(parts[8].shape), np.empty(u.shape)
        constant = float(parts[4].item())
        density = rule.place(mean, u, *parts[:4], constant, *parts[5:], theta, bend, z)
        outputs[1][0] = np.asarray(density)
        outputs[0][0], outputs[2][0], outputs[3][0] = theta, bend, z

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """By m and u."""
        back, push, tilt, share, _, _, basis, inner, _, outer = inputs[2:]
        weight, density = output_grads[:2]
        found: Any = PlaceBack()(
            back, push, tilt, share, basis, inner, outer, outputs[2], outputs[3], weight, density
        )
        return [*found, *(disconnected_type() for _ in inputs[2:])]


class PlaceBack(_Compiled):
    """Gradient of `Place`."""

    kinds = (pt.dvector, pt.dmatrix)

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        *given, density = map(np.ascontiguousarray, inputs)
        found = np.empty(given[0].shape[0]), np.empty(given[9].shape)
        rule.place_back(*given, float(density.item()), *found)
        for output, value in zip(outputs, found, strict=True):
            output[0] = value


class Blend(_Compiled):
    """Points that were kept, then places and shares (N, K) → all points (N,)."""

    kinds, moving = (pt.dvector,), 1

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        kept, shares = np.ascontiguousarray(inputs[0]), np.ascontiguousarray(inputs[2])
        outputs[0][0] = np.empty(len(shares))
        rule.blend(kept, np.asarray(inputs[1], dtype=np.int64), shares, outputs[0][0])

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """By the kept points."""
        found: Any = BlendBack()(*inputs, output_grads[0])
        return [found, disconnected_type(), disconnected_type()]


class BlendBack(_Compiled):
    """Gradient of `Blend`, from its inputs and the weight of all points."""

    kinds = (pt.dvector,)

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        shares, weight = np.ascontiguousarray(inputs[2]), np.ascontiguousarray(inputs[3])
        outputs[0][0] = np.empty(inputs[0].shape)
        rule.blend_back(np.asarray(inputs[1], dtype=np.int64), shares, weight, outputs[0][0])


class Deviate(_Compiled):
    """A root of Σ (P, P), deviations and which count (C, P) → log density and its gradient by the root."""

    kinds, moving = (pt.dscalar, pt.dmatrix), 1

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        root, gap, uses = map(np.ascontiguousarray, inputs)
        outputs[1][0] = np.empty(root.shape)
        outputs[0][0] = np.asarray(rule.deviate(root, gap, uses, outputs[1][0]))

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """What was computed with the value."""
        return [output_grads[0] * outputs[1], disconnected_type(), disconnected_type()]


class Weigh(_Compiled):
    """f, the noise's three and ε (4,), readings (N,), points, courses → log density and its gradient."""

    kinds, moving = (pt.dscalar, pt.dvector, pt.dvector, pt.dvector), 3

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        """Values outside numba's backend."""
        f, scalars, value = map(np.ascontiguousarray, inputs[:3])
        whole = [np.asarray(part, dtype=np.int64) for part in inputs[3:]]
        found = np.empty(f.shape), np.empty(3), np.empty(value.shape)
        outputs[0][0] = np.asarray(rule.weigh(f, scalars, float(scalars[3]), value, *whole, *found))
        for output, part in zip(outputs[1:], found, strict=True):
            output[0] = part

    def pullback(self, inputs: Any, outputs: Any, output_grads: Any) -> list[Any]:
        """What was computed with the value; ε is a datum."""
        share = output_grads[0]
        by_scalars = pt.concatenate([share * outputs[2], pt.zeros((1,))])
        found = [share * outputs[1], by_scalars, share * outputs[3]]
        return [*found, *(disconnected_type() for _ in inputs[3:])]


@register_funcify_default_op_cache_key(Factor)
def _factor(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def factor(spread, partial):
        a, b = np.ascontiguousarray(spread), np.ascontiguousarray(partial)
        root = np.empty((a.size, a.size))
        _factor_at(a.ctypes, a.size, b.ctypes, root.ctypes)
        return root

    return factor, _VERSION


@register_funcify_default_op_cache_key(FactorBack)
def _factor_back(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def factor_back(spread, partial, weight):
        a, b, w = np.ascontiguousarray(spread), np.ascontiguousarray(partial), np.ascontiguousarray(weight)
        by_spread, by_partial = np.empty(a.size), np.empty(b.size)
        _factor_back_at(a.ctypes, a.size, b.ctypes, w.ctypes, by_spread.ctypes, by_partial.ctypes)
        return by_spread, by_partial

    return factor_back, _VERSION


@register_funcify_default_op_cache_key(RelativeRoot)
def _relative_root(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def relative_root(below, reference):
        b, r = np.ascontiguousarray(below), np.ascontiguousarray(reference)
        root = np.empty(r.shape)
        _relative_root_at(b.ctypes, r.shape[0], r.ctypes, root.ctypes)
        return root

    return relative_root, _VERSION


@register_funcify_default_op_cache_key(RelativeRootBack)
def _relative_root_back(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def relative_root_back(below, reference, weight):
        b, r = np.ascontiguousarray(below), np.ascontiguousarray(reference)
        w, by_below = np.ascontiguousarray(weight), np.empty(b.size)
        _relative_root_back_at(b.ctypes, r.shape[0], r.ctypes, w.ctypes, by_below.ctypes)
        return by_below

    return relative_root_back, _VERSION


@register_funcify_default_op_cache_key(Carry)
def _carry(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def carry(mean, root, u, mode, curvature, basis, firm, inner, offset, outer):
        m, r, x = np.ascontiguousarray(mean), np.ascontiguousarray(root), np.ascontiguousarray(u)
        t, h = np.ascontiguousarray(mode), np.ascontiguousarray(curvature)
        d, f = np.ascontiguousarray(basis), np.ascontiguousarray(firm)
        i, b, o = np.ascontiguousarray(inner), np.ascontiguousarray(offset), np.ascontiguousarray(outer)
        theta, density = np.empty(x.shape), np.empty(1)
        _carry_at(
            m.ctypes, r.ctypes, t.ctypes, h.ctypes, d.ctypes, f.ctypes, i.ctypes, b.ctypes, o.ctypes,
            x.ctypes, x.shape[0], x.shape[1], f.shape[1], b.shape[1], theta.ctypes, density.ctypes,
        )  # fmt: skip
        return theta, np.asarray(density[0])

    return carry, _VERSION


@register_funcify_default_op_cache_key(CarryBack)
def _carry_back(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def carry_back(mean, root, u, mode, curvature, basis, firm, inner, offset, outer, weight, share):
        m, r, x = np.ascontiguousarray(mean), np.ascontiguousarray(root), np.ascontiguousarray(u)
        t, h = np.ascontiguousarray(mode), np.ascontiguousarray(curvature)
        d, f = np.ascontiguousarray(basis), np.ascontiguousarray(firm)
        w = np.ascontiguousarray(weight)
        i, b, o = np.ascontiguousarray(inner), np.ascontiguousarray(offset), np.ascontiguousarray(outer)
        part = np.array([share.item()])
        by_mean, by_root, by_u = np.empty(m.shape), np.empty(r.shape), np.empty(x.shape)
        _carry_back_at(
            m.ctypes, r.ctypes, t.ctypes, h.ctypes, d.ctypes, f.ctypes, i.ctypes, b.ctypes, o.ctypes,
            x.ctypes, x.shape[0], x.shape[1], f.shape[1], b.shape[1], w.ctypes, part.ctypes, by_mean.ctypes,
            by_root.ctypes, by_u.ctypes,
        )  # fmt: skip
        return by_mean, by_root, by_u

    return carry_back, _VERSION


@register_funcify_default_op_cache_key(Place)
def _place(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def place(mean, u, back, push, tilt, share, constant, mode, basis, inner, offset, outer):
        m, x, r = np.ascontiguousarray(mean), np.ascontiguousarray(u), np.ascontiguousarray(back)
        q, w, s = np.ascontiguousarray(push), np.ascontiguousarray(tilt), np.ascontiguousarray(share)
        t, d, i = np.ascontiguousarray(mode), np.ascontiguousarray(basis), np.ascontiguousarray(inner)
        b, o, one = np.ascontiguousarray(offset), np.ascontiguousarray(outer), np.array([constant.item()])
        theta, density = np.empty(x.shape), np.empty(1)
        bend, z = np.empty(b.shape), np.empty(x.shape)
        _place_at(
            m.ctypes, x.ctypes, r.ctypes, q.ctypes, w.ctypes, s.ctypes, one.ctypes, t.ctypes, d.ctypes,
            i.ctypes, b.ctypes, o.ctypes, x.shape[0], x.shape[1], d.shape[2], b.shape[1], theta.ctypes,
            density.ctypes, bend.ctypes, z.ctypes,
        )  # fmt: skip
        return theta, np.asarray(density[0]), bend, z

    return place, _VERSION


@register_funcify_default_op_cache_key(PlaceBack)
def _place_back(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def place_back(back, push, tilt, share, basis, inner, outer, bend, z, weight, density):
        r, q, w = np.ascontiguousarray(back), np.ascontiguousarray(push), np.ascontiguousarray(tilt)
        s, d, i = np.ascontiguousarray(share), np.ascontiguousarray(basis), np.ascontiguousarray(inner)
        o, h, e = np.ascontiguousarray(outer), np.ascontiguousarray(bend), np.ascontiguousarray(z)
        g, one = np.ascontiguousarray(weight), np.array([density.item()])
        by_mean, by_u = np.empty(e.shape[1]), np.empty(e.shape)
        _place_back_at(
            r.ctypes, q.ctypes, w.ctypes, s.ctypes, d.ctypes, i.ctypes, o.ctypes, h.ctypes, e.ctypes,
            g.ctypes, one.ctypes, e.shape[0], e.shape[1], d.shape[2], h.shape[1], by_mean.ctypes, by_u.ctypes,
        )  # fmt: skip
        return by_mean, by_u

    return place_back, _VERSION


@register_funcify_default_op_cache_key(Blend)
def _blend(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def blend(kept, places, shares):
        # PyMC keeps whole numbers in 32 bits.
        f, p, s = np.ascontiguousarray(kept), places.astype(np.int64), np.ascontiguousarray(shares)
        whole = np.empty(s.shape[0])
        _blend_at(f.ctypes, f.size, p.ctypes, s.ctypes, s.shape[0], s.shape[1], whole.ctypes)
        return whole

    return blend, _VERSION


@register_funcify_default_op_cache_key(BlendBack)
def _blend_back(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def blend_back(kept, places, shares, weight):
        p, s = places.astype(np.int64), np.ascontiguousarray(shares)
        w, by_kept = np.ascontiguousarray(weight), np.empty(kept.size)
        _blend_back_at(by_kept.ctypes, by_kept.size, p.ctypes, s.ctypes, s.shape[0], s.shape[1], w.ctypes)
        return by_kept

    return blend_back, _VERSION


@register_funcify_default_op_cache_key(Deviate)
def _deviate(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def deviate(root, gap, uses):
        r, g, w = np.ascontiguousarray(root), np.ascontiguousarray(gap), np.ascontiguousarray(uses)
        total, by_root = np.empty(1), np.empty(r.shape)
        _deviate_at(r.ctypes, g.ctypes, w.ctypes, g.shape[0], g.shape[1], total.ctypes, by_root.ctypes)
        return np.asarray(total[0]), by_root

    return deviate, _VERSION


@register_funcify_default_op_cache_key(Weigh)
def _weigh(op: Op, node: Apply, **kwargs: Any) -> Any:
    @numba_njit
    def weigh(f, scalars, value, point, course):
        a, s, y = np.ascontiguousarray(f), np.ascontiguousarray(scalars), np.ascontiguousarray(value)
        # PyMC keeps whole numbers in 32 bits.
        p, k = point.astype(np.int64), course.astype(np.int64)
        total, by_f, by_noise, by_value = np.empty(1), np.empty(a.size), np.empty(3), np.empty(y.size)
        _weigh_at(
            a.ctypes, a.size, s.ctypes, y.ctypes, y.size, p.ctypes, k.ctypes, total.ctypes, by_f.ctypes,
            by_noise.ctypes, by_value.ctypes,
        )  # fmt: skip
        return np.asarray(total[0]), by_f, by_noise, by_value

    return weigh, _VERSION


factor, relative_root, carry, place = Factor(), RelativeRoot(), Carry(), Place()
blend, deviate, weigh = Blend(), Deviate(), Weigh()
