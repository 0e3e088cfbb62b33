"""What the explorer is told of a model of rates: the listed entities' exact numbers, and no others."""

import json

import numpy as np
import pytest

from hbm_core.inference.exact import solve
from hbm_core.scenarios import scenario
from hbm_core.ui import explorer_rates as rates
from hbm_core.ui.explorer_component import ExplorerData, prior_entries

COUNTS = scenario("counts")


@pytest.fixture(scope="module", params=[("base", "hosts"), ("binomial", "batting")])
def told(request):
    model, name = request.param
    dataset = COUNTS.dataset(name)
    spec = COUNTS.model(model).spec(dataset)
    posterior = solve(spec)
    shown = rates.listed(spec.structure)
    return dataset, spec, posterior, shown, rates.posterior_value(posterior, shown)


def test_who_is_listed_hangs_on_the_data_alone(told):
    _, spec, _, shown, _ = told
    structure = spec.structure
    assert len(shown) == (18 if len(structure.units) <= rates.ALL else rates.LISTED)
    if len(structure.units) > rates.ALL:
        left_out = next(place for place in range(len(structure.units)) if place not in shown)
        kept = rates.listed(structure, left_out)
        assert left_out in kept and len(kept) == len(shown)


def test_the_numbers_are_the_posterior_s(told):
    _, spec, posterior, shown, value = told
    summary = posterior.summary()
    rows = summary.loc[[f"theta[{spec.structure.units[place]}]" for place in shown]]
    for key, column in (("mean", "mean"), ("sd", "sd"), ("lo95", "q0.025"), ("hi50", "q0.75")):
        assert value[key] == pytest.approx(rows[column].to_numpy())
    assert value["mu"]["mean"] == pytest.approx(summary.loc["mu", "mean"])
    assert np.mean(value["tau_density"]["post"]) == pytest.approx(1, abs=2e-3)
    for curves in value["densities"].values():
        area = np.trapezoid(curves[0]["y"], curves[0]["x"])
        assert area == pytest.approx(0.999, abs=4e-3)


def test_curves_run_from_one_rate_for_all_to_each_on_its_own(told):
    _, spec, _, shown, value = told
    curves = value["curves"]
    first, last = np.array(curves["theta_mean"][0]), np.array(curves["theta_mean"][-1])
    assert np.ptp(first) < 0.02 * first.mean() + 0.02
    assert np.array(curves["pooling"][0]).min() > 0.99
    assert np.array(curves["pooling"][-1]).max() < 0.1
    raw = spec.structure.effect[shown]
    assert np.corrcoef(last, raw)[0, 1] > 0.95


def test_the_component_takes_it(told):
    dataset, spec, posterior, shown, _ = told
    entries = prior_entries(spec, {}, COUNTS.parameter_words)
    data = ExplorerData(spec, posterior, dataset.words, entries, "base", listed=shown).as_dict()
    json.dumps(data, allow_nan=False)
    low, high = np.array(data["units"]["low"]), np.array(data["units"]["high"])
    assert (
        (low >= 0).all()
        and (low <= data["units"]["effect"]).all()
        and (high >= data["units"]["effect"]).all()
    )
    assert data["model"]["engine"] == "server" and data["model"]["spread"]["unitless"]
    assert data["model"]["why_no_tau"] == ""
