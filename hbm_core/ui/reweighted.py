"""Pictures of models without an exact engine: the nearest finished fit, re-weighted to the study's priors.

`hbm_core.ui.live.live` asks `read` wherever no exact engine covers a study; pages then find in `Live`

- a ``posterior`` (a `ReweightedPosterior`, read like an exact one) and no ``problem``: the live picture, to
  be captioned by `say`;
- a ``posterior`` with ``stale`` and a ``problem``: the last fit under its own priors, to be greyed;
- no ``posterior`` and a ``problem``: nothing is fitted yet, `ask` draws the empty state with its Fit button.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import streamlit as st

from hbm_core.errors import InputError, StoreError, TooFarError
from hbm_core.inference.reweighted import Draws, ReweightedPosterior, reweight
from hbm_core.inference.sampler import GRADIENT_ENGINES
from hbm_core.models.dataset import Dataset
from hbm_core.models.structure import ModelSpec
from hbm_core.store.jobs import Job
from hbm_core.store.request import FitRequest
from hbm_core.store.study import Study
from hbm_core.ui import fits, session, theme
from hbm_core.ui.shelf import Shelf

#: What must be the same for a fit's draws to answer for another study.
_SAME = ("scenario", "data", "model", "model_version", "covariates", "constants")
#: Fits that are tried before a new one is asked for.
_TRIED = 4
_DRAWS = Shelf[Draws](entries=8, size=200_000_000)
_READ = Shelf[ReweightedPosterior | str](entries=64, size=200_000_000)


@dataclass(frozen=True, eq=False)
class Reading:
    """What finished fits say of a study.

    Parameters
    ----------
    posterior : ReweightedPosterior or None
        Under the study's priors; under a fit's own where `stale`; None where nothing is fitted yet.
    problem : str
        Why it is not the study's, in words; empty where it is.
    stale : bool
        Whether the posterior is of other priors.
    """

    posterior: ReweightedPosterior | None
    problem: str = ""
    stale: bool = False


def read(study: Study, dataset: Dataset, spec: ModelSpec[Any]) -> Reading:
    """The study's posterior from the finished fit that is nearest to it.

    Parameters
    ----------
    study, dataset, spec
        What is asked for.
    """
    wanted = study.request(dataset)
    reason, last = "", None
    for job in nearest(wanted)[:_TRIED]:
        try:
            found = _reweighted(job, wanted, dataset, spec)
        except StoreError:
            # Damaged or deleted since it was listed: the store has set it aside.
            continue
        if not isinstance(found, str):
            return Reading(found)
        reason, last = reason or found, last or job
    if last is not None:
        request = _request(last.request)
        own = _reweighted(last, request, dataset, request.spec(dataset))
        if not isinstance(own, str):
            return Reading(own, reason, stale=True)
    words = dataset.words
    return Reading(
        None,
        reason
        or f"This model has no exact engine: a fit shows the pooled estimates of the {words.many}, and "
        "then follows the priors at once. Fit to see them.",
    )


@lru_cache(maxsize=256)
def _request(text: str) -> FitRequest:
    return FitRequest.from_dict(json.loads(text))


def nearest(wanted: FitRequest) -> list[Job]:
    """Finished fits of the same data and model that the visitor may see: fewest other priors, then newest."""
    engine = fits.engine()
    found: dict[str, tuple[int, float, Job]] = {}
    for job in (*engine.jobs(session.owner()), *engine.gallery()):
        usable = job.state == "done" and not job.partial and job.data == wanted.data
        if not usable or job.id in found:
            continue
        try:
            request = _request(job.request)
        except (InputError, ValueError):
            # No fit, or one of another version.
            continue
        if request.engine not in GRADIENT_ENGINES or any(
            getattr(request, n) != getattr(wanted, n) for n in _SAME
        ):
            continue
        if set(request.priors) == set(wanted.priors):
            others = sum(request.priors[name] != prior for name, prior in wanted.priors.items())
            found[job.id] = (others, -(job.finished or 0.0), job)
    return [job for _, _, job in sorted(found.values(), key=lambda entry: entry[:2])]


def _reweighted(
    job: Job, wanted: FitRequest, dataset: Dataset, spec: ModelSpec[Any]
) -> ReweightedPosterior | str:
    fitted = _request(job.request).spec(dataset)
    priors = ";".join(f"{name}={prior.text}" for name, prior in wanted.priors.items())

    def compute() -> ReweightedPosterior | str:
        draws = _DRAWS.get(job.id, lambda: Draws.of(fits.engine().result(job.id), fitted))
        try:
            return reweight(draws, spec)
        except TooFarError as problem:
            return str(problem)

    return _READ.get(f"{job.id}|{priors}", compute)


def say(posterior: ReweightedPosterior) -> None:
    """Caption of a live picture: where it comes from, Pareto's k, and the error beside the figures."""
    st.caption(
        f"{posterior.sentence} Monte Carlo error of a mean: at most {100 * posterior.error:.1f} % of its "
        f"posterior sd, of a pooled estimate at most {posterior.error_absolute:.2g}."
    )


def ask(study: Study, problem: str, key: str) -> None:
    """Empty or stale state: why, and the button that does something about it."""
    st.info(theme.plain(problem))
    if not fits.view(study).status.active:
        st.button("Fit", key=f"{key}_fit", type="primary", on_click=fits.start, args=(study,))


@contextmanager
def greyed(stale: bool, key: str) -> Iterator[None]:
    """A part of the page that is greyed while its picture is not of the study's priors."""
    if not stale:
        yield
        return
    with st.container(key=f"{key}_stale"):
        st.html(f"<style>.st-key-{key}_stale {{ opacity: .5; }}</style>")
        yield
