"""Truths ranked among draws: calibration of the engines that sample or approximate a posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from hbm_core.analysis.draws import flat_draws
from hbm_core.inference.sampler import Sampler
from hbm_core.models.structure import ModelSpec

#: Settings for one simulated data set's posterior, by engine.
STUDIES = MappingProxyType(
    {
        "nuts": Sampler(draws=500, tune=500, chains=2, target_accept=0.95),
        "tempering": Sampler(draws=400, tune=200, chains=2, target_accept=0.3, temperatures=8),
        "variational": Sampler(draws=100, chains=1),
    }
)
#: Draws among which a truth is ranked, thinned so far that they hardly depend on each other.
_RANKED = 100


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws in the place of an exact posterior, for ranks.

    Parameters
    ----------
    names : tuple of str
        Flat names.
    values : ndarray (n, P)
        Draws.
    rng : numpy.random.Generator
        Breaks ties: a rank becomes uniform on its step.
    """

    names: tuple[str, ...]
    values: np.ndarray
    rng: np.random.Generator

    def cdf(self, name: str, at: np.ndarray) -> np.ndarray:
        """Randomised ranks of `at`, as probabilities: uniform where the truth is one more draw."""
        draws = self.values[:, self.names.index(name)]
        below = (draws[:, None] < np.ravel(at)).sum(axis=0)
        return (below + self.rng.random(below.size)) / (len(draws) + 1)


def solver(engine: str) -> Callable[[ModelSpec[Any]], Any]:
    """What `sbc_pit` takes as its solver, for an engine of `STUDIES`; it can be sent to other processes."""
    return partial(drawn, engine=engine)


def drawn(spec: ModelSpec[Any], engine: str) -> Drawn:
    """Thinned draws of a posterior, in the shape that `sbc_pit` ranks in.

    The seed follows from the data, so that every simulated data set has its own and a study repeats.

    Parameters
    ----------
    spec : ModelSpec
        The model with one simulated data set.
    engine : str
        One of `STUDIES`.
    """
    effect = np.ascontiguousarray(spec.structure.effect, dtype=float)
    seed = int(np.random.SeedSequence(effect.view(np.uint32).tolist()).generate_state(1)[0])
    settings = replace(STUDIES[engine], seed=seed)
    if engine == "tempering":
        from hbm_core.inference.tempering.engine import temper

        tree = temper(spec, settings, cache=_targets())
    elif engine == "variational":
        from hbm_core.inference.variational import approximate

        tree = approximate(spec, settings, cache=_compiled())
    else:
        from hbm_core.inference.nuts import sample

        tree = sample(spec, settings, cache=_compiled())
    names, draws = flat_draws(tree["posterior"].to_dataset(), None, "all")
    values = draws.reshape(len(names), -1).T
    step = max(1, len(values) // _RANKED)
    return Drawn(tuple(names), values[::step], np.random.default_rng([seed, 9]))


@cache
def _targets() -> Any:
    from hbm_core.inference.tempering.target import TargetCache

    return TargetCache()


@cache
def _compiled() -> Any:
    from hbm_core.inference.nuts import CompileCache

    return CompileCache()
