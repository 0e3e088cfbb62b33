"""The solver against SciPy's stiff solver on equations written out by hand, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hbm_core.models.kinetics.absorption import ABSORPTION
from hbm_core.models.kinetics.mechanism import Mechanism, Parameter
from hbm_core.models.kinetics.program import Experiment, program, thinned
from hbm_core.models.kinetics.radau import pull, solve
from hbm_core.models.kinetics.rna import CIRCUITS, PARAMETERS
from hbm_core.models.kinetics.solver import curves, curves_and_slopes, error_estimate
from tests.models.kinetics.by_hand import CONDITIONS, curve

NAMES = tuple(PARAMETERS)
CENTER = np.array([parameter.center for parameter in PARAMETERS.values()])
SD = np.array([parameter.sd for parameter in PARAMETERS.values()])
TIMES = np.linspace(9.0, 180.0, 20)
EXPERIMENTS = [Experiment(CIRCUITS[id], CONDITIONS[id], TIMES) for id in CIRCUITS]
TABLES = program(EXPERIMENTS, NAMES)
#: Binding a hundred times faster than the prior's median, or two hundred times slower; maturation too.
STIFF = {"k_star_bind": 2.0, "k_trigger_binding": 2.0, "k_sequestration_bind": 2.0, "k_mat": 2.0}
SLOW = {"k_star_bind": -2.3, "k_trigger_binding": -2.3, "k_mat": -2.0, "k_star_act": 2.0}


def _draws() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    moved = [np.array([moves.get(name, 0.0) for name in NAMES]) for moves in (STIFF, SLOW)]
    return [CENTER, *(CENTER + move for move in moved), *(CENTER + SD * rng.normal(size=(2, CENTER.size)))]


def _by_circuit(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(EXPERIMENTS), -1, TIMES.size)


def test_curves_agree_with_every_state_written_out() -> None:
    for theta in _draws():
        found = _by_circuit(curves(TABLES, np.tile(theta, (len(EXPERIMENTS), 1))))
        constants = dict(zip(NAMES, 10**theta, strict=True))
        for id, ours in zip(CIRCUITS, found, strict=True):
            truth = curve(id, constants, CONDITIONS[id][2], TIMES)
            assert np.abs(ours[2] - truth).max() <= 1e-4 * truth.max(), id


@pytest.mark.parametrize("id", ["coherent_ffl", "incoherent_ffl"])
def test_loops_agree_over_draws_from_the_prior(id: str) -> None:
    """A few of the draws that `benchmarks/validate.py` takes hundreds of."""
    rng = np.random.default_rng(71)
    tables = program([Experiment(CIRCUITS[id], CONDITIONS[id][1:2], TIMES)], NAMES)
    for _ in range(6):
        theta = CENTER + SD * rng.standard_normal(CENTER.size)
        truth = curve(id, dict(zip(NAMES, 10**theta, strict=True)), CONDITIONS[id][1], TIMES)
        assert np.abs(curves(tables, theta[None]) - truth).max() <= 1e-4 * truth.max()


def test_many_conditions_are_each_their_own() -> None:
    """Six conditions fill one group of lanes and half of another."""
    id = "toehold_trigger"
    conditions = tuple({"toehold_gfp": 5.0 - k / 2, "trigger": float(k)} for k in range(6))
    tables = program([Experiment(CIRCUITS[id], conditions, TIMES)], NAMES)
    found, slopes = curves_and_slopes(tables, CENTER[None])
    for condition, ours in zip(conditions, found.reshape(6, -1), strict=True):
        truth = curve(id, dict(zip(NAMES, 10**CENTER, strict=True)), condition, TIMES)
        assert np.abs(ours - truth).max() <= 1e-4 * truth.max()
    weight = np.random.default_rng(4).normal(size=found.size)
    difference = [
        weight @ (curves(tables, CENTER[None] + step) - curves(tables, CENTER[None] - step)) / 2e-4
        for step in 1e-4 * np.eye(CENTER.size)
    ]
    _, record = solve(CENTER[None], tables.ints, tables.floats, tables.starts)
    gradient = pull(CENTER[None], tables.ints, tables.floats, tables.starts, record, weight)[0]
    np.testing.assert_allclose(gradient, difference, atol=1e-5 * np.abs(gradient).max())
    np.testing.assert_allclose(weight @ slopes, difference, atol=1e-5 * np.abs(gradient).max())


def test_a_dose_that_eats_is_no_pool() -> None:
    """Decay in proportion to an input differs by condition, and has a closed form."""
    parameters = {name: Parameter(name, 1.0, 0.5, "", "") for name in ("make", "eat")}
    mechanism = Mechanism("eaten", "", "-> x : make\nx -> : eat * [dose] * x", parameters, "x")
    doses = (0.5, 1.0, 4.0)
    tables = program([Experiment(mechanism, tuple({"dose": d} for d in doses), TIMES / 60)], ("make", "eat"))
    found = curves(tables, np.log10([[2.0, 0.7]])).reshape(3, -1)
    for dose, ours in zip(doses, found, strict=True):
        truth = 2.0 / (0.7 * dose) * (1 - np.exp(-0.7 * dose * TIMES / 60))
        assert np.abs(ours - truth).max() <= 1e-4 * truth.max()


def test_derivatives_agree_with_differences() -> None:
    for theta in _draws():
        rows = np.tile(theta, (len(EXPERIMENTS), 1))
        _, slopes = curves_and_slopes(TABLES, rows)
        for k in range(len(NAMES)):
            step = np.zeros(len(NAMES))
            step[k] = 1e-4
            difference = (curves(TABLES, rows + step) - curves(TABLES, rows - step)) / 2e-4
            error = np.abs(_by_circuit(difference - slopes[:, k])).max(axis=(1, 2))
            scale = np.abs(slopes).reshape(len(EXPERIMENTS), -1).max(axis=1)
            assert (error <= 1e-5 * scale).all(), NAMES[k]


def test_a_step_that_cannot_be_solved_is_cut() -> None:
    """Sequestration without unbinding, in vast excess: Newton does not find the end of the planned step."""
    id = "incoherent_ffl"
    moved = {
        "k_tx_init": 8.9e4,
        "k_star_act": 280,
        "k_sequestration_bind": 17,
        "k_sequestration_unbind": 3e-4,
    }
    moved |= {"k_sequestration_unbind": 3e-4, "k_trigger_binding": 8e-4, "k_trigger_unbinding": 0.11}
    constants = {name: parameter.median for name, parameter in PARAMETERS.items()} | moved
    theta = np.log10([[constants[name] for name in NAMES]])
    tables = program([Experiment(CIRCUITS[id], CONDITIONS[id][2:], TIMES)], NAMES)
    found, slopes = curves_and_slopes(tables, theta)
    truth = curve(id, constants, CONDITIONS[id][2], TIMES)
    assert np.abs(found - truth).max() <= 1e-4 * truth.max()
    for k, step in enumerate(1e-4 * np.eye(len(NAMES))):
        difference = (curves(tables, theta + step) - curves(tables, theta - step)) / 2e-4
        np.testing.assert_allclose(slopes[:, k], difference, atol=1e-5 * np.abs(slopes).max())


def test_constitutive_expression_has_the_published_size() -> None:
    """3 nM of plasmid give 2,550 to 2,750 nM of GFP in three hours."""
    found = _by_circuit(curves(TABLES, np.tile(CENTER, (len(EXPERIMENTS), 1))))
    assert 2550 <= found[0, 1, -1] <= 2750


def test_readings_from_a_baseline_are_differences() -> None:
    id, theta = "cascade", CENTER[None]
    times = np.array([10.0, 70.0, 150.0])
    plain = Experiment(CIRCUITS[id], CONDITIONS[id], np.array([30.0, 40.0, 100.0, 180.0]))
    shifted = Experiment(CIRCUITS[id], CONDITIONS[id], times, baseline=30.0)
    whole, slopes = curves_and_slopes(program([plain], NAMES), theta)
    part, less = curves_and_slopes(program([shifted], NAMES), theta)
    whole, slopes = whole.reshape(-1, 4), slopes.reshape(-1, 4, len(NAMES))
    np.testing.assert_allclose(part.reshape(-1, 3), whole[:, 1:] - whole[:, :1], rtol=1e-5)
    np.testing.assert_allclose(
        less.reshape(-1, 3, len(NAMES)),
        slopes[:, 1:] - slopes[:, :1],
        rtol=1e-3,
        atol=1e-4 * np.abs(slopes).max(),
    )


def test_thinned_curves_are_told_by_few_readings() -> None:
    """At prior medians: a third of the readings, a hundredth of each curve's maximum off at most."""
    theta = np.tile(CENTER, (len(EXPERIMENTS), 1))
    found = thinned(EXPERIMENTS, NAMES)
    assert found.program.size < 0.5 * TABLES.size
    assert max(len(one.times) for one in found.experiments) <= 8
    kept = curves(found.program, theta)
    told = (found.shares * kept[found.places]).sum(axis=1)
    assert told == pytest.approx(found.matrix @ kept, rel=1e-12)
    exact, near = (_by_circuit(values) for values in (curves(TABLES, theta), told))
    off = np.abs(near - exact).max(axis=2) / np.maximum(exact.max(axis=2), 1e-9)
    assert 0 < off.max() < 0.01


