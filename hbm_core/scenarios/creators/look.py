"""What the data say before any model: sizes, raw effects, spread by genre, zeros and tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from hbm_core.analysis.moments import pooled, tau2_dl
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios.creators.data import ARMS, creator_table, genres
from hbm_core.scenarios.creators.data import structure as structure_of
from hbm_core.scenarios.creators.estimators import complete_pooling, moment_spreads

SIZE_BINS = ("n < 100", "100 ≤ n < 500", "n ≥ 500")
#: An arm's mean is near enough to normal from 355 g² users on, g the outcome's skewness: Kohavi et al. 2014.
USERS_PER_SQUARED_SKEWNESS = 355
#: Share of creators with too small an arm, and share of zeros, from which the first look warns.
SHORT_SHARE = 0.10
ZERO_SHARE = 0.30
#: Genres listed one by one.
_MOST_GENRES = 20


def size_bins(n: np.ndarray) -> np.ndarray:
    """Label of each creator's size, ndarray (N,) of str: `SIZE_BINS`."""
    return np.array(SIZE_BINS)[np.digitize(n, [100, 500])]


@dataclass(frozen=True)
class Normality:
    """Whether a normal model of the effects can be right for these outcomes.

    Parameters
    ----------
    zero_share : float
        Share of users at exactly 0.
    skewness : float
        Of the outcome around its arm's mean, pooled over creators and arms.
    users_needed : float
        355 g²: users per arm from which its mean is close to normal.
    short_share : float
        Share of creators with an arm smaller than that, by its genre's skewness.
    negative : int
        Users below 0: where there are any, `hurdle` does not apply.
    """

    zero_share: float
    skewness: float
    users_needed: float
    short_share: float
    negative: int

    @property
    def wrong(self) -> bool:
        """Whether the rule says that a normal model is wrong here."""
        return self.zero_share >= ZERO_SHARE or self.short_share >= SHORT_SHARE

    @property
    def sentence(self) -> str:
        """The verdict in words; empty where nothing speaks against a normal model."""
        if not self.wrong:
            return ""
        reasons = []
        if self.zero_share >= ZERO_SHARE:
            reasons.append(f"{self.zero_share:.0%} of users are at zero")
        if self.short_share >= SHORT_SHARE:
            reasons.append(
                f"the tail is heavy (skewness {self.skewness:.1f}), and {self.short_share:.0%} of creators "
                f"have arms too small for their means to be normal (about {self.users_needed:,.0f} users)"
            )
        advice = (
            "Outcomes below zero keep the model hurdle from being used."
            if self.negative
            else "Use the model hurdle."
        )
        return f"A normal model for user revenue is wrong here: {' and '.join(reasons)}. {advice}"


def normality(table: pd.DataFrame) -> Normality | None:
    """Zeros and tails of the outcome; None where only effects and standard errors are known.

    The skewness g is pooled: third central moments of the arms over the 3/2 power of their second, both
    averaged over users, because a small arm's own skewness says little. The rule: a normal model is called
    wrong where at least 30 % of users are at zero, or at least 10 % of creators have an arm of fewer than
    355 g² users, g their genre's.

    References
    ----------
    Kohavi, Deng, Longbotham & Xu (2014), Seven rules of thumb for web site experimenters, KDD, rule 7.
    """
    needed = [f"{name}_{arm}" for name in ("n", "var", "skew", "zeros", "positive") for arm in ARMS]
    if not set(needed) <= set(table.columns):
        return None
    group, names = genres(table)
    n, second, third, zeros, positive = (
        np.column_stack([table[f"{name}_{arm}"].to_numpy(dtype=float) for arm in ARMS])
        for name in ("n", "var", "skew", "zeros", "positive")
    )
    second = second * (n - 1) / n
    third = third * second**1.5 * (n - 2) / np.sqrt(n * (n - 1))

    def skewness(mask: np.ndarray) -> float:
        users = n[mask].sum()
        return float((n * third)[mask].sum() / users / ((n * second)[mask].sum() / users) ** 1.5)

    needed_by_genre = np.array(
        [USERS_PER_SQUARED_SKEWNESS * skewness(group == g) ** 2 for g in range(len(names))]
    )
    whole = skewness(np.ones(len(table), dtype=bool))
    return Normality(
        float(zeros.sum() / n.sum()),
        whole,
        USERS_PER_SQUARED_SKEWNESS * whole**2,
        float((n.min(axis=1) < needed_by_genre[group]).mean()),
        int((n - zeros - positive).sum()),
    )


