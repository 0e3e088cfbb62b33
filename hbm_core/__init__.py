"""Partial pooling in hierarchical Bayesian models: exact engines, samplers, tables and figures."""

__version__ = "0.1.0"
