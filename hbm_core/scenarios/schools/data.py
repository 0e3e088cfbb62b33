"""Built-in data of the scenario `schools`: two-level tables of effects with known standard errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from hbm_core.models.dataset import Dataset, Words

SCHOOL_WORDS = Words(
    "school",
    "schools",
    "Effect of coaching",
    "SAT points",
    "Of eight schools that tried SAT coaching, School {unit} gained {raw} points taken on its own, "
    "and {pooled} in the company of the other seven.",
)
TRIAL_WORDS = Words(
    "trial",
    "trials",
    "Log risk ratio of tuberculosis",
    headline="Of 13 trials of the BCG vaccine, {unit} puts the log risk ratio at {raw} taken on its own, "
    "and at {pooled} in the company of the other twelve.",
)
BLOCKER_WORDS = Words(
    "trial",
    "trials",
    "Log odds ratio of death",
    headline="Of 22 trials of beta-blockers after a heart attack, {unit} puts the log odds ratio of death "
    "at {raw} taken on its own, and at {pooled} in the company of the others.",
)

#: Effect and standard error of the eight schools, A to H.
EIGHT_EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
EIGHT_SES = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)

#: Trial, latitude, year, then tuberculosis and no tuberculosis among vaccinated and among controls.
_BCG = (
    ("Aronson 1948", 44, 1948, 4, 119, 11, 128),
    ("Ferguson & Simes 1949", 55, 1949, 6, 300, 29, 274),
    ("Rosenthal 1960", 42, 1960, 3, 228, 11, 209),
    ("Hart & Sutherland 1977", 52, 1977, 62, 13536, 248, 12619),
    ("Frimodt-Møller 1973", 13, 1973, 33, 5036, 47, 5761),
    ("Stein & Aronson 1953", 44, 1953, 180, 1361, 372, 1079),
    ("Vandiviere 1973", 19, 1973, 8, 2537, 10, 619),
    ("Madras 1980", 13, 1980, 505, 87886, 499, 87892),
    ("Coetzee & Berjak 1968", 27, 1968, 29, 7470, 45, 7232),
    ("Rosenthal 1961", 42, 1961, 17, 1699, 65, 1600),
    ("Comstock 1974", 18, 1974, 186, 50448, 141, 27197),
    ("Comstock & Webster 1969", 33, 1969, 5, 2493, 3, 2338),
    ("Comstock 1976", 33, 1976, 27, 16886, 29, 17825),
)

#: Deaths and patients under control, deaths and patients under beta-blockers.
_BLOCKERS = (
    (3, 39, 3, 38),
    (14, 116, 7, 114),
    (11, 93, 5, 69),
    (127, 1520, 102, 1533),
    (27, 365, 28, 355),
    (6, 52, 4, 59),
    (152, 939, 98, 945),
    (48, 471, 60, 632),
    (37, 282, 25, 278),
    (188, 1921, 138, 1916),
    (52, 583, 64, 873),
    (47, 266, 45, 263),
    (16, 293, 9, 291),
    (45, 883, 57, 858),
    (31, 147, 25, 154),
    (38, 213, 33, 207),
    (12, 122, 28, 251),
    (6, 154, 8, 151),
    (3, 134, 6, 174),
    (40, 218, 32, 209),
    (43, 364, 27, 391),
    (39, 674, 22, 680),
)


def eight_schools() -> Dataset:
    """Coaching for the SAT-V in eight schools: the boundary case, where every moment estimate of τ² is 0.

    References
    ----------
    Rubin (1981), Estimation in parallel randomized experiments, J. Educ. Stat. 6(4), table 1;
    Gelman et al. (2013), BDA3, table 5.2.
    """
    table = pd.DataFrame({"unit": list("ABCDEFGH"), "effect": EIGHT_EFFECTS, "se": EIGHT_SES})
    return Dataset(
        "eight_schools", "Eight schools (Rubin 1981)", table, SCHOOL_WORDS, "Rubin (1981), table 1"
    )


def bcg() -> Dataset:
    """BCG vaccine against tuberculosis, 13 trials: clearly heterogeneous, and latitude explains much of it.

    Effects are log risk ratios, log(a/(a + b)) − log(c/(c + d)), with the standard error
    √(1/a − 1/(a + b) + 1/c − 1/(c + d)), from the published counts.

    References
    ----------
    Colditz et al. (1994), Efficacy of BCG vaccine in the prevention of tuberculosis, JAMA 271(9), 698–702;
    counts and latitudes as in van Houwelingen, Arends & Stijnen (2002), Stat. Med. 21(4), table I.
    """
    names = [trial[0] for trial in _BCG]
    latitude, year, a, b, c, d = np.array([trial[1:] for trial in _BCG], dtype=float).T
    table = pd.DataFrame(
        {
            "unit": names,
            "effect": np.log(a / (a + b)) - np.log(c / (c + d)),
            "se": np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)),
            "latitude": latitude,
            "year": year,
        }
    )
    return Dataset("bcg", "BCG vaccine (Colditz 1994)", table, TRIAL_WORDS, "Colditz et al. (1994)")


def beta_blockers() -> Dataset:
    """Beta-blockers after a heart attack, 22 trials: many units, little heterogeneity.

    Effects are log odds ratios of death, treated against control, with the standard error
    √(1/a + 1/b + 1/c + 1/d), from the published counts.

    References
    ----------
    Yusuf et al. (1985), Beta blockade during and after myocardial infarction, Prog. Cardiovasc. Dis. 27(5),
    335–371; Gelman et al. (2013), BDA3, table 5.4, which prints effects and standard errors.
    """
    control, controls, treated, patients = np.array(_BLOCKERS, dtype=float).T
    odds = np.log(treated / (patients - treated)) - np.log(control / (controls - control))
    variance = 1 / treated + 1 / (patients - treated) + 1 / control + 1 / (controls - control)
    units = [f"Trial {place:02d}" for place in range(1, len(_BLOCKERS) + 1)]
    table = pd.DataFrame({"unit": units, "effect": odds, "se": np.sqrt(variance)})
    return Dataset(
        "beta_blockers",
        "Beta-blockers (Yusuf 1985)",
        table,
        BLOCKER_WORDS,
        "Yusuf et al. (1985); BDA3, table 5.4",
    )


BUILT_IN: Mapping[str, Callable[[], Dataset]] = MappingProxyType(
    {"eight_schools": eight_schools, "bcg": bcg, "beta_blockers": beta_blockers}
)
