"""Finished fits that come with the program, one per default study, so that a first visit sees full pages.

They lie in ``assets/gallery``, are made by ``hbm gallery --build`` and nothing else, and are entered into a
store when a server starts. Their ids are those of the requests that made them: under other versions of the
samplers the default study is another request, and they are never served for it.

Each lies there as a store's result, sealed by the same digests, but packed: what follows from its draws is
left out, and where effects were integrated out, these too. `unpacked` makes them again with the fit's seed.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

import hbm_core
from hbm_core.errors import DamagedResult, StoreError
from hbm_core.inference.recipes import recipe
from hbm_core.inference.recipes.tree import result_tree
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.scenarios import scenarios
from hbm_core.store.jobs import FIT, Ask, DamagedRow, JobTable
from hbm_core.store.request import FitRequest, engine_versions
from hbm_core.store.results import POSTERIOR, Result, ResultStore, compact, environment
from hbm_core.store.retention import open_table
from hbm_core.store.settings import Settings
from hbm_core.store.study import Study

#: Curves kept with a shipped fit, at most: bands of 95 % need no more.
SAMPLES = 400
#: Where the shipped fits lie; the part of a store that they take.
FOLDER = Path(hbm_core.__file__).parents[1] / "assets" / "gallery"
#: Groups that follow from the draws and the data.
_MADE = ("posterior", "log_likelihood", "observed_data", "constant_data")


@dataclass(frozen=True)
class Shipped:
    """A fit that comes with the program.

    Parameters
    ----------
    id : str
        Digest of its request.
    ask : Ask
        Request and title.
    request : FitRequest or None
        None where this version cannot read it.
    current : bool
        Whether it answers its scenario's default study under the installed versions.
    bytes : int
        Its size.
    """

    id: str
    ask: Ask
    request: FitRequest | None
    current: bool
    bytes: int

    @property
    def state(self) -> str:
        """Whether it is served for new requests, and why not."""
        if self.current:
            return "current"
        if self.request is not None and dict(self.request.versions) != dict(engine_versions()):
            return "of other versions"
        return "of an earlier default study"


def default_study(scenario: str) -> tuple[FitRequest, Dataset, str]:
    """Request, data and title of a scenario's default study."""
    study = Study.default(scenario)
    dataset = study.data()
    return study.request(dataset), dataset, f"{dataset.label}, {study.model.replace('_', ' ')}"


def build(ids: Iterable[str] | None = None, folder: Path = FOLDER) -> list[Shipped]:
    """Fit default studies anew, in this process, and put them in the place of the shipped ones.

    The same draws bit for bit wherever the versions and the type of processor are the same.

    Parameters
    ----------
    ids : iterable of str, optional
        Scenarios; those that are shipped already, or all where none is.
    folder : Path
        The shipped fits.

    Returns
    -------
    list of Shipped
        What was made.
    """
    from hbm_core.store.tasks import result_of, run_fit

    before = {one.id: one for one in shipped(folder)}
    kept = {one.request.scenario for one in before.values() if one.request is not None}
    made = []
    for id in ids if ids is not None else sorted(kept or scenarios()):
        request, dataset, title = default_study(id)
        result = result_of(run_fit(request, dataset), request.spec(dataset))
        # What a shipped fit says of where it was made: nothing about the machine but its kind.
        kind = f"{platform.system()} {platform.machine()}"
        result = replace(result, environment=environment() | {"platform": kind})
        result = replace(result, tree=packed(result.tree, request, dataset))
        with tempfile.TemporaryDirectory() as scratch:
            results = ResultStore(Path(scratch))
            ask = Ask(request.digest, FIT, request.json, request.data, True, title)
            results.publish(ask, result, packed=True)
            for old, one in before.items():
                if one.request is not None and one.request.scenario == id:
                    shutil.rmtree(folder / old)
            shutil.copytree(results.path(request.digest), folder / request.digest)
        made.append(request.digest)
    return [one for one in shipped(folder) if one.id in made]


def shipped(folder: Path = FOLDER) -> list[Shipped]:
    """What comes with the program. Damaged fits are left out: nothing of them is ever shown."""
    found = []
    source = _Folder(folder)
    for id in source.ids():
        try:
            source.summary(id)
            source.file(id)
            ask = source.ask(id)
        except (DamagedResult, StoreError, KeyError, TypeError):
            continue
        try:
            request = FitRequest.from_dict(json.loads(ask.request))
            current = default_study(request.scenario)[0].digest == id
        except (ValueError, TypeError, KeyError):
            request, current = None, False
        found.append(Shipped(id, ask, request, current, source.size(id)))
    return found


