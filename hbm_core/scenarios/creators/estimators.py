"""Classical estimators of creators' effects, side by side with partial pooling; all in one pass over arrays.

Letters: y_i effect, s_i standard error, g(i) genre, w_i = 1/(s_i² + σ²), W_g = Σ_{i in g} w_i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.three_level import ThreeLevelNormal

#: Above this, intervals of partial pooling are mean ± z sd: with so many creators the σ's are known.
MOST_QUANTILES = 20_000


@dataclass(frozen=True, eq=False)
class Estimated:
    """One estimator's answer for every creator.

    Parameters
    ----------
    point, se : ndarray (N,)
        In the outcome's units.
    df : ndarray (N,), optional
        Degrees of freedom of the interval; normal without.
    posterior : ExactPosterior, optional
        Where intervals come from a posterior's quantiles.
    """

    point: np.ndarray
    se: np.ndarray
    df: np.ndarray | None = None
    posterior: ExactPosterior | None = None

    def quantiles(self, probabilities: Sequence[float]) -> np.ndarray:
        """Ends of intervals, ndarray (N, P), in the outcome's units."""
        p = np.asarray(probabilities, dtype=float)
        if self.posterior is not None and self.point.size <= MOST_QUANTILES:
            return self.posterior.quantiles(tuple(p))[self.posterior.theta]
        z = ndtri(p) if self.df is None else stdtrit(self.df[:, None], p)
        return self.point[:, None] + self.se[:, None] * z

    @property
    def p_value(self) -> np.ndarray:
        """Two-sided p-value of no effect, ndarray (N,)."""
        t = -np.abs(self.point / self.se)
        return 2 * (ndtr(t) if self.df is None else stdtr(self.df, t))


@dataclass(frozen=True)
class Spreads:
    """Plug-in values of the two spreads, in the outcome's units."""

    creator: float
    genre: float


def welch_df(table: pd.DataFrame) -> np.ndarray | None:
    """Welch–Satterthwaite degrees of freedom, ndarray (N,); None without users and variance per arm.

    (v_t/n_t + v_c/n_c)² / (v_t²/(n_t²(n_t − 1)) + v_c²/(n_c²(n_c − 1))).

    References
    ----------
    Welch (1947), The generalization of "Student's" problem when several different population variances are
    involved, Biometrika 34(1–2), 28–35.
    """
    if not {"n_treatment", "n_control", "var_treatment", "var_control"} <= set(table.columns):
        return None
    parts = [
        (table[f"var_{arm}"].to_numpy() / (n := table[f"n_{arm}"].to_numpy()), n)
        for arm in ("treatment", "control")
    ]
    return sum(v for v, _ in parts) ** 2 / sum(v**2 / (n - 1) for v, n in parts)


def no_pooling(structure: ThreeLevelNormal, df: np.ndarray | None = None) -> Estimated:
    """y_i ± t s_i, with Welch's degrees of freedom where they are known."""
    return Estimated(structure.effect, structure.se, df)


def complete_pooling(structure: ThreeLevelNormal) -> Estimated:
    """One precision-weighted mean per genre: Σ y_i/s_i² ÷ Σ 1/s_i², with se (Σ 1/s_i²)^−½."""
    mean, total = _genre_means(structure, 0.0)
    return Estimated(mean[structure.group], total[structure.group] ** -0.5)


def empirical_bayes(structure: ThreeLevelNormal, spreads: Spreads) -> Estimated:
    """E and sd of θ_i with the two spreads plugged in as if they were known, and μ flat.

    Genre means ȳ_g = Σ w_i y_i/W_g shrink towards μ̂ by C_g = (1/W_g)/(1/W_g + σ_genre²), creators towards
    their genre by B_i = s_i²/(s_i² + σ_creator²). The variance carries the uncertainty of μ and of the genre
    means, not that of the spreads.

    References
    ----------
    Morris (1983), Parametric empirical Bayes inference: theory and applications, JASA 78(381), 47–55.
    """
    mean, total = _genre_means(structure, spreads.creator**2)
    weight = 1 / (spreads.genre**2 + 1 / total)
    center = weight @ mean / weight.sum()
    pull = weight / total
    genre = pull * center + (1 - pull) * mean
    variance = (1 - pull) / total + pull**2 / weight.sum()
    group, square = structure.group, structure.se**2
    own = square / (square + spreads.creator**2)
    point = own * genre[group] + (1 - own) * structure.effect
    return Estimated(point, np.sqrt((1 - own) * square + own**2 * variance[group]))


