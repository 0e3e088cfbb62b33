"""Plate diagrams: which quantity depends on which, and what repeats per unit."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from hbm_core.models.circuits import CircuitPopulation
from hbm_core.models.gaussian_mixed import GaussianMixed
from hbm_core.models.greek import GREEK
from hbm_core.models.hurdle import HurdleRevenue
from hbm_core.models.one_parameter import OneParameter
from hbm_core.models.raw_rates import RawRates, RawTrials
from hbm_core.models.structure import TwoLevelNormal
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.plots.tokens import MATH, SANS, Mode, colours


@dataclass(frozen=True)
class Node:
    """A quantity of the model. `kind`: "unknown" (circle), "data" (filled circle), "given" (small square)."""

    name: str
    symbol: str
    kind: str
    plate: bool


@dataclass(frozen=True)
class Plate:
    """Nodes in rows from top to bottom, and arrows between them by name."""

    rows: tuple[tuple[Node, ...], ...]
    edges: tuple[tuple[str, str], ...]
    repeats: str


def plate_table(
    structure: TwoLevelNormal | ThreeLevelNormal | HurdleRevenue | GaussianMixed | OneParameter,
    one: str = "unit",
) -> Plate:
    """Return the graph of a model: its quantities, and which depends on which."""
    if isinstance(structure, OneParameter):
        return _circuits(structure.whole, one)
    if isinstance(structure, HurdleRevenue):
        return _hurdle(structure, one)
    if isinstance(structure, RawRates):
        return _rates(structure, one)
    if isinstance(structure, GaussianMixed):
        return _mixed(structure, one)
    if isinstance(structure, ThreeLevelNormal):
        return _three_level(structure, one)
    theta, effect = Node("theta", "θᵢ", "unknown", True), Node("y", "yᵢ", "data", True)
    error = Node("se", "sᵢ", "given", True)
    top: list[Node] = []
    edges = [("theta", "y"), ("se", "y")]
    if structure.pooling != "none":
        top.append(Node("mu", "μ", "unknown", False))
        edges.append(("mu", "theta"))
    if structure.pooling == "partial":
        top.append(Node("tau", "τ", "unknown", False))
        edges.append(("tau", "theta"))
    if structure.columns:
        top.append(Node("beta", "β", "unknown", False))
        edges.append(("beta", "theta"))
    if "student_t" in (structure.effects, structure.likelihood):
        nu = Node("nu", "ν", "unknown", False)
        edges.append(("nu", "theta" if structure.effects == "student_t" else "y"))
    else:
        nu = None
    if nu is not None and structure.effects == "student_t":
        top.append(nu)
    middle = [theta]
    if structure.columns:
        middle.append(Node("x", "xᵢ", "given", True))
        edges.append(("x", "theta"))
    # Beside the data that it makes heavy-tailed, so that no arrow crosses θ.
    bottom = [nu] if nu is not None and structure.likelihood == "student_t" else []
    rows = tuple(tuple(row) for row in (top, middle, [*bottom, effect, error]) if row)
    return Plate(rows, tuple(edges), f"{one} i = 1 … {len(structure.units)}")


def _mixed(structure: GaussianMixed, one: str) -> Plate:
    """Groups in slots, crossed or in time; of the crossed effects only the sum is shown."""
    unit, level = structure.levels
    slots, walk = structure.slot_level, structure.walk
    spreads = [Node("among", f"σ{level[0]}", "unknown", False)]
    if not walk:
        spreads.append(Node("shared", f"σ{slots[0]}", "unknown", False))
    spreads.append(Node("own", "σd" if walk else f"σ{level[0]}{slots[0]}", "unknown", False))
    rows = (
        (Node("mu", "μ", "unknown", False), *spreads),
        (
            Node("mean", "μgt" if walk else "μgs", "unknown", False),
            Node("within", f"σ{unit[0]}", "unknown", False),
        ),
        (Node("theta", "θᵣ", "unknown", True),),
        (Node("y", "yᵣ", "data", True), Node("se", "sᵣ", "given", True)),
    )
    edges = (
        ("mu", "mean"),
        *((node.name, "mean") for node in spreads),
        ("mean", "theta"),
        ("within", "theta"),
        ("theta", "y"),
        ("se", "y"),
    )
    return Plate(rows, edges, f"{len(structure.members):,} {one}s × {len(structure.slots)} {slots}s")


def _three_level(structure: ThreeLevelNormal, one: str) -> Plate:
    unit, level = structure.levels
    rows = (
        (Node("mu", "μ", "unknown", False), Node("among", f"σ{level[0]}", "unknown", False)),
        (Node("mean", "μg", "unknown", False), Node("within", f"σ{unit[0]}", "unknown", False)),
        (Node("theta", "θᵢ", "unknown", True),),
        (Node("y", "yᵢ", "data", True), Node("se", "sᵢ", "given", True)),
    )
    edges = (
        ("mu", "mean"),
        ("among", "mean"),
        ("mean", "theta"),
        ("within", "theta"),
        ("theta", "y"),
        ("se", "y"),
    )
    repeats = f"{structure.effect.size:,} {one}s in {len(structure.groups):,} {level}s"
    return Plate(rows, edges, repeats)


#: Parameters of rates that act on something else than the rates; signs of those that no Greek letter says.
_ACTS_ON = {
    "phi": "y",
    "psi": "y",
    "beta": "y",
    "rho": "walk",
    "sigma_drift": "walk",
    "sigma_window": "bytes",
}
_SIGNS = {
    "mu_count": "μa",
    "mu_bytes": "μc",
    "sigma_count": "σa",
    "sigma_bytes": "σc",
    "corr": "ρac",
    "sigma_window": "σ",
    "sigma_drift": "σd",
}


def _rates(structure: Any, one: str) -> Plate:
    """Entities' rates and their counts, drifts and bytes; parameters beside what they act on."""
    trials = isinstance(structure, RawTrials)
    target = {name: _ACTS_ON.get(name, "theta") for name in structure.parameters}

    def nodes(*on: str) -> list[Node]:
        signs = {**GREEK, **_SIGNS}
        return [Node(name, signs[name], "unknown", False) for name, at in target.items() if at in on]

    middle, bottom = (
        [Node("theta", "θᵢ", "unknown", True)],
        [Node("y", "yᵢ" if trials else "yᵢⱼ", "data", True)],
    )
    edges = [*target.items(), ("theta", "y"), ("size", "y")]
    if "walk" in target.values():
        middle.append(Node("walk", "dᵢⱼ", "unknown", True))
        edges.append(("walk", "y"))
    given = [Node("size", "nᵢ" if trials else "eᵢⱼ", "given", True)]
    if "beta" in target:
        given.append(Node("x", "xᵢⱼ", "given", True))
        edges.append(("x", "y"))
    if "bytes" in target.values():
        given += [Node("bytes", "bᵢⱼ", "data", True), *nodes("bytes")]
        edges += [("theta", "bytes"), ("size", "bytes")]
    rows = tuple(nodes("theta", "walk")), tuple(middle), (*nodes("y"), *bottom, *given)
    return Plate(rows, tuple(edges), f"{one} i = 1 … {len(structure.units):,}")


