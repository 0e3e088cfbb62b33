"""Units that are vectors: what a structure calls the parts of their population, and priors on a covariance.

A structure whose units are vectors offers ``vector``, a `VectorPopulation`; tables and pages of covariance
take everything from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from hbm_core.models.families import SymmetricBeta
from hbm_core.models.prior import Prior


@dataclass(frozen=True)
class SeparationLaw:
    """Σ = diag(σ) Ω diag(σ): each σ_p with a prior of its own, Ω ~ LKJ(η) independent of them.

    Parameters
    ----------
    spreads : tuple of Prior
        One per component.
    eta : float or None
        η; None where Σ is diagonal.

    References
    ----------
    Barnard, McCulloch and Meng (2000), Statistica Sinica 10, for the separation; Lewandowski, Kurowicka and
    Joe (2009), Journal of Multivariate Analysis 100, section 3, for a correlation's law: (r + 1)/2 ~ Beta(b,
    b) with b = η − 1 + P/2.
    """

    spreads: tuple[Prior, ...]
    eta: float | None

    @property
    def short(self) -> str:
        """The prior of Ω alone."""
        return f"LKJ({self.eta:g})" if self.eta is not None else "no correlations"

    @property
    def text(self) -> str:
        """The prior in a few words."""
        families = list(dict.fromkeys(prior.text for prior in self.spreads))
        return f"{self.short}, σ ~ {' and '.join(families)}"

    def spread(self, component: int) -> Any:
        """Distribution of an sd; None where its prior is flat."""
        return self.spreads[component].distribution

    def correlation(self) -> Any:
        """Distribution of any one correlation; None where there are none."""
        return None if self.eta is None else SymmetricBeta(self.eta - 1 + len(self.spreads) / 2)

    def spread_given(self, component: int, correlation: float) -> Any:
        """Distribution of an sd where one of its correlations is known: the same."""
        return self.spread(component)


@dataclass(frozen=True)
class InverseWishartLaw:
    """Σ ~ InverseWishart(ν, ψ I).

    Two components alone have InverseWishart(ν − P + 2, ψ I). So (r + 1)/2 ~ Beta(a, a) and
    σ_p² ~ InverseGamma(a, ψ/2), a = (ν − P + 1)/2; given r, σ_p² ~ InverseGamma(a + ½, ψ/2/(1 − r²)): large
    correlations come with large sds.

    Parameters
    ----------
    nu, psi : float
        Degrees of freedom, above P − 1, and scale, positive.
    size : int
        P.

    References
    ----------
    Alvarez, Niemi and Simpson (2014), arXiv:1408.4050, section 2.
    """

    nu: float
    psi: float
    size: int

    @classmethod
    def of(cls, constants: Mapping[str, float], size: int) -> InverseWishartLaw:
        """By the constants ``nu`` (P + 1 where absent) and ``psi`` (1)."""
        return cls(float(constants.get("nu", size + 1)), float(constants.get("psi", 1.0)), size)

    @property
    def short(self) -> str:
        """The prior's kind and degrees of freedom."""
        return f"Inverse Wishart({self.nu:g})"

    @property
    def text(self) -> str:
        """The prior in a few words."""
        return f"InverseWishart({self.nu:g}, {self.psi:.2g} I)"

    @property
    def _shape(self) -> float:
        return 0.5 * (self.nu - self.size + 1)

    def spread(self, component: int) -> Any:
        """Distribution of an sd."""
        return stats.gengamma(self._shape, -2, scale=np.sqrt(0.5 * self.psi))

    def correlation(self) -> Any:
        """Distribution of any one correlation."""
        return SymmetricBeta(self._shape)

    def spread_given(self, component: int, correlation: float) -> Any:
        """Distribution of an sd where one of its correlations is known."""
        scale = np.sqrt(0.5 * self.psi / (1 - correlation**2))
        return stats.gengamma(self._shape + 0.5, -2, scale=scale)


CovarianceLaw = SeparationLaw | InverseWishartLaw


@dataclass(frozen=True, eq=False)
class VectorPopulation:
    """A population of vectors θ_c ~ Normal(α, Σ) with P components, by the flat names of its parts.

    Parameters
    ----------
    components : tuple of str
        Labels of the components.
    means, spreads : tuple of str
        Flat names of α_p and σ_p.
    correlations : tuple of str
        Flat names of Ω's entries below the diagonal, row by row; empty where Σ is diagonal.
    members : tuple of str
        Flat names of θ by component, with ``{unit}`` where a unit's label stands.
    units : sequence of str
        Labels of the units.
    uses : ndarray (C, P) of bool
        Whether a unit's data say anything of a component; all where absent.
    spread_priors : tuple of str
        Names of the priors on σ_p; empty where Σ has an inverse Wishart prior.
    correlation_prior : str
        Name of the prior on Ω; empty where there is none.
    log : bool
        Whether members are exponentials of the vector's components.
    scale : str
        What the components are measured in.
    """

    components: tuple[str, ...]
    means: tuple[str, ...]
    spreads: tuple[str, ...]
    correlations: tuple[str, ...]
    members: tuple[str, ...]
    units: Sequence[str]
    uses: np.ndarray | None = None
    spread_priors: tuple[str, ...] = ()
    correlation_prior: str = ""
    log: bool = False
    scale: str = ""

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Places of the correlations' components, (row, column) with row > column."""
        return tuple((i, j) for i in range(len(self.components)) for j in range(i))

    @cached_property
    def used(self) -> np.ndarray:
        """Whether a unit's data say anything of a component, ndarray (C, P) of bool."""
        if self.uses is None:
            return np.ones((len(self.units), len(self.components)), dtype=bool)
        return self.uses

    def member(self, unit: str, component: int) -> str:
        """Flat name of one unit's component."""
        return self.members[component].replace("{unit}", unit)

    def law(self, priors: Mapping[str, Prior], constants: Mapping[str, float]) -> CovarianceLaw:
        """The prior on Σ."""
        if not self.spread_priors:
            return InverseWishartLaw.of(constants, len(self.components))
        eta = priors[self.correlation_prior].numbers[0] if self.correlation_prior else None
        return SeparationLaw(tuple(priors[name] for name in self.spread_priors), eta)
