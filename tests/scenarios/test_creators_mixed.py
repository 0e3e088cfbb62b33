"""Creators in segments and over periods: data, truth, what is refused, and a script of a fit."""

import ast

import numpy as np
import pandas as pd
import pytest

from hbm_core.errors import InputError
from hbm_core.inference.sampler import Sampler
from hbm_core.report.code import script
from hbm_core.scenarios import scenario

CREATORS = scenario("creators")
SMALL = {"genres": 3, "creators_per_genre": 4, "level": "summaries"}


@pytest.mark.parametrize(("model", "knob"), [("crossed", "segments"), ("drift", "periods")])
def test_simulated_truth_answers_to_every_name_of_the_model(model, knob):
    dataset = CREATORS.simulate(seed=3, **SMALL, **{knob: 4})
    spec = CREATORS.model(model).spec(dataset)
    structure, truth = spec.structure, dataset.truth
    assert len(dataset.table) == 3 * 4 * 4 == structure.effect.size
    names = {*structure.hyperparameters} | {f"theta[{unit}]" for unit in structure.units}
    assert set(truth) == names and len(truth) == len(names)
    assert all(truth[name] == value for name, value in truth.items())
    means = np.array([truth[f"mu_genre[{cell}]"] for cell in structure.cells])
    contrasts = structure.contrast_of(means, np.array(truth["mu"]))
    assert contrasts == pytest.approx([truth[f"{structure.contrast}[{one}]"] for one in structure.contrasts])
    # Creators keep their deviation in every slot.
    theta = np.array([truth[f"theta[{unit}]"] for unit in structure.units])
    deviation = theta - means[structure.cell]
    assert np.allclose(deviation, deviation[np.searchsorted(structure.member, structure.member)])
    # The models of whole creators find theirs.
    whole = CREATORS.model("base").spec(dataset).structure
    own = [theta[structure.member == k].mean() for k in range(len(structure.members))]
    assert [truth[f"theta[{unit}]"] for unit in whole.units] == pytest.approx(own)
    # Noise has the size that the standard errors say.
    z = (structure.effect - theta) / structure.se
    assert abs(np.mean(z**2) - 1) < 0.7


def test_rows_of_users_carry_their_segment_and_reduce_to_the_summaries():
    knobs = {"genres": 2, "creators_per_genre": 2, "segments": 2, "largest": 600}
    users = pd.concat(CREATORS.rows(seed=4, **knobs))
    assert set(users["segment"]) == {"s1", "s2"}
    reduced = CREATORS.read(users).table
    plain = CREATORS.simulate(seed=4, **knobs).table
    assert np.allclose(reduced["effect"], plain["effect"]) and np.allclose(reduced["se"], plain["se"])
    assert list(reduced["segment"]) == list(plain["segment"])


def test_data_without_the_column_are_refused_with_what_is_needed():
    plain = CREATORS.simulate(seed=1, **SMALL)
    with pytest.raises(InputError, match="a column segment with at least 2"):
        CREATORS.model("crossed").spec(plain)
    with pytest.raises(InputError, match="a column period with at least 3"):
        CREATORS.model("drift").spec(CREATORS.simulate(seed=1, **SMALL, periods=2))
    with pytest.raises(InputError, match="one of them above 1"):
        CREATORS.simulate(seed=1, **SMALL, segments=2, periods=2)
    with pytest.raises(InputError, match="prior on mu"):
        both = CREATORS.simulate(seed=1, **SMALL, segments=2)
        CREATORS.model("crossed").spec(both, {"mu": CREATORS.presets[0].priors(both)["sigma_genre"]})


def test_segments_and_periods_in_one_table_are_combined_by_precision():
    table = pd.DataFrame(
        {
            "creator": ["a"] * 4 + ["b"] * 2,
            "genre": ["x"] * 4 + ["y"] * 2,
            "segment": ["p", "p", "q", "q", "p", "q"],
            "period": ["10", "9", "9", "10", "9", "9"],
            "effect": [1.0, 2, 3, 4, 5, 6],
            "se": [1.0, 0.5, 1, 1, 1, 1],
        }
    )
    structure = CREATORS.model("crossed").spec(CREATORS.read(table)).structure
    place = structure.place("a × p")
    assert structure.effect[place] == pytest.approx((1 + 2 / 0.25) / (1 + 4))
    assert structure.se[place] == pytest.approx(5**-0.5)
    assert structure.effect.size == 4 and structure.slots == ("p", "q")


def test_periods_are_in_the_order_of_time():
    rows = [(c, g, p) for c, g in (("a", "x"), ("b", "x"), ("c", "y")) for p in ("2", "10", "1")]
    table = pd.DataFrame(rows, columns=["creator", "genre", "period"]).assign(effect=1.0, se=1.0)
    structure = CREATORS.model("drift").spec(CREATORS.read(table)).structure
    assert structure.slots == ("1", "2", "10") and structure.walk


@pytest.mark.parametrize(("model", "knob"), [("crossed", "segments"), ("drift", "periods")])
def test_scripts_are_python_with_the_data_in_them(model, knob):
    dataset = CREATORS.simulate(seed=3, **SMALL, **{knob: 3})
    for geometry in CREATORS.model(model).parameterizations:
        spec = CREATORS.model(model).spec(dataset, parameterization=geometry)
        text = script(spec, Sampler(), "A fit")
        ast.parse(text)
        assert repr(float(spec.structure.effect[0])) in text and "sigma_creator" in text
