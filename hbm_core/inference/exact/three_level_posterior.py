"""The posterior object of the three-level engine: hyperparameters at once, units when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import logsumexp, ndtr

from hbm_core.errors import InputError
from hbm_core.inference.exact.base import (
    PROBABILITIES,
    ExactPosterior,
    Weights,
    check_level,
    checked_probabilities,
    summary_table,
)
from hbm_core.inference.exact.location import (
    Linear,
    LocationMarginals,
    SmoothedPrior,
    density_of_mean,
    smoothed,
)
from hbm_core.inference.exact.mixture import NormalMixtures
from hbm_core.inference.exact.posterior import largest_gap, put_infinite
from hbm_core.inference.exact.quadrature import ORDER, PanelDensity, gauss_legendre, invert_panel
from hbm_core.inference.exact.three_level_lattice import (
    Axis,
    Lattice,
    Nodes,
    Placement,
    Question,
    Weighted,
    marginal,
)
from hbm_core.inference.exact.three_level_rule import gauss_rule
from hbm_core.inference.exact.three_level_table import Sums, ThreeLevelTable
from hbm_core.inference.exact.three_level_units import (
    Chosen,
    Lending,
    UnitWeights,
    choose,
    group_moments,
    group_weights,
    lending,
    unit_moments,
    unit_shares,
)
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

#: Nodes that stand for the posterior of the sd of the units, and of the groups given it.
_UNIT_NODES, _GROUP_NODES = 24, 20
#: The same where every marginal is an integral of its own.
_FEWER_UNIT_NODES, _FEWER_GROUP_NODES = 14, 10
#: Below this ratio of sd to mean fewer do.
_NARROW, _FEW = 0.05, 6
#: Numbers in one array over components and units.
_BLOCK = 400_000
#: Groups up to which the error estimate looks at their means too.
_GROUPS_IN_ERROR = 64
#: Groups up to which who lends to whom is one matrix.
_LENDING = 3_000


@dataclass(frozen=True, eq=False)
class Layer:
    """Few nodes of the sd of the units with all nodes of the sd of the groups behind each.

    Attributes
    ----------
    sigma, weights : ndarray (K,)
        Nodes and their probabilities.
    lattice : Lattice
        At these and the J nodes of the other axis.
    given : ndarray (K, J)
        Probabilities of the group nodes given the unit node.
    mu : tuple of ndarray (K, J)
        Mean and variance of μ, less the table's location.
    groups : tuple of ndarray (K, G)
        Means, less the groups' middles, and variances of the groups' means.
    """

    sigma: np.ndarray
    weights: np.ndarray
    lattice: Lattice
    given: np.ndarray
    mu: tuple[np.ndarray, np.ndarray]
    groups: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Components:
    """The posterior of μ and the groups' means as C normals; of a unit's effect too.

    Attributes
    ----------
    weights : ndarray (C,)
        Probabilities.
    sigma : ndarray (C,)
        σ_unit of each.
    mu_mean, mu_variance : ndarray (C,)
        Of μ, less the table's location.
    share, noise : ndarray (G, C)
        σ_group²/V_g, and the variance of the group's mean given μ.
    center : ndarray (G, C)
        Weighted means of the groups' effects, less their middles.
    """

    weights: np.ndarray
    sigma: np.ndarray
    mu_mean: np.ndarray
    mu_variance: np.ndarray
    share: np.ndarray
    noise: np.ndarray
    center: np.ndarray

    def groups(self, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means, less the groups' middles, and variances, each ndarray (G, C)."""
        rest = 1 - self.share
        mean = self.share * self.center + rest * (self.mu_mean - middle[:, None])
        return mean, self.noise + rest**2 * self.mu_variance


@dataclass(frozen=True, eq=False)
class GivenSpread:
    """The posterior given σ_unit, σ_group integrated out, on a grid.

    Attributes
    ----------
    spread : ndarray (K,)
        σ_unit, zero and infinity allowed.
    mu_mean, mu_sd : ndarray (K,)
        Of μ.
    group_mean, group_sd : ndarray (K, G)
        Of the groups' means.
    theta_mean, theta_sd : ndarray (K, M)
        Of the chosen units' effects.
    pooling : ndarray (K, M)
        B_i = s_i²/(s_i² + σ_unit²).
    """

    spread: np.ndarray
    mu_mean: np.ndarray
    mu_sd: np.ndarray
    group_mean: np.ndarray
    group_sd: np.ndarray
    theta_mean: np.ndarray
    theta_sd: np.ndarray
    pooling: np.ndarray


@dataclass(frozen=True)
class Tails:
    """b of the posterior densities that fall as x^(-b - 1); infinite for thinner tails."""

    unit: float
    group: float
    mu: float
    means: float


