"""Sampling successes of trials: rates are moved by the sampler, or drawn from their conditionals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import betaln, gammaln

from hbm_core.inference.recipes.base import Arrays, Recipe
from hbm_core.models import pymc_beta_binomial
from hbm_core.models.pymc_beta_binomial import Spec


class BetaBinomialRecipe(Recipe):
    """``mu``, ``kappa`` and ``theta`` (unit)."""

    model = pymc_beta_binomial

    def dims_of(self, spec: Spec) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of θ."""
        return {"theta": ("unit",)}

    def centres(self, spec: Spec) -> tuple[Arrays, Arrays]:
        """All successes over all trials; a population that counts as much as a typical entity."""
        structure = spec.structure
        share = (structure.successes.sum() + 0.5) / (structure.trials.sum() + 1)
        return {"mu": np.asarray(share), "kappa": np.asarray(float(np.median(structure.trials)) + 1)}, {}

    def inner_start(self, spec: Spec, name: str, plain: Arrays, jitter: np.ndarray) -> np.ndarray | None:
        """Rates start between the population's mean and their raw rates."""
        structure = spec.structure
        a = float(plain["mu"] * plain["kappa"])
        b = float(plain["kappa"]) - a
        won = (a + structure.successes) / (a + b + structure.trials)
        odds = np.log(won) - np.log1p(-won)
        match name:
            case "theta_logodds__":
                return odds + 0.3 * jitter
            case "z":
                return (odds - np.log(a / b)) / pymc_beta_binomial.odds_spread(a, b) + 0.3 * jitter
        return None

    def complete(self, spec: Spec, draws: Mapping[str, np.ndarray], seed: int) -> Arrays:
        """Rates completed; drawn from their exact conditionals where they were integrated out."""
        structure = spec.structure
        found: Arrays = {name: draws[name] for name in structure.parameters}
        if spec.parameterization != "collapsed":
            return found | {"theta": draws["theta"]}
        # A stream of its own: nutpie's chains use the seed itself.
        rng = np.random.default_rng([seed, 1])
        a, b = _shapes(found)
        return found | {
            "theta": rng.beta(a + structure.successes, b + structure.trials - structure.successes)
        }

    def coords(self, spec: Spec) -> Mapping[str, Iterable[Any]]:
        """Labels of the entities."""
        return {"unit": list(spec.structure.units)}

    def log_likelihood(self, spec: Spec, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log p(y_i | μ, κ), beta-binomial, per draw and entity, ndarray (n, J)."""
        s = spec.structure.successes
        f = spec.structure.trials - s
        a, b = _shapes(draws)
        choose = gammaln(s + f + 1) - gammaln(s + 1) - gammaln(f + 1)
        return betaln(a + s, b + f) - betaln(a, b) + choose

    def observed(self, spec: Spec) -> tuple[xr.Dataset, xr.Dataset]:
        """Successes; trials."""
        structure = spec.structure
        coords = {"unit": list(structure.units)}
        observed = xr.Dataset({"y": ("unit", structure.successes)}, coords)
        return observed, xr.Dataset({"trials": ("unit", structure.trials)}, coords)

    def extreme(self, spec: Spec) -> list[str]:
        """No share is so far from the others that its density is not finite."""
        return []


def _shapes(draws: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    mu, kappa = draws["mu"][..., None], draws["kappa"][..., None]
    return mu * kappa, (1 - mu) * kappa
