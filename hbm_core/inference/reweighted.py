"""Live views without an exact engine: a finished fit's draws, re-weighted to changed priors.

For structures whose posterior no exact engine covers (`hurdle`, `drift`, `joint`, circuits, orbits): the
draws of a finished fit of the same data and model answer for priors that were moved since, as long as the
moved posterior lies where there are draws. Nothing is sampled, so it can hang on a slider.

How to use it
-------------
::

    draws = Draws.of(tree, spec_of_the_fit)  # once per finished fit
    posterior = reweight(draws, spec)        # at every prior change
    posterior.k, posterior.size, posterior.mcse

`reweight` answers with a `ReweightedPosterior`, which is read like any exact posterior (names, mean, sd,
quantiles, density, cdf, hdi, draws, summary), or raises `TooFarError`, whose words say why and what to do.
Beside them `k` (Pareto's), `size` (effective number of independent draws) and `mcse` (Monte Carlo error of
every mean). Of a structure it asks ``parameters`` (names with a prior, each a variable of the fit's
posterior), ``positive`` and ``units``; of the fit's ``posterior`` group the variables (chain, draw, …), the
units' readouts among them as ``theta`` (unit). Nothing but the priors may differ from the fit.

The weight of a draw is the ratio of the new to the old prior density of all parameters that take a prior: the
likelihood and everything between cancel. On pages `hbm_core.ui.live` falls back on this by itself, through
`hbm_core.ui.reweighted`, wherever `solve` raises `NotExactError`.

References
----------
Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto Smoothed Importance Sampling, JMLR 25.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.errors import InputError, TooFarError
from hbm_core.inference.exact.base import (
    PROBABILITIES,
    ExactPosterior,
    check_level,
    checked_probabilities,
)
from hbm_core.inference.psis import Smoothed, efficiency, smooth
from hbm_core.inference.recipes import recipe
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec

#: Numbers that one fit's draws may take before they are thinned, and draws that stay in any case.
_MOST, _LEAST = 2_000_000, 1_000
#: Points of a density's grid.
_GRID = 400


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves that a fit kept of some of its draws.

    Parameters
    ----------
    chain, draw : ndarray (S,) of int
        Which draws.
    curve : ndarray (S, N)
        Amounts at N points.
    labels : mapping of str to ndarray (N,)
        What the points are.
    """

    chain: np.ndarray
    draw: np.ndarray
    curve: np.ndarray
    labels: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, tree: xr.DataTree) -> Curves | None:
        """From a result's group ``curves``; None without."""
        if "curves" not in tree.children:
            return None
        found = tree["curves"].to_dataset()
        labels = {
            str(name): values.values for name, values in found.coords.items() if values.dims == ("point",)
        }
        return cls(found["chain"].values, found["draw"].values, found["curve"].values, labels)


