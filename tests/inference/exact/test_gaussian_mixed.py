"""The engine of Gaussian mixed models: dense brute force, laws, reductions, its own error, draws."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest

from hbm_core.errors import ImproperPosteriorError, InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal
from tests.inference.exact.mixed_brute_force import brute_force, structure_of, world


def spec_of(structure, spread="HalfNormal(0.5)", mu="Normal(0, 1)", geometry="collapsed", **others):
    texts = {name: others.get(name, spread) for name in structure.spreads} | {"mu": mu}
    return ModelSpec(structure, {name: Prior.parse(text) for name, text in texts.items()}, {}, geometry)


#: The same prior for outcomes a hundred times larger.
SCALED = ("LogNormal(-1, 0.3)", f"LogNormal({float(np.log(100) - 1)!r}, 0.3)")
CASES = {
    "walk": (world(0, walk=True, slots=3), dict(), 36, None),
    "walk, one group": (
        world(1, walk=True, groups=1, members=4, slots=4, sd=(0.5, 0, 0.3, 0)),
        dict(spread="HalfNormal(1)"),
        40,
        None,
    ),
    "walk, priors that the data contradict": (
        world(2, walk=True, slots=3, sd=(0.5, 0, 1, 0.5)),
        dict(spread="HalfNormal(0.03)", mu="Normal(-2, 0.2)"),
        40,
        0.5,
    ),
    "walk, other families": (
        world(3, walk=True, slots=3),
        dict(sigma_genre="Gamma(3, 8)", sigma_drift="Exponential(4)", sigma_creator="Uniform(0, 0.9)"),
        36,
        None,
    ),
    "crossed": (world(4, se=(0.4, 0.9)), dict(), 18, None),
    "crossed, one row per member": (
        world(5, groups=3, members=1, missing=0.6, se=(0.4, 0.9)),
        dict(spread="HalfNormal(1)"),
        20,
        None,
    ),
    "crossed, priors that the data contradict": (
        world(6, sd=(0.6, 0.6, 0.6, 0.6), se=(0.4, 0.9)),
        dict(spread="HalfNormal(0.15)", mu="Normal(-1, 0.3)"),
        20,
        1.3,
    ),
    "crossed, an empty cell": (
        structure_of(
            np.array([0.3, 1.1, -0.4, 0.9]),
            np.array([0.4, 0.5, 0.6, 0.4]),
            np.array([0, 0, 1, 1]),
            np.array([0, 0, 1, 2]),
            np.array([0, 1, 0, 0]),
            2,
            2,
            False,
        ),
        dict(),
        18,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_means_sds_and_evidence_are_those_of_a_dense_normal_over_a_grid(name):
    structure, priors, count, reach = CASES[name]
    spec = spec_of(structure, **priors)
    posterior = solve(spec)
    mean, sd, log_evidence = brute_force(structure, spec.priors, count, reach)
    worst = max((np.abs(posterior.mean - mean) / sd).max(), (np.abs(posterior.sd - sd) / sd).max())
    assert worst < 5e-5
    assert worst < posterior.error + 5e-6 < 2e-3
    assert posterior.log_evidence == pytest.approx(log_evidence, abs=1e-5)


def test_reweighted_nodes_say_what_new_ones_do():
    structure = world(7, walk=True, groups=3, members=4, slots=4, missing=0.1)
    solve(spec_of(structure))
    near = spec_of(structure, spread="HalfNormal(0.4)")
    kept, fresh = solve(near), solve(replace(near, structure=world(7, True, 3, 4, 4, missing=0.1)))
    assert not kept.replaced and len(kept.shares.weights) == len(solve(near).shares.weights)
    assert (np.abs(kept.mean - fresh.mean) / fresh.sd).max() < 1e-4
    assert (np.abs(kept.sd - fresh.sd) / fresh.sd).max() < 1e-4


def test_a_far_prior_makes_new_nodes():
    structure = world(7, walk=True, slots=3)
    solve(spec_of(structure))
    far = spec_of(structure, spread="HalfNormal(0.004)")
    found = solve(far)
    assert found.replaced
    mean, sd, _ = brute_force(structure, far.priors, 24, 0.04)
    assert (np.abs(found.mean - mean) / sd).max() < 1e-4


@pytest.mark.parametrize("walk", [False, True])
def test_shift_and_scale_carry_over(walk):
    structure = world(8, walk=walk, members=3)
    # Priors that know the sds of the crossed take fewer nodes.
    near, far = ("HalfNormal(0.5)", "HalfNormal(50)") if walk else SCALED
    plain = solve(spec_of(structure, spread=near, mu="Normal(0.2, 1)"))
    moved = replace(structure, effect=100 * structure.effect + 7e4, se=100 * structure.se)
    there = solve(spec_of(moved, spread=far, mu="Normal(70020, 100)"))
    differs = np.array([name.startswith(("sigma", structure.contrast)) for name in plain.names])
    shift = np.where(differs, 0.0, 7e4)
    assert np.allclose((there.mean - shift) / 100, plain.mean, rtol=0, atol=2e-4 * plain.sd.min())
    assert np.allclose(there.sd / 100, plain.sd, rtol=2e-4)


@pytest.mark.parametrize("walk", [False, True])
def test_order_of_rows_members_and_groups_is_of_no_account(walk):
    structure = world(9, walk=walk, members=3)
    order = np.random.default_rng(1).permutation(structure.effect.size)
    swapped = replace(
        structure,
        effect=structure.effect[order],
        se=structure.se[order],
        group=1 - structure.group[order],
        groups=structure.groups[::-1],
        member=(len(structure.members) - 1 - structure.member)[order],
        members=structure.members[::-1],
        slot=structure.slot[order],
        units=tuple(structure.units[place] for place in order),
    )
    spread = "HalfNormal(0.5)" if walk else SCALED[0]
    one, other = solve(spec_of(structure, spread)), solve(spec_of(swapped, spread))
    places = [other.index(name) for name in one.names]
    assert np.allclose(other.mean[places], one.mean, rtol=0, atol=1e-8)
    assert np.allclose(other.sd[places], one.sd, rtol=1e-7)


def three_levels(structure):
    """The same data as three levels: members combined over their slots by precision."""
    weight = structure.se**-2.0
    total = np.bincount(structure.member, weight)
    effect = np.bincount(structure.member, weight * structure.effect) / total
    priors = {"mu": "Normal(0, 1)", "sigma_genre": "HalfNormal(0.5)", "sigma_creator": "HalfNormal(0.5)"}
    plain = ThreeLevelNormal(
        effect, total**-0.5, structure.group_of, structure.members, structure.groups, structure.levels
    )
    return solve(ModelSpec(plain, {n: Prior.parse(t) for n, t in priors.items()}, {}, "collapsed"))


@pytest.mark.parametrize("walk", [False, True])
def test_without_what_slots_add_it_is_the_model_of_three_levels(walk):
    structure = world(10, walk=walk, groups=3, members=3, slots=3)
    nothing = dict.fromkeys(structure.spreads[1:-1], "HalfNormal(1e-6)")
    found, plain = solve(spec_of(structure, **nothing)), three_levels(structure)
    # As close as the engine says that it is.
    near = max(1e-4, found.error)
    for name in ("mu", "sigma_genre", "sigma_creator"):
        at, there = found.index(name), plain.index(name)
        assert found.mean[at] == pytest.approx(plain.mean[there], abs=near * plain.sd[there])
        assert found.sd[at] == pytest.approx(plain.sd[there], rel=near)
    for place, unit in enumerate(structure.units):
        there = plain.index(f"theta[{structure.members[structure.member[place]]}]")
        at = found.index(f"theta[{unit}]")
        assert found.mean[at] == pytest.approx(plain.mean[there], abs=near * plain.sd[there])
        assert found.sd[at] == pytest.approx(plain.sd[there], rel=near)


def test_one_segment_without_its_spreads_is_the_model_of_three_levels():
    structure = world(11, groups=3, members=3, slots=1, missing=0)
    found = solve(spec_of(structure, sigma_segment="HalfNormal(1e-6)", sigma_interaction="HalfNormal(1e-6)"))
    plain = three_levels(structure)
    assert found.unit_moments()[0] == pytest.approx(plain.unit_moments()[0], abs=1e-5)
    assert found.unit_moments()[1] == pytest.approx(plain.unit_moments()[1], rel=1e-4)


def test_geometry_changes_nothing():
    structure = world(12, walk=True)
    means = [solve(spec_of(structure, geometry=g)).mean for g in structure.parameterizations]
    assert len(means) == 3 and np.array_equal(means[0], means[1]) and np.array_equal(means[0], means[2])


@pytest.fixture(scope="module", params=[False, True], ids=["crossed", "walk"])
def posterior(request):
    spread = "HalfNormal(0.5)" if request.param else SCALED[0]
    return solve(spec_of(world(13, walk=request.param, groups=2, members=4, slots=3), spread))


def test_densities_quantiles_and_moments_agree(posterior):
    names = [*posterior.structure.parameters, posterior.names[posterior.theta.start - 1], posterior.names[-1]]
    for name in names:
        place = posterior.index(name)
        low, high = (
            posterior.mean[place] - 9 * posterior.sd[place],
            posterior.mean[place] + 14 * posterior.sd[place],
        )
        low = max(low, 0.0) if name in posterior.structure.spreads else low

        def density(x, name=name):
            return float(posterior.density(name, np.array([x]))[0])

        options = dict(limit=200, points=[posterior.mean[place]], epsabs=1e-6, epsrel=1e-6)
        assert quad(density, low, high, **options)[0] == pytest.approx(1, abs=2e-4)
        mean = quad(lambda x, density=density: x * density(x), low, high, **options)[0]
        assert mean == pytest.approx(posterior.mean[place], abs=1e-3 * posterior.sd[place])
        p = np.array([0.025, 0.5, 0.9])
        ends = posterior.quantiles(p)[place]
        assert posterior.cdf(name, ends) == pytest.approx(p, abs=1e-6)
        below = quad(density, low, ends[2], limit=200, epsabs=1e-6, epsrel=1e-6)[0]
        assert below == pytest.approx(0.9, abs=5e-4)


def test_draws_follow_the_posterior(posterior):
    draws = posterior.draws(4000, seed=5)
    flat = {**{name: draws[name] for name in posterior.structure.parameters}}
    flat[posterior.names[-1]] = draws["theta"][:, -1]
    flat[f"{posterior.structure.contrast}[{posterior.structure.contrasts[1]}]"] = draws[
        posterior.structure.contrast
    ][:, 1]
    for name, values in flat.items():
        assert kstest(values, lambda x, name=name: posterior.cdf(name, x)).pvalue > 1e-4, name
        assert len(np.unique(values)) == len(values)
    again = posterior.draws(4000, seed=5, units=[0])
    assert np.array_equal(again["mu"], draws["mu"]) and again["theta"].shape == (4000, 1)
    cells = posterior.structure.cells
    gap, sd = posterior.difference(cells[0], cells[-1])
    values = draws[posterior.structure.group_mean][:, 0] - draws[posterior.structure.group_mean][:, -1]
    assert abs(values.mean() - gap) < 5 * sd / np.sqrt(4000)
    assert values.std() == pytest.approx(sd, rel=0.08)


def test_differences_within_a_group_are_known_from_brute_force(posterior):
    structure = posterior.structure
    if not structure.walk:
        pytest.skip("of walks they are parameters, so that brute force knows them")
    cells = structure.cells
    gap, sd = posterior.difference(cells[2], cells[0])
    place = posterior.index(f"change[{cells[2]}]")
    assert (gap, sd) == pytest.approx((posterior.mean[place], posterior.sd[place]), rel=1e-4)


def test_weights_are_what_the_data_move(posterior):
    """The weight of a member's rows is the slope of the mean of θ_r given the spreads as all of them move."""
    structure, h = posterior.structure, 1e-4
    x = posterior.nodes.lattice.x[[int(posterior.shares.weights.argmax())]]
    held = {
        name: Prior("Uniform", (value * (1 - 1e-7), value * (1 + 1e-7)))
        for name, value in zip(structure.spreads, x[0], strict=True)
    }
    priors = {"mu": Prior.parse("Normal(0, 1)"), **held}

    def estimate(effect, mu=None):
        own = priors | ({"mu": mu} if mu else {})
        return solve(ModelSpec(replace(structure, effect=effect), own, {}, "collapsed"))

    base = estimate(structure.effect)
    moved = structure.effect + h * (structure.member == structure.member[0])
    weights = base.unit_weights()
    assert (estimate(moved).unit_moments()[0][0] - base.unit_moments()[0][0]) / h == pytest.approx(
        weights.own[0], rel=1e-3
    )
    there = estimate(structure.effect, Prior("Normal", (h, 1.0)))
    assert (there.unit_moments()[0][0] - base.unit_moments()[0][0]) / h == pytest.approx(
        weights.prior[0], rel=2e-3
    )
    assert np.allclose(weights.own + weights.others + weights.prior, 1)


