"""Tables and pictures of models of counts that are sampled, on draws made without a sampler."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from hbm_core.analysis import count_extensions as tables
from hbm_core.analysis import rates
from hbm_core.analysis.count_worlds import draw_parameters, drift_paths, replicate_counts, simulated_structure
from hbm_core.analysis.counts_predictive import prior_predictive
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.inference.reweighted import Draws, reweight
from hbm_core.models.drifting_counts import DriftingCounts
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.plots import count_extensions as plots
from hbm_core.scenarios import scenario

COUNTS = scenario("counts")


def posterior_of(model, dataset, count=400, **fixed):
    """Draws from the priors, some parameters fixed near a value, read as a fit's result."""
    spec = COUNTS.model(model).spec(COUNTS.dataset(dataset))
    rng = np.random.default_rng(2)
    drawn = draw_parameters(spec, 2 * count, rng)
    for name, value in fixed.items():
        drawn[name] = value + 0.01 * rng.standard_normal(drawn[name].shape)
    sampled = {name: values.reshape(2, count, *values.shape[1:]) for name, values in drawn.items()}
    if model == "drift":
        paths = drift_paths(spec.structure, drawn, rng)[:, spec.structure.order]
        sampled["drift"] = paths.reshape(2, count, -1)
    completed = recipe(spec).complete(spec, sampled, 0)
    tree = result_tree(spec, completed, likelihood=False)
    for name, group in recipe(spec).groups(spec, sampled).items():
        tree[name] = xr.DataTree(group)
    return spec, tree, reweight(Draws.of(tree, spec), spec), sampled


def test_shut_windows_are_what_the_rates_do_not_explain():
    spec, _, posterior, _ = posterior_of("zero_inflated", "shut_hosts", psi=0.3, phi=4.0)
    table = tables.shut_table(posterior).set_index("kind")
    assert table.loc["seen", "share"] == pytest.approx((spec.structure.count == 0).mean())
    # A window shows zero when it is shut, or open and zero.
    without, with_shut = table.loc["without", "share"], table.loc["with", "share"]
    assert with_shut == pytest.approx(0.3 + 0.7 * without, abs=0.02)
    both = tables.rootograms(posterior)
    assert both["with"]["expected"].sum() == pytest.approx(spec.structure.count.size)
    assert both["with"]["expected"][0] > both["without"]["expected"][0]


def test_coefficients_are_those_of_the_draws():
    _, _, posterior, sampled = posterior_of("covariates", "load", beta=0.5)
    row = tables.coefficient_table(posterior).iloc[0]
    draws = sampled["beta"].ravel()
    assert row["column"] == "x" and row["mean"] == pytest.approx(draws.mean())
    assert row["factor"] == pytest.approx(np.exp(np.median(draws)), rel=1e-3)
    assert row["p_positive"] == 1.0 and row["low95"] < row["low50"] < row["median"] < row["high50"]


def test_trajectories_are_quantiles_of_each_windows_rate():
    spec, tree, _, sampled = posterior_of("drift", "drifting", count=100, mu=5.0, alpha=1.0)
    unit = spec.structure.units[3]
    table = tables.trajectory_table(spec, tree, unit)
    at = np.flatnonzero(spec.structure.entity == 3)
    assert len(table) == at.size and list(table["window"]) == list(range(1, at.size + 1))
    assert table["raw"].to_numpy() == pytest.approx(spec.structure.count[at])
    # These data stand entity by entity, so that the sampler's order is theirs.
    rate = sampled["theta"][..., 3, None] * np.exp(sampled["drift"][..., at])
    assert table["median"].to_numpy() == pytest.approx(np.quantile(rate, 0.5, axis=(0, 1)))
    latest = tree["posterior"]["latest"].sel(unit=unit).values
    assert latest == pytest.approx(rate[..., -1])
    innovation = sampled["sigma_drift"] * np.sqrt(1 - sampled["rho"] ** 2)
    assert tree["posterior"]["sigma_innovation"].values == pytest.approx(innovation)


