"""What counts say before any model: windows, rates, variance against mean, zeros; and of successes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.models.dataset import Dataset
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.greek import GREEK
from hbm_core.scenarios.counts.data import count_structure, has_trials, trials_structure

Row = tuple[str, str, float, str]


_LETTERS = {**GREEK, "corr": "correlation"}


def _written(name: str) -> str:
    """A flat name as people write it: μ, σ drift, β of x."""
    head, _, label = name.removesuffix("]").partition("[")
    base, _, rest = head.partition("_")
    joint = " and " if base == "corr" else ", "
    return " ".join(
        filter(None, [_LETTERS.get(base, base), rest, label and "of " + label.replace(",", joint)])
    )


def first_look(dataset: Dataset) -> pd.DataFrame:
    """Sizes, raw rates, variance against mean, zeros, and the truth where simulated.

    Returns
    -------
    pandas.DataFrame
        quantity (key), label (words), value (float), note.
    """
    rows = _trials(dataset) if has_trials(dataset.table) else _counts(dataset)
    rows += [
        (f"truth[{name}]", f"True {_written(name)}", value, "simulated")
        for name, value in (dataset.truth or {}).items()
        if not name.startswith(("theta[", "theta_bytes["))
    ]
    return pd.DataFrame(rows, columns=["quantity", "label", "value", "note"]).astype({"value": float})


def _counts(dataset: Dataset) -> list[Row]:
    structure = count_structure(dataset)
    words = dataset.words
    windows, rate = structure.windows, structure.raw_rate
    moments = structure.rate_moments
    zeros = float((structure.count == 0).mean())
    poisson = float(np.exp(-rate[structure.entity] * structure.exposure).mean())
    rows: list[Row] = [
        ("entities", f"Number of {words.many}", len(structure.units), ""),
        ("windows", "Number of windows", structure.count.size, ""),
        (
            "windows_median",
            f"Windows per {words.one}, median",
            float(np.median(windows)),
            f"from {windows.min():,.0f} to {windows.max():,.0f}",
        ),
        (
            "total",
            "Number of events",
            structure.count.sum(),
            f"the largest count is {structure.count.max():,.0f}",
        ),
    ]
    exposure = structure.exposure
    if np.ptp(exposure):
        note = f"from {exposure.min():.3g} to {exposure.max():.3g} per window"
        rows.append(("exposure", "Total exposure", exposure.sum(), note))
    rows += [
        ("rate_mean", "Mean raw rate", rate.mean(), words.unit),
        (
            "rate_pooled",
            "All events over all exposure",
            structure.count.sum() / exposure.sum(),
            f"{words.unit}; one rate for all",
        ),
        (
            "rate_sd",
            "Spread of the raw rates",
            rate.std(ddof=1),
            f"{words.unit}, noise included".lstrip(", "),
        ),
    ]
    rows += _dispersion(structure, moments.dispersion)
    rows += [
        (
            "zero_share",
            "Share of windows without an event",
            zeros,
            f"{100 * poisson:.0f} % if Poisson",
        ),
        (
            "spread",
            "Spread of the true rates",
            float(np.sqrt(moments.between)),
            "moment estimate, noise taken off" if moments.between else "moment estimate: none beyond noise",
        ),
    ]
    return rows


def _dispersion(structure: GammaCounts, excess: float) -> list[Row]:
    """Variance against mean: of all counts, and within entities of two windows and more."""
    count = structure.count
    mean = count.mean()
    note = "1 if all counts were Poisson with one rate"
    rows: list[Row] = [
        ("variance_to_mean", "Variance of all counts over their mean", _ratio(count.var(), mean), note)
    ]
    windows = structure.windows
    if (windows < 2).all():
        note = "needs entities of two windows and more: phi can hardly be told from alpha here"
        rows.append(("replicates", "Entities with two windows and more", 0.0, note))
        return rows
    expected = structure.raw_rate[structure.entity] * structure.exposure
    several = windows[structure.entity] > 1
    free = (windows[windows > 1] - 1).sum()
    at = several & (expected > 0)
    pearson = float(((count[at] - expected[at]) ** 2 / expected[at]).sum() / free)
    note = "above 1: windows of one entity differ by more than Poisson chance"
    rows.append(("dispersion", "Variance over mean within entities", pearson, note))
    if excess > 0:
        rows.append(
            ("phi_moment", "Moment estimate of φ", 1 / excess, "small: over-dispersed; large: Poisson")
        )
    return rows


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else 0.0


def _trials(dataset: Dataset) -> list[Row]:
    structure = trials_structure(dataset)
    words, rate, trials = dataset.words, structure.raw_rate, structure.trials
    moments = structure.rate_moments
    note = f"from {trials.min():,.0f} to {trials.max():,.0f} per {words.one}"
    chance = moments.mean * (1 - moments.mean) * float(np.mean(1 / trials))
    return [
        ("entities", f"Number of {words.many}", len(structure.units), ""),
        ("trials", "Number of trials", trials.sum(), note),
        ("successes", "Number of successes", structure.successes.sum(), ""),
        ("rate_mean", "Mean raw rate", rate.mean(), words.unit),
        ("rate_pooled", "All successes over all trials", moments.mean, "one rate for all"),
        ("rate_sd", "Spread of the raw rates", rate.std(ddof=1), "noise included"),
        ("rate_sd_chance", "Spread that chance alone would make", chance**0.5, "if all rates were equal"),
        (
            "spread",
            "Spread of the true rates",
            moments.between**0.5,
            "moment estimate, noise taken off" if moments.between else "moment estimate: none beyond noise",
        ),
        (
            "zero_share",
            f"Share of {words.many} without a success",
            float((structure.successes == 0).mean()),
            "",
        ),
    ]
