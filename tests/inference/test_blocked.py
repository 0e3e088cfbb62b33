"""Blocks of a population of circuits: every move keeps its law, and the whole agrees with NUTS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hbm_core.analysis.draws import summary
from hbm_core.errors import FitError, InputError
from hbm_core.inference.blocked import engine, kernel
from hbm_core.inference.blocked.engine import BlockedCache, applies, refuse_others
from hbm_core.inference.nuts import sample
from hbm_core.inference.sampler import Progress, Sampler
from hbm_core.inference.trajectory import log_density
from hbm_core.models import circuits_rule
from tests.inference.test_nuts_circuits import spec  # noqa: F401
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


@pytest.fixture(scope="module")
def blocked_cache(compile_cache) -> BlockedCache:
    return BlockedCache(compile_cache)


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


def test_circuits_given_the_covariance_have_the_density_of_the_whole(spec, blocked_cache) -> None:  # noqa: F811
    """Up to a number that Σ alone decides; and curves of long steps are near the exact ones."""
    blocked = replace(spec, parameterization="transport")
    blocks = engine._Blocks(
        blocked, Sampler(draws=10, tune=10, chains=1, seed=1), *blocked_cache.get(blocked)
    )
    (chain,), rng = blocks.chains, np.random.default_rng(9)
    states = np.tile(chain.x, (6, 1))
    states[:, blocks.inner] += 0.05 * rng.standard_normal((6, blocks.inner.size))
    value, slope, part = np.zeros(1), np.empty(blocks.dimensions), np.empty(blocks.inner.size)
    owed = kernel.owed_at(
        *engine._address(chain.near), *engine._address(chain.exact), states, blocks.at, blocks.inner,
        blocks.order, blocks.reference, blocks.bends, chain.parts,
    )  # fmt: skip
    gaps = []
    for x in states:
        assert log_density(*engine._address(blocks.whole), x, slope, value)
        whole = value[0]
        point = np.ascontiguousarray(x[blocks.inner])
        assert log_density(*engine._address(chain.exact), point, part, value)
        gaps.append(whole - value[0])
        assert part == pytest.approx(slope[blocks.inner], rel=1e-6, abs=1e-6)
    assert gaps == pytest.approx([gaps[0]] * len(gaps), abs=1e-7)
    assert (owed != 0).any() and np.std(owed) < engine._OFF


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


def test_blocks_agree_with_nuts(spec, compile_cache, blocked_cache) -> None:  # noqa: F811
    """Means and sds of everything, on readings that leave ridges; and what a fit says of itself."""
    seen: list[Progress] = []
    settings = Sampler(draws=1000, tune=300, chains=2, target_accept=0.85, seed=5)
    blocked = replace(spec, parameterization="transport")
    tree = engine.sample(blocked, settings, cache=blocked_cache, on_progress=seen.append)
    plain = sample(
        spec, Sampler(draws=1500, tune=500, chains=2, target_accept=0.97, seed=6), cache=compile_cache
    )
    found, other = summary(tree), summary(plain)
    assert list(found.index) == list(other.index)
    assert found["r_hat"].max() < 1.02 and other["r_hat"].max() < 1.02
    for name in ("mean", "sd"):
        error = np.hypot(found[f"mcse_{name}"], other[f"mcse_{name}"])
        assert ((found[name] - other[name]).abs() < 5 * error).all()
    assert tree.attrs["engine"] == "blocked" and not tree.attrs["partial"]
    assert tree["posterior"].sizes["draw"] == settings.draws
    assert set(tree.children) >= {"posterior", "sample_stats", "curves", "log_likelihood", "log_density"}
    done = [p.fraction for p in seen if p.chains]
    assert done == sorted(done) and done[-1] == 1.0
    again = engine.sample(blocked, settings, cache=blocked_cache)
    assert np.array_equal(again["posterior"]["theta"], tree["posterior"]["theta"])


def test_a_stopped_fit_keeps_its_draws_and_one_in_warm_up_has_none(spec, blocked_cache) -> None:  # noqa: F811
    blocked = replace(spec, parameterization="transport")
    drawn: list[Progress] = []

    def sampling() -> bool:
        return bool(drawn) and not drawn[-1].chains[0].tuning and drawn[-1].chains[0].finished > 60

    settings = Sampler(draws=100_000, tune=50, chains=2, target_accept=0.85, seed=5)
    tree = engine.sample(
        blocked, settings, cache=blocked_cache, on_progress=drawn.append, should_stop=sampling
    )
    assert tree.attrs["partial"] and tree.attrs["stopped"] == "on request"
    assert 0 < tree["posterior"].sizes["draw"] < settings.draws
    with pytest.raises(FitError, match="warming up"):
        engine.sample(blocked, settings, cache=blocked_cache, should_stop=lambda: True)


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
