"""The hyperposterior of a completed batch as a small value: readouts of new experiments without a refit.

Given both sds everything about a new unit is Gaussian, so what a batch says about it is one mixture of
normals per group (BDA3, section 5.4). A new experiment weights the nodes anew by how well each predicts its
effect, and moves each normal by conjugacy: the posterior of its effect given the batch and itself, exact to
the nodes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from hbm_core.errors import InputError
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.inference.learned import Learned, learned_priors
from hbm_core.models.prior import Prior

FORMAT, VERSION = "hbm-hyperposterior", 1
#: Probabilities of the intervals of a readout.
LEVELS = (0.80, 0.95)
#: Nodes below this probability are left out of a file.
_NEGLIGIBLE = 1e-10
#: An experiment that tells more than this about the hyperparameters, in nats, leads beyond the nodes.
_TOLD = 1.0
#: Numbers in one array over experiments and nodes: fits the processor's cache.
_BLOCK = 30_000
_STEPS, _CLOSE = 60, 1e-5
#: Largest file that is read, in bytes.
_LARGEST = 500_000_000
_ARRAYS = ("weights", "mu_mean", "mu_sd", "sigma_group", "sigma_unit", "group_mean", "group_sd")


@dataclass(frozen=True, eq=False)
class Hyperposterior:
    """What a completed batch says about hyperparameters and groups: C weighted nodes.

    Attributes
    ----------
    levels : tuple of str
        One unit and one group in a word each.
    groups : tuple of str
        Labels of the groups of the batch.
    weights : ndarray (C,)
        Probabilities of the nodes.
    mu_mean, mu_sd : ndarray (C,)
        Of μ given a node, in the outcome's units.
    sigma_group, sigma_unit : ndarray (C,)
        The two sds at a node, in the outcome's units.
    group_mean, group_sd : ndarray (G, C)
        Of each group's mean given a node, in the outcome's units.
    learned : mapping of str to Learned
        Priors fitted to the marginals, see `hbm_core.inference.learned`.
    source : mapping
        Where it comes from: scenario, model, digest of the data, priors and so on; plain values.
    """

    levels: tuple[str, str]
    groups: tuple[str, ...]
    weights: np.ndarray
    mu_mean: np.ndarray
    mu_sd: np.ndarray
    sigma_group: np.ndarray
    sigma_unit: np.ndarray
    group_mean: np.ndarray
    group_sd: np.ndarray
    learned: Mapping[str, Learned] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, groups = np.asarray(self.weights).size, len(self.groups)
        for name in _ARRAYS:
            value = np.array(getattr(self, name), dtype=float)
            shape = (groups, count) if name.startswith("group_") else (count,)
            if value.shape != shape or not count or not np.isfinite(value).all():
                raise InputError(f"hyperposterior, {name}", f"finite numbers {shape}", value.shape)
            if name not in ("mu_mean", "group_mean") and (value < 0).any():
                raise InputError(f"hyperposterior, {name}", "nothing below 0", float(value.min()))
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if abs(self.weights.sum() - 1) > 1e-6:
            raise InputError("hyperposterior, weights", "probabilities that sum to 1", self.weights.sum())
        if len(set(self.groups)) != groups:
            raise InputError("hyperposterior, groups", "every label once", "some twice")

    @classmethod
    def of(cls, posterior: ExactPosterior, source: Mapping[str, Any] | None = None) -> Hyperposterior:
        """The hyperposterior of an exact posterior.

        Raises
        ------
        InputError
            Not the three-level structure; a prior on μ under which nothing is a mixture of normals.
        """
        if not isinstance(posterior, ThreeLevelPosterior):
            kind = type(posterior.spec.structure).__name__
            raise InputError("model to precompute", "units in groups (three-level normal)", kind)
        family = posterior.spec.priors["mu"].family
        if family not in ("Normal", "Flat", "StudentT"):
            raise InputError(
                "prior on mu",
                "Normal, StudentT or Flat, under which readouts are mixtures of normals",
                family,
            )
        parts, table = posterior.components, posterior.table
        mean, variance = parts.groups(table.middle)
        # σ_group² = noise/(1 − share) at any group; where the share is least no digits are lost.
        places, each = parts.share.argmin(axis=0), np.arange(parts.weights.size)
        between = np.sqrt(parts.noise[places, each] / (1 - parts.share[places, each]))
        kept = parts.weights > _NEGLIGIBLE
        weights = parts.weights[kept]
        return cls(
            posterior.structure.levels,
            tuple(str(label) for label in posterior.structure.groups),
            weights / weights.sum(),
            parts.mu_mean[kept] + table.location,
            np.sqrt(parts.mu_variance[kept]),
            between[kept],
            parts.sigma[kept],
            mean[:, kept] + (table.middle + table.location)[:, None],
            np.sqrt(variance[:, kept]),
            learned_priors(posterior),
            dict(source or {}),
        )

    @property
    def priors(self) -> dict[str, Prior]:
        """Priors for a later batch, by parameter."""
        return {name: one.prior for name, one in self.learned.items()}

    @cached_property
    def digest(self) -> str:
        """sha256 of the content."""
        return _digest(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without the digest."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": dict(self.source),
            "levels": list(self.levels),
            "groups": list(self.groups),
            "nodes": {name: getattr(self, name).tolist() for name in _ARRAYS},
            "learned": {name: one.as_dict() for name, one in self.learned.items()},
        }

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        text = json.dumps(self.as_dict() | {"digest": self.digest}, allow_nan=False)
        beside = path.with_name(f".{path.name}.part")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> Hyperposterior:
        """Inverse of `write`.

        Raises
        ------
        InputError
            Not such a file, of another version, or damaged.
        """
        expected = "a file written by `hbm precompute`"
        try:
            if path.stat().st_size > _LARGEST:
                raise InputError(path.name, f"at most {_LARGEST:,} bytes", path.stat().st_size)
            value = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(value, dict) or value.get("format") != FORMAT:
                raise InputError(path.name, expected, "another file")
            if value.get("version") != VERSION:
                raise InputError(path.name, f"version {VERSION}", value.get("version"))
            digest = value.pop("digest", None)
            if digest != _digest(value):
                raise InputError(path.name, f"digest {_digest(value)[:12]}, as of its content", digest)
            return cls(
                tuple(value["levels"]),
                tuple(value["groups"]),
                **{name: np.array(value["nodes"][name], dtype=float) for name in _ARRAYS},
                learned={name: Learned.from_dict(one) for name, one in value["learned"].items()},
                source=value["source"],
            )
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as problem:
            raise InputError("hyperposterior", expected, path.name) from problem

    def places(self, group: Sequence[str | None]) -> np.ndarray:
        """Places of groups by label, ndarray (n,) of int; the population's for None and unknown ones."""
        known: dict[str | None, int] = {label: place for place, label in enumerate(self.groups)}
        return np.array([known.get(label, len(self.groups)) for label in group], dtype=np.intp)

    @cached_property
    def _new(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of a new unit's effect given a node; the last row is the population's."""
        mean = np.concatenate([self.group_mean, self.mu_mean[None, :]])
        between = np.square(self.mu_sd) + np.square(self.sigma_group)
        inside = np.concatenate([np.square(self.group_sd), between[None, :]])
        return mean, inside + np.square(self.sigma_unit)


@dataclass(frozen=True, eq=False)
class Readouts:
    """Posteriors of new units' effects, each given the batch and its own data alone.

    Attributes
    ----------
    mean, sd : ndarray (n,)
        In the outcome's units.
    low80, high80, low95, high95 : ndarray (n,)
        Central intervals, in the outcome's units.
    above : ndarray (n,)
        P(effect > threshold).
    own : ndarray (n,)
        Weight of the experiment's own effect in the mean, the rest being its group's and the population's.
    known : ndarray (n,) of bool
        Whether the group was in the batch; else the unit is one of a new group of the population.
    far : ndarray (n,) of bool
        Whether the effect contradicts the batch so much that its nodes do not reach: refit with it.
    """

    mean: np.ndarray
    sd: np.ndarray
    low80: np.ndarray
    high80: np.ndarray
    low95: np.ndarray
    high95: np.ndarray
    above: np.ndarray
    own: np.ndarray
    known: np.ndarray
    far: np.ndarray


def score(
    hyper: Hyperposterior,
    effect: ArrayLike,
    se: ArrayLike,
    group: Sequence[str | None] | np.ndarray | str | None = None,
    threshold: float = 0.0,
) -> Readouts:
    """Readouts of new experiments without a refit.

    θ | node ~ Normal(m, A) with A = v_g + σ_unit², or Var μ + σ_group² + σ_unit² in a new group;
    node | y ∝ weight · Normal(y; m, A + s²); θ | node, y ~ Normal(m + b (y − m), b s²), b = A/(A + s²).
    Experiments do not learn from each other: each is scored as if it were the first after the batch.

    Parameters
    ----------
    hyper : Hyperposterior
        Of the batch.
    effect, se : ndarray (n,) or float
        Estimated effects and their standard errors, in the outcome's units.
    group : sequence of str, ndarray (n,) of int, str or None
        Labels, or places as of `Hyperposterior.places`; one text is for all. Unknown labels and None are
        units of a new group.
    threshold : float
        For `Readouts.above`, in the outcome's units.

    Raises
    ------
    InputError
        Lengths that differ, effects that are not finite, standard errors that are not positive.
    """
    y, s = np.broadcast_arrays(np.atleast_1d(np.asarray(effect, float)), np.asarray(se, float))
    if y.ndim != 1 or not (np.isfinite(y).all() and np.isfinite(s).all() and (s > 0).all()):
        raise InputError("effects and standard errors", "finite effects and positive finite se", "others")
    if not math.isfinite(threshold):
        raise InputError("threshold", "a finite number", threshold)
    place = _places(hyper, group, y.size)
    out = np.empty((9, y.size))
    step = max(1, _BLOCK // hyper.weights.size)
    for at in range(0, y.size, step):
        part = slice(at, at + step)
        out[:, part] = _score(hyper, y[part, None], np.square(s[part, None]), place[part], threshold)
    known = place < len(hyper.groups)
    mean, sd, low80, high80, low95, high95, above, own, told = out
    return Readouts(mean, sd, low80, high80, low95, high95, above, own, known, told > _TOLD)


def _places(
    hyper: Hyperposterior, group: Sequence[str | None] | np.ndarray | str | None, count: int
) -> np.ndarray:
    if group is None or isinstance(group, str):
        return np.repeat(hyper.places([group]), count)
    array = np.asarray(group)
    place = array.astype(np.intp) if array.dtype.kind in "iu" else hyper.places(list(group))
    if place.shape != (count,) or place.min(initial=0) < 0 or place.max(initial=0) > len(hyper.groups):
        raise InputError("groups", f"{count}, one per effect", array.shape)
    return place


def _score(
    hyper: Hyperposterior, y: np.ndarray, square: np.ndarray, place: np.ndarray, threshold: float
) -> np.ndarray:
    """All figures of a block, ndarray (9, B), in the order of `Readouts`."""
    center, inside = (values[place] for values in hyper._new)
    total = inside + square
    away = y - center
    log_weight = np.log(hyper.weights) - 0.5 * (np.log(total) + away * away / total)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    share = inside / total
    center += share * away
    sd = np.sqrt(share * square)
    mean = np.vecdot(weight, center)
    off, own = center - mean[:, None], share * square
    spread = np.sqrt(np.vecdot(weight, off * off + own))
    skew = np.vecdot(weight, off * (off * off + 3 * own)) / spread**3
    kurtosis = np.vecdot(weight, np.square(off * off + 3 * own) - 6 * own * own) / spread**4 - 3
    ends = []
    for level in LEVELS:
        for tail in ((1 - level) / 2, (1 + level) / 2):
            z = float(ndtri(tail))
            # Cornish and Fisher's expansion: mostly within a hundredth of an sd.
            moved = z + (z * z - 1) * skew / 6 + (z**3 - 3 * z) * kurtosis / 24
            moved -= (2 * z**3 - 5 * z) * skew**2 / 36
            ends.append(_quantile(tail, weight, center, sd, mean + moved * spread))
    above = np.vecdot(weight, ndtr((center - threshold) / sd))
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.where(weight > 0, weight * np.log(weight / hyper.weights), 0.0).sum(axis=1)
    return np.stack([mean, spread, *ends, above, np.vecdot(weight, share), told])


def _quantile(
    p: float,
    weight: np.ndarray,
    center: np.ndarray,
    sd: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """One quantile of each row's mixture from a start near it, ndarray (B,).

    Halley's steps; a row leaves after the step from where it was right to 1e-5 in probability, and bisects
    between the ends that hold it where a step leads out of them.
    """
    ends = center + float(ndtri(p)) * sd
    low, high = ends.min(axis=1), ends.max(axis=1)
    x, out = np.clip(start, low, high), np.empty(start.size)
    rows = np.arange(start.size)
    for _ in range(_STEPS):
        at = (x[:, None] - center) / sd
        gap = np.vecdot(weight, ndtr(at)) - p
        height = weight / sd * np.exp(-0.5 * at * at)
        density = height.sum(axis=1) / math.sqrt(2 * math.pi)
        slope = np.vecdot(height, -at / sd) / math.sqrt(2 * math.pi)
        low, high = np.where(gap < 0, x, low), np.where(gap > 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = gap / density
            moved = x - newton / (1 - 0.5 * newton * slope / density)
        # The last step improves a row that is right already: it costs nothing more.
        x = np.where((moved >= low) & (moved <= high), moved, 0.5 * (low + high))
        out[rows] = x
        left = (np.abs(gap) > _CLOSE) & (high - low > 1e-13 * np.abs(x))
        if not left.any():
            break
        rows, x, low, high = rows[left], x[left], low[left], high[left]
        weight, center, sd = weight[left], center[left], sd[left]
    return out


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
