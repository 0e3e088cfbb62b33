"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.server import browse, chromium


@pytest.fixture(scope="session")
def compile_cache():
    """Compiled models, shared by every test that samples: compiling one takes seconds."""
    from hbm_core.inference.nuts import CompileCache

    return CompileCache(limit=32)


@pytest.fixture(scope="session")
def chromium_is_here() -> None:
    """Skip without a browser; in CI that is a failure, never a skip."""
    if chromium() is None:
        reason = "no Chromium on this machine: install it (Debian: apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def browser(chromium_is_here: None) -> Iterator[Browser]:
    """One Chromium a process: Playwright allows no second."""
    with browse() as running:
        yield running
