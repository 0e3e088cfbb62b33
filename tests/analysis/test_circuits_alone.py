"""Circuits by themselves against a dense likelihood over another solver; bands against their closed form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize, stats

from hbm_core.analysis import time_courses as tables
from hbm_core.analysis.own_fits import own_fits
from hbm_core.inference.recipes import recipe
from hbm_core.inference.reweighted import Draws, reweight
from hbm_core.models.kinetics import lsoda
from hbm_core.models.kinetics.absorption import ABSORPTION
from hbm_core.models.kinetics.program import Experiment
from hbm_core.models.kinetics.solver import curves
from hbm_core.models.one_parameter import one_parameter
from hbm_core.models.prior import Prior
from hbm_core.scenarios.circuits import CIRCUITS, data

TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
TRUE = {"ka": 1.2, "ke": 0.09, "Cl": 0.045}
NOISE, EXPONENT, GAIN = 0.08, 0.77, 0.1


def curve(theta: np.ndarray) -> np.ndarray:
    constants = dict(zip(ABSORPTION.names, 10 ** np.asarray(theta), strict=True))
    return lsoda.curves(Experiment(ABSORPTION, ({"dose": 4.0},), TIMES), constants)[0]


def subjects(replicates: int, count: int = 2) -> pd.DataFrame:
    rng, f = np.random.default_rng(5), curve(np.log10(list(TRUE.values())))
    rows = []
    for unit in "ABCDEFGH"[:count]:
        for replicate in range(replicates):
            gain = 1 + GAIN * rng.standard_normal()
            value = gain * f + NOISE * f**EXPONENT * rng.standard_normal(f.size)
            rows += [(unit, str(replicate), t, v) for t, v in zip(TIMES, value, strict=True)]
    table = pd.DataFrame(rows, columns=["circuit", "replicate", "time", "value"])
    return table.assign(condition="oral", mechanism="absorption", **{"input:dose": 4.0})


@pytest.fixture(scope="module")
def few():
    return data.read(subjects(4))


def test_a_unit_by_itself_is_the_mode_of_its_own_posterior(few) -> None:
    """Dense covariance, LSODA, and SciPy's minimiser and differences instead of ours."""
    made = CIRCUITS.model("full").spec(few).structure
    found = own_fits(made)
    declared = [made.declared[name] for name in made.fitted]
    table = few.table[few.table["circuit"] == "A"].sort_values(["replicate", "time_min"])
    value = table["gfp_nM"].to_numpy().reshape(4, TIMES.size)
    # The weights of the last round are those of the curve before it, which is the same to this accuracy.
    f0 = curve(found.theta[0])
    positive = 0.5 * (f0 + np.sqrt(f0**2 + 1))
    sd = found.noise * positive**found.exponent
    covariance = np.diag(sd**2) + found.gain**2 * np.outer(f0, f0)
    inverse = np.linalg.inv(covariance)

    def cost(theta: np.ndarray) -> float:
        gap = value - curve(theta)
        prior = sum(((t - one.center) / one.sd) ** 2 for t, one in zip(theta, declared, strict=True))
        return float(0.5 * np.einsum("rt,tu,ru->", gap, inverse, gap) + 0.5 * prior)

    best = optimize.minimize(
        cost, found.theta[0], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-8}
    )
    np.testing.assert_allclose(found.theta[0], best.x, atol=0.1 * found.sd[0].min())
    step = 0.3 * found.sd[0]
    for place in range(3):
        move = np.zeros(3)
        move[place] = step[place]
        # Along one parameter, the others fitted again: ½ (step/sd)² above the minimum.
        rest = [k for k in range(3) if k != place]

        def profile(
            x: np.ndarray, place: int = place, rest: list[int] = rest, move: np.ndarray = move
        ) -> float:
            theta = best.x + move
            theta[rest] = x
            return cost(theta)

        raised = optimize.minimize(profile, best.x[rest], method="Nelder-Mead").fun - best.fun
        assert raised == pytest.approx(0.5 * 0.3**2, rel=0.15)


