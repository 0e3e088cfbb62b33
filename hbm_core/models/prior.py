"""A prior: a family and its numbers, as a value that can be written, read, evaluated and compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.families import FAMILIES, Family

_CALL = re.compile(r"\s*([A-Za-z]\w*)\s*\(([^()]*)\)\s*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.ASCII | re.IGNORECASE)


def read_number(text: str) -> float:
    """A number as links, commands and requests write it: ASCII digits, a point, an exponent; ValueError else.

    >>> read_number(" -1.5e3 ")
    -1500.0
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(text)
    return float(text)


@dataclass(frozen=True)
class Prior:
    """One prior distribution.

    Parameters
    ----------
    family : str
        A key of ``FAMILIES``.
    numbers : tuple of float
        The family's numbers, in PyMC's order.

    Raises
    ------
    InputError
        Unknown family, wrong count of numbers, a number that is not finite or out of its bounds.

    Examples
    --------
    >>> Prior.parse("HalfCauchy(10)")
    Prior('HalfCauchy(10)')
    >>> Prior.parse("Normal(mu=0, sigma=20)").text
    'Normal(0, 20)'
    """

    family: str
    numbers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError("prior family", "one of " + ", ".join(FAMILIES), repr(self.family))
        declared = FAMILIES[self.family].numbers
        if len(self.numbers) != len(declared):
            names = ", ".join(number.name for number in declared) or "no numbers"
            raise InputError(f"prior {self.family}", f"{len(declared)} numbers ({names})", len(self.numbers))
        values = tuple(float(value) for value in self.numbers)
        for number, value in zip(declared, values, strict=True):
            if not (np.isfinite(value) and number.lower < value < number.upper and abs(value) < 1e100):
                bound = "a finite number" + (f" above {number.lower:g}" if np.isfinite(number.lower) else "")
                raise InputError(f"prior {self.family}, {number.name} ({number.label})", bound, value)
        lower, upper = FAMILIES[self.family].support(*values)
        if not lower < upper:
            raise InputError(f"prior {self.family}", "lower end below upper end", f"{lower:g} and {upper:g}")
        object.__setattr__(self, "numbers", values)

    @classmethod
    def parse(cls, text: str) -> Prior:
        """Read ``Family(numbers)``; numbers by position or by PyMC's keywords."""
        match = _CALL.fullmatch(text)
        if not match:
            raise InputError("prior", "a text like HalfCauchy(10)", repr(text))
        family, inside = match.groups()
        if family not in FAMILIES:
            raise InputError("prior family", "one of " + ", ".join(FAMILIES), repr(family))
        names = [number.name for number in FAMILIES[family].numbers]
        values: dict[str, float] = {}
        for place, part in enumerate(filter(str.strip, inside.split(","))):
            key, _, value = part.rpartition("=")
            name = key.strip() or (names[place] if place < len(names) else f"number {place + 1}")
            if name not in names or name in values:
                raise InputError(f"prior {family}", f"the numbers {', '.join(names) or '(none)'}", name)
            try:
                values[name] = read_number(value)
            except ValueError:
                raise InputError(f"prior {family}, {name}", "a number", repr(value.strip())) from None
        return cls(family, tuple(values[name] for name in names if name in values))

    @property
    def text(self) -> str:
        """``Family(numbers)``, the inverse of `parse`: shortest digits that read back the same."""
        return f"{self.family}({', '.join(_shortest(value) for value in self.numbers)})"

    def __repr__(self) -> str:
        return f"Prior({self.text!r})"

    @property
    def declared(self) -> Family:
        """The family's declaration."""
        return FAMILIES[self.family]

    @property
    def proper(self) -> bool:
        """Whether the prior integrates to 1."""
        return self.declared.proper

    @property
    def support(self) -> tuple[float, float]:
        """Lower and upper end of the support."""
        return self.declared.support(*self.numbers)

    @property
    def origin(self) -> float:
        """a, where the density behaves as (x - lower)^(a - 1) at its lower end."""
        return self.declared.origin(*self.numbers)

    @property
    def tail(self) -> float:
        """k, where the density falls as x^(-k - 1); infinite for thinner tails."""
        return self.declared.tail(*self.numbers)

    @cached_property
    def distribution(self) -> Any:
        """SciPy's frozen distribution (cdf, sf, ppf, rvs, mean, std); None for the flat prior."""
        return self.declared.frozen(*self.numbers)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density at `x`; -inf outside the support. The flat prior has log density 0."""
        x = np.asarray(x, dtype=float)
        lower, upper = self.support
        inside = (x >= lower) & (x <= upper)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(inside, self.declared.log_density(x, *self.numbers), -np.inf)

    def scaled(self, factor: float) -> Prior:
        """The same prior for an outcome in units `factor` times smaller."""
        pairs = zip(self.declared.numbers, self.numbers, strict=True)
        return Prior(self.family, tuple(number.scaled(value, factor) for number, value in pairs))


def _shortest(value: float) -> str:
    text = repr(float(value))
    return text[:-2] if text.endswith(".0") else text
