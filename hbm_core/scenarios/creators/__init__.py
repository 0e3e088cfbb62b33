"""Scenario `creators`: A/B readouts of many creators in genres, pooled at three levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

from hbm_core.errors import InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.scenarios.base import Offer, SamplerDefaults, Scenario
from hbm_core.scenarios.creators import data, estimators, hurdle, look, mixed, simulator
from hbm_core.scenarios.creators.models import MODELS, PRESETS, prior_scale

#: Built-in data: label and simulator knobs; the seed is 1.
_BUILT_IN: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "ab_tests": ("500 creators in 5 genres, simulated", {}),
        "few_payers": (
            "500 creators, most users pay nothing (simulated)",
            {"zero_share": 0.7, "log_sd": 1.2, "baseline": 5.0},
        ),
        **mixed.BUILT_IN,
    }
)


class Creators(Scenario):
    """A/B readouts of creators in genres."""

    id = "creators"
    title = "Creators: many A/B tests at once"
    order = 20
    story = (
        "A platform runs an A/B test per creator, and most creators have few users.",
        "Read alone, the small ones are noise; read together, the real differences are gone.",
        "Creators belong to genres: each estimate leans on its genre, and a genre on all the others.",
        "How much it leans is learned from the data: small creators lean most, large ones hardly.",
        "The result is one calibrated readout per creator, from 80 users or a million creators.",
    )
    references = (
        "Efron & Morris (1975), Data analysis using Stein's estimator and its generalizations, JASA 70(350), "
        "311–319",
        "Gelman & Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical Models, chapters "
        "11–13",
        "Deng (2015), Objective Bayesian two sample hypothesis testing for online controlled experiments, "
        "WWW Companion",
        "Azevedo, Deng, Montiel Olea, Rao & Weyl (2020), A/B testing with fat tails, "
        "J. Polit. Econ. 128(12), 4614–4672",
        "Kohavi, Deng, Longbotham & Xu (2014), Seven rules of thumb for web site experimenters, KDD",
        "Smyth (2004), Linear models and empirical Bayes methods for assessing differential expression, "
        "Stat. Appl. Genet. Mol. Biol. 3(1)",
    )
    columns = (*data.SUMMARY_COLUMNS, *data.ROW_COLUMNS[-2:])
    knobs = simulator.KNOBS
    models = MODELS
    presets = PRESETS
    default_model = "base"
    default_dataset = "ab_tests"
    own_lab = ("base", "crossed", "drift")
    sampler = SamplerDefaults(draws=2000, tune=1000, chains=4, target_accept=0.9, seed=42)
    parameter_words = MappingProxyType(
        {
            "mu": (r"\mu", "mean effect over all genres"),
            "sigma_genre": (r"\sigma_{\mathrm{genre}}", "spread of the genres' mean effects"),
            "sigma_creator": (r"\sigma_{\mathrm{creator}}", "spread of the creators' effects in a genre"),
            "mu_genre": (r"\mu_g", "mean effect of a genre"),
            "theta": (r"\theta_i", "true effect of a creator"),
            **mixed.PARAMETER_WORDS,
            **hurdle.parameter_words(),
        }
    )

    @property
    def datasets(self) -> Mapping[str, str]:
        """Built-in data sets: name to label."""
        return {name: label for name, (label, _) in _BUILT_IN.items()}

    def dataset(self, name: str) -> Dataset:
        """One built-in data set; InputError for an unknown name."""
        if name not in _BUILT_IN:
            raise InputError("data set of scenario creators", "one of " + ", ".join(_BUILT_IN), repr(name))
        return _built_in(name)

    def simulate(self, seed: int = 1, **knobs: Any) -> Dataset:
        """Simulated summaries with truth; InputError for a knob that is unknown or out of bounds."""
        return simulator.simulate(seed, self.checked_knobs(knobs))

    def rows(self, seed: int = 1, **knobs: Any) -> Iterator[pd.DataFrame]:
        """The users behind `simulate`, in chunks; nothing with ``level="summaries"``."""
        return simulator.rows(seed, self.checked_knobs(knobs))

    def read(
        self,
        table: pd.DataFrame,
        name: str = "upload",
        label: str = "Your data",
        variance: Literal["own", "moderated"] = "own",
    ) -> Dataset:
        """Creator summaries, or user rows reduced to them, in canonical form.

        Raises
        ------
        DataProblems
            Everything wrong, with row and column.
        """
        if data.is_rows(table):
            return self._reduced(table, name, label, variance)
        return _moderated(Dataset(name, label, data.read_summaries(table), data.WORDS), variance)

    def open(
        self,
        path: str | Path,
        name: str = "upload",
        label: str = "",
        variance: Literal["own", "moderated"] = "own",
    ) -> Dataset:
        """A CSV or Parquet file of either level; user rows may be of any size.

        Raises
        ------
        InputError
            Not a file that can be read, or `DataProblems` with everything wrong in its table.
        """
        from hbm_core.scenarios import tables
        from hbm_core.scenarios.creators.user_rows import has_user_rows

        label = label or tables.file_title(str(path))
        if has_user_rows(path):
            return self._reduced(path, name, label, variance)
        found = tables.read_file(path, label, most_bytes=20 * tables.MOST_BYTES, most_rows=data.MOST_CREATORS)
        return self.read(found, name, label, variance)

    def _reduced(self, source: Any, name: str, label: str, variance: Literal["own", "moderated"]) -> Dataset:
        from hbm_core.scenarios.creators.reduce import reduce

        found = reduce(source, filename=label if isinstance(source, str | Path) else "", variance=variance)
        notes = (f"{found.rows:,} user rows came to {len(found.table):,} summaries.", *found.notes)
        return Dataset(name, label, found.table, data.WORDS, notes=notes)

    def covariates(self, dataset: Dataset) -> tuple[str, ...]:
        """None: the scenario's moderators are its genres, segments and periods."""
        return ()

    def first_look(self, dataset: Dataset) -> pd.DataFrame:
        """Sizes, effects, spread by genre, zeros and tails: columns quantity, label, value, note."""
        return look.first_look(dataset)

    def estimate(self, dataset: Dataset) -> pd.DataFrame:
        """Classical estimators and partial pooling under the default priors, a row per creator and estimator.

        Returns
        -------
        pandas.DataFrame
            unit, genre, estimator, estimate, se, low95, high95, p.
        """
        spec = self.model(self.default_model).spec(dataset)
        try:
            posterior = solve(spec)
        except NotExactError:
            posterior = None
        df = estimators.welch_df(data.creator_table(dataset.table))
        found = estimators.estimators(spec.structure, df, posterior)
        return estimators.estimate_table(spec.structure, found)

    def recovery(
        self, replications: int, seed: int, model: str = "", priors: Mapping[str, Prior] | None = None
    ) -> pd.DataFrame:
        """Every estimator against the truth of the simulator's default design; see `validation.recovery`."""
        from hbm_core.scenarios.creators.validation import recovery

        if self.lab_model(model) in ("crossed", "drift"):
            from hbm_core.scenarios.creators.mixed_lab import mixed_recovery

            return mixed_recovery(model, replications, seed, priors)
        return recovery(replications, seed, priors)[0]

    def scale_note(self, dataset: Dataset) -> str:
        """Where the default priors' numbers come from; empty where they are as the models declare them."""
        factor = prior_scale(dataset)
        if factor == 1:
            return ""
        return (
            f"Default priors are those of the simulated creators times {factor:g}: the spread of these "
            "data, relative to theirs (from the median distance of the effects and the median standard "
            "error), because it is more than three times larger or smaller."
        )

    def offer(self, dataset: Dataset, model: str) -> Offer | None:
        """The model `hurdle`, where a normal one is wrong for these users' revenue and it can be had."""
        seen = look.normality(dataset.table)
        if seen is None or not seen.wrong or model.startswith("hurdle") or not hurdle.fits(dataset):
            return None
        return Offer("hurdle", seen.sentence)

    def plausible(self, dataset: Dataset) -> tuple[float, float]:
        """Range that nobody would be surprised to see an effect in: ±5, the baseline revenue, scaled."""
        return -5 * prior_scale(dataset), 5 * prior_scale(dataset)


def _moderated(dataset: Dataset, variance: str) -> Dataset:
    if variance == "own":
        return dataset
    from hbm_core.scenarios.creators.variance import moderated

    table, _ = moderated(dataset.table)
    return replace(dataset, table=table, notes=("Standard errors use moderated variances.",))


@lru_cache(maxsize=8)
def _built_in(name: str) -> Dataset:
    label, knobs = _BUILT_IN[name]
    found = simulator.simulate(1, CREATORS.checked_knobs(knobs))
    return replace(found, name=name, label=label, reference="Simulated with seed 1; the truth is known")


SCENARIO = CREATORS = Creators()
