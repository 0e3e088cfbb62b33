"""What intervals promise: a simulation lab through the exact engines, and calibration by simulation.

A hierarchical interval covers 95 % averaged over the population and over the prior on its hyperparameters,
not at each fixed θ_i and not at each fixed τ. The tables here show both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hbm_core.analysis.batched import linear, tau_mixture
from hbm_core.analysis.predictive import pooled_mean, prior_predictive
from hbm_core.analysis.spread import Spread, in_turn
from hbm_core.errors import InputError, NotExactError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

LEVELS = (0.5, 0.8, 0.9, 0.95)
#: Estimators that need no prior.
CLASSICAL = ("none", "complete", "eb")
_CHUNK = 400_000
#: Data sets per part of a calibration.
_BLOCK = 5
_SEPARATION = 0.3


@dataclass(frozen=True)
class Truth:
    """How a simulated world makes its data.

    Parameters
    ----------
    se : tuple of float
        Standard errors that the estimators are told, in the outcome's units.
    mu, tau : float or Prior
        Mean and sd of the effects, or the distribution they are drawn from in each replication.
    effects : {"normal", "student_t", "clusters"}
        Shape of the effects around μ, always with sd τ: normal; Student t with `nu` degrees of freedom;
        two clusters of equal size, 0.3 τ wide each.
    nu : float
        Degrees of freedom of "student_t", above 2.
    se_factor : float
        The errors' true sd is `se_factor` × se.

    Raises
    ------
    InputError
        Numbers out of their bounds, or an improper prior.
    """

    se: tuple[float, ...]
    mu: float | Prior = 0.0
    tau: float | Prior = 10.0
    effects: Literal["normal", "student_t", "clusters"] = "normal"
    nu: float = 4.0
    se_factor: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "se", tuple(float(value) for value in self.se))
        if not self.se or not all(np.isfinite(value) and value > 0 for value in self.se):
            raise InputError("standard errors of the simulation", "positive finite numbers", self.se)
        if self.effects not in ("normal", "student_t", "clusters"):
            raise InputError("shape of the effects", "normal, student_t or clusters", repr(self.effects))
        if not self.nu > 2:
            raise InputError("degrees of freedom of the effects", "a number above 2", self.nu)
        if not (np.isfinite(self.se_factor) and self.se_factor > 0):
            raise InputError("factor on the standard errors", "a positive number", self.se_factor)
        for name, value in (("mu", self.mu), ("tau", self.tau)):
            if isinstance(value, Prior):
                if not value.proper:
                    raise InputError(f"distribution of {name}", "a proper distribution", value.text)
            elif not np.isfinite(value) or (name == "tau" and value < 0):
                raise InputError(f"true {name}", "a finite number, not negative for tau", value)

    def simulate(self, replications: int, seed: int) -> dict[str, np.ndarray]:
        """Draw worlds: mu (R,), tau (R,), theta (R, J), effect (R, J), in the outcome's units."""
        rng = np.random.default_rng(seed)
        shape = (replications, len(self.se))

        def hyper(value: float | Prior) -> np.ndarray:
            if isinstance(value, Prior):
                return np.asarray(value.distribution.rvs(size=replications, random_state=rng), dtype=float)
            return np.full(replications, float(value))

        mu, tau = hyper(self.mu), hyper(self.tau)
        noise = rng.standard_normal(shape)
        if self.effects == "student_t":
            noise *= np.sqrt((self.nu - 2) / rng.chisquare(self.nu, shape))
        elif self.effects == "clusters":
            side = rng.choice([-1.0, 1.0], shape)
            noise = _SEPARATION * noise + np.sqrt(1 - _SEPARATION**2) * side
        theta = mu[:, None] + tau[:, None] * noise
        effect = theta + self.se_factor * np.array(self.se) * rng.standard_normal(shape)
        return {"mu": mu, "tau": tau, "theta": theta, "effect": effect}


