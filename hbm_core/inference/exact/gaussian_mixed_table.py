"""What the engine of Gaussian mixed models takes from the data, and block elimination given the spreads.

Given the spreads everything is Gaussian. The members' deviations are eliminated one by one, which leaves per
group a quadratic form in its means m_g of T slots: −½ m'A m + h'm, where A and h depend on σ_member alone.
With m_g = β + 1 a_g + σ_own C w_g (β_t = μ + b_t, C the structure's pattern) and the eigenvectors of C'AC the
own effects w drop out element by element, then the level a_g, one number, then what all groups share, one
small matrix, and last μ. Only A and h cost in the number of members, once per value of σ_member.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from hbm_core.inference.exact.whitened import Lattice
from hbm_core.models.gaussian_mixed import ByMember, GaussianMixed

#: Numbers in one array over nodes, groups and slots.
_BLOCK = 3_000_000
#: Lattices that a table keeps, the latest last.
_KEPT = 4


@dataclass(frozen=True, eq=False)
class Forms:
    """The quadratic forms of all groups at K values of σ_member, and C'AC in its own axes.

    Attributes
    ----------
    matrix : ndarray (K, G, T, T)
        A.
    linear : ndarray (K, G, T)
        H.
    rest : ndarray (K,)
        Log likelihood at m = 0.
    eigen : ndarray (K, G, J)
        Λ of C'AC = QΛQ'.
    axes, lifted : ndarray (K, G, T, J)
        F = CQ and R = AF.
    along, across : ndarray (K, G, J)
        F'h and R'1.
    level : ndarray (K, G)
        1'A1.
    """

    matrix: np.ndarray
    linear: np.ndarray
    rest: np.ndarray
    eigen: np.ndarray
    axes: np.ndarray
    lifted: np.ndarray
    along: np.ndarray
    across: np.ndarray
    level: np.ndarray


@dataclass(frozen=True, eq=False)
class Reduced:
    """What is left of the likelihood for μ: its log is rest + linear μ − ½ precision μ², arrays (P,)."""

    precision: np.ndarray
    linear: np.ndarray
    rest: np.ndarray

    def log_evidence(self, centre: float, sd: float) -> np.ndarray:
        """Log likelihood of the spreads under μ ~ Normal(centre, sd), `centre` less the table's location."""
        pull = self.linear - centre * self.precision
        grown = 1 + sd**2 * self.precision
        at = self.rest + centre * self.linear - 0.5 * centre**2 * self.precision
        return at + 0.5 * sd**2 * np.square(pull) / grown - 0.5 * np.log(grown)

    def mean_of(self, centre: float, sd: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean, less the table's location, and variance of μ given the spreads, ndarray (P,) each."""
        variance = 1 / (self.precision + sd**-2.0)
        return variance * (self.linear + centre * sd**-2.0), variance


@dataclass(frozen=True, eq=False)
class Means:
    """Means of cells given spreads and μ: m = constant + slope μ + Normal(0, covariance).

    Attributes
    ----------
    constant, slope : ndarray (P, G, T)
        Linear functions of μ.
    variance : ndarray (P, G, T)
        Diagonal of the covariance.
    first : ndarray (P, G, T)
        Its row of the first slot.
    covariance : ndarray (P, G, T, T) or None
        All of a group's, where it was asked for.
    """

    constant: np.ndarray
    slope: np.ndarray
    variance: np.ndarray
    first: np.ndarray
    covariance: np.ndarray | None = None


@dataclass(eq=False)
class MixedTable:
    """Sums of the data and the nodes that were made for them, whatever the priors.

    Attributes
    ----------
    data : ByMember
        Rows by member and slot.
    pattern : ndarray (T, J)
        C.
    groups, rows : int
        How many.
    walk : bool
        Whether slots follow one another in time.
    lattices : list of Nodes
        Latest last.
    """

    # Not the structure itself: the table ends with it.
    data: ByMember
    pattern: np.ndarray
    groups: int
    rows: int
    walk: bool
    lattices: list[Nodes] = field(default_factory=list)

    @classmethod
    def of(cls, structure: GaussianMixed) -> MixedTable:
        """The table of a structure; made once."""
        if structure not in _TABLES:
            _TABLES[structure] = cls(
                ByMember.of(structure),
                structure.pattern,
                len(structure.groups),
                structure.effect.size,
                structure.walk,
            )
        return _TABLES[structure]

    def remember(self, nodes: Nodes) -> None:
        """Keep nodes, as the latest."""
        self.lattices = [*(one for one in self.lattices if one is not nodes), nodes][-_KEPT:]

    @property
    def location(self) -> float:
        """What is taken off all effects."""
        return self.data.location

    @cached_property
    def _bounds(self) -> np.ndarray:
        return np.searchsorted(self.data.group, np.arange(self.groups + 1))

    def columns(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Squares of σ_group, σ_slot (0 in time), σ_own and σ_member, each ndarray (P,)."""
        square = np.square(x)
        if self.walk:
            return square[:, 0], np.zeros(len(x)), square[:, 1], square[:, 2]
        return square[:, 0], square[:, 1], square[:, 2], square[:, 3]

    def forms(self, square: np.ndarray) -> Forms:
        """Members eliminated, at K values of σ_member²."""
        data, pattern = self.data, self.pattern
        groups, slots = self.groups, data.weight.shape[1]
        matrix, linear = np.zeros((len(square), groups, slots, slots)), np.zeros((len(square), groups, slots))
        own, sums = data.weight.sum(axis=1), data.value.sum(axis=1)
        rest = np.empty(len(square))
        constant = data.log_se + self.rows * float(np.log(2 * np.pi))
        bounds = self._bounds
        diagonal = np.add.reduceat(data.weight, bounds[:-1], axis=0)
        values = np.add.reduceat(data.value, bounds[:-1], axis=0)
        at = np.arange(slots)
        step = max(1, _BLOCK // own.size)
        for first in range(0, len(square), step):
            some = slice(first, first + step)
            grown = 1 + square[some, None] * own
            share = square[some, None] / grown
            pull = np.log(grown).sum(axis=1) + data.square - share @ np.square(sums)
            rest[some] = -0.5 * (constant + pull)
            for g in range(groups):
                part = slice(bounds[g], bounds[g + 1])
                weight = data.weight[part]
                outer = (weight[:, :, None] * weight[:, None, :]).reshape(len(weight), -1)
                matrix[some, g] = -(share[:, part] @ outer).reshape(-1, slots, slots)
                linear[some, g] = values[g] - share[:, part] @ (sums[part, None] * weight)
        matrix[:, :, at, at] += diagonal
        eigen, vectors = np.linalg.eigh(pattern.T @ matrix @ pattern)
        axes = pattern @ vectors
        lifted = matrix @ axes
        return Forms(
            matrix,
            linear,
            rest,
            np.maximum(eigen, 0.0),
            axes,
            lifted,
            np.einsum("kgtj,kgt->kgj", axes, linear),
            lifted.sum(axis=2),
            matrix.sum(axis=(2, 3)),
        )

    def reduce(self, x: np.ndarray) -> Reduced:
        """Everything but μ eliminated, at spreads x, ndarray (P, D) in the order of ``structure.spreads``."""
        parts = [Elimination(self, block).reduced for block in self._blocks(x)]
        return Reduced(
            np.concatenate([part.precision for part in parts]),
            np.concatenate([part.linear for part in parts]),
            np.concatenate([part.rest for part in parts]),
        )

    def means(self, x: np.ndarray) -> Means:
        """Means of cells, without their covariances."""
        parts = [Elimination(self, block).means(False) for block in self._blocks(x)]
        names = ("constant", "slope", "variance", "first")
        return Means(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _blocks(self, x: np.ndarray) -> list[np.ndarray]:
        slots = self.data.weight.shape[1]
        step = max(1, _BLOCK // (self.groups * slots * slots))
        return [x[at : at + step] for at in range(0, len(x), step)]


class Elimination:
    """The blocks eliminated in turn, at spreads x.

    Parameters
    ----------
    table : MixedTable
        The data.
    x : ndarray (P, D)
        Spreads.
    """

    def __init__(self, table: MixedTable, x: np.ndarray) -> None:
        level, slot, own, member = table.columns(x)
        squares, k = np.unique(member, return_inverse=True)
        self.forms, self.k, self.slot = table.forms(squares), k.ravel(), slot
        self.shared = not table.walk
        forms, k = self.forms, self.k
        self.own = own[:, None, None] / (1 + own[:, None, None] * forms.eigen[k])
        grown = np.log1p(own[:, None, None] * forms.eigen[k]).sum(axis=(1, 2))
        scaled = self.own * forms.across[k]
        self.row = forms.matrix.sum(axis=3)[k] - np.matmul(forms.lifted[k], scaled[..., None])[..., 0]
        along = self.own * forms.along[k]
        self.linear = forms.linear[k] - np.matmul(forms.lifted[k], along[..., None])[..., 0]
        self.total = np.maximum(forms.level[k] - (scaled * forms.across[k]).sum(axis=2), 0.0)
        self.sum = self.linear.sum(axis=2)
        self.level = level[:, None] / (1 + level[:, None] * self.total)
        rest = forms.rest[k] + 0.5 * (along * forms.along[k]).sum(axis=(1, 2)) - 0.5 * grown
        rest += 0.5 * (self.level * np.square(self.sum)).sum(axis=1)
        rest -= 0.5 * np.log1p(level[:, None] * self.total).sum(axis=1)
        one = np.ones(self.row.shape[2])
        if self.shared:
            flat = forms.lifted.transpose(0, 2, 1, 3).reshape(len(squares), one.size, -1)[k]
            wide = flat * self.own.reshape(len(k), 1, -1)
            together = forms.matrix.sum(axis=1)[k] - wide @ flat.transpose(0, 2, 1)
            together -= np.matmul((self.row * self.level[..., None]).transpose(0, 2, 1), self.row)
            self.matrix = np.eye(one.size) + slot[:, None, None] * together
            self.inverse = np.linalg.inv(self.matrix)
            linear = (self.linear - self.row * (self.level * self.sum)[..., None]).sum(axis=1)
            self.slope = self.inverse.sum(axis=2)
            solved = np.matmul(self.inverse, linear[..., None])[..., 0]
            self.constant = slot[:, None] * solved
            rest += 0.5 * slot * np.vecdot(linear, solved) - 0.5 * np.linalg.slogdet(self.matrix)[1]
            precision = np.vecdot(together.sum(axis=2), self.slope)
            self.reduced = Reduced(np.maximum(precision, 0.0), solved.sum(axis=1), rest)
        else:
            self.slope, self.constant = np.broadcast_to(one, (len(k), one.size)), np.zeros((len(k), one.size))
            keep = 1 - self.level * self.total
            self.reduced = Reduced((self.total * keep).sum(axis=1), (self.sum * keep).sum(axis=1), rest)

    @cached_property
    def _level_path(self) -> np.ndarray:
        """What a level of 1 does to the means, ndarray (P, G, T)."""
        forms, k = self.forms, self.k
        return 1 - np.matmul(forms.axes[k], (self.own * forms.across[k])[..., None])[..., 0]

    @cached_property
    def path(self) -> np.ndarray:
        """From what groups share to a group's expected means, ndarray (P, G, T, T)."""
        forms, k = self.forms, self.k
        scaled = forms.axes[k] * self.own[:, :, None, :]
        direct = np.eye(self.row.shape[2]) - scaled @ forms.lifted[k].swapaxes(2, 3)
        return direct - (self._level_path * self.level[..., None])[..., None] * self.row[:, :, None, :]

    def means(self, full: bool) -> Means:
        """Means of cells given the spreads, with all covariances within groups where `full`."""
        forms, k = self.forms, self.k
        own = np.matmul(forms.axes[k], (self.own * forms.along[k])[..., None])[..., 0]
        constant = own + self._level_path * (self.level * self.sum)[..., None]
        first = (forms.axes[k] * (self.own * forms.axes[k][:, :, 0, :])[:, :, None, :]).sum(axis=3)
        first = first + self._level_path * (self.level * self._level_path[:, :, 0])[..., None]
        if self.shared or full:
            path = self.path
        if self.shared:
            constant = constant + np.matmul(path, self.constant[:, None, :, None])[..., 0]
            slope = np.matmul(path, self.slope[:, None, :, None])[..., 0]
            spread = path @ (self.slot[:, None, None] * self.inverse)[:, None]
            first = first + (spread * path[:, :, :1, :]).sum(axis=3)
        else:
            slope = self._level_path * (1 - self.level * self.total)[..., None]
        if full:
            axes = forms.axes[k]
            covariance = (axes * self.own[:, :, None, :]) @ axes.swapaxes(2, 3)
            outer = self._level_path[..., None] * self._level_path[:, :, None, :]
            covariance += self.level[..., None, None] * outer
            if self.shared:
                covariance += spread @ path.swapaxes(2, 3)
            variance = np.einsum("pgtt->pgt", covariance)
            return Means(constant, slope, variance, first, covariance)
        variance = (np.square(forms.axes[k]) * self.own[:, :, None, :]).sum(axis=3)
        variance = variance + self.level[..., None] * np.square(self._level_path)
        if self.shared:
            variance = variance + (spread * path).sum(axis=3)
        return Means(constant, slope, variance, first)

    def draw(self, mu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One draw of the means of cells per node, ndarray (P, G, T), given μ, ndarray (P,)."""
        forms, k = self.forms, self.k
        shared = self.constant + self.slope * mu[:, None]
        if self.shared:
            root = np.linalg.cholesky(0.5 * (self.inverse + self.inverse.transpose(0, 2, 1)))
            noise = np.matmul(root, rng.standard_normal(shared.shape)[..., None])[..., 0]
            shared = shared + np.sqrt(self.slot)[:, None] * noise
        level = self.level * (self.sum - np.matmul(self.row, shared[..., None])[..., 0])
        level = level + np.sqrt(self.level) * rng.standard_normal(level.shape)
        start = shared[:, None] + level[..., None]
        lifted = np.matmul(forms.lifted[k].swapaxes(2, 3), start[..., None])[..., 0]
        own = self.own * (forms.along[k] - lifted)
        own = own + np.sqrt(self.own) * rng.standard_normal(own.shape)
        return start + np.matmul(forms.axes[k], own[..., None])[..., 0]


@dataclass(frozen=True, eq=False)
class Nodes:
    """A lattice over the spreads with what the data say at its nodes, whatever the priors.

    Attributes
    ----------
    lattice : Lattice
        Axis by axis.
    support : tuple of (float, float)
        Of the priors that it was made for.
    reduced : Reduced
        What is left for μ, arrays (P,).
    constant, slope, variance : ndarray (P, H)
        μ, means of cells and contrasts given μ: constant + slope μ, with this variance.
    """

    lattice: Lattice
    support: tuple[tuple[float, float], ...]
    reduced: Reduced
    constant: np.ndarray
    slope: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, table: MixedTable, lattice: Lattice, support: tuple[tuple[float, float], ...]) -> Nodes:
        """What the data say at a lattice's nodes."""
        means = table.means(lattice.x)
        count = len(lattice.x)
        zero = np.zeros((count, 1))
        cells = [one.reshape(count, -1) for one in (means.constant, means.slope, means.variance)]
        if table.walk:
            steps = [one[:, :, 1:] - one[:, :, :1] for one in (means.constant, means.slope)]
            spread = means.variance[:, :, 1:] + means.variance[:, :, :1] - 2 * means.first[:, :, 1:]
            contrasts = [one.reshape(count, -1) for one in (*steps, np.maximum(spread, 0.0))]
        else:
            contrasts = [cells[0], cells[1] - 1, cells[2]]
        columns = zip((zero, zero + 1, zero), cells, contrasts, strict=True)
        return cls(lattice, support, table.reduce(lattice.x), *(np.hstack(column) for column in columns))

    def mixtures(self, centre: float, sd: float) -> tuple[np.ndarray, np.ndarray]:
        """Means, less the table's location, and variances of μ, cells and contrasts, (P, H) each."""
        mu, spread = self.reduced.mean_of(centre, sd)
        return (
            self.constant + self.slope * mu[:, None],
            self.variance + np.square(self.slope) * spread[:, None],
        )


_TABLES: WeakKeyDictionary[GaussianMixed, MixedTable] = WeakKeyDictionary()
