"""The parts of a stand-alone script that belong to the two-level normal structure."""

from __future__ import annotations

from collections.abc import Iterator

from hbm_core.inference.sampler import Sampler
from hbm_core.models.pymc_model import data_share
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.report.pieces import listing, number, prior_line, text


def data(spec: ModelSpec) -> str:
    """Labels, effects, standard errors and covariates as Python source."""
    structure = spec.structure
    lines = [
        listing("units", map(text, structure.units)),
        "# Estimated effects and their standard errors, which count as known.",
        listing("effect", map(number, structure.effect), "np.array([", "], dtype=float)"),
        listing("se", map(number, structure.se), "np.array([", "], dtype=float)"),
    ]
    if structure.columns:
        rows = [f"    [{', '.join(map(number, row))}]," for row in structure.design]
        lines += [
            "# Covariates, standardised: one row per unit.",
            listing("columns", map(text, structure.columns)),
            "\n".join(["design = np.array([", *rows, "], dtype=float)"]),
        ]
    if spec.parameterization == "partial":
        lines += [
            "# From 0, non-centered, to 1, centered: the data's share of each effect's precision.",
            listing("share", map(number, data_share(structure)), "np.array([", "], dtype=float)"),
        ]
    return "\n".join(lines)


def coords(spec: ModelSpec) -> str:
    """Coordinates of the model as Python source."""
    return '{"unit": units, "column": columns}' if spec.structure.columns else '{"unit": units}'


def body(spec: ModelSpec) -> Iterator[str]:
    """Lines inside the model's context."""
    structure = spec.structure
    if structure.pooling == "none":
        yield "# No pooling: every unit has its own effect."
        yield prior_line("theta", spec.priors["theta"], "theta" in structure.positive, ', dims="unit"')
        yield _observed(structure, "theta", "se")
        return
    for name, prior in spec.priors.items():
        yield prior_line(name, prior, name in structure.positive, ', dims="column"' if name == "beta" else "")
    mean = "mu"
    if structure.columns:
        yield "mean = mu + design @ beta"
        mean = "mean"
    if structure.pooling == "complete":
        yield "# Complete pooling: the units differ by " + (
            "their covariates alone." if structure.columns else "noise alone, every effect is mu."
        )
        yield _observed(structure, mean, "se")
        return
    scale = "tau"
    if structure.scale == "adaptive":
        t, spread, slope = (repr(float(spec.constants[name])) for name in ("threshold", "spread", "slope"))
        yield "# The sd of the effects is a nonlinear function of tau: another prior, not another geometry."
        yield f"weight = pm.math.sigmoid({slope} * (tau - {t}))"
        yield f"blend = weight * tau + (1 - weight) * {spread} * tau / {t}"
        yield 'tau_star = pm.Deterministic("tau_star", blend)'
        scale = "tau_star"
    match spec.parameterization:
        case "collapsed":
            yield "# The effects are integrated out: normal plus normal is normal."
            yield _observed(structure, mean, f"np.sqrt(se**2 + {scale}**2)")
            return
        case "centered":
            yield _effects(structure, "theta", mean, scale)
        case "noncentered":
            yield "# Non-centered: standardised effects, then location and scale."
            yield _effects(structure, "eta", "0", "1")
            yield f'theta = pm.Deterministic("theta", {mean} + {scale} * eta, dims="unit")'
        case _:
            yield "# Partially centered: between the two, unit by unit."
            yield _effects(structure, "theta_tilde", f"share * {mean}", f"{scale}**share")
            yield f"offset = {scale} ** (1 - share) * (theta_tilde - share * {mean})"
            yield f'theta = pm.Deterministic("theta", {mean} + offset, dims="unit")'
    yield _observed(structure, "theta", "se")


def conditional(spec: ModelSpec, sampler: Sampler) -> str:
    """What draws the effects after a collapsed fit."""
    scale = "tau_star" if spec.structure.scale == "adaptive" else "tau"
    lines = [
        "# The effects given the hyperparameters are normal: one draw of each per draw of those.",
        'm = fit.posterior["mu"].values[..., None]',
        f't = fit.posterior["{scale}"].values[..., None]',
        "own = t**2 / (se**2 + t**2)",
        f"noise = np.random.default_rng({sampler.seed}).standard_normal(own.shape)",
        "theta = m + own * (effect - m) + se * np.sqrt(own) * noise",
        'theta = xr.DataArray(theta, dims=("chain", "draw", "unit"), coords={"unit": units})',
        "posterior = fit.posterior.to_dataset().assign(theta=theta)",
    ]
    if spec.structure.columns:
        lines[1] += ' + fit.posterior["beta"].values @ design.T'
    return "\n".join(lines)


def reported(spec: ModelSpec) -> list[str]:
    """Names of what the script prints."""
    names = list(spec.structure.parameters)
    if spec.structure.pooling == "partial":
        names += ["tau_star"] if spec.structure.scale == "adaptive" else []
        names.append("theta")
    return names


def _effects(structure: TwoLevelNormal, name: str, location: str, scale: str) -> str:
    family = 'StudentT("{}", nu=nu, ' if structure.effects == "student_t" else 'Normal("{}", '
    return f'{name} = pm.{family.format(name)}mu={location}, sigma={scale}, dims="unit")'


def _observed(structure: TwoLevelNormal, mean: str, sd: str) -> str:
    family = 'StudentT("y", nu=nu, ' if structure.likelihood == "student_t" else 'Normal("y", '
    return f'pm.{family}mu={mean}, sigma={sd}, observed=effect, dims="unit")'
