"""Tests of hbm_core.scenarios."""
