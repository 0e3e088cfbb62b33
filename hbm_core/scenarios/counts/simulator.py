"""Simulated counts and successes with their truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset, Words
from hbm_core.scenarios.base import Knob

KINDS = ("counts", "successes of trials")
HOST_WORDS = Words("host", "hosts", "Rate", "events per window")
EXPOSED_HOST_WORDS = Words("host", "hosts", "Rate", "events per hour")
SHOP_WORDS = Words("shop", "shops", "Conversion rate", "")

KNOBS = (
    Knob("kind", "What is simulated", "counts", 0, 0, choices=KINDS),
    Knob("entities", "Number of entities", 60, 2, 200_000, 1, integer=True),
    Knob("windows_low", "Fewest windows of an entity", 1, 1, 10_000, 1, integer=True),
    Knob("windows_high", "Most windows of an entity", 40, 1, 10_000, 1, integer=True),
    Knob("mu", "Mean rate μ", 6, 1e-3, 1e6, 0.5),
    Knob("alpha", "Rate α of the population: the variance of the rates is μ/α", 0.5, 1e-3, 1e4, 0.1),
    Knob("phi", "Dispersion φ of the windows: large is Poisson", 2, 1e-2, 1e6, 0.5),
    Knob("exposure_sd", "Uneven exposures: sd of their logarithm", 0, 0, 3, 0.1),
    Knob("zero_inflation", "Share of windows that are shut: always zero", 0, 0, 0.95, 0.05),
    Knob("beta", "Effect of a covariate on the log rate, per sd", 0, -3, 3, 0.1),
    Knob("drift_sd", "Drift: sd of the log rate around its own mean", 0, 0, 3, 0.1),
    Knob("drift_rho", "Drift: correlation from one window to the next", 0.9, -0.99, 0.99, 0.05),
    Knob("bytes_sd", "Bytes: sd of the entities' log level (0: no bytes)", 0, 0, 3, 0.1),
    Knob("bytes_median", "Bytes: median of a window", 500, 1e-3, 1e9, 100),
    Knob("bytes_corr", "Bytes: correlation of their log level with the log rate", 0.6, -0.99, 0.99, 0.1),
    Knob("bytes_noise", "Bytes: sd of the log of windows of one entity", 0.7, 0.01, 3, 0.1),
    Knob("share", "Successes: mean rate μ", 0.27, 1e-3, 0.999, 0.01),
    Knob("kappa", "Successes: trials κ that the population counts as", 100, 0.1, 1e6, 10),
    Knob("trials_low", "Successes: fewest trials", 20, 1, 1e6, 5, integer=True),
    Knob("trials_high", "Successes: most trials", 400, 1, 1e6, 50, integer=True),
)


def simulate(seed: int, knobs: Mapping[str, Any]) -> Dataset:
    """θ_i ~ Gamma(μα, α) and y_ij ~ NegBinomial(mean θ_i e_ij w_ij, dispersion φ), or successes of trials.

    w_ij = exp(β x_ij + d_ij), d_ij a stationary AR(1) of an entity's windows, and some windows shut. With
    bytes the rates are log-normal, of the same mean and variance, and bytes log-normal with an entity's level
    that goes with its log rate. Rates, sizes, exposures, covariate, drift, shut windows, counts and bytes
    have their own random streams.

    Raises
    ------
    InputError
        The seed is not a whole number from 0; bounds that do not rise; more than 2 million windows.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError("seed", "a whole number from 0", seed)
    for name in ("windows", "trials"):
        low, high = knobs[f"{name}_low"], knobs[f"{name}_high"]
        if high < low:
            raise InputError(f"simulator knob {name}_high", f"at least {name}_low, {low}", high)
    streams = [np.random.default_rng(one) for one in np.random.SeedSequence(int(seed)).spawn(8)]
    if knobs["kind"] == "counts":
        return _counts(seed, knobs, streams)
    return _successes(seed, knobs, streams)


def _names(what: str, count: int) -> list[str]:
    width = len(str(count))
    return [f"{what}{place:0{width}d}" for place in range(1, count + 1)]