def james_stein(structure: ThreeLevelNormal) -> Estimated:
    """Positive-part James–Stein towards the genre mean, for unequal variances.

    θ̂_i = ȳ_g + (1 − B_g)(y_i − ȳ_g), B_g = min(1, (k − 3)/Σ (y_i − ȳ_g)²/s_i²), ȳ_g the precision-weighted
    mean of the genre's k creators. Every creator of a genre shrinks by the same share, however noisy, and
    genres of fewer than 4 do not shrink. The theorem gives no intervals: the se is the plug-in
    √((1 − B_g) s_i² + B_g²/Σ 1/s²), right if the effects' variances were in proportion to s_i².

    References
    ----------
    Efron & Morris (1975), Data analysis using Stein's estimator and its generalizations, JASA 70(350),
    311–319; Brown (2008), In-season prediction of batting averages, Ann. Appl. Stat. 2(1), 113–152.
    """
    mean, total = _genre_means(structure, 0.0)
    group, count = structure.group, len(structure.groups)
    away = structure.effect - mean[group]
    chi = np.bincount(group, (away / structure.se) ** 2, count)
    size = np.bincount(group, minlength=count)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(size > 3, np.minimum(1.0, (size - 3) / chi), 0.0)[group]
    variance = (1 - share) * structure.se**2 + share**2 / total[group]
    return Estimated(mean[group] + (1 - share) * away, np.sqrt(variance))


def moment_spreads(structure: ThreeLevelNormal) -> Spreads:
    """Spreads by DerSimonian and Laird's moments, first of creators within genres, then of genres.

    σ_creator² = max(0, (Q − (N − G))/Σ_g (Σw − Σw²/Σw)) with w = 1/s² and Q the weighted squares around the
    genres' means; σ_genre² likewise from the genre means with their variances 1/W_g.

    References
    ----------
    DerSimonian & Laird (1986), Meta-analysis in clinical trials, Control. Clin. Trials 7(3), 177–188.
    """
    mean, total = _genre_means(structure, 0.0)
    group, count = structure.group, len(structure.groups)
    weight = structure.se**-2.0
    q = float((weight * (structure.effect - mean[group]) ** 2).sum())
    scale = float((total - np.bincount(group, weight**2, count) / total).sum())
    excess = q - (structure.effect.size - count)
    creator2 = max(0.0, excess / scale) if structure.effect.size > count else 0.0
    mean, total = _genre_means(structure, creator2)
    center = total @ mean / total.sum()
    excess = float(total @ (mean - center) ** 2) - (count - 1)
    scale = float(total.sum() - (total**2).sum() / total.sum())
    genre2 = max(0.0, excess / scale) if count > 1 else 0.0
    return Spreads(creator2**0.5, genre2**0.5)


def restricted_log_likelihood(structure: ThreeLevelNormal, creator: float, genre: float) -> float:
    """Log REML of the two spreads, up to a constant: μ is integrated out.

    ½ [Σ log w_i − Σ w_i (y_i − ȳ_g)² − Σ log W_g + Σ log a_g − Σ a_g (ȳ_g − μ̂)² − log Σ a_g], with
    a_g = 1/(σ_genre² + 1/W_g).
    """
    return _upper(*_genre_means(structure, creator**2), genre) + _lower(structure, creator)


