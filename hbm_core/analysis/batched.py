"""The two-level normal posterior as a finite mixture over τ, for one data set or for many at once.

Given τ everything is Gaussian, so a posterior is a list of τ nodes with weights. The nodes and all that
hangs on (τ, s) alone are made once and shared by every data set with the same standard errors: this is
what lets a simulation study evaluate thousands of posteriors in one go, and what gives the borrowing
matrix, the covariance of the effects and the leave-one-out predictions in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.special import expit, logsumexp, ndtr

from hbm_core.errors import ImproperPosteriorError, NotExactError
from hbm_core.inference.exact.mixture import NormalMixtures
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

_LOG_2_PI = float(np.log(2 * np.pi))
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
#: Nodes below this share of the mass, in every data set, are dropped.
_NEGLIGIBLE = 1e-15
#: Panels are halved until log evidence and E[asinh(τ/c)] move by less.
_TOLERANCE = 1e-9


def effect_scale(spec: ModelSpec, tau: np.ndarray) -> np.ndarray:
    """Sd of the effects as a function of τ: τ itself, or τ* for `adaptive`.

    τ* = w τ + (1 − w) σ_p τ/t with w = sigmoid(k (τ − t)).
    """
    tau = np.asarray(tau, dtype=float)
    if spec.structure.scale == "identity":
        return tau
    threshold, spread = spec.constants["threshold"], spec.constants["spread"]
    weight = expit(spec.constants.get("slope", 2.0) * (tau - threshold))
    return weight * tau + (1 - weight) * spread * tau / threshold


def linear(spec: ModelSpec) -> bool:
    """Whether a two-level posterior is Gaussian given τ: normal data, effects and coefficients, or flat."""
    structure = spec.structure
    if not isinstance(structure, TwoLevelNormal) or "student_t" in (structure.effects, structure.likelihood):
        return False
    names = ("theta",) if structure.pooling == "none" else ("mu", "beta")
    return all(spec.priors[name].family in ("Normal", "Flat") for name in names if name in spec.priors)


@dataclass(frozen=True, eq=False)
class TauMixture:
    """Posteriors of R data sets with common standard errors, as mixtures over K nodes of τ.

    The linear predictor of unit i is z_i·γ with z_i = (1, X_i) and γ = (μ, β).

    Attributes
    ----------
    spec : ModelSpec
        The model; its own effects are those of data set 0 when it was not given others.
    effect : ndarray (R, J)
        The data sets, in the outcome's units.
    tau, scale : ndarray (K,)
        τ and the sd of the effects (the same unless `adaptive`).
    weight, log_weight : ndarray (R, K)
        Posterior masses of the nodes, rows sum to 1, and their logs.
    coefficient : ndarray (R, K, p)
        E[γ | τ, y].
    covariance : ndarray (K, p, p)
        Cov[γ | τ, y], free of y.
    pooling : ndarray (K, J)
        B_i = s_i²/(s_i² + scale²).
    prior_mean, prior_precision : ndarray (p,)
        Of γ; precision 0 is flat.
    log_evidence : ndarray (R,)
        log p(y) (up to a constant under improper priors).
    """

    spec: ModelSpec
    effect: np.ndarray
    tau: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    log_weight: np.ndarray
    coefficient: np.ndarray
    covariance: np.ndarray
    pooling: np.ndarray
    prior_mean: np.ndarray
    prior_precision: np.ndarray
    log_evidence: np.ndarray

    @property
    def predictor(self) -> np.ndarray:
        """Z, ndarray (J, p): a column of ones and the design."""
        return predictor(self.spec)

    def node_mean(self) -> np.ndarray:
        """E[θ_i | τ, y], ndarray (R, K, J)."""
        center = self.coefficient @ self.predictor.T
        return self.pooling * center + (1 - self.pooling) * self.effect[:, None, :]

    def node_sd(self) -> np.ndarray:
        """sd[θ_i | τ, y], ndarray (K, J)."""
        z = self.predictor
        center = np.einsum("jp,kpq,jq->kj", z, self.covariance, z)
        own = self.spec.structure.se**2 * (1 - self.pooling)
        return np.sqrt(own + self.pooling**2 * center)

    def theta(self) -> Normals:
        """The effects as mixtures of normals, targets (R, J)."""
        return Normals(self.weight, self.node_mean().transpose(0, 2, 1), self.node_sd().T[None])

    def center(self) -> Normals:
        """The units' linear predictors z_i·γ (μ without covariates), targets (R, J)."""
        z = self.predictor
        sd = np.sqrt(np.einsum("jp,kpq,jq->jk", z, self.covariance, z))
        return Normals(self.weight, (self.coefficient @ z.T).transpose(0, 2, 1), sd[None])

    def coefficients(self) -> Normals:
        """γ = (μ, β) as mixtures of normals, targets (R, p)."""
        sd = np.sqrt(np.einsum("kpp->pk", self.covariance))
        return Normals(self.weight, self.coefficient.transpose(0, 2, 1), sd[None])

    def linear_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights of E[θ_i | τ, y] on every y_j, averaged over τ.

        Returns
        -------
        data : ndarray (R, J, J)
            Row i: weights of unit i's estimate on y_1 … y_J.
        prior : ndarray (R, J)
            Weight on the prior mean of μ: what makes the rows sum to 1.
        """
        z, se = self.predictor, self.spec.structure.se
        share = 1 / (se**2 + self.scale[:, None] ** 2)
        through = np.einsum("kj,jp,kpq,iq->kji", self.pooling, z, self.covariance, z) * share[:, None, :]
        average = np.einsum("rk,kji->rji", self.weight, through)
        own = np.einsum("rk,kj->rj", self.weight, 1 - self.pooling)
        average += own[:, :, None] * np.eye(len(se))
        return average, 1 - average.sum(axis=2)

    def mean_pooling(self) -> np.ndarray:
        """E[B_i | y], ndarray (R, J)."""
        return self.weight @ self.pooling

    def theta_covariance(self) -> np.ndarray:
        """Cov[θ | y] by the law of total covariance over τ, ndarray (R, J, J)."""
        z, se = self.predictor, self.spec.structure.se
        lean = self.pooling[:, :, None] * z
        within = np.einsum("kip,kpq,kjq->kij", lean, self.covariance, lean)
        within += (se**2 * (1 - self.pooling))[:, :, None] * np.eye(len(se))
        means = self.node_mean()
        deviation = means - np.einsum("rk,rkj->rj", self.weight, means)[:, None, :]
        between = np.einsum("rk,rki,rkj->rij", self.weight, deviation, deviation)
        return np.einsum("rk,kij->rij", self.weight, within) + between


@dataclass(frozen=True, eq=False)
class Normals:
    """Mixtures of normals that share their weights: targets (R, T), components K.

    Attributes
    ----------
    weight : ndarray (R, K)
        Rows sum to 1.
    location : ndarray (R, T, K)
        Means of the components, in the target's units.
    spread : ndarray (1 or R, T, K)
        Their sds.
    """

    weight: np.ndarray
    location: np.ndarray
    spread: np.ndarray

    def mean(self) -> np.ndarray:
        """Means, ndarray (R, T)."""
        return np.einsum("rk,rtk->rt", self.weight, self.location)

    def variance(self) -> np.ndarray:
        """Variances, ndarray (R, T)."""
        deviation = self.location - self.mean()[:, :, None]
        return np.einsum("rk,rtk->rt", self.weight, self.spread**2 + deviation**2)

    def sd(self) -> np.ndarray:
        """Standard deviations, ndarray (R, T)."""
        return np.sqrt(self.variance())

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """P(target ≤ x), `x` and result ndarray (R, T)."""
        return np.einsum("rk,rtk->rt", self.weight, ndtr((x[:, :, None] - self.location) / self.spread))

    def density(self, x: np.ndarray) -> np.ndarray:
        """Density at `x`, both ndarray (R, T)."""
        z = (x[:, :, None] - self.location) / self.spread
        return np.einsum("rk,rtk->rt", self.weight, np.exp(-0.5 * z**2) / self.spread) / np.sqrt(2 * np.pi)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density at `x`, both ndarray (R, T), safe in the far tails."""
        z = (x[:, :, None] - self.location) / self.spread
        terms = -0.5 * z**2 - np.log(self.spread) - 0.5 * _LOG_2_PI
        with np.errstate(divide="ignore"):
            return logsumexp(terms + np.log(self.weight)[:, None, :], axis=2)

    def quantiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Quantiles, ndarray (R, T, Q)."""
        count, targets, nodes = self.location.shape
        rows = NormalMixtures(
            np.repeat(self.weight, targets, axis=0),
            self.location.reshape(-1, nodes),
            np.broadcast_to(self.spread, self.location.shape).reshape(-1, nodes),
        )
        return rows.quantiles(np.asarray(probabilities)).reshape(count, targets, -1)


def predictor(spec: ModelSpec) -> np.ndarray:
    """Z, ndarray (J, p): a column of ones and the design."""
    structure = spec.structure
    return np.column_stack([np.ones(len(structure.units)), structure.design])


def tau_mixture(spec: ModelSpec, effect: np.ndarray | None = None) -> TauMixture:
    """The posterior of `spec`, or of many data sets with its standard errors.

    Parameters
    ----------
    spec : ModelSpec
        Normal likelihood and effects; normal or flat priors on the coefficients.
    effect : ndarray (R, J), optional
        Data sets, in the outcome's units; the spec's own by default (R = 1).

    Raises
    ------
    NotExactError
        The posterior is not Gaussian given τ.
    ImproperPosteriorError
        A flat prior that these data cannot make proper.
    """
    structure = spec.structure
    if not linear(spec):
        raise NotExactError(
            "weights and covariances given τ",
            "normal effects and errors with normal or flat priors on the coefficients",
            ", ".join(f"{name} ~ {prior.text}" for name, prior in spec.priors.items()),
            "Use the tables from draws instead.",
        )
    data = structure.effect[None] if effect is None else np.atleast_2d(np.asarray(effect, dtype=float))
    if structure.pooling == "none":
        return _unpooled(spec, data)
    if structure.pooling == "complete":
        return _conditioned(spec, data, np.zeros(1), np.zeros(1))
    return _integrated(spec, data)


def at_tau(spec: ModelSpec, tau: float) -> TauMixture:
    """The posterior given one value of τ, in the outcome's units."""
    return _conditioned(spec, spec.structure.effect[None], np.array([float(tau)]), np.zeros(1))


