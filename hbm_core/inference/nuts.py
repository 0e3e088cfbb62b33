"""NUTS through nutpie: compile once per structure, sample in the background, report, stop, keep."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.errors import FitError
from hbm_core.inference.marginal import draw_effects, effective_scale, unit_log_likelihood
from hbm_core.inference.sampler import ChainProgress, Progress, Sampler
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_model import (
    build,
    data_share,
    data_values,
    moment_tau,
    samples_effects,
    structure_key,
)
from hbm_core.models.structure import ModelSpec

CORES = 2
#: Seconds between two looks at a running sampler, and between two partial traces.
_POLL, _PARTIAL_EVERY = 0.05, 2.0
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
        return structure_key(spec) in self._compiled

    def get(self, spec: ModelSpec) -> Any:
        """The compiled model of `spec`'s structure holding `spec`'s numbers and starting points."""
        import nutpie
        import pytensor

        key = structure_key(spec)
        with self._lock:
            if key not in self._compiled:
                # Under fastmath the last bit depends on whether numba's disk cache was warm, and chains
                # amplify it to other draws: a seed would not reproduce its fit.
                with pytensor.config.change_flags(numba__fastmath=False):
                    self._compiled[key] = nutpie.compile_pymc_model(build(spec))
                self.compilations += 1
                while len(self._compiled) > self.limit:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            compiled = self._compiled[key]
        # The compiled starting point belongs to whichever model was compiled first: draws would depend on
        # the history of the process.
        return replace(
            compiled.with_data(**data_values(spec)), initial_point_func=_starting_point(spec, compiled)
        )


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
        ``posterior`` (``mu``, ``tau``, ``beta`` (column), ``nu``, ``tau_star``, ``theta`` (unit), as far as
        the model has them), ``sample_stats``, ``log_likelihood`` (``y`` (unit), θ integrated out; absent
        without pooling under a flat prior), ``observed_data``, ``constant_data``. Attributes: ``partial``
        (1 if it was stopped), ``stopped`` (why, or ""), ``timing_compile``, ``timing_sample``,
        ``timing_total`` (seconds), ``versions`` and ``sampler`` (JSON), ``parameterization``.

    Raises
    ------
    FitError
        No finite start, nothing but divergences, or stopped before any draw was kept.
    """
    began = time.perf_counter()
    cache = CompileCache() if cache is None else cache
    report = on_progress or (lambda progress: None)
    waiting = ChainProgress(0, sampler.tune + sampler.draws, 0, True, 0.0)
    if spec not in cache:
        report(Progress("compiling", (waiting,) * sampler.chains))
    compiled = cache.get(spec)
    compile_seconds = time.perf_counter() - began

    sampling = time.perf_counter()
    run = _Run(compiled, sampler, spec, on_partial)
    chains, stopped = run.until_done(report, should_stop or (lambda: False), time_limit)
    sample_seconds = time.perf_counter() - sampling

    draws = _rectangle(chains)
    _refuse_useless(draws, spec, stopped)
    posterior = _posterior(spec, draws, sampler.seed)
    tree = _tree(spec, draws, posterior)
    if (values := unit_log_likelihood(spec, _flat(posterior))) is not None:
        shape = next(iter(posterior.values())).shape[:2]
        likelihood = _dataset(spec, {"y": values.reshape(*shape, -1)}, {"y": ("unit",)})
        tree["log_likelihood"] = xr.DataTree(likelihood)
    tree.attrs.update(
        partial=int(bool(stopped)),
        stopped=stopped,
        parameterization=spec.parameterization,
        sampler=json.dumps(sampler.as_dict()),
        versions=json.dumps({name: version(name) for name in ("pymc", "pytensor", "nutpie", "numpy")}),
        timing_compile=compile_seconds,
        timing_sample=sample_seconds,
        timing_total=time.perf_counter() - began,
    )
    return tree


