"""Posterior of gamma counts by plain sums over a box of parameters, and one fine grid of log θ for all rates.

Per state of the population and per entity the integral over log θ is one entry of a product of two matrices:
densities of the population on the grid, and likelihoods on the grid.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass
class Brute:
    """Means and sds of the hyperparameters, of the rates of all entities; quantiles of some rates."""

    hyper: np.ndarray
    theta: np.ndarray
    log_evidence: float
    marginals: list
    x: np.ndarray
    theta_density: np.ndarray
    of_entity: np.ndarray


def classes_of(structure):
    """Distinct entities as lists of (count, exposure) pairs, and the class of each entity."""
    keys, of_entity, found = {}, [], []
    for i in range(len(structure.units)):
        mine = structure.entity == i
        key = tuple(sorted(zip(structure.count[mine], structure.exposure[mine], strict=True)))
        # Windows of one exposure enter through their number and sum alone.
        same = len({e for _, e in key}) == 1
        short = (len(key), sum(y for y, _ in key), key[0][1]) if same else key
        if short not in keys:
            keys[short] = len(found)
            found.append(np.array(key))
        of_entity.append(keys[short])
    return found, np.array(of_entity)


def brute_force(spec, points=24, low=-30.0, high=12.0, step=0.025, drop=22.0):
    structure = spec.structure
    poisson = structure.likelihood == "poisson"
    found, of_entity = classes_of(structure)
    times = np.bincount(of_entity)
    x = np.arange(low, high, step)
    theta = np.exp(x)
    const = float(structure.count @ np.log(structure.exposure) - special.gammaln(structure.count + 1).sum())
    priors = [spec.priors[name] for name in structure.parameters]

    def likelihoods(phi):
        """Log of Π p(y | θ) less what hangs on y and φ alone, on the grid, per class."""
        rows = []
        for windows in found:
            y, e = windows.T
            mean = theta * e[:, None]
            if poisson:
                rows.append((y[:, None] * x - mean).sum(0))
            else:
                rows.append((y[:, None] * x - (y[:, None] + phi) * np.log1p(mean / phi)).sum(0))
        return np.array(rows)

    def gamma(mu, alpha):
        a, b = (alpha, alpha / mu) if structure.effects == "mean_scaled" else (mu * alpha, alpha)
        return a, b

    def evaluate(axes, full=False):
        mu, alpha = (m.ravel() for m in np.meshgrid(np.exp(axes[0]), np.exp(axes[1]), indexing="ij"))
        a, b = gamma(mu, alpha)
        log_density = a[:, None] * np.log(b)[:, None] - special.gammaln(a)[:, None] + a[:, None] * x
        density = np.exp(log_density - b[:, None] * theta)
        tail = special.gammainc(a, b * np.exp(low - step / 2))
        phis = [np.inf] if poisson else np.exp(axes[2])
        none = np.array([windows[:, 0].sum() == 0 for windows in found])
        out = np.empty((mu.size, len(phis)))
        per_class = []
        for k, phi in enumerate(phis):
            logs = likelihoods(phi)
            top = logs.max(1, keepdims=True)
            like = np.exp(logs - top)
            # Without events the likelihood is 1 left of the grid; with events that part is nothing.
            mass = density @ like.T * step + np.where(
                none, tail[:, None] / np.exp(np.where(none, top[:, 0], 0)), 0
            )
            out[:, k] = (np.log(np.maximum(mass, 1e-300)) + top[:, 0]) @ times + const
            if not poisson:
                y, n = np.unique(structure.count, return_counts=True)
                out[:, k] += n @ (special.gammaln(y + phi) - special.gammaln(phi) - y * np.log(phi))
            if full:
                per_class.append((like, mass))
        shape = [axis.size for axis in axes]
        total = out.reshape(shape)
        for d, (axis, prior) in enumerate(zip(axes, priors, strict=True)):
            values = prior.distribution.logpdf(np.exp(axis)) + axis
            total = total + values.reshape([-1 if j == d else 1 for j in range(len(axes))])
        return total, density, per_class

    ends = [(-20.0, 8.0), (-20.0, 6.0), (-20.0, 9.0)][: len(priors)]
    for count, below in ((15, 400.0), (11, 150.0), (13, 50.0), (13, drop), (points, drop)):
        axes = [np.linspace(*end, count) for end in ends]
        total, density, per_class = evaluate(axes, full=(count, below) == (points, drop))
        if count == points and per_class:
            break
        near = np.argwhere(total > total.max() - below)
        ends = [
            (axis[max(rows.min() - 1, 0)], axis[min(rows.max() + 1, axis.size - 1)])
            for axis, rows in zip(axes, near.T, strict=True)
        ]
    weights = np.exp(total - total.max())
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    log_evidence = float(total.max() + np.log(weights.sum() * cell))
    weights /= weights.sum()
    edge = max(np.take(weights, side, d).sum() for d in range(len(axes)) for side in (0, -1))
    assert edge < 1e-6, edge
    hyper, marginals = [], []
    for d, axis in enumerate(axes):
        share = weights.sum(axis=tuple(j for j in range(len(axes)) if j != d))
        mean = share @ np.exp(axis)
        hyper.append((mean, np.sqrt(share @ (np.exp(axis) - mean) ** 2)))
        marginals.append((axis, share))
    flat = weights.reshape(density.shape[0], -1)
    mixed = np.zeros((len(found), x.size))
    for k, (like, mass) in enumerate(per_class):
        # Where a mass has underflown, no weight is left either.
        share = np.where(flat[:, k, None] > 1e-14, flat[:, k, None] / np.maximum(mass, 1e-300), 0.0)
        mixed += like * (share.T @ density)
    mean = mixed @ theta * step
    square = mixed @ theta**2 * step
    sd = np.sqrt(square - mean**2)
    rates = np.stack([mean, sd], 1)[of_entity]
    return Brute(np.array(hyper), rates, log_evidence, marginals, x, mixed, of_entity)
