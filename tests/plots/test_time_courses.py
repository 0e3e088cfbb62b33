"""Pictures of time courses."""

from __future__ import annotations

import pandas as pd
import pytest

from hbm_core.plots.time_courses import noise


@pytest.mark.parametrize(
    "means, ticks", [((0.02, 3.0, 4500.0), [0.1, 1, 10, 100, 1000]), ((2.0, 3.0, 9.0), [2, 5])]
)
def test_logarithmic_axes_name_round_numbers(means, ticks) -> None:
    """Others, as 0.07 and 0.6, are read by nobody; 2 and 5 stand between few powers of ten."""
    table = pd.DataFrame({"circuit": "a", "condition": "b", "time_min": 1.0, "mean": means, "var": 4.0})
    spec = noise(table, "nM", "light").to_dict()
    found = [layer["encoding"]["x"]["axis"]["values"] for layer in spec["layer"]]
    assert found == [ticks] * len(found)
