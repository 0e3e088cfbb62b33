"""Population and readings of circuits, each with its gradient by hand, compiled once.

- `factor`: σ and partial correlations → σ L, L the Cholesky factor of Ω.
- `relative_root`: a factor of Σ⁻¹ relative to a reference → a root of Σ up to its rows' lengths.
- `carry`: standard coordinates u → θ, through the Gaussian and the bend that each circuit's data make of θ;
  `uncarry`: back.
- `place`: the same for a Σ that `given` was told of.
- `deviate`: a root of Σ → log density of the circuits' deviations from their mean.
- `blend`: some points of curves → all of them.
- `weigh`: curves → log density of all readings.

Each ``…_at`` is the same by addresses, for graphs that call it by the name of a symbol. This module imports
numba: import it where a model is built.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

_jit = numba.njit(error_model="numpy", cache=True)


def _hermite(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Hermite's places from the mode on, sds, and their weights with the normal's own factor."""
    places, weights = np.polynomial.hermite_e.hermegauss(count)
    weights *= np.exp(0.5 * places**2) / np.sqrt(2 * np.pi)
    return places[count // 2 :].copy(), weights[count // 2 :].copy()


#: Of gains whose log is told to less than this, where 9 places leave less than 1e-6 nats; and of all others.
_NARROW = 0.04
(_FEW, _FEW_SHARES), (_PLACES, _SHARES) = _hermite(9), _hermite(25)
#: Of a gain's mode: steps at most, the longest, and the one that is near enough, in sds.
_CLIMB, _STRIDE, _NEAR = 40, 0.5, 1e-4
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
def _rooted(root, curvature, bent, upper):
    """H M, and the upper triangular root U of I + Mᵀ H M = Uᵀ U."""
    size = root.shape[0]
    for i in range(size):
        bent[i, :] = 0.0
        for k in range(size):
            h = curvature[i, k]
            for j in range(size):
                bent[i, j] += h * root[k, j]
    for i in range(size):
        upper[i, :] = 0.0
        upper[i, i] = 1.0
    for k in range(size):
        for i in range(size):
            w = root[k, i]
            if w != 0.0:
                for j in range(size):
                    upper[i, j] += w * bent[k, j]
    for k in range(size):
        top = np.sqrt(upper[k, k])
        for j in range(k, size):
            upper[k, j] /= top
        for i in range(k + 1, size):
            w = upper[k, i]
            for j in range(i, size):
                upper[i, j] -= w * upper[k, j]


@_jit
def _bent(mean, root, mode, curvature, u, bent, upper, pull, whole, z):
    """One circuit: H M, the root U of I + Mᵀ H M = Uᵀ U, U⁻ᵀ Mᵀ H (θ̂ − m), that plus u, and z = U⁻¹ of it."""
    size = mean.size
    _rooted(root, curvature, bent, upper)
    pull[:] = 0.0
    for k in range(size):
        gap = mode[k] - mean[k]
        for i in range(size):
            pull[i] += bent[k, i] * gap
    for k in range(size):
        pull[k] /= upper[k, k]
        for i in range(k + 1, size):
            pull[i] -= upper[k, i] * pull[k]
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
def given(root, mode, curvature, basis, firm, back, push, tilt, share):
    """What of `carry` is the same as long as Σ is, for `place`; `root`, …, `firm` as there.

    Parameters
    ----------
    back : ndarray (P, P)
        Gets M⁻¹.
    push, tilt : ndarray (C, P, P)
        Get Q = M U⁻¹ and Qᵀ H: θ⁰ = m + Q (u + Qᵀ H (θ̂ − m)).
    share : ndarray (C, K, K)
        Gets (Eᵀ E + F)⁻¹ F, E = M⁻¹ basis.

    Returns
    -------
    float
        Of `carry`'s density what does not depend on m and u.
    """
    count, size = mode.shape
    bent, upper, column = np.empty((size, size)), np.empty((size, size)), np.empty(size)
    lower = _is_lower(root)
    for j in range(size):
        column[:] = 0.0
        column[j] = 1.0
        _back_through(root, lower, column)
        back[:, j] = column
    total = -0.5 * np.log(2 * np.pi) * count * size
    for c in range(count):
        _rooted(root, curvature[c], bent, upper)
        for i in range(size):
            for k in range(size):
                left = root[i, k]
                for j in range(k):
                    left -= push[c, i, j] * upper[j, k]
                push[c, i, k] = left / upper[k, k]
            total -= np.log(upper[i, i])
        tilt[c] = push[c].T @ curvature[c]
        first = back @ basis[c]
        matrix = first.T @ first
        for k in range(firm.shape[1]):
            matrix[k, k] += firm[c, k]
        share[c] = inverted(matrix) * firm[c]
    return total


@_jit
def place(mean, u, back, push, tilt, share, constant, mode, basis, inner, offset, outer, theta, bend, z):
    """`carry` for a Σ that `given` was told of: θ into `theta`, and the same density.

    Parameters
    ----------
    mean, u, mode, basis, offset, outer, theta
        As of `carry`.
    back, push, tilt, share, constant
        Of `given`, and what it returned.
    inner : ndarray (C, P, F)
        As of `carry`, each turned over.
    bend, z : ndarray (C, F), (C, P)
        Get the tanh and M⁻¹ (θ − m).
    """
    total = constant
    for c in range(u.shape[0]):
        theta[c] = mean + push[c] @ (u[c] + tilt[c] @ (mode[c] - mean))
        bend[c] = np.tanh((theta[c] - mode[c]) @ inner[c] + offset[c])
        theta[c] += basis[c] @ (share[c] @ (outer[c] @ bend[c]))
        z[c] = back @ (theta[c] - mean)
        total -= 0.5 * np.sum(z[c] * z[c])
    return total


@_jit
def place_back(
    back, push, tilt, share, basis, inner, outer, bend, z, weight, density, by_mean, by_u
):  # fmt: skip
    """Gradient of Σ weight · θ + density · (what `place` returns) at what it wrote; `weight` (C, P)."""
    by_mean[:] = 0.0
    for c in range(weight.shape[0]):
        drawn = density * (z[c] @ back)
        by = weight[c] - drawn
        by_bend = (((by @ basis[c]) @ share[c]) @ outer[c]) * (1 - bend[c] * bend[c])
        by += inner[c] @ by_bend
        by_u[c] = by @ push[c]
        by_mean += drawn + by - by_u[c] @ tilt[c]


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
def blend(kept, places, shares, whole):
    """Each of the whole points (N,) from kept ones (T,), by `places` and `shares` (N, K)."""
    for n in range(whole.size):
        whole[n] = 0.0
        for k in range(shares.shape[1]):
            whole[n] += shares[n, k] * kept[places[n, k]]


@_jit
def blend_back(places, shares, weight, by_kept):
    """Gradient of Σ weight · whole; `weight` (N,)."""
    by_kept[:] = 0.0
    for n in range(weight.size):
        for k in range(shares.shape[1]):
            by_kept[places[n, k]] += shares[n, k] * weight[n]


@_jit
def _gain(gamma, spread, count, yy, yf, ff):
    """One course's gain integrated out: log mean of its likelihood over log g ~ Normal(0, s).

    The course's readings say −½ g^−2γ (Σ w y² − 2 g Σ w y f + g² Σ w f²) − n γ log g of it. Gauss and
    Hermite's rule around the mode, which is exact for what is nearly normal. Where s is 0, g is 1.

    Returns that, and its derivatives by Σ w y², Σ w y f, Σ w f², γ and s.
    """
    if spread == 0.0:
        return yf - 0.5 * (yy + ff), -0.5, 1.0, -0.5, 0.0, 0.0
    x, narrow = 0.0, 1 / (spread * spread)
    if yf > 0.0:
        x = np.log(yf / ff) * ff / (ff + narrow)
    top, curve = 0.0, 1.0
    for _ in range(_CLIMB):
        grown, shrunk = np.exp(x), np.exp(-2 * gamma * x)
        a, b, c = shrunk * yy, shrunk * grown * yf, shrunk * grown * grown * ff
        slope = gamma * a + (1 - 2 * gamma) * b - (1 - gamma) * c - count * gamma - x * narrow
        bend = -2 * gamma * gamma * a + (1 - 2 * gamma) ** 2 * b - 2 * (1 - gamma) ** 2 * c
        top, curve = -0.5 * a + b - 0.5 * c - count * gamma * x - 0.5 * x * x * narrow, narrow + abs(bend)
        step = slope / curve
        if abs(step) * np.sqrt(curve) < _NEAR:
            break
        x += max(-_STRIDE, min(_STRIDE, step))
    if narrow - bend > 0.5 * narrow:
        curve = narrow - bend
    width, total = 1 / np.sqrt(curve), 0.0
    places, shares = (_FEW, _FEW_SHARES) if width < _NARROW else (_PLACES, _SHARES)
    by_yy, by_yf, by_ff, by_gamma, by_spread = 0.0, 0.0, 0.0, 0.0, 0.0
    grown, shrunk = np.exp(x), np.exp(-2 * gamma * x)
    for k in range(places.size):
        away = width * places[k]
        more, less = np.exp(away), np.exp(-2 * gamma * away)
        for side in range(2 if k else 1):
            at = x - away if side else x + away
            u = grown / more if side else grown * more
            v = shrunk / less if side else shrunk * less
            a, b, c = v * yy, v * u * yf, v * u * u * ff
            here = -0.5 * a + b - 0.5 * c - count * gamma * at - 0.5 * at * at * narrow
            # Beyond the mode by rounding alone, of readings that are told to a billionth.
            w = shares[k] * np.exp(min(here - top, 1.0))
            total += w
            by_yy -= 0.5 * w * v
            by_yf += w * v * u
            by_ff -= 0.5 * w * v * u * u
            by_gamma += w * at * (a - 2 * b + c - count)
            by_spread += w * (at * at * narrow - 1) / spread
    return (
        top + np.log(total * width / spread), by_yy / total, by_yf / total, by_ff / total, by_gamma / total,
        by_spread / total,
    )  # fmt: skip


@_jit
def _summed(f, noise, floor, value, point, course, weight, log_size, slope):
    """Courses' n, Σ w y², Σ w y f, Σ w f², −Σ log sd − ½ n log 2π; into rooms: points' w, log m, γ m'/m."""
    count = 0
    for n in range(value.size):
        count = max(count, course[n] + 1)
    told, yy, yf, ff = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    log_sd = np.zeros(count)
    for p in range(f.size):
        away = np.sqrt(f[p] * f[p] + floor * floor)
        m = 0.5 * (f[p] + away)
        # Far below 0 the sum cancels; this is the same.
        if f[p] < 0.0:
            m = 0.5 * floor * floor / (away - f[p])
        log_size[p], slope[p] = np.log(m), noise[1] / away
        weight[p] = np.exp(-2 * (noise[0] + noise[1] * log_size[p]))
    for n in range(value.size):
        p, k, y = point[n], course[n], value[n]
        log_sd[k] -= noise[0] + noise[1] * log_size[p] + 0.5 * np.log(2 * np.pi)
        told[k] += 1
        yy[k] += weight[p] * y * y
        yf[k] += weight[p] * y * f[p]
        ff[k] += weight[p] * f[p] * f[p]
    return told, yy, yf, ff, log_sd


@_jit
def weigh(f, noise, floor, value, point, course, by_f, by_noise, by_value):
    """Log density of all readings, courses' gains integrated out, with its gradient.

    A reading of course k has the mean g_k f and the sd σ₀ (g_k m)^γ, m = (f + √(f² + ε²))/2, and
    log g_k ~ Normal(0, s); g_k = 1 where s is 0.

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
    weight, log_size, slope = np.empty(f.size), np.empty(f.size), np.empty(f.size)
    told, yy, yf, ff, log_sd = _summed(f, noise, floor, value, point, course, weight, log_size, slope)
    total = np.sum(log_sd)
    by_f[:], by_noise[:] = 0.0, 0.0
    for k in range(told.size):
        one, yy[k], yf[k], ff[k], by_gamma, by_spread = _gain(
            noise[1], noise[2], told[k], yy[k], yf[k], ff[k]
        )
        total += one
        by_noise[1] += by_gamma
        by_noise[2] += by_spread
    for n in range(value.size):
        p, k, y = point[n], course[n], value[n]
        w = weight[p]
        by_log = -2 * w * (yy[k] * y * y + yf[k] * y * f[p] + ff[k] * f[p] * f[p]) - 1
        by_noise[0] += by_log
        by_noise[1] += by_log * log_size[p]
        by_value[n] = w * (2 * yy[k] * y + yf[k] * f[p])
        by_f[p] += w * (yf[k] * y + 2 * ff[k] * f[p]) + by_log * slope[p]
    return total


@_jit
def weigh_courses(f, noise, floor, value, point, course):
    """What `weigh` sums, course by course, ndarray (courses,)."""
    weight, log_size, slope = np.empty(f.size), np.empty(f.size), np.empty(f.size)
    told, yy, yf, ff, found = _summed(f, noise, floor, value, point, course, weight, log_size, slope)
    for k in range(told.size):
        found[k] += _gain(noise[1], noise[2], told[k], yy[k], yf[k], ff[k])[0]
    return found


FACTOR_AT = types.void(_REAL, types.intp, _REAL, _REAL)
FACTOR_BACK_AT = types.void(_REAL, types.intp, _REAL, _REAL, _REAL, _REAL)
RELATIVE_ROOT_AT = types.void(_REAL, types.intp, _REAL, _REAL)
RELATIVE_ROOT_BACK_AT = types.void(_REAL, types.intp, _REAL, _REAL, _REAL)
CARRY_AT = types.void(*[_REAL] * 10, *[types.intp] * 4, _REAL, _REAL)
CARRY_BACK_AT = types.void(*[_REAL] * 10, *[types.intp] * 4, *[_REAL] * 5)
DEVIATE_AT = types.void(_REAL, _REAL, _REAL, types.intp, types.intp, _REAL, _REAL)
PLACE_AT = types.void(*[_REAL] * 12, *[types.intp] * 4, *[_REAL] * 4)
PLACE_BACK_AT = types.void(*[_REAL] * 11, *[types.intp] * 4, *[_REAL] * 2)
BLEND_AT = types.void(_REAL, types.intp, _WHOLE, _REAL, types.intp, types.intp, _REAL)
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


@numba.cfunc(PLACE_AT, cache=True)
def place_at(
    mean, u, back, push, tilt, share, constant, mode, basis, inner, offset, outer, count, size, stiff,
    features, theta, density, bend, z,
):  # fmt: skip
    """`place` by addresses; what it returns goes to `density`."""
    numba.carray(density, (1,))[0] = place(
        numba.carray(mean, (size,)),
        numba.carray(u, (count, size)),
        numba.carray(back, (size, size)),
        numba.carray(push, (count, size, size)),
        numba.carray(tilt, (count, size, size)),
        numba.carray(share, (count, stiff, stiff)),
        numba.carray(constant, (1,))[0],
        numba.carray(mode, (count, size)),
        numba.carray(basis, (count, size, stiff)),
        numba.carray(inner, (count, size, features)),
        numba.carray(offset, (count, features)),
        numba.carray(outer, (count, stiff, features)),
        numba.carray(theta, (count, size)),
        numba.carray(bend, (count, features)),
        numba.carray(z, (count, size)),
    )


@numba.cfunc(PLACE_BACK_AT, cache=True)
def place_back_at(
    back, push, tilt, share, basis, inner, outer, bend, z, weight, density, count, size, stiff, features,
    by_mean, by_u,
):  # fmt: skip
    """`place_back` by addresses."""
    place_back(
        numba.carray(back, (size, size)),
        numba.carray(push, (count, size, size)),
        numba.carray(tilt, (count, size, size)),
        numba.carray(share, (count, stiff, stiff)),
        numba.carray(basis, (count, size, stiff)),
        numba.carray(inner, (count, size, features)),
        numba.carray(outer, (count, stiff, features)),
        numba.carray(bend, (count, features)),
        numba.carray(z, (count, size)),
        numba.carray(weight, (count, size)),
        numba.carray(density, (1,))[0],
        numba.carray(by_mean, (size,)),
        numba.carray(by_u, (count, size)),
    )


@numba.cfunc(BLEND_AT, cache=True)
def blend_at(kept, points, places, shares, count, around, whole):
    """`blend` by addresses."""
    blend(
        numba.carray(kept, (points,)),
        numba.carray(places, (count, around)),
        numba.carray(shares, (count, around)),
        numba.carray(whole, (count,)),
    )


@numba.cfunc(BLEND_AT, cache=True)
def blend_back_at(by_kept, points, places, shares, count, around, weight):
    """`blend_back` by addresses."""
    blend_back(
        numba.carray(places, (count, around)),
        numba.carray(shares, (count, around)),
        numba.carray(weight, (count,)),
        numba.carray(by_kept, (points,)),
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
