"""The posterior object of Gaussian mixed models: mixtures of normals over the nodes of the spreads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from hbm_core.errors import InputError
from hbm_core.inference.exact.base import (
    PROBABILITIES,
    ExactPosterior,
    Weights,
    check_level,
    checked_probabilities,
    summary_table,
)
from hbm_core.inference.exact.gaussian_mixed_lattice import Shares, estimate, moments
from hbm_core.inference.exact.gaussian_mixed_table import Elimination, MixedTable, Nodes
from hbm_core.inference.exact.grid import GridMarginals, refine_logs
from hbm_core.inference.exact.mixture import NormalMixtures
from hbm_core.inference.exact.rate_lattice import ScaleAxes
from hbm_core.models.gaussian_mixed import GaussianMixed, member_moments
from hbm_core.models.structure import ModelSpec

#: Points of a spread's density; numbers in one array over components and rows; nodes of a draw at a time.
_GRID, _BLOCK, _DRAWN = 241, 600_000, 1_000
#: Components below this share of the mass are left out of mixtures.
_NEGLIGIBLE = 1e-8
#: Width, in steps, of the normal kernel that draws come from before they are thinned.
_KERNEL, _REACH = 0.5, 2
#: Nodes of the other spreads that stand for them where one is held.
_HELD = 64


def centred(
    nodes: Nodes, shares: Shares, mixtures: tuple[np.ndarray, np.ndarray], tails: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """All hyperparameters as mixtures, less their means: means and variances (P, H).

    Spreads without a variance are given by their coordinates.
    """
    mean, variance = mixtures
    lattice = nodes.lattice
    known = [lattice.x[:, d] if tail > 2 else lattice.v[:, d] for d, tail in enumerate(tails)]
    mean = np.column_stack([*known, mean])
    variance = np.column_stack([np.zeros((len(mean), len(known))), variance])
    mean -= shares.weights @ mean
    return mean, variance


@dataclass(frozen=True, eq=False)
class RowParts:
    """Nodes with equal σ_member and σ_own merged by their moments, for the rows' effects.

    Attributes
    ----------
    weights, square : ndarray (K,)
        Probabilities and σ_member².
    mean : ndarray (K, G, T)
        Of the cells, less the table's location.
    within, between : ndarray (K, G, T, T)
        Covariance given all spreads, averaged, and of the means.
    lean : ndarray (K, G, T)
        Weight of the prior mean of μ in each cell's mean.
    """

    weights: np.ndarray
    square: np.ndarray
    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray
    lean: np.ndarray


@dataclass(frozen=True, eq=False)
class GivenMember:
    """The posterior given σ_member, the other spreads integrated out, on a grid.

    Attributes
    ----------
    spread : ndarray (K,)
        σ_member, zero and infinity allowed.
    group_mean : ndarray (K, cells)
        Means of cells.
    theta_mean, theta_sd, pooling : ndarray (K, M)
        Of the chosen rows: effects, and B of their members (`GaussianMixedPosterior.unit_pooling`).
    """

    spread: np.ndarray
    group_mean: np.ndarray
    theta_mean: np.ndarray
    theta_sd: np.ndarray
    pooling: np.ndarray


class GaussianMixedPosterior(ExactPosterior):
    """Exact posterior of a Gaussian mixed model; attributes as in `ExactPosterior`.

    `names` lists mu, the spreads, the means of cells, the contrasts and the rows' effects; what concerns rows
    is computed when it is asked for.

    Attributes
    ----------
    table : MixedTable
        What was taken from the data.
    nodes : Nodes
        The lattice over the spreads.
    hyper_names : tuple of str
        Everything but the rows' effects.
    hyper_mean, hyper_sd : ndarray
        Their moments.
    replaced : bool
        Whether nodes had to be put anew although the table had some.
    """

    def __init__(
        self,
        spec: ModelSpec[GaussianMixed],
        table: MixedTable,
        nodes: Nodes,
        shares: Shares,
        errors: np.ndarray,
        tails: Sequence[float],
        notes: tuple[str, ...],
        replaced: bool = False,
    ) -> None:
        self.spec = spec  # type: ignore[assignment]
        self.structure, self.table, self.nodes, self.shares = spec.structure, table, nodes, shares
        self.notes, self.replaced, self._tails = notes, replaced, tails
        self._centre, self._prior_sd = (
            spec.priors["mu"].numbers[0] - table.location,
            spec.priors["mu"].numbers[1],
        )
        self.hyper_names = spec.structure.hyperparameters
        self.error = estimate(errors) + 10 * shares.edge
        self.log_evidence = shares.log_total
        mean, sd = moments(shares.weights, *self._mixed)
        x = nodes.lattice.x
        centre = shares.weights @ x
        spread = np.sqrt(shares.weights @ np.square(x - centre))
        for d, tail in enumerate(tails):
            spread[d] = spread[d] if tail > 2 else np.inf
            centre[d] = centre[d] if tail > 1 else np.inf
        mean[: 1 + len(self.structure.cells)] += table.location
        self.hyper_mean = np.concatenate([mean[:1], centre, mean[1:]])
        self.hyper_sd = np.concatenate([sd[:1], spread, sd[1:]])
        finite = self.hyper_sd[np.isfinite(self.hyper_sd)]
        self.error_absolute = self.error * float(finite.max(initial=0.0))

    @cached_property
    def _mixed(self) -> tuple[np.ndarray, np.ndarray]:
        return self.nodes.mixtures(self._centre, self._prior_sd)

    @cached_property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Flat parameter names: hyperparameters, then rows."""
        return (*self.hyper_names, *(f"theta[{label}]" for label in self.structure.units))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Place of a flat parameter name."""
        if name not in self._index:
            raise InputError("parameter", "one of " + ", ".join(self.names[:12]), repr(name))
        return self._index[name]

    @cached_property
    def mean(self) -> np.ndarray:  # type: ignore[override]
        """Posterior means of all parameters."""
        return np.concatenate([self.hyper_mean, self.unit_moments()[0]])

    @cached_property
    def sd(self) -> np.ndarray:  # type: ignore[override]
        """Posterior sds of all parameters."""
        return np.concatenate([self.hyper_sd, self.unit_moments()[1]])

    @property
    def _first_cell(self) -> int:
        return len(self.structure.parameters)

    def group_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of the means of cells, each ndarray (cells,)."""
        part = slice(self._first_cell, self._first_cell + len(self.structure.cells))
        return self.hyper_mean[part], self.hyper_sd[part]

    def difference(self, one: str, other: str) -> tuple[float, float]:
        """Mean and sd of one cell's mean less another's, by their labels.

        Of cells of one group the two hang together closely: their difference is known better than either.
        """
        cells = self.structure.cells
        for label in (one, other):
            if label not in cells:
                raise InputError("cell", "one of " + ", ".join(cells[:12]), repr(label))
        slots, a, b = len(self.structure.slots), cells.index(one), cells.index(other)
        mean, second, total = 0.0, 0.0, 0.0
        _, spread = self.nodes.reduced.mean_of(self._centre, self._prior_sd)
        centre = self._mixed[0][:, 1 : 1 + len(cells)]
        kept = np.flatnonzero(self.shares.weights > _NEGLIGIBLE * self.shares.weights.max())
        for at in range(0, kept.size, _DRAWN):
            rows = kept[at : at + _DRAWN]
            found = Elimination(self.table, self.nodes.lattice.x[rows])
            means = found.means(True)
            slope = means.slope.reshape(len(rows), -1)
            gap = slope[:, a] - slope[:, b]
            assert means.covariance is not None
            flat = [divmod(cell, slots) for cell in (a, b)]
            (ga, ta), (gb, tb) = flat
            variance = means.variance[:, ga, ta] + means.variance[:, gb, tb]
            if ga == gb:
                variance = variance - 2 * means.covariance[:, ga, ta, tb]
            elif found.shared:
                cross = found.path[:, ga, ta, :, None] * found.path[:, gb, tb, None, :]
                variance = variance - 2 * found.slot * (cross * found.inverse).sum(axis=(1, 2))
            variance = variance + gap**2 * spread[rows]
            weight = self.shares.weights[rows]
            d = centre[rows, a] - centre[rows, b]
            total, mean = total + weight.sum(), mean + weight @ d
            second += weight @ (variance + d * d)
        mean, second = mean / total, second / total
        return float(mean), float(np.sqrt(second - mean**2))

    # Spreads.

    def _marginal(self, d: int) -> GridMarginals:
        if d not in self._marginals:
            lattice = self.nodes.lattice
            low = lattice.index[:, d].min()
            mass = np.bincount(lattice.index[:, d] - low, self.shares.weights)
            with np.errstate(divide="ignore"):
                logs = np.maximum(np.log(mass), -100.0)
            extra = max(0, 6 - logs.size)
            logs = np.pad(logs, (0, extra), constant_values=-100.0)
            place = np.linspace(0, logs.size - 1, max(_GRID, 8 * logs.size + 1))
            root = lattice.root[d, d]
            values = np.exp(refine_logs(logs[None], place))
            start = lattice.centre[d] + root * low
            step = root * (place[1] - place[0])
            axes = ScaleAxes(lattice.scales[d])
            self._marginals[d] = GridMarginals(np.array([start]), np.array([step]), values, axes)
        return self._marginals[d]

    @cached_property
    def _marginals(self) -> dict[int, GridMarginals]:
        return {}

    # Mixtures of μ, cells and contrasts: nodes that differ in σ_member alone are one component.

    @cached_property
    def _merged(self) -> NormalMixtures:
        index = self.nodes.lattice.index
        _, which = np.unique(index[:, :-1], axis=0, return_inverse=True)
        return _merge(which.ravel(), self.shares.weights, *self._mixed)

    @cached_property
    def _shift(self) -> np.ndarray:
        cells, contrasts = len(self.structure.cells), len(self.structure.contrasts)
        return self.table.location * np.r_[np.ones(1 + cells), np.zeros(contrasts)]

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Places among the hyperparameters of the Gaussian ones and of the spreads."""
        count = len(self.hyper_names)
        spreads = np.arange(1, self._first_cell)
        return np.delete(np.arange(count), spreads), spreads

    def settle(self) -> None:
        """Compute the hyperparameters' quantiles: nothing that costs in the number of rows."""
        self.hyper_quantiles()

    def hyper_quantiles(self, probabilities: Sequence[float] | np.ndarray = PROBABILITIES) -> np.ndarray:
        """Quantiles of the hyperparameters, ndarray (H, len(probabilities))."""
        p = checked_probabilities(probabilities)
        key = p.tobytes()
        if key not in self._kept:
            out = np.empty((len(self.hyper_names), p.size))
            gaussian, spreads = self._places()
            out[gaussian] = self._merged.quantiles(p) + self._shift[:, None]
            out[spreads] = [self._marginal(d).quantiles(p)[0] for d in range(spreads.size)]
            self._kept[key] = out
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[bytes, np.ndarray]:
        return {}

    # Rows.

    @cached_property
    def parts(self) -> RowParts:
        """Components of the rows' effects."""
        weights, index = self.shares.weights, self.nodes.lattice.index
        kept = np.flatnonzero(weights > _NEGLIGIBLE * weights.max())
        _, which = np.unique(index[kept][:, -2:], axis=0, return_inverse=True)
        return self._row_parts(self.nodes.lattice.x[kept], weights[kept] / weights[kept].sum(), which.ravel())

    def _row_parts(self, x: np.ndarray, weights: np.ndarray, which: np.ndarray) -> RowParts:
        count, groups, slots = int(which.max()) + 1, self.table.groups, self.table.data.weight.shape[1]
        total = np.bincount(which, weights, count)
        square = np.bincount(which, weights * np.square(x[:, -1]), count) / total
        mean, lean = np.zeros((2, count, groups, slots))
        within, second = np.zeros((2, count, groups, slots, slots))
        for at in range(0, len(x), _DRAWN):
            rows = slice(at, at + _DRAWN)
            found = Elimination(self.table, x[rows])
            mu, spread = found.reduced.mean_of(self._centre, self._prior_sd)
            means = found.means(True)
            assert means.covariance is not None
            m = means.constant + means.slope * mu[:, None, None]
            lent = means.slope * spread[:, None, None]
            inside = means.covariance + means.slope[..., None] * lent[:, :, None, :]
            w = weights[rows]
            np.add.at(mean, which[rows], w[:, None, None] * m)
            np.add.at(lean, which[rows], w[:, None, None] * lent)
            np.add.at(within, which[rows], w[:, None, None, None] * inside)
            np.add.at(second, which[rows], w[:, None, None, None] * m[..., None] * m[:, :, None, :])
        mean, lean = mean / total[:, None, None], lean / (total[:, None, None] * self._prior_sd**2)
        within, second = within / total[:, None, None, None], second / total[:, None, None, None]
        between = second - mean[..., None] * mean[:, :, None, :]
        return RowParts(total, square, mean, within, between, lean)

    def _load(
        self, square: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Given σ_member² (K,): θ = own + ℓ'm + Normal(0, κ): own, ℓ, κ, (M, K, …), and groups (M,)."""
        structure, data = self.structure, self.table.data
        member, slot = structure.member[rows], structure.slot[rows]
        place = self._positions[member]
        weight, value = data.weight[place], data.value[place].sum(axis=1)
        kappa = square / (1 + square * weight.sum(axis=1)[:, None])
        load = -kappa[..., None] * weight[:, None, :]
        load[np.arange(len(rows)), :, slot] += 1
        return kappa * value[:, None], load, kappa, structure.group[rows]

    @cached_property
    def _positions(self) -> np.ndarray:
        order = self.table.data.order
        out = np.empty(order.size, dtype=np.intp)
        out[order] = np.arange(order.size)
        return out

    def _mixtures(self, rows: np.ndarray, parts: RowParts | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Means, less the table's location, and variances (M, K) of the rows' effects in each component."""
        parts = self.parts if parts is None else parts
        own, load, kappa, group = self._load(parts.square, rows)
        mean = parts.mean.transpose(1, 0, 2)[group]
        covariance = (parts.within + parts.between).transpose(1, 0, 2, 3)[group]
        lifted = np.matmul(covariance, load[..., None])[..., 0]
        return own + (load * mean).sum(axis=2), kappa + (load * lifted).sum(axis=2)

    def _checked(self, units: Sequence[int] | np.ndarray | None) -> np.ndarray:
        if units is None:
            return np.arange(self.structure.effect.size)
        rows = np.asarray(units, dtype=np.intp)
        if rows.size and not (rows.min() >= 0 and rows.max() < self.structure.effect.size):
            raise InputError("units", f"places from 0 to {self.structure.effect.size - 1}", rows)
        return rows

    def _blocks(self, rows: np.ndarray) -> list[np.ndarray]:
        slots = self.table.data.weight.shape[1]
        step = max(1, _BLOCK // (self.parts.weights.size * slots * slots))
        return [rows[at : at + step] for at in range(0, rows.size, step)]

    def unit_moments(self, units: Sequence[int] | np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of the rows' effects, each ndarray (M,), of `units` by their places or of all."""
        if units is None:
            return self._units
        return self._moments_of(self._checked(units))

    @cached_property
    def _units(self) -> tuple[np.ndarray, np.ndarray]:
        return self._moments_of(self._checked(None))

    def _moments_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = np.empty((2, rows.size))
        at = 0
        for part in self._blocks(rows):
            here = slice(at, at + part.size)
            found, variance = self._mixtures(part)
            mean[here], sd[here] = NormalMixtures(self.parts.weights, found, np.sqrt(variance)).moments()
            at += part.size
        return mean + self.table.location, sd

    def unit_quantiles(
        self,
        probabilities: Sequence[float] | np.ndarray = PROBABILITIES,
        units: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Quantiles of rows' effects, ndarray (M, len(probabilities))."""
        p, rows = checked_probabilities(probabilities), self._checked(units)
        parts = [self._of_rows(part).quantiles(p) for part in self._blocks(rows)]
        return np.concatenate([np.empty((0, p.size)), *parts]) + self.table.location

    def _of_rows(self, rows: np.ndarray) -> NormalMixtures:
        mean, variance = self._mixtures(rows)
        return NormalMixtures(self.parts.weights, mean, np.sqrt(variance))

    def unit_hdi(self, level: float = 0.95, units: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Shortest intervals of rows' effects, ndarray (M, 2)."""
        check_level(level)
        parts = [self._of_rows(part).hdi(level) for part in self._blocks(self._checked(units))]
        return np.concatenate([np.empty((0, 2)), *parts]) + self.table.location

    def unit_pooling(self, units: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """E[B | y] of rows, ndarray (M,): how far the deviation of a row's member is pulled back.

        All rows of a member tell of its deviation: B = s²/(s² + σ_member²) with 1/s² = Σ 1/s_r² over them,
        and θ_r is its cell's mean plus 1 − B times their weighted mean deviation from their cells' means.
        """
        variance = self._member_variance(self._checked(units))
        lattice = self.nodes.lattice
        squares, which = np.unique(np.square(lattice.x[:, -1]), return_inverse=True)
        share = np.bincount(which.ravel(), self.shares.weights)
        return (variance[:, None] / (variance[:, None] + squares)) @ share

    def _member_variance(self, rows: np.ndarray) -> np.ndarray:
        """Sampling variance of a row's member by all its rows, ndarray (M,)."""
        return self.structure.member_se[self.structure.member[rows]] ** 2

    @cached_property
    def pooling(self) -> np.ndarray:  # type: ignore[override]
        """E[B | y] of all rows, ndarray (N,)."""
        return self.unit_pooling()

    def unit_weights(self, units: Sequence[int] | np.ndarray | None = None) -> Weights:
        """Linear weights of E[θ_r | spreads, y] averaged over the spreads, arrays (M,).

        Own are all rows of the row's member: their weights Cov(θ_r, θ)/s² given y, summed. The weight of the
        prior mean of μ is Cov(θ_r, μ)/sd².
        """
        rows, parts = self._checked(units), self.parts
        own, prior = np.empty((2, rows.size))
        at = 0
        for part in self._blocks(rows):
            here = slice(at, at + part.size)
            _, load, kappa, group = self._load(parts.square, part)
            inside = parts.within.transpose(1, 0, 2, 3)[group]
            lifted = np.matmul(inside, load[..., None])[..., 0]
            # The loads of a member's rows over their variances add up to w (1 − κ Σ w).
            weight = self.table.data.weight[self._positions[self.structure.member[part]]][:, None]
            held = kappa * weight.sum(axis=2)
            own[here] = (held + (1 - held) * (weight * lifted).sum(axis=2)) @ parts.weights
            prior[here] = (load * parts.lean.transpose(1, 0, 2)[group]).sum(axis=2) @ parts.weights
            at += part.size
        return Weights(own=own, others=1 - own - prior, prior=prior)

    @cached_property
    def weights(self) -> Weights:  # type: ignore[override]
        """`unit_weights` of all rows."""
        return self.unit_weights()

    def unit_log_predictive(self, units: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Log p(y_r | the other rows), ndarray (M,): leave-one-out with all effects integrated out."""
        rows, weights = self._checked(units), self.shares.weights
        # Node by node: what is rare under the posterior counts more in the mean of 1/p.
        kept = np.flatnonzero(weights > _NEGLIGIBLE * weights.max())
        slots = self.table.data.weight.shape[1]
        step = max(1, _BLOCK // (_HELD * slots * slots))
        total = np.full(rows.size, -np.inf)
        for at in range(0, kept.size, _HELD):
            nodes = kept[at : at + _HELD]
            parts = self._row_parts(self.nodes.lattice.x[nodes], weights[nodes], np.arange(nodes.size))
            for first in range(0, rows.size, step):
                here = slice(first, first + step)
                inverse = -self._log_left_out(rows[here], parts) + np.log(weights[nodes])
                total[here] = np.logaddexp(total[here], logsumexp(inverse, axis=1))
        return np.log(weights[kept].sum()) - total

    def _log_left_out(self, rows: np.ndarray, parts: RowParts) -> np.ndarray:
        """Log p(y_r | the other rows, spreads) at nodes, ndarray (M, K)."""
        own, load, kappa, group = self._load(parts.square, rows)
        mean = own + (load * parts.mean.transpose(1, 0, 2)[group]).sum(axis=2)
        inside = parts.within.transpose(1, 0, 2, 3)[group]
        variance = kappa + (load * np.matmul(inside, load[..., None])[..., 0]).sum(axis=2)
        square = self.structure.se[rows, None] ** 2
        gap = self.structure.effect[rows, None] - self.table.location - mean
        # Without y_r the variance of y_r grows to s⁴/(s² − v), and the gap by the same factor.
        rest = np.maximum(square - variance, 1e-12 * square)
        return -0.5 * (np.log(2 * np.pi * square**2 / rest) + gap**2 / rest)

    def given_spread(
        self, spread: np.ndarray, units: Sequence[int] | np.ndarray | None = None
    ) -> GivenMember:
        """The posterior given σ_member, on a grid, from the likeliest nodes of the other spreads.

        At infinity a row is not left alone: the other rows of its member still speak of it.

        Parameters
        ----------
        spread : ndarray (K,)
            In the outcome's units; zero and infinity allowed.
        units : sequence of int, optional
            Places of the rows; all by default.
        """
        spread, rows = np.asarray(spread, dtype=float), self._checked(units)
        if spread.ndim != 1 or not (spread >= 0).all():
            raise InputError(f"values of {self.structure.spread}", "numbers from 0", spread)
        lattice = self.nodes.lattice
        _, first, which = np.unique(lattice.index[:, :-1], axis=0, return_index=True, return_inverse=True)
        share = np.bincount(which.ravel(), self.shares.weights)
        likely = np.argsort(-share)[:_HELD]
        others = lattice.x[first[likely], :-1]
        far = np.isinf(spread)
        largest = 1e4 * max(self.structure.typical_se, float(np.ptp(self.structure.effect)))
        sigma = np.where(far, largest, np.minimum(spread, largest))
        x = np.column_stack([np.tile(others, (sigma.size, 1)), np.repeat(sigma, len(others))])
        log = self.table.reduce(x).log_evidence(self._centre, self._prior_sd)
        cell = lattice.log_cell[first[likely]] - lattice.scales[-1].log_jacobian(lattice.v[first[likely], -1])
        prior = cell + sum(
            self.spec.priors[name].log_density(others[:, d])
            for d, name in enumerate(self.structure.spreads[:-1])
        )
        log = log.reshape(sigma.size, -1) + prior
        given = np.exp(log - log.max(axis=1, keepdims=True))
        given /= given.sum(axis=1, keepdims=True)
        parts = self._row_parts(x, given.ravel(), np.repeat(np.arange(sigma.size), len(others)))
        mean, variance = self._mixtures(rows, parts)
        square = self._member_variance(rows)
        pooling = square / (square + np.square(sigma)[:, None])
        return GivenMember(
            spread,
            parts.mean.reshape(sigma.size, -1) + self.table.location,
            mean.T + self.table.location,
            np.sqrt(variance.T),
            np.where(far[:, None], 0.0, pooling),
        )

    # Everything in one list.

    def quantiles(self, probabilities: Sequence[float] | np.ndarray = PROBABILITIES) -> np.ndarray:
        """Quantiles of every parameter, ndarray (len(names), len(probabilities))."""
        p = checked_probabilities(probabilities)
        return np.concatenate([self.hyper_quantiles(p), self.unit_quantiles(p)])

    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest interval of every parameter, ndarray (len(names), 2)."""
        return np.concatenate([self._hyper_hdi(level), self.unit_hdi(level)])

    def _hyper_hdi(self, level: float) -> np.ndarray:
        check_level(level)
        out = np.empty((len(self.hyper_names), 2))
        gaussian, spreads = self._places()
        out[gaussian] = self._merged.hdi(level) + self._shift[:, None]
        out[spreads] = [self._marginal(d).hdi(level)[0] for d in range(spreads.size)]
        return out

    def summary(
        self, probabilities: Sequence[float] = PROBABILITIES, hdi: bool = True, units: int | None = None
    ) -> pd.DataFrame:
        """One row per parameter, as the base promises; rows that are not listed cost nothing."""
        if units is None or units >= self.structure.effect.size:
            return super().summary(probabilities, hdi)
        rows = np.arange(units)
        mean, sd = self.unit_moments(rows)
        quantiles = [self.hyper_quantiles(probabilities), self.unit_quantiles(probabilities, rows)]
        ends = np.concatenate([self._hyper_hdi(0.95), self.unit_hdi(0.95, rows)]) if hdi else None
        return summary_table(
            self.names[: len(self.hyper_names) + units],
            np.concatenate([self.hyper_mean, mean]),
            np.concatenate([self.hyper_sd, sd]),
            np.concatenate(quantiles),
            ends,
            probabilities,
        )

    def density(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior density of one parameter at `x`."""
        return self._at(name, np.asarray(x, dtype=float), "density")

    def cdf(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior distribution function of one parameter at `x`."""
        return self._at(name, np.asarray(x, dtype=float), "cdf")

    def _at(self, name: str, x: np.ndarray, what: str) -> np.ndarray:
        place = self.index(name)
        if 1 <= place < self._first_cell:
            return getattr(self._marginal(place - 1), what)(0, x)
        if place < len(self.hyper_names):
            row = place if place == 0 else place - len(self.structure.spreads)
            return getattr(self._merged, what)(row, x - self._shift[row])
        rows = np.array([place - len(self.hyper_names)])
        return getattr(self._of_rows(rows), what)(0, x - self.table.location)

    # Draws.

    def draws(
        self, count: int, seed: int = 0, units: Sequence[int] | np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Joint draws: ``mu`` and the spreads (count,), cells and contrasts (count, …), ``theta`` (count, M).

        Keys are the parameters' names without labels. Spreads come from a smooth mixture around the nodes,
        thinned by their exact density; the rest from exact conditionals. The same seed gives the same draws.

        Parameters
        ----------
        count : int
            Of draws.
        seed : int
            Of the generator.
        units : sequence of int, optional
            Places of the rows in ``theta``; all by default. The other draws do not depend on it.
        """
        if int(count) < 1:
            raise InputError("count of draws", "a positive whole number", count)
        rng, second = (np.random.default_rng([seed, part]) for part in (0, 1))
        structure, rows = self.structure, self._checked(units)
        x = self._draw_spreads(int(count), rng)
        mu, means = np.empty(len(x)), np.empty((len(x), len(structure.cells)))
        for at in range(0, len(x), _DRAWN):
            part = slice(at, at + _DRAWN)
            found = Elimination(self.table, x[part])
            centre, variance = found.reduced.mean_of(self._centre, self._prior_sd)
            mu[part] = centre + np.sqrt(variance) * rng.standard_normal(centre.size)
            means[part] = found.draw(mu[part], rng).reshape(centre.size, -1)
        mu, means = mu + self.table.location, means + self.table.location
        out = {"mu": mu, **{name: x[:, d] for d, name in enumerate(structure.spreads)}}
        out[structure.group_mean] = means
        out[structure.contrast] = structure.contrast_of(means, mu)
        out["theta"] = draw_rows(structure, means, x[:, -1], second, rows)
        return out

    def _draw_spreads(self, count: int, rng: np.random.Generator) -> np.ndarray:
        lattice, weights = self.nodes.lattice, self.shares.weights
        low, high = lattice.index.min(axis=0), lattice.index.max(axis=0)
        size = lattice.index.shape[1]
        shape = tuple(high - low + 1 + 2 * (_REACH + 1))
        dense = np.zeros(shape)
        dense[tuple((lattice.index - low + _REACH + 1).T)] = weights
        offsets = np.stack(
            np.meshgrid(*[np.arange(-_REACH, _REACH + 1)] * size, indexing="ij"), axis=-1
        ).reshape(-1, size)
        steps = np.diag(lattice.root)
        kept: list[np.ndarray] = []
        ratios: list[np.ndarray] = []
        most = -np.inf
        uniforms: list[np.ndarray] = []
        while True:
            node = rng.choice(len(weights), size=_DRAWN, p=weights)
            place = lattice.index[node] + _KERNEL * rng.standard_normal((_DRAWN, size))
            v = lattice.centre + place * steps
            x = np.column_stack([scale.x(v[:, d]) for d, scale in enumerate(lattice.scales)])
            near = np.rint(place).astype(np.intp)
            at = np.clip(near[:, None] + offsets - low + _REACH + 1, 0, np.array(shape) - 1)
            gap = (near[:, None] + offsets - place[:, None]) / _KERNEL
            mixture = (dense[tuple(np.moveaxis(at, -1, 0))] * np.exp(-0.5 * np.square(gap).sum(axis=2))).sum(
                axis=1
            )
            log = self.table.reduce(x).log_evidence(self._centre, self._prior_sd)
            for d, name in enumerate(self.structure.spreads):
                log = log + self.spec.priors[name].log_density(x[:, d])
                log = log + lattice.scales[d].log_jacobian(v[:, d])
            with np.errstate(divide="ignore"):
                ratio = log - np.log(mixture)
            ratio = np.where(np.isfinite(ratio), ratio, -np.inf)
            kept.append(x)
            ratios.append(ratio)
            uniforms.append(np.log(rng.random(_DRAWN)))
            # The highest ratio but for a few draws in the far tails, whose share is negligible.
            every = np.concatenate(ratios)
            most = float(np.quantile(every, 0.9995))
            taken = np.flatnonzero(np.concatenate(uniforms) < every - most)
            if taken.size >= count:
                return np.concatenate(kept)[taken[:count]]


def _merge(which: np.ndarray, weights: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> NormalMixtures:
    """Components (P, R) joined by their moments into those that `which` names."""
    order = np.argsort(which, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(which[order]) > 0])
    share = weights[order]
    total = np.add.reduceat(share, starts)
    kept = total > _NEGLIGIBLE * total.max()
    first = np.add.reduceat(share[:, None] * mean[order], starts)[kept] / total[kept, None]
    square = variance[order] + np.square(mean[order])
    second = np.add.reduceat(share[:, None] * square, starts)[kept] / total[kept, None]
    spread = np.sqrt(np.maximum(second - first**2, 1e-300))
    return NormalMixtures(
        total[kept] / total[kept].sum(), np.ascontiguousarray(first.T), np.ascontiguousarray(spread.T)
    )


def draw_rows(
    structure: GaussianMixed,
    means: np.ndarray,
    spread: np.ndarray,
    rng: np.random.Generator,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Rows' effects from their conditionals given the means of cells (n, cells) and σ_member (n,), (n, M)."""
    rows = np.arange(structure.effect.size) if rows is None else rows
    out = np.empty((len(means), rows.size))
    step = max(1, 4_000_000 // structure.effect.size)
    for at in range(0, len(means), step):
        part = slice(at, at + step)
        mean, variance = member_moments(structure, means[part], spread[part])
        deviation = mean + np.sqrt(variance) * rng.standard_normal(mean.shape)
        out[part] = means[part][:, structure.cell[rows]] + deviation[:, structure.member[rows]]
    return out
