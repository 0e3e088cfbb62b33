"""The solver: Radau IIA of order 5 over blocks of species, with exact discrete sensitivities, in numba.

A step of length h solves, block by block, W/h (Y − y₀) = f(Y) for the values Y at three stages, with W the
inverse of Radau's matrix: L-stable, so stiff binding costs no steps. Differentiating the same equations gives
the sensitivities (W/h − J) ∂Y = W/h ∂y₀ + ∂f/∂θ by the matrices that are factored already: the derivative of
what is computed, not of what is meant.

This module imports numba: import it where it is used.

References
----------
Hairer and Wanner (1996), Solving Ordinary Differential Equations II, sections IV.5 and IV.8.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from hbm_core.models.kinetics.program import HEADER, INTEGRAL, NONLINEAR, POOL

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
_SUM = _W.sum(axis=1)
_B = _A[2].copy()
_LN10 = float(np.log(10.0))
#: Newton's steps at most, and the relative step after which a next one could not be seen.
_MOST, _TOLERANCE = 40, 1e-7
#: A step that cannot be solved is cut to this share of it, until that is too small a share of the plan.
_CUT, _LEAST = 0.25, 1e-6
_jit = numba.njit(cache=True, error_model="numpy")


@_jit
def solve(theta, ints, floats, starts, derivatives):
    """Curves of all experiments and their derivatives.

    Parameters
    ----------
    theta : ndarray (C, K)
        log10 of the parameters, a row per experiment.
    ints, floats, starts : ndarray
        Of a `Program`.
    derivatives : bool
        Whether the second result is computed; zeros otherwise.

    Returns
    -------
    ndarray (N,), ndarray (N, K)
        Amounts of the observed species, and their derivatives by the row of θ they belong to; NaN where a
        step could not be solved.
    """
    count = starts[-1, 2]
    values = np.zeros(count)
    slopes = np.zeros((count, theta.shape[1]))
    for c in range(starts.shape[0] - 1):
        whole = ints[starts[c, 0] : starts[c + 1, 0]]
        real = floats[starts[c, 1] : starts[c + 1, 1]]
        _experiment(theta[c], whole, real, values, slopes, starts[c, 2], derivatives)
    return values, slopes


@_jit
def _experiment(theta, whole, real, values, slopes, row, derivatives):
    """All conditions of one experiment; the tables are `program._pack`'s, in its order."""
    ns, npar, nr, np_, nf, nt, nb, ng, nm, nu, nsteps, nc, nout, observed, widest = whole[:HEADER]
    at = HEADER
    column = whole[at : at + npar]
    at += npar
    held = whole[at : at + nr]
    at += nr
    touched_ptr = whole[at : at + nr + 1]
    at += nr + 1
    touched = whole[at : at + np_]
    at += np_
    ptr = whole[at : at + nf + 1]
    at += nf + 1
    term = whole[at : at + nt]
    at += nt
    block_ptr = whole[at : at + nb + 1]
    at += nb + 1
    member = whole[at : at + ns]
    at += ns
    kinds = whole[at : at + nb]
    at += nb
    reaches = whole[at : at + nb]
    at += nb
    eq_ptr = whole[at : at + ns + 1]
    at += ns + 1
    table = whole[at : at + 4 * ng].reshape(ng, 4)
    at += 4 * ng
    part_ptr = whole[at : at + ng + 1]
    at += ng + 1
    part = whole[at : at + nm]
    at += nm
    change = whole[at : at + nm]
    at += nm
    moved_ptr = whole[at : at + ng + 1]
    at += ng + 1
    moved = whole[at : at + nu]
    at += nu
    where = whole[at : at + ns]
    at += ns
    local = whole[at : at + ns]
    at += ns
    first = whole[at : at + ns]
    at += ns
    output = whole[at : at + nsteps]
    times = real[: nsteps + 1]
    powers = real[nsteps + 1 : nsteps + 1 + np_]
    at = nsteps + 1 + np_

    constant = np.empty(npar)
    for q in range(npar):
        constant[q] = 10.0 ** theta[column[q]]
    kappa, dkappa = np.empty(nr), np.empty(np_)
    rate, drate, dense = np.empty(ng), np.empty(nu), np.zeros(npar)
    y0, s0 = np.zeros(ns), np.zeros((ns, npar))
    base, sbase = np.zeros(ns), np.zeros((ns, npar))
    y, sy = np.zeros((ns, 3)), np.zeros((3 * ns, npar))
    rows = 3 * widest
    matrix, right = np.empty((rows, rows)), np.empty((rows, npar))
    plain, linear = np.empty((widest, 3)), np.empty((widest, widest, 3))
    square, step = np.empty((widest, widest, widest, 3)), np.empty(rows)
    inner, slope = np.empty((2, widest)), np.zeros(npar)

    for condition in range(nc):
        dose = real[at + nr : at + 2 * nr]
        coef = real[at + 2 * nr : at + 2 * nr + nt]
        for r in range(nr):
            value = real[at + r]
            for t in range(touched_ptr[r], touched_ptr[r + 1]):
                if powers[t] != 0.0:
                    value *= constant[touched[t]] ** powers[t]
            k = held[r]
            if k >= 0:
                value /= constant[k] + dose[r]
            kappa[r] = value
            for t in range(touched_ptr[r], touched_ptr[r + 1]):
                power = powers[t]
                if touched[t] == k:
                    power -= constant[k] / (constant[k] + dose[r])
                dkappa[t] = value * power * _LN10
        at += 2 * nr + nt
        for g in range(ng):
            rate[g] = 0.0
            for k in range(part_ptr[g], part_ptr[g + 1]):
                r = part[k]
                rate[g] += change[k] * kappa[r]
                for t in range(touched_ptr[r], touched_ptr[r + 1]):
                    dense[touched[t]] += change[k] * dkappa[t]
            for t in range(moved_ptr[g], moved_ptr[g + 1]):
                drate[t] = dense[moved[t]]
                dense[moved[t]] = 0.0
        for s in range(ns):
            base[s] = 0.0
            sbase[s] = 0.0
            if first[s] >= 0:
                base[s] = kappa[first[s]]
                for t in range(touched_ptr[first[s]], touched_ptr[first[s] + 1]):
                    sbase[s, touched[t]] = dkappa[t]
            y0[s] = base[s]
            s0[s] = sbase[s]
        here = row + condition * nout
        lowest = 0.0
        slope[:] = 0.0
        n, now, h = 0, times[0], times[1] - times[0]

        while n < nsteps:
            failed = False
            for b in range(nb):
                kind, reach = kinds[b], reaches[b]
                low = block_ptr[b]
                m = block_ptr[b + 1] - low
                if kind == POOL:
                    _pool(
                        member[low], now, h, reach, eq_ptr, table, moved_ptr, moved, rate, drate, base,
                        sbase, y, sy, derivatives,
                    )  # fmt: skip
                    continue
                # f(y) of this block as plain + linear y + y square y, given the earlier blocks.
                saturating = False
                for i in range(m):
                    for j in range(3):
                        plain[i, j] = 0.0
                        for k in range(m):
                            linear[i, k, j] = 0.0
                            for o in range(m):
                                square[i, k, o, j] = 0.0
                    s = member[low + i]
                    for e in range(eq_ptr[s], eq_ptr[s + 1]):
                        f1, f2, fs = table[e, 0], table[e, 1], table[e, 2]
                        v = rate[e]
                        inside1 = inside2 = inside3 = False
                        for k in range(m):
                            inner[0, k] = 0.0
                            inner[1, k] = 0.0
                        for j in range(3):
                            a1 = a2 = sat = 1.0
                            if f1 >= 0:
                                a1 = 0.0
                                for k in range(ptr[f1], ptr[f1 + 1]):
                                    if where[term[k]] != b:
                                        a1 += coef[k] * y[term[k], j]
                                    elif j == 0:
                                        inner[0, local[term[k]]] = coef[k]
                                        inside1 = True
                            if f2 >= 0:
                                a2 = 0.0
                                for k in range(ptr[f2], ptr[f2 + 1]):
                                    if where[term[k]] != b:
                                        a2 += coef[k] * y[term[k], j]
                                    elif j == 0:
                                        inner[1, local[term[k]]] = coef[k]
                                        inside2 = True
                            if fs >= 0:
                                x = 0.0
                                for k in range(ptr[fs], ptr[fs + 1]):
                                    if where[term[k]] == b:
                                        inside3 = True
                                    x += coef[k] * y[term[k], j]
                                if inside3:
                                    saturating = True
                                    break
                                sat = x / (constant[table[e, 3]] + x)
                            w = v * sat
                            plain[i, j] += w * a1 * a2
                            if inside1:
                                for k in range(m):
                                    linear[i, k, j] += w * a2 * inner[0, k]
                            if inside2:
                                for k in range(m):
                                    linear[i, k, j] += w * a1 * inner[1, k]
                                    if inside1:
                                        for o in range(m):
                                            square[i, k, o, j] += w * inner[0, o] * inner[1, k]
                if kind == INTEGRAL:
                    s = member[low]
                    y[s, 2] = y0[s] + h * (_B[0] * plain[0, 0] + _B[1] * plain[0, 1] + _B[2] * plain[0, 2])
                else:
                    for i in range(m):
                        s = member[low + i]
                        for j in range(3):
                            y[s, j] = y0[s]
                            if m == 1 and kind == NONLINEAR and not saturating:
                                # The backward Euler step to each stage has a closed form.
                                time = _NODES[j] * h
                                half = 1 - linear[0, 0, j] * time
                                known = y0[s] + plain[0, j] * time
                                under = half * half - 4 * square[0, 0, 0, j] * time * known
                                if under >= 0 and half > 0:
                                    y[s, j] = 2 * known / (half + np.sqrt(under))
                    failed = True
                    for _ in range(_MOST):
                        for i in range(m):
                            s = member[low + i]
                            for j in range(3):
                                total = plain[i, j]
                                for k in range(3):
                                    total -= _W[j, k] / h * (y[s, k] - y0[s])
                                for o in range(m):
                                    other = y[member[low + o], j]
                                    slant = linear[i, o, j]
                                    total += slant * other
                                    for k in range(m):
                                        both = square[i, k, o, j] + square[i, o, k, j]
                                        slant += both * y[member[low + k], j]
                                        total += square[i, k, o, j] * other * y[member[low + k], j]
                                    for k in range(3):
                                        matrix[3 * i + j, 3 * o + k] = _W[j, k] / h if i == o else 0.0
                                    matrix[3 * i + j, 3 * o + j] -= slant
                                step[3 * i + j] = total
                            if saturating:
                                _saturate(
                                    i, s, b, eq_ptr, table, ptr, term, coef, where, local, rate, constant, y,
                                    step, matrix,
                                )  # fmt: skip
                        if m == 1:
                            _invert_three(matrix)
                        else:
                            _invert(matrix, 3 * m)
                        small = True
                        for i in range(m):
                            s = member[low + i]
                            for j in range(3):
                                total = 0.0
                                for k in range(3 * m):
                                    total += matrix[3 * i + j, k] * step[k]
                                y[s, j] += total
                                if not abs(total) <= max(_TOLERANCE * abs(y[s, j]), 1e-13):
                                    small = False
                        if kind != NONLINEAR or small:
                            failed = False
                            break
                    if failed or not np.isfinite(y[member[low], 2]):
                        failed = True
                        break
                if not derivatives:
                    continue
                for i in range(m):
                    s = member[low + i]
                    for j in range(3):
                        z = 3 * i + j
                        w = 0.0 if kind == INTEGRAL else _SUM[j] / h
                        for q in range(reach):
                            right[z, q] = w * s0[s, q]
                        for e in range(eq_ptr[s], eq_ptr[s + 1]):
                            f1, f2, fs = table[e, 0], table[e, 1], table[e, 2]
                            v = rate[e]
                            a1 = a2 = sat = 1.0
                            if f1 >= 0:
                                a1 = 0.0
                                for k in range(ptr[f1], ptr[f1 + 1]):
                                    a1 += coef[k] * y[term[k], j]
                            if f2 >= 0:
                                a2 = 0.0
                                for k in range(ptr[f2], ptr[f2 + 1]):
                                    a2 += coef[k] * y[term[k], j]
                            dsat = 0.0
                            if fs >= 0:
                                x = 0.0
                                for k in range(ptr[fs], ptr[fs + 1]):
                                    x += coef[k] * y[term[k], j]
                                below = constant[table[e, 3]] + x
                                sat = x / below
                                dsat = constant[table[e, 3]] / (below * below)
                                right[z, table[e, 3]] -= v * a1 * a2 * x * dsat * _LN10
                            w = a1 * a2 * sat
                            for t in range(moved_ptr[e], moved_ptr[e + 1]):
                                right[z, moved[t]] += w * drate[t]
                            for place in range(3):
                                f = table[e, place]
                                if f < 0:
                                    continue
                                w = v * (
                                    a2 * sat if place == 0 else a1 * sat if place == 1 else a1 * a2 * dsat
                                )
                                for k in range(ptr[f], ptr[f + 1]):
                                    if where[term[k]] != b and w != 0.0:
                                        c, source = w * coef[k], 3 * term[k] + j
                                        for q in range(reaches[where[term[k]]]):
                                            right[z, q] += c * sy[source, q]
                if kind == INTEGRAL:
                    s = member[low]
                    for q in range(reach):
                        sy[3 * s + 2, q] = s0[s, q] + h * (
                            _B[0] * right[0, q] + _B[1] * right[1, q] + _B[2] * right[2, q]
                        )
                    continue
                for i in range(m):
                    for j in range(3):
                        target = 3 * member[low + i] + j
                        for q in range(reach):
                            sy[target, q] = 0.0
                        for k in range(0, 3 * m, 3):
                            c0, c1, c2 = (
                                matrix[3 * i + j, k],
                                matrix[3 * i + j, k + 1],
                                matrix[3 * i + j, k + 2],
                            )
                            for q in range(reach):
                                sy[target, q] += (
                                    c0 * right[k, q] + c1 * right[k + 1, q] + c2 * right[k + 2, q]
                                )
            if failed:
                h *= _CUT
                if h > _LEAST * (times[n + 1] - times[n]):
                    continue
                for k in range(nout):
                    values[here + k] = np.nan
                    slopes[here + k] = np.nan
                break
            for s in range(ns):
                y0[s] = y[s, 2]
                if derivatives:
                    for q in range(reaches[where[s]]):
                        s0[s, q] = sy[3 * s + 2, q]
            now += h
            left = times[n + 1] - now
            if left > 1e-9 * h:
                h = min(left, h / _CUT)
                continue
            slot = output[n]
            n += 1
            if n < nsteps:
                now, h = times[n], times[n + 1] - times[n]
            if slot == -2:
                lowest = y0[observed]
                slope[:] = s0[observed]
            elif slot >= 0:
                values[here + slot] = y0[observed] - lowest
                for q in range(npar):
                    slopes[here + slot, column[q]] = s0[observed, q] - slope[q]


