"""The browser's engine against quadrature written apart from it: geometric Gauss–Legendre panels in τ."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.special import ndtr

from hbm_core.models.families import FAMILIES
from hbm_core.models.prior import Prior
from hbm_core.ui.explorer_component import joined

pytestmark = pytest.mark.browser

TOLERANCE = 1e-9
SCHOOLS = ([28, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18])


def _simulated(seed: int, J: int, tau: float, scale: float = 1.0, shift: float = 0.0) -> tuple[list, list]:
    random = np.random.default_rng(seed)
    se = random.uniform(5, 18, J)
    effect = shift + scale * (random.normal(8, tau, J) + random.normal(0, se))
    return effect.tolist(), (scale * se).tolist()


DATA = {
    "schools": SCHOOLS,
    "homogeneous": _simulated(1, 12, 0),
    "heterogeneous": _simulated(2, 25, 40),
    "two units": ([3.0, -4.0], [2.0, 5.0]),
    "small numbers": _simulated(3, 9, 8, scale=1e-3),
    "far from zero": _simulated(4, 9, 8, shift=500),
    "many": _simulated(5, 30, 5),
}
SMOOTH = (
    "HalfCauchy(10)",
    "HalfNormal(5)",
    "HalfNormal(0.3)",
    "HalfStudentT(4, 10)",
    "Exponential(0.1)",
    "LogNormal(2, 0.5)",
)
SHARP = ("LogNormal(4.605, 0.1)", "Uniform(0, 10)", "Uniform(0, 50)", "Uniform(3, 12)", "InverseGamma(1, 1)")
SINGULAR = ("Gamma(0.5, 0.1)", "Gamma(0.1, 0.05)", "Gamma(2, 0.2)", "HalfCauchy(0.01)")
EXPORTS = (
    "prepare",
    "solve",
    "FAMILIES",
    "scalePrior",
    "scalePosterior",
    "weightsAt",
    "conditional",
    "emptyView",
)
LOCATION = ("Normal(0, 20)", "Normal(8, 5)", "Flat()")


@pytest.fixture(scope="module")
def engine(browser):
    """A page that holds the engine; calls take and give JSON."""
    source = joined(("special.js", "families.js", "engine.js"))
    page = browser.new_page()
    page.set_content("<!doctype html>")
    page.add_script_tag(content=f"{source}\nwindow.engine = {{ {', '.join(EXPORTS)} }};")
    yield page
    page.close()


SOLVE = """cases => cases.map(({ effect, se, mu, tau }) => {
  const list = a => Array.from(a);
  const { view, ...rest } = window.engine.solve(window.engine.prepare(effect, se), { mu, tau });
  const fields = ["mean", "B", "lo95", "lo50", "hi50", "hi95"].map(name => [name, list(view[name])]);
  const shares = ["sd", "own", "others", "fromPrior"].map(name => [name, list(rest[name])]);
  return { ...Object.fromEntries([...fields, ...shares]), mu: rest.mu, tau: rest.tau, error: rest.error };
})"""


def as_argument(prior: Prior) -> dict:
    return {"family": prior.family, "numbers": list(prior.numbers)}


@cache
def _panel() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(12)
    return (nodes + 1) / 2, weights / 2


def brute(effect, se, mu: Prior, tau: Prior) -> dict:
    """Moments, weights and mixture by panels whose widths grow geometrically from zero to the far tail.

    Panels that carry mass are cut into twelve in a second pass.
    """
    y, s = np.asarray(effect, float), np.asarray(se, float)
    reach = 320 if tau.family == "Gamma" and tau.numbers[0] < 0.4 else 40
    low, high = max(tau.support[0], 0.0), tau.support[1]
    edges = float(np.median(s)) * np.concatenate([[0], np.exp(np.arange(-reach, 44, 0.4))])
    if np.isfinite(high):
        edges = np.concatenate([edges, high - (high - low) * np.exp(-np.arange(0, 30, 0.4))])
    edges = np.unique(np.clip(np.concatenate([edges, [low, min(high, edges[-1])]]), low, high))
    m0, p0 = (mu.numbers[0], mu.numbers[1] ** -2.0) if mu.family == "Normal" else (0.0, 0.0)
    x, w = _panel()

    def nodes(edges):
        t = (edges[:-1, None] + np.diff(edges)[:, None] * x).ravel()
        S0 = (1 / (s**2 + t[:, None] ** 2)).sum(1)
        V = s**2 + t[:, None] ** 2
        centre = y.mean() + ((y - y.mean()) / V).sum(1) / S0
        P = p0 + S0
        squares = ((y - centre[:, None]) ** 2 / V).sum(1) + p0 * S0 / P * (centre - m0) ** 2
        log = -0.5 * (np.log(V).sum(1) + squares + np.log(P)) + tau.log_density(t)
        return t, V, P, (p0 * m0 + S0 * centre) / P, log + np.log((np.diff(edges)[:, None] * w).ravel())

    log = nodes(edges)[-1].reshape(-1, x.size).max(1)
    heavy = np.convolve(log > log.max() - 30, np.ones(3), "same") > 0
    finer = [np.linspace(a, b, 13)[1:-1] for a, b, h in zip(edges[:-1], edges[1:], heavy, strict=True) if h]
    t, V, P, m, log = nodes(np.unique(np.concatenate([edges, *finer])))
    p = np.exp(log - log.max())
    p /= p.sum()
    e_mu, e_tau = p @ m, p @ t
    moments = {
        "mu": (e_mu, np.sqrt(p @ (1 / P + (m - e_mu) ** 2))),
        "tau": (e_tau, np.sqrt(p @ (t - e_tau) ** 2)),
    }
    used = p > 1e-19
    t, V, P, m, p = t[used], V[used], P[used], m[used], p[used]
    B = s**2 / V
    mean = B * m[:, None] + (1 - B) * y
    sd = np.sqrt(B * t[:, None] ** 2 + B**2 / P[:, None])
    centre = p @ mean
    return moments | {
        "p": p,
        "conditional": (mean, sd),
        "mean": centre,
        "sd": np.sqrt(p @ (sd**2 + (mean - centre) ** 2)),
        "B": p @ B,
        "own": p @ (1 - B + B / (V * P[:, None])),
        "fromPrior": p @ (B * p0 / P[:, None]),
    }


def tail(mu: Prior, tau: Prior, J: int) -> float:
    """Order from which moments of τ are infinite."""
    return tau.tail + J - (mu.family == "Flat")


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("families", [SMOOTH, SHARP, SINGULAR], ids=["smooth", "sharp", "singular"])
def test_engine_agrees_with_independent_quadrature(engine, name, families):
    effect, se = DATA[name]
    factor = float(np.median(se)) / 11
    pairs = [
        (Prior.parse(a).scaled(factor), Prior.parse(b).scaled(factor)) for a in LOCATION for b in families
    ]
    pairs = [(mu, tau) for mu, tau in pairs if tail(mu, tau, len(effect)) > 2]
    cases = [
        {"effect": effect, "se": se, "mu": as_argument(mu), "tau": as_argument(tau)} for mu, tau in pairs
    ]
    for (mu, tau), got in zip(pairs, engine.evaluate(SOLVE, cases), strict=True):
        want = brute(effect, se, mu, tau)
        what = f"{name}, {mu.text}, {tau.text}"
        sd = want["sd"]
        assert np.max(np.abs(got["mean"] - want["mean"]) / sd) < TOLERANCE, what
        assert np.max(np.abs(got["sd"] / sd - 1)) < TOLERANCE, what
        for share in ("B", "own", "fromPrior"):
            assert np.max(np.abs(np.array(got[share]) - want[share])) < TOLERANCE, (what, share)
        for parameter in ("mu", "tau"):
            centre, spread = want[parameter]
            assert abs(got[parameter]["mean"] - centre) / spread < TOLERANCE, (what, parameter)
            assert abs(got[parameter]["sd"] / spread - 1) < TOLERANCE, (what, parameter)
        mean, spread = want["conditional"]
        for field, probability in (("lo95", 0.025), ("lo50", 0.25), ("hi50", 0.75), ("hi95", 0.975)):
            reached = want["p"] @ ndtr((np.array(got[field]) - mean) / spread)
            assert np.max(np.abs(reached - probability)) < TOLERANCE, (what, field)


@pytest.mark.parametrize("text", ["HalfCauchy(10)", "Uniform(3, 12)", "Gamma(0.5, 0.1)", "LogNormal(2, 0.5)"])
def test_drawn_distributions_of_tau_follow_their_cdf(engine, text):
    prior = Prior.parse(text)
    tau = prior.distribution.ppf([0.1, 0.25, 0.5, 0.75, 0.9])
    effect, se = SCHOOLS
    drawn = engine.evaluate(
        """([effect, se, prior, tau]) => {
          const d = window.engine.scalePrior(window.engine.prepare(effect, se), prior);
          const quantile = [0.1, 0.5, 0.9].map(d.quantile);
          return { cdf: tau.map(d.cdf), density: tau.map(d.density), quantile };
        }""",
        [effect, se, as_argument(prior), tau.tolist()],
    )
    np.testing.assert_allclose(drawn["cdf"], [0.1, 0.25, 0.5, 0.75, 0.9], atol=2e-3)
    np.testing.assert_allclose(drawn["density"], np.exp(prior.log_density(tau)), rtol=1e-3)
    np.testing.assert_allclose(drawn["quantile"], tau[[0, 2, 4]], rtol=1e-2)


def test_weights_sum_to_one_and_the_limits_of_tau_hold(engine):
    effect, se = SCHOOLS
    got = engine.evaluate(
        """([effect, se]) => {
          const data = window.engine.prepare(effect, se), location = { m0: 0, p0: 1 / 400 };
          const view = tau => window.engine.conditional(data, location, tau, window.engine.emptyView(8));
          const sums = [0, 1, 10, 1e4, Infinity].flatMap(tau => effect.map((_, i) => {
            const w = window.engine.weightsAt(data, location, tau, i); return w.own + w.others + w.prior; }));
          return { sums, none: Array.from(view(Infinity).mean), complete: Array.from(view(0).mean) };
        }""",
        [effect, se],
    )
    np.testing.assert_allclose(got["sums"], 1, atol=1e-14)
    assert got["none"] == effect
    weight = 1 / np.square(se, dtype=float)
    np.testing.assert_allclose(got["complete"], weight @ effect / (weight.sum() + 1 / 400), rtol=1e-14)


def test_improper_posterior_is_refused(engine):
    flat = {"family": "Flat", "numbers": []}
    solved = engine.evaluate(
        "([mu, tau]) => window.engine.solve(window.engine.prepare([1, 2], [1, 1]), { mu, tau })", [flat, flat]
    )
    assert solved == {"improper": True}


@pytest.mark.parametrize("name", FAMILIES)
def test_family_in_the_browser_is_the_declared_one(engine, name):
    family = FAMILIES[name]
    numbers = [1.3 + 0.7 * place for place in range(len(family.numbers))]
    top = family.support(*numbers)[1]
    x = np.linspace(1.35, 1.95, 7) if top > 1.5 else np.linspace(0.1, 0.9, 7)
    got = engine.evaluate(
        """([name, p, x]) => { const f = window.engine.FAMILIES[name];
          const ends = f.support(p).map(String), tail = String(f.tail(p));
          return { log: x.map(v => f.log(v, p)), ends, tail }; }""",
        [name, numbers, x.tolist()],
    )
    np.testing.assert_allclose(got["log"], family.log_density(x, *numbers) + 0 * x, rtol=1e-12, atol=1e-13)
    assert [float(end) for end in got["ends"]] == list(map(float, family.support(*numbers)))
    assert float(got["tail"]) == family.tail(*numbers)