@pytest.mark.parametrize("name", ["six", "activators"])
def test_no_circuit_is_left_in_a_minimum_above_the_truth(name: str) -> None:
    """A dense covariance and the prior: none may cost more than the parameters that made its readings."""
    dataset = CIRCUITS.dataset(name)
    made = CIRCUITS.model("full").spec(dataset).structure
    found = own_fits(made)
    true = np.array([dataset.truth[one] for one in made.unit_parameters]).reshape(found.theta.shape)
    declared = [made.declared[one] for one in made.fitted]
    center, width = (np.array([getattr(one, of) for one in declared]) for of in ("center", "sd"))
    rest = np.tile([made.declared[one].center for one in made.fixed], (len(made.units), 1))
    level = found.curve[made.point]
    sd = found.noise * (0.5 * (level + np.sqrt(level**2 + 1))) ** found.exponent
    circuit = np.searchsorted(made.tables.starts[1:, 2], made.point, side="right")

    def cost(theta: np.ndarray) -> np.ndarray:
        gap = made.value - curves(made.tables, np.column_stack([theta, rest]))[made.point]
        total = (((theta - center) / width) ** 2).sum(axis=1)
        for one in np.unique(made.course):
            here = made.course == one
            covariance = np.diag(sd[here] ** 2) + found.gain**2 * np.outer(level[here], level[here])
            total[circuit[here][0]] += gap[here] @ np.linalg.solve(covariance, gap[here])
        return total

    assert (cost(found.theta) < cost(np.where(made.uses, true, center))).all()


def test_noise_and_gain_are_found() -> None:
    found = own_fits(CIRCUITS.model("full").spec(data.read(subjects(60))).structure)
    # 720 readings and 120 gains: relative sds of 0.03, 0.06 at the ends of the curve, and 0.065.
    assert found.gain == pytest.approx(GAIN, rel=0.2)
    f = curve(np.log10(list(TRUE.values())))
    positive = 0.5 * (f + np.sqrt(f**2 + 1))
    np.testing.assert_allclose(found.noise * positive**found.exponent, NOISE * f**EXPONENT, rtol=0.12)


def fitted(few, count: int = 4000):
    """A fit whose curves are two constants, half of the draws each."""
    spec = CIRCUITS.model("diagonal").spec(few)
    made, rng, half = spec.structure, np.random.default_rng(3), count // 2
    size, units = len(made.fitted), len(made.units)
    alpha = rng.standard_normal((2, half, size))
    alpha[1] += 4
    posterior = xr.Dataset(
        {
            "alpha": (("chain", "draw", "inferred"), alpha),
            "sigma": (("chain", "draw", "parameter"), np.full((2, half, size), 0.25)),
            "noise": (("chain", "draw"), np.full((2, half), 0.2)),
            "exponent": (("chain", "draw"), np.full((2, half), 1.0)),
            "gain": (("chain", "draw"), np.full((2, half), 0.1)),
            "theta": (("chain", "draw", "circuit", "parameter"), rng.standard_normal((2, half, units, size))),
        },
        {
            name: list(labels)
            for name, labels in recipe(spec).coords(spec).items()
            if name != "pair" and name != "unit"
        },
    )
    f = np.concatenate([np.full((half, made.tables.starts[-1, 2]), level) for level in (10.0, 50.0)])
    chain, draw = np.divmod(np.arange(count), half)
    labels = {"chain": ("sample", chain), "draw": ("sample", draw)}
    labels |= {name: ("point", values) for name, values in made.point_labels.items()}
    curves = xr.Dataset({"curve": (("sample", "point"), f)}, labels)
    return xr.DataTree.from_dict({"posterior": posterior, "curves": curves}), spec


