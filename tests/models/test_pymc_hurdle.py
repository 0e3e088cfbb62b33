"""The hurdle model in PyMC against row-wise densities written apart, and its geometries."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from hbm_core.errors import InputError
from hbm_core.inference.recipes import recipe
from hbm_core.models.hurdle import HURDLE_PARAMETERIZATIONS, PARTS, HurdleRevenue, readout
from hbm_core.models.prior import Prior
from hbm_core.models.pymc_hurdle import build, data_values
from hbm_core.models.structure import ModelSpec

GROUP = np.array([0, 0, 1])
PRIOR = {"mu": "Normal(0, 1)", "sigma": "HalfNormal(1)"}


def users(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outcomes of control and treatment of three creators; nobody pays in the last one's control."""
    rng = np.random.default_rng(seed)
    sizes = [(12, 9), (7, 15), (5, 6)]
    found = [
        tuple(np.where(rng.random(n) < 0.5, np.exp(1 + rng.standard_normal(n)), 0.0) for n in pair)
        for pair in sizes
    ]
    found[2] = (np.zeros(5), np.r_[2.5, np.zeros(5)])
    return found  # type: ignore[return-value]


def hurdle(amounts: str, geometry: str = "centered") -> ModelSpec[HurdleRevenue]:
    rows = users()

    def each(function):
        return np.array([[function(arm) for arm in pair] for pair in rows])

    structure = HurdleRevenue(
        each(np.mean) @ [-1.0, 1.0],
        np.ones(3),
        GROUP,
        ("a", "b", "c"),
        ("g", "h"),
        ("creator", "genre"),
        users=each(np.size),
        payers=each(lambda y: (y > 0).sum()),
        total=each(np.sum),
        log_sum=each(lambda y: np.log(y[y > 0]).sum()),
        log_squares=each(lambda y: (np.log(y[y > 0]) ** 2).sum()),
        amounts=amounts,  # type: ignore[arg-type]
    )
    priors = {name: Prior.parse(PRIOR[name.split("_")[0]]) for name in structure.parameters[:-1]}
    priors[structure.residual] = Prior.parse("HalfNormal(2)")
    return ModelSpec(structure, priors, {}, geometry)


def rowwise(spec: ModelSpec[HurdleRevenue], point: dict[str, np.ndarray]) -> float:
    """Log joint density: priors, both levels, one term per user."""
    structure, total = spec.structure, 0.0
    for name, prior in spec.priors.items():
        value = point[name]
        total += stats.norm(*prior.numbers).logpdf(value) if prior.family == "Normal" else 0.0
        total += stats.halfnorm(scale=prior.numbers[0]).logpdf(value) if prior.family == "HalfNormal" else 0.0
    for k, part in enumerate(PARTS):
        mu, among, within = (point[name] for name in structure.names_of(part))
        total += stats.norm(mu, among).logpdf(point["group_value"][k]).sum()
        total += stats.norm(point["group_value"][k][GROUP], within).logpdf(point["unit_value"][k]).sum()
    scale = point[structure.residual]
    for unit, pair in enumerate(users()):
        for arm, outcomes in enumerate(pair):
            pay, pay_effect, amount, amount_effect = point["unit_value"][:, unit]
            chance = 1 / (1 + np.exp(-(pay + arm * pay_effect)))
            for y in outcomes:
                if y == 0:
                    total += np.log1p(-chance)
                elif structure.amounts == "lognormal":
                    total += np.log(chance) + stats.lognorm(
                        scale, scale=np.exp(amount + arm * amount_effect)
                    ).logpdf(y)
                else:
                    mean = np.exp(amount + arm * amount_effect)
                    total += np.log(chance) + stats.gamma(scale, scale=mean / scale).logpdf(y)
    return float(total)


