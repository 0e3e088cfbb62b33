"""In a real Chromium, on a running server: what a hand waits for."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks.row import NotMeasured, Row, percentile, show
from hbm_core.inference.exact import solve
from hbm_core.models.prior import Prior
from hbm_core.store.study import Study
from hbm_core.ui.explorer_component import joined
from tests.browser.server import ROOT, Server, browse, chromium, serve, settled

COLD, STEPS, ECHOES, FITS = 9, 90, 12, 9
#: Pixels that the handle of τ goes to either side: not so far that it meets an end of the panel and rests.
REACH = 80
MANY = {"scenario": "schools", "dataset": "simulated", "knob.J": "500"}
#: Native code of what the web process must never load.
HEAVY = ("numba", "llvmlite", "nutpie")

SCRIPT = Path(__file__).with_suffix(".js")


@contextmanager
def opened(browser: Browser, server: Server, query: dict[str, str] | None = None) -> Iterator[Page]:
    """A visitor who has never been here: a context of its own, the page finished and at rest."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(path=SCRIPT)
    page.goto(f"{server.url}/{'?' + urlencode(query) if query else ''}")
    page.evaluate("bench.opened")
    settled(page)
    try:
        yield page
    finally:
        context.close()


def opening(browser: Browser, server: Server) -> list[Row]:
    """Time from asking for the page to its finished picture, each in a cold browser context."""
    picture, rest = [], []
    for _ in range(COLD):
        with opened(browser, server) as page:
            picture.append(page.evaluate("bench.opened") / 1000)
            rest.append(page.evaluate("performance.now()") / 1000)
    note = f"{COLD} cold contexts, worst {max(picture):.2f} s"
    return [
        Row("page opened → finished picture", statistics.median(picture), "s", 2.0, note=note),
        Row("page opened → script at rest", statistics.median(rest), "s"),
    ]


def prior_slider(browser: Browser, server: Server, query: dict[str, str] | None, label: str) -> list[Row]:
    """A slider of the prior on τ dragged to and fro, then moved step by step until the server answers."""
    with opened(browser, server, query) as page:
        left, top, width, height = page.evaluate("bench.boxOfSlider()")
        page.wait_for_timeout(300)
        page.evaluate("bench.watchSlider()")
        page.mouse.move(left + 0.35 * width, top + height / 2)
        page.mouse.down()
        for step in range(STEPS):
            page.mouse.move(left + width * (0.35 + 0.3 * np.sin(step / 7)), top + height / 2)
            page.wait_for_timeout(15)
        page.mouse.up()
        page.wait_for_timeout(1500)
        settled(page)
        waits, costs = page.evaluate("[bench.waits, bench.costs]")
        page.evaluate("bench.focusSlider()")
        echoes = []
        for step in range(ECHOES):
            page.evaluate("bench.watchEcho()")
            page.keyboard.press("ArrowRight" if step % 2 else "ArrowLeft")
            echoes.append(page.evaluate("bench.wait"))
            settled(page)
            page.wait_for_timeout(100)
    note = f"{len(waits)} events of one drag; {statistics.median(costs):.1f} ms of it computing and drawing"
    echo, rest = statistics.median(echoes), "150 ms of it waiting for the hand to rest"
    return [
        Row(f"prior moved → picture, {label}, median", statistics.median(waits), "ms", 60, note=note),
        Row(f"prior moved → picture, {label}, 95 %", percentile(waits, 0.95), "ms", 150),
        Row(f"prior moved → server's own numbers, {label}", echo, "ms", note=rest),
    ]


def tau_drag(browser: Browser, server: Server, query: dict[str, str] | None, label: str) -> Row:
    """The handle of τ dragged across the panel: frames in which the picture moved, per second."""
    with opened(browser, server, query) as page:
        left, top, width, height = page.evaluate("bench.boxOfTau()")
        page.wait_for_timeout(500)
        x, y = left + width / 2, top + height / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 5, y)
        page.wait_for_timeout(400)
        page.evaluate("bench.watchTau()")
        for step in range(1, 181):
            page.mouse.move(x + 5 + REACH * np.sin(step / 25), y)
        frames, costs = page.evaluate("() => { bench.dragging = false; return [bench.frames, bench.costs]; }")
        page.mouse.up()
    gaps = np.diff(frames)
    late, script = percentile(gaps, 0.95), statistics.median(costs)
    note = f"{len(gaps)} frames, 95 % within {late:.1f} ms; {script:.1f} ms of script"
    return Row(f"τ dragged, {label}", float(1000 * len(gaps) / gaps.sum()), "frames/s", 50, "more", note=note)


