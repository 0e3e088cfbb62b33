"""Blocked sampling of circuits whose covariance is inferred.

What makes `full` slow under NUTS is that its two halves ask for different steps: curves are dear and, in the
transport's coordinates and for a given Σ, nearly normal; Σ's many correlations are far from normal, but given
the circuits no curve depends on them. So a sweep takes turns (Gibbs):

1. circuits, their means α and the noise given Σ: a Hamiltonian trajectory, scaled by what Σ and the readings
   say of α at that moment. It goes by curves in few long steps of the solver, where those steer it well
   enough; its ends are judged by the exact ones, so that only the chance to be accepted may suffer;
2. α given circuits and Σ: a draw from its normal;
3. Σ given circuits and α: trajectories that hear no reading, constants that a circuit does not use integrated
   out, and drawn anew afterwards.

A draw is kept after every few sweeps. The first part of warm-up is a pilot, whose circuits show where the
transport has to follow ridges. Scales are those of all chains together; after warm-up nothing is adapted.

References
----------
Neal (2011), MCMC using Hamiltonian dynamics, Handbook of MCMC, section 5.5.1, for trajectories over parts of
the state; Liu (1994), JASA 89(427), for integrating out before drawing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.errors import FitError, InputError
from hbm_core.inference.nuts import CompileCache
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import attributes, result_tree
from hbm_core.inference.sampler import CORES, ChainProgress, Progress, Sampler
from hbm_core.inference.variational import Target
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.structure import ModelSpec

Spec = ModelSpec[Any]
#: Sweeps per draw: neighbouring ones are much alike.
SWEEPS = 4
#: Share of warm-up that is the pilot, and where rounds of adaptation end, as shares of each part.
_PILOT, _ROUNDS = 0.4, (0.08, 0.2, 0.5, 1.0)
#: Lengths of trajectories in standard units, of circuits and of Σ; trajectories of Σ in a sweep; most steps.
_LENGTHS, _REPEATS, _MOST = np.array([0.75 * np.pi, 0.5 * np.pi]), 2, 64
#: Acceptance that trajectories of Σ are adapted to.
_OUTER_TARGET = 0.85
#: First steps; scale of the noise's coordinates before any is known; draws of warm-up that weigh as much as
#: what is thought before, per dimension.
_STEP, _FIRST, _WEIGHT = 0.2, 0.1, 5.0
#: Trajectories go by long steps where what these do to the log density differs by no more than this, sd in
#: nats, between states; late states per chain that tell.
_OFF, _TOLD = 0.7, 40
#: What `hbm_core.models.circuits_rule.given` writes.
_PARTS = ("back", "push", "tilt", "share", "constant")
#: Starts that are tried.
_STARTS = 20
#: Sweeps between two looks at who wants to stop, at first, and the seconds they should take.
_STRIDE, _LOOK, _PARTIAL_EVERY = 5, 0.1, 2.0


def applies(spec: ModelSpec) -> bool:
    """Whether a model has the two halves: correlated circuits under LKJ's prior, in the transport."""
    from hbm_core.models.pymc_circuits import is_relative

    return isinstance(spec.structure, CircuitPopulation) and is_relative(spec)


def refuse_others(spec: ModelSpec) -> None:
    """Raise InputError, with what to do, where `applies` does not."""
    if not applies(spec):
        raise InputError(
            "engine blocked",
            "circuits with correlated rate constants under an LKJ prior, in the transport parameterization",
            f"{type(spec.structure).__name__} in the {spec.parameterization} parameterization",
            "Choose --engine nuts.",
        )


class BlockedCache:
    """Compiled densities by structure: of everything, kept by `nuts`, and of either half given the other."""

    def __init__(self, whole: CompileCache | None = None) -> None:
        self.whole = CompileCache() if whole is None else whole
        self.halves = CompileCache()

    def __contains__(self, spec: ModelSpec) -> bool:
        return spec in self.whole and all(self.halves.holds(half.key(spec)) for half in (_GIVEN, _ALONE))

    def get(self, spec: ModelSpec) -> tuple[Any, Any, Any]:
        """Compiled models of everything, of circuits given Σ, and of σ and Ω given circuits."""
        return self.whole.get(spec), self.halves.of(_GIVEN, spec), self.halves.of(_ALONE, spec)


