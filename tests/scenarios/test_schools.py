import numpy as np
import pandas as pd
import pytest

from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.scenarios import scenario
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.schools.models import PRESETS, prior_scale, standardised

SCHOOLS = scenario("schools")
EIGHT = SCHOOLS.dataset("eight_schools")


def problems(table, read=SCHOOLS.read):
    with pytest.raises(DataProblems) as caught:
        read(table)
    return {(problem.row, problem.column): problem.message for problem in caught.value.problems}


def table(**columns):
    return pd.DataFrame(
        {"unit": ["a", "b", "c"], "effect": [1.0, 2.0, 3.0], "se": [1.0, 1.0, 2.0], **columns}
    )


def test_eight_schools_are_rubins():
    assert EIGHT.table["unit"].tolist() == list("ABCDEFGH")
    assert EIGHT.table["effect"].tolist() == [28, 8, -3, 7, -1, 1, 18, 12]
    assert EIGHT.table["se"].tolist() == [15, 10, 16, 11, 9, 11, 10, 18]


def test_data_sets_have_the_sizes_and_heterogeneity_they_were_chosen_for():
    look = {
        name: SCHOOLS.first_look(SCHOOLS.dataset(name)).set_index("quantity")["value"]
        for name in SCHOOLS.datasets
    }
    assert look["eight_schools"]["tau2_REML"] == 0
    assert look["bcg"]["I2"] > 0.9
    assert look["beta_blockers"]["J"] >= 20
    assert SCHOOLS.covariates(SCHOOLS.dataset("bcg")) == ("latitude", "year")


def test_beta_blockers_are_those_that_bda3_prints():
    """BDA3, table 5.4: log odds ratios and standard errors of trials 1 to 8 to three digits."""
    first = SCHOOLS.dataset("beta_blockers").table.head(8)
    assert first["effect"].round(3).tolist() == [0.028, -0.741, -0.541, -0.246, 0.069, -0.584, -0.512, -0.079]
    assert first["se"].round(3).tolist() == [0.850, 0.483, 0.565, 0.138, 0.281, 0.676, 0.139, 0.204]


def test_latitude_explains_bcg_as_published():
    """Meta-regression on latitude, mixed effects by REML: slope −0.0291, intercept 0.2515, τ² 0.0764.

    Viechtbauer (2010), J. Stat. Softw. 36(3), section 3.3.
    """
    dataset = SCHOOLS.dataset("bcg")
    spec = SCHOOLS.model("covariates").spec(dataset, covariates=("latitude",))
    structure = spec.structure
    design = np.column_stack([np.ones(13), structure.design])
    weight = 1 / (structure.se**2 + 0.0764)
    mean, slope = np.linalg.solve(design.T * weight @ design, design.T * weight @ structure.effect)
    latitude = dataset.table["latitude"].to_numpy()
    assert slope / latitude.std() == pytest.approx(-0.0291, abs=5e-5)
    assert mean - slope * latitude.mean() / latitude.std() == pytest.approx(0.2515, abs=5e-4)


PRIORS = {
    "weak": {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)"},
    "skeptical": {"mu": "Normal(8, 5)", "tau": "HalfNormal(5)"},
    "adaptive": {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)"},
    "complete": {"mu": "Normal(0, 20)"},
    "none": {"theta": "Flat()"},
    "robust": {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)", "nu": "Gamma(2, 0.1)"},
    "robust_effects": {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)", "nu": "Gamma(2, 0.1)"},
    "precision": {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)", "beta": "Normal(0, 10)"},
    "covariates": {"mu": "Normal(0, 20)", "tau": "HalfCauchy(10)", "beta": "Normal(0, 10)"},
}


def test_default_priors_of_the_eight_schools_are_the_published_ones():
    assert list(SCHOOLS.models) == list(PRIORS)
    for id, texts in PRIORS.items():
        assert {name: prior.text for name, prior in SCHOOLS.model(id).priors(EIGHT).items()} == texts
    assert SCHOOLS.model("adaptive").constants(EIGHT) == {"threshold": 3, "spread": 4, "slope": 2}
    assert prior_scale(EIGHT) == 1
    assert SCHOOLS.scale_note(EIGHT) == ""


