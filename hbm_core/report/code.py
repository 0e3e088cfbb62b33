"""A fit as a stand-alone PyMC script: the data in it, the model in plain PyMC, the same settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from importlib.metadata import version

import numpy as np

from hbm_core.inference.nuts import CORES
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_model import data_share
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

_WIDTH = 100


def script(spec: ModelSpec, sampler: Sampler, title: str) -> str:
    """Write a Python script that fits `spec` with PyMC and nutpie and prints ArviZ's summary.

    Parameters
    ----------
    spec : ModelSpec
        The model; its data and numbers are written into the script.
    sampler : Sampler
        The same settings and seed.
    title : str
        First line of the script's docstring; any text.

    Returns
    -------
    str
        Source that runs with plain ``python`` where pymc, nutpie and arviz are installed.
    """
    collapsed = spec.parameterization == "collapsed"
    parts = [_head(title, collapsed), _data(spec), _model(spec), _sampling(sampler)]
    if collapsed:
        parts.append(_conditional(spec, sampler))
    names = ", ".join(f'"{name}"' for name in _reported(spec))
    shown = "posterior" if collapsed else "fit"
    parts.append(f"print(az.summary({shown}, var_names=[{names}]).to_string())")
    return "\n\n".join(parts) + "\n"


def _head(title: str, collapsed: bool) -> str:
    # The title is anyone's text: nothing in it may end the docstring or the line.
    line = "".join(letter for letter in " ".join(title.split()) if letter.isprintable())
    line = line.replace("\\", "\\\\").replace('"', "'")
    made = ", ".join(f"{name} {version(name)}" for name in ("pymc", "nutpie", "arviz"))
    imports = "import arviz as az\nimport numpy as np\nimport nutpie\nimport pymc as pm"
    imports += "\nimport xarray as xr" if collapsed else ""
    return f'"""{line or "A hierarchical model"}.\n\nWritten for {made}.\n"""\n\n{imports}'


def _data(spec: ModelSpec) -> str:
    structure = spec.structure
    lines = [
        _listing("units", map(_text, structure.units)),
        "# Estimated effects and their standard errors, which count as known.",
        _listing("effect", map(_number, structure.effect), "np.array([", "], dtype=float)"),
        _listing("se", map(_number, structure.se), "np.array([", "], dtype=float)"),
    ]
    if structure.columns:
        rows = [f"    [{', '.join(map(_number, row))}]," for row in structure.design]
        lines += [
            "# Covariates, standardised: one row per unit.",
            _listing("columns", map(_text, structure.columns)),
            "\n".join(["design = np.array([", *rows, "], dtype=float)"]),
        ]
    if spec.parameterization == "partial":
        lines += [
            "# From 0, non-centered, to 1, centered: the data's share of each effect's precision.",
            _listing("share", map(_number, data_share(structure)), "np.array([", "], dtype=float)"),
        ]
    return "\n".join(lines)


def _model(spec: ModelSpec) -> str:
    structure = spec.structure
    coords = '{"unit": units, "column": columns}' if structure.columns else '{"unit": units}'
    body = list(_body(spec))
    return f"with pm.Model(coords={coords}) as model:\n" + textwrap.indent("\n".join(body), "    ")


def _body(spec: ModelSpec) -> Iterable[str]:
    structure = spec.structure
    if structure.pooling == "none":
        yield "# No pooling: every unit has its own effect."
        yield _prior("theta", spec.priors["theta"], structure, ', dims="unit"')
        yield _observed(structure, "theta", "se")
        return
    for name, prior in spec.priors.items():
        yield _prior(name, prior, structure, ', dims="column"' if name == "beta" else "")
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


def _prior(name: str, prior: Prior, structure: TwoLevelNormal, dims: str) -> str:
    family = "HalfFlat" if name in structure.positive and not prior.proper else prior.family
    pairs = zip(prior.declared.numbers, prior.numbers, strict=True)
    # With the point: PyTensor holds 300 in 16 bits, and some of PyMC's densities square it there.
    numbers = "".join(f", {number.name}={value!r}" for number, value in pairs)
    return f'{name} = pm.{family}("{name}"{numbers}{dims})'


def _effects(structure: TwoLevelNormal, name: str, location: str, scale: str) -> str:
    family = 'StudentT("{}", nu=nu, ' if structure.effects == "student_t" else 'Normal("{}", '
    return f'{name} = pm.{family.format(name)}mu={location}, sigma={scale}, dims="unit")'


def _observed(structure: TwoLevelNormal, mean: str, sd: str) -> str:
    family = 'StudentT("y", nu=nu, ' if structure.likelihood == "student_t" else 'Normal("y", '
    return f'pm.{family}mu={mean}, sigma={sd}, observed=effect, dims="unit")'


def _sampling(sampler: Sampler) -> str:
    arguments = {
        "draws": sampler.draws,
        "tune": sampler.tune,
        "chains": sampler.chains,
        "cores": min(CORES, sampler.chains),
        "target_accept": sampler.target_accept,
        "seed": sampler.seed,
        "save_warmup": False,
        "progress_bar": False,
    }
    return "fit = nutpie.sample(\n    nutpie.compile_pymc_model(model),\n" + _keywords(arguments) + ")"


def _conditional(spec: ModelSpec, sampler: Sampler) -> str:
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


def _reported(spec: ModelSpec) -> list[str]:
    names = list(spec.structure.parameters)
    if spec.structure.pooling == "partial":
        names += ["tau_star"] if spec.structure.scale == "adaptive" else []
        names.append("theta")
    return names


def _keywords(arguments: Mapping[str, object]) -> str:
    return "".join(f"    {name}={value!r},\n" for name, value in arguments.items())


def _listing(name: str, items: Iterable[str], opening: str = "[", closing: str = "]") -> str:
    """``name = [items]``, wrapped where it is too long for a line."""
    listed = list(items)
    line = f"{name} = {opening}{', '.join(listed)}{closing}"
    if len(line) <= _WIDTH:
        return line
    rows, row = [], ""
    for item in listed:
        if row and len(row) + len(item) + 6 > _WIDTH:
            rows.append(row)
            row = ""
        row = f"{row} {item}," if row else f"    {item},"
    return "\n".join([f"{name} = {opening}", *rows, row, closing])


def _text(label: str) -> str:
    """A string literal for any label."""
    plain = label.isprintable() and not set(label) & {'"', "\\"}
    return f'"{label}"' if plain else repr(label)


def _number(value: float) -> str:
    """Shortest digits that read back as the same number."""
    text = repr(float(np.float64(value)))
    return text.removesuffix(".0")
