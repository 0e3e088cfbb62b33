"""Counts and bytes of entities together: two rates per entity that go with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.count_windows import CountWindows
from hbm_core.models.vector_population import VectorPopulation

#: Label of the one pair that is correlated.
PAIR = "count,bytes"


@dataclass(frozen=True, eq=False)
class ByteSums:
    """What bytes say of each entity's level: log bytes per unit of exposure.

    Attributes
    ----------
    windows, mean : ndarray (J,)
        How many windows have bytes, and the mean of log(b/e) over them; 0 without any.
    within : ndarray (J,)
        Sums of squares around these means.
    constant : ndarray (J,)
        Terms of the log likelihood of log-normal bytes that hang on the data alone.
    """

    windows: np.ndarray
    mean: np.ndarray
    within: np.ndarray
    constant: np.ndarray


@dataclass(frozen=True, eq=False)
class JointCounts(CountWindows):
    """Counts and bytes of the same windows, with correlated effects of the entities.

    y_ij ~ NegBinomial(mean exp(a_i) e_ij, dispersion φ); bytes b_ij ~ LogNormal(c_i + log e_ij, σ);
    (a_i, c_i) normal with means (``mu_count``, ``mu_bytes``), sds (``sigma_count``, ``sigma_bytes``) and
    correlation ``corr``. θ_i = exp(a_i) is the rate, exp(c_i) (``theta_bytes``) the median bytes of a window
    of exposure 1; σ is ``sigma_window``.

    Parameters
    ----------
    count, entity, units, exposure
        As in `CountWindows`.
    volume : ndarray (N,)
        b, positive; NaN where nobody measured.
    """

    volume: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        volume = np.array(self.volume, dtype=float)
        if volume.shape != self.count.shape:
            raise InputError("bytes", "one number per window", volume.size)
        bad = ~np.isnan(volume) & ~(np.isfinite(volume) & (volume > 0))
        if bad.any():
            raise InputError("bytes", "positive finite numbers", volume[bad][0])
        if np.isfinite(volume).sum() < 2:
            raise InputError("bytes", "at least two windows with bytes", int(np.isfinite(volume).sum()))
        volume.setflags(write=False)
        object.__setattr__(self, "volume", volume)

    @cached_property
    def byte_sums(self) -> ByteSums:
        """Sufficient statistics of the bytes."""
        at = np.isfinite(self.volume)
        entity, size = self.entity[at], len(self.units)
        level = np.log(self.volume[at]) - np.log(self.exposure[at])
        windows = np.bincount(entity, minlength=size).astype(float)
        mean = np.bincount(entity, level, size) / np.maximum(windows, 1)
        within = np.bincount(entity, np.square(level - mean[entity]), size)
        constant = -np.bincount(entity, np.log(self.volume[at]), size) - 0.5 * windows * np.log(2 * np.pi)
        return ByteSums(windows, mean, within, constant)

    @cached_property
    def vector(self) -> VectorPopulation:
        """The entities' population: log rate and log bytes."""
        return VectorPopulation(
            components=("count", "bytes"),
            means=("mu_count", "mu_bytes"),
            spreads=("sigma_count", "sigma_bytes"),
            correlations=(f"corr[{PAIR}]",),
            members=("theta[{unit}]", "theta_bytes[{unit}]"),
            units=self.units,
            spread_priors=("sigma_count", "sigma_bytes"),
            correlation_prior="corr",
            log=True,
            scale="log",
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that take a prior, in order."""
        return ("mu_count", "mu_bytes", "sigma_count", "sigma_bytes", "corr", "phi", "sigma_window")

    @property
    def unitless(self) -> tuple[str, ...]:
        """Parameters that do not carry the outcome's unit: all are on a log scale."""
        return self.parameters

    @property
    def positive(self) -> frozenset[str]:
        """Parameters that must be positive."""
        return frozenset({"sigma_count", "sigma_bytes", "phi", "sigma_window"})

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Ends of the parameters that have two."""
        return {"corr": (-1.0, 1.0)}

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Flat names of all that is not an entity's effect, in order."""
        return tuple(f"corr[{PAIR}]" if name == "corr" else name for name in self.parameters)

    def funnel(self, unit: str) -> tuple[str, str] | None:
        """Flat names of what an entity's rate is pulled to and of what rules the spread around it."""
        return ("mu_count", "sigma_count")

    @property
    def parameterizations(self) -> tuple[str, ...]:
        """Geometries that apply; the first is the default."""
        return ("centered", "noncentered")
