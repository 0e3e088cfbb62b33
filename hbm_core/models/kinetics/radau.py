"""The solver: Radau IIA of order 5 over blocks of species, with its exact discrete adjoint, in numba.

A step of length h solves, block by block, W (Y − y₀) = h f(Y) for the values Y at three stages, with W the
inverse of Radau's matrix: L-stable, so stiff binding costs no steps. All steps' stages are kept (the record).
Going back through them, (W − h ∂f/∂Y)ᵀ λ = ∂g/∂Y gives the derivatives of any function g of the readings by
all parameters at once: the derivative of what is computed, not of what is meant.

Four conditions of an experiment are solved side by side, as `lanes`; where fewer are left, the last again.

This module imports numba: import it where it is used.

References
----------
Hairer and Wanner (1996), Solving Ordinary Differential Equations II, sections IV.5 and IV.8.
Sandu (2006), On the properties of Runge–Kutta discrete adjoints, ICCS 2006, section 2.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numba
import numpy as np
from numba import types

from hbm_core.models.kinetics.lanes import (
    WIDTH,
    address,
    after,
    all_below,
    get,
    put,
    root,
    size,
    spread,
    where_positive,
)
from hbm_core.models.kinetics.program import (
    BLOCK,
    EQUATION,
    HEADER,
    INTEGRAL,
    NONLINEAR,
    POOL,
    ROW,
)

_ROOT = np.sqrt(6.0)
_NODES = np.array([(4 - _ROOT) / 10, (4 + _ROOT) / 10, 1.0])
_A = np.array(
    [
        [(88 - 7 * _ROOT) / 360, (296 - 169 * _ROOT) / 1800, (-2 + 3 * _ROOT) / 225],
        [(296 + 169 * _ROOT) / 1800, (88 + 7 * _ROOT) / 360, (-2 - 3 * _ROOT) / 225],
        [(16 - _ROOT) / 36, (16 + _ROOT) / 36, 1 / 9],
    ]
)
_W = np.linalg.inv(_A)
_TRANSPOSED = _W.T.copy()
_SUM = _W.sum(axis=1)
_B = _A[2].copy()
_LN10 = float(np.log(10.0))
#: Newton's steps at most, and the relative step after which no next one is needed: errors go as its square.
_MOST, _TOLERANCE, _NOTHING = 40, 1e-5, 1e-13
#: A step that cannot be solved is cut to this share of it, until that is too small a share of the plan.
_CUT, _LEAST = 0.25, 1e-6
_jit: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
_inlined: Any = numba.njit(cache=True, error_model="numpy", forceinline=True)

#: Sizes and addresses of an experiment's tables, in `program._pack`'s order.
_Tables = namedtuple(
    "_Tables",
    "ns npar nr nb ne nt nsteps nc nout observed widest rows kept column held touched_ptr touched block "
    "member equation species local part_ptr part change first output times powers conditions",
)
#: Addresses of what a group of conditions knows and works in.
_Room = namedtuple(
    "_Room",
    "constant kappa rate start make decay flow plain linear square matrix right by_kappa by_rate "
    "by_constant by_first by_start by_stage by_make by_decay seed",
)


@_jit
def solve(theta, ints, floats, starts):
    """Curves of all experiments, and the record that `pull` goes back through.

    Parameters
    ----------
    theta : ndarray (C, K)
        log10 of the parameters, a row per experiment.
    ints, floats, starts : ndarray
        Of a `Program`.

    Returns
    -------
    ndarray (N,), ndarray (R,)
        Amounts of the observed species; NaN where a step could not be solved.
    """
    last = starts[-1]
    values, record = np.empty(last[2]), np.empty(last[3])
    _solve(theta, ints, floats, starts, values, record)
    return values, record


@_jit
def pull(theta, ints, floats, starts, record, weight):
    """∂/∂θ of Σ weight · curves at what `solve` recorded, ndarray (C, K)."""
    gradient = np.empty_like(theta)
    _pull(theta, ints, floats, starts, record, weight, gradient)
    return gradient


@_jit
def slopes(theta, ints, floats, starts, record):
    """Derivatives of every point by the row of θ that it belongs to, ndarray (N, K)."""
    found = np.zeros((starts[-1, 2], theta.shape[1]))
    for c in range(theta.shape[0]):
        t, w, keep = _open(theta, ints, floats, starts, c)
        kept = after(address(record), starts[c, 3])
        for group in range(_groups(t.nc)):
            coef = _rates(t, w, group)
            for slot in range(t.nout):
                for k in range(t.nout):
                    put(w.seed, k, spread(1.0 if k == slot else 0.0))
                _back(t, w, coef, group, kept, slot)
                for lane in range(min(WIDTH, t.nc - group * WIDTH)):
                    row = starts[c, 2] + (group * WIDTH + lane) * t.nout + slot
                    for q in range(t.npar):
                        found[row, t.column[q]] = w.by_constant[q * WIDTH + lane]
            kept = after(kept, t.kept)
        keep[0] = 0.0  # Until here its memory must not be given back.
    return found


@_jit
def _solve(theta, ints, floats, starts, values, record):
    for c in range(theta.shape[0]):
        t, w, keep = _open(theta, ints, floats, starts, c)
        kept = after(address(record), starts[c, 3])
        for group in range(_groups(t.nc)):
            coef = _rates(t, w, group)
            row = starts[c, 2] + group * WIDTH * t.nout
            _forth(t, w, coef, kept, after(address(values), row), min(WIDTH, t.nc - group * WIDTH))
            kept = after(kept, t.kept)
        keep[0] = 0.0  # Until here its memory must not be given back.


@_jit
def _pull(theta, ints, floats, starts, record, weight, gradient):
    for c in range(theta.shape[0]):
        gradient[c] = 0.0
        t, w, keep = _open(theta, ints, floats, starts, c)
        kept = after(address(record), starts[c, 3])
        for group in range(_groups(t.nc)):
            coef = _rates(t, w, group)
            lanes = min(WIDTH, t.nc - group * WIDTH)
            row = starts[c, 2] + group * WIDTH * t.nout
            for slot in range(t.nout):
                for lane in range(WIDTH):
                    here = weight[row + lane * t.nout + slot] if lane < lanes else 0.0
                    w.seed[slot * WIDTH + lane] = here
            _back(t, w, coef, group, kept, t.nout - 1)
            for q in range(t.npar):
                for lane in range(lanes):
                    gradient[c, t.column[q]] += w.by_constant[q * WIDTH + lane]
            kept = after(kept, t.kept)
        keep[0] = 0.0  # Until here its memory must not be given back.


@_inlined
def _groups(conditions):
    return (conditions + WIDTH - 1) // WIDTH


@_jit
def _open(theta, ints, floats, starts, c):
    """An experiment's tables and room, and what holds the room's memory."""
    whole, real = after(address(ints), starts[c, 0]), after(address(floats), starts[c, 1])
    ns, npar, nr, np_, nb, ne, nt, nparts = (
        whole[0], whole[1], whole[2], whole[3], whole[4], whole[5], whole[6], whole[7],
    )  # fmt: skip
    nsteps, nc, nout, observed, widest = whole[8], whole[9], whole[10], whole[11], whole[12]
    rows, kept = whole[13], whole[14]
    column = after(whole, HEADER)
    held = after(column, npar)
    touched_ptr = after(held, nr)
    touched = after(touched_ptr, nr + 1)
    block = after(touched, np_)
    member = after(block, BLOCK * nb)
    equation = after(member, ns)
    species = after(equation, EQUATION * ne)
    local = after(species, nt)
    part_ptr = after(local, nt)
    part = after(part_ptr, ne + 1)
    change = after(part, nparts)
    first = after(change, nparts)
    output = after(first, ns)
    powers = after(real, nsteps + 1)
    t = _Tables(
        ns, npar, nr, nb, ne, nt, nsteps, nc, nout, observed, widest, rows, kept, column, held, touched_ptr,
        touched, block, member, equation, species, local, part_ptr, part, change, first, output, real, powers,
        after(powers, np_),
    )  # fmt: skip

    n = 3 * widest
    lanes = 2 * (nr + ne) + 6 * ns + 3 * nb + npar + n * (2 + widest * (1 + widest) + n) + nout
    # Lanes first: memory is handed out where they do not straddle lines of the cache.
    keep = np.empty(WIDTH * lanes + npar + 10 * nb)
    kappa = address(keep)
    rate = after(kappa, WIDTH * nr)
    start = after(rate, WIDTH * ne)
    make = after(start, WIDTH * ns)
    plain = after(make, WIDTH * nb)
    linear = after(plain, WIDTH * n)
    square = after(linear, WIDTH * n * widest)
    matrix = after(square, WIDTH * n * widest * widest)
    right = after(matrix, WIDTH * n * n)
    by_kappa = after(right, WIDTH * n)
    by_rate = after(by_kappa, WIDTH * nr)
    by_constant = after(by_rate, WIDTH * ne)
    by_first = after(by_constant, WIDTH * npar)
    by_start = after(by_first, WIDTH * ns)
    by_stage = after(by_start, WIDTH * ns)
    by_make = after(by_stage, WIDTH * 3 * ns)
    by_decay = after(by_make, WIDTH * nb)
    seed = after(by_decay, WIDTH * nb)
    constant = after(seed, WIDTH * nout)
    decay = after(constant, npar)
    flow = after(decay, nb)
    w = _Room(
        constant, kappa, rate, start, make, decay, flow, plain, linear, square, matrix, right, by_kappa,
        by_rate, by_constant, by_first, by_start, by_stage, by_make, by_decay, seed,
    )  # fmt: skip
    for q in range(npar):
        constant[q] = 10.0 ** theta[c, column[q]]
    return t, w, keep


@_jit
def _rates(t, w, group):
    """Rates, amounts at time 0 and pools of a group of conditions; where its forms' coefficients are."""
    factors = after(t.conditions, group * WIDTH * (2 * t.nr + t.nt))
    doses = after(factors, WIDTH * t.nr)
    for r in range(t.nr):
        value = get(factors, r)
        for k in range(t.touched_ptr[r], t.touched_ptr[r + 1]):
            constant = w.constant[t.touched[k]]
            if t.powers[k] == 1.0:
                value *= constant
            elif t.powers[k] != 0.0:
                value *= constant ** t.powers[k]
        if t.held[r] >= 0:
            value /= w.constant[t.held[r]] + get(doses, r)
        put(w.kappa, r, value)
    for e in range(t.ne):
        value = spread(0.0)
        for k in range(t.part_ptr[e], t.part_ptr[e + 1]):
            value += float(t.change[k]) * get(w.kappa, t.part[k])
        put(w.rate, e, value)
    for s in range(t.ns):
        put(w.start, s, _first(t, w, s))
    for b in range(t.nb):
        block = after(t.block, BLOCK * b)
        if block[0] != POOL:
            continue
        make, decay = spread(0.0), 0.0
        for e in range(block[3], block[4]):
            if t.equation[EQUATION * e + 1] >= 0:
                decay -= w.rate[WIDTH * e]
            else:
                make += get(w.rate, e)
        put(w.make, b, make)
        w.decay[b] = decay
    return after(doses, WIDTH * t.nr)