@pytest.mark.parametrize("baseline", [0.0, 30.0])
def test_a_cubic_through_the_kept_readings_tells_the_others(baseline: float) -> None:
    """Odd times, few of them, and two conditions: cubics come back exactly, kept readings as themselves."""
    times = np.array([1.0, 1.5, 4.0, 5.0, 6.0, 20.0, 21.0, 22.0, 90.0])
    for few in (times, times[:3], times[:1]):
        one = Experiment(ABSORPTION, ({"dose": 1.0}, {"dose": 2.0}), few, baseline)
        found = thinned([one, one], ABSORPTION.names)
        (kept, _) = found.experiments
        assert set(kept.times) <= set(few) and {few[0], few[-1]} <= set(kept.times)
        power = min(3, kept.times.size - 1)
        at = np.concatenate([scale * kept.times**power for scale in (1, 2, 3, 4)])
        expected = np.concatenate([scale * few**power for scale in (1, 2, 3, 4)])
        assert found.matrix @ at == pytest.approx(expected, rel=1e-9)


def test_the_error_estimate_covers_the_error() -> None:
    theta = np.tile(CENTER, (len(EXPERIMENTS), 1))
    estimate = error_estimate(EXPERIMENTS, NAMES, theta).reshape(len(EXPERIMENTS), -1)
    found = _by_circuit(curves(TABLES, theta))
    constants = dict(zip(NAMES, 10**CENTER, strict=True))
    for place, id in ((0, "constitutive"), (2, "toehold_trigger")):
        truth = curve(id, constants, CONDITIONS[id][2], TIMES)
        assert np.abs(found[place, 2] - truth).max() <= (1.5 * estimate[place, 2] + 1e-8) * truth.max()
    assert estimate.max() < 1e-4


