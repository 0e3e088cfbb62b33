"""Greek letters of parameters' names, in one place: what people read for "phi" is the same on every page."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: Name → letter.
GREEK: Mapping[str, str] = MappingProxyType(
    {
        "mu": "μ",
        "tau": "τ",
        "beta": "β",
        "nu": "ν",
        "theta": "θ",
        "sigma": "σ",
        "alpha": "α",
        "phi": "φ",
        "kappa": "κ",
        "psi": "ψ",
        "rho": "ρ",
        "gamma": "γ",
    }
)
