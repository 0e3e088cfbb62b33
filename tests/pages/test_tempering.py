"""A fit by parallel tempering on the pages Fits and Trace, and its tables and figure."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from hbm_core.analysis import tempering
from hbm_core.analysis.checks import Evidence, check_result
from hbm_core.analysis.draws import diagnostics, grade
from hbm_core.inference.sampler import TEMPERING
from hbm_core.inference.tempering.engine import Explored, tempering_group
from hbm_core.models.prior import Prior
from hbm_core.plots.tempering import tempering as figure_of
from hbm_core.store.study import Study
from hbm_core.store.summary import draws_table
from hbm_core.store.tasks import exact_draws, result_of
from hbm_core.ui.fits import view
from tests.pages import test_fits, test_trace
from tests.pages.fitted import SESSION, engine, study

__all__ = ["engine"]
CHAINS, DRAWS, COUNT = 5, 300, 6


def explored(still: bool = False) -> Explored:
    """Walkers in step around a ring: the one fifth of a round trip each iteration; or nobody moves."""
    rng = np.random.default_rng(3)
    ring = np.concatenate([np.arange(COUNT), np.arange(COUNT - 2, 0, -1)])
    walker = np.tile(np.arange(COUNT), (CHAINS, DRAWS, 1))
    if not still:
        # Walkers 0 and 1 exchange the ends and all else between, by turns.
        for at in range(DRAWS):
            place = ring[at % ring.size]
            order = [one for one in range(COUNT) if one]
            walker[:, at] = [*order[:place], 0, *order[place:]]
    shape = (CHAINS, DRAWS, COUNT)
    return Explored(
        beta=np.linspace(0, 1, COUNT) ** 3,
        x=rng.normal(size=(CHAINS, DRAWS, 1)),
        log_posterior=rng.normal(size=shape[:2]),
        log_likelihood=np.full(shape, -32.0) + rng.normal(size=shape),
        walker=walker,
        accept=np.full(shape, 0.8),
        walk_accept=np.full(shape, 0.3),
        swap=np.full((CHAINS, DRAWS, COUNT - 1), 0.75),
        steps=np.full(shape[:2], 4),
        step_size=np.full(COUNT, 0.5),
        walk_size=np.full(COUNT, 0.7),
    )


def tempered(spec, still: bool = False) -> xr.DataTree:
    """Exact draws with the ladder of `explored`."""
    tree, found = exact_draws(spec, CHAINS, DRAWS, 7), explored(still)
    along = ("chain", "draw")
    values = {name: found.log_posterior for name in ("lp", "log_prior", "log_likelihood")}
    values |= {"acceptance_rate": found.accept[..., -1], "swap_acceptance": found.swap[..., -1]}
    statistics = {name: (along, array) for name, array in values.items()}
    tree["sample_stats"] = xr.DataTree(xr.Dataset(statistics))
    tree["tempering"] = xr.DataTree(tempering_group(found))
    tree.attrs.update(
        engine="tempering", log_evidence=-32.2, log_evidence_se=0.02, barrier=found.barrier, stopped=""
    )
    return tree


def publish(engine, still: bool = False):
    chosen = Study.default().change(engine="tempering")
    data = chosen.data(engine.uploaded)
    request = chosen.request(data)
    engine.submit(request, data, SESSION, "Tempered")
    job = engine.table.claim("test", 60, only=request.digest)
    assert job is not None
    result = result_of(tempered(request.spec(data), still), request.spec(data))
    size = engine.results.publish(job.ask, result)
    assert engine.table.finish(request.digest, "test", size, False)
    return chosen


def test_the_page_shows_ladder_and_evidence(engine) -> None:
    chosen = publish(engine)
    page = test_trace.opened(chosen, section="Tempering")
    text = test_trace.said(page)
    assert "−32.20 ± 0.02" in text
    assert "Exact log evidence" in text
    assert "−32.17" in text
    assert "Round trips" in text
    (figure,) = test_trace.figures(page)
    assert '"name":"swap"' in figure
    assert '"name":"walker 1"' in figure
    views = str(page.get("button_group")[0].proto)
    assert "Tempering" in views
    assert "Energy" not in views
    assert tempering.is_tempered(engine.result(view(chosen).id))
    assert "Parallel tempering in the non-centered geometry" in test_fits.said(test_fits.opened())


def test_a_ladder_that_nobody_climbed_is_doubted(engine) -> None:
    chosen = publish(engine, still=True)
    assert "0 round trips" in view(chosen).detail
    spec = chosen.spec(chosen.data())
    found = check_result("round_trips", Evidence(spec, None, tempered(spec, still=True)))
    assert found.verdict == "warn"
    assert "more temperatures" in found.advice
    good = Evidence(spec, None, tempered(spec))
    assert check_result("round_trips", good).verdict == "pass"
    assert check_result("divergences", good).verdict == "not applicable"
    assert grade(diagnostics(good.tree)) == "pass"


def test_a_study_changes_its_settings_with_its_engine() -> None:
    usual = Study.default()
    found = usual.change(engine="tempering")
    assert found.sampler == TEMPERING
    assert found.query["engine"] == "tempering"
    assert "draws" not in found.query
    assert Study.from_query({**found.query, "temperatures": "7"}).sampler.temperatures == 7
    assert Study.from_query(found.query).sampler == TEMPERING
    assert found.change(engine="nuts").sampler == usual.sampler
    # Settings that a fit of any other engine lacks leave its identity as it was.
    assert "temperatures" not in usual.sampler.as_dict()


def test_an_improper_prior_is_refused_before_anything_runs(engine) -> None:
    chosen = study(engine="tempering", priors={"mu": Prior.parse("Flat()")})
    page = test_trace.opened(chosen)
    page.button(key="trace_fit").click().run()
    assert not engine.jobs(SESSION)


@pytest.fixture
def tree():
    chosen = Study.default()
    return tempered(chosen.spec(chosen.data()))


def test_tables_and_figure(tree) -> None:
    ladder, paths = tempering.ladder_table(tree), tempering.path_table(tree, most=100)
    assert ladder["swap_acceptance"].notna().sum() == COUNT - 1
    assert ladder["barrier"].iloc[-1] == pytest.approx(0.25 * (COUNT - 1))
    first = paths[paths["walker"] == 0]
    assert first["temperature"].between(0, COUNT - 1).all()
    assert set(np.abs(np.diff(first["temperature"]))) == {1}
    # One round of the ring is 2 (T − 1) iterations.
    replicas = tempering.replica_table(tree)
    assert (replicas["round_trips"] - DRAWS / (2 * (COUNT - 1))).abs().max() <= 1
    barrier = tempering.barrier_table(tree)
    area, first_step = np.trapezoid(barrier["local"], barrier["beta"]), ladder["barrier"][1]
    assert area == pytest.approx(tree.attrs["barrier"] - first_step, rel=0.02)
    figure = figure_of(ladder, barrier, paths, "dark")
    assert [trace.name for trace in figure.data][:3] == ["swap", "step", "walk"]
    assert "from the prior (0) to the posterior (1)" in str(figure.layout)
    table = draws_table(tree)
    assert {"log_prior", "log_likelihood", "log_posterior", "step_acceptance"} <= set(table)
    assert "round trips per replica" in tempering.sentence(tree)