def test_default_priors_follow_the_units_of_the_data():
    small = EIGHT.table.assign(effect=EIGHT.table["effect"] / 1000, se=EIGHT.table["se"] / 1000)
    dataset = SCHOOLS.read(small)
    assert prior_scale(dataset) == 0.001
    priors = SCHOOLS.model("robust").priors(dataset)
    assert {name: prior.text for name, prior in priors.items()} == {
        "mu": "Normal(0, 0.02)",
        "tau": "HalfCauchy(0.01)",
        "nu": "Gamma(2, 0.1)",
    }
    assert SCHOOLS.model("adaptive").constants(dataset) == {
        "threshold": 0.003,
        "spread": 0.004,
        "slope": 2000,
    }
    nearly_none = {preset.id: preset for preset in PRESETS}["nearly_none"].priors(dataset)["tau"]
    assert nearly_none.distribution.ppf(0.5) == pytest.approx(0.1, rel=1e-3)
    assert "0.001" in SCHOOLS.scale_note(dataset)
    assert SCHOOLS.plausible(dataset) == (-0.05, 0.05)


def test_scale_of_priors_ignores_shift_order_and_one_wild_unit():
    base = prior_scale(SCHOOLS.simulate(seed=5, J=100))
    simulated = SCHOOLS.simulate(seed=5, J=100).table
    shifted = simulated.assign(effect=simulated["effect"] + 1e4)
    shuffled = simulated.sample(frac=1, random_state=1)
    wild = simulated.copy()
    wild.loc[0, "effect"] = 1e6
    assert prior_scale(SCHOOLS.read(shifted)) == base
    assert prior_scale(SCHOOLS.read(shuffled)) == base
    assert prior_scale(SCHOOLS.read(wild)) == pytest.approx(base, rel=0.05)


def test_models_have_the_shapes_of_their_formulas():
    shapes = {id: SCHOOLS.model(id).spec(EIGHT).structure for id in PRIORS if id != "covariates"}
    assert shapes["adaptive"].scale == "adaptive"
    assert (shapes["complete"].pooling, shapes["none"].pooling) == ("complete", "none")
    assert (shapes["robust"].likelihood, shapes["robust"].effects) == ("student_t", "normal")
    assert (shapes["robust_effects"].likelihood, shapes["robust_effects"].effects) == ("normal", "student_t")
    precision = shapes["precision"]
    assert precision.columns == ("precision",)
    assert precision.design.mean() == pytest.approx(0, abs=1e-12)
    assert precision.design.std() == pytest.approx(1)
    assert np.corrcoef(precision.design[:, 0], 1 / EIGHT.table["se"] ** 2)[0, 1] == pytest.approx(1)
    assert "NOT a reparameterization" in SCHOOLS.model("adaptive").summary


