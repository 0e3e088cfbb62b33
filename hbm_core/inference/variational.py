"""The variational engine: a full-rank normal in the unconstrained space, fitted by the evidence lower bound.

The normal maximises ELBO = E_q[log p(x, y)] + H(q) over its mean and Cholesky factor. The expectation is
taken over one fixed set of quasi-random points, which makes it a smooth function for an ordinary optimiser
and its optimum reproducible (Giordano, Ingram & Broderick, 2024, Black Box Variational Inference with a
Deterministic Objective, JMLR 25); it starts from Laplace's approximation, and above `MOST` dimensions that
one is kept. What the recipe integrates out is drawn from its exact conditional, so that the normal has few
dimensions.

It is an approximation: funnels and skewness stay outside it. Pareto's k of the importance ratios p/q says
when it is off (Yao, Vehtari, Simpson & Gelman, 2018, Yes, but Did It Work?, ICML); where an exact posterior
is known the distance from it is told in posterior sds, because no Monte Carlo error explains a bias.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import qmc

from hbm_core.errors import FitError
from hbm_core.inference.nuts import CompileCache
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import attributes, result_tree
from hbm_core.inference.sampler import ChainProgress, Progress, Sampler
from hbm_core.models.pymc_three_level import KEEP_MEAN
from hbm_core.models.structure import ModelSpec

#: Dimensions above which the Laplace approximation is kept.
MOST = 60
#: Least count of fixed points, and points per dimension: below that a full-rank normal fits the points.
_POINTS, _PER_DIMENSION = 256, 16
#: Steps of the differences that give the curvature, in units of the first guess at an sd.
_STEP = 1e-3
_STARTS = 3
#: A density that is not finite, to an optimiser.
_NOWHERE = 1e12
_C_DOUBLE = ctypes.POINTER(ctypes.c_double)


@dataclass(frozen=True, eq=False)
class Normal:
    """x = mean + factor z with z ~ Normal(0, I).

    Parameters
    ----------
    mean : ndarray (D,)
        In the unconstrained space.
    factor : ndarray (D, D)
        Lower triangular, positive diagonal.
    method : str
        "full-rank ELBO" or "Laplace".
    """

    mean: np.ndarray
    factor: np.ndarray
    method: str

    def points(self, z: np.ndarray) -> np.ndarray:
        """Points of the unconstrained space from standard points z, both ndarray (n, D)."""
        return self.mean + z @ self.factor.T

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """Log q at the x of standard points z (n, D), ndarray (n,)."""
        constant = 0.5 * self.mean.size * np.log(2 * np.pi) + np.log(np.diag(self.factor)).sum()
        return -0.5 * np.vecdot(z, z) - constant


class Target:
    """Log posterior, its gradient, and the variables at points of a compiled model's unconstrained space."""

    def __init__(self, compiled: Any) -> None:
        self.compiled, self.size = compiled, int(compiled.n_dim)
        whole, pointer = ctypes.c_uint64, ctypes.c_void_p
        self._log = ctypes.CFUNCTYPE(ctypes.c_int64, whole, *[pointer] * 4)(
            compiled.compiled_logp_func.address
        )
        self._expand = ctypes.CFUNCTYPE(ctypes.c_int64, whole, whole, *[pointer] * 3)(
            compiled.compiled_expand_func.address
        )
        self._data = compiled.user_data.ctypes.data

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density (n,), −inf where there is none, and gradient (n, D), at x (n, D)."""
        x = np.ascontiguousarray(x, dtype=float)
        value, gradient = np.empty(len(x)), np.zeros_like(x)
        row = x.itemsize * self.size
        for place in range(len(x)):
            at = place * row
            code = self._log(
                self.size, x.ctypes.data + at, gradient.ctypes.data + at,
                value.ctypes.data + place * x.itemsize, self._data,
            )  # fmt: skip
            if code:
                value[place], gradient[place] = -np.inf, 0.0
        return value, gradient

    def variables(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every variable by name, each ndarray (n, …), at x (n, D)."""
        x = np.ascontiguousarray(x, dtype=float)
        out = np.empty((len(x), self.compiled.n_expanded))
        for row, place in zip(x, out, strict=True):
            if self._expand(
                self.size, self.compiled.n_expanded, row.ctypes.data, place.ctypes.data, self._data
            ):
                raise FitError("The variables of the model cannot be computed at a draw.")
        names, slices, shapes = self.compiled.shape_info
        return {
            name: out[:, part].reshape(len(x), *(int(length) for length in shape))
            for name, part, shape in zip(names, slices, shapes, strict=True)
        }


