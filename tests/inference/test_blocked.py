"""Blocks of a population of circuits: every move keeps its law, and the whole agrees with NUTS."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.inference.blocked import engine, kernel
from hbm_core.inference.blocked.engine import applies, refuse_others
from hbm_core.models import circuits_rule
from tests.models.test_circuits import spec_of

USES = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])


def covariance(size: int, seed: int = 1) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T + 0.5 * np.eye(size)


def test_deviations_have_the_density_of_what_circuits_use() -> None:
    sigma, rng = covariance(4), np.random.default_rng(2)
    root, gap, by_root = np.linalg.cholesky(sigma), rng.normal(size=(3, 4)), np.empty((4, 4))
    wanted = 0.0
    for own, used in zip(gap, USES > 0, strict=True):
        wanted += stats.multivariate_normal.logpdf(own[used], cov=sigma[np.ix_(used, used)])
    assert circuits_rule.deviate(root, gap, USES, by_root) == pytest.approx(wanted, rel=1e-12)
    for i, j in ((0, 0), (2, 1), (3, 0), (1, 3)):
        step = np.zeros((4, 4))
        step[i, j] = 1e-6
        ends = [circuits_rule.deviate(root + s * step, gap, USES, np.empty((4, 4))) for s in (1, -1)]
        assert by_root[i, j] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-7)


@pytest.fixture
def ridges() -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """α, a root of Σ, u (2, 4) and a transport that bends."""
    rng = np.random.default_rng(3)
    count, size, stiff, features = 2, 4, 2, 6
    root = np.ascontiguousarray(np.triu(rng.normal(size=(size, size))) + 2 * np.eye(size))
    basis = np.linalg.qr(rng.normal(size=(count, size, size)))[0]
    inner = rng.normal(size=(count, features, 2)) @ basis[:, :, 2:].swapaxes(1, 2)
    firm = 5 + rng.random((count, stiff))
    curvature = np.array([b[:, :2] * f @ b[:, :2].T for b, f in zip(basis, firm, strict=True)])
    bend = (
        rng.normal(size=(count, size)), curvature, np.ascontiguousarray(basis[:, :, :2]), firm, inner,
        rng.normal(size=(count, features)), rng.normal(size=(count, stiff, features)),
    )  # fmt: skip
    return rng.normal(size=size), root, rng.normal(size=(count, size)), bend


def test_standard_coordinates_lead_back(ridges) -> None:
    mean, root, u, bend = ridges
    theta, back = np.empty(u.shape), np.empty(u.shape)
    circuits_rule.carry(mean, root, *bend, u, theta)
    assert np.abs(theta - mean - u @ root.T).max() > 0.1
    circuits_rule.uncarry(mean, root, *bend, theta, back)
    assert back == pytest.approx(u, abs=1e-10)


def test_a_given_covariance_leads_to_the_same_circuits_and_density(ridges) -> None:
    """By the parts that are the same as long as Σ is, and with the gradient by differences."""
    mean, root, u, (mode, curvature, basis, firm, inner, offset, outer) = ridges
    (count, size), stiff = u.shape, firm.shape[1]
    theta, placed = np.empty(u.shape), np.empty(u.shape)
    density = circuits_rule.carry(mean, root, mode, curvature, basis, firm, inner, offset, outer, u, theta)
    back, push, tilt = np.empty((size, size)), np.empty((count, size, size)), np.empty((count, size, size))
    parts = back, push, tilt, np.empty((count, stiff, stiff))
    constant = circuits_rule.given(root, mode, curvature, basis, firm, *parts)
    turned, h, z = np.ascontiguousarray(inner.swapaxes(1, 2)), np.empty(offset.shape), np.empty(u.shape)

    def at(mean: np.ndarray, u: np.ndarray) -> float:
        return circuits_rule.place(
            mean, u, *parts, constant, mode, basis, turned, offset, outer, placed, h, z
        )

    weight, share = np.random.default_rng(8).normal(size=u.shape), 0.7
    by_mean, by_u = np.empty(size), np.empty(u.shape)
    assert at(mean, u) == pytest.approx(density, rel=1e-12)
    assert placed == pytest.approx(theta, abs=1e-12)
    circuits_rule.place_back(*parts, basis, turned, outer, h, z, weight, share, by_mean, by_u)
    for where, step in ((by_mean, 1e-6 * np.eye(size)), (by_u, 1e-6 * np.eye(u.size))):
        for found, h_step in zip(where.ravel(), step, strict=True):
            ends = []
            for sign in (1, -1):
                moved = (
                    (mean, u + sign * h_step.reshape(u.shape)) if where is by_u else (mean + sign * h_step, u)
                )
                value = at(*moved)
                ends.append(np.sum(weight * placed) + share * value)
            assert found == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-6)


def test_ends_are_judged_by_the_exact_density() -> None:
    """Trajectories by a normal that is shifted and too wide leave draws of the exact one what they were."""
    import nutpie
    import pymc as pm

    densities = []
    for mean, sd in ((0.4, 1.3), (0.0, 1.0)):
        with pm.Model() as model:
            pm.Normal("x", mean, sd, shape=2)
        densities.append(nutpie.compile_pymc_model(model))
    near, exact = (engine._address(density) for density in densities)
    rng, count = np.random.default_rng(7), 20_000
    state = rng.standard_normal((count, 2))
    before = state.copy()
    room, other = (tuple(np.empty(2) for _ in range(n)) for n in (5, 4))
    chances = np.empty(count)
    for n, row in enumerate(state):
        gap = stats.norm.logpdf(row) - stats.norm.logpdf(row, 0.4, 1.3)
        owed = np.array([gap.sum()])
        chances[n] = kernel.move(
            *near, *exact, owed, row, np.arange(2), np.ones((1, 2)), np.log(0.5), 1.5, 64, rng, room, other
        )[0]
        gap = stats.norm.logpdf(row) - stats.norm.logpdf(row, 0.4, 1.3)
        assert owed[0] == pytest.approx(gap.sum(), abs=1e-9)
    assert 0.5 < chances.mean() < 0.98 and (state != before).any(axis=1).mean() > 0.5
    for coordinate in state.T:
        assert stats.kstest(coordinate, "norm").pvalue > 1e-4


def test_means_are_drawn_from_their_normal() -> None:
    sigma, rng = covariance(4), np.random.default_rng(4)
    theta, median, sd = rng.normal(size=(3, 4)), rng.normal(size=4), np.array([1.0, 0.5, 2.0, 1.0])
    precision, pull = np.diag(1 / sd**2), median / sd**2
    for own, used in zip(theta, USES > 0, strict=True):
        inside = np.zeros((4, 4))
        inside[np.ix_(used, used)] = np.linalg.inv(sigma[np.ix_(used, used)])
        precision, pull = precision + inside, pull + inside @ own
    wanted = np.linalg.inv(precision)
    found = np.empty((20_000, 4))
    for row in found:
        kernel.draw_means(theta, row, sigma, USES, median, sd, rng)
    error = np.sqrt(np.diag(wanted) / len(found))
    assert (np.abs(found.mean(axis=0) - wanted @ pull) < 5 * error).all()
    assert np.cov(found.T) == pytest.approx(wanted, abs=5 * np.sqrt(2 / len(found)) * wanted.max())


def test_unused_constants_are_drawn_given_the_used_ones() -> None:
    sigma, rng = covariance(4), np.random.default_rng(5)
    theta, alpha = rng.normal(size=(3, 4)), rng.normal(size=4)
    found = np.empty((20_000, 3, 4))
    for draw in found:
        draw[:] = theta
        kernel.draw_unused(draw, alpha, sigma, np.linalg.cholesky(sigma), USES, rng)
    for c, used in enumerate(USES > 0):
        assert (found[:, c, used] == theta[c, used]).all()
        if used.all():
            continue
        others = ~used
        share = np.linalg.solve(sigma[np.ix_(used, used)], sigma[np.ix_(used, others)]).T
        mean = alpha[others] + share @ (theta[c] - alpha)[used]
        left = sigma[np.ix_(others, others)] - share @ sigma[np.ix_(used, others)]
        error = np.sqrt(np.diag(left) / len(found))
        assert (np.abs(found[:, c, others].mean(axis=0) - mean) < 5 * error).all()
        got = np.cov(found[:, c, others].T).reshape(left.shape)
        assert got == pytest.approx(left, abs=5 * np.sqrt(2 / len(found)) * left.max())


def test_a_second_try_keeps_the_law_where_the_usual_step_is_too_long() -> None:
    """Y's scale runs from 0.05 to 20: the step suits the middle, and is hopeless where y is narrow."""
    import nutpie
    import pymc as pm

    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Normal("y", 0.0, pm.math.exp(x))
    compiled = nutpie.compile_pymc_model(model)
    address, data = np.uint64(compiled.compiled_logp_func.address), np.uint64(compiled.user_data.ctypes.data)
    rng, count = np.random.default_rng(6), 40_000
    state = rng.standard_normal((count, 2))
    state[:, 1] *= np.exp(state[:, 0])
    before = state.copy()
    room, other = (tuple(np.empty(2) for _ in range(n)) for n in (5, 4))
    none, hopeless = (np.uint64(0), np.uint64(0), np.zeros(1)), 0
    for row in state:
        chance = kernel.move(
            address, data, *none, row, np.arange(2), np.ones((1, 2)), np.log(0.9), 2.5, 64, rng, room, other
        )[0]
        hopeless += chance <= kernel._HOPELESS
    # Second tries are made, and many of them count.
    assert hopeless > 0.05 * count
    moved = (state != before).any(axis=1)
    assert moved[before[:, 0] < -1].mean() > 0.1
    # Each point was a draw of the law by itself, and must be one still.
    assert stats.kstest(state[:, 0], "norm").pvalue > 1e-4
    assert stats.kstest(state[:, 1] * np.exp(-state[:, 0]), "norm").pvalue > 1e-4
    for low, high in ((-4, -1.5), (-1.5, -0.5), (0.5, 4)):
        share = np.mean((state[:, 0] > low) & (state[:, 0] < high))
        wanted = stats.norm.cdf(high) - stats.norm.cdf(low)
        assert abs(share - wanted) < 4.5 * np.sqrt(wanted / count)


@pytest.mark.parametrize(
    ("parameterization", "structure"),
    [
        ("noncentered", {}),
        ("transport", {"pooling": "diagonal"}),
        ("transport", {"covariance": "inverse_wishart"}),
    ],
)
def test_models_without_blocks_are_told(parameterization, structure) -> None:
    other = spec_of(parameterization, **structure)
    assert not applies(other)
    with pytest.raises(InputError, match="--engine nuts"):
        refuse_others(other)