@_jit
def _pool(
    s, t, h, reach, eq_ptr, table, moved_ptr, moved, rate, drate, base, sbase, y, sy, more
):  # fmt: skip
    """y₀ e^−δt + κ (1 − e^−δt)/δ, exactly."""
    make, decay = 0.0, 0.0
    for e in range(eq_ptr[s], eq_ptr[s + 1]):
        if table[e, 0] >= 0:
            decay -= rate[e]
        else:
            make += rate[e]
    for j in range(3):
        now = t + _NODES[j] * h
        x = decay * now
        left = np.exp(-x)
        if x < 1e-3:
            phi = now * (1 - x / 2 + x * x / 6 - x * x * x / 24)
            dphi = -now * now * (0.5 - x / 3 + x * x / 8 - x * x * x / 30)
        else:
            phi = (1 - left) / decay
            dphi = (now * left - phi) / decay
        y[s, j] = base[s] * left + make * phi
        if more:
            z = 3 * s + j
            by_decay = make * dphi - base[s] * now * left
            for q in range(reach):
                sy[z, q] = sbase[s, q] * left
            for e in range(eq_ptr[s], eq_ptr[s + 1]):
                w = -by_decay if table[e, 0] >= 0 else phi
                for k in range(moved_ptr[e], moved_ptr[e + 1]):
                    sy[z, moved[k]] += w * drate[k]


