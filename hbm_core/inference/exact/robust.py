"""Exact engine of the two-level models with a Student-t level: a lattice over (μ, τ, ν).

Given (μ, τ, ν) units are independent and each unit's integral over its mixing variable w is
one-dimensional (`robust_lattice`). The lattice is Clenshaw–Curtis in log ν and in a logarithmic
coordinate of τ, evenly spaced in μ within a range that depends on τ; it stands where the posterior is
(`robust_place`), and is refined until every second node gives the same moments. What the data say at
the nodes is kept, so that another prior costs a re-weighting; when the re-weighted posterior leaves the
lattice or becomes too narrow for it, the lattice is placed anew.

References
----------
Gelman et al. (2013), BDA3, chapter 17 (robust models, the scale mixture in section 17.2).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
from scipy import special
from scipy.interpolate import CubicSpline

from hbm_core.errors import FitError, ImproperPosteriorError, NotExactError
from hbm_core.inference.exact.base import PROBABILITIES, Conditional, ExactPosterior, Weights
from hbm_core.inference.exact.robust_lattice import (
    Kind,
    Lattice,
    build_lattice,
    evaluate,
    excess,
    interpolation,
    log_jacobian,
    mixing_range,
    rule,
    slice_moments,
    stretch,
    stretch_rate,
    tau_of,
    v_of,
)
from hbm_core.inference.exact.robust_marginal import Marginal
from hbm_core.inference.exact.robust_place import (
    edges_of,
    first_mu,
    log_prior,
    mu_conditional,
    narrow_mu,
    place,
    v_edges_of,
)
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

#: Largest change of a mean or sd, in posterior sds, between the lattice and every second node of it.
TOLERANCE = 1e-3
#: Share of mass at a face beyond which the lattice is placed anew.
_FACE = 3e-6
_COUNTS = (33, 33, 25)
_FINER = {17: 25, 25: 33, 33: 49, 49: 65, 65: 97, 97: 129, 129: 193, 193: 257}
_TABLE_BYTES = 300_000_000
_KERNEL_BYTES = 120_000_000
#: Distance in sds of a marginal density's mean from the lattice's where the density is not shown.
_LOST = 0.05
#: Most nodes of θ for the units' marginal densities.
_GRID_LIMIT = 400
_CACHE_BYTES = 600_000_000
_CACHE_ENTRIES = 12


def solve_robust(spec: ModelSpec) -> RobustPosterior:
    """The exact posterior of a two-level model with Student-t likelihood or Student-t effects.

    Parameters
    ----------
    spec : ModelSpec
        Structure with ``likelihood="student_t"`` or ``effects="student_t"``, and its priors.

    Raises
    ------
    NotExactError
        Covariates, another scale, no partial pooling, both levels Student-t, or a prior on μ whose
        density is infinite at an edge.
    ImproperPosteriorError
        The posterior has no finite mass.
    """
    structure = spec.structure
    _check_structure(structure)
    if spec.priors["mu"].origin < 1:
        raise NotExactError(
            "prior on mu", "a density that is bounded at the edge of its support", spec.priors["mu"].text
        )
    orders = _moment_orders(structure, spec.priors)
    kind: Kind = "likelihood" if structure.likelihood == "student_t" else "effects"
    table = _CACHE.find(structure, kind, spec.priors, orders)
    return RobustPosterior(spec, table, orders)


def _check_structure(structure: TwoLevelNormal) -> None:
    problems = (
        (structure.pooling != "partial", "partial pooling", f"{structure.pooling} pooling"),
        (bool(structure.columns), "no covariates", f"covariates {', '.join(structure.columns)}"),
        (structure.scale != "identity", "τ itself as the scale of the effects", f"scale {structure.scale}"),
        (
            structure.likelihood == structure.effects == "student_t",
            "Student-t at one level",
            "Student-t at both levels",
        ),
    )
    for wrong, expected, got in problems:
        if wrong:
            raise NotExactError(
                "exact engine for Student-t levels", expected, got, "Use NUTS for this model."
            )


def _moment_orders(structure: TwoLevelNormal, priors: Mapping[str, Prior]) -> dict[str, int]:
    """Highest finite moment, up to 2, of each parameter; refuses posteriors without finite mass.

    As τ grows each unit's likelihood falls as 1/τ, with μ integrated over a flat prior as one unit less;
    as μ grows alone each falls as |μ|^(−1−ν); as ν grows the likelihood tends to the normal model's.
    """
    mu, tau, nu = priors["mu"], priors["tau"], priors["nu"]
    units = len(structure.units)
    if not nu.proper:
        raise ImproperPosteriorError(
            "prior on nu", "a proper prior, because the likelihood stays positive as ν → ∞", nu.text
        )
    effective = units - (not mu.proper)
    if tau.tail + effective <= 0:
        needed = 3 if not mu.proper else 2
        raise ImproperPosteriorError(
            "prior on tau",
            f"a proper prior, or at least {needed} units for a flat prior on τ"
            + ("" if mu.proper else " beside a flat prior on μ"),
            f"{tau.text} with {units} unit{'s' if units > 1 else ''}",
            "Use for instance HalfCauchy.",
        )
    lightest = nu.support[0]

    def finite(power: float) -> int:
        return sum(power > moment for moment in (1, 2))

    of_tau = finite(tau.tail + effective)
    alone = units * (1 + lightest) + mu.tail + (1e-9 if lightest == 0 else 0.0)
    of_mu = min(finite(alone), finite(mu.tail + units + tau.tail))
    of_theta = of_mu
    if structure.likelihood == "student_t":
        of_theta = min(of_mu, finite(tau.tail + effective + lightest))
    return {"mu": of_mu, "tau": of_tau, "nu": finite(nu.tail), "theta": of_theta}


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of ``mu``, ``tau``, ``nu`` and the units' effects on a lattice, arrays (3 + J,)."""

    mean: np.ndarray
    sd: np.ndarray
    log_mass: float

    def distance(self, other: Moments, finite: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Largest difference of mean and sd per parameter, in sds; only where the moments are `finite`."""
        scale = np.where(self.sd > 0, self.sd, 1.0)
        of_mean = np.where(finite[0], np.abs(other.mean - self.mean), 0.0)
        of_sd = np.where(finite[1], np.abs(other.sd - self.sd), 0.0)
        return np.maximum(of_mean, of_sd) / scale


def _log_prior(lattice: Lattice, priors: Mapping[str, Prior]) -> np.ndarray:
    return (
        log_prior(priors["mu"], lattice.mu)[:, :, None]
        + log_prior(priors["tau"], lattice.tau)[:, None, None]
        + log_prior(priors["nu"], lattice.nu)
    )


def _masses(
    lattice: Lattice, log_density: np.ndarray, stride: tuple[int, int, int] = (1, 1, 1)
) -> tuple[np.ndarray, float]:
    a, b, c = stride
    log_mass = log_density[::a, ::b, ::c] + lattice.log_weights(stride)
    peak = log_mass.max()
    mass = np.exp(log_mass - peak)
    total = mass.sum()
    return mass / total, float(peak + np.log(total))


def _moments(
    lattice: Lattice, y: np.ndarray, log_density: np.ndarray, stride: tuple[int, int, int] = (1, 1, 1)
) -> Moments:
    a, b, c = stride
    mass, log_mass = _masses(lattice, log_density, stride)
    of_tau, of_nu, of_mu = mass.sum(axis=(1, 2)), mass.sum(axis=(0, 1)), mass.sum(axis=2)
    pairs = [
        _mean_sd(lattice.mu[::a, ::b].ravel(), of_mu.ravel()),
        _mean_sd(lattice.tau[::a], of_tau),
        _mean_sd(lattice.nu[::c], of_nu),
    ]
    units = len(y)
    flat = mass.ravel()
    shift = lattice.shift[:, ::a, ::b, ::c].reshape(units, -1) @ flat
    square = lattice.square[:, ::a, ::b, ::c].reshape(units, -1) @ flat
    head_mean, head_sd = np.array(pairs).T
    return Moments(
        np.concatenate([head_mean, y + shift]),
        np.concatenate([head_sd, np.sqrt(np.maximum(square - shift**2, 0.0))]),
        log_mass,
    )


def _mean_sd(x: np.ndarray, mass: np.ndarray) -> tuple[float, float]:
    mean = float(mass @ x)
    return mean, float(np.sqrt(mass @ (x - mean) ** 2))


def _finite(orders: Mapping[str, int], units: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.array([orders["mu"], orders["tau"], orders["nu"], *[orders["theta"]] * units])
    return order >= 1, order >= 2


def _covers(lattice: Lattice, log_density: np.ndarray, priors: Mapping[str, Prior]) -> bool:
    """Whether the posterior lies inside the lattice: no mass at a face that is not a prior's edge."""
    box = lattice.box
    nu_edges = edges_of(priors["nu"])
    v_edges = v_edges_of(priors["tau"], box.scale)
    mu_ends = (float(lattice.mu.min()), float(lattice.mu.max()))
    for ends, own, wanted in (
        (box.v, box.v_edges, v_edges),
        (box.log_nu, box.nu_edges, nu_edges),
        (mu_ends, box.mu_edges, priors["mu"].support),
    ):
        for edge in wanted:
            if edge not in own and ends[0] < edge < ends[1]:
                return False
    if not np.isfinite(log_density.max()):
        return False
    of_v, of_mu, of_nu = _node_densities(lattice, _masses(lattice, log_density)[0])
    for density, ends, own, wanted in (
        (of_v, box.v, box.v_edges, v_edges),
        (of_nu, box.log_nu, box.nu_edges, nu_edges),
        (of_mu, mu_ends, box.mu_edges, priors["mu"].support),
    ):
        for place_, end, edge, now in zip((0, -1), ends, own, wanted, strict=True):
            at_edge = edge == now and np.isfinite(edge) and abs(end - edge) <= 1e-9 * (1 + abs(edge))
            if not at_edge and density[place_] > _FACE * density.max():
                return False
    return True


def _node_densities(lattice: Lattice, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Marginal densities at the nodes of v, of relative μ and of log ν, up to a factor each."""
    marginals = (mass.sum(axis=(1, 2)), mass.sum(axis=(0, 2)), mass.sum(axis=(0, 1)))
    box, counts = lattice.box, lattice.counts
    return (
        marginals[0] / rule(counts[0], box.edged[0])[1],
        marginals[1] / box.mu_rule(counts[1])[1],
        marginals[2] / rule(counts[2], box.edged[2])[1],
    )


class _Table:
    """A lattice with what is computed from it once: kernels of the units' marginal densities."""

    def __init__(self, lattice: Lattice, kind: Kind) -> None:
        self.lattice, self.kind = lattice, kind
        self._kernel: _Kernel | None = None

    @property
    def bytes(self) -> int:
        return self.lattice.bytes + (0 if self._kernel is None else self._kernel.bytes)

    @cached_property
    def basis(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gaussians that stand for the posterior of μ within a slice.

        One per node, as wide as the spacing there, so that sums over nodes are smooth however small τ
        is; the matrix undoes the smoothing. At an edge of the prior, where the density is cut: narrow
        ones on finer nodes.

        Returns
        -------
        places : ndarray (U,)
            Relative to the slice's range.
        matrix : ndarray (U, Z)
            From masses at nodes to masses of Gaussians.
        width : ndarray (U,)
            Of each Gaussian, relative to the slice's range.
        """
        box, count = self.lattice.box, self.lattice.counts[1]
        if not box.edged[1]:
            places, slope = stretch(np.linspace(0, 1, count), box.tightness)
            width = slope / (count - 1)
            smooth = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
            return places, np.linalg.inv(smooth) / box.mu_rule(count)[1], width
        fine = 4 * count
        even = (np.arange(fine) + 0.5) / fine
        places, slope = stretch(even, box.tightness)
        matrix = interpolation(count, True, even) / box.mu_rule(count)[1] * slope[:, None] / fine
        return places, matrix, 0.6 * slope / fine

    def kernel(self, lower: float, upper: float, mass: np.ndarray) -> _Kernel:
        """Kernel on nodes of θ that span `lower` to `upper`, for lattice nodes that hold `mass`."""
        of_tau, of_nu = mass.sum(axis=(1, 2)), mass.sum(axis=(0, 1))
        slices, columns = of_tau > 1e-9, of_nu > 1e-9
        known = self._kernel
        if known is None or not known.serves(lower, upper, slices, columns):
            margin = 0.1 * (upper - lower)
            soft = 1.0 if self.kind == "likelihood" else 0.25
            grid = self.grid(lower - margin, upper + margin, of_tau, soft)
            known = _Kernel(self, grid, slices, columns)
            self._kernel = known
        return known

    def grid(self, lower: float, upper: float, mass_of_tau: np.ndarray, soft: float) -> np.ndarray:
        """Nodes as close as the slices' densities need: a spacing of μ, widened by a `soft` share of τ²."""
        lattice = self.lattice
        share, inner = mass_of_tau / mass_of_tau.max(), lattice.counts[1] - 1
        for cut, step in ((1e-4, 0.7), (1e-3, 0.7), (1e-2, 0.7), (1e-2, 1.0), (1e-2, 1.5)):
            some = share > cut
            low, high = lattice.mu[some, 0], lattice.mu[some, -1]
            width = (high - low) / (lattice.box.tightness * inner)
            growth = 2 * stretch_rate(lattice.box.tightness) / inner
            base = width**2 + soft * lattice.tau[some] ** 2
            points = [lower]
            while points[-1] < upper and len(points) <= _GRID_LIMIT:
                away = np.maximum(np.maximum(low - points[-1], points[-1] - high), 0.0)
                local = np.sqrt(base + (growth * (points[-1] - (low + high) / 2)) ** 2)
                points.append(points[-1] + step * float(np.maximum(local, 0.35 * away).min()))
            if points[-1] >= upper:
                return np.array(points)
        return np.linspace(lower, upper, _GRID_LIMIT)

    def slice_kernel(self, grid: np.ndarray, t: int, columns: np.ndarray) -> np.ndarray:
        """Density of θ on `grid` given each node of one slice of τ, ndarray (G, Z) or (G, Z·n)."""
        lattice = self.lattice
        places, matrix, relative = self.basis
        low, wide, tau = lattice.mu[t, 0], lattice.mu[t, -1] - lattice.mu[t, 0], float(lattice.tau[t])
        centre, width = low + wide * places, wide * relative
        if self.kind == "likelihood":
            spread = np.hypot(tau, width)
            exponent = np.maximum(-0.5 * ((grid[:, None] - centre) / spread) ** 2, -300)
            return np.exp(exponent) / (spread * np.sqrt(2 * np.pi)) @ matrix
        nu = lattice.nu[columns]
        log_values, _, _ = slice_moments(
            centre, width, "effects", tau, grid, nu, step=1.3, shares=False, tails=False
        )
        values = np.exp(np.maximum(log_values, -300)).reshape(len(centre), -1)
        of_node = (matrix.T @ values).reshape(-1, len(grid), len(nu))
        return of_node.transpose(1, 0, 2).reshape(len(grid), -1)


class _Kernel:
    """Density of θ on nodes of its own, given each lattice node, with μ interpolated between the nodes.

    ``"likelihood"``: Normal(θ; μ, τ), the same for all ν. ``"effects"``: StudentT(θ; ν, μ, τ). Kept when
    small, else made anew each time.

    Attributes
    ----------
    grid : ndarray (G,)
        Nodes of θ.
    slices, columns : ndarray of bool (T,), (N,)
        The τ and ν of the lattice that are covered.
    """

    def __init__(self, table: _Table, grid: np.ndarray, slices: np.ndarray, columns: np.ndarray) -> None:
        self.grid, self.slices, self.columns = grid, slices, columns
        inner = 1 if table.kind == "likelihood" else int(columns.sum())
        size = 8 * len(grid) * int(slices.sum()) * table.lattice.counts[1] * inner
        self.bytes = size if size <= _KERNEL_BYTES else 0
        self._parts = [table.slice_kernel(grid, t, columns) for t in self._places] if self.bytes else None

    @property
    def _places(self) -> np.ndarray:
        return np.flatnonzero(self.slices)

    def parts(self, table: _Table) -> Iterator[tuple[int, np.ndarray]]:
        """Each covered slice of τ with its kernel."""
        for place_, t in enumerate(self._places):
            kept = self._parts
            yield int(t), kept[place_] if kept else table.slice_kernel(self.grid, t, self.columns)

    def serves(self, lower: float, upper: float, slices: np.ndarray, columns: np.ndarray) -> bool:
        """Whether it covers a range of θ and these τ and ν."""
        spans = self.grid[0] <= lower and self.grid[-1] >= upper
        return bool(spans and not (slices & ~self.slices).any() and not (columns & ~self.columns).any())


class _Cache:
    """Tables by data, the most recently used ones, within a bound of memory."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[str, int], _Table] = OrderedDict()
        self._made = 0
        self._lock = Lock()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._tables.clear()

    def find(
        self, structure: TwoLevelNormal, kind: Kind, priors: Mapping[str, Prior], orders: Mapping[str, int]
    ) -> _Table:
        digest = hashlib.sha256(
            structure.effect.tobytes() + structure.se.tobytes() + kind.encode()
        ).hexdigest()
        with self._lock:
            known = [(key, table) for key, table in reversed(self._tables.items()) if key[0] == digest]
        finite = _finite(orders, len(structure.units))
        for key, table in known:
            log_density = table.lattice.log_likelihood + _log_prior(table.lattice, priors)
            if not _covers(table.lattice, log_density, priors):
                continue
            whole = _moments(table.lattice, structure.effect, log_density)
            half = _moments(table.lattice, structure.effect, log_density, (2, 2, 2))
            if whole.distance(half, finite).max() < TOLERANCE:
                with self._lock:
                    if key in self._tables:
                        self._tables.move_to_end(key)
                return table
        table = _Table(_settled_lattice(structure, kind, priors, orders), kind)
        with self._lock:
            self._made += 1
            self._tables[digest, self._made] = table
            while len(self._tables) > 1 and (
                len(self._tables) > _CACHE_ENTRIES
                or sum(kept.bytes for kept in self._tables.values()) > _CACHE_BYTES
            ):
                self._tables.popitem(last=False)
        return table


_CACHE = _Cache()


def _settled_lattice(
    structure: TwoLevelNormal, kind: Kind, priors: Mapping[str, Prior], orders: Mapping[str, int]
) -> Lattice:
    y, se = structure.effect, structure.se
    box = place(y, se, kind, priors, orders)
    finite = _finite(orders, len(y))
    counts = _COUNTS
    while True:
        lattice = build_lattice(y, se, kind, box, counts)
        log_density = lattice.log_likelihood + _log_prior(lattice, priors)
        whole = _moments(lattice, y, log_density)
        strides = ((2, 1, 1), (1, 2, 1), (1, 1, 2))
        errors = [whole.distance(_moments(lattice, y, log_density, s), finite).max() for s in strides]
        finer = [
            _FINER.get(n, n) if error > 0.4 * TOLERANCE else n
            for n, error in zip(counts, errors, strict=True)
        ]
        wanted = (finer[0], finer[1], finer[2])
        if wanted == counts or 24 * len(y) * np.prod(wanted) > _TABLE_BYTES:
            return lattice
        counts = wanted


class RobustPosterior(ExactPosterior):
    """Posterior of a two-level model with a Student-t level, as masses on a lattice of (μ, τ, ν).

    Names: ``mu``, ``tau``, ``nu``, then ``theta[label]``. `pooling` and `weights` are None: the estimates
    are not linear in the data.
    """

    def __init__(self, spec: ModelSpec, table: _Table, orders: Mapping[str, int]) -> None:
        structure = spec.structure
        self.spec, self._table = spec, table
        self.names = ("mu", "tau", "nu", *(f"theta[{unit}]" for unit in structure.units))
        lattice = table.lattice
        self._log_density = lattice.log_likelihood + _log_prior(lattice, spec.priors)
        self._mass, log_mass = _masses(lattice, self._log_density)
        whole = _moments(lattice, structure.effect, self._log_density)
        half = _moments(lattice, structure.effect, self._log_density, (2, 2, 2))
        finite = _finite(orders, len(structure.units))
        distance = whole.distance(half, finite)
        self._box_moments = whole
        self.mean = np.where(finite[0], whole.mean, np.inf)
        self.sd = np.where(finite[1], whole.sd, np.inf)
        self.error = float(distance.max())
        self.error_absolute = float((distance * whole.sd).max())
        self.log_evidence = log_mass if all(prior.proper for prior in spec.priors.values()) else None
        self.notes = _notes(orders, self.error)

    def quantiles(self, probabilities: Sequence[float] = PROBABILITIES) -> np.ndarray:
        """Quantiles of every parameter, ndarray (len(names), len(probabilities))."""
        p = np.asarray(probabilities, dtype=float)
        return np.stack([self._quantile(place_, p) for place_ in range(len(self.names))])

    def density(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior density of one parameter at `x`."""
        x = np.asarray(x, dtype=float)
        marginal = self._marginals[self.index(name)]
        if name not in ("tau", "nu"):
            return marginal.density(x)
        if name == "nu":
            safe = np.where(x > 0, x, 1.0)
            return np.where(x > 0, marginal.density(np.log(safe)) / safe, 0.0)
        return self._tau_density(x, marginal)

    def cdf(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior distribution function of one parameter at `x`."""
        x = np.asarray(x, dtype=float)
        marginal = self._marginals[self.index(name)]
        if name not in ("tau", "nu"):
            return marginal.cdf(x)
        safe = np.where(x > 0, x, 1.0)
        return np.where(x > 0, marginal.cdf(np.log(safe) if name == "nu" else v_of(safe, self._scale)), 0.0)

    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest interval of every parameter, ndarray (len(names), 2)."""
        rows = []
        for place_ in range(len(self.names)):
            low, high = 0.0, 1 - level
            for _ in range(3):
                p = np.linspace(low, high, 65)
                left, right = self._quantile(place_, p), self._quantile(place_, p + level)
                best = int((right - left).argmin())
                low, high = p[max(best - 1, 0)], p[min(best + 1, 64)]
            rows.append((left[best], right[best]))
        return np.array(rows)

    def draws(self, count: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Independent joint draws.

        (τ, ν) from their joint density interpolated between the nodes, μ given them from its conditional
        distribution function, then w and θ from their exact conditionals.

        Returns
        -------
        dict
            ``mu``, ``tau``, ``nu``, each (count,), and ``theta`` (count, J).
        """
        rng = np.random.default_rng(seed)
        lattice = self._table.lattice
        v, log_nu = self._draw_hyper(count, rng)
        tau, nu = tau_of(v, self._scale), np.exp(log_nu)
        mu = self._draw_mu(v, log_nu, rng)
        theta = np.empty((count, len(self.spec.structure.units)))
        chunk = max(1, 2_000_000 // (96 * theta.shape[1]))
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            theta[part] = self._draw_theta(mu[part], tau[part], nu[part], rng)
        low, high = self.spec.priors["mu"].support
        return {
            "mu": np.clip(mu, low, high) if lattice.box.edged[1] else mu,
            "tau": tau,
            "nu": nu,
            "theta": theta,
        }

    def given_tau(self, tau: np.ndarray) -> Conditional:
        """Means and sds given τ, averaged over μ and ν.

        There are no linear weights and no B_i that depends on τ alone: `pooling` and `weights` are NaN.
        τ = ∞ is taken as 10⁴ times the spread of the data.
        """
        structure, priors = self.spec.structure, self.spec.priors
        y, se, kind = structure.effect, structure.se, self._table.kind
        grid = np.minimum(np.asarray(tau, dtype=float), 1e4 * float(np.ptp(y) + se.max()))
        low, high = np.log(np.maximum(priors["nu"].distribution.ppf([1e-6, 1 - 1e-6]), 1e-8))
        ends = (min(low, self._table.lattice.box.log_nu[0]), max(high, self._table.lattice.box.log_nu[1]))
        nodes, weights = rule(25, self._table.lattice.box.edged[2])
        log_nu = ends[0] + nodes * (ends[1] - ends[0])
        nu = np.exp(log_nu)
        lower, upper = first_mu(y, se, grid, priors["mu"])
        edges = priors["mu"].support
        for _ in range(20):
            conditional, mu = mu_conditional(y, se, kind, grid, nu[::3], lower, upper, priors)
            over_nu = special.logsumexp(conditional, axis=2)
            lower, upper, settled = narrow_mu(over_nu, mu, edges, 2)
            if settled.all():
                break
        edged = bool(np.isfinite(edges).any())
        relative, inner = rule(33, edged)
        mu = lower[:, None] + relative * (upper - lower)[:, None]
        out = np.empty((4, len(grid), len(y)))
        chunk = max(1, 4_000_000 // (33 * 25 * len(y)))
        for start in range(0, len(grid), chunk):
            part = slice(start, start + chunk)
            log_likelihood, shift, square = evaluate(y, se, kind, grid[part], mu[part], nu)
            log_mass = (
                log_likelihood.sum(axis=0)
                + (log_prior(priors["mu"], mu[part]) + np.log(inner))[:, :, None]
                + (log_prior(priors["nu"], nu) + log_nu + np.log(weights))
            )
            mass = np.exp(log_mass - log_mass.max(axis=(1, 2), keepdims=True))
            mass /= mass.sum(axis=(1, 2), keepdims=True)
            of_mu = mass.sum(axis=2)
            mean = (of_mu * mu[part]).sum(axis=1)
            out[0, part, 0] = mean
            out[1, part, 0] = np.sqrt((of_mu * (mu[part] - mean[:, None]) ** 2).sum(axis=1))
            out[2, part] = np.einsum("jtzn,tzn->tj", shift, mass, optimize=True)
            out[3, part] = np.einsum("jtzn,tzn->tj", square, mass, optimize=True)
        unknown = np.full((len(grid), len(y)), np.nan)
        return Conditional(
            np.asarray(tau, dtype=float),
            out[0, :, 0].copy(),
            out[1, :, 0].copy(),
            y + out[2],
            np.sqrt(np.maximum(out[3] - out[2] ** 2, 0.0)),
            unknown,
            Weights(unknown, unknown, unknown),
        )

    def _tau_density(self, x: np.ndarray, marginal: Marginal) -> np.ndarray:
        """Where the density of v is small its relative error is not: there, log p(τ) between the nodes."""
        lattice, prior = self._table.lattice, self.spec.priors["tau"]
        v_low, v_high = lattice.box.v
        of_v = _node_densities(lattice, self._mass)[0] / (v_high - v_low)
        log_density = np.log(np.maximum(of_v, 1e-300)) - log_jacobian(lattice.v, self._scale)
        safe = np.maximum(x, 1e-300)
        v = v_of(safe, self._scale)
        inside = np.clip(v, v_low, v_high)
        tail = np.exp(CubicSpline(lattice.v, log_density)(inside))
        bulk = marginal.density(inside)
        density = np.where(bulk > 1e-2 * of_v.max(), bulk * np.exp(-log_jacobian(inside, self._scale)), tail)
        with np.errstate(divide="ignore", over="ignore"):
            low = tau_of(np.array(v_low), self._scale)
            below = (np.maximum(x, 0.0) / low) ** (prior.origin - 1) if prior.support[0] == 0 else 0.0
        density = np.where(v < v_low, density * below, density)
        return np.where((x < prior.support[0]) | (x < 0) | (v > v_high + 1e-9), 0.0, density)

    @property
    def _scale(self) -> float:
        return self._table.lattice.box.scale

    def _quantile(self, place_: int, p: np.ndarray) -> np.ndarray:
        x = self._marginals[place_].quantile(p)
        match self.names[place_]:
            case "tau":
                return tau_of(x, self._scale)
            case "nu":
                return np.exp(x)
        return x

    @cached_property
    def _marginals(self) -> list[Marginal]:
        lattice = self._table.lattice
        lost = FitError(
            "The marginal distributions of this posterior could not be resolved: data and priors lie too far "
            "apart for the lattice. Check the units of the priors, or use NUTS for this model."
        )
        try:
            mu, theta = self._on_the_line()
        except FloatingPointError:
            raise lost from None
        for place_, marginal in zip((0, *range(3, len(self.names))), (mu, *theta), strict=True):
            gap = abs(marginal.mean - self.mean[place_])
            if np.isfinite(self.sd[place_]) and gap > _LOST * self.sd[place_]:
                raise lost
        of_v, _, of_nu = _node_densities(lattice, self._mass)
        box = lattice.box
        return [
            mu,
            _of_nodes(box.v, of_v, box.edged[0]),
            _of_nodes(box.log_nu, of_nu, box.edged[2]),
            *theta,
        ]

    def _on_the_line(self) -> tuple[Marginal, list[Marginal]]:
        """Marginals of μ and of the units' effects.

        p(θ_i | y) = Σ p(y_i | θ_i, ν) p(θ_i | μ, τ, ν) ω_i(μ, τ, ν) with ω_i the posterior mass divided by
        unit i's own likelihood; the sum over the lattice is one matrix product on common nodes.
        """
        structure, lattice = self.spec.structure, self._table.lattice
        y, se = structure.effect, structure.se
        moments = self._box_moments
        reach = 9 * moments.sd[3:]
        lower = min(float((moments.mean[3:] - reach).min()), float((y - 3 * se).min()))
        upper = max(float((moments.mean[3:] + reach).max()), float((y + 3 * se).max()))
        of_tau = self._mass.sum(axis=(1, 2))
        some = of_tau > 1e-9
        lower = min(lower, float(lattice.mu[some, 0].min()))
        upper = max(upper, float(lattice.mu[some, -1].max()))
        kernel = self._table.kernel(lower, upper, self._mass)
        grid, nu = kernel.grid, lattice.nu[kernel.columns]
        t_likelihood = self._table.kind == "likelihood"
        near = np.linspace(-10, 10, 121)
        theta = []
        for i, rest in enumerate(self._without_own(kernel)):
            if t_likelihood:
                farthest = np.arcsinh(2 * (grid[-1] - grid[0]) / se[i])
                near = 0.5 * np.sinh(np.linspace(-farthest, farthest, 2 * int(8 * farthest) + 1))
            own = y[i] + se[i] * near
            x = np.sort(np.concatenate([grid, own[(own > grid[0]) & (own < grid[-1])]]))
            x = x[np.concatenate([[True], np.diff(x) > 1e-9 * (grid[-1] - grid[0])])]
            x = np.concatenate([(x[:-1, None] + np.diff(x)[:, None] * np.arange(3) / 3).ravel(), x[-1:]])
            log_rest = np.log(np.maximum(rest, np.maximum(1e-15 * rest.max(axis=0), 1e-300)))
            predicted = np.exp(CubicSpline(grid, log_rest)(x))
            z = (x - y[i]) / se[i]
            if t_likelihood:
                theta.append(Marginal(x, _own_likelihood(z, nu, predicted)))
            else:
                theta.append(Marginal(x, np.exp(-0.5 * z * z) * predicted[:, 0]))
        return self._mu_marginal(), theta

    def _without_own(self, kernel: _Kernel) -> np.ndarray:
        """For each unit, the density of its effect before its own likelihood, on the kernel's nodes.

        Array (J, G, n) for a Student-t likelihood, whose units' likelihoods depend on ν, else (J, G, 1).
        """
        own = self._table.lattice.unit_log_likelihood
        t_likelihood = self._table.kind == "likelihood"
        with np.errstate(divide="ignore"):
            log_mass = np.log(self._mass)[:, :, kernel.columns]
        inner = log_mass.shape[2] if t_likelihood else 1
        own = own[..., kernel.columns]
        peak = np.array([(log_mass - unit).max() for unit in own])[:, None, None]
        total = np.zeros((len(kernel.grid), len(own) * inner))
        for t, part in kernel.parts(self._table):
            ratio = np.exp(np.maximum(log_mass[t] - own[:, t] - peak, -300))
            ratio = ratio.reshape(len(own), -1, inner).transpose(1, 0, 2)
            total += part @ ratio.reshape(len(ratio), -1)
        return total.reshape(len(total), -1, inner).transpose(1, 0, 2)

    def _mu_marginal(self) -> Marginal:
        lattice = self._table.lattice
        of_mu = self._mass.sum(axis=2)
        some = of_mu.sum(axis=1) > 1e-12
        low, wide = lattice.mu[some, :1], (lattice.mu[some, -1:] - lattice.mu[some, :1])
        if lattice.box.edged[1]:
            return self._cut_mu_marginal(of_mu[some], low, wide)
        places, matrix, relative = self._table.basis
        coefficient = of_mu[some] @ matrix.T
        grid = self._table.grid(float(low.min()), float((low + wide).max()), of_mu.sum(axis=1), 0.0)
        centre, width = (low + wide * places).ravel(), (wide * relative).ravel()
        exponent = np.maximum(-0.5 * ((grid[:, None] - centre) / width) ** 2, -300)
        return Marginal(grid, np.exp(exponent) @ (coefficient.ravel() / width))

    def _cut_mu_marginal(self, of_mu: np.ndarray, low: np.ndarray, wide: np.ndarray) -> Marginal:
        """μ's marginal where its prior has an edge: each slice's density interpolated as it is."""
        box, count = self._table.lattice.box, self._table.lattice.counts[1]
        even = np.linspace(0, 1, 4 * count)
        places, _ = stretch(even, box.tightness)
        x = np.unique(low + wide * places)
        x = x[np.linspace(0, len(x) - 1, min(len(x), 1200)).astype(int)]
        density = np.zeros(len(x))
        to_even = interpolation(count, True, even) / box.mu_rule(count)[1]
        for mass, start, length in zip(of_mu, low[:, 0], wide[:, 0], strict=True):
            density += np.interp(x, start + length * places, to_even @ mass / length, 0.0, 0.0)
        return Marginal(x, density)

    def _draw_hyper(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        lattice = self._table.lattice
        nodes_v, _, nodes_nu = lattice.counts
        cut_v, _, cut_nu = lattice.box.edged
        density = self._mass.sum(axis=1) / np.outer(rule(nodes_v, cut_v)[1], rule(nodes_nu, cut_nu)[1])
        fine_v, fine_nu = 8 * nodes_v, 8 * nodes_nu
        to_v = interpolation(nodes_v, cut_v, (np.arange(fine_v) + 0.5) / fine_v)
        to_nu = interpolation(nodes_nu, cut_nu, (np.arange(fine_nu) + 0.5) / fine_nu)
        fine = np.maximum(to_v @ density @ to_nu.T, 0.0).ravel()
        cumulative = np.cumsum(fine)
        cell = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
        v_cell, nu_cell = np.divmod(np.minimum(cell, len(fine) - 1), fine_nu)
        (v_low, v_high), (nu_low, nu_high) = lattice.box.v, lattice.box.log_nu
        v = v_low + (v_high - v_low) * (v_cell + rng.random(count)) / fine_v
        return v, nu_low + (nu_high - nu_low) * (nu_cell + rng.random(count)) / fine_nu

    def _draw_mu(self, v: np.ndarray, log_nu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """μ from its conditional quantile function, interpolated between the four nodes around (τ, ν)."""
        lattice = self._table.lattice
        places, matrix, relative = self._table.basis
        fine, slope = stretch(np.linspace(0, 1, 8 * lattice.counts[1] + 1), lattice.box.tightness)
        smooth = np.exp(-0.5 * ((fine[:, None] - places) / relative) ** 2) / relative @ matrix
        smooth *= slope[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            density = np.maximum(np.einsum("fz,tzn->tnf", smooth, self._mass, optimize=True), 0.0)
            cumulative = np.cumsum(0.5 * (density[..., 1:] + density[..., :-1]), axis=2)
            cumulative = np.concatenate([np.zeros((*cumulative.shape[:2], 1)), cumulative], axis=2)
            cumulative /= cumulative[..., -1:]
        node_v, node_nu = lattice.v, np.log(lattice.nu)
        t = np.clip(np.searchsorted(node_v, v), 1, len(node_v) - 1)
        n = np.clip(np.searchsorted(node_nu, log_nu), 1, len(node_nu) - 1)
        part_v = (v - node_v[t - 1]) / (node_v[t] - node_v[t - 1])
        part_nu = (log_nu - node_nu[n - 1]) / (node_nu[n] - node_nu[n - 1])
        level = rng.random(len(v))
        mu, total = np.zeros(len(v)), np.zeros(len(v))
        for dt, share_v in ((1, 1 - part_v), (0, part_v)):
            for dn, share_nu in ((1, 1 - part_nu), (0, part_nu)):
                rows = (t - dt) * len(node_nu) + (n - dn)
                even = _inverse_rows(cumulative.reshape(-1, len(fine)), rows, level) / (len(fine) - 1)
                where, _ = stretch(even, lattice.box.tightness)
                low, high = lattice.mu[t - dt, 0], lattice.mu[t - dt, -1]
                weight = np.where(np.isfinite(where), share_v * share_nu, 0.0)
                mu += weight * np.where(np.isfinite(where), low + where * (high - low), 0.0)
                total += weight
        return mu / total

    def _draw_theta(
        self, mu: np.ndarray, tau: np.ndarray, nu: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        structure = self.spec.structure
        y, noise = structure.effect, structure.se**2
        spread = np.broadcast_to((tau**2)[:, None], (len(mu), len(y)))
        noise = np.broadcast_to(noise, spread.shape)
        t_likelihood = self._table.kind == "likelihood"
        a, b = (spread, noise) if t_likelihood else (noise, spread)
        square = (y - mu[:, None]) ** 2
        df = nu[:, None]
        lower, upper = mixing_range(df, square / b, a / b, square / (2 * (a + b)))
        lower = np.broadcast_to(lower, upper.shape)
        x = lower[..., None] + np.linspace(0, 1, 96) * (upper - lower)[..., None]
        variance = a[..., None] + b[..., None] * np.exp(x)
        log_density = -0.5 * (df[..., None] * excess(x) + np.log(variance) + square[..., None] / variance)
        density = np.exp(log_density - log_density.max(axis=2, keepdims=True)).reshape(-1, 96)
        cumulative = np.zeros_like(density)
        np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1, out=cumulative[:, 1:])
        cumulative /= cumulative[:, -1:]
        where = _inverse_rows(cumulative, np.arange(len(cumulative)), rng.random(len(cumulative))) / 95
        w = np.exp(lower + where.reshape(lower.shape) * (upper - lower))
        units_noise = noise * w if t_likelihood else noise
        units_spread = spread if t_likelihood else spread * w
        share = units_noise / (units_noise + units_spread)
        mean = y + share * (mu[:, None] - y)
        return mean + np.sqrt(share * units_spread) * rng.standard_normal(mean.shape)


def _of_nodes(ends: tuple[float, float], density: np.ndarray, edged: bool) -> Marginal:
    fine = np.linspace(0, 1, max(257, 8 * len(density) + 1))
    return Marginal(ends[0] + fine * (ends[1] - ends[0]), interpolation(len(density), edged, fine) @ density)


def _own_likelihood(z: np.ndarray, nu: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Σ over ν of StudentT(z; ν) times the predicted density, (U,)."""
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(nu)
    log_t = constant - 0.5 * (nu + 1) * np.log1p((z * z)[:, None] / nu)
    return (np.exp(log_t) * predicted).sum(axis=1)


def _inverse_rows(cumulative: np.ndarray, rows: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Fractional place where each chosen row of `cumulative` passes its level."""
    low, high = np.zeros(len(rows), dtype=int), np.full(len(rows), cumulative.shape[1] - 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        below = cumulative[rows, middle] <= level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    left, right = cumulative[rows, low], cumulative[rows, high]
    with np.errstate(invalid="ignore", divide="ignore"):
        return low + np.where(right > left, (level - left) / (right - left), 0.5) + 0 * left


def _notes(orders: Mapping[str, int], error: float) -> tuple[str, ...]:
    words = {"mu": "μ", "tau": "τ", "nu": "ν", "theta": "the units' effects"}
    notes = [
        f"The {'mean and the ' if order == 0 else ''}standard deviation of {words[name]} "
        f"{'are' if order == 0 else 'is'} infinite under these priors; quantiles exist."
        for name, order in orders.items()
        if order < 2
    ]
    if error > TOLERANCE:
        notes.append(f"The lattice settles only within {error:.1g} posterior standard deviations.")
    return tuple(notes)
