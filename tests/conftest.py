"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from threadpoolctl import threadpool_limits

from tests.browser.server import PATIENCE, browse, chromium

# One process a core runs tests already: threads of a linear algebra library would wait for each other, ten
# times as long as they compute. For every process that a test starts; and for this one, whose NumPy may have
# been imported by a plugin before.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
threadpool_limits(1)

#: Files that take longest: begun first, so that what comes last is short.
LONGEST = (
    "browser/test_pages.py",
    "browser/test_explore.py",
    "store/test_cluster.py",
    "store/test_faults.py",
    "inference/test_nuts.py",
    "inference/exact/test_robust.py",
    "inference/exact/test_gamma_counts.py",
    "inference/exact/test_three_level.py",
    "inference/test_nuts_three_level.py",
    "inference/exact/test_two_level.py",
    "store/test_service.py",
    "browser/test_crowd.py",
    "browser/test_data.py",
    "pages/test_data.py",
    "pages/test_fits.py",
    "inference/test_variational.py",
    "store/test_local.py",
    "store/test_faults_files.py",
)

expect.set_options(timeout=1000 * PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first; with xdist's --no-loadscope-reorder they start in this order."""
    places = {name: place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> int:
        path = item.nodeid.split("::")[0].removeprefix("tests/")
        return places.get(path, len(places))

    items.sort(key=place)


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
