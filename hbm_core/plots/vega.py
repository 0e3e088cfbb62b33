"""Vega-Lite figures as plain mappings: the few words of its grammar that pictures here need.

A figure is built for every visitor at every change of a prior, in the one interpreter that answers all
others too; Altair, whose names the methods have, copies and validates each part several times over, which
takes some hundred times as long. Its schema is the tests' oracle instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partialmethod
from hashlib import sha256
from typing import Any, Self

import numpy as np
import pandas as pd

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.4.1.json"
#: Options of a scale, an axis, a legend; an encoded channel.
Options = dict[str, Any]
#: Rows as a table, or written out in the figure; None: those of the figure that it lies in.
Data = pd.DataFrame | list[dict[str, Any]] | None

_TYPES = {"Q": "quantitative", "N": "nominal", "O": "ordinal", "T": "temporal"}
#: Channels that take over their type from the one that they end.
_ENDS = ("x2", "y2")


def expr(text: str) -> Options:
    """A value that the browser computes, of ``datum``, ``width``, ``height`` and scales."""
    return {"expr": text}


def channel(shorthand: str, **options: Any) -> Options:
    """A column and how it is shown; an option that is None turns off what would be shown otherwise.

    >>> channel("raw:Q", axis=None)
    {'field': 'raw', 'type': 'quantitative', 'axis': None}
    """
    name, _, kind = shorthand.partition(":")
    return {"field": name, "type": _TYPES[kind], **options}


def condition(test: str, then: float, otherwise: float) -> Options:
    """One value where a test holds of a row, another elsewhere."""
    return {"condition": {"test": test, "value": then}, "value": otherwise}


def selection_point(name: str, **select: Any) -> Options:
    """A selection of rows by clicks, for `Chart.add_params`."""
    return {"name": name, "select": {"type": "point", **select}}


@dataclass(frozen=True)
class Chart:
    """Marks of one kind, one per row.

    Parameters
    ----------
    data : DataFrame or list of dict, optional
        Rows; None: those of the layered figure.
    """

    data: Data = None
    mark: Options = field(default_factory=dict)
    encoding: Options = field(default_factory=dict)
    filters: tuple[str, ...] = ()
    params: tuple[Options, ...] = ()
    more: Options = field(default_factory=dict)

    def _mark(self, kind: str, **options: Any) -> Self:
        return replace(self, mark={"type": kind, **options})

    mark_area = partialmethod(_mark, "area")
    mark_bar = partialmethod(_mark, "bar")
    mark_circle = partialmethod(_mark, "circle")
    mark_line = partialmethod(_mark, "line")
    mark_point = partialmethod(_mark, "point")
    mark_rect = partialmethod(_mark, "rect")
    mark_rule = partialmethod(_mark, "rule")
    mark_text = partialmethod(_mark, "text")
    mark_tick = partialmethod(_mark, "tick")

    def encode(self, **channels: str | Options | Sequence[Options]) -> Self:
        """The same marks with these channels too; a string is a column in short."""
        read = {name: channel(given) if isinstance(given, str) else given for name, given in channels.items()}
        for name in _ENDS:
            if name in read:
                read[name] = {key: value for key, value in read[name].items() if key != "type"}  # type: ignore[union-attr]
        return replace(self, encoding={**self.encoding, **read})

    def transform_filter(self, test: str) -> Self:
        """Marks of the rows alone of which a test holds."""
        return replace(self, filters=(*self.filters, test))

    def add_params(self, *params: Options) -> Self:
        """The same marks, which can be selected."""
        return replace(self, params=(*self.params, *params))

    def properties(self, **options: Any) -> Self:
        """The same marks with a name, or a size."""
        return replace(self, more={**self.more, **options})


@dataclass(frozen=True)
class Figure:
    """Marks over one another, on shared axes.

    Parameters
    ----------
    layers : tuple of Chart
        From the bottom up.
    data : DataFrame, optional
        Rows of the layers that have none of their own.
    more : mapping
        Size, padding, configuration.
    """

    layers: tuple[Chart, ...]
    data: pd.DataFrame | None = None
    more: Options = field(default_factory=dict)

    def properties(self, **options: Any) -> Self:
        """The same figure with a size, or padding."""
        return replace(self, more={**self.more, **options})

    def configure(self, **config: Any) -> Self:
        """The same figure in a theme."""
        return self.properties(config=config)

    def spec[Rows](self, write: Callable[[pd.DataFrame], tuple[str, Rows]]) -> dict[str, Any]:
        """The figure in Vega-Lite, its tables apart under ``datasets``.

        Parameters
        ----------
        write : callable
            A table → a name that changes with its content, and what stands under it.
        """
        tables: dict[int, tuple[str, Rows]] = {}

        def named(data: Data) -> dict[str, Any]:
            if not isinstance(data, pd.DataFrame):
                return {"values": data}
            if id(data) not in tables:
                tables[id(data)] = write(data)
            return {"name": tables[id(data)][0]}

        shared = self.data
        layers: list[Options] = []
        params: list[Options] = []
        if shared is None and len({id(layer.data) for layer in self.layers}) == 1:
            shared = self.layers[0].data  # type: ignore[assignment]
        for layer in self.layers:
            one: dict[str, Any] = {"mark": layer.mark}
            if layer.data is not None and layer.data is not shared:
                one["data"] = named(layer.data)
            if layer.encoding:
                one["encoding"] = layer.encoding
            if layer.filters:
                one["transform"] = [{"filter": test} for test in layer.filters]
            one |= layer.more
            if layer.params:
                one.setdefault("name", f"view_{len(params) + 1}")
                params += [{**param, "views": [one["name"]]} for param in layer.params]
            layers.append(one)
        found: dict[str, Any] = {"$schema": SCHEMA, **self.more, "layer": layers}
        if shared is not None:
            found["data"] = named(shared)
        if params:
            found["params"] = params
        if tables:
            found["datasets"] = dict(tables.values())
        return plain(found)

    def to_dict(self) -> dict[str, Any]:
        """The figure with its tables as lists of rows: for files, and for readers of the figure."""
        return self.spec(_written)


def layer(*layers: Chart, data: pd.DataFrame | None = None, **options: Any) -> Figure:
    """Lay marks over one another."""
    return Figure(layers, data, options)


def _written(table: pd.DataFrame) -> tuple[str, list[dict[str, Any]]]:
    rows = [
        {str(name): None if _absent(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]
    return f"data-{sha256(repr(rows).encode()).hexdigest()[:32]}", rows


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not np.isfinite(value))


def plain(value: Any) -> Any:
    """Mappings, lists, strings and numbers as JSON has them: NumPy's own become Python's.

    Text, truth and whole tables in other forms (Arrow's bytes) stay what they are.
    """
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    return value
