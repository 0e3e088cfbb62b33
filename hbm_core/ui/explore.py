"""The home page: the study as the explorer shows it, and what the hand does to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from hbm_core.inference.reweighted import ReweightedPosterior
from hbm_core.models.elicitation import elicit, interval_mass
from hbm_core.models.families import FAMILIES
from hbm_core.models.prior import Prior
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.store.study import Study
from hbm_core.ui import circuit_section, fits, reweighted, session, theme, vectors
from hbm_core.ui.background import follows
from hbm_core.ui.explorer_component import (
    Actions,
    Elicitation,
    ExplorerData,
    FitEntry,
    PresetEntry,
    Segment,
    explorer,
    prior_entries,
)
from hbm_core.ui.explorer_component import Live as LiveNumber
from hbm_core.ui.explorer_shapes import shape_of
from hbm_core.ui.live import Live, live

#: A mass this far from the one asked for is told.
_NOTABLE = 0.005
_PLACE = re.compile(r"\{(unit|raw|pooled)\}")
_HEADLINE = (
    "Taken on its own, {unit} shows {raw}; "
    "pooled with the other {others} {many}, it is estimated at {pooled}."
)


def explore(study: Study) -> None:
    """Draw the explorer for a study, live while its fit runs."""
    fits.alone(study, _draw, beside=follows)


def _draw(study: Study, found: fits.FitView) -> None:
    seen = live(study)
    message = seen.problem
    if vectors.has(seen):
        _vectors(seen, found)
        return
    if seen.sampled:
        _sampled(seen, found)
        return
    if seen.posterior is not None:
        session.sound(study)
    elif (last := session.last_sound()) is not None and _comparable(last, study):
        seen = Live(study, seen.dataset, seen.spec, live(last).posterior, message)
    explorer(explorer_data(seen, found, message), _actions(seen), key="explorer")


def _vectors(whole: Live, found: fits.FitView) -> None:
    """Draw units that are vectors: what they show as a whole, and one of their parameters."""
    circuit_section.story(whole)
    circuit_section.choose(whole)
    seen, mode = vectors.along(whole), theme.mode()
    data = explorer_data(seen, found, seen.problem if seen.posterior is not None else "")
    data, acts = replace(data, stale=seen.stale), _actions(seen)
    left, right = st.columns([2.2, 1], gap="large")
    with right:
        explorer(replace(data, parts=("priors", "fit")), acts, key="explorer")
    with left:
        with reweighted.greyed(seen.stale, "circuit"):
            circuit_section.draw(whole, mode)
        if seen.posterior is None:
            circuit_section.alone(seen, mode)
            st.caption(theme.plain(seen.problem))
            return
        explorer(replace(data, parts=("story", "forest"), note=""), acts, key="explorer_forest")
        if isinstance(whole.posterior, ReweightedPosterior) and not seen.stale:
            reweighted.say(whole.posterior)
        with reweighted.greyed(seen.stale, "circuit_means"):
            circuit_section.means(whole, mode)


def _sampled(seen: Live, found: fits.FitView) -> None:
    """Draw a model without an exact engine: the nearest fit's picture, or how to come by one."""
    data = explorer_data(seen, found, seen.problem if seen.posterior is not None else "")
    if seen.posterior is None:
        st.info(theme.plain(seen.problem))
        data = replace(data, parts=("priors", "fit"))
    else:
        data = replace(data, parts=tuple(part for part in data.parts if part != "tau"))
    if isinstance(seen.posterior, ReweightedPosterior) and not seen.stale:
        reweighted.say(seen.posterior)
    # The note is about priors on the outcome's scale.
    explorer(replace(data, stale=seen.stale, note=""), _actions(seen), key="explorer")


def _comparable(last: Study, study: Study) -> bool:
    """Whether the last picture may stay while the new priors have none: same data, same model."""
    same = ("scenario", "dataset", "model", "data_seed", "knobs", "covariates")
    return all(getattr(last, name) == getattr(study, name) for name in same)


def explorer_data(seen: Live, found: fits.FitView, message: str = "") -> ExplorerData:
    """The component's data for a study and the state of its fit."""
    scenario, dataset, spec = find_scenario(seen.study.scenario), seen.dataset, seen.spec
    whole = seen.whole or seen
    presets = tuple(
        PresetEntry(preset.id, preset.label, chosen, preset.model)
        for preset in scenario.presets
        if set(chosen := preset.priors(whole.dataset)) <= set(whole.spec.priors)
    )
    focus = focus_of(seen)
    structure: Any = spec.structure
    listed = shape_of(structure).listed(structure, _place(structure, focus))
    labels = structure.units if listed is None else [structure.units[int(place)] for place in listed]
    truth = None
    if dataset.truth is not None:
        truth = np.array([dataset.truth[f"theta[{label}]"] for label in labels])
    return ExplorerData(
        spec=spec,
        posterior=seen.posterior,
        words=dataset.words,
        priors=prior_entries(spec, seen.study.declared.families, scenario.parameter_words),
        model=seen.study.model,
        focus=focus,
        presets=presets,
        story=story(seen, focus),
        fit=_fit_entry(found),
        listed=listed,
        truth=truth,
        message=message,
        note=scenario.scale_note(whole.dataset),
        serial=session.resets(),
    )