@_jit
def _forth(t, w, coef, kept, values, lanes):
    """Solve a group's steps into its record, and its readings into `values`."""
    rows, n = 0, 0
    now, h = t.times[0], t.times[1] - t.times[0]
    lowest = spread(0.0)
    row = after(kept, ROW)
    while n < t.nsteps and rows < t.rows:
        y = after(row, ROW)
        if not _step(t, w, coef, y, now, h):
            h *= _CUT
            if h > _LEAST * (t.times[n + 1] - t.times[n]):
                continue
            break
        rows += 1
        for s in range(t.ns):
            put(w.start, s, get(y, 3 * s + 2))
        row[0], row[1], slot = now, h, -1
        now += h
        left = t.times[n + 1] - now
        if left > 1e-9 * h:
            h = min(left, h / _CUT)
        else:
            slot = t.output[n]
            n += 1
            if n < t.nsteps:
                now, h = t.times[n], t.times[n + 1] - t.times[n]
        row[2] = float(slot)
        row = after(row, ROW + 3 * WIDTH * t.ns)
        if slot == -2:
            lowest = get(w.start, t.observed)
        elif slot >= 0:
            put(w.right, 0, get(w.start, t.observed) - lowest)
            for lane in range(lanes):
                values[lane * t.nout + slot] = w.right[lane]
    kept[0] = float(rows)
    if n < t.nsteps:
        kept[0] = -1.0
        for k in range(lanes * t.nout):
            values[k] = np.nan


