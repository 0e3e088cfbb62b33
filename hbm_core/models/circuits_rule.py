"""Population and readings of circuits, each with its gradient by hand, compiled once.

- `factor`: σ and partial correlations → σ L, L the Cholesky factor of Ω.
- `relative_root`: a factor of Σ⁻¹ relative to a reference → a root of Σ up to its rows' lengths.
- `carry`: standard coordinates u → θ, through the Gaussian and the bend that each circuit's data make of θ;
  `uncarry`: back.
- `deviate`: a root of Σ → log density of the circuits' deviations from their mean.
- `weigh`: curves → log density of all readings.

Each ``…_at`` is the same by addresses, for graphs that call it by the name of a symbol. This module imports
numba: import it where a model is built.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

_jit = numba.njit(error_model="numpy", cache=True)
_REAL, _WHOLE = types.CPointer(types.float64), types.CPointer(types.int64)


@_jit
def factor(spread, partial, root):
    """Root of Σ from σ (P,) and partial correlations (P (P − 1)/2,), by rows; written to `root` (P, P).

    L_ij = w_ij Π_{k<j} √(1 − w_ik²) below the diagonal and the whole product on it, w_ij the partial
    correlation of i and j given what comes before j.
    """
    size, at = spread.size, 0
    for i in range(size):
        left = 1.0
        for j in range(i):
            root[i, j] = spread[i] * partial[at] * left
            left *= np.sqrt(1 - partial[at] * partial[at])
            at += 1
        root[i, i] = spread[i] * left
        root[i, i + 1 :] = 0.0


@_jit
def factor_back(spread, partial, weight, by_spread, by_partial):
    """Gradient of Σ weight · root; `weight` (P, P)."""
    size, at = spread.size, 0
    left = np.empty(size + 1)
    for i in range(size):
        left[0] = 1.0
        for j in range(i):
            left[j + 1] = left[j] * np.sqrt(1 - partial[at + j] * partial[at + j])
        total, by_left = weight[i, i] * left[i], spread[i] * weight[i, i]
        for j in range(i - 1, -1, -1):
            w = partial[at + j]
            remains = np.sqrt(1 - w * w)
            own = spread[i] * weight[i, j]
            total += weight[i, j] * w * left[j]
            by_partial[at + j] = own * left[j] - by_left * left[j] * w / remains
            by_left = own * w + by_left * remains
        by_spread[i] = total
        at += i


@_jit
def relative_root(below, reference, root):
    """Upper triangular root U = R (I + B)⁻ᵀ, written to `root` (P, P).

    So (U Uᵀ)⁻¹ = R⁻ᵀ (I + B) (I + B)ᵀ R⁻¹: of an inverse Wishart matrix of scale R Rᵀ the elements of such a
    factor are independent, so that little bends where Σ is nearly singular. Rows scaled, U is a root of Σ.

    Parameters
    ----------
    below : ndarray (P (P − 1)/2,)
        B below the diagonal by rows.
    reference : ndarray (P, P)
        R, upper triangular.

    References
    ----------
    Odell and Feiveson (1966), JASA 61(313), 199–203, for the law of the factor.
    """
    size = reference.shape[0]
    for i in range(size):
        root[i, :i] = 0.0
        for j in range(i, size):
            at, total = j * (j - 1) // 2, reference[i, j]
            for k in range(i, j):
                total -= below[at + k] * root[i, k]
            root[i, j] = total


@_jit
def relative_root_back(below, reference, weight, by_below):
    """Gradient of Σ weight · root: with Y = weight (I + B)⁻¹, −Yᵀ root by B; `weight` (P, P)."""
    size = reference.shape[0]
    root, y = np.empty((size, size)), np.empty(size)
    relative_root(below, reference, root)
    by_below[:] = 0.0
    for k in range(size):
        for i in range(size - 1, -1, -1):
            total = weight[k, i]
            for j in range(i + 1, size):
                total -= below[j * (j - 1) // 2 + i] * y[j]
            y[i] = total
        for i in range(k, size):
            at = i * (i - 1) // 2
            for j in range(k, i):
                by_below[at + j] -= y[i] * root[k, j]


@_jit
def _bent(mean, root, mode, curvature, u, bent, upper, pull, whole, z):
    """One circuit: H M, the root U of I + Mᵀ H M = Uᵀ U, U⁻ᵀ Mᵀ H (θ̂ − m), that plus u, and z = U⁻¹ of it."""
    size = mean.size
    for i in range(size):
        bent[i, :] = 0.0
        for k in range(size):
            h = curvature[i, k]
            for j in range(size):
                bent[i, j] += h * root[k, j]
    for i in range(size):
        upper[i, :] = 0.0
        upper[i, i] = 1.0
        pull[i] = 0.0
    for k in range(size):
        gap = mode[k] - mean[k]
        for i in range(size):
            pull[i] += bent[k, i] * gap
            w = root[k, i]
            if w != 0.0:
                for j in range(size):
                    upper[i, j] += w * bent[k, j]
    for k in range(size):
        top = np.sqrt(upper[k, k])
        for j in range(k, size):
            upper[k, j] /= top
        pull[k] /= top
        for i in range(k + 1, size):
            w = upper[k, i]
            pull[i] -= w * pull[k]
            for j in range(i, size):
                upper[i, j] -= w * upper[k, j]
    for k in range(size - 1, -1, -1):
        whole[k] = pull[k] + u[k]
        total = whole[k]
        for j in range(k + 1, size):
            total -= upper[k, j] * z[j]
        z[k] = total / upper[k, k]


@_jit
def _back_through(root, lower, x):
    """Solve root y = x for a triangular root; overwrites `x`."""
    size = x.size
    for step in range(size):
        i = step if lower else size - 1 - step
        total = x[i]
        for j in range(i) if lower else range(i + 1, size):
            total -= root[i, j] * x[j]
        x[i] = total / root[i, i]


@_jit
def _back_through_transposed(root, lower, x):
    """Solve rootᵀ y = x for a triangular root; overwrites `x`."""
    size = x.size
    for step in range(size):
        i = size - 1 - step if lower else step
        x[i] /= root[i, i]
        for j in range(i) if lower else range(i + 1, size):
            x[j] -= root[i, j] * x[i]


@_jit
def _is_lower(root):
    for i in range(root.shape[0]):
        for j in range(i + 1, root.shape[0]):
            if root[i, j] != 0.0:
                return False
    return True


@_jit
def inverted(matrix):
    """Inverse of a positive definite matrix, by Gauss and Jordan; NaN or infinite where it is not one.

    NumPy's raises there, which in a function called by its address is no more than a line on the terminal.
    """
    size = matrix.shape[0]
    left, right = matrix.copy(), np.eye(size)
    for k in range(size):
        top = left[k, k]
        for j in range(size):
            left[k, j] /= top
            right[k, j] /= top
        for i in range(size):
            w = left[i, k]
            if i != k and w != 0.0:
                for j in range(size):
                    left[i, j] -= w * left[k, j]
                    right[i, j] -= w * right[k, j]
    return right


@_jit
def cholesky(matrix, size):
    """Lower root of the first rows and columns of a symmetric matrix, in place; whether it has one."""
    for i in range(size):
        for j in range(i + 1):
            left = matrix[i, j]
            for k in range(j):
                left -= matrix[i, k] * matrix[j, k]
            if i != j:
                matrix[i, j] = left / matrix[j, j]
            elif left > 0.0:
                matrix[i, i] = np.sqrt(left)
            else:
                return False
    return True


@_jit
def _shift(root, lower, basis, firm, wish, first, moved):
    """How far stiff coordinates move, y = (Eᵀ E + F)⁻¹ F g with E = M⁻¹ basis; `first` gets E, `moved` E y.

    Returns y and the inverse.
    """
    size, count = basis.shape
    matrix = np.zeros((count, count))
    for k in range(count):
        for i in range(size):
            first[k, i] = basis[i, k]
        _back_through(root, lower, first[k])
        for j in range(k + 1):
            total = 0.0
            for i in range(size):
                total += first[k, i] * first[j, i]
            matrix[k, j] = matrix[j, k] = total
        matrix[k, k] += firm[k]
    inverse = inverted(matrix)
    y = inverse @ (firm * wish)
    moved[:] = 0.0
    for k in range(count):
        for i in range(size):
            moved[i] += first[k, i] * y[k]
    return y, inverse


@_jit
def _placed(
    mean, root, lower, mode, curvature, basis, firm, inner, offset, outer, u, bent, upper, pull, whole, z,
    start, first, moved,
):  # fmt: skip
    """One circuit up to its bend: writes as `_bent` and `_shift` do, θ⁰ to `start`; tanh, y, the inverse."""
    _bent(mean, root, mode, curvature, u, bent, upper, pull, whole, z)
    for i in range(mean.size):
        start[i] = mean[i]
        for j in range(mean.size):
            start[i] += root[i, j] * z[j]
    h = np.tanh(inner @ (start - mode) + offset)
    y, inverse = _shift(root, lower, basis, firm, outer @ h, first, moved)
    return h, y, inverse


@_jit
def carry(mean, root, mode, curvature, basis, firm, inner, offset, outer, u, theta):
    """θ into `theta` (C, P); returns log Normal(θ; m, M Mᵀ) and the log Jacobian of u → θ, summed.

    θ⁰ = m + M z with z = U⁻¹ (U⁻ᵀ Mᵀ H (θ̂ − m) + u) and Uᵀ U = I + Mᵀ H M: where the readings are a Gaussian
    N(θ̂, H⁻¹) of the circuit's parameters, u is standard normal whatever m and M are. Then θ = θ⁰ + basis y, y
    a share of g = outer tanh(inner (θ⁰ − θ̂) + offset), of `hbm_core.models.circuits_bend`: as far as the
    readings' precision F in these directions outweighs the population's. As inner basis = 0, the Jacobian of
    this is 1.

    Parameters
    ----------
    mean, root : ndarray (P,), (P, P)
        m, and M with Σ = M Mᵀ, triangular.
    mode, curvature : ndarray (C, P), (C, P, P)
        θ̂ and H.
    basis, firm : ndarray (C, P, K), (C, K)
        Stiff directions and F.
    inner, offset, outer : ndarray (C, F, P), (C, F), (C, K, F)
        The bends.
    u : ndarray (C, P)
        Standard coordinates.
    """
    count, size = u.shape
    bent, upper = np.empty((size, size)), np.empty((size, size))
    pull, whole, z, moved = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    first = np.empty((firm.shape[1], size))
    lower = _is_lower(root)
    total = -0.5 * np.log(2 * np.pi) * count * size
    for c in range(count):
        _, y, _ = _placed(
            mean, root, lower, mode[c], curvature[c], basis[c], firm[c], inner[c], offset[c], outer[c], u[c],
            bent, upper, pull, whole, z, theta[c], first, moved,
        )  # fmt: skip
        for i in range(size):
            for k in range(y.size):
                theta[c, i] += basis[c, i, k] * y[k]
            # The Jacobian of z → θ⁰ is that of the normal's own scale.
            total -= 0.5 * (z[i] + moved[i]) ** 2 + np.log(upper[i, i])
    return total


@_jit
def carry_back(
    mean, root, mode, curvature, basis, firm, inner, offset, outer, u, weight, share, by_mean, by_root, by_u
):  # fmt: skip
    """Gradient of Σ weight · θ + share · (what `carry` returns); `weight` (C, P).

    With v = U⁻ᵀ ∂/∂z the Cholesky factor's part is B U⁻¹ K U⁻ᵀ, B = H M, K symmetric with
    K_ij = −whole_i v_j − v_i pull_j below the diagonal and less `share` on it.
    """
    count, size = u.shape
    stiff = firm.shape[1]
    bent, upper = np.empty((size, size)), np.empty((size, size))
    pull, whole, z = np.empty(size), np.empty(size), np.empty(size)
    v, back, moved, start = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    by_z, by_first = np.empty(size), np.empty(size)
    first, by_y = np.empty((stiff, size)), np.empty(stiff)
    once, twice = np.empty((size, size)), np.empty((size, size))
    lower = _is_lower(root)
    by_mean[:], by_root[:] = 0.0, 0.0
    for c in range(count):
        h, y, inverse = _placed(
            mean, root, lower, mode[c], curvature[c], basis[c], firm[c], inner[c], offset[c], outer[c], u[c],
            bent, upper, pull, whole, z, start, first, moved,
        )  # fmt: skip
        for i in range(size):
            by_z[i] = -share * (z[i] + moved[i])
            v[i] = weight[c, i]
        for k in range(stiff):
            by_y[k] = 0.0
            for i in range(size):
                by_y[k] += basis[c, i, k] * weight[c, i] + first[k, i] * by_z[i]
        turned = inverse @ by_y
        for k in range(stiff):
            # By the k-th column of E, of E y and of Eᵀ E; and so by M.
            for i in range(size):
                by_first[i] = by_z[i] * y[k]
                for j in range(stiff):
                    by_first[i] -= first[j, i] * (turned[j] * y[k] + y[j] * turned[k])
            _back_through_transposed(root, lower, by_first)
            for i in range(size):
                for j in range(size):
                    by_root[i, j] -= by_first[i] * first[k, j]
        v += ((firm[c] * turned) @ outer[c] * (1 - h * h)) @ inner[c]
        # v is by θ⁰ now, and then by z.
        for i in range(size):
            w = v[i]
            by_mean[i] += w
            for j in range(size):
                by_root[i, j] += w * z[j]
                by_z[j] += w * root[i, j]
        v[:] = by_z
        for k in range(size):
            v[k] /= upper[k, k]
            for i in range(k + 1, size):
                v[i] -= upper[k, i] * v[k]
            by_u[c, k] = v[k]
        for k in range(size - 1, -1, -1):
            total = v[k]
            for j in range(k + 1, size):
                total -= upper[k, j] * back[j]
            back[k] = total / upper[k, k]
        for i in range(size):
            for j in range(i + 1):
                once[i, j] = once[j, i] = -whole[i] * v[j] - v[i] * pull[j]
            once[i, i] -= share
        for _ in range(2):
            for k in range(size - 1, -1, -1):
                for i in range(k + 1, size):
                    w = upper[k, i]
                    for j in range(size):
                        once[k, j] -= w * once[i, j]
                for j in range(size):
                    once[k, j] /= upper[k, k]
            for i in range(size):
                for j in range(size):
                    twice[j, i] = once[i, j]
            once, twice = twice, once
        for i in range(size):
            # H (θ̂ − m), which Mᵀ takes to the pull, and what the pull owes to m.
            drawn = 0.0
            for k in range(size):
                drawn += curvature[c, i, k] * (mode[c, k] - mean[k])
                by_mean[i] -= bent[i, k] * back[k]
                w = bent[i, k]
                for j in range(size):
                    by_root[i, j] += w * once[k, j]
            for j in range(size):
                by_root[i, j] += drawn * back[j]


@_jit
def uncarry(mean, root, mode, curvature, basis, firm, inner, offset, outer, theta, u):
    """The standard coordinates of θ (C, P), written to `u`: `carry` the other way round.

    As inner basis = 0, the functions of θ⁰ are those of θ.
    """
    count, size = theta.shape
    bent, upper = np.empty((size, size)), np.empty((size, size))
    pull, whole, z, moved = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    first, middle = np.empty((firm.shape[1], size)), np.zeros(size)
    lower = _is_lower(root)
    for c in range(count):
        _bent(mean, root, mode[c], curvature[c], middle, bent, upper, pull, whole, z)
        h = np.tanh(inner[c] @ (theta[c] - mode[c]) + offset[c])
        y, _ = _shift(root, lower, basis[c], firm[c], outer[c] @ h, first, moved)
        for i in range(size):
            z[i] = theta[c, i] - mean[i]
            for k in range(y.size):
                z[i] -= basis[c, i, k] * y[k]
        _back_through(root, lower, z)
        for i in range(size):
            u[c, i] = -pull[i]
            for j in range(i, size):
                u[c, i] += upper[i, j] * z[j]


@_jit
def deviate(root, gap, uses, by_root):
    """Log density of deviations ~ Normal(0, M Mᵀ), of each circuit those of the constants that it uses.

    Parameters
    ----------
    root, gap, uses : ndarray (P, P), (C, P), (C, P)
        M; deviations from the mean; 1 where a constant is used, 0 elsewhere.
    by_root : ndarray (P, P)
        Gets the gradient: with Λ_c the inverse of the used part of Σ, Σ_c (Λ_c g gᵀ Λ_c − Λ_c) M. Not where Σ
        is singular: the density is NaN there.
    """
    count, size = gap.shape
    covariance = root @ root.T
    weight, at = np.zeros((size, size)), np.empty(size, np.int64)
    lower, back, pulled = np.empty((size, size)), np.empty((size, size)), np.empty(size)
    total = 0.0
    for c in range(count):
        used = 0
        for i in range(size):
            if uses[c, i] > 0.5:
                at[used] = i
                used += 1
        for i in range(used):
            for j in range(i + 1):
                lower[i, j] = covariance[at[i], at[j]]
        if not cholesky(lower, used):
            return np.nan
        for j in range(used):
            back[j, j] = 1 / lower[j, j]
            for i in range(j + 1, used):
                left = 0.0
                for k in range(j, i):
                    left -= lower[i, k] * back[k, j]
                back[i, j] = left / lower[i, i]
        pulled[:] = 0.0
        for i in range(used):
            z = 0.0
            for j in range(i + 1):
                z += back[i, j] * gap[c, at[j]]
            total -= 0.5 * z * z + np.log(lower[i, i]) + 0.5 * np.log(2 * np.pi)
            for j in range(i + 1):
                pulled[j] += back[i, j] * z
        for i in range(used):
            for j in range(i + 1):
                w = pulled[i] * pulled[j]
                for k in range(i, used):
                    w -= back[k, i] * back[k, j]
                weight[at[i], at[j]] += w
                if i != j:
                    weight[at[j], at[i]] += w
    by_root[:] = weight @ root
    return total


@_jit
def weigh(f, noise, floor, value, point, course, by_f, by_noise, by_value):
    """Log density of all readings, courses' gains integrated out, with its gradient.

    A reading of course k has the mean g_k f and the sd σ₀ m^γ, m = (f + √(f² + ε²))/2, g_k ~ Normal(1, s):
    a course's covariance is diagonal plus s² f fᵀ (Woodbury and the determinant lemma).

    Parameters
    ----------
    f : ndarray (points,)
        Curves.
    noise : ndarray (3,)
        log σ₀, γ and s.
    floor : float
        ε.
    value, point, course : ndarray (N,)
        Readings, their places in `f` and their courses.
    by_f, by_noise, by_value : ndarray
        Results.
    """
    count = 0
    for n in range(value.size):
        count = max(count, course[n] + 1)
    variance = noise[2] * noise[2]
    square, cross = np.zeros(count), np.zeros(count)
    weight, log_size, slope = np.empty(f.size), np.empty(f.size), np.empty(f.size)
    for p in range(f.size):
        away = np.sqrt(f[p] * f[p] + floor * floor)
        m = 0.5 * (f[p] + away)
        # Far below 0 the sum cancels; this is the same.
        if f[p] < 0.0:
            m = 0.5 * floor * floor / (away - f[p])
        log_size[p], slope[p] = np.log(m), noise[1] / away
        weight[p] = np.exp(-2 * (noise[0] + noise[1] * log_size[p]))
    total = -0.5 * np.log(2 * np.pi) * value.size
    for n in range(value.size):
        p, k = point[n], course[n]
        gap = value[n] - f[p]
        total -= 0.5 * weight[p] * gap * gap + noise[0] + noise[1] * log_size[p]
        square[k] += weight[p] * f[p] * f[p]
        cross[k] += weight[p] * f[p] * gap
    by_f[:], by_noise[:] = 0.0, 0.0
    for k in range(count):
        more = 1 + variance * square[k]
        part = cross[k] / more
        total += 0.5 * variance * cross[k] * part - 0.5 * np.log(more)
        by_noise[2] += noise[2] * (part * part - square[k] / more)
        square[k] = -0.5 * variance * (variance * part * part + 1 / more)
        cross[k] = variance * part
    for n in range(value.size):
        p, k = point[n], course[n]
        w, gap = weight[p], value[n] - f[p]
        by_log = w * gap * gap - 1 - 2 * w * f[p] * (cross[k] * gap + square[k] * f[p])
        by_noise[0] += by_log
        by_noise[1] += by_log * log_size[p]
        by_value[n] = w * (cross[k] * f[p] - gap)
        by_f[p] += w * (gap + cross[k] * (gap - f[p]) + 2 * square[k] * f[p]) + by_log * slope[p]
    return total


FACTOR_AT = types.void(_REAL, types.intp, _REAL, _REAL)
FACTOR_BACK_AT = types.void(_REAL, types.intp, _REAL, _REAL, _REAL, _REAL)
RELATIVE_ROOT_AT = types.void(_REAL, types.intp, _REAL, _REAL)
RELATIVE_ROOT_BACK_AT = types.void(_REAL, types.intp, _REAL, _REAL, _REAL)
CARRY_AT = types.void(*[_REAL] * 10, *[types.intp] * 4, _REAL, _REAL)
CARRY_BACK_AT = types.void(*[_REAL] * 10, *[types.intp] * 4, *[_REAL] * 5)
DEVIATE_AT = types.void(_REAL, _REAL, _REAL, types.intp, types.intp, _REAL, _REAL)
WEIGH_AT = types.void(_REAL, types.intp, _REAL, _REAL, types.intp, _WHOLE, _WHOLE, *[_REAL] * 4)


@numba.cfunc(FACTOR_AT, cache=True)
def factor_at(spread, size, partial, root):
    """`factor` by addresses."""
    pairs = size * (size - 1) // 2
    factor(numba.carray(spread, (size,)), numba.carray(partial, (pairs,)), numba.carray(root, (size, size)))


@numba.cfunc(FACTOR_BACK_AT, cache=True)
def factor_back_at(spread, size, partial, weight, by_spread, by_partial):
    """`factor_back` by addresses."""
    pairs = size * (size - 1) // 2
    factor_back(
        numba.carray(spread, (size,)),
        numba.carray(partial, (pairs,)),
        numba.carray(weight, (size, size)),
        numba.carray(by_spread, (size,)),
        numba.carray(by_partial, (pairs,)),
    )


@numba.cfunc(RELATIVE_ROOT_AT, cache=True)
def relative_root_at(below, size, reference, root):
    """`relative_root` by addresses."""
    pairs, shape = size * (size - 1) // 2, (size, size)
    relative_root(numba.carray(below, (pairs,)), numba.carray(reference, shape), numba.carray(root, shape))


@numba.cfunc(RELATIVE_ROOT_BACK_AT, cache=True)
def relative_root_back_at(below, size, reference, weight, by_below):
    """`relative_root_back` by addresses."""
    pairs, shape = size * (size - 1) // 2, (size, size)
    relative_root_back(
        numba.carray(below, (pairs,)),
        numba.carray(reference, shape),
        numba.carray(weight, shape),
        numba.carray(by_below, (pairs,)),
    )


@numba.cfunc(CARRY_AT, cache=True)
def carry_at(
    mean, root, mode, curvature, basis, firm, inner, offset, outer, u, count, size, stiff, features, theta,
    density,
):  # fmt: skip
    """`carry` by addresses; what it returns goes to `density`."""
    numba.carray(density, (1,))[0] = carry(
        numba.carray(mean, (size,)),
        numba.carray(root, (size, size)),
        numba.carray(mode, (count, size)),
        numba.carray(curvature, (count, size, size)),
        numba.carray(basis, (count, size, stiff)),
        numba.carray(firm, (count, stiff)),
        numba.carray(inner, (count, features, size)),
        numba.carray(offset, (count, features)),
        numba.carray(outer, (count, stiff, features)),
        numba.carray(u, (count, size)),
        numba.carray(theta, (count, size)),
    )


@numba.cfunc(CARRY_BACK_AT, cache=True)
def carry_back_at(
    mean, root, mode, curvature, basis, firm, inner, offset, outer, u, count, size, stiff, features, weight,
    share, by_mean, by_root, by_u,
):  # fmt: skip
    """`carry_back` by addresses."""
    carry_back(
        numba.carray(mean, (size,)),
        numba.carray(root, (size, size)),
        numba.carray(mode, (count, size)),
        numba.carray(curvature, (count, size, size)),
        numba.carray(basis, (count, size, stiff)),
        numba.carray(firm, (count, stiff)),
        numba.carray(inner, (count, features, size)),
        numba.carray(offset, (count, features)),
        numba.carray(outer, (count, stiff, features)),
        numba.carray(u, (count, size)),
        numba.carray(weight, (count, size)),
        numba.carray(share, (1,))[0],
        numba.carray(by_mean, (size,)),
        numba.carray(by_root, (size, size)),
        numba.carray(by_u, (count, size)),
    )


@numba.cfunc(DEVIATE_AT, cache=True)
def deviate_at(root, gap, uses, count, size, total, by_root):
    """`deviate` by addresses."""
    numba.carray(total, (1,))[0] = deviate(
        numba.carray(root, (size, size)),
        numba.carray(gap, (count, size)),
        numba.carray(uses, (count, size)),
        numba.carray(by_root, (size, size)),
    )


@numba.cfunc(WEIGH_AT, cache=True)
def weigh_at(f, points, scalars, value, readings, point, course, total, by_f, by_noise, by_value):
    """`weigh` by addresses; `scalars` are the noise's three and ε."""
    numba.carray(total, (1,))[0] = weigh(
        numba.carray(f, (points,)),
        numba.carray(scalars, (4,)),
        numba.carray(scalars, (4,))[3],
        numba.carray(value, (readings,)),
        numba.carray(point, (readings,)),
        numba.carray(course, (readings,)),
        numba.carray(by_f, (points,)),
        numba.carray(by_noise, (3,)),
        numba.carray(by_value, (readings,)),
    )
