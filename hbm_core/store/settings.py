"""Settings of the service, each declared once: variable, default, bounds, one line of words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from hbm_core.errors import InputError

_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})")

_HOST = re.compile(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\]")


def default_store() -> Path:
    """The user's data folder after the XDG base directory specification."""
    base = os.environ.get("XDG_DATA_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "share"
    return root / "partial-pooling-explorer"


def _setting(
    variable: str, words: str, default: Any, lower: float = 0, upper: float = 1e18, whole: bool = True
) -> Any:
    declared = {"variable": variable, "words": words, "lower": lower, "upper": upper, "whole": whole}
    return field(default=default, metadata=declared)


@dataclass(frozen=True)
class Settings:
    """Where the service keeps things and how much it may take.

    Defaults suit 2 cores and 8 GiB. Every field is read from the environment variable that it declares.

    Raises
    ------
    InputError
        A number out of its bounds, or no number.

    Examples
    --------
    >>> Settings.from_environment({"HBM_WORKERS": "3"}).workers
    3
    """

    store: Path = field(
        default_factory=default_store,
        metadata={"variable": "HBM_STORE", "words": "Folder of fits, data sets and the job table"},
    )
    workers: int = _setting("HBM_WORKERS", "Fits computed at once, one process each", 2, 0, 256)
    fit_seconds: float = _setting(
        "HBM_FIT_SECONDS", "Seconds a fit may take; then it stops and its draws are kept as partial",
        1800.0, 1, 1e7, whole=False,
    )  # fmt: skip
    store_bytes: int = _setting(
        "HBM_STORE_BYTES",
        "Bytes of kept fits; the longest unused go first, pinned ones stay",
        5_000_000_000,
        1e6,
    )
    max_draws: int = _setting(
        "HBM_MAX_DRAWS", "Numbers a fit may keep: draws × chains × parameters", 100_000_000, 1_000
    )
    queue: int = _setting("HBM_QUEUE", "Fits that may wait for a worker", 200, 1, 1e6)
    queue_each: int = _setting(
        "HBM_QUEUE_EACH", "Of these, fits that may wait on behalf of one person", 50, 1, 1e6
    )
    pins: int = _setting(
        "HBM_PINS", "Fits one person may pin; all pins together take half of HBM_STORE_BYTES at most", 20
    )
    upload_mb: int = _setting("HBM_UPLOAD_MB", "Megabytes of an uploaded file", 200, 1, 10_000)
    upload_rows: int = _setting("HBM_UPLOAD_ROWS", "Rows of an uploaded table", 5_000_000, 1, 1e9)
    upload_columns: int = _setting("HBM_UPLOAD_COLUMNS", "Columns of an uploaded table", 1_000, 1, 100_000)
    uploads: int = _setting("HBM_UPLOADS", "Uploads kept for one person", 50, 1, 1e6)
    uploads_bytes: int = _setting(
        "HBM_UPLOADS_BYTES",
        "Bytes of all uploads kept; none goes to make room for another",
        2_000_000_000,
        1e6,
    )
    max_replications: int = _setting(
        "HBM_MAX_REPLICATIONS", "Simulated data sets of one coverage study or calibration", 1_000_000, 10, 1e9
    )
    retention_days: float = _setting(
        "HBM_RETENTION_DAYS", "Days without use after which fits (unless pinned) and uploads go; 0: never",
        0.0, 0, 36_500, whole=False,
    )  # fmt: skip
    warm: int = _setting(
        "HBM_WARM", "1: workers compile the default models when they start; 0: on demand", 1, 0, 1
    )
    attempts: int = _setting(
        "HBM_ATTEMPTS", "Times a fit is started when its worker dies under it", 3, 1, 100
    )
    lease_seconds: float = _setting(
        "HBM_LEASE_SECONDS", "Seconds without a sign of life after which a fit is taken up by another worker",
        15.0, 1, 3600, whole=False,
    )  # fmt: skip
    cancel_seconds: float = _setting(
        "HBM_CANCEL_SECONDS", "Seconds a cancelled fit has to stop by itself before its worker is ended",
        3.0, 0.1, 600, whole=False,
    )  # fmt: skip
    nice: int = _setting(
        "HBM_NICE", "How far workers step back for the web server: the system's niceness, 0 for not at all",
        10, 0, 19,
    )  # fmt: skip
    metrics: int = _setting(
        "HBM_METRICS", "1: /api/metrics answers, for Prometheus; 0: there is no such page", 1, 0, 1
    )

    gallery: int = _setting(
        "HBM_GALLERY", "1: the fits that come with the program are entered into the store; 0: they are not",
        1, 0, 1,
    )  # fmt: skip
    scheduler: str = field(
        default="",
        metadata={
            "variable": "HBM_SCHEDULER",
            "words": "Address of a Dask scheduler, tcp://host:port: fits and studies run on its workers",
        },
    )

    allowed_hosts: str = field(
        default="",
        metadata={
            "variable": "HBM_ALLOWED_HOSTS",
            "words": "Host names under which browsers may use the app, separated by commas; empty: any",
        },
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", Path(self.store).expanduser().absolute())
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                expected = "host names separated by commas, such as app.example.com, *.example.com"
                raise InputError("setting HBM_ALLOWED_HOSTS", expected, repr(host))
        if self.scheduler and not _ADDRESS.fullmatch(self.scheduler):
            raise InputError(
                "setting HBM_SCHEDULER",
                "the address of a Dask scheduler, tcp://host:port or tls://host:port",
                repr(self.scheduler),
            )
        for declared in fields(self):
            if "lower" in declared.metadata:
                object.__setattr__(self, declared.name, _number(declared, getattr(self, declared.name)))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Settings from the environment, `given` fields first; empty variables count as absent."""
        source = os.environ if environment is None else environment
        found = {
            f.name: source[f.metadata["variable"]] for f in fields(cls) if source.get(f.metadata["variable"])
        }
        return cls(**(found | {name: value for name, value in given.items() if value is not None}))

    @property
    def table(self) -> Path:
        """File of the job table."""
        return self.store / "jobs.db"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The allowed host names; none means any."""
        return tuple(name for name in (part.strip() for part in self.allowed_hosts.split(",")) if name)

    def environment(self) -> dict[str, str]:
        """The variables that make another process read the same settings."""
        return {f.metadata["variable"]: str(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class Option:
    """One row of the table of settings, for documents and the settings page."""

    variable: str
    field: str
    default: str
    words: str
    bounds: str = ""


def options() -> tuple[Option, ...]:
    """Every setting with its default and its words."""
    return tuple(
        Option(
            f.metadata["variable"],
            f.name,
            _shown(f.default, f.default_factory),
            f.metadata["words"],
            _bounds(f.metadata),
        )
        for f in fields(Settings)
    )


def markdown() -> str:
    """Every setting as a Markdown table, as docs/settings.md holds it."""
    rows = [f"| `{one.variable}` | {one.default} | {one.bounds} | {one.words} |" for one in options()]
    return "\n".join(
        ["| variable | default | from, to | what it decides |", "| --- | --- | --- | --- |", *rows]
    )


def _bounds(limits: Mapping[str, Any]) -> str:
    if "lower" not in limits:
        return ""
    ends = [f"{limits[end]:,.0f}" if limits[end] >= 1 else f"{limits[end]:g}" for end in ("lower", "upper")]
    return f"{ends[0]}, {'any' if limits['upper'] >= 1e18 else ends[1]}"


def _shown(default: Any, factory: Callable[[], Any] | Any) -> str:
    if factory is default_store:
        return "~/.local/share/partial-pooling-explorer"
    return (default or "none") if isinstance(default, str) else f"{default:,.0f}"


def _number(declared: Field[Any], value: Any) -> float | int:
    limits = declared.metadata
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not limits["lower"] <= number <= limits["upper"] or (limits["whole"] and number != int(number)):
        kind = "a whole number" if limits["whole"] else "a number"
        expected = f"{kind} from {limits['lower']:g} to {limits['upper']:g}"
        raise InputError(f"setting {limits['variable']}", expected, repr(value))
    return int(number) if limits["whole"] else number
