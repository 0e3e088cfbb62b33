"""The figures below the explorer: what they show, read from the figure and its table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid

from hbm_core.inference.exact import solve
from hbm_core.models.dataset import Words
from hbm_core.plots.first_look import funnel, funnel_table
from hbm_core.plots.induced import induced, induced_table
from hbm_core.plots.plate import plate_svg, plate_table
from hbm_core.scenarios import scenario
from hbm_core.store.study import Study
from hbm_core.ui.background import truth_sentence
from hbm_core.ui.live import Live

SCHOOLS = scenario("schools")


def spec_of(model: str, dataset: str = "eight_schools"):
    study = Study.default("schools").change(model=model, dataset=dataset)
    return study.spec(study.data())


def test_the_cone_stands_on_the_precision_weighted_mean() -> None:
    points, lines = funnel_table(spec_of("weak").structure)
    # Rubin (1981): the completely pooled effect is 7.7 points.
    assert lines["mid"].to_numpy() == pytest.approx([7.685617, 7.685617], abs=1e-6)
    slope = (lines["high"] - lines["mid"]).iloc[1] / lines["se"].iloc[1]
    assert slope == pytest.approx(1.959964, abs=1e-6)
    assert list(points["unit"]) == list("ABCDEFGH")
    figure = funnel(points, lines, "Effect of coaching, SAT points", "light").to_dict()
    titles = {layer["encoding"]["x"].get("title") for layer in figure["layer"] if "x" in layer["encoding"]}
    assert "Effect of coaching, SAT points" in titles


@pytest.mark.parametrize(
    ("model", "parents"),
    [
        ("weak", {"mu", "tau"}),
        ("complete", {"mu"}),
        ("none", set()),
        ("robust_effects", {"mu", "tau", "nu"}),
        ("precision", {"mu", "tau", "beta", "x"}),
    ],
)
def test_arrows_into_theta_are_the_models_dependencies(model: str, parents: set[str]) -> None:
    plate = plate_table(spec_of(model).structure)
    assert {source for source, target in plate.edges if target == "theta"} == parents
    assert {"theta", "se"} <= {source for source, target in plate.edges if target == "y"}
    assert ("nu", "y") in plate_table(spec_of("robust").structure).edges


def test_a_hostile_name_stays_text_in_the_diagram() -> None:
    drawn = plate_svg(plate_table(spec_of("weak").structure, "<script>alert(1)</script>"), "dark")
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn


def test_induced_densities_integrate_to_one_and_differ_from_the_prior() -> None:
    posterior = solve(spec_of("adaptive"))
    table = induced_table(posterior, points=2000)  # type: ignore[arg-type]
    curves = {name: rows for name, rows in table.groupby("curve")}
    fitted = curves["posterior of τ*"]
    assert trapezoid(fitted["density"], fitted["x"]) == pytest.approx(1, abs=0.02)
    prior, bent = curves["prior on τ"], curves["prior on τ* that it induces"]
    assert np.abs(prior["density"].to_numpy() - bent["density"].to_numpy()).max() > 0.005
    figure = induced(table, Words(unit="SAT points"), "light").to_dict()
    assert "SAT points" in str(figure)


def test_the_verdict_against_truth_counts_intervals() -> None:
    study = Study.default("schools").change(dataset="simulated", knobs={"J": 30})
    dataset, spec = study.data(), study.spec(study.data())
    posterior = solve(spec)
    table = posterior.summary(hdi=False)
    truth = dataset.truth or {}
    inside = sum(
        table.loc[name, "q0.025"] <= truth[name] <= table.loc[name, "q0.975"] for name in table.index[2:]
    )
    raw = sum(
        abs(y - truth[f"theta[{unit}]"]) <= 1.959963984540054 * s
        for unit, y, s in dataset.table[["unit", "effect", "se"]].itertuples(index=False)
    )
    said = truth_sentence(Live(study, dataset, spec, posterior))
    assert f"{inside} of 30 pooled" in said
    assert f"and {raw} of" in said
    assert truth_sentence(Live(study, Study.default("schools").data(), spec, posterior)) == ""


@pytest.mark.parametrize(
    ("model", "dataset", "on_counts", "elsewhere"),
    [
        ("base", "pumps", {"theta", "size", "phi"}, {}),
        ("zero_inflated", "shut_hosts", {"theta", "size", "phi", "psi"}, {}),
        ("covariates", "load", {"theta", "size", "phi", "beta", "x"}, {}),
        ("drift", "drifting", {"theta", "size", "walk"}, {"walk": {"rho", "sigma_drift"}}),
        (
            "joint",
            "traffic",
            {"theta", "size", "phi"},
            {"bytes": {"theta", "size", "sigma_window"}},
        ),
    ],
)
def test_a_model_of_counts_has_the_arrows_of_its_formula(
    model: str, dataset: str, on_counts: set[str], elsewhere: dict[str, set[str]]
) -> None:
    study = Study.default("counts").change(dataset=dataset).change(model=model)
    plate = plate_table(study.spec(study.data()).structure)
    for target, sources in ({"y": on_counts} | elsewhere).items():
        assert {source for source, end in plate.edges if end == target} == sources
    drawn = {node.name for row in plate.rows for node in row}
    assert {name for edge in plate.edges for name in edge} == drawn
    assert all(len(node.symbol) <= 3 for row in plate.rows for node in row), "it fits its circle"
