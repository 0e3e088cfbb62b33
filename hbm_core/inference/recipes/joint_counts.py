"""Sampling counts and bytes together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.inference.recipes.base import Arrays
from hbm_core.inference.recipes.count_windows import CountWindowsRecipe, blocks, own_terms, padded
from hbm_core.models import pymc_joint_counts
from hbm_core.models.joint_counts import PAIR
from hbm_core.models.pymc_joint_counts import Spec

#: Nodes over each rate.
_NODES = 21


class JointCountsRecipe(CountWindowsRecipe):
    """Means, sds, ``corr`` (pair), ``phi``, ``sigma_window``, ``theta_bytes`` and ``theta`` (unit)."""

    model = pymc_joint_counts

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of effects and of the correlation."""
        return {"corr": ("pair",), "theta_bytes": ("unit",), "theta": ("unit",)}

    def centres(self, spec: Spec) -> tuple[Arrays, Arrays]:
        """Means and spreads of the entities' own levels."""
        structure = spec.structure
        a, c = _levels(spec)
        sums = structure.byte_sums
        free = max(float(sums.windows.sum()) - np.count_nonzero(sums.windows), 1.0)
        centre = {
            "mu_count": a.mean(),
            "mu_bytes": c.mean(),
            "sigma_count": max(float(a.std()), 0.1),
            "sigma_bytes": max(float(c.std()), 0.1),
            "corr": 0.0,
            "phi": 2.0,
            "sigma_window": max(float(np.sqrt(sums.within.sum() / free)), 0.1),
        }
        return {name: np.asarray(value) for name, value in centre.items()}, {
            "mu_count": np.asarray(0.2),
            "mu_bytes": np.asarray(0.2),
        }

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Effects start near their entities' own levels."""
        a, c = _levels(spec)
        if name == "log_rate":
            return 0.5 * (a + plain["mu_count"]) + 0.2 * jitter
        if name == "log_bytes":
            return 0.5 * (c + plain["mu_bytes"]) + 0.2 * jitter
        return None

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Parameters, then both effects of each entity."""
        found: Arrays = {name: draws[name] for name in spec.structure.parameters}
        found["corr"] = found["corr"][..., None]
        return found | {name: draws[name] for name in ("theta_bytes", "theta")}

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of the entities and of the correlation."""
        return {"unit": list(spec.structure.units), "pair": [PAIR]}

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(counts and bytes of an entity | all parameters), its effects integrated out, ndarray (n, J).

        Given a_i the bytes' effect is normal, so that one integral over a_i is left: Gauss–Hermite around its
        mode.
        """
        structure = spec.structure
        units, totals, sums = len(structure.units), structure.totals, structure.byte_sums
        place, present = padded(totals.entity, units)
        exposure = np.where(present, totals.exposure[place], 1.0)
        windows, total = (np.where(present, column[place], 0.0) for column in (totals.windows, totals.total))
        z, weight = np.polynomial.hermite_e.hermegauss(_NODES)
        every = np.ones(structure.count.size, dtype=bool)
        out = np.empty((draws["phi"].size, units))
        for at in blocks(len(out), units):
            mean_a, mean_c, sd_a, sd_c, phi, sd = (
                draws[name][at].reshape(-1, 1)
                for name in ("mu_count", "mu_bytes", "sigma_count", "sigma_bytes", "phi", "sigma_window")
            )
            corr = draws["corr"][at].reshape(-1, 1)
            n = np.maximum(sums.windows, 1e-300)
            slope = corr * sd_c / sd_a
            spread = sd_c**2 * (1 - corr**2) + sd**2 / n
            # a given the bytes alone: what they say of it, times its population.
            precision = 1 / sd_a**2 + slope**2 / spread
            centre = mean_a + slope / spread * (sums.mean - mean_c) / precision
            marginal = spread + slope**2 * sd_a**2
            bytes_alone = (
                sums.constant
                + 0.5 * np.log(2 * np.pi)
                - (n - 1) * np.log(sd)
                - 0.5 * np.log(n)
                - 0.5 * sums.within / sd**2
                - 0.5 * np.log(2 * np.pi * marginal)
                - 0.5 * (sums.mean - mean_c) ** 2 / marginal
            )
            scales = [e / phi for e in exposure]
            weights = [t + k * phi for t, k in zip(total, windows, strict=True)]

            def counts_of(a: np.ndarray, scales: list = scales, weights: list = weights) -> np.ndarray:
                return structure.total * a - sum(
                    c * np.log1p(s * np.exp(a)) for s, c in zip(scales, weights, strict=True)
                )

            a = centre + 0 * structure.total
            for _ in range(30):
                first, second = structure.total - precision * (a - centre), precision + 0 * a
                for s, c in zip(scales, weights, strict=True):
                    share = 1 / (1 + np.exp(-a) / s)
                    first, second = first - c * share, second + c * share * (1 - share)
                move = np.clip(first / second, -2, 2)
                a = a + move
                if np.abs(move).max() < 1e-8:
                    break
            root = 1 / np.sqrt(second)
            peak = counts_of(a) - 0.5 * precision * (a - centre) ** 2
            mass = np.zeros_like(a)
            for at_node, w in zip(z, weight, strict=True):
                x = a + root * at_node
                f = counts_of(x) - 0.5 * precision * (x - centre) ** 2
                mass += w * np.exp(f - peak + 0.5 * at_node**2)
            found = peak + np.log(mass * root) + 0.5 * np.log(precision / (2 * np.pi))
            bytes_known = np.where(sums.windows > 0, bytes_alone, 0.0)
            out[at] = found + bytes_known + own_terms(structure, phi[:, 0], every)
        return out

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Counts and bytes by window; their entities and exposures."""
        observed, constant = super().observed(spec)
        return observed.assign(bytes=("window", spec.structure.volume)), constant


def _levels(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Rough log rate and log bytes of each entity, arrays (J,)."""
    structure = spec.structure
    mean = (structure.count.sum() + 0.5) / structure.exposure.sum()
    a = np.log((structure.total + mean) / (structure.total_exposure + 1))
    sums = structure.byte_sums
    middle = float(sums.windows @ sums.mean / sums.windows.sum())
    return a, np.where(sums.windows > 0, sums.mean, middle)
