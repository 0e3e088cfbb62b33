"""The scenario `creators`: tables, simulator, estimators, first look, models, recovery."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from hbm_core.analysis.coverage import estimate
from hbm_core.analysis.moments import tau2_dl, tau2_reml
from hbm_core.analysis.recovery import Intervals, groups, over_data_sets, scores
from hbm_core.errors import InputError
from hbm_core.models.dataset import Dataset, table_from_arrow
from hbm_core.models.prior import Prior
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.scenarios.base import DataProblems
from hbm_core.scenarios.creators import CREATORS, data, estimators, look, validation
from hbm_core.scenarios.creators.models import PRESETS, prior_scale
from hbm_core.scenarios.creators.simulator import Truth
from hbm_core.scenarios.creators.variance import fit_variance_prior, inverse_trigamma, moderated
from tests.scenarios import test_contract as contract

DEFAULT = CREATORS.dataset("ab_tests")


def table(**columns):
    return pd.DataFrame(
        {
            "creator": ["b", "a", "c"],
            "genre": ["y", "y", "x"],
            "effect": [2.0, 1, 3],
            "se": [1.0, 2, 1],
            **columns,
        }
    )


def problems(frame):
    with pytest.raises(DataProblems) as caught:
        CREATORS.read(frame)
    return {(problem.row, problem.column): problem.message for problem in caught.value.problems}


def structure(genres=4, size=12, seed=0, sigma_creator=0.4, sigma_genre=0.3):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(genres), rng.integers(1, size, genres))
    se = rng.uniform(0.1, 1, group.size)
    theta = (0.5 + sigma_genre * rng.standard_normal(genres))[group]
    effect = theta + sigma_creator * rng.standard_normal(group.size) + se * rng.standard_normal(group.size)
    names = tuple(f"u{i}" for i in range(group.size))
    return ThreeLevelNormal(effect, se, group, names, tuple(f"g{g}" for g in range(genres)), data.LEVELS)


# --- contract ---


@pytest.mark.parametrize(
    "promise",
    [
        contract.test_tells_its_story_in_five_lines_with_references,
        contract.test_defaults_exist,
        contract.test_unknown_names_are_refused_with_the_known_ones,
        contract.test_every_data_set_reads_back_to_itself,
        contract.test_every_model_builds_in_every_parameterization,
        contract.test_default_priors_are_among_the_families_offered,
        contract.test_models_explain_themselves,
        contract.test_presets_fit_some_model,
        contract.test_simulation_is_reproducible_by_seed,
        contract.test_truth_carries_the_names_of_fits,
        contract.test_knobs_out_of_bounds_are_refused_by_name,
        contract.test_first_look_and_estimates_are_tidy,
    ],
    ids=lambda promise: promise.__name__,
)
def test_keeps_what_every_scenario_promises(promise):
    promise(CREATORS)


def test_another_process_agrees_on_digests_and_imports_nothing_heavy():
    code = (
        "import json, sys\n"
        "from hbm_core.scenarios.creators import CREATORS as one\n"
        "found = {name: one.dataset(name).digest for name in one.datasets}\n"
        "heavy = sorted({'pymc', 'pytensor', 'nutpie', 'numba', 'streamlit', 'duckdb'} & set(sys.modules))\n"
        "print(json.dumps([found, heavy]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    digests, heavy = json.loads(done.stdout)
    assert digests == {name: CREATORS.dataset(name).digest for name in CREATORS.datasets}
    assert heavy == []


# --- tables ---


def test_rows_are_sorted_and_digests_do_not_depend_on_their_order():
    first = CREATORS.read(table())
    assert first.table["creator"].tolist() == ["c", "a", "b"]
    assert first.table["genre"].tolist() == ["x", "y", "y"]
    shuffled = CREATORS.read(table().iloc[[2, 0, 1]].astype(str))
    assert shuffled.digest == first.digest
    assert data.is_canonical(first.table)
    assert CREATORS.read(first.table).table is first.table
    stored = table_from_arrow(first.arrow)
    assert CREATORS.read(stored).table is stored


def test_aliases_numbers_as_names_and_other_columns():
    frame = pd.DataFrame(
        {
            "N_Total": [30, 40],
            "creator_id": [12, 7],
            "effect_hat": ["1,5", "2,5"],
            "se": ["1", "1"],
            "Genre": ["x", "x"],
            "country": ["no", "se"],
        }
    )
    found = CREATORS.read(frame).table
    assert found.columns.tolist() == ["creator", "genre", "effect", "se", "n", "country"]
    assert found["creator"].tolist() == ["12", "7"]
    assert found["effect"].tolist() == [1.5, 2.5]
    assert found["n"].dtype == np.int64


def test_every_problem_of_summaries_is_listed_with_row_and_column():
    frame = pd.DataFrame(
        {
            "creator": ["a", "a", "", "d", "e"],
            "genre": ["x", "x", "x", "x", " "],
            "effect": ["1", "2", "3", "inf", "5"],
            "se": ["1", "1", "0", "1", "1e-12"],
            "n": ["10", "1.5", "0", "10", "10"],
        }
    )
    assert set(problems(frame)) == {
        (2, "creator"), (3, "creator"), (5, "genre"), (4, "effect"), (3, "se"), (5, "se"), (2, "n"), (3, "n"),
    }  # fmt: skip


def test_a_creator_belongs_to_one_genre():
    found = problems(table(creator=["a", "a", "c"], genre=["x", "y", "x"], segment=["1", "2", "1"]))
    assert set(found) == {(2, "genre")}
    assert "'x' and 'y'" in found[2, "genre"]


def test_columns_of_neither_level_are_told_what_both_are():
    found = problems(pd.DataFrame({"creator": ["a"], "genre": ["x"], "what": [1]}))
    assert "user rows" in found[None, None] and "summaries" in found[None, None]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.assign(effect=t["effect"].where(t.index != 0)),
        lambda t: t.assign(se=-t["se"]),
        lambda t: t.assign(n=t["n"].astype(float)),
        lambda t: t.assign(creator=t["creator"] + " "),
        lambda t: t.iloc[::-1],
        lambda t: t[["genre", "creator", "effect", "se"]],
        lambda t: t.assign(creator="same"),
        lambda t: t.assign(creator=t["creator"].astype(object)),
        lambda t: t.assign(creator=["c0", *t["creator"].iloc[1:-1], "c0"], n_treatment=1),
        lambda t: t.head(0),
    ],
)
def test_only_canonical_tables_pass_unread(spoil):
    assert data.is_canonical(DEFAULT.table)
    assert not data.is_canonical(spoil(DEFAULT.table))


def test_segments_combine_by_precision_for_a_model_without_them():
    frame = pd.DataFrame(
        {
            "creator": list("aabc"),
            "genre": list("xxxy"),
            "segment": list("stss"),
            "effect": [1.0, 3, 4, 5],
            "se": [1.0, 0.5, 1, 1],
            "n": [10, 20, 30, 40],
        }
    )
    dataset = CREATORS.read(frame)
    shape = data.structure(dataset)
    assert list(shape.units) == ["a", "b", "c"]
    assert shape.effect.tolist() == pytest.approx([(1 + 4 * 3) / 5, 4, 5])
    assert shape.se.tolist() == pytest.approx([5**-0.5, 1, 1])
    assert data.creator_table(dataset.table)["n"].tolist() == [30, 30, 40]
    assert CREATORS.estimate(dataset)["unit"].nunique() == 3


def test_periods_are_in_the_order_of_time():
    assert data.periods(pd.DataFrame({"period": ["10", "9", "1"]})) == ("1", "9", "10")
    assert data.periods(pd.DataFrame({"period": ["2024-11", "2024-02"]})) == ("2024-02", "2024-11")


def test_labels_are_a_sequence_of_text():
    names = data.Labels.of(pd.Series(["a", "b", "c", "b2"]))
    assert list(names) == ["a", "b", "c", "b2"] == [names[i] for i in range(4)]
    assert names == ("a", "b", "c", "b2") and names != ("a", "b") and names[1:3] == ("b", "c")
    assert (names.index("c"), names.index("b", 1), "b2" in names, 3 in names) == (2, 1, True, False)
    assert len({names: 1, data.Labels.of(pd.Series(list("a"))): 2}) == 2
    # The first look-ups scan, later ones use a dictionary.
    for _ in range(40):
        assert (names.index("c"), names.index("b", 1), "b2" in names, "z" in names) == (2, 1, True, False)
    with pytest.raises(ValueError, match="'z'"):
        names.index("z")
    with pytest.raises(IndexError):
        names[4]


def test_the_filter_on_n_says_what_it_left_out():
    assert data.at_least(DEFAULT, 0) is DEFAULT
    kept = data.at_least(DEFAULT, 100)
    assert (kept.table["n"] >= 100).all()
    assert f"{len(DEFAULT.table) - len(kept.table)} rows" in kept.label
    with pytest.raises(InputError, match="two creators"):
        data.at_least(DEFAULT, 10**7)
    with pytest.raises(InputError, match="column n"):
        data.at_least(CREATORS.read(table()), 10)


# --- simulator ---


def test_simulated_moments_match_the_knobs():
    simulated = CREATORS.simulate(seed=3, level="summaries", genres=200, creators_per_genre=500)
    truth, frame = simulated.truth, simulated.table
    assert isinstance(truth, Truth)
    group, _ = data.genres(frame)
    within = truth.theta - truth.mu_genre[group]
    noise = (frame["effect"] - truth.theta) / np.sqrt(4 / frame["n_treatment"] + 4 / frame["n_control"])
    n = frame["n"]
    # Four standard errors: of a mean sd/√n, of an sd about sd/√(2n), of a share √(p(1 − p)/n).
    assert truth.mu_genre.mean() == pytest.approx(0.5, abs=4 * 0.3 / np.sqrt(200))
    assert truth.mu_genre.std() == pytest.approx(0.3, abs=4 * 0.3 / np.sqrt(400))
    assert within.std() == pytest.approx(0.4, abs=4 * 0.4 / np.sqrt(2e5))
    assert noise.std() == pytest.approx(1, abs=4 / np.sqrt(2e5))
    assert noise.mean() == pytest.approx(0, abs=4 / np.sqrt(1e5))
    for low, high, share in ((30, 100, 0.4), (100, 500, 0.35), (500, 5000, 0.25)):
        here = (n >= low) & (n < high)
        assert here.mean() == pytest.approx(share, abs=4 * 0.5 / np.sqrt(1e5))
        assert n[here].mean() == pytest.approx((low + high - 1) / 2, rel=0.02)
    assert (frame["n_control"] - frame["n_treatment"]).abs().max() <= 1
    df = frame["n_control"].to_numpy() - 1
    assert stats.kstest(stats.chi2.cdf(frame["var_control"] * df / 4, df), "uniform").pvalue > 1e-3


def test_both_levels_draw_the_same_creators():
    users, summaries = (CREATORS.simulate(seed=5, level=level) for level in ("users", "summaries"))
    assert dict(users.truth) == dict(summaries.truth)
    assert users.table["n"].equals(summaries.table["n"])
    assert not any(True for _ in CREATORS.rows(seed=5, level="summaries"))


def test_truth_speaks_of_parameters_by_the_names_of_fits():
    truth = CREATORS.simulate(seed=2, genres=2, creators_per_genre=3).truth
    names = ["mu", "sigma_genre", "sigma_creator", "mu_genre[g0]", "mu_genre[g1]"]
    assert list(truth) == names + [f"theta[c{i}]" for i in range(6)]
    assert truth["theta[c4]"] == truth.theta[4] and truth["mu_genre[g1]"] == truth.mu_genre[1]
    assert dict(truth.items()) == {name: truth[name] for name in truth} and len(truth) == 11
    assert "theta[c9]" not in truth and "tau" not in truth and "theta" not in truth


def test_zeros_and_a_heavy_tail_keep_the_mean_and_may_leave_creators_out():
    knobs = {"zero_share": 0.8, "log_sd": 1.0, "smallest": 4, "small_below": 20, "genres": 3}
    simulated = CREATORS.simulate(seed=1, **knobs)
    frame, truth = simulated.table, simulated.truth
    left = 300 - len(frame)
    assert left > 0 and simulated.notes[0].startswith(f"{left} creators are left out")
    assert (
        len(truth.theta) == len(frame)
        and dict(truth)[f"theta[{frame['creator'].iloc[-1]}]"] == truth.theta[-1]
    )
    rows = pd.concat(CREATORS.rows(seed=1, **knobs))
    assert (rows["outcome"] == 0).mean() == pytest.approx(0.8, abs=0.005)
    control = rows.loc[rows["group"] == "control", "outcome"]
    assert control.mean() == pytest.approx(5, abs=4 * control.std() / np.sqrt(len(control)))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"smallest": 100, "small_below": 50}, "rising"),
        ({"small_share": 0.7, "medium_share": 0.7}, "at most 1"),
        ({"level": "summaries", "zero_share": 0.5}, "level=users"),
        ({"log_sd": 1, "baseline": -1}, "baseline"),
        ({"genres": 1, "creators_per_genre": 1}, "2 to 5,000,000"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused(knobs, message):
    with pytest.raises(InputError, match=message):
        CREATORS.simulate(seed=1, **knobs)


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True])
def test_a_seed_is_a_whole_number(seed):
    contract.test_a_seed_is_a_whole_number(CREATORS, seed)


# --- moderated variances ---


@pytest.mark.parametrize("y", [1e-8, 1e-3, 0.2, 1, 40, 1e9])
def test_inverse_trigamma(y):
    from scipy.special import polygamma

    assert float(polygamma(1, inverse_trigamma(y))) == pytest.approx(y, rel=1e-6)


def test_variance_prior_recovers_its_own_truth():
    rng = np.random.default_rng(3)
    df = rng.integers(14, 60, 200_000)
    true = 3.0 * 10 / rng.chisquare(10, df.size)
    prior = fit_variance_prior(true * rng.chisquare(df) / df, df.astype(float))
    assert prior.df == pytest.approx(10, rel=0.03)
    assert prior.scale == pytest.approx(3, rel=0.01)
    equal = fit_variance_prior(np.full(50, 2.0), np.full(50, 10.0))
    assert np.isinf(equal.df) and equal.moderate(np.array([1.0]), np.array([9.0])).tolist() == [equal.scale]
    assert fit_variance_prior(np.ones(2), np.ones(2)) is None


def test_moderated_standard_errors_are_smyths_and_closer_to_the_truth():
    frame, priors = moderated(DEFAULT.table)
    for genre, here in DEFAULT.table.groupby("genre"):
        square = 0.0
        for arm in ("treatment", "control"):
            s2, d = here[f"var_{arm}"].to_numpy(), here[f"n_{arm}"].to_numpy() - 1.0
            # Smyth's prior as the solution of the two moment equations, by a root finder.
            e = np.log(s2) - _psi(d / 2) + np.log(d / 2)
            extra = e.var(ddof=1) - _psi1(d / 2).mean()
            if extra > 0:
                half = optimize.brentq(lambda x, extra=extra: _psi1(x) - extra, 1e-3, 1e12, rtol=1e-14)
                s0 = np.exp(e.mean() + _psi(half) - np.log(half))
                shared = (2 * half * s0 + d * s2) / (2 * half + d)
            else:
                shared = np.full(s2.shape, np.exp(e.mean()))
            assert (genre, arm) in priors
            square = square + shared / (d + 1)
        np.testing.assert_allclose(frame.loc[here.index, "se"], np.sqrt(square), rtol=1e-8)
    true = np.sqrt(4 / frame["n_treatment"] + 4 / frame["n_control"])
    assert np.abs(np.log(frame["se"] / true)).mean() < 0.3 * np.abs(np.log(DEFAULT.table["se"] / true)).mean()
    assert CREATORS.read(DEFAULT.table, variance="moderated").notes
    with pytest.raises(InputError, match="variance"):
        moderated(table())


def _psi(x):
    from scipy.special import psi

    return psi(x)


def _psi1(x):
    from scipy.special import zeta

    return zeta(2, x)


# --- estimators ---


def test_no_pooling_is_welchs_test():
    knobs = {"genres": 2, "creators_per_genre": 3, "smallest": 4, "small_below": 12}
    rows = pd.concat(CREATORS.rows(seed=8, **knobs))
    found = CREATORS.estimate(CREATORS.simulate(seed=8, **knobs)).query("estimator == 'no_pooling'")
    for row in found.itertuples():
        arms = {group: arm["outcome"] for group, arm in rows[rows["creator"] == row.unit].groupby("group")}
        test = stats.ttest_ind(arms["treatment"], arms["control"], equal_var=False)
        interval = test.confidence_interval(0.95)
        assert row.p == pytest.approx(test.pvalue, rel=1e-9)
        assert (row.low95, row.high95) == pytest.approx((interval.low, interval.high), rel=1e-9)


def _dense(shape, creator, genre):
    """Log restricted likelihood by the full covariance matrix."""
    cover = np.diag(shape.se**2 + creator**2) + genre**2 * (shape.group[:, None] == shape.group)
    inverse = np.linalg.inv(cover)
    one = np.ones(len(cover))
    total = one @ inverse @ one
    away = shape.effect - one @ inverse @ shape.effect / total
    return -0.5 * (np.linalg.slogdet(cover)[1] + np.log(total) + away @ inverse @ away)


@pytest.mark.parametrize("seed", range(6))
def test_reml_is_the_highest_point_of_the_dense_restricted_likelihood(seed):
    shape = structure(seed=seed, sigma_genre=0.3 * (seed % 2), sigma_creator=0.4 * (seed % 3 > 0))
    found = estimators.reml_spreads(shape)
    height = _dense(shape, found.creator, found.genre)
    for creator in np.linspace(0, 1, 21):
        for genre in np.linspace(0, 1, 21):
            assert _dense(shape, creator, genre) <= height + 1e-8
    gap = estimators.restricted_log_likelihood(shape, 0.3, 0.2) - _dense(shape, 0.3, 0.2)
    other = estimators.restricted_log_likelihood(shape, 0.7, 0.0) - _dense(shape, 0.7, 0.0)
    assert gap == pytest.approx(other, abs=1e-9)


def test_one_genre_is_two_level_meta_analysis():
    shape = structure(genres=1, size=40, seed=5)
    assert estimators.reml_spreads(shape).creator ** 2 == pytest.approx(
        tau2_reml(shape.effect, shape.se), rel=1e-5
    )
    assert estimators.moment_spreads(shape).creator ** 2 == pytest.approx(tau2_dl(shape.effect, shape.se))


def test_empirical_bayes_is_the_gaussian_conditional():
    """E and var of θ given y by the joint normal's precision, μ flat."""
    shape = structure(seed=3)
    spreads = estimators.Spreads(0.4, 0.3)
    found = estimators.empirical_bayes(shape, spreads)
    same = (shape.group[:, None] == shape.group).astype(float)
    precision = np.linalg.inv(0.4**2 * np.eye(same.shape[0]) + 0.3**2 * same)
    row = precision.sum(axis=0)
    cover = np.linalg.inv(precision - np.outer(row, row) / row.sum() + np.diag(shape.se**-2.0))
    np.testing.assert_allclose(found.point, cover @ (shape.effect / shape.se**2), rtol=1e-9)
    np.testing.assert_allclose(found.se, np.sqrt(np.diag(cover)), rtol=1e-9)


