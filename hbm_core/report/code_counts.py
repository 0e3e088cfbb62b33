"""The parts of a stand-alone script that belong to structures of counts and of successes.

Each likelihood is written with one term per window, as one would write the model at first: the same
posterior as by sufficient statistics, only slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hbm_core.inference.sampler import Sampler
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.structure import ModelSpec
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts
from hbm_core.report.pieces import listing, number, prior_line, text

Spec = ModelSpec[Any]
#: Said of rates that a fit integrates out by a rule of its own.
MOVED = (
    "The fit integrated the rates out by quadrature, for which PyMC has no words: NUTS moves them here.\n"
    "The posterior is the same, the draws themselves are not."
)


def by_quadrature(spec: Spec) -> bool:
    """Whether rates were integrated out that have no closed form."""
    return spec.parameterization == "collapsed" and "phi" in spec.structure.parameters


def _array(name: str, values: Any, whole: bool = False) -> str:
    items = (str(int(value)) for value in values) if whole else map(number, values)
    return listing(name, items, "np.array([", "])")


def data(spec: Spec) -> str:
    """Labels, counts, entities and what else each window has, as Python source."""
    structure = spec.structure
    lines = [listing("units", map(text, structure.units))]
    if isinstance(structure, BetaBinomial):
        lines += [
            _array("successes", structure.successes, True),
            _array("trials", structure.trials, True),
        ]
        return "\n".join(lines)
    # The drift goes from window to window, so each entity's stand side by side.
    order = structure.order if isinstance(structure, DriftingCounts) else slice(None)
    lines += [
        "# One row per window: its count, the entity's place, and the exposure.",
        _array("count", structure.count[order], True),
        _array("entity", structure.entity[order], True),
        _array("exposure", structure.exposure[order]),
    ]
    if isinstance(structure, CovariateCounts):
        rows = ("[" + ", ".join(map(number, row)) + "]" for row in structure.design)
        lines += [
            "# Standardised covariates.",
            listing("design", rows, "np.array([", "])"),
            listing("columns", map(text, structure.columns)),
        ]
    if isinstance(structure, DriftingCounts):
        lines += ["# 0, 1, 2 … along each entity's windows.", _array("step", structure.step, True)]
    if isinstance(structure, JointCounts):
        measured = [value == value for value in structure.volume]
        lines += [
            "# Bytes where they were measured, and of which windows.",
            _array("volume", structure.volume[measured]),
            _array("measured", [place for place, here in enumerate(measured) if here], True),
        ]
    return "\n".join(lines)


def coords(spec: Spec) -> str:
    """Coordinates of the model as Python source."""
    if spec.parameterization == "collapsed":
        return ""
    if isinstance(spec.structure, CovariateCounts):
        return '{"unit": units, "column": columns}'
    return '{"unit": units}'


def body(spec: Spec) -> Iterator[str]:
    """Lines inside the model's context."""
    structure = spec.structure
    for name, prior in spec.priors.items():
        if name == "corr":
            eta = number(prior.numbers[0])
            yield "# In two dimensions LKJ is a beta distribution, stretched to (-1, 1)."
            yield f'corr = pm.Deterministic("corr", 2 * pm.Beta("corr_share", {eta}, {eta}) - 1)'
        else:
            dims = ', dims="column"' if name == "beta" else ""
            yield prior_line(name, prior, name in structure.positive, dims)
    if isinstance(structure, BetaBinomial):
        yield from _successes(spec)
    elif isinstance(structure, JointCounts):
        yield from _joint(spec)
    else:
        yield from _counts(spec)


def _counts(spec: Spec) -> Iterator[str]:
    structure = spec.structure
    shape, rate = "mu * alpha", "alpha"
    if isinstance(structure, GammaCounts) and structure.effects == "mean_scaled":
        shape, rate = "alpha", "alpha / mu"
    if spec.parameterization == "collapsed":
        yield "# Rates are integrated out: a negative multinomial per entity."
        yield "total = np.bincount(entity, count)"
        yield "total_exposure = np.bincount(entity, exposure)"
        yield f"shape, rate = {shape}, {rate}"
        yield "after = shape + total"
        yield "own = shape * pt.log(rate) - pt.gammaln(shape) + pt.gammaln(after)"
        yield 'pm.Potential("marginal", pt.sum(own - after * pt.log(rate + total_exposure)))'
        return
    if spec.parameterization == "scaled":
        yield "# Scaled: standard gamma variates, divided by the rate of the population."
        yield f'z = pm.Gamma("z", {shape}, 1.0, dims="unit")'
        yield f'theta = pm.Deterministic("theta", z / ({rate}), dims="unit")'
    else:
        yield f'theta = pm.Gamma("theta", {shape}, {rate}, dims="unit")'
    mean = "theta[entity] * exposure"
    if isinstance(structure, CovariateCounts):
        mean += " * pt.exp(pt.dot(design, beta))"
    if isinstance(structure, DriftingCounts):
        yield from _walk(spec)
        mean += " * pt.exp(drift)"
    yield f"mean = {mean}"
    if isinstance(structure, ZeroInflatedCounts):
        yield "# PyMC's psi is the share of windows that are open."
        yield 'pm.ZeroInflatedNegativeBinomial("y", psi=1 - psi, mu=mean, alpha=phi, observed=count)'
    elif "phi" in structure.parameters:
        yield 'pm.NegativeBinomial("y", mu=mean, alpha=phi, observed=count)'
    else:
        yield 'pm.Poisson("y", mean, observed=count)'


