"""Readouts without a refit: a refit, dense brute force and conjugate closed forms must say the same."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from hbm_core.inference.exact.three_level import solve_three_level
from hbm_core.inference.precomputed import Hyperposterior, score
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal
from hbm_core.models.three_level import ThreeLevelNormal

PROBABILITIES = (0.025, 0.1, 0.9, 0.975)


def batch(groups=4, units=5, seed=1, **priors):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), units)
    se = np.exp(rng.uniform(-2, 0, group.size))
    y = rng.normal(0.5, 0.4, groups)[group] + rng.normal(0, np.hypot(se, 0.4))
    labels = tuple(f"g{g}" for g in range(groups))
    structure = ThreeLevelNormal(y, se, group, tuple(f"u{i}" for i in range(y.size)), labels)
    texts = {"mu": "Normal(0, 1)", "sigma_group": "HalfNormal(1)", "sigma_unit": "HalfNormal(1)"} | priors
    found = {name: Prior.parse(text) for name, text in texts.items()}
    return ModelSpec(structure, found, parameterization="collapsed")


def with_one_more(spec, y, se, label):
    old = spec.structure
    groups = old.groups if label in old.groups else (*old.groups, label)
    structure = ThreeLevelNormal(
        np.append(old.effect, y), np.append(old.se, se), np.append(old.group, groups.index(label)),
        (*old.units, "new"), groups, old.levels,
    )  # fmt: skip
    return replace(spec, structure=structure)


@pytest.mark.parametrize(
    ("priors", "units"),
    [({}, 5), ({}, 150), ({"mu": "Flat()"}, 5), ({"mu": "StudentT(4, 0, 1)"}, 5)],
    ids=["small", "large", "flat", "student"],
)
def test_a_readout_is_that_of_a_refit_with_the_unit(priors, units) -> None:
    spec = batch(units=units, **priors)
    hyper = Hyperposterior.of(solve(spec))
    tries = [(1.2, 0.3, "g1"), (-0.4, 0.05, "g3"), (0.9, 0.5, "elsewhere")]
    effect, se, label = (list(column) for column in zip(*tries, strict=True))
    found = score(hyper, np.array(effect), np.array(se), label)
    assert found.known.tolist() == [True, True, False]
    assert not found.far.any()
    for place, one in enumerate(tries):
        refit = solve_three_level(with_one_more(spec, *one))
        last = refit.structure.effect.size - 1
        mean, sd = (values[-1] for values in refit.unit_moments())
        assert abs(found.mean[place] - mean) < 1e-5 * sd
        assert found.sd[place] == pytest.approx(sd, rel=1e-5)
        ends = (found.low95[place], found.low80[place], found.high80[place], found.high95[place])
        assert np.allclose(ends, refit.unit_quantiles(PROBABILITIES, [last])[0], rtol=0, atol=1e-5 * sd)
        assert found.above[place] == pytest.approx(refit.unit_probability_above(0.0, [last])[0], abs=1e-6)
        if refit.weights is not None:
            assert found.own[place] == pytest.approx(refit.weights.own[-1], abs=0.02)


def test_it_is_the_mixture_that_dense_brute_force_gives() -> None:
    spec = batch(groups=3, units=3, seed=4)
    y, s, group = spec.structure.effect, spec.structure.se, spec.structure.group
    new_y, new_s, new_group = 1.5, 0.3, 2
    grid = (np.arange(200) + 0.5) * 5 / 200
    x = np.linspace(-1.5, 3.5, 401)
    density = np.zeros_like(x)
    same = np.equal.outer(np.append(group, new_group), np.append(group, new_group))
    full_y = np.append(y, new_y)
    between = grid[:, None, None] ** 2 * same
    for unit in grid:
        prior = between + unit**2 * np.eye(10) + 1.0
        lower = np.linalg.cholesky(prior + np.diag(np.append(s, new_s) ** 2))
        z = np.linalg.solve(lower, np.broadcast_to(full_y[:, None], (grid.size, 10, 1)))[..., 0]
        diagonal = np.diagonal(lower, axis1=1, axis2=2)
        height = np.exp(-0.5 * np.vecdot(z, z) - 0.5 * unit**2 - 0.5 * grid**2) / diagonal.prod(axis=1)
        half = np.linalg.solve(lower, prior[:, :, -1:])[..., 0]
        sd = np.sqrt(prior[:, -1, -1] - np.vecdot(half, half))
        density += height @ stats.norm.pdf(x, np.vecdot(half, z)[:, None], sd[:, None])
    density /= density.sum() * (x[1] - x[0])
    mean = (density * x).sum() * (x[1] - x[0])
    sd = np.sqrt((density * (x - mean) ** 2).sum() * (x[1] - x[0]))
    found = score(Hyperposterior.of(solve(spec)), new_y, new_s, "g2")
    assert found.mean[0] == pytest.approx(mean, abs=2e-4 * sd)
    assert found.sd[0] == pytest.approx(sd, rel=2e-4)
    inside = (x > found.low95[0]) & (x < found.high95[0])
    assert density[inside].sum() * (x[1] - x[0]) == pytest.approx(0.95, abs=0.01)


def one_node(**changes) -> Hyperposterior:
    values = {
        "levels": ("unit", "group"), "groups": ("a",), "weights": [1.0], "mu_mean": [1.0], "mu_sd": [0.3],
        "sigma_group": [0.4], "sigma_unit": [0.5], "group_mean": [[2.0]], "group_sd": [[0.2]],
    }  # fmt: skip
    return Hyperposterior(**(values | changes))


def test_one_node_is_conjugate() -> None:
    found = score(one_node(), [3.0, 3.0], [0.7, 0.7], ["a", None], threshold=1.0)
    for place, (center, variance) in enumerate([(2.0, 0.2**2 + 0.5**2), (1.0, 0.3**2 + 0.4**2 + 0.5**2)]):
        precision = 1 / variance + 1 / 0.7**2
        mean = (center / variance + 3.0 / 0.7**2) / precision
        normal = stats.norm(mean, precision**-0.5)
        assert found.mean[place] == pytest.approx(mean)
        assert found.sd[place] == pytest.approx(normal.std())
        ends = [found.low95[place], found.low80[place], found.high80[place], found.high95[place]]
        assert np.allclose(ends, normal.ppf(PROBABILITIES))
        assert found.above[place] == pytest.approx(normal.sf(1.0))
        assert found.own[place] == pytest.approx(1 / 0.7**2 / precision)


def test_limits_of_the_standard_error() -> None:
    hyper = Hyperposterior.of(solve(batch()))
    sure, blind = score(hyper, 0.7, 1e-6, "g1"), score(hyper, 50.0, 1e6, "g1")
    assert sure.mean[0] == pytest.approx(0.7, abs=1e-6)
    assert sure.own[0] == pytest.approx(1, abs=1e-6)
    # Without data of its own a unit is one of its group.
    assert blind.mean[0] == pytest.approx(hyper.weights @ hyper.group_mean[1], abs=1e-3)
    assert blind.own[0] < 1e-6


def test_an_effect_beyond_the_nodes_is_flagged_and_two_peaks_have_right_quantiles() -> None:
    hyper = Hyperposterior.of(solve(batch(units=150)))
    assert score(hyper, 30.0, 0.1, "g1").far[0]
    two = one_node(
        weights=[0.5, 0.5], mu_mean=[0.0, 0.0], mu_sd=[0.0, 0.0], sigma_group=[0.0, 0.0],
        sigma_unit=[0.01, 0.01], group_mean=[[-5.0, 5.0]], group_sd=[[0.0, 0.0]],
    )  # fmt: skip
    found = score(two, 0.0, 100.0, "a")
    assert found.low95[0] == pytest.approx(stats.norm.ppf(0.05, -5, 0.01), abs=1e-5)
    assert found.high80[0] == pytest.approx(stats.norm.ppf(0.8, 5, 0.01), abs=1e-5)


def test_order_and_company_change_nothing() -> None:
    hyper, rng = Hyperposterior.of(solve(batch())), np.random.default_rng(2)
    y, s, place = rng.normal(0.5, 0.5, 700), rng.uniform(0.05, 1, 700), rng.integers(0, 5, 700)
    found, turned = score(hyper, y, s, place), score(hyper, y[::-1], s[::-1], place[::-1])
    assert np.allclose(found.high95, turned.high95[::-1], rtol=0, atol=1e-9)
    assert score(hyper, y[3], s[3], place[3:4]).low80[0] == pytest.approx(found.low80[3], abs=1e-9)


def test_a_file_is_what_was_written_or_refused(tmp_path) -> None:
    hyper = Hyperposterior.of(solve(batch()), {"scenario": "creators"})
    path = tmp_path / "hyper.json"
    hyper.write(path)
    again = Hyperposterior.read(path)
    assert again.digest == hyper.digest
    assert again.learned == hyper.learned
    assert score(again, 1.0, 0.2, "g0").mean == score(hyper, 1.0, 0.2, "g0").mean
    value = json.loads(path.read_text())
    value["nodes"]["sigma_unit"][0] *= 2
    for text in (json.dumps(value), json.dumps(value | {"version": 99}), "[]", "nonsense"):
        path.write_text(text)
        with pytest.raises(InputError):
            Hyperposterior.read(path)


def test_what_cannot_be_precomputed_or_scored_is_refused() -> None:
    with pytest.raises(InputError, match="prior on mu"):
        Hyperposterior.of(solve(batch(mu="Uniform(-5, 5)")))
    priors = {"mu": Prior.parse("Normal(0, 1)"), "tau": Prior.parse("HalfNormal(1)")}
    two = ModelSpec(TwoLevelNormal(np.arange(3.0), np.ones(3), ("a", "b", "c")), priors)
    with pytest.raises(InputError, match="three-level"):
        Hyperposterior.of(solve(two))
    hyper = one_node()
    for effect, se in ((np.nan, 1.0), (1.0, 0.0), ([1.0, 2.0], [1.0, -1.0])):
        with pytest.raises(InputError, match="standard errors"):
            score(hyper, effect, se, "a")
    with pytest.raises(InputError, match="groups"):
        score(hyper, [1.0, 2.0], 1.0, ["a"])
    with pytest.raises(InputError, match="sum to 1"):
        one_node(weights=[0.5])
