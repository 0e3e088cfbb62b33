"""What time courses say before any model: sizes, finals, ON over OFF, noise against mean, gains."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_core.models.dataset import Dataset
from hbm_core.models.kinetics.catalogue import MECHANISMS
from hbm_core.scenarios.circuits.data import PLASMID, STANDARD

Row = tuple[str, str, float, str]


def courses(dataset: Dataset) -> pd.DataFrame:
    """Readings without standards, in the column ``value`` whatever they are called in the data."""
    table = dataset.table[dataset.table["circuit"] != STANDARD]
    name = "fluorescence" if "fluorescence" in table else "gfp_nM"
    return table.rename(columns={name: "value"}).reset_index(drop=True)


def finals(dataset: Dataset) -> pd.DataFrame:
    """Mean last reading per circuit and condition: columns circuit, condition, dose, final, replicates.

    ``dose`` is the amount of the plasmid that differs between the conditions of a circuit (the first one, if
    several do); 0 where none does.
    """
    table = courses(dataset)
    rows = []
    for circuit, own in table.groupby("circuit", sort=True):
        doses = [PLASMID + name for name in MECHANISMS[own["mechanism"].iloc[0]].inputs]
        varied = [column for column in doses if own[column].nunique() > 1]
        for condition, part in own.groupby("condition", sort=False):
            last = part[part["time_min"] == part["time_min"].max()]
            dose = float(part[varied[0]].iloc[0]) if varied else 0.0
            rows.append((circuit, condition, dose, float(last["value"].mean()), part["replicate"].nunique()))
    found = pd.DataFrame(rows, columns=["circuit", "condition", "dose", "final", "replicates"])
    return found.sort_values(["circuit", "dose"], kind="stable").reset_index(drop=True)


def noise(dataset: Dataset) -> pd.DataFrame:
    """Mean and variance among replicates at each circuit, condition and time, of two replicates and more."""
    table = courses(dataset)
    grouped = table.groupby(["circuit", "condition", "time_min"], sort=True)["value"]
    found = grouped.agg(["mean", "var", "count"]).reset_index()
    return found[found["count"] > 1].reset_index(drop=True)


def autocorrelation(dataset: Dataset) -> float:
    """Correlation of a replicate's distance from its condition's mean with the one at the next time.

    NaN where no condition has two replicates.
    """
    table = courses(dataset)
    keys = ["circuit", "condition", "time_min"]
    grouped = table.groupby(keys)["value"]
    gap, mean = table["value"] - grouped.transform("mean"), grouped.transform("mean").abs()
    table = table.assign(gap=np.where(grouped.transform("size") > 1, gap / mean.where(mean > 0), np.nan))
    wide = table.pivot_table(index=["circuit", "condition", "replicate"], columns="time_min", values="gap")
    now, later = wide.to_numpy()[:, :-1].ravel(), wide.to_numpy()[:, 1:].ravel()
    both = np.isfinite(now) & np.isfinite(later)
    if both.sum() < 3:
        return float("nan")
    return float(np.sum(now[both] * later[both]) / np.sqrt(np.sum(now[both] ** 2) * np.sum(later[both] ** 2)))


def first_look(dataset: Dataset) -> pd.DataFrame:
    """Sizes, finals, dynamic range, noise and the truth of what all circuits share.

    Returns
    -------
    pandas.DataFrame
        quantity (key), label (words), value (float), note.
    """
    table, unit = courses(dataset), dataset.words.unit
    last, spread = finals(dataset), noise(dataset)
    replicates = last["replicates"]
    rows: list[Row] = [
        ("circuits", "Number of circuits", table["circuit"].nunique(), ""),
        ("conditions", "Number of conditions", len(last), ""),
        (
            "replicates",
            "Replicates per condition, median",
            float(replicates.median()),
            f"from {replicates.min()} to {replicates.max()}",
        ),
        ("readings", "Number of readings", len(table), ""),
    ]
    standards = int((dataset.table["circuit"] == STANDARD).sum())
    if standards:
        rows.append(("standards", "Standards of the calibration", standards, "slope and offset are fitted"))
    for circuit, own in last.groupby("circuit", sort=True):
        low, high = own["final"].iloc[0], own["final"].max()
        note = f"{unit}; {own['condition'].iloc[int(np.argmax(own['final']))]}"
        rows.append((f"final[{circuit}]", f"Highest final of {circuit}", high, note))
        if len(own) > 1:
            ratio = float(high / low) if low > 0 else float("nan")
            note = f"against {own['condition'].iloc[0]}"
            if np.isfinite(ratio) and own["dose"].iloc[0] == 0:
                rows.append((f"range[{circuit}]", f"ON over OFF of {circuit}", ratio, note))
    if len(spread):
        share = spread["var"] / spread["mean"].where(spread["mean"] > 0)
        middle = share.groupby([spread["circuit"], spread["condition"]]).median().dropna()
        rows.append(
            (
                "variance_to_mean",
                "Variance among replicates over mean, median",
                float(middle.median()),
                f"{unit}; from {middle.min():.2g} to {middle.max():.2g} by condition: one number if the "
                "variance grew with the mean",
            )
        )
        good = (spread["mean"] > 0) & (spread["var"] > 0)
        if good.sum() > 2:
            power = np.polyfit(np.log(spread["mean"][good]), 0.5 * np.log(spread["var"][good]), 1)[0]
            note = "sd grows with the mean to this power: 0 constant, ½ variance with mean, 1 proportional"
            rows.append(("noise_power", "Power of the noise", float(power), note))
        together = autocorrelation(dataset)
        if np.isfinite(together):
            note = "near 1: a replicate that is high stays high, as with a gain of its own"
            rows.append(("autocorrelation", "Correlation of residuals in time", together, note))
    rows += [
        (f"truth[{name}]", f"True {name}", value, "simulated")
        for name, value in (dataset.truth or {}).items()
        if "[" not in name
    ]
    return pd.DataFrame(rows, columns=["quantity", "label", "value", "note"]).astype({"value": float})
