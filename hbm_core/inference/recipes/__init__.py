"""How each structure is sampled: one recipe per structure, found by its type."""

from __future__ import annotations

from typing import Any

from hbm_core.inference.recipes.base import Recipe
from hbm_core.inference.recipes.beta_binomial import BetaBinomialRecipe
from hbm_core.inference.recipes.circuits import CircuitsRecipe
from hbm_core.inference.recipes.covariate_counts import CovariateCountsRecipe
from hbm_core.inference.recipes.drifting_counts import DriftingCountsRecipe
from hbm_core.inference.recipes.gamma_counts import GammaCountsRecipe
from hbm_core.inference.recipes.gaussian_mixed import GaussianMixedRecipe
from hbm_core.inference.recipes.hurdle import HurdleRecipe
from hbm_core.inference.recipes.joint_counts import JointCountsRecipe
from hbm_core.inference.recipes.three_level import ThreeLevelRecipe
from hbm_core.inference.recipes.two_level import TwoLevelRecipe
from hbm_core.inference.recipes.zero_inflated import ZeroInflatedRecipe
from hbm_core.models.beta_binomial import BetaBinomial
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.covariate_counts import CovariateCounts
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.hurdle import HurdleRevenue
from hbm_core.models.joint_counts import JointCounts
from hbm_core.models.structure import TwoLevelNormal
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.models.zero_inflated_counts import ZeroInflatedCounts

__all__ = ["Recipe", "recipe"]

_RECIPES: dict[type, Recipe] = {
    TwoLevelNormal: TwoLevelRecipe(),
    ThreeLevelNormal: ThreeLevelRecipe(),
    GaussianMixed: GaussianMixedRecipe(),
    GammaCounts: GammaCountsRecipe(),
    ZeroInflatedCounts: ZeroInflatedRecipe(),
    CovariateCounts: CovariateCountsRecipe(),
    DriftingCounts: DriftingCountsRecipe(),
    JointCounts: JointCountsRecipe(),
    BetaBinomial: BetaBinomialRecipe(),
    HurdleRevenue: HurdleRecipe(),
    CircuitPopulation: CircuitsRecipe(),
}


def recipe(spec: Any) -> Recipe:
    """The recipe of a model's structure."""
    return _RECIPES[type(spec.structure)]
