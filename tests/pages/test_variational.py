"""A variational fit on the pages Fits and Trace: its own diagnostics, no alarms that mean nothing for it."""

from __future__ import annotations

import pytest

from hbm_core.store.tasks import result_of
from hbm_core.ui.fits import view
from tests.pages import test_fits, test_trace
from tests.pages.fitted import SESSION, draws, engine, study

__all__ = ["engine"]


def publish(engine, k_hat: float, stretched: float = 1.0):
    """A finished variational fit of exact draws, τ stretched; its study."""
    chosen = study(engine="variational")
    data = chosen.data(engine.uploaded)
    request = chosen.request(data)
    engine.submit(request, data, SESSION, "An approximation")
    job = engine.table.claim("test", 60, only=request.digest)
    assert job is not None
    tree = draws(request.spec(data)).drop_nodes("sample_stats")
    tree["posterior"]["tau"] = stretched * tree["posterior"]["tau"]
    tree.attrs.update(
        partial=0, engine="variational", method="full-rank ELBO", k_hat=k_hat, elbo=-32.2, elbo_se=0.01
    )
    result = result_of(tree, request.spec(data))
    size = engine.results.publish(job.ask, result)
    assert engine.table.finish(request.digest, "test", size, False)
    return chosen


def test_a_close_one_is_said_to_be_sound(engine) -> None:
    chosen = publish(engine, 0.4)
    found = view(chosen)
    assert "posterior sds from exact" in found.detail
    assert ", but " not in found.detail
    assert "Normal approximation" in test_fits.said(test_fits.opened())
    row = test_fits.row_html(test_fits.entry(engine, found.id), 0.0)
    assert " sd</div>" in row
    assert "✕" not in row
    page = test_trace.said(test_trace.opened(chosen))
    assert "Pareto k" in page
    assert "From exact" in page
    assert "MCSE of means" in page
    assert ">R-hat</" not in page.split("Every parameter")[0]
    assert "✕" not in page


def test_a_wrong_one_says_by_how_much(engine) -> None:
    chosen = publish(engine, 1.3, stretched=1.5)
    found = view(chosen)
    assert "Pareto's k is 1.30, above 0.7" in found.detail
    assert "tau is 0." in found.detail
    assert "R-hat" not in found.detail
    assert "✕ 0." in test_fits.row_html(test_fits.entry(engine, found.id), 0.0)
    page = test_trace.said(test_trace.opened(chosen))
    assert "not to be read yet" in page
    assert "1.30" in page


@pytest.mark.parametrize("section", ["Table", "Ranks"])
def test_other_sections_open(engine, section) -> None:
    test_trace.opened(publish(engine, 0.4), section=section)