@_inlined
def _step(t, w, coef, y, now, h):
    """Stages of all species, block by block; whether all were found."""
    for b in range(t.nb):
        block = after(t.block, BLOCK * b)
        kind, m = block[0], block[1]
        s = t.member[block[2]]
        if kind == POOL:
            _flow(t, w, b, now, h)
            base = _first(t, w, s)
            for j in range(3):
                flow = 9 * b + 3 * j
                put(y, 3 * s + j, base * w.flow[flow] + get(w.make, b) * w.flow[flow + 1])
            continue
        _assemble(t, w, coef, block, y)
        if kind == INTEGRAL:
            gain = _B[0] * get(w.plain, 0) + _B[1] * get(w.plain, 1) + _B[2] * get(w.plain, 2)
            put(y, 3 * s + 2, get(w.start, s) + h * gain)
        elif m == 1 and block[5] == 0:
            if not _one(w, after(y, 3 * WIDTH * s), get(w.start, s), h, kind == NONLINEAR):
                return False
        elif not _several(t, w, coef, block, y, h):
            return False
    return True


@_inlined
def _flow(t, w, b, now, h):
    """What a pool keeps of its start e^−δt and of its source φ = (1 − e^−δt)/δ, and dφ/dδ, at the stages."""
    rate = w.decay[b]
    for before in range(b):
        if t.block[BLOCK * before] == POOL and w.decay[before] == rate:
            for k in range(9):
                w.flow[9 * b + k] = w.flow[9 * before + k]
            return
    for j in range(3):
        time = now + _NODES[j] * h
        x = rate * time
        left = np.exp(-x)
        if x < 1e-3:
            phi = time * (1 - x / 2 + x * x / 6 - x * x * x / 24)
            bend = -time * time * (0.5 - x / 3 + x * x / 8 - x * x * x / 30)
        else:
            phi = (1 - left) / rate
            bend = (time * left - phi) / rate
        at = 9 * b + 3 * j
        w.flow[at], w.flow[at + 1], w.flow[at + 2] = left, phi, bend


