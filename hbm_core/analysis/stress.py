"""Stress tests: change one assumption at a time and see what moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from hbm_core.analysis.batched import with_priors, without
from hbm_core.analysis.shrinkage import pooling_ledger, shrinkage_table
from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec

#: Priors on τ for the sensitivity grid, in SAT points.
PRIOR_GRID = tuple(
    Prior.parse(text)
    for text in (
        "HalfNormal(2)",
        "HalfNormal(5)",
        "HalfNormal(10)",
        "HalfCauchy(5)",
        "HalfCauchy(25)",
        "Uniform(0, 50)",
    )
)
#: Thresholds of `adaptive`, in SAT points.
THRESHOLDS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0)

Solver = Callable[[ModelSpec], ExactPosterior]


@dataclass(frozen=True, eq=False)
class Stress:
    """A stress test's result: numbers, and curves to overlay.

    Attributes
    ----------
    table : DataFrame
        One row per variant and parameter: variant, parameter, mean, sd, q0.025, q0.25, q0.5, q0.75,
        q0.975 (outcome's units; infinite moments as such), shift (difference of means from the model as it
        is, in its posterior sds; NaN where either is infinite).
    densities : DataFrame
        variant, parameter, x (outcome's units), density (per unit of x).
    notes : tuple of str
        Variants that could not be computed, and why.
    """

    table: pd.DataFrame
    densities: pd.DataFrame
    notes: tuple[str, ...] = ()


def prior_sensitivity(
    spec: ModelSpec,
    priors: Sequence[Prior] = PRIOR_GRID,
    factor: float = 1.0,
    solver: Solver = solve,
    points: int = 201,
) -> Stress:
    """The posterior under other priors on τ, beside the model's own.

    Parameters
    ----------
    spec : ModelSpec
        The model; its own prior is the variant "as it is".
    priors : sequence of Prior
        The grid, in SAT points.
    factor : float
        How much larger a typical spread of these data is than a SAT point's (1 for the eight schools).
    solver : callable
        ``ModelSpec -> ExactPosterior``.
    points : int
        Of each density.

    Raises
    ------
    InputError
        The model has no τ.
    """
    if "tau" not in spec.priors:
        raise InputError("prior sensitivity", "a model with tau", "parameters " + ", ".join(spec.priors))
    variants: dict[str, ModelSpec] = {f"{spec.priors['tau'].text} (as it is)": spec}
    for prior in priors:
        scaled = prior.scaled(factor)
        if scaled != spec.priors["tau"]:
            variants[scaled.text] = with_priors(spec, tau=scaled)
    return _compared(variants, solver, points)


def threshold_grid(
    spec: ModelSpec,
    thresholds: Sequence[float] = THRESHOLDS,
    factor: float = 1.0,
    solver: Solver = solve,
    points: int = 201,
) -> Stress:
    """The adaptive model under other thresholds.

    Returns
    -------
    Stress
        Variants "t = 1" … and "t = 3 (as it is)"; the densities also hold parameter ``tau_star``, the
        sd of the effects that the model really uses, and its induced prior ``tau_star prior``. Where the
        map τ → τ* folds, as at t = 1 for σ_p = 4, its branches are summed.

    Raises
    ------
    InputError
        The model is not adaptive.
    """
    if spec.structure.scale != "adaptive":
        raise InputError("threshold grid", "the adaptive model", f"scale {spec.structure.scale}")
    own = spec.constants["threshold"]
    variants = {f"t = {own:g} (as it is)": spec}
    for threshold in thresholds:
        if not np.isclose(threshold * factor, own):
            constants = {**spec.constants, "threshold": threshold * factor}
            variants[f"t = {threshold * factor:g}"] = replace(
                spec, priors=dict(spec.priors), constants=constants
            )
    found = _compared(variants, solver, points)
    curves = []
    for name, variant in variants.items():
        posterior: Any = solver(variant)
        if not hasattr(posterior, "induced_posterior_density"):
            continue
        x = np.linspace(0, 4 * spec.structure.typical_se, 4 * points)[1:]
        for parameter, density in (
            ("tau_star", posterior.induced_posterior_density(x)),
            ("tau_star prior", posterior.induced_prior_density(x)),
        ):
            curves.append(pd.DataFrame({"variant": name, "parameter": parameter, "x": x, "density": density}))
    return replace(found, densities=pd.concat([found.densities, *curves], ignore_index=True))


def leave_one_unit_out(spec: ModelSpec, solver: Solver = solve) -> pd.DataFrame:
    """How μ, τ and the rest move when one unit is left out, priors fixed.

    Returns
    -------
    DataFrame
        left_out, parameter, mean, sd (without the unit, outcome's units), shift (difference of means from
        the full fit, in the full fit's posterior sds; NaN where infinite).
    """
    if len(spec.structure.units) < 2:
        raise InputError("leaving one unit out", "at least two units", len(spec.structure.units))
    full = solver(spec)
    base = pd.DataFrame({"mean": full.mean, "sd": full.sd}, index=list(full.names))
    parts = []
    for place, label in enumerate(spec.structure.units):
        try:
            rest = solver(without(spec, place))
        except ImproperPosteriorError:
            continue
        part = pd.DataFrame({"parameter": list(rest.names), "mean": rest.mean, "sd": rest.sd})
        part.insert(0, "left_out", label)
        part["shift"] = _shift(part, base)
        parts.append(part)
    if not parts:
        raise InputError("leaving one unit out", "priors that bear fewer units", "improper without any unit")
    return pd.concat(parts, ignore_index=True)


def break_the_shrinkage(spec: ModelSpec, posterior: ExactPosterior) -> pd.DataFrame:
    """E[B_i], displacement and realised fraction against s_i: one is a law, two are not.

    Returns
    -------
    DataFrame
        unit, se (outcome's units), measure ("E[B]", "displacement", "realised fraction"), value (the
        displacement's size, outcome's units; others fractions), law (bool: must rise with s),
        rank_correlation (Spearman's, of the measure with s; NaN where constant).
    """
    ledger, structure = pooling_ledger(spec, posterior), spec.structure
    moved = shrinkage_table(spec, posterior)
    student = "student_t" in (structure.effects, structure.likelihood)
    measures = {
        "E[B]": (ledger["pooling"].to_numpy(), structure.pooling == "partial" and not student),
        "displacement": (moved["displacement"].abs().to_numpy(), False),
        "realised fraction": (moved["realised"].to_numpy(), False),
    }
    parts = []
    for name, (values, law) in measures.items():
        parts.append(
            pd.DataFrame(
                {
                    "unit": list(structure.units),
                    "se": structure.se,
                    "measure": name,
                    "value": values,
                    "law": law,
                    "rank_correlation": _rank_correlation(structure.se, values),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def power_scaling(tree: Any, spec: ModelSpec, names: Sequence[str] = ("mu", "tau")) -> pd.DataFrame:
    """Prior and likelihood sensitivity by power scaling, from draws, through ArviZ.

    The hyperpriors are scaled (their log density is computed from `spec` where the fit kept none) and the
    likelihood with θ integrated out (Kallioinen et al. 2024, Statistics and Computing 34:57).

    Returns
    -------
    DataFrame
        parameter, prior, likelihood (sensitivities, no units; 0.05 is the usual bound), diagnosis (words).

    Raises
    ------
    InputError
        The fit keeps no log-likelihood.
    """
    import logging

    import xarray as xr
    from arviz_stats import psense_summary

    if "log_likelihood" not in tree.children:
        raise InputError("power scaling", "a fit with its log-likelihood", "none kept")
    logging.getLogger("arviz_stats").setLevel(logging.ERROR)
    posterior = tree["posterior"].to_dataset()
    present = [name for name in names if name in posterior]
    scaled = [name for name in ("mu", "tau", "nu", "beta") if name in posterior and name in spec.priors]
    log_prior = xr.Dataset(
        {
            name: (posterior[name].dims, spec.priors[name].log_density(posterior[name].to_numpy()))
            for name in scaled
        },
        coords={"chain": posterior["chain"], "draw": posterior["draw"]},
    )
    arranged = xr.DataTree.from_dict(
        {
            "posterior": posterior[present],
            "log_prior": log_prior,
            "log_likelihood": tree["log_likelihood"].to_dataset(),
        }
    )
    found = psense_summary(arranged, var_names=present, round_to=6)
    words = {"✓": "neither prior nor data dominate"}
    return pd.DataFrame(
        {
            "parameter": found.index.astype(str),
            "prior": found["prior"].to_numpy(dtype=float),
            "likelihood": found["likelihood"].to_numpy(dtype=float),
            "diagnosis": [words.get(text, text) for text in found["diagnosis"]],
        }
    )


def _compared(variants: Mapping[str, ModelSpec], solver: Solver, points: int) -> Stress:
    """Solve the variants; the first is the base."""
    solved: dict[str, ExactPosterior] = {}
    notes = []
    for name, variant in variants.items():
        try:
            solved[name] = solver(variant)
        except (ImproperPosteriorError, NotExactError) as error:
            notes.append(f"{name}: {error}")
    if not solved:
        raise InputError("stress test", "at least one variant that can be solved", "; ".join(notes))
    summaries = {name: posterior.summary(hdi=False) for name, posterior in solved.items()}
    base = next(iter(summaries.values()))
    tables, curves = [], []
    # one grid per parameter for all variants, wide enough for the widest
    low = pd.DataFrame({name: s["q0.025"] - (s["q0.5"] - s["q0.025"]) for name, s in summaries.items()}).min(
        axis=1
    )
    high = pd.DataFrame({name: s["q0.975"] + (s["q0.975"] - s["q0.5"]) for name, s in summaries.items()}).max(
        axis=1
    )
    for name, summary in summaries.items():
        table = summary.reset_index()
        table.insert(0, "variant", name)
        table["shift"] = _shift(table, base)
        tables.append(table)
        for parameter in summary.index:
            lowest = 0.0 if parameter in ("tau", "nu") else float(low[parameter])
            x = np.linspace(lowest, float(high[parameter]), points)
            density = solved[name].density(str(parameter), x)
            curves.append(pd.DataFrame({"variant": name, "parameter": parameter, "x": x, "density": density}))
    return Stress(
        pd.concat(tables, ignore_index=True), pd.concat(curves, ignore_index=True), notes=tuple(notes)
    )


def _shift(table: pd.DataFrame, base: pd.DataFrame) -> np.ndarray:
    names = table["parameter"].tolist()
    center, sd = base["mean"].reindex(names).to_numpy(), base["sd"].reindex(names).to_numpy()
    usable = np.isfinite(center) & np.isfinite(sd) & np.isfinite(table["mean"].to_numpy()) & (sd > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(usable, (table["mean"].to_numpy() - center) / sd, np.nan)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    kept = np.isfinite(b)
    if kept.sum() < 3 or np.ptp(a[kept]) == 0 or np.ptp(b[kept]) < 1e-12:
        return float("nan")
    return float(spearmanr(a[kept], b[kept]).statistic)