def _circuits(structure: CircuitPopulation, one: str) -> Plate:
    """Vectors of rate constants, the curves that they make, and readings."""
    top = []
    if structure.pooling != "independent":
        top.append(Node("alpha", "α", "unknown", False))
    if structure.pooling in ("diagonal", "full"):
        top.append(Node("sigma", "σ", "unknown", False))
    if structure.pooling == "full":
        top.append(Node("corr", "Ω", "unknown", False))
    noise = [Node("noise", "σ₀", "unknown", False)]
    noise += [Node("gain", "gₖ", "unknown", True)] if structure.has_gain else []
    rows = (
        tuple(top),
        (Node("theta", "θc", "unknown", True), Node("dose", "x", "given", True)),
        (*noise, Node("y", "yₖₜ", "data", True)),
    )
    edges = [(node.name, "theta") for node in top] + [(node.name, "y") for node in noise]
    repeats = f"{one} c = 1 … {len(structure.units)}"
    return Plate(tuple(row for row in rows if row), (*edges, ("theta", "y"), ("dose", "y")), repeats)


def _hurdle(structure: HurdleRevenue, one: str) -> Plate:
    unit, level = structure.levels
    residual = "σlog" if structure.amounts == "lognormal" else "k"
    rows = (
        (Node("mu", "μ", "unknown", False), Node("among", f"σ{level[0]}", "unknown", False)),
        (Node("mean", "xg", "unknown", False), Node("within", f"σ{unit[0]}", "unknown", False)),
        (
            Node("pay", "κδ", "unknown", True),
            Node("amount", "ηγ", "unknown", True),
            Node("residual", residual, "unknown", False),
        ),
        (Node("payers", "n₊", "data", True), Node("paid", "y₊", "data", True)),
    )
    edges = (
        ("mu", "mean"),
        ("among", "mean"),
        ("mean", "pay"),
        ("within", "pay"),
        ("mean", "amount"),
        ("within", "amount"),
        ("pay", "payers"),
        ("amount", "paid"),
        ("residual", "paid"),
    )
    return Plate(rows, edges, f"{structure.effect.size:,} {one}s in {len(structure.groups):,} {level}s")