@dataclass(frozen=True, eq=False)
class Draws:
    """A finished fit's draws, ready to be re-weighted.

    Attributes
    ----------
    spec : ModelSpec
        What was fitted.
    variables : mapping of str to ndarray (n, …)
        Chains one after the other; thinned evenly where there are very many.
    names : tuple of str
        Flat names: hyperparameters first, ``theta[label]`` last.
    values : ndarray (len(names), n)
        The same draws by flat name.
    efficiency : ndarray (len(names),)
        Effective over actual number of draws, of each mean.
    step : int
        Every so many draws of a chain were kept.
    chains : int
        Number of chains.
    curves : Curves or None
        Curves that the fit kept of some draws.
    """

    spec: ModelSpec[Any]
    variables: Mapping[str, np.ndarray]
    names: tuple[str, ...]
    values: np.ndarray
    efficiency: np.ndarray
    step: int = 1
    chains: int = 1
    curves: Curves | None = None

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Priors of the fit."""
        return self.spec.priors

    @classmethod
    def of(cls, tree: xr.DataTree, spec: ModelSpec[Any]) -> Draws:
        """Draws of a fit's result.

        Parameters
        ----------
        tree : xarray.DataTree
            With a group ``posterior``.
        spec : ModelSpec
            What was fitted.

        Raises
        ------
        InputError
            A parameter with a prior has no draws, or chains are shorter than two draws.
        """
        posterior = tree["posterior"].to_dataset().transpose("chain", "draw", ...)
        for name in spec.priors:
            # One of a vector's may have no variable: θ itself has it where nothing is pooled.
            if name not in posterior and "[" not in name:
                raise InputError(
                    "draws to be re-weighted", f"the parameter {name}", ", ".join(map(str, posterior))
                )
        if posterior.sizes["draw"] < 2:
            raise InputError("draws to be re-weighted", "two or more a chain", posterior.sizes["draw"])
        numbers = sum(array.size for array in posterior.values())
        each = numbers / (posterior.sizes["chain"] * posterior.sizes["draw"])
        kept = max(_LEAST, int(_MOST / each)) / posterior.sizes["chain"]
        step = max(1, int(np.ceil(posterior.sizes["draw"] / max(kept, 1.0))))
        posterior = posterior.isel(draw=slice(None, None, step))
        ranks = {name: place for place, name in enumerate(spec.priors)}
        found = map(str, posterior)
        order = sorted(found, key=lambda name: (name == "theta", ranks.get(name, len(ranks))))
        names: list[str] = []
        rows: list[np.ndarray] = []
        shapes: dict[str, tuple[slice, tuple[int, ...]]] = {}
        for name in order:
            chains = np.asarray(posterior[name].values, dtype=float)
            found_names = list(_flat_names(posterior[name]))
            shapes[name] = slice(len(names), len(names) + len(found_names)), chains.shape[2:]
            names += found_names
            rows.append(np.moveaxis(chains.reshape(*chains.shape[:2], -1), 2, 0))
        by_chain = np.concatenate(rows)
        values = by_chain.reshape(len(names), -1)
        # Views where a variable has at most one dimension: draws are kept once.
        variables = {name: values[place].T.reshape(-1, *shape) for name, (place, shape) in shapes.items()}
        chains_of = posterior.sizes["chain"]
        worth = efficiency(by_chain)
        return cls(spec, variables, tuple(names), values, worth, step, chains_of, Curves.of(tree))

    @cached_property
    def order(self) -> np.ndarray:
        """Order of each row of `values`, ndarray (len(names), n) of int: quantiles need it once per fit."""
        return np.argsort(self.values, axis=1).astype(np.int32)

    @property
    def count(self) -> int:
        """Number of draws."""
        return self.values.shape[1]

    def renamed(self, spec: ModelSpec[Any], names: Mapping[str, str]) -> Draws:
        """Some rows under other names: a view of a vector's parts as if they were all.

        Parameters
        ----------
        spec : ModelSpec
            What they are seen as.
        names : mapping of str to str
            New flat name to the own one, ``theta[label]`` last.
        """
        known = {name: place for place, name in enumerate(self.names)}
        rows = [known[own] for own in names.values()]
        values = self.values[rows]
        variables = dict(zip(names, values, strict=True))
        return replace(
            self,
            spec=spec,
            variables=variables,
            names=tuple(names),
            values=values,
            efficiency=self.efficiency[rows],
        )


def _flat_names(array: xr.DataArray) -> Iterator[str]:
    others = array.dims[2:]
    for place in product(*(array[dim].values for dim in others)):
        yield f"{array.name}[{','.join(map(str, place))}]" if others else str(array.name)


def changed(draws: Draws, priors: Mapping[str, Prior]) -> tuple[str, ...]:
    """Names of the parameters whose priors differ from the fit's."""
    return tuple(name for name, prior in priors.items() if draws.priors.get(name) != prior)


