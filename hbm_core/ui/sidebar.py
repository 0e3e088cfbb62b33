"""The sidebar: it edits the study and shows where its fit stands."""

from __future__ import annotations

from collections.abc import Container, Mapping

import streamlit as st

from hbm_core.inference.sampler import LEAST_TARGET, LIMITS
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.scenarios import scenarios
from hbm_core.store.study import SIMULATED, Study
from hbm_core.ui import fits, session, simulator
from hbm_core.ui.copy_link import copy_link


def draw(study: Study) -> None:
    """Scenario, data set, model, fit state, link and reset."""
    found = find_scenario(study.scenario)
    _choice("Scenario", "scenario", {id: item.title for id, item in scenarios().items()}, study.scenario)
    datasets = {**found.datasets, SIMULATED: "Simulated, with known truth"}
    datasets |= session.own_uploads(study.scenario)
    datasets.setdefault(study.dataset, "Your data")
    _choice("Data set", "dataset", datasets, study.dataset)
    if study.dataset == SIMULATED:
        with st.expander("Simulator", expanded=False):
            simulator.knobs(study)
    models = {id: id.replace("_", " ") for id in _applicable(study)}
    models[study.model] = fits.title_of(study)
    _choice("Model", "model", models, study.model, help=study.declared.summary + _others(study, models))
    st.caption(study.declared.label)
    _options(study)
    with st.expander("Sampler settings"):
        geometries = {name: name for name in study.declared.parameterizations}
        _choice("Parameterization", "parameterization", geometries, study.parameterization)
        _choice("Engine", "engine", _engines(study), study.engine, help=_ENGINE_HELP)
        _sampler(study)
    fits.panel(study)
    left, right = st.columns(2)
    with left:
        copy_link()
    right.button("Reset", on_click=session.reset, width="stretch")


def _applicable(study: Study) -> tuple[str, ...]:
    """Models that can be built for the study's data: `covariates` needs a moderator."""
    dataset = study.data(session.uploads)
    found = _buildable(study.scenario, dataset.digest, study.covariates, study, dataset)
    return tuple(id for id in find_scenario(study.scenario).models if id in found or id == study.model)


def _others(study: Study, offered: Container[str]) -> str:
    """What the models need that are not offered for these data; empty where there are none."""
    every = find_scenario(study.scenario).models.values()
    missing = [f"{one.id} needs {one.needs}" for one in every if one.needs and one.id not in offered]
    return f" Not for these data: {'; '.join(missing)}." if missing else ""


@st.cache_resource(max_entries=256, show_spinner=False)
def _buildable(
    scenario: str, data: str, covariates: tuple[str, ...], _study: Study, _dataset: Dataset
) -> frozenset[str]:
    found = set()
    for id in find_scenario(scenario).models:
        try:
            _study.change(model=id).spec(_dataset)
        except ValueError:
            continue
        found.add(id)
    return frozenset(found)


def _choice(label: str, field: str, options: dict[str, str], current: str, help: str | None = None) -> None:
    """Show a select box that always shows the study's value and changes the study when touched."""
    key = f"choose_{field}"
    st.session_state[key] = current

    def changed() -> None:
        session.change(**{field: st.session_state[key]})

    st.selectbox(
        label, list(options), format_func=lambda id: options[id], key=key, on_change=changed, help=help
    )


def _options(study: Study) -> None:
    """Show what else the model asks for: moderators, and constants that are not priors."""
    dataset, found = study.data(session.uploads), find_scenario(study.scenario)
    spec = study.spec(dataset)
    if study.declared.covariates:
        names = list(found.covariates(dataset))
        st.session_state["choose_covariates"] = list(spec.structure.columns)

        def chosen() -> None:
            session.change(covariates=tuple(st.session_state["choose_covariates"]))

        st.multiselect("Covariates", names, key="choose_covariates", on_change=chosen)
    _roles(study, spec.constants)
    for name, value in spec.constants.items():
        if name.startswith(_ROLE):
            continue
        key = f"constant_{name}"
        st.session_state[key] = float(value)

        def changed(name: str = name, key: str = key) -> None:
            session.change(constants={**session.study().constants, name: st.session_state[key]})

        lower, step = 1e-9 * value, float(f"{value / 10:.1g}")
        label, words = study.declared.constant_words.get(name, (name.capitalize(), ""))
        st.number_input(
            label,
            min_value=lower,
            step=step,
            key=key,
            on_change=changed,
            format="%g",
            help=words or None,
        )