@_inlined
def _equation(t, e):
    """A rate's species in its block; where the terms of its three forms start, turn own, and end; and K."""
    row = after(t.equation, EQUATION * e)
    return row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10]


@_inlined
def _first(t, w, s):
    """A species' amount at time 0."""
    return get(w.kappa, t.first[s]) if t.first[s] >= 0 else spread(0.0)


@_inlined
def _sum(t, coef, y, low, high, j):
    """Σ coefficient · species at stage j over a form's terms."""
    total = spread(0.0)
    for k in range(low, high):
        total += get(coef, k) * get(y, t.species[k] + j)
    return total


@_inlined
def _assemble(t, w, coef, block, y):
    """Write f of a block as plain + linear y + y square y at each stage, given the blocks before it.

    What saturates in the block's own species is left to `_saturate`.
    """
    kind, m = block[0], block[1]
    zero = spread(0.0)
    for k in range(3 * m):
        put(w.plain, k, zero)
    if kind != INTEGRAL:
        for k in range(3 * m * m):
            put(w.linear, k, zero)
    if kind == NONLINEAR:
        for k in range(3 * m * m * m):
            put(w.square, k, zero)
    for e in range(block[3], block[4]):
        i, low1, own1, high1, low2, own2, high2, low3, own3, high3, half = _equation(t, e)
        if own3 < high3:
            continue
        rate = get(w.rate, e)
        for j in range(3):
            v = rate
            if low3 >= 0:
                x = _sum(t, coef, y, low3, own3, j)
                v = v * x / (w.constant[half] + x)
            v1, v2 = v, v
            if low1 >= 0:
                v2 = v * _sum(t, coef, y, low1, own1, j)
            if low2 >= 0:
                v1 = v * _sum(t, coef, y, low2, own2, j)
                for k in range(own2, high2):
                    at = 3 * (i * m + t.local[k]) + j
                    put(w.linear, at, get(w.linear, at) + v2 * get(coef, k))
                    for o in range(own1, high1):
                        both = 3 * ((i * m + t.local[o]) * m + t.local[k]) + j
                        put(w.square, both, get(w.square, both) + v * get(coef, k) * get(coef, o))
                v2 = v2 * _sum(t, coef, y, low2, own2, j)
            put(w.plain, 3 * i + j, get(w.plain, 3 * i + j) + v2)
            for k in range(own1, high1):
                at = 3 * (i * m + t.local[k]) + j
                put(w.linear, at, get(w.linear, at) + v1 * get(coef, k))


