"""NUTS through nutpie: compile once per structure, sample in the background, report, stop, keep."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import xarray as xr

from hbm_core.errors import FitError
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import attributes, result_tree
from hbm_core.inference.sampler import CORES, ChainProgress, Progress, Sampler
from hbm_core.models.structure import ModelSpec

#: Seconds between two looks at a running sampler, and between two partial traces.
_POLL, _PARTIAL_EVERY = 0.05, 2.0
#: Doublings of a trajectory, at most: nutpie's own limit, and a pilot's.
_DEPTH, _PILOT_DEPTH = 10, 7
#: nutpie's statistics that are kept, under ArviZ's names.
_STATISTICS = {
    "diverging": "diverging",
    "energy": "energy",
    "logp": "lp",
    "depth": "tree_depth",
    "maxdepth_reached": "reached_max_treedepth",
    "n_steps": "n_steps",
    "step_size": "step_size",
    "mean_tree_accept": "acceptance_rate",
}
_Chain = dict[str, np.ndarray]


class Buildable(Protocol):
    """What compiling needs: a key without numbers, the model in PyMC, and its data."""

    def key(self, spec: Any) -> Hashable:
        """What decides the compiled code."""

    def build(self, spec: Any) -> Any:
        """The model in PyMC."""

    def data(self, spec: Any) -> dict[str, np.ndarray]:
        """Every ``pm.Data`` of it with its value."""


class CompileCache:
    """Compiled models by structure, the least recently used dropped first.

    Parameters
    ----------
    limit : int
        How many compiled models are kept.

    Attributes
    ----------
    compilations : int
        How many models have been compiled so far.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit, self.compilations = limit, 0
        self._compiled: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._compiled)

    def __contains__(self, spec: ModelSpec) -> bool:
        return self.holds(recipe(spec).key(spec))

    def holds(self, key: Hashable) -> bool:
        """Whether a model of this key is kept."""
        return key in self._compiled

    def get(self, spec: ModelSpec) -> Any:
        """The compiled model of `spec`'s structure holding `spec`'s numbers and starting points."""
        compiled, how = self.of(recipe(spec), spec), recipe(spec)
        # The compiled starting point belongs to whichever model was compiled first: draws would depend on
        # the history of the process.
        return replace(compiled, initial_point_func=how.start(spec, compiled))

    def of(self, how: Buildable, spec: ModelSpec) -> Any:
        """The compiled model that `how` makes of `spec`, holding its numbers."""
        import nutpie
        import pytensor

        key = how.key(spec)
        with self._lock:
            if key not in self._compiled:
                # Under fastmath the last bit depends on whether numba's disk cache was warm, and chains
                # amplify it to other draws: a seed would not reproduce its fit.
                with pytensor.config.change_flags(numba__fastmath=False):
                    self._compiled[key] = nutpie.compile_pymc_model(how.build(spec))
                self.compilations += 1
                while len(self._compiled) > self.limit:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            compiled = self._compiled[key]
        return compiled.with_data(**how.data(spec))


def warm(cache: CompileCache, specs: Iterable[ModelSpec]) -> None:
    """Compile what `specs` need, and run each for a few draws so that nothing is loaded later."""
    for spec in specs:
        # Twenty draws may all diverge; what counts is that everything has been called once.
        with suppress(FitError):
            sample(spec, Sampler(draws=10, tune=10, chains=1), cache=cache)