def reml_spreads(structure: ThreeLevelNormal) -> Spreads:
    """Spreads by restricted maximum likelihood, each not below 0: a profile in σ_creator, refined by Brent.

    References
    ----------
    Viechtbauer (2005), J. Educ. Behav. Stat. 30(3), 261–293, section 2.4, for one level; the two-level
    likelihood is `restricted_log_likelihood`.
    """
    typical = structure.typical_se
    mean = _genre_means(structure, 0.0)[0]
    top = 2 * float(np.abs(structure.effect - mean[structure.group]).max()) + typical
    genre_top = 2 * float(np.ptp(mean)) + typical

    def profile(creator: float) -> tuple[float, float]:
        within = _genre_means(structure, creator**2)
        if len(structure.groups) == 1:
            return _lower(structure, creator) + _upper(*within, 0.0), 0.0
        genre, height = _highest(partial(_upper, *within), genre_top, typical)
        return _lower(structure, creator) + height, genre

    creator, _ = _highest(lambda value: profile(value)[0], top, typical)
    return Spreads(creator, profile(creator)[1])


def _highest(function: Callable[[float], float], top: float, typical: float) -> tuple[float, float]:
    """Where a function on [0, top] is highest, and how high: a grid, then Brent between its neighbours."""
    grid = typical * np.sinh(np.linspace(0, np.arcsinh(top / typical), 13))
    heights = [function(value) for value in grid]
    best = int(np.argmax(heights))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, 12)]
    found = minimize_scalar(
        lambda value: -function(value),
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-8 * ends[1]},
    )
    if heights[0] >= -found.fun:
        return 0.0, heights[0]
    return float(found.x), float(-found.fun)


def _genre_means(structure: ThreeLevelNormal, creator2: float) -> tuple[np.ndarray, np.ndarray]:
    """ȳ_g and W_g, ndarrays (G,), with variances s_i² + `creator2`."""
    weight = 1 / (structure.se**2 + creator2)
    count = len(structure.groups)
    total = np.bincount(structure.group, weight, count)
    return np.bincount(structure.group, weight * structure.effect, count) / total, total


def _lower(structure: ThreeLevelNormal, creator: float) -> float:
    mean, total = _genre_means(structure, creator**2)
    weight = 1 / (structure.se**2 + creator**2)
    square = float(weight @ (structure.effect - mean[structure.group]) ** 2)
    return 0.5 * (float(np.log(weight).sum()) - square - float(np.log(total).sum()))


def _upper(mean: np.ndarray, total: np.ndarray, genre: float) -> float:
    a = 1 / (genre**2 + 1 / total)
    center = a @ mean / a.sum()
    return 0.5 * float(np.log(a).sum() - a @ (mean - center) ** 2 - np.log(a.sum()))


def partial_pooling(posterior: ExactPosterior) -> Estimated:
    """Mean, sd and quantiles of the exact posterior."""
    return Estimated(posterior.mean[posterior.theta], posterior.sd[posterior.theta], posterior=posterior)


def estimators(
    structure: ThreeLevelNormal, df: np.ndarray | None = None, posterior: ExactPosterior | None = None
) -> dict[str, Estimated]:
    """Every estimator by name, partial pooling last where a posterior is given."""
    found = {
        "no_pooling": no_pooling(structure, df),
        "complete_pooling": complete_pooling(structure),
        "empirical_bayes": empirical_bayes(structure, reml_spreads(structure)),
        "empirical_bayes_moments": empirical_bayes(structure, moment_spreads(structure)),
        "james_stein": james_stein(structure),
    }
    if posterior is not None:
        found["partial_pooling"] = partial_pooling(posterior)
    return found


def estimate_table(structure: ThreeLevelNormal, found: Mapping[str, Estimated]) -> pd.DataFrame:
    """Long table of estimators: unit, genre, estimator, estimate, se, low95, high95, p.

    p is the two-sided p-value of no pooling, and missing for the others, which answer another question.
    """
    units = pd.Series(structure.units.arrow if hasattr(structure.units, "arrow") else structure.units)
    genre = pd.Categorical.from_codes(structure.group.tolist(), categories=pd.Index(structure.groups))
    parts = []
    for name, one in found.items():
        ends = one.quantiles((0.025, 0.975))
        parts.append(
            pd.DataFrame(
                {
                    "unit": units.astype("str"),
                    "genre": genre,
                    "estimator": pd.Categorical([name] * len(units), categories=list(found)),
                    "estimate": one.point,
                    "se": one.se,
                    "low95": ends[:, 0],
                    "high95": ends[:, 1],
                    "p": one.p_value if name == "no_pooling" else np.nan,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
