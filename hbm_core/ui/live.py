"""Posteriors for what moves under the hand, shared by all sessions and bounded.

Exact ones; of models without an exact engine those of a finished fit, re-weighted: `hbm_core.ui.reweighted`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import streamlit as st

from hbm_core.errors import FitError, InputError, NotExactError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.dataset import Dataset
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.store.study import Study
from hbm_core.ui import reweighted, session
from hbm_core.ui.shelf import Shelf


@dataclass(frozen=True, eq=False)
class Live:
    """A study with its data, its model and its posterior.

    Parameters
    ----------
    study, dataset, spec
        What is shown.
    posterior : ExactPosterior or None
        None where it is improper, or where no exact engine covers it and nothing is fitted yet.
    problem : str
        Why there is no posterior under these priors, in words.
    sampled : bool
        Whether no exact engine covers the study, so that its posterior comes from fits.
    stale : bool
        Whether `posterior` is a fit's under other priors, because these are too far from any fit.
    whole : Live or None
        All of it, where this is a view of one parameter of units that are vectors.
    """

    study: Study
    dataset: Dataset
    spec: ModelSpec
    posterior: ExactPosterior | None
    problem: str = ""
    sampled: bool = False
    stale: bool = False
    whole: Live | None = None

    @property
    def exact(self) -> ExactPosterior | None:
        """The posterior where it is exact: what draws can be held against."""
        return None if self.sampled else self.posterior


#: Of 500 units one posterior takes 2 MB, of a heavy-tailed model ten times as much: so bytes are counted too.
_SOLVED = Shelf[ExactPosterior | InputError | FitError](entries=256, size=128_000_000)
#: So many units are solved before a spinner could be seen.
_AT_ONCE = 1_000


def _solve(spec: ModelSpec) -> ExactPosterior | InputError | FitError:
    try:
        posterior = solve(spec)
        posterior.settle()
    except (InputError, FitError) as problem:
        return problem
    return posterior


def _quick(spec: ModelSpec) -> bool:
    structure = spec.structure
    return (
        isinstance(structure, TwoLevelNormal)
        and (structure.effects, structure.likelihood) == ("normal", "normal")
        and len(structure.units) <= _AT_ONCE
    )


def live(study: Study, dataset: Dataset | None = None) -> Live:
    """The study's posterior, from the cache where it was asked for before.

    `dataset` stands in for the study's own where it is not kept yet.
    """
    dataset = dataset or study.data(session.uploads)
    spec = study.spec(dataset)
    # The posterior depends on neither geometry nor sampler: one entry serves them all.
    priors = ";".join(f"{name}={prior.text}" for name, prior in spec.priors.items())
    constants = ";".join(f"{name}={value!r}" for name, value in spec.constants.items())
    key = "|".join((dataset.digest, study.scenario, study.model, priors, constants, *study.covariates))
    with nullcontext() if key in _SOLVED or _quick(spec) else st.spinner("Solving exactly"):
        found = _SOLVED.get(key, lambda: _solve(spec))
    if isinstance(found, NotExactError):
        read = reweighted.read(study, dataset, spec)
        return Live(study, dataset, spec, read.posterior, read.problem, True, read.stale)
    if isinstance(found, InputError | FitError):
        return Live(study, dataset, spec, None, str(found))
    return Live(study, dataset, spec, found)
