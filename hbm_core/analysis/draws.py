"""Tables from draws: summaries with their Monte Carlo errors, diagnostics, agreement with exact values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from hbm_core.inference.exact.base import PROBABILITIES

#: Where doubt begins: largest R-hat, least effective sample size, least E-BFMI, fewest round trips.
LIMITS = {"r_hat": 1.01, "ess": 400.0, "e_bfmi": 0.3, "pareto_k": 0.7, "bias": 0.1, "round_trips": 5.0}
#: Where doubt becomes failure: beyond these. Few divergences are a warning, as a share and as a count.
FAILURES = {"r_hat": 1.05, "ess": 100.0, "pareto_k": 1.0, "divergences": 10.0, "divergent_share": 0.01}
Grade = Literal["pass", "warn", "fail"]
#: Units are listed one by one up to here unless asked otherwise.
MANY_UNITS = 1000
#: Blocks of draws that a `jackknife` leaves out.
_BLOCKS = 20


def summary(
    tree: xr.DataTree,
    probabilities: Sequence[float] = PROBABILITIES,
    variables: Iterable[str] | None = None,
    units: Literal["all", "none"] | int = MANY_UNITS,
) -> pd.DataFrame:
    """Summarise every parameter of a fit.

    Parameters
    ----------
    tree : xarray.DataTree
        A fit with a group ``posterior``.
    probabilities : sequence of float
        Quantiles, one column each, named ``q0.025`` and so on.
    variables : iterable of str, optional
        Variables of the posterior; all by default.
    units : {"all", "none"} or int
        Parameters with one value per unit: list them all, none, or all if there are at most so many units.

    Returns
    -------
    pandas.DataFrame
        Indexed by flat names (``mu``, ``theta[A]``, ``beta[x]``); columns mean, sd, the quantiles,
        hdi95_low, hdi95_high, ess_bulk, ess_tail, r_hat, mcse_mean, mcse_sd, mcse_median. A parameter that
        never moves has no Monte Carlo error: its effective sample size is the number of draws, R-hat 1.

    References
    ----------
    Vehtari et al. (2021), Bayesian Analysis 16, sections 3 and 4, as computed by ArviZ.
    """
    from arviz_stats.base import array_stats

    names, draws = flat_draws(tree["posterior"].to_dataset(), variables, units)
    rows = draws.reshape(len(names), -1)
    table = pd.DataFrame(
        {"mean": rows.mean(axis=1), "sd": rows.std(axis=1, ddof=1) if rows.shape[1] > 1 else 0.0},
        index=pd.Index(names, name="parameter"),
    )
    for probability, values in zip(probabilities, np.quantile(rows, probabilities, axis=1), strict=True):
        table[f"q{probability:g}"] = values
    moving = np.ptp(rows, axis=1) > 0
    # Summing a constant leaves rounding in its variance.
    table.loc[~moving, "mean"], table.loc[~moving, "sd"] = rows[~moving, 0], 0.0
    table["hdi95_low"] = table["hdi95_high"] = rows[:, 0]
    for column in ("ess_bulk", "ess_tail"):
        table[column] = float(rows.shape[1])
    table["r_hat"] = 1.0
    for column in ("mcse_mean", "mcse_sd", "mcse_median"):
        table[column] = 0.0
    if not moving.any():
        return table

    live = draws[moving]
    table.loc[moving, ["hdi95_low", "hdi95_high"]] = array_stats.hdi(rows[moving], prob=0.95)
    table.loc[moving, "ess_bulk"] = array_stats.ess(live, method="bulk")
    table.loc[moving, "ess_tail"] = array_stats.ess(live, method="tail", prob=(0.05, 0.95))
    table.loc[moving, "r_hat"] = _r_hat(array_stats, live)
    for method in ("mean", "sd", "median"):
        table.loc[moving, f"mcse_{method}"] = array_stats.mcse(live, method=method)
    return table


def diagnostics(tree: xr.DataTree, table: pd.DataFrame | None = None) -> dict[str, Any]:
    """Whether the sampler did its work.

    Parameters
    ----------
    tree : xarray.DataTree
        A fit; without ``sample_stats`` the entries that need it are absent.
    table : pandas.DataFrame, optional
        Its `summary`, if at hand.

    Returns
    -------
    dict
        chains, draws (per chain), partial, r_hat_max, ess_bulk_min, ess_tail_min; divergences,
        e_bfmi (one per chain), tree_depth_max, reached_max_treedepth (count). Of a variational fit engine,
        method, k_hat (Pareto's k of its importance ratios), elbo and elbo_se (nats) instead; its draws are
        independent, so that R-hat and effective sizes say nothing about it. Of tempering engine,
        temperatures, round_trips_min, swap_acceptance_min, barrier, log_evidence, log_evidence_se (nats).
    """
    from arviz_stats.base import array_stats

    table = summary(tree) if table is None else table
    sizes = tree["posterior"].sizes
    found: dict[str, Any] = {
        "chains": int(sizes["chain"]),
        "draws": int(sizes["draw"]),
        "partial": bool(tree.attrs.get("partial", 0)),
        "r_hat_max": float(table["r_hat"].max()),
        "ess_bulk_min": float(table["ess_bulk"].min()),
        "ess_tail_min": float(table["ess_tail"].min()),
    }
    if tree.attrs.get("engine") == "variational":
        found |= {name: str(tree.attrs[name]) for name in ("engine", "method")}
        found |= {name: float(tree.attrs[name]) for name in ("k_hat", "elbo", "elbo_se")}
    if tree.attrs.get("engine") == "tempering" and "tempering" in tree.children:
        ladder = tree["tempering"]
        found |= {
            "engine": "tempering",
            "temperatures": int(ladder.sizes["temperature"]),
            "round_trips_min": int(ladder["round_trips"].min()),
            "swap_acceptance_min": float(ladder["swap_acceptance"].mean("chain").min()),
        }
        found |= {name: float(tree.attrs[name]) for name in ("barrier", "log_evidence", "log_evidence_se")}
    if "sample_stats" in tree.children:
        stats = tree["sample_stats"]
        if "diverging" in stats:
            found["divergences"] = int(stats["diverging"].sum())
        if "energy" in stats:
            energy = stats["energy"].transpose("chain", "draw").values
            found["e_bfmi"] = [float(value) for value in array_stats.bfmi(energy)]
        if "tree_depth" in stats:
            found["tree_depth_max"] = int(stats["tree_depth"].max())
            found["reached_max_treedepth"] = int(stats["reached_max_treedepth"].sum())
    return found


@dataclass(frozen=True)
class Concern:
    """One thing that speaks against a fit.

    Parameters
    ----------
    grade : {"warn", "fail"}
        Look before you trust it, or do not.
    text : str
        In words.
    """

    grade: Grade
    text: str


def graded(name: str, value: float, total: int = 0) -> Grade:
    """The one rule on a diagnostic, for every page, the report and the command line.

    Parameters
    ----------
    name : {"r_hat", "ess", "divergences", "e_bfmi", "pareto_k", "round_trips"}
        Which.
    value : float
        Its worst value; of divergences the count.
    total : int
        Kept draws, for the share that diverged; 0 where it is not known.

    Examples
    --------
    >>> graded("divergences", 1, 240_000), graded("divergences", 11, 240_000), graded("r_hat", 1.02)
    ('warn', 'fail', 'warn')
    """
    match name:
        case "divergences":
            few = value <= FAILURES["divergences"] and (
                not total or value <= FAILURES["divergent_share"] * total
            )
            return "pass" if not value else "warn" if few else "fail"
        case "e_bfmi" | "round_trips":
            return "pass" if value >= LIMITS[name] else "warn"
        case "ess":
            return "pass" if value >= LIMITS["ess"] else "fail" if value < FAILURES["ess"] else "warn"
        case _:
            # What is not a number does not pass.
            return "pass" if value <= LIMITS[name] else "warn" if value <= FAILURES[name] else "fail"


def doubts(diagnostics: Mapping[str, Any], exact: Mapping[str, Any] | None = None) -> tuple[Concern, ...]:
    """What speaks against a fit, and how gravely; empty where nothing does.

    Parameters
    ----------
    diagnostics : mapping
        From `diagnostics`; entries that are absent or None are passed over.
    exact : mapping, optional
        The comparison with exact values, with entries agrees and worst, and unit where that is not MCSE.
    """
    found: list[Concern] = []

    def add(grade: Grade, text: str) -> None:
        if grade != "pass":
            found.append(Concern(grade, text))

    if diagnostics.get("engine") == "variational":
        k = diagnostics.get("k_hat")
        shown = "infinite" if k is None else f"{k:.2f}"
        add(
            graded("pareto_k", np.inf if k is None else k),
            f"Pareto's k is {shown}, above {LIMITS['pareto_k']:g}: a normal does not fit",
        )
        if exact is not None and not exact["agrees"]:
            add("fail", f"{exact['parameter']} is {exact['worst']:.2f} posterior sds from exact")
        return tuple(found)
    r_hat = diagnostics.get("r_hat_max") or 1.0
    # One chain alone has no R-hat.
    r_hat = 1.0 if np.isnan(r_hat) else r_hat
    add(graded("r_hat", r_hat), f"R-hat is {r_hat:.3f}, above {LIMITS['r_hat']:g}")
    for kind in ("bulk", "tail"):
        if (size := diagnostics.get(f"ess_{kind}_min")) is not None:
            text = f"the {kind} effective size is {size:,.0f}, below {LIMITS['ess']:g}"
            add(graded("ess", size), text)
    if (trips := diagnostics.get("round_trips_min")) is not None:
        add(
            graded("round_trips", trips),
            f"a replica made {trips:,} round trips between prior and posterior, fewer than "
            f"{LIMITS['round_trips']:g}",
        )
    count = diagnostics.get("divergences") or 0
    total = (diagnostics.get("draws") or 0) * (diagnostics.get("chains") or 0)
    of = f" of {total:,}" if total else ""
    add(graded("divergences", count, total), f"{count:,}{of} draw{'s' if count > 1 or of else ''} diverged")
    energy = min(diagnostics.get("e_bfmi") or [1.0])
    add(graded("e_bfmi", energy), f"E-BFMI is {energy:.2f}, below {LIMITS['e_bfmi']:g}")
    if exact is not None and not exact["agrees"]:
        add("fail", f"it is {exact['worst']:.1f} Monte Carlo errors from exact")
    return tuple(found)


def grade(diagnostics: Mapping[str, Any], exact: Mapping[str, Any] | None = None) -> Grade:
    """The gravest of a fit's `doubts`."""
    grades = {doubt.grade for doubt in doubts(diagnostics, exact)}
    return "fail" if "fail" in grades else "warn" if "warn" in grades else "pass"


def concerns(diagnostics: Mapping[str, Any], exact: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The words of a fit's `doubts`."""
    return tuple(doubt.text for doubt in doubts(diagnostics, exact))


def agreement(draws: pd.DataFrame, exact: pd.DataFrame) -> pd.DataFrame:
    """Compare a sampled summary with an exact one, in Monte Carlo standard errors.

    Parameters
    ----------
    draws : pandas.DataFrame
        From `summary`.
    exact : pandas.DataFrame
        Columns mean, sd, optionally ``q0.5``; rows by the same names. Infinite moments are not compared.

    Returns
    -------
    pandas.DataFrame
        One row per parameter in both: difference (of the means, in the parameter's units), z_mean, z_sd,
        z_median (differences over their Monte Carlo standard errors; NaN where not compared), limit (4, or
        5 where more than 100 parameters are compared at once), agrees.
    """
    names = [name for name in draws.index if name in exact.index]
    sampled, truth = draws.loc[names], exact.loc[names]
    table = pd.DataFrame(index=pd.Index(names, name="parameter"))
    table["difference"] = sampled["mean"] - truth["mean"]
    for moment, column in (("mean", "mean"), ("sd", "sd"), ("median", "q0.5")):
        comparable = column in sampled and column in truth
        table[f"z_{moment}"] = (
            _in_errors(sampled[column], truth[column], sampled[f"mcse_{moment}"]) if comparable else np.nan
        )
    # An infinite second moment leaves the error of the mean without meaning too.
    table.loc[~np.isfinite(truth["sd"]), ["z_mean", "z_sd"]] = np.nan
    table["limit"] = 5.0 if len(table) > 100 else 4.0
    worst = table[["z_mean", "z_sd", "z_median"]].abs().max(axis=1)
    table["agrees"] = ~(worst > table["limit"])
    return table


def verdict(table: pd.DataFrame) -> str:
    """One sentence on a table of `agreement`."""
    z = table[["z_mean", "z_sd", "z_median"]].abs()
    if not len(table) or bool(z.isna().all(axis=None)):
        return "Nothing to compare with exact values."
    worst = z.max(axis=1)
    name, largest, limit = worst.idxmax(), float(worst.max()), float(table["limit"].iloc[0])
    count = int(worst.notna().sum())
    if bool(table["agrees"].all()):
        return (
            f"The draws agree with the exact posterior: {count} parameters within {limit:g} Monte Carlo "
            f"standard errors (largest {largest:.1f}, {name})."
        )
    off = int((~table["agrees"]).sum())
    return (
        f"The draws do not agree with the exact posterior: {off} of {count} parameters are more than "
        f"{limit:g} Monte Carlo standard errors off (largest {largest:.1f}, {name}); look at the diagnostics."
    )


def approximation(draws: pd.DataFrame, exact: pd.DataFrame) -> pd.DataFrame:
    """The bias of an approximation: its summary less the exact one, in exact posterior sds.

    Monte Carlo errors do not apply, for more draws bring an approximation no nearer.

    Parameters
    ----------
    draws, exact : pandas.DataFrame
        As of `agreement`.

    Returns
    -------
    pandas.DataFrame
        One row per parameter in both: mean, sd, median (differences over the exact sd; NaN where a moment
        is infinite), limit (0.1; more where so few draws are 4 Monte Carlo errors), agrees.
    """
    names = [name for name in draws.index if name in exact.index]
    found, truth = draws.loc[names], exact.loc[names]
    scale = truth["sd"].where(np.isfinite(truth["sd"]) & (truth["sd"] > 0))
    # Without a finite sd the quartiles give a scale: 1.349 sds of a normal lie between them.
    if {"q0.25", "q0.75"} <= set(truth.columns):
        scale = scale.fillna((truth["q0.75"] - truth["q0.25"]) / 1.349)
    table = pd.DataFrame(index=pd.Index(names, name="parameter"))
    for moment, column in (("mean", "mean"), ("sd", "sd"), ("median", "q0.5")):
        table[moment] = (found[column] - truth[column]) / scale if column in truth else np.nan
    table = table.replace([np.inf, -np.inf], np.nan)
    table.loc[~np.isfinite(truth["sd"]), ["mean", "sd"]] = np.nan
    # Of few draws even exact ones lie farther off than that.
    noise = 4 * float((found["mcse_mean"] / scale).median()) if "mcse_mean" in found else 0.0
    table["limit"] = limit = max(LIMITS["bias"], noise)
    table["agrees"] = ~(table[["mean", "sd", "median"]].abs().max(axis=1) > limit)
    return table


def approximation_verdict(table: pd.DataFrame) -> str:
    """One sentence on a table of `approximation`."""
    off = table[["mean", "sd", "median"]].abs()
    worst = off.max(axis=1).dropna()
    if worst.empty:
        return "Nothing to compare with exact values."
    name, limit = str(worst.idxmax()), float(table["limit"].iloc[0])
    moment = str(off.loc[name].idxmax())
    count = int((~table["agrees"]).sum())
    distance = float(table[moment][name])
    largest = f"the {moment} of {name}, by {distance:+.2f}"
    if not count:
        return f"An approximation, within {limit:.2g} posterior sds of exact: farthest is {largest}."
    return (
        f"An approximation, and not close: {count} of {len(worst)} parameters are more than {limit:.2g} "
        f"posterior sds from exact; farthest is {largest}."
    )


def _in_errors(sampled: pd.Series, truth: pd.Series, error: pd.Series) -> np.ndarray:
    difference = (sampled - truth).to_numpy(dtype=float)
    scale = error.to_numpy(dtype=float)
    finite = np.isfinite(truth.to_numpy(dtype=float)) & np.isfinite(difference)
    # A parameter that never moves is right to rounding or it is wrong.
    same = np.isclose(sampled.to_numpy(dtype=float), truth.to_numpy(dtype=float), rtol=1e-9, atol=1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where((scale == 0) & same, 0.0, difference / scale)
    return np.where(finite, z, np.nan)


def _r_hat(array_stats: Any, draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat (n,); infinite where chains stand still at different values."""
    still = (np.ptp(draws, axis=2) == 0).all(axis=1)
    values = np.full(len(draws), np.inf)
    if not still.all():
        values[~still] = array_stats.rhat(draws[~still])
    return values


def flat_draws(
    posterior: xr.Dataset, variables: Iterable[str] | None, units: Literal["all", "none"] | int
) -> tuple[list[str], np.ndarray]:
    """Flat names, and draws (parameter, chain, draw), of `variables` and of up to so many units."""
    names: list[str] = []
    blocks = []
    for variable in posterior.data_vars if variables is None else variables:
        array = posterior[variable]
        others = [str(dim) for dim in array.dims if dim not in ("chain", "draw")]
        if "unit" in others and not _listed(array.sizes["unit"], units):
            continue
        values = array.transpose(*others, "chain", "draw").values
        blocks.append(values.reshape(-1, *values.shape[-2:]))
        labels = [""]
        for dim in others:
            here = array[dim].values if dim in array.coords else range(array.sizes[dim])
            labels = [f"{label},{value}" if label else str(value) for label in labels for value in here]
        names += [f"{variable}[{label}]" for label in labels] if others else [str(variable)]
    shape = (0, posterior.sizes["chain"], posterior.sizes["draw"])
    return names, np.concatenate(blocks) if blocks else np.empty(shape)


def _listed(count: int, units: Literal["all", "none"] | int) -> bool:
    if units == "all":
        return True
    return units != "none" and count <= int(units)


def jackknife(statistic: Callable[[np.ndarray], Any], count: int) -> np.ndarray:
    """Monte Carlo standard error of anything computed from draws, by leaving out one block after the other.

    Blocks are long enough to hold what draws in a row have in common.

    Parameters
    ----------
    statistic : callable
        Places of draws (n,) → numbers of any shape.
    count : int
        Draws.

    References
    ----------
    Künsch (1989), Annals of Statistics 17, section 2.
    """
    parts = blocks_of(count)
    rest = [np.concatenate(parts[:place] + parts[place + 1 :]) for place in range(len(parts))]
    return block_error([statistic(at) for at in rest])


def blocks_of(count: int) -> list[np.ndarray]:
    """Places of draws in blocks, one after the other: within a chain each where there are 1, 2, 4 or 5."""
    return np.array_split(np.arange(count), min(_BLOCKS, count))


def block_error(found: Sequence[Any]) -> np.ndarray:
    """Standard error from a statistic without one block, for each of them: `jackknife`."""
    values = np.asarray(found, dtype=float)
    error: np.ndarray = np.sqrt((len(values) - 1) * values.var(axis=0))
    return error
