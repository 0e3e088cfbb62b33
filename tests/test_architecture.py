"""The house's arrows: who may import whom, and what the web process never imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hbm_core"
#: From left to right: each room imports only from itself and the rooms before it.
ROOMS = ("models", "inference", "analysis", "plots", "scenarios", "store", "report", "ui", "cli")
HEAVY = {"pymc", "pytensor", "nutpie", "numba", "preliz", "pymc_extras", "jax"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    if here not in ROOMS:
        assert here in ("__init__", "errors"), f"{path} belongs to no room"
        allowed: tuple[str, ...] = ()
    elif here in ("report", "ui", "cli"):
        allowed = ROOMS
    else:
        allowed = ROOMS[: ROOMS.index(here) + 1]
    for name in imported(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "hbm_core" and len(parts) > 1 and parts[1] in ROOMS:
            assert parts[1] in allowed, f"{here} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_ui_imports_streamlit(path: Path) -> None:
    names = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
    if room(path) not in ("ui", "cli"):
        assert "streamlit" not in names
    if room(path) == "cli":
        top = {
            name
            for node in ast.parse(path.read_text()).body
            for name in imported(node)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert not any(name.startswith("streamlit") for name in top)


def test_engines_know_no_scenario() -> None:
    from hbm_core.scenarios import scenarios

    for path in (PACKAGE / "inference").rglob("*.py"):
        for id in scenarios():
            assert f'"{id}"' not in path.read_text(), f"{path} names the scenario {id}"


def test_the_web_process_imports_no_sampler() -> None:
    """Import all that the server imports, solve a model as its warm-up does, and look at sys.modules."""
    code = (
        "import sys, hbm_core.ui.server as server, hbm_core.cli\n"
        "server.warm_up()\n"
        "import hbm_core.ui.fits, hbm_core.ui.sidebar\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_pages_are_thin() -> None:
    for path in (ROOT / "pages").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 80, f"{path.name} holds more than layout and words"


def test_no_utils() -> None:
    for path in modules():
        assert path.stem not in ("utils", "helpers", "manager", "misc", "common")
