"""Models that no sampler can do anything with: a diagnosis in words, the request kept."""

from dataclasses import replace

import pytest

from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.store.local import LocalEngine
from hbm_core.store.request import FitRequest
from hbm_core.store.settings import Settings
from hbm_core.store.worker import compute_here
from tests.store.test_local import schools_request

pytestmark = pytest.mark.sampling


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with LocalEngine(Settings(tmp_path_factory.mktemp("models"), workers=0, warm=0)) as engine:
        yield engine


def answer(engine, request, dataset):
    id = engine.submit(request, dataset, "s")
    compute_here(engine.settings, id)
    return id


def other(request, dataset, effect, **priors):
    """The same request for other effects and priors; no reader has looked at the effects."""
    changed = replace(dataset, name="upload", table=dataset.table.assign(effect=effect))
    given = {"data": changed.digest, "priors": {**request.priors, **priors}}
    return FitRequest(**(vars(request) | given)), changed


def test_a_prior_that_excludes_the_data_is_diagnosed_and_the_request_kept(engine):
    request, dataset = schools_request(sampler=Sampler(draws=50, tune=50, chains=2))
    request, dataset = other(request, dataset, dataset.table["effect"], mu=Prior.parse("Normal(9e99, 1)"))
    id = answer(engine, request, dataset)
    status = engine.status(id)
    assert status.state == "failed"
    assert "mu ~ Normal(9e+99, 1) excludes the data" in status.error
    assert "the effects from -3 to 28" in status.error
    assert engine.request(id) == request and engine.dataset(id).digest == dataset.digest


def test_an_effect_without_a_finite_density_is_named(engine):
    request, dataset = schools_request(sampler=Sampler(draws=50, tune=50, chains=2))
    effect = dataset.table["effect"].to_numpy(float).copy()
    effect[2] = 1e200
    request, changed = other(request, dataset, effect)
    id = answer(engine, request, changed)
    assert engine.status(id).state == "failed"
    assert str(changed.table.iloc[2, 0]) in engine.status(id).error
    assert "standard errors" in engine.status(id).error
    assert engine.request(id) == request


def test_a_sampler_that_diverges_everywhere_is_diagnosed_and_the_request_kept(engine):
    """A prior 1e88 times wider than the data's scale: no step is small enough."""
    request, dataset = schools_request(sampler=Sampler(draws=100, tune=200, chains=2))
    request, dataset = other(request, dataset, dataset.table["effect"], tau=Prior.parse("HalfCauchy(1e90)"))
    id = answer(engine, request, dataset)
    status = engine.status(id)
    assert status.state == "failed"
    assert "All 200 kept draws diverged" in status.error
    assert "parameterization" in status.error and "priors" in status.error
    assert engine.request(id) == request
    assert not engine.results.has_partial(id)
    # The next fit of the same worker's compiled model is not touched by it.
    again, dataset = schools_request(sampler=Sampler(draws=100, tune=200, chains=2))
    assert engine.status(answer(engine, again, dataset)).state == "done"
