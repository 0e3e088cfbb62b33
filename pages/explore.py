"""Explore: the home page."""

from hbm_core.ui import session
from hbm_core.ui.background import background
from hbm_core.ui.explore import explore

study = session.study()
explore(study)
background(study)