def test_moment_spreads_are_unbiased_before_they_are_cut_at_zero():
    """Large spreads, so that the cut at 0 never acts: means over data sets meet the truth."""
    found = [estimators.moment_spreads(structure(8, 30, seed, 2.0, 5.0)) for seed in range(400)]
    creator = np.array([one.creator**2 for one in found])
    genre = np.array([one.genre**2 for one in found])
    assert creator.mean() == pytest.approx(4, abs=4 * creator.std() / 20)
    assert genre.mean() == pytest.approx(25, abs=4 * genre.std() / 20)


def test_james_stein_is_the_classical_formula_where_errors_are_equal():
    rng = np.random.default_rng(2)
    effect = rng.standard_normal(9) + 3
    shape = ThreeLevelNormal(effect, np.full(9, 0.5), np.zeros(9), tuple("abcdefghi"), ("g",), data.LEVELS)
    mean = effect.mean()
    share = 1 - (9 - 3) * 0.25 / ((effect - mean) ** 2).sum()
    np.testing.assert_allclose(estimators.james_stein(shape).point, mean + share * (effect - mean))
    close = ThreeLevelNormal(effect * 0.01, shape.se, shape.group, shape.units, shape.groups, data.LEVELS)
    np.testing.assert_allclose(estimators.james_stein(close).point, 0.01 * mean)
    three = ThreeLevelNormal(effect[:3], shape.se[:3], np.zeros(3), tuple("abc"), ("g",), data.LEVELS)
    np.testing.assert_allclose(estimators.james_stein(three).point, effect[:3])