def test_two_effects_and_the_ellipse_of_their_population():
    spec, _, posterior, _ = posterior_of(
        "joint", "traffic", mu_count=1.0, mu_bytes=6.0, sigma_count=0.5, sigma_bytes=0.8, corr=0.6
    )
    table, ellipse = tables.effects_table(posterior), tables.ellipse_table(posterior)
    assert list(table["unit"]) == list(spec.structure.units)
    assert (table["bytes_low95"] < table["bytes"]).all() and (table["rate"] < table["rate_high95"]).all()
    value = posterior.index("corr[count,bytes]")
    corr = posterior.mean[value]
    assert corr == pytest.approx(0.6, abs=0.01)
    law = stats.multivariate_normal(
        [1.0, 6.0], [[0.25, corr * 0.4], [corr * 0.4, 0.64]], seed=np.random.default_rng(1)
    )
    draws = law.rvs(40_000)
    inverse = np.linalg.inv(law.cov)
    for share, rows in ellipse.groupby("share"):
        points = np.log(rows[["rate", "bytes"]].to_numpy()) - [1.0, 6.0]
        radius = np.einsum("ij,jk,ik->i", points, inverse, points)
        assert radius == pytest.approx(radius[0], rel=0.05)
        away = draws - [1.0, 6.0]
        inside = (np.einsum("ij,jk,ik->i", away, inverse, away) < radius.mean()).mean()
        assert inside == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("model", "dataset"),
    [("zero_inflated", "shut_hosts"), ("covariates", "load"), ("drift", "drifting"), ("joint", "traffic")],
)
def test_worlds_keep_the_design_and_replicates_are_whole(model, dataset):
    spec = COUNTS.model(model).spec(COUNTS.dataset(dataset))
    rng = np.random.default_rng(3)
    drawn = draw_parameters(spec, 1, rng)
    made = simulated_structure(spec.structure, drawn, rng)
    assert made.entity is not None and (made.entity == spec.structure.entity).all()
    assert type(made) is type(spec.structure) and (made.count == np.round(made.count)).all()
    assert prior_predictive(spec, 30).shape[1] == spec.structure.count.size


def test_means_and_variances_of_simulated_counts():
    """Moments of each kind of world against their formulas."""
    spec = COUNTS.model("zero_inflated").spec(COUNTS.dataset("shut_hosts"))
    structure = spec.structure
    size = 4000
    theta = np.full((size, len(structure.units)), 3.0)
    draws = {"theta": theta, "phi": np.full(size, 2.0), "psi": np.full(size, 0.25)}
    made = replicate_counts(structure, draws, np.random.default_rng(1))[:, 0]
    assert made.mean() == pytest.approx(0.75 * 3, abs=5 * np.sqrt(0.75 * (3 + 4.5 + 9) / size))
    assert (made == 0).mean() == pytest.approx(0.25 + 0.75 * (2 / 5) ** 2, abs=0.03)
    drifting = DriftingCounts(np.ones(12), np.repeat([0, 1], 6), ("a", "b"))
    path = drift_paths(
        drifting, {"rho": np.full(size, 0.7), "sigma_drift": np.full(size, 0.5)}, np.random.default_rng(2)
    )
    assert path.std(axis=0) == pytest.approx(np.full(12, 0.5), rel=0.06)
    corr = np.corrcoef(path.T)
    assert corr[0, 1] == pytest.approx(0.7, abs=0.04) and corr[0, 3] == pytest.approx(0.343, abs=0.06)
    assert abs(corr[5, 6]) < 0.07


