"""Pictures of time courses."""

from __future__ import annotations

import pandas as pd
import pytest

from hbm_core.plots.time_courses import noise


@pytest.mark.parametrize("means, ticks", [((0.2, 3.0, 450.0), [1, 10, 100]), ((2.0, 3.0, 9.0), None)])
def test_logarithmic_axes_name_powers_of_ten(means, ticks) -> None:
    """Others, as 0.07 and 0.6, are read by nobody; where there are fewer than two, the axis chooses."""
    table = pd.DataFrame({"circuit": "a", "condition": "b", "time_min": 1.0, "mean": means, "var": 4.0})
    spec = noise(table, "nM", "light").to_dict()
    found = [layer["encoding"]["x"]["axis"].get("values") for layer in spec["layer"]]
    assert found == [ticks] * len(found)
