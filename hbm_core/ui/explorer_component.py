"""The explorer: shrinkage forest, τ panel, prior panel, three poolings and Fit as one browser component.

Selection, τ and priors pass between its parts in the browser; Python hears of them when the hand rests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import streamlit as st

from hbm_core.errors import InputError
from hbm_core.inference.exact import ExactPosterior
from hbm_core.models.dataset import Words
from hbm_core.models.families import FAMILIES, Family, Number
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.plots.theme import digits
from hbm_core.plots.tokens import css_variables

ASSETS = Path(__file__).parents[2] / "assets" / "components" / "explorer"
#: In the order in which they are joined into one ES module; ``families.js`` is generated.
MODULES = (
    "special.js",
    "families.js",
    "engine.js",
    "dom.js",
    "format.js",
    "validity.js",
    "story.js",
    "forest.js",
    "tau_panel.js",
    "priors.js",
    "poolings.js",
    "fit.js",
    "explorer.js",
)
#: What can be shown, alone or together; the first three on the left.
PARTS = ("story", "forest", "tau", "priors", "poolings", "fit")
_GRID = 320
_DENSITY_GRID = 121
#: What a drawn density leaves out at either end.
_ENDS = (0.0005, 0.9995)
_LINK = re.compile(r"^import .*?;$\n?", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (?=(async )?(function|class|const|let)\b)", re.MULTILINE)


def families_module() -> str:
    """JavaScript table of the prior families, from their one declaration.

    Support, behaviour at the origin and tail are found by calling the declaration with distinct numbers:
    each of them is a constant or one of the family's numbers.

    Raises
    ------
    ValueError
        A declaration that is neither.
    """
    entries = ",\n".join(
        f"  {json.dumps(name)}: {_family_entry(family)}" for name, family in FAMILIES.items()
    )
    return f'import {{ lgamma }} from "./special.js";\n\nexport const FAMILIES = {{\n{entries},\n}};\n'


def _family_entry(family: Family) -> str:
    probes = tuple(1.25 + 0.5 * place for place in range(len(family.numbers)))

    def term(value: float) -> str:
        if value in probes:
            return f"p[{probes.index(value)}]"
        if value in (-1.0, 0.0, 1.0):
            return f"{value:g}"
        if abs(value) == float("inf"):
            return "Infinity" if value > 0 else "-Infinity"
        raise ValueError(f"family {family.name}: neither a constant nor one of its numbers: {value}")

    lower, upper = family.support(*probes)
    numbers = [
        {
            "name": number.name,
            "label": number.label,
            "lower": _finite(number.lower),
            "upper": _finite(number.upper),
        }
        for number in family.numbers
    ]
    return (
        f"{{ label: {json.dumps(family.label)}, proper: {json.dumps(family.proper)},\n"
        f"    numbers: {json.dumps(numbers)},\n"
        f"    support: p => [{term(lower)}, {term(upper)}], tail: p => {term(family.tail(*probes))},\n"
        f"    log: (x, p) => {family.javascript} }}"
    )


def _finite(value: float) -> float | None:
    return None if abs(value) == float("inf") else value


def joined(modules: tuple[str, ...] = MODULES) -> str:
    """The sources as one ES module: links between them dropped, the default export kept."""
    parts = []
    for name in modules:
        source = families_module() if name == "families.js" else (ASSETS / name).read_text("utf-8")
        parts.append(_EXPORT.sub("", _LINK.sub("", source)))
    return "\n".join(parts)


def css() -> str:
    """The component's style: design tokens, then rules."""
    return css_variables(".ppx") + (ASSETS / "explorer.css").read_text("utf-8")


# ---- data: what Python tells the component ----


@dataclass(frozen=True)
class Control:
    """Range of a slider for one number of a prior; `log` sliders move by ratios."""

    min: float
    max: float
    step: float
    log: bool = False


