"""Gaussian mixed models by one dense joint normal per point of a grid over the spreads: slow, and apart."""

import numpy as np

from hbm_core.models.gaussian_mixed import GaussianMixed

KINDS = 5


def world(
    seed, walk=False, groups=2, members=2, slots=2, sd=(0.4, 0.3, 0.3, 0.5), missing=0.2, se=(0.1, 0.6)
):
    """A small data set: rows of members in slots, some missing; sds of groups, slots, own, members."""
    rng = np.random.default_rng(seed)
    level, shared = sd[0] * rng.standard_normal(groups), sd[1] * rng.standard_normal(slots)
    own = sd[2] * rng.standard_normal((groups, slots))
    if walk:
        shared, own[:, 0] = 0 * shared, 0.0
        own = np.cumsum(own, axis=1)
    rows = []
    for member in range(groups * members):
        group, deviation = member // members, sd[3] * rng.standard_normal()
        seen = [t for t in range(slots) if rng.random() > missing] or [0]
        for slot in seen:
            own_se = rng.uniform(*se)
            mean = 0.5 + level[group] + shared[slot] + own[group, slot] + deviation
            rows.append((mean + own_se * rng.standard_normal(), own_se, group, member, slot))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return structure_of(*columns, groups, slots, walk)


def structure_of(effect, se, group, member, slot, groups, slots, walk):
    """A structure with made-up labels."""
    return GaussianMixed(
        effect,
        se,
        group,
        tuple(f"m{i} × t{t}" for i, t in zip(member, slot, strict=True)),
        tuple(f"g{g}" for g in range(groups)),
        ("creator", "genre"),
        member=member,
        slot=slot,
        members=tuple(f"m{i}" for i in range(int(member.max()) + 1)),
        slots=tuple(f"t{t}" for t in range(slots)),
        slot_level="period" if walk else "segment",
        walk=walk,
    )


def loadings(structure):
    """μ, cells, contrasts and rows as sums of independent standard effects: matrix, and each effect's kind.

    Kinds: 0 μ, 1 groups, 2 slots, 3 own effects or steps, 4 members.
    """
    groups, slots, members = len(structure.groups), len(structure.slots), len(structure.members)
    sizes = (1, groups, slots, groups * slots, members)
    first = np.cumsum((0, *sizes))
    cell = np.zeros((groups * slots, first[-1]))
    for g in range(groups):
        for t in range(slots):
            row = g * slots + t
            cell[row, 0] = cell[row, first[1] + g] = 1
            if structure.walk:
                cell[row, first[3] + g * slots + 1 : first[3] + row + 1] = 1
            else:
                cell[row, first[2] + t] = cell[row, first[3] + row] = 1
    mu = np.eye(1, first[-1])
    if structure.walk:
        pairs = [(g * slots + t, g * slots) for g in range(groups) for t in range(1, slots)]
        contrast = np.array([cell[a] - cell[b] for a, b in pairs])
    else:
        contrast = cell - mu
    rows = cell[structure.group * slots + structure.slot].copy()
    rows[np.arange(structure.effect.size), first[4] + structure.member] = 1
    return np.concatenate([mu, cell, contrast, rows]), np.repeat(np.arange(KINDS), sizes), len(rows)


def brute_force(structure, priors, count, reach=None):
    """Means, sds and log evidence: Gauss-Legendre in the root of each spread.

    Parameters
    ----------
    count : int
        Points along each spread.
    reach : float, optional
        Where all grids end, by default where a prior has 1e-13 left.

    Returns
    -------
    mean, sd : ndarray
        In the order of the structure's hyperparameters, then rows.
    log_evidence : float
    """
    t, weight = np.polynomial.legendre.leggauss(count)
    t, weight = (t + 1) / 2, weight / 2
    axes, logs = [], []
    for name in structure.spreads:
        end = priors[name].distribution.isf(1e-13) if reach is None else reach
        x = end * t**2
        axes.append(x)
        logs.append(np.log(weight * 2 * end * t) + priors[name].distribution.logpdf(x))
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    log_weight = sum(np.meshgrid(*logs, indexing="ij")).ravel()
    matrix, kind, size = loadings(structure)
    rows = matrix[-size:]
    between = np.array([matrix[:, kind == k] @ rows[:, kind == k].T for k in range(KINDS)])
    among = between[:, -size:]
    own = np.array([np.square(matrix[:, kind == k]).sum(axis=1) for k in range(KINDS)])
    centre, sd = priors["mu"].numbers
    gap, parts = structure.effect - centre, []
    kinds = (1, 3, 4) if structure.walk else (1, 2, 3, 4)
    for at in range(0, len(x), 20_000):
        variance = np.zeros((len(x[at : at + 20_000]), KINDS))
        variance[:, 0] = sd**2
        variance[:, kinds] = x[at : at + 20_000] ** 2
        noise = np.tensordot(variance, among, 1) + np.diag(structure.se**2)
        inverse = np.linalg.inv(noise)
        pull = inverse @ gap
        log = -0.5 * (pull @ gap + np.linalg.slogdet(noise)[1] + size * np.log(2 * np.pi))
        cross = np.tensordot(variance, between, 1)
        mean = matrix[:, 0] * centre + np.einsum("phn,pn->ph", cross, pull)
        left = variance @ own - ((cross @ inverse) * cross).sum(axis=2)
        parts.append((log + log_weight[at : at + 20_000], mean, left + mean**2))
    log, mean, second = (np.concatenate(part) for part in zip(*parts, strict=True))
    mass = np.exp(log - log.max())
    total, share = mass.sum(), mass / mass.sum()
    first = share @ mean
    spread = np.sqrt(share @ second - first**2)
    scale = share @ x
    scale_sd = np.sqrt(share @ (x - scale) ** 2)
    return (
        np.concatenate([first[:1], scale, first[1:]]),
        np.concatenate([spread[:1], scale_sd, spread[1:]]),
        float(np.log(total) + log.max()),
    )
