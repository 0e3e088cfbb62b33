"""Health and metrics: what they say, in which format, and that a table that is held does not hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from hbm_core.store.jobs import Ask
from hbm_core.store.local import LocalEngine
from hbm_core.store.settings import Settings
from hbm_core.ui import metrics
from tests.asynchronous import run

SAMPLE = re.compile(r'([a-z_:]+)(?:\{((?:[a-z]+="[^"]*",?)*)\})? (-?[0-9.e+]+)')
REQUEST = Request({"type": "http", "method": "GET", "path": "/api/metrics", "headers": []})


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    with LocalEngine(Settings(tmp_path, queue=7)) as opened:
        monkeypatch.setattr(metrics.fits, "engine", lambda: opened)
        monkeypatch.setenv("HBM_QUEUE", "7")
        yield opened


def read(text: str) -> dict[tuple[str, str], float]:
    """The text format, read by its rules: every sample after the HELP and TYPE of its metric."""
    found, described = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            described.add(line.split()[2])
        elif not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None and match[1] in described, line
            found[match[1], match[2] or ""] = float(match[3])
    assert text.endswith("\n")
    return found


def ask(table: object, name: str, label: str = "") -> None:
    table.submit(Ask(name * 64, "task", "{}", label=label), "somebody")  # type: ignore[attr-defined]


def test_metrics_count_what_the_table_holds_and_name_nobody(engine: LocalEngine) -> None:
    for name in "abc":
        ask(engine.table, name, "A private title")
    engine.table.claim("worker-of-a-host", 10)
    engine.table.finish("a" * 64, "worker-of-a-host", 1234, partial=False)
    answer = run(metrics.metrics(REQUEST))
    assert answer.headers["content-type"] == metrics.FORMAT
    text = bytes(answer.body).decode()
    found = read(text)
    assert found["hbm_fits", 'state="queued"'] == 2
    assert found["hbm_fits", 'state="done"'] == 1
    assert found["hbm_fits", 'state="failed"'] == 0
    assert found["hbm_store_bytes", ""] == 1234
    assert found["hbm_queue_limit", ""] == 7
    assert found["hbm_queue_oldest_seconds", ""] >= 0
    assert found["hbm_up", ""] == 1
    assert found["process_resident_memory_bytes", ""] > 1e7
    for private in ("private title", "somebody", "worker-of-a-host", "aaaa", str(engine.settings.store)):
        assert private not in text.lower()


def test_metrics_can_be_switched_off(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HBM_METRICS", "0")
    assert run(metrics.metrics(REQUEST)).status_code == 404


def test_a_table_that_hangs_is_told_and_does_not_hold_the_answer(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)
    disk, reads, load = Event(), [], engine.load

    def hangs() -> dict[str, Any]:
        reads.append(1)
        disk.wait()
        return load()

    monkeypatch.setattr(engine, "load", hangs)

    async def look() -> tuple[list[Response], Response, Response]:
        probes = [await metrics.health(REQUEST) for _ in range(3)]
        numbers = await metrics.metrics(REQUEST)
        disk.set()
        while (later := await metrics.health(REQUEST)).status_code != 200:
            pass
        return probes, numbers, later

    probes, numbers, later = run(look())
    assert [probe.status_code for probe in probes] == [503] * 3
    assert all("did not answer" in bytes(probe.body).decode() for probe in probes)
    # However many ask meanwhile, one thread waits for each of the two.
    assert len(reads) <= 3
    found = read(bytes(numbers.body).decode())
    assert found["hbm_up", ""] == 0
    assert ("hbm_store_bytes", "") not in found
    assert later.status_code == 200


@pytest.mark.parametrize("text", ['a "quoted" name', "two\nlines", "back\\slash"])
def test_labels_cannot_break_out_of_their_quotes(text: str) -> None:
    line = metrics.Metric("m", "words", [({"label": text}, 1.5)]).text.splitlines()[2]
    inside = re.fullmatch(r'm\{label="((?:[^"\\\n]|\\["\\n])*)"\} 1\.5', line)
    assert inside is not None
    assert re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), inside[1]) == text