def leave_one_out(spec: ModelSpec) -> Normals:
    """Predictive distribution of every y_i given the others, rows (J, 1).

    Given τ the others' posterior is a rank-one downdate of the full one, and
    log p(y_−i | τ) = log p(y | τ) − log p(y_i | y_−i, τ): all units share one set of nodes.

    Raises
    ------
    NotExactError, ImproperPosteriorError
        As `tau_mixture`; also where the posterior without a unit is improper.
    """
    if not linear(spec) or spec.structure.pooling == "none":
        raise NotExactError("leave-one-out by downdating", "a pooled normal model", spec.structure.pooling)
    data = spec.structure.effect[None]
    if spec.structure.pooling == "complete":
        return _downdated(_conditioned(spec, data, np.zeros(1), np.zeros(1), prune=False))[0]
    # without a unit the same priors must still bound τ
    _panels(without(spec, 0), data[:, 1:])
    left, length, c = _panels(spec, data)
    lowest, before = left[0], None
    for _ in range(12):
        mixture, _ = _on_panels(spec, data, left, length, c, lowest, prune=False)
        rest, evidence = _downdated(mixture)
        if before is not None and np.abs(evidence - before).max() < _TOLERANCE:
            break
        before = evidence
        # an outlier's own prediction hangs on scales that the others all but exclude
        mass = np.maximum(rest.weight.max(axis=0), mixture.weight[0])
        heavy = mass.reshape(-1, 16).max(axis=1) > _NEGLIGIBLE
        left, length = _halved(left, length, np.flatnonzero(heavy))
    return rest