def reweight(draws: Draws, spec: ModelSpec[Any]) -> ReweightedPosterior:
    """The posterior under the priors of `spec`, from draws under other priors.

    Parameters
    ----------
    draws : Draws
        Of the same data and model.
    spec : ModelSpec
        With the priors wanted.

    Raises
    ------
    TooFarError
        The draws cannot tell: Pareto's k is above its limit, or a prior allows values that the fit's
        excluded, where no draw can be.
    InputError
        The parameters are not the fit's.
    """
    if set(spec.priors) != set(draws.priors):
        raise InputError("priors to re-weight to", "of " + ", ".join(draws.priors), ", ".join(spec.priors))
    positive = spec.structure.positive
    for name in changed(draws, spec.priors):
        (low, high), (old_low, old_high) = (
            _support(prior[name], name in positive) for prior in (spec.priors, draws.priors)
        )
        if low < old_low or high > old_high:
            raise TooFarError(
                f"prior on {name}",
                f"one within {draws.priors[name].text}, under which the last fit was made",
                spec.priors[name].text,
                "Values that were excluded then have no draws. Fit to update.",
            )
    ratio = recipe(spec).log_ratio(spec, draws.spec, draws.variables)
    moving = np.where(np.isfinite(ratio), ratio, ratio[np.isfinite(ratio)].min(initial=0.0))
    if np.ptp(moving) > 0:
        # The weights' own autocorrelation is that of the parameters that they are made of.
        rows = [
            place
            for place, name in enumerate(draws.names)
            if name in draws.priors or name.split("[")[0] in draws.priors
        ]
        slowest = float(draws.efficiency[rows or slice(None)].min())
    else:
        slowest = 1.0
    weights = smooth(ratio, slowest)
    if not weights.reliable:
        k = "no finite value" if np.isinf(weights.k) else f"{weights.k:.2f}"
        raise TooFarError(
            "live picture",
            f"priors near those of the last fit (Pareto's k at most {weights.limit:.2f})",
            k,
            "Too few of its draws lie where these priors put the posterior. Fit to update.",
        )
    return ReweightedPosterior(spec, draws, weights)


def _support(prior: Prior, positive: bool) -> tuple[float, float]:
    low, high = prior.support
    return (max(low, 0.0) if positive else low), high