@_jit
def _saturate(t, w, coef, block, y, h, rows, columns):
    """Add rates that saturate in the block's own species to the matrix and the right side of `_system`."""
    for e in range(block[3], block[4]):
        i, low1, _, high1, low2, _, high2, low3, own3, high3, half = _equation(t, e)
        if own3 >= high3:
            continue
        constant = w.constant[half]
        for j in range(3):
            v = h * get(w.rate, e)
            if low1 >= 0:
                v *= _sum(t, coef, y, low1, high1, j)
            if low2 >= 0:
                v *= _sum(t, coef, y, low2, high2, j)
            x, z = _sum(t, coef, y, low3, high3, j), 3 * i + j
            below = constant + x
            put(w.right, z, get(w.right, z) + v * x / below)
            for k in range(own3, high3):
                at = z * rows + (3 * t.local[k] + j) * columns
                put(w.matrix, at, get(w.matrix, at) - v * constant / (below * below) * get(coef, k))


@_inlined
def _one(w, y, start, h, nonlinear):
    """Stages of a species alone in its block, by Newton's steps on three equations."""
    plain0, plain1, plain2 = get(w.plain, 0), get(w.plain, 1), get(w.plain, 2)
    linear0, linear1, linear2 = h * get(w.linear, 0), h * get(w.linear, 1), h * get(w.linear, 2)
    right0, right1, right2 = (
        _SUM[0] * start + h * plain0,
        _SUM[1] * start + h * plain1,
        _SUM[2] * start + h * plain2,
    )
    if not nonlinear:
        y0, y1, y2 = _solve_three(_W, linear0, linear1, linear2, right0, right1, right2)
        put(y, 0, y0)
        put(y, 1, y1)
        put(y, 2, y2)
        return True
    square0, square1, square2 = h * get(w.square, 0), h * get(w.square, 1), h * get(w.square, 2)
    y0 = _euler(start, h * plain0, linear0, square0, _NODES[0])
    y1 = _euler(start, h * plain1, linear1, square1, _NODES[1])
    y2 = _euler(start, h * plain2, linear2, square2, _NODES[2])
    for _ in range(_MOST):
        bend0, bend1, bend2 = square0 * y0, square1 * y1, square2 * y2
        gap0 = right0 + (linear0 + bend0) * y0 - (_W[0, 0] * y0 + _W[0, 1] * y1 + _W[0, 2] * y2)
        gap1 = right1 + (linear1 + bend1) * y1 - (_W[1, 0] * y0 + _W[1, 1] * y1 + _W[1, 2] * y2)
        gap2 = right2 + (linear2 + bend2) * y2 - (_W[2, 0] * y0 + _W[2, 1] * y1 + _W[2, 2] * y2)
        d0, d1, d2 = _solve_three(
            _W, linear0 + 2.0 * bend0, linear1 + 2.0 * bend1, linear2 + 2.0 * bend2, gap0, gap1, gap2
        )
        y0 += d0
        y1 += d1
        y2 += d2
        if (
            all_below(size(d0), _TOLERANCE * size(y0) + _NOTHING)
            and all_below(size(d1), _TOLERANCE * size(y1) + _NOTHING)
            and all_below(size(d2), _TOLERANCE * size(y2) + _NOTHING)
        ):
            put(y, 0, y0)
            put(y, 1, y1)
            put(y, 2, y2)
            return True
    return False


@_inlined
def _euler(start, plain, linear, square, node):
    """Where Newton starts: the implicit Euler step to a stage, where that has a closed form."""
    half = 1.0 - node * linear
    known = start + node * plain
    under = half * half - 4.0 * node * square * known
    found = 2.0 * known / (half + root(size(under)))
    return where_positive(under, where_positive(half, found, start), start)