def geometry(spec: ModelSpec) -> str:
    """The geometry in which the normal is fitted: collapsed where there is one."""
    offered = spec.structure.parameterizations
    return "collapsed" if "collapsed" in offered else spec.parameterization


def approximate(
    spec: ModelSpec,
    sampler: Sampler,
    *,
    cache: CompileCache | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    time_limit: float | None = None,
) -> xr.DataTree:
    """Independent draws from the normal approximation of a posterior.

    Parameters
    ----------
    spec : ModelSpec
        The model; its geometry is ignored where a collapsed one exists.
    sampler : Sampler
        chains × draws independent draws; `seed`. The rest has no meaning here.
    cache : CompileCache, optional
        Where compiled models are kept.
    on_progress, should_stop : callable, optional
        As of `hbm_core.inference.nuts.sample`; stopped before it ends a fit has nothing to keep.
    time_limit : float, optional
        Seconds.

    Returns
    -------
    xarray.DataTree
        As of `nuts.sample`, without ``sample_stats``. Attributes beside: ``engine`` ("variational"),
        ``method``, ``k_hat`` (Pareto's k of p/q), ``elbo`` and ``elbo_se`` (nats).

    Raises
    ------
    FitError
        No finite start, stopped, or no draw has a finite density.
    """
    began = time.perf_counter()
    # The spreads alone are further from a normal than the spreads with μ, whose weights then lack a tail.
    constants = {**spec.constants, KEEP_MEAN: 1.0}
    chosen = replace(spec, parameterization=geometry(spec), constants=constants)
    cache = CompileCache() if cache is None else cache
    report = on_progress or (lambda progress: None)
    total = sampler.draws
    if chosen not in cache:
        report(Progress.compiling(sampler.chains, total))
    target = Target(cache.get(chosen))
    compiled = time.perf_counter() - began

    def watch() -> None:
        if should_stop is not None and should_stop():
            raise FitError("The fit was stopped before it had draws.")
        if time_limit is not None and time.perf_counter() - began - compiled > time_limit:
            raise FitError(f"The approximation was not found within {time_limit:g} s.")

    report(Progress("sampling", (ChainProgress(0, total, 0, True, 0.0),) * sampler.chains))
    normal = fitted(target, sampler.seed, watch)
    # A stream of its own: conditional draws take [seed, 1].
    z = np.random.default_rng([sampler.seed, 2]).standard_normal((sampler.chains * total, target.size))
    x = normal.points(z)
    ratio = target(x)[0] - normal.log_density(z)
    inside = np.isfinite(ratio)
    if not inside.any():
        raise FitError("The normal approximation lies where the posterior has no density: use --engine nuts.")
    watch()
    variables = {
        name: v.reshape(sampler.chains, total, *v.shape[1:]) for name, v in target.variables(x).items()
    }
    tree = result_tree(spec, recipe(chosen).complete(chosen, variables, sampler.seed))
    report(Progress("sampling", (ChainProgress(total, total, 0, False, 0.0),) * sampler.chains))
    tree.attrs.update(
        engine="variational",
        method=normal.method,
        k_hat=pareto_k(ratio[inside]) if inside.all() else float("inf"),
        elbo=float(ratio.mean()) if inside.all() else float("-inf"),
        elbo_se=float(ratio[inside].std() / np.sqrt(ratio.size)),
    )
    spent = time.perf_counter() - began
    tree.attrs |= attributes(chosen, sampler, "", compile=compiled, sample=spent - compiled, total=spent)
    return tree