class ReweightedPosterior(ExactPosterior):
    """Weighted draws, read like an exact posterior; its errors are Monte Carlo's.

    Attributes
    ----------
    k : float
        Pareto's k of the weights; 0 where no prior moved.
    size : float
        Effective number of independent draws behind the picture: of the least efficient hyperparameter.
    mcse : ndarray (len(names),)
        Monte Carlo standard error of each mean.
    draws_used : int
        Draws of the fit.
    """

    def __init__(self, spec: ModelSpec[Any], draws: Draws, weights: Smoothed) -> None:
        self.spec, self._draws, self._weights = spec, draws, weights
        self.names, w = draws.names, weights.weight
        self.mean = draws.values @ w
        away = draws.values - self.mean[:, None]
        self.sd = np.sqrt(away**2 @ w)
        self.mcse = np.sqrt(away**2 @ w**2 / draws.efficiency)
        self.k, self.draws_used = weights.k, draws.count
        units = self.theta
        with np.errstate(invalid="ignore", divide="ignore"):
            self.error = float(np.nanmax(np.where(self.sd > 0, self.mcse / self.sd, 0.0)))
        self.error_absolute = float(self.mcse[units].max())
        self.size = weights.size * float(draws.efficiency[: units.start].min(initial=1.0))
        self.notes = (self.sentence,)

    @property
    def sentence(self) -> str:
        """Where the figures come from, with their error, for people."""
        if self.k == 0:
            return f"From {self.draws_used:,} draws of a finished fit."
        return (
            f"Re-weighted from a finished fit to these priors: Pareto's k {self.k:.2f} (limit "
            f"{self._weights.limit:.2f}), as good as {self.size:,.0f} independent draws."
        )

    @cached_property
    def theta(self) -> slice:
        """Places of the units' readouts."""
        first = next(place for place, name in enumerate(self.names) if name.startswith("theta["))
        return slice(first, len(self.names))

    @property
    def weight(self) -> np.ndarray:
        """Weights of the draws, chains one after the other, ndarray (n,); they sum to 1."""
        return self._weights.weight

    @property
    def step(self) -> int:
        """Every so many draws of a chain were kept."""
        return self._draws.step

    @property
    def chains(self) -> int:
        """Number of chains."""
        return self._draws.chains

    @property
    def variables(self) -> Mapping[str, np.ndarray]:
        """Draws by variable, chains one after the other, ndarray (n, …)."""
        return self._draws.variables

    @property
    def curves(self) -> Curves:
        """Curves that the fit kept of some draws.

        Raises
        ------
        InputError
            It kept none.
        """
        if self._draws.curves is None:
            raise InputError("curves of a fit", "a fit that keeps them", "one without", "Fit anew.")
        return self._draws.curves

    def renamed(self, spec: ModelSpec[Any], names: Mapping[str, str]) -> ReweightedPosterior:
        """Some parameters under other names, with the same weights; as of `Draws.renamed`."""
        return ReweightedPosterior(spec, self._draws.renamed(spec, names), self._weights)

    def settle(self) -> None:
        """Nothing is left to compute."""

    def quantiles(self, probabilities: Sequence[float] = PROBABILITIES) -> np.ndarray:
        """Weighted quantiles, ndarray (len(names), len(probabilities))."""
        p = checked_probabilities(probabilities)
        key = p.tobytes()
        if key not in self._quantiles:
            self._quantiles[key] = self.some_quantiles(p, np.arange(len(self.names)))
        return self._quantiles[key]

    def some_quantiles(self, probabilities: Sequence[float] | np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Quantiles of the parameters at some places of `names`, ndarray (len(rows), len(probabilities))."""
        p = checked_probabilities(probabilities)
        return np.array([self._at(int(row), p) for row in rows]).reshape(len(rows), p.size)

    @cached_property
    def _quantiles(self) -> dict[bytes, np.ndarray]:
        return {}

    def _sorted(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        order = self._draws.order[row]
        return self._draws.values[row][order], self._weights.weight[order]

    def _at(self, row: int, p: np.ndarray) -> np.ndarray:
        x, w = self._sorted(row)
        # A draw stands in the middle of its own weight.
        return np.interp(p, np.cumsum(w) - w / 2, x)

    def density(self, name: str, x: np.ndarray) -> np.ndarray:
        """Kernel estimate of a marginal density; what a bound cuts off is mirrored at it.

        References
        ----------
        Silverman (1986), Density Estimation, equations 2.34 and 3.31.
        """
        row = self.index(name)
        values, weight = self._draws.values[row], self._weights.weight
        low, high = np.quantile(values, [0, 1])
        q25, q75 = self._at(row, np.array([0.25, 0.75]))
        scale = min(self.sd[row], (q75 - q25) / 1.349) or self.sd[row]
        if scale <= 0:
            return np.zeros(np.shape(x))
        width = 0.9 * scale * self._weights.size**-0.2
        at = np.linspace(low, high, _GRID)
        step = at[1] - at[0]
        mass = np.bincount(np.rint((values - low) / step).astype(int), weight, _GRID)
        x = np.asarray(x, dtype=float)
        flat = x.ravel()
        kernel = _normal(flat, at, width)
        lower, upper = self._bounds(name)
        if np.isfinite(lower):
            kernel = kernel + _normal(flat, 2 * lower - at, width)
        if np.isfinite(upper):
            kernel = kernel + _normal(flat, 2 * upper - at, width)
        found = np.where((flat >= lower) & (flat <= upper), kernel @ mass, 0.0)
        return found.reshape(x.shape)

    def _bounds(self, name: str) -> tuple[float, float]:
        parameter = name if name in self.spec.priors else name.split("[")[0]
        if parameter not in self.spec.priors:
            return -np.inf, np.inf
        return _support(self.spec.priors[parameter], parameter in self.spec.structure.positive)

    def cdf(self, name: str, x: np.ndarray) -> np.ndarray:
        """Weighted share of the draws up to `x`."""
        values, weight = self._sorted(self.index(name))
        total = np.concatenate([[0.0], np.cumsum(weight)])
        return np.minimum(total[np.searchsorted(values, np.asarray(x, dtype=float), side="right")], 1.0)

    def hdi(self, level: float = 0.95) -> np.ndarray:
        """Shortest intervals that hold `level` of the weight, ndarray (len(names), 2)."""
        check_level(level)
        found = np.empty((len(self.names), 2))
        for row in range(len(self.names)):
            x, w = self._sorted(row)
            total = np.cumsum(w)
            start = total - w
            end = np.searchsorted(total, start + level - 1e-12)
            inside = end < x.size
            length = np.where(inside, x[np.minimum(end, x.size - 1)] - x, np.inf)
            best = int(np.argmin(length))
            found[row] = x[best], x[min(int(end[best]), x.size - 1)]
        return found

    def draws(self, count: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Draws by name, ndarray (count, …): systematic resampling by the weights."""
        rng = np.random.default_rng(seed)
        at = (rng.random() + np.arange(count)) / count
        total = np.cumsum(self._weights.weight)
        places = np.minimum(np.searchsorted(total, at * total[-1]), self.draws_used - 1)
        places = rng.permutation(places)
        return {name: values[places] for name, values in self._draws.variables.items()}


def _normal(x: np.ndarray, at: np.ndarray, width: float) -> np.ndarray:
    z = (x[:, None] - at) / width
    return np.exp(-0.5 * z**2) / (width * np.sqrt(2 * np.pi))
