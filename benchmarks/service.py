"""Time from asking for the default schools fit to having its result, through a real worker.

``python benchmarks/service.py``
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from hbm_core.inference.sampler import Sampler
from hbm_core.scenarios import scenario
from hbm_core.store.local import LocalEngine
from hbm_core.store.request import FitRequest
from hbm_core.store.settings import Settings
from hbm_core.store.supervisor import Supervisor

REPEATS = 20


def main() -> None:
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
            print(f"worker warm after                 {time.perf_counter() - began:8.2f} s")
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
            for words, values in (
                ("ask to done", total),
                ("of it sampling", inner),
                ("verify and load", read),
            ):
                print(f"{words:<33} {statistics.median(values):8.3f} s (worst {max(values):.3f})")
            job = engine.jobs("bench")[0]
            print(f"bytes per fit                     {job.bytes:8d}")
            while engine.health()["running"]:
                time.sleep(0.01)
            began = time.perf_counter()
            for _ in range(200):
                engine.status(id)
            print(f"status                            {(time.perf_counter() - began) / 200:8.5f} s")


if __name__ == "__main__":
    main()