def ships(id: str, folder: Path = FOLDER) -> bool:
    """Whether a fit comes with the program."""
    return (folder / id / POSTERIOR).is_file()


def enter(table: JobTable, results: ResultStore, folder: Path = FOLDER) -> list[str]:
    """Enter the shipped fits into a store, pinned, as nobody's; ids of those that were not there.

    A result that the store has, and a fit that somebody has asked for and is under way, stay as they are.
    """
    entered = []
    source = _Folder(folder)
    for one in shipped(folder):
        try:
            if table.get(one.id) is not None or results.complete(one.id):
                continue
        except DamagedRow:
            continue
        if one.request is None or (data := _data(one.request)) is None:
            continue
        results.save_data(data)
        meta = source.meta(one.id)
        result = Result(
            unpacked(source.load(one.id), one.request, data),
            source.summary(one.id),
            *(meta[name] for name in ("timings", "partial", "stopped", "environment")),
        )
        table.adopt(one.ask, meta["created"], results.publish(one.ask, result), meta["partial"])
        table.pin(one.id)
        entered.append(one.id)
    return entered


def enter_into(settings: Settings) -> list[str]:
    """`enter` for the store of the settings; an unwritable store is none of the gallery's business."""
    results = ResultStore(settings.store)
    try:
        with open_table(settings.table, results) as table:
            return enter(table, results)
    except StoreError:
        return []


def packed(tree: xr.DataTree, request: FitRequest, data: Dataset) -> xr.DataTree:
    """A result without what `unpacked` makes again, bit for bit where the draws are kept in full."""
    spec = request.spec(data)
    how = recipe(spec)
    if not how.light:
        return compact(_thinned(tree))
    left = {name: tree[name].to_dataset() for name in tree.children if name not in _MADE}
    if (kept := how.kept(spec)) is not None:
        thin = xr.DataTree.from_dict(left | {"posterior": tree["posterior"].to_dataset()[list(kept)]})
        thin.attrs.update(tree.attrs)
        again = unpacked(thin, request, data)["posterior"].to_dataset()
        if again.identical(tree["posterior"].to_dataset()):
            return thin
    thin = compact(xr.DataTree.from_dict(left | {"posterior": tree["posterior"].to_dataset()}))
    thin.attrs.update(tree.attrs)
    return thin


def _thinned(tree: xr.DataTree) -> xr.DataTree:
    """A result with at most ``SAMPLES`` of the curves that it keeps of some draws, evenly."""
    size = tree["curves"].sizes["sample"] if "curves" in tree.children else 0
    if size <= SAMPLES:
        return tree
    groups = {name: tree[name].to_dataset() for name in tree.children}
    places = np.unique(np.linspace(0, size - 1, SAMPLES).astype(int))
    groups["curves"] = groups["curves"].isel(sample=places)
    found = xr.DataTree.from_dict(groups)
    found.attrs.update(tree.attrs)
    return found


def unpacked(tree: xr.DataTree, request: FitRequest, data: Dataset) -> xr.DataTree:
    """The whole result: effects drawn again with the request's seed, likelihoods and data from the draws."""
    spec = request.spec(data)
    how = recipe(spec)
    if not how.light:
        return tree
    draws, statistics = (
        {str(name): values.values for name, values in tree[group].to_dataset().data_vars.items()}
        if group in tree.children
        else {}
        for group in ("posterior", "sample_stats")
    )
    kept = how.kept(spec)
    if kept is not None and set(draws) == set(kept):
        draws = how.complete(spec, draws, request.sampler.seed)
    else:
        draws = {name: np.asarray(values, dtype=float) for name, values in draws.items()}
    found = result_tree(spec, draws, statistics)
    for name in tree.children:
        if name not in found.children:
            found[name] = xr.DataTree(tree[name].to_dataset())
    found.attrs.update(tree.attrs)
    return found


class _Folder(ResultStore):
    """The shipped fits as a store reads its own."""

    def path(self, id: str) -> Path:
        """Folder of a result."""
        return self.root / super().path(id).name

    def ids(self) -> list[str]:
        """Ids of all shipped fits."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{POSTERIOR}"))


def _data(request: FitRequest) -> Dataset | None:
    found = find_scenario(request.scenario)
    every = (found.dataset(name) for name in found.datasets)
    return next((data for data in every if data.digest == request.data), None)