def _counts(seed: int, knobs: Mapping[str, Any], streams: list[np.random.Generator]) -> Dataset:
    rates, sizes, exposures, covariate, drift, shut, observed, volumes = streams
    size, mu, alpha, phi = (knobs[name] for name in ("entities", "mu", "alpha", "phi"))
    # Log-uniform: many entities with few windows, few with many.
    log_low, log_high = np.log(knobs["windows_low"]), np.log(knobs["windows_high"] + 1)
    windows = np.floor(np.exp(sizes.uniform(log_low, log_high, size))).astype(int)
    if windows.sum() > 2_000_000:
        raise InputError("number of simulated windows", "at most 2,000,000", f"{windows.sum():,}")
    # Far below any smallest rate that a count could show, and never exactly 0.
    theta = np.maximum(rates.gamma(mu * alpha, 1 / alpha, size), 1e-300)
    level = np.zeros(size)
    truth = {"mu": float(mu), "alpha": float(alpha), "phi": float(phi)}
    if knobs["bytes_sd"]:
        theta, level, truth = _with_bytes(volumes, knobs)
    entity = np.repeat(np.arange(size), windows)
    window = np.arange(entity.size) - np.repeat(np.cumsum(windows) - windows, windows) + 1
    units = _names("h", size)
    columns: dict[str, np.ndarray] = {"entity": np.array(units, dtype=object)[entity], "window": window}
    mean = theta[entity]
    if knobs["exposure_sd"]:
        columns["exposure"] = np.exp(knobs["exposure_sd"] * exposures.standard_normal(entity.size)).round(3)
        columns["exposure"] = np.maximum(columns["exposure"], 0.001)
        mean = mean * columns["exposure"]
    if knobs["beta"]:
        x = covariate.standard_normal(entity.size)
        # Standardised, so that the truth of beta is what a model's standardised column means.
        columns["x"] = (x - x.mean()) / x.std()
        mean = mean * np.exp(knobs["beta"] * columns["x"])
        truth["beta[x]"] = float(knobs["beta"])
    if knobs["drift_sd"]:
        mean = mean * np.exp(_drift(drift, window, knobs["drift_sd"], knobs["drift_rho"]))
        truth |= {"rho": float(knobs["drift_rho"]), "sigma_drift": float(knobs["drift_sd"])}
    count = observed.poisson(np.minimum(mean * observed.gamma(phi, 1 / phi, entity.size), 1e12))
    if knobs["zero_inflation"]:
        count = np.where(shut.random(entity.size) < knobs["zero_inflation"], 0, count)
        truth["psi"] = float(knobs["zero_inflation"])
    if knobs["bytes_sd"]:
        noise = knobs["bytes_noise"] * volumes.standard_normal(entity.size)
        columns["bytes"] = np.exp(level[entity] + noise) * columns.get("exposure", 1.0)
    order = ("entity", "window", "count", "exposure", "bytes", "x")
    table = pd.DataFrame(
        {name: ({"count": count} | columns)[name] for name in order if name in {"count", *columns}}
    )
    truth |= {f"theta[{unit}]": float(value) for unit, value in zip(units, theta, strict=True)}
    if knobs["bytes_sd"]:
        truth |= {f"theta_bytes[{u}]": float(v) for u, v in zip(units, np.exp(level), strict=True)}
    words = EXPOSED_HOST_WORDS if knobs["exposure_sd"] else HOST_WORDS
    return Dataset("simulated", f"{size:,} simulated hosts, seed {seed}", table, words, "", truth)


def _with_bytes(
    rng: np.random.Generator, knobs: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Log-normal rates (J,), the log level of bytes (J,), and the truth of both."""
    mu, corr = knobs["mu"], knobs["bytes_corr"]
    variance = np.log1p(1 / (mu * knobs["alpha"]))
    z, other = rng.standard_normal((2, knobs["entities"]))
    truth = {
        "mu_count": float(np.log(mu) - variance / 2),
        "mu_bytes": float(np.log(knobs["bytes_median"])),
        "sigma_count": float(np.sqrt(variance)),
        "sigma_bytes": float(knobs["bytes_sd"]),
        "corr[count,bytes]": float(corr),
        "phi": float(knobs["phi"]),
        "sigma_window": float(knobs["bytes_noise"]),
    }
    theta = np.exp(truth["mu_count"] + truth["sigma_count"] * z)
    level = truth["mu_bytes"] + truth["sigma_bytes"] * (corr * z + np.sqrt(1 - corr**2) * other)
    return theta, level, truth


def _drift(rng: np.random.Generator, window: np.ndarray, sd: float, rho: float) -> np.ndarray:
    """Stationary AR(1) along each entity's windows, ndarray (N,)."""
    noise = rng.standard_normal(window.size)
    found = np.empty(window.size)
    fresh = np.sqrt(1 - rho**2)
    for step in range(1, int(window.max()) + 1):
        here = np.flatnonzero(window == step)
        found[here] = noise[here] if step == 1 else rho * found[here - 1] + fresh * noise[here]
    return sd * found


def _successes(seed: int, knobs: Mapping[str, Any], streams: list[np.random.Generator]) -> Dataset:
    rates, sizes, observed = streams[0], streams[1], streams[6]
    size, mu, kappa = (knobs[name] for name in ("entities", "share", "kappa"))
    log_low, log_high = np.log(knobs["trials_low"]), np.log(knobs["trials_high"] + 1)
    trials = np.floor(np.exp(sizes.uniform(log_low, log_high, size))).astype(np.int64)
    theta = rates.beta(mu * kappa, (1 - mu) * kappa, size)
    units = _names("s", size)
    table = pd.DataFrame({"entity": units, "successes": observed.binomial(trials, theta), "trials": trials})
    truth = {"mu": float(mu), "kappa": float(kappa)}
    truth |= {f"theta[{unit}]": float(value) for unit, value in zip(units, theta, strict=True)}
    return Dataset("simulated", f"{size:,} simulated shops, seed {seed}", table, SHOP_WORDS, "", truth)
