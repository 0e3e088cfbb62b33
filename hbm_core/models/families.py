"""Prior families: each declared once, with all that the exact engines, PyMC and the browser need.

Names, parameter names and parameter order are PyMC's. A new family is one more entry of ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from scipy import special, stats

Array = np.ndarray
_LOG_2_PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Number:
    """One number of a prior family.

    Parameters
    ----------
    name : str
        PyMC's keyword.
    label : str
        Words for a person.
    default : float
        Where a control starts, for an outcome whose spread is 1.
    lower, upper : float
        Exclusive bounds of what is accepted.
    scaling : {"none", "linear", "inverse", "log"}
        How the number follows a change of the outcome's units.
    """

    name: str
    label: str
    default: float
    lower: float = -np.inf
    upper: float = np.inf
    scaling: Literal["none", "linear", "inverse", "log"] = "none"

    def scaled(self, value: float, factor: float) -> float:
        """`value` in units that are `factor` times smaller (1 metre, factor 100: 100 centimetres)."""
        match self.scaling:
            case "linear":
                return value * factor
            case "inverse":
                return value / factor
            case "log":
                return value + float(np.log(factor))
        return value


@dataclass(frozen=True)
class Family:
    """A family of prior distributions.

    Attributes
    ----------
    name, label : str
        PyMC's class name, and the words for a person.
    numbers : tuple of Number
        In PyMC's order.
    support : callable
        ``(*numbers) -> (lower, upper)``.
    log_density : callable
        ``(x, *numbers) -> ndarray``, normalised, called inside the support only: the hot path of the
        exact engines, where SciPy's argument handling would cost more than the quadrature itself.
    frozen : callable
        ``(*numbers) ->`` distribution with SciPy's ``cdf``, ``sf``, ``ppf``, ``rvs``, ``mean``, ``std``.
    javascript : str
        The same log density as an expression in ``x`` and ``p`` (the numbers), for the browser's engine.
    origin : callable
        ``(*numbers) -> a`` where the density behaves as ``(x - lower)**(a - 1)`` at its lower end;
        1 means regular there.
    tail : callable
        ``(*numbers) -> k`` where the density falls as ``x**(-k - 1)``: moments of order ``k`` and above
        are infinite. Infinite for thinner tails, -1 for the flat "density".
    proper : bool
        False for the flat family, which has no normaliser.
    """

    name: str
    label: str
    numbers: tuple[Number, ...]
    support: Callable[..., tuple[float, float]]
    log_density: Callable[..., Array]
    frozen: Callable[..., Any]
    javascript: str
    origin: Callable[..., float] = lambda *_: 1.0
    tail: Callable[..., float] = lambda *_: np.inf
    proper: bool = True


@dataclass(frozen=True)
class FoldedStudentT:
    """|T| for T ~ StudentT(nu, 0, sigma), which SciPy lacks; all of it through SciPy's t."""

    nu: float
    sigma: float

    def cdf(self, x: Array) -> Array:
        """Distribution function."""
        return np.where(np.asarray(x) < 0, 0.0, 1 - 2 * stats.t.sf(np.asarray(x) / self.sigma, self.nu))

    def sf(self, x: Array) -> Array:
        """Survival function."""
        return np.where(np.asarray(x) < 0, 1.0, 2 * stats.t.sf(np.asarray(x) / self.sigma, self.nu))

    def ppf(self, q: Array) -> Array:
        """Quantile function."""
        return self.sigma * stats.t.isf((1 - np.asarray(q)) / 2, self.nu)

    def rvs(self, size: Any = None, random_state: Any = None) -> Array:
        """Draws."""
        return self.sigma * np.abs(stats.t.rvs(self.nu, size=size, random_state=random_state))

    def mean(self) -> float:
        """Mean; infinite for nu ≤ 1."""
        if self.nu <= 1:
            return np.inf
        log_ratio = special.gammaln((self.nu + 1) / 2) - special.gammaln(self.nu / 2)
        return float(2 * self.sigma * np.sqrt(self.nu / np.pi) * np.exp(log_ratio) / (self.nu - 1))

    def std(self) -> float:
        """Standard deviation; infinite for nu ≤ 2."""
        if self.nu <= 2:
            return np.inf
        return float(np.sqrt(self.sigma**2 * self.nu / (self.nu - 2) - self.mean() ** 2))