def fitted(target: Target, seed: int, watch: Callable[[], None] = lambda: None) -> Normal:
    """The normal that maximises the evidence lower bound; Laplace's in many dimensions.

    Raises
    ------
    FitError
        No start has a finite density.
    """
    start = laplace(target, seed, watch)
    if target.size > MOST:
        return start
    z = standard_points(target.size, seed)
    rows, columns = np.tril_indices(target.size)
    diagonal = rows == columns

    def unpack(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner = np.zeros((target.size, target.size))
        inner[rows, columns] = np.where(diagonal, np.exp(values[target.size :]), values[target.size :])
        return values[: target.size], inner

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        # In the coordinates of the Laplace approximation, where its normal is the standard one.
        watch()
        shift, inner = unpack(values)
        standard = shift + z @ inner.T
        value, gradient = target(start.points(standard))
        if not np.isfinite(value).all():
            return _NOWHERE, np.zeros_like(values)
        pull = gradient @ start.factor
        outer = (pull.T @ z / len(z))[rows, columns]
        logs = values[target.size :]
        slope = np.where(diagonal, outer * np.exp(np.where(diagonal, logs, 0.0)) + 1, outer)
        return -float(value.mean() + logs[diagonal].sum()), -np.concatenate([pull.mean(axis=0), slope])

    first = np.zeros(target.size + rows.size)
    for shrunk in (0.0, -0.7, -1.6):
        first[target.size :][diagonal] = shrunk
        if loss(first)[0] < _NOWHERE:
            break
    else:
        return start
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 500, "maxcor": 20})
    shift, inner = unpack(found.x)
    return Normal(start.points(shift[None, :])[0], start.factor @ inner, "full-rank ELBO")


def laplace(target: Target, seed: int, watch: Callable[[], None] = lambda: None) -> Normal:
    """The normal at the mode with the curvature there; directions that curve upwards are made narrow."""

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        watch()
        value, gradient = target(x[None, :])
        return (-float(value[0]), -gradient[0]) if np.isfinite(value[0]) else (_NOWHERE, np.zeros_like(x))

    best: Any = None
    for place in range(_STARTS):
        start = np.asarray(target.compiled.initial_point_func(np.random.SeedSequence([seed, place])))
        if loss(start)[0] >= _NOWHERE:
            continue
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
        if best is None or found.fun < best.fun:
            best = found
    if best is None:
        raise FitError("No start has a finite density: check the units of the data and the priors' numbers.")
    step = _STEP * np.maximum(1.0, np.abs(best.x) * 1e-3)
    high = target(best.x + np.diag(step))[1]
    low = target(best.x - np.diag(step))[1]
    curvature = -(high - low) / (2 * step[:, None])
    curvature = 0.5 * (curvature + curvature.T)
    values, vectors = np.linalg.eigh(curvature)
    values = np.where(values > 1e-4 * max(values.max(), 1e-300), values, np.maximum(values.max(), 1.0))
    covariance = (vectors / values) @ vectors.T
    return Normal(best.x, np.linalg.cholesky(covariance), "Laplace")


def standard_points(size: int, seed: int) -> np.ndarray:
    """Fixed standard normal points, ndarray (n, size): scrambled Sobol' points and their mirror images."""
    count = max(_POINTS, 2 ** int(np.ceil(np.log2(_PER_DIMENSION * size)))) // 2
    uniform = qmc.Sobol(size, rng=np.random.default_rng([seed, 3])).random(count)
    z = ndtri(np.clip(uniform, 1e-9, 1 - 1e-9))
    z = np.concatenate([z, -z])
    # Their second moments are made exact, so that the fit of a normal posterior is exact.
    return np.linalg.solve(np.linalg.cholesky(z.T @ z / len(z)), z.T).T


def pareto_k(log_ratio: np.ndarray) -> float:
    """Pareto's k of importance ratios, from their logarithms (n,): above 0.7 the approximation is off.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto Smoothed Importance Sampling, JMLR 25, section 3, as
    computed by ArviZ.
    """
    from arviz_stats.base import array_stats

    spread = float(np.ptp(log_ratio))
    if spread < 1e-9:
        return 0.0
    return float(array_stats.psislw(-(log_ratio - log_ratio.max()))[1])
