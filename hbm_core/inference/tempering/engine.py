"""Non-reversible parallel tempering over any model with proper priors.

Each replica holds one point at every temperature of a ladder π_β ∝ prior × likelihood^β. An iteration moves
every point (an independent draw at β = 0, a random walk and a Hamiltonian trajectory elsewhere) and then
swaps neighbours, even pairs and odd pairs in turn: walkers drift from the prior to the posterior and back
instead of diffusing, so that modes are entered in proportion to their mass (Syed, Bouchard-Côté,
Deligiannidis & Doucet, 2022, JRSS-B 84(2)). Warm-up runs in rounds, after each of which the ladder is cut
anew into pairs that reject alike, and the scales are those of all replicas together; afterwards nothing is
adapted, and the replicas are independent chains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from hbm_core.errors import FitError
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import attributes, result_tree
from hbm_core.inference.sampler import CORES, ChainProgress, Progress, Sampler
from hbm_core.inference.tempering import ladder
from hbm_core.inference.tempering.target import Target, TargetCache
from hbm_core.models.structure import ModelSpec

#: Acceptance that trajectories are adapted to (0.65 is best for many like dimensions, Beskos et al., 2013,
#: Bernoulli 19(5); more where the curvature varies); the setting `target_accept` is that of the random walk.
TRAJECTORY_ACCEPT = 0.8
#: Length of a trajectory in posterior sds, a quarter turn of a normal, and the most steps of one.
_TRAJECTORY, _MOST_STEPS = 0.5 * np.pi, 32
#: Where the rounds of warm-up end, as shares of it.
_ROUNDS = (0.04, 0.12, 0.28, 0.56, 1.0)
#: Dimensions up to which whole covariances are learned, above them variances.
_DENSE = 100
#: Draws of the prior among which the first points are chosen.
_FIRST = 1000
#: Starts among which they are where the prior cannot be drawn from.
_STARTS = 20
#: Iterations between two looks at who wants to stop, at first; and the seconds they should take.
_STRIDE, _LOOK = 5, 0.1
#: Iterations whose prior draws are made at once.
_BLOCK = 250
_PARTIAL_EVERY = 2.0


@dataclass(frozen=True, eq=False)
class Explored:
    """What replicas did after warm-up, T temperatures from the prior to the posterior.

    Parameters
    ----------
    beta : ndarray (T,)
        Inverse temperatures.
    x : ndarray (R, n, D)
        Draws at β = 1 in the unconstrained space.
    log_posterior : ndarray (R, n)
        Log prior (with Jacobian) plus log likelihood of those.
    log_likelihood : ndarray (R, n, T)
        At every temperature.
    walker : ndarray (R, n, T)
        Which walker held each temperature.
    accept, walk_accept : ndarray (R, n, T)
        Acceptance probabilities of trajectories and of random-walk steps.
    swap : ndarray (R, n, T − 1)
        Acceptance probabilities of swaps.
    steps : ndarray (R, n)
        Steps of the trajectory at β = 1.
    step_size, walk_size : ndarray (T,)
        In sds of each temperature's distribution.
    stopped : str
        Why it ended early, or "".
    """

    beta: np.ndarray
    x: np.ndarray
    log_posterior: np.ndarray
    log_likelihood: np.ndarray
    walker: np.ndarray
    accept: np.ndarray
    walk_accept: np.ndarray
    swap: np.ndarray
    steps: np.ndarray
    step_size: np.ndarray
    walk_size: np.ndarray
    stopped: str = ""

    @property
    def rejection(self) -> np.ndarray:
        """Mean rejection of each pair, ndarray (T − 1,)."""
        return 1 - self.swap.mean(axis=(0, 1))

    @property
    def barrier(self) -> float:
        """The global communication barrier Λ."""
        return float(self.rejection.sum())

    @property
    def round_trips(self) -> np.ndarray:
        """Round trips of each replica, ndarray (R,)."""
        return ladder.round_trips(self.walker)

    @property
    def log_evidence(self) -> tuple[float, float]:
        """Log p(y) and its Monte Carlo error, nats."""
        return ladder.log_evidence(self.beta, self.log_likelihood)


@dataclass(eq=False)
class _Replica:
    """The state of one replica."""

    x: np.ndarray
    like: np.ndarray
    log_step: np.ndarray
    log_walk: np.ndarray
    rng: np.random.Generator
    expanded: np.ndarray
    walker: np.ndarray
    done: int = 0
    ahead: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    parts: list[tuple[np.ndarray, ...]] = field(default_factory=list)


def explore(
    target: Target,
    sampler: Sampler,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_partial: Callable[[Explored], None] | None = None,
    time_limit: float | None = None,
) -> Explored:
    """Run replicas of a target.

    Parameters
    ----------
    target : Target
        From `TargetCache` or `target_of`.
    sampler : Sampler
        `chains` replicas of `temperatures`, `draws` after `tune`; `target_accept` of the random walk.
    on_progress, should_stop, time_limit
        As of `hbm_core.inference.nuts.sample`.
    on_partial : callable, optional
        Called every two seconds with the draws so far.

    Raises
    ------
    FitError
        No point has a finite density, or it was stopped before any draw was kept.
    """
    return _Exploration(target, sampler).run(
        on_progress or (lambda progress: None), should_stop or (lambda: False), on_partial, time_limit
    )


class _Exploration:
    """Replicas at work."""

    def __init__(self, target: Target, sampler: Sampler) -> None:
        self.target, self.sampler = target, sampler
        count, size = sampler.temperatures, target.size
        self.beta = ladder.first_ladder(count)
        self.dense = size <= _DENSE
        eye = np.eye(size) if self.dense else np.ones((1, size))
        self.factor = np.tile(eye, (count, 1, 1))
        self.learned, self.warm = 1, True
        self._pointed()
        self.replicas = [self._begun(chain) for chain in range(sampler.chains)]

    def _pointed(self) -> None:
        self.held = [self.target.at(float(beta)) for beta in self.beta]
        self.data = np.array([held.ctypes.data for held in self.held], dtype=np.uint64)

    def _likelihood(self, x: np.ndarray, expanded: np.ndarray) -> np.ndarray:
        from hbm_core.inference.tempering.kernel import log_likelihood

        address = np.uint64(self.target.compiled.compiled_expand_func.address)
        place = self.target.place
        return np.array([log_likelihood(address, self.data[0], row, expanded, place) for row in x])

    def _prior(self, count: int, chain: int, block: int) -> np.ndarray:
        assert self.target.prior is not None
        # A stream of its own beside those of the walkers and of the recipes' conditional draws.
        return self.target.prior(count, np.random.SeedSequence([self.sampler.seed, 5, chain, block]))

    def _begun(self, chain: int) -> _Replica:
        """Points drawn from the prior, weighed by the likelihood of their temperature."""
        from hbm_core.inference.tempering.kernel import NOWHERE

        size, count = self.target.size, self.sampler.temperatures
        rng = np.random.default_rng([self.sampler.seed, 4, chain])
        expanded = np.empty(int(self.target.compiled.n_expanded))
        if self.target.prior is not None:
            points = self._prior(_FIRST, chain, 0)
        else:
            start = self.target.compiled.initial_point_func
            points = np.array([start(int(seed)) for seed in rng.integers(2**32, size=_STARTS)])
        like = self._likelihood(points, expanded)
        if not (like > NOWHERE).any():
            raise FitError(
                "No start has a finite likelihood: check the units of the data and the priors' numbers."
            )
        place = [int(np.argmax(beta * like + rng.gumbel(size=like.size))) for beta in self.beta]
        step = np.full(count, np.log(min(1.0, 1.5 * size**-0.25)))
        walk = np.full(count, np.log(2.38 / np.sqrt(size)))
        return _Replica(points[place], like[place], step, walk, rng, expanded, np.arange(count))

    def run(
        self,
        report: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        on_partial: Callable[[Explored], None] | None,
        time_limit: float | None,
    ) -> Explored:
        """All rounds of warm-up, then the draws."""
        began = shown = time.perf_counter()
        tune, total = self.sampler.tune, self.sampler.tune + self.sampler.draws
        ends = [*sorted({max(1, round(share * tune)) for share in _ROUNDS}), total]
        stride, done, stopped = _STRIDE, 0, ""
        with ThreadPoolExecutor(min(CORES, self.sampler.chains)) as pool:
            for end in ends:
                self.warm = end <= tune
                while done < end and not stopped:
                    # Prior draws come in blocks, which a stretch does not cross.
                    count = min(stride, end - done, _BLOCK - done % _BLOCK)
                    looked = time.perf_counter()
                    chains = range(self.sampler.chains)
                    list(pool.map(self._advance, chains, [count] * self.sampler.chains))
                    done += count
                    now = time.perf_counter()
                    stride = int(np.clip(_LOOK / max((now - looked) / count, 1e-6), 1, _BLOCK))
                    progress = self._progress(done, total, now - began)
                    report(progress)
                    if should_stop():
                        stopped = "on request"
                    elif time_limit is not None and now - began > time_limit:
                        stopped = f"after the time limit of {time_limit:g} s"
                    elif on_partial is not None and done > tune + 10 and now - shown > _PARTIAL_EVERY:
                        shown = now
                        on_partial(self._explored("still running"))
                    if stopped or done == total:
                        report(replace(progress, stage="saving"))
                if stopped:
                    break
                if self.warm:
                    self._adapt(last=end == tune)
        if self.warm:
            raise FitError(f"The fit was stopped {stopped} while it was still warming up: no draw was kept.")
        return self._explored(stopped)

    def _advance(self, chain: int, count: int) -> None:
        from hbm_core.inference.tempering.kernel import advance

        replica, temperatures = self.replicas[chain], self.sampler.temperatures
        within = replica.done % _BLOCK
        if self.target.prior is None:
            prior = np.empty((0, self.target.size))
        else:
            if within == 0:
                replica.ahead = self._prior(_BLOCK, chain, 1 + replica.done // _BLOCK)
            prior = replica.ahead[within : within + count]
        kept = np.empty((count, temperatures if self.warm else 1, self.target.size))
        lp, steps = np.empty(count), np.zeros(count)
        like, accept, walked = (np.empty((count, temperatures)) for _ in range(3))
        walker = np.empty((count, temperatures), dtype=np.int64)
        swap = np.empty((count, temperatures - 1))
        code = self.target.compiled
        advance(
            np.uint64(code.compiled_logp_func.address), np.uint64(code.compiled_expand_func.address),
            self.target.place, replica.expanded, self.data, self.beta, self.factor, replica.log_step,
            replica.log_walk, _TRAJECTORY, _MOST_STEPS, TRAJECTORY_ACCEPT, self.sampler.target_accept,
            self.learned + sum(part[0].shape[0] for part in replica.parts) if self.warm else 0,
            replica.x, replica.like, replica.walker, replica.rng, prior, replica.done,
            kept, lp, like, walker, accept, walked, swap, steps,
        )  # fmt: skip
        replica.done += count
        replica.parts.append((kept, lp, like, walker, accept, walked, swap, steps))

    def _adapt(self, last: bool) -> None:
        """End a round of warm-up: ladder, scales and steps from all replicas together."""
        gathered = self._gathered()
        kept, swap = gathered[0], gathered[6]
        rejection = 1 - swap.mean(axis=(0, 1))
        old, self.beta = self.beta, ladder.adapted(self.beta, rejection)
        self._pointed()
        # Whatever depends on the temperature moves with it along the barrier.
        where = np.interp(self.beta, old, np.arange(old.size))
        nearest = np.rint(where).astype(int)
        for name in ("log_step", "log_walk"):
            mean = np.mean([getattr(replica, name) for replica in self.replicas], axis=0)
            for replica in self.replicas:
                setattr(replica, name, np.interp(where, np.arange(old.size), mean))
        if not last:
            settled = kept[:, kept.shape[1] // 3 :]
            points = settled.reshape(-1, *settled.shape[2:])
            if len(points) >= 10:
                self.factor = np.stack([self._factor(points[:, place]) for place in nearest])
        for replica in self.replicas:
            replica.parts.clear()
        # Later rounds begin from settled steps: smaller corrections.
        self.learned = 15

    def _factor(self, points: np.ndarray) -> np.ndarray:
        """C of the points' covariance, drawn a little to its diagonal, or the root of that."""
        variance = np.maximum(points.var(axis=0), 1e-12)
        if not self.dense:
            return np.sqrt(variance)[None, :]
        count, size = points.shape
        share = count / (count + 5.0 * size)
        covariance = share * np.cov(points.T).reshape(size, size) + (1 - share) * np.diag(variance)
        try:
            return np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return np.diag(np.sqrt(variance))

    def _gathered(self) -> list[np.ndarray]:
        """What has been kept since warm-up or the last round, each ndarray (R, n, …)."""
        return [
            np.stack([np.concatenate(pieces) for pieces in kind])
            for kind in zip(
                *(list(zip(*replica.parts, strict=True)) for replica in self.replicas), strict=True
            )
        ]

    def _explored(self, stopped: str) -> Explored:
        kept, lp, like, walker, accept, walked, swap, steps = self._gathered()
        replica = self.replicas[0]
        return Explored(
            self.beta, kept[:, :, 0], lp, like, walker, accept, walked, swap, steps,
            np.exp(replica.log_step), np.exp(replica.log_walk), stopped,
        )  # fmt: skip

    def _progress(self, done: int, total: int, elapsed: float) -> Progress:
        step = float(np.exp(self.replicas[0].log_step[-1]))
        chain = ChainProgress(done, total, 0, self.warm, step)
        return Progress("sampling", (chain,) * self.sampler.chains, elapsed * (total / done - 1))