@dataclass
class _Run:
    """A sampler at work in nutpie's threads."""

    compiled: Any
    sampler: Sampler
    spec: ModelSpec
    on_partial: Callable[[xr.DataTree], None] | None

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
                report(_progress(latest, now - began))
                if should_stop():
                    return self._chains(running.abort()), "on request"
                if time_limit is not None and now - began > time_limit:
                    return self._chains(running.abort()), f"after the time limit of {time_limit:g} s"
                if self.on_partial is not None and now - shown > _PARTIAL_EVERY:
                    shown = now
                    draws = _rectangle(self._chains(running.inspect()))
                    if draws:
                        posterior = _posterior(self.spec, draws, self.sampler.seed)
                        partial = _tree(self.spec, draws, posterior)
                        partial.attrs.update(partial=1, stopped="still running")
                        self.on_partial(partial)
        except BaseException:
            running.cancel()
            raise

    def _finished(self, chains: list[_Chain]) -> Progress:
        total = self.sampler.tune + self.sampler.draws
        done = [
            ChainProgress(total, total, int(chain["diverging"].sum()), False, float(chain["step_size"][-1]))
            for chain in chains
        ]
        return Progress("sampling", tuple(done), 0.0)

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


def _progress(latest: list[Any], elapsed: float) -> Progress:
    chains = tuple(
        ChainProgress(
            c.finished_draws, c.total_draws, c.divergences, c.tuning, float(np.nan_to_num(c.step_size))
        )
        for c in latest
    )
    progress = Progress("sampling", chains)
    if not progress.fraction:
        return progress
    return replace(progress, seconds_left=elapsed * (1 / progress.fraction - 1))


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