def focus_of(seen: Live) -> str:
    """The selected unit, or the one that pooling moves most."""
    structure: Any = seen.spec.structure
    units = structure.units
    if seen.study.unit is not None and seen.study.unit in units:
        return str(seen.study.unit)
    listed = shape_of(structure).listed(structure)
    if listed is not None and (len(listed) < len(units) or seen.posterior is None):
        return str(units[int(listed[0])])
    if seen.posterior is None:
        return units[0]
    moved = np.abs(seen.posterior.mean[seen.posterior.theta] - seen.spec.structure.effect)
    return units[int(np.argmax(moved))]


def _place(structure: Any, unit: str) -> int:
    """Place of a unit; labels of millions have a lookup of their own."""
    return structure.place(unit) if hasattr(structure, "place") else list(structure.units).index(unit)


def story(seen: Live, focus: str) -> tuple[Segment, ...]:
    """The study in one sentence, with numbers that follow the posterior."""
    words = seen.dataset.words
    others = f"{len(seen.spec.structure.units) - 1:,}"
    template = words.headline or _HEADLINE.replace("{others}", others).replace("{many}", words.many)
    name = focus if words.headline else f"{words.one} {focus}"
    segments: list[Segment] = []
    for part in _PLACE.split(template):
        match part:
            case "unit":
                segments.append(name)
            case "raw":
                segments.append(LiveNumber("raw", focus, "strong"))
            case "pooled":
                segments.append(LiveNumber("pooled", focus, "pooled"))
            case "":
                pass
            case _:
                segments.append(part)
    return tuple(segments)


def residual_words(prior: Prior, asked: Elicitation, offered: Sequence[str]) -> str:
    """What a family could not do about the range that was asked for; empty where it met it."""
    mass = interval_mass(prior, asked.low, asked.high)
    if abs(mass - asked.mass) <= _NOTABLE:
        return ""
    low, high = (f"{end:g}".replace("-", "\u2212") for end in (asked.low, asked.high))
    why = "has one number" if len(prior.numbers) == 1 else "keeps its degrees of freedom"
    text = (
        f"{prior.declared.label} {why}: {100 * mass:.0f}\u00a0% between {low} and {high} "
        "is the nearest it can do."
    )
    able = [FAMILIES[name].label for name in ("LogNormal", "Gamma") if name in offered]
    return f"{text} {' or '.join(able)} can meet both ends." if able else text


def _fit_entry(found: fits.FitView) -> FitEntry:
    verdict = "fail" if found.status.state == "failed" else found.grade or ""
    text = f"{found.headline} {found.detail}" if found.status.stopping else found.detail
    if found.status.state == "done" and (found.grade != "pass" or not found.own):
        text = f"{found.headline}. {text}"
    cancels = found.own and not found.status.stopping
    return FitEntry(found.status.state, found.fraction, text, cancels, verdict, found.own)


def _actions(seen: Live) -> Actions:
    """What the hand's acts do to the study."""
    whole = seen.whole or seen
    study, dataset = whole.study, whole.dataset
    defaults = study.declared.priors(dataset, study.covariates)

    def set_priors(priors: dict[str, Prior]) -> None:
        # The panel may show some of the priors only; the others stay.
        every = {**study.priors, **priors}
        session.change(priors={name: prior for name, prior in every.items() if prior != defaults.get(name)})

    def set_preset(id: str) -> None:
        presets = {item.id: item for item in find_scenario(study.scenario).presets}
        if (preset := presets.get(id)) is None:
            return
        # Models that differ in their priors alone are presets of each other; others keep their hierarchy.
        if preset.model is not None and study.model in {item.model for item in presets.values()}:
            session.change(model=preset.model, priors={})
        else:
            set_priors({**whole.spec.priors, **preset.priors(dataset)})

    def elicited(asked: Elicitation) -> str:
        positive = asked.param in seen.spec.structure.positive
        prior = elicit(asked.family, asked.low, asked.high, asked.mass, positive=positive)
        set_priors({**seen.spec.priors, asked.param: prior})
        return residual_words(prior, asked, study.declared.families.get(asked.param, ()))

    return Actions(
        unit=lambda label: session.change(unit=label),
        priors=set_priors,
        refused=lambda problem: session.notify(str(problem)),
        preset=set_preset,
        elicit=elicited,
        # The study of the moment: priors may have come to rest in the very run that brings the click.
        fit=lambda: fits.start(session.study()),
        cancel=lambda: fits.cancel(session.study()),
    )
