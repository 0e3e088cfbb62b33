"""What workers run. A task is a marked function, named in the job table by its dotted path."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from hbm_core.errors import FitError, StoreError
from hbm_core.inference.exact import solve
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.inference.sampler import Progress
from hbm_core.models.dataset import Dataset
from hbm_core.models.structure import ModelSpec
from hbm_core.scenarios import scenarios
from hbm_core.store.jobs import Job
from hbm_core.store.request import FitRequest, engine_versions
from hbm_core.store.results import Result, ResultStore
from hbm_core.store.summary import summarize

if TYPE_CHECKING:
    from hbm_core.inference.blocked.engine import BlockedCache
    from hbm_core.inference.nuts import CompileCache
    from hbm_core.inference.tempering.target import TargetCache


@dataclass(frozen=True)
class Run:
    """What a task may use while it runs.

    Parameters
    ----------
    results : ResultStore
        Where data sets are read.
    time_limit : float
        Seconds it may take.
    progress, partial : callable
        Tell where it stands; show the draws so far.
    should_stop : callable
        Cheap; True as soon as nobody waits for it.
    """

    results: ResultStore
    time_limit: float
    progress: Callable[[Progress], None]
    partial: Callable[[xr.DataTree], None]
    should_stop: Callable[[], bool]


Task = Callable[[Job, Run], Result]


def task(function: Task) -> Task:
    """Mark a function as one that the job table may name."""
    function.is_task = True  # type: ignore[attr-defined]
    return function


def find(path: str) -> Task:
    """The task at a dotted path; StoreError where there is no such function, or it is not marked."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StoreError(f"This version has no task {path}.") from error
    if not getattr(found, "is_task", False):
        raise StoreError(f"{path} is not a task.")
    return found


@task
def fit(job: Job, run: Run) -> Result:
    """Fit what the job's request says to the data it names."""
    request = FitRequest.from_dict(json.loads(job.request))
    refuse_other_versions(request)

    def should_stop() -> bool:
        # Nobody waits for the draws so far, and completing them may take longer than drawing them did.
        if run.should_stop():
            raise FitError("The fit was stopped.")
        return False

    dataset = run.results.dataset(request.data)
    tree = run_fit(
        request,
        dataset,
        progress=run.progress,
        should_stop=should_stop,
        partial=run.partial,
        time_limit=run.time_limit,
    )
    return result_of(tree, request.spec(dataset))


def refuse_other_versions(request: FitRequest) -> None:
    """Raise FitError where a request names other versions than are installed: its draws would be others.

    A fit that waited while the server was brought up to date is such a request.
    """
    here = engine_versions()
    wrong = ", ".join(
        f"{name} {here.get(name, 'absent')} instead of {version}"
        for name, version in request.versions.items()
        if here.get(name) != version
    )
    if wrong:
        raise FitError(
            f"This fit was asked for with other versions than are installed here ({wrong}), and its draws "
            "would not be those that were asked for. Ask for it again."
        )


def run_fit(
    request: FitRequest,
    dataset: Dataset,
    *,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    partial: Callable[[xr.DataTree], None] | None = None,
    time_limit: float | None = None,
) -> xr.DataTree:
    """The posterior that a request asks for, by the engine it names.

    Raises
    ------
    InputError
        The request and the data do not fit.
    FitError
        The engine found no answer; the message says why.
    """
    spec = request.spec(dataset)
    if request.engine == "exact":
        return exact_draws(spec, request.sampler.chains, request.sampler.draws, request.sampler.seed)
    if request.engine == "variational":
        from hbm_core.inference.variational import approximate

        return approximate(
            spec,
            request.sampler,
            cache=compiled(),
            on_progress=progress,
            should_stop=should_stop,
            time_limit=time_limit,
        )
    draw: Any
    cache: Any
    if request.engine == "tempering":
        from hbm_core.inference.tempering.engine import temper

        draw, cache = temper, targets()
    elif request.engine == "blocked":
        from hbm_core.inference.blocked.engine import sample as in_blocks

        draw, cache = in_blocks, blocks()
    else:
        from hbm_core.inference.nuts import sample

        draw, cache = sample, compiled()
    found: xr.DataTree = draw(
        spec,
        request.sampler,
        cache=cache,
        on_progress=progress,
        should_stop=should_stop,
        on_partial=partial,
        time_limit=time_limit,
    )
    return found


def exact_draws(spec: ModelSpec, chains: int, draws: int, seed: int) -> xr.DataTree:
    """Independent draws from the exact posterior, in the shape of a sampler's result.

    Parameters
    ----------
    spec : ModelSpec
        A model that has an exact engine.
    chains, draws : int
        Shape of the result.
    seed : int
        Makes it reproducible.
    """
    began = time.perf_counter()
    posterior = solve(spec)
    found = {name: np.asarray(values) for name, values in posterior.draws(chains * draws, seed).items()}
    shaped = {name: values.reshape(chains, draws, *values.shape[1:]) for name, values in found.items()}
    tree = result_tree(spec, shaped)
    seconds = time.perf_counter() - began
    tree.attrs.update(
        partial=0, stopped="", parameterization=spec.parameterization,
        timing_compile=0.0, timing_sample=seconds, timing_total=seconds,
    )  # fmt: skip
    return tree


def result_of(tree: xr.DataTree, spec: ModelSpec | None = None) -> Result:
    """A posterior with its summary, compared with the exact one of `spec`, and its engine's timings."""
    timings = {
        str(name).removeprefix("timing_"): float(value)
        for name, value in tree.attrs.items()
        if str(name).startswith("timing_")
    }
    partial, stopped = bool(tree.attrs.get("partial", 0)), str(tree.attrs.get("stopped", ""))
    summary = summarize(tree, spec) | {"timings": timings, "partial": partial, "stopped": stopped}
    return Result(tree, summary, timings, partial, stopped)


@cache
def compiled() -> CompileCache:
    """Compiled models of this process."""
    from hbm_core.inference.nuts import CompileCache

    return CompileCache()


@cache
def blocks() -> BlockedCache:
    """Compiled halves of the blocked engine of this process."""
    from hbm_core.inference.blocked.engine import BlockedCache

    return BlockedCache(compiled())


@cache
def targets() -> TargetCache:
    """Compiled targets of tempering of this process."""
    from hbm_core.inference.tempering.target import TargetCache

    return TargetCache()


def warm_up() -> Iterator[str]:
    """Compile the scenarios' default models, one per step, and yield its scenario's id."""
    from hbm_core.inference.nuts import warm

    for id, found in scenarios().items():
        if not found.warm:
            continue
        dataset = found.dataset(found.default_dataset)
        model = found.model(found.default_model)
        spec = model.spec(
            dataset,
            model.priors(dataset, ()),
            model.constants(dataset),
            (),
            model.parameterizations[0],
        )
        warm(compiled(), [spec])
        yield id