def test_estimators_move_and_stretch_with_the_data_and_follow_a_permutation():
    shape = structure(seed=7)
    order = np.random.default_rng(0).permutation(shape.effect.size)
    names = tuple(shape.units[i] for i in order)
    moved = ThreeLevelNormal(
        7 + 3 * shape.effect[order], 3 * shape.se[order], shape.group[order], names, shape.groups, data.LEVELS
    )
    for name, one in estimators.estimators(shape).items():
        other = estimators.estimators(moved)[name]
        np.testing.assert_allclose(other.point, 7 + 3 * one.point[order], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(other.se, 3 * one.se[order], rtol=1e-5, err_msg=name)


def test_partial_pooling_stands_beside_the_classical_estimators():
    found = CREATORS.estimate(DEFAULT)
    partial = found[found["estimator"] == "partial_pooling"].set_index("unit")
    plug_in = found[found["estimator"] == "empirical_bayes"].set_index("unit")
    assert len(partial) == 500
    assert np.abs(partial["estimate"] - plug_in["estimate"]).max() < 0.1 * plug_in["se"].median()
    assert (partial["se"] >= 0.99 * plug_in["se"]).all()
    assert found.loc[found["estimator"] != "no_pooling", "p"].isna().all()


# --- first look ---


def test_first_look_counts_and_warns_from_the_data():
    seen = CREATORS.first_look(DEFAULT).set_index("quantity")["value"]
    assert seen["creators"] == 500 and seen["users"] == DEFAULT.table["n"].sum()
    assert sum(seen[f"share[{label}]"] for label in look.SIZE_BINS) == pytest.approx(1)
    assert seen["normal_wrong"] == 0 and seen["truth[mu]"] == 0.5
    paying = CREATORS.first_look(CREATORS.dataset("few_payers")).set_index("quantity")
    assert paying.loc["normal_wrong", "value"] == 1
    assert "wrong here: 70% of users are at zero" in paying.loc["normal_wrong", "note"]
    assert "hurdle" in paying.loc["normal_wrong", "note"]
    plain = CREATORS.first_look(CREATORS.read(table()))
    assert "zero_share" not in set(plain["quantity"])


def test_pooled_skewness_is_that_of_the_outcome():
    """A log-normal outcome has skewness (e^(s²) + 2) √(e^(s²) − 1), whatever its arms' means."""
    dataset = CREATORS.simulate(seed=2, log_sd=0.4, sigma_creator=0, sigma_genre=0, mu=0)
    square = np.exp(0.16)
    seen = look.normality(dataset.table)
    assert seen.skewness == pytest.approx((square + 2) * np.sqrt(square - 1), rel=0.03)
    assert seen.users_needed == pytest.approx(355 * seen.skewness**2)
    assert seen.wrong and "skewness" in seen.sentence and "zero" not in seen.sentence
    alone = CREATORS.simulate(seed=2, zero_share=0.35, smallest=3000, small_below=3001, medium_below=3002)
    assert look.normality(alone.table).sentence.startswith(
        "A normal model for user revenue is wrong here: 35%"
    )


def test_genre_table_is_a_meta_analysis_of_each_genre():
    found = look.genre_table(DEFAULT).set_index("genre")
    here = DEFAULT.table[DEFAULT.table["genre"] == "music"]
    weight = here["se"] ** -2.0
    assert found.loc["music", "mean"] == pytest.approx((weight * here["effect"]).sum() / weight.sum())
    assert found.loc["music", "spread"] ** 2 == pytest.approx(
        tau2_dl(here["effect"].to_numpy(), here["se"].to_numpy())
    )
    lonely = look.genre_table(CREATORS.read(table()))
    assert np.isnan(lonely.set_index("genre").loc["x", "spread"])


# --- models ---


def test_default_priors_are_those_of_the_specification_until_the_unit_changes():
    base = CREATORS.model("base")
    texts = {"mu": "Normal(0, 1)", "sigma_genre": "HalfNormal(1)", "sigma_creator": "HalfNormal(1)"}
    assert {name: prior.text for name, prior in base.priors(DEFAULT).items()} == texts
    assert prior_scale(CREATORS.simulate(seed=9, sigma_creator=0.8)) == 1
    assert CREATORS.scale_note(DEFAULT) == ""
    cents = DEFAULT.table.assign(effect=DEFAULT.table["effect"] * 100, se=DEFAULT.table["se"] * 100)
    dataset = Dataset("upload", "x", cents)
    factor = prior_scale(dataset)
    assert factor == pytest.approx(100, rel=0.5)
    assert base.priors(dataset)["sigma_genre"].numbers == (factor,)
    assert f"{factor:g}" in CREATORS.scale_note(dataset)
    assert CREATORS.plausible(dataset) == (-5 * factor, 5 * factor)
    for preset in PRESETS:
        base.spec(dataset, preset.priors(dataset))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priors": {"tau": Prior.parse("HalfNormal(1)")}}, "sigma_genre"),
        ({"priors": {"sigma_genre": Prior.parse("Normal(0, 1)")}}, "prior on sigma_genre"),
        ({"constants": {"k": 1}}, "none for this model"),
        ({"covariates": ("x",)}, "none for this model"),
        ({"parameterization": "sideways"}, "collapsed"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        CREATORS.model("base").spec(DEFAULT, **options)


def test_a_million_creators_stay_in_arrow():
    big = CREATORS.simulate(seed=1, level="summaries", creators_per_genre=40_000)
    spec = CREATORS.model("base").spec(big)
    assert isinstance(spec.structure.units, data.Labels)
    assert spec.structure.units[199_999] == "c199999" and len(spec.structure.units) == 200_000
    assert CREATORS.read(big.table).table is big.table
    assert big.truth["theta[c123456]"] == big.truth.theta[123_456]
    assert np.array_equal(list(dict(big.truth).values())[8:], big.truth.theta)


# --- recovery ---


def test_scores_are_those_of_the_simulation_lab():
    """The same figures as `analysis.coverage` computes for no pooling, on one data set."""
    rng = np.random.default_rng(1)
    se = rng.uniform(0.5, 2, 40)
    theta = rng.standard_normal(40)
    effect = theta + se * rng.standard_normal(40)
    one = estimate("none", effect[None], se)
    found = scores(theta, {"none": Intervals(one.point[0], one.low[0], one.high[0])})
    row = found[found["level"] == 0.95].iloc[0]
    z = stats.norm.ppf(0.975)
    miss = np.maximum(np.abs(effect - theta) - z * se, 0)
    assert row["mse"] == pytest.approx(((effect - theta) ** 2).mean())
    assert row["bias"] == pytest.approx((effect - theta).mean())
    assert row["coverage"] == pytest.approx((miss == 0).mean())
    assert row["width"] == pytest.approx(2 * z * se.mean())
    assert row["interval_score"] == pytest.approx((2 * z * se + 40 * miss).mean())


def test_groups_cover_sizes_distance_and_selection():
    theta = np.arange(30.0)
    masks = groups(theta, np.zeros(30), -theta, ["small"] * 10 + ["large"] * 20)
    assert masks["size", "small"].sum() == 10 and masks["selection", "top tenth by raw effect"][:3].all()
    assert masks["distance", "farthest from the mean"][20:].all()
    assert masks["selection", "largest raw effect"].argmax() == 0
    with pytest.raises(InputError, match="one label per unit"):
        groups(theta, bins=["a"])


def test_errors_over_data_sets_are_those_of_independent_means():
    ends = np.ones((2, 1))
    parts = [
        scores(np.zeros(2), {"e": Intervals(np.full(2, shift), -ends, ends)}, levels=[0.9])
        for shift in (1.0, 2.0, 3.0)
    ]
    row = over_data_sets(parts).iloc[0]
    assert (row["replications"], row["units"]) == (3, 6)
    assert row["bias"] == 2 and row["bias_se"] == pytest.approx(1 / np.sqrt(3))
    assert row["mse"] == pytest.approx(14 / 3) and row["rmse"] == pytest.approx((14 / 3) ** 0.5)


def test_partial_pooling_does_on_the_default_design_what_the_theory_says():
    """Few seeds here; the same over 50 and more belongs to the validation run."""
    found, hyper = validation.recovery(12, seed=100)
    at = found[found["level"] == 0.95].set_index(["estimator", "grouping", "bin"])
    ratio = validation.relative_width(found).set_index(["estimator", "grouping", "bin"])["ratio"]
    partial = at.loc["partial_pooling"]
    for place in (("all", "all"), ("size", "n < 100")):
        assert partial.loc[place, "mse"] < at.loc["no_pooling"].loc[place, "mse"]
        assert partial.loc[place, "mse"] < at.loc["complete_pooling"].loc[place, "mse"]
        assert partial.loc[place, "mse"] == pytest.approx(
            at.loc["empirical_bayes"].loc[place, "mse"], rel=0.02
        )
    everyone = ("all", "all")
    # Four standard errors over data sets, and the point that small arms' estimated errors cost.
    for name in ("no_pooling", "partial_pooling"):
        row = at.loc[(name, *everyone)]
        assert abs(row["coverage"] - 0.95) < 4 * row["coverage_se"] + 0.01
    assert at.loc[("complete_pooling", *everyone), "coverage"] < 0.2
    assert ratio["partial_pooling", "size", "n < 100"] <= 0.65
    assert ratio["partial_pooling", "all", "all"] <= 0.72
    theory = np.mean([validation.theoretical_width(CREATORS.simulate(seed), 0.4) for seed in range(100, 112)])
    assert ratio["partial_pooling", "all", "all"] == pytest.approx(theory, abs=0.05)
    assert set(hyper["parameter"]) == {"mu", "sigma_genre", "sigma_creator"}
    assert hyper["covered"].mean() > 0.8


def test_the_scenario_has_a_lab_of_its_own():
    assert "base" in CREATORS.own_lab
    found = CREATORS.recovery(2, 5, priors={"mu": Prior.parse("Normal(0, 5)")})
    assert set(found["estimator"]) == {*validation.CLASSICAL, validation.PARTIAL}
    assert set(found["bin"]) >= {"all", *look.SIZE_BINS}
    assert (found["replications"] == 2).sum() > 0.9 * len(found)
    with pytest.raises(InputError, match="base"):
        CREATORS.recovery(2, 5, "other")


def test_recovery_needs_truth_and_known_names():
    with pytest.raises(InputError, match="truth"):
        validation.score_dataset(CREATORS.read(table(n=[10, 20, 30])))
    with pytest.raises(InputError, match="estimator"):
        validation.recovery(2, names=("magic",))
    with pytest.raises(InputError, match="knob"):
        validation.recovery(2, names=(), magic=1)
    with pytest.raises(InputError, match="replications"):
        validation.recovery(1)