def plate_svg(plate: Plate, mode: Mode) -> str:
    """Draw a plate diagram as SVG text; scales with its container."""
    c = colours(mode)
    step, gap, radius = 78.0, 84.0, 19.0
    widest = max(len(row) for row in plate.rows)
    width, height = max(260.0, widest * gap + 70), len(plate.rows) * step + 12
    place: dict[str, tuple[float, float, Node]] = {}
    for depth, row in enumerate(plate.rows):
        start = width / 2 - (len(row) - 1) * gap / 2
        for k, node in enumerate(row):
            place[node.name] = (start + k * gap, 30 + depth * step, node)
    inside = [(x, y) for x, y, node in place.values() if node.plate]
    left, right = min(x for x, _ in inside) - 46, max(x for x, _ in inside) + 46
    top, bottom = min(y for _, y in inside) - 32, max(y for _, y in inside) + 44
    height = max(height, bottom + 8)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="Plate diagram of the model" width="{width:g}" height="{height:g}">',
        f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}" rx="8" '
        f'fill="none" stroke="{c["rule"]}"/>',
        f'<text x="{right - 8:g}" y="{bottom - 7:g}" text-anchor="end" font-family=\'{SANS}\' '
        f'font-size="11.5" fill="{c["ink-3"]}">{escape(plate.repeats)}</text>',
    ]
    for source, target in plate.edges:
        (x0, y0, _), (x1, y1, _) = place[source], place[target]
        length = max(1e-9, ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        ax, ay, bx, by = (
            x0 + ux * (radius + 2),
            y0 + uy * (radius + 2),
            x1 - ux * (radius + 3),
            y1 - uy * (radius + 3),
        )
        head = (
            f"{bx:.1f},{by:.1f} {bx - ux * 8 - uy * 3.5:.1f},{by - uy * 8 + ux * 3.5:.1f} "
            f"{bx - ux * 8 + uy * 3.5:.1f},{by - uy * 8 - ux * 3.5:.1f}"
        )
        parts.append(
            f'<path d="M{ax:.1f} {ay:.1f}L{bx - ux * 6:.1f} {by - uy * 6:.1f}" stroke="{c["ink-3"]}"/>'
            f'<polygon points="{head}" fill="{c["ink-3"]}"/>'
        )
    for x, y, node in place.values():
        if node.kind == "given":
            parts.append(
                f'<rect x="{x - 15:g}" y="{y - 15:g}" width="30" height="30" rx="4" fill="{c["panel"]}" '
                f'stroke="{c["raw"]}"/>'
            )
        else:
            fill = c["panel"] if node.kind == "data" else c["paper"]
            stroke = c["raw"] if node.kind == "data" else c["accent"]
            parts.append(
                f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{stroke}" '
                'stroke-width="1.5"/>'
            )
        parts.append(
            f'<text x="{x:g}" y="{y + 6:g}" text-anchor="middle" font-family=\'{MATH}\' font-style="italic" '
            f'font-size="18" fill="{c["ink"]}">{node.symbol}</text>'
        )
    return "".join(parts) + "</svg>"
