"""Figures from the tables of ``hbm_core.analysis``."""
