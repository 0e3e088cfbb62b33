"""A model as tempering sees it: prior and likelihood apart, and independent draws of the prior."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hbm_core.errors import InputError
from hbm_core.inference.recipes import recipe
from hbm_core.models.structure import ModelSpec

if TYPE_CHECKING:
    import pymc as pm

#: Names of potentials that are likelihood, as observed variables are, and of those that belong to the prior.
LIKELIHOOD = ("likelihood", "marginal", "readings")
PRIOR = ("walk", "start", "steps", "circuits_density", "spread_density", "effects_density")
#: Names that the tempered model adds.
_BETA, _LIKELIHOOD = "inverse_temperature", "log_likelihood_total"
#: From how many draws and a seed to points of the unconstrained space, ndarray (n, D).
PriorDraws = Callable[[int, np.random.SeedSequence], np.ndarray]


@dataclass(frozen=True, eq=False)
class Target:
    """log π_β(x) = log prior(x) + β log likelihood(x), x unconstrained, its Jacobian part of the prior.

    Parameters
    ----------
    compiled : nutpie's compiled model
        Of the tempered model, holding its data; β is one of them.
    prior : callable or None
        Independent draws of the prior; None where it cannot be drawn from forwards.
    """

    compiled: Any
    prior: PriorDraws | None

    @property
    def size(self) -> int:
        """Dimensions D of the unconstrained space."""
        return int(self.compiled.n_dim)

    @property
    def place(self) -> int:
        """Where the log likelihood stands among the expanded variables."""
        names, slices, _ = self.compiled.shape_info
        return int(slices[names.index(_LIKELIHOOD)].start)

    def at(self, beta: float) -> np.ndarray:
        """Addresses and shapes of the data at inverse temperature β; to be kept alive while they are used."""
        held = self.compiled.with_data(**{_BETA: beta})
        # The record holds addresses alone: its arrays must live as long as it does.
        return _Alive(held.user_data, held.shared_data)

    def variables(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every variable of the model by name, each ndarray (…, shape), at x (…, D)."""
        from hbm_core.inference.variational import Target as Variables

        found = Variables(self.compiled).variables(x.reshape(-1, self.size))
        found.pop(_LIKELIHOOD)
        return {name: values.reshape(*x.shape[:-1], *values.shape[1:]) for name, values in found.items()}


class _Alive(np.ndarray):
    """An array that keeps others alive."""

    owners: Any

    def __new__(cls, array: np.ndarray, owners: Any) -> _Alive:
        found = np.asarray(array).view(cls)
        found.owners = owners
        return found


class TargetCache:
    """Compiled targets by structure, the least recently used dropped first."""

    def __init__(self, limit: int = 8) -> None:
        self.limit, self.compilations = limit, 0
        self._kept: OrderedDict[Hashable, _Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, spec: ModelSpec) -> bool:
        return recipe(spec).key(spec) in self._kept

    def get(self, spec: ModelSpec) -> Target:
        """The target of `spec`: compiled once per structure, with `spec`'s numbers.

        Raises
        ------
        InputError
            A prior is improper: there is nothing to draw at β = 0, and no evidence.
        """
        refuse_improper(spec)
        how = recipe(spec)
        key = how.key(spec)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _Compiled.of(how.build(spec))
                self.compilations += 1
                while len(self._kept) > self.limit:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key].with_data(how.data(spec))


def refuse_improper(spec: ModelSpec) -> None:
    """Raise InputError, with the reason, where a prior of the model is improper."""
    for name, prior in spec.priors.items():
        if not prior.proper:
            raise InputError(
                f"prior on {name}",
                "a proper prior: tempering walks from draws of the prior to the posterior, and its "
                "evidence is an average over the prior",
                prior.text,
                "Choose a proper prior, or --engine nuts.",
            )


def target_of(model: pm.Model) -> Target:
    """Compile any PyMC model with continuous variables and proper priors.

    Its potentials are told apart by their names, see `LIKELIHOOD` and `PRIOR`. The model is changed.
    """
    return _Compiled.of(model).with_data({})