def temper(
    spec: ModelSpec,
    sampler: Sampler,
    *,
    cache: TargetCache | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_partial: Callable[[xr.DataTree], None] | None = None,
    time_limit: float | None = None,
) -> xr.DataTree:
    """Sample a posterior by parallel tempering.

    Parameters
    ----------
    spec : ModelSpec
        A model whose priors are proper.
    sampler : Sampler
        Settings; `chains` are replicas.
    cache : TargetCache, optional
        Where compiled models are kept; a new one otherwise.
    on_progress, should_stop, on_partial, time_limit
        As of `hbm_core.inference.nuts.sample`.

    Returns
    -------
    xarray.DataTree
        As of `nuts.sample`. ``sample_stats`` (chain, draw): ``lp``, ``log_prior``, ``log_likelihood`` (nats;
        lp is their sum, the Jacobian part of the prior), ``acceptance_rate``, ``walk_acceptance``,
        ``swap_acceptance`` (with the next temperature), ``n_steps``. ``tempering``: ``beta``,
        ``step_size``, ``walk_size``, ``mean_log_likelihood`` (temperature), ``barrier`` (temperature;
        cumulative), ``step_acceptance``, ``walk_acceptance`` (chain, temperature), ``swap_acceptance``
        (chain, pair), ``round_trips`` (chain), ``walker`` (chain, draw, temperature). Attributes beside:
        ``engine`` ("tempering"), ``log_evidence``, ``log_evidence_se``, ``barrier``.

    Raises
    ------
    InputError
        A prior is improper.
    FitError
        No finite start, or stopped before any draw was kept.
    """
    began = time.perf_counter()
    cache = TargetCache() if cache is None else cache
    report = on_progress or (lambda progress: None)
    if spec not in cache:
        report(Progress.compiling(sampler.chains, sampler.tune + sampler.draws))
    target = cache.get(spec)
    compiled = time.perf_counter() - began

    def shown(found: Explored) -> None:
        assert on_partial is not None
        tree = _tree(spec, target, found, sampler, likelihood=False)
        tree.attrs.update(partial=1)
        on_partial(tree)

    found = explore(
        target,
        sampler,
        on_progress=report,
        should_stop=should_stop,
        on_partial=shown if on_partial is not None else None,
        time_limit=time_limit,
    )
    sampled = time.perf_counter() - began - compiled
    tree = _tree(spec, target, found, sampler)
    total = time.perf_counter() - began
    tree.attrs |= attributes(spec, sampler, found.stopped, compile=compiled, sample=sampled, total=total)
    return tree


