"""Every warning of the computation has a remedy that changes what it says it changes."""

import pytest

from hbm_core.analysis.checks import checks
from hbm_core.analysis.remedies import HELPS, remedies
from hbm_core.inference.sampler import Sampler
from hbm_core.models.prior import Prior

SAMPLER = Sampler(draws=2000, tune=1000, target_accept=0.9)
STRONGER = ("Skeptical", {"tau": Prior.parse("HalfNormal(1)")})


def found(
    *codes, geometry="centered", offered=("centered", "noncentered"), sampler=SAMPLER, stronger=STRONGER
):
    return {one.id: one for one in remedies(codes, geometry, offered, sampler, stronger)}


def test_codes_are_those_of_declared_checks():
    declared = {check.code for check in checks() if check.group == "computation"}
    assert set(HELPS) <= declared


@pytest.mark.parametrize("code", HELPS)
def test_each_warning_is_helped(code):
    assert [
        one.id for one in remedies([code], "centered", ("centered", "noncentered"), SAMPLER, STRONGER)
    ] == [kind for kind in HELPS[code]]


def test_what_a_remedy_changes():
    many = found("divergences", "ess_bulk")
    assert many["geometry"].parameterization == "noncentered"
    assert many["target"].sampler.target_accept == 0.95
    assert (many["longer"].sampler.draws, many["longer"].sampler.tune) == (4000, 2000)
    assert many["prior"].priors == STRONGER[1]
    assert many["longer"].sampler.seed == SAMPLER.seed


def test_nothing_is_offered_that_does_not_exist():
    assert found() == {}
    assert "geometry" not in found("r_hat", offered=("centered",))
    assert "prior" not in found("r_hat", stronger=None)
    assert "target" not in found("divergences", sampler=Sampler(target_accept=0.999))
    long = Sampler(draws=20_000, tune=20_000)
    assert "longer" not in found("ess_tail", sampler=long)
