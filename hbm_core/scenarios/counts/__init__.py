"""Scenario `counts`: event rates of entities with over-dispersion, and success rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.errors import FitError, InputError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.scenarios.base import SamplerDefaults, Scenario
from hbm_core.scenarios.counts import data, estimators, look, simulator
from hbm_core.scenarios.counts.declaration import prior_scale
from hbm_core.scenarios.counts.models import MODELS, PRESETS

#: Built-in simulated data: label and knobs other than the defaults; the seed is 1.
_SIMULATED: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "hosts": ("60 hosts, 1 to 40 windows each (simulated)", {}),
        "shut_hosts": (
            "60 hosts, three windows in ten shut (simulated)",
            {"zero_inflation": 0.3, "phi": 4, "windows_low": 3},
        ),
        "load": ("40 hosts whose rates follow the load (simulated)", {"entities": 40, "beta": 0.5}),
        "drifting": (
            "20 hosts whose rates drift, 30 to 50 windows each (simulated)",
            {
                "entities": 20,
                "windows_low": 30,
                "windows_high": 50,
                "phi": 1000,
                "drift_sd": 0.6,
                "drift_rho": 0.85,
            },
        ),
        "traffic": (
            "50 hosts, events and bytes (simulated)",
            {"entities": 50, "bytes_sd": 0.8, "windows_high": 25},
        ),
    }
)
#: Above this many entities the table of estimators leaves out partial pooling's quantiles.
MOST_POOLED = 20_000


@cache
def _built_in(name: str) -> Dataset:
    if name in data.BUILT_IN:
        return data.BUILT_IN[name]()
    label, knobs = _SIMULATED[name]
    found = simulator.simulate(1, COUNTS.checked_knobs(knobs))
    return replace(found, name=name, label=label, reference="Simulated with seed 1; the truth is known")


class Counts(Scenario):
    """Counts of events per entity and window, and successes of trials."""

    id = "counts"
    title = "Counts: event rates of many entities"
    order = 30
    story = (
        "Hosts, shops or machines each show events in windows; some were watched often, some once or twice.",
        "A rate from one window is mostly chance, and a quiet window does not make a quiet entity.",
        "Partial pooling draws each rate towards the others', the more the less was seen of it.",
        "Counts often vary more than chance allows: part is between entities, part between their windows.",
        "The result is a rate with an interval per entity, a forecast, and a list of what is surprising.",
    )
    references = (
        "Gaver & O'Muircheartaigh (1987), Robust empirical Bayes analyses of event rates, Technometrics "
        "29(1), 1–15",
        "Efron & Morris (1975), Data analysis using Stein's estimator and its generalizations, JASA 70(350), "
        "311–319",
        "Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, sections 2.6 and 16.4",
        "Hilbe (2011), Negative Binomial Regression, 2nd edition",
        "Kleiber & Zeileis (2016), Visualizing count data regressions using rootograms, Am. Stat. 70(3), "
        "296–303",
    )
    columns = data.COLUMNS
    knobs = simulator.KNOBS
    models = MODELS
    presets = PRESETS
    default_model = "base"
    default_dataset = "hosts"
    own_lab = ("base", "poisson", "binomial")
    sampler = SamplerDefaults(draws=2000, tune=1000, chains=4, target_accept=0.9, seed=42)
    parameter_words = MappingProxyType(
        {
            "mu": (r"\mu", "mean rate of the population"),
            "alpha": (r"\alpha", "how alike the rates are: their variance is μ/α"),
            "phi": (r"\varphi", "dispersion of the windows: large means Poisson"),
            "kappa": (r"\kappa", "how alike the rates are: trials that the population counts as"),
            "psi": (r"\psi", "share of the windows that are shut"),
            "beta": (r"\beta", "effect of a covariate on the log rate, per sd"),
            "rho": (r"\rho", "correlation of the drift from one window to the next"),
            "sigma_drift": (r"\sigma_{\mathrm{drift}}", "sd of the log rate around its entity's level"),
            "mu_count": (r"\mu_a", "mean log rate of the population"),
            "mu_bytes": (r"\mu_c", "mean log bytes of the population"),
            "sigma_count": (r"\sigma_a", "spread of the entities' log rates"),
            "sigma_bytes": (r"\sigma_c", "spread of the entities' log bytes"),
            "corr": (r"\rho_{ac}", "correlation of log rate and log bytes between entities"),
            "sigma_window": (r"\sigma", "sd of the log bytes of an entity's windows"),
            "theta": (r"\theta_i", "true rate of an entity"),
        }
    )

    @property
    def datasets(self) -> Mapping[str, str]:
        """Built-in data sets: name to label."""
        simulated = {name: label for name, (label, _) in _SIMULATED.items()}
        return simulated | {name: build().label for name, build in data.BUILT_IN.items()}

    def dataset(self, name: str) -> Dataset:
        """One built-in data set; InputError for an unknown name."""
        if name not in self.datasets:
            raise InputError("data set of scenario counts", "one of " + ", ".join(self.datasets), repr(name))
        return _built_in(name)

    def simulate(self, seed: int = 1, **knobs: Any) -> Dataset:
        """Simulated data with truth; InputError for a knob that is unknown or out of bounds."""
        return simulator.simulate(seed, self.checked_knobs(knobs))

    def read(self, table: pd.DataFrame, name: str = "upload", label: str = "Your data") -> Dataset:
        """Counts by window, or successes of trials, in canonical form.

        Raises
        ------
        DataProblems
            Everything wrong, with row and column.
        """
        canonical = data.read(table)
        return Dataset(name, label, canonical, data.words_of(canonical))

    def covariates(self, dataset: Dataset) -> tuple[str, ...]:
        """Columns of `dataset` that can be moderators: complete numbers that vary."""
        known = {column.name for column in self.columns}
        found = []
        for name in dataset.table.columns:
            column = dataset.table[name]
            if name in known or not pd.api.types.is_numeric_dtype(column):
                continue
            values = column.to_numpy(dtype=float)
            if np.isfinite(values).all() and np.ptp(values) > 0:
                found.append(str(name))
        return tuple(found)

    def model_for(self, dataset: Dataset) -> str:
        """The model that these data call for: `binomial` where they are successes of trials."""
        return "binomial" if data.has_trials(dataset.table) else self.default_model

    def first_look(self, dataset: Dataset) -> pd.DataFrame:
        """Sizes, rates, variance against mean, zeros: columns quantity, label, value, note."""
        return look.first_look(dataset)

    def estimate(self, dataset: Dataset) -> pd.DataFrame:
        """Raw rates, complete pooling, empirical Bayes, and partial pooling under the default priors.

        Returns
        -------
        pandas.DataFrame
            unit, estimator, estimate, se, low95, high95.
        """
        spec = self.model(self.model_for(dataset)).spec(dataset)
        found = estimators.classical_estimators(spec.structure)
        posterior: ExactPosterior | None = None
        if len(spec.structure.units) <= MOST_POOLED:
            try:
                posterior = solve(spec)
            except (InputError, FitError):
                posterior = None
        if posterior is not None:
            found["partial_pooling"] = estimators.partial_pooling(posterior)
        return estimators.estimate_table(tuple(spec.structure.units), found)

    def recovery(
        self, replications: int, seed: int, model: str = "", priors: Mapping[str, Prior] | None = None
    ) -> pd.DataFrame:
        """Every estimator against the truth of a default design; see `validation.recovery`."""
        from hbm_core.scenarios.counts.validation import recovery

        return recovery(replications, seed, self.lab_model(model), priors)

    def scale_note(self, dataset: Dataset) -> str:
        """Where the default priors' numbers come from; empty where they are as the models declare them."""
        factor = prior_scale(dataset)
        if factor == 1:
            return ""
        return (
            f"Default priors are those for rates near 5 times {factor:g}, because the mean rate of these "
            "data is more than ten times larger or smaller."
        )

    def plausible(self, dataset: Dataset) -> tuple[float, float]:
        """Range in which no count would surprise: 0 to 50 times the mean exposure, scaled; of shares, all."""
        table = dataset.table
        if data.has_trials(table):
            return 0.0, 1.0
        exposure = float(table["exposure"].mean()) if "exposure" in table else 1.0
        return 0.0, 50.0 * exposure * prior_scale(dataset)


SCENARIO = COUNTS = Counts()