def test_given_priors_overlay_the_defaults():
    spec = SCHOOLS.model("weak").spec(EIGHT, {"tau": Prior.parse("HalfNormal(2)")})
    assert spec.priors["tau"].text == "HalfNormal(2)"
    assert spec.priors["mu"].text == "Normal(0, 20)"
    adaptive = SCHOOLS.model("adaptive").spec(EIGHT, constants={"threshold": 5})
    assert dict(adaptive.constants) == {"threshold": 5, "spread": 4, "slope": 2}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("weak", {"priors": {"theta": Prior("Flat")}}, "mu, tau"),
        ("weak", {"priors": {"tau": Prior.parse("Normal(0, 1)")}}, "prior on tau"),
        ("weak", {"priors": {"mu": Prior.parse("HalfNormal(1)")}}, "prior on mu"),
        ("weak", {"constants": {"threshold": 1}}, "none for this model"),
        ("weak", {"covariates": ("x",)}, "none for this model"),
        ("weak", {"parameterization": "sideways"}, "noncentered"),
        ("complete", {"parameterization": "noncentered"}, "centered"),
        ("adaptive", {"constants": {"threshold": 0}}, "threshold"),
        ("adaptive", {"constants": {"slope": float("nan")}}, "slope"),
        ("adaptive", {"constants": {"bend": 1}}, "threshold"),
        ("covariates", {}, "numeric column"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_known(model, options, message):
    with pytest.raises(InputError, match=message):
        SCHOOLS.model(model).spec(EIGHT, **options)


def test_covariates_that_cannot_be_used_are_refused_by_name():
    dataset = SCHOOLS.read(table(x=[1.0, 2.0, 4.0], same=[5, 5, 5], gap=[1, None, 3], note=["p", "q", "r"]))
    assert SCHOOLS.covariates(dataset) == ("x",)
    model = SCHOOLS.model("covariates")
    assert model.spec(dataset).structure.columns == ("x",)
    for name, message in [
        ("same", "varies"),
        ("gap", "every row"),
        ("note", "'note'"),
        ("effect", "'effect'"),
        ("z", "'z'"),
    ]:
        with pytest.raises(InputError, match=message):
            model.spec(dataset, covariates=(name,))
    with pytest.raises(InputError, match="different"):
        model.spec(dataset, covariates=("x", "x"))


def test_equal_standard_errors_leave_no_precision_to_moderate():
    dataset = SCHOOLS.read(table().assign(se=2.0))
    with pytest.raises(InputError, match="precision"):
        SCHOOLS.model("precision").spec(dataset)


@pytest.mark.parametrize("factor", [1e-200, 1.0, 1e200])
def test_standardised_columns_survive_any_unit(factor):
    values = standardised(np.array([1.0, 2.0, 6.0]) * factor, "x")
    np.testing.assert_allclose(values, np.array([-2, -1, 3]) / np.sqrt(14 / 3), rtol=1e-12)


# --- simulator ---


def test_simulated_moments_match_the_knobs():
    simulated = SCHOOLS.simulate(seed=11, J=100_000, mu=4, tau=3, se="uniform", se_low=1, se_high=2)
    frame = simulated.table
    theta = np.array([simulated.truth[f"theta[{unit}]"] for unit in frame["unit"]])
    noise = (frame["effect"] - theta) / frame["se"]
    # Four standard errors: of a mean sd/√n, of an sd about sd/√(2n).
    assert theta.mean() == pytest.approx(4, abs=4 * 3 / np.sqrt(1e5))
    assert theta.std() == pytest.approx(3, abs=4 * 3 / np.sqrt(2e5))
    assert noise.mean() == pytest.approx(0, abs=4 / np.sqrt(1e5))
    assert noise.std() == pytest.approx(1, abs=4 / np.sqrt(2e5))
    assert np.corrcoef(theta, noise)[0, 1] == pytest.approx(0, abs=4 / np.sqrt(1e5))
    assert frame["se"].min() >= 1 and frame["se"].max() <= 2


def test_two_clusters_have_the_spread_they_say_and_two_modes():
    simulated = SCHOOLS.simulate(seed=2, J=50_000, mu=0, tau=10, shape="two clusters")
    theta = np.array([value for name, value in simulated.truth.items() if name.startswith("theta[")])
    assert theta.std() == pytest.approx(10, rel=0.01)
    assert (np.abs(theta) < 2).mean() < 0.01


def test_a_wrong_standard_error_is_wrong_by_its_factor():
    honest = SCHOOLS.simulate(seed=2, J=50)
    wrong = SCHOOLS.simulate(seed=2, J=50, se_factor=2)
    theta = np.array([honest.truth[f"theta[{unit}]"] for unit in honest.table["unit"]])
    assert dict(wrong.truth) == dict(honest.truth)
    assert wrong.table["se"].equals(honest.table["se"])
    np.testing.assert_allclose(
        wrong.table["effect"] - theta, 2 * (honest.table["effect"] - theta), atol=1e-12
    )


def test_a_simulated_covariate_is_what_the_model_standardises_to():
    simulated = SCHOOLS.simulate(seed=2, J=30, beta=4)
    spec = SCHOOLS.model("covariates").spec(simulated)
    assert simulated.truth["beta[x]"] == 4
    np.testing.assert_allclose(spec.structure.design[:, 0], simulated.table["x"], atol=1e-12)


def test_standard_errors_of_eight_simulated_schools_are_rubins():
    assert SCHOOLS.simulate(seed=9).table["se"].tolist() == EIGHT.table["se"].tolist()
    assert SCHOOLS.simulate(seed=9, se="equal", se_low=4, se_high=9).table["se"].tolist() == pytest.approx(
        [6.0] * 8
    )
    spread = SCHOOLS.simulate(seed=9, J=20_000, se="log-normal", se_low=4, se_high=9).table["se"]
    np.testing.assert_allclose(spread.quantile([0.025, 0.975]), [4, 9], rtol=0.02)


def test_largest_standard_error_below_smallest_is_refused():
    with pytest.raises(InputError, match="se_high"):
        SCHOOLS.simulate(seed=1, se_low=10, se_high=5)


# --- reading ---


def test_names_of_columns_may_differ_in_case_spaces_and_aliases():
    frame = pd.DataFrame({" Study ": ["a", "b"], "YI": [1, 2], "Std. Error": [1, 2], "Year": [1990, 2000]})
    dataset = SCHOOLS.read(frame)
    assert dataset.table.columns.tolist() == ["unit", "effect", "se", "Year"]
    assert SCHOOLS.covariates(dataset) == ("Year",)


def test_the_own_name_wins_over_an_alias():
    dataset = SCHOOLS.read(table(y=[7.0, 8.0, 9.0]))
    assert dataset.table["effect"].tolist() == [1, 2, 3]
    assert SCHOOLS.covariates(dataset) == ("y",)


def test_every_problem_is_listed_with_row_and_column():
    frame = pd.DataFrame(
        {
            "unit": ["a", "", "a", "d", "e", "f", "g" * 10_000],
            "effect": ["1", "x", "inf", "2024-01-03", "", "4 %", "5"],
            "se": ["1", "0", "-1", "nan", "1", "1", "1e-300"],
        }
    )
    found = problems(frame)
    assert set(found) == {
        (2, "unit"), (3, "unit"), (7, "unit"),
        (2, "effect"), (3, "effect"), (4, "effect"), (5, "effect"), (6, "effect"),
        (2, "se"), (3, "se"), (4, "se"), (7, "se"),
    }  # fmt: skip
    assert "row 1" in found[3, "unit"]
    assert "10,000 characters" in found[7, "unit"]
    assert "date" in found[4, "effect"]
    assert "finite" in found[3, "effect"]
    assert "percent" in found[6, "effect"]
    assert "above 0" in found[2, "se"] and "-1" in found[3, "se"]


def test_missing_columns_are_named_all_at_once():
    found = problems(pd.DataFrame({"who": ["a"], "what": [1]}))
    assert set(found) == {(None, "unit"), (None, "effect"), (None, "se")}
    assert "who" in found[None, "unit"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table().head(0), "no rows"),
        (table().head(1), "at least two"),
        (table().assign(unit="", effect="", se=""), "blank"),
        (pd.DataFrame(columns=["unit", "effect", "se"]), "no rows"),
    ],
)
def test_tables_too_small_are_refused(frame, message):
    assert message in " ".join(problems(frame).values())