@dataclass(frozen=True)
class _Half:
    """What `CompileCache` must know of one half given the other."""

    name: str

    def key(self, spec: Spec) -> Any:
        from hbm_core.models.pymc_circuits import structure_key

        return self.name, structure_key(spec)

    def build(self, spec: Spec) -> Any:
        from hbm_core.models import pymc_circuits

        return getattr(pymc_circuits, f"build_{self.name}")(spec)

    def data(self, spec: Spec) -> dict[str, np.ndarray]:
        from hbm_core.models import pymc_circuits

        found: dict[str, np.ndarray] = getattr(pymc_circuits, f"{self.name}_values")(spec)
        return found


_GIVEN, _ALONE = _Half("given"), _Half("population")


@dataclass(eq=False)
class _Chain:
    """The state of one chain, and the data that only it reads."""

    x: np.ndarray
    rng: np.random.Generator
    #: Compiled: circuits given Σ by exact curves and by those of long steps, and Σ given circuits.
    exact: Any
    near: Any
    alone: Any
    parts: tuple[np.ndarray, ...]
    own: np.ndarray
    middle: np.ndarray
    owed: np.ndarray = field(default_factory=lambda: np.full(1, np.nan))
    log_step: np.ndarray = field(default_factory=lambda: np.log([_STEP, _STEP]))
    learned: int = 1
    #: Of this round, each (n, …): ``x``, ``standard`` (coordinates), ``lp``, ``accept``, ``steps``, ``lost``.
    rounds: list[dict[str, np.ndarray]] = field(default_factory=list)

    def gathered(self, name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in self.rounds])