#: Constants of this name say what a model does with a parameter: by number, as in `ROLE_WORDS`.
_ROLE = "role["
ROLE_WORDS = ("differs between units", "The same in all", "Fixed at the prior median")


def _roles(study: Study, constants: Mapping[str, float]) -> None:
    """Show which parameters are the same in all units, and which are not inferred at all."""
    roles = {name: int(value) for name, value in constants.items() if name.startswith(_ROLE)}
    if not roles:
        return
    own = {name.removeprefix(_ROLE).removesuffix("]"): role for name, role in roles.items()}

    def changed(role: int, key: str) -> None:
        chosen = set(st.session_state[key])
        now = {name: role if name in chosen else (0 if was == role else was) for name, was in own.items()}
        kept = {name: value for name, value in study.constants.items() if not name.startswith(_ROLE)}
        priors = {
            name: prior
            for name, prior in study.priors.items()
            if now.get(name[6:-1], 0) != 2 or "[" not in name
        }
        default = study.declared.constants(study.data(session.uploads))
        kept |= {
            f"{_ROLE}{name}]": float(value)
            for name, value in now.items()
            if value != default[f"{_ROLE}{name}]"]
        }
        session.change(constants=kept, priors=priors)

    with st.expander("Roles of rate constants"):
        st.caption(f"Whatever is not listed here {ROLE_WORDS[0]} and is inferred.")
        for role in (1, 2):
            key = f"choose_role_{role}"
            st.session_state[key] = [name for name, now in own.items() if now == role]
            st.multiselect(ROLE_WORDS[role], list(own), key=key, on_change=changed, args=(role, key))


_ENGINE_HELP = (
    "NUTS follows gradients. Blocked sampling of circuits takes turns between the circuits and their "
    "covariance, which is much quicker. Parallel tempering also walks from the prior to the posterior and "
    "back: for several modes, and for the log evidence; it needs proper priors. The normal approximation is "
    "quick and biased, and says by how much."
)


def _engines(study: Study) -> dict[str, str]:
    """Engines to choose from; exact draws only where the study asks for them already."""
    blocked = study.declared.usual_engine(study.parameterization) == "blocked"
    offered = {
        **({"blocked": "Blocked sampling"} if blocked else {}),
        "nuts": "NUTS",
        "tempering": "Parallel tempering",
        "variational": "Normal approximation",
    }
    return offered | ({"exact": "Exact draws"} if study.engine == "exact" else {})


def _sampler(study: Study) -> None:
    tempered = study.engine == "tempering"
    one = "replica" if tempered else "chain"
    fields = {
        "draws": (f"Draws per {one}", 10, 200_000, 500),
        "tune": (f"Warm-up draws per {one}", 10, 100_000, 500),
        "chains": (f"{one.capitalize()}s", 1, 32, 1),
        "target_accept": (
            "Target acceptance" + (" of the random walk" if tempered else ""),
            LIMITS["target_accept"][0] if tempered else LEAST_TARGET,
            0.999,
            0.01,
        ),
        "seed": ("Seed", 0, 2**32 - 1, 1),
    }
    if tempered:
        fields["temperatures"] = ("Temperatures", *LIMITS["temperatures"], 1)
    for name, (label, lower, upper, step) in fields.items():
        key = f"sampler_{name}"
        st.session_state[key] = getattr(study.sampler, name)

        def changed(name: str = name, key: str = key) -> None:
            session.change_sampler(**{name: st.session_state[key]})

        st.number_input(label, lower, upper, step=step, key=key, on_change=changed)