def _walk(spec: Spec) -> Iterator[str]:
    yield "fresh = pt.sqrt(1 - rho**2)"
    yield "sd = sigma_drift * pt.where(step == 0, 1.0, fresh)"
    yield 'pm.Deterministic("sigma_innovation", sigma_drift * fresh)'
    if spec.parameterization == "noncentered":
        yield "# Each round doubles how far back the sum of what the windows added reaches."
        yield 'drift = sd * pm.Normal("innovation", 0.0, 1.0, shape=len(count))'
        yield "factor = rho"
        yield f"for back in {[2**k for k in range(spec.structure.doublings)]}:"
        yield "    earlier = pt.concatenate([pt.zeros(back), drift[:-back]])"
        yield "    drift = drift + factor * (step >= back) * earlier"
        yield "    factor = factor**2"
        return
    yield "# Centered: the log rates themselves, with the density of the walk."
    yield 'level = pm.Flat("level", shape=len(count))'
    yield "drift = level - pt.log(theta)[entity]"
    yield "before = pt.concatenate([pt.zeros(1), drift[:-1]]) * (step > 0)"
    yield "away = (drift - rho * before) / sd"
    yield 'pm.Potential("walk", pt.sum(-0.5 * away**2 - pt.log(sd)))'


def _joint(spec: Spec) -> Iterator[str]:
    yield "rest = pt.sqrt(1 - corr**2)"
    if spec.parameterization == "noncentered":
        yield "# Non-centered: standardised, then location, scale and correlation."
        yield 'z_count = pm.Normal("z_count", 0.0, 1.0, dims="unit")'
        yield 'z_bytes = pm.Normal("z_bytes", 0.0, 1.0, dims="unit")'
        yield "log_rate = mu_count + sigma_count * z_count"
        yield "log_bytes = mu_bytes + sigma_bytes * (corr * z_count + rest * z_bytes)"
    else:
        yield 'log_rate = pm.Normal("log_rate", mu_count, sigma_count, dims="unit")'
        yield "given = mu_bytes + sigma_bytes * corr * (log_rate - mu_count) / sigma_count"
        yield 'log_bytes = pm.Normal("log_bytes", given, sigma_bytes * rest, dims="unit")'
    yield 'theta = pm.Deterministic("theta", pt.exp(log_rate), dims="unit")'
    yield 'pm.Deterministic("theta_bytes", pt.exp(log_bytes), dims="unit")'
    yield 'pm.NegativeBinomial("y", mu=theta[entity] * exposure, alpha=phi, observed=count)'
    yield "level = (log_bytes[entity] + np.log(exposure))[measured]"
    yield 'pm.LogNormal("bytes", level, sigma_window, observed=volume)'


def _successes(spec: Spec) -> Iterator[str]:
    match spec.parameterization:
        case "collapsed":
            yield "# Rates are integrated out."
            yield 'pm.BetaBinomial("y", mu * kappa, (1 - mu) * kappa, trials, observed=successes)'
            return
        case "noncentered":
            yield "# Non-centered: log odds from those of mu, in about their own sds."
            yield "a, b = mu * kappa, (1 - mu) * kappa"
            yield "spread = pt.sqrt(1 / a + 1 / b + 0.5 * (a**-2.0 + b**-2.0))"
            yield 'z = pm.Flat("z", dims="unit")'
            yield "odds = pt.log(a / b) + spread * z"
            yield 'theta = pm.Deterministic("theta", pm.math.sigmoid(odds), dims="unit")'
            yield "density = pm.logp(pm.Beta.dist(a, b), theta) + pt.log(spread * theta * (1 - theta))"
            yield 'pm.Potential("effects_density", pt.sum(density))'
        case _:
            yield 'theta = pm.Beta("theta", mu * kappa, (1 - mu) * kappa, dims="unit")'
    yield 'pm.Binomial("y", trials, theta, observed=successes)'


def conditional(spec: Spec, sampler: Sampler) -> str:
    """What draws the rates after a collapsed fit."""
    structure = spec.structure
    lines = [
        "# Rates given the population are known: one draw of each per draw.",
        f"rng = np.random.default_rng({sampler.seed})",
        "values = {name: fit.posterior[name].values[..., None] for name in fit.posterior.data_vars}",
    ]
    if isinstance(structure, BetaBinomial):
        lines += [
            'wins = values["mu"] * values["kappa"] + successes',
            'losses = (1 - values["mu"]) * values["kappa"] + trials - successes',
            "theta = rng.beta(wins, losses)",
        ]
    else:
        shape, rate = 'values["mu"] * values["alpha"]', 'values["alpha"]'
        if structure.effects == "mean_scaled":
            shape, rate = 'values["alpha"]', 'values["alpha"] / values["mu"]'
        lines += [f"shape = {shape} + total", f"theta = rng.gamma(shape, 1 / ({rate} + total_exposure))"]
    lines += [
        "posterior = fit.posterior.to_dataset().assign(",
        '    theta=xr.DataArray(theta, dims=("chain", "draw", "unit"), coords={"unit": units}),',
        ")",
    ]
    return "\n".join(lines)


def reported(spec: Spec) -> list[str]:
    """Names of what the script prints."""
    structure = spec.structure
    more = []
    if isinstance(structure, DriftingCounts):
        more = ["sigma_innovation"]
    elif isinstance(structure, JointCounts):
        more = ["theta_bytes"]
    return [*structure.parameters, *more, "theta"]