class ThreeLevelPosterior(ExactPosterior):
    """Exact posterior of a three-level normal model; attributes as in `ExactPosterior`.

    The hyperparameters' moments are there at once, at no cost in the number of units. Everything about
    groups and units is computed when it is asked for; `names`, `mean`, `sd`, `quantiles` and `summary`
    list all parameters: mu, the sd of the groups, the sd of the units, the groups' means, the units.

    Attributes
    ----------
    table : ThreeLevelTable
        What was taken from the data.
    hyper_names : tuple of str
        Of μ, the sd of the groups and the sd of the units.
    hyper_mean, hyper_sd : ndarray (3,)
        Their moments; infinite where they do not exist.
    replaced : bool
        Whether nodes had to be put anew although the table had some.
    """

    def __init__(
        self,
        spec: ModelSpec[ThreeLevelNormal],
        table: ThreeLevelTable,
        question: Question,
        placement: Placement,
        weighted: Weighted,
        tails: Tails,
        notes: tuple[str, ...],
        replaced: bool,
    ) -> None:
        self.spec = spec  # type: ignore[assignment]
        self.structure, self.table, self.notes, self.replaced = spec.structure, table, notes, replaced
        self._question, self._placement, self._tails = question, placement, tails
        self._full, self._half = weighted, Weighted.of(placement.half, question)
        structure = spec.structure
        self.hyper_names = ("mu", structure.group_spread, structure.spread)
        moments = []
        self._mu = self._moments_of_mu(self._full, 14)
        for one, mu in ((self._full, self._mu), (self._half, self._moments_of_mu(self._half, 10))):
            mean, sd = np.empty(3), np.empty(3)
            lattice = one.grid.lattice
            # Row by row: BLAS would share one long product between threads, which costs more than it saves.
            mean[0] = np.vecdot(one.weights, mu[0]).sum()
            sd[0] = math.sqrt(np.vecdot(one.weights, mu[1] + np.square(mu[0] - mean[0])).sum())
            for place, share, x, tail in (
                (1, one.group, lattice.sigma_group, tails.group),
                (2, one.unit, lattice.sigma_unit, tails.unit),
            ):
                if tail <= 1:
                    mean[place] = sd[place] = np.inf
                    continue
                mean[place] = share @ x
                with np.errstate(over="ignore"):
                    sd[place] = math.sqrt(share @ np.square(x - mean[place])) if tail > 2 else np.inf
            put_infinite(mean, sd, tails.mu, 0)
            moments.append((mean, sd))
        self._both = moments
        self.hyper_mean, self.hyper_sd = moments[0][0].copy(), moments[0][1]
        self.hyper_mean[0] += table.location
        self.hyper_error, self._hyper_absolute = largest_gap(moments[0], moments[1], table.location)
        proper = all(prior.proper for prior in spec.priors.values())
        self.log_evidence = weighted.log_total if proper else None

    def _moments_of_mu(self, weighted: Weighted, order: int) -> tuple[np.ndarray, np.ndarray]:
        lattice = weighted.grid.lattice
        return self._question.mu.moments(lattice.center, 1 / lattice.total, weighted.weights, order)

    # Names, and everything in one list.

    @cached_property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Flat parameter names: hyperparameters, groups' means, units."""
        mean = self.structure.group_mean
        return (
            *self.hyper_names,
            *(f"{mean}[{label}]" for label in self.structure.groups),
            *(f"theta[{label}]" for label in self.structure.units),
        )

    @property
    def groups(self) -> slice:
        """Places of the groups' means."""
        return slice(3, 3 + self.table.group_count)

    @property
    def theta(self) -> slice:
        """Places of the units' effects."""
        return slice(3 + self.table.group_count, 3 + self.table.group_count + self.table.size)

    @cached_property
    def mean(self) -> np.ndarray:  # type: ignore[override]
        """Posterior means of all parameters."""
        return np.concatenate([self.hyper_mean, self.group_moments()[0], self.unit_moments()[0]])

    @cached_property
    def sd(self) -> np.ndarray:  # type: ignore[override]
        """Posterior sds of all parameters."""
        return np.concatenate([self.hyper_sd, self.group_moments()[1], self.unit_moments()[1]])

    @cached_property
    def _errors(self) -> tuple[float, float]:
        if self.table.group_count > _GROUPS_IN_ERROR or self._tails.means <= 2:
            return self.hyper_error, self._hyper_absolute
        full = self._group_moments_of(self._full, self._mu)
        half = self._group_moments_of(self._half, self._moments_of_mu(self._half, 10))
        relative, absolute = largest_gap(full, half, self.table.location)
        return max(relative, self.hyper_error), max(absolute, self._hyper_absolute)

    @property
    def error(self) -> float:  # type: ignore[override]
        """Estimated largest error of a finite mean or sd, in posterior sds: half against full nodes."""
        return self._errors[0]

    @property
    def error_absolute(self) -> float:  # type: ignore[override]
        """The same in the outcome's units."""
        return self._errors[1]

    # Groups.

    def _group_moments_of(
        self, weighted: Weighted, mu: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        kept = np.flatnonzero(weighted.unit > 1e-15)
        lattice, share = weighted.grid.lattice, weighted.unit[kept]
        given = weighted.weights[kept] / share[:, None]
        part = Lattice(
            lattice.sigma_unit[kept],
            lattice.sigma_group,
            _take(lattice.sums, kept),
            lattice.total[kept],
            lattice.center[kept],
            lattice.log_likelihood[kept],
        )
        mean, variance = group_moments(part, given, (mu[0][kept], mu[1][kept]), self.table.middle)
        center = share @ mean
        return center, np.sqrt(share @ (variance + np.square(mean - center)))

    def group_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of all groups' means, each ndarray (G,)."""
        return self._groups

    @cached_property
    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = self._group_moments_of(self._full, self._mu)
        mean = mean + self.table.middle + self.table.location
        if self._tails.means <= 2:
            sd = np.full_like(sd, np.inf)
        if self._tails.means <= 1:
            mean = np.full_like(mean, np.inf)
        return mean, sd

    @cached_property
    def lending(self) -> Lending:
        """Weight of every group's data in every group's mean, and of the prior on μ.

        Raises
        ------
        InputError
            Too many groups for one matrix, or a prior on μ under which the means are not linear in y.
        """
        if self.table.group_count > _LENDING:
            raise InputError(
                "groups", f"at most {_LENDING} for a matrix of all pairs", self.table.group_count
            )
        if not self._question.mu.gaussian:
            raise InputError(
                "prior on mu",
                "Normal or Flat, where estimates are linear in the data",
                self.spec.priors["mu"].text,
            )
        return lending(self._full.grid.lattice, self._full.weights, self._question.mu.precision)

    def settle(self) -> None:
        """Compute the hyperparameters' quantiles: nothing that costs in the number of units."""
        self.hyper_quantiles()

    # The sds' densities.

    @cached_property
    def _of_unit(self) -> PanelDensity:
        return marginal(self._full, self._half, self._placement.unit, 0, self._log_unit)

    @cached_property
    def _of_group(self) -> PanelDensity:
        return marginal(self._full, self._half, self._placement.group, 1, self._log_group)

    def _log_unit(self, x: np.ndarray) -> np.ndarray:
        """Log of the unnormalised marginal density of the sd of the units."""
        nodes = self._full.grid.group
        lattice = Lattice.of(x, self.table.sums(x), nodes.x)
        with np.errstate(divide="ignore"):
            terms = self._question.log_posterior(lattice) + np.log(nodes.weights) + nodes.log_slope
        return logsumexp(terms, axis=1)

    def _log_group(self, x: np.ndarray) -> np.ndarray:
        """Log of the unnormalised marginal density of the sd of the groups."""
        nodes = self._full.grid.unit
        lattice = Lattice.of(nodes.x, self._full.grid.lattice.sums, x)
        with np.errstate(divide="ignore"):
            terms = self._question.log_posterior(lattice) + (np.log(nodes.weights) + nodes.log_slope)[:, None]
        return logsumexp(terms, axis=0)

    # Units.

    @cached_property
    def _unit_nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Few nodes of the sd of the units that stand for its posterior, and their probabilities."""
        share, nodes = self._full.unit, self._full.grid.unit
        x = nodes.x
        center = share @ x
        narrow = math.isfinite(center) and share @ np.square(x - center) < (_NARROW * center) ** 2
        count = _FEW if narrow else _UNIT_NODES if self._mixed else _FEWER_UNIT_NODES
        v, weights = gauss_rule(nodes.v, share[None, :], min(count, x.size))
        kept = weights[0] > 1e-13
        return self._placement.unit.coordinate.x(v[0, kept]), weights[0, kept] / weights[0, kept].sum()

    @cached_property
    def _layer(self) -> Layer:
        sigma, weights = self._unit_nodes
        return self._layer_at(sigma, weights, self._full.grid.group)

    def _layer_at(self, sigma: np.ndarray, weights: np.ndarray, nodes: Nodes) -> Layer:
        lattice = Lattice.of(sigma, self.table.sums(sigma), nodes.x)
        with np.errstate(divide="ignore"):
            terms = lattice.log_density(self._question.mu) + self._question.group.log_density(nodes.x)
            terms = terms + np.log(nodes.weights) + nodes.log_slope
        given = np.exp(terms - terms.max(1, keepdims=True))
        given /= given.sum(1, keepdims=True)
        mu = self._question.mu.moments(lattice.center, 1 / lattice.total, given)
        groups = group_moments(lattice, given, mu, self.table.middle)
        return Layer(sigma, weights, lattice, given, mu, groups)

    def unit_moments(self, units: Sequence[int] | np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Means and sds of the units' effects, each ndarray (N,), or (M,) of `units` by their places."""
        if units is None:
            return self._units
        layer = self._layer
        mean, sd = unit_moments(self.table, layer.sigma, layer.weights, layer.groups, self._choose(units))
        return mean + self.table.location, sd

    def unit_pooling(self, units: Sequence[int] | np.ndarray) -> np.ndarray:
        """E[B_i | y] of some units by their places, ndarray (M,)."""
        layer, chosen = self._layer, self._choose(units)
        precision = layer.lattice.sums.precision
        return unit_shares(self.table, layer.sigma, layer.weights, precision, None, chosen)[0]

    def unit_weights(self, units: Sequence[int] | np.ndarray) -> UnitWeights | None:
        """`weights` of some units by their places, arrays (M,)."""
        return self._unit_weights(self._choose(units))

    @cached_property
    def _units(self) -> tuple[np.ndarray, np.ndarray]:
        layer = self._layer
        mean, sd = unit_moments(self.table, layer.sigma, layer.weights, layer.groups)
        mean += self.table.location
        return mean, sd

    @cached_property
    def pooling(self) -> np.ndarray:  # type: ignore[override]
        """E[B_i | y] with B_i = s_i²/(s_i² + σ_unit²), ndarray (N,)."""
        layer = self._layer
        return unit_shares(self.table, layer.sigma, layer.weights, layer.lattice.sums.precision, None)[0]

    @cached_property
    def weights(self) -> UnitWeights | None:  # type: ignore[override]
        """Linear weights of E[θ_i | sds, y] averaged over both sds; None unless μ is Normal or Flat."""
        return self._unit_weights(None)

    def _unit_weights(self, chosen: Chosen | None) -> UnitWeights | None:
        if not self._question.mu.gaussian:
            return None
        layer = self._layer
        shares = group_weights(layer.lattice, layer.given, self._question.mu.precision)
        _, own, group, beyond, prior = unit_shares(
            self.table, layer.sigma, layer.weights, layer.lattice.sums.precision, shares, chosen
        )
        return UnitWeights(own=own, others=group + beyond, prior=prior, group=group, beyond=beyond)

    def given_spread(
        self, spread: np.ndarray, units: Sequence[int] | np.ndarray | None = None
    ) -> GivenSpread:
        """The posterior given the sd of the units, that of the groups integrated out, on a grid.

        Parameters
        ----------
        spread : ndarray (K,)
            In the outcome's units; zero and infinity allowed.
        units : sequence of int, optional
            Places of the units; all by default.
        """
        spread = np.asarray(spread, dtype=float)
        if spread.ndim != 1 or not (spread >= 0).all():
            raise InputError(f"values of {self.structure.spread}", "numbers from 0", spread)
        chosen = self._choose(units)
        far = np.isinf(spread)
        # At infinity groups know nothing of their means: what is left of them is a number far away.
        sigma = np.where(far, 1e8 * self.table.scale * math.sqrt(self.table.size), spread)
        layer = self._layer_at(
            sigma, np.ones(sigma.size), Nodes.of(_everywhere(self._placement.group), ORDER)
        )
        mean, variance = layer.groups
        t = np.square(sigma)[:, None]
        pooling = chosen.variance / (chosen.variance + t)
        pull = pooling * (mean[:, chosen.group] - chosen.deviation)
        inside = pooling * (t + pooling * variance[:, chosen.group])
        mu_mean = np.vecdot(layer.given, layer.mu[0])
        mu_variance = np.vecdot(layer.given, layer.mu[1] + np.square(layer.mu[0] - mu_mean[:, None]))
        rows = far[:, None]
        plain = chosen.deviation + self.table.middle[chosen.group] + self.table.location
        return GivenSpread(
            spread,
            mu_mean + self.table.location,
            np.sqrt(mu_variance),
            mean + self.table.middle + self.table.location,
            np.sqrt(variance),
            plain + np.where(rows, 0.0, pull),
            np.where(rows, np.sqrt(chosen.variance), np.sqrt(inside)),
            np.where(rows, 0.0, pooling),
        )

    def _choose(self, units: Sequence[int] | np.ndarray | None) -> Chosen:
        if units is None:
            return choose(self.table, np.arange(self.table.size))
        places = np.asarray(units)
        if places.size == 0:
            places = places.astype(np.intp)
        if places.ndim != 1 or places.dtype.kind not in "iu":
            raise InputError("units", "their places, whole numbers in one row", units)
        if places.size and not (places.min() >= 0 and places.max() < self.table.size):
            raise InputError("units", f"places from 0 to {self.table.size - 1}", places)
        return choose(self.table, places)

    # Marginals as mixtures of normals.

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, Lattice]:
        """Weights (K, L) and σ_unit (K,) of few nodes, and the lattice there, σ_group (K, L)."""
        layer, nodes = self._layer, self._full.grid.group
        count = _GROUP_NODES if self._mixed else _FEWER_GROUP_NODES
        v, shares = gauss_rule(nodes.v, layer.given, count)
        sigma_group = self._placement.group.coordinate.x(v)
        lattice = Lattice.of(layer.sigma, layer.lattice.sums, sigma_group)
        return layer.weights[:, None] * shares, layer.sigma, lattice

    def _base(self) -> tuple[np.ndarray, ...]:
        weights, sigma, lattice = self._parts
        flat = weights.ravel()
        kept = np.flatnonzero(flat > 1e-12)
        row = kept // weights.shape[1]
        share = lattice.shares(slice(None)).reshape(flat.size, -1)[kept].T
        precision, center = lattice.sums.precision[row].T, (lattice.sums.center[row] - self.table.middle).T
        return (
            flat[kept] / flat[kept].sum(),
            sigma[row],
            lattice.center.ravel()[kept],
            1 / lattice.total.ravel()[kept],
            share,
            share / precision,
            center,
        )

    @cached_property
    def components(self) -> Components:
        """μ, groups' means and units as mixtures of normals, where the prior on μ allows."""
        weights, sigma, at, variance, share, noise, center = self._base()
        mu = self._question.mu
        if mu.gaussian:
            mean, spread = mu.moments(at, variance, np.ones_like(at))
            return Components(weights, sigma, mean, spread, share, noise, center)
        scales, _ = mu.scales.nodes
        terms = mu.scales.log_terms(at + mu.location, variance)
        shares = np.exp(terms - logsumexp(terms, axis=1, keepdims=True))
        places, rule = gauss_rule(np.log(scales), shares, min(8, scales.size))
        row = np.repeat(np.arange(at.size), rule.shape[1])
        joint, wide = (weights[:, None] * rule).ravel(), np.exp(places).ravel()
        kept = joint > 1e-12
        row, joint, wide = row[kept], joint[kept] / joint[kept].sum(), wide[kept]
        spread = 1 / (1 / variance[row] + 1 / wide)
        mean = at[row] + spread / wide * (mu.prior.numbers[1] - mu.location - at[row])
        return Components(joint, sigma[row], mean, spread, share[:, row], noise[:, row], center[:, row])

    @property
    def _mixed(self) -> bool:
        """Whether all marginals are mixtures of normals."""
        return self._question.mu.gaussian or self._question.mu.prior.family == "StudentT"

    @cached_property
    def _of_mean(self) -> PanelDensity:
        """The density of μ under a prior that is neither normal nor a mixture of normals."""
        linear, log_weights, prior = self._linear(self._choose(()))
        start = (float(self._both[0][0][0]), float(self._both[0][1][0]))
        location = self.table.location
        return density_of_mean(prior.prior, linear, log_weights, location, *start, self._tails.mu)

    def _linear(self, chosen: Chosen) -> tuple[Linear, np.ndarray, SmoothedPrior]:
        """μ, groups' means and units as linear functions of μ given few nodes of both sds."""
        weights, sigma, at, variance, share, noise, center = self._base()
        middle = self.table.middle[:, None]
        rest = 1 - share
        group_center = share * center + rest * (at - middle)
        square = np.square(sigma)
        pooling = chosen.variance[:, None] / (chosen.variance[:, None] + square)
        deviation, group = chosen.deviation[:, None], chosen.group
        unit_center = deviation + pooling * (group_center[group] - deviation)
        one = np.ones((1, at.size))
        linear = Linear(
            at,
            variance,
            np.concatenate([at[None, :], group_center + middle, unit_center + middle[group]]),
            np.concatenate([one, rest, pooling * rest[group]]),
            np.concatenate([0 * one, noise, pooling * (square + pooling * noise[group])]),
        )
        prior = smoothed(self._question.mu.prior)
        log_weights = np.log(weights) - prior.log_integral(at + self.table.location, variance)
        return linear, log_weights, prior

    def _location_marginals(self, chosen: Chosen) -> LocationMarginals:
        """Groups' means, then chosen units, under a prior on μ that is no mixture of normals."""
        linear, log_weights, prior = self._linear(chosen)
        weights, _, at, variance, *_ = self._base()
        _, mean, spread = prior.moments(at + self.table.location, variance, 14)
        moments = linear.combine(weights, mean - self.table.location, spread)
        shift = np.full(moments[0].size, self.table.location)
        return LocationMarginals(linear, log_weights, prior, *moments, shift, self.table.location)

    def _mixtures(self, chosen: Chosen) -> Iterator[tuple[slice, NormalMixtures]]:
        """Mixtures of the chosen units' effects less middle and location, in blocks."""
        parts = self.components
        mean, variance = parts.groups(self.table.middle)
        t, size = np.square(parts.sigma), chosen.group.size
        step = max(1, _BLOCK // t.size)
        for at in range(0, size, step):
            part = slice(at, min(at + step, size))
            group, deviation = chosen.group[part], chosen.deviation[part, None]
            pooling = chosen.variance[part, None] / (chosen.variance[part, None] + t)
            center = deviation + pooling * (mean[group] - deviation)
            spread = np.sqrt(pooling * (t + pooling * variance[group]))
            yield part, NormalMixtures(parts.weights, center, spread)

    def _shift(self, chosen: Chosen) -> np.ndarray:
        return self.table.middle[chosen.group] + self.table.location

    @cached_property
    def _group_mixtures(self) -> NormalMixtures:
        mean, variance = self.components.groups(self.table.middle)
        return NormalMixtures(self.components.weights, mean, np.sqrt(variance))

    @cached_property
    def _mean_mixture(self) -> NormalMixtures:
        parts = self.components
        return NormalMixtures(parts.weights, parts.mu_mean[None, :], np.sqrt(parts.mu_variance)[None, :])

    # Quantiles, intervals, densities.

    def hyper_quantiles(self, probabilities: Sequence[float] | np.ndarray = PROBABILITIES) -> np.ndarray:
        """Quantiles of the hyperparameters, ndarray (3, len(probabilities))."""
        p = checked_probabilities(probabilities)
        if self._mixed:
            of_mu = self._mean_mixture.quantiles(p)[0] + self.table.location
        else:
            of_mu = self._of_mean.quantiles(p)
        return np.stack([of_mu, self._of_group.quantiles(p), self._of_unit.quantiles(p)])

    def group_quantiles(self, probabilities: Sequence[float] | np.ndarray = PROBABILITIES) -> np.ndarray:
        """Quantiles of the groups' means, ndarray (G, len(probabilities))."""
        p = checked_probabilities(probabilities)
        if not self._mixed:
            return self._location_marginals(self._choose(())).quantiles(p)
        return self._group_mixtures.quantiles(p) + (self.table.middle + self.table.location)[:, None]

    def unit_quantiles(
        self,
        probabilities: Sequence[float] | np.ndarray = PROBABILITIES,
        units: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Quantiles of units' effects, ndarray (M, len(probabilities)).

        Parameters
        ----------
        probabilities : sequence of float
            From 0 to 1.
        units : sequence of int, optional
            Places of the units; all by default.
        """
        p, chosen = checked_probabilities(probabilities), self._choose(units)
        if not self._mixed:
            return self._location_marginals(chosen).quantiles(p)[self.table.group_count :]
        out = np.empty((chosen.group.size, p.size))
        for part, mixtures in self._mixtures(chosen):
            out[part] = mixtures.quantiles(p)
        return out + self._shift(chosen)[:, None]

    def unit_hdi(self, level: float = 0.95, units: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Shortest intervals of units' effects, ndarray (M, 2)."""
        check_level(level)
        chosen = self._choose(units)
        if not self._mixed:
            return self._location_marginals(chosen).hdi(level)[self.table.group_count :]
        out = np.empty((chosen.group.size, 2))
        for part, mixtures in self._mixtures(chosen):
            out[part] = mixtures.hdi(level)
        return out + self._shift(chosen)[:, None]

    def unit_probability_above(
        self, threshold: float, units: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """P(θ_i > threshold | y), ndarray (M,)."""
        if not math.isfinite(threshold):
            raise InputError("threshold", "a finite number", threshold)
        chosen = self._choose(units)
        if not self._mixed:
            marginals, groups = self._location_marginals(chosen), self.table.group_count
            at = np.array([float(threshold)])
            return np.array([1 - marginals.cdf(groups + i, at)[0] for i in range(chosen.group.size)])
        out, shift = np.empty(chosen.group.size), self._shift(chosen)
        for part, mixtures in self._mixtures(chosen):
            z = (mixtures.mean + (shift[part] - threshold)[:, None]) / mixtures.sd
            out[part] = ndtr(z) @ mixtures.weights
        return out

    def quantiles(self, probabilities: Sequence[float] | np.ndarray = PROBABILITIES) -> np.ndarray:
        """Quantiles of every parameter, ndarray (len(names), len(probabilities))."""
        p = checked_probabilities(probabilities)
        if not self._mixed:
            rest = self._location_marginals(self._choose(None)).quantiles(p)
            return np.concatenate([self.hyper_quantiles(p), rest])
        return np.concatenate([self.hyper_quantiles(p), self.group_quantiles(p), self.unit_quantiles(p)])

    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest interval of every parameter, ndarray (len(names), 2)."""
        return self._hdi(level, None)

    def _hdi(self, level: float, units: np.ndarray | None) -> np.ndarray:
        check_level(level)
        spreads = np.stack([self._of_group.hdi(level), self._of_unit.hdi(level)])
        if not self._mixed:
            rest = self._location_marginals(self._choose(units)).hdi(level)
            return np.concatenate([self._of_mean.hdi(level)[None, :], spreads, rest])
        of_groups = self._group_mixtures.hdi(level) + (self.table.middle + self.table.location)[:, None]
        of_mu = self._mean_mixture.hdi(level) + self.table.location
        return np.concatenate([of_mu, spreads, of_groups, self.unit_hdi(level, units)])

    def summary(
        self, probabilities: Sequence[float] = PROBABILITIES, hdi: bool = True, units: int | None = None
    ) -> pd.DataFrame:
        """One row per parameter, as the base promises; units that are not listed cost nothing but moments."""
        if units is None or units >= self.structure.effect.size:
            return super().summary(probabilities, hdi)
        places = np.arange(units)
        mean, sd = (
            np.concatenate([own, groups, each])
            for own, groups, each in zip(
                (self.hyper_mean, self.hyper_sd),
                self.group_moments(),
                self.unit_moments(places),
                strict=True,
            )
        )
        quantiles = np.concatenate(
            [
                self.hyper_quantiles(probabilities),
                self.group_quantiles(probabilities),
                self.unit_quantiles(probabilities, places),
            ]
        )
        names = [
            *self.structure.hyperparameters,
            *(f"theta[{self.structure.units[k]}]" for k in range(units)),
        ]
        ends = self._hdi(0.95, places) if hdi else None
        return summary_table(names, mean, sd, quantiles, ends, probabilities)

    def density(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior density of one parameter at `x`."""
        return self._at(name, np.asarray(x, dtype=float), "density")

    def cdf(self, name: str, x: np.ndarray) -> np.ndarray:
        """Marginal posterior distribution function of one parameter at `x`."""
        return self._at(name, np.asarray(x, dtype=float), "cdf")

    def _at(self, name: str, x: np.ndarray, what: str) -> np.ndarray:
        if name == self.hyper_names[1]:
            return getattr(self._of_group, what)(x)
        if name == self.hyper_names[2]:
            return getattr(self._of_unit, what)(x)
        if name == "mu":
            if not self._mixed:
                return getattr(self._of_mean, what)(x)
            return getattr(self._mean_mixture, what)(0, x - self.table.location)
        place, groups = self.index(name) - 3, self.table.group_count
        if not self._mixed:
            chosen = self._choose(() if place < groups else (place - groups,))
            return getattr(self._location_marginals(chosen), what)(min(place, groups), x)
        if place < groups:
            shift = self.table.middle[place] + self.table.location
            return getattr(self._group_mixtures, what)(place, x - shift)
        chosen = self._choose((place - groups,))
        _, mixtures = next(self._mixtures(chosen))
        return getattr(mixtures, what)(0, x - self._shift(chosen)[0])

    def index(self, name: str) -> int:
        """Place of a flat parameter name."""
        if name in self.hyper_names:
            return self.hyper_names.index(name)
        word, _, label = name.partition("[")
        starts = {self.structure.group_mean: 3, "theta": self.theta.start}
        labels = {self.structure.group_mean: self.structure.groups, "theta": self.structure.units}
        if label.endswith("]") and word in labels and label[:-1] in labels[word]:
            return starts[word] + labels[word].index(label[:-1])
        known = (*self.hyper_names, f"{self.structure.group_mean}[…]", "theta[…]")
        raise InputError("parameter", "one of " + ", ".join(known), repr(name))

    # Draws.

    def draws(
        self, count: int, seed: int = 0, units: Sequence[int] | np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Joint draws: ``mu`` and both sds (count,), the groups' means (count, G), ``theta`` (count, M).

        Keys are the parameters' names without labels. The sd of the units is stratified by its exact
        distribution function, in random order; the rest comes from exact conditionals. The same seed gives
        the same draws.

        Parameters
        ----------
        count : int
            Of draws.
        seed : int
            Of the generator.
        units : sequence of int, optional
            Places of the units in ``theta``; all by default. The other draws do not depend on it.
        """
        if int(count) < 1:
            raise InputError("count of draws", "a positive whole number", count)
        count, chosen = int(count), self._choose(units)
        generator, second = (np.random.default_rng([seed, part]) for part in (0, 1))
        strata = generator.permutation((np.arange(count) + generator.random(count)) / count)
        sigma_unit = self._of_unit.quantiles(strata)
        sums, sigma_group = self._draw_groups_sd(sigma_unit, generator)
        variance = 1 / sums.precision
        inverse = 1 / (variance + np.square(sigma_group)[:, None])
        total = inverse.sum(1)
        center = np.vecdot(inverse, sums.center) / total
        mu = self._draw_mean(center, 1 / total, generator)
        share = 1 - variance * inverse
        mean = share * sums.center + (1 - share) * mu[:, None]
        mean += np.sqrt(share * variance) * generator.standard_normal(mean.shape)
        inside = mean[:, chosen.group] - self.table.middle[chosen.group]
        t = np.square(sigma_unit)[:, None]
        pooling = chosen.variance / (chosen.variance + t)
        theta = chosen.deviation + pooling * (inside - chosen.deviation)
        theta += np.sqrt(pooling * t) * second.standard_normal(theta.shape)
        location = self.table.location
        return {
            "mu": mu + location,
            self.hyper_names[1]: sigma_group,
            self.hyper_names[2]: sigma_unit,
            self.structure.group_mean: mean + location,
            "theta": theta + self._shift(chosen),
        }

    def _draw_mean(
        self, center: np.ndarray, variance: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        mu = self._question.mu
        if mu.gaussian:
            mean, spread = mu.moments(center, variance, np.ones_like(center))
            return mean + np.sqrt(spread) * generator.standard_normal(mean.shape)
        if mu.prior.family == "StudentT":
            terms = mu.scales.log_terms(center + mu.location, variance)
            shares = np.cumsum(np.exp(terms - terms.max(1, keepdims=True)), axis=1)
            pick = (shares < (generator.random(center.size) * shares[:, -1])[:, None]).sum(1)
            wide = mu.scales.nodes[0][pick]
            spread = 1 / (1 / variance + 1 / wide)
            mean = center + spread / wide * (mu.prior.numbers[1] - mu.location - center)
            return mean + np.sqrt(spread) * generator.standard_normal(mean.shape)
        return smoothed(mu.prior).draw(center + mu.location, variance, generator) - mu.location

    def _draw_groups_sd(
        self, sigma_unit: np.ndarray, generator: np.random.Generator
    ) -> tuple[Sums, np.ndarray]:
        """The groups' sums and one draw of their sd at each value of the units' sd.

        Both are series in the coordinate of the units' sd, known at the nodes of its panels.
        """
        axis, grid = self._placement.unit, self._full.grid
        rule = gauss_legendre(ORDER)
        v = np.clip(axis.coordinate.v(sigma_unit), axis.left[0], axis.stop)
        panel = np.clip(np.searchsorted(axis.left, v, side="right") - 1, 0, axis.left.size - 1)
        gap = (2 * (v - axis.left[panel]) / axis.width[panel] - 1)[:, None] - rule.nodes
        gap[gap == 0] = 1e-300
        series = rule.inner / gap
        series /= series.sum(1, keepdims=True)
        known, columns = grid.lattice.sums, grid.group.x.size
        precision = np.empty((v.size, known.precision.shape[1]))
        center, height = np.empty_like(precision), np.empty((v.size, columns))
        for one in np.unique(panel):
            rows, part = np.flatnonzero(panel == one), slice(one * ORDER, (one + 1) * ORDER)
            precision[rows] = series[rows] @ known.precision[part]
            center[rows] = series[rows] @ known.center[part]
            height[rows] = series[rows] @ self._full.height[part]
        # A series of something positive can fall below zero where it is negligible.
        height = np.maximum(height, 0.0).reshape(v.size, -1, ORDER)
        other = self._placement.group
        masses = np.cumsum((height @ rule.weights) * other.width, axis=1)
        target = generator.random(v.size) * masses[:, -1]
        pick = np.minimum((masses < target[:, None]).sum(1), other.left.size - 1)
        rows = np.arange(v.size)
        inside = height[rows, pick]
        share = 1 - (masses[rows, pick] - target) / ((inside @ rule.weights) * other.width[pick])
        t = invert_panel(inside, np.clip(share, 0.0, 1.0))
        place = other.left[pick] + other.width[pick] * (0.5 + 0.5 * t)
        return Sums(precision, center, np.empty(0)), other.coordinate.x(place)

    # Prediction.

    def unit_log_predictive(self, units: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Log p(y_i | the other units), ndarray (M,): leave-one-out with θ_i integrated out, exact.

        1/p(y_i | y_-i) is the posterior mean of 1/p(y_i | y_-i, both sds), and the latter is normal. Under
        a prior on μ that is neither normal nor flat NotImplementedError.
        """
        log_weights = np.log(self.components.weights)
        found = [
            -logsumexp(log_weights - _log_left_out(rest, own), axis=1)
            for rest, own in self._left_out(self._choose(units))
        ]
        return np.concatenate([np.empty(0), *found])

    def unit_predictive(
        self, units: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Distribution of y_i given the other units: mixtures of C normals, some units at a time.

        Raises as `unit_log_predictive`.

        Yields
        ------
        weights, mean, sd : ndarray (M', C)
            In the outcome's units.
        """
        chosen, done = self._choose(units), 0
        log_weights = np.log(self.components.weights)
        for rest, own in self._left_out(chosen):
            part = slice(done, done + len(rest))
            done += len(rest)
            logs = log_weights - _log_left_out(rest, own)
            weights = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
            middle = self.table.location + self.table.middle[chosen.group[part]]
            yield weights, middle[:, None] + chosen.deviation[part, None] - rest / own, own**-0.5

    def _left_out(self, chosen: Chosen) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The precision matrix of all y given both sds: times the residuals, and its diagonal."""
        if not self._question.mu.gaussian:
            raise NotImplementedError("leave-one-out has no closed form under this prior on mu")
        mean, variance = self.components.groups(self.table.middle)
        t, size = np.square(self.components.sigma), chosen.group.size
        step = max(1, _BLOCK // t.size)
        for at in range(0, size, step):
            part = slice(at, min(at + step, size))
            group, inverse = chosen.group[part], 1 / (chosen.variance[part, None] + t)
            own = inverse - np.square(inverse) * variance[group]
            yield inverse * (chosen.deviation[part, None] - mean[group]), own


def _log_left_out(rest: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Log p(y_i | y_-i, both sds), which is normal with precision `own`."""
    return -0.5 * (np.log(2 * np.pi / own) + np.square(rest) / own)


def _take(sums: Sums, kept: np.ndarray) -> Sums:
    return Sums(sums.precision[kept], sums.center[kept], sums.log_likelihood[kept])


def _everywhere(axis: Axis) -> Axis:
    """Panels over the whole support, as fine as before where there were some."""
    end = 1.0 if math.isinf(axis.support[1]) else axis.coordinate.place(axis.support[1])
    edges = np.unique(np.concatenate([np.linspace(0, end, 9), axis.left, [axis.stop]]))
    return Axis(axis.coordinate, edges[:-1], np.diff(edges), axis.support, (True, True), axis.finite)


__all__ = ["Components", "GivenSpread", "Lending", "ThreeLevelPosterior", "UnitWeights", "Weights"]