def sample(
    spec: ModelSpec,
    sampler: Sampler,
    *,
    cache: CompileCache | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_partial: Callable[[xr.DataTree], None] | None = None,
    time_limit: float | None = None,
) -> xr.DataTree:
    """Sample a posterior.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    sampler : Sampler
        Settings; each chain derives its own seed from the one given.
    cache : CompileCache, optional
        Where compiled models are kept; a new one otherwise.
    on_progress, on_partial : callable, optional
        Called in the calling thread: with where the fit stands, about 20 times a second, and every two
        seconds with the draws so far (groups ``posterior`` and ``sample_stats``).
    should_stop : callable, optional
        Asked at the same rate; True ends the fit and keeps what there is.
    time_limit : float, optional
        Seconds of sampling after which the fit ends and keeps what there is.

    Returns
    -------
    xarray.DataTree
        ``posterior`` (the variables of the structure's `Recipe`), ``sample_stats``, ``log_likelihood``
        (``y`` (unit), the unit's effect integrated out; absent without pooling under a flat prior),
        ``observed_data``, ``constant_data``. Attributes: ``partial``
        (1 if it was stopped), ``stopped`` (why, or ""), ``timing_compile``, ``timing_sample``,
        ``timing_complete`` (draws of what was integrated out), ``timing_total`` (seconds),
        ``versions`` and ``sampler`` (JSON), ``parameterization``.

    Raises
    ------
    FitError
        No finite start, nothing but divergences, or stopped before any draw was kept.
    """
    began = time.perf_counter()
    cache = CompileCache() if cache is None else cache
    report = on_progress or (lambda progress: None)
    if spec not in cache:
        report(Progress.compiling(sampler.chains, sampler.tune + sampler.draws))
    compiled = cache.get(spec)
    compile_seconds = time.perf_counter() - began

    sampling = time.perf_counter()
    stop = should_stop or (lambda: False)
    pilot, before, stopped = recipe(spec).pilot(spec, sampler), 0, ""
    if pilot is not None:
        before = pilot.tune + pilot.draws
        run = _Run(compiled, pilot, spec, None, after=sampler.tune + sampler.draws)
        chains, stopped = run.until_done(report, stop, time_limit)
        # A pilot that was stopped is what there is.
        if not stopped:
            shaped = recipe(spec).shaped(spec, _rectangle(chains))
            compiled = compiled.with_data(**shaped)
            if time_limit is not None and time.perf_counter() - sampling > time_limit:
                stopped = _too_long(time_limit)
    if not stopped:
        run = _Run(compiled, sampler, spec, on_partial, before, spent=time.perf_counter() - sampling)
        chains, stopped = run.until_done(report, stop, time_limit)
    sample_seconds = time.perf_counter() - sampling

    draws = _rectangle(chains)
    _refuse_useless(draws, spec, stopped)
    statistics = {name: draws[name] for name in _STATISTICS.values() if name in draws}
    completing = time.perf_counter()
    posterior = recipe(spec).complete(spec, draws, sampler.seed)
    complete_seconds = time.perf_counter() - completing
    tree = result_tree(spec, posterior, statistics)
    for name, group in recipe(spec).groups(spec, draws).items():
        tree[name] = xr.DataTree(group)
    total = time.perf_counter() - began
    tree.attrs |= attributes(
        spec, sampler, stopped,
        compile=compile_seconds, sample=sample_seconds, complete=complete_seconds, total=total,
    )  # fmt: skip
    return tree


@dataclass
class _Run:
    """A sampler at work in nutpie's threads."""

    compiled: Any
    sampler: Sampler
    spec: ModelSpec
    on_partial: Callable[[xr.DataTree], None] | None
    #: Draws of a chain in runs of the same fit that come before and after this one; where some come after, it
    #: is a pilot, and no trajectory is long.
    before: int = 0
    after: int = 0
    #: Seconds of the time limit that are gone.
    spent: float = 0.0

    def until_done(
        self, report: Callable[[Progress], None], should_stop: Callable[[], bool], time_limit: float | None
    ) -> tuple[list[_Chain], str]:
        """Kept draws per chain, and why it ended early ("" if it did not)."""
        import nutpie

        latest: list[Any] = []
        began = shown = time.perf_counter()
        try:
            running = nutpie.sample(
                self.compiled,
                draws=self.sampler.draws,
                tune=self.sampler.tune,
                chains=self.sampler.chains,
                cores=min(CORES, self.sampler.chains),
                seed=self.sampler.seed,
                target_accept=self.sampler.target_accept,
                save_warmup=False,
                progress_bar=False,
                progress_callback=lambda chains: latest.__setitem__(slice(None), chains),
                progress_rate=int(1000 * _POLL),
                return_raw_trace=True,
                blocking=False,
                adaptation=recipe(self.spec).mass_matrix(self.spec),
                maxdepth=_PILOT_DEPTH if self.after else _DEPTH,
            )
        except RuntimeError as error:
            raise FitError(_no_start(self.spec, error)) from error
        try:
            while True:
                try:
                    chains = self._chains(running.wait(timeout=_POLL))
                except TimeoutError:
                    pass
                except RuntimeError as error:
                    raise FitError(_no_start(self.spec, error)) from error
                else:
                    report(self._finished(chains))
                    return chains, ""
                now = time.perf_counter()
                so_far = _progress(latest, now - began, self.before, self.after)
                report(so_far)
                if should_stop():
                    report(replace(so_far, stage="saving"))
                    return self._chains(running.abort()), "on request"
                if time_limit is not None and self.spent + now - began > time_limit:
                    report(replace(so_far, stage="saving"))
                    return self._chains(running.abort()), _too_long(time_limit)
                if self.on_partial is not None and now - shown > _PARTIAL_EVERY:
                    shown = now
                    draws = _rectangle(self._chains(running.inspect()))
                    if draws:
                        posterior = recipe(self.spec).complete(self.spec, draws, self.sampler.seed)
                        statistics = {name: draws[name] for name in _STATISTICS.values() if name in draws}
                        partial = result_tree(self.spec, posterior, statistics, likelihood=False)
                        partial.attrs.update(partial=1, stopped="still running")
                        self.on_partial(partial)
        except BaseException:
            running.cancel()
            raise

    def _finished(self, chains: list[_Chain]) -> Progress:
        done = self.before + self.sampler.tune + self.sampler.draws
        total, early = done + self.after, bool(self.after)
        rows = [
            ChainProgress(done, total, int(chain["diverging"].sum()), early, float(chain["step_size"][-1]))
            for chain in chains
        ]
        # Effects of units, their likelihood and the checks come after the last draw.
        return Progress("sampling" if early else "saving", tuple(rows), None if early else 0.0)

    def _chains(self, raw: Any) -> list[_Chain]:
        """Draws and statistics after warm-up, one mapping per chain, from nutpie's Arrow batches."""
        return [
            {name: values for batch in pair for name, values in _columns(batch, pair[1])}
            for pair in zip(*raw.get_arrow_trace(), strict=True)
        ]