@_inlined
def _solve_three(w, d0, d1, d2, r0, r1, r2):
    """Solve (w − diag d) x = r by cofactors."""
    a00, a11, a22 = w[0, 0] - d0, w[1, 1] - d1, w[2, 2] - d2
    a01, a02, a10, a12, a20, a21 = w[0, 1], w[0, 2], w[1, 0], w[1, 2], w[2, 0], w[2, 1]
    c0, c1, c2 = a11 * a22 - a12 * a21, a12 * a20 - a10 * a22, a10 * a21 - a11 * a20
    d = 1.0 / (a00 * c0 + a01 * c1 + a02 * c2)
    x0 = c0 * r0 + (a02 * a21 - a01 * a22) * r1 + (a01 * a12 - a02 * a11) * r2
    x1 = c1 * r0 + (a00 * a22 - a02 * a20) * r1 + (a02 * a10 - a00 * a12) * r2
    x2 = c2 * r0 + (a01 * a20 - a00 * a21) * r1 + (a00 * a11 - a01 * a10) * r2
    return x0 * d, x1 * d, x2 * d


@_jit
def _several(t, w, coef, block, y, h):
    """Stages of a block by Newton's steps on all of its equations."""
    m, low = block[1], block[2]
    for i in range(m):
        s = t.member[low + i]
        for j in range(3):
            put(y, 3 * s + j, get(w.start, s))
    for _ in range(_MOST):
        _system(t, w, coef, block, y, h, 3 * m, 1)
        _eliminate(w, 3 * m)
        small = True
        for i in range(m):
            s = t.member[low + i]
            for j in range(3):
                step = get(w.right, 3 * i + j)
                value = get(y, 3 * s + j) + step
                put(y, 3 * s + j, value)
                small = small and all_below(size(step), _TOLERANCE * size(value) + _NOTHING)
        if small or block[0] != NONLINEAR:
            return True
    return False


@_jit
def _system(t, w, coef, block, y, h, rows, columns):
    """Newton's matrix W − h ∂f/∂Y of a block, by `rows` and `columns` apart, and its right side."""
    kind, m, low = block[0], block[1], block[2]
    for i in range(m):
        s = t.member[low + i]
        for j in range(3):
            z = 3 * i + j
            total = get(w.plain, z)
            gap = _SUM[j] * get(w.start, s)
            for k in range(3):
                gap -= _W[j, k] * get(y, 3 * s + k)
            for o in range(m):
                other = get(y, 3 * t.member[low + o] + j)
                slant = get(w.linear, 3 * (i * m + o) + j)
                total += slant * other
                if kind == NONLINEAR:
                    for k in range(m):
                        value = get(y, 3 * t.member[low + k] + j)
                        one = get(w.square, 3 * ((i * m + k) * m + o) + j)
                        slant += (one + get(w.square, 3 * ((i * m + o) * m + k) + j)) * value
                        total += one * other * value
                for k in range(3):
                    entry = spread(_W[j, k] if i == o else 0.0)
                    put(w.matrix, z * rows + (3 * o + k) * columns, entry - h * slant if j == k else entry)
            put(w.right, z, gap + h * total)
    if block[5]:
        _saturate(t, w, coef, block, y, h, rows, columns)


@_jit
def _eliminate(w, n):
    """Solve matrix x = right in place, without pivots: W − h ∂f/∂Y of what decays or binds is heavy there."""
    for k in range(n):
        d = 1.0 / get(w.matrix, k * n + k)
        for j in range(k + 1, n):
            put(w.matrix, k * n + j, d * get(w.matrix, k * n + j))
        pivot = d * get(w.right, k)
        put(w.right, k, pivot)
        for i in range(k + 1, n):
            c = get(w.matrix, i * n + k)
            for j in range(k + 1, n):
                put(w.matrix, i * n + j, get(w.matrix, i * n + j) - c * get(w.matrix, k * n + j))
            put(w.right, i, get(w.right, i) - c * pivot)
    for i in range(n - 2, -1, -1):
        total = get(w.right, i)
        for j in range(i + 1, n):
            total -= get(w.matrix, i * n + j) * get(w.right, j)
        put(w.right, i, total)


