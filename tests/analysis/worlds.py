"""Models, dense oracles and draws that the analysis tests share. Written without the package's own maths."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SE = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
SCHOOLS = tuple("ABCDEFGH")
WEAK = {"mu": Prior.parse("Normal(0, 20)"), "tau": Prior.parse("HalfCauchy(10)")}
SKEPTICAL = {"mu": Prior.parse("Normal(8, 5)"), "tau": Prior.parse("HalfNormal(5)")}


def schools(mu="Normal(0, 20)", tau="HalfCauchy(10)", effect=EFFECT, se=SE, **structure) -> ModelSpec:
    units = SCHOOLS if len(effect) == 8 else tuple(f"u{place}" for place in range(len(effect)))
    priors = {"mu": Prior.parse(mu), "tau": Prior.parse(tau)}
    if structure.get("columns"):
        priors["beta"] = Prior.parse("Normal(0, 10)")
    constants = {}
    if structure.get("scale") == "adaptive":
        constants = {"threshold": 3.0, "spread": 4.0, "slope": 2.0}
    return ModelSpec(TwoLevelNormal(effect, se, units, **structure), priors, constants)


def pooled(pooling: str, **priors: str) -> ModelSpec:
    given = {name: Prior.parse(text) for name, text in priors.items()}
    return ModelSpec(TwoLevelNormal(EFFECT, SE, SCHOOLS, pooling=pooling), given, parameterization="centered")


def dense(spec: ModelSpec, nodes: int = 3000):
    """Nodes of τ, their posterior masses, E[θ | τ] (K, J), Cov[θ | τ] (K, J, J) and log p(y).

    Joint Gaussian conditioning with dense matrices on a trapezoid in log τ; normal priors on coefficients.
    """
    s = spec.structure
    z = np.column_stack([np.ones(s.effect.size), s.design])
    numbers = [spec.priors["mu"].numbers] + [spec.priors["beta"].numbers for _ in s.columns]
    center = z @ np.array([n[0] for n in numbers])
    common = z @ np.diag([n[1] ** 2 for n in numbers]) @ z.T
    upper = min(spec.priors["tau"].support[1] * (1 - 1e-12), 1e5)
    x = np.linspace(np.log(1e-9), np.log(upper), nodes)
    tau = np.exp(x)
    log, means, covariances = np.empty(nodes), [], []
    for k, t in enumerate(tau):
        prior = common + t**2 * np.eye(s.effect.size)
        marginal = prior + np.diag(s.se**2)
        gain = prior @ np.linalg.inv(marginal)
        residual = s.effect - center
        means.append(center + gain @ residual)
        covariances.append(prior - gain @ prior)
        log[k] = -0.5 * (
            residual @ np.linalg.solve(marginal, residual) + np.linalg.slogdet(2 * np.pi * marginal)[1]
        )
    log += spec.priors["tau"].log_density(tau) + x
    mass = np.exp(log - log.max()) * (x[1] - x[0])
    mass[[0, -1]] /= 2
    return tau, mass / mass.sum(), np.array(means), np.array(covariances), np.log(mass.sum()) + log.max()


def tree_of(spec: ModelSpec, draws: int = 1000, chains: int = 4, seed: int = 1) -> xr.DataTree:
    """Independent draws in the shape of a sampler's result, θ integrated out of the log-likelihood."""
    found = solve(spec).draws(draws * chains, seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(draws * chains)

    def arranged(values):
        return values[order].reshape(chains, draws, *values.shape[1:])

    s = spec.structure
    variance = found["tau"][:, None] ** 2 + s.se**2
    log_likelihood = -0.5 * (np.log(2 * np.pi * variance) + (s.effect - found["mu"][:, None]) ** 2 / variance)
    plain = {"chain": np.arange(chains), "draw": np.arange(draws)}
    labelled = plain | {"unit": list(s.units)}
    two, three = ("chain", "draw"), ("chain", "draw", "unit")
    posterior = {name: (two, arranged(found[name])) for name in ("mu", "tau")}
    posterior["theta"] = (three, arranged(found["theta"]))
    stats = {
        "diverging": (two, np.zeros((chains, draws), dtype=bool)),
        "energy": (two, rng.normal(size=(chains, draws))),
    }
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(posterior, coords=labelled),
            "sample_stats": xr.Dataset(stats, coords=plain),
            "log_likelihood": xr.Dataset({"y": (three, arranged(log_likelihood))}, coords=labelled),
        }
    )