@dataclass(frozen=True)
class SymmetricBeta:
    """2B − 1 for B ~ Beta(eta, eta): the law of a correlation under LKJ(eta) in two dimensions."""

    eta: float

    def cdf(self, x: Array) -> Array:
        """Distribution function."""
        return stats.beta.cdf((1 + np.asarray(x)) / 2, self.eta, self.eta)

    def sf(self, x: Array) -> Array:
        """Survival function."""
        return stats.beta.sf((1 + np.asarray(x)) / 2, self.eta, self.eta)

    def ppf(self, q: Array) -> Array:
        """Quantile function."""
        return 2 * stats.beta.ppf(q, self.eta, self.eta) - 1

    def rvs(self, size: Any = None, random_state: Any = None) -> Array:
        """Draws."""
        return 2 * stats.beta.rvs(self.eta, self.eta, size=size, random_state=random_state) - 1

    def mean(self) -> float:
        """0, by symmetry."""
        return 0.0

    def std(self) -> float:
        """Standard deviation."""
        return float(1 / np.sqrt(2 * self.eta + 1))


def _line(*_: float) -> tuple[float, float]:
    return (-np.inf, np.inf)


def _half(*_: float) -> tuple[float, float]:
    return (0.0, np.inf)


def _log_student(z: Array, nu: float) -> Array:
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return constant - (nu + 1) / 2 * np.log1p(z * z / nu)


_JS_STUDENT = (
    "lgamma((p[0] + 1) / 2) - lgamma(p[0] / 2) - 0.5 * Math.log(p[0] * Math.PI)"
    " - (p[0] + 1) / 2 * Math.log1p(z * z / p[0])"
)


def _positive(name: str, label: str, default: float, scaling: Any = "none") -> Number:
    return Number(name, label, default, lower=0.0, scaling=scaling)