def test_leaving_a_row_out_is_solving_without_it(posterior):
    structure, row = posterior.structure, 2
    kept = np.delete(np.arange(structure.effect.size), row)
    spec = posterior.spec
    if not np.isin(structure.member[row], structure.member[kept]):
        pytest.skip("the member has no other row")
    less = replace(
        structure,
        effect=structure.effect[kept],
        se=structure.se[kept],
        group=structure.group[kept],
        units=tuple(structure.units[k] for k in kept),
        member=structure.member[kept],
        slot=structure.slot[kept],
    )
    without = solve(ModelSpec(less, dict(spec.priors), {}, "collapsed"))
    log = posterior.log_evidence - without.log_evidence
    assert posterior.unit_log_predictive([row])[0] == pytest.approx(log, abs=1e-4)


def test_given_the_members_spread_ends_are_no_and_complete_pooling(posterior):
    structure = posterior.structure
    given = posterior.given_spread(np.array([0.0, np.inf]), [0, 1])
    # Alone in its member a row keeps its own estimate; else the member's other rows speak of it, too.
    alone = np.bincount(structure.member)[structure.member[:2]] == 1
    assert given.theta_mean[1][alone] == pytest.approx(structure.effect[:2][alone])
    assert (given.theta_sd[1][~alone] < structure.se[:2][~alone]).all()
    assert given.theta_mean[0] == pytest.approx(given.group_mean[0][structure.cell[:2]])


