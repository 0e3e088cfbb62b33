"""The running server without a browser: health, headers, and what its process has loaded."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from tests.browser.server import PATIENCE, Server

pytestmark = pytest.mark.browser


def test_health_counts_workers_and_jobs(server: Server) -> None:
    found = server.health()
    assert found["ok"] is True
    assert found["workers"] + found["warming"] >= 1
    assert {"queued", "running", "version"} <= set(found)


def test_metrics_are_served_to_prometheus(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/api/metrics", timeout=PATIENCE) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    for line in ("hbm_up 1", 'hbm_fits{state="queued"} ', 'hbm_workers{state="idle"} ', "hbm_sessions "):
        assert f"\n{line}" in text


@pytest.mark.parametrize("path", ["/", "/api/health", "/trace"])
def test_every_answer_carries_the_security_headers(server: Server, path: str) -> None:
    with urllib.request.urlopen(server.url + path, timeout=PATIENCE) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]


def test_the_web_process_has_loaded_no_sampler(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("this system has no /proc to look into")
    loaded = maps.read_text()
    assert "numpy" in loaded
    for library in ("nutpie", "llvmlite", "numba"):
        assert library not in loaded