def genre_table(dataset: Dataset) -> pd.DataFrame:
    """Each genre before any model.

    Returns
    -------
    pandas.DataFrame
        genre; creators; users (missing where n is); mean and se: the precision-weighted mean effect;
        median_se; spread: √τ² of DerSimonian and Laird among its creators (missing for one creator). In the
        outcome's units.
    """
    table = creator_table(dataset.table)
    group, names = genres(table)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(names) + 1))
    rows = []
    for g, name in enumerate(names):
        here = order[starts[g] : starts[g + 1]]
        effect, se = table["effect"].to_numpy()[here], table["se"].to_numpy()[here]
        mean, error = pooled(effect, se)
        users = float(table["n"].to_numpy()[here].sum()) if "n" in table else np.nan
        spread = tau2_dl(effect, se) ** 0.5 if here.size > 1 else np.nan
        rows.append((name, here.size, users, mean, error, float(np.median(se)), spread))
    columns = ["genre", "creators", "users", "mean", "se", "median_se", "spread"]
    return pd.DataFrame(rows, columns=columns)


def first_look(dataset: Dataset) -> pd.DataFrame:
    """Sizes, raw effects, standard errors, spread by genre, zeros and tails.

    Returns
    -------
    pandas.DataFrame
        quantity (key), label (words), value (float), note.
    """
    table = creator_table(dataset.table)
    effect, se = table["effect"].to_numpy(), table["se"].to_numpy()
    shape = structure_of(dataset)
    unit = dataset.words.unit
    spreads = moment_spreads(shape)
    rows: list[tuple[str, str, float, str]] = [
        ("creators", "Number of creators", len(table), ""),
        ("genres", "Number of genres", len(shape.groups), ""),
    ]
    if len(dataset.table) != len(table):
        note = "creators by segment and period; combined by precision where a model has neither"
        rows.append(("rows", "Number of rows", len(dataset.table), note))
    if "n" in table:
        n = table["n"].to_numpy()
        rows.append(("users", "Number of users", n.sum(), f"from {n.min():,} to {n.max():,} per creator"))
        labels = size_bins(n)
        rows += [
            (f"share[{label}]", f"Share of creators with {label}", (labels == label).mean(), "")
            for label in SIZE_BINS
        ]
    rows += [
        ("effect_mean", "Mean raw effect", effect.mean(), unit),
        (
            "effect_sd",
            "Spread of the raw effects",
            effect.std(ddof=1),
            f"{unit}, noise included".lstrip(", "),
        ),
        ("se_median", "Median standard error", np.median(se), unit),
        ("se_low", "Smallest standard error", se.min(), unit),
        ("se_high", "Largest standard error", se.max(), unit),
    ]
    if "n" in table and np.unique(n).size > 1 and np.unique(effect).size > 1:
        rank = float(stats.spearmanr(n, effect).statistic)
        note = "if far from 0, small and large creators differ in more than noise"
        rows.append(("rank_n", "Rank correlation of users and effect", rank, note))
    away = np.abs(effect - complete_pooling(shape).point) / se
    share = float((away > 1.96).mean())
    rows.append(("beyond", "Share beyond 1.96 se of its genre's mean", share, "0.05 if only noise differs"))
    noise = f"{unit}; DerSimonian–Laird" if unit else "DerSimonian–Laird"
    rows += [
        ("spread_creator", "Spread of true effects within genres", spreads.creator, noise),
        ("spread_genre", "Spread of the genres' means", spreads.genre, noise),
    ]
    by_genre = genre_table(dataset) if len(shape.groups) <= _MOST_GENRES else None
    for row in by_genre.to_dict("records") if by_genre is not None else ():
        users = "" if np.isnan(row["users"]) else f", {row['users']:,.0f} users"
        note = f"{row['creators']:,} creators{users}; mean effect {row['mean']:.3g} ± {row['se']:.2g}"
        value = row["spread"] if np.isfinite(row["spread"]) else 0.0
        rows.append((f"spread[{row['genre']}]", f"Spread within {row['genre']}", value, note))
    if (seen := normality(dataset.table)) is not None:
        said = seen.sentence
        rows += [
            ("zero_share", "Share of users at zero", seen.zero_share, ""),
            ("skewness", "Skewness of the outcome", seen.skewness, "around the arms' means, pooled"),
            (
                "users_needed",
                "Users per arm for a normal mean",
                float(np.ceil(seen.users_needed)),
                f"{USERS_PER_SQUARED_SKEWNESS} times the squared skewness (Kohavi et al. 2014)",
            ),
            ("short_share", "Share of creators with a smaller arm", seen.short_share, ""),
            ("normal_wrong", "A normal model is wrong here", float(seen.wrong), said or "no sign of it"),
        ]
    for name in ("mu", "sigma_genre", "sigma_creator"):
        if dataset.truth is not None and name in dataset.truth:
            rows.append((f"truth[{name}]", f"True {name}", dataset.truth[name], "simulated"))
    return pd.DataFrame(rows, columns=["quantity", "label", "value", "note"]).astype({"value": float})