def fitting(browser: Browser, server: Server) -> list[Row]:
    """Fit clicked to "Fit done", in a warm worker; a seed per repetition, so that nothing is kept."""
    clicks = []
    for seed in range(FITS):
        query = {"scenario": "schools", "draws": "2000", "seed": str(1000 + seed)}
        with opened(browser, server, query) as page:
            page.evaluate("bench.watchFit()")
            page.locator(".ppx .fit-button").click()
            clicks.append(page.evaluate("bench.wait") / 1000)
    note = f"{FITS} seeds, worst {max(clicks):.2f} s"
    return [
        Row("Fit clicked → “Fit done”, 4 × (1,000 + 2,000)", statistics.median(clicks), "s", 1.0, note=note)
    ]


#: Solves in the page and hands back one list per quantity.
SOLVE = """([y, s, priors]) => {
  const { view, sd } = engine.solve(engine.prepare(y, s), priors);
  return [view.mean, sd, view.lo95, view.lo50, view.hi50, view.hi95, view.B].map(a => Array.from(a));
}"""
LOCATIONS = ("Normal(0, 20)", "Normal(8, 5)", "Flat()")
SPREADS = ("HalfCauchy(10)", "HalfNormal(5)", "Uniform(0, 50)", "InverseGamma(1, 1)", "Gamma(0.5, 0.1)")


def same_engine(browser: Browser) -> Row:
    """The browser's engine beside Python's: moments, quantiles, pooling and weights."""
    source = joined(("special.js", "families.js", "engine.js"))
    page = browser.new_page()
    page.set_content("<!doctype html>")
    page.add_script_tag(content=f"{source}\nwindow.engine = {{ prepare, solve }};")
    study, worst = Study.default("schools"), 0.0
    structure = study.spec(study.data()).structure
    pairs = list(product(LOCATIONS, SPREADS))
    for mu, tau in pairs:
        priors = {"mu": Prior.parse(mu), "tau": Prior.parse(tau)}
        changed = study.change(priors=priors)
        exact = solve(changed.spec(changed.data()))
        given = {name: {"family": p.family, "numbers": list(p.numbers)} for name, p in priors.items()}
        found = np.array(page.evaluate(SOLVE, [structure.effect.tolist(), structure.se.tolist(), given]))
        scale, pooling = exact.sd[exact.theta], exact.pooling
        ends = exact.quantiles((0.025, 0.25, 0.75, 0.975))[exact.theta].T
        wanted = np.vstack([exact.mean[exact.theta], scale, ends])
        worst = max(
            worst,
            float((np.abs(found[:6] - wanted) / scale).max()),
            float(np.abs(found[6] - pooling).max()),
        )
    page.close()
    note = f"{len(pairs)} pairs of priors: means, sds, quantiles and B of 8 schools"
    return Row("browser's engine and Python's: largest difference", worst, "sd", 1e-9, note=note)


def light(server: Server) -> list[Row]:
    """What the web process holds after all this; only where processes can be looked into."""
    process = Path(f"/proc/{server.process.pid}")
    if not process.exists():
        return []
    maps = (process / "maps").read_text()
    loaded = [name for name in HEAVY if f"/{name}/" in maps]
    resident = float((process / "status").read_text().split("VmRSS:")[1].split()[0]) / 1000
    code = (
        "import sys, hbm_core.ui.server as server\nserver.warm_up()\n"
        "print(len({'pymc', 'pytensor', 'nutpie', 'numba'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    imported = int(run.stdout.split()[-1])
    mapped = "samplers' native libraries in the web process after these visits"
    return [
        Row(mapped, len(loaded), target=0, note=", ".join(loaded)),
        Row("PyMC, PyTensor, nutpie, numba among what the web process imports", imported, target=0),
        Row("memory of the web process after these visits", resident, "MB"),
    ]


def rows() -> list[Row]:
    """Serve the app with a store of its own, visit it, measure."""
    if chromium() is None:
        raise NotMeasured("no Chromium on this machine (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with serve(Path(folder) / "store", Path(folder) / "log") as server, browse() as browser:
            up = time.perf_counter() - began
            while server.health()["workers"] < 1 or time.perf_counter() - began < 1:
                if time.perf_counter() - began > 180:
                    raise RuntimeError("no worker became ready")
                time.sleep(0.2)
            ready = time.perf_counter() - began
            found = opening(browser, server)
            found += prior_slider(browser, server, None, "8 schools")
            found += prior_slider(browser, server, MANY, "500 units")
            found += [
                tau_drag(browser, server, None, "8 schools"),
                tau_drag(browser, server, MANY, "500 units"),
            ]
            found += fitting(browser, server)
            found += [same_engine(browser), *light(server)]
    found += [
        Row("server started → first answer", up, "s"),
        Row("server started → first worker ready", ready, "s"),
    ]
    return found


if __name__ == "__main__":
    os.chdir(ROOT)
    show(rows())
