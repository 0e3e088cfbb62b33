"""NUTS of counts beyond the gamma population against plain sums over all parameters."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from hbm_core.analysis.draws import agreement, summary
from hbm_core.errors import NotExactError
from hbm_core.inference.exact import solve
from hbm_core.inference.nuts import sample
from hbm_core.inference.sampler import Sampler
from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts

COUNT = np.array([0, 3, 0, 5, 2, 0, 9, 4, 0, 12, 7, 0, 1, 0, 0, 2, 0, 1])
ENTITY = np.repeat([0, 1, 2], 6)
X = np.tile([-1.2, 0.4, 0.8, 1.1, -1.4, 0.3], 3)
LAWS = {
    "mu": ("Gamma(3, 0.8)", stats.gamma(3, scale=1 / 0.8)),
    "alpha": ("Gamma(2, 2)", stats.gamma(2, scale=0.5)),
    "phi": ("Gamma(3, 1)", stats.gamma(3)),
    "psi": ("Beta(2, 4)", stats.beta(2, 4)),
    "beta": ("Normal(0, 0.7)", stats.norm(0, 0.7)),
}
POINTS = 40


def nodes(name):
    """Nodes, weights and edges: even steps of a coordinate in which all is smooth, far into both tails."""
    law = LAWS[name][1]
    low, high = law.ppf([1e-6, 1 - 1e-6])
    to, back, slope = {
        "psi": (special.logit, special.expit, lambda x: x * (1 - x)),
        "beta": (np.array, np.array, np.ones_like),
    }.get(name, (np.log, np.exp, lambda x: x))
    edges = np.linspace(to(low), to(high), POINTS + 1)
    at = back((edges[1:] + edges[:-1]) / 2)
    return at, law.pdf(at) * slope(at) * np.diff(edges), back(edges)


def sums(structure):
    """Means, sds and medians by plain sums over all parameters, and over one grid of log θ."""
    grid, mass_of, edges = {}, {}, {}
    for name in structure.parameters:
        grid[name], mass_of[name], edges[name] = nodes(name)
    x = np.arange(-30, 5, 0.06)
    theta = np.exp(x)
    mu, alpha = (a.ravel()[:, None] for a in np.meshgrid(grid["mu"], grid["alpha"], indexing="ij"))
    population = stats.gamma(mu * alpha, scale=1 / alpha).pdf(theta) * theta * 0.06
    other = "psi" if "psi" in grid else "beta"
    phi, moved = (a.ravel() for a in np.meshgrid(grid["phi"], grid[other], indexing="ij"))
    parts = []
    for i in range(3):
        log_like = np.zeros((phi.size, x.size))
        for y, z in zip(COUNT[i == ENTITY], X[i == ENTITY], strict=True):
            scale = np.exp(z * moved) if other == "beta" else np.ones(phi.size)
            mean = theta * scale[:, None]
            one = stats.nbinom.logpmf(y, phi[:, None], phi[:, None] / (phi[:, None] + mean))
            if other == "psi":
                shut = moved[:, None] * (y == 0)
                one = np.log(shut + (1 - moved[:, None]) * np.exp(one))
            log_like += one
        parts.append(np.exp(log_like - log_like.max()))
    each = [part @ population.T for part in parts]
    weight = each[0] * each[1] * each[2]
    weight = weight.reshape((POINTS,) * 4)
    for axis, name in enumerate(("phi", other, "mu", "alpha")):
        weight = weight * mass_of[name].reshape([-1 if k == axis else 1 for k in range(4)])
    weight /= weight.sum()
    rows = {}
    for axis, name in enumerate(("phi", other, "mu", "alpha")):
        mass = weight.sum(axis=tuple(k for k in range(4) if k != axis))
        median = np.interp(0.5, np.r_[0, np.cumsum(mass)], edges[name])
        mean = mass @ grid[name]
        sd = np.sqrt(mass @ (grid[name] - mean) ** 2)
        rows["beta[x]" if name == "beta" else name] = (mean, sd, median)
    flat = weight.reshape(POINTS**2, -1)
    for i, unit in enumerate(structure.units):
        share = flat / each[i]
        density = ((share @ population) * parts[i]).sum(axis=0)
        mean = density @ theta
        median = np.exp(np.interp(0.5, np.cumsum(density), x + 0.03))
        rows[f"theta[{unit}]"] = (mean, np.sqrt(density @ (theta - mean) ** 2), median)
    return pd.DataFrame(rows, index=["mean", "sd", "q0.5"]).T


@pytest.mark.sampling
@pytest.mark.parametrize(("case", "name"), [("zero_inflated", "collapsed"), ("covariates", "centered")])
def test_nuts_agrees_with_plain_sums(case, name, compile_cache):
    units = ("a", "b", "c")
    if case == "covariates":
        structure = CovariateCounts(COUNT, ENTITY, units, np.ones(18), X, ("x",))
    else:
        structure = ZeroInflatedCounts(COUNT, ENTITY, units)
    priors = {name: Prior.parse(LAWS[name][0]) for name in structure.parameters}
    spec = ModelSpec(structure, priors, {}, name)
    with pytest.raises(NotExactError, match="NUTS"):
        solve(spec)
    tree = sample(spec, Sampler(draws=1000, tune=500, target_accept=0.95, seed=3), cache=compile_cache)
    table = agreement(summary(tree), sums(structure))
    assert len(table) == 7 and table["agrees"].all(), table
    # Other numbers and other data of as many entities compile nothing.
    before = compile_cache.compilations
    fewer = type(structure)(COUNT[1:], ENTITY[1:], units, np.ones(17), **_rest(structure))
    other = ModelSpec(fewer, priors | {"mu": Prior.parse("Gamma(2, 2)")}, {}, name)
    sample(other, Sampler(draws=20, tune=50, chains=1), cache=compile_cache)
    assert compile_cache.compilations == before


def _rest(structure):
    return {"design": X[1:], "columns": ("x",)} if isinstance(structure, CovariateCounts) else {}
