"""``make bench``: every module's figures in one run, as one table.

``python -m benchmarks [MODULE …] [--write]``: only those modules; ``--write`` renews docs/benchmarks.md,
where modules left out keep their tables.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from importlib.metadata import version
from pathlib import Path

import benchmarks
from benchmarks.page import merged
from benchmarks.row import NotMeasured, Row, show

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("numpy", "scipy", "pymc", "nutpie", "numba", "streamlit")
COLUMNS = ("what", "figure", "target", "", "beside", "note")
#: Measured first to last: what is fastest, and most easily disturbed, comes first.
FIRST = ("exact_two_level", "exact_robust", "browser", "service")


def modules() -> list[str]:
    """Names of the modules here that declare rows, fastest first."""
    found = (info.name for info in pkgutil.iter_modules(benchmarks.__path__))
    names = [name for name in found if name not in _OTHERS and not name.endswith("_designs")]
    return sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


_OTHERS = {"__main__", "page", "row", "validate"}


def environment() -> str:
    """Versions and cores: what a figure depends on, without date or place."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{cores} cores, Python {sys.version.split()[0]}, {packages}"


def document(sections: dict[str, list[Row]], load: float) -> str:
    """The page of figures, in Markdown."""
    busy = (
        f" Other work was running (load {load:.1f}), so timings are worse than they are." if load > 1 else ""
    )
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks --write`: medians of repeated measurements in one run. Those in a "
        "browser are taken in Chromium without a graphics card, from an event to a frame.",
        "",
        f"Measured on {environment()}.{busy}",
    ]
    for name, rows in sections.items():
        title = (importlib.import_module(f"benchmarks.{name}").__doc__ or name).splitlines()[0]
        lines += [
            "",
            f"## {title.rstrip('.')}",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|" + " --- |" * len(COLUMNS),
        ]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Measure, print, write if asked; 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module", nargs="*", help=f"{', '.join(modules())}; all without")
    parser.add_argument("--write", action="store_true", help="renew these tables of docs/benchmarks.md")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.module if name not in modules()]:
        parser.error(f"no module {unknown[0]!r}: there are {', '.join(modules())}")
    write = given.write
    chosen = given.module or modules()
    print(environment())
    load = os.getloadavg()[0]
    if load > 1:
        print(f"This machine is busy (load {load:.1f}): timings will be worse than they are.")
    sections: dict[str, list[Row]] = {}
    for name in chosen:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n{name}")
        try:
            sections[name] = module.rows()
        except NotMeasured as reason:
            print(f"not measured: {reason}")
            continue
        show(sections[name])
    missed = [row for rows in sections.values() for row in rows if row.met is False]
    print(f"\n{len(missed)} targets missed" + "".join(f"\n  {row.what}" for row in missed))
    if write:
        DOCUMENT.parent.mkdir(exist_ok=True)
        page = document(sections, load)
        if chosen != modules() and DOCUMENT.exists():
            page = merged(page, DOCUMENT.read_text("utf-8"))
        DOCUMENT.write_text(page, "utf-8")
        print(f"written: {DOCUMENT.relative_to(ROOT)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
