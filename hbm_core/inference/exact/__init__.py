"""Exact engines: quadrature over the few parameters that are not conditionally Gaussian."""

from __future__ import annotations

from typing import Any

from hbm_core.errors import NotExactError
from hbm_core.inference.exact.base import PROBABILITIES, Conditional, ExactPosterior, Weights
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.models.three_level import ThreeLevelNormal

__all__ = ["PROBABILITIES", "Conditional", "ExactPosterior", "Weights", "solve"]


def solve(spec: ModelSpec[Any]) -> ExactPosterior:
    """The exact posterior of a model.

    Raises
    ------
    ImproperPosteriorError
        The posterior has no finite mass; the message says which prior to change.
    NotExactError
        No exact engine covers this model under these priors.
    """
    structure = spec.structure
    if isinstance(structure, ThreeLevelNormal):
        from hbm_core.inference.exact.three_level import solve_three_level

        return solve_three_level(spec)
    if isinstance(structure, GaussianMixed):
        from hbm_core.inference.exact.gaussian_mixed import solve_gaussian_mixed

        return solve_gaussian_mixed(spec)
    if isinstance(structure, GammaCounts):
        from hbm_core.inference.exact.gamma_counts import solve_gamma_counts

        return solve_gamma_counts(spec)
    if isinstance(structure, BetaBinomial):
        from hbm_core.inference.exact.beta_binomial import solve_beta_binomial

        return solve_beta_binomial(spec)
    if not isinstance(structure, TwoLevelNormal):
        raise NotExactError(
            "exact posterior",
            "a model that an exact engine covers",
            f"one of structure {type(structure).__name__}",
            "Fit it with NUTS (hbm fit, or the button Fit): a finished fit then answers for changed priors.",
        )
    if "student_t" in (structure.effects, structure.likelihood):
        from hbm_core.inference.exact.robust import solve_robust

        return solve_robust(spec)
    from hbm_core.inference.exact.two_level import solve_two_level

    return solve_two_level(spec)
