"""What a mechanism is: reactions with rate laws over species, log-scale parameters and inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hbm_core.errors import InputError

_NAME = re.compile(r"[A-Za-z_]\w*")
_INPUT = re.compile(r"\[([A-Za-z_]\w*)\]")


@dataclass(frozen=True)
class Parameter:
    """A positive rate constant, fitted on the log10 scale.

    Parameters
    ----------
    name : str
        Key.
    median : float
        Prior median, in `unit`.
    sd : float
        Prior standard deviation of log10.
    unit : str
        E.g. "1/min"; empty for a pure number.
    words : str
        What it is, for a person.
    """

    name: str
    median: float
    sd: float
    unit: str
    words: str

    @property
    def center(self) -> float:
        """log10 of the prior median."""
        return float(np.log10(self.median))


@dataclass(frozen=True)
class Form:
    """Σ number · [input] · species: an amount that a rate depends on, e.g. what is free of a total.

    Parameters
    ----------
    terms : tuple of (float, str, str)
        Number, input ("" for none) and species.
    """

    terms: tuple[tuple[float, str, str], ...]

    @property
    def species(self) -> tuple[str, ...]:
        """Species that occur."""
        return tuple(species for _, _, species in self.terms)


@dataclass(frozen=True)
class Rate:
    """number · Π parameter^power · Π input · Π form · Π x/(K + x), with x an input or one form.

    Parameters
    ----------
    number : float
        Constant factor.
    powers : tuple of (str, int)
        Parameters with their powers.
    inputs : tuple of str
        Inputs that multiply.
    saturated_inputs : tuple of (str, str)
        Input x and parameter K of a factor x/(K + x).
    forms : tuple of Form
        At most two.
    saturated : tuple of Form and str, optional
        Form x and parameter K of a factor x/(K + x).
    """

    number: float = 1.0
    powers: tuple[tuple[str, int], ...] = ()
    inputs: tuple[str, ...] = ()
    saturated_inputs: tuple[tuple[str, str], ...] = ()
    forms: tuple[Form, ...] = ()
    saturated: tuple[Form, str] | None = None

    @property
    def species(self) -> frozenset[str]:
        """Species that the rate depends on."""
        forms = self.forms + ((self.saturated[0],) if self.saturated else ())
        return frozenset(species for form in forms for species in form.species)

    @property
    def parameters(self) -> frozenset[str]:
        """Parameters that the rate depends on."""
        found = {name for name, _ in self.powers} | {name for _, name in self.saturated_inputs}
        return frozenset(found | ({self.saturated[1]} if self.saturated else set()))

    @property
    def names_of_inputs(self) -> frozenset[str]:
        """Inputs that the rate depends on."""
        forms = self.forms + ((self.saturated[0],) if self.saturated else ())
        inside = {name for form in forms for _, name, _ in form.terms if name}
        return frozenset({*self.inputs, *(name for name, _ in self.saturated_inputs), *inside})


@dataclass(frozen=True)
class Reaction:
    """A rate and what it does.

    Parameters
    ----------
    changes : tuple of (str, int)
        Species and what one event adds to it.
    rate : Rate
        Events per time.
    text : str
        As declared.
    """

    changes: tuple[tuple[str, int], ...]
    rate: Rate
    text: str


@dataclass(frozen=True)
class Mechanism:
    """Reactions that make one observed curve.

    Parameters
    ----------
    id, label : str
        Key, and a title for a person.
    reactions : str
        One per line, ``consumed -> produced : rate``: a product of numbers, parameters, ``[inputs]``,
        species and sums of species in parentheses; ``/ name`` divides by a parameter, and
        ``x / (K + x)`` saturates in a species or an input x.
    parameters : mapping of str to Parameter
        At least those that occur.
    observed : str
        The species that is measured.
    initial : mapping of str to str
        Amounts at time 0 as products of numbers, parameters and inputs; 0 elsewhere.
    unit, time : str
        Of the observed species and of time.

    Raises
    ------
    InputError
        A line that is no reaction; a name that is neither species nor parameter; more than two species
        factors in one rate.

    Examples
    --------
    >>> k = {"k": Parameter("k", 0.1, 0.5, "1/min", "decay")}
    >>> decay = Mechanism("decay", "Decay", "x -> : k * x", k, "x", {"x": "[dose]"})
    >>> decay.species, decay.names, decay.inputs
    (('x',), ('k',), ('dose',))
    """

    id: str
    label: str
    reactions: str
    parameters: Mapping[str, Parameter]
    observed: str
    initial: Mapping[str, str] = field(default_factory=dict)
    unit: str = "nM"
    time: str = "min"

    def __post_init__(self) -> None:
        if self.observed not in self.species:
            raise InputError(
                f"mechanism {self.id}", "an observed species that a reaction makes", self.observed
            )

    @cached_property
    def species(self) -> tuple[str, ...]:
        """Species in the order in which reactions change them."""
        found = [name for line in self._lines for name, _ in _changes(line)]
        return tuple(dict.fromkeys([*found, *self.initial]))

    @cached_property
    def parsed(self) -> tuple[Reaction, ...]:
        """The reactions as values."""
        return tuple(
            Reaction(tuple(_changes(line)), self._rate(line.partition(":")[2]), line) for line in self._lines
        )

    @cached_property
    def starts(self) -> Mapping[str, Rate]:
        """Amounts at time 0."""
        return {species: self._rate(text) for species, text in self.initial.items()}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Parameters that occur, in the order of `parameters`."""
        rates = [reaction.rate for reaction in self.parsed] + list(self.starts.values())
        used = {name for rate in rates for name in rate.parameters}
        return tuple(name for name in self.parameters if name in used)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that a condition must give, in order of appearance."""
        rates = [reaction.rate for reaction in self.parsed] + list(self.starts.values())
        return tuple(dict.fromkeys(name for rate in rates for name in sorted(rate.names_of_inputs)))

    @cached_property
    def _lines(self) -> tuple[str, ...]:
        lines = tuple(" ".join(line.split()) for line in self.reactions.splitlines() if line.strip())
        for line in lines:
            if "->" not in line.partition(":")[0] or not line.partition(":")[2].strip():
                raise InputError(f"mechanism {self.id}", "reactions like 'a -> b : k * a'", repr(line))
        return lines

    def _rate(self, text: str) -> Rate:
        number, powers, inputs, forms = 1.0, list[tuple[str, int]](), list[str](), list[Form]()
        bounds: list[tuple[str, str]] = []
        for sign, part in _factors(text):
            if part.startswith("(") and sign == "/":
                bounds.append(self._bound(part))
            elif part.startswith("(") or part in self.species:
                forms.append(self._form(part.strip("()")))
            elif match := _INPUT.fullmatch(part):
                inputs.append(match[1])
            elif part in self.parameters:
                powers.append((part, 1 if sign == "*" else -1))
            else:
                number *= self._number(part) if sign == "*" else 1 / self._number(part)
        saturated: tuple[Form, str] | None = None
        saturated_inputs: list[tuple[str, str]] = []
        for constant, what in bounds:
            if match := _INPUT.fullmatch(what):
                inputs.remove(match[1])
                saturated_inputs.append((match[1], constant))
            else:
                form = self._form(what)
                forms.remove(form)
                saturated = (form, constant)
        if len(forms) > 2:
            raise InputError(f"mechanism {self.id}", "at most two species in a product", repr(text))
        return Rate(number, tuple(powers), tuple(inputs), tuple(saturated_inputs), tuple(forms), saturated)

    def _bound(self, part: str) -> tuple[str, str]:
        constant, _, what = (piece.strip() for piece in part.strip("()").partition("+"))
        if constant not in self.parameters or not what:
            raise InputError(f"mechanism {self.id}", "a division like x / (K + x)", repr(part))
        return constant, what

    def _form(self, text: str) -> Form:
        terms = []
        for sign, body in re.findall(r"([+-]?)\s*([^+-]+)", text):
            number, given, species = (-1.0 if sign == "-" else 1.0), "", ""
            for piece in (piece.strip() for piece in body.split("*")):
                if match := _INPUT.fullmatch(piece):
                    given = match[1]
                elif piece in self.species:
                    species = piece
                else:
                    number *= self._number(piece)
            if not species:
                raise InputError(f"mechanism {self.id}", "a sum of species", repr(text))
            terms.append((number, given, species))
        return Form(tuple(terms))

    def _number(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            kind = "a parameter, a species, an [input] or a number"
            raise InputError(f"mechanism {self.id}", kind, repr(text)) from None


def _changes(line: str) -> list[tuple[str, int]]:
    left, _, right = line.partition(":")[0].partition("->")
    pairs: dict[str, int] = {}
    for side, sign in ((left, -1), (right, 1)):
        for name in filter(None, (piece.strip() for piece in side.split("+"))):
            if not _NAME.fullmatch(name):
                raise InputError("reaction", "names of species on both sides of ->", repr(line))
            pairs[name] = pairs.get(name, 0) + sign
    return list(pairs.items())


def _factors(text: str) -> Iterable[tuple[str, str]]:
    """Factors of a product with the sign before each, parentheses kept whole."""
    depth, sign, part = 0, "*", ""
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter in "*/" and depth == 0:
            yield sign, part.strip()
            sign, part = letter, ""
        else:
            part += letter
    yield sign, part.strip()
