"""What the recipes of all structures of counts in windows share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import gammaln

from hbm_core.inference.gamma_marginal import log_rising
from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models.count_windows import CountWindows, rate_start

#: Draws times entities whose integrals are computed at a time.
BLOCK = 40_000


class CountWindowsRecipe(Recipe):
    """A gamma population of rates ``theta`` (unit), integrated out or moved by the sampler."""

    def dims_of(self, spec: Any) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of θ."""
        return {"theta": ("unit",)}

    def centres(self, spec: Any) -> tuple[Arrays, Arrays]:
        """Moment estimates of μ and α; what else there is starts in the middle."""
        mu, alpha = rate_start(spec.structure)
        middle = {"mu": mu, "alpha": alpha, "phi": 2.0, "psi": 0.2, "beta": 0.0}
        return {name: np.asarray(value) for name, value in middle.items()}, {"beta": np.asarray(0.2)}

    def inner_start(self, spec: Any, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Rates start between the population's mean and their raw rates."""
        if name not in ("theta_log__", "z_log__"):
            return None
        structure = spec.structure
        shape, rate = self.population(spec, plain)
        theta = (shape + structure.total) / (rate + structure.total_exposure)
        return np.log(theta * (rate if name == "z_log__" else 1)) + 0.3 * jitter

    def population(self, spec: Any, plain: Arrays) -> tuple[float, float]:
        """Shape and rate of the population of rates where the parameters start."""
        return float(plain["mu"] * plain["alpha"]), float(plain["alpha"])

    def complete(self, spec: Any, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Parameters, then θ; drawn from its conditionals where it was integrated out."""
        found: Arrays = {name: draws[name] for name in spec.structure.parameters}
        if spec.parameterization != "collapsed":
            return found | {"theta": draws["theta"]}
        shape = draws["mu"].shape
        flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in found.items()}
        # A stream of its own: the sampler's chains use the seed itself.
        theta = self.rates(spec, flat, np.random.default_rng([seed, 1]))
        return found | {"theta": theta.reshape(*shape, -1)}

    def rates(self, spec: Any, draws: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One θ of each entity from its conditional given the parameters, ndarray (n, J); `draws` flat."""
        raise NotImplementedError

    def coords(self, spec: Any) -> Mapping[str, Iterable[Any]]:
        """Labels of the entities."""
        return {"unit": list(spec.structure.units)}

    def observed(self, spec: Any) -> tuple[xr.Dataset, xr.Dataset]:
        """Counts by window; their entities and exposures."""
        structure = spec.structure
        coords = {"window": np.arange(structure.count.size)}
        constant = {"entity": ("window", structure.entity), "exposure": ("window", structure.exposure)}
        return xr.Dataset({"y": ("window", structure.count)}, coords), xr.Dataset(constant, coords)

    def extreme(self, spec: Any) -> list[str]:
        """No count is so far from the others that its density is not finite."""
        return []


def blocks(count: int, units: int) -> Iterable[slice]:
    """Slices of `count` draws, each small enough for arrays (draws, units)."""
    rows = max(1, BLOCK // units)
    return [slice(at, at + rows) for at in range(0, count, rows)]


def padded(entity: np.ndarray, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of each entity's rows side by side, ndarray (K, J), and where there is one, (K, J) of bool.

    Where there is none the place is that of the entity's first row, or 0.
    """
    order = np.argsort(entity, kind="stable")
    size = np.bincount(entity, minlength=units)
    start = np.cumsum(size) - size
    rank = np.arange(max(int(size.max(initial=0)), 1))[:, None]
    present = rank < size
    first = np.minimum(start + np.where(present, rank, 0), max(order.size - 1, 0))
    return (order[first] if order.size else np.zeros(first.shape, dtype=np.intp)), present


def own_terms(structure: CountWindows, dispersion: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Terms of each entity's log likelihood that its rate has no part in, ndarray (P, J).

    Σ over its `counted` windows (N,) of log Γ(y + φ)/(Γ(φ) φ^y y!) + y log e.
    """
    units = len(structure.units)
    count, entity = structure.count[counted], structure.entity[counted]
    own = count * np.log(structure.exposure[counted]) - gammaln(count + 1)
    value, place = np.unique(count, return_inverse=True)
    times = np.zeros((value.size, units))
    np.add.at(times, (place, entity), 1.0)
    return np.bincount(entity, own, units) + log_rising(value, dispersion[:, None]) @ times
