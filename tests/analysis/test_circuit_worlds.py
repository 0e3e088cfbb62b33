"""Populations of circuits drawn from their priors, and readings of their curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis.circuit_worlds import curves_of, draw_population, named, read, true_curves, world
from tests.models.test_circuits import spec_of


def test_correlations_have_the_marginal_law_of_lkj() -> None:
    """(r + 1)/2 ~ Beta(η − 1 + P/2): Lewandowski, Kurowicka and Joe (2009), section 3."""
    rng, spec = np.random.default_rng(0), spec_of()
    drawn = [draw_population(spec, rng) for _ in range(2000)]
    corr, sigma = np.array([one["corr"] for one in drawn]), np.array([one["sigma"] for one in drawn])
    for pair in corr.T:
        assert stats.kstest((pair + 1) / 2, stats.beta(2.5, 2.5).cdf).pvalue > 1e-4
    assert stats.kstest(np.log(sigma).ravel(), stats.norm(-1.4, 0.5).cdf).pvalue > 1e-4
    # A circuit's deviations have the covariance that was drawn with them: in units of σ their product is r.
    away = np.array([(one["theta"] - one["alpha"]) / one["sigma"] for one in drawn])
    for place, (i, j) in enumerate(((1, 0), (2, 0), (2, 1))):
        gap = (away[:, :, i] * away[:, :, j]).mean(axis=1) - corr[:, place]
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(gap.size)


def test_readings_have_the_noise_and_gains_that_were_drawn() -> None:
    rng, spec = np.random.default_rng(1), spec_of()
    truth = draw_population(spec, rng) | {
        "noise": np.array([0.2]),
        "exponent": np.array([0.7]),
        "gain": np.array([0.1]),
    }
    f = true_curves(spec, truth)
    values = np.array([read(spec, truth, f, rng).value for _ in range(4000)])
    mean = f[spec.structure.point]
    size = (mean + np.sqrt(mean**2 + 0.1**2)) / 2
    # Moments of a log-normal gain: E g^a = e^(a² s²/2).
    spread = np.exp(2 * 0.01) - np.exp(0.01)
    variance = 0.04 * size**1.4 * np.exp(0.5 * 1.4**2 * 0.01) + spread * mean**2
    expected = mean * np.exp(0.005)
    assert values.mean(axis=0) == pytest.approx(expected, abs=5 * np.sqrt(variance.max() / 4000))
    assert values.var(axis=0) == pytest.approx(variance, rel=0.15)
    same = spec.structure.course[:, None] == spec.structure.course
    expected = np.where(same, spread * np.outer(mean, mean), 0.0)[0, 1:]
    assert np.cov(values.T)[0, 1:] == pytest.approx(expected, abs=0.08 * variance.max())


def test_a_world_names_its_truths_as_fits_do() -> None:
    spec = spec_of()
    structure, truth = world(spec, np.random.default_rng(2))
    assert set(truth) == set(structure.hyperparameters) | set(structure.unit_parameters)
    drawn = draw_population(spec, np.random.default_rng(2))
    assert named(structure, drawn) == pytest.approx(truth)
    assert curves_of(spec, truth) == pytest.approx(true_curves(spec, drawn))
    assert not np.array_equal(structure.value, spec.structure.value)