def test_pictures_show_their_tables():
    from hbm_core.models.dataset import Words
    from hbm_core.plots.shrinkage import View
    from hbm_core.plots.theme import digits

    view = View(Words("host", "hosts", "Rate", "events"), digits(np.ones(3), np.ones(3)), "light", "a", 0, {})
    bands = {name: [1.0, 2.0] for name in ("low95", "low50", "median", "high50", "high95")}
    figure = plots.trajectory(pd.DataFrame({"window": [1, 2], "raw": [0.0, 9.0], "mean": 1.0} | bands), view)
    assert figure.to_dict()["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0, pytest.approx(9.45)]
    shut = pd.DataFrame(
        {"kind": ["seen"], "label": ["Seen"], "share": [0.5], "low95": [0.4], "high95": [0.6]}
    )
    assert "Share of zeros" in str(plots.shares(shut, view).to_dict())
    one = {"mean": 0.1, "sd": 0.1, "factor": 1.1, "factor_low95": 1.0, "factor_high95": 1.2, "p_positive": 1}
    table = pd.DataFrame([{"column": "x"} | one | {name: values[0] for name, values in bands.items()}])
    assert "per sd of the column" in str(plots.coefficients(table, view).to_dict())


def test_priors_of_log_means_follow_the_data():
    found = COUNTS.dataset("traffic")
    table = found.table.assign(bytes=found.table["bytes"] * 1e6, count=found.table["count"] * 100)
    priors = COUNTS.model("joint").priors(COUNTS.read(table))
    assert priors["mu_bytes"] == Prior.parse("Normal(20, 3)") and priors["mu_count"].numbers[0] > 5
    assert COUNTS.model("joint").priors(found)["mu_bytes"] == Prior.parse("Normal(6, 3)")
    spec = COUNTS.model("joint").spec(found)
    assert isinstance(spec, ModelSpec) and spec.structure.hyperparameters[4] == "corr[count,bytes]"


@pytest.mark.parametrize(("model", "dataset"), [("zero_inflated", "shut_hosts"), ("covariates", "load")])
def test_latest_and_next_windows_are_averages_over_draws(model, dataset):
    fixed = {"mu": 4.0, "alpha": 1.0, "phi": 3.0} | (
        {"psi": 0.3} if model == "zero_inflated" else {"beta": 0.4}
    )
    spec, _, posterior, sampled = posterior_of(model, dataset, **fixed)
    draws = {name: values.reshape(800, *values.shape[2:]) for name, values in sampled.items()}
    structure = spec.structure
    found = rates.surprise_table(posterior).set_index("unit")
    ahead = rates.forecast_table(posterior).set_index("unit")
    for at in (0, 7, 20):
        unit, place = structure.units[at], structure.latest[at]
        mean = draws["theta"][:, at] * structure.exposure[place]
        if model == "covariates":
            mean = mean * np.exp(structure.design[place] @ draws["beta"].T)
        law = stats.nbinom(draws["phi"], draws["phi"] / (draws["phi"] + mean))
        opened = 1 - draws["psi"] if model == "zero_inflated" else np.ones(800)
        y = structure.count[place]
        above = np.where(y > 0, opened * law.sf(y - 1), 1.0)
        same = np.where(y > 0, 0.0, 1 - opened) + opened * law.pmf(y)
        row = found.loc[unit]
        assert row["above"] == pytest.approx(above.mean(), abs=1e-9)
        assert row["below"] == pytest.approx(1 - above.mean() + same.mean(), abs=1e-9)
        assert row["log_density"] == pytest.approx(np.log(same.mean()), abs=1e-9)
        tail = above if row["side"] == "more" else 1 - above + same
        assert row["k"] == 0 and 0.9 * 2 * tail.std() / np.sqrt(800) < row["mcse"] < 2 * tail.std()
        next_row = ahead.loc[unit]
        assert next_row["expected"] == pytest.approx((opened * mean).mean())
        inside = (1 - opened + opened * law.cdf(next_row["high90"])).mean()
        assert inside > 0.95 - 0.03 and next_row["low90"] <= next_row["median"] <= next_row["high90"]


def test_the_latest_window_of_a_drifting_rate_is_predicted_from_the_earlier_ones():
    """Two windows: both steps of the drift by a plain sum over a grid, draws from the same grid."""
    rho, sigma, theta = 0.7, 0.8, np.array([3.0, 8.0])
    structure = DriftingCounts([2, 9, 5, 6], [0, 0, 1, 1], ("a", "b"))
    names = {"mu": 5.0, "alpha": 1.0, "rho": rho, "sigma_drift": sigma}
    priors = {
        n: Prior.parse(t)
        for n, t in zip(names, ("Gamma(5, 1)", "Gamma(5, 5)", "Uniform(-1, 1)", "Gamma(4, 5)"), strict=True)
    }
    spec = ModelSpec(structure, priors, {}, "noncentered")
    d = np.linspace(-5, 5, 401)
    step = stats.norm(rho * d[:, None], sigma * np.sqrt(1 - rho**2)).pdf(d) * (d[1] - d[0])
    first = stats.norm(0, sigma).pdf(d)
    rng = np.random.default_rng(6)
    paths, truth = np.empty((4_000, 2, 2)), []
    for i, (one, two) in enumerate(structure.count.reshape(2, 2)):
        like_one, like_two = (stats.poisson(theta[i] * np.exp(d)).pmf(y) for y in (one, two))
        joint = (first * like_one)[:, None] * step * like_two
        cells = rng.choice(joint.size, 4_000, p=joint.ravel() / joint.sum())
        paths[:, i] = d[np.stack(np.unravel_index(cells, joint.shape), axis=1)]
        before = (first * like_one) @ step / (first @ like_one)
        latest = joint.sum(axis=0) / joint.sum()
        means = theta[i] * np.exp(d)
        far = before @ stats.poisson(means).sf(two - 1)
        truth.append((far, np.log(before @ like_two), latest @ step @ means))
    draws = {name: value * np.exp(1e-9 * rng.standard_normal((2, 2_000))) for name, value in names.items()}
    draws |= {"theta": np.tile(theta, (2, 2_000, 1)) * np.exp(1e-9 * rng.standard_normal((2, 2_000, 2)))}
    draws["drift"] = paths.reshape(2, 2_000, 4)
    tree = result_tree(spec, recipe(spec).complete(spec, draws, 0), likelihood=False)
    posterior = reweight(Draws.of(tree, spec), spec)
    found = rates.surprise_table(posterior).set_index("unit").loc[["a", "b"]]
    ahead = rates.forecast_table(posterior).set_index("unit").loc[["a", "b"]]
    far, log_density, expected = np.array(truth).T
    assert (found["k"] < found["limit"]).all() and (found["limit"] > 0.5).all()
    assert found["above"].to_numpy() == pytest.approx(far, abs=0.015)
    assert found["log_density"].to_numpy() == pytest.approx(log_density, abs=0.03)
    assert (np.abs(ahead["expected"] - expected) < 5 * ahead["mcse"]).all()