def _posterior(spec: ModelSpec, draws: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The model's own parameters, in order, θ and τ* completed: arrays (chain, draw, …)."""
    structure = spec.structure
    posterior = {name: draws[name] for name in structure.parameters}
    if structure.pooling == "none":
        return posterior
    if structure.pooling == "partial" and structure.scale == "adaptive":
        posterior["tau_star"] = effective_scale(posterior["tau"], spec.constants)
    if samples_effects(spec):
        posterior["theta"] = draws["theta"]
    else:
        # A stream of its own: nutpie's chains use the seed itself.
        rng = np.random.default_rng([seed, 1])
        effects = draw_effects(spec, _flat(posterior), rng)
        posterior["theta"] = effects.reshape(*posterior["mu"].shape, -1)
    return posterior


def _flat(posterior: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values.reshape(-1, *values.shape[2:]) for name, values in posterior.items()}


def _dataset(
    spec: ModelSpec, arrays: Mapping[str, np.ndarray], dims: Mapping[str, tuple[str, ...]]
) -> xr.Dataset:
    coords = {"unit": list(spec.structure.units), "column": list(spec.structure.columns)}
    found = {name: (("chain", "draw", *dims.get(name, ())), values) for name, values in arrays.items()}
    shape = next(iter(arrays.values())).shape
    used = {dim for entry in dims.items() for dim in entry[1] if entry[0] in arrays}
    index = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    return xr.Dataset(found, coords=index | {dim: coords[dim] for dim in sorted(used)})


def _tree(
    spec: ModelSpec, draws: Mapping[str, np.ndarray], posterior: Mapping[str, np.ndarray]
) -> xr.DataTree:
    structure = spec.structure
    statistics = {name: draws[name] for name in _STATISTICS.values() if name in draws}
    unit = {"unit": list(structure.units)}
    constant: dict[str, Any] = {"se": ("unit", structure.se)}
    if structure.columns:
        constant["design"] = (("unit", "column"), structure.design)
        constant_coords: dict[str, Any] = unit | {"column": list(structure.columns)}
    else:
        constant_coords = unit
    return xr.DataTree.from_dict(
        {
            "posterior": _dataset(spec, posterior, {"theta": ("unit",), "beta": ("column",)}),
            "sample_stats": _dataset(spec, statistics, {}),
            "observed_data": xr.Dataset({"y": ("unit", structure.effect)}, coords=unit),
            "constant_data": xr.Dataset(constant, coords=constant_coords),
        }
    )


def _starting_point(spec: ModelSpec, compiled: Any) -> Callable[[Any], np.ndarray]:
    """A function from a seed to a start in the sampler's coordinates, from these data and priors alone.

    Hyperparameters start near moment estimates, drawn into the middle 90 % of their priors, each with a
    jitter on its own scale, so that a change of units changes nothing.
    """
    structure = spec.structure
    names, _, shapes = compiled.shape_info
    y, s = structure.effect, structure.se
    precision = 1 / s**2
    tau = max(moment_tau(structure), 0.5 * structure.typical_se)
    centre = {"mu": float(precision @ y / precision.sum()), "tau": tau, "beta": 0.0, "nu": 10.0, "theta": y}
    width = {"mu": 1 / np.sqrt(precision.sum()), "beta": tau, "theta": s}
    plain = {}
    for name, prior in spec.priors.items():
        value = np.asarray(centre[name], dtype=float)
        plain[name] = np.clip(value, *prior.distribution.ppf([0.05, 0.95])) if prior.proper else value
    share = data_share(structure)

    def start(seed: Any) -> np.ndarray:
        rng = np.random.default_rng(seed)
        parts = []
        for name, shape in zip(names, shapes, strict=True):
            jitter = rng.uniform(-1, 1, size=tuple(int(length) for length in shape))
            parameter = name.removesuffix("_log__").removesuffix("_interval__")
            if parameter in spec.priors and name != parameter:
                parts.append(_unconstrained(name, spec.priors[parameter], plain[parameter]) + jitter)
            elif parameter in spec.priors:
                parts.append(plain[parameter] + width[parameter] * jitter)
            elif name == "theta":
                parts.append(plain["mu"] + 0.5 * (y - plain["mu"]) + 0.5 * tau * jitter)
            elif name == "theta_tilde":
                parts.append(share * plain["mu"] + plain["tau"] ** share * jitter)
            else:
                parts.append(jitter)
            if sum(part.size for part in parts) >= compiled.n_dim:
                break
        return np.concatenate([np.ravel(part) for part in parts])

    return start


def _unconstrained(name: str, prior: Prior, value: np.ndarray) -> np.ndarray:
    """PyMC's log or interval transform of a parameter's value."""
    if name.endswith("_interval__"):
        lower, upper = prior.support
        return np.log(value - lower) - np.log(upper - value)
    return np.log(value)


def _no_start(spec: ModelSpec, error: Exception) -> str:
    """Say in words which terms of the log posterior are not finite where chains start."""
    structure = spec.structure
    with np.errstate(all="ignore"):
        z = (structure.effect - np.median(structure.effect)) / structure.se
        extreme = [unit for unit, value in zip(structure.units, z, strict=True) if not abs(value) < 1e100]
    if extreme:
        reason = f"the effects of {', '.join(extreme[:5])} lie too many standard errors from the others"
    else:
        numbers = ", ".join(f"{name} ~ {prior.text}" for name, prior in spec.priors.items())
        reason = f"the log density is not finite under {numbers}"
    return (
        f"No chain found a starting point: {reason}. Check the units of the data and the priors' numbers. "
        f"(nutpie: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"
    )


def _refuse_useless(draws: Mapping[str, np.ndarray], spec: ModelSpec, stopped: str) -> None:
    if not draws:
        raise FitError(f"The fit was stopped {stopped} while it was still warming up: no draw was kept.")
    diverging = draws["diverging"]
    if diverging.all():
        others = [p for p in spec.structure.parameterizations if p != spec.parameterization]
        advice = f"try the parameterization {' or '.join(others)}, or " if others else ""
        raise FitError(
            f"All {diverging.size} kept draws diverged, so they say nothing about the posterior: {advice}"
            "check that the priors' numbers fit the scale of the data, and raise target_accept."
        )