def _columns(batch: Any, statistics: Any) -> Iterable[tuple[str, np.ndarray]]:
    import pyarrow as pa

    kept = ~pa.array(statistics.column("tuning")).to_numpy(zero_copy_only=False).astype(bool)
    is_statistic = "diverging" in batch.column_names
    for name in batch.column_names:
        if is_statistic and name not in _STATISTICS:
            continue
        column = batch.column(name)
        shape = (column.field.metadata or {}).get(b"shape", b"").decode()
        lengths = [int(length) for length in shape.split(",") if length]
        values = pa.array(column)
        flat = values.flatten() if hasattr(values, "flatten") else values
        array = flat.to_numpy(zero_copy_only=False).reshape(len(kept), *lengths)[kept]
        if array.dtype == np.uint64:
            array = array.astype(np.int64)
        yield _STATISTICS.get(name, name) if is_statistic else name, array


def _too_long(limit: float) -> str:
    return f"after the time limit of {limit:g} s"


def _progress(latest: list[Any], elapsed: float, before: int = 0, after: int = 0) -> Progress:
    chains = tuple(
        ChainProgress(
            before + c.finished_draws,
            before + c.total_draws + after,
            c.divergences,
            c.tuning or bool(after),
            float(np.nan_to_num(c.step_size)),
        )
        for c in latest
    )
    progress, done = Progress("sampling", chains), sum(c.finished_draws for c in latest)
    if not done:
        return progress
    # At the pace of this run.
    left = sum(chain.total - chain.finished for chain in chains)
    return replace(progress, seconds_left=elapsed * left / done)


def _rectangle(chains: list[_Chain]) -> dict[str, np.ndarray]:
    """Stack chains of unequal length: the rectangle chains × draws that keeps the most draws."""
    lengths = np.array([len(chain["diverging"]) for chain in chains])
    order = np.argsort(-lengths, kind="stable")
    area = lengths[order] * np.arange(1, len(chains) + 1)
    count = int(np.argmax(area)) + 1
    if not area.size or not area.max():
        return {}
    kept, length = sorted(order[:count]), int(lengths[order[count - 1]])
    return {name: np.stack([chains[place][name][:length] for place in kept]) for name in chains[kept[0]]}


def _no_start(spec: ModelSpec, error: Exception) -> str:
    """Say in words which terms of the log posterior are not finite where chains start."""
    extreme = recipe(spec).extreme(spec)
    if excluded := _excluded(spec):
        reason = excluded
    elif extreme:
        reason = f"the effects of {', '.join(extreme[:5])} lie too many standard errors from the others"
    else:
        numbers = ", ".join(f"{name} ~ {prior.text}" for name, prior in spec.priors.items())
        reason = f"the log density is not finite under {numbers}"
    return (
        f"No chain found a starting point: {reason}. Check the units of the data and the priors' numbers. "
        f"(nutpie: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"
    )


def _excluded(spec: ModelSpec) -> str:
    """Say that the prior on the mean leaves the data no room; "" where it does."""
    prior, structure = spec.priors.get("mu"), spec.structure
    effect, se = (np.asarray(getattr(structure, name, ()), dtype=float) for name in ("effect", "se"))
    if prior is None or not prior.proper or not effect.size or not se.size:
        return ""
    low, high = prior.distribution.ppf([5e-5, 1 - 5e-5])
    lowest, highest, reach = effect.min(), effect.max(), 10 * se.max()
    if low <= highest + reach and high >= lowest - reach:
        return ""
    return (
        f"the prior mu ~ {prior.text} excludes the data (99.99 % of it lies from {low:.3g} to {high:.3g}, "
        f"the effects from {lowest:.3g} to {highest:.3g})"
    )


def _refuse_useless(draws: Mapping[str, np.ndarray], spec: ModelSpec, stopped: str) -> None:
    if not draws:
        raise FitError(f"The fit was stopped {stopped} while it was still warming up: no draw was kept.")
    diverging = draws["diverging"]
    if diverging.all():
        others = [p for p in spec.structure.parameterizations if p != spec.parameterization]
        advice = f"try the parameterization {' or '.join(others)}, or " if others else ""
        advice += "check that the priors' numbers fit the scale of the data, and raise target_accept."
        if excluded := _excluded(spec):
            advice = f"{excluded}. Choose a prior that reaches the data."
        raise FitError(
            f"All {diverging.size} kept draws diverged, so they say nothing about the posterior: {advice}"
        )
