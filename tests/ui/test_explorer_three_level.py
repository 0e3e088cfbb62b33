"""What the explorer is told of a three-level model: the listed units' exact numbers, and no others."""

import numpy as np
import pytest

from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.ui import explorer_three_level as three_level
from hbm_core.ui.explorer_component import prior_entries


def study(count=60, seed=3, **priors):
    rng = np.random.default_rng(seed)
    group = np.arange(count) % 3
    se = rng.uniform(0.1, 1.0, count)
    effect = rng.normal(group, 0.5) + se * rng.standard_normal(count)
    structure = ThreeLevelNormal(
        effect, se, group, tuple(f"c{k}" for k in range(count)), ("x", "y", "z"), ("creator", "genre")
    )
    chosen = {"mu": "Normal(0, 1)", "sigma_genre": "HalfNormal(1)", "sigma_creator": "HalfNormal(1)"} | priors
    return ModelSpec(structure, {name: Prior.parse(text) for name, text in chosen.items()}, {}, "collapsed")


def test_the_list_is_fixed_by_the_data_and_holds_who_is_wanted():
    one, other = study(), study(sigma_creator="HalfNormal(0.01)")
    assert np.array_equal(three_level.listed(one.structure), three_level.listed(other.structure))
    found = three_level.listed(one.structure)
    assert len(found) == len(set(found)) == three_level.LISTED
    left_out = next(place for place in range(60) if place not in found)
    kept = three_level.listed(one.structure, left_out)
    assert left_out in kept and len(kept) == three_level.LISTED
    assert len(three_level.listed(study(5).structure)) == 5


def test_the_listed_units_move_farthest():
    spec = study()
    moved = np.abs(solve(spec).unit_moments()[0] - spec.structure.effect)
    farthest = set(np.argsort(-moved)[:8])
    assert len(farthest & set(three_level.listed(spec.structure))) >= 7


def test_numbers_are_the_exact_posteriors():
    spec = study()
    posterior = solve(spec)
    shown = three_level.listed(spec.structure)
    told = three_level.posterior_value(posterior, shown)
    summary = posterior.summary()
    names = [f"theta[{spec.structure.units[place]}]" for place in shown]
    assert np.allclose(told["mean"], summary.loc[names, "mean"])
    assert np.allclose(told["lo95"], summary.loc[names, "q0.025"])
    assert np.allclose(told["hi50"], summary.loc[names, "q0.75"])
    assert np.allclose(told["group_means"], [summary.loc[f"mu_genre[{g}]", "mean"] for g in "xyz"])
    assert told["tau"]["mean"] == pytest.approx(summary.loc["sigma_creator", "mean"])
    assert np.allclose(np.add(told["own"], np.add(told["others"], told["prior"])), 1)
    # A density per unit of u is a probability: it sums to 1 over the axis.
    assert np.mean(told["tau_density"]["post"]) == pytest.approx(1, abs=1e-3)
    area = np.trapezoid(told["densities"]["mu"][0]["y"], told["densities"]["mu"][0]["x"])
    assert area == pytest.approx(0.999, abs=2e-3)


def test_curves_run_from_the_groups_mean_to_the_units_own_value():
    spec = study()
    posterior, shown = solve(spec), three_level.listed(spec.structure)
    curves = three_level.posterior_value(posterior, shown)["curves"]
    assert np.allclose(curves["theta_mean"][-1], spec.structure.effect[shown])
    for mean, place in zip(curves["theta_mean"][0], shown, strict=True):
        assert mean == pytest.approx(curves["group_mean"][0][spec.structure.group[place]])
    assert curves["complete"] == curves["theta_mean"][0]


def test_the_prior_panel_writes_symbols_as_text():
    words = {"mu": (r"\mu", "mean"), "sigma_genre": (r"\sigma_{\mathrm{genre}}", "spread of genres")}
    entries = {entry.param: entry for entry in prior_entries(study(), {}, words)}
    assert entries["mu"].symbol == "μ" and entries["sigma_genre"].symbol == "σ genre"
    assert entries["sigma_creator"].positive and not entries["mu"].positive
