"""Scenario `schools`: units with an effect and a known standard error around a common mean."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.analysis import moments
from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset, Words
from hbm_core.scenarios import tables
from hbm_core.scenarios.base import Column, Problem, Scenario
from hbm_core.scenarios.schools.data import BUILT_IN
from hbm_core.scenarios.schools.models import MODELS, PRESETS, covariate_names, prior_scale
from hbm_core.scenarios.schools.simulator import KNOBS, simulate

#: Above this, models with one parameter per unit no longer answer in reasonable time.
MOST_UNITS = 100_000
_UNIT_ALIASES = ("study", "school", "trial", "site", "name", "label", "id")
_SE_ALIASES = ("s", "sei", "sigma", "std_err", "std_error", "standard_error", "stderr")


@cache
def _labels() -> Mapping[str, str]:
    return MappingProxyType({name: build().label for name, build in BUILT_IN.items()})


class Schools(Scenario):
    """Eight schools and every meta-analysis: effects with known standard errors."""

    id = "schools"
    title = "Schools and meta-analyses"
    order = 10
    story = (
        "Several schools, trials or sites each measured the same effect, each with its own uncertainty.",
        "Taking every number at face value overreacts to noise; averaging them all hides real differences.",
        "Partial pooling lets the data choose: each estimate moves towards the common mean, "
        "and a noisy one leans on it more.",
        "How much they move depends on τ, the spread of the true effects, which a few units can barely tell.",
        "Move the priors and watch which answers hold, and which were the prior speaking.",
    )
    references = (
        "Rubin (1981), Estimation in parallel randomized experiments, J. Educ. Stat. 6(4), 377–401",
        "Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, sections 5.4–5.6",
        "Betancourt & Girolami (2015), Hamiltonian Monte Carlo for hierarchical models",
        "DerSimonian & Laird (1986), Meta-analysis in clinical trials, Control. Clin. Trials 7(3), 177–188",
        "Viechtbauer (2005), Bias and efficiency of meta-analytic variance estimators in the random-effects "
        "model, J. Educ. Behav. Stat. 30(3), 261–293",
    )
    columns = (
        Column("unit", "text", "unique, not empty", _UNIT_ALIASES),
        Column("effect", "number", "finite", ("y", "yi", "estimate", "effect_size", "es", "mean")),
        Column("se", "number", "finite, above 0", _SE_ALIASES),
    )
    knobs = KNOBS
    models = MODELS
    presets = PRESETS
    default_model = "weak"
    default_dataset = "eight_schools"
    parameter_words = MappingProxyType(
        {
            "mu": (r"\mu", "common mean of the effects"),
            "tau": (r"\tau", "spread of the true effects"),
            "beta": (r"\beta", "change of the mean per sd of a covariate"),
            "nu": (r"\nu", "degrees of freedom: small means heavy tails"),
            "theta": (r"\theta_i", "true effect of a unit"),
        }
    )

    @property
    def datasets(self) -> Mapping[str, str]:
        """Built-in data sets: name to label."""
        return _labels()

    def dataset(self, name: str) -> Dataset:
        """One built-in data set; InputError for an unknown name."""
        if name not in BUILT_IN:
            raise InputError("data set of scenario schools", "one of " + ", ".join(BUILT_IN), repr(name))
        return BUILT_IN[name]()

    def simulate(self, seed: int = 1, **knobs: Any) -> Dataset:
        """Simulated data with truth; InputError for a knob that is unknown or out of bounds."""
        return simulate(seed, self.checked_knobs(knobs))

    def read(self, table: pd.DataFrame, name: str = "upload", label: str = "Your data") -> Dataset:
        """Bring a table into canonical form: unit, effect, se, then every other column.

        Other columns stay: numbers as numbers (blank where missing), anything else as text.

        Raises
        ------
        DataProblems
            Everything wrong, with row and column.
        """
        reader = tables.Reader(table, self.columns, most_rows=MOST_UNITS, partly=True)
        unit = reader.labels("unit")
        effect = reader.numbers("effect")
        se = reader.numbers("se", above=0)
        if len(reader) == 1:
            reader.problems.append(
                Problem(None, None, "The table has one row. Pooling needs at least two units.")
            )
        if (good := np.isfinite(se) & (se > 0)).any():
            tiny = np.flatnonzero(good & (se < 1e-8 * se[good].max()))
            reader.report(
                "se", tiny, "is more than 10^8 times smaller than the largest. Is it in the same unit?"
            )
        others = reader.others()
        reader.finish()
        canonical = pd.DataFrame({"unit": unit, "effect": effect, "se": se, **others})
        words = Words("unit", "units", "Effect", "")
        return Dataset(name, label, canonical, words)

    def covariates(self, dataset: Dataset) -> tuple[str, ...]:
        """Columns of `dataset` that can be moderators: complete numbers that vary."""
        return covariate_names(dataset)

    def first_look(self, dataset: Dataset) -> pd.DataFrame:
        """Moments and tests before any model: columns quantity, label, value, note."""
        effect, se = _arrays(dataset)
        return moments.first_look(effect, se, dataset.words.unit)

    def estimate(self, dataset: Dataset) -> pd.DataFrame:
        """No pooling, complete pooling and empirical Bayes, one row per unit and estimator.

        Returns
        -------
        pandas.DataFrame
            unit, estimator, estimate, se, low95, high95.
        """
        effect, se = _arrays(dataset)
        parts = []
        for name, (estimate, error) in moments.estimators(effect, se).items():
            part = pd.DataFrame({"unit": dataset.table["unit"], "estimator": name})
            part["estimate"], part["se"] = estimate, error
            parts.append(part)
        rows = pd.concat(parts, ignore_index=True)
        rows["low95"] = rows["estimate"] - moments.Z95 * rows["se"]
        rows["high95"] = rows["estimate"] + moments.Z95 * rows["se"]
        return rows

    def scale_note(self, dataset: Dataset) -> str:
        """Where the default priors' numbers come from; empty where they are as the models declare them."""
        factor = prior_scale(dataset)
        unit = f" {dataset.words.unit}" if dataset.words.unit else ""
        if factor == 1:
            return ""
        return (
            f"Default priors are those of the eight schools times {factor:g}: "
            f"the spread of these data{unit and f' in{unit}'}, relative to the eight schools' "
            "(from the median distance of the effects and the median standard error)."
        )

    def plausible(self, dataset: Dataset) -> tuple[float, float]:
        """Range that nobody would be surprised to see an effect in: ±50 for the eight schools, scaled."""
        return -50 * prior_scale(dataset), 50 * prior_scale(dataset)


def _arrays(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    return dataset.table["effect"].to_numpy(dtype=float), dataset.table["se"].to_numpy(dtype=float)


SCENARIO = Schools()
