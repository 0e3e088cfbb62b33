"""Errors that people read: subject, what was expected, what came, what to do next."""

from __future__ import annotations


class InputError(ValueError):
    """Something a person gave cannot be used as it is.

    Parameters
    ----------
    subject : str
        What the message is about, e.g. ``"prior on tau"`` or ``"row 3, column se"``.
    expected : str
        What would have been accepted.
    got : object
        What came instead; long texts are cut.
    hint : str, optional
        What to do next, one sentence.
    """

    def __init__(self, subject: str, expected: str, got: object, hint: str = "") -> None:
        try:
            shown = str(got)
        except ValueError:  # Python writes no whole number of more than 4,300 digits.
            shown = f"a {type(got).__name__} of too many digits"
        self.subject, self.expected, self.hint = subject, expected, hint
        self.got = shown if len(shown) <= 80 else shown[:77] + "…"
        text = f"{subject}: expected {expected}, got {self.got}."
        super().__init__(f"{text} {hint}".strip())

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Travel between processes by what it was made from, not by its text."""
        return type(self), (self.subject, self.expected, self.got, self.hint)


class ImproperPosteriorError(InputError):
    """The posterior has no finite mass under these priors and these data."""


class NotExactError(InputError):
    """No exact engine covers this model under these priors; a sampler does."""


class TooFarError(InputError):
    """A finished fit's draws cannot answer for priors this far from its own; a new fit can."""


class FitError(RuntimeError):
    """A fit could not be computed; the message says why and what to try."""


class StoreError(RuntimeError):
    """The store cannot do what was asked; the message says why and what to do."""


class DamagedResult(StoreError):
    """A kept fit is missing or not what was written; it was set aside and can be fitted anew."""
