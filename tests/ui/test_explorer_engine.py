"""The browser's engine against quadrature written apart from it: geometric Gauss–Legendre panels in τ."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from scipy.special import ndtr

from hbm_core.models.families import FAMILIES
from hbm_core.models.prior import Prior
from hbm_core.ui.explorer_component import families_module, joined

pytestmark = pytest.mark.browser

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
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
    "many": _simulated(5, 60, 5),
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
LOCATION = ("Normal(0, 20)", "Normal(8, 5)", "Flat()")


@pytest.fixture(scope="module")
def engine():
    """A page that holds the engine; calls take and give JSON."""
    from playwright.sync_api import sync_playwright

    source = joined(("special.js", "families.js", "engine.js"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        page = browser.new_page()
        page.set_content("<!doctype html>")
        page.add_script_tag(
            content=f"{source}\nwindow.engine = {{ prepare, solve, FAMILIES, scalePrior, "
            "scalePosterior, weightsAt, locationPrior, conditional, emptyView };"
        )
        yield page
        browser.close()


SOLVE = """cases => cases.map(({ effect, se, mu, tau }) => {
  const r = window.engine.solve(window.engine.prepare(effect, se), { mu, tau });
  const list = a => Array.from(a), v = r.view;
  return { mean: list(v.mean), sd: list(r.sd), B: list(v.B), own: list(r.own), others: list(r.others), fromPrior: list(r.fromPrior),
    lo95: list(v.lo95), lo50: list(v.lo50), hi50: list(v.hi50), hi95: list(v.hi95), mu: r.mu, tau: r.tau, error: r.error, nodes: r.nodes };
})"""


def as_argument(prior: Prior) -> dict:
    return {"family": prior.family, "numbers": list(prior.numbers)}


@cache
def _panel() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(20)
    return (nodes + 1) / 2, weights / 2


def brute(effect, se, mu: Prior, tau: Prior) -> dict:
    """Moments, weights and mixture by panels whose widths grow geometrically from zero to the far tail.

    Panels that carry mass are cut into eight in a second pass.
    """
    y, s = np.asarray(effect, float), np.asarray(se, float)
    reach = 320 if tau.family == "Gamma" and tau.numbers[0] < 0.4 else 40
    low, high = max(tau.support[0], 0.0), tau.support[1]
    edges = float(np.median(s)) * np.concatenate([[0], np.exp(np.arange(-reach, 44, 0.2))])
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
    heavy = np.convolve(log > log.max() - 40, np.ones(3), "same") > 0
    finer = [np.linspace(a, b, 9)[1:-1] for a, b, h in zip(edges[:-1], edges[1:], heavy, strict=True) if h]
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