@dataclass(frozen=True, eq=False)
class Estimate:
    """Point estimates and central intervals of R data sets.

    Attributes
    ----------
    point : ndarray (R, J)
        In the outcome's units.
    low, high : ndarray (R, J, L)
        Ends of the intervals, one per level.
    """

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray


def estimate(
    name: str,
    effect: np.ndarray,
    se: np.ndarray,
    priors: Mapping[str, Prior] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Estimate:
    """One estimator on many data sets with the same standard errors.

    Parameters
    ----------
    name : str
        "none": y ± z s. "complete": precision-weighted mean ± z (Σ 1/s²)^−½. "eb": plug-in empirical
        Bayes, θ_i given μ̂ and the REML estimate of τ, as if both were known. Anything else: partial
        pooling under `priors`.
    effect : ndarray (R, J)
        In the outcome's units.
    se : ndarray (J,)
        In the outcome's units.
    priors : mapping, optional
        Priors on mu and tau for partial pooling.
    levels : sequence of float
        Probabilities of the central intervals.
    """
    se, z = np.asarray(se, dtype=float), ndtri((1 + np.asarray(levels)) / 2)
    match name:
        case "none":
            return _symmetric(effect, np.broadcast_to(se, effect.shape), z)
        case "complete":
            center = pooled_mean(effect, se)[:, None] * np.ones(effect.shape)
            return _symmetric(center, np.full(effect.shape, (1 / se**2).sum() ** -0.5), z)
        case "eb":
            tau = reml_tau(effect, se)[:, None]
            weight = 1 / (se**2 + tau**2)
            center = ((weight * effect).sum(axis=1) / weight.sum(axis=1))[:, None]
            pooling = se**2 * weight
            return _symmetric(pooling * center + (1 - pooling) * effect, se * np.sqrt(1 - pooling), z)
    if priors is None:
        raise InputError("estimator", "one of " + ", ".join(CLASSICAL) + " or a name with priors", repr(name))
    return _bayes(effect, se, priors, np.asarray(levels))


def reml_tau(effect: np.ndarray, se: np.ndarray) -> np.ndarray:
    """REML estimate of τ per data set, by a grid and golden sections around its best cell.

    Parameters
    ----------
    effect : ndarray (R, J)
        In the outcome's units.
    se : ndarray (J,)
        In the outcome's units.

    Returns
    -------
    ndarray (R,)
        In the outcome's units; 0 where the likelihood falls from the boundary.
    """
    top = np.arcsinh(3 * np.abs(effect - effect.mean(axis=1)[:, None]).max(axis=1) / se.min() + 1)
    share = np.linspace(0, 1, 41)
    height = np.stack([_restricted(effect, se, se.min() * np.sinh(top * s)) for s in share])
    best = height.argmax(axis=0)
    low, high = top * share[np.maximum(best - 1, 0)], top * share[np.minimum(best + 1, 40)]
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(45):
        left, right = high - golden * (high - low), low + golden * (high - low)
        rising = _restricted(effect, se, se.min() * np.sinh(left)) < _restricted(
            effect, se, se.min() * np.sinh(right)
        )
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    tau = se.min() * np.sinh((low + high) / 2)
    return np.where(tau < 1e-6 * se.min(), 0.0, tau)


def coverage_study(
    truth: Truth,
    priors: Mapping[str, Mapping[str, Prior]],
    estimators: Sequence[str] = (*CLASSICAL, "partial"),
    replications: int = 1000,
    seed: int = 42,
    levels: Sequence[float] = LEVELS,
    bins: Sequence[str] | None = None,
    groupings: Sequence[str] = ("all", "precision", "selection", "distance"),
    spread: Spread = in_turn,
    progress: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """Simulate, estimate, compare with the truth.

    Parameters
    ----------
    truth : Truth
        The world.
    priors : mapping of str to mapping
        Partial-pooling estimators by name, each with its priors on mu and tau.
    estimators : sequence of str
        "none", "complete", "eb"; "partial" stands for every name in `priors`.
    replications, seed : int
        Data sets, and the seed that makes them.
    levels : sequence of float
        Probabilities of the central intervals.
    bins : sequence of str, optional
        A label per unit for the grouping "precision"; thirds of the standard errors by default.
    groupings : sequence of str
        "all"; "precision": by `bins`; "selection": the unit with the largest raw effect, and the top
        tenth; "distance": thirds of the true |θ_i − μ| within a replication.
    spread : Spread
        Computes the parts of the study; the numbers do not depend on it.
    progress : callable, optional
        Called with the share done.

    Returns
    -------
    DataFrame
        One row per estimator, grouping, bin and level: estimator, grouping, bin, level, replications,
        units (units × replications behind the row); mse, rmse, mae, bias, width, interval_score in the
        outcome's units (mse: squared); coverage, a fraction; each followed by its Monte-Carlo standard
        error ``<name>_se``, replications being the independent draws. interval_score is Gneiting and
        Raftery's (2007, JASA 102, section 6.2): width plus 2/α times the miss.
    """
    if int(replications) < 2:
        raise InputError("replications", "a whole number of at least 2", replications)
    world, se = truth.simulate(int(replications), seed), np.array(truth.se)
    # a Mapping may be anything; what travels is plain
    plain = {name: dict(prior) for name, prior in priors.items()}
    names = [n for e in estimators for n in (plain if e == "partial" else (e,))]
    # data sets of similar spread share their nodes: far fewer of them per part
    alike = np.argsort(world["effect"].std(axis=1), kind="stable")
    size = max(1, _CHUNK // (len(se) * 80))
    chunks = [alike[start : start + size] for start in range(0, len(alike), size)]
    jobs = [
        (
            {name: values[chunk] for name, values in world.items()},
            se,
            {name: plain.get(name) for name in names},
            tuple(levels),
            bins,
            tuple(groupings),
        )
        for chunk in chunks
    ]
    sums: dict[_Key, Moments] = {}
    for done, found in enumerate(spread(_study_part, jobs), start=1):
        for key, moments in found.items():
            sums[key] = sums[key] + moments if key in sums else moments
        if progress is not None:
            progress(done / len(jobs))
    groups = list(dict.fromkeys(key[1:3] for key in sums))
    rows = []
    for name in names:
        for grouping, label in groups:
            at = sums[name, grouping, label, None]
            point = at.columns(("mse", "mae", "bias"))
            rmse = np.sqrt(point["mse"])
            point["rmse"] = rmse
            point["rmse_se"] = point["mse_se"] / (2 * rmse) if rmse > 0 else 0.0
            for level in levels:
                interval = sums[name, grouping, label, level].columns(("coverage", "width", "interval_score"))
                key = {
                    "estimator": name,
                    "grouping": grouping,
                    "bin": label,
                    "level": level,
                    "replications": int(replications),
                    "units": at.units,
                }
                rows.append(key | point | interval)
    measures = ["mse", "rmse", "mae", "bias", "coverage", "width", "interval_score"]
    order = [column for measure in measures for column in (measure, f"{measure}_se")]
    return pd.DataFrame(rows)[["estimator", "grouping", "bin", "level", "replications", "units", *order]]


#: Estimator, grouping, bin, and level (None: what does not depend on it).
_Key = tuple[str, str, str, float | None]


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of some measures over replications; they add.

    Attributes
    ----------
    count, units : int
        Replications, and the units in them, behind the figures.
    mean, square : ndarray (measures,)
        Means over replications of each one's mean over its units, and sums of squares around them.
    """

    count: int
    units: int
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, values: Sequence[np.ndarray], mask: np.ndarray) -> Moments:
        """Those of arrays (R, J) where the mask (R, J) holds."""
        count = mask.sum(axis=1)
        used = count > 0
        each = np.stack([np.where(mask, value, 0.0).sum(axis=1)[used] / count[used] for value in values])
        mean = each.mean(axis=1) if used.any() else np.zeros(len(each))
        return cls(int(used.sum()), int(count.sum()), mean, ((each - mean[:, None]) ** 2).sum(axis=1))

    def __add__(self, other: Moments) -> Moments:
        """Those of both together (Chan, Golub and LeVeque 1983, The American Statistician 37)."""
        count = self.count + other.count
        apart, share = other.mean - self.mean, other.count / max(count, 1)
        return Moments(
            count,
            self.units + other.units,
            self.mean + apart * share,
            self.square + other.square + apart**2 * (self.count * share),
        )

    def columns(self, names: Sequence[str]) -> dict[str, float]:
        """Means with their Monte-Carlo standard errors; NaN where there is nothing to average."""
        none = np.full(len(names), np.nan)
        mean = self.mean if self.count else none
        error = np.sqrt(self.square / (self.count - 1) / self.count) if self.count > 1 else none
        found = {}
        for place, name in enumerate(names):
            found[name], found[f"{name}_se"] = float(mean[place]), float(error[place])
        return found


def _study_part(
    world: Mapping[str, np.ndarray],
    se: np.ndarray,
    priors: Mapping[str, Mapping[str, Prior] | None],
    levels: Sequence[float],
    bins: Sequence[str] | None,
    groupings: Sequence[str],
) -> dict[_Key, Moments]:
    """Every estimator on some of a study's data sets."""
    theta = world["theta"]
    masks = _groups(world, se, bins, groupings)
    sums: dict[_Key, Moments] = {}
    for name, prior in priors.items():
        found = estimate(name, world["effect"], se, prior, levels)
        miss = found.point - theta
        for group, mask in masks.items():
            sums[name, *group, None] = Moments.of((miss**2, np.abs(miss), miss), mask)
        for place, level in enumerate(levels):
            low, high = found.low[:, :, place], found.high[:, :, place]
            below, above = np.maximum(low - theta, 0), np.maximum(theta - high, 0)
            # an exact hit on the edge, as with a zero-width interval at the truth, is covered
            inside = ((theta >= low) & (theta <= high)).astype(float)
            score = high - low + 2 / (1 - level) * (below + above)
            for group, mask in masks.items():
                sums[name, *group, level] = Moments.of((inside, high - low, score), mask)
    return sums


def coverage_by_tau(
    se: Sequence[float],
    priors: Mapping[str, Mapping[str, Prior]],
    taus: Sequence[float] = (0.0, 5.0, 10.0, 20.0),
    replications: int = 1000,
    seed: int = 42,
    levels: Sequence[float] = (0.95,),
) -> pd.DataFrame:
    """What partial pooling promises: coverage at fixed τ, and averaged over its own prior.

    Where τ is fixed, μ is fixed too, at its prior mean; otherwise both are drawn from the priors.

    Returns
    -------
    DataFrame
        The rows of `coverage_study` (grouping "all") with two columns in front: world ("τ = 10" or
        "τ from its prior") and tau (the fixed value in the outcome's units, NaN where drawn).
    """
    parts = []
    for name, prior in priors.items():
        worlds: list[tuple[str, float, float | Prior]] = [(f"τ = {t:g}", float(t), float(t)) for t in taus]
        if prior["tau"].proper and prior["mu"].proper:
            worlds.append(("τ from its prior", np.nan, prior["tau"]))
        for label, value, tau in worlds:
            center = float(prior["mu"].distribution.mean()) if prior["mu"].proper else 0.0
            truth = Truth(se=tuple(se), mu=prior["mu"] if isinstance(tau, Prior) else center, tau=tau)
            part = coverage_study(
                truth, {name: prior}, ("partial",), replications, seed, levels, groupings=("all",)
            )
            part.insert(0, "tau", value)
            part.insert(0, "world", label)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


@lru_cache(maxsize=64)
def uniform_threshold(replications: int, quantities: int, false_alarm: float = 0.01) -> float:
    """What `uniformity`'s statistic exceeds with probability at most `false_alarm` under uniform ranks.

    By 20,000 simulated sets of ranks (fewer beyond 1,000 replications), fixed seed; `quantities`
    dependent rank sets share the false-alarm rate (Bonferroni).
    """
    rng = np.random.default_rng(20_240_501)
    simulations = int(min(20_000, 20_000_000 // replications + 1))
    level = false_alarm / quantities
    if level * simulations < 10:
        simulations = int(10 / level)
    block = max(1, 4_000_000 // replications)
    found = [
        _ecdf_statistic(rng.random((min(block, simulations - start), replications)))
        for start in range(0, simulations, block)
    ]
    return float(np.quantile(np.concatenate(found), 1 - level))


def uniformity(pit: pd.DataFrame | np.ndarray, false_alarm: float = 0.01) -> dict[str, Any]:
    """Whether ranks are uniform: the ECDF against a simultaneous band.

    The statistic is the largest standardised ECDF difference max_z |F̂(z) − z| / √(z(1 − z)/R) over
    99 evenly spaced z and over the quantities; its threshold is the band's half width (Säilynoja,
    Bürkner and Vehtari 2022, Statistics and Computing 32:32).

    Parameters
    ----------
    pit : DataFrame or ndarray (R, quantities)
        Ranks in [0, 1].
    false_alarm : float
        Probability of failing a calibrated posterior.

    Returns
    -------
    dict
        passed, replications, statistic, threshold, worst (name or place of the worst quantity).
    """
    values = np.asarray(pit, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    statistic = _ecdf_statistic(values.T)
    threshold = uniform_threshold(values.shape[0], values.shape[1], false_alarm)
    worst = int(statistic.argmax())
    return {
        "passed": bool(statistic.max() <= threshold),
        "replications": values.shape[0],
        "statistic": float(statistic.max()),
        "threshold": threshold,
        "worst": pit.columns[worst] if isinstance(pit, pd.DataFrame) else worst,
    }


def ecdf_band(pit: pd.DataFrame, false_alarm: float = 0.01) -> pd.DataFrame:
    """ECDF differences with their simultaneous band, for drawing.

    Returns
    -------
    DataFrame
        parameter, z, difference (F̂(z) − z), low, high (the band), all fractions.
    """
    threshold = uniform_threshold(len(pit), pit.shape[1], false_alarm)
    z = np.arange(1, 100) / 100
    half = threshold * np.sqrt(z * (1 - z) / len(pit))
    parts = [
        pd.DataFrame(
            {
                "parameter": name,
                "z": z,
                "difference": np.searchsorted(np.sort(pit[name].to_numpy()), z, side="right") / len(pit) - z,
                "low": -half,
                "high": half,
            }
        )
        for name in pit.columns
    ]
    return pd.concat(parts, ignore_index=True)


def rank_histogram(pit: pd.DataFrame, bins: int = 20) -> pd.DataFrame:
    """Counts of ranks per bin with the pointwise 99 % binomial range.

    Returns
    -------
    DataFrame
        parameter, bin_low, bin_high (fractions), count, expected, low, high (counts).
    """
    from scipy.stats import binom

    low, high = binom.ppf([0.005, 0.995], len(pit), 1 / bins)
    edges = np.linspace(0, 1, bins + 1)
    parts = [
        pd.DataFrame(
            {
                "parameter": name,
                "bin_low": edges[:-1],
                "bin_high": edges[1:],
                "count": np.histogram(pit[name], edges)[0],
                "expected": len(pit) / bins,
                "low": low,
                "high": high,
            }
        )
        for name in pit.columns
    ]
    return pd.concat(parts, ignore_index=True)


def sbc_pit(
    spec: ModelSpec,
    replications: int = 200,
    seed: int = 42,
    fitted: ModelSpec | None = None,
    units: int | None = 8,
    solver: Callable[[ModelSpec], ExactPosterior] = solve,
    progress: Callable[[float], None] | None = None,
    spread: Spread = in_turn,
) -> pd.DataFrame:
    """Posterior probabilities below the truth, one row per simulated data set.

    Draws parameters from the priors and data from the model, solves, and reads the posterior distribution
    function of each parameter at its true value: the limit of the rank statistic of Talts et al. (2018,
    arXiv:1804.06788) for infinitely many draws. Uniform if and only if the posterior is right on average.

    Parameters
    ----------
    spec : ModelSpec
        The model that makes the data; its own effects are not used.
    replications, seed : int
        Data sets, and the seed that makes them.
    fitted : ModelSpec, optional
        Another model to fit instead: what a wrong posterior looks like.
    units : int, optional
        At most so many θ_i, evenly spaced; None for all.
    solver : callable
        ``ModelSpec -> ExactPosterior``.
    progress : callable, optional
        Called with the share done.
    spread : Spread
        Computes the parts; the numbers do not depend on it.

    Returns
    -------
    DataFrame (replications, quantities)
        Columns are parameter names.
    """
    model = fitted or spec
    labels = spec.structure.units
    step = 1 if units is None else max(1, -(-len(labels) // units))
    world = prior_predictive(spec, replications, seed)
    structure: Any = spec.structure
    truths = _flat_truths(structure.hyperparameters, world)
    for place in range(0, len(labels), step):
        truths[f"theta[{labels[place]}]"] = world["theta"][:, place]
    plain = replace(model, priors=dict(model.priors), constants=dict(model.constants))
    blocks = [slice(start, start + _BLOCK) for start in range(0, replications, _BLOCK)]
    jobs = [
        (plain, world["effect"][b], {name: value[b] for name, value in truths.items()}, solver)
        for b in blocks
    ]
    parts = []
    for done, found in enumerate(spread(_pit_part, jobs), start=1):
        parts.append(found)
        if progress is not None:
            progress(done / len(jobs))
    return pd.DataFrame({name: np.concatenate([found[name] for found in parts]) for name in parts[0]})


def _flat_truths(names: Sequence[str], world: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drawn parameters by their flat names; entries of a vector stand in the order of its names."""
    found: dict[str, np.ndarray] = {}
    seen: dict[str, int] = {}
    for name in names:
        head, _, label = name.partition("[")
        if head in world:
            found[name] = world[head][:, seen.get(head, 0)] if label else world[head]
            seen[head] = seen.get(head, 0) + 1
    return found


def _pit_part(
    model: ModelSpec,
    effect: np.ndarray,
    truths: Mapping[str, np.ndarray],
    solver: Callable[[ModelSpec], ExactPosterior],
) -> dict[str, np.ndarray]:
    """Posterior probabilities below the truth of some data sets."""
    found: dict[str, list[float]] = {}
    for r, row in enumerate(effect):
        posterior = solver(_with_effect(model, row))
        for name, value in truths.items():
            if name in posterior.names:
                rank = float(np.ravel(posterior.cdf(name, np.array([value[r]])))[0])
                found.setdefault(name, []).append(rank)
    return {name: np.array(ranks) for name, ranks in found.items()}


def sbc(
    spec: ModelSpec,
    replications: int = 200,
    seed: int = 42,
    fitted: ModelSpec | None = None,
    false_alarm: float = 0.01,
    **options: Any,
) -> dict[str, Any]:
    """Simulation-based calibration of an exact engine.

    Returns
    -------
    dict
        passed, replications, statistic, threshold, worst: see `uniformity`.
    """
    return uniformity(sbc_pit(spec, replications, seed, fitted, **options), false_alarm)


def _with_effect(spec: ModelSpec, effect: np.ndarray) -> ModelSpec:
    structure: Any = spec.structure
    structure = replace(structure, **{structure.measured: effect})
    return replace(spec, structure=structure, priors=dict(spec.priors), constants=dict(spec.constants))


def _symmetric(point: np.ndarray, sd: np.ndarray, z: np.ndarray) -> Estimate:
    half = sd[:, :, None] * z
    return Estimate(point, point[:, :, None] - half, point[:, :, None] + half)


def _bayes(effect: np.ndarray, se: np.ndarray, priors: Mapping[str, Prior], levels: np.ndarray) -> Estimate:
    units = tuple(str(place) for place in range(len(se)))
    spec = ModelSpec(TwoLevelNormal(effect[0], se, units), priors)
    if not linear(spec):
        raise NotExactError(
            "partial pooling in the simulation lab",
            "a normal or flat prior on mu",
            priors["mu"].text,
            "Choose a normal prior on mu.",
        )
    tails = np.concatenate([(1 - levels) / 2, (1 + levels) / 2])
    # data sets of similar spread share their nodes: far fewer of them per chunk
    order = np.argsort(effect.std(axis=1), kind="stable")
    size = max(1, _CHUNK // (len(se) * 80))
    point, ends = np.empty(effect.shape), np.empty((*effect.shape, len(tails)))
    for start in range(0, len(effect), size):
        chunk = order[start : start + size]
        theta = tau_mixture(spec, effect[chunk]).theta()
        point[chunk] = theta.mean()
        ends[chunk] = theta.quantiles(tails)
    return Estimate(point, ends[:, :, : len(levels)], ends[:, :, len(levels) :])


def _restricted(effect: np.ndarray, se: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Restricted log-likelihood of τ per data set, up to a constant."""
    weight = 1 / (se**2 + tau[:, None] ** 2)
    total = weight.sum(axis=1)
    center = (weight * effect).sum(axis=1) / total
    square = (weight * (effect - center[:, None]) ** 2).sum(axis=1)
    return 0.5 * (np.log(weight).sum(axis=1) - np.log(total) - square)


def _groups(
    world: Mapping[str, np.ndarray], se: np.ndarray, bins: Sequence[str] | None, groupings: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
    """Masks (R, J) of what each row averages over."""
    effect, units = world["effect"], len(se)
    masks: dict[tuple[str, str], np.ndarray] = {}
    if "all" in groupings:
        masks["all", "all"] = np.ones(effect.shape, dtype=bool)
    if "precision" in groupings and (bins is not None or units >= 3):
        if bins is None:
            third = np.argsort(np.argsort(se, kind="stable"), kind="stable") * 3 // units
            bins = [("most precise third", "middle third", "least precise third")[t] for t in third]
        if len(bins) != units:
            raise InputError("bins", f"one label per unit ({units})", len(bins))
        for label in dict.fromkeys(bins):
            masks["precision", label] = np.broadcast_to(np.array([b == label for b in bins]), effect.shape)
    if "selection" in groupings and units >= 2:
        place = np.argsort(np.argsort(-effect, axis=1), axis=1)
        masks["selection", "largest raw effect"] = place == 0
        if units >= 20:
            masks["selection", "top tenth by raw effect"] = place < units // 10
    if "distance" in groupings and units >= 3:
        distance = np.abs(world["theta"] - world["mu"][:, None])
        third = np.argsort(np.argsort(distance, axis=1), axis=1) * 3 // units
        for t, label in enumerate(("nearest the mean", "middle", "farthest from the mean")):
            masks["distance", label] = third == t
    return masks


def _ecdf_statistic(values: np.ndarray) -> np.ndarray:
    """Largest standardised ECDF difference of each row, ndarray (rows,)."""
    rows, count = values.shape
    z = np.arange(1, 100) / 100
    # bins closed on the right: value ≤ z, as the ECDF counts
    cell = np.clip(np.ceil(values * 100 - 1e-9).astype(int) - 1, 0, 99)
    place = (cell + 100 * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(place, minlength=100 * rows).reshape(rows, 100)
    difference = counts.cumsum(axis=1)[:, :99] / count - z
    return np.abs(difference / np.sqrt(z * (1 - z) / count)).max(axis=1)