def test_bands_hold_new_readings_and_follow_the_weights(few) -> None:
    tree, spec = fitted(few)
    draws = Draws.of(tree, spec)
    both = tables.bands(reweight(draws, spec))
    assert ((both["low95"] < 12) & (both["high95"] > 45)).all()
    # Priors that only the second chain's means can have: curves at 50 alone are left.
    moved = {
        name: Prior("Normal", (prior.numbers[0] + 4, prior.numbers[1]))
        for name, prior in spec.priors.items()
        if name.startswith("alpha[")
    }
    ratio = recipe(spec).log_ratio(
        CIRCUITS.model("diagonal").spec(few, {**spec.priors, **moved}), spec, draws.variables
    )
    weight = np.exp(ratio - ratio.max())
    assert weight[:2000].sum() < 0.01 * weight.sum()
    posterior = reweight(draws, spec)
    only = np.repeat([0.0, 1 / 2000], 2000)
    posterior.weight[:] = only
    table = tables.bands(posterior)
    positive = 0.5 * (50 + np.sqrt(50**2 + 1))
    sd = np.hypot(0.1 * 50, 0.2 * positive)
    # Readings of 50 g with sd 0.2 g m, over log g ~ Normal(0, 0.1): a law by its distribution function.
    log_gain = np.linspace(-0.6, 0.6, 601)
    share = stats.norm.pdf(log_gain, 0, 0.1)
    share /= share.sum()

    def below(value: float) -> float:
        gain = np.exp(log_gain)
        return float(share @ stats.norm.cdf(value, 50 * gain, 0.2 * gain * positive))

    for name, probability in tables.BANDS.items():
        expected = optimize.brentq(lambda value, wanted=probability: below(value) - wanted, -100, 300)
        # Monte Carlo sd of a quantile of 2,000 draws: at most 0.06 sd; the mean over points is nearer.
        assert abs(table[name].mean() - expected) < 0.1 * sd
    assert (tables.draw_table(posterior, 3)["value"] == 50).all()
    inside = tables.coverage(posterior, table).set_index("circuit")
    assert inside.loc["all", "readings"] == len(few.table)


def test_moved_priors_of_vectors_weigh_draws_by_their_densities(few) -> None:
    spec = CIRCUITS.model("full").spec(few)
    size, rng, n = len(spec.structure.fitted), np.random.default_rng(8), 40
    sigma = np.exp(rng.standard_normal((n, size)) - 1)
    corr = rng.uniform(-0.4, 0.4, (n, size * (size - 1) // 2))
    alpha = rng.standard_normal((n, size))
    draws = {"alpha": alpha, "sigma": sigma, "corr": corr, "theta": rng.standard_normal((n, 2, size))}
    draws |= {name: rng.uniform(0.1, 1, n) for name in ("noise", "exponent", "gain")}
    new = CIRCUITS.model("full").spec(
        few,
        {
            "alpha[ke]": Prior("Normal", (-1.0, 0.3)),
            "corr": Prior("LKJ", (5.0,)),
            "sigma": Prior("HalfNormal", (0.7,)),
        },
    )
    found = recipe(spec).log_ratio(new, spec, draws)
    place, old = spec.structure.fitted.index("ke"), spec.priors["alpha[ke]"].numbers
    expected = stats.norm.logpdf(alpha[:, place], -1.0, 0.3) - stats.norm.logpdf(alpha[:, place], *old)
    expected += (
        stats.halfnorm.logpdf(sigma, scale=0.7) - stats.lognorm.logpdf(sigma, 0.5, scale=np.exp(-1.3863))
    ).sum(axis=1)
    omega = np.array([np.eye(size)] * n)
    rows, columns = np.tril_indices(size, -1)
    omega[:, rows, columns] = omega[:, columns, rows] = corr
    # LKJ's density is det^(η − 1); the constant does not matter.
    expected += 3.0 * np.log(np.linalg.det(omega))
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-8, atol=1e-8)


def test_without_pooling_a_prior_acts_on_every_unit(few) -> None:
    spec = CIRCUITS.model("independent").spec(few)
    rng = np.random.default_rng(9)
    theta = rng.standard_normal((30, 2, 3))
    draws = {"theta": theta} | {name: rng.uniform(0.1, 1, 30) for name in ("noise", "exponent", "gain")}
    draws["alpha"] = np.empty((30, 0))
    new = CIRCUITS.model("independent").spec(few, {"alpha[ka]": Prior("Normal", (0.5, 0.2))})
    found = recipe(spec).log_ratio(new, spec, draws)
    old = spec.priors["alpha[ka]"].numbers
    expected = (stats.norm.logpdf(theta[..., 0], 0.5, 0.2) - stats.norm.logpdf(theta[..., 0], *old)).sum(
        axis=1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_one_parameter_shows_the_fits_own_draws(few) -> None:
    tree, spec = fitted(few)
    posterior = reweight(Draws.of(tree, spec), spec)
    seen = one_parameter(spec, "ke", np.zeros((2, 3)), np.ones((2, 3)))
    view = posterior.renamed(seen, seen.structure.names)
    assert view.names[:2] == ("alpha[ke]", "sigma")
    assert view.names[-2:] == ("theta[A]", "theta[B]")
    own = tree["posterior"]["theta"].sel(circuit="B", parameter="ke").values
    assert view.mean[-1] == pytest.approx(own.mean(), rel=1e-12)