def _tree(
    spec: ModelSpec, target: Target, found: Explored, sampler: Sampler, likelihood: bool = True
) -> xr.DataTree:
    cold = found.log_likelihood[:, :, -1]
    statistics = {
        "lp": found.log_posterior,
        "log_prior": found.log_posterior - cold,
        "log_likelihood": cold,
        "acceptance_rate": found.accept[:, :, -1],
        "walk_acceptance": found.walk_accept[:, :, -1],
        "swap_acceptance": found.swap[:, :, -1],
        "n_steps": found.steps.astype(int),
    }
    posterior = recipe(spec).complete(spec, target.variables(found.x), sampler.seed)
    tree = result_tree(spec, posterior, statistics, likelihood=likelihood)
    tree["tempering"] = xr.DataTree(tempering_group(found))
    evidence, error = found.log_evidence
    tree.attrs.update(
        engine="tempering",
        log_evidence=evidence,
        log_evidence_se=error,
        barrier=found.barrier,
    )
    return tree


def tempering_group(found: Explored) -> xr.Dataset:
    """The group ``tempering`` of a result: what the ladder did, see `temper`."""
    chains, draws, count = found.walker.shape
    along = ("temperature",)
    return xr.Dataset(
        {
            "beta": (along, found.beta),
            "step_size": (along, found.step_size),
            "walk_size": (along, found.walk_size),
            "barrier": (along, ladder.barrier(found.rejection)),
            "mean_log_likelihood": (along, np.median(found.log_likelihood, axis=(0, 1))),
            "step_acceptance": (("chain", *along), found.accept.mean(axis=1)),
            "walk_acceptance": (("chain", *along), found.walk_accept.mean(axis=1)),
            "swap_acceptance": (("chain", "pair"), found.swap.mean(axis=1)),
            "round_trips": (("chain",), found.round_trips),
            "walker": (("chain", "draw", "temperature"), found.walker.astype(np.int16)),
        },
        {
            "chain": np.arange(chains),
            "draw": np.arange(draws),
            "temperature": np.arange(count),
            "pair": np.arange(count - 1),
        },
    )
