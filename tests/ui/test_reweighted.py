"""Which finished fit answers for a study without an exact engine, and what is said where none can."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hbm_core.errors import NotExactError, StoreError
from hbm_core.inference.exact import solve
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior
from hbm_core.store.study import Study
from hbm_core.store.tasks import exact_draws
from hbm_core.ui import live as live_module
from hbm_core.ui import reweighted


class Store:
    """Finished fits of eight schools, drawn exactly, as an engine lists them."""

    def __init__(self) -> None:
        self.kept: dict[str, object] = {}
        self.listed: list[SimpleNamespace] = []
        self.reads = 0

    def add(self, study: Study, finished: float, **changes: object) -> str:
        dataset = study.data()
        request = study.request(dataset)
        self.kept[request.digest] = exact_draws(study.spec(dataset), 4, 1000, 3)
        fields = {"state": "done", "partial": False, "data": request.data, "finished": finished}
        text = json.dumps(request.as_dict())
        self.listed.append(SimpleNamespace(id=request.digest, request=text, **fields | changes))
        return request.digest

    def jobs(self, session: str) -> list[SimpleNamespace]:
        return self.listed

    def gallery(self) -> list[SimpleNamespace]:
        return []

    def result(self, id: str) -> object:
        self.reads += 1
        if id not in self.kept:
            raise StoreError("gone")
        return self.kept[id]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store()
    monkeypatch.setattr(reweighted.fits, "engine", lambda: found)
    monkeypatch.setattr(reweighted.session, "owner", lambda: "me")
    for name in ("_DRAWS", "_READ"):
        shelf = getattr(reweighted, name)
        monkeypatch.setattr(reweighted, name, type(shelf)(shelf.entries, shelf.size))
    return found


def study(tau: str = "HalfCauchy(25)", **changes: object) -> Study:
    return Study.default("schools").change(priors={"tau": Prior.parse(tau)}, **changes)


def read(asked: Study) -> reweighted.Reading:
    dataset = asked.data()
    return reweighted.read(asked, dataset, asked.spec(dataset))


def test_without_a_fit_it_says_what_a_fit_shows(store: Store) -> None:
    store.add(study(sampler=Sampler(seed=1)), 1.0, state="running")
    store.add(study(sampler=Sampler(seed=2)), 1.0, partial=True)
    store.add(replace(study(), engine="exact"), 1.0)
    store.add(study().change(model="robust"), 1.0)
    found = read(study())
    assert found.posterior is None and "Fit to see them" in found.problem and not found.stale
    assert store.reads == 0


def test_the_fit_with_fewest_other_priors_answers_once(store: Store) -> None:
    store.add(study("HalfNormal(10)"), 2.0)
    near = store.add(study(), 1.0)
    found = read(study())
    assert found.posterior is not None and found.posterior.k == 0 and not found.problem
    assert read(study()).posterior is found.posterior
    assert store.reads == 1
    # The same draws serve other geometries and sampler settings; other priors re-weight them.
    assert read(replace(study(), parameterization="centered")).posterior is found.posterior
    moved = read(study("HalfCauchy(20)"))
    assert moved.posterior is not None and moved.posterior.k != 0
    del store.kept[near]
    assert read(study()).posterior is found.posterior


def test_priors_too_far_keep_the_last_picture_and_say_so(store: Store) -> None:
    store.add(study("Uniform(0, 5)"), 1.0)
    found = read(study("HalfNormal(50)"))
    assert found.stale and found.posterior is not None and "Fit to update" in found.problem
    assert found.posterior.spec.priors["tau"].text == "Uniform(0, 5)"


def test_a_result_that_is_gone_is_no_fit(store: Store) -> None:
    store.add(study(), 1.0)
    store.kept.clear()
    found = read(study())
    assert found.posterior is None and found.problem


def test_pages_fall_back_on_fits_only_where_no_exact_engine_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(study(), 1.0)

    def refuse(spec: object) -> None:
        raise NotExactError("model", "an exact engine", "none")

    shelf = live_module._SOLVED
    monkeypatch.setattr(live_module, "_SOLVED", type(shelf)(shelf.entries, shelf.size))
    exact = live_module.live(study())
    assert not exact.sampled and exact.exact is exact.posterior
    monkeypatch.setattr(live_module, "_SOLVED", type(shelf)(shelf.entries, shelf.size))
    monkeypatch.setattr(live_module, "solve", refuse)
    sampled = live_module.live(study())
    assert sampled.sampled and sampled.exact is None and sampled.posterior is not None
    truth = solve(study().spec(study().data()))
    assert sampled.posterior.mean == pytest.approx(truth.mean, abs=4 * float(sampled.posterior.mcse.max()))
