"""Results on disk: one folder per fit, whole or absent, verified whenever it is read; no pickle.

``fits/<id>/`` holds ``posterior.nc`` (uncompressed netCDF), ``summary.json`` (what pages load first) and
``meta.json`` (request, timings, environment, sha256 of the other files and of itself).
``data/<digest>.arrow`` holds a data set and ``data/<digest>.json`` its words, sealed; ``partial/<id>.part``
the draws of a fit that still runs: sha256, then netCDF. A file that is not what was written is never shown.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hbm_core.errors import DamagedResult, StoreError
from hbm_core.models.dataset import Dataset, Words, table_from_arrow
from hbm_core.store.jobs import Ask

#: Version of the folder's layout.
LAYOUT = 1
POSTERIOR, SUMMARY, META = "posterior.nc", "summary.json", "meta.json"
_WORDS = {"name", "label", "words", "reference", "truth"}
#: Groups whose numbers are draws of a distribution; likelihoods and statistics stay in double precision.
DRAWS = ("posterior", "prior", "posterior_predictive", "prior_predictive")
#: Largest rounding that single precision may cost, in sds of the draws.
SINGLE_LOSS = 1e-6
# The HDF5 library is not safe for threads.
_HDF5 = threading.Lock()
_SHA256_BYTES = 32
_PACKED = {"zlib": True, "complevel": 9, "shuffle": True}
#: Seconds for which damaged results are kept to be looked into.
QUARANTINE = 30 * 86400.0


@dataclass(frozen=True, eq=False)
class Result:
    """What a task hands back.

    Parameters
    ----------
    tree : xarray.DataTree
        Draws, statistics, likelihood, data.
    summary : mapping
        JSON-ready; what pages and the command line show without reading draws.
    timings : mapping of str to float
        Seconds: compile, sample, total.
    partial : bool
        Whether it stopped before it was complete.
    stopped : str
        Why, half a sentence; empty for a complete one.
    environment : mapping of str to str, optional
        What computed it; this process where absent.
    """

    tree: xr.DataTree
    summary: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    partial: bool = False
    stopped: str = ""
    environment: Mapping[str, str] | None = None


class ResultStore:
    """Folders of results under `root`.

    Parameters
    ----------
    root : Path
        The store's folder; made where absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, id: str) -> Path:
        """Folder of a result."""
        return self.root / "fits" / _plain(id)

    def file(self, id: str) -> Path:
        """The netCDF of a result, verified: for downloads."""
        self._verify(id, POSTERIOR)
        return self.path(id) / POSTERIOR

    # Fits -------------------------------------------------------------------------------------------------

    def publish(self, ask: Ask, result: Result, packed: bool = False) -> int:
        """Put a result in its place, whole or not at all; its size in bytes.

        Parameters
        ----------
        ask : Ask
            What the result answers.
        result : Result
            The answer.
        packed : bool
            Written as it is, in double precision too, and compressed: slow to read, small.

        Raises
        ------
        StoreError
            The disk is full or cannot be written; what was there before is intact.
        """
        with _disk_in_words(self.root), self._temporary() as folder:
            folder.mkdir()
            _write_tree(result.tree if packed else compact(result.tree), folder / POSTERIOR, packed)
            _write_bytes(folder / SUMMARY, _json(result.summary))
            _write_bytes(folder / META, _json(_sealed(_meta(ask, result, folder))))
            size = _size(folder)
            _sync(folder)
            self._put(folder, self.path(ask.id))
            self.drop_partial(ask.id)
        return size

    def ids(self) -> list[str]:
        """Ids of all results, whole or not."""
        folder = self.root / "fits"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def complete(self, id: str) -> bool:
        """Whether a result is there and its files have their sizes: cheap, finds what a crash leaves."""
        try:
            files = self.meta(id)["files"]
            return all((self.path(id) / name).stat().st_size == kept["bytes"] for name, kept in files.items())
        except (DamagedResult, OSError, KeyError, TypeError, AttributeError):
            return False

    def meta(self, id: str) -> dict[str, Any]:
        """Request, timings, environment and digests of a result. Raises DamagedResult."""
        value = _unsealed(self._read(id, META))
        if value is None:
            raise _damaged(id, f"{META} is not what was written")
        if value.get("ask", {}).get("id") != id:
            raise _damaged(id, "its files are those of another fit")
        return value

    def ask(self, id: str) -> Ask:
        """What the result is the answer to. Raises DamagedResult."""
        return Ask(**self.meta(id)["ask"])

    def summary(self, id: str) -> dict[str, Any]:
        """The small summary, verified. Raises DamagedResult."""
        text = self._read(id, SUMMARY)
        if _digest(text) != self.meta(id)["files"][SUMMARY]["sha256"]:
            raise _damaged(id, f"{SUMMARY} is not what was written")
        return json.loads(text)

    def load(self, id: str) -> xr.DataTree:
        """The whole result in memory, verified and read-only. Raises DamagedResult."""
        self._verify(id, POSTERIOR)
        try:
            return _read_tree(self.path(id) / POSTERIOR)
        except OSError as error:
            raise _damaged(id, f"{POSTERIOR} cannot be read ({error})") from error

    def quarantine(self, id: str) -> None:
        """Set a damaged result aside, so that it is never read again and can still be looked into."""
        aside = self.root / "quarantine"
        with _disk_in_words(self.root):
            aside.mkdir(parents=True, exist_ok=True)
            if self.path(id).exists():
                target = aside / f"{id}-{time.time_ns()}"
                self.path(id).rename(target)
                os.utime(target)

    def delete(self, id: str) -> None:
        """Remove a result and its partial draws; nothing happens where there are none."""
        self.drop_partial(id)
        with _disk_in_words(self.root):
            if self.path(id).exists():
                with self._temporary() as folder:
                    self.path(id).rename(folder)

    def purge(self, id: str) -> None:
        """Remove a result with all that was ever set aside of it."""
        self.delete(id)
        for path in (self.root / "quarantine").glob(f"{_plain(id)}*"):
            _remove(path)

    def purge_aside(self, before: float) -> None:
        """Remove what was set aside before a time, in seconds since the epoch: results and job tables."""
        for path in (*(self.root / "quarantine").glob("*"), *self.root.glob("*.damaged-*")):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    _remove(path)

    def size(self, id: str) -> int:
        """Bytes on disk of one result."""
        return _size(self.path(id)) if self.path(id).is_dir() else 0

    def total(self) -> int:
        """Bytes on disk of all results."""
        return sum(self.size(id) for id in self.ids())

    def sweep(self, age: float = 3600.0, pid: int | None = None) -> None:
        """Remove what crashes left behind: temporary entries older than `age` seconds, or those of a process.

        Parameters
        ----------
        age : float
            Seconds. What was set aside as damaged goes once it is older than `QUARANTINE` as well.
        pid : int, optional
            A process of this machine that has ended: all that it left, and nothing else, whatever its age.
        """
        now = time.time()
        for path in _entries(self.root / "tmp"):
            if path.name.startswith(_owned(pid)) if pid is not None else now - _changed(path, now) > age:
                _remove(path)
        for path in _entries(self.root / "quarantine") if pid is None else ():
            if now - _changed(path, now) > QUARANTINE:
                _remove(path)

    # Draws of a fit that still runs -----------------------------------------------------------------------

    def write_partial(self, id: str, tree: xr.DataTree) -> None:
        """Replace a running fit's draws so far. Raises StoreError where the disk refuses."""
        content = to_bytes(tree)
        target = self._partial(id)
        with _disk_in_words(self.root), self._temporary() as path:
            target.parent.mkdir(parents=True, exist_ok=True)
            # In one file, so that no crash can part the draws from their digest; not flushed: nobody
            # needs them after one.
            path.write_bytes(hashlib.sha256(content).digest() + content)
            path.replace(target)

    def partial(self, id: str) -> xr.DataTree | None:
        """A running fit's draws so far, verified; None where there are none yet, or damaged ones."""
        try:
            content = self._partial(id).read_bytes()
        except OSError:
            return None
        seal, content = content[:_SHA256_BYTES], content[_SHA256_BYTES:]
        return _read_tree(content) if hashlib.sha256(content).digest() == seal else None

    def has_partial(self, id: str) -> bool:
        """Whether a running fit's draws can be read."""
        return self._partial(id).exists()

    def drop_partial(self, id: str) -> None:
        """Remove a running fit's draws so far."""
        with _disk_in_words(self.root):
            self._partial(id).unlink(missing_ok=True)

    def _partial(self, id: str) -> Path:
        return self.root / "partial" / f"{_plain(id)}.part"

    # Data sets --------------------------------------------------------------------------------------------

    def save_data(self, dataset: Dataset) -> None:
        """Keep a data set with its words; nothing happens where it is kept already."""
        target = self.root / "data" / f"{dataset.digest}.arrow"
        if self._sound_data(dataset.digest):
            return
        words = {
            "name": dataset.name,
            "label": dataset.label,
            "words": asdict(dataset.words),
            "reference": dataset.reference,
            "truth": None if dataset.truth is None else dict(dataset.truth),
        }
        with _disk_in_words(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            # The table last: where it is, the words are.
            for path, content in (
                (target.with_suffix(".json"), _json(_sealed(words))),
                (target, dataset.arrow),
            ):
                with self._temporary() as written:
                    _write_bytes(written, content)
                    written.replace(path)
            _sync(target.parent)

    def arrow(self, digest: str) -> bytes | None:
        """Arrow bytes of a kept data set, verified; None where it is not kept. Raises DamagedResult."""
        try:
            content = (self.root / "data" / f"{_plain(digest)}.arrow").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedResult(
                f"The kept data set {digest[:12]} cannot be read ({error.strerror}). Load it again."
            ) from error
        if _digest(content) != digest:
            raise DamagedResult(f"The kept data set {digest[:12]} is not what was written. Load it again.")
        return content

    def dataset(self, digest: str) -> Dataset:
        """A kept data set, verified.

        Raises
        ------
        DamagedResult
            It is not what was written.
        StoreError
            It is not kept.
        """
        content = self.arrow(digest)
        if content is None:
            raise StoreError(f"The data set {digest[:12]} is not kept here any more. Load it again.")
        kept = self._words(digest)
        if kept is None:
            return Dataset("upload", "Your data", table_from_arrow(content), Words())
        words = Words(**kept.pop("words"))
        return Dataset(table=table_from_arrow(content), words=words, **kept)

    def _words(self, digest: str) -> dict[str, Any] | None:
        """What was said about a data set; None where it is not what was written."""
        try:
            kept = _unsealed((self.root / "data" / f"{digest}.json").read_bytes())
        except OSError:
            return None
        return kept if kept is not None and kept.keys() == _WORDS else None

    def _sound_data(self, digest: str) -> bool:
        try:
            return self.arrow(digest) is not None and self._words(digest) is not None
        except DamagedResult:
            return False

    def partial_ids(self, before: float) -> list[str]:
        """Ids of fits whose draws so far were last written before a time, in seconds since the epoch."""
        folder = self.root / "partial"
        found = folder.glob("*.part") if folder.is_dir() else ()
        return sorted(path.stem for path in found if path.stat().st_mtime < before)

    def data_digests(self, before: float) -> list[str]:
        """Digests of the data sets kept since before a time, in seconds since the epoch."""
        folder = self.root / "data"
        found = folder.glob("*.arrow") if folder.is_dir() else ()
        return sorted(path.stem for path in found if path.stat().st_mtime < before)

    def delete_data(self, digest: str) -> None:
        """Remove a data set."""
        for ending in (".arrow", ".json"):
            (self.root / "data" / f"{_plain(digest)}{ending}").unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A name on the store's own file system; what still bears it afterwards is removed."""
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{_owned(os.getpid())}{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            _remove(path)

    def _put(self, folder: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            with self._temporary() as old:
                target.rename(old)
                folder.rename(target)
        else:
            folder.rename(target)
        _sync(target.parent)

    def _read(self, id: str, name: str) -> bytes:
        try:
            return (self.path(id) / name).read_bytes()
        except FileNotFoundError:
            raise _damaged(id, f"{name} is missing") from None
        except OSError as error:
            raise _damaged(id, f"{name} cannot be read ({error.strerror})") from error

    def _verify(self, id: str, name: str) -> None:
        expected = self.meta(id)["files"][name]["sha256"]
        try:
            with (self.path(id) / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise _damaged(id, f"{name} is missing") from None
        except OSError as error:
            raise _damaged(id, f"{name} cannot be read ({error.strerror})") from error
        if found != expected:
            raise _damaged(id, f"{name} is not what was written")


def compact(tree: xr.DataTree) -> xr.DataTree:
    """The tree, draws in single precision where no element loses more than `SINGLE_LOSS` of its sd.

    Times of periastron, say, have an sd that is tiny beside their value and stay in double precision.
    """
    groups = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        if node.path.strip("/").split("/")[0] in DRAWS:
            dataset = dataset.map(_narrowed, keep_attrs=True)
        groups[node.path] = dataset
    return xr.DataTree.from_dict(groups)


def _narrowed(array: xr.DataArray) -> xr.DataArray:
    if array.dtype != np.float64 or array.size == 0:
        return array
    sample = tuple(place for place, dim in enumerate(array.dims) if dim in ("chain", "draw", "sample"))
    with np.errstate(over="ignore", invalid="ignore"):
        single = array.values.astype(np.float32)
        loss = np.abs(single - array.values).max(axis=sample)
        fits = loss <= SINGLE_LOSS * array.values.std(axis=sample)
    return array.copy(data=single) if np.all(fits) else array


def to_bytes(tree: xr.DataTree) -> bytes:
    """The tree as netCDF, in memory: how a result travels."""
    with _HDF5:
        return bytes(tree.to_netcdf(engine="netcdf4"))


def from_bytes(content: bytes) -> xr.DataTree:
    """Inverse of `to_bytes`; read-only."""
    return _read_tree(content)


def environment() -> dict[str, str]:
    """What computed a result: interpreter, platform and versions."""
    from hbm_core.store.request import engine_versions

    return {"python": platform.python_version(), "platform": platform.platform(), **engine_versions()}


def _meta(ask: Ask, result: Result, folder: Path) -> dict[str, Any]:
    files = {}
    for name in (POSTERIOR, SUMMARY):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = {"sha256": digest, "bytes": (folder / name).stat().st_size}
    return {
        "layout": LAYOUT,
        "ask": asdict(ask),
        "timings": dict(result.timings),
        "partial": result.partial,
        "stopped": result.stopped,
        "environment": environment() if result.environment is None else dict(result.environment),
        "created": time.time(),
        "files": files,
    }


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"seal": _digest(_json(value))}


def _unsealed(text: bytes) -> dict[str, Any] | None:
    """Inverse of `_sealed` and `_json`; None for anything else."""
    try:
        value = json.loads(text)
        seal = value.pop("seal")
        return value if seal == _digest(_json(value)) else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(name: str) -> str:
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise StoreError(f"{name[:80]!r} is no id of a fit or of data.")
    return name


def _damaged(id: str, what: str) -> DamagedResult:
    return DamagedResult(
        f"The kept result of fit {id[:12]} is damaged: {what}. It is not shown; fit again to restore it."
    )


def _write_tree(tree: xr.DataTree, path: Path, packed: bool = False) -> None:
    encoding = {
        node.path: {name: _PACKED for name, values in node.to_dataset().data_vars.items() if values.ndim}
        for node in tree.subtree
        if packed
    }
    try:
        with _HDF5:
            tree.to_netcdf(path, engine="netcdf4", encoding=encoding or None)
    except RuntimeError as error:
        # The HDF5 library says no more than "HDF error" when a write fails.
        full = shutil.disk_usage(path.parent).free < tree.nbytes
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    _sync(path)


def _read_tree(source: Path | bytes) -> xr.DataTree:
    with _HDF5, xr.open_datatree(source, engine="netcdf4") as opened:
        tree = opened.load()
        # `DataTree.load` passes over a variable that has the name of a group: it would be read when it is
        # first looked at, from a file that is opened again without the lock.
        for node in tree.subtree:
            for variable in node.variables.values():
                variable.load()
    for node in tree.subtree:
        for variable in node.variables.values():
            if isinstance(variable.data, np.ndarray):
                variable.data.setflags(write=False)
    return tree


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _changed(path: Path, default: float) -> float:
    """When it was last changed; `default` where it has just gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return default


def _owned(pid: int) -> str:
    """How the names of a process's temporary entries begin."""
    return f"{socket.gethostname()}-{pid}-"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        # What cannot be removed now is swept later.
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _disk_in_words(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                reason = "the disk is full. Free some space or delete fits"
            case errno.EROFS | errno.EACCES | errno.EPERM:
                reason = "it cannot be written. Check its permissions, or set HBM_STORE to another folder"
            case _:
                reason = f"{error.strerror or error}"
        raise StoreError(f"The store {root}: {reason}. Earlier results are intact.") from error
