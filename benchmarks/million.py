"""A page with a million creators: a moved prior until its picture is on its way, and the server's memory."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.load import Process
from benchmarks.row import Row, percentile, show
from hbm_core.models.prior import Prior
from hbm_core.store.study import Study
from tests.browser.server import serve
from tests.browser.visitor import Visitor

#: Genres are five.
EACH, MOVES = 200_000, 40


def rows() -> list[Row]:
    """Open the page, then move the prior of the creators' spread again and again."""
    with tempfile.TemporaryDirectory(prefix="hbm-million-") as folder:
        store = Path(folder) / "store"
        with serve(store, Path(folder) / "log", HBM_WARM="0", HBM_WORKERS="1") as server:
            process = Process(server.process.pid)
            opened, seen = asyncio.run(_moves(server.url))
            memory = process.memory / 1e6
    return [
        Row("1,000,000 creators: page opened, simulated and solved", opened, "s"),
        Row("a prior moved → its picture on its way, median", statistics.median(seen), "ms"),
        Row("a prior moved → its picture on its way, 95 %", percentile(seen, 0.95), "ms", 300),
        Row("memory of the web process", memory, "MB", 1000),
    ]


async def _moves(url: str) -> tuple[float, list[float]]:
    study = Study.default("creators").change(
        dataset="simulated", knobs={"level": "summaries", "creators_per_genre": EACH}
    )
    visitor = Visitor(url)
    try:
        opened = await visitor.open(study.query)
        rng, seen = np.random.default_rng(1), []
        for _ in range(MOVES):
            prior = Prior("HalfNormal", (round(float(rng.uniform(0.3, 3)), 3),))
            heard = await visitor.move(sigma_creator=prior)
            seen.append(np.inf if heard.picture is None else 1000 * heard.picture)
    finally:
        await visitor.close()
    assert not visitor.errors, visitor.errors
    return opened.finished or np.inf, seen


if __name__ == "__main__":
    show(rows())
