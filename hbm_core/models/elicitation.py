"""From what a person believes to a prior, and back: maximum-entropy numbers, and a prior in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, special

from hbm_core.errors import InputError
from hbm_core.models.families import FAMILIES
from hbm_core.models.prior import Prior

#: Degrees of freedom that Student families take: with them free, the entropy has no maximum.
DEGREES = 4.0
#: Shapes searched for the two-number families on the positive numbers. An inverse gamma's entropy grows
#: without bound as its tail thickens, so its shape starts at 1, below which it has no mean.
_SHAPES: dict[str, tuple[float, float]] = {
    "Gamma": (0.05, 1e8),
    "InverseGamma": (1.0, 1e8),
    "LogNormal": (1e-4, 20.0),
}
#: Numbers get the fewest digits that keep the mass of the interval within this.
_ROUNDING = 5e-4


def elicit(family: str, low: float, high: float, mass: float = 0.9, *, positive: bool = False) -> Prior:
    """The prior of a family that puts `mass` on (low, high) and is otherwise as vague as possible.

    Families with several numbers meet the mass exactly, at the largest entropy. A family with one number has
    nothing left to choose: it meets the mass where it can, at the larger of two scales, and else takes the
    number that comes closest. ``interval_mass(prior, low, high) - mass`` is the residual.

    Parameters
    ----------
    family : str
        A key of ``FAMILIES``, except Flat and LKJ. Student families keep 4 degrees of freedom.
    low, high : float
        The interval, in the parameter's units.
    mass : float
        Probability of the interval, above 0.5 and below 1.
    positive : bool
        Whether the parameter cannot be negative: a uniform prior then starts at 0 or above.

    Raises
    ------
    InputError
        An interval that is empty, not finite or outside the support; a mass out of range; no such family.

    References
    ----------
    Icazatti et al. (2023), PreliZ: A tool-box for prior elicitation, JOSS 8(89).

    Examples
    --------
    >>> elicit("HalfNormal", 0, 10, 0.9)
    Prior('HalfNormal(6.08)')
    """
    if family not in FAMILIES or not FAMILIES[family].proper:
        proper = [name for name, declared in FAMILIES.items() if declared.proper]
        raise InputError("prior family", "one of " + ", ".join(proper), repr(family))
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError("interval", "two finite numbers, the lower one first", f"{low} to {high}")
    if not 0.5 < mass <= 0.999:
        raise InputError("probability of the interval", "above 0.5 and at most 0.999", mass)
    if family == "LKJ":
        raise InputError("prior LKJ", "its number itself", "a range", "2 leans to 0, 1 is uniform.")
    line = family in ("Normal", "StudentT", "Uniform")
    if low < 0 and (positive or not line):
        raise InputError("interval", "one that starts at 0 or above", f"{low:g} to {high:g}")
    if line:
        prior = _symmetric(family, low, high, mass)
        if positive and family == "Uniform" and prior.support[0] < 0:
            return _rounded(Prior(family, (0.0, (high - low) / mass)), low, high)
        return prior
    if family == "Beta":
        return _share(low, high, mass)
    if family in _SHAPES:
        return _two_numbers(family, low, high, mass)
    unit = _one_scale(family, 1.0).distribution
    scale = _largest_scale(unit, low, high, mass) or _closest_scale(unit, low, high)
    return _rounded(_one_scale(family, scale), low, high)


def interval_mass(prior: Prior, low: float, high: float) -> float:
    """P(low < X < high) under a proper prior."""
    return float(prior.distribution.cdf(high) - prior.distribution.cdf(low))


def _symmetric(family: str, low: float, high: float, mass: float) -> Prior:
    """Centred on the interval: any other centre needs a smaller scale, hence less entropy."""
    middle, half = (low + high) / 2, (high - low) / 2
    match family:
        case "Uniform":
            prior = Prior(family, (middle - half / mass, middle + half / mass))
        case "Normal":
            prior = Prior(family, (middle, half / special.ndtri((1 + mass) / 2)))
        case _:
            prior = Prior(family, (DEGREES, middle, half / special.stdtrit(DEGREES, (1 + mass) / 2)))
    return _rounded(prior, low, high)


def _two_numbers(family: str, low: float, high: float, mass: float) -> Prior:
    """The shape of largest entropy among those whose scale can meet the mass."""

    def entropy(log_shape: float) -> float:
        unit = _two_scale(family, float(np.exp(log_shape)), 1.0).distribution
        scale = _largest_scale(unit, low, high, mass)
        # Far below any entropy, so that a search steps back into what is feasible.
        return -1e9 if scale is None else float(unit.entropy()) + np.log(scale)

    start, end = np.log(_SHAPES[family])
    grid = np.linspace(start, end, 120)
    values = [entropy(point) for point in grid]
    best = int(np.argmax(values))
    if values[best] == -1e9:
        raise InputError(
            f"prior {family}", "a wider interval, relative to where it lies", f"{low:g} to {high:g}"
        )
    around = (grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)])
    found = optimize.minimize_scalar(
        lambda point: -entropy(point), bounds=around, method="bounded", options={"xatol": 1e-7}
    )
    log_shape = float(found.x) if -found.fun > values[best] else float(grid[best])
    shape = float(np.exp(log_shape))
    scale = _largest_scale(_two_scale(family, shape, 1.0).distribution, low, high, mass)
    assert scale is not None  # the entropy was finite here
    return _rounded(_two_scale(family, shape, scale), low, high)


def _share(low: float, high: float, mass: float) -> Prior:
    """The member of the beta family with the most entropy that gives the interval its mass."""
    if high > 1:
        raise InputError("interval", "one that ends at 1 or below", f"{low:g} to {high:g}")

    def member(mean: float) -> Any:
        """The widest one with this mean."""

        def excess(log_size: float) -> float:
            size = np.exp(log_size)
            a, b = mean * size, (1 - mean) * size
            return float(special.betainc(a, b, high) - special.betainc(a, b, low)) - mass

        sizes = np.linspace(-4.0, 16.0, 161)
        reached = np.flatnonzero(np.array([excess(size) for size in sizes]) > 0)
        if not reached.size:
            return None
        first = int(reached[0])
        size = sizes[0] if first == 0 else optimize.brentq(excess, sizes[first - 1], sizes[first])
        return Prior("Beta", (mean * float(np.exp(size)), (1 - mean) * float(np.exp(size))))

    def entropy(mean: float) -> float:
        found = member(mean)
        return -1e9 if found is None else float(found.distribution.entropy())

    grid = np.linspace(low, high, 41)[1:-1]
    values = [entropy(mean) for mean in grid]
    best = int(np.argmax(values))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)])
    found = optimize.minimize_scalar(lambda mean: -entropy(mean), bounds=around, method="bounded")
    return _rounded(member(float(found.x) if -found.fun > values[best] else float(grid[best])), low, high)


def _one_scale(family: str, scale: float) -> Prior:
    match family:
        case "Exponential":
            return Prior(family, (1 / scale,))
        case "HalfStudentT":
            return Prior(family, (DEGREES, scale))
    return Prior(family, (scale,))


def _two_scale(family: str, shape: float, scale: float) -> Prior:
    match family:
        case "Gamma":
            return Prior(family, (shape, 1 / scale))
        case "LogNormal":
            return Prior(family, (float(np.log(scale)), shape))
    return Prior(family, (shape, scale))


def _largest_scale(unit: Any, low: float, high: float, mass: float) -> float | None:
    """Largest scale s with P(low < sX < high) = mass for X ~ unit; None if no scale reaches it."""
    top = high / float(unit.ppf(mass))
    if low == 0:
        return top
    below = float(unit.ppf(1 - mass))
    # Beyond these ends either tail alone already holds more than 1 - mass.
    if below == 0 or (bottom := low / below) >= top:
        return None
    scales = np.geomspace(bottom, top, 200)
    excess = unit.cdf(high / scales) - unit.cdf(low / scales) - mass
    if not (reached := np.flatnonzero(excess > 0)).size:
        return None
    if reached[-1] == scales.size - 1:
        return top
    left, right = scales[reached[-1]], scales[reached[-1] + 1]
    return float(
        optimize.brentq(
            lambda s: unit.cdf(high / s) - unit.cdf(low / s) - mass, left, right, xtol=1e-14 * left
        )
    )


def _closest_scale(unit: Any, low: float, high: float) -> float:
    """Scale s with the largest P(low < sX < high)."""
    scales = np.geomspace(low / float(unit.ppf(0.999)), high / float(unit.ppf(0.001)), 400)
    best = int((unit.cdf(high / scales) - unit.cdf(low / scales)).argmax())
    around = (scales[max(best - 1, 0)], scales[min(best + 1, 399)])
    found = optimize.minimize_scalar(
        lambda s: unit.cdf(low / s) - unit.cdf(high / s), bounds=around, method="bounded"
    )
    return float(found.x)


def _rounded(prior: Prior, low: float, high: float) -> Prior:
    """The same prior with the fewest digits, at least three, that keep the mass of the interval."""
    exact = interval_mass(prior, low, high)
    for digits in range(3, 17):
        numbers = tuple(float(f"{number:.{digits - 1}e}") for number in prior.numbers)
        if prior.family == "Uniform" and numbers[0] >= numbers[1]:
            continue
        rounded = Prior(prior.family, numbers)
        if abs(interval_mass(rounded, low, high) - exact) <= _ROUNDING:
            return rounded
    return prior


def describe(prior: Prior, unit: str = "") -> str:
    """What a prior believes, in words and in the parameter's unit.

    Examples
    --------
    >>> describe(Prior.parse("Normal(0, 20)"), "points")
    '90 % sure it is between −33 and 33 points'
    >>> describe(Prior.parse("HalfCauchy(10)"))
    'half of it below 10, nine tenths below 63'
    """
    after = f" {unit}" if unit else ""
    if not prior.proper:
        return "every value is equally likely: nothing is believed beforehand"
    if prior.family == "Uniform":
        first, last = (f"{number:.3g}".replace("-", "−") for number in prior.numbers)
        return f"equally likely anywhere from {first} to {last}{after}"
    start, low, half, most, high = (float(prior.distribution.ppf(q)) for q in (0.001, 0.05, 0.5, 0.9, 0.95))
    densities = prior.log_density(np.array([start, half]))
    if prior.support[0] == 0 and densities[0] >= densities[1]:
        return f"half of it below {_short(half, half)}, nine tenths below {_short(most, most)}{after}"
    return f"90 % sure it is between {_short(low, high - low)} and {_short(high, high - low)}{after}"


def _short(value: float, width: float) -> str:
    """`value` to two digits of `width`, with a true minus sign."""
    if not (np.isfinite(value) and 1e-4 <= width < 1e6 and abs(value) < 1e6):
        text = f"{value:.2g}"
    else:
        decimals = 1 - int(np.floor(np.log10(float(f"{width:.1e}"))))
        text = f"{round(value, decimals) + 0.0:,.{max(decimals, 0)}f}"
    return text.replace("-", "−")
