"""Leave one condition out: what is left, and the density of what is not."""

from __future__ import annotations

import numpy as np
import pytest

from hbm_core.analysis.circuit_left_out import left_out, without
from hbm_core.errors import InputError
from hbm_core.inference.recipes.tree import result_tree
from tests.models.test_circuits import readings_log_density, spec_of


def test_a_condition_goes_with_its_courses_and_its_curves_stay() -> None:
    spec = spec_of()
    left = without(spec, 1).structure
    assert left.value.size == spec.structure.value.size - 6
    assert not np.isin(np.arange(6, 12), left.point).any()
    assert np.unique(left.course).tolist() == [0, 1, 2, 3]
    assert left.tables.size == spec.structure.tables.size
    with pytest.raises(InputError, match="condition left out"):
        without(spec, 4)


def test_the_density_is_the_mean_over_draws_of_what_was_left_out() -> None:
    """All readings less those that were kept, by SciPy, in two draws."""
    spec = spec_of()
    theta = np.array([[[0.2, -1.1, -1.4]] * 3, [[0.1, -1.0, -1.3]] * 3])
    draws = {
        "alpha": theta[None, :, 0],
        "sigma": np.full((1, 2, 3), 0.2),
        "corr": np.zeros((1, 2, 3)),
        "noise": np.full((1, 2), 0.4),
        "exponent": np.full((1, 2), 0.7),
        "gain": np.full((1, 2), 0.06),
        "theta": theta[None],
    }
    found = left_out(spec, lambda kept: result_tree(kept, draws), [3])
    # The last condition is read twice.
    kept = without(spec, 3)
    own = [
        readings_log_density(spec, row, 0.4, 0.7, 0.06) - readings_log_density(kept, row, 0.4, 0.7, 0.06)
        for row in theta
    ]
    assert found["readings"].tolist() == [12]
    assert found["lpd"].tolist() == pytest.approx([np.log(np.exp(own).mean())], abs=1e-9)
    assert found["condition"].tolist() == ["one"]