def test_a_rows_pooling_counts_all_rows_of_its_member(posterior):
    """B by dense algebra: 1 − what E[u | cells, y] moves when all of a member's rows move by 1."""
    structure, spreads = posterior.structure, np.array([0.0, 0.2, 0.9, np.inf])

    def back(row, sigma):
        own = structure.se[structure.member == structure.member[row]] ** 2
        joint = sigma**2 * np.ones((own.size, own.size)) + np.diag(own)
        return 1 - sigma**2 * np.linalg.solve(joint, np.ones(own.size)).sum()

    rows = np.arange(structure.effect.size)
    given = posterior.given_spread(spreads, rows).pooling
    assert given[0] == pytest.approx(1) and given[3] == pytest.approx(0)
    for k in (1, 2):
        assert given[k] == pytest.approx([back(row, spreads[k]) for row in rows], rel=1e-12)
    sigma = np.linspace(0, 12, 6001)
    density = posterior.density(structure.spread, sigma)
    mean = [np.trapezoid(density * [back(row, s) for s in sigma], sigma) for row in rows[:3]]
    assert posterior.unit_pooling(rows[:3]) == pytest.approx(mean, abs=2e-3)


def test_what_has_no_posterior_is_refused_in_words():
    structure = world(14, walk=True)
    with pytest.raises(ImproperPosteriorError, match="sigma_drift"):
        solve(spec_of(structure, sigma_drift="Flat()"))
    with pytest.raises(NotExactError, match="Normal"):
        solve(spec_of(structure, mu="StudentT(3, 0, 1)"))
    with pytest.raises(InputError, match="two rows in one slot"):
        replace(structure, slot=np.zeros_like(structure.slot))
    heavy = solve(spec_of(world(1, walk=True, groups=1, members=4), sigma_genre="HalfCauchy(1)"))
    assert np.isinf(heavy.sd[heavy.index("sigma_genre")]) and any(
        "sigma_genre" in note for note in heavy.notes
    )
    assert np.isfinite(heavy.mean).all()
