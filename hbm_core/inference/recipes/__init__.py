"""How each structure is sampled: one recipe per structure, found by its type."""

from __future__ import annotations

from typing import Any

from hbm_core.inference.recipes.base import Recipe
from hbm_core.inference.recipes.gamma_counts import GammaCountsRecipe
from hbm_core.inference.recipes.three_level import ThreeLevelRecipe
from hbm_core.inference.recipes.two_level import TwoLevelRecipe
from hbm_core.models.gamma_counts import GammaCounts
from hbm_core.models.structure import TwoLevelNormal
from hbm_core.models.three_level import ThreeLevelNormal

__all__ = ["Recipe", "recipe"]

_RECIPES: dict[type, Recipe] = {
    TwoLevelNormal: TwoLevelRecipe(),
    ThreeLevelNormal: ThreeLevelRecipe(),
    GammaCounts: GammaCountsRecipe(),
}


def recipe(spec: Any) -> Recipe:
    """The recipe of a model's structure."""
    return _RECIPES[type(spec.structure)]
