"""Priors learned from an earlier batch: families of ours fitted to its hyperposterior.

Of a family the member nearest to p in Kullback–Leibler divergence KL(p‖q) = E_p[log p − log q] matches
p's expectations of the family's sufficient statistics: mean and variance for the normal, E[x] and E[log x]
for the gamma, E[1/x] and E[log x] for the inverse gamma, mean and variance of log x for the log-normal
(Bishop, 2006, Pattern Recognition and Machine Learning, section 10.7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, ndtr

from hbm_core.errors import InputError
from hbm_core.inference.exact.base import ExactPosterior
from hbm_core.inference.exact.three_level_posterior import ThreeLevelPosterior
from hbm_core.models.prior import Prior

#: Families for positive parameters; the one with the least divergence is taken.
POSITIVE = ("Gamma", "LogNormal", "InverseGamma")
#: Marginals are integrated by equal steps of z over their quantiles at Φ(z): of smooth functions that decay
#: at both ends nothing converges faster.
_Z = np.linspace(-5.5, 5.5, 111)
_SHARES = np.exp(-0.5 * _Z**2) / np.exp(-0.5 * _Z**2).sum()
_DIGITS = 6


@dataclass(frozen=True)
class Learned:
    """A prior fitted to a marginal of an earlier batch.

    Parameters
    ----------
    prior : Prior
        The member of its family nearest to the marginal.
    divergence : float
        KL(marginal ‖ prior), in nats.
    others : mapping of str to float
        The same of the families that were not taken.
    """

    prior: Prior
    divergence: float
    others: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"prior": self.prior.text, "divergence": self.divergence, "others": dict(self.others)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Learned:
        """Inverse of `as_dict`."""
        others = {str(name): float(one) for name, one in value["others"].items()}
        return cls(Prior.parse(value["prior"]), float(value["divergence"]), others)


def learned_priors(posterior: ExactPosterior) -> dict[str, Learned]:
    """Priors that carry a posterior's hyperparameters over to a later batch, by parameter.

    Parameters
    ----------
    posterior : ExactPosterior
        Of a completed batch. Its scalar parameters with a prior are carried over; each alone, because
        priors are independent.

    Raises
    ------
    InputError
        The model has parameters with a prior that are not single numbers.
    """
    structure = posterior.spec.structure
    names = list(structure.parameters)
    for name in names:
        if name not in posterior.names[: len(names) + 1]:
            raise InputError("model to learn from", "hyperparameters that are single numbers", repr(name))
    at = ndtr(_Z)
    if isinstance(posterior, ThreeLevelPosterior):
        points = dict(zip(posterior.hyper_names, posterior.hyper_quantiles(at), strict=True))
    else:
        quantiles = posterior.quantiles(at)
        points = {name: quantiles[posterior.index(name)] for name in names}
    return {
        name: fitted(points[name], posterior.density(name, points[name]), _SHARES, name in structure.positive)
        for name in names
    }


def fitted(x: np.ndarray, density: np.ndarray, shares: np.ndarray, positive: bool) -> Learned:
    """The nearest prior of our families to a marginal.

    Parameters
    ----------
    x : ndarray (n,)
        Points of the marginal.
    density : ndarray (n,)
        Its density there.
    shares : ndarray (n,)
        Their probabilities.
    positive : bool
        Whether the parameter is a positive one; normal otherwise.
    """
    with np.errstate(divide="ignore"):
        own = np.log(density)
    usable = np.isfinite(own)
    found = [
        (float(shares[usable] @ (own[usable] - prior.log_density(x[usable]))), prior)
        for prior in _members(x, shares, positive)
    ]
    found.sort(key=lambda one: one[0])
    (divergence, prior), *rest = found
    return Learned(prior, divergence, {other.family: value for value, other in rest})


def _members(x: np.ndarray, shares: np.ndarray, positive: bool) -> list[Prior]:
    """The member of each family that matches the marginal's expectations."""

    def spread(values: np.ndarray) -> tuple[float, float]:
        center = shares @ values
        return center, math.sqrt(shares @ np.square(values - center))

    if not positive:
        return [_rounded("Normal", *spread(x))]
    log = np.log(x)
    out = [_rounded("LogNormal", *spread(log))]
    # log α − ψ(α) = log E[x] − E[log x], above 0 by Jensen; for 1/x in the same way.
    for family, values, sign in (("Gamma", x, 1), ("InverseGamma", 1 / x, -1)):
        mean = shares @ values
        alpha = _shape(float(math.log(mean) - sign * (shares @ log)))
        out.append(_rounded(family, alpha, alpha / mean))
    return out


def _shape(gap: float) -> float:
    """α with log α − ψ(α) = `gap`; between 1/(2α) and 1/α (Alzer, 1997), which brackets it."""
    # Below, the difference of the logarithms is rounding.
    gap = max(float(gap), 1e-13)
    return float(brentq(lambda a: math.log(a) - digamma(a) - gap, 0.4 / gap, 1.1 / gap, rtol=1e-12))


def _rounded(family: str, *numbers: float) -> Prior:
    return Prior(family, tuple(float(f"{value:.{_DIGITS}g}") for value in numbers))
