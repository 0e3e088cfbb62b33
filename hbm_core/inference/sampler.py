"""Settings of a sampler and what it says while it runs: values shared by engines, store and pages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from hbm_core.errors import InputError

#: Threads of one fit.
CORES = 2
#: Inclusive bounds of every setting, checked wherever a request comes from.
LIMITS: dict[str, tuple[float, float]] = {
    "draws": (10, 200_000),
    "tune": (10, 100_000),
    "chains": (1, 32),
    "target_accept": (0.1, 0.999),
    "seed": (0, 2**32 - 1),
    "temperatures": (2, 64),
}
#: Settings that engines other than those of tempering know nothing of: left out where they are the default.
_OWN = {"temperatures": 12}


@dataclass(frozen=True)
class Sampler:
    """Settings of a sampler.

    Parameters
    ----------
    draws, tune : int
        Kept draws and warm-up draws per chain.
    chains : int
        Independent chains.
    target_accept : float
        Mean acceptance that step-size adaptation aims for.
    seed : int
        The one recorded seed; chains derive theirs from it.
    temperatures : int
        Of tempering: from the prior to the posterior, both among them.
    """

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    target_accept: float = 0.95
    seed: int = 42
    temperatures: int = _OWN["temperatures"]

    def __post_init__(self) -> None:
        for name, (lower, upper) in LIMITS.items():
            value = getattr(self, name)
            whole = name != "target_accept"
            try:
                number = float("nan") if isinstance(value, bool) else float(value)
            except (TypeError, ValueError, OverflowError):
                number = float("nan")
            if not lower <= number <= upper or (whole and number != int(number)):
                kind = "a whole number" if whole else "a number"
                raise InputError(f"sampler setting {name}", f"{kind} from {lower:,} to {upper:,}", value)
            object.__setattr__(self, name, int(number) if whole else number)

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping, in order; settings of one engine alone only where they are not the default."""
        return {name: value for name, value in asdict(self).items() if _OWN.get(name) != value}


#: What tempering does unless told otherwise: five replicas are its chains.
TEMPERING = Sampler(draws=2000, tune=500, chains=5, target_accept=0.3)
#: Engines whose chains follow gradients with a target acceptance, and are read alike.
GRADIENT_ENGINES = ("nuts", "blocked")
#: Least target acceptance of NUTS, whose trajectories are not a random walk's steps.
LEAST_TARGET = 0.5


#: Acceptance that trajectories of the blocked engine are adapted to: what is refused is tried anew.
BLOCKED_TARGET = 0.8


def usual_settings(engine: str, usual: Sampler) -> Sampler:
    """Settings of an engine unless told otherwise, from a scenario's own."""
    if engine == "blocked":
        return replace(usual, target_accept=BLOCKED_TARGET)
    return TEMPERING if engine == "tempering" else usual


def check_settings(engine: str, sampler: Sampler) -> None:
    """Raise InputError where settings make no sense for an engine.

    Examples
    --------
    >>> check_settings("tempering", TEMPERING)
    >>> check_settings("nuts", TEMPERING)
    Traceback (most recent call last):
    hbm_core.errors.InputError: sampler setting target_accept: expected a number from 0.5 to 0.999, got 0.3.
    """
    if engine != "tempering" and sampler.target_accept < LEAST_TARGET:
        high = LIMITS["target_accept"][1]
        expected = f"a number from {LEAST_TARGET} to {high}"
        raise InputError("sampler setting target_accept", expected, sampler.target_accept)


@dataclass(frozen=True)
class ChainProgress:
    """Where one chain stands: draws include warm-up."""

    finished: int
    total: int
    divergences: int
    tuning: bool
    step_size: float


@dataclass(frozen=True)
class Progress:
    """Where a fit stands. `stage` is "compiling", "sampling" or "saving"."""

    stage: str
    chains: tuple[ChainProgress, ...] = ()
    seconds_left: float | None = None

    @classmethod
    def compiling(cls, chains: int, total: int) -> Progress:
        """`chains` that wait for their model, `total` draws ahead of each."""
        return cls("compiling", (ChainProgress(0, total, 0, True, 0.0),) * chains)

    @property
    def fraction(self) -> float:
        """Share of all draws, warm-up included, from 0 to 1."""
        total = sum(chain.total for chain in self.chains)
        return sum(chain.finished for chain in self.chains) / total if total else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping for the job table."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Progress:
        """Inverse of `as_dict`."""
        return cls(value["stage"], tuple(ChainProgress(**c) for c in value["chains"]), value["seconds_left"])
