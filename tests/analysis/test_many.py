"""Tables of very many units against NumPy's own counts and the engine's own figures."""

import numpy as np
import pandas as pd
import pytest

from hbm_core.analysis.many import density_scatter, group_table, raw_table, spread_curves, units_table
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal


@pytest.mark.parametrize("log_x", [False, True])
def test_every_unit_is_counted_once_in_a_cell_or_shown(log_x: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = np.exp(rng.normal(4, 1, 5000)), rng.normal(size=5000)
    table = pd.DataFrame({"unit": [f"u{k}" for k in range(5000)], "x": x, "y": y})
    cells, points = density_scatter(table, "x", "y", (20, 10), crowd=6, log_x=log_x)
    assert cells["count"].sum() + len(points) == 5000
    assert cells["count"].min() > 6 and points["unit"].is_unique
    theirs, _, _ = np.histogram2d(np.log(x) if log_x else x, y, (20, 10))
    assert sorted(cells["count"]) == sorted(theirs[theirs > 6].ravel())
    for _, cell in cells.sample(10, random_state=1).iterrows():
        inside = (x >= cell["x_low"]) & (x < cell["x_high"]) & (y >= cell["y_low"]) & (y < cell["y_high"])
        assert inside.sum() == cell["count"]
        assert not points["unit"].isin(table["unit"][inside]).any()


def test_few_units_stay_points_and_one_place_is_one_cell() -> None:
    table = pd.DataFrame({"unit": list("abc"), "x": [1.0, 2.0, 2.0], "y": [0.0, 1.0, 1.0]})
    cells, points = density_scatter(table, "x", "y")
    assert cells.empty and len(points) == 3
    same = pd.DataFrame({"unit": range(3000), "x": 2.0, "y": 0.0})
    cells, points = density_scatter(same, "x", "y")
    assert cells["count"].tolist() == [3000] and points.empty


def test_tables_of_units_groups_and_spreads_are_the_engines() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1, 2], [5, 20, 3])
    se = rng.uniform(0.1, 1, 28)
    effect = np.array([0.0, 1.0, -1.0])[group] + rng.normal(0, 0.5, 28) + se * rng.standard_normal(28)
    units = tuple(f"u{k}" for k in range(28))
    priors = {"mu": "Normal(0, 1)", "sigma_group": "HalfNormal(1)", "sigma_unit": "HalfNormal(1)"}
    structure = ThreeLevelNormal(effect, se, group, units, ("a", "b", "c"))
    spec = ModelSpec(structure, {name: Prior.parse(text) for name, text in priors.items()}, {}, "collapsed")
    posterior = solve(spec)
    summary = posterior.summary(hdi=False)
    table = units_table(posterior)
    assert table["pooled"].to_numpy() == pytest.approx(posterior.mean[posterior.theta])
    assert units_table(posterior, most=4)["unit"].tolist() == ["u0", "u9", "u18", "u27"]
    assert raw_table(structure)["raw"].tolist() == effect.tolist()
    means = group_table(posterior)
    rows = summary.loc[[f"mu_group[{name}]" for name in "abc"]]
    for ours, theirs in (("mean", "mean"), ("low95", "q0.025"), ("high50", "q0.75")):
        assert means[ours].to_numpy() == pytest.approx(rows[theirs].to_numpy(), abs=1e-9)
    weight = se[group == 1] ** -2.0
    assert means["complete"][1] == pytest.approx(weight @ effect[group == 1] / weight.sum())
    half = means["complete_high95"][1] - means["complete"][1]
    assert half == pytest.approx(1.959964 * weight.sum() ** -0.5, rel=1e-6)
    assert means["units"].tolist() == [5, 20, 3]
    curves = spread_curves(posterior, spec)
    for name, part in curves.groupby("parameter"):
        assert np.trapezoid(part["posterior"], part["x"]) == pytest.approx(1, abs=0.03)
        assert part["prior"].to_numpy() == pytest.approx(
            np.exp(spec.priors[str(name)].log_density(part["x"].to_numpy()))
        )