@_jit
def _back(t, w, coef, group, kept, last):
    """Σ seed · readings' derivatives, per lane, into `by_constant`; the seeds after slot `last` are 0."""
    zero = spread(0.0)
    for s in range(t.ns):
        put(w.by_first, s, zero)
        put(w.by_start, s, zero)
    for e in range(t.ne):
        put(w.by_rate, e, zero)
    for q in range(t.npar):
        put(w.by_constant, q, zero)
    for b in range(t.nb):
        put(w.by_make, b, zero)
        put(w.by_decay, b, zero)
    rows, begun = int(kept[0]), False
    if rows < 0:
        for q in range(t.npar):
            put(w.by_constant, q, spread(np.nan))
        return
    for n in range(rows - 1, -1, -1):
        row = after(kept, ROW + n * (ROW + 3 * WIDTH * t.ns))
        slot = int(row[2])
        begun = begun or slot == last
        if not begun:
            continue
        for s in range(t.ns):
            put(w.by_stage, 3 * s, zero)
            put(w.by_stage, 3 * s + 1, zero)
            put(w.by_stage, 3 * s + 2, get(w.by_start, s))
        seen = 3 * t.observed + 2
        if slot >= 0:
            put(w.by_stage, seen, get(w.by_stage, seen) + get(w.seed, slot))
        elif slot == -2:
            for k in range(t.nout):
                put(w.by_stage, seen, get(w.by_stage, seen) - get(w.seed, k))
        _back_step(t, w, coef, after(row, ROW), row[0], row[1])
    for s in range(t.ns):
        put(w.by_first, s, get(w.by_first, s) + get(w.by_start, s))
    _gather(t, w, group)


@_inlined
def _back_step(t, w, coef, y, now, h):
    """From derivatives by a step's stages to those by its start, its rates and its constants."""
    for b in range(t.nb):
        if t.block[BLOCK * b] == POOL:
            _flow(t, w, b, now, h)
    for b in range(t.nb - 1, -1, -1):
        block = after(t.block, BLOCK * b)
        kind, m, low = block[0], block[1], block[2]
        s = t.member[low]
        if kind == POOL:
            base = _first(t, w, s)
            first, make, decay = get(w.by_first, s), get(w.by_make, b), get(w.by_decay, b)
            for j in range(3):
                by, flow = get(w.by_stage, 3 * s + j), 9 * b + 3 * j
                left = w.flow[flow]
                first += by * left
                make += by * w.flow[flow + 1]
                bend = get(w.make, b) * w.flow[flow + 2] - base * (left * (now + _NODES[j] * h))
                decay += by * bend
            put(w.by_first, s, first)
            put(w.by_make, b, make)
            put(w.by_decay, b, decay)
            put(w.by_start, s, spread(0.0))
            continue
        if kind == INTEGRAL:
            by = get(w.by_stage, 3 * s + 2)
            for j in range(3):
                put(w.right, j, (h * _B[j]) * by)
            put(w.by_start, s, by)
        else:
            _assemble(t, w, coef, block, y)
            if m == 1 and block[5] == 0:
                slant0, slant1, slant2 = get(w.linear, 0), get(w.linear, 1), get(w.linear, 2)
                if kind == NONLINEAR:
                    slant0 += 2.0 * get(w.square, 0) * get(y, 3 * s)
                    slant1 += 2.0 * get(w.square, 1) * get(y, 3 * s + 1)
                    slant2 += 2.0 * get(w.square, 2) * get(y, 3 * s + 2)
                x0, x1, x2 = _solve_three(
                    _TRANSPOSED,
                    h * slant0,
                    h * slant1,
                    h * slant2,
                    get(w.by_stage, 3 * s),
                    get(w.by_stage, 3 * s + 1),
                    get(w.by_stage, 3 * s + 2),
                )
                put(w.right, 0, x0)
                put(w.right, 1, x1)
                put(w.right, 2, x2)
            else:
                _system(t, w, coef, block, y, h, 1, 3 * m)
                for i in range(m):
                    for j in range(3):
                        put(w.right, 3 * i + j, get(w.by_stage, 3 * t.member[low + i] + j))
                _eliminate(w, 3 * m)
            for i in range(m):
                total = spread(0.0)
                for j in range(3):
                    by = get(w.right, 3 * i + j)
                    total += _SUM[j] * by
                    put(w.right, 3 * i + j, h * by)
                put(w.by_start, t.member[low + i], total)
        _scatter(t, w, coef, block, y)


@_inlined
def _add(w, t, coef, low, high, j, value):
    """Add value · coefficient to the derivative by each species of a form at stage j."""
    for k in range(low, high):
        at = t.species[k] + j
        put(w.by_stage, at, get(w.by_stage, at) + value * get(coef, k))