_MEAN = Number("mu", "mean", 0.0, scaling="linear")
_SCALE = _positive("sigma", "scale", 1.0, "linear")
_NU = _positive("nu", "degrees of freedom", 4.0)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                "Normal",
                "Normal",
                (_MEAN, _positive("sigma", "sd", 2.0, "linear")),
                _line,
                lambda x, mu, sigma: -0.5 * ((x - mu) / sigma) ** 2 - np.log(sigma) - 0.5 * _LOG_2_PI,
                lambda mu, sigma: stats.norm(mu, sigma),
                "-0.5 * ((x - p[0]) / p[1]) ** 2 - Math.log(p[1]) - 0.5 * Math.log(2 * Math.PI)",
            ),
            Family(
                "StudentT",
                "Student t",
                (_NU, _MEAN, _SCALE),
                _line,
                lambda x, nu, mu, sigma: _log_student((x - mu) / sigma, nu) - np.log(sigma),
                lambda nu, mu, sigma: stats.t(nu, mu, sigma),
                f"(z => {_JS_STUDENT})((x - p[1]) / p[2]) - Math.log(p[2])",
                tail=lambda nu, mu, sigma: nu,
            ),
            Family(
                "HalfNormal",
                "Half-normal",
                (_SCALE,),
                _half,
                lambda x, sigma: 0.5 * np.log(2 / np.pi) - np.log(sigma) - 0.5 * (x / sigma) ** 2,
                lambda sigma: stats.halfnorm(scale=sigma),
                "0.5 * Math.log(2 / Math.PI) - Math.log(p[0]) - 0.5 * (x / p[0]) ** 2",
            ),
            Family(
                "HalfCauchy",
                "Half-Cauchy",
                (_positive("beta", "scale", 1.0, "linear"),),
                _half,
                lambda x, beta: np.log(2 / (np.pi * beta)) - np.log1p((x / beta) ** 2),
                lambda beta: stats.halfcauchy(scale=beta),
                "Math.log(2 / (Math.PI * p[0])) - Math.log1p((x / p[0]) ** 2)",
                tail=lambda beta: 1.0,
            ),
            Family(
                "HalfStudentT",
                "Half-Student t",
                (_NU, _SCALE),
                _half,
                lambda x, nu, sigma: np.log(2) + _log_student(x / sigma, nu) - np.log(sigma),
                lambda nu, sigma: FoldedStudentT(nu, sigma),
                f"Math.LN2 + (z => {_JS_STUDENT})(x / p[1]) - Math.log(p[1])",
                tail=lambda nu, sigma: nu,
            ),
            Family(
                "Exponential",
                "Exponential",
                (_positive("lam", "rate", 1.0, "inverse"),),
                _half,
                lambda x, lam: np.log(lam) - lam * x,
                lambda lam: stats.expon(scale=1 / lam),
                "Math.log(p[0]) - p[0] * x",
            ),
            Family(
                "Gamma",
                "Gamma",
                (_positive("alpha", "shape", 2.0), _positive("beta", "rate", 2.0, "inverse")),
                _half,
                lambda x, alpha, beta: (
                    alpha * np.log(beta) - special.gammaln(alpha) + (alpha - 1) * np.log(x) - beta * x
                ),
                lambda alpha, beta: stats.gamma(alpha, scale=1 / beta),
                "p[0] * Math.log(p[1]) - lgamma(p[0]) + (p[0] - 1) * Math.log(x) - p[1] * x",
                origin=lambda alpha, beta: alpha,
            ),
            Family(
                "InverseGamma",
                "Inverse gamma",
                (_positive("alpha", "shape", 1.0), _positive("beta", "scale", 1.0, "linear")),
                _half,
                lambda x, alpha, beta: (
                    alpha * np.log(beta) - special.gammaln(alpha) - (alpha + 1) * np.log(x) - beta / x
                ),
                lambda alpha, beta: stats.invgamma(alpha, scale=beta),
                "p[0] * Math.log(p[1]) - lgamma(p[0]) - (p[0] + 1) * Math.log(x) - p[1] / x",
                tail=lambda alpha, beta: alpha,
            ),
            Family(
                "LogNormal",
                "Log-normal",
                (Number("mu", "log median", 0.0, scaling="log"), _positive("sigma", "log sd", 0.5)),
                _half,
                lambda x, mu, sigma: (
                    -0.5 * ((np.log(x) - mu) / sigma) ** 2 - np.log(x) - np.log(sigma) - 0.5 * _LOG_2_PI
                ),
                lambda mu, sigma: stats.lognorm(sigma, scale=np.exp(mu)),
                "-0.5 * ((Math.log(x) - p[0]) / p[1]) ** 2 - Math.log(x) - Math.log(p[1])"
                " - 0.5 * Math.log(2 * Math.PI)",
            ),
            Family(
                "Uniform",
                "Uniform",
                (
                    Number("lower", "lower end", 0.0, scaling="linear"),
                    Number("upper", "upper end", 5.0, scaling="linear"),
                ),
                lambda lower, upper: (lower, upper),
                lambda x, lower, upper: np.full(np.shape(x), -np.log(upper - lower)),
                lambda lower, upper: stats.uniform(lower, upper - lower),
                "-Math.log(p[1] - p[0])",
            ),
            Family(
                "Beta",
                "Beta",
                (_positive("alpha", "successes seen before", 2.0), _positive("beta", "failures", 2.0)),
                lambda alpha, beta: (0.0, 1.0),
                lambda x, alpha, beta: (
                    special.xlogy(alpha - 1, x) + special.xlog1py(beta - 1, -x) - special.betaln(alpha, beta)
                ),
                lambda alpha, beta: stats.beta(alpha, beta),
                "(p[0] - 1) * Math.log(x) + (p[1] - 1) * Math.log1p(-x)"
                " + lgamma(p[0] + p[1]) - lgamma(p[0]) - lgamma(p[1])",
                origin=lambda alpha, beta: alpha,
            ),
            Family(
                "LKJ",
                "LKJ",
                (_positive("eta", "concentration", 2.0),),
                lambda eta: (-1.0, 1.0),
                lambda x, eta: (
                    special.xlog1py(eta - 1, -x * x) - (2 * eta - 1) * np.log(2) - special.betaln(eta, eta)
                ),
                lambda eta: SymmetricBeta(eta),
                "(p[0] - 1) * Math.log1p(-x * x) - (2 * p[0] - 1) * Math.LN2"
                " + lgamma(2 * p[0]) - 2 * lgamma(p[0])",
                origin=lambda eta: eta,
            ),
            Family(
                "Flat",
                "Flat",
                (),
                _line,
                lambda x: np.zeros(np.shape(x)),
                lambda: None,
                "0",
                tail=lambda: -1.0,
                proper=False,
            ),
        )
    }
)
