"""What a prior on a covariance says: of each sd and correlation, and of both together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hbm_core.models.structure import ModelSpec
from hbm_core.models.vector_population import CovarianceLaw, VectorPopulation

_ENDS = (0.05, 0.25, 0.5, 0.75, 0.95)
_NAMES = ("low90", "low50", "median", "high50", "high90")


def vector_of(structure: Any) -> VectorPopulation | None:
    """The population of vectors that a structure has; None where its units are numbers, or not pooled."""
    found: VectorPopulation | None = getattr(structure, "vector", None)
    return found


def law_of(spec: ModelSpec[Any]) -> CovarianceLaw:
    """The prior on Σ of a model whose units are vectors."""
    vector: VectorPopulation = spec.structure.vector
    return vector.law(spec.priors, spec.constants)


def prior_of(spec: ModelSpec[Any], name: str) -> Any:
    """Marginal prior of one parameter as SciPy's frozen distribution; None where it is flat or not closed.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    name : str
        Flat name: ``mu``, ``beta[x]``, ``sigma[k_tx]``, ``corr[k_tx,K_tx]``.
    """
    vector = vector_of(spec.structure)
    if vector is not None and name in vector.spreads:
        return law_of(spec).spread(vector.spreads.index(name))
    if vector is not None and name in vector.correlations:
        return law_of(spec).correlation()
    head = name.partition("[")[0]
    prior = spec.priors.get(name) or spec.priors.get(head)
    return prior.distribution if prior is not None else None


def joint_table(law: CovarianceLaw, component: int = 0, cells: int = 80) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An sd and the size of one of its correlations together, in closed form.

    Parameters
    ----------
    law : CovarianceLaw
        With correlations, and a proper prior on the sd.
    component : int
        Whose sd.
    cells : int
        Points along either axis.

    Returns
    -------
    density : DataFrame
        log_sd (natural log), correlation (absolute), density (per unit of either), outside (mass of the prior
        where it is less dense).
    given : DataFrame
        correlation (absolute); low90, low50, median, high50, high90 of the sd at it.
    """
    size = (np.arange(cells) + 0.5) / cells
    given = [law.spread_given(component, r) for r in size]
    low, high = law.spread(component).ppf(np.array([0.002, 0.998]))
    high = min(max(high, float(given[-1].ppf(0.9))), 1e3 * low)
    edges = np.linspace(np.log(low), np.log(high), cells + 1)
    log_sd, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    # |r| has twice the mass of r.
    share = 2 * np.diff(law.correlation().cdf(np.arange(cells + 1) / cells)) * cells
    density = np.array([w * np.diff(d.cdf(np.exp(edges))) / width for w, d in zip(share, given, strict=True)])
    cell = width / cells
    order = np.argsort(density.ravel(), kind="stable")
    outside = np.empty(density.size)
    outside[order] = np.cumsum(density.ravel()[order]) * cell
    outside += max(1 - outside.max(), 0.0)
    table = pd.DataFrame(
        {
            "log_sd": np.tile(log_sd, cells),
            "correlation": np.repeat(size, cells),
            "density": density.ravel(),
            "outside": outside,
        }
    )
    quantiles = pd.DataFrame([d.ppf(_ENDS) for d in given], columns=list(_NAMES))
    quantiles.insert(0, "correlation", size)
    return table, quantiles
