"""Models of counts beyond the gamma population: declared here, listed by `EXTENSIONS`."""

from __future__ import annotations

from hbm_core.scenarios.base import Model

#: In the order in which they are offered.
EXTENSIONS: tuple[Model, ...] = ()
