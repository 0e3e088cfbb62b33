"""From asking for the default schools fit to having its result, through a real worker."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.row import Row, median_ms, show
from hbm_core.inference.sampler import Sampler
from hbm_core.scenarios import scenario
from hbm_core.store.local import LocalEngine
from hbm_core.store.request import FitRequest
from hbm_core.store.settings import Settings
from hbm_core.store.supervisor import Supervisor

REPEATS = 20


def rows() -> list[Row]:
    """Clocks of `REPEATS` fits, each with a seed of its own so that none is served from the store."""
    found = scenario("schools")
    dataset = found.dataset(found.default_dataset)
    model = found.model(found.default_model)
    request = FitRequest(
        scenario="schools",
        data=dataset.digest,
        model=found.default_model,
        priors=model.priors(dataset, ()),
        constants=model.constants(dataset),
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), workers=1)
        with LocalEngine(settings) as engine, Supervisor(settings):
            began = time.perf_counter()
            while not engine.health()["workers"]:
                time.sleep(0.05)
            warm = time.perf_counter() - began
            total, inner, read = [], [], []
            for seed in range(REPEATS):
                began = time.perf_counter()
                id = engine.submit(replace(request, sampler=Sampler(seed=seed)), dataset, "bench")
                engine.wait(id)
                total.append(time.perf_counter() - began)
                began = time.perf_counter()
                engine.result(id)
                read.append(time.perf_counter() - began)
                inner.append(engine.summary(id)["timings"]["total"])
            size = engine.jobs("bench")[0].bytes
            while engine.health()["running"]:
                time.sleep(0.01)
            status = median_ms(lambda: engine.status(id), 200)
    worst = f"worst of {REPEATS}: {max(total):.2f} s"
    return [
        Row("first worker ready, its default models compiled", warm, "s"),
        Row("fit 4 × (1,000 + 1,000): asked for to done", statistics.median(total), "s", note=worst),
        Row("of it in the sampler's call", statistics.median(inner), "s"),
        Row("result verified and loaded", 1e3 * statistics.median(read), "ms"),
        Row("state of a fit looked up", status, "ms"),
        Row("kept on disk per fit", size / 1e6, "MB"),
    ]


if __name__ == "__main__":
    show(rows())
