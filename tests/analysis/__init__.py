"""Tests of hbm_core.analysis."""
