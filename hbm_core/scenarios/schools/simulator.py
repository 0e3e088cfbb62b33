"""Simulated two-level data with their truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios.base import Knob
from hbm_core.scenarios.schools.data import EIGHT_SES, SCHOOL_WORDS

SE_CHOICES = ("eight schools", "equal", "uniform", "log-normal")
SHAPES = ("normal", "student t", "two clusters")

KNOBS = (
    Knob("J", "Number of schools", 8, 2, 100_000, 1, integer=True),
    Knob("mu", "Common effect μ", 8, -1000, 1000, 1),
    Knob("tau", "Spread of the true effects τ", 5, 0, 1000, 1),
    Knob("se", "Standard errors", "eight schools", 0, 0, choices=SE_CHOICES),
    Knob("se_low", "Smallest standard error", 5, 0.01, 1000, 1),
    Knob("se_high", "Largest standard error", 20, 0.01, 1000, 1),
    Knob("shape", "Shape of the true effects", "normal", 0, 0, choices=SHAPES),
    Knob("nu", "Degrees of freedom (student t)", 3, 0.5, 100, 0.5),
    Knob("beta", "Effect of a covariate, per sd", 0, -1000, 1000, 1),
    Knob("se_factor", "True noise relative to the reported standard errors", 1, 0.1, 10, 0.1),
)


def simulate(seed: int, knobs: Mapping[str, Any]) -> Dataset:
    """y_i ~ Normal(θ_i, c s_i), θ_i around μ + β x_i with scale τ, for checked knobs.

    Effects, noise, standard errors and the covariate have their own random streams: a change of τ or μ
    alone keeps the same standardised draws.

    Raises
    ------
    InputError
        The seed is not a whole number from 0; the largest standard error is below the smallest.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError("seed", "a whole number from 0", seed)
    if knobs["se_high"] < knobs["se_low"]:
        raise InputError(
            "simulator knob se_high", f"at least se_low, {knobs['se_low']:g}", f"{knobs['se_high']:g}"
        )
    count = knobs["J"]
    streams = np.random.SeedSequence(int(seed)).spawn(4)
    effects, noise, errors, moderator = (np.random.default_rng(stream) for stream in streams)
    se = _standard_errors(errors, count, knobs["se"], knobs["se_low"], knobs["se_high"])
    theta = knobs["mu"] + knobs["tau"] * _standard_effects(effects, count, knobs["shape"], knobs["nu"])
    truth = {"mu": float(knobs["mu"]), "tau": float(knobs["tau"])}
    covariate = {}
    if knobs["beta"]:
        x = moderator.standard_normal(count)
        # Standardised, so that the truth of beta is what the model's standardised column means.
        covariate["x"] = (x - x.mean()) / x.std()
        theta = theta + knobs["beta"] * covariate["x"]
        truth["beta[x]"] = float(knobs["beta"])
    if knobs["shape"] == "student t":
        truth["nu"] = float(knobs["nu"])
    effect = theta + knobs["se_factor"] * se * noise.standard_normal(count)
    width = len(str(count))
    units = list(ascii_uppercase[:count]) if count <= 26 else [f"S{i:0{width}d}" for i in range(1, count + 1)]
    truth |= {f"theta[{unit}]": float(value) for unit, value in zip(units, theta, strict=True)}
    table = pd.DataFrame({"unit": units, "effect": effect, "se": se, **covariate})
    words = replace(SCHOOL_WORDS, headline="")
    return Dataset("simulated", f"{count} simulated schools, seed {seed}", table, words, "", truth)


def _standard_errors(rng: np.random.Generator, count: int, kind: str, low: float, high: float) -> np.ndarray:
    middle, spread = np.log(low * high) / 2, np.log(high / low) / 2
    match kind:
        case "eight schools":
            return np.resize(np.array(EIGHT_SES), count)
        case "equal":
            return np.full(count, np.exp(middle))
        case "uniform":
            return rng.uniform(low, high, count)
    # Smallest and largest are then the 2.5 % and 97.5 % points.
    return np.exp(middle + spread / 1.959964 * rng.standard_normal(count))


def _standard_effects(rng: np.random.Generator, count: int, shape: str, nu: float) -> np.ndarray:
    match shape:
        case "student t":
            return rng.standard_t(nu, count)
        case "two clusters":
            # Centres at ±0.95 with sd √(1 − 0.95²): the whole has sd 1, so that τ keeps its meaning.
            side = np.where(rng.random(count) < 0.5, -0.95, 0.95)
            return side + np.sqrt(1 - 0.95**2) * rng.standard_normal(count)
    return rng.standard_normal(count)
