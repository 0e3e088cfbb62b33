import numpy as np
import pytest

from hbm_core.analysis.stress import (
    PRIOR_GRID,
    break_the_shrinkage,
    leave_one_unit_out,
    power_scaling,
    prior_sensitivity,
    threshold_grid,
)
from hbm_core.errors import InputError
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from tests.analysis.worlds import EFFECT, SE, dense, pooled, schools, tree_of


@pytest.fixture(scope="module")
def sensitivity():
    return prior_sensitivity(schools())


def test_every_prior_of_the_grid(sensitivity):
    variants = sensitivity.table["variant"].unique().tolist()
    assert variants == ["HalfCauchy(10) (as it is)", *(prior.text for prior in PRIOR_GRID)]
    assert sensitivity.notes == ()
    rows = sensitivity.table.set_index(["variant", "parameter"])
    _, mass, mean, _, _ = dense(schools(tau="HalfNormal(5)"))
    assert rows.loc[("HalfNormal(5)", "theta[A]"), "mean"] == pytest.approx(mass @ mean[:, 0], abs=1e-5)
    base = rows.loc[("HalfCauchy(10) (as it is)", "theta[A]")]
    shift = (rows.loc[("HalfNormal(5)", "theta[A]"), "mean"] - base["mean"]) / base["sd"]
    assert rows.loc[("HalfNormal(5)", "theta[A]"), "shift"] == pytest.approx(shift)
    assert (rows.loc["HalfCauchy(10) (as it is)"]["shift"] == 0).all()


def test_tighter_priors_shrink_more(sensitivity):
    rows = sensitivity.table.set_index(["parameter", "variant"]).loc["theta[A]"]["mean"]
    assert rows["HalfNormal(2)"] < rows["HalfNormal(5)"] < rows["HalfNormal(10)"] < rows["Uniform(0, 50)"]


def test_densities_integrate_to_one(sensitivity):
    for (_, parameter), part in sensitivity.densities.groupby(["variant", "parameter"]):
        mass = np.trapezoid(part["density"], part["x"])
        assert 0.93 < mass < 1.005, parameter


def test_grid_in_other_units():
    spec = schools("Normal(0, 2)", "HalfCauchy(1)", EFFECT / 10, SE / 10)
    small = prior_sensitivity(spec, factor=0.1).table
    large = prior_sensitivity(schools()).table
    np.testing.assert_allclose(small["mean"] * 10, large["mean"], rtol=1e-6)


def test_variants_that_are_improper_are_told():
    spec = schools("Flat()", "HalfCauchy(5)", EFFECT[:2], SE[:2])
    found = prior_sensitivity(spec, [Prior("Flat")])
    assert len(found.notes) == 1
    assert found.table["variant"].nunique() == 1
    with pytest.raises(InputError):
        prior_sensitivity(pooled("complete", mu="Normal(0, 20)"))


def test_threshold_grid():
    spec = schools(scale="adaptive")
    found = threshold_grid(spec, points=4001)
    assert found.table["variant"].nunique() == 6
    curves = found.densities
    # at t = 1 the map folds: the induced prior is checked against transformed draws
    part = curves[(curves["variant"] == "t = 1") & (curves["parameter"] == "tau_star prior")]
    tau = np.random.default_rng(0).standard_cauchy(400_000)
    tau = np.abs(tau) * 10
    w = 1 / (1 + np.exp(-2 * (tau - 1)))
    star = w * tau + (1 - w) * 4 * tau
    counts, edges = np.histogram(star, np.array([0.3, 0.8, 2.0, 4.0, 10.0]))
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        x = np.linspace(low, high, 4001)
        # the fold's density has an integrable spike: compare masses, coarsely
        mass = np.trapezoid(np.interp(x, part["x"], part["density"]), x)
        assert mass == pytest.approx(count / 400_000, rel=0.05)
    with pytest.raises(InputError):
        threshold_grid(schools())


def test_leave_one_unit_out():
    table = leave_one_unit_out(schools()).set_index(["left_out", "parameter"])
    keep = np.arange(8) != 6
    _, mass, mean, _, _ = dense(schools(effect=EFFECT[keep], se=SE[keep]))
    assert table.loc[("G", "theta[A]"), "mean"] == pytest.approx(mass @ mean[:, 0], abs=1e-5)
    full = solve(schools())
    shift = (mass @ mean[:, 0] - full.mean[2]) / full.sd[2]
    assert table.loc[("G", "theta[A]"), "shift"] == pytest.approx(shift, abs=1e-5)
    assert ("G", "theta[G]") not in table.index


def test_what_is_a_law_and_what_is_not():
    table = break_the_shrinkage(schools(), solve(schools()))
    by = table.groupby("measure").first()
    assert by["law"].to_dict() == {"E[B]": True, "displacement": False, "realised fraction": False}
    # C and A are less precise than all but H; B and G, D and F tie in s
    assert by.loc["E[B]", "rank_correlation"] == pytest.approx(1)
    assert by.loc["displacement", "rank_correlation"] < 0.5


def test_power_scaling_sees_a_decisive_prior():
    conflict = schools("Normal(40, 4)", "HalfNormal(5)")
    table = power_scaling(tree_of(conflict, draws=1000), conflict).set_index("parameter")
    assert table.loc["mu", "prior"] > 0.05
    vague = schools("Normal(0, 2000)", "HalfCauchy(10)")
    table = power_scaling(tree_of(vague, draws=1000), vague).set_index("parameter")
    assert table.loc["mu", "prior"] < 0.05
    assert table.loc["mu", "likelihood"] > 0.05
