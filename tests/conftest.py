"""What tests of several rooms share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent


@pytest.fixture(scope="session")
def compile_cache():
    """Compiled models, shared by every test that samples: compiling one takes seconds."""
    from hbm_core.inference.nuts import CompileCache

    return CompileCache(limit=32)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, when tests run in several processes, those that share a server or compiled models."""
    for item in items:
        if item.path.is_relative_to(ROOT / "browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif item.get_closest_marker("sampling"):
            item.add_marker(pytest.mark.xdist_group("sampling"))
