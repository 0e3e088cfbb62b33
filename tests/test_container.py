"""The container file: what it may do, and that what it copies is all the app needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.container import PREFIXES, SYSTEM, bare, copy, environment, moved, steps, tracked

FOUND = steps()
BY_WORD = {step.word: step for step in FOUND}
KNOWN = {
    "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"
}  # fmt: skip


def test_lines_are_read_as_a_builder_reads_them() -> None:
    read = steps('# note\nFROM a:1\n\nRUN one \\\n  two # three\nCMD ["x", "y z"]\n')
    assert [(step.word, step.text) for step in read[:2]] == [("FROM", "a:1"), ("RUN", "one two # three")]
    assert read[2].items == ["x", "y z"]
    assert {step.word for step in FOUND} == KNOWN


def test_paths_move_and_nothing_else_does() -> None:
    assert moved("/opt/venv/bin/python -m pip /app 'x=/data'", Path("/r")) == (
        "/r/opt/venv/bin/python -m pip /r/app 'x=/r/data'"
    )
    assert moved("/application /usr/app http://a/app", Path("/r")) == "/application /usr/app http://a/app"


def test_the_base_is_slim_and_of_the_version_that_is_developed_with() -> None:
    version = (Path(__file__).parents[1] / ".python-version").read_text().split()[0]
    assert BY_WORD["FROM"].text == f"docker.io/library/python:{'.'.join(version.split('.')[:2])}-slim"


def test_it_runs_as_a_user_without_rights_with_one_volume_that_holds_the_store() -> None:
    words = [step.word for step in FOUND]
    assert BY_WORD["USER"].text not in ("root", "0")
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])
    assert words.count("VOLUME") == 1
    assert environment(FOUND)["HBM_STORE"].startswith(BY_WORD["VOLUME"].text + "/")


def test_packages_are_pinned_and_checked_and_nothing_is_secret() -> None:
    installs = [step.text for step in FOUND if step.word == "RUN" and "pip install" in step.text]
    assert all("--require-hashes" in text or "--no-deps" in text for text in installs)
    assert not re.search(r"(?i)secret|token|password|_key|credential", " ".join(step.text for step in FOUND))
    assert not any("://" in step.text for step in FOUND if step.word in ("RUN", "ENV", "COPY"))


def test_the_health_check_asks_the_port_that_the_command_serves() -> None:
    port = BY_WORD["EXPOSE"].text
    assert f":{port}/api/health" in BY_WORD["HEALTHCHECK"].text
    assert BY_WORD["CMD"].items[-2:] == ["--port", port]


@pytest.mark.parametrize("step", [s for s in FOUND if s.word == "COPY"], ids=lambda step: step.text)
def test_every_source_of_a_copy_is_in_git(step) -> None:
    *sources, target = step.items
    assert target.startswith(PREFIXES)
    for source in sources:
        assert tracked(source), f"{source} is not in git"


def test_what_is_copied_is_all_the_app_needs(tmp_path) -> None:
    """With the packages of this environment: the server is imported from the copy, in a bare environment."""
    for step in FOUND:
        if step.word == "COPY":
            copy(step, tmp_path)
    code = (
        "import hbm_core, hbm_core.ui.server as server, hbm_core.cli, hbm_core.store.remote\n"
        "from hbm_core.store.gallery import shipped\n"
        "from hbm_core.ui.main import PAGES, ROOT\n"
        "server.warm_up()\n"
        "names = [name for group in PAGES.values() for name, _ in group]\n"
        "assert all((ROOT / 'pages' / f'{name}.py').exists() for name in names), names\n"
        "print(hbm_core.__file__, bool(shipped()))\n"
    )
    world = bare(FOUND, tmp_path) | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path / "app",
        env=world,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "app/hbm_core/__init__.py"), "True"]


def test_every_run_step_is_one_that_is_run_without_an_engine_or_known_to_need_a_system() -> None:
    for step in FOUND:
        if step.word == "RUN" and not step.text.startswith(SYSTEM):
            assert step.text.startswith(("python ", "/opt/venv/bin/python "))
