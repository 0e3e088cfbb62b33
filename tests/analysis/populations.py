"""Draws of a population of vectors in which everything is known, written apart from the package."""

from __future__ import annotations

import numpy as np
import xarray as xr

from hbm_core.models.vector_population import VectorPopulation


def vector_of(components: str = "abc", units: str = "RSTUV", **options) -> VectorPopulation:
    """Names as a fit of circuits has them."""
    names, count = tuple(components), len(components)
    given = {"spread_priors": ("sigma",) * count, "correlation_prior": "corr"} | options
    return VectorPopulation(
        names,
        tuple(f"alpha[{name}]" for name in names),
        tuple(f"sigma[{name}]" for name in names),
        tuple(f"corr[{names[i]},{names[j]}]" for i in range(count) for j in range(i)),
        tuple(f"theta[{{unit}},{name}]" for name in names),
        tuple(units),
        **given,
    )


def tree_of(vector, alpha, sigma, omega, theta, chains: int = 4) -> xr.DataTree:
    """Draws (S, …) as a result."""
    size = len(vector.components)
    rows, across = np.tril_indices(size, -1)
    values = {
        "alpha": (("inferred",), alpha),
        "sigma": (("parameter",), sigma),
        "corr": (("pair",), omega[:, rows, across]),
        "theta": (("circuit", "parameter"), theta),
    }
    coords = {
        "inferred": list(vector.components),
        "parameter": list(vector.components),
        "circuit": list(vector.units),
        "pair": [f"{vector.components[i]},{vector.components[j]}" for i, j in zip(rows, across, strict=True)],
    }
    data = {
        name: (("chain", "draw", *dims), array.reshape(chains, -1, *array.shape[1:]))
        for name, (dims, array) in values.items()
    }
    return xr.DataTree.from_dict({"posterior": xr.Dataset(data, coords)})


def onion(eta: float, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Correlation matrices from LKJ(η) by the onion method: Lewandowski, Kurowicka and Joe (2009), 3.2."""
    found = np.empty((count, size, size))
    for row in range(count):
        beta = eta + (size - 2) / 2
        r = np.eye(1)
        for k in range(1, size):
            if k > 1:
                beta -= 0.5
            square = rng.beta(k / 2, beta)
            direction = rng.normal(size=k)
            direction /= np.sqrt(direction @ direction)
            column = np.linalg.cholesky(r) @ (np.sqrt(square) * direction)
            r = np.block([[r, column[:, None]], [column[None], np.ones((1, 1))]])
        found[row] = r
    return found


def conjugate(count: int, rng: np.random.Generator, components: int = 3, units: int = 5):
    """α, Σ around fixed values and θ from its exact conditional given normal data with known V_c.

    Returns arrays α (S, P), σ (S, P), Ω (S, P, P), θ (S, C, P), data (C, P), V⁻¹ (C, P, P).
    """
    alpha = 0.3 * rng.normal(size=(count, components))
    sigma = np.exp(0.2 * rng.normal(size=(count, components)))
    r = 0.3 + 0.1 * rng.uniform(-1, 1, count)
    omega = np.eye(components) + (1 - np.eye(components)) * r[:, None, None]
    precision = np.linalg.inv(omega * sigma[:, :, None] * sigma[:, None, :])
    root = rng.normal(size=(units, components, components))
    information = root @ root.swapaxes(1, 2) * rng.uniform(0.2, 3, units)[:, None, None]
    data = 1.5 * rng.normal(size=(units, components))
    total = precision[:, None] + information
    right = np.einsum("spq,sq->sp", precision, alpha)[:, None] + np.einsum("cpq,cq->cp", information, data)
    center = np.linalg.solve(total, right[..., None])[..., 0]
    factor = np.linalg.cholesky(np.linalg.inv(total))
    theta = center + (factor @ rng.normal(size=(count, units, components, 1)))[..., 0]
    return alpha, sigma, omega, theta, data, information
