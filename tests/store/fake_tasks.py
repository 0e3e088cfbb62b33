"""Tasks that need no sampler, for workers to run in tests."""

import itertools
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import xarray as xr

from hbm_core.errors import FitError
from hbm_core.inference.sampler import ChainProgress, Progress
from hbm_core.store.results import Result, ResultStore
from hbm_core.store.tasks import task

#: What a fit that waits for its gate counts to.
GATED = 100_000


def tree(value, draws=20):
    posterior = xr.Dataset({"mu": (("chain", "draw"), np.full((1, draws), float(value)))})
    return xr.DataTree.from_dict({"posterior": posterior})


def note(options):
    with Path(options["log"]).open("a") as log:
        log.write(f"{os.getpid()}\n")


def counted(options):
    """Hundredths of `seconds`, and how many there are; without end until the file `gate` exists, if given."""
    gate = options.get("gate")
    total = GATED if gate else round(options["seconds"] * 100)
    for finished in itertools.count() if gate else range(total):
        if gate and Path(gate).exists():
            return
        yield min(finished, total), total


@task
def steps(job, run):
    """Count to `seconds`, telling how far; die at the first attempts where asked to."""
    options = json.loads(job.request)
    note(options)
    partial = False
    for finished, total in counted(options):
        run.progress(Progress("sampling", (ChainProgress(finished, total, 0, False, 0.1),), 1.0))
        if finished % 10 == 0:
            run.partial(tree(job.attempts, finished + 1))
        if run.should_stop():
            partial = True
            break
        time.sleep(0.01)
    if job.attempts <= options.get("deaths", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    return Result(tree(options.get("value", 0)), {"attempts": job.attempts}, {"total": 1.0}, partial)


@task
def stubborn(job, run):
    """Never look whether to stop."""
    note(json.loads(job.request))
    run.progress(Progress("sampling"))
    time.sleep(0.5)
    run.partial(tree(0))
    time.sleep(600)


@task
def refuses(job, run):
    raise FitError("No chain found a starting point.")


@task
def breaks(job, run):
    raise ZeroDivisionError("secret detail")


@task
def hungry(job, run):
    raise MemoryError


def unmarked(job, run):
    raise AssertionError("must never run")


@task
def known(job, run):
    """Content that follows from the request alone, of a size that takes time to write."""
    options = json.loads(job.request)
    log = Path(options["log"])
    with log.open("a") as lines:
        lines.write(f"start {job.id}\n")
    for finished, total in counted(options):
        run.progress(Progress("sampling", (ChainProgress(finished, total, 0, False, 0.1),), 1.0))
        run.partial(tree(options["value"], finished + 1))
        if run.should_stop():
            return Result(tree(options["value"]), partial=True)
        time.sleep(0.01)
    with log.open("a") as lines:
        lines.write(f"end {job.id}\n")
    return Result(tree(options["value"], options.get("draws", 20)), {"value": options["value"]})


@task
def stuck(job, run):
    """Never get further than a result that is written and not yet in its place."""
    ResultStore._put = lambda *_: time.sleep(3600)
    return Result(tree(0))