@_jit
def _saturate(
    i, s, b, eq_ptr, table, ptr, term, coef, where, local, rate, constant, y, step, matrix
):  # fmt: skip
    """Add rates that saturate in the block's own species to Newton's residual and matrix."""
    for e in range(eq_ptr[s], eq_ptr[s + 1]):
        f = table[e, 2]
        own = False
        if f >= 0:
            for k in range(ptr[f], ptr[f + 1]):
                own = own or where[term[k]] == b
        if not own:
            continue
        for j in range(3):
            v = rate[e]
            for place in range(2):
                if table[e, place] >= 0:
                    a = 0.0
                    for k in range(ptr[table[e, place]], ptr[table[e, place] + 1]):
                        a += coef[k] * y[term[k], j]
                    v *= a
            x = 0.0
            for k in range(ptr[f], ptr[f + 1]):
                x += coef[k] * y[term[k], j]
            below = constant[table[e, 3]] + x
            step[3 * i + j] += v * x / below
            for k in range(ptr[f], ptr[f + 1]):
                if where[term[k]] == b:
                    slant = v * constant[table[e, 3]] / (below * below) * coef[k]
                    matrix[3 * i + j, 3 * local[term[k]] + j] -= slant


@_jit
def _invert_three(a):
    a00, a01, a02 = a[0, 0], a[0, 1], a[0, 2]
    a10, a11, a12 = a[1, 0], a[1, 1], a[1, 2]
    a20, a21, a22 = a[2, 0], a[2, 1], a[2, 2]
    c0, c1, c2 = a11 * a22 - a12 * a21, a12 * a20 - a10 * a22, a10 * a21 - a11 * a20
    d = 1.0 / (a00 * c0 + a01 * c1 + a02 * c2)
    a[0, 0], a[1, 0], a[2, 0] = c0 * d, c1 * d, c2 * d
    a[0, 1], a[1, 1], a[2, 1] = (
        (a02 * a21 - a01 * a22) * d,
        (a00 * a22 - a02 * a20) * d,
        (a01 * a20 - a00 * a21) * d,
    )
    a[0, 2], a[1, 2], a[2, 2] = (
        (a01 * a12 - a02 * a11) * d,
        (a02 * a10 - a00 * a12) * d,
        (a00 * a11 - a01 * a10) * d,
    )


@_jit
def _invert(a, n):
    """Gauss and Jordan in place, without pivots: W/h − J of what decays or binds has a heavy diagonal."""
    for k in range(n):
        d = 1.0 / a[k, k]
        a[k, k] = 1.0
        for j in range(n):
            a[k, j] *= d
        for i in range(n):
            if i != k:
                w = a[i, k]
                a[i, k] = 0.0
                if w != 0.0:
                    for j in range(n):
                        a[i, j] -= w * a[k, j]


#: Of `solve_pointed`.
SIGNATURE = types.void(
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


@numba.cfunc(SIGNATURE, cache=True)
def solve_pointed(theta, rows, columns, ints, whole, floats, real, starts, values, slopes):
    """`solve` with addresses and lengths, results written where they are wanted.

    Here and not where it is used, because numba's cache of a file does not see that another one changed.
    """
    ends = numba.carray(starts, (rows + 1, 3))
    count = ends[rows, 2]
    found, moved = solve(
        numba.carray(theta, (rows, columns)),
        numba.carray(ints, (whole,)),
        numba.carray(floats, (real,)),
        ends,
        True,
    )
    numba.carray(values, (count,))[:] = found
    numba.carray(slopes, (count, columns))[:] = moved
