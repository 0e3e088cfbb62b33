"""Time courses beside their curves: readings, bands of new readings from a fit's draws, one draw's curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from hbm_core.inference.recipes.circuits import new_readings
from hbm_core.inference.reweighted import Curves, ReweightedPosterior
from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.structure import ModelSpec

#: Quantiles of the bands, by column.
BANDS: Mapping[str, float] = {
    "low95": 0.025,
    "low90": 0.05,
    "low50": 0.25,
    "middle": 0.5,
    "high50": 0.75,
    "high90": 0.95,
    "high95": 0.975,
}
_SEED, _Z95 = 20, 1.959963984540054
#: New readings by the fit's curves, as long as these live: priors only weight them anew.
_READINGS: WeakKeyDictionary[Curves, tuple[np.ndarray, np.ndarray, np.ndarray]] = WeakKeyDictionary()


def readings(structure: CircuitPopulation) -> pd.DataFrame:
    """Readings as the model has them: columns circuit, condition, course, time_min, value."""
    labels = {name: values[structure.point] for name, values in structure.point_labels.items()}
    return pd.DataFrame({**labels, "course": structure.course, "value": structure.value})


def curve_table(structure: CircuitPopulation, curve: np.ndarray) -> pd.DataFrame:
    """Curves at all points, in the readings' unit: columns circuit, condition, time_min, value."""
    return pd.DataFrame({**structure.point_labels, "value": curve})


def bands(posterior: ReweightedPosterior) -> pd.DataFrame:
    """What a new course of readings would be, by circuit, condition and time.

    Each kept draw makes one new course with a gain and noise of its own; quantiles are over draws by their
    weights under the study's priors.

    Returns
    -------
    DataFrame
        circuit, condition, time_min, then the columns of ``BANDS``.
    """
    found = posterior.curves
    if found not in _READINGS:
        made = _new_readings(posterior, found)
        order = np.argsort(made, axis=0)
        _READINGS[found] = np.take_along_axis(made, order, axis=0), order, _places(posterior, found)
    values, order, places = _READINGS[found]
    weight = np.where(places >= 0, posterior.weight[places], 0.0)[order]
    total = np.cumsum(weight, axis=0)
    middle = (total - weight / 2) / total[-1]
    table = pd.DataFrame(dict(found.labels))
    quantiles = np.array(
        [np.interp(list(BANDS.values()), m, v) for m, v in zip(middle.T, values.T, strict=True)]
    )
    return table.assign(**dict(zip(BANDS, quantiles.T, strict=True)))


def draw_table(posterior: ReweightedPosterior, turn: int) -> pd.DataFrame:
    """One draw's curves without noise, one of weight: columns circuit, condition, time_min, value."""
    found = posterior.curves
    places = _places(posterior, found)
    weight = np.where(places >= 0, posterior.weight[places], 0.0)
    total = np.cumsum(weight)
    # Golden steps: turn after turn falls between those before.
    at = (0.5 + turn * 0.6180339887498949) % 1
    sample = int(np.searchsorted(total, at * total[-1]))
    curve = _read(posterior, sample, np.asarray(found.curve[sample], dtype=float))
    return curve_table(posterior.spec.structure, curve)  # type: ignore[arg-type]


def coverage(posterior: ReweightedPosterior, table: pd.DataFrame) -> pd.DataFrame:
    """Share of the readings inside the bands, by circuit.

    Returns
    -------
    DataFrame
        circuit, readings, inside50, inside90, inside95 (shares); the last row is all of them.
    """
    structure: Any = posterior.spec.structure
    at = table.iloc[structure.point].reset_index(drop=True)
    value = structure.value
    inside = pd.DataFrame(
        {
            f"inside{level}": (at[f"low{level}"].to_numpy() <= value)
            & (value <= at[f"high{level}"].to_numpy())
            for level in (50, 90, 95)
        }
    )
    names = list(inside)
    rows = [
        (str(circuit), len(own), *own[names].mean())
        for circuit, own in [*inside.groupby(at["circuit"], sort=True), ("all", inside)]
    ]
    return pd.DataFrame(rows, columns=["circuit", "readings", *names])


def means(spec: ModelSpec[Any], posterior: ReweightedPosterior) -> pd.DataFrame:
    """Means over circuits before and after the data, in decades from the prior's median.

    Returns
    -------
    DataFrame
        parameter, center (log10 of the prior's median), prior_low95, prior_high95, then the columns of
        ``BANDS``; a row per mean that the posterior knows.
    """
    rows = []
    for name in spec.structure.inferred:
        flat = f"alpha[{name}]"
        if flat not in posterior.names:
            continue
        center, sd = spec.priors[flat].numbers
        at = np.array([posterior.index(flat)])
        found = posterior.some_quantiles(list(BANDS.values()), at)[0] - center
        rows.append((name, center, -_Z95 * sd, _Z95 * sd, *found))
    return pd.DataFrame(rows, columns=["parameter", "center", "prior_low95", "prior_high95", *BANDS])


def by_dose(structure: CircuitPopulation, circuit: str) -> Sequence[str]:
    """A circuit's conditions in the order of what differs between them."""
    place = structure.units.index(circuit)
    experiment, labels = structure.experiments[place], structure.conditions[place]
    names = experiment.mechanism.inputs
    doses = [tuple(float(given.get(name, 0.0)) for name in names) for given in experiment.conditions]
    return [label for _, label in sorted(zip(doses, labels, strict=True))]


def _places(posterior: ReweightedPosterior, found: Curves) -> np.ndarray:
    """Place of each kept curve among the weighted draws; −1 where that draw was thinned away."""
    chain, draw = found.chain, found.draw
    each = posterior.draws_used // posterior.chains
    kept = (draw % posterior.step == 0) & (draw // posterior.step < each)
    return np.where(kept, chain * each + draw // posterior.step, -1)


def _parameters(posterior: ReweightedPosterior, sample: int) -> dict[str, float]:
    """Scalars of the noise and the calibration at a kept curve's draw."""
    place = max(int(_places(posterior, posterior.curves)[sample]), 0)
    names = ("noise", "exponent", "gain", "slope", "offset")
    variables = posterior.variables
    return {name: float(variables[name][place]) for name in names if name in variables}


def _read(posterior: ReweightedPosterior, sample: int, amount: np.ndarray) -> np.ndarray:
    """Amounts as they would be read: through the calibration, where it is fitted."""
    at = _parameters(posterior, sample)
    return amount * at["slope"] + at["offset"] if "slope" in at else amount


def _new_readings(posterior: ReweightedPosterior, found: Curves) -> np.ndarray:
    spec: Any = posterior.spec
    rng = np.random.default_rng(_SEED)
    curve = found.curve.astype(float)
    labels = pd.MultiIndex.from_arrays([found.labels["circuit"], found.labels["condition"]])
    condition = labels.factorize()[0]
    made = np.empty_like(curve)
    for sample, f in enumerate(curve):
        at = _parameters(posterior, sample)
        value = new_readings(spec, at, f, condition, rng)
        made[sample] = value * at["slope"] + at["offset"] if "slope" in at else value
    return made
