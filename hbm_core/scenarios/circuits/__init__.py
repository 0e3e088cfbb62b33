"""Scenario `circuits`: covariance over the rate constants of RNA circuits in a cell-free reaction."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.models.kinetics.catalogue import PARAMETERS
from hbm_core.scenarios.base import SamplerDefaults, Scenario
from hbm_core.scenarios.circuits import apart, built_in, data, look, simulator
from hbm_core.scenarios.circuits.models import MODELS, PRESETS, Declaration


class Circuits(Scenario):
    """Time courses of genetic circuits, each with its own log10 rate constants from one population."""

    id = "circuits"
    title = "Circuits: rate constants of RNA circuits"
    #: 2: a gain scales the noise with the mean, and its log is normal.
    model_version = 2
    order = 40
    story = (
        "Genetic circuits in a test tube share kinds of rate constants, but not their values.",
        "Each was measured as GFP over time, some at many doses and in three replicates, some hardly at all.",
        "Taken alone, a circuit's curves leave most of its rate constants as unknown as they were.",
        "Partial pooling lets circuits tell each other what is typical, and which constants move together.",
        "The result is every rate constant with an interval, and curves for doses that nobody has measured.",
    )
    references = (
        "Kuzembayeva, Marlhens, Kubaczka, Ergenlioğlu and Koeppl, Engineering RNA-based Feedforward Loops in "
        "TXTL, TU Darmstadt (github.com/jmarlhens/RNA_dynamics)",
        "Gelman, Bois and Jiang (1996), Physiological pharmacokinetic analysis using population modeling and "
        "informative prior distributions, JASA 91(436), 1400–1412",
        "Lewandowski, Kurowicka and Joe (2009), Generating random correlation matrices based on vines and "
        "extended onion method, J. Multivariate Analysis 100(9), 1989–2001",
        "Hairer and Wanner (1996), Solving Ordinary Differential Equations II, section IV.8",
    )
    columns = data.COLUMNS
    knobs = simulator.KNOBS
    models = MODELS
    presets = PRESETS
    default_model = "full"
    default_dataset = "six"
    companion = "plasmid concentrations of each condition"
    no_lab = (
        "A fit of circuits takes minutes and a study of coverage hundreds of fits: it cannot be made while "
        "somebody waits. Explore says how many readings lie in their bands, and how many intervals hold the "
        "simulated truth."
    )
    warm = False
    sampler = SamplerDefaults(draws=1500, tune=500, chains=2, target_accept=0.95, seed=42)
    parameter_words = MappingProxyType(
        {
            **{
                f"alpha[{name}]": (
                    r"\alpha",
                    f"mean of {name} over circuits: {one.words}, log₁₀ {one.unit}",
                )
                for name, one in PARAMETERS.items()
            },
            "sigma": (r"\sigma", "spread of a rate constant between circuits, decades"),
            "corr": (r"\Omega", "correlations of rate constants between circuits"),
            "noise": (r"\sigma_0", "noise: sd of a reading of 1 nM"),
            "exponent": (r"\gamma", "power of the mean that the noise grows with"),
            "gain": (r"s", "sd of the replicates' log gains"),
            "slope": (r"b", "fluorescence per nM"),
            "offset": (r"a", "fluorescence of nothing"),
            "reading_sd": (r"s_f", "sd of a standard's fluorescence"),
            "theta": (r"\theta_{cp}", "a circuit's rate constant, log₁₀"),
            "alpha": (r"\alpha_p", "mean of a rate constant over circuits, log₁₀"),
        }
    )

    @property
    def datasets(self) -> Mapping[str, str]:
        """Built-in data sets: name to label."""
        return {name: label for name, (label, _) in built_in.SETS.items()}

    def dataset(self, name: str) -> Dataset:
        """One built-in data set; InputError for an unknown name."""
        if name not in built_in.SETS:
            raise InputError(
                "data set of scenario circuits", "one of " + ", ".join(built_in.SETS), repr(name)
            )
        return built_in.dataset(name)

    def simulate(self, seed: int = 1, **knobs: Any) -> Dataset:
        """Simulated data with truth; InputError for a knob that is unknown or out of bounds."""
        return simulator.simulate(seed, self.checked_knobs(knobs))

    def read(self, table: pd.DataFrame, name: str = "upload", label: str = "Your data") -> Dataset:
        """Time courses in canonical form; `DataProblems` lists everything wrong, with row and column."""
        return data.read(table, name, label)

    def joined(self, table: pd.DataFrame, companion: pd.DataFrame) -> pd.DataFrame:
        """Time courses with the plasmids of their conditions, as of `data.with_conditions`."""
        return data.with_conditions(table, companion)

    def covariates(self, dataset: Dataset) -> tuple[str, ...]:
        """None: conditions enter through the mechanism."""
        return ()

    def first_look(self, dataset: Dataset) -> pd.DataFrame:
        """Sizes, finals, ON over OFF, noise against mean: columns quantity, label, value, note."""
        return look.first_look(dataset)

    def estimate(self, dataset: Dataset) -> pd.DataFrame:
        """Each circuit by least squares, and the prior that it starts from, for all that a circuit uses.

        Returns
        -------
        pandas.DataFrame
            unit ("circuit,parameter"), estimator, estimate (log10), se, low95, high95.
        """
        made = Declaration().structure(dataset)
        found, z = apart.own(dataset, made), float(ndtri(0.975))
        rows = []
        for c, p in np.argwhere(made.uses):
            unit, declared = f"{made.units[c]},{made.fitted[p]}", made.declared[made.fitted[p]]
            values = {
                "least_squares": (float(found.theta[c, p]), float(found.sd[c, p])),
                "prior": (declared.center, declared.sd),
            }
            rows += [(unit, name, v, se, v - z * se, v + z * se) for name, (v, se) in values.items()]
        return pd.DataFrame(rows, columns=["unit", "estimator", "estimate", "se", "low95", "high95"])

    def alone(self, dataset: Dataset, structure: Any) -> tuple[np.ndarray, np.ndarray]:
        """Each circuit's least squares and their curvature sds, log10, ndarray (C, P) each."""
        found = apart.own(dataset, structure)
        return found.theta, found.sd

    def plausible(self, dataset: Dataset) -> tuple[float, float]:
        """Range in which no reading would surprise: from none to ten times the highest."""
        highest = float(look.courses(dataset)["value"].max())
        return 0.0, 10.0 * max(highest, 1.0)

    def scale_note(self, dataset: Dataset) -> str:
        """Where the default priors' numbers come from."""
        return "Default priors of rate constants are the published medians and their sds in decades."


SCENARIO = CIRCUITS = Circuits()
