"""Moment estimates of a two-level normal model, before any Bayesian model: Q, I², τ², pooled means.

All functions take arrays: ``effect`` (J,) and ``se`` (J,), positive, both in the outcome's units; J ≥ 2.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

#: 97.5 % point of the standard normal.
Z95 = float(stats.norm.ppf(0.975))


def pooled(effect: np.ndarray, se: np.ndarray, tau2: float = 0.0) -> tuple[float, float]:
    """Precision-weighted mean and its standard error, given τ² (0: all units share one effect)."""
    weight = 1 / (se**2 + tau2)
    return float(weight @ effect / weight.sum()), float(weight.sum() ** -0.5)


def cochran_q(effect: np.ndarray, se: np.ndarray) -> tuple[float, int, float]:
    """Q = Σ (y_i − ȳ)²/s_i² around the fixed mean, its J − 1 degrees of freedom and its p-value.

    References
    ----------
    Cochran (1954), The combination of estimates from different experiments, Biometrics 10(1).
    """
    mean, _ = pooled(effect, se)
    q = float((((effect - mean) / se) ** 2).sum())
    return q, effect.size - 1, float(stats.chi2.sf(q, effect.size - 1))


def i_squared(effect: np.ndarray, se: np.ndarray) -> float:
    """I² = max(0, (Q − df)/Q): share of the variation that sampling error does not explain.

    References
    ----------
    Higgins & Thompson (2002), Quantifying heterogeneity in a meta-analysis, Stat. Med. 21(11).
    """
    q, df, _ = cochran_q(effect, se)
    return max(0.0, 1 - df / q) if q > 0 else 0.0


def tau2_dl(effect: np.ndarray, se: np.ndarray) -> float:
    """τ² of DerSimonian and Laird: max(0, (Q − df)/(Σw − Σw²/Σw)) with w = 1/s².

    References
    ----------
    DerSimonian & Laird (1986), Control. Clin. Trials 7(3), 177–188.
    """
    q, df, _ = cochran_q(effect, se)
    weight = 1 / se**2
    return max(0.0, (q - df) / float(weight.sum() - (weight**2).sum() / weight.sum()))


def tau2_pm(effect: np.ndarray, se: np.ndarray) -> float:
    """τ² of Paule and Mandel: where Σ (y_i − μ̂)²/(s_i² + τ²) = J − 1, or 0.

    The sum falls and is convex in τ², so that Newton's steps from 0 approach the root from below. Statsmodels
    has the same search, but returns 0 when its last step lands past the root by a rounding error.

    References
    ----------
    Paule & Mandel (1982), J. Res. NBS 87(5); DerSimonian & Kacker (2007), Contemp. Clin. Trials 28(2).
    """
    tau2 = 0.0
    for _ in range(200):
        weight = 1 / (se**2 + tau2)
        residual = effect - weight @ effect / weight.sum()
        excess = float((weight * residual**2).sum()) - (effect.size - 1)
        if excess <= 0:
            break
        step = excess / float(((weight * residual) ** 2).sum())
        tau2 += step
        if step <= 1e-14 * tau2:
            break
    return tau2


def restricted_log_likelihood(effect: np.ndarray, se: np.ndarray, tau2: float) -> float:
    """Log REML of τ²: −½ Σ log v_i − ½ log Σ 1/v_i − ½ Σ (y_i − μ̂)²/v_i, v_i = s_i² + τ²."""
    variance = se**2 + tau2
    mean, error = pooled(effect, se, tau2)
    return float(
        -0.5 * (np.log(variance).sum() - 2 * np.log(error) + ((effect - mean) ** 2 / variance).sum())
    )


def tau2_reml(effect: np.ndarray, se: np.ndarray) -> float:
    """τ² by restricted maximum likelihood, not below 0, by Fisher scoring from several starts.

    With w = 1/(s² + τ²) and P the projection off the mean: score = ½(Σ w²(y − μ̂)² − tr P), information
    = ½ tr P². The REML likelihood may have two maxima, so the best end point counts.

    References
    ----------
    Viechtbauer (2005), J. Educ. Behav. Stat. 30(3), section 2.4.
    """
    unit = float(np.median(se))
    effect, se = (effect - np.median(effect)) / unit, se / unit
    starts = {0.0, tau2_dl(effect, se), float(effect.var(ddof=1))}
    ends = [_score(effect, se, start) for start in sorted(starts)]
    best = max(ends, key=lambda tau2: restricted_log_likelihood(effect, se, tau2))
    return best * unit**2


def _score(effect: np.ndarray, se: np.ndarray, tau2: float) -> float:
    here = restricted_log_likelihood(effect, se, tau2)
    for _ in range(500):
        weight = 1 / (se**2 + tau2)
        total, squares = weight.sum(), (weight**2).sum()
        residual = effect - weight @ effect / total
        score = (weight**2 * residual**2).sum() - (total - squares / total)
        information = squares - 2 * (weight**3).sum() / total + (squares / total) ** 2
        step = score / information
        while True:
            trial = max(0.0, tau2 + step)
            value = restricted_log_likelihood(effect, se, trial)
            if value >= here or abs(trial - tau2) <= 1e-14 * (1 + tau2):
                break
            step /= 2
        done = abs(trial - tau2) <= 1e-12 * (tau2 + 1e-6)
        if value >= here:
            tau2, here = trial, value
        if done or value < here:
            break
    return tau2


def empirical_bayes(effect: np.ndarray, se: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plug-in estimate with τ² from REML: θ̂_i = B_i μ̂ + (1 − B_i) y_i, B_i = s_i²/(s_i² + τ̂²).

    Returns
    -------
    estimate, se : ndarray (J,)
        The variance is (1 − B_i) s_i² + B_i² var(μ̂): it carries the uncertainty of μ, not that of τ.

    References
    ----------
    Morris (1983), Parametric empirical Bayes inference, JASA 78(381); BDA3, section 5.4.
    """
    tau2 = tau2_reml(effect, se)
    mean, error = pooled(effect, se, tau2)
    pull = se**2 / (se**2 + tau2)
    return pull * mean + (1 - pull) * effect, np.sqrt((1 - pull) * se**2 + (pull * error) ** 2)


