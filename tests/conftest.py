"""What tests of several rooms share."""

import pytest


@pytest.fixture(scope="session")
def compile_cache():
    """Compiled models, shared by every test that samples: compiling one takes seconds."""
    from hbm_core.inference.nuts import CompileCache

    return CompileCache(limit=32)
