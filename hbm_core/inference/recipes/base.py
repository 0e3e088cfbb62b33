"""What a sampler must know of a structure: its PyMC model, where to start, and what completes its draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior

if TYPE_CHECKING:
    import pymc as pm

Arrays = dict[str, np.ndarray]
#: From a seed to a start in the sampler's coordinates.
Start = Callable[[Any], np.ndarray]


class Recipe(ABC):
    """Everything about one structure that NUTS and the store's other engines need.

    Specifications are `ModelSpec` of the recipe's own structure.
    """

    #: Module of the PyMC model: its `structure_key`, `data_values` and `build`.
    model: ModuleType
    #: Whether likelihoods and what else is derived from finished draws take no compiler and little time.
    light: bool = True

    def mass_matrix(self, spec: Any) -> str:
        """How nutpie adapts NUTS' mass matrix: "low_rank" where parameters are strongly correlated."""
        return "diag"

    @abstractmethod
    def dims_of(self, spec: Any) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of the posterior's variables beyond chain and draw; scalars are absent."""

    def key(self, spec: Any) -> Hashable:
        """What decides the compiled code: no numbers."""
        found: Hashable = self.model.structure_key(spec)
        return found

    def data(self, spec: Any) -> Arrays:
        """Every ``pm.Data`` of the model with its value."""
        found: Arrays = self.model.data_values(spec)
        return found

    def build(self, spec: Any) -> pm.Model:
        """The model in PyMC."""
        return self.model.build(spec)

    @abstractmethod
    def centres(self, spec: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Where parameters with a prior start, and how far a start may be from there (identity scale)."""

    @abstractmethod
    def inner_start(self, spec: Any, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Start of a sampled variable without a prior of its own; None to take the jitter, in (−1, 1)."""

    def pilot(self, spec: Any, sampler: Sampler) -> Sampler | None:
        """Settings of a short fit whose draws shape the sampler's coordinates; None without one."""
        return None

    def shaped(self, spec: Any, draws: Mapping[str, np.ndarray]) -> Arrays:
        """Data of the model that a pilot's `draws` (chain, draw, …) improve; they move no posterior."""
        return {}

    @abstractmethod
    def complete(self, spec: Any, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """The model's own parameters in order, what was integrated out drawn from its conditional.

        Parameters
        ----------
        spec : ModelSpec
            The model.
        draws : mapping of str to ndarray (chain, draw, …)
            What the sampler moved.
        seed : int
            Of the fit; conditional draws take a stream of their own.
        """

    def kept(self, spec: Any) -> tuple[str, ...] | None:
        """Variables from which `complete` makes the others again with the same seed; None for all."""
        return tuple(spec.structure.parameters) if spec.parameterization == "collapsed" else None

    @abstractmethod
    def coords(self, spec: Any) -> Mapping[str, Iterable[Any]]:
        """Labels of the dimensions."""

    @abstractmethod
    def log_likelihood(self, spec: Any, draws: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Log density of each unit's data, its effect integrated out, ndarray (n, units); None without one.

        The same for every parameterization. `draws` are flat: arrays (n, …).
        """

    @abstractmethod
    def observed(self, spec: Any) -> tuple[xr.Dataset, xr.Dataset]:
        """Groups ``observed_data`` and ``constant_data`` of a result."""

    def log_ratio(self, new: Any, old: Any, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log of new over old prior density of each draw, up to a constant, ndarray (n,).

        Parameters
        ----------
        new, old : ModelSpec
            Of the same data and model, with other priors.
        draws : mapping of str to ndarray (n, …)
            The posterior's variables.
        """
        ratio = np.zeros(len(next(iter(draws.values()))))
        for name, prior in new.priors.items():
            if prior != (before := old.priors[name]):
                each = prior.log_density(draws[name]) - before.log_density(draws[name])
                ratio += each.reshape(ratio.size, -1).sum(axis=1)
        return ratio

    def groups(self, spec: Any, draws: Mapping[str, np.ndarray]) -> Mapping[str, xr.Dataset]:
        """More groups of a result, from what the sampler moved; none unless a structure has some."""
        return {}

    def derived(
        self, spec: Any, draws: Mapping[str, np.ndarray], log_likelihood: np.ndarray | None
    ) -> Mapping[str, xr.Dataset]:
        """More groups of a result, from the model's own parameters, whatever engine drew them.

        Parameters
        ----------
        spec : ModelSpec
            The model.
        draws : mapping of str to ndarray (chain, draw, …)
            As `complete` gives them.
        log_likelihood : ndarray (chain · draw, units) or None
            As `log_likelihood` gives it for them.
        """
        return {}

    def start(self, spec: Any, compiled: Any) -> Start:
        """A function from a seed to a start, from these data and priors alone.

        Hyperparameters start near moment estimates, drawn into the middle 90 % of their priors, each with a
        jitter on its own scale, so that a change of units changes nothing.

        Parameters
        ----------
        spec : ModelSpec
            The model.
        compiled : nutpie's compiled model
            For the names and shapes of what it moves.
        """
        names, _, shapes = compiled.shape_info
        centre, width = self.centres(spec)
        plain: Arrays = {}
        for name, prior in spec.priors.items():
            value = np.asarray(centre[name], dtype=float)
            plain[name] = np.clip(value, *prior.distribution.ppf([0.05, 0.95])) if prior.proper else value

        def start(seed: Any) -> np.ndarray:
            rng = np.random.default_rng(seed)
            parts: list[Any] = []
            for name, shape in zip(names, shapes, strict=True):
                jitter = rng.uniform(-1, 1, size=tuple(int(length) for length in shape))
                parameter = name
                for transform in ("_log__", "_interval__", "_logodds__"):
                    parameter = parameter.removesuffix(transform)
                if parameter in spec.priors and name != parameter:
                    parts.append(_unconstrained(name, spec.priors[parameter], plain[parameter]) + jitter)
                elif parameter in spec.priors:
                    parts.append(plain[parameter] + width[parameter] * jitter)
                else:
                    found = self.inner_start(spec, name, plain, jitter)
                    parts.append(jitter if found is None else found)
                if sum(part.size for part in parts) >= compiled.n_dim:
                    break
            return np.concatenate([np.ravel(part) for part in parts])

        return start

    def extreme(self, spec: Any) -> list[str]:
        """Labels of units so far from the others that no density is finite; to explain a missing start."""
        structure = spec.structure
        with np.errstate(all="ignore"):
            z = (structure.effect - np.median(structure.effect)) / structure.se
            return [unit for unit, value in zip(structure.units, z, strict=True) if not abs(value) < 1e100]


def _unconstrained(name: str, prior: Prior, value: np.ndarray) -> np.ndarray:
    """PyMC's log, log odds or interval transform of a parameter's value."""
    if not name.endswith("_log__"):
        lower, upper = prior.support
        return np.log(value - lower) - np.log(upper - value)
    return np.log(value)