def estimators(effect: np.ndarray, se: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Estimate and standard error of every unit, each ndarray (J,), by estimator."""
    mean, error = pooled(effect, se)
    everyone = np.ones_like(effect)
    return {
        "no_pooling": (effect, se),
        "complete_pooling": (mean * everyone, error * everyone),
        "empirical_bayes": empirical_bayes(effect, se),
    }


def first_look(effect: np.ndarray, se: np.ndarray, unit: str = "") -> pd.DataFrame:
    """Moments and tests in one table.

    Parameters
    ----------
    unit : str
        Name of the outcome's unit, for the notes.

    Returns
    -------
    pandas.DataFrame
        quantity (key), label (words), value (float), note.
    """
    q, df, p = cochran_q(effect, se)
    dl, pm, reml = tau2_dl(effect, se), tau2_pm(effect, se), tau2_reml(effect, se)
    fixed, fixed_se = pooled(effect, se)
    random, random_se = pooled(effect, se, reml)
    varies = np.unique(se).size > 1 and np.unique(effect).size > 1
    rank = float(stats.spearmanr(1 / se**2, effect).statistic) if varies else float("nan")
    square = f"{unit} squared" if unit else ""
    boundary = "at the boundary: the data alone show no spread beyond their errors"
    rows = [
        ("J", "Number of units", effect.size, ""),
        ("Q", "Cochran's Q", q, f"about {df} if all units share one effect"),
        ("df", "Degrees of freedom of Q", df, ""),
        ("p", "p-value of Q", p, "chance of a Q this large if all units share one effect"),
        ("I2", "I²", i_squared(effect, se), "share of the variation beyond sampling error"),
        *(
            (key, f"τ² ({name})", value, square if value else boundary)
            for key, name, value in (
                ("tau2_DL", "DerSimonian–Laird", dl),
                ("tau2_PM", "Paule–Mandel", pm),
                ("tau2_REML", "REML", reml),
            )
        ),
        ("mean_fixed", "Pooled mean, one common effect", fixed, unit),
        ("se_fixed", "its standard error", fixed_se, unit),
        ("mean_random", "Pooled mean, effects vary (REML)", random, unit),
        ("se_random", "its standard error", random_se, unit),
        (
            "rank_precision",
            "Rank correlation of precision and effect",
            rank,
            "if far from 0, look at the model precision",
        ),
    ]
    table = pd.DataFrame(rows, columns=["quantity", "label", "value", "note"])
    return table.astype({"value": float})
