"""The exact posterior of the two-level normal model.

Given the sd of the effects everything is Gaussian (Gelman et al., 2013, BDA3, section 5.4); one integral
over τ is left, taken on panels refined to rounding. A prior on μ that is neither normal nor flat adds a
second integral, over μ given τ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact.adaptive import AdaptiveScale
from hbm_core.inference.exact.base import Weights
from hbm_core.inference.exact.location import solve_location, solve_separate
from hbm_core.inference.exact.mixture import NormalMixtures
from hbm_core.inference.exact.posterior import (
    PanelMarginals,
    Part,
    ShiftedMixtures,
    TwoLevelPosterior,
    largest_gap,
    moment_notes,
    put_infinite,
)
from hbm_core.inference.exact.quadrature import SCAN, PanelDensity, panel_density
from hbm_core.inference.exact.regression import Given, Regression, Table
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

_SAMPLER = "Use --engine nuts, which samples this model."
#: Agreement of the two rules, in sds, at which the coarser one carries quantiles and densities.
_AGREE = 1e-9
_TAU = np.array([1])


def solve_two_level(spec: ModelSpec) -> TwoLevelPosterior:
    """The exact posterior of a two-level normal model with normal errors and normal effects.

    Raises
    ------
    ImproperPosteriorError
        The posterior has no finite mass.
    NotExactError
        No exact engine covers these priors.
    InputError
        A constant of the adaptive scale is missing or not positive.
    """
    structure = spec.structure
    if "student_t" in (structure.effects, structure.likelihood):
        raise NotExactError("model", "normal errors and normal effects", "Student t", _SAMPLER)
    names = names_of(structure)
    if structure.pooling == "none":
        return _separate(spec, names)
    slope = spec.priors.get("beta")
    if slope is not None and slope.family not in ("Normal", "Flat"):
        raise NotExactError("prior on beta", "Normal or Flat", slope.text, _SAMPLER)
    model, location = _regression(spec)
    tail = _tail_of_tau(spec, model)
    scale = _scale_of(spec)
    if spec.priors["mu"].family in ("Normal", "Flat"):
        return _gaussian(spec, names, model, location, tail, scale)

    def make_tau(log_likelihood: Callable[[np.ndarray], np.ndarray]) -> PanelDensity | None:
        return _density_of_tau(spec, log_likelihood, tail) if structure.pooling == "partial" else None

    return solve_location(spec, names, model, location, tail, scale, make_tau)


def names_of(structure: TwoLevelNormal) -> tuple[str, ...]:
    """Flat parameter names in the order of `ExactPosterior`."""
    names: list[str] = []
    if structure.pooling != "none":
        names.append("mu")
        if structure.pooling == "partial":
            names.append("tau")
        names.extend(f"beta[{column}]" for column in structure.columns)
    names.extend(f"theta[{unit}]" for unit in structure.units)
    return tuple(names)


def _regression(spec: ModelSpec) -> tuple[Regression, float]:
    """The Gaussian part of a model, and the location that was taken off its effects.

    A prior on μ that is neither normal nor flat is left out: flat.
    """
    structure = spec.structure
    table = Table.of(structure.effect, structure.se, SCAN)
    columns, location = len(structure.columns), table.location
    mean, precision = np.zeros(1 + columns), np.zeros(1 + columns)
    for name, part in (("mu", slice(0, 1)), ("beta", slice(1, None))):
        prior = spec.priors.get(name)
        if prior is not None and prior.family == "Normal":
            mean[part] = prior.numbers[0] - (location if name == "mu" else 0.0)
            precision[part] = prior.numbers[1] ** -2.0
    design = np.hstack([table.design, structure.design]) if columns else table.design
    return Regression(table.effect, table.se, design, mean, precision), location


def _tail_of_tau(spec: ModelSpec, model: Regression) -> float:
    """b, where the posterior density of τ falls as τ^(-b - 1); infinite for thinner tails.

    The likelihood of τ falls as τ^(-J), one power less for every flat coefficient.

    Raises
    ------
    ImproperPosteriorError
        Flat coefficients that the units cannot tell apart, or b ≤ 0.
    """
    flat = model.precision == 0
    if spec.priors["mu"].family not in ("Normal", "Flat"):
        flat = flat & (np.arange(flat.size) > 0)
    count, units = int(np.count_nonzero(flat)), model.se.size
    if count > 1 and np.linalg.matrix_rank(model.design[:, flat]) < count:
        raise ImproperPosteriorError(
            "flat priors on mu and beta",
            f"units that tell {count} coefficients apart",
            f"{units} units with linearly dependent columns",
            "Give beta a Normal prior, or leave out a covariate.",
        )
    if spec.structure.pooling != "partial":
        return np.inf
    prior = spec.priors["tau"]
    if prior.tail + units - count <= 0:
        coefficients = "a flat prior on mu" if count == 1 else f"{count} flat coefficients"
        raise ImproperPosteriorError(
            "prior on tau",
            f"at least {int(count - prior.tail) + 1} units under {prior.text}"
            + (f" and {coefficients}" if count else ""),
            f"{units}, for which the posterior has infinite mass at large tau",
            "Give tau a proper prior such as HalfNormal" + (", or mu a Normal one." if count else "."),
        )
    return float(prior.tail + units - count)


def _scale_of(spec: ModelSpec) -> AdaptiveScale | None:
    """The map from τ to the sd of the effects; None where it is τ itself."""
    if spec.structure.scale != "adaptive":
        return None
    numbers = []
    for name in ("threshold", "spread", "slope"):
        value = spec.constants.get(name)
        if value is None or not (np.isfinite(value) and value > 0):
            raise InputError(f"constant {name} of the adaptive scale", "a positive number", value)
        numbers.append(float(value))
    return AdaptiveScale(*numbers)


def _density_of_tau(
    spec: ModelSpec,
    log_likelihood: Callable[[np.ndarray], np.ndarray],
    tail: float,
    tabulated: np.ndarray | None = None,
) -> PanelDensity:
    """The posterior density of τ from its prior and log p(y | τ).

    `tabulated`: log p(y | τ) at the scales of the data's table.
    """
    prior = spec.priors["tau"]
    numbers, log_prior = prior.numbers, prior.declared.log_density

    def log_density(tau: np.ndarray) -> np.ndarray:
        return log_prior(tau, *numbers) + log_likelihood(tau)

    lower, upper = max(prior.support[0], 0.0), prior.support[1]
    table = Table.of(spec.structure.effect, spec.structure.se, SCAN)
    scan = None
    if tabulated is not None and lower == 0.0 and np.isinf(upper):
        scan = log_prior(table.t, *numbers) + tabulated
    return panel_density(log_density, (lower, upper), table.scale, prior.origin, tail, scan)


def _gaussian(
    spec: ModelSpec,
    names: tuple[str, ...],
    model: Regression,
    location: float,
    tail: float,
    scale: AdaptiveScale | None,
) -> TwoLevelPosterior:
    """Normal or flat μ and β: mixtures of normals over τ."""
    q, units = model.precision.size, model.se.size
    proper = all(prior.proper for prior in spec.priors.values())
    shift = np.zeros(q + units)
    shift[0] = shift[q:] = location
    at = scale or _identity

    def sample(tau: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return model.draw(at(tau), generator)

    if spec.structure.pooling == "complete":
        nothing = np.zeros(1)
        given = model.given(nothing)
        single = NormalMixtures(np.ones(1), *model.components(nothing, given))
        mean, sd = single.moments()
        weights = model.weights(given)
        return TwoLevelPosterior(
            spec,
            names,
            (mean + shift, sd),
            largest_gap((mean, sd), (mean, sd), location),
            (Part(np.arange(q + units), ShiftedMixtures(single, shift)),),
            sample=sample,
            location=location,
            log_evidence=float(given.log_likelihood[0]) if proper else None,
            ledger=lambda: (None, Weights(weights.own[0], weights.others[0], weights.prior[0])),
        )

    last: list[tuple[np.ndarray, Given]] = []

    def log_likelihood(tau: np.ndarray) -> np.ndarray:
        given = model.given(at(tau))
        last[:] = [(tau, given)]
        return given.log_likelihood

    table = Table.of(spec.structure.effect, spec.structure.se, SCAN)
    tabulated = model.tabulated(table) if q == 1 and scale is None else None
    tau = _density_of_tau(spec, log_likelihood, tail, tabulated)
    nodes = tau.nodes.ravel()
    # Most often the last nodes that were evaluated are all there are.
    given = last[0][1] if np.array_equal(nodes, last[0][0]) else model.given(at(nodes))
    means, sds = model.components(at(nodes), given)
    rows = means.shape[0]
    # Moments by both rules in one product, about the means by the fine one.
    centers = means @ tau.rules.T
    spread = means - centers[:, :1]
    square = (spread * spread + sds * sds) @ tau.rules.T
    deviations = np.sqrt(np.abs(square - (centers - centers[:, :1]) ** 2))
    mean, sd = np.empty((2, rows + 1)), np.empty((2, rows + 1))
    mean[:, :1], mean[:, 2:] = centers[:1].T, centers[1:].T
    sd[:, :1], sd[:, 2:] = deviations[:1].T, deviations[1:].T
    (mean[0, 1], sd[0, 1]), (mean[1, 1], sd[1, 1]) = tau.moments(), tau.half_moments()
    places = _places_beside_tau(rows)
    flat = model.precision == 0
    if flat.any():
        for place in np.flatnonzero(flat):
            put_infinite(mean[0], sd[0], tail, int(places[place]))
    errors = largest_gap((mean[0], sd[0]), (mean[1], sd[1]), location)
    mean[0, 0] += location
    mean[0, q + 1 :] += location
    # The half rule carries the marginals where both agree: fewer components, same quantiles.
    rule = 1 if errors[0] < _AGREE and tail > 2 else 0
    shares = tau.rules[rule]
    used = shares.nonzero()[0]
    mixtures = NormalMixtures(
        shares[used],
        means.take(used, axis=1),
        sds.take(used, axis=1),
        (centers[:, rule], deviations[:, rule]),
    )

    def ledger() -> tuple[np.ndarray, Weights]:
        weights, fine = model.weights(given), tau.rules[0]
        return fine @ given.pooling, Weights(fine @ weights.own, fine @ weights.others, fine @ weights.prior)

    return TwoLevelPosterior(
        spec,
        names,
        (mean[0], sd[0]),
        errors,
        (
            Part(places, ShiftedMixtures(mixtures, shift)),
            Part(_TAU, PanelMarginals((tau,))),
        ),
        sample=sample,
        location=location,
        tau=tau,
        notes=moment_notes(tau=tail, mu=tail if flat[0] else np.inf, beta=tail if flat[1:].any() else np.inf),
        log_evidence=tau.log_total if proper else None,
        ledger=ledger,
        conditional=lambda grid: model.conditional(grid, _on_grid(scale, grid), location),
        scale=scale,
    )


@cache
def _places_beside_tau(rows: int) -> np.ndarray:
    """Places of all parameters but τ, which is in second place."""
    return np.concatenate([[0], np.arange(2, rows + 1)])


def _identity(tau: np.ndarray) -> np.ndarray:
    return tau


def _on_grid(scale: AdaptiveScale | None, tau: np.ndarray) -> np.ndarray:
    finite = np.isfinite(tau)
    return tau if scale is None else np.where(finite, scale(np.where(finite, tau, 1.0)), np.inf)


def _separate(spec: ModelSpec, names: tuple[str, ...]) -> TwoLevelPosterior:
    """No pooling: θ_i independent, each with the prior on theta."""
    structure, prior = spec.structure, spec.priors["theta"]
    if structure.columns:
        raise NotExactError("model without pooling", "no covariates", ", ".join(structure.columns), _SAMPLER)
    if prior.family not in ("Normal", "Flat"):
        return solve_separate(spec, names)
    y, s, units = structure.effect, structure.se, structure.effect.size
    center, precision = (prior.numbers[0], prior.numbers[1] ** -2.0) if prior.proper else (0.0, 0.0)
    share = precision / (precision + s**-2.0)
    mean, sd = y + share * (center - y), 1 / np.sqrt(precision + s**-2.0)
    evidence = None
    if prior.proper:
        variance = s**2 + prior.numbers[1] ** 2
        evidence = float(-0.5 * (np.log(2 * np.pi * variance) + (y - center) ** 2 / variance).sum())

    def sample(tau: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return np.empty((tau.size, 0)), mean + sd * generator.standard_normal((tau.size, units))

    mixtures = NormalMixtures(np.ones(1), np.zeros((units, 1)), sd[:, None])
    return TwoLevelPosterior(
        spec,
        names,
        (mean, sd),
        largest_gap((mean, sd), (mean, sd)),
        (Part(np.arange(units), ShiftedMixtures(mixtures, mean)),),
        sample=sample,
        log_evidence=evidence,
        ledger=lambda: (None, Weights(1 - share, np.zeros(units), share)),
    )
