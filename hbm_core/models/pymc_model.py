"""PyMC models of every structure and parameterization, with all numbers as data.

Priors' numbers, constants, weights and observations are ``pm.Data``: what has been compiled for one
`structure_key` serves every model with that key.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from hbm_core.errors import InputError
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

if TYPE_CHECKING:
    import pymc as pm

#: λ_i stays this far from 0 and 1: a moment estimate of τ on its boundary says little about τ.
SHARE_MARGIN = 0.05
_CONSTANTS = ("threshold", "spread", "slope")


def structure_key(spec: ModelSpec) -> Hashable:
    """What decides the compiled code: kinds, families, geometry and sizes of what is sampled; no numbers.

    The count of units is part of it only where the sampler moves the units' effects; under the collapsed
    geometry and complete pooling one compiled model serves any count.
    """
    structure = spec.structure
    return (
        type(structure).__name__,
        structure.pooling,
        structure.effects,
        structure.likelihood,
        structure.scale,
        spec.parameterization,
        tuple((name, prior.family) for name, prior in spec.priors.items()),
        len(structure.columns),
        structure.effect.size if samples_effects(spec) else None,
    )


def samples_effects(spec: ModelSpec) -> bool:
    """Whether the units' effects are among what the sampler moves."""
    return spec.structure.pooling != "complete" and spec.parameterization != "collapsed"


def moment_tau(structure: TwoLevelNormal) -> float:
    """DerSimonian and Laird's moment estimate of τ, covariates included; 0 on its boundary.

    References
    ----------
    DerSimonian and Laird (1986), Controlled Clinical Trials 7, equation 8; with covariates
    Thompson and Sharp (1999), Statistics in Medicine 18, section 3.
    """
    x = np.column_stack([np.ones(structure.effect.size), structure.design])
    if len(x) <= x.shape[1]:
        return 0.0
    root = 1 / structure.se
    basis, _ = np.linalg.qr(x * root[:, None])
    scaled = structure.effect * root
    residual = scaled - basis @ (basis.T @ scaled)
    trace = float(np.sum(root**2) - np.sum((basis * root[:, None]) ** 2))
    with np.errstate(over="ignore"):
        excess = residual @ residual - (len(x) - x.shape[1])
    return float(np.sqrt(max(0.0, excess / trace)))


def data_share(structure: TwoLevelNormal) -> np.ndarray:
    """λ_i: the data's share of θ_i's posterior precision at the moment estimate of τ, ndarray (J,).

    τ²/(τ² + s_i²), kept off 0 and 1 by ``SHARE_MARGIN``.

    References
    ----------
    Papaspiliopoulos, Roberts and Sköld (2007), Statistical Science 22, section 3.3.
    """
    tau = moment_tau(structure)
    share = 1 / (1 + (structure.se / tau) ** 2) if tau > 0 else np.zeros(structure.se.size)
    return np.clip(share, SHARE_MARGIN, 1 - SHARE_MARGIN)


