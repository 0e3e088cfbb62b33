"""A fit as a stand-alone PyMC script: the data in it, the model in plain PyMC, the same settings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from hbm_core.inference.recipes import recipe
from hbm_core.inference.sampler import CORES, Sampler
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.count_windows import CountWindows
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.hurdle import HurdleRevenue
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.report import (
    code_circuits,
    code_counts,
    code_gaussian_mixed,
    code_hurdle,
    code_three_level,
    code_two_level,
)

#: Target acceptance of a script that stands in for another engine.
_NUTS_TARGET = 0.95
#: What a script cannot reproduce, by engine.
_NOTES = {
    "blocked": (
        "The fit was made in blocks, circuits and their covariance in turn, which PyMC lacks: NUTS samples\n"
        "the same posterior here, and takes longer. Not reproduced: the draws themselves."
    ),
    "tempering": (
        "The fit was made by parallel tempering, which PyMC lacks: NUTS samples the same posterior here.\n"
        "Not reproduced: the draws themselves, the temperatures, the log evidence; and where the posterior\n"
        "has several modes, NUTS may stay in one."
    ),
}


def script(spec: ModelSpec[Any], sampler: Sampler, title: str, engine: str = "nuts") -> str:
    """Write a Python script that fits `spec` with PyMC and nutpie and prints ArviZ's summary.

    Parameters
    ----------
    spec : ModelSpec
        The model; its data and numbers are written into the script.
    sampler : Sampler
        The same settings and seed.
    title : str
        First line of the script's docstring; any text.
    engine : str
        That made the fit. PyMC has neither replica exchange nor blocks of a population: of a fit by those
        the script samples the same posterior with NUTS, and says what that does not reproduce.

    Returns
    -------
    str
        Source that runs with plain ``python`` where pymc, nutpie and arviz are installed.
    """
    parts_of = _parts(spec)
    notes = [_NOTES.get(engine, "")]
    if parts_of is code_counts and code_counts.by_quadrature(spec):
        spec = replace(spec, parameterization="centered")
        notes.append(code_counts.MOVED)
    collapsed = spec.parameterization == "collapsed"
    body = textwrap.indent("\n".join(parts_of.body(spec)), "    ")
    coords = parts_of.coords(spec)
    model = f"with pm.Model({f'coords={coords}' if coords else ''}) as model:\n{body}"
    if parts_of is code_circuits:
        notes.append(code_circuits.note(spec))
    head = _head(title, {"xr": collapsed, "pt": "pt." in body}, "\n\n".join(filter(None, notes)))
    head += getattr(parts_of, "IMPORTS", "")
    if engine in _NOTES:
        # The target of its own trajectories or walks means nothing to NUTS.
        sampler = replace(sampler, target_accept=_NUTS_TARGET)
    parts = [head, parts_of.data(spec), model, _sampling(spec, sampler)]
    if collapsed:
        parts.append(parts_of.conditional(spec, sampler))
    names = ", ".join(f'"{name}"' for name in parts_of.reported(spec))
    shown = "posterior" if collapsed else "fit"
    parts.append(f"print(az.summary({shown}, var_names=[{names}]).to_string())")
    return "\n\n".join(parts) + "\n"


def _parts(spec: ModelSpec[Any]) -> Any:
    if isinstance(spec.structure, CircuitPopulation):
        return code_circuits
    if isinstance(spec.structure, HurdleRevenue):
        return code_hurdle
    if isinstance(spec.structure, GaussianMixed):
        return code_gaussian_mixed
    if isinstance(spec.structure, CountWindows | BetaBinomial):
        return code_counts
    return code_three_level if isinstance(spec.structure, ThreeLevelNormal) else code_two_level


def _head(title: str, needs: Mapping[str, bool], note: str = "") -> str:
    # The title is anyone's text: nothing in it may end the docstring or the line.
    line = "".join(letter for letter in " ".join(title.split()) if letter.isprintable())
    line = line.replace("\\", "\\\\").replace('"', "'")
    made = ", ".join(f"{name} {version(name)}" for name in ("pymc", "nutpie", "arviz"))
    imports = "import arviz as az\nimport numpy as np\nimport nutpie\nimport pymc as pm"
    imports += "\nimport pytensor.tensor as pt" if needs["pt"] else ""
    imports += "\nimport xarray as xr" if needs["xr"] else ""
    about = f"Written for {made}.\n" + (f"\n{note}\n" if note else "")
    return f'"""{line or "A hierarchical model"}.\n\n{about}"""\n\n{imports}'


def _sampling(spec: ModelSpec[Any], sampler: Sampler) -> str:
    adaptation = recipe(spec).mass_matrix(spec)
    arguments = {
        "draws": sampler.draws,
        "tune": sampler.tune,
        "chains": sampler.chains,
        "cores": min(CORES, sampler.chains),
        "target_accept": sampler.target_accept,
        "seed": sampler.seed,
        **({} if adaptation == "diag" else {"adaptation": adaptation}),
        "save_warmup": False,
        "progress_bar": False,
    }
    return "fit = nutpie.sample(\n    nutpie.compile_pymc_model(model),\n" + _keywords(arguments) + ")"


def _keywords(arguments: Mapping[str, object]) -> str:
    return "".join(f"    {name}={value!r},\n" for name, value in arguments.items())
