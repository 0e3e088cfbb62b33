"""Hyperposteriors of kept studies: what `hbm precompute` writes and `--prior-from` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hbm_core.inference.exact import solve
from hbm_core.inference.learned import Learned, learned_priors
from hbm_core.inference.precomputed import Hyperposterior, Readouts, score
from hbm_core.models.dataset import Dataset
from hbm_core.models.three_level import ThreeLevelNormal
from hbm_core.scenarios import scenario
from hbm_core.store.exchange import Fit
from hbm_core.store.request import FitRequest


def precompute(request: FitRequest, dataset: Dataset) -> Hyperposterior:
    """The exact hyperposterior of what a request asks for, whatever engine it names.

    Raises
    ------
    InputError
        The model has no exact engine, or its readouts are no mixtures of normals.
    """
    posterior = solve(request.spec(dataset))
    source = {
        "scenario": request.scenario,
        "model": request.model,
        "data": request.data,
        "label": dataset.label,
        "units": len(posterior.spec.structure.units),
        "priors": {name: prior.text for name, prior in request.priors.items()},
        "error_sd": posterior.error if np.isfinite(posterior.error) else None,
        "fit": request.digest,
        "versions": dict(request.versions),
    }
    return Hyperposterior.of(posterior, source)


def learned(fit: Fit) -> dict[str, Learned]:
    """Priors learned from the exact posterior of a fit's study."""
    return learned_priors(solve(fit.request.spec(fit.dataset)))


@dataclass(frozen=True, eq=False)
class Experiments:
    """New experiments: labels, effects, standard errors, groups."""

    unit: list[str]
    effect: np.ndarray
    se: np.ndarray
    group: list[str | None]

    @classmethod
    def open(cls, path: Path, hyper: Hyperposterior) -> Experiments:
        """Read a file of the scenario that the batch belongs to."""
        found = scenario(str(hyper.source["scenario"]))
        structure: ThreeLevelNormal = found.model(str(hyper.source["model"])).spec(found.open(path)).structure
        labels: list[str | None] = [structure.groups[g] for g in structure.group]
        return cls([str(unit) for unit in structure.units], structure.effect, structure.se, labels)

    def table(self, hyper: Hyperposterior, threshold: float = 0.0) -> tuple[pd.DataFrame, Readouts]:
        """One row per experiment: its figures and its readout's."""
        found = score(hyper, self.effect, self.se, self.group, threshold)
        columns = {"unit": self.unit, "group": self.group, "effect": self.effect, "se": self.se}
        return pd.DataFrame(columns | vars(found)), found