@dataclass(eq=False)
class _Compiled:
    """One structure: code, and the function that draws its prior."""

    code: Any
    draw: Any
    vectorised: bool
    lock: threading.Lock

    @classmethod
    def of(cls, model: pm.Model) -> _Compiled:
        import nutpie
        import pytensor

        draw, vectorised = _forward(model)
        # Without fastmath: the last bit would depend on the history of the disk cache.
        with pytensor.config.change_flags(numba__fastmath=False):
            code = nutpie.compile_pymc_model(tempered(model))
        return cls(code, draw, vectorised, threading.Lock())

    def with_data(self, data: Mapping[str, np.ndarray]) -> Target:
        code = self.code.with_data(**data)
        if self.draw is None:
            return Target(code, None)

        def prior(count: int, seed: np.random.SeedSequence) -> np.ndarray:
            from pymc.pytensorf import reseed_rngs

            shared = {variable.name: variable for variable in self.draw.get_shared() if variable.name}
            rngs = [
                variable
                for variable in self.draw.get_shared()
                if isinstance(variable.get_value(borrow=True), np.random.Generator)
            ]
            with self.lock:
                for name, value in data.items():
                    if name in shared:
                        shared[name].set_value(np.asarray(value, shared[name].type.dtype))
                reseed_rngs(rngs, int(seed.generate_state(1)[0]))
                if self.vectorised:
                    return np.asarray(self.draw(count), dtype=float)
                return np.array([self.draw() for _ in range(count)], dtype=float)

        return Target(code, prior)


def tempered(model: pm.Model) -> pm.Model:
    """The model with its likelihood to the power β, a datum; the whole log likelihood is a variable of it.

    Raises
    ------
    InputError
        The model has none, or a potential that is not known to be prior or likelihood.
    """
    import pymc as pm
    import pytensor.tensor as pt

    for potential in model.potentials:
        if potential.name not in (*LIKELIHOOD, *PRIOR):
            known = f"a name of a likelihood ({', '.join(LIKELIHOOD)}) or of a prior ({', '.join(PRIOR)})"
            raise InputError("potential", known, repr(potential.name))
    with model:
        terms = [pm.logp(rv, model.rvs_to_values[rv]).sum() for rv in model.observed_RVs]
        potentials = [potential for potential in model.potentials if potential.name in LIKELIHOOD]
        terms += [pt.as_tensor(potential).sum() for potential in potentials]
        if not terms:
            raise InputError("model", "observed variables or a potential called likelihood", "neither")
        total = pt.as_tensor(sum(terms[1:], terms[0]))
        for rv in tuple(model.observed_RVs):
            model.observed_RVs.remove(rv)
            model.values_to_rvs.pop(model.rvs_to_values.pop(rv))
            model.rvs_to_transforms.pop(rv, None)
            model.rvs_to_initial_values.pop(rv, None)
            model.named_vars.pop(rv.name)
        for potential in potentials:
            model.potentials.remove(potential)
            model.named_vars.pop(potential.name)
        pm.Deterministic(_LIKELIHOOD, total)
        pm.Potential("tempered", pm.Data(_BETA, np.array(1.0)) * total)
    return model


def _forward(model: pm.Model) -> tuple[Any, bool]:
    """A function that draws the prior, in the unconstrained space, and whether it draws many at once.

    None where a part of the prior is a density alone.
    """
    import pytensor.tensor as pt
    from pymc.distributions.shape_utils import change_dist_size
    from pymc.pytensorf import compile as compiled
    from pytensor.graph.replace import vectorize_graph
    from pytensor.graph.utils import MissingInputError

    if any(potential.name not in LIKELIHOOD for potential in model.potentials):
        return None, False
    # What PyTensor says of a distribution that it cannot draw many of at once, or at all.
    unable = (NotImplementedError, ValueError, TypeError, AttributeError, MissingInputError)
    parts = []
    for rv in model.free_RVs:
        transform = model.rvs_to_transforms[rv]
        parts.append(rv if transform is None else transform.forward(rv, *rv.owner.inputs))
    point = pt.concatenate([pt.as_tensor(part).ravel() for part in parts])
    try:
        count = pt.lscalar("count")
        batch: dict[Any, Any] = {}
        for rv in model.free_RVs:
            depends = any(earlier in _ancestors(rv) for earlier in batch)
            batch[rv] = (
                vectorize_graph(rv, replace=batch) if depends else change_dist_size(rv, (count,), expand=True)
            )
        draw = compiled([count], vectorize_graph(point, replace=batch), mode="FAST_COMPILE")
        if draw(3).shape == (3, draw(1).size):
            return draw, True
    except unable:
        pass
    try:
        draw = compiled([], point, mode="FAST_COMPILE")
        draw()
    except unable:
        return None, False
    return draw, False


def _ancestors(variable: Any) -> set[Any]:
    from pytensor.graph.traversal import ancestors

    return set(ancestors([variable]))