class _Blocks:
    """Chains at work."""

    def __init__(self, spec: Spec, sampler: Sampler, whole: Any, given: Any, alone: Any) -> None:
        from hbm_core.models.pymc_circuits import population

        self.spec, self.sampler = spec, sampler
        self.whole, self.given, self.alone = whole, given, alone
        #: Whether trajectories go by long steps.
        self.by_near = False
        names, slices, _ = whole.shape_info
        self.slices: dict[str, slice] = dict(zip(names, slices, strict=True))
        if "sigma_log__" not in self.slices:
            raise InputError(
                "prior on sigma",
                "one on all positive numbers: the blocked engine moves log sigma",
                spec.priors["sigma"].text,
                "Choose another family, or --engine nuts.",
            )
        self.uses = spec.structure.uses.astype(float)
        self.count, self.size = self.uses.shape
        self.median, self.sd = (np.ascontiguousarray(part[: self.size]) for part in population(spec))
        self.dimensions = int(whole.n_dim)
        places = np.arange(self.dimensions)
        self.outer = np.concatenate([places[self.slices[name]] for name in ("sigma_log__", "below")])
        own_names, own_slices, _ = given.shape_info
        own = own_names[: np.searchsorted([part.start for part in own_slices], int(given.n_dim))]
        self.inner = np.concatenate([places[self.slices[name]] for name in own])
        alpha, u = places[self.slices["alpha"]], places[self.slices["u"]]
        #: Which of the inner coordinates have no scale of their own: neither α of the fitted nor u.
        self.scaled = np.flatnonzero(~np.isin(self.inner, np.concatenate([alpha[: self.size], u])))
        self.at = np.array([self.slices[n].start for n in ("alpha", "sigma_log__", "below", "u")])
        first = np.ones(self.inner.size)
        first[self.scaled] = _FIRST
        self.learnt = np.diag(first)
        self.outer_factor = np.ones((1, self.outer.size))
        self.shape(recipe(spec).data(spec))
        self.chains = [self._begun(chain) for chain in range(sampler.chains)]

    def shape(self, data: Mapping[str, np.ndarray]) -> None:
        """Take the transport's data."""
        from hbm_core.models.pymc_circuits import BENDS, placed_values

        self.whole = self.whole.with_data(**{name: data[name] for name in BENDS})
        self.bends = tuple(np.ascontiguousarray(data[name], dtype=float) for name in BENDS)
        placed = placed_values(data)
        self.turned = placed["bend_inner"]
        self.given = self.given.with_data(**placed)
        self.order = np.ascontiguousarray(data["order"], dtype=np.int64)
        self.reference = np.ascontiguousarray(data["reference"])

    def _begun(self, chain: int) -> _Chain:
        from hbm_core.inference.trajectory import log_density

        rng = np.random.default_rng([self.sampler.seed, 6, chain])
        value, slope = np.zeros(1), np.empty(self.dimensions)
        for seed in rng.integers(2**32, size=_STARTS):
            x = np.asarray(self.whole.initial_point_func(int(seed)), dtype=float)
            if log_density(*_address(self.whole), x, slope, value):
                break
        else:
            raise FitError(
                "No start has a finite density: check the units of the data and the priors' numbers."
            )
        # Arrays of its own: what one chain writes there no other one reads.
        alone = self.alone.with_data(own=np.zeros((self.count, self.size)), middle=np.zeros(self.size))
        own, middle = (_writable(alone, name) for name in ("own", "middle"))
        return _Chain(x, rng, **self._halves(), alone=alone, own=own, middle=middle)

    def _halves(self) -> dict[str, Any]:
        """What a chain has of circuits given Σ, in arrays of its own that both densities read."""
        from hbm_core.models.pymc_circuits import heard_values

        stiff = self.bends[3].shape[1]
        square = np.zeros((self.count, self.size, self.size))
        share = np.zeros((self.count, stiff, stiff))
        exact = self.given.with_data(back=square[0], push=square, tilt=square, share=share, constant=[0.0])
        near = exact.with_data(**heard_values(self.spec.structure.thinned))
        return {"exact": exact, "near": near, "parts": tuple(_writable(exact, name) for name in _PARTS)}

    def advance(self, chain: _Chain, count: int, thin: int, learning: bool) -> None:
        """`count` draws of `thin` sweeps each."""
        from hbm_core.inference.blocked.kernel import sweep

        made = {
            "x": np.empty((count, self.dimensions)),
            "standard": np.empty((count if learning else 0, self.inner.size)),
            "lp": np.empty(count),
            "accept": np.empty((count, 2)),
            "steps": np.empty(count, dtype=np.int64),
            "lost": np.empty(count, dtype=np.bool_),
        }
        near, exact = (chain.near, chain.exact) if self.by_near else (chain.exact, None)
        sweep(
            *_address(self.whole), *_address(near), *_address(exact), *_address(chain.alone),
            chain.x, chain.owed, self.at, self.inner, self.outer, self.order, self.reference,
            self.uses, self.median, self.sd, self.bends, self.turned, chain.parts, chain.own, chain.middle,
            self.learnt, self.outer_factor, chain.log_step, _LENGTHS, _MOST,
            np.array([self.sampler.target_accept, _OUTER_TARGET]), _REPEATS,
            chain.learned if learning else 0, thin, chain.rng, *made.values(),
        )  # fmt: skip
        chain.learned += count * thin
        chain.rounds.append(made)

    def adapt(self, last: bool) -> None:
        """End a round of warm-up: steps and, but for the last round, scales from all chains together."""
        step = np.mean([chain.log_step for chain in self.chains], axis=0)
        x, standard = (
            np.concatenate(
                [late[len(late) // 3 :] for late in (chain.gathered(name) for chain in self.chains)]
            )
            for name in ("x", "standard")
        )
        for chain in self.chains:
            chain.rounds.clear()
            chain.log_step[:] = step
            # Later rounds begin from settled steps: smaller corrections.
            chain.learned = 15
        if last:
            return
        before = np.ones(self.inner.size)
        before[self.scaled] = np.maximum(standard[:, self.scaled].var(axis=0), 1e-12)
        self.learnt = _factor(standard, before, self.learnt)
        outer = x[:, self.outer]
        self.outer_factor = _factor(outer, np.maximum(outer.var(axis=0), 1e-12), self.outer_factor)

    def choose(self) -> None:
        """Whether trajectories go by long steps from here on: where what these change hardly varies."""
        from hbm_core.inference.blocked.kernel import owed_at

        found = [
            owed_at(
                *_address(chain.near), *_address(chain.exact), chain.gathered("x")[-_TOLD:], self.at,
                self.inner, self.order, self.reference, self.bends, chain.parts,
            )
            for chain in self.chains
        ]  # fmt: skip
        self.by_near = bool(np.std(np.concatenate(found)) < _OFF)
        for chain in self.chains:
            chain.owed[:] = np.nan

    def reshape(self) -> None:
        """Follow ridges where the pilot's circuits are; chains stay at their circuits."""
        draws = self.variables(np.stack([chain.gathered("x") for chain in self.chains]))
        theta = [self.variables(chain.x[None, None])["theta"][0, 0] for chain in self.chains]
        self.shape(recipe(self.spec).shaped(self.spec, draws))
        for chain, own in zip(self.chains, theta, strict=True):
            for name, value in self._halves().items():
                setattr(chain, name, value)
            self._settle(chain, own)

    def _settle(self, chain: _Chain, theta: np.ndarray) -> None:
        """Coordinates u of a chain's circuits θ (C, P) in the transport as it is now."""
        from hbm_core.inference.blocked.kernel import root_of
        from hbm_core.models import circuits_rule

        root, u = np.empty((self.size, self.size)), np.empty((self.count, self.size))
        x, at = chain.x, self.at
        root_of(x[self.slices["below"]], x[at[1] : at[1] + self.size], self.reference, self.order, root)
        mean = x[at[0] : at[0] + self.size][self.order]
        rule: Any = circuits_rule
        rule.uncarry(mean, root, *self.bends, np.ascontiguousarray(theta[:, self.order]), u)
        x[self.slices["u"]] = u.ravel()

    def variables(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every variable by name, each ndarray (chain, draw, …), at x (chain, draw, D)."""
        found = Target(self.whole).variables(x.reshape(-1, self.dimensions))
        return {name: values.reshape(*x.shape[:2], *values.shape[1:]) for name, values in found.items()}

    def drawn(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Variables and statistics of the draws so far."""
        x, lp, accept, steps, lost = (
            np.stack([chain.gathered(name) for chain in self.chains])
            for name in ("x", "lp", "accept", "steps", "lost")
        )
        step = np.array([np.exp(chain.log_step[0]) for chain in self.chains])
        statistics = {
            "lp": lp,
            "acceptance_rate": accept[..., 0],
            "population_acceptance": accept[..., 1],
            "n_steps": steps,
            "diverging": lost,
            "step_size": np.broadcast_to(step[:, None], lp.shape).copy(),
        }
        return self.variables(x), statistics


def _address(compiled: Any) -> tuple[np.uint64, np.uint64]:
    """Where a compiled density and its data are; twice 0 for none."""
    if compiled is None:
        return np.uint64(0), np.uint64(0)
    return np.uint64(compiled.compiled_logp_func.address), np.uint64(compiled.user_data.ctypes.data)


def _writable(compiled: Any, name: str) -> np.ndarray:
    """The array of a datum that a compiled model reads."""
    key = next(key for variable, key in compiled.shared_var_keys.items() if variable.name == name)
    found: np.ndarray = compiled.shared_data[key]
    found.flags.writeable = True
    return found


def _factor(points: np.ndarray, before: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Root of the covariance of points (n, D), drawn to the variances `before`."""
    count, size = points.shape
    share = count / (count + _WEIGHT * size)
    covariance = share * np.cov(points.T).reshape(size, size) + (1 - share) * np.diag(before)
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return otherwise


def sample(
    spec: ModelSpec,
    sampler: Sampler,
    *,
    cache: BlockedCache | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_partial: Callable[[xr.DataTree], None] | None = None,
    time_limit: float | None = None,
) -> xr.DataTree:
    """Sample a population of circuits in blocks.

    Parameters
    ----------
    spec : ModelSpec
        A model that `applies` to.
    sampler : Sampler
        Settings; a draw, of warm-up too, is `SWEEPS` sweeps. `target_accept` of circuits' trajectories.
    cache : BlockedCache, optional
        Where compiled models are kept; a new one otherwise.
    on_progress, should_stop, on_partial, time_limit
        As of `hbm_core.inference.nuts.sample`.

    Returns
    -------
    xarray.DataTree
        As of `nuts.sample`. ``sample_stats`` (chain, draw): ``lp``, ``acceptance_rate`` of circuits'
        trajectories, ``population_acceptance`` of Σ's, ``n_steps`` (gradients of everything, of all sweeps),
        ``diverging`` (whether any trajectory was lost, and with small steps too), ``step_size``. Attribute
        beside: ``engine`` ("blocked").

    Raises
    ------
    InputError
        The model has no such halves.
    FitError
        No finite start, or stopped before any draw was kept.
    """
    refuse_others(spec)
    began = time.perf_counter()
    cache = BlockedCache() if cache is None else cache
    report = on_progress or (lambda progress: None)
    if spec not in cache:
        report(Progress.compiling(sampler.chains, sampler.tune + sampler.draws))
    densities = cache.get(spec)
    compiled = time.perf_counter() - began

    blocks = _Blocks(spec, sampler, *densities)
    stopped = _Run(blocks, report, should_stop or (lambda: False), on_partial, time_limit).until_done()
    sampled = time.perf_counter() - began - compiled
    draws, statistics = blocks.drawn()
    tree = result_tree(spec, recipe(spec).complete(spec, draws, sampler.seed), statistics)
    total = time.perf_counter() - began
    tree.attrs |= attributes(spec, sampler, stopped, compile=compiled, sample=sampled, total=total)
    tree.attrs["engine"] = "blocked"
    return tree


@dataclass
class _Run:
    """A fit from its first sweep to its last draw."""

    blocks: _Blocks
    report: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    on_partial: Callable[[xr.DataTree], None] | None
    time_limit: float | None
    began: float = field(default_factory=time.perf_counter)
    shown: float = field(default_factory=time.perf_counter)
    done: int = 0
    stride: int = _STRIDE

    def until_done(self) -> str:
        """Why it ended early ("" if it did not)."""
        from hbm_core.models.pymc_circuits import is_bent

        blocks, sampler = self.blocks, self.blocks.sampler
        pilot = int(_PILOT * sampler.tune) if is_bent(blocks.spec.structure) else 0
        with ThreadPoolExecutor(min(CORES, sampler.chains)) as pool:
            for first, last in ((0, pilot), (pilot, sampler.tune)):
                for end in sorted({first + round(share * (last - first)) for share in _ROUNDS} - {first}):
                    # Every sweep of warm-up teaches something.
                    if stopped := self._advance(pool, SWEEPS * end, 1, True):
                        raise FitError(
                            f"The fit was stopped {stopped} while it was still warming up: no draw was kept."
                        )
                    if end == pilot:
                        blocks.reshape()
                    elif end > pilot and end < sampler.tune:
                        blocks.choose()
                    blocks.adapt(last=end == sampler.tune)
            total = SWEEPS * (sampler.tune + sampler.draws)
            return self._advance(pool, total, SWEEPS, False)

    def _advance(self, pool: ThreadPoolExecutor, end: int, thin: int, learning: bool) -> str:
        blocks, chains = self.blocks, self.blocks.chains
        while self.done < end:
            count = max(1, min(self.stride, end - self.done) // thin)
            looked = time.perf_counter()
            alike = len(chains)
            list(pool.map(blocks.advance, chains, [count] * alike, [thin] * alike, [learning] * alike))
            self.done += count * thin
            now = time.perf_counter()
            self.stride = int(np.clip(_LOOK * count * thin / max(now - looked, 1e-6), 1, 1000))
            so_far = self._progress(now - self.began, learning)
            self.report(so_far)
            stopped = ""
            if self.should_stop():
                stopped = "on request"
            elif self.time_limit is not None and now - self.began > self.time_limit:
                stopped = f"after the time limit of {self.time_limit:g} s"
            elif self.on_partial is not None and not learning and now - self.shown > _PARTIAL_EVERY:
                self.shown = now
                self._show(self.on_partial)
            if stopped or (self.done >= end and not learning):
                self.report(replace(so_far, stage="saving"))
            if stopped:
                return stopped
        return ""

    def _show(self, on_partial: Callable[[xr.DataTree], None]) -> None:
        spec, (draws, statistics) = self.blocks.spec, self.blocks.drawn()
        posterior = recipe(spec).complete(spec, draws, self.blocks.sampler.seed)
        partial = result_tree(spec, posterior, statistics, likelihood=False)
        partial.attrs.update(engine="blocked", partial=1, stopped="still running")
        on_partial(partial)

    def _progress(self, elapsed: float, learning: bool) -> Progress:
        sampler, chains = self.blocks.sampler, self.blocks.chains
        total = sampler.tune + sampler.draws
        rows = [
            ChainProgress(
                self.done // SWEEPS,
                total,
                0 if learning else int(sum(part["lost"].sum() for part in chain.rounds)),
                learning,
                float(np.exp(chain.log_step[0])),
            )
            for chain in chains
        ]
        return Progress("sampling", tuple(rows), elapsed * (SWEEPS * total / self.done - 1))