def test_a_million_rows_are_refused_before_they_are_read():
    frame = pd.DataFrame({"unit": np.arange(10**6), "effect": 1.0, "se": 1.0})
    assert "1,000,000" in problems(frame)[None, None]


def test_ten_thousand_columns_are_refused():
    wide = pd.DataFrame(np.ones((3, 10_000)), columns=[f"c{i}" for i in range(10_000)])
    assert "10,003 columns" in problems(pd.concat([table(), wide], axis=1))[None, None]


def test_strange_names_are_inert_text():
    names = ["=cmd|' /C calc'!A0", "<script>alert(1)</script>", "مدرسة"]
    dataset = SCHOOLS.read(table().assign(unit=names))
    assert dataset.table["unit"].tolist() == names


def test_blank_rows_go_without_renumbering_the_rest():
    frame = pd.DataFrame({"unit": ["a", "", "b"], "effect": ["1", "", "x"], "se": ["1", None, "1"]})
    assert set(problems(frame)) == {(3, "effect")}
    frame.loc[2, "effect"] = "2"
    assert SCHOOLS.read(frame).table["unit"].tolist() == ["a", "b"]


def test_numbers_as_names_become_their_digits():
    assert SCHOOLS.read(table().assign(unit=[1.0, 2.0, 3.0])).table["unit"].tolist() == ["1", "2", "3"]


def test_text_in_a_numeric_covariate_is_a_problem_and_a_text_column_is_kept():
    assert set(problems(table(dose=["1", "2", "high"]))) == {(3, "dose")}
    kept = SCHOOLS.read(table(group=["x", "y", "z"]))
    assert kept.table["group"].tolist() == ["x", "y", "z"]
    assert SCHOOLS.covariates(kept) == ()


def test_equal_data_have_equal_digests_however_they_came():
    numbers = SCHOOLS.read(table())
    texts = SCHOOLS.read(
        pd.DataFrame({"SE": ["1", "1.0", "2"], "effect": ["1", "2", "3"], "unit": list("abc")})
    )
    assert isinstance(texts, Dataset)
    assert numbers.digest == texts.digest