def test_absorption_has_its_closed_form() -> None:
    times = np.array([0.25, 1.0, 2.0, 6.0, 12.0, 24.0])
    ka, ke, cl = 1.5, 0.08, 0.04
    tables = program([Experiment(ABSORPTION, ({"dose": 4.0}, {"dose": 5.5}), times)], ("Cl", "ka", "ke"))
    found = curves(tables, np.log10([[cl, ka, ke]])).reshape(2, -1)
    for dose, ours in zip((4.0, 5.5), found, strict=True):
        truth = dose * ka * ke / (cl * (ka - ke)) * (np.exp(-ke * times) - np.exp(-ka * times))
        assert np.abs(ours - truth).max() <= 1e-4 * truth.max()


@pytest.mark.parametrize("k_max", [1.0, 20.0])
def test_saturating_elimination(k_max: float) -> None:
    """A rate that saturates in the species it removes: solved inside Newton's steps."""
    parameters = {name: Parameter(name, 1.0, 0.5, "", "") for name in ("vmax", "half")}
    mechanism = Mechanism("elimination", "", "x -> : vmax * x / (half + x)", parameters, "x", {"x": "[dose]"})
    times = np.linspace(0.5, 6, 8)
    tables = program([Experiment(mechanism, ({"dose": 10.0},), times)], ("vmax", "half"))
    theta = np.log10([[k_max, 2.0]])
    found, slopes = curves_and_slopes(tables, theta)
    made = solve_ivp(
        lambda t, y: -k_max * y / (2 + y), (0, 6), [10.0], "LSODA", t_eval=times, rtol=1e-10, atol=1e-12
    )
    assert np.abs(found - made.y[0]).max() <= 1e-4 * 10
    for k in range(2):
        step = np.eye(2)[k] * 1e-4
        difference = (curves(tables, theta + step) - curves(tables, theta - step)) / 2e-4
        np.testing.assert_allclose(slopes[:, k], difference, atol=1e-5 * np.abs(slopes).max())
