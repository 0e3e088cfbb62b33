"""Leave-one-out of units in groups against refits without each unit, and the calibration of its PIT."""

import numpy as np
import pytest
from scipy.stats import kstest

from hbm_core.analysis.loo import elpd, loo_table
from hbm_core.errors import NotExactError
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

PRIORS = {"mu": "Normal(0, 2)", "sigma_group": "HalfNormal(1)", "sigma_unit": "HalfNormal(1)"}


def spec(effect: np.ndarray, se: np.ndarray, group: np.ndarray, **priors: str) -> ModelSpec[ThreeLevelNormal]:
    units, groups = tuple(f"u{k}" for k in range(effect.size)), tuple(f"g{k}" for k in range(group.max() + 1))
    chosen = {name: Prior.parse(text) for name, text in {**PRIORS, **priors}.items()}
    return ModelSpec(ThreeLevelNormal(effect, se, group, units, groups), chosen, {}, "collapsed")


def data(seed: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    se = rng.uniform(0.2, 1.0, group.size)
    mean = 3.0 + rng.normal(0, 0.7, len(sizes))
    theta = mean[group] + rng.normal(0, 0.5, group.size)
    return theta + se * rng.standard_normal(group.size), se, group


@pytest.mark.parametrize("mu", ["Normal(0, 2)", "Flat()", "StudentT(4, 0, 2)"])
def test_each_row_is_a_refit_without_the_unit(mu: str) -> None:
    effect, se, group = data(1, (4, 6, 3))
    full = spec(effect, se, group, mu=mu)
    if mu.startswith("StudentT"):
        with pytest.raises(NotExactError, match="normal or flat"):
            loo_table(full)
        return
    table = loo_table(full)
    for unit in (0, 5):
        rest = np.arange(effect.size) != unit
        posterior = solve(spec(effect[rest], se[rest], group[rest], mu=mu))
        # What a new unit of the group would measure, from draws of the refit.
        drawn = posterior.draws(50_000, seed=3)
        rng = np.random.default_rng(4)
        center = drawn["mu_group"][:, group[unit]]
        spread = np.hypot(drawn["sigma_unit"], se[unit])
        new = center + spread * rng.standard_normal(center.size)
        below = (new < effect[unit]).mean()
        row = table.iloc[unit]
        assert row["pit"] == pytest.approx(below, abs=4 * np.sqrt(below * (1 - below) / 50_000))
        for name, p in (("low95", 0.025), ("predicted", 0.5), ("high95", 0.975)):
            assert (new < row[name]).mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 50_000))
        density = np.exp(-0.5 * ((effect[unit] - center) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        error = density.std() / np.sqrt(density.size)
        assert np.exp(row["log_density"]) == pytest.approx(density.mean(), abs=4 * error)
    assert elpd(table)["units"] == effect.size
    assert table["log_density"].to_numpy() == pytest.approx(solve(full).unit_log_predictive(), abs=1e-9)


def test_pits_are_uniform_where_the_model_is_right_and_shift_nothing() -> None:
    effect, se, group = data(2, (120, 150, 130))
    table = loo_table(spec(effect, se, group))
    assert kstest(table["pit"], "uniform").pvalue > 0.01
    wrong = loo_table(spec(effect, se, group, sigma_unit="Uniform(0, 0.01)"))
    assert kstest(wrong["pit"], "uniform").pvalue < 0.01
    moved = loo_table(spec(effect + 1e6, se, group, mu="Normal(1000000, 2)"))
    assert moved["predicted"].to_numpy() - 1e6 == pytest.approx(table["predicted"].to_numpy(), abs=1e-6)