def data_values(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Every ``pm.Data`` of the model with its value, by name."""
    structure = spec.structure
    values = {"effect": structure.effect, "se": structure.se}
    if structure.columns:
        values["design"] = structure.design
    for name, prior in spec.priors.items():
        if prior.numbers:
            values[f"prior_{name}"] = np.array(prior.numbers)
    if structure.pooling == "partial" and structure.scale == "adaptive":
        values |= {name: np.array(float(spec.constants[name])) for name in _CONSTANTS}
    if spec.parameterization == "partial":
        values["share"] = data_share(structure)
    return values


def build(spec: ModelSpec) -> pm.Model:
    """The model in PyMC.

    Variables: ``mu``, ``tau``, ``beta`` (column), ``nu``; ``tau_star`` of the `adaptive` scale; ``theta``
    (unit) unless it is integrated out or all of it is the mean; and what the sampler moves instead of it:
    ``eta`` (non-centered) or ``theta_tilde`` (partial).

    Parameters
    ----------
    spec : ModelSpec
        The model.

    Returns
    -------
    pymc.Model
        With coordinates ``unit`` and, with covariates, ``column``.

    Raises
    ------
    InputError
        A Student t likelihood without pooling, which has no ν.
    """
    import pymc as pm
    import pytensor.tensor as pt

    structure = spec.structure
    student_likelihood = structure.likelihood == "student_t"
    if structure.pooling == "none" and student_likelihood:
        raise InputError("model without pooling", "a normal likelihood", "student_t")

    coords: dict[str, Any] = {"unit": list(structure.units)}
    if structure.columns:
        coords["column"] = list(structure.columns)
    dims = {"effect": "unit", "se": "unit", "share": "unit", "design": ("unit", "column")}
    with pm.Model(coords=coords) as model:
        data = {name: pm.Data(name, value, dims=dims.get(name)) for name, value in data_values(spec).items()}

        def variable(name: str, **kwargs: Any) -> Any:
            positive = name in structure.positive
            return random_variable(name, spec.priors[name], data.get(f"prior_{name}"), positive, **kwargs)

        def observe(mean: Any, sd: Any) -> None:
            kwargs: dict[str, Any] = {"mu": mean, "sigma": sd, "observed": data["effect"], "dims": "unit"}
            if student_likelihood:
                pm.StudentT("y", nu=drawn["nu"], **kwargs)
            else:
                pm.Normal("y", **kwargs)

        if structure.pooling == "none":
            observe(variable("theta", dims="unit"), data["se"])
            return model

        drawn = {
            name: variable(name, dims="column" if name == "beta" else None) for name in structure.parameters
        }
        mean = drawn["mu"]
        if structure.columns:
            mean = mean + data["design"] @ drawn["beta"]
        if structure.pooling == "complete":
            observe(mean, data["se"])
            return model

        tau = drawn["tau"]
        if structure.scale == "adaptive":
            weight = pm.math.sigmoid(data["slope"] * (tau - data["threshold"]))
            blend = weight * tau + (1 - weight) * data["spread"] * tau / data["threshold"]
            tau = pm.Deterministic("tau_star", blend)
        if spec.parameterization == "collapsed":
            observe(mean, pt.sqrt(data["se"] ** 2 + tau**2))
            return model

        def effects(name: str, location: Any, scale: Any) -> Any:
            if structure.effects == "student_t":
                return pm.StudentT(name, nu=drawn["nu"], mu=location, sigma=scale, dims="unit")
            return pm.Normal(name, mu=location, sigma=scale, dims="unit")

        match spec.parameterization:
            case "centered":
                theta = effects("theta", mean, tau)
            case "noncentered":
                theta = pm.Deterministic("theta", mean + tau * effects("eta", 0.0, 1.0), dims="unit")
            case _:
                share = data["share"]
                tilde = effects("theta_tilde", share * mean, tau**share)
                theta = pm.Deterministic(
                    "theta", mean + tau ** (1 - share) * (tilde - share * mean), dims="unit"
                )
        observe(theta, data["se"])
    return model


def random_variable(name: str, prior: Prior, numbers: Any, positive: bool, **kwargs: Any) -> Any:
    """A PyMC variable of `prior`'s family whose numbers are read from the data vector `numbers`.

    To be called within a model; a flat prior on a positive parameter is flat on the positive half.
    """
    family, arguments = _declared(prior, numbers, positive)
    return family(name, **arguments, **kwargs)


def log_density(prior: Prior, numbers: Any, positive: bool, value: Any) -> Any:
    """Log density of `random_variable` at `value`, elementwise, without a variable of the model."""
    import pymc as pm

    family, arguments = _declared(prior, numbers, positive)
    return pm.logp(family.dist(**arguments), value)


def _declared(prior: Prior, numbers: Any, positive: bool) -> tuple[Any, dict[str, Any]]:
    import pymc as pm

    family = "HalfFlat" if positive and not prior.proper else prior.family
    return getattr(pm, family), {n.name: numbers[place] for place, n in enumerate(prior.declared.numbers)}