def _downdated(mixture: TauMixture) -> tuple[Normals, np.ndarray]:
    """Leave-one-out predictions on the mixture's nodes, and log p(y_−i) up to a constant, (J,)."""
    z, effect = mixture.predictor, mixture.effect[0]
    variance = mixture.spec.structure.se**2 + mixture.scale[:, None] ** 2
    reach = np.einsum("jp,kpq,jq->kj", z, mixture.covariance, z)
    share = reach / variance
    if (share > 1 - 1e-9).any():
        raise ImproperPosteriorError(
            "leave-one-out", "units enough to fit without each one", f"{len(effect)} units", "Add units."
        )
    location = (mixture.coefficient[0] @ z.T - share * effect) / (1 - share)
    spread = np.sqrt(variance + reach / (1 - share))
    log_own = -0.5 * ((effect - location) / spread) ** 2 - np.log(spread) - 0.5 * _LOG_2_PI
    # in logs: an outlier puts the others' whole posterior below the smallest float
    log_weight = mixture.log_weight[0][:, None] + mixture.log_evidence[0] - log_own
    evidence = logsumexp(log_weight, axis=0)
    weight = np.exp(log_weight - evidence)
    return Normals(weight.T, location.T[:, None, :], spread.T[:, None, :]), evidence


def fine_tau(spec: ModelSpec, cells: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Posterior masses of many narrow cells of τ, for quantiles of functions of τ.

    Returns
    -------
    tau, mass : ndarray (≤ cells,)
        Midpoints in the outcome's units, ascending, and masses that sum to 1.
    """
    coarse = tau_mixture(spec)
    c = spec.structure.typical_se
    low = np.arcsinh(max(spec.priors["tau"].support[0], 0.0) / c)
    high = min(np.arcsinh(spec.priors["tau"].support[1] / c), np.arcsinh(coarse.tau.max() / c) + 0.1)
    # squares crowd the cells at the lower end, where a prior may be singular
    place = (np.arange(cells) + 0.5) / cells
    v = low + (high - low) * place**2
    tau = c * np.sinh(v)
    log_measure = np.log(place) + np.log(np.cosh(v)) + spec.priors["tau"].log_density(tau)
    mixture = _conditioned(spec, spec.structure.effect[None], tau, log_measure)
    return mixture.tau, mixture.weight[0]


def log_likelihood_tau(spec: ModelSpec, tau: np.ndarray) -> np.ndarray:
    """Return log p(y | τ), everything else integrated out, at `tau` (outcome's units)."""
    return np.array([at_tau(spec, float(value)).log_evidence[0] for value in np.ravel(tau)])


def without(spec: ModelSpec, unit: int) -> ModelSpec:
    """The same model for all units but one; priors, constants and the design's scaling stay."""
    structure = spec.structure
    keep = np.arange(len(structure.units)) != unit
    rest = replace(
        structure,
        effect=structure.effect[keep],
        se=structure.se[keep],
        units=tuple(label for place, label in enumerate(structure.units) if place != unit),
        design=structure.design[keep],
    )
    return replace(spec, structure=rest, priors=dict(spec.priors), constants=dict(spec.constants))


def with_priors(spec: ModelSpec, **priors: Prior) -> ModelSpec:
    """The same model with some priors replaced."""
    return replace(spec, priors={**spec.priors, **priors}, constants=dict(spec.constants))


def _coefficient_priors(spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    names = ["mu"] + ["beta"] * len(spec.structure.columns)
    numbers = [spec.priors[name].numbers if spec.priors[name].proper else (0.0, np.inf) for name in names]
    return np.array([n[0] for n in numbers]), np.array([1 / n[1] ** 2 for n in numbers])


def _unpooled(spec: ModelSpec, effect: np.ndarray) -> TauMixture:
    prior, se = spec.priors["theta"], spec.structure.se
    mean, sd = prior.numbers if prior.proper else (0.0, np.inf)
    total = np.sqrt(se**2 + sd**2)
    evidence = (
        (-0.5 * ((effect - mean) / total) ** 2 - np.log(total) - 0.5 * _LOG_2_PI).sum(axis=1)
        if prior.proper
        else np.full(len(effect), np.nan)
    )
    return TauMixture(
        spec=spec,
        effect=effect,
        tau=np.array([sd]),
        scale=np.array([sd]),
        weight=np.ones((len(effect), 1)),
        log_weight=np.zeros((len(effect), 1)),
        coefficient=np.full((len(effect), 1, 1), mean),
        covariance=np.zeros((1, 1, 1)),
        pooling=(se**2 / total**2)[None],
        prior_mean=np.array([mean]),
        prior_precision=np.array([np.inf]),
        log_evidence=evidence,
    )


def _integrated(spec: ModelSpec, effect: np.ndarray) -> TauMixture:
    """Halve the panels that carry mass until neither evidence nor E[τ | y] of any data set moves."""
    left, length, c = _panels(spec, effect)
    lowest = left[0]
    coarse, panel = _on_panels(spec, effect, left, length, c, lowest)
    for _ in range(12):
        left, length = _halved(left, length, np.unique(panel))
        fine, panel = _on_panels(spec, effect, left, length, c, lowest)
        moved = np.abs(fine.log_evidence - coarse.log_evidence).max()
        scaled = [np.einsum("rk,k->r", m.weight, np.arcsinh(m.tau / c)) for m in (coarse, fine)]
        if max(moved, float(np.abs(scaled[0] - scaled[1]).max())) < _TOLERANCE:
            return coarse
        coarse = fine
    return fine


def _halved(left: np.ndarray, length: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The used panels and their neighbours, each cut in two.

    A neighbour may hold the flank of a peak that a wide panel steps over.
    """
    used = np.unique(np.clip(np.concatenate([used - 1, used, used + 1]), 0, len(left) - 1))
    half = length[used] / 2
    return np.stack([left[used], left[used] + half], axis=1).ravel(), np.repeat(half, 2)


def _panels(spec: ModelSpec, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Left ends and lengths of panels in v = asinh(τ/c), and c.

    v is linear below c and logarithmic above, so that the posterior of τ is about 1/√(2J) wide wherever
    it lies. Panels break where the prior or the scale does.
    """
    structure, prior = spec.structure, spec.priors["tau"]
    units = effect.shape[1]
    mean, precision = _coefficient_priors(spec)
    power = units - int((precision == 0).sum()) + min(prior.tail, 8.0)
    if power <= 0:
        raise ImproperPosteriorError(
            "posterior of tau",
            "data or priors that bound tau from above",
            f"{units} units under tau ~ {prior.text} and {(precision == 0).sum()} flat coefficients",
            "Use a proper prior on tau or on mu.",
        )
    lower, upper = max(prior.support[0], 0.0), prior.support[1]
    reference = mean[0] if precision[0] > 0 else np.median(effect, axis=1)[:, None]
    reach = max(float(np.abs(effect - reference).max()), structure.typical_se)
    c, width = structure.typical_se, 6 / np.sqrt(2 * units)
    if prior.proper:
        quartile = prior.distribution.ppf(np.array([0.25, 0.5, 0.75]))
        reach, c = max(reach, float(quartile[1])), min(c, float(quartile[1]))
        width = min(width, 4 * float(np.ptp(np.arcsinh(quartile[[0, 2]] / c))))
    upper = min(upper, reach * 10 ** min(16 / power, 16.0))
    breaks = [lower, upper]
    if structure.scale == "adaptive":
        threshold, slope = spec.constants["threshold"], spec.constants.get("slope", 2.0)
        breaks += [threshold + offset / slope for offset in range(-16, 17, 2)]
    edges = np.arcsinh(np.unique([b for b in breaks if lower <= b <= upper]) / c)
    cuts = [np.linspace(a, b, int(np.ceil((b - a) / width)) + 1)[:-1] for a, b in pairwise(edges)]
    left = np.concatenate([*cuts, edges[-1:]])
    return left[:-1], np.diff(left), c


def _on_panels(
    spec: ModelSpec,
    effect: np.ndarray,
    left: np.ndarray,
    length: np.ndarray,
    c: float,
    lowest: float,
    prune: bool = True,
) -> tuple[TauMixture, np.ndarray]:
    """The mixture on 16 Gauss–Legendre nodes per panel, and the panel of each node that was kept."""
    prior = spec.priors["tau"]
    place = np.broadcast_to((_NODES + 1) / 2, (len(left), 16)).copy()
    factor = np.broadcast_to(_WEIGHTS / 2, (len(left), 16)).copy()
    if prior.origin != 1 and left[0] == lowest:
        # (τ − lower)^(a−1) becomes a polynomial in w with τ − lower ∝ w^q, q·a a whole number
        q = np.ceil(2 * min(prior.origin, 4.0)) / min(prior.origin, 4.0)
        factor[0] *= q * place[0] ** (q - 1)
        place[0] = place[0] ** q
    v = (left[:, None] + length[:, None] * place).ravel()
    tau = c * np.sinh(v)
    log_measure = np.log((length[:, None] * factor).ravel()) + np.log(c * np.cosh(v))
    mixture = _conditioned(spec, effect, tau, log_measure + prior.log_density(tau), prune)
    return mixture, np.searchsorted(tau, mixture.tau) // 16


def _conditioned(
    spec: ModelSpec, effect: np.ndarray, tau: np.ndarray, log_prior: np.ndarray, prune: bool = True
) -> TauMixture:
    se, z = spec.structure.se, predictor(spec)
    mean, precision = _coefficient_priors(spec)
    scale = effect_scale(spec, tau)
    inverse = 1 / (se**2 + scale[:, None] ** 2)
    total = np.einsum("kj,jp,jq->kpq", inverse, z, z)
    information = total + np.diag(precision)
    if len(se) < z.shape[1] and (precision == 0).any():
        raise ImproperPosteriorError(
            "posterior of the coefficients", "more units than flat coefficients", f"{len(se)} units"
        )
    covariance = np.linalg.inv(information)
    # Data and prior means are centred first: large shifts would cost digits in the sums of squares.
    shift = effect.mean(axis=1)
    data = effect - shift[:, None]
    start = np.broadcast_to(mean, (len(effect), z.shape[1])).copy()
    start[:, 0] -= shift
    moment = np.einsum("rj,kj,jp->rkp", data, inverse, z, optimize=True)
    coefficient = np.einsum("kpq,rkq->rkp", covariance, moment + (precision * start)[:, None, :])
    if z.shape[1] == 1:
        # residual sum of squares about its own mean, plus the pull between that mean and the prior's
        sums = total[:, 0, 0]
        least = moment[:, :, 0] / sums
        square = data**2 @ inverse.T - sums * least**2
        square += precision[0] * sums / information[:, 0, 0] * (least - start[:, :1]) ** 2
    else:
        residual = data[:, None, :] - coefficient @ z.T
        square = np.einsum("rkj,kj->rk", residual**2, inverse)
        square += ((coefficient - start[:, None, :]) ** 2 * precision).sum(axis=2)
    constant = np.log(inverse).sum(axis=1) - np.linalg.slogdet(information)[1]
    constant += np.log(precision[precision > 0]).sum() - (len(se) - (precision == 0).sum()) * _LOG_2_PI
    log_weight = 0.5 * (constant - square) + log_prior
    evidence = logsumexp(log_weight, axis=1)
    weight = np.exp(log_weight - evidence[:, None])
    keep = weight.max(axis=0) > _NEGLIGIBLE if prune else np.ones(len(tau), dtype=bool)
    weight = weight[:, keep] / weight[:, keep].sum(axis=1, keepdims=True)
    coefficient[:, :, 0] += shift[:, None]
    return TauMixture(
        spec=spec,
        effect=effect,
        tau=tau[keep],
        scale=scale[keep],
        weight=weight,
        log_weight=log_weight[:, keep] - evidence[:, None],
        coefficient=coefficient[:, keep],
        covariance=covariance[keep],
        pooling=(se**2 * inverse)[keep],
        prior_mean=mean,
        prior_precision=precision,
        log_evidence=evidence,
    )
