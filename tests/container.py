"""The steps of the Containerfile, read, and run without a container engine.

``python -m tests.container FOLDER`` takes an empty folder for the root of the file system, copies from git
what the file copies, runs its RUN steps in a bare environment, starts its command, asks its health check.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "Containerfile"
#: What the file writes to; the rest of the file system is the base image's.
PREFIXES = ("/opt/venv", "/app", "/data")
#: Steps that need a system of their own.
SYSTEM = ("useradd",)


@dataclass(frozen=True)
class Step:
    """One instruction: its word in capitals, and what follows."""

    word: str
    text: str

    @property
    def items(self) -> list[str]:
        """Arguments of a step that lists them, as JSON or as words."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def steps(text: str | None = None) -> list[Step]:
    """The instructions of the Containerfile, lines joined, comments gone."""
    text = FILE.read_text("utf-8") if text is None else text
    lines = re.sub(r"[ \t]*\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found = []
    for line in filter(None, map(str.strip, lines)):
        word, _, rest = line.partition(" ")
        found.append(Step(word.upper(), rest.strip()))
    return found


def environment(found: list[Step]) -> dict[str, str]:
    """What ENV steps set."""
    words = [word for step in found if step.word == "ENV" for word in step.items]
    return dict(word.split("=", 1) for word in words)


def tracked(source: str) -> list[str]:
    """Files in git below `source`."""
    done = subprocess.run(
        ["git", "ls-files", "--", source], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[:-1]


def moved(text: str, root: Path) -> str:
    """A path or a command with the image's folders below `root`."""
    return re.sub(rf"(?<![\w.-])({'|'.join(PREFIXES)})(?=[/:\s'\"]|$)", lambda m: f"{root}{m[1]}", text)


def copy(step: Step, root: Path) -> None:
    """Do a COPY step with what is committed."""
    *sources, target = step.items
    for source in sources:
        done = subprocess.run(
            ["git", "archive", "--format=tar", "HEAD", "--", source],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        place = Path(moved(target, root))
        # What a folder holds goes into the target, as a builder does it.
        strip = len(Path(source).parts) if (ROOT / source).is_dir() else 0
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            for member in archive.getmembers():
                if member.isfile():
                    member.name = str(Path(*Path(member.name).parts[strip:]))
                    archive.extract(member, place, filter="data")


def bare(found: list[Step], root: Path) -> dict[str, str]:
    """The environment that the file declares, and nothing else; its interpreter is this one's."""
    kept = {name: moved(value, root) for name, value in environment(found).items()}
    base = Path(sys.base_prefix) / "bin"
    return kept | {
        "PATH": kept["PATH"].replace("/usr/local/bin", f"{base}:/usr/local/bin"),
        "LANG": "C.UTF-8",
    }


def build(root: Path, world: Mapping[str, str]) -> None:
    """Run the COPY and RUN steps in `root`."""
    for prefix in PREFIXES:
        (root / prefix.strip("/")).mkdir(parents=True, exist_ok=True)
    for step in steps():
        if step.word == "COPY":
            copy(step, root)
        elif step.word == "RUN" and not step.text.startswith(SYSTEM):
            print(f"RUN {step.text}", flush=True)
            subprocess.run(moved(step.text, root), shell=True, check=True, env=world, cwd=root / "app")


def start(root: Path, world: Mapping[str, str]) -> None:
    """Start the command on a free port, ask the health check until it is content, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    word = {step.word: step for step in steps()}

    def line(items: list[str]) -> list[str]:
        first, *rest = (moved(item, root).replace("8501", port) for item in items)
        return [shutil.which(first, path=world["PATH"]) or first, *rest]

    asked = line(json.loads(word["HEALTHCHECK"].text.partition("CMD ")[2]))
    server = subprocess.Popen(
        line(word["ENTRYPOINT"].items + word["CMD"].items), env=world, cwd=root / "app"
    )  # fmt: skip
    try:
        until = time.monotonic() + 180
        while subprocess.run(asked, env=world, capture_output=True).returncode:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server did not answer its health check"
            time.sleep(1)
        print("healthy", flush=True)
    finally:
        server.terminate()
        server.wait(30)
    assert list((root / "data" / "store").iterdir()), "the store is not on the volume"


def main(root: Path) -> None:
    """Build in an empty folder, and start what was built."""
    assert not root.exists() or not list(root.iterdir()), f"{root} is not empty"
    # Where packages come from is the machine's affair, as in a build.
    machine = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    world = bare(steps(), root) | machine
    build(root, world)
    start(root, world)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
