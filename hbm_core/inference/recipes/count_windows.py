"""What the recipes of all structures of counts in windows share: frame, and laws of single windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import gammaln, xlogy
from scipy.stats import nbinom, poisson

from hbm_core.inference.gamma_marginal import log_rising
from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models.count_windows import CountWindows, rate_start

#: Draws times entities whose integrals are computed at a time.
BLOCK = 40_000


@dataclass(frozen=True, eq=False)
class WindowLaw:
    """Distribution of the count of one window of each entity, given n draws of the parameters.

    Attributes
    ----------
    mean : ndarray (n, J, Q)
        Expected counts of an open window, at Q points of what is not known yet.
    chance : ndarray (Q,)
        Probabilities of the points.
    dispersion : ndarray (n,)
        φ; infinite for Poisson counts.
    shut : ndarray (n,)
        Share of windows that show zero whatever their mean.
    """

    mean: np.ndarray
    chance: np.ndarray
    dispersion: np.ndarray
    shut: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        """Expected counts, ndarray (n, J)."""
        return self.mean @ self.chance * (1 - self.shut[:, None])

    def at_least(self, count: np.ndarray) -> np.ndarray:
        """P(Y ≥ y) for counts (J,), ndarray (n, J)."""
        open_window = self._law().sf(count[:, None] - 1) @ self.chance
        return np.where(count > 0, (1 - self.shut[:, None]) * open_window, 1.0)

    def log_probability(self, count: np.ndarray) -> np.ndarray:
        """Log P(Y = y) for counts (J,), ndarray (n, J)."""
        y = count[:, None]
        mean = np.maximum(self.mean, 1e-300)
        phi = np.broadcast_to(self.dispersion[:, None, None], mean.shape)
        if np.isfinite(self.dispersion).all():
            value = log_rising(y, phi) + xlogy(y, mean) - (y + phi) * np.log1p(mean / phi)
        else:
            value = xlogy(y, mean) - mean
        open_window = np.exp(value - gammaln(y + 1)) @ self.chance
        with np.errstate(divide="ignore"):
            return np.log(
                np.where(count > 0, 0.0, self.shut[:, None]) + (1 - self.shut[:, None]) * open_window
            )

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """One count of each entity per draw, ndarray (n, J)."""
        draws, units, points = self.mean.shape
        at = rng.choice(points, size=(draws, units), p=self.chance)
        mean = np.take_along_axis(self.mean, at[..., None], axis=2)[..., 0]
        if np.isfinite(self.dispersion).all():
            phi = np.broadcast_to(self.dispersion[:, None], mean.shape)
            mean = mean * rng.standard_gamma(phi) / phi
        count = rng.poisson(np.minimum(mean, 1e15))
        return np.where(rng.random(count.shape) < self.shut[:, None], 0, count)

    def _law(self) -> Any:
        if not np.isfinite(self.dispersion).all():
            return poisson(self.mean)
        phi = self.dispersion[:, None, None]
        return nbinom(phi, phi / (phi + self.mean))


class CountWindowsRecipe(Recipe):
    """A gamma population of rates ``theta`` (unit), integrated out or moved by the sampler."""

    def mass_matrix(self, spec: Any) -> str:
        """Scaled rates all move with α where data hold them."""
        return "low_rank" if spec.parameterization == "scaled" else super().mass_matrix(spec)

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

    #: Whether `latest_window` is told by earlier windows alone: where rates move from window to window.
    forward: bool = False

    def latest_window(self, spec: Any, draws: Mapping[str, np.ndarray]) -> WindowLaw:
        """Law of a window like each entity's latest, given flat draws of the parameters and θ."""
        structure = spec.structure
        return window_law(draws, (draws["theta"] * structure.exposure[structure.latest])[..., None])

    def next_window(self, spec: Any, draws: Mapping[str, np.ndarray]) -> WindowLaw:
        """Law of each entity's next window, of the latest one's exposure."""
        return self.latest_window(spec, draws)

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


def window_law(draws: Mapping[str, np.ndarray], mean: np.ndarray, chance: Any = (1.0,)) -> WindowLaw:
    """The law at means (n, J, Q), with the dispersion and the share of shut windows among the draws."""
    count = len(mean)
    dispersion, shut = draws.get("phi", np.full(count, np.inf)), draws.get("psi", np.zeros(count))
    return WindowLaw(mean, np.asarray(chance, dtype=float), dispersion, shut)


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