@_inlined
def _scatter(t, w, coef, block, y):
    """From derivatives by a block's f to those by its rates, its constants and the blocks before it."""
    for e in range(block[3], block[4]):
        i, low1, own1, high1, low2, own2, high2, low3, own3, high3, half = _equation(t, e)
        rate, by_rate = get(w.rate, e), get(w.by_rate, e)
        for j in range(3):
            by = get(w.right, 3 * i + j)
            one = _sum(t, coef, y, low1, high1, j) if low1 >= 0 else spread(1.0)
            two = _sum(t, coef, y, low2, high2, j) if low2 >= 0 else spread(1.0)
            if low3 >= 0:
                x, constant = _sum(t, coef, y, low3, high3, j), w.constant[half]
                below = constant + x
                slant = by * rate * one * two * constant / (below * below)
                put(w.by_constant, half, get(w.by_constant, half) - _LN10 * slant * x)
                _add(w, t, coef, low3, own3, j, slant)
                by = by * x / below
            by_rate += by * one * two
            _add(w, t, coef, low1, own1, j, by * rate * two)
            _add(w, t, coef, low2, own2, j, by * rate * one)
        put(w.by_rate, e, by_rate)


@_jit
def _gather(t, w, group):
    """From derivatives by rates and by amounts at time 0 to those by log10 of the parameters."""
    doses = after(t.conditions, WIDTH * (group * (2 * t.nr + t.nt) + t.nr))
    for b in range(t.nb):
        block = after(t.block, BLOCK * b)
        if block[0] == POOL:
            for e in range(block[3], block[4]):
                if t.equation[EQUATION * e + 1] >= 0:
                    put(w.by_rate, e, spread(0.0) - get(w.by_decay, b))
                else:
                    put(w.by_rate, e, get(w.by_make, b))
    for r in range(t.nr):
        put(w.by_kappa, r, spread(0.0))
    for s in range(t.ns):
        if t.first[s] >= 0:
            put(w.by_kappa, t.first[s], get(w.by_first, s))
    for e in range(t.ne):
        for k in range(t.part_ptr[e], t.part_ptr[e + 1]):
            r = t.part[k]
            put(w.by_kappa, r, get(w.by_kappa, r) + float(t.change[k]) * get(w.by_rate, e))
    for r in range(t.nr):
        value = _LN10 * get(w.by_kappa, r) * get(w.kappa, r)
        for k in range(t.touched_ptr[r], t.touched_ptr[r + 1]):
            q = t.touched[k]
            power = spread(t.powers[k])
            if q == t.held[r]:
                power -= w.constant[q] / (w.constant[q] + get(doses, r))
            put(w.by_constant, q, get(w.by_constant, q) + value * power)


#: Of `solve_at`: θ with its rows and columns, the tables with their lengths, the values and the record.
SOLVE_AT = types.void(
    types.CPointer(types.float64),
    types.intp,
    types.intp,
    types.CPointer(types.int64),
    types.intp,
    types.CPointer(types.float64),
    types.intp,
    types.CPointer(types.int64),
    types.CPointer(types.float64),
    types.CPointer(types.float64),
)
#: Of `pull_at`: as of `solve_at`, with the record, the weights and the gradient.
PULL_AT = types.void(*SOLVE_AT.args, types.CPointer(types.float64))


@numba.cfunc(SOLVE_AT, cache=True)
def solve_at(theta, rows, columns, ints, whole, floats, real, starts, values, record):
    """`solve` with addresses and lengths, results written where they are wanted.

    Here and not where it is used, because numba's cache of a file does not see that another one changed.
    """
    ends = numba.carray(starts, (rows + 1, 4))
    _solve(
        numba.carray(theta, (rows, columns)),
        numba.carray(ints, (whole,)),
        numba.carray(floats, (real,)),
        ends,
        numba.carray(values, (ends[rows, 2],)),
        numba.carray(record, (ends[rows, 3],)),
    )


@numba.cfunc(PULL_AT, cache=True)
def pull_at(theta, rows, columns, ints, whole, floats, real, starts, record, weight, gradient):
    """`pull` with addresses and lengths."""
    ends = numba.carray(starts, (rows + 1, 4))
    _pull(
        numba.carray(theta, (rows, columns)),
        numba.carray(ints, (whole,)),
        numba.carray(floats, (real,)),
        ends,
        numba.carray(record, (ends[rows, 3],)),
        numba.carray(weight, (ends[rows, 2],)),
        numba.carray(gradient, (rows, columns)),
    )
