"""One measured figure, its target and what it is compared with; and how repeated timings are taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal


class NotMeasured(Exception):
    """A module cannot measure here; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """One figure.

    Parameters
    ----------
    what : str
        Measured quantity, in words.
    figure : float
        Its value; the median where it was repeated.
    unit : str
        Of the figure; empty for counts and ratios.
    target : float or None
        What is promised.
    better : {"less", "more"}
        Which side of the target is good.
    against : str
        What it is compared with, in words.
    ratio : float or None
        The other's figure over this one's: how many times better this is.
    note : str
        Where the time goes, or what was counted.
    """

    what: str
    figure: float
    unit: str = ""
    target: float | None = None
    better: Literal["less", "more"] = "less"
    against: str = ""
    ratio: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.figure <= self.target if self.better == "less" else self.figure >= self.target

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows: what, figure, target, verdict, comparison, note."""
        unit = f" {self.unit}" if self.unit else ""
        target = (
            ""
            if self.target is None
            else f"{'≤' if self.better == 'less' else '≥'} {digits(self.target)}{unit}"
        )
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        beside = "" if self.ratio is None else f"{digits(self.ratio)} × {self.against}"
        return self.what, f"{digits(self.figure)}{unit}", target, verdict, beside or self.against, self.note


def digits(value: float) -> str:
    """Three significant digits, no more than a reader needs."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def times_ms(run: Callable[[], object], repeat: int) -> list[float]:
    """Wall times of `repeat` calls after one that is not counted, in milliseconds."""
    run()
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - start))
    return found


def median_ms(run: Callable[[], object], repeat: int) -> float:
    """Median of `times_ms`."""
    return statistics.median(times_ms(run, repeat))


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of the values lie; never between two of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(rows: Iterable[Row]) -> None:
    """Print rows as they come, one line each."""
    for row in rows:
        what, figure, target, verdict, beside, note = row.cells
        print(f"{what:<74} {figure:>13} {target:>12} {verdict:<7} {beside} {note}".rstrip(), flush=True)
