"""Documents that cannot lag: what the program has, the words must have."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import hbm_core
from hbm_core.cli import app
from hbm_core.scenarios import scenarios
from hbm_core.store.settings import markdown, options

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
TERMS = (
    "Partial pooling",
    "Shrinkage",
    "Pooling factor, B",
    "τ",
    "R-hat",
    "ESS",
    "MCSE",
    "Divergence",
    "E-BFMI",
    "Funnel",
    "LOO",
    "PIT",
    "Coverage",
    "HDI",
    "Improper",
    "Pareto k",
)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_every_scenario_and_model_is_in_the_readme() -> None:
    for id, scenario in scenarios().items():
        assert f"`{id}`" in README
        for model in scenario.models:
            assert f"`{model}`" in README, f"model {model} of {id} is not in README.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_shown_in_the_readme(name: str) -> None:
    shown = "\n".join(blocks(README, ""))
    assert re.search(rf"^hbm {name}\b", shown, re.MULTILINE), f"README.md shows no `hbm {name}`"


def test_no_command_is_shown_that_does_not_exist() -> None:
    shown = re.findall(r"^hbm ([\w-]+)", "\n".join(blocks(README, "")), re.MULTILINE)
    assert set(shown) <= set(COMMANDS)


@pytest.mark.parametrize("option", options(), ids=lambda option: option.variable)
def test_every_setting_is_documented_as_declared(option) -> None:
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    row = next(line for line in markdown().splitlines() if f"`{option.variable}`" in line)
    assert row in text, f"docs/settings.md must hold this row:\n{row}"


def test_the_table_of_settings_holds_nothing_else() -> None:
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert markdown() in text, f"put this table into docs/settings.md:\n{markdown()}"
    assert set(re.findall(r"HBM_[A-Z_]+", text)) == {option.variable for option in options()}


def test_every_page_is_in_the_readme() -> None:
    for path in (ROOT / "pages").glob("*.py"):
        assert re.search(rf"^\| {path.stem.capitalize()} \|", README, re.MULTILINE), (
            f"README.md lacks {path.stem}"
        )


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for text in (README, *(path.read_text("utf-8") for path in DOCUMENTS)):
        for asked in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE):
            assert asked in targets, f"make {asked}"


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_in_the_readme_runs(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "theta[A]" in done.stdout


def test_the_worked_example_of_a_mechanism_runs() -> None:
    """It holds its own curve to the closed form; its estimates lie near what it simulated."""
    (code,) = blocks((ROOT / "docs" / "mechanisms.md").read_text("utf-8"), "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "('A', 'B', 'C') ('ka', 'ke', 'Cl') Blood, mg/L" in done.stdout
    # Curves 0.8, 1 and 1.3 times as high: clearance log10(0.04 / height).
    found = {
        name: float(value)
        for name, value in re.findall(r"([ABC]),Cl least_squares\s+(-?[\d.]+)", done.stdout)
    }
    assert found == pytest.approx({"A": -1.301, "B": -1.398, "C": -1.512}, abs=0.05)


def test_changelog_and_package_name_one_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## {re.escape(hbm_core.__version__)}$", changelog, re.MULTILINE)
    assert f'version = "{hbm_core.__version__}"' in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("path", [ROOT / "README.md", *DOCUMENTS], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCUMENTS], ids=lambda path: path.name
)
def test_paths_named_in_documents_exist(path: Path) -> None:
    for named in re.findall(
        r"`((?:hbm_core|assets|benchmarks|tests|pages)/[\w/.]+)`", path.read_text("utf-8")
    ):
        assert (ROOT / named).exists(), f"{path.name} names {named}"


@pytest.mark.parametrize("term", TERMS)
def test_glossary_explains(term: str) -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    found = re.search(
        rf"\*\*[^*]*(?<!\w){re.escape(term)}(?!\w)[^*]*\.\*\*\s+(.*?)(?:\n\n|\Z)", text, re.DOTALL
    )
    assert found, f"docs/glossary.md does not explain {term}"
    assert len(found[1].split()) >= 8


def test_every_module_of_the_benchmarks_has_rows() -> None:
    """What `make bench` runs; a module of designs for the long proofs is none."""
    from benchmarks.__main__ import modules

    folder = ROOT / "benchmarks"
    without = [name for name in modules() if "def rows(" not in (folder / f"{name}.py").read_text("utf-8")]
    assert modules() and not without