def some_point(spec: ModelSpec[HurdleRevenue], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    point = {
        name: np.array(abs(rng.normal()) + 0.3 if name in spec.structure.positive else rng.normal())
        for name in spec.priors
    }
    return point | {"group_value": rng.normal(size=(4, 2)), "unit_value": rng.normal(size=(4, 3))}


@pytest.mark.parametrize("amounts", ["lognormal", "gamma"])
def test_the_density_by_statistics_is_the_density_by_users(amounts: str) -> None:
    spec = hurdle(amounts)
    model = build(spec)
    density = model.compile_fn(model.logp(jacobian=False), inputs=model.value_vars, mode="FAST_COMPILE")
    for seed in range(3):
        point = some_point(spec, seed)
        given = {
            value.name: np.log(point[variable.name])
            if value.name.endswith("_log__")
            else point[variable.name]
            for variable, value in model.rvs_to_values.items()
        }
        assert float(density(given)) == pytest.approx(rowwise(spec, point), rel=1e-10)


@pytest.mark.parametrize("geometry", ["noncentered", "partial"])
def test_a_geometry_changes_how_the_sampler_moves_and_nothing_else(geometry: str) -> None:
    """Densities differ by the Jacobian of the map, and the readouts are the same."""
    spec = hurdle("lognormal", geometry)
    structure = spec.structure
    model, plain = build(spec), build(hurdle("lognormal"))
    joint = model.compile_fn(model.logp(jacobian=False), inputs=model.value_vars, mode="FAST_COMPILE")
    values = [model["group_value"], model["unit_value"], model["theta"]]
    at = model.compile_fn(values, inputs=model.free_RVs, mode="FAST_COMPILE", on_unused_input="ignore")
    other = plain.compile_fn(plain.logp(jacobian=False), inputs=plain.value_vars, mode="FAST_COMPILE")
    data = data_values(spec)
    share, among_share = data.get("share", np.zeros((4, 3))), data.get("group_share", np.zeros((4, 2)))
    for seed in range(2):
        point = some_point(spec, seed)
        moved = dict(point)
        moved["z_group"] = moved["group_tilde"] = moved.pop("group_value")
        moved["eta"] = moved["tilde"] = moved.pop("unit_value")
        given = {
            value.name: np.log(moved[rv.name]) if value.name.endswith("_log__") else moved[rv.name]
            for rv, value in model.rvs_to_values.items()
        }
        group, unit, theta = at({rv.name: moved[rv.name] for rv in model.free_RVs})
        point |= {"group_value": group, "unit_value": unit}
        base = {
            value.name: np.log(point[rv.name]) if value.name.endswith("_log__") else point[rv.name]
            for rv, value in plain.rvs_to_values.items()
        }
        jacobian = 0.0
        for k, part in enumerate(PARTS):
            _, among, within = (point[name] for name in structure.names_of(part))
            jacobian += np.sum((1 - among_share[k]) * np.log(among)) + np.sum((1 - share[k]) * np.log(within))
        assert float(joint(given)) == pytest.approx(float(other(base)) + jacobian, rel=1e-9)
        assert theta == pytest.approx(readout(*unit, point["sigma_log"] ** 2 / 2), rel=1e-12)


def test_readouts_of_groups_are_means_of_their_units_and_starts_are_finite() -> None:
    spec = hurdle("lognormal", "partial")
    structure, how = spec.structure, recipe(hurdle("lognormal"))
    rng = np.random.default_rng(4)
    draws = {name: rng.random((2, 5)) for name in spec.priors}
    draws |= {"theta": rng.normal(size=(2, 5, 3)), "group_value": rng.normal(size=(2, 5, 4, 2))}
    found = how.complete(spec, draws, 1)
    assert found["mean_genre"][..., 0] == pytest.approx(draws["theta"][..., :2].mean(axis=-1))
    assert found["genre_amount"] == pytest.approx(draws["group_value"][:, :, 2])
    assert set(found) == {*structure.parameters, *(f"genre_{part}" for part in PARTS), "mean_genre", "theta"}
    plain = {name: np.asarray(value) for name, value in how.centres(spec)[0].items()}
    for name, shape in (
        ("group_value", (4, 2)),
        ("unit_value", (4, 3)),
        ("group_tilde", (4, 2)),
        ("tilde", (4, 3)),
    ):
        start = how.inner_start(spec, name, plain, rng.uniform(-1, 1, shape))
        assert start is not None and start.shape == shape and np.isfinite(start).all()
    assert how.inner_start(spec, "eta", plain, np.zeros((4, 3))) is None
    assert spec.parameterization in HURDLE_PARAMETERIZATIONS


@pytest.mark.parametrize("amounts", ["lognormal", "gamma"])
def test_a_units_likelihood_is_the_integral_over_its_effects(amounts: str) -> None:
    """By a dense grid over each pair of effects, one term per user; nobody pays in one arm."""
    spec = hurdle(amounts)
    structure, rng, count = spec.structure, np.random.default_rng(8), 4
    draws: dict[str, np.ndarray] = {}
    for k, part in enumerate(PARTS):
        _, among, within = structure.names_of(part)
        draws[among] = np.full(count, np.nan)
        draws[within] = np.array([0.05, 0.5, 1.0, 3.0])
        draws[structure.group_vector(part)] = rng.normal(0.4 * k, 0.8, (count, 2))
    draws[structure.residual] = np.array([0.4, 0.8, 1.5, 3.0])
    found = recipe(spec).log_likelihood(spec, draws)
    assert found is not None
    grid = np.linspace(-8, 8, 257)
    weight = stats.norm.logpdf(grid) + np.log(grid[1] - grid[0])
    for draw in range(count):
        scale = draws[structure.residual][draw]
        for unit, pair in enumerate(users()):
            total = 0.0
            for first, second in (PARTS[:2], PARTS[2:]):
                a, b = (draws[structure.group_vector(p)][draw, GROUP[unit]] for p in (first, second))
                s, t = (draws[structure.names_of(p)[2]][draw] for p in (first, second))
                x = (a + s * grid)[:, None]
                log = weight[:, None] + weight
                for arm, at in enumerate((x, x + b + t * grid)):
                    for y in pair[arm][pair[arm] > 0]:
                        if first == "pay":
                            log = log - np.log1p(np.exp(-at))
                        elif amounts == "lognormal":
                            log = log + stats.norm.logpdf(np.log(y), at, scale) - np.log(y)
                        else:
                            log = log + stats.gamma.logpdf(y, scale, scale=np.exp(at) / scale)
                    if first == "pay":
                        log = log - (pair[arm] == 0).sum() * np.log1p(np.exp(at))
                total += float(logsumexp(log))
            # Far spreads and few users make a skewed integrand: there the rule is good to a thousandth.
            assert found[draw, unit] == pytest.approx(total, abs=2e-4 if draw < 3 else 2e-3)


def test_statistics_that_no_users_can_have_are_refused() -> None:
    good = hurdle("lognormal").structure
    fields = {name: getattr(good, name) for name in ("users", "payers", "total", "log_sum", "log_squares")}
    place = (good.effect, good.se, good.group, good.units, good.groups)
    for wrong in ({"payers": good.users + 1}, {"users": good.users[:2]}, {"payers": 0 * good.users}):
        with pytest.raises(InputError):
            HurdleRevenue(*place, **fields | wrong)
