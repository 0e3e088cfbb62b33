"""What to change where a fit's computation warns: each warning has remedies, each a change and a new fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior

#: What helps against which check of the computation, the likeliest first.
HELPS: Mapping[str, tuple[str, ...]] = {
    "divergences": ("geometry", "target", "prior"),
    "bfmi": ("geometry", "prior", "longer"),
    "r_hat": ("geometry", "longer", "prior"),
    "ess_bulk": ("longer", "geometry"),
    "ess_tail": ("longer", "geometry"),
}
#: Geometries that seldom fail where another did, the best first.
_SAFE = ("noncentered", "collapsed", "partial", "centered", "scaled")
#: Steps of the acceptance target, and the longest a remedy makes a run.
_TARGETS, _MOST = (0.95, 0.99, 0.999), 20_000


@dataclass(frozen=True)
class Remedy:
    """One change that may mend a fit.

    Parameters
    ----------
    id : {"geometry", "target", "longer", "prior"}
        Its kind.
    label : str
        What a button says.
    parameterization : str, optional
        The other geometry.
    sampler : Sampler, optional
        The other settings.
    priors : mapping of str to Prior
        Stronger priors.
    """

    id: str
    label: str
    parameterization: str | None = None
    sampler: Sampler | None = None
    priors: Mapping[str, Prior] = field(default_factory=dict)


def remedies(
    warnings: Sequence[str],
    parameterization: str,
    geometries: Sequence[str],
    sampler: Sampler,
    stronger: tuple[str, Mapping[str, Prior]] | None = None,
) -> tuple[Remedy, ...]:
    """Remedies for the checks that warn or fail, each kind once, the likeliest first.

    Parameters
    ----------
    warnings : sequence of str
        Codes of checks of `hbm_core.analysis.checks`; others have no remedy here.
    parameterization : str
        Of the fit.
    geometries : sequence of str
        Those that the model has.
    sampler : Sampler
        Settings of the fit.
    stronger : (str, mapping), optional
        Name and priors of a more sceptical preset.
    """
    wanted: list[str] = []
    for code in HELPS:
        if code in warnings:
            wanted += [kind for kind in HELPS[code] if kind not in wanted]
    found = []
    for kind in wanted:
        made = _made(kind, parameterization, geometries, sampler, stronger)
        if made is not None:
            found.append(made)
    return tuple(found)


def _made(
    kind: str,
    parameterization: str,
    geometries: Sequence[str],
    sampler: Sampler,
    stronger: tuple[str, Mapping[str, Prior]] | None,
) -> Remedy | None:
    if kind == "geometry":
        other = next((name for name in _SAFE if name in geometries and name != parameterization), None)
        return None if other is None else Remedy(kind, f"Fit {other} instead", parameterization=other)
    if kind == "target":
        higher = next((value for value in _TARGETS if value > sampler.target_accept + 1e-9), None)
        if higher is None:
            return None
        return Remedy(
            kind, f"Fit with target acceptance {higher:g}", sampler=replace(sampler, target_accept=higher)
        )
    if kind == "longer":
        draws, tune = min(_MOST, 2 * sampler.draws), min(_MOST, 2 * sampler.tune)
        if (draws, tune) == (sampler.draws, sampler.tune):
            return None
        label = f"Fit {draws:,} draws after {tune:,} of warm-up"
        return Remedy(kind, label, sampler=replace(sampler, draws=draws, tune=tune))
    if stronger is None:
        return None
    name, priors = stronger
    return Remedy(kind, f"Fit with stronger priors: {name}", priors=priors)
