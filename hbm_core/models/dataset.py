"""A data set: a canonical table with its words, its reference and, where simulated, its truth."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from weakref import WeakKeyDictionary

import pandas as pd
import pyarrow as pa


def once[Source, Value](function: Callable[[Source], Value]) -> Callable[[Source], Value]:
    """A function of one frozen value that lives long, computed once for each while it lives.

    Medians of a million units take as long as an answer may: pages ask for the same ones again and again.
    """
    known: WeakKeyDictionary[Source, Value] = WeakKeyDictionary()

    @wraps(function)
    def ask(source: Source) -> Value:
        if source not in known:
            known[source] = function(source)
        return known[source]

    return ask


@dataclass(frozen=True)
class Words:
    """How a data set speaks of itself.

    Parameters
    ----------
    one, many : str
        A unit and several, e.g. "school", "schools".
    outcome : str
        What is measured, e.g. "Effect of coaching".
    unit : str
        The outcome's unit, plural, e.g. "SAT points"; empty for a pure number.
    headline : str
        The study in one sentence, with the places ``{unit}``, ``{raw}`` and ``{pooled}`` in this order.
    """

    one: str = "unit"
    many: str = "units"
    outcome: str = "Effect"
    unit: str = ""
    headline: str = ""

    @property
    def a_one(self) -> str:
        """A unit with its article.

        >>> Words("entity").a_one, Words("user").a_one
        ('an entity', 'a user')
        """
        return f"{'an' if self.one[:1].lower() in tuple('aeio') else 'a'} {self.one}"

    @property
    def axis(self) -> str:
        """Axis title with unit."""
        return f"{self.outcome}, {self.unit}" if self.unit else self.outcome


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data of one scenario in canonical form.

    Parameters
    ----------
    name : str
        Key of a built-in set, or ``"simulated"``, or ``"upload"``.
    label : str
        Title for a person.
    table : pandas.DataFrame
        The scenario's columns, in the scenario's order and types. Treat as read-only.
    words : Words
        Names and units.
    reference : str
        Where the data come from.
    truth : mapping, optional
        True parameter values of simulated data, keyed by the names that fits use (``theta[A]``).
    notes : tuple of str
        What a reader must know of how the table came about: what was left out, with counts and reasons.
    """

    name: str
    label: str
    table: pd.DataFrame
    words: Words = field(default_factory=Words)
    reference: str = ""
    truth: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def arrow(self) -> bytes:
        """Arrow IPC bytes of the table, without metadata: the same on every machine."""
        return table_to_arrow(self.table)

    @cached_property
    def digest(self) -> str:
        """Identity of the data: sha256 of `arrow`."""
        return hashlib.sha256(self.arrow).hexdigest()


def table_to_arrow(table: pd.DataFrame) -> bytes:
    """Serialise a table to canonical Arrow IPC bytes: no index, no metadata, one chunk, plain strings."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    fields = [
        pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type, nullable=True)
        for f in arrow.schema
    ]
    arrow = arrow.cast(pa.schema(fields)).combine_chunks()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    return sink.getvalue()


def table_from_arrow(data: bytes) -> pd.DataFrame:
    """Inverse of `table_to_arrow`."""
    with pa.ipc.open_stream(io.BytesIO(data)) as reader:
        return reader.read_all().to_pandas()
