"""A real server on a free port with a store of its own, and a real Chromium to look at it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
#: Most of them keep Chromium from talking to anybody but the server.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: Seconds after which something will not happen any more, on a machine that is busy too.
PATIENCE = 120
#: Workers compile a model when a fit asks for it, and step back for nobody: on a busy machine they would not
#: get to anything.
EAGER = {"HBM_WARM": "0", "HBM_NICE": "0"}
IDLE = "[data-testid=stApp][data-test-script-state=notRunning][data-test-connection-state=CONNECTED]"
#: The script has run and drawn something, and it has been so for a moment: before its first run, and between
#: an act and the run that follows, the app is idle too.
CALM = """() => {
  const main = document.querySelector('[data-testid=stMainBlockContainer]');
  const now = performance.now();
  const calm = document.querySelector('%s') && main && main.textContent.length > 50
    && !document.querySelector('[data-stale=true], [data-testid=stSkeleton]')
    && document.getAnimations().every(one => one.playState !== 'running'
      || one.effect.getComputedTiming().endTime === Infinity);
  window.calmSince = calm ? window.calmSince ?? now : undefined;
  return calm && now - window.calmSince > 250;
}"""


def chromium() -> str | None:
    """Where Debian's (or any) Chromium is."""
    return os.environ.get("HBM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    store: Path
    process: subprocess.Popen[bytes]

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/api/health", timeout=PATIENCE) as answer:
            return json.loads(answer.read())


@contextmanager
def serve(store: Path, log: Path, **environment: str) -> Iterator[Server]:
    """Start the app as its users do, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hbm_core.cli", "serve", "--port", str(port), "--store", str(store)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "HBM_GALLERY": "0", **environment},
        )
        server = Server(f"http://localhost:{port}", store, process)
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    if server.health()["ok"]:
                        break
                except OSError:
                    pass
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def browse() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def settled(page: Page, timeout: float = 1000 * PATIENCE) -> None:
    """Wait until the script has run, nothing is stale or moves, and it has stayed so for a moment."""
    page.evaluate("() => { window.calmSince = undefined }")
    page.wait_for_function(CALM % IDLE, timeout=timeout)