@dataclass(frozen=True)
class Offer:
    """A prior family that can be chosen: where its numbers start, and one slider each."""

    family: str
    numbers: tuple[float, ...]
    controls: tuple[Control, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping for the browser."""
        controls = [asdict(control) for control in self.controls]
        return {"family": self.family, "numbers": list(self.numbers), "controls": controls}


@dataclass(frozen=True)
class PriorEntry:
    """One prior of the panel.

    Parameters
    ----------
    param : str
        Name of the parameter.
    symbol, words : str
        "τ" and "spread of the true effects".
    prior : Prior
        As the study has it.
    offers : tuple of Offer
        Families to choose from.
    unitless : bool
        Whether the parameter carries no unit.
    positive : bool
        Whether the parameter cannot be negative.
    """

    param: str
    symbol: str
    words: str
    prior: Prior
    offers: tuple[Offer, ...]
    unitless: bool = False
    positive: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping for the browser."""
        return {
            "param": self.param,
            "symbol": self.symbol,
            "words": self.words,
            **_prior_value(self.prior),
            "unitless": self.unitless,
            "positive": self.positive,
            "families": [offer.as_dict() for offer in self.offers],
        }


@dataclass(frozen=True)
class PresetEntry:
    """A named choice of priors; `model` is the model it belongs to, if any."""

    id: str
    label: str
    priors: Mapping[str, Prior]
    model: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping for the browser."""
        priors = {name: _prior_value(prior) for name, prior in self.priors.items()}
        return {"id": self.id, "label": self.label, "priors": priors, "model": self.model}


@dataclass(frozen=True)
class FitEntry:
    """Where the study's fit stands.

    Parameters
    ----------
    state : {"none", "queued", "running", "done", "stale", "failed", "cancelled"}
        What the button offers.
    fraction : float
        Share of the draws, from 0 to 1.
    text : str
        The line under the button.
    can_cancel : bool
        Whether Cancel is shown while it is queued or running.
    verdict : {"", "pass", "warn", "fail"}
        Of a finished fit.
    """

    state: str = "none"
    fraction: float = 0.0
    text: str = ""
    can_cancel: bool = True
    verdict: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of numbers asked for from a range: a neutral line, or why it was refused (`error`)."""

    param: str
    text: str
    error: bool = False


@dataclass(frozen=True)
class Live:
    """A number of the story that follows the posterior: the "raw" or "pooled" estimate of a unit."""

    value: Literal["raw", "pooled"]
    unit: str
    style: Literal["plain", "strong", "pooled"] = "strong"
    after: str = ""


@dataclass(frozen=True)
class Spread:
    """The standard deviation that the panel under the forest moves.

    Parameters
    ----------
    param, symbol, spoken : str
        Name of the parameter, its sign, and the sign as it is spoken.
    meaning, words : str
        What it is, and its axis title without unit.
    center, together : str
        What units are pulled to, and where they all are when it is zero.
    """

    param: str = "tau"
    symbol: str = "τ"
    spoken: str = "tau"
    meaning: str = "spread of the true effects (standard deviation)"
    words: str = "spread of the true effects"
    center: str = "pooled mean"
    together: str = "one value for all"


#: Words of the story: plain text, (text, style), or a live number.
Segment = str | tuple[str, str] | Live


@dataclass(frozen=True, eq=False)
class ExplorerData:
    """Everything that the component shows. Texts are data: the browser writes them as text, never as markup.

    Parameters
    ----------
    spec : ModelSpec
        The study's model, with its priors.
    posterior : ExactPosterior or None
        Of `spec`, or of the last priors that had one (then with `message`).
    words : Words
        Names and units.
    priors : tuple of PriorEntry
        In the order of the panel; see `prior_entries`.
    model : str
        Its id: a change of model is a change of picture.
    focus : str
        Label of the selected unit; empty: the first.
    parts : tuple of str
        Among `PARTS`.
    presets, story, fit
        What their parts show.
    group : ndarray (J,) of int, optional
        Group of each unit, an index into `groups`.
    groups : tuple of str
        Names.
    truth : ndarray (J,), optional
        True effects of simulated data.
    message : str
        Why the priors were refused, shown in the prior panel.
    note : str
        Where the default priors' numbers come from, shown at its end.
    serial : int
        A change of it is a fresh start: averaged, nothing pinned, the usual order.
    answer : Answer or None
        To the last range that was asked for; `explorer` keeps it.
    spread : Spread or None
        Words of the spread that the panel moves; None: τ.
    """

    spec: ModelSpec
    posterior: ExactPosterior | None
    words: Words
    priors: tuple[PriorEntry, ...] = ()
    model: str = ""
    focus: str = ""
    parts: tuple[str, ...] = PARTS
    presets: tuple[PresetEntry, ...] = ()
    story: tuple[Segment, ...] = ()
    fit: FitEntry = FitEntry()
    group: np.ndarray | None = None
    groups: tuple[str, ...] = ()
    truth: np.ndarray | None = None
    message: str = ""
    note: str = ""
    serial: int = 0
    answer: Answer | None = None
    spread: Spread | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.parts) - set(PARTS):
            raise InputError(
                "parts of the explorer", "some of " + ", ".join(PARTS), ", ".join(sorted(unknown))
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready mapping, the component's ``data``."""
        structure = self.spec.structure
        said = digits(structure.effect, structure.se)
        posterior = None if self.posterior is None else posterior_value(self.posterior)
        curves = posterior and posterior["curves"]
        return {
            "parts": list(self.parts),
            "units": {
                "label": list(structure.units),
                "effect": structure.effect.tolist(),
                "se": structure.se.tolist(),
                "group": None if self.group is None else np.asarray(self.group, dtype=int).tolist(),
                "groups": list(self.groups),
                "truth": None if self.truth is None else _finite_list(self.truth),
                "digits": said.raw,
                "estimateDigits": said.estimate,
            },
            "words": asdict(self.words),
            "focus": self.focus or structure.units[0],
            "story": [
                asdict(s) if isinstance(s, Live) else list(s) if isinstance(s, tuple) else [s, "plain"]
                for s in self.story
            ],
            "model": {
                "id": self.model,
                "engine": engine_of(self.spec),
                "why_no_tau": why_no_tau(self.spec, curves),
                "why_no_pooling": why_no_pooling(self.spec),
                "complete": complete_value(self.spec),
                "spread": asdict(self.spread or Spread(words=f"spread between {self.words.many}")),
            },
            "priors": [entry.as_dict() for entry in self.priors],
            "presets": [preset.as_dict() for preset in self.presets],
            "posterior": posterior,
            "fit": asdict(self.fit),
            "message": self.message,
            "note": self.note,
            "serial": self.serial,
            "answer": None if self.answer is None else asdict(self.answer),
        }


def engine_of(spec: ModelSpec) -> Literal["browser", "server"]:
    """Where live numbers come from: the browser solves the plain two-level normal model."""
    structure = spec.structure
    plain = (structure.pooling, structure.effects, structure.likelihood, structure.scale) == (
        "partial",
        "normal",
        "normal",
        "identity",
    )
    return (
        "browser"
        if plain and not structure.columns and spec.priors["mu"].family in ("Normal", "Flat")
        else "server"
    )


def why_no_tau(spec: ModelSpec, curves: Mapping[str, Any] | None) -> str:
    """Why the τ panel has nothing to move; empty where it has.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    curves : mapping or None
        The posterior given τ, for models that the browser does not solve.
    """
    match spec.structure.pooling:
        case "complete":
            return "This model holds that all true effects are equal: there is no spread τ to move."
        case "none":
            return "This model pools nothing: there is no spread τ to move."
    if engine_of(spec) == "server" and curves is None:
        return "Given τ, these estimates have no closed form under this model and these priors."
    return ""


def why_no_pooling(spec: ModelSpec) -> str:
    """Why units have no pooling factor though they are pooled; empty where they have."""
    heavy = "student_t" in (spec.structure.effects, spec.structure.likelihood)
    return "heavy tails: no single B" if heavy and spec.structure.pooling == "partial" else ""


def complete_value(spec: ModelSpec) -> float | None:
    """Precision-weighted mean of the effects: complete pooling under a flat prior.

    None with covariates, and where the model itself is that answer.
    """
    structure = spec.structure
    if structure.columns or structure.pooling == "complete":
        return None
    weight = 1 / structure.se**2
    return float(weight @ structure.effect / weight.sum())


#: Quantiles of many units take longer than a rerun should: told once per posterior.
_TOLD: WeakKeyDictionary[ExactPosterior, dict[str, Any]] = WeakKeyDictionary()


def posterior_value(posterior: ExactPosterior) -> dict[str, Any]:
    """An exact posterior as the browser needs it: moments, intervals, weights, and the density of τ.

    The mapping is shared between calls: read-only.
    """
    if posterior not in _TOLD:
        _TOLD[posterior] = _posterior_value(posterior)
    return _TOLD[posterior]


def _posterior_value(posterior: ExactPosterior) -> dict[str, Any]:
    spec, units = posterior.spec, posterior.theta
    server = engine_of(spec) == "server"
    quantiles = posterior.quantiles((0.025, 0.25, 0.75, 0.975, *(_ENDS if server else ())))
    lo95, lo50, hi50, hi95 = quantiles[units, :4].T

    def moments(name: str) -> dict[str, float | None] | None:
        if name not in posterior.names:
            return None
        place = posterior.index(name)
        return {"mean": _finite_or_none(posterior.mean[place]), "sd": _finite_or_none(posterior.sd[place])}

    weights = posterior.weights
    return {
        "priors": {name: _prior_value(prior) for name, prior in spec.priors.items()},
        "mean": _finite_list(posterior.mean[units]),
        "sd": _finite_list(posterior.sd[units]),
        "lo95": _finite_list(lo95),
        "lo50": _finite_list(lo50),
        "hi50": _finite_list(hi50),
        "hi95": _finite_list(hi95),
        "pooling": None if posterior.pooling is None else _finite_list(posterior.pooling),
        "own": None if weights is None else _finite_list(weights.own),
        "others": None if weights is None else _finite_list(weights.others),
        "prior": None if weights is None else _finite_list(weights.prior),
        "mu": moments("mu") if not spec.structure.columns else None,
        "tau": moments("tau"),
        "tau_density": _tau_density(posterior) if "tau" in posterior.names else None,
        "curves": _curves(posterior) if server and "tau" in posterior.names else None,
        "densities": _densities(posterior, quantiles[:, 4:]) if server else None,
        "error": _finite_or_none(posterior.error_absolute),
    }


def _tau_density(posterior: ExactPosterior) -> dict[str, Any]:
    """Densities per unit of u = τ/(τ + c), at midpoints, so that areas are probabilities."""
    c = posterior.spec.structure.typical_se
    u = (np.arange(_GRID) + 0.5) / _GRID
    tau, slope = c * u / (1 - u), c / (1 - u) ** 2
    prior = posterior.spec.priors["tau"]
    return {
        "u": u.tolist(),
        "prior": _finite_list(np.exp(prior.log_density(tau)) * slope) if prior.proper else None,
        "post": _finite_list(posterior.density("tau", tau) * slope),
    }


def _densities(posterior: ExactPosterior, ends: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Posterior densities of the hyperparameters but τ, for the prior panel: one curve per coefficient."""
    out: dict[str, list[dict[str, Any]]] = {}
    for param in posterior.spec.priors:
        curves = []
        if param in ("tau", "theta"):
            continue
        for place, name in enumerate(posterior.names):
            if name == param or name.startswith(f"{param}["):
                x = np.linspace(ends[place, 0], ends[place, 1], _DENSITY_GRID)
                label = name.removeprefix(param)[1:-1]
                density = _finite_list(posterior.density(name, x))
                curves.append({"label": label, "x": x.tolist(), "y": density})
        if curves:
            out[param] = curves
    return out


def _curves(posterior: ExactPosterior) -> dict[str, Any] | None:
    structure = posterior.spec.structure
    u = np.linspace(0, 1, 81 if len(structure.units) <= 100 else 41)
    with np.errstate(divide="ignore"):
        tau = structure.typical_se * u / (1 - u)
    try:
        given = posterior.given_tau(tau)
    except NotImplementedError:
        return None
    return {
        "u": u.tolist(),
        "theta_mean": given.theta_mean.tolist(),
        "theta_sd": given.theta_sd.tolist(),
        "mu_mean": None if structure.columns else _finite_list(given.mu_mean),
    }


# ---- the prior panel ----


def prior_entries(
    spec: ModelSpec,
    families: Mapping[str, Sequence[str]],
    words: Mapping[str, tuple[str, str]],
    *,
    unitless: Sequence[str] = ("nu",),
) -> tuple[PriorEntry, ...]:
    """The panel for a model: one entry per prior, with ranges that follow the spread of the data.

    Parameters
    ----------
    spec : ModelSpec
        Priors and data.
    families : mapping of str to sequence of str
        Offered per parameter; the current family is always among them.
    words : mapping of str to (symbol, words)
        The symbol may be LaTeX.
    unitless : sequence of str
        Parameters that do not carry the outcome's unit.
    """
    spread = data_spread(spec)
    structure = spec.structure
    low = float(min(0.0, np.min(structure.effect)))
    high = float(max(0.0, np.max(structure.effect)))
    entries = []
    for name, prior in spec.priors.items():
        unit = 1.0 if name in unitless else spread
        around = (0.0, 0.0) if name in unitless or name == "beta" else (low, high)
        offered = tuple(dict.fromkeys((*families.get(name, ()), prior.family)))
        symbol, said = words.get(name, (name, name))
        offers = tuple(offer(family, unit, around, name in structure.positive) for family in offered)
        sign = _SYMBOLS.get(symbol.lstrip("\\"), symbol)
        positive = name in structure.positive
        entries.append(PriorEntry(name, sign, said, prior, offers, name in unitless, positive))
    return tuple(entries)


def data_spread(spec: ModelSpec) -> float:
    """A round number near the scale of the data: what a prior's defaults are multiplied with."""
    structure = spec.structure
    quartiles = np.subtract(*np.percentile(structure.effect, [75, 25])) / 1.349
    return nice(max(structure.typical_se, float(quartiles)) * 0.95)


def offer(
    family: str, spread: float, around: tuple[float, float] = (0.0, 0.0), positive: bool = False
) -> Offer:
    """A family with its defaults and sliders for an outcome of this spread.

    Locations reach past `around`; on a positive parameter they start at zero.
    """
    declared = FAMILIES[family].numbers
    numbers = tuple(float(f"{number.scaled(number.default, spread):.4g}") for number in declared)
    return Offer(family, numbers, tuple(control(number, spread, around, positive) for number in declared))


def control(
    number: Number, spread: float, around: tuple[float, float] = (0.0, 0.0), positive: bool = False
) -> Control:
    """A slider's range for one number of a family."""
    start = number.scaled(number.default, spread)
    if number.scaling == "inverse":
        return Control(nice(start / 50), nice(start * 50), 0.0, log=True)
    if number.lower == 0:
        top = 5 * (nice(start) if number.scaling == "none" else start)
        return Control(top / 100, top, top / 100)
    step, reach = (
        (0.05, 3.0) if number.scaling == "log" else (nice(spread / 10), max(3 * spread, 2 * abs(start)))
    )
    low, high = (start, start) if number.scaling == "log" else around
    least = 0.0 if positive and number.scaling != "log" else step * float(np.floor((low - reach) / step))
    return Control(least, step * float(np.ceil((high + reach) / step)), step)


def nice(value: float) -> float:
    """1, 2 or 5 times a power of ten, near `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    lead = value / power
    return float(f"{(1 if lead < 1.5 else 2 if lead < 3.5 else 5 if lead < 7.5 else 10) * power:.6g}")


_SYMBOLS = {
    "mu": "μ",
    "tau": "τ",
    "beta": "β",
    "nu": "ν",
    "theta": "θ",
    "theta_i": "θ",
    "sigma": "σ",
    "alpha": "α",
    "phi": "φ",
}


def _prior_value(prior: Prior) -> dict[str, Any]:
    return {"family": prior.family, "numbers": list(prior.numbers)}


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _finite_list(values: np.ndarray) -> list[float | None]:
    return [_finite_or_none(value) for value in np.asarray(values, dtype=float)]


# ---- on the page: what the component tells Python ----


@dataclass(frozen=True)
class Elicitation:
    """What a person knows of a parameter: `mass` of its prior lies between `low` and `high`."""

    param: str
    family: str
    low: float
    high: float
    mass: float


@dataclass(frozen=True)
class Actions:
    """What happens when the hand acts; each is called in a Streamlit callback, before the next run.

    Parameters
    ----------
    unit : callable
        ``(label)``: a unit was selected.
    priors : callable
        ``({name: Prior})``: the priors came to rest.
    refused : callable
        ``(InputError)``: what the hand sent cannot be a prior.
    preset : callable
        ``(id)``: a preset was chosen.
    elicit : callable
        ``(Elicitation) -> str``: numbers from a range are asked for; returns what is to be said about them,
        or raises InputError.
    fit, cancel : callable
        The button and its link.
    """

    unit: Callable[[str], object] = lambda label: None
    priors: Callable[[dict[str, Prior]], object] = lambda priors: None
    refused: Callable[[InputError], object] = lambda error: None
    preset: Callable[[str], object] = lambda id: None
    elicit: Callable[[Elicitation], str] = lambda elicitation: ""
    fit: Callable[[], object] = lambda: None
    cancel: Callable[[], object] = lambda: None


def explorer(data: ExplorerData, actions: Actions | None = None, key: str = "explorer") -> None:
    """Draw the explorer.

    Parameters
    ----------
    data : ExplorerData
        What it shows.
    actions : Actions, optional
        What happens when the hand acts.
    key : str
        Identity of this instance on the page.
    """
    acts = actions or Actions()

    def said(event: str) -> Any:
        return getattr(st.session_state.get(key), event, None)

    def on_unit() -> None:
        if isinstance(value := said("unit"), Mapping) and isinstance(value.get("value"), str):
            acts.unit(value["value"])

    def on_priors() -> None:
        if isinstance(value := said("priors"), Mapping):
            try:
                priors = read_priors(value.get("value"))
            except InputError as error:
                acts.refused(error)
            else:
                acts.priors(priors)

    def on_preset() -> None:
        if isinstance(value := said("preset"), Mapping):
            acts.preset(str(value.get("id")))

    def on_elicit() -> None:
        if isinstance(value := said("elicit"), Mapping):
            try:
                asked = Elicitation(
                    str(value["param"]),
                    str(value["family"]),
                    float(value["low"]),
                    float(value["high"]),
                    float(value["mass"]),
                )
            except (KeyError, TypeError, ValueError):
                acts.refused(InputError("range of a prior", "two numbers", value))
                return
            try:
                answer = Answer(asked.param, acts.elicit(asked))
            except InputError as error:
                answer = Answer(asked.param, str(error), error=True)
            st.session_state[f"{key}_answer"] = (answer, None)

    _component()(
        data=replace(data, answer=data.answer or _answer(data, f"{key}_answer")).as_dict(),
        key=key,
        on_unit_change=on_unit,
        on_priors_change=on_priors,
        on_preset_change=on_preset,
        on_elicit_change=on_elicit,
        on_fit_change=lambda: acts.fit() if said("fit") else None,
        on_cancel_change=lambda: acts.cancel() if said("cancel") else None,
    )


def _answer(data: ExplorerData, kept: str) -> Answer | None:
    """The answer that was kept, for as long as the prior stays what it is about."""
    answer, about = st.session_state.get(kept, (None, None))
    if answer is None:
        return None
    now = (data.serial, data.model, data.spec.structure.units, data.spec.priors.get(answer.param))
    if about is None:
        st.session_state[kept] = (answer, now)
    elif about != now:
        del st.session_state[kept]
        return None
    return answer


def read_priors(value: Any) -> dict[str, Prior]:
    """Priors from what the browser sent; InputError for anything else."""
    try:
        return {
            str(name): Prior(str(given["family"]), tuple(float(v) for v in given["numbers"]))
            for name, given in value.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError("priors", "a family and its numbers per parameter", value) from error


@cache
def _component() -> Any:
    return st.components.v2.component("explorer", html='<div class="ppx"></div>', css=css(), js=joined())
