"""The steps of the Containerfile, read, and run without a container engine.

``python -m tests.container FOLDER`` takes an empty folder for the root of the file system, copies from git
what the file copies, runs its RUN steps in a bare environment, starts its command, asks its health check.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
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
    """Do a COPY step with what git has."""
    *sources, target = step.items
    place = Path(moved(target, root))
    for source in sources:
        if (ROOT / source).is_dir():
            for name in tracked(source):
                written = place / Path(name).relative_to(source)
                written.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, written)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, place / Path(source).name)


def bare(found: list[Step], root: Path) -> dict[str, str]:
    """The environment that the file declares, and nothing else; its interpreter is this one's."""
    kept = {name: moved(value, root) for name, value in environment(found).items()}
    base = Path(sys.base_prefix) / "bin"
    return kept | {
        "PATH": kept["PATH"].replace("/usr/local/bin", f"{base}:/usr/local/bin"),
        "LANG": "C.UTF-8",
    }


def main(root: Path, **more: str) -> None:
    """Run every step in `root`, start the command, ask the health check, stop it."""
    found = steps()
    assert not root.exists() or not list(root.iterdir()), f"{root} is not empty"
    for prefix in PREFIXES:
        (root / prefix.strip("/")).mkdir(parents=True, exist_ok=True)
    world = bare(found, root) | more
    for step in found:
        if step.word == "COPY":
            copy(step, root)
        elif step.word == "RUN" and not step.text.startswith(SYSTEM):
            print(f"RUN {step.text}", flush=True)
            subprocess.run(moved(step.text, root), shell=True, check=True, env=world, cwd=root / "app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    word = {step.word: step for step in found}
    line = [moved(item, root).replace("8501", port) for item in word["ENTRYPOINT"].items + word["CMD"].items]
    line[0] = shutil.which(line[0], path=world["PATH"]) or line[0]
    print(" ".join(line), flush=True)
    server = subprocess.Popen(line, env=world, cwd=root / "app")
    health = json.loads(word["HEALTHCHECK"].text.partition("CMD ")[2])
    health[0] = shutil.which(health[0], path=world["PATH"]) or health[0]
    asked = [item.replace("8501", port) for item in health]
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


if __name__ == "__main__":
    # Where packages come from is the machine's affair, as in a build.
    main(Path(sys.argv[1]).resolve(), **{k: v for k, v in os.environ.items() if k.startswith("PIP_")})
